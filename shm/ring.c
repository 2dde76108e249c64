/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/ring.h"

#include <errno.h>
#include <string.h>

#include <rte_ring.h>
#include <rte_ring_elem.h>

size_t trib_ring_size(uint32_t entries)
{
	ssize_t size = rte_ring_get_memsize_elem(TRIB_DESCRIPTOR_SIZE, entries);

	return size < 0 ? 0 : trib_round_up((uint64_t)size, 64);
}

int trib_ring_init(void *memory, uint32_t entries, struct rte_ring **ret_ring)
{
	struct rte_ring *ring = memory;

	if (entries < 2 || (entries & (entries - 1))) {
		return -EINVAL;
	}
	memset(memory, 0, trib_ring_size(entries));
	if (rte_ring_init(ring, "tributary", entries, RING_F_SP_ENQ | RING_F_SC_DEQ)) {
		return -EINVAL;
	}
	*ret_ring = ring;
	return 0;
}

int trib_ring_attach(void *memory, uint32_t entries, struct rte_ring **ret_ring)
{
	struct rte_ring *ring = memory;

	if (entries < 2 || (entries & (entries - 1)) || ring->size != entries ||
	    ring->mask != entries - 1 || ring->capacity != entries - 1 ||
	    ring->prod.sync_type != RTE_RING_SYNC_ST || ring->cons.sync_type != RTE_RING_SYNC_ST) {
		return -EBADMSG;
	}
	*ret_ring = ring;
	return 0;
}

int trib_ring_push(struct rte_ring *ring, const struct trib_descriptor *descriptor)
{
	return rte_ring_sp_enqueue_elem(ring, (void *)(uintptr_t)descriptor, TRIB_DESCRIPTOR_SIZE)
		       ? -ENOBUFS
		       : 0;
}

uint32_t trib_ring_pop(struct rte_ring *ring, struct trib_descriptor *descriptors, uint32_t max)
{
	return rte_ring_sc_dequeue_burst_elem(ring, descriptors, TRIB_DESCRIPTOR_SIZE, max, NULL);
}

bool trib_ring_empty(const struct rte_ring *ring)
{
	return rte_ring_empty(ring) != 0;
}
