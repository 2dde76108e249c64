/* SPDX-License-Identifier: Apache-2.0 */
#include "common/peer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/crypto.h"

static const uint8_t key[TRIB_TICKET_KEY_SIZE] = "0123456789abcdef0123456789abcde";

static struct trib_peer sample(void)
{
	struct trib_peer peer = {
		.kind = TRIB_PEER_PARTIAL,
		.round = 18,
		.part = 2,
		.accumulate = 1,
		.scale_bits = 24,
		.crc = 0xe3069283,
		.updates = 7,
		.weight = 7u << 20,
		.elements = 5000,
		.bytes = 20000,
		.expires_ms = 5000,
		.from = "n-2",
		.to = "n1",
		.boot = "01m7z2kcgpeyrsxvnb8bww8144",
	};

	memset(peer.job.bytes, 0x5a, sizeof(peer.job.bytes));
	return peer;
}

static void what_was_sealed_comes_out(void **state)
{
	struct trib_peer peer = sample();
	struct trib_peer out;
	char text[TRIB_PEER_TEXT_SIZE];

	(void)state;
	memset(&out, 0, sizeof(out));
	assert_int_equal(trib_peer_seal(&peer, key, text), 0);
	assert_int_equal(trib_peer_open(text, key, 5000, &out), 0);
	assert_memory_equal(&out.job, &peer.job, sizeof(peer.job));
	assert_int_equal(out.kind, peer.kind);
	assert_int_equal(out.round, 18);
	assert_int_equal(out.part, 2);
	assert_int_equal(out.accumulate, 1);
	assert_int_equal(out.scale_bits, 24);
	assert_int_equal(out.crc, 0xe3069283);
	assert_int_equal(out.updates, 7);
	assert_int_equal(out.weight, 7u << 20);
	assert_int_equal(out.elements, 5000);
	assert_int_equal(out.bytes, 20000);
	assert_string_equal(out.from, "n-2");
	assert_string_equal(out.to, "n1");
	assert_string_equal(out.boot, peer.boot);
	assert_int_equal(trib_peer_open(text, key, 5001, &out), -EKEYEXPIRED);
}

static void any_changed_byte_is_seen(void **state)
{
	struct trib_peer peer = sample();
	struct trib_peer out;
	uint8_t other[TRIB_TICKET_KEY_SIZE] = "0";
	char text[TRIB_PEER_TEXT_SIZE];

	(void)state;
	assert_int_equal(trib_peer_seal(&peer, key, text), 0);
	assert_int_equal(trib_peer_open(text, other, 0, &out), -EBADMSG);
	for (size_t i = 0; text[i]; i++) {
		char was = text[i];

		text[i] = was == 'A' ? 'B' : 'A';
		assert_int_not_equal(trib_peer_open(text, key, 0, &out), 0);
		text[i] = was;
	}
	text[strlen(text) - 1] = '\0';
	assert_int_equal(trib_peer_open(text, key, 0, &out), -EBADMSG);
	assert_int_equal(trib_peer_open("", key, 0, &out), -EBADMSG);
}

static void an_upload_ticket_is_no_seal_of_a_node(void **state)
{
	struct trib_ticket ticket = { .version = 1, .expires_ms = UINT64_MAX };
	struct trib_peer peer = sample();
	struct trib_peer out;
	char text[TRIB_PEER_TEXT_SIZE];

	(void)state;
	assert_int_equal(trib_ticket_seal(&ticket, key, text), 0);
	assert_int_equal(trib_peer_open(text, key, 0, &out), -EBADMSG);
	assert_int_equal(trib_peer_seal(&peer, key, text), 0);
	assert_int_equal(trib_ticket_open(text, key, 0, &ticket), -EBADMSG);
}

static void names_that_could_do_harm_are_refused(void **state)
{
	static const char *const bad[] = { "", "a:b", "A", "n|1", "x y", "-n" };
	struct trib_peer out;
	char text[TRIB_PEER_TEXT_SIZE];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		struct trib_peer peer = sample();

		memset(peer.from, 0, sizeof(peer.from));
		memcpy(peer.from, bad[i], strlen(bad[i]));
		assert_int_equal(trib_peer_seal(&peer, key, text), 0);
		assert_int_equal(trib_peer_open(text, key, 0, &out), -EBADMSG);
	}
	for (size_t i = 1; i < TRIB_COUNT(bad); i++) {
		struct trib_peer peer = sample();

		memset(peer.boot, 0, sizeof(peer.boot));
		memcpy(peer.boot, i == 2 ? "a.b" : bad[i], i == 2 ? 3 : strlen(bad[i]));
		assert_int_equal(trib_peer_seal(&peer, key, text), 0);
		assert_int_equal(trib_peer_open(text, key, 0, &out), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_sealed_comes_out),
		cmocka_unit_test(any_changed_byte_is_seen),
		cmocka_unit_test(an_upload_ticket_is_no_seal_of_a_node),
		cmocka_unit_test(names_that_could_do_harm_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
