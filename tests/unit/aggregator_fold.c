/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aggregator/fold.h"
#include "aggregator/sandbox.h"
#include "shm/link.h"

#define LARGE (3u * TRIB_PARTIAL_CHUNK + 77u)
#define SMALL 24u
#define SCALE 30u

static float updates[TRIB_FOLD_MAX][LARGE];

static void fill(void)
{
	uint32_t x = 12345;

	for (uint32_t j = 0; j < TRIB_FOLD_MAX; j++) {
		for (uint32_t i = 0; i < LARGE; i++) {
			x = x * 1664525u + 1013904223u;
			updates[j][i] = (float)(int32_t)x * 0x1p-31f;
		}
	}
}

static struct trib_partial make(uint32_t elements, enum trib_accumulate accumulate, uint32_t index)
{
	struct trib_partial partial;

	assert_int_equal(
		trib_partial_create("job_a", "boot_a", 3, index, elements, accumulate, &partial),
		0);
	trib_partial_reset(&partial, 1);
	return partial;
}

static void describe(struct trib_partial_item *items, struct agg_input *inputs, uint32_t from,
		     uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		items[i] = (struct trib_partial_item){ .slot = from + i,
						       .gen = 1,
						       .updates = 1,
						       .weight = (from + i + 1) * 1500000u };
		inputs[i] =
			(struct agg_input){ .data = updates[from + i], .weight = items[i].weight };
	}
}

static struct agg_folder folder_of(struct trib_partial *partial)
{
	return (struct agg_folder){ .kernels = agg_kernels_best(),
				    .partial = partial,
				    .scale_bits = SCALE };
}

/* Inputs [from, from + count) in one op, all in this process. */
static void fold(struct agg_folder *folder, uint32_t from, uint32_t count)
{
	struct trib_partial_item items[TRIB_FOLD_MAX];
	struct agg_input inputs[TRIB_FOLD_MAX];

	describe(items, inputs, from, count);
	assert_int_equal(trib_partial_begin(folder->partial, items, count), 0);
	agg_fold_run(folder, inputs, count, 0);
}

/* What a successor does. */
static void finish(struct agg_folder *folder)
{
	struct trib_partial_header *h = trib_partial_header(folder->partial);
	struct agg_input inputs[TRIB_FOLD_MAX];

	if (!trib_partial_op_active(folder->partial)) {
		return;
	}
	for (uint32_t i = 0; i < h->op_count; i++) {
		inputs[i] = (struct agg_input){ .data = updates[h->op[i].slot],
						.weight = h->op[i].weight };
	}
	agg_fold_run(folder, inputs, h->op_count, trib_partial_resume(folder->partial));
}

static void assert_same(const struct trib_partial *a, const struct trib_partial *b)
{
	size_t unit = a->accumulate == TRIB_ACCUMULATE_F32 ? 4 : 8;

	assert_memory_equal(trib_partial_accumulator(a), trib_partial_accumulator(b),
			    a->elements * unit);
	assert_int_equal(trib_partial_totals(a).updates, trib_partial_totals(b).updates);
	assert_int_equal(trib_partial_totals(a).weight, trib_partial_totals(b).weight);
	assert_int_equal(trib_partial_state(a), trib_partial_state(b));
}

struct death {
	uint32_t steps_left;
};

static void die_at(void *arg, const char *step, uint32_t chunk)
{
	struct death *death = arg;

	(void)step;
	(void)chunk;
	if (death->steps_left-- == 0) {
		(void)raise(SIGKILL);
	}
}

/* Runs one op in a child that kills itself after `steps`; true when it was killed. */
static bool fold_in_child(struct agg_folder folder, uint32_t from, uint32_t count, uint32_t steps)
{
	struct death death = { .steps_left = steps };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		folder.on_step = die_at;
		folder.arg = &death;
		fold(&folder, from, count);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

/* kill -9 after every step of the first and of a later op; the successor is killed as well. */
static void killed_at_any_step_a_successor_gives_the_same_bits(void **state)
{
	(void)state;
	for (uint32_t accumulate = 0; accumulate < 2; accumulate++) {
		struct trib_partial whole = make(LARGE, accumulate, 0);
		struct agg_folder whole_folder = folder_of(&whole);
		uint32_t killed = 0;

		fold(&whole_folder, 0, 3);
		fold(&whole_folder, 3, 5);
		for (uint32_t steps = 0;; steps++) {
			struct trib_partial p = make(LARGE, accumulate, 1);
			struct agg_folder folder = folder_of(&p);
			bool dead = fold_in_child(folder, 0, 3, steps);

			assert_int_equal(trib_partial_folded(&p, 0, 1),
					 !trib_partial_op_active(&p));
			finish(&folder);
			assert_true(trib_partial_folded(&p, 0, 1) && trib_partial_folded(&p, 2, 1));
			dead = fold_in_child(folder, 3, 5, steps) || dead;
			finish(&folder);
			assert_true(trib_partial_folded(&p, 7, 1));
			assert_same(&p, &whole);
			trib_partial_fini(&p);
			killed += dead;
			if (!dead) {
				break;
			}
		}
		assert_int_equal(killed, 1 + 4 * trib_partial_chunks(&whole) + 1);
		trib_partial_fini(&whole);
	}
}

/* The op is taken out in a child that kills itself after `steps`; true when it was killed. */
static bool back_in_child(struct agg_folder folder, uint32_t from, uint32_t count, uint32_t steps)
{
	struct death death = { .steps_left = steps };
	struct trib_partial_item items[TRIB_FOLD_MAX];
	struct agg_input inputs[TRIB_FOLD_MAX];
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		describe(items, inputs, from, count);
		folder.on_step = die_at;
		folder.arg = &death;
		agg_fold_back(&folder, inputs, count);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	return WIFSIGNALED(status);
}

/* Given up after every step, and killed at every step of being taken out. */
static void an_op_that_is_given_up_leaves_no_trace(void **state)
{
	struct trib_partial before = make(LARGE, TRIB_ACCUMULATE_EXACT, 0);
	struct trib_partial after = make(LARGE, TRIB_ACCUMULATE_EXACT, 0);
	struct agg_folder before_folder = folder_of(&before);
	struct agg_folder after_folder = folder_of(&after);
	uint32_t taken_out = 0;
	bool dead = true;

	(void)state;
	fold(&before_folder, 0, 3);
	fold(&after_folder, 0, 3);
	fold(&after_folder, 6, 2);
	for (uint32_t steps = 0; dead; steps++) {
		struct trib_partial p = make(LARGE, TRIB_ACCUMULATE_EXACT, 1);
		struct agg_folder folder = folder_of(&p);
		int rc;

		fold(&folder, 0, 3);
		dead = fold_in_child(folder, 3, 5, steps);
		rc = trib_partial_abandon(&p);
		if (rc == -EINVAL) { /* all its chunks were done */
			finish(&folder);
			assert_true(trib_partial_folded(&p, 7, 1));
		} else {
			uint32_t pause = steps % 7;

			assert_int_equal(rc, trib_partial_back(&p) ? -EAGAIN : 0);
			taken_out += rc == -EAGAIN;
			while (trib_partial_back(&p) && back_in_child(folder, 3, 5, pause)) {
				assert_int_equal(trib_partial_abandon(&p),
						 trib_partial_back(&p) ? -EAGAIN : -EINVAL);
				pause += 3; /* the next one gets further */
			}
			assert_false(trib_partial_op_active(&p));
			assert_same(&p, &before);
			assert_false(trib_partial_folded(&p, 3, 1));
			fold(&folder, 6, 2);
			assert_same(&p, &after);
			assert_true(trib_partial_folded(&p, 7, 1) &&
				    !trib_partial_folded(&p, 3, 1));
		}
		trib_partial_fini(&p);
	}
	assert_int_equal(taken_out, 4 * (trib_partial_chunks(&before) - 1));
	trib_partial_fini(&before);
	trib_partial_fini(&after);
}

/* The first op overwrites: nothing has to be taken out. */
static void a_first_op_that_is_given_up_leaves_an_empty_partial(void **state)
{
	struct trib_partial whole = make(LARGE, TRIB_ACCUMULATE_F32, 0);
	struct trib_partial p = make(LARGE, TRIB_ACCUMULATE_F32, 1);
	struct agg_folder whole_folder = folder_of(&whole);
	struct agg_folder folder = folder_of(&p);

	(void)state;
	fold(&whole_folder, 5, 3);
	assert_int_equal(trib_partial_abandon(&p), -EINVAL); /* there is none */
	assert_true(fold_in_child(folder, 0, 3, 6));
	assert_int_equal(trib_partial_abandon(&p), 0);
	assert_false(trib_partial_op_active(&p));
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_EMPTY);
	fold(&folder, 5, 3);
	assert_same(&p, &whole);
	trib_partial_fini(&whole);
	trib_partial_fini(&p);
}

static void a_child_partial_is_merged_and_an_empty_one_is_nothing(void **state)
{
	(void)state;
	for (uint32_t accumulate = 0; accumulate < 2; accumulate++) {
		struct trib_partial flat = make(LARGE, accumulate, 0);
		struct trib_partial leaf = make(LARGE, accumulate, 1);
		struct trib_partial top = make(LARGE, accumulate, 2);
		struct agg_folder f = folder_of(&flat);
		struct agg_folder l = folder_of(&leaf);
		struct agg_folder t = folder_of(&top);
		struct trib_partial_item empty = { .slot = TRIB_ITEM_PARTIAL | 9, .gen = 1 };
		struct trib_partial_item full = { TRIB_ITEM_PARTIAL | 1, 1, 3, 0, 0 };
		struct agg_input none = { .partial = true };
		struct agg_input sums = { .partial = true };

		fold(&f, 0, 3);
		fold(&l, 0, 3);
		trib_partial_seal(&leaf);
		memset(trib_partial_accumulator(&top), 0x55, 4096); /* an earlier round's */
		assert_int_equal(trib_partial_begin(&top, &empty, 1), 0);
		agg_fold_run(&t, &none, 1, 0);
		full.weight = trib_partial_totals(&leaf).weight;
		sums.data = trib_partial_accumulator(&leaf);
		assert_int_equal(trib_partial_begin(&top, &full, 1), 0);
		agg_fold_run(&t, &sums, 1, 0);
		assert_same(&top, &flat);
		trib_partial_fini(&flat);
		trib_partial_fini(&leaf);
		trib_partial_fini(&top);
	}
}

/* ---- a kill after every single instruction ---- */

/* What the traced child does: two ops and a reset and an op of the next round. */
static void traced_work(struct agg_folder folder)
{
	fold(&folder, 0, 3);
	fold(&folder, 3, 5);
	trib_partial_reset(folder.partial, 2);
	fold(&folder, 2, 4);
	trib_partial_seal(folder.partial);
}

/* A partial whose list of recent items is about to wrap. */
static struct trib_partial make_old(void)
{
	struct trib_partial partial = make(SMALL, TRIB_ACCUMULATE_EXACT, 0);
	struct agg_folder folder = folder_of(&partial);
	struct agg_input input = { .data = updates[7], .weight = 1 };

	for (uint32_t i = 0; i < TRIB_RECENT_MAX - 4; i++) {
		struct trib_partial_item item = { 100 + i, 1, 1, 0, 1 };

		assert_int_equal(trib_partial_begin(&partial, &item, 1), 0);
		agg_fold_run(&folder, &input, 1, 0);
	}
	return partial;
}

static uint32_t listed(const struct trib_partial *partial)
{
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < TRIB_FOLD_MAX; slot++) {
		count += trib_partial_folded(partial, slot, 1);
	}
	return count;
}

struct outcomes {
	uint64_t history;             /* updates before all that */
	struct trib_partial after[4]; /* op 1; op 2; the next round's op; none of them */
};

static bool equals(const struct trib_partial *a, const struct trib_partial *b)
{
	struct trib_partial_totals x = trib_partial_totals(a);
	struct trib_partial_totals y = trib_partial_totals(b);

	return trib_partial_header(a)->round == trib_partial_header(b)->round &&
	       x.updates == y.updates && x.weight == y.weight &&
	       (x.updates == 0 ||
		memcmp(trib_partial_accumulator(a), trib_partial_accumulator(b), SMALL * 8) == 0);
}

/* As if the child had been killed here: a successor finishes, and must stand at a whole op. */
static int check_snapshot(const struct trib_partial *live, struct trib_partial *copy,
			  const struct outcomes *outcomes, int at_least)
{
	struct agg_folder folder = folder_of(copy);
	int found = -1;

	memcpy(copy->memory, live->memory, live->size);
	for (uint32_t i = 0;
	     trib_partial_op_active(copy) && i < trib_partial_header(copy)->op_count; i++) {
		const struct trib_partial_item *item = &trib_partial_header(copy)->op[i];

		assert_false(trib_partial_folded(copy, item->slot, item->gen));
	}
	finish(&folder);
	assert_false(trib_partial_op_active(copy));
	for (int i = at_least; i < 6 && found < 0; i++) {
		/* history, op 1, op 2, emptied in round 1, emptied in round 2, op 3 */
		static const int order[] = { 3, 0, 1, -1, -1, 2 };
		uint32_t round = trib_partial_header(copy)->round;
		bool empty = trib_partial_state(copy) == TRIB_PARTIAL_EMPTY;

		if (order[i] < 0 ? empty && round == (uint32_t)i - 2
				 : !empty && equals(copy, &outcomes->after[order[i]])) {
			found = i;
		}
	}
	assert_true(found >= 0);
	/* The list of folded items says what the totals say, also after one more op. */
	assert_int_equal(listed(copy), trib_partial_totals(copy).updates -
					       (trib_partial_header(copy)->round == 1 && found < 3
							? outcomes->history
							: 0));
	if (trib_partial_state(copy) == TRIB_PARTIAL_EMPTY) {
		fold(&folder, 6, 2);
		assert_int_equal(listed(copy), 2);
		assert_int_equal(trib_partial_totals(copy).updates, 2);
		assert_false(trib_partial_folded(copy, 100, 1));
	}
	return found;
}

static void killed_at_any_instruction_a_successor_stands_at_a_whole_op(void **state)
{
	struct trib_partial live = make_old();
	struct trib_partial copy = make(SMALL, TRIB_ACCUMULATE_EXACT, 0);
	struct outcomes outcomes;
	uint8_t *last =
		mmap(NULL, live.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t instructions = 0;
	uint32_t changes = 0;
	int at_least = 0;
	int status;
	pid_t pid;

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		struct agg_folder folder;

		outcomes.after[i] = make_old();
		outcomes.history = trib_partial_totals(&outcomes.after[i]).updates;
		folder = folder_of(&outcomes.after[i]);
		if (i < 2) {
			fold(&folder, 0, 3);
		}
		if (i == 1) {
			fold(&folder, 3, 5);
		}
		if (i == 2) {
			trib_partial_reset(&outcomes.after[i], 2);
			fold(&folder, 2, 4);
		}
	}
	memcpy(last, live.memory, live.size);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		struct agg_folder folder = folder_of(&live);

		for (uint32_t i = 0; agg_kernels_at(i); i++) { /* the narrowest: most stores */
			folder.kernels = agg_kernels_at(i);
		}
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
			_exit(77);
		}
		(void)raise(SIGSTOP);
		traced_work(folder);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status)) {
		print_message("ptrace is not permitted here\n");
		skip();
	}
	while (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0) {
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status)) {
			break;
		}
		instructions++;
		if (memcmp(last, live.memory, live.size) != 0) {
			memcpy(last, live.memory, live.size);
			at_least = check_snapshot(&live, &copy, &outcomes, at_least);
			changes++;
		}
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(at_least, 5);
	print_message("%u instructions, %u states of memory\n", instructions, changes);
	assert_true(changes > 100);
	for (uint32_t i = 0; i < 4; i++) {
		trib_partial_fini(&outcomes.after[i]);
	}
	(void)munmap(last, live.size);
	trib_partial_fini(&live);
	trib_partial_fini(&copy);
}

/* ---- the sandbox ---- */

struct probe {
	uint32_t entered;
	uint32_t failed; /* bit per attempt that was refused, as it should */
	uint32_t worked; /* bit per thing that must go on working */
	uint32_t done;
};

static void probe_refusals(struct probe *p, pid_t parent)
{
	char *const argv[] = { (char *)(uintptr_t) "/bin/true", NULL };
	struct sockaddr to = { .sa_family = AF_UNIX };
	uint32_t bit = 0;

#define REFUSED(call) p->failed |= (uint32_t)((long)(call) < 0 && errno == EPERM) << bit++
	REFUSED(open("/etc/passwd", O_RDONLY));
	REFUSED(open("/proc/self/mem", O_RDWR));
	REFUSED(socket(AF_INET, SOCK_STREAM, 0));
	REFUSED(socket(AF_UNIX, SOCK_STREAM, 0));
	REFUSED(execve("/bin/true", argv, argv));
	REFUSED(ptrace(PTRACE_ATTACH, parent, NULL, NULL));
	REFUSED(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	REFUSED(kill(parent, 0));
	REFUSED(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	REFUSED(memfd_create("x", 0));
	REFUSED(sendto(0, "x", 1, 0, &to, sizeof(to)));
	REFUSED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	REFUSED(unshare(CLONE_NEWUSER));
	REFUSED(syscall(SYS_process_vm_readv, parent, NULL, 0, NULL, 0, 0));
	REFUSED(write(1, "", 0));
	REFUSED(syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0));
#undef REFUSED
	p->done = bit;
}

static void probe_child(struct probe *p, int control, pid_t parent)
{
	struct agg_sandbox sandbox;
	struct trib_partial partial;
	uint32_t message;
	uint32_t count;
	int fds[2];

	if (agg_sandbox_init(&sandbox) || agg_sandbox_enter(&sandbox)) {
		_exit(1);
	}
	p->entered = 1;
	probe_refusals(p, parent);
	if (trib_fd_receive(control, &message, sizeof(message), fds, 2, &count) == 4 &&
	    count == 1) {
		p->worked |= 1;
		if (trib_partial_attach(fds[0], true, &partial) == 0) {
			p->worked |= 2;
			trib_partial_reset(&partial, 77);
			trib_partial_fini(&partial);
			p->worked |= 4;
		}
	}
	(void)syscall(SYS_exit_group, 0); /* no leak check in there */
}

static void the_sandbox_lets_in_descriptors_and_nothing_out(void **state)
{
	struct probe *p =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct trib_partial partial = make(SMALL, TRIB_ACCUMULATE_EXACT, 0);
	uint32_t message = 1;
	int pair[2];
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	pid = fork();
	if (pid == 0) {
		probe_child(p, pair[1], getppid());
	}
	assert_int_equal(trib_fd_send(pair[0], &message, sizeof(message), &partial.fd, 1), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(p->entered, 1);
	assert_int_equal(p->done, 16);
	assert_int_equal(p->failed, (1u << p->done) - 1);
	assert_int_equal(p->worked, 7);
	assert_int_equal(status, 0);
	assert_int_equal(trib_partial_header(&partial)->round, 77);
	trib_partial_fini(&partial);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_any_step_a_successor_gives_the_same_bits),
		cmocka_unit_test(an_op_that_is_given_up_leaves_no_trace),
		cmocka_unit_test(a_first_op_that_is_given_up_leaves_an_empty_partial),
		cmocka_unit_test(a_child_partial_is_merged_and_an_empty_one_is_nothing),
		cmocka_unit_test(killed_at_any_instruction_a_successor_stands_at_a_whole_op),
		cmocka_unit_test(the_sandbox_lets_in_descriptors_and_nothing_out),
	};

	fill();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
