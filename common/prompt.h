/* SPDX-License-Identifier: Apache-2.0
 * A thread that does little and is waited for, beside others that compute for long.
 */
#ifndef TRIB_COMMON_PROMPT_H
#define TRIB_COMMON_PROMPT_H

#include "common/base.h"

/* The calling thread asks the kernel for the shortest time slices: when it is woken it runs before
 * what computes, instead of after a slice of that (3 ms), for the same share of the processor.
 * Needs no privilege; threads and processes it makes do not inherit it. 0 or -errno; kernels before
 * 6.12 take it and do nothing. Async-signal-safe. */
int trib_prompt(void);

#endif
