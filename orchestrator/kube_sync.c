/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/kube_internal.h"
#include "orchestrator/orc_metrics.h"

#define LOOK_MS 1000 /* an object's status is written at most so often */
#define REST_MS 100

void kube_object_free(struct kube_object *object)
{
	json_decref(object->json);
	json_decref(object->status);
	trib_free(object);
}

/* News that are not the echo of a status of ours do not wait. */
static bool is_news(const struct kube_object *object)
{
	return object->changed && object->failures == 0 &&
	       (trib_json_integer(object->json, "metadata.generation", 0) != object->observed ||
		trib_json_at(object->json, "metadata.deletionTimestamp"));
}

/* The next one that is due, and what it says (owned); NULL: none. Forgets those that are gone. */
static struct kube_object *next(struct orc_kube *kube, size_t *from, json_t **ret_json)
{
	uint64_t now = trib_clock_ms();

	for (; *from < kube->count; (*from)++) {
		struct kube_object *object = kube->objects[*from];

		if (object->gone) {
			kube->objects[*from] = kube->objects[--kube->count];
			kube_object_free(object);
			orc_gauge(ORC_M_KUBE_OBJECTS, (int64_t)kube->count);
			(*from)--; /* size_t: wraps, and back */
			continue;
		}
		if (now >= object->next_ms || is_news(object)) {
			object->changed = false;
			*ret_json = json_incref(object->json);
			(*from)++;
			return object;
		}
	}
	return NULL;
}

/* Only this thread frees objects, so that one outlives the lock. */
static void turn(struct orc_kube *kube)
{
	struct kube_object *object;
	json_t *json = NULL;
	size_t from = 0;

	(void)pthread_mutex_lock(&kube->lock);
	while (!kube_over(kube) && (object = next(kube, &from, &json))) {
		(void)pthread_mutex_unlock(&kube->lock);
		if (kube_reconcile(kube, object, json)) {
			object->failures = 0;
			object->next_ms = trib_clock_ms() + LOOK_MS;
		} else {
			object->failures++;
			object->next_ms = trib_clock_ms() + kube_backoff(object->failures);
		}
		json_decref(json);
		(void)pthread_mutex_lock(&kube->lock);
	}
	(void)pthread_mutex_unlock(&kube->lock);
}

/* Another leads: what is known here grows old. */
static void forget(struct orc_kube *kube)
{
	(void)pthread_mutex_lock(&kube->lock);
	while (kube->count) {
		kube_object_free(kube->objects[--kube->count]);
	}
	orc_gauge(ORC_M_KUBE_OBJECTS, 0);
	(void)pthread_mutex_unlock(&kube->lock);
}

static void wait_a_little(struct orc_kube *kube)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += REST_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	(void)pthread_mutex_lock(&kube->lock);
	(void)pthread_cond_timedwait(&kube->more, &kube->lock, &until);
	(void)pthread_mutex_unlock(&kube->lock);
}

void *kube_work(void *arg)
{
	struct orc_kube *kube = arg;

	while (!atomic_load(&kube->stopping)) {
		if (atomic_load(&kube->leads)) {
			turn(kube);
		} else {
			forget(kube);
		}
		wait_a_little(kube);
	}
	return NULL;
}
