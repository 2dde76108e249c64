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

static uint64_t round_up(uint64_t size, uint64_t unit)
{
	return (size + unit - 1) / unit * unit;
}

/* `size` bytes of a file from `offset`, at an address that agrees with it modulo the huge page. A
 * file of hugetlb pages takes whole ones, so there is room for them. */
static int map_aligned(int fd, uint64_t offset, uint64_t size, int protection, void **ret_memory)
{
	uint64_t whole = round_up(size, TRIB_HUGE_PAGE);
	uint8_t *room = mmap(NULL, whole + TRIB_HUGE_PAGE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *end = room + whole + TRIB_HUGE_PAGE;
	uint64_t before;
	uint8_t *memory;

	if (room == MAP_FAILED) {
		return -errno;
	}
	before = round_up((uintptr_t)room, TRIB_HUGE_PAGE) - (uintptr_t)room;
	memory = mmap(room + before, size, protection, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
	if (memory == MAP_FAILED) {
		int rc = -errno;

		(void)munmap(room, (size_t)(end - room));
		return rc;
	}
	if (before) {
		(void)munmap(room, before);
	}
	if (munmap(memory + round_up(size, PAGE), (size_t)(end - memory) - round_up(size, PAGE))) {
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

/* One small page, which the huge one then takes the place of: cleared once, not 512 times. */
static bool collapse(uint8_t *memory)
{
	return madvise(memory, PAGE, MADV_POPULATE_WRITE) == 0 &&
	       madvise(memory, TRIB_HUGE_PAGE, MADV_COLLAPSE) == 0;
}

int trib_map_touch(int fd, uint64_t offset, uint64_t size)
{
	uint64_t at = 0;
	void *memory;
	int rc;

	TRIB_ASSERT(offset % TRIB_HUGE_PAGE == 0);
	rc = map_aligned(fd, offset, size, PROT_READ | PROT_WRITE, &memory);
	if (rc) {
		return rc;
	}
	while (size - at >= TRIB_HUGE_PAGE && collapse((uint8_t *)memory + at)) {
		at += TRIB_HUGE_PAGE;
	}
	if (at < size) {
		(void)madvise((uint8_t *)memory + at, size - at, MADV_POPULATE_WRITE);
	}
	(void)munmap(memory, size);
	return 0;
}
