/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/agent/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/map.h"
#include "shm/segment.h"

#define WANTED_MAX 64u
#define TOUCH      (4u << 20)

struct wanted {
	char job[TRIB_JOB_ID_SIZE];
	uint64_t size;
	int fd; /* owned */
};

struct agent_warmer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct wanted queue[WANTED_MAX];
	uint32_t count;
	struct wanted busy; /* being made; .job "" = none */
	bool stop;
};

/* Is the job gone, or are we to end? */
static bool interrupted(struct agent_warmer *s)
{
	bool yes;

	(void)pthread_mutex_lock(&s->lock);
	yes = s->stop || s->busy.job[0] == '\0';
	(void)pthread_mutex_unlock(&s->lock);
	return yes;
}

/* fallocate would only promise the pages: they are cleared by whoever touches them. */
static void touch(struct agent_warmer *s, const struct wanted *w)
{
	for (uint64_t at = 0; at < w->size && !interrupted(s); at += TOUCH) {
		uint64_t rest = w->size - at;
		size_t size = rest < TOUCH ? (size_t)rest : TOUCH;

		if (trib_map_touch(w->fd, at, size)) {
			return;
		}
	}
}

static void *main_of_thread(void *arg)
{
	struct agent_warmer *s = arg;
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
		touch(s, &w);
		(void)close(w.fd);
		(void)pthread_mutex_lock(&s->lock);
		s->busy.job[0] = '\0';
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

int agent_warmer_new(struct agent_warmer **ret_warmer)
{
	struct agent_warmer *s = trib_alloc(sizeof(*s));

	if (!s) {
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->more, NULL);
	if (pthread_create(&s->thread, NULL, main_of_thread, s)) {
		trib_free(s);
		return -ENOMEM;
	}
	*ret_warmer = s;
	return 0;
}

struct agent_warmer *agent_warmer_free(struct agent_warmer *s)
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
		(void)close(s->queue[i].fd);
	}
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->more);
	trib_free(s);
	return NULL;
}

void agent_warmer_touch(struct agent_warmer *s, const char *job, int fd, uint64_t size)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	bool full;

	if (own < 0) {
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	full = s->count == WANTED_MAX || strlen(job) >= TRIB_JOB_ID_SIZE;
	if (!full) {
		struct wanted *w = &s->queue[s->count++];

		memcpy(w->job, job, strlen(job) + 1);
		w->size = size;
		w->fd = own;
		(void)pthread_cond_signal(&s->more);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (full) {
		(void)close(own);
	}
}

void agent_warmer_forget(struct agent_warmer *s, const char *job)
{
	uint32_t kept = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (strcmp(s->busy.job, job) == 0) {
		s->busy.job[0] = '\0';
	}
	for (uint32_t i = 0; i < s->count; i++) {
		if (strcmp(s->queue[i].job, job) != 0) {
			s->queue[kept++] = s->queue[i];
		} else {
			(void)close(s->queue[i].fd);
		}
	}
	s->count = kept;
	(void)pthread_mutex_unlock(&s->lock);
}
