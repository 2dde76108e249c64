/* SPDX-License-Identifier: Apache-2.0
 * The zygote: a process small enough to fork in microseconds, that does nothing but wait for the
 * agent's TRIB_FN_SPAWN and fork functions as children of the agent (CLONE_PARENT).
 */
#ifndef TRIB_AGGREGATOR_ZYGOTE_H
#define TRIB_AGGREGATOR_ZYGOTE_H

#include "common/base.h"

/* Serves until end of file on `fd` (a SEQPACKET socket, borrowed): exit status. Blocking. */
int agg_zygote_run(int fd);

#endif
