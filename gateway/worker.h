/* SPDX-License-Identifier: Apache-2.0
 * A worker: one thread, one loop, one httpd on the shared listening socket, one Redis connection,
 * one up-channel to the agent. Everything in the struct belongs to its thread but the mailbox.
 * Descriptors, too: what a worker opens, its thread uses and closes, and main hands it none
 * (gw->own_tables).
 */
#ifndef TRIB_GATEWAY_WORKER_H
#define TRIB_GATEWAY_WORKER_H

#include <semaphore.h>
#include <sys/queue.h>

#include "gateway/batch.h"
#include "gateway/gateway.h"
#include "gateway/header_cache.h"
#include "gateway/pace.h"

#define GW_NOTES_MAX          256
#define GW_SCRATCH_SIZE       (256u << 10)
#define GW_WAITERS_MAX        65536 /* held check-ins */
#define GW_ATTACH_WAITERS_MAX 1024
#define GW_LOADS_MAX          256
#define GW_AUDIT_UNKNOWN      10 /* records a second of callers nobody knows */

enum gw_note_what {
	GW_NOTE_ATTACH = 1, /* the agent answered */
	GW_NOTE_WAKE = 2,   /* round, publish or job changed */
	GW_NOTE_GONE = 4,
	GW_NOTE_STOP = 8, /* answer what waits; no new requests */
	GW_NOTE_EXIT = 16,
	GW_NOTE_TOKENS = 32, /* what is believed of the job's tokens may be wrong */
};

struct gw_note {
	uint32_t what;
	char job[TRIB_JOB_ID_SIZE]; /* "": all jobs */
};

struct gw_mailbox { /* bounded: an overflow means "everything may have changed" */
	pthread_mutex_t lock;
	bool posted;
	uint32_t overflow; /* kinds of the notes that did not fit */
	uint32_t count;
	struct gw_note notes[GW_NOTES_MAX];
};

struct gw_checkin;
struct gw_upload;
struct gw_load;
struct gw_put;
struct gw_tokens;
TAILQ_HEAD(gw_checkins, gw_checkin);
TAILQ_HEAD(gw_uploads, gw_upload);
TAILQ_HEAD(gw_loads, gw_load);
TAILQ_HEAD(gw_puts, gw_put);

struct gw_worker {
	struct gw *gw;
	uint32_t index;
	pthread_t thread;
	sem_t prepared; /* the thread has made all it needs, or could not: start_rc */
	int start_rc;
	int listen_fd; /* borrowed; in a table of its own: a copy, owned */
	struct trib_loop *loop;
	struct trib_httpd *httpd;
	struct trib_redis *redis;
	struct gw_batches *batches; /* check-ins and commits */
	struct trib_timer *tick;
	bool lively;                       /* the tick is the fast one */
	struct trib_httpd_stats published; /* what the metrics have already */
	uint64_t rng;
	struct gw_pace pace; /* of check-ins told to wait */
	struct gw_header_cache headers;
	struct gw_tokens *tokens;
	uint64_t audit_second;
	uint32_t audit_unknown;
	uint8_t *scratch; /* where drained bodies go */
	struct gw_checkins waiters;
	uint64_t wakes; /* wake-ups seen; see checkin.c */
	uint32_t waiter_count;
	struct gw_uploads attaching;
	uint32_t attaching_count;
	struct gw_loads loads;
	uint32_t load_count;
	struct gw_puts puts; /* initial models being received */
	uint32_t put_count;
	uint32_t get_count; /* downloads that wait for their file */
	struct gw_mailbox mailbox;
};

TRIB_MUST_CHECK int gw_worker_new(struct gw *gw, uint32_t index, int listen_fd,
				  struct gw_worker **ret_worker);
void gw_worker_stir(struct gw_worker *worker); /* a request came: the tick is the fast one again */
/* Returns once the thread has made what it needs, in its own table of descriptors if it is to have
 * one: what is opened before the last worker has started is a copy there for ever. */
TRIB_MUST_CHECK int gw_worker_start(struct gw_worker *worker);
/* After GW_NOTE_EXIT: waits for the thread, frees. */
struct gw_worker *gw_worker_free(struct gw_worker *worker);

/* In place of a listening descriptor that loops poll goes one that is never readable, so that the
 * kernel refuses newcomers and nobody has a closed number in its hands. */
void gw_stop_listening(int fd);
/* Any thread. */
void gw_workers_note(struct gw *gw, enum gw_note_what what, const char *job);

/* Uniform in [low, high]. */
uint64_t gw_worker_jitter(struct gw_worker *worker, uint64_t low, uint64_t high);
/* Answers a problem on an exchange that carries nothing of ours any more. */
void gw_refuse(struct trib_exchange *x, enum trib_problem problem, const char *detail);
void gw_unavailable(struct gw_worker *worker, struct trib_exchange *x, const char *detail);
/* Application/json reply of a text; size 0: it did not fit. */
void gw_reply_text(struct trib_exchange *x, int status, const char *text, size_t size);
/* The same; json is taken. */
struct json_t;
void gw_reply_json(struct trib_exchange *x, int status, struct json_t *json);

#endif
