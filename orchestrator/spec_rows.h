/* SPDX-License-Identifier: Apache-2.0
 * The table of the job spec: one row a field. Included by spec.c only.
 */
#ifndef TRIB_ORCHESTRATOR_SPEC_ROWS_H
#define TRIB_ORCHESTRATOR_SPEC_ROWS_H

#include "orchestrator/spec.h"

enum kind {
	KIND_OBJECT, /* its keys are rows of the table */
	KIND_FREE,   /* an object of the user's own */
	KIND_ENUM,
	KIND_ENUMS, /* array of one or more */
	KIND_INTEGER,
	KIND_AUTO, /* KIND_INTEGER, or "auto" */
	KIND_NUMBER,
	KIND_LATER, /* known, but not in this version */
	KIND_OURS,  /* computed: refused from users */
};

struct row {
	const char *path; /* below "spec", levels split by '.'; parents before children */
	enum kind kind;
	double min;
	double max;
	const char *values;  /* ENUM, ENUMS: " a b " */
	const char *later;   /* known values that are not supported yet: " c d " */
	const char *initial; /* default as JSON text; NULL: none, or computed */
	const char *help;
};

#define MIB 1048576.0
#define TIB 1099511627776.0

static const struct row table[] = {
	{ "mode", KIND_ENUM, 0, 0, " sync async ", NULL, "\"sync\"", "How rounds are run" },
	{ "model", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "What a model may look like" },
	{ "model.wire_dtypes", KIND_ENUMS, 0, 0, " F32 ", " BF16 F16 U32 ", "[\"F32\"]",
	  "Element types taken on the wire" },
	{ "model.max_header_bytes", KIND_INTEGER, 64, MIB, NULL, NULL, "1048576",
	  "Longest safetensors header" },
	{ "model.max_bytes", KIND_INTEGER, 8, TIB, NULL, NULL, "4294967296",
	  "Largest model or update, in bytes" },
	{ "model.layout", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "model.init", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "aggregation", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "How updates become a model" },
	{ "aggregation.rule", KIND_ENUM, 0, 0, " fedavg ",
	  " fedsum fedavgm fedadam fedyogi fedadagrad median trimmed_mean sum_u32 ", "\"fedavg\"",
	  "Rule that combines updates" },
	{ "aggregation.input", KIND_ENUM, 0, 0, " delta weights ", " gradient ", "\"delta\"",
	  "What an update holds" },
	{ "aggregation.weight_by", KIND_ENUM, 0, 0, " examples uniform ", NULL, "\"examples\"",
	  "What the weight of an update means" },
	{ "aggregation.denominator", KIND_ENUM, 0, 0,
	  " weight_sum count weight_sum_raw goal one population ", " selected ", "\"weight_sum\"",
	  "What sums are divided by" },
	{ "aggregation.population", KIND_NUMBER, 1, TIB, NULL, NULL, NULL,
	  "Weight of all clients together (denominator population)" },
	{ "aggregation.max_weight", KIND_INTEGER, 1, 4294967296.0, NULL, NULL, "1000000",
	  "Largest weight of an update" },
	{ "aggregation.range", KIND_NUMBER, 1, TIB, NULL, NULL, "1048576",
	  "Largest magnitude of weight times element" },
	{ "aggregation.accumulate", KIND_ENUM, 0, 0, " exact f32 ", " f64 kahan ", "\"exact\"",
	  "Arithmetic of sums" },
	{ "aggregation.scale_bits", KIND_OURS, 0, 0, NULL, NULL, NULL,
	  "Fraction bits of exact sums, computed" },
	{ "aggregation.trim", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "aggregation.server_opt", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Server optimiser" },
	{ "aggregation.server_opt.kind", KIND_ENUM, 0, 0, " sgd ", " momentum adam yogi adagrad ",
	  "\"sgd\"", "Optimiser" },
	{ "aggregation.server_opt.lr", KIND_NUMBER, 1e-9, 1e6, NULL, NULL, "1.0",
	  "Learning rate of the server" },
	{ "aggregation.server_opt.momentum", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "aggregation.server_opt.beta2", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "aggregation.server_opt.eps", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "sync", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Synchronous rounds" },
	{ "sync.goal", KIND_INTEGER, 1, 1000000, NULL, NULL, "10", "Updates that close a round" },
	{ "sync.over_select", KIND_NUMBER, 1, 100, NULL, NULL, "1.0",
	  "Clients selected per update wanted" },
	{ "sync.quorum", KIND_INTEGER, 1, 1000000, NULL, NULL, NULL,
	  "Updates a round needs at its deadline; the goal when absent" },
	{ "sync.deadline_s", KIND_NUMBER, 0.05, 2592000, NULL, NULL, "600",
	  "Longest time a round is open, in seconds" },
	{ "sync.client_timeout_s", KIND_NUMBER, 0.05, 2592000, NULL, NULL, "300",
	  "How long a selected client keeps its place, in seconds" },
	{ "sync.below_quorum", KIND_ENUM, 0, 0, " extend fail ", NULL, "\"extend\"",
	  "A round below its quorum at the deadline goes on, or fails and drops what it had" },
	{ "sync.late", KIND_ENUM, 0, 0, " drop next ", NULL, "\"drop\"",
	  "Late updates are refused, or carried into the next round" },
	{ "sync.max_staleness", KIND_INTEGER, 0, 60, NULL, NULL, "5",
	  "Versions behind, at most, for a late update to be carried" },
	{ "sync.staleness", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Discount of carried updates" },
	{ "sync.staleness.fn", KIND_ENUM, 0, 0, " const poly hinge inverse_sqrt ", NULL, "\"poly\"",
	  "As in async.staleness" },
	{ "sync.staleness.alpha", KIND_NUMBER, 0, 100, NULL, NULL, "0.5", "Exponent or slope" },
	{ "sync.staleness.after", KIND_INTEGER, 0, 1000000, NULL, NULL, "0",
	  "Versions without discount (hinge)" },
	{ "sync.staleness.offset", KIND_INTEGER, 0, 1, NULL, NULL, "0", "Added to tau" },
	{ "encodings", KIND_ENUMS, 0, 0, " dense ", " q8 q4 topk zstd ", "[\"dense\"]",
	  "Encodings of updates taken" },
	{ "hierarchy", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Tree of aggregators" },
	{ "hierarchy.leaves", KIND_INTEGER, 0, 64, NULL, NULL, "0", "Leaves; 0 = as many as fit" },
	{ "hierarchy.levels", KIND_AUTO, 1, 3, NULL, NULL, "\"auto\"",
	  "Levels of functions: 1 = one function, 2 = leaves and top, 3 = middles between" },
	{ "hierarchy.fan_in", KIND_AUTO, 1, 64, NULL, NULL, "\"auto\"",
	  "Waiting updates per leaf; auto: from measured fold and hand-over times" },
	{ "hierarchy.policy", KIND_ENUM, 0, 0, " eager lazy just-in-time ", NULL, "\"eager\"",
	  "When updates are folded" },
	{ "hierarchy.shards", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "hierarchy.replan_ms", KIND_INTEGER, 10, 600000, NULL, NULL, "100",
	  "How often the tree is planned anew" },
	{ "hierarchy.alpha", KIND_NUMBER, 0.01, 1, NULL, NULL, "0.7",
	  "Weight of the newest sample in the average of waiting updates" },
	{ "placement", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Shared memory of the job" },
	{ "placement.arena_bytes", KIND_INTEGER, 0, 16 * TIB, NULL, NULL, "0",
	  "Bytes of the job's arena; 0 = automatic" },
	{ "placement.slots", KIND_INTEGER, 0, 65536, NULL, NULL, "0",
	  "Updates held at a time; 0 = automatic" },
	{ "placement.policy", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "placement.include", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "placement.exclude", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "placement.cpus", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "stop", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "When the job is finished" },
	{ "stop.rounds", KIND_INTEGER, 1, 1000000, NULL, NULL, "100", "Published versions wanted" },
	{ "stop.wall_s", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "stop.updates", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "stop.metric", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "client_config", KIND_FREE, 0, ORC_CONFIG_MAX, NULL, NULL, "{}",
	  "Handed to clients as it is" },
	{ "async", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Asynchronous buffers (FedBuff)" },
	{ "async.buffer_k", KIND_INTEGER, 1, 1000000, NULL, NULL, "64",
	  "Updates that make a buffer, and so a version" },
	{ "async.concurrency", KIND_INTEGER, 1, 1000000, NULL, NULL, "1000",
	  "Clients out at a time" },
	{ "async.max_staleness", KIND_INTEGER, 0, 1000000, NULL, NULL, "20",
	  "Versions behind, at most, for an update to count" },
	{ "async.staleness", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Discount of late updates" },
	{ "async.staleness.fn", KIND_ENUM, 0, 0, " const poly hinge inverse_sqrt intervals ", NULL,
	  "\"poly\"",
	  "1; (1+tau)^-alpha; 1/(alpha*(tau-after)+1) beyond `after`; 1/(1+sqrt(tau)); "
	  "ceil(time out / flush_timeout_s)" },
	{ "async.staleness.alpha", KIND_NUMBER, 0, 100, NULL, NULL, "0.5", "Exponent or slope" },
	{ "async.staleness.after", KIND_INTEGER, 0, 1000000, NULL, NULL, "0",
	  "Versions without discount (hinge)" },
	{ "async.staleness.offset", KIND_INTEGER, 0, 1, NULL, NULL, "0",
	  "Added to tau: 1 counts the version that the buffer will make" },
	{ "async.staleness.normaliser", KIND_ENUM, 0, 0, " none average ", NULL, "\"none\"",
	  "Discounts are divided by nothing, or by the one at staleness `average`" },
	{ "async.staleness.average", KIND_NUMBER, 0, 1000000, NULL, NULL, "0",
	  "Staleness whose discount is the unit (normaliser average)" },
	{ "async.trigger", KIND_ENUM, 0, 0, " count clock ", NULL, "\"count\"",
	  "A buffer ends with buffer_k updates, or every flush_timeout_s (buffer_k at most)" },
	{ "async.memory", KIND_ENUM, 0, 0, " none ", " all ", "\"none\"",
	  "all (AFA-CS) needs exact sums that outlive their round" },
	{ "async.flush_timeout_s", KIND_NUMBER, 0.05, 2592000, NULL, NULL, "120",
	  "A buffer that is not empty is flushed after this, in seconds" },
	{ "async.client_timeout_s", KIND_NUMBER, 0.05, 2592000, NULL, NULL, "1800",
	  "How long a client keeps its place, in seconds" },
	{ "privacy", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "durability", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "checkpoint", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
	{ "auth", KIND_OBJECT, 0, 0, NULL, NULL, NULL, "Who may take part" },
	{ "auth.clients", KIND_ENUM, 0, 0, " open token ", " mtls ", "\"open\"",
	  "Everybody who knows the job's id, or holders of its tokens" },
	{ "flower", KIND_LATER, 0, 0, NULL, NULL, NULL, "" },
};

#endif
