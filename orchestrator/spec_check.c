/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/spec_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define BACKUP_MAX  4096 /* times to the k-th update that are kept */
#define SCALE_MIN   8    /* fewer fraction bits than this make no useful sums */
#define WEIGHT_BITS 42   /* selected_max * max_weight, so that sums of weights fit 62 bits */

static int log2_up(double value)
{
	int exponent;
	double mantissa = frexp(value, &exponent);

	return mantissa > 0.5 ? exponent : exponent - 1;
}

static bool says(const json_t *spec, const char *path, const char *word)
{
	return strcmp(trib_json_text(spec, path, ""), word) == 0;
}

static void denominator_rules(const json_t *out, json_t *errors)
{
	bool population = says(out, "aggregation.denominator", "population");

	if (!says(out, "aggregation.denominator", "weight_sum") &&
	    !says(out, "aggregation.input", "delta")) {
		spec_complain(errors, "/spec/aggregation/denominator",
			      "must be weight_sum for whole weights");
	}
	if (population != (trib_json_at(out, "aggregation.population") != NULL)) {
		spec_complain(errors, "/spec/aggregation/population",
			      population ? "is required by denominator population"
					 : "is for denominator population");
	}
}

static void staleness_rules(const json_t *out, json_t *errors)
{
	bool clock = says(out, "async.trigger", "clock");
	bool intervals = says(out, "async.staleness.fn", "intervals");

	if (clock && says(out, "aggregation.denominator", "goal")) {
		spec_complain(errors, "/spec/aggregation/denominator",
			      "goal has no meaning with a clock: count, or population");
	}
	if (intervals && !clock) {
		spec_complain(errors, "/spec/async/staleness/fn", "intervals needs trigger clock");
	}
	if (!says(out, "async.staleness.normaliser", "average")) {
		return;
	}
	if (intervals) {
		spec_complain(errors, "/spec/async/staleness/normaliser",
			      "intervals has no value at a staleness");
	} else if (says(out, "aggregation.denominator", "weight_sum")) {
		spec_complain(errors, "/spec/async/staleness/normaliser",
			      "cancels out in denominator weight_sum");
	}
}

/* Every client's last update is in every version: with one weight, in sums that are exact. */
static void memory_rules(const json_t *out, json_t *errors)
{
	long long least = trib_json_integer(out, "async.memory_clients", 0) +
			  trib_json_integer(out, "async.buffer_k", 0) + 2;
	long long slots = trib_json_integer(out, "placement.slots", 0);

	if (!says(out, "async.memory", "all")) {
		return;
	}
	if (!says(out, "aggregation.weight_by", "uniform")) {
		spec_complain(errors, "/spec/aggregation/weight_by",
			      "must be uniform with async.memory all");
	}
	if (!says(out, "async.staleness.fn", "const")) {
		spec_complain(errors, "/spec/async/staleness/fn",
			      "must be const with async.memory all");
	}
	if (!says(out, "aggregation.accumulate", "exact")) {
		spec_complain(errors, "/spec/aggregation/accumulate",
			      "must be exact with async.memory all");
	}
	if (trib_json_integer(out, "async.buffer_k", 0) >
	    trib_json_integer(out, "async.memory_clients", 0)) {
		spec_complain(errors, "/spec/async/memory_clients",
			      "must not be less than buffer_k: a client is in a buffer once");
	}
	if (slots && slots < least) {
		spec_complain(errors, "/spec/placement/slots",
			      "async.memory_clients and a buffer need %lld slots", least);
	}
}

/* How much more than its weight an update may count. */
static double factor_max(const json_t *out)
{
	if (says(out, "mode", "async") && says(out, "async.staleness.fn", "intervals")) {
		return trib_json_number(out, "async.max_staleness", 1) + 1;
	}
	return 1;
}

/* Dynamic backup workers choose between quorum and places by the updates' norms. */
static void backup_rules(const struct orc_spec *spec, json_t *errors)
{
	const json_t *out = spec->spec;

	if (!says(out, "sync.backup.kind", "dbw")) {
		return;
	}
	if (!says(out, "aggregation.input", "delta")) {
		spec_complain(errors, "/spec/sync/backup/kind", "dbw needs deltas");
	}
	if (spec->selected_max > BACKUP_MAX || spec->quorum >= spec->selected_max) {
		spec_complain(errors, "/spec/sync/backup/kind",
			      "dbw chooses between sync.quorum and goal * over_select: the first "
			      "must be less, the second at most %d",
			      BACKUP_MAX);
	}
	if (trib_json_number(out, "sync.backup.step", 0) > 0 &&
	    !says(out, "aggregation.denominator", "weight_sum")) {
		spec_complain(errors, "/spec/sync/backup/step",
			      "needs denominator weight_sum: the step must be that of a mean");
	}
}

static void sampling_rules(const struct orc_spec *spec, json_t *errors)
{
	long long count = trib_json_integer(spec->spec, "sync.sampling.count", 0);

	if (count && trib_json_number(spec->spec, "sync.sampling.fraction", 1) < 1) {
		spec_complain(errors, "/spec/sync/sampling/count", "or fraction, not both");
	} else if (count && (uint64_t)count < spec->quorum) {
		spec_complain(errors, "/spec/sync/sampling/count",
			      "must not be less than the quorum (%llu)",
			      (unsigned long long)spec->quorum);
	}
}

static void selection_rules(const json_t *out, json_t *errors)
{
	if (says(out, "selection.labels_from", "token") && !says(out, "auth.clients", "token")) {
		spec_complain(errors, "/spec/selection/labels_from",
			      "token needs auth.clients token");
	}
}

/* An asynchronous job's buffer is a round that any selected client may report to. */
static void mode_rules(struct orc_spec *spec, json_t *errors)
{
	const json_t *out = spec->spec;

	if (!says(out, "mode", "async")) {
		if (says(out, "sync.late", "next") && !says(out, "aggregation.input", "delta")) {
			spec_complain(errors, "/spec/sync/late",
				      "next needs deltas: versions move on meanwhile");
		}
		backup_rules(spec, errors);
		sampling_rules(spec, errors);
		return;
	}
	spec->goal = (uint64_t)trib_json_integer(out, "async.buffer_k", 1);
	spec->quorum = 1;
	spec->selected_max = (uint64_t)trib_json_integer(out, "async.concurrency", 1);
	spec->deadline_ms =
		(uint64_t)(trib_json_number(out, "async.flush_timeout_s", 1) * 1000 + 0.5);
	spec->lease_ms =
		(uint64_t)(trib_json_number(out, "async.client_timeout_s", 1) * 1000 + 0.5);
	if (!says(out, "aggregation.input", "delta")) {
		spec_complain(errors, "/spec/aggregation/input",
			      "must be delta in an asynchronous job: versions move on meanwhile");
	} else {
		staleness_rules(out, errors);
		memory_rules(out, errors);
	}
}

int spec_cross_rules(struct orc_spec *spec, json_t *errors)
{
	json_t *out = spec->spec;
	double range = trib_json_number(out, "aggregation.range", 1) * factor_max(out);
	double weight = trib_json_number(out, "aggregation.max_weight", 1) * factor_max(out);
	double selected;
	int bits;

	spec->goal = (uint64_t)trib_json_integer(out, "sync.goal", 1);
	spec->quorum = (uint64_t)trib_json_integer(out, "sync.quorum", (long long)spec->goal);
	if (spec_put(out, "sync.quorum", json_integer((json_int_t)spec->quorum))) {
		return -ENOMEM;
	}
	if (spec->quorum > spec->goal) {
		spec_complain(errors, "/spec/sync/quorum", "must not be more than the goal (%llu)",
			      (unsigned long long)spec->goal);
	}
	selected = (double)spec->goal * trib_json_number(out, "sync.over_select", 1) - 1e-9;
	spec->selected_max = (uint64_t)selected + 1; /* rounded up; 1e-9 forgives 10 * 1.1 */
	if (spec->selected_max > 1000000) {
		spec_complain(errors, "/spec/sync/over_select",
			      "selects more than 1000000 clients per round");
	}
	spec->deadline_ms = (uint64_t)(trib_json_number(out, "sync.deadline_s", 1) * 1000 + 0.5);
	spec->lease_ms = (uint64_t)(trib_json_number(out, "sync.client_timeout_s", 1) * 1000 + 0.5);
	spec->stop_rounds = (uint64_t)trib_json_integer(out, "stop.rounds", 1);
	mode_rules(spec, errors);
	if (!says(out, "mode", "async") || says(out, "aggregation.input", "delta")) {
		denominator_rules(out, errors);
	}
	selection_rules(out, errors);
	selected = (double)(spec->selected_max > spec->goal ? spec->selected_max : spec->goal);
	if (says(out, "mode", "async") && says(out, "async.memory", "all")) {
		selected += (double)trib_json_integer(out, "async.memory_clients", 0);
	}
	if (selected * weight > ldexp(1, WEIGHT_BITS)) {
		spec_complain(errors, "/spec/aggregation/max_weight",
			      "times the clients of a round must not exceed 2^%d", WEIGHT_BITS);
	}
	bits = 51 - log2_up(range);
	if (62 - log2_up(selected) - log2_up(range) < bits) {
		bits = 62 - log2_up(selected) - log2_up(range);
	}
	bits = bits < 40 ? bits : 40;
	if (bits < SCALE_MIN) {
		spec_complain(errors, "/spec/aggregation/range",
			      "too large for exact sums of that many clients");
	}
	return spec_put(out, "aggregation.scale_bits", json_integer(bits));
}
