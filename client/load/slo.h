/* SPDX-License-Identifier: Apache-2.0
 * Limits a run is judged by: a JSON object {"receipt_p99_ms": 20, "errors_max": 0, ..}.
 *
 *   <latency>_p50_ms, _p90_ms, _p99_ms, _p999_ms, _max_ms   at most; latency: visit, receipt,
 *                                                           service, checkin, model
 *   goodput_min_per_s     receipts a second, over the run
 *   errors_max            answers and failures nobody intended
 *   refusals_max          503, 429, 409 .. for clients that did nothing wrong
 *   refused_share_max     the same as a share of the uploads
 *   rss_max_mb            highest of all watched processes together
 *   rounds_min            published
 *   round_p99_s           opened to published
 */
#ifndef TRIB_CLIENT_LOAD_SLO_H
#define TRIB_CLIENT_LOAD_SLO_H

#include "common/json.h"

/* Only names that exist and numbers? Else false and a reason. */
bool load_slo_check(const json_t *slo, char reason[200]);
/* [{"name", "limit", "value" (null: was not measured), "ok"}], owned; *ret_ok: all of them. */
json_t *load_slo_judge(const json_t *slo, const json_t *report, bool *ret_ok);

#endif
