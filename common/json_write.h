/* SPDX-License-Identifier: Apache-2.0
 * JSON of a known shape written straight into a buffer, for answers that are given thousands of
 * times a second. The text is what trib_json_print makes of the same value. Texts must be UTF-8
 * (they are not looked at, only escaped). What does not fit is seen at the end.
 */
#ifndef TRIB_COMMON_JSON_WRITE_H
#define TRIB_COMMON_JSON_WRITE_H

#include "common/base.h"

struct trib_json_writer {
	char *out;
	size_t size;
	size_t used;  /* more than size: it did not fit */
	bool follows; /* a comma is due */
};

static inline struct trib_json_writer trib_json_writer(char *out, size_t size)
{
	return (struct trib_json_writer){ .out = out, .size = size };
}

/* key: NULL in an array and at the top. It is written as it is: no characters to escape. */
void trib_json_open(struct trib_json_writer *writer, const char *key, char bracket /* { or [ */);
void trib_json_close(struct trib_json_writer *writer, char bracket /* } or ] */);
void trib_json_put_text(struct trib_json_writer *writer, const char *key, const char *text);
void trib_json_put_integer(struct trib_json_writer *writer, const char *key, uint64_t value);
void trib_json_put_real(struct trib_json_writer *writer, const char *key, double value);
void trib_json_put_true(struct trib_json_writer *writer, const char *key);
/* A value that is JSON already. */
void trib_json_put_raw(struct trib_json_writer *writer, const char *key, const char *json);
/* Terminates the text: its size, or 0 when the buffer was too small. */
TRIB_MUST_CHECK size_t trib_json_written(struct trib_json_writer *writer);

#endif
