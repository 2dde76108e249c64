/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/counting.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_SHOWN 1000
#define TWENTIETH    (1.0 / (1 << 20))

static struct load_round receipts_of(const struct load_result *result, uint32_t round)
{
	struct load_round sum = { .receipts = 0 };

	for (unsigned i = 0; i < result->worker_count; i++) {
		const struct load_worker *worker = result->workers[i];

		if (round < worker->round_count) {
			sum.receipts += worker->rounds[round].receipts;
			sum.weight_fx += worker->rounds[round].weight_fx;
			sum.sum += worker->rounds[round].sum;
		}
	}
	return sum;
}

struct comparison {
	uint64_t receipts;
	uint64_t counted;
	uint64_t lost;
	uint64_t beyond;
	uint64_t unchecked; /* receipts of rounds the service does not show */
	uint64_t declared_lost;
	uint32_t first_bad; /* round, 0: none */
	double factor;      /* what value 1 has become in the last published model */
	int64_t version;
};

static void compare_round(const struct load_result *result, const struct load_service_round *round,
			  struct comparison *c)
{
	struct load_round ours = receipts_of(result, round->round);
	uint64_t counted = round->accepted;

	if (round->round == result->job->first_round) {
		uint64_t before = result->job->first_accepted;

		counted -= before < counted ? before : counted;
	}
	c->counted += counted;
	c->declared_lost += round->lost;
	if (counted < ours.receipts) {
		c->lost += ours.receipts - counted;
		c->first_bad = c->first_bad ? c->first_bad : round->round;
	} else {
		c->beyond += counted - ours.receipts;
	}
	if (round->version > c->version && strcmp(round->state, "published") == 0) {
		c->version = round->version;
		if (ours.weight_fx) {
			c->factor +=
				result->job->lr * ours.sum / ((double)ours.weight_fx * TWENTIETH);
		}
	}
}

static uint64_t unresolved(const struct load_result *result)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < result->worker_count; i++) {
		sum += result->workers[i]->unresolved;
	}
	return sum;
}

static json_t *check_model(const struct load_result *result, const struct comparison *c,
			   bool *ret_ok)
{
	const char *why = NULL;

	if (!result->job->ours || !result->job->mean) {
		why = "only for jobs made by this run that publish a weighted mean of deltas";
	} else if (c->lost || c->beyond || c->declared_lost) {
		why = "not every counted update has a receipt";
	} else if (c->version <= 0) {
		why = "nothing was published";
	}
	if (why) {
		*ret_ok = true;
		return json_pack("{s:b, s:s}", "checked", 0, "why", why);
	}
	return load_job_model(result->plan, result->run, result->job, c->version, c->factor,
			      ret_ok);
}

json_t *load_counting_json(const struct load_result *result, bool *ret_ok)
{
	struct comparison c = { .version = 0 };
	uint64_t open = unresolved(result);
	uint64_t twice;
	bool model_ok = true;
	json_t *model;

	for (unsigned i = 0; i < result->worker_count; i++) {
		const struct load_worker *worker = result->workers[i];

		for (uint32_t r = 0; r < worker->round_count; r++) {
			c.receipts += worker->rounds[r].receipts;
		}
	}
	if (!result->rounds_known) {
		*ret_ok = false;
		return json_pack("{s:b, s:I, s:I}", "checked", 0, "receipts",
				 (json_int_t)c.receipts, "unresolved", (json_int_t)open);
	}
	c.unchecked = c.receipts;
	for (size_t i = 0; i < result->round_count; i++) {
		compare_round(result, &result->rounds[i], &c);
		c.unchecked -= receipts_of(result, result->rounds[i].round).receipts;
	}
	twice = c.beyond > open ? c.beyond - open : 0;
	c.lost += c.unchecked; /* a receipt for a round that does not exist is a lost update */
	model = check_model(result, &c, &model_ok);
	*ret_ok = c.lost == 0 && twice == 0 && model_ok;
	return json_pack("{s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "checked", 1, "ok",
			 (int)*ret_ok, "receipts", (json_int_t)c.receipts, "counted",
			 (json_int_t)c.counted, "lost", (json_int_t)c.lost, "double",
			 (json_int_t)twice, "unresolved", (json_int_t)open, "declared_lost",
			 (json_int_t)c.declared_lost, "first_bad_round", (json_int_t)c.first_bad,
			 "model", model);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static double at_share(const double *sorted, size_t count, double q)
{
	size_t rank = (size_t)ceil(q * (double)count);

	return count ? sorted[rank ? rank - 1 : 0] : 0;
}

json_t *load_rounds_json(const struct load_result *result)
{
	double *times = trib_alloc_array(result->round_count + 1, sizeof(*times));
	json_t *list = json_array();
	json_t *json;
	size_t count = 0;

	for (size_t i = 0; i < result->round_count && times; i++) {
		const struct load_service_round *round = &result->rounds[i];

		if (round->total_s >= 0) {
			times[count++] = round->total_s;
		}
		if (i + ROUNDS_SHOWN >= result->round_count) {
			(void)json_array_append_new(
				list, json_pack("{s:I, s:s, s:s, s:I, s:f, s:f}", "round",
						(json_int_t)round->round, "state", round->state,
						"why", round->why, "accepted",
						(json_int_t)round->accepted, "collect_s",
						round->collect_s, "total_s", round->total_s));
		}
	}
	if (times) {
		qsort(times, count, sizeof(*times), by_value);
	}
	json = json_pack("{s:I, s:I, s:o}", "seen", (json_int_t)result->round_count, "published",
			 (json_int_t)count, "list", list);
	if (count) {
		(void)json_object_set_new(json, "p50_s", json_real(at_share(times, count, 0.5)));
		(void)json_object_set_new(json, "p99_s", json_real(at_share(times, count, 0.99)));
		(void)json_object_set_new(json, "max_s", json_real(times[count - 1]));
	}
	trib_free(times);
	return json;
}
