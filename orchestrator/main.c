/* SPDX-License-Identifier: Apache-2.0
 * tributary-orchestrator: REST API and round machine. One process, one loop, one thread; all that
 * matters is in Redis, so that it may be killed any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/access.h"
#include "common/config_check.h"
#include "common/id.h"
#include "common/log.h"
#include "common/options.h"
#include "common/privilege.h"
#include "common/prompt.h"
#include "orchestrator/access.h"
#include "orchestrator/admin.h"
#include "orchestrator/api.h"
#include "orchestrator/api_meta.h"
#include "orchestrator/app.h"
#include "orchestrator/hook_rule.h"
#include "orchestrator/kube.h"
#include "orchestrator/leader.h"
#include "orchestrator/nodes.h"
#include "orchestrator/placer.h"
#include "orchestrator/quotas.h"
#include "orchestrator/rounds.h"
#include "orchestrator/sse.h"
#include "orchestrator/store_redis.h"
#include "orchestrator/webhooks.h"

#define REFRESH_CALM_MS 5000 /* while there is no file to look at */
#define STOP_MS         1000 /* longest wait for giving up the lease */

struct settings {
	const char *listen;
	const char *admin;
	const char *redis;
	struct trib_redis_login login;
	const char *id;
	const char *data_url;
	const char *api_url;
	const char *addr_file;
	uint64_t node_grace_ms;
	const char *webhook_allow;
	const char *quotas;
	struct trib_tls_files tls;
	struct trib_access_config access;
	struct orc_kube_config kube;
	bool check;
};

/* ---- wiring ---- */

static void on_wake(const char *what, const char *job, void *arg)
{
	struct orc_app *app = arg;

	if (!app->rounds || !app->sse || !app->hooks) {
		return;
	}
	if (strcmp(what, "purge") == 0 || strcmp(what, "prune") == 0 || strcmp(what, "copy") == 0) {
		return; /* for the agents */
	}
	orc_hooks_wake(app->hooks, what, job);
	if (strcmp(what, "hooks") == 0) {
		return;
	}
	if (strcmp(what, "gone") == 0) {
		orc_rounds_forget(app->rounds, job);
	} else {
		orc_rounds_wake(app->rounds, job);
	}
	orc_sse_wake(app->sse, what, job);
}

static void on_again(void *arg)
{
	struct orc_app *app = arg;

	orc_rounds_all(app->rounds);
	orc_sse_again(app->sse);
}

static void on_ready(void *arg)
{
	struct orc_app *app = arg;

	orc_leader_start(app->leader, app->store);
}

static void on_lead(void *arg)
{
	struct orc_app *app = arg;

	orc_rounds_all(app->rounds);
	orc_hooks_lead(app->hooks);
	orc_quotas_lead(app->quotas);
}

/* ---- operators ---- */

static void on_refresh(void *arg)
{
	struct orc_app *app = arg;

	if (app->kube) {
		orc_kube_lead(app->kube, orc_leader_valid(app->leader));
	}
	orc_quotas_tick(app->quotas);
	if (trib_access_refresh(app->access)) {
		orc_sse_end_all(app->sse); /* whoever still may, comes again */
	}
}

/* ---- the end ---- */

static void stop_now(void *arg)
{
	struct orc_app *app = arg;

	trib_loop_stop(app->loop);
}

static void on_dropped(const struct orc_reply *reply, void *arg)
{
	(void)reply;
	stop_now(arg);
}

static void on_signal(int number, void *arg)
{
	struct orc_app *app = arg;
	static struct trib_timer *limit; /* lives to the end of the process, once */

	log_info("main", "stopping signal=%d", number);
	if (app->stopping) {
		stop_now(app); /* the second time: at once */
		return;
	}
	app->stopping = true;
	orc_sse_end_all(app->sse);
	if (orc_leader_stop(app->leader, (struct orc_then){ on_dropped, app }) ||
	    trib_timer_new(app->loop, stop_now, app, &limit)) {
		stop_now(app);
		return;
	}
	trib_timer_after(limit, STOP_MS);
}

/* ---- the beginning ---- */

static int write_addresses(const struct settings *settings, int api_fd, int admin_fd)
{
	const char *path = settings->addr_file;
	const char *listen = settings->listen;
	const char *scheme = settings->tls.cert ? "https" : "http";
	const char *colon = strrchr(listen, ':');
	char host[128];
	char text[512];
	char draft[512];
	int size;
	int fd;
	int rc;

	(void)snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - listen) : 0, listen);
	size = snprintf(text, sizeof(text), "{\"api\":\"%s://%s:%u\",\"admin\":\"%s://%s:%u\"}\n",
			scheme, host, trib_listen_port(api_fd), scheme, host,
			trib_listen_port(admin_fd));
	if (snprintf(draft, sizeof(draft), "%s.tmp", path) >= (int)sizeof(draft)) {
		return -ENAMETOOLONG;
	}
	fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		return -errno;
	}
	rc = write(fd, text, (size_t)size) == size ? 0 : -EIO;
	(void)close(fd);
	if (!rc && rename(draft, path)) {
		rc = -errno;
	}
	return rc;
}

static int make_parts(struct orc_app *app, const struct settings *settings)
{
	const struct orc_store_handler handler = { on_wake, on_again, on_ready, app };
	int rc;

	app->openapi = orc_openapi_print();
	if (!app->openapi) {
		return -ENOMEM;
	}
	rc = trib_access_new(&settings->access, &app->access);
	if (!rc) {
		rc = orc_tenants_new(&app->tenants);
	}
	if (!rc) {
		rc = trib_loop_new(&app->loop);
	}
	if (!rc) {
		rc = trib_timer_new(app->loop, on_refresh, app, &app->refresh);
	}
	if (!rc) {
		rc = trib_loop_on_signal(app->loop, SIGTERM, on_signal, app);
	}
	if (!rc) {
		rc = trib_loop_on_signal(app->loop, SIGINT, on_signal, app);
	}
	if (!rc) {
		rc = orc_store_new(app->loop, settings->redis, &handler, &app->store);
	}
	if (!rc) {
		const struct orc_leader_name name = { app->id, settings->api_url };

		rc = orc_leader_new(app->loop, &name, on_lead, app, &app->leader);
	}
	if (!rc) {
		rc = orc_placer_new(app->loop, app->store, app->leader, &app->placer);
	}
	if (!rc) {
		rc = orc_rounds_new(app->loop, app->store, app->leader, app->placer, &app->rounds);
	}
	if (!rc) {
		rc = orc_nodes_new(app->loop, app->store, app->leader, settings->node_grace_ms,
				   &app->nodes);
	}
	if (!rc) {
		rc = orc_sse_new(app->loop, app->store, app->tenants, &app->sse);
	}
	if (!rc) {
		rc = orc_hooks_new(app->loop, app->store, app->leader, &app->hooks);
	}
	if (!rc) {
		rc = orc_quotas_new(settings->quotas, app->store, app->leader, &app->quotas);
	}
	return rc;
}

/* Certificates may have been replaced. */
static void on_reload(int number, void *arg)
{
	struct orc_app *app = arg;

	(void)number;
	(void)trib_tls_reload(app->tls); /* told */
}

static int start_tls(struct orc_app *app, const struct settings *settings)
{
	int rc = trib_tls_new(&settings->tls, &app->tls);

	if (!rc && app->tls) {
		rc = trib_loop_on_signal(app->loop, SIGHUP, on_reload, app);
	}
	return rc;
}

/* AggregationJobs of Kubernetes, through a listener of their own. */
static int start_kube(struct orc_app *app, const struct settings *settings)
{
	char url[64];
	int fd = -1;
	int rc;

	if (!settings->kube.api) {
		return 0;
	}
	rc = trib_listen("127.0.0.1:0", &fd);
	if (!rc) {
		(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", trib_listen_port(fd));
		rc = orc_kube_new(&settings->kube, url, &app->kube);
	}
	if (!rc) {
		*app->inner = *app;
		app->inner->is_inner = true;
		rc = orc_api_new(app->inner, fd, &app->loopback);
	}
	if (rc && fd >= 0) {
		(void)close(fd);
	} else if (!rc) {
		app->loopback_fd = fd;
	}
	return rc;
}

static int serve(struct orc_app *app, const struct settings *settings)
{
	int api_fd = -1;
	int admin_fd = -1;
	int rc = start_tls(app, settings);

	if (!rc) {
		rc = trib_listen(settings->listen, &api_fd);
	}
	if (!rc) {
		rc = trib_listen(settings->admin, &admin_fd);
	}
	if (!rc) {
		rc = orc_api_new(app, api_fd, &app->api);
	}
	if (!rc) {
		rc = orc_admin_new(app, admin_fd, &app->admin);
	}
	if (!rc) {
		trib_httpd_tls(app->api, app->tls);
		trib_httpd_tls(app->admin, app->tls);
		rc = trib_privilege_drop(0);
	}
	if (!rc) {
		rc = start_kube(app, settings);
	}
	if (!rc && settings->addr_file) {
		rc = write_addresses(settings, api_fd, admin_fd);
	}
	if (rc) {
		log_err("main", "not-started error=%s listen=%s admin=%s", strerrordesc_np(-rc),
			settings->listen, settings->admin);
	} else {
		log_info("main", "started id=%s api-port=%u admin-port=%u", app->id,
			 trib_listen_port(api_fd), trib_listen_port(admin_fd));
		trib_timer_every(app->refresh,
				 app->kube || settings->quotas || !trib_access_is_open(app->access)
					 ? TRIB_ACCESS_REFRESH_MS
					 : REFRESH_CALM_MS);
		if (trib_prompt()) {
			log_debug("main", "no short slices");
		}
		rc = trib_loop_run(app->loop);
	}
	if (app->sse) {
		orc_sse_end_all(app->sse);
	}
	app->kube = orc_kube_free(app->kube);
	if (app->loopback) {
		app->loopback = trib_httpd_free(app->loopback);
		(void)close(app->loopback_fd);
	}
	app->api = trib_httpd_free(app->api);
	app->admin = trib_httpd_free(app->admin);
	if (api_fd >= 0) {
		(void)close(api_fd);
	}
	if (admin_fd >= 0) {
		(void)close(admin_fd);
	}
	return rc;
}

static int run(const struct settings *settings)
{
	struct orc_app inner = { .is_inner = true };
	struct orc_app app = { .id = settings->id,
			       .data_url = settings->data_url,
			       .inner = &inner };
	int rc = make_parts(&app, settings);

	if (rc) {
		log_err("main", "not-started error=%s redis=%s", strerrordesc_np(-rc),
			settings->redis);
	} else {
		rc = serve(&app, settings);
	}
	app.stopping = true;
	app.store = orc_store_free(app.store); /* answers what is outstanding */
	app.quotas = orc_quotas_free(app.quotas);
	app.hooks = orc_hooks_free(app.hooks);
	app.sse = orc_sse_free(app.sse);
	app.nodes = orc_nodes_free(app.nodes);
	app.rounds = orc_rounds_free(app.rounds);
	app.placer = orc_placer_free(app.placer);
	app.leader = orc_leader_free(app.leader);
	app.refresh = trib_timer_free(app.refresh);
	app.tenants = orc_tenants_free(app.tenants);
	app.access = trib_access_free(app.access);
	if (app.loop) {
		trib_loop_free(app.loop);
	}
	app.tls = trib_tls_free(app.tls);
	trib_free(app.openapi);
	return rc ? 1 : 0;
}

/* --id must do in a lease and a token; a host's name mostly does. */
static const char *default_id(void)
{
	static char name[65];

	if (gethostname(name, sizeof(name) - 1) || !trib_client_id_valid(name)) {
		return "orchestrator";
	}
	return name;
}

/* "http://host:port" without the slash some write at its end. */
static const char *checked_url(const char *url)
{
	static char text[257];
	size_t size = strlen(url);

	if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
	    trib_copy(text, sizeof(text), url)) {
		return NULL;
	}
	if (text[size - 1] == '/') {
		text[size - 1] = '\0';
	}
	return text;
}

static bool plain_url(const char *url)
{
	size_t size = strlen(url);

	return (strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0) &&
	       size < ORC_LEADER_URL_SIZE && url[size - 1] != '/' && strcspn(url, " \r\n|") == size;
}

static int check(const struct settings *s, const struct trib_option *options)
{
	struct trib_config_check check = { .program = "tributary-orchestrator" };

	trib_config_listen(&check, "listen", s->listen);
	trib_config_listen(&check, "admin", s->admin);
	trib_config_redis(&check, "redis", s->redis);
	trib_config_redis_login(&check, &s->login);
	trib_config_url(&check, "data-url", s->data_url);
	if (s->api_url) {
		trib_config_url(&check, "api-url", s->api_url);
	}
	if (!trib_client_id_valid(s->id)) {
		trib_config_fault(&check, "id", "'%s' is no name", s->id);
	}
	if (s->addr_file) {
		trib_config_place(&check, "addr-file", s->addr_file);
	}
	trib_config_tls(&check, &s->tls);
	trib_config_access(&check, &s->access);
	trib_config_file(&check, "quotas", s->quotas);
	if (orc_kube_wrong(&s->kube)) {
		trib_config_fault(&check, "kube-api", "%s", orc_kube_wrong(&s->kube));
	}
	return trib_config_verdict(&check, options);
}

int main(int argc, char **argv)
{
	struct settings settings = { .listen = "127.0.0.1:8080",
				     .admin = "127.0.0.1:9090",
				     .redis = "127.0.0.1:6379",
				     .id = default_id(),
				     .node_grace_ms = 3000,
				     .data_url = "http://127.0.0.1:8081" };
	const struct trib_option options[] = {
		{ "listen", TRIB_OPTION_TEXT, &settings.listen, 0, 0, "ADDR", "REST API" },
		{ "admin", TRIB_OPTION_TEXT, &settings.admin, 0, 0, "ADDR", "health and metrics" },
		{ "redis", TRIB_OPTION_TEXT, &settings.redis, 0, 0, "ADDR",
		  "unix:PATH, HOST:PORT or sentinel://HOST:PORT,../MASTER" },
		TRIB_REDIS_LOGIN_OPTIONS(settings.login),
		{ "id", TRIB_OPTION_TEXT, &settings.id, 0, 0, "NAME",
		  "who this is; unique, and the same after a restart" },
		{ "data-url", TRIB_OPTION_TEXT, &settings.data_url, 0, 0, "URL",
		  "where clients find the gateways" },
		{ "api-url", TRIB_OPTION_TEXT, &settings.api_url, 0, 0, "URL",
		  "where others find this API while it leads; standbys name it" },
		{ "node-grace-ms", TRIB_OPTION_NUMBER, &settings.node_grace_ms, 0, 600000, "N",
		  "a node whose lease has run out has so long to come back" },
		TRIB_TLS_OPTIONS(&settings.tls),
		{ "webhook-allow", TRIB_OPTION_TEXT, &settings.webhook_allow, 0, 0, "URLS",
		  "beginnings of URLs that jobs may notify, with commas between; none without" },
		{ "quotas", TRIB_OPTION_TEXT, &settings.quotas, 0, 0, "FILE",
		  "what each tenant may use at once (JSON, docs/access.md)" },
		{ "addr-file", TRIB_OPTION_TEXT, &settings.addr_file, 0, 0, "PATH",
		  "write the bound addresses there as JSON" },
		TRIB_ACCESS_OPTIONS(settings.access),
		ORC_KUBE_OPTIONS(settings.kube),
		TRIB_CHECK_OPTION(settings.check),
		{ 0 },
	};
	const char *reason = "";
	char login[256];
	int first;
	int rc =
		trib_options_parse(argc, argv, "tributary-orchestrator [OPTIONS]", options, &first);

	if (rc) {
		return rc < 0 ? 2 : 0;
	}
	if (settings.check && first == argc) {
		trib_log_init("orchestrator", TRIB_LOG_WARN);
		return check(&settings, options);
	}
	settings.data_url = checked_url(settings.data_url);
	if (first != argc || !trib_client_id_valid(settings.id) || !settings.data_url ||
	    (settings.api_url && !plain_url(settings.api_url))) {
		(void)fprintf(stderr, "%s: operands, --id, --data-url or --api-url not valid\n",
			      argv[0]);
		return 2;
	}
	if (orc_hooks_allow(settings.webhook_allow, &reason)) {
		(void)fprintf(stderr, "%s: --webhook-allow: %s\n", argv[0], reason);
		return 2;
	}
	if (orc_kube_wrong(&settings.kube)) {
		(void)fprintf(stderr, "%s: %s\n", argv[0], orc_kube_wrong(&settings.kube));
		return 2;
	}
	trib_log_init("orchestrator", TRIB_LOG_INFO);
	if (trib_redis_login(&settings.login, login)) {
		log_err("main", "not-started error=%s", login);
		return 1;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	return run(&settings);
}
