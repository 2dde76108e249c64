/* SPDX-License-Identifier: Apache-2.0 */
#include "common/redis_login.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/jwt.h"

#define FILE_MAX    4096
#define REASON_SIZE 256

struct account {
	char *user;
	char password[TRIB_REDIS_PASSWORD_MAX + 1];
};

static struct account accounts[2]; /* of Redis, of Sentinels; written once, before any thread */

int trib_redis_password(const char *path, char out[TRIB_REDIS_PASSWORD_MAX + 1])
{
	char *text = NULL;
	size_t size = 0;
	int rc = trib_secret_file(path, FILE_MAX, &text, &size);

	if (rc) {
		return rc;
	}
	size = strcspn(text, "\r\n");
	if (size == 0 || size > TRIB_REDIS_PASSWORD_MAX) {
		rc = -EINVAL;
	} else {
		memcpy(out, text, size);
		out[size] = '\0';
	}
	explicit_bzero(text, strlen(text));
	trib_free(text);
	return rc;
}

static int read_account(const char *user, const char *path, const char *what,
			struct account *account, char reason[REASON_SIZE])
{
	int rc;

	reason[0] = '\0';
	if (!path) {
		if (user) {
			(void)snprintf(reason, REASON_SIZE, "--%s-user without --%s-password-file",
				       what, what);
		}
		return user ? -EINVAL : 0;
	}
	rc = trib_redis_password(path, account->password);
	if (rc) {
		(void)snprintf(reason, REASON_SIZE, "--%s-password-file %.160s: %s", what, path,
			       rc == -EINVAL  ? "its first line is no password of 1 to 512 bytes"
			       : rc == -EPERM ? "anybody may write to it"
					      : strerrordesc_np(-rc));
		return rc;
	}
	account->user = user ? trib_strdup(user) : NULL;
	return user && !account->user ? -ENOMEM : 0;
}

static int read_both(const struct trib_redis_login *login, struct account both[2],
		     char reason[REASON_SIZE])
{
	int rc = read_account(login->user, login->password_file, "redis", &both[0], reason);

	return rc ? rc
		  : read_account(login->sentinel_user, login->sentinel_password_file, "sentinel",
				 &both[1], reason);
}

int trib_redis_login(const struct trib_redis_login *login, char reason[256])
{
	return read_both(login, accounts, reason);
}

int trib_redis_login_check(const struct trib_redis_login *login, char reason[256])
{
	struct account both[2] = { { .user = NULL }, { .user = NULL } };
	int rc = read_both(login, both, reason);

	for (size_t i = 0; i < 2; i++) {
		explicit_bzero(both[i].password, sizeof(both[i].password));
		trib_free(both[i].user);
	}
	return rc;
}

const char *trib_redis_login_of(bool sentinel, const char **ret_user)
{
	const struct account *account = &accounts[sentinel];

	*ret_user = account->user;
	return account->password[0] ? account->password : NULL;
}
