/* SPDX-License-Identifier: Apache-2.0
 * common/tls.h under common/httpd.h: handshakes, bytes that hide in OpenSSL, uploads, ends, and
 * peers that misbehave.
 */
#include "tests/unit/tls_client.h"

#include <sys/resource.h>

static void versions(void **state)
{
	static const int good[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	SSL *ssl;

	(void)state;
	start_tls(NULL, false);
	for (size_t i = 0; i < TRIB_COUNT(good); i++) {
		ssl = tls_dial_with(client_context(good[i], NULL));
		assert_non_null(ssl);
		assert_int_equal(SSL_version(ssl), good[i]);
		for (int turn = 0; turn < 3; turn++) { /* keep-alive */
			tls_say(ssl, "GET /get?abc HTTP/1.1\r\n" H "\r\n");
			assert_int_equal(tls_hear(ssl)->status, 200);
			assert_string_equal(last.body, "abc");
			assert_non_null(strstr(last.head, "X-Peer: 127.0.0.1\r\n"));
		}
		tls_say(ssl, "GET /who HTTP/1.1\r\n" H "\r\n");
		assert_int_equal(tls_hear(ssl)->status, 200);
		assert_string_equal(last.body, "nobody asked");
		/* Tickets would be sent after the handshake and be known by now. */
		assert_int_equal(SSL_SESSION_has_ticket(SSL_get_session(ssl)), 0);
		if (good[i] == TLS1_2_VERSION) { /* refused by an alert that ends nothing */
			assert_int_equal(SSL_renegotiate(ssl), 1);
			assert_int_not_equal(SSL_do_handshake(ssl), 1);
		}
		tls_hang_up(ssl);
	}
	assert_null(tls_dial_with(client_context(TLS1_1_VERSION, NULL)));
	stop_tls();
	assert_int_equal(server.stats.tls_handshakes, 2);
	assert_int_equal(server.stats.tls_refused, 1);
	assert_int_equal(server.stats.head_errors, 0);
}

/* One record holds more than is read at a time: the socket does not tell of the rest. */
static void pending_bytes(void **state)
{
	SSL *ssl;
	char text[16000];
	int n = 0;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start_tls(NULL, false);
	ssl = tls_dial();
	for (int i = 0; i < 100; i++) { /* a hundred requests in one record */
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "GET /get?%d HTTP/1.1\r\n" H "\r\n", i);
	}
	tls_say(ssl, text);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(text, sizeof(text), "%d", i);
		assert_int_equal(tls_hear(ssl)->status, 200);
		assert_string_equal(last.body, text);
	}
	/* Head, body and the next request in one record; the handler takes its time. */
	tls_say(ssl, "PUT /later-sink HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"
		     "POST /later-body HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc"
		     "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
		     "3\r\nxyz\r\n1\r\n!\r\n0\r\n\r\n"
		     "POST /later-answer HTTP/1.1\r\n" H "\r\n"
		     "GET /get?end HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(tls_hear(ssl)->status, 201);
	assert_string_equal(last.body, "5");
	assert_memory_equal(server.sunk, "hello", 5);
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "abc");
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "xyz!");
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "late");
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "end");
	tls_hang_up(ssl);
	stop_tls();
	trib_free(server.sunk);
}

/* Sends what the client wants to say byte by byte, each in a segment of its own. */
static void dribble(SSL *ssl, BIO *out)
{
	int fd = SSL_get_rfd(ssl);
	char byte;

	while (BIO_read(out, &byte, 1) == 1) {
		assert_true(say_bytes(fd, &byte, 1));
	}
}

static void fragments(void **state)
{
	static const char head[] = "PUT /sink HTTP/1.1\r\n" H "Content-Length: 700\r\n\r\n";
	static const char chunked[] = "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n"
				      "\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n\r\n";
	char *bytes = pattern(700);
	BIO *out = BIO_new(BIO_s_mem());
	SSL_CTX *context = client_context(0, NULL);
	SSL *ssl = SSL_new(context);
	int fd;

	(void)state;
	SSL_CTX_free(context);
	server.sunk = trib_alloc(BIG);
	start_tls(NULL, false);
	/* Records cut by TCP anywhere, handshake included. */
	fd = dial();
	assert_int_equal(SSL_set_rfd(ssl, fd), 1);
	SSL_set0_wbio(ssl, out);
	SSL_set_connect_state(ssl);
	(void)BIO_set_mem_eof_return(out, -1);
	while (SSL_do_handshake(ssl) != 1) {
		struct timeval wait = { .tv_sec = 8 };

		dribble(ssl, out);
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	}
	dribble(ssl, out);
	/* And every byte a record of its own. */
	for (size_t i = 0; i < sizeof(head) - 1; i++) {
		assert_int_equal(SSL_write(ssl, head + i, 1), 1);
		dribble(ssl, out);
	}
	for (size_t i = 0; i < 700; i++) {
		assert_int_equal(SSL_write(ssl, bytes + i, 1), 1);
		if (i % 7 == 0) {
			dribble(ssl, out);
		}
	}
	dribble(ssl, out);
	assert_int_equal(tls_hear(ssl)->status, 201);
	assert_memory_equal(server.sunk, bytes, 700);
	for (size_t i = 0; i < sizeof(chunked) - 1; i++) {
		assert_int_equal(SSL_write(ssl, chunked + i, 1), 1);
	}
	dribble(ssl, out);
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "hello world");
	SSL_free(ssl);
	hang_up(fd);
	stop_tls();
	trib_free(bytes);
	trib_free(server.sunk);
}

static void uploads(void **state)
{
	static const int good[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	char *bytes = pattern(BIG);
	char head[200];
	SSL *ssl;

	(void)state;
	server.sunk = trib_alloc(BIG);
	(void)snprintf(head, sizeof(head), "PUT /sink HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
		       BIG);
	start_tls(NULL, false);
	for (size_t i = 0; i < TRIB_COUNT(good); i++) {
		memset(server.sunk, 0, BIG);
		ssl = tls_dial_with(client_context(good[i], NULL));
		tls_say(ssl, head);
		assert_true(tls_say_bytes(ssl, bytes, BIG));
		assert_int_equal(tls_hear(ssl)->status, 201);
		assert_memory_equal(server.sunk, bytes, BIG);
		tls_hang_up(ssl);
	}
	stop_tls();
	assert_true(server.stats.bytes_in_sink == 2 * BIG);
	assert_true(server.stats.bytes_in_buffer == 0);
	trib_free(bytes);
	trib_free(server.sunk);
}

/* The case session tickets break: what nobody reads turns the client's close into a reset. */
static void upload_and_leave(void **state)
{
	char *bytes = pattern(BIG);
	char head[200];

	(void)state;
	server.sunk = trib_alloc(BIG);
	(void)snprintf(head, sizeof(head), "PUT /sink HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
		       BIG);
	start_tls(NULL, false);
	for (int i = 1; i <= 6; i++) {
		SSL *ssl = tls_dial_with(
			client_context(i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, NULL));

		memset(server.sunk, 0, BIG);
		tls_say(ssl, head);
		assert_true(tls_say_bytes(ssl, bytes, BIG));
		if (i > 3) { /* politely, or not */
			(void)SSL_shutdown(ssl);
		}
		tls_hang_up(ssl);
		assert_true(wait_for(&server.completed, i, 8000));
		assert_memory_equal(server.sunk, bytes, BIG);
	}
	stop_tls();
	assert_int_equal(server.stats.tls_errors, 0);
	trib_free(bytes);
	trib_free(server.sunk);
}

static void downloads(void **state)
{
	char *bytes = trib_alloc(MEMORY);
	int small = 20000;
	size_t got = 0;
	size_t length = 0;
	SSL *ssl;
	size_t n;

	(void)state;
	server.memory = pattern(MEMORY);
	start_tls(NULL, false);
	ssl = tls_dial();
	(void)setsockopt(SSL_get_fd(ssl), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	tls_say(ssl, "GET /memory HTTP/1.1\r\n" H "\r\n");
	pause_us(50000); /* the server meets a full socket */
	for (size_t used = 0; used < 4 || memcmp(last.head + used - 4, "\r\n\r\n", 4) != 0;
	     used++) {
		assert_int_equal(SSL_read_ex(ssl, last.head + used, 1, &n), 1);
		last.head[used + 1] = '\0';
	}
	assert_int_equal(sscanf(strstr(last.head, "\r\nContent-Length:"), "\r\nContent-Length: %zu",
				&length),
			 1);
	assert_true(length == MEMORY);
	while (got < MEMORY) {
		assert_int_equal(SSL_read_ex(ssl, bytes + got, MEMORY - got, &n), 1);
		got += n;
	}
	assert_memory_equal(bytes, server.memory, MEMORY);
	assert_true(wait_for(&server.done, 1, 2000));
	/* Still usable, and a stream is closed by close_notify. */
	tls_say(ssl, "GET /sse HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(tls_hear(ssl)->status, 200);
	assert_string_equal(last.body, "data: 1\n\ndata: 2\n\n");
	assert_true(tls_closed(ssl));
	tls_hang_up(ssl);
	stop_tls();
	trib_free(bytes);
	trib_free(server.memory);
}

/* Refused in the middle of a body: the answer arrives, although megabytes were under way. */
static void early_answers(void **state)
{
	char *bytes = pattern(BIG);
	SSL *ssl;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start_tls(NULL, false);
	ssl = tls_dial();
	tls_say(ssl, "PUT /early HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(tls_say_bytes(ssl, bytes, BIG));
	assert_int_equal(tls_hear(ssl)->status, 413);
	assert_true(tls_closed(ssl));
	tls_hang_up(ssl);
	ssl = tls_dial();
	tls_say(ssl, "PUT /sink-refuse HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	assert_true(tls_say_bytes(ssl, bytes, BIG));
	assert_int_equal(tls_hear(ssl)->status, 422);
	assert_true(tls_closed(ssl));
	tls_hang_up(ssl);
	/* A body cut short by close_notify is cut short. */
	ssl = tls_dial();
	tls_say(ssl, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\nabc");
	(void)SSL_shutdown(ssl);
	assert_int_equal(tls_hear(ssl)->status, 400);
	assert_non_null(strstr(last.body, "truncated-body"));
	tls_hang_up(ssl);
	stop_tls();
	assert_int_equal(server.broken, 1);
	trib_free(bytes);
	trib_free(server.sunk);
}

/* Key updates in the middle of everything; those that ask for an answer make reading write. */
static void key_updates(void **state)
{
	char *bytes = pattern(BIG);
	SSL *ssl;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start_tls(NULL, false);
	ssl = tls_dial_with(client_context(TLS1_3_VERSION, NULL));
	tls_say(ssl, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 8388608\r\n\r\n");
	for (size_t at = 0; at < BIG; at += BIG / 64) {
		assert_int_equal(SSL_key_update(ssl, at % (BIG / 32) ? SSL_KEY_UPDATE_NOT_REQUESTED
								     : SSL_KEY_UPDATE_REQUESTED),
				 1);
		assert_true(tls_say_bytes(ssl, bytes + at, BIG / 64));
	}
	assert_int_equal(tls_hear(ssl)->status, 201);
	assert_memory_equal(server.sunk, bytes, BIG);
	for (int i = 0; i < 1000; i++) { /* and without any request */
		assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(ssl), 1);
	}
	tls_say(ssl, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(tls_hear(ssl)->status, 200);
	tls_hang_up(ssl);
	stop_tls();
	trib_free(bytes);
	trib_free(server.sunk);
}

static double cpu_seconds(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Bytes in OpenSSL that nobody wants yet must not keep the loop turning. */
static void nothing_spins(void **state)
{
	SSL *ssls[4];
	double before;
	int fd;

	(void)state;
	start_tls(NULL, false);
	for (size_t i = 0; i < TRIB_COUNT(ssls); i++) {
		ssls[i] = tls_dial();
	}
	tls_say(ssls[0], "GET /hang HTTP/1.1\r\n" H "\r\nGET /get HTTP/1.1\r\n");
	tls_say(ssls[1], "PUT /hang HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	tls_say(ssls[2], "GET / HTTP/1.1\r\n" H);
	tls_say(ssls[3], "PUT /early HTTP/1.1\r\n" H "Content-Length: 500\r\n\r\nhello");
	assert_int_equal(tls_hear(ssls[3])->status, 413);
	fd = dial();
	assert_true(say_bytes(fd, "\x16\x03\x01\x02", 4));
	before = cpu_seconds();
	pause_us(500000);
	assert_true(cpu_seconds() - before < 0.1);
	for (size_t i = 0; i < TRIB_COUNT(ssls); i++) {
		tls_hang_up(ssls[i]);
	}
	hang_up(fd);
	stop_tls();
}

static void broken_records(void **state)
{
	static const char junk[] = "\x17\x03\x03\x00\x20 this is no record of the session at all";
	SSL *ssl;

	(void)state;
	server.sunk = trib_alloc(BIG);
	start_tls(NULL, false);
	/* Between requests. */
	ssl = tls_dial();
	assert_true(say_bytes(SSL_get_fd(ssl), junk, sizeof(junk)));
	assert_int_equal(tls_hear(ssl)->status, -1);
	tls_hang_up(ssl);
	/* Right behind good bytes of a body: nothing more comes that would wake the server. */
	ssl = tls_dial();
	tls_say(ssl, "PUT /sink HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\nabc");
	assert_true(say_bytes(SSL_get_fd(ssl), junk, sizeof(junk)));
	assert_true(wait_for(&server.gone, 1, 2000));
	assert_int_equal(tls_hear(ssl)->status, -1);
	tls_hang_up(ssl);
	stop_tls();
	assert_int_equal(server.stats.tls_errors, 2);
	assert_int_equal(server.broken, 1);
	assert_int_equal(server.completed, 0);
	trib_free(server.sunk);
}

static void wrong_protocols(void **state)
{
	int fd;

	(void)state;
	start_tls(NULL, false);
	fd = dial();
	say(fd, "GET /get HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 400);
	assert_non_null(strstr(last.body, "TLS"));
	assert_true(closed(fd));
	hang_up(fd);
	fd = dial();
	say(fd, "\x80\x2e nonsense");
	(void)recv(fd, last.body, sizeof(last.body), 0); /* an alert, perhaps */
	hang_up(fd);
	tls_hang_up(tls_dial());
	stop_tls();
	assert_int_equal(server.stats.tls_refused, 2);
	/* And the reverse. */
	start(NULL);
	assert_null(tls_dial_with(client_context(0, NULL)));
	fd = dial();
	say(fd, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(hear(fd, false)->status, 200);
	hang_up(fd);
	stop();
	assert_int_equal(server.stats.head_errors, 1);
}

static void slow_handshakes(void **state)
{
	struct trib_httpd_limits limits = trib_httpd_limits_default;
	uint64_t began;
	SSL *ssl;
	int fds[2];

	(void)state;
	limits.head_timeout_ms = 300;
	limits.idle_timeout_ms = 400;
	limits.conns_max = 3;
	start_tls(&limits, false);
	began = trib_clock_ms();
	fds[0] = dial(); /* says nothing */
	fds[1] = dial(); /* says little, again and again */
	assert_true(say_bytes(fds[1], "\x16\x03\x01\x02", 4));
	for (int i = 0; i < 8; i++) {
		pause_us(25000);
		assert_true(say_bytes(fds[1], "\0", 1));
	}
	ssl = tls_dial();
	assert_int_equal(hear(dial(), false)->status, -1); /* one too many */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(hear(fds[i], false)->status, -1);
		hang_up(fds[i]);
	}
	assert_in_range(trib_clock_ms() - began, 290, 1500);
	assert_true(tls_closed(ssl)); /* idle: without a word but close_notify */
	tls_hang_up(ssl);
	stop_tls();
	assert_int_equal(server.stats.timeouts, 3);
	assert_int_equal(server.stats.connections_refused, 1);
	assert_int_equal(server.stats.tls_handshakes, 1);
}

static int ask_who(const char *name, int version)
{
	SSL *ssl = tls_dial_with(client_context(version, name));
	int status;

	if (!ssl) {
		return -1;
	}
	/* With TLS 1.3 a client learns that it was refused after its first bytes. */
	if (!tls_say_bytes(ssl, "GET /who HTTP/1.1\r\n" H "\r\n", 30)) {
		tls_hang_up(ssl);
		return -1;
	}
	status = tls_hear(ssl)->status;
	tls_hang_up(ssl);
	return status;
}

static void client_certificates(void **state)
{
	static const int good[] = { TLS1_2_VERSION, TLS1_3_VERSION };

	(void)state;
	start_tls(NULL, true);
	for (size_t i = 0; i < TRIB_COUNT(good); i++) {
		assert_int_equal(ask_who("a", good[i]), 200);
		assert_string_equal(last.body, "tributary:client/a");
		assert_non_null(strstr(last.head, "X-Subject: CN=a,O=test\r\n"));
		assert_non_null(strstr(last.head, "X-Is-A: 1\r\n"));
		assert_int_equal(ask_who("server", good[i]), 200); /* of the CA, but nobody */
		assert_string_equal(last.body, "");
		assert_non_null(strstr(last.head, "X-Is-A: 0\r\n"));
		assert_int_equal(ask_who("both", good[i]), 200); /* a or b? */
		assert_string_equal(last.body, "");
		assert_non_null(strstr(last.head, "X-Is-A: 0\r\n"));
		assert_int_equal(ask_who(NULL, good[i]), -1);
		assert_int_equal(ask_who("foreign", good[i]), -1);
	}
	stop_tls();
	assert_int_equal(server.stats.tls_handshakes, 6);
	assert_int_equal(server.stats.tls_refused, 4);
	assert_int_equal(server.stats.requests, 6);
}

static void files(void **state)
{
	struct trib_tls_files f = { 0 };
	struct trib_tls *tls;
	X509 *cert;
	SSL *ssl;

	(void)state;
	assert_int_equal(trib_tls_new(&f, &tls), 0);
	assert_null(tls);
	f.cert = at("server.pem");
	assert_int_equal(trib_tls_new(&f, &tls), -EINVAL);
	f.key = at("a.key"); /* another's */
	assert_int_equal(trib_tls_new(&f, &tls), -EINVAL);
	shell("cd %s && openssl ec -in server.key -aes128 -passout pass:x -out locked.key 2>>log",
	      certs);
	f.key = at("locked.key");
	assert_int_equal(trib_tls_new(&f, &tls), -EINVAL);
	f = (struct trib_tls_files){ .client_ca = at("ca.pem") };
	assert_int_equal(trib_tls_new(&f, &tls), -EINVAL);
	/* Reloaded while a session goes on; then a broken file changes nothing. */
	start_tls(NULL, false);
	ssl = tls_dial();
	shell("cd %s && cp server.pem was.pem && cp server.key was.key && cp a.pem server.pem &&"
	      " cp a.key server.key",
	      certs);
	assert_int_equal(trib_tls_reload(server.tls), 0);
	tls_say(ssl, "GET /get?x HTTP/1.1\r\n" H "\r\n");
	assert_int_equal(tls_hear(ssl)->status, 200);
	tls_hang_up(ssl);
	for (int i = 0; i < 2; i++) {
		char name[256];

		ssl = tls_dial();
		cert = SSL_get1_peer_certificate(ssl);
		(void)X509_NAME_oneline(X509_get_subject_name(cert), name, sizeof(name));
		assert_non_null(strstr(name, "CN=a"));
		X509_free(cert);
		tls_hang_up(ssl);
		shell("cd %s && echo >server.pem", certs);
		assert_int_equal(trib_tls_reload(server.tls), -EINVAL);
	}
	stop_tls();
	shell("cd %s && cp was.pem server.pem && cp was.key server.key", certs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions),
		cmocka_unit_test(pending_bytes),
		cmocka_unit_test(fragments),
		cmocka_unit_test(uploads),
		cmocka_unit_test(upload_and_leave),
		cmocka_unit_test(downloads),
		cmocka_unit_test(early_answers),
		cmocka_unit_test(key_updates),
		cmocka_unit_test(nothing_spins),
		cmocka_unit_test(broken_records),
		cmocka_unit_test(wrong_protocols),
		cmocka_unit_test(slow_handshakes),
		cmocka_unit_test(client_certificates),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests_name("common/tls", tests, make_certs, remove_certs);
}
