/* SPDX-License-Identifier: Apache-2.0
 * gw_token_read (declared in gateway/guard.h). Pure.
 */
#include <errno.h>
#include <string.h>

#include "common/id.h"
#include "gateway/guard.h"

int gw_token_read(const char *text, struct gw_token_record *ret_record)
{
	static const char scope[] = "|client|";
	struct gw_token_record record = { .client = "" };
	size_t size = strcspn(text, "|");
	uint64_t created;
	const char *bar;

	if (size >= sizeof(record.client) || strncmp(text + size, scope, sizeof(scope) - 1) != 0) {
		return -EBADMSG;
	}
	memcpy(record.client, text, size);
	record.client[size] = '\0';
	text += size + sizeof(scope) - 1;
	bar = strchr(text, '|');
	if ((size && !trib_client_id_valid(record.client)) || !bar ||
	    trib_parse_u64(text, (size_t)(bar - text), 0, INT64_MAX, &record.expires_ms) ||
	    trib_parse_u64(bar + 1, strlen(bar + 1), 0, INT64_MAX, &created)) {
		return -EBADMSG;
	}
	*ret_record = record;
	return 0;
}
