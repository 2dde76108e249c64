/* SPDX-License-Identifier: Apache-2.0
 * The only door to jansson. Programs may use json_t through this header; parsing of foreign text
 * goes through trib_json_parse, which refuses duplicates, trailing bytes and more than 1 MiB.
 */
#ifndef TRIB_COMMON_JSON_H
#define TRIB_COMMON_JSON_H

#include <jansson.h>

#include "common/base.h"

/* 0 or -EBADMSG with a reason in reason[160]. Caller json_decref's. */
TRIB_MUST_CHECK int trib_json_parse(const char *text, size_t size, json_t **ret_json,
				    char reason[160]);
/* The same of any value: a text or a number alone, too. */
TRIB_MUST_CHECK int trib_json_value(const char *text, size_t size, json_t **ret_json,
				    char reason[160]);
/* Compact text, caller trib_free's; NULL when out of memory. */
char *trib_json_print(const json_t *json);
/* Member access by path "spec.sync.goal"; NULL when absent. Borrowed. */
json_t *trib_json_at(const json_t *json, const char *path);
const char *trib_json_text(const json_t *json, const char *path, const char *otherwise);
long long trib_json_integer(const json_t *json, const char *path, long long otherwise);
double trib_json_number(const json_t *json, const char *path, double otherwise);

#endif
