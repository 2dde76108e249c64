/* SPDX-License-Identifier: Apache-2.0
 * The part of an upload in which the body arrives: gw_upload_receive, gw_upload_drain (declared in
 * gateway/upload.h, whose struct they work on). Worker thread.
 */
#ifndef TRIB_GATEWAY_UPLOAD_RECEIVE_H
#define TRIB_GATEWAY_UPLOAD_RECEIVE_H

#include "gateway/upload.h"

#endif
