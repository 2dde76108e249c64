/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/store_hooks.h"

#include <errno.h>

#include "orchestrator/store_keys.h"

#define COLUMNS (2 + ORC_HOOKS_MAX)

struct hooks_read {
	struct orc_store *store;
	orc_hook_rows_cb *cb;
	void *arg;
};

static void on_rows(const struct trib_value *value, void *arg)
{
	struct hooks_read *read = arg;
	size_t cells = trib_value_count(value);
	size_t count = cells ? (cells - 1) / COLUMNS : 0;
	struct orc_hook_row *items = trib_alloc_array(count, sizeof(*items));
	struct orc_hook_rows rows = { .word = orc_store_word_of(read->store, value),
				      .items = items,
				      .count = items ? count : 0 };

	for (size_t i = 0; i < rows.count; i++) {
		size_t at = 1 + i * COLUMNS;

		items[i].job = trib_value_text(trib_value_at(value, at));
		items[i].hooks = trib_value_text(trib_value_at(value, at + 1));
		for (size_t n = 0; n < ORC_HOOKS_MAX; n++) {
			items[i].cursors[n] = trib_value_text(trib_value_at(value, at + 2 + n));
		}
	}
	if (!items) {
		rows.word = ORC_ERROR;
	}
	read->cb(&rows, read->arg);
	trib_free(items);
	trib_free(read);
}

int orc_store_hooks(struct orc_store *store, orc_hook_rows_cb *cb, void *arg)
{
	const char *words[] = { "FCALL", "trib_hooks_list", "1", "trib:hooks" };
	struct hooks_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = (struct hooks_read){ store, cb, arg };
	rc = orc_store_words(store, on_rows, read, TRIB_COUNT(words), words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

int orc_store_hook_sent(struct orc_store *store, const char *token, const char *job, unsigned index,
			const struct orc_event_id *id, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	struct orc_decimal number = orc_decimal(index);
	char event[48];
	const char *words[] = {
		"FCALL", "trib_hook_sent", "1", key.text, token, number.text, event
	};

	(void)snprintf(event, sizeof(event), "%llu-%llu", (unsigned long long)id->ms,
		       (unsigned long long)id->seq);
	return orc_store_function(store, then, TRIB_COUNT(words), words);
}
