/* SPDX-License-Identifier: Apache-2.0
 * Identifiers: UUIDv7 bits (48 bits of ms, 74 random), printed as prefix + 26 Crockford base-32
 * digits in lower case: "job_01jd..". They sort by time.
 */
#ifndef TRIB_COMMON_ID_H
#define TRIB_COMMON_ID_H

#include "common/base.h"

#define TRIB_ID_TEXT_SIZE 32 /* prefix of up to 4 + 26 + NUL, rounded */

struct trib_id {
	uint8_t bytes[16];
};

struct trib_id trib_id_make(void);
void trib_id_print(const char *prefix, const struct trib_id *id, char out[TRIB_ID_TEXT_SIZE]);
/* Exact prefix, 26 digits, canonical (lower case, no overflow): 0 or -EINVAL. */
TRIB_MUST_CHECK int trib_id_parse(const char *prefix, const char *text, struct trib_id *ret_id);
/* 1..64 of [A-Za-z0-9._:-], not starting with '.' or '-'. */
bool trib_client_id_valid(const char *text);
/* 1..63 of [a-z0-9-], starts and ends with [a-z0-9] (DNS label, as Kubernetes wants). */
bool trib_name_valid(const char *text);

#endif
