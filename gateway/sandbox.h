/* SPDX-License-Identifier: Apache-2.0
 * Landlock: from here on nothing in the file system can be changed but below the models' folder.
 * Main thread, before any other thread exists (threads inherit it). Reading stays possible: name
 * resolution and /proc need it.
 */
#ifndef TRIB_GATEWAY_SANDBOX_H
#define TRIB_GATEWAY_SANDBOX_H

#include "common/base.h"

/* 0; -ENOSYS or another -errno: nothing was restricted. */
TRIB_MUST_CHECK int gw_sandbox_enter(const char *models);

#endif
