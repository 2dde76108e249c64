/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/arrivals.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/load/random.h"

#define TRACE_MAX    10000000u
#define BURST_S      10.0
#define BURST_SHARE  0.1
#define BURST_HIGH   5.5
#define BURST_LOW    0.5
#define DIURNAL_PEAK 0.8

static const char *const kind_texts[] = { "closed", "constant", "poisson",
					  "burst",  "diurnal",  "trace" };

const char *load_arrivals_kind_text(enum load_arrivals_kind kind)
{
	return kind_texts[kind];
}

int load_arrivals_kind_read(const char *text, enum load_arrivals_kind *ret_kind,
			    const char **ret_file)
{
	if (strncmp(text, "trace:", 6) == 0 && text[6]) {
		*ret_kind = LOAD_TRACE;
		*ret_file = text + 6;
		return 0;
	}
	for (int i = LOAD_CONSTANT; i < LOAD_TRACE; i++) {
		if (strcmp(text, kind_texts[i]) == 0) {
			*ret_kind = (enum load_arrivals_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* ---- trace files ---- */

static int read_line(const char *line, double last, double *ret_seconds)
{
	char *end;
	double seconds = strtod(line, &end);

	if (end == line || strspn(end, " \t\r\n") != strlen(end) || !isfinite(seconds) ||
	    seconds < last) {
		return -EBADMSG;
	}
	*ret_seconds = seconds;
	return 0;
}

static int keep(struct load_trace *trace, size_t *room, double seconds)
{
	if (trace->count == *room) {
		size_t bigger = *room ? *room * 2 : 1024;
		double *more = bigger > 2 * TRACE_MAX
				       ? NULL
				       : trib_realloc(trace->seconds, bigger * sizeof(double));

		if (!more) {
			return -ENOMEM;
		}
		trace->seconds = more;
		*room = bigger;
	}
	trace->seconds[trace->count++] = seconds;
	return 0;
}

int load_trace_read(const char *path, struct load_trace *trace, size_t *ret_line)
{
	FILE *file = fopen(path, "re");
	char line[256];
	size_t room = 0;
	double last = 0;
	int rc = 0;

	*trace = (struct load_trace){ .count = 0 };
	*ret_line = 0;
	if (!file) {
		return -errno;
	}
	while (rc == 0 && fgets(line, sizeof(line), file)) {
		(*ret_line)++;
		if (line[0] == '#' || line[strspn(line, " \t\r\n")] == '\0') {
			continue;
		}
		rc = read_line(line, last, &last);
		rc = rc ? rc : trace->count >= TRACE_MAX ? -EFBIG : keep(trace, &room, last);
	}
	if (rc == 0 && ferror(file)) {
		rc = -EIO;
	}
	(void)fclose(file);
	if (rc) {
		load_trace_fini(trace);
	}
	return rc;
}

void load_trace_fini(struct load_trace *trace)
{
	trib_free(trace->seconds);
	*trace = (struct load_trace){ .count = 0 };
}

/* ---- sequences ---- */

void load_arrivals_init(struct load_arrivals *arrivals, enum load_arrivals_kind kind, double rate,
			double period_s, const struct load_trace *trace, struct load_share share)
{
	*arrivals = (struct load_arrivals){
		.kind = kind,
		.rate = rate / share.shares,
		.period_s = period_s > 0 ? period_s : 60,
		.rng = load_random_seed(share.seed, share.share),
		.trace = trace,
		.next = share.share,
		.step = share.shares,
	};
	if (kind == LOAD_CONSTANT) { /* the sequences interleave */
		arrivals->at = rate > 0 ? (double)share.share / rate - 1 / arrivals->rate : 0;
	}
}

double load_arrivals_rate(const struct load_arrivals *arrivals, double at)
{
	if (arrivals->kind == LOAD_BURST) {
		return arrivals->rate *
		       (fmod(at, BURST_S) < BURST_S * BURST_SHARE ? BURST_HIGH : BURST_LOW);
	}
	if (arrivals->kind == LOAD_DIURNAL) {
		return arrivals->rate *
		       (1 - DIURNAL_PEAK * cos(2 * M_PI * at / arrivals->period_s));
	}
	return arrivals->rate;
}

/* A Poisson process of the highest rate, thinned to the rate of the instant (Lewis, Shedler). */
static double next_thinned(struct load_arrivals *arrivals, double peak)
{
	double highest = arrivals->rate * peak;

	do {
		arrivals->at -= log(1 - load_random_unit(&arrivals->rng)) / highest;
	} while (load_random_unit(&arrivals->rng) * highest >
		 load_arrivals_rate(arrivals, arrivals->at));
	return arrivals->at;
}

double load_arrivals_next(struct load_arrivals *arrivals)
{
	if (arrivals->kind != LOAD_TRACE && !(arrivals->rate > 0)) {
		return INFINITY;
	}
	switch (arrivals->kind) {
	case LOAD_CONSTANT:
		arrivals->at += 1 / arrivals->rate;
		break;
	case LOAD_POISSON:
		return next_thinned(arrivals, 1);
	case LOAD_BURST:
		return next_thinned(arrivals, BURST_HIGH);
	case LOAD_DIURNAL:
		return next_thinned(arrivals, 1 + DIURNAL_PEAK);
	case LOAD_TRACE:
		if (arrivals->next >= arrivals->trace->count) {
			return INFINITY;
		}
		arrivals->at = arrivals->trace->seconds[arrivals->next];
		arrivals->next += arrivals->step;
		break;
	case LOAD_CLOSED:
		return INFINITY;
	}
	return arrivals->at;
}
