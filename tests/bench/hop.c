/* SPDX-License-Identifier: Apache-2.0
 * What a descriptor's hop costs, skmsg against relay: the agent's loop with its hub in this
 * process, functions as forked echoes. Variants: `ring1` hub -> f1 -> hub (2 hops), `ring3`
 * hub -> f1 -> f2 -> f3 -> hub (4 hops), `flow` ring1 with 256 letters under way.
 * `hop`: ring1 where the function maps an object of the descriptor's `bytes` and reads both its
 * ends, for each update size; the value is one way (half of it).
 * JSON lines: name, value (median of RUNS medians; for flow: letters a second), unit, n, spread.
 * Modes alternate run by run, so that a noisy neighbour hits both alike.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
	start_ns = trib_clock_ns();
	post();
	rc = trib_loop_run(bench.loop);
	if (rc || bench.done != total) {
		die("loop", rc);
	}
	result = total / ((double)(trib_clock_ns() - start_ns) / 1e9);
	if (window == 1) {
		qsort(bench.took_ns, total, sizeof(bench.took_ns[0]), by_value);
		result = bench.took_ns[total / 2] / 1000.0;
	}
	io = trib_io_free(io);
	for (uint32_t i = 0; i <= functions; i++) {
		ends[i] = trib_endpoint_free(ends[i]);
	}
	(void)close(bench.fd);
	for (uint32_t i = 0; i < functions; i++) {
		(void)kill(pids[i], SIGKILL);
		(void)waitpid(pids[i], NULL, 0);
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

/* One hop for each size of update, modes and sizes in turn. */
static void report_sizes(void)
{
	static const double sizes_mb[] = { 0.004, 1, 44.7, 83, 232 };
	static const enum trib_transport_mode modes[] = { TRIB_TRANSPORT_SKMSG,
							  TRIB_TRANSPORT_RELAY };
	static const char *const words[] = { "skmsg", "relay" };
	double value[2][TRIB_COUNT(sizes_mb)][RUNS];
	size_t most = (size_t)(sizes_mb[TRIB_COUNT(sizes_mb) - 1] * 1e6);
	void *object = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (object == MAP_FAILED) {
		die("mmap", -errno);
	}
	memset(object, 1, most);
	bench.object = object;
	for (uint32_t i = 0; i < RUNS; i++) {
		for (uint32_t k = 0; k < TRIB_COUNT(sizes_mb); k++) {
			for (uint32_t m = 0; m < TRIB_COUNT(modes); m++) {
				bench.bytes = (uint64_t)(sizes_mb[k] * 1e6);
				value[m][k][i] = run(modes[m], 1, 1, TRIPS) / 2;
			}
		}
	}
	for (uint32_t m = 0; m < TRIB_COUNT(modes); m++) {
		for (uint32_t k = 0; k < TRIB_COUNT(sizes_mb); k++) {
			double *v = value[m][k];

			qsort(v, RUNS, sizeof(*v), by_double);
			if (v[0] < 0) {
				continue;
			}
			(void)printf("{\"name\":\"hop\",\"transport\":\"%s\",\"update_mb\":%g,"
				     "\"value\":%.2f,\"unit\":\"us\",\"n\":%d,\"runs\":%d,"
				     "\"spread\":[%.2f,%.2f]}\n",
				     words[m], sizes_mb[k], v[RUNS / 2], RUNS, RUNS, v[0],
				     v[RUNS - 1]);
		}
	}
	(void)munmap(object, most);
	bench.object = NULL;
}

int main(void)
{
	int rc = trib_loop_new(&bench.loop);

	if (rc) {
		die("loop", rc);
	}
	report_sizes();
	report("ring1", 1, 1, TRIPS);
	report("ring3", 3, 1, TRIPS);
	report("flow", 1, WINDOW, FLOW);
	trib_loop_free(bench.loop);
	return 0;
}
