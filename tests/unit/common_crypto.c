/* SPDX-License-Identifier: Apache-2.0 */
#include "common/crypto.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void crc32c_has_the_standard_values(void **state)
{
	uint8_t block[32];

	(void)state;
	assert_int_equal(trib_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(trib_crc32c(0, NULL, 0), 0);
	memset(block, 0, sizeof(block)); /* RFC 3720, B.4 */
	assert_int_equal(trib_crc32c(0, block, sizeof(block)), 0x8a9136aa);
	memset(block, 0xff, sizeof(block));
	assert_int_equal(trib_crc32c(0, block, sizeof(block)), 0x62a8ab43);
}

static void crc32c_chains_at_every_cut(void **state)
{
	uint8_t data[300];
	uint32_t whole;

	(void)state;
	assert_int_equal(trib_random(data, sizeof(data)), 0);
	whole = trib_crc32c(0, data, sizeof(data));
	for (size_t cut = 0; cut <= sizeof(data); cut++) {
		uint32_t crc = trib_crc32c(0, data, cut);

		assert_int_equal(trib_crc32c(crc, data + cut, sizeof(data) - cut), whole);
	}
	data[17] ^= 1;
	assert_int_not_equal(trib_crc32c(0, data, sizeof(data)), whole);
}

static void digest_is_xxh3_128(void **state)
{
	char text[TRIB_DIGEST_TEXT_SIZE];

	(void)state;
	/* `printf '' | xxh128sum` and `printf 'a' | xxh128sum` */
	trib_digest_print(trib_digest(NULL, 0), text);
	assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
	trib_digest_print(trib_digest("a", 1), text);
	assert_string_equal(text, "a96faf705af16834e6c632b61e964e1f");
}

static void hasher_equals_digest_for_any_pieces(void **state)
{
	static uint8_t data[5000];
	struct trib_hasher *hasher;
	struct trib_digest whole;
	struct trib_digest pieces;

	(void)state;
	assert_int_equal(trib_random(data, sizeof(data)), 0);
	whole = trib_digest(data, sizeof(data));
	for (size_t step = 1; step < 2000; step += 97) {
		assert_int_equal(trib_hasher_new(&hasher), 0);
		trib_hasher_update(hasher, NULL, 0);
		for (size_t at = 0; at < sizeof(data); at += step) {
			size_t left = sizeof(data) - at;

			trib_hasher_update(hasher, data + at, left < step ? left : step);
		}
		pieces = trib_hasher_digest(hasher);
		assert_memory_equal(&pieces, &whole, sizeof(whole));
		hasher = trib_hasher_free(hasher);
		assert_null(hasher);
	}
	assert_null(trib_hasher_free(NULL));
}

static void mac_is_hmac_sha256(void **state)
{
	/* RFC 4231, cases 1, 2 and 6 (key longer than a block); then empty key and text */
	static const uint8_t case_1[] =
		"\xb0\x34\x4c\x61\xd8\xdb\x38\x53\x5c\xa8\xaf\xce\xaf\x0b\xf1\x2b"
		"\x88\x1d\xc2\x00\xc9\x83\x3d\xa7\x26\xe9\x37\x6c\x2e\x32\xcf\xf7";
	static const uint8_t case_2[] =
		"\x5b\xdc\xc1\x46\xbf\x60\x75\x4e\x6a\x04\x24\x26\x08\x95\x75\xc7"
		"\x5a\x00\x3f\x08\x9d\x27\x39\x83\x9d\xec\x58\xb9\x64\xec\x38\x43";
	static const uint8_t case_6[] =
		"\x60\xe4\x31\x59\x1e\xe0\xb6\x7f\x0d\x8a\x26\xaa\xcb\xf5\xb7\x7f"
		"\x8e\x0b\xc6\x21\x37\x28\xc5\x14\x05\x46\x04\x0f\x0e\xe3\x7f\x54";
	static const uint8_t empty[] =
		"\xb6\x13\x67\x9a\x08\x14\xd9\xec\x77\x2f\x95\xd7\x78\xc3\x5f\xc5"
		"\xff\x16\x97\xc4\x93\x71\x56\x53\xc6\xc7\x12\x14\x42\x92\xc5\xad";
	static const char text_6[] = "Test Using Larger Than Block-Size Key - Hash Key First";
	uint8_t key[131];
	uint8_t mac[TRIB_MAC_SIZE];

	(void)state;
	memset(key, 0x0b, 20);
	assert_int_equal(trib_mac(key, 20, "Hi There", 8, mac), 0);
	assert_memory_equal(mac, case_1, sizeof(mac));
	assert_int_equal(trib_mac("Jefe", 4, "what do ya want for nothing?", 28, mac), 0);
	assert_memory_equal(mac, case_2, sizeof(mac));
	memset(key, 0xaa, sizeof(key));
	assert_int_equal(trib_mac(key, sizeof(key), text_6, strlen(text_6), mac), 0);
	assert_memory_equal(mac, case_6, sizeof(mac));
	assert_int_equal(trib_mac(NULL, 0, NULL, 0, mac), 0);
	assert_memory_equal(mac, empty, sizeof(mac));
}

static void secrets_compare(void **state)
{
	(void)state;
	assert_true(trib_equal_secret("abc", "abc", 3));
	assert_true(trib_equal_secret("abc", "abd", 2));
	assert_false(trib_equal_secret("abc", "abd", 3));
	assert_true(trib_equal_secret(NULL, NULL, 0));
}

static void random_bytes_differ(void **state)
{
	static uint8_t a[1 << 20]; /* more than getrandom hands out at once under signals */
	uint8_t b[32];

	(void)state;
	assert_int_equal(trib_random(a, sizeof(a)), 0);
	assert_int_equal(trib_random(b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(b));
	assert_memory_not_equal(a, a + sizeof(a) - 32, 32);
}

static void base64url_has_the_rfc_values(void **state)
{
	static const struct {
		const char *plain;
		const char *text;
	} pairs[] = {
		{ "", "" },
		{ "f", "Zg" },
		{ "fo", "Zm8" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg" },
		{ "fooba", "Zm9vYmE" },
		{ "foobar", "Zm9vYmFy" },
		{ "\xfb\xff\xfe", "-__-" },
	};

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(pairs); i++) {
		int plain_size = (int)strlen(pairs[i].plain);
		int text_size = (int)strlen(pairs[i].text);
		char out[16];

		assert_int_equal(trib_base64url_encode(pairs[i].plain, (size_t)plain_size, out,
						       (size_t)text_size + 1),
				 text_size);
		assert_string_equal(out, pairs[i].text);
		assert_int_equal(trib_base64url_encode(pairs[i].plain, (size_t)plain_size, out,
						       (size_t)text_size),
				 -ENOSPC);
		assert_int_equal(trib_base64url_decode(pairs[i].text, out, (size_t)plain_size),
				 plain_size);
		assert_memory_equal(out, pairs[i].plain, (size_t)plain_size);
		if (plain_size > 0) {
			assert_int_equal(
				trib_base64url_decode(pairs[i].text, out, (size_t)plain_size - 1),
				-ENOSPC);
		}
	}
}

static void base64url_round_trips(void **state)
{
	(void)state;
	for (size_t size = 0; size < 200; size++) {
		uint8_t data[200];
		uint8_t back[200];
		char text[300];
		int n;

		assert_int_equal(trib_random(data, sizeof(data)), 0);
		n = trib_base64url_encode(data, size, text, sizeof(text));
		assert_int_equal(n, strlen(text));
		assert_int_equal(trib_base64url_decode(text, back, sizeof(back)), size);
		assert_memory_equal(data, back, size);
	}
}

static void base64url_refuses_all_other_texts(void **state)
{
	static const char *const texts[] = {
		"Z",      "Zg==", "Zm8=", "Zm9vY", "Zm 9",
		"Zm9v\n", "Zm+v", "Zm/v", "Z\xc3", "Zh", /* unused bits not zero */
		"Zm9",
	};
	uint8_t out[64];

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(texts); i++) {
		assert_int_equal(trib_base64url_decode(texts[i], out, sizeof(out)), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_has_the_standard_values),
		cmocka_unit_test(crc32c_chains_at_every_cut),
		cmocka_unit_test(digest_is_xxh3_128),
		cmocka_unit_test(hasher_equals_digest_for_any_pieces),
		cmocka_unit_test(mac_is_hmac_sha256),
		cmocka_unit_test(secrets_compare),
		cmocka_unit_test(random_bytes_differ),
		cmocka_unit_test(base64url_has_the_rfc_values),
		cmocka_unit_test(base64url_round_trips),
		cmocka_unit_test(base64url_refuses_all_other_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
