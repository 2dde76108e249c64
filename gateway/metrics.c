/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/metrics.h"

struct trib_metric gw_metrics[GW_M_COUNT] = {
#define X(name, text, labels, kind, help) { "tributary_" text, labels, help, kind, 0, 0 },
	GW_METRICS(X)
#undef X
#define X(name, code, status, title)          \
	{ "tributary_updates_rejected_total", \
	  "reason=\"" code "\"",              \
	  "Uploads refused, by problem",      \
	  TRIB_COUNTER,                       \
	  0,                                  \
	  0 },
		TRIB_PROBLEMS(X)
#undef X
};
