/* SPDX-License-Identifier: Apache-2.0 */
/* The transport in relay mode with real sockets; any user. The same cases run over skmsg in
 * tests/priv/transport_skmsg.c. */
#include "tests/unit/bpf_transport_cases.h"

#include <grp.h>
#include <sys/syscall.h>

#include "bpf/pair.h"

/* Only the reader of a peer end sees the CRC; skmsg leaves it to the receiver. */
static void test_wrong_check_is_dropped(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor d = letter(F1, 1);

	d.gen = 77;
	raw(rig->hub.fd, &d, sizeof(d));
	expect_nothing(rig, &rig->f1);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_INVALID), 1);
	assert_carried(rig, 0, 0, 1);
}

static bool chop; /* let the kernel take odd pieces only, and refuse now and then */

/* Stands before the C library's: what transport.c writes with in relay mode. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	static uint32_t calls;
	const struct iovec *part = message->msg_iov;

	if (chop) {
		size_t size = 1 + calls++ * 37 % 200;

		if (calls % 5 == 0) {
			errno = EAGAIN;
			return -1;
		}
		return send(fd, part->iov_base, size < part->iov_len ? size : part->iov_len, flags);
	}
	return syscall(SYS_sendmsg, fd, message, flags);
}

/* The kernel takes part of a descriptor: they must arrive whole, once, in order. */
static void test_partial_writes_keep_the_framing(void **state)
{
	struct rig *rig = *state;
	uint64_t start_ms = trib_clock_ms();
	uint32_t sent = 0;
	uint32_t got = 0;

	chop = true;
	while (got < 5000) {
		struct trib_descriptor d[64];
		int n;

		while (sent < 5000 && sent - got < 2000) {
			post(rig->hub.fd, F1, sent++);
		}
		turn(rig, 0);
		n = trib_descriptor_receive(rig->f1.fd, &rig->f1.reader, d, 1 + sent % 64);
		assert_true(n >= 0);
		for (int i = 0; i < n; i++) {
			assert_true(trib_descriptor_valid(&d[i]));
			assert_int_equal(d[i].round, got);
			got++;
		}
		assert_true(trib_clock_ms() - start_ms < 60000);
	}
	chop = false;
	assert_carried(rig, 5000, 0, 0);
}

/* Who does not read costs his own letters, not the agent's memory nor other receivers. */
static void test_receiver_that_does_not_read_is_bounded(void **state)
{
	struct rig *rig = *state;
	struct trib_transport_stats stats;
	uint64_t start_ms = trib_clock_ms();
	uint32_t sent = 0;
	uint32_t got = 0;
	int n;

	while (trib_transport_refused(rig->transport, TRIB_ROUTE_FULL) < 1000) {
		struct trib_descriptor d = letter(F1, sent);
		int rc = trib_descriptor_send(rig->hub.fd, &d);

		assert_true(rc == 0 || rc == -EAGAIN);
		sent += rc == 0;
		if (rc || sent % 256 == 0) {
			turn(rig, 0);
		}
		assert_true(trib_clock_ms() - start_ms < 60000);
	}
	post(rig->f2.fd, HUB, 1);
	expect(rig, &rig->hub, HUB, 1);
	do {
		struct trib_descriptor d[64];

		turn(rig, 1);
		n = trib_descriptor_receive(rig->f1.fd, &rig->f1.reader, d, TRIB_COUNT(d));
		for (int i = 0; i < n; i++) {
			assert_true(trib_descriptor_valid(&d[i])); /* whole after partial writes */
		}
		got += n > 0 ? (uint32_t)n : 0;
		trib_transport_stats(rig->transport, &stats);
		assert_true(trib_clock_ms() - start_ms < 60000);
	} while (n > 0 || got + stats.dropped < sent);
	assert_int_equal(got + stats.dropped, sent);
	assert_int_equal(stats.dropped, trib_transport_refused(rig->transport, TRIB_ROUTE_FULL));
	assert_int_equal(stats.relayed, got + 1);
}

static void test_receiver_gone_while_letters_wait(void **state)
{
	struct rig *rig = *state;
	uint64_t start_ms = trib_clock_ms();
	uint32_t sent = 0;

	while (trib_transport_refused(rig->transport, TRIB_ROUTE_FULL) == 0) {
		struct trib_descriptor d = letter(F1, sent);

		sent += trib_descriptor_send(rig->hub.fd, &d) == 0;
		turn(rig, 0);
		assert_true(trib_clock_ms() - start_ms < 60000);
		for (uint32_t i = 0; i < 255 && trib_descriptor_send(rig->hub.fd, &d) == 0; i++) {
			sent++;
		}
	}
	assert_int_equal(close(rig->f1.fd), 0);
	rig->f1.fd = -1;
	turn(rig, 50);
	assert_int_equal(rig->f1.closed, 1);
	assert_true(trib_transport_refused(rig->transport, TRIB_ROUTE_GONE) >= 4096);
	post(rig->hub.fd, F2, 1);
	expect(rig, &rig->f2, F2, 1);
}

static void test_pair_is_connected_and_quiet(void **state)
{
	int owner;
	int peer;
	char c = 'x';

	(void)state;
	assert_int_equal(trib_pair_new(&owner, &peer), 0);
	assert_int_equal(recv(owner, &c, 1, 0), -1); /* non-blocking */
	assert_int_equal(errno, EAGAIN);
	raw(peer, "y", 1);
	for (int i = 0; i < 100 && recv(owner, &c, 1, 0) != 1; i++) {
		(void)poll(NULL, 0, 1);
	}
	assert_int_equal(c, 'y');
	assert_int_equal(close(owner), 0);
	assert_int_equal(close(peer), 0);
}

/* 0 when AUTO fell back with a reason and SKMSG failed with the same. Runs without privilege. */
static int unprivileged(void)
{
	struct trib_loop *loop;
	struct trib_transport *transport;
	const char *why;
	int failed = 0;

	if (trib_loop_new(&loop) || trib_transport_new(loop, TRIB_TRANSPORT_AUTO, &transport)) {
		return 10;
	}
	why = trib_transport_explain(transport);
	print_message("explain: %s\n", why);
	failed |= trib_transport_mode(transport) != TRIB_TRANSPORT_RELAY;
	failed |= !strstr(why, "CAP_BPF and CAP_NET_ADMIN missing") ? 2 : 0;
	transport = trib_transport_free(transport);
	failed |= trib_transport_new(loop, TRIB_TRANSPORT_SKMSG, &transport) != -EPERM ? 4 : 0;
	failed |= !strstr(trib_transport_failure(), "CAP_BPF") ? 8 : 0;
	trib_loop_free(loop);
	return failed;
}

static void test_auto_falls_back_and_explains(void **state)
{
	int status = 0;
	pid_t pid;

	(void)state;
	(void)fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 && (setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
				       setresuid(65534, 65534, 65534))) {
			_exit(20);
		}
		_exit(unprivileged());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		COMMON_CASES,
		CASE(test_wrong_check_is_dropped),
		CASE(test_partial_writes_keep_the_framing),
		CASE(test_receiver_that_does_not_read_is_bounded),
		CASE(test_receiver_gone_while_letters_wait),
		cmocka_unit_test(test_pair_is_connected_and_quiet),
		cmocka_unit_test(test_auto_falls_back_and_explains),
	};

	mode = TRIB_TRANSPORT_RELAY;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
