/* SPDX-License-Identifier: Apache-2.0
 * The client side of the benches, the same for every system that takes bytes over a plain socket:
 * C connections on T event loops send R requests (a head each, then the one body, mapped once),
 * read the answers and tell when the last byte went and how long the answers took. JSON on stdout.
 *
 *   sender -a HOST:PORT|unix:PATH -H HEADS [-b BODY] [-m http|line] [-c CONNS] [-t THREADS]
 *          [-r RATE] [-e] [-w] [-o SAVE]
 *
 * HEADS: per request a little-endian u32 length and so many bytes. -r: open loop, so many requests
 * a second, and latency counts from when a request was due. -e: "\r\n" after the body. -w: lives on
 * until its standard input ends (it takes milliseconds of this machine to give its memory and
 * sockets back). SAVE gets the bodies of the answers in the order of the requests, framed like
 * HEADS. Refusals that say "later" (503, 429) are sent again when they say, or after RETRY_NS.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"

#define ANSWER_MAX  16384u
#define SEND_MAX    (1u << 20)
#define RETRY_NS    5000000u
#define RETRY_MAX_S 60.0
#define THREADS_MAX 16u
#define CODES       600u
#define STALL_MS    120000

struct request {
	const char *head;
	uint32_t head_size;
	uint16_t status;
	uint64_t start_ns; /* when it went, or was due */
	uint64_t answer_ns;
	char *saved;
	uint32_t saved_size;
};

struct conn {
	int fd;
	bool busy;
	bool polls_out;
	bool close;
	uint64_t retry_ns; /* not before */
	struct request *request;
	size_t at; /* bytes of head + body + tail that went */
	size_t got;
	char in[ANSWER_MAX + 1];
};

struct crew {
	pthread_t thread;
	int epoll;
	uint32_t count;
	struct conn *conns;
	uint64_t last_byte_ns;
};

static struct {
	const char *address;
	const char *body;
	size_t body_size;
	const char *tail;
	bool lines;
	bool save;
	double rate;
	struct request *requests;
	uint32_t count;
	uint32_t next;    /* atomic */
	uint32_t retries; /* atomic */
	uint32_t reconnects;
	uint64_t began_ns;
	pthread_barrier_t barrier;
} all = { .tail = "" };

__attribute__((noreturn)) static void die(const char *what)
{
	(void)fprintf(stderr, "sender: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *map_file(const char *path, size_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *memory;

	if (fd < 0 || fstat(fd, &st)) {
		die(path);
	}
	*ret_size = (size_t)st.st_size;
	memory = mmap(NULL, *ret_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (memory == MAP_FAILED) {
		die(path);
	}
	(void)close(fd);
	return memory;
}

static int connect_to(void)
{
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char host[128];
	char *port;
	int one = 1;
	int fd;

	if (strncmp(all.address, "unix:", 5) == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || trib_copy(local.sun_path, sizeof(local.sun_path), all.address + 5) ||
		    connect(fd, (struct sockaddr *)&local, sizeof(local))) {
			die(all.address);
		}
	} else {
		if (trib_copy(host, sizeof(host), all.address) || !(port = strrchr(host, ':'))) {
			die("address");
		}
		*port++ = '\0';
		if (getaddrinfo(host, port, &hints, &found)) {
			die(all.address);
		}
		fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen)) {
			die(all.address);
		}
		freeaddrinfo(found);
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	if (fcntl(fd, F_SETFL, O_NONBLOCK)) {
		die("fcntl");
	}
	return fd;
}

static void poll_for(const struct crew *crew, struct conn *c, int how, bool out)
{
	struct epoll_event event = { .events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c };

	c->polls_out = out;
	if (epoll_ctl(crew->epoll, how, c->fd, &event)) {
		die("epoll_ctl");
	}
}

static void reconnect(const struct crew *crew, struct conn *c)
{
	(void)close(c->fd);
	c->fd = connect_to();
	c->close = false;
	(void)__atomic_add_fetch(&all.reconnects, 1, __ATOMIC_RELAXED);
	poll_for(crew, c, EPOLL_CTL_ADD, false);
}

/* What is left of head, body and tail, at most SEND_MAX. */
static int pieces(const struct conn *c, struct iovec out[3])
{
	const void *base[] = { c->request->head, all.body, all.tail };
	size_t size[] = { c->request->head_size, all.body_size, strlen(all.tail) };
	size_t skip = c->at;
	size_t room = SEND_MAX;
	int n = 0;

	for (int i = 0; i < 3 && room; i++) {
		if (skip < size[i]) {
			size_t left = size[i] - skip;

			out[n].iov_base = (char *)(uintptr_t)base[i] + skip;
			out[n].iov_len = left < room ? left : room;
			room -= out[n++].iov_len;
			skip = 0;
		} else {
			skip -= size[i];
		}
	}
	return n;
}

/* One turn; the rest when the socket takes more. */
static void push(struct crew *crew, struct conn *c)
{
	struct iovec iov[3];
	struct msghdr m = { .msg_iov = iov };
	size_t total = c->request->head_size + all.body_size + strlen(all.tail);
	ssize_t sent;
	bool more;

	m.msg_iovlen = (size_t)pieces(c, iov);
	if (!m.msg_iovlen) {
		return;
	}
	sent = sendmsg(c->fd, &m, MSG_NOSIGNAL);
	if (sent > 0) {
		c->at += (size_t)sent;
	} else if (sent < 0 && errno != EAGAIN) {
		c->close = true; /* the answer may still be there to read */
		c->at = total;
	}
	more = c->at < total;
	if (!more && !c->close) {
		crew->last_byte_ns = trib_clock_ns();
	}
	if (more != c->polls_out) {
		poll_for(crew, c, EPOLL_CTL_MOD, more);
	}
}

static void start(struct crew *crew, struct conn *c, struct request *r, uint64_t start_ns)
{
	if (c->close) {
		reconnect(crew, c);
	}
	c->request = r;
	c->busy = true;
	c->at = 0;
	c->got = 0;
	c->retry_ns = 0;
	if (!r->start_ns) {
		r->start_ns = start_ns;
	}
	push(crew, c);
}

/* 0 = not whole yet; else the status, and where the body of the answer is. */
static unsigned parse(struct conn *c, const char **ret_body, size_t *ret_size)
{
	const char *end;
	const char *length;

	c->in[c->got] = '\0';
	if (all.lines) {
		end = memchr(c->in, '\n', c->got);
		*ret_body = c->in;
		*ret_size = end ? (size_t)(end - c->in) : 0;
		return !end ? 0 : c->in[0] == '-' ? 500 : 200;
	}
	end = strstr(c->in, "\r\n\r\n");
	if (!end || c->got < 12) {
		return 0;
	}
	length = strcasestr(c->in, "\r\ncontent-length:");
	*ret_size = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
	*ret_body = end + 4;
	if ((size_t)(*ret_body - c->in) + *ret_size > c->got) {
		return 0;
	}
	length = strcasestr(c->in, "\r\nconnection: close");
	c->close = c->close || (length && length < end);
	return (unsigned)strtoul(c->in + 9, NULL, 10) % CODES;
}

/* When the same request may come again: member retry_after of a problem, else the field, else soon.
 */
static uint64_t retry_after_ns(const struct conn *c, const char *body)
{
	const char *text = strstr(body, "\"retry_after\":");
	const char *field = strcasestr(c->in, "\r\nretry-after:");
	double seconds;

	if (!text && !(field && field < body)) {
		return RETRY_NS;
	}
	seconds = strtod(text ? text + 14 : field + 14, NULL);
	return seconds > 0 ? (uint64_t)(1e9 * (seconds < RETRY_MAX_S ? seconds : RETRY_MAX_S))
			   : RETRY_NS;
}

static void finish(struct crew *crew, struct conn *c, unsigned status, const char *body,
		   size_t size)
{
	struct request *r = c->request;
	size_t total = r->head_size + all.body_size + strlen(all.tail);

	c->busy = false;
	if (c->at < total || !status) {
		c->close = true; /* told before it had everything */
	}
	if (c->polls_out) {
		poll_for(crew, c, EPOLL_CTL_MOD, false);
	}
	if (status == 503 || status == 429) {
		(void)__atomic_add_fetch(&all.retries, 1, __ATOMIC_RELAXED);
		c->retry_ns = trib_clock_ns() + retry_after_ns(c, body);
		return;
	}
	r->status = (uint16_t)status;
	r->answer_ns = trib_clock_ns();
	if (all.save) {
		r->saved = malloc(size + 1);
		if (!r->saved) {
			die("malloc");
		}
		memcpy(r->saved, body, size);
		r->saved_size = (uint32_t)size;
	}
	c->request = NULL;
}

static void pull(struct crew *crew, struct conn *c)
{
	const char *body = "";
	size_t size = 0;
	unsigned status;
	ssize_t n = recv(c->fd, c->in + c->got, ANSWER_MAX - c->got, 0);

	if (n < 0 && errno == EAGAIN) {
		return;
	}
	if (!c->busy) { /* the server closed an idle connection */
		reconnect(crew, c);
		return;
	}
	if (n <= 0) {
		finish(crew, c, 0, "", 0);
		return;
	}
	c->got += (size_t)n;
	status = parse(c, &body, &size);
	if (status) {
		finish(crew, c, status, body, size);
	}
}

/* Gives idle connections their next request. Answers ms until there is more to give, -1 = none. */
static int give(struct crew *crew, bool *ret_active)
{
	uint64_t now = trib_clock_ns();
	uint64_t wait = UINT64_MAX;

	*ret_active = false;
	for (uint32_t i = 0; i < crew->count; i++) {
		struct conn *c = &crew->conns[i];
		uint64_t due = now;
		uint32_t next;

		if (!c->busy && c->request) {
			if (c->retry_ns <= now) {
				start(crew, c, c->request, now);
			} else {
				wait = c->retry_ns - now < wait ? c->retry_ns - now : wait;
			}
		} else if (!c->busy) {
			next = __atomic_load_n(&all.next, __ATOMIC_RELAXED);
			if (all.rate > 0) {
				due = all.began_ns + (uint64_t)(1e9 * next / all.rate);
			}
			if (next < all.count && due > now) {
				wait = due - now < wait ? due - now : wait;
				*ret_active = true;
				break; /* nor is there one for the others */
			}
			next = __atomic_fetch_add(&all.next, 1, __ATOMIC_RELAXED);
			if (next < all.count) {
				start(crew, c, &all.requests[next], due);
			}
		}
		*ret_active = *ret_active || c->busy || c->request;
	}
	return wait == UINT64_MAX ? -1 : (int)((wait + 999999) / 1000000);
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	struct epoll_event events[64];
	bool active = true;
	int wait;

	(void)pthread_barrier_wait(&all.barrier);
	(void)pthread_barrier_wait(&all.barrier); /* the clock is read between the two */
	for (;;) {
		int n;

		wait = give(crew, &active);
		if (!active) {
			return NULL;
		}
		n = epoll_wait(crew->epoll, events, TRIB_COUNT(events), wait < 0 ? STALL_MS : wait);
		if (n == 0 && wait < 0) {
			errno = ETIMEDOUT;
			die("no progress");
		}
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (events[i].events & ~(unsigned)EPOLLOUT) {
				pull(crew, c);
			}
			if ((events[i].events & EPOLLOUT) && c->busy) {
				push(crew, c);
			}
		}
	}
}

static void read_heads(const char *path)
{
	size_t size;
	const char *text = map_file(path, &size);
	size_t at = 0;
	uint32_t room = 0;

	while (at + 4 <= size) {
		struct request *r;

		if (all.count == room) {
			room = room ? room * 2 : 64;
			all.requests = realloc(all.requests, room * sizeof(*all.requests));
			if (!all.requests) {
				die("realloc");
			}
		}
		r = &all.requests[all.count++];
		memset(r, 0, sizeof(*r));
		memcpy(&r->head_size, text + at, 4);
		r->head = text + at + 4;
		at += 4 + (size_t)r->head_size;
	}
	if (at != size || !all.count) {
		errno = EINVAL;
		die(path);
	}
}

static void save(const char *path)
{
	FILE *f = fopen(path, "wbe");

	if (!f) {
		die(path);
	}
	for (uint32_t i = 0; i < all.count; i++) {
		const struct request *r = &all.requests[i];

		if (fwrite(&r->saved_size, 4, 1, f) != 1 ||
		    fwrite(r->saved, 1, r->saved_size, f) != r->saved_size) {
			die(path);
		}
	}
	if (fclose(f)) {
		die(path);
	}
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void report(const struct crew *crews, uint32_t threads)
{
	uint64_t *took = calloc(all.count, sizeof(*took));
	uint32_t codes[CODES] = { 0 };
	uint64_t last_byte = 0;
	uint64_t last_answer = 0;
	struct rusage usage;
	const char *comma = "";

	if (!took || getrusage(RUSAGE_SELF, &usage)) {
		die("report");
	}
	for (uint32_t i = 0; i < threads; i++) {
		last_byte = crews[i].last_byte_ns > last_byte ? crews[i].last_byte_ns : last_byte;
	}
	for (uint32_t i = 0; i < all.count; i++) {
		const struct request *r = &all.requests[i];

		took[i] = r->answer_ns - r->start_ns;
		last_answer = r->answer_ns > last_answer ? r->answer_ns : last_answer;
		codes[r->status]++;
	}
	qsort(took, all.count, sizeof(*took), by_time);
	(void)printf(
		"{\"began_ns\":%llu,\"last_byte_ns\":%llu,\"last_answer_ns\":%llu,\"p50_us\":%.1f,"
		"\"p99_us\":%.1f,\"p999_us\":%.1f,\"retries\":%u,\"reconnects\":%u,\"cpu_s\":%.3f,"
		"\"codes\":{",
		(unsigned long long)all.began_ns, (unsigned long long)last_byte,
		(unsigned long long)last_answer, (double)took[all.count / 2] / 1e3,
		(double)took[(uint64_t)all.count * 99 / 100] / 1e3,
		(double)took[(uint64_t)all.count * 999 / 1000] / 1e3, all.retries, all.reconnects,
		(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	for (unsigned i = 0; i < CODES; i++) {
		if (codes[i]) {
			(void)printf("%s\"%u\":%u", comma, i, codes[i]);
			comma = ",";
		}
	}
	(void)printf("}}\n");
	(void)fflush(stdout);
	free(took);
}

static void run(struct crew *crews, uint32_t threads, uint32_t conns)
{
	(void)pthread_barrier_init(&all.barrier, NULL, threads + 1);
	for (uint32_t i = 0; i < threads; i++) {
		struct crew *crew = &crews[i];

		crew->epoll = epoll_create1(EPOLL_CLOEXEC);
		crew->count = conns / threads + (i < conns % threads);
		crew->conns = calloc(crew->count ? crew->count : 1, sizeof(*crew->conns));
		if (crew->epoll < 0 || !crew->conns) {
			die("epoll");
		}
		for (uint32_t k = 0; k < crew->count; k++) {
			crew->conns[k].fd = connect_to();
			poll_for(crew, &crew->conns[k], EPOLL_CTL_ADD, false);
		}
		if (pthread_create(&crew->thread, NULL, work, crew)) {
			die("pthread_create");
		}
	}
	(void)pthread_barrier_wait(&all.barrier);
	all.began_ns = trib_clock_ns();
	(void)pthread_barrier_wait(&all.barrier);
	for (uint32_t i = 0; i < threads; i++) {
		(void)pthread_join(crews[i].thread, NULL);
	}
}

int main(int argc, char **argv)
{
	static struct crew crews[THREADS_MAX];
	const char *out = NULL;
	uint32_t conns = 1;
	uint32_t threads = 1;
	bool wait = false;
	int option;
	char byte;

	while ((option = getopt(argc, argv, "a:H:b:m:c:t:r:ewo:")) != -1) {
		switch (option) {
		case 'a':
			all.address = optarg;
			break;
		case 'H':
			read_heads(optarg);
			break;
		case 'b':
			all.body = map_file(optarg, &all.body_size);
			break;
		case 'm':
			all.lines = strcmp(optarg, "line") == 0;
			break;
		case 'c':
			conns = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 't':
			threads = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'r':
			all.rate = strtod(optarg, NULL);
			break;
		case 'e':
			all.tail = "\r\n";
			break;
		case 'w':
			wait = true;
			break;
		case 'o':
			all.save = true;
			out = optarg;
			break;
		default:
			return 2;
		}
	}
	if (!all.address || !all.count || !conns || !threads || threads > THREADS_MAX) {
		(void)fprintf(stderr, "sender: -a, -H, 1 <= -c, 1 <= -t <= %u\n", THREADS_MAX);
		return 2;
	}
	run(crews, threads, conns);
	report(crews, threads);
	if (out) {
		save(out);
	}
	while (wait && read(STDIN_FILENO, &byte, 1) > 0) {
	}
	return 0;
}
