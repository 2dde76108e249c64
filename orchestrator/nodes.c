/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/nodes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_keys.h"

#define LOOK_MS 500
#define CALM_MS 2000 /* while nobody is silent */
#define PAGE    64   /* jobs of one call */

struct silent {
	char node[64];
	uint64_t since_ms;
	bool seen; /* in the last answer */
};

struct orc_nodes {
	struct orc_store *store;
	struct orc_leader *leader;
	struct trib_timer *timer;
	uint64_t grace_ms;
	bool busy; /* a call is under way */
	bool freeing;
	struct silent silent[ORC_SILENT_MAX];
	size_t count;
	char losing[64]; /* "" or the node whose jobs are gone through */
	uint64_t offset;
	uint64_t lost;
	uint64_t found; /* jobs with its memory, in this walk over them */
};

static struct silent *find(struct orc_nodes *nodes, const char *node)
{
	for (size_t i = 0; i < nodes->count; i++) {
		if (strcmp(nodes->silent[i].node, node) == 0) {
			return &nodes->silent[i];
		}
	}
	return NULL;
}

static void forget(struct orc_nodes *nodes, struct silent *one)
{
	*one = nodes->silent[--nodes->count];
}

/* ---- one node's jobs, page by page ---- */

static void on_page(const struct trib_value *value, void *arg);

static void next_page(struct orc_nodes *nodes)
{
	struct orc_decimal offset = orc_decimal(nodes->offset);
	struct orc_decimal page = orc_decimal(PAGE);
	struct orc_decimal found = orc_decimal(nodes->found);
	const char *words[] = { "FCALL",       "trib_node_silent", "1",       "trib:jobs",
				nodes->losing, offset.text,        page.text, found.text };

	nodes->busy = orc_store_words(nodes->store, on_page, nodes, TRIB_COUNT(words), words) == 0;
}

static void on_page(const struct trib_value *value, void *arg)
{
	struct orc_nodes *nodes = arg;
	struct silent *one = find(nodes, nodes->losing);
	long long looked;

	nodes->busy = false;
	if (!value || nodes->freeing || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		return; /* the same page again, at the next look */
	}
	if (trib_value_type(trib_value_at(value, 0)) == TRIB_VALUE_TEXT) {
		log_info("nodes", "back node=%s", nodes->losing); /* LIVES */
		nodes->losing[0] = '\0';
		return;
	}
	looked = trib_value_integer(trib_value_at(value, 0));
	nodes->lost += orc_value_u64(trib_value_at(value, 1));
	nodes->found += orc_value_u64(trib_value_at(value, 2));
	nodes->offset += PAGE;
	if (looked < PAGE && nodes->found) { /* jobs that went meanwhile may have hidden others */
		nodes->offset = 0;
		nodes->found = 0;
		looked = PAGE;
	}
	if (looked >= PAGE && orc_leader_valid(nodes->leader)) {
		next_page(nodes);
		return;
	}
	log_warn("nodes", "lost node=%s updates=%llu", nodes->losing,
		 (unsigned long long)nodes->lost);
	orc_count(ORC_M_NODES_LOST);
	nodes->losing[0] = '\0';
	if (one) {
		forget(nodes, one);
	}
}

static void lose(struct orc_nodes *nodes, const struct silent *one)
{
	memcpy(nodes->losing, one->node, sizeof(nodes->losing));
	nodes->offset = 0;
	nodes->found = 0;
	nodes->lost = 0;
	log_warn("nodes", "silent node=%s", one->node);
	next_page(nodes);
}

/* ---- who is silent ---- */

static void on_silent(const struct trib_value *value, void *arg)
{
	struct orc_nodes *nodes = arg;
	uint64_t now = trib_clock_ms();

	nodes->busy = false;
	if (!value || nodes->freeing || trib_value_type(value) != TRIB_VALUE_ARRAY) {
		nodes->count = 0; /* heartbeats were not heard either */
		return;
	}
	for (size_t i = 0; i < nodes->count; i++) {
		nodes->silent[i].seen = false;
	}
	for (size_t i = 0; i < trib_value_count(value); i++) {
		const char *node = trib_value_text(trib_value_at(value, i));
		struct silent *one = find(nodes, node);

		if (!one && nodes->count < ORC_SILENT_MAX) {
			one = &nodes->silent[nodes->count];
			one->since_ms = now;
			nodes->count += trib_copy(one->node, sizeof(one->node), node) == 0;
		}
		if (one) {
			one->seen = true;
		}
	}
	for (size_t i = nodes->count; i-- > 0;) {
		if (!nodes->silent[i].seen) {
			forget(nodes, &nodes->silent[i]);
		}
	}
	for (size_t i = 0; i < nodes->count; i++) {
		if (now - nodes->silent[i].since_ms >= nodes->grace_ms) {
			lose(nodes, &nodes->silent[i]);
			return;
		}
	}
}

static void on_look(void *arg)
{
	struct orc_nodes *nodes = arg;
	const char *words[] = { "FCALL", "trib_nodes_silent", "1", ORC_KEY_NODES };

	if (nodes->count || nodes->losing[0]) {
		trib_timer_after(nodes->timer, LOOK_MS);
	} else {
		trib_timer_about(nodes->timer, CALM_MS);
	}
	if (!orc_leader_valid(nodes->leader) || !orc_store_connected(nodes->store)) {
		nodes->count = 0;
		nodes->losing[0] = '\0';
	} else if (!nodes->busy && nodes->losing[0]) {
		next_page(nodes);
	} else if (!nodes->busy) {
		nodes->busy = orc_store_words(nodes->store, on_silent, nodes, TRIB_COUNT(words),
					      words) == 0;
	}
}

/* ---- life ---- */

int orc_nodes_new(struct trib_loop *loop, struct orc_store *store, struct orc_leader *leader,
		  uint64_t grace_ms, struct orc_nodes **ret_nodes)
{
	struct orc_nodes *nodes = trib_alloc(sizeof(*nodes));
	int rc;

	if (!nodes) {
		return -ENOMEM;
	}
	nodes->store = store;
	nodes->leader = leader;
	nodes->grace_ms = grace_ms;
	rc = trib_timer_new(loop, on_look, nodes, &nodes->timer);
	if (rc) {
		trib_free(nodes);
		return rc;
	}
	trib_timer_after(nodes->timer, LOOK_MS);
	*ret_nodes = nodes;
	return 0;
}

struct orc_nodes *orc_nodes_free(struct orc_nodes *nodes)
{
	if (nodes) {
		nodes->timer = trib_timer_free(nodes->timer);
		trib_free(nodes);
	}
	return NULL;
}
