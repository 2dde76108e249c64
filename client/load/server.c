/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/http_client.h"

#define METRICS_MAX (256u << 10)

/* ---- what to look at ---- */

static void add_pid(struct load_server *server, const char *name, long long pid)
{
	struct load_watched *process = &server->processes[server->process_count];

	if (pid > 0 && server->process_count < LOAD_LIST_MAX) {
		(void)snprintf(process->name, sizeof(process->name), "%s", name);
		process->pid = (pid_t)pid;
		server->process_count++;
	}
}

static void add_admin(struct load_server *server, const char *url)
{
	struct load_admin *admin = &server->admins[server->admin_count];

	if (server->admin_count < LOAD_LIST_MAX &&
	    trib_copy(admin->url, sizeof(admin->url), url) == 0) {
		admin->copied_first = -1;
		admin->accepted_first = -1;
		server->admin_count++;
	}
}

static int read_endpoints(struct load_server *server, struct load_plan *plan)
{
	char path[4096];
	char text[16384];
	char reason[160];
	json_t *json = NULL;
	const char *name;
	json_t *value;
	FILE *file;
	size_t size;

	(void)snprintf(path, sizeof(path), "%s/endpoints.json", plan->dir);
	file = fopen(path, "re");
	if (!file) {
		cli_say("%s: %s", path, strerror(errno));
		return CLI_USAGE;
	}
	size = fread(text, 1, sizeof(text), file);
	(void)fclose(file);
	if (trib_json_parse(text, size, &json, reason)) {
		cli_say("%s: %s", path, reason);
		return CLI_USAGE;
	}
	json_object_foreach(trib_json_at(json, "pids"), name, value)
	{
		add_pid(server, name, json_integer_value(value));
	}
	json_object_foreach(trib_json_at(json, "admin"), name, value)
	{
		add_admin(server, json_string_value(value) ? json_string_value(value) : "");
	}
	if (trib_copy(plan->service.api_text, sizeof(plan->service.api_text),
		      trib_json_text(json, "api", ""))) {
		cli_say("%s: the API's address is too long", path);
		json_decref(json);
		return CLI_USAGE;
	}
	plan->service.api = plan->service.api_text;
	json_decref(json);
	return CLI_OK;
}

static void read_name(pid_t pid, char out[32])
{
	char path[64];
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	if (file) {
		if (fgets(out, 32, file)) {
			out[strcspn(out, "\n")] = '\0';
		}
		(void)fclose(file);
	}
}

static int read_pids(struct load_server *server, const char *at)
{
	while (at && *at) {
		size_t size = strcspn(at, ",");
		char name[32] = "?";
		uint64_t pid;

		if (trib_parse_u64(at, size, 1, INT32_MAX, &pid)) {
			cli_say("--pid: '%s' is not a list of process ids", at);
			return CLI_USAGE;
		}
		read_name((pid_t)pid, name);
		add_pid(server, name, (long long)pid);
		at += size + (at[size] == ',');
	}
	return CLI_OK;
}

static int read_admins(struct load_server *server, const char *at)
{
	while (at && *at) {
		size_t size = strcspn(at, ",");
		char url[256];

		(void)snprintf(url, sizeof(url), "%.*s", (int)size, at);
		if (strncmp(url, "http", 4) != 0 && strncmp(url, "unix:/", 6) != 0) {
			cli_say("--admin: '%s' is neither http(s)://.. nor unix:/..", url);
			return CLI_USAGE;
		}
		add_admin(server, url);
		at += size + (at[size] == ',');
	}
	return CLI_OK;
}

int load_server_open(struct load_server *server, struct load_plan *plan)
{
	int rc = plan->dir ? read_endpoints(server, plan) : CLI_OK;

	rc = rc ? rc : read_pids(server, plan->pid_text);
	rc = rc ? rc : read_admins(server, plan->admin_text);
	load_server_look(server);
	return rc;
}

/* ---- /proc ---- */

static bool read_file(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "re");
	size_t n = file ? fread(text, 1, size - 1, file) : 0;

	text[n] = '\0';
	if (file) {
		(void)fclose(file);
	}
	return n > 0;
}

/* Memory that is the process's own: what is shared (slots) shows up as shmem of the machine. */
static void look_at_process(struct load_watched *process)
{
	char path[64];
	char text[4096];
	const char *at;
	unsigned long user;
	unsigned long kernel;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)process->pid);
	at = read_file(path, text, sizeof(text)) ? strrchr(text, ')') : NULL;
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			  &kernel) != 2) {
		return; /* gone; what it had stays */
	}
	process->cpu_s = (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)process->pid);
	at = read_file(path, text, sizeof(text)) ? strstr(text, "RssAnon:") : NULL;
	process->rss = at ? strtoull(at + 8, NULL, 10) * 1024 : 0;
	process->rss_max = process->rss > process->rss_max ? process->rss : process->rss_max;
	if (!process->seen) {
		process->seen = true;
		process->cpu_first_s = process->cpu_s;
		process->rss_first = process->rss;
	}
}

static void look_at_machine(struct load_server *server)
{
	char text[8192];
	const char *at =
		read_file("/proc/meminfo", text, sizeof(text)) ? strstr(text, "Shmem:") : NULL;

	server->shmem = at ? strtoull(at + 6, NULL, 10) * 1024 : 0;
	server->shmem_first = server->shmem_first ? server->shmem_first : server->shmem;
	server->shmem_max = server->shmem > server->shmem_max ? server->shmem : server->shmem_max;
}

/* ---- /metrics ---- */

/* GET over a unix socket; the answer, head and all, terminated. */
static bool get_unix(const char *path, char *out, size_t size)
{
	static const char ask[] =
		"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = 1 };
	size_t used = 0;
	ssize_t n = -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	out[0] = '\0';
	if (fd < 0 || trib_copy(address.sun_path, sizeof(address.sun_path), path)) {
		n = -1;
	} else {
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
		n = connect(fd, (const struct sockaddr *)&address, sizeof(address)) ? -1 : 1;
		n = n > 0 ? send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) : n;
		while (n > 0 && used < size - 1) {
			n = recv(fd, out + used, size - 1 - used, 0);
			used += n > 0 ? (size_t)n : 0;
		}
		out[used] = '\0';
	}
	if (fd >= 0) {
		(void)close(fd);
	}
	return used > 0 && n >= 0;
}

static bool get_metrics(const char *url, char *out, size_t size)
{
	char full[320];
	struct trib_client_request request = { .method = "GET", .url = full, .timeout_ms = 1000 };
	struct trib_client_answer answer;
	bool good;

	if (strncmp(url, "unix:", 5) == 0) {
		return get_unix(url + 5, out, size);
	}
	(void)snprintf(full, sizeof(full), "%s%s", url, strstr(url, "/metrics") ? "" : "/metrics");
	good = trib_client_request(&request, &answer) == 0 && answer.status == 200;
	(void)snprintf(out, size, "%s", good ? answer.body : "");
	trib_client_answer_fini(&answer);
	return good;
}

/* Sum of a metric's rows; negative when there is none. */
static double metric(const char *text, const char *name)
{
	size_t size = strlen(name);
	double sum = -1;

	for (const char *at = strstr(text, name); at; at = strstr(at + size, name)) {
		const char *value = at + size;

		if (at != text && at[-1] != '\n') {
			continue;
		}
		if (*value == '{') {
			value = strchr(value, '}');
			value = value ? value + 1 : at;
		}
		if (*value == ' ') {
			sum = (sum < 0 ? 0 : sum) + strtod(value, NULL);
		}
	}
	return sum;
}

static void look_at_admin(struct load_admin *admin, char *text)
{
	if (!get_metrics(admin->url, text, METRICS_MAX)) {
		return;
	}
	admin->copied = metric(text, "tributary_payload_bytes_copied_total");
	admin->accepted = metric(text, "tributary_updates_accepted_total");
	admin->conns = metric(text, "tributary_conns");
	admin->conns_max = admin->conns > admin->conns_max ? admin->conns : admin->conns_max;
	if (!admin->seen) {
		admin->seen = true;
		admin->copied_first = admin->copied;
		admin->accepted_first = admin->accepted;
	}
}

void load_server_look(struct load_server *server)
{
	char *text = trib_alloc(METRICS_MAX);

	server->rss = 0;
	server->cpu_s = 0;
	for (unsigned i = 0; i < server->process_count; i++) {
		look_at_process(&server->processes[i]);
		server->rss += server->processes[i].rss;
		server->cpu_s += server->processes[i].cpu_s - server->processes[i].cpu_first_s;
	}
	server->rss_max = server->rss > server->rss_max ? server->rss : server->rss_max;
	look_at_machine(server);
	for (unsigned i = 0; i < server->admin_count && text; i++) {
		look_at_admin(&server->admins[i], text);
	}
	trib_free(text);
}

/* ---- report ---- */

static json_t *process_json(const struct load_watched *process)
{
	return json_pack("{s:s, s:I, s:f, s:f, s:f}", "name", process->name, "pid",
			 (json_int_t)process->pid, "cpu_s", process->cpu_s - process->cpu_first_s,
			 "rss_mb", (double)process->rss / 1e6, "rss_max_mb",
			 (double)process->rss_max / 1e6);
}

json_t *load_server_json(const struct load_server *server, double seconds)
{
	json_t *processes = json_array();
	json_t *json;
	double copied = -1;
	double accepted = -1;
	double conns = -1;

	for (unsigned i = 0; i < server->process_count; i++) {
		(void)json_array_append_new(processes, process_json(&server->processes[i]));
	}
	for (unsigned i = 0; i < server->admin_count; i++) {
		const struct load_admin *admin = &server->admins[i];

		if (admin->seen && admin->copied_first >= 0) {
			copied = (copied < 0 ? 0 : copied) + admin->copied - admin->copied_first;
		}
		if (admin->seen && admin->accepted_first >= 0) {
			accepted = (accepted < 0 ? 0 : accepted) + admin->accepted -
				   admin->accepted_first;
		}
		conns = admin->seen && admin->conns_max > conns ? admin->conns_max : conns;
	}
	json = json_pack("{s:o, s:f, s:f}", "processes", processes, "cpu_s", server->cpu_s,
			 "cpu_cores", seconds > 0 ? server->cpu_s / seconds : 0);
	(void)json_object_set_new(json, "rss_max_mb",
				  server->process_count ? json_real((double)server->rss_max / 1e6)
							: json_null());
	(void)json_object_set_new(
		json, "shmem_growth_max_mb",
		json_real((double)(server->shmem_max - server->shmem_first) / 1e6));
	(void)json_object_set_new(json, "bytes_copied",
				  copied < 0 ? json_null() : json_real(copied));
	(void)json_object_set_new(json, "updates_accepted",
				  accepted < 0 ? json_null() : json_real(accepted));
	(void)json_object_set_new(json, "connections_max",
				  conns < 0 ? json_null() : json_real(conns));
	return json;
}
