/* SPDX-License-Identifier: Apache-2.0
 * --check-config: would the program start with these options? Looks at addresses, files and
 * directories without opening a port, connecting or writing anything. Every fault is told on stderr
 * as "program: --option: why", all of them, not the first alone.
 */
#ifndef TRIB_COMMON_CONFIG_CHECK_H
#define TRIB_COMMON_CONFIG_CHECK_H

#include "common/access.h"
#include "common/options.h"
#include "common/redis_login.h"
#include "common/tls.h"

struct trib_config_check {
	const char *program;
	unsigned faults;
};

void trib_config_fault(struct trib_config_check *check, const char *option, const char *format, ...)
	TRIB_PRINTF(3, 4);
void trib_config_listen(struct trib_config_check *check, const char *option, const char *address);
void trib_config_redis(struct trib_config_check *check, const char *option, const char *address);
/* Reads the files of passwords as a start would. */
void trib_config_redis_login(struct trib_config_check *check, const struct trib_redis_login *login);
/* http://.. or https://.. */
void trib_config_url(struct trib_config_check *check, const char *option, const char *url);
/* Something will be made at `path`: its directory must be there and take files. */
void trib_config_place(struct trib_config_check *check, const char *option, const char *path);
/* The same, and the path must do for a unix socket. */
void trib_config_socket(struct trib_config_check *check, const char *option, const char *path);
/* A directory that takes files, or a place to make it at. */
void trib_config_directory(struct trib_config_check *check, const char *option, const char *path);
void trib_config_program(struct trib_config_check *check, const char *option, const char *path);
/* A file to be read later; NULL or "": none, which is good. */
void trib_config_file(struct trib_config_check *check, const char *option, const char *path);
/* Reads the files as a start would. */
void trib_config_tls(struct trib_config_check *check, const struct trib_tls_files *files);
void trib_config_access(struct trib_config_check *check, const struct trib_access_config *config);
/* Prints the table's values on stdout and the verdict on stderr. Exit code: 0, or 2. Variables of
 * the environment that mean nothing are faults here. */
TRIB_MUST_CHECK int trib_config_verdict(struct trib_config_check *check,
					const struct trib_option *table);

#endif
