/* SPDX-License-Identifier: Apache-2.0
 * What goes to and comes from other nodes, one thread for each transfer: they are few (one sum per
 * round and node, one file per version), long, and must not wait for each other when a peer hangs.
 */
#include "orchestrator/agent/peers.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/files.h"
#include "common/http_client.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "orchestrator/agent/agent.h"

#define SLOWEST       1000u /* bytes per ms; and.. */
#define PATIENCE_MS   20000 /* ..this before it */
#define CHUNK         (256u << 10)
#define WAKE_RETRY_MS 5

static uint32_t running; /* atomic */

struct agent_transfer *agent_transfer_new(struct agent *agent,
					  void (*done)(struct agent_transfer *transfer))
{
	struct agent_transfer *t;

	if (__atomic_load_n(&running, __ATOMIC_ACQUIRE) >= AGENT_TRANSFERS_MAX) {
		agent_count(AGENT_M_TRANSFERS_REFUSED, 1);
		return NULL;
	}
	t = trib_alloc(sizeof(*t));
	if (t) {
		t->agent = agent;
		t->done = done;
		t->fd = -1;
	}
	return t;
}

void agent_transfer_free(struct agent_transfer *t)
{
	if (t && t->fd >= 0) {
		(void)close(t->fd);
	}
	trib_free(t);
}

static void on_done(void *arg)
{
	struct agent_transfer *t = arg;

	(void)__atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
	t->done(t);
	agent_transfer_free(t);
}

static void finish(struct agent_transfer *t)
{
	while (trib_loop_wake(t->agent->loop, on_done, t) == -ENOBUFS) {
		(void)poll(NULL, 0, WAKE_RETRY_MS);
	}
}

static int launch(struct agent_transfer *t, void *(*main_of)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	(void)__atomic_add_fetch(&running, 1, __ATOMIC_ACQ_REL);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = -pthread_create(&thread, &attr, main_of, t);
	(void)pthread_attr_destroy(&attr);
	if (rc) {
		(void)__atomic_sub_fetch(&running, 1, __ATOMIC_ACQ_REL);
	}
	return rc;
}

static int seal(struct agent_transfer *t, char header[TRIB_PEER_TEXT_SIZE + 16])
{
	char text[TRIB_PEER_TEXT_SIZE];
	int rc;

	t->peer.expires_ms = trib_wall_ms() + TRIB_PEER_VALID_MS;
	rc = trib_peer_seal(&t->peer, t->agent->ticket_key, text);
	(void)snprintf(header, TRIB_PEER_TEXT_SIZE + 16, "FL-Peer: %s", text);
	return rc;
}

/* ---- a sum ---- */

static int send_sum(struct agent_transfer *t, const uint8_t *body)
{
	char header[TRIB_PEER_TEXT_SIZE + 16];
	char url[512];
	struct trib_client_request request = {
		.method = "PUT",
		.url = url,
		.body = (const char *)body,
		.size = t->bytes,
		.headers = { header, "Content-Type: application/octet-stream" },
		.no_redirect = true,
		.timeout_ms = (long)(PATIENCE_MS + t->bytes / SLOWEST),
	};
	struct trib_client_answer answer;
	int rc;

	t->peer.crc = trib_crc32c(0, body, t->bytes);
	rc = seal(t, header);
	if (rc) {
		return rc;
	}
	(void)snprintf(url, sizeof(url), "%s/v1/internal/jobs/%s/rounds/%u/partials/%s", t->url[0],
		       t->job, t->round, t->peer.from);
	rc = trib_client_request(&request, &answer);
	t->status = answer.status;
	(void)snprintf(t->error, sizeof(t->error), "%.*s", (int)sizeof(t->error) - 1,
		       rc            ? answer.error
		       : answer.body ? answer.body
				     : "");
	trib_client_answer_fini(&answer);
	return rc;
}

static void *sum_main(void *arg)
{
	struct agent_transfer *t = arg;
	uint64_t size = t->offset + t->bytes;
	uint8_t *memory = mmap(NULL, size, PROT_READ, MAP_SHARED, t->fd, 0);

	if (memory == MAP_FAILED) {
		t->rc = -errno;
	} else {
		t->rc = send_sum(t, memory + t->offset);
		(void)munmap(memory, size);
	}
	finish(t);
	return NULL;
}

int agent_transfer_sum(struct agent_transfer *t)
{
	return launch(t, sum_main);
}

/* ---- a model ---- */

struct file {
	char dir[512];
	char path[600];
	char temporary[640];
};

static void names(const struct agent_transfer *t, struct file *f)
{
	(void)snprintf(f->dir, sizeof(f->dir), "%s/%s", t->agent->options.models, t->job);
	(void)snprintf(f->path, sizeof(f->path), "%s/v%u.safetensors", f->dir, t->round);
	(void)snprintf(f->temporary, sizeof(f->temporary), "%s/v%u.safetensors.fetch%p", f->dir,
		       t->round, (const void *)t);
}

/* Is it a safetensors file whose data have this size and digest? */
static int check(const char *path, uint64_t bytes, const char *digest)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t *buffer = trib_alloc(CHUNK);
	struct trib_hasher *hasher = NULL;
	char text[TRIB_DIGEST_TEXT_SIZE];
	struct stat st;
	uint64_t head = 0;
	int rc = fd < 0 ? -errno : !buffer ? -ENOMEM : trib_hasher_new(&hasher);

	if (!rc &&
	    (fstat(fd, &st) || !S_ISREG(st.st_mode) || (head = agent_model_data_offset(fd)) == 0 ||
	     (uint64_t)st.st_size != head + bytes)) {
		rc = -EBADMSG;
	}
	for (uint64_t at = 0; !rc && at < bytes;) {
		ssize_t n = pread(fd, buffer, bytes - at < CHUNK ? bytes - at : CHUNK,
				  (off_t)(head + at));

		if (n <= 0) {
			rc = n < 0 ? -errno : -EIO;
			break;
		}
		trib_hasher_update(hasher, buffer, (size_t)n);
		at += (uint64_t)n;
	}
	if (!rc) {
		trib_digest_print(trib_hasher_digest(hasher), text);
		rc = strcmp(text, digest) == 0 ? 0 : -EBADMSG;
	}
	(void)trib_hasher_free(hasher);
	trib_free(buffer);
	if (fd >= 0) {
		(void)close(fd);
	}
	return rc;
}

struct room {
	FILE *file;
	uint64_t left;
};

static bool on_data(const char *data, size_t size, void *arg)
{
	struct room *room = arg;

	if (size > room->left) {
		return false; /* more than such a file can have */
	}
	room->left -= size;
	return fwrite(data, 1, size, room->file) == size;
}

static int fetch_from(struct agent_transfer *t, const char *base, const struct file *f)
{
	char header[TRIB_PEER_TEXT_SIZE + 16];
	char url[512];
	struct room room = { .left = t->bytes + 8 + TRIB_TENSOR_HEADER_MAX };
	struct trib_client_request request = {
		.method = "GET",
		.url = url,
		.headers = { header },
		.on_data = on_data,
		.arg = &room,
		.no_redirect = true,
		.timeout_ms = (long)(PATIENCE_MS + t->bytes / SLOWEST),
	};
	struct trib_client_answer answer;
	int rc = seal(t, header);

	if (rc) {
		return rc;
	}
	(void)snprintf(url, sizeof(url), "%s/v1/internal/jobs/%s/models/%u", base, t->job,
		       t->round);
	room.file = fopen(f->temporary, "we");
	if (!room.file) {
		return -errno;
	}
	rc = trib_client_request(&request, &answer);
	t->status = answer.status;
	if (!rc && answer.status != 200) {
		rc = -ENOENT;
	}
	(void)snprintf(t->error, sizeof(t->error), "%.*s", (int)sizeof(t->error) - 1, answer.error);
	trib_client_answer_fini(&answer);
	if (fflush(room.file) || (!rc && fsync(fileno(room.file)))) {
		rc = rc ? rc : -errno;
	}
	if (fclose(room.file) && !rc) {
		rc = -EIO;
	}
	return rc;
}

static int fetch(struct agent_transfer *t, const struct file *f)
{
	int rc = -ENOENT;

	if (t->url_count == 0) {
		return rc;
	}
	if (mkdir(f->dir, 0770) && errno != EEXIST) {
		return -errno;
	}
	for (uint32_t i = 0; i < t->url_count && rc; i++) {
		rc = fetch_from(t, t->url[i], f);
		rc = rc ? rc : check(f->temporary, t->bytes, t->digest);
		rc = rc ? rc : rename(f->temporary, f->path) ? -errno : trib_directory_sync(f->dir);
		if (rc) {
			(void)unlink(f->temporary);
		}
	}
	if (rc) {
		(void)rmdir(f->dir); /* if it is empty: the job may be gone */
	}
	return rc;
}

/* The file of another version is this one's, too. Names of one file: nobody writes into it. */
static int copy(const struct agent_transfer *t, const struct file *f)
{
	char from[600];
	int rc;

	(void)snprintf(from, sizeof(from), "%s/v%u.safetensors", f->dir, t->source - 1);
	rc = check(from, t->bytes, t->digest);
	rc = rc ? rc : link(from, f->temporary) ? -errno : 0;
	rc = rc ? rc : rename(f->temporary, f->path) ? -errno : trib_directory_sync(f->dir);
	if (rc) {
		(void)unlink(f->temporary);
	} else {
		agent_count(AGENT_M_MODELS_COPIED, 1);
	}
	return rc;
}

static void *model_main(void *arg)
{
	struct agent_transfer *t = arg;
	struct file f;

	names(t, &f);
	t->rc = check(f.path, t->bytes, t->digest);
	t->absent = t->rc == -ENOENT || t->rc == -EBADMSG;
	if (t->rc && t->source) {
		t->rc = copy(t, &f);
	}
	if (t->rc) {
		t->fetched = true;
		t->rc = fetch(t, &f);
	}
	finish(t);
	return NULL;
}

int agent_transfer_model(struct agent_transfer *t)
{
	t->peer.kind = TRIB_PEER_MODEL;
	t->peer.round = t->round;
	t->peer.bytes = t->bytes;
	return trib_id_parse("job_", t->job, &t->peer.job) ||
			       trib_copy(t->peer.from, sizeof(t->peer.from), t->agent->options.node)
		       ? -EINVAL
		       : launch(t, model_main);
}
