/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/intake.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/httpd.h"

void gw_intake_init(struct gw_intake *intake, uint64_t total, uint64_t header_max)
{
	*intake = (struct gw_intake){ .total = total, .header_max = header_max };
	if (intake->header_max > TRIB_TENSOR_HEADER_MAX) {
		intake->header_max = TRIB_TENSOR_HEADER_MAX;
	}
}

void gw_intake_fini(struct gw_intake *intake)
{
	trib_free(intake->header);
	intake->header = NULL;
}

void gw_intake_drain(struct gw_intake *intake, uint8_t *scratch, size_t size)
{
	intake->phase = intake->total ? GW_INTAKE_DRAIN : GW_INTAKE_FULL;
	intake->scratch = scratch;
	intake->scratch_size = size;
}

uint64_t gw_intake_payload(const struct gw_intake *intake)
{
	return intake->total - sizeof(intake->length) - intake->header_size;
}

void gw_intake_target(struct gw_intake *intake, uint8_t *target, const struct trib_piece *pieces,
		      uint32_t piece_count)
{
	uint64_t end = 0;

	intake->target = target;
	intake->pieces = pieces;
	intake->piece_count = piece_count;
	intake->in_order = true;
	for (uint32_t i = 0; i < piece_count; i++) {
		intake->in_order &= pieces[i].offset == end;
		end = pieces[i].offset + pieces[i].size;
	}
	intake->phase = intake->received == intake->total ? GW_INTAKE_FULL : GW_INTAKE_PAYLOAD;
}

uint64_t gw_intake_landed_payload(const struct gw_intake *intake)
{
	return intake->received - sizeof(intake->length) - intake->header_size;
}

static int payload_next(struct gw_intake *intake, struct iovec *vectors, int max)
{
	uint64_t done = intake->piece_done;
	uint64_t bytes = 0;
	int n = 0;

	for (uint32_t i = intake->piece;
	     i < intake->piece_count && n < max && bytes < TRIB_HTTP_TURN_BYTES; i++) {
		const struct trib_piece *piece = &intake->pieces[i];

		if (piece->size == 0) {
			continue;
		}
		vectors[n].iov_base = intake->target + piece->offset + done;
		vectors[n].iov_len = piece->size - done;
		bytes += piece->size - done;
		done = 0;
		n++;
	}
	return n ? n : -EPROTO;
}

int gw_intake_next(struct gw_intake *intake, struct iovec *vectors, int max)
{
	uint64_t left = intake->total - intake->received;
	uint64_t begun;

	switch (intake->phase) {
	case GW_INTAKE_LENGTH:
		begun = intake->received;
		vectors[0].iov_base = intake->length + begun;
		vectors[0].iov_len = sizeof(intake->length) - begun;
		return 1;
	case GW_INTAKE_HEADER:
		begun = intake->received - sizeof(intake->length);
		vectors[0].iov_base = intake->header + begun;
		vectors[0].iov_len = intake->header_size - begun;
		return 1;
	case GW_INTAKE_PAYLOAD:
		return payload_next(intake, vectors, max);
	case GW_INTAKE_DRAIN:
		vectors[0].iov_base = intake->scratch;
		vectors[0].iov_len = left < intake->scratch_size ? left : intake->scratch_size;
		return 1;
	case GW_INTAKE_FULL:
		vectors[0].iov_base = &intake->spare; /* nothing should come any more */
		vectors[0].iov_len = 1;
		return 1;
	case GW_INTAKE_PARSED:
		break;
	}
	return -EPROTO;
}

static int length_complete(struct gw_intake *intake, const char **ret_detail)
{
	uint64_t n;

	memcpy(&n, intake->length, sizeof(n));
	n = le64toh(n);
	if (n < 2) {
		*ret_detail = "header length is below 2";
		return -EBADMSG;
	}
	if (n > intake->header_max) {
		*ret_detail = "header length exceeds max_header_bytes";
		return -EBADMSG;
	}
	if (n > intake->total - sizeof(intake->length)) {
		*ret_detail = "header length exceeds the body";
		return -EBADMSG;
	}
	intake->header = trib_alloc(n + 1);
	if (!intake->header) {
		*ret_detail = "out of memory";
		return -ENOMEM;
	}
	intake->header_size = n;
	intake->phase = GW_INTAKE_HEADER;
	return 0;
}

static void payload_landed(struct gw_intake *intake, uint64_t size)
{
	while (size > 0 && intake->piece < intake->piece_count) {
		const struct trib_piece *piece = &intake->pieces[intake->piece];
		uint64_t left = piece->size - intake->piece_done;
		uint64_t part = size < left ? size : left;
		const uint8_t *data = intake->target + piece->offset;

		gw_check_run(&intake->check, data, intake->piece_done, part);
		if (intake->hasher) {
			trib_hasher_update(intake->hasher, data + intake->piece_done, part);
		}
		size -= part;
		intake->piece_done += part;
		if (intake->piece_done == piece->size) {
			intake->piece++;
			intake->piece_done = 0;
		}
	}
}

int gw_intake_landed(struct gw_intake *intake, size_t size, const char **ret_detail)
{
	uint64_t begun = intake->received;

	if (size > intake->total - intake->received) {
		*ret_detail = "body is longer than announced";
		return -EMSGSIZE;
	}
	intake->received += size;
	switch (intake->phase) {
	case GW_INTAKE_LENGTH:
		intake->check.crc = trib_crc32c(intake->check.crc, intake->length + begun, size);
		return intake->received == sizeof(intake->length)
			       ? length_complete(intake, ret_detail)
			       : 0;
	case GW_INTAKE_HEADER:
		begun -= sizeof(intake->length);
		intake->check.crc = trib_crc32c(intake->check.crc, intake->header + begun, size);
		if (begun + size == intake->header_size) {
			intake->phase = GW_INTAKE_PARSED;
		}
		return 0;
	case GW_INTAKE_PAYLOAD:
		payload_landed(intake, size);
		break;
	case GW_INTAKE_DRAIN:
		intake->check.crc = trib_crc32c(intake->check.crc, intake->scratch, size);
		break;
	case GW_INTAKE_PARSED:
	case GW_INTAKE_FULL:
		return -EPROTO;
	}
	if (intake->received == intake->total) {
		intake->phase = GW_INTAKE_FULL;
	}
	return 0;
}
