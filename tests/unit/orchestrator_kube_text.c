/* SPDX-License-Identifier: Apache-2.0
 * Cutting up what an API server sends: whole answers, cut ones, and objects that nobody should
 * parse.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/kube_text.c"

#define DEEP 5000

struct seen {
	size_t count;
	char keys[256];
	char values[256];
};

static void on_member(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	struct seen *seen = arg;

	seen->count++;
	(void)snprintf(seen->keys + strlen(seen->keys), sizeof(seen->keys) - strlen(seen->keys),
		       "%.*s|", (int)key_size, key);
	(void)snprintf(seen->values + strlen(seen->values),
		       sizeof(seen->values) - strlen(seen->values), "%.*s|", (int)size, value);
}

static void test_members_and_elements(void **state)
{
	static const char text[] =
		" {\"a\" : 1,\n\"b\":\"x\\\"}\", \"c\":{\"d\":[1,{}]} ,\"e\":[]}";
	static const char list[] = "[1, \"a,]\", {\"b\":\"]\"} ,[[2]],true]\n";
	struct seen seen = { 0 };

	(void)state;
	assert_true(kube_members(text, strlen(text), on_member, &seen));
	assert_string_equal(seen.keys, "\"a\"|\"b\"|\"c\"|\"e\"|");
	assert_string_equal(seen.values, "1|\"x\\\"}\"|{\"d\":[1,{}]}|[]|");
	memset(&seen, 0, sizeof(seen));
	assert_true(kube_elements(list, strlen(list), on_member, &seen));
	assert_string_equal(seen.values, "1|\"a,]\"|{\"b\":\"]\"}|[[2]]|true|");
	memset(&seen, 0, sizeof(seen));
	assert_true(kube_members("{}", 2, on_member, &seen));
	assert_true(kube_elements("[]", 2, on_member, &seen));
	assert_int_equal(seen.count, 0);
	assert_true(kube_is("\"items\"", 7, "items"));
	assert_false(kube_is("\"items\"", 7, "item"));
	assert_false(kube_is("\"itemx\"", 7, "items"));
}

/* Every beginning of an answer is not whole, whatever follows it in memory. */
static void test_cut_answers(void **state)
{
	static const char text[] =
		"{\"metadata\":{\"x\":\"\\\\\"},\"items\":[{\"a\":[1,2]},\"b\",3],\"k\":null}";
	struct seen seen = { 0 };

	(void)state;
	assert_true(kube_members(text, strlen(text), on_member, &seen));
	for (size_t size = 0; size < strlen(text); size++) {
		char *copy = malloc(size + 1); /* of its size, for the sanitiser */

		assert_non_null(copy);
		memcpy(copy, text, size);
		memset(&seen, 0, sizeof(seen));
		assert_false(kube_members(copy, size, on_member, &seen));
		assert_null(kube_slim(copy, size));
		free(copy);
	}
	for (size_t i = 0; i < 6; i++) {
		static const char *const wrong[] = { "{} x",      "{\"a\" 1}", "{a:1}",
						     "{\"a\":1]", "[1}",       "{\"a\":,}" };

		memset(&seen, 0, sizeof(seen));
		assert_false(kube_members(wrong[i], strlen(wrong[i]), on_member, &seen));
	}
}

static void test_slim(void **state)
{
	static const char text[] =
		"{\"kind\":\"AggregationJob\",\"metadata\":{\"name\":\"n\",\"generation\":7,"
		"\"annotations\":{\"a\":\"b\"},\"managedFields\":[{\"x\":1}],\"finalizers\":[\"f\"]"
		"},"
		"\"spec\":{\"sync\":{\"goal\":3}},\"status\":{\"job\":\"j\",\"metrics\":{\"m\":1}}"
		"}";
	json_t *json = kube_slim(text, strlen(text));
	char reason[160];
	json_t *spec;

	(void)state;
	assert_non_null(json);
	assert_string_equal(trib_json_text(json, "metadata.name", ""), "n");
	assert_int_equal(trib_json_integer(json, "metadata.generation", 0), 7);
	assert_int_equal(json_array_size(trib_json_at(json, "metadata.finalizers")), 1);
	assert_null(trib_json_at(json, "metadata.annotations"));
	assert_null(trib_json_at(json, "metadata.managedFields"));
	assert_null(trib_json_at(json, "status.metrics"));
	assert_string_equal(trib_json_text(json, "status.job", ""), "j");
	spec = kube_spec(json, reason);
	assert_int_equal(trib_json_integer(spec, "sync.goal", 0), 3);
	json_decref(spec);
	json_decref(json);
}

/* `text` as the spec of an object: the object is known, the spec is not taken. */
static void refused(const char *spec)
{
	size_t room = strlen(spec) + 64;
	char *text = malloc(room);
	char reason[160] = "";
	json_t *json;

	assert_non_null(text);
	(void)snprintf(text, room, "{\"metadata\":{\"name\":\"n\"},\"spec\":%s}", spec);
	json = kube_slim(text, strlen(text));
	assert_string_equal(trib_json_text(json, "metadata.name", ""), "n");
	assert_null(kube_spec(json, reason));
	assert_true(strlen(reason) > 0);
	json_decref(json);
	free(text);
}

static void test_specs_that_nobody_should_parse(void **state)
{
	static char deep[2 * DEEP + 16];
	static char large[KUBE_SPEC_MAX + 16];

	(void)state;
	(void)snprintf(deep, sizeof(deep), "{\"a\":");
	memset(deep + 5, '[', DEEP);
	memset(deep + 5 + DEEP, ']', DEEP);
	deep[5 + 2 * DEEP] = '}';
	refused(deep);
	memset(large, ' ', sizeof(large) - 1);
	large[0] = '{';
	large[KUBE_SPEC_MAX] = '}';
	refused(large);
	refused("{\"a\":\"\\u0000\"}");
	refused("{\"a\":18446744073709552000}");
	refused("{\"a\":\"\xff\"}");
	refused("{\"a\":1,\"a\":2}");
}

/* Finalizers that are not known whole would be lost when ours is added. */
static void test_finalizers_too_long(void **state)
{
	static char text[VALUE_MAX + 256];
	int size = snprintf(text, sizeof(text), "{\"metadata\":{\"name\":\"n\",\"finalizers\":[\"");

	(void)state;
	memset(text + size, 'f', VALUE_MAX);
	(void)snprintf(text + size + VALUE_MAX, 16, "\"]}}");
	assert_null(kube_slim(text, strlen(text)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members_and_elements),
		cmocka_unit_test(test_cut_answers),
		cmocka_unit_test(test_slim),
		cmocka_unit_test(test_specs_that_nobody_should_parse),
		cmocka_unit_test(test_finalizers_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
