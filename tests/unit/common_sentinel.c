/* SPDX-License-Identifier: Apache-2.0
 * common/sentinel.c against scripted Sentinels on the same loop. A real one, with fail-overs, is in
 * tests/system/test_sentinel.py.
 */
#include "common/sentinel.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"

#define PEERS 2

struct peer {
	int listener;
	int fd;
	uint16_t port;
	struct trib_io *listener_io;
	struct trib_io *io;
	const char *address; /* answer to get-master-addr-by-name */
	const char *record;  /* answer to MASTER */
	const char *replicas;
	size_t asked;
};

static struct trib_loop *loop;
static struct peer peers[PEERS];
static struct {
	size_t count;
	bool found;
	struct trib_master master;
} answer;

static const char good_address[] = "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n";
static const char good_record[] =
	"*4\r\n$4\r\nname\r\n$1\r\nm\r\n$12\r\nconfig-epoch\r\n$2\r\n17\r\n";

#define REPLICA(flags_size, flags, priority)             \
	"*4\r\n$5\r\nflags\r\n$" flags_size "\r\n" flags \
	"\r\n$14\r\nslave-priority\r\n$1\r\n" priority "\r\n"
static const char good_replicas[] = "*5\r\n" REPLICA("5", "slave", "1")
	REPLICA("12", "s_down,slave", "1") REPLICA("14", "slave,promoted", "1")
		REPLICA("18", "slave,disconnected", "1") REPLICA("5", "slave", "0");

static void on_peer(int fd, unsigned ready, void *arg)
{
	static const char *const words[] = { "get-master-addr-by-name", "MASTER\r\n",
					     "REPLICAS\r\n" };
	struct peer *peer = arg;
	char text[1024];
	ssize_t size = recv(fd, text, sizeof(text) - 1, 0);
	const char *say;

	(void)ready;
	if (size <= 0) {
		peer->io = trib_io_free(peer->io);
		(void)close(fd);
		peer->fd = -1;
		return;
	}
	text[size] = '\0';
	if (strstr(text, "SUBSCRIBE")) {
		return;
	}
	peer->asked++;
	for (size_t i = 0; i < TRIB_COUNT(words); i++) { /* several may have come at once */
		if (strstr(text, words[i])) {
			say = i == 0 ? peer->address : i == 1 ? peer->record : peer->replicas;
			(void)send(fd, say, strlen(say), MSG_NOSIGNAL);
		}
	}
}

static void on_connection(int fd, unsigned ready, void *arg)
{
	struct peer *peer = arg;

	(void)ready;
	if (peer->fd >= 0) {
		peer->io = trib_io_free(peer->io);
		(void)close(peer->fd);
	}
	peer->fd = accept(fd, NULL, NULL);
	assert_true(peer->fd >= 0);
	assert_int_equal(trib_io_new(loop, peer->fd, TRIB_IO_READ, on_peer, peer, &peer->io), 0);
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(trib_loop_new(&loop), 0);
	for (int i = 0; i < PEERS; i++) {
		struct sockaddr_in sin = { .sin_family = AF_INET,
					   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		socklen_t size = sizeof(sin);
		struct peer *peer = &peers[i];

		*peer = (struct peer){ .fd = -1,
				       .address = good_address,
				       .record = good_record,
				       .replicas = good_replicas };
		peer->listener = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(bind(peer->listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
		assert_int_equal(listen(peer->listener, 16), 0);
		assert_int_equal(getsockname(peer->listener, (struct sockaddr *)&sin, &size), 0);
		peer->port = ntohs(sin.sin_port);
		assert_int_equal(trib_io_new(loop, peer->listener, TRIB_IO_READ, on_connection,
					     peer, &peer->listener_io),
				 0);
	}
	answer.count = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < PEERS; i++) {
		peers[i].io = trib_io_free(peers[i].io);
		peers[i].listener_io = trib_io_free(peers[i].listener_io);
		if (peers[i].fd >= 0) {
			(void)close(peers[i].fd);
		}
		(void)close(peers[i].listener);
	}
	trib_loop_free(loop);
	return 0;
}

static void on_answer(const struct trib_master *master, void *arg)
{
	(void)arg;
	answer.count++;
	answer.found = master != NULL;
	if (master) {
		answer.master = *master;
	}
	trib_loop_stop(loop);
}

static void on_hint(void *arg)
{
	(void)arg;
}

static void on_late(void *arg)
{
	(void)arg;
	trib_loop_stop(loop);
}

/* Asks the first `count` peers; true when they knew. */
static bool ask(int count)
{
	struct trib_sentinel *sentinel = NULL;
	struct trib_timer *late = NULL;
	char address[128];
	int size = snprintf(address, sizeof(address), "sentinel://127.0.0.1:%u", peers[0].port);

	if (count > 1) {
		size += snprintf(address + size, sizeof(address) - (size_t)size, ",127.0.0.1:%u",
				 peers[1].port);
	}
	(void)snprintf(address + size, sizeof(address) - (size_t)size, "/m");
	assert_int_equal(trib_sentinel_new(loop, address, on_answer, on_hint, NULL, &sentinel), 0);
	assert_int_equal(trib_timer_new(loop, on_late, NULL, &late), 0);
	trib_timer_after(late, 30000);
	answer.count = 0;
	trib_sentinel_ask(sentinel);
	trib_sentinel_ask(sentinel); /* no second answer for this */
	assert_int_equal(trib_loop_run(loop), 0);
	assert_int_equal(answer.count, 1);
	late = trib_timer_free(late);
	assert_null(trib_sentinel_free(sentinel));
	return answer.found;
}

static void addresses_are_checked(void **state)
{
	static const char *const bad[] = {
		"sentinel://",
		"sentinel://h:1",
		"sentinel:///m",
		"sentinel://127.0.0.1:1/",
		"sentinel://127.0.0.1:1,/m",
		"sentinel://,127.0.0.1:1/m",
		"sentinel://127.0.0.1/m",
		"sentinel://127.0.0.1:0/m",
		"sentinel://127.0.0.1:1/m m",
		"sentinel://unix:/x/m",
		"sentinel://127.0.0.1:1/m?confirm",
		"sentinel://127.0.0.1:1/m?confirm=-1",
		"sentinel://127.0.0.1:1/m?confirm=17",
		"sentinel://127.0.0.1:1/m?other=1",
		"sentinel://"
		"127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:4,127.0.0.1:5,127.0.0.1:6,"
		"127.0.0.1:7,127.0.0.1:8,127.0.0.1:9,127.0.0.1:10/m",
	};
	struct trib_sentinel *sentinel = NULL;

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(bad); i++) {
		if (trib_sentinel_new(loop, bad[i], on_answer, on_hint, NULL, &sentinel) !=
		    -EINVAL) {
			fail_msg("\"%s\" was taken", bad[i]);
		}
		assert_null(sentinel);
	}
	assert_int_equal(trib_sentinel_new(loop, "sentinel://127.0.0.1:1/my-master.1?confirm=2",
					   on_answer, on_hint, NULL, &sentinel),
			 0);
	assert_int_equal(trib_sentinel_confirm(sentinel), 2);
	sentinel = trib_sentinel_free(sentinel);
	assert_int_equal(trib_sentinel_new(loop, "sentinel://127.0.0.1:1/m", on_answer, on_hint,
					   NULL, &sentinel),
			 0);
	assert_int_equal(trib_sentinel_confirm(sentinel), 1);
	assert_null(trib_sentinel_free(sentinel));
	assert_null(trib_sentinel_free(NULL));
}

static void a_known_master_is_told(void **state)
{
	(void)state;
	assert_true(ask(1));
	assert_string_equal(answer.master.host, "127.0.0.1");
	assert_int_equal(answer.master.port, 6379);
	assert_int_equal(answer.master.config_epoch, 17);
	assert_true(answer.master.steady);
	assert_int_equal(answer.master.replicas, 3); /* neither the dead one nor the last */
}

static void a_fail_over_is_told(void **state)
{
	static const char *const flags[] = { "master,failover_in_progress", "s_down,master",
					     "s_down,o_down,master" };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(flags); i++) {
		char record[128];

		(void)snprintf(
			record, sizeof(record),
			"*4\r\n$5\r\nflags\r\n$%zu\r\n%s\r\n$12\r\nconfig-epoch\r\n$1\r\n3\r\n",
			strlen(flags[i]), flags[i]);
		peers[0].record = record;
		assert_true(ask(1));
		assert_false(answer.master.steady);
	}
}

static void odd_answers_are_no_answers(void **state)
{
	static const char *const addresses[] = {
		"*-1\r\n",
		"$-1\r\n",
		":1\r\n",
		"+OK\r\n",
		"-ERR No such master with that name\r\n",
		"*0\r\n",
		"*1\r\n$9\r\n127.0.0.1\r\n",
		"*3\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\n1\r\n",
		"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
		"*2\r\n$3\r\na b\r\n$4\r\n6379\r\n",
		"*2\r\n$3\r\na\0b\r\n$4\r\n6379\r\n",
		"*2\r\n$6\r\na\r\nb\r\n\r\n$4\r\n6379\r\n",
		"*2\r\n$1\r\na\r\n$1\r\n0\r\n",
		"*2\r\n$1\r\na\r\n$5\r\n65536\r\n",
		"*2\r\n$1\r\na\r\n$5\r\n6379x\r\n",
		"*2\r\n$1\r\na\r\n*0\r\n",
		"*2\r\n*0\r\n$4\r\n6379\r\n",
		"HTTP/1.1 400 Bad Request\r\n\r\n",
	};
	static const char *const records[] = {
		"*-1\r\n",
		"*0\r\n",
		"-IDONTKNOW\r\n",
		"*2\r\n$12\r\nconfig-epoch\r\n$0\r\n\r\n",
		"*2\r\n$12\r\nconfig-epoch\r\n$2\r\n-1\r\n",
		"*2\r\n$12\r\nconfig-epoch\r\n:1\r\n",
		"*2\r\n$12\r\nconfig-epoch\r\n$7\r\n9000001\r\n",
		"*2\r\n$12\r\nconfig-epoch\r\n$20\r\n18446744073709551615\r\n",
		"*1\r\n$12\r\nconfig-epoch\r\n",
	};
	static const char *const lists[] = { "-ERR Unknown sentinel subcommand\r\n", "$1\r\nx\r\n",
					     ":2\r\n" };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(addresses); i++) {
		peers[0].address = addresses[i];
		if (ask(1)) {
			fail_msg("address answer %zu was believed", i);
		}
	}
	peers[0].address = good_address;
	for (size_t i = 0; i < TRIB_COUNT(records); i++) {
		peers[0].record = records[i];
		if (ask(1)) {
			fail_msg("record answer %zu was believed", i);
		}
	}
	peers[0].record = good_record;
	for (size_t i = 0; i < TRIB_COUNT(lists); i++) {
		peers[0].replicas = lists[i];
		if (ask(1)) {
			fail_msg("list of replicas %zu was believed", i);
		}
	}
	peers[0].replicas = "*4\r\n*0\r\n:1\r\n*2\r\n$5\r\nflags\r\n*0\r\n$1\r\nx\r\n";
	assert_true(ask(1)); /* odd, but nothing that may be left out */
	assert_int_equal(answer.master.replicas, 4);
}

static void the_next_one_is_asked(void **state)
{
	(void)state;
	peers[0].address = "*-1\r\n";
	assert_true(ask(2));
	assert_true(peers[1].asked >= 2);
	peers[0].address = ""; /* silent: the limit */
	assert_true(ask(2));
	peers[1].address = "";
	assert_false(ask(2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(addresses_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(a_known_master_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_fail_over_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(odd_answers_are_no_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_one_is_asked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
