/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/model_file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* size 0: that of the file, whose data must be as long as the version's. */
static int map_file(int fd, uint64_t size, struct gw_model *model)
{
	struct stat st;
	uint64_t header;
	void *memory;

	if (fstat(fd, &st)) {
		return -errno;
	}
	if (!S_ISREG(st.st_mode) || st.st_size < 10 || (uint64_t)st.st_size < size) {
		return -EBADMSG;
	}
	if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
		return -EBADMSG;
	}
	model->size = size ? size : (uint64_t)st.st_size;
	header = le64toh(header);
	if (model->size < 8 || header > model->size - 8) {
		return -EBADMSG;
	}
	if (size) {
		model->version.bytes = size - 8 - header;
	} else if (model->size - 8 - header != model->version.bytes) {
		return -EBADMSG;
	}
	memory = mmap(NULL, model->size, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED) {
		return -errno;
	}
	(void)madvise(memory, model->size, MADV_SEQUENTIAL);
	model->memory = memory;
	return 0;
}

int gw_model_open(const char *dir, const char *job, const struct gw_version *version,
		  struct gw_model **ret_model)
{
	char path[4096];
	struct gw_model *model;
	int fd;
	int rc;

	rc = snprintf(path, sizeof(path), "%s/%s/v%u.safetensors", dir, job, version->version);
	if (rc < 0 || (size_t)rc >= sizeof(path)) {
		return -ENAMETOOLONG;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		return -errno;
	}
	model = trib_alloc(sizeof(*model));
	if (!model) {
		(void)close(fd);
		return -ENOMEM;
	}
	model->refs = 1;
	model->version = *version;
	rc = map_file(fd, 0, model);
	(void)close(fd);
	if (rc) {
		(void)gw_model_put(model);
		return rc;
	}
	*ret_model = model;
	return 0;
}

int gw_model_map(int fd, uint32_t version, const char *digest, uint64_t size,
		 struct gw_model **ret_model)
{
	struct gw_model *model = trib_alloc(sizeof(*model));
	int rc;

	if (!model) {
		return -ENOMEM;
	}
	model->refs = 1;
	model->offered = true;
	model->version.version = version;
	rc = trib_copy(model->version.digest, sizeof(model->version.digest), digest);
	rc = rc || !size ? -EBADMSG : map_file(fd, size, model);
	if (rc) {
		(void)gw_model_put(model);
		return rc;
	}
	*ret_model = model;
	return 0;
}

bool gw_model_drop(struct gw_model *model)
{
	bool last = __atomic_sub_fetch(&model->refs, 1, __ATOMIC_ACQ_REL) == 0;

	if (last) {
		if (model->memory) {
			(void)munmap((void *)(uintptr_t)model->memory, model->size);
		}
		trib_free(model);
	}
	return last;
}

struct gw_model *gw_model_put(struct gw_model *model)
{
	if (model) {
		(void)gw_model_drop(model);
	}
	return NULL;
}

struct gw_model *gw_job_model(struct gw_job *job, uint32_t version)
{
	struct gw_model *found = NULL;

	(void)pthread_mutex_lock(&job->lock);
	for (size_t i = 0; i < GW_JOB_MODELS && job->models[i]; i++) {
		if (job->models[i]->version.version == version) {
			found = job->models[i];
			memmove(&job->models[1], &job->models[0], i * sizeof(job->models[0]));
			job->models[0] = found;
			(void)__atomic_add_fetch(&found->refs, 1, __ATOMIC_RELAXED);
			break;
		}
	}
	(void)pthread_mutex_unlock(&job->lock);
	return found;
}

void gw_job_keep_model(struct gw_job *job, struct gw_model *model)
{
	struct gw_model *out = NULL;
	bool known = model->offered;

	(void)pthread_mutex_lock(&job->lock);
	for (size_t i = 0; i < GW_JOB_MODELS; i++) {
		known |=
			job->models[i] && job->models[i]->version.version == model->version.version;
	}
	if (!known) {
		out = job->models[GW_JOB_MODELS - 1];
		memmove(&job->models[1], &job->models[0],
			(GW_JOB_MODELS - 1) * sizeof(job->models[0]));
		job->models[0] = model;
		(void)__atomic_add_fetch(&model->refs, 1, __ATOMIC_RELAXED);
	}
	(void)pthread_mutex_unlock(&job->lock);
	(void)gw_model_put(out);
}
