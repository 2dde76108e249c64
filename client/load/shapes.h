/* SPDX-License-Identifier: Apache-2.0
 * Tensor lists of models by name, as torchvision's state dicts have them (the float tensors), and
 * of a LoRA adapter of a 7-billion-parameter transformer. All F32: what the gateway takes today.
 */
#ifndef TRIB_CLIENT_LOAD_SHAPES_H
#define TRIB_CLIENT_LOAD_SHAPES_H

#include "common/base.h"

/* The safetensors header (8 bytes of length, JSON, padding) and the size of the data behind it. */
struct load_shape {
	char *header; /* owned */
	size_t header_size;
	uint64_t data_size;
	uint32_t tensors;
};

/* tiny, lenet5, resnet18, resnet34, resnet152, lora-7b. 0, -ENOENT (no such name) or -ENOMEM. */
TRIB_MUST_CHECK int load_shape_by_name(const char *name, struct load_shape *ret_shape);
/* One tensor of `bytes` (rounded up to whole elements, at least one). */
TRIB_MUST_CHECK int load_shape_by_bytes(uint64_t bytes, struct load_shape *ret_shape);
void load_shape_fini(struct load_shape *shape);
/* The names, for messages. */
extern const char load_shape_names[];

#endif
