/* SPDX-License-Identifier: Apache-2.0
 * Inside of common/httpd.h, shared by httpd.c (listening, limits, timeouts), httpd_conn.c (heads,
 * bodies, life of a connection), httpd_io.c (plain or TLS) and httpd_reply.c (what is sent). Not
 * for anybody else.
 *
 * Rules that keep re-entrance away:
 *  - the functions handlers call (want_*, reply*, stream*) never call a handler back and never free
 *    anything: they note what is wanted, send what the socket takes at once and, when the
 *    connection is not the one being served (`busy`), put it on the httpd's turn list;
 *  - only httpd_conn_advance, the last step of every turn of a connection, ends exchanges, calls
 *    on_gone / done and frees.
 *
 * States:  [HANDSHAKE ->] IDLE -first byte-> HEAD -parsed or refused-> ACTIVE -reply sent-> IDLE
 *                                                                        `-> LINGER (half-closed,
 * draining) -> freed
 */
#ifndef TRIB_COMMON_HTTPD_INTERNAL_H
#define TRIB_COMMON_HTTPD_INTERNAL_H

#include <errno.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/httpd.h"

#define HTTPD_TURN_BYTES       (1u << 20) /* sent, or received by TLS, per connection and turn */
#define HTTPD_LINGER_BYTES     (64u << 20)
#define HTTPD_LINGER_MS        5000
#define HTTPD_TICK_MS          250
#define HTTPD_ACCEPTS_MAX      64 /* per turn */
#define HTTPD_ACCEPT_PAUSE_MS  100
#define HTTPD_REFUSED_MAX      64 /* refused newcomers lingering at a time */
#define HTTPD_VECTORS_MAX      16
#define HTTPD_HEADERS_MAX      4096
#define HTTPD_STREAM_QUEUE_MAX (1u << 20)
#define HTTPD_HEAD_FIRST       1024 /* head buffer starts so small and doubles */
#define HTTPD_SCRATCH_SIZE     65536
#define HTTPD_DEAF_CHECKS      128 /* per tick */

enum httpd_state {
	HTTPD_IDLE,
	HTTPD_HEAD,
	HTTPD_ACTIVE,
	HTTPD_LINGER,
	HTTPD_HANDSHAKE
};

/* Every connection is on exactly one class list. All members of a class wait equally long, so a
 * list is ordered by deadline and the one coarse timer looks at its front only. */
enum httpd_class {
	HTTPD_CLASS_IDLE,
	HTTPD_CLASS_HEAD,
	HTTPD_CLASS_BODY, /* deadline = end of the window in which `window` bytes came */
	HTTPD_CLASS_SEND, /* the same for bytes going out */
	HTTPD_CLASS_LINGER,
	HTTPD_CLASS_THINK, /* the handler's time: no limit here */
	HTTPD_CLASS_DEAF,  /* the same, without read interest: polled for hang-up by the tick */
	HTTPD_CLASS_COUNT,
};

TAILQ_HEAD(httpd_conns, httpd_conn);

struct httpd_conn { /* all that an idle connection costs, with its trib_io */
	struct trib_httpd *httpd;
	struct trib_io *io;
	struct trib_tls_session *tls; /* NULL: plain, and in LINGER */
	TAILQ_ENTRY(httpd_conn) in_class;
	TAILQ_ENTRY(httpd_conn) in_turn;
	struct trib_exchange *x; /* ACTIVE only */
	char *head;              /* HEAD and ACTIVE only */
	uint64_t deadline_ms;
	uint64_t window; /* bytes moved since the class was entered; drained bytes in LINGER */
	int fd;
	uint16_t head_size;
	uint16_t head_room;
	uint8_t state;
	uint8_t class;
	uint8_t interest;
	bool busy;      /* being served further up the stack */
	bool dead;      /* close and free at the next advance */
	bool scheduled; /* on the turn list */
	bool pending;   /* unread bytes seen while nobody wants them: no read interest */
	bool refused;   /* newcomer over conns_max */
};

struct trib_exchange {
	struct httpd_conn *conn;
	struct trib_http_request request;
	void *data;
	void (*on_gone)(void *data);
	char peer[64];

	/* body in */
	bool asked;
	bool body_over; /* complete per its framing */
	bool stopped;   /* the sink refused: nothing more is read */
	bool too_large;
	bool in_chunk; /* chunks.left data bytes are next (while a size is read, left counts up) */
	struct trib_http_chunks chunks;
	uint64_t body_left; /* with Content-Length */
	const struct trib_http_sink *sink;
	struct iovec vectors[HTTPD_VECTORS_MAX]; /* given by the sink, until bytes landed */
	int vector_count;
	void (*on_body)(struct trib_exchange *x, const char *body, size_t size);
	char *buffer; /* of want_buffer; one byte more than buffer_room for the NUL */
	size_t buffer_size;
	size_t buffer_room;
	uint64_t buffer_max;

	/* reply out */
	bool replied; /* a head was given */
	bool ended;   /* and all of the content */
	bool streaming;
	bool close;
	bool resolved; /* on_gone will not be called any more */
	char *headers; /* lines of trib_http_header */
	size_t headers_size;
	char *out; /* bytes the socket did not take yet: out[out_at..out_size) */
	size_t out_at;
	size_t out_size;
	size_t out_room;
	const char *memory; /* sent after `out` */
	uint64_t memory_left;
	void (*done)(void *data);
	void *done_data;
};

struct trib_httpd {
	struct trib_loop *loop;
	struct trib_httpd_limits limits;
	struct trib_httpd_handler handler;
	struct trib_httpd_stats stats;
	struct trib_tls *tls; /* borrowed; NULL: plain */
	int listen_fd;
	struct trib_io *listen_io;
	struct trib_timer *tick;
	struct trib_timer *turn;
	struct trib_timer *accept_again;
	struct httpd_conns classes[HTTPD_CLASS_COUNT];
	struct httpd_conns turns;
	size_t turn_count;
	bool turn_armed;
	bool freed;     /* by a handler while depth > 0 */
	unsigned depth; /* callbacks of ours on the stack */
	uint64_t tick_due_ms;
	bool ticking; /* while there are connections */
	uint32_t refused_open;
	uint64_t date_second;
	char date[32];
	char busy_reply[1024]; /* the canned 503 */
	size_t busy_reply_size;
	char scratch[HTTPD_SCRATCH_SIZE]; /* drained bytes nobody looks at */
};

/* httpd.c */
void httpd_enter(struct trib_httpd *httpd);
void httpd_leave(struct trib_httpd *httpd); /* may free httpd */
const char *httpd_date(struct trib_httpd *httpd);
void httpd_tick_start(struct trib_httpd *httpd); /* there is a connection */

/* httpd_conn.c */
TRIB_MUST_CHECK int httpd_conn_new(struct trib_httpd *httpd, int fd /* owned on success */,
				   bool refused);
void httpd_conn_advance(struct httpd_conn *conn); /* may free conn */
void httpd_conn_serve(struct httpd_conn *conn);   /* a turn without readiness; may free conn */
void httpd_conn_expired(struct httpd_conn *conn, uint64_t now_ms); /* may free conn */
void httpd_conn_destroy(struct httpd_conn *conn);
/* Someone else's callback changed conn: serve it soon. No-op when it is busy. */
void httpd_conn_schedule(struct httpd_conn *conn);
static inline bool httpd_conn_sending(const struct httpd_conn *conn)
{
	const struct trib_exchange *x = conn->x;

	return x && (x->out_at < x->out_size || x->memory_left);
}

static inline bool httpd_body_reading(const struct trib_exchange *x)
{
	return x->asked && !x->stopped && !x->replied;
}
/* Answered, and the rest of its body is still to be thrown away (httpd_reply.c decides). */
static inline bool httpd_discarding(const struct trib_exchange *x)
{
	return x->ended && !x->body_over && !x->close;
}
/* A limit or the client ended the request: broken, on_gone, then a problem and close. */
void httpd_abort(struct trib_exchange *x, enum trib_problem code);

/* httpd_io.c: recv and sendmsg of a connection, plain or TLS. The plain way is here, inline. */
ssize_t httpd_tls_peek(struct httpd_conn *conn, void *room, size_t size);
ssize_t httpd_tls_receive(struct httpd_conn *conn, const struct iovec *vectors, int count);
void httpd_handshake(struct httpd_conn *conn);
void httpd_finish(struct httpd_conn *conn); /* end of what we send: then LINGER */

static inline ssize_t httpd_peek(struct httpd_conn *conn, void *room, size_t size)
{
	if (conn->tls) {
		return httpd_tls_peek(conn, room, size);
	}
	return recv(conn->fd, room, size, MSG_PEEK | MSG_DONTWAIT);
}

/* What was peeked: all of it, or the connection is broken. */
static inline bool httpd_take(struct httpd_conn *conn, void *room, size_t size)
{
	const struct iovec vector = { room, size };

	if (conn->tls) {
		return httpd_tls_receive(conn, &vector, 1) == (ssize_t)size;
	}
	return recv(conn->fd, room, size, MSG_DONTWAIT) == (ssize_t)size;
}

static inline ssize_t httpd_receive(struct httpd_conn *conn, struct iovec *vectors, int count)
{
	const struct msghdr message = { .msg_iov = vectors, .msg_iovlen = (size_t)count };

	if (conn->tls) {
		return httpd_tls_receive(conn, vectors, count);
	}
	if (count == 1) { /* the usual case: one run; its target shows in strace */
		return recv(conn->fd, vectors[0].iov_base, vectors[0].iov_len, MSG_DONTWAIT);
	}
	return recvmsg(conn->fd, (struct msghdr *)&message, MSG_DONTWAIT);
}

static inline ssize_t httpd_send(struct httpd_conn *conn, struct iovec *vectors, int count)
{
	const struct msghdr message = { .msg_iov = vectors, .msg_iovlen = (size_t)count };

	if (conn->tls) {
		return trib_tls_write(conn->tls, vectors, count);
	}
	return sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* httpd_reply.c */
void httpd_out(struct trib_exchange *x, const void *bytes, size_t size);
void httpd_flush(struct trib_exchange *x); /* one turn's worth of what waits */
/* A problem as our own reply; unlike trib_http_problem it does not schedule. */
void httpd_problem(struct trib_exchange *x, enum trib_problem code, const char *detail);
struct trib_exchange *httpd_exchange_free(struct trib_exchange *x); /* memory only */

#endif
