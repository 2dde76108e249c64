/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up_paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "common/crypto.h"

#define LOCK_WAIT_MS 8000
#define LOCK_STEP_MS 100

static const char *const sockets[] = { "redis.sock",       "keeper.sock",
				       "agent.sock",       "orchestrator.admin.sock",
				       "agent.admin.sock", "gateway.admin.sock" };
#define LONGEST_SOCKET (sizeof("/orchestrator.admin.sock") - 1)

static int make_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) && errno != EEXIST) {
		cli_say("%s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	if (stat(path, &st) || !S_ISDIR(st.st_mode) || access(path, R_OK | W_OK | X_OK)) {
		cli_say("%s: not a directory that can be written to", path);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int make_sub(const struct up_paths *paths, const char *name)
{
	char path[UP_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", paths->dir, name);
	return make_dir(path);
}

/* A short directory of our own for the sockets; the same one each time for the same DIR. */
static int make_short_run(struct up_paths *paths)
{
	const char *base = getenv("XDG_RUNTIME_DIR"); /* NOLINT(concurrency-mt-unsafe) */
	struct trib_digest digest = trib_digest(paths->dir, strlen(paths->dir));
	struct stat st;

	for (int i = 0; i < 2; i++, base = "/tmp") {
		if (!base || !*base || strlen(base) + 32 + LONGEST_SOCKET >= UP_SOCKET_MAX) {
			continue;
		}
		(void)snprintf(paths->run, sizeof(paths->run), "%s/trib-%u-%08x", base,
			       (unsigned)getuid(), (unsigned)digest.high);
		if (mkdir(paths->run, 0700) && errno != EEXIST) {
			continue;
		}
		if (lstat(paths->run, &st) || !S_ISDIR(st.st_mode) || st.st_uid != getuid() ||
		    (st.st_mode & 077)) {
			cli_say("%s: not ours alone", paths->run);
			continue;
		}
		paths->run_elsewhere = true;
		return CLI_OK;
	}
	cli_say("no place for sockets: %s is too long for them, and neither XDG_RUNTIME_DIR nor "
		"/tmp could be used",
		paths->dir);
	return CLI_FAILED;
}

static pid_t lock_holder(int fd)
{
	char text[32] = "";
	ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
	uint64_t pid;

	if (size <= 1 || trib_parse_u64(text, (size_t)size - 1, 1, INT_MAX, &pid) ||
	    (kill((pid_t)pid, 0) && errno == ESRCH)) {
		return 0;
	}
	return (pid_t)pid;
}

static int take_lock(struct up_paths *paths)
{
	char path[UP_PATH_MAX];
	char text[32];
	int waited = 0;
	int size;

	(void)snprintf(path, sizeof(path), "%s/up.lock", paths->dir);
	paths->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (paths->lock_fd < 0) {
		cli_say("%s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	while (flock(paths->lock_fd, LOCK_EX | LOCK_NB)) {
		int why = errno;
		pid_t holder = lock_holder(paths->lock_fd);

		if (why != EWOULDBLOCK && why != EINTR) {
			cli_say("%s: %s", path, strerror(why));
			return CLI_FAILED;
		}
		if (holder || waited >= LOCK_WAIT_MS) {
			cli_say("%s is in use by another `tributary up` (process %d)", paths->dir,
				(int)holder);
			(void)close(paths->lock_fd);
			paths->lock_fd = -1;
			return CLI_FAILED;
		}
		if (waited == 0) {
			cli_say("waiting for processes of a former `tributary up` to end");
		}
		waited += LOCK_STEP_MS;
		(void)poll(NULL, 0, LOCK_STEP_MS);
	}
	size = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(paths->lock_fd, 0) || pwrite(paths->lock_fd, text, (size_t)size, 0) != size) {
		cli_say("%s: %s", path, strerror(errno));
		return CLI_FAILED;
	}
	return CLI_OK;
}

static void forget_endpoints(const struct up_paths *paths)
{
	char path[UP_PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/endpoints.json", paths->dir);
	(void)unlink(path);
}

int up_paths_open(struct up_paths *paths, const char *dir, const char *logs)
{
	char *real;
	int rc;

	memset(paths, 0, sizeof(*paths));
	paths->lock_fd = -1;
	rc = make_dir(dir);
	if (rc) {
		return rc;
	}
	real = realpath(dir, NULL);
	if (!real || trib_copy(paths->dir, sizeof(paths->dir), real)) {
		cli_say("%s: path too long", dir);
		trib_free(real);
		return CLI_FAILED;
	}
	trib_free(real);
	rc = take_lock(paths);
	if (rc) {
		return rc;
	}
	forget_endpoints(paths); /* of an `up` that was killed */
	rc = make_sub(paths, "redis");
	rc = rc ? rc : make_sub(paths, "models");
	if (logs) {
		(void)snprintf(paths->logs, sizeof(paths->logs), "%s", logs);
	} else {
		(void)snprintf(paths->logs, sizeof(paths->logs), "%s/logs", paths->dir);
	}
	rc = rc ? rc : make_dir(paths->logs);
	if (rc) {
		return rc;
	}
	(void)snprintf(paths->run, sizeof(paths->run), "%s/run", paths->dir);
	if (strlen(paths->run) + LONGEST_SOCKET >= UP_SOCKET_MAX) {
		rc = make_short_run(paths);
		if (rc) {
			paths->run[0] = '\0';
		}
		return rc;
	}
	return make_dir(paths->run);
}

void up_paths_close(struct up_paths *paths)
{
	char path[UP_PATH_MAX];

	if (paths->lock_fd < 0) {
		return; /* never ours */
	}
	for (size_t i = 0; paths->run[0] && i < TRIB_COUNT(sockets); i++) {
		up_socket_path(paths, sockets[i], path);
		(void)unlink(path);
	}
	if (paths->run[0]) {
		(void)rmdir(paths->run);
	}
	forget_endpoints(paths);
	if (ftruncate(paths->lock_fd, 0)) {
		cli_say("up.lock: %s", strerror(errno)); /* harmless: the lock itself counts */
	}
	(void)close(paths->lock_fd);
	paths->lock_fd = -1;
}

void up_socket_path(const struct up_paths *paths, const char *name, char *out)
{
	(void)snprintf(out, UP_PATH_MAX, "%s/%s", paths->run, name);
}

int up_write_file(const struct up_paths *paths, const char *name, const char *text)
{
	char path[UP_PATH_MAX];
	char partial[UP_PATH_MAX];
	FILE *file;
	int rc = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", paths->dir, name);
	(void)snprintf(partial, sizeof(partial), "%s/.%s.tmp", paths->dir, name);
	file = fopen(partial, "we");
	if (!file) {
		return -errno;
	}
	if (fputs(text, file) < 0) {
		rc = -EIO;
	}
	if (fclose(file) || rc || rename(partial, path)) {
		rc = rc ? rc : -errno;
		(void)unlink(partial);
	}
	return rc;
}
