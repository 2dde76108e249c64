/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up_config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/id.h"

#define ARENA_DEFAULT_MAX (2ull << 30)
#define ARENA_MIN         (4ull << 20)

/* A quarter of the memory, 2 GiB at most. */
static uint64_t arena_default(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	long page = sysconf(_SC_PAGESIZE);
	uint64_t quarter = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page / 4 : 0;

	if (quarter > ARENA_DEFAULT_MAX) {
		return ARENA_DEFAULT_MAX;
	}
	return quarter < ARENA_MIN ? ARENA_MIN : quarter >> 20 << 20;
}

/* The host's name as a DNS label. */
static void node_default(char out[64])
{
	char host[256] = "";
	size_t size = 0;

	(void)gethostname(host, sizeof(host) - 1);
	for (const char *c = host; *c && *c != '.' && size < 60; c++) {
		char low = (char)tolower((unsigned char)*c);

		if ((low >= 'a' && low <= 'z') || (low >= '0' && low <= '9')) {
			out[size++] = low;
		} else if (size && out[size - 1] != '-') {
			out[size++] = '-';
		}
	}
	while (size && out[size - 1] == '-') {
		size--;
	}
	out[size] = '\0';
	if (!size) {
		(void)snprintf(out, 64, "node");
	}
}

static int find_programs(struct up_config *config)
{
	static const char *const names[] = { "tributary-orchestrator", "tributary-agent",
					     "tributary-gateway", "tributary-aggregator" };
	char path[UP_PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", config->bin_dir, sizeof(config->bin_dir) - 1);
	char *slash;

	config->bin_dir[size > 0 ? size : 0] = '\0';
	slash = strrchr(config->bin_dir, '/');
	if (!slash) {
		cli_say("cannot tell where this program lies (/proc/self/exe)");
		return CLI_FAILED;
	}
	*slash = '\0';
	for (size_t i = 0; i < TRIB_COUNT(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", config->bin_dir, names[i]);
		if (access(path, X_OK)) {
			cli_say("%s: not there, or not executable", path);
			return CLI_FAILED;
		}
	}
	return CLI_OK;
}

/* Told here rather than by two programs that will not start. */
static int tidy_tls(const struct trib_tls_files *files)
{
	const char *const paths[] = { files->cert, files->key, files->client_ca };

	if (!files->cert != !files->key || (files->client_ca && !files->cert)) {
		cli_say("--tls-cert and --tls-key belong together, --tls-client-ca needs both");
		return CLI_USAGE;
	}
	for (size_t i = 0; i < TRIB_COUNT(paths); i++) {
		if (paths[i] && access(paths[i], R_OK)) {
			cli_say("%s: %s", paths[i], strerror(errno));
			return CLI_USAGE;
		}
	}
	return CLI_OK;
}

/* The file's absolute path: the programs may run elsewhere. */
static int find_file(const char *option, const char **file, char path[UP_PATH_MAX])
{
	char room[PATH_MAX];
	const char *real = *file ? realpath(*file, room) : NULL;
	int rc = real ? trib_copy(path, UP_PATH_MAX, real) : 0;

	if (*file && (!real || rc)) {
		cli_say("--%s: '%s': %s", option, *file,
			real ? "too long a path" : strerror(errno));
		rc = -1;
	} else if (*file) {
		*file = path;
	}
	return rc ? CLI_USAGE : CLI_OK;
}

static int tidy_join(struct up_config *config)
{
	if (config->join && strncmp(config->join, "redis://", 8) == 0) {
		config->join += 8;
	}
	if (config->join && (config->redis || config->redis_listen || !*config->join)) {
		cli_say("--join: the address of the cluster's Redis, without --redis and "
			"--redis-listen");
		return -1;
	}
	if (config->redis_listen && (config->redis || !strchr(config->redis_listen, ':'))) {
		cli_say("--redis-listen: HOST:PORT, without --redis");
		return -1;
	}
	return 0;
}

/* The command line's TRIBUTARY_API is a URL: take it as an address too. */
static int tidy(struct up_config *config)
{
	const char *api = config->api;
	size_t size;

	if (strncmp(api, "http://", 7) == 0) {
		api += 7;
	} else if (config->tls.cert && strncmp(api, "https://", 8) == 0) {
		api += 8;
	}
	size = strcspn(api, "/");
	if (size >= sizeof(config->api_address) || strncmp(api, "https:", 6) == 0) {
		cli_say("--api: '%s' is not HOST:PORT", config->api);
		return CLI_USAGE;
	}
	memcpy(config->api_address, api, size);
	config->api_address[size] = '\0';
	config->api = config->api_address;
	if (!trib_name_valid(config->node)) {
		cli_say("--node: '%s' is not a name of a-z, 0-9 and '-'", config->node);
		return CLI_USAGE;
	}
	if (config->transport && strcmp(config->transport, "auto") != 0 &&
	    strcmp(config->transport, "skmsg") != 0 && strcmp(config->transport, "relay") != 0) {
		cli_say("--transport: '%s' is not auto, skmsg or relay", config->transport);
		return CLI_USAGE;
	}
	return tidy_join(config) ? CLI_USAGE : tidy_tls(&config->tls);
}

static void set_defaults(struct up_config *config)
{
	memset(config, 0, sizeof(*config));
	node_default(config->node_text);
	config->node = config->node_text;
	config->dir = "./tributary-data";
	config->api = "127.0.0.1:8080";
	config->data = "127.0.0.1:8081";
	config->redis_server = "redis-server";
	config->arena_bytes = arena_default();
}

#define TEXT(option, member, value, text)                                              \
	{                                                                              \
		.name = (option), .kind = TRIB_OPTION_TEXT, .target = &config->member, \
		.value_name = (value), .help = (text)                                  \
	}
#define FLAG(option, member, text)                                                     \
	{                                                                              \
		.name = (option), .kind = TRIB_OPTION_FLAG, .target = &config->member, \
		.help = (text)                                                         \
	}

int up_config_read(struct up_config *config, const struct cli_command *command, int argc,
		   char **argv, int *ret_exit)
{
	const struct trib_option table[] = {
		TEXT("dir", dir, "DIR", "everything it keeps"),
		TEXT("api", api, "ADDR", "REST interface; port 0 = any"),
		TEXT("data", data, "ADDR", "clients' interface; port 0 = any"),
		TEXT("data-url", data_url, "URL", "the same as clients reach it"),
		TEXT("redis", redis, "ADDR", "use this Redis, start none"),
		TEXT("redis-user", login.user, "NAME", "ACL user of Redis"),
		TEXT("redis-password-file", login.password_file, "FILE",
		     "its password; our own Redis wants it, too"),
		TEXT("sentinel-user", login.sentinel_user, "NAME", "ACL user of the Sentinels"),
		TEXT("sentinel-password-file", login.sentinel_password_file, "FILE",
		     "its password"),
		TEXT("redis-server", redis_server, "PROGRAM", "what to start"),
		TEXT("redis-listen", redis_listen, "HOST:PORT",
		     "our Redis serves other nodes, too"),
		TEXT("join", join, "ADDR", "be a further node of the cluster whose Redis is there"),
		TEXT("lease-ms", lease_ms, "N", "silent for so long, the node counts as lost"),
		TEXT("node-grace-ms", node_grace_ms, "N", "then, time for it to come back"),
		TEXT("peer-ca", peer_ca, "FILE", "CA of the other nodes' gateways"),
		TRIB_TLS_OPTIONS(&config->tls),
		TEXT("node", node, "NAME", "this node's name"),
		{ .name = "arena-bytes",
		  .kind = TRIB_OPTION_NUMBER,
		  .target = &config->arena_bytes,
		  .min = ARENA_MIN,
		  .max = 1ull << 46,
		  .value_name = "N",
		  .help = "shared memory for updates" },
		TEXT("transport", transport, "auto|skmsg|relay", "how descriptors travel"),
		TEXT("workers", workers, "N", "gateway threads, 0 = cores"),
		TEXT("credit", credit, "N", "descriptors under way per function"),
		TEXT("leaves-max", leaves_max, "N", "leaf functions per job"),
		TEXT("function-idle-ms", function_idle_ms, "N", "idle time before functions exit"),
		TEXT("spares", spares, "N", "functions kept ready for any job, at most"),
		TEXT("capacity", capacity, "N", "updates aggregated at once, for placement"),
		TEXT("nic-bytes-s", nic_bytes_s, "N", "network budget, for placement"),
		TEXT("follow-bytes", follow_bytes, "N",
		     "updates of this size and larger are folded while they arrive; 0: none"),
		TEXT("body-rate-min", body_rate_min, "N", "slowest upload, bytes per second"),
		TEXT("body-grace-ms", body_grace_ms, "N", "before that counts"),
		TEXT("head-timeout-ms", head_timeout_ms, "N", "for a request's head"),
		TEXT("idle-timeout-ms", idle_timeout_ms, "N", "of an idle connection"),
		TEXT("conns-max", conns_max, "N", "connections to the gateway"),
		TEXT("webhook-allow", webhook_allow, "URLS",
		     "beginnings of URLs that jobs may notify"),
		TEXT("operators", operators, "FILE", "operators and the hashes of their keys"),
		TEXT("quotas", quotas, "FILE", "what each tenant may use at once"),
		TEXT("jwt-alg", jwt_alg, "HS256|RS256|ES256", "take operators' JWTs"),
		TEXT("jwt-key", jwt_key, "FILE", "their secret, or public key (PEM)"),
		TEXT("jwt-issuer", jwt_issuer, "TEXT", "their claim iss"),
		TEXT("jwt-audience", jwt_audience, "TEXT", "their claim aud"),
		TEXT("log-dir", log_dir, "DIR", "the programs' logs (DIR/logs)"),
		FLAG("log-stderr", log_stderr, "the programs log here instead"),
		FLAG("die-with-parent", die_with_parent, "end when the starting process ends"),
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 0, .max = 0 };
	char **operands;

	set_defaults(config);
	if (cli_parse(command, argc, argv, table, &rule, &operands, ret_exit) < 0) {
		return -1;
	}
	*ret_exit = tidy(config);
	if (*ret_exit == CLI_OK) {
		*ret_exit = find_file("operators", &config->operators, config->operators_path);
	}
	if (*ret_exit == CLI_OK) {
		*ret_exit = find_file("redis-password-file", &config->login.password_file,
				      config->redis_password_path);
	}
	if (*ret_exit == CLI_OK) {
		*ret_exit =
			find_file("sentinel-password-file", &config->login.sentinel_password_file,
				  config->sentinel_password_path);
	}
	if (*ret_exit == CLI_OK) {
		*ret_exit = find_file("quotas", &config->quotas, config->quotas_path);
	}
	if (*ret_exit == CLI_OK) {
		*ret_exit = find_file("jwt-key", &config->jwt_key, config->jwt_key_path);
	}
	if (*ret_exit == CLI_OK) {
		*ret_exit = find_programs(config);
	}
	return *ret_exit == CLI_OK ? CLI_OK : -1;
}

static void make_url(const char *scheme, const char *address, unsigned port, char out[UP_URL_MAX])
{
	const char *colon = strrchr(address, ':');
	int size = colon ? (int)(colon - address) : 0;

	if (size == 0 || size > 200 || strncmp(address, "0.0.0.0:", 8) == 0 ||
	    strncmp(address, "[::]:", 5) == 0) {
		(void)snprintf(out, UP_URL_MAX, "%s://127.0.0.1:%u", scheme, port);
	} else {
		(void)snprintf(out, UP_URL_MAX, "%s://%.*s:%u", scheme, size, address, port);
	}
}

void up_config_urls(struct up_config *config, unsigned api_port, unsigned data_port)
{
	const char *scheme = config->tls.cert ? "https" : "http";

	make_url(scheme, config->api, api_port, config->api_url);
	if (config->data_url) {
		(void)snprintf(config->data_url_text, UP_URL_MAX, "%s", config->data_url);
	} else {
		make_url(scheme, config->data, data_port, config->data_url_text);
	}
}

static void program(struct up_child *child, const struct up_config *config,
		    const struct up_paths *paths, const char *name)
{
	char admin[UP_PATH_MAX];
	char file[64];

	up_child_word(child, "%s/tributary-%s", config->bin_dir, name);
	(void)snprintf(file, sizeof(file), "%s.admin.sock", name);
	up_socket_path(paths, file, admin);
	up_child_word(child, "--admin");
	up_child_word(child, "unix:%s", admin);
	up_child_option(child, "redis", config->redis_address);
	up_child_option(child, "redis-user", config->login.user);
	up_child_option(child, "redis-password-file", config->login.password_file);
	up_child_option(child, "sentinel-user", config->login.sentinel_user);
	up_child_option(child, "sentinel-password-file", config->login.sentinel_password_file);
}

static void tls_words(const struct trib_tls_files *files, struct up_child *child)
{
	up_child_option(child, "tls-cert", files->cert);
	up_child_option(child, "tls-key", files->key);
	up_child_option(child, "tls-client-ca", files->client_ca);
}

static void access_words(const struct up_config *config, struct up_child *child)
{
	up_child_option(child, "operators", config->operators);
	up_child_option(child, "jwt-alg", config->jwt_alg);
	up_child_option(child, "jwt-key", config->jwt_key);
	up_child_option(child, "jwt-issuer", config->jwt_issuer);
	up_child_option(child, "jwt-audience", config->jwt_audience);
}

#define USERS "redis-users.conf"

/* Hashes only; who is not named cannot log in. */
int up_config_users(const struct up_config *config, const struct up_paths *paths)
{
	const char *user = config->login.user;
	char password[TRIB_REDIS_PASSWORD_MAX + 1];
	char hash[TRIB_SHA256_TEXT_SIZE];
	char text[512];
	int rc;

	if (!config->login.password_file || config->redis || config->join) {
		return CLI_OK;
	}
	if (user && (!trib_client_id_valid(user) || strcmp(user, "default") == 0)) {
		cli_say("--redis-user: 1 to 64 of A-Z a-z 0-9 . _ : -, and not 'default'");
		return CLI_USAGE;
	}
	rc = trib_redis_password(config->login.password_file, password);
	rc = rc ? rc : trib_sha256(password, strlen(password), hash);
	explicit_bzero(password, sizeof(password));
	if (rc) {
		cli_say("--redis-password-file: %s", strerror(-rc));
		return CLI_USAGE;
	}
	(void)snprintf(text, sizeof(text), "%suser %s on #%s ~* &* +@all\n",
		       user ? "user default off\n" : "", user ? user : "default", hash);
	rc = up_write_file(paths, USERS, text);
	if (rc) {
		cli_say("%s/" USERS ": %s", paths->dir, strerror(-rc));
	}
	return rc ? CLI_FAILED : CLI_OK;
}

static void redis_words(const struct up_config *config, const struct up_paths *paths,
			struct up_child *child)
{
	char socket_path[UP_PATH_MAX];

	up_socket_path(paths, "redis.sock", socket_path);
	up_child_word(child, "%s", config->redis_server);
	if (config->login.password_file) {
		up_child_word(child, "%s/" USERS, paths->dir);
	}
	if (config->redis_listen) {
		const char *colon = strrchr(config->redis_listen, ':');

		up_child_option(child, "port", colon + 1);
		up_child_word(child, "--bind");
		up_child_word(child, "%.*s", (int)(colon - config->redis_listen),
			      config->redis_listen);
		up_child_option(child, "protected-mode", "no");
	} else {
		up_child_option(child, "port", "0");
	}
	up_child_option(child, "unixsocket", socket_path);
	up_child_option(child, "unixsocketperm", "700");
	up_child_word(child, "--dir");
	up_child_word(child, "%s/redis", paths->dir);
	up_child_option(child, "daemonize", "no");
	up_child_option(child, "appendonly", "yes");
	/* Not everysec: while a background fsync is slow it answers before it has written, so a
	 * killed redis-server would lose what was acknowledged. */
	up_child_option(child, "appendfsync", "always");
	up_child_option(child, "save", "");
	up_child_option(child, "maxmemory-policy", "noeviction");
	up_child_option(child, "databases", "1");
	up_child_option(child, "always-show-logo", "no");
	child->prompt = true;
	up_child_option(child, "hz", "1"); /* ten times less when idle; it rises with clients */
}

static void orchestrator_words(const struct up_config *config, const struct up_paths *paths,
			       int api_fd, struct up_child *child)
{
	program(child, config, paths, "orchestrator");
	up_child_word(child, "--listen");
	up_child_word(child, "fd:%d", api_fd);
	up_child_option(child, "id", config->node);
	up_child_option(child, "node-grace-ms", config->node_grace_ms);
	up_child_option(child, "webhook-allow", config->webhook_allow);
	up_child_option(child, "api-url", config->api_url);
	up_child_option(child, "quotas", config->quotas);
	up_child_option(child, "data-url", config->data_url_text);
	tls_words(&config->tls, child);
	child->fds[child->fd_count++] = api_fd;
	access_words(config, child);
}

void up_config_children(struct up_config *config, const struct up_paths *paths, int api_fd,
			int data_fd, struct up_child children[UP_COUNT])
{
	char agent[UP_PATH_MAX];
	char keeper[UP_PATH_MAX];
	char path[UP_PATH_MAX];
	char number[24];

	if (config->redis) {
		(void)snprintf(config->redis_address, sizeof(config->redis_address), "%s",
			       config->redis);
	} else if (config->join) {
		(void)snprintf(config->redis_address, sizeof(config->redis_address), "%s",
			       config->join);
	} else {
		up_socket_path(paths, "redis.sock", path);
		(void)snprintf(config->redis_address, sizeof(config->redis_address), "unix:%s",
			       path);
		redis_words(config, paths, &children[UP_REDIS]);
	}
	up_socket_path(paths, "agent.sock", agent);
	up_socket_path(paths, "keeper.sock", keeper);

	if (!config->join) {
		orchestrator_words(config, paths, api_fd, &children[UP_ORCHESTRATOR]);
	}
	program(&children[UP_AGENT], config, paths, "agent");
	(void)snprintf(number, sizeof(number), "%llu", (unsigned long long)config->arena_bytes);
	up_child_option(&children[UP_AGENT], "node", config->node);
	up_child_option(&children[UP_AGENT], "socket", agent);
	up_child_option(&children[UP_AGENT], "keeper", keeper);
	up_child_option(&children[UP_AGENT], "arena-bytes", number);
	up_child_option(&children[UP_AGENT], "transport", config->transport);
	up_child_option(&children[UP_AGENT], "credit", config->credit);
	up_child_option(&children[UP_AGENT], "leaves-max", config->leaves_max);
	up_child_option(&children[UP_AGENT], "idle-ms", config->function_idle_ms);
	up_child_option(&children[UP_AGENT], "spares", config->spares);
	up_child_option(&children[UP_AGENT], "capacity", config->capacity);
	up_child_option(&children[UP_AGENT], "nic-bytes-s", config->nic_bytes_s);
	up_child_option(&children[UP_AGENT], "data-url", config->data_url_text);
	up_child_option(&children[UP_AGENT], "lease-ms", config->lease_ms);
	up_child_option(&children[UP_AGENT], "peer-ca",
			config->peer_ca ? config->peer_ca : config->tls.client_ca);
	up_child_option(&children[UP_AGENT], "peer-cert", config->tls.cert);
	up_child_option(&children[UP_AGENT], "peer-key", config->tls.key);
	up_child_word(&children[UP_AGENT], "--aggregator");
	up_child_word(&children[UP_AGENT], "%s/tributary-aggregator", config->bin_dir);

	program(&children[UP_GATEWAY], config, paths, "gateway");
	up_child_word(&children[UP_GATEWAY], "--listen");
	up_child_word(&children[UP_GATEWAY], "fd:%d", data_fd);
	up_child_option(&children[UP_GATEWAY], "node", config->node);
	up_child_option(&children[UP_GATEWAY], "agent", agent);
	up_child_option(&children[UP_GATEWAY], "workers", config->workers);
	up_child_option(&children[UP_GATEWAY], "body-rate-min", config->body_rate_min);
	up_child_option(&children[UP_GATEWAY], "follow-bytes", config->follow_bytes);
	up_child_option(&children[UP_GATEWAY], "body-grace-ms", config->body_grace_ms);
	up_child_option(&children[UP_GATEWAY], "head-timeout-ms", config->head_timeout_ms);
	up_child_option(&children[UP_GATEWAY], "idle-timeout-ms", config->idle_timeout_ms);
	up_child_option(&children[UP_GATEWAY], "conns-max", config->conns_max);
	tls_words(&config->tls, &children[UP_GATEWAY]);
	children[UP_GATEWAY].fds[children[UP_GATEWAY].fd_count++] = data_fd;

	access_words(config, &children[UP_GATEWAY]);
	for (int i = UP_AGENT; i <= UP_GATEWAY; i++) {
		up_child_word(&children[i], "--models");
		up_child_word(&children[i], "%s/models", paths->dir);
	}
	for (int i = 0; i < UP_COUNT; i++) {
		if (children[i].word_count == 0) {
			continue; /* not ours */
		}
		children[i].fds[children[i].fd_count++] = paths->lock_fd;
		if (!config->log_stderr) {
			up_child_log(&children[i], paths->logs);
		}
	}
}
