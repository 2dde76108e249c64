/* SPDX-License-Identifier: Apache-2.0
 * The directory of `tributary up`: DIR/{redis,models,logs,run}, the lock that lets one `up` use it,
 * and the short directory that sockets are in when DIR is too long for a unix socket's path.
 */
#ifndef TRIB_CLIENT_CLI_UP_PATHS_H
#define TRIB_CLIENT_CLI_UP_PATHS_H

#include "common/base.h"

#define UP_DIR_MAX    3072
#define UP_PATH_MAX   4096
#define UP_SOCKET_MAX 108 /* sun_path */

struct up_paths {
	char dir[UP_DIR_MAX];     /* absolute */
	char run[UP_DIR_MAX + 8]; /* where the sockets are */
	char logs[UP_PATH_MAX];
	bool run_elsewhere; /* run is not DIR/run: DIR was too long */
	int lock_fd; /* inherited by the children: DIR is free when the last of them is gone */
};

/* Makes the directories (0700), locks. `logs` may be NULL: DIR/logs. Waits up to 8 s for the
 * children of an `up` that was killed; refuses at once when one is alive. Returns an enum cli_exit,
 * having told why. */
int up_paths_open(struct up_paths *paths, const char *dir, const char *logs);
/* Removes sockets, endpoints.json and the run directory; unlocks. Also after a failed open. */
void up_paths_close(struct up_paths *paths);

/* "<run>/<name>" into out[UP_PATH_MAX]; the length was made to fit by up_paths_open. */
void up_socket_path(const struct up_paths *paths, const char *name, char *out);
/* Writes text to DIR/<name>, atomically. 0 or -errno. */
TRIB_MUST_CHECK int up_write_file(const struct up_paths *paths, const char *name, const char *text);

#endif
