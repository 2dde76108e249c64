/* SPDX-License-Identifier: Apache-2.0
 * Looks at the service while it is loaded: processes of this machine through /proc, and /metrics of
 * admin interfaces (http:// or unix:/path). Blocking, main thread, once a second.
 */
#ifndef TRIB_CLIENT_LOAD_SERVER_H
#define TRIB_CLIENT_LOAD_SERVER_H

#include <sys/types.h>

#include "client/load/plan.h"

struct load_watched { /* one process */
	char name[32];
	pid_t pid;
	double cpu_first_s;
	double cpu_s; /* now */
	uint64_t rss;
	uint64_t rss_first;
	uint64_t rss_max;
	bool seen;
};

struct load_admin {
	char url[256];
	double copied_first; /* payload_bytes_copied_total, negative: not told */
	double copied;
	double accepted_first; /* updates_accepted_total */
	double accepted;
	double conns;
	double conns_max;
	bool seen;
};

struct load_server {
	struct load_watched processes[LOAD_LIST_MAX];
	unsigned process_count;
	struct load_admin admins[LOAD_LIST_MAX];
	unsigned admin_count;
	uint64_t rss; /* all processes, at the last look */
	uint64_t rss_max;
	double cpu_s;   /* since the first look */
	uint64_t shmem; /* of the machine */
	uint64_t shmem_max;
	uint64_t shmem_first;
};

/* From --pid, --admin and --dir (which may also name the API: plan->service.api). CLI_OK or
 * CLI_USAGE (told). */
int load_server_open(struct load_server *server, struct load_plan *plan);
void load_server_look(struct load_server *server);
json_t *load_server_json(const struct load_server *server, double seconds);

#endif
