/* SPDX-License-Identifier: Apache-2.0
 * What must hold for descriptors whatever carries them: included by tests/unit/bpf_transport.c
 * (relay) and tests/priv/transport_skmsg.c (skmsg), which set `mode` before running `common_cases`.
 */
#ifndef TRIB_TESTS_BPF_TRANSPORT_CASES_H
#define TRIB_TESTS_BPF_TRANSPORT_CASES_H

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bpf/transport.h"
#include "common/clock.h"
#include "shm/descriptor_check.h"

#define JOB   7u
#define OTHER 8u
#define HUB   TRIB_ROUTE(JOB, 0)
#define F1    TRIB_ROUTE(JOB, 1)
#define F2    TRIB_ROUTE(JOB, 2)
#define THEM  TRIB_ROUTE(OTHER, 1)

static enum trib_transport_mode mode;

struct end {
	struct trib_endpoint *endpoint;
	struct trib_descriptor_reader reader;
	int fd;
	int closed; /* calls of closed() */
	bool free_when_closed;
};

struct rig {
	struct trib_loop *loop;
	struct trib_timer *timer;
	struct trib_transport *transport;
	struct end hub;
	struct end f1;
	struct end f2;
	struct end them;
};

static void on_stop(void *arg)
{
	trib_loop_stop(arg);
}

/* Runs the loop for about `ms`. */
static void turn(struct rig *rig, uint64_t ms)
{
	trib_timer_after(rig->timer, ms);
	assert_int_equal(trib_loop_run(rig->loop), 0);
}

static void on_closed(void *arg)
{
	struct end *end = arg;

	end->closed++;
	if (end->free_when_closed) {
		end->endpoint = trib_endpoint_free(end->endpoint);
	}
}

static void end_open(struct rig *rig, struct end *end, uint32_t route, uint32_t job)
{
	*end = (struct end){ .fd = -1 };
	assert_int_equal(trib_endpoint_new(rig->transport, route, job, on_closed, end, &end->fd,
					   &end->endpoint),
			 0);
}

static void end_close(struct end *end)
{
	end->endpoint = trib_endpoint_free(end->endpoint);
	if (end->fd >= 0) {
		assert_int_equal(close(end->fd), 0);
		end->fd = -1;
	}
}

static int setup(void **state)
{
	static struct rig rig;

	rig = (struct rig){ 0 };
	assert_int_equal(trib_loop_new(&rig.loop), 0);
	assert_int_equal(trib_timer_new(rig.loop, on_stop, rig.loop, &rig.timer), 0);
	assert_int_equal(trib_transport_new(rig.loop, mode, &rig.transport), 0);
	assert_int_equal(trib_transport_mode(rig.transport), mode);
	end_open(&rig, &rig.hub, HUB, JOB);
	end_open(&rig, &rig.f1, F1, JOB);
	end_open(&rig, &rig.f2, F2, JOB);
	end_open(&rig, &rig.them, THEM, OTHER);
	*state = &rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	end_close(&rig->hub);
	end_close(&rig->f1);
	end_close(&rig->f2);
	end_close(&rig->them);
	rig->transport = trib_transport_free(rig->transport);
	rig->timer = trib_timer_free(rig->timer);
	trib_loop_free(rig->loop);
	return 0;
}

static struct trib_descriptor letter(uint32_t route, uint32_t round)
{
	struct trib_descriptor d = { .kind = TRIB_DESC_UPDATE,
				     .route = route,
				     .job = route / TRIB_ROUTES_PER_JOB,
				     .round = round,
				     .sent_us = trib_descriptor_now_us() };

	trib_descriptor_seal(&d);
	return d;
}

static void post(int fd, uint32_t route, uint32_t round)
{
	struct trib_descriptor d = letter(route, round);

	assert_int_equal(trib_descriptor_send(fd, &d), 0);
}

/* Exactly one descriptor, whole, valid, of that route and round, within 2 s. */
static void expect(struct rig *rig, struct end *end, uint32_t route, uint32_t round)
{
	uint64_t deadline_ms = trib_clock_ms() + 2000;
	struct trib_descriptor d;
	int n = 0;

	while (n == 0 && trib_clock_ms() < deadline_ms) {
		turn(rig, 1);
		n = trib_descriptor_receive(end->fd, &end->reader, &d, 1);
	}
	assert_int_equal(n, 1);
	assert_true(trib_descriptor_valid(&d));
	assert_int_equal(d.route, route);
	assert_int_equal(d.round, round);
}

static void expect_nothing(struct rig *rig, struct end *end)
{
	struct trib_descriptor d;

	turn(rig, 20);
	assert_int_equal(trib_descriptor_receive(end->fd, &end->reader, &d, 1), 0);
	assert_int_equal(end->reader.carried, 0);
}

static struct trib_transport_stats stats_of(struct rig *rig)
{
	struct trib_transport_stats stats;

	trib_transport_stats(rig->transport, &stats);
	return stats;
}

/* `direct` travelled as the mode does it, `rescued` of them as dead letters in skmsg. */
static void assert_carried(struct rig *rig, uint64_t direct, uint64_t rescued, uint64_t dropped)
{
	struct trib_transport_stats stats = stats_of(rig);
	bool skmsg = mode == TRIB_TRANSPORT_SKMSG;

	assert_int_equal(stats.redirected, skmsg ? direct : 0);
	assert_int_equal(stats.relayed, skmsg ? rescued : direct + rescued);
	assert_int_equal(stats.dead_letters, skmsg ? rescued + dropped : 0);
	assert_int_equal(stats.dropped, dropped);
}

static void raw(int fd, const void *bytes, size_t size)
{
	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT), (ssize_t)size);
}

static void test_hub_function_function(void **state)
{
	struct rig *rig = *state;

	post(rig->hub.fd, F1, 1);
	expect(rig, &rig->f1, F1, 1);
	post(rig->f1.fd, HUB, 2);
	expect(rig, &rig->hub, HUB, 2);
	post(rig->f1.fd, F2, 3);
	expect(rig, &rig->f2, F2, 3);
	post(rig->hub.fd, HUB, 4); /* even to itself */
	expect(rig, &rig->hub, HUB, 4);
	expect_nothing(rig, &rig->f1);
	expect_nothing(rig, &rig->f2);
	expect_nothing(rig, &rig->hub);
	assert_carried(rig, 4, 0, 0);
}

static void test_ten_in_one_send_are_routed_each(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor batch[10];

	for (uint32_t i = 0; i < 10; i++) {
		batch[i] = letter(i % 3 ? F1 : F2, i);
	}
	raw(rig->hub.fd, batch, sizeof(batch));
	for (uint32_t i = 0; i < 10; i++) {
		expect(rig, i % 3 ? &rig->f1 : &rig->f2, i % 3 ? F1 : F2, i);
	}
	assert_carried(rig, 10, 0, 0);
}

/* The kernel keeps the last redirection within one send: none may inherit it. */
static void test_bad_one_in_a_batch_is_not_misrouted(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor batch[5] = { letter(F1, 1), letter(THEM, 2), letter(F2, 3),
					    letter(TRIB_ROUTE(JOB, 99), 4), letter(F1, 5) };

	raw(rig->hub.fd, batch, sizeof(batch));
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f1, F1, 5);
	expect(rig, &rig->f2, F2, 3);
	expect_nothing(rig, &rig->f1);
	expect_nothing(rig, &rig->f2);
	expect_nothing(rig, &rig->them);
	expect_nothing(rig, &rig->hub);
	assert_carried(rig, 3, 0, 2);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_OTHER_TENANT), 1);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_UNKNOWN), 1);
}

static void test_split_sends_lose_nothing(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor d[2] = { letter(F1, 1), letter(F2, 2) };
	const uint8_t *bytes = (const uint8_t *)d;
	struct iovec parts[2] = { { d, 40 }, { (uint8_t *)d + 40, 88 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	raw(rig->hub.fd, bytes, 40); /* 40 + 24 */
	raw(rig->hub.fd, bytes + 40, 24);
	expect(rig, &rig->f1, F1, 1);
	raw(rig->hub.fd, bytes, 40); /* 40 + (24 + 64): lost by corking */
	raw(rig->hub.fd, bytes + 40, 88);
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f2, F2, 2);
	raw(rig->hub.fd, bytes, 100); /* 100 + 28 */
	raw(rig->hub.fd, bytes + 100, 28);
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f2, F2, 2);
	for (size_t i = 0; i < sizeof(d); i++) {
		raw(rig->hub.fd, bytes + i, 1);
	}
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f2, F2, 2);
	assert_int_equal(sendmsg(rig->hub.fd, &message, MSG_NOSIGNAL), 128);
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f2, F2, 2);
	/* the first of 100 and the two of the gathered send went straight */
	assert_carried(rig, 3, 6, 0);
}

static void test_other_tenant_is_out_of_reach(void **state)
{
	struct rig *rig = *state;

	post(rig->f1.fd, THEM, 1);
	expect_nothing(rig, &rig->them);
	post(rig->them.fd, HUB, 2);
	expect_nothing(rig, &rig->hub);
	assert_carried(rig, 0, 0, 2);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_OTHER_TENANT), 2);
	post(rig->f1.fd, HUB, 3); /* the sender's socket is as good as before */
	expect(rig, &rig->hub, HUB, 3);
	assert_carried(rig, 1, 0, 2);
}

static void test_unknown_route_works_once_opened(void **state)
{
	struct rig *rig = *state;
	struct end late;

	post(rig->hub.fd, TRIB_ROUTE(JOB, 3), 1);
	turn(rig, 20);
	assert_carried(rig, 0, 0, 1);
	end_open(rig, &late, TRIB_ROUTE(JOB, 3), JOB);
	post(rig->hub.fd, TRIB_ROUTE(JOB, 3), 2);
	expect(rig, &late, TRIB_ROUTE(JOB, 3), 2);
	assert_carried(rig, 1, 0, 1);
	end_close(&late);
	post(rig->hub.fd, TRIB_ROUTE(JOB, 3), 3);
	turn(rig, 20);
	assert_carried(rig, 1, 0, 2);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_UNKNOWN), 2);
}

/* A letter that was a dead one when sent and finds its route when read. */
static void test_dead_letter_finds_its_way(void **state)
{
	struct rig *rig = *state;
	struct end late;

	post(rig->hub.fd, TRIB_ROUTE(JOB, 3), 1); /* the loop does not run yet */
	end_open(rig, &late, TRIB_ROUTE(JOB, 3), JOB);
	expect(rig, &late, TRIB_ROUTE(JOB, 3), 1);
	assert_carried(rig, 0, 1, 0);
	end_close(&late);
}

static void test_garbage_hurts_nobody(void **state)
{
	struct rig *rig = *state;
	uint8_t bytes[1024];
	uint32_t x = 12345;
	uint64_t dropped = 0;

	for (uint32_t round = 0; round < 50; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			x = x * 1664525u + 1013904223u;
			bytes[i] = (uint8_t)(x >> 24);
		}
		raw(rig->f1.fd, bytes, sizeof(bytes));
		dropped += sizeof(bytes) / TRIB_DESCRIPTOR_SIZE;
	}
	turn(rig, 50);
	assert_int_equal(stats_of(rig).dropped, dropped);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_BAD_MAGIC), dropped);
	post(rig->f1.fd, HUB, 1);
	expect(rig, &rig->hub, HUB, 1);
	assert_carried(rig, 1, 0, dropped);
}

static void test_queue_time_is_counted(void **state)
{
	struct rig *rig = *state;
	struct trib_route_stats stats;
	struct trib_descriptor d = letter(F1, 1);

	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), -ENOENT);
	assert_int_equal(trib_transport_route_stats(rig->transport, 424242, &stats), -ENOENT);
	d.sent_us = trib_descriptor_now_us() - 5000000u;
	trib_descriptor_seal(&d);
	assert_int_equal(trib_descriptor_send(rig->hub.fd, &d), 0);
	expect(rig, &rig->f1, F1, 1);
	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
	assert_int_equal(stats.messages, 1);
	assert_int_equal(stats.bytes, 64);
	assert_in_range(stats.queue_us, 5000000, 5000000 + 1000000);
	d.sent_us = trib_descriptor_now_us() + 5000000u; /* the future: counts nothing */
	trib_descriptor_seal(&d);
	assert_int_equal(trib_descriptor_send(rig->hub.fd, &d), 0);
	expect(rig, &rig->f1, F1, 1);
	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
	assert_int_equal(stats.messages, 2);
	assert_in_range(stats.queue_us, 5000000, 5000000 + 1000000);
}

/* From the first letter that a function has not answered to its answer; what it sends unasked is no
 * work, and the hub is no function. */
static void test_work_is_counted(void **state)
{
	struct rig *rig = *state;
	struct trib_route_stats stats;
	struct trib_descriptor d = letter(F1, 1);
	struct trib_descriptor answer = letter(HUB, 1);
	const struct timespec half = { .tv_nsec = 50000000 };

	assert_int_equal(trib_descriptor_send(rig->f1.fd, &answer), 0);
	expect(rig, &rig->hub, HUB, 1);
	assert_int_equal(trib_descriptor_send(rig->hub.fd, &d), 0);
	assert_int_equal(trib_descriptor_send(rig->hub.fd, &d), 0);
	expect(rig, &rig->f1, F1, 1);
	expect(rig, &rig->f1, F1, 1);
	(void)nanosleep(&half, NULL);
	assert_int_equal(trib_descriptor_send(rig->f1.fd, &answer), 0);
	expect(rig, &rig->hub, HUB, 1);
	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
	assert_in_range(stats.exec_us, 50000, 10000000);
	(void)nanosleep(&half, NULL);
	assert_int_equal(trib_descriptor_send(rig->f1.fd, &answer), 0);
	expect(rig, &rig->hub, HUB, 1);
	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
	assert_in_range(stats.exec_us, 100000, 20000000);
	(void)nanosleep(&half, NULL);
	assert_int_equal(trib_descriptor_send(rig->f1.fd, &answer), 0); /* nothing in hand */
	expect(rig, &rig->hub, HUB, 1);
	{
		uint64_t before = stats.exec_us;

		assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
		assert_int_equal(stats.exec_us, before);
	}
	assert_int_equal(trib_transport_route_stats(rig->transport, HUB, &stats), 0);
	assert_int_equal(stats.exec_us, 0);
}

/* As exec would: a function holds its own socket (here as 3) and no peer end. */
static void only_fd(int fd)
{
	if (fd != 3 && dup2(fd, 3) != 3) {
		_exit(3);
	}
	if (close_range(4, ~0u, 0)) {
		_exit(4);
	}
}

/* A function: echoes everything to the hub, exits 0 at EOF. The caller's copy is closed. */
static pid_t spawn_echo(struct end *end)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct trib_descriptor d[64];

		only_fd(end->fd);
		end->fd = 3;
		for (;;) {
			struct pollfd pollfd = { .fd = end->fd, .events = POLLIN };
			int n;

			(void)poll(&pollfd, 1, 10000);
			n = trib_descriptor_receive(end->fd, &end->reader, d, TRIB_COUNT(d));
			if (n < 0) {
				_exit(n == -ENOTCONN ? 0 : 1);
			}
			for (int i = 0; i < n; i++) {
				d[i].kind = TRIB_DESC_ACK;
				d[i].route = HUB;
				d[i].sent_us = trib_descriptor_now_us();
				trib_descriptor_seal(&d[i]);
				if (trib_descriptor_send(end->fd, &d[i])) {
					_exit(2);
				}
			}
		}
	}
	(void)close(end->fd);
	end->fd = -1;
	return pid;
}

/* Kills it, or (kill_signal 0) waits 5 s for it to exit 0 by itself. */
static void reap(pid_t pid, int kill_signal)
{
	int status = 0;
	pid_t got = 0;

	if (kill_signal) {
		assert_int_equal(kill(pid, kill_signal), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		return;
	}
	for (int tries = 0; tries < 500 && got == 0; tries++) {
		got = waitpid(pid, &status, WNOHANG);
		(void)poll(NULL, 0, got ? 0 : 10);
	}
	if (got == 0) {
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
	}
	assert_int_equal(got, pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_killed_function_is_noticed_and_replaced(void **state)
{
	struct rig *rig = *state;

	for (uint32_t life = 1; life <= 3; life++) {
		pid_t pid = spawn_echo(&rig->f1);

		post(rig->hub.fd, F1, life);
		expect(rig, &rig->hub, HUB, life);
		assert_int_equal(rig->f1.closed, 0);
		reap(pid, SIGKILL);
		post(rig->hub.fd, F1, 100); /* into the grave, before and after it is noticed */
		turn(rig, 50);
		assert_int_equal(rig->f1.closed, 1);
		post(rig->hub.fd, F1, 101);
		turn(rig, 20);
		assert_int_equal(rig->f1.closed, 1);
		end_close(&rig->f1);
		end_open(rig, &rig->f1, F1, JOB);
	}
	post(rig->hub.fd, F1, 9);
	expect(rig, &rig->f1, F1, 9);
	/* the letter after the notice is certainly dropped; the one before may die in a socket */
	assert_in_range(stats_of(rig).dropped, 3, 6);
}

static void test_free_in_closed(void **state)
{
	struct rig *rig = *state;

	rig->f1.free_when_closed = true;
	post(rig->f1.fd, HUB, 1); /* what was sent before the end arrives */
	assert_int_equal(close(rig->f1.fd), 0);
	rig->f1.fd = -1;
	expect(rig, &rig->hub, HUB, 1);
	turn(rig, 20);
	assert_int_equal(rig->f1.closed, 1);
	assert_null(rig->f1.endpoint);
}

/* A function whose endpoint is freed reads EOF and can reach nobody any more. */
static void test_freed_endpoint_ends_the_function(void **state)
{
	struct rig *rig = *state;
	pid_t pid = spawn_echo(&rig->f1);

	post(rig->hub.fd, F1, 1);
	expect(rig, &rig->hub, HUB, 1);
	end_close(&rig->f1);
	reap(pid, 0);

	rig->f2.endpoint = trib_endpoint_free(rig->f2.endpoint);
	for (uint32_t i = 0; i < 3; i++) {
		struct trib_descriptor d = letter(HUB, i);

		(void)!trib_descriptor_send(rig->f2.fd, &d); /* 0 or -EPIPE, as TCP does */
	}
	expect_nothing(rig, &rig->hub);
}

#define MANY   100000u
#define CREDIT 256u

static void test_many_with_credits_are_counted_exactly(void **state)
{
	struct rig *rig = *state;
	struct trib_route_stats stats;
	struct trib_descriptor d[64];
	pid_t pid = spawn_echo(&rig->f1);
	uint32_t sent = 0;
	uint32_t acked = 0;
	uint64_t start_ms = trib_clock_ms();

	while (acked < MANY) {
		int n;

		while (sent < MANY && sent - acked < CREDIT) {
			post(rig->hub.fd, F1, sent++);
		}
		turn(rig, 0);
		n = trib_descriptor_receive(rig->hub.fd, &rig->hub.reader, d, TRIB_COUNT(d));
		assert_true(n >= 0);
		for (int i = 0; i < n; i++) {
			assert_true(trib_descriptor_valid(&d[i]));
			assert_int_equal(d[i].round, acked); /* in order */
			acked++;
		}
		assert_true(trib_clock_ms() - start_ms < 60000);
	}
	assert_carried(rig, 2 * (uint64_t)MANY, 0, 0);
	assert_int_equal(trib_transport_route_stats(rig->transport, F1, &stats), 0);
	assert_int_equal(stats.messages, MANY);
	assert_int_equal(stats.bytes, 64 * (uint64_t)MANY);
	assert_true(stats.queue_us / MANY < 100000);
	assert_int_equal(trib_transport_route_stats(rig->transport, HUB, &stats), 0);
	assert_int_equal(stats.messages, MANY);
	reap(pid, SIGKILL);
	turn(rig, 20);
	assert_int_equal(rig->f1.closed, 1);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(dir);
	while (readdir(dir)) {
		count++;
	}
	assert_int_equal(closedir(dir), 0);
	return count;
}

static void test_open_and_free_leave_nothing(void **state)
{
	struct rig *rig = *state;
	int before = count_fds();

	for (uint32_t i = 0; i < 200; i++) {
		struct end end;

		end_open(rig, &end, TRIB_ROUTE(JOB, 5), JOB);
		post(rig->hub.fd, TRIB_ROUTE(JOB, 5), i);
		expect(rig, &end, TRIB_ROUTE(JOB, 5), i);
		end_close(&end);
	}
	assert_int_equal(count_fds(), before);
	assert_carried(rig, 200, 0, 0);
}

static void test_routes_are_unique_and_reserved_ones_refused(void **state)
{
	struct rig *rig = *state;
	struct trib_endpoint *endpoint;
	int before = count_fds();
	int fd;

	assert_int_equal(trib_endpoint_new(rig->transport, F1, JOB, NULL, NULL, &fd, &endpoint),
			 -EEXIST);
	assert_int_equal(
		trib_endpoint_new(rig->transport, TRIB_ROUTE_SELF, JOB, NULL, NULL, &fd, &endpoint),
		-EINVAL);
	assert_int_equal(trib_endpoint_new(rig->transport, 5, TRIB_ROUTE_ANY_JOB, NULL, NULL, &fd,
					   &endpoint),
			 -EINVAL);
	assert_int_equal(count_fds(), before);
	post(rig->hub.fd, TRIB_ROUTE_SELF, 1); /* the transport's own socket is no destination */
	turn(rig, 20);
	assert_carried(rig, 0, 0, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define COMMON_CASES                                                                              \
	CASE(test_hub_function_function), CASE(test_ten_in_one_send_are_routed_each),             \
		CASE(test_bad_one_in_a_batch_is_not_misrouted),                                   \
		CASE(test_split_sends_lose_nothing), CASE(test_other_tenant_is_out_of_reach),     \
		CASE(test_unknown_route_works_once_opened), CASE(test_dead_letter_finds_its_way), \
		CASE(test_garbage_hurts_nobody), CASE(test_queue_time_is_counted),                \
		CASE(test_work_is_counted), CASE(test_killed_function_is_noticed_and_replaced),   \
		CASE(test_free_in_closed), CASE(test_freed_endpoint_ends_the_function),           \
		CASE(test_many_with_credits_are_counted_exactly),                                 \
		CASE(test_open_and_free_leave_nothing),                                           \
		CASE(test_routes_are_unique_and_reserved_ones_refused)

#endif
