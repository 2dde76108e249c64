/* SPDX-License-Identifier: Apache-2.0
 * Receipts: what a counted update is answered with, now or when asked again. Worker thread.
 */
#ifndef TRIB_GATEWAY_RECEIPT_H
#define TRIB_GATEWAY_RECEIPT_H

#include "gateway/worker.h"

struct gw_receipt {
	const char *update;
	const char *job;
	const char *client;
	const char *digest;
	uint32_t round;
	uint64_t weight_fx;
	uint64_t counted_fx;    /* weight after staleness; 0: not known */
	uint32_t counted_round; /* 0: not known */
	uint64_t bytes;         /* of the body */
	uint64_t accepted_ms;
	long long counted; /* 0: not known */
	bool replay;
};

#define GW_BODY_DIGEST_SIZE 48
/* "crc32c-9a71bb4c-45328" */
void gw_body_digest(uint32_t crc, uint64_t bytes, char out[GW_BODY_DIGEST_SIZE]);
void gw_receipt_reply(struct trib_exchange *x, int status, const struct gw_receipt *receipt);
/* GET updates/{u}?client=..&round=.. */
void gw_receipt_get(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		    const char *update);

#endif
