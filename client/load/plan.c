/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/plan.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/load/shapes.h"
#include "client/load/slo.h"
#include "common/labels.h"

#define FILE_MAX_ (1u << 20)

#define TEXT(option, member, value, text)                                            \
	{                                                                            \
		.name = (option), .kind = TRIB_OPTION_TEXT, .target = &plan->member, \
		.value_name = (value), .help = (text)                                \
	}
#define NUMBER(option, member, low, high, text)                                        \
	{                                                                              \
		.name = (option), .kind = TRIB_OPTION_NUMBER, .target = &plan->member, \
		.min = (low), .max = (high), .value_name = "N", .help = (text)         \
	}
#define FLAG(option, member, text)                                                   \
	{                                                                            \
		.name = (option), .kind = TRIB_OPTION_FLAG, .target = &plan->member, \
		.help = (text)                                                       \
	}

static int parse(struct load_plan *plan, const struct cli_command *command, int argc, char **argv,
		 int *ret_exit)
{
	const struct trib_option table[] = {
		CLI_SERVICE_OPTIONS(plan->service),
		TEXT("dir", dir, "DIR", "of `tributary up`: addresses, processes, metrics"),
		TEXT("data", data_url, "URL", "the gateway; else the job's own"),
		TEXT("job", job_text, "JOB", "an existing job; else one is made and removed"),
		TEXT("spec", spec_file, "FILE", "make the job from this spec"),
		TEXT("model", model_name, "NAME",
		     "tiny, lenet5, resnet18, resnet34, resnet152, lora-7b"),
		NUMBER("bytes", bytes, 4, 1ull << 36, "model of one tensor of this size instead"),
		TEXT("mode", mode, "sync|async", "of the job made"),
		NUMBER("goal", goal, 1, 1000000, "updates per round or buffer of the job made"),
		NUMBER("slots", slots, 0, 65536,
		       "updates held at a time, of the job made; 0 = automatic"),
		TEXT("over-select", over_select_text, "X", "of the job made (sync)"),
		NUMBER("rounds", rounds, 0, 1000000, "end after so many; 0 = by time"),
		NUMBER("updates", updates, 0, UINT64_MAX,
		       "end after so many receipts; 0 = by time"),
		TEXT("duration", duration_text, "SECONDS", "how long clients begin anything"),
		NUMBER("drain", drain_s, 1, 3600, "seconds given to what is under way then"),
		NUMBER("clients", clients, 1, 10000000, "clients, or places for them (open loop)"),
		TEXT("arrivals", arrivals_text, "KIND",
		     "open loop: poisson, constant, burst, diurnal, trace:FILE"),
		TEXT("rate", rate_text, "R", "arrivals a second"),
		TEXT("ramp", ramp_text, "SECONDS", "over which the clients start (closed loop)"),
		TEXT("think", think_text, "SECONDS", "a client trains, +-50 %"),
		NUMBER("wait", wait_s, 0, 60, "held check-ins: seconds asked for; 0 = never"),
		FLAG("close", close, "no connection while a client waits or trains"),
		FLAG("download", download, "clients fetch each new model"),
		NUMBER("weight-max", weight_max, 1, 1000, "weights are 1 to N"),
		TEXT("die", die_text, "SHARE", "updates that die silently"),
		TEXT("slow", slow_text, "SHARE", "clients that train longer"),
		NUMBER("slow-factor", slow_factor, 1, 100000, "how much longer"),
		TEXT("bandwidth", bandwidth_text, "CLASS=SHARE,..",
		     "3g, dsl, 4g, fibre or bytes a second"),
		TEXT("labels", labels_text, "K=V[+K=V..]:SHARE,..", "what clients say they are"),
		TEXT("duplicate", duplicate_text, "SHARE", "updates sent twice"),
		TEXT("corrupt", corrupt_text, "SHARE", "updates sent with a wrong checksum first"),
		TEXT("hostile", hostile_text, "SHARE", "updates preceded by an attack"),
		TEXT("token-file", token_file, "FILE", "the clients' token"),
		NUMBER("threads", threads, 0, LOAD_THREADS_MAX,
		       "event loops; 0 = cores, or as many as the connections' descriptors need"),
		NUMBER("conns-max", conns_max, 0, 10000000,
		       "connections at a time; 0 = as descriptors allow"),
		NUMBER("seed", seed, 0, UINT64_MAX, "of everything random"),
		TEXT("admin", admin_text, "URL,..", "/metrics to watch"),
		TEXT("pid", pid_text, "PID,..", "local processes to watch"),
		TEXT("report", report_file, "FILE", "JSON report"),
		TEXT("html", html_file, "FILE", "the same as a page with charts"),
		TEXT("slo", slo_file, "FILE", "JSON limits to judge the run by"),
		FLAG("keep", keep, "leave the job made"),
		FLAG("quiet", quiet, "no progress line"),
		{ .name = NULL },
	};
	struct cli_operands rule = { .min = 0, .max = 0 };
	char **operands;

	return cli_parse(command, argc, argv, table, &rule, &operands, ret_exit);
}

/* ---- texts to numbers ---- */

static bool number(const char *option, const char *text, double low, double high, double *value)
{
	char *end;
	double n;

	if (!text) {
		return true;
	}
	n = strtod(text, &end);
	if (end == text || *end || !isfinite(n) || n < low || n > high) {
		cli_say("--%s: '%s' is not a number from %g to %g", option, text, low, high);
		return false;
	}
	*value = n;
	return true;
}

static uint64_t class_rate(const char *name)
{
	static const struct {
		const char *name;
		uint64_t bytes_per_s;
	} known[] = {
		{ "3g", 100000 }, { "dsl", 250000 }, { "4g", 1500000 }, { "fibre", 12500000 }
	};
	uint64_t rate = 0;

	for (size_t i = 0; i < TRIB_COUNT(known); i++) {
		if (strcmp(known[i].name, name) == 0) {
			return known[i].bytes_per_s;
		}
	}
	return trib_parse_u64(name, strlen(name), 1, 1ull << 40, &rate) ? 0 : rate;
}

/* "3g=0.2,50000=0.1": what is left has no limit. */
static bool read_classes(struct load_plan *plan)
{
	const char *at = plan->bandwidth_text ? plan->bandwidth_text : "";
	double sum = 0;

	while (*at) {
		size_t size = strcspn(at, ",");
		char word[64];
		char *equals;
		struct load_class *class = &plan->classes[plan->class_count];

		if (size >= sizeof(word) || plan->class_count == LOAD_CLASSES_MAX) {
			cli_say("--bandwidth: too much at '%s'", at);
			return false;
		}
		memcpy(word, at, size);
		word[size] = '\0';
		equals = strchr(word, '=');
		if (equals) {
			*equals = '\0';
		}
		class->share = 1;
		class->bytes_per_s = class_rate(word);
		if (class->bytes_per_s == 0) {
			cli_say("--bandwidth: '%s' is neither 3g, dsl, 4g, fibre nor bytes a "
				"second",
				word);
			return false;
		}
		if (equals && !number("bandwidth", equals + 1, 0, 1, &class->share)) {
			return false;
		}
		sum += class->share;
		plan->class_count++;
		at += size + (at[size] == ',');
	}
	if (sum > 1 + 1e-9) {
		cli_say("--bandwidth: the shares are more than 1 together");
		return false;
	}
	return true;
}

/* "region=eu+ram-gb=8" -> {"region": "eu", ..} */
static bool make_labels(char *text, char out[LOAD_LABELS_SIZE])
{
	char canonical[TRIB_LABELS_SIZE];
	json_t *labels = json_object();
	char *rest = NULL;
	bool good = labels != NULL;
	char *json;

	for (char *pair = strtok_r(text, "+", &rest); pair && good;
	     pair = strtok_r(NULL, "+", &rest)) {
		char *equals = strchr(pair, '=');

		good = equals != NULL;
		if (good) {
			*equals = '\0';
			good = json_object_set_new(labels, pair, json_string(equals + 1)) == 0;
		}
	}
	json = good && trib_labels_read(labels, canonical) == 0 ? json_dumps(labels, JSON_COMPACT)
								: NULL;
	good = json && trib_copy(out, LOAD_LABELS_SIZE, json) == 0;
	trib_free(json);
	json_decref(labels);
	return good;
}

/* "region=eu:0.5,region=us+ram-gb=8:0.2": what is left has none. */
static bool read_labels(struct load_plan *plan)
{
	const char *at = plan->labels_text ? plan->labels_text : "";
	double sum = 0;

	while (*at) {
		struct load_labels *labels = &plan->labels[plan->labels_count];
		size_t size = strcspn(at, ",");
		char word[LOAD_LABELS_SIZE];
		char *colon;

		if (size >= sizeof(word) || plan->labels_count == LOAD_LABELS_MAX) {
			cli_say("--labels: too much at '%s'", at);
			return false;
		}
		memcpy(word, at, size);
		word[size] = '\0';
		colon = strrchr(word, ':');
		labels->share = 1;
		if (colon) {
			*colon = '\0';
			if (!number("labels", colon + 1, 0, 1, &labels->share)) {
				return false;
			}
		}
		if (!make_labels(word, labels->json)) {
			cli_say("--labels: '%.*s' is not KEY=VALUE[+KEY=VALUE..]:SHARE", (int)size,
				at);
			return false;
		}
		sum += labels->share;
		plan->labels_count++;
		at += size + (at[size] == ',');
	}
	if (sum > 1 + 1e-9) {
		cli_say("--labels: the shares are more than 1 together");
	}
	return sum <= 1 + 1e-9;
}

static bool read_numbers(struct load_plan *plan)
{
	return number("rate", plan->rate_text, 0.001, 1e7, &plan->rate) &&
	       number("think", plan->think_text, 0, 86400, &plan->think_s) &&
	       number("duration", plan->duration_text, 0.1, 2592000, &plan->duration_s) &&
	       number("ramp", plan->ramp_text, 0, 86400, &plan->ramp_s) &&
	       number("die", plan->die_text, 0, 1, &plan->die) &&
	       number("slow", plan->slow_text, 0, 1, &plan->slow) &&
	       number("duplicate", plan->duplicate_text, 0, 1, &plan->duplicate) &&
	       number("corrupt", plan->corrupt_text, 0, 1, &plan->corrupt) &&
	       number("hostile", plan->hostile_text, 0, 1, &plan->hostile) &&
	       number("over-select", plan->over_select_text, 1, 100, &plan->over_select) &&
	       read_classes(plan) && read_labels(plan);
}

static bool read_arrivals(struct load_plan *plan)
{
	const char *file = NULL;
	size_t line;
	int rc;

	if (!plan->arrivals_text) {
		if (plan->rate_text) {
			cli_say("--rate needs --arrivals");
			return false;
		}
		return true;
	}
	if (load_arrivals_kind_read(plan->arrivals_text, &plan->arrivals, &file)) {
		cli_say("--arrivals: '%s' is not poisson, constant, burst, diurnal or trace:FILE",
			plan->arrivals_text);
		return false;
	}
	if (plan->arrivals != LOAD_TRACE && !(plan->rate > 0)) {
		cli_say("--arrivals %s needs --rate", plan->arrivals_text);
		return false;
	}
	if (plan->arrivals == LOAD_TRACE) {
		rc = load_trace_read(file, &plan->trace, &line);
		if (rc) {
			cli_say("%s: line %zu: %s", file, line,
				rc == -EBADMSG ? "not a number of seconds, or earlier than the last"
					       : strerror(-rc));
			return false;
		}
	}
	return true;
}

/* ---- files ---- */

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = trib_alloc(FILE_MAX_ + 1);
	size_t size = 0;

	if (file && text) {
		size = fread(text, 1, FILE_MAX_, file);
		text[size] = '\0';
	}
	if (!file || !text || ferror(file) || size == 0) {
		cli_say("%s: %s", path, file ? "cannot be read, or empty" : strerror(errno));
		trib_free(text);
		text = NULL;
	}
	if (file) {
		(void)fclose(file);
	}
	return text;
}

static bool read_token(struct load_plan *plan)
{
	if (plan->token_file) {
		plan->token = read_file(plan->token_file);
		if (!plan->token) {
			return false;
		}
		plan->token[strcspn(plan->token, " \t\r\n")] = '\0';
		if (strlen(plan->token) > 512) {
			cli_say("%s: not a token", plan->token_file);
			return false;
		}
	}
	return true;
}

static bool read_slo(struct load_plan *plan)
{
	char reason[200];
	char *text;
	bool good;

	if (!plan->slo_file) {
		return true;
	}
	text = read_file(plan->slo_file);
	if (!text) {
		return false;
	}
	good = trib_json_parse(text, strlen(text), &plan->slo, reason) == 0 &&
	       load_slo_check(plan->slo, reason);
	if (!good) {
		cli_say("%s: %s", plan->slo_file, reason);
	}
	trib_free(text);
	return good;
}

static bool check(struct load_plan *plan)
{
	struct load_shape shape;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (strcmp(plan->mode, "sync") != 0 && strcmp(plan->mode, "async") != 0) {
		cli_say("--mode: '%s' is neither sync nor async", plan->mode);
		return false;
	}
	plan->async = strcmp(plan->mode, "async") == 0;
	if (plan->job_text && (plan->spec_file || plan->model_name || plan->bytes)) {
		cli_say("--job takes the job as it is: no --spec, --model, --bytes with it");
		return false;
	}
	if (plan->model_name && plan->bytes) {
		cli_say("--model or --bytes, not both");
		return false;
	}
	if (plan->model_name) {
		if (load_shape_by_name(plan->model_name, &shape)) {
			cli_say("--model: '%s' is none of %s", plan->model_name, load_shape_names);
			return false;
		}
		load_shape_fini(&shape);
	}
	plan->threads_free = plan->threads == 0;
	if (plan->threads_free) {
		plan->threads = cores > 0 && cores < LOAD_THREADS_MAX ? (uint64_t)cores : 1;
	}
	if (plan->threads > plan->clients) {
		plan->threads = plan->clients;
	}
	if (!plan->ramp_text) {
		plan->ramp_s = (double)plan->clients / 2000;
	}
	return cli_service_check(&plan->service) == CLI_OK;
}

bool load_plan_read(struct load_plan *plan, const struct cli_command *command, int argc,
		    char **argv, int *ret_exit)
{
	*plan = (struct load_plan){
		.service = CLI_SERVICE_INIT,
		.mode = "sync",
		.clients = 20,
		.goal = 10,
		.slow_factor = 10,
		.wait_s = 20,
		.drain_s = 30,
		.weight_max = 64,
		.seed = 1,
		.duration_s = 30,
		.over_select = 1,
	};
	if (parse(plan, command, argc, argv, ret_exit) < 0) {
		return false;
	}
	*ret_exit = CLI_USAGE;
	return read_numbers(plan) && read_arrivals(plan) && read_token(plan) && read_slo(plan) &&
	       check(plan);
}

void load_plan_fini(struct load_plan *plan)
{
	load_trace_fini(&plan->trace);
	trib_free(plan->token);
	json_decref(plan->slo);
}

json_t *load_plan_json(const struct load_plan *plan)
{
	return json_pack(
		"{s:s, s:f, s:I, s:I, s:f, s:f, s:I, s:b, s:b, s:f, s:f, s:I, s:f, s:f, "
		"s:f, s:s, s:s, s:I}",
		"arrivals", load_arrivals_kind_text(plan->arrivals), "rate", plan->rate, "clients",
		(json_int_t)plan->clients, "threads", (json_int_t)plan->threads, "duration_s",
		plan->duration_s, "think_s", plan->think_s, "wait_s", (json_int_t)plan->wait_s,
		"close", (int)plan->close, "download", (int)plan->download, "die", plan->die,
		"slow", plan->slow, "slow_factor", (json_int_t)plan->slow_factor, "duplicate",
		plan->duplicate, "corrupt", plan->corrupt, "hostile", plan->hostile, "bandwidth",
		plan->bandwidth_text ? plan->bandwidth_text : "", "labels",
		plan->labels_text ? plan->labels_text : "", "seed", (json_int_t)plan->seed);
}
