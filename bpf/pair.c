/* SPDX-License-Identifier: Apache-2.0 */
#include "bpf/pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

#define SOCKET_FLAGS  (SOCK_NONBLOCK | SOCK_CLOEXEC)
#define BACKLOG       16
#define STRANGERS_MAX 64

static int listen_on_loopback(struct sockaddr_in *ret_address, int *ret_fd)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCKET_FLAGS, 0);

	if (fd < 0) {
		return -errno;
	}
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, BACKLOG) ||
	    getsockname(fd, (struct sockaddr *)&address, &size)) {
		int rc = -errno;

		(void)close(fd);
		return rc;
	}
	*ret_address = address;
	*ret_fd = fd;
	return 0;
}

static int wait_for(int fd, short events, uint64_t deadline_ms)
{
	uint64_t now_ms = trib_clock_ms();
	struct pollfd pollfd = { .fd = fd, .events = events };
	int n;

	if (now_ms >= deadline_ms) {
		return -ETIMEDOUT;
	}
	n = poll(&pollfd, 1, (int)(deadline_ms - now_ms));
	if (n < 0) {
		return errno == EINTR ? 0 : -errno;
	}
	return n ? 0 : -ETIMEDOUT;
}

/* The accepted end of `connector`; whoever else connected is turned away. */
static int accept_own(int listener, int connector, uint64_t deadline_ms, int *ret_fd)
{
	struct sockaddr_in own;
	socklen_t size = sizeof(own);

	if (getsockname(connector, (struct sockaddr *)&own, &size)) {
		return -errno;
	}
	for (int strangers = 0; strangers < STRANGERS_MAX;) {
		struct sockaddr_in from = { 0 };
		socklen_t from_size = sizeof(from);
		int fd = accept4(listener, (struct sockaddr *)&from, &from_size, SOCKET_FLAGS);

		if (fd >= 0) {
			if (from_size == sizeof(from) && from.sin_family == AF_INET &&
			    from.sin_addr.s_addr == own.sin_addr.s_addr &&
			    from.sin_port == own.sin_port) {
				*ret_fd = fd;
				return 0;
			}
			(void)close(fd);
			strangers++;
		} else if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) {
			int rc = wait_for(listener, POLLIN, deadline_ms);

			if (rc) {
				return rc;
			}
		} else {
			return -errno;
		}
	}
	return -ECONNREFUSED;
}

static int finish(int connector, int accepted, uint64_t deadline_ms)
{
	const int one = 1;
	int error = 0;
	socklen_t size = sizeof(error);
	int rc = wait_for(connector, POLLOUT, deadline_ms);

	if (rc) {
		return rc;
	}
	if (getsockopt(connector, SOL_SOCKET, SO_ERROR, &error, &size)) {
		return -errno;
	}
	if (error) {
		return -error;
	}
	if (setsockopt(connector, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))) {
		return -errno;
	}
	return 0;
}

int trib_pair_new(int *ret_owner_fd, int *ret_peer_fd)
{
	uint64_t deadline_ms = trib_clock_ms() + TRIB_PAIR_WAIT_MS;
	struct sockaddr_in address;
	int listener = -1;
	int connector = -1;
	int accepted = -1;
	int rc;

	rc = listen_on_loopback(&address, &listener);
	if (rc) {
		return rc;
	}
	connector = socket(AF_INET, SOCK_STREAM | SOCKET_FLAGS, 0);
	if (connector < 0) {
		rc = -errno;
		goto fail;
	}
	if (connect(connector, (struct sockaddr *)&address, sizeof(address)) &&
	    errno != EINPROGRESS) {
		rc = -errno;
		goto fail;
	}
	rc = accept_own(listener, connector, deadline_ms, &accepted);
	if (!rc) {
		rc = finish(connector, accepted, deadline_ms);
	}
	if (rc) {
		goto fail;
	}
	(void)close(listener);
	*ret_owner_fd = connector;
	*ret_peer_fd = accepted;
	return 0;
fail:
	if (accepted >= 0) {
		(void)close(accepted);
	}
	if (connector >= 0) {
		(void)close(connector);
	}
	(void)close(listener);
	return rc;
}
