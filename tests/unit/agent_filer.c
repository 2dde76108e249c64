/* SPDX-License-Identifier: Apache-2.0
 * Files written past the page cache, whatever their size is, and where that is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "orchestrator/agent/filer.c"

#define JOB "job_00000000000000000000000001"

static char folder[64];
static uint8_t *memory; /* SIZE bytes and a page before and behind */
static const uint64_t sizes[] = { 1, 4095, 4096, 4097, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 13 };
#define SIZE (2 * PIECE + AGENT_FILE_ALIGN)

static int setup(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "build/filer-XXXXXX");
	if (!mkdtemp(folder)) {
		return -1;
	}
	memory = aligned_alloc(AGENT_FILE_ALIGN, SIZE + 2 * AGENT_FILE_ALIGN);
	for (uint64_t i = 0; i < SIZE + 2 * AGENT_FILE_ALIGN; i++) {
		memory[i] = (uint8_t)(i * 2654435761u >> 13);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(memory);
	return rmdir(folder);
}

static void expect_file(const char *path, const uint8_t *bytes, uint64_t size)
{
	uint8_t *back = malloc(size + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, back, size + 1, 0), (long long)size);
	assert_memory_equal(back, bytes, size);
	(void)close(fd);
	free(back);
}

/* Longer and shorter ones over each other; 1 is an answer, too. */
static void test_sizes(void **state)
{
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/file", folder);
	for (size_t i = 0; i < 2 * TRIB_COUNT(sizes); i++) {
		uint64_t size = sizes[(i * 5) % TRIB_COUNT(sizes)];
		int rc = agent_file_write(path, memory, size, true);

		if (rc == 1) {
			rc = agent_file_write(path, memory, size, false);
		}
		assert_int_equal(rc, 0);
		expect_file(path, memory, size);
	}
	assert_int_equal(agent_file_write("/proc/nobody/file", memory, 1, true), -ENOENT);
	(void)unlink(path);
}

static struct agent_file results[8];
static uint32_t result_count;

static void on_done(struct agent_file *file, void *arg)
{
	results[result_count++] = *file;
	trib_loop_stop(arg);
}

static void path_of(char out[256], uint32_t version)
{
	(void)snprintf(out, 256, "%s/%s/v%u.safetensors", folder, JOB, version);
}

/* From memory no disk takes directly: the filer goes by the cache from then on, also for the rest.
 */
static void test_filer(void **state)
{
	struct agent_filer *filer = NULL;
	struct trib_loop *loop = NULL;
	char path[256];
	uint8_t *from[] = { memory, memory + 1, memory };

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/%s", folder, JOB);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(trib_loop_new(&loop), 0);
	assert_int_equal(agent_filer_new(loop, folder, on_done, loop, &filer), 0);
	for (uint32_t i = 0; i < TRIB_COUNT(from); i++) {
		struct agent_file file = {
			.job = JOB, .version = i, .memory = from[i], .size = 5000, .owner = from[i]
		};

		assert_int_equal(agent_filer_put(filer, &file), 0);
	}
	while (result_count < TRIB_COUNT(from)) {
		assert_int_equal(trib_loop_run(loop), 0);
	}
	for (uint32_t i = 0; i < TRIB_COUNT(from); i++) {
		struct agent_file file = { .job = JOB, .version = i, .remove = true };

		assert_int_equal(results[i].rc, 0);
		assert_ptr_equal(results[i].owner, from[i]);
		path_of(path, i);
		expect_file(path, from[i], 5000);
		assert_int_equal(agent_filer_put(filer, &file), 0);
	}
	assert_null(agent_filer_free(filer)); /* does what is queued */
	for (uint32_t i = 0; i < TRIB_COUNT(from); i++) {
		path_of(path, i);
		assert_int_equal(access(path, F_OK), -1);
	}
	trib_loop_free(loop);
}

/* A purged job gets no file, whatever was queued for it. */
static void test_cancelled(void **state)
{
	struct agent_filer *filer = NULL;
	struct trib_loop *loop = NULL;
	struct agent_file file = { .job = JOB, .version = 9, .memory = memory, .size = SIZE };
	char path[256];

	(void)state;
	result_count = 0;
	assert_int_equal(trib_loop_new(&loop), 0);
	assert_int_equal(agent_filer_new(loop, folder, on_done, loop, &filer), 0);
	assert_int_equal(agent_filer_put(filer, &file), 0);
	file.version = 10;
	assert_int_equal(agent_filer_put(filer, &file), 0);
	agent_filer_cancel(filer, JOB);
	file.version = 11;
	file.cancelled = true; /* as if the call above had come in time for certain */
	assert_int_equal(agent_filer_put(filer, &file), 0);
	while (result_count < 3) {
		assert_int_equal(trib_loop_run(loop), 0);
	}
	for (uint32_t i = 0; i < 3; i++) { /* done before, or not at all */
		path_of(path, results[i].version);
		assert_int_equal(access(path, F_OK), results[i].rc ? -1 : 0);
		assert_true(results[i].rc == 0 || results[i].rc == -ECANCELED);
		(void)unlink(path);
	}
	assert_int_equal(results[2].rc, -ECANCELED);
	assert_null(agent_filer_free(filer));
	trib_loop_free(loop);
	(void)snprintf(path, sizeof(path), "%s/%s", folder, JOB);
	assert_int_equal(rmdir(path), 0); /* no temporary file is left */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_filer),
		cmocka_unit_test(test_cancelled),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
