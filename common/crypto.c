/* SPDX-License-Identifier: Apache-2.0 */
#include "common/crypto.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#define BAD_CHARACTER 0xff

struct trib_hasher {
	XXH3_state_t *state; /* 64-byte aligned: xxHash allocates it */
};

int trib_hasher_new(struct trib_hasher **ret_hasher)
{
	struct trib_hasher *hasher = trib_alloc(sizeof(*hasher));

	if (!hasher) {
		return -ENOMEM;
	}
	hasher->state = XXH3_createState();
	if (!hasher->state || XXH3_128bits_reset(hasher->state) != XXH_OK) {
		(void)trib_hasher_free(hasher);
		return -ENOMEM;
	}
	*ret_hasher = hasher;
	return 0;
}

void trib_hasher_update(struct trib_hasher *hasher, const void *data, size_t size)
{
	if (size > 0) {
		XXH_errorcode rc = XXH3_128bits_update(hasher->state, data, size);

		TRIB_ASSERT(rc == XXH_OK); /* fails for NULL data only */
	}
}

struct trib_digest trib_hasher_digest(const struct trib_hasher *hasher)
{
	XXH128_hash_t hash = XXH3_128bits_digest(hasher->state);

	return (struct trib_digest){ .high = hash.high64, .low = hash.low64 };
}

struct trib_hasher *trib_hasher_free(struct trib_hasher *hasher)
{
	if (hasher) {
		(void)XXH3_freeState(hasher->state);
		trib_free(hasher);
	}
	return NULL;
}

struct trib_digest trib_digest(const void *data, size_t size)
{
	XXH128_hash_t hash = XXH3_128bits(size ? data : "", size);

	return (struct trib_digest){ .high = hash.high64, .low = hash.low64 };
}

void trib_digest_print(struct trib_digest digest, char out[TRIB_DIGEST_TEXT_SIZE])
{
	static const char hex[] = "0123456789abcdef";

	for (unsigned i = 0; i < 16; i++) {
		out[i] = hex[digest.high >> (60 - 4 * i) & 15];
		out[16 + i] = hex[digest.low >> (60 - 4 * i) & 15];
	}
	out[32] = '\0';
}

int trib_mac(const void *key, size_t key_size, const void *data, size_t size,
	     uint8_t out[TRIB_MAC_SIZE])
{
	size_t written = 0;

	/* OpenSSL reads a NULL key or text as "none given", not as an empty one. */
	if (!EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key_size ? key : "", key_size,
		       size ? data : (const void *)"", size, out, TRIB_MAC_SIZE, &written) ||
	    written != TRIB_MAC_SIZE) {
		return -EIO;
	}
	return 0;
}

int trib_sha256(const void *data, size_t size, char out[TRIB_SHA256_TEXT_SIZE])
{
	static const char hex[] = "0123456789abcdef";
	uint8_t digest[32];
	size_t written = 0;

	if (!EVP_Q_digest(NULL, "SHA256", NULL, size ? data : "", size, digest, &written) ||
	    written != sizeof(digest)) {
		return -EIO;
	}
	for (size_t i = 0; i < sizeof(digest); i++) {
		out[2 * i] = hex[digest[i] >> 4];
		out[2 * i + 1] = hex[digest[i] & 15];
	}
	out[2 * sizeof(digest)] = '\0';
	return 0;
}

bool trib_equal_secret(const void *a, const void *b, size_t size)
{
	return size == 0 || CRYPTO_memcmp(a, b, size) == 0;
}

int trib_random(void *out, size_t size)
{
	uint8_t *at = out;

	while (size > 0) {
		ssize_t n = getrandom(at, size, 0);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

int trib_base64url_encode(const void *data, size_t size, char *out, size_t out_size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const uint8_t *in = data;
	size_t used = 0;
	uint32_t window = 0;
	unsigned held = 0;

	if (size > INT_MAX / 2) {
		return -EINVAL;
	}
	if ((size * 8 + 5) / 6 + 1 > out_size) {
		return -ENOSPC;
	}
	for (size_t i = 0; i < size; i++) {
		window = window << 8 | in[i];
		held += 8;
		while (held >= 6) {
			held -= 6;
			out[used++] = digits[window >> held & 63];
		}
		window &= 63;
	}
	if (held > 0) {
		out[used++] = digits[window << (6 - held) & 63];
	}
	out[used] = '\0';
	return (int)used;
}

static uint32_t base64url_value(char c)
{
	if (c >= 'A' && c <= 'Z') {
		return (uint32_t)(c - 'A');
	}
	if (c >= 'a' && c <= 'z') {
		return (uint32_t)(c - 'a') + 26;
	}
	if (c >= '0' && c <= '9') {
		return (uint32_t)(c - '0') + 52;
	}
	return c == '-' ? 62 : c == '_' ? 63 : BAD_CHARACTER;
}

/* Exactly one text for each value: no padding, no blanks, unused bits zero. */
int trib_base64url_decode(const char *text, void *out, size_t out_size)
{
	uint8_t *bytes = out;
	size_t size = strlen(text);
	size_t used = 0;
	uint32_t window = 0;
	unsigned held = 0;

	if (size > INT_MAX / 2 || size % 4 == 1) {
		return -EINVAL;
	}
	if (size / 4 * 3 + (size % 4 ? size % 4 - 1 : 0) > out_size) {
		return -ENOSPC;
	}
	for (size_t i = 0; i < size; i++) {
		uint32_t value = base64url_value(text[i]);

		if (value == BAD_CHARACTER) {
			return -EINVAL;
		}
		window = window << 6 | value;
		held += 6;
		if (held >= 8) {
			held -= 8;
			bytes[used++] = (uint8_t)(window >> held);
			window &= (1u << held) - 1;
		}
	}
	return window ? -EINVAL : (int)used;
}
