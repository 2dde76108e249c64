/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/placer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/placement.h"
#include "orchestrator/store_life.h"

#define LOOK_MS   2000 /* agents publish at least every 3 s */
#define NODES_MAX 1024u
#define NAME_SIZE 65
#define ENTRY     (NAME_SIZE + 12) /* name=quota, */

struct orc_placer {
	struct orc_store *store;
	struct orc_leader *leader;
	struct trib_timer *timer;
	bool busy;     /* a reading is under way */
	bool planning; /* plans were written: they may have to be taken back */
	size_t count;
	size_t usable;
	struct orc_place_node nodes[NODES_MAX];
	char names[NODES_MAX][NAME_SIZE];
	uint32_t quotas[NODES_MAX];
	char text[NODES_MAX * ENTRY + 2];
};

/* A number, as JSON or as text. */
static double number_of(const json_t *node, const char *key)
{
	const json_t *value = json_object_get(node, key);
	double number = json_is_string(value) ? strtod(json_string_value(value), NULL)
					      : json_number_value(value);

	return number >= 0 && number < 1e15 ? number : 0;
}

/* Not one of the signs that part a plan. */
static bool plain(const char *name)
{
	return name[0] && !strpbrk(name, "~,=");
}

static void on_nodes(enum orc_word word, json_t *nodes, void *arg)
{
	struct orc_placer *placer = arg;
	size_t count = json_array_size(nodes);

	placer->busy = false;
	if (word != ORC_OK) {
		return; /* what is known stays */
	}
	placer->count = 0;
	placer->usable = 0;
	for (size_t i = 0; i < count && placer->count < NODES_MAX; i++) {
		const json_t *node = json_array_get(nodes, i);
		const char *name = trib_json_text(node, "name", "");
		struct orc_place_node *place = &placer->nodes[placer->count];

		if (!plain(name) || trib_copy(placer->names[placer->count], NAME_SIZE, name)) {
			continue;
		}
		*place = (struct orc_place_node){
			.capacity = number_of(node, "capacity"),
			.arrivals = number_of(node, "arrivals_s"),
			.seconds = number_of(node, "seconds"),
			.nic_bytes_s = number_of(node, "nic_bytes_s"),
			.cores = (uint32_t)number_of(node, "cpus"),
			.alive = strcmp(trib_json_text(node, "state", ""), "up") == 0,
		};
		placer->usable += place->alive && place->capacity > 0;
		placer->count++;
	}
}

static void on_look(void *arg)
{
	struct orc_placer *placer = arg;

	if (!placer->busy && orc_leader_valid(placer->leader) &&
	    orc_store_connected(placer->store)) {
		placer->busy = orc_store_nodes(placer->store, on_nodes, placer) == 0;
	}
}

/* ---- a job's plan ---- */

static struct orc_place_demand demand_of(const struct orc_job *job)
{
	static const char *const policies[] = { [ORC_PLACE_BESTFIT] = "bestfit|",
						[ORC_PLACE_WORSTFIT] = "worstfit|",
						[ORC_PLACE_ROUNDROBIN] = "roundrobin|" };
	uint64_t updates = job->async ? job->goal : job->selected_max;
	const char *window = strchr(job->place, '|');
	struct orc_place_demand demand = {
		.updates = (uint32_t)(updates < UINT32_MAX ? updates : UINT32_MAX),
		.update_bytes = (double)job->bytes,
		.window_s = window ? strtod(window + 1, NULL) : 0,
		.over = !job->async,
	};

	for (size_t i = 0; i < TRIB_COUNT(policies); i++) {
		if (strncmp(job->place, policies[i], strlen(policies[i])) == 0) {
			demand.policy = (enum orc_place_policy)i;
		}
	}
	return demand;
}

/* "[~]n1=20,n2=5,": who had what. Plans and nodes are in the same order, mostly. */
static void note_last(struct orc_placer *placer, const char *plan)
{
	size_t at = 0;

	for (size_t i = 0; i < placer->count; i++) {
		placer->nodes[i].last = 0;
	}
	plan += plan[0] == '~';
	while (*plan) {
		size_t size = strcspn(plan, "=,");
		size_t tried = 0;

		while (tried < placer->count && (strncmp(placer->names[at], plan, size) != 0 ||
						 placer->names[at][size] != '\0')) {
			at = (at + 1) % placer->count;
			tried++;
		}
		if (tried < placer->count && plan[size] == '=') {
			placer->nodes[at].last = (uint32_t)strtoul(plan + size + 1, NULL, 10);
		}
		plan += strcspn(plan, ",");
		plan += *plan == ',';
	}
}

static void print_plan(struct orc_placer *placer, const struct orc_job *job)
{
	struct orc_place_demand demand = demand_of(job);
	size_t size = 0;
	uint32_t fit = orc_place(placer->nodes, placer->count, &demand, placer->quotas);

	orc_count_by(ORC_M_PLAN_OVERFLOW, demand.updates - fit);
	if (demand.policy != ORC_PLACE_BESTFIT) {
		placer->text[size++] = '~';
	}
	for (size_t i = 0; i < placer->count; i++) {
		if (placer->quotas[i]) {
			size += (size_t)snprintf(placer->text + size, ENTRY + 1, "%s=%u,",
						 placer->names[i], placer->quotas[i]);
		}
	}
	placer->text[size] = '\0';
}

static void on_written(const struct orc_reply *reply, void *arg)
{
	struct orc_placer *placer = arg;

	if (reply->word == ORC_FENCED) {
		orc_leader_fenced(placer->leader);
	}
}

void orc_placer_plan(struct orc_placer *placer, const struct orc_job *job, char **last)
{
	placer->text[0] = '\0';
	if (placer->usable > 1) {
		note_last(placer, *last ? *last : "");
		print_plan(placer, job);
		trib_free(*last);
		*last = trib_alloc(strlen(placer->text) + 1); /* without: the next one is cold */
		if (*last) {
			memcpy(*last, placer->text, strlen(placer->text));
		}
		placer->planning = true;
	} else if (!placer->planning) {
		return;
	}
	if (orc_store_plan_set(placer->store, orc_leader_token(placer->leader), job->id,
			       placer->text, (struct orc_then){ on_written, placer }) == 0) {
		orc_count(ORC_M_PLANS);
	}
}

/* ---- life ---- */

int orc_placer_new(struct trib_loop *loop, struct orc_store *store, struct orc_leader *leader,
		   struct orc_placer **ret_placer)
{
	struct orc_placer *placer = trib_alloc(sizeof(*placer));
	int rc;

	if (!placer) {
		return -ENOMEM;
	}
	placer->store = store;
	placer->leader = leader;
	rc = trib_timer_new(loop, on_look, placer, &placer->timer);
	if (rc) {
		trib_free(placer);
		return rc;
	}
	trib_timer_every(placer->timer, LOOK_MS);
	*ret_placer = placer;
	return 0;
}

struct orc_placer *orc_placer_free(struct orc_placer *placer)
{
	if (placer) {
		placer->timer = trib_timer_free(placer->timer);
		trib_free(placer);
	}
	return NULL;
}
