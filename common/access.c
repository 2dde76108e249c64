/* SPDX-License-Identifier: Apache-2.0 */
#include "common/access.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/token.h"

#define FILE_MAX (1u << 20)

struct trib_access {
	char *path; /* of the operators, or NULL */
	struct trib_jwt *jwt;
	struct stat seen; /* of the file as it was read, or refused */
	pthread_mutex_t lock;
	struct trib_operators *operators; /* guarded by the lock */
};

static int load(struct trib_access *access)
{
	struct trib_operators *operators = NULL;
	char reason[160] = "";
	char *text = NULL;
	size_t size = 0;
	int rc = trib_secret_file(access->path, FILE_MAX, &text, &size);

	if (rc == 0) {
		rc = trib_operators_parse(text, size, &operators, reason);
	}
	trib_free(text);
	if (rc) {
		log_err("access", "operators not usable file=%s error=%s", access->path,
			reason[0] ? reason : strerrordesc_np(-rc));
		return rc;
	}
	log_info("access", "operators read file=%s count=%zu", access->path,
		 trib_operators_count(operators));
	(void)pthread_mutex_lock(&access->lock);
	(void)trib_operators_free(access->operators);
	access->operators = operators;
	(void)pthread_mutex_unlock(&access->lock);
	return 0;
}

int trib_access_new(const struct trib_access_config *config, struct trib_access **ret_access)
{
	struct trib_access *access = trib_alloc(sizeof(*access));
	char reason[160];
	int rc = 0;

	if (!access) {
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&access->lock, NULL);
	if (config->operators) {
		access->path = trib_strdup(config->operators);
		(void)stat(config->operators, &access->seen);
		rc = access->path ? load(access) : -ENOMEM;
	}
	if (rc == 0 && (config->jwt.algorithm || config->jwt.key_file)) {
		rc = trib_jwt_new(&config->jwt, &access->jwt, reason);
		if (rc) {
			log_err("access", "JWTs not usable error=%s", reason);
		} else {
			log_info("access", "JWTs are taken alg=%s iss=%s aud=%s",
				 config->jwt.algorithm, config->jwt.issuer, config->jwt.audience);
		}
	}
	if (rc) {
		(void)trib_access_free(access);
		return rc;
	}
	if (trib_access_is_open(access)) {
		log_warn("access", "open: whoever reaches the API may do everything "
				   "(--operators or --jwt-alg close it)");
	}
	*ret_access = access;
	return 0;
}

struct trib_access *trib_access_free(struct trib_access *access)
{
	if (access) {
		access->jwt = trib_jwt_free(access->jwt);
		access->operators = trib_operators_free(access->operators);
		(void)pthread_mutex_destroy(&access->lock);
		trib_free(access->path);
		trib_free(access);
	}
	return NULL;
}

bool trib_access_is_open(const struct trib_access *access)
{
	return !access->path && !access->jwt;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

bool trib_access_refresh(struct trib_access *access)
{
	struct stat now;

	if (!access->path || stat(access->path, &now) || same_file(&now, &access->seen)) {
		return false; /* a file being replaced may be missing for a moment */
	}
	access->seen = now;
	return load(access) == 0;
}

static bool find_key(struct trib_access *access, const char *token, struct trib_operator *who)
{
	char hash[TRIB_SHA256_TEXT_SIZE];
	const struct trib_operator *found = NULL;

	if (!access->path || !trib_token_valid(TRIB_TOKEN_OPERATOR, token) ||
	    trib_sha256(token, strlen(token), hash)) {
		return false;
	}
	(void)pthread_mutex_lock(&access->lock);
	if (access->operators) {
		found = trib_operators_find(access->operators, hash);
	}
	if (found) {
		*who = *found;
	}
	(void)pthread_mutex_unlock(&access->lock);
	return found != NULL;
}

int trib_access_who(struct trib_access *access, const struct trib_http_request *request,
		    uint64_t now_ms, struct trib_operator *ret_operator, const char **ret_detail)
{
	const char *token = NULL;
	int rc;

	*ret_detail = NULL;
	if (trib_access_is_open(access)) {
		*ret_operator = (struct trib_operator){ .name = "open",
							.tenant = TRIB_TENANT_DEFAULT,
							.scopes = TRIB_SCOPE_ALL };
		return 0;
	}
	rc = trib_bearer_read(request, &token);
	if (rc == -ENOENT) {
		*ret_detail = "an operator's key or token is needed (Authorization: Bearer ..)";
		return rc;
	}
	if (rc) {
		*ret_detail = "Authorization: Bearer with one key or token is needed";
		return -EACCES;
	}
	if (find_key(access, token, ret_operator)) {
		return 0;
	}
	*ret_detail = "not an operator's key";
	if (!access->jwt || !strchr(token, '.')) {
		return -EACCES;
	}
	return trib_jwt_verify(access->jwt, token, now_ms, ret_operator, ret_detail);
}
