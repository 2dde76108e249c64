/* SPDX-License-Identifier: Apache-2.0
 * Several nodes, from an agent's side (docs/adr/0008-several-nodes.md). Of a closed round one node,
 * the top, gathers: every other folds its share, carves its sum out of its functions (an export)
 * and sends it to the top's gateway, which receives it straight into a memfd of the top's agent (an
 * import). Who answers for a share is decided in Redis (trib_partial_moved), never here: what is
 * kept below is read from the record's answer (agent_peers_synced) and from the memfds, which the
 * keeper holds as "x:<job>:<round>:<part>" and "i:<job>:<round>:<part>:<node>".
 *
 * Loop thread; transfers run in threads of their own and come back to the loop.
 */
#ifndef TRIB_AGENT_PEERS_H
#define TRIB_AGENT_PEERS_H

#include "common/peer.h"
#include "common/redis.h"
#include "shm/link.h"
#include "shm/partial.h"

#define AGENT_SUMS_MAX      600u  /* per job and round: exports, imports and memories of them */
#define AGENT_TRANSFERS_MAX 64u   /* threads, all jobs */
#define AGENT_PULL_MAX      16u   /* sums given to the top at a time (TRIB_RECENT_MAX is more) */
#define AGENT_INDEX_EXPORT  3000u /* + part: number of an own export as a child of the top */
#define AGENT_INDEX_IMPORT  4096u /* + the record's sequence number: of an import */
#define AGENT_NUMBERS_MAX   512u  /* of these, so many are told apart for function 1's places */

struct agent;
struct agent_job;
struct agent_fn;
struct agent_link;

struct agent_sum {
	bool import;
	bool complete; /* import: the body is there and checked */
	bool moved;    /* the record says: the receiver answers for it */
	bool calling;  /* import: trib_partial_moved is under way */
	bool sending;  /* export: a transfer is under way */
	bool merged;   /* it is in function 1's sum: no memory any more, a memory of it only */
	uint32_t round;
	uint32_t part;
	uint32_t index; /* as a child of function 1; 0: none yet */
	struct trib_partial partial;
	struct trib_partial_totals totals;
	char node[TRIB_PEER_NODE_SIZE];   /* the sender */
	char boot[TRIB_ID_TEXT_SIZE];     /* of its memory */
	uint64_t transfer;                /* import: the gateway's number, 0: nobody waits */
	uint32_t link;                    /* import: on which connection */
	uint64_t given;                   /* life of function 1 that knows it */
	uint64_t sent;                    /* life of function 1 that was told to merge it */
	char target[TRIB_PEER_NODE_SIZE]; /* export: where the transfer under way goes */
	uint64_t next_ms;                 /* export: not to be sent before */
	uint32_t tries;
};

struct agent_peers {
	char top[TRIB_PEER_NODE_SIZE]; /* "" while nobody is elected */
	char top_url[256];
	uint64_t updates; /* of the whole round */
	uint64_t weight;
	uint64_t given_life; /* life of function 1 and.. */
	uint32_t given;      /* ..how many children's places sums took in it, */
	uint64_t numbers[AGENT_NUMBERS_MAX / 64]; /* which imports' numbers among them */
	struct trib_partial spare;                /* carve.c: memory for the next carving */
	uint64_t leaving;      /* life of function 1 that has not let go of its sum; 0 none */
	uint32_t leaving_mark; /* of the RESET whose answer says so */
	bool waits;            /* nothing to do until others have sent, or the record says more */
	uint32_t part;         /* number of the next export */
	uint32_t have_version; /* + 1: newest version known to be here; 0 none */
	char have_digest[40];
	struct agent_sum *sums[AGENT_SUMS_MAX];
};

/* ---- peers.c ---- */
/* False: this memory was declared lost while we lived (frozen, cut off): nothing in it counts any
 * more, so the job has been dropped and is gone. Of every answer about a job. */
TRIB_MUST_CHECK bool agent_peers_alive(struct agent_job *job, const struct trib_value *sync);
/* Of every answer about the present round, after job->closing and job->expected were set. */
void agent_peers_synced(struct agent_job *job, const struct trib_value *sync);
/* All leaves are in the top. True: this node gathers and has all of the round: finalise. */
TRIB_MUST_CHECK bool agent_peers_gather(struct agent_job *job);
/* This node has all of the round, and is the one that finalises it. */
bool agent_peers_alone(const struct agent_job *job);
/* Function 1 could not merge that child. */
void agent_peers_nacked(struct agent_job *job, uint32_t index);
void agent_peers_tick(struct agent_job *job, uint64_t now_ms);
/* What this node answers for and no function's partial of the round holds. */
struct trib_partial_totals agent_peers_held(const struct agent_job *job);
/* A sum of this round lies beside the functions: it is whole, and goes to or comes from a node. */
bool agent_peers_begun(const struct agent_job *job);
/* Gives function 1 the sums it may have to merge. */
TRIB_MUST_CHECK int agent_peers_equip(struct agent_job *job);
/* An update's slot went into a sum that was carved out. */
bool agent_peers_folded(const struct agent_job *job, uint32_t slot, uint32_t gen);
/* A leaf of that number is in such a sum. */
bool agent_peers_carved(const struct agent_job *job, uint32_t leaf);
void agent_peers_over(struct agent_job *job, uint32_t round); /* that round and those before */
void agent_peers_fini(struct agent_job *job);
/* After a restart: a memfd of the keeper (taken). */
void agent_peers_adopt(struct agent *agent, const char *name, int fd);

/* shared with imports.c */
struct agent_sum *agent_sum_new(struct agent_job *job);
/* Memory, keeper's entry and all. */
void agent_sum_drop(struct agent_job *job, struct agent_sum *sum);
TRIB_MUST_CHECK int agent_sum_keep(struct agent_job *job, const struct agent_sum *sum);
void agent_sum_unkeep(struct agent_job *job, const struct agent_sum *sum);

/* ---- carve.c: function 1's sum becomes an export; the function lives on with other memory ---- */
TRIB_MUST_CHECK int agent_carve(struct agent_job *job);
/* Function 1 has let go of what was carved: nobody writes there any more. */
bool agent_carved(const struct agent_job *job);
/* Function 1 answered the RESET of that slot field. */
void agent_carve_answered(struct agent_job *job, uint32_t mark);
/* The round of an own sum is over: its memory is kept for the next one, if it is of use. */
void agent_carve_over(struct agent_job *job, struct agent_sum *sum);
void agent_carve_forget(struct agent_job *job); /* the memory kept so */

/* ---- imports.c ---- */
void agent_import_begin(struct agent_link *link, const struct trib_link_message *message);
void agent_import_done(struct agent_link *link, const struct trib_link_message *message);
/* Asks the record whether a complete sum may be taken over. */
void agent_import_claim(struct agent_job *job, struct agent_sum *sum);
/* The connection is gone: nobody waits for answers on it. */
void agent_imports_unlink(struct agent *agent, uint32_t link);

/* ---- models.c: the files of versions, carried to this node ---- */
/* Makes sure that the version's file is here (asks where it is, fetches and checks it). */
void agent_models_want(struct agent *agent, const char *job, uint32_t version);
void agent_key_ask(struct agent *agent);
/* Are the files here that the top needs? Else they are wanted. */
TRIB_MUST_CHECK bool agent_models_ready(struct agent_job *job);
/* Of every answer about a job: the versions a node of the job needs. */
void agent_models_synced(struct agent_job *job, const struct trib_value *sync);

/* ---- gone.c: the newest version is on no node any more ---- */
/* It is neither in memory nor a file here, and nobody gave it. */
void agent_gone_missed(struct agent *agent, const char *job, uint32_t version, const char *digest);
/* It is here. */
void agent_gone_found(struct agent *agent, const char *job, uint32_t version, const char *digest);
/* + 1: the older version, with its file here, whose bytes are this one's; 0 none. */
uint32_t agent_gone_source(const struct agent *agent, const char *job, uint32_t version);
void agent_gone_tick(struct agent *agent, uint64_t now_ms);

/* ---- transfer.c ---- */
struct agent_transfer {
	struct agent *agent;
	void (*done)(struct agent_transfer *transfer); /* on the loop; freed after it */
	char job[TRIB_JOB_ID_SIZE];
	uint32_t round; /* or version */
	uint32_t part;
	int fd; /* of a sum: owned */
	uint64_t offset;
	uint64_t bytes;
	struct trib_peer peer;
	char url[8][256]; /* one for a sum; of a model any */
	uint32_t url_count;
	char digest[40];
	char to[TRIB_PEER_NODE_SIZE];
	uint32_t source; /* + 1: of a model: the version whose file here has its bytes; 0 none */
	bool fetched;    /* of a model: it came from another node */
	bool absent;     /* of a model: there was no (good) file here */
	long status;     /* of the answer, 0 none */
	int rc;
	char error[160];
};
/* Zeroed, fd -1; NULL when there are too many. Freed by itself after done. */
struct agent_transfer *agent_transfer_new(struct agent *agent,
					  void (*done)(struct agent_transfer *transfer));
void agent_transfer_free(struct agent_transfer *transfer); /* one that was not started */
TRIB_MUST_CHECK int agent_transfer_sum(struct agent_transfer *transfer);
TRIB_MUST_CHECK int agent_transfer_model(struct agent_transfer *transfer);

#endif
