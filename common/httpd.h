/* SPDX-License-Identifier: Apache-2.0
 * HTTP/1.1 server on a trib_loop. One object serves one listening socket on one loop; several
 * loops (threads) may each have an httpd on the same listening fd.
 *
 * Life of a request: head read and parsed -> on_request. Inside on_request, or later from any
 * callback of the same loop, the handler either
 *   - replies at once (trib_http_reply*), body bytes not yet read are then drained (at most 64 MiB
 *     / 5 s, "lingering close": half-close first) and the connection closed; or, if there is no
 *     body, the connection goes on;
 *   - asks for the body: trib_http_want_buffer (collected, then on_body) or trib_http_want_sink
 *     (received straight to where the sink says: no copy in user space), then replies.
 * Until the handler asks for the body, the socket is not read (a client waiting for 100 Continue
 * gets it when the body is asked for). A handler may take its time: the exchange stays valid until
 * the reply is finished or on_gone was called.
 *
 * Payload is never read into a bounce buffer: heads are peeked (MSG_PEEK) and consumed exactly.
 *
 * Limits and what happens: head > 16 KiB 431; head not complete in head_timeout_ms 408; idle keep-
 * alive idle_timeout_ms closed silently; body slower than body_rate_min bytes/s averaged over
 * body_grace_ms 408 "too-slow"; more than conns_max connections: the newcomer gets 503 and close.
 * An idle connection costs < 512 bytes (its head buffer comes with its first byte).
 *
 * With trib_httpd_tls connections speak TLS: the handshake must be over within head_timeout_ms,
 * SSL_read gets the sink's own vectors, and the end is told by close_notify.
 */
#ifndef TRIB_COMMON_HTTPD_H
#define TRIB_COMMON_HTTPD_H

#include <sys/uio.h>

#include "common/http.h"
#include "common/loop.h"
#include "common/problem.h"
#include "common/tls.h"

struct trib_httpd;
struct trib_exchange; /* one request and its reply */

struct trib_httpd_limits {
	uint32_t conns_max;       /* 16000 */
	uint32_t *conns_together; /* atomic: servers on other loops that share conns_max count here;
				   * NULL: this one alone */
	uint32_t conns_own;       /* with so many of its own it leaves newcomers to those others (or
				   * in the backlog); 0: no such bound */
	uint32_t head_timeout_ms; /* 10000 */
	uint32_t idle_timeout_ms; /* 15000 (keep-alive and before the first byte) */
	uint32_t body_rate_min;   /* bytes per second, 32768; 0 = no limit */
	uint32_t body_grace_ms;   /* 10000 */
	uint64_t buffer_max;      /* for trib_http_want_buffer: 1 MiB */
};
extern const struct trib_httpd_limits trib_httpd_limits_default;

struct trib_httpd_stats { /* plain counters, loop thread only */
	uint64_t connections;
	uint64_t connections_open;
	uint64_t connections_refused;
	uint64_t accept_pauses; /* newcomers left alone for 100 ms: conns_own, or no descriptor */
	uint64_t requests;
	uint64_t replies_by_class[6]; /* [2] = 2xx */
	uint64_t head_errors;
	uint64_t timeouts;
	uint64_t too_slow;
	uint64_t bytes_in_sink;   /* body bytes received straight into sinks */
	uint64_t bytes_in_buffer; /* body bytes collected in buffers */
	uint64_t bytes_copied;    /* body bytes moved by memcpy in user space: must stay 0 */
	uint64_t bytes_out;
	uint64_t tls_handshakes;
	uint64_t tls_refused; /* handshakes that failed; those not finished in time are timeouts */
	uint64_t tls_errors;  /* connections ended by what is no valid record */
};

struct trib_httpd_handler {
	/* request is borrowed until the exchange ends. */
	void (*on_request)(struct trib_exchange *x, const struct trib_http_request *request,
			   void *arg);
	void *arg;
};

TRIB_MUST_CHECK int trib_httpd_new(struct trib_loop *loop, int listen_fd /* borrowed */,
				   const struct trib_httpd_limits *limits,
				   const struct trib_httpd_handler *handler,
				   struct trib_httpd **ret_httpd);
struct trib_httpd *trib_httpd_free(struct trib_httpd *httpd);
/* Connections to come speak TLS; tls is borrowed for the httpd's life, NULL is allowed and changes
 * nothing. Unix sockets stay plain. */
void trib_httpd_tls(struct trib_httpd *httpd, struct trib_tls *tls);
const struct trib_httpd_stats *trib_httpd_stats(const struct trib_httpd *httpd);

/* "127.0.0.1:8081", "[::1]:0", "unix:/path": non-blocking listening socket (SO_REUSEADDR, backlog
 * 4096), or "fd:7" for an inherited one. 0 or -errno. */
TRIB_MUST_CHECK int trib_listen(const char *address, int *ret_fd);
/* Is it such an address at all? Opens nothing, looks nothing up. 0, -EINVAL, -ENAMETOOLONG. */
TRIB_MUST_CHECK int trib_listen_check(const char *address);
/* Port of a bound TCP socket, 0 if none. */
unsigned trib_listen_port(int fd);

/* The handler's own data on an exchange. on_gone: the client went away, or a limit ended the
 * request, before the reply was complete; the exchange must not be touched after it returns. */
void trib_exchange_attach(struct trib_exchange *x, void *data, void (*on_gone)(void *data));
void *trib_exchange_data(const struct trib_exchange *x);
const struct trib_http_request *trib_exchange_request(const struct trib_exchange *x);
/* Peer address as text, "" for unix sockets. */
const char *trib_exchange_peer(const struct trib_exchange *x);
/* Of the client's certificate; NULL when none was asked for (plain, or TLS without client CA). */
const struct trib_tls_identity *trib_exchange_identity(const struct trib_exchange *x);
/* May this connection speak for client_id? Without client certificates everybody may; with them the
 * SAN URI must be tributary:client/<client_id>. */
bool trib_exchange_speaks_for(const struct trib_exchange *x, const char *client_id);

/* ---- body ---- */
/* Collects up to min(max, buffer_max) bytes (else 413 by itself), then on_body once; body is
 * terminated by NUL beyond size, borrowed until the exchange ends. A request without a body calls
 * on_body with size 0. Called at most once per exchange. */
void trib_http_want_buffer(struct trib_exchange *x, uint64_t max,
			   void (*on_body)(struct trib_exchange *x, const char *body, size_t size));

/* Received per connection and turn at most (TLS: less). The more a call takes, the fewer
 * acknowledgements, and with them the senders' work, are done in its time (docs/performance.md). */
#define TRIB_HTTP_TURN_BYTES (4u << 20)

struct trib_http_sink {
	/* Where the next body bytes go: fills vectors[0..max) in order, returns how many (> 0), or
	 * -errno to stop reading (the handler must have replied or must reply). Called again after
	 * every receive. Memory must stay valid until the next call / the end of the exchange. */
	int (*next)(struct trib_exchange *x, struct iovec *vectors, int max);
	/* `size` bytes have landed in the vectors given last. 0, or -errno: stop (as above). */
	int (*landed)(struct trib_exchange *x, size_t size);
	/* Body complete per its framing. */
	void (*complete)(struct trib_exchange *x);
	/* Framing broken (bad chunk) or the client closed early; the connection is closed, on_gone
	 * follows. May be NULL. `code` tells which problem was answered, if one could be. */
	void (*broken)(struct trib_exchange *x, enum trib_problem code);
};
/* Sink is borrowed for the exchange's life. At most 1 MiB is received per turn of the loop. */
void trib_http_want_sink(struct trib_exchange *x, const struct trib_http_sink *sink);

/* ---- reply ---- */
/* Extra header lines for the reply to come ("Name", "value"); bounded 4 KiB in all, -ENOBUFS. */
TRIB_MUST_CHECK int trib_http_header(struct trib_exchange *x, const char *name, const char *value);
/* Content-Type may be NULL when size is 0. Body is copied. HEAD requests get the length only. */
void trib_http_reply(struct trib_exchange *x, int status, const char *type, const void *body,
		     size_t size);
/* RFC 9457. `detail` may be NULL. Adds Retry-After when the problem's status is 429 or 503
 * (retry_after_ms, rounded up to a second; the exact value as member retry_after). */
void trib_http_problem(struct trib_exchange *x, enum trib_problem code, const char *detail,
		       uint64_t retry_after_ms);
/* The same with a JSON text (an array) as member "errors". */
void trib_http_problem_errors(struct trib_exchange *x, enum trib_problem code, const char *detail,
			      const char *errors_json);
/* Body sent from memory that is not copied; done(data) when it is no longer needed (also on
 * failure). Status 200, 206 ... ; caller sets ETag, Content-Range by trib_http_header. */
void trib_http_reply_memory(struct trib_exchange *x, int status, const char *type,
			    const void *memory, uint64_t size, void (*done)(void *data),
			    void *data);
/* Before a reply: the connection ends with it. */
void trib_http_last(struct trib_exchange *x);
/* Streaming (SSE): head now (no length; Connection: close), pieces later. Piece refused with
 * -ENOBUFS once more than 1 MiB waits to be sent (a slow reader): end it then. */
void trib_http_stream(struct trib_exchange *x, const char *type);
TRIB_MUST_CHECK int trib_http_stream_write(struct trib_exchange *x, const void *data, size_t size);
void trib_http_stream_end(struct trib_exchange *x);

#endif
