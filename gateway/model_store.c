/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/model_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/files.h"

/* Held while `final` changes: one process per node writes version 0. */
static pthread_mutex_t names = PTHREAD_MUTEX_INITIALIZER;

static int make_names(struct gw_store *store, const char *models, const char *job,
		      const char *unique)
{
	int a = snprintf(store->dir, sizeof(store->dir), "%s/%s", models, job);
	int b;
	int c;

	if (a < 0 || (size_t)a >= sizeof(store->dir)) {
		return -ENAMETOOLONG;
	}
	b = snprintf(store->temporary, sizeof(store->temporary), "%s/.v0.%s.tmp", store->dir,
		     unique);
	c = snprintf(store->final, sizeof(store->final), "%s/v0.safetensors", store->dir);
	if (b < 0 || (size_t)b >= sizeof(store->temporary) || c < 0 ||
	    (size_t)c >= sizeof(store->final)) {
		return -ENAMETOOLONG;
	}
	return 0;
}

int gw_store_open(const char *models, const char *job, const char *unique, uint64_t size,
		  struct gw_store *ret_store)
{
	struct gw_store store = { .fd = -1, .size = size };
	void *memory;
	int rc = make_names(&store, models, job, unique);

	if (rc) {
		return rc;
	}
	if (mkdir(store.dir, 0770) && errno != EEXIST) {
		return -errno;
	}
	store.fd = open(store.temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0660);
	if (store.fd < 0) {
		return -errno;
	}
	/* Blocks are reserved now, so that a full disk is an answer and not a SIGBUS. */
	if (fallocate(store.fd, 0, 0, (off_t)size) &&
	    (errno != EOPNOTSUPP || ftruncate(store.fd, (off_t)size))) {
		rc = -errno;
		gw_store_fini(&store);
		return rc;
	}
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, store.fd, 0);
	if (memory == MAP_FAILED) {
		rc = -errno;
		gw_store_fini(&store);
		return rc;
	}
	store.memory = memory;
	*ret_store = store;
	return 0;
}

/* 1: same bytes, 0: not, -errno */
static int same_content(const struct gw_store *store)
{
	int fd = open(store->final, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	void *memory;
	int rc;

	if (fd < 0) {
		return -errno;
	}
	if (fstat(fd, &st) || (uint64_t)st.st_size != store->size) {
		(void)close(fd);
		return 0;
	}
	memory = mmap(NULL, store->size, PROT_READ, MAP_SHARED, fd, 0);
	(void)close(fd);
	if (memory == MAP_FAILED) {
		return -errno;
	}
	rc = memcmp(memory, store->memory, store->size) == 0;
	(void)munmap(memory, store->size);
	return rc;
}

int gw_store_settle(struct gw_store *store)
{
	int rc;

	if (fsync(store->fd)) {
		return -errno;
	}
	if (link(store->temporary, store->final) == 0) {
		store->created = true;
		return trib_directory_sync(store->dir);
	}
	if (errno != EEXIST) {
		return -errno;
	}
	rc = same_content(store);
	store->differs = rc == 0;
	return rc < 0 ? rc : 0;
}

int gw_store_replace(struct gw_store *store)
{
	int rc;

	(void)pthread_mutex_lock(&names);
	rc = rename(store->temporary, store->final) ? -errno : 0;
	(void)pthread_mutex_unlock(&names);
	if (rc) {
		return rc;
	}
	store->temporary[0] = '\0';
	return trib_directory_sync(store->dir);
}

void gw_store_withdraw(struct gw_store *store)
{
	struct stat ours;
	struct stat now;

	if (!store->created) {
		return;
	}
	(void)pthread_mutex_lock(&names);
	if (fstat(store->fd, &ours) == 0 && lstat(store->final, &now) == 0 &&
	    ours.st_dev == now.st_dev && ours.st_ino == now.st_ino) {
		(void)unlink(store->final); /* else the winner has replaced it already */
	}
	(void)pthread_mutex_unlock(&names);
	store->created = false;
}

void gw_store_fini(struct gw_store *store)
{
	if (store->memory) {
		(void)munmap(store->memory, store->size);
		store->memory = NULL;
	}
	if (store->fd >= 0) {
		(void)close(store->fd);
		store->fd = -1;
		if (store->temporary[0]) {
			(void)unlink(store->temporary);
			store->temporary[0] = '\0';
		}
	}
}
