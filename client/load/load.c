/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/load.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/load/html.h"
#include "client/load/report.h"
#include "client/load/slo.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/fd_table.h"

#define LOOK_MS      1000
#define STEP_MS      20
#define ROWS_MAX     100000
#define LINE_COLUMNS 118

struct load {
	struct load_plan plan;
	struct load_run run;
	struct load_job job;
	struct load_server server;
	struct load_worker *workers[LOAD_THREADS_MAX];
	unsigned worker_count;
	struct load_row *rows;
	size_t row_count;
	struct load_histogram before; /* receipts, at the last look */
	double cpu_before;
	uint64_t looked_ns;
	bool line; /* a progress line stands there */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
	(void)number;
	interrupted = interrupted + 1;
	if (interrupted > 1) {
		_exit(130);
	}
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_nsec = (long)ms * 1000000 };

	(void)nanosleep(&t, NULL);
}

/* ---- where clients go ---- */

/* "http://host:port" -> address. */
static int find_address(struct load *load)
{
	const char *url = load->job.data_url;
	bool tls = strncmp(url, "https://", 8) == 0;
	const char *at = url + (tls ? 8 : 7);
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	char host[256];
	char *port;
	int rc;

	if ((!tls && strncmp(url, "http://", 7) != 0) ||
	    trib_copy(load->run.host, sizeof(load->run.host), at) ||
	    trib_copy(host, sizeof(host), at)) {
		cli_say("the gateway's address '%s' is no http(s) URL", url);
		return CLI_FAILED;
	}
	host[strcspn(host, "/")] = '\0';
	load->run.host[strcspn(load->run.host, "/")] = '\0';
	port = strrchr(host, ':');
	if (port && strchr(port, ']')) {
		port = NULL;
	}
	if (port) {
		*port++ = '\0';
	}
	if (host[0] == '[') {
		memmove(host, host + 1, strlen(host));
		host[strcspn(host, "]")] = '\0';
	}
	rc = getaddrinfo(host, port ? port : tls ? "443" : "80", &hints, &found);
	if (rc) {
		cli_say("%s: %s", host, gai_strerror(rc));
		return CLI_UNREACHABLE;
	}
	memcpy(&load->run.address, found->ai_addr, found->ai_addrlen);
	load->run.address_size = found->ai_addrlen;
	load->run.loopback =
		found->ai_family == AF_INET &&
		(ntohl(((struct sockaddr_in *)(void *)&load->run.address)->sin_addr.s_addr) >>
		 24) == 127;
	freeaddrinfo(found);
	if (tls) {
		const struct trib_tls_peer peer = { load->plan.service.cacert,
						    load->plan.service.cert, load->plan.service.key,
						    host };

		if (trib_tls_client_new(&peer, &load->run.tls)) {
			cli_say("TLS cannot be set up with these certificates");
			return CLI_USAGE;
		}
	}
	return CLI_OK;
}

/* A descriptor per connection: when a table has no room for them, each thread gets its own. */
static int find_room(struct load_plan *plan)
{
	uint64_t want = plan->conns_max && plan->conns_max < plan->clients ? plan->conns_max
									   : plan->clients;
	struct trib_fd_plan files = trib_fd_plan(want);
	uint64_t room = files.room;

	plan->own_tables = files.tables > 1;
	if (plan->own_tables) {
		uint64_t tables = files.tables < LOAD_THREADS_MAX ? files.tables : LOAD_THREADS_MAX;

		if (plan->threads_free && plan->threads < tables) {
			plan->threads = tables;
		}
		room *= plan->threads;
	}
	plan->conns_max = want < room ? want : room;
	if (plan->arrivals == LOAD_CLOSED && !plan->close && plan->conns_max < plan->clients) {
		cli_say("%llu clients want as many connections, but only %llu are possible (open "
			"files of a thread: %llu, --threads, --conns-max). Use more threads, or "
			"--close: clients then have a connection only while they talk",
			(unsigned long long)plan->clients, (unsigned long long)plan->conns_max,
			(unsigned long long)files.limit);
		return CLI_USAGE;
	}
	return CLI_OK;
}

/* ---- looking ---- */

static void print_line(struct load *load, const struct load_row *row, const struct load_row *last)
{
	char text[256];
	double seconds = row->seconds > 0 ? row->seconds : 1;

	if (load->plan.quiet || !isatty(STDERR_FILENO)) {
		return;
	}
	(void)snprintf(text, sizeof(text),
		       "%5.0f s  %8.0f receipts/s  %7.1f MB/s  p50 %.1f p99 %.1f ms  conns %llu  "
		       "out %llu  refused %llu  errors %llu",
		       row->at_s,
		       (double)(row->counts[LOAD_RECEIPTS] - last->counts[LOAD_RECEIPTS]) / seconds,
		       (double)(row->counts[LOAD_BYTES_UP] - last->counts[LOAD_BYTES_UP]) / 1e6 /
			       seconds,
		       row->p50_ms, row->p99_ms, (unsigned long long)row->counts[LOAD_CONNS],
		       (unsigned long long)row->counts[LOAD_OUT],
		       (unsigned long long)row->counts[LOAD_REFUSALS],
		       (unsigned long long)row->counts[LOAD_ERRORS]);
	(void)fprintf(stderr, "\r%-*.*s", LINE_COLUMNS, LINE_COLUMNS, text);
	(void)fflush(stderr);
	load->line = true;
}

static void look(struct load *load)
{
	static const struct load_row zero;
	static struct load_histogram now;
	static struct load_histogram between;
	uint64_t t = trib_clock_ns();
	struct load_row *row;

	if (load->row_count >= ROWS_MAX) {
		return;
	}
	row = &load->rows[load->row_count];
	*row = (struct load_row){ .at_s = (double)(t - load->run.start_ns) / 1e9,
				  .seconds = (double)(t - load->looked_ns) / 1e9 };
	load_counts_sum(load->workers, load->worker_count, row->counts);
	load_latency_sum(load->workers, load->worker_count, LOAD_RECEIPT, &now);
	load_histogram_between(&now, &load->before, &between);
	load->before = now;
	row->p50_ms = (double)load_histogram_quantile(&between, 0.5) / 1e6;
	row->p99_ms = (double)load_histogram_quantile(&between, 0.99) / 1e6;
	row->p999_ms = (double)load_histogram_quantile(&between, 0.999) / 1e6;
	load_server_look(&load->server);
	row->rss_mb = (double)load->server.rss / 1e6;
	row->shmem_mb = (double)load->server.shmem / 1e6;
	row->cpu_cores =
		row->seconds > 0 ? (load->server.cpu_s - load->cpu_before) / row->seconds : 0;
	load->cpu_before = load->server.cpu_s;
	load->looked_ns = t;
	print_line(load, row, load->row_count ? row - 1 : &zero);
	load->row_count++;
}

/* ---- running ---- */

static uint64_t total(const struct load *load, enum load_count what)
{
	uint64_t counts[LOAD_COUNT];

	load_counts_sum(load->workers, load->worker_count, counts);
	return counts[what];
}

static bool enough(const struct load *load, uint64_t end_ns)
{
	const struct load_plan *plan = &load->plan;

	if (interrupted || trib_clock_ns() >= end_ns ||
	    __atomic_load_n(&load->run.over, __ATOMIC_RELAXED)) {
		return true;
	}
	if (plan->updates && total(load, LOAD_RECEIPTS) >= plan->updates) {
		return true;
	}
	return plan->arrivals == LOAD_TRACE &&
	       total(load, LOAD_ARRIVALS) + total(load, LOAD_ARRIVALS_LOST) >= plan->trace.count &&
	       total(load, LOAD_BACKLOG) == 0 && total(load, LOAD_OUT) == 0;
}

static void phase(struct load *load, enum load_phase to)
{
	for (unsigned i = 0; i < load->worker_count; i++) {
		load_worker_phase(load->workers[i], to);
	}
}

static void wait_until(struct load *load, uint64_t end_ns, bool draining)
{
	uint64_t next_ns = load->looked_ns + LOOK_MS * 1000000ull;

	for (;;) {
		sleep_ms(STEP_MS);
		if (trib_clock_ns() >= next_ns) {
			look(load);
			next_ns += LOOK_MS * 1000000ull;
		}
		if (draining ? total(load, LOAD_UPLOADING) == 0 || trib_clock_ns() >= end_ns
			     : enough(load, end_ns)) {
			return;
		}
	}
}

static double own_cpu(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int start_workers(struct load *load)
{
	int rc = 0;

	load->rows = trib_alloc_array(ROWS_MAX, sizeof(*load->rows));
	rc = load->rows ? 0 : -ENOMEM;
	for (unsigned i = 0; i < load->plan.threads && rc == 0; i++) {
		rc = load_worker_new(&load->run, i, &load->workers[i]);
		load->worker_count += rc == 0;
	}
	load->run.start_ns = trib_clock_ns() + 10000000;
	load->looked_ns = load->run.start_ns;
	for (unsigned i = 0; i < load->worker_count && rc == 0; i++) {
		rc = load_worker_start(load->workers[i]);
	}
	if (rc) {
		cli_say("threads cannot be started: %s", strerrordesc_np(-rc));
	}
	return rc;
}

/* ---- the end ---- */

static int write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	if (!file || fputs(text, file) < 0 || fclose(file)) {
		cli_say("%s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int write_files(const struct load_plan *plan, const json_t *report)
{
	char *text;
	int rc = CLI_OK;

	if (plan->report_file) {
		text = json_dumps(report, JSON_INDENT(1));
		rc = text ? write_text(plan->report_file, text) : CLI_FAILED;
		trib_free(text);
	}
	if (plan->html_file) {
		text = load_html(report);
		rc = text ? write_text(plan->html_file, text) | rc : CLI_FAILED;
		trib_free(text);
	}
	return rc;
}

static void print_summary(const json_t *report)
{
	json_t *limits = trib_json_at(report, "slo");
	const char *name;
	json_t *value;

	(void)printf("receipts   %lld  (%.0f/s, %.1f MB/s)\n",
		     trib_json_integer(report, "totals.receipts", 0),
		     trib_json_number(report, "totals.goodput_per_s", 0),
		     trib_json_number(report, "totals.goodput_mb_per_s", 0));
	(void)printf("latency    receipt p50 %.2f  p99 %.2f  p99.9 %.2f ms\n",
		     trib_json_number(report, "latency.receipt.p50_ms", 0),
		     trib_json_number(report, "latency.receipt.p99_ms", 0),
		     trib_json_number(report, "latency.receipt.p999_ms", 0));
	(void)printf("rounds     %lld published, p50 %.3f s\n",
		     trib_json_integer(report, "rounds.published", 0),
		     trib_json_number(report, "rounds.p50_s", 0));
	json_object_foreach(trib_json_at(report, "refusals"), name, value)
	{
		(void)printf("refused    %-20s %lld\n", name, (long long)json_integer_value(value));
	}
	json_object_foreach(trib_json_at(report, "errors.unintended"), name, value)
	{
		(void)printf("ERROR      %-20s %lld\n", name, (long long)json_integer_value(value));
	}
	(void)printf("counting   %lld receipts, %lld counted: %lld lost, %lld double, "
		     "%lld unresolved\n",
		     trib_json_integer(report, "counting.receipts", 0),
		     trib_json_integer(report, "counting.counted", 0),
		     trib_json_integer(report, "counting.lost", 0),
		     trib_json_integer(report, "counting.double", 0),
		     trib_json_integer(report, "counting.unresolved", 0));
	for (size_t i = 0; i < json_array_size(limits); i++) {
		json_t *limit = json_array_get(limits, i);

		(void)printf("slo %-6s %s: %g (limit %g)\n",
			     json_is_true(trib_json_at(limit, "ok")) ? "ok" : "MISSED",
			     trib_json_text(limit, "name", "?"),
			     trib_json_number(limit, "value", -1),
			     trib_json_number(limit, "limit", 0));
	}
}

static int conclude(struct load *load, double seconds)
{
	struct load_result result = {
		.plan = &load->plan,
		.run = &load->run,
		.job = &load->job,
		.server = &load->server,
		.workers = load->workers,
		.worker_count = load->worker_count,
		.rows = load->rows,
		.row_count = load->row_count,
		.seconds = seconds,
		.own_cpu_s = own_cpu(),
	};
	bool counts_ok = false;
	bool slo_ok = true;
	json_t *report;
	int rc;

	load_server_look(&load->server);
	result.rounds_known = load_job_rounds(&load->plan, &load->job, &result.rounds,
					      &result.round_count) == CLI_OK;
	report = load_report(&result, &counts_ok);
	trib_free(result.rounds);
	if (!report) {
		cli_say("out of memory");
		return CLI_FAILED;
	}
	if (load->plan.slo) {
		(void)json_object_set_new(report, "slo",
					  load_slo_judge(load->plan.slo, report, &slo_ok));
	}
	rc = !counts_ok                                             ? LOAD_EXIT_COUNTING
	     : trib_json_integer(report, "totals.receipts", 0) == 0 ? LOAD_EXIT_NOTHING
	     : slo_ok                                               ? LOAD_EXIT_OK
								    : LOAD_EXIT_SLO;
	(void)json_object_set_new(report, "exit", json_integer(rc));
	if (write_files(&load->plan, report) && rc == LOAD_EXIT_OK) {
		rc = CLI_FAILED;
	}
	if (strcmp(load->plan.service.format, "json") == 0) {
		(void)json_dumpf(report, stdout, JSON_INDENT(1));
		(void)fputc('\n', stdout);
	} else {
		print_summary(report);
	}
	json_decref(report);
	return rc;
}

static int run(struct load *load)
{
	uint64_t end_ns;
	double seconds;

	if (start_workers(load)) {
		phase(load, LOAD_ENDING);
		return CLI_FAILED;
	}
	end_ns = load->run.start_ns + (uint64_t)(load->plan.duration_s * 1e9);
	if ((load->plan.rounds || load->plan.updates || load->plan.arrivals == LOAD_TRACE) &&
	    !load->plan.duration_text) {
		end_ns = UINT64_MAX;
	}
	wait_until(load, end_ns, false);
	look(load);
	seconds = (double)(trib_clock_ns() - load->run.start_ns) / 1e9;
	phase(load, LOAD_DRAINING);
	sleep_ms(STEP_MS);
	wait_until(load, trib_clock_ns() + load->plan.drain_s * 1000000000ull, true);
	phase(load, LOAD_ENDING);
	for (unsigned i = 0; i < load->worker_count; i++) {
		load_worker_join(load->workers[i]);
	}
	if (load->line) {
		(void)fputc('\n', stderr);
	}
	return conclude(load, seconds);
}

int cli_load(const struct cli_command *command, int argc, char **argv)
{
	static struct load load;
	struct load_plan *plan = &load.plan;
	int rc;

	if (!load_plan_read(plan, command, argc, argv, &rc)) {
		load_plan_fini(plan);
		return rc;
	}
	(void)signal(SIGINT, on_interrupt);
	(void)signal(SIGTERM, on_interrupt);
	load.run.plan = plan;
	rc = trib_random(&load.run.tag, sizeof(load.run.tag)) ? CLI_FAILED : CLI_OK;
	load.run.tag &= 0xffffffff;
	rc = rc ? rc : find_room(plan);
	rc = rc ? rc : load_server_open(&load.server, plan);
	rc = rc ? rc : load_job_open(plan, &load.run, &load.job);
	if (rc == CLI_OK) {
		rc = find_address(&load);
		rc = rc ? rc : run(&load);
		load_job_close(plan, &load.job);
	}
	for (unsigned i = 0; i < load.worker_count; i++) {
		load_worker_join(load.workers[i]);
		load.workers[i] = load_worker_free(load.workers[i]);
	}
	load.run.tls = trib_tls_free(load.run.tls);
	load_payload_fini(&load.run.payload);
	trib_free(load.rows);
	load_plan_fini(plan);
	return rc;
}
