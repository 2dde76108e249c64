/* SPDX-License-Identifier: Apache-2.0
 * A line per kind and job that has calls without an answer:
 *
 *   line -> load in flight (its answer comes to on_answer)
 *     '---> loads that wait, each full but the last
 *
 * Words lie one after the other in the load's text, each terminated.
 */
#include "gateway/batch.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/queue.h>

#include "gateway/job.h"
#include "gateway/metrics.h"

#define BUCKETS   64 /* a power of two */
#define TEXT_SIZE 8192

struct item {
	trib_redis_cb *cb;
	void *arg;
};

struct load {
	TAILQ_ENTRY(load) entry;
	struct line *line;
	char *text;
	size_t used;
	size_t room;
	uint32_t count;
	uint32_t word_count;
	struct item items[GW_BATCH_MAX];
	uint32_t sizes[GW_BATCH_MAX * GW_BATCH_WORDS_MAX];
};

TAILQ_HEAD(loads, load);

struct line {
	LIST_ENTRY(line) entry;
	struct gw_batches *batches;
	enum gw_batch_kind kind;
	uint32_t in_flight; /* loads */
	struct loads waiting;
	char key[GW_JOB_KEY_SIZE];
};

LIST_HEAD(lines, line);

struct gw_batches {
	struct trib_redis *redis;
	size_t outstanding; /* items */
	struct lines buckets[BUCKETS];
};

static const struct {
	const char *function;
	uint32_t words;
	enum gw_metric calls;
	enum gw_metric items;
} kinds[GW_BATCH_KINDS] = {
	[GW_BATCH_COMMIT] = { "trib_commit_many", 9, GW_M_BATCHES_COMMIT, GW_M_BATCHED_COMMIT },
	[GW_BATCH_CHECKIN] = { "trib_checkin_many", 5, GW_M_BATCHES_CHECKIN, GW_M_BATCHED_CHECKIN },
};

/* ---- lines and loads ---- */

static struct lines *bucket_of(struct gw_batches *batches, const char *key)
{
	uint32_t hash = 2166136261u;

	for (; *key; key++) {
		hash = (hash ^ (uint8_t)*key) * 16777619u;
	}
	return &batches->buckets[hash % BUCKETS];
}

static struct line *line_of(struct gw_batches *batches, enum gw_batch_kind kind, const char *key)
{
	struct lines *bucket = bucket_of(batches, key);
	struct line *line;

	LIST_FOREACH(line, bucket, entry) {
		if (line->kind == kind && strcmp(line->key, key) == 0) {
			return line;
		}
	}
	line = trib_alloc(sizeof(*line));
	if (!line || trib_copy(line->key, sizeof(line->key), key)) {
		trib_free(line);
		return NULL;
	}
	line->batches = batches;
	line->kind = kind;
	TAILQ_INIT(&line->waiting);
	LIST_INSERT_HEAD(bucket, line, entry);
	return line;
}

static void line_done(struct line *line)
{
	if (line->in_flight == 0 && TAILQ_EMPTY(&line->waiting)) {
		LIST_REMOVE(line, entry);
		trib_free(line);
	}
}

static void load_free(struct load *load)
{
	trib_free(load->text);
	trib_free(load);
}

/* The last one that waits, if there is room in it, or a new one behind it. */
static struct load *load_of(struct line *line)
{
	struct load *load = TAILQ_LAST(&line->waiting, loads);

	if (load && load->count < GW_BATCH_MAX) {
		return load;
	}
	gw_count(GW_M_BATCH_FULL, load != NULL);
	load = trib_alloc(sizeof(*load));
	if (load) {
		load->line = line;
		TAILQ_INSERT_TAIL(&line->waiting, load, entry);
	}
	return load;
}

/* 0, -ENOMEM */
static int put_word(struct load *load, const char *word)
{
	size_t size = strlen(word);

	if (load->used + size + 1 > load->room) {
		size_t room = trib_round_up(load->used + size + 1, TEXT_SIZE);
		char *text = trib_realloc(load->text, room);

		if (!text) {
			return -ENOMEM;
		}
		load->text = text;
		load->room = room;
	}
	memcpy(load->text + load->used, word, size + 1);
	load->used += size + 1;
	load->sizes[load->word_count++] = (uint32_t)size;
	return 0;
}

/* All words of a call or none. */
static int put_words(struct load *load, uint32_t count, va_list words)
{
	size_t used = load->used;
	uint32_t had = load->word_count;
	const char *word;
	int rc = 0;

	while ((word = va_arg(words, const char *)) && rc == 0) {
		rc = load->word_count - had < count ? put_word(load, word) : -EINVAL;
	}
	if (rc == 0 && load->word_count - had != count) {
		rc = -EINVAL;
	}
	if (rc) {
		load->used = used;
		load->word_count = had;
	}
	return rc;
}

/* ---- sending ---- */

/* answers: the reply; an error of all; NULL: none came. Frees the load. */
static void deliver(struct gw_batches *batches, struct load *load, const struct trib_value *answers)
{
	bool each = answers && trib_value_type(answers) == TRIB_VALUE_ARRAY;

	batches->outstanding -= load->count;
	for (uint32_t i = 0; i < load->count; i++) {
		load->items[i].cb(each ? trib_value_at(answers, i) : answers, load->items[i].arg);
	}
	load_free(load);
}

static void on_answer(const struct trib_value *value, void *arg);

static int load_send(struct load *load)
{
	const struct line *line = load->line;
	const char *words[4 + GW_BATCH_MAX * GW_BATCH_WORDS_MAX] = { "FCALL",
								     kinds[line->kind].function,
								     "1", line->key };
	size_t sizes[TRIB_COUNT(words)];
	const char *word = load->text;
	uint32_t count;
	int rc;

	for (count = 0; count < 4; count++) {
		sizes[count] = strlen(words[count]);
	}
	for (uint32_t i = 0; i < load->word_count; i++, count++) {
		words[count] = word;
		sizes[count] = load->sizes[i];
		word += load->sizes[i] + 1;
	}
	rc = trib_redis_call(line->batches->redis, on_answer, load, count, words, sizes);
	if (rc == 0) {
		gw_count(kinds[line->kind].calls, 1);
		gw_count(kinds[line->kind].items, load->count);
	}
	return rc;
}

/* Sends what waits, now that nothing is in flight. Those that cannot be sent are left in `failed`.
 */
static void send_waiting(struct line *line, struct loads *failed)
{
	struct load *load;

	while ((load = TAILQ_FIRST(&line->waiting))) {
		TAILQ_REMOVE(&line->waiting, load, entry);
		if (load_send(load)) {
			TAILQ_INSERT_TAIL(failed, load, entry);
		} else {
			line->in_flight++;
		}
	}
}

/* Redis has its next call before the answers of this one are worked on. */
static void on_answer(const struct trib_value *value, void *arg)
{
	struct load *load = arg;
	struct line *line = load->line;
	struct gw_batches *batches = line->batches;
	struct loads failed = TAILQ_HEAD_INITIALIZER(failed);
	struct load *other;

	line->in_flight--;
	if (line->in_flight == 0) {
		send_waiting(line, &failed);
	}
	line_done(line);
	deliver(batches, load, value);
	while ((other = TAILQ_FIRST(&failed))) {
		TAILQ_REMOVE(&failed, other, entry);
		deliver(batches, other, NULL);
	}
}

int gw_batch_call(struct gw_batches *batches, enum gw_batch_kind kind, const char *key,
		  trib_redis_cb *cb, void *arg, ...)
{
	struct line *line;
	struct load *load;
	va_list words;
	int rc;

	if (batches->outstanding >= GW_BATCH_CALLS_MAX) {
		gw_count(GW_M_BATCH_REFUSED, 1);
		return -ENOBUFS;
	}
	line = line_of(batches, kind, key);
	load = line ? load_of(line) : NULL;
	if (!load) {
		if (line) {
			line_done(line);
		}
		return -ENOMEM;
	}
	va_start(words, arg);
	rc = put_words(load, kinds[kind].words, words);
	va_end(words);
	if (rc == 0) {
		load->items[load->count++] = (struct item){ cb, arg };
		batches->outstanding++;
	}
	if (line->in_flight > 0 && load->count > 0) {
		return rc;
	}
	/* Nothing is in flight, so this is all that waits; or it is empty. */
	TAILQ_REMOVE(&line->waiting, load, entry);
	if (rc == 0) {
		rc = load_send(load);
		batches->outstanding -= rc ? load->count : 0;
		line->in_flight += rc == 0;
	}
	if (rc) {
		load_free(load);
		line_done(line);
	}
	return rc;
}

/* ---- life ---- */

int gw_batches_new(struct trib_redis *redis, struct gw_batches **ret_batches)
{
	struct gw_batches *batches = trib_alloc(sizeof(*batches));

	if (!batches) {
		return -ENOMEM;
	}
	batches->redis = redis;
	for (size_t i = 0; i < BUCKETS; i++) {
		LIST_INIT(&batches->buckets[i]);
	}
	*ret_batches = batches;
	return 0;
}

struct gw_batches *gw_batches_free(struct gw_batches *batches)
{
	trib_free(batches); /* its lines went with their last answer */
	return NULL;
}
