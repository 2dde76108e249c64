/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/http_client.h"

#define WORDS_MAX 256

void cli_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)fputs("tributary: ", stderr);
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
	va_end(args);
}

bool cli_colour(FILE *stream)
{
	const char *no = getenv("NO_COLOR"); /* NOLINT(concurrency-mt-unsafe): single thread */
	const char *term = getenv("TERM");   /* NOLINT(concurrency-mt-unsafe): single thread */

	return !(no && *no) && term && strcmp(term, "dumb") != 0 && isatty(fileno(stream));
}

int cli_service_check(struct cli_service *service)
{
	size_t size = strlen(service->api);

	while (size && service->api[size - 1] == '/') {
		size--;
	}
	if (size >= sizeof(service->api_text) || (strncmp(service->api, "http://", 7) != 0 &&
						  strncmp(service->api, "https://", 8) != 0)) {
		cli_say("--api: '%s' is not an http:// or https:// URL", service->api);
		return CLI_USAGE;
	}
	memcpy(service->api_text, service->api, size);
	service->api_text[size] = '\0';
	service->api = service->api_text;
	if (strcmp(service->format, "table") != 0 && strcmp(service->format, "json") != 0) {
		cli_say("--format: '%s' is neither table nor json", service->format);
		return CLI_USAGE;
	}
	trib_client_trust(service->cacert, service->cert, service->key);
	trib_client_hosts(service->hosts);
	return CLI_OK;
}

static const struct trib_option *find_option(const struct trib_option *table, const char *name,
					     size_t size)
{
	for (; table->name; table++) {
		if (strlen(table->name) == size && memcmp(table->name, name, size) == 0) {
			return table;
		}
	}
	return NULL;
}

/* The long form of "-o": "--output"; words that are no known short option stay as they are. */
static char *expand(char *word, const struct cli_short *shorts)
{
	char text[64];

	if (word[0] != '-' || word[1] == '\0' || word[1] == '-') {
		return word;
	}
	if (strcmp(word, "-h") == 0) {
		return "--help";
	}
	for (; shorts && shorts->name; shorts++) {
		if (word[1] == shorts->letter && word[2] == '\0') {
			char *copy;

			(void)snprintf(text, sizeof(text), "--%s", shorts->name);
			copy = trib_strdup(text); /* lives as long as the process */
			return copy ? copy : word;
		}
	}
	return word;
}

/* Options first, then operands: getopt in common/options.c stops at the first operand. */
static size_t sort_words(int argc, char **argv, const struct trib_option *table,
			 const struct cli_short *shorts, char **out)
{
	char *operands[WORDS_MAX];
	size_t operand_count = 0;
	size_t count = 0;
	bool only_operands = false;

	out[count++] = argv[0];
	for (int i = 1; i < argc; i++) {
		char *word = only_operands ? argv[i] : expand(argv[i], shorts);
		const struct trib_option *option;
		size_t size;

		if (only_operands || word[0] != '-' || word[1] == '\0') {
			operands[operand_count++] = word;
			continue;
		}
		if (strcmp(word, "--") == 0) {
			only_operands = true;
			continue;
		}
		out[count++] = word;
		size = strcspn(word, "=");
		option = size > 2 ? find_option(table, word + 2, size - 2) : NULL;
		if (option && option->kind != TRIB_OPTION_FLAG && word[size] == '\0' &&
		    i + 1 < argc) {
			out[count++] = argv[++i];
		}
	}
	out[count++] = "--";
	for (size_t i = 0; i < operand_count; i++) {
		out[count++] = operands[i];
	}
	out[count] = NULL;
	return count;
}

int cli_parse(const struct cli_command *command, int argc, char **argv,
	      const struct trib_option *table, const struct cli_operands *rule,
	      char ***ret_operands, int *ret_exit)
{
	static char *words[WORDS_MAX + 3];
	char usage[1024];
	size_t count;
	int first;
	int rc;

	*ret_exit = CLI_USAGE;
	if (argc >= WORDS_MAX) {
		cli_say("too many arguments");
		return -1;
	}
	(void)snprintf(usage, sizeof(usage), "tributary %s%s%s [options]\n\n%s.%s%s", command->name,
		       *command->operands ? " " : "", command->operands, command->help,
		       command->detail ? "\n" : "", command->detail ? command->detail : "");
	count = sort_words(argc, argv, table, rule->shorts, words);
	rc = trib_options_parse((int)count, words, usage, table, &first);
	if (rc == 1) {
		for (const struct cli_short *s = rule->shorts; s && s->name; s++) {
			(void)printf("  -%c%-26s short for --%s\n", s->letter, "", s->name);
		}
		(void)printf("\n%s", CLI_EXITS_TEXT);
		*ret_exit = CLI_OK;
		return -1;
	}
	if (rc) {
		return -1;
	}
	if ((int)count - first < rule->min || (int)count - first > rule->max) {
		(void)fprintf(stderr, "usage: tributary %s%s%s [options] (try --help)\n",
			      command->name, *command->operands ? " " : "", command->operands);
		return -1;
	}
	*ret_operands = &words[first];
	return (int)count - first;
}
