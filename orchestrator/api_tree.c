/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_tree.h"

static void on_tree(enum orc_word word, json_t *nodes, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, word)) {
		json_t *json = json_pack("{s:s}", "job", r->job);

		(void)json_object_set(json, "nodes", nodes);
		orc_reply_json(r, r->route->status, json, false);
	}
	orc_request_release(r);
}

static void on_job(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;

	if (!orc_request_failed(r, view->word)) {
		orc_request_hold(r);
		orc_request_sent(r, orc_store_tree(r->app->store, r->job, on_tree, r));
	}
	orc_request_release(r);
}

void orc_tree_get(struct orc_request *r)
{
	const struct orc_view_want want = { .job = r->job };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, on_job, r));
}
