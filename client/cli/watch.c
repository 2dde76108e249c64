/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/watch.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/api.h"
#include "client/cli/table.h"
#include "common/clock.h"

#define POLL_EVERY_MS     2000
#define POLL_EVENT_MS     200   /* at most so often because of events */
#define UNREACHABLE_MS    60000 /* then give up */
#define AGAIN_MS          500
#define BAR               24
#define SHOWN_MEMBERS_MAX 8

struct watch {
	struct cli_service service;
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	json_t *job; /* as fetched last */
	bool live;   /* stderr is a terminal */
	bool json;   /* events as JSON lines on stdout */
	bool dirty;  /* an event came */
	uint64_t fetched_ms;
	uint64_t reached_ms;
	long long extra; /* updates counted since */
	char last_id[64];
	int verdict; /* -1 until over */
};

static void draw(struct watch *w)
{
	long long goal = trib_json_integer(w->job, "status.progress.goal", 0);
	long long accepted = trib_json_integer(w->job, "status.progress.accepted", 0) + w->extra;
	char metrics[CLI_CELL_SIZE];
	char bar[BAR + 1];

	if (!w->live) {
		return;
	}
	for (int i = 0; i < BAR; i++) {
		bar[i] = goal > 0 && i < accepted * BAR / goal ? '#' : '.';
	}
	bar[BAR] = '\0';
	cli_metrics(trib_json_at(w->job, "status.metrics"), metrics);
	(void)fprintf(stderr, "\r\033[K%s  %s  round %lld  [%s] %lld/%lld  version %lld  %s",
		      trib_json_text(w->job, "metadata.name", w->id),
		      trib_json_text(w->job, "status.phase", "?"),
		      trib_json_integer(w->job, "status.round", 0), bar, accepted, goal,
		      trib_json_integer(w->job, "status.version", -1), metrics);
	(void)fflush(stderr);
}

/* Fetches the job again; decides whether it is over. */
static void refresh(struct watch *w)
{
	json_t *job = NULL;
	int rc = cli_api_quiet(&w->service, "GET", w->path, &job);

	w->fetched_ms = trib_clock_ms();
	w->dirty = false;
	if (rc == CLI_OK && job) {
		json_decref(w->job);
		w->job = job;
		w->extra = 0;
		w->reached_ms = w->fetched_ms;
		if (cli_job_over(job)) {
			w->verdict = cli_job_verdict(job);
		}
	} else if (rc == CLI_REFUSED) {
		w->verdict = CLI_REFUSED;
	} else if (w->fetched_ms - w->reached_ms > UNREACHABLE_MS) {
		cli_say("no answer from %s for %d s", w->service.api, UNREACHABLE_MS / 1000);
		w->verdict = rc == CLI_UNREACHABLE ? CLI_UNREACHABLE : CLI_SERVER;
	}
	draw(w);
}

static void print_event(const char *type, json_t *event)
{
	char when[TRIB_RFC3339_SIZE];
	const char *key;
	json_t *value;
	char metrics[CLI_CELL_SIZE];
	int shown = 0;

	trib_rfc3339(trib_wall_ms(), when);
	(void)printf("%s %s", when, type);
	json_object_foreach(event, key, value)
	{
		if (strcmp(key, "t") == 0 || strcmp(key, "type") == 0 ||
		    shown++ >= SHOWN_MEMBERS_MAX) {
			continue;
		}
		if (json_is_string(value) && *json_string_value(value)) {
			(void)printf(" %s=%s", key, json_string_value(value));
		} else if (json_is_integer(value)) {
			(void)printf(" %s=%lld", key, (long long)json_integer_value(value));
		} else if (json_is_object(value) && json_object_size(value)) {
			cli_metrics(value, metrics);
			(void)printf(" %s", metrics);
		}
	}
	(void)printf("\n");
	(void)fflush(stdout);
}

static void on_event(const char *id, const char *type, const char *data, void *arg)
{
	struct watch *w = arg;
	char reason[160];
	json_t *event = NULL;

	(void)snprintf(w->last_id, sizeof(w->last_id), "%s", id);
	if (trib_json_parse(data, strlen(data), &event, reason)) {
		return;
	}
	if (!*type) {
		type = trib_json_text(event, "t", trib_json_text(event, "type", "event"));
	}
	if (w->json) {
		(void)printf("%s\n", data);
		(void)fflush(stdout);
	} else if (!w->live) {
		print_event(type, event);
	}
	if (strcmp(type, "update.accepted") == 0) {
		w->extra++;
		draw(w);
	}
	w->dirty = true;
	json_decref(event);
}

static bool on_tick(void *arg)
{
	struct watch *w = arg;
	uint64_t since = trib_clock_ms() - w->fetched_ms;

	if (since >= POLL_EVERY_MS || (w->dirty && since >= POLL_EVENT_MS)) {
		refresh(w);
	}
	return w->verdict >= 0;
}

static void follow(struct watch *w)
{
	char url[1024];
	struct trib_client_stream stream = { .url = url,
					     .token = w->service.token,
					     .last_id = w->last_id,
					     .on_event = on_event,
					     .on_tick = on_tick,
					     .arg = w };

	(void)snprintf(url, sizeof(url), "%s%s/events", w->service.api, w->path);
	while (w->verdict < 0) {
		struct trib_client_answer answer;

		/* Lost or refused streams are tried again; the polling in between decides. */
		(void)!trib_client_stream(&stream, &answer);
		trib_client_answer_fini(&answer);
		for (int i = 0; w->verdict < 0 && i < 2; i++) {
			(void)poll(NULL, 0, AGAIN_MS / 2);
			(void)on_tick(w);
		}
	}
}

int cli_watch(const struct cli_command *command, int argc, char **argv)
{
	struct watch w = { .service = CLI_SERVICE_INIT, .verdict = -1 };
	const struct trib_option table[] = { CLI_SERVICE_OPTIONS(w.service), { .name = NULL } };
	int rc;

	rc = cli_one_job(command, argc, argv, table, &w.service, w.id);
	if (rc != CLI_GO_ON) {
		return rc;
	}
	(void)snprintf(w.path, sizeof(w.path), "/v1/jobs/%s", w.id);
	w.json = strcmp(w.service.format, "json") == 0;
	w.live = !w.json && cli_colour(stderr);
	rc = cli_api(&w.service, "GET", w.path, NULL, &w.job);
	if (rc) {
		return rc;
	}
	w.reached_ms = w.fetched_ms = trib_clock_ms();
	if (cli_job_over(w.job)) {
		w.verdict = cli_job_verdict(w.job);
	}
	draw(&w);
	follow(&w);
	if (w.live) {
		(void)fputc('\n', stderr);
	}
	cli_say("job %s: %s after %lld rounds, version %lld%s%s", w.id,
		trib_json_text(w.job, "status.phase", "?"),
		trib_json_integer(w.job, "status.round", 0),
		trib_json_integer(w.job, "status.version", -1),
		*trib_json_text(w.job, "status.reason", "") ? ": " : "",
		trib_json_text(w.job, "status.reason", ""));
	json_decref(w.job);
	return w.verdict;
}
