/* SPDX-License-Identifier: Apache-2.0
 * Finalised models, published by one thread: copied from where the functions put them into a memory
 * no function has, hashed there. What is hashed is what is served and filed, whatever a function
 * does to its own mapping meanwhile.
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

#include "common/crypto.h"
#include "common/id.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "orchestrator/agent/filer.h"
#include "orchestrator/agent/published.h"

#define QUEUE_MAX AGENT_JOBS_MAX /* a job has one model on the way at most */
#define PIECE     (128u << 10)   /* hashed while it is in the cache */

struct agent_writer {
	struct trib_loop *loop;
	void (*done)(struct agent_write *write, void *arg);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* threads of this process only */
	pthread_cond_t more;
	struct agent_write queue[QUEUE_MAX];
	uint32_t count;
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

static int publish(struct agent_write *write)
{
	uint8_t *to = write->model->memory + write->model->head;
	struct trib_hasher *hasher = NULL;
	int rc = trib_hasher_new(&hasher);

	for (uint64_t at = 0; !rc && at < write->bytes; at += PIECE) {
		size_t size = write->bytes - at < PIECE ? (size_t)(write->bytes - at) : PIECE;

		memcpy(to + at, write->out->memory + at, size);
		trib_hasher_update(hasher, to + at, size);
	}
	if (!rc) {
		trib_digest_print(trib_hasher_digest(hasher), write->digest);
	}
	(void)trib_hasher_free(hasher);
	return rc;
}

struct finished {
	struct agent_writer *writer;
	struct agent_write write;
};

static void on_finished(void *arg)
{
	struct finished *f = arg;

	f->writer->done(&f->write, f->writer->arg);
	trib_free(f);
}

static void serve(struct agent_writer *w, const struct agent_write *write)
{
	struct finished *f = NULL;

	while (!(f = trib_alloc(sizeof(*f)))) {
		(void)poll(NULL, 0, 10);
	}
	f->writer = w;
	f->write = *write;
	f->write.rc = publish(&f->write);
	while (trib_loop_wake(w->loop, on_finished, f)) {
		bool stop;

		(void)pthread_mutex_lock(&w->lock);
		stop = w->stop;
		(void)pthread_mutex_unlock(&w->lock);
		if (stop) { /* the loop does not turn any more */
			trib_free(f);
			return;
		}
		(void)poll(NULL, 0, 1);
	}
}

static void *writer_main(void *arg)
{
	struct agent_writer *w = arg;

	for (;;) {
		struct agent_write write;

		(void)pthread_mutex_lock(&w->lock);
		while (!w->count && !w->stop) {
			(void)pthread_cond_wait(&w->more, &w->lock);
		}
		if (!w->count) {
			(void)pthread_mutex_unlock(&w->lock);
			return NULL;
		}
		write = w->queue[0];
		w->count--;
		memmove(&w->queue[0], &w->queue[1], w->count * sizeof(w->queue[0]));
		(void)pthread_mutex_unlock(&w->lock);
		serve(w, &write);
	}
}

int agent_writer_new(struct trib_loop *loop, void (*done)(struct agent_write *write, void *arg),
		     void *arg, struct agent_writer **ret_writer)
{
	struct agent_writer *w = trib_alloc(sizeof(*w));

	if (!w) {
		return -ENOMEM;
	}
	w->loop = loop;
	w->done = done;
	w->arg = arg;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->more, NULL);
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
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->more);
	trib_free(w);
	return NULL;
}

int agent_writer_put(struct agent_writer *w, const struct agent_write *write)
{
	int rc = 0;

	(void)pthread_mutex_lock(&w->lock);
	if (w->count == QUEUE_MAX) {
		rc = -ENOBUFS;
	} else {
		w->queue[w->count++] = *write;
		(void)pthread_cond_signal(&w->more);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return rc;
}
