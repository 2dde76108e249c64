/* SPDX-License-Identifier: Apache-2.0
 * Files that must outlive a power failure.
 */
#ifndef TRIB_COMMON_FILES_H
#define TRIB_COMMON_FILES_H

#include "common/base.h"

/* A name made, renamed or removed in `dir` is on the disk when this returns 0; else -errno. */
TRIB_MUST_CHECK int trib_directory_sync(const char *dir);

#endif
