/* SPDX-License-Identifier: Apache-2.0
 * Without a Redis: what would be sent is kept, and answered when the test says so.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/redis.h"

#define SENT_MAX  64
#define WORDS_MAX 600

struct trib_value { /* an answer: an array of the numbers of the calls in it, an error, or one of
		       them */
	enum trib_value_type type;
	size_t first;
	struct trib_value *elements;
};

static struct {
	trib_redis_cb *cb;
	void *arg;
	size_t count;
	char words[WORDS_MAX][40];
} sent[SENT_MAX];
static size_t sent_count;
static int refusal;

static int fake_call(struct trib_redis *redis, trib_redis_cb *cb, void *arg, size_t count,
		     const char *const words[], const size_t sizes[])
{
	(void)redis;
	if (refusal) {
		return refusal;
	}
	assert_true(sent_count < SENT_MAX && count <= WORDS_MAX);
	sent[sent_count].cb = cb;
	sent[sent_count].arg = arg;
	sent[sent_count].count = count;
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(sizes[i], strlen(words[i]));
		(void)snprintf(sent[sent_count].words[i], 40, "%s", words[i]);
	}
	sent_count++;
	return 0;
}

static enum trib_value_type fake_type(const struct trib_value *value)
{
	return value->type;
}

static const struct trib_value *fake_at(const struct trib_value *value, size_t index)
{
	return &value->elements[index];
}

#define trib_redis_call fake_call
#define trib_value_type fake_type
#define trib_value_at   fake_at
#include "gateway/batch.c"
#include "gateway/metrics.c"

static struct gw_batches *batches;
static size_t answered;
static long results[512]; /* number of the answer; -1: NULL, -2: an error */

static void on_result(const struct trib_value *value, void *arg)
{
	long *result = arg;

	answered++;
	*result = !value ? -1 : value->type == TRIB_VALUE_ERROR ? -2 : (long)value->first;
}

/* Check-in number `number`, of a client of that name. */
static int checkin(const char *key, size_t number)
{
	char client[16];

	(void)snprintf(client, sizeof(client), "c%zu", number);
	return gw_batch_call(batches, GW_BATCH_CHECKIN, key, on_result, &results[number], client,
			     "upd", "", "", "n1", NULL);
}

/* Redis answers call `i` with what its clients are called. */
static void answer(size_t i)
{
	struct trib_value elements[GW_BATCH_MAX];
	struct trib_value whole = { TRIB_VALUE_ARRAY, 0, elements };
	size_t count = (sent[i].count - 4) / 5;

	for (size_t n = 0; n < count; n++) {
		elements[n] = (struct trib_value){ TRIB_VALUE_ARRAY,
						   strtoul(sent[i].words[4 + 5 * n] + 1, NULL, 10),
						   NULL };
	}
	sent[i].cb(&whole, sent[i].arg);
}

static int setup(void **state)
{
	(void)state;
	sent_count = answered = 0;
	refusal = 0;
	return gw_batches_new(NULL, &batches);
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < BUCKETS; i++) {
		assert_true(LIST_EMPTY(&batches->buckets[i]));
	}
	assert_int_equal(batches->outstanding, 0);
	batches = gw_batches_free(batches);
	return 0;
}

static void one_goes_at_once_the_others_together_when_it_is_answered(void **state)
{
	(void)state;
	for (size_t i = 0; i < 200; i++) {
		assert_int_equal(checkin("trib:{a}:job", i), 0);
	}
	assert_int_equal(sent_count, 1);
	assert_int_equal(sent[0].count, 4 + 5);
	assert_string_equal(sent[0].words[1], "trib_checkin_many");
	assert_string_equal(sent[0].words[3], "trib:{a}:job");
	answer(0);
	assert_int_equal(answered, 1);
	assert_int_equal(sent_count, 5); /* 199: 64, 64, 64 and 7 */
	assert_int_equal(sent[1].count, 4 + 64 * 5);
	assert_int_equal(sent[4].count, 4 + 7 * 5);
	assert_string_equal(sent[4].words[4], "c193");
	assert_int_equal(checkin("trib:{a}:job", 200), 0);
	for (size_t i = 1; i < 5; i++) {
		assert_int_equal(sent_count, 5);
		answer(i);
	}
	assert_int_equal(sent_count, 6);
	answer(5);
	assert_int_equal(answered, 201);
	for (long i = 0; i <= 200; i++) {
		assert_int_equal(results[i], i);
	}
}

static void jobs_and_kinds_do_not_wait_for_each_other(void **state)
{
	(void)state;
	assert_int_equal(checkin("trib:{a}:job", 1), 0);
	assert_int_equal(checkin("trib:{b}:job", 2), 0);
	assert_int_equal(gw_batch_call(batches, GW_BATCH_COMMIT, "trib:{a}:job", on_result,
				       &results[3], "c3", "u", "1", "d", "1", "p", "n", "", "",
				       NULL),
			 0);
	assert_int_equal(sent_count, 3);
	assert_string_equal(sent[2].words[1], "trib_commit_many");
	assert_int_equal(sent[2].count, 4 + 9);
	answer(1);
	answer(0);
	sent[2].cb(NULL, sent[2].arg); /* the connection is freed */
	assert_int_equal(results[1], 1);
	assert_int_equal(results[2], 2);
	assert_int_equal(results[3], -1);
}

static void an_error_is_everybodys(void **state)
{
	const struct trib_value error = { TRIB_VALUE_ERROR, 0, NULL };

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(checkin("k", i), 0);
	}
	answer(0);
	sent[1].cb(&error, sent[1].arg);
	assert_int_equal(results[0], 0);
	assert_int_equal(results[1], -2);
	assert_int_equal(results[2], -2);
}

static void what_cannot_be_sent_is_said(void **state)
{
	(void)state;
	refusal = -ENOBUFS;
	assert_int_equal(checkin("k", 0), -ENOBUFS);
	assert_int_equal(answered, 0);
	refusal = 0;
	assert_int_equal(checkin("k", 0), 0);
	assert_int_equal(checkin("k", 1), 0);
	refusal = -ESHUTDOWN;
	answer(0); /* the one that waits cannot be sent: its caller hears of it */
	assert_int_equal(answered, 2);
	assert_int_equal(results[1], -1);
}

static void calls_with_too_few_or_too_many_words_are_refused(void **state)
{
	(void)state;
	for (int waiting = 0; waiting < 2; waiting++) {
		assert_int_equal(gw_batch_call(batches, GW_BATCH_CHECKIN, "k", on_result,
					       &results[9], "c", "u", "", "", NULL),
				 -EINVAL);
		assert_int_equal(gw_batch_call(batches, GW_BATCH_CHECKIN, "k", on_result,
					       &results[9], "c", "u", "", "", "n", "x", NULL),
				 -EINVAL);
		assert_int_equal(sent_count, waiting);
		assert_int_equal(checkin("k", (size_t)waiting), 0);
	}
	assert_int_equal(sent_count, 1);
	answer(0);
	assert_int_equal(sent[1].count, 4 + 5);
	answer(1);
	assert_int_equal(answered, 2);
}

static void too_many_without_an_answer_are_refused(void **state)
{
	size_t had = batches->outstanding;

	(void)state;
	batches->outstanding = GW_BATCH_CALLS_MAX;
	assert_int_equal(checkin("k", 0), -ENOBUFS);
	batches->outstanding = had;
	assert_int_equal(trib_metric_get(&gw_metrics[GW_M_BATCH_REFUSED]), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_goes_at_once_the_others_together_when_it_is_answered),
		TEST(jobs_and_kinds_do_not_wait_for_each_other),
		TEST(an_error_is_everybodys),
		TEST(what_cannot_be_sent_is_said),
		TEST(calls_with_too_few_or_too_many_words_are_refused),
		TEST(too_many_without_an_answer_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
