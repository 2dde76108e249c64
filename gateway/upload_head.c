/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/upload_head.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/crypto.h"

#define WEIGHT_DIGITS_MAX   12
#define WEIGHT_FRACTION_MAX 24
#define TWO_52              4503599627370496.0 /* doubles from here on are integers */

static int refuse(struct gw_refusal *refusal, enum trib_problem problem, const char *detail)
{
	*refusal = (struct gw_refusal){ problem, detail };
	return -EBADMSG;
}

int gw_weight_read(const char *text, uint64_t *ret_weight_fx)
{
	size_t whole = strspn(text, "0123456789");
	size_t fraction = 0;
	const char *end = text + whole;
	double scaled;

	if (*end == '.') {
		fraction = strspn(end + 1, "0123456789");
		end += 1 + fraction;
	}
	if (*end || whole == 0 || whole > WEIGHT_DIGITS_MAX || fraction > WEIGHT_FRACTION_MAX ||
	    (text[whole] == '.' && fraction == 0)) {
		return -EINVAL;
	}
	scaled = strtod(text, NULL) * (1 << TRIB_WEIGHT_BITS);
	if (scaled < TWO_52) {
		scaled = scaled + TWO_52 - TWO_52; /* to the nearest integer, ties to even */
	}
	if (scaled < 1) {
		return -ERANGE;
	}
	*ret_weight_fx = (uint64_t)scaled;
	return 0;
}

int gw_checksum_read(const char *text, uint32_t *ret_crc)
{
	if (strncmp(text, "crc32c=", 7) != 0 || strlen(text) != 15 ||
	    strspn(text + 7, "0123456789abcdefABCDEF") != 8) {
		return -EINVAL;
	}
	*ret_crc = (uint32_t)strtoul(text + 7, NULL, 16);
	return 0;
}

static bool media_type_ok(const char *type)
{
	size_t size = strcspn(type, "; \t");

	return (size == 27 && strncasecmp(type, "application/vnd.safetensors", size) == 0) ||
	       (size == 24 && strncasecmp(type, "application/octet-stream", size) == 0);
}

int gw_body_head_read(const struct trib_http_request *request, uint64_t *ret_total,
		      struct gw_refusal *ret_refusal)
{
	const char *length = trib_http_field(request, "fl-length");
	const char *type = trib_http_field(request, "content-type");
	const char *coding = trib_http_field(request, "content-encoding");
	uint64_t total = request->length;

	if (type && !media_type_ok(type)) {
		return refuse(ret_refusal, TRIB_PROBLEM_UNSUPPORTED_MEDIA,
			      "application/vnd.safetensors or application/octet-stream");
	}
	if (coding && strcasecmp(coding, "identity") != 0) {
		return refuse(ret_refusal, TRIB_PROBLEM_UNSUPPORTED_MEDIA,
			      "Content-Encoding is not supported");
	}
	if (!request->has_length) {
		if (!request->chunked || !length) {
			return refuse(ret_refusal, TRIB_PROBLEM_LENGTH_REQUIRED,
				      "Content-Length, or FL-Length with chunked coding");
		}
		if (trib_parse_u64(length, strlen(length), 0, UINT64_MAX, &total)) {
			return refuse(ret_refusal, TRIB_PROBLEM_BAD_REQUEST, "bad FL-Length");
		}
	}
	*ret_total = total;
	return 0;
}

static int u32_field(const struct trib_http_request *request, const char *name, uint32_t *ret_value)
{
	const char *text = trib_http_field(request, name);
	uint64_t value;
	int rc = text ? trib_parse_u64(text, strlen(text), 0, UINT32_MAX, &value) : -ENOENT;

	if (rc == 0) {
		*ret_value = (uint32_t)value;
	}
	return rc;
}

static int read_fields(const struct trib_http_request *request, struct gw_upload_head *head,
		       struct gw_refusal *refusal)
{
	const char *client = trib_http_field(request, "fl-client");
	const char *weight = trib_http_field(request, "fl-weight");
	const char *kind = trib_http_field(request, "fl-kind");
	const char *encoding = trib_http_field(request, "fl-encoding");
	const char *checksum = trib_http_field(request, "fl-checksum");

	if (!client || !trib_client_id_valid(client) ||
	    trib_copy(head->client, sizeof(head->client), client)) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST,
			      "FL-Client: 1 to 64 of A-Z a-z 0-9 . _ : - is needed");
	}
	if (u32_field(request, "fl-round", &head->round) ||
	    u32_field(request, "fl-base-version", &head->base)) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST,
			      "FL-Round and FL-Base-Version are needed");
	}
	if (!weight || gw_weight_read(weight, &head->weight_fx)) {
		return refuse(refusal, TRIB_PROBLEM_INVALID_WEIGHT,
			      "FL-Weight: a positive decimal number is needed");
	}
	head->has_kind = kind != NULL;
	head->kind_weights = kind && strcmp(kind, "weights") == 0;
	if (kind && !head->kind_weights && strcmp(kind, "delta") != 0) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST, "FL-Kind: delta or weights");
	}
	if (encoding && strcmp(encoding, "dense") != 0) {
		return refuse(refusal, TRIB_PROBLEM_UNSUPPORTED_ENCODING, "FL-Encoding: dense");
	}
	head->has_crc = checksum != NULL;
	if (checksum && gw_checksum_read(checksum, &head->crc)) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST,
			      "FL-Checksum: crc32c=<8 hex digits>");
	}
	return 0;
}

int gw_complete_read(const struct trib_http_request *request, bool *ret_there, bool *ret_value)
{
	const char *text = trib_http_field(request, "upload-complete");

	*ret_there = text != NULL;
	*ret_value = text && strcmp(text, "?1") == 0;
	return !text || *ret_value || strcmp(text, "?0") == 0 ? 0 : -EBADMSG;
}

int gw_size_read(const struct trib_http_request *request, const char *name, uint64_t *ret_value)
{
	const char *text = trib_http_field(request, name);

	return text ? trib_parse_u64(text, strlen(text), 0, UINT64_MAX >> 1, ret_value) : -ENOENT;
}

/* `Upload-Complete` and `Upload-Length` (resume.h). */
static int read_resumable(const struct trib_http_request *request, struct gw_upload_head *head,
			  struct gw_refusal *refusal)
{
	const char *ticket = trib_http_field(request, "fl-ticket");
	uint64_t length = 0;
	bool there;
	int rc = gw_complete_read(request, &there, &head->completes);

	if (rc) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST, "Upload-Complete: ?0 or ?1");
	}
	head->resumable = there;
	if (!there) {
		return 0;
	}
	if (ticket && trib_sha256(ticket, strlen(ticket), head->ticket)) {
		return refuse(refusal, TRIB_PROBLEM_INTERNAL, "no SHA-256");
	}
	rc = gw_size_read(request, "upload-length", &length);
	if (head->completes) {
		return rc == -ENOENT || (rc == 0 && length == head->total)
			       ? 0
			       : refuse(refusal, TRIB_PROBLEM_BAD_REQUEST,
					"Upload-Length is not the body's");
	}
	if (rc || (request->has_length && request->length > length)) {
		return refuse(refusal, TRIB_PROBLEM_BAD_REQUEST,
			      "Upload-Length of the whole is needed with ?0");
	}
	head->total = length;
	return 0;
}

static int check_ticket(const struct trib_http_request *request,
			const uint8_t key[TRIB_TICKET_KEY_SIZE], const char *job, uint64_t now_ms,
			const struct gw_upload_head *head, struct trib_ticket *ticket,
			struct gw_refusal *refusal)
{
	const char *text = trib_http_field(request, "fl-ticket");
	struct trib_id job_id;
	struct trib_id update_id;
	int rc;

	if (!text) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_INVALID, "FL-Ticket is needed");
	}
	rc = trib_ticket_open(text, key, now_ms, ticket);
	if (rc == -EKEYEXPIRED) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_EXPIRED, "check in again");
	}
	if (rc) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_INVALID, NULL);
	}
	if (trib_id_parse("job_", job, &job_id) ||
	    trib_id_parse("upd_", head->update, &update_id) ||
	    memcmp(&job_id, &ticket->job, sizeof(job_id)) != 0 ||
	    memcmp(&update_id, &ticket->update, sizeof(update_id)) != 0) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_INVALID,
			      "the ticket is for another job or update");
	}
	if (trib_digest(head->client, strlen(head->client)).high != ticket->client) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_INVALID,
			      "the ticket is for another client");
	}
	if (head->round != ticket->round || head->base != ticket->base) {
		return refuse(refusal, TRIB_PROBLEM_TICKET_INVALID,
			      "FL-Round or FL-Base-Version is not the ticket's");
	}
	return 0;
}

int gw_upload_ticket_check(const struct trib_http_request *request,
			   const uint8_t key[TRIB_TICKET_KEY_SIZE], const char *job,
			   uint64_t now_ms, const struct gw_upload_head *head,
			   struct gw_refusal *ret_refusal)
{
	struct trib_ticket ticket;

	return check_ticket(request, key, job, now_ms, head, &ticket, ret_refusal);
}

int gw_upload_head_read(const struct trib_http_request *request,
			const uint8_t key[TRIB_TICKET_KEY_SIZE], const char *job,
			const char *update, uint64_t now_ms, struct gw_upload_head *ret_head,
			struct gw_refusal *ret_refusal)
{
	struct gw_upload_head head = { .total = 0 };
	struct trib_ticket ticket;
	struct trib_id id;
	int rc;

	if (trib_id_parse("upd_", update, &id) ||
	    trib_copy(head.update, sizeof(head.update), update)) {
		return refuse(ret_refusal, TRIB_PROBLEM_NO_SUCH_UPDATE,
			      "the path of the check-in's upload.url is needed");
	}
	rc = read_fields(request, &head, ret_refusal);
	if (rc == 0) {
		rc = gw_body_head_read(request, &head.total, ret_refusal);
	}
	if (rc == 0) {
		rc = read_resumable(request, &head, ret_refusal);
	}
	if (rc == 0) {
		rc = check_ticket(request, key, job, now_ms, &head, &ticket, ret_refusal);
	}
	if (rc) {
		return rc;
	}
	if (head.total > ticket.bytes_max) {
		return refuse(ret_refusal, TRIB_PROBLEM_TOO_LARGE,
			      "more than upload.max_bytes of the check-in");
	}
	if (head.total < 10) {
		return refuse(ret_refusal, TRIB_PROBLEM_INVALID_HEADER,
			      "too short for a safetensors file");
	}
	*ret_head = head;
	return 0;
}
