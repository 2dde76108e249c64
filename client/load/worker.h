/* SPDX-License-Identifier: Apache-2.0
 * One thread of the load: an event loop, its clients, their timers and counters. The main thread
 * reads counters and histograms while it runs, and the sums of rounds after it has ended.
 */
#ifndef TRIB_CLIENT_LOAD_WORKER_H
#define TRIB_CLIENT_LOAD_WORKER_H

#include <pthread.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "client/load/arrivals.h"
#include "client/load/histogram.h"
#include "client/load/payload.h"
#include "client/load/plan.h"
#include "common/loop.h"
#include "common/problem.h"
#include "common/ticket.h"
#include "common/tls.h"

#define LOAD_SCRATCH     (256u << 10)
#define LOAD_HEAD_MAX    4096
#define LOAD_WHEEL_SLOTS 8192u /* of a millisecond */
#define LOAD_BACKLOG_MAX 1000000u
#define LOAD_UPDATE_SIZE 32

/* X(NAME, "member of the report") */
#define LOAD_COUNTS(X)                         \
	X(CHECKINS, "checkins")                \
	X(SELECTED, "selected")                \
	X(WAITS, "waits")                      \
	X(MODELS, "models")                    \
	X(MODELS_KNOWN, "models_not_modified") \
	X(UPLOADS, "uploads")                  \
	X(RECEIPTS, "receipts")                \
	X(REPLAYS, "replays")                  \
	X(LATE, "late")                        \
	X(BYTES_UP, "bytes_up")                \
	X(BYTES_DOWN, "bytes_down")            \
	X(BYTES_ACCEPTED, "bytes_accepted")    \
	X(CONNECTS, "connects")                \
	X(RETRIES, "retries")                  \
	X(REFUSALS, "refusals")                \
	X(ERRORS, "errors")                    \
	X(ARRIVALS, "arrivals")                \
	X(ARRIVALS_LOST, "arrivals_lost")      \
	X(VISITS, "visits")                    \
	X(DIED_BODY, "died_in_body")           \
	X(DIED_SILENT, "died_silently")        \
	X(DUPLICATES, "duplicates")            \
	X(CORRUPT, "corrupt")                  \
	X(ATTACKS, "attacks")                  \
	X(ATTACKS_ANSWERED, "attacks_refused") \
	X(CONN_WAITS, "connection_waits")      \
	/* gauges */                           \
	X(CONNS, "connections")                \
	X(CLIENTS, "clients_begun")            \
	X(OUT, "clients_selected")             \
	X(UPLOADING, "uploading")              \
	X(BACKLOG, "arrivals_waiting")         \
	X(OVER, "clients_over")

enum load_count {
#define X(name, text) LOAD_##name,
	LOAD_COUNTS(X)
#undef X
	LOAD_COUNT
};
extern const char *const load_count_names[LOAD_COUNT];

/* Failures that are no answer. X(NAME, "code") */
#define LOAD_TROUBLES(X)                   \
	X(CONNECT, "connect-failed")       \
	X(RESET, "connection-lost")        \
	X(TIMEOUT, "no-answer-in-time")    \
	X(ANSWER, "answer-not-understood") \
	X(TLS, "tls-failed")               \
	X(RECEIPT, "receipt-wrong")        \
	X(ACCEPTED, "attack-accepted")     \
	X(LOCAL, "own-limit")

enum load_trouble {
#define X(name, text) LOAD_TROUBLE_##name,
	LOAD_TROUBLES(X)
#undef X
	LOAD_TROUBLE_COUNT
};
extern const char *const load_trouble_names[LOAD_TROUBLE_COUNT];

enum load_latency {
	LOAD_VISIT,   /* intended arrival -> receipt (open loop) */
	LOAD_RECEIPT, /* intended start of an upload -> receipt, whatever came in between */
	LOAD_SERVICE, /* first byte sent -> receipt, of the attempt that got it */
	LOAD_CHECKIN, /* check-ins answered with a place at once */
	LOAD_MODEL,
	LOAD_LATENCIES,
};

struct load_round { /* what receipts say about a round */
	uint64_t receipts;
	uint64_t weight_fx;
	double sum; /* of weight times value */
};

enum load_phase {
	LOAD_RUNNING,
	LOAD_DRAINING, /* nothing begins; uploads under way go on */
	LOAD_ENDING,
};

struct load_run { /* shared; written before the threads begin, but for what is atomic */
	const struct load_plan *plan;
	struct load_payload payload;
	char job[64];
	char host[280];
	struct sockaddr_storage address;
	socklen_t address_size;
	bool loopback;
	struct trib_tls *tls; /* NULL: plain */
	uint64_t start_ns;
	uint64_t tag;   /* makes client names of this run unique */
	bool over;      /* atomic: the service said the job is over */
	uint64_t named; /* atomic: clients named so far (open loop) */
};

enum load_state {
	LOAD_STATE_OFF,   /* not begun */
	LOAD_STATE_IDLE,  /* open loop: waits for an arrival */
	LOAD_STATE_PAUSE, /* until its timer; then `then` */
	LOAD_STATE_BUSY,  /* a request is under way */
	LOAD_STATE_OVER,  /* for good */
};

enum load_step {
	LOAD_STEP_CHECKIN,
	LOAD_STEP_MODEL,
	LOAD_STEP_UPLOAD,
	LOAD_STEP_DUPLICATE,
	LOAD_STEP_ATTACK,
};

struct load_offer { /* what a check-in gave */
	uint32_t round;
	uint32_t base;
	char update[LOAD_UPDATE_SIZE];
	char ticket[TRIB_TICKET_TEXT_SIZE];
};

struct load_client {
	LIST_ENTRY(load_client) timer;  /* in a slot of the wheel */
	TAILQ_ENTRY(load_client) queue; /* of idle ones, or of those waiting for a connection */
	struct load_conn *conn;
	struct load_offer *offer;
	uint64_t due_ns; /* 0: no timer */
	uint64_t visit_ns;
	uint64_t intended_ns; /* of the upload */
	uint64_t sent_ns;     /* of the request under way */
	uint64_t name;
	uint64_t rng;
	uint32_t known; /* version of the model it has, + 1 */
	uint32_t weight;
	uint16_t attempts;
	uint8_t state;
	uint8_t step; /* under way, or to come after the pause */
	uint8_t variant;
	uint8_t class;  /* of bandwidth, LOAD_CLASSES_MAX: none */
	uint8_t labels; /* which, LOAD_LABELS_MAX: none */
	uint8_t attack; /* which */
	bool slow;
	bool dies; /* this update */
	bool corrupts;
	bool attacks;
	bool duplicates;
	bool ambiguous; /* a whole body went out and no answer came */
	bool queued;    /* for a connection */
	bool uploading; /* counted as such */
	char etag[40];  /* digest of the model it has, or fetches */
};

struct load_worker {
	struct load_run *run;
	uint32_t index;
	pthread_t thread;
	struct trib_loop *loop;
	struct trib_timer *tick;
	struct load_client *clients;
	uint64_t client_count;
	uint64_t begun; /* closed loop: clients started */
	uint64_t conns_max;
	LIST_HEAD(, load_client) wheel[LOAD_WHEEL_SLOTS];
	uint64_t wheel_ms; /* turned up to here */
	TAILQ_HEAD(, load_client) idle;
	TAILQ_HEAD(, load_client) starved; /* want a connection */
	struct load_arrivals arrivals;
	double next_arrival;
	uint64_t *backlog; /* ring of intended instants */
	uint64_t backlog_first;
	uint64_t backlog_count;
	enum load_phase phase;
	uint64_t rng;
	char *scratch;
	char head[LOAD_HEAD_MAX];
	/* read by the main thread while we run (relaxed atomics) */
	uint64_t counts[LOAD_COUNT];
	uint64_t refused[TRIB_PROBLEM_COUNT];  /* honest clients */
	uint64_t wrong[TRIB_PROBLEM_COUNT];    /* the same, but nobody should be told that */
	uint64_t intended[TRIB_PROBLEM_COUNT]; /* to attacks and corrupt updates */
	uint64_t troubles[LOAD_TROUBLE_COUNT];
	struct load_histogram latency[LOAD_LATENCIES];
	char sample[240]; /* of the first error, for people; written once before sampled */
	bool sampled;
	/* after the thread has ended */
	struct load_round *rounds; /* [0, round_count) */
	uint32_t round_count;
	uint64_t unresolved;
};

TRIB_MUST_CHECK int load_worker_new(struct load_run *run, uint32_t index,
				    struct load_worker **ret_worker);
TRIB_MUST_CHECK int load_worker_start(struct load_worker *worker);
/* From the main thread; LOAD_ENDING ends the loop. */
void load_worker_phase(struct load_worker *worker, enum load_phase phase);
void load_worker_join(struct load_worker *worker);
struct load_worker *load_worker_free(struct load_worker *worker);

/* ---- for the clients' code, in the thread itself ---- */

static inline void load_add(struct load_worker *worker, enum load_count what, int64_t amount)
{
	uint64_t *count = &worker->counts[what];

	__atomic_store_n(count, *count + (uint64_t)amount, __ATOMIC_RELAXED);
}

static inline void load_bump(uint64_t *count)
{
	__atomic_store_n(count, *count + 1, __ATOMIC_RELAXED);
}

/* Wakes the client then (load_client_wake); replaces the timer it had. */
void load_timer_set(struct load_worker *worker, struct load_client *client, uint64_t due_ns);
void load_timer_stop(struct load_client *client);
/* The client has nothing more to do: idle (open loop: takes the next arrival) or off. */
void load_client_rest(struct load_worker *worker, struct load_client *client, bool for_good);
/* The round's sums; NULL when out of memory. */
struct load_round *load_round_of(struct load_worker *worker, uint32_t round);
/* A connection of this thread was closed: lets one that waits for one go on. */
void load_conn_freed(struct load_worker *worker);

#endif
