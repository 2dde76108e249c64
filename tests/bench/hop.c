/* SPDX-License-Identifier: Apache-2.0
 * What a descriptor's hop costs, skmsg against relay: the agent's loop with its hub in this
 * process, functions as forked echoes. Variants: `ring1` hub -> f1 -> hub (2 hops), `ring3`
 * hub -> f1 -> f2 -> f3 -> hub (4 hops), `flow` ring1 with 256 letters under way.
 * `hop`: ring1 where the function maps an object of the descriptor's `bytes` and reads both its
 * ends, for each update size; the value is one way (half of it). Its floor is two processes and a
 * pair of Unix sockets, every call blocking.
 *
 *   hop [sizes | rings]              `hop` alone, the others alone; without a word both
 *
 * JSON lines: name, value (median of RUNS medians; for flow: letters a second), unit, n, spread;
 * of `hop` also the same in seconds, the CPU seconds of a hop (of all processes) and how both are
 * to the floor's, the most memory a process had, payload bytes copied (nobody touches more than
 * the two ends). Modes alternate run by run, so that a noisy neighbour hits all alike.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/transport.h"
#include "common/clock.h"
#include "shm/descriptor_check.h"

#define RUNS      5
#define TRIPS     5000u
#define FLOW      100000u
#define WINDOW    256u
#define FUNCTIONS 3u
#define JOB       7u
#define KINDS     3u

struct bench {
	uint64_t bytes;              /* of the object the descriptors speak of */
	const unsigned char *object; /* NULL: there is none */
	struct trib_loop *loop;
	struct trib_descriptor_reader reader;
	int fd;
	uint32_t window;
	uint32_t total;
	uint32_t sent;
	uint32_t done;
	uint64_t started_ns;
	double cpu_s; /* of the last run, all its processes */
	uint32_t took_ns[FLOW];
};

static struct bench bench;

static void die(const char *what, int rc)
{
	(void)fprintf(stderr, "hop: %s: %s\n", what, strerror(-rc));
	exit(1);
}

static void post(void)
{
	struct trib_descriptor d = { .kind = TRIB_DESC_UPDATE,
				     .route = TRIB_ROUTE(JOB, 1),
				     .job = JOB,
				     .bytes = bench.bytes,
				     .sent_us = trib_descriptor_now_us() };
	int rc;

	bench.started_ns = trib_clock_ns();
	trib_descriptor_seal(&d);
	rc = trib_descriptor_send(bench.fd, &d);
	if (rc) {
		die("send", rc);
	}
	bench.sent++;
}

static void on_hub(int fd, unsigned ready, void *arg)
{
	struct trib_descriptor d[64];
	int n = trib_descriptor_receive(fd, &bench.reader, d, TRIB_COUNT(d));

	(void)ready;
	(void)arg;
	if (n < 0) {
		die("receive", n);
	}
	for (int i = 0; i < n; i++) {
		bench.took_ns[bench.done++] = (uint32_t)(trib_clock_ns() - bench.started_ns);
	}
	if (bench.done == bench.total) {
		trib_loop_stop(bench.loop);
	}
	while (bench.sent < bench.total && bench.sent - bench.done < bench.window) {
		post();
	}
}

/* A function: what comes goes to `next`. */
static pid_t spawn(int fd, uint32_t next)
{
	pid_t pid = fork();
	struct trib_descriptor_reader reader = { .carried = 0 };
	struct trib_descriptor d[64];

	if (pid) {
		(void)close(fd);
		return pid;
	}
	if (dup2(fd, 3) != 3 || close_range(4, ~0u, 0)) {
		_exit(1);
	}
	for (;;) {
		struct pollfd pollfd = { .fd = 3, .events = POLLIN };
		int n;

		(void)poll(&pollfd, 1, -1);
		n = trib_descriptor_receive(3, &reader, d, TRIB_COUNT(d));
		if (n < 0) {
			_exit(0);
		}
		for (int i = 0; i < n; i++) {
			d[i].route = next;
			if (bench.object) { /* a top looks at what it was told of */
				d[i].weight = bench.object[0] + bench.object[d[i].bytes - 1];
			}
			trib_descriptor_seal(&d[i]);
			if (trib_descriptor_send(3, &d[i])) {
				_exit(1);
			}
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int by_double(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* CPU seconds of this process and of `pids` so far. */
static double cpu(const pid_t *pids, uint32_t count)
{
	struct timespec t;
	clockid_t clock;
	double sum;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	sum = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	for (uint32_t i = 0; i < count; i++) {
		if (clock_getcpuclockid(pids[i], &clock) == 0 && clock_gettime(clock, &t) == 0) {
			sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
		}
	}
	return sum;
}

static double median_us(uint32_t total)
{
	qsort(bench.took_ns, total, sizeof(bench.took_ns[0]), by_value);
	return bench.took_ns[total / 2] / 1000.0;
}

static void end(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

static void pass_on(int fd, struct trib_descriptor *d)
{
	if (recv(fd, d, sizeof(*d), 0) != sizeof(*d)) {
		_exit(0); /* the other one has gone */
	}
	d->weight = bench.object[0] + bench.object[d->bytes - 1];
	if (send(fd, d, sizeof(*d), 0) != sizeof(*d)) {
		_exit(1);
	}
}

/* Median round trip in us of a descriptor over a pair of sockets. */
static double run_floor(void)
{
	struct trib_descriptor d = { .bytes = bench.bytes };
	pid_t pid;
	double before;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds)) {
		die("socketpair", -errno);
	}
	pid = fork();
	if (pid < 0) {
		die("fork", -errno);
	}
	if (pid == 0) {
		(void)close(fds[0]);
		for (;;) {
			pass_on(fds[1], &d);
		}
	}
	(void)close(fds[1]);
	before = cpu(&pid, 1);
	for (uint32_t i = 0; i < TRIPS; i++) {
		uint64_t start = trib_clock_ns();

		if (send(fds[0], &d, sizeof(d), 0) != sizeof(d) ||
		    recv(fds[0], &d, sizeof(d), 0) != sizeof(d)) {
			die("floor", -errno);
		}
		bench.took_ns[i] = (uint32_t)(trib_clock_ns() - start);
	}
	bench.cpu_s = cpu(&pid, 1) - before;
	(void)close(fds[0]);
	end(pid);
	return median_us(TRIPS);
}

/* Median round trip in us, or letters a second when `window` > 1. */
static double run(enum trib_transport_mode mode, uint32_t functions, uint32_t window,
		  uint32_t total)
{
	struct trib_transport *transport;
	struct trib_endpoint *ends[FUNCTIONS + 1] = { NULL };
	struct trib_io *io;
	pid_t pids[FUNCTIONS];
	int fds[FUNCTIONS + 1];
	uint64_t start_ns;
	double result;
	int rc;

	rc = trib_transport_new(bench.loop, mode, &transport);
	if (rc) {
		(void)fprintf(stderr, "hop: %s\n", trib_transport_failure());
		return -1;
	}
	for (uint32_t i = 0; i <= functions && !rc; i++) {
		rc = trib_endpoint_new(transport, TRIB_ROUTE(JOB, i), JOB, NULL, NULL, &fds[i],
				       &ends[i]);
	}
	if (rc) {
		die("endpoint", rc);
	}
	for (uint32_t i = 1; i <= functions; i++) {
		pids[i - 1] = spawn(fds[i], TRIB_ROUTE(JOB, i == functions ? 0 : i + 1));
	}
	bench.fd = fds[0];
	bench.reader.carried = 0;
	bench.window = window;
	bench.total = total;
	bench.sent = 0;
	bench.done = 0;
	rc = trib_io_new(bench.loop, bench.fd, TRIB_IO_READ, on_hub, NULL, &io);
	if (rc) {
		die("io", rc);
	}
	bench.cpu_s = -cpu(pids, functions);
	start_ns = trib_clock_ns();
	post();
	rc = trib_loop_run(bench.loop);
	if (rc || bench.done != total) {
		die("loop", rc);
	}
	result = total / ((double)(trib_clock_ns() - start_ns) / 1e9);
	bench.cpu_s += cpu(pids, functions);
	if (window == 1) {
		result = median_us(total);
	}
	io = trib_io_free(io);
	for (uint32_t i = 0; i <= functions; i++) {
		ends[i] = trib_endpoint_free(ends[i]);
	}
	(void)close(bench.fd);
	for (uint32_t i = 0; i < functions; i++) {
		end(pids[i]);
	}
	transport = trib_transport_free(transport);
	return result;
}

static void report(const char *name, uint32_t functions, uint32_t window, uint32_t total)
{
	static const enum trib_transport_mode modes[] = { TRIB_TRANSPORT_SKMSG,
							  TRIB_TRANSPORT_RELAY };
	static const char *const words[] = { "skmsg", "relay" };
	double value[2][RUNS];

	for (uint32_t i = 0; i < RUNS; i++) {
		for (uint32_t m = 0; m < TRIB_COUNT(modes); m++) {
			value[m][i] = run(modes[m], functions, window, total);
		}
	}
	for (uint32_t m = 0; m < TRIB_COUNT(modes); m++) {
		qsort(value[m], RUNS, sizeof(value[m][0]), by_double);
		if (value[m][0] < 0) {
			continue; /* skmsg without the privilege: told on stderr */
		}
		(void)printf("{\"name\":\"hop.%s.%s\",\"value\":%.2f,\"unit\":\"%s\",\"n\":%d,"
			     "\"spread\":[%.2f,%.2f]}\n",
			     name, words[m], value[m][RUNS / 2], window == 1 ? "us" : "1/s", RUNS,
			     value[m][0], value[m][RUNS - 1]);
	}
}

struct hop {
	double us[RUNS]; /* one way; < 0: this kind cannot be had here */
	double cpu_s[RUNS];
};

static double median(const double *values)
{
	double sorted[RUNS];

	memcpy(sorted, values, sizeof(sorted));
	qsort(sorted, RUNS, sizeof(*sorted), by_double);
	return sorted[RUNS / 2];
}

static void hop_line(uint32_t kind, double mb, const struct hop *hop, const struct hop *floor)
{
	static const char *const words[] = { "floor", "skmsg", "relay" };
	struct rusage self;
	struct rusage others;
	long rss_kib;
	double speed[RUNS];
	double cost[RUNS];
	double sorted[RUNS];

	(void)getrusage(RUSAGE_SELF, &self);
	(void)getrusage(RUSAGE_CHILDREN, &others);
	rss_kib = self.ru_maxrss > others.ru_maxrss ? self.ru_maxrss : others.ru_maxrss;
	for (uint32_t i = 0; i < RUNS; i++) {
		speed[i] = floor->us[i] / hop->us[i];
		cost[i] = hop->cpu_s[i] / floor->cpu_s[i];
	}
	memcpy(sorted, hop->us, sizeof(sorted));
	qsort(sorted, RUNS, sizeof(*sorted), by_double);
	(void)printf(
		"{\"name\":\"hop\",\"system\":\"%s\",\"transport\":\"%s\",\"update_mb\":%g,"
		"\"updates\":%u,\"seconds\":%.9f,\"cpu_s\":%.9f,\"peak_mb\":%.1f,"
		"\"throughput_to_floor\":%.3f,\"cpu_per_gb_to_floor\":%.3f,\"bytes_copied\":0,"
		"\"value\":%.2f,\"unit\":\"us\",\"n\":%d,\"runs\":%d,\"spread\":[%.2f,%.2f]}\n",
		kind ? "tributary" : "floor", words[kind], mb, TRIPS * RUNS, sorted[RUNS / 2] / 1e6,
		median(hop->cpu_s), (double)rss_kib * 1024 / 1e6, median(speed), median(cost),
		sorted[RUNS / 2], RUNS, RUNS, sorted[0], sorted[RUNS - 1]);
}

/* One hop for each size of update, kinds and sizes in turn. */
static void report_sizes(void)
{
	static const double sizes_mb[] = { 0.004, 1, 44.7, 83, 232 };
	static struct hop hops[KINDS][TRIB_COUNT(sizes_mb)];
	size_t most = (size_t)(sizes_mb[TRIB_COUNT(sizes_mb) - 1] * 1e6);
	void *object = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (object == MAP_FAILED) {
		die("mmap", -errno);
	}
	memset(object, 1, most);
	bench.object = object;
	for (uint32_t i = 0; i < RUNS * TRIB_COUNT(sizes_mb) * KINDS; i++) {
		uint32_t kind = i % KINDS;
		uint32_t size = i / KINDS % TRIB_COUNT(sizes_mb);
		struct hop *hop = &hops[kind][size];
		uint32_t turn = i / KINDS / TRIB_COUNT(sizes_mb);

		bench.bytes = (uint64_t)(sizes_mb[size] * 1e6);
		hop->us[turn] = (kind ? run(kind == 1 ? TRIB_TRANSPORT_SKMSG : TRIB_TRANSPORT_RELAY,
					    1, 1, TRIPS)
				      : run_floor()) /
				2;
		hop->cpu_s[turn] = bench.cpu_s / TRIPS / 2;
	}
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		for (uint32_t size = 0; size < TRIB_COUNT(sizes_mb); size++) {
			if (hops[kind][size].us[0] > 0) {
				hop_line(kind, sizes_mb[size], &hops[kind][size], &hops[0][size]);
			}
		}
	}
	(void)munmap(object, most);
	bench.object = NULL;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int rc = trib_loop_new(&bench.loop);

	if (rc) {
		die("loop", rc);
	}
	if (strcmp(what, "rings") != 0) {
		report_sizes();
	}
	if (strcmp(what, "sizes") != 0) {
		report("ring1", 1, 1, TRIPS);
		report("ring3", 3, 1, TRIPS);
		report("flow", 1, WINDOW, FLOW);
	}
	trib_loop_free(bench.loop);
	return 0;
}
