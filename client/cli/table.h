/* SPDX-License-Identifier: Apache-2.0
 * Aligned columns on stdout; the head is bold on a terminal. Rows are copied.
 */
#ifndef TRIB_CLIENT_CLI_TABLE_H
#define TRIB_CLIENT_CLI_TABLE_H

#include "common/base.h"
#include "common/json.h"

#define CLI_COLUMNS_MAX 16
#define CLI_CELL_SIZE   96

struct cli_table {
	size_t columns;
	size_t rows;
	size_t space;
	char (*cells)[CLI_CELL_SIZE]; /* rows * columns, head first */
	bool failed;
};

/* `head` ended by NULL. */
void cli_table_init(struct cli_table *table, const char *const head[]);
/* Begins a row of empty cells. */
void cli_table_row(struct cli_table *table);
/* Sets a cell of the last row; text is cut to fit, "-" for NULL or "". */
void cli_table_set(struct cli_table *table, size_t column, const char *format, ...)
	TRIB_PRINTF(3, 4);
/* Number or text member at `path` of `json` into a cell. */
void cli_table_member(struct cli_table *table, size_t column, json_t *json, const char *path);
/* The members of an object of numbers as "a=1 b=2" into out. */
void cli_metrics(const json_t *metrics, char out[CLI_CELL_SIZE]);
/* Prints it and frees what it holds. */
void cli_table_print(struct cli_table *table);

/* "5s", "3m", "2h", "4d" since an RFC 3339 time, "-" when it is none. */
void cli_age(const char *rfc3339, char out[16]);

#endif
