/* SPDX-License-Identifier: Apache-2.0
 * common/httpd.h: time and size limits, clients that go away, freeing, listening.
 */
#include "tests/unit/httpd_fixture.h"

#include <malloc.h>
#include <sys/resource.h>

static void limits_of_time(void **state)
{
	struct trib_httpd_limits limits = { .conns_max = 10,
					    .head_timeout_ms = 300,
					    .idle_timeout_ms = 300,
					    .body_rate_min = 100000,
					    .body_grace_ms = 300,
					    .buffer_max = 1 << 20 };
	uint64_t began;
	int fd;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start(&limits);
	/* Slow head, fed all the time. */
	fd = dial();
	began = trib_clock_ms();
	say(fd, "GET / HTTP/1.1\r\nX: ");
	for (int i = 0; i < 8; i++) {
		pause_us(25000);
		say(fd, "x");
	}
	assert_int_equal(hear(fd, false)->status, 408);
	assert_non_null(strstr(last.body, "request-timeout"));
	assert_in_range(trib_clock_ms() - began, 290, 1000);
	hang_up(fd);
	/* Slow body. */
	fd = dial();
	began = trib_clock_ms();
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 1000000\r\n\r\nabc");
	assert_int_equal(hear(fd, false)->status, 408);
	assert_non_null(strstr(last.body, "too-slow"));
	assert_in_range(trib_clock_ms() - began, 290, 1000);
	assert_true(closed(fd));
	hang_up(fd);
	/* Idle: closed without a word. A handler that thinks is not idle. */
	fd = dial();
	say(fd, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 200);
	began = trib_clock_ms();
	assert_true(closed(fd));
	assert_in_range(trib_clock_ms() - began, 250, 1000);
	hang_up(fd);
	stop();
	assert_int_equal(server.stats.too_slow, 1);
	assert_int_equal(server.stats.timeouts, 2);
	assert_int_equal(server.gone, 1);
	assert_int_equal(server.broken, 1);
	trib_free(server.sunk);
}

static void clients_that_go_away(void **state)
{
	struct linger reset = { .l_onoff = 1 };
	int fd;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start(NULL);
	/* While the handler thinks, no body. */
	fd = dial();
	say(fd, "GET /hang HTTP/1.1\r\n" H "\r\n");
	pause_us(30000);
	assert_int_equal(seen(&server.gone), 0);
	hang_up(fd);
	assert_true(wait_for(&server.gone, 1, 1000));
	/* Body announced, none sent, not asked for. */
	fd = dial();
	say(fd, "PUT /hang HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n");
	pause_us(30000);
	hang_up(fd);
	assert_true(wait_for(&server.gone, 2, 1000));
	/* Body waiting in the socket, not asked for: the reset is found by the tick. */
	fd = dial();
	say(fd, "PUT /hang HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	pause_us(30000);
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	hang_up(fd);
	assert_true(wait_for(&server.gone, 3, 2000));
	/* In the middle of an upload. */
	fd = dial();
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	pause_us(30000);
	hang_up(fd);
	assert_true(wait_for(&server.gone, 4, 1000));
	assert_int_equal(seen(&server.broken), 1);
	/* In the middle of a stream. */
	fd = dial();
	say(fd, "GET /flood HTTP/1.1\r\n" H "\r\n");
	assert_true(wait_for(&server.stream_refused, 1, 1000));
	hang_up(fd);
	assert_true(wait_for(&server.gone, 5, 1000));
	/* Half-closed in the middle of an upload: told so. */
	fd = dial();
	say(fd, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	(void)shutdown(fd, SHUT_WR);
	assert_int_equal(hear(fd, false)->status, 400);
	assert_non_null(strstr(last.body, "truncated-body"));
	hang_up(fd);
	stop();
	assert_int_equal(server.gone, 6);
	assert_int_equal(server.stats.connections_open, 0);
	trib_free(server.sunk);
}

static double cpu_seconds(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Level-triggered sockets with bytes nobody takes must not keep the loop running. */
static void nothing_spins(void **state)
{
	double before;
	int fds[4];

	(void)state;
	start(NULL);
	for (size_t i = 0; i < TRIB_COUNT(fds); i++) {
		fds[i] = dial();
	}
	say(fds[0], "GET /hang HTTP/1.1\r\n" H "\r\nGET /get HTTP/1.1\r\n");
	say(fds[1], "PUT /hang HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	say(fds[2], "GET / HTTP/1.1\r\n" H);
	say(fds[3], "GET /flood HTTP/1.1\r\n" H "\r\nmore");
	assert_true(wait_for(&server.stream_refused, 1, 1000));
	before = cpu_seconds();
	pause_us(500000);
	assert_true(cpu_seconds() - before < 0.1);
	for (size_t i = 0; i < TRIB_COUNT(fds); i++) {
		hang_up(fds[i]);
	}
	stop();
}

static void too_many_connections(void **state)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	int fds[2];
	int fd;

	(void)state;
	limits.conns_max = 2;
	start(&limits);
	for (int i = 0; i < 2; i++) {
		fds[i] = dial();
		say(fds[i], "GET /get?x HTTP/1.1\r\n" H "\r\n");
		assert_int_equal(hear(fds[i], false)->status, 200);
	}
	for (int i = 0; i < 100; i++) {
		fd = dial();
		(void)send(fd, "GET / HTTP/1.1\r\n", 16, MSG_NOSIGNAL);
		assert_int_equal(hear(fd, false)->status, 503);
		assert_non_null(strstr(last.head, "Retry-After: 1\r\n"));
		assert_non_null(strstr(last.body, "\"retry_after\":1"));
		hang_up(fd);
	}
	hang_up(fds[0]);
	pause_us(50000);
	fd = dial();
	say(fd, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 200);
	hang_up(fd);
	hang_up(fds[1]);
	stop();
	assert_int_equal(server.stats.connections_refused, 100);
	assert_int_equal(server.stats.connections, 3);
}

static void freed_by_its_own_handler(void **state)
{
	int idle;
	int fd;

	(void)state;
	start(NULL);
	idle = dial();
	say(idle, "GET /hang HTTP/1.1\r\n" H "\r\n");
	pause_us(50000);
	fd = dial();
	say(fd, "GET /free HTTP/1.1\r\n" H "\r\n");
	assert_string_equal(hear(fd, false)->body, "bye");
	assert_true(closed(idle));
	assert_true(wait_for(&server.gone, 1, 1000));
	hang_up(fd);
	hang_up(idle);
	stop();
}

static void idle_connections_are_cheap(void **state)
{
	enum {
		CONNS = 400
	};
	struct mallinfo2 before;
	struct mallinfo2 after;
	int fds[CONNS];

	(void)state;
	start(NULL);
	fds[0] = dial();
	say(fds[0], "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fds[0], false)->status, 200);
	pause_us(20000);
	before = mallinfo2();
	for (int i = 1; i < CONNS; i++) {
		fds[i] = dial();
		say(fds[i], "GET /get?x HTTP/1.1\r\n" H "\r\n");
		assert_int_equal(hear(fds[i], false)->status, 200);
	}
	pause_us(50000);
	after = mallinfo2();
	if (before.uordblks) { /* 0 when another allocator is underneath */
		size_t each = (after.uordblks - before.uordblks) / (CONNS - 1);

		print_message("idle connection: %zu bytes\n", each);
		assert_true(each > 0 && each < 512);
	}
	for (int i = 0; i < CONNS; i++) {
		hang_up(fds[i]);
	}
	stop();
}

static void out_of_descriptors(void **state)
{
	struct rlimit old;
	struct rlimit small;
	double before;
	int fd;

	(void)state;
	start(NULL);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	fd = client_socket(); /* the lowest free number: with this limit none is left */
	small = old;
	small.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	dial_with(fd);
	say(fd, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	before = cpu_seconds();
	pause_us(400000);
	assert_true(cpu_seconds() - before < 0.1);
	assert_int_equal(recv(fd, last.body, 1, MSG_DONTWAIT), -1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(hear(fd, false)->status, 200);
	hang_up(fd);
	stop();
}

/* Beyond its own bound it refuses nobody: another loop, or a place that becomes free, takes them.
 */
static void leaves_newcomers_to_others(void **state)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	int fds[3];

	(void)state;
	limits.conns_own = 2;
	start(&limits);
	for (size_t i = 0; i < TRIB_COUNT(fds); i++) {
		fds[i] = dial();
		say(fds[i], "GET /get?x HTTP/1.1\r\n" H "\r\n");
		if (i < 2) {
			assert_int_equal(hear(fds[i], false)->status, 200);
		}
	}
	pause_us(300000);
	assert_int_equal(recv(fds[2], last.body, 1, MSG_DONTWAIT), -1);
	hang_up(fds[0]);
	assert_int_equal(hear(fds[2], false)->status, 200);
	hang_up(fds[1]);
	hang_up(fds[2]);
	stop();
	assert_true(server.stats.accept_pauses > 0);
	assert_int_equal(server.stats.connections, 3);
	assert_int_equal(server.stats.connections_refused, 0);
}

static void listens(void **state)
{
	char address[64];
	char path[64];
	int fd;
	int other;

	(void)state;
	assert_int_equal(trib_listen("[::1]:0", &fd), 0);
	assert_true(trib_listen_port(fd) > 0);
	(void)snprintf(address, sizeof(address), "fd:%d", fd);
	assert_int_equal(trib_listen(address, &other), 0);
	assert_int_equal(fd, other);
	(void)close(fd);
	(void)snprintf(path, sizeof(path), "unix:/tmp/trib-unit-httpd-%d", (int)getpid());
	assert_int_equal(trib_listen(path, &fd), 0);
	assert_int_equal(trib_listen_port(fd), 0);
	assert_int_equal(trib_listen(path, &other), -EADDRINUSE);
	(void)close(fd);
	assert_int_equal(trib_listen(path, &fd), 0); /* the stale file is taken over */
	(void)close(fd);
	(void)unlink(path + 5);
	assert_int_equal(trib_listen("127.0.0.1", &fd), -EINVAL);
	assert_int_equal(trib_listen("127.0.0.1:99999", &fd), -EINVAL);
	assert_int_equal(trib_listen("::1:80", &fd), -EINVAL);
	assert_int_equal(trib_listen("fd:0x", &fd), -EINVAL);
	assert_int_equal(trib_listen("unix:", &fd), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_of_time),
		cmocka_unit_test(clients_that_go_away),
		cmocka_unit_test(nothing_spins),
		cmocka_unit_test(too_many_connections),
		cmocka_unit_test(freed_by_its_own_handler),
		cmocka_unit_test(idle_connections_are_cheap),
		cmocka_unit_test(out_of_descriptors),
		cmocka_unit_test(leaves_newcomers_to_others),
		cmocka_unit_test(listens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
