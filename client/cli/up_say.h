/* SPDX-License-Identifier: Apache-2.0
 * What `tributary up` tells people: "12:34:56 who: text" on stderr.
 */
#ifndef TRIB_CLIENT_CLI_UP_SAY_H
#define TRIB_CLIENT_CLI_UP_SAY_H

#include "common/base.h"

void up_say(const char *who, const char *format, ...) TRIB_PRINTF(2, 3);

#endif
