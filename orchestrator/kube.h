/* SPDX-License-Identifier: Apache-2.0
 * Jobs as objects of Kubernetes: AggregationJobs (k8s/base/crd) are listed and watched over HTTPS,
 * and what they say is asked for through our own REST API, over a loopback listener that takes a
 * secret made at the start: the same checks, the same transitions as for anybody else.
 *
 * Two threads of its own: one lists and watches, one brings jobs in line and writes status. Both
 * rest while this process does not lead. They touch nothing of the loop.
 */
#ifndef TRIB_ORCHESTRATOR_KUBE_H
#define TRIB_ORCHESTRATOR_KUBE_H

#include "common/access.h"
#include "orchestrator/app.h"

#define ORC_KUBE_SECRET_SIZE 65

struct orc_kube_config {
	const char *api;        /* https://HOST:PORT, "in-cluster", or NULL: off */
	const char *token_file; /* NULL: the pod's, or none with a URL */
	const char *ca;         /* PEM; NULL: the pod's, or the system's trust with a URL */
	const char *scope;      /* namespace; NULL: all */
	const char *tenant;     /* whose the jobs are; NULL: the default's */
};

#define ORC_KUBE_OPTIONS(c)                                                                        \
	{ "kube-api",                                                                              \
	  TRIB_OPTION_TEXT,                                                                        \
	  &(c).api,                                                                                \
	  0,                                                                                       \
	  0,                                                                                       \
	  "URL",                                                                                   \
	  "watch AggregationJobs there; in-cluster: the pod's API server" },                       \
		{ "kube-token-file",                                                               \
		  TRIB_OPTION_TEXT,                                                                \
		  &(c).token_file,                                                                 \
		  0,                                                                               \
		  0,                                                                               \
		  "FILE",                                                                          \
		  "credentials, read anew for each request" },                                     \
		{ "kube-ca", TRIB_OPTION_TEXT, &(c).ca, 0, 0, "FILE", "whom to trust (PEM)" },     \
		{ "kube-namespace", TRIB_OPTION_TEXT,           &(c).scope, 0, 0,                  \
		  "NAME",           "its AggregationJobs alone" },                                 \
	{                                                                                          \
		"kube-tenant", TRIB_OPTION_TEXT, &(c).tenant, 0, 0, "NAME", "tenant of their jobs" \
	}

struct orc_kube;

/* NULL, or what is wrong with it. */
const char *orc_kube_wrong(const struct orc_kube_config *config);
/* Starts the threads. `api_url`: of the loopback listener. config is borrowed. 0 or -errno. */
TRIB_MUST_CHECK int orc_kube_new(const struct orc_kube_config *config, const char *api_url,
				 struct orc_kube **ret_kube);
/* Waits for the threads (a second or so). */
struct orc_kube *orc_kube_free(struct orc_kube *kube);
/* Loop thread: does this process lead? Often. */
void orc_kube_lead(struct orc_kube *kube, bool leads);
/* Did the request come with our secret? Then who it is. */
bool orc_kube_who(const struct orc_kube *kube, const struct trib_http_request *request,
		  struct trib_operator *ret_who);

#endif
