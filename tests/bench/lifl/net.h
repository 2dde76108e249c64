/* SPDX-License-Identifier: Apache-2.0
 * Blocking sockets of the baselines of `make bench-lifl`: whatever fails ends the program.
 */
#ifndef TRIB_TESTS_BENCH_LIFL_NET_H
#define TRIB_TESTS_BENCH_LIFL_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base.h"

struct frame {         /* before every update or sum */
	uint32_t skip; /* bytes before the floats, the head not included */
	uint32_t reserved;
	uint64_t bytes; /* skip included */
};

__attribute__((noreturn)) static inline void net_die(const char *what)
{
	(void)fprintf(stderr, "lifl: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* 127.0.0.1, port of "HOST:PORT". */
static inline int net_dial(const char *address)
{
	const char *colon = strrchr(address, ':');
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	to.sin_port = htons((uint16_t)strtoul(colon ? colon + 1 : address, NULL, 10));
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		net_die("connect");
	}
	return fd;
}

static inline void net_send(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size) {
		ssize_t n = send(fd, at, size, MSG_NOSIGNAL);

		if (n <= 0) {
			net_die("send");
		}
		at += n;
		size -= (size_t)n;
	}
}

static inline void net_receive(int fd, void *data, size_t size)
{
	char *at = data;

	while (size) {
		ssize_t n = recv(fd, at, size, 0);

		if (n <= 0) {
			net_die("recv");
		}
		at += n;
		size -= (size_t)n;
	}
}

/* A line of an answer, without its end. Byte by byte: they are short. */
static inline void net_line(int fd, char *line, size_t size)
{
	size_t at = 0;

	while (at + 1 < size) {
		net_receive(fd, &line[at], 1);
		if (line[at] == '\n') {
			break;
		}
		at += line[at] != '\r';
	}
	line[at] = '\0';
}

#endif
