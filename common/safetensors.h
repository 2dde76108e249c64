/* SPDX-License-Identifier: Apache-2.0
 * Strict reader of safetensors headers (hostile input; rules in docs/wire-format.md) and the
 * layout of a job: its tensors in canonical order, which is the order of the initial model's data.
 *
 * A model's or update's data may come in any tensor order. trib_safetensors_match tells, for each
 * tensor in FILE order, where it belongs in the canonical data, so that a receiver can put every
 * byte straight where it belongs: no permutation survives the socket.
 */
#ifndef TRIB_COMMON_SAFETENSORS_H
#define TRIB_COMMON_SAFETENSORS_H

#include "common/base.h"
#include "common/problem.h"

#define TRIB_TENSOR_DIMS_MAX   8
#define TRIB_TENSOR_NAME_MAX   256
#define TRIB_TENSORS_MAX       65536
#define TRIB_TENSOR_HEADER_MAX (1u << 20)

enum trib_dtype {
	TRIB_DTYPE_F32,
	TRIB_DTYPE_F16,
	TRIB_DTYPE_BF16,
	TRIB_DTYPE_OTHER
};

struct trib_tensor {
	const char *name; /* into the layout's own copy, terminated */
	enum trib_dtype dtype;
	uint32_t dims;
	uint64_t shape[TRIB_TENSOR_DIMS_MAX];
	uint64_t begin; /* bytes, from the start of the data */
	uint64_t end;
};

struct trib_layout; /* immutable after parsing, shareable between threads */

/* Parses the JSON text of a header (without its 8 length bytes), data_size bytes of data follow
 * it. On success the layout's tensors are sorted by `begin`, leave no hole, end at data_size.
 * On refusal returns -EBADMSG and *ret_problem (INVALID_HEADER, UNSUPPORTED_ENCODING) with a
 * short reason in *ret_detail (static text). -ENOMEM otherwise. */
TRIB_MUST_CHECK int trib_layout_parse(const char *json, size_t size, uint64_t data_size,
				      struct trib_layout **ret_layout,
				      enum trib_problem *ret_problem, const char **ret_detail);
struct trib_layout *trib_layout_free(struct trib_layout *layout);
uint32_t trib_layout_count(const struct trib_layout *layout);
const struct trib_tensor *trib_layout_tensor(const struct trib_layout *layout, uint32_t index);
uint64_t trib_layout_data_size(const struct trib_layout *layout);

/* A run of body bytes and where they belong in the canonical data. */
struct trib_piece {
	uint64_t offset; /* canonical byte offset */
	uint64_t size;
};
/* Same names, shapes and dtypes as `job` (any order)? Then *ret_pieces (caller frees with
 * trib_free) holds file-order runs, neighbours merged: 1 piece when the order is the same.
 * Else -EBADMSG with LAYOUT_MISMATCH or BAD_TENSOR_NAME. */
TRIB_MUST_CHECK int trib_layout_match(const struct trib_layout *job,
				      const struct trib_layout *update,
				      struct trib_piece **ret_pieces, uint32_t *ret_count,
				      enum trib_problem *ret_problem, const char **ret_detail);

#endif
