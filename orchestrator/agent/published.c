/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/agent/published.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"
#include "common/log.h"
#include "orchestrator/agent/filer.h"
#include "orchestrator/agent/warm.h"
#include "shm/keeper.h"
#include "shm/map.h"

#define MAGIC        0x4c444d54u
#define LOOK_MS      200   /* between looks at what has not got on */
#define RETRY_MS     1000  /* after a file could not be written */
#define RELEASE_MS   2000  /* for a gateway to let go of a memory */
#define FORGOTTEN_MS 30000 /* nobody has published it, and its job is not here */
#define FAMILY_MS    5000  /* between looks for the job of a memory */
#define ASK_MS       10000 /* it is published by then, else looked at less often */
#define WARM_BYTES   (1u << 20)

/* The page after the file's bytes, for the agent after this one. Only agents can write it. */
struct trailer {
	uint32_t magic;
	uint32_t version; /* + 1; 0: the bytes are not complete */
	uint32_t durable;
	uint32_t reserved;
	uint64_t name;
	uint64_t size;
	uint64_t head;
	char job[TRIB_JOB_ID_SIZE];
	char digest[40];
};

/* ---- the table ---- */

static uint64_t memory_size(uint64_t size)
{
	return trib_round_up(size, AGENT_FILE_ALIGN) + AGENT_FILE_ALIGN;
}

static struct trailer *trailer(const struct agent_model *m)
{
	return (struct trailer *)(void *)(m->memory + trib_round_up(m->size, AGENT_FILE_ALIGN));
}

static uint32_t bucket_of(const char *job)
{
	uint32_t hash = 2166136261u;

	for (const char *c = job; *c; c++) {
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	}
	return hash % AGENT_MODEL_BUCKETS;
}

static struct agent_model *first_of(const struct agent *agent, const char *job)
{
	struct agent_model *m = agent->models[bucket_of(job)];

	while (m && strcmp(m->job, job) != 0) {
		m = m->next;
	}
	return m;
}

static struct agent_model *next_of(const struct agent_model *m)
{
	struct agent_model *next = m->next;

	while (next && strcmp(next->job, m->job) != 0) {
		next = next->next;
	}
	return next;
}

static struct agent_model *by_name(const struct agent *agent, const char *job, uint64_t name)
{
	struct agent_model *m = first_of(agent, job);

	while (m && m->name != name) {
		m = next_of(m);
	}
	return m;
}

static void forget(struct agent *agent, struct agent_model *m)
{
	struct agent_model **at = &agent->models[bucket_of(m->job)];

	while (*at && *at != m) { /* one that never was entered is not there */
		at = &(*at)->next;
	}
	if (*at) {
		*at = m->next;
		agent_unkeep(agent, "m:%s:%llx", m->job, (unsigned long long)m->name);
		agent->arena_used -= memory_size(m->size);
	}
	if (m->memory) {
		(void)munmap(m->memory, memory_size(m->size));
	}
	if (m->fd >= 0) {
		(void)close(m->fd);
	}
	if (m->read_fd >= 0) {
		(void)close(m->read_fd);
	}
	trib_free(m);
}

static void enter(struct agent *agent, struct agent_model *m)
{
	struct agent_model **bucket = &agent->models[bucket_of(m->job)];

	m->next = *bucket;
	*bucket = m;
	agent->arena_used += memory_size(m->size);
}

/* ---- made ---- */

static int map(struct agent_model *m)
{
	void *memory;
	int rc = trib_map_shared(m->fd, memory_size(m->size), PROT_READ | PROT_WRITE, &memory);

	if (rc) {
		return rc;
	}
	m->memory = memory;
	m->read_fd = trib_fd_read_only(m->fd);
	return m->read_fd < 0 ? m->read_fd : 0;
}

static int make(struct agent *agent, struct agent_model *m, int v0)
{
	struct trailer *t;
	char name[TRIB_KEEPER_NAME];
	int rc = trib_random(&m->name, sizeof(m->name));

	m->fd = rc ? -1 : memfd_create("tributary-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0) {
		return rc ? rc : -errno;
	}
	if (ftruncate(m->fd, (off_t)memory_size(m->size)) ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		return -errno;
	}
	rc = map(m);
	if (rc) {
		return rc;
	}
	if (pread(v0, m->memory, m->head, 0) != (ssize_t)m->head) {
		return -EIO;
	}
	t = trailer(m);
	*t = (struct trailer){ .magic = MAGIC, .name = m->name, .size = m->size, .head = m->head };
	memcpy(t->job, m->job, sizeof(t->job));
	(void)snprintf(name, sizeof(name), "m:%s:%llx", m->job, (unsigned long long)m->name);
	return agent_keep(agent, name, m->fd);
}

/* A memory of the job, FREE; NULL: there cannot be one now. */
static struct agent_model *new_memory(struct agent_job *job)
{
	struct agent_model *m;
	uint64_t head;
	int v0 = agent_model_open(job->agent, job->id, 0, &head);
	int rc;

	if (v0 < 0) {
		return NULL;
	}
	m = trib_alloc(sizeof(*m));
	if (!m) {
		(void)close(v0);
		return NULL;
	}
	m->fd = -1;
	m->read_fd = -1;
	m->head = head;
	m->size = head + job->elements * sizeof(float);
	memcpy(m->job, job->id, sizeof(m->job));
	rc = make(job->agent, m, v0);
	(void)close(v0);
	if (rc) {
		log_err("published", "event=no-memory job=%s rc=%d", job->id, rc);
		forget(job->agent, m);
		return NULL;
	}
	enter(job->agent, m);
	return m;
}

static struct agent_model *free_one(const struct agent_job *job, uint32_t *ret_count)
{
	struct agent_model *found = NULL;

	*ret_count = 0;
	for (struct agent_model *m = first_of(job->agent, job->id); m; m = next_of(m)) {
		++*ret_count;
		if (m->state == AGENT_MODEL_FREE) {
			found = m;
		}
	}
	return found;
}

struct agent_model *agent_published_fill(struct agent_job *job, bool anew)
{
	uint32_t count;
	struct agent_model *m = free_one(job, &count);

	if (!m && anew && count < AGENT_MODELS_PER_JOB) {
		m = new_memory(job);
	}
	if (m) {
		m->state = AGENT_MODEL_FILLING;
	}
	return m;
}

void agent_published_prepare(struct agent_job *job)
{
	uint32_t count;
	struct agent_model *m = free_one(job, &count);

	if (m || count >= 2) { /* the base and the next one */
		return;
	}
	m = new_memory(job);
	if (m && m->size >= WARM_BYTES) {
		agent_warmer_touch(job->agent->warmer, job->id, m->fd, m->size);
	}
	if (m && !job->out && agent_out_make(job) == 0 && m->size >= WARM_BYTES) {
		agent_warmer_touch(job->agent->warmer, job->id, job->out->fd, job->out->size);
	}
}

/* ---- let go ---- */

static void dispose(struct agent *agent, struct agent_model *m)
{
	if (m->given || m->filing || m->state == AGENT_MODEL_FILLING) {
		return; /* when that is over */
	}
	if (m->surplus) {
		forget(agent, m);
		return;
	}
	__atomic_store_n(&trailer(m)->version, 0, __ATOMIC_RELEASE);
	m->state = AGENT_MODEL_FREE;
	m->version = 0;
	m->digest[0] = '\0';
	m->published = false;
	m->durable = false;
	m->unwanted = false;
	m->owed = 0;
	m->asked = 0;
}

static void describe(const struct agent_model *m, enum trib_link_kind kind,
		     struct trib_link_message *out)
{
	*out = (struct trib_link_message){
		.magic = TRIB_LINK_MAGIC,
		.kind = kind,
		.model = { .memory = m->name, .size = m->size, .version = m->version },
	};
	memcpy(out->job, m->job, sizeof(out->job));
	(void)snprintf(out->model.digest, sizeof(out->model.digest), "%s", m->digest);
}

static void release(struct agent *agent, struct agent_model *m)
{
	struct trib_link_message message;

	if (!m->unwanted) {
		m->unwanted = true;
		m->owed = 0;
		m->since_ms = trib_clock_ms();
	}
	describe(m, TRIB_LINK_RELEASE, &message);
	message.result = m->published && m->durable ? 0 : -ESTALE;
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if ((m->given & ~m->asked) >> i & 1 &&
		    agent_link_send(&agent->links[i], &message, -1) == 0) {
			m->asked |= 1u << i;
		}
	}
	dispose(agent, m);
}

/* ---- its file ---- */

static void file(struct agent *agent, struct agent_model *m)
{
	struct agent_file file = {
		.version = m->version, .memory = m->memory, .size = m->size, .owner = m
	};

	if (m->durable || m->filing) {
		return;
	}
	memcpy(file.job, m->job, sizeof(file.job));
	m->filing = agent_filer_put(agent->filer, &file) == 0;
	m->failed_ms = m->filing ? 0 : trib_clock_ms();
}

void agent_published_filed(struct agent_file *done, void *arg)
{
	struct agent *agent = arg;
	struct agent_model *m = done->owner;
	struct agent_job *job = agent_job_find(agent, m->job);

	m->filing = false;
	if (done->rc == 0) {
		m->durable = true;
		trailer(m)->durable = 1;
		agent_count(AGENT_M_MODELS_FILED, 1);
		log_debug("published", "event=filed job=%s version=%u", m->job, m->version);
	} else if (!m->unwanted) {
		m->failed_ms = trib_clock_ms();
		agent_count(AGENT_M_MODELS_UNFILED, 1);
		log_err("published", "event=not-filed job=%s version=%u rc=%d", m->job, m->version,
			done->rc);
	}
	if (m->unwanted || (m->durable && job && m->version < job->base)) {
		release(agent, m);
	}
	if (job) {
		agent_round_advance(job); /* a report may have waited for it */
	}
}

/* ---- published? ---- */

struct asked {
	struct agent *agent;
	uint64_t name;
	char job[TRIB_JOB_ID_SIZE];
};

static void on_record(const struct trib_value *value, void *arg)
{
	struct asked *asked = arg;
	struct agent *agent = asked->agent;
	struct agent_model *m = by_name(agent, asked->job, asked->name);
	const char *text =
		value && trib_value_type(value) == TRIB_VALUE_TEXT ? trib_value_text(value) : "";
	struct agent_job *job = agent_job_find(agent, asked->job);
	size_t length = strcspn(text, "|");

	trib_free(asked);
	if (!m || !m->asking) {
		return;
	}
	m->asking = false;
	if (m->state != AGENT_MODEL_HELD || m->unwanted || !text[length]) {
		return;
	}
	if (strlen(m->digest) == length && strncmp(m->digest, text, length) == 0) {
		m->published = true;
		file(agent, m);
		return;
	}
	log_warn("published", "event=another-was-published job=%s version=%u", m->job, m->version);
	if (job && job->peers.have_version == m->version + 1) {
		job->peers.have_version = 0;
	}
	release(agent, m);
}

static void ask(struct agent *agent, struct agent_model *m)
{
	struct asked *asked;
	char key[TRIB_JOB_ID_SIZE + 16];
	char version[12];

	if (m->state != AGENT_MODEL_HELD || m->published || m->asking || m->unwanted) {
		return;
	}
	asked = trib_alloc(sizeof(*asked));
	if (!asked) {
		return;
	}
	asked->agent = agent;
	asked->name = m->name;
	memcpy(asked->job, m->job, sizeof(asked->job));
	(void)snprintf(key, sizeof(key), "trib:{%s}:models", m->job);
	(void)snprintf(version, sizeof(version), "%u", m->version);
	if (trib_redis_send(agent->redis, on_record, asked, "HGET", key, version, NULL)) {
		trib_free(asked); /* the tick asks again */
		return;
	}
	m->asking = true;
}

void agent_published_look(struct agent *agent, const char *job)
{
	for (struct agent_model *m = first_of(agent, job); m; m = next_of(m)) {
		ask(agent, m);
	}
}

/* ---- a round ---- */

void agent_published_filled(struct agent *agent, struct agent_model *m, int rc, uint32_t version,
			    const char *digest)
{
	struct agent_model *next;

	log_debug("published", "event=hashed job=%s version=%u", m->job, version);
	m->state = AGENT_MODEL_HELD;
	if (rc || m->surplus) {
		dispose(agent, m);
		return;
	}
	for (struct agent_model *other = first_of(agent, m->job); other; other = next) {
		next = next_of(other);
		if (other != m && other->state == AGENT_MODEL_HELD && other->version == version) {
			release(agent, other); /* made again, of other updates perhaps */
		}
	}
	m->version = version;
	(void)snprintf(m->digest, sizeof(m->digest), "%s", digest);
	m->since_ms = trib_clock_ms();
	memcpy(trailer(m)->digest, m->digest, sizeof(m->digest));
	trailer(m)->durable = 0;
	__atomic_store_n(&trailer(m)->version, version + 1, __ATOMIC_RELEASE);
	agent_published_offer(agent, m);
}

bool agent_published_waits(const struct agent_job *job, uint32_t version)
{
	for (struct agent_model *m = first_of(job->agent, job->id); m; m = next_of(m)) {
		if (m->state == AGENT_MODEL_HELD && !m->unwanted && !m->durable &&
		    m->version < version) {
			return true;
		}
	}
	return false;
}

void agent_published_trim(struct agent_job *job, uint32_t base)
{
	struct agent_model *next;

	for (struct agent_model *m = first_of(job->agent, job->id); m; m = next) {
		next = next_of(m);
		if (m->state == AGENT_MODEL_HELD && m->durable && m->version < base) {
			release(job->agent, m);
		}
	}
}

struct agent_model *agent_published_find(const struct agent *agent, const char *job,
					 uint32_t version)
{
	for (struct agent_model *m = first_of(agent, job); m; m = next_of(m)) {
		if (m->state == AGENT_MODEL_HELD && m->published && !m->unwanted &&
		    m->version == version) {
			return m;
		}
	}
	return NULL;
}

bool agent_published_holds(const struct agent *agent, const char *job, uint32_t version)
{
	const struct agent_model *m = first_of(agent, job);

	while (m && (m->state != AGENT_MODEL_HELD || m->unwanted || m->version != version)) {
		m = next_of(m);
	}
	return m != NULL;
}

/* ---- gateways ---- */

/* One that lets go of nothing gets nothing more: what waits in its socket is memory, too. */
static bool deaf(const struct agent *agent, uint32_t link)
{
	return agent->links[link].fd < 0 || !agent->links[link].greeted || agent->links[link].deaf;
}

static void tell(struct agent *agent, struct agent_model *m)
{
	struct trib_link_message message;

	describe(m, TRIB_LINK_MODEL, &message);
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if (m->owed >> i & 1 && !deaf(agent, i) &&
		    agent_link_send(&agent->links[i], &message, m->read_fd) == 0) {
			m->owed &= ~(1u << i);
			m->given |= 1u << i;
		}
	}
}

void agent_published_offer(struct agent *agent, struct agent_model *m)
{
	for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
		if (agent->links[i].fd >= 0 && agent->links[i].greeted && !(m->given >> i & 1)) {
			m->owed |= 1u << i;
		}
	}
	tell(agent, m);
}

void agent_published_link(struct agent *agent, const struct agent_link *link)
{
	uint32_t bit = 1u << (link - agent->links);

	for (uint32_t b = 0; b < AGENT_MODEL_BUCKETS; b++) {
		for (struct agent_model *m = agent->models[b]; m; m = m->next) {
			if (m->state == AGENT_MODEL_HELD && !m->unwanted) {
				m->owed |= bit;
				tell(agent, m);
			}
		}
	}
}

void agent_published_unlink(struct agent *agent, const struct agent_link *link)
{
	uint32_t bit = 1u << (link - agent->links);

	for (uint32_t b = 0; b < AGENT_MODEL_BUCKETS; b++) {
		struct agent_model *next;

		for (struct agent_model *m = agent->models[b]; m; m = next) {
			next = m->next;
			m->owed &= ~bit;
			m->asked &= ~bit;
			if (!(m->given & bit)) {
				continue;
			}
			m->given &= ~bit; /* it may live on and serve from it */
			m->surplus = true;
			if (m->unwanted) {
				dispose(agent, m);
			}
		}
	}
}

void agent_published_released(struct agent *agent, const struct agent_link *link,
			      const struct trib_link_message *message)
{
	struct agent_model *m = by_name(agent, message->job, message->model.memory);
	uint32_t bit = 1u << (link - agent->links);

	if (!m || !(m->given & m->asked & bit)) {
		return;
	}
	m->given &= ~bit;
	m->asked &= ~bit;
	if (message->result) {
		agent_count(AGENT_M_MODELS_GIVEN_UP, 1);
		m->surplus = true; /* a download of it goes on */
	}
	dispose(agent, m);
}

/* ---- time ---- */

/* Memory of a job that is not here (any more), or does nothing. */
static void look_after(struct agent *agent, struct agent_model *m, uint64_t now)
{
	struct agent_job *job;

	if (now - m->looked_ms < FAMILY_MS) {
		return;
	}
	m->looked_ms = now;
	job = agent_job_find(agent, m->job);
	if (job && (m->state == AGENT_MODEL_FILLING ||
		    now - job->busy_ms <
			    (m->state == AGENT_MODEL_HELD ? 6 : 1) * agent->options.idle_ms)) {
		return;
	}
	if (m->state == AGENT_MODEL_FREE) {
		forget(agent, m);
	} else if (m->state == AGENT_MODEL_HELD && !m->unwanted && m->durable &&
		   now - m->since_ms >= agent->options.idle_ms) {
		m->surplus = true;
		release(agent, m);
	} else if (m->state == AGENT_MODEL_HELD && !m->unwanted && !m->published && !job &&
		   now - m->since_ms >= FORGOTTEN_MS) {
		m->surplus = true;
		release(agent, m);
	}
}

static void look(struct agent *agent, struct agent_model *m, uint64_t now)
{
	if (m->state == AGENT_MODEL_HELD && m->unwanted) {
		if (!m->given || now - m->since_ms < RELEASE_MS) {
			release(agent, m);
			return;
		}
		for (uint32_t i = 0; i < AGENT_LINKS_MAX; i++) {
			agent->links[i].deaf |= m->given >> i & 1;
		}
		agent_count(AGENT_M_MODELS_GIVEN_UP, 1);
		m->given = 0;
		m->surplus = true;
		dispose(agent, m);
		return;
	}
	if (m->state == AGENT_MODEL_HELD) {
		if (m->owed) {
			tell(agent, m);
		}
		/* A round that failed may leave one that nobody publishes. */
		if (now - m->since_ms < ASK_MS || now - m->looked_ms >= FAMILY_MS) {
			ask(agent, m);
		}
		if (m->published && !m->durable && now - m->failed_ms >= RETRY_MS) {
			file(agent, m);
		}
	}
	look_after(agent, m, now);
}

void agent_published_tick(struct agent *agent, uint64_t now)
{
	if (now - agent->models_ms < LOOK_MS) {
		return;
	}
	agent->models_ms = now;
	for (uint32_t b = 0; b < AGENT_MODEL_BUCKETS; b++) {
		struct agent_model *next;

		for (struct agent_model *m = agent->models[b]; m; m = next) {
			next = m->next;
			look(agent, m, now);
		}
	}
}

void agent_published_purge(struct agent *agent, const char *job)
{
	struct agent_model *next;

	agent_filer_cancel(agent->filer, job);
	for (struct agent_model *m = first_of(agent, job); m; m = next) {
		next = next_of(m);
		m->surplus = true;
		m->durable = false; /* its file goes */
		if (m->state == AGENT_MODEL_HELD) {
			release(agent, m);
		} else {
			dispose(agent, m);
		}
	}
}

/* ---- an agent after another ---- */

static bool sane(const struct trailer *t, uint64_t size)
{
	struct trib_id id;

	return t->magic == MAGIC && t->version && t->size <= size && t->head >= 8 &&
	       t->head < t->size && memory_size(t->size) == size &&
	       memchr(t->job, 0, sizeof(t->job)) && memchr(t->digest, 0, sizeof(t->digest)) &&
	       trib_id_parse("job_", t->job, &id) == 0;
}

static int adopt(struct agent_model *m, uint64_t size)
{
	struct trailer t;
	int rc;

	if (pread(m->fd, &t, sizeof(t), (off_t)(size - AGENT_FILE_ALIGN)) != (ssize_t)sizeof(t) ||
	    !sane(&t, size)) {
		return -EBADMSG;
	}
	m->size = t.size;
	m->head = t.head;
	m->name = t.name;
	m->version = t.version - 1;
	m->durable = t.durable;
	m->surplus = true; /* a gateway we do not know of may serve from it */
	m->state = AGENT_MODEL_HELD;
	m->since_ms = trib_clock_ms();
	memcpy(m->job, t.job, sizeof(m->job));
	memcpy(m->digest, t.digest, sizeof(m->digest));
	rc = map(m);
	return rc;
}

bool agent_published_adopt(struct agent *agent, int fd)
{
	struct agent_model *m = trib_alloc(sizeof(*m));
	struct stat st;

	if (!m) {
		(void)close(fd);
		return true;
	}
	m->fd = fd;
	m->read_fd = -1;
	if (fstat(fd, &st) || st.st_size < 2 * AGENT_FILE_ALIGN || adopt(m, (uint64_t)st.st_size)) {
		forget(agent, m);
		return false;
	}
	if (by_name(agent, m->job, m->name)) { /* listed once more */
		forget(agent, m);
		return true;
	}
	enter(agent, m);
	log_info("published", "event=adopted job=%s version=%u durable=%d", m->job, m->version,
		 m->durable);
	return true;
}

void agent_published_stop(struct agent *agent)
{
	for (uint32_t b = 0; agent->filer && b < AGENT_MODEL_BUCKETS; b++) {
		for (struct agent_model *m = agent->models[b]; m; m = m->next) {
			if (m->state == AGENT_MODEL_HELD && !m->unwanted) {
				file(agent, m);
			}
		}
	}
	agent->filer = agent_filer_free(agent->filer);
}
