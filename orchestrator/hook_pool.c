/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/hook_pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "common/http_client.h"

struct orc_pool {
	struct trib_loop *loop;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct orc_post *posts[ORC_POSTS_MAX];
	size_t count;
	bool stop;
	pthread_t threads[ORC_POST_THREADS];
	size_t thread_count;
};

void orc_post_free(struct orc_post *post)
{
	trib_free(post->url);
	trib_free(post->body);
	trib_free(post);
}

static void send(struct orc_post *post)
{
	const struct trib_client_request request = {
		.method = "POST",
		.url = post->url,
		.body = post->body,
		.size = strlen(post->body),
		.headers = { "Content-Type: application/cloudevents+json; charset=utf-8",
			     post->signature[0] ? post->signature : NULL },
		.timeout_ms = ORC_POST_MS,
		.no_redirect = true,
	};
	struct trib_client_answer answer;

	post->status = trib_client_request(&request, &answer) ? 0 : answer.status;
	trib_client_answer_fini(&answer);
}

static void on_sent(void *arg)
{
	struct orc_post *post = arg;

	post->done(post);
}

static bool stopped(struct orc_pool *pool)
{
	bool stop;

	(void)pthread_mutex_lock(&pool->lock);
	stop = pool->stop;
	(void)pthread_mutex_unlock(&pool->lock);
	return stop;
}

static void *work(void *arg)
{
	struct orc_pool *pool = arg;

	for (;;) {
		struct orc_post *post = NULL;

		(void)pthread_mutex_lock(&pool->lock);
		while (!pool->stop && !pool->count) {
			(void)pthread_cond_wait(&pool->more, &pool->lock);
		}
		if (!pool->stop) {
			post = pool->posts[0];
			memmove(pool->posts, pool->posts + 1,
				--pool->count * sizeof(pool->posts[0]));
		}
		(void)pthread_mutex_unlock(&pool->lock);
		if (!post) {
			return NULL;
		}
		send(post);
		while (trib_loop_wake(pool->loop, on_sent, post)) {
			if (stopped(pool)) {
				orc_post_free(post);
				return NULL;
			}
			(void)poll(NULL, 0, 5);
		}
	}
}

int orc_pool_put(struct orc_pool *pool, struct orc_post *post)
{
	int rc = -ENOBUFS;

	(void)pthread_mutex_lock(&pool->lock);
	if (pool->count < ORC_POSTS_MAX) {
		pool->posts[pool->count++] = post;
		(void)pthread_cond_signal(&pool->more);
		rc = 0;
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return rc;
}

int orc_pool_new(struct trib_loop *loop, struct orc_pool **ret_pool)
{
	struct orc_pool *pool = trib_alloc(sizeof(*pool));

	if (!pool) {
		return -ENOMEM;
	}
	pool->loop = loop;
	(void)pthread_mutex_init(&pool->lock, NULL);
	(void)pthread_cond_init(&pool->more, NULL);
	while (pool->thread_count < ORC_POST_THREADS) {
		if (pthread_create(&pool->threads[pool->thread_count], NULL, work, pool)) {
			(void)orc_pool_free(pool);
			return -ENOMEM;
		}
		pool->thread_count++;
	}
	*ret_pool = pool;
	return 0;
}

struct orc_pool *orc_pool_free(struct orc_pool *pool)
{
	if (!pool) {
		return NULL;
	}
	(void)pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	(void)pthread_cond_broadcast(&pool->more);
	(void)pthread_mutex_unlock(&pool->lock);
	for (size_t i = 0; i < pool->thread_count; i++) {
		(void)pthread_join(pool->threads[i], NULL);
	}
	for (size_t i = 0; i < pool->count; i++) {
		orc_post_free(pool->posts[i]);
	}
	(void)pthread_mutex_destroy(&pool->lock);
	(void)pthread_cond_destroy(&pool->more);
	trib_free(pool);
	return NULL;
}
