/* SPDX-License-Identifier: Apache-2.0
 * As whom this process logs in to Redis and to Sentinels (ACL user and password). Passwords come
 * from files, never from a command line. Set once, before the first connection.
 */
#ifndef TRIB_COMMON_REDIS_LOGIN_H
#define TRIB_COMMON_REDIS_LOGIN_H

#include "common/base.h"

#define TRIB_REDIS_PASSWORD_MAX 512

struct trib_redis_login {
	const char *user; /* NULL: Redis' default user */
	const char *password_file;
	const char *sentinel_user;
	const char *sentinel_password_file;
};
/* Rows of a program's table of options. */
#define TRIB_REDIS_LOGIN_OPTIONS(l)                                                                  \
	{ "redis-user", TRIB_OPTION_TEXT, &(l).user, 0, 0, "NAME", "ACL user of Redis" },            \
		{ "redis-password-file",         TRIB_OPTION_TEXT, &(l).password_file, 0, 0, "FILE", \
		  "its password, the first line" },                                                  \
		{ "sentinel-user", TRIB_OPTION_TEXT,           &(l).sentinel_user, 0, 0,             \
		  "NAME",          "ACL user of the Sentinels" },                                    \
	{                                                                                            \
		"sentinel-password-file", TRIB_OPTION_TEXT, &(l).sentinel_password_file, 0, 0,       \
			"FILE", "its password, the first line"                                       \
	}

/* Reads the files. 0; -EINVAL (a user without a password, an empty one), another -errno: said in
 * `reason`. */
TRIB_MUST_CHECK int trib_redis_login(const struct trib_redis_login *login, char reason[256]);
/* The same without setting anything: for --check-config. */
TRIB_MUST_CHECK int trib_redis_login_check(const struct trib_redis_login *login, char reason[256]);
/* The first line of such a file; 0, -EINVAL or another -errno. */
TRIB_MUST_CHECK int trib_redis_password(const char *path, char out[TRIB_REDIS_PASSWORD_MAX + 1]);

/* ---- for redis_link.c ---- */
/* NULL: nobody in particular. *ret_user may be NULL. */
const char *trib_redis_login_of(bool sentinel, const char **ret_user);

#endif
