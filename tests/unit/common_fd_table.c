/* SPDX-License-Identifier: Apache-2.0
 * Tables of descriptors: what a thread with a table of its own shares with the others, and what
 * not.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fd_table.h"

#define LIMIT 64

struct owner {
	pthread_t thread;
	pthread_barrier_t *opened; /* everybody holds what it holds */
	int before;                /* a bell made before the threads */
	int rc;
	int held;
	int first;
	int rung;
};

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* Opens until it may not; then waits for the bell. */
static void *own(void *arg)
{
	struct owner *o = arg;
	struct epoll_event event = { .events = EPOLLIN };
	int polled;
	int fd;

	o->rc = trib_fd_table_own();
	polled = epoll_create1(EPOLL_CLOEXEC);
	o->rung = epoll_ctl(polled, EPOLL_CTL_ADD, o->before, &event);
	o->first = -1;
	while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
		o->first = o->first < 0 ? fd : o->first;
		o->held++;
	}
	(void)pthread_barrier_wait(o->opened);
	(void)pthread_barrier_wait(o->opened);
	o->rung = o->rung == 0 ? epoll_wait(polled, &event, 1, 20000) : -1;
	return NULL;
}

static void each_thread_has_its_own(void **state)
{
	pthread_barrier_t opened;
	struct owner owners[3] = { 0 };
	struct rlimit old;
	struct rlimit small;
	uint64_t one = 1;
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	(void)state;
#ifdef __SANITIZE_THREAD__
	skip(); /* it takes equal numbers for equal descriptors, and reports races */
#endif
	assert_true(bell >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	small = (struct rlimit){ LIMIT, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	(void)pthread_barrier_init(&opened, NULL, 4);
	for (int i = 0; i < 3; i++) {
		owners[i].opened = &opened;
		owners[i].before = bell;
		assert_int_equal(pthread_create(&owners[i].thread, NULL, own, &owners[i]), 0);
	}
	(void)pthread_barrier_wait(&opened);
	for (int i = 0; i < 3; i++) { /* together far more than one table may hold */
		assert_int_equal(owners[i].rc, 0);
		assert_in_range(owners[i].held, LIMIT / 2, LIMIT);
		assert_false(is_open(owners[i].first)); /* not here */
	}
	assert_int_equal(write(bell, &one, sizeof(one)), sizeof(one));
	(void)pthread_barrier_wait(&opened);
	for (int i = 0; i < 3; i++) {
		(void)pthread_join(owners[i].thread, NULL);
		assert_int_equal(owners[i].rung, 1);
	}
	(void)pthread_barrier_destroy(&opened);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(is_open(bell));
	(void)close(bell);
}

static void the_limit_is_the_hard_one(void **state)
{
	struct rlimit old;
	struct rlimit small;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	small = (struct rlimit){ LIMIT, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	assert_true(trib_fd_table_limit() == old.rlim_max);
	assert_true(trib_fd_plan(1).limit == old.rlim_max && trib_fd_plan(1).tables == 1);
	assert_true(trib_fd_plan(trib_fd_plan(1).room).tables == 1);
	assert_true(trib_fd_plan(trib_fd_plan(1).room + 1).tables == 2);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &small), 0);
	assert_true(small.rlim_cur == old.rlim_max);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_thread_has_its_own),
		cmocka_unit_test(the_limit_is_the_hard_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
