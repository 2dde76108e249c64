/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/partial.h"

#define ELEMENTS (2u * TRIB_PARTIAL_CHUNK + 5u)

static struct trib_partial make(void)
{
	struct trib_partial partial;

	assert_int_equal(trib_partial_create("job_a", "boot_a", 3, 2, ELEMENTS,
					     TRIB_ACCUMULATE_EXACT, &partial),
			 0);
	return partial;
}

static struct trib_partial_item item(uint32_t slot, uint32_t gen)
{
	return (struct trib_partial_item){ slot, gen, 1, 0, (uint64_t)(slot + 1) << 20 };
}

/* An op that adds `value` to every element. */
static void op(struct trib_partial *partial, const struct trib_partial_item *items, uint32_t count,
	       int64_t value)
{
	int64_t *sums = trib_partial_accumulator(partial);
	bool first = trib_partial_state(partial) == TRIB_PARTIAL_EMPTY;

	assert_int_equal(trib_partial_begin(partial, items, count), 0);
	for (uint32_t c = 0; c < trib_partial_chunks(partial); c++) {
		trib_partial_before_chunk(partial, c);
		for (uint32_t i = c * TRIB_PARTIAL_CHUNK;
		     i < ELEMENTS && i < (c + 1) * TRIB_PARTIAL_CHUNK; i++) {
			sums[i] = (first ? 0 : sums[i]) + value;
		}
		trib_partial_after_chunk(partial, c);
	}
	trib_partial_end(partial);
}

static void life_of_a_round(void **state)
{
	struct trib_partial p = make();
	struct trib_partial_item items[TRIB_OP_MAX + 1] = { item(1, 1), item(2, 1), item(3, 9) };

	(void)state;
	assert_int_equal(trib_partial_chunks(&p), 3);
	trib_partial_reset(&p, 7);
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_EMPTY);
	assert_int_equal(trib_partial_totals(&p).updates, 0);
	assert_int_equal(trib_partial_begin(&p, items, 0), -EINVAL);
	assert_int_equal(trib_partial_begin(&p, items, TRIB_OP_MAX + 1), -EINVAL);
	assert_int_equal(trib_partial_begin(&p, items, 3), 0);
	assert_true(trib_partial_op_active(&p));
	assert_int_equal(trib_partial_begin(&p, items, 3), -EBUSY);
	assert_false(trib_partial_folded(&p, 1, 1));
	trib_partial_seal(&p); /* not with half an op in it */
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_EMPTY);
	trib_partial_end(&p);
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_OPEN);
	assert_true(trib_partial_folded(&p, 1, 1) && trib_partial_folded(&p, 3, 9));
	assert_false(trib_partial_folded(&p, 3, 1));
	assert_int_equal(trib_partial_totals(&p).updates, 3);
	assert_int_equal(trib_partial_totals(&p).weight, 9u << 20);
	assert_int_equal(trib_partial_begin(&p, items, TRIB_FOLD_MAX + 1), -EINVAL);
	trib_partial_seal(&p);
	assert_int_equal(trib_partial_begin(&p, items, 1), -EPERM);
	assert_true(trib_partial_folded(&p, 1, 1));
	trib_partial_reset(&p, 8);
	assert_int_equal(trib_partial_header(&p)->round, 8);
	assert_false(trib_partial_folded(&p, 1, 1));
	assert_int_equal(trib_partial_totals(&p).weight, 0);
	trib_partial_seal(&p); /* an empty one */
	assert_int_equal(trib_partial_totals(&p).updates, 0);
	trib_partial_fini(&p);
	trib_partial_fini(&p);
}

static void the_last_64_items_are_remembered(void **state)
{
	struct trib_partial p = make();

	(void)state;
	trib_partial_reset(&p, 1);
	for (uint32_t n = 0; n < 200; n++) {
		struct trib_partial_item one = item(n, 5);

		assert_int_equal(trib_partial_begin(&p, &one, 1), 0);
		trib_partial_end(&p);
		trib_partial_end(&p); /* again: nothing */
		for (uint32_t m = 0; m <= n; m++) {
			assert_int_equal(trib_partial_folded(&p, m, 5), m + TRIB_RECENT_MAX > n);
		}
	}
	assert_int_equal(trib_partial_totals(&p).updates, 200);
	trib_partial_fini(&p);
}

static void a_torn_chunk_is_restored(void **state)
{
	struct trib_partial p = make();
	struct trib_partial next;
	struct trib_partial_item a = item(1, 1);
	struct trib_partial_item b = item(2, 1);
	int64_t *sums = trib_partial_accumulator(&p);

	(void)state;
	trib_partial_reset(&p, 1);
	op(&p, &a, 1, 10);
	assert_int_equal(trib_partial_begin(&p, &b, 1), 0);
	trib_partial_before_chunk(&p, 0);
	for (uint32_t i = 0; i < TRIB_PARTIAL_CHUNK; i++) {
		sums[i] += 5;
	}
	trib_partial_after_chunk(&p, 0);
	trib_partial_before_chunk(&p, 1);
	for (uint32_t i = TRIB_PARTIAL_CHUNK; i < TRIB_PARTIAL_CHUNK + 100; i++) {
		sums[i] += 5;
	}
	assert_int_equal(trib_partial_attach(dup(p.fd), true, &next), 0);
	assert_true(trib_partial_op_active(&next));
	assert_false(trib_partial_folded(&next, 2, 1));
	assert_int_equal(trib_partial_resume(&next), 1);
	assert_int_equal(sums[0], 15);
	assert_int_equal(sums[TRIB_PARTIAL_CHUNK], 10);
	assert_int_equal(trib_partial_resume(&next), 1); /* the successor may die as well */
	assert_int_equal(sums[TRIB_PARTIAL_CHUNK], 10);
	/* An undo of an earlier chunk is not believed. */
	trib_partial_after_chunk(&next, 1);
	sums[2 * TRIB_PARTIAL_CHUNK] = 99;
	assert_int_equal(trib_partial_resume(&next), 2);
	assert_int_equal(sums[2 * TRIB_PARTIAL_CHUNK], 99);
	trib_partial_fini(&next);
	trib_partial_fini(&p);
}

static void reset_forgets_an_op_under_way(void **state)
{
	struct trib_partial p = make();
	struct trib_partial_item a = item(1, 1);

	(void)state;
	trib_partial_reset(&p, 1);
	op(&p, &a, 1, 10);
	assert_int_equal(trib_partial_begin(&p, &a, 1), 0);
	trib_partial_before_chunk(&p, 0);
	trib_partial_reset(&p, 2);
	assert_false(trib_partial_op_active(&p));
	trib_partial_end(&p); /* nothing */
	assert_int_equal(trib_partial_totals(&p).updates, 0);
	op(&p, &a, 1, 3);
	assert_int_equal(trib_partial_totals(&p).updates, 1);
	assert_int_equal(((int64_t *)trib_partial_accumulator(&p))[ELEMENTS - 1], 3);
	trib_partial_fini(&p);
}

static void attach_refuses_what_is_not_a_partial(void **state)
{
	struct trib_partial p = make();
	struct trib_partial q;
	struct trib_partial_header *h = trib_partial_header(&p);
	struct trib_partial_header good = *h;
	int fd;

	(void)state;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), 0);
	assert_int_equal(q.elements, ELEMENTS);
	assert_int_equal(q.index, 2);
	trib_partial_fini(&q);
	h->magic++;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	h->version++;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	h->elements += 512;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	h->elements = UINT64_MAX / 8;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	h->accumulate = 2;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	h->chunk = 1;
	assert_int_equal(trib_partial_attach(dup(p.fd), false, &q), -EBADMSG);
	*h = good;
	fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING); /* could shrink */
	assert_int_equal(ftruncate(fd, (off_t)p.size), 0);
	assert_int_equal(pwrite(fd, &good, sizeof(good), 0), sizeof(good));
	assert_int_equal(trib_partial_attach(dup(fd), false, &q), -EBADMSG);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	assert_int_equal(trib_partial_attach(dup(fd), false, &q), 0);
	trib_partial_fini(&q);
	close(fd);
	fd = open("/dev/null", O_RDONLY);
	assert_int_equal(trib_partial_attach(fd, false, &q), -EBADMSG);
	assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken, also on failure */
	assert_int_equal(trib_partial_create("job", "b", 0, 0, 0, TRIB_ACCUMULATE_F32, &q),
			 -EINVAL);
	trib_partial_fini(&p);
}

static void a_sealed_sum_can_go_on_and_be_filled_from_outside(void **state)
{
	struct trib_partial p = make();
	struct trib_partial q = make();
	struct trib_partial_item items[2] = { item(1, 1), item(2, 1) };

	(void)state;
	trib_partial_reset(&p, 7);
	trib_partial_seal(&p);
	trib_partial_unseal(&p);
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_EMPTY); /* it held nothing */
	op(&p, items, 1, 5);
	trib_partial_unseal(&p); /* is not sealed */
	trib_partial_seal(&p);
	assert_int_equal(trib_partial_begin(&p, &items[1], 1), -EPERM);
	trib_partial_unseal(&p);
	assert_int_equal(trib_partial_state(&p), TRIB_PARTIAL_OPEN);
	op(&p, &items[1], 1, 6);
	assert_int_equal(trib_partial_totals(&p).updates, 2);
	assert_true(trib_partial_folded(&p, 1, 1) && trib_partial_folded(&p, 2, 1));
	assert_int_equal(((int64_t *)trib_partial_accumulator(&p))[ELEMENTS - 1], 11);

	trib_partial_fill(&q, 9, (struct trib_partial_totals){ 4, 44 });
	assert_int_equal(trib_partial_state(&q), TRIB_PARTIAL_SEALED);
	assert_int_equal(trib_partial_header(&q)->round, 9);
	assert_int_equal(trib_partial_totals(&q).updates, 4);
	assert_int_equal(trib_partial_totals(&q).weight, 44);
	assert_false(trib_partial_folded(&q, 1, 1));
	trib_partial_renumber(&q, 4097);
	assert_int_equal(trib_partial_header(&q)->index, 4097);
	trib_partial_fini(&p);
	trib_partial_fini(&q);
}

static void a_whole_sum_has_the_lanes_updates_and_none_of_their_children(void **state)
{
	struct trib_partial_item items[2] = { item(7, 3), item(TRIB_ITEM_PARTIAL | 3, 5) };
	struct trib_partial whole;
	struct trib_partial lane;
	uint64_t first;
	uint64_t count;

	(void)state;
	assert_int_equal(trib_partial_create("job", "boot", 0, 1, 3 * TRIB_PARTIAL_CHUNK,
					     TRIB_ACCUMULATE_EXACT, &whole),
			 0);
	for (uint32_t i = 0; i < 2; i++) {
		count = trib_partial_range(whole.elements, i, 2, &first);
		assert_int_equal(trib_partial_create("job", "boot", 0, 1 + i, count,
						     TRIB_ACCUMULATE_EXACT, &lane),
				 0);
		trib_partial_place(&lane, first, i, 2);
		trib_partial_reset(&lane, 5);
		items[1].slot = TRIB_ITEM_PARTIAL | (3 + i);
		op(&lane, items, 2, 10 + (int)i);
		assert_true(trib_partial_folded(&lane, TRIB_ITEM_PARTIAL | (3 + i), 5));
		trib_partial_join(&whole, &lane);
		trib_partial_fini(&lane);
	}
	assert_int_equal(trib_partial_totals(&whole).updates, 2);
	assert_true(trib_partial_folded(&whole, 7, 3));
	assert_false(trib_partial_folded(&whole, TRIB_ITEM_PARTIAL | 3, 5));
	assert_int_equal(((int64_t *)trib_partial_accumulator(&whole))[0], 10);
	assert_int_equal(((int64_t *)trib_partial_accumulator(&whole))[whole.elements - 1], 11);
	trib_partial_fini(&whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life_of_a_round),
		cmocka_unit_test(the_last_64_items_are_remembered),
		cmocka_unit_test(a_torn_chunk_is_restored),
		cmocka_unit_test(reset_forgets_an_op_under_way),
		cmocka_unit_test(attach_refuses_what_is_not_a_partial),
		cmocka_unit_test(a_sealed_sum_can_go_on_and_be_filled_from_outside),
		cmocka_unit_test(a_whole_sum_has_the_lanes_updates_and_none_of_their_children),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
