/* SPDX-License-Identifier: Apache-2.0
 * The agent's part for tests and benches of the real tributary-aggregator: a zygote, functions
 * over loopback TCP and SEQPACKET pairs, descriptors by hand. Failures abort with the line.
 */
#ifndef TRIB_TESTS_UNIT_FUNCTION_HARNESS_H
#define TRIB_TESTS_UNIT_FUNCTION_HARNESS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/descriptor_check.h"
#include "shm/function.h"
#include "shm/link.h"
#include "shm/partial.h"
#include "shm/segment.h"

#define HARNESS_JOB     5u
#define HARNESS_WAIT_MS 5000

#define REQUIRE(cond)   ((cond) ? (void)0 : trib_assert_failed(#cond, __FILE__, __LINE__))

struct harness_zygote {
	pid_t pid;
	int fd;
};

struct harness_function {
	pid_t pid;
	int data;
	int control;
	struct trib_descriptor_reader reader;
};

/* <build>/tests/<tier>/<program> -> <build>/bin/tributary-aggregator; TRIBUTARY_BIN wins. */
TRIB_UNUSED static bool harness_program(char *out, size_t size)
{
	const char *bin = getenv("TRIBUTARY_BIN");
	char self[PATH_MAX - 64];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (bin) {
		(void)snprintf(out, size, "%s/tributary-aggregator", bin);
		return access(out, X_OK) == 0;
	}
	REQUIRE(length > 0);
	self[length] = '\0';
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(self, '/');

		REQUIRE(slash);
		*slash = '\0';
	}
	(void)snprintf(out, size, "%s/bin/tributary-aggregator", self);
	return access(out, X_OK) == 0;
}

TRIB_UNUSED static struct harness_zygote harness_zygote_start(const char *program)
{
	struct harness_zygote zygote;
	char number[16];
	int pair[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	zygote.fd = pair[0];
	zygote.pid = fork();
	REQUIRE(zygote.pid >= 0);
	if (zygote.pid == 0) {
		int fd = dup(pair[1]); /* without CLOEXEC */

		(void)snprintf(number, sizeof(number), "%d", fd);
		(void)execl(program, program, "--zygote-fd", number, (char *)NULL);
		_exit(127);
	}
	(void)close(pair[1]);
	return zygote;
}

/* Exit status of the zygote after its end of file. */
TRIB_UNUSED static int harness_zygote_stop(struct harness_zygote *zygote)
{
	int status;

	(void)close(zygote->fd);
	REQUIRE(waitpid(zygote->pid, &status, 0) == zygote->pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TRIB_UNUSED static void harness_tcp_pair(int pair[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	REQUIRE(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
	REQUIRE(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(connect(pair[0], (struct sockaddr *)&address, size) == 0);
	pair[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	REQUIRE(pair[1] >= 0);
	for (int i = 0; i < 2; i++) {
		REQUIRE(setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	}
	(void)close(listener);
}

TRIB_UNUSED static struct harness_function harness_spawn(const struct harness_zygote *zygote,
							 uint32_t index)
{
	struct harness_function f = { .pid = -1 };
	struct trib_fn_message m = { .magic = TRIB_FN_MAGIC,
				     .kind = TRIB_FN_SPAWN,
				     .job_index = HARNESS_JOB,
				     .index = index };
	int data[2];
	int control[2];
	int fds[2];
	uint32_t count;

	harness_tcp_pair(data);
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0);
	fds[0] = data[1];
	fds[1] = control[1];
	REQUIRE(trib_fd_send(zygote->fd, &m, sizeof(m), fds, 2) == 0);
	REQUIRE(trib_fd_receive(zygote->fd, &m, sizeof(m), fds, 2, &count) == (int)sizeof(m));
	REQUIRE(m.kind == TRIB_FN_SPAWNED && m.pid > 0 && m.index == index);
	(void)close(data[1]);
	(void)close(control[1]);
	f.pid = m.pid;
	f.data = data[0];
	f.control = control[0];
	return f;
}

/* A spare: forked and sandboxed, without a data socket. */
TRIB_UNUSED static struct harness_function harness_spare(const struct harness_zygote *zygote)
{
	struct harness_function f = { .pid = -1, .data = -1 };
	struct trib_fn_message m = { .magic = TRIB_FN_MAGIC, .kind = TRIB_FN_SPAWN };
	int control[2];
	int fds[1];
	uint32_t count;

	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0);
	REQUIRE(trib_fd_send(zygote->fd, &m, sizeof(m), &control[1], 1) == 0);
	REQUIRE(trib_fd_receive(zygote->fd, &m, sizeof(m), fds, 1, &count) == (int)sizeof(m));
	REQUIRE(m.kind == TRIB_FN_SPAWNED && m.pid > 0);
	(void)close(control[1]);
	f.pid = m.pid;
	f.control = control[0];
	return f;
}

TRIB_UNUSED static void harness_tell(const struct harness_function *f, struct trib_fn_message *m,
				     int fd, int fd2)
{
	int fds[2] = { fd, fd2 };

	m->magic = TRIB_FN_MAGIC;
	REQUIRE(trib_fd_send(f->control, m, sizeof(*m), fds, fd < 0 ? 0 : fd2 < 0 ? 1 : 2) == 0);
}

TRIB_UNUSED static void harness_send(const struct harness_function *f, struct trib_descriptor d)
{
	d.job = HARNESS_JOB;
	trib_descriptor_seal(&d);
	REQUIRE(trib_descriptor_send(f->data, &d) == 0);
}

TRIB_UNUSED static void harness_bind(struct harness_function *f)
{
	struct trib_fn_message m = { .kind = TRIB_FN_BIND };
	int data[2];

	harness_tcp_pair(data);
	harness_tell(f, &m, data[1], -1);
	(void)close(data[1]);
	f->data = data[0];
}

/* False when nothing came in time or the function is gone. */
TRIB_UNUSED static bool harness_receive(struct harness_function *f, struct trib_descriptor *ret_d,
					int wait_ms)
{
	struct pollfd wait = { .fd = f->data, .events = POLLIN };
	int got = 0;

	while (got == 0) {
		if (poll(&wait, 1, wait_ms) <= 0) {
			return false;
		}
		got = trib_descriptor_receive(f->data, &f->reader, ret_d, 1);
	}
	if (got < 0) {
		return false;
	}
	REQUIRE(trib_descriptor_valid(ret_d));
	REQUIRE(ret_d->job == HARNESS_JOB);
	return true;
}

/* Closes the data socket: status of the function as waitpid says. */
TRIB_UNUSED static int harness_reap(struct harness_function *f)
{
	int status;

	(void)close(f->data);
	(void)close(f->control);
	REQUIRE(waitpid(f->pid, &status, 0) == f->pid);
	f->pid = -1;
	return status;
}

/* A slot through its life to CLAIMED. */
TRIB_UNUSED static uint32_t harness_slot(struct trib_segment *segment, uint32_t slot,
					 const float *data, uint64_t weight, uint32_t round)
{
	struct trib_slot_record *record = trib_segment_record(segment, slot);
	uint32_t gen = trib_slot_load(record).gen;

	REQUIRE(trib_slot_move(record, TRIB_SLOT_FREE, gen, TRIB_SLOT_FILLING));
	memcpy(trib_segment_slot(segment, slot), data, segment->header.payload_size);
	record->weight = weight;
	record->bytes = segment->header.payload_size;
	record->round = round;
	REQUIRE(trib_slot_move(record, TRIB_SLOT_FILLING, gen, TRIB_SLOT_READY));
	REQUIRE(trib_slot_move(record, TRIB_SLOT_READY, gen, TRIB_SLOT_CLAIMED));
	return gen;
}

#endif
