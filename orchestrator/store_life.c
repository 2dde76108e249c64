/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/store_life.h"

#include "orchestrator/store_keys.h"

int orc_store_job_patch(struct orc_store *store, const char *token,
			const struct orc_job_change *change, struct orc_then then)
{
	const struct orc_job_new *job = &change->job;
	struct orc_key key = orc_key_job(job->id);
	struct orc_decimal generation = orc_decimal(change->generation);
	struct orc_decimal goal = orc_decimal(job->goal);
	struct orc_decimal quorum = orc_decimal(job->quorum);
	struct orc_decimal selected = orc_decimal(job->selected_max);
	struct orc_decimal deadline = orc_decimal(job->deadline_ms);
	struct orc_decimal lease = orc_decimal(job->lease_ms);
	struct orc_decimal stop = orc_decimal(job->stop_rounds);
	const char *words[] = { "FCALL",     "trib_job_patch", "1",           key.text,
				token,       generation.text,  job->spec,     goal.text,
				quorum.text, selected.text,    deadline.text, lease.text,
				stop.text };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_job_drain(struct orc_store *store, const char *token, const struct orc_job_move *move,
			struct orc_then then)
{
	struct orc_key key = orc_key_job(move->job);
	const char *words[] = { "FCALL", "trib_job_drain", "1",         key.text,
				token,   move->to,         move->reason };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_drain_step(struct orc_store *store, const char *token, const char *job,
			 struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = { "FCALL", "trib_drain_step", "1", key.text, token };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_model_pin(struct orc_store *store, const char *job, const char *tenant,
			long long version, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	struct orc_decimal number = orc_signed(version);
	const char *words[] = { "FCALL",  "trib_model_pin", "1",
				key.text, tenant,           version < 0 ? "" : number.text };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_init_ask(struct orc_store *store, const char *job, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = { "FCALL", "trib_init_ask", "1", key.text };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_plan_set(struct orc_store *store, const char *token, const char *job,
		       const char *plan, struct orc_then then)
{
	struct orc_key key = orc_key_job(job);
	const char *words[] = { "FCALL", "trib_plan_set", "1", key.text, token, plan };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}

int orc_store_node_drain(struct orc_store *store, const char *node, bool undo, struct orc_then then)
{
	const char *words[] = { "FCALL", "trib_node_drain", "1", "trib:nodes:draining",
				node,    undo ? "1" : "0" };

	return orc_store_function(store, then, TRIB_COUNT(words), words);
}
