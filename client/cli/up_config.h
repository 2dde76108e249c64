/* SPDX-License-Identifier: Apache-2.0
 * What `tributary up` is told, and the command lines of its children made of it.
 */
#ifndef TRIB_CLIENT_CLI_UP_CONFIG_H
#define TRIB_CLIENT_CLI_UP_CONFIG_H

#include "client/cli/cli.h"
#include "client/cli/up_child.h"
#include "client/cli/up_paths.h"
#include "common/redis_login.h"
#include "common/tls.h"

enum up_who {
	UP_REDIS,
	UP_ORCHESTRATOR,
	UP_AGENT,
	UP_GATEWAY,
	UP_COUNT
};

#define UP_URL_MAX 300

struct up_config {
	const char *dir;
	const char *api; /* addresses to listen on */
	const char *data;
	const char *data_url; /* as clients see it; NULL: made of `data` */
	const char *redis;    /* NULL: a private one */
	const char *redis_server;
	const char *node;
	const char *log_dir;
	struct trib_tls_files tls;
	bool log_stderr;
	bool die_with_parent;
	uint64_t arena_bytes;
	/* handed on as they are */
	const char *transport;
	const char *workers;
	const char *credit;
	const char *follow_bytes;
	const char *leaves_max;
	const char *function_idle_ms;
	const char *spares;
	const char *capacity;
	const char *nic_bytes_s;
	const char *body_rate_min;
	const char *body_grace_ms;
	const char *head_timeout_ms;
	const char *idle_timeout_ms;
	const char *conns_max;
	const char *webhook_allow;
	struct trib_redis_login login;
	const char *quotas;
	const char *operators; /* files: made absolute */
	const char *jwt_alg;
	const char *jwt_key;
	const char *jwt_issuer;
	const char *jwt_audience;
	const char *join; /* address of the cluster's Redis: no Redis, no orchestrator here */
	const char *redis_listen;
	const char *lease_ms;
	const char *node_grace_ms;
	const char *peer_ca;
	/* found out */
	char bin_dir[UP_DIR_MAX];
	char operators_path[UP_PATH_MAX];
	char jwt_key_path[UP_PATH_MAX];
	char redis_password_path[UP_PATH_MAX];
	char sentinel_password_path[UP_PATH_MAX];
	char quotas_path[UP_PATH_MAX];
	char api_address[128];
	char node_text[64];
	char api_url[UP_URL_MAX];
	char data_url_text[UP_URL_MAX];
	char redis_address[UP_PATH_MAX + 8];
};

/* Defaults and argv. CLI_OK, or -1 and *ret_exit. Checks that the programs are there. */
int up_config_read(struct up_config *config, const struct cli_command *command, int argc,
		   char **argv, int *ret_exit);
/* URLs from the addresses and the ports really bound. */
void up_config_urls(struct up_config *config, unsigned api_port, unsigned data_port);
/* The words of all children; redis is left empty when it is not ours. Listening sockets are
 * handed over as fd:N. */
void up_config_children(struct up_config *config, const struct up_paths *paths, int api_fd,
			int data_fd, struct up_child children[UP_COUNT]);

/* The users of our own Redis, when a password is wanted: a file that its command line names. An
 * enum cli_exit. */
int up_config_users(const struct up_config *config, const struct up_paths *paths);

#endif
