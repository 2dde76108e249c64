/* SPDX-License-Identifier: Apache-2.0
 * What the orchestrator counts: one table, printed by the admin listener.
 */
#ifndef TRIB_ORCHESTRATOR_ORC_METRICS_H
#define TRIB_ORCHESTRATOR_ORC_METRICS_H

#include "common/metrics.h"

/* X(NAME, "name", labels, "help", kind, scale); rows of one name are neighbours */
#define ORC_METRICS(X)                                                                             \
	X(LEADER, "leader", NULL, "1 while this process holds the lease", TRIB_GAUGE, 0)           \
	X(EPOCH, "epoch", NULL, "Epoch of the lease held last", TRIB_GAUGE, 0)                     \
	X(FAILOVERS, "failovers_total", NULL, "Leases newly taken by this process", TRIB_COUNTER,  \
	  0)                                                                                       \
	X(FENCED, "fenced_total", NULL, "Writes refused as of a former leader", TRIB_COUNTER, 0)   \
	X(LEASE_SECONDS, "lease_renew_seconds_sum", NULL, "Time spent in lease calls",             \
	  TRIB_COUNTER, 0.001)                                                                     \
	X(LEASE_COUNT, "lease_renew_seconds_count", NULL, "Lease calls answered", TRIB_COUNTER, 0) \
	X(JOBS_LIVE, "jobs_live", NULL, "Jobs driven by this process", TRIB_GAUGE, 0)              \
	X(JOBS_OVERFLOW, "jobs_overflow_total", NULL, "Jobs not driven for lack of places",        \
	  TRIB_COUNTER, 0)                                                                         \
	X(ROUNDS_OPENED, "rounds_opened_total", NULL, "Rounds opened", TRIB_COUNTER, 0)            \
	X(ROUNDS_PUBLISHED, "round_outcomes_total", "outcome=\"published\"", "Rounds by outcome",  \
	  TRIB_COUNTER, 0)                                                                         \
	X(ROUNDS_FAILED, "round_outcomes_total", "outcome=\"failed\"", "Rounds by outcome",        \
	  TRIB_COUNTER, 0)                                                                         \
	X(NODES_LOST, "nodes_lost_total", NULL, "Nodes declared lost", TRIB_COUNTER, 0)            \
	X(ROUND_SECONDS, "round_seconds_sum", NULL, "Duration of published rounds", TRIB_COUNTER,  \
	  0.001)                                                                                   \
	X(ROUND_COUNT, "round_seconds_count", NULL, "Published rounds timed", TRIB_COUNTER, 0)     \
	X(REDIS_CONNECTED, "redis_connected", NULL, "1 while the command connection is up",        \
	  TRIB_GAUGE, 0)                                                                           \
	X(REDIS_ERRORS, "redis_errors_total", NULL, "Error replies of Redis", TRIB_COUNTER, 0)     \
	X(REDIS_REFUSED, "redis_refused_total", NULL, "Calls not sent: down or queue full",        \
	  TRIB_COUNTER, 0)                                                                         \
	X(REDIS_OUTSTANDING, "redis_outstanding", NULL, "Calls waiting for an answer", TRIB_GAUGE, \
	  0)                                                                                       \
	X(WAKES, "wakes_total", NULL, "Messages of trib:wake", TRIB_COUNTER, 0)                    \
	X(SSE_CLIENTS, "sse_clients", NULL, "Open event streams", TRIB_GAUGE, 0)                   \
	X(SSE_EVENTS, "sse_events_total", NULL, "Events sent", TRIB_COUNTER, 0)                    \
	X(SSE_SLOW, "sse_slow_total", NULL, "Streams ended: slow reader", TRIB_COUNTER, 0)         \
	X(SSE_REFUSED, "sse_refused_total", NULL, "Streams refused: too many", TRIB_COUNTER, 0)    \
	X(HTTP_2XX, "http_requests_total", "code=\"2xx\"", "API requests answered", TRIB_COUNTER,  \
	  0)                                                                                       \
	X(HTTP_3XX, "http_requests_total", "code=\"3xx\"", "API requests answered", TRIB_COUNTER,  \
	  0)                                                                                       \
	X(HTTP_4XX, "http_requests_total", "code=\"4xx\"", "API requests answered", TRIB_COUNTER,  \
	  0)                                                                                       \
	X(HTTP_5XX, "http_requests_total", "code=\"5xx\"", "API requests answered", TRIB_COUNTER,  \
	  0)                                                                                       \
	X(HTTP_TIMEOUTS, "api_unavailable_total", NULL, "Requests given up: Redis did not answer", \
	  TRIB_COUNTER, 0)                                                                         \
	X(IDEM_REPLAYS, "idempotent_replays_total", NULL, "Answers repeated by Idempotency-Key",   \
	  TRIB_COUNTER, 0)                                                                         \
	X(TLS_HANDSHAKES, "tls_handshakes_total", NULL, "TLS handshakes done", TRIB_COUNTER, 0)    \
	X(TLS_REFUSED, "tls_handshakes_refused_total", NULL, "Handshakes failed", TRIB_COUNTER, 0) \
	X(TLS_ERRORS, "tls_errors_total", NULL, "Connections cut: broken TLS record",              \
	  TRIB_COUNTER, 0)                                                                         \
	X(DENIED_401, "denied_total", "status=\"401\"", "Requests denied", TRIB_COUNTER, 0)        \
	X(DENIED_403, "denied_total", "status=\"403\"", "Requests denied", TRIB_COUNTER, 0)        \
	X(DENIED_404, "denied_total", "status=\"404\"", "Requests denied", TRIB_COUNTER, 0)        \
	X(AUDITED, "audit_records_total", NULL, "Writes written down", TRIB_COUNTER, 0)            \
	X(AUDIT_LOST, "audit_lost_total", NULL,                                                    \
	  "Writes not written down (Redis, or too many of "                                        \
	  "unknown callers)",                                                                      \
	  TRIB_COUNTER, 0)                                                                         \
	X(QUOTA_JOBS, "quota_refused_total", "quota=\"jobs\"",                                     \
	  "Refused for a tenant's quota (the others: gateways)", TRIB_COUNTER, 0)                  \
	X(QUOTAS_BAD, "quotas_unusable_total", NULL, "Times the file of quotas could not be used", \
	  TRIB_COUNTER, 0)                                                                         \
	X(HOOKS_LIVE, "webhooks", NULL, "Receivers of notifications", TRIB_GAUGE, 0)               \
	X(HOOKS_OVERFLOW, "webhooks_overflow_total", NULL,                                         \
	  "Receivers left out: too many, or not readable", TRIB_COUNTER, 0)                        \
	X(HOOK_SENT, "webhook_posts_total", "outcome=\"taken\"", "Notifications posted",           \
	  TRIB_COUNTER, 0)                                                                         \
	X(HOOK_FAILED, "webhook_posts_total", "outcome=\"failed\"", "Notifications posted",        \
	  TRIB_COUNTER, 0)                                                                         \
	X(HOOK_GIVEN_UP, "webhook_events_given_up_total", NULL,                                    \
	  "Events a receiver did not take in all tries", TRIB_COUNTER, 0)                          \
	X(HOOK_DELAYED, "webhook_queue_full_total", NULL,                                          \
	  "Posts put off: too many wait, or no memory", TRIB_COUNTER, 0)                           \
	X(CLIENT_METRICS_LEFT, "client_metrics_left_total", NULL,                                  \
	  "Client metrics without a gauge for lack of room", TRIB_COUNTER, 0)                      \
	X(PLANS, "plans_written_total", NULL, "Placements written", TRIB_COUNTER, 0)               \
	X(PLAN_OVERFLOW, "plan_overflow_total", NULL, "Updates planned beyond all capacity",       \
	  TRIB_COUNTER, 0)                                                                         \
	X(KUBE_OBJECTS, "kube_objects", NULL, "AggregationJobs known", TRIB_GAUGE, 0)              \
	X(KUBE_OVERFLOW, "kube_overflow_total", NULL,                                              \
	  "AggregationJobs left out for lack of places", TRIB_COUNTER, 0)                          \
	X(KUBE_ODD, "kube_odd_total", NULL, "Things the API server said that were not understood", \
	  TRIB_COUNTER, 0)                                                                         \
	X(KUBE_LISTS, "kube_lists_total", NULL, "Listings of AggregationJobs", TRIB_COUNTER, 0)    \
	X(KUBE_WATCHES, "kube_watches_total", NULL, "Watches begun", TRIB_COUNTER, 0)              \
	X(KUBE_FAILURES, "kube_failures_total", NULL, "Listings and watches that failed",          \
	  TRIB_COUNTER, 0)                                                                         \
	X(KUBE_STATUS, "kube_status_writes_total", NULL, "Status of objects written",              \
	  TRIB_COUNTER, 0)                                                                         \
	X(CONNS, "conns", NULL, "Open API connections", TRIB_GAUGE, 0)

enum orc_metric {
#define X(name, text, labels, help, kind, scale) ORC_M_##name,
	ORC_METRICS(X)
#undef X
	ORC_M_COUNT
};

extern struct trib_metric orc_metrics[ORC_M_COUNT];

static inline void orc_count(enum orc_metric metric)
{
	trib_metric_add(&orc_metrics[metric], 1);
}

static inline void orc_count_by(enum orc_metric metric, int64_t amount)
{
	trib_metric_add(&orc_metrics[metric], amount);
}

static inline void orc_gauge(enum orc_metric metric, int64_t value)
{
	trib_metric_set(&orc_metrics[metric], value);
}

#endif
