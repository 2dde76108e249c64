/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/rules/rules.h"

#include <string.h>

static const struct agg_rule *const rules[] = {
	&agg_rule_fedavg,
};

const struct agg_rule *agg_rule_find(const char *name)
{
	for (size_t i = 0; i < TRIB_COUNT(rules); i++) {
		if (strcmp(rules[i]->name, name) == 0) {
			return rules[i];
		}
	}
	return NULL;
}
