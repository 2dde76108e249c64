/* SPDX-License-Identifier: Apache-2.0
 * Reads: several commands per read, sent together; their answers come in order, the last one
 * finishes the read. What Redis holds is parsed as input: cut to bounds, never asserted.
 */
#include <errno.h>
#include <string.h>

#include "orchestrator/store_keys.h"

#define LIST_MAX  1000
#define NODES_MAX 1024

static const char *const job_states[ORC_JOB_STATE_COUNT] = {
	[ORC_JOB_CREATED] = "created",   [ORC_JOB_RUNNING] = "running", [ORC_JOB_PAUSED] = "paused",
	[ORC_JOB_FINISHED] = "finished", [ORC_JOB_STOPPED] = "stopped", [ORC_JOB_FAILED] = "failed",
};
static const char *const round_states[] = {
	[ORC_ROUND_NONE] = "none",       [ORC_ROUND_OPEN] = "open",
	[ORC_ROUND_CLOSING] = "closing", [ORC_ROUND_PUBLISHED] = "published",
	[ORC_ROUND_FAILED] = "failed",
};

const char *orc_job_state_text(enum orc_job_state state)
{
	return job_states[state];
}

int orc_job_state_parse(const char *text, enum orc_job_state *ret_state)
{
	for (size_t i = 0; i < TRIB_COUNT(job_states); i++) {
		if (strcmp(text, job_states[i]) == 0) {
			*ret_state = (enum orc_job_state)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *orc_round_state_text(enum orc_round_state state)
{
	return round_states[state];
}

static void copy_text(char *out, size_t size, const struct trib_value *value)
{
	(void)snprintf(out, size, "%s", trib_value_text(value));
}

/* Parts of "a|b|c": texts into out[i], cut to 127 bytes; what follows the last '|' wanted stays in
 * the last part. Returns how many there are. */
#define PARTS_MAX 6
#define PART_SIZE 128
static size_t split(const char *text, char out[PARTS_MAX][PART_SIZE])
{
	for (size_t i = 0; i < PARTS_MAX; i++) {
		size_t size = i + 1 < PARTS_MAX ? strcspn(text, "|") : strlen(text);

		(void)snprintf(out[i], PART_SIZE, "%.*s",
			       (int)(size < PART_SIZE ? size : PART_SIZE), text);
		if (text[size] == '\0') {
			return i + 1;
		}
		text += size + 1;
	}
	return PARTS_MAX;
}

static bool decimal(const char *text, uint64_t *ret_value)
{
	return trib_parse_u64(text, strlen(text), 0, INT64_MAX, ret_value) == 0;
}

/* ---- one round ---- */

static const char *const round_fields[] = {
	"state",    "base",    "version",  "goal",        "quorum",    "selmax",
	"selected", "acc",     "inflight", "late",        "lost",      "expired",
	"wsum",     "opened",  "deadline", "closed",      "published", "taskms",
	"why",      "task",    "tasknode", "digest",      "extended",  "metrics",
	"bk",       "partial", "kept",     "quarantined", "quar"
};
#define ROUND_WORDS (2 + TRIB_COUNT(round_fields))

static int send_round(struct orc_store *store, const char *job, uint64_t number, trib_redis_cb *cb,
		      void *arg)
{
	struct orc_key key = orc_key_round(job, number);
	const char *words[ROUND_WORDS] = { "HMGET", key.text };

	memcpy(words + 2, round_fields, sizeof(round_fields));
	return orc_store_words(store, cb, arg, TRIB_COUNT(words), words);
}

static struct orc_round parse_round(uint64_t number, const struct trib_value *value)
{
	struct orc_round round = { .number = number, .version = -1 };
	const char *state = trib_value_text(trib_value_at(value, 0));
	uint64_t *const numbers[] = { &round.goal,      &round.quorum,    &round.selected_max,
				      &round.selected,  &round.accepted,  &round.inflight,
				      &round.late,      &round.lost,      &round.expired,
				      &round.weight_fx, &round.opened,    &round.deadline,
				      &round.closed,    &round.published, &round.task_ms };

	for (size_t i = 0; i < TRIB_COUNT(round_states); i++) {
		if (strcmp(state, round_states[i]) == 0) {
			round.state = (enum orc_round_state)i;
		}
	}
	round.base = trib_value_integer(trib_value_at(value, 1));
	if (trib_value_size(trib_value_at(value, 2))) {
		round.version = trib_value_integer(trib_value_at(value, 2));
	}
	for (size_t i = 0; i < TRIB_COUNT(numbers); i++) {
		*numbers[i] = orc_value_u64(trib_value_at(value, 3 + i));
	}
	copy_text(round.why, sizeof(round.why), trib_value_at(value, 18));
	copy_text(round.task, sizeof(round.task), trib_value_at(value, 19));
	copy_text(round.task_node, sizeof(round.task_node), trib_value_at(value, 20));
	copy_text(round.digest, sizeof(round.digest), trib_value_at(value, 21));
	round.extended = orc_value_u64(trib_value_at(value, 22));
	copy_text(round.metrics, sizeof(round.metrics), trib_value_at(value, 23));
	copy_text(round.backup, sizeof(round.backup), trib_value_at(value, 24));
	round.partial = orc_value_u64(trib_value_at(value, 25));
	round.kept = orc_value_u64(trib_value_at(value, 26));
	round.quarantined = orc_value_u64(trib_value_at(value, 27));
	copy_text(round.quarantine, sizeof(round.quarantine), trib_value_at(value, 28));
	return round;
}

/* ---- one job with one round ---- */

static const char *const job_fields[] = {
	"state",  "name",     "created",     "epoch",       "round",   "version", "goal",
	"quorum", "selmax",   "deadline_ms", "stop_rounds", "bytes",   "params",  "pubround",
	"mode",   "reason",   "tenant",      "gen",         "started", "s:ms",    "upds",
	"drain",  "drainwhy", "stopwhy",     "metrics",     "init",    "place",   "spec"
};

struct view_read {
	struct orc_store *store;
	struct orc_view view;
	uint64_t want_round;
	bool hint;
	bool current; /* the job says which round */
	unsigned pending;
	orc_view_cb *cb;
	void *arg;
};

static void view_worse(struct view_read *read, enum orc_word word)
{
	if (read->view.word == ORC_OK) {
		read->view.word = word;
	}
}

static void view_finish(struct view_read *read)
{
	read->cb(&read->view, read->arg);
	trib_free(read->view.job.spec);
	trib_free(read->view.job.reason);
	trib_free(read->view.job.stop_why);
	trib_free(read->view.job.metrics);
	trib_free(read);
}

static void on_view_round(const struct trib_value *value, void *arg);

uint64_t orc_job_work(const struct orc_job *job)
{
	return job->over < job->round ? job->over + 1 : job->round;
}

/* Called after each answer; the last one decides. */
static void view_step(struct view_read *read)
{
	struct orc_job *job = &read->view.job;
	uint64_t wanted = read->hint ? orc_job_work(job) : job->round;

	if (--read->pending) {
		return;
	}
	if (read->view.word == ORC_OK && read->current && wanted != read->want_round) {
		read->view.round = (struct orc_round){ .number = wanted };
		read->want_round = wanted;
		if (wanted && !send_round(read->store, job->id, wanted, on_view_round, read)) {
			read->pending = 1;
			return;
		}
		if (wanted) {
			view_worse(read, ORC_ERROR);
		}
	}
	view_finish(read);
}

static void on_view_time(const struct trib_value *value, void *arg)
{
	struct view_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);

	if (word != ORC_OK) {
		view_worse(read, word);
	}
	read->view.now_ms = orc_value_u64(trib_value_at(value, 0)) * 1000 +
			    orc_value_u64(trib_value_at(value, 1)) / 1000;
	view_step(read);
}

/* started s:ms upds drain drainwhy stopwhy metrics init place */
static void read_life(struct orc_job *job, const struct trib_value *value)
{
	uint64_t started = orc_value_u64(trib_value_at(value, 18));
	uint64_t limit = orc_value_u64(trib_value_at(value, 19));

	job->stop_at = started && limit ? started + limit : 0;
	job->counted = orc_value_u64(trib_value_at(value, 20));
	job->draining = trib_value_size(trib_value_at(value, 21)) > 0;
	if (job->draining) {
		trib_free(job->reason);
		job->reason = trib_strdup(trib_value_text(trib_value_at(value, 22)));
	}
	job->stop_why = trib_strdup(trib_value_text(trib_value_at(value, 23)));
	job->metrics = trib_strdup(trib_value_text(trib_value_at(value, 24)));
	job->wants_model = trib_value_size(trib_value_at(value, 25)) > 0;
	copy_text(job->place, sizeof(job->place), trib_value_at(value, 26));
}

static void on_view_job(const struct trib_value *value, void *arg)
{
	struct view_read *read = arg;
	struct orc_job *job = &read->view.job;
	enum orc_word word = orc_store_word_of(read->store, value);
	uint64_t *const numbers[] = { &job->goal,        &job->quorum,      &job->selected_max,
				      &job->deadline_ms, &job->stop_rounds, &job->bytes,
				      &job->params };

	if (word != ORC_OK) {
		view_worse(read, word);
	} else if (orc_job_state_parse(trib_value_text(trib_value_at(value, 0)), &job->state)) {
		view_worse(read, ORC_NOJOB);
	} else {
		copy_text(job->name, sizeof(job->name), trib_value_at(value, 1));
		job->created = orc_value_u64(trib_value_at(value, 2));
		job->epoch = orc_value_u64(trib_value_at(value, 3));
		job->round = orc_value_u64(trib_value_at(value, 4));
		job->version = trib_value_integer(trib_value_at(value, 5));
		for (size_t i = 0; i < TRIB_COUNT(numbers); i++) {
			*numbers[i] = orc_value_u64(trib_value_at(value, 6 + i));
		}
		job->over = orc_value_u64(trib_value_at(value, 13));
		job->async = strcmp(trib_value_text(trib_value_at(value, 14)), "async") == 0;
		job->reason = trib_strdup(trib_value_text(trib_value_at(value, 15)));
		copy_text(job->tenant, sizeof(job->tenant), trib_value_at(value, 16));
		if (!job->tenant[0]) { /* made before there were tenants */
			(void)snprintf(job->tenant, sizeof(job->tenant), "default");
		}
		job->generation = orc_value_u64(trib_value_at(value, 17));
		if (job->generation == 0) { /* made before there were patches */
			job->generation = 1;
		}
		read_life(job, value);
		if (trib_value_count(value) > 27) {
			job->spec = trib_strdup(trib_value_text(trib_value_at(value, 27)));
		}
	}
	view_step(read);
}

static void on_view_round(const struct trib_value *value, void *arg)
{
	struct view_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);

	if (word != ORC_OK) {
		view_worse(read, word);
	} else {
		read->view.round = parse_round(read->want_round, value);
	}
	view_step(read);
}

int orc_store_view(struct orc_store *store, const struct orc_view_want *want, orc_view_cb *cb,
		   void *arg)
{
	struct orc_key key = orc_key_job(want->job);
	const char *words[2 + TRIB_COUNT(job_fields)] = { "HMGET", key.text };
	const char *time_words[] = { "TIME" };
	size_t count = TRIB_COUNT(words) - (want->spec ? 0 : 1);
	struct view_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	memcpy(words + 2, job_fields, sizeof(job_fields));
	*read = (struct view_read){ .store = store,
				    .want_round = want->round,
				    .hint = want->hint,
				    .current = want->hint || want->round == 0,
				    .cb = cb,
				    .arg = arg };
	read->view.word = ORC_OK;
	read->view.round.number = want->round;
	(void)snprintf(read->view.job.id, sizeof(read->view.job.id), "%s", want->job);
	rc = orc_store_words(store, on_view_time, read, 1, time_words);
	if (rc) {
		trib_free(read);
		return rc;
	}
	read->pending = 1; /* from here on the answer to TIME finishes what could not be sent */
	if (orc_store_words(store, on_view_job, read, count, words)) {
		view_worse(read, ORC_ERROR);
		return 0;
	}
	read->pending++;
	if (want->round) {
		if (send_round(store, want->job, want->round, on_view_round, read)) {
			view_worse(read, ORC_ERROR);
			return 0;
		}
		read->pending++;
	}
	return 0;
}

/* ---- lists of things read one by one ---- */

struct list_read {
	struct orc_store *store;
	char job[TRIB_ID_TEXT_SIZE];
	enum orc_word word;
	uint64_t first;
	size_t asked;
	size_t answered;
	size_t count; /* items found */
	orc_rounds_cb *cb;
	void *arg;
	struct orc_round items[];
};

static void on_list_round(const struct trib_value *value, void *arg)
{
	struct list_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	uint64_t number = read->first - read->answered++;

	if (word != ORC_OK) {
		read->word = word;
	} else {
		read->items[read->count] = parse_round(number, value);
		read->count += read->items[read->count].state != ORC_ROUND_NONE;
	}
	if (read->answered == read->asked) {
		read->cb(read->word, read->items, read->count, read->arg);
		trib_free(read);
	}
}

int orc_store_rounds(struct orc_store *store, const char *job, uint64_t first, size_t count,
		     orc_rounds_cb *cb, void *arg)
{
	struct list_read *read;
	int rc = 0;

	count = count < first ? count : (size_t)first;
	if (count == 0 || count > LIST_MAX) {
		return -EINVAL;
	}
	read = trib_alloc(sizeof(*read) + count * sizeof(read->items[0]));
	if (!read) {
		return -ENOMEM;
	}
	read->store = store;
	read->word = ORC_OK;
	read->first = first;
	read->cb = cb;
	read->arg = arg;
	while (read->asked < count && !rc) {
		rc = send_round(store, job, first - read->asked, on_list_round, read);
		read->asked += rc == 0;
	}
	if (read->asked == 0) {
		trib_free(read);
		return rc;
	}
	read->word = rc ? ORC_ERROR : ORC_OK; /* what was sent is answered first */
	return 0;
}

struct models_read {
	struct orc_store *store;
	uint64_t first;
	orc_models_cb *cb;
	void *arg;
};

/* digest|bytes|round|ms[|metrics] */
static bool parse_model(const char *text, struct orc_model *model)
{
	char parts[PARTS_MAX][PART_SIZE];
	size_t count = split(text, parts);
	const char *last = strrchr(text, '|');

	(void)snprintf(model->metrics, sizeof(model->metrics), "%s", count == 5 ? last + 1 : "");
	return (count == 4 || count == 5) &&
	       trib_copy(model->digest, sizeof(model->digest), parts[0]) == 0 &&
	       decimal(parts[1], &model->bytes) && decimal(parts[2], &model->round) &&
	       decimal(parts[3], &model->created);
}

static void on_models(const struct trib_value *value, void *arg)
{
	struct models_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	size_t count = trib_value_count(value);
	struct orc_model *models = trib_alloc_array(count, sizeof(*models));
	size_t found = 0;

	for (size_t i = 0; models && i < count; i++) {
		models[found].version = read->first - i;
		found += parse_model(trib_value_text(trib_value_at(value, i)), &models[found]);
	}
	read->cb(models ? word : ORC_ERROR, models, found, read->arg);
	trib_free(models);
	trib_free(read);
}

int orc_store_models(struct orc_store *store, const char *job, uint64_t first, size_t count,
		     orc_models_cb *cb, void *arg)
{
	struct orc_key key = orc_key_models(job);
	struct models_read *read;
	struct orc_decimal *versions;
	const char **words;
	int rc = -ENOMEM;

	count = count < first + 1 ? count : (size_t)first + 1;
	if (count == 0 || count > LIST_MAX) {
		return -EINVAL;
	}
	read = trib_alloc(sizeof(*read));
	versions = trib_alloc_array(count, sizeof(*versions));
	words = trib_alloc_array(count + 2, sizeof(*words));
	if (read && versions && words) {
		*read = (struct models_read){ store, first, cb, arg };
		words[0] = "HMGET";
		words[1] = key.text;
		for (size_t i = 0; i < count; i++) {
			versions[i] = orc_decimal(first - i);
			words[2 + i] = versions[i].text;
		}
		rc = orc_store_words(store, on_models, read, count + 2, words);
	}
	trib_free(versions);
	trib_free(words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

/* ---- updates of a round ---- */

struct updates_read {
	struct orc_store *store;
	orc_updates_cb *cb;
	void *arg;
};

/* 'S|id|exp', 'R|id|exp', 'C|id|ms|digest|weight|place', 'L|id|round|weight' */
static bool parse_update(const char *client, const char *text, struct orc_update *update)
{
	char parts[PARTS_MAX][PART_SIZE];
	size_t count = split(text, parts);

	*update = (struct orc_update){ .state = parts[0][0] };
	if (count < 3 || trib_copy(update->client, sizeof(update->client), client) ||
	    trib_copy(update->id, sizeof(update->id), parts[1]) ||
	    !decimal(parts[2], &update->ms)) {
		return false;
	}
	if (update->state != 'C') {
		return update->state == 'S' || update->state == 'R' || update->state == 'L';
	}
	return count == PARTS_MAX &&
	       trib_copy(update->digest, sizeof(update->digest), parts[3]) == 0 &&
	       decimal(parts[4], &update->weight_fx) &&
	       trib_copy(update->place, sizeof(update->place), parts[5]) == 0;
}

static void on_updates(const struct trib_value *value, void *arg)
{
	struct updates_read *read = arg;
	const struct trib_value *pairs = trib_value_at(value, 1);
	size_t count = trib_value_count(pairs) / 2;
	struct orc_update *items = trib_alloc_array(count, sizeof(*items));
	struct orc_updates updates = { .word = orc_store_word_of(read->store, value),
				       .next = orc_value_u64(trib_value_at(value, 0)),
				       .items = items };

	for (size_t i = 0; items && i < count; i++) {
		updates.count += parse_update(trib_value_text(trib_value_at(pairs, 2 * i)),
					      trib_value_text(trib_value_at(pairs, 2 * i + 1)),
					      &items[updates.count]);
	}
	if (!items) {
		updates.word = ORC_ERROR;
	}
	read->cb(&updates, read->arg);
	trib_free(items);
	trib_free(read);
}

int orc_store_updates(struct orc_store *store, const struct orc_updates_want *want,
		      orc_updates_cb *cb, void *arg)
{
	struct orc_key key = orc_key_updates(want->job, want->round);
	struct orc_decimal cursor = orc_decimal(want->cursor);
	struct orc_decimal count = orc_decimal(want->count);
	const char *words[] = { "HSCAN", key.text, cursor.text, "COUNT", count.text };
	struct updates_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = (struct updates_read){ store, cb, arg };
	rc = orc_store_words(store, on_updates, read, TRIB_COUNT(words), words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

/* ---- jobs ---- */

struct jobs_read {
	struct orc_store *store;
	orc_jobs_cb *cb;
	void *arg;
};

static void on_jobs(const struct trib_value *value, void *arg)
{
	struct jobs_read *read = arg;
	size_t count = trib_value_count(value) / 2;
	struct orc_job_ref *jobs = trib_alloc_array(count, sizeof(*jobs));
	enum orc_word word = orc_store_word_of(read->store, value);
	size_t found = 0;

	for (size_t i = 0; jobs && i < count; i++) {
		const char *id = trib_value_text(trib_value_at(value, 2 * i));
		struct trib_id parsed;

		if (trib_id_parse("job_", id, &parsed) == 0) {
			(void)snprintf(jobs[found].id, sizeof(jobs[found].id), "%s", id);
			jobs[found++].created = orc_value_u64(trib_value_at(value, 2 * i + 1));
		}
	}
	read->cb(jobs ? word : ORC_ERROR, jobs, found, read->arg);
	trib_free(jobs);
	trib_free(read);
}

static int send_jobs(struct orc_store *store, const struct jobs_read *wanted, size_t count,
		     const char *const words[])
{
	struct jobs_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = *wanted;
	rc = orc_store_words(store, on_jobs, read, count, words);
	if (rc) {
		trib_free(read);
	}
	return rc;
}

int orc_store_jobs(struct orc_store *store, uint64_t from, size_t count, orc_jobs_cb *cb, void *arg)
{
	const struct jobs_read read = { store, cb, arg };
	struct orc_decimal start = orc_decimal(from);
	struct orc_decimal limit = orc_decimal(count);
	const char *words[] = { "ZREVRANGEBYSCORE", ORC_KEY_JOBS, start.text, "-inf",
				"WITHSCORES",       "LIMIT",      "0",        limit.text };

	return send_jobs(store, &read, TRIB_COUNT(words), words);
}

int orc_store_jobs_at(struct orc_store *store, size_t offset, size_t count, orc_jobs_cb *cb,
		      void *arg)
{
	const struct jobs_read read = { store, cb, arg };
	struct orc_decimal start = orc_decimal(offset);
	struct orc_decimal end = orc_decimal(offset + count - 1);
	const char *words[] = { "ZREVRANGE", ORC_KEY_JOBS, start.text, end.text, "WITHSCORES" };

	return send_jobs(store, &read, TRIB_COUNT(words), words);
}

/* ---- nodes ---- */

struct nodes_read {
	struct orc_store *store;
	enum orc_word word;
	json_t *nodes;
	size_t asked;
	size_t answered;
	orc_nodes_cb *cb;
	void *arg;
};

static void nodes_finish(struct nodes_read *read)
{
	read->cb(read->nodes ? read->word : ORC_ERROR, read->nodes, read->arg);
	json_decref(read->nodes);
	trib_free(read);
}

static void on_node(const struct trib_value *value, void *arg)
{
	struct nodes_read *read = arg;
	enum orc_word word = orc_store_word_of(read->store, value);
	json_t *node = json_array_get(read->nodes, read->answered++);
	size_t count = trib_value_count(value);

	if (word != ORC_OK) {
		read->word = word;
	}
	(void)json_object_set_new(node, "state", json_string(count ? "up" : "lost"));
	for (size_t i = 0; i + 1 < count && i < 256; i += 2) {
		const char *key = trib_value_text(trib_value_at(value, i));
		const struct trib_value *text = trib_value_at(value, i + 1);
		uint64_t number;
		bool whole = trib_parse_u64(trib_value_text(text), trib_value_size(text), 0,
					    INT64_MAX, &number) == 0;

		if (strcmp(key, "drain") == 0 && trib_value_size(text)) {
			(void)json_object_set_new(node, "state",
						  json_string(trib_value_text(text)));
		} else if (strcmp(key, "name") != 0 && strcmp(key, "state") != 0 &&
			   strcmp(key, "drain") != 0) {
			(void)json_object_set_new(node, key,
						  whole ? json_integer((json_int_t)number)
							: json_string(trib_value_text(text)));
		}
	}
	if (read->answered == read->asked) {
		nodes_finish(read);
	}
}

static void on_node_names(const struct trib_value *value, void *arg)
{
	struct nodes_read *read = arg;
	size_t count = trib_value_count(value);

	read->word = orc_store_word_of(read->store, value);
	for (size_t i = 0; read->word == ORC_OK && i < count && i < NODES_MAX; i++) {
		const char *name = trib_value_text(trib_value_at(value, i));
		struct orc_key key = orc_key_node(name);
		const char *words[] = { "HGETALL", key.text };

		if (json_array_append_new(read->nodes, json_pack("{s:s}", "name", name)) ||
		    orc_store_words(read->store, on_node, read, TRIB_COUNT(words), words)) {
			read->word = ORC_ERROR;
			break;
		}
		read->asked++;
	}
	if (read->asked == 0) {
		nodes_finish(read);
	}
}

int orc_store_nodes(struct orc_store *store, orc_nodes_cb *cb, void *arg)
{
	const char *words[] = { "SMEMBERS", ORC_KEY_NODES };
	struct nodes_read *read = trib_alloc(sizeof(*read));
	int rc;

	if (!read) {
		return -ENOMEM;
	}
	*read = (struct nodes_read){ .store = store, .nodes = json_array(), .cb = cb, .arg = arg };
	rc = orc_store_words(store, on_node_names, read, TRIB_COUNT(words), words);
	if (rc) {
		json_decref(read->nodes);
		trib_free(read);
	}
	return rc;
}
