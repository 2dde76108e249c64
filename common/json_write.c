/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json_write.h"

#include <stdio.h>
#include <string.h>

#define WHOLE_MAX 9e15 /* whole numbers below are printed without an exponent */

static void put(struct trib_json_writer *writer, const char *text, size_t size)
{
	if (writer->used + size < writer->size) {
		memcpy(writer->out + writer->used, text, size);
		writer->used += size;
	} else {
		writer->used = writer->size + 1;
	}
}

static void put_digits(struct trib_json_writer *writer, uint64_t value)
{
	char digits[24];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	put(writer, digits + at, sizeof(digits) - at);
}

static void put_key(struct trib_json_writer *writer, const char *key)
{
	if (writer->follows) {
		put(writer, ",", 1);
	}
	writer->follows = true;
	if (key) {
		put(writer, "\"", 1);
		put(writer, key, strlen(key));
		put(writer, "\":", 2);
	}
}

static void put_escaped(struct trib_json_writer *writer, unsigned char c)
{
	static const char named[] = "\b\f\n\r\t\"\\";
	static const char letters[] = "bfnrt\"\\";
	const char *found = c ? strchr(named, c) : NULL;
	char text[8];

	if (found) {
		text[0] = '\\';
		text[1] = letters[found - named];
		put(writer, text, 2);
		return;
	}
	(void)snprintf(text, sizeof(text), "\\u%04X", c);
	put(writer, text, 6);
}

void trib_json_open(struct trib_json_writer *writer, const char *key, char bracket)
{
	put_key(writer, key);
	put(writer, &bracket, 1);
	writer->follows = false;
}

void trib_json_close(struct trib_json_writer *writer, char bracket)
{
	put(writer, &bracket, 1);
	writer->follows = true;
}

void trib_json_put_text(struct trib_json_writer *writer, const char *key, const char *text)
{
	const char *run = text;

	put_key(writer, key);
	put(writer, "\"", 1);
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == '"' || *text == '\\') {
			put(writer, run, (size_t)(text - run));
			put_escaped(writer, (unsigned char)*text);
			run = text + 1;
		}
	}
	put(writer, run, (size_t)(text - run));
	put(writer, "\"", 1);
}

void trib_json_put_integer(struct trib_json_writer *writer, const char *key, uint64_t value)
{
	put_key(writer, key);
	put_digits(writer, value);
}

void trib_json_put_real(struct trib_json_writer *writer, const char *key, double value)
{
	char text[32];
	int size;

	put_key(writer, key);
	if (value >= 0 && value < WHOLE_MAX && value == (double)(uint64_t)value) {
		put_digits(writer, (uint64_t)value);
		put(writer, ".0", 2);
		return;
	}
	size = snprintf(text, sizeof(text), "%.17g", value);
	put(writer, text, (size_t)size);
	if (!strpbrk(text, ".e")) {
		put(writer, ".0", 2);
	}
}

void trib_json_put_true(struct trib_json_writer *writer, const char *key)
{
	trib_json_put_raw(writer, key, "true");
}

void trib_json_put_raw(struct trib_json_writer *writer, const char *key, const char *json)
{
	put_key(writer, key);
	put(writer, json, strlen(json));
}

size_t trib_json_written(struct trib_json_writer *writer)
{
	if (writer->used >= writer->size) {
		return 0;
	}
	writer->out[writer->used] = '\0';
	return writer->used;
}
