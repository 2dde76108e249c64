/* SPDX-License-Identifier: Apache-2.0 */
#include "common/http_client.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/version.h"

#define BODY_MAX     (64u << 20)
#define LINE_MAX_    65536u
#define TICK_MS      200
#define CONNECT_S    10L
#define STALLED_S    60L
#define REDIRECTS    3
#define REQUEST_S    120L
#define KEEP_ALIVE_S 50L /* the server sends a comment every 15 s */

struct transfer {
	CURL *curl;
	struct trib_client_answer *answer;
	const struct trib_client_request *request; /* NULL: a stream */
	const struct trib_client_stream *stream;
	char line[LINE_MAX_];
	size_t line_size;
	char id[64];
	char type[64];
	char data[LINE_MAX_];
	size_t data_size;
};

static struct {
	const char *cacert;
	const char *cert;
	const char *key;
	const char *hosts;
} trust;

void trib_client_trust(const char *cacert, const char *cert, const char *key)
{
	trust.cacert = cacert;
	trust.cert = cert;
	trust.key = key;
}

void trib_client_hosts(const char *hosts)
{
	trust.hosts = hosts;
}

static void initialise(void)
{
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void start_library(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, initialise);
}

static bool is_listed(const char *host)
{
	const char *at = trust.hosts;

	while (at && *at) {
		size_t size = strcspn(at, ",");

		if (size == strlen(host) && strncasecmp(at, host, size) == 0) {
			return true;
		}
		at += size + (at[size] == ',');
	}
	return false;
}

/* libcurl's own reading of the URLs, so that nothing is asked there that was not looked at here. */
bool trib_client_may_follow(const char *from, const char *to)
{
	CURLU *urls[2] = { curl_url(), curl_url() };
	char *host[2] = { NULL, NULL };
	char *scheme[2] = { NULL, NULL };
	bool may = urls[0] && urls[1];

	for (size_t i = 0; i < 2 && may; i++) {
		may = !curl_url_set(urls[i], CURLUPART_URL, i ? to : from, 0) &&
		      !curl_url_get(urls[i], CURLUPART_HOST, &host[i], 0) &&
		      !curl_url_get(urls[i], CURLUPART_SCHEME, &scheme[i], 0);
	}
	may = may && (strcasecmp(host[0], host[1]) == 0 || is_listed(host[1])) &&
	      (strcasecmp(scheme[0], scheme[1]) == 0 || strcasecmp(scheme[1], "https") == 0);
	for (size_t i = 0; i < 2; i++) {
		curl_free(host[i]);
		curl_free(scheme[i]);
		curl_url_cleanup(urls[i]);
	}
	return may;
}

static size_t keep(struct trib_client_answer *answer, const char *data, size_t size)
{
	char *bigger;

	if (answer->size + size > BODY_MAX) {
		return 0;
	}
	bigger = trib_realloc(answer->body, answer->size + size + 1);
	if (!bigger) {
		return 0;
	}
	answer->body = bigger;
	memcpy(answer->body + answer->size, data, size);
	answer->size += size;
	answer->body[answer->size] = '\0';
	return size;
}

/* One line of text/event-stream. */
static void take_line(struct transfer *t)
{
	char *value;

	t->line[t->line_size] = '\0';
	if (t->line_size == 0) {
		if (t->data_size) {
			t->data[t->data_size - 1] = '\0'; /* the last line feed */
			t->stream->on_event(t->id, t->type, t->data, t->stream->arg);
		}
		t->data_size = 0;
		t->type[0] = '\0';
		return;
	}
	value = strchr(t->line, ':');
	if (!value) {
		return;
	}
	*value++ = '\0';
	value += *value == ' ';
	if (strcmp(t->line, "id") == 0) {
		(void)snprintf(t->id, sizeof(t->id), "%s", value);
	} else if (strcmp(t->line, "event") == 0) {
		(void)snprintf(t->type, sizeof(t->type), "%s", value);
	} else if (strcmp(t->line, "data") == 0) {
		size_t size = strlen(value);

		if (t->data_size + size + 2 < sizeof(t->data)) {
			memcpy(t->data + t->data_size, value, size);
			t->data[t->data_size + size] = '\n';
			t->data_size += size + 1;
		}
	}
}

static void take_stream(struct transfer *t, const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (data[i] == '\n') {
			take_line(t);
			t->line_size = 0;
		} else if (data[i] != '\r' && t->line_size + 1 < sizeof(t->line)) {
			t->line[t->line_size++] = data[i];
		}
	}
}

static size_t on_write(char *data, size_t unit, size_t count, void *arg)
{
	struct transfer *t = arg;
	size_t size = unit * count;
	long status = 0;

	(void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200 && t->stream) {
		take_stream(t, data, size);
		return size;
	}
	if (status == 200 && t->request->on_data) {
		return t->request->on_data(data, size, t->request->arg) ? size : 0;
	}
	if (status == 200 && t->request->file) {
		size_t written = fwrite(data, 1, size, t->request->file);

		t->answer->saved += written;
		return written;
	}
	return keep(t->answer, data, size);
}

static size_t on_header(char *data, size_t unit, size_t count, void *arg)
{
	static const char name[] = "location:";
	struct trib_client_answer *answer = ((struct transfer *)arg)->answer;
	size_t size = unit * count;
	size_t at = sizeof(name) - 1;

	if (size > 5 && memcmp(data, "HTTP/", 5) == 0) {
		answer->location[0] = '\0';
	}
	if (size < at || strncasecmp(data, name, at) != 0) {
		return size;
	}
	while (at < size && data[at] == ' ') {
		at++;
	}
	(void)snprintf(answer->location, sizeof(answer->location), "%.*s", (int)(size - at),
		       data + at);
	answer->location[strcspn(answer->location, "\r\n")] = '\0';
	return size;
}

static int on_progress(void *arg, curl_off_t down, curl_off_t done, curl_off_t up, curl_off_t sent)
{
	const struct transfer *t = arg;

	(void)down;
	(void)done;
	(void)up;
	(void)sent;
	return t->request->on_tick(t->request->arg) ? 1 : 0;
}

static struct curl_slist *make_headers(const char *const *headers)
{
	/* No "Expect: 100-continue" round trip for small bodies. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");

	for (size_t i = 0; i < 4 && headers[i]; i++) {
		list = curl_slist_append(list, headers[i]);
	}
	return list;
}

static void set_common(struct transfer *t, const char *url, struct curl_slist *headers)
{
	(void)curl_easy_setopt(t->curl, CURLOPT_URL, url);
	(void)curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(t->curl, CURLOPT_USERAGENT, "tributary/" TRIB_VERSION);
	(void)curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(t->curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
	if (trust.cacert) {
		(void)curl_easy_setopt(t->curl, CURLOPT_CAINFO, trust.cacert);
	}
	if (trust.cert) {
		(void)curl_easy_setopt(t->curl, CURLOPT_SSLCERT, trust.cert);
		(void)curl_easy_setopt(t->curl, CURLOPT_SSLKEY, trust.key ? trust.key : trust.cert);
	}
	(void)curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
	(void)curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, t->answer->error);
	(void)curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_write);
	(void)curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
	(void)curl_easy_setopt(t->curl, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(t->curl, CURLOPT_HEADERDATA, t);
}

static void set_token(struct transfer *t, const char *token)
{
	if (token && *token) {
		(void)curl_easy_setopt(t->curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
		(void)curl_easy_setopt(t->curl, CURLOPT_XOAUTH2_BEARER, token);
	} else {
		(void)curl_easy_setopt(t->curl, CURLOPT_XOAUTH2_BEARER, NULL);
	}
}

static int conclude(struct transfer *t, CURLcode code)
{
	(void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->answer->status);
	if (code != CURLE_OK) {
		if (!t->answer->error[0]) {
			(void)snprintf(t->answer->error, sizeof(t->answer->error), "%s",
				       curl_easy_strerror(code));
		}
		return -EHOSTUNREACH;
	}
	if (!t->answer->body && !keep(t->answer, "", 0) && !t->answer->body) {
		(void)snprintf(t->answer->error, sizeof(t->answer->error), "out of memory");
		return -EHOSTUNREACH;
	}
	return 0;
}

static int transfer_init(struct transfer *t, struct trib_client_answer *answer)
{
	start_library();
	memset(answer, 0, sizeof(*answer));
	t->answer = answer;
	t->curl = curl_easy_init();
	if (!t->curl) {
		(void)snprintf(answer->error, sizeof(answer->error), "out of memory");
		return -EHOSTUNREACH;
	}
	return 0;
}

/* Whether the answer is a redirect that may be followed: then the transfer is made ready for it.
 * Who was sent to a stranger has no token any more, wherever that sends it. */
static bool redirected(struct transfer *t, bool *told)
{
	const struct trib_client_request *request = t->request;
	char *next = NULL;
	long status = 0;

	(void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
	(void)curl_easy_getinfo(t->curl, CURLINFO_REDIRECT_URL, &next);
	if (request->no_redirect || !next ||
	    (status != 301 && status != 302 && status != 307 && status != 308)) {
		return false;
	}
	*told = *told && trib_client_may_follow(request->url, next);
	if (!*told && strcmp(request->method, "GET") != 0) {
		return false;
	}
	set_token(t, *told ? request->token : NULL);
	trib_free(t->answer->body);
	t->answer->body = NULL;
	t->answer->size = 0;
	return curl_easy_setopt(t->curl, CURLOPT_URL, next) == CURLE_OK;
}

static CURLcode perform(struct transfer *t)
{
	CURLcode code = curl_easy_perform(t->curl);
	bool told = true;

	for (int hop = 0; code == CURLE_OK && hop < REDIRECTS && redirected(t, &told); hop++) {
		code = curl_easy_perform(t->curl);
	}
	return code;
}

int trib_client_request(const struct trib_client_request *request,
			struct trib_client_answer *answer)
{
	struct transfer *t = trib_alloc(sizeof(*t));
	struct curl_slist *headers;
	int rc;

	if (!t || transfer_init(t, answer)) {
		trib_free(t);
		return -EHOSTUNREACH;
	}
	t->request = request;
	headers = make_headers(request->headers);
	set_common(t, request->url, headers);
	if (request->unix_socket) {
		(void)curl_easy_setopt(t->curl, CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
	}
	set_token(t, request->token);
	(void)curl_easy_setopt(t->curl, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->body) {
		(void)curl_easy_setopt(t->curl, CURLOPT_POSTFIELDSIZE_LARGE,
				       (curl_off_t)request->size);
		(void)curl_easy_setopt(t->curl, CURLOPT_POSTFIELDS, request->body);
	}
	if (request->on_tick) {
		(void)curl_easy_setopt(t->curl, CURLOPT_NOPROGRESS, 0L);
		(void)curl_easy_setopt(t->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
		(void)curl_easy_setopt(t->curl, CURLOPT_XFERINFODATA, t);
	}
	if (request->cacert) {
		(void)curl_easy_setopt(t->curl, CURLOPT_CAINFO, request->cacert);
	}
	if (request->timeout_ms) {
		(void)curl_easy_setopt(t->curl, CURLOPT_TIMEOUT_MS, request->timeout_ms);
	} else if (request->file || request->on_data) { /* no limit but that it goes on */
		(void)curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
		(void)curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_TIME, STALLED_S);
	} else {
		(void)curl_easy_setopt(t->curl, CURLOPT_TIMEOUT, REQUEST_S);
	}
	rc = conclude(t, perform(t));
	curl_slist_free_all(headers);
	curl_easy_cleanup(t->curl);
	trib_free(t);
	return rc;
}

void trib_client_answer_fini(struct trib_client_answer *answer)
{
	trib_free(answer->body);
	memset(answer, 0, sizeof(*answer));
}

/* Drives one transfer, ticking. 1 = on_tick ended it, 0 = the transfer ended (*ret_code). */
static int drive(CURLM *multi, const struct trib_client_stream *stream, CURLcode *ret_code)
{
	for (;;) {
		int running = 0;
		int left = 0;
		CURLMsg *message;

		if (curl_multi_perform(multi, &running) != CURLM_OK) {
			*ret_code = CURLE_RECV_ERROR;
			return 0;
		}
		message = curl_multi_info_read(multi, &left);
		if (message && message->msg == CURLMSG_DONE) {
			*ret_code = message->data.result;
			return 0;
		}
		if (stream->on_tick(stream->arg)) {
			return 1;
		}
		(void)curl_multi_poll(multi, NULL, 0, TICK_MS, NULL);
	}
}

int trib_client_stream(const struct trib_client_stream *stream, struct trib_client_answer *answer)
{
	struct transfer *t = trib_alloc(sizeof(*t));
	const char *lines[4] = { "Accept: text/event-stream" };
	char last[128];
	struct curl_slist *headers;
	CURLcode code = CURLE_OK;
	CURLM *multi;
	int rc;

	if (!t || transfer_init(t, answer)) {
		trib_free(t);
		return -EHOSTUNREACH;
	}
	t->stream = stream;
	if (stream->last_id && *stream->last_id) {
		(void)snprintf(last, sizeof(last), "Last-Event-ID: %s", stream->last_id);
		lines[1] = last;
	}
	headers = make_headers(lines);
	set_common(t, stream->url, headers);
	set_token(t, stream->token);
	(void)curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_TIME, KEEP_ALIVE_S);
	multi = curl_multi_init();
	if (multi) {
		(void)curl_multi_add_handle(multi, t->curl);
		rc = drive(multi, stream, &code);
		if (rc == 1) {
			rc = 0;
		} else {
			rc = conclude(t, code);
			rc = rc || answer->status == 200 ? -EHOSTUNREACH : -EBADMSG;
		}
		(void)curl_multi_remove_handle(multi, t->curl);
		(void)curl_multi_cleanup(multi);
	} else {
		rc = -EHOSTUNREACH;
	}
	curl_slist_free_all(headers);
	curl_easy_cleanup(t->curl);
	trib_free(t);
	return rc;
}
