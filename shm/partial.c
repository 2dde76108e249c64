/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/map.h"

#define SEALS              (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define ELEMENTS_MAX       (1ull << 38)
#define NO_CHUNK           UINT32_MAX
#define ACCUMULATOR_OFFSET (TRIB_PARTIAL_HEADER_SIZE + TRIB_PARTIAL_UNDO_SIZE)

/* Every store that the journal's promise hangs on is a put(): release for other processes, and a
 * wall for the compiler on both sides. What a killed process leaves in shared memory is then a
 * prefix of its puts in the order written here (a kill is a precise point in its program). */
#define put(field, value)                                              \
	do {                                                           \
		__atomic_signal_fence(__ATOMIC_SEQ_CST);               \
		__atomic_store_n(&(field), (value), __ATOMIC_RELEASE); \
		__atomic_signal_fence(__ATOMIC_SEQ_CST);               \
	} while (0)
#define get(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)

static uint64_t element_size(enum trib_accumulate accumulate)
{
	return accumulate == TRIB_ACCUMULATE_F32 ? sizeof(float) : sizeof(int64_t);
}

uint64_t trib_partial_size(uint64_t elements, enum trib_accumulate accumulate)
{
	return trib_round_up(ACCUMULATOR_OFFSET + elements * element_size(accumulate),
			     TRIB_PARTIAL_HEADER_SIZE);
}

uint64_t trib_partial_range(uint64_t elements, uint32_t lane, uint32_t lanes, uint64_t *ret_first)
{
	uint64_t chunks = (elements + TRIB_PARTIAL_CHUNK - 1) / TRIB_PARTIAL_CHUNK;
	uint64_t from = chunks * lane / lanes * TRIB_PARTIAL_CHUNK;
	uint64_t to = chunks * (lane + 1) / lanes * TRIB_PARTIAL_CHUNK;

	*ret_first = from;
	return (to < elements ? to : elements) - (from < elements ? from : elements);
}

void trib_partial_place(struct trib_partial *partial, uint64_t first, uint32_t lane, uint32_t lanes)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	h->first = first;
	h->lane = lane;
	h->lanes = lanes;
	partial->first = first;
	partial->lane = lane;
	partial->lanes = lanes;
}

static int map(struct trib_partial *partial)
{
	int protection = PROT_READ | (partial->writable ? PROT_WRITE : 0);
	void *memory;
	int rc = trib_map_shared(partial->fd, partial->size, protection, &memory);

	if (rc) {
		return rc;
	}
	partial->memory = memory;
	(void)madvise(memory, partial->size, MADV_HUGEPAGE); /* where shmem THP is on advise */
	return 0;
}

/* In memory that nobody else knows yet. */
static int header_fill(struct trib_partial *partial, const char *job, const char *boot,
		       uint32_t job_index)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	h->magic = TRIB_PARTIAL_MAGIC;
	h->version = TRIB_PARTIAL_VERSION;
	h->job_index = job_index;
	h->index = partial->index;
	h->elements = partial->elements;
	h->accumulate = (uint32_t)partial->accumulate;
	h->chunk = TRIB_PARTIAL_CHUNK;
	h->undo_chunk = NO_CHUNK;
	h->state = TRIB_PARTIAL_EMPTY;
	if (trib_copy(h->job, sizeof(h->job), job) || trib_copy(h->boot, sizeof(h->boot), boot)) {
		return -EINVAL;
	}
	return 0;
}

/* NOLINTNEXTLINE(readability-function-size): seven facts, once per partial */
int trib_partial_create(const char *job, const char *boot, uint32_t job_index, uint32_t index,
			uint64_t elements, enum trib_accumulate accumulate,
			struct trib_partial *ret_partial)
{
	struct trib_partial partial = {
		.fd = -1,
		.writable = true,
		.elements = elements,
		.accumulate = accumulate,
		.index = index,
		.lanes = 1,
	};
	int rc;

	if (elements == 0 || elements > ELEMENTS_MAX ||
	    (uint32_t)accumulate > TRIB_ACCUMULATE_F32) {
		return -EINVAL;
	}
	partial.size = trib_partial_size(elements, accumulate);
	partial.fd = memfd_create("tributary-partial", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (partial.fd < 0) {
		return -errno;
	}
	if (fchmod(partial.fd, 0600) < 0 || ftruncate(partial.fd, (off_t)partial.size) < 0 ||
	    fcntl(partial.fd, F_ADD_SEALS, SEALS) < 0) {
		rc = -errno;
		goto fail;
	}
	rc = map(&partial);
	if (!rc) {
		rc = header_fill(&partial, job, boot, job_index);
	}
	if (rc) {
		goto fail;
	}
	*ret_partial = partial;
	return 0;
fail:
	trib_partial_fini(&partial);
	return rc;
}

static int header_check(struct trib_partial *partial)
{
	struct trib_partial_header h; /* a copy: what is checked is what is used */

	memcpy(&h, partial->memory, sizeof(h));
	if (h.magic != TRIB_PARTIAL_MAGIC || h.version != TRIB_PARTIAL_VERSION ||
	    h.chunk != TRIB_PARTIAL_CHUNK || h.elements == 0 || h.elements > ELEMENTS_MAX ||
	    h.accumulate > TRIB_ACCUMULATE_F32 || h.first > ELEMENTS_MAX ||
	    h.lane >= (h.lanes ? h.lanes : 1) ||
	    partial->size != trib_partial_size(h.elements, (enum trib_accumulate)h.accumulate)) {
		return -EBADMSG;
	}
	partial->elements = h.elements;
	partial->accumulate = (enum trib_accumulate)h.accumulate;
	partial->index = h.index;
	partial->first = h.first;
	partial->lane = h.lane;
	partial->lanes = h.lanes ? h.lanes : 1;
	return 0;
}

int trib_partial_attach(int fd, bool writable, struct trib_partial *ret_partial)
{
	struct trib_partial partial = { .fd = fd, .writable = writable };
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	int rc = -EBADMSG;

	if (seals < 0 || (seals & SEALS) != SEALS) {
		goto fail; /* could shrink under us: SIGBUS */
	}
	if (fstat(fd, &st) < 0) {
		rc = -errno;
		goto fail;
	}
	if (st.st_size < (off_t)ACCUMULATOR_OFFSET) {
		goto fail;
	}
	partial.size = (uint64_t)st.st_size;
	rc = map(&partial);
	if (!rc && partial.memory) {
		rc = header_check(&partial);
	}
	if (rc) {
		goto fail;
	}
	*ret_partial = partial;
	return 0;
fail:
	trib_partial_fini(&partial);
	return rc;
}

void trib_partial_fini(struct trib_partial *partial)
{
	if (partial->memory) {
		(void)munmap(partial->memory, partial->size);
	}
	if (partial->fd >= 0) {
		(void)close(partial->fd);
	}
	partial->memory = NULL;
	partial->fd = -1;
}

struct trib_partial_header *trib_partial_header(const struct trib_partial *partial)
{
	return (struct trib_partial_header *)(void *)partial->memory;
}

void *trib_partial_accumulator(const struct trib_partial *partial)
{
	return partial->memory + ACCUMULATOR_OFFSET;
}

void *trib_partial_undo(const struct trib_partial *partial)
{
	return partial->memory + TRIB_PARTIAL_HEADER_SIZE;
}

uint32_t trib_partial_chunks(const struct trib_partial *partial)
{
	return (uint32_t)((partial->elements + TRIB_PARTIAL_CHUNK - 1) / TRIB_PARTIAL_CHUNK);
}

/* ---- reader's side ---- */

enum trib_partial_state trib_partial_state(const struct trib_partial *partial)
{
	return (enum trib_partial_state)get(trib_partial_header(partial)->state);
}

/* An EMPTY partial holds nothing, whatever an unfinished reset has left in the tables. */
struct trib_partial_totals trib_partial_totals(const struct trib_partial *partial)
{
	const struct trib_partial_header *h = trib_partial_header(partial);

	if (get(h->state) == TRIB_PARTIAL_EMPTY) {
		return (struct trib_partial_totals){ 0 };
	}
	return h->totals[get(h->done_seq) & 1];
}

/* Of an item that is a child's partial; UINT32_MAX of an update. */
static uint32_t child_of(uint32_t slot)
{
	return slot & TRIB_ITEM_PARTIAL ? slot & ~TRIB_ITEM_PARTIAL : UINT32_MAX;
}

bool trib_partial_folded(const struct trib_partial *partial, uint32_t slot, uint32_t gen)
{
	const struct trib_partial_header *h = trib_partial_header(partial);
	uint64_t done = get(h->done_seq);

	if (get(h->state) == TRIB_PARTIAL_EMPTY) {
		return false;
	}
	if (child_of(slot) < TRIB_CHILDREN_MAX) {
		uint32_t child = child_of(slot);

		return h->round == gen && (get(h->merged[done & 1][child / 64]) >> child % 64 & 1);
	}
	for (uint32_t i = 0; i < TRIB_RECENT_MAX; i++) {
		uint64_t seq = get(h->recent[i].seq);

		if (seq > 0 && seq <= done && h->recent[i].slot == slot &&
		    h->recent[i].gen == gen) {
			return true;
		}
	}
	return false;
}

/* A later op on an EMPTY partial is one that a reset has begun to forget. */
bool trib_partial_op_active(const struct trib_partial *partial)
{
	const struct trib_partial_header *h = trib_partial_header(partial);
	uint32_t state = get(h->state);

	if (get(h->active_seq) != get(h->done_seq) + 1) {
		return false;
	}
	return state == TRIB_PARTIAL_OPEN || (state == TRIB_PARTIAL_EMPTY && h->op_first);
}

struct trib_partial_stats trib_partial_stats(const struct trib_partial *partial)
{
	return trib_partial_header(partial)->stats;
}

/* ---- writer's side ---- */

/* Of an EMPTY partial: what an earlier round has left. Any part of it may be done twice. */
static void clear_tables(struct trib_partial_header *h)
{
	put(h->active_seq, h->done_seq);
	put(h->undo_chunk, NO_CHUNK);
	for (uint32_t i = 0; i < TRIB_RECENT_MAX; i++) {
		put(h->recent[i].seq, 0);
	}
	h->totals[0] = (struct trib_partial_totals){ 0 };
	h->totals[1] = (struct trib_partial_totals){ 0 };
	memset(h->merged, 0, sizeof(h->merged));
	put(h->item_total, 0);
}

void trib_partial_reset(struct trib_partial *partial, uint32_t round)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	put(h->state, TRIB_PARTIAL_EMPTY); /* from here on the old round is void, at once */
	clear_tables(h);
	put(h->round, round);
}

void trib_partial_seal(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	if (trib_partial_op_active(partial)) {
		return; /* finish it first: half an op must never look complete */
	}
	if (h->state == TRIB_PARTIAL_EMPTY) {
		clear_tables(h);
	}
	put(h->state, TRIB_PARTIAL_SEALED);
}

void trib_partial_unseal(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	if (h->state == TRIB_PARTIAL_SEALED) {
		put(h->state, h->item_total ? TRIB_PARTIAL_OPEN : TRIB_PARTIAL_EMPTY);
	}
}

void trib_partial_fill(struct trib_partial *partial, uint32_t round,
		       struct trib_partial_totals totals)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	trib_partial_reset(partial, round);
	h->totals[0] = totals;
	h->totals[1] = totals;
	put(h->state, TRIB_PARTIAL_SEALED);
}

void trib_partial_join(struct trib_partial *whole, const struct trib_partial *lane)
{
	struct trib_partial_header *h = trib_partial_header(whole);
	uint64_t unit = element_size(whole->accumulate);

	TRIB_ASSERT(lane->accumulate == whole->accumulate && lane->first <= whole->elements &&
		    lane->elements <= whole->elements - lane->first);
	if (lane->lane == 0) {
		uint32_t index = h->index;

		memcpy(h, lane->memory, sizeof(*h));
		h->index = index;
		h->elements = whole->elements;
		h->first = 0;
		h->lane = 0;
		h->lanes = 1;
		h->owner_pid = 0;
		/* Numbered as functions of lanes are: if the round goes on, others get these. */
		memset(h->merged, 0, sizeof(h->merged));
	}
	memcpy((uint8_t *)trib_partial_accumulator(whole) + lane->first * unit,
	       trib_partial_accumulator(lane), lane->elements * unit);
}

void trib_partial_renumber(struct trib_partial *partial, uint32_t index)
{
	put(trib_partial_header(partial)->index, index);
	partial->index = index;
}

int trib_partial_begin(struct trib_partial *partial, const struct trib_partial_item *items,
		       uint32_t count)
{
	struct trib_partial_header *h = trib_partial_header(partial);
	uint32_t state = get(h->state);

	if (count == 0 || count > (state == TRIB_PARTIAL_EMPTY ? TRIB_OP_MAX : TRIB_FOLD_MAX)) {
		return -EINVAL;
	}
	if (trib_partial_op_active(partial)) {
		return -EBUSY;
	}
	if (state != TRIB_PARTIAL_EMPTY && state != TRIB_PARTIAL_OPEN) {
		return -EPERM;
	}
	if (state == TRIB_PARTIAL_EMPTY) {
		clear_tables(h);
	}
	memcpy(h->op, items, count * sizeof(*items));
	h->op_count = count;
	h->op_first = state == TRIB_PARTIAL_EMPTY;
	put(h->cursor, 0);
	put(h->undo_chunk, NO_CHUNK);
	put(h->back, 0);
	put(h->active_seq, h->done_seq + 1);
	return 0;
}

static uint8_t *chunk_memory(const struct trib_partial *partial, uint32_t chunk, size_t *ret_size)
{
	uint64_t first = (uint64_t)chunk * TRIB_PARTIAL_CHUNK;
	uint64_t count = partial->elements - first;
	uint64_t unit = element_size(partial->accumulate);

	TRIB_ASSERT(chunk < trib_partial_chunks(partial));
	*ret_size = (count < TRIB_PARTIAL_CHUNK ? count : TRIB_PARTIAL_CHUNK) * unit;
	return (uint8_t *)trib_partial_accumulator(partial) + first * unit;
}

/* undo_chunk is believed only when it equals the cursor, so the undo of chunk c needs no clearing:
 * while undo is written for c + 1, undo_chunk says c and the cursor c + 1. */
void trib_partial_before_chunk(struct trib_partial *partial, uint32_t chunk)
{
	struct trib_partial_header *h = trib_partial_header(partial);
	size_t size;
	const uint8_t *memory = chunk_memory(partial, chunk, &size);

	if (h->op_first) {
		return;
	}
	memcpy(trib_partial_undo(partial), memory, size);
	put(h->undo_chunk, chunk);
}

void trib_partial_after_chunk(struct trib_partial *partial, uint32_t chunk)
{
	put(trib_partial_header(partial)->cursor, chunk + 1);
}

void trib_partial_whole(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	TRIB_ASSERT(h->op_first);
	put(h->cursor, trib_partial_chunks(partial));
}

/* The op's items into the list of recent ones. item_total moves last: where it has moved, a dead
 * owner had written all of them. */
static void enter_recent(struct trib_partial_header *h, uint64_t seq, uint32_t count)
{
	uint64_t at = h->item_total;

	/* Of an op larger than half the list, item_total was 0 before it. */
	if (at >= count && h->recent[(at - count) % TRIB_RECENT_MAX].seq == seq) {
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		uint32_t place = (uint32_t)((at + i) % TRIB_RECENT_MAX);

		put(h->recent[place].seq, 0);
		put(h->recent[place].slot, h->op[i].slot);
		put(h->recent[place].gen, h->op[i].gen);
		put(h->recent[place].seq, seq);
	}
	put(h->item_total, at + count);
}

static void enter_merged(struct trib_partial_header *h, uint64_t seq, uint32_t count)
{
	for (uint32_t w = 0; w < TRIB_CHILDREN_MAX / 64; w++) {
		uint64_t bits = h->op_first ? 0 : h->merged[h->done_seq & 1][w];

		for (uint32_t i = 0; i < count; i++) {
			uint32_t child = child_of(h->op[i].slot);

			if (child < TRIB_CHILDREN_MAX && child / 64 == w) {
				bits |= 1ull << child % 64;
			}
		}
		put(h->merged[seq & 1][w], bits);
	}
}

/* Repeatable: a successor may find any part of it done. */
void trib_partial_end(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);
	uint64_t seq = h->active_seq;
	uint32_t count = h->op_count < TRIB_OP_MAX ? h->op_count : TRIB_OP_MAX;
	struct trib_partial_totals totals = { 0 };

	if (!trib_partial_op_active(partial) || get(h->back)) {
		return;
	}
	if (!h->op_first) {
		totals = h->totals[h->done_seq & 1];
	}
	for (uint32_t i = 0; i < count; i++) {
		totals.updates += h->op[i].updates;
		totals.weight += h->op[i].weight;
	}
	enter_recent(h, seq, count);
	enter_merged(h, seq, count);
	put(h->totals[seq & 1].updates, totals.updates);
	put(h->totals[seq & 1].weight, totals.weight);
	put(h->state,
	    TRIB_PARTIAL_OPEN); /* op_first is still written down, so this may come first */
	put(h->done_seq, seq);
}

uint32_t trib_partial_resume(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);
	uint32_t cursor = get(h->cursor);

	if (cursor < trib_partial_chunks(partial) && !h->op_first && h->undo_chunk == cursor) {
		size_t size;
		uint8_t *memory = chunk_memory(partial, cursor, &size);

		memcpy(memory, trib_partial_undo(partial), size);
	}
	return cursor;
}

/* ---- an op that is given up ---- */

static void op_gone(struct trib_partial_header *h)
{
	put(h->active_seq, h->done_seq);
	put(h->back, 0);
}

bool trib_partial_back(const struct trib_partial *partial)
{
	return trib_partial_op_active(partial) && get(trib_partial_header(partial)->back);
}

int trib_partial_abandon(struct trib_partial *partial)
{
	struct trib_partial_header *h = trib_partial_header(partial);

	if (!trib_partial_op_active(partial) || h->op_count == 0 || h->op_count > TRIB_OP_MAX ||
	    get(h->cursor) >= trib_partial_chunks(partial)) {
		return -EINVAL;
	}
	for (uint32_t i = 0; i < h->op_count; i++) {
		if (h->op[i].slot & TRIB_ITEM_PARTIAL) {
			return -EINVAL;
		}
	}
	if (get(h->back)) {
		return -EAGAIN;
	}
	if (!h->op_first && trib_partial_resume(partial) > 0) {
		put(h->undo_chunk, NO_CHUNK);
		put(h->back, 1);
		return -EAGAIN;
	}
	op_gone(h); /* what an op that overwrites has left, the next one overwrites */
	return 0;
}

/* undo_chunk is believed only when it is the chunk below the cursor: while the undo of chunk c - 1
 * is written, undo_chunk and the cursor say c. */
bool trib_partial_back_chunk(struct trib_partial *partial, uint32_t *ret_chunk)
{
	struct trib_partial_header *h = trib_partial_header(partial);
	uint32_t cursor = get(h->cursor);
	uint8_t *memory;
	size_t size;

	if (cursor > trib_partial_chunks(partial)) {
		return false; /* garbage */
	}
	if (cursor == 0) {
		op_gone(h);
		return false;
	}
	memory = chunk_memory(partial, cursor - 1, &size);
	if (h->undo_chunk == cursor - 1) {
		memcpy(memory, trib_partial_undo(partial), size);
	} else {
		memcpy(trib_partial_undo(partial), memory, size);
		put(h->undo_chunk, cursor - 1);
	}
	*ret_chunk = cursor - 1;
	return true;
}

void trib_partial_back_done(struct trib_partial *partial, uint32_t chunk)
{
	put(trib_partial_header(partial)->cursor, chunk);
}
