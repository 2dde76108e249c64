/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/access.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/kube.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/store_access.h"

#define TENANT_SLOTS     4096
#define ANONYMOUS_SECOND 10 /* records of callers nobody knows, lest they wash the log away */

/* ---- tenants ---- */

struct orc_tenants {
	struct {
		char job[TRIB_ID_TEXT_SIZE];
		char tenant[TRIB_TENANT_SIZE];
	} slots[TENANT_SLOTS];
};

int orc_tenants_new(struct orc_tenants **ret_tenants)
{
	*ret_tenants = trib_alloc(sizeof(**ret_tenants));
	return *ret_tenants ? 0 : -ENOMEM;
}

struct orc_tenants *orc_tenants_free(struct orc_tenants *tenants)
{
	trib_free(tenants);
	return NULL;
}

static size_t slot_of(const char *job)
{
	return (size_t)(trib_digest(job, strlen(job)).low % TENANT_SLOTS);
}

const char *orc_tenants_find(const struct orc_tenants *tenants, const char *job)
{
	size_t i = slot_of(job);

	return strcmp(tenants->slots[i].job, job) == 0 ? tenants->slots[i].tenant : NULL;
}

void orc_tenants_learn(struct orc_tenants *tenants, const char *job, const char *tenant)
{
	size_t i = slot_of(job);

	if (trib_copy(tenants->slots[i].job, sizeof(tenants->slots[i].job), job) ||
	    trib_copy(tenants->slots[i].tenant, sizeof(tenants->slots[i].tenant), tenant)) {
		tenants->slots[i].job[0] = '\0';
	}
}

/* ---- who ---- */

static enum trib_scope needed(const struct orc_request *r)
{
	return r->route->scope ? (enum trib_scope)r->route->scope : TRIB_SCOPE_OPS_ADMIN;
}

static void note_caller(struct orc_request *r)
{
	const struct trib_http_request *request = trib_exchange_request(r->x);

	trib_trace_read(request, r->trace);
	(void)snprintf(r->method, sizeof(r->method), "%s", trib_http_method_text(request->method));
	(void)snprintf(r->path, sizeof(r->path), "%s", request->path);
	(void)snprintf(r->peer, sizeof(r->peer), "%s", trib_exchange_peer(r->x));
}

static void forbid(struct orc_request *r)
{
	char text[96];

	(void)snprintf(text, sizeof(text),
		       "Bearer realm=\"tributary\", error=\"insufficient_scope\", scope=\"%s\"",
		       trib_scope_text(needed(r)));
	orc_reply_header(r, "WWW-Authenticate", text);
	(void)snprintf(text, sizeof(text), "the scope %s is needed", trib_scope_text(needed(r)));
	orc_count(ORC_M_DENIED_403);
	orc_reply_problem(r, TRIB_PROBLEM_FORBIDDEN, text);
}

bool orc_access_identify(struct orc_request *r)
{
	const char *detail;
	int rc;

	note_caller(r);
	if (r->app->kube && orc_kube_who(r->app->kube, trib_exchange_request(r->x), &r->who)) {
		r->known = true;
		if (r->route->scope != ORC_SCOPE_NONE &&
		    !trib_scopes_allow(r->who.scopes, needed(r))) {
			forbid(r);
			return false;
		}
		return true;
	}
	if (r->app->is_inner) {
		orc_count(ORC_M_DENIED_401);
		orc_reply_problem(r, TRIB_PROBLEM_UNAUTHENTICATED, "not for you");
		return false;
	}
	if (r->route->scope == ORC_SCOPE_NONE) {
		return true;
	}
	rc = trib_access_who(r->app->access, trib_exchange_request(r->x), trib_wall_ms(), &r->who,
			     &detail);
	if (rc) {
		orc_reply_header(r, "WWW-Authenticate",
				 rc == -ENOENT
					 ? "Bearer realm=\"tributary\""
					 : "Bearer realm=\"tributary\", error=\"invalid_token\"");
		orc_count(ORC_M_DENIED_401);
		orc_reply_problem(r, TRIB_PROBLEM_UNAUTHENTICATED, detail);
		return false;
	}
	r->known = true;
	if (!trib_scopes_allow(r->who.scopes, needed(r))) {
		forbid(r);
		return false;
	}
	return true;
}

/* ---- whose job ---- */

bool orc_access_sees(const struct orc_request *r, const char *tenant)
{
	return trib_scopes_across(r->who.scopes, TRIB_SCOPE_JOBS_READ) ||
	       strcmp(tenant, r->who.tenant) == 0;
}

bool orc_access_needs_job(const struct orc_request *r)
{
	return r->job[0] && r->route->scope != ORC_SCOPE_NONE &&
	       !trib_scopes_across(r->who.scopes, needed(r));
}

static void judge(struct orc_request *r, const char *tenant, void (*then)(struct orc_request *r))
{
	if (strcmp(tenant, r->who.tenant) == 0) {
		then(r);
	} else if (orc_access_sees(r, tenant)) {
		forbid(r); /* they may look, not touch */
	} else {
		orc_count(ORC_M_DENIED_404);
		orc_reply_problem(r, TRIB_PROBLEM_NO_SUCH_JOB, NULL);
	}
}

struct waiting {
	struct orc_request *r;
	void (*then)(struct orc_request *r);
};

static void on_tenant(const struct orc_reply *reply, void *arg)
{
	struct waiting waiting = *(struct waiting *)arg;
	struct orc_request *r = waiting.r;

	trib_free(arg);
	if (!orc_request_failed(r, reply->word)) {
		orc_tenants_learn(r->app->tenants, r->job, reply->text);
		judge(r, reply->text, waiting.then);
	}
	orc_request_release(r);
}

void orc_access_job(struct orc_request *r, void (*then)(struct orc_request *r))
{
	const char *tenant = orc_tenants_find(r->app->tenants, r->job);
	struct waiting *waiting;
	int rc;

	if (tenant) {
		judge(r, tenant, then);
		return;
	}
	waiting = trib_alloc(sizeof(*waiting));
	if (!waiting) {
		orc_reply_problem(r, TRIB_PROBLEM_INTERNAL, "out of memory");
		return;
	}
	*waiting = (struct waiting){ r, then };
	orc_request_hold(r);
	rc = orc_store_tenant(r->app->store, r->job, (struct orc_then){ on_tenant, waiting });
	if (rc) {
		trib_free(waiting);
	}
	orc_request_sent(r, rc);
}

/* ---- audit ---- */

static bool worth_it(const struct orc_request *r)
{
	static uint64_t second; /* one thread */
	static unsigned count;
	uint64_t now = trib_clock_ms() / 1000;

	if (r->known) {
		return true;
	}
	if (now != second) {
		second = now;
		count = 0;
	}
	return count++ < ANONYMOUS_SECOND;
}

void orc_access_audit(struct orc_request *r, int status)
{
	struct trib_audit audit = { .program = "orchestrator",
				    .who = r->known ? r->who.name : "-",
				    .tenant = r->known ? r->who.tenant : "-",
				    .method = r->method,
				    .path = r->path,
				    .trace = r->trace,
				    .peer = r->peer,
				    .status = status };

	if (r->audited || !r->method[0] || !r->route || r->route->scope == ORC_SCOPE_NONE ||
	    r->route->method == TRIB_HTTP_GET || strcmp(r->route->name, "validateJob") == 0) {
		return;
	}
	r->audited = true;
	if (!worth_it(r) || orc_store_audit(r->app->store, &audit)) {
		orc_count(ORC_M_AUDIT_LOST);
		log_warn("audit", "not-kept who=%s tenant=%s method=%s path=%s status=%d trace=%s",
			 audit.who, audit.tenant, audit.method, audit.path, status, audit.trace);
	} else {
		orc_count(ORC_M_AUDITED);
	}
}
