/* SPDX-License-Identifier: Apache-2.0 */
/* The transport in skmsg mode: the real kernel redirects. Needs CAP_BPF and CAP_NET_ADMIN; exits
 * 77 with the reason where it cannot run (which `make test-priv` counts as failure). The cases of
 * tests/unit/bpf_transport_cases.h must hold as in relay mode; here is what only the kernel does.
 */
#include "tests/unit/bpf_transport_cases.h"

#include <linux/bpf.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* The program does not look at the CRC: the receiver does, as with any input. */
static void test_wrong_check_is_the_receivers_business(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor d = letter(F1, 1);

	d.gen = 77;
	raw(rig->hub.fd, &d, sizeof(d));
	turn(rig, 20);
	assert_int_equal(trib_descriptor_receive(rig->f1.fd, &rig->f1.reader, &d, 1), 1);
	assert_false(trib_descriptor_valid(&d));
	assert_carried(rig, 1, 0, 0);
}

/* A wrong CRC in a dead letter is dropped: nobody would see whose it was. */
static void test_wrong_check_in_a_dead_letter_is_dropped(void **state)
{
	struct rig *rig = *state;
	struct trib_descriptor d = letter(F1, 1);

	d.gen = 77;
	raw(rig->hub.fd, &d, 40);
	raw(rig->hub.fd, (const uint8_t *)&d + 40, 24);
	expect_nothing(rig, &rig->f1);
	assert_int_equal(trib_transport_refused(rig->transport, TRIB_ROUTE_INVALID), 1);
	assert_carried(rig, 0, 0, 1);
}

/* The sandbox: sockets made outside keep working in an empty network namespace. */
static void test_function_in_its_own_network_namespace(void **state)
{
	struct rig *rig = *state;
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct pollfd pollfd = { .fd = 3, .events = POLLIN };
		struct trib_descriptor d;

		only_fd(rig->f1.fd);
		if (unshare(CLONE_NEWNET) || poll(&pollfd, 1, 5000) != 1 ||
		    trib_descriptor_receive(3, &rig->f1.reader, &d, 1) != 1) {
			_exit(1);
		}
		d = letter(HUB, d.round + 1);
		_exit(trib_descriptor_send(3, &d) ? 2 : 0);
	}
	post(rig->hub.fd, F1, 1);
	expect(rig, &rig->hub, HUB, 2);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_carried(rig, 2, 0, 0);
}

#define STORM 300000u

struct storm {
	uint32_t sent;
	uint32_t again;
	uint32_t access;
	uint32_t pipe;
	uint32_t other;
	int last;
};

static void storm_sender(int report)
{
	struct storm storm = { 0 };

	for (uint32_t i = 0; i < STORM; i++) {
		struct trib_descriptor d = letter(F1, i);
		int rc = trib_descriptor_send(3, &d);

		storm.sent += rc == 0;
		storm.again += rc == -EAGAIN;
		storm.access += rc == -EACCES;
		storm.pipe += rc == -EPIPE;
		storm.other += rc && rc != -EAGAIN && rc != -EACCES && rc != -EPIPE;
		storm.last = rc ? rc : storm.last;
		if (rc == -EAGAIN) {
			(void)poll(NULL, 0, 1);
		}
	}
	_exit(write(report, &storm, sizeof(storm)) == sizeof(storm) ? 0 : 1);
}

/* Receivers are killed and replaced while a sender does not pause: its one socket must survive. */
static void test_receivers_die_under_fire(void **state)
{
	struct rig *rig = *state;
	struct trib_transport_stats stats;
	struct storm storm = { 0 };
	uint32_t lives = 0;
	int report[2];
	int status = -1;
	pid_t sender;

	assert_int_equal(pipe(report), 0);
	sender = fork();
	assert_true(sender >= 0);
	if (sender == 0) {
		int out = dup2(report[1], 2);

		only_fd(rig->hub.fd);
		storm_sender(out);
	}
	while (waitpid(sender, &status, WNOHANG) == 0) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			char bytes[65536];

			only_fd(rig->f1.fd);
			for (;;) {
				struct pollfd pollfd = { .fd = 3, .events = POLLIN };

				(void)poll(&pollfd, 1, 1000);
				(void)!recv(3, bytes, sizeof(bytes), MSG_DONTWAIT);
			}
		}
		(void)close(rig->f1.fd);
		rig->f1.fd = -1;
		turn(rig, 1 + lives % 5);
		reap(pid, SIGKILL);
		while (!rig->f1.closed) {
			turn(rig, 1);
		}
		end_close(&rig->f1);
		end_open(rig, &rig->f1, F1, JOB);
		lives++;
	}
	turn(rig, 100);
	assert_int_equal(read(report[0], &storm, sizeof(storm)), sizeof(storm));
	assert_int_equal(close(report[0]), 0);
	assert_int_equal(close(report[1]), 0);
	stats = stats_of(rig);
	print_message("lives %u sent %u again %u eacces %u epipe %u other %u last %d; redirected "
		      "%llu relayed %llu dead %llu dropped %llu\n",
		      lives, storm.sent, storm.again, storm.access, storm.pipe, storm.other,
		      storm.last, (unsigned long long)stats.redirected,
		      (unsigned long long)stats.relayed, (unsigned long long)stats.dead_letters,
		      (unsigned long long)stats.dropped);
	assert_true(lives > 10);
	assert_int_equal(status, 0);
	assert_int_equal(storm.access, 0);
	assert_int_equal(storm.other, 0);
	assert_int_equal(stats.relayed + stats.dropped, stats.dead_letters);
	assert_true(stats.redirected + stats.dead_letters >= storm.sent);
	post(rig->hub.fd, F2, 1); /* the sender's socket afterwards */
	expect(rig, &rig->f2, F2, 1);
}

/* Ids of the maps and programs this process holds. */
static size_t own_objects(bool maps, uint32_t *ids, size_t max)
{
	const char *key = maps ? "map_id:" : "prog_id:";
	size_t count = 0;

	for (int fd = 0; fd < 256; fd++) {
		char path[64];
		char line[128];
		FILE *file;

		(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		file = fopen(path, "r");
		while (file && fgets(line, sizeof(line), file)) {
			if (strncmp(line, key, strlen(key)) == 0 && count < max) {
				ids[count] = 0;
				(void)!sscanf(line + strlen(key), "%u", &ids[count]);
				count++;
			}
		}
		if (file) {
			assert_int_equal(fclose(file), 0);
		}
	}
	return count;
}

static bool object_exists(bool map, uint32_t id)
{
	union bpf_attr attr = { 0 };
	long fd;

	attr.map_id = id; /* the same place as prog_id */
	fd = syscall(SYS_bpf, map ? BPF_MAP_GET_FD_BY_ID : BPF_PROG_GET_FD_BY_ID, &attr,
		     sizeof(attr));
	if (fd >= 0) {
		assert_int_equal(close((int)fd), 0);
	}
	return fd >= 0;
}

static void test_nothing_is_left_in_the_kernel(void **state)
{
	struct rig rig = { 0 };
	uint32_t maps[32];
	uint32_t programs[8];
	size_t map_count;
	size_t program_count;
	int fds = count_fds();

	(void)state;
	assert_int_equal(own_objects(true, maps, TRIB_COUNT(maps)), 0);
	assert_int_equal(trib_loop_new(&rig.loop), 0);
	assert_int_equal(trib_transport_new(rig.loop, TRIB_TRANSPORT_AUTO, &rig.transport), 0);
	assert_int_equal(trib_transport_mode(rig.transport), TRIB_TRANSPORT_SKMSG);
	print_message("explain: %s\n", trib_transport_explain(rig.transport));
	end_open(&rig, &rig.hub, HUB, JOB);
	map_count = own_objects(true, maps, TRIB_COUNT(maps));
	program_count = own_objects(false, programs, TRIB_COUNT(programs));
	assert_int_equal(map_count, 8);
	assert_int_equal(program_count, 1);
	rig.hub.endpoint = trib_endpoint_free(rig.hub.endpoint);
	rig.transport = trib_transport_free(rig.transport);
	/* the owner's socket outlives the transport, as a function's may */
	for (size_t i = 0; i < map_count + program_count; i++) {
		bool map = i < map_count;
		uint32_t id = map ? maps[i] : programs[i - map_count];
		int tries = 0;

		while (object_exists(map, id)) { /* freed after a grace period */
			assert_true(tries++ < 100);
			(void)poll(NULL, 0, 50);
		}
	}
	assert_int_equal(close(rig.hub.fd), 0);
	trib_loop_free(rig.loop);
	assert_int_equal(count_fds(), fds);
}

static int only_capabilities(uint64_t mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{ .effective = (uint32_t)mask, .permitted = (uint32_t)mask },
		{ .effective = (uint32_t)(mask >> 32), .permitted = (uint32_t)(mask >> 32) },
	};

	if (prctl(PR_SET_KEEPCAPS, 1) || setresuid(65534, 65534, 65534)) {
		return -1;
	}
	return (int)syscall(SYS_capset, &header, data);
}

/* 0 when AUTO, with those capabilities alone and not root, gives that mode and word. */
static int with_capabilities(uint64_t mask, enum trib_transport_mode wanted, const char *word)
{
	int status = 0;
	pid_t pid;

	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct trib_loop *loop;
		struct trib_transport *transport;

		if (only_capabilities(mask) || trib_loop_new(&loop) ||
		    trib_transport_new(loop, TRIB_TRANSPORT_AUTO, &transport)) {
			_exit(10);
		}
		print_message("explain: %s\n", trib_transport_explain(transport));
		_exit((trib_transport_mode(transport) == wanted ? 0 : 1) +
		      (strstr(trib_transport_explain(transport), word) ? 0 : 2));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
		return -1;
	}
	return WEXITSTATUS(status);
}

static void test_which_capabilities_suffice(void **state)
{
	const uint64_t bpf = 1ull << CAP_BPF;
	const uint64_t net = 1ull << CAP_NET_ADMIN;

	(void)state;
	assert_int_equal(with_capabilities(bpf | net, TRIB_TRANSPORT_SKMSG, "skmsg:"), 0);
	assert_int_equal(with_capabilities(bpf, TRIB_TRANSPORT_RELAY, ": CAP_NET_ADMIN missing"),
			 0);
	assert_int_equal(with_capabilities(net, TRIB_TRANSPORT_RELAY, ": CAP_BPF missing"), 0);
	assert_int_equal(with_capabilities(0, TRIB_TRANSPORT_RELAY, "CAP_BPF and CAP_NET_ADMIN"),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		COMMON_CASES,
		CASE(test_wrong_check_is_the_receivers_business),
		CASE(test_wrong_check_in_a_dead_letter_is_dropped),
		CASE(test_function_in_its_own_network_namespace),
		CASE(test_receivers_die_under_fire),
		cmocka_unit_test(test_nothing_is_left_in_the_kernel),
		cmocka_unit_test(test_which_capabilities_suffice),
	};
	struct trib_loop *loop;
	struct trib_transport *transport;

	mode = TRIB_TRANSPORT_SKMSG;
	if (trib_loop_new(&loop)) {
		return 1;
	}
	if (trib_transport_new(loop, mode, &transport)) {
		(void)fprintf(stderr, "SKIP: %s\n", trib_transport_failure());
		trib_loop_free(loop);
		return 77;
	}
	transport = trib_transport_free(transport);
	trib_loop_free(loop);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
