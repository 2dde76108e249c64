/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "aggregator/kernels.h"

#define K        AGG_KERNEL_INPUTS
#define SIZE     1000u
#define SCALE_30 1073741824.0

static uint64_t seed = 88172645463325252u;

static uint64_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static float value(void)
{
	return (float)((double)(int64_t)next() * 0x1p-63);
}

/* Nearest, ties to even, from integer arithmetic alone. */
static int64_t nearest(double t)
{
	int64_t q = (int64_t)t; /* towards zero */
	double rest = t - (double)q;

	if (rest > 0.5 || (rest == 0.5 && (q & 1))) {
		q++;
	} else if (rest < -0.5 || (rest == -0.5 && (q & 1))) {
		q--;
	}
	return q;
}

static float inputs_memory[K][SIZE];
static const float *inputs[K];
static double scales[K];
static float weights[K];

static void fill(void)
{
	for (uint32_t j = 0; j < K; j++) {
		for (uint32_t i = 0; i < SIZE; i++) {
			inputs_memory[j][i] = value();
		}
		inputs_memory[j][j] = 0.0f;
		inputs_memory[j][j + 8] = -0.0f;
		inputs_memory[j][j + 16] = 1e-40f;
		inputs_memory[j][j + 24] = -1.5f / (float)SCALE_30; /* ties */
		inputs_memory[j][j + 32] = 2.5f / (float)SCALE_30;
		inputs[j] = inputs_memory[j];
		weights[j] = (float)(1.0 + (double)(next() % 1000u) / 7.0);
		scales[j] = (double)weights[j] * SCALE_30;
	}
	scales[0] = SCALE_30;
	weights[0] = 1.0f;
}

static void exact_is_the_rounded_integer_sum_on_every_isa(void **state)
{
	(void)state;
	fill();
	for (uint32_t a = 0; agg_kernels_at(a); a++) {
		for (uint32_t n = 0; n <= SIZE; n += n < 70 ? 1 : 93) {
			for (uint32_t k = 1; k <= K; k++) {
				for (int first = 0; first < 2; first++) {
					int64_t got[SIZE + 1];
					int64_t expected[SIZE + 1];

					for (uint32_t i = 0; i <= SIZE; i++) {
						got[i] = expected[i] =
							(int64_t)(next() >> 4) - (1ll << 58);
					}
					for (uint32_t i = 0; i < n; i++) {
						expected[i] = first ? 0 : expected[i];
						for (uint32_t j = 0; j < k; j++) {
							expected[i] += nearest(
								(double)inputs[j][i] * scales[j]);
						}
					}
					agg_kernels_at(a)->exact[k - 1][first](got, inputs, scales,
									       n);
					assert_memory_equal(got, expected, sizeof(got));
				}
			}
		}
	}
}

static void f32_rounds_in_input_order_on_every_isa(void **state)
{
	(void)state;
	fill();
	for (uint32_t a = 0; agg_kernels_at(a); a++) {
		for (uint32_t k = 1; k <= K; k++) {
			for (int first = 0; first < 2; first++) {
				float got[SIZE];
				float expected[SIZE];

				for (uint32_t i = 0; i < SIZE; i++) {
					volatile float product = weights[0] * inputs[0][i];
					volatile float sum = value();

					got[i] = sum;
					sum = first ? product : sum + product;
					for (uint32_t j = 1; j < k; j++) {
						product = weights[j] * inputs[j][i];
						sum = sum + product;
					}
					expected[i] = sum;
				}
				agg_kernels_at(a)->f32[k - 1][first](got, inputs, weights, SIZE);
				assert_memory_equal(got, expected, sizeof(got));
			}
		}
	}
}

static void merges_add_on_every_isa(void **state)
{
	static int64_t memory[K][SIZE];
	const int64_t *sums[K];

	(void)state;
	fill();
	for (uint32_t j = 0; j < K; j++) {
		for (uint32_t i = 0; i < SIZE; i++) {
			memory[j][i] = (int64_t)next() >> 3;
		}
		sums[j] = memory[j];
	}
	for (uint32_t a = 0; agg_kernels_at(a); a++) {
		for (uint32_t k = 1; k <= K; k++) {
			for (int first = 0; first < 2; first++) {
				int64_t got[SIZE];
				uint64_t expected[SIZE];
				float got_f32[SIZE];
				float expected_f32[SIZE];

				for (uint32_t i = 0; i < SIZE; i++) {
					volatile float sum = value();

					got_f32[i] = sum;
					got[i] = (int64_t)next() >> 3;
					expected[i] = first ? 0 : (uint64_t)got[i];
					sum = first ? inputs[0][i] : sum + inputs[0][i];
					for (uint32_t j = 0; j < k; j++) {
						expected[i] += (uint64_t)sums[j][i];
						sum = j ? sum + inputs[j][i] : sum;
					}
					expected_f32[i] = sum;
				}
				agg_kernels_at(a)->merge_exact[k - 1][first](got, sums, SIZE);
				agg_kernels_at(a)->merge_f32[k - 1][first](got_f32, inputs, SIZE);
				assert_memory_equal(got, expected, sizeof(got));
				assert_memory_equal(got_f32, expected_f32, sizeof(got_f32));
			}
		}
	}
}

static void final_step_is_correctly_rounded_on_every_isa(void **state)
{
	struct agg_final final = { .unit = 1.0 / SCALE_30, .weight = 1234.5678, .lr = 0.7 };
	int64_t sums[SIZE];
	float expected[2][SIZE];
	float expected_f32[SIZE];

	(void)state;
	fill();
	for (uint32_t i = 0; i < SIZE; i++) {
		sums[i] = (int64_t)next() >> (i % 63);
	}
	sums[0] = INT64_MAX;
	sums[1] = INT64_MIN;
	sums[2] = (1ll << 53) + 1; /* tie */
	sums[3] = -(1ll << 53) - 3;
	for (uint32_t i = 0; i < SIZE; i++) {
		volatile double mean = (double)sums[i] * final.unit;

		mean = mean / final.weight;
		expected[0][i] = (float)mean;
		volatile double moved = final.lr * mean;
		expected[1][i] = (float)((double)inputs[0][i] + moved);
		mean = (double)inputs[1][i] * final.unit;
		mean = mean / final.weight;
		moved = final.lr * mean;
		expected_f32[i] = (float)((double)inputs[0][i] + moved);
	}
	for (uint32_t a = 0; agg_kernels_at(a); a++) {
		float out[SIZE];

		agg_kernels_at(a)->final_exact(&final, sums, NULL, out, SIZE);
		assert_memory_equal(out, expected[0], sizeof(out));
		agg_kernels_at(a)->final_exact(&final, sums, inputs[0], out, SIZE);
		assert_memory_equal(out, expected[1], sizeof(out));
		agg_kernels_at(a)->final_f32(&final, inputs[1], inputs[0], out, SIZE);
		assert_memory_equal(out, expected_f32, sizeof(out));
	}
}

static void edge_of_the_range_is_exact_and_beyond_is_only_garbage(void **state)
{
	const float edges[] = { 1.0f, -1.0f, 0.5f, -0.5f };
	const float hostile[] = { (float)__builtin_nan(""), (float)__builtin_inf(),
				  -(float)__builtin_inf(), 3e38f };
	const double scale[] = { 0x1p51 };
	const float *in[1] = { edges };
	int64_t sums[4];
	int64_t first_isa[4];

	(void)state;
	for (uint32_t a = 0; agg_kernels_at(a); a++) {
		in[0] = edges;
		agg_kernels_at(a)->exact[0][1](sums, in, scale, 4);
		assert_true(sums[0] == 1ll << 51 && sums[1] == -(1ll << 51));
		assert_true(sums[2] == 1ll << 50 && sums[3] == -(1ll << 50));
		in[0] = hostile;
		agg_kernels_at(a)->exact[0][1](sums, in, scale, 4);
		if (a == 0) {
			memcpy(first_isa, sums, sizeof(sums));
		}
		assert_memory_equal(sums, first_isa, sizeof(sums));
	}
}

#define UPDATES 60

/* Random order, random group sizes, a random tree of merges: one answer. */
static void order_and_tree_do_not_matter(void **state)
{
	static float updates[UPDATES][SIZE];
	static int64_t leaves[4][SIZE];
	int64_t reference[SIZE];
	double scale[UPDATES];

	(void)state;
	for (uint32_t u = 0; u < UPDATES; u++) {
		scale[u] = (double)(next() % 100000u + 1) / 1048576.0 * SCALE_30;
		for (uint32_t i = 0; i < SIZE; i++) {
			updates[u][i] = value();
		}
	}
	for (uint32_t trial = 0; trial < 30; trial++) {
		const struct agg_kernels *kernels = agg_kernels_at(trial % 3);
		uint32_t order[UPDATES];
		const int64_t *tree[4] = { leaves[3], leaves[1], leaves[0], leaves[2] };
		int64_t sum[SIZE];

		kernels = kernels ? kernels : agg_kernels_best();
		for (uint32_t u = 0; u < UPDATES; u++) {
			uint32_t other = (uint32_t)(next() % (u + 1));

			order[u] = order[other];
			order[other] = u;
		}
		memset(leaves, 0, sizeof(leaves));
		for (uint32_t at = 0; at < UPDATES;) {
			uint32_t k = (uint32_t)(next() % K) + 1;
			const float *in[K];
			double s[K];

			k = k > UPDATES - at ? UPDATES - at : k;
			for (uint32_t j = 0; j < k; j++) {
				in[j] = updates[order[at + j]];
				s[j] = scale[order[at + j]];
			}
			kernels->exact[k - 1][0](leaves[next() % 4], in, s, SIZE);
			at += k;
		}
		kernels->merge_exact[3][1](sum, tree, SIZE);
		if (trial == 0) {
			memcpy(reference, sum, sizeof(sum));
		}
		assert_memory_equal(sum, reference, sizeof(sum));
	}
	/* |mean error| <= 2^-(S+1) * N / W, before the result is rounded to float. */
	for (uint32_t i = 0; i < SIZE; i++) {
		long double sum = 0;
		long double total = 0;
		long double error;

		for (uint32_t u = 0; u < UPDATES; u++) {
			sum += (long double)updates[u][i] * (long double)scale[u];
			total += (long double)scale[u];
		}
		error = ((long double)reference[i] - sum) / total;
		error = error < 0 ? -error : error;
		assert_true(error <= 0.5L * UPDATES / total * 1.0001L);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_is_the_rounded_integer_sum_on_every_isa),
		cmocka_unit_test(f32_rounds_in_input_order_on_every_isa),
		cmocka_unit_test(merges_add_on_every_isa),
		cmocka_unit_test(final_step_is_correctly_rounded_on_every_isa),
		cmocka_unit_test(edge_of_the_range_is_exact_and_beyond_is_only_garbage),
		cmocka_unit_test(order_and_tree_do_not_matter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
