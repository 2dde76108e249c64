/* SPDX-License-Identifier: Apache-2.0
 * The job spec: defaults, every rule, all errors at once, the schema.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Programs are not libraries: the file under test comes in whole. */
#include "orchestrator/hook_rule.c"
#include "orchestrator/spec.c"
#include "orchestrator/spec_check.c"
#include "orchestrator/spec_names.c"
#include "orchestrator/spec_schema.c"
#include "orchestrator/spec_selector.c"

#define HEAD                           \
	"{\"apiVersion\":\"tributary/" \
	"v1\",\"kind\":\"AggregationJob\",\"metadata\":{\"name\":\"a\"}"

static json_t *parse(const char *text)
{
	char reason[160];
	json_t *json = NULL;

	if (trib_json_parse(text, strlen(text), &json, reason)) {
		fail_msg("test's own JSON: %s: %s", reason, text);
	}
	return json;
}

static json_t *body_of(const char *spec)
{
	char text[4096];

	assert_true(snprintf(text, sizeof(text), "%s,\"spec\":%s}", HEAD, spec) <
		    (int)sizeof(text));
	return parse(text);
}

static struct orc_spec good(const char *spec)
{
	json_t *body = body_of(spec);
	json_t *errors = NULL;
	struct orc_spec out = { 0 };
	int rc = orc_spec_read(body, &out, &errors);

	if (rc) {
		char *text = trib_json_print(errors);

		fail_msg("refused: %s", text);
	}
	json_decref(body);
	return out;
}

/* The detail told for `pointer`, "" when there is none; counts all errors. */
static const char *detail_of(const char *text, const char *pointer, size_t *ret_count)
{
	static char detail[256];
	json_t *body = parse(text);
	json_t *errors = NULL;
	struct orc_spec out = { 0 };
	int rc = orc_spec_read(body, &out, &errors);
	size_t i;
	json_t *entry;

	detail[0] = '\0';
	*ret_count = json_array_size(errors);
	json_decref(body);
	if (rc == 0) {
		orc_spec_fini(&out);
		return detail;
	}
	assert_int_equal(rc, -EBADMSG);
	json_array_foreach(errors, i, entry)
	{
		if (strcmp(trib_json_text(entry, "pointer", "?"), pointer) == 0) {
			(void)snprintf(detail, sizeof(detail), "%s",
				       trib_json_text(entry, "detail", ""));
		}
	}
	json_decref(errors);
	return detail;
}

static void refused(const char *spec, const char *pointer, const char *part)
{
	char text[4096];
	size_t count;
	const char *detail;

	(void)snprintf(text, sizeof(text), "%s,\"spec\":%s}", HEAD, spec);
	detail = detail_of(text, pointer, &count);
	if (count == 0 || !strstr(detail, part) || !*detail) {
		fail_msg("%s: %zu errors, at %s: '%s'", spec, count, pointer, detail);
	}
	assert_int_equal(count, 1);
}

static void test_defaults(void **state)
{
	struct orc_spec spec = good("{}");
	const char *want =
		"{\"mode\":\"sync\",\"model\":{\"wire_dtypes\":[\"F32\"],\"max_header_bytes\":"
		"1048576,"
		"\"max_bytes\":4294967296},\"aggregation\":{\"rule\":\"fedavg\",\"input\":"
		"\"delta\","
		"\"weight_by\":\"examples\",\"denominator\":\"weight_sum\",\"max_weight\":1000000,"
		"\"range\":1048576,\"accumulate\":\"exact\",\"server_opt\":{\"kind\":\"sgd\","
		"\"lr\":1.0},\"scale_bits\":31},\"sync\":{\"goal\":10,\"over_select\":1.0,"
		"\"quorum\":10,\"deadline_s\":600,\"client_timeout_s\":300,\"late\":\"drop\","
		"\"below_quorum\":\"extend\",\"max_staleness\":5,\"staleness\":{\"fn\":\"poly\","
		"\"alpha\":0.5,\"after\":0,\"offset\":0},\"backup\":{\"kind\":\"none\",\"alpha\":0."
		"3,"
		"\"metric\":\"loss\",\"step\":0},"
		"\"sampling\":{\"fraction\":1.0,\"count\":0,\"seed\":0}"
		"},"
		"\"encodings\":[\"dense\"],\"hierarchy\":{\"leaves\":0,\"levels\":\"auto\",\"fan_"
		"in\":\"auto\",\"policy\":\"eager\",\"shards\":\"auto\",\"replan_ms\":100,"
		"\"alpha\":0.7},\"placement\":"
		"{"
		"\"arena_bytes\":0,\"slots\":0,\"policy\":\"bestfit\",\"window_s\":1},\"stop\":{"
		"\"rounds\":100,\"updates\":0,\"seconds\":"
		"0,"
		"\"target\":{\"metric\":\"\",\"value\":0,\"mode\":\"max\"},\"patience\":{"
		"\"metric\":\"\","
		"\"mode\":\"min\",\"rounds\":10,\"min_delta\":0}},\"client_config\":{},"
		"\"async\":{\"buffer_k\":64,\"concurrency\":1000,"
		"\"max_staleness\":20,\"staleness\":{\"fn\":\"poly\",\"alpha\":0.5,\"after\":0,"
		"\"offset\":0,\"normaliser\":\"none\",\"average\":0},\"trigger\":\"count\","
		"\"memory\":\"none\",\"memory_clients\":100,"
		"\"flush_timeout_s\":120,\"client_timeout_s\":1800},"
		"\"checkpoints\":{\"keep\":0,\"every\":0,\"best\":{\"metric\":\"\",\"mode\":"
		"\"max\"}},"
		"\"notifications\":[],\"initial\":{\"job\":\"\",\"version\":-1},"
		"\"pool\":{\"name\":\"\",\"share\":1.0,\"score\":\"share\",\"min\":1,\"size\":0},"
		"\"selection\":{\"labels\":{},\"labels_from\":\"any\"},"
		"\"auth\":{\"clients\":\"open\"}}";
	json_t *wanted = parse(want);

	(void)state;
	if (!json_equal(spec.spec, wanted)) {
		char *text = trib_json_print(spec.spec);

		fail_msg("%s", text);
	}
	assert_string_equal(spec.name, "a");
	assert_int_equal(spec.goal, 10);
	assert_int_equal(spec.quorum, 10);
	assert_int_equal(spec.selected_max, 10);
	assert_int_equal(spec.deadline_ms, 600000);
	assert_int_equal(spec.lease_ms, 300000);
	assert_int_equal(spec.stop_rounds, 100);
	json_decref(wanted);
	orc_spec_fini(&spec);
}

static void test_selection_is_rounded_up(void **state)
{
	static const struct {
		const char *spec;
		uint64_t selected;
	} cases[] = {
		{ "{\"sync\":{\"goal\":100,\"over_select\":1.1}}", 110 },
		{ "{\"sync\":{\"goal\":10,\"over_select\":1.3}}", 13 },
		{ "{\"sync\":{\"goal\":3,\"over_select\":1.5}}", 5 },
		{ "{\"sync\":{\"goal\":1}}", 1 },
		{ "{\"sync\":{\"goal\":7,\"over_select\":1.01}}", 8 },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		struct orc_spec spec = good(cases[i].spec);

		assert_int_equal(spec.selected_max, cases[i].selected);
		orc_spec_fini(&spec);
	}
}

/* min(40, 51 - ceil_log2(range), 62 - ceil_log2(selected) - ceil_log2(range)) */
static void test_scale_bits(void **state)
{
	static const struct {
		const char *spec;
		int bits;
	} cases[] = {
		{ "{}", 31 },
		{ "{\"aggregation\":{\"range\":1}}", 40 },
		{ "{\"aggregation\":{\"range\":2048}}", 40 },
		{ "{\"aggregation\":{\"range\":2049}}", 39 },
		{ "{\"sync\":{\"goal\":2048}}", 31 },
		{ "{\"sync\":{\"goal\":2049}}", 30 },
		{ "{\"sync\":{\"goal\":1000000},\"aggregation\":{\"range\":1024}}", 32 },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		struct orc_spec spec = good(cases[i].spec);

		assert_int_equal(trib_json_integer(spec.spec, "aggregation.scale_bits", -1),
				 cases[i].bits);
		orc_spec_fini(&spec);
	}
}

static void test_refusals(void **state)
{
	(void)state;
	refused("{\"mode\":\"fast\"}", "/spec/mode", "must be one of");
	refused("{\"mode\":\"async\",\"aggregation\":{\"input\":\"weights\"}}",
		"/spec/aggregation/input", "must be delta");
	refused("{\"aggregation\":{\"denominator\":\"selected\"}}", "/spec/aggregation/denominator",
		"not supported yet");
	refused("{\"mode\":\"snyc\"}", "/spec/mode", "must be one of: sync");
	refused("{\"mode\":1}", "/spec/mode", "must be a string");
	refused("{\"async\":{\"buffer_k\":0}}", "/spec/async/buffer_k", "at least");
	refused("{\"async\":{\"staleness\":{\"fn\":\"exp\"}}}", "/spec/async/staleness/fn",
		"must be one of");
	refused("{\"aggregation\":{\"rule\":\"median\"}}", "/spec/aggregation/rule",
		"not supported yet");
	refused("{\"aggregation\":{\"scale_bits\":3}}", "/spec/aggregation/scale_bits",
		"computed by the server");
	refused("{\"aggregation\":{\"server_opt\":{\"momentum\":0.9}}}",
		"/spec/aggregation/server_opt/momentum", "not supported yet");
	refused("{\"aggregation\":{\"server_opt\":{\"lr\":0}}}", "/spec/aggregation/server_opt/lr",
		"at least");
	refused("{\"aggregation\":{\"server_opt\":[]}}", "/spec/aggregation/server_opt",
		"must be an object");
	refused("{\"model\":{\"wire_dtypes\":[\"F32\",\"BF16\"]}}", "/spec/model/wire_dtypes/1",
		"not supported yet");
	refused("{\"model\":{\"wire_dtypes\":[]}}", "/spec/model/wire_dtypes", "array of 1");
	refused("{\"encodings\":[\"zip\"]}", "/spec/encodings/0", "must be one of: dense");
	refused("{\"sync\":{\"gaol\":3}}", "/spec/sync/gaol", "did you mean \"goal\"");
	refused("{\"sync\":{\"xyzzy\":3}}", "/spec/sync/xyzzy", "unknown key");
	refused("{\"sync\":{\"a/b~\":3}}", "/spec/sync/a~1b~0", "unknown key");
	refused("{\"sync\":{\"goal\":0}}", "/spec/sync/goal", "at least 1");
	refused("{\"sync\":{\"goal\":1.0}}", "/spec/sync/goal", "integer");
	refused("{\"sync\":{\"goal\":\"1\"}}", "/spec/sync/goal", "integer");
	refused("{\"sync\":{\"goal\":3,\"quorum\":4}}", "/spec/sync/quorum", "goal");
	refused("{\"sync\":{\"over_select\":0.9}}", "/spec/sync/over_select", "at least 1");
	refused("{\"hierarchy\":{\"leaves\":65}}", "/spec/hierarchy/leaves", "at most 64");
	refused("{\"stop\":{\"rounds\":-1}}", "/spec/stop/rounds", "at least 1");
	refused("{\"stop\":{\"target\":{\"metric\":\"a b\"}}}", "/spec/stop/target/metric", "name");
	refused("{\"stop\":{\"patience\":{\"metric\":7}}}", "/spec/stop/patience/metric", "name");
	refused("{\"client_config\":3}", "/spec/client_config", "object");
	refused("{\"aggregation\":{\"max_weight\":4294967296},\"sync\":{\"goal\":1000000}}",
		"/spec/aggregation/max_weight", "2^42");
	refused("{\"aggregation\":{\"range\":1099511627776},\"sync\":{\"goal\":1000000}}",
		"/spec/aggregation/range", "too large");
	refused("3", "/spec", "must be an object");
}

static void test_envelope(void **state)
{
	static const struct {
		const char *text;
		const char *pointer;
		const char *part;
		size_t count;
	} cases[] = {
		{ "[]", "", "must be an object", 1 },
		{ "{}", "/metadata", "required", 3 },
		{ "{\"apiVersion\":\"v2\",\"kind\":\"AggregationJob\",\"metadata\":{\"name\":\"a\"}"
		  "}",
		  "/apiVersion", "tributary/v1", 1 },
		{ HEAD ",\"status\":{}}", "/status", "server", 1 },
		{ HEAD ",\"sepc\":{}}", "/sepc", "did you mean \"spec\"", 1 },
		{ "{\"apiVersion\":\"tributary/v1\",\"kind\":\"AggregationJob\",\"metadata\":{}}",
		  "/metadata/name", "required", 1 },
		{ "{\"apiVersion\":\"tributary/"
		  "v1\",\"kind\":\"AggregationJob\",\"metadata\":{\"name\":"
		  "\"A b\",\"id\":\"x\",\"labels\":{\"k\":1}}}",
		  "/metadata/labels/k", "up to 63", 3 },
	};
	size_t count;

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		const char *detail = detail_of(cases[i].text, cases[i].pointer, &count);

		if (!strstr(detail, cases[i].part) || !*detail) {
			fail_msg("%s: '%s'", cases[i].text, detail);
		}
		assert_int_equal(count, cases[i].count);
	}
}

static void test_selectors(void **state)
{
	struct orc_spec spec =
		good("{\"selection\":{\"labels\":{\"matchLabels\":{\"a.b/"
		     "c\":\"\"},\"matchExpressions\":["
		     "{\"key\":\"k\",\"operator\":\"In\",\"values\":[\"x\",\"\"]},"
		     "{\"key\":\"k\",\"operator\":\"Exists\"},"
		     "{\"key\":\"k\",\"operator\":\"DoesNotExist\",\"values\":[]}]}}}");
	char text[1024] = "{\"selection\":{\"labels\":{\"matchLabels\":{";
	size_t used = strlen(text);

	(void)state;
	orc_spec_fini(&spec);
#define AT                "/spec/selection/labels"
#define EXPRESSIONS(list) "{\"selection\":{\"labels\":{\"matchExpressions\":" list "}}}"
	refused("{\"selection\":{\"labels\":[]}}", AT, "object");
	refused("{\"selection\":{\"labels\":{\"matchLabel\":{}}}}", AT "/matchLabel",
		"\"matchLabels\"");
	refused("{\"selection\":{\"labels\":{\"matchLabels\":{\"a\":1}}}}", AT "/matchLabels/a",
		"string");
	refused("{\"selection\":{\"labels\":{\"matchLabels\":{\"a|b\":\"1\"}}}}",
		AT "/matchLabels/a|b", "key");
	refused("{\"selection\":{\"labels\":{\"matchLabels\":{\"a\":\"1;2\"}}}}",
		AT "/matchLabels/a", "value");
	refused(EXPRESSIONS("{}"), AT "/matchExpressions", "array");
	refused(EXPRESSIONS("[7]"), AT "/matchExpressions/0", "object");
	refused(EXPRESSIONS("[{\"operator\":\"Exists\"}]"), AT "/matchExpressions/0/key", "key");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"Gt\"}]"),
		AT "/matchExpressions/0/operator", "NotIn");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"In\"}]"),
		AT "/matchExpressions/0/values", "1 to");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"In\",\"values\":[]}]"),
		AT "/matchExpressions/0/values", "1 to");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"Exists\",\"values\":[\"x\"]}]"),
		AT "/matchExpressions/0/values", "In and NotIn");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"In\",\"values\":[\"a,b\"]}]"),
		AT "/matchExpressions/0/values", "value");
	refused(EXPRESSIONS("[{\"key\":\"k\",\"operator\":\"Exists\",\"value\":\"x\"}]"),
		AT "/matchExpressions/0/value", "\"values\"");
	for (int i = 0; i <= ORC_SELECTOR_MAX; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\"k%d\":\"\"",
					 i ? "," : "", i);
	}
	(void)snprintf(text + used, sizeof(text) - used, "}}}}");
	refused(text, AT "/matchLabels", "at most");
	refused("{\"selection\":{\"labels_from\":\"token\"}}", "/spec/selection/labels_from",
		"auth.clients");
}

static void test_notifications(void **state)
{
	const char *reason;
	json_t *events = json_pack("[s, s]", "round.*", "job.paused");

	(void)state;
	refused("{\"notifications\":[{\"url\":\"http://h/\"}]}", "/spec/notifications/0/url",
		"sends no");
	assert_int_equal(orc_hooks_allow("http://h", &reason), -EINVAL);
	assert_int_equal(orc_hooks_allow("http://h/,https://", &reason), -EINVAL);
	assert_int_equal(orc_hooks_allow("ftp://h/", &reason), -EINVAL);
	assert_int_equal(orc_hooks_allow("http://h/,https://i:8/x/", &reason), 0);
	refused("{\"notifications\":[{\"url\":\"http://h\"}]}", "/spec/notifications/0/url",
		"http");
	refused("{\"notifications\":[{\"url\":\"http://i:8/x/\"}]}", "/spec/notifications/0/url",
		"among");
	refused("{\"notifications\":[{\"url\":\"https://i:8/x/%2e./y\"}]}",
		"/spec/notifications/0/url", "dot");
	refused("{\"notifications\":7}", "/spec/notifications", "array");
	assert_true(orc_hook_wants(events, "round.open"));
	assert_true(orc_hook_wants(events, "job.paused"));
	assert_false(orc_hook_wants(events, "job.paused.x"));
	assert_false(orc_hook_wants(events, "roun"));
	assert_true(orc_hook_wants(NULL, "model.published"));
	assert_false(orc_hook_wants(NULL, "update.accepted"));
	json_decref(events);
	assert_int_equal(orc_hooks_allow(NULL, &reason), 0);
}

static void test_all_errors_at_once_but_bounded(void **state)
{
	char text[16384] = HEAD ",\"spec\":{\"mode\":7,\"sync\":{\"goal\":-1";
	size_t used = strlen(text);
	size_t count;

	(void)state;
	(void)detail_of(HEAD
			",\"spec\":{\"mode\":7,\"sync\":{\"goal\":-1,\"late\":\"x\"},\"q\":1}}",
			"", &count);
	assert_int_equal(count, 4);
	for (int i = 0; i < 500; i++) {
		used += (size_t)snprintf(text + used, sizeof(text) - used, ",\"k%d\":1", i);
	}
	(void)snprintf(text + used, sizeof(text) - used, "}}}");
	(void)detail_of(text, "", &count);
	assert_int_equal(count, ORC_SPEC_ERRORS_MAX);
}

/* Keys are hostile: long, or not ASCII. Nothing is cut inside a character (jansson would refuse).
 */
static void test_strange_keys(void **state)
{
	char text[2048];
	char key[600];
	size_t count;

	(void)state;
	for (int shift = 0; shift < 4; shift++) {
		memset(key, 'x', (size_t)shift);
		key[shift] = '\0';
		for (int i = 0; i < 100; i++) {
			(void)snprintf(key + strlen(key), 8, "%s", "\xe2\x82\xac");
		}
		(void)snprintf(text, sizeof(text), "%s,\"spec\":{\"sync\":{\"%s\":1}}}", HEAD, key);
		(void)detail_of(text, "", &count);
		assert_int_equal(count, 1);
	}
}

static void test_labels_are_kept(void **state)
{
	json_t *body = parse("{\"apiVersion\":\"tributary/v1\",\"kind\":\"AggregationJob\","
			     "\"metadata\":{\"name\":\"a\",\"labels\":{\"team\":\"x\"}}}");
	json_t *errors = NULL;
	struct orc_spec spec;

	(void)state;
	assert_int_equal(orc_spec_read(body, &spec, &errors), 0);
	assert_string_equal(trib_json_text(spec.spec, "labels.team", ""), "x");
	json_decref(body);
	orc_spec_fini(&spec);
}

/* What the table normalises must be what its schema allows: every default lies in its bounds. */
static void test_schema(void **state)
{
	json_t *schema = orc_spec_schema();

	(void)state;
	assert_non_null(schema);
	assert_int_equal(
		trib_json_integer(schema, "properties.spec.properties.sync.properties.goal.default",
				  -1),
		10);
	assert_non_null(trib_json_at(schema, "properties.spec.properties.aggregation.properties."
					     "server_opt.properties.lr.minimum"));
	assert_non_null(
		trib_json_at(schema, "properties.spec.properties.async.properties.buffer_k"));
	assert_null(trib_json_at(schema, "properties.spec.properties.privacy"));
	assert_string_equal(trib_json_text(schema, "properties.kind.const", ""), ORC_KIND);
	json_decref(schema);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_selection_is_rounded_up),
		cmocka_unit_test(test_scale_bits),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_envelope),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_notifications),
		cmocka_unit_test(test_all_errors_at_once_but_bounded),
		cmocka_unit_test(test_strange_keys),
		cmocka_unit_test(test_labels_are_kept),
		cmocka_unit_test(test_schema),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
