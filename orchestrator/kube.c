/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/kube.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crypto.h"
#include "common/log.h"
#include "orchestrator/kube_internal.h"

#define IN_CLUSTER "in-cluster"
#define ACCOUNT    "/var/run/secrets/kubernetes.io/serviceaccount/"

const char *orc_kube_wrong(const struct orc_kube_config *config)
{
	static const char small[] = "abcdefghijklmnopqrstuvwxyz0123456789-";

	if (!config->api) {
		return config->token_file || config->ca || config->scope || config->tenant
			       ? "--kube-token-file, --kube-ca, --kube-namespace and --kube-tenant "
				 "need --kube-api"
			       : NULL;
	}
	if (strcmp(config->api, IN_CLUSTER) != 0 &&
	    (strncmp(config->api, "https://", 8) != 0 || strlen(config->api) > 400)) {
		return "--kube-api: neither https://HOST:PORT nor " IN_CLUSTER;
	}
	if (config->scope && (!*config->scope || strlen(config->scope) > 63 ||
			      strspn(config->scope, small) != strlen(config->scope))) {
		return "--kube-namespace: not the name of a namespace";
	}
	if (config->tenant &&
	    (strlen(config->tenant) >= TRIB_TENANT_SIZE || !trib_client_id_valid(config->tenant))) {
		return "--kube-tenant: not a name";
	}
	return NULL;
}

static int make_secret(struct orc_kube *kube)
{
	uint8_t bytes[(ORC_KUBE_SECRET_SIZE - 1) / 2];
	int rc = trib_random(bytes, sizeof(bytes));

	for (size_t i = 0; rc == 0 && i < sizeof(bytes); i++) {
		(void)snprintf(kube->secret + 2 * i, 3, "%02x", bytes[i]);
	}
	return rc;
}

/* The pod's environment, as the kubelet sets it. */
static int find_server(struct orc_kube *kube, const struct orc_kube_config *config)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	bool inside = strcmp(config->api, IN_CLUSTER) == 0;
	bool six = host && strchr(host, ':');
	int size;

	kube->token_file = config->token_file ? config->token_file
			   : inside           ? ACCOUNT "token"
					      : NULL;
	kube->ca = config->ca ? config->ca : inside ? ACCOUNT "ca.crt" : NULL;
	if (!inside) {
		size = snprintf(kube->base, sizeof(kube->base), "%s", config->api);
	} else if (host && port) {
		size = snprintf(kube->base, sizeof(kube->base), "https://%s%s%s:%s", six ? "[" : "",
				host, six ? "]" : "", port);
	} else {
		log_err("kube", "no-server KUBERNETES_SERVICE_HOST=%s", host ? host : "(not set)");
		return -EINVAL;
	}
	if (size > 0 && size < (int)sizeof(kube->base) && kube->base[size - 1] == '/') {
		kube->base[size - 1] = '\0';
	}
	return size < (int)sizeof(kube->base) ? 0 : -ENAMETOOLONG;
}

/* Signals are the loop's. */
static int start(pthread_t *thread, void *(*run)(void *), struct orc_kube *kube, bool *ret_runs)
{
	sigset_t all;
	sigset_t before;
	int rc;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(thread, NULL, run, kube);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	*ret_runs = rc == 0;
	return -rc;
}

int orc_kube_new(const struct orc_kube_config *config, const char *api_url,
		 struct orc_kube **ret_kube)
{
	struct orc_kube *kube = trib_alloc(sizeof(*kube));
	pthread_condattr_t clock;
	int rc;

	if (!kube) {
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&kube->lock, NULL);
	(void)pthread_condattr_init(&clock);
	(void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&kube->more, &clock);
	(void)pthread_condattr_destroy(&clock);
	kube->scope = config->scope;
	rc = trib_copy(kube->own, sizeof(kube->own), api_url);
	if (!rc) {
		rc = trib_copy(kube->tenant, sizeof(kube->tenant),
			       config->tenant ? config->tenant : TRIB_TENANT_DEFAULT);
	}
	if (!rc) {
		rc = find_server(kube, config);
	}
	if (!rc) {
		rc = make_secret(kube);
	}
	if (!rc) {
		rc = start(&kube->watcher, kube_watch, kube, &kube->watching);
	}
	if (!rc) {
		rc = start(&kube->worker, kube_work, kube, &kube->working);
	}
	if (rc) {
		(void)orc_kube_free(kube);
		return rc;
	}
	log_info("kube", "started server=%s namespace=%s tenant=%s", kube->base,
		 kube->scope ? kube->scope : "(all)", kube->tenant);
	*ret_kube = kube;
	return 0;
}

struct orc_kube *orc_kube_free(struct orc_kube *kube)
{
	if (!kube) {
		return NULL;
	}
	atomic_store(&kube->stopping, true);
	if (kube->watching) {
		(void)pthread_join(kube->watcher, NULL);
	}
	if (kube->working) {
		(void)pthread_join(kube->worker, NULL);
	}
	while (kube->count) {
		kube_object_free(kube->objects[--kube->count]);
	}
	(void)pthread_cond_destroy(&kube->more);
	(void)pthread_mutex_destroy(&kube->lock);
	trib_free(kube);
	return NULL;
}

void orc_kube_lead(struct orc_kube *kube, bool leads)
{
	atomic_store(&kube->leads, leads);
}

bool orc_kube_who(const struct orc_kube *kube, const struct trib_http_request *request,
		  struct trib_operator *ret_who)
{
	const char *header = trib_http_field(request, "authorization");
	unsigned char differs = 0;

	if (!header || strncmp(header, "Bearer ", 7) != 0 ||
	    strlen(header + 7) != ORC_KUBE_SECRET_SIZE - 1) {
		return false;
	}
	for (size_t i = 0; i < ORC_KUBE_SECRET_SIZE - 1; i++) { /* the same time for all */
		differs |= (unsigned char)(header[7 + i] ^ kube->secret[i]);
	}
	if (differs) {
		return false;
	}
	*ret_who = (struct trib_operator){ .name = "kubernetes", .scopes = TRIB_SCOPE_JOBS_ADMIN };
	return trib_copy(ret_who->tenant, sizeof(ret_who->tenant), kube->tenant) == 0;
}
