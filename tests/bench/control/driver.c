/* SPDX-License-Identifier: Apache-2.0
 * Load for the control plane: clients over keep-alive connections, one request at a time each.
 *
 *   driver PORT CONNECTIONS CLIENTS UPLOADS BODY JOB [JOB ..]
 *
 * First every client (CLIENTS of each job) checks in once; then the first UPLOADS of each job that
 * were selected upload the file BODY. Per phase one JSON line on stdout with seconds and answers;
 * latencies are percentiles over all requests of the phase. The second phase begins with a byte on
 * stdin. Exits 1 when anything was refused.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base.h"

#define REPLY_MAX  8192
#define BODY_MAX   65536
#define TICKET_MAX 400

struct client {
	uint32_t job;
	uint32_t number;
	uint32_t round;
	uint32_t base;
	char update[40];
	char ticket[TICKET_MAX];
};

struct conn {
	int fd;
	char *request;
	size_t size;
	size_t sent;
	char reply[REPLY_MAX];
	size_t got;
	struct client *client; /* NULL: idle */
	double began;
};

static struct {
	uint16_t port;
	uint32_t per_job;
	uint32_t uploads; /* per job */
	char body[BODY_MAX];
	size_t body_size;
	char **jobs;
	uint32_t job_count;
	struct client *clients;
	uint32_t client_count;
	bool uploading;
	uint32_t next;
	uint32_t open; /* requests under way */
	uint32_t good;
	uint32_t bad;
	uint32_t shown;
	double *latencies;
	uint32_t answers;
} all;

static double now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	(void)fprintf(stderr, "driver: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- requests ---- */

static void checkin_request(struct conn *conn, const struct client *c)
{
	char body[64];
	int size = snprintf(body, sizeof(body), "{\"client_id\":\"c-%u\"}", c->number);
	int n = snprintf(conn->request, REPLY_MAX,
			 "POST /v1/jobs/%s/checkins HTTP/1.1\r\nHost: x\r\n"
			 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			 all.jobs[c->job], size, body);

	conn->size = (size_t)n;
}

static void upload_request(struct conn *conn, const struct client *c)
{
	int n = snprintf(conn->request, REPLY_MAX,
			 "PUT /v1/jobs/%s/updates/%s HTTP/1.1\r\nHost: x\r\n"
			 "Content-Type: application/vnd.safetensors\r\nFL-Ticket: %s\r\n"
			 "FL-Client: c-%u\r\nFL-Round: %u\r\nFL-Base-Version: %u\r\n"
			 "FL-Weight: 1\r\nContent-Length: %zu\r\n\r\n",
			 all.jobs[c->job], c->update, c->ticket, c->number, c->round, c->base,
			 all.body_size);

	memcpy(conn->request + n, all.body, all.body_size);
	conn->size = (size_t)n + all.body_size;
}

static struct client *next_client(void)
{
	while (all.next < all.client_count) {
		struct client *c = &all.clients[all.next++];

		if (!all.uploading || (c->ticket[0] && c->number < all.uploads)) {
			return c;
		}
	}
	return NULL;
}

static void write_some(struct conn *conn)
{
	ssize_t n =
		send(conn->fd, conn->request + conn->sent, conn->size - conn->sent, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN) {
		die("send");
	}
	conn->sent += n > 0 ? (size_t)n : 0;
}

static void start_request(struct conn *conn, struct client *client)
{
	conn->client = client;
	if (!client) {
		return;
	}
	if (all.uploading) {
		upload_request(conn, client);
	} else {
		checkin_request(conn, client);
	}
	conn->sent = 0;
	conn->got = 0;
	conn->began = now();
	all.open++;
	write_some(conn);
}

/* ---- replies ---- */

/* The text between `before` and the next quote; "" when it is not there. */
static void cut(const char *text, const char *before, char *out, size_t size)
{
	const char *at = text ? strstr(text, before) : NULL;
	size_t n;

	out[0] = '\0';
	if (!at) {
		return;
	}
	at += strlen(before);
	n = strcspn(at, "\"");
	if (n < size) {
		memcpy(out, at, n);
		out[n] = '\0';
	}
}

static uint32_t number_after(const char *text, const char *before)
{
	const char *at = text ? strstr(text, before) : NULL;

	return at ? (uint32_t)strtoul(at + strlen(before), NULL, 10) : 0;
}

static bool take_checkin(struct client *c, const char *body)
{
	char url[160];
	const char *slash;

	cut(body, "\"ticket\":\"", c->ticket, sizeof(c->ticket));
	cut(strstr(body, "\"upload\":"), "\"url\":\"", url, sizeof(url));
	slash = strrchr(url, '/');
	c->round = number_after(body, "\"round\":");
	c->base = number_after(body, "\"base_version\":");
	return c->ticket[0] && slash && trib_copy(c->update, sizeof(c->update), slash + 1) == 0;
}

/* True when the whole reply was there: the connection is free again. */
static bool take_reply(struct conn *conn)
{
	char *end;
	size_t length;
	int status;
	bool good;

	conn->reply[conn->got] = '\0';
	end = strstr(conn->reply, "\r\n\r\n");
	if (!end) {
		return false;
	}
	length = number_after(conn->reply, "Content-Length: ");
	if (conn->got < (size_t)(end + 4 - conn->reply) + length) {
		return false;
	}
	status = (int)strtoul(conn->reply + strlen("HTTP/1.1 "), NULL, 10);
	good = all.uploading ? status == 201 : status == 200 && take_checkin(conn->client, end + 4);
	all.good += good;
	all.bad += !good;
	if (!good && all.shown++ < 3) {
		(void)fprintf(stderr, "driver: %.700s\n", conn->reply);
	}
	all.latencies[all.answers++] = now() - conn->began;
	all.open--;
	return true;
}

static void on_ready(struct conn *conn, uint32_t events)
{
	ssize_t n;

	if (!conn->client) {
		return;
	}
	if (conn->sent < conn->size) {
		write_some(conn);
	}
	if (!(events & EPOLLIN)) {
		return;
	}
	n = recv(conn->fd, conn->reply + conn->got, REPLY_MAX - 1 - conn->got, 0);
	if (n <= 0 && errno != EAGAIN) {
		die("connection ended");
	}
	conn->got += n > 0 ? (size_t)n : 0;
	if (take_reply(conn)) {
		start_request(conn, next_client());
	}
}

/* ---- a phase ---- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void phase(int epoll, struct conn *conns, uint32_t count, bool uploading)
{
	double began = now();
	double seconds;

	all.uploading = uploading;
	all.next = all.good = all.bad = all.answers = 0;
	for (uint32_t i = 0; i < count; i++) {
		start_request(&conns[i], next_client());
	}
	while (all.open) {
		struct epoll_event events[256];
		int n = epoll_wait(epoll, events, 256, 30000);

		if (n == 0) {
			die("no answer for 30 s");
		}
		for (int i = 0; i < n; i++) {
			on_ready(events[i].data.ptr, events[i].events);
		}
	}
	seconds = now() - began;
	qsort(all.latencies, all.answers, sizeof(double), by_size);
	(void)printf("{\"phase\": \"%s\", \"good\": %u, \"bad\": %u, \"seconds\": %.4f, "
		     "\"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
		     uploading ? "commit" : "checkin", all.good, all.bad, seconds,
		     all.answers ? all.latencies[all.answers / 2] * 1e3 : 0.0,
		     all.answers ? all.latencies[all.answers * 99ull / 100] * 1e3 : 0.0);
	(void)fflush(stdout);
}

static void read_body(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, all.body, sizeof(all.body));

	if (n <= 0 || (size_t)n > sizeof(all.body) / 2) {
		die(path);
	}
	all.body_size = (size_t)n;
	(void)close(fd);
}

static void connect_one(int epoll, struct conn *conn)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_port = htons(all.port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = conn };
	int one = 1;

	conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&sin, sizeof(sin)) ||
	    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    fcntl(conn->fd, F_SETFL, O_NONBLOCK) ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, conn->fd, &event)) {
		die("connect");
	}
	conn->request = malloc(REPLY_MAX + BODY_MAX);
}

int main(int argc, char **argv)
{
	uint32_t count;
	struct conn *conns;
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (argc < 7) {
		(void)fprintf(stderr, "driver PORT CONNECTIONS CLIENTS UPLOADS BODY JOB ..\n");
		return 2;
	}
	all.port = (uint16_t)strtoul(argv[1], NULL, 10);
	count = (uint32_t)strtoul(argv[2], NULL, 10);
	all.per_job = (uint32_t)strtoul(argv[3], NULL, 10);
	all.uploads = (uint32_t)strtoul(argv[4], NULL, 10);
	read_body(argv[5]);
	all.jobs = argv + 6;
	all.job_count = (uint32_t)argc - 6;
	all.client_count = all.per_job * all.job_count;
	all.clients = calloc(all.client_count, sizeof(*all.clients));
	all.latencies = calloc(all.client_count, sizeof(double));
	conns = calloc(count, sizeof(*conns));
	if (!all.clients || !all.latencies || !conns) {
		die("memory");
	}
	for (uint32_t i = 0; i < all.client_count; i++) { /* jobs in turn */
		all.clients[i].job = i % all.job_count;
		all.clients[i].number = i / all.job_count;
	}
	for (uint32_t i = 0; i < count; i++) {
		connect_one(epoll, &conns[i]);
	}
	phase(epoll, conns, count, false);
	if (all.bad) {
		return 1;
	}
	(void)getchar(); /* whoever measures has read its counters */
	phase(epoll, conns, count, true);
	return all.bad ? 1 : 0;
}
