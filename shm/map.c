/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/map.h"

#include <errno.h>
#include <sys/mman.h>

#define PAGE 4096u
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* `size` bytes of a file from `offset`, at an address that agrees with it modulo the huge page. A
 * file of hugetlb pages takes whole ones, so there is room for them. */
static int map_aligned(int fd, uint64_t offset, uint64_t size, int protection, void **ret_memory)
{
	uint64_t whole = trib_round_up(size, TRIB_HUGE_PAGE);
	uint8_t *room = mmap(NULL, whole + TRIB_HUGE_PAGE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *end = room + whole + TRIB_HUGE_PAGE;
	uint64_t before;
	uint8_t *memory;

	if (room == MAP_FAILED) {
		return -errno;
	}
	before = trib_round_up((uintptr_t)room, TRIB_HUGE_PAGE) - (uintptr_t)room;
	memory = mmap(room + before, size, protection, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
	if (memory == MAP_FAILED) {
		int rc = -errno;

		(void)munmap(room, (size_t)(end - room));
		return rc;
	}
	if (before) {
		(void)munmap(room, before);
	}
	if (munmap(memory + trib_round_up(size, PAGE),
		   (size_t)(end - memory) - trib_round_up(size, PAGE))) {
		(void)munmap(memory + whole, (size_t)(end - memory) - whole);
	}
	*ret_memory = memory;
	return 0;
}

int trib_map_shared(int fd, uint64_t size, int protection, void **ret_memory)
{
	void *memory;

	if (size >= TRIB_HUGE_PAGE) {
		return map_aligned(fd, 0, size, protection, ret_memory);
	}
	memory = mmap(NULL, size, protection, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		return -errno;
	}
	*ret_memory = memory;
	return 0;
}

/* A small page of each, which the huge one then takes the place of: cleared once, not 512 times. */
static bool collapse(uint8_t *memory, uint64_t size)
{
	for (uint64_t at = 0; at < size; at += TRIB_HUGE_PAGE) {
		if (madvise(memory + at, PAGE, MADV_POPULATE_WRITE)) {
			return false;
		}
	}
	return size == 0 || madvise(memory, size, MADV_COLLAPSE) == 0;
}

/* Is nothing of a huge page's range there, as far as we may know? What is there would have to be
 * copied: that costs more than it saves in twenty rounds. */
static bool untouched(uint8_t *memory, uint64_t size)
{
	unsigned char there[TRIB_HUGE_PAGE / PAGE];

	for (uint64_t at = 0; at < size; at += TRIB_HUGE_PAGE) {
		if (mincore(memory + at, TRIB_HUGE_PAGE, there)) {
			return false;
		}
		for (size_t i = 0; i < sizeof(there); i++) {
			if (there[i] & 1) {
				return false;
			}
		}
	}
	return true;
}

int trib_map_touch(int fd, uint64_t offset, uint64_t size)
{
	uint64_t whole = size / TRIB_HUGE_PAGE * TRIB_HUGE_PAGE;
	uint64_t from;
	void *memory;
	int rc;

	TRIB_ASSERT(offset % TRIB_HUGE_PAGE == 0);
	rc = map_aligned(fd, offset, size, PROT_READ | PROT_WRITE, &memory);
	if (rc) {
		return rc;
	}
	from = untouched(memory, whole) && collapse(memory, whole) ? whole : 0;
	if (from < size) {
		(void)madvise((uint8_t *)memory + from, size - from, MADV_POPULATE_WRITE);
	}
	(void)munmap(memory, size);
	return 0;
}
