/* SPDX-License-Identifier: Apache-2.0 */
#include "common/safetensors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"

#define T(name, dtype, shape, begin, end)                                                       \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin \
	"," #end "]}"

/* The text is copied to a heap block of exactly its size: the sanitizer sees every step beyond. */
static int parse(const char *text, size_t size, uint64_t data_size, struct trib_layout **layout,
		 enum trib_problem *problem, const char **detail)
{
	char *copy = trib_alloc(size);
	int rc;

	assert_non_null(copy);
	memcpy(copy, text, size);
	rc = trib_layout_parse(copy, size, data_size, layout, problem, detail);
	memset(copy, 'x', size); /* the layout must not borrow from it */
	trib_free(copy);
	return rc;
}

static struct trib_layout *parsed(const char *text, uint64_t data_size)
{
	struct trib_layout *layout = NULL;
	enum trib_problem problem = TRIB_PROBLEM_COUNT;
	const char *detail = "";
	int rc = parse(text, strlen(text), data_size, &layout, &problem, &detail);

	if (rc) {
		print_error("%s: %s\n", text, detail);
	}
	assert_int_equal(rc, 0);
	assert_int_equal(problem, TRIB_PROBLEM_COUNT);
	return layout;
}

static void a_usual_header_is_read(void **state)
{
	struct trib_layout *layout = parsed(
		"{\"__metadata__\":{\"format\":\"pt\"}," T("fc.weight", "F32", "2,3", 4, 28) "," T(
			"fc.bias", "BF16", "2", 0, 4) "," T("s", "F16", "", 28, 30) "}   ",
		30);
	const struct trib_tensor *tensor;

	(void)state;
	assert_int_equal(trib_layout_count(layout), 3);
	assert_int_equal(trib_layout_data_size(layout), 30);
	tensor = trib_layout_tensor(layout, 0);
	assert_string_equal(tensor->name, "fc.bias");
	assert_int_equal(tensor->dtype, TRIB_DTYPE_BF16);
	tensor = trib_layout_tensor(layout, 1);
	assert_string_equal(tensor->name, "fc.weight");
	assert_int_equal(tensor->dtype, TRIB_DTYPE_F32);
	assert_int_equal(tensor->dims, 2);
	assert_int_equal(tensor->shape[0], 2);
	assert_int_equal(tensor->shape[1], 3);
	assert_int_equal(tensor->begin, 4);
	assert_int_equal(tensor->end, 28);
	tensor = trib_layout_tensor(layout, 2);
	assert_int_equal(tensor->dtype, TRIB_DTYPE_F16);
	assert_int_equal(tensor->dims, 0);
	assert_null(trib_layout_free(layout));
	assert_null(trib_layout_free(NULL));
}

static void unusual_but_valid_headers_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t data_size;
		uint32_t count;
	} good[] = {
		{ "{}", 0, 0 },
		{ "{}      ", 0, 0 },
		{ "{\"__metadata__\":{}}", 0, 0 },
		{ "{\n\t\"a\" : { \"data_offsets\" : [ 0 , 4 ] , \"shape\" : [ 1 ] ,\r\n"
		  "\"dtype\" : \"F32\" } }",
		  4, 1 },
		{ "{" T("a", "F32", "1", 0, 4) ",\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 4,
		  1 },
		{ "{\"__metadata__\":{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\":\"\xc3\xa9\xe2\x82\xac"
		  "\xf0\x9f\x98\x80 { [ } ] \"}}",
		  0, 0 },
		{ "{" T(" !#~", "F32", "1,1,1,1,1,1,1,1", 0, 4) "}", 4, 1 },
		{ "{" T("dtype", "F32", "1", 0, 4) "}", 4, 1 },
		/* empty tensors share their begin with each other and with a full one */
		{ "{" T("a", "F32", "0", 0, 0) "," T("b", "F32", "0,7", 0, 0) "}", 0, 2 },
		{ "{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "0", 0, 0) "," T(
			  "c", "F32", "0", 4, 4) "," T("d", "F32", "1", 4,
						       8) "," T("e", "F32", "3,0", 8, 8) "}",
		  8, 5 },
		{ "{" T("a", "F32", "2305843009213693952", 0, 9223372036854775808) "}",
		  9223372036854775808u, 1 },
		{ "{" T("__metadata__x", "F32", "1", 0, 4) "}", 4, 1 },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(good); i++) {
		struct trib_layout *layout = parsed(good[i].text, good[i].data_size);
		uint64_t next = 0;

		assert_int_equal(trib_layout_count(layout), good[i].count);
		for (uint32_t k = 0; k < good[i].count; k++) {
			assert_int_equal(trib_layout_tensor(layout, k)->begin, next);
			next = trib_layout_tensor(layout, k)->end;
		}
		assert_int_equal(next, good[i].data_size);
		layout = trib_layout_free(layout);
	}
}

struct hostile {
	const char *text;
	uint64_t data_size;
	const char *detail; /* a part of it */
};

#define A4 T("a", "F32", "1", 0, 4)

static const struct hostile hostile[] = {
	/* places */
	{ "{" A4 "," T("b", "F32", "1", 0, 4) "}", 4, "overlap" },
	{ "{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 4, 8) "}", 8, "overlap" },
	{ "{" T("a", "F32", "3", 0, 12) "," T("b", "F32", "1", 4, 8) "}", 12, "overlap" },
	{ "{" T("a", "F32", "2", 0, 8) "," T("z", "F32", "0", 4, 4) "}", 8, "overlap" },
	{ "{" A4 "," T("b", "F32", "1", 8, 12) "}", 12, "hole" },
	{ "{" T("a", "F32", "1", 4, 8) "}", 8, "hole" },
	{ "{" A4 "," T("z", "F32", "0", 8, 8) "}", 8, "hole" },
	{ "{" A4 "}", 8, "do not end" },
	{ "{}", 1, "do not end" },
	{ "{" A4 "}", 3, "behind the data" },
	{ "{" T("a", "F32", "1", 4, 0) "}", 4, "before they begin" },
	{ "{" T("a", "F32", "1", 18446744073709551612, 0) "}", 4, "before they begin" },
	/* sizes */
	{ "{" T("a", "F32", "2", 0, 4) "}", 4, "do not make" },
	{ "{" T("a", "F16", "1", 0, 4) "}", 4, "do not make" },
	{ "{" T("a", "F32", "0", 0, 4) "}", 4, "do not make" },
	{ "{" T("a", "F32", "", 0, 0) "}", 0, "do not make" },
	{ "{" T("a", "F32", "4294967296,4294967296", 0, 0) "}", 0, "shape is too large" },
	{ "{" T("a", "F32", "4611686018427387904", 0, 0) "}", 0, "shape is too large" },
	{ "{" T("a", "F32", "9223372036854775808,2,0", 0, 0) "}", 0, "shape is too large" },
	{ "{" T("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4, "dimensions" },
	/* numbers */
	{ "{" T("a", "F32", "-1", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "1", -4, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "+1", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "01", 0, 4) "}", 4, "leading zeros" },
	{ "{" T("a", "F32", "1", 00, 4) "}", 4, "leading zeros" },
	{ "{" T("a", "F32", "1e0", 0, 4) "}", 4, "comma" },
	{ "{" T("a", "F32", "1e3", 0, 4000) "}", 4000, "comma" },
	{ "{" T("a", "F32", "1.0", 0, 4) "}", 4, "comma" },
	{ "{" T("a", "F32", "1", 0, 4.0) "}", 4, "two integers" },
	{ "{" T("a", "F32", "\"1\"", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "null", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "[1]", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", "18446744073709551616", 0, 4) "}", 4, "too large" },
	{ "{" T("a", "F32", "1", 0, 99999999999999999999999) "}", 4, "too large" },
	{ "{" T("a", "F32", "1,", 0, 4) "}", 4, "non-negative" },
	{ "{" T("a", "F32", ",1", 0, 4) "}", 4, "non-negative" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4, "two integers" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 8, "two integers" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[]}}", 0, "non-negative" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "not an array" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}", 4, "not an array" },
	/* names and keys */
	{ "{" A4 "," A4 "}", 4, "overlap" },
	{ "{" A4 "," T("a", "F32", "1", 4, 8) "}", 8, "same name" },
	{ "{" T("a", "F32", "0", 0, 0) "," T("a", "F32", "0", 0, 0) "}", 0, "same name" },
	{ "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "1 to 256" },
	{ "{" T("a\\u0062", "F32", "1", 0, 4) "}", 4, "escapes" },
	{ "{" T("a\\\"b", "F32", "1", 0, 4) "}", 4, "escapes" },
	{ "{" T("\xc3\xa9", "F32", "1", 0, 4) "}", 4, "ASCII" },
	{ "{" T("a\x7f", "F32", "1", 0, 4) "}", 4, "ASCII" },
	{ "{" T("a\n", "F32", "1", 0, 4) "}", 4, "ASCII" },
	{ "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	  "key twice" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
	  "key twice" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"data_offsets\":[0,4]}}",
	  4, "key twice" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
	  "unknown key" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shap\\u0065\":[1],\"data_offsets\":[0,4]}}", 4, "escapes" },
	{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "missing" },
	{ "{\"a\":{}}", 0, "missing" },
	{ "{\"a\":[]}", 0, "not an object" },
	{ "{\"a\":null}", 0, "not an object" },
	{ "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "string is missing" },
	{ "{" T("a", "f32", "1", 0, 4) "}", 4, "unknown dtype" },
	{ "{" T("a", "F320", "1", 0, 4) "}", 4, "unknown dtype" },
	{ "{" T("a", "", "1", 0, 4) "}", 4, "unknown dtype" },
	/* metadata */
	{ "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice" },
	{ "{\"__metadata__\":{\"a\":\"b\"}," A4 ",\"__metadata__\":{\"a\":\"b\"}}", 4, "twice" },
	{ "{\"__metadata__\":{\"a\":1}}", 0, "strings to strings" },
	{ "{\"__metadata__\":{\"a\":{}}}", 0, "strings to strings" },
	{ "{\"__metadata__\":{\"a\":null}}", 0, "strings to strings" },
	{ "{\"__metadata__\":[]}", 0, "not an object" },
	{ "{\"__metadata__\":null}", 0, "not an object" },
	{ "{\"__metadata__\":{\"a\":\"\\x\"}}", 0, "escape" },
	{ "{\"__metadata__\":{\"a\":\"\\u12g4\"}}", 0, "escape" },
	{ "{\"__metadata__\":{\"a\":\"\n\"}}", 0, "control" },
	{ "{\"__metadata__\":{\"a\":\"\xff\"}}", 0, "UTF-8" },
	{ "{\"__metadata__\":{\"a\":\"\xc0\xaf\"}}", 0, "UTF-8" },
	{ "{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", 0, "UTF-8" },
	{ "{\"__metadata__\":{\"a\":\"\xe2\x82\"}}", 0, "UTF-8" },
	{ "{\"__metadata__\":{\"a\":\"\xf4\x90\x80\x80\"}}", 0, "UTF-8" },
	{ "{\"__metadata__\":{\"a\":\"b\",}}", 0, "strings to strings" },
	/* form */
	{ "", 0, "begin with {" },
	{ " {}", 0, "begin with {" },
	{ "[]", 0, "begin with {" },
	{ "\xef\xbb\xbf{}", 0, "begin with {" },
	{ "{", 0, "string is missing" },
	{ "{,}", 0, "string is missing" },
	{ "{" A4 ",}", 4, "string is missing" },
	{ "{" A4 " " A4 "}", 4, "comma" },
	{ "{" A4, 4, "comma" },
	{ "{\"a\" {}}", 0, "colon" },
	{ "{\"a", 0, "unterminated" },
	{ "{\"__metadata__\":{\"a", 0, "unterminated" },
	{ "{'a':{}}", 0, "string is missing" },
	{ "{}x", 0, "only spaces" },
	{ "{}\n", 0, "only spaces" },
	{ "{} {}", 0, "only spaces" },
	{ "{" A4 "}}", 4, "only spaces" },
};

static void hostile_headers_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(hostile); i++) {
		struct trib_layout *layout = NULL;
		enum trib_problem problem = TRIB_PROBLEM_COUNT;
		const char *detail = NULL;
		int rc = parse(hostile[i].text, strlen(hostile[i].text), hostile[i].data_size,
			       &layout, &problem, &detail);

		if (rc != -EBADMSG || !detail || !strstr(detail, hostile[i].detail)) {
			fail_msg("%s: rc %d, \"%s\" without \"%s\"", hostile[i].text, rc,
				 detail ? detail : "", hostile[i].detail);
		}
		assert_int_equal(problem, TRIB_PROBLEM_INVALID_HEADER);
		assert_null(layout);
	}
}

static void a_nul_is_no_end(void **state)
{
	struct trib_layout *layout = NULL;
	enum trib_problem problem;
	const char *detail;

	(void)state;
	assert_int_equal(parse("{}\0", 3, 0, &layout, &problem, &detail), -EBADMSG);
	assert_int_equal(parse("{\"a\0b\":", 7, 0, &layout, &problem, &detail), -EBADMSG);
	assert_non_null(strstr(detail, "ASCII"));
}

static void every_truncation_is_refused(void **state)
{
	static const char text[] = "{\"__metadata__\":{\"f\":\"p\\u0041\xc3\xa9\"}," A4
				   "," T("b", "F16", "2,2", 4, 12) "}";
	struct trib_layout *layout = NULL;
	enum trib_problem problem;
	const char *detail;

	(void)state;
	for (size_t size = 0; size < sizeof(text) - 1; size++) {
		assert_int_equal(parse(text, size, 12, &layout, &problem, &detail), -EBADMSG);
	}
	assert_int_equal(parse(text, sizeof(text) - 1, 12, &layout, &problem, &detail), 0);
	layout = trib_layout_free(layout);
}

static void known_dtypes_without_support_are_told(void **state)
{
	static const char *const names[] = { "F64", "I64", "I32", "I16",  "I8",      "U64",
					     "U32", "U16", "U8",  "BOOL", "F8_E4M3", "F8_E5M2" };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(names); i++) {
		struct trib_layout *layout = NULL;
		enum trib_problem problem = TRIB_PROBLEM_COUNT;
		const char *detail = "";
		char text[128];

		(void)snprintf(text, sizeof(text), "{" T("a", "%s", "1", 0, 4) "}", names[i]);
		assert_int_equal(parse(text, strlen(text), 4, &layout, &problem, &detail),
				 -EBADMSG);
		assert_int_equal(problem, TRIB_PROBLEM_UNSUPPORTED_ENCODING);
		assert_non_null(strstr(detail, names[i]));
		assert_non_null(strstr(detail, "F32"));
	}
}

static void names_have_256_characters_at_most(void **state)
{
	struct trib_layout *layout = NULL;
	enum trib_problem problem;
	const char *detail;
	char name[258];
	char text[400];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[257] = '\0';
	(void)snprintf(text, sizeof(text), "{" T("%s", "F32", "1", 0, 4) "}", name);
	assert_int_equal(parse(text, strlen(text), 4, &layout, &problem, &detail), -EBADMSG);
	assert_non_null(strstr(detail, "256"));
	name[256] = '\0';
	(void)snprintf(text, sizeof(text), "{" T("%s", "F32", "1", 0, 4) "}", name);
	layout = parsed(text, 4);
	assert_string_equal(trib_layout_tensor(layout, 0)->name, name);
	layout = trib_layout_free(layout);
}

/* Places are a permutation (7919 is prime to the even `count`). */
static size_t write_shuffled(char *text, size_t room, uint32_t count)
{
	size_t size = 1;

	text[0] = '{';
	for (uint32_t i = 0; i < count; i++) {
		unsigned at = (unsigned)((uint64_t)i * 7919 % count) * 4;

		size += (size_t)snprintf(text + size, room - size,
					 "\"%x\":{\"dtype\":\"F32\",\"shape\":[],"
					 "\"data_offsets\":[%u,%u]}%s",
					 (unsigned)i, at, at + 4, i + 1 < count ? "," : "}");
		assert_true(size < room);
	}
	return size;
}

/* About as many tensors as a header of 1 MiB holds; quadratic time would be seconds. */
static void the_largest_header_takes_milliseconds(void **state)
{
	size_t room = TRIB_TENSOR_HEADER_MAX;
	char *text = trib_alloc(room);
	struct trib_layout *layout = NULL;
	struct trib_piece *pieces = NULL;
	enum trib_problem problem;
	const char *detail = "";
	uint32_t piece_count = 0;
	uint32_t count = 16500;
	uint64_t ms;
	size_t size;

	(void)state;
	assert_non_null(text);
	size = write_shuffled(text, room, count);
	ms = trib_clock_ms();
	assert_int_equal(trib_layout_parse(text, size, 4ull * count, &layout, &problem, &detail),
			 0);
	assert_int_equal(
		trib_layout_match(layout, layout, &pieces, &piece_count, &problem, &detail), 0);
	ms = trib_clock_ms() - ms;
	assert_int_equal(trib_layout_count(layout), count);
	assert_int_equal(piece_count, 1);
	print_message("%u tensors, %zu bytes: %llu ms\n", count, size, (unsigned long long)ms);
	assert_true(ms < 1000);
	trib_free(pieces);
	layout = trib_layout_free(layout);
	trib_free(text);
}

static void a_header_has_a_mebibyte_at_most(void **state)
{
	size_t room = TRIB_TENSOR_HEADER_MAX;
	char *text = trib_alloc(room + 1);
	struct trib_layout *layout = NULL;
	enum trib_problem problem;
	const char *detail;

	(void)state;
	assert_non_null(text);
	memset(text, ' ', room + 1);
	memcpy(text, "{}", 2);
	assert_int_equal(trib_layout_parse(text, room + 1, 0, &layout, &problem, &detail),
			 -EBADMSG);
	assert_int_equal(problem, TRIB_PROBLEM_INVALID_HEADER);
	assert_int_equal(trib_layout_parse(text, room, 0, &layout, &problem, &detail), 0);
	layout = trib_layout_free(layout);
	trib_free(text);
}

/* ---- match ---- */

static void the_same_order_is_one_piece(void **state)
{
	struct trib_layout *job =
		parsed("{" A4 "," T("b", "F32", "2", 4, 12) "," T("z", "F32", "0", 12, 12) "}", 12);
	struct trib_layout *update = parsed("{\"__metadata__\":{}," T("z", "F32", "0", 4, 4) "," T(
						    "b", "F32", "2", 4, 12) "," A4 "}  ",
					    12);
	struct trib_piece *pieces = NULL;
	enum trib_problem problem;
	const char *detail;
	uint32_t count = 0;

	(void)state;
	assert_int_equal(trib_layout_match(job, update, &pieces, &count, &problem, &detail), 0);
	assert_int_equal(count, 1);
	assert_int_equal(pieces[0].offset, 0);
	assert_int_equal(pieces[0].size, 12);
	trib_free(pieces);
	update = trib_layout_free(update);
	job = trib_layout_free(job);
}

static void permuted_tensors_find_their_places(void **state)
{
	/* job: a 0-4 b 4-12 c 12-24 d 24-28; file: c d a b -> runs [12,28) [0,12) */
	struct trib_layout *job =
		parsed("{" A4 "," T("b", "F32", "2", 4, 12) "," T("c", "F32", "3", 12, 24) "," T(
			       "d", "F32", "1", 24, 28) "}",
		       28);
	struct trib_layout *update =
		parsed("{" T("a", "F32", "1", 16, 20) "," T("b", "F32", "2", 20, 28) "," T(
			       "c", "F32", "3", 0, 12) "," T("d", "F32", "1", 12, 16) "}",
		       28);
	struct trib_piece *pieces = NULL;
	enum trib_problem problem;
	const char *detail;
	uint32_t count = 0;

	(void)state;
	assert_int_equal(trib_layout_match(job, update, &pieces, &count, &problem, &detail), 0);
	assert_int_equal(count, 2);
	assert_int_equal(pieces[0].offset, 12);
	assert_int_equal(pieces[0].size, 16);
	assert_int_equal(pieces[1].offset, 0);
	assert_int_equal(pieces[1].size, 12);
	trib_free(pieces);
	update = trib_layout_free(update);
	job = trib_layout_free(job);
}

static void an_empty_job_matches_itself(void **state)
{
	struct trib_layout *job = parsed("{}", 0);
	struct trib_piece *pieces = NULL;
	enum trib_problem problem;
	const char *detail;
	uint32_t count = 9;

	(void)state;
	assert_int_equal(trib_layout_match(job, job, &pieces, &count, &problem, &detail), 0);
	assert_int_equal(count, 0);
	trib_free(pieces);
	job = trib_layout_free(job);
}

static void other_layouts_do_not_match(void **state)
{
	static const struct {
		const char *text;
		uint64_t data_size;
		enum trib_problem problem;
	} others[] = {
		{ "{" A4 "," T("c", "F32", "2,3", 4, 28) "}", 28, TRIB_PROBLEM_BAD_TENSOR_NAME },
		{ "{" A4 "," T("b", "F32", "2,3", 4, 28) "," T("c", "F32", "0", 28, 28) "}", 28,
		  TRIB_PROBLEM_BAD_TENSOR_NAME },
		{ "{" A4 "," T("b", "F32", "3,2", 4, 28) "}", 28, TRIB_PROBLEM_LAYOUT_MISMATCH },
		{ "{" A4 "," T("b", "F32", "6", 4, 28) "}", 28, TRIB_PROBLEM_LAYOUT_MISMATCH },
		{ "{" A4 "," T("b", "F32", "2,3,1", 4, 28) "}", 28, TRIB_PROBLEM_LAYOUT_MISMATCH },
		{ "{" A4 "," T("b", "F16", "2,3", 4, 16) "}", 16, TRIB_PROBLEM_LAYOUT_MISMATCH },
		{ "{" A4 "}", 4, TRIB_PROBLEM_LAYOUT_MISMATCH },
		{ "{}", 0, TRIB_PROBLEM_LAYOUT_MISMATCH },
	};
	struct trib_layout *job = parsed("{" A4 "," T("b", "F32", "2,3", 4, 28) "}", 28);

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(others); i++) {
		struct trib_layout *update = parsed(others[i].text, others[i].data_size);
		struct trib_piece *pieces = NULL;
		enum trib_problem problem = TRIB_PROBLEM_COUNT;
		const char *detail = NULL;
		uint32_t count = 0;

		assert_int_equal(trib_layout_match(job, update, &pieces, &count, &problem, &detail),
				 -EBADMSG);
		assert_int_equal(problem, others[i].problem);
		assert_non_null(detail);
		assert_null(pieces);
		update = trib_layout_free(update);
	}
	job = trib_layout_free(job);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_usual_header_is_read),
		cmocka_unit_test(unusual_but_valid_headers_are_read),
		cmocka_unit_test(hostile_headers_are_refused),
		cmocka_unit_test(a_nul_is_no_end),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(known_dtypes_without_support_are_told),
		cmocka_unit_test(names_have_256_characters_at_most),
		cmocka_unit_test(the_largest_header_takes_milliseconds),
		cmocka_unit_test(a_header_has_a_mebibyte_at_most),
		cmocka_unit_test(the_same_order_is_one_piece),
		cmocka_unit_test(permuted_tensors_find_their_places),
		cmocka_unit_test(an_empty_job_matches_itself),
		cmocka_unit_test(other_layouts_do_not_match),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
