/* SPDX-License-Identifier: Apache-2.0
 * Labels of clients, with the charset of Kubernetes: a key is [prefix/]name, a value may be empty;
 * each part has letters, digits, '-', '_' and '.', and begins and ends with a letter or digit.
 * Pure; input is hostile.
 */
#ifndef TRIB_COMMON_LABELS_H
#define TRIB_COMMON_LABELS_H

#include "common/json.h"

#define TRIB_LABELS_MAX     16
#define TRIB_LABEL_KEY_MAX  127 /* characters, prefix and '/' included */
#define TRIB_LABEL_NAME_MAX 63  /* after the '/', and of a value */
#define TRIB_LABELS_SIZE    (TRIB_LABELS_MAX * (TRIB_LABEL_KEY_MAX + TRIB_LABEL_NAME_MAX + 2))
#define TRIB_LABELS_TEXT                                                                           \
	"labels: an object of at most 16 strings; keys [prefix/]name up to 127, names and values " \
	"up to 63 of A-Z a-z 0-9 . _ -, a letter or digit at both ends"

bool trib_label_key_valid(const char *text);
bool trib_label_value_valid(const char *text);
/* An object of labels (NULL or null: none) as "key=value,key=value", sorted by key, "" when there
 * are none. -EBADMSG: not labels; -E2BIG: more than TRIB_LABELS_MAX. */
TRIB_MUST_CHECK int trib_labels_read(const json_t *labels, char out[TRIB_LABELS_SIZE]);
/* The object of such a text, NULL when out of memory or malformed. */
json_t *trib_labels_json(const char *text);

#endif
