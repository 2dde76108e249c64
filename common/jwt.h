/* SPDX-License-Identifier: Apache-2.0
 * The door to libjwt: signed JSON Web Tokens as operators' credentials. The algorithm and the key
 * are the configuration's; a token that names another algorithm is refused before any signature is
 * looked at. Claims: exp, iss, aud and tenant must be there, nbf may; scope is a list of words, of
 * which only ours count; sub names the operator ("jwt:<sub>"; for people to read). Read-only once
 * made; any thread.
 */
#ifndef TRIB_COMMON_JWT_H
#define TRIB_COMMON_JWT_H

#include "common/operators.h"

#define TRIB_JWT_LEEWAY_MS 5000 /* clocks differ */

struct trib_jwt_config {
	const char *algorithm; /* HS256, RS256 or ES256 */
	const char *key_file;  /* the secret (32 bytes or more), or a public key as PEM */
	const char *issuer;
	const char *audience;
};

struct trib_jwt;
/* 0; -EINVAL, -EBADMSG or -errno with a reason. */
TRIB_MUST_CHECK int trib_jwt_new(const struct trib_jwt_config *config, struct trib_jwt **ret_jwt,
				 char reason[160]);
struct trib_jwt *trib_jwt_free(struct trib_jwt *jwt);
/* 0 and who it is; -EACCES with *ret_detail (static text) saying why not. */
TRIB_MUST_CHECK int trib_jwt_verify(const struct trib_jwt *jwt, const char *token, uint64_t now_ms,
				    struct trib_operator *ret_operator, const char **ret_detail);

/* Reads a whole small file; *ret_text is terminated and owned. -EFBIG beyond `max`, -EPERM when
 * anybody may write to it. */
TRIB_MUST_CHECK int trib_secret_file(const char *path, size_t max, char **ret_text,
				     size_t *ret_size);

#endif
