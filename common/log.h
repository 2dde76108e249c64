/* SPDX-License-Identifier: Apache-2.0
 * JSON lines on stderr: {"t":"..","p":"gateway","l":"info","a":"upload","m":"event key=value"}.
 * One write(2) per line, so lines of several processes never mix. Any thread. Never log model
 * data, tokens or tickets. Each call site is limited to TRIB_LOG_BURST lines a second; what it
 * swallowed is told in the next line of that site ("skipped":n). Debug lines end with "ns", the
 * monotonic clock.
 */
#ifndef TRIB_COMMON_LOG_H
#define TRIB_COMMON_LOG_H

#include "common/base.h"

#define TRIB_LOG_BURST 20

enum trib_log_level {
	TRIB_LOG_ERR,
	TRIB_LOG_WARN,
	TRIB_LOG_INFO,
	TRIB_LOG_DEBUG
};

struct trib_log_site {
	uint64_t second;
	uint32_t lines;
	uint32_t skipped;
};

/* `program` is borrowed for ever. The environment TRIBUTARY_LOG=err|warn|info|debug wins. */
void trib_log_init(const char *program, enum trib_log_level level);
bool trib_log_wants(enum trib_log_level level);
void trib_log_write(struct trib_log_site *site, enum trib_log_level level, const char *area,
		    const char *format, ...) TRIB_PRINTF(4, 5);

#define trib_log_at(level, area, ...)                                         \
	do {                                                                  \
		static struct trib_log_site site_;                            \
		if (trib_log_wants(level)) {                                  \
			trib_log_write(&site_, (level), (area), __VA_ARGS__); \
		}                                                             \
	} while (0)

#define log_err(area, ...)   trib_log_at(TRIB_LOG_ERR, area, __VA_ARGS__)
#define log_warn(area, ...)  trib_log_at(TRIB_LOG_WARN, area, __VA_ARGS__)
#define log_info(area, ...)  trib_log_at(TRIB_LOG_INFO, area, __VA_ARGS__)
#define log_debug(area, ...) trib_log_at(TRIB_LOG_DEBUG, area, __VA_ARGS__)

#endif
