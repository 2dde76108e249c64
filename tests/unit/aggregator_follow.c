/* SPDX-License-Identifier: Apache-2.0
 * A group of updates folded while they arrive: whatever happens to its members, the sums are those
 * of a plain fold of what was committed, or the group is lost and nothing has happened.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aggregator/follow.h"

#define ELEMENTS (5u * TRIB_PARTIAL_CHUNK + 1234u)
#define PAYLOAD  ((uint64_t)ELEMENTS * sizeof(float))
#define SLOTS    (TRIB_OP_MAX + 2)
#define SCALE    30u
#define ROUND    3u
#define SECOND   1000000000ull

static struct trib_segment segment;

struct fixture {
	struct agg_job job;
	struct agg_folder folder;
	struct agg_follow follow;
	uint64_t now;
};

static float value(uint32_t slot, uint32_t i)
{
	uint32_t x = (slot * 7919u + i) * 1664525u + 1013904223u;

	x ^= x >> 13;
	x *= 2654435761u;
	return (float)(int32_t)x * 0x1p-31f;
}

static uint64_t weight_of(uint32_t slot)
{
	return (slot + 1) * 1500001u;
}

/* A new upload into the slot. */
static uint32_t begin(uint32_t slot)
{
	struct trib_slot_record *record = trib_segment_record(&segment, slot);
	struct trib_slot_view v = trib_slot_load(record);

	if (v.state != TRIB_SLOT_FREE) {
		assert_true(trib_slot_move(record, v.state, v.gen, TRIB_SLOT_FREE));
		v = trib_slot_load(record);
	}
	assert_true(trib_slot_move(record, TRIB_SLOT_FREE, v.gen, TRIB_SLOT_FILLING));
	memset(trib_segment_slot(&segment, slot), 0x7f, PAYLOAD); /* what a former one left */
	return v.gen;
}

/* Elements up to `count` are here. */
static void fill(uint32_t slot, uint32_t count)
{
	struct trib_slot_record *record = trib_segment_record(&segment, slot);
	float *data = (float *)(void *)trib_segment_slot(&segment, slot);

	for (uint32_t i = 0; i < count; i++) {
		data[i] = value(slot, i);
	}
	trib_slot_fill(record, trib_slot_load(record).gen, (uint64_t)count * sizeof(float),
		       PAYLOAD);
}

static void commit(uint32_t slot)
{
	struct trib_slot_record *record = trib_segment_record(&segment, slot);
	uint32_t gen = trib_slot_load(record).gen;

	fill(slot, ELEMENTS);
	assert_true(trib_slot_move(record, TRIB_SLOT_FILLING, gen, TRIB_SLOT_READY));
	assert_true(trib_slot_move(record, TRIB_SLOT_READY, gen, TRIB_SLOT_CLAIMED));
}

static struct trib_descriptor descriptor(enum trib_descriptor_kind kind, uint32_t slot)
{
	return (struct trib_descriptor){
		.kind = (uint8_t)kind,
		.round = ROUND,
		.slot = slot,
		.gen = trib_slot_load(trib_segment_record(&segment, slot)).gen,
		.weight = weight_of(slot),
		.bytes = PAYLOAD,
		.updates = 1,
	};
}

static bool add(struct fixture *f, enum trib_descriptor_kind kind, uint32_t slot)
{
	struct trib_descriptor d = descriptor(kind, slot);

	return agg_follow_add(&f->follow, &f->job, &d, f->now);
}

static bool told(struct fixture *f, uint32_t slot)
{
	struct trib_descriptor d = descriptor(TRIB_DESC_UPDATE, slot);

	commit(slot);
	d = descriptor(TRIB_DESC_UPDATE, slot);
	return agg_follow_commit(&f->follow, &d, f->now);
}

/* Until there is nothing to do. */
static enum agg_follow_state run(struct fixture *f)
{
	enum agg_follow_state state;

	do {
		f->now += 1000;
		state = agg_follow_step(&f->follow, &f->job, &f->folder, f->now);
	} while (state == AGG_FOLLOW_MORE);
	return state;
}

static void own_partial(struct trib_partial *p, enum trib_accumulate accumulate, uint32_t lane,
			uint32_t lanes)
{
	uint64_t first;
	uint64_t elements = trib_partial_range(ELEMENTS, lane, lanes, &first);

	assert_int_equal(trib_partial_create("job_a", "boot_a", 3, 1, elements, accumulate, p), 0);
	trib_partial_place(p, first, lane, lanes);
	trib_partial_reset(p, ROUND);
	memset(trib_partial_accumulator(p), 0x55, 4096); /* an earlier round's */
}

static void setup_lane(struct fixture *f, enum trib_accumulate accumulate, uint32_t lane,
		       uint32_t lanes)
{
	memset(f, 0, sizeof(*f));
	f->now = SECOND;
	f->job.known = true;
	f->job.elements = ELEMENTS;
	f->job.accumulate = accumulate;
	f->job.has_segment = true;
	f->job.segment = segment;
	f->job.has_own = true;
	own_partial(&f->job.own, accumulate, lane, lanes);
	f->folder = (struct agg_folder){ .kernels = agg_kernels_best(),
					 .partial = &f->job.own,
					 .scale_bits = SCALE };
}

static void setup(struct fixture *f, enum trib_accumulate accumulate)
{
	setup_lane(f, accumulate, 0, 1);
}

static void teardown(struct fixture *f)
{
	trib_partial_fini(&f->job.own);
}

/* The same slots (a bit each), folded as they are when nobody follows. */
static void expect_sums(const struct fixture *f, uint64_t slots)
{
	const struct trib_partial *own = &f->job.own;
	struct trib_partial plain;
	struct agg_folder folder = f->folder;
	uint64_t count = 0;

	own_partial(&plain, own->accumulate, own->lane, own->lanes);
	folder.partial = &plain;
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		struct trib_partial_item item = { slot, 1, 1, 0, weight_of(slot) };
		struct agg_input input = { .weight = weight_of(slot) };

		if (!(slots >> slot & 1)) {
			continue;
		}
		input.data = (const float *)(void *)trib_segment_slot(&segment, slot) + own->first;
		assert_int_equal(trib_partial_begin(&plain, &item, 1), 0);
		agg_fold_run(&folder, &input, 1, 0);
		count++;
		assert_true(trib_partial_folded(
			own, slot, trib_slot_load(trib_segment_record(&segment, slot)).gen));
	}
	assert_int_equal(trib_partial_totals(own).updates, count);
	assert_int_equal(trib_partial_totals(own).weight, trib_partial_totals(&plain).weight);
	if (own->accumulate == TRIB_ACCUMULATE_EXACT) {
		assert_memory_equal(trib_partial_accumulator(own), trib_partial_accumulator(&plain),
				    own->elements * sizeof(int64_t));
	}
	trib_partial_fini(&plain);
}

/* What a function does when a group is lost: the committed ones as ever. */
static void fold_from_slots(struct fixture *f, uint64_t slots)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		struct trib_descriptor d = descriptor(TRIB_DESC_UPDATE, slot);
		struct trib_partial_item item = { slot, d.gen, 1, 0, d.weight };
		struct agg_input input = { .weight = d.weight };

		if (!(slots >> slot & 1)) {
			continue;
		}
		input.data = agg_job_update(&f->job, slot, d.gen);
		assert_non_null(input.data);
		assert_int_equal(trib_partial_begin(&f->job.own, &item, 1), 0);
		agg_fold_run(&f->folder, &input, 1, 0);
	}
}

static void members_come_in_any_steps(void **state)
{
	static const uint32_t steps[] = { 0, 100, TRIB_PARTIAL_CHUNK, 2 * TRIB_PARTIAL_CHUNK + 1,
					  4 * TRIB_PARTIAL_CHUNK };
	struct fixture f;

	(void)state;
	for (uint32_t turn = 0; turn < 4; turn++) { /* exact, f32, and exact in two lanes */
		setup_lane(&f, turn == 1 ? TRIB_ACCUMULATE_F32 : TRIB_ACCUMULATE_EXACT, turn == 3,
			   turn > 1 ? 2 : 1);
		for (uint32_t slot = 0; slot < 11; slot++) {
			(void)begin(slot);
			assert_true(add(&f, TRIB_DESC_FOLLOW, slot));
			assert_false(add(&f, TRIB_DESC_FOLLOW, slot));
		}
		for (uint32_t k = 0; k < 5 * 11; k++) {
			fill(k % 11, steps[(k / 11 + (k % 3 == 0 && k < 44)) % 5]);
			assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
		}
		for (uint32_t slot = 0; slot < 10; slot++) {
			assert_true(told(&f, slot));
			assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
		}
		(void)begin(11);
		commit(11); /* not followed, and here before the group is through */
		assert_true(add(&f, TRIB_DESC_UPDATE, 11));
		(void)begin(12);
		assert_false(add(&f, TRIB_DESC_FOLLOW, 12)); /* the group is to come to an end */
		assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
		assert_true(told(&f, 10));
		assert_int_equal(run(&f), AGG_FOLLOW_WHOLE);
		assert_int_equal(trib_partial_state(&f.job.own), TRIB_PARTIAL_EMPTY);
		assert_int_equal(agg_follow_keep(&f.follow, &f.folder), 0);
		expect_sums(&f, 0xfff);
		teardown(&f);
	}
}

static void one_that_goes_takes_the_group_along_once_it_is_in_the_sums(void **state)
{
	struct fixture f;

	(void)state;
	setup(&f, TRIB_ACCUMULATE_EXACT);
	for (uint32_t slot = 0; slot < 4; slot++) {
		(void)begin(slot);
		assert_true(add(&f, TRIB_DESC_FOLLOW, slot));
	}
	fill(0, 2 * TRIB_PARTIAL_CHUNK);
	fill(1, 2 * TRIB_PARTIAL_CHUNK);
	(void)begin(2); /* aborted, and the slot taken by another upload: nothing of it was used */
	assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
	assert_int_equal(f.follow.count, 3);
	fill(3, 2 * TRIB_PARTIAL_CHUNK);
	assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
	assert_true(f.follow.high > 0);
	assert_true(told(&f, 0));
	(void)begin(3);
	fill(3, ELEMENTS);
	assert_int_equal(run(&f), AGG_FOLLOW_LOST);
	assert_true(told(&f, 1));
	fold_from_slots(&f, 3);
	expect_sums(&f, 3);
	teardown(&f);
}

static void one_that_stalls_is_taken_out_of_exact_sums(void **state)
{
	struct fixture f;

	(void)state;
	for (uint32_t accumulate = 0; accumulate < 2; accumulate++) {
		for (uint32_t how = 0; how < 2; how++) {
			setup(&f, accumulate);
			for (uint32_t slot = 0; slot < 3; slot++) {
				(void)begin(slot);
				assert_true(add(&f, TRIB_DESC_FOLLOW, slot));
				fill(slot, 4 * TRIB_PARTIAL_CHUNK);
			}
			assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
			assert_true(told(&f, 0) && told(&f, 2));
			assert_int_equal(run(&f), AGG_FOLLOW_WAIT);
			f.follow.last_call = how == 0;
			f.now += how == 0 ? 0 : SECOND;
			if (accumulate == TRIB_ACCUMULATE_F32) {
				assert_int_equal(run(&f), AGG_FOLLOW_LOST);
				fold_from_slots(&f, 5);
			} else {
				assert_int_equal(run(&f), AGG_FOLLOW_WHOLE);
				assert_int_equal(agg_follow_keep(&f.follow, &f.folder), 0);
			}
			expect_sums(&f, 5);
			teardown(&f);
		}
	}
}

static void committed_otherwise_than_followed_is_refused(void **state)
{
	struct trib_descriptor d;
	struct fixture f;

	(void)state;
	setup(&f, TRIB_ACCUMULATE_EXACT);
	(void)begin(0);
	assert_true(add(&f, TRIB_DESC_FOLLOW, 0));
	commit(0);
	d = descriptor(TRIB_DESC_UPDATE, 0);
	d.weight++; /* discounted */
	assert_false(agg_follow_commit(&f.follow, &d, f.now));
	d = descriptor(TRIB_DESC_UPDATE, 0);
	d.round++; /* carried over */
	assert_false(agg_follow_commit(&f.follow, &d, f.now));
	d = descriptor(TRIB_DESC_UPDATE, 0);
	d.gen++;
	assert_false(agg_follow_commit(&f.follow, &d, f.now));
	d = descriptor(TRIB_DESC_FOLLOW, 1);
	d.gen++;
	assert_false(agg_follow_add(&f.follow, &f.job, &d, f.now));
	d = descriptor(TRIB_DESC_FOLLOW, 0);
	d.slot = SLOTS;
	assert_false(agg_follow_add(&f.follow, &f.job, &d, f.now));
	teardown(&f);
}

struct death {
	uint32_t steps_left;
};

static void die_at(void *arg, const char *step, uint32_t chunk)
{
	struct death *death = arg;

	(void)step;
	(void)chunk;
	if (death->steps_left-- == 0) {
		(void)raise(SIGKILL);
	}
}

static bool keep_in_child(struct fixture *f, uint32_t steps)
{
	struct death death = { steps };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		f->folder.on_step = die_at;
		f->folder.arg = &death;
		_exit(agg_follow_keep(&f->follow, &f->folder) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

/* What a successor does. */
static void resume(struct fixture *f)
{
	const struct trib_partial_header *h = trib_partial_header(&f->job.own);
	struct agg_input inputs[TRIB_OP_MAX];

	for (uint32_t i = 0; i < h->op_count; i++) {
		inputs[i] = (struct agg_input){ .data = agg_job_update(&f->job, h->op[i].slot,
								       h->op[i].gen),
						.weight = h->op[i].weight };
		assert_non_null(inputs[i].data);
	}
	if (h->cursor == trib_partial_chunks(&f->job.own)) {
		trib_partial_end(&f->job.own);
	} else {
		agg_fold_run(&f->folder, inputs, h->op_count, trib_partial_resume(&f->job.own));
	}
}

static void killed_at_any_step_nothing_is_lost_and_nothing_counts_twice(void **state)
{
	uint64_t all = (1ull << TRIB_OP_MAX) - 1;
	struct fixture f;
	uint32_t kills = 0;
	bool dead = true;

	(void)state;
	for (uint32_t steps = 0; dead; steps++) {
		setup(&f, TRIB_ACCUMULATE_EXACT);
		for (uint32_t slot = 0; slot < TRIB_OP_MAX; slot++) {
			(void)begin(slot);
			assert_true(add(&f, TRIB_DESC_FOLLOW, slot));
		}
		for (uint32_t slot = 0; slot < TRIB_OP_MAX; slot++) {
			assert_true(told(&f, slot));
		}
		(void)begin(TRIB_OP_MAX);
		commit(TRIB_OP_MAX);
		assert_false(add(&f, TRIB_DESC_UPDATE, TRIB_OP_MAX)); /* full */
		assert_int_equal(run(&f), AGG_FOLLOW_WHOLE);
		dead = keep_in_child(&f, steps);
		kills += dead;
		if (trib_partial_state(&f.job.own) == TRIB_PARTIAL_EMPTY &&
		    !trib_partial_op_active(&f.job.own)) {
			assert_int_equal(steps, 0);
			assert_int_equal(trib_partial_totals(&f.job.own).updates, 0);
			fold_from_slots(&f, all); /* the agent gives them again */
		} else if (trib_partial_op_active(&f.job.own)) {
			assert_false(trib_partial_folded(&f.job.own, 0, 1));
			resume(&f);
		}
		expect_sums(&f, all);
		teardown(&f);
	}
	assert_int_equal(kills, 4); /* whole, begun, advanced, done */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_come_in_any_steps),
		cmocka_unit_test(one_that_goes_takes_the_group_along_once_it_is_in_the_sums),
		cmocka_unit_test(one_that_stalls_is_taken_out_of_exact_sums),
		cmocka_unit_test(committed_otherwise_than_followed_is_refused),
		cmocka_unit_test(killed_at_any_step_nothing_is_lost_and_nothing_counts_twice),
	};

	if (trib_segment_create("job_a", "boot_a", 3, PAYLOAD, SLOTS, &segment)) {
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
