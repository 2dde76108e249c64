/* SPDX-License-Identifier: Apache-2.0
 * Credentials: keys, the Authorization field, operators' files, JWTs, audit records.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/access.h"
#include "common/audit.h"
#include "common/token.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define NOW_MS 1700000000000ull

static struct trib_http_request request_of(char *head)
{
	struct trib_http_request request;

	assert_int_equal(trib_http_parse(head, strlen(head), &request), 0);
	return request;
}

/* ---- keys ---- */

static void keys(void **unused)
{
	char one[TRIB_TOKEN_TEXT_SIZE];
	char two[TRIB_TOKEN_TEXT_SIZE];
	char hash[TRIB_SHA256_TEXT_SIZE];

	(void)unused;
	assert_int_equal(trib_token_make(TRIB_TOKEN_CLIENT, one), 0);
	assert_int_equal(trib_token_make(TRIB_TOKEN_CLIENT, two), 0);
	assert_int_equal(strlen(one), 47);
	assert_true(trib_token_valid(TRIB_TOKEN_CLIENT, one));
	assert_false(trib_token_valid(TRIB_TOKEN_OPERATOR, one));
	assert_string_not_equal(one, two);
	one[46] = one[46] == 'B' ? 'C' : 'B'; /* unused bits set: another text of the same bytes */
	assert_false(trib_token_valid(TRIB_TOKEN_CLIENT, one));
	assert_false(trib_token_valid(TRIB_TOKEN_CLIENT, ""));
	assert_false(trib_token_valid(TRIB_TOKEN_CLIENT, "flk_"));
	two[46] = '\0';
	assert_false(trib_token_valid(TRIB_TOKEN_CLIENT, two));
	two[20] = '+';
	assert_false(trib_token_valid(TRIB_TOKEN_CLIENT, two));
	assert_int_equal(trib_sha256("abc", 3, hash), 0);
	assert_string_equal(hash,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_true(trib_sha256_text_valid(hash));
	hash[3] = 'A';
	assert_false(trib_sha256_text_valid(hash));
}

static void bearers(void **unused)
{
	static const struct {
		const char *fields;
		int rc;
		const char *token;
	} cases[] = {
		{ "", -ENOENT, NULL },
		{ "Authorization: Bearer abc\r\n", 0, "abc" },
		{ "authorization: bEARER   a.b-c_d~+/=\r\n", 0, "a.b-c_d~+/=" },
		{ "Authorization: Basic abc\r\n", -EBADMSG, NULL },
		{ "Authorization: Bearer\r\n", -EBADMSG, NULL },
		{ "Authorization: Bearerabc\r\n", -EBADMSG, NULL },
		{ "Authorization: Bearer a b\r\n", -EBADMSG, NULL },
		{ "Authorization: Bearer a,b\r\n", -EBADMSG, NULL },
		{ "Authorization:\r\n", -EBADMSG, NULL },
		{ "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n", -EBADMSG, NULL },
	};

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		char head[256];
		const char *token = NULL;
		struct trib_http_request request;

		(void)snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n",
			       cases[i].fields);
		request = request_of(head);
		assert_int_equal(trib_bearer_read(&request, &token), cases[i].rc);
		if (cases[i].token) {
			assert_string_equal(token, cases[i].token);
		}
	}
}

/* ---- operators ---- */

#define HASH "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ONE                                                                            \
	"{\"name\":\"ann\",\"tenant\":\"acme\",\"scopes\":[\"jobs:read\"],\"sha256\":" \
	"\"" HASH "\"}"

static void operators(void **unused)
{
	static const char *const bad[] = {
		"",
		"{}",
		"[1]",
		"[" ONE "," ONE "]",
		"[" ONE ",]",
		"[{}]",
		"[{\"name\":\"a\",\"tenant\":\"t\",\"scopes\":[],\"sha256\":\"" HASH "\"}]",
		"[{\"name\":\"a\",\"tenant\":\"t\",\"scopes\":[\"jobs:all\"],\"sha256\":\"" HASH
		"\"}]",
		"[{\"name\":\"a\",\"tenant\":\"T\",\"scopes\":[\"jobs:read\"],\"sha256\":\"" HASH
		"\"}]",
		"[{\"name\":\"a b\",\"tenant\":\"t\",\"scopes\":[\"jobs:read\"],\"sha256\":\"" HASH
		"\"}]",
		"[{\"name\":\"a\",\"tenant\":\"t\",\"scopes\":[\"jobs:read\"],\"sha256\":\"abc\"}]",
		"[{\"name\":\"a\",\"tenant\":\"t\",\"scopes\":[\"jobs:read\"],\"sha256\":\"" HASH
		"\",\"key\":\"flo_\"}]",
	};
	struct trib_operators *table = NULL;
	const struct trib_operator *who;
	char reason[160];

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		assert_int_equal(trib_operators_parse(bad[i], strlen(bad[i]), &table, reason),
				 -EBADMSG);
		assert_true(strlen(reason) > 0);
	}
	assert_int_equal(trib_operators_parse("[" ONE "]", strlen("[" ONE "]"), &table, reason), 0);
	assert_int_equal(trib_operators_count(table), 1);
	who = trib_operators_find(table, HASH);
	assert_non_null(who);
	assert_string_equal(who->name, "ann");
	assert_string_equal(who->tenant, "acme");
	assert_int_equal(who->scopes, TRIB_SCOPE_JOBS_READ);
	assert_null(trib_operators_find(
		table, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ae"));
	(void)trib_operators_free(table);
}

static void scopes(void **unused)
{
	/* rows: what one has; columns: what is needed. Own tenant, then any tenant. */
	static const bool allow[5][5] = { { 1, 0, 0, 0, 0 },
					  { 1, 1, 0, 0, 0 },
					  { 1, 1, 1, 0, 0 },
					  { 1, 0, 0, 1, 0 },
					  { 1, 1, 1, 1, 1 } };
	static const bool across[5][5] = { { 0, 0, 0, 0, 0 },
					   { 0, 0, 0, 0, 0 },
					   { 0, 0, 0, 0, 0 },
					   { 1, 0, 0, 1, 0 },
					   { 1, 1, 1, 1, 1 } };

	(void)unused;
	for (unsigned has = 0; has < 5; has++) {
		for (unsigned need = 0; need < 5; need++) {
			enum trib_scope scope = (enum trib_scope)(1u << need);

			assert_int_equal(trib_scopes_allow(1u << has, scope), allow[has][need]);
			assert_int_equal(trib_scopes_across(1u << has, scope), across[has][need]);
			assert_false(trib_scopes_allow(0, scope));
		}
	}
	assert_int_equal(trib_scope_parse("jobs:readx", 10), 0);
	assert_int_equal(trib_scope_parse("jobs:readx", 9), TRIB_SCOPE_JOBS_READ);
}

/* ---- JWT ---- */

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static struct trib_jwt *new_jwt(void)
{
	char path[] = "/tmp/trib-jwt-XXXXXX";
	struct trib_jwt_config config = {
		.algorithm = "HS256", .key_file = path, .issuer = "iss", .audience = "aud"
	};
	struct trib_jwt *jwt = NULL;
	char reason[160];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	(void)close(fd);
	write_file(path, SECRET "\n");
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), 0);
	(void)unlink(path);
	return jwt;
}

static void sign(const char *head, const char *claims, const char *secret, char *out, size_t size)
{
	uint8_t mac[TRIB_MAC_SIZE];
	int used = trib_base64url_encode(head, strlen(head), out, size);

	assert_true(used > 0);
	out[used++] = '.';
	used += trib_base64url_encode(claims, strlen(claims), out + used, size - (size_t)used);
	assert_int_equal(trib_mac(secret, strlen(secret), out, (size_t)used, mac), 0);
	out[used++] = '.';
	assert_true(trib_base64url_encode(mac, sizeof(mac), out + used, size - (size_t)used) > 0);
}

#define HEAD   "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define CLAIMS "\"iss\":\"iss\",\"aud\":\"aud\",\"tenant\":\"acme\",\"sub\":\"ann\""
#define GOOD   "{" CLAIMS ",\"exp\":1700000100,\"scope\":\"openid jobs:write  ops:read\"}"

static void jwts(void **unused)
{
	static const struct {
		const char *head;
		const char *claims;
		const char *secret;
		bool good;
	} cases[] = {
		{ HEAD, GOOD, SECRET, true },
		{ HEAD, "{" CLAIMS ",\"exp\":1700000100.5,\"nbf\":1699999999}", SECRET, true },
		{ HEAD, "{" CLAIMS ",\"exp\":1700000100,\"nbf\":1700000004}", SECRET, true },
		{ HEAD, GOOD, SECRET "x", false },
		{ "{\"alg\":\"none\"}", GOOD, SECRET, false },
		{ "{\"alg\":\"hs256\"}", GOOD, SECRET, false },
		{ "{\"alg\":\"HS384\"}", GOOD, SECRET, false },
		{ "{\"alg\":\"RS256\"}", GOOD, SECRET, false },
		{ "{\"typ\":\"JWT\"}", GOOD, SECRET, false },
		{ "{\"alg\":\"none\",\"alg\":\"HS256\"}", GOOD, SECRET, false },
		{ "{\"alg\":\"HS256\",\"crit\":[\"b64\"]}", GOOD, SECRET, false },
		{ "[]", GOOD, SECRET, false },
		{ HEAD, "{" CLAIMS "}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":\"1700000100\"}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":-1}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":1e300}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":1699999995}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":1700000100,\"nbf\":1700000006}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":1700000100,\"nbf\":\"0\"}", SECRET, false },
		{ HEAD, "{" CLAIMS ",\"exp\":1700000100,\"exp\":1}", SECRET, false },
		{ HEAD, "{\"iss\":\"x\",\"aud\":\"aud\",\"tenant\":\"a\",\"exp\":1700000100}",
		  SECRET, false },
		{ HEAD, "{\"iss\":\"iss\",\"aud\":\"x\",\"tenant\":\"a\",\"exp\":1700000100}",
		  SECRET, false },
		{ HEAD, "{\"iss\":\"iss\",\"aud\":[\"x\"],\"tenant\":\"a\",\"exp\":1700000100}",
		  SECRET, false },
		{ HEAD,
		  "{\"iss\":\"iss\",\"aud\":[\"x\",\"aud\"],\"tenant\":\"a\",\"exp\":1700000100}",
		  SECRET, true },
		{ HEAD, "{\"iss\":\"iss\",\"aud\":\"aud\",\"exp\":1700000100}", SECRET, false },
		{ HEAD, "{\"iss\":\"iss\",\"aud\":\"aud\",\"tenant\":\"A\",\"exp\":1700000100}",
		  SECRET, false },
	};
	struct trib_jwt *jwt = new_jwt();
	struct trib_operator who;
	const char *detail;
	char token[2048];

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		int rc;

		sign(cases[i].head, cases[i].claims, cases[i].secret, token, sizeof(token));
		rc = trib_jwt_verify(jwt, token, NOW_MS, &who, &detail);
		if (rc != (cases[i].good ? 0 : -EACCES)) {
			fail_msg("case %zu: %d %s", i, rc, detail ? detail : "");
		}
		assert_true((detail == NULL) == cases[i].good);
	}
	sign(HEAD, GOOD, SECRET, token, sizeof(token));
	assert_int_equal(trib_jwt_verify(jwt, token, NOW_MS, &who, &detail), 0);
	assert_string_equal(who.name, "jwt:ann");
	assert_string_equal(who.tenant, "acme");
	assert_int_equal(who.scopes, TRIB_SCOPE_JOBS_WRITE | TRIB_SCOPE_OPS_READ);
	assert_true(who.expires_ms == 1700000100000ull);
	for (char *c = token; *c; c++) { /* each single character matters */
		char was = *c;

		*c = was == 'A' ? 'B' : 'A';
		assert_int_equal(trib_jwt_verify(jwt, token, NOW_MS, &who, &detail), -EACCES);
		*c = '\0';
		assert_int_equal(trib_jwt_verify(jwt, token, NOW_MS, &who, &detail), -EACCES);
		*c = was;
	}
	*(strrchr(token, '.') + 1) = '\0'; /* unsigned */
	assert_int_equal(trib_jwt_verify(jwt, token, NOW_MS, &who, &detail), -EACCES);
	(void)trib_jwt_free(jwt);
}

static void jwt_configs(void **unused)
{
	char path[] = "/tmp/trib-jwt-XXXXXX";
	struct trib_jwt_config config = {
		.algorithm = "HS256", .key_file = path, .issuer = "i", .audience = "a"
	};
	struct trib_jwt *jwt = NULL;
	char reason[160];
	int fd = mkstemp(path);

	(void)unused;
	assert_true(fd >= 0);
	(void)close(fd);
	write_file(path, "short");
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EBADMSG);
	write_file(path, "-----BEGIN PUBLIC KEY-----\n" SECRET "\n");
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EBADMSG);
	write_file(path, SECRET);
	config.algorithm = "RS256"; /* a secret is no public key */
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EBADMSG);
	config.algorithm = "none";
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EINVAL);
	config.algorithm = "HS256";
	config.audience = NULL;
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EINVAL);
	config.audience = "a";
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -EPERM);
	(void)unlink(path);
	assert_int_equal(trib_jwt_new(&config, &jwt, reason), -ENOENT);
}

/* ---- the whole: files that change ---- */

static void access_refresh(void **unused)
{
	char path[] = "/tmp/trib-ops-XXXXXX";
	struct trib_access_config config = { .operators = path };
	struct trib_access *access = NULL;
	char key[TRIB_TOKEN_TEXT_SIZE];
	char hash[TRIB_SHA256_TEXT_SIZE];
	char text[512];
	char head[256];
	struct trib_http_request request;
	struct trib_operator who;
	const char *detail;
	int fd = mkstemp(path);

	(void)unused;
	assert_true(fd >= 0);
	(void)close(fd);
	write_file(path, "[" ONE "]");
	assert_int_equal(trib_access_new(&config, &access), 0);
	assert_false(trib_access_is_open(access));
	assert_false(trib_access_refresh(access));
	assert_int_equal(trib_token_make(TRIB_TOKEN_OPERATOR, key), 0);
	assert_int_equal(trib_sha256(key, strlen(key), hash), 0);
	(void)snprintf(head, sizeof(head),
		       "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", key);
	request = request_of(head);
	assert_int_equal(trib_access_who(access, &request, NOW_MS, &who, &detail), -EACCES);
	(void)snprintf(text, sizeof(text),
		       "[{\"name\":\"bob\",\"tenant\":\"t\",\"scopes\":[\"ops:admin\"],\"sha256\":"
		       "\"%s\"}]",
		       hash);
	write_file(path, text);
	assert_true(trib_access_refresh(access));
	assert_int_equal(trib_access_who(access, &request, NOW_MS, &who, &detail), 0);
	assert_string_equal(who.name, "bob");
	write_file(path, "[broken");
	assert_false(trib_access_refresh(access)); /* the last good one stays */
	assert_int_equal(trib_access_who(access, &request, NOW_MS, &who, &detail), 0);
	write_file(path, "[]");
	assert_true(trib_access_refresh(access));
	assert_int_equal(trib_access_who(access, &request, NOW_MS, &who, &detail), -EACCES);
	(void)trib_access_free(access);
	write_file(path, "[broken");
	assert_int_equal(trib_access_new(&config, &access), -EBADMSG);
	(void)unlink(path);
	assert_int_equal(trib_access_new(&config, &access), -ENOENT);
}

static void access_open(void **unused)
{
	struct trib_access_config config = { .operators = NULL };
	struct trib_access *access = NULL;
	char head[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	struct trib_http_request request = request_of(head);
	struct trib_operator who;
	const char *detail;

	(void)unused;
	assert_int_equal(trib_access_new(&config, &access), 0);
	assert_true(trib_access_is_open(access));
	assert_int_equal(trib_access_who(access, &request, NOW_MS, &who, &detail), 0);
	assert_string_equal(who.tenant, TRIB_TENANT_DEFAULT);
	assert_int_equal(who.scopes, TRIB_SCOPE_ALL);
	(void)trib_access_free(access);
}

/* ---- audit ---- */

static void audit(void **unused)
{
	struct trib_audit record = { .program = "p",
				     .who = "w",
				     .tenant = "t",
				     .method = "PUT",
				     .path = "/a\n\x80 b",
				     .trace = "x",
				     .peer = "",
				     .status = 201 };
	const char *words[TRIB_AUDIT_WORDS];

	(void)unused;
	trib_audit_words(&record, words);
	assert_string_equal(words[0], "XADD");
	assert_string_equal(words[15], "/a?? b");
	assert_string_equal(words[17], "201");
	for (size_t i = 0; i < TRIB_AUDIT_WORDS; i++) {
		assert_non_null(words[i]);
	}
}

static void traces(void **unused)
{
	static const char good[] = "4bf92f3577b34da6a3ce929d0e0e4736";
	static const struct {
		const char *text;
		bool taken;
	} cases[] = {
		{ "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true },
		{ "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false },
		{ "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false },
		{ "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false },
		{ "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", false },
		{ "x", false },
	};

	(void)unused;
	for (size_t i = 0; i < TRIB_COUNT(cases); i++) {
		char head[256];
		char trace[TRIB_TRACE_SIZE];
		struct trib_http_request request;

		(void)snprintf(head, sizeof(head),
			       "GET / HTTP/1.1\r\nHost: x\r\ntraceparent: %s\r\n\r\n",
			       cases[i].text);
		request = request_of(head);
		trib_trace_read(&request, trace);
		assert_int_equal(strlen(trace), 32);
		assert_int_equal(strcmp(trace, good) == 0, cases[i].taken);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys),        cmocka_unit_test(bearers),
		cmocka_unit_test(operators),   cmocka_unit_test(scopes),
		cmocka_unit_test(jwts),        cmocka_unit_test(jwt_configs),
		cmocka_unit_test(access_open), cmocka_unit_test(access_refresh),
		cmocka_unit_test(audit),       cmocka_unit_test(traces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
