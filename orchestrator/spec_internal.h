/* SPDX-License-Identifier: Apache-2.0
 * What the files of the job spec share: spec.c (walk and values), spec_check.c (rules between
 * fields), spec_names.c (table, pointers, suggestions), spec_schema.c. Of no use to others.
 */
#ifndef TRIB_ORCHESTRATOR_SPEC_INTERNAL_H
#define TRIB_ORCHESTRATOR_SPEC_INTERNAL_H

#include "orchestrator/spec.h"

#define POINTER_SIZE 192

enum kind {
	KIND_OBJECT, /* its keys are rows of the table */
	KIND_FREE,   /* an object of the user's own */
	KIND_ENUM,
	KIND_ENUMS, /* array of one or more */
	KIND_INTEGER,
	KIND_AUTO, /* KIND_INTEGER, or "auto" */
	KIND_NUMBER,
	KIND_HOOKS,    /* hook_rule.h */
	KIND_SELECTOR, /* spec_selector.c */
	KIND_JOB,      /* its id; "" = none */
	KIND_NAME,     /* of a metric; "" = none */
	KIND_LATER,    /* known, but not in this version */
	KIND_OURS,     /* computed: refused from users */
};

struct row {
	const char *path; /* below "spec", levels split by '.'; parents before children */
	enum kind kind;
	double min;
	double max;
	const char *values;  /* ENUM, ENUMS: " a b " */
	const char *later;   /* known values that are not supported yet: " c d " */
	const char *initial; /* default as JSON text; NULL: none, or computed */
	const char *help;
};

extern const struct row *const spec_rows; /* the table: parents before children */
extern const size_t spec_row_count;

/* Appends {pointer, detail} to `errors`, ORC_SPEC_ERRORS_MAX at most. */
void spec_complain(json_t *errors, const char *pointer, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* An unknown key; `nearest` (may be NULL) is suggested when it is near. */
void spec_complain_unknown(json_t *errors, const char *pointer, const char *key,
			   const char *nearest);
/* "/spec/sync/goal" of "sync.goal". Returns `out`. */
const char *spec_pointer(const char *path, char out[POINTER_SIZE]);
/* `key` below the pointer `parent`, escaped and cut. Returns `out`. */
const char *spec_key_pointer(const char *parent, const char *key, char out[POINTER_SIZE]);
/* Levenshtein distance of short names; long ones are far (99) from everything. */
size_t spec_distance(const char *a, const char *b);
/* The row of `key` below the path `parent`; NULL when there is none. */
const struct row *spec_row_of(const char *parent, const char *key);
/* The nearest known name below `parent`; NULL when there is none. */
const char *spec_nearest_name(const char *parent, const char *key);
/* Puts `value` (taken) at `path` of `out`, whose parents are there already. 0 or -ENOMEM. */
TRIB_MUST_CHECK int spec_put(json_t *out, const char *path, json_t *value);
/* spec_selector.c: true, or it complained. */
TRIB_MUST_CHECK bool spec_check_selector(json_t *value, const char *pointer, json_t *errors);
json_t *spec_selector_schema(void);
/* Rules between fields; fills in what is computed. 0 (also when it complained) or -ENOMEM. */
TRIB_MUST_CHECK int spec_cross_rules(struct orc_spec *spec, json_t *errors);

#endif
