/* SPDX-License-Identifier: Apache-2.0
 * Mapping and touching large shared memory so that the kernel can use huge pages: a mapping begins
 * where address and file offset agree modulo 2 MiB, and a page of 2 MiB is asked for whole. No
 * privilege and no setting of the system is needed (MADV_COLLAPSE, Linux 6.1); where there are no
 * such pages everything works with small ones. Any thread; holds nothing.
 */
#ifndef TRIB_SHM_MAP_H
#define TRIB_SHM_MAP_H

#include "common/base.h"

#define TRIB_HUGE_PAGE (2u << 20)

/* All of a file from its beginning, MAP_SHARED; munmap(memory, size) gives it back. */
TRIB_MUST_CHECK int trib_map_shared(int fd, uint64_t size, int protection, void **ret_memory);
/* Has bytes [offset, offset + size) of a memfd be there, in huge pages if none of them was before.
 * What is in it stays, also while others read and write it. offset is a multiple of TRIB_HUGE_PAGE.
 * Blocks: some milliseconds for each MiB of fresh memory. 0, or why it could not be mapped. */
TRIB_MUST_CHECK int trib_map_touch(int fd, uint64_t offset, uint64_t size);

#endif
