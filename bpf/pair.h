/* SPDX-License-Identifier: Apache-2.0
 * A connected pair of loopback TCP sockets: the kind of socket the SK_MSG program works on.
 * No state. Any thread. Waits for the kernel's handshake with itself, at most TRIB_PAIR_WAIT_MS
 * and normally some microseconds.
 */
#ifndef TRIB_BPF_PAIR_H
#define TRIB_BPF_PAIR_H

#include "common/base.h"

#define TRIB_PAIR_WAIT_MS 200

/* Both owned by the caller, non-blocking, CLOEXEC, TCP_NODELAY. A stranger who connects to the
 * short-lived listener is refused: the accepted peer must be our own connector. -ETIMEDOUT when
 * the handshake does not finish, -errno. */
TRIB_MUST_CHECK int trib_pair_new(int *ret_owner_fd, int *ret_peer_fd);

#endif
