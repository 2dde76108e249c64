/* SPDX-License-Identifier: Apache-2.0
 * Sealing, checking, sending and receiving descriptors in user space.
 */
#ifndef TRIB_SHM_DESCRIPTOR_CHECK_H
#define TRIB_SHM_DESCRIPTOR_CHECK_H

#include "common/base.h"
#include "shm/descriptor.h"

/* Fills magic and check; everything else is the caller's. */
void trib_descriptor_seal(struct trib_descriptor *descriptor);
/* Magic, known kind, check. The caller still checks job, slot and generation against the truth. */
bool trib_descriptor_valid(const struct trib_descriptor *descriptor);
/* Low 32 bits of the monotonic clock in microseconds. */
uint32_t trib_descriptor_now_us(void);

/* Writes one sealed descriptor on an owner's socket: 0, -EAGAIN (try later), or -errno. The same
 * call whatever carries it. */
TRIB_MUST_CHECK int trib_descriptor_send(int fd, const struct trib_descriptor *descriptor);
/* Byte-stream reassembly of 64-byte descriptors on an owner's socket. */
struct trib_descriptor_reader {
	uint8_t carry[TRIB_DESCRIPTOR_SIZE];
	uint32_t carried;
};
/* Up to max descriptors (unvalidated copies): count >= 0, 0 = none now, -ENOTCONN at EOF, -errno.
 */
TRIB_MUST_CHECK int trib_descriptor_receive(int fd, struct trib_descriptor_reader *reader,
					    struct trib_descriptor *descriptors, uint32_t max);

#endif
