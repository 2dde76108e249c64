/* SPDX-License-Identifier: Apache-2.0 */
#include "common/httpd.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/httpd_internal.h"

#define BACKLOG 4096

const struct trib_httpd_limits trib_httpd_limits_default = {
	.conns_max = 16000,
	.head_timeout_ms = 10000,
	.idle_timeout_ms = 15000,
	.body_rate_min = 32768,
	.body_grace_ms = 10000,
	.buffer_max = 1 << 20,
};

/* ---- listening sockets ---- */

static int listen_inherited(const char *text, int *ret_fd)
{
	uint64_t number;
	socklen_t size = sizeof(int);
	int listening = 0;
	int flags;

	if (trib_parse_u64(text, strlen(text), 0, INT32_MAX, &number)) {
		return -EINVAL;
	}
	if (getsockopt((int)number, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size)) {
		return -errno;
	}
	flags = fcntl((int)number, F_GETFL);
	if (!listening || flags < 0) {
		return -EINVAL;
	}
	if (fcntl((int)number, F_SETFL, flags | O_NONBLOCK) ||
	    fcntl((int)number, F_SETFD, FD_CLOEXEC)) {
		return -errno;
	}
	*ret_fd = (int)number;
	return 0;
}

/* A socket file nobody listens on any more is removed; any other file is left alone. */
static void remove_stale(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
	    errno == ECONNREFUSED) {
		(void)unlink(address->sun_path);
	}
	if (fd >= 0) {
		(void)close(fd);
	}
}

static int listen_at(const struct sockaddr *address, socklen_t size, int *ret_fd)
{
	int one = 1;
	int rc;
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		return -errno;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, address, size) || listen(fd, BACKLOG)) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int listen_unix(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (*path == '\0' || trib_copy(address.sun_path, sizeof(address.sun_path), path)) {
		return *path ? -ENAMETOOLONG : -EINVAL;
	}
	remove_stale(&address);
	return listen_at((const struct sockaddr *)&address, sizeof(address), ret_fd);
}

#define HOST_SIZE 256

/* "host:port" apart; host is "" for all interfaces. */
static int split_address(const char *address, char host[HOST_SIZE], const char **ret_port)
{
	const char *colon = strrchr(address, ':');
	uint64_t port;
	size_t size;

	if (!colon || trib_parse_u64(colon + 1, strlen(colon + 1), 0, 65535, &port)) {
		return -EINVAL;
	}
	size = (size_t)(colon - address);
	if (size >= 2 && address[0] == '[' && colon[-1] == ']') {
		address++;
		size -= 2;
	} else if (memchr(address, ':', size)) {
		return -EINVAL; /* IPv6 needs its brackets */
	}
	if (size >= HOST_SIZE) {
		return -ENAMETOOLONG;
	}
	memcpy(host, address, size);
	host[size] = '\0';
	*ret_port = colon + 1;
	return 0;
}

int trib_listen_check(const char *address)
{
	char host[HOST_SIZE];
	const char *port;
	uint64_t number;

	if (strncmp(address, "unix:", 5) == 0) {
		size_t size = strlen(address + 5);

		return size == 0 || size >= sizeof(((struct sockaddr_un *)NULL)->sun_path) ? -EINVAL
											   : 0;
	}
	if (strncmp(address, "fd:", 3) == 0) {
		return trib_parse_u64(address + 3, strlen(address + 3), 3, 65535, &number);
	}
	return split_address(address, host, &port);
}

int trib_listen(const char *address, int *ret_fd)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *found = NULL;
	char host[HOST_SIZE];
	const char *port;
	int rc;

	if (strncmp(address, "unix:", 5) == 0) {
		return listen_unix(address + 5, ret_fd);
	}
	if (strncmp(address, "fd:", 3) == 0) {
		return listen_inherited(address + 3, ret_fd);
	}
	rc = split_address(address, host, &port);
	if (rc) {
		return rc;
	}
	rc = -EADDRNOTAVAIL;
	if (getaddrinfo(host[0] ? host : NULL, port, &hints, &found)) {
		return -EADDRNOTAVAIL;
	}
	for (const struct addrinfo *at = found; at && rc; at = at->ai_next) {
		rc = listen_at(at->ai_addr, at->ai_addrlen, ret_fd);
	}
	freeaddrinfo(found);
	return rc;
}

unsigned trib_listen_port(int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &size)) {
		return 0;
	}
	if (address.ss_family == AF_INET) {
		return ntohs(((const struct sockaddr_in *)&address)->sin_port);
	}
	if (address.ss_family == AF_INET6) {
		return ntohs(((const struct sockaddr_in6 *)&address)->sin6_port);
	}
	return 0;
}

/* ---- callbacks and freeing ---- */

void httpd_enter(struct trib_httpd *httpd)
{
	httpd->depth++;
}

void httpd_leave(struct trib_httpd *httpd)
{
	TRIB_ASSERT(httpd->depth > 0);
	if (--httpd->depth == 0 && httpd->freed) {
		trib_free(httpd);
	}
}

const char *httpd_date(struct trib_httpd *httpd)
{
	static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
					    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t now = (time_t)(trib_wall_ms() / 1000);
	struct tm tm;

	if ((uint64_t)now != httpd->date_second && gmtime_r(&now, &tm)) {
		httpd->date_second = (uint64_t)now;
		(void)snprintf(httpd->date, sizeof(httpd->date),
			       "%s, %02u %s %04u %02u:%02u:%02u GMT",
			       days[(unsigned)tm.tm_wday % 7], (unsigned)tm.tm_mday % 100,
			       months[(unsigned)tm.tm_mon % 12],
			       (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 100,
			       (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
	}
	return httpd->date;
}

/* ---- accepting ---- */

static void refuse(struct trib_httpd *httpd, int fd)
{
	ssize_t n;

	httpd->stats.connections_refused++;
	if (httpd->tls) { /* no handshake for those: an answer would need one */
		(void)close(fd);
		return;
	}
	n = send(fd, httpd->busy_reply, httpd->busy_reply_size, MSG_NOSIGNAL | MSG_DONTWAIT);
	httpd->stats.replies_by_class[5] += n > 0;
	/* Half-close and drain, else a request already in flight would turn our 503 into a reset;
	 * but only a few at a time, since these are the ones too many. */
	(void)shutdown(fd, SHUT_WR);
	if (httpd->refused_open >= HTTPD_REFUSED_MAX || httpd_conn_new(httpd, fd, true)) {
		(void)close(fd);
	}
}

static void pause_accepting(struct trib_httpd *httpd)
{
	httpd->stats.accept_pauses++;
	if (trib_io_set(httpd->listen_io, TRIB_IO_NONE)) {
		return; /* cannot fail for NONE; if it did, the loop goes on accepting */
	}
	trib_timer_after(httpd->accept_again, HTTPD_ACCEPT_PAUSE_MS);
}

static void on_accept_again(void *arg)
{
	struct trib_httpd *httpd = arg;

	if (trib_io_set(httpd->listen_io, TRIB_IO_READ)) {
		trib_timer_after(httpd->accept_again, HTTPD_ACCEPT_PAUSE_MS);
	}
}

static void on_accept(int listen_fd, unsigned ready, void *arg)
{
	struct trib_httpd *httpd = arg;
	int one = 1;

	(void)ready;
	for (int i = 0; i < HTTPD_ACCEPTS_MAX; i++) {
		int fd;

		if (httpd->limits.conns_own &&
		    httpd->stats.connections_open >= httpd->limits.conns_own) {
			pause_accepting(httpd);
			return;
		}
		fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && errno == EAGAIN) {
			return;
		}
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)) {
			continue;
		}
		if (fd < 0) { /* EMFILE, ENFILE, ENOBUFS, ENOMEM ..: it would only spin */
			pause_accepting(httpd);
			return;
		}
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		uint64_t open =
			httpd->limits.conns_together
				? __atomic_load_n(httpd->limits.conns_together, __ATOMIC_RELAXED)
				: httpd->stats.connections_open;

		if (open >= httpd->limits.conns_max) { /* loops racing here may pass by a few */
			refuse(httpd, fd);
		} else if (httpd_conn_new(httpd, fd, false)) {
			(void)close(fd);
			pause_accepting(httpd);
			return;
		}
	}
}

/* ---- timers ---- */

static void on_turn(void *arg)
{
	struct trib_httpd *httpd = arg;

	httpd_enter(httpd);
	httpd->turn_armed = false; /* what is scheduled from here on arms it again */
	for (size_t left = httpd->turn_count; left && !httpd->freed; left--) {
		struct httpd_conn *conn = TAILQ_FIRST(&httpd->turns);

		if (!conn) {
			break; /* a callback ended some of them */
		}
		httpd_conn_serve(conn);
	}
	httpd_leave(httpd);
}

/* The loop was held up (a stopped process, a slow callback): that is not the clients' fault. */
static void forgive(struct trib_httpd *httpd, uint64_t late_ms)
{
	struct httpd_conn *conn;

	for (int class = 0; class < HTTPD_CLASS_COUNT; class ++) {
		TAILQ_FOREACH(conn, &httpd->classes[class], in_class) {
			conn->deadline_ms += late_ms;
		}
	}
}

/* Without read interest a reset goes unnoticed: look at some of those connections in turn. */
static void check_deaf(struct trib_httpd *httpd)
{
	struct httpd_conns *list = &httpd->classes[HTTPD_CLASS_DEAF];
	struct httpd_conn *conns[HTTPD_DEAF_CHECKS];
	struct pollfd fds[HTTPD_DEAF_CHECKS];
	nfds_t count = 0;
	struct httpd_conn *conn;

	TAILQ_FOREACH(conn, list, in_class) {
		if (count == HTTPD_DEAF_CHECKS) {
			break;
		}
		conns[count] = conn;
		fds[count++] = (struct pollfd){ .fd = conn->fd };
	}
	for (nfds_t i = 0; i < count; i++) {
		TAILQ_REMOVE(list, conns[i], in_class);
		TAILQ_INSERT_TAIL(list, conns[i], in_class);
	}
	if (count == 0 || poll(fds, count, 0) <= 0) {
		return;
	}
	for (nfds_t i = 0; i < count; i++) {
		if (fds[i].revents & (POLLERR | POLLHUP)) {
			conns[i]->dead =
				true; /* freed on the turn list: callbacks may free others */
			httpd_conn_schedule(conns[i]);
		}
	}
}

static void on_tick(void *arg)
{
	struct trib_httpd *httpd = arg;
	uint64_t now = trib_clock_ms();

	httpd_enter(httpd);
	if (now > httpd->tick_due_ms + UINT64_C(4) * HTTPD_TICK_MS) {
		forgive(httpd, now - httpd->tick_due_ms);
	}
	httpd->tick_due_ms = now + HTTPD_TICK_MS;
	for (int class = HTTPD_CLASS_IDLE; class <= HTTPD_CLASS_LINGER; class ++) {
		struct httpd_conn *conn;

		while (!httpd->freed && (conn = TAILQ_FIRST(&httpd->classes[class])) &&
		       conn->deadline_ms <= now) {
			httpd_conn_expired(conn, now);
		}
	}
	if (!httpd->freed) {
		check_deaf(httpd);
	}
	if (!httpd->freed && httpd->stats.connections_open == 0 && httpd->refused_open == 0) {
		trib_timer_stop(httpd->tick); /* nobody is there: no processor time at all */
		httpd->ticking = false;
	}
	httpd_leave(httpd);
}

void httpd_tick_start(struct trib_httpd *httpd)
{
	if (!httpd->ticking) {
		httpd->ticking = true;
		httpd->tick_due_ms = trib_clock_ms() + HTTPD_TICK_MS;
		trib_timer_every(httpd->tick, HTTPD_TICK_MS);
	}
}

/* ---- making and freeing ---- */

static void make_busy_reply(struct trib_httpd *httpd)
{
	char body[512];
	size_t size = trib_problem_print(TRIB_PROBLEM_UNAVAILABLE, "too many connections", 1000,
					 NULL, body, sizeof(body));
	int n = snprintf(httpd->busy_reply, sizeof(httpd->busy_reply),
			 "HTTP/1.1 503 %s\r\nServer: tributary\r\nRetry-After: 1\r\n"
			 "Content-Type: application/problem+json\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n%s",
			 trib_http_reason(503), size, body);

	TRIB_ASSERT(n > 0 && (size_t)n < sizeof(httpd->busy_reply));
	httpd->busy_reply_size = (size_t)n;
}

int trib_httpd_new(struct trib_loop *loop, int listen_fd, const struct trib_httpd_limits *limits,
		   const struct trib_httpd_handler *handler, struct trib_httpd **ret_httpd)
{
	struct trib_httpd *httpd = trib_alloc(sizeof(*httpd));
	int rc;

	if (!httpd) {
		return -ENOMEM;
	}
	httpd->loop = loop;
	httpd->listen_fd = listen_fd;
	httpd->limits = limits ? *limits : trib_httpd_limits_default;
	httpd->handler = *handler;
	TAILQ_INIT(&httpd->turns);
	for (int i = 0; i < HTTPD_CLASS_COUNT; i++) {
		TAILQ_INIT(&httpd->classes[i]);
	}
	make_busy_reply(httpd);
	rc = trib_timer_new(loop, on_tick, httpd, &httpd->tick);
	if (rc == 0) {
		rc = trib_timer_new(loop, on_turn, httpd, &httpd->turn);
	}
	if (rc == 0) {
		rc = trib_timer_new(loop, on_accept_again, httpd, &httpd->accept_again);
	}
	if (rc == 0) {
		rc = trib_io_new(loop, listen_fd, TRIB_IO_READ, on_accept, httpd,
				 &httpd->listen_io);
	}
	if (rc) {
		(void)trib_httpd_free(httpd);
		return rc;
	}
	*ret_httpd = httpd;
	return 0;
}

struct trib_httpd *trib_httpd_free(struct trib_httpd *httpd)
{
	if (!httpd || httpd->freed) {
		return NULL;
	}
	httpd_enter(httpd);
	httpd->freed = true; /* from here on nothing is scheduled */
	httpd->listen_io = trib_io_free(httpd->listen_io);
	httpd->tick = trib_timer_free(httpd->tick);
	httpd->turn = trib_timer_free(httpd->turn);
	httpd->accept_again = trib_timer_free(httpd->accept_again);
	for (int i = 0; i < HTTPD_CLASS_COUNT; i++) {
		struct httpd_conn *conn = TAILQ_FIRST(&httpd->classes[i]);

		while (conn) {
			struct httpd_conn *next = TAILQ_NEXT(conn, in_class);

			if (conn->busy) {
				conn->dead = true; /* its own turn ends it on the way out */
			} else {
				httpd_conn_destroy(conn);
			}
			conn = next;
		}
	}
	httpd_leave(httpd);
	return NULL;
}

const struct trib_httpd_stats *trib_httpd_stats(const struct trib_httpd *httpd)
{
	return &httpd->stats;
}
