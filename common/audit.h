/* SPDX-License-Identifier: Apache-2.0
 * The audit record of one write: who did what, how it ended. Kept in Redis (stream trib:audit,
 * the last AUDIT_KEEP or a little more). Pure but for getrandom; any thread.
 */
#ifndef TRIB_COMMON_AUDIT_H
#define TRIB_COMMON_AUDIT_H

#include "common/http.h"

#define TRIB_AUDIT_KEY       "trib:audit"
#define TRIB_AUDIT_KEEP      "100000"
#define TRIB_AUDIT_WORDS     22
#define TRIB_AUDIT_PATH_SIZE 256
#define TRIB_TRACE_SIZE      33

struct trib_audit {
	const char *program;
	const char *who;
	const char *tenant;
	const char *method;
	const char *path;
	const char *trace;
	const char *peer;
	int status; /* 0: the client went away before the answer */
	/* room for what is made of it */
	char path_text[TRIB_AUDIT_PATH_SIZE];
	char status_text[16];
};

/* The command that writes it down: XADD ..; the words borrow from `audit`. */
void trib_audit_words(struct trib_audit *audit, const char *words[TRIB_AUDIT_WORDS]);
/* The trace id of `traceparent` (W3C), or a fresh one. */
void trib_trace_read(const struct trib_http_request *request, char out[TRIB_TRACE_SIZE]);

#endif
