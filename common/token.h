/* SPDX-License-Identifier: Apache-2.0
 * Opaque keys: a prefix ("flk_" a client's token, "flo_" an operator's key) and 43 characters of
 * base64url, 32 random bytes. Nobody keeps them but their holder: what is stored is their SHA-256.
 * And the Authorization field they come in. Pure but for getrandom; any thread.
 */
#ifndef TRIB_COMMON_TOKEN_H
#define TRIB_COMMON_TOKEN_H

#include "common/crypto.h"
#include "common/http.h"

#define TRIB_TOKEN_CLIENT    "flk_"
#define TRIB_TOKEN_OPERATOR  "flo_"
#define TRIB_TOKEN_TEXT_SIZE 48 /* 4 + 43 + NUL */
#define TRIB_BEARER_MAX      4096

TRIB_MUST_CHECK int trib_token_make(const char *prefix, char out[TRIB_TOKEN_TEXT_SIZE]);
/* Exactly the prefix and the one base64url text of 32 bytes. */
bool trib_token_valid(const char *prefix, const char *text);
/* 64 lower-case hex digits? */
bool trib_sha256_text_valid(const char *text);
/* "Authorization: Bearer X" -> X, borrowed from the request. -ENOENT: there is none; -EBADMSG:
 * another scheme, blanks or foreign characters in it, too long, or more than one such field. */
TRIB_MUST_CHECK int trib_bearer_read(const struct trib_http_request *request,
				     const char **ret_token);

#endif
