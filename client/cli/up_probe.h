/* SPDX-License-Identifier: Apache-2.0
 * Asks a local unix socket one thing without blocking: `request` is sent, the answer (up to 4 KiB,
 * until its end or until it holds `enough`) is handed to the callback. Loop thread only.
 */
#ifndef TRIB_CLIENT_CLI_UP_PROBE_H
#define TRIB_CLIENT_CLI_UP_PROBE_H

#include "common/loop.h"

#define UP_PROBE_MS 2000 /* no longer than this */

struct up_probe;
/* answer "" when there was none. The probe may be asked again from within. */
typedef void up_probe_cb(const char *answer, void *arg);

TRIB_MUST_CHECK int up_probe_new(struct trib_loop *loop, const char *path, const char *request,
				 const char *enough /* NULL: read to the end */, up_probe_cb *cb,
				 void *arg, struct up_probe **ret_probe);
struct up_probe *up_probe_free(struct up_probe *probe);
/* Starts one question; ignored while one is under way. */
void up_probe_ask(struct up_probe *probe);
/* Forgets the question under way: no callback. */
void up_probe_cancel(struct up_probe *probe);

#endif
