/* SPDX-License-Identifier: Apache-2.0
 * The node agent: owns the node's shared memory, spawns and feeds aggregator functions, reports to
 * Redis. One thread, one loop; threads for models (writer.c), their files (filer.c), fresh memory
 * (warm.c) and what passes between nodes (transfer.c).
 *
 * What must survive the agent is never only here: slots (segment), sums (partials) are memfds that
 * the keeper also holds; rounds are in Redis. So a restarted agent rebuilds everything below from
 * those three (adopt.c), and a wrong guess is settled by the slot word, the partial's journal or
 * the Redis function, never by this memory.
 */
#ifndef TRIB_AGENT_AGENT_H
#define TRIB_AGENT_AGENT_H

#include "bpf/transport.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/loop.h"
#include "common/operators.h"
#include "common/redis.h"
#include "common/redis_login.h"
#include "orchestrator/agent/peers.h"
#include "orchestrator/agent/plan.h"
#include "shm/channel.h"
#include "shm/descriptor_check.h"
#include "shm/function.h"
#include "shm/link.h"
#include "shm/partial.h"
#include "shm/segment.h"

#define AGENT_JOBS_MAX      1024u
#define AGENT_LINKS_MAX     4u
#define AGENT_MODEL_BUCKETS 256u

struct agent;
struct agent_job;
struct agent_link;

enum agent_fn_state {
	AGENT_FN_NONE, /* no process; the partial may exist */
	AGENT_FN_LIVE, /* spawned (or being spawned) and being fed */
	AGENT_FN_WAIT, /* died; comes back at `respawn_ms` */
};

struct agent_fn {
	struct agent_job *job;
	uint32_t index; /* route index and partial index */
	enum agent_fn_state state;
	int pid; /* 0 until the zygote answered */
	int pidfd;
	struct trib_io *pid_io;
	struct trib_endpoint *endpoint;
	int control_fd; /* our end, non-blocking */
	bool has_partial;
	struct trib_partial partial;
	uint32_t outstanding; /* slots given and not acknowledged */
	uint32_t reset_round; /* the round its partial was last told to serve; 0 = none yet */
	bool flushed;         /* FLUSH sent in this round */
	bool has_base;        /* FN_BASE / FN_OUT given in this life and round */
	uint64_t divisor;     /* that was given with them */
	bool children_known[AGENT_FUNCTIONS_MAX];
	enum agent_role role; /* what it was last told to be */
	uint32_t crashes;     /* in this round */
	bool stalled;         /* killed by us for standing still */
	bool lone;            /* what it has in hand it has alone (poison.c) */
	bool op_back;         /* the op it died in last: which, how far, and how often there */
	uint32_t op_cursor;
	uint32_t op_deaths;
	uint64_t op_seq;
	uint64_t respawn_ms;
	uint64_t worked_ms; /* last given or done something */
	uint64_t reset_ns;  /* RESET sent to a warm process, not answered yet; 0 = none */
	uint64_t spawned_ns;
	struct trib_route_stats counted; /* of this life: in the node's counters already */
};

enum agent_note_where {
	AGENT_NOTE_NONE,
	AGENT_NOTE_PENDING,
	AGENT_NOTE_OUT,
	AGENT_NOTE_KEPT,  /* folded, and not to be freed yet (memory.c) */
	AGENT_NOTE_POISON /* never to be folded: it is being taken out of its round (poison.c) */
};

struct agent_note {      /* what we believe of a slot */
	uint8_t where;   /* enum agent_note_where */
	uint8_t fn;      /* OUT: the first function of the group that has it */
	uint8_t held;    /* PENDING: that group must have it again; 0 = any */
	uint16_t left;   /* OUT: lanes that have not folded it, a bit each */
	bool committing; /* READY slot of a dead gateway, commit under way */
	uint8_t strikes; /* functions that died folding it and others */
	uint8_t alone;   /* ..and it alone */
	uint8_t follow;  /* group that was told to follow it in generation follow_gen; 0 = none */
	uint32_t gen;
	uint32_t follow_gen;
};

enum agent_phase {
	AGENT_IDLE, /* no round that concerns us */
	AGENT_COLLECTING,
	AGENT_FLUSHING,   /* leaves -> top */
	AGENT_FINALISING, /* MODEL sent to the top */
	AGENT_WRITING,    /* writer thread */
	AGENT_REPORTING,  /* task_done under way or done; waits for the publication */
	AGENT_EXPORTING,  /* another node is the top: our sum goes there (peers.c) */
};

struct agent_ahead {    /* ahead.c: a version that is copied behind the function that makes it */
	uint32_t round; /* 0: none */
	uint32_t base;
	uint32_t before;           /* generation of `out` before that function was asked */
	bool wanted;               /* no memory has been free yet */
	struct agent_model *model; /* FILLING; NULL: none, or the writer goes on by itself */
};

struct agent_job {
	struct agent *agent;
	char id[TRIB_JOB_ID_SIZE];
	char key[TRIB_JOB_ID_SIZE + 16]; /* trib:{id}:job */
	uint32_t index;                  /* node-local */
	bool ready;                      /* segment and parameters known */
	bool retiring;
	struct trib_segment segment;
	uint64_t reserved_bytes; /* of the arena */
	char tenant[TRIB_TENANT_SIZE];
	uint32_t withdrawn;       /* slots */
	struct agent_note *notes; /* slot_count */
	uint32_t *pending;        /* ring of slots, capacity slot_count */
	uint32_t pending_head;
	uint32_t pending_count;
	/* parameters, constant for the job's life */
	uint64_t elements;
	uint64_t payload;
	enum trib_accumulate accumulate;
	uint32_t scale_bits;
	uint32_t input;
	double lr;
	/* the tree (tree.c). Functions come in groups of `lanes`: group g (1 = the top's) has the
	 * indices agent_group_base(g) + lane, each for a range of coordinates. */
	uint32_t lanes;
	char lanes_why[AGENT_WHY_SIZE];
	bool joined;             /* other nodes took part in a round */
	uint64_t joining;        /* the joining under way; 0 none */
	uint32_t hinted_round;   /* in which the top follows something */
	uint32_t followed_round; /* whose functions were told that nothing more is coming */
	uint16_t model_left;     /* FINALISING: lanes whose root has not answered */
	struct agent_plan_wish wish;
	struct agent_plan plan;
	struct agent_plan_tree tree; /* of the closing round */
	uint64_t planned_ms;         /* 0: plan before anything else */
	bool begun;                  /* just-in-time: folding has begun in this round */
	uint32_t arrived;            /* of this round, on this node */
	uint32_t accepted;           /* of this round, in the record */
	uint32_t goal;
	uint64_t arrived_ms;
	double gap_ms;
	uint64_t began_ms;
	double round_ms;
	uint64_t deadline_ms; /* of the open round, monotonic; 0 unknown */
	double fold_us;
	double merge_us;
	double hop_us;
	uint64_t told; /* what of it was told to Redis, and when */
	uint64_t told_ms;
	struct trib_partial_stats seen; /* of all its partials, when last planned */
	/* transport */
	struct trib_endpoint *hub;
	int hub_fd;
	struct trib_io *hub_io;
	struct trib_descriptor_reader reader;
	struct agent_fn fns[AGENT_FUNCTIONS_MAX];
	uint32_t fn_high; /* functions 1..fn_high exist */
	uint32_t turn;    /* round robin */
	/* the round */
	enum agent_phase phase;
	uint32_t round;
	uint32_t base;
	uint64_t expected; /* what this node answers for, as the record says, once closing */
	uint64_t weight_expected;
	uint64_t divisor; /* of the sum, fixed point; 0 = its own weights */
	bool norms;       /* the squared norm of its mean is wanted.. */
	/* memory.c */
	uint32_t memory;       /* clients whose last update stays here, at most; 0 = none */
	uint32_t memory_round; /* the closing round whose kept updates are known */
	uint32_t memory_over;  /* rounds up to this are over, and what only they needed is freed */
	bool memory_asked;
	double mean_norm; /* ..FINALISING: of the lanes that have answered */
	bool closing;
	bool late; /* READY slots wait for a round to be carried into */
	bool syncing;
	bool sync_again;
	bool informed; /* the record's answer about the round has come since `ready` */
	uint64_t synced_ms;
	uint64_t busy_ms;     /* last time anything happened */
	uint64_t mismatch_ms; /* since when counts disagree; 0 = they do not */
	uint64_t recommit_ms; /* when READY slots were last asked about for that */
	uint64_t scanned_ms;
	uint64_t progress; /* of its functions, and since when it stands still */
	uint64_t progress_ms;
	/* poison.c */
	uint32_t poisoned;      /* slots condemned and not freed yet */
	uint32_t faulted_round; /* a function died in it by its own fault */
	uint64_t poison_ms;     /* when the record is asked next */
	const char *hopeless;   /* why the sums are of no use, NULL: they are not */
	bool report_sent;       /* REPORTING: an answer is awaited, or it was good */
	struct agent_out *out;  /* finalised model, elements * 4; NULL: not yet */
	struct agent_ahead ahead;
	char digest[40];
	struct agent_peers peers;
	/* gateways waiting for ATTACH */
	struct agent_link *waiting[AGENT_LINKS_MAX];
	uint32_t waiting_count;
};

struct agent_link {
	struct agent *agent;
	int fd;
	struct trib_io *io;
	int pid; /* SO_PEERCRED */
	uint32_t workers;
	bool greeted;
	bool deaf; /* did not let go of a version's memory in time: it is given no more */
	struct trib_channels channels;
	int agent_bell; /* eventfd: gateway -> us */
	int gateway_bell;
	struct trib_io *bell_io;
};

struct agent_options {
	const char *node;
	const char *socket;
	const char *redis;
	struct trib_redis_login login;
	const char *keeper;
	const char *models;
	const char *transport;
	const char *admin;
	const char *aggregator;
	const char *data_url;
	const char *addr_file;
	uint64_t arena_bytes;
	uint64_t credit;
	uint64_t leaves_max;
	uint64_t idle_ms;
	uint64_t stall_ms;    /* a function with work that does not move for longer is replaced */
	uint64_t mismatch_ms; /* counts of node and record differ for longer: the round is lost */
	uint64_t function_bytes; /* of sums, per function, before a vector is split */
	uint64_t spares;         /* functions kept ready, at most */
	const char *cgroup;
	uint64_t capacity;    /* MC, as tributary calibrate says; 0 = none is published */
	uint64_t nic_bytes_s; /* budget; 0 = no limit */
	uint64_t lease_ms;    /* of this node's record: silent for longer, it is lost */
	const char *peer_ca;
	const char *peer_cert;
	const char *peer_key;
	uint64_t poison_deaths; /* in a row, before a set is split, and one alone quarantined */
	uint64_t fold_delay_us; /* tests */
	uint64_t poison_bits;   /* tests */
	bool share;             /* socket and files are for the group, too */
	bool check;
};

struct agent_writer;
struct agent_model;
struct agent_out;
struct agent_filer;
struct agent_warmer;

#define AGENT_SPAWNS_MAX 256u
#define AGENT_SPARES_MAX 16u

struct agent_spare { /* a function that waits for a job */
	int pid;     /* 0: no such */
	int pidfd;
	int control_fd;
	struct trib_io *io;
};

struct agent_pool {
	struct agent_spare spares[AGENT_SPARES_MAX];
	uint32_t asked;  /* of the zygote, not answered yet */
	uint32_t starts; /* of functions, in this period */
	double demand;   /* starts per period, averaged */
	uint64_t period_ms;
};

struct agent_load {          /* load.c */
	uint64_t sampled_ms; /* monotonic */
	uint64_t began_ms;   /* of the period */
	double area;         /* updates in hand times milliseconds */
	double sampled;      /* in hand then */
	int64_t folded;      /* when it began */
	double in_hand;
	double arrivals_s;
	double seconds;
};

struct agent_drain { /* drain.c */
	bool on;
	bool empty;  /* nothing is left here */
	bool asking; /* a page of jobs is under way */
	bool left;   /* the record was told that this agent ends */
	uint64_t offset;
	uint64_t rounds;
	uint64_t files;
	uint64_t next_ms;
	uint64_t until_ms; /* a signal came: so long at most; 0 none did */
	const char *why;   /* it was refused */
};

#define AGENT_WANTED_MAX 256u
struct agent_wanted { /* a version's file being looked for, or lately not found */
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
	bool busy;
	uint64_t quiet_ms;
};

#define AGENT_GONE_MAX 32u
struct agent_gone { /* the newest version of a job that nobody gives us (gone.c) */
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
	uint32_t trying; /* + 1: an older one that is looked for instead; 0 none */
	uint32_t source; /* + 1: an older one that is here, whose bytes `version` has; 0 none */
	bool copies;     /* `version` has the bytes of the one that is tried */
	bool calling;
	char digest[40];
	uint64_t next_ms;
	uint64_t until_ms; /* nobody asked again: forgotten */
};

struct agent {
	struct trib_loop *loop;
	struct agent_options options;
	struct trib_redis *redis;
	struct trib_redis *wakes;
	struct trib_transport *transport;
	struct trib_httpd *admin;
	int admin_fd;
	int keeper_fd; /* -1: not connected */
	int link_fd;
	struct trib_io *link_io;
	struct trib_timer *tick;
	struct trib_timer *beat;
	struct agent_link links[AGENT_LINKS_MAX];
	struct agent_job *jobs[AGENT_JOBS_MAX]; /* by node-local index */
	uint32_t job_count;
	uint64_t arena_used;
	/* share.c: the tenant that was short last, "" = none; how many bytes it lacks */
	char hungry[TRIB_TENANT_SIZE];
	uint64_t hungry_bytes;
	uint64_t hungry_share;
	uint64_t hungry_ms;
	uint32_t cores;
	bool cgroup; /* functions get control groups */
	struct agent_pool pool;
	struct agent_load load;
	struct agent_drain drain;
	int zygote_fd;
	int zygote_pid;
	uint64_t zygote_ms;       /* when it was started last, or is to be */
	uint64_t zygote_pause_ms; /* before the next one, if it dies soon */
	struct trib_io *zygote_io;
	struct { /* spawns the zygote has not answered yet, in order */
		struct agent_fn *fn;
		uint64_t life;
		int spare_fd; /* its control socket; -1: not for the pool */
	} spawns[AGENT_SPAWNS_MAX];
	uint32_t spawn_head;
	uint32_t spawn_count;
	struct agent_writer *writer;
	struct agent_filer *filer;
	struct agent_warmer *warmer;
	struct agent_model *models[AGENT_MODEL_BUCKETS]; /* memories of versions (published.h) */
	uint64_t models_ms;                              /* last looked at */
	int mourned_pid;    /* a gateway whose link broke; its slots are orphans once it is dead */
	bool gateway_fresh; /* the connected gateway had no segment before it greeted us */
	uint8_t ticket_key[TRIB_TICKET_KEY_SIZE];
	char boot[TRIB_ID_TEXT_SIZE]; /* of this process */
	bool key_known;
	bool key_asked;
	struct agent_wanted wanted[AGENT_WANTED_MAX];
	struct agent_gone gone[AGENT_GONE_MAX];
	/* the walk over the record's jobs, for those that count updates we know nothing of */
	bool walking;
	uint64_t walked_ms; /* 0: at once */
	uint32_t walk_offset;
};

/* jobs.c */
struct agent_job *agent_job_find(struct agent *agent, const char *id);
/* Finds or makes the record (not yet ready). NULL: table full or no memory. */
struct agent_job *agent_job_get(struct agent *agent, const char *id);
/* Makes a record around an adopted segment (taken). NULL on trouble (segment closed). */
struct agent_job *agent_job_adopt(struct agent *agent, struct trib_segment *segment);
/* Asks Redis how the job stands and acts on the answer (rounds.c). */
void agent_job_sync(struct agent_job *job);
/* Everything of the job on this node goes: functions, partials, segment, routes. */
void agent_job_drop(struct agent_job *job, const char *why);
/* The same, and the updates it held are declared lost in Redis first. */
void agent_job_lose(struct agent_job *job, const char *why);
TRIB_MUST_CHECK int agent_job_parameters(struct agent_job *job, const struct trib_value *sync);
void agent_job_attach(struct agent_job *job, struct agent_link *link);
void agent_jobs_wake(struct agent *agent, const char *message);
void agent_jobs_tick(struct agent *agent);

/* share.c */
/* How much of the arena the job may take; with less than `wanted` free, others' slots are withdrawn
 * first, as far as its tenant is below its share. */
uint64_t agent_share_left(struct agent_job *job, uint64_t wanted);
/* A slot has just got FREE: is it withdrawn? */
bool agent_share_withdraws(struct agent_job *job, uint32_t slot);
void agent_share_adopted(struct agent_job *job);
void agent_share_tick(struct agent *agent, uint64_t now);

/* slots.c */
/* Scans the segment: CLAIMED slots we do not know become pending (or free, if folded). */
void agent_slots_scan(struct agent_job *job);
/* READY -> commit again. A live gateway's own commit of that slot is not disturbed: both are of one
 * place, so whichever comes second is answered SAME, and the slot word decides the rest. */
void agent_slots_recommit(struct agent_job *job);
/* The gateway died: FILLING -> FREE, READY -> commit again. */
void agent_slots_orphans(struct agent_job *job);
void agent_slot_claimed(struct agent_job *job, uint32_t slot, uint32_t gen);
/* CLAIMED -> FREE, whatever it holds. */
void agent_slot_release(struct agent_job *job, uint32_t slot);
/* Behind those that wait. */
void agent_slot_enqueue(struct agent_job *job, uint32_t slot);
/* It is CLAIMED, in that generation. */
bool agent_slot_ours(const struct agent_job *job, uint32_t slot, uint32_t gen);
void agent_slot_free(struct agent_job *job, uint32_t slot);
/* Frees CLAIMED slots of rounds before `round`. */
void agent_slots_drop_before(struct agent_job *job, uint32_t round);
uint32_t agent_slot_holder(const struct agent_job *job, uint32_t slot, uint32_t gen);
bool agent_slot_folded(const struct agent_job *job, uint32_t slot, uint32_t gen);
void agent_slot_requeue(struct agent_job *job, uint32_t slot);

/* memory.c: updates that stay in their slots when they are folded (async.memory) */
/* Asks the record what is needed, if that may have changed. True: the round must not be aggregated
 * before the answer. */
bool agent_memory_wait(struct agent_job *job);
/* Instead of freeing it. */
void agent_memory_keep(struct agent_job *job, uint32_t slot);
/* A CLAIMED slot of unknown past: true when the round that it last counted in has it. */
bool agent_memory_holds(struct agent_job *job, uint32_t slot);

/* The partial has it, in the round that it counts in: one of an earlier round says nothing. */
bool agent_memory_folded(const struct agent_job *job, const struct trib_partial *partial,
			 uint32_t slot, uint32_t gen);

/* norms.c */
/* MODEL was sent to every root. */
void agent_model_asked(struct agent_job *job);
/* One has made its range. True: the last one. */
bool agent_model_made(struct agent_job *job, const struct trib_descriptor *d);

/* functions.c */
/* pidfd of a process: fd or -errno. */
int agent_pidfd(int pid);
TRIB_MUST_CHECK int agent_zygote_start(struct agent *agent);
void agent_zygote_stop(struct agent *agent);
void agent_zygote_tick(struct agent *agent, uint64_t now_ms); /* starts one that is due */
/* Brings function `index` to life (making its partial if need be). 0 or -errno. */
TRIB_MUST_CHECK int agent_fn_start(struct agent_job *job, uint32_t index);
/* What its route has counted since goes into the node's counters. */
void agent_fn_account(struct agent_fn *fn);
void agent_fn_stop(struct agent_fn *fn); /* process and endpoint; the partial stays */
void agent_fn_drop_partial(struct agent_fn *fn);
/* Its partial, also in place of another one it had. */
TRIB_MUST_CHECK int agent_fn_give_own(struct agent_fn *fn);
/* Gives the roots base and out before the round closes. */
void agent_fn_model_ahead(struct agent_job *job);
/* Gives the top whatever it lacks: children's partials, base, out. */
TRIB_MUST_CHECK int agent_fn_equip_top(struct agent_job *job, bool with_model);
TRIB_MUST_CHECK int agent_fn_send(struct agent_fn *fn, struct trib_descriptor *descriptor);
/* A partial's memfd as a child (read-only). */
TRIB_MUST_CHECK int agent_fn_give_child(struct agent_fn *parent, uint32_t index, int fd);
void agent_fn_tick(struct agent_job *job, uint64_t now_ms);

/* Gives a parent the partials of those that hand over to it. */
TRIB_MUST_CHECK int agent_fn_equip(struct agent_fn *parent);

/* Enters a spawn that the zygote will answer; spare_fd >= 0: for the pool. */
void agent_spawn_asked(struct agent *agent, struct agent_fn *fn, int spare_fd);

/* pool.c */
void agent_pool_start(struct agent *agent);
void agent_pool_stop(struct agent *agent);
void agent_pool_tick(struct agent *agent, uint64_t now_ms);
/* A spare process, the caller's from now on; false: there is none. Counts as demand either way. */
bool agent_pool_take(struct agent *agent, int *ret_pid, int *ret_control_fd);
/* The zygote forked it (pid <= 0: did not); control_fd is taken. */
void agent_pool_answered(struct agent *agent, int pid, int control_fd);
bool agent_pool_knows(const struct agent *agent, int pid);

/* cgroup.c */
void agent_cgroup_start(struct agent *agent);
void agent_cgroup_enter(const struct agent_fn *fn);
void agent_cgroup_leave(const struct agent_fn *fn);

static inline uint32_t agent_group_of(const struct agent_job *job, uint32_t index)
{
	return AGENT_TOP + (index - AGENT_TOP) / job->lanes;
}

static inline uint32_t agent_lane_of(const struct agent_job *job, uint32_t index)
{
	return (index - AGENT_TOP) % job->lanes;
}

static inline uint32_t agent_group_base(const struct agent_job *job, uint32_t group)
{
	return AGENT_TOP + (group - AGENT_TOP) * job->lanes;
}

/* One of the roots. */
static inline bool agent_is_top(const struct agent_job *job, uint32_t index)
{
	return index < AGENT_TOP + job->lanes;
}

struct agent_root { /* a root of this node's tree: what another node would be sent */
	struct agent_fn *fn;
	uint64_t first; /* elements [first, first + elements) */
	uint64_t elements;
};
/* All of them, in order; they cover the vector. How many. */
uint32_t agent_tree_roots(struct agent_job *job, struct agent_root out[AGENT_LANES_MAX]);

/* load.c: in every tick, and with every heartbeat */
void agent_load_sample(struct agent *agent, uint64_t now_ms);
void agent_load_period(struct agent *agent, uint64_t now_ms);

/* drain.c: this node is to leave in order */
void agent_drain_told(struct agent *agent, bool on); /* by the record */
TRIB_MUST_CHECK int agent_drain_ask(struct agent *agent);
const char *agent_drain_word(const struct agent *agent); /* "", draining, drained */
void agent_drain_tick(struct agent *agent, uint64_t now_ms);
/* A signal: true when the loop may end, else it will be ended soon. */
bool agent_drain_stop(struct agent *agent);
void agent_drain_carry(struct agent *agent, const char *message);

/* tree.c: what the planner says (plan.h), and what it is told */
void agent_tree_plan(struct agent_job *job, uint64_t now_ms);
/* Plans when it is due or the queue has outgrown the plan. */
void agent_tree_look(struct agent_job *job);
bool agent_tree_hold(struct agent_job *job);
void agent_tree_begin(struct agent_job *job);    /* a round */
void agent_tree_shape(struct agent_job *job);    /* of a round that begins: how many lanes */
void agent_tree_put_away(struct agent_job *job); /* all its processes; partials stay */
/* The roots' sums are in `whole` (taken), which is function 1's from now on: one lane. */
void agent_tree_joined(struct agent_job *job, const struct trib_partial *whole);
/* join.c: makes one of all lanes, in a thread. -EAGAIN: it is under way. */
TRIB_MUST_CHECK int agent_join(struct agent_job *job);
void agent_tree_closing(struct agent_job *job);                    /* it closes; repeatable */
void agent_tree_deadline(struct agent_job *job, uint64_t left_ms); /* 0: not known */
void agent_tree_assign(struct agent_job *job);                     /* who hands over to whom */
void agent_tree_arrived(struct agent_job *job, uint32_t slot);
void agent_tree_answered(struct agent_fn *fn, uint32_t slot); /* its RESET, of that field */
/* A parent has the sum of function `index` of this round. */
bool agent_tree_merged(const struct agent_job *job, uint32_t index);
uint32_t agent_tree_parent(const struct agent_job *job, uint32_t index); /* >= AGENT_TOP */
/* Some that hand over to it have not yet. */
bool agent_tree_waits(const struct agent_job *job, uint32_t index);
bool agent_tree_holds(const struct agent_job *job, uint32_t index);
const char *agent_role_name(const struct agent_fn *fn);
const char *agent_phase_name(const struct agent_job *job);

/* tree_tell.c */
json_t *agent_tree_function(const struct agent_job *job,
			    uint32_t index); /* owned; NULL: no memory */
json_t *agent_tree_json(const struct agent_job *job);
void agent_tree_tell(struct agent_job *job, uint64_t now_ms); /* UINT64_MAX: whatever was told */

/* rounds.c */
void agent_round_synced(struct agent_job *job, const struct trib_value *sync);
void agent_round_dispatch(struct agent_job *job); /* hand out what is pending */
void agent_round_advance(struct agent_job *job);  /* close if all is folded, and so on */
void agent_round_ack(struct agent_job *job, const struct trib_descriptor *descriptor);
void agent_round_fn_died(struct agent_fn *fn, bool fault);
struct trib_partial_totals agent_round_folded(const struct agent_job *job);
/* The function lives and serves the round. */
TRIB_MUST_CHECK int agent_round_ready(struct agent_job *job, uint32_t index);
/* It has merged the child of that number in this round. */
bool agent_round_merged(const struct agent_job *job, uint32_t index);

/* poison.c: updates whose folding kills */
/* By its own fault, as the wait status says: not by somebody's signal. */
bool agent_poison_fault(const struct agent_fn *fn, bool exited, int status);
/* Such a death: what it had begun is blamed, or given up. Before anything is taken back. */
void agent_poison_died(struct agent_fn *fn);
/* It has been in too many deaths: to be handed out alone. */
bool agent_poison_suspect(const struct agent_job *job, uint32_t slot);
/* Never to be handed out again. */
bool agent_poison_condemned(const struct agent_job *job, uint32_t slot);
bool agent_poison_may_hand(const struct agent_job *job, uint32_t base, uint32_t slot);
void agent_poison_tick(struct agent_job *job, uint64_t now);

/* follow.c: updates folded while they arrive */
#define AGENT_FOLLOW_MAX \
	TRIB_OP_MAX /* with what is in hand; all of it fits the list of recent ones */
/* The gateway's hint; its slot is in range. */
void agent_follow_hint(struct agent_job *job, const struct trib_descriptor *d);
/* After each update that the top was told of: has it all of the round? */
void agent_follow_whole(struct agent_job *job);
bool agent_follow_live(const struct agent_job *job, uint32_t slot);
/* The group that follows this pending slot and can be given it; 0: none. */
uint32_t agent_follow_holder(const struct agent_job *job, uint32_t slot);
/* The round closes and waits for functions. Repeatable. */
void agent_follow_settle(struct agent_job *job);

/* finalise.c: the sum is in the top (or its lanes): to the model, to the record */
void agent_finalise(struct agent_job *job);
void agent_finalise_acked(struct agent_job *job, const struct trib_descriptor *descriptor);
void agent_finalise_report(struct agent_job *job);

/* ahead.c */
/* The functions are about to get base and out of the round: the copy shall follow. Repeatable. */
void agent_ahead_begin(struct agent_job *job);
/* The model is whole: true if the copy has followed and goes on to its end. */
bool agent_ahead_whole(struct agent_job *job);
/* It comes to nothing. */
void agent_ahead_drop(struct agent_job *job);
void agent_ahead_tick(struct agent_job *job, uint64_t now_ms);

/* writer.c: finalised models. done on the loop. */
struct agent_write {
	char job[TRIB_JOB_ID_SIZE];
	uint32_t round;
	uint32_t version;
	uint64_t bytes;
	struct agent_model *model; /* FILLING */
	struct agent_out *out;     /* pinned */
	uint32_t before;           /* following: generation of `out` that is not this model's */
	int rc;                    /* -ECANCELED: it came to nothing */
	char digest[40];
};
TRIB_MUST_CHECK int agent_writer_new(struct trib_loop *loop,
				     void (*done)(struct agent_write *write, void *arg), void *arg,
				     struct agent_writer **ret_writer);
struct agent_writer *agent_writer_free(struct agent_writer *writer);
TRIB_MUST_CHECK int agent_writer_put(struct agent_writer *writer, const struct agent_write *write);
/* Begins to copy what `out` says is final of a model that is still being made.. */
TRIB_MUST_CHECK int agent_writer_follow(struct agent_writer *writer,
					const struct agent_write *write);
/* ..which is whole now: as if it had been put, but for what has been copied.. */
void agent_writer_whole(struct agent_writer *writer, const struct agent_model *model);
/* ..or comes to nothing: done with -ECANCELED. */
void agent_writer_cancel(struct agent_writer *writer, const struct agent_model *model);
void agent_round_written(struct agent_write *write, void *arg);
/* A version's bytes, from memory or <models>/<job>/v<version>.safetensors; returns fd (read-only)
 * and where its data begins. */
int agent_model_open(const struct agent *agent, const char *job, uint32_t version,
		     uint64_t *ret_offset);

/* Offset of the data in an open safetensors file of ours, 0 when it is not one. */
uint64_t agent_model_data_offset(int fd);

/* checkpoint.c: the record has let go of versions of the job: their files are removed. */
void agent_models_prune(struct agent *agent, const char *job);
/* The job is to begin with a version of another one: linked if this node has its file. */
void agent_models_copy(struct agent *agent, const char *job);

/* Removes the versions of a deleted job: memories, and files (names that are ours only). */
void agent_models_purge(struct agent *agent, const char *job);

/* link.c */
TRIB_MUST_CHECK int agent_links_start(struct agent *agent);
void agent_links_tick(struct agent *agent);
void agent_links_stop(struct agent *agent);
void agent_link_segment(struct agent_link *link, const struct agent_job *job, const char *id,
			int result);
void agent_links_detach(struct agent *agent, const char *id);
/* -EAGAIN: later; another error: the connection is begun anew. fd -1: none. */
TRIB_MUST_CHECK int agent_link_send(struct agent_link *link,
				    const struct trib_link_message *message, int fd);
void agent_links_freed(struct agent *agent, const struct agent_job *job, uint32_t slot,
		       uint32_t gen);
bool agent_links_any(const struct agent *agent);

/* adopt.c */
void agent_adopt(struct agent *agent);
int agent_keeper(struct agent *agent); /* connected fd or -errno */
TRIB_MUST_CHECK int agent_keep(struct agent *agent, const char *name, int fd); /* 0 without one */
void agent_keep_segment(struct agent_job *job);
TRIB_MUST_CHECK int agent_keep_partial(struct agent_fn *fn);
/* In place of function 1's. */
TRIB_MUST_CHECK int agent_keep_whole(struct agent_job *job, const struct trib_partial *whole);
void agent_unkeep(struct agent *agent, const char *format, ...) TRIB_PRINTF(2, 3);

/* admin.c */
TRIB_MUST_CHECK int agent_admin_start(struct agent *agent);
void agent_admin_stop(struct agent *agent);

enum agent_metric {
	AGENT_M_SPAWNS,
	AGENT_M_SPAWN_US,
	AGENT_M_CRASHES,
	AGENT_M_REPLAYED,
	AGENT_M_ABANDONED,
	AGENT_M_QUARANTINED,
	AGENT_M_UPDATES,
	AGENT_M_ROUNDS,
	AGENT_M_LOST,
	AGENT_M_ORPHANS,
	AGENT_M_WITHDRAWN,
	AGENT_M_BAD,
	AGENT_M_NACKS,
	AGENT_M_SCANS,
	AGENT_M_RING_MISSED,
	AGENT_M_STALLED,
	AGENT_M_POOLED,
	AGENT_M_PRUNED,
	AGENT_M_REUSES,
	AGENT_M_REUSE_US,
	AGENT_M_CONVERSIONS,
	AGENT_M_RETIRED,
	AGENT_M_FOLDED,
	AGENT_M_PASSES,
	AGENT_M_FOLD_US,
	AGENT_M_MERGED,
	AGENT_M_MERGE_US,
	AGENT_M_CPU_US,
	AGENT_M_SUMS_SENT,
	AGENT_M_SUM_BYTES_SENT,
	AGENT_M_SUMS_FAILED,
	AGENT_M_SUMS_TAKEN,
	AGENT_M_SUM_BYTES_TAKEN,
	AGENT_M_SUMS_REFUSED,
	AGENT_M_MODELS_FETCHED,
	AGENT_M_MODEL_BYTES_FETCHED,
	AGENT_M_FETCHES_FAILED,
	AGENT_M_TRANSFERS_REFUSED,
	AGENT_M_NODE_LOST,
	AGENT_M_FOLLOW_HINTS,
	AGENT_M_FOLLOWED,
	AGENT_M_FOLLOW_KEPT,
	AGENT_M_FOLLOW_EVICTED,
	AGENT_M_FOLLOW_DROPPED,
	AGENT_M_FOLLOW_BYTES,
	AGENT_M_MODELS_FILED,
	AGENT_M_MODELS_UNFILED,
	AGENT_M_MODELS_GIVEN_UP,
	AGENT_M_MODELS_LOST,
	AGENT_M_MODELS_COPIED,
	AGENT_M_AHEAD,
	AGENT_M_COPIED_AHEAD,
	AGENT_M_COPIED_ANEW,
	AGENT_M_JIT_DEADLINE,
	AGENT_M_MESSAGES,
	AGENT_M_MESSAGE_BYTES,
	AGENT_M_QUEUE_US,
	AGENT_M_EXEC_US,
	AGENT_M_COUNT
};
void agent_count(enum agent_metric metric, int64_t amount);
int64_t agent_counted(enum agent_metric metric);

#endif
