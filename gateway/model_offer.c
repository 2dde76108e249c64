/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/model_offer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "gateway/model_file.h"

struct gw_offer {
	struct gw_offer *next;
	char job[TRIB_JOB_ID_SIZE];
	uint64_t memory;        /* the agent's name for it */
	bool former;            /* of a connection that is gone */
	struct gw_model *model; /* pinned */
};

static struct gw_offer **bucket_of(struct gw_offers *offers, const char *job)
{
	uint32_t hash = 2166136261u;

	for (const char *c = job; *c; c++) {
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	}
	return &offers->buckets[hash % GW_OFFER_BUCKETS];
}

void gw_offers_init(struct gw_offers *offers)
{
	(void)pthread_mutex_init(&offers->lock, NULL);
}

void gw_offers_fini(struct gw_offers *offers)
{
	for (size_t i = 0; i < GW_OFFER_BUCKETS; i++) {
		struct gw_offer *offer;

		while ((offer = offers->buckets[i])) {
			offers->buckets[i] = offer->next;
			(void)gw_model_put(offer->model);
			trib_free(offer);
		}
	}
	(void)pthread_mutex_destroy(&offers->lock);
}

struct gw_model *gw_offer_find(struct gw_offers *offers, const char *job,
			       const struct gw_version *version)
{
	struct gw_model *found = NULL;

	(void)pthread_mutex_lock(&offers->lock);
	for (struct gw_offer *o = *bucket_of(offers, job); o && !found; o = o->next) {
		const struct gw_version *have = &o->model->version;

		if (have->version == version->version && have->bytes == version->bytes &&
		    strcmp(o->job, job) == 0 &&
		    (!version->digest[0] || strcmp(have->digest, version->digest) == 0)) {
			found = o->model;
			(void)__atomic_add_fetch(&found->refs, 1, __ATOMIC_RELAXED);
		}
	}
	(void)pthread_mutex_unlock(&offers->lock);
	return found;
}

/* Takes those out of the table that are to go when `m` comes: of former connections, and of the
 * same version. */
static struct gw_offer *outdated(struct gw_offers *offers, const struct trib_link_message *m)
{
	struct gw_offer **at = bucket_of(offers, m->job);
	struct gw_offer *out = NULL;

	while (*at) {
		struct gw_offer *o = *at;

		if (strcmp(o->job, m->job) == 0 &&
		    (o->former || o->model->version.version == m->model.version)) {
			*at = o->next;
			o->next = out;
			out = o;
		} else {
			at = &o->next;
		}
	}
	return out;
}

int gw_offer_take(struct gw_offers *offers, const struct trib_link_message *message, int fd)
{
	struct gw_offer *offer = trib_alloc(sizeof(*offer));
	struct gw_offer **bucket;
	struct gw_offer *old;
	int rc = offer ? gw_model_map(fd, message->model.version, message->model.digest,
				      message->model.size, &offer->model)
		       : -ENOMEM;

	(void)close(fd);
	if (rc) {
		trib_free(offer);
		return rc;
	}
	memcpy(offer->job, message->job, sizeof(offer->job));
	offer->memory = message->model.memory;
	(void)pthread_mutex_lock(&offers->lock);
	old = outdated(offers, message);
	bucket = bucket_of(offers, message->job);
	offer->next = *bucket;
	*bucket = offer;
	(void)pthread_mutex_unlock(&offers->lock);
	while (old) {
		struct gw_offer *next = old->next;

		(void)gw_model_put(old->model);
		trib_free(old);
		old = next;
	}
	return 0;
}

/* The same bytes at the same addresses, from now on of the file. */
static int move_to_file(const struct gw_model *model, const char *models, const char *job)
{
	char path[4096];
	struct stat st;
	void *memory = MAP_FAILED;
	int fd;
	int rc = snprintf(path, sizeof(path), "%s/%s/v%u.safetensors", models, job,
			  model->version.version);

	if (rc < 0 || (size_t)rc >= sizeof(path)) {
		return -ENAMETOOLONG;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		return -errno;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == model->size) {
		memory = mmap((void *)(uintptr_t)model->memory, model->size, PROT_READ,
			      MAP_SHARED | MAP_FIXED, fd, 0);
	}
	(void)close(fd);
	return memory == MAP_FAILED ? -EBUSY : 0;
}

int gw_offer_release(struct gw_offers *offers, const char *models,
		     const struct trib_link_message *message)
{
	struct gw_offer **at;
	struct gw_offer *offer = NULL;
	struct gw_model *model;
	int rc = 0;

	(void)pthread_mutex_lock(&offers->lock);
	for (at = bucket_of(offers, message->job); *at; at = &(*at)->next) {
		if ((*at)->memory == message->model.memory && !(*at)->former) {
			offer = *at;
			*at = offer->next;
			break;
		}
	}
	(void)pthread_mutex_unlock(&offers->lock);
	if (!offer) {
		return -EBUSY; /* replaced meanwhile: whether a download goes on is not known */
	}
	model = offer->model;
	if (__atomic_load_n(&model->refs, __ATOMIC_ACQUIRE) > 1) {
		rc = message->result ? -EBUSY : move_to_file(model, models, message->job);
		if (rc) {
			rc = -EBUSY;
			log_info("model", "event=memory-kept job=%s version=%u", message->job,
				 model->version.version);
		}
	}
	if (gw_model_drop(model)) {
		rc = 0; /* ours was the last pin after all */
	}
	trib_free(offer);
	return rc;
}

void gw_offers_down(struct gw_offers *offers)
{
	(void)pthread_mutex_lock(&offers->lock);
	for (size_t i = 0; i < GW_OFFER_BUCKETS; i++) {
		for (struct gw_offer *o = offers->buckets[i]; o; o = o->next) {
			o->former = true;
		}
	}
	(void)pthread_mutex_unlock(&offers->lock);
}
