/* SPDX-License-Identifier: Apache-2.0
 * What clients upload: one header and a few contents, in pages that all clients and threads share.
 * A content (variant) is one block of a megabyte, sent as often as the size asks for, so that no
 * client costs memory and the sender's cache stays warm. Read only after load_payload_init.
 *
 * Element i of variant v is value(v) * pattern(i), both exact in F32: what a service published can
 * be compared with what it said it counted (load_payload_pattern, load_payload_value).
 */
#ifndef TRIB_CLIENT_LOAD_PAYLOAD_H
#define TRIB_CLIENT_LOAD_PAYLOAD_H

#include <sys/uio.h>

#include "client/load/shapes.h"
#include "common/base.h"

#define LOAD_VARIANTS    4
#define LOAD_VARIANT_NAN LOAD_VARIANTS /* its first element is not a number */

struct load_payload {
	struct load_shape shape; /* owned */
	char *blocks;            /* LOAD_VARIANTS of them, mapped */
	char *poison;            /* one block, of LOAD_VARIANT_NAN */
	uint64_t size;           /* of a whole body */
	uint32_t crc[LOAD_VARIANTS];
};

/* Takes the shape over. 0 or -errno. */
TRIB_MUST_CHECK int load_payload_init(struct load_payload *payload, struct load_shape *shape);
void load_payload_fini(struct load_payload *payload);

/* Body bytes [at, end) of a variant, as far as `max` vectors reach. Returns how many are filled. */
int load_payload_vectors(const struct load_payload *payload, unsigned variant, uint64_t at,
			 uint64_t end, struct iovec *vectors, int max);
double load_payload_value(unsigned variant);
/* Element `index` of the data, for value 1. */
double load_payload_pattern(uint64_t index);

#endif
