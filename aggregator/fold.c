/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/fold.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shm/descriptor.h"

/* The op's inputs sorted by what they need: updates first, then children, each in op order (f32
 * depends on the order, so a successor must find the same one). */
struct plan {
	const float *updates[TRIB_OP_MAX];
	double scales[TRIB_OP_MAX];
	float weights[TRIB_OP_MAX];
	uint32_t update_count;
	const void *partials[TRIB_FOLD_MAX];
	uint32_t partial_count;
	bool first;
};

static void plan_make(const struct agg_folder *folder, const struct agg_input *inputs,
		      uint32_t count, bool first, struct plan *plan)
{
	double one = 1.0 / (double)(1u << TRIB_WEIGHT_BITS);

	plan->update_count = 0;
	plan->partial_count = 0;
	plan->first = first;
	for (uint32_t i = 0; i < count; i++) {
		double weight = (double)inputs[i].weight * (inputs[i].minus ? -one : one);
		uint32_t at = plan->update_count;

		if (inputs[i].partial) {
			if (inputs[i].data && plan->partial_count < TRIB_FOLD_MAX) {
				plan->partials[plan->partial_count++] = inputs[i].data;
			}
			continue;
		}
		plan->updates[at] = inputs[i].data;
		plan->scales[at] = weight * (double)(1ull << (folder->scale_bits & 63));
		plan->weights[at] = (float)weight;
		plan->update_count++;
	}
}

/* The k-th pass of up to TRIB_FOLD_MAX updates; a chunk stays in the cache between passes. */
static uint32_t pass_size(const struct plan *plan, uint32_t done)
{
	uint32_t left = plan->update_count - done;

	return left < TRIB_FOLD_MAX ? left : TRIB_FOLD_MAX;
}

static void fold_exact(const struct agg_folder *folder, const struct plan *plan, uint64_t from,
		       size_t count)
{
	int64_t *sums = (int64_t *)trib_partial_accumulator(folder->partial) + from;
	const float *updates[TRIB_FOLD_MAX];
	const int64_t *partials[TRIB_FOLD_MAX];
	bool first = plan->first;
	uint32_t k;

	for (uint32_t done = 0; done < plan->update_count; done += k) {
		k = pass_size(plan, done);
		for (uint32_t i = 0; i < k; i++) {
			updates[i] = plan->updates[done + i] + from;
		}
		folder->kernels->exact[k - 1][first](sums, updates, plan->scales + done, count);
		first = false;
	}
	if (plan->partial_count) {
		for (uint32_t i = 0; i < plan->partial_count; i++) {
			partials[i] = (const int64_t *)plan->partials[i] + from;
		}
		folder->kernels->merge_exact[plan->partial_count - 1][first](sums, partials, count);
		first = false;
	}
	if (first) {
		memset(sums, 0, count * sizeof(*sums)); /* nothing but empty children */
	}
}

static void fold_f32(const struct agg_folder *folder, const struct plan *plan, uint64_t from,
		     size_t count)
{
	float *sums = (float *)trib_partial_accumulator(folder->partial) + from;
	const float *updates[TRIB_FOLD_MAX];
	const float *partials[TRIB_FOLD_MAX];
	bool first = plan->first;
	uint32_t k;

	for (uint32_t done = 0; done < plan->update_count; done += k) {
		k = pass_size(plan, done);
		for (uint32_t i = 0; i < k; i++) {
			updates[i] = plan->updates[done + i] + from;
		}
		folder->kernels->f32[k - 1][first](sums, updates, plan->weights + done, count);
		first = false;
	}
	if (plan->partial_count) {
		for (uint32_t i = 0; i < plan->partial_count; i++) {
			partials[i] = (const float *)plan->partials[i] + from;
		}
		folder->kernels->merge_f32[plan->partial_count - 1][first](sums, partials, count);
		first = false;
	}
	if (first) {
		memset(sums, 0, count * sizeof(*sums));
	}
}

/* Tests: an update whose folding kills its function, every time. */
static void test_poison(const struct agg_folder *folder, const struct plan *plan, uint64_t from)
{
	for (uint32_t i = 0; i < plan->update_count && folder->poison; i++) {
		uint32_t bits;

		memcpy(&bits, plan->updates[i] + from, sizeof(bits));
		if (bits == folder->poison) {
			abort();
		}
	}
}

static void fold_range(const struct agg_folder *folder, const struct plan *plan, uint64_t from,
		       size_t count)
{
	test_poison(folder, plan, from);
	if (folder->partial->accumulate == TRIB_ACCUMULATE_F32) {
		fold_f32(folder, plan, from, count);
	} else {
		fold_exact(folder, plan, from, count);
	}
}

static void pause_us(uint32_t us)
{
	struct timespec t = { .tv_sec = us / 1000000u, .tv_nsec = (long)(us % 1000000u) * 1000 };

	if (us) {
		(void)nanosleep(&t, NULL);
	}
}

void agg_fold_plain(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count,
		    bool first, uint64_t from, size_t size)
{
	struct plan plan;

	TRIB_ASSERT(count > 0 && count <= TRIB_OP_MAX);
	plan_make(folder, inputs, count, first, &plan);
	fold_range(folder, &plan, from, size);
	pause_us(folder->delay_us);
}

static void step(const struct agg_folder *folder, const char *name, uint32_t chunk)
{
	if (folder->on_step) {
		folder->on_step(folder->arg, name, chunk);
	}
}

void agg_fold_run(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count,
		  uint32_t chunk)
{
	uint32_t chunks = trib_partial_chunks(folder->partial);
	struct plan plan;

	TRIB_ASSERT(count > 0 && count <= TRIB_OP_MAX);
	plan_make(folder, inputs, count, trib_partial_header(folder->partial)->op_first != 0,
		  &plan);
	step(folder, "begun", chunk);
	for (; chunk < chunks; chunk++) {
		uint64_t from = (uint64_t)chunk * TRIB_PARTIAL_CHUNK;
		uint64_t rest = folder->partial->elements - from;
		size_t size = rest < TRIB_PARTIAL_CHUNK ? rest : TRIB_PARTIAL_CHUNK;
		size_t half = folder->on_step ? size / 2 : 0;

		trib_partial_before_chunk(folder->partial, chunk);
		step(folder, "undo", chunk);
		if (half) { /* tests see a torn chunk */
			fold_range(folder, &plan, from, half);
			step(folder, "torn", chunk);
		}
		fold_range(folder, &plan, from + half, size - half);
		step(folder, "changed", chunk);
		trib_partial_after_chunk(folder->partial, chunk);
		step(folder, "advanced", chunk);
		pause_us(folder->delay_us);
	}
	trib_partial_end(folder->partial);
	step(folder, "done", chunk);
}

void agg_fold_back(const struct agg_folder *folder, const struct agg_input *inputs, uint32_t count)
{
	struct agg_input taken[TRIB_OP_MAX];
	struct plan plan;
	uint32_t chunk;

	TRIB_ASSERT(count > 0 && count <= TRIB_OP_MAX);
	for (uint32_t i = 0; i < count; i++) {
		taken[i] = inputs[i];
		taken[i].minus = true;
	}
	plan_make(folder, taken, count, false, &plan);
	while (trib_partial_back_chunk(folder->partial, &chunk)) {
		uint64_t from = (uint64_t)chunk * TRIB_PARTIAL_CHUNK;
		uint64_t rest = folder->partial->elements - from;
		size_t size = rest < TRIB_PARTIAL_CHUNK ? rest : TRIB_PARTIAL_CHUNK;
		size_t half = folder->on_step ? size / 2 : 0;

		step(folder, "back", chunk);
		if (half) {
			fold_range(folder, &plan, from, half);
			step(folder, "back-torn", chunk);
		}
		fold_range(folder, &plan, from + half, size - half);
		trib_partial_back_done(folder->partial, chunk);
		step(folder, "back-done", chunk);
		pause_us(folder->delay_us);
	}
	step(folder, "gone", 0);
}
