/* SPDX-License-Identifier: Apache-2.0
 * The squared norm of what a round's updates say together. Pure; any thread.
 */
#ifndef TRIB_AGGREGATOR_NORM_H
#define TRIB_AGGREGATOR_NORM_H

#include "aggregator/rules/rules.h"

/* ||SUM w*x / SUM w||^2 over the elements of finish->sums; totals.weight > 0. */
double agg_mean_norm(const struct agg_finish *finish);

#endif
