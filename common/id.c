/* SPDX-License-Identifier: Apache-2.0 */
#include "common/id.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/crypto.h"

#define ID_DIGITS  26
#define PREFIX_MAX 5

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* Crockford: no i l o u */

struct trib_id trib_id_make(void)
{
	uint64_t ms = trib_wall_ms();
	struct trib_id id;
	int rc = trib_random(id.bytes, sizeof(id.bytes));

	TRIB_ASSERT(rc == 0); /* a guessable identifier is worse than none */
	for (int i = 0; i < 6; i++) {
		id.bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
	}
	id.bytes[6] = (uint8_t)(0x70 | (id.bytes[6] & 0x0f)); /* version 7 */
	id.bytes[8] = (uint8_t)(0x80 | (id.bytes[8] & 0x3f)); /* RFC 9562 variant */
	return id;
}

/* 128 bits are printed as 130, the two uppermost being zero. */
void trib_id_print(const char *prefix, const struct trib_id *id, char out[TRIB_ID_TEXT_SIZE])
{
	size_t size = strlen(prefix);
	unsigned held = 2; /* bits in `window` not printed yet */
	unsigned window = 0;

	TRIB_ASSERT(size <= PREFIX_MAX);
	memcpy(out, prefix, size);
	for (size_t i = 0; i < sizeof(id->bytes); i++) {
		window = (window << 8 | id->bytes[i]) & 0xffff;
		held += 8;
		while (held >= 5) {
			held -= 5;
			out[size++] = digits[window >> held & 31];
		}
	}
	out[size] = '\0';
}

static int digit_value(char c)
{
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

int trib_id_parse(const char *prefix, const char *text, struct trib_id *ret_id)
{
	size_t prefix_size = strlen(prefix);
	struct trib_id id;
	unsigned window = 0;
	unsigned held = 0;
	size_t used = 0;

	if (strncmp(text, prefix, prefix_size) != 0) {
		return -EINVAL;
	}
	text += prefix_size;
	if (strnlen(text, ID_DIGITS + 1) != ID_DIGITS || text[0] > '7') {
		return -EINVAL;
	}
	for (size_t i = 0; i < ID_DIGITS; i++) {
		int value = digit_value(text[i]);

		if (value < 0) {
			return -EINVAL;
		}
		window = (window << 5 | (unsigned)value) & 0xffff;
		held += i == 0 ? 3 : 5; /* the two uppermost bits are zero: text[0] <= '7' */
		if (held >= 8) {
			held -= 8;
			id.bytes[used++] = (uint8_t)(window >> held);
		}
	}
	TRIB_ASSERT(used == sizeof(id.bytes) && held == 0);
	*ret_id = id;
	return 0;
}

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool trib_client_id_valid(const char *text)
{
	size_t size = strnlen(text, 65);

	if (size == 0 || size > 64 || text[0] == '.' || text[0] == '-') {
		return false;
	}
	for (size_t i = 0; i < size; i++) {
		char c = text[i];

		if (!is_lower_or_digit(c) && !(c >= 'A' && c <= 'Z') && c != '.' && c != '_' &&
		    c != ':' && c != '-') {
			return false;
		}
	}
	return true;
}

bool trib_name_valid(const char *text)
{
	size_t size = strnlen(text, 64);

	if (size == 0 || size > 63 || !is_lower_or_digit(text[0]) ||
	    !is_lower_or_digit(text[size - 1])) {
		return false;
	}
	for (size_t i = 0; i < size; i++) {
		if (!is_lower_or_digit(text[i]) && text[i] != '-') {
			return false;
		}
	}
	return true;
}
