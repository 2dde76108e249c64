/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "orchestrator/kube_internal.h"
#include "orchestrator/orc_metrics.h"

#define PAGE     10 /* objects per answer: of up to 3 MiB each, in memory at once */
#define LINE_MAX (4u << 20)
#define PAGES    (KUBE_OBJECTS_MAX)
#define WATCH_S  60 /* short: a server that went without a word is noticed */

struct watch {
	struct orc_kube *kube;
	char version[64]; /* resourceVersion to go on from; "" = list */
	char *line;
	size_t size;
	bool failed;
	bool told; /* an event of this watch was good: not the next failure in a row */
};

/* ---- what is let in ---- */

/* Names go into paths: what no API server gives is not taken. */
static bool word(const char *text, size_t max, const char *allowed)
{
	size_t size = text ? strlen(text) : 0;

	return size && size < max && strspn(text, allowed) == size && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static bool version_valid(const char *text)
{
	return word(text, 64, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");
}

static struct kube_object *find(struct orc_kube *kube, const char *uid)
{
	for (size_t i = 0; i < kube->count; i++) {
		if (strcmp(kube->objects[i]->uid, uid) == 0) {
			return kube->objects[i];
		}
	}
	return NULL;
}

static struct kube_object *add(struct orc_kube *kube, const json_t *json, const char *uid)
{
	struct kube_object *object;

	if (kube->count == KUBE_OBJECTS_MAX) {
		orc_count(ORC_M_KUBE_OVERFLOW);
		return NULL;
	}
	object = trib_alloc(sizeof(*object));
	if (!object) {
		orc_count(ORC_M_KUBE_OVERFLOW);
		return NULL;
	}
	(void)snprintf(object->uid, sizeof(object->uid), "%s", uid);
	(void)snprintf(object->space, sizeof(object->space), "%s",
		       trib_json_text(json, "metadata.namespace", ""));
	(void)snprintf(object->name, sizeof(object->name), "%s",
		       trib_json_text(json, "metadata.name", ""));
	object->observed = -1;
	kube->objects[kube->count++] = object;
	return object;
}

/* An object as it is now, or was; slim. */
static void take(struct orc_kube *kube, json_t *json, bool gone)
{
	static const char small[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	const char *uid = trib_json_text(json, "metadata.uid", "");
	struct kube_object *object;

	if (!word(uid, 64, "0123456789abcdefABCDEF-") ||
	    !word(trib_json_text(json, "metadata.namespace", ""), 64, small) ||
	    !word(trib_json_text(json, "metadata.name", ""), 254, small) ||
	    (kube->scope &&
	     strcmp(kube->scope, trib_json_text(json, "metadata.namespace", "")) != 0)) {
		orc_count(ORC_M_KUBE_ODD);
		return;
	}
	(void)pthread_mutex_lock(&kube->lock);
	object = find(kube, uid);
	if (!object && !gone) {
		object = add(kube, json, uid);
	}
	if (object) {
		json_decref(object->json);
		object->json = json_incref(json);
		object->changed = true;
		object->seen = true;
		object->gone = gone;
	}
	(void)pthread_cond_signal(&kube->more);
	orc_gauge(ORC_M_KUBE_OBJECTS, (int64_t)kube->count);
	(void)pthread_mutex_unlock(&kube->lock);
}

/* Before a listing: nothing is seen. After it: what was not is gone. */
static void sweep(struct orc_kube *kube, bool after)
{
	(void)pthread_mutex_lock(&kube->lock);
	for (size_t i = 0; i < kube->count; i++) {
		if (after && !kube->objects[i]->seen) {
			kube->objects[i]->gone = true;
		}
		kube->objects[i]->seen = false;
	}
	(void)pthread_mutex_unlock(&kube->lock);
}

/* ---- list ---- */

static int path_of(const struct orc_kube *kube, const char *query, char *out, size_t size)
{
	int length =
		snprintf(out, size, "/apis/" KUBE_API "%s%s/aggregationjobs?%s",
			 kube->scope ? "/namespaces/" : "", kube->scope ? kube->scope : "", query);

	return length < (int)size ? 0 : -ENAMETOOLONG;
}

/* Characters of a page's token that are not safe in a query, escaped. */
static int escape(const char *text, char *out, size_t room)
{
	size_t used = 0;

	for (; *text; text++) {
		if (used + 4 > room) {
			return -ENAMETOOLONG;
		}
		used += (size_t)snprintf(out + used, room - used, "%%%02X", (unsigned char)*text);
	}
	out[used] = '\0';
	return 0;
}

struct page {
	struct orc_kube *kube;
	json_t *meta;
	bool listed;
};

static void on_item(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	struct page *page = arg;
	json_t *object = kube_slim(value, size);

	(void)key;
	(void)key_size;
	if (object) {
		take(page->kube, object, false);
		json_decref(object);
	} else {
		orc_count(ORC_M_KUBE_ODD);
	}
}

static void on_part(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	struct page *page = arg;
	char reason[160];

	if (kube_is(key, key_size, "items")) {
		page->listed = kube_elements(value, size, on_item, page);
	} else if (kube_is(key, key_size, "metadata") && !page->meta &&
		   trib_json_parse(value, size, &page->meta, reason)) {
		page->meta = NULL;
	}
}

static bool list_page(struct watch *w, char next[KUBE_URL_SIZE])
{
	char path[KUBE_URL_SIZE];
	char query[KUBE_URL_SIZE];
	struct kube_call call = { .method = "GET", .path = path, .keep = true };
	struct page page = { .kube = w->kube };
	bool ok;

	(void)snprintf(query, sizeof(query), "limit=%d%s%s", PAGE, *next ? "&continue=" : "", next);
	if (path_of(w->kube, query, path, sizeof(path))) {
		return false;
	}
	kube_server(w->kube, &call);
	ok = call.status == 200 && kube_members(call.raw.body, call.raw.size, on_part, &page) &&
	     page.listed && version_valid(trib_json_text(page.meta, "resourceVersion", ""));
	if (ok) {
		(void)snprintf(w->version, sizeof(w->version), "%s",
			       trib_json_text(page.meta, "resourceVersion", ""));
		ok = escape(trib_json_text(page.meta, "continue", ""), next, KUBE_URL_SIZE - 256) ==
		     0;
	} else if (!kube_over(w->kube)) {
		log_warn("kube", "not-listed status=%ld error=%s", call.status,
			 call.status ? trib_json_text(call.answer, "message", "not understood")
				     : call.error);
	}
	json_decref(page.meta);
	kube_call_fini(&call);
	return ok;
}

static bool list(struct watch *w)
{
	char next[KUBE_URL_SIZE] = "";
	size_t pages = 0;

	orc_count(ORC_M_KUBE_LISTS);
	sweep(w->kube, false);
	do {
		if (!list_page(w, next)) {
			w->version[0] = '\0';
			return false;
		}
	} while (*next && ++pages < PAGES);
	if (*next) {
		orc_count(ORC_M_KUBE_OVERFLOW); /* what was not reached is not gone */
	} else {
		sweep(w->kube, true);
	}
	return true;
}

/* ---- watch ---- */

struct event {
	char type[16];
	json_t *object;
};

static void on_field(const char *key, size_t key_size, const char *value, size_t size, void *arg)
{
	struct event *event = arg;

	if (kube_is(key, key_size, "type") && size > 2 && size - 2 < sizeof(event->type)) {
		(void)snprintf(event->type, sizeof(event->type), "%.*s", (int)size - 2, value + 1);
	} else if (kube_is(key, key_size, "object") && !event->object) {
		event->object = kube_slim(value, size);
	}
}

/* One line: {type, object}. False: list again. */
static bool event(struct watch *w)
{
	struct event e = { 0 };
	const char *type = e.type;
	const char *version;
	bool ok = true;

	if (w->size == 0) {
		return true;
	}
	if (!kube_members(w->line, w->size, on_field, &e)) {
		orc_count(ORC_M_KUBE_ODD);
		json_decref(e.object);
		return false;
	}
	version = trib_json_text(e.object, "metadata.resourceVersion", "");
	if (strcmp(type, "ERROR") == 0) { /* 410: too old a version, or whatever else */
		ok = false;
	} else if (!version_valid(version)) {
		orc_count(ORC_M_KUBE_ODD);
		ok = false;
	} else if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0 ||
		   strcmp(type, "DELETED") == 0) {
		take(w->kube, e.object, *type == 'D');
	}
	w->told |= ok;
	if (ok) { /* a BOOKMARK moves it, too */
		(void)snprintf(w->version, sizeof(w->version), "%s", version);
	}
	json_decref(e.object);
	return ok;
}

static bool on_data(const char *data, size_t size, void *arg)
{
	struct watch *w = arg;

	for (size_t i = 0; i < size && !w->failed; i++) {
		if (data[i] == '\n') {
			w->failed = !event(w);
			w->size = 0;
		} else if (w->size == LINE_MAX) {
			orc_count(ORC_M_KUBE_ODD);
			w->failed = true;
		} else {
			w->line[w->size++] = data[i];
		}
	}
	return !w->failed;
}

static bool on_tick(void *arg)
{
	struct watch *w = arg;

	return kube_over(w->kube);
}

/* Until the stream ends. False: something is wrong, wait a little. */
static bool watch(struct watch *w)
{
	char url[KUBE_URL_SIZE];
	char query[256];
	char path[KUBE_URL_SIZE - 512];
	char *token = kube_token(w->kube);
	struct trib_client_request request = { .method = "GET",
					       .url = url,
					       .token = token,
					       .on_data = on_data,
					       .on_tick = on_tick,
					       .arg = w,
					       .no_redirect = true,
					       .timeout_ms = (WATCH_S + 30) * 1000L,
					       .cacert = w->kube->ca };
	struct trib_client_answer answer = { 0 };
	int rc;

	(void)snprintf(query, sizeof(query),
		       "watch=1&allowWatchBookmarks=true&timeoutSeconds=%d&resourceVersion=%s",
		       WATCH_S, w->version);
	rc = path_of(w->kube, query, path, sizeof(path));
	if (rc == 0) {
		(void)snprintf(url, sizeof(url), "%s%s", w->kube->base, path);
		w->size = 0;
		w->failed = false;
		w->told = false;
		orc_count(ORC_M_KUBE_WATCHES);
		rc = trib_client_request(&request, &answer);
	}
	if (w->failed || (answer.status && answer.status != 200)) {
		w->version[0] = '\0'; /* 410 in the stream or as an answer, a refusal: list */
	}
	rc = rc || w->failed || answer.status != 200 ? -1 : 0;
	trib_client_answer_fini(&answer);
	trib_free(token);
	return rc == 0;
}

void *kube_watch(void *arg)
{
	struct watch w = { .kube = arg, .line = trib_alloc(LINE_MAX) };
	unsigned failures = 0;

	while (w.line && !atomic_load(&w.kube->stopping)) {
		if (!atomic_load(&w.kube->leads)) {
			w.version[0] = '\0'; /* what the other leader saw is not known here */
			failures = 0;
			kube_rest(w.kube, 100);
			continue;
		}
		if ((w.version[0] || list(&w)) && watch(&w)) {
			failures = 0;
			kube_rest(w.kube, 50); /* a server that ends streams at once */
		} else if (!kube_over(w.kube)) {
			orc_count(ORC_M_KUBE_FAILURES);
			failures = w.told ? 1 : failures + 1;
			w.told = false;
			kube_rest(w.kube, kube_backoff(failures));
		}
	}
	trib_free(w.line);
	return NULL;
}
