/* SPDX-License-Identifier: Apache-2.0 */
#include "common/ticket.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/crypto.h"

static const uint8_t key[TRIB_TICKET_KEY_SIZE] = "0123456789abcdef0123456789abcde";

static struct trib_ticket sample(void)
{
	struct trib_ticket ticket = {
		.version = 1,
		.round = 18,
		.client = 0x1122334455667788,
		.expires_ms = 5000,
		.bytes_max = 45328,
		.base = 17,
		.epoch = 3,
	};

	memset(ticket.job.bytes, 0x5a, sizeof(ticket.job.bytes));
	memset(ticket.update.bytes, 0xa5, sizeof(ticket.update.bytes));
	return ticket;
}

static void what_was_sealed_comes_out(void **state)
{
	struct trib_ticket ticket = sample();
	struct trib_ticket out;
	char text[TRIB_TICKET_TEXT_SIZE];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	assert_int_equal(strlen(text), 150);
	assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-_"),
			 150);
	assert_int_equal(trib_ticket_open(text, key, 0, &out), 0);
	assert_memory_equal(&out, &ticket, sizeof(ticket));
}

static void the_bytes_are_those_of_the_format(void **state)
{
	struct trib_ticket ticket = sample();
	char text[TRIB_TICKET_TEXT_SIZE];
	uint8_t bytes[112];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	assert_int_equal(trib_base64url_decode(text, bytes, sizeof(bytes)), 112);
	assert_memory_equal(bytes, "\x01\0\0\0\x12\0\0\0\x5a", 9);
	assert_memory_equal(bytes + 40, "\x88\x77\x66\x55\x44\x33\x22\x11\x88\x13\0\0\0\0\0\0", 16);
	assert_memory_equal(bytes + 56, "\x10\xb1\0\0\0\0\0\0\x11\0\0\0\x03\0\0\0", 16);
}

static void expiry_is_told_apart_from_forgery(void **state)
{
	struct trib_ticket ticket = sample();
	struct trib_ticket out;
	char text[TRIB_TICKET_TEXT_SIZE];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	assert_int_equal(trib_ticket_open(text, key, 5000, &out), 0);
	assert_int_equal(trib_ticket_open(text, key, 5001, &out), -EKEYEXPIRED);
	text[3] = text[3] == 'A' ? 'B' : 'A';
	assert_int_equal(trib_ticket_open(text, key, 5001, &out), -EBADMSG);
}

static void every_changed_character_is_noticed(void **state)
{
	struct trib_ticket ticket = sample();
	struct trib_ticket out;
	char text[TRIB_TICKET_TEXT_SIZE];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	for (size_t i = 0; i < 150; i++) {
		char was = text[i];

		for (int c = 1; c < 256; c++) {
			if ((char)c != was) {
				text[i] = (char)c;
				assert_int_equal(trib_ticket_open(text, key, 0, &out), -EBADMSG);
			}
		}
		text[i] = was;
	}
	assert_int_equal(trib_ticket_open(text, key, 0, &out), 0);
}

static void other_sizes_keys_and_versions_are_refused(void **state)
{
	struct trib_ticket ticket = sample();
	struct trib_ticket out;
	uint8_t other[TRIB_TICKET_KEY_SIZE];
	uint8_t bytes[112];
	char text[TRIB_TICKET_TEXT_SIZE];
	char longer[400];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	memcpy(other, key, sizeof(other));
	other[31] ^= 1;
	assert_int_equal(trib_ticket_open(text, other, 0, &out), -EBADMSG);
	memset(longer, 'A', sizeof(longer));
	for (size_t size = 0; size < sizeof(longer); size++) {
		longer[size] = '\0';
		assert_int_equal(trib_ticket_open(longer, key, 0, &out), -EBADMSG);
		longer[size] = 'A';
	}
	ticket.version = 2;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), -EINVAL);
	/* a genuine seal around another version */
	ticket.version = 1;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	assert_int_equal(trib_base64url_decode(text, bytes, sizeof(bytes)), 112);
	bytes[0] = 2;
	assert_int_equal(trib_mac(key, sizeof(key), bytes, 80, bytes + 80), 0);
	assert_int_equal(trib_base64url_encode(bytes, sizeof(bytes), text, sizeof(text)), 150);
	assert_int_equal(trib_ticket_open(text, key, 0, &out), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_sealed_comes_out),
		cmocka_unit_test(the_bytes_are_those_of_the_format),
		cmocka_unit_test(expiry_is_told_apart_from_forgery),
		cmocka_unit_test(every_changed_character_is_noticed),
		cmocka_unit_test(other_sizes_keys_and_versions_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
