/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/agent/spare.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/segment.h"

#define WANTED_MAX 64u
#define PIECE      (1u << 20)
#define TOUCH      (4u << 20)
#define PATH_SIZE  512

struct wanted {
	char job[TRIB_JOB_ID_SIZE];
	uint64_t size;
	int fd; /* -1: a model file; else memory to be touched, owned */
};

struct agent_spares {
	const char *models;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct wanted queue[WANTED_MAX];
	uint32_t count;
	struct wanted busy; /* being made; .job "" = none */
	bool stop;
	uint8_t *scratch;
};

static void spare_path(const struct agent_spares *s, const char *job, char out[PATH_SIZE])
{
	(void)snprintf(out, PATH_SIZE, "%s/%s/spare.tmp", s->models, job);
}

/* Has somebody come for it, or for us? */
static bool interrupted(struct agent_spares *s)
{
	bool yes;

	(void)pthread_mutex_lock(&s->lock);
	yes = s->stop || s->busy.job[0] == '\0';
	(void)pthread_mutex_unlock(&s->lock);
	return yes;
}

/* Under the lock, so that what was taken meanwhile is not cut. -1: not now. */
static int begin(struct agent_spares *s, const struct wanted *w)
{
	char path[PATH_SIZE];
	int fd = -1;

	spare_path(s, w->job, path);
	(void)pthread_mutex_lock(&s->lock);
	if (!s->stop && s->busy.job[0]) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
	}
	if (fd >= 0 && ftruncate(fd, (off_t)w->size)) {
		(void)close(fd);
		fd = -1;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (fd >= 0) {
		(void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)w->size); /* where it can */
	}
	return fd;
}

/* Reading a hole fills the cache with clean pages: nothing is ever written back for a spare. */
static void make(struct agent_spares *s, const struct wanted *w)
{
	uint64_t at = 0;
	int fd = begin(s, w);

	while (fd >= 0 && at < w->size && !interrupted(s)) {
		ssize_t n = pread(fd, s->scratch, PIECE, (off_t)at);

		if (n <= 0) {
			break;
		}
		at += (uint64_t)n;
	}
	if (fd >= 0) {
		(void)close(fd);
	}
}

/* fallocate would only promise the pages: they are cleared by whoever touches them. */
static void touch(struct agent_spares *s, const struct wanted *w)
{
	for (uint64_t at = 0; at < w->size && !interrupted(s); at += TOUCH) {
		uint64_t rest = w->size - at;
		size_t size = rest < TOUCH ? (size_t)rest : TOUCH;
		void *memory =
			mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, (off_t)at);

		if (memory == MAP_FAILED) {
			return;
		}
		(void)madvise(memory, size, MADV_POPULATE_WRITE);
		(void)munmap(memory, size);
	}
}

static void *main_of_thread(void *arg)
{
	struct agent_spares *s = arg;
	const struct sched_param none = { 0 };

	(void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
	(void)pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		struct wanted w;

		if (!s->count) {
			(void)pthread_cond_wait(&s->more, &s->lock);
			continue;
		}
		w = s->queue[0];
		s->busy = w;
		s->count--;
		memmove(&s->queue[0], &s->queue[1], s->count * sizeof(s->queue[0]));
		(void)pthread_mutex_unlock(&s->lock);
		if (w.fd < 0) {
			make(s, &w);
		} else {
			touch(s, &w);
			(void)close(w.fd);
		}
		(void)pthread_mutex_lock(&s->lock);
		s->busy.job[0] = '\0';
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

int agent_spares_new(const char *models, struct agent_spares **ret_spares)
{
	struct agent_spares *s = trib_alloc(sizeof(*s));

	if (!s) {
		return -ENOMEM;
	}
	s->models = models;
	s->scratch = trib_alloc(PIECE);
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->more, NULL);
	if (!s->scratch || pthread_create(&s->thread, NULL, main_of_thread, s)) {
		trib_free(s->scratch);
		trib_free(s);
		return -ENOMEM;
	}
	*ret_spares = s;
	return 0;
}

struct agent_spares *agent_spares_free(struct agent_spares *s)
{
	if (!s) {
		return NULL;
	}
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	(void)pthread_cond_signal(&s->more);
	(void)pthread_mutex_unlock(&s->lock);
	(void)pthread_join(s->thread, NULL);
	for (uint32_t i = 0; i < s->count; i++) {
		if (s->queue[i].fd >= 0) {
			(void)close(s->queue[i].fd);
		}
	}
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->more);
	trib_free(s->scratch);
	trib_free(s);
	return NULL;
}

static void enter(struct agent_spares *s, const char *job, uint64_t size, int fd)
{
	bool full;

	(void)pthread_mutex_lock(&s->lock);
	full = s->count == WANTED_MAX || strlen(job) >= TRIB_JOB_ID_SIZE;
	if (!full) {
		struct wanted *w = &s->queue[s->count++];

		memcpy(w->job, job, strlen(job) + 1);
		w->size = size;
		w->fd = fd;
		(void)pthread_cond_signal(&s->more);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (full && fd >= 0) {
		(void)close(fd);
	}
}

void agent_spares_want(struct agent_spares *s, const char *job, uint64_t size)
{
	enter(s, job, size, -1);
}

void agent_spares_touch(struct agent_spares *s, const char *job, int fd, uint64_t size)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (own >= 0) {
		enter(s, job, size, own);
	}
}

void agent_spares_forget(struct agent_spares *s, const char *job)
{
	uint32_t kept = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (strcmp(s->busy.job, job) == 0) {
		s->busy.job[0] = '\0';
	}
	for (uint32_t i = 0; i < s->count; i++) {
		if (strcmp(s->queue[i].job, job) != 0) {
			s->queue[kept++] = s->queue[i];
		} else if (s->queue[i].fd >= 0) {
			(void)close(s->queue[i].fd);
		}
	}
	s->count = kept;
	(void)pthread_mutex_unlock(&s->lock);
}

int agent_spares_take(struct agent_spares *s, const char *job, uint64_t size, const char *path,
		      int *ret_fd)
{
	char spare[PATH_SIZE];
	int rc;
	int fd;

	(void)pthread_mutex_lock(&s->lock);
	if (strcmp(s->busy.job, job) == 0 && s->busy.fd < 0) {
		s->busy.job[0] = '\0'; /* its maker stops at the next piece and holds no name */
	}
	spare_path(s, job, spare);
	rc = rename(spare, path) ? -errno : 0;
	(void)pthread_mutex_unlock(&s->lock);
	if (rc) {
		return rc;
	}
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	if (ftruncate(fd, (off_t)size)) {
		rc = -errno;
		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}
