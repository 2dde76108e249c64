/* SPDX-License-Identifier: Apache-2.0
 * The real program, driven as the agent drives it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "shm/out.h"
#include "tests/unit/function_harness.h"

#define ELEMENTS (2u * TRIB_PARTIAL_CHUNK + 1234u)
#define UPDATES  12u
#define SCALE    30u
#define ROUND    4u
#define VERSION  3u
#define OFFSET   72u
#define LR       0.5

static char program[PATH_MAX];
static struct harness_zygote zygote;
static struct trib_segment segment;
static uint32_t gens[UPDATES];
static uint64_t weights[UPDATES];
static uint64_t weight_sum;
static float base[ELEMENTS];
static float expected[ELEMENTS];
static int base_fd;
static int out_fd;
static float *out;
static uint64_t *word; /* shm/out.h */

static int memory_fd(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	REQUIRE(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	return fd;
}

/* The same sums, the slow way. */
static void reference(void)
{
	for (uint32_t i = 0; i < ELEMENTS; i++) {
		int64_t sum = 0;
		double mean;

		for (uint32_t u = 0; u < UPDATES; u++) {
			const float *x = (const float *)(void *)trib_segment_slot(&segment, u);
			double t = (double)weights[u] * 0x1p-20 * (double)x[i] * 0x1p30;
			int64_t q = (int64_t)t;
			double rest = t - (double)q;

			q += rest > 0.5 || (rest == 0.5 && (q & 1));
			q -= rest < -0.5 || (rest == -0.5 && (q & 1));
			sum += q;
		}
		mean = (double)sum * 0x1p-30 / ((double)weight_sum * 0x1p-20);
		expected[i] = (float)((double)base[i] + LR * mean);
	}
}

static int group_setup(void **state)
{
	static float data[ELEMENTS];
	uint32_t x = 7;
	void *memory;

	(void)state;
	if (!harness_program(program, sizeof(program))) {
		print_message("%s is not there: make it first\n", program);
		exit(77);
	}
	REQUIRE(trib_segment_create("job_f", "boot_f", HARNESS_JOB, sizeof(data), UPDATES + 2,
				    &segment) == 0);
	for (uint32_t u = 0; u < UPDATES; u++) {
		for (uint32_t i = 0; i < ELEMENTS; i++) {
			x = x * 1664525u + 1013904223u;
			data[i] = (float)(int32_t)x * 0x1p-31f;
			base[i] = data[i];
		}
		weights[u] = (u + 1) * 777777u;
		weight_sum += weights[u];
		gens[u] = harness_slot(&segment, u, data, weights[u], ROUND);
	}
	base_fd = memory_fd(OFFSET + sizeof(base));
	REQUIRE(pwrite(base_fd, base, sizeof(base), OFFSET) == (ssize_t)sizeof(base));
	out_fd = memory_fd(trib_out_size(ELEMENTS));
	memory = mmap(NULL, trib_out_size(ELEMENTS), PROT_READ | PROT_WRITE, MAP_SHARED, out_fd, 0);
	REQUIRE(memory != MAP_FAILED);
	out = memory;
	word = (uint64_t *)(void *)((uint8_t *)memory + trib_out_at(ELEMENTS));
	reference();
	zygote = harness_zygote_start(program);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	assert_int_equal(harness_zygote_stop(&zygote), 0);
	return 0;
}

static struct trib_partial partial_new(uint32_t index)
{
	struct trib_partial partial;

	assert_int_equal(trib_partial_create("job_f", "boot_f", HARNESS_JOB, index, ELEMENTS,
					     TRIB_ACCUMULATE_EXACT, &partial),
			 0);
	return partial;
}

static void tell_job(const struct harness_function *f, uint32_t index, uint32_t delay_us)
{
	struct trib_fn_message m = { .kind = TRIB_FN_JOB,
				     .job_index = HARNESS_JOB,
				     .index = index,
				     .accumulate = TRIB_ACCUMULATE_EXACT,
				     .scale_bits = SCALE,
				     .elements = ELEMENTS,
				     .lr = LR,
				     .test_delay_us = delay_us };
	int data = trib_fd_read_only(segment.data_fd);
	int ctl = trib_fd_read_only(segment.ctl_fd);

	harness_tell(f, &m, data, ctl);
	(void)close(data);
	(void)close(ctl);
}

static void tell_own(const struct harness_function *f, const struct trib_partial *partial)
{
	struct trib_fn_message m = { .kind = TRIB_FN_OWN, .index = partial->index };

	harness_tell(f, &m, partial->fd, -1);
}

static void tell_child(const struct harness_function *f, const struct trib_partial *partial)
{
	struct trib_fn_message m = { .kind = TRIB_FN_CHILD, .index = partial->index };
	int fd = trib_fd_read_only(partial->fd);

	harness_tell(f, &m, fd, -1);
	(void)close(fd);
}

static void tell_model(const struct harness_function *f)
{
	struct trib_fn_message m = { .kind = TRIB_FN_BASE, .version = VERSION, .offset = OFFSET };
	int fd = trib_fd_read_only(base_fd);

	harness_tell(f, &m, fd, -1);
	(void)close(fd);
	m = (struct trib_fn_message){ .kind = TRIB_FN_OUT };
	harness_tell(f, &m, out_fd, -1);
}

static struct harness_function function_new(uint32_t index, const struct trib_partial *own,
					    uint32_t delay_us)
{
	struct harness_function f = harness_spawn(&zygote, index);

	tell_job(&f, index, delay_us);
	tell_own(&f, own);
	return f;
}

static struct trib_descriptor update(uint32_t u)
{
	return (struct trib_descriptor){ .kind = TRIB_DESC_UPDATE,
					 .round = ROUND,
					 .base = VERSION,
					 .slot = u,
					 .gen = gens[u],
					 .weight = weights[u],
					 .bytes = ELEMENTS * 4,
					 .updates = 1 };
}

static struct trib_descriptor order(enum trib_descriptor_kind kind, uint32_t slot)
{
	return (struct trib_descriptor){
		.kind = (uint8_t)kind, .round = ROUND, .base = VERSION, .slot = slot
	};
}

static struct trib_descriptor expect(struct harness_function *f, enum trib_descriptor_kind kind,
				     enum trib_descriptor_kind done)
{
	struct trib_descriptor d;

	assert_true(harness_receive(f, &d, HARNESS_WAIT_MS));
	assert_int_equal(d.kind, kind);
	assert_int_equal(d.flags, done);
	assert_int_equal(d.route, TRIB_ROUTE(HARNESS_JOB, 0));
	return d;
}

static void expect_nack(struct harness_function *f, struct trib_descriptor d, unsigned reason)
{
	harness_send(f, d);
	d = expect(f, TRIB_DESC_NACK, d.kind);
	assert_int_equal(d.tag, reason);
}

static void reset(struct harness_function *f)
{
	harness_send(f, order(TRIB_DESC_RESET, 0));
	(void)expect(f, TRIB_DESC_ACK, TRIB_DESC_RESET);
}

/* Sends updates [from, to) and takes their acknowledgements. */
static void feed(struct harness_function *f, uint32_t from, uint32_t to)
{
	for (uint32_t u = from; u < to; u++) {
		harness_send(f, update(u));
	}
	for (uint32_t u = from; u < to; u++) {
		struct trib_descriptor d = expect(f, TRIB_DESC_ACK, TRIB_DESC_UPDATE);

		assert_int_equal(d.slot, u);
		assert_int_equal(d.gen, gens[u]);
		assert_int_equal(d.round, ROUND);
		assert_int_equal(d.weight, weights[u]);
		assert_int_equal(d.updates, 1);
	}
}

/* MODEL, its answer, and the bits. */
static void expect_model(struct harness_function *f)
{
	struct trib_descriptor d;

	memset(out, 0, sizeof(base));
	tell_model(f);
	harness_send(f, order(TRIB_DESC_MODEL, 0));
	d = expect(f, TRIB_DESC_ACK, TRIB_DESC_MODEL);
	assert_int_equal(d.updates, UPDATES);
	assert_int_equal(d.weight, weight_sum);
	assert_memory_equal(out, expected, sizeof(base));
}

/* MODEL with a tag is answered with the squared norm of the mean. */
static void expect_norm(struct harness_function *f, const struct trib_partial *own)
{
	const int64_t *sums = trib_partial_accumulator(own);
	double divide = (double)weight_sum * (double)(1ull << (SCALE - TRIB_WEIGHT_BITS));
	struct trib_descriptor d = order(TRIB_DESC_MODEL, 0);
	double want = 0;
	double got;

	for (uint32_t i = 0; i < own->elements; i++) {
		want += ((double)sums[i] / divide) * ((double)sums[i] / divide);
	}
	d.tag = 1;
	harness_send(f, d);
	d = expect(f, TRIB_DESC_ACK, TRIB_DESC_MODEL);
	memcpy(&got, &d.bytes, sizeof(got));
	assert_int_equal(d.tag, 1);
	assert_true(want > 0 && got >= want * (1 - 1e-12) && got <= want * (1 + 1e-12));
}

static void stop(struct harness_function *f)
{
	harness_send(f, order(TRIB_DESC_STOP, 0));
	assert_int_equal(harness_reap(f), 0);
}

static void one_function_is_leaf_and_top(void **state)
{
	struct trib_partial own = partial_new(1);
	struct harness_function f = function_new(1, &own, 0);

	(void)state;
	reset(&f);
	assert_int_equal(trib_partial_header(&own)->owner_pid, f.pid);
	assert_true(trib_partial_header(&own)->owner_start > 0);
	feed(&f, 0, UPDATES);
	feed(&f, 3, 7); /* told twice, folded once */
	assert_int_equal(trib_partial_totals(&own).updates, UPDATES);
	expect_model(&f);
	expect_model(&f);
	expect_norm(&f, &own);
	stop(&f);
	trib_partial_fini(&own);
}

/* The same, acknowledged in any order. last_call: nothing else is coming. */
static void feed_together(struct harness_function *f, bool last_call)
{
	struct trib_descriptor last = order(TRIB_DESC_FOLLOW, 0);

	for (uint32_t u = 0; u < UPDATES; u++) {
		harness_send(f, update(u));
	}
	last.tag = 1;
	if (last_call) {
		harness_send(f, last);
	}
	for (uint32_t u = 0; u < UPDATES; u++) {
		(void)expect(f, TRIB_DESC_ACK, TRIB_DESC_UPDATE);
	}
}

static void follow(struct harness_function *f, uint32_t slot, uint32_t all)
{
	struct trib_descriptor d = update(slot % UPDATES);

	d.kind = TRIB_DESC_FOLLOW;
	d.slot = slot;
	d.gen = trib_slot_load(trib_segment_record(&segment, slot)).gen;
	d.updates = all;
	harness_send(f, d);
}

static void wait_for(const uint64_t *counter, uint64_t value)
{
	for (uint32_t i = 0; i < HARNESS_WAIT_MS; i++) {
		if (__atomic_load_n(counter, __ATOMIC_ACQUIRE) >= value) {
			return;
		}
		(void)poll(NULL, 0, 1);
	}
	fail();
}

/* Updates that were followed, and the model made behind them: the same bits. */
static void followed_updates_count_once_they_are_told(void **state)
{
	struct trib_partial own = partial_new(1);
	struct harness_function f = function_new(1, &own, 0);
	const struct trib_partial_stats *stats = &trib_partial_header(&own)->stats;
	struct trib_slot_record *record = trib_segment_record(&segment, UPDATES + 1);
	struct trib_descriptor d;

	(void)state;
	reset(&f);
	for (uint32_t turn = 1; turn <= 3; turn++) {
		uint64_t read = stats->follow_bytes;
		uint32_t former = trib_out_generation(trib_out_load(word));
		uint64_t ahead;

		memset(out, 0, sizeof(base));
		tell_model(&f);
		for (uint32_t u = 0; u < UPDATES; u++) {
			follow(&f, u, UPDATES);
		}
		wait_for(&stats->follow_bytes, read + UPDATES * sizeof(base));
		assert_int_equal(trib_partial_state(&own), TRIB_PARTIAL_EMPTY);
		wait_for(word, (uint64_t)(former + 1) << 32 | trib_partial_chunks(&own));
		assert_memory_equal(out, expected, sizeof(base)); /* final, as it says */
		if (turn == 1) {                                  /* forgotten */
			reset(&f);
			feed(&f, 0, UPDATES);
			assert_int_equal(stats->follow_dropped, 1);
		} else if (turn == 2) { /* one that was not followed comes in between */
			reset(&f);
			for (uint32_t u = 1; u < UPDATES; u++) {
				follow(&f, u, UPDATES);
			}
			feed_together(&f, false);
			assert_int_equal(stats->follow_kept, UPDATES);
		} else { /* one that never comes */
			uint32_t gen = trib_slot_load(record).gen;

			REQUIRE(trib_slot_move(record, TRIB_SLOT_FREE, gen, TRIB_SLOT_FILLING));
			trib_slot_fill(record, gen, sizeof(base) / 2, sizeof(base));
			follow(&f, UPDATES + 1, UPDATES);
			wait_for(&stats->followed, 3 * UPDATES - 1 + UPDATES + 1);
			feed_together(&f, true);
			assert_int_equal(stats->follow_evicted, 1);
		}
		ahead = trib_out_load(word);
		harness_send(&f, order(TRIB_DESC_MODEL, 0));
		d = expect(&f, TRIB_DESC_ACK, TRIB_DESC_MODEL);
		assert_int_equal(trib_out_chunks(trib_out_load(word)), trib_partial_chunks(&own));
		assert_int_equal(trib_out_generation(trib_out_load(word)) -
					 trib_out_generation(ahead),
				 turn == 1); /* made anew: whoever followed has to know */
		assert_int_equal(d.weight, weight_sum);
		assert_int_equal(stats->ahead, turn - 1); /* of what was forgotten there is none */
		assert_memory_equal(out, expected, sizeof(base));
		assert_int_equal(trib_partial_totals(&own).updates, UPDATES);
		follow(&f, 0, UPDATES); /* sealed: nothing to follow */
		reset(&f);
	}
	stop(&f);
	trib_partial_fini(&own);
}

static void what_is_wrong_is_refused_with_a_reason(void **state)
{
	struct trib_partial own = partial_new(1);
	struct harness_function f = function_new(1, &own, 0);
	struct trib_descriptor d;
	struct trib_fn_message m = { .kind = TRIB_FN_BASE, .offset = 1u << 30 };

	(void)state;
	reset(&f);
	d = update(0);
	d.gen++;
	expect_nack(&f, d, TRIB_NACK_STALE);
	d = update(0);
	d.slot = UPDATES; /* FREE */
	expect_nack(&f, d, TRIB_NACK_STALE);
	d.slot = 1u << 30;
	expect_nack(&f, d, TRIB_NACK_STALE);
	d.slot = UINT32_MAX;
	expect_nack(&f, d, TRIB_NACK_INVALID);
	d = update(0);
	d.round++;
	expect_nack(&f, d, TRIB_NACK_ROUND);
	d = update(0);
	d.bytes -= 4;
	expect_nack(&f, d, TRIB_NACK_INVALID);
	d = update(0);
	d.weight = 0;
	expect_nack(&f, d, TRIB_NACK_INVALID);
	d = update(0);
	d.dtype = 1;
	expect_nack(&f, d, TRIB_NACK_INVALID);
	expect_nack(&f, order(TRIB_DESC_PARTIAL, 9), TRIB_NACK_UNKNOWN);
	expect_nack(&f, order(TRIB_DESC_MODEL, 0), TRIB_NACK_UNKNOWN);
	expect_nack(&f, order(TRIB_DESC_FLUSH, TRIB_ROUTE(HARNESS_JOB + 1, 1)), TRIB_NACK_INVALID);
	d = update(0);
	d.job = HARNESS_JOB;
	trib_descriptor_seal(&d);
	d.weight ^= 1; /* check does not fit */
	assert_int_equal(trib_descriptor_send(f.data, &d), 0);
	assert_int_equal(expect(&f, TRIB_DESC_NACK, TRIB_DESC_UPDATE).tag, TRIB_NACK_INVALID);
	d = update(0);
	d.job = HARNESS_JOB + 1;
	trib_descriptor_seal(&d);
	assert_int_equal(trib_descriptor_send(f.data, &d), 0);
	assert_int_equal(expect(&f, TRIB_DESC_NACK, TRIB_DESC_UPDATE).tag, TRIB_NACK_INVALID);
	harness_tell(&f, &m, base_fd, -1); /* refused messages change nothing */
	harness_tell(&f, &m, -1, -1);
	m.kind = 99;
	harness_tell(&f, &m, base_fd, out_fd);
	assert_int_equal(trib_partial_totals(&own).updates, 0);
	feed(&f, 0, UPDATES);
	expect_model(&f);
	d = update(0);
	d.gen += 7;
	expect_nack(&f, d, TRIB_NACK_ROUND); /* sealed by MODEL */
	stop(&f);
	trib_partial_fini(&own);
}

static void a_tree_gives_the_same_bits(void **state)
{
	struct trib_partial partials[4] = { partial_new(1), partial_new(2), partial_new(3),
					    partial_new(4) };
	struct harness_function leaf[3];
	struct harness_function top = function_new(4, &partials[3], 0);

	(void)state;
	reset(&top);
	for (uint32_t i = 0; i < 3; i++) { /* the third gets nothing */
		struct trib_descriptor d;

		leaf[i] = function_new(i + 1, &partials[i], 0);
		reset(&leaf[i]);
		tell_child(&top, &partials[i]);
		feed(&leaf[i], i == 0 ? 0 : 5, i == 0 ? 5 : i == 1 ? UPDATES : 5);
		expect_nack(&top, order(TRIB_DESC_PARTIAL, i + 1), TRIB_NACK_STALE); /* unsealed */
		for (int twice = 0; twice < 2; twice++) {
			harness_send(&leaf[i], order(TRIB_DESC_FLUSH, TRIB_ROUTE(HARNESS_JOB, 4)));
			assert_true(harness_receive(&leaf[i], &d, HARNESS_WAIT_MS));
			assert_int_equal(d.kind, TRIB_DESC_PARTIAL);
			assert_int_equal(d.route, TRIB_ROUTE(HARNESS_JOB, 4));
			assert_int_equal(d.slot, i + 1);
			assert_int_equal(d.source, i + 1);
			harness_send(&top, d);
			d = expect(&top, TRIB_DESC_ACK, TRIB_DESC_PARTIAL);
			assert_int_equal(d.slot, i + 1);
		}
		d = update(0);
		d.gen += 7;
		expect_nack(&leaf[i], d, TRIB_NACK_ROUND); /* sealed */
	}
	expect_model(&top);
	for (uint32_t i = 0; i < 3; i++) {
		stop(&leaf[i]);
	}
	stop(&top);
	for (uint32_t i = 0; i < 4; i++) {
		trib_partial_fini(&partials[i]);
	}
}

/* kill -9 at several places of a fold; the successor answers for the op of the dead one. */
static void killed_while_folding_the_bits_are_the_same(void **state)
{
	(void)state;
	for (uint32_t kill_ms = 1; kill_ms < 130; kill_ms += 21) {
		struct trib_partial own = partial_new(1);
		struct harness_function f = function_new(1, &own, 20000); /* 3 chunks an op */
		uint32_t answered = 0;
		struct trib_descriptor d;
		bool active;

		reset(&f);
		for (uint32_t u = 0; u < UPDATES; u++) {
			harness_send(&f, update(u));
		}
		(void)poll(NULL, 0, (int)kill_ms);
		assert_int_equal(kill(f.pid, SIGKILL), 0);
		assert_true(WIFSIGNALED(harness_reap(&f)));
		active = trib_partial_op_active(&own);
		f = harness_spawn(&zygote, 1);
		tell_own(&f, &own); /* before its job: nothing can go on yet */
		tell_job(&f, 1, 0);
		if (active) { /* answered without being asked */
			answered = trib_partial_header(&own)->op_count;
			for (uint32_t i = 0; i < answered; i++) {
				d = expect(&f, TRIB_DESC_ACK, TRIB_DESC_UPDATE);
				assert_true(trib_partial_folded(&own, d.slot, d.gen));
			}
		}
		feed(&f, 0, UPDATES); /* the agent sends what was not acknowledged, or all */
		expect_model(&f);
		stop(&f);
		trib_partial_fini(&own);
	}
}

/* The dead one's op needs a child that the successor has not been given yet. */
static void an_op_waits_for_what_it_needs(void **state)
{
	struct trib_partial leaf = partial_new(2);
	struct trib_partial own = partial_new(1);
	struct trib_partial_item item = { TRIB_ITEM_PARTIAL | 2, ROUND, UPDATES, 0, 0 };
	struct harness_function f = function_new(2, &leaf, 0);
	struct trib_descriptor d;

	(void)state;
	reset(&f);
	feed(&f, 0, UPDATES);
	harness_send(&f, order(TRIB_DESC_FLUSH, 1));
	assert_true(harness_receive(&f, &d, HARNESS_WAIT_MS));
	assert_int_equal(d.route, TRIB_ROUTE(HARNESS_JOB, 1));
	stop(&f);
	item.weight = trib_partial_totals(&leaf).weight;
	trib_partial_reset(&own, ROUND);
	assert_int_equal(trib_partial_begin(&own, &item, 1), 0); /* and died */
	f = function_new(1, &own, 0);
	expect_nack(&f, order(TRIB_DESC_MODEL, 0), TRIB_NACK_UNKNOWN);
	expect_nack(&f, update(0), TRIB_NACK_UNKNOWN);
	tell_child(&f, &leaf);
	d = expect(&f, TRIB_DESC_ACK, TRIB_DESC_PARTIAL);
	assert_int_equal(d.slot, 2);
	assert_int_equal(d.weight, weight_sum);
	expect_model(&f);
	stop(&f);
	trib_partial_fini(&own);
	trib_partial_fini(&leaf);
}

static void end_of_file_ends_it(void **state)
{
	struct trib_partial own = partial_new(1);
	struct harness_function f = function_new(1, &own, 0);

	(void)state;
	reset(&f);
	assert_int_equal(harness_reap(&f), 0);
	trib_partial_fini(&own);
}

static void a_spare_serves_once_it_is_bound(void **state)
{
	struct trib_partial own = partial_new(1);
	struct harness_function f = harness_spare(&zygote);
	struct harness_function idle = harness_spare(&zygote);
	struct trib_fn_message bind = { .kind = TRIB_FN_BIND };
	int status;

	(void)state;
	harness_bind(&f);
	tell_job(&f, 1, 0);
	tell_own(&f, &own);
	reset(&f);
	harness_tell(&f, &bind, base_fd, -1); /* it has a place already: refused */
	feed(&f, 0, UPDATES);
	assert_int_equal(trib_partial_totals(&own).updates, UPDATES);
	assert_true(trib_partial_stats(&own).updates == UPDATES);
	assert_true(trib_partial_stats(&own).cpu_ns > 0);
	stop(&f);
	trib_partial_fini(&own);
	(void)close(idle.control); /* nobody needs it */
	assert_int_equal(waitpid(idle.pid, &status, 0), idle.pid);
	assert_int_equal(status, 0);
}

static bool gone(pid_t pid)
{
	char path[64];
	char text[256] = "";
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return true;
	}
	(void)(read(fd, text, sizeof(text) - 1) + 1);
	(void)close(fd);
	return strstr(text, ") Z") || strstr(text, ") X");
}

/* The agent dies; sockets stay open elsewhere; function and zygote go all the same. */
static void they_die_with_the_agent(void **state)
{
	int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int tell[2];
	int data[2];
	int control[2];
	pid_t agent;
	int status;

	(void)state;
	harness_tcp_pair(data);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), 0);
	assert_int_equal(pipe2(tell, O_CLOEXEC), 0);
	agent = fork();
	if (agent == 0) {
		struct harness_zygote z = harness_zygote_start(program);
		struct trib_fn_message m = { .magic = TRIB_FN_MAGIC, .kind = TRIB_FN_SPAWN };
		int fds[2] = { data[1], control[1] };
		uint32_t count;

		REQUIRE(trib_fd_send(z.fd, &m, sizeof(m), fds, 2) == 0);
		REQUIRE(trib_fd_receive(z.fd, &m, sizeof(m), fds, 2, &count) == (int)sizeof(m));
		shared[0] = m.pid;
		shared[1] = z.pid;
		REQUIRE(write(tell[1], "x", 1) == 1);
		pause();
	}
	assert_int_equal(read(tell[0], &status, 1), 1);
	assert_true(shared[0] > 0);
	(void)poll(NULL, 0, 50); /* past its prctl */
	assert_false(gone(shared[0]));
	assert_int_equal(kill(agent, SIGKILL), 0);
	assert_int_equal(waitpid(agent, &status, 0), agent);
	for (int i = 0; i < 200 && !(gone(shared[0]) && gone(shared[1])); i++) {
		(void)poll(NULL, 0, 10);
	}
	assert_true(gone(shared[0]));
	assert_true(gone(shared[1]));
}

static void the_zygote_survives_nonsense(void **state)
{
	struct trib_fn_message m = { .magic = 1, .kind = TRIB_FN_SPAWN };
	char small = 'x';
	uint32_t count;
	int fds[2] = { base_fd, out_fd };
	int extra[4] = { base_fd, out_fd, base_fd, out_fd };

	(void)state;
	for (int i = 0; i < 4; i++) {
		int rc = i == 0   ? trib_fd_send(zygote.fd, &small, 1, NULL, 0)
			 : i == 1 ? trib_fd_send(zygote.fd, &m, sizeof(m), fds, 2)
			 : i == 2 ? trib_fd_send(zygote.fd, &m, sizeof(m), extra, 4)
				  : trib_fd_send(zygote.fd, &m, sizeof(m), NULL, 0);

		assert_int_equal(rc, 0);
		assert_int_equal(trib_fd_receive(zygote.fd, &m, sizeof(m), fds, 2, &count),
				 sizeof(m));
		assert_int_equal(m.pid, -EBADMSG);
		m = (struct trib_fn_message){ .magic = i == 0 ? 1 : TRIB_FN_MAGIC,
					      .kind = TRIB_FN_SPAWN };
		fds[0] = base_fd;
		fds[1] = out_fd;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_function_is_leaf_and_top),
		cmocka_unit_test(followed_updates_count_once_they_are_told),
		cmocka_unit_test(what_is_wrong_is_refused_with_a_reason),
		cmocka_unit_test(a_tree_gives_the_same_bits),
		cmocka_unit_test(killed_while_folding_the_bits_are_the_same),
		cmocka_unit_test(an_op_waits_for_what_it_needs),
		cmocka_unit_test(end_of_file_ends_it),
		cmocka_unit_test(a_spare_serves_once_it_is_bound),
		cmocka_unit_test(they_die_with_the_agent),
		cmocka_unit_test(the_zygote_survives_nonsense),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
