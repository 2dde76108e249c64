/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bpf/loader.h"
#include "bpf/pair.h"
#include "bpf/route.h"
#include "common/log.h"
#include "shm/descriptor_check.h"

#define ENDPOINTS_MAX TRIB_MAP_ROUTES_MAX
#define BUCKETS       1024u
#define TURN_MAX      256u /* descriptors read of one socket per turn of the loop */
#define QUEUE_MIN     16u
#define QUEUE_MAX     4096u /* descriptors waiting for one receiver (relay) */
#define SELF_TEST_MS  100
#define EXPLAIN_SIZE  (TRIB_ROUTER_WHY_SIZE + 64)
#define REMAKES_MAX   16 /* of the forwarding socket in the transport's life */

struct trib_endpoint {
	struct trib_transport *transport;
	struct trib_endpoint *next; /* in its bucket */
	struct trib_endpoint *next_touched;
	bool touched;
	uint32_t route;
	uint32_t job;
	int peer_fd;
	struct trib_io *io;
	void (*closed)(void *arg);
	void *arg;
	bool gone;   /* EOF or error was read: closed() has been called */
	bool broken; /* writing failed; the EOF is yet to be read */
	struct trib_descriptor_reader reader;
	struct trib_route_stats stats; /* relay */
	struct trib_map_work work;     /* relay */
	struct trib_descriptor *queue; /* ring of queue_size, a power of two (relay) */
	uint32_t queue_size;
	uint32_t queue_head;
	uint32_t queue_count;
	uint32_t head_sent; /* bytes of the first that are written */
};

/* skmsg: where dead letters that may travel after all re-enter the kernel. Were they written on
 * the receiver's peer end, TCP and redirected bytes would mix on the receiver's socket and could
 * tear a descriptor apart. What cannot be redirected from here comes back on peer_fd: dropped. */
struct trib_forwarder {
	int fd;
	int peer_fd;
	struct trib_io *io;
	struct trib_descriptor_reader reader;
	uint32_t remakes;
};

struct trib_transport {
	struct trib_loop *loop;
	struct trib_router *router; /* skmsg, else NULL */
	struct trib_forwarder forwarder;
	char explain[EXPLAIN_SIZE];
	uint32_t endpoint_count;
	struct trib_endpoint *buckets[BUCKETS];
	struct trib_endpoint *touched; /* receivers to flush at the end of this turn */
	uint64_t relayed;
	uint64_t dead_letters;
	uint64_t refused[TRIB_ROUTE_VERDICTS];
	struct trib_descriptor turn[TURN_MAX];
};

_Static_assert(BUCKETS == 1u << (32 - 22), "bucket_of gives ten bits");

static __thread char failure[EXPLAIN_SIZE] = "no failure";

/* Fibonacci hashing: routes are job * 1024 + a small index. */
static uint32_t bucket_of(uint32_t route)
{
	return (route * 2654435769u) >> 22;
}

static struct trib_endpoint *find(const struct trib_transport *transport, uint32_t route)
{
	struct trib_endpoint *endpoint = transport->buckets[bucket_of(route)];

	while (endpoint && endpoint->route != route) {
		endpoint = endpoint->next;
	}
	return endpoint;
}

static void refuse(struct trib_transport *transport, enum trib_route_verdict verdict, uint32_t from,
		   uint32_t to)
{
	transport->refused[verdict]++;
	log_debug("transport", "descriptor dropped verdict=%d from=%u to=%u", (int)verdict, from,
		  to);
}

/* ---- relay: the queue of one receiver ---- */

static bool queue_grow(struct trib_endpoint *endpoint)
{
	uint32_t size = endpoint->queue_size ? endpoint->queue_size * 2 : QUEUE_MIN;
	struct trib_descriptor *queue;

	if (size > QUEUE_MAX) {
		return false;
	}
	queue = trib_alloc_array(size, sizeof(*queue));
	if (!queue) {
		return false;
	}
	for (uint32_t i = 0; i < endpoint->queue_count; i++) {
		queue[i] = endpoint->queue[(endpoint->queue_head + i) & (endpoint->queue_size - 1)];
	}
	trib_free(endpoint->queue);
	endpoint->queue = queue;
	endpoint->queue_size = size;
	endpoint->queue_head = 0;
	return true;
}

static void queue_drop(struct trib_endpoint *endpoint)
{
	for (uint32_t i = 0; i < endpoint->queue_count; i++) {
		refuse(endpoint->transport, TRIB_ROUTE_GONE, 0, endpoint->route);
	}
	endpoint->queue_count = 0;
	endpoint->head_sent = 0;
}

/* As in route.bpf.c. */
static void work_begins(struct trib_endpoint *endpoint, uint32_t now_us)
{
	if (endpoint->route % TRIB_ROUTES_PER_JOB != 0 && endpoint->work.pending++ == 0) {
		endpoint->work.since_us = now_us;
	}
}

static void work_answered(struct trib_endpoint *endpoint)
{
	struct trib_map_work *w = &endpoint->work;
	uint32_t now_us = trib_descriptor_now_us();

	if (w->pending) {
		w->exec_us += trib_route_waited_us(now_us, w->since_us);
		w->since_us = now_us;
		w->pending--;
	}
}

/* `written` more bytes left the queue: whole descriptors are counted and forgotten. */
static void queue_advance(struct trib_endpoint *endpoint, size_t written)
{
	uint32_t now_us = trib_descriptor_now_us();
	size_t bytes = endpoint->head_sent + written;

	while (bytes >= TRIB_DESCRIPTOR_SIZE) {
		const struct trib_descriptor *head = &endpoint->queue[endpoint->queue_head];

		TRIB_ASSERT(endpoint->queue_count > 0);
		endpoint->stats.messages++;
		endpoint->stats.bytes += TRIB_DESCRIPTOR_SIZE;
		endpoint->stats.queue_us += trib_route_waited_us(now_us, head->sent_us);
		endpoint->transport->relayed++;
		if (trib_route_wants_answer(head, head + 1)) {
			work_begins(endpoint, now_us);
		}
		endpoint->queue_head = (endpoint->queue_head + 1) & (endpoint->queue_size - 1);
		endpoint->queue_count--;
		bytes -= TRIB_DESCRIPTOR_SIZE;
	}
	endpoint->head_sent = (uint32_t)bytes;
}

static ssize_t queue_write(struct trib_endpoint *endpoint)
{
	uint32_t first = endpoint->queue_size - endpoint->queue_head;
	uint8_t *start = (uint8_t *)&endpoint->queue[endpoint->queue_head];
	struct iovec parts[2];
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 1 };
	ssize_t n;

	if (first > endpoint->queue_count) {
		first = endpoint->queue_count;
	}
	parts[0].iov_base = start + endpoint->head_sent;
	parts[0].iov_len = (size_t)first * TRIB_DESCRIPTOR_SIZE - endpoint->head_sent;
	if (first < endpoint->queue_count) {
		parts[1].iov_base = endpoint->queue;
		parts[1].iov_len = (size_t)(endpoint->queue_count - first) * TRIB_DESCRIPTOR_SIZE;
		message.msg_iovlen = 2;
	}
	do {
		n = sendmsg(endpoint->peer_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Bounded by QUEUE_MAX: nothing is added meanwhile. */
static void queue_flush(struct trib_endpoint *endpoint)
{
	while (endpoint->queue_count && !endpoint->broken && !endpoint->gone) {
		ssize_t n = queue_write(endpoint);

		if (n == -EAGAIN || n == 0) {
			break;
		}
		if (n < 0) {
			endpoint->broken = true;
			queue_drop(endpoint);
			break;
		}
		queue_advance(endpoint, (size_t)n);
	}
	if (endpoint->io &&
	    trib_io_set(endpoint->io,
			endpoint->queue_count ? TRIB_IO_READ | TRIB_IO_WRITE : TRIB_IO_READ)) {
		endpoint->broken = true; /* cannot wait for room: never write half again */
		queue_drop(endpoint);
	}
}

static enum trib_route_verdict queue_add(struct trib_endpoint *to,
					 const struct trib_descriptor *letter)
{
	if (to->queue_count == to->queue_size && !queue_grow(to)) {
		return TRIB_ROUTE_FULL;
	}
	to->queue[(to->queue_head + to->queue_count) & (to->queue_size - 1)] = *letter;
	to->queue_count++;
	if (!to->touched) {
		to->touched = true;
		to->next_touched = to->transport->touched;
		to->transport->touched = to;
	}
	return TRIB_ROUTE_OK;
}

static void flush_touched(struct trib_transport *transport)
{
	while (transport->touched) {
		struct trib_endpoint *endpoint = transport->touched;

		transport->touched = endpoint->next_touched;
		endpoint->next_touched = NULL;
		endpoint->touched = false;
		queue_flush(endpoint);
	}
}

/* ---- skmsg: the forwarding socket ---- */

static void forwarder_close(struct trib_transport *transport)
{
	struct trib_forwarder *forwarder = &transport->forwarder;

	trib_router_close(transport->router, TRIB_ROUTE_SELF);
	forwarder->io = trib_io_free(forwarder->io);
	if (forwarder->fd >= 0) {
		(void)close(forwarder->fd);
	}
	if (forwarder->peer_fd >= 0) {
		(void)close(forwarder->peer_fd);
	}
	forwarder->fd = -1;
	forwarder->peer_fd = -1;
	forwarder->reader.carried = 0;
}

static void on_returned(int fd, unsigned ready, void *arg)
{
	struct trib_transport *transport = arg;
	int n = trib_descriptor_receive(fd, &transport->forwarder.reader, transport->turn,
					TURN_MAX);

	(void)ready;
	if (n < 0) { /* cannot be: both ends are ours. No spinning if it is. */
		log_debug("transport", "forwarder broken rc=%d", n);
		forwarder_close(transport);
		return;
	}
	for (int i = 0; i < n; i++) {
		refuse(transport, TRIB_ROUTE_GONE, 0, transport->turn[i].route);
	}
}

static int forwarder_open(struct trib_transport *transport)
{
	struct trib_forwarder *forwarder = &transport->forwarder;
	int rc = trib_pair_new(&forwarder->fd, &forwarder->peer_fd);

	if (!rc) {
		rc = trib_router_open(transport->router, TRIB_ROUTE_SELF, TRIB_ROUTE_ANY_JOB,
				      forwarder->fd, forwarder->peer_fd);
	}
	if (!rc) {
		rc = trib_io_new(transport->loop, forwarder->peer_fd, TRIB_IO_READ, on_returned,
				 transport, &forwarder->io);
	}
	if (rc) {
		forwarder_close(transport);
	}
	return rc;
}

static enum trib_route_verdict forward(struct trib_transport *transport,
				       const struct trib_descriptor *letter)
{
	struct trib_forwarder *forwarder = &transport->forwarder;
	int rc;

	if (forwarder->fd < 0) {
		if (forwarder->remakes >= REMAKES_MAX) {
			return TRIB_ROUTE_REDIRECT_FAILED;
		}
		forwarder->remakes++;
		if (forwarder_open(transport)) {
			return TRIB_ROUTE_REDIRECT_FAILED;
		}
	}
	rc = trib_descriptor_send(forwarder->fd, letter);
	if (rc == -EAGAIN) {
		return TRIB_ROUTE_FULL;
	}
	if (rc == -EACCES) { /* SK_DROP, sticky: this socket is done for */
		forwarder_close(transport);
	}
	return rc ? TRIB_ROUTE_REDIRECT_FAILED : TRIB_ROUTE_OK;
}

/* ---- reading a peer end ---- */

static void letter_arrived(struct trib_endpoint *from, const struct trib_descriptor *letter)
{
	struct trib_transport *transport = from->transport;
	enum trib_route_verdict verdict;
	struct trib_endpoint *to = NULL;
	uint32_t route = 0;
	uint32_t sent_us = 0;

	if (transport->router) {
		transport->dead_letters++;
	}
	verdict = trib_route_read(letter, letter + 1, &route, &sent_us);
	if (verdict == TRIB_ROUTE_OK && !trib_descriptor_valid(letter)) {
		verdict = TRIB_ROUTE_INVALID;
	}
	if (verdict == TRIB_ROUTE_OK) {
		to = find(transport, route);
		verdict = trib_route_decide(&from->job, to ? &to->job : NULL);
	}
	if (verdict == TRIB_ROUTE_OK && (to->gone || to->broken)) {
		verdict = TRIB_ROUTE_GONE;
	}
	if (verdict == TRIB_ROUTE_OK) {
		verdict = transport->router ? forward(transport, letter) : queue_add(to, letter);
		work_answered(from);
	}
	if (verdict != TRIB_ROUTE_OK) {
		refuse(transport, verdict, from->route, route);
	}
}

/* The callback may free the endpoint: nothing follows it. */
static void owner_gone(struct trib_endpoint *endpoint)
{
	void (*closed)(void *arg) = endpoint->closed;
	void *arg = endpoint->arg;

	endpoint->gone = true;
	endpoint->io = trib_io_free(endpoint->io);
	if (endpoint->reader.carried) {
		refuse(endpoint->transport, TRIB_ROUTE_BAD_SIZE, endpoint->route, 0);
	}
	queue_drop(endpoint);
	if (endpoint->transport->router) {
		trib_router_shut(endpoint->transport->router, endpoint->route);
	}
	if (closed) {
		closed(arg);
	}
}

static void on_peer(int fd, unsigned ready, void *arg)
{
	struct trib_endpoint *endpoint = arg;
	struct trib_transport *transport = endpoint->transport;
	int n;

	if (ready & TRIB_IO_WRITE) {
		queue_flush(endpoint);
	}
	if (!(ready & TRIB_IO_READ)) {
		return;
	}
	n = trib_descriptor_receive(fd, &endpoint->reader, transport->turn, TURN_MAX);
	for (int i = 0; i < n; i++) {
		letter_arrived(endpoint, &transport->turn[i]);
	}
	flush_touched(transport);
	if (n < 0) {
		owner_gone(endpoint);
	}
}

/* ---- the transport ---- */

/* One descriptor from the forwarding socket to itself, one that must come back as a dead letter:
 * a kernel that loads the program and yet does not deliver is not used. */
static int self_test(struct trib_transport *transport)
{
	struct trib_forwarder *forwarder = &transport->forwarder;
	struct trib_descriptor out[2] = { { .kind = TRIB_DESC_ACK, .route = TRIB_ROUTE_SELF },
					  { .kind = TRIB_DESC_ACK, .route = TRIB_ROUTE_SELF - 1 } };
	const int from[2] = { forwarder->fd, forwarder->peer_fd };

	for (size_t i = 0; i < TRIB_COUNT(out); i++) {
		struct pollfd pollfd = { .fd = from[i], .events = POLLIN };
		struct trib_descriptor in = { 0 };
		int rc;

		trib_descriptor_seal(&out[i]);
		rc = trib_descriptor_send(forwarder->fd, &out[i]);
		if (rc) {
			return rc;
		}
		if (poll(&pollfd, 1, SELF_TEST_MS) != 1 ||
		    recv(from[i], &in, sizeof(in), MSG_DONTWAIT) != sizeof(in) ||
		    memcmp(&in, &out[i], sizeof(in)) != 0) {
			return -EIO;
		}
	}
	return trib_router_totals_reset(transport->router);
}

static int skmsg_start(struct trib_transport *transport, char why[TRIB_ROUTER_WHY_SIZE])
{
	int rc = trib_router_new(why, &transport->router);

	if (rc) {
		return rc;
	}
	rc = forwarder_open(transport);
	if (rc) {
		(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "sockets refused by the maps: %s",
			       strerror(-rc));
	} else {
		rc = self_test(transport);
		if (rc) {
			(void)snprintf(why, TRIB_ROUTER_WHY_SIZE, "self-test failed: %s",
				       strerror(-rc));
			forwarder_close(transport);
		}
	}
	if (rc) {
		transport->router = trib_router_free(transport->router);
	}
	return rc;
}

int trib_transport_new(struct trib_loop *loop, enum trib_transport_mode wanted,
		       struct trib_transport **ret_transport)
{
	struct trib_transport *transport = trib_alloc(sizeof(*transport));
	char why[TRIB_ROUTER_WHY_SIZE] = "";
	int rc;

	if (!transport) {
		(void)snprintf(failure, sizeof(failure), "out of memory");
		return -ENOMEM;
	}
	transport->loop = loop;
	transport->forwarder.fd = -1;
	transport->forwarder.peer_fd = -1;
	if (wanted == TRIB_TRANSPORT_RELAY) {
		(void)snprintf(transport->explain, sizeof(transport->explain),
			       "relay: as configured");
		*ret_transport = transport;
		return 0;
	}
	rc = skmsg_start(transport, why);
	if (rc && wanted == TRIB_TRANSPORT_SKMSG) {
		(void)snprintf(failure, sizeof(failure), "skmsg: %s", why);
		trib_free(transport);
		return rc;
	}
	if (rc) {
		(void)snprintf(transport->explain, sizeof(transport->explain),
			       "relay: skmsg not available: %s", why);
	} else {
		(void)snprintf(transport->explain, sizeof(transport->explain),
			       "skmsg: program loaded, redirect self-test passed");
	}
	*ret_transport = transport;
	return 0;
}

struct trib_transport *trib_transport_free(struct trib_transport *transport)
{
	if (!transport) {
		return NULL;
	}
	TRIB_ASSERT(transport->endpoint_count == 0);
	if (transport->router) {
		forwarder_close(transport);
	}
	(void)trib_router_free(transport->router);
	trib_free(transport);
	return NULL;
}

enum trib_transport_mode trib_transport_mode(const struct trib_transport *transport)
{
	return transport->router ? TRIB_TRANSPORT_SKMSG : TRIB_TRANSPORT_RELAY;
}

const char *trib_transport_explain(const struct trib_transport *transport)
{
	return transport->explain;
}

const char *trib_transport_failure(void)
{
	return failure;
}

void trib_transport_stats(const struct trib_transport *transport,
			  struct trib_transport_stats *ret_stats)
{
	struct trib_transport_stats stats = { .relayed = transport->relayed,
					      .dead_letters = transport->dead_letters };
	uint64_t totals[TRIB_TOTALS];

	for (uint32_t i = 0; i < TRIB_ROUTE_VERDICTS; i++) {
		stats.dropped += transport->refused[i];
	}
	if (transport->router && trib_router_totals(transport->router, totals) == 0) {
		stats.redirected = totals[TRIB_TOTAL_REDIRECTED];
		stats.relayed = totals[TRIB_TOTAL_FORWARDED];
	}
	*ret_stats = stats;
}

uint64_t trib_transport_refused(const struct trib_transport *transport,
				enum trib_route_verdict verdict)
{
	return (uint32_t)verdict < TRIB_ROUTE_VERDICTS ? transport->refused[verdict] : 0;
}

int trib_transport_route_stats(const struct trib_transport *transport, uint32_t route,
			       struct trib_route_stats *ret_stats)
{
	const struct trib_endpoint *endpoint = find(transport, route);
	struct trib_route_stats stats;

	if (!endpoint) {
		return -ENOENT;
	}
	stats = endpoint->stats;
	stats.exec_us = endpoint->work.exec_us;
	if (transport->router) {
		struct trib_map_counters counters;
		int rc = trib_router_counters(transport->router, route, &counters);

		if (rc) {
			return rc;
		}
		stats = (struct trib_route_stats){ .messages = counters.messages,
						   .bytes = counters.bytes,
						   .queue_us = counters.queue_us,
						   .exec_us = trib_router_exec_us(transport->router,
										  route) };
	}
	if (stats.messages == 0) {
		return -ENOENT;
	}
	*ret_stats = stats;
	return 0;
}

/* ---- endpoints ---- */

static int endpoint_connect(struct trib_endpoint *endpoint, int *ret_fd)
{
	struct trib_transport *transport = endpoint->transport;
	int owner_fd = -1;
	int rc = trib_pair_new(&owner_fd, &endpoint->peer_fd);

	if (rc) {
		return rc;
	}
	rc = trib_io_new(transport->loop, endpoint->peer_fd, TRIB_IO_READ, on_peer, endpoint,
			 &endpoint->io);
	if (!rc && transport->router) {
		rc = trib_router_open(transport->router, endpoint->route, endpoint->job, owner_fd,
				      endpoint->peer_fd);
	}
	if (rc) {
		(void)close(owner_fd);
		return rc;
	}
	*ret_fd = owner_fd;
	return 0;
}

static void endpoint_release(struct trib_endpoint *endpoint)
{
	endpoint->io = trib_io_free(endpoint->io);
	if (endpoint->peer_fd >= 0) {
		(void)close(endpoint->peer_fd);
	}
	trib_free(endpoint->queue);
	trib_free(endpoint);
}

int trib_endpoint_new(struct trib_transport *transport, uint32_t route, uint32_t job,
		      void (*closed)(void *arg), void *arg, int *ret_fd,
		      struct trib_endpoint **ret_endpoint)
{
	struct trib_endpoint **bucket = &transport->buckets[bucket_of(route)];
	struct trib_endpoint *endpoint;
	int rc;

	if (job == TRIB_ROUTE_ANY_JOB || route == TRIB_ROUTE_SELF) {
		return -EINVAL;
	}
	if (find(transport, route)) {
		return -EEXIST;
	}
	if (transport->endpoint_count == ENDPOINTS_MAX) {
		return -ENOSPC;
	}
	endpoint = trib_alloc(sizeof(*endpoint));
	if (!endpoint) {
		return -ENOMEM;
	}
	endpoint->transport = transport;
	endpoint->route = route;
	endpoint->job = job;
	endpoint->peer_fd = -1;
	endpoint->closed = closed;
	endpoint->arg = arg;
	rc = endpoint_connect(endpoint, ret_fd);
	if (rc) {
		endpoint_release(endpoint);
		return rc;
	}
	endpoint->next = *bucket;
	*bucket = endpoint;
	transport->endpoint_count++;
	*ret_endpoint = endpoint;
	return 0;
}

struct trib_endpoint *trib_endpoint_free(struct trib_endpoint *endpoint)
{
	struct trib_transport *transport;
	struct trib_endpoint **place;

	if (!endpoint) {
		return NULL;
	}
	transport = endpoint->transport;
	TRIB_ASSERT(!endpoint->touched);
	place = &transport->buckets[bucket_of(endpoint->route)];
	while (*place != endpoint) {
		place = &(*place)->next;
	}
	*place = endpoint->next;
	transport->endpoint_count--;
	if (transport->router) {
		trib_router_close(transport->router, endpoint->route);
	}
	queue_drop(endpoint);
	endpoint_release(endpoint);
	return NULL;
}
