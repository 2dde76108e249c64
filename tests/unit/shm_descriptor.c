/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/descriptor_check.h"

static struct trib_descriptor sample(uint32_t slot)
{
	struct trib_descriptor d = {
		.kind = TRIB_DESC_UPDATE,
		.route = 1025,
		.job = 1,
		.round = 7,
		.slot = slot,
		.gen = 3,
		.weight = 512u << 20,
		.bytes = 4096,
		.updates = 1,
	};

	trib_descriptor_seal(&d);
	return d;
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct trib_descriptor d = sample(1);

	(void)state;
	assert_true(trib_descriptor_valid(&d));
	for (unsigned bit = 0; bit < 8 * sizeof(d); bit++) {
		struct trib_descriptor bad = d;

		((uint8_t *)&bad)[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		assert_false(trib_descriptor_valid(&bad));
	}
}

static void unknown_kinds_are_refused_even_when_sealed(void **state)
{
	(void)state;
	for (unsigned kind = 0; kind < 256; kind++) {
		struct trib_descriptor d = sample(1);

		d.kind = (uint8_t)kind;
		trib_descriptor_seal(&d);
		assert_int_equal(trib_descriptor_valid(&d), kind >= 1 && kind <= TRIB_DESC_FOLLOW);
	}
}

/* Any cut of the byte stream gives the same descriptors. */
static void a_stream_is_put_together_again(void **state)
{
	(void)state;
	for (size_t piece = 1; piece <= 200; piece += 7) {
		struct trib_descriptor sent[9];
		struct trib_descriptor got[4];
		struct trib_descriptor_reader reader = { .carried = 0 };
		uint32_t seen = 0;
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		for (uint32_t i = 0; i < 9; i++) {
			sent[i] = sample(i);
		}
		for (size_t at = 0; at < sizeof(sent); at += piece) {
			size_t rest = sizeof(sent) - at;
			int count;

			assert_true(send(pair[0], (uint8_t *)sent + at, rest < piece ? rest : piece,
					 0) > 0);
			while ((count = trib_descriptor_receive(pair[1], &reader, got, 4)) > 0) {
				for (int i = 0; i < count; i++) {
					assert_memory_equal(&got[i], &sent[seen], sizeof(got[i]));
					seen++;
				}
			}
			assert_int_equal(count, 0);
		}
		assert_int_equal(seen, 9);
		close(pair[0]);
		assert_int_equal(trib_descriptor_receive(pair[1], &reader, got, 4), -ENOTCONN);
		close(pair[1]);
	}
}

static void a_full_socket_says_again_and_stays_in_step(void **state)
{
	struct trib_descriptor_reader reader = { .carried = 0 };
	struct trib_descriptor got[8];
	uint32_t sent = 0;
	uint32_t seen = 0;
	int small = 4096;
	int pair[2];
	int rc;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	do {
		struct trib_descriptor d = sample(sent);

		rc = trib_descriptor_send(pair[0], &d);
		sent += rc == 0;
	} while (rc == 0 && sent < 100000);
	assert_int_equal(rc, -EAGAIN);
	assert_true(sent > 0);
	while ((rc = trib_descriptor_receive(pair[1], &reader, got, 8)) > 0) {
		for (int i = 0; i < rc; i++) {
			assert_true(trib_descriptor_valid(&got[i]));
			assert_int_equal(got[i].slot, seen++);
		}
	}
	assert_int_equal(seen, sent);
	close(pair[1]);
	struct trib_descriptor d = sample(0);
	assert_int_equal(trib_descriptor_send(pair[0], &d), -EPIPE);
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_flipped_bit_is_noticed),
		cmocka_unit_test(unknown_kinds_are_refused_even_when_sealed),
		cmocka_unit_test(a_stream_is_put_together_again),
		cmocka_unit_test(a_full_socket_says_again_and_stays_in_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
