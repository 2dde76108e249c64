/* SPDX-License-Identifier: Apache-2.0 */
#include "common/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/version.h"

#define OPTIONS_MAX 64
#define NAME_MAX_   48

enum {
	CHAR_HELP = 1000,
	CHAR_VERSION,
	CHAR_TABLE
};

static int set_flag(bool *target, const char *text)
{
	static const char *const yes[] = { "1", "true", "yes", "on" };
	static const char *const no[] = { "0", "false", "no", "off", "" };

	for (size_t i = 0; i < TRIB_COUNT(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0) {
			*target = true;
			return 0;
		}
	}
	for (size_t i = 0; i < TRIB_COUNT(no); i++) {
		if (strcasecmp(text, no[i]) == 0) {
			*target = false;
			return 0;
		}
	}
	return -EINVAL;
}

/* `where` is what the user typed: "--redis" or "TRIBUTARY_REDIS". */
static int set(const struct trib_option *option, const char *where, const char *text)
{
	switch (option->kind) {
	case TRIB_OPTION_FLAG:
		if (!text) {
			*(bool *)option->target = true;
			return 0;
		}
		if (set_flag(option->target, text)) {
			(void)fprintf(stderr, "%s: '%s' is neither yes nor no\n", where, text);
			return -EINVAL;
		}
		return 0;
	case TRIB_OPTION_TEXT:
		*(const char **)option->target = text;
		return 0;
	case TRIB_OPTION_NUMBER:
		if (trib_parse_u64(text, strlen(text), option->min, option->max, option->target)) {
			(void)fprintf(stderr, "%s: '%s' is not a number from %llu to %llu\n", where,
				      text, (unsigned long long)option->min,
				      (unsigned long long)option->max);
			return -EINVAL;
		}
		return 0;
	}
	return -EINVAL;
}

static void environment_name(const char *name, char out[NAME_MAX_ + 16])
{
	size_t used = (size_t)snprintf(out, NAME_MAX_ + 16, "TRIBUTARY_");

	for (; *name && used < NAME_MAX_ + 15; name++) {
		char c = *name;

		if (c >= 'a' && c <= 'z') {
			c = (char)(c - 'a' + 'A');
		}
		out[used++] = c == '-' ? '_' : c;
	}
	out[used] = '\0';
}

static void print_option(const struct trib_option *option)
{
	char left[NAME_MAX_ + 64];
	char environment[NAME_MAX_ + 16];
	const char *value = option->kind == TRIB_OPTION_FLAG ? NULL : option->value_name;

	(void)snprintf(left, sizeof(left), "--%s%s%s", option->name, value ? " " : "",
		       value ? value : "");
	environment_name(option->name, environment);
	(void)printf("  %-28s %s", left, option->help);
	if (option->kind == TRIB_OPTION_NUMBER) {
		(void)printf(" (%llu; %llu to %llu)",
			     (unsigned long long)*(const uint64_t *)option->target,
			     (unsigned long long)option->min, (unsigned long long)option->max);
	} else if (option->kind == TRIB_OPTION_TEXT && *(const char *const *)option->target) {
		(void)printf(" (%s)", *(const char *const *)option->target);
	} else if (option->kind == TRIB_OPTION_FLAG && *(const bool *)option->target) {
		(void)printf(" (yes)");
	}
	(void)printf(" [%s]\n", environment);
}

static int print_help(const char *usage, const struct trib_option *table)
{
	(void)printf("usage: %s\n\noptions (default) [environment]:\n", usage);
	for (; table->name; table++) {
		print_option(table);
	}
	(void)printf("  %-28s %s\n  %-28s %s\n", "--help", "print this", "--version",
		     "print the version");
	return 1;
}

static int from_environment(const struct trib_option *table)
{
	for (; table->name; table++) {
		char name[NAME_MAX_ + 16];
		const char *text;

		environment_name(table->name, name);
		text = getenv(name); /* NOLINT(concurrency-mt-unsafe): before any thread */
		if (text && set(table, name, text)) {
			return -EINVAL;
		}
	}
	return 0;
}

static size_t fill_table(const struct trib_option *table, struct option *out)
{
	size_t count = 0;

	for (; table[count].name; count++) {
		TRIB_ASSERT(count < OPTIONS_MAX && strlen(table[count].name) <= NAME_MAX_);
		out[count] = (struct option){
			.name = table[count].name,
			.has_arg = table[count].kind == TRIB_OPTION_FLAG ? optional_argument
									 : required_argument,
			.val = CHAR_TABLE + (int)count,
		};
	}
	out[count] = (struct option){ .name = "help", .val = CHAR_HELP };
	out[count + 1] = (struct option){ .name = "version", .val = CHAR_VERSION };
	return count;
}

/* getopt_long takes unambiguous abbreviations: a typo must not become an option. */
static bool typed_in_full(const char *word, const char *name)
{
	size_t size = strlen(name);

	return strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, size) == 0 &&
	       (word[2 + size] == '\0' || word[2 + size] == '=');
}

int trib_options_parse(int argc, char **argv, const char *usage, const struct trib_option *table,
		       int *ret_first)
{
	struct option options[OPTIONS_MAX + 3] = { 0 };
	size_t count = fill_table(table, options);

	if (from_environment(table)) {
		return -EINVAL;
	}
	optind = 0; /* GNU: start afresh, so that subcommands can parse their own words */
	opterr = 0;
	for (;;) {
		int word = optind ? optind : 1;
		int index = -1;
		/* '+': options end at the first operand. NOLINTNEXTLINE(concurrency-mt-unsafe) */
		int c = getopt_long(argc, argv, "+:", options, &index);

		if (c == -1) {
			break;
		}
		if (c == ':') {
			(void)fprintf(stderr, "%s: '%s' needs a value\n", argv[0], argv[word]);
			return -EINVAL;
		}
		if (index < 0 || !typed_in_full(argv[word], options[index].name)) {
			(void)fprintf(stderr, "%s: unknown option '%s' (try --help)\n", argv[0],
				      argv[word]);
			return -EINVAL;
		}
		if (c == CHAR_HELP) {
			return print_help(usage, table);
		}
		if (c == CHAR_VERSION) {
			(void)printf("tributary %s\n", TRIB_VERSION);
			return 1;
		}
		TRIB_ASSERT(c >= CHAR_TABLE && (size_t)(c - CHAR_TABLE) < count);
		if (set(&table[c - CHAR_TABLE], argv[word], optarg)) {
			return -EINVAL;
		}
	}
	*ret_first = optind;
	return 0;
}

/* "scheme://user:word@host": the word is nobody's business. */
static void show_text(const char *text)
{
	const char *scheme = strstr(text, "://");
	const char *host = scheme ? strchr(scheme, '@') : NULL;
	const char *colon = host ? memchr(scheme + 3, ':', (size_t)(host - scheme - 3)) : NULL;

	if (colon) {
		(void)printf(" %.*s:***%s\n", (int)(colon - text), text, host);
	} else {
		(void)printf(" %s\n", text);
	}
}

void trib_options_show(const struct trib_option *table)
{
	for (; table->name; table++) {
		const char *text;

		switch (table->kind) {
		case TRIB_OPTION_FLAG:
			(void)printf("--%s=%s\n", table->name,
				     *(const bool *)table->target ? "yes" : "no");
			break;
		case TRIB_OPTION_TEXT:
			text = *(const char *const *)table->target;
			(void)printf("--%s", table->name);
			show_text(text ? text : "");
			break;
		case TRIB_OPTION_NUMBER:
			(void)printf("--%s %llu\n", table->name,
				     (unsigned long long)*(const uint64_t *)table->target);
			break;
		}
	}
}

static bool is_known(const struct trib_option *table, const char *variable, size_t size)
{
	char name[NAME_MAX_ + 16];

	if (size == strlen("TRIBUTARY_LOG") && memcmp(variable, "TRIBUTARY_LOG", size) == 0) {
		return true; /* common/log.c */
	}
	for (; table->name; table++) {
		environment_name(table->name, name);
		if (strlen(name) == size && memcmp(name, variable, size) == 0) {
			return true;
		}
	}
	return false;
}

size_t trib_options_strangers(const char *program, const struct trib_option *table)
{
	size_t count = 0;

	for (char **at = environ; *at; at++) {
		size_t size = strcspn(*at, "=");

		if (strncmp(*at, "TRIBUTARY_", 10) == 0 && !is_known(table, *at, size)) {
			(void)fprintf(stderr, "%s: %.*s: no option reads this variable\n", program,
				      (int)size, *at);
			count++;
		}
	}
	return count;
}
