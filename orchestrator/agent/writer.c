/* SPDX-License-Identifier: Apache-2.0
 * Finalised models, published by one thread: copied from where the functions put them into a memory
 * no function has, hashed there. What is hashed is what is served and filed, whatever a function
 * does to its own mapping meanwhile. A copy may follow a model that is still being made, as far as
 * its function says that it is final, in the hope that the word is kept (shm/out.h): if the
 * generation is another one at the end, all of it is copied and hashed anew.
 */
#include "orchestrator/agent/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "orchestrator/agent/filer.h"
#include "orchestrator/agent/published.h"
#include "shm/out.h"
#include "shm/partial.h"

#define ENTRIES_MAX  (2 * AGENT_JOBS_MAX) /* a job has one on the way, and one given up */
#define PIECE        (128u << 10)         /* hashed while it is in the cache */
#define TURN         (4u << 20)           /* of one that follows, before others get theirs */
#define ANEW_MAX     3u                   /* no more is copied in vain */
#define PAUSE_MIN_NS 500000u              /* between looks at what goes on */
#define PAUSE_MAX_NS 1000000u

enum stage {
	FOLLOWING,
	WHOLE,
	CANCELLED
};

struct entry {
	struct agent_writer *writer;
	struct agent_write write;
	enum stage stage; /* guarded */
	/* the thread's */
	uint64_t at;                /* bytes that are copied and hashed.. */
	struct trib_hasher *hasher; /* ..by this; NULL: none.. */
	uint32_t generation;        /* ..of this one */
	uint32_t begun;
};

struct agent_writer {
	struct trib_loop *loop;
	void (*done)(struct agent_write *write, void *arg);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* threads of this process only */
	pthread_cond_t more;
	struct entry *entries[ENTRIES_MAX]; /* owned; only the thread takes any out */
	uint32_t count;
	uint32_t following;
	bool stop;
};

static void model_path(const char *models, const char *job, uint32_t version, char *out,
		       size_t size)
{
	(void)snprintf(out, size, "%s/%s/v%u.safetensors", models, job, version);
}

uint64_t agent_model_data_offset(int fd)
{
	uint8_t head[8];
	uint64_t n = 0;

	if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head)) {
		return 0;
	}
	for (int i = 7; i >= 0; i--) {
		n = n << 8 | head[i];
	}
	return n <= TRIB_TENSOR_HEADER_MAX ? n + 8 : 0;
}

int agent_model_open(const struct agent *agent, const char *job, uint32_t version,
		     uint64_t *ret_offset)
{
	const struct agent_model *model = agent_published_find(agent, job, version);
	char path[512];
	int fd;

	if (model) {
		*ret_offset = model->head;
		fd = fcntl(model->read_fd, F_DUPFD_CLOEXEC, 3);
		return fd < 0 ? -errno : fd;
	}
	model_path(agent->options.models, job, version, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	*ret_offset = agent_model_data_offset(fd);
	if (*ret_offset == 0) {
		(void)close(fd);
		return -EBADMSG;
	}
	return fd;
}

void agent_models_purge(struct agent *agent, const char *job)
{
	char path[512];
	struct trib_id id;
	struct dirent *entry;
	DIR *directory;
	uint32_t removed = 0;

	if (trib_id_parse("job_", job, &id)) {
		return;
	}
	agent_published_purge(agent, job);
	(void)snprintf(path, sizeof(path), "%s/%s", agent->options.models, job);
	directory = opendir(path);
	if (!directory) {
		return;
	}
	while ((entry = readdir(directory)) != NULL) {
		if (entry->d_name[0] == 'v' && strstr(entry->d_name, ".safetensors") &&
		    unlinkat(dirfd(directory), entry->d_name, 0) == 0) {
			removed++;
		}
	}
	(void)closedir(directory);
	if (rmdir(path)) {
		log_warn("writer", "event=not-empty job=%s errno=%d", job, errno);
	}
	log_info("writer", "event=purged job=%s files=%u", job, removed);
}

/* ---- copying ---- */

static int begin(struct entry *e, uint32_t generation)
{
	e->hasher = trib_hasher_free(e->hasher);
	e->at = 0;
	e->generation = generation;
	return trib_hasher_new(&e->hasher);
}

static void copy(struct entry *e, uint64_t end)
{
	uint8_t *to = e->write.model->memory + e->write.model->head;

	while (e->at < end) {
		size_t size = end - e->at < PIECE ? (size_t)(end - e->at) : PIECE;

		memcpy(to + e->at, e->write.out->memory + e->at, size);
		trib_hasher_update(e->hasher, to + e->at, size);
		e->at += size;
	}
}

/* A turn of one that follows. False: there is nothing for it now. */
static bool follow(struct entry *e)
{
	uint64_t word = trib_out_load(e->write.out->word);
	uint64_t end = (uint64_t)trib_out_chunks(word) * TRIB_PARTIAL_CHUNK * sizeof(float);

	end = end < e->write.bytes ? end : e->write.bytes;
	if (trib_out_generation(word) == e->write.before || !end) {
		return false; /* not begun */
	}
	if (!e->hasher || trib_out_generation(word) != e->generation) {
		if (e->begun == ANEW_MAX || begin(e, trib_out_generation(word))) {
			return false; /* at the end, then */
		}
		if (e->begun++) {
			agent_count(AGENT_M_COPIED_ANEW, 1);
		}
	}
	if (end <= e->at || (end - e->at < PIECE && end < e->write.bytes)) {
		return false;
	}
	copy(e, end - e->at < TURN ? end : e->at + TURN);
	return true;
}

/* Its maker has said that the model is whole, after it wrote the last of it. */
static int complete(struct entry *e)
{
	uint32_t generation = trib_out_generation(trib_out_load(e->write.out->word));
	int rc = 0;

	if (!e->hasher || e->generation != generation) {
		if (e->begun) {
			agent_count(AGENT_M_COPIED_ANEW, 1);
		}
		rc = begin(e, generation);
	}
	if (rc) {
		return rc;
	}
	if (e->at) {
		agent_count(AGENT_M_COPIED_AHEAD, 1);
	}
	log_debug("writer", "event=copying job=%s version=%u from=%llu", e->write.job,
		  e->write.version, (unsigned long long)e->at);
	copy(e, e->write.bytes);
	trib_digest_print(trib_hasher_digest(e->hasher), e->write.digest);
	return 0;
}

/* ---- the thread ---- */

static void entry_free(struct entry *e)
{
	(void)trib_hasher_free(e->hasher);
	trib_free(e);
}

static void on_finished(void *arg)
{
	struct entry *e = arg;

	e->writer->done(&e->write, e->writer->arg);
	entry_free(e);
}

/* It is out of the table; goes on to the loop, which frees it. */
static void serve(struct agent_writer *w, struct entry *e)
{
	e->write.rc = e->stage == CANCELLED ? -ECANCELED : complete(e);
	while (trib_loop_wake(w->loop, on_finished, e)) {
		bool stop;

		(void)pthread_mutex_lock(&w->lock);
		stop = w->stop;
		(void)pthread_mutex_unlock(&w->lock);
		if (stop) { /* the loop does not turn any more */
			entry_free(e);
			return;
		}
		(void)poll(NULL, 0, 1);
	}
}

/* Takes out the first that does not follow (any more), or NULL. Locked. */
static struct entry *take(struct agent_writer *w)
{
	for (uint32_t i = 0; i < w->count; i++) {
		struct entry *e = w->entries[i];

		if (e->stage != FOLLOWING) {
			w->count--;
			memmove(&w->entries[i], &w->entries[i + 1],
				(w->count - i) * sizeof(struct entry *));
			return e;
		}
	}
	return NULL;
}

/* A turn for each that follows, unless something is to be done at once. True: one got on. Locked,
 * but for the turns. */
static bool follow_all(struct agent_writer *w)
{
	uint32_t following = w->following;
	bool moved = false;

	for (uint32_t i = 0; i < w->count && w->following == following; i++) {
		struct entry *e = w->entries[i];

		if (e->stage != FOLLOWING) {
			return true;
		}
		(void)pthread_mutex_unlock(&w->lock);
		moved |= follow(e);
		(void)pthread_mutex_lock(&w->lock);
	}
	return moved || w->following != following;
}

/* Locked, but while it sleeps. */
static void pause_for(struct agent_writer *w, uint64_t pause_ns)
{
	uint64_t until = trib_clock_ns() + pause_ns;
	struct timespec t = { .tv_sec = (time_t)(until / 1000000000u),
			      .tv_nsec = (long)(until % 1000000000u) };

	(void)pthread_cond_timedwait(&w->more, &w->lock, &t);
}

static void *writer_main(void *arg)
{
	struct agent_writer *w = arg;
	uint64_t pause_ns = PAUSE_MIN_NS;

	(void)pthread_mutex_lock(&w->lock);
	for (;;) {
		struct entry *e = take(w);

		if (e) {
			(void)pthread_mutex_unlock(&w->lock);
			serve(w, e);
			(void)pthread_mutex_lock(&w->lock);
		} else if (w->stop) {
			break;
		} else if (!w->following) {
			pause_ns = PAUSE_MIN_NS;
			(void)pthread_cond_wait(&w->more, &w->lock);
		} else if (follow_all(w)) {
			pause_ns = PAUSE_MIN_NS;
		} else {
			pause_for(w, pause_ns);
			pause_ns = 2 * pause_ns < PAUSE_MAX_NS ? 2 * pause_ns : PAUSE_MAX_NS;
		}
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

int agent_writer_new(struct trib_loop *loop, void (*done)(struct agent_write *write, void *arg),
		     void *arg, struct agent_writer **ret_writer)
{
	struct agent_writer *w = trib_alloc(sizeof(*w));
	pthread_condattr_t attributes;

	if (!w) {
		return -ENOMEM;
	}
	w->loop = loop;
	w->done = done;
	w->arg = arg;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->more, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	if (pthread_create(&w->thread, NULL, writer_main, w)) {
		trib_free(w);
		return -ENOMEM;
	}
	*ret_writer = w;
	return 0;
}

struct agent_writer *agent_writer_free(struct agent_writer *w)
{
	if (!w) {
		return NULL;
	}
	(void)pthread_mutex_lock(&w->lock);
	w->stop = true;
	(void)pthread_cond_signal(&w->more);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL);
	for (uint32_t i = 0; i < w->count; i++) { /* those that follow */
		entry_free(w->entries[i]);
	}
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->more);
	trib_free(w);
	return NULL;
}

static int add(struct agent_writer *w, const struct agent_write *write, enum stage stage)
{
	struct entry *e = trib_alloc(sizeof(*e));
	int rc = 0;

	if (!e) {
		return -ENOMEM;
	}
	e->writer = w;
	e->write = *write;
	e->stage = stage;
	(void)pthread_mutex_lock(&w->lock);
	if (w->count == ENTRIES_MAX) {
		rc = -ENOBUFS;
	} else {
		w->entries[w->count++] = e;
		w->following += stage == FOLLOWING;
		(void)pthread_cond_signal(&w->more);
	}
	(void)pthread_mutex_unlock(&w->lock);
	if (rc) {
		trib_free(e);
	}
	return rc;
}

int agent_writer_put(struct agent_writer *w, const struct agent_write *write)
{
	return add(w, write, WHOLE);
}

int agent_writer_follow(struct agent_writer *w, const struct agent_write *write)
{
	return add(w, write, FOLLOWING);
}

/* No more follows. */
static void end(struct agent_writer *w, const struct agent_model *model, enum stage stage)
{
	(void)pthread_mutex_lock(&w->lock);
	for (uint32_t i = 0; i < w->count; i++) {
		struct entry *e = w->entries[i];

		if (e->write.model == model && e->stage == FOLLOWING) {
			e->stage = stage;
			w->following--;
			(void)pthread_cond_signal(&w->more);
		}
	}
	(void)pthread_mutex_unlock(&w->lock);
}

void agent_writer_whole(struct agent_writer *w, const struct agent_model *model)
{
	end(w, model, WHOLE);
}

void agent_writer_cancel(struct agent_writer *w, const struct agent_model *model)
{
	end(w, model, CANCELLED);
}
