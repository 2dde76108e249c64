/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/api_patch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "orchestrator/api_jobs.h"
#include "orchestrator/leader.h"
#include "orchestrator/spec_patch.h"
#include "orchestrator/store_life.h"

#define TYPE      "application/merge-patch+json"
#define TRIES_MAX 5 /* of If-Match: * against other patches */

struct patch {
	json_t *json;
	char match[512]; /* If-Match */
	unsigned tries;
};

static void patch_free(void *state)
{
	struct patch *p = state;

	json_decref(p->json);
	trib_free(p);
}

static void begin(struct orc_request *r);

/* Is one of the tags of If-Match (strong ones) of this generation? */
static bool matches(const char *header, uint64_t generation)
{
	char wanted[32];
	size_t size = (size_t)snprintf(wanted, sizeof(wanted), "\"g%llu-",
				       (unsigned long long)generation);

	while (*header) {
		header += strspn(header, " \t,");
		if (*header == '*' || strncmp(header, wanted, size) == 0) {
			return true;
		}
		header += strcspn(header, ",");
	}
	return false;
}

static bool any(const struct patch *p)
{
	return strchr(p->match, '*') != NULL;
}

static void on_patched(const struct orc_reply *reply, void *arg)
{
	struct orc_request *r = arg;
	struct patch *p = r->state;
	char detail[64];

	if (orc_request_failed(r, reply->word)) {
		orc_request_release(r);
		return;
	}
	if (reply->word == ORC_OK) {
		orc_jobs_get(r);
	} else if (reply->word == ORC_CONFLICT && any(p) && ++p->tries < TRIES_MAX) {
		begin(r);
	} else if (reply->word == ORC_CONFLICT) {
		orc_reply_problem(r, TRIB_PROBLEM_VERSION_CONFLICT,
				  "the job's spec was changed meanwhile; GET it again");
	} else {
		(void)snprintf(detail, sizeof(detail), "the job is %.24s", reply->text);
		orc_reply_problem(r, TRIB_PROBLEM_STATE_CONFLICT, detail);
	}
	orc_request_release(r);
}

/* What comes out of the patch. False: answered. */
static bool apply(struct orc_request *r, const struct orc_view *view, struct orc_spec *spec)
{
	struct patch *p = r->state;
	json_t *errors = NULL;
	int rc = orc_spec_patch(view->job.name, view->job.spec ? view->job.spec : "", p->json, spec,
				&errors);

	if (rc == -EBADMSG) {
		orc_reply_errors(r, TRIB_PROBLEM_INVALID_SPEC, errors);
		json_decref(errors);
	} else if (rc) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL,
				  rc == -ENOMEM ? "out of memory" : "the spec is not readable");
	}
	return rc == 0;
}

static void send(struct orc_request *r, const struct orc_view *view, const struct orc_spec *spec)
{
	char *text = trib_json_print(spec->spec);
	const struct orc_job_change change = { .generation = view->job.generation,
					       .job = { .id = r->job,
							.spec = text,
							.goal = spec->goal,
							.quorum = spec->quorum,
							.selected_max = spec->selected_max,
							.deadline_ms = spec->deadline_ms,
							.lease_ms = spec->lease_ms,
							.stop_rounds = spec->stop_rounds } };

	if (!text) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	orc_request_hold(r);
	orc_request_sent(r, orc_store_job_patch(r->app->store, orc_leader_token(r->app->leader),
						&change, (struct orc_then){ on_patched, r }));
	trib_free(text);
}

static void on_view(const struct orc_view *view, void *arg)
{
	struct orc_request *r = arg;
	struct patch *p = r->state;
	struct orc_spec spec = { .name = "" };

	if (!orc_request_failed(r, view->word)) {
		if (!matches(p->match, view->job.generation)) {
			orc_reply_problem(r, TRIB_PROBLEM_VERSION_CONFLICT,
					  "the job's spec was changed since; GET it again");
		} else if (r->x && apply(r, view, &spec)) {
			send(r, view, &spec);
			orc_spec_fini(&spec);
		}
	}
	orc_request_release(r);
}

static void begin(struct orc_request *r)
{
	const struct orc_view_want want = { .job = r->job, .spec = true };

	orc_request_hold(r);
	orc_request_sent(r, orc_store_view(r->app->store, &want, on_view, r));
}

static bool type_fits(const struct trib_http_request *request)
{
	const char *type = trib_http_field(request, "content-type");

	return type && strcspn(type, "; \t") == sizeof(TYPE) - 1 &&
	       strncasecmp(type, TYPE, sizeof(TYPE) - 1) == 0;
}

void orc_patch_body(struct orc_request *r, const char *body, size_t size)
{
	const struct trib_http_request *request = trib_exchange_request(r->x);
	const char *match = trib_http_field(request, "if-match");
	struct patch *p;
	char reason[160];

	if (!type_fits(request)) {
		orc_reply_header(r, "Accept-Patch", TYPE);
		orc_reply_problem(r, TRIB_PROBLEM_UNSUPPORTED_MEDIA, TYPE " is wanted");
		return;
	}
	if (!match) {
		orc_reply_problem(r, TRIB_PROBLEM_PRECONDITION_REQUIRED,
				  "If-Match: the ETag of the job that the patch was made from");
		return;
	}
	if (!orc_leader_valid(r->app->leader)) { /* the body may have taken its time */
		orc_reply_problem(r, TRIB_PROBLEM_NOT_LEADER, NULL);
		return;
	}
	p = trib_alloc(sizeof(*p));
	if (!p) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	r->state = p;
	r->state_free = patch_free;
	if (trib_copy(p->match, sizeof(p->match), match)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, "If-Match is too long");
	} else if (trib_json_parse(body, size, &p->json, reason)) {
		orc_reply_problem(r, TRIB_PROBLEM_BAD_REQUEST, reason);
	} else {
		begin(r);
	}
}
