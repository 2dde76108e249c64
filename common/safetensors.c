/* SPDX-License-Identifier: Apache-2.0
 * The parser is a cursor over a fixed three levels of nesting: no recursion, no backtracking, one
 * copy of the names. Time is linear but for one sort, whatever the input: names are found through
 * a hash with a secret key, so that nobody can prepare names that collide.
 */
#include "common/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto.h"

#define EMPTY           UINT32_MAX
#define METADATA        "__metadata__"
#define FIRST_TENSORS   64
#define TEXT_OF(number) #number
#define TEXT(number)    TEXT_OF(number)

struct trib_layout {
	uint32_t count;
	uint32_t capacity;
	uint64_t data_size;
	struct trib_tensor *tensors;
	char *names; /* every name with its terminator */
	size_t names_size;
	uint32_t *table; /* open addressing: index of a tensor, or EMPTY */
	uint32_t mask;
	uint64_t key[2];
};

struct reader {
	const char *at;
	const char *end;
	struct trib_layout *layout;
	bool metadata_seen;
	int rc; /* 0 while all is well */
	enum trib_problem problem;
	const char *detail;
};

struct dtype {
	const char *name;
	enum trib_dtype dtype;
	uint32_t size;
	const char *refusal;
};

#define REFUSED(name)                                                                        \
	{                                                                                    \
		name, TRIB_DTYPE_OTHER, 0,                                                   \
			"dtype " name " is not accepted: only F32, F16 and BF16 tensors are" \
	}

static const struct dtype dtypes[] = {
	{ "F32", TRIB_DTYPE_F32, 4, NULL },
	{ "F16", TRIB_DTYPE_F16, 2, NULL },
	{ "BF16", TRIB_DTYPE_BF16, 2, NULL },
	REFUSED("F64"),
	REFUSED("I64"),
	REFUSED("I32"),
	REFUSED("I16"),
	REFUSED("I8"),
	REFUSED("U64"),
	REFUSED("U32"),
	REFUSED("U16"),
	REFUSED("U8"),
	REFUSED("BOOL"),
	REFUSED("F8_E4M3"),
	REFUSED("F8_E5M2"),
	REFUSED("F8_E8M0"),
	REFUSED("F6_E2M3"),
	REFUSED("F6_E3M2"),
	REFUSED("F4"),
	REFUSED("C64"),
};

/* ---- names: SipHash-1-3 and an open-addressed table ---- */

static uint64_t rotate(uint64_t x, unsigned by)
{
	return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

static uint64_t hash_name(const uint64_t key[2], const char *name, size_t size)
{
	uint64_t v[4] = { key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
			  key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573 };
	uint64_t last = (uint64_t)size << 56;
	uint64_t word;

	for (; size >= 8; size -= 8, name += 8) {
		memcpy(&word, name, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	word = 0;
	memcpy(&word, name, size);
	last |= word;
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The table's place of `name`: holds its tensor, or EMPTY. The table is at most half full. */
static uint32_t *table_place(const struct trib_layout *layout, const char *name)
{
	uint32_t at = (uint32_t)hash_name(layout->key, name, strlen(name)) & layout->mask;

	while (layout->table[at] != EMPTY &&
	       strcmp(layout->tensors[layout->table[at]].name, name) != 0) {
		at = (at + 1) & layout->mask;
	}
	return &layout->table[at];
}

/* 0, or -EEXIST when two tensors have the same name. */
static int table_build(struct trib_layout *layout)
{
	uint32_t size = 8;
	int rc = trib_random(layout->key, sizeof(layout->key));

	if (rc) {
		return rc;
	}
	while (size < 2 * layout->count) {
		size *= 2;
	}
	layout->table = trib_alloc_array(size, sizeof(*layout->table));
	if (!layout->table) {
		return -ENOMEM;
	}
	memset(layout->table, 0xff, size * sizeof(*layout->table));
	layout->mask = size - 1;
	for (uint32_t i = 0; i < layout->count; i++) {
		uint32_t *place = table_place(layout, layout->tensors[i].name);

		if (*place != EMPTY) {
			return -EEXIST;
		}
		*place = i;
	}
	return 0;
}

/* ---- tokens: each returns false after refuse() ---- */

static bool refuse(struct reader *r, enum trib_problem problem, const char *detail)
{
	r->rc = -EBADMSG;
	r->problem = problem;
	r->detail = detail;
	return false;
}

static bool bad(struct reader *r, const char *detail)
{
	return refuse(r, TRIB_PROBLEM_INVALID_HEADER, detail);
}

static void skip_blanks(struct reader *r)
{
	while (r->at < r->end &&
	       (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
		r->at++;
	}
}

static bool take(struct reader *r, char c)
{
	skip_blanks(r);
	if (r->at == r->end || *r->at != c) {
		return false;
	}
	r->at++;
	return true;
}

/* After a member or element: true and *ret_more, or a refusal. */
static bool separator(struct reader *r, char close, bool *ret_more)
{
	if (take(r, ',')) {
		*ret_more = true;
		return true;
	}
	*ret_more = false;
	return take(r, close) || bad(r, "a comma or a closing bracket is missing");
}

/* A string of printable ASCII without escapes, as all names are. Borrowed from the input. */
static bool plain_string(struct reader *r, const char **ret_text, size_t *ret_size)
{
	const char *start;

	if (!take(r, '"')) {
		return bad(r, "a string is missing");
	}
	start = r->at;
	for (; r->at < r->end; r->at++) {
		unsigned char c = (unsigned char)*r->at;

		if (c == '"') {
			*ret_text = start;
			*ret_size = (size_t)(r->at - start);
			r->at++;
			return true;
		}
		if (c == '\\') {
			return bad(r, "escapes are not allowed in names");
		}
		if (c < 0x20 || c > 0x7e) {
			return bad(r, "names must be printable ASCII");
		}
	}
	return bad(r, "unterminated string");
}

static bool is_text(const char *text, size_t size, const char *expected)
{
	return size == strlen(expected) && memcmp(text, expected, size) == 0;
}

static bool number(struct reader *r, uint64_t *ret_value)
{
	const char *start;

	skip_blanks(r);
	start = r->at;
	while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		r->at++;
	}
	switch (trib_parse_u64(start, (size_t)(r->at - start), 0, UINT64_MAX, ret_value)) {
	case 0:
		return true; /* "1.0" or "1e3" fail at the separator */
	case -ERANGE:
		return bad(r, "a number is too large");
	default:
		return bad(r, "only non-negative integers without leading zeros are allowed");
	}
}

/* ---- __metadata__: text -> text, checked as JSON and forgotten ---- */

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool escape(struct reader *r)
{
	char c = r->at < r->end ? *r->at++ : '\0';

	if (c == 'u') {
		for (int i = 0; i < 4; i++, r->at++) {
			if (r->at == r->end || !is_hex(*r->at)) {
				return bad(r, "malformed escape in " METADATA);
			}
		}
		return true;
	}
	return (c && strchr("\"\\/bfnrt", c)) || bad(r, "malformed escape in " METADATA);
}

/* One character of more than one byte, its first being `lead`. */
static bool utf8_rest(struct reader *r, unsigned char lead)
{
	unsigned char low = 0x80;
	unsigned char high = 0xbf;
	int left = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;

	if (lead < 0xc2 || lead > 0xf4) {
		return bad(r, METADATA " is not UTF-8");
	}
	if (lead == 0xe0) {
		low = 0xa0; /* overlong */
	} else if (lead == 0xed) {
		high = 0x9f; /* surrogates */
	} else if (lead == 0xf0) {
		low = 0x90;
	} else if (lead == 0xf4) {
		high = 0x8f;
	}
	for (; left > 0; left--, r->at++) {
		if (r->at == r->end || (unsigned char)*r->at < low ||
		    (unsigned char)*r->at > high) {
			return bad(r, METADATA " is not UTF-8");
		}
		low = 0x80;
		high = 0xbf;
	}
	return true;
}

static bool metadata_string(struct reader *r)
{
	if (!take(r, '"')) {
		return bad(r, METADATA " must map strings to strings");
	}
	while (r->at < r->end) {
		unsigned char c = (unsigned char)*r->at++;

		if (c == '"') {
			return true;
		}
		if (c < 0x20) {
			return bad(r, "control character in " METADATA);
		}
		if ((c == '\\' && !escape(r)) || (c >= 0x80 && !utf8_rest(r, c))) {
			return false;
		}
	}
	return bad(r, "unterminated string");
}

static bool metadata(struct reader *r)
{
	bool more = true;

	if (r->metadata_seen) {
		return bad(r, METADATA " appears twice");
	}
	r->metadata_seen = true;
	if (!take(r, '{')) {
		return bad(r, METADATA " is not an object");
	}
	if (take(r, '}')) {
		return true;
	}
	while (more) {
		if (!metadata_string(r)) {
			return false;
		}
		if (!take(r, ':')) {
			return bad(r, "a colon is missing");
		}
		if (!metadata_string(r) || !separator(r, '}', &more)) {
			return false;
		}
	}
	return true;
}

/* ---- tensors ---- */

static bool tensor_dtype(struct reader *r, struct trib_tensor *tensor, uint32_t *ret_size)
{
	const char *text;
	size_t size;

	if (!plain_string(r, &text, &size)) {
		return false;
	}
	for (size_t i = 0; i < TRIB_COUNT(dtypes); i++) {
		if (is_text(text, size, dtypes[i].name)) {
			tensor->dtype = dtypes[i].dtype;
			*ret_size = dtypes[i].size;
			return !dtypes[i].refusal ||
			       refuse(r, TRIB_PROBLEM_UNSUPPORTED_ENCODING, dtypes[i].refusal);
		}
	}
	return bad(r, "unknown dtype");
}

static bool tensor_shape(struct reader *r, struct trib_tensor *tensor)
{
	bool more = true;

	if (!take(r, '[')) {
		return bad(r, "shape is not an array");
	}
	if (take(r, ']')) {
		return true;
	}
	while (more) {
		if (tensor->dims == TRIB_TENSOR_DIMS_MAX) {
			return bad(r, "more than " TEXT(TRIB_TENSOR_DIMS_MAX) " dimensions");
		}
		if (!number(r, &tensor->shape[tensor->dims]) || !separator(r, ']', &more)) {
			return false;
		}
		tensor->dims++;
	}
	return true;
}

static bool tensor_offsets(struct reader *r, struct trib_tensor *tensor)
{
	if (!take(r, '[')) {
		return bad(r, "data_offsets is not an array");
	}
	if (!number(r, &tensor->begin)) {
		return false;
	}
	if (!take(r, ',')) {
		return bad(r, "data_offsets must hold two integers");
	}
	if (!number(r, &tensor->end)) {
		return false;
	}
	return take(r, ']') || bad(r, "data_offsets must hold two integers");
}

static bool tensor_fits(struct reader *r, const struct trib_tensor *tensor, uint32_t item_size)
{
	uint64_t size = item_size;

	if (tensor->begin > tensor->end) {
		return bad(r, "data_offsets end before they begin");
	}
	if (tensor->end > r->layout->data_size) {
		return bad(r, "a tensor ends behind the data");
	}
	for (uint32_t i = 0; i < tensor->dims; i++) {
		if (__builtin_mul_overflow(size, tensor->shape[i], &size)) {
			return bad(r, "a shape is too large");
		}
	}
	return size == tensor->end - tensor->begin ||
	       bad(r, "shape and dtype do not make the size of data_offsets");
}

static bool tensor_members(struct reader *r, struct trib_tensor *tensor)
{
	enum {
		DTYPE = 1,
		SHAPE = 2,
		OFFSETS = 4
	};
	static const char *const keys[] = { "dtype", "shape", "data_offsets" };
	uint32_t item_size = 0;
	unsigned seen = 0;
	bool more = true;

	if (!take(r, '{')) {
		return bad(r, "a tensor is not an object");
	}
	if (take(r, '}')) {
		return bad(r, "dtype, shape or data_offsets is missing");
	}
	while (more) {
		const char *key;
		size_t size;
		size_t i = 0;
		bool ok;

		if (!plain_string(r, &key, &size)) {
			return false;
		}
		while (i < TRIB_COUNT(keys) && !is_text(key, size, keys[i])) {
			i++;
		}
		if (i == TRIB_COUNT(keys)) {
			return bad(r, "a tensor has an unknown key");
		}
		if (seen & 1u << i) {
			return bad(r, "a tensor has a key twice");
		}
		seen |= 1u << i;
		if (!take(r, ':')) {
			return bad(r, "a colon is missing");
		}
		ok = i == 0   ? tensor_dtype(r, tensor, &item_size)
		     : i == 1 ? tensor_shape(r, tensor)
			      : tensor_offsets(r, tensor);
		if (!ok || !separator(r, '}', &more)) {
			return false;
		}
	}
	if (seen != (DTYPE | SHAPE | OFFSETS)) {
		return bad(r, "dtype, shape or data_offsets is missing");
	}
	return tensor_fits(r, tensor, item_size);
}

static bool tensor_add(struct reader *r, const char *name, size_t name_size)
{
	struct trib_layout *layout = r->layout;
	struct trib_tensor *tensor;

	if (name_size == 0 || name_size > TRIB_TENSOR_NAME_MAX) {
		return bad(r, "a name must have 1 to " TEXT(TRIB_TENSOR_NAME_MAX) " characters");
	}
	if (layout->count == TRIB_TENSORS_MAX) {
		return bad(r, "more than " TEXT(TRIB_TENSORS_MAX) " tensors");
	}
	if (layout->count == layout->capacity) {
		uint32_t capacity = layout->capacity ? layout->capacity * 2 : FIRST_TENSORS;
		struct trib_tensor *grown =
			trib_realloc(layout->tensors, capacity * sizeof(*grown));

		if (!grown) {
			r->rc = -ENOMEM;
			return false;
		}
		layout->tensors = grown;
		layout->capacity = capacity;
	}
	tensor = &layout->tensors[layout->count++];
	*tensor = (struct trib_tensor){ .name = layout->names + layout->names_size };
	memcpy(layout->names + layout->names_size, name, name_size);
	layout->names_size += name_size;
	layout->names[layout->names_size++] = '\0';
	return tensor_members(r, tensor);
}

/* By place in the data. An empty tensor comes before the one that begins at the same byte; several
 * empty ones keep the order of the file, which is the order of their names in memory. */
static int compare_places(const void *left, const void *right)
{
	const struct trib_tensor *a = left;
	const struct trib_tensor *b = right;

	if (a->begin != b->begin) {
		return a->begin < b->begin ? -1 : 1;
	}
	if (a->end != b->end) {
		return a->end < b->end ? -1 : 1;
	}
	return a->name < b->name ? -1 : a->name > b->name;
}

static bool places_are_gapless(struct reader *r)
{
	struct trib_layout *layout = r->layout;
	uint64_t next = 0;

	if (layout->count > 0) {
		qsort(layout->tensors, layout->count, sizeof(*layout->tensors), compare_places);
	}
	for (uint32_t i = 0; i < layout->count; i++) {
		if (layout->tensors[i].begin < next) {
			return bad(r, "tensors overlap");
		}
		if (layout->tensors[i].begin > next) {
			return bad(r, "there is a hole between tensors");
		}
		next = layout->tensors[i].end;
	}
	return next == layout->data_size || bad(r, "the tensors do not end where the data ends");
}

static bool header(struct reader *r)
{
	bool more = true;

	if (r->at == r->end || *r->at != '{') {
		return bad(r, "the header does not begin with {");
	}
	r->at++;
	if (take(r, '}')) {
		more = false;
	}
	while (more) {
		const char *name;
		size_t size;

		if (!plain_string(r, &name, &size)) {
			return false;
		}
		if (!take(r, ':')) {
			return bad(r, "a colon is missing");
		}
		if (is_text(name, size, METADATA) ? !metadata(r) : !tensor_add(r, name, size)) {
			return false;
		}
		if (!separator(r, '}', &more)) {
			return false;
		}
	}
	for (; r->at < r->end; r->at++) {
		if (*r->at != ' ') {
			return bad(r, "only spaces may follow the header's object");
		}
	}
	return places_are_gapless(r);
}

static int parse(struct reader *r, size_t size)
{
	int rc;

	if (size > TRIB_TENSOR_HEADER_MAX) {
		(void)bad(r, "the header is longer than 1 MiB");
		return r->rc;
	}
	/* A name's two quotes make room for its terminator: names never outgrow the text. */
	r->layout->names = trib_alloc(size);
	if (!r->layout->names) {
		return -ENOMEM;
	}
	if (!header(r)) {
		return r->rc;
	}
	rc = table_build(r->layout);
	if (rc == -EEXIST) {
		(void)bad(r, "two tensors have the same name");
		return r->rc;
	}
	return rc;
}

int trib_layout_parse(const char *json, size_t size, uint64_t data_size,
		      struct trib_layout **ret_layout, enum trib_problem *ret_problem,
		      const char **ret_detail)
{
	struct reader r = { .at = json, .end = json + size };
	int rc;

	r.layout = trib_alloc(sizeof(*r.layout));
	if (!r.layout) {
		return -ENOMEM;
	}
	r.layout->data_size = data_size;
	rc = parse(&r, size);
	if (rc) {
		(void)trib_layout_free(r.layout);
		if (rc == -EBADMSG) {
			*ret_problem = r.problem;
			*ret_detail = r.detail;
		}
		return rc;
	}
	*ret_layout = r.layout;
	return 0;
}

struct trib_layout *trib_layout_free(struct trib_layout *layout)
{
	if (layout) {
		trib_free(layout->table);
		trib_free(layout->names);
		trib_free(layout->tensors);
		trib_free(layout);
	}
	return NULL;
}

uint32_t trib_layout_count(const struct trib_layout *layout)
{
	return layout->count;
}

const struct trib_tensor *trib_layout_tensor(const struct trib_layout *layout, uint32_t index)
{
	TRIB_ASSERT(index < layout->count);
	return &layout->tensors[index];
}

uint64_t trib_layout_data_size(const struct trib_layout *layout)
{
	return layout->data_size;
}

/* ---- match ---- */

static bool same_kind(const struct trib_tensor *a, const struct trib_tensor *b)
{
	return a->dtype == b->dtype && a->dims == b->dims &&
	       memcmp(a->shape, b->shape, a->dims * sizeof(a->shape[0])) == 0;
}

static int mismatch(enum trib_problem problem, const char *detail, enum trib_problem *ret_problem,
		    const char **ret_detail)
{
	*ret_problem = problem;
	*ret_detail = detail;
	return -EBADMSG;
}

static uint32_t piece_add(struct trib_piece *pieces, uint32_t count, const struct trib_tensor *home)
{
	uint64_t size = home->end - home->begin;

	if (size == 0) {
		return count;
	}
	if (count > 0 && pieces[count - 1].offset + pieces[count - 1].size == home->begin) {
		pieces[count - 1].size += size;
		return count;
	}
	pieces[count] = (struct trib_piece){ .offset = home->begin, .size = size };
	return count + 1;
}

int trib_layout_match(const struct trib_layout *job, const struct trib_layout *update,
		      struct trib_piece **ret_pieces, uint32_t *ret_count,
		      enum trib_problem *ret_problem, const char **ret_detail)
{
	struct trib_piece *pieces = trib_alloc_array(update->count, sizeof(*pieces));
	struct trib_piece *fitted;
	uint32_t count = 0;
	int rc;

	if (!pieces) {
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < update->count; i++) {
		const struct trib_tensor *tensor = &update->tensors[i];
		uint32_t index = *table_place(job, tensor->name);

		if (index == EMPTY) {
			rc = mismatch(TRIB_PROBLEM_BAD_TENSOR_NAME,
				      "a tensor's name is not in the job's layout", ret_problem,
				      ret_detail);
			goto fail;
		}
		if (!same_kind(tensor, &job->tensors[index])) {
			rc = mismatch(TRIB_PROBLEM_LAYOUT_MISMATCH,
				      "a tensor's shape or dtype is not that of the job",
				      ret_problem, ret_detail);
			goto fail;
		}
		count = piece_add(pieces, count, &job->tensors[index]);
	}
	/* Names are distinct on either side: fewer means that some are missing. */
	if (update->count != job->count) {
		rc = mismatch(TRIB_PROBLEM_LAYOUT_MISMATCH,
			      "tensors of the job's layout are missing", ret_problem, ret_detail);
		goto fail;
	}
	fitted = trib_realloc(pieces, count * sizeof(*pieces));
	*ret_pieces = fitted ? fitted : pieces;
	*ret_count = count;
	return 0;
fail:
	trib_free(pieces);
	return rc;
}
