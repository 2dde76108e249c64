/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli/up_config.h"
#include "client/cli/up_probe.h"
#include "client/cli/up_say.h"
#include "common/clock.h"
#include "common/httpd.h"
#include "common/json.h"
#include "common/loop.h"
#include "shm/keeper.h"

#define PROBE_EVERY_MS   100
#define TELL_EVERY_MS    5000
#define STOP_STAGE_MS    5000
#define GIVE_UP_AFTER    6 /* failures in a row of a program that never became ready */
#define LEFTOVER_TURNS   40
#define LEFTOVER_STEP_MS 50

enum up_phase {
	PHASE_REDIS,
	PHASE_SERVICES,
	PHASE_STOPPING
};

struct up;
struct seat { /* callback argument of one child */
	struct up *up;
	int who;
	struct up_probe *probe;
	struct trib_timer *restart;
	char why[200]; /* not ready, as it said last */
};

struct up {
	struct up_config config;
	struct up_paths paths;
	struct up_child children[UP_COUNT];
	struct seat seats[UP_COUNT];
	struct trib_loop *loop;
	struct trib_keeper *keeper;
	struct trib_timer *probe_timer;
	struct trib_timer *stop_timer;
	int api_fd;
	int data_fd;
	enum up_phase phase;
	int stage; /* of stopping */
	bool ready;
	bool was_ready;
	uint64_t told_ms;
	uint64_t began_ms;
	int exit_code;
};

static const char *const names[UP_COUNT] = { "redis", "orchestrator", "agent", "gateway" };
static const unsigned stop_stages[] = { 1u << UP_GATEWAY, 1u << UP_AGENT | 1u << UP_ORCHESTRATOR,
					1u << UP_REDIS };

static bool is_ours(const struct up *up, int who)
{
	return up->children[who].word_count > 0;
}

/* ---- endpoints.json ---- */

static void write_endpoints(struct up *up)
{
	json_t *root = json_object();
	json_t *admin = json_object();
	json_t *pids = json_object();
	char path[UP_PATH_MAX];
	char *text;
	int rc = -ENOMEM;

	for (int i = UP_ORCHESTRATOR; i < UP_COUNT; i++) {
		char name[64];

		if (!is_ours(up, i)) {
			continue;
		}
		(void)snprintf(name, sizeof(name), "%s.admin.sock", names[i]);
		up_socket_path(&up->paths, name, path);
		(void)json_object_set_new(admin, names[i], json_sprintf("unix:%s", path));
	}
	(void)json_object_set_new(pids, "up", json_integer(getpid()));
	for (int i = 0; i < UP_COUNT; i++) {
		if (is_ours(up, i)) {
			(void)json_object_set_new(pids, names[i],
						  json_integer(up->children[i].pid));
		}
	}
	if (is_ours(up, UP_ORCHESTRATOR)) {
		(void)json_object_set_new(root, "api", json_string(up->config.api_url));
	}
	(void)json_object_set_new(root, "data", json_string(up->config.data_url_text));
	(void)json_object_set_new(root, "admin", admin);
	(void)json_object_set_new(root, "redis", json_string(up->config.redis_address));
	(void)json_object_set_new(root, "node", json_string(up->config.node));
	(void)json_object_set_new(root, "dir", json_string(up->paths.dir));
	(void)json_object_set_new(root, "ready", json_boolean(up->ready));
	(void)json_object_set_new(root, "pids", pids);
	text = trib_json_print(root);
	if (text) {
		rc = up_write_file(&up->paths, "endpoints.json", text);
	}
	if (rc) {
		up_say("up", "endpoints.json: %s", strerror(-rc));
	}
	trib_free(text);
	json_decref(root);
}

/* ---- stopping ---- */

static void begin_stage(struct up *up)
{
	for (; up->stage < (int)TRIB_COUNT(stop_stages); up->stage++) {
		bool any = false;

		for (int i = 0; i < UP_COUNT; i++) {
			if ((stop_stages[up->stage] & 1u << i) && up->children[i].pid) {
				up_child_signal(&up->children[i], SIGTERM);
				any = true;
			}
		}
		if (any) {
			trib_timer_after(up->stop_timer, STOP_STAGE_MS);
			return;
		}
	}
	trib_loop_stop(up->loop);
}

static void on_stage_late(void *arg)
{
	struct up *up = arg;

	for (int i = 0; i < UP_COUNT; i++) {
		if ((stop_stages[up->stage] & 1u << i) && up->children[i].pid) {
			up_say(names[i], "does not end: killing it");
			up_child_signal(&up->children[i], SIGKILL);
		}
	}
}

static void begin_stopping(struct up *up, int exit_code)
{
	if (up->phase == PHASE_STOPPING) {
		return;
	}
	up->phase = PHASE_STOPPING;
	up->exit_code = exit_code;
	trib_timer_stop(up->probe_timer);
	for (int i = 0; i < UP_COUNT; i++) {
		trib_timer_stop(up->seats[i].restart);
		if (up->seats[i].probe) {
			up_probe_cancel(up->seats[i].probe);
		}
	}
	up->stage = 0;
	begin_stage(up);
}

static void on_end_signal(int signal_number, void *arg)
{
	struct up *up = arg;

	if (up->phase != PHASE_STOPPING) {
		up_say("up", "stopping (%s)", signal_number == SIGINT ? "Ctrl-C" : "signal");
		begin_stopping(up, CLI_OK);
		return;
	}
	if (signal_number != SIGINT) {
		return; /* in order, as begun */
	}
	up_say("up", "killing what still runs");
	for (int i = 0; i < UP_COUNT; i++) {
		up_child_signal(&up->children[i], SIGKILL);
	}
}

/* ---- starting, again and again ---- */

static void start(struct up *up, int who)
{
	struct up_child *child = &up->children[who];
	int rc = up_child_start(child);

	if (rc) {
		up_say(names[who], "cannot be started: %s", strerror(-rc));
		child->failures++;
		trib_timer_after(up->seats[who].restart, up_child_backoff(child) + 100);
		return;
	}
	(void)snprintf(up->seats[who].why, sizeof(up->seats[who].why), "starting");
	trib_timer_every(up->probe_timer, PROBE_EVERY_MS);
	write_endpoints(up);
}

static void on_restart(void *arg)
{
	struct seat *seat = arg;

	if (seat->up->phase != PHASE_STOPPING && !seat->up->children[seat->who].pid) {
		seat->up->children[seat->who].restarts++;
		start(seat->up, seat->who);
	}
}

static void start_services(struct up *up)
{
	up->phase = PHASE_SERVICES;
	for (int i = UP_ORCHESTRATOR; i < UP_COUNT; i++) {
		if (is_ours(up, i)) {
			start(up, i);
		}
	}
}

static bool hopeless(const struct up_child *child, int status)
{
	return !child->was_ready && (status == CLI_USAGE || status == 126 || status == 127 ||
				     child->failures >= GIVE_UP_AFTER);
}

static void on_child_end(struct up *up, int who, int status)
{
	struct up_child *child = &up->children[who];
	char how[64];
	uint64_t wait;
	int code = up_child_ended(child, status, how, sizeof(how));

	if (up->phase == PHASE_STOPPING) {
		if (code != 0) {
			up_say(names[who], "%s", how);
		}
		begin_stage(up);
		return;
	}
	up->ready = false;
	if (hopeless(child, code)) {
		up_say(names[who], "%s%s: giving up", how,
		       code == 127 ? " (not found or not executable)" : "");
		up_child_tail(child);
		begin_stopping(up, CLI_FAILED);
		return;
	}
	wait = up_child_backoff(child);
	up_say(names[who], "%s; starting it again%s", how, wait ? " in a moment" : "");
	trib_timer_after(up->seats[who].restart, wait);
}

static void on_child_signal(int signal_number, void *arg)
{
	struct up *up = arg;
	int status;
	pid_t pid;

	(void)signal_number;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < UP_COUNT; i++) {
			if (up->children[i].pid == pid) {
				on_child_end(up, i, status);
				break;
			}
		}
	}
}

/* ---- readiness ---- */

static void print_summary(const struct up *up)
{
	char path[UP_PATH_MAX];

	up_socket_path(&up->paths, "gateway.admin.sock", path);
	up_say("up", "ready after %llu ms", (unsigned long long)(trib_clock_ms() - up->began_ms));
	if (up->config.join) {
		(void)fprintf(stderr, "  node   %s of the cluster at %s\n", up->config.node,
			      up->config.redis_address);
	} else {
		(void)fprintf(stderr, "  api    %s\n", up->config.api_url);
	}
	(void)fprintf(stderr, "  data   %s\n  redis  %s\n  dir    %s (endpoints.json, %s)\n",
		      up->config.data_url_text, up->config.redis_address, up->paths.dir,
		      up->config.log_stderr ? "logs here" : "logs/");
	if (!up->config.join) {
		(void)fprintf(stderr, "  try    tributary --help; TRIBUTARY_API=%s tributary get\n",
			      up->config.api_url);
	}
	(void)fprintf(stderr, "         curl --unix-socket %s http://x/metrics\n", path);
}

static void look_whether_ready(struct up *up)
{
	bool tell = trib_clock_ms() - up->told_ms >= TELL_EVERY_MS;
	bool all = up->phase == PHASE_SERVICES;

	for (int i = 0; i < UP_COUNT; i++) {
		if (!is_ours(up, i) || up->children[i].ready) {
			continue;
		}
		all = false;
		if (tell && up->children[i].pid) {
			up_say(names[i], "not ready: %s", up->seats[i].why);
			up->told_ms = trib_clock_ms();
		}
	}
	if (!all) {
		return;
	}
	trib_timer_stop(up->probe_timer);
	up->ready = true;
	write_endpoints(up);
	if (up->was_ready) {
		up_say("up", "ready again");
	} else {
		print_summary(up);
	}
	up->was_ready = true;
}

/* What a 503 of readyz says. */
static void keep_reason(struct seat *seat, const char *answer)
{
	const char *body = strstr(answer, "\r\n\r\n");
	char reason[160];
	json_t *problem = NULL;

	(void)snprintf(seat->why, sizeof(seat->why), "%s",
		       *answer ? "its answer makes no sense" : "no answer yet");
	if (body && !trib_json_parse(body + 4, strlen(body + 4), &problem, reason)) {
		const char *title = trib_json_text(problem, "title", "not ready");

		(void)snprintf(seat->why, sizeof(seat->why), "%s",
			       trib_json_text(problem, "detail", title));
	}
	json_decref(problem);
}

static void on_answer(const char *answer, void *arg)
{
	struct seat *seat = arg;
	struct up *up = seat->up;
	struct up_child *child = &up->children[seat->who];
	bool ok = seat->who == UP_REDIS
			  ? strncmp(answer, "+PONG", 5) == 0 || strncmp(answer, "-NOAUTH", 7) == 0
			  : strncmp(answer, "HTTP/1.1 200", 12) == 0;

	if (!child->pid || up->phase == PHASE_STOPPING) {
		return;
	}
	if (!ok) {
		keep_reason(seat, answer);
		return;
	}
	child->ready = true;
	child->was_ready = true;
	if (seat->who == UP_REDIS && up->phase == PHASE_REDIS) {
		start_services(up);
	}
	look_whether_ready(up);
}

static void on_probe_time(void *arg)
{
	struct up *up = arg;

	for (int i = 0; i < UP_COUNT; i++) {
		if (up->children[i].pid && !up->children[i].ready) {
			up_probe_ask(up->seats[i].probe);
		}
	}
	look_whether_ready(up);
}

/* ---- making and unmaking ---- */

static int listen_on(const char *option, const char *address, int *ret_fd)
{
	int rc = trib_listen(address, ret_fd);

	if (rc) {
		cli_say("--%s %s: %s", option, address, strerror(-rc));
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int make_seat(struct up *up, int who)
{
	static const char http[] = "GET /readyz HTTP/1.1\r\nHost: up\r\nConnection: close\r\n\r\n";
	struct seat *seat = &up->seats[who];
	char path[UP_PATH_MAX];
	char name[64];
	int rc;

	seat->up = up;
	seat->who = who;
	(void)snprintf(name, sizeof(name), "%s%s", names[who],
		       who == UP_REDIS ? ".sock" : ".admin.sock");
	up_socket_path(&up->paths, name, path);
	rc = trib_timer_new(up->loop, on_restart, seat, &seat->restart);
	return rc ? rc
		  : up_probe_new(up->loop, path, who == UP_REDIS ? "PING\r\n" : http,
				 who == UP_REDIS ? "\r\n" : NULL, on_answer, seat, &seat->probe);
}

static int make_all(struct up *up)
{
	char path[UP_PATH_MAX];
	int rc = trib_loop_new(&up->loop);

	up_socket_path(&up->paths, "keeper.sock", path);
	rc = rc ? rc : trib_timer_new(up->loop, on_probe_time, up, &up->probe_timer);
	rc = rc ? rc : trib_timer_new(up->loop, on_stage_late, up, &up->stop_timer);
	rc = rc ? rc : trib_loop_on_signal(up->loop, SIGTERM, on_end_signal, up);
	rc = rc ? rc : trib_loop_on_signal(up->loop, SIGINT, on_end_signal, up);
	rc = rc ? rc : trib_loop_on_signal(up->loop, SIGHUP, on_end_signal, up);
	rc = rc ? rc : trib_loop_on_signal(up->loop, SIGCHLD, on_child_signal, up);
	for (int i = 0; i < UP_COUNT && !rc; i++) {
		rc = make_seat(up, i);
	}
	rc = rc ? rc : trib_keeper_new(up->loop, path, &up->keeper);
	if (rc) {
		cli_say("up: %s", strerror(-rc));
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* Grandchildren come to us when their parent dies (subreaper): none may outlive us. */
static void end_leftovers(void)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	for (int turn = 0; turn < LEFTOVER_TURNS; turn++) {
		FILE *file = fopen(path, "re");
		int pid;

		while (waitpid(-1, NULL, WNOHANG) > 0) {
		}
		while (file && fscanf(file, "%d", &pid) == 1) { /* NOLINT(cert-err34-c) */
			(void)kill(pid, SIGKILL);
		}
		if (file) {
			(void)fclose(file);
		}
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD) {
			return;
		}
		(void)poll(NULL, 0, LEFTOVER_STEP_MS);
	}
	up_say("up", "some processes could not be ended");
}

static void unmake(struct up *up)
{
	for (int i = 0; i < UP_COUNT; i++) {
		up->seats[i].probe = up_probe_free(up->seats[i].probe);
		up->seats[i].restart = trib_timer_free(up->seats[i].restart);
		up_child_fini(&up->children[i]);
	}
	up->keeper = trib_keeper_free(up->keeper);
	up->probe_timer = trib_timer_free(up->probe_timer);
	up->stop_timer = trib_timer_free(up->stop_timer);
	trib_loop_free(up->loop);
	if (up->api_fd >= 0) {
		(void)close(up->api_fd);
	}
	if (up->data_fd >= 0) {
		(void)close(up->data_fd);
	}
	up_paths_close(&up->paths);
}

static void raise_limits(const struct up_config *config)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (config->die_with_parent) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	}
}

static int run(struct up *up)
{
	int rc = up_paths_open(&up->paths, up->config.dir, up->config.log_dir);

	rc = rc || up->config.join ? rc : listen_on("api", up->config.api, &up->api_fd);
	rc = rc ? rc : listen_on("data", up->config.data, &up->data_fd);
	rc = rc ? rc : make_all(up);
	rc = rc ? rc : up_config_users(&up->config, &up->paths);
	if (rc) {
		return rc;
	}
	raise_limits(&up->config);
	up_config_urls(&up->config, up->api_fd >= 0 ? trib_listen_port(up->api_fd) : 0,
		       trib_listen_port(up->data_fd));
	up_config_children(&up->config, &up->paths, up->api_fd, up->data_fd, up->children);
	up->began_ms = up->told_ms = trib_clock_ms();
	if (is_ours(up, UP_REDIS)) {
		up->phase = PHASE_REDIS;
		start(up, UP_REDIS);
	} else {
		start_services(up);
	}
	rc = trib_loop_run(up->loop);
	end_leftovers();
	return rc ? CLI_FAILED : up->exit_code;
}

int cli_up(const struct cli_command *command, int argc, char **argv)
{
	struct up *up = trib_alloc(sizeof(*up));
	int rc;

	if (!up) {
		cli_say("up: out of memory");
		return CLI_FAILED;
	}
	up->api_fd = -1;
	up->data_fd = -1;
	up->paths.lock_fd = -1;
	for (int i = 0; i < UP_COUNT; i++) {
		up_child_init(&up->children[i], names[i]);
	}
	if (up_config_read(&up->config, command, argc, argv, &rc) == CLI_OK) {
		rc = run(up);
		if (up->phase == PHASE_STOPPING) {
			up_say("up", "stopped");
		}
	}
	unmake(up);
	trib_free(up);
	return rc;
}
