/* SPDX-License-Identifier: Apache-2.0
 * A ring with a doorbell: one direction between two processes of one trust level.
 * The doorbell (eventfd) rings only when the consumer said it sleeps. A set of channels lives in
 * one memfd: [page per channel for the sleep flag][ring] ...
 */
#ifndef TRIB_SHM_CHANNEL_H
#define TRIB_SHM_CHANNEL_H

#include "shm/ring.h"

#define TRIB_CHANNEL_ENTRIES 1024u
#define TRIB_CHANNELS_MAX    64u

struct trib_channel {
	struct rte_ring *ring;
	uint32_t *asleep; /* in the shared mapping */
	int doorbell;     /* eventfd, borrowed */
};

struct trib_channels {
	int fd; /* owned memfd */
	uint8_t *memory;
	size_t size;
	uint32_t count;
	struct trib_channel channel[TRIB_CHANNELS_MAX]; /* doorbells set by the user of this */
};

TRIB_MUST_CHECK int trib_channels_create(uint32_t count, struct trib_channels *ret_channels);
/* fd is taken, also on failure. */
TRIB_MUST_CHECK int trib_channels_attach(int fd, uint32_t count,
					 struct trib_channels *ret_channels);
void trib_channels_fini(struct trib_channels *channels);

/* Producer: 0 or -ENOBUFS (ring full; the consumer finds the slot by scanning). */
TRIB_MUST_CHECK int trib_channel_push(struct trib_channel *channel,
				      const struct trib_descriptor *descriptor);
/* Consumer: up to max; when it returns 0 the sleep flag is set and the doorbell will ring. */
uint32_t trib_channel_pop(struct trib_channel *channel, struct trib_descriptor *descriptors,
			  uint32_t max);

#endif
