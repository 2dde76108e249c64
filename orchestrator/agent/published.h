/* SPDX-License-Identifier: Apache-2.0
 * Versions in memory. A finalised model is copied once into a memfd of its job that is laid out as
 * its file: it is hashed there, published, served from there by the gateway and read there as the
 * next round's base. Its file is written afterwards, past the page cache (filer.h).
 *
 *   FREE -> FILLING -> HELD -(published)-> its file -> (next version) -> released -> FREE
 *
 * What a power failure may take is one version at most: a round is not reported before the file of
 * the version before it is on the disk (agent_published_waits). Killed processes lose nothing: the
 * keeper holds each memory ("m:<job>:<name>"), and a page after the file's bytes says what it
 * holds.
 *
 * A memory is filled again only once every gateway that was given it has said that nothing maps it
 * any more; if that cannot be known (a gateway or an agent was lost) it is given up instead.
 *
 * Loop thread only, but for the bytes: the writer's while FILLING.
 */
#ifndef TRIB_AGENT_PUBLISHED_H
#define TRIB_AGENT_PUBLISHED_H

#include "orchestrator/agent/agent.h"

#define AGENT_MODELS_PER_JOB 4u /* memories of one size; more are not made */

enum agent_model_state {
	AGENT_MODEL_FREE,
	AGENT_MODEL_FILLING,
	AGENT_MODEL_HELD
};

struct agent_model {
	struct agent_model *next;
	char job[TRIB_JOB_ID_SIZE];
	uint64_t name; /* never that of another memory */
	enum agent_model_state state;
	int fd;
	int read_fd; /* read-only: what others get */
	uint8_t *memory;
	uint64_t size; /* of the file */
	uint64_t head; /* where its data begin */
	uint32_t version;
	char digest[40];
	bool published; /* the record says so, with this digest */
	bool asking;    /* it is being asked */
	bool filing;    /* the filer has it */
	bool durable;
	bool unwanted;      /* to be released, then FREE or gone */
	bool surplus;       /* gone */
	uint64_t since_ms;  /* HELD */
	uint64_t looked_ms; /* for its job */
	uint64_t failed_ms; /* its file could not be written; 0 = not tried */
	uint32_t owed;      /* links that are to be given it, a bit each */
	uint32_t given;     /* links that have it */
	uint32_t asked;     /* of those: links that were told to release it */
};

/* ---- a round ---- */
/* A memory for the job's next version, its header in place. NULL: none (no v0, no memory). anew:
 * made if none is free; a copy that may come to nothing takes what is there. */
struct agent_model *agent_published_fill(struct agent_job *job, bool anew);
/* The writer is done with it: 0 = it holds `version` (offered to the gateways), or it does not. */
void agent_published_filled(struct agent *agent, struct agent_model *model, int rc,
			    uint32_t version, const char *digest);
/* An older version of the job has no file yet: the next one may not be reported. */
bool agent_published_waits(const struct agent_job *job, uint32_t version);
/* Makes memory ready that the next version will need, while nobody waits for it. */
void agent_published_prepare(struct agent_job *job);
/* The round's base is `base`: older versions are not needed here. */
void agent_published_trim(struct agent_job *job, uint32_t base);

/* ---- what is in memory ---- */
/* Memory has that version, published or not yet known to be. */
bool agent_published_holds(const struct agent *agent, const char *job, uint32_t version);
struct agent_model *agent_published_find(const struct agent *agent, const char *job,
					 uint32_t version);
/* Offers it to the gateways that do not have it. */
void agent_published_offer(struct agent *agent, struct agent_model *model);

/* ---- events ---- */
void agent_published_look(struct agent *agent, const char *job); /* something was published */
void agent_published_purge(struct agent *agent, const char *job);
void agent_published_tick(struct agent *agent, uint64_t now_ms);
void agent_published_link(struct agent *agent, const struct agent_link *link);   /* greeted */
void agent_published_unlink(struct agent *agent, const struct agent_link *link); /* gone */
void agent_published_released(struct agent *agent, const struct agent_link *link,
			      const struct trib_link_message *message);
/* Of the keeper, taken. False: it holds nothing, the keeper may forget it. */
TRIB_MUST_CHECK bool agent_published_adopt(struct agent *agent, int fd);
struct agent_file;
void agent_published_filed(struct agent_file *file, void *arg);
/* At the end: what has no file yet gets one; the filer is stopped. */
void agent_published_stop(struct agent *agent);

/* ---- the memory a job's functions finalise into ---- */
struct agent_out { /* reference-counted, loop thread */
	uint32_t refs;
	int fd;
	const uint8_t *memory; /* a function may write it at any time */
	const uint64_t *word;  /* in it: how far it is final (shm/out.h) */
	uint64_t size;
};
TRIB_MUST_CHECK int agent_out_make(struct agent_job *job); /* 0 also if it has one */
struct agent_out *agent_out_put(struct agent_out *out);    /* NULL allowed; returns NULL */

#endif
