/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/rounds.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/log.h"
#include "orchestrator/client_gauge.h"
#include "orchestrator/orc_metrics.h"
#include "orchestrator/placer.h"
#include "orchestrator/store_life.h"

#define BUCKETS        1024
#define POLL_MS        250
#define POLL_IDLE_MS   2000
#define LIVELY_MS      3000 /* nothing has happened for so long: idle */
#define POLL_JOBS      32   /* looked at per poll, in turn */
#define WALK_PAGE      256
#define WALK_EVERY     8 /* polls between pages when nothing hurries */
#define EMPTY_FAILS    3 /* empty failed rounds in a row before a pause */
#define EMPTY_PAUSE_MS 1000
#define PLACE_MS       2000 /* between plans of an asynchronous job */
#define DRAIN_MS       250  /* between looks at a job that drains */

struct run {
	LIST_ENTRY(run) in_bucket;
	TAILQ_ENTRY(run) in_turn;
	struct orc_rounds *rounds;
	struct trib_timer *timer; /* the deadline, or the end of a pause */
	char id[TRIB_ID_TEXT_SIZE];
	bool busy;  /* a step is under way */
	bool again; /* something happened meanwhile */
	bool dead;  /* forgotten while busy: freed at the end of the step */
	unsigned empty_fails;
	uint64_t placed_ms;       /* its plan was looked at last, monotonic */
	char *plan;               /* that plan, owned */
	uint64_t paused_until_ms; /* monotonic */
	int64_t gauged;           /* the version whose client metrics are shown */
	struct orc_job job;       /* as read last, kept up to date by our own steps; no texts */
	uint64_t opened;
	uint64_t now_ms;  /* Redis time of the last reading.. */
	uint64_t read_ms; /* ..and when that was, monotonic */
};

LIST_HEAD(run_bucket, run);
TAILQ_HEAD(run_turn, run);

struct orc_rounds {
	struct trib_loop *loop;
	struct orc_store *store;
	struct orc_leader *leader;
	struct orc_placer *placer;
	struct trib_timer *poll;
	struct run_bucket buckets[BUCKETS];
	struct run_turn turn;
	size_t count;
	size_t walk_offset;
	bool walk_hurry; /* the walk in progress is the first since orc_rounds_all */
	bool walk_busy;
	unsigned ticks;
	bool lively;        /* the poll is the fast one */
	uint64_t lively_ms; /* when something happened last */
	bool freeing;
};

static void step(struct run *run);

static void stir(struct orc_rounds *rounds)
{
	rounds->lively_ms = trib_clock_ms();
	if (!rounds->lively) {
		rounds->lively = true;
		trib_timer_every(rounds->poll, POLL_MS);
	}
}

/* ---- the table of live jobs ---- */

static struct run_bucket *bucket_of(struct orc_rounds *rounds, const char *id)
{
	uint32_t hash = 2166136261u;

	for (; *id; id++) {
		hash = (hash ^ (uint8_t)*id) * 16777619u;
	}
	return &rounds->buckets[hash % BUCKETS];
}

static struct run *find(struct orc_rounds *rounds, const char *id)
{
	struct run *run;

	LIST_FOREACH(run, bucket_of(rounds, id), in_bucket) {
		if (strcmp(run->id, id) == 0) {
			return run;
		}
	}
	return NULL;
}

static void on_timer(void *arg)
{
	step(arg);
}

static struct run *add(struct orc_rounds *rounds, const char *id)
{
	struct run *run;

	if (rounds->count >= ORC_JOBS_MAX) {
		orc_count(ORC_M_JOBS_OVERFLOW);
		log_warn("rounds", "too-many-jobs job=%s", id);
		return NULL;
	}
	run = trib_alloc(sizeof(*run));
	if (!run || trib_copy(run->id, sizeof(run->id), id) ||
	    trib_timer_new(rounds->loop, on_timer, run, &run->timer)) {
		trib_free(run);
		return NULL;
	}
	run->rounds = rounds;
	LIST_INSERT_HEAD(bucket_of(rounds, id), run, in_bucket);
	TAILQ_INSERT_TAIL(&rounds->turn, run, in_turn);
	orc_gauge(ORC_M_JOBS_LIVE, (int64_t)++rounds->count);
	return run;
}

static void run_free(struct run *run)
{
	trib_free(run->plan);
	trib_free(run);
}

/* Out of the table; memory goes at once, or when the step under way ends. */
static void drop(struct run *run)
{
	if (!run->dead) {
		run->dead = true;
		orc_client_gauge_drop(run->id);
		LIST_REMOVE(run, in_bucket);
		TAILQ_REMOVE(&run->rounds->turn, run, in_turn);
		run->timer = trib_timer_free(run->timer);
		orc_gauge(ORC_M_JOBS_LIVE, (int64_t)--run->rounds->count);
	}
	if (!run->busy) {
		run_free(run);
	}
}

/* ---- ends of steps ---- */

/* The step is over. Something may have happened meanwhile; then the next one begins. */
static void rest(struct run *run)
{
	bool again = run->again;

	run->busy = false;
	run->again = false;
	if (run->dead) {
		run_free(run);
	} else if (again) {
		step(run);
	}
}

/* A transition was done: see at once what follows from it. */
static void onward(struct run *run)
{
	stir(run->rounds);
	run->again = true;
	rest(run);
}

static bool may_act(const struct run *run)
{
	return !run->dead && !run->rounds->freeing && orc_leader_valid(run->rounds->leader);
}

/* What all answers have in common. True: the step is over. */
static bool is_over(struct run *run, const struct orc_reply *reply, const char *what)
{
	if (run->dead || reply->word == ORC_DOWN || reply->word == ORC_ERROR) {
		rest(run);
		return true;
	}
	if (reply->word == ORC_FENCED) {
		log_warn("rounds", "fenced job=%s what=%s", run->id, what);
		orc_leader_fenced(run->rounds->leader);
		rest(run);
		return true;
	}
	if (reply->word == ORC_NOJOB) {
		drop(run); /* busy: freed by rest */
		rest(run);
		return true;
	}
	return false;
}

static void rest_if(struct run *run, int rc)
{
	if (rc) { /* not sent: the poll comes back to it */
		rest(run);
	}
}

/* ---- transitions ---- */

static void on_moved(const struct orc_reply *reply, void *arg)
{
	struct run *run = arg;

	if (is_over(run, reply, "job")) {
		return;
	}
	log_info("rounds", "job-moved job=%s answer=%s", run->id, orc_word_text(reply->word));
	onward(run);
}

static void move(struct run *run, enum orc_job_state to, const char *reason)
{
	const struct orc_job_move wanted = { .job = run->id,
					     .from = orc_job_state_text(run->job.state),
					     .to = orc_job_state_text(to),
					     .reason = reason };

	rest_if(run, orc_store_job_set(run->rounds->store, orc_leader_token(run->rounds->leader),
				       &wanted, (struct orc_then){ on_moved, run }));
}

static void on_opened(const struct orc_reply *reply, void *arg)
{
	struct run *run = arg;

	if (is_over(run, reply, "open")) {
		return;
	}
	if (reply->word != ORC_OK) {
		log_info("rounds", "not-opened job=%s answer=%s", run->id,
			 orc_word_text(reply->word));
		rest(run);
		return;
	}
	run->job.round++;
	orc_count(ORC_M_ROUNDS_OPENED);
	log_debug("rounds", "opened job=%s round=%llu base=%lld", run->id,
		  (unsigned long long)run->job.round, (long long)run->job.version);
	trib_timer_after(run->timer, run->job.deadline_ms + 1);
	rest(run);
}

/* Where the clients of what is open, or about to be, shall go. */
static void place(struct run *run)
{
	uint64_t now = trib_clock_ms();

	if (!run->placed_ms || now - run->placed_ms >= PLACE_MS || !run->job.async) {
		run->placed_ms = now;
		orc_placer_plan(run->rounds->placer, &run->job, &run->plan);
	}
}

static void open_next(struct run *run)
{
	const struct orc_job *job = &run->job;
	const struct orc_round_new round = { .job = run->id,
					     .number = job->round + 1,
					     .base = job->version,
					     .goal = job->goal,
					     .quorum = job->quorum,
					     .selected_max = job->selected_max,
					     .deadline_ms = job->deadline_ms };

	place(run);
	rest_if(run, orc_store_round_open(run->rounds->store, orc_leader_token(run->rounds->leader),
					  &round, (struct orc_then){ on_opened, run }));
}

/* Running, and no round is under way. */
static void next(struct run *run)
{
	uint64_t now = trib_clock_ms();

	if (now < run->paused_until_ms) {
		trib_timer_after(run->timer, run->paused_until_ms - now);
		rest(run);
	} else {
		open_next(run);
	}
}

/* A version was published, by us or with the agent's report. now_ms: Redis' time. */
static void note_published(struct run *run, int64_t version, uint64_t now_ms)
{
	run->job.version = version;
	run->empty_fails = 0;
	orc_count(ORC_M_ROUNDS_PUBLISHED);
	orc_count(ORC_M_ROUND_COUNT);
	orc_count_by(ORC_M_ROUND_SECONDS,
		     now_ms > run->opened ? (int64_t)(now_ms - run->opened) : 0);
	log_info("rounds", "published job=%s round=%llu version=%lld", run->id,
		 (unsigned long long)orc_job_work(&run->job), (long long)version);
}

static void on_published(const struct orc_reply *reply, void *arg)
{
	struct run *run = arg;
	uint64_t now_ms = run->now_ms + (trib_clock_ms() - run->read_ms);

	if (is_over(run, reply, "publish")) {
		return;
	}
	if (reply->word != ORC_OK) {
		/* DUP, NOOP: done by a former step. NOTASK: the node was lost meanwhile. */
		log_info("rounds", "not-published job=%s round=%llu answer=%s", run->id,
			 (unsigned long long)run->job.round, orc_word_text(reply->word));
		rest(run);
		return;
	}
	note_published(run, reply->number, now_ms);
	if (orc_job_work(&run->job) < run->job.round || run->job.draining ||
	    (uint64_t)reply->number >= run->job.stop_rounds) {
		onward(run); /* the next buffer is open already, perhaps full; or it is the end */
		return;
	}
	if (run->job.state == ORC_JOB_RUNNING && may_act(run)) {
		next(run); /* at once: what it needs is known */
	} else {
		rest(run);
	}
}

static void publish(struct run *run, const struct orc_round *round)
{
	const struct orc_publication publication = { .job = run->id,
						     .number = round->number,
						     .version = round->base,
						     .digest = round->task,
						     .bytes = run->job.bytes };

	log_debug("rounds", "publishing job=%s round=%lld", run->id, (long long)round->number);
	rest_if(run, orc_store_publish(run->rounds->store, orc_leader_token(run->rounds->leader),
				       &publication, (struct orc_then){ on_published, run }));
}

static void on_deadline(const struct orc_reply *reply, void *arg)
{
	struct run *run = arg;

	if (is_over(run, reply, "deadline")) {
		return;
	}
	if (reply->word != ORC_FAILED) {
		rest(run); /* EARLY, NOOP: the next reading tells; CLOSING: the agent's turn */
		return;
	}
	log_info("rounds", "round-failed job=%s round=%llu accepted=%lld", run->id,
		 (unsigned long long)run->job.round, reply->number);
	orc_count(ORC_M_ROUNDS_FAILED);
	run->empty_fails = reply->number == 0 ? run->empty_fails + 1 : 0;
	if (run->empty_fails >= EMPTY_FAILS) {
		run->paused_until_ms = trib_clock_ms() + EMPTY_PAUSE_MS;
	}
	if (run->job.state == ORC_JOB_RUNNING && may_act(run)) {
		next(run);
	} else {
		rest(run);
	}
}

static void close_round(struct run *run, const struct orc_round *round)
{
	const struct orc_round_close wanted = { .job = run->id, .number = round->number };

	rest_if(run, orc_store_deadline(run->rounds->store, orc_leader_token(run->rounds->leader),
					&wanted, (struct orc_then){ on_deadline, run }));
}

/* ---- the end ---- */

static void on_drained(const struct orc_reply *reply, void *arg)
{
	struct run *run = arg;

	if (is_over(run, reply, "drain")) {
		return;
	}
	if (reply->word == ORC_EARLY) {
		trib_timer_after(run->timer, DRAIN_MS);
	}
	if (reply->word == ORC_OK || reply->word == ORC_SAME) {
		log_info("rounds", "draining-or-over job=%s", run->id);
		onward(run);
	} else {
		rest(run); /* EARLY: clients are out; CLOSING: the agent's turn */
	}
}

static void drain(struct run *run, const char *why)
{
	const struct orc_job_move wanted = { .job = run->id, .to = "finished", .reason = why };

	rest_if(run, orc_store_job_drain(run->rounds->store, orc_leader_token(run->rounds->leader),
					 &wanted, (struct orc_then){ on_drained, run }));
}

/* Does the job end, or go on to its end? Then the step is taken care of. */
static bool ends(struct run *run, const struct orc_view *view)
{
	const struct orc_job *job = &view->job;
	bool open = view->round.state == ORC_ROUND_OPEN;

	if (job->draining && view->round.state != ORC_ROUND_CLOSING) {
		rest_if(run, orc_store_drain_step(run->rounds->store,
						  orc_leader_token(run->rounds->leader), run->id,
						  (struct orc_then){ on_drained, run }));
	} else if (!job->draining && job->stop_at && view->now_ms >= job->stop_at) {
		drain(run, "stop.seconds: the time is over");
	} else if (!job->draining && job->stop_why && job->stop_why[0] && open && !job->async) {
		drain(run, job->stop_why);
	} else if (!job->draining && job->stop_why && job->stop_why[0] &&
		   (job->async || view->round.state != ORC_ROUND_CLOSING)) {
		move(run, ORC_JOB_FINISHED, job->stop_why);
	} else {
		return false;
	}
	return true;
}

/* The timer for what comes first: `at` or the end of the job's time. */
static void look_again(struct run *run, const struct orc_view *view, uint64_t at)
{
	uint64_t stop = view->job.draining ? 0 : view->job.stop_at;

	at = stop && stop < at ? stop : at;
	trib_timer_after(run->timer, at > view->now_ms ? at - view->now_ms + 1 : 1);
}

/* ---- steps ---- */

static void decide_round(struct run *run, const struct orc_view *view)
{
	const struct orc_round *round = &view->round;

	switch (round->state) {
	case ORC_ROUND_NONE:
	case ORC_ROUND_PUBLISHED:
	case ORC_ROUND_FAILED:
		if (run->job.state == ORC_JOB_RUNNING) {
			next(run);
			return;
		}
		break;
	case ORC_ROUND_OPEN:
		if (run->job.async || !run->placed_ms) {
			place(run); /* the other rounds had it when they were opened */
		}
		if (view->now_ms >= round->deadline) {
			close_round(run, round);
			return;
		}
		look_again(run, view, round->deadline);
		break;
	case ORC_ROUND_CLOSING:
		if (round->task[0]) {
			publish(run, round);
			return;
		}
		break;
	}
	rest(run);
}

static void on_asked(const struct orc_reply *reply, void *arg)
{
	(void)reply;
	rest(arg);
}

static void on_view(const struct orc_view *view, void *arg)
{
	struct run *run = arg;

	if (view->word == ORC_NOJOB) {
		drop(run); /* busy: freed by rest */
	}
	if (view->word != ORC_OK || !may_act(run)) {
		rest(run);
		return;
	}
	if (view->job.version != run->gauged && view->job.metrics) {
		orc_client_gauge_set(run->id, view->job.metrics);
		run->gauged = view->job.version;
	}
	if (run->read_ms && run->job.version >= 0 && view->job.version > run->job.version) {
		note_published(run, view->job.version, view->now_ms);
	}
	run->job = view->job;
	run->job.spec = NULL; /* the view's */
	run->job.reason = NULL;
	run->job.stop_why = NULL;
	run->job.metrics = NULL;
	run->opened = view->round.opened;
	run->now_ms = view->now_ms;
	run->read_ms = trib_clock_ms();
	switch (run->job.state) {
	case ORC_JOB_CREATED:
		if (run->job.version >= 0) {
			move(run, ORC_JOB_RUNNING, "");
			return;
		}
		if (run->job.wants_model) { /* a message to the agents may have got lost */
			rest_if(run, orc_store_init_ask(run->rounds->store, run->id,
							(struct orc_then){ on_asked, run }));
			return;
		}
		break;
	case ORC_JOB_RUNNING:
	case ORC_JOB_PAUSED:
		if (run->job.state == ORC_JOB_RUNNING && ends(run, view)) {
			return;
		}
		decide_round(run, view);
		return;
	case ORC_JOB_FINISHED:
	case ORC_JOB_STOPPED:
	case ORC_JOB_FAILED:
	case ORC_JOB_STATE_COUNT:
		drop(run);
		break;
	}
	rest(run);
}

static void step(struct run *run)
{
	const struct orc_view_want want = { .job = run->id,
					    .round = orc_job_work(&run->job),
					    .hint = true };

	if (run->busy) {
		run->again = true;
		return;
	}
	if (!may_act(run)) {
		return;
	}
	run->busy = orc_store_view(run->rounds->store, &want, on_view, run) == 0;
}

/* ---- finding and polling ---- */

static void on_page(enum orc_word word, const struct orc_job_ref *jobs, size_t count, void *arg)
{
	struct orc_rounds *rounds = arg;

	rounds->walk_busy = false;
	if (word != ORC_OK || rounds->freeing) {
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (!find(rounds, jobs[i].id)) {
			orc_rounds_wake(rounds, jobs[i].id);
		}
	}
	rounds->walk_offset += count;
	if (count < WALK_PAGE) {
		rounds->walk_offset = 0;
		rounds->walk_hurry = false;
	}
}

static void walk(struct orc_rounds *rounds)
{
	if (!rounds->walk_busy && orc_leader_valid(rounds->leader)) {
		rounds->walk_busy = orc_store_jobs_at(rounds->store, rounds->walk_offset, WALK_PAGE,
						      on_page, rounds) == 0;
	}
}

static void on_poll(void *arg)
{
	struct orc_rounds *rounds = arg;

	orc_gauge(ORC_M_REDIS_CONNECTED, orc_store_connected(rounds->store));
	orc_gauge(ORC_M_REDIS_OUTSTANDING, (int64_t)orc_store_outstanding(rounds->store));
	if (!orc_leader_valid(rounds->leader)) {
		return;
	}
	if (rounds->lively && !rounds->walk_hurry &&
	    trib_clock_ms() - rounds->lively_ms > LIVELY_MS) {
		rounds->lively = false;
		trib_timer_every(rounds->poll, POLL_IDLE_MS);
	}
	if (rounds->walk_hurry || ++rounds->ticks % WALK_EVERY == 0) {
		walk(rounds);
	}
	for (int i = 0; i < POLL_JOBS && (size_t)i < rounds->count; i++) {
		struct run *run = TAILQ_FIRST(&rounds->turn);

		TAILQ_REMOVE(&rounds->turn, run, in_turn);
		TAILQ_INSERT_TAIL(&rounds->turn, run, in_turn);
		if (!run->busy) {
			step(run);
		}
	}
}

void orc_rounds_wake(struct orc_rounds *rounds, const char *job)
{
	struct run *run;

	if (rounds->freeing || !orc_leader_valid(rounds->leader)) {
		return;
	}
	stir(rounds);
	run = find(rounds, job);
	if (!run) {
		run = add(rounds, job);
	}
	if (run) {
		step(run);
	}
}

void orc_rounds_forget(struct orc_rounds *rounds, const char *job)
{
	struct run *run = find(rounds, job);

	if (run) {
		drop(run);
	}
}

void orc_rounds_all(struct orc_rounds *rounds)
{
	struct run *run;

	TAILQ_FOREACH(run, &rounds->turn, in_turn) {
		step(run);
	}
	stir(rounds);
	rounds->walk_offset = 0;
	rounds->walk_hurry = true;
	walk(rounds);
}

size_t orc_rounds_live(const struct orc_rounds *rounds)
{
	return rounds->count;
}

/* ---- life ---- */

int orc_rounds_new(struct trib_loop *loop, struct orc_store *store, struct orc_leader *leader,
		   struct orc_placer *placer, struct orc_rounds **ret_rounds)
{
	struct orc_rounds *rounds = trib_alloc(sizeof(*rounds));
	int rc;

	if (!rounds) {
		return -ENOMEM;
	}
	rounds->loop = loop;
	rounds->store = store;
	rounds->leader = leader;
	rounds->placer = placer;
	TAILQ_INIT(&rounds->turn);
	rc = trib_timer_new(loop, on_poll, rounds, &rounds->poll);
	if (rc) {
		trib_free(rounds);
		return rc;
	}
	stir(rounds);
	*ret_rounds = rounds;
	return 0;
}

struct orc_rounds *orc_rounds_free(struct orc_rounds *rounds)
{
	struct run *run;

	if (!rounds) {
		return NULL;
	}
	rounds->freeing = true;
	while ((run = TAILQ_FIRST(&rounds->turn)) != NULL) {
		drop(run);
	}
	rounds->poll = trib_timer_free(rounds->poll);
	trib_free(rounds);
	return NULL;
}
