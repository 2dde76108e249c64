/* SPDX-License-Identifier: Apache-2.0
 * The report as one page for a browser: tables and charts (inline SVG), nothing fetched.
 */
#ifndef TRIB_CLIENT_LOAD_HTML_H
#define TRIB_CLIENT_LOAD_HTML_H

#include "common/json.h"

/* Owned text (trib_free); NULL when out of memory. */
char *load_html(const json_t *report);

#endif
