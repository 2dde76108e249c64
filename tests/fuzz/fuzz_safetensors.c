/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer target of common/safetensors.c. Input: 8 bytes data size (little-endian), then one
 * header, or two separated by a NUL: the job's and an update's.
 *   clang-14 -g -O1 -fsanitize=fuzzer,address,undefined -std=gnu11 -D_GNU_SOURCE -I. -o F \
 *     tests/fuzz/fuzz_safetensors.c common/safetensors.c common/crypto.c common/base.c \
 *     -lcrypto -lisal -lxxhash && ./F -max_len=4096 CORPUS
 */
#include <errno.h>
#include <string.h>

#include "common/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_layout(const struct trib_layout *layout, uint64_t data_size)
{
	static const uint64_t item_sizes[] = {
		[TRIB_DTYPE_F32] = 4, [TRIB_DTYPE_F16] = 2, [TRIB_DTYPE_BF16] = 2
	};
	uint64_t next = 0;

	TRIB_ASSERT(trib_layout_data_size(layout) == data_size);
	TRIB_ASSERT(trib_layout_count(layout) <= TRIB_TENSORS_MAX);
	for (uint32_t i = 0; i < trib_layout_count(layout); i++) {
		const struct trib_tensor *tensor = trib_layout_tensor(layout, i);
		size_t name_size = strlen(tensor->name);
		unsigned __int128 bytes;

		TRIB_ASSERT(tensor->dtype < TRIB_DTYPE_OTHER);
		TRIB_ASSERT(name_size >= 1 && name_size <= TRIB_TENSOR_NAME_MAX);
		for (size_t k = 0; k < name_size; k++) {
			TRIB_ASSERT(tensor->name[k] >= 0x20 && tensor->name[k] <= 0x7e);
			TRIB_ASSERT(tensor->name[k] != '"' && tensor->name[k] != '\\');
		}
		TRIB_ASSERT(tensor->dims <= TRIB_TENSOR_DIMS_MAX);
		bytes = item_sizes[tensor->dtype];
		for (uint32_t k = 0; k < tensor->dims; k++) {
			bytes *= tensor->shape[k];
			TRIB_ASSERT(bytes >> 64 == 0);
		}
		TRIB_ASSERT(tensor->begin == next);
		TRIB_ASSERT(tensor->end >= tensor->begin);
		TRIB_ASSERT(bytes == tensor->end - tensor->begin);
		next = tensor->end;
	}
	TRIB_ASSERT(next == data_size);
}

/* Every byte of the canonical data is hit exactly once: sizes sum up, and no piece meets another
 * (quadratic, so for few pieces only). */
static void check_pieces(const struct trib_piece *pieces, uint32_t count, uint64_t data_size)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < count; i++) {
		TRIB_ASSERT(pieces[i].size > 0 && pieces[i].size <= data_size);
		TRIB_ASSERT(pieces[i].offset <= data_size - pieces[i].size);
		sum += pieces[i].size;
		TRIB_ASSERT(i == 0 ||
			    pieces[i - 1].offset + pieces[i - 1].size != pieces[i].offset);
		for (uint32_t k = 0; k < i && count < 100; k++) {
			TRIB_ASSERT(pieces[k].offset + pieces[k].size <= pieces[i].offset ||
				    pieces[i].offset + pieces[i].size <= pieces[k].offset);
		}
	}
	TRIB_ASSERT(sum == data_size);
}

static void check_match(const struct trib_layout *job, const struct trib_layout *update, bool same)
{
	enum trib_problem problem = TRIB_PROBLEM_COUNT;
	struct trib_piece *pieces = NULL;
	const char *detail = NULL;
	uint32_t count = 0;
	int rc = trib_layout_match(job, update, &pieces, &count, &problem, &detail);

	if (rc) {
		TRIB_ASSERT(rc == -EBADMSG && !same && detail);
		TRIB_ASSERT(problem == TRIB_PROBLEM_LAYOUT_MISMATCH ||
			    problem == TRIB_PROBLEM_BAD_TENSOR_NAME);
		return;
	}
	check_pieces(pieces, count, trib_layout_data_size(job));
	TRIB_ASSERT(!same || count <= 1);
	trib_free(pieces);
}

static struct trib_layout *parse(const uint8_t *text, size_t size, uint64_t data_size)
{
	char *copy = trib_alloc(size); /* exactly sized: ASan sees reads beyond */
	enum trib_problem problem = TRIB_PROBLEM_COUNT;
	struct trib_layout *layout = NULL;
	const char *detail = NULL;
	int rc;

	TRIB_ASSERT(copy);
	if (size > 0) {
		memcpy(copy, text, size);
	}
	rc = trib_layout_parse(copy, size, data_size, &layout, &problem, &detail);
	trib_free(copy);
	if (rc) {
		TRIB_ASSERT(rc == -EBADMSG && !layout && detail && *detail);
		TRIB_ASSERT(problem == TRIB_PROBLEM_INVALID_HEADER ||
			    problem == TRIB_PROBLEM_UNSUPPORTED_ENCODING);
		return NULL;
	}
	check_layout(layout, data_size);
	return layout;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trib_layout *job;
	struct trib_layout *update = NULL;
	const uint8_t *cut;
	uint64_t data_size = 0;
	size_t job_size;

	if (size < 8) {
		return 0;
	}
	for (int i = 7; i >= 0; i--) {
		data_size = data_size << 8 | data[i];
	}
	data += 8;
	size -= 8;
	cut = size ? memchr(data, 0, size) : NULL;
	job_size = cut ? (size_t)(cut - data) : size;
	job = parse(data, job_size, data_size);
	if (cut) {
		update = parse(cut + 1, size - job_size - 1, data_size);
	}
	if (job) {
		check_match(job, job, true);
	}
	if (job && update) {
		check_match(job, update, false);
		check_match(update, job, false);
	}
	(void)trib_layout_free(update);
	(void)trib_layout_free(job);
	return 0;
}
