/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "common/json.h"
#include "orchestrator/store_keys.h"
#include "orchestrator/store_redis.h"

#define NODES_MAX 1024u

struct tree_read {
	struct orc_store *store;
	orc_nodes_cb *cb;
	void *arg;
};

static void on_tree(const struct trib_value *value, void *arg)
{
	struct tree_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	json_t *nodes = json_array();
	size_t count = word == ORC_OK ? trib_value_count(value) : 0;

	for (size_t i = 0; i + 1 < count && i / 2 < NODES_MAX; i += 2) {
		const struct trib_value *text = trib_value_at(value, i + 1);
		json_t *node = NULL;
		char reason[160];

		if (trib_json_parse(trib_value_text(text), trib_value_size(text), &node, reason) ||
		    !json_is_object(node)) {
			json_decref(node);
			continue;
		}
		(void)json_object_set_new(node, "node",
					  json_string(trib_value_text(trib_value_at(value, i))));
		(void)json_array_append_new(nodes, node);
	}
	read->cb(nodes ? word : ORC_ERROR, nodes, read->arg);
	json_decref(nodes);
	trib_free(read);
}

int orc_store_tree(struct orc_store *store, const char *job, orc_nodes_cb *cb, void *arg)
{
	struct tree_read *read = trib_alloc(sizeof(*read));
	char key[96];
	const char *words[] = { "HGETALL", key };
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	(void)snprintf(key, sizeof(key), "trib:{%.60s}:tree", job);
	*read = (struct tree_read){ .store = store, .cb = cb, .arg = arg };
	rc = orc_store_words(store, on_tree, read, TRIB_COUNT(words), words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}
