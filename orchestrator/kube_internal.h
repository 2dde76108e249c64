/* SPDX-License-Identifier: Apache-2.0
 * What kube*.c share. The watcher's thread fills the table, the worker's thread empties it; the
 * lock is held for moments, never during a request.
 */
#ifndef TRIB_ORCHESTRATOR_KUBE_INTERNAL_H
#define TRIB_ORCHESTRATOR_KUBE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/http_client.h"
#include "common/id.h"
#include "common/json.h"
#include "orchestrator/kube.h"

#define KUBE_OBJECTS_MAX 1024
#define KUBE_GROUP       "tributary.io"
#define KUBE_API         KUBE_GROUP "/v1"
#define KUBE_FINALIZER   KUBE_GROUP "/job"
#define KUBE_LABEL       KUBE_GROUP "/uid" /* of the job: the object it belongs to */
#define KUBE_URL_SIZE    1024
#define KUBE_ANSWER_MS   10000
#define KUBE_BACKOFF_MS  250
#define KUBE_BACKOFF_MAX 15000
#define KUBE_SPEC_MAX    65536

struct kube_object {
	char uid[64];
	char space[64];
	char name[254];
	/* the watcher's, under the lock */
	json_t *json; /* as last seen (kube_slim); never changed, only replaced */
	bool changed; /* since the worker looked */
	bool gone;    /* not there any more: the worker forgets it */
	bool seen;    /* in the listing that goes on */
	/* the worker's */
	char job[TRIB_ID_TEXT_SIZE]; /* its job, "" = not known */
	long long observed;          /* generation that was dealt with; -1 = none */
	json_t *status;              /* as written last, or NULL */
	uint64_t next_ms;            /* not before */
	unsigned failures;           /* in a row */
};

struct orc_kube {
	char base[512]; /* of the API server */
	char own[128];  /* of our own listener */
	const char *token_file;
	const char *ca;
	const char *scope;
	char secret[ORC_KUBE_SECRET_SIZE];
	char tenant[TRIB_TENANT_SIZE];
	atomic_bool leads;
	atomic_bool stopping;
	pthread_t watcher;
	pthread_t worker;
	bool watching;
	bool working;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t more;
	struct kube_object *objects[KUBE_OBJECTS_MAX];
	size_t count;
};

/* ---- kube_call.c: any of the two threads ---- */

struct kube_call {
	const char *method;
	const char *path;
	const char *type; /* of the body; NULL: JSON */
	const json_t *body;
	const char *key;               /* Idempotency-Key, or NULL */
	bool any;                      /* If-Match: * */
	bool keep;                     /* the body of a 200 stays text, in raw */
	long status;                   /* of the answer; 0 = none */
	json_t *answer;                /* owned by the caller; NULL when it is not JSON */
	struct trib_client_answer raw; /* keep: owned by the call */
	char error[256];               /* why there is none */
};
/* To the API server, or (ours) to our own. */
void kube_server(struct orc_kube *kube, struct kube_call *call);
void kube_ours(struct orc_kube *kube, struct kube_call *call);
void kube_call_fini(struct kube_call *call);
/* The bearer token: owned, trib_free it; NULL: none. */
char *kube_token(const struct orc_kube *kube);
/* Should a request end? */
bool kube_over(void *arg);
/* A delay after `failures` in a row, with jitter. */
uint64_t kube_backoff(unsigned failures);
/* Sleeps, but not beyond the end. */
void kube_rest(struct orc_kube *kube, uint64_t ms);

/* ---- kube_text.c ---- */

/* A member of an object (key with its quotes) or an element of an array (no key). Borrowed. */
typedef void kube_on_member(const char *key, size_t key_size, const char *value, size_t size,
			    void *arg);
/* False: not whole. What was found before is told. */
bool kube_members(const char *text, size_t size, kube_on_member *on_member, void *arg);
bool kube_elements(const char *text, size_t size, kube_on_member *on_member, void *arg);
bool kube_is(const char *key, size_t size, const char *name);
/* Of an object: what is used of metadata and status, and spec as a text (null: too long a one).
 * Owned; NULL: it is none. */
json_t *kube_slim(const char *text, size_t size);
/* The spec of a slim object: owned, or NULL and why. */
json_t *kube_spec(const json_t *json, char reason[160]);

/* ---- kube_watch.c ---- */

void *kube_watch(void *arg);

/* ---- kube_sync.c ---- */

void *kube_work(void *arg);
void kube_object_free(struct kube_object *object);

/* ---- kube_job.c: one object, worker's thread ---- */

/* True when all is as it should be; else again after a while. */
bool kube_reconcile(struct orc_kube *kube, struct kube_object *object, const json_t *json);

/* ---- kube_status.c ---- */

struct kube_verdict {
	bool accepted;
	const char *reason; /* CamelCase */
	char message[1024];
};
/* Makes the verdict's message of a problem's errors or detail. */
void kube_explain(const struct kube_call *call, struct kube_verdict *verdict);
/* The status wanted: `job` as GET shows it, or NULL. Owned; NULL: out of memory. */
json_t *kube_status(const struct kube_object *object, const json_t *json, const json_t *job,
		    const struct kube_verdict *verdict);

#endif
