/* SPDX-License-Identifier: Apache-2.0
 * tributary-agent: the node's arm of the control plane. See agent.h.
 */
#include "orchestrator/agent/agent.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config_check.h"
#include "common/http_client.h"
#include "common/id.h"
#include "common/log.h"
#include "common/options.h"
#include "common/privilege.h"
#include "common/prompt.h"
#include "orchestrator/agent/filer.h"
#include "orchestrator/agent/published.h"
#include "orchestrator/agent/warm.h"

#define TICK_BUSY_MS 20
#define TICK_IDLE_MS 1000
#define BEAT_MAX_MS  3000

static const char usage[] =
	"tributary-agent: owns a node's shared memory, runs its aggregator functions";

static void default_aggregator(char *out, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", out, size - 32);
	char *slash;

	out[n > 0 ? n : 0] = '\0';
	slash = strrchr(out, '/');
	if (!slash) {
		(void)snprintf(out, size, "tributary-aggregator");
		return;
	}
	(void)snprintf(slash + 1, 32, "tributary-aggregator");
}

static enum trib_transport_mode transport_mode(const char *how)
{
	return strcmp(how, "skmsg") == 0   ? TRIB_TRANSPORT_SKMSG
	       : strcmp(how, "relay") == 0 ? TRIB_TRANSPORT_RELAY
					   : TRIB_TRANSPORT_AUTO;
}

static int check(const struct agent_options *o, const struct trib_option *table)
{
	struct trib_config_check check = { .program = "tributary-agent" };

	trib_log_init("agent", TRIB_LOG_WARN);
	if (!trib_client_id_valid(o->node) || strlen(o->node) > 63) {
		trib_config_fault(&check, "node", "'%s' is no name of 1 to 63 letters", o->node);
	}
	trib_config_socket(&check, "socket", o->socket);
	trib_config_redis(&check, "redis", o->redis);
	trib_config_redis_login(&check, &o->login);
	if (o->keeper[0]) {
		trib_config_socket(&check, "keeper", o->keeper);
	}
	trib_config_directory(&check, "models", o->models);
	if (transport_mode(o->transport) == TRIB_TRANSPORT_AUTO &&
	    strcmp(o->transport, "auto") != 0) {
		trib_config_fault(&check, "transport", "'%s' is not auto, skmsg or relay",
				  o->transport);
	}
	if (o->admin[0]) {
		trib_config_listen(&check, "admin", o->admin);
	}
	if (o->addr_file[0]) {
		trib_config_place(&check, "addr-file", o->addr_file);
	}
	trib_config_program(&check, "aggregator", o->aggregator);
	if (o->data_url[0]) {
		trib_config_url(&check, "data-url", o->data_url);
	}
	trib_config_file(&check, "peer-ca", o->peer_ca);
	trib_config_file(&check, "peer-cert", o->peer_cert);
	trib_config_file(&check, "peer-key", o->peer_key);
	return trib_config_verdict(&check, table);
}

static int parse(struct agent_options *o, int argc, char **argv)
{
	static char aggregator[512];
	const struct trib_option table[] = {
		{ "node", TRIB_OPTION_TEXT, &o->node, 0, 0, "NAME", "this node's name" },
		{ "socket", TRIB_OPTION_TEXT, &o->socket, 0, 0, "PATH",
		  "where the gateway connects" },
		{ "redis", TRIB_OPTION_TEXT, &o->redis, 0, 0, "ADDR",
		  "unix:PATH, HOST:PORT or sentinel://HOST:PORT,../MASTER" },
		TRIB_REDIS_LOGIN_OPTIONS(o->login),
		{ "keeper", TRIB_OPTION_TEXT, &o->keeper, 0, 0, "PATH",
		  "keeper of memfds; empty = none" },
		{ "models", TRIB_OPTION_TEXT, &o->models, 0, 0, "DIR", "published models" },
		{ "transport", TRIB_OPTION_TEXT, &o->transport, 0, 0, "HOW",
		  "auto, skmsg or relay" },
		{ "admin", TRIB_OPTION_TEXT, &o->admin, 0, 0, "ADDR", "health, metrics, state" },
		{ "addr-file", TRIB_OPTION_TEXT, &o->addr_file, 0, 0, "PATH",
		  "write bound addresses here" },
		{ "aggregator", TRIB_OPTION_TEXT, &o->aggregator, 0, 0, "PATH",
		  "the function program" },
		{ "data-url", TRIB_OPTION_TEXT, &o->data_url, 0, 0, "URL",
		  "this node's data plane" },
		{ "arena-bytes", TRIB_OPTION_NUMBER, &o->arena_bytes, 1u << 20, 1ull << 44, "N",
		  "shared memory for slots and sums" },
		{ "credit", TRIB_OPTION_NUMBER, &o->credit, 1, TRIB_RECENT_MAX / 2, "N",
		  "updates in hand per function" },
		{ "leaves-max", TRIB_OPTION_NUMBER, &o->leaves_max, 1, AGENT_FUNCTIONS_MAX - 2, "N",
		  "functions per job when the plan is automatic" },
		{ "idle-ms", TRIB_OPTION_NUMBER, &o->idle_ms, 100, 86400000, "N",
		  "idle time before functions exit" },
		{ "stall-ms", TRIB_OPTION_NUMBER, &o->stall_ms, 500, 86400000, "N",
		  "a function that has work and does not move for so long is replaced" },
		{ "mismatch-ms", TRIB_OPTION_NUMBER, &o->mismatch_ms, 5000, 86400000, "N",
		  "node and record count differently for so long: the round's updates are lost" },
		{ "function-bytes", TRIB_OPTION_NUMBER, &o->function_bytes, 1u << 20, 1ull << 44,
		  "N", "sums one function should hold, at most; larger models are split" },
		{ "spares", TRIB_OPTION_NUMBER, &o->spares, 0, AGENT_SPARES_MAX, "N",
		  "functions kept ready for any job, at most" },
		{ "cgroup", TRIB_OPTION_TEXT, &o->cgroup, 0, 0, "PATH",
		  "delegated cgroup v2 directory: a group per function; empty = none" },
		{ "capacity", TRIB_OPTION_NUMBER, &o->capacity, 0, 1000000, "N",
		  "updates aggregated at once (tributary calibrate); 0 = not published" },
		{ "nic-bytes-s", TRIB_OPTION_NUMBER, &o->nic_bytes_s, 0, 1ull << 44, "N",
		  "network budget for updates, bytes per second; 0 = no limit" },
		{ "lease-ms", TRIB_OPTION_NUMBER, &o->lease_ms, 1000, 600000, "N",
		  "silent for so long, this node counts as lost" },
		{ "peer-ca", TRIB_OPTION_TEXT, &o->peer_ca, 0, 0, "FILE",
		  "other nodes' gateways must have a certificate of this CA" },
		{ "peer-cert", TRIB_OPTION_TEXT, &o->peer_cert, 0, 0, "FILE",
		  "shown to them, if they ask" },
		{ "peer-key", TRIB_OPTION_TEXT, &o->peer_key, 0, 0, "FILE", "its key" },
		{ "poison-deaths", TRIB_OPTION_NUMBER, &o->poison_deaths, 1, 100, "N",
		  "functions killed in a row before an update is quarantined" },
		{ "test-poison-bits", TRIB_OPTION_NUMBER, &o->poison_bits, 0, UINT32_MAX, "N",
		  "tests only: a chunk of an update that begins so kills" },
		{ "test-fold-delay-us", TRIB_OPTION_NUMBER, &o->fold_delay_us, 0, 10000000, "N",
		  "tests only: pause after each chunk" },
		TRIB_SHARE_OPTION(o->share),
		TRIB_CHECK_OPTION(o->check),
		{ 0 },
	};
	int first;
	int rc;

	default_aggregator(aggregator, sizeof(aggregator));
	*o = (struct agent_options){
		.node = "node",
		.socket = "agent.sock",
		.redis = "127.0.0.1:6379",
		.keeper = "",
		.models = "models",
		.transport = "auto",
		.admin = "",
		.addr_file = "",
		.aggregator = aggregator,
		.data_url = "",
		.arena_bytes = 1ull << 30,
		.credit = 16,
		.leaves_max =
			(uint64_t)(sysconf(_SC_NPROCESSORS_ONLN) > 0 ? sysconf(_SC_NPROCESSORS_ONLN)
								     : 1),
		.idle_ms = 10000,
		.stall_ms = 10000,
		.mismatch_ms = 15000,
		.function_bytes = 4ull << 30,
		.spares = 4,
		.poison_deaths = 3,
		.cgroup = "",
		.lease_ms = 10000,
	};
	if (o->leaves_max > 16) {
		o->leaves_max = 16;
	}
	rc = trib_options_parse(argc, argv, usage, table, &first);
	if (rc == 0 && first < argc) {
		(void)fprintf(stderr, "tributary-agent: unexpected argument: %s\n", argv[first]);
		return -EINVAL;
	}
	if (rc == 0 && o->check) {
		return check(o, table) ? -EINVAL : 1;
	}
	return rc;
}

static bool anything_busy(const struct agent *agent)
{
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		const struct agent_job *job = agent->jobs[i];

		if (job && (!job->ready || job->pending_count || job->closing)) {
			return true;
		}
	}
	return false;
}

static void on_tick(void *arg)
{
	struct agent *agent = arg;

	agent_links_tick(agent);
	agent_zygote_tick(agent, trib_clock_ms());
	agent_jobs_tick(agent);
	agent_pool_tick(agent, trib_clock_ms());
	agent_load_sample(agent, trib_clock_ms());
	agent_drain_tick(agent, trib_clock_ms());
	if (agent->mourned_pid || agent->drain.on || anything_busy(agent)) {
		trib_timer_after(agent->tick, TICK_BUSY_MS);
	} else {
		trib_timer_about(agent->tick, TICK_IDLE_MS);
	}
}

/* The heartbeat's answer: 1 if the node is new, + 2 if it drains. */
static void on_heard(const struct trib_value *value, void *arg)
{
	if (value && trib_value_type(value) == TRIB_VALUE_INTEGER) {
		agent_drain_told(arg, trib_value_integer(value) & 2);
	}
}

static void on_beat(void *arg)
{
	struct agent *agent = arg;
	uint64_t period = agent->options.lease_ms / 4;
	double load[1] = { 0 };
	char key[96];
	char lease[24];
	char arena[24];
	char used[24];
	char jobs[12];
	char cpus[24];
	char average[24];
	char capacity[24];
	char nic[24];
	char arrivals[24];
	char seconds[24];

	if (agent->drain.left) {
		return; /* the record knows that it ends */
	}
	agent_key_ask(agent);
	agent_load_period(agent, trib_clock_ms());
	if (getloadavg(load, 1) < 1) {
		load[0] = 0;
	}
	(void)snprintf(key, sizeof(key), "trib:node:%s", agent->options.node);
	(void)snprintf(lease, sizeof(lease), "%llu", (unsigned long long)agent->options.lease_ms);
	(void)snprintf(arena, sizeof(arena), "%llu",
		       (unsigned long long)agent->options.arena_bytes);
	(void)snprintf(used, sizeof(used), "%llu", (unsigned long long)agent->arena_used);
	(void)snprintf(jobs, sizeof(jobs), "%u", agent->job_count);
	(void)snprintf(cpus, sizeof(cpus), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	(void)snprintf(average, sizeof(average), "%.2f", load[0]);
	(void)snprintf(capacity, sizeof(capacity), "%llu",
		       (unsigned long long)agent->options.capacity);
	(void)snprintf(nic, sizeof(nic), "%llu", (unsigned long long)agent->options.nic_bytes_s);
	(void)snprintf(arrivals, sizeof(arrivals), "%.3f", agent->load.arrivals_s);
	(void)snprintf(seconds, sizeof(seconds), "%.4f", agent->load.seconds);
	if (trib_redis_outstanding(agent->redis) < 1024 &&
	    trib_redis_send(agent->redis, on_heard, agent, "FCALL", "trib_node_up", "1", key,
			    agent->options.node, lease, "url", agent->options.data_url, "arena",
			    arena, "arena_used", used, "jobs", jobs, "cpus", cpus, "load", average,
			    "capacity", capacity, "nic_bytes_s", nic, "arrivals_s", arrivals,
			    "seconds", seconds, "boot", agent->boot, "transport",
			    trib_transport_mode(agent->transport) == TRIB_TRANSPORT_SKMSG ? "skmsg"
											  : "relay",
			    NULL)) {
		log_warn("main", "event=heartbeat-not-sent");
	}
	trib_timer_about(agent->beat, period < BEAT_MAX_MS ? period : BEAT_MAX_MS);
}

static void on_message(const char *message, void *arg)
{
	struct agent *agent = arg;

	if (strncmp(message, "drain ", 6) == 0) {
		if (strcmp(message + 6, agent->options.node) == 0) {
			on_beat(agent); /* its answer tells which way */
		}
	} else if (strncmp(message, "carry ", 6) == 0) {
		agent_drain_carry(agent, message);
	} else {
		agent_jobs_wake(agent, message);
	}
}

static void on_again(void *arg)
{
	struct agent *agent = arg;

	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		if (agent->jobs[i]) {
			agent_job_sync(agent->jobs[i]);
		}
	}
}

static void on_signal(int number, void *arg)
{
	struct agent *agent = arg;

	log_info("main", "event=signal number=%d", number);
	if (agent_drain_stop(agent)) {
		trib_loop_stop(agent->loop);
	}
}

static int transport_start(struct agent *agent)
{
	const char *how = agent->options.transport;
	enum trib_transport_mode mode = transport_mode(how);
	int rc;

	if (mode == TRIB_TRANSPORT_AUTO && strcmp(how, "auto") != 0) {
		(void)fprintf(stderr, "tributary-agent: --transport is auto, skmsg or relay\n");
		return -EINVAL;
	}
	rc = trib_transport_new(agent->loop, mode, &agent->transport);
	if (rc) {
		log_err("main", "event=transport-failed wanted=%s rc=%d", how, rc);
		return rc;
	}
	log_info("main", "event=transport %s", trib_transport_explain(agent->transport));
	return 0;
}

static int start(struct agent *agent)
{
	int rc;

	if (mkdir(agent->options.models, 0770) && errno != EEXIST) {
		return -errno;
	}
	agent->cores =
		sysconf(_SC_NPROCESSORS_ONLN) > 0 ? (uint32_t)sysconf(_SC_NPROCESSORS_ONLN) : 1;
	agent_pool_start(agent);
	agent_cgroup_start(agent);
	rc = agent_zygote_start(agent); /* first: it should be small */
	if (!rc) {
		rc = transport_start(agent);
	}
	if (!rc) {
		rc = agent_writer_new(agent->loop, agent_round_written, agent, &agent->writer);
	}
	if (!rc) {
		rc = agent_filer_new(agent->loop, agent->options.models, agent_published_filed,
				     agent, &agent->filer);
	}
	if (!rc) {
		rc = agent_warmer_new(&agent->warmer);
	}
	if (!rc) {
		rc = trib_redis_new(agent->loop, agent->options.redis, &agent->redis);
	}
	if (!rc) {
		rc = trib_redis_new(agent->loop, agent->options.redis, &agent->wakes);
	}
	if (!rc) {
		rc = trib_redis_subscribe(agent->wakes, "trib:wake", on_message, on_again, agent);
	}
	if (!rc) {
		rc = agent_links_start(agent);
	}
	if (!rc) {
		rc = agent_admin_start(agent);
	}
	if (!rc) {
		rc = trib_timer_new(agent->loop, on_tick, agent, &agent->tick);
	}
	if (!rc) {
		rc = trib_timer_new(agent->loop, on_beat, agent, &agent->beat);
	}
	return rc;
}

static void stop(struct agent *agent)
{
	agent_links_stop(agent);
	/* Sums stay with the keeper: only processes end here. */
	for (uint32_t i = 0; i < AGENT_JOBS_MAX; i++) {
		for (uint32_t f = AGENT_TOP; agent->jobs[i] && f < AGENT_FUNCTIONS_MAX; f++) {
			agent_fn_stop(&agent->jobs[i]->fns[f]);
		}
	}
	agent_pool_stop(agent);
	agent_zygote_stop(agent);
	agent_admin_stop(agent);
	agent->warmer = agent_warmer_free(agent->warmer);
	agent->writer = agent_writer_free(agent->writer);
	agent_published_stop(agent);
}

/* Of this process; memory has boots of its own. */
static void name_boot(struct agent *agent)
{
	struct trib_id id = trib_id_make();

	trib_id_print("", &id, agent->boot);
}

int main(int argc, char **argv)
{
	static struct agent agent = { .keeper_fd = -1, .link_fd = -1, .zygote_fd = -1 };
	char reason[256];
	int rc;

	rc = parse(&agent.options, argc, argv);
	if (rc) {
		return rc > 0 ? 0 : 2;
	}
	trib_log_init("agent", TRIB_LOG_INFO);
	if (trib_redis_login(&agent.options.login, reason)) {
		log_err("main", "event=start-failed detail=\"%s\"", reason);
		return 1;
	}
	name_boot(&agent);
	trib_client_trust(agent.options.peer_ca, agent.options.peer_cert, agent.options.peer_key);
	trib_privilege_share(agent.options.share);
	rc = trib_loop_new(&agent.loop);
	if (!rc) {
		rc = trib_loop_on_signal(agent.loop, SIGTERM, on_signal, &agent);
	}
	if (!rc) {
		rc = trib_loop_on_signal(agent.loop, SIGINT, on_signal, &agent);
	}
	if (!rc) {
		rc = start(&agent);
	}
	if (!rc) {
		/* The program is loaded; sockets are still put into its maps. */
		rc = trib_privilege_drop(1ull << CAP_BPF | 1ull << CAP_NET_ADMIN);
	}
	if (rc) {
		log_err("main", "event=start-failed rc=%d detail=\"%s\"", rc, strerror(-rc));
		return 1;
	}
	agent_adopt(&agent);
	trib_timer_after(agent.tick, TICK_BUSY_MS);
	on_beat(&agent);
	log_info("main", "event=started node=%s arena=%llu", agent.options.node,
		 (unsigned long long)agent.options.arena_bytes);
	if (trib_prompt()) {
		log_debug("main", "event=no-short-slices");
	}
	rc = trib_loop_run(agent.loop);
	stop(&agent);
	return rc ? 1 : 0;
}
