/* SPDX-License-Identifier: Apache-2.0
 * tributary-gateway: starts and ends. See gateway/gateway.h for who runs where.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config_check.h"
#include "common/crypto.h"
#include "common/fd_table.h"
#include "common/log.h"
#include "common/options.h"
#include "common/privilege.h"
#include "gateway/admin.h"
#include "gateway/link.h"
#include "gateway/metrics.h"
#include "gateway/sandbox.h"
#include "gateway/worker.h"

#define KEY_RETRY_MS  200
#define DRAIN_TICK_MS 20

struct process {
	struct gw gw;
	int listen_fd;
	int admin_fd;
	struct trib_redis *redis; /* calls */
	struct trib_redis *wakes; /* subscriber */
	struct trib_httpd *admin;
	struct gw_admin admin_arg;
	struct trib_timer *key_timer;
	struct trib_timer *drain_timer;
	struct trib_timer *refresh; /* looks whether the operators changed */
	uint64_t drain_until_ms;
};

/* ---- the ticket key ---- */

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void on_key(const struct trib_value *value, void *arg)
{
	struct process *p = arg;
	const char *text = value ? trib_value_text(value) : "";

	if (!value) {
		return; /* shutting down */
	}
	if (trib_value_type(value) != TRIB_VALUE_TEXT ||
	    strlen(text) != 2 * sizeof(p->gw.ticket_key)) {
		log_warn("key", "no ticket key text=%.80s",
			 trib_value_type(value) == TRIB_VALUE_ERROR ? text : "");
		trib_timer_after(p->key_timer, KEY_RETRY_MS);
		return;
	}
	for (size_t i = 0; i < sizeof(p->gw.ticket_key); i++) {
		int high = hex_value(text[2 * i]);
		int low = hex_value(text[2 * i + 1]);

		if (high < 0 || low < 0) {
			log_err("key", "the ticket key in Redis is not hex");
			trib_timer_after(p->key_timer, KEY_RETRY_MS);
			return;
		}
		p->gw.ticket_key[i] = (uint8_t)(high << 4 | low);
	}
	__atomic_store_n(&p->gw.key_known, true, __ATOMIC_RELEASE);
	log_info("key", "ticket key known");
}

static void ask_key(void *arg)
{
	struct process *p = arg;
	uint8_t bytes[TRIB_TICKET_KEY_SIZE];
	char text[2 * sizeof(bytes) + 1];

	if (trib_random(bytes, sizeof(bytes))) {
		trib_timer_after(p->key_timer, KEY_RETRY_MS);
		return;
	}
	for (size_t i = 0; i < sizeof(bytes); i++) {
		(void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	}
	if (trib_redis_send(p->redis, on_key, p, "FCALL", "trib_cluster_init", "1",
			    "trib:key:ticket", text, NULL)) {
		trib_timer_after(p->key_timer, KEY_RETRY_MS);
	}
}

/* ---- wake messages ---- */

static void on_wake(const char *message, void *arg)
{
	struct process *p = arg;
	const char *job = strchr(message, ' ');

	if (!job || strlen(job + 1) >= TRIB_JOB_ID_SIZE) {
		return;
	}
	job++;
	if (strncmp(message, "prune ", 6) == 0) {
		gw_jobs_forget_models(&p->gw.jobs, message + 6);
		return;
	}
	if (strncmp(message, "gone ", 5) == 0) {
		gw_jobs_drop(&p->gw.jobs, job);
		gw_workers_note(&p->gw, GW_NOTE_GONE, job);
	} else if (strncmp(message, "job ", 4) == 0) {
		gw_workers_note(&p->gw, GW_NOTE_TOKENS | GW_NOTE_WAKE, job);
	} else if (strncmp(message, "round ", 6) == 0 || strncmp(message, "publish ", 8) == 0) {
		gw_workers_note(&p->gw, GW_NOTE_WAKE, job);
	}
}

static void on_wakes_again(void *arg)
{
	struct process *p = arg;

	gw_jobs_doubt(&p->gw.jobs);
	gw_workers_note(&p->gw, GW_NOTE_TOKENS | GW_NOTE_WAKE, "");
}

static void on_refresh(void *arg)
{
	struct process *p = arg;

	(void)trib_access_refresh(p->gw.access);
}

/* ---- the end ---- */

static void on_drain(void *arg)
{
	struct process *p = arg;

	if (trib_metric_get(&gw_metrics[GW_M_UPLOADS_INFLIGHT]) <= 0 ||
	    trib_clock_ms() >= p->drain_until_ms) {
		trib_loop_stop(p->gw.loop);
	}
}

static void on_signal(int number, void *arg)
{
	struct process *p = arg;

	if (gw_stopping(&p->gw)) {
		return;
	}
	log_info("main", "stopping signal=%d uploads=%lld", number,
		 (long long)trib_metric_get(&gw_metrics[GW_M_UPLOADS_INFLIGHT]));
	__atomic_store_n(&p->gw.stopping, true, __ATOMIC_RELEASE);
	gw_stop_listening(p->listen_fd);
	gw_workers_note(&p->gw, GW_NOTE_STOP, "");
	p->drain_until_ms = trib_clock_ms() + p->gw.options.drain_ms;
	trib_timer_every(p->drain_timer, DRAIN_TICK_MS);
}

/* Certificates may have been replaced. */
static void on_reload(int number, void *arg)
{
	struct process *p = arg;

	(void)number;
	(void)trib_tls_reload(p->gw.tls); /* told */
}

static void stop(struct process *p)
{
	gw_workers_note(&p->gw, GW_NOTE_EXIT, "");
	for (uint32_t i = 0; i < p->gw.worker_count; i++) {
		p->gw.workers[i] = gw_worker_free(p->gw.workers[i]);
	}
	p->gw.link = gw_link_free(p->gw.link);
	p->admin = trib_httpd_free(p->admin);
	p->wakes = trib_redis_free(p->wakes);
	p->redis = trib_redis_free(p->redis);
	p->key_timer = trib_timer_free(p->key_timer);
	p->drain_timer = trib_timer_free(p->drain_timer);
	p->refresh = trib_timer_free(p->refresh);
	gw_jobs_fini(&p->gw.jobs);
	gw_offers_fini(&p->gw.offers);
	p->gw.tls = trib_tls_free(p->gw.tls);
	p->gw.access = trib_access_free(p->gw.access);
	if (p->gw.loop) {
		trib_loop_free(p->gw.loop);
	}
	if (p->listen_fd >= 0) {
		(void)close(p->listen_fd);
	}
	if (p->admin_fd >= 0) {
		(void)close(p->admin_fd);
	}
	if (p->gw.bell >= 0) {
		(void)close(p->gw.bell);
	}
}

/* ---- the start ---- */

static int url_of(const char *scheme, const char *address, int fd, char *out, size_t size)
{
	const char *colon = strrchr(address, ':');
	unsigned port = trib_listen_port(fd);
	int n;

	if (port == 0 || !colon) {
		n = snprintf(out, size, "%s", address);
	} else {
		n = snprintf(out, size, "%s://%.*s:%u", scheme, (int)(colon - address), address,
			     port);
	}
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static int write_addresses(const struct process *p)
{
	const struct gw_options *o = &p->gw.options;
	const char *scheme = p->gw.tls ? "https" : "http";
	char data[256];
	char admin[256];
	char path[1024];
	FILE *file;
	int rc = url_of(scheme, o->listen, p->listen_fd, data, sizeof(data));

	rc = rc ? rc : url_of(scheme, o->admin, p->admin_fd, admin, sizeof(admin));
	if (rc) {
		return rc;
	}
	log_info("main", "listening data=%s admin=%s", data, admin);
	if (!o->addr_file) {
		return 0;
	}
	if (snprintf(path, sizeof(path), "%s.tmp", o->addr_file) >= (int)sizeof(path)) {
		return -ENAMETOOLONG;
	}
	file = fopen(path, "we");
	if (!file) {
		return -errno;
	}
	rc = fprintf(file, "{\"data\":\"%s\",\"admin\":\"%s\"}\n", data, admin) < 0 ? -EIO : 0;
	if (fclose(file) && rc == 0) {
		rc = -errno;
	}
	return rc ? rc : rename(path, o->addr_file) ? -errno : 0;
}

/* How many workers, and whether they share a table of descriptors: one per connection, and some. */
static uint32_t plan_workers(struct gw *gw)
{
	struct trib_fd_plan files = trib_fd_plan(gw->options.conns_max);
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t count = gw->options.workers;

	gw->own_tables = files.tables > 1;
	if (count == 0) {
		count = cores > 0 ? (uint64_t)cores : 1;
		count = count < files.tables ? files.tables : count;
	}
	count = count > GW_WORKERS_MAX ? GW_WORKERS_MAX : count;
	if (gw->own_tables) {
		gw->conns_of_each = (uint32_t)files.room;
		log_info("main", "a table of descriptors per worker limit=%llu workers=%llu",
			 (unsigned long long)files.limit, (unsigned long long)count);
	}
	if (count < files.tables && gw->own_tables) {
		log_warn("main", "file limit is below conns-max limit=%llu workers=%llu",
			 (unsigned long long)files.limit, (unsigned long long)count);
	}
	return (uint32_t)count;
}

static int start_main(struct process *p)
{
	struct trib_loop *loop;
	int rc = trib_loop_new(&p->gw.loop);

	rc = rc ? rc : trib_access_new(&p->gw.options.access, &p->gw.access);
	if (rc) {
		return rc;
	}
	loop = p->gw.loop;
	rc = trib_tls_new(&p->gw.options.tls, &p->gw.tls);
	if (rc) {
		return rc;
	}
	rc = trib_listen(p->gw.options.listen, &p->listen_fd);
	rc = rc ? rc : trib_listen(p->gw.options.admin, &p->admin_fd);
	if (rc) {
		log_err("main", "cannot listen rc=%d text=%s", rc, strerrordesc_np(-rc));
		return rc;
	}
	p->gw.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = p->gw.bell < 0 ? -errno : trib_timer_new(loop, ask_key, p, &p->key_timer);
	rc = rc ? rc : trib_timer_new(loop, on_drain, p, &p->drain_timer);
	rc = rc ? rc : trib_timer_new(loop, on_refresh, p, &p->refresh);
	rc = rc ? rc : trib_loop_on_signal(loop, SIGTERM, on_signal, p);
	rc = rc ? rc : trib_loop_on_signal(loop, SIGINT, on_signal, p);
	if (p->gw.tls) {
		rc = rc ? rc : trib_loop_on_signal(loop, SIGHUP, on_reload, p);
	}
	return rc;
}

/* What opens descriptors as it goes: after the workers, which would have copies of them. */
static int start_control(struct process *p)
{
	const struct trib_httpd_handler handler = { gw_admin_on_request, &p->admin_arg };
	int rc = trib_redis_new(p->gw.loop, p->gw.options.redis, &p->redis);

	rc = rc ? rc : trib_redis_new(p->gw.loop, p->gw.options.redis, &p->wakes);
	p->admin_arg = (struct gw_admin){ &p->gw, p->redis };
	rc = rc ? rc : trib_httpd_new(p->gw.loop, p->admin_fd, NULL, &handler, &p->admin);
	if (rc == 0) {
		trib_httpd_tls(p->admin, p->gw.tls);
	}
	return rc;
}

static int start_workers(struct process *p)
{
	uint32_t count = plan_workers(&p->gw);
	int rc = 0;

	for (uint32_t i = 0; i < count && rc == 0; i++) {
		rc = gw_worker_new(&p->gw, i, p->listen_fd, &p->gw.workers[i]);
		p->gw.worker_count += rc == 0;
	}
	/* All of them exist before the first thread or the link looks at the table. */
	rc = rc ? rc : gw_link_new(&p->gw, &p->gw.link);
	for (uint32_t i = 0; i < p->gw.worker_count && rc == 0; i++) {
		rc = gw_worker_start(p->gw.workers[i]);
	}
	return rc;
}

static int run(struct process *p)
{
	int rc = start_main(p);

	rc = rc ? rc : write_addresses(p); /* the backlog takes whoever is that quick */
	if (rc == 0 && gw_sandbox_enter(p->gw.options.models)) {
		log_warn("main", "no Landlock here: the file system stays writable");
	}
	rc = rc ? rc : trib_privilege_drop(0);
	rc = rc ? rc : start_workers(p);
	rc = rc ? rc : start_control(p);
	rc = rc ? rc : trib_redis_subscribe(p->wakes, "trib:wake", on_wake, on_wakes_again, p);
	if (rc == 0) {
		ask_key(p);
		if (!trib_access_is_open(p->gw.access)) {
			trib_timer_every(p->refresh, TRIB_ACCESS_REFRESH_MS);
		}
		rc = trib_loop_run(p->gw.loop);
	}
	__atomic_store_n(&p->gw.stopping, true, __ATOMIC_RELEASE);
	stop(p);
	return rc;
}

static int check(const struct gw_options *o, const struct trib_option *table)
{
	struct trib_config_check check = { .program = "tributary-gateway" };

	trib_log_init("gateway", TRIB_LOG_WARN);
	trib_config_listen(&check, "listen", o->listen);
	trib_config_listen(&check, "admin", o->admin);
	trib_config_socket(&check, "agent", o->agent);
	trib_config_redis(&check, "redis", o->redis);
	trib_config_redis_login(&check, &o->login);
	trib_config_directory(&check, "models", o->models);
	if (o->addr_file) {
		trib_config_place(&check, "addr-file", o->addr_file);
	}
	trib_config_tls(&check, &o->tls);
	trib_config_access(&check, &o->access);
	return trib_config_verdict(&check, table);
}

static int parse(int argc, char **argv, struct gw_options *o)
{
	const struct trib_option table[] = {
		{ "listen", TRIB_OPTION_TEXT, &o->listen, 0, 0, "ADDR", "data plane" },
		{ "admin", TRIB_OPTION_TEXT, &o->admin, 0, 0, "ADDR", "health and metrics" },
		{ "agent", TRIB_OPTION_TEXT, &o->agent, 0, 0, "PATH", "the node agent's socket" },
		{ "redis", TRIB_OPTION_TEXT, &o->redis, 0, 0, "ADDR", "unix:/path or host:port" },
		TRIB_REDIS_LOGIN_OPTIONS(o->login),
		{ "models", TRIB_OPTION_TEXT, &o->models, 0, 0, "DIR", "published models" },
		{ "node", TRIB_OPTION_TEXT, &o->node, 0, 0, "NAME", "this node's name" },
		{ "addr-file", TRIB_OPTION_TEXT, &o->addr_file, 0, 0, "PATH",
		  "where to write the bound addresses (JSON)" },
		TRIB_TLS_OPTIONS(&o->tls),
		{ "workers", TRIB_OPTION_NUMBER, &o->workers, 0, GW_WORKERS_MAX, "N",
		  "worker threads; 0: one per core" },
		{ "body-rate-min", TRIB_OPTION_NUMBER, &o->body_rate_min, 0, UINT32_MAX, "N",
		  "slowest body, bytes a second; 0: no limit" },
		{ "follow-bytes", TRIB_OPTION_NUMBER, &o->follow_bytes, 0, 1ull << 40, "N",
		  "updates of this size and larger are folded while they arrive; 0: none" },
		{ "body-grace-ms", TRIB_OPTION_NUMBER, &o->body_grace_ms, 100, 3600000, "N",
		  "over how long the rate is measured" },
		{ "head-timeout-ms", TRIB_OPTION_NUMBER, &o->head_timeout_ms, 100, 3600000, "N",
		  "for a complete request head" },
		{ "idle-timeout-ms", TRIB_OPTION_NUMBER, &o->idle_timeout_ms, 100, 3600000, "N",
		  "for the next request" },
		{ "conns-max", TRIB_OPTION_NUMBER, &o->conns_max, 1, 1000000, "N",
		  "open connections" },
		{ "drain-ms", TRIB_OPTION_NUMBER, &o->drain_ms, 0, 3600000, "N",
		  "after SIGTERM, for uploads under way" },
		TRIB_ACCESS_OPTIONS(o->access),
		TRIB_SHARE_OPTION(o->share),
		TRIB_CHECK_OPTION(o->check),
		{ NULL, TRIB_OPTION_FLAG, NULL, 0, 0, NULL, NULL },
	};
	int first = 0;
	int rc = trib_options_parse(argc, argv, "tributary-gateway [options]", table, &first);

	if (rc == 0 && first < argc) {
		(void)fprintf(stderr, "tributary-gateway: unexpected argument: %s\n", argv[first]);
		return -EINVAL;
	}
	if (rc == 0 && o->check) {
		return check(o, table) ? -EINVAL : 1;
	}
	return rc;
}

int main(int argc, char **argv)
{
	static struct process p = { .listen_fd = -1, .admin_fd = -1, .gw.bell = -1 };
	char reason[256];
	int rc;

	p.gw.options = (struct gw_options){
		.listen = "127.0.0.1:8081",
		.admin = "127.0.0.1:9091",
		.agent = "/run/tributary/agent.sock",
		.redis = "127.0.0.1:6379",
		.models = "/var/lib/tributary/models",
		.body_rate_min = 32768,
		.follow_bytes = 4u << 20,
		.body_grace_ms = 10000,
		.head_timeout_ms = 10000,
		.idle_timeout_ms = 15000,
		.conns_max = 16000,
		.drain_ms = 3000,
	};
	rc = parse(argc, argv, &p.gw.options);
	if (rc) {
		return rc == 1 ? 0 : 2;
	}
	trib_log_init("gateway", TRIB_LOG_INFO);
	if (trib_redis_login(&p.gw.options.login, reason)) {
		log_err("main", "%s", reason);
		return 1;
	}
	trib_privilege_share(p.gw.options.share);
	(void)signal(SIGPIPE, SIG_IGN);
	gw_jobs_init(&p.gw.jobs);
	gw_offers_init(&p.gw.offers);
	(void)pthread_mutex_init(&p.gw.transfers.lock, NULL);
	(void)pthread_mutex_init(&p.gw.lock, NULL);
	rc = run(&p);
	if (rc) {
		log_err("main", "ended rc=%d", rc);
		return 1;
	}
	log_info("main", "stopped");
	return 0;
}
