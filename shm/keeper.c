/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/keeper.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/link.h"

#define KEEPER_MAGIC 0x50454b54u
#define CLIENTS_MAX  16u
#define BUDGET       64u
#define ANSWER_MS    2000

enum keeper_op {
	KEEPER_PUT = 1,
	KEEPER_DROP = 2,
	KEEPER_GET = 3
};

struct keeper_message {
	uint32_t magic;
	uint32_t op;
	uint32_t index; /* GET: which entry; answer: -ENOENT past the last */
	int32_t result;
	char name[TRIB_KEEPER_NAME];
};

struct keeper_entry {
	char name[TRIB_KEEPER_NAME];
	int fds[TRIB_KEEPER_FDS];
	uint32_t count;
};

struct keeper_client {
	struct trib_keeper *keeper;
	struct trib_io *io;
	int fd;
};

struct trib_keeper {
	struct trib_loop *loop;
	struct trib_io *io;
	int fd;
	char path[108];
	struct keeper_client clients[CLIENTS_MAX];
	struct keeper_entry *entries; /* dense */
	uint32_t count;
};

static void entry_close(struct keeper_entry *entry)
{
	for (uint32_t i = 0; i < entry->count; i++) {
		(void)close(entry->fds[i]);
	}
	entry->count = 0;
}

static struct keeper_entry *find(struct trib_keeper *keeper, const char *name)
{
	for (uint32_t i = 0; i < keeper->count; i++) {
		if (strcmp(keeper->entries[i].name, name) == 0) {
			return &keeper->entries[i];
		}
	}
	return NULL;
}

/* Takes the fds. */
static int put(struct trib_keeper *keeper, const char *name, const int *fds, uint32_t count)
{
	struct keeper_entry *entry = find(keeper, name);

	if (!entry) {
		if (keeper->count == TRIB_KEEPER_MAX || count == 0) {
			for (uint32_t i = 0; i < count; i++) {
				(void)close(fds[i]);
			}
			return count ? -ENOSPC : -EINVAL;
		}
		entry = &keeper->entries[keeper->count++];
		memset(entry, 0, sizeof(*entry));
		memcpy(entry->name, name, TRIB_KEEPER_NAME);
	}
	entry_close(entry);
	memcpy(entry->fds, fds, count * sizeof(int));
	entry->count = count;
	return 0;
}

static void drop(struct trib_keeper *keeper, const char *name)
{
	struct keeper_entry *entry = find(keeper, name);

	if (entry) {
		entry_close(entry);
		*entry = keeper->entries[--keeper->count];
	}
}

static int serve(struct trib_keeper *keeper, int fd, struct keeper_message *m, const int *fds,
		 uint32_t count)
{
	struct keeper_message answer = { .magic = KEEPER_MAGIC, .op = m->op, .index = m->index };
	const struct keeper_entry *entry = NULL;

	switch ((enum keeper_op)m->op) {
	case KEEPER_PUT:
		answer.result = put(keeper, m->name, fds, count);
		return trib_fd_send(fd, &answer, sizeof(answer), NULL, 0);
	case KEEPER_DROP:
		drop(keeper, m->name);
		return trib_fd_send(fd, &answer, sizeof(answer), NULL, 0);
	case KEEPER_GET:
		if (m->index >= keeper->count) {
			answer.result = -ENOENT;
			return trib_fd_send(fd, &answer, sizeof(answer), NULL, 0);
		}
		entry = &keeper->entries[m->index];
		memcpy(answer.name, entry->name, sizeof(answer.name));
		return trib_fd_send(fd, &answer, sizeof(answer), entry->fds, entry->count);
	}
	return -EBADMSG;
}

static void client_close(struct keeper_client *client)
{
	client->io = trib_io_free(client->io);
	(void)close(client->fd);
	client->fd = -1;
	client->keeper = NULL;
}

static bool message_valid(struct keeper_message *m, int size)
{
	if (size != (int)sizeof(*m) || m->magic != KEEPER_MAGIC) {
		return false;
	}
	m->name[TRIB_KEEPER_NAME - 1] = '\0';
	return m->op == KEEPER_GET || m->name[0];
}

static void on_client(int fd, unsigned ready, void *arg)
{
	struct keeper_client *client = arg;

	(void)ready;
	for (uint32_t i = 0; i < BUDGET; i++) {
		struct keeper_message m;
		int fds[TRIB_KEEPER_FDS];
		uint32_t count = 0;
		int size = trib_fd_receive(fd, &m, sizeof(m), fds, TRIB_KEEPER_FDS, &count);

		if (size == -EAGAIN) {
			return;
		}
		if (size <= 0 || !message_valid(&m, size) || (m.op != KEEPER_PUT && count)) {
			for (uint32_t k = 0; k < count; k++) {
				(void)close(fds[k]);
			}
			client_close(client);
			return;
		}
		if (serve(client->keeper, fd, &m, fds, count)) {
			client_close(client);
			return;
		}
	}
}

static void on_accept(int fd, unsigned ready, void *arg)
{
	struct trib_keeper *keeper = arg;
	int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)ready;
	if (connection < 0) {
		return;
	}
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		struct keeper_client *client = &keeper->clients[i];

		if (client->fd >= 0) {
			continue;
		}
		if (trib_io_new(keeper->loop, connection, TRIB_IO_READ, on_client, client,
				&client->io)) {
			break;
		}
		client->fd = connection;
		client->keeper = keeper;
		return;
	}
	(void)close(connection);
}

int trib_keeper_new(struct trib_loop *loop, const char *path, struct trib_keeper **ret_keeper)
{
	struct trib_keeper *keeper = trib_alloc(sizeof(*keeper));
	int rc = -ENOMEM;

	if (!keeper) {
		return -ENOMEM;
	}
	keeper->loop = loop;
	keeper->fd = -1;
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		keeper->clients[i].fd = -1;
	}
	keeper->entries = trib_alloc_array(TRIB_KEEPER_MAX, sizeof(*keeper->entries));
	if (!keeper->entries) {
		goto fail;
	}
	rc = trib_unix_listen(path, &keeper->fd);
	if (rc) {
		goto fail;
	}
	rc = trib_copy(keeper->path, sizeof(keeper->path), path);
	if (rc) {
		goto fail;
	}
	rc = trib_io_new(loop, keeper->fd, TRIB_IO_READ, on_accept, keeper, &keeper->io);
	if (rc) {
		goto fail;
	}
	*ret_keeper = keeper;
	return 0;
fail:
	(void)trib_keeper_free(keeper);
	return rc;
}

struct trib_keeper *trib_keeper_free(struct trib_keeper *keeper)
{
	if (!keeper) {
		return NULL;
	}
	keeper->io = trib_io_free(keeper->io);
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		if (keeper->clients[i].fd >= 0) {
			client_close(&keeper->clients[i]);
		}
	}
	if (keeper->fd >= 0) {
		(void)close(keeper->fd);
		(void)unlink(keeper->path);
	}
	for (uint32_t i = 0; i < keeper->count; i++) {
		entry_close(&keeper->entries[i]);
	}
	trib_free(keeper->entries);
	trib_free(keeper);
	return NULL;
}

uint32_t trib_keeper_count(const struct trib_keeper *keeper)
{
	return keeper->count;
}

/* ---- client ---- */

static int receive_answer(int connection, struct keeper_message *m, int *fds, uint32_t *ret_count)
{
	struct pollfd p = { .fd = connection, .events = POLLIN };
	int rc = poll(&p, 1, ANSWER_MS);

	*ret_count = 0;
	if (rc <= 0) {
		return rc == 0 ? -ETIMEDOUT : -errno;
	}
	rc = trib_fd_receive(connection, m, sizeof(*m), fds, TRIB_KEEPER_FDS, ret_count);
	if (rc == (int)sizeof(*m) && m->magic == KEEPER_MAGIC) {
		m->name[TRIB_KEEPER_NAME - 1] = '\0';
		return 0;
	}
	for (uint32_t i = 0; i < *ret_count; i++) {
		(void)close(fds[i]);
	}
	*ret_count = 0;
	return rc < 0 ? rc : -ECONNRESET;
}

static int ask(int connection, enum keeper_op op, const char *name, const int *fds, uint32_t count)
{
	struct keeper_message m = { .magic = KEEPER_MAGIC, .op = op };
	int back[TRIB_KEEPER_FDS];
	uint32_t back_count;
	int rc = trib_copy(m.name, sizeof(m.name), name);

	if (!rc) {
		rc = trib_fd_send(connection, &m, sizeof(m), fds, count);
	}
	if (!rc) {
		rc = receive_answer(connection, &m, back, &back_count);
	}
	return rc ? rc : m.result;
}

int trib_keeper_put(int connection, const char *name, const int *fds, uint32_t count)
{
	if (count == 0 || count > TRIB_KEEPER_FDS) {
		return -EINVAL;
	}
	return ask(connection, KEEPER_PUT, name, fds, count);
}

int trib_keeper_drop(int connection, const char *name)
{
	return ask(connection, KEEPER_DROP, name, NULL, 0);
}

int trib_keeper_list(int connection,
		     void (*entry)(const char *name, int *fds, uint32_t count, void *arg),
		     void *arg)
{
	for (uint32_t i = 0; i <= TRIB_KEEPER_MAX; i++) {
		struct keeper_message m = { .magic = KEEPER_MAGIC, .op = KEEPER_GET, .index = i };
		int fds[TRIB_KEEPER_FDS];
		uint32_t count = 0;
		int rc = trib_fd_send(connection, &m, sizeof(m), NULL, 0);

		if (!rc) {
			rc = receive_answer(connection, &m, fds, &count);
		}
		if (rc) {
			return rc;
		}
		if (m.result == -ENOENT) {
			return 0;
		}
		entry(m.name, fds, count, arg);
	}
	return -EOVERFLOW;
}
