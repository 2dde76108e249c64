/* SPDX-License-Identifier: Apache-2.0
 * Mappings that huge pages fit, and memory touched ahead while others already use it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/map.h"

#define HUGE ((uint64_t)TRIB_HUGE_PAGE)

static int memory_of(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

/* Mappings of this process. */
static unsigned mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned count = 0;
	int c;

	assert_non_null(f);
	while ((c = fgetc(f)) != EOF) {
		count += c == '\n';
	}
	(void)fclose(f);
	return count;
}

static void test_sizes(void **state)
{
	static const uint64_t sizes[] = { 1,        4096,     5000,         HUGE - 1,       HUGE,
					  HUGE + 1, HUGE * 2, HUGE * 3 - 1, HUGE * 3 + 4097 };

	(void)state;
	for (size_t i = 0; i < TRIB_COUNT(sizes); i++) {
		uint64_t size = sizes[i];
		int fd = memory_of(size);
		unsigned before = mappings();
		unsigned char byte = 0;
		uint8_t *memory;

		assert_int_equal(
			trib_map_shared(fd, size, PROT_READ | PROT_WRITE, (void **)&memory), 0);
		if (size >= HUGE) {
			assert_int_equal((uintptr_t)memory % HUGE, 0);
		}
		memory[0] = 1;
		memory[size - 1] = 2;
		assert_int_equal(pread(fd, &byte, 1, (off_t)size - 1), 1);
		assert_int_equal(byte, 2);
		assert_int_equal(munmap(memory, size), 0);
		assert_true(mappings() <= before); /* nothing of the room around it is left */
		(void)close(fd);
	}
}

static void test_errors(void **state)
{
	unsigned before = mappings();
	void *memory;

	(void)state;
	assert_int_equal(trib_map_shared(-1, HUGE, PROT_READ, &memory), -EBADF);
	assert_int_equal(trib_map_shared(-1, 1, PROT_READ, &memory), -EBADF);
	assert_int_equal(trib_map_touch(-1, 0, HUGE), -EBADF);
	assert_true(mappings() <= before);
}

static void test_touched(void **state)
{
	uint64_t size = HUGE * 3 + 12345;
	int fd = memory_of(size);
	struct stat st;

	(void)state;
	assert_int_equal(pwrite(fd, "here", 4, (off_t)HUGE - 2), 4);
	assert_int_equal(trib_map_touch(fd, 0, HUGE * 2), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 >= (int64_t)(HUGE * 2));
	assert_int_equal(trib_map_touch(fd, HUGE * 2, size - HUGE * 2), 0);
	assert_int_equal(trib_map_touch(fd, 0, size), 0); /* again: nothing happens */
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 >= (int64_t)(HUGE * 3 + 16384));
	for (uint64_t at = 0; at < size; at += 4096) {
		char bytes[8] = { 0 };

		assert_int_equal(pread(fd, bytes, 4, (off_t)at), 4);
		assert_int_equal(bytes[0], at == HUGE ? 'r' : 0);
	}
	(void)close(fd);
}

struct writer {
	uint64_t *memory;
	uint64_t words;
	bool stop; /* atomic */
	uint64_t rounds;
};

/* Every word says how often it was written. */
static void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE) || w->rounds < 2) {
		for (uint64_t i = 0; i < w->words; i += 64) {
			if (w->memory[i] != w->rounds) {
				return "a word was lost";
			}
			w->memory[i]++;
		}
		w->rounds++;
	}
	return NULL;
}

static void test_in_use(void **state)
{
	uint64_t size = HUGE * 4;
	int fd = memory_of(size);
	struct writer w = { .words = size / sizeof(uint64_t) };
	pthread_t thread;
	void *lost;

	(void)state;
	assert_int_equal(trib_map_shared(fd, size, PROT_READ | PROT_WRITE, (void **)&w.memory), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_on, &w), 0);
	for (int i = 0; i < 5; i++) {
		for (uint64_t at = 0; at < size; at += HUGE) {
			assert_int_equal(trib_map_touch(fd, at, HUGE), 0);
		}
	}
	__atomic_store_n(&w.stop, true, __ATOMIC_RELEASE);
	assert_int_equal(pthread_join(thread, &lost), 0);
	assert_null(lost);
	for (uint64_t i = 0; i < w.words; i += 64) {
		assert_int_equal(w.memory[i], w.rounds);
	}
	assert_int_equal(munmap(w.memory, size), 0);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_touched),
		cmocka_unit_test(test_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
