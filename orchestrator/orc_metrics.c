/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/orc_metrics.h"

/* NOLINTBEGIN(bugprone-macro-parentheses): initialisers */
struct trib_metric orc_metrics[ORC_M_COUNT] = {
#define X(id, text, label_text, help_text, metric_kind, factor) \
	[ORC_M_##id] = { .name = "tributary_" text,             \
			 .labels = label_text,                  \
			 .help = help_text,                     \
			 .kind = metric_kind,                   \
			 .scale = factor },
	ORC_METRICS(X)
#undef X
};
/* NOLINTEND(bugprone-macro-parentheses) */
