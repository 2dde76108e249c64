/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"

#define READY_MS 30000
#define LOOK_NS  50000000
#define WORDS    16
#define STEPS    10
#define FILE_MAX (1u << 20)

static const unsigned counts[STEPS] = { 1, 2, 4, 8, 12, 16, 24, 32, 48, 64 };

struct step {
	unsigned updates;
	double per_second;
	double refused; /* answers "come again" */
};

struct calibration {
	uint64_t bytes;
	uint64_t most;
	uint64_t rounds;
	double slack; /* time per update may grow so much */
	char dir[64];
	pid_t node;
	char api[128];
	struct step steps[STEPS];
	size_t done;
};

/* This program again. words[0] is its name. */
static pid_t start(const struct calibration *c, char *const words[])
{
	pid_t pid = fork();
	char log[96];
	int fd;

	if (pid == 0) {
		(void)snprintf(log, sizeof(log), "%s/calibrate.log", c->dir);
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0) {
			_exit(CLI_FAILED);
		}
		(void)execv("/proc/self/exe", words);
		_exit(CLI_FAILED);
	}
	return pid;
}

static json_t *read_json(const struct calibration *c, const char *name)
{
	char *text = trib_alloc(FILE_MAX);
	json_t *json = NULL;
	char path[96];
	char reason[160];
	ssize_t size;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", c->dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = fd >= 0 && text ? read(fd, text, FILE_MAX) : -1;
	if (fd >= 0) {
		(void)close(fd);
	}
	if (size <= 0 || trib_json_parse(text, (size_t)size, &json, reason)) {
		json = NULL;
	}
	trib_free(text);
	return json;
}

static int start_node(struct calibration *c)
{
	char *words[] = { "tributary",         "up",     "--dir",       c->dir,   "--api",
			  "127.0.0.1:0",       "--data", "127.0.0.1:0", "--node", "calibrate",
			  "--die-with-parent", NULL };
	uint64_t end = trib_clock_ms() + READY_MS;

	c->node = start(c, words);
	while (c->node > 0 && trib_clock_ms() < end && waitpid(c->node, NULL, WNOHANG) == 0) {
		json_t *json = read_json(c, "endpoints.json");
		bool ready = json && json_is_true(trib_json_at(json, "ready"));

		if (ready) {
			(void)snprintf(c->api, sizeof(c->api), "%s",
				       trib_json_text(json, "api", ""));
		}
		json_decref(json);
		if (ready) {
			return 0;
		}
		(void)nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
	}
	return -ETIMEDOUT;
}

/* Rounds of `count` updates that all come at once. */
static int measure(struct calibration *c, unsigned count)
{
	struct step *step = &c->steps[c->done];
	char number[16];
	char bytes[24];
	char rounds[24];
	char report[96];
	char *words[] = { "tributary", "load",     "--api",   c->api, "--clients", number,
			  "--goal",    number,     "--bytes", bytes,  "--rounds",  rounds,
			  "--quiet",   "--report", report,    NULL };
	json_t *json;
	int status;
	pid_t pid;

	(void)snprintf(number, sizeof(number), "%u", count);
	(void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)c->bytes);
	(void)snprintf(rounds, sizeof(rounds), "%llu", (unsigned long long)c->rounds);
	(void)snprintf(report, sizeof(report), "%s/report.json", c->dir);
	(void)unlink(report);
	pid = start(c, words);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		return -errno;
	}
	json = read_json(c, "report.json");
	*step = (struct step){ .updates = count,
			       .per_second = trib_json_number(json, "totals.goodput_per_s", 0),
			       .refused = trib_json_number(json, "totals.refusals", 0) };
	json_decref(json);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !(step->per_second > 0)) {
		return -EPROTO;
	}
	c->done++;
	return 0;
}

/* The largest number whose time per update is within the slack of the best, nobody turned away. */
static unsigned capacity_of(const struct calibration *c)
{
	unsigned capacity = 1;
	double best = 0;

	for (size_t i = 0; i < c->done; i++) {
		best = c->steps[i].per_second > best ? c->steps[i].per_second : best;
	}
	for (size_t i = 0; i < c->done; i++) {
		if (c->steps[i].per_second * c->slack >= best && c->steps[i].refused <= 0) {
			capacity = c->steps[i].updates;
		}
	}
	return capacity;
}

static void print(const struct calibration *c)
{
	json_t *steps = json_array();
	json_t *json;
	char *text;

	for (size_t i = 0; i < c->done; i++) {
		const struct step *step = &c->steps[i];

		(void)json_array_append_new(steps, json_pack("{s:i,s:f,s:f,s:I}", "updates",
							     (int)step->updates, "updates_per_s",
							     step->per_second, "ms_per_update",
							     1000 / step->per_second, "refusals",
							     (json_int_t)step->refused));
	}
	json = json_pack("{s:i,s:I,s:i,s:o}", "capacity", (int)capacity_of(c), "update_bytes",
			 (json_int_t)c->bytes, "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "steps",
			 steps);
	text = json ? trib_json_print(json) : NULL;
	(void)printf("%s\n", text ? text : "{}");
	trib_free(text);
	json_decref(json);
}

static int forget(const char *path, const struct stat *facts, int kind, struct FTW *where)
{
	(void)facts;
	(void)kind;
	(void)where;
	return remove(path);
}

static void finish(struct calibration *c)
{
	if (c->node > 0 && kill(c->node, SIGTERM) == 0) {
		(void)waitpid(c->node, NULL, 0);
	}
	(void)nftw(c->dir, forget, 16, FTW_DEPTH | FTW_PHYS);
}

int cli_calibrate(const struct cli_command *command, int argc, char **argv)
{
	static struct calibration c = { .bytes = 44700000, .most = 32, .rounds = 4, .slack = 1.25 };
	const struct trib_option table[] = {
		{ "bytes", TRIB_OPTION_NUMBER, &c.bytes, 4, 1ull << 36, "N", "of an update" },
		{ "most", TRIB_OPTION_NUMBER, &c.most, 1, 64, "N",
		  "updates at once, tried at most" },
		{ "rounds", TRIB_OPTION_NUMBER, &c.rounds, 1, 1000, "N", "of each number" },
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 0, .max = 0 };
	char **operands;
	int rc;

	if (cli_parse(command, argc, argv, table, &rule, &operands, &rc) < 0) {
		return rc;
	}
	(void)snprintf(c.dir, sizeof(c.dir), "/tmp/tributary-calibrate-XXXXXX");
	if (!mkdtemp(c.dir)) {
		cli_say("cannot make a directory in /tmp: %s", strerror(errno));
		return CLI_FAILED;
	}
	rc = start_node(&c);
	for (size_t i = 0; rc == 0 && i < STEPS && counts[i] <= c.most; i++) {
		rc = measure(&c, counts[i]);
	}
	if (c.done) {
		print(&c);
	} else {
		cli_say("nothing was measured: %s", strerror(-rc));
	}
	finish(&c);
	return c.done ? CLI_OK : CLI_FAILED;
}
