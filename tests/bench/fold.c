/* SPDX-License-Identifier: Apache-2.0
 * What an exact sum costs: GB/s of input folded, one thread, exact against f32, with and without
 * the undo journal; the alternatives of docs/adr/0001-exact-sums.md. JSON lines: name, value,
 * unit, n, spread.
 *
 * Variants of one size are interleaved run by run, so that a noisy neighbour hits all alike.
 * Usage: fold [largest update in MB, default 232]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "aggregator/fold.h"
#include "common/clock.h"
#include "tests/bench/fold_alternatives.h"

#define RUNS     9
#define VARIANTS 64
#define K_MAX    8
#define MB       1000000.0

struct variant {
	char name[64];
	double unit_bytes; /* input bytes of one run */
	double value[RUNS];
	int (*run)(const struct variant *variant);
	uint32_t k;
	uint32_t repeat;
	bool first;
	enum trib_accumulate accumulate;
	agg_alternative_fn *alternative;
};

static const struct agg_kernels *kernels;
static const float *inputs[K_MAX];
static double scales[K_MAX];
static float weights[K_MAX];
static struct trib_partial partials[2];
static void *spare; /* accumulator of the alternatives, 16 bytes per element */
static size_t elements;
static uint32_t gen;

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const struct variant *v, double *ret_spread)
{
	double sorted[RUNS];

	memcpy(sorted, v->value, sizeof(sorted));
	qsort(sorted, RUNS, sizeof(*sorted), compare);
	*ret_spread = sorted[RUNS - 1] - sorted[0];
	return sorted[RUNS / 2];
}

static void *memory(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		_exit(1);
	}
	memset(p, 0, size);
	return p;
}

static int run_journal(const struct variant *v)
{
	struct trib_partial *partial = &partials[v->accumulate];
	struct agg_folder folder = { .kernels = kernels, .partial = partial, .scale_bits = 30 };
	struct trib_partial_item items[K_MAX] = { 0 };
	struct agg_input in[K_MAX] = { 0 };
	int rc;

	for (uint32_t i = 0; i < v->k; i++) {
		items[i] = (struct trib_partial_item){ .slot = i, .gen = ++gen, .weight = 1 << 20 };
		in[i] = (struct agg_input){ .data = inputs[i], .weight = 1 << 20 };
	}
	if (v->first) {
		trib_partial_reset(partial, 1);
	}
	rc = trib_partial_begin(partial, items, v->k);
	if (!rc) {
		agg_fold_run(&folder, in, v->k, 0);
	}
	return rc;
}

static int run_kernel(const struct variant *v)
{
	void *sums = trib_partial_accumulator(&partials[v->accumulate]);

	for (size_t from = 0; from < elements; from += TRIB_PARTIAL_CHUNK) {
		size_t rest = elements - from;
		size_t count = rest < TRIB_PARTIAL_CHUNK ? rest : TRIB_PARTIAL_CHUNK;
		const float *in[K_MAX];

		for (uint32_t i = 0; i < v->k; i++) {
			in[i] = inputs[i] + from;
		}
		if (v->alternative) {
			v->alternative(spare, from, in, scales, count, v->k);
		} else if (v->accumulate == TRIB_ACCUMULATE_F32) {
			kernels->f32[v->k - 1][v->first]((float *)sums + from, in, weights, count);
		} else {
			kernels->exact[v->k - 1][v->first]((int64_t *)sums + from, in, scales,
							   count);
		}
	}
	return 0;
}

static struct variant *add(struct variant *list, uint32_t *count, const char *name, uint32_t k)
{
	struct variant *v = &list[(*count)++];

	TRIB_ASSERT(*count <= VARIANTS);
	memset(v, 0, sizeof(*v));
	(void)snprintf(v->name, sizeof(v->name), "%s.k%u", name, k);
	v->k = k;
	v->unit_bytes = (double)elements * sizeof(float) * k;
	v->repeat = v->unit_bytes < 64 * MB ? (uint32_t)(64 * MB / v->unit_bytes) + 1 : 1;
	v->run = run_kernel;
	return v;
}

static uint32_t variants_make(struct variant *list)
{
	static const uint32_t ks[] = { 1, 2, 4, 8 };
	bool wide = strcmp(kernels->name, "v4") == 0;
	uint32_t count = 0;

	for (size_t i = 0; i < TRIB_COUNT(ks); i++) {
		add(list, &count, "f32", ks[i])->accumulate = TRIB_ACCUMULATE_F32;
		(void)add(list, &count, "exact", ks[i]);
		struct variant *v = add(list, &count, "f32_journal", ks[i]);

		v->accumulate = TRIB_ACCUMULATE_F32;
		v->run = run_journal;
		add(list, &count, "exact_journal", ks[i])->run = run_journal;
		v = add(list, &count, "f32_first", ks[i]);
		v->accumulate = TRIB_ACCUMULATE_F32;
		v->first = true;
		add(list, &count, "exact_first", ks[i])->first = true;
		for (size_t a = 0; wide && ks[i] != 2 && agg_alternatives[a].name; a++) {
			add(list, &count, agg_alternatives[a].name, ks[i])->alternative =
				agg_alternatives[a].fold;
		}
	}
	return count;
}

static void measure(struct variant *list, uint32_t count, double mb)
{
	for (uint32_t run = 0; run < RUNS + 1; run++) { /* the first one warms up */
		for (uint32_t i = 0; i < count; i++) {
			uint64_t start = trib_clock_ns();

			for (uint32_t r = 0; r < list[i].repeat; r++) {
				TRIB_ASSERT(list[i].run(&list[i]) == 0);
			}
			if (run) {
				list[i].value[run - 1] = list[i].unit_bytes * list[i].repeat /
							 (double)(trib_clock_ns() - start);
			}
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		double spread;
		double value = median(&list[i], &spread);

		printf("{\"name\":\"fold.%s.%gMB\",\"value\":%.3f,\"unit\":\"GB/s\",\"n\":%d,"
		       "\"spread\":%.3f,\"isa\":\"%s\"}\n",
		       list[i].name, mb, value, RUNS, spread, kernels->name);
	}
}

/* Pairs (f32, exact) are neighbours in the list: the ratio of each run, then the median. */
static void ratios(const struct variant *list, uint32_t count, double mb)
{
	for (uint32_t i = 0; i + 1 < count; i++) {
		struct variant ratio = { 0 };
		double spread;

		if (strncmp(list[i].name, "f32", 3) != 0) {
			continue;
		}
		for (uint32_t r = 0; r < RUNS; r++) {
			ratio.value[r] = list[i].value[r] / list[i + 1].value[r];
		}
		double value = median(&ratio, &spread);

		printf("{\"name\":\"fold.cost_%s_over_%s.%gMB\",\"value\":%.3f,\"unit\":\"ratio\","
		       "\"n\":%d,\"spread\":%.3f}\n",
		       list[i + 1].name, list[i].name, mb, value, RUNS, spread);
	}
}

static int size_run(double mb)
{
	static struct variant list[VARIANTS];
	uint32_t count;
	int rc = 0;

	elements = (size_t)(mb * MB / sizeof(float));
	for (uint32_t i = 0; i < K_MAX; i++) {
		float *data = memory(elements * sizeof(float));

		for (size_t e = 0; e < elements; e++) {
			data[e] = (float)((e * 2654435761u + i * 97u) % 20011u) * 1e-4f - 1.0f;
		}
		inputs[i] = data;
		weights[i] = 1.0f;
		scales[i] = (double)(1u << 30);
	}
	spare = memory(elements * 16);
	for (uint32_t a = 0; a < 2 && !rc; a++) {
		rc = trib_partial_create("job_bench", "boot", 0, a, elements, a, &partials[a]);
		if (!rc) {
			memset(trib_partial_accumulator(&partials[a]), 0, elements * (a ? 4 : 8));
		}
	}
	if (rc) {
		(void)fprintf(stderr, "partial: %s\n", strerror(-rc));
		return rc;
	}
	count = variants_make(list);
	measure(list, count, mb);
	ratios(list, count, mb);
	for (uint32_t i = 0; i < K_MAX; i++) {
		(void)munmap((void *)(uintptr_t)inputs[i], elements * sizeof(float));
	}
	(void)munmap(spare, elements * 16);
	trib_partial_fini(&partials[0]);
	trib_partial_fini(&partials[1]);
	return 0;
}

int main(int argc, char **argv)
{
	static const double sizes[] = { 1, 44.7, 232 };
	double largest = argc > 1 ? strtod(argv[1], NULL) : 232;

	kernels = agg_kernels_best();
	for (size_t i = 0; i < TRIB_COUNT(sizes); i++) {
		if (sizes[i] <= largest && size_run(sizes[i])) {
			return 1;
		}
		(void)fflush(stdout);
	}
	return 0;
}
