/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/report.h"

#include <stdio.h>
#include <string.h>

#include "client/load/counting.h"
#include "common/clock.h"
#include "common/version.h"

#define MS 1e6

static uint64_t get(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

void load_counts_sum(struct load_worker *const *workers, unsigned count, uint64_t out[LOAD_COUNT])
{
	memset(out, 0, LOAD_COUNT * sizeof(out[0]));
	for (unsigned i = 0; i < count; i++) {
		for (unsigned c = 0; c < LOAD_COUNT; c++) {
			out[c] += get(&workers[i]->counts[c]);
		}
	}
}

void load_latency_sum(struct load_worker *const *workers, unsigned count, enum load_latency which,
		      struct load_histogram *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < count; i++) {
		load_histogram_merge(out, &workers[i]->latency[which]);
	}
}

static double ms(const struct load_histogram *histogram, double q)
{
	return (double)load_histogram_quantile(histogram, q) / MS;
}

static json_t *latency_json(const struct load_result *result, enum load_latency which)
{
	struct load_histogram *sum = trib_alloc(sizeof(*sum));
	json_t *json;

	if (!sum) {
		return json_null();
	}
	load_latency_sum(result->workers, result->worker_count, which, sum);
	if (sum->count == 0) {
		trib_free(sum);
		return json_null();
	}
	json = json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)sum->count,
			 "mean_ms", load_histogram_mean(sum) / MS, "p50_ms", ms(sum, 0.5), "p90_ms",
			 ms(sum, 0.9), "p99_ms", ms(sum, 0.99), "p999_ms", ms(sum, 0.999), "max_ms",
			 (double)sum->max_ns / MS);
	trib_free(sum);
	return json;
}

static json_t *latencies_json(const struct load_result *result)
{
	static const char *const names[LOAD_LATENCIES] = { "visit", "receipt", "service", "checkin",
							   "model" };
	json_t *json = json_object();

	for (unsigned i = 0; i < LOAD_LATENCIES; i++) {
		(void)json_object_set_new(json, names[i],
					  latency_json(result, (enum load_latency)i));
	}
	return json;
}

static json_t *problems_json(const struct load_result *result, size_t offset)
{
	json_t *json = json_object();

	for (unsigned p = 0; p < TRIB_PROBLEM_COUNT; p++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < result->worker_count; i++) {
			const char *table = (const char *)result->workers[i] + offset;

			sum += get((const uint64_t *)(const void *)table + p);
		}
		if (sum) {
			(void)json_object_set_new(json, trib_problem_code((enum trib_problem)p),
						  json_integer((json_int_t)sum));
		}
	}
	return json;
}

static json_t *errors_json(const struct load_result *result)
{
	json_t *unintended = problems_json(result, offsetof(struct load_worker, wrong));
	json_t *samples = json_array();

	for (unsigned t = 0; t < LOAD_TROUBLE_COUNT; t++) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < result->worker_count; i++) {
			sum += get(&result->workers[i]->troubles[t]);
		}
		if (sum) {
			(void)json_object_set_new(unintended, load_trouble_names[t],
						  json_integer((json_int_t)sum));
		}
	}
	for (unsigned i = 0; i < result->worker_count; i++) {
		if (__atomic_load_n(&result->workers[i]->sampled, __ATOMIC_ACQUIRE)) {
			json_t *text = json_string(result->workers[i]->sample);

			(void)json_array_append_new(samples, text ? text : json_null());
		}
	}
	return json_pack("{s:o, s:o, s:o}", "unintended", unintended, "intended",
			 problems_json(result, offsetof(struct load_worker, intended)), "samples",
			 samples);
}

static json_t *totals_json(const struct load_result *result)
{
	uint64_t counts[LOAD_COUNT];
	json_t *json = json_object();
	double seconds = result->seconds > 0 ? result->seconds : 1;

	load_counts_sum(result->workers, result->worker_count, counts);
	for (unsigned c = 0; c < LOAD_CONNS; c++) {
		(void)json_object_set_new(json, load_count_names[c],
					  json_integer((json_int_t)counts[c]));
	}
	(void)json_object_set_new(json, "goodput_per_s",
				  json_real((double)counts[LOAD_RECEIPTS] / seconds));
	(void)json_object_set_new(json, "goodput_mb_per_s",
				  json_real((double)counts[LOAD_BYTES_ACCEPTED] / 1e6 / seconds));
	(void)json_object_set_new(
		json, "refused_share",
		json_real(counts[LOAD_UPLOADS]
				  ? (double)counts[LOAD_REFUSALS] / (double)counts[LOAD_UPLOADS]
				  : 0));
	return json;
}

static json_t *row_json(const struct load_row *row, const struct load_row *last)
{
	double seconds = row->seconds > 0 ? row->seconds : 1;
	json_t *json = json_pack(
		"{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "t", row->at_s,
		"receipts_per_s",
		(double)(row->counts[LOAD_RECEIPTS] - last->counts[LOAD_RECEIPTS]) / seconds,
		"checkins_per_s",
		(double)(row->counts[LOAD_CHECKINS] - last->counts[LOAD_CHECKINS]) / seconds,
		"mb_per_s",
		(double)(row->counts[LOAD_BYTES_UP] - last->counts[LOAD_BYTES_UP]) / 1e6 / seconds,
		"refusals_per_s",
		(double)(row->counts[LOAD_REFUSALS] - last->counts[LOAD_REFUSALS]) / seconds,
		"p50_ms", row->p50_ms, "p99_ms", row->p99_ms, "p999_ms", row->p999_ms, "rss_mb",
		row->rss_mb, "shmem_mb", row->shmem_mb, "cpu_cores", row->cpu_cores);
	static const enum load_count gauges[] = { LOAD_CONNS, LOAD_OUT, LOAD_UPLOADING,
						  LOAD_BACKLOG, LOAD_ERRORS };

	for (size_t i = 0; i < TRIB_COUNT(gauges); i++) {
		(void)json_object_set_new(json, load_count_names[gauges[i]],
					  json_integer((json_int_t)row->counts[gauges[i]]));
	}
	return json;
}

static json_t *timeline_json(const struct load_result *result)
{
	static const struct load_row zero;
	json_t *json = json_array();

	for (size_t i = 0; i < result->row_count; i++) {
		(void)json_array_append_new(
			json, row_json(&result->rows[i], i ? &result->rows[i - 1] : &zero));
	}
	return json;
}

static json_t *most_json(const struct load_result *result)
{
	uint64_t conns = 0;
	uint64_t out = 0;

	for (size_t i = 0; i < result->row_count; i++) {
		const uint64_t *counts = result->rows[i].counts;

		conns = counts[LOAD_CONNS] > conns ? counts[LOAD_CONNS] : conns;
		out = counts[LOAD_OUT] > out ? counts[LOAD_OUT] : out;
	}
	return json_pack("{s:I, s:I}", "connections", (json_int_t)conns, "clients_selected",
			 (json_int_t)out);
}

json_t *load_report(const struct load_result *result, bool *ret_counts_ok)
{
	const struct load_payload *payload = &result->run->payload;
	char when[TRIB_RFC3339_SIZE];

	trib_rfc3339(trib_wall_ms(), when);
	return json_pack(
		"{s:s, s:s, s:s, s:f, s:o, s:{s:s, s:s, s:I, s:I}, s:o, s:o, s:o, s:o, s:o, s:o, "
		"s:o, s:o, s:f, s:o}",
		"tool", "tributary load", "version", TRIB_VERSION, "ended", when, "seconds",
		result->seconds, "plan", load_plan_json(result->plan), "job", "id", result->job->id,
		"mode", result->job->async ? "async" : "sync", "update_bytes",
		(json_int_t)payload->size, "tensors", (json_int_t)payload->shape.tensors, "totals",
		totals_json(result), "most", most_json(result), "latency", latencies_json(result),
		"refusals", problems_json(result, offsetof(struct load_worker, refused)), "errors",
		errors_json(result), "counting", load_counting_json(result, ret_counts_ok),
		"rounds", load_rounds_json(result), "server",
		load_server_json(result->server, result->seconds), "own_cpu_s", result->own_cpu_s,
		"timeline", timeline_json(result));
}
