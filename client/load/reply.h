/* SPDX-License-Identifier: Apache-2.0
 * Reads what a service answers, as far as a load generator needs it: HTTP/1.1 heads and single
 * members of JSON bodies, without building a tree (ten thousand answers a second cost something).
 * Pure.
 */
#ifndef TRIB_CLIENT_LOAD_REPLY_H
#define TRIB_CLIENT_LOAD_REPLY_H

#include "common/base.h"

#define LOAD_REPLY_HEAD_MAX 16384

struct load_reply_head {
	uint32_t head_size; /* not set by load_reply_head_read */
	unsigned status;
	uint64_t length;
	double retry_after; /* seconds, -1: not told */
	bool close;
};

/* head[0..size) ends with CRLFCRLF. Content-Length only: the services here never answer these
 * requests otherwise. 0 or -EBADMSG. */
TRIB_MUST_CHECK int load_reply_head_read(const char *head, size_t size,
					 struct load_reply_head *reply);

/* The text of the first member called `name` at any depth, unescaped only for \" and \\ . 0,
 * -ENOENT or -ENAMETOOLONG. json is terminated. */
TRIB_MUST_CHECK int load_json_text(const char *json, const char *name, char *out, size_t size);
/* The same for a number; `otherwise` when there is none. */
double load_json_number(const char *json, const char *name, double otherwise);

#endif
