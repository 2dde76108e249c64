/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "orchestrator/spec_rows.h"

#define PATH_MAX_ 64

const struct row *const spec_rows = table;
const size_t spec_row_count = TRIB_COUNT(table);

/* ---- errors ---- */

void spec_complain(json_t *errors, const char *pointer, const char *format, ...)
{
	char detail[256];
	va_list args;
	json_t *entry;

	if (json_array_size(errors) >= ORC_SPEC_ERRORS_MAX) {
		return;
	}
	va_start(args, format);
	(void)vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	entry = json_pack("{s:s, s:s}", "pointer", pointer, "detail", detail);
	if (!entry) { /* a foreign key cut inside a character: tell the place without it */
		entry = json_pack("{s:s, s:s}", "pointer", "", "detail", "not valid here");
	}
	(void)json_array_append_new(errors, entry);
}

/* "/spec/sync/goal" of "sync.goal". */
const char *spec_pointer(const char *path, char out[POINTER_SIZE])
{
	(void)snprintf(out, POINTER_SIZE, "/spec%s%s", *path ? "/" : "", path);
	for (char *c = out; *c; c++) {
		if (*c == '.') {
			*c = '/';
		}
	}
	return out;
}

/* RFC 6901: "~" and "/" of a key are escaped; a long key is cut at a character's start. */
const char *spec_key_pointer(const char *parent, const char *key, char out[POINTER_SIZE])
{
	size_t size = (size_t)snprintf(out, POINTER_SIZE - 100, "%s/", parent);

	for (size_t i = 0; key[i] && size + 8 < POINTER_SIZE; i++) {
		bool begins = ((uint8_t)key[i] & 0xc0) != 0x80;

		if (begins && i >= 64) {
			break;
		}
		if (key[i] == '~' || key[i] == '/') {
			out[size++] = '~';
			out[size++] = key[i] == '~' ? '0' : '1';
		} else {
			out[size++] = key[i];
		}
	}
	out[size] = '\0';
	return out;
}

/* ---- names ---- */

static size_t smallest(size_t a, size_t b, size_t c)
{
	return a < b ? (a < c ? a : c) : (b < c ? b : c);
}

/* Levenshtein distance of short names; long ones are far from everything. */
size_t spec_distance(const char *a, const char *b)
{
	size_t row[40];
	size_t m = strlen(a);
	size_t n = strlen(b);

	if (m > 32 || n > 32) {
		return 99;
	}
	for (size_t j = 0; j <= n; j++) {
		row[j] = j;
	}
	for (size_t i = 1; i <= m; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			size_t above = row[j];

			row[j] = smallest(above + 1, row[j - 1] + 1,
					  corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[n];
}

void spec_complain_unknown(json_t *errors, const char *pointer, const char *key,
			   const char *nearest)
{
	size_t far = nearest ? spec_distance(key, nearest) : 99;

	if (nearest && far <= 1 + strlen(nearest) / 3) {
		spec_complain(errors, pointer, "unknown key; did you mean \"%s\"?", nearest);
	} else {
		spec_complain(errors, pointer, "unknown key");
	}
}

/* The last part of `path` when its parent is `parent`, else NULL. */
static const char *child_name(const char *path, const char *parent)
{
	size_t size = strlen(parent);
	const char *name = path;

	if (size) {
		if (strncmp(path, parent, size) != 0 || path[size] != '.') {
			return NULL;
		}
		name = path + size + 1;
	}
	return strchr(name, '.') ? NULL : name;
}

const struct row *spec_row_of(const char *parent, const char *key)
{
	for (size_t i = 0; i < spec_row_count; i++) {
		const char *name = child_name(spec_rows[i].path, parent);

		if (name && strcmp(name, key) == 0) {
			return &spec_rows[i];
		}
	}
	return NULL;
}

const char *spec_nearest_name(const char *parent, const char *key)
{
	const char *best = NULL;
	size_t least = 99;

	for (size_t i = 0; i < spec_row_count; i++) {
		const char *name = child_name(spec_rows[i].path, parent);
		size_t far =
			name && spec_rows[i].kind != KIND_LATER ? spec_distance(key, name) : 99;

		if (far < least) {
			least = far;
			best = name;
		}
	}
	return best;
}

/* ---- the normalised form ---- */

int spec_put(json_t *out, const char *path, json_t *value)
{
	char parent[PATH_MAX_];
	const char *dot = strrchr(path, '.');

	if (!value || (dot && (size_t)(dot - path) >= sizeof(parent))) {
		json_decref(value);
		return -ENOMEM;
	}
	if (dot) {
		memcpy(parent, path, (size_t)(dot - path));
		parent[dot - path] = '\0';
		out = trib_json_at(out, parent);
		path = dot + 1;
	}
	return json_object_set_new(out, path, value) ? -ENOMEM : 0;
}
