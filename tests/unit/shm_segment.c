/* SPDX-License-Identifier: Apache-2.0
 * Segments, slots, rings, channels, fd passing: what gateway, agent and functions rely on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/channel.h"
#include "shm/link.h"
#include "shm/segment.h"

#define BOOT "01jd0000000000000000000000"

static struct trib_segment make(uint64_t payload, uint32_t slots)
{
	struct trib_segment segment;

	assert_int_equal(trib_segment_create("job_a", BOOT, 3, payload, slots, &segment), 0);
	return segment;
}

static void slot_sizes_are_page_or_huge_page_multiples(void **state)
{
	(void)state;
	assert_int_equal(trib_segment_slot_size(0), 4096);
	assert_int_equal(trib_segment_slot_size(4097), 8192);
	assert_int_equal(trib_segment_slot_size((1 << 20) - 1), 1 << 20);
	assert_int_equal(trib_segment_slot_size(1 << 20), 2 << 20);
	assert_int_equal(trib_segment_slot_size((2 << 20) + 1), 4 << 20);
}

static void a_segment_is_seen_by_another_mapping(void **state)
{
	struct trib_segment a = make(10000, 4);
	struct trib_segment b;

	(void)state;
	assert_int_equal(trib_segment_attach(dup(a.data_fd), dup(a.ctl_fd), true, &b), 0);
	assert_int_equal(b.header.job_index, 3);
	assert_string_equal(b.header.job, "job_a");
	memset(trib_segment_slot(&a, 3), 0x5a, 10000);
	assert_int_equal(trib_segment_slot(&b, 3)[9999], 0x5a);
	trib_segment_fini(&a);
	trib_segment_fini(&b);
	trib_segment_fini(&b);
}

static void read_only_fds_cannot_be_mapped_writable(void **state)
{
	struct trib_segment a = make(10000, 4);
	int ro = trib_fd_read_only(a.data_fd);
	void *map;

	(void)state;
	assert_true(ro >= 0);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0);
	assert_ptr_equal(map, MAP_FAILED);
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, ro, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_not_equal(mprotect(map, 4096, PROT_READ | PROT_WRITE), 0);
	assert_int_equal(ftruncate(a.data_fd, 0), -1);
	(void)munmap(map, 4096);
	(void)close(ro);
	trib_segment_fini(&a);
}

static void a_rewritten_header_is_refused(void **state)
{
	(void)state;
	for (int what = 0; what < 6; what++) {
		struct trib_segment a = make(10000, 4);
		struct trib_segment b;
		struct trib_segment_header *h = (void *)a.ctl;

		switch (what) {
		case 0:
			h->slot_count = 5;
			break;
		case 1:
			h->slot_count = UINT32_MAX;
			break;
		case 2:
			h->slot_size = 4096;
			break;
		case 3:
			h->payload_size = UINT64_MAX;
			break;
		case 4:
			h->magic = 0;
			break;
		default:
			h->version = 9;
			break;
		}
		assert_int_equal(trib_segment_attach(dup(a.data_fd), dup(a.ctl_fd), true, &b),
				 -EBADMSG);
		trib_segment_fini(&a);
	}
}

static void an_unsealed_memfd_is_refused(void **state)
{
	struct trib_segment a = make(10000, 4);
	struct trib_segment b;
	int fd = memfd_create("x", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)a.data_size), 0);
	assert_int_equal(trib_segment_attach(fd, dup(a.ctl_fd), true, &b), -EBADMSG);
	trib_segment_fini(&a);
}

static void a_slot_moves_only_from_what_it_is(void **state)
{
	struct trib_segment a = make(100, 2);
	struct trib_slot_record *r = trib_segment_record(&a, 1);

	(void)state;
	assert_true(trib_slot_move(r, TRIB_SLOT_FREE, 0, TRIB_SLOT_FILLING));
	assert_false(trib_slot_move(r, TRIB_SLOT_FREE, 0, TRIB_SLOT_FILLING));
	assert_false(trib_slot_move(r, TRIB_SLOT_FILLING, 1, TRIB_SLOT_READY));
	assert_true(trib_slot_move(r, TRIB_SLOT_FILLING, 0, TRIB_SLOT_READY));
	assert_true(trib_slot_move(r, TRIB_SLOT_READY, 0, TRIB_SLOT_CLAIMED));
	assert_true(trib_slot_move(r, TRIB_SLOT_CLAIMED, 0, TRIB_SLOT_FREE));
	assert_int_equal(trib_slot_load(r).gen, 1);
	assert_int_equal(trib_slot_load(r).state, TRIB_SLOT_FREE);
	assert_false(trib_slot_move(r, TRIB_SLOT_CLAIMED, 0, TRIB_SLOT_FREE));
	trib_segment_fini(&a);
}

struct racers {
	struct trib_slot_record *record;
	uint32_t wins;
};

static void *race(void *arg)
{
	struct racers *r = arg;

	for (uint32_t gen = 0; gen < 20000; gen++) {
		while (trib_slot_load(r->record).gen < gen) {
		}
		if (trib_slot_move(r->record, TRIB_SLOT_FREE, gen, TRIB_SLOT_FILLING)) {
			(void)__atomic_add_fetch(&r->wins, 1, __ATOMIC_RELAXED);
			TRIB_ASSERT(
				trib_slot_move(r->record, TRIB_SLOT_FILLING, gen, TRIB_SLOT_FREE));
		}
	}
	return NULL;
}

static void two_threads_never_own_one_slot(void **state)
{
	struct trib_segment a = make(100, 2);
	struct racers racers = { .record = trib_segment_record(&a, 0) };
	pthread_t threads[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers), 0);
	}
	for (int i = 0; i < 2; i++) {
		(void)pthread_join(threads[i], NULL);
	}
	assert_int_equal(racers.wins, 20000);
	trib_segment_fini(&a);
}

static void a_ring_is_first_in_first_out_and_bounded(void **state)
{
	size_t size = trib_ring_size(8);
	void *memory = aligned_alloc(64, size);
	struct rte_ring *ring;
	struct trib_descriptor d = { 0 };
	struct trib_descriptor out[16];

	(void)state;
	assert_int_equal(trib_ring_init(memory, 8, &ring), 0);
	for (uint32_t i = 0; i < 7; i++) {
		d.slot = i;
		assert_int_equal(trib_ring_push(ring, &d), 0);
	}
	assert_int_equal(trib_ring_push(ring, &d), -ENOBUFS);
	assert_int_equal(trib_ring_pop(ring, out, 16), 7);
	for (uint32_t i = 0; i < 7; i++) {
		assert_int_equal(out[i].slot, i);
	}
	assert_int_equal(trib_ring_pop(ring, out, 16), 0);
	assert_int_equal(trib_ring_attach(memory, 16, &ring), -EBADMSG);
	assert_int_equal(trib_ring_attach(memory, 8, &ring), 0);
	free(memory);
}

#define MESSAGES 200000u

static void produce(struct trib_channels *channels)
{
	struct trib_descriptor d = { 0 };

	for (uint32_t i = 0; i < MESSAGES;) {
		d.slot = i;
		if (trib_channel_push(&channels->channel[1], &d) == 0) {
			i++;
		}
	}
	_exit(0);
}

/* The litmus test of the doorbell: a lost wake-up shows as a time-out. */
static void a_sleeping_consumer_misses_nothing(void **state)
{
	struct trib_channels channels;
	struct trib_channels mine;
	int bell = eventfd(0, EFD_NONBLOCK);
	uint32_t next = 0;
	uint32_t sleeps = 0;
	pid_t pid;
	int status;

	(void)state;
	assert_int_equal(trib_channels_create(2, &channels), 0);
	assert_int_equal(trib_channels_attach(dup(channels.fd), 2, &mine), 0);
	channels.channel[1].doorbell = bell;
	mine.channel[1].doorbell = bell;
	pid = fork();
	if (pid == 0) {
		produce(&channels);
	}
	while (next < MESSAGES) {
		struct trib_descriptor out[64];
		uint32_t n = trib_channel_pop(&mine.channel[1], out, 64);

		if (n == 0) {
			struct pollfd p = { .fd = bell, .events = POLLIN };
			uint64_t count;

			sleeps++;
			assert_int_equal(poll(&p, 1, 5000), 1);
			assert_int_equal(read(bell, &count, sizeof(count)), sizeof(count));
		}
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(out[i].slot, next);
			next++;
		}
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(sleeps > 0);
	trib_channels_fini(&channels);
	trib_channels_fini(&mine);
	(void)close(bell);
}

static void fds_travel_and_surplus_is_refused(void **state)
{
	int pair[2];
	int fds[4];
	uint32_t count;
	char text[8];
	int four[4] = { 0, 0, 0, 0 };

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(trib_fd_send(pair[0], "hello", 6, four, 2), 0);
	assert_int_equal(trib_fd_receive(pair[1], text, sizeof(text), fds, 4, &count), 6);
	assert_int_equal(count, 2);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	(void)close(fds[0]);
	(void)close(fds[1]);
	assert_int_equal(trib_fd_send(pair[0], "hello", 6, four, 4), 0);
	assert_int_equal(trib_fd_receive(pair[1], text, sizeof(text), fds, 1, &count), -EBADMSG);
	assert_int_equal(count, 0);
	assert_int_equal(trib_fd_send(pair[0], "too long a text", 16, NULL, 0), 0);
	assert_int_equal(trib_fd_receive(pair[1], text, sizeof(text), fds, 1, &count), -EBADMSG);
	(void)close(pair[0]);
	assert_int_equal(trib_fd_receive(pair[1], text, sizeof(text), fds, 1, &count), 0);
	(void)close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slot_sizes_are_page_or_huge_page_multiples),
		cmocka_unit_test(a_segment_is_seen_by_another_mapping),
		cmocka_unit_test(read_only_fds_cannot_be_mapped_writable),
		cmocka_unit_test(a_rewritten_header_is_refused),
		cmocka_unit_test(an_unsealed_memfd_is_refused),
		cmocka_unit_test(a_slot_moves_only_from_what_it_is),
		cmocka_unit_test(two_threads_never_own_one_slot),
		cmocka_unit_test(a_ring_is_first_in_first_out_and_bounded),
		cmocka_unit_test(a_sleeping_consumer_misses_nothing),
		cmocka_unit_test(fds_travel_and_surplus_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
