/* SPDX-License-Identifier: Apache-2.0
 * What an upload's head says, checked as far as it can be without Redis: syntax and ticket. Pure.
 */
#ifndef TRIB_GATEWAY_UPLOAD_HEAD_H
#define TRIB_GATEWAY_UPLOAD_HEAD_H

#include "common/crypto.h"
#include "common/http.h"
#include "common/problem.h"
#include "common/ticket.h"
#include "shm/descriptor.h"
#include "shm/segment.h"

struct gw_upload_head {
	char update[TRIB_UPDATE_ID_SIZE];
	char client[TRIB_CLIENT_ID_SIZE];
	uint32_t round;
	uint32_t base;
	uint64_t total; /* of the body, announced */
	uint64_t weight_fx;
	bool has_crc;
	uint32_t crc;
	bool has_kind;
	bool kind_weights;
	/* resume.h */
	bool resumable; /* the request speaks of Upload-Complete */
	bool completes; /* this request brings the last byte */
	char ticket[TRIB_SHA256_TEXT_SIZE];
};

struct gw_refusal {
	enum trib_problem problem;
	const char *detail; /* static text */
};

/* 0 or -EBADMSG with *ret_refusal set. Order: head, ticket, size. */
TRIB_MUST_CHECK int gw_upload_head_read(const struct trib_http_request *request,
					const uint8_t key[TRIB_TICKET_KEY_SIZE], const char *job,
					const char *update, uint64_t now_ms,
					struct gw_upload_head *ret_head,
					struct gw_refusal *ret_refusal);
/* FL-Ticket of a request, against what the upload's head said. */
TRIB_MUST_CHECK int gw_upload_ticket_check(const struct trib_http_request *request,
					   const uint8_t key[TRIB_TICKET_KEY_SIZE], const char *job,
					   uint64_t now_ms, const struct gw_upload_head *head,
					   struct gw_refusal *ret_refusal);
/* Content-Length, or FL-Length of a chunked body; then media type and coding. */
TRIB_MUST_CHECK int gw_body_head_read(const struct trib_http_request *request, uint64_t *ret_total,
				      struct gw_refusal *ret_refusal);
/* `Upload-Complete`: "?0", "?1" or not there; anything else is -EBADMSG. */
TRIB_MUST_CHECK int gw_complete_read(const struct trib_http_request *request, bool *ret_there,
				     bool *ret_value);
/* A size: 0, -ENOENT, -EINVAL. */
TRIB_MUST_CHECK int gw_size_read(const struct trib_http_request *request, const char *name,
				 uint64_t *ret_value);
/* "crc32c=<8 hex>" */
TRIB_MUST_CHECK int gw_checksum_read(const char *text, uint32_t *ret_crc);
/* Strict decimal (digits[.digits]) -> fixed point, at least 1. */
TRIB_MUST_CHECK int gw_weight_read(const char *text, uint64_t *ret_weight_fx);

#endif
