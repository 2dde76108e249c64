/* SPDX-License-Identifier: Apache-2.0
 * An aggregator function: leaf, middle or top by what it is told. One process, one thread, one
 * loop over two sockets: control (agg_job) first, then descriptors. Runs inside the sandbox.
 */
#ifndef TRIB_AGGREGATOR_FUNCTION_H
#define TRIB_AGGREGATOR_FUNCTION_H

#include "common/base.h"

/* data_fd -1: a spare, whose agent sends it (TRIB_FN_BIND). Serves until STOP or end of file of the
 * data socket: exit status 0; 1 when it cannot go on. owner_start: field 22 of /proc/self/stat,
 * read before the sandbox closed. fds are borrowed. */
int agg_function_run(int data_fd, int control_fd, uint64_t owner_start);

#endif
