/* SPDX-License-Identifier: Apache-2.0
 * The only door to rte_ring: single-producer single-consumer rings of descriptors in a shared
 * mapping, without EAL. Only between processes of one trust level (gateway, agent): a peer that
 * can write the ring's header can make the other side write out of bounds.
 *
 * What a ring holds is a hint (the slots hold the truth), so a ring is made anew for every
 * connection between gateway and agent, and nothing is lost with it.
 */
#ifndef TRIB_SHM_RING_H
#define TRIB_SHM_RING_H

#include "common/base.h"
#include "shm/descriptor.h"

struct rte_ring;

/* entries: a power of two. Bytes needed (multiple of 64). */
size_t trib_ring_size(uint32_t entries);
TRIB_MUST_CHECK int trib_ring_init(void *memory, uint32_t entries, struct rte_ring **ret_ring);
/* Checks that the memory holds a ring of `entries`. */
TRIB_MUST_CHECK int trib_ring_attach(void *memory, uint32_t entries, struct rte_ring **ret_ring);
/* 0 or -ENOBUFS. */
TRIB_MUST_CHECK int trib_ring_push(struct rte_ring *ring, const struct trib_descriptor *descriptor);
/* How many were popped (<= max). */
uint32_t trib_ring_pop(struct rte_ring *ring, struct trib_descriptor *descriptors, uint32_t max);
bool trib_ring_empty(const struct rte_ring *ring);

#endif
