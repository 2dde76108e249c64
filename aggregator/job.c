/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/job.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/descriptor.h"
#include "shm/map.h"
#include "shm/out.h"

#define SCALE_BITS_MAX 62u
#define JOB_INDEX_MAX  (UINT32_MAX / TRIB_ROUTES_PER_JOB - 1)
#define ELEMENTS_MAX   (1ull << 38)

void agg_job_init(struct agg_job *job, uint64_t owner_start)
{
	memset(job, 0, sizeof(*job));
	job->owner_start = owner_start;
}

static void drop_base(struct agg_job *job)
{
	if (job->base_memory) {
		(void)munmap(job->base_memory, job->base_size);
	}
	job->base_memory = NULL;
	job->base = NULL;
}

static void drop_out(struct agg_job *job)
{
	if (job->out) {
		(void)munmap(job->out, job->out_size);
	}
	job->out = NULL;
	job->out_word = NULL;
}

void agg_job_fini(struct agg_job *job)
{
	if (job->has_segment) {
		trib_segment_fini(&job->segment);
	}
	if (job->has_own) {
		trib_partial_fini(&job->own);
	}
	for (uint32_t i = 0; i < job->child_count; i++) {
		trib_partial_fini(&job->children[i]);
	}
	drop_base(job);
	drop_out(job);
	memset(job, 0, sizeof(*job));
}

static int on_job(struct agg_job *job, const struct trib_fn_message *m, int *fds, uint32_t count)
{
	struct trib_segment segment;
	int rc;

	if (m->accumulate > TRIB_ACCUMULATE_F32 || m->scale_bits > SCALE_BITS_MAX || m->input > 1 ||
	    m->elements == 0 || m->elements > ELEMENTS_MAX || m->job_index > JOB_INDEX_MAX ||
	    m->index >= TRIB_ROUTES_PER_JOB || !__builtin_isfinite(m->lr)) {
		return -EINVAL;
	}
	if (count == 2) { /* a function that only merges partials needs no segment */
		rc = trib_segment_attach(fds[0], fds[1], false, &segment);
		fds[0] = -1;
		fds[1] = -1;
		if (rc) {
			return rc;
		}
		if (segment.header.payload_size != m->elements * sizeof(float)) {
			trib_segment_fini(&segment);
			return -EBADMSG;
		}
		if (job->has_segment) {
			trib_segment_fini(&job->segment);
		}
		job->segment = segment;
		job->has_segment = true;
	} else if (count != 0) {
		return -EINVAL;
	}
	job->job_index = m->job_index;
	job->route_index = m->index;
	job->accumulate = (enum trib_accumulate)m->accumulate;
	job->scale_bits = m->scale_bits;
	job->input_weights = m->input == 1;
	job->elements = m->elements;
	job->lr = m->lr;
	job->test_delay_us = m->test_delay_us;
	job->test_poison = m->test_poison;
	job->known = true;
	return 0;
}

static int on_own(struct agg_job *job, int *fds, uint32_t count)
{
	struct trib_partial own;
	int rc;

	if (count != 1) {
		return -EINVAL;
	}
	rc = trib_partial_attach(fds[0], true, &own);
	fds[0] = -1;
	if (rc) {
		return rc;
	}
	if (job->has_own) {
		trib_partial_fini(&job->own);
	}
	job->own = own;
	job->has_own = true;
	trib_partial_header(&own)->owner_start = job->owner_start;
	trib_partial_header(&own)->owner_pid = (uint64_t)getpid();
	return 0;
}

static struct trib_partial *find_child(struct agg_job *job, uint32_t index)
{
	for (uint32_t i = 0; i < job->child_count; i++) {
		if (job->children[i].index == index) {
			return &job->children[i];
		}
	}
	return NULL;
}

static int on_child(struct agg_job *job, const struct trib_fn_message *m, int *fds, uint32_t count)
{
	struct trib_partial child;
	struct trib_partial *known;
	int rc;

	if (count != 1) {
		return -EINVAL;
	}
	rc = trib_partial_attach(fds[0], false, &child);
	fds[0] = -1;
	if (rc) {
		return rc;
	}
	known = find_child(job, child.index);
	rc = child.index != m->index || (child.index & TRIB_ITEM_PARTIAL) ? -EBADMSG : 0;
	if (!rc && !known && job->child_count == AGG_CHILDREN_MAX) {
		rc = -ENOSPC;
	}
	if (rc) {
		trib_partial_fini(&child);
		return rc;
	}
	if (known) {
		trib_partial_fini(known);
		*known = child;
	} else {
		job->children[job->child_count++] = child;
	}
	return 0;
}

static int map_fd(int fd, int protection, void **ret_memory, uint64_t *ret_size)
{
	struct stat st;
	void *memory;
	int rc;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (st.st_size <= 0) {
		return -EBADMSG;
	}
	rc = trib_map_shared(fd, (uint64_t)st.st_size, protection, &memory);
	if (rc) {
		return rc;
	}
	*ret_memory = memory;
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

static int on_base(struct agg_job *job, const struct trib_fn_message *m, const int *fds,
		   uint32_t count)
{
	uint64_t need = job->elements * sizeof(float);
	void *memory = NULL;
	uint64_t size = 0;
	int rc;

	if (count != 1 || !job->known || m->offset % sizeof(float) != 0) {
		return -EINVAL;
	}
	rc = map_fd(fds[0], PROT_READ, &memory, &size);
	if (rc) {
		return rc;
	}
	if (m->offset > size || size - m->offset < need) {
		(void)munmap(memory, size);
		return -EBADMSG;
	}
	drop_base(job);
	job->base_memory = memory;
	job->base_size = size;
	job->base = (const float *)(const void *)(job->base_memory + m->offset);
	job->base_version = m->version;
	job->divisor = m->divisor;
	return 0;
}

static int on_out(struct agg_job *job, const int *fds, uint32_t count)
{
	struct stat st;
	void *memory = NULL;
	uint64_t size = 0;
	int rc;

	if (count != 1 || !job->known) {
		return -EINVAL;
	}
	if (fstat(fds[0], &st) < 0) {
		return -errno;
	}
	if (job->out && st.st_ino == job->out_inode && (uint64_t)st.st_size == job->out_size) {
		return 0; /* memfds are all of one file system */
	}
	rc = map_fd(fds[0], PROT_READ | PROT_WRITE, &memory, &size);
	if (rc) {
		return rc;
	}
	if (size < job->elements * sizeof(float)) {
		(void)munmap(memory, size);
		return -EBADMSG;
	}
	drop_out(job);
	job->out = memory;
	job->out_size = size;
	job->out_inode = st.st_ino;
	if (size >= trib_out_size(job->elements)) {
		job->out_word =
			(uint64_t *)(void *)((uint8_t *)memory + trib_out_at(job->elements));
	}
	return 0;
}

static int dispatch(struct agg_job *job, const struct trib_fn_message *m, int *fds, uint32_t count)
{
	if (m->magic != TRIB_FN_MAGIC) {
		return -EBADMSG;
	}
	switch (m->kind) {
	case TRIB_FN_JOB:
		return on_job(job, m, fds, count);
	case TRIB_FN_OWN:
		return on_own(job, fds, count);
	case TRIB_FN_CHILD:
		return on_child(job, m, fds, count);
	case TRIB_FN_BASE:
		return on_base(job, m, fds, count);
	case TRIB_FN_OUT:
		return on_out(job, fds, count);
	default:
		return -EINVAL;
	}
}

int agg_job_message(struct agg_job *job, const struct trib_fn_message *message, const int *fds,
		    uint32_t count)
{
	int mine[4] = { -1, -1, -1, -1 };
	int rc;

	TRIB_ASSERT(count <= TRIB_COUNT(mine));
	for (uint32_t i = 0; i < count; i++) {
		mine[i] = fds[i];
	}
	rc = dispatch(job, message, mine, count);
	for (uint32_t i = 0; i < count; i++) {
		if (mine[i] >= 0) { /* mapped, or refused: the fd itself is not needed */
			(void)close(mine[i]);
		}
	}
	return rc;
}

const struct trib_partial *agg_job_child(const struct agg_job *job, uint32_t index)
{
	for (uint32_t i = 0; i < job->child_count; i++) {
		const struct trib_partial *child = &job->children[i];

		if (child->index == index) {
			return child->elements == job->own.elements &&
					       child->first == job->own.first &&
					       child->accumulate == job->accumulate
				       ? child
				       : NULL;
		}
	}
	return NULL;
}

const float *agg_job_update(const struct agg_job *job, uint32_t slot, uint32_t gen)
{
	struct trib_slot_view view;

	if (!job->has_segment || slot >= job->segment.header.slot_count) {
		return NULL;
	}
	view = trib_slot_load(trib_segment_record(&job->segment, slot));
	if (view.state != TRIB_SLOT_CLAIMED || view.gen != gen) {
		return NULL;
	}
	return (const float *)(const void *)trib_segment_slot(&job->segment, slot) + job->own.first;
}

const float *agg_job_arriving(const struct agg_job *job, uint32_t slot, uint32_t gen,
			      uint32_t *ret_filled)
{
	const struct trib_slot_record *record;
	struct trib_slot_view view;
	uint64_t elements;

	if (!job->has_segment || slot >= job->segment.header.slot_count) {
		return NULL;
	}
	record = trib_segment_record(&job->segment, slot);
	elements = trib_slot_filled(record, gen, job->segment.header.payload_size) / sizeof(float);
	view = trib_slot_load(record);
	if (view.state == TRIB_SLOT_FREE || view.gen != gen) {
		return NULL;
	}
	if (view.state != TRIB_SLOT_FILLING) {
		elements = job->elements; /* complete before it was READY */
	}
	elements = elements > job->own.first ? elements - job->own.first : 0;
	*ret_filled = elements >= job->own.elements ? trib_partial_chunks(&job->own)
						    : (uint32_t)(elements / TRIB_PARTIAL_CHUNK);
	return (const float *)(const void *)trib_segment_slot(&job->segment, slot) + job->own.first;
}

bool agg_job_ready(const struct agg_job *job)
{
	return job->known && job->has_own && job->own.first <= job->elements &&
	       job->own.elements <= job->elements - job->own.first &&
	       job->own.accumulate == job->accumulate;
}
