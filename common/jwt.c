/* SPDX-License-Identifier: Apache-2.0 */
#include "common/jwt.h"

#include <errno.h>
#include <fcntl.h>
#include <jwt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/id.h"
#include "common/json.h"

#define REASON_SIZE 160
#define KEY_MAX     16384
#define SECRET_MIN  32
#define PART_MAX    4096

struct trib_jwt {
	char algorithm[8];
	jwt_alg_t alg;
	char *key;
	size_t key_size;
	char *issuer;
	char *audience;
};

static const struct {
	const char *name;
	jwt_alg_t alg;
} algorithms[] = { { "HS256", JWT_ALG_HS256 },
		   { "RS256", JWT_ALG_RS256 },
		   { "ES256", JWT_ALG_ES256 } };

int trib_secret_file(const char *path, size_t max, char **ret_text, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat info;
	char *text = NULL;
	size_t used = 0;
	int rc = 0;

	if (fd < 0) {
		return -errno;
	}
	if (fstat(fd, &info)) {
		rc = -errno;
	} else if (!S_ISREG(info.st_mode)) {
		rc = -EINVAL;
	} else if (info.st_mode & S_IWOTH) {
		rc = -EPERM;
	} else if ((uint64_t)info.st_size > max) {
		rc = -EFBIG;
	} else {
		text = trib_alloc((size_t)info.st_size + 1);
		rc = text ? 0 : -ENOMEM;
	}
	while (rc == 0 && used < (size_t)info.st_size) {
		ssize_t n = read(fd, text + used, (size_t)info.st_size - used);

		if (n > 0) {
			used += (size_t)n;
		} else if (n == 0) {
			break; /* it became shorter */
		} else if (errno != EINTR) {
			rc = -errno;
		}
	}
	(void)close(fd);
	if (rc) {
		trib_free(text);
		return rc;
	}
	*ret_text = text;
	*ret_size = used;
	return 0;
}

static int check_key(struct trib_jwt *jwt, char reason[REASON_SIZE])
{
	if (jwt->alg != JWT_ALG_HS256) {
		if (strstr(jwt->key, "-----BEGIN PUBLIC KEY-----")) {
			return 0;
		}
		(void)snprintf(reason, REASON_SIZE, "a public key (PEM) is needed for %s",
			       jwt->algorithm);
		return -EBADMSG;
	}
	while (jwt->key_size &&
	       (jwt->key[jwt->key_size - 1] == '\n' || jwt->key[jwt->key_size - 1] == '\r')) {
		jwt->key[--jwt->key_size] = '\0';
	}
	if (strstr(jwt->key, "-----BEGIN")) {
		(void)snprintf(reason, REASON_SIZE, "a PEM key is no secret for HS256");
		return -EBADMSG;
	}
	if (jwt->key_size < SECRET_MIN) {
		(void)snprintf(reason, REASON_SIZE, "a secret of %d bytes or more is needed",
			       SECRET_MIN);
		return -EBADMSG;
	}
	return 0;
}

static int read_config(const struct trib_jwt_config *config, struct trib_jwt *jwt,
		       char reason[REASON_SIZE])
{
	bool known = false;
	int rc;

	for (size_t i = 0; config->algorithm && i < TRIB_COUNT(algorithms); i++) {
		if (strcmp(config->algorithm, algorithms[i].name) == 0) {
			known = trib_copy(jwt->algorithm, sizeof(jwt->algorithm),
					  config->algorithm) == 0;
			jwt->alg = algorithms[i].alg;
		}
	}
	if (!known) {
		(void)snprintf(reason, REASON_SIZE, "the algorithm must be HS256, RS256 or ES256");
		return -EINVAL;
	}
	if (!config->key_file || !config->issuer || !config->audience || !*config->issuer ||
	    !*config->audience) {
		(void)snprintf(reason, REASON_SIZE, "key file, issuer and audience are needed");
		return -EINVAL;
	}
	jwt->issuer = trib_strdup(config->issuer);
	jwt->audience = trib_strdup(config->audience);
	if (!jwt->issuer || !jwt->audience) {
		(void)snprintf(reason, REASON_SIZE, "out of memory");
		return -ENOMEM;
	}
	rc = trib_secret_file(config->key_file, KEY_MAX, &jwt->key, &jwt->key_size);
	if (rc) {
		(void)snprintf(reason, REASON_SIZE, "%.100s: %s", config->key_file,
			       strerrordesc_np(-rc));
		return rc;
	}
	return check_key(jwt, reason);
}

int trib_jwt_new(const struct trib_jwt_config *config, struct trib_jwt **ret_jwt, char reason[160])
{
	struct trib_jwt *jwt = trib_alloc(sizeof(*jwt));
	int rc;

	if (!jwt) {
		(void)snprintf(reason, REASON_SIZE, "out of memory");
		return -ENOMEM;
	}
	rc = read_config(config, jwt, reason);
	if (rc) {
		(void)trib_jwt_free(jwt);
		return rc;
	}
	*ret_jwt = jwt;
	return 0;
}

struct trib_jwt *trib_jwt_free(struct trib_jwt *jwt)
{
	if (jwt) {
		if (jwt->key) {
			explicit_bzero(jwt->key, jwt->key_size);
		}
		trib_free(jwt->key);
		trib_free(jwt->issuer);
		trib_free(jwt->audience);
		trib_free(jwt);
	}
	return NULL;
}

/* ---- verification ---- */

/* Part `index` (0 head, 1 claims) of the token as an object; NULL when it is none. */
static json_t *part_of(const char *token, unsigned index)
{
	char coded[PART_MAX];
	char text[PART_MAX];
	char reason[REASON_SIZE];
	json_t *json = NULL;
	size_t size;
	int n;

	for (; index; index--) {
		token += strcspn(token, ".");
		token += *token == '.';
	}
	size = strcspn(token, ".");
	if (size == 0 || size >= sizeof(coded)) {
		return NULL;
	}
	memcpy(coded, token, size);
	coded[size] = '\0';
	n = trib_base64url_decode(coded, text, sizeof(text));
	if (n <= 0 || trib_json_parse(text, (size_t)n, &json, reason)) {
		return NULL;
	}
	if (!json_is_object(json)) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static bool shape_good(const char *token)
{
	size_t dots = 0;

	for (const char *c = token; *c; c++) {
		dots += *c == '.';
	}
	return dots == 2 && strlen(token) < PART_MAX;
}

/* The head: our algorithm to the letter, nothing that must be understood. */
static const char *check_head(const struct trib_jwt *jwt, const char *token)
{
	json_t *head = part_of(token, 0);
	const char *wrong = NULL;

	if (!head) {
		return "malformed token";
	}
	if (strcmp(trib_json_text(head, "alg", ""), jwt->algorithm) != 0) {
		wrong = "another algorithm than the configured one";
	} else if (json_object_get(head, "crit")) {
		wrong = "critical header parameters are not supported";
	}
	json_decref(head);
	return wrong;
}

static bool signature_good(const struct trib_jwt *jwt, const char *token)
{
	jwt_t *decoded = NULL;
	bool good = jwt_decode(&decoded, token, (const unsigned char *)jwt->key,
			       (int)jwt->key_size) == 0 &&
		    decoded && jwt_get_alg(decoded) == jwt->alg;

	jwt_free(decoded);
	return good;
}

/* aud is one text or an array of them. */
static bool names_audience(const json_t *aud, const char *audience)
{
	const json_t *item;
	size_t i;

	if (json_is_string(aud)) {
		return strcmp(json_string_value(aud), audience) == 0;
	}
	json_array_foreach(aud, i, item)
	{
		if (json_is_string(item) && strcmp(json_string_value(item), audience) == 0) {
			return true;
		}
	}
	return false;
}

static unsigned scopes_of(const char *text)
{
	unsigned scopes = 0;

	while (*text) {
		size_t size = strcspn(text, " ");

		scopes |= trib_scope_parse(text, size);
		text += size;
		text += strspn(text, " ");
	}
	return scopes;
}

/* Seconds, maybe with a fraction, as ms; false when absent or absurd. */
static bool time_claim(const json_t *claims, const char *name, uint64_t *ret_ms)
{
	const json_t *value = json_object_get(claims, name);
	double seconds = json_number_value(value);

	if (!json_is_number(value) || !(seconds >= 0) || seconds > 1e11) {
		return false;
	}
	*ret_ms = (uint64_t)(seconds * 1000);
	return true;
}

/* "jwt:ann@example.org", as far as it fits and can be printed: a name for people to read. */
static void name_subject(const char *subject, struct trib_operator *who)
{
	(void)snprintf(who->name, sizeof(who->name), "jwt:%s", subject);
	for (char *c = who->name; *c; c++) {
		if (*c <= ' ' || *c > '~') {
			*c = '?';
		}
	}
}

static const char *check_claims(const struct trib_jwt *jwt, const json_t *claims, uint64_t now_ms,
				struct trib_operator *who)
{
	const char *tenant = trib_json_text(claims, "tenant", "");
	uint64_t begins = 0;

	if (!time_claim(claims, "exp", &who->expires_ms)) {
		return "exp is needed";
	}
	if (now_ms >= who->expires_ms + TRIB_JWT_LEEWAY_MS) {
		return "the token has expired";
	}
	if (json_object_get(claims, "nbf") &&
	    (!time_claim(claims, "nbf", &begins) || now_ms + TRIB_JWT_LEEWAY_MS < begins)) {
		return "the token is not valid yet";
	}
	if (strcmp(trib_json_text(claims, "iss", ""), jwt->issuer) != 0) {
		return "another issuer";
	}
	if (!names_audience(json_object_get(claims, "aud"), jwt->audience)) {
		return "the token is for another audience";
	}
	if (!trib_name_valid(tenant) || trib_copy(who->tenant, sizeof(who->tenant), tenant)) {
		return "tenant is needed";
	}
	name_subject(trib_json_text(claims, "sub", ""), who);
	who->scopes = scopes_of(trib_json_text(claims, "scope", ""));
	return NULL;
}

int trib_jwt_verify(const struct trib_jwt *jwt, const char *token, uint64_t now_ms,
		    struct trib_operator *ret_operator, const char **ret_detail)
{
	struct trib_operator who = { .scopes = 0 };
	json_t *claims = NULL;

	*ret_detail = shape_good(token) ? check_head(jwt, token) : "malformed token";
	if (!*ret_detail && !signature_good(jwt, token)) {
		*ret_detail = "the signature is not valid";
	}
	if (!*ret_detail) {
		/* The very bytes that were signed, by our own parser (no duplicate members). */
		claims = part_of(token, 1);
		*ret_detail = claims ? check_claims(jwt, claims, now_ms, &who) : "malformed token";
	}
	json_decref(claims);
	if (*ret_detail) {
		return -EACCES;
	}
	*ret_operator = who;
	return 0;
}
