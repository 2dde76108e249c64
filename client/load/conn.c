/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#include "client/load/client.h"
#include "client/load/reply.h"
#include "common/clock.h"

#define VECTORS          32
#define READS_PER_TURN   16
#define SOURCE_CLIENTS   20000u /* per source address: ephemeral ports are about 28000 */
#define PACE_MS          50
#define IDLE_NS          1000000000ull
#define SEND_PER_TURN    (4u << 20)
#define REPLY_MAX        (64u << 10)
#define DISCARD_PER_READ (1u << 20)

enum conn_state {
	CONN_CONNECTING,
	CONN_SHAKING, /* TLS */
	CONN_OPEN,
};

struct load_conn {
	struct load_worker *worker;
	struct load_client *client;
	struct trib_io *io;
	struct trib_tls_session *tls;
	int fd;
	uint8_t state;
	bool under_way; /* a request is */
	bool reused;    /* it is not the first one */
	bool heard;     /* something of the answer came */
	bool payload;
	bool stops;
	uint8_t variant;
	char *head; /* what of the head is not sent yet, owned */
	uint32_t head_size;
	uint32_t head_at;
	uint64_t body_at;
	uint64_t body_end;
	uint64_t pace;
	uint64_t deadline_ns;
	uint64_t answered_ns; /* the last answer was complete then */
	char *in;             /* an answer that came in pieces, owned */
	uint32_t in_size;
	struct load_reply_head reply;
	uint64_t discard; /* body bytes to throw away */
	bool discarding;
};

static void flush(struct load_conn *conn);

/* ---- ends ---- */

static void conn_free(struct load_conn *conn)
{
	struct load_worker *worker = conn->worker;

	conn->client->conn = NULL;
	conn->tls = trib_tls_session_free(conn->tls);
	conn->io = trib_io_free(conn->io);
	if (conn->fd >= 0) {
		(void)close(conn->fd);
	}
	trib_free(conn->head);
	trib_free(conn->in);
	trib_free(conn);
	load_add(worker, LOAD_CONNS, -1);
	load_conn_freed(worker);
}

void load_conn_close(struct load_worker *worker, struct load_client *client)
{
	if (client->queued) {
		TAILQ_REMOVE(&worker->starved, client, queue);
		client->queued = false;
	}
	if (client->conn) {
		if (client->conn->tls) {
			trib_tls_close_notify(client->conn->tls);
		}
		conn_free(client->conn);
	}
}

static bool all_sent(const struct load_conn *conn)
{
	return !conn->head && conn->body_at >= conn->body_end;
}

bool load_conn_all_sent(const struct load_client *client)
{
	return client->conn && client->conn->payload && all_sent(client->conn);
}

/* The client may do anything with itself in the callback. */
static void lose(struct load_conn *conn, enum load_trouble trouble)
{
	struct load_worker *worker = conn->worker;
	struct load_client *client = conn->client;
	/* A service closes what was idle for long; one that cuts a busy connection is at fault. */
	bool stale = conn->reused && !conn->heard && trouble == LOAD_TROUBLE_RESET &&
		     client->sent_ns - conn->answered_ns >= IDLE_NS;
	bool under_way = conn->under_way;

	client->ambiguous |= under_way && conn->payload && !conn->stops && all_sent(conn);
	conn_free(conn);
	if (under_way) {
		load_client_failed(worker, client, trouble, stale);
	}
}

/* ---- sending ---- */

static void want(struct load_conn *conn, bool write)
{
	unsigned interest = TRIB_IO_READ | (write ? TRIB_IO_WRITE : 0u);

	if (conn->state == CONN_CONNECTING) {
		interest = TRIB_IO_WRITE;
	} else if (conn->tls) {
		interest = trib_tls_interest(conn->tls, interest);
	}
	if (trib_io_set(conn->io, interest)) {
		conn->deadline_ns = 1; /* cannot be polled: late */
		load_timer_set(conn->worker, conn->client, 1);
	}
}

static int fill(const struct load_conn *conn, uint64_t budget, struct iovec *vectors)
{
	uint64_t end =
		conn->body_end - conn->body_at > budget ? conn->body_at + budget : conn->body_end;
	int count = 0;

	if (conn->head) {
		uint64_t size = conn->head_size - conn->head_at;
		bool slow = conn->pace && !conn->payload;

		vectors[count++] = (struct iovec){ conn->head + conn->head_at,
						   slow && size > budget ? budget : size };
		if (slow) {
			return count;
		}
	}
	if (conn->payload) {
		count += load_payload_vectors(&conn->worker->run->payload, conn->variant,
					      conn->body_at, end, vectors + count, VECTORS - count);
	}
	return count;
}

static ssize_t put(struct load_conn *conn, struct iovec *vectors, int count)
{
	struct msghdr message = { .msg_iov = vectors, .msg_iovlen = (size_t)count };

	if (conn->tls) {
		return trib_tls_write(conn->tls, vectors, count);
	}
	return sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void took(struct load_conn *conn, uint64_t size)
{
	load_add(conn->worker, LOAD_BYTES_UP, (int64_t)size);
	if (conn->head) {
		uint64_t head = conn->head_size - conn->head_at;

		head = head < size ? head : size;
		conn->head_at += (uint32_t)head;
		size -= head;
		if (conn->head_at == conn->head_size) {
			trib_free(conn->head);
			conn->head = NULL;
		}
	}
	conn->body_at += size;
}

/* When there is more: at the next pace, or when the socket has room. */
static void sent_some(struct load_conn *conn)
{
	uint64_t now = trib_clock_ns();

	if (all_sent(conn)) {
		want(conn, false);
		load_timer_set(conn->worker, conn->client, conn->stops ? now : conn->deadline_ns);
	} else if (conn->pace) {
		uint64_t step = conn->pace * PACE_MS / 1000 ? PACE_MS * 1000000ull
							    : 1000000000ull / conn->pace;

		want(conn, false);
		load_timer_set(conn->worker, conn->client,
			       now + step < conn->deadline_ns ? now + step : conn->deadline_ns);
	} else {
		want(conn, true);
	}
}

static void flush(struct load_conn *conn)
{
	uint64_t budget = conn->pace ? conn->pace * PACE_MS / 1000 : SEND_PER_TURN;
	struct iovec vectors[VECTORS];
	uint64_t done = 0;

	budget = budget ? budget : 1;
	while (!all_sent(conn) && done < budget) {
		int count = fill(conn, budget - done, vectors);
		ssize_t n = put(conn, vectors, count);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET) && !conn->tls) {
			/* The service may have answered before it closed. */
			conn->body_at = conn->body_end;
			trib_free(conn->head);
			conn->head = NULL;
			conn->payload = false;
			want(conn, false);
			return;
		}
		if (n < 0) {
			if (errno != EAGAIN) {
				conn->deadline_ns = 1;
				load_timer_set(conn->worker, conn->client, 1);
				return;
			}
			want(conn, true);
			return;
		}
		took(conn, (uint64_t)n);
		done += (uint64_t)n;
	}
	sent_some(conn);
}

enum load_conn_due load_conn_due(struct load_worker *worker, struct load_client *client)
{
	struct load_conn *conn = client->conn;

	if (conn && conn->stops && all_sent(conn)) {
		return LOAD_CONN_STOPPED;
	}
	if (!conn || trib_clock_ns() >= conn->deadline_ns) {
		if (conn) {
			client->ambiguous |= conn->payload && !conn->stops && all_sent(conn);
			conn_free(conn);
		}
		return LOAD_CONN_LATE;
	}
	load_timer_set(worker, client, conn->deadline_ns);
	if (conn->state == CONN_OPEN && !all_sent(conn)) {
		flush(conn);
	}
	return LOAD_CONN_FINE;
}

/* ---- receiving ---- */

static void answered(struct load_conn *conn, const char *body, uint64_t size)
{
	struct load_worker *worker = conn->worker;
	struct load_client *client = conn->client;
	struct load_reply reply = { conn->reply.status, size, body, conn->reply.retry_after };

	conn->under_way = false;
	conn->discarding = false;
	conn->answered_ns = trib_clock_ns();
	load_timer_stop(client);
	load_add(worker, LOAD_BYTES_DOWN, (int64_t)(conn->reply.head_size + size));
	if (conn->reply.close || !all_sent(conn)) {
		conn_free(conn);
	}
	load_client_answer(worker, client, &reply);
}

/* Bytes of an answer in data[0..size), terminated. False: more is needed or the connection gone. */
static bool take_bytes(struct load_conn *conn, char *data, size_t size)
{
	const char *head_end;
	uint64_t body;

	if (!conn->under_way) { /* an answer nobody asked for: a service that says goodbye */
		conn_free(conn);
		return false;
	}
	head_end = memmem(data, size, "\r\n\r\n", 4);
	if (!head_end) {
		return true;
	}
	conn->reply.head_size = (uint32_t)(head_end - data) + 4;
	if (load_reply_head_read(data, conn->reply.head_size, &conn->reply)) {
		lose(conn, LOAD_TROUBLE_ANSWER);
		return false;
	}
	if (conn->reply.status == 100) {
		lose(conn, LOAD_TROUBLE_ANSWER); /* never asked for */
		return false;
	}
	body = size - conn->reply.head_size;
	if (conn->client->step == LOAD_STEP_MODEL && conn->reply.status == 200 &&
	    body < conn->reply.length) {
		conn->discarding = true;
		conn->discard = conn->reply.length - body;
		conn->in_size = 0;
		return true;
	}
	if (conn->reply.length > REPLY_MAX && !(conn->client->step == LOAD_STEP_MODEL)) {
		lose(conn, LOAD_TROUBLE_ANSWER);
		return false;
	}
	if (body < conn->reply.length) {
		return true;
	}
	if (conn->client->step == LOAD_STEP_MODEL && conn->reply.status == 200) {
		answered(conn, "", conn->reply.length);
	} else {
		answered(conn, data + conn->reply.head_size, conn->reply.length);
	}
	return false;
}

/* Keeps what came for the next turn. */
static bool stash(struct load_conn *conn, const char *data, size_t size)
{
	char *more = trib_realloc(conn->in, size + 1);

	if (!more || size > REPLY_MAX + LOAD_REPLY_HEAD_MAX) {
		conn->in = more ? more : conn->in;
		lose(conn, LOAD_TROUBLE_ANSWER);
		return false;
	}
	memcpy(more, data, size);
	conn->in = more;
	conn->in_size = (uint32_t)size;
	return true;
}

static ssize_t get(struct load_conn *conn, char *room, size_t size)
{
	struct iovec vector = { room, size };

	if (conn->tls) {
		return trib_tls_read(conn->tls, &vector, 1);
	}
	return recv(conn->fd, room, size, MSG_DONTWAIT);
}

/* True: go on. */
static bool read_model(struct load_conn *conn)
{
	char *scratch = conn->worker->scratch;
	uint64_t size = conn->discard < DISCARD_PER_READ ? conn->discard : DISCARD_PER_READ;
	ssize_t n;

	if (conn->tls) {
		n = get(conn, scratch, size < LOAD_SCRATCH ? size : LOAD_SCRATCH);
	} else {
		n = recv(conn->fd, NULL, size, MSG_DONTWAIT | MSG_TRUNC);
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (n <= 0) {
		lose(conn, LOAD_TROUBLE_RESET);
		return false;
	}
	conn->discard -= (uint64_t)n;
	if (conn->discard == 0) {
		answered(conn, "", conn->reply.length);
		return false;
	}
	return true;
}

/* True: go on. */
static bool read_some(struct load_conn *conn)
{
	char *scratch = conn->worker->scratch;
	size_t have = conn->in_size;
	ssize_t n;

	if (conn->discarding) {
		return read_model(conn);
	}
	if (have) {
		memcpy(scratch, conn->in, have);
	}
	n = get(conn, scratch + have, LOAD_SCRATCH - have);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return false;
	}
	if (n <= 0) {
		lose(conn, LOAD_TROUBLE_RESET);
		return false;
	}
	conn->heard = true;
	scratch[have + (size_t)n] = '\0';
	if (!take_bytes(conn, scratch, have + (size_t)n)) {
		return false;
	}
	return conn->discarding || stash(conn, scratch, have + (size_t)n);
}

/* ---- the socket ---- */

/* False: not open yet, or gone. */
static bool open_up(struct load_conn *conn)
{
	int error = 0;
	socklen_t size = sizeof(error);
	int rc;

	if (conn->state == CONN_CONNECTING) {
		if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
			lose(conn, LOAD_TROUBLE_CONNECT);
			return false;
		}
		conn->state = conn->worker->run->tls ? CONN_SHAKING : CONN_OPEN;
		if (conn->state == CONN_SHAKING &&
		    trib_tls_session_new(conn->worker->run->tls, conn->fd, &conn->tls)) {
			lose(conn, LOAD_TROUBLE_LOCAL);
			return false;
		}
	}
	if (conn->state == CONN_SHAKING) {
		rc = trib_tls_handshake(conn->tls);
		if (rc == -EAGAIN) {
			want(conn, false);
			return false;
		}
		if (rc) {
			if (!conn->worker->sampled) {
				(void)snprintf(conn->worker->sample, sizeof(conn->worker->sample),
					       "TLS: %s", trib_tls_why(conn->tls));
				__atomic_store_n(&conn->worker->sampled, true, __ATOMIC_RELEASE);
			}
			lose(conn, LOAD_TROUBLE_TLS);
			return false;
		}
		conn->state = CONN_OPEN;
	}
	return true;
}

static void on_io(int fd, unsigned ready, void *arg)
{
	struct load_conn *conn = arg;
	struct load_client *client = conn->client;

	(void)fd;
	if (conn->state != CONN_OPEN) {
		if (open_up(conn)) {
			flush(conn);
		}
		return;
	}
	if (conn->tls) {
		ready = trib_tls_ready(conn->tls, ready);
	}
	if (ready & TRIB_IO_READ) {
		for (int i = 0; i < READS_PER_TURN && read_some(conn); i++) {
		}
		if (client->conn != conn) {
			return;
		}
	}
	if ((ready & TRIB_IO_WRITE) && !all_sent(conn)) {
		flush(conn);
	} else if (conn->tls) {
		want(conn, !all_sent(conn) && !conn->pace);
	}
}

/* Loopback has room for 65535 - 1024 ports per source address only. */
static int choose_source(const struct load_worker *worker, const struct load_client *client, int fd)
{
	uint64_t index =
		(uint64_t)(client - worker->clients) * worker->run->plan->threads + worker->index;
	uint32_t host = 0x7f000002u + (uint32_t)(index / SOURCE_CLIENTS % 65000);
	struct sockaddr_in source = { .sin_family = AF_INET, .sin_addr = { htonl(host) } };
	int one = 1;

	if (!worker->run->loopback || index < SOURCE_CLIENTS) {
		return 0;
	}
	if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) ||
	    bind(fd, (const struct sockaddr *)&source, sizeof(source))) {
		return -errno;
	}
	return 0;
}

static int connect_socket(struct load_worker *worker, struct load_client *client,
			  struct load_conn *conn)
{
	const struct load_run *run = worker->run;
	int one = 1;
	int rc;

	conn->fd = socket(run->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->fd < 0) {
		return -errno;
	}
	(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	rc = choose_source(worker, client, conn->fd);
	if (rc) {
		return rc;
	}
	if (connect(conn->fd, (const struct sockaddr *)&run->address, run->address_size) &&
	    errno != EINPROGRESS) {
		return -errno;
	}
	return trib_io_new(worker->loop, conn->fd, TRIB_IO_WRITE, on_io, conn, &conn->io);
}

static int conn_new(struct load_worker *worker, struct load_client *client)
{
	struct load_conn *conn;
	int rc;

	if (worker->counts[LOAD_CONNS] >= worker->conns_max) {
		if (!client->queued) {
			TAILQ_INSERT_TAIL(&worker->starved, client, queue);
			client->queued = true;
			load_add(worker, LOAD_CONN_WAITS, 1);
		}
		return -EBUSY;
	}
	conn = trib_alloc(sizeof(*conn));
	if (!conn) {
		return -ENOMEM;
	}
	conn->worker = worker;
	conn->client = client;
	conn->fd = -1;
	client->conn = conn;
	load_add(worker, LOAD_CONNS, 1);
	rc = connect_socket(worker, client, conn);
	if (rc) {
		conn_free(conn);
		return rc;
	}
	load_add(worker, LOAD_CONNECTS, 1);
	return 0;
}

int load_conn_request(struct load_worker *worker, struct load_client *client,
		      const struct load_request *request)
{
	bool reused = client->conn != NULL;
	struct load_conn *conn;
	int rc = reused ? 0 : conn_new(worker, client);

	if (rc) {
		return rc;
	}
	conn = client->conn;
	conn->head = trib_alloc(request->head_size);
	if (!conn->head) {
		conn_free(conn);
		return -ENOMEM;
	}
	memcpy(conn->head, worker->head, request->head_size);
	conn->head_size = (uint32_t)request->head_size;
	conn->head_at = 0;
	conn->payload = request->payload;
	conn->variant = (uint8_t)request->variant;
	conn->body_at = 0;
	conn->body_end = request->payload ? request->body_end : 0;
	conn->pace = request->pace;
	conn->stops = request->stops;
	conn->reused = reused;
	conn->heard = false;
	conn->under_way = true;
	conn->discarding = false;
	trib_free(conn->in);
	conn->in = NULL;
	conn->in_size = 0;
	client->sent_ns = trib_clock_ns();
	conn->deadline_ns = client->sent_ns + request->timeout_ms * 1000000ull;
	load_timer_set(worker, client, conn->deadline_ns);
	if (conn->state == CONN_OPEN) {
		flush(conn);
	}
	return 0;
}
