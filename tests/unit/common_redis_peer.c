/* SPDX-License-Identifier: Apache-2.0
 * common/redis.c against a scripted peer on the same loop (over TCP), which does what a real server
 * does not do on demand.
 */
#include "common/redis.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/redis_answers.h"

#define ECHO_SIZE 25

enum manner {
	PEER_LOADING,
	PEER_STALL, /* five times LOADING, then silence */
	PEER_CUT,
	PEER_GARBAGE,
	PEER_FULL
};

struct peer {
	int listener;
	int fd;
	struct trib_io *listener_io;
	struct trib_io *io;
	size_t connections;
	size_t commands; /* of all connections */
	char held[ECHO_SIZE];
	size_t held_size;
	/* What to do, by the number of the command. */
	enum manner manner;
	size_t from;  /* the manner begins with this command */
	size_t until; /* the manner holds for commands (FULL: connections) below this */
};

static struct peer peer;

static void peer_say(const char *text, size_t size)
{
	assert_int_equal(send(peer.fd, text, size, MSG_NOSIGNAL), size);
}

static void peer_hang_up(void)
{
	peer.io = trib_io_free(peer.io);
	(void)close(peer.fd);
	peer.fd = -1;
	peer.held_size = 0;
}

/* One whole command is held. */
static void peer_command(void)
{
	char answer[] = "$5\r\n.....\r\n";
	bool odd = peer.commands >= peer.from && peer.commands < peer.until &&
		   peer.manner != PEER_FULL;

	peer.commands++;
	memcpy(answer + 4, peer.held + ECHO_SIZE - 7, 5);
	if (!odd) {
		peer_say(answer, strlen(answer));
		return;
	}
	switch (peer.manner) {
	case PEER_STALL:
		if (peer.commands > peer.from + 5) {
			return;
		}
		/* fallthrough */
	case PEER_LOADING:
		peer_say("-LOADING Redis is loading the dataset in memory\r\n", 49);
		return;
	case PEER_CUT: /* two answers and a half */
		peer_say(answer, peer.commands % 3 ? strlen(answer) : 7);
		if (peer.commands % 3) {
			return;
		}
		break;
	case PEER_GARBAGE:
		peer_say("?what\r\n", 7);
		break;
	case PEER_FULL:
		break;
	}
	peer_hang_up();
}

static void on_peer_io(int fd, unsigned ready, void *arg)
{
	ssize_t n = recv(fd, peer.held + peer.held_size, ECHO_SIZE - peer.held_size, MSG_DONTWAIT);

	(void)ready;
	(void)arg;
	if (n <= 0) {
		peer_hang_up();
		return;
	}
	peer.held_size += (size_t)n;
	if (peer.held_size == ECHO_SIZE) {
		peer.held_size = 0;
		peer_command();
	}
}

static void on_peer_accept(int fd, unsigned ready, void *arg)
{
	(void)ready;
	(void)arg;
	peer.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(peer.fd >= 0);
	peer.connections++;
	if (peer.manner == PEER_FULL && peer.connections <= peer.until) {
		peer_say("-ERR max number of clients reached\r\n", 36);
		(void)close(peer.fd);
		return;
	}
	assert_int_equal(trib_io_new(loop, peer.fd, TRIB_IO_READ, on_peer_io, NULL, &peer.io), 0);
}

/* Listens on a TCP port of its own choice, tells the address. */
static void peer_start(enum manner manner, size_t until, char out[32])
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t size = sizeof(in);

	memset(&peer, 0, sizeof(peer));
	peer.manner = manner;
	peer.until = until;
	peer.fd = -1;
	peer.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(peer.listener, (struct sockaddr *)&in, size), 0);
	assert_int_equal(listen(peer.listener, 8), 0);
	assert_int_equal(getsockname(peer.listener, (struct sockaddr *)&in, &size), 0);
	assert_int_equal(trib_io_new(loop, peer.listener, TRIB_IO_READ, on_peer_accept, NULL,
				     &peer.listener_io),
			 0);
	(void)snprintf(out, 32, "127.0.0.1:%d", ntohs(in.sin_port));
}

static void peer_stop(void)
{
	if (peer.fd >= 0) {
		peer_hang_up();
	}
	peer.listener_io = trib_io_free(peer.listener_io);
	(void)close(peer.listener);
}

/* Whatever the peer does at first, every call gets its own answer, in order. */
static void assert_answers_from(enum manner manner, size_t until)
{
	struct trib_redis *redis;
	char where[32];
	uint64_t ms = trib_clock_ms();

	peer_start(manner, until, where);
	redis = connection(where);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	assert_true(run(&got.count, 20, 10000));
	assert_in_order(20);
	ms = trib_clock_ms() - ms;
	print_message("%zu connections, %zu commands, %llu ms\n", peer.connections, peer.commands,
		      (unsigned long long)ms);
	redis = trib_redis_free(redis);
	peer_stop();
}

static void loading_is_tried_again_after_a_while(void **state)
{
	uint64_t ms = trib_clock_ms();

	(void)state;
	assert_answers_from(PEER_LOADING, 3); /* the first call alone is tried until it passes */
	assert_int_equal(peer.connections, 1);
	assert_int_equal(peer.commands, 23);
	assert_true(trib_clock_ms() - ms >= 3 * 50 - 10);
}

/* When it begins in the midst of calls already written, order is lost but no answer is. */
static void loading_in_the_midst_loses_nothing(void **state)
{
	bool seen[20] = { false };
	struct trib_redis *redis;
	char where[32];

	(void)state;
	peer_start(PEER_LOADING, 10, where);
	peer.from = 5;
	redis = connection(where);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	assert_true(run(&got.count, 20, 10000));
	for (int i = 0; i < 20; i++) {
		assert_in_range(got.order[i], 0, 19);
		assert_false(seen[got.order[i]]);
		seen[got.order[i]] = true;
	}
	for (int i = 15; i < 20; i++) {
		assert_int_equal(got.order[i], i - 10); /* 5 to 9 came last, in order */
	}
	assert_int_equal(peer.commands, 25);
	redis = trib_redis_free(redis);
	peer_stop();
}

/* Calls to be tried again and calls never answered are put in order when the connection ends. */
static void loading_before_a_loss_keeps_the_order(void **state)
{
	struct trib_redis *redis;
	char where[32];

	(void)state;
	peer_start(PEER_STALL, 20, where);
	peer.from = 5;
	redis = connection(where);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(echo(redis, i), 0);
	}
	(void)run(NULL, 0, 150);
	assert_in_order(5);
	assert_int_equal(peer.commands, 20);
	peer_hang_up();
	assert_true(run(&got.count, 20, 10000));
	assert_in_order(20);
	assert_int_equal(peer.commands, 35);
	redis = trib_redis_free(redis);
	peer_stop();
}

static void half_an_answer_is_none(void **state)
{
	(void)state;
	assert_answers_from(PEER_CUT, 9);
	assert_int_equal(peer.connections, 4);
}

static void garbage_ends_the_connection_only(void **state)
{
	(void)state;
	assert_answers_from(PEER_GARBAGE, 2);
	assert_int_equal(peer.connections, 3);
}

static void a_full_server_is_no_answer(void **state)
{
	(void)state;
	assert_answers_from(PEER_FULL, 3);
	assert_int_equal(peer.connections, 4);
}

static void back_off_grows_to_a_second(void **state)
{
	struct trib_redis *redis;
	char where[32];

	(void)state;
	peer_start(PEER_FULL, 1000, where);
	redis = connection(where);
	assert_int_equal(echo(redis, 0), 0);
	(void)run(NULL, 0, 2500); /* at 0 20 60 140 300 620 1260 2260 ms */
	assert_in_range(peer.connections, 6, 9);
	assert_int_equal(got.count, 0);
	peer.until = 0;
	assert_true(run(&got.count, 1, 3000));
	assert_in_order(1);
	redis = trib_redis_free(redis);
	peer_stop();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		TEST(loading_is_tried_again_after_a_while),
		TEST(loading_in_the_midst_loses_nothing),
		TEST(loading_before_a_loss_keeps_the_order),
		TEST(half_an_answer_is_none),
		TEST(garbage_ends_the_connection_only),
		TEST(a_full_server_is_no_answer),
		TEST(back_off_grows_to_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
