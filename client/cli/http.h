/* SPDX-License-Identifier: Apache-2.0
 * The only door to libcurl: blocking requests for the command line, and one event stream.
 * Single thread. Redirects (the orchestrator sends data-plane paths to a gateway) are followed.
 */
#ifndef TRIB_CLIENT_CLI_HTTP_H
#define TRIB_CLIENT_CLI_HTTP_H

#include <stdio.h>

#include "common/base.h"

struct cli_request {
	const char *method; /* "GET", "POST", "DELETE" */
	const char *url;
	const char *body; /* NULL = none */
	size_t size;
	const char *headers[4]; /* "Name: value", ended by NULL */
	const char *token;      /* bearer, NULL = none */
	FILE *file; /* NULL, or where the body of a 200 goes instead of the answer's memory */
};

struct cli_answer {
	long status;
	char *body; /* terminated, never NULL after success; owned */
	size_t size;
	uint64_t saved;  /* bytes written to `file` */
	char error[256]; /* why there is no answer */
};

/* PEM files for https from now on, borrowed; NULL: the system's trust, no certificate of our own.
 */
void cli_http_trust(const char *cacert, const char *cert, const char *key);

/* 0, or -EHOSTUNREACH with answer->error. cli_answer_fini is to be called either way. */
TRIB_MUST_CHECK int cli_http(const struct cli_request *request, struct cli_answer *answer);
void cli_answer_fini(struct cli_answer *answer);

struct cli_stream {
	const char *url;
	const char *token;   /* bearer, NULL = none */
	const char *last_id; /* Last-Event-ID, or NULL */
	/* One event, terminated strings, borrowed. */
	void (*on_event)(const char *id, const char *type, const char *data, void *arg);
	/* Several times a second; true ends the stream. */
	bool (*on_tick)(void *arg);
	void *arg;
};
/* Until on_tick says so (0), the server ends it or is lost (-EHOSTUNREACH; error text), or it
 * answers something else than 200 (-EBADMSG, answer->status and ->body). */
TRIB_MUST_CHECK int cli_http_stream(const struct cli_stream *stream, struct cli_answer *answer);

#endif
