/* SPDX-License-Identifier: Apache-2.0
 * Values: redisReply under another name.
 */
#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#include "common/redis.h"

static const redisReply nil_reply = { .type = REDIS_REPLY_NIL };

static const redisReply *reply_of(const struct trib_value *value)
{
	return value ? (const redisReply *)value : &nil_reply;
}

static const struct trib_value *value_of(const redisReply *reply)
{
	return (const struct trib_value *)reply;
}

enum trib_value_type trib_value_type(const struct trib_value *value)
{
	switch (reply_of(value)->type) {
	case REDIS_REPLY_INTEGER:
		return TRIB_VALUE_INTEGER;
	case REDIS_REPLY_STRING:
	case REDIS_REPLY_STATUS:
		return TRIB_VALUE_TEXT;
	case REDIS_REPLY_ARRAY:
		return TRIB_VALUE_ARRAY;
	case REDIS_REPLY_ERROR:
		return TRIB_VALUE_ERROR;
	default:
		return TRIB_VALUE_NIL;
	}
}

long long trib_value_integer(const struct trib_value *value)
{
	const redisReply *reply = reply_of(value);
	long long number;
	char *end;

	if (reply->type == REDIS_REPLY_INTEGER) {
		return reply->integer;
	}
	if (trib_value_type(value) != TRIB_VALUE_TEXT || reply->len == 0 ||
	    (reply->str[0] != '-' && (reply->str[0] < '0' || reply->str[0] > '9')) ||
	    (reply->str[0] == '-' && (reply->str[1] < '0' || reply->str[1] > '9'))) {
		return 0;
	}
	errno = 0;
	number = strtoll(reply->str, &end, 10);
	return errno || end != reply->str + reply->len ? 0 : number;
}

static bool has_text(const struct trib_value *value)
{
	enum trib_value_type type = trib_value_type(value);

	return type == TRIB_VALUE_TEXT || type == TRIB_VALUE_ERROR;
}

const char *trib_value_text(const struct trib_value *value)
{
	return has_text(value) ? reply_of(value)->str : "";
}

size_t trib_value_size(const struct trib_value *value)
{
	return has_text(value) ? reply_of(value)->len : 0;
}

size_t trib_value_count(const struct trib_value *value)
{
	return trib_value_type(value) == TRIB_VALUE_ARRAY ? reply_of(value)->elements : 0;
}

const struct trib_value *trib_value_at(const struct trib_value *value, size_t index)
{
	return value_of(index < trib_value_count(value) ? reply_of(value)->element[index]
							: &nil_reply);
}

const char *trib_value_field(const struct trib_value *value, const char *key, const char *otherwise)
{
	size_t count = trib_value_count(value);
	size_t size = strlen(key);

	for (size_t i = 0; i + 1 < count; i += 2) {
		const struct trib_value *name = trib_value_at(value, i);
		const struct trib_value *text = trib_value_at(value, i + 1);

		if (trib_value_type(name) == TRIB_VALUE_TEXT && trib_value_size(name) == size &&
		    memcmp(trib_value_text(name), key, size) == 0) {
			return trib_value_type(text) == TRIB_VALUE_TEXT ? trib_value_text(text)
									: otherwise;
		}
	}
	return otherwise;
}
