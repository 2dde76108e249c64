/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 4u

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

int trib_fd_send(int socket_fd, const void *message, size_t size, const int *fds, uint32_t count)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)message, .iov_len = size };
	union control control;
	struct msghdr head = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t sent;

	if (count > FDS_MAX) {
		return -EINVAL;
	}
	if (count) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(count * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&head);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
	}
	do {
		sent = sendmsg(socket_fd, &head, MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *head, int *fds, uint32_t fds_max, uint32_t *ret_count,
		     bool *ret_too_many)
{
	*ret_count = 0;
	*ret_too_many = (head->msg_flags & MSG_CTRUNC) != 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c; c = CMSG_NXTHDR(head, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
			continue;
		}
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (*ret_count < fds_max) {
				fds[(*ret_count)++] = fd;
			} else {
				(void)close(fd);
				*ret_too_many = true;
			}
		}
	}
}

int trib_fd_receive(int socket_fd, void *message, size_t size, int *fds, uint32_t fds_max,
		    uint32_t *ret_count)
{
	struct iovec iov = { .iov_base = message, .iov_len = size };
	union control control;
	struct msghdr head = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	uint32_t count = 0;
	bool too_many = false;
	ssize_t got;

	*ret_count = 0;
	do {
		got = recvmsg(socket_fd, &head, MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return -errno;
	}
	take_fds(&head, fds, fds_max, &count, &too_many);
	if (too_many || (head.msg_flags & MSG_TRUNC)) {
		for (uint32_t i = 0; i < count; i++) {
			(void)close(fds[i]);
		}
		return -EBADMSG;
	}
	*ret_count = count;
	return (int)got;
}

static int unix_address(const char *path, struct sockaddr_un *ret_address)
{
	size_t length = strlen(path);

	memset(ret_address, 0, sizeof(*ret_address));
	ret_address->sun_family = AF_UNIX;
	if (length == 0 || length >= sizeof(ret_address->sun_path)) {
		return -ENAMETOOLONG;
	}
	memcpy(ret_address->sun_path, path, length);
	return 0;
}

int trib_unix_listen(const char *path, int *ret_fd)
{
	struct sockaddr_un address;
	int rc = unix_address(path, &address);
	int fd;

	if (rc) {
		return rc;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		return -errno;
	}
	(void)unlink(path);
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, 0600) < 0 || listen(fd, 64) < 0) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int trib_unix_connect(const char *path, int *ret_fd)
{
	struct sockaddr_un address;
	int rc = unix_address(path, &address);
	int fd;

	if (rc) {
		return rc;
	}
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return -errno;
	}
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}
