/* SPDX-License-Identifier: Apache-2.0
 * Model files, written and removed by one thread of the agent. From a version's memory straight to
 * the disk (O_DIRECT, where the file system takes it): no page of the cache is touched, which costs
 * 2 to 4 s per GB on a virtual machine. fsync, rename, fsync of the directory.
 */
#ifndef TRIB_AGENT_FILER_H
#define TRIB_AGENT_FILER_H

#include "common/loop.h"
#include "shm/segment.h"

#define AGENT_FILE_ALIGN 4096u /* of blocks and memory, for O_DIRECT */

struct agent_filer;

struct agent_file {
	char job[TRIB_JOB_ID_SIZE];
	uint32_t version;
	bool remove;           /* the version's file is removed; done is not called */
	bool cancelled;        /* the filer's */
	const uint8_t *memory; /* aligned; readable up to the next multiple of AGENT_FILE_ALIGN */
	uint64_t size;
	void *owner;
	int rc; /* 0 or -errno; -ECANCELED: the job was purged meanwhile */
};

/* done: on the loop, once for each agent_filer_put that was not a removal. */
TRIB_MUST_CHECK int agent_filer_new(struct trib_loop *loop, const char *models,
				    void (*done)(struct agent_file *file, void *arg), void *arg,
				    struct agent_filer **ret_filer);
/* Does what is queued, then ends; done is not called any more. NULL allowed; returns NULL. */
struct agent_filer *agent_filer_free(struct agent_filer *filer);
/* -ENOBUFS: too many wait. */
TRIB_MUST_CHECK int agent_filer_put(struct agent_filer *filer, const struct agent_file *file);
/* No file of the job comes into being from now on of what was put before. */
void agent_filer_cancel(struct agent_filer *filer, const char *job);

/* One file, made and on the disk when it returns 0, under the name `path` (replaced if it is
 * there). direct: past the cache; 1 is returned where the file system does not take that. Blocking.
 */
TRIB_MUST_CHECK int agent_file_write(const char *path, const uint8_t *memory, uint64_t size,
				     bool direct);

#endif
