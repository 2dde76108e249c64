/* SPDX-License-Identifier: Apache-2.0
 * Everything the orchestrator asks of Redis, typed: the functions of functions/ (store_redis.c)
 * and the reads the API needs (store_read.c). Keys are named in store_keys.h and nowhere else.
 *
 * Loop thread only. Every call is asynchronous: 0 means that the callback will be called exactly
 * once, later, never from inside the call; -errno (-ENOTCONN, -ENOBUFS, -ENOMEM, -ESHUTDOWN) that
 * it will not. Calls are refused while the connection is down, so that nothing is done behind the
 * back of a caller who gave up; what is under way when the connection breaks is sent again (all
 * of it is idempotent) and its callback comes when Redis is back.
 */
#ifndef TRIB_ORCHESTRATOR_STORE_REDIS_H
#define TRIB_ORCHESTRATOR_STORE_REDIS_H

#include "common/client_metrics.h"
#include "common/id.h"
#include "common/json.h"
#include "common/loop.h"

struct orc_store;

struct orc_store_handler {
	void (*on_wake)(const char *what, const char *job, void *arg); /* a message of trib:wake */
	void (*on_again)(void *arg); /* subscribed (again): messages may have been missed */
	void (*on_ready)(void *arg); /* the functions are loaded (again) */
	void *arg;
};

TRIB_MUST_CHECK int orc_store_new(struct trib_loop *loop, const char *address,
				  const struct orc_store_handler *handler,
				  struct orc_store **ret_store);
/* Answers ORC_DOWN to everything outstanding; further calls are refused meanwhile. */
struct orc_store *orc_store_free(struct orc_store *store);
bool orc_store_connected(const struct orc_store *store);
bool orc_store_ready(const struct orc_store *store); /* connected and functions loaded */
size_t orc_store_outstanding(const struct orc_store *store);

/* ---- functions ---- */
#define ORC_WORDS(X)                               \
	X(OK, "OK")                                \
	X(SAME, "SAME")                            \
	X(EXISTS, "EXISTS")                        \
	X(DUP, "DUP")                              \
	X(STATE, "STATE")                          \
	X(ORDER, "ORDER")                          \
	X(EARLY, "EARLY")                          \
	X(NOOP, "NOOP")                            \
	X(QUORUM, "QUORUM")                        \
	X(CONFLICT, "CONFLICT")                    \
	X(NOTASK, "NOTASK")                        \
	X(WAIT, "WAIT")                            \
	X(FENCED, "FENCED")                        \
	X(NOJOB, "NOJOB")                          \
	X(CLOSING, "closing")                      \
	X(FAILED, "failed")                        \
	X(NEW, "NEW")                              \
	X(RUNNING, "RUNNING")                      \
	X(REPLAY, "REPLAY")                        \
	X(MISMATCH, "MISMATCH")                    \
	X(FULL, "FULL")                            \
	X(QUOTA, "QUOTA")                          \
	X(NOMODEL, "NOMODEL")                      \
	X(NONODE, "NONODE")                        \
	X(ALONE, "ALONE")                          \
	X(OTHER, "") /* the lease is another's */  \
	X(ERROR, "") /* Redis answered an error */ \
	X(DOWN, "")  /* no answer will come */

enum orc_word {
#define X(name, text) ORC_##name,
	ORC_WORDS(X)
#undef X
	ORC_WORD_COUNT
};
const char *orc_word_text(enum orc_word word);

struct orc_reply {
	enum orc_word word;
	const char *text; /* what follows the word, "" when nothing; borrowed */
	size_t text_size;
	long long number; /* the same as a number */
	const char *more; /* of OTHER: the leader's URL or "", NULL else; borrowed */
};
typedef void orc_reply_cb(const struct orc_reply *reply, void *arg);

/* Who to answer to. */
struct orc_then {
	orc_reply_cb *cb;
	void *arg;
};

/* candidate: 64 hexadecimal digits -> OK */
TRIB_MUST_CHECK int orc_store_cluster_init(struct orc_store *store, const char *candidate,
					   struct orc_then then);
uint64_t orc_store_config_epoch(const struct orc_store *store); /* Sentinel's; 0 without */
/* url: of this API for others, "" = not told. -> OK (number = epoch) | OTHER (text = who, number =
 * ms until it ends, more = its URL) */
TRIB_MUST_CHECK int orc_store_lease_take(struct orc_store *store, const char *who, const char *url,
					 uint64_t ttl_ms, struct orc_then then);
TRIB_MUST_CHECK int orc_store_lease_drop(struct orc_store *store, const char *who,
					 struct orc_then then);

struct orc_job_new {
	const char *id;
	const char *name;
	const char *spec; /* normalised JSON text */
	uint64_t goal;
	uint64_t quorum;
	uint64_t selected_max;
	uint64_t deadline_ms;
	uint64_t lease_ms;
	uint64_t stop_rounds;
	const char *tenant;
	const char
		*initial; /* "job|version" to begin with, "" = none (orc_store_model_pin first) */
};
/* -> OK | EXISTS | FULL (its pool) | QUOTA (text = which, limit and use) */
TRIB_MUST_CHECK int orc_store_job_create(struct orc_store *store, const char *token,
					 const struct orc_job_new *job, struct orc_then then);

struct orc_job_move {
	const char *job;
	const char *from;
	const char *to;
	const char *reason;
};
/* -> OK | SAME | STATE (text = present state) | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_job_set(struct orc_store *store, const char *token,
				      const struct orc_job_move *move, struct orc_then then);
/* purge: the agents shall remove the model files, too. -> OK | STATE | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_job_delete(struct orc_store *store, const char *token,
					 const char *job, bool purge, struct orc_then then);

struct orc_round_new {
	const char *job;
	uint64_t number;
	int64_t base;
	uint64_t goal;
	uint64_t quorum;
	uint64_t selected_max;
	uint64_t deadline_ms;
};
/* -> OK (number = deadline) | EXISTS | STATE | ORDER | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_round_open(struct orc_store *store, const char *token,
					 const struct orc_round_new *round, struct orc_then then);

struct orc_round_close {
	const char *job;
	uint64_t number;
	int force; /* 0 the deadline, 1 an operator, 2 an operator who takes what there is */
};
/* -> CLOSING | FAILED | EARLY | NOOP | QUORUM | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_deadline(struct orc_store *store, const char *token,
				       const struct orc_round_close *close, struct orc_then then);

struct orc_publication {
	const char *job;
	uint64_t number;
	int64_t version; /* expected: the round's base */
	const char *digest;
	uint64_t bytes;
};
/* -> OK | DUP | CONFLICT | NOTASK | NOOP | FENCED | NOJOB */
TRIB_MUST_CHECK int orc_store_publish(struct orc_store *store, const char *token,
				      const struct orc_publication *publication,
				      struct orc_then then);

/* -> NEW | RUNNING | REPLAY (text) | MISMATCH */
TRIB_MUST_CHECK int orc_store_idem_begin(struct orc_store *store, const char *key,
					 const char *fingerprint, struct orc_then then);
struct orc_idem_result {
	const char *key;
	const char *fingerprint;
	const char *text;
	uint64_t ttl_ms;
};
TRIB_MUST_CHECK int orc_store_idem_end(struct orc_store *store,
				       const struct orc_idem_result *result, struct orc_then then);

/* ---- reads ---- */
enum orc_job_state {
	ORC_JOB_CREATED,
	ORC_JOB_RUNNING,
	ORC_JOB_PAUSED,
	ORC_JOB_FINISHED,
	ORC_JOB_STOPPED,
	ORC_JOB_FAILED,
	ORC_JOB_STATE_COUNT
};
const char *orc_job_state_text(enum orc_job_state state);
/* 0 or -EINVAL */
TRIB_MUST_CHECK int orc_job_state_parse(const char *text, enum orc_job_state *ret_state);

enum orc_round_state {
	ORC_ROUND_NONE, /* no such record */
	ORC_ROUND_OPEN,
	ORC_ROUND_CLOSING,
	ORC_ROUND_PUBLISHED,
	ORC_ROUND_FAILED,
};
const char *orc_round_state_text(enum orc_round_state state);

struct orc_job {
	char id[TRIB_ID_TEXT_SIZE];
	char name[64];
	char tenant[64];
	enum orc_job_state state;
	uint64_t created; /* ms, Redis time, as all times here */
	uint64_t epoch;
	uint64_t round;  /* the current or last one; 0 = none yet */
	int64_t version; /* -1 = no model yet */
	uint64_t goal;
	uint64_t quorum;
	uint64_t selected_max;
	uint64_t deadline_ms;
	uint64_t stop_rounds;
	uint64_t bytes;
	uint64_t params;
	uint64_t over;       /* the last round that is over; 0 = none */
	uint64_t generation; /* of the spec, from 1 */
	bool async;
	uint64_t stop_at; /* of stop.seconds; 0 = never, or it has not begun */
	uint64_t counted; /* updates in versions */
	bool wants_model; /* begins with a version of another job, not there yet */
	bool draining;    /* nobody is selected any more */
	char place[48];   /* "<policy>|<window_s>" */
	char *spec;       /* owned by the view; NULL unless asked for */
	char *reason;     /* owned by the view */
	char *stop_why;   /* it has enough; owned by the view, "" = it has not */
	char *metrics;    /* of the last version, "name=value,.."; owned by the view */
};

#define ORC_QUARANTINE_SIZE  2048
#define ORC_BACKUP_TEXT_SIZE 640

struct orc_round {
	uint64_t number;
	enum orc_round_state state;
	int64_t base;
	int64_t version; /* -1 until published */
	uint64_t goal;
	uint64_t quorum;
	uint64_t selected_max;
	uint64_t selected;
	uint64_t accepted;
	uint64_t inflight;
	uint64_t late;
	uint64_t lost;
	uint64_t expired;
	uint64_t partial;     /* counted, of clients that did a part of the work */
	uint64_t extended;    /* deadlines passed below the quorum */
	uint64_t kept;        /* of the accepted: of earlier buffers (async.memory) */
	uint64_t quarantined; /* were accepted, and could not be folded */
	uint64_t weight_fx;
	uint64_t opened;
	uint64_t deadline;
	uint64_t closed;
	uint64_t task_ms;
	uint64_t published;
	char why[16];
	char task[64]; /* digest an agent reported, "" = none */
	char task_node[64];
	char digest[64];
	char metrics[TRIB_METRICS_TEXT_SIZE]; /* "name=value,.." once published */
	char quarantine[ORC_QUARANTINE_SIZE]; /* "update|client|node|why;..", the first ones */
	char backup[ORC_BACKUP_TEXT_SIZE]; /* functions/18_backup.lua: why its goal is what it is */
};

/* The round to act on: see orc_view_want.hint. */
uint64_t orc_job_work(const struct orc_job *job);

struct orc_view {
	enum orc_word word; /* OK, NOJOB, ERROR, DOWN; the rest is set for OK only */
	uint64_t now_ms;
	struct orc_job job;
	struct orc_round round;
};
typedef void orc_view_cb(const struct orc_view *view, void *arg);

struct orc_view_want {
	const char *job;
	uint64_t round; /* which round; 0 = the current one */
	bool hint;      /* `round` is only a guess (saves a round trip) of the round to act on: the
			 * first that is not over, else the current one */
	bool spec;
};
/* One job with one of its rounds. */
TRIB_MUST_CHECK int orc_store_view(struct orc_store *store, const struct orc_view_want *want,
				   orc_view_cb *cb, void *arg);

/* Lists: `count` items in order; borrowed. word: OK, ERROR, DOWN. */
typedef void orc_rounds_cb(enum orc_word word, const struct orc_round *rounds, size_t count,
			   void *arg);
/* Rounds first, first - 1, .. (at most count, at least number 1); missing ones are left out. */
TRIB_MUST_CHECK int orc_store_rounds(struct orc_store *store, const char *job, uint64_t first,
				     size_t count, orc_rounds_cb *cb, void *arg);

struct orc_model {
	uint64_t version;
	char digest[64];
	uint64_t bytes;
	uint64_t round;
	uint64_t created;
	char metrics[TRIB_METRICS_TEXT_SIZE];
};
typedef void orc_models_cb(enum orc_word word, const struct orc_model *models, size_t count,
			   void *arg);
/* Versions first, first - 1, .. down to 0, at most count. */
TRIB_MUST_CHECK int orc_store_models(struct orc_store *store, const char *job, uint64_t first,
				     size_t count, orc_models_cb *cb, void *arg);

struct orc_update {
	char state; /* 'S' selected, 'R' receiving, 'C' committed, 'L' carried into a later round */
	char client[65];
	char id[TRIB_ID_TEXT_SIZE];
	uint64_t ms; /* committed at, or end of the lease; 'L': that round */
	char digest[64];
	uint64_t weight_fx;
	char place[128];
};
struct orc_updates {
	enum orc_word word;
	uint64_t next; /* cursor, 0 = that was all */
	const struct orc_update *items;
	size_t count;
};
typedef void orc_updates_cb(const struct orc_updates *updates, void *arg);
struct orc_updates_want {
	const char *job;
	uint64_t round;
	uint64_t cursor;
	size_t count; /* roughly */
};
TRIB_MUST_CHECK int orc_store_updates(struct orc_store *store, const struct orc_updates_want *want,
				      orc_updates_cb *cb, void *arg);

struct orc_job_ref {
	uint64_t created;
	char id[TRIB_ID_TEXT_SIZE];
};
typedef void orc_jobs_cb(enum orc_word word, const struct orc_job_ref *jobs, size_t count,
			 void *arg);
/* Newest first, from created <= `from`. */
TRIB_MUST_CHECK int orc_store_jobs(struct orc_store *store, uint64_t from, size_t count,
				   orc_jobs_cb *cb, void *arg);
/* Newest first, by place in the list. */
TRIB_MUST_CHECK int orc_store_jobs_at(struct orc_store *store, size_t offset, size_t count,
				      orc_jobs_cb *cb, void *arg);

/* nodes: array of objects {name, state, ...}; NULL unless word is OK; borrowed. */
typedef void orc_nodes_cb(enum orc_word word, json_t *nodes, void *arg);
TRIB_MUST_CHECK int orc_store_nodes(struct orc_store *store, orc_nodes_cb *cb, void *arg);
/* The same of the nodes that told of their functions of a job (store_tree.c). */
TRIB_MUST_CHECK int orc_store_tree(struct orc_store *store, const char *job, orc_nodes_cb *cb,
				   void *arg);

/* ---- events ---- */
struct orc_event_id {
	uint64_t ms;
	uint64_t seq;
};
struct orc_source {
	char job[TRIB_ID_TEXT_SIZE];
	struct orc_event_id after; /* events later than this */
};
struct orc_event {
	const char *job;
	struct orc_event_id id;
	const void *fields; /* for orc_event_json */
};
struct orc_events {
	enum orc_word word;
	bool more;                     /* there are more than were read */
	const struct orc_event *items; /* by id, of all sources together */
	size_t count;
};
typedef void orc_events_cb(const struct orc_events *events, void *arg);
#define ORC_SOURCES_MAX  512
#define ORC_EVENTS_BATCH 256
TRIB_MUST_CHECK int orc_store_events(struct orc_store *store, const struct orc_source *sources,
				     size_t count, orc_events_cb *cb, void *arg);
int orc_event_id_compare(const struct orc_event_id *a, const struct orc_event_id *b);
/* "1700000000000-3" or "1700000000000": 0 or -EINVAL */
TRIB_MUST_CHECK int orc_event_id_parse(const char *text, struct orc_event_id *ret_id);
/* The type of the event, "" if it has none. */
const char *orc_event_type(const struct orc_event *event);
/* {type, job, at, round, version, ..}; NULL when out of memory. Caller json_decref's. */
json_t *orc_event_json(const struct orc_event *event);

#endif
