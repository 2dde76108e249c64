/* SPDX-License-Identifier: Apache-2.0 */
#include "common/config_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/httpd.h"
#include "common/redis.h"

#define PATH_SIZE 4096

void trib_config_fault(struct trib_config_check *check, const char *option, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)fprintf(stderr, "%s: --%s: %s\n", check->program, option, text);
	check->faults++;
}

void trib_config_listen(struct trib_config_check *check, const char *option, const char *address)
{
	if (trib_listen_check(address)) {
		trib_config_fault(check, option,
				  "'%s' is no address (host:port, [::1]:port, unix:PATH)", address);
	} else if (strncmp(address, "unix:", 5) == 0) {
		trib_config_place(check, option, address + 5);
	}
}

void trib_config_redis(struct trib_config_check *check, const char *option, const char *address)
{
	if (trib_redis_check(address)) {
		trib_config_fault(check, option, "'%s' is no address of a Redis", address);
	}
}

void trib_config_redis_login(struct trib_config_check *check, const struct trib_redis_login *login)
{
	char reason[256];

	if (trib_redis_login_check(login, reason)) {
		trib_config_fault(check, "redis-password-file", "%s", reason);
	}
}

void trib_config_url(struct trib_config_check *check, const char *option, const char *url)
{
	const char *host = strncmp(url, "http://", 7) == 0    ? url + 7
			   : strncmp(url, "https://", 8) == 0 ? url + 8
							      : "";

	if (host[0] == '\0' || host[0] == '/' || strlen(url) > 256 || strpbrk(url, " \t\r\n")) {
		trib_config_fault(check, option, "'%s' is no URL (http://host:port)", url);
	}
}

static void directory_of(const char *path, char out[PATH_SIZE])
{
	const char *slash = strrchr(path, '/');

	(void)snprintf(out, PATH_SIZE, "%.*s", slash ? (int)(slash - path + 1) : 1,
		       slash ? path : ".");
}

void trib_config_place(struct trib_config_check *check, const char *option, const char *path)
{
	char directory[PATH_SIZE];

	if (path[0] == '\0' || strlen(path) >= PATH_SIZE) {
		trib_config_fault(check, option, "'%.64s' is no path", path);
		return;
	}
	directory_of(path, directory);
	if (access(directory, W_OK | X_OK)) {
		trib_config_fault(check, option, "%s: %s", directory, strerrordesc_np(errno));
	}
}

void trib_config_socket(struct trib_config_check *check, const char *option, const char *path)
{
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		trib_config_fault(check, option, "'%s' is too long for a unix socket", path);
	} else {
		trib_config_place(check, option, path);
	}
}

void trib_config_directory(struct trib_config_check *check, const char *option, const char *path)
{
	struct stat st;

	if (stat(path, &st)) {
		trib_config_place(check, option, path);
	} else if (!S_ISDIR(st.st_mode)) {
		trib_config_fault(check, option, "%s is no directory", path);
	} else if (access(path, W_OK | X_OK)) {
		trib_config_fault(check, option, "%s: %s", path, strerrordesc_np(errno));
	}
}

void trib_config_program(struct trib_config_check *check, const char *option, const char *path)
{
	if (access(path, X_OK)) {
		trib_config_fault(check, option, "%s: %s", path, strerrordesc_np(errno));
	}
}

void trib_config_file(struct trib_config_check *check, const char *option, const char *path)
{
	if (path && path[0] && access(path, R_OK)) {
		trib_config_fault(check, option, "%s: %s", path, strerrordesc_np(errno));
	}
}

void trib_config_tls(struct trib_config_check *check, const struct trib_tls_files *files)
{
	struct trib_tls *tls = NULL;

	if (trib_tls_new(files, &tls)) {
		trib_config_fault(check, "tls-cert", "certificate, key and CA cannot be used");
	}
	(void)trib_tls_free(tls);
}

void trib_config_access(struct trib_config_check *check, const struct trib_access_config *config)
{
	struct trib_access *access = NULL;

	if (trib_access_new(config, &access)) {
		trib_config_fault(check, "operators", "operators or JWT key cannot be used");
	}
	(void)trib_access_free(access);
}

int trib_config_verdict(struct trib_config_check *check, const struct trib_option *table)
{
	check->faults += (unsigned)trib_options_strangers(check->program, table);
	trib_options_show(table);
	(void)fflush(stdout);
	if (check->faults) {
		(void)fprintf(stderr, "%s: %u fault%s: it would not start\n", check->program,
			      check->faults, check->faults == 1 ? "" : "s");
		return 2;
	}
	(void)fprintf(stderr, "%s: this configuration is good\n", check->program);
	return 0;
}
