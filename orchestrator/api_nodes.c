/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_nodes.h"

#include "orchestrator/store_life.h"

static void on_answer(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_NONODE) {
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_NODE, NULL);
	} else if (reply->word == ORC_ALONE) {
		orc_reply_problem(r, TRIB_PROBLEM_STATE_CONFLICT,
				  "no other node is up to take its sums");
	} else {
		orc_reply_empty(r, 202);
	}
	orc_request_release(r);
}

static void ask(struct orc_request *r, bool undo)
{
	orc_request_hold(r);
	orc_request_sent(r, orc_store_node_drain(r->app->store, r->node, undo,
						 (struct orc_then){ on_answer, r }));
}

void orc_nodes_drain(struct orc_request *r)
{
	ask(r, false);
}

void orc_nodes_undrain(struct orc_request *r)
{
	ask(r, true);
}
