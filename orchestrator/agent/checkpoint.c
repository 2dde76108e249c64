/* SPDX-License-Identifier: Apache-2.0
 * Model files that come and go for other reasons than a round: versions that the record has let go
 * of (orchestrator/functions/17_checkpoints.lua), and first models that are versions of other jobs.
 */
#include "orchestrator/agent/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/id.h"
#include "common/log.h"
#include "orchestrator/agent/filer.h"

#define PATH_SIZE 512

struct asked {
	struct agent *agent;
	char job[TRIB_JOB_ID_SIZE];
};

static void ask(struct agent *agent, const char *job, const char *function, trib_redis_cb *cb)
{
	char key[TRIB_JOB_ID_SIZE + 16];
	struct asked *asked;
	struct trib_id id;

	if (trib_id_parse("job_", job, &id)) {
		return;
	}
	asked = trib_alloc(sizeof(*asked));
	if (!asked) {
		return;
	}
	asked->agent = agent;
	(void)snprintf(asked->job, sizeof(asked->job), "%s", job);
	(void)snprintf(key, sizeof(key), "trib:{%s}:job", asked->job);
	if (trib_redis_send(agent->redis, cb, asked, "FCALL", function, "1", key, NULL)) {
		trib_free(asked); /* the next message asks again */
	}
}

/* ---- versions that are not kept ---- */

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a;
	uint64_t right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* "v17.safetensors" */
static bool version_of(const char *name, uint64_t *ret_version)
{
	size_t digits = strspn(name + (*name != '\0'), "0123456789");

	return name[0] == 'v' && strcmp(name + 1 + digits, ".safetensors") == 0 &&
	       trib_parse_u64(name + 1, digits, 0, UINT32_MAX, ret_version) == 0;
}

/* Newer ones than the record knows are being made. */
static void remove_files(struct agent *agent, const char *job, uint64_t newest,
			 const uint64_t *kept, size_t count)
{
	char path[PATH_SIZE];
	struct dirent *entry;
	DIR *directory;
	uint64_t version;

	(void)snprintf(path, sizeof(path), "%s/%s", agent->options.models, job);
	directory = opendir(path);
	if (!directory) {
		return;
	}
	while ((entry = readdir(directory)) != NULL) {
		struct agent_file file = { .remove = true };

		if (!version_of(entry->d_name, &version) || version == 0 || version > newest ||
		    bsearch(&version, kept, count, sizeof(*kept), compare)) {
			continue;
		}
		file.version = (uint32_t)version;
		memcpy(file.job, job, strlen(job) + 1);
		if (agent_filer_put(agent->filer, &file)) {
			break; /* the next time */
		}
		agent_count(AGENT_M_PRUNED, 1);
	}
	(void)closedir(directory);
}

static void on_kept(const struct trib_value *value, void *arg)
{
	struct asked *asked = arg;
	size_t count = trib_value_count(value);
	const char *newest = trib_value_text(trib_value_at(value, 0));
	uint64_t *kept = trib_alloc_array(count + 1, sizeof(*kept));
	uint64_t version = 0;
	size_t known = 0;

	for (size_t i = 1; kept && value && i < count; i++) {
		const char *text = trib_value_text(trib_value_at(value, i));

		if (trib_parse_u64(text, strlen(text), 0, UINT32_MAX, &kept[known])) {
			count = 0; /* not understood: nothing is removed */
		}
		known++;
	}
	if (kept && value && count > 1 &&
	    trib_parse_u64(newest, strlen(newest), 0, UINT32_MAX, &version) == 0) {
		qsort(kept, known, sizeof(*kept), compare);
		remove_files(asked->agent, asked->job, version, kept, known);
	}
	trib_free(kept);
	trib_free(asked);
}

void agent_models_prune(struct agent *agent, const char *job)
{
	ask(agent, job, "trib_models_kept", on_kept);
}

/* ---- a version of another job to begin with ---- */

static void on_done(const struct trib_value *value, void *arg)
{
	struct asked *asked = arg;

	log_info("checkpoint", "event=begun-with-a-version job=%s answer=%s", asked->job,
		 value ? trib_value_text(trib_value_at(value, 0)) : "none");
	trib_free(asked);
}

static bool same_file(const char *one, const char *other)
{
	struct stat a;
	struct stat b;

	return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* Model files are never written again once they have their name, so that two may share one. */
static int link_model(const struct agent *agent, const char *from, const char *version,
		      const char *to)
{
	char source[PATH_SIZE];
	char target[PATH_SIZE];
	int fd;
	int rc = 0;

	(void)snprintf(target, sizeof(target), "%s/%s", agent->options.models, to);
	if (mkdir(target, 0770) && errno != EEXIST) {
		return -errno;
	}
	fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	(void)snprintf(source, sizeof(source), "%s/%s/v%s.safetensors", agent->options.models, from,
		       version);
	(void)snprintf(target, sizeof(target), "%s/%s/v0.safetensors", agent->options.models, to);
	if (link(source, target) && (errno != EEXIST || !same_file(source, target))) {
		rc = -errno;
	} else if (fsync(fd)) {
		rc = -errno;
	}
	(void)close(fd);
	return rc;
}

static void on_init(const struct trib_value *value, void *arg)
{
	struct asked *asked = arg;
	const char *from = value ? trib_value_text(trib_value_at(value, 1)) : "";
	const char *version = value ? trib_value_text(trib_value_at(value, 2)) : "";
	struct trib_id id;
	uint64_t number;
	int rc;

	if (trib_id_parse("job_", from, &id) == 0 &&
	    trib_parse_u64(version, strlen(version), 0, UINT32_MAX, &number) == 0) {
		rc = link_model(asked->agent, from, version, asked->job);
		if (rc == 0) {
			ask(asked->agent, asked->job, "trib_init_done", on_done);
		} else {
			log_warn("checkpoint", "event=not-here job=%s from=%s version=%s rc=%d",
				 asked->job, from, version, rc);
		}
	}
	trib_free(asked);
}

void agent_models_copy(struct agent *agent, const char *job)
{
	ask(agent, job, "trib_init_of", on_init);
}
