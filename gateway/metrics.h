/* SPDX-License-Identifier: Apache-2.0
 * The gateway's counters and gauges: one static table, updated from any thread.
 */
#ifndef TRIB_GATEWAY_METRICS_H
#define TRIB_GATEWAY_METRICS_H

#include "common/metrics.h"
#include "common/problem.h"

/* X(NAME, "name", labels or NULL, KIND, "help"); rows of one name are neighbours. */
#define GW_METRICS(X)                                                                              \
	X(UPLOADS, "uploads_total", NULL, TRIB_COUNTER, "Upload requests begun")                   \
	X(UPLOADS_INFLIGHT, "uploads_inflight", NULL, TRIB_GAUGE, "Uploads being served")          \
	X(UPLOAD_BYTES, "upload_bytes_total", NULL, TRIB_COUNTER,                                  \
	  "Payload bytes received straight into slots")                                            \
	X(RECEIVED_NS, "upload_received_ns", NULL, TRIB_GAUGE,                                     \
	  "When the last byte of an update was read last: monotonic clock of the host")            \
	X(BODY_BYTES, "body_bytes_total", NULL, TRIB_COUNTER,                                      \
	  "Body bytes received into sinks (headers, replays and initial models too)")              \
	X(BYTES_COPIED, "payload_bytes_copied_total", NULL, TRIB_COUNTER,                          \
	  "Payload bytes moved by memcpy in user space; must stay 0")                              \
	X(ACCEPTED, "updates_accepted_total", NULL, TRIB_COUNTER, "Updates committed")             \
	X(DUPLICATE, "updates_duplicate_total", NULL, TRIB_COUNTER,                                \
	  "Replays of committed updates")                                                          \
	X(ABANDONED, "uploads_abandoned_total", NULL, TRIB_COUNTER,                                \
	  "Uploads whose client went away before the commit")                                      \
	X(RESUMABLE, "uploads_resumable", NULL, TRIB_GAUGE, "Uploads that may be resumed")         \
	X(PARKED, "uploads_parked_total", NULL, TRIB_COUNTER, "Uploads kept after their request")  \
	X(RESUMED, "uploads_resumed_total", NULL, TRIB_COUNTER, "Uploads gone on with by PATCH")   \
	X(RESUME_EVICTED, "uploads_evicted_total", NULL, TRIB_COUNTER,                             \
	  "Parked uploads that gave their slot to another")                                        \
	X(SLOTS_FREE, "slots", "state=\"free\"", TRIB_GAUGE, "Slots by state, all jobs")           \
	X(SLOTS_FILLING, "slots", "state=\"filling\"", TRIB_GAUGE, "Slots by state, all jobs")     \
	X(SLOTS_READY, "slots", "state=\"ready\"", TRIB_GAUGE, "Slots by state, all jobs")         \
	X(SLOTS_CLAIMED, "slots", "state=\"claimed\"", TRIB_GAUGE, "Slots by state, all jobs")     \
	X(SLOT_EXHAUSTED, "slot_exhausted_total", NULL, TRIB_COUNTER, "Uploads refused: no slot")  \
	X(SLOT_WAIT, "slot_wait_ms", NULL, TRIB_GAUGE,                                             \
	  "What the last upload without a slot was told to wait")                                  \
	X(SLOT_RESCANS, "slot_rescans_total", NULL, TRIB_COUNTER, "Scans of ctl for free slots")   \
	X(SLOT_STALE, "slot_stale_hints_total", NULL, TRIB_COUNTER, "Hints of slots not free")     \
	X(SLOT_LOST, "slot_lost_total", NULL, TRIB_COUNTER, "Slots changed under their owner")     \
	X(SEGMENTS, "segment_count", NULL, TRIB_GAUGE, "Segments mapped")                          \
	X(COMMITS_OUTSTANDING, "commits_outstanding", NULL, TRIB_GAUGE, "Commits without answer")  \
	X(RESERVES, "reserve_calls_total", NULL, TRIB_COUNTER, "Calls of trib_reserve")            \
	X(RENEWALS, "progress_calls_total", NULL, TRIB_COUNTER,                                    \
	  "Calls of trib_progress: slow uploads that move keep their places")                      \
	X(COMMITS, "commit_calls_total", NULL, TRIB_COUNTER, "Commits sent")                       \
	X(LATE_WAITS, "commits_late_waits_total", NULL, TRIB_COUNTER,                              \
	  "Commits of late updates that found no round open, asked again")                         \
	X(BATCHES_COMMIT, "batch_calls_total", "kind=\"commit\"", TRIB_COUNTER,                    \
	  "Calls of trib_commit_many and trib_checkin_many")                                       \
	X(BATCHES_CHECKIN, "batch_calls_total", "kind=\"checkin\"", TRIB_COUNTER,                  \
	  "Calls of trib_commit_many and trib_checkin_many")                                       \
	X(BATCHED_COMMIT, "batched_total", "kind=\"commit\"", TRIB_COUNTER,                        \
	  "Commits and check-ins sent in them")                                                    \
	X(BATCHED_CHECKIN, "batched_total", "kind=\"checkin\"", TRIB_COUNTER,                      \
	  "Commits and check-ins sent in them")                                                    \
	X(BATCH_FULL, "batch_full_total", NULL, TRIB_COUNTER,                                      \
	  "Times that one more call did not fit into the one that waited")                         \
	X(BATCH_REFUSED, "batch_refused_total", NULL, TRIB_COUNTER,                                \
	  "Commits and check-ins not sent: too many without an answer")                            \
	X(RELEASES, "release_calls_total", NULL, TRIB_COUNTER, "Calls of trib_release")            \
	X(CHECKINS_SELECTED, "checkins_total", "status=\"selected\"", TRIB_COUNTER, "Check-ins")   \
	X(CHECKINS_WAIT, "checkins_total", "status=\"wait\"", TRIB_COUNTER, "Check-ins")           \
	X(CHECKINS_UNWANTED, "checkins_total", "status=\"not-eligible\"", TRIB_COUNTER,            \
	  "Check-ins")                                                                             \
	X(CHECKINS_DONE, "checkins_total", "status=\"done\"", TRIB_COUNTER, "Check-ins")           \
	X(QUOTA_CLIENTS, "quota_refused_total", "quota=\"clients\"", TRIB_COUNTER,                 \
	  "Told to come again for a tenant's quota")                                               \
	X(QUOTA_UPLOADS, "quota_refused_total", "quota=\"uploads\"", TRIB_COUNTER,                 \
	  "Told to come again for a tenant's quota")                                               \
	X(LABELS_REFUSED, "checkin_labels_refused_total", NULL, TRIB_COUNTER,                      \
	  "Check-ins whose labels were malformed or too many")                                     \
	X(POOL_CHECKINS, "pool_checkins_total", NULL, TRIB_COUNTER, "Check-ins for a pool")        \
	X(CHECKIN_WAITERS, "checkin_waiters", NULL, TRIB_GAUGE, "Check-ins being held")            \
	X(MODEL_REQUESTS, "model_requests_total", NULL, TRIB_COUNTER, "Model downloads begun")     \
	X(MODEL_BYTES, "model_bytes_sent_total", NULL, TRIB_COUNTER, "Model bytes handed to send") \
	X(MODEL_304, "model_304_total", NULL, TRIB_COUNTER, "Model requests answered 304")         \
	X(MODELS_PUT, "models_put_total", NULL, TRIB_COUNTER, "Initial models stored")             \
	X(PARTIALS, "partials_total", NULL, TRIB_COUNTER, "Sums of other nodes taken over")        \
	X(PARTIALS_INFLIGHT, "partials_inflight", NULL, TRIB_GAUGE, "Such sums being received")    \
	X(PARTIALS_REFUSED, "partials_refused_total", NULL, TRIB_COUNTER, "Such sums refused")     \
	X(PARTIAL_BYTES, "partial_bytes_total", NULL, TRIB_COUNTER,                                \
	  "Bytes of such sums received straight into the agent's memory")                          \
	X(MODELS_SENT, "models_sent_total", NULL, TRIB_COUNTER,                                    \
	  "Version files sent to other nodes")                                                     \
	X(MODELS_WANTED, "models_wanted_total", NULL, TRIB_COUNTER,                                \
	  "Version files asked for that were not on this node")                                    \
	X(JOB_LOADS, "job_loads_total", NULL, TRIB_COUNTER, "Job records read from Redis")         \
	X(HEADER_HITS, "header_cache_hits_total", NULL, TRIB_COUNTER, "Update headers known")      \
	X(HEADER_MISSES, "header_cache_misses_total", NULL, TRIB_COUNTER, "Update headers parsed") \
	X(FOLLOW_HINTS, "follow_hints_total", NULL, TRIB_COUNTER,                                  \
	  "Updates told to the agent while they arrived")                                          \
	X(DESC_SENT, "desc_sent_total", NULL, TRIB_COUNTER, "Descriptors pushed to the agent")     \
	X(RING_FULL, "desc_dropped_total", "reason=\"ring-full\"", TRIB_COUNTER,                   \
	  "Descriptors not pushed; the agent finds the slots by scanning")                         \
	X(RING_NONE, "desc_dropped_total", "reason=\"no-link\"", TRIB_COUNTER,                     \
	  "Descriptors not pushed; the agent finds the slots by scanning")                         \
	X(FREE_HINTS, "slot_free_hints_total", NULL, TRIB_COUNTER, "Free-slot hints of the agent") \
	X(LINK_UP, "agent_link_up", NULL, TRIB_GAUGE, "1: linked to the agent")                    \
	X(LINKS, "agent_links_total", NULL, TRIB_COUNTER, "Links made to the agent")               \
	X(REDIS_UP, "redis_connected", NULL, TRIB_GAUGE, "1: connected to Redis")                  \
	X(NOTES_LOST, "notes_overflow_total", NULL, TRIB_COUNTER, "Mailbox overflows (all woken)") \
	X(DENIED_401, "denied_total", "status=\"401\"", TRIB_COUNTER, "Requests denied")           \
	X(DENIED_403, "denied_total", "status=\"403\"", TRIB_COUNTER, "Requests denied")           \
	X(TOKEN_LOOKUPS, "token_lookups_total", NULL, TRIB_COUNTER, "Tokens looked up in Redis")   \
	X(TOKEN_HITS, "token_hits_total", NULL, TRIB_COUNTER, "Tokens believed from the cache")    \
	X(AUDIT_LOST, "audit_lost_total", NULL, TRIB_COUNTER, "Writes not written down")           \
	X(CONNS, "conns", NULL, TRIB_GAUGE, "Open connections")                                    \
	X(CONNS_TOTAL, "conns_total", NULL, TRIB_COUNTER, "Connections accepted")                  \
	X(CONN_REJECTS, "conn_rejects_total", "reason=\"conns-max\"", TRIB_COUNTER,                \
	  "Connections refused")                                                                   \
	X(ACCEPT_PAUSES, "accept_pauses_total", NULL, TRIB_COUNTER,                                \
	  "Newcomers left to other workers for 100 ms: no room in the table of descriptors")       \
	X(HTTP_REQUESTS, "http_requests_total", NULL, TRIB_COUNTER, "Requests")                    \
	X(HTTP_1XX, "http_replies_total", "class=\"1xx\"", TRIB_COUNTER, "Replies by class")       \
	X(HTTP_2XX, "http_replies_total", "class=\"2xx\"", TRIB_COUNTER, "Replies by class")       \
	X(HTTP_3XX, "http_replies_total", "class=\"3xx\"", TRIB_COUNTER, "Replies by class")       \
	X(HTTP_4XX, "http_replies_total", "class=\"4xx\"", TRIB_COUNTER, "Replies by class")       \
	X(HTTP_5XX, "http_replies_total", "class=\"5xx\"", TRIB_COUNTER, "Replies by class")       \
	X(HTTP_HEAD_ERRORS, "http_head_errors_total", NULL, TRIB_COUNTER, "Heads refused")         \
	X(HTTP_TIMEOUTS, "http_timeouts_total", NULL, TRIB_COUNTER, "Requests timed out")          \
	X(HTTP_TOO_SLOW, "http_too_slow_total", NULL, TRIB_COUNTER, "Bodies too slow")             \
	X(HTTP_BYTES_OUT, "http_bytes_out_total", NULL, TRIB_COUNTER, "Bytes sent")                \
	X(TLS_HANDSHAKES, "tls_handshakes_total", NULL, TRIB_COUNTER, "TLS handshakes done")       \
	X(TLS_REFUSED, "tls_handshakes_refused_total", NULL, TRIB_COUNTER, "Handshakes failed")    \
	X(TLS_ERRORS, "tls_errors_total", NULL, TRIB_COUNTER,                                      \
	  "Connections cut: broken TLS record")                                                    \
	X(TLS_WRONG_CLIENT, "tls_wrong_client_total", NULL, TRIB_COUNTER,                          \
	  "Requests for another client than the certificate's")

enum gw_metric {
#define X(name, text, labels, kind, help) GW_M_##name,
	GW_METRICS(X)
#undef X
	GW_M_REJECTED, /* + enum trib_problem */
	GW_M_COUNT = GW_M_REJECTED + TRIB_PROBLEM_COUNT
};

extern struct trib_metric gw_metrics[GW_M_COUNT];

static inline void gw_count(enum gw_metric metric, int64_t amount)
{
	trib_metric_add(&gw_metrics[metric], amount);
}

static inline void gw_gauge(enum gw_metric metric, int64_t value)
{
	trib_metric_set(&gw_metrics[metric], value);
}

static inline void gw_count_rejected(enum trib_problem problem)
{
	trib_metric_add(&gw_metrics[(unsigned)GW_M_REJECTED + (unsigned)problem], 1);
}

#endif
