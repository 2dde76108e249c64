/* SPDX-License-Identifier: Apache-2.0
 * Every refusal Tributary can answer with: one table (code, status, text), RFC 9457 bodies.
 */
#ifndef TRIB_COMMON_PROBLEM_H
#define TRIB_COMMON_PROBLEM_H

#include "common/base.h"

/* X(NAME, "code", status, "title") */
#define TRIB_PROBLEMS(X)                                                                         \
	X(BAD_REQUEST, "bad-request", 400, "Malformed request")                                  \
	X(INVALID_SPEC, "invalid-spec", 422, "The job spec is not valid")                        \
	X(INVALID_HEADER, "invalid-header", 422, "Not a valid safetensors header")               \
	X(LAYOUT_MISMATCH, "layout-mismatch", 422, "Tensors do not match the job's layout")      \
	X(BAD_TENSOR_NAME, "bad-tensor-name", 422, "A tensor is not part of the job's layout")   \
	X(INVALID_WEIGHT, "invalid-weight", 422, "Weight missing, not finite or out of range")   \
	X(INVALID_METRICS, "invalid-metrics", 422, "FL-Metrics is not valid")                    \
	X(UNAUTHENTICATED, "unauthenticated", 401, "Credentials missing or not valid")           \
	X(FORBIDDEN, "forbidden", 403, "Not allowed with these credentials")                     \
	X(TICKET_INVALID, "ticket-invalid", 403,                                                 \
	  "Upload ticket missing, forged or for another upload")                                 \
	X(TICKET_EXPIRED, "ticket-expired", 403, "Upload ticket has expired")                    \
	X(NOT_SELECTED, "not-selected", 403, "Client is not selected in this round")             \
	X(NO_SUCH_PATH, "no-such-path", 404, "Nothing at this path")                             \
	X(NO_SUCH_JOB, "no-such-job", 404, "No such job")                                        \
	X(NO_SUCH_ROUND, "no-such-round", 404, "No such round")                                  \
	X(NO_SUCH_UPDATE, "no-such-update", 404, "No such update")                               \
	X(NO_SUCH_NODE, "no-such-node", 404, "No such node")                                     \
	X(NO_SUCH_MODEL, "no-such-model", 404, "No such model version")                          \
	X(NO_SUCH_TENANT, "no-such-tenant", 404, "No such tenant")                               \
	X(NO_SUCH_TOKEN, "no-such-token", 404, "No such token")                                  \
	X(METHOD_NOT_ALLOWED, "method-not-allowed", 405, "Method not allowed here")              \
	X(NOT_ACCEPTABLE, "not-acceptable", 406, "Cannot answer in the wanted form")             \
	X(HEAD_TIMEOUT, "request-timeout", 408, "Request head took too long")                    \
	X(TOO_SLOW, "too-slow", 408, "Body arrives too slowly")                                  \
	X(ROUND_CLOSED, "round-closed", 409, "The round is closed")                              \
	X(STALE, "stale", 409, "Made from a model version that is too old")                      \
	X(JOB_NOT_RUNNING, "job-not-running", 409, "The job is not running")                     \
	X(ALREADY_REPORTED, "already-reported", 409,                                             \
	  "This client already reported with other content")                                     \
	X(UPLOAD_BUSY, "upload-busy", 409, "Another upload of this client is under way")         \
	X(UPLOAD_OFFSET, "upload-offset", 409, "Upload-Offset is not where the upload stands")   \
	X(STATE_CONFLICT, "state-conflict", 409, "Not possible in the present state")            \
	X(MODEL_CONFLICT, "model-conflict", 409, "The job has another initial model already")    \
	X(IDEMPOTENCY_RUNNING, "idempotency-running", 409,                                       \
	  "The first request is still being served")                                             \
	X(IDEMPOTENCY_MISMATCH, "idempotency-mismatch", 422,                                     \
	  "Idempotency-Key used with another request")                                           \
	X(LENGTH_REQUIRED, "length-required", 411, "Content-Length or FL-Length is needed")      \
	X(VERSION_CONFLICT, "version-conflict", 412, "If-Match does not match")                  \
	X(PRECONDITION_REQUIRED, "precondition-required", 428, "If-Match is needed")             \
	X(TOO_LARGE, "too-large", 413, "Body is larger than allowed")                            \
	X(TRUNCATED, "truncated-body", 400, "Body ended early")                                  \
	X(URI_TOO_LONG, "uri-too-long", 414, "Request target too long")                          \
	X(UNSUPPORTED_MEDIA, "unsupported-media-type", 415, "Content type not supported")        \
	X(UNSUPPORTED_ENCODING, "unsupported-encoding", 415, "Update encoding not supported")    \
	X(RANGE, "range-not-satisfiable", 416, "Range not satisfiable")                          \
	X(EXPECTATION, "expectation-failed", 417, "Expectation not supported")                   \
	X(DIGEST_MISMATCH, "digest-mismatch", 422, "Body does not match its checksum")           \
	X(NON_FINITE, "non-finite", 422, "The update holds NaN or infinity")                     \
	X(OUT_OF_RANGE, "out-of-range", 422, "A value times the weight exceeds the job's range") \
	X(QUOTA_EXCEEDED, "quota-exceeded", 429, "The tenant uses all that it may")              \
	X(THROTTLED, "throttled", 429, "Too many requests")                                      \
	X(HEAD_TOO_LARGE, "head-too-large", 431, "Request head too large")                       \
	X(INTERNAL, "internal", 500, "Internal error")                                           \
	X(NOT_IMPLEMENTED, "not-implemented", 501, "Not implemented")                            \
	X(ARENA_FULL, "arena-full", 503, "No free slot for an update; try again")                \
	X(UNAVAILABLE, "unavailable", 503, "A part of the service is not reachable")             \
	X(NOT_LEADER, "not-leader", 503, "This orchestrator is not the leader")                  \
	X(FENCED, "fenced", 503, "Written by a former leader")                                   \
	X(HTTP_VERSION, "http-version", 505, "Only HTTP/1.1 and HTTP/1.0")

enum trib_problem {
#define X(name, code, status, title) TRIB_PROBLEM_##name,
	TRIB_PROBLEMS(X)
#undef X
	TRIB_PROBLEM_COUNT
};

const char *trib_problem_code(enum trib_problem problem);
const char *trib_problem_title(enum trib_problem problem);
int trib_problem_status(enum trib_problem problem);
/* The generic problem for a status (parser refusals). */
enum trib_problem trib_problem_of_status(int status);
/* application/problem+json text into out; returns its size (cut detail if it does not fit; out is
 * always valid JSON for size >= 512). errors_json may be NULL; retry_after_ms 0 = none. */
size_t trib_problem_print(enum trib_problem problem, const char *detail, uint64_t retry_after_ms,
			  const char *errors_json, char *out, size_t size);

#endif
