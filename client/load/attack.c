/* SPDX-License-Identifier: Apache-2.0 */
#include "client/load/attack.h"

#include <stdio.h>
#include <string.h>

enum attack {
	ATTACK_HEAD,      /* Content-Length with a sign */
	ATTACK_GARBAGE,   /* no HTTP at all */
	ATTACK_OVERSIZE,  /* a terabyte announced */
	ATTACK_NAN,       /* a whole update with one NaN */
	ATTACK_TICKET,    /* a ticket with one digit changed */
	ATTACK_HEADER,    /* a safetensors header of nonsense */
	ATTACK_WEIGHT,    /* a negative weight */
	ATTACK_SLOWLORIS, /* a head that never ends */
};

static const char *const names[LOAD_ATTACK_KINDS] = {
	"bad-head", "garbage", "oversize", "nan", "ticket", "header", "weight", "slowloris"
};

const char *load_attack_name(unsigned attack)
{
	return names[attack % LOAD_ATTACK_KINDS];
}

struct parts {
	const char *ticket;
	const char *weight;
	char length[32];
	const char *body;
};

static int write_upload(struct load_worker *worker, const struct load_client *client,
			const char *name, const struct parts *parts)
{
	const struct load_run *run = worker->run;
	const char *token = run->plan->token;

	return snprintf(worker->head, LOAD_HEAD_MAX,
			"PUT /v1/jobs/%s/updates/%s HTTP/1.1\r\nHost: %s\r\n%s%s%sContent-Type: "
			"application/vnd.safetensors\r\nContent-Length: %s\r\nFL-Ticket: %s\r\n"
			"FL-Client: %s\r\nFL-Round: %u\r\nFL-Base-Version: %u\r\nFL-Weight: %s\r\n"
			"\r\n%s",
			run->job, client->offer->update, run->host,
			token ? "Authorization: Bearer " : "", token ? token : "",
			token ? "\r\n" : "", parts->length, parts->ticket, name,
			client->offer->round, client->offer->base, parts->weight, parts->body);
}

void load_attack_write(struct load_worker *worker, const struct load_client *client,
		       const char *name, struct load_request *request)
{
	uint64_t size = worker->run->payload.size;
	char ticket[TRIB_TICKET_TEXT_SIZE];
	struct parts parts = { .ticket = ticket, .weight = "1", .body = "" };

	memcpy(ticket, client->offer->ticket, sizeof(ticket));
	(void)snprintf(parts.length, sizeof(parts.length), "%llu", (unsigned long long)size);
	switch ((enum attack)client->attack) {
	case ATTACK_HEAD:
		(void)snprintf(parts.length, sizeof(parts.length), "+%llu",
			       (unsigned long long)size);
		break;
	case ATTACK_GARBAGE:
		(void)snprintf(worker->head, LOAD_HEAD_MAX,
			       "\x01\x02 tributary load says hello\r\n\r\n");
		request->head_size = strlen(worker->head);
		return;
	case ATTACK_OVERSIZE:
		(void)snprintf(parts.length, sizeof(parts.length), "1099511627776");
		break;
	case ATTACK_NAN:
		request->payload = true;
		request->variant = LOAD_VARIANT_NAN;
		request->body_end = size;
		break;
	case ATTACK_TICKET:
		ticket[20] = ticket[20] == 'A' ? 'B' : 'A';
		break;
	case ATTACK_HEADER:
		parts.body = "\x10.......{\"w\": [[[[[[[[";
		(void)snprintf(parts.length, sizeof(parts.length), "%zu", strlen(parts.body));
		break;
	case ATTACK_WEIGHT:
		parts.weight = "-1";
		break;
	case ATTACK_SLOWLORIS:
		request->pace = 2;
		break;
	}
	request->head_size = (size_t)write_upload(worker, client, name, &parts);
}
