/* SPDX-License-Identifier: Apache-2.0
 * Events of jobs: several streams read as one, ordered by id. One XREAD is one instant of Redis,
 * so that what it returns is complete up to the last id of the stream that was cut by COUNT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator/store_keys.h"

struct events_read {
	struct orc_store *store;
	orc_events_cb *cb;
	void *arg;
};

int orc_event_id_compare(const struct orc_event_id *a, const struct orc_event_id *b)
{
	if (a->ms != b->ms) {
		return a->ms < b->ms ? -1 : 1;
	}
	return a->seq == b->seq ? 0 : (a->seq < b->seq ? -1 : 1);
}

int orc_event_id_parse(const char *text, struct orc_event_id *ret_id)
{
	size_t size = strcspn(text, "-");
	struct orc_event_id id = { 0 };

	if (trib_parse_u64(text, size, 0, INT64_MAX, &id.ms)) {
		return -EINVAL;
	}
	if (text[size] == '-' &&
	    trib_parse_u64(text + size + 1, strlen(text + size + 1), 0, UINT64_MAX, &id.seq)) {
		return -EINVAL;
	}
	*ret_id = id;
	return 0;
}

static int compare_events(const void *a, const void *b)
{
	const struct orc_event *left = a;
	const struct orc_event *right = b;
	int order = orc_event_id_compare(&left->id, &right->id);

	return order ? order : strcmp(left->job, right->job);
}

/* The job of "trib:{job}:ev", or "". */
static const char *job_of_key(const char *key, char out[TRIB_ID_TEXT_SIZE])
{
	const char *open = strchr(key, '{');
	const char *close = open ? strchr(open, '}') : NULL;

	out[0] = '\0';
	if (close && close - open <= TRIB_ID_TEXT_SIZE) {
		memcpy(out, open + 1, (size_t)(close - open) - 1);
		out[close - open - 1] = '\0';
	}
	return out;
}

/* Adds the entries of one stream; lowers *cut when there may be more of it. */
static size_t add_stream(const struct trib_value *stream, const char *job, struct orc_event *items,
			 struct orc_event_id *cut)
{
	const struct trib_value *entries = trib_value_at(stream, 1);
	size_t count = trib_value_count(entries);
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		const struct trib_value *entry = trib_value_at(entries, i);
		struct orc_event event = { .job = job, .fields = trib_value_at(entry, 1) };

		if (orc_event_id_parse(trib_value_text(trib_value_at(entry, 0)), &event.id) == 0) {
			items[found++] = event;
		}
	}
	if (count >= ORC_EVENTS_BATCH && found &&
	    orc_event_id_compare(&items[found - 1].id, cut) < 0) {
		*cut = items[found - 1].id;
	}
	return found;
}

static void on_events(const struct trib_value *value, void *arg)
{
	struct events_read *read = arg;
	size_t streams = trib_value_count(value);
	struct orc_event_id cut = { UINT64_MAX, UINT64_MAX };
	struct orc_events events = { .word = orc_store_word_of(read->store, value) };
	char(*jobs)[TRIB_ID_TEXT_SIZE] = trib_alloc_array(streams, sizeof(*jobs));
	struct orc_event *items;
	size_t total = 0;
	size_t count = 0;

	for (size_t i = 0; i < streams; i++) {
		total += trib_value_count(trib_value_at(trib_value_at(value, i), 1));
	}
	items = trib_alloc_array(total, sizeof(*items));
	for (size_t i = 0; items && jobs && i < streams; i++) {
		const struct trib_value *stream = trib_value_at(value, i);
		const char *key = trib_value_text(trib_value_at(stream, 0));

		count += add_stream(stream, job_of_key(key, jobs[i]), items + count, &cut);
	}
	if (!items || !jobs) {
		events.word = ORC_ERROR;
	} else if (count) {
		qsort(items, count, sizeof(*items), compare_events);
		while (count && orc_event_id_compare(&items[count - 1].id, &cut) > 0) {
			count--;
		}
	}
	events.more = cut.ms != UINT64_MAX;
	events.items = items;
	events.count = count;
	read->cb(&events, read->arg);
	trib_free(items);
	trib_free(jobs);
	trib_free(read);
}

int orc_store_events(struct orc_store *store, const struct orc_source *sources, size_t count,
		     orc_events_cb *cb, void *arg)
{
	struct text {
		struct orc_key key;
		char id[48];
	};
	struct orc_decimal batch = orc_decimal(ORC_EVENTS_BATCH);
	struct events_read *read;
	struct text *texts;
	const char **words;
	int rc = -ENOMEM;

	if (count == 0 || count > ORC_SOURCES_MAX) {
		return -EINVAL;
	}
	read = trib_alloc(sizeof(*read));
	texts = trib_alloc_array(count, sizeof(*texts));
	words = trib_alloc_array(4 + 2 * count, sizeof(*words));
	if (read && texts && words) {
		*read = (struct events_read){ store, cb, arg };
		words[0] = "XREAD";
		words[1] = "COUNT";
		words[2] = batch.text;
		words[3] = "STREAMS";
		for (size_t i = 0; i < count; i++) {
			texts[i].key = orc_key_events(sources[i].job);
			(void)snprintf(texts[i].id, sizeof(texts[i].id), "%llu-%llu",
				       (unsigned long long)sources[i].after.ms,
				       (unsigned long long)sources[i].after.seq);
			words[4 + i] = texts[i].key.text;
			words[4 + count + i] = texts[i].id;
		}
		rc = orc_store_words(store, on_events, read, 4 + 2 * count, words);
	}
	trib_free(texts);
	trib_free(words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

const char *orc_event_type(const struct orc_event *event)
{
	return trib_value_field(event->fields, "t", "");
}

/* What the streams call things, and what readers of the API know them as. */
static const struct {
	const char *field;
	const char *name;
	bool number;
} event_names[] = {
	{ "n", "round", true },
	{ "v", "version", true },
	{ "base", "base_version", true },
	{ "acc", "accepted", true },
	{ "update", "update", false },
	{ "why", "why", false },
	{ "digest", "digest", false },
	{ "name", "name", false },
	{ "reason", "reason", false },
	{ "node", "node", false },
	{ "gen", "generation", true },
	{ "mode", "mode", false },
	{ "count", "count", true },
	{ "from", "from_job", false },
	{ "fromv", "from_version", true },
	{ "metrics", "metrics", false },
};

json_t *orc_event_json(const struct orc_event *event)
{
	json_t *json = json_pack("{s:s, s:s, s:I}", "type", orc_event_type(event), "job",
				 event->job, "ms", (json_int_t)event->id.ms);

	for (size_t i = 0; json && i < TRIB_COUNT(event_names); i++) {
		const char *text = trib_value_field(event->fields, event_names[i].field, NULL);
		uint64_t number;

		if (!text) {
			continue;
		}
		if (strcmp(event_names[i].field, "metrics") == 0) {
			(void)json_object_set_new(json, "metrics", trib_metrics_json(text));
			continue;
		}
		if (event_names[i].number &&
		    trib_parse_u64(text, strlen(text), 0, INT64_MAX, &number) == 0) {
			(void)json_object_set_new(json, event_names[i].name,
						  json_integer((json_int_t)number));
		} else {
			(void)json_object_set_new(json, event_names[i].name, json_string(text));
		}
	}
	return json;
}
