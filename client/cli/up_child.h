/* SPDX-License-Identifier: Apache-2.0
 * One child process of `tributary up`: its words, its log, starting it and telling how it ended.
 * Loop thread only. A child is in a process group of its own (Ctrl-C reaches `up` alone) and gets
 * SIGTERM when `up` dies.
 */
#ifndef TRIB_CLIENT_CLI_UP_CHILD_H
#define TRIB_CLIENT_CLI_UP_CHILD_H

#include <sys/types.h>

#include "common/base.h"

#define UP_WORDS_MAX 64
#define UP_FDS_MAX   4

struct up_child {
	const char *name;
	char *words[UP_WORDS_MAX + 1]; /* owned, NULL-ended; words[0] is what is executed */
	size_t word_count;
	bool words_failed;   /* out of memory or too many */
	bool prompt;         /* common/prompt.h, for programs that are not ours */
	int fds[UP_FDS_MAX]; /* kept open across exec, borrowed */
	size_t fd_count;
	char *log_path; /* owned; NULL = our own stderr */
	pid_t pid;      /* 0 = not running */
	uint64_t started_ms;
	uint32_t failures; /* in a row; decides the back-off */
	uint32_t restarts;
	bool ready;
	bool was_ready; /* ever */
};

void up_child_init(struct up_child *child, const char *name);
void up_child_fini(struct up_child *child);
void up_child_word(struct up_child *child, const char *format, ...) TRIB_PRINTF(2, 3);
/* "--name value", unless value is NULL. */
void up_child_option(struct up_child *child, const char *name, const char *value);
/* File logs/<name>.log; a file above 64 MiB is moved to <name>.log.1 first. */
void up_child_log(struct up_child *child, const char *logs);

/* 0 or -errno; the child may still fail to execute (exit status 127). */
TRIB_MUST_CHECK int up_child_start(struct up_child *child);
void up_child_signal(const struct up_child *child, int signal_number);
/* Takes the wait status: the child is gone. Writes "exited with status 1" or "killed by SIGKILL"
 * and returns the exit status, -1 when killed. */
int up_child_ended(struct up_child *child, int status, char *out, size_t size);
/* How long to wait before the next start: 0, then 100 ms doubling to 2 s. */
uint64_t up_child_backoff(struct up_child *child);
/* Prints the last lines of its log on stderr. */
void up_child_tail(const struct up_child *child);

#endif
