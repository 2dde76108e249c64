/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/httpd_internal.h"

#define HEAD_ROOM    (HTTPD_HEADERS_MAX + 1024)
#define ERRORS_MAX   (256u << 10)
#define NO_LENGTH    UINT64_MAX
#define PROBLEM_TYPE "application/problem+json"
#define OUT_FIRST    4096

/* ---- bytes out ---- */

/* Bytes the socket took, at most a turn's worth. Failure marks the connection dead. */
static size_t push(struct httpd_conn *conn, const struct iovec *vectors, int count)
{
	struct iovec clipped[2];
	size_t room = HTTPD_TURN_BYTES;
	int used = 0;
	ssize_t n;

	for (int i = 0; i < count && i < 2; i++) {
		size_t size = vectors[i].iov_len < room ? vectors[i].iov_len : room;

		if (size) {
			clipped[used++] = (struct iovec){ vectors[i].iov_base, size };
			room -= size;
		}
	}
	if (used == 0) {
		return 0;
	}
	n = httpd_send(conn, clipped, used);
	if (n < 0) {
		conn->dead = errno != EAGAIN && errno != EINTR;
		return 0;
	}
	conn->httpd->stats.bytes_out += (uint64_t)n;
	if (conn->class == HTTPD_CLASS_SEND) {
		conn->window += (uint64_t)n;
	}
	return (size_t)n;
}

/* Keeps bytes for later, behind those that wait already. */
static void queue(struct trib_exchange *x, const char *bytes, size_t size)
{
	size_t waiting = x->out_size - x->out_at;
	size_t room = x->out_room ? x->out_room : OUT_FIRST;
	char *bigger = x->out;

	if (size == 0 || x->conn->dead) {
		return;
	}
	if (x->out_at) {
		memmove(x->out, x->out + x->out_at, waiting);
		x->out_at = 0;
		x->out_size = waiting;
	}
	while (room < waiting + size) {
		room *= 2;
	}
	if (room != x->out_room) {
		bigger = trib_realloc(x->out, room);
	}
	if (!bigger) {
		x->conn->dead = true;
		return;
	}
	x->out = bigger;
	x->out_room = room;
	memcpy(x->out + x->out_size, bytes, size);
	x->out_size += size;
}

/* Sends two runs of bytes as far as the socket takes them and keeps the rest. */
static void out_two(struct trib_exchange *x, const char *a, size_t a_size, const char *b,
		    size_t b_size)
{
	const struct iovec vectors[2] = { { (void *)a, a_size }, { (void *)b, b_size } };
	size_t sent = 0;

	if (x->conn->dead) {
		return;
	}
	if (!httpd_conn_sending(x->conn)) {
		sent = push(x->conn, vectors, 2);
	}
	if (sent < a_size) {
		queue(x, a + sent, a_size - sent);
		queue(x, b, b_size);
	} else if (b_size) {
		queue(x, b + (sent - a_size), b_size - (sent - a_size));
	}
}

void httpd_out(struct trib_exchange *x, const void *bytes, size_t size)
{
	out_two(x, bytes, size, NULL, 0);
}

void httpd_flush(struct trib_exchange *x)
{
	size_t waiting = x->out_size - x->out_at;
	size_t piece =
		x->memory_left < HTTPD_TURN_BYTES ? (size_t)x->memory_left : HTTPD_TURN_BYTES;
	const struct iovec vectors[2] = { { x->out ? x->out + x->out_at : NULL, waiting },
					  { (void *)x->memory, piece } };
	size_t sent;

	if (x->conn->dead) {
		return;
	}
	sent = push(x->conn, vectors, 2);
	if (sent < waiting) {
		x->out_at += sent;
		return;
	}
	trib_free(x->out);
	x->out = NULL;
	x->out_at = x->out_size = x->out_room = 0;
	x->memory = x->memory ? x->memory + (sent - waiting) : NULL;
	x->memory_left -= sent - waiting;
}

/* ---- heads ---- */

static bool header_clean(const char *text)
{
	for (; *text; text++) {
		if ((uint8_t)*text < 0x20 && *text != '\t') {
			return false;
		}
	}
	return true;
}

int trib_http_header(struct trib_exchange *x, const char *name, const char *value)
{
	static const char *const ours[] = { "content-length", "transfer-encoding", "connection" };
	size_t room = HTTPD_HEADERS_MAX - x->headers_size;
	int n;

	if (*name == '\0' || strpbrk(name, " \t:\r\n") || !header_clean(value)) {
		return -EINVAL;
	}
	for (size_t i = 0; i < TRIB_COUNT(ours); i++) {
		if (strcasecmp(name, ours[i]) == 0) {
			return -EINVAL; /* framing is ours */
		}
	}
	if (!x->headers) {
		x->headers = trib_alloc(HTTPD_HEADERS_MAX);
	}
	if (!x->headers) {
		return -ENOMEM;
	}
	n = snprintf(x->headers + x->headers_size, room, "%s: %s\r\n", name, value);
	if (n < 0 || (size_t)n >= room) {
		x->headers[x->headers_size] = '\0';
		return -ENOBUFS;
	}
	x->headers_size += (size_t)n;
	return 0;
}

static bool without_body(const struct trib_exchange *x, int status)
{
	return x->request.method == TRIB_HTTP_HEAD || status == 204 || status == 304;
}

/* Small, and sure to come: reading it costs less than a new connection. */
static bool discardable(const struct trib_exchange *x)
{
	return !x->conn->tls && !x->request.chunked && x->body_left <= HTTPD_SCRATCH_SIZE &&
	       (x->asked || !x->request.expect_continue);
}

/* Claims the reply: false if one was given before (a handler's slip, ignored). */
static bool claim(struct trib_exchange *x, int status)
{
	struct trib_httpd *httpd = x->conn->httpd;

	if (x->replied) {
		return false;
	}
	TRIB_ASSERT(status >= 200 && status <= 599);
	x->replied = true;
	x->close = x->close || !x->request.keep_alive || !(x->body_over || discardable(x));
	httpd->stats.replies_by_class[status / 100]++;
	return true;
}

static size_t make_head(struct trib_exchange *x, int status, const char *type, uint64_t length,
			char out[HEAD_ROOM])
{
	const char *asked =
		x->request.field_count ? trib_http_field(&x->request, "connection") : NULL;
	char length_line[48] = "";
	char type_line[256] = "";
	const char *connection = "";
	int n;

	if (x->close) {
		connection = "Connection: close\r\n";
	} else if (asked && strcasecmp(asked, "keep-alive") == 0) {
		connection = "Connection: keep-alive\r\n"; /* HTTP/1.0 waits for it */
	}
	if (length != NO_LENGTH && status != 204) {
		(void)snprintf(length_line, sizeof(length_line), "Content-Length: %llu\r\n",
			       (unsigned long long)length);
	}
	if (type) {
		(void)snprintf(type_line, sizeof(type_line), "Content-Type: %.200s\r\n", type);
	}
	n = snprintf(out, HEAD_ROOM,
		     "HTTP/1.1 %d %s\r\nServer: tributary\r\nDate: %s\r\n%s%s%s%s\r\n", status,
		     trib_http_reason(status), httpd_date(x->conn->httpd), type_line, length_line,
		     connection, x->headers ? x->headers : "");
	TRIB_ASSERT(n > 0 && n < HEAD_ROOM);
	return (size_t)n;
}

/* ---- replies ---- */

static void reply_copied(struct trib_exchange *x, int status, const char *type, const void *body,
			 size_t size)
{
	char head[HEAD_ROOM];
	size_t head_size;

	if (!claim(x, status)) {
		return;
	}
	head_size = make_head(x, status, type, size, head);
	out_two(x, head, head_size, body, without_body(x, status) ? 0 : size);
	x->ended = true;
}

void trib_http_last(struct trib_exchange *x)
{
	x->close = true;
}

void trib_http_reply(struct trib_exchange *x, int status, const char *type, const void *body,
		     size_t size)
{
	reply_copied(x, status, type, body, size);
	httpd_conn_schedule(x->conn);
}

static void problem(struct trib_exchange *x, enum trib_problem code, const char *detail,
		    uint64_t retry_after_ms, const char *errors_json)
{
	int status = trib_problem_status(code);
	size_t errors_size = errors_json ? strnlen(errors_json, ERRORS_MAX) : 0;
	size_t room = 2048 + (errors_size < ERRORS_MAX ? errors_size : 0);
	char small[2048];
	char *large = room > sizeof(small) ? trib_alloc(room) : NULL;
	char *body = large ? large : small;
	char seconds[24];

	if (x->replied) {
		trib_free(large);
		return;
	}
	if (retry_after_ms && (status == 429 || status == 503)) {
		(void)snprintf(seconds, sizeof(seconds), "%llu",
			       (unsigned long long)(retry_after_ms - 1) / 1000 + 1);
		/* When 4 KiB of headers leave no room for it the body still tells. */
		if (trib_http_header(x, "Retry-After", seconds)) {
			seconds[0] = '\0';
		}
	}
	reply_copied(x, status, PROBLEM_TYPE, body,
		     trib_problem_print(code, detail, retry_after_ms, errors_json, body,
					large ? room : sizeof(small)));
	trib_free(large);
}

void httpd_problem(struct trib_exchange *x, enum trib_problem code, const char *detail)
{
	x->headers_size = 0; /* meant for the handler's reply, not for ours */
	if (x->headers) {
		x->headers[0] = '\0';
	}
	problem(x, code, detail, 0, NULL);
}

void trib_http_problem(struct trib_exchange *x, enum trib_problem code, const char *detail,
		       uint64_t retry_after_ms)
{
	problem(x, code, detail, retry_after_ms, NULL);
	httpd_conn_schedule(x->conn);
}

void trib_http_problem_errors(struct trib_exchange *x, enum trib_problem code, const char *detail,
			      const char *errors_json)
{
	problem(x, code, detail, 0, errors_json);
	httpd_conn_schedule(x->conn);
}

/* NOLINTNEXTLINE(readability-function-size): seven facts, none of which is a struct elsewhere */
void trib_http_reply_memory(struct trib_exchange *x, int status, const char *type,
			    const void *memory, uint64_t size, void (*done)(void *data), void *data)
{
	char head[HEAD_ROOM];

	if (!claim(x, status)) {
		if (done) {
			done(data);
		}
		return;
	}
	x->done = done;
	x->done_data = data;
	queue(x, head, make_head(x, status, type, size, head));
	if (!x->conn->dead) {
		x->memory = memory;
		x->memory_left = without_body(x, status) ? 0 : size;
		httpd_flush(x);
	}
	x->ended = true;
	httpd_conn_schedule(x->conn);
}

void trib_http_stream(struct trib_exchange *x, const char *type)
{
	char head[HEAD_ROOM];

	x->close = true;
	if (claim(x, 200)) {
		x->streaming = true;
		httpd_out(x, head, make_head(x, 200, type, NO_LENGTH, head));
		httpd_conn_schedule(x->conn);
	}
}

int trib_http_stream_write(struct trib_exchange *x, const void *data, size_t size)
{
	if (!x->streaming || x->ended) {
		return -EINVAL;
	}
	if (x->conn->dead) {
		return -EPIPE;
	}
	if (x->out_size - x->out_at > HTTPD_STREAM_QUEUE_MAX) {
		return -ENOBUFS;
	}
	if (!without_body(x, 200)) {
		httpd_out(x, data, size);
	}
	if (x->conn->dead || httpd_conn_sending(x->conn)) {
		httpd_conn_schedule(x->conn);
	}
	return x->conn->dead ? -EPIPE : 0;
}

void trib_http_stream_end(struct trib_exchange *x)
{
	if (x->streaming) {
		x->ended = true;
		httpd_conn_schedule(x->conn);
	}
}

struct trib_exchange *httpd_exchange_free(struct trib_exchange *x)
{
	if (x) {
		trib_free(x->buffer);
		trib_free(x->headers);
		trib_free(x->out);
		trib_free(x);
	}
	return NULL;
}
