/* SPDX-License-Identifier: Apache-2.0
 * The only door to libcurl: blocking requests and one event stream, for the command line and for
 * threads of their own in the programs (never on a loop). Any thread may call; trust is set before
 * the first. Redirects (the orchestrator sends data-plane paths to a gateway) are followed; to
 * another host than the request's only those of a GET, and without its token, unless
 * trib_client_hosts named it. Streams follow none.
 */
#ifndef TRIB_COMMON_HTTP_CLIENT_H
#define TRIB_COMMON_HTTP_CLIENT_H

#include <stdio.h>

#include "common/base.h"

struct trib_client_request {
	const char *method; /* "GET", "POST", "PATCH", "DELETE" */
	const char *url;
	const char *body; /* NULL = none */
	size_t size;
	const char *headers[4]; /* "Name: value", ended by NULL */
	const char *token;      /* bearer, NULL = none */
	FILE *file; /* NULL, or where the body of a 200 goes instead of the answer's memory */
	/* NULL, or what takes the body of a 200 piece by piece; false ends the transfer. */
	bool (*on_data)(const char *data, size_t size, void *arg);
	bool (*on_tick)(void *arg); /* NULL, or asked about once a second; true ends the transfer */
	void *arg;
	bool no_redirect;   /* a redirect is the answer */
	long timeout_ms;    /* of the whole; 0 = 120 s (with file or on_data: 60 s of silence) */
	const char *cacert; /* PEM file; NULL = what trib_client_trust said */
	const char *unix_socket; /* path to connect to instead of the URL's host, or NULL */
};

struct trib_client_answer {
	long status;
	char *body; /* terminated, never NULL after success; owned */
	size_t size;
	uint64_t saved;      /* bytes written to `file` */
	char location[1024]; /* of the last head, "" = none */
	char error[256];     /* why there is no answer */
};

/* PEM files for https from now on, borrowed; NULL: the system's trust, no certificate of our own.
 */
void trib_client_trust(const char *cacert, const char *cert, const char *key);

/* Hosts that a token may be sent on to besides the one it was given for: names or addresses as in
 * URLs, with commas between; borrowed, NULL: none. Before the first request. */
void trib_client_hosts(const char *hosts);
/* Whether what was meant for the host of `from` (the token, the body) may be sent to `to`: the same
 * host, whatever its port, or one of trib_client_hosts; never from https to http. */
bool trib_client_may_follow(const char *from, const char *to);

/* 0, or -EHOSTUNREACH with answer->error. trib_client_answer_fini is to be called either way. */
TRIB_MUST_CHECK int trib_client_request(const struct trib_client_request *request,
					struct trib_client_answer *answer);
void trib_client_answer_fini(struct trib_client_answer *answer);

struct trib_client_stream {
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
TRIB_MUST_CHECK int trib_client_stream(const struct trib_client_stream *stream,
				       struct trib_client_answer *answer);

#endif
