/* SPDX-License-Identifier: Apache-2.0 */
#include "common/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/version.h"

struct text {
	char *bytes;
	size_t size;
	size_t room;
	bool failed;
};

static TRIB_PRINTF(2, 3) void add(struct text *text, const char *format, ...)
{
	va_list args;
	char *bytes;
	int n;

	if (text->failed) {
		return;
	}
	for (int attempt = 0; attempt < 2; attempt++) {
		va_start(args, format);
		/* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): started right above */
		n = vsnprintf(text->bytes + text->size, text->room - text->size, format, args);
		va_end(args);
		if (n >= 0 && (size_t)n < text->room - text->size) {
			text->size += (size_t)n;
			return;
		}
		bytes = n < 0 ? NULL : trib_realloc(text->bytes, text->room * 2 + (size_t)n);
		if (!bytes) {
			break;
		}
		text->bytes = bytes;
		text->room = text->room * 2 + (size_t)n;
	}
	text->failed = true;
}

static void add_head(struct text *text, const char *name, const char *help,
		     enum trib_metric_kind kind)
{
	add(text, "# HELP %s ", name);
	for (const char *at = help ? help : ""; *at; at++) {
		if (*at == '\n') {
			add(text, "\\n");
		} else if (*at == '\\') {
			add(text, "\\\\");
		} else {
			add(text, "%c", *at);
		}
	}
	add(text, "\n# TYPE %s %s\n", name, kind == TRIB_COUNTER ? "counter" : "gauge");
}

static void add_metric(struct text *text, const struct trib_metric *metric)
{
	const char *labels = metric->labels && *metric->labels ? metric->labels : NULL;
	long long value = (long long)trib_metric_get(metric);

	add(text, "%s%s%s%s ", metric->name, labels ? "{" : "", labels ? labels : "",
	    labels ? "}" : "");
	if (metric->scale < 0 || metric->scale > 0) {
		add(text, "%.15g\n", (double)value * metric->scale);
	} else {
		add(text, "%lld\n", value);
	}
}

static void add_row(struct text *text, const char *name, enum trib_metric_kind kind,
		    const char *help, double value)
{
	add_head(text, name, help, kind);
	add(text, "%s %.15g\n", name, value);
}

/* Field `index` (1 = pid) of /proc/self/stat; the name in parentheses may hold anything. */
static bool stat_field(const char *line, int index, unsigned long long *ret_value)
{
	const char *at = strrchr(line, ')');
	char *end;

	for (int i = 2; at && i < index; i++) {
		at = strchr(at + 1, ' ');
	}
	if (!at) {
		return false;
	}
	*ret_value = strtoull(at, &end, 10);
	return end != at;
}

static bool read_small(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		return false;
	}
	n = read(fd, out, size - 1);
	(void)close(fd);
	out[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void add_fds(struct text *text)
{
	DIR *dir = opendir("/proc/self/fd");
	struct rlimit limit;
	unsigned count = 0;

	if (dir) {
		while (readdir(dir)) { /* NOLINT(concurrency-mt-unsafe): own stream */
			count++;
		}
		(void)closedir(dir);
		add_row(text, "process_open_fds", TRIB_GAUGE, "Open file descriptors.",
			count > 3 ? count - 3 : 0); /* ".", ".." and the directory itself */
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		add_row(text, "process_max_fds", TRIB_GAUGE, "Limit of open file descriptors.",
			(double)limit.rlim_cur);
	}
}

static void add_process(struct text *text)
{
	double tick = (double)sysconf(_SC_CLK_TCK);
	double page = (double)sysconf(_SC_PAGESIZE);
	struct timespec wall;
	struct timespec boot;
	struct rusage usage;
	unsigned long long value;
	char line[1024];

	if (getrusage(RUSAGE_SELF, &usage) == 0) {
		add_row(text, "process_cpu_seconds_total", TRIB_COUNTER,
			"User and system CPU time spent.",
			(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
				(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	}
	if (read_small("/proc/self/stat", line, sizeof(line))) {
		if (stat_field(line, 24, &value)) {
			add_row(text, "process_resident_memory_bytes", TRIB_GAUGE,
				"Resident memory.", (double)value * page);
		}
		if (stat_field(line, 23, &value)) {
			add_row(text, "process_virtual_memory_bytes", TRIB_GAUGE, "Virtual memory.",
				(double)value);
		}
		if (stat_field(line, 22, &value) && !clock_gettime(CLOCK_REALTIME, &wall) &&
		    !clock_gettime(CLOCK_BOOTTIME, &boot)) {
			add_row(text, "process_start_time_seconds", TRIB_GAUGE,
				"Start of the process since the epoch.",
				(double)(wall.tv_sec - boot.tv_sec) + (double)value / tick);
		}
	}
	add_fds(text);
}

char *trib_metrics_print(const struct trib_metric *metrics, size_t count, const char *program)
{
	struct text text = { .room = 4096 };

	text.bytes = trib_alloc(text.room);
	if (!text.bytes) {
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || strcmp(metrics[i].name, metrics[i - 1].name) != 0) {
			add_head(&text, metrics[i].name, metrics[i].help, metrics[i].kind);
		}
		add_metric(&text, &metrics[i]);
	}
	add_head(&text, "tributary_build_info", "Version and program, always 1.", TRIB_GAUGE);
	add(&text, "tributary_build_info{version=\"%s\",program=\"%s\"} 1\n", TRIB_VERSION,
	    program);
	add_process(&text);
	if (text.failed) {
		trib_free(text.bytes);
		return NULL;
	}
	return text.bytes;
}
