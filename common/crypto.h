/* SPDX-License-Identifier: Apache-2.0
 * The door to OpenSSL's EVP, ISA-L's CRC32C and xxHash. (TLS is common/tls.h.)
 */
#ifndef TRIB_COMMON_CRYPTO_H
#define TRIB_COMMON_CRYPTO_H

#include "common/base.h"

/* CRC32C (Castagnoli), continuing `crc` (start with 0); the standard value: crc32c("123456789") =
 * 0xe3069283. */
uint32_t trib_crc32c(uint32_t crc, const void *data, size_t size);

struct trib_digest { /* XXH3-128 */
	uint64_t high;
	uint64_t low;
};
#define TRIB_DIGEST_TEXT_SIZE 33
struct trib_hasher;
TRIB_MUST_CHECK int trib_hasher_new(struct trib_hasher **ret_hasher);
void trib_hasher_update(struct trib_hasher *hasher, const void *data, size_t size);
struct trib_digest trib_hasher_digest(const struct trib_hasher *hasher);
struct trib_hasher *trib_hasher_free(struct trib_hasher *hasher);
struct trib_digest trib_digest(const void *data, size_t size);
void trib_digest_print(struct trib_digest digest, char out[TRIB_DIGEST_TEXT_SIZE]);

#define TRIB_MAC_SIZE 32
/* HMAC-SHA-256. 0 or -EIO. */
TRIB_MUST_CHECK int trib_mac(const void *key, size_t key_size, const void *data, size_t size,
			     uint8_t out[TRIB_MAC_SIZE]);
/* SHA-256 as 64 hex digits. 0 or -EIO. */
#define TRIB_SHA256_TEXT_SIZE 65
TRIB_MUST_CHECK int trib_sha256(const void *data, size_t size, char out[TRIB_SHA256_TEXT_SIZE]);
bool trib_equal_secret(const void *a, const void *b, size_t size); /* constant time */
TRIB_MUST_CHECK int trib_random(void *out, size_t size);           /* getrandom */

/* Unpadded base64url; out_size counts the terminator. Size written or -ENOSPC / -EINVAL. */
TRIB_MUST_CHECK int trib_base64url_encode(const void *data, size_t size, char *out,
					  size_t out_size);
TRIB_MUST_CHECK int trib_base64url_decode(const char *text, void *out, size_t out_size);

#endif
