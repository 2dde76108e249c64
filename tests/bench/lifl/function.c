/* SPDX-License-Identifier: Apache-2.0
 * An aggregator of the baselines: takes FRAMES updates (or sums of others) over TCP, adds them as
 * they come with our own f32 kernels, and hands the sum to its parent, or publishes it.
 *
 *   function ELEMENTS FRAMES WEIGHT [tcp HOST:PORT | redis HOST:PORT QUEUE]
 *
 * Prints {"port":..}, then for every FRAMES frames that came {"published_ns":..,"first":..} (no
 * parent: the sum over WEIGHT is the model, `first` is its first element) or {"sent_ns":..}.
 * "+OK\n" answers each frame. Ends with its standard input. One thread: there are many functions.
 */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "aggregator/kernels.h"
#include "common/clock.h"
#include "tests/bench/lifl/net.h"

#define CHUNK (1u << 20)
#define PIECE 8192u

struct conn {
	int fd;
	size_t got;   /* of the frame */
	size_t skip;  /* bytes before the floats, head included */
	size_t total; /* of the frame */
	unsigned char rest[sizeof(float)];
	struct frame head;
};

static struct {
	size_t elements;
	unsigned frames;
	unsigned taken;
	float weight;
	char **parent; /* NULL: this is the top */
	int parent_fd;
	float *sums;
	float *base;
	unsigned char *buffer;
	const struct agg_kernels *kernels;
} all;

static void *pages(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		net_die("mmap");
	}
	(void)madvise(memory, size, MADV_HUGEPAGE);
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

static void hand_over(void)
{
	size_t bytes = all.elements * sizeof(float);
	struct frame head = { .bytes = bytes };
	char text[128];

	if (all.parent_fd < 0) {
		all.parent_fd = net_dial(all.parent[1]);
	}
	if (strcmp(all.parent[0], "redis") == 0) {
		int size =
			snprintf(text, sizeof(text), "*3\r\n$5\r\nRPUSH\r\n$%zu\r\n%s\r\n$%zu\r\n",
				 strlen(all.parent[2]), all.parent[2], bytes);

		net_send(all.parent_fd, text, (size_t)size);
		net_send(all.parent_fd, all.sums, bytes);
		net_send(all.parent_fd, "\r\n", 2);
	} else {
		net_send(all.parent_fd, &head, sizeof(head));
		net_send(all.parent_fd, all.sums, bytes);
	}
	net_line(all.parent_fd, text, sizeof(text));
	if (text[0] != '+' && text[0] != ':') {
		net_die(text);
	}
	(void)printf("{\"sent_ns\":%llu}\n", (unsigned long long)trib_clock_ns());
}

static void publish(void)
{
	struct agg_final final = { .unit = 1, .weight = all.weight, .lr = 1 };

	for (size_t at = 0; at < all.elements; at += PIECE) {
		size_t count = all.elements - at < PIECE ? all.elements - at : PIECE;

		all.kernels->final_f32(&final, all.sums + at, all.base + at, all.sums + at, count);
	}
	(void)printf("{\"published_ns\":%llu,\"first\":%.9g}\n",
		     (unsigned long long)trib_clock_ns(), (double)all.sums[0]);
}

static void whole_frame(struct conn *c)
{
	c->got = 0;
	net_send(c->fd, "+OK\n", 4);
	if (++all.taken < all.frames) {
		return;
	}
	if (all.parent) {
		hand_over();
	} else {
		publish();
	}
	(void)fflush(stdout);
	all.taken = 0;
	memset(all.sums, 0, all.elements * sizeof(float));
}

static bool take_head(struct conn *c)
{
	ssize_t n = recv(c->fd, (char *)&c->head + c->got, sizeof(c->head) - c->got, 0);

	if (n <= 0) {
		return n < 0 && errno == EAGAIN;
	}
	c->got += (size_t)n;
	if (c->got == sizeof(c->head)) {
		c->skip = sizeof(c->head) + c->head.skip;
		c->total = sizeof(c->head) + c->head.bytes;
		if (c->head.bytes != c->head.skip + all.elements * sizeof(float)) {
			errno = EBADMSG;
			net_die("frame");
		}
	}
	return true;
}

static void take_body(struct conn *c)
{
	size_t at = c->got < c->skip ? 0 : (c->got - c->skip) % sizeof(float);
	size_t want = c->got < c->skip ? c->skip - c->got : c->total - c->got;
	size_t whole;
	ssize_t n;

	memcpy(all.buffer, c->rest, at);
	n = recv(c->fd, all.buffer + at, want < CHUNK ? want : CHUNK, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0 || errno != EAGAIN) {
			net_die("body");
		}
		return;
	}
	if (c->got >= c->skip) {
		whole = (at + (size_t)n) / sizeof(float);
		fold(all.sums + (c->got - c->skip) / sizeof(float), (const float *)all.buffer,
		     whole);
		memcpy(c->rest, all.buffer + whole * sizeof(float),
		       at + (size_t)n - whole * sizeof(float));
	}
	c->got += (size_t)n;
	if (c->got == c->total) {
		whole_frame(c);
	}
}

static int listen_any(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(0x7f000001) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1024) ||
	    getsockname(fd, (struct sockaddr *)&address, &size)) {
		net_die("listen");
	}
	(void)printf("{\"port\":%u}\n", ntohs(address.sin_port));
	(void)fflush(stdout);
	return fd;
}

static void add(int epoll, int listener)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };

	if (!c) {
		net_die("calloc");
	}
	c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (c->fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) {
		net_die("accept");
	}
}

static void *watch_input(void *arg)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0) {
	}
	_exit(0);
	return arg;
}

static void serve(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int listener = listen_any();
	struct epoll_event events[64];
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	pthread_t thread;

	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) ||
	    pthread_create(&thread, NULL, watch_input, NULL)) {
		net_die("epoll");
	}
	for (;;) {
		int n = epoll_wait(epoll, events, TRIB_COUNT(events), -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (!c) {
				add(epoll, listener);
			} else if (c->got >= sizeof(c->head)) {
				take_body(c);
			} else if (!take_head(c)) {
				(void)close(c->fd);
				free(c);
			}
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		(void)fprintf(stderr,
			      "function ELEMENTS FRAMES WEIGHT [tcp ADDR | redis ADDR QUEUE]\n");
		return 2;
	}
	(void)prctl(PR_SET_PDEATHSIG, 9);
	all.elements = strtoul(argv[1], NULL, 10);
	all.frames = (unsigned)strtoul(argv[2], NULL, 10);
	all.weight = strtof(argv[3], NULL);
	all.parent = argc > 5 ? argv + 4 : NULL;
	all.parent_fd = -1;
	if (!all.elements || !all.frames) {
		return 2;
	}
	all.kernels = agg_kernels_best();
	all.sums = pages(all.elements * sizeof(float));
	all.base = all.parent ? NULL : pages(all.elements * sizeof(float));
	all.buffer = pages(CHUNK + sizeof(float));
	serve();
	return 0;
}
