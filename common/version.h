/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRIB_COMMON_VERSION_H
#define TRIB_COMMON_VERSION_H

#define TRIB_VERSION "0.1.0"

#endif
