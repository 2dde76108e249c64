/* SPDX-License-Identifier: Apache-2.0
 * What the httpd tests share: a server whose loop runs on a thread, handlers by path, and blocking
 * clients for the main thread. Statistics are read after the thread has ended. Each test program
 * has its own copy.
 */
#ifndef TRIB_TESTS_UNIT_HTTPD_FIXTURE_H
#define TRIB_TESTS_UNIT_HTTPD_FIXTURE_H

#include "common/httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

#define BIG        ((size_t)8 << 20)
#define MEMORY     ((size_t)32 << 20)
#define SINK_PIECE 100003 /* odd on purpose */

static struct {
	struct trib_loop *loop;
	struct trib_httpd *httpd;
	struct trib_tls *tls; /* set before start: speaks TLS */
	struct trib_timer *later;
	struct trib_exchange *waiting;
	struct trib_httpd_stats stats;
	pthread_t thread;
	int listen_fd;
	/* what handlers saw; read by the main thread with atomics */
	int gone;
	int done;
	int broken;
	int completed;
	int stream_refused;
	char *sunk;
	size_t sunk_size;
	char *memory;
} server;

static void pause_us(long us)
{
	struct timespec t = { .tv_nsec = us * 1000 };

	(void)nanosleep(&t, NULL);
}

static int seen(int *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void count(int *counter)
{
	(void)__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

static TRIB_UNUSED bool wait_for(int *counter, int value, unsigned ms)
{
	uint64_t end = trib_clock_ms() + ms;

	while (seen(counter) < value && trib_clock_ms() < end) {
		pause_us(2000);
	}
	return seen(counter) == value;
}

/* ---- handlers ---- */

static void on_gone(void *data)
{
	count(data);
	server.waiting = NULL;
}

static void on_body(struct trib_exchange *x, const char *body, size_t size)
{
	if (body[size] != '\0') {
		trib_http_problem(x, TRIB_PROBLEM_INTERNAL, "no terminator", 0);
		return;
	}
	trib_http_reply(x, 200, "application/octet-stream", body, size);
}

static int sink_next(struct trib_exchange *x, struct iovec *vectors, int max)
{
	size_t at = server.sunk_size;
	int n = 0;

	(void)x;
	for (; n < max && n < 3 && at < BIG; n++) {
		size_t size = BIG - at < SINK_PIECE ? BIG - at : SINK_PIECE;

		vectors[n] = (struct iovec){ server.sunk + at, size };
		at += size;
	}
	return n ? n : -ENOSPC;
}

static int sink_landed(struct trib_exchange *x, size_t size)
{
	server.sunk_size += size;
	if (strcmp(trib_exchange_request(x)->path, "/sink-refuse") == 0 &&
	    server.sunk_size > 100000) {
		trib_http_problem(x, TRIB_PROBLEM_NON_FINITE, NULL, 0);
		return -EINVAL;
	}
	return 0;
}

static void sink_complete(struct trib_exchange *x)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%zu", server.sunk_size);

	count(&server.completed);
	trib_http_reply(x, 201, "text/plain", text, (size_t)n);
}

static void sink_broken(struct trib_exchange *x, enum trib_problem code)
{
	(void)x;
	count(&server.broken);
	(void)code;
}

static const struct trib_http_sink sink = { sink_next, sink_landed, sink_complete, sink_broken };

static void on_later(void *arg)
{
	struct trib_exchange *x = server.waiting;
	const char *path = x ? trib_exchange_request(x)->path : "";

	(void)arg;
	server.waiting = NULL;
	if (strcmp(path, "/later-sink") == 0) {
		trib_http_want_sink(x, &sink);
	} else if (strcmp(path, "/later-body") == 0) {
		trib_http_want_buffer(x, 1 << 20, on_body);
	} else if (strcmp(path, "/sse") == 0) {
		if (trib_http_stream_write(x, "data: 2\n\n", 9)) {
			count(&server.stream_refused);
		}
		trib_http_stream_end(x);
	} else if (x) {
		trib_http_reply(x, 200, "text/plain", "late", 4);
	}
}

static void wait_a_little(struct trib_exchange *x)
{
	trib_exchange_attach(x, &server.gone, on_gone);
	server.waiting = x;
	trib_timer_after(server.later, 50);
}

static void on_done(void *data)
{
	count(data);
}

static void flood(struct trib_exchange *x)
{
	static char piece[65536];

	trib_exchange_attach(x, &server.gone, on_gone);
	trib_http_stream(x, "text/event-stream");
	for (int i = 0; i < 1000; i++) {
		if (trib_http_stream_write(x, piece, sizeof(piece)) == -ENOBUFS) {
			count(&server.stream_refused);
			break;
		}
	}
}

static void reply_path(struct trib_exchange *x, const struct trib_http_request *request)
{
	if (strcmp(request->path, "/get") == 0) {
		assert_int_equal(trib_http_header(x, "X-Peer", trib_exchange_peer(x)), 0);
		assert_int_equal(trib_http_header(x, "X-Bad", "a\r\nb"), -EINVAL);
		assert_int_equal(trib_http_header(x, "Content-Length", "1"), -EINVAL);
		trib_http_reply(x, 200, "text/plain", request->query, strlen(request->query));
	} else if (strcmp(request->path, "/who") == 0) {
		const struct trib_tls_identity *who = trib_exchange_identity(x);
		const char *uri = who ? who->uri : "nobody asked";

		assert_int_equal(trib_http_header(x, "X-Subject", who ? who->subject : "-"), 0);
		assert_int_equal(
			trib_http_header(x, "X-Is-A", trib_exchange_speaks_for(x, "a") ? "1" : "0"),
			0);
		trib_http_reply(x, 200, "text/plain", uri, strlen(uri));
	} else if (strcmp(request->path, "/early") == 0) {
		trib_http_problem(x, TRIB_PROBLEM_TOO_LARGE, "no \"room\"", 0);
	} else if (strcmp(request->path, "/throttled") == 0) {
		trib_http_problem(x, TRIB_PROBLEM_THROTTLED, NULL, 1500);
	} else if (strcmp(request->path, "/errors") == 0) {
		trib_http_problem_errors(x, TRIB_PROBLEM_INVALID_SPEC, NULL, "[{\"at\":\"x\"}]");
	} else if (strcmp(request->path, "/memory") == 0) {
		trib_http_reply_memory(x, 200, "application/octet-stream", server.memory, MEMORY,
				       on_done, &server.done);
	} else if (strcmp(request->path, "/twice") == 0) {
		trib_http_reply(x, 204, NULL, NULL, 0);
		trib_http_reply(x, 200, "text/plain", "again", 5);
	} else {
		trib_http_problem(x, TRIB_PROBLEM_NO_SUCH_PATH, request->path, 0);
	}
}

static void on_request(struct trib_exchange *x, const struct trib_http_request *request, void *arg)
{
	(void)arg;
	if (strcmp(request->path, "/echo") == 0) {
		trib_http_want_buffer(x, 1 << 20, on_body);
	} else if (strncmp(request->path, "/sink", 5) == 0) {
		trib_exchange_attach(x, &server.gone, on_gone);
		server.sunk_size = 0;
		trib_http_want_sink(x, &sink);
	} else if (strncmp(request->path, "/later", 6) == 0) {
		server.sunk_size = 0;
		wait_a_little(x);
	} else if (strcmp(request->path, "/hang") == 0) {
		trib_exchange_attach(x, &server.gone, on_gone);
	} else if (strcmp(request->path, "/sse") == 0) {
		trib_http_stream(x, "text/event-stream");
		assert_int_equal(trib_http_stream_write(x, "data: 1\n\n", 9), 0);
		wait_a_little(x);
	} else if (strcmp(request->path, "/flood") == 0) {
		flood(x);
	} else if (strcmp(request->path, "/free") == 0) {
		trib_http_reply(x, 200, "text/plain", "bye", 3);
		server.stats = *trib_httpd_stats(server.httpd);
		server.httpd = trib_httpd_free(server.httpd);
	} else {
		reply_path(x, request);
	}
}

/* ---- server ---- */

static void *run(void *arg)
{
	(void)arg;
	return trib_loop_run(server.loop) ? &server : NULL;
}

static void stop_cb(void *arg)
{
	trib_loop_stop(arg);
}

static void start(const struct trib_httpd_limits *limits)
{
	const struct trib_httpd_handler handler = { on_request, NULL };

	server.gone = server.done = server.broken = server.completed = server.stream_refused = 0;
	server.waiting = NULL;
	assert_int_equal(trib_loop_new(&server.loop), 0);
	assert_int_equal(trib_listen("127.0.0.1:0", &server.listen_fd), 0);
	assert_int_equal(trib_timer_new(server.loop, on_later, NULL, &server.later), 0);
	assert_int_equal(
		trib_httpd_new(server.loop, server.listen_fd, limits, &handler, &server.httpd), 0);
	trib_httpd_tls(server.httpd, server.tls);
	assert_int_equal(pthread_create(&server.thread, NULL, run, NULL), 0);
}

static void stop(void)
{
	assert_int_equal(trib_loop_wake(server.loop, stop_cb, server.loop), 0);
	assert_int_equal(pthread_join(server.thread, NULL), 0);
	if (server.httpd) {
		server.stats = *trib_httpd_stats(server.httpd);
	}
	server.httpd = trib_httpd_free(server.httpd);
	server.later = trib_timer_free(server.later);
	trib_loop_free(server.loop);
	(void)close(server.listen_fd);
	assert_true(server.stats.bytes_copied == 0);
}

/* ---- client ---- */

static int client_socket(void)
{
	struct timeval limit = { .tv_sec = 8 };
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void dial_with(int fd)
{
	uint16_t port = (uint16_t)trib_listen_port(server.listen_fd);
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static int dial(void)
{
	int fd = client_socket();

	dial_with(fd);
	return fd;
}

static bool say_bytes(int fd, const void *bytes, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = send(fd, (const char *)bytes + at, size - at, MSG_NOSIGNAL);

		if (n <= 0) {
			return false;
		}
		at += (size_t)n;
	}
	return true;
}

static void say(int fd, const char *text)
{
	assert_true(say_bytes(fd, text, strlen(text)));
}

struct answer {
	int status;
	char head[8192];
	char body[65536];
	size_t size;
};

static struct answer last;

/* One reply: head byte by byte, then Content-Length bytes (or until the end without one).
 * HEAD replies and 1xx / 204 have no body. Status -1: closed, or a reset. */
static struct answer *hear(int fd, bool no_body)
{
	size_t used = 0;
	size_t length = SIZE_MAX;
	const char *line;

	last.status = -1;
	last.size = 0;
	while (used < 4 || memcmp(last.head + used - 4, "\r\n\r\n", 4) != 0) {
		if (used + 1 >= sizeof(last.head) || recv(fd, last.head + used, 1, 0) != 1) {
			return &last;
		}
		last.head[++used] = '\0';
	}
	assert_int_equal(sscanf(last.head, "HTTP/1.1 %d ", &last.status), 1);
	assert_true(last.status < 200 || strstr(last.head, "\r\nServer: tributary\r\n"));
	line = strstr(last.head, "\r\nContent-Length: ");
	if (line) {
		assert_int_equal(sscanf(line, "\r\nContent-Length: %zu", &length), 1);
	}
	if (no_body || last.status < 200 || last.status == 204) {
		return &last;
	}
	while (last.size < length && last.size < sizeof(last.body) - 1) {
		ssize_t n = recv(fd, last.body + last.size,
				 length - last.size < sizeof(last.body) - 1 - last.size
					 ? length - last.size
					 : sizeof(last.body) - 1 - last.size,
				 0);

		if (n <= 0) {
			break;
		}
		last.size += (size_t)n;
	}
	last.body[last.size] = '\0';
	return &last;
}

static TRIB_UNUSED bool closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, 0) == 0;
}

static void hang_up(int fd)
{
	(void)close(fd);
}

static TRIB_UNUSED char *pattern(size_t size)
{
	char *bytes = trib_alloc(size);
	uint64_t value = 88172645463325252u;

	assert_non_null(bytes);
	for (size_t i = 0; i < size; i++) {
		value ^= value << 13;
		value ^= value >> 7;
		value ^= value << 17;
		bytes[i] = (char)value;
	}
	return bytes;
}

#define H "Host: a\r\n"

#endif
