/* SPDX-License-Identifier: Apache-2.0
 * The arithmetic of `tributary load`: histogram, arrivals, shapes, payloads, answers.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/load/arrivals.h"
#include "client/load/histogram.h"
#include "client/load/payload.h"
#include "client/load/random.h"
#include "client/load/reply.h"
#include "client/load/shapes.h"
#include "client/load/slo.h"
#include "common/crypto.h"
#include "common/safetensors.h"

/* ---- histogram ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void quantiles_are_within_two_percent(void **state)
{
	static struct load_histogram h;
	static uint64_t values[20000];
	const double qs[] = { 0.01, 0.5, 0.9, 0.99, 0.999, 1 };
	uint64_t rng = 7;

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(values); i++) {
		values[i] = (uint64_t)exp(load_random_unit(&rng) * 24);
		load_histogram_add(&h, values[i]);
	}
	qsort(values, TRIB_COUNT(values), sizeof(values[0]), by_value);
	for (size_t i = 0; i < TRIB_COUNT(qs); i++) {
		uint64_t exact = values[(size_t)ceil(qs[i] * TRIB_COUNT(values)) - 1];
		uint64_t got = load_histogram_quantile(&h, qs[i]);

		assert_true(got >= exact);
		assert_true((double)(got - exact) <= 0.016 * (double)exact + 1);
	}
	assert_int_equal(load_histogram_quantile(&h, 1), values[TRIB_COUNT(values) - 1]);
}

static void extremes_have_a_place(void **state)
{
	static struct load_histogram h;

	(void)state;
	assert_int_equal(load_histogram_quantile(&h, 0.5), 0);
	load_histogram_add(&h, 0);
	load_histogram_add(&h, UINT64_MAX);
	assert_int_equal(h.count, 2);
	assert_int_equal(load_histogram_quantile(&h, 0.5), 0);
	assert_true(load_histogram_quantile(&h, 1) >= (1ull << LOAD_HISTOGRAM_TOP_BITS) - 1);
}

static void merged_and_between_add_up(void **state)
{
	static struct load_histogram a;
	static struct load_histogram b;
	static struct load_histogram sum;
	static struct load_histogram rest;

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++) {
		load_histogram_add(i % 2 ? &a : &b, i * 1000);
	}
	load_histogram_merge(&sum, &a);
	load_histogram_merge(&sum, &b);
	assert_int_equal(sum.count, 1000);
	assert_int_equal(sum.max_ns, 1000000);
	load_histogram_between(&sum, &a, &rest);
	assert_int_equal(rest.count, 500);
	assert_memory_equal(rest.counts, b.counts, sizeof(b.counts));
}

/* ---- arrivals ---- */

static struct load_arrivals sequence(enum load_arrivals_kind kind, double rate)
{
	struct load_arrivals a;

	load_arrivals_init(&a, kind, rate, 100, NULL, (struct load_share){ 0, 1, 42 });
	return a;
}

static void rates_are_what_was_asked(void **state)
{
	const enum load_arrivals_kind kinds[] = { LOAD_CONSTANT, LOAD_POISSON, LOAD_BURST,
						  LOAD_DIURNAL };

	(void)state;
	for (size_t k = 0; k < TRIB_COUNT(kinds); k++) {
		struct load_arrivals a = sequence(kinds[k], 200);
		double last = 0;
		unsigned count = 0;

		for (double t = load_arrivals_next(&a); t < 100; t = load_arrivals_next(&a)) {
			assert_true(t >= last);
			last = t;
			count++;
		}
		/* 20000 expected; 4 standard deviations are 566 */
		assert_in_range(count, 19400, 20600);
	}
}

static void bursts_burst_and_days_wave(void **state)
{
	struct load_arrivals burst = sequence(LOAD_BURST, 100);
	struct load_arrivals day = sequence(LOAD_DIURNAL, 100);

	(void)state;
	assert_true(fabs(load_arrivals_rate(&burst, 0.5) - 550) < 1e-9);
	assert_true(fabs(load_arrivals_rate(&burst, 5) - 50) < 1e-9);
	assert_true(fabs(load_arrivals_rate(&day, 0) - 20) < 1e-9);
	assert_true(fabs(load_arrivals_rate(&day, 50) - 180) < 1e-9);
}

static void constant_sequences_interleave(void **state)
{
	struct load_arrivals a;
	struct load_arrivals b;

	(void)state;
	load_arrivals_init(&a, LOAD_CONSTANT, 10, 0, NULL, (struct load_share){ 0, 2, 1 });
	load_arrivals_init(&b, LOAD_CONSTANT, 10, 0, NULL, (struct load_share){ 1, 2, 1 });
	for (int i = 0; i < 20; i += 2) {
		assert_true(fabs(load_arrivals_next(&a) - i * 0.1) < 1e-9);
		assert_true(fabs(load_arrivals_next(&b) - (i + 1) * 0.1) < 1e-9);
	}
}

static int write_trace(const char *text, struct load_trace *trace, size_t *ret_line)
{
	char path[] = "/tmp/trib-trace-XXXXXX";
	int fd = mkstemp(path);
	int rc;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
	rc = load_trace_read(path, trace, ret_line);
	(void)unlink(path);
	return rc;
}

static void traces_are_read_and_shared(void **state)
{
	struct load_trace trace;
	struct load_arrivals a;
	size_t line;

	(void)state;
	assert_int_equal(write_trace("# a comment\n0\n0.5\n\n0.5\n2\n", &trace, &line), 0);
	assert_int_equal(trace.count, 4);
	load_arrivals_init(&a, LOAD_TRACE, 0, 0, &trace, (struct load_share){ 1, 2, 1 });
	assert_true(load_arrivals_next(&a) == 0.5);
	assert_true(load_arrivals_next(&a) == 2);
	assert_true(isinf(load_arrivals_next(&a)));
	load_trace_fini(&trace);
	assert_int_equal(write_trace("0\n1\n0.9\n", &trace, &line), -EBADMSG);
	assert_int_equal(line, 3);
	assert_int_equal(write_trace("0\nsoon\n", &trace, &line), -EBADMSG);
	assert_int_equal(load_trace_read("/nowhere/at/all", &trace, &line), -ENOENT);
}

static void kinds_have_names(void **state)
{
	enum load_arrivals_kind kind = LOAD_CLOSED;
	const char *file = NULL;

	(void)state;
	assert_int_equal(load_arrivals_kind_read("burst", &kind, &file), 0);
	assert_int_equal(kind, LOAD_BURST);
	assert_int_equal(load_arrivals_kind_read("trace:x.txt", &kind, &file), 0);
	assert_int_equal(kind, LOAD_TRACE);
	assert_string_equal(file, "x.txt");
	assert_int_equal(load_arrivals_kind_read("trace:", &kind, &file), -EINVAL);
	assert_int_equal(load_arrivals_kind_read("closed", &kind, &file), -EINVAL);
	assert_int_equal(load_arrivals_kind_read("", &kind, &file), -EINVAL);
}

/* ---- shapes and payloads ---- */

static void models_have_their_size(void **state)
{
	/* elements: parameters and the float buffers of torchvision's models */
	static const struct {
		const char *name;
		uint64_t elements;
		uint32_t tensors;
	} models[] = {
		{ "tiny", 1024, 5 },
		{ "lenet5", 61706, 10 },
		{ "resnet18", 11699112, 102 },
		{ "resnet34", 21814696, 182 },
		{ "resnet152", 60344232, 777 },
		{ "lora-7b", 4194304, 128 },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(models); i++) {
		struct load_shape shape;
		struct trib_layout *layout = NULL;
		enum trib_problem problem;
		const char *detail = "";

		assert_int_equal(load_shape_by_name(models[i].name, &shape), 0);
		assert_int_equal(shape.data_size, models[i].elements * 4);
		assert_int_equal(shape.tensors, models[i].tensors);
		assert_int_equal(shape.header_size % 8, 0);
		assert_int_equal(trib_layout_parse(shape.header + 8, shape.header_size - 8,
						   shape.data_size, &layout, &problem, &detail),
				 0);
		assert_int_equal(trib_layout_count(layout), models[i].tensors);
		(void)trib_layout_free(layout);
		load_shape_fini(&shape);
	}
}

static void other_sizes_are_one_tensor(void **state)
{
	struct load_shape shape;

	(void)state;
	assert_int_equal(load_shape_by_name("gpt-9", &shape), -ENOENT);
	assert_int_equal(load_shape_by_bytes(1001, &shape), 0);
	assert_int_equal(shape.data_size, 1004);
	load_shape_fini(&shape);
	assert_int_equal(load_shape_by_bytes(0, &shape), 0);
	assert_int_equal(shape.data_size, 4);
	load_shape_fini(&shape);
}

static char *collect(const struct load_payload *payload, unsigned variant, uint64_t step)
{
	char *body = trib_alloc(payload->size);
	uint64_t at = 0;

	assert_non_null(body);
	while (at < payload->size) {
		struct iovec vectors[3];
		int count = load_payload_vectors(payload, variant, at, at + step, vectors, 3);

		assert_true(count > 0);
		for (int i = 0; i < count; i++) {
			memcpy(body + at, vectors[i].iov_base, vectors[i].iov_len);
			at += vectors[i].iov_len;
		}
	}
	return body;
}

static void bodies_hold_what_is_said(void **state)
{
	struct load_shape shape;
	struct load_payload payload;
	size_t header;

	(void)state;
	assert_int_equal(load_shape_by_bytes(5u << 19, &shape), 0); /* two blocks and a half */
	header = shape.header_size;
	assert_int_equal(load_payload_init(&payload, &shape), 0);
	for (unsigned v = 0; v < LOAD_VARIANTS; v++) {
		char *body = collect(&payload, v, 1000003);
		char *whole = collect(&payload, v, payload.size);

		assert_memory_equal(body, whole, payload.size);
		assert_int_equal(trib_crc32c(0, body, payload.size), payload.crc[v]);
		for (uint64_t i = 0; i < (5u << 19) / 4; i += 997) {
			float is;

			memcpy(&is, body + header + i * 4, 4);
			assert_true((double)is == load_payload_value(v) * load_payload_pattern(i));
		}
		trib_free(body);
		trib_free(whole);
	}
	load_payload_fini(&payload);
}

static void the_poisoned_one_has_one_nan(void **state)
{
	struct load_shape shape;
	struct load_payload payload;
	unsigned bad = 0;
	char *body;

	(void)state;
	assert_int_equal(load_shape_by_bytes(5u << 19, &shape), 0);
	assert_int_equal(load_payload_init(&payload, &shape), 0);
	body = collect(&payload, LOAD_VARIANT_NAN, payload.size);
	for (uint64_t at = payload.shape.header_size; at < payload.size; at += 4) {
		float is;

		memcpy(&is, body + at, 4);
		bad += !isfinite(is);
	}
	assert_int_equal(bad, 1);
	trib_free(body);
	load_payload_fini(&payload);
}

/* ---- answers ---- */

static int read_head(const char *text, struct load_reply_head *reply)
{
	return load_reply_head_read(text, strlen(text), reply);
}

static void heads_are_read(void **state)
{
	struct load_reply_head reply;

	(void)state;
	assert_int_equal(read_head("HTTP/1.1 503 Service Unavailable\r\ncontent-length:  12\r\n"
				   "Retry-After: 7\r\nConnection: close\r\n\r\n",
				   &reply),
			 0);
	assert_int_equal(reply.status, 503);
	assert_int_equal(reply.length, 12);
	assert_true(reply.retry_after == 7);
	assert_true(reply.close);
	assert_int_equal(read_head("HTTP/1.1 200 OK\r\nX: y\r\n\r\n", &reply), 0);
	assert_int_equal(reply.length, 0);
	assert_true(reply.retry_after < 0);
	assert_false(reply.close);
}

static void odd_heads_are_not(void **state)
{
	struct load_reply_head reply;

	(void)state;
	assert_int_equal(read_head("SSH-2.0-OpenSSH_9.2\r\n\r\n", &reply), -EBADMSG);
	assert_int_equal(read_head("HTTP/1.1 2x0 OK\r\n\r\n", &reply), -EBADMSG);
	assert_int_equal(read_head("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", &reply),
			 -EBADMSG);
	assert_int_equal(read_head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &reply),
			 -EBADMSG);
}

static void members_are_found(void **state)
{
	const char *json = "{\"a\":\"x\", \"etag\" : \"\\\"v3-ab\\\"\", \"n\":{\"round\": 17.5}}";
	char text[16];

	(void)state;
	assert_int_equal(load_json_text(json, "a", text, sizeof(text)), 0);
	assert_string_equal(text, "x");
	assert_int_equal(load_json_text(json, "etag", text, sizeof(text)), 0);
	assert_string_equal(text, "\"v3-ab\"");
	assert_int_equal(load_json_text(json, "etag", text, 4), -ENAMETOOLONG);
	assert_int_equal(load_json_text(json, "round", text, sizeof(text)), -ENOENT);
	assert_int_equal(load_json_text("{\"a\":\"x", "a", text, sizeof(text)), -ENOENT);
	assert_true(load_json_number(json, "round", 0) == 17.5);
	assert_true(load_json_number(json, "a", -1) == -1);
	assert_true(load_json_number(json, "none", -2) == -2);
}

/* ---- limits ---- */

static void limits_are_judged(void **state)
{
	json_t *slo = json_pack("{s:i, s:i, s:i}", "receipt_p99_ms", 20, "goodput_min_per_s", 100,
				"visit_p50_ms", 1);
	json_t *report = json_pack("{s:{s:f}, s:{s:{s:f}, s:n}}", "totals", "goodput_per_s", 120.0,
				   "latency", "receipt", "p99_ms", 25.0, "visit");
	char reason[200];
	json_t *verdicts;
	bool ok = true;

	(void)state;
	assert_true(load_slo_check(slo, reason));
	verdicts = load_slo_judge(slo, report, &ok);
	assert_false(ok);
	assert_int_equal(json_array_size(verdicts), 3);
	assert_false(json_is_true(json_object_get(json_array_get(verdicts, 0), "ok")));
	assert_true(json_is_true(json_object_get(json_array_get(verdicts, 1), "ok")));
	/* not measured is not kept */
	assert_false(json_is_true(json_object_get(json_array_get(verdicts, 2), "ok")));
	assert_true(json_is_null(json_object_get(json_array_get(verdicts, 2), "value")));
	json_decref(verdicts);
	(void)json_object_set_new(slo, "receipt_p98_ms", json_integer(1));
	assert_false(load_slo_check(slo, reason));
	assert_non_null(strstr(reason, "receipt_p98_ms"));
	json_decref(slo);
	json_decref(report);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quantiles_are_within_two_percent),
		cmocka_unit_test(extremes_have_a_place),
		cmocka_unit_test(merged_and_between_add_up),
		cmocka_unit_test(rates_are_what_was_asked),
		cmocka_unit_test(bursts_burst_and_days_wave),
		cmocka_unit_test(constant_sequences_interleave),
		cmocka_unit_test(traces_are_read_and_shared),
		cmocka_unit_test(kinds_have_names),
		cmocka_unit_test(models_have_their_size),
		cmocka_unit_test(other_sizes_are_one_tensor),
		cmocka_unit_test(bodies_hold_what_is_said),
		cmocka_unit_test(the_poisoned_one_has_one_nan),
		cmocka_unit_test(heads_are_read),
		cmocka_unit_test(odd_heads_are_not),
		cmocka_unit_test(members_are_found),
		cmocka_unit_test(limits_are_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
