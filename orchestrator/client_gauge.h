/* SPDX-License-Identifier: Apache-2.0
 * What clients measured, of the last version of each job, as gauges for /metrics:
 * tributary_client_metric{job="..",name=".."}. Names come from clients: at most ORC_GAUGES_MAX rows
 * in all, the rest is counted. Loop thread only.
 */
#ifndef TRIB_ORCHESTRATOR_CLIENT_GAUGE_H
#define TRIB_ORCHESTRATOR_CLIENT_GAUGE_H

#include "common/client_metrics.h"
#include "common/id.h"

#define ORC_GAUGES_MAX 512

/* Replaces the job's rows by those of "name=value,..". */
void orc_client_gauge_set(const char *job, const char *metrics);
void orc_client_gauge_drop(const char *job);
/* Appends the rows to `text` (stolen) in the text format; NULL when out of memory. */
char *orc_client_gauge_print(char *text);

#endif
