/* SPDX-License-Identifier: Apache-2.0
 * Model files, written by one thread: header of v0, data from the top's out memfd through a private
 * buffer (what is hashed is what is written, whatever a function does to its mapping meanwhile),
 * rename, then report, then fsync: a killed process loses nothing, and the round does not wait for
 * the disk.
 */
#include "orchestrator/agent/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/id.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "orchestrator/agent/spare.h"

#define QUEUE_MAX   AGENT_JOBS_MAX /* a job has one model on the way at most */
#define BUFFER_SIZE (256u << 10)
#define SETTLE_MS   200

struct agent_writer {
	struct trib_loop *loop;
	const char *models;
	void (*done)(struct agent_write *write, void *arg);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* threads of this process only */
	pthread_cond_t more;
	struct agent_write queue[QUEUE_MAX];
	uint32_t count;
	bool stop;
	uint8_t *buffer;
	struct agent_spares *spares;
};

static void model_path(const char *models, const char *job, uint32_t version, const char *suffix,
		       char *out, size_t size)
{
	(void)snprintf(out, size, "%s/%s/v%u.safetensors%s", models, job, version, suffix);
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
	char path[512];
	int fd;

	model_path(agent->options.models, job, version, "", path, sizeof(path));
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

void agent_models_purge(const struct agent *agent, const char *job)
{
	char path[512];
	struct trib_id id;
	struct dirent *entry;
	DIR *directory;
	uint32_t removed = 0;

	if (trib_id_parse("job_", job, &id)) {
		return;
	}
	(void)snprintf(path, sizeof(path), "%s/%s", agent->options.models, job);
	directory = opendir(path);
	if (!directory) {
		return;
	}
	while ((entry = readdir(directory)) != NULL) {
		if (((entry->d_name[0] == 'v' && strstr(entry->d_name, ".safetensors")) ||
		     strcmp(entry->d_name, "spare.tmp") == 0) &&
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

static int write_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Copies from..to in pieces; hashes them when hasher is given. */
static int copy(struct agent_writer *w, int from, uint64_t offset, uint64_t size, int to,
		struct trib_hasher *hasher)
{
	while (size) {
		size_t want = size < BUFFER_SIZE ? (size_t)size : BUFFER_SIZE;
		ssize_t n = pread(from, w->buffer, want, (off_t)offset);
		int rc;

		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		if (hasher) {
			trib_hasher_update(hasher, w->buffer, (size_t)n);
		}
		rc = write_all(to, w->buffer, (size_t)n);
		if (rc) {
			return rc;
		}
		offset += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}

static int write_file(struct agent_writer *w, struct agent_write *write, int v0, int out)
{
	struct trib_hasher *hasher = NULL;
	uint64_t head = agent_model_data_offset(v0);
	int rc = head ? trib_hasher_new(&hasher) : -EBADMSG;

	if (!rc) {
		rc = copy(w, v0, 0, head, out, NULL);
	}
	if (!rc) {
		rc = copy(w, write->out_fd, 0, write->bytes, out, hasher);
	}
	if (!rc) {
		trib_digest_print(trib_hasher_digest(hasher), write->digest);
	}
	(void)trib_hasher_free(hasher);
	return rc;
}

/* Leaves the file open in *ret_fd for the fsync that follows the report. */
static int write_model(struct agent_writer *w, struct agent_write *write, int *ret_fd)
{
	char path[512];
	char temporary[512];
	uint64_t size;
	int v0;
	int out = -1;
	int rc;

	*ret_fd = -1;
	model_path(w->models, write->job, 0, "", path, sizeof(path));
	v0 = open(path, O_RDONLY | O_CLOEXEC);
	if (v0 < 0) {
		return -errno;
	}
	model_path(w->models, write->job, write->version, ".tmp", temporary, sizeof(temporary));
	model_path(w->models, write->job, write->version, "", path, sizeof(path));
	size = agent_model_data_offset(v0) + write->bytes;
	if (agent_spares_take(w->spares, write->job, size, temporary, &out)) {
		out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0660);
	}
	if (out < 0) {
		rc = -errno;
		(void)close(v0);
		return rc;
	}
	rc = write_file(w, write, v0, out);
	(void)close(v0);
	if (!rc && rename(temporary, path)) {
		rc = -errno;
	}
	if (rc) {
		(void)close(out);
		(void)unlink(temporary);
		return rc;
	}
	agent_spares_want(w->spares, write->job, size);
	*ret_fd = out;
	return 0;
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

/* The file's fd, for the fsync to come, or -1. */
static int serve(struct agent_writer *w, struct agent_write *write)
{
	struct finished *f;
	int fd = -1;

	if (write->remove) {
		char path[512];

		model_path(w->models, write->job, write->version, "", path, sizeof(path));
		if (unlink(path) && errno != ENOENT) {
			log_warn("writer", "event=not-removed path=%s errno=%d", path, errno);
		}
		return -1;
	}
	f = trib_alloc(sizeof(*f));

	write->rc = write_model(w, write, &fd);
	(void)close(write->out_fd);
	if (f) {
		f->writer = w;
		f->write = *write;
		if (trib_loop_wake(w->loop, on_finished, f)) {
			trib_free(f);
		}
	}
	return fd;
}

static int settle(int fd)
{
	if (fd >= 0) {
		if (fsync(fd)) {
			log_warn("writer", "event=fsync-failed errno=%d", errno);
		}
		(void)close(fd);
	}
	return -1;
}

/* Waits for work; with a file to be settled no longer than until Redis, whose own fsync of the
 * report would queue behind that of a whole model (15 ms), has published. Lock held. */
static void wait_for_work(struct agent_writer *w, int unsettled)
{
	struct timespec until;

	if (unsettled < 0) {
		(void)pthread_cond_wait(&w->more, &w->lock);
		return;
	}
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += SETTLE_MS * 1000000l;
	if (until.tv_nsec >= 1000000000l) {
		until.tv_nsec -= 1000000000l;
		until.tv_sec++;
	}
	(void)pthread_cond_timedwait(&w->more, &w->lock, &until);
}

static void *writer_main(void *arg)
{
	struct agent_writer *w = arg;
	int unsettled = -1;

	for (;;) {
		struct agent_write write = { .rc = -ENOENT };
		bool have;
		bool stop;

		(void)pthread_mutex_lock(&w->lock);
		if (!w->count && !w->stop) {
			wait_for_work(w, unsettled);
		}
		stop = w->stop;
		have = w->count > 0;
		if (have) {
			write = w->queue[0];
			w->count--;
			memmove(&w->queue[0], &w->queue[1], w->count * sizeof(w->queue[0]));
		}
		(void)pthread_mutex_unlock(&w->lock);
		if (have) {
			int fd = serve(w, &write);

			(void)settle(unsettled);
			unsettled = fd;
			continue;
		}
		unsettled = settle(unsettled);
		if (stop) {
			return NULL;
		}
	}
}

int agent_writer_new(struct trib_loop *loop, const char *models,
		     void (*done)(struct agent_write *write, void *arg), void *arg,
		     struct agent_writer **ret_writer)
{
	struct agent_writer *w = trib_alloc(sizeof(*w));

	if (!w) {
		return -ENOMEM;
	}
	w->loop = loop;
	w->models = models;
	w->done = done;
	w->arg = arg;
	w->buffer = trib_alloc(BUFFER_SIZE);
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->more, NULL);
	if (!w->buffer || agent_spares_new(models, &w->spares) ||
	    pthread_create(&w->thread, NULL, writer_main, w)) {
		w->spares = agent_spares_free(w->spares);
		trib_free(w->buffer);
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
	w->spares = agent_spares_free(w->spares);
	trib_free(w->buffer);
	trib_free(w);
	return NULL;
}

struct agent_spares *agent_writer_spares(struct agent_writer *w)
{
	return w->spares;
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
