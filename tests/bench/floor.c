/* SPDX-License-Identifier: Apache-2.0
 * The floor: the least a C program can do to take N updates from N loopback sockets and average
 * them. Per thread one epoll, recv into one hot buffer, an AVX-512 (or what there is) f32 fold of
 * that buffer into one accumulator; nothing stored, nothing checked, nothing recorded.
 *
 *   floor ELEMENTS UPDATES [THREADS [CHUNK]]
 *                                    takes frames: u32 skip, u32 reserved, u64 bytes (skip
 *                                    included), skip bytes, little-endian floats. "+OK\n" each.
 *                                    First line: {"port":..}; then, after every UPDATES of them,
 *                                    {"published_ns":..,"received_ns":..}: when the last byte was
 *                                    read. Ends with its standard input.
 *   floor --pass ELEMENTS            one pass of the fold over one update in memory: JSON line
 *
 * CHUNK bytes are received at a time (default 1 MiB, the best of 64 KiB to 2 MiB, by one or two
 * threads).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "aggregator/kernels.h"
#include "common/clock.h"

#define HEAD_SIZE   16u
#define RUNS        15
#define PIECE       8192u /* elements folded at a time: stays in L1/L2 */
#define CHUNK_MAX   (4u << 20)
#define THREADS_MAX 8u

struct conn {
	int fd;
	size_t got;  /* bytes of the frame so far */
	size_t skip; /* bytes before the floats, head included */
	size_t total;
	unsigned char rest[sizeof(float)]; /* the first bytes of a float cut in two */
	unsigned char head[HEAD_SIZE];
};

struct worker {
	int epoll;
	float *sums;
	unsigned char *buffer;
	bool used; /* the sums hold something */
};

static struct {
	int listener;
	size_t elements;
	unsigned updates;
	unsigned threads;
	size_t chunk;
	unsigned folded;      /* atomic */
	uint64_t received_ns; /* atomic: when the newest last byte of an update was read */
	float *base;
	float *out;
	const struct agg_kernels *kernels;
	struct worker workers[THREADS_MAX];
} all;

__attribute__((noreturn)) static void die(const char *what)
{
	(void)fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *pages(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		die("mmap");
	}
	(void)madvise(memory, size, MADV_HUGEPAGE);
	memset(memory, 0, size);
	return memory;
}

static void fold(float *sums, const float *in, size_t count)
{
	static const float weight = 1;

	for (size_t i = 0; i < count; i += PIECE) {
		const float *from = in + i;

		all.kernels->f32[0][0](sums + i, &from, &weight,
				       count - i < PIECE ? count - i : PIECE);
	}
}

/* By the thread that folded the last update; the others have nothing to do. */
static void publish(void)
{
	struct agg_final final = { .unit = 1, .weight = all.updates, .lr = 1 };
	const float *others[THREADS_MAX];
	float *sums = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < all.threads; i++) {
		if (all.workers[i].used && !sums) {
			sums = all.workers[i].sums;
		} else if (all.workers[i].used) {
			others[n++] = all.workers[i].sums;
		}
	}
	for (size_t at = 0; at < all.elements; at += PIECE) {
		size_t count = all.elements - at < PIECE ? all.elements - at : PIECE;
		const float *in[THREADS_MAX];

		for (unsigned i = 0; i < n; i++) {
			in[i] = others[i] + at;
		}
		if (n) {
			all.kernels->merge_f32[n - 1][0](sums + at, in, count);
		}
		all.kernels->final_f32(&final, sums + at, all.base + at, all.out + at, count);
	}
	(void)printf("{\"published_ns\":%llu,\"received_ns\":%llu}\n",
		     (unsigned long long)trib_clock_ns(),
		     (unsigned long long)__atomic_load_n(&all.received_ns, __ATOMIC_RELAXED));
	(void)fflush(stdout);
	for (unsigned i = 0; i < all.threads; i++) {
		if (all.workers[i].used) {
			memset(all.workers[i].sums, 0, all.elements * sizeof(float));
			all.workers[i].used = false;
		}
	}
	__atomic_store_n(&all.folded, 0, __ATOMIC_RELEASE);
}

static void take_head(struct conn *c)
{
	ssize_t n = recv(c->fd, c->head + c->got, HEAD_SIZE - c->got, 0);
	uint32_t skip;
	uint64_t bytes;

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			(void)close(c->fd);
			free(c);
		}
		return;
	}
	c->got += (size_t)n;
	if (c->got == HEAD_SIZE) {
		memcpy(&skip, c->head, sizeof(skip));
		memcpy(&bytes, c->head + 8, sizeof(bytes));
		c->skip = HEAD_SIZE + skip;
		c->total = HEAD_SIZE + bytes;
		if (bytes != skip + all.elements * sizeof(float)) {
			errno = EBADMSG;
			die("frame");
		}
	}
}

static void take_body(struct worker *w, struct conn *c)
{
	size_t at = c->got < c->skip ? 0 : (c->got - c->skip) % sizeof(float);
	size_t want = c->got < c->skip ? c->skip - c->got : c->total - c->got;
	size_t whole;
	ssize_t n;

	memcpy(w->buffer, c->rest, at);
	n = recv(c->fd, w->buffer + at, want < all.chunk ? want : all.chunk, 0);
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			errno = ECONNRESET;
			die("body");
		}
		return;
	}
	if (c->got + (size_t)n == c->total) {
		__atomic_store_n(&all.received_ns, trib_clock_ns(), __ATOMIC_RELAXED);
	}
	if (c->got >= c->skip) {
		whole = (at + (size_t)n) / sizeof(float);
		w->used = true;
		fold(w->sums + (c->got - c->skip) / sizeof(float), (const float *)w->buffer, whole);
		memcpy(c->rest, w->buffer + whole * sizeof(float),
		       at + (size_t)n - whole * sizeof(float));
	}
	c->got += (size_t)n;
	if (c->got == c->total) {
		c->got = 0;
		if (__atomic_add_fetch(&all.folded, 1, __ATOMIC_ACQ_REL) == all.updates) {
			publish();
		}
		if (send(c->fd, "+OK\n", 4, MSG_NOSIGNAL) != 4) {
			die("send");
		}
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct epoll_event events[64];

	for (;;) {
		int n = epoll_wait(w->epoll, events, TRIB_COUNT(events), -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (c->got < HEAD_SIZE) {
				take_head(c);
			} else {
				take_body(w, c);
			}
		}
	}
	return NULL;
}

/* Connections go to the threads in turn. */
static void *accept_all(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };

	(void)arg;
	for (unsigned turn = 0;; turn++) {
		struct conn *c = calloc(1, sizeof(*c));

		if (!c) {
			die("calloc");
		}
		c->fd = accept4(all.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		event.data.ptr = c;
		if (c->fd < 0 || epoll_ctl(all.workers[turn % all.threads].epoll, EPOLL_CTL_ADD,
					   c->fd, &event)) {
			die("accept");
		}
	}
	return NULL;
}

static void serve(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(0x7f000001) };
	socklen_t size = sizeof(address);
	pthread_t thread;
	char byte;

	all.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (all.listener < 0 || bind(all.listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(all.listener, 1024) ||
	    getsockname(all.listener, (struct sockaddr *)&address, &size)) {
		die("listen");
	}
	for (unsigned i = 0; i < all.threads; i++) {
		struct worker *w = &all.workers[i];

		w->epoll = epoll_create1(EPOLL_CLOEXEC);
		w->sums = pages(all.elements * sizeof(float));
		w->buffer = pages(CHUNK_MAX + sizeof(float));
		if (w->epoll < 0 || pthread_create(&thread, NULL, work, w)) {
			die("worker");
		}
	}
	if (pthread_create(&thread, NULL, accept_all, NULL)) {
		die("pthread_create");
	}
	(void)printf("{\"port\":%u}\n", ntohs(address.sin_port));
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0) {
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static void pass(void)
{
	double took[RUNS];
	float *sums = pages(all.elements * sizeof(float));
	float *update = pages(all.elements * sizeof(float));
	unsigned char *other = pages(64u << 20); /* what else goes through the cache meanwhile */

	for (unsigned i = 0; i < RUNS; i++) {
		uint64_t start;

		memset(other, (int)i, 64u << 20);
		start = trib_clock_ns();
		fold(sums, update, all.elements);
		took[i] = (double)(trib_clock_ns() - start) / 1e6;
	}
	qsort(took, RUNS, sizeof(*took), by_value);
	(void)printf(
		"{\"name\":\"pass\",\"update_mb\":%.3f,\"value\":%.3f,\"unit\":\"ms\",\"n\":%d,"
		"\"spread\":[%.3f,%.3f],\"kernel\":\"%s\"}\n",
		(double)(all.elements * sizeof(float)) / 1e6, took[RUNS / 2], RUNS, took[0],
		took[RUNS - 1], all.kernels->name);
}

int main(int argc, char **argv)
{
	bool passes = argc > 1 && strcmp(argv[1], "--pass") == 0;

	if (argc < 3) {
		(void)fprintf(stderr,
			      "floor ELEMENTS UPDATES [THREADS [CHUNK]] | --pass ELEMENTS\n");
		return 2;
	}
	all.elements = strtoul(argv[passes ? 2 : 1], NULL, 10);
	all.updates = (unsigned)strtoul(argv[2], NULL, 10);
	all.threads = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 1;
	all.chunk = argc > 4 ? strtoul(argv[4], NULL, 10) : 1u << 20;
	if (!all.elements || !all.updates || !all.chunk || all.chunk > CHUNK_MAX || !all.threads ||
	    all.threads > THREADS_MAX) {
		return 2;
	}
	all.kernels = agg_kernels_best();
	if (passes) {
		pass();
		return 0;
	}
	all.base = pages(all.elements * sizeof(float));
	all.out = pages(all.elements * sizeof(float));
	serve();
	return 0;
}
