/* SPDX-License-Identifier: Apache-2.0
 * The copy of a version that follows the function that makes it: whatever that function says or
 * writes meanwhile, the digest is of the bytes that are served, and an honest model arrives whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "orchestrator/agent/writer.c"

#define CHUNK_BYTES ((uint64_t)TRIB_PARTIAL_CHUNK * sizeof(float))
#define CHUNKS      41u
#define ELEMENTS    (40u * TRIB_PARTIAL_CHUNK + 777u)
#define BYTES       (ELEMENTS * sizeof(float))
#define HEAD        24u
#define OLD         7u /* generation of what is there before */
#define WAIT_MS     30000u

static struct trib_loop *loop;
static struct agent_writer *writer;
static uint8_t *memory; /* of out: what a function writes */
static struct agent_out out;
static struct agent_model model;
static struct agent_write finished;
static uint32_t done_count;
static int64_t counts[AGENT_M_COUNT];

/* ---- what writer.c needs of the agent ---- */

void agent_count(enum agent_metric metric, int64_t amount)
{
	(void)__atomic_add_fetch(&counts[metric], amount, __ATOMIC_RELAXED);
}

struct agent_model *agent_published_find(const struct agent *agent, const char *job,
					 uint32_t version)
{
	(void)agent;
	(void)job;
	(void)version;
	return NULL;
}

void agent_published_purge(struct agent *agent, const char *job)
{
	(void)agent;
	(void)job;
}

/* ---- the function's side ---- */

static uint64_t *word(void)
{
	return (uint64_t *)(void *)(memory + trib_out_at(ELEMENTS));
}

/* Never 0, which is what a fresh memory has. */
static uint8_t byte_of(uint32_t seed, uint64_t i)
{
	uint32_t x = ((uint32_t)i * 16u + seed + 1u) * 2654435761u;

	return (uint8_t)((x ^ x >> 15) * 2246822519u >> 24) | 1u;
}

static void write_chunks(uint32_t seed, uint32_t from, uint32_t to)
{
	uint64_t end = to * CHUNK_BYTES < BYTES ? to * CHUNK_BYTES : BYTES;

	for (uint64_t i = from * CHUNK_BYTES; i < end; i++) {
		memory[i] = byte_of(seed, i);
	}
}

static void make(uint32_t seed, uint32_t from, uint32_t to)
{
	write_chunks(seed, from, to);
	trib_out_made(word(), to);
}

/* ---- the agent's side ---- */

static void on_done(struct agent_write *write, void *arg)
{
	(void)arg;
	finished = *write;
	done_count++;
	trib_loop_stop(loop);
}

static struct agent_write write_of(void)
{
	return (struct agent_write){ .job = "job_w",
				     .round = 3,
				     .version = 4,
				     .bytes = BYTES,
				     .model = &model,
				     .out = &out,
				     .before = OLD };
}

static void begin_following(void)
{
	struct agent_write write = write_of();

	assert_int_equal(agent_writer_follow(writer, &write), 0);
}

static const uint8_t *served(void)
{
	return model.memory + HEAD;
}

/* Until the copy has come to that chunk of that model. */
static void until_copied(uint32_t seed, uint32_t chunk)
{
	uint64_t at = chunk * CHUNK_BYTES - 1;

	for (uint32_t i = 0; i < WAIT_MS; i++) {
		if (__atomic_load_n(served() + at, __ATOMIC_ACQUIRE) == byte_of(seed, at)) {
			return;
		}
		(void)poll(NULL, 0, 1);
	}
	fail();
}

static void until_done(int rc)
{
	done_count = 0;
	assert_int_equal(trib_loop_run(loop), 0);
	assert_int_equal(done_count, 1);
	assert_int_equal(finished.rc, rc);
	assert_ptr_equal(finished.model, &model);
}

/* Whatever is served has this digest. */
static void expect_digest(void)
{
	char text[TRIB_DIGEST_TEXT_SIZE];

	trib_digest_print(trib_digest(served(), BYTES), text);
	assert_string_equal(finished.digest, text);
}

static void expect_served(uint32_t seed)
{
	for (uint64_t i = 0; i < BYTES; i++) {
		if (served()[i] != byte_of(seed, i)) {
			fail_msg("byte %llu", (unsigned long long)i);
		}
	}
	expect_digest();
}

static int setup(void **state)
{
	(void)state;
	memset(counts, 0, sizeof(counts));
	memory = aligned_alloc(TRIB_OUT_PAGE, trib_out_size(ELEMENTS));
	memset(memory, 0x7f, trib_out_size(ELEMENTS));
	*word() = (uint64_t)OLD << 32 | CHUNKS; /* the former round's */
	out = (struct agent_out){ .refs = 1,
				  .fd = -1,
				  .memory = memory,
				  .word = word(),
				  .size = trib_out_size(ELEMENTS) };
	model = (struct agent_model){ .state = AGENT_MODEL_FILLING,
				      .memory = malloc(HEAD + BYTES),
				      .head = HEAD };
	memset(model.memory, 0, HEAD + BYTES);
	return trib_loop_new(&loop) || agent_writer_new(loop, on_done, NULL, &writer);
}

static int teardown(void **state)
{
	(void)state;
	writer = agent_writer_free(writer);
	trib_loop_free(loop);
	free(memory);
	free(model.memory);
	return 0;
}

/* ---- cases ---- */

static void it_follows_and_finishes_the_rest(void **state)
{
	(void)state;
	begin_following();
	(void)poll(NULL, 0, 5);
	assert_int_equal(served()[0], 0); /* what the former round left is not copied */
	trib_out_anew(word());
	for (uint32_t c = 0; c < 32; c += 8) {
		make(1, c, c + 8);
		until_copied(1, c + 8);
	}
	make(1, 32, CHUNKS);
	agent_writer_whole(writer, &model);
	until_done(0);
	expect_served(1);
	assert_int_equal(finished.version, 4);
	assert_int_equal(counts[AGENT_M_COPIED_AHEAD], 1);
	assert_int_equal(counts[AGENT_M_COPIED_ANEW], 0);
}

/* Nobody followed: no word has changed, or none that it may believe. */
static void without_a_word_all_is_copied_at_the_end(void **state)
{
	struct agent_write write = write_of();

	(void)state;
	write_chunks(2, 0, CHUNKS);
	assert_int_equal(agent_writer_put(writer, &write), 0);
	until_done(0);
	expect_served(2);
	begin_following();
	(void)poll(NULL, 0, 5);
	write_chunks(3, 0, CHUNKS); /* of the generation before: it might be anything */
	agent_writer_whole(writer, &model);
	until_done(0);
	expect_served(3);
	assert_int_equal(counts[AGENT_M_COPIED_AHEAD], 0);
}

static void a_model_made_again_is_copied_again(void **state)
{
	(void)state;
	begin_following();
	trib_out_anew(word());
	make(1, 0, 24);
	until_copied(1, 24);
	trib_out_anew(word()); /* while it follows */
	make(2, 0, 16);
	until_copied(2, 16);
	trib_out_anew(word()); /* at the end */
	make(3, 0, CHUNKS);
	agent_writer_whole(writer, &model);
	until_done(0);
	expect_served(3);
	assert_true(counts[AGENT_M_COPIED_ANEW] >= 2);
}

static void what_is_rewritten_behind_it_is_hashed_as_it_is_served(void **state)
{
	(void)state;
	begin_following();
	trib_out_anew(word());
	make(1, 0, 24);
	until_copied(1, 24);
	write_chunks(9, 0, CHUNKS); /* and says nothing of it */
	trib_out_made(word(), CHUNKS);
	agent_writer_whole(writer, &model);
	until_done(0);
	expect_digest();
	assert_int_equal(served()[0], byte_of(1, 0));
	assert_int_equal(served()[BYTES - 1], byte_of(9, BYTES - 1));
}

static void no_number_in_it_is_believed(void **state)
{
	(void)state;
	begin_following();
	for (uint32_t i = 1; i <= 50; i++) {
		write_chunks(i, 0, CHUNKS);
		__atomic_store_n(word(), (uint64_t)(OLD + i) << 32 | UINT32_MAX, __ATOMIC_RELEASE);
		(void)poll(NULL, 0, 1);
	}
	trib_out_anew(word());
	make(4, 0, CHUNKS);
	agent_writer_whole(writer, &model);
	until_done(0);
	expect_served(4);
	assert_true(counts[AGENT_M_COPIED_ANEW] <= ANEW_MAX); /* it does not copy for ever */
}

static void what_comes_to_nothing_ends(void **state)
{
	struct agent_model other = model;
	struct agent_write write = write_of();

	(void)state;
	other.memory = malloc(HEAD + BYTES);
	begin_following();
	trib_out_anew(word());
	make(1, 0, 8);
	until_copied(1, 8);
	write.model = &other; /* another one is not held up by it.. */
	make(1, 8, CHUNKS);
	assert_int_equal(agent_writer_put(writer, &write), 0);
	done_count = 0;
	assert_int_equal(trib_loop_run(loop), 0);
	assert_int_equal(done_count, 1);
	assert_ptr_equal(finished.model, &other);
	agent_writer_cancel(writer, &other); /* ..nor ended with it */
	agent_writer_cancel(writer, &model);
	until_done(-ECANCELED);
	agent_writer_whole(writer, &model); /* too late */
	begin_following();                  /* and one that is under way at the end */
	free(other.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_follows_and_finishes_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_word_all_is_copied_at_the_end, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_model_made_again_is_copied_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			what_is_rewritten_behind_it_is_hashed_as_it_is_served, setup, teardown),
		cmocka_unit_test_setup_teardown(no_number_in_it_is_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_comes_to_nothing_ends, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
