/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/slots.h"

#include <errno.h>
#include <unistd.h>

#include "common/clock.h"
#include "gateway/metrics.h"

enum {
	IN_STACK = 1,
	OURS = 2
};

static void push(struct gw_slots *slots, uint32_t slot)
{
	if (slots->flags[slot] & (IN_STACK | OURS)) {
		return;
	}
	slots->flags[slot] |= IN_STACK;
	slots->stack[slots->count++] = slot; /* bounded: a slot is in it once */
}

/* What we took is free again. Lock held. */
static void given_back(struct gw_slots *slots, uint32_t slot)
{
	uint64_t now = trib_clock_ms();

	if (slots->taken_ms[slot]) {
		gw_line_freed(&slots->line, now, (uint32_t)now - (slots->taken_ms[slot] & ~1u));
		slots->taken_ms[slot] = 0;
	}
}

/* Lowest slots end on top. Lock held. */
static void scan(struct gw_slots *slots)
{
	slots->scanned_ms = trib_clock_ms();
	for (uint32_t i = slots->segment.header.slot_count; i-- > 0;) {
		struct trib_slot_view view =
			trib_slot_load(trib_segment_record(&slots->segment, i));

		if (view.state == TRIB_SLOT_FREE) {
			push(slots, i);
		}
	}
}

static void slots_free(struct gw_slots *slots)
{
	trib_segment_fini(&slots->segment);
	trib_free(slots->stack);
	trib_free(slots->flags);
	trib_free(slots->taken_ms);
	(void)pthread_mutex_destroy(&slots->lock);
	trib_free(slots);
	gw_count(GW_M_SEGMENTS, -1);
}

int gw_slots_new(struct trib_segment *segment, const char *node, struct gw_slots **ret_slots)
{
	struct gw_slots *slots = trib_alloc(sizeof(*slots));
	int rc;

	if (!slots) {
		trib_segment_fini(segment);
		return -ENOMEM;
	}
	gw_count(GW_M_SEGMENTS, 1);
	slots->refs = 1;
	slots->segment = *segment;
	/* Mapped. Here, in main's table: the last pin may be that of a worker with another. */
	(void)close(segment->data_fd);
	(void)close(segment->ctl_fd);
	slots->segment.data_fd = -1;
	slots->segment.ctl_fd = -1;
	(void)pthread_mutex_init(&slots->lock, NULL);
	slots->stack = trib_alloc_array(segment->header.slot_count, sizeof(*slots->stack));
	slots->flags = trib_alloc_array(segment->header.slot_count, sizeof(*slots->flags));
	slots->taken_ms = trib_alloc_array(segment->header.slot_count, sizeof(*slots->taken_ms));
	rc = trib_copy(slots->node, sizeof(slots->node), node);
	if (rc || !slots->stack || !slots->flags || !slots->taken_ms) {
		slots_free(slots);
		return rc ? rc : -ENOMEM;
	}
	scan(slots);
	*ret_slots = slots;
	return 0;
}

struct gw_slots *gw_slots_get(struct gw_slots *slots)
{
	(void)__atomic_add_fetch(&slots->refs, 1, __ATOMIC_RELAXED);
	return slots;
}

struct gw_slots *gw_slots_put(struct gw_slots *slots)
{
	if (slots && __atomic_sub_fetch(&slots->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		slots_free(slots);
	}
	return NULL;
}

void gw_slots_retire(struct gw_slots *slots)
{
	__atomic_store_n(&slots->retired, true, __ATOMIC_RELEASE);
}

bool gw_slots_retired(const struct gw_slots *slots)
{
	return __atomic_load_n(&slots->retired, __ATOMIC_ACQUIRE);
}

/* Lock held. */
static int pop(struct gw_slots *slots, uint32_t *ret_slot, uint32_t *ret_gen)
{
	while (slots->count > 0) {
		uint32_t slot = slots->stack[--slots->count];
		struct trib_slot_record *record = trib_segment_record(&slots->segment, slot);
		struct trib_slot_view view = trib_slot_load(record);

		slots->flags[slot] &= (uint8_t)~IN_STACK;
		if (!(slots->flags[slot] & OURS) && view.state == TRIB_SLOT_FREE &&
		    trib_slot_move(record, TRIB_SLOT_FREE, view.gen, TRIB_SLOT_FILLING)) {
			slots->flags[slot] |= OURS;
			*ret_slot = slot;
			*ret_gen = view.gen;
			return 0;
		}
		gw_count(GW_M_SLOT_STALE, 1);
	}
	return -ENOBUFS;
}

int gw_slots_take(struct gw_slots *slots, uint32_t *ret_slot, uint32_t *ret_gen)
{
	int rc;

	(void)pthread_mutex_lock(&slots->lock);
	rc = pop(slots, ret_slot, ret_gen);
	if (rc && trib_clock_ms() - slots->scanned_ms >= GW_RESCAN_MS) {
		gw_count(GW_M_SLOT_RESCANS, 1);
		scan(slots);
		rc = pop(slots, ret_slot, ret_gen);
	}
	if (rc == 0) {
		uint64_t now = trib_clock_ms();

		slots->taken_ms[*ret_slot] = (uint32_t)now | 1;
		gw_line_taken(&slots->line, now);
	}
	(void)pthread_mutex_unlock(&slots->lock);
	return rc;
}

uint64_t gw_slots_wait_ms(struct gw_slots *slots)
{
	uint64_t ms;

	(void)pthread_mutex_lock(&slots->lock);
	ms = gw_line_join(&slots->line, slots->segment.header.slot_count, trib_clock_ms());
	(void)pthread_mutex_unlock(&slots->lock);
	gw_gauge(GW_M_SLOT_WAIT, (int64_t)ms);
	return ms;
}

void gw_slots_abort(struct gw_slots *slots, uint32_t slot, uint32_t gen, enum trib_slot_state from)
{
	struct trib_slot_record *record = trib_segment_record(&slots->segment, slot);
	bool moved = trib_slot_move(record, from, gen, TRIB_SLOT_FREE);

	if (!moved) {
		gw_count(GW_M_SLOT_LOST, 1);
	}
	(void)pthread_mutex_lock(&slots->lock);
	slots->flags[slot] &= (uint8_t)~OURS;
	if (moved) {
		given_back(slots, slot);
		push(slots, slot);
	}
	(void)pthread_mutex_unlock(&slots->lock);
}

void gw_slots_leave(struct gw_slots *slots, uint32_t slot)
{
	(void)pthread_mutex_lock(&slots->lock);
	slots->flags[slot] &= (uint8_t)~OURS;
	(void)pthread_mutex_unlock(&slots->lock);
}

void gw_slots_hint(struct gw_slots *slots, uint32_t slot)
{
	if (slot >= slots->segment.header.slot_count) {
		return;
	}
	(void)pthread_mutex_lock(&slots->lock);
	given_back(slots, slot);
	push(slots, slot);
	(void)pthread_mutex_unlock(&slots->lock);
}

void gw_slots_states(const struct gw_slots *slots, int64_t counts[4])
{
	for (uint32_t i = 0; i < slots->segment.header.slot_count; i++) {
		struct trib_slot_view view =
			trib_slot_load(trib_segment_record(&slots->segment, i));

		if ((unsigned)view.state < 4) {
			counts[view.state]++;
		}
	}
}
