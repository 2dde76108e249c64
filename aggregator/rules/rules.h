/* SPDX-License-Identifier: Apache-2.0
 * Aggregation rules. A rule is one file here and one line in the table of rules.c. Folding is the
 * same fused weighted sum for all rules of this slice; a rule says how the sum becomes a model.
 */
#ifndef TRIB_AGGREGATOR_RULES_RULES_H
#define TRIB_AGGREGATOR_RULES_RULES_H

#include "aggregator/kernels.h"
#include "shm/partial.h"

struct agg_finish {
	const struct agg_kernels *kernels;
	const struct trib_partial *sums;   /* borrowed */
	struct trib_partial_totals totals; /* of sums; weight > 0 */
	uint32_t scale_bits;
	uint64_t divisor; /* fixed point; 0: totals.weight */
	double lr;
	const float *base; /* `elements` floats; NULL: the updates were whole weights */
	float *out;        /* `elements` floats */
	uint64_t from;     /* the part to be made: elements [from, from + count) of all three */
	uint64_t count;
};

struct agg_rule {
	const char *name;
	/* 0 or -EINVAL: nothing to average. Repeatable: reads sums and base, writes out. */
	int (*finish)(const struct agg_finish *finish);
};

/* NULL when there is no such rule. */
const struct agg_rule *agg_rule_find(const char *name);

extern const struct agg_rule agg_rule_fedavg;

#endif
