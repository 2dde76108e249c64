/* SPDX-License-Identifier: Apache-2.0
 * Operators: people and programs that command jobs. Who they are, for which tenant, what they may
 * do. The table is read from JSON: [{"name", "tenant", "scopes": [..], "sha256"}], sha256 of the
 * operator's key ("flo_.."), which is stored nowhere. Pure; tables are read-only once made.
 */
#ifndef TRIB_COMMON_OPERATORS_H
#define TRIB_COMMON_OPERATORS_H

#include "common/base.h"
#include "common/crypto.h"

#define TRIB_OPERATORS_MAX  1024
#define TRIB_TENANT_SIZE    64
#define TRIB_TENANT_DEFAULT "default"

enum trib_scope {
	TRIB_SCOPE_JOBS_READ = 1,
	TRIB_SCOPE_JOBS_WRITE = 2,
	TRIB_SCOPE_JOBS_ADMIN = 4,
	TRIB_SCOPE_OPS_READ = 8,
	TRIB_SCOPE_OPS_ADMIN = 16,
	TRIB_SCOPE_ALL = 31,
};

struct trib_operator {
	char name[65];
	char tenant[TRIB_TENANT_SIZE];
	unsigned scopes;     /* of enum trib_scope */
	uint64_t expires_ms; /* wall; 0: never */
};

/* 0 when there is no such scope. */
unsigned trib_scope_parse(const char *text, size_t size);
const char *trib_scope_text(enum trib_scope scope);
/* May somebody with `scopes` do what needs `needed`, on jobs of the own tenant? jobs:admin holds
 * jobs:write holds jobs:read, ops:admin holds everything, ops:read holds jobs:read. */
bool trib_scopes_allow(unsigned scopes, enum trib_scope needed);
/* The same on jobs of any tenant: ops:read reads all, ops:admin does all. */
bool trib_scopes_across(unsigned scopes, enum trib_scope needed);

struct trib_operators;
/* 0; -EBADMSG with a reason; -ENOMEM. */
TRIB_MUST_CHECK int trib_operators_parse(const char *text, size_t size,
					 struct trib_operators **ret_operators, char reason[160]);
struct trib_operators *trib_operators_free(struct trib_operators *operators);
size_t trib_operators_count(const struct trib_operators *operators);
/* Whose key has this hash; takes the same time whether there is one. NULL: nobody's. Borrowed. */
const struct trib_operator *trib_operators_find(const struct trib_operators *operators,
						const char hash[TRIB_SHA256_TEXT_SIZE]);

#endif
