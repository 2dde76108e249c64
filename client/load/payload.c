/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/payload.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "common/crypto.h"

#define BLOCK  (1u << 20)
#define PERIOD 64u /* elements; divides a block */

double load_payload_value(unsigned variant)
{
	return (variant + 1) / 16.0;
}

double load_payload_pattern(uint64_t index)
{
	return (double)(1 + index % PERIOD) / PERIOD;
}

static void fill(char *block, double value)
{
	for (size_t i = 0; i < BLOCK / sizeof(float); i++) {
		float element = (float)(value * load_payload_pattern(i));

		memcpy(block + i * sizeof(float), &element, sizeof(element));
	}
}

static uint32_t checksum(const struct load_payload *payload, unsigned variant)
{
	uint32_t crc = 0;
	uint64_t at = 0;

	while (at < payload->size) {
		struct iovec vectors[16];
		int count = load_payload_vectors(payload, variant, at, payload->size, vectors, 16);

		for (int i = 0; i < count; i++) {
			crc = trib_crc32c(crc, vectors[i].iov_base, vectors[i].iov_len);
			at += vectors[i].iov_len;
		}
	}
	return crc;
}

int load_payload_init(struct load_payload *payload, struct load_shape *shape)
{
	const float nan_value = NAN;
	size_t size = (size_t)BLOCK * (LOAD_VARIANTS + 1);

	*payload = (struct load_payload){ .shape = *shape };
	*shape = (struct load_shape){ .header = NULL };
	payload->size = payload->shape.header_size + payload->shape.data_size;
	payload->blocks =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (payload->blocks == MAP_FAILED) {
		payload->blocks = NULL;
		load_payload_fini(payload);
		return -ENOMEM;
	}
	payload->poison = payload->blocks + (size_t)BLOCK * LOAD_VARIANTS;
	for (unsigned v = 0; v < LOAD_VARIANTS; v++) {
		fill(payload->blocks + (size_t)BLOCK * v, load_payload_value(v));
		payload->crc[v] = checksum(payload, v);
	}
	fill(payload->poison, load_payload_value(0));
	memcpy(payload->poison, &nan_value, sizeof(nan_value));
	(void)mprotect(payload->blocks, size, PROT_READ);
	return 0;
}

void load_payload_fini(struct load_payload *payload)
{
	if (payload->blocks) {
		(void)munmap(payload->blocks, (size_t)BLOCK * (LOAD_VARIANTS + 1));
	}
	load_shape_fini(&payload->shape);
	*payload = (struct load_payload){ .size = 0 };
}

static char *block_of(const struct load_payload *payload, unsigned variant, uint64_t data_at)
{
	if (variant == LOAD_VARIANT_NAN) {
		return data_at < BLOCK ? payload->poison : payload->blocks;
	}
	return payload->blocks + (size_t)BLOCK * variant;
}

int load_payload_vectors(const struct load_payload *payload, unsigned variant, uint64_t at,
			 uint64_t end, struct iovec *vectors, int max)
{
	uint64_t header = payload->shape.header_size;
	int count = 0;

	end = end < payload->size ? end : payload->size;
	while (at < end && count < max) {
		char *from = payload->shape.header + at;
		uint64_t size = header - at;

		if (at >= header) {
			uint64_t in_block = (at - header) % BLOCK;

			from = block_of(payload, variant, at - header) + in_block;
			size = BLOCK - in_block;
		}
		size = size < end - at ? size : end - at;
		vectors[count++] = (struct iovec){ from, (size_t)size };
		at += size;
	}
	return count;
}
