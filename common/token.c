/* SPDX-License-Identifier: Apache-2.0 */
#include "common/token.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define KEY_SIZE    32
#define PREFIX_SIZE 4
#define BEARER      "bearer"

int trib_token_make(const char *prefix, char out[TRIB_TOKEN_TEXT_SIZE])
{
	uint8_t key[KEY_SIZE];
	int rc = trib_random(key, sizeof(key));

	if (rc == 0) {
		rc = trib_copy(out, PREFIX_SIZE + 1, prefix);
	}
	if (rc == 0) {
		rc = trib_base64url_encode(key, sizeof(key), out + PREFIX_SIZE,
					   TRIB_TOKEN_TEXT_SIZE - PREFIX_SIZE);
	}
	explicit_bzero(key, sizeof(key));
	return rc < 0 ? rc : 0;
}

bool trib_token_valid(const char *prefix, const char *text)
{
	uint8_t key[KEY_SIZE];
	bool good = strnlen(text, TRIB_TOKEN_TEXT_SIZE) == TRIB_TOKEN_TEXT_SIZE - 1 &&
		    strncmp(text, prefix, PREFIX_SIZE) == 0 &&
		    trib_base64url_decode(text + PREFIX_SIZE, key, sizeof(key)) == KEY_SIZE;

	explicit_bzero(key, sizeof(key));
	return good;
}

bool trib_sha256_text_valid(const char *text)
{
	return strnlen(text, TRIB_SHA256_TEXT_SIZE) == TRIB_SHA256_TEXT_SIZE - 1 &&
	       strspn(text, "0123456789abcdef") == TRIB_SHA256_TEXT_SIZE - 1;
}

int trib_bearer_read(const struct trib_http_request *request, const char **ret_token)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789-._~+/=";
	const char *value = NULL;
	size_t size;

	for (uint32_t i = 0; i < request->field_count; i++) {
		if (strcmp(request->fields[i].name, "authorization") != 0) {
			continue;
		}
		if (value) {
			return -EBADMSG; /* two of them: whose word counts? */
		}
		value = request->fields[i].value;
	}
	if (!value) {
		return -ENOENT;
	}
	if (strncasecmp(value, BEARER " ", sizeof(BEARER)) != 0) {
		return -EBADMSG;
	}
	value += sizeof(BEARER);
	value += strspn(value, " ");
	size = strlen(value);
	if (size == 0 || size > TRIB_BEARER_MAX || strspn(value, allowed) != size) {
		return -EBADMSG;
	}
	*ret_token = value;
	return 0;
}
