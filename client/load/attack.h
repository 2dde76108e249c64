/* SPDX-License-Identifier: Apache-2.0
 * What hostile clients send before they behave: each must be refused or cut off.
 */
#ifndef TRIB_CLIENT_LOAD_ATTACK_H
#define TRIB_CLIENT_LOAD_ATTACK_H

#include "client/load/conn.h"

#define LOAD_ATTACK_KINDS 8

const char *load_attack_name(unsigned attack);
/* Writes worker->head and completes the request. The client has an offer. */
void load_attack_write(struct load_worker *worker, const struct load_client *client,
		       const char *name, struct load_request *request);

#endif
