/* SPDX-License-Identifier: Apache-2.0
 * What the orchestrator's parts share: one process, one loop, one thread. Owned by main.c, which
 * makes the parts in the order of this struct and frees them so that no callback of one meets a
 * freed other (listeners first, then the store, which answers everything outstanding, then the
 * rest).
 */
#ifndef TRIB_ORCHESTRATOR_APP_H
#define TRIB_ORCHESTRATOR_APP_H

#include "common/httpd.h"
#include "common/loop.h"

struct orc_store;
struct orc_leader;
struct orc_rounds;
struct orc_nodes;
struct orc_placer;
struct orc_sse;
struct orc_tenants;
struct orc_hooks;
struct orc_quotas;
struct orc_kube;
struct trib_access;

struct orc_app {
	struct trib_loop *loop;
	const char *id;       /* who, in the lease and in tokens */
	const char *data_url; /* of the gateways, without a slash at its end */
	struct orc_store *store;
	struct orc_leader *leader;
	struct orc_rounds *rounds;
	struct orc_nodes *nodes;
	struct orc_placer *placer;
	struct orc_sse *sse;
	struct orc_hooks *hooks;
	struct orc_quotas *quotas;
	struct trib_access *access;
	struct orc_tenants *tenants;
	struct trib_timer *refresh; /* looks whether the operators changed */
	struct trib_httpd *api;
	struct trib_httpd *admin;
	struct trib_tls *tls;        /* NULL: plain */
	char *openapi;               /* text, made once */
	struct orc_kube *kube;       /* NULL: no Kubernetes */
	struct orc_app *inner;       /* this, as the listener of kube.c sees it */
	struct trib_httpd *loopback; /* that listener */
	int loopback_fd;
	bool is_inner; /* takes kube.c's requests alone */
	bool stopping;
};

#endif
