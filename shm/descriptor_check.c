/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/descriptor_check.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/crypto.h"

#define CHECKED_SIZE   offsetof(struct trib_descriptor, check)
#define REST_TRIES_MAX 20
#define REST_WAIT_MS   100

_Static_assert(CHECKED_SIZE == 60, "the check covers all that is before it");

void trib_descriptor_seal(struct trib_descriptor *descriptor)
{
	descriptor->magic = TRIB_DESCRIPTOR_MAGIC;
	descriptor->check = trib_crc32c(0, descriptor, CHECKED_SIZE);
}

bool trib_descriptor_valid(const struct trib_descriptor *descriptor)
{
	return descriptor->magic == TRIB_DESCRIPTOR_MAGIC && descriptor->kind >= TRIB_DESC_UPDATE &&
	       descriptor->kind <= TRIB_DESC_FOLLOW &&
	       descriptor->check == trib_crc32c(0, descriptor, CHECKED_SIZE);
}

uint32_t trib_descriptor_now_us(void)
{
	return (uint32_t)(trib_clock_ns() / 1000u);
}

/* The kernel took a part of the 64 bytes (rare: its buffer was full to the byte). The rest must
 * follow or the stream is lost, so this alone waits, 2 s at most. */
static int send_rest(int fd, const uint8_t *bytes, size_t size)
{
	for (unsigned tries = 0; tries < REST_TRIES_MAX && size > 0; tries++) {
		struct pollfd wait = { .fd = fd, .events = POLLOUT };
		ssize_t sent;

		if (poll(&wait, 1, REST_WAIT_MS) < 0 && errno != EINTR) {
			return -errno;
		}
		sent = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR) {
			return -errno;
		}
		if (sent > 0) {
			bytes += sent;
			size -= (size_t)sent;
		}
	}
	return size ? -EPIPE : 0;
}

int trib_descriptor_send(int fd, const struct trib_descriptor *descriptor)
{
	const uint8_t *bytes = (const uint8_t *)descriptor;
	ssize_t sent;

	do {
		sent = send(fd, bytes, TRIB_DESCRIPTOR_SIZE, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	if (sent < 0) {
		return -errno;
	}
	if (sent == 0) {
		return -EAGAIN;
	}
	return send_rest(fd, bytes + sent, TRIB_DESCRIPTOR_SIZE - (size_t)sent);
}

int trib_descriptor_receive(int fd, struct trib_descriptor_reader *reader,
			    struct trib_descriptor *descriptors, uint32_t max)
{
	uint8_t *bytes = (uint8_t *)descriptors;
	uint32_t carried = reader->carried;
	size_t total;
	ssize_t got;

	TRIB_ASSERT(max > 0 && max <= INT32_MAX / TRIB_DESCRIPTOR_SIZE);
	TRIB_ASSERT(carried < TRIB_DESCRIPTOR_SIZE);
	do {
		got = recv(fd, bytes + carried, (size_t)max * TRIB_DESCRIPTOR_SIZE - carried,
			   MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0) {
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
	}
	if (got == 0) {
		return -ENOTCONN;
	}
	memcpy(bytes, reader->carry, carried);
	total = carried + (size_t)got;
	reader->carried = (uint32_t)(total % TRIB_DESCRIPTOR_SIZE);
	memcpy(reader->carry, bytes + total - reader->carried, reader->carried);
	return (int)(total / TRIB_DESCRIPTOR_SIZE);
}
