/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/receipt.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/json_write.h"
#include "gateway/metrics.h"
#include "shm/descriptor.h"

#define RECEIPT_SIZE 1024 /* ids, digest and numbers are much shorter */

struct gw_query { /* one GET */
	struct gw_worker *worker;
	struct trib_exchange *x; /* NULL: the client is gone */
	uint32_t round;
	char job[TRIB_JOB_ID_SIZE];
	char client[TRIB_CLIENT_ID_SIZE];
	char update[TRIB_UPDATE_ID_SIZE];
};

void gw_body_digest(uint32_t crc, uint64_t bytes, char out[GW_BODY_DIGEST_SIZE])
{
	(void)snprintf(out, GW_BODY_DIGEST_SIZE, "crc32c-%08x-%llu", crc,
		       (unsigned long long)bytes);
}

void gw_receipt_reply(struct trib_exchange *x, int status, const struct gw_receipt *receipt)
{
	char accepted[TRIB_RFC3339_SIZE];
	char text[RECEIPT_SIZE];
	struct trib_json_writer w = trib_json_writer(text, sizeof(text));

	trib_rfc3339(receipt->accepted_ms, accepted);
	trib_json_open(&w, NULL, '{');
	trib_json_put_text(&w, "update", receipt->update);
	trib_json_put_text(&w, "job", receipt->job);
	trib_json_put_integer(&w, "round", receipt->round);
	trib_json_put_text(&w, "client", receipt->client);
	trib_json_put_text(&w, "state", "accepted");
	trib_json_put_text(&w, "digest", receipt->digest);
	trib_json_put_real(&w, "weight", (double)receipt->weight_fx / (1 << TRIB_WEIGHT_BITS));
	trib_json_put_integer(&w, "bytes", receipt->bytes);
	trib_json_put_text(&w, "accepted_at", accepted);
	if (receipt->counted > 0) {
		trib_json_put_integer(&w, "counted", (uint64_t)receipt->counted);
	}
	if (receipt->counted_fx > 0) {
		trib_json_put_real(&w, "weight_used",
				   (double)receipt->counted_fx / (1 << TRIB_WEIGHT_BITS));
		trib_json_put_integer(&w, "counted_in", receipt->counted_round);
	}
	if (receipt->replay) {
		trib_json_put_true(&w, "replay");
	}
	trib_json_close(&w, '}');
	gw_reply_text(x, status, text, trib_json_written(&w));
}

static int number(const char *text, const char *end, uint64_t *ret_value)
{
	return end ? trib_parse_u64(text, (size_t)(end - text), 0, UINT64_MAX, ret_value) : -1;
}

/* 'C|id|ms|digest|weight|place' */
static int read_record(const struct gw_query *q, const char *text, char *digest, size_t size,
		       struct gw_receipt *receipt)
{
	size_t id_size = strlen(q->update);
	const char *ms = text + 2 + id_size + 1;
	const char *dg;
	const char *weight;
	const char *dash;

	if (strncmp(text, "C|", 2) != 0 || strncmp(text + 2, q->update, id_size) != 0 ||
	    text[2 + id_size] != '|') {
		return -1;
	}
	dg = strchr(ms, '|');
	weight = dg ? strchr(dg + 1, '|') : NULL;
	if (!weight || (size_t)(weight - dg) > size || number(ms, dg, &receipt->accepted_ms) ||
	    number(weight + 1, strchr(weight + 1, '|'), &receipt->weight_fx)) {
		return -1;
	}
	memcpy(digest, dg + 1, (size_t)(weight - dg - 1));
	digest[weight - dg - 1] = '\0';
	dash = strrchr(digest, '-');
	return dash ? number(dash + 1, digest + strlen(digest), &receipt->bytes) : -1;
}

static void on_record(const struct trib_value *value, void *arg)
{
	struct gw_query *q = arg;
	struct trib_exchange *x = q->x;
	char digest[GW_BODY_DIGEST_SIZE];
	struct gw_receipt receipt = { .update = q->update,
				      .job = q->job,
				      .client = q->client,
				      .digest = digest,
				      .round = q->round };

	if (x) {
		trib_exchange_attach(x, NULL, NULL);
		if (!value || trib_value_type(value) == TRIB_VALUE_ERROR) {
			gw_unavailable(q->worker, x, "Redis refused");
		} else if (read_record(q, trib_value_text(value), digest, sizeof(digest),
				       &receipt)) {
			gw_refuse(x, TRIB_PROBLEM_NO_SUCH_UPDATE, "not committed in this round");
		} else {
			gw_receipt_reply(x, 200, &receipt);
		}
	}
	trib_free(q);
}

static void on_gone(void *data)
{
	struct gw_query *q = data;

	q->x = NULL; /* the call is outstanding and frees q */
}

void gw_receipt_get(struct gw_worker *worker, struct trib_exchange *x, const char *job,
		    const char *update)
{
	const struct trib_http_request *request = trib_exchange_request(x);
	struct trib_id id;
	struct gw_query *q;
	char round[16];
	char key[GW_JOB_KEY_SIZE + 16];
	uint64_t n = 0;

	if (trib_id_parse("upd_", update, &id)) {
		gw_refuse(x, TRIB_PROBLEM_NO_SUCH_UPDATE, NULL);
		return;
	}
	q = trib_alloc(sizeof(*q));
	if (!q) {
		gw_refuse(x, TRIB_PROBLEM_INTERNAL, NULL);
		return;
	}
	*q = (struct gw_query){ .worker = worker, .x = x };
	if (trib_http_query(request, "client", q->client, sizeof(q->client)) ||
	    trib_http_query(request, "round", round, sizeof(round)) ||
	    !trib_client_id_valid(q->client) ||
	    trib_parse_u64(round, strlen(round), 1, UINT32_MAX, &n) ||
	    trib_copy(q->job, sizeof(q->job), job) ||
	    trib_copy(q->update, sizeof(q->update), update)) {
		trib_free(q);
		gw_refuse(x, TRIB_PROBLEM_BAD_REQUEST, "?client= and ?round= are needed");
		return;
	}
	if (!trib_exchange_speaks_for(x, q->client)) {
		trib_free(q);
		gw_count(GW_M_TLS_WRONG_CLIENT, 1);
		gw_refuse(x, TRIB_PROBLEM_FORBIDDEN, "client is not the certificate's client");
		return;
	}
	q->round = (uint32_t)n;
	(void)snprintf(key, sizeof(key), "trib:{%s}:r:%u:upd", job, q->round);
	trib_exchange_attach(x, q, on_gone);
	if (trib_redis_send(worker->redis, on_record, q, "HGET", key, q->client, NULL)) {
		trib_exchange_attach(x, NULL, NULL);
		trib_free(q);
		gw_unavailable(worker, x, "too many calls outstanding");
	}
}
