/* SPDX-License-Identifier: Apache-2.0
 * Patches of the job spec: the merge, what may change, what is carried over.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* Programs are not libraries: the files under test come in whole. */
#include "orchestrator/hook_rule.c"
#include "orchestrator/spec.c"
#include "orchestrator/spec_check.c"
#include "orchestrator/spec_names.c"
#include "orchestrator/spec_patch.c"
#include "orchestrator/spec_schema.c"
#include "orchestrator/spec_selector.c"

static char *stored(const char *spec)
{
	char text[1024];
	char reason[160];
	struct orc_spec made;
	json_t *body = NULL;
	json_t *errors = NULL;
	char *out;

	(void)snprintf(
		text, sizeof(text),
		"{\"apiVersion\":\"tributary/v1\",\"kind\":\"AggregationJob\","
		"\"metadata\":{\"name\":\"x\",\"labels\":{\"a\":\"1\",\"b\":\"2\"}},\"spec\":%s}",
		spec);
	assert_int_equal(trib_json_parse(text, strlen(text), &body, reason), 0);
	assert_int_equal(orc_spec_read(body, &made, &errors), 0);
	json_decref(body);
	out = trib_json_print(made.spec);
	orc_spec_fini(&made);
	return out;
}

/* The first error's pointer, or "" and the new spec. */
static const char *change(const char *old, const char *patch, struct orc_spec *ret_spec)
{
	static char pointer[256];
	char reason[160];
	json_t *json = NULL;
	json_t *errors = NULL;
	int rc;

	assert_int_equal(trib_json_parse(patch, strlen(patch), &json, reason), 0);
	rc = orc_spec_patch("x", old, json, ret_spec, &errors);
	json_decref(json);
	pointer[0] = '\0';
	if (rc == -EBADMSG) {
		(void)snprintf(pointer, sizeof(pointer), "%s",
			       trib_json_text(json_array_get(errors, 0), "pointer", "?"));
		json_decref(errors);
	} else {
		assert_int_equal(rc, 0);
	}
	return pointer;
}

static void merges_as_rfc_7396_says(void **state)
{
	char *old = stored("{\"sync\":{\"goal\":8},\"client_config\":{\"lr\":1}}");
	struct orc_spec spec;

	(void)state;
	assert_string_equal(change(old, "{}", &spec), "");
	assert_int_equal(spec.goal, 8);
	assert_int_equal(trib_json_integer(spec.spec, "client_config.lr", 0), 1);
	orc_spec_fini(&spec);
	assert_string_equal(change(old,
				   "{\"metadata\":{\"labels\":{\"a\":null,\"c\":\"3\"}},"
				   "\"spec\":{\"sync\":{\"goal\":null,\"deadline_s\":5}}}",
				   &spec),
			    "");
	assert_int_equal(spec.goal, 10);
	assert_int_equal(spec.deadline_ms, 5000);
	assert_null(trib_json_at(spec.spec, "labels.a"));
	assert_string_equal(trib_json_text(spec.spec, "labels.b", ""), "2");
	assert_string_equal(trib_json_text(spec.spec, "labels.c", ""), "3");
	orc_spec_fini(&spec);
	trib_free(old);
}

static void a_quorum_that_is_the_goal_follows_it(void **state)
{
	char *same = stored("{\"sync\":{\"goal\":8}}");
	char *other = stored("{\"sync\":{\"goal\":8,\"quorum\":6}}");
	struct orc_spec spec;

	(void)state;
	assert_string_equal(change(same, "{\"spec\":{\"sync\":{\"goal\":4}}}", &spec), "");
	assert_int_equal(spec.quorum, 4);
	orc_spec_fini(&spec);
	assert_string_equal(change(other, "{\"spec\":{\"sync\":{\"goal\":4}}}", &spec),
			    "/spec/sync/quorum");
	assert_string_equal(change(other, "{\"spec\":{\"sync\":{\"goal\":7}}}", &spec), "");
	assert_int_equal(spec.quorum, 6);
	orc_spec_fini(&spec);
	trib_free(same);
	trib_free(other);
}

static void sums_keep_their_scale(void **state)
{
	char *old = stored("{\"sync\":{\"goal\":500000},\"aggregation\":{\"max_weight\":1000}}");
	struct orc_spec spec;
	long long bits;

	(void)state;
	assert_string_equal(change(old, "{}", &spec), "");
	bits = trib_json_integer(spec.spec, "aggregation.scale_bits", 0);
	orc_spec_fini(&spec);
	assert_string_equal(change(old, "{\"spec\":{\"sync\":{\"goal\":2}}}", &spec), "");
	assert_int_equal(trib_json_integer(spec.spec, "aggregation.scale_bits", 0), bits);
	orc_spec_fini(&spec);
	trib_free(old);
	old = stored("{\"aggregation\":{\"max_weight\":1000}}");
	assert_string_equal(change(old, "{\"spec\":{\"sync\":{\"goal\":900000}}}", &spec),
			    "/spec/sync/goal");
	trib_free(old);
}

static void what_is_fixed_is_refused(void **state)
{
	char *old = stored("{}");
	struct orc_spec spec;

	(void)state;
	assert_string_equal(change(old, "{\"spec\":{\"hierarchy\":{\"leaves\":3}}}", &spec),
			    "/spec/hierarchy/leaves");
	assert_string_equal(change(old, "{\"spec\":{\"client_config\":{\"a\":1}}}", &spec),
			    "/spec/client_config");
	assert_string_equal(change(old, "{\"spec\":{\"auth\":{\"clients\":\"token\"}}}", &spec),
			    "/spec/auth/clients");
	assert_string_equal(change(old, "{\"metadata\":{\"name\":\"y\"}}", &spec),
			    "/metadata/name");
	assert_string_equal(change(old, "{\"spec\":7}", &spec), "/spec");
	assert_string_equal(change(old, "{\"spec\":null,\"kind\":null}", &spec), "/kind");
	assert_string_equal(change(old, "[]", &spec), "");
	trib_free(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(merges_as_rfc_7396_says),
		cmocka_unit_test(a_quorum_that_is_the_goal_follows_it),
		cmocka_unit_test(sums_keep_their_scale),
		cmocka_unit_test(what_is_fixed_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
