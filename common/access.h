/* SPDX-License-Identifier: Apache-2.0
 * Who asks? Operators' keys and JWTs as one question, the same in orchestrator and gateway. The
 * file of operators is read again when it changes (trib_access_refresh, from one thread, about once
 * a second); asking is possible from any thread.
 */
#ifndef TRIB_COMMON_ACCESS_H
#define TRIB_COMMON_ACCESS_H

#include "common/http.h"
#include "common/jwt.h"

#define TRIB_ACCESS_REFRESH_MS 1000

struct trib_access_config {
	const char *operators;      /* file, or NULL */
	struct trib_jwt_config jwt; /* algorithm NULL: none */
};
/* Rows of a program's table of options. */
#define TRIB_ACCESS_OPTIONS(c)                                                                         \
	{ "operators",                                                                                 \
	  TRIB_OPTION_TEXT,                                                                            \
	  &(c).operators,                                                                              \
	  0,                                                                                           \
	  0,                                                                                           \
	  "FILE",                                                                                      \
	  "operators and the hashes of their keys (JSON)" },                                           \
		{ "jwt-alg",                                                                           \
		  TRIB_OPTION_TEXT,                                                                    \
		  &(c).jwt.algorithm,                                                                  \
		  0,                                                                                   \
		  0,                                                                                   \
		  "HS256|RS256|ES256",                                                                 \
		  "take operators' JWTs, of this algorithm alone" },                                   \
		{ "jwt-key",                                                                           \
		  TRIB_OPTION_TEXT,                                                                    \
		  &(c).jwt.key_file,                                                                   \
		  0,                                                                                   \
		  0,                                                                                   \
		  "FILE",                                                                              \
		  "their secret, or public key (PEM)" },                                               \
		{ "jwt-issuer", TRIB_OPTION_TEXT, &(c).jwt.issuer, 0, 0, "TEXT", "wanted claim iss" }, \
	{                                                                                              \
		"jwt-audience", TRIB_OPTION_TEXT, &(c).jwt.audience, 0, 0, "TEXT",                     \
			"wanted claim aud"                                                             \
	}

struct trib_access;
/* 0; else -errno, and why is in the log. Tells there as well how it is configured. */
TRIB_MUST_CHECK int trib_access_new(const struct trib_access_config *config,
				    struct trib_access **ret_access);
struct trib_access *trib_access_free(struct trib_access *access);
/* Neither operators nor JWTs are configured: everybody may do everything. */
bool trib_access_is_open(const struct trib_access *access);
/* True when the operators are others now. A file that cannot be used changes nothing (logged). */
bool trib_access_refresh(struct trib_access *access);
/* 0 and who it is (open: "open" of the default tenant with all scopes); -ENOENT: no credentials;
 * -EACCES: not valid ones. *ret_detail: static text for the answer. */
TRIB_MUST_CHECK int trib_access_who(struct trib_access *access,
				    const struct trib_http_request *request, uint64_t now_ms,
				    struct trib_operator *ret_operator, const char **ret_detail);

#endif
