/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/map.h"

#define PAGE   4096u
#define HUGE   (2u << 20)
#define RECORD sizeof(struct trib_slot_record)
#define SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

uint64_t trib_segment_slot_size(uint64_t payload_size)
{
	uint64_t size = payload_size ? payload_size : 1;

	return trib_round_up(size, size >= (1u << 20) ? HUGE : PAGE);
}

static uint64_t ctl_bytes(uint32_t slot_count)
{
	return trib_round_up(PAGE + (uint64_t)slot_count * RECORD, PAGE);
}

/* Are `size` bytes of 2 MiB pages free right now? A hint: the mapping itself decides. */
static bool huge_pages_free(uint64_t size)
{
	FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	char text[32] = "";
	uint64_t count = 0;

	if (!file) {
		return false;
	}
	if (!fgets(text, sizeof(text), file)) {
		text[0] = '\0';
	}
	(void)fclose(file);
	text[strcspn(text, "\n")] = '\0';
	if (trib_parse_u64(text, strlen(text), 0, UINT32_MAX, &count)) {
		return false;
	}
	return count * HUGE >= size;
}

static int make_memfd(const char *name, uint64_t size, unsigned flags, uint8_t **ret_memory)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
	void *memory;
	int rc;

	if (fd < 0) {
		return -errno;
	}
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)size) < 0) {
		goto fail;
	}
	rc = trib_map_shared(fd, size, PROT_READ | PROT_WRITE, &memory);
	if (rc) {
		(void)close(fd);
		return rc;
	}
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
		rc = -errno;
		(void)munmap(memory, size);
		(void)close(fd);
		return rc;
	}
	*ret_memory = memory;
	return fd;
fail:
	rc = -errno;
	(void)close(fd);
	return rc;
}

static void header_fill(struct trib_segment_header *header, const char *job, const char *boot)
{
	header->magic = TRIB_SEGMENT_MAGIC;
	header->version = TRIB_SEGMENT_VERSION;
	(void)snprintf(header->job, sizeof(header->job), "%s", job);
	(void)snprintf(header->boot, sizeof(header->boot), "%s", boot);
}

int trib_segment_create(const char *job, const char *boot, uint32_t job_index,
			uint64_t payload_size, uint32_t slot_count,
			struct trib_segment *ret_segment)
{
	struct trib_segment segment = { .data_fd = -1, .ctl_fd = -1, .writable = true };

	if (slot_count == 0 || slot_count > TRIB_SEGMENT_SLOTS_MAX || payload_size > (1ull << 40) ||
	    strlen(job) >= TRIB_JOB_ID_SIZE || strlen(boot) >= TRIB_BOOT_SIZE) {
		return -EINVAL;
	}
	segment.header.slot_count = slot_count;
	segment.header.job_index = job_index;
	segment.header.payload_size = payload_size;
	segment.header.slot_size = trib_segment_slot_size(payload_size);
	header_fill(&segment.header, job, boot);
	segment.data_size = segment.header.slot_size * slot_count;
	segment.ctl_size = ctl_bytes(slot_count);
	if (segment.header.slot_size % HUGE == 0 && huge_pages_free(segment.data_size)) {
		segment.data_fd =
			make_memfd("tributary-data", segment.data_size, MFD_HUGETLB, &segment.data);
		segment.huge = segment.data_fd >= 0;
	}
	if (segment.data_fd < 0) {
		segment.data_fd = make_memfd("tributary-data", segment.data_size, 0, &segment.data);
	}
	if (segment.data_fd < 0) {
		return segment.data_fd;
	}
	segment.ctl_fd = make_memfd("tributary-ctl", segment.ctl_size, 0, &segment.ctl);
	if (segment.ctl_fd < 0) {
		int rc = segment.ctl_fd;

		trib_segment_fini(&segment);
		return rc;
	}
	memcpy(segment.ctl, &segment.header, sizeof(segment.header));
	*ret_segment = segment;
	return 0;
}

/* The peer's header is input: copy, then check every value against the others and the sizes. */
static int header_check(struct trib_segment *segment)
{
	struct trib_segment_header *h = &segment->header;

	memcpy(h, segment->ctl, sizeof(*h));
	h->job[sizeof(h->job) - 1] = '\0';
	h->boot[TRIB_BOOT_SIZE - 1] = '\0';
	if (h->magic != TRIB_SEGMENT_MAGIC || h->version != TRIB_SEGMENT_VERSION ||
	    h->slot_count == 0 || h->slot_count > TRIB_SEGMENT_SLOTS_MAX ||
	    h->payload_size > (1ull << 40) ||
	    h->slot_size != trib_segment_slot_size(h->payload_size) ||
	    segment->data_size != h->slot_size * h->slot_count ||
	    segment->ctl_size != ctl_bytes(h->slot_count)) {
		return -EBADMSG;
	}
	return 0;
}

static int map_fd(int fd, bool writable, uint8_t **ret_memory, uint64_t *ret_size)
{
	struct stat st;
	void *memory;
	int rc;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (st.st_size < (off_t)PAGE) {
		return -EBADMSG;
	}
	if (writable) {
		int seals = fcntl(fd, F_GET_SEALS);

		if (seals < 0 || (seals & SEALS) != SEALS) {
			return -EBADMSG; /* could shrink under us: SIGBUS */
		}
	}
	rc = trib_map_shared(fd, (uint64_t)st.st_size, PROT_READ | (writable ? PROT_WRITE : 0),
			     &memory);
	if (rc) {
		return rc;
	}
	*ret_memory = memory;
	*ret_size = (uint64_t)st.st_size;
	return 0;
}

int trib_segment_attach(int data_fd, int ctl_fd, bool writable, struct trib_segment *ret_segment)
{
	struct trib_segment segment = { .data_fd = data_fd,
					.ctl_fd = ctl_fd,
					.writable = writable };
	int rc = map_fd(ctl_fd, writable, &segment.ctl, &segment.ctl_size);

	if (!rc) {
		rc = map_fd(data_fd, writable, &segment.data, &segment.data_size);
	}
	if (!rc) {
		rc = header_check(&segment);
	}
	if (rc) {
		trib_segment_fini(&segment);
		return rc;
	}
	*ret_segment = segment;
	return 0;
}

void trib_segment_fini(struct trib_segment *segment)
{
	if (segment->data) {
		(void)munmap(segment->data, segment->data_size);
	}
	if (segment->ctl) {
		(void)munmap(segment->ctl, segment->ctl_size);
	}
	if (segment->data_fd >= 0) {
		(void)close(segment->data_fd);
	}
	if (segment->ctl_fd >= 0) {
		(void)close(segment->ctl_fd);
	}
	segment->data = NULL;
	segment->ctl = NULL;
	segment->data_fd = -1;
	segment->ctl_fd = -1;
}

int trib_fd_read_only(int fd)
{
	char path[40];
	int copy;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, O_RDONLY | O_CLOEXEC);
	return copy < 0 ? -errno : copy;
}

struct trib_slot_record *trib_segment_record(const struct trib_segment *segment, uint32_t slot)
{
	TRIB_ASSERT(slot < segment->header.slot_count);
	return (struct trib_slot_record *)(void *)(segment->ctl + PAGE + (uint64_t)slot * RECORD);
}

uint8_t *trib_segment_slot(const struct trib_segment *segment, uint32_t slot)
{
	TRIB_ASSERT(slot < segment->header.slot_count);
	return segment->data + segment->header.slot_size * slot;
}

struct trib_slot_view trib_slot_load(const struct trib_slot_record *record)
{
	uint64_t word = __atomic_load_n(&record->word, __ATOMIC_ACQUIRE);

	return (struct trib_slot_view){ (enum trib_slot_state)(word & 0xff),
					(uint32_t)(word >> 8) };
}

bool trib_slot_move(struct trib_slot_record *record, enum trib_slot_state from, uint32_t gen,
		    enum trib_slot_state to)
{
	uint64_t expected = (uint64_t)from | (uint64_t)gen << 8;
	uint32_t next = to == TRIB_SLOT_FREE ? gen + 1 : gen;
	uint64_t wanted = (uint64_t)to | (uint64_t)next << 8;

	return __atomic_compare_exchange_n(&record->word, &expected, wanted, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

const char *trib_norm_text(double norm, char out[TRIB_NORM_SIZE])
{
	out[0] = '\0';
	if (norm >= 0) {
		(void)snprintf(out, TRIB_NORM_SIZE, "%.17g", norm);
	}
	return out;
}

void trib_slot_fill(struct trib_slot_record *record, uint32_t gen, uint64_t bytes, uint64_t payload)
{
	uint64_t units = bytes / TRIB_FILLED_UNIT + (bytes == payload);

	__atomic_store_n(&record->filled, (uint64_t)gen << 32 | (uint32_t)units, __ATOMIC_RELEASE);
}

uint64_t trib_slot_filled(const struct trib_slot_record *record, uint32_t gen, uint64_t payload)
{
	uint64_t word = __atomic_load_n(&record->filled, __ATOMIC_ACQUIRE);
	uint64_t bytes = (uint64_t)(uint32_t)word * TRIB_FILLED_UNIT;

	if (word >> 32 != gen) {
		return 0;
	}
	return bytes < payload ? bytes : payload;
}
