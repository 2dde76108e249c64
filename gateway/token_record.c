/* SPDX-License-Identifier: Apache-2.0
 * gw_token_read (declared in gateway/guard.h). Pure.
 */
#include <errno.h>
#include <string.h>

#include "common/id.h"
#include "gateway/guard.h"

/* What they say is a matter between Redis' functions. */
static bool labels(const char *text)
{
	return strchr(text, '=') &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			    "-_./=,") == strlen(text);
}

int gw_token_read(const char *text, struct gw_token_record *ret_record)
{
	static const char scope[] = "|client|";
	struct gw_token_record record = { .client = "" };
	size_t size = strcspn(text, "|");
	uint64_t created;
	const char *bar;
	const char *end;

	if (size >= sizeof(record.client) || strncmp(text + size, scope, sizeof(scope) - 1) != 0) {
		return -EBADMSG;
	}
	memcpy(record.client, text, size);
	record.client[size] = '\0';
	text += size + sizeof(scope) - 1;
	bar = strchr(text, '|');
	end = bar ? bar + 1 + strcspn(bar + 1, "|") : NULL;
	if ((size && !trib_client_id_valid(record.client)) || !bar ||
	    trib_parse_u64(text, (size_t)(bar - text), 0, INT64_MAX, &record.expires_ms) ||
	    trib_parse_u64(bar + 1, (size_t)(end - bar - 1), 0, INT64_MAX, &created) ||
	    (*end && !labels(end + 1))) {
		return -EBADMSG;
	}
	*ret_record = record;
	return 0;
}
