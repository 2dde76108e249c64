/* SPDX-License-Identifier: Apache-2.0 */
#include "common/operators.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/id.h"
#include "common/json.h"
#include "common/token.h"

#define REASON_SIZE 160

struct entry {
	struct trib_operator who;
	char hash[TRIB_SHA256_TEXT_SIZE];
};

struct trib_operators {
	size_t count;
	struct entry entries[];
};

static const struct {
	const char *text;
	enum trib_scope scope;
} scopes_known[] = {
	{ "jobs:read", TRIB_SCOPE_JOBS_READ },   { "jobs:write", TRIB_SCOPE_JOBS_WRITE },
	{ "jobs:admin", TRIB_SCOPE_JOBS_ADMIN }, { "ops:read", TRIB_SCOPE_OPS_READ },
	{ "ops:admin", TRIB_SCOPE_OPS_ADMIN },
};

unsigned trib_scope_parse(const char *text, size_t size)
{
	for (size_t i = 0; i < TRIB_COUNT(scopes_known); i++) {
		if (strlen(scopes_known[i].text) == size &&
		    memcmp(scopes_known[i].text, text, size) == 0) {
			return scopes_known[i].scope;
		}
	}
	return 0;
}

const char *trib_scope_text(enum trib_scope scope)
{
	for (size_t i = 0; i < TRIB_COUNT(scopes_known); i++) {
		if (scopes_known[i].scope == scope) {
			return scopes_known[i].text;
		}
	}
	return "";
}

/* Scopes each of which will do for `needed`. */
static unsigned enough_for(enum trib_scope needed, bool any_tenant)
{
	unsigned jobs = 0;

	switch (needed) {
	case TRIB_SCOPE_JOBS_READ:
		jobs = TRIB_SCOPE_JOBS_READ | TRIB_SCOPE_JOBS_WRITE | TRIB_SCOPE_JOBS_ADMIN;
		return (any_tenant ? 0 : jobs) | TRIB_SCOPE_OPS_READ | TRIB_SCOPE_OPS_ADMIN;
	case TRIB_SCOPE_JOBS_WRITE:
		jobs = TRIB_SCOPE_JOBS_WRITE | TRIB_SCOPE_JOBS_ADMIN;
		return (any_tenant ? 0 : jobs) | TRIB_SCOPE_OPS_ADMIN;
	case TRIB_SCOPE_JOBS_ADMIN:
		jobs = TRIB_SCOPE_JOBS_ADMIN;
		return (any_tenant ? 0 : jobs) | TRIB_SCOPE_OPS_ADMIN;
	case TRIB_SCOPE_OPS_READ:
		return TRIB_SCOPE_OPS_READ | TRIB_SCOPE_OPS_ADMIN;
	case TRIB_SCOPE_OPS_ADMIN:
	case TRIB_SCOPE_ALL:
		return TRIB_SCOPE_OPS_ADMIN;
	}
	return 0;
}

bool trib_scopes_allow(unsigned scopes, enum trib_scope needed)
{
	return (scopes & enough_for(needed, false)) != 0;
}

bool trib_scopes_across(unsigned scopes, enum trib_scope needed)
{
	return (scopes & enough_for(needed, true)) != 0;
}

static const char *read_scopes(const json_t *list, unsigned *ret_scopes)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) == 0) {
		return "scopes: an array of one or more is needed";
	}
	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(item);
		unsigned scope = text ? trib_scope_parse(text, strlen(text)) : 0;

		if (scope == 0) {
			return "scopes: jobs:read jobs:write jobs:admin ops:read ops:admin";
		}
		*ret_scopes |= scope;
	}
	return NULL;
}

/* NULL, or what is wrong with it. */
static const char *read_entry(const json_t *json, struct entry *entry)
{
	const char *name = trib_json_text(json, "name", "");
	const char *tenant = trib_json_text(json, "tenant", "");
	const char *hash = trib_json_text(json, "sha256", "");

	if (!json_is_object(json) || json_object_size(json) != 4) {
		return "an object of name, tenant, scopes and sha256 is needed";
	}
	if (!trib_client_id_valid(name) ||
	    trib_copy(entry->who.name, sizeof(entry->who.name), name)) {
		return "name: 1 to 64 of A-Z a-z 0-9 . _ : -";
	}
	if (!trib_name_valid(tenant) ||
	    trib_copy(entry->who.tenant, sizeof(entry->who.tenant), tenant)) {
		return "tenant: 1 to 63 of a-z 0-9 -";
	}
	if (!trib_sha256_text_valid(hash) || trib_copy(entry->hash, sizeof(entry->hash), hash)) {
		return "sha256: 64 lower-case hex digits";
	}
	return read_scopes(json_object_get(json, "scopes"), &entry->who.scopes);
}

static int read_all(const json_t *json, struct trib_operators *operators, char reason[REASON_SIZE])
{
	for (size_t i = 0; i < json_array_size(json); i++) {
		struct entry *entry = &operators->entries[i];
		const char *wrong = read_entry(json_array_get(json, i), entry);

		for (size_t j = 0; j < i && !wrong; j++) {
			if (strcmp(operators->entries[j].hash, entry->hash) == 0) {
				wrong = "the key of another operator";
			}
		}
		if (wrong) {
			(void)snprintf(reason, REASON_SIZE, "operator %zu: %s", i + 1, wrong);
			return -EBADMSG;
		}
		operators->count++;
	}
	return 0;
}

int trib_operators_parse(const char *text, size_t size, struct trib_operators **ret_operators,
			 char reason[160])
{
	struct trib_operators *operators;
	json_t *json = NULL;
	int rc = trib_json_parse(text, size, &json, reason);

	if (rc) {
		return rc;
	}
	if (!json_is_array(json) || json_array_size(json) > TRIB_OPERATORS_MAX) {
		(void)snprintf(reason, REASON_SIZE, "an array of at most %d is needed",
			       TRIB_OPERATORS_MAX);
		json_decref(json);
		return -EBADMSG;
	}
	operators = trib_alloc(sizeof(*operators) +
			       json_array_size(json) * sizeof(operators->entries[0]));
	if (!operators) {
		(void)snprintf(reason, REASON_SIZE, "out of memory");
		rc = -ENOMEM;
	} else {
		rc = read_all(json, operators, reason);
	}
	json_decref(json);
	if (rc) {
		(void)trib_operators_free(operators);
		return rc;
	}
	*ret_operators = operators;
	return 0;
}

struct trib_operators *trib_operators_free(struct trib_operators *operators)
{
	trib_free(operators);
	return NULL;
}

size_t trib_operators_count(const struct trib_operators *operators)
{
	return operators->count;
}

const struct trib_operator *trib_operators_find(const struct trib_operators *operators,
						const char hash[TRIB_SHA256_TEXT_SIZE])
{
	const struct trib_operator *found = NULL;

	for (size_t i = 0; i < operators->count; i++) {
		if (trib_equal_secret(operators->entries[i].hash, hash,
				      TRIB_SHA256_TEXT_SIZE - 1)) {
			found = &operators->entries[i].who;
		}
	}
	return found;
}
