/* SPDX-License-Identifier: Apache-2.0
 * When clients arrive in an open loop: a sequence of intended instants that does not care how the
 * service is doing. Pure arithmetic on a seed; one thread.
 *
 *   constant   every 1/rate seconds
 *   poisson    independent arrivals, `rate` a second on the average
 *   burst      a tenth of each 10 s brings 5.5 times the rate, the rest half of it
 *   diurnal    poisson whose rate swings by 80 % around `rate`, one wave per `period_s`
 *   trace      instants of a file: one a line, seconds since the start, not decreasing
 */
#ifndef TRIB_CLIENT_LOAD_ARRIVALS_H
#define TRIB_CLIENT_LOAD_ARRIVALS_H

#include "common/base.h"

enum load_arrivals_kind {
	LOAD_CLOSED, /* no arrivals: a fixed set of clients */
	LOAD_CONSTANT,
	LOAD_POISSON,
	LOAD_BURST,
	LOAD_DIURNAL,
	LOAD_TRACE,
};

struct load_trace { /* shared by all threads, read only */
	double *seconds;
	size_t count;
};
/* At most 10 million lines. 0, -errno or -EBADMSG (*ret_line: the first bad one). */
TRIB_MUST_CHECK int load_trace_read(const char *path, struct load_trace *trace, size_t *ret_line);
void load_trace_fini(struct load_trace *trace);

struct load_arrivals {
	enum load_arrivals_kind kind;
	double rate;     /* a second, of this sequence */
	double period_s; /* diurnal */
	uint64_t rng;
	double at; /* the last instant given */
	const struct load_trace *trace;
	size_t next; /* into the trace */
	size_t step; /* this sequence has every step-th line */
};

/* `share` of `shares` sequences which together have `rate`. */
struct load_share {
	uint32_t share;
	uint32_t shares;
	uint64_t seed;
};
void load_arrivals_init(struct load_arrivals *arrivals, enum load_arrivals_kind kind, double rate,
			double period_s, const struct load_trace *trace, struct load_share share);
/* The next instant in seconds since the start, never before the one given last; infinite when
 * there is none. */
double load_arrivals_next(struct load_arrivals *arrivals);
/* The rate intended at an instant (constant, burst, diurnal; poisson: the mean). */
double load_arrivals_rate(const struct load_arrivals *arrivals, double at);

/* "poisson", "trace:FILE" (*ret_file = behind the colon), .. 0 or -EINVAL. */
TRIB_MUST_CHECK int load_arrivals_kind_read(const char *text, enum load_arrivals_kind *ret_kind,
					    const char **ret_file);
const char *load_arrivals_kind_text(enum load_arrivals_kind kind);

#endif
