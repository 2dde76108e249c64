/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/agent/filer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files.h"
#include "common/log.h"

#define QUEUE_MAX 4096u
#define PIECE     (4u << 20) /* other writes (Redis' log) get their turn in between */
#define PATH_SIZE 512

struct work {
	struct agent_filer *filer;
	struct agent_file file;
};

struct agent_filer {
	struct trib_loop *loop;
	const char *models;
	void (*done)(struct agent_file *file, void *arg);
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock; /* threads of this process only */
	pthread_cond_t more;
	struct work *queue[QUEUE_MAX]; /* owned; a ring */
	uint32_t head;
	uint32_t count;
	struct work *busy; /* NULL: nothing; its `cancelled` is guarded */
	bool stop;
	bool buffered; /* said once that the disk is not written directly */
};

/* 1: not directly. A part of the last block is written whole and cut off afterwards. */
static int write_blocks(int fd, const uint8_t *memory, uint64_t size, bool direct)
{
	uint64_t end = direct ? trib_round_up(size, AGENT_FILE_ALIGN) : size;

	(void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)end); /* where it can */
	for (uint64_t at = 0; at < end;) {
		uint64_t rest = end - at;
		ssize_t n = pwrite(fd, memory + at, rest < PIECE ? (size_t)rest : PIECE, (off_t)at);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (direct && ((n < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) ||
			       (n > 0 && n % AGENT_FILE_ALIGN))) {
			return 1;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		at += (uint64_t)n;
	}
	return ftruncate(fd, (off_t)size) || fsync(fd) ? -errno : 0;
}

int agent_file_write(const char *path, const uint8_t *memory, uint64_t size, bool direct)
{
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
	int fd = open(path, flags | (direct ? O_DIRECT : 0), 0660);
	int rc;

	if (fd < 0) {
		return direct && errno == EINVAL ? 1 : -errno;
	}
	rc = write_blocks(fd, memory, size, direct);
	if (close(fd) && !rc) {
		rc = -errno;
	}
	return rc;
}

/* The name, unless the job was purged: that removes files by their names, after cancelling. */
static int put_into_place(struct agent_filer *f, const struct agent_file *file,
			  const char *temporary, const char *path)
{
	int rc = -ECANCELED;

	(void)pthread_mutex_lock(&f->lock);
	if (!file->cancelled) {
		rc = rename(temporary, path) ? -errno : 0;
	}
	(void)pthread_mutex_unlock(&f->lock);
	return rc;
}

static int make(struct agent_filer *f, const struct agent_file *file, const char *path)
{
	char temporary[PATH_SIZE + 8];
	char dir[PATH_SIZE];
	int rc = 1;

	(void)snprintf(temporary, sizeof(temporary), "%s.tmp", path);
	(void)snprintf(dir, sizeof(dir), "%s/%s", f->models, file->job);
	if (!f->buffered) {
		rc = agent_file_write(temporary, file->memory, file->size, true);
	}
	if (rc == 1 && !f->buffered) {
		f->buffered = true;
		log_warn("filer", "event=no-direct-writes detail=\"files go through the page "
				  "cache: slower, more memory\"");
	}
	if (rc == 1) {
		rc = agent_file_write(temporary, file->memory, file->size, false);
	}
	if (!rc) {
		rc = put_into_place(f, file, temporary, path);
	}
	if (rc) {
		(void)unlink(temporary);
		return rc;
	}
	return trib_directory_sync(dir);
}

static void on_finished(void *arg)
{
	struct work *work = arg;

	work->filer->done(&work->file, work->filer->arg);
	trib_free(work);
}

static bool stopping(struct agent_filer *f)
{
	bool yes;

	(void)pthread_mutex_lock(&f->lock);
	yes = f->stop;
	(void)pthread_mutex_unlock(&f->lock);
	return yes;
}

/* The work goes on to the loop, which frees it. */
static void serve(struct agent_filer *f, struct work *work)
{
	struct agent_file *file = &work->file;
	char path[PATH_SIZE];

	(void)snprintf(path, sizeof(path), "%s/%s/v%u.safetensors", f->models, file->job,
		       file->version);
	if (file->remove) {
		if (unlink(path) && errno != ENOENT) {
			log_warn("filer", "event=not-removed path=%s errno=%d", path, errno);
		}
		trib_free(work);
		return;
	}
	file->rc = make(f, file, path);
	(void)pthread_mutex_lock(&f->lock);
	f->busy = NULL;
	(void)pthread_mutex_unlock(&f->lock);
	while (trib_loop_wake(f->loop, on_finished, work)) {
		if (stopping(f)) { /* the loop does not turn any more */
			trib_free(work);
			return;
		}
		(void)poll(NULL, 0, 10);
	}
}

static void *filer_main(void *arg)
{
	struct agent_filer *f = arg;

	for (;;) {
		struct work *work;

		(void)pthread_mutex_lock(&f->lock);
		while (!f->count && !f->stop) {
			(void)pthread_cond_wait(&f->more, &f->lock);
		}
		if (!f->count) {
			(void)pthread_mutex_unlock(&f->lock);
			return NULL;
		}
		work = f->queue[f->head];
		f->head = (f->head + 1) % QUEUE_MAX;
		f->count--;
		f->busy = work->file.remove ? NULL : work;
		(void)pthread_mutex_unlock(&f->lock);
		serve(f, work);
	}
}

int agent_filer_new(struct trib_loop *loop, const char *models,
		    void (*done)(struct agent_file *file, void *arg), void *arg,
		    struct agent_filer **ret_filer)
{
	struct agent_filer *f = trib_alloc(sizeof(*f));

	if (!f) {
		return -ENOMEM;
	}
	f->loop = loop;
	f->models = models;
	f->done = done;
	f->arg = arg;
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_cond_init(&f->more, NULL);
	if (pthread_create(&f->thread, NULL, filer_main, f)) {
		trib_free(f);
		return -ENOMEM;
	}
	*ret_filer = f;
	return 0;
}

struct agent_filer *agent_filer_free(struct agent_filer *f)
{
	if (!f) {
		return NULL;
	}
	(void)pthread_mutex_lock(&f->lock);
	f->stop = true;
	(void)pthread_cond_signal(&f->more);
	(void)pthread_mutex_unlock(&f->lock);
	(void)pthread_join(f->thread, NULL);
	(void)pthread_mutex_destroy(&f->lock);
	(void)pthread_cond_destroy(&f->more);
	trib_free(f);
	return NULL;
}

int agent_filer_put(struct agent_filer *f, const struct agent_file *file)
{
	struct work *work = trib_alloc(sizeof(*work));
	int rc = 0;

	if (!work) {
		return -ENOMEM;
	}
	work->filer = f;
	work->file = *file;
	(void)pthread_mutex_lock(&f->lock);
	if (f->count == QUEUE_MAX) {
		rc = -ENOBUFS;
	} else {
		f->queue[(f->head + f->count++) % QUEUE_MAX] = work;
		(void)pthread_cond_signal(&f->more);
	}
	(void)pthread_mutex_unlock(&f->lock);
	if (rc) {
		trib_free(work);
	}
	return rc;
}

void agent_filer_cancel(struct agent_filer *f, const char *job)
{
	(void)pthread_mutex_lock(&f->lock);
	if (f->busy && strcmp(f->busy->file.job, job) == 0) {
		f->busy->file.cancelled = true;
	}
	for (uint32_t i = 0; i < f->count; i++) {
		struct agent_file *file = &f->queue[(f->head + i) % QUEUE_MAX]->file;

		if (!file->remove && strcmp(file->job, job) == 0) {
			file->cancelled = true;
		}
	}
	(void)pthread_mutex_unlock(&f->lock);
}
