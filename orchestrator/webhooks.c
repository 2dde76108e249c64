/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/webhooks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/log.h"
#include "orchestrator/hook_pool.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_hooks.h"

#define TICK_MS    250
#define POLL_MS    1000 /* not every event wakes */
#define REFRESH_MS 10000
#define AGAIN_MS   500
#define AGAIN_MAX  60000

struct hook {
	LIST_ENTRY(hook) entry;
	struct orc_hooks *hooks;
	char job[TRIB_ID_TEXT_SIZE];
	unsigned index; /* in spec.notifications */
	json_t *rule;   /* {url, events, secret} */
	struct orc_event_id cursor;
	struct orc_event_id sending;
	struct orc_post *post; /* under way */
	bool busy;             /* reading, sending or writing down */
	bool dirty;            /* there may be events */
	bool seen;             /* in the last list */
	unsigned tries;
	uint64_t due_ms;
	uint64_t read_ms;
};
LIST_HEAD(hook_list, hook);

struct orc_hooks {
	struct orc_store *store;
	struct orc_leader *leader;
	struct trib_timer *tick;
	struct orc_pool *pool;
	struct hook_list list;
	size_t count;
	bool listing;
	bool refresh; /* at the next tick */
	uint64_t listed_ms;
	bool freeing;
};

static void step(struct hook *hook);

/* ---- life ---- */

static void hook_free(struct hook *hook)
{
	LIST_REMOVE(hook, entry);
	hook->hooks->count--;
	orc_gauge(ORC_M_HOOKS_LIVE, (int64_t)hook->hooks->count);
	if (hook->post) {
		orc_post_free(hook->post);
	}
	json_decref(hook->rule);
	trib_free(hook);
}

/* What was under way is over. */
static void rest(struct hook *hook)
{
	hook->busy = false;
	if (!hook->seen && !hook->hooks->freeing) {
		hook_free(hook);
	}
}

/* ---- one event to one receiver ---- */

static void on_noted(const struct orc_reply *reply, void *arg)
{
	struct hook *hook = arg;

	if (reply->word == ORC_FENCED) {
		orc_leader_fenced(hook->hooks->leader);
	}
	if (reply->word == ORC_OK) { /* else it is sent again: at least once */
		hook->cursor = hook->sending;
		hook->tries = 0;
	} else {
		hook->due_ms = trib_clock_ms() + AGAIN_MS;
	}
	hook->dirty = true;
	hook->busy = false;
	if (hook->seen && !hook->hooks->freeing) {
		step(hook); /* the next one at once */
	} else {
		rest(hook);
	}
}

/* Taken, or given up: not sent again. */
static void note(struct hook *hook)
{
	if (orc_store_hook_sent(hook->hooks->store, orc_leader_token(hook->hooks->leader),
				hook->job, hook->index, &hook->sending,
				(struct orc_then){ on_noted, hook })) {
		hook->due_ms = trib_clock_ms() + AGAIN_MS;
		hook->dirty = true;
		rest(hook);
	}
}

static void later(struct hook *hook)
{
	unsigned shift = hook->tries < 7 ? hook->tries : 7;
	uint64_t wait = (uint64_t)AGAIN_MS << shift;

	wait = wait < AGAIN_MAX ? wait : AGAIN_MAX;
	hook->due_ms = trib_clock_ms() + wait / 2 + (uint64_t)random() % wait;
	hook->dirty = true;
	hook->tries++;
}

static void on_posted(struct orc_post *post)
{
	struct hook *hook = post->arg;
	long status = post->status;

	hook->post = NULL;
	orc_post_free(post);
	if (status >= 200 && status < 300) {
		orc_count(ORC_M_HOOK_SENT);
		note(hook);
		return;
	}
	orc_count(ORC_M_HOOK_FAILED);
	later(hook);
	if (hook->tries < ORC_HOOK_TRIES) {
		rest(hook);
		return;
	}
	orc_count(ORC_M_HOOK_GIVEN_UP);
	log_warn("webhooks", "given-up job=%s hook=%u event=%llu-%llu status=%ld", hook->job,
		 hook->index, (unsigned long long)hook->sending.ms,
		 (unsigned long long)hook->sending.seq, status);
	note(hook);
}

static char *cloud_event(const struct hook *hook, const struct orc_event *event)
{
	char when[TRIB_RFC3339_SIZE];
	char id[48];
	char source[64];
	char type[96];
	char *text;
	json_t *json;

	trib_rfc3339(event->id.ms, when);
	(void)snprintf(id, sizeof(id), "%llu-%llu", (unsigned long long)event->id.ms,
		       (unsigned long long)event->id.seq);
	(void)snprintf(source, sizeof(source), "/v1/jobs/%s", hook->job);
	(void)snprintf(type, sizeof(type), "dev.tributary.%.64s", orc_event_type(event));
	json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "specversion", "1.0", "id", id,
			 "source", source, "type", type, "time", when, "datacontenttype",
			 "application/json", "data", orc_event_json(event));
	text = json ? trib_json_print(json) : NULL;
	json_decref(json);
	return text;
}

static int sign(struct orc_post *post, const char *secret)
{
	uint8_t mac[TRIB_MAC_SIZE];
	size_t used;
	int rc = trib_mac(secret, strlen(secret), post->body, strlen(post->body), mac);

	used = (size_t)snprintf(post->signature, sizeof(post->signature),
				"Tributary-Signature: sha256=");
	for (size_t i = 0; i < sizeof(mac); i++) {
		used += (size_t)snprintf(post->signature + used, sizeof(post->signature) - used,
					 "%02x", mac[i]);
	}
	return rc;
}

/* 0 or -errno: nothing is under way. */
static int post_event(struct hook *hook, const struct orc_event *event)
{
	const char *secret = trib_json_text(hook->rule, "secret", "");
	struct orc_post *post = trib_alloc(sizeof(*post));
	int rc = -ENOMEM;

	if (!post) {
		return rc;
	}
	post->url = trib_strdup(trib_json_text(hook->rule, "url", ""));
	post->body = cloud_event(hook, event);
	post->done = on_posted;
	post->arg = hook;
	if (post->url && post->body) {
		rc = *secret ? sign(post, secret) : 0;
	}
	hook->sending = event->id;
	hook->post = post;
	rc = rc ? rc : orc_pool_put(hook->hooks->pool, post);
	if (rc) {
		orc_count(ORC_M_HOOK_DELAYED);
		hook->post = NULL;
		orc_post_free(post);
	}
	return rc;
}

static void on_events(const struct orc_events *events, void *arg)
{
	struct hook *hook = arg;
	const json_t *wanted = json_object_get(hook->rule, "events");

	hook->dirty = events->word != ORC_OK || events->more;
	if (!hook->hooks->freeing && hook->seen && orc_leader_valid(hook->hooks->leader)) {
		for (size_t i = 0; events->word == ORC_OK && i < events->count; i++) {
			const struct orc_event *event = &events->items[i];

			if (!orc_hook_wants(wanted, orc_event_type(event))) {
				hook->cursor = event->id;
				continue;
			}
			hook->dirty = true;
			if (post_event(hook, event) == 0) {
				return;
			}
			hook->due_ms = trib_clock_ms() + AGAIN_MS;
			break;
		}
	}
	rest(hook);
}

static void step(struct hook *hook)
{
	struct orc_source source = { .after = hook->cursor };
	uint64_t now = trib_clock_ms();

	if (hook->busy || now < hook->due_ms || !orc_leader_valid(hook->hooks->leader) ||
	    (!hook->dirty && now - hook->read_ms < POLL_MS) ||
	    trib_copy(source.job, sizeof(source.job), hook->job)) {
		return;
	}
	hook->read_ms = now;
	hook->busy = orc_store_events(hook->hooks->store, &source, 1, on_events, hook) == 0;
}

/* ---- who is to be told ---- */

static struct hook *find(struct orc_hooks *hooks, const char *job, unsigned index)
{
	struct hook *hook;

	LIST_FOREACH(hook, &hooks->list, entry) {
		if (hook->index == index && strcmp(hook->job, job) == 0) {
			return hook;
		}
	}
	return NULL;
}

static void learn(struct orc_hooks *hooks, const char *job, unsigned index, json_t *rule,
		  const char *cursor)
{
	struct hook *hook = find(hooks, job, index);

	if (!hook) {
		hook = hooks->count < ORC_HOOKS_LIVE_MAX ? trib_alloc(sizeof(*hook)) : NULL;
		if (!hook || trib_copy(hook->job, sizeof(hook->job), job) ||
		    orc_event_id_parse(cursor, &hook->cursor)) {
			orc_count(ORC_M_HOOKS_OVERFLOW);
			trib_free(hook);
			return;
		}
		hook->hooks = hooks;
		hook->index = index;
		hook->dirty = true;
		LIST_INSERT_HEAD(&hooks->list, hook, entry);
		orc_gauge(ORC_M_HOOKS_LIVE, (int64_t)++hooks->count);
	}
	json_decref(hook->rule);
	hook->rule = json_incref(rule);
	hook->seen = true;
}

static void forget_unseen(struct orc_hooks *hooks)
{
	struct hook *hook = LIST_FIRST(&hooks->list);

	while (hook) {
		struct hook *next = LIST_NEXT(hook, entry);

		if (!hook->seen && !hook->busy) {
			hook_free(hook);
		}
		hook = next;
	}
}

static void on_list(const struct orc_hook_rows *rows, void *arg)
{
	struct orc_hooks *hooks = arg;
	struct hook *hook;

	hooks->listing = false;
	if (rows->word != ORC_OK || hooks->freeing) {
		hooks->refresh = true;
		return;
	}
	hooks->listed_ms = trib_clock_ms();
	LIST_FOREACH(hook, &hooks->list, entry) {
		hook->seen = false;
	}
	for (size_t i = 0; i < rows->count; i++) {
		const struct orc_hook_row *row = &rows->items[i];
		json_t *rules = NULL;
		char reason[160];

		if (trib_json_parse(row->hooks, strlen(row->hooks), &rules, reason)) {
			continue;
		}
		for (unsigned n = 0; n < json_array_size(rules) && n < ORC_HOOKS_MAX; n++) {
			learn(hooks, row->job, n, json_array_get(rules, n), row->cursors[n]);
		}
		json_decref(rules);
	}
	forget_unseen(hooks);
}

static void on_tick(void *arg)
{
	struct orc_hooks *hooks = arg;
	bool leads = orc_leader_valid(hooks->leader);
	uint64_t now = trib_clock_ms();
	struct hook *hook;

	if (leads && !hooks->listing &&
	    (hooks->refresh || now - hooks->listed_ms >= REFRESH_MS - TICK_MS)) {
		hooks->listing = orc_store_hooks(hooks->store, on_list, hooks) == 0;
		hooks->refresh = !hooks->listing;
	}
	if (leads && (hooks->listing || hooks->refresh || !LIST_EMPTY(&hooks->list))) {
		trib_timer_after(hooks->tick, TICK_MS);
	} else {
		trib_timer_about(hooks->tick, REFRESH_MS);
	}
	LIST_FOREACH(hook, &hooks->list, entry) {
		step(hook);
	}
}

void orc_hooks_wake(struct orc_hooks *hooks, const char *what, const char *job)
{
	struct hook *hook;

	if (strcmp(what, "hooks") == 0 || strcmp(what, "gone") == 0) {
		hooks->refresh = true;
		trib_timer_after(hooks->tick, TICK_MS);
	}
	LIST_FOREACH(hook, &hooks->list, entry) {
		if (strcmp(hook->job, job) == 0) {
			hook->dirty = true;
			step(hook);
		}
	}
}

/* A former leader may have sent meanwhile what we still think is to be sent. */
void orc_hooks_lead(struct orc_hooks *hooks)
{
	struct hook *hook;

	LIST_FOREACH(hook, &hooks->list, entry) {
		hook->seen = false;
	}
	forget_unseen(hooks);
	hooks->refresh = true;
	trib_timer_after(hooks->tick, TICK_MS);
}

int orc_hooks_new(struct trib_loop *loop, struct orc_store *store, struct orc_leader *leader,
		  struct orc_hooks **ret_hooks)
{
	struct orc_hooks *hooks = trib_alloc(sizeof(*hooks));
	int rc;

	if (!hooks) {
		return -ENOMEM;
	}
	hooks->store = store;
	hooks->leader = leader;
	LIST_INIT(&hooks->list);
	rc = orc_pool_new(loop, &hooks->pool);
	if (!rc) {
		rc = trib_timer_new(loop, on_tick, hooks, &hooks->tick);
	}
	if (rc) {
		hooks->pool = orc_pool_free(hooks->pool);
		trib_free(hooks);
		return rc;
	}
	trib_timer_after(hooks->tick, TICK_MS);
	*ret_hooks = hooks;
	return 0;
}

struct orc_hooks *orc_hooks_free(struct orc_hooks *hooks)
{
	struct hook *hook;

	if (!hooks) {
		return NULL;
	}
	hooks->freeing = true;
	hooks->tick = trib_timer_free(hooks->tick);
	hooks->pool = orc_pool_free(hooks->pool); /* posts are the hooks' from here on */
	while ((hook = LIST_FIRST(&hooks->list)) != NULL) {
		hook_free(hook);
	}
	trib_free(hooks);
	return NULL;
}
