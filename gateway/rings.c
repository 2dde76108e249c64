/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/rings.h"

#include <errno.h>
#include <unistd.h>

#include "gateway/metrics.h"
#include "shm/descriptor_check.h"

struct gw_rings *gw_rings_put(struct gw_rings *rings)
{
	if (rings && __atomic_sub_fetch(&rings->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		if (rings->channels.memory) {
			trib_channels_fini(&rings->channels);
		}
		trib_free(rings);
	}
	return NULL;
}

int gw_rings_new(int fd, uint32_t workers, int bell, struct gw_rings **ret_rings)
{
	struct gw_rings *rings = trib_alloc(sizeof(*rings));
	int rc;

	if (!rings) {
		(void)close(fd);
		return -ENOMEM;
	}
	rings->refs = 1;
	rc = trib_channels_attach(fd, workers + 1, &rings->channels);
	if (rc) {
		(void)gw_rings_put(rings);
		return rc;
	}
	(void)close(rings->channels.fd); /* here, in main's table: the last pin may be a worker's */
	rings->channels.fd = -1;
	for (uint32_t i = 0; i < workers; i++) {
		rings->channels.channel[i].doorbell = bell;
	}
	*ret_rings = rings;
	return 0;
}

void gw_rings_set(struct gw *gw, struct gw_rings *rings)
{
	struct gw_rings *old;

	(void)pthread_mutex_lock(&gw->lock);
	old = gw->rings;
	gw->rings = rings;
	(void)pthread_mutex_unlock(&gw->lock);
	(void)gw_rings_put(old);
}

void gw_rings_push(struct gw *gw, uint32_t worker, struct trib_descriptor *descriptor)
{
	struct gw_rings *rings;

	(void)pthread_mutex_lock(&gw->lock);
	rings = gw->rings;
	if (rings) {
		(void)__atomic_add_fetch(&rings->refs, 1, __ATOMIC_RELAXED);
	}
	(void)pthread_mutex_unlock(&gw->lock);
	if (!rings) {
		gw_count(GW_M_RING_NONE, 1);
		return;
	}
	trib_descriptor_seal(descriptor);
	if (trib_channel_push(&rings->channels.channel[worker], descriptor)) {
		gw_count(GW_M_RING_FULL, 1);
	} else {
		gw_count(GW_M_DESC_SENT, 1);
	}
	(void)gw_rings_put(rings);
}
