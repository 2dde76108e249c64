/* SPDX-License-Identifier: Apache-2.0
 * Command-line options from one table per program: getopt_long, TRIBUTARY_<NAME> environment as
 * default, range checks and --help all come from it. Unknown or unparsable: refuse to start.
 */
#ifndef TRIB_COMMON_OPTIONS_H
#define TRIB_COMMON_OPTIONS_H

#include "common/base.h"

enum trib_option_kind {
	TRIB_OPTION_FLAG,
	TRIB_OPTION_TEXT,
	TRIB_OPTION_NUMBER
};

struct trib_option {
	const char *name; /* "redis" for --redis; NULL ends the table */
	enum trib_option_kind kind;
	void *target; /* bool *, const char **, uint64_t * ; holds the default before parsing */
	uint64_t min; /* NUMBER only */
	uint64_t max;
	const char *value_name; /* "ADDR" in --help */
	const char *help;
};

/* Parses argv[1..); *ret_first = index of the first operand. Returns 0, 1 (--help or --version
 * printed: exit 0) or -EINVAL (message printed on stderr: exit 2). */
TRIB_MUST_CHECK int trib_options_parse(int argc, char **argv, const char *usage,
				       const struct trib_option *table, int *ret_first);

/* One "--name value" line on stdout per option, as it is in force: what --check-config prints.
 * Passwords in URLs are not shown. */
void trib_options_show(const struct trib_option *table);
/* How many TRIBUTARY_* variables are in the environment that no option of the table reads: each is
 * named on stderr. Not refused at a start, since others may set what they like (Kubernetes makes
 * such names of Services). */
size_t trib_options_strangers(const char *program, const struct trib_option *table);

#define TRIB_CHECK_OPTION(checking)                                                         \
	{                                                                                   \
		"check-config", TRIB_OPTION_FLAG, &(checking), 0, 0, NULL,                  \
			"check all of this and the files it names, print it, start nothing" \
	}

#endif
