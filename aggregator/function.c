/* SPDX-License-Identifier: Apache-2.0 */
#include "aggregator/function.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "aggregator/ahead.h"
#include "aggregator/fold.h"
#include "aggregator/follow.h"
#include "aggregator/job.h"
#include "aggregator/norm.h"
#include "aggregator/rules/rules.h"
#include "common/clock.h"
#include "common/log.h"
#include "shm/descriptor_check.h"
#include "shm/link.h"
#include "shm/out.h"

#define RECEIVE_MAX   64u  /* descriptors of one turn */
#define MESSAGES_MAX  256u /* control messages of one turn */
#define SEND_TRIES    100
#define SEND_WAIT_MS  100
#define UPDATE_DENSE  0
#define UPDATE_F32    0
#define EXIT_GOING_ON (-1)
#define MORE_WAIT_NS  2000000 /* for updates that were announced, so that they share a pass */

struct batch {
	uint32_t count;
	struct trib_partial_item items[TRIB_FOLD_MAX];
	struct agg_input inputs[TRIB_FOLD_MAX];
	struct trib_descriptor asked[TRIB_FOLD_MAX];
};

struct function {
	int data_fd;
	int control_fd; /* -1 after its end of file */
	int status;     /* EXIT_GOING_ON, or the exit status */
	struct agg_job job;
	const struct agg_kernels *kernels;
	const struct agg_rule *rule;
	struct trib_descriptor_reader reader;
	struct batch batch;
	struct agg_follow follow; /* never together with a batch */
	enum agg_follow_state follow_state;
	struct agg_ahead ahead;
	uint64_t cpu_ns; /* of this process, when last told */
	bool more;       /* the last update said that others follow */
};

/* ---- answers ---- */

static void send_to(struct function *f, struct trib_descriptor *d)
{
	int rc = -EAGAIN;

	d->job = f->job.job_index;
	d->source = (uint16_t)f->job.route_index;
	d->sent_us = trib_descriptor_now_us();
	trib_descriptor_seal(d);
	for (int i = 0; i < SEND_TRIES && f->status == EXIT_GOING_ON; i++) {
		struct pollfd wait = { .fd = f->data_fd, .events = POLLOUT };

		rc = trib_descriptor_send(f->data_fd, d);
		if (rc != -EAGAIN) {
			break;
		}
		(void)poll(&wait, 1, SEND_WAIT_MS);
	}
	if (rc && f->status == EXIT_GOING_ON) {
		/* What it has done is in the partial; a successor answers again. */
		log_warn("function", "send failed rc=%d", rc);
		f->status = rc == -EPIPE || rc == -ECONNRESET ? 0 : 1;
	}
}

static void answer(struct function *f, enum trib_descriptor_kind kind,
		   const struct trib_descriptor *asked, uint16_t reason)
{
	struct trib_descriptor d = *asked;

	d.kind = (uint8_t)kind;
	d.flags = asked->kind;
	d.route = TRIB_ROUTE(f->job.job_index, 0);
	d.tag = reason;
	send_to(f, &d);
}

static void acknowledge(struct function *f, const struct trib_descriptor *asked)
{
	answer(f, TRIB_DESC_ACK, asked, 0);
}

static void refuse(struct function *f, const struct trib_descriptor *asked,
		   enum trib_nack_reason reason)
{
	log_debug("function", "nack kind=%u slot=%u gen=%u round=%u reason=%d", asked->kind,
		  asked->slot, asked->gen, asked->round, (int)reason);
	answer(f, TRIB_DESC_NACK, asked, (uint16_t)reason);
}

/* ---- folding ---- */

static struct agg_folder folder_of(struct function *f)
{
	return (struct agg_folder){
		.kernels = f->kernels,
		.partial = &f->job.own,
		.scale_bits = f->job.scale_bits,
		.delay_us = f->job.test_delay_us,
		.poison = f->job.test_poison,
	};
}

/* How the whole model is made, but for the totals; no `out`: what it takes is not here. */
static struct agg_finish finish_of(const struct function *f)
{
	const struct agg_job *job = &f->job;
	bool able = job->out && (job->input_weights || job->base);

	return (struct agg_finish){
		.kernels = f->kernels,
		.sums = &job->own,
		.scale_bits = job->scale_bits,
		.divisor = job->divisor,
		.lr = job->lr,
		.base = job->input_weights || !job->base ? NULL : job->base + job->own.first,
		.out = able ? job->out + job->own.first : NULL,
		.count = job->own.elements,
	};
}

/* Where it is said how far the model is, for those who follow (shm/out.h). A lane has a part of it
 * only: NULL, nobody follows. */
static uint64_t *word_of(const struct function *f)
{
	return f->job.own.lanes == 1 ? f->job.out_word : NULL;
}

static uint32_t own_round(const struct function *f)
{
	return trib_partial_header(&f->job.own)->round;
}

/* A sealed child of this round, or NULL. */
static const struct trib_partial *sealed_child(const struct function *f, uint32_t index,
					       uint32_t round)
{
	const struct trib_partial *child = agg_job_child(&f->job, index);

	if (!child || trib_partial_state(child) != TRIB_PARTIAL_SEALED ||
	    trib_partial_header(child)->round != round) {
		return NULL;
	}
	return child;
}

/* Where the data of a journaled item lies now: false when it is not (yet) there. */
static bool find_input(const struct function *f, const struct trib_partial_item *item,
		       struct agg_input *ret_input)
{
	struct agg_input input = { .weight = item->weight };

	if (item->slot & TRIB_ITEM_PARTIAL) {
		const struct trib_partial *child =
			sealed_child(f, item->slot & ~TRIB_ITEM_PARTIAL, item->gen);

		if (!child) {
			return false;
		}
		input.partial = true;
		input.data = item->updates ? trib_partial_accumulator(child) : NULL;
	} else {
		input.data = agg_job_update(&f->job, item->slot, item->gen);
		if (!input.data) {
			return false;
		}
	}
	*ret_input = input;
	return true;
}

static void acknowledge_item(struct function *f, const struct trib_partial_item *item)
{
	bool partial = (item->slot & TRIB_ITEM_PARTIAL) != 0;
	struct trib_descriptor asked = {
		.kind = partial ? TRIB_DESC_PARTIAL : TRIB_DESC_UPDATE,
		.round = own_round(f),
		.slot = item->slot & ~TRIB_ITEM_PARTIAL,
		.gen = item->gen,
		.weight = item->weight,
		.updates = item->updates,
		.bytes = f->job.elements * sizeof(float),
	};

	acknowledge(f, &asked);
}

/* Carries on what a predecessor was killed in. 0: nothing is under way (any more); -EAGAIN: what
 * the op needs has not been given. */
static int resume(struct function *f)
{
	const struct trib_partial_header *h;
	struct trib_partial_item items[TRIB_OP_MAX];
	struct agg_input inputs[TRIB_OP_MAX];
	struct agg_folder folder = folder_of(f);
	uint32_t count;

	if (!agg_job_ready(&f->job)) {
		return -EAGAIN;
	}
	if (!trib_partial_op_active(&f->job.own)) {
		return 0;
	}
	h = trib_partial_header(&f->job.own);
	count = h->op_count;
	if (count == 0 || count > TRIB_OP_MAX) {
		return -EAGAIN; /* garbage: only a RESET helps */
	}
	memcpy(items, h->op, sizeof(items));
	if (__atomic_load_n(&h->cursor, __ATOMIC_ACQUIRE) >= trib_partial_chunks(&f->job.own)) {
		trib_partial_end(&f->job.own);
	} else {
		for (uint32_t i = 0; i < count; i++) {
			if (!find_input(f, &items[i], &inputs[i])) {
				return -EAGAIN;
			}
		}
		if (trib_partial_back(&f->job.own)) {
			agg_fold_back(&folder, inputs, count);
			log_info("function", "op taken out items=%u round=%u", count, own_round(f));
			return 0;
		}
		agg_fold_run(&folder, inputs, count, trib_partial_resume(&f->job.own));
	}
	log_info("function", "resumed op items=%u round=%u", count, own_round(f));
	for (uint32_t i = 0; i < count; i++) {
		acknowledge_item(f, &items[i]);
	}
	return 0;
}

static void account(struct function *f, uint64_t took, uint32_t count, bool merged)
{
	struct trib_partial_stats *stats = &trib_partial_header(&f->job.own)->stats;
	struct timespec cpu;

	if (merged) {
		stats->partials += count;
		stats->merge_ns += took;
	} else {
		stats->updates += count;
		stats->passes++;
		stats->fold_ns += took;
	}
	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu) == 0) {
		uint64_t now = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;

		stats->cpu_ns += now - f->cpu_ns;
		f->cpu_ns = now;
	}
}

static void batch_fold(struct function *f)
{
	struct batch *batch = &f->batch;
	struct agg_folder folder = folder_of(f);
	uint32_t count = batch->count;
	uint64_t began = trib_clock_ns();
	bool merged = false;

	batch->count = 0;
	f->more = false;
	if (count == 0) {
		return;
	}
	if (trib_partial_begin(&f->job.own, batch->items, count)) {
		for (uint32_t i = 0; i < count; i++) {
			refuse(f, &batch->asked[i], TRIB_NACK_ROUND);
		}
		return;
	}
	agg_fold_run(&folder, batch->inputs, count, 0);
	for (uint32_t i = 0; i < count; i++) {
		merged |= batch->inputs[i].partial;
	}
	account(f, trib_clock_ns() - began, count, merged);
	for (uint32_t i = 0; i < count; i++) {
		acknowledge(f, &batch->asked[i]);
	}
}

/* Enters one input; one that was folded before is acknowledged again, not folded. */
static void batch_add(struct function *f, const struct trib_descriptor *d,
		      const struct trib_partial_item *item)
{
	struct batch *batch = &f->batch;
	struct agg_input input;

	for (uint32_t i = 0; i < batch->count; i++) {
		if (batch->items[i].slot == item->slot && batch->items[i].gen == item->gen) {
			batch_fold(f);
		}
	}
	if (trib_partial_folded(&f->job.own, item->slot, item->gen)) {
		acknowledge(f, d);
		return;
	}
	if (trib_partial_state(&f->job.own) == TRIB_PARTIAL_SEALED) {
		refuse(f, d, TRIB_NACK_ROUND);
		return;
	}
	if (!find_input(f, item, &input)) {
		refuse(f, d, TRIB_NACK_STALE);
		return;
	}
	batch->items[batch->count] = *item;
	batch->inputs[batch->count] = input;
	batch->asked[batch->count] = *d;
	batch->count++;
	if (batch->count == TRIB_FOLD_MAX) {
		batch_fold(f);
	}
}

/* ---- following (follow.h) ---- */

/* The group was of no use: what of it is committed is folded from the slots, as if it had never
 * been followed. */
static void follow_drop(struct function *f)
{
	uint32_t count = f->follow.count;

	f->follow.count = 0;
	if (count == 0) {
		return;
	}
	trib_partial_header(&f->job.own)->stats.follow_dropped++;
	for (uint32_t i = 0; i < count; i++) {
		const struct agg_follow_member *m = &f->follow.members[i];
		struct trib_partial_item item = { .slot = m->slot,
						  .gen = m->gen,
						  .updates = m->asked.updates,
						  .weight = m->asked.weight };

		if (m->committed) {
			batch_add(f, &m->asked, &item);
		}
	}
	batch_fold(f);
}

/* Every slot has been in its member's generation all along: it still is, and committed. */
static bool follow_proved(const struct function *f)
{
	for (uint32_t i = 0; i < f->follow.count; i++) {
		const struct agg_follow_member *m = &f->follow.members[i];

		if (!agg_job_update(&f->job, m->slot, m->gen)) {
			return false;
		}
	}
	return true;
}

static void follow_keep(struct function *f)
{
	struct agg_folder folder = folder_of(f);
	uint32_t count = f->follow.count;

	if (!follow_proved(f) || agg_follow_keep(&f->follow, &folder)) {
		follow_drop(f);
		return;
	}
	agg_ahead_kept(&f->ahead, &f->follow, &f->job.own);
	f->follow.count = 0;
	trib_partial_header(&f->job.own)->stats.follow_kept += count;
	account(f, f->follow.fold_ns, count, false);
	log_debug("function",
		  "followed count=%u runs=%u passes=%u folded=%u fold_us=%llu waited_us=%llu",
		  count, f->follow.runs, f->follow.passes, f->follow.folded,
		  (unsigned long long)f->follow.fold_ns / 1000,
		  (unsigned long long)(trib_clock_ns() - f->follow.waits_ns) / 1000);
	for (uint32_t i = 0; i < count; i++) {
		acknowledge(f, &f->follow.members[i].asked);
	}
}

static void follow_turn(struct function *f)
{
	struct agg_folder folder = folder_of(f);
	struct agg_finish how = finish_of(f);

	f->follow_state = agg_follow_step(&f->follow, &f->job, &folder, trib_clock_ns());
	if (f->follow_state != AGG_FOLLOW_LOST &&
	    (f->job.input_weights || f->job.base_version == f->follow.base)) {
		agg_ahead_step(&f->ahead, &f->follow, f->rule, &how, word_of(f));
	}
	if (f->follow_state == AGG_FOLLOW_WHOLE) {
		follow_keep(f);
	} else if (f->follow_state == AGG_FOLLOW_LOST) {
		follow_drop(f);
	}
}

/* An update that came while a group is followed belongs to it, whether it was followed or not.
 * False: to be folded as ever. */
static bool follow_took(struct function *f, const struct trib_descriptor *d)
{
	uint64_t now = trib_clock_ns();

	if (f->follow.count == 0) {
		return false;
	}
	if (agg_follow_knows(&f->follow, d->slot, d->gen)
		    ? agg_follow_commit(&f->follow, d, now)
		    : agg_follow_add(&f->follow, &f->job, d, now)) {
		return true;
	}
	follow_drop(f);
	return false;
}

/* Only a hint: what cannot be followed is folded when it is committed. */
static void on_follow(struct function *f, const struct trib_descriptor *d)
{
	if (d->tag) {
		f->follow.last_call = f->follow.count > 0;
		return;
	}
	if (d->dtype != UPDATE_F32 || d->encoding != UPDATE_DENSE || d->weight == 0 ||
	    d->bytes != f->job.elements * sizeof(float) || (d->slot & TRIB_ITEM_PARTIAL) ||
	    d->round != own_round(f) || f->batch.count ||
	    trib_partial_state(&f->job.own) != TRIB_PARTIAL_EMPTY) {
		return;
	}
	if (agg_follow_add(&f->follow, &f->job, d, trib_clock_ns())) {
		trib_partial_header(&f->job.own)->stats.followed++;
	}
}

/* ---- descriptors ---- */

static void on_update(struct function *f, const struct trib_descriptor *d)
{
	struct trib_partial_item item = {
		.slot = d->slot,
		.gen = d->gen,
		.updates = d->updates,
		.weight = d->weight,
	};

	if (d->dtype != UPDATE_F32 || d->encoding != UPDATE_DENSE || d->weight == 0 ||
	    d->updates == 0 || d->bytes != f->job.elements * sizeof(float) ||
	    (d->slot & TRIB_ITEM_PARTIAL)) {
		refuse(f, d, TRIB_NACK_INVALID);
	} else if (d->round != own_round(f)) {
		refuse(f, d, TRIB_NACK_ROUND);
	} else if (!follow_took(f, d)) {
		batch_add(f, d, &item);
		f->more = f->batch.count && d->tag;
	}
}

static void on_partial(struct function *f, const struct trib_descriptor *d)
{
	struct trib_partial_item item = { .slot = d->slot | TRIB_ITEM_PARTIAL, .gen = d->round };
	const struct trib_partial *child;
	struct trib_partial_totals totals;

	if (d->slot & TRIB_ITEM_PARTIAL) {
		refuse(f, d, TRIB_NACK_INVALID);
		return;
	}
	if (d->round != own_round(f)) {
		refuse(f, d, TRIB_NACK_ROUND);
		return;
	}
	if (trib_partial_folded(&f->job.own, item.slot, item.gen)) {
		acknowledge(f, d); /* whatever has become of the child since */
		return;
	}
	child = agg_job_child(&f->job, d->slot);
	if (!child) {
		refuse(f, d, TRIB_NACK_UNKNOWN);
		return;
	}
	if (!sealed_child(f, d->slot, d->round)) {
		refuse(f, d, TRIB_NACK_STALE);
		return;
	}
	totals = trib_partial_totals(child); /* the truth; the descriptor is a hint */
	if (totals.updates > UINT32_MAX) {
		refuse(f, d, TRIB_NACK_INVALID);
		return;
	}
	item.updates = (uint32_t)totals.updates;
	item.weight = totals.weight;
	batch_add(f, d, &item);
}

static void on_flush(struct function *f, const struct trib_descriptor *d)
{
	/* Keys of job 0 and plain indices are the same numbers; other keys are all above. */
	uint32_t key =
		d->slot < TRIB_ROUTES_PER_JOB ? TRIB_ROUTE(f->job.job_index, d->slot) : d->slot;
	struct trib_partial_totals totals;
	struct trib_descriptor out = { .kind = TRIB_DESC_PARTIAL };

	if (key / TRIB_ROUTES_PER_JOB != f->job.job_index) {
		refuse(f, d, TRIB_NACK_INVALID);
		return;
	}
	if (d->round != own_round(f)) {
		refuse(f, d, TRIB_NACK_ROUND);
		return;
	}
	trib_partial_seal(&f->job.own);
	totals = trib_partial_totals(&f->job.own);
	out.route = key;
	out.round = d->round;
	out.base = d->base;
	out.slot = f->job.own.index;
	out.gen = d->round;
	out.weight = totals.weight;
	out.updates = (uint32_t)totals.updates;
	out.bytes = f->job.own.elements *
		    (f->job.accumulate == TRIB_ACCUMULATE_F32 ? sizeof(float) : sizeof(int64_t));
	send_to(f, &out);
}

static void on_model(struct function *f, const struct trib_descriptor *d)
{
	struct agg_finish finish = finish_of(f);
	struct trib_descriptor echo = *d;
	uint64_t began = trib_clock_ns();

	if (d->round != own_round(f)) {
		refuse(f, d, TRIB_NACK_ROUND);
		return;
	}
	if (!finish.out || (!f->job.input_weights && d->base != f->job.base_version)) {
		refuse(f, d, TRIB_NACK_UNKNOWN);
		return;
	}
	trib_partial_seal(&f->job.own); /* what comes after the model must not look counted */
	finish.totals = trib_partial_totals(&f->job.own);
	finish.from = agg_ahead_done(&f->ahead, &finish);
	finish.count -= finish.from;
	trib_partial_header(&f->job.own)->stats.ahead += finish.from > 0;
	if (!finish.from) {
		trib_out_anew(word_of(f));
	}
	if (f->rule->finish(&finish)) {
		refuse(f, d, TRIB_NACK_INVALID);
		return;
	}
	trib_out_made(word_of(f), trib_partial_chunks(&f->job.own));
	log_debug("function", "finished ahead=%llu took_us=%llu", (unsigned long long)finish.from,
		  (unsigned long long)(trib_clock_ns() - began) / 1000);
	echo.weight = finish.totals.weight;
	echo.updates = (uint32_t)finish.totals.updates;
	if (d->tag) {
		double norm = agg_mean_norm(&finish);

		memcpy(&echo.bytes, &norm, sizeof(norm));
	}
	answer(f, TRIB_DESC_ACK, &echo, d->tag);
}

static void on_descriptor(struct function *f, const struct trib_descriptor *d)
{
	if (!f->job.known) {
		log_warn("function", "descriptor before its job kind=%u", d->kind);
		return; /* no hub to answer to */
	}
	if (!trib_descriptor_valid(d) || d->job != f->job.job_index) {
		refuse(f, d, TRIB_NACK_INVALID);
		return;
	}
	if (d->kind != TRIB_DESC_UPDATE && d->kind != TRIB_DESC_FOLLOW) {
		follow_drop(f);
	}
	if (d->kind != TRIB_DESC_UPDATE && d->kind != TRIB_DESC_PARTIAL &&
	    d->kind != TRIB_DESC_FOLLOW) {
		batch_fold(f);
	}
	if (d->kind == TRIB_DESC_STOP) {
		f->status = 0;
		return;
	}
	if (d->kind == TRIB_DESC_FOLLOW) {
		if (agg_job_ready(&f->job) && resume(f) == 0) {
			on_follow(f, d);
		}
		return;
	}
	if (!agg_job_ready(&f->job)) {
		refuse(f, d, TRIB_NACK_UNKNOWN);
		return;
	}
	if (d->kind == TRIB_DESC_RESET) {
		trib_partial_reset(&f->job.own, d->round);
		acknowledge(f, d);
		return;
	}
	if (resume(f)) { /* what a predecessor left cannot be finished: only RESET goes on */
		refuse(f, d, TRIB_NACK_UNKNOWN);
		return;
	}
	switch ((enum trib_descriptor_kind)d->kind) {
	case TRIB_DESC_UPDATE:
		on_update(f, d);
		break;
	case TRIB_DESC_PARTIAL:
		on_partial(f, d);
		break;
	case TRIB_DESC_FLUSH:
		on_flush(f, d);
		break;
	case TRIB_DESC_MODEL:
		on_model(f, d);
		break;
	case TRIB_DESC_ACK:
	case TRIB_DESC_NACK:
	case TRIB_DESC_STOP:
	case TRIB_DESC_RESET:
	case TRIB_DESC_FOLLOW:
		refuse(f, d, TRIB_NACK_INVALID);
		break;
	}
}

/* ---- the loop ---- */

/* One control message: false when there is none now. */
static bool control_take(struct function *f)
{
	struct pollfd ready = { .fd = f->control_fd, .events = POLLIN };
	struct trib_fn_message message;
	uint32_t count = 0;
	int fds[4];
	int got;

	if (f->control_fd < 0 || poll(&ready, 1, 0) <= 0) {
		return false; /* polled first: the socket may be a blocking one */
	}
	got = trib_fd_receive(f->control_fd, &message, sizeof(message), fds, TRIB_COUNT(fds),
			      &count);
	if (got == -EAGAIN) {
		return false;
	}
	if (got == 0 || (got < 0 && got != -EBADMSG)) {
		f->control_fd = -1;
		if (f->data_fd < 0) {
			f->status = 0; /* a spare that nobody needs any more */
		}
		return false;
	}
	if (got != (int)sizeof(message)) {
		memset(&message, 0, sizeof(message)); /* refused below, which closes its fds */
		count = got < 0 ? 0 : count;
	}
	if (message.kind == TRIB_FN_BIND && message.magic == TRIB_FN_MAGIC && count == 1 &&
	    f->data_fd < 0) {
		f->data_fd = fds[0];
		return true;
	}
	if (message.kind == TRIB_FN_JOB || message.kind == TRIB_FN_OWN) {
		follow_drop(f); /* what it points at may go */
		batch_fold(f);
	}
	f->ahead = (struct agg_ahead){ 0 };
	got = agg_job_message(&f->job, &message, fds, count);
	if (got) {
		log_warn("function", "message refused kind=%u rc=%d", message.kind, got);
	}
	return true;
}

static void control_drain(struct function *f)
{
	for (uint32_t i = 0; i < MESSAGES_MAX && control_take(f); i++) {
	}
	(void)resume(f); /* -EAGAIN: tried again when more has come */
}

static void data_drain(struct function *f)
{
	struct trib_descriptor descriptors[RECEIVE_MAX];
	int got = trib_descriptor_receive(f->data_fd, &f->reader, descriptors, RECEIVE_MAX);

	if (got < 0) {
		f->status = got == -ENOTCONN || got == -ECONNRESET ? 0 : 1;
		return;
	}
	if (got > 0) {
		control_drain(f); /* what was said before them, even if it came since the poll */
	}
	for (int i = 0; i < got && f->status == EXIT_GOING_ON; i++) {
		on_descriptor(f, &descriptors[i]);
	}
	if (!f->more) {
		batch_fold(f);
	}
}

/* How long to sleep when nothing comes; NULL: for ever. */
static const struct timespec *patience(const struct function *f, struct timespec *t)
{
	*t = (struct timespec){ 0 };
	if (f->follow.count && f->follow_state == AGG_FOLLOW_WAIT) {
		t->tv_nsec = (long)agg_follow_pause_ns(&f->follow, trib_clock_ns());
	} else if (f->more) {
		t->tv_nsec = MORE_WAIT_NS;
	} else if (!f->follow.count) {
		return NULL;
	}
	return t;
}

int agg_function_run(int data_fd, int control_fd, uint64_t owner_start)
{
	static struct function f; /* one per process */

	f.data_fd = data_fd;
	f.control_fd = control_fd;
	f.status = EXIT_GOING_ON;
	f.kernels = agg_kernels_best();
	f.rule = agg_rule_find("fedavg");
	TRIB_ASSERT(f.rule);
	agg_job_init(&f.job, owner_start);
	while (f.status == EXIT_GOING_ON) {
		struct pollfd wait[2] = {
			{ .fd = f.control_fd, .events = POLLIN },
			{ .fd = f.data_fd, .events = POLLIN },
		};
		struct timespec t;
		int ready = ppoll(wait, 2, patience(&f, &t), NULL);

		if (ready < 0 && errno != EINTR) {
			f.status = 1;
			break;
		}
		if (ready == 0) {
			batch_fold(&f); /* they do not come: what is here waits no longer */
		}
		if (wait[0].revents) {
			control_drain(&f);
		}
		if (wait[1].revents) {
			data_drain(&f);
		}
		if (f.follow.count) {
			follow_turn(&f);
		}
	}
	agg_job_fini(&f.job);
	return f.status;
}
