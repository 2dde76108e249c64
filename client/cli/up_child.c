/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/up_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/prompt.h"

#define LOG_ROTATE   (64ll << 20)
#define BACKOFF_MAX  2000u
#define BACKOFF_MIN  100u
#define STEADY_MS    10000u /* alive so long: its failures are forgotten */
#define TAIL_BYTES   2048
#define EXIT_NO_EXEC 127

void up_child_init(struct up_child *child, const char *name)
{
	memset(child, 0, sizeof(*child));
	child->name = name;
}

void up_child_fini(struct up_child *child)
{
	for (size_t i = 0; i < child->word_count; i++) {
		trib_free(child->words[i]);
	}
	trib_free(child->log_path);
	memset(child, 0, sizeof(*child));
}

void up_child_word(struct up_child *child, const char *format, ...)
{
	char text[4200];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (child->word_count == UP_WORDS_MAX || size < 0 || size >= (int)sizeof(text)) {
		child->words_failed = true;
		return;
	}
	child->words[child->word_count] = trib_strdup(text);
	if (child->words[child->word_count]) {
		child->word_count++;
	} else {
		child->words_failed = true;
	}
}

void up_child_option(struct up_child *child, const char *name, const char *value)
{
	if (value) {
		up_child_word(child, "--%s", name);
		up_child_word(child, "%s", value);
	}
}

void up_child_log(struct up_child *child, const char *logs)
{
	char path[4200];
	char old[4210];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/%s.log", logs, child->name);
	(void)snprintf(old, sizeof(old), "%s.1", path);
	if (stat(path, &st) == 0 && st.st_size > LOG_ROTATE) {
		(void)rename(path, old);
	}
	child->log_path = trib_strdup(path);
}

/* In the child, between fork and exec: async-signal-safe calls only. */
static void become(const struct up_child *child, pid_t parent, int log_fd, const sigset_t *mask)
{
	static const int handled[] = { SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGCHLD };
	int null_fd = open("/dev/null", O_RDONLY);

	(void)setpgid(0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent) {
		_exit(EXIT_NO_EXEC);
	}
	for (size_t i = 0; i < TRIB_COUNT(handled); i++) {
		(void)signal(handled[i], SIG_DFL);
	}
	(void)sigprocmask(SIG_SETMASK, mask, NULL);
	if (null_fd >= 0) {
		(void)dup2(null_fd, STDIN_FILENO);
		(void)close(null_fd);
	}
	if (log_fd >= 0) {
		(void)dup2(log_fd, STDOUT_FILENO);
		(void)dup2(log_fd, STDERR_FILENO);
	} else {
		(void)dup2(STDERR_FILENO, STDOUT_FILENO);
	}
	for (size_t i = 0; i < child->fd_count; i++) {
		(void)fcntl(child->fds[i], F_SETFD, 0);
	}
	if (child->prompt) {
		(void)trib_prompt();
	}
	(void)execvp(child->words[0], child->words);
	_exit(EXIT_NO_EXEC);
}

int up_child_start(struct up_child *child)
{
	pid_t parent = getpid();
	sigset_t all;
	sigset_t mask;
	int log_fd = -1;
	pid_t pid;

	if (child->words_failed) {
		return -ENOMEM;
	}
	if (child->log_path) {
		log_fd = open(child->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (log_fd < 0) {
			return -errno;
		}
	}
	/* Blocked until the child has no handlers: the loop's would write to our signal pipe. */
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, &mask);
	pid = fork();
	if (pid == 0) {
		become(child, parent, log_fd, &mask);
	}
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	if (log_fd >= 0) {
		(void)close(log_fd);
	}
	if (pid < 0) {
		return -errno;
	}
	child->pid = pid;
	child->ready = false;
	child->started_ms = trib_clock_ms();
	return 0;
}

void up_child_signal(const struct up_child *child, int signal_number)
{
	if (child->pid > 0) {
		(void)kill(child->pid, signal_number);
	}
}

int up_child_ended(struct up_child *child, int status, char *out, size_t size)
{
	if (trib_clock_ms() - child->started_ms > STEADY_MS) {
		child->failures = 0;
	}
	child->failures++;
	child->pid = 0;
	child->ready = false;
	if (WIFSIGNALED(status)) {
		const char *name = sigabbrev_np(WTERMSIG(status));

		(void)snprintf(out, size, "killed by SIG%s", name ? name : "?");
		return -1;
	}
	(void)snprintf(out, size, "exited with status %d", WEXITSTATUS(status));
	return WEXITSTATUS(status);
}

uint64_t up_child_backoff(struct up_child *child)
{
	uint64_t wait = BACKOFF_MIN;

	if (child->failures <= 1) {
		return 0;
	}
	for (uint32_t i = 2; i < child->failures && wait < BACKOFF_MAX; i++) {
		wait *= 2;
	}
	return wait < BACKOFF_MAX ? wait : BACKOFF_MAX;
}

void up_child_tail(const struct up_child *child)
{
	char text[TAIL_BYTES + 1];
	ssize_t size;
	off_t end;
	int fd;

	fd = child->log_path ? open(child->log_path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0) {
		return;
	}
	end = lseek(fd, 0, SEEK_END);
	size = pread(fd, text, TAIL_BYTES, end > TAIL_BYTES ? end - TAIL_BYTES : 0);
	(void)close(fd);
	if (size > 0) {
		const char *from = text;

		text[size] = '\0';
		if (end > TAIL_BYTES && strchr(text, '\n')) {
			from = strchr(text, '\n') + 1;
		}
		(void)fprintf(stderr, "--- end of %s:\n%s---\n", child->log_path, from);
	}
}
