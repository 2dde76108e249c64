/* SPDX-License-Identifier: Apache-2.0 */
#include "common/audit.h"

#include <stdio.h>
#include <string.h>

#include "common/crypto.h"

#define TRACE_DIGITS (TRIB_TRACE_SIZE - 1)

void trib_audit_words(struct trib_audit *audit, const char *words[TRIB_AUDIT_WORDS])
{
	const char *const made[TRIB_AUDIT_WORDS] = {
		"XADD",          TRIB_AUDIT_KEY,
		"MAXLEN",        "~",
		TRIB_AUDIT_KEEP, "*",
		"program",       audit->program,
		"who",           audit->who,
		"tenant",        audit->tenant,
		"method",        audit->method,
		"path",          audit->path_text,
		"status",        audit->status_text,
		"trace",         audit->trace,
		"peer",          audit->peer,
	};

	/* Foreign text: what is printed later must be plain, and short. */
	(void)snprintf(audit->path_text, sizeof(audit->path_text), "%s", audit->path);
	for (char *c = audit->path_text; *c; c++) {
		if (*c < 0x20 || *c > 0x7e) {
			*c = '?';
		}
	}
	(void)snprintf(audit->status_text, sizeof(audit->status_text), "%d", audit->status);
	memcpy(words, made, sizeof(made));
}

static bool all_hex(const char *text, size_t size)
{
	return strspn(text, "0123456789abcdef") >= size;
}

/* 00-<32 hex, not all 0>-<16 hex>-<2 hex> */
static bool traceparent_good(const char *text)
{
	return strlen(text) >= 55 && all_hex(text, 2) && strncmp(text, "ff", 2) != 0 &&
	       text[2] == '-' && all_hex(text + 3, TRACE_DIGITS) && text[35] == '-' &&
	       all_hex(text + 36, 16) && text[52] == '-' && strspn(text + 3, "0") < TRACE_DIGITS;
}

void trib_trace_read(const struct trib_http_request *request, char out[TRIB_TRACE_SIZE])
{
	const char *text = trib_http_field(request, "traceparent");
	struct trib_digest bits = { 0 };

	if (text && traceparent_good(text)) {
		memcpy(out, text + 3, TRACE_DIGITS);
		out[TRACE_DIGITS] = '\0';
		return;
	}
	if (trib_random(&bits, sizeof(bits))) {
		bits.low = 1; /* better the same than none */
	}
	trib_digest_print(bits, out);
}
