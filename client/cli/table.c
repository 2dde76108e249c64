/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/cli/cli.h"
#include "common/clock.h"

void cli_table_init(struct cli_table *table, const char *const head[])
{
	memset(table, 0, sizeof(*table));
	while (table->columns < CLI_COLUMNS_MAX && head[table->columns]) {
		table->columns++;
	}
	cli_table_row(table);
	for (size_t i = 0; i < table->columns; i++) {
		cli_table_set(table, i, "%s", head[i]);
	}
}

void cli_table_row(struct cli_table *table)
{
	if (table->rows == table->space) {
		size_t space = table->space ? table->space * 2 : 16;
		void *bigger = trib_realloc(table->cells,
					    space * table->columns * sizeof(table->cells[0]));

		if (!bigger) {
			table->failed = true;
			return;
		}
		table->cells = bigger;
		table->space = space;
	}
	for (size_t i = 0; i < table->columns; i++) {
		(void)snprintf(table->cells[table->rows * table->columns + i], CLI_CELL_SIZE, "-");
	}
	table->rows++;
}

void cli_table_set(struct cli_table *table, size_t column, const char *format, ...)
{
	char *cell;
	va_list args;

	if (table->failed || column >= table->columns) {
		return;
	}
	cell = table->cells[(table->rows - 1) * table->columns + column];
	va_start(args, format);
	(void)vsnprintf(cell, CLI_CELL_SIZE, format, args);
	va_end(args);
	for (char *c = cell; *c; c++) { /* foreign text must not drive the terminal */
		if ((unsigned char)*c < 0x20 || *c == 0x7f) {
			*c = '?';
		}
	}
	if (!*cell) {
		(void)snprintf(cell, CLI_CELL_SIZE, "-");
	}
}

void cli_table_member(struct cli_table *table, size_t column, json_t *json, const char *path)
{
	const json_t *value = trib_json_at(json, path);

	if (json_is_integer(value)) {
		cli_table_set(table, column, "%lld", (long long)json_integer_value(value));
	} else if (json_is_real(value)) {
		cli_table_set(table, column, "%.6g", json_real_value(value));
	} else if (json_is_string(value)) {
		cli_table_set(table, column, "%s", json_string_value(value));
	}
}

void cli_table_print(struct cli_table *table)
{
	size_t widths[CLI_COLUMNS_MAX] = { 0 };
	bool colour = cli_colour(stdout);

	for (size_t i = 0; i < table->rows * table->columns; i++) {
		size_t size = strlen(table->cells[i]);

		if (size > widths[i % table->columns]) {
			widths[i % table->columns] = size;
		}
	}
	for (size_t row = 0; row < table->rows; row++) {
		(void)fputs(colour && row == 0 ? "\033[1m" : "", stdout);
		for (size_t i = 0; i < table->columns; i++) {
			bool last = i + 1 == table->columns;

			(void)printf("%-*s%s", last ? 0 : (int)widths[i],
				     table->cells[row * table->columns + i], last ? "" : "  ");
		}
		(void)fputs(colour && row == 0 ? "\033[0m\n" : "\n", stdout);
	}
	if (table->failed) {
		cli_say("out of memory: rows are missing");
	}
	trib_free(table->cells);
	memset(table, 0, sizeof(*table));
}

void cli_age(const char *rfc3339, char out[16])
{
	struct tm tm = { 0 };
	int64_t seconds;

	(void)snprintf(out, 16, "-");
	if (!rfc3339 || !strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm)) {
		return;
	}
	seconds = (int64_t)(trib_wall_ms() / 1000) - (int64_t)timegm(&tm);
	seconds = seconds < 0 ? 0 : seconds;
	if (seconds < 120) {
		(void)snprintf(out, 16, "%ds", (int)seconds);
	} else if (seconds < 7200) {
		(void)snprintf(out, 16, "%dm", (int)(seconds / 60));
	} else if (seconds < 172800) {
		(void)snprintf(out, 16, "%dh", (int)(seconds / 3600));
	} else {
		(void)snprintf(out, 16, "%dd", (int)(seconds / 86400 % 100000));
	}
}

void cli_metrics(const json_t *metrics, char out[CLI_CELL_SIZE])
{
	size_t used = 0;
	const char *name;
	json_t *value;

	out[0] = '\0';
	json_object_foreach((json_t *)metrics, name, value)
	{
		int size = snprintf(out + used, CLI_CELL_SIZE - used, "%s%.40s=%.6g",
				    used ? " " : "", name, json_number_value(value));

		if (used + (size_t)size >= CLI_CELL_SIZE) {
			out[used] = '\0';
			return;
		}
		used += (size_t)size;
	}
}
