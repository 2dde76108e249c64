/* SPDX-License-Identifier: Apache-2.0
 * Apart from crypto.c so that functions, which check descriptors, need no libcrypto.
 */
#include "common/crypto.h"

#include <isa-l/crc.h>

#define CRC_STEP_MAX (1u << 30) /* ISA-L takes the size as int */

uint32_t trib_crc32c(uint32_t crc, const void *data, size_t size)
{
	const unsigned char *at = data;

	/* ISA-L works on the raw register: both inversions are the caller's. */
	crc = ~crc;
	while (size > 0) {
		size_t step = size < CRC_STEP_MAX ? size : CRC_STEP_MAX;

		/* The prototype lacks const; it only reads. */
		crc = crc32_iscsi((unsigned char *)at, (int)step, crc);
		at += step;
		size -= step;
	}
	return ~crc;
}
