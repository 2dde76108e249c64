/* SPDX-License-Identifier: Apache-2.0
 * The sums of a round that are on their way between nodes: carving out, sending, merging. See
 * peers.h. At any time at most one export of a node is not moved, and it holds all that the node
 * answers for: when moves are undone (the top was lost), or updates came after a carving (the round
 * went on), the sums at hand are merged again and carved anew.
 */
#include "orchestrator/agent/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/agent/agent.h"

#define RETRY_MIN_MS 50u
#define RETRY_MAX_MS 1000u
#define CHILDREN_LIFE \
	100u /* numbers a function is given before it is replaced (AGG_CHILDREN_MAX) */

static bool is_top(const struct agent_job *job)
{
	return strcmp(job->peers.top, job->agent->options.node) == 0;
}

/* ---- sums ---- */

struct agent_sum *agent_sum_new(struct agent_job *job)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s;

		if (job->peers.sums[i]) {
			continue;
		}
		s = trib_alloc(sizeof(*s));
		if (s) {
			s->partial.fd = -1;
			job->peers.sums[i] = s;
		}
		return s;
	}
	return NULL;
}

static void keeper_name(const struct agent_job *job, const struct agent_sum *s, char *out,
			size_t size)
{
	if (s->import) {
		(void)snprintf(out, size, "i:%s:%u:%u:%s", job->id, s->round, s->part, s->node);
	} else {
		(void)snprintf(out, size, "x:%s:%u:%u", job->id, s->round, s->part);
	}
}

int agent_sum_keep(struct agent_job *job, const struct agent_sum *s)
{
	char name[160];

	keeper_name(job, s, name, sizeof(name));
	return agent_keep(job->agent, name, s->partial.fd);
}

void agent_sum_unkeep(struct agent_job *job, const struct agent_sum *s)
{
	char name[160];

	keeper_name(job, s, name, sizeof(name));
	agent_unkeep(job->agent, "%s", name);
}

/* Its memory is needed no more; what it was stays known until the round is over. */
static void forget_memory(struct agent_job *job, struct agent_sum *s)
{
	if (s->partial.fd < 0) {
		return;
	}
	if (!s->import || s->complete) {
		agent_sum_unkeep(job, s);
	}
	job->agent->arena_used -= s->partial.size;
	job->reserved_bytes -= s->partial.size;
	trib_partial_fini(&s->partial);
}

void agent_sum_drop(struct agent_job *job, struct agent_sum *s)
{
	forget_memory(job, s);
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i] == s) {
			job->peers.sums[i] = NULL;
		}
	}
	trib_free(s);
}

void agent_peers_over(struct agent_job *job, uint32_t round)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (s && s->round <= round) {
			agent_carve_over(job, s);
			agent_sum_drop(job, s);
		}
	}
	job->peers.part = 0;
}

void agent_peers_fini(struct agent_job *job)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i]) {
			agent_sum_drop(job, job->peers.sums[i]);
		}
	}
}

static bool in_top(const struct agent_job *job, const struct agent_sum *s)
{
	return s->merged || (s->index && agent_round_merged(job, s->index));
}

/* What this node answers for and is not (yet) in function 1. */
static bool held(const struct agent_job *job, const struct agent_sum *s)
{
	return s && s->round == job->round && s->moved == s->import && !in_top(job, s);
}

struct trib_partial_totals agent_peers_held(const struct agent_job *job)
{
	struct trib_partial_totals sum = { 0, 0 };

	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (held(job, job->peers.sums[i])) {
			sum.updates += job->peers.sums[i]->totals.updates;
			sum.weight += job->peers.sums[i]->totals.weight;
		}
	}
	return sum;
}

bool agent_peers_begun(const struct agent_job *job)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i] && job->peers.sums[i]->round == job->round) {
			return true;
		}
	}
	return false;
}

static struct agent_sum *only_export(const struct agent_job *job, uint32_t *ret_count)
{
	struct agent_sum *found = NULL;

	*ret_count = 0;
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (held(job, job->peers.sums[i]) && !job->peers.sums[i]->import) {
			found = job->peers.sums[i];
			(*ret_count)++;
		}
	}
	return found;
}

static bool top_has_sum(const struct agent_job *job)
{
	const struct agent_fn *top = &job->fns[AGENT_TOP];

	return top->has_partial && trib_partial_header(&top->partial)->round == job->round &&
	       trib_partial_totals(&top->partial).updates > 0;
}

bool agent_peers_alone(const struct agent_job *job)
{
	return is_top(job) && job->expected == job->peers.updates &&
	       job->weight_expected == job->peers.weight && agent_peers_held(job).updates == 0;
}

static bool imports_held(const struct agent_job *job)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (held(job, job->peers.sums[i]) && job->peers.sums[i]->import) {
			return true;
		}
	}
	return false;
}

/* What this node holds must go through function 1 before it can go anywhere. */
static bool must_merge(const struct agent_job *job)
{
	uint32_t exports;

	(void)only_export(job, &exports);
	if (!is_top(job) && imports_held(job)) {
		return true; /* it was the top, and is to leave: what it was given goes on with it
			      */
	}
	return (exports > 0 && is_top(job)) || exports > 1 || (exports == 1 && top_has_sum(job));
}

static const struct agent_sum *own_with(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		const struct agent_sum *s = job->peers.sums[i];

		if (s && !s->import && s->partial.fd >= 0 &&
		    trib_partial_folded(&s->partial, slot, gen)) {
			return s;
		}
	}
	return NULL;
}

bool agent_peers_folded(const struct agent_job *job, uint32_t slot, uint32_t gen)
{
	return own_with(job, slot, gen) != NULL;
}

bool agent_peers_carved(const struct agent_job *job, uint32_t leaf)
{
	return own_with(job, TRIB_ITEM_PARTIAL | leaf, job->round) != NULL;
}

/* ---- what the record says ---- */

bool agent_peers_alive(struct agent_job *job, const struct trib_value *sync)
{
	const char *boot = trib_value_text(trib_value_at(sync, 17));

	if (trib_value_count(sync) < 20 || strcmp(boot, job->segment.header.boot) == 0) {
		return true;
	}
	agent_count(AGENT_M_NODE_LOST, 1);
	log_err("peers", "event=declared-lost job=%s round=%u lives=\"%s\"", job->id, job->round,
		boot);
	agent_job_drop(job, "its memory was declared lost");
	return false;
}

struct move { /* one of the record's, taken apart */
	char from[TRIB_PEER_NODE_SIZE];
	char boot[TRIB_ID_TEXT_SIZE];
	char to[TRIB_PEER_NODE_SIZE];
	char to_boot[TRIB_ID_TEXT_SIZE];
	unsigned part;
	unsigned seq;
};

static struct agent_sum *find_sum(struct agent_job *job, const struct move *m, bool import)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (s && s->import == import && s->round == job->round && s->part == m->part &&
		    strcmp(s->node, m->from) == 0 && strcmp(s->boot, m->boot) == 0) {
			return s;
		}
	}
	return NULL;
}

static void apply(struct agent_job *job, const struct move *m)
{
	const char *node = job->agent->options.node;
	const char *boot = job->segment.header.boot;
	struct agent_sum *s;

	if (strcmp(m->from, node) == 0 && strcmp(m->boot, boot) == 0) {
		s = find_sum(job, m, false);
		if (s) {
			s->moved = true;
		}
		return;
	}
	if (strcmp(m->to, node) != 0 || strcmp(m->to_boot, boot) != 0) {
		return;
	}
	s = find_sum(job, m, true);
	if (s) {
		s->moved = s->complete;
		if (s->complete && !s->merged) {
			s->index = AGENT_INDEX_IMPORT + m->seq;
			trib_partial_renumber(&s->partial, s->index);
		}
		return;
	}
	/* Taken over in an earlier life, and its memory let go: it is merged. */
	s = agent_sum_new(job);
	if (s) {
		*s = (struct agent_sum){ .import = true,
					 .complete = true,
					 .moved = true,
					 .merged = true,
					 .round = job->round,
					 .part = m->part,
					 .partial.fd = -1 };
		memcpy(s->node, m->from, sizeof(s->node));
		memcpy(s->boot, m->boot, sizeof(s->boot));
	}
}

static void read_moves(struct agent_job *job, const char *text)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i]) {
			job->peers.sums[i]->moved = false;
		}
	}
	while (*text) {
		size_t size = strcspn(text, " ");
		struct move m;

		if (sscanf(text, "%63[^| ]|%31[^| ]|%u|%63[^| ]|%31[^| ]|%*u|%*u|%*u|%u", m.from,
			   m.boot, &m.part, m.to, m.to_boot, &m.seq) == 6) {
			apply(job, &m);
		} else {
			agent_count(AGENT_M_BAD, 1);
		}
		text += size + (text[size] == ' ');
	}
}

/* The round was closed and goes on: what is sealed must take more. */
static void reopen(struct agent_job *job)
{
	log_info("peers", "event=round-goes-on job=%s round=%u", job->id, job->round);
	for (uint32_t i = AGENT_TOP; agent_is_top(job, i); i++) {
		struct agent_fn *top = &job->fns[i];

		if (top->has_partial && trib_partial_header(&top->partial)->round == job->round &&
		    trib_partial_state(&top->partial) == TRIB_PARTIAL_SEALED) {
			agent_fn_stop(top);
			trib_partial_unseal(&top->partial);
		}
	}
	job->phase = AGENT_COLLECTING;
	job->report_sent = false;
	job->planned_ms = 0; /* others must take what comes */
}

void agent_peers_synced(struct agent_job *job, const struct trib_value *sync)
{
	struct agent_peers *p = &job->peers;
	struct trib_partial_totals folded;
	bool waits = job->phase == AGENT_FLUSHING || job->phase == AGENT_EXPORTING;

	if (trib_value_count(sync) < 20) {
		return;
	}
	if (trib_copy(p->top, sizeof(p->top), trib_value_text(trib_value_at(sync, 14))) ||
	    trib_copy(p->top_url, sizeof(p->top_url), trib_value_text(trib_value_at(sync, 15)))) {
		p->top[0] = '\0';
	}
	p->updates = (uint64_t)trib_value_integer(trib_value_at(sync, 7));
	p->weight = (uint64_t)trib_value_integer(trib_value_at(sync, 8));
	job->weight_expected = (uint64_t)trib_value_integer(trib_value_at(sync, 16));
	read_moves(job, trib_value_text(trib_value_at(sync, 19)));
	if (!job->closing && job->phase >= AGENT_FLUSHING) {
		reopen(job);
	}
	folded = agent_round_folded(job);
	if (job->closing && waits &&
	    (folded.updates != job->expected || folded.weight != job->weight_expected)) {
		job->phase = AGENT_COLLECTING;
	} else if (job->closing && job->phase == AGENT_EXPORTING && must_merge(job)) {
		job->phase = AGENT_FLUSHING; /* moves were undone: who gathers has changed */
	}
}

/* ---- sending ---- */

static void on_sent(struct agent_transfer *t)
{
	struct agent_job *job = agent_job_find(t->agent, t->job);
	bool good = !t->rc && (t->status == 200 || t->status == 201);

	agent_count(good ? AGENT_M_SUMS_SENT : AGENT_M_SUMS_FAILED, 1);
	if (good) {
		agent_count(AGENT_M_SUM_BYTES_SENT, (int64_t)t->bytes);
		log_info("peers", "event=sum-sent job=%s round=%u part=%u to=%s", t->job, t->round,
			 t->part, t->to);
	} else {
		log_info("peers",
			 "event=sum-not-sent job=%s round=%u part=%u to=%s rc=%d "
			 "status=%ld detail=\"%s\"",
			 t->job, t->round, t->part, t->to, t->rc, t->status, t->error);
	}
	for (uint32_t i = 0; job && i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];
		uint32_t shift;

		if (!s || s->import || s->round != t->round || s->part != t->part ||
		    strcmp(s->boot, t->peer.boot) != 0 || strcmp(s->target, t->to) != 0) {
			continue; /* gone, or on its way to another top by now */
		}
		shift = s->tries < 5 ? s->tries : 5;
		s->sending = false;
		s->tries++;
		s->next_ms = trib_clock_ms() + (RETRY_MIN_MS << shift);
		if (s->next_ms > trib_clock_ms() + RETRY_MAX_MS) {
			s->next_ms = trib_clock_ms() + RETRY_MAX_MS;
		}
	}
	if (job) {
		agent_job_sync(job); /* whatever the answer: the record tells */
	}
}

static void send_sum(struct agent_job *job, struct agent_sum *s)
{
	struct agent_peers *p = &job->peers;
	uint64_t unit = job->accumulate == TRIB_ACCUMULATE_F32 ? sizeof(float) : sizeof(int64_t);
	struct agent_transfer *t;

	if (s->sending && strcmp(s->target, p->top) != 0) {
		s->sending = false; /* that one was lost, perhaps without a word */
		s->next_ms = 0;
	}
	if (s->sending || trib_clock_ms() < s->next_ms || !p->top_url[0] ||
	    !job->agent->key_known || !agent_carved(job)) {
		return;
	}
	t = agent_transfer_new(job->agent, on_sent);
	if (!t) {
		s->next_ms = trib_clock_ms() + RETRY_MAX_MS;
		return;
	}
	t->fd = fcntl(s->partial.fd, F_DUPFD_CLOEXEC, 3);
	t->offset =
		(uint64_t)((uint8_t *)trib_partial_accumulator(&s->partial) - s->partial.memory);
	t->bytes = job->elements * unit;
	t->round = s->round;
	t->part = s->part;
	t->url_count = 1;
	t->peer = (struct trib_peer){ .kind = TRIB_PEER_PARTIAL,
				      .round = s->round,
				      .part = s->part,
				      .accumulate = job->accumulate,
				      .scale_bits = job->scale_bits,
				      .updates = s->totals.updates,
				      .weight = s->totals.weight,
				      .elements = job->elements,
				      .bytes = t->bytes };
	memcpy(t->job, job->id, sizeof(t->job));
	memcpy(t->url[0], p->top_url, sizeof(t->url[0]));
	memcpy(t->to, p->top, sizeof(t->to));
	memcpy(t->peer.to, p->top, sizeof(t->peer.to));
	memcpy(t->peer.from, s->node, sizeof(t->peer.from));
	memcpy(t->peer.boot, s->boot, sizeof(t->peer.boot));
	if (t->fd < 0 || trib_id_parse("job_", job->id, &t->peer.job) || agent_transfer_sum(t)) {
		s->next_ms = trib_clock_ms() + RETRY_MAX_MS;
		agent_transfer_free(t);
		return;
	}
	s->sending = true;
	memcpy(s->target, p->top, sizeof(s->target));
}

/* ---- merging ---- */

/* A number costs the function a place among its children once in its life: they come again with
 * every round. */
static bool needs_place(const struct agent_peers *p, const struct agent_sum *s)
{
	uint32_t number = s->index - AGENT_INDEX_IMPORT;

	return !s->import || number >= AGENT_NUMBERS_MAX ||
	       !(p->numbers[number / 64] >> (number % 64) & 1);
}

static void note_place(struct agent_peers *p, const struct agent_sum *s)
{
	uint32_t number = s->index - AGENT_INDEX_IMPORT;

	p->given += needs_place(p, s);
	if (s->import && number < AGENT_NUMBERS_MAX) {
		p->numbers[number / 64] |= 1ull << (number % 64);
	}
}

int agent_peers_equip(struct agent_job *job)
{
	struct agent_peers *p = &job->peers;
	uint64_t life = job->fns[AGENT_TOP].spawned_ns;

	if (p->given_life != life) {
		p->given_life = life;
		p->given = 0;
		memset(p->numbers, 0, sizeof(p->numbers));
	}
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = p->sums[i];
		int rc;

		if (!held(job, s) || !s->index || s->given == life ||
		    (p->given >= CHILDREN_LIFE && needs_place(p, s))) {
			continue;
		}
		rc = agent_fn_give_child(&job->fns[AGENT_TOP], s->index, s->partial.fd);
		if (rc) {
			return rc;
		}
		s->given = life;
		note_place(p, s);
	}
	return 0;
}

void agent_peers_nacked(struct agent_job *job, uint32_t index)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		if (job->peers.sums[i] && job->peers.sums[i]->index == index) {
			job->peers.sums[i]->given = 0;
			job->peers.sums[i]->sent = 0;
		}
	}
}

/* Is the sum of function `index` in this one, or in that of a function which is? */
static bool is_in(const struct agent_job *job, const struct agent_sum *s, uint32_t index)
{
	if (trib_partial_folded(&s->partial, TRIB_ITEM_PARTIAL | index, s->round)) {
		return true;
	}
	for (uint32_t i = AGENT_TOP + 1; i <= job->fn_high; i++) {
		if (agent_tree_holds(job, i) &&
		    trib_partial_folded(&s->partial, TRIB_ITEM_PARTIAL | i, s->round) &&
		    trib_partial_folded(&job->fns[i].partial, TRIB_ITEM_PARTIAL | index,
					s->round)) {
			return true;
		}
	}
	return false;
}

/* An own sum went back into function 1: functions whose sums it holds must not count beside it.
 * Leaves of middles first: an agent killed on the way must find each of them in something. */
static void drop_functions(struct agent_job *job, const struct agent_sum *s)
{
	for (int direct = 0; direct < 2; direct++) {
		for (uint32_t i = AGENT_TOP + 1; i <= job->fn_high; i++) {
			bool is_direct =
				trib_partial_folded(&s->partial, TRIB_ITEM_PARTIAL | i, s->round);

			if (is_direct == (direct == 1) && is_in(job, s, i)) {
				agent_fn_stop(&job->fns[i]);
				agent_fn_drop_partial(&job->fns[i]);
			}
		}
	}
}

static void let_go_of_merged(struct agent_job *job)
{
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (!s || s->merged || s->round != job->round || !in_top(job, s)) {
			continue;
		}
		if (!s->import) {
			drop_functions(job, s);
			agent_sum_drop(job, s);
			continue;
		}
		s->merged = true;
		forget_memory(job, s);
	}
}

static int merge(struct agent_job *job, struct agent_sum *s)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];
	struct trib_descriptor partial = { .kind = TRIB_DESC_PARTIAL,
					   .round = job->round,
					   .slot = s->index,
					   .sent_us = trib_descriptor_now_us() };
	int rc;

	if (s->sent == top->spawned_ns) {
		return 0;
	}
	rc = agent_fn_send(top, &partial);
	if (!rc) {
		s->sent = top->spawned_ns;
	}
	return rc;
}

/* Function 1 merges what this node holds beside it. True when nothing is left. */
static bool pull(struct agent_job *job)
{
	uint32_t under_way = 0;

	if (agent_round_ready(job, AGENT_TOP)) {
		return false;
	}
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (held(job, s) && !s->import && !s->index) {
			s->index = AGENT_INDEX_EXPORT + s->part;
			trib_partial_renumber(&s->partial, s->index);
		}
	}
	if (agent_peers_equip(job)) {
		return false;
	}
	for (uint32_t i = 0; i < AGENT_SUMS_MAX && under_way < AGENT_PULL_MAX; i++) {
		struct agent_sum *s = job->peers.sums[i];

		if (!held(job, s) || !s->index) {
			continue;
		}
		if (s->given != job->fns[AGENT_TOP].spawned_ns) { /* it has enough children */
			if (under_way == 0) {
				agent_fn_stop(&job->fns[AGENT_TOP]);
			}
			return false;
		}
		under_way++;
		if (merge(job, s)) {
			return false;
		}
	}
	return under_way == 0;
}

bool agent_peers_gather(struct agent_job *job)
{
	struct agent_peers *p = &job->peers;
	struct agent_sum *s;
	uint32_t exports;

	p->waits = false;
	let_go_of_merged(job);
	if (!p->top[0]) {
		p->waits = true; /* nobody can be elected: the next answer may tell */
		return false;
	}
	if ((is_top(job) ? agent_peers_held(job).updates > 0 : must_merge(job)) && !pull(job)) {
		return false;
	}
	let_go_of_merged(job);
	if (is_top(job)) {
		p->waits = job->expected != p->updates || job->weight_expected != p->weight ||
			   !agent_models_ready(job);
		return !p->waits;
	}
	s = only_export(job, &exports);
	if (!s) {
		if (!top_has_sum(job) || agent_carve(job)) {
			return false;
		}
		s = only_export(job, &exports);
	}
	job->phase = AGENT_EXPORTING;
	if (s) {
		send_sum(job, s);
	}
	return false;
}

void agent_peers_tick(struct agent_job *job, uint64_t now_ms)
{
	uint32_t exports;
	struct agent_sum *s = only_export(job, &exports);

	if (job->phase == AGENT_EXPORTING && s && exports == 1) {
		send_sum(job, s);
	}
	for (uint32_t i = 0; i < AGENT_SUMS_MAX; i++) {
		s = job->peers.sums[i];
		if (s && s->import && s->complete && !s->moved && !s->calling &&
		    now_ms >= s->next_ms) {
			agent_import_claim(job, s);
		}
	}
}

/* ---- after a restart ---- */

static bool belongs(const struct agent_job *job, const struct trib_partial *partial)
{
	const struct trib_partial_header *h = trib_partial_header(partial);

	return h->job_index == job->index &&
	       strncmp(h->boot, job->segment.header.boot, TRIB_BOOT_SIZE) == 0 &&
	       partial->elements * sizeof(float) == job->segment.header.payload_size &&
	       trib_partial_state(partial) == TRIB_PARTIAL_SEALED;
}

/* The former agent was killed between the two names of one memfd: it has left function 1. */
static void drop_twin(struct agent_job *job, const struct agent_sum *s)
{
	struct agent_fn *top = &job->fns[AGENT_TOP];
	struct stat a;
	struct stat b;

	if (top->has_partial && fstat(top->partial.fd, &a) == 0 && fstat(s->partial.fd, &b) == 0 &&
	    a.st_ino == b.st_ino && a.st_dev == b.st_dev) {
		agent_fn_drop_partial(top);
	}
}

void agent_peers_adopt(struct agent *agent, const char *name, int fd)
{
	bool import = name[0] == 'i';
	struct trib_partial partial;
	struct agent_sum *s = NULL;
	struct agent_job *job;
	const struct trib_partial_header *h;
	char id[TRIB_JOB_ID_SIZE];
	unsigned round;

	if (trib_partial_attach(fd, true, &partial)) {
		return;
	}
	h = trib_partial_header(&partial);
	job = sscanf(name + 2, "%31[^:]:%u", id, &round) == 2 ? agent_job_find(agent, id) : NULL;
	if (!job || job->segment.data_fd < 0 || !belongs(job, &partial) || h->round != round ||
	    (import && !trib_name_valid(h->origin))) {
		log_warn("peers", "event=not-adopted name=%s", name);
		trib_partial_fini(&partial);
		return;
	}
	s = agent_sum_new(job);
	if (!s) {
		trib_partial_fini(&partial);
		return;
	}
	*s = (struct agent_sum){ .import = import,
				 .complete = import,
				 .round = h->round,
				 .part = h->part,
				 .index = h->index >= AGENT_INDEX_EXPORT ? h->index : 0,
				 .partial = partial,
				 .totals = trib_partial_totals(&partial) };
	(void)snprintf(s->node, sizeof(s->node), "%.63s", import ? h->origin : agent->options.node);
	(void)snprintf(s->boot, sizeof(s->boot), "%.31s", import ? h->origin_boot : h->boot);
	agent->arena_used += partial.size;
	job->reserved_bytes += partial.size;
	if (!import) {
		drop_twin(job, s);
		job->peers.part = s->part >= job->peers.part ? s->part + 1 : job->peers.part;
	}
	log_info("peers", "event=adopted name=%s updates=%llu", name,
		 (unsigned long long)s->totals.updates);
}
