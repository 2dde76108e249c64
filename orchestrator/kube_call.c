/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "orchestrator/kube_internal.h"

#define TOKEN_MAX 16384

char *kube_token(const struct orc_kube *kube)
{
	FILE *file = kube->token_file ? fopen(kube->token_file, "re") : NULL;
	char *token;
	size_t size;

	if (!file) {
		return NULL;
	}
	token = trib_alloc(TOKEN_MAX);
	size = token ? fread(token, 1, TOKEN_MAX - 1, file) : 0;
	(void)fclose(file);
	if (token) {
		token[size] = '\0';
		token[strcspn(token, " \r\n\t")] = '\0';
	}
	return token;
}

bool kube_over(void *arg)
{
	const struct orc_kube *kube = arg;

	return atomic_load(&kube->stopping) || !atomic_load(&kube->leads);
}

uint64_t kube_backoff(unsigned failures)
{
	uint64_t delay = KUBE_BACKOFF_MS;
	uint32_t chance = 0;

	for (unsigned i = 1; i < failures && delay < KUBE_BACKOFF_MAX; i++) {
		delay *= 2;
	}
	delay = delay < KUBE_BACKOFF_MAX ? delay : KUBE_BACKOFF_MAX;
	if (trib_random(&chance, sizeof(chance))) {
		chance = (uint32_t)trib_clock_ns();
	}
	return delay / 2 + chance % (delay / 2 + 1);
}

void kube_rest(struct orc_kube *kube, uint64_t ms)
{
	uint64_t end = trib_clock_ms() + ms;

	while (!atomic_load(&kube->stopping) && trib_clock_ms() < end) {
		const struct timespec nap = { .tv_nsec = 20000000 };

		(void)nanosleep(&nap, NULL);
	}
}

static void send_call(struct orc_kube *kube, struct kube_call *call, bool ours)
{
	char url[KUBE_URL_SIZE];
	char type[96];
	char key[192];
	char *token = ours ? NULL : kube_token(kube);
	char *body = call->body ? trib_json_print(call->body) : NULL;
	struct trib_client_request request = { .method = call->method,
					       .url = url,
					       .body = body,
					       .size = body ? strlen(body) : 0,
					       .token = ours ? kube->secret : token,
					       .no_redirect = true,
					       .on_tick = kube_over,
					       .arg = kube,
					       .timeout_ms = KUBE_ANSWER_MS,
					       .cacert = ours ? NULL : kube->ca };
	struct trib_client_answer answer = { 0 };
	char reason[160];
	size_t lines = 0;

	call->status = 0;
	call->answer = NULL;
	(void)snprintf(type, sizeof(type), "Content-Type: %s",
		       call->type ? call->type : "application/json");
	request.headers[lines++] = body ? type : "Accept: application/json";
	if (call->key) {
		(void)snprintf(key, sizeof(key), "Idempotency-Key: %s", call->key);
		request.headers[lines++] = key;
	}
	if (call->any) {
		request.headers[lines++] = "If-Match: *";
	}
	if ((call->body && !body) ||
	    snprintf(url, sizeof(url), "%s%s", ours ? kube->own : kube->base, call->path) >=
		    (int)sizeof(url)) {
		(void)snprintf(call->error, sizeof(call->error), "out of memory");
	} else if (trib_client_request(&request, &answer)) {
		(void)snprintf(call->error, sizeof(call->error), "%s", answer.error);
	} else {
		call->status = answer.status;
		if (call->keep && answer.status == 200) {
			call->raw = answer;
			answer = (struct trib_client_answer){ 0 };
		} else if (trib_json_parse(answer.body, answer.size, &call->answer, reason)) {
			call->answer = NULL;
		}
	}
	trib_client_answer_fini(&answer);
	trib_free(token);
	trib_free(body);
}

void kube_server(struct orc_kube *kube, struct kube_call *call)
{
	send_call(kube, call, false);
}

void kube_ours(struct orc_kube *kube, struct kube_call *call)
{
	send_call(kube, call, true);
}

void kube_call_fini(struct kube_call *call)
{
	json_decref(call->answer);
	call->answer = NULL;
	trib_client_answer_fini(&call->raw);
}
