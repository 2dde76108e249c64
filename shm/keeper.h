/* SPDX-License-Identifier: Apache-2.0
 * The keeper: holds duplicates of the node's memfds under a name, so that they outlive agent and
 * gateway (as systemd's FDSTORE does). It reads no content. `tributary up` serves one in its own
 * loop; a Kubernetes node pod runs `tributary keep`. At most TRIB_KEEPER_MAX entries.
 */
#ifndef TRIB_SHM_KEEPER_H
#define TRIB_SHM_KEEPER_H

#include "common/loop.h"

#define TRIB_KEEPER_MAX  4096u
#define TRIB_KEEPER_NAME 144u
#define TRIB_KEEPER_FDS  2u

struct trib_keeper;

TRIB_MUST_CHECK int trib_keeper_new(struct trib_loop *loop, const char *path,
				    struct trib_keeper **ret_keeper);
struct trib_keeper *trib_keeper_free(struct trib_keeper *keeper);
uint32_t trib_keeper_count(const struct trib_keeper *keeper);

/* Client, blocking but bounded (2 s): on a connection made by trib_unix_connect(path).
 * put: replaces an entry of the same name; returns after the keeper has it. */
TRIB_MUST_CHECK int trib_keeper_put(int connection, const char *name, const int *fds,
				    uint32_t count);
TRIB_MUST_CHECK int trib_keeper_drop(int connection, const char *name); /* 0 also if absent */
/* Calls entry(name, fds, count, arg) for each; fds are taken by the callee. */
TRIB_MUST_CHECK int
trib_keeper_list(int connection,
		 void (*entry)(const char *name, int *fds, uint32_t count, void *arg), void *arg);

#endif
