/* SPDX-License-Identifier: Apache-2.0
 * Starts of a function. Cold: from the agent's SPAWN to the zygote's answer, and to the ACK of the
 * first update (JOB, OWN, RESET and the fold of a small update within). Cold with a spare: from
 * BIND. Warm: from RESET for the next round to the ACK of its first update. JSON lines.
 */
#include "common/clock.h"
#include "tests/unit/function_harness.h"

#define RUNS     301
#define ELEMENTS 1024u

static double spawned[RUNS];
static double first_ack[RUNS];
static double warm[RUNS];

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print(const char *name, double *values)
{
	qsort(values, RUNS, sizeof(*values), compare);
	printf("{\"name\":\"function.%s\",\"value\":%.1f,\"unit\":\"us\",\"n\":%d,\"spread\":%.1f,"
	       "\"min\":%.1f,\"p99\":%.1f}\n",
	       name, values[RUNS / 2], RUNS, values[RUNS * 9 / 10] - values[RUNS / 10], values[0],
	       values[RUNS * 99 / 100]);
}

static struct harness_function start(const struct harness_zygote *zygote, bool spare,
				     uint64_t *began)
{
	struct harness_function f;

	if (!spare) {
		*began = trib_clock_ns();
		return harness_spawn(zygote, 1);
	}
	f = harness_spare(zygote);
	(void)usleep(3000); /* it is ready before it is needed */
	*began = trib_clock_ns();
	harness_bind(&f);
	return f;
}

/* RESET and one small update, to its ACK. */
static void round_of(struct harness_function *f, uint32_t run)
{
	struct trib_descriptor d = { .kind = TRIB_DESC_RESET, .round = run };

	harness_send(f, d);
	d = (struct trib_descriptor){ .kind = TRIB_DESC_UPDATE,
				      .round = run,
				      .weight = 1u << 20,
				      .bytes = ELEMENTS * 4,
				      .updates = 1 };
	harness_send(f, d);
	REQUIRE(harness_receive(f, &d, HARNESS_WAIT_MS) && d.flags == TRIB_DESC_RESET);
	REQUIRE(harness_receive(f, &d, HARNESS_WAIT_MS) && d.kind == TRIB_DESC_ACK);
}

static void one(const struct harness_zygote *zygote, const struct trib_segment *segment,
		struct trib_partial *own, uint32_t run, bool spare)
{
	uint64_t began;
	struct harness_function f = start(zygote, spare, &began);
	struct trib_fn_message m = { .kind = TRIB_FN_JOB,
				     .job_index = HARNESS_JOB,
				     .index = 1,
				     .scale_bits = 30,
				     .elements = ELEMENTS,
				     .lr = 1 };

	spawned[run] = (double)(trib_clock_ns() - began) / 1000;
	harness_tell(&f, &m, segment->data_fd, segment->ctl_fd);
	m.kind = TRIB_FN_OWN;
	harness_tell(&f, &m, own->fd, -1);
	round_of(&f, 1);
	first_ack[run] = (double)(trib_clock_ns() - began) / 1000;
	(void)usleep(1000); /* it sleeps when it is needed again */
	began = trib_clock_ns();
	round_of(&f, 2);
	warm[run] = (double)(trib_clock_ns() - began) / 1000;
	REQUIRE(harness_reap(&f) == 0);
}

int main(void)
{
	static float data[ELEMENTS];
	struct trib_segment segment;
	struct trib_partial own;
	struct harness_zygote zygote;
	char program[PATH_MAX];

	if (!harness_program(program, sizeof(program))) {
		(void)fprintf(stderr, "%s is not there\n", program);
		return 77;
	}
	REQUIRE(trib_segment_create("job_b", "boot", HARNESS_JOB, sizeof(data), 1, &segment) == 0);
	REQUIRE(trib_partial_create("job_b", "boot", HARNESS_JOB, 1, ELEMENTS,
				    TRIB_ACCUMULATE_EXACT, &own) == 0);
	REQUIRE(harness_slot(&segment, 0, data, 1u << 20, 0) == 0);
	zygote = harness_zygote_start(program);
	for (uint32_t run = 0; run < RUNS; run++) {
		one(&zygote, &segment, &own, run, false);
	}
	print("spawned", spawned);
	print("first_ack", first_ack);
	print("warm_reuse", warm);
	for (uint32_t run = 0; run < RUNS; run++) {
		one(&zygote, &segment, &own, run, true);
	}
	print("bound", spawned);
	print("first_ack_pooled", first_ack);
	return harness_zygote_stop(&zygote);
}
