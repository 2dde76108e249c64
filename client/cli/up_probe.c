/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up_probe.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX 4096

struct up_probe {
	struct trib_loop *loop;
	struct sockaddr_un address;
	const char *request;
	const char *enough;
	up_probe_cb *cb;
	void *arg;
	struct trib_io *io;
	struct trib_timer *timer;
	int fd;
	size_t size;
	char answer[ANSWER_MAX];
};

static void stop(struct up_probe *probe)
{
	probe->io = trib_io_free(probe->io);
	trib_timer_stop(probe->timer);
	if (probe->fd >= 0) {
		(void)close(probe->fd);
		probe->fd = -1;
	}
}

static void finish(struct up_probe *probe)
{
	stop(probe);
	probe->answer[probe->size] = '\0';
	probe->cb(probe->answer, probe->arg);
}

static void on_timeout(void *arg)
{
	struct up_probe *probe = arg;

	probe->size = 0;
	finish(probe);
}

static void on_readable(int fd, unsigned ready, void *arg)
{
	struct up_probe *probe = arg;
	ssize_t got;

	(void)ready;
	got = recv(fd, probe->answer + probe->size, ANSWER_MAX - 1 - probe->size, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (got > 0) {
		probe->size += (size_t)got;
		probe->answer[probe->size] = '\0';
		if (probe->size < ANSWER_MAX - 1 &&
		    !(probe->enough && strstr(probe->answer, probe->enough))) {
			return;
		}
	}
	finish(probe);
}

int up_probe_new(struct trib_loop *loop, const char *path, const char *request, const char *enough,
		 up_probe_cb *cb, void *arg, struct up_probe **ret_probe)
{
	struct up_probe *probe = trib_alloc(sizeof(*probe));
	int rc;

	if (!probe) {
		return -ENOMEM;
	}
	probe->loop = loop;
	probe->request = request;
	probe->enough = enough;
	probe->cb = cb;
	probe->arg = arg;
	probe->fd = -1;
	probe->address.sun_family = AF_UNIX;
	rc = trib_copy(probe->address.sun_path, sizeof(probe->address.sun_path), path);
	rc = rc ? rc : trib_timer_new(loop, on_timeout, probe, &probe->timer);
	if (rc) {
		trib_free(probe);
		return rc;
	}
	*ret_probe = probe;
	return 0;
}

struct up_probe *up_probe_free(struct up_probe *probe)
{
	if (probe) {
		stop(probe);
		probe->timer = trib_timer_free(probe->timer);
		trib_free(probe);
	}
	return NULL;
}

void up_probe_ask(struct up_probe *probe)
{
	size_t size = strlen(probe->request);

	if (probe->fd >= 0) {
		return;
	}
	probe->size = 0;
	probe->answer[0] = '\0';
	trib_timer_after(probe->timer, UP_PROBE_MS);
	probe->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* A local stream connects at once or not at all; the request fits its buffer. */
	if (probe->fd < 0 ||
	    connect(probe->fd, (const struct sockaddr *)&probe->address, sizeof(probe->address)) ||
	    send(probe->fd, probe->request, size, MSG_NOSIGNAL) != (ssize_t)size ||
	    trib_io_new(probe->loop, probe->fd, TRIB_IO_READ, on_readable, probe, &probe->io)) {
		if (probe->fd >= 0) {
			(void)close(probe->fd);
			probe->fd = -1;
		}
		trib_timer_after(probe->timer, 0); /* told from the loop, never from within ask */
	}
}

void up_probe_cancel(struct up_probe *probe)
{
	stop(probe);
}
