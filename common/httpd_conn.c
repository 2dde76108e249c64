/* SPDX-License-Identifier: Apache-2.0 */
#include "common/httpd_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define FRAMING_PEEK 32
#define FRAMING_COST 16384 /* of the turn's bytes: bounds the rounds of tiny chunks */
#define BUFFER_FIRST 16384 /* of a chunked body collected in memory */

/* ---- lists ---- */

static void set_class(struct httpd_conn *conn, enum httpd_class class, bool restart)
{
	struct trib_httpd *httpd = conn->httpd;
	const uint32_t wait_ms[HTTPD_CLASS_COUNT] = {
		[HTTPD_CLASS_IDLE] = httpd->limits.idle_timeout_ms,
		[HTTPD_CLASS_HEAD] = httpd->limits.head_timeout_ms,
		[HTTPD_CLASS_BODY] = httpd->limits.body_grace_ms,
		[HTTPD_CLASS_SEND] = httpd->limits.body_grace_ms,
		[HTTPD_CLASS_LINGER] = HTTPD_LINGER_MS,
	};

	if (conn->class == class && !restart) {
		return;
	}
	TAILQ_REMOVE(&httpd->classes[conn->class], conn, in_class);
	TAILQ_INSERT_TAIL(&httpd->classes[class], conn, in_class);
	conn->class = (uint8_t) class;
	conn->deadline_ms = trib_clock_ms() + wait_ms[class] + 1; /* + 1: a limit of 0 ends too */
	conn->window = 0;
}

static void unschedule(struct httpd_conn *conn)
{
	if (conn->scheduled) {
		TAILQ_REMOVE(&conn->httpd->turns, conn, in_turn);
		conn->httpd->turn_count--;
		conn->scheduled = false;
	}
}

void httpd_conn_schedule(struct httpd_conn *conn)
{
	struct trib_httpd *httpd = conn->httpd;

	if (conn->busy || httpd->freed) {
		return;
	}
	if (!conn->scheduled) {
		TAILQ_INSERT_TAIL(&httpd->turns, conn, in_turn);
		httpd->turn_count++;
		conn->scheduled = true;
	}
	if (!httpd->turn_armed) {
		httpd->turn_armed = true;
		trib_timer_after(httpd->turn, 0);
	}
}

/* ---- ends ---- */

static void resolve_gone(struct trib_exchange *x)
{
	void (*on_gone)(void *data) = x->on_gone;

	x->on_gone = NULL;
	if (on_gone && !x->resolved) {
		x->resolved = true;
		on_gone(x->data);
	}
	x->resolved = true;
}

/* Lets go of memory, exchange and head: the exchange has ended, one way or the other. */
static void drop_exchange(struct httpd_conn *conn)
{
	struct trib_exchange *x = conn->x;
	void (*done)(void *data) = x ? x->done : NULL;
	void *done_data = x ? x->done_data : NULL;

	conn->x = httpd_exchange_free(x);
	trib_free(conn->head);
	conn->head = NULL;
	conn->head_size = 0;
	conn->head_room = 0;
	if (done) {
		done(done_data);
	}
}

void httpd_conn_destroy(struct httpd_conn *conn)
{
	struct trib_httpd *httpd = conn->httpd;

	unschedule(conn);
	TAILQ_REMOVE(&httpd->classes[conn->class], conn, in_class);
	conn->busy = true; /* what callbacks still do with it schedules nothing */
	conn->dead = true;
	conn->io = trib_io_free(conn->io);
	if (conn->x && !conn->x->ended) {
		resolve_gone(conn->x);
	}
	drop_exchange(conn);
	if (conn->tls) {
		trib_tls_close_notify(conn->tls);
		conn->tls = trib_tls_session_free(conn->tls);
	}
	(void)close(conn->fd);
	if (conn->refused) {
		httpd->refused_open--;
	} else {
		httpd->stats.connections_open--;
		if (httpd->limits.conns_together) {
			(void)__atomic_sub_fetch(httpd->limits.conns_together, 1, __ATOMIC_RELAXED);
		}
	}
	trib_free(conn);
}

static void end_exchange(struct httpd_conn *conn)
{
	bool close_it = conn->x->close;

	conn->pending = false;
	conn->state = HTTPD_IDLE;
	if (close_it) {
		httpd_finish(conn);
	}
	drop_exchange(conn);
}

/* Class and interest that follow from the state. */
static void update(struct httpd_conn *conn)
{
	const struct trib_exchange *x = conn->x;
	enum httpd_class class = HTTPD_CLASS_THINK;
	unsigned interest = TRIB_IO_READ;

	switch ((enum httpd_state)conn->state) {
	case HTTPD_IDLE:
		class = HTTPD_CLASS_IDLE;
		break;
	case HTTPD_HEAD:
	case HTTPD_HANDSHAKE:
		class = HTTPD_CLASS_HEAD;
		break;
	case HTTPD_LINGER:
		class = HTTPD_CLASS_LINGER;
		break;
	case HTTPD_ACTIVE:
		if (httpd_body_reading(x) || httpd_discarding(x)) {
			class = HTTPD_CLASS_BODY;
		} else {
			interest = conn->pending || x->ended ? TRIB_IO_NONE : TRIB_IO_READ;
		}
		if (httpd_conn_sending(conn)) {
			class = class == HTTPD_CLASS_BODY ? class : HTTPD_CLASS_SEND;
			interest |= TRIB_IO_WRITE;
		}
		if (interest == TRIB_IO_NONE) {
			class = HTTPD_CLASS_DEAF;
		}
		break;
	}
	set_class(conn, class, false);
	conn->interest = (uint8_t)interest;
	if (conn->tls) {
		interest = trib_tls_interest(conn->tls, interest);
	}
	if (trib_io_set(conn->io, interest)) {
		conn->dead = true;
	}
}

/* A refused body that is small is thrown away, so that its connection need not be. */
static void discard(struct httpd_conn *conn)
{
	struct trib_exchange *x = conn->x;
	ssize_t n = recv(conn->fd, conn->httpd->scratch, (size_t)x->body_left,
			 MSG_DONTWAIT | MSG_TRUNC);

	if (n <= 0) {
		conn->dead = n == 0 || (errno != EAGAIN && errno != EINTR);
		return;
	}
	conn->window += (uint64_t)n;
	x->body_left -= (uint64_t)n;
	x->body_over = x->body_left == 0;
}

void httpd_conn_advance(struct httpd_conn *conn)
{
	if (!conn->dead && conn->state == HTTPD_ACTIVE && httpd_discarding(conn->x)) {
		discard(conn);
	}
	if (!conn->dead && conn->state == HTTPD_ACTIVE && conn->x->ended &&
	    !httpd_conn_sending(conn) && !httpd_discarding(conn->x)) {
		end_exchange(conn);
	}
	if (!conn->dead) {
		update(conn);
	}
	conn->busy = false;
	if (conn->dead) {
		httpd_conn_destroy(conn);
	} else if (conn->tls && (conn->interest & TRIB_IO_READ) && trib_tls_pending(conn->tls)) {
		httpd_conn_schedule(conn); /* the socket will not tell of these bytes */
	}
}

void httpd_abort(struct trib_exchange *x, enum trib_problem code)
{
	if (x->replied) { /* a stream: nothing can be said any more */
		x->conn->dead = true;
		return;
	}
	x->stopped = true;
	x->close = true;
	if (x->sink && x->sink->broken && !x->on_body) {
		x->sink->broken(x, code);
	}
	if (!x->replied) {
		resolve_gone(x);
		httpd_problem(x, code, NULL);
	}
}

/* ---- body ---- */

/* Would-block is 1; end of file, errors and our own bugs end the request. */
static int receive_failed(struct trib_exchange *x, ssize_t n)
{
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return 1;
	}
	httpd_abort(x, TRIB_PROBLEM_TRUNCATED);
	return 1;
}

/* Asks the sink for room unless it has some left over from an unsuccessful receive. */
static int ask_sink(struct trib_exchange *x)
{
	int n;

	if (x->vector_count) {
		return 0;
	}
	n = x->sink->next(x, x->vectors, HTTPD_VECTORS_MAX);
	if (x->replied || x->conn->dead || x->stopped) {
		return 1;
	}
	if (n == -EAGAIN && x->on_body) { /* only our own: nothing there yet */
		return 1;
	}
	if (n <= 0 || n > HTTPD_VECTORS_MAX) {
		x->stopped = true;
		return 1;
	}
	x->vector_count = n;
	return 0;
}

/* One receive straight into the sink's memory. 0: go on, 1: enough for this turn. */
static int receive(struct trib_exchange *x, size_t *budget)
{
	uint64_t *left = x->request.chunked ? &x->chunks.left : &x->body_left;
	size_t room = *left < *budget ? (size_t)*left : *budget;
	size_t total = 0;
	struct iovec vectors[HTTPD_VECTORS_MAX];
	int count = 0;
	ssize_t n;

	if (ask_sink(x)) {
		return 1;
	}
	for (int i = 0; i < x->vector_count && total < room; i++) {
		size_t size = x->vectors[i].iov_len;

		size = size < room - total ? size : room - total;
		vectors[count++] = (struct iovec){ x->vectors[i].iov_base, size };
		total += size;
	}
	if (total == 0) { /* a sink that gives no room while bytes are to come: its bug */
		httpd_abort(x, TRIB_PROBLEM_INTERNAL);
		return 1;
	}
	n = httpd_receive(x->conn, vectors, count);
	if (n <= 0) {
		return receive_failed(x, n);
	}
	*left -= (uint64_t)n;
	*budget -= (size_t)n;
	x->body_over = !x->request.chunked && x->body_left == 0;
	x->in_chunk = x->chunks.left > 0;
	x->conn->window += (uint64_t)n;
	if (x->on_body) {
		x->conn->httpd->stats.bytes_in_buffer += (uint64_t)n;
	} else {
		x->conn->httpd->stats.bytes_in_sink += (uint64_t)n;
	}
	x->vector_count = 0;
	if (x->sink->landed(x, (size_t)n)) {
		x->stopped = true;
	}
	return !x->body_over && (size_t)n < total;
}

/* Framing between chunks: peeked, fed byte by byte, consumed exactly as far as understood. */
static int frame(struct trib_exchange *x, size_t *budget)
{
	enum trib_http_chunk_step step = TRIB_HTTP_CHUNK_MORE;
	uint8_t bytes[FRAMING_PEEK];
	ssize_t used = 0;
	ssize_t n = httpd_peek(x->conn, bytes, sizeof(bytes));

	if (n <= 0) {
		return receive_failed(x, n);
	}
	while (used < n && step == TRIB_HTTP_CHUNK_MORE) {
		step = trib_http_chunk_byte(&x->chunks, bytes[used++]);
	}
	if (!httpd_take(x->conn, bytes, (size_t)used)) {
		x->conn->dead = true;
		return 1;
	}
	*budget -= *budget < FRAMING_COST ? *budget : FRAMING_COST;
	if (step == TRIB_HTTP_CHUNK_BAD) {
		httpd_abort(x, TRIB_PROBLEM_BAD_REQUEST);
		return 1;
	}
	x->body_over = step == TRIB_HTTP_CHUNK_END;
	x->in_chunk = step == TRIB_HTTP_CHUNK_DATA;
	return 0;
}

static void body_step(struct trib_exchange *x)
{
	size_t budget = x->conn->tls ? HTTPD_TURN_BYTES : TRIB_HTTP_TURN_BYTES;
	int rc = 0;

	if (x->too_large && !x->replied) {
		httpd_abort(x, TRIB_PROBLEM_TOO_LARGE);
	}
	while (rc == 0 && httpd_body_reading(x) && !x->conn->dead) {
		if (x->body_over) {
			x->asked = false;
			x->sink->complete(x);
			return;
		}
		if (budget == 0) {
			return;
		}
		rc = x->request.chunked && !x->in_chunk ? frame(x, &budget) : receive(x, &budget);
	}
}

/* ---- the sink behind trib_http_want_buffer ---- */

static int buffer_grow(struct trib_exchange *x)
{
	uint64_t room = x->buffer_room ? x->buffer_room * 2 : BUFFER_FIRST;
	char byte;
	char *bigger;

	if (!x->buffer && httpd_peek(x->conn, &byte, 1) < 0 && errno == EAGAIN) {
		return -EAGAIN; /* memory only for bodies that come */
	}
	if (x->request.has_length) {
		room = x->request.length; /* known and checked: made once, nothing moves */
	} else if (room > x->buffer_max) {
		room = x->buffer_max;
	}
	if (room <= x->buffer_size) {
		httpd_abort(x, TRIB_PROBLEM_TOO_LARGE);
		return -EFBIG;
	}
	bigger = trib_realloc(x->buffer, (size_t)room + 1);
	if (!bigger) {
		httpd_abort(x, TRIB_PROBLEM_UNAVAILABLE);
		return -ENOMEM;
	}
	if (x->buffer && bigger != x->buffer) {
		x->conn->httpd->stats.bytes_copied += x->buffer_size;
	}
	x->buffer = bigger;
	x->buffer_room = (size_t)room;
	return 0;
}

static int buffer_next(struct trib_exchange *x, struct iovec *vectors, int max)
{
	(void)max;
	if (x->buffer_size == x->buffer_room) {
		int rc = buffer_grow(x);

		if (rc) {
			return rc;
		}
	}
	vectors[0] = (struct iovec){ x->buffer + x->buffer_size, x->buffer_room - x->buffer_size };
	return 1;
}

static int buffer_landed(struct trib_exchange *x, size_t size)
{
	x->buffer_size += size;
	return 0;
}

static void buffer_complete(struct trib_exchange *x)
{
	if (!x->buffer) {
		x->on_body(x, "", 0);
		return;
	}
	x->buffer[x->buffer_size] = '\0';
	x->on_body(x, x->buffer, x->buffer_size);
}

static const struct trib_http_sink buffer_sink = {
	.next = buffer_next,
	.landed = buffer_landed,
	.complete = buffer_complete,
};

static void want(struct trib_exchange *x, const struct trib_http_sink *sink)
{
	TRIB_ASSERT(!x->sink); /* at most once per exchange */
	x->sink = sink;
	x->asked = true;
	x->conn->pending = false;
	if (x->request.expect_continue && !x->body_over && !x->too_large) {
		static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

		httpd_out(x, text, sizeof(text) - 1);
	}
	httpd_conn_schedule(x->conn);
}

void trib_http_want_buffer(struct trib_exchange *x, uint64_t max,
			   void (*on_body)(struct trib_exchange *x, const char *body, size_t size))
{
	uint64_t limit = x->conn->httpd->limits.buffer_max;

	if (x->replied) {
		return;
	}
	x->buffer_max = max < limit ? max : limit;
	x->too_large = x->request.has_length && x->request.length > x->buffer_max;
	x->on_body = on_body;
	want(x, &buffer_sink);
}

void trib_http_want_sink(struct trib_exchange *x, const struct trib_http_sink *sink)
{
	if (!x->replied) {
		want(x, sink);
	}
}

/* ---- head ---- */

static struct trib_exchange *exchange_new(struct httpd_conn *conn)
{
	struct trib_exchange *x = trib_alloc(sizeof(*x));

	if (!x) {
		conn->dead = true;
		return NULL;
	}
	x->conn = conn;
	x->body_over = true; /* until a head says otherwise */
	conn->x = x;
	conn->state = HTTPD_ACTIVE;
	return x;
}

static void refuse_head(struct httpd_conn *conn, int status)
{
	struct trib_exchange *x = conn->x ? conn->x : exchange_new(conn);

	if (x) {
		conn->httpd->stats.head_errors += status != 408;
		x->close = true;
		httpd_problem(x, trib_problem_of_status(status), NULL);
	}
}

static void begin_request(struct httpd_conn *conn)
{
	struct trib_httpd *httpd = conn->httpd;
	struct trib_exchange *x = exchange_new(conn);
	int status;

	if (!x) {
		return;
	}
	status = trib_http_parse(conn->head, conn->head_size, &x->request);
	if (status) {
		refuse_head(conn, status);
		return;
	}
	httpd->stats.requests++;
	trib_http_chunks_init(&x->chunks);
	x->body_left = x->request.length;
	x->body_over = !x->request.chunked && x->body_left == 0;
	httpd->handler.on_request(x, &x->request, httpd->handler.arg);
	if (conn->x == x && x->asked && !httpd->freed) {
		body_step(x);
	}
}

/* Room for more head: small first, doubled as bytes come. */
static int head_room(struct httpd_conn *conn)
{
	uint32_t room = conn->head_room ? conn->head_room * 2u : HTTPD_HEAD_FIRST;
	char *bigger;

	if (conn->head_size < conn->head_room) {
		return 0;
	}
	if (conn->head_room == TRIB_HTTP_HEAD_MAX) {
		refuse_head(conn, 431);
		return -EFBIG;
	}
	bigger = trib_realloc(conn->head, room);
	if (!bigger) {
		conn->dead = true;
		return -ENOMEM;
	}
	conn->head = bigger;
	conn->head_room = (uint16_t)room;
	return 0;
}

/* Looks through the new bytes head[from..size). Returns the size of the head when its end is
 * there, 0 when more is needed, -EBADMSG when it can never become a head. */
static int find_end(const char *head, size_t from, size_t size)
{
	const char *at = head + from;
	size_t end = 0;

	while (end == 0 && (at = memchr(at, '\n', size - (size_t)(at - head)))) {
		size_t i = (size_t)(at++ - head);

		if (i == 0 || head[i - 1] != '\r') {
			return -EBADMSG;
		}
		if (i >= 3 && head[i - 2] == '\n' && head[i - 3] == '\r') {
			end = i + 1;
		}
	}
	/* Beyond the end is body: anything goes there. */
	if (memchr(head + from, '\0', (end ? end : size) - from)) {
		return -EBADMSG;
	}
	return (int)end;
}

/* Peeks, then consumes what belongs to the head and nothing beyond it. A piece without the end of
 * the head is all head, so it is consumed too: else a slow client would keep us spinning. */
static void read_head(struct httpd_conn *conn)
{
	char *room;
	ssize_t n;
	ssize_t taken;
	int end;

	if (head_room(conn)) {
		return;
	}
	room = conn->head + conn->head_size;
	n = httpd_peek(conn, room, (size_t)(conn->head_room - conn->head_size));
	if (n <= 0) {
		conn->dead = n == 0 || (errno != EAGAIN && errno != EINTR);
		if (!conn->dead && conn->state == HTTPD_IDLE) {
			drop_exchange(conn);
		}
		return;
	}
	conn->state = HTTPD_HEAD;
	end = find_end(conn->head, conn->head_size, conn->head_size + (size_t)n);
	taken = end > 0 ? end - conn->head_size : n;
	if (!httpd_take(conn, room, (size_t)taken)) {
		conn->dead = true;
		return;
	}
	conn->head_size = (uint16_t)(conn->head_size + taken);
	if (end < 0) {
		refuse_head(conn, 400);
	} else if (end > 0) {
		begin_request(conn);
	}
}

/* ---- turns ---- */

/* Nobody wants the bytes there may be: end of file matters, bytes are left where they are. */
static void watch(struct httpd_conn *conn)
{
	char byte;
	ssize_t n = httpd_peek(conn, &byte, 1);

	if (n > 0) {
		conn->pending = true;
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		conn->dead = true;
	}
}

/* MSG_TRUNC: TCP throws the bytes away without copying them. */
static void drain(struct httpd_conn *conn)
{
	struct trib_httpd *httpd = conn->httpd;

	for (size_t taken = 0; taken < HTTPD_TURN_BYTES;) {
		ssize_t n = recv(conn->fd, httpd->scratch, sizeof(httpd->scratch),
				 MSG_DONTWAIT | MSG_TRUNC);

		if (n <= 0) {
			conn->dead = n == 0 || (errno != EAGAIN && errno != EINTR);
			return;
		}
		taken += (size_t)n;
		conn->window += (uint64_t)n;
		if (conn->window > HTTPD_LINGER_BYTES) {
			conn->dead = true;
			return;
		}
	}
}

static void serve_ready(struct httpd_conn *conn, unsigned ready)
{
	switch ((enum httpd_state)conn->state) {
	case HTTPD_IDLE:
	case HTTPD_HEAD:
		if (ready & TRIB_IO_READ) {
			read_head(conn);
		}
		break;
	case HTTPD_ACTIVE:
		if (ready & TRIB_IO_WRITE) {
			httpd_flush(conn->x);
		}
		if (conn->dead || !(ready & TRIB_IO_READ)) {
			break;
		}
		if (httpd_body_reading(conn->x)) {
			body_step(conn->x);
		} else if (!httpd_discarding(conn->x)) {
			watch(conn);
		}
		break;
	case HTTPD_LINGER:
		drain(conn);
		break;
	case HTTPD_HANDSHAKE:
		httpd_handshake(conn);
		break;
	}
}

static void on_conn_io(int fd, unsigned ready, void *arg)
{
	struct httpd_conn *conn = arg;
	struct trib_httpd *httpd = conn->httpd;

	(void)fd;
	httpd_enter(httpd);
	conn->busy = true;
	if (!conn->dead) {
		serve_ready(conn, conn->tls ? trib_tls_ready(conn->tls, ready) : ready);
	}
	httpd_conn_advance(conn);
	httpd_leave(httpd);
}

void httpd_conn_serve(struct httpd_conn *conn)
{
	unschedule(conn);
	conn->busy = true;
	if (!conn->dead && conn->state == HTTPD_ACTIVE && conn->x->asked) {
		body_step(conn->x);
	} else if (!conn->dead && conn->tls && trib_tls_pending(conn->tls)) {
		serve_ready(conn, TRIB_IO_READ);
	}
	httpd_conn_advance(conn);
}

static bool moved_enough(const struct httpd_conn *conn)
{
	const struct trib_httpd_limits *limits = &conn->httpd->limits;
	uint64_t need = (uint64_t)limits->body_rate_min * limits->body_grace_ms / 1000;

	if (conn->class == HTTPD_CLASS_SEND && need == 0) {
		need = 1; /* no rate is asked for, but a reader that stands still is gone */
	}
	return conn->window >= need;
}

void httpd_conn_expired(struct httpd_conn *conn, uint64_t now_ms)
{
	struct trib_httpd_stats *stats = &conn->httpd->stats;

	(void)now_ms;
	conn->busy = true;
	switch ((enum httpd_class)conn->class) {
	case HTTPD_CLASS_HEAD:
		stats->timeouts++;
		if (conn->state == HTTPD_HANDSHAKE) {
			conn->dead = true;
			break;
		}
		refuse_head(conn, 408);
		break;
	case HTTPD_CLASS_BODY:
		if (moved_enough(conn)) {
			set_class(conn, HTTPD_CLASS_BODY, true);
			break;
		}
		stats->too_slow++;
		httpd_abort(conn->x, TRIB_PROBLEM_TOO_SLOW);
		break;
	case HTTPD_CLASS_SEND:
		if (moved_enough(conn)) {
			set_class(conn, HTTPD_CLASS_SEND, true);
			break;
		}
		stats->timeouts++;
		conn->dead = true;
		break;
	case HTTPD_CLASS_IDLE:
	case HTTPD_CLASS_LINGER:
		stats->timeouts += conn->class == HTTPD_CLASS_IDLE;
		conn->dead = true;
		break;
	case HTTPD_CLASS_THINK:
	case HTTPD_CLASS_DEAF:
	case HTTPD_CLASS_COUNT:
		break;
	}
	httpd_conn_advance(conn);
}

int httpd_conn_new(struct trib_httpd *httpd, int fd, bool refused)
{
	struct httpd_conn *conn = trib_alloc(sizeof(*conn));
	int rc;

	if (!conn) {
		return -ENOMEM;
	}
	conn->httpd = httpd;
	conn->fd = fd;
	rc = trib_io_new(httpd->loop, fd, TRIB_IO_READ, on_conn_io, conn, &conn->io);
	if (rc == 0 && httpd->tls && !refused) {
		rc = trib_tls_session_new(httpd->tls, fd, &conn->tls);
	}
	if (rc) {
		conn->io = trib_io_free(conn->io);
		trib_free(conn);
		return rc;
	}
	httpd_tick_start(httpd);
	conn->refused = refused;
	conn->state = refused ? HTTPD_LINGER : conn->tls ? HTTPD_HANDSHAKE : HTTPD_IDLE;
	conn->class = HTTPD_CLASS_IDLE;
	TAILQ_INSERT_TAIL(&httpd->classes[HTTPD_CLASS_IDLE], conn, in_class);
	set_class(conn,
		  refused     ? HTTPD_CLASS_LINGER
		  : conn->tls ? HTTPD_CLASS_HEAD
			      : HTTPD_CLASS_IDLE,
		  true);
	if (refused) {
		httpd->refused_open++;
	} else {
		httpd->stats.connections++;
		httpd->stats.connections_open++;
		if (httpd->limits.conns_together) {
			(void)__atomic_add_fetch(httpd->limits.conns_together, 1, __ATOMIC_RELAXED);
		}
	}
	return 0;
}
