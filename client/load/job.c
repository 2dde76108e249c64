/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/job.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "client/cli/api.h"
#include "common/clock.h"
#include "common/safetensors.h"

#define SPEC_MAX      (1u << 20)
#define PAGE          200
#define SETTLE_MS     20000
#define SETTLE_STEP   100
#define MODEL_READ    (1u << 20)
#define ROUNDS_MAX_   1000000u
#define UNTIL_STOPPED 1000000

static void sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	(void)nanosleep(&t, NULL);
}

/* ---- the spec ---- */

static json_t *spec_of_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = trib_alloc(SPEC_MAX + 1);
	char reason[160] = "cannot be read";
	json_t *spec = NULL;

	if (file && text) {
		size_t size = fread(text, 1, SPEC_MAX, file);

		if (trib_json_parse(text, size, &spec, reason)) {
			spec = NULL;
		}
	}
	if (file) {
		(void)fclose(file);
	}
	trib_free(text);
	if (!json_is_object(spec)) {
		cli_say("%s: %s", path, file ? reason : strerror(errno));
		json_decref(spec);
		return NULL;
	}
	return spec;
}

/* The least that the options say. Places last as long as the run: what dies silently is given to
 * others after a while. */
static json_t *spec_of_options(const struct load_plan *plan, uint64_t tag)
{
	double lease = plan->die > 0 ? 10 + 4 * plan->think_s
				     : 60 + 4 * plan->think_s * (double)plan->slow_factor;
	json_t *spec = json_pack("{s:s, s:{s:I}}", "mode", plan->mode, "stop", "rounds",
				 (json_int_t)(plan->rounds ? plan->rounds : UNTIL_STOPPED));
	char name[64];

	if (plan->async) {
		uint64_t out = plan->clients < 1000000 ? plan->clients : 1000000;

		(void)json_object_set_new(
			spec, "async",
			json_pack("{s:I, s:I, s:f, s:I, s:f}", "buffer_k", (json_int_t)plan->goal,
				  "concurrency", (json_int_t)out, "client_timeout_s", lease,
				  "max_staleness", (json_int_t)1000, "flush_timeout_s", 5.0));
	} else {
		(void)json_object_set_new(spec, "sync",
					  json_pack("{s:I, s:f, s:f, s:f}", "goal",
						    (json_int_t)plan->goal, "over_select",
						    plan->over_select, "client_timeout_s", lease,
						    "deadline_s", 86400.0));
	}
	if (plan->slots) {
		(void)json_object_set_new(spec, "placement",
					  json_pack("{s:I}", "slots", (json_int_t)plan->slots));
	}
	(void)snprintf(name, sizeof(name), "load-%llx", (unsigned long long)tag);
	return json_pack("{s:s, s:s, s:{s:s}, s:o}", "apiVersion", "tributary/v1", "kind",
			 "AggregationJob", "metadata", "name", name, "spec", spec);
}

/* ---- the model ---- */

static int shape_of_plan(const struct load_plan *plan, struct load_shape *shape)
{
	int rc = plan->bytes
			 ? load_shape_by_bytes(plan->bytes, shape)
			 : load_shape_by_name(plan->model_name ? plan->model_name : "tiny", shape);

	if (rc) {
		cli_say("the model: %s", strerrordesc_np(-rc));
	}
	return rc ? CLI_FAILED : CLI_OK;
}

static int put_model(const struct load_plan *plan, const struct load_run *run,
		     const struct load_job *job)
{
	const struct load_payload *payload = &run->payload;
	char url[480];
	struct trib_client_request request = {
		.method = "PUT",
		.url = url,
		.size = payload->size,
		.headers = { "Content-Type: application/vnd.safetensors" },
		.timeout_ms = 600000,
	};
	struct trib_client_answer answer;
	char *body = mmap(NULL, payload->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	int rc;

	if (body == MAP_FAILED) {
		cli_say("the model: out of memory");
		return CLI_FAILED;
	}
	memcpy(body, payload->shape.header, payload->shape.header_size);
	request.body = body;
	(void)snprintf(url, sizeof(url), "%s/v1/jobs/%s/models/0", job->data_url, job->id);
	if (plan->data_url || trib_client_may_follow(plan->service.api, url)) {
		request.token = plan->service.token; /* (else the job's record names a stranger) */
	}
	rc = -EAGAIN;
	for (int i = 0; i < 20 && rc; i++) { /* the gateway may not know the job yet */
		rc = trib_client_request(&request, &answer);
		if (rc == 0 && (answer.status == 404 || answer.status == 503)) {
			trib_client_answer_fini(&answer);
			sleep_ms(100);
			rc = i < 19 ? -EAGAIN : 0;
			continue;
		}
		break;
	}
	(void)munmap(body, payload->size);
	rc = cli_api_told(&plan->service, url, rc, &answer);
	trib_client_answer_fini(&answer);
	return rc;
}

/* The header of the model a job has already: updates get the same. */
static int get_header(const struct load_plan *plan, const struct load_job *job,
		      struct load_shape *shape)
{
	char url[480];
	char range[64];
	struct trib_client_request request = {
		.method = "GET", .url = url, .token = plan->token, .headers = { range }
	};
	struct trib_client_answer answer;
	struct trib_layout *layout = NULL;
	enum trib_problem problem;
	const char *detail = "too short";
	uint64_t length = 0;
	int rc;

	(void)snprintf(url, sizeof(url), "%s/v1/jobs/%s/models/latest", job->data_url, job->id);
	(void)snprintf(range, sizeof(range), "Range: bytes=0-%u", TRIB_TENSOR_HEADER_MAX + 7);
	rc = trib_client_request(&request, &answer);
	rc = cli_api_told(&plan->service, url, rc, &answer);
	if (rc) {
		trib_client_answer_fini(&answer);
		return rc;
	}
	for (unsigned i = 0; i < 8 && answer.size > 8; i++) {
		length |= (uint64_t)(uint8_t)answer.body[i] << 8 * i;
	}
	if (length < 2 || length > answer.size - 8) {
		rc = -EBADMSG;
	} else {
		uint64_t data = 0;
		const char *at = answer.body + 8;

		/* The last end of data_offsets is the size of the data. */
		while ((at = memmem(at, (size_t)(answer.body + 8 + length - at), "data_offsets",
				    12))) {
			unsigned long long first;
			unsigned long long last;

			if (sscanf(at, "data_offsets\" : [ %llu , %llu", &first, &last) == 2 &&
			    last > data) {
				data = last;
			}
			at += 12;
		}
		rc = trib_layout_parse(answer.body + 8, length, data, &layout, &problem, &detail);
		for (uint32_t i = 0; rc == 0 && i < trib_layout_count(layout); i++) {
			if (trib_layout_tensor(layout, i)->dtype != TRIB_DTYPE_F32) {
				detail = "not all tensors are F32, which is what can be sent today";
				rc = -EBADMSG;
			}
		}
		shape->header = rc ? NULL : trib_alloc(8 + length);
		if (shape->header) {
			memcpy(shape->header, answer.body, 8 + length);
			shape->header_size = 8 + length;
			shape->data_size = data;
			shape->tensors = trib_layout_count(layout);
		}
		(void)trib_layout_free(layout);
	}
	trib_client_answer_fini(&answer);
	if (rc || !shape->header) {
		cli_say("the job's model cannot be used: %s", detail);
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* ---- opening ---- */

static void read_job(const struct load_plan *plan, const json_t *answer, struct load_job *job)
{
	const char *url = plan->data_url ? plan->data_url
					 : trib_json_text(answer, "status.endpoints.data", "");
	size_t size;

	(void)snprintf(job->id, sizeof(job->id), "%s", trib_json_text(answer, "metadata.id", ""));
	(void)snprintf(job->data_url, sizeof(job->data_url), "%s", url);
	for (size = strlen(job->data_url); size && job->data_url[size - 1] == '/'; size--) {
		job->data_url[size - 1] = '\0';
	}
	job->async = strcmp(trib_json_text(answer, "spec.mode", "sync"), "async") == 0;
	job->lr = trib_json_number(answer, "spec.aggregation.server_opt.lr", 1);
	job->mean = strcmp(trib_json_text(answer, "spec.aggregation.rule", ""), "fedavg") == 0 &&
		    strcmp(trib_json_text(answer, "spec.aggregation.input", ""), "delta") == 0 &&
		    strcmp(trib_json_text(answer, "spec.aggregation.denominator", ""),
			   "weight_sum") == 0;
	job->first_round = (uint32_t)trib_json_integer(answer, "status.round", 0);
	job->first_accepted = (uint64_t)trib_json_integer(answer, "status.progress.accepted", 0);
}

static int make_job(const struct load_plan *plan, struct load_run *run, struct load_job *job)
{
	json_t *spec =
		plan->spec_file ? spec_of_file(plan->spec_file) : spec_of_options(plan, run->tag);
	char *text = spec ? trib_json_print(spec) : NULL;
	struct load_shape shape = { .header = NULL };
	json_t *answer = NULL;
	int rc;

	json_decref(spec);
	if (!text) {
		return CLI_USAGE;
	}
	rc = cli_api(&plan->service, "POST", "/v1/jobs", text, &answer);
	trib_free(text);
	if (rc) {
		return rc;
	}
	read_job(plan, answer, job);
	job->ours = true;
	job->first_round = 1;
	job->first_accepted = 0;
	json_decref(answer);
	rc = shape_of_plan(plan, &shape);
	if (rc == CLI_OK && load_payload_init(&run->payload, &shape)) {
		cli_say("out of memory");
		rc = CLI_FAILED;
	}
	rc = rc ? rc : put_model(plan, run, job);
	if (rc) {
		load_job_close(plan, job);
	}
	return rc;
}

int load_job_open(const struct load_plan *plan, struct load_run *run, struct load_job *job)
{
	struct load_shape shape = { .header = NULL };
	char id[CLI_JOB_ID_SIZE];
	char path[128];
	json_t *answer = NULL;
	int rc;

	if (!plan->job_text) {
		rc = make_job(plan, run, job);
	} else {
		rc = cli_job_id(&plan->service, plan->job_text, id);
		(void)snprintf(path, sizeof(path), "/v1/jobs/%s", rc ? "" : id);
		rc = rc ? rc : cli_api(&plan->service, "GET", path, NULL, &answer);
		if (rc) {
			return rc;
		}
		read_job(plan, answer, job);
		json_decref(answer);
		rc = get_header(plan, job, &shape);
		if (rc == CLI_OK && load_payload_init(&run->payload, &shape)) {
			cli_say("out of memory");
			rc = CLI_FAILED;
		}
	}
	(void)snprintf(run->job, sizeof(run->job), "%s", job->id);
	return rc;
}

void load_job_close(const struct load_plan *plan, const struct load_job *job)
{
	char path[128];

	if (!job->ours || plan->keep) {
		return;
	}
	(void)snprintf(path, sizeof(path), "/v1/jobs/%s", job->id);
	for (int i = 0; i < 2; i++) { /* one that is over can be deleted at once */
		json_t *answer = NULL;
		char stop[160];

		(void)snprintf(stop, sizeof(stop), "%s:stop", path);
		if (i == 0) {
			(void)cli_api(&plan->service, "GET", path, NULL, &answer);
			if (answer && !cli_job_over(answer)) {
				(void)cli_api(&plan->service, "POST", stop, NULL, NULL);
			}
			json_decref(answer);
		} else {
			(void)cli_api(&plan->service, "DELETE", path, NULL, NULL);
		}
	}
}

/* ---- what was counted ---- */

static void read_round(const json_t *item, struct load_service_round *round)
{
	*round = (struct load_service_round){
		.round = (uint32_t)trib_json_integer(item, "round", 0),
		.accepted = (uint64_t)trib_json_integer(item, "accepted", 0),
		.lost = (uint64_t)trib_json_integer(item, "lost", 0),
		.version = trib_json_integer(item, "version", -1),
		.collect_s = trib_json_number(item, "timings.collect_ms", -1000) / 1000,
		.total_s = trib_json_number(item, "timings.total_ms", -1000) / 1000,
	};
	(void)snprintf(round->state, sizeof(round->state), "%s", trib_json_text(item, "state", ""));
	(void)snprintf(round->why, sizeof(round->why), "%s", trib_json_text(item, "why", ""));
	round->accepted += round->lost;
}

struct listing {
	struct load_service_round *rounds;
	size_t count;
	size_t room;
	bool settled;
};

static bool add_page(struct listing *list, json_t *page, uint32_t first_round)
{
	for (size_t i = 0; i < json_array_size(page); i++) {
		struct load_service_round round;

		read_round(json_array_get(page, i), &round);
		if (round.round < first_round) {
			return false;
		}
		if (list->count == list->room) {
			size_t bigger = list->room ? list->room * 2 : 256;
			void *more = bigger > 2 * ROUNDS_MAX_
					     ? NULL
					     : trib_realloc(list->rounds,
							    bigger * sizeof(*list->rounds));

			if (!more) {
				return false;
			}
			list->rounds = more;
			list->room = bigger;
		}
		list->settled = list->settled && strcmp(round.state, "closing") != 0;
		list->rounds[list->count++] = round;
	}
	return json_array_size(page) > 0;
}

static int list_rounds(const struct load_plan *plan, const struct load_job *job,
		       struct listing *list)
{
	char path[256];
	char cursor[32] = "";
	bool more = true;

	list->count = 0;
	list->settled = true;
	while (more) {
		json_t *page = NULL;
		const char *next;
		int rc;

		(void)snprintf(path, sizeof(path), "/v1/jobs/%s/rounds?limit=%d%s%s", job->id, PAGE,
			       *cursor ? "&cursor=" : "", cursor);
		rc = cli_api(&plan->service, "GET", path, NULL, &page);
		if (rc) {
			return rc;
		}
		more = add_page(list, cli_items(page), job->first_round);
		next = trib_json_text(page, "next", "");
		more = more && *next && trib_copy(cursor, sizeof(cursor), next) == 0;
		json_decref(page);
	}
	return CLI_OK;
}

int load_job_rounds(const struct load_plan *plan, const struct load_job *job,
		    struct load_service_round **ret_rounds, size_t *ret_count)
{
	uint64_t until = trib_clock_ms() + SETTLE_MS;
	struct listing list = { .count = 0 };
	int rc;

	for (;;) {
		rc = list_rounds(plan, job, &list);
		if (rc || list.settled || trib_clock_ms() >= until) {
			break;
		}
		sleep_ms(SETTLE_STEP);
	}
	if (rc) {
		trib_free(list.rounds);
		return rc;
	}
	for (size_t i = 0; i < list.count / 2; i++) { /* they come newest first */
		struct load_service_round swap = list.rounds[i];

		list.rounds[i] = list.rounds[list.count - 1 - i];
		list.rounds[list.count - 1 - i] = swap;
	}
	*ret_rounds = list.rounds;
	*ret_count = list.count;
	return CLI_OK;
}

static double worst_element(const struct load_run *run, const struct trib_client_answer *answer,
			    double factor)
{
	size_t header = run->payload.shape.header_size;
	double worst = 0;

	for (size_t at = header; at + sizeof(float) <= answer->size; at += sizeof(float)) {
		double want = factor * load_payload_pattern((at - header) / sizeof(float));
		float is;
		double off;

		memcpy(&is, answer->body + at, sizeof(is));
		off = fabs((double)is - want);
		worst = off > worst || isnan(off) ? off : worst;
	}
	return worst;
}

json_t *load_job_model(const struct load_plan *plan, const struct load_run *run,
		       const struct load_job *job, int64_t version, double factor, bool *ret_ok)
{
	char url[480];
	char range[64];
	struct trib_client_request request = {
		.method = "GET", .url = url, .token = plan->token, .headers = { range }
	};
	struct trib_client_answer answer;
	double worst;
	double bound;
	int rc;

	(void)snprintf(url, sizeof(url), "%s/v1/jobs/%s/models/%lld", job->data_url, job->id,
		       (long long)version);
	(void)snprintf(range, sizeof(range), "Range: bytes=0-%zu",
		       run->payload.shape.header_size + MODEL_READ - 1);
	rc = trib_client_request(&request, &answer);
	if (cli_api_told(&plan->service, url, rc, &answer) ||
	    answer.size <= run->payload.shape.header_size) {
		trib_client_answer_fini(&answer);
		*ret_ok = false;
		return json_pack("{s:b, s:s}", "checked", 0, "why", "cannot be fetched");
	}
	worst = worst_element(run, &answer, factor);
	/* One rounding to F32 per version and element. */
	bound = ((double)version + 2) * 0x1p-23 * (fabs(factor) + 1e-3);
	*ret_ok = worst <= bound;
	trib_client_answer_fini(&answer);
	return json_pack("{s:b, s:b, s:I, s:f, s:f, s:f}", "checked", 1, "ok", (int)*ret_ok,
			 "version", (json_int_t)version, "expected", factor, "worst", worst,
			 "bound", bound);
}
