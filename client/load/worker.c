/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/worker.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "client/load/client.h"
#include "client/load/conn.h"
#include "client/load/random.h"
#include "common/clock.h"
#include "common/fd_table.h"

#define NS_PER_MS         1000000ull
#define WAKES_PER_TURN    4096
#define ARRIVALS_PER_TURN 4096

const char *const load_count_names[LOAD_COUNT] = {
#define X(name, text) [LOAD_##name] = (text),
	LOAD_COUNTS(X)
#undef X
};

const char *const load_trouble_names[LOAD_TROUBLE_COUNT] = {
#define X(name, text) [LOAD_TROUBLE_##name] = (text),
	LOAD_TROUBLES(X)
#undef X
};

/* ---- the wheel ---- */

void load_timer_stop(struct load_client *client)
{
	if (client->due_ns) {
		LIST_REMOVE(client, timer);
		client->due_ns = 0;
	}
}

void load_timer_set(struct load_worker *worker, struct load_client *client, uint64_t due_ns)
{
	uint64_t ms = due_ns / NS_PER_MS;

	load_timer_stop(client);
	ms = ms < worker->wheel_ms ? worker->wheel_ms : ms;
	client->due_ns = due_ns ? due_ns : 1;
	LIST_INSERT_HEAD(&worker->wheel[ms % LOAD_WHEEL_SLOTS], client, timer);
}

/* Timers of one slot that are due; those of later turns stay. */
static unsigned turn_slot(struct load_worker *worker, uint64_t ms, uint64_t now_ns)
{
	struct load_client *client = LIST_FIRST(&worker->wheel[ms % LOAD_WHEEL_SLOTS]);
	unsigned woken = 0;

	while (client) {
		struct load_client *next = LIST_NEXT(client, timer);

		if (client->due_ns <= now_ns) {
			load_timer_stop(client);
			load_client_wake(worker, client);
			woken++;
			/* Whatever the callback did to the list, `next` may be gone: begin again
			 * (what is not due is few). */
			next = LIST_FIRST(&worker->wheel[ms % LOAD_WHEEL_SLOTS]);
			if (woken >= WAKES_PER_TURN) {
				return woken;
			}
		}
		client = next;
	}
	return woken;
}

static void turn(struct load_worker *worker)
{
	uint64_t now_ns = trib_clock_ns();
	uint64_t now_ms = now_ns / NS_PER_MS;
	unsigned woken = 0;

	if (now_ms - worker->wheel_ms > LOAD_WHEEL_SLOTS) {
		worker->wheel_ms = now_ms - LOAD_WHEEL_SLOTS;
	}
	while (worker->wheel_ms <= now_ms && woken < WAKES_PER_TURN) {
		woken += turn_slot(worker, worker->wheel_ms, now_ns);
		if (worker->wheel_ms == now_ms || woken >= WAKES_PER_TURN) {
			break; /* this slot may still get timers */
		}
		worker->wheel_ms++;
	}
}

/* ---- arrivals ---- */

static void take_arrival(struct load_worker *worker, struct load_client *client,
			 uint64_t intended_ns)
{
	TAILQ_REMOVE(&worker->idle, client, queue);
	client->name = __atomic_fetch_add(&worker->run->named, 1, __ATOMIC_RELAXED);
	load_client_begin(worker, client, intended_ns);
}

static void arrive(struct load_worker *worker, uint64_t intended_ns)
{
	struct load_client *client = TAILQ_FIRST(&worker->idle);

	load_add(worker, LOAD_ARRIVALS, 1);
	if (client) {
		take_arrival(worker, client, intended_ns);
	} else if (worker->backlog_count < LOAD_BACKLOG_MAX) {
		worker->backlog[(worker->backlog_first + worker->backlog_count++) %
				LOAD_BACKLOG_MAX] = intended_ns;
		load_add(worker, LOAD_BACKLOG, 1);
	} else {
		load_add(worker, LOAD_ARRIVALS_LOST, 1);
	}
}

static void turn_arrivals(struct load_worker *worker)
{
	double now = (double)(int64_t)(trib_clock_ns() - worker->run->start_ns) / 1e9;

	for (unsigned i = 0; i < ARRIVALS_PER_TURN && worker->next_arrival <= now; i++) {
		arrive(worker, worker->run->start_ns + (uint64_t)(worker->next_arrival * 1e9));
		worker->next_arrival = load_arrivals_next(&worker->arrivals);
	}
}

void load_client_rest(struct load_worker *worker, struct load_client *client, bool for_good)
{
	uint64_t intended;

	if (client->state == LOAD_STATE_OVER) {
		return;
	}
	load_timer_stop(client);
	if (for_good || worker->phase != LOAD_RUNNING) {
		client->state = LOAD_STATE_OVER;
		load_conn_close(worker, client);
		load_add(worker, LOAD_OVER, 1);
		return;
	}
	client->state = LOAD_STATE_IDLE;
	TAILQ_INSERT_HEAD(&worker->idle, client, queue); /* its connection is warm */
	if (worker->backlog_count) {
		intended = worker->backlog[worker->backlog_first];
		worker->backlog_first = (worker->backlog_first + 1) % LOAD_BACKLOG_MAX;
		worker->backlog_count--;
		load_add(worker, LOAD_BACKLOG, -1);
		client = TAILQ_FIRST(&worker->idle);
		/* By the timer: the caller may be deep in this client's answer. */
		TAILQ_REMOVE(&worker->idle, client, queue);
		client->name = __atomic_fetch_add(&worker->run->named, 1, __ATOMIC_RELAXED);
		load_client_begin_soon(worker, client, intended);
	}
}

/* ---- closed loop: the clients start over the ramp ---- */

static void turn_ramp(struct load_worker *worker)
{
	const struct load_plan *plan = worker->run->plan;
	double now = (double)(int64_t)(trib_clock_ns() - worker->run->start_ns) / 1e9;
	double share = plan->ramp_s > 0 ? now / plan->ramp_s : 1;
	uint64_t until = share >= 1  ? worker->client_count
			 : share > 0 ? (uint64_t)(share * (double)worker->client_count)
				     : 0;

	for (unsigned i = 0; i < ARRIVALS_PER_TURN && worker->begun < until; i++) {
		struct load_client *client = &worker->clients[worker->begun];

		client->name = worker->index + worker->begun * plan->threads;
		worker->begun++;
		load_client_begin(worker, client, trib_clock_ns());
	}
}

/* ---- phases ---- */

static void stop_beginning(struct load_worker *worker)
{
	struct load_client *client;

	worker->phase = LOAD_DRAINING;
	while ((client = TAILQ_FIRST(&worker->starved))) {
		TAILQ_REMOVE(&worker->starved, client, queue);
		client->queued = false;
	}
	for (uint64_t i = 0; i < worker->client_count; i++) {
		client = &worker->clients[i];
		load_client_drain(worker, client);
	}
	load_add(worker, LOAD_BACKLOG, -(int64_t)worker->backlog_count);
	worker->backlog_count = 0;
}

static void on_drain(void *arg)
{
	stop_beginning(arg);
}

static void on_end(void *arg)
{
	struct load_worker *worker = arg;

	worker->phase = LOAD_ENDING;
	trib_loop_stop(worker->loop);
}

void load_worker_phase(struct load_worker *worker, enum load_phase phase)
{
	/* The queue has room for 1024, we send two. */
	TRIB_ASSERT(trib_loop_wake(worker->loop, phase == LOAD_ENDING ? on_end : on_drain,
				   worker) == 0);
}

static void on_tick(void *arg)
{
	struct load_worker *worker = arg;

	turn(worker);
	if (worker->phase != LOAD_RUNNING) {
		return;
	}
	if (worker->run->plan->arrivals == LOAD_CLOSED) {
		turn_ramp(worker);
	} else {
		turn_arrivals(worker);
	}
}

void load_conn_freed(struct load_worker *worker)
{
	struct load_client *client = TAILQ_FIRST(&worker->starved);

	if (client) {
		TAILQ_REMOVE(&worker->starved, client, queue);
		client->queued = false;
		load_timer_set(worker, client, trib_clock_ns());
	}
}

struct load_round *load_round_of(struct load_worker *worker, uint32_t round)
{
	if (round >= worker->round_count) {
		uint32_t bigger = round < 64 ? 64 : round * 2;
		struct load_round *more;

		if (round > 10000000) {
			return NULL;
		}
		more = trib_realloc(worker->rounds, bigger * sizeof(*more));
		if (!more) {
			return NULL;
		}
		memset(more + worker->round_count, 0,
		       (bigger - worker->round_count) * sizeof(*more));
		worker->rounds = more;
		worker->round_count = bigger;
	}
	return &worker->rounds[round];
}

/* ---- life ---- */

static void *run_thread(void *arg)
{
	struct load_worker *worker = arg;
	int rc = worker->run->plan->own_tables ? trib_fd_table_own() : 0;

	if (rc || trib_loop_run(worker->loop)) {
		load_bump(&worker->troubles[LOAD_TROUBLE_LOCAL]);
		load_add(worker, LOAD_ERRORS, 1);
	}
	for (uint64_t i = 0; i < worker->client_count; i++) {
		struct load_client *client = &worker->clients[i];

		worker->unresolved += client->ambiguous;
		client->queued = false; /* nobody takes it off the list any more */
		load_conn_close(worker, client);
		trib_free(client->offer);
		client->offer = NULL;
	}
	return NULL;
}

static void make_clients(struct load_worker *worker)
{
	bool open = worker->run->plan->arrivals != LOAD_CLOSED;

	for (uint64_t i = 0; i < worker->client_count; i++) {
		struct load_client *client = &worker->clients[i];

		client->name = worker->index + i * worker->run->plan->threads;
		client->rng = load_random_seed(worker->run->plan->seed, client->name);
		client->class = LOAD_CLASSES_MAX;
		client->labels = LOAD_LABELS_MAX;
		if (open) {
			client->state = LOAD_STATE_IDLE;
			TAILQ_INSERT_TAIL(&worker->idle, client, queue);
		}
	}
}

int load_worker_new(struct load_run *run, uint32_t index, struct load_worker **ret_worker)
{
	const struct load_plan *plan = run->plan;
	struct load_worker *worker = trib_alloc(sizeof(*worker));
	int rc = -ENOMEM;

	if (!worker) {
		return -ENOMEM;
	}
	worker->run = run;
	worker->index = index;
	worker->rng = load_random_seed(plan->seed ^ 0x5bd1e995, index);
	worker->client_count =
		plan->clients / plan->threads + (index < plan->clients % plan->threads);
	worker->conns_max =
		plan->conns_max / plan->threads + (index < plan->conns_max % plan->threads);
	TAILQ_INIT(&worker->idle);
	TAILQ_INIT(&worker->starved);
	worker->scratch = trib_alloc(LOAD_SCRATCH + 1);
	worker->clients = trib_alloc_array(worker->client_count, sizeof(*worker->clients));
	worker->backlog = plan->arrivals == LOAD_CLOSED
				  ? NULL
				  : trib_alloc_array(LOAD_BACKLOG_MAX, sizeof(*worker->backlog));
	if (worker->scratch && worker->clients &&
	    (worker->backlog || plan->arrivals == LOAD_CLOSED)) {
		rc = trib_loop_new(&worker->loop);
		rc = rc ? rc : trib_timer_new(worker->loop, on_tick, worker, &worker->tick);
	}
	if (rc) {
		(void)load_worker_free(worker);
		return rc;
	}
	load_arrivals_init(&worker->arrivals, plan->arrivals, plan->rate, plan->duration_s,
			   &plan->trace,
			   (struct load_share){ index, (uint32_t)plan->threads, plan->seed });
	worker->next_arrival = load_arrivals_next(&worker->arrivals);
	make_clients(worker);
	*ret_worker = worker;
	return 0;
}

int load_worker_start(struct load_worker *worker)
{
	worker->wheel_ms = trib_clock_ns() / NS_PER_MS;
	trib_timer_every(worker->tick, 1);
	return -pthread_create(&worker->thread, NULL, run_thread, worker);
}

void load_worker_join(struct load_worker *worker)
{
	if (worker->thread) {
		(void)pthread_join(worker->thread, NULL);
		worker->thread = 0;
	}
}

struct load_worker *load_worker_free(struct load_worker *worker)
{
	if (worker) {
		worker->tick = trib_timer_free(worker->tick);
		if (worker->loop) {
			trib_loop_free(worker->loop);
		}
		trib_free(worker->clients);
		trib_free(worker->backlog);
		trib_free(worker->scratch);
		trib_free(worker->rounds);
		trib_free(worker);
	}
	return NULL;
}
