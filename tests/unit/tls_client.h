/* SPDX-License-Identifier: Apache-2.0
 * What the TLS tests share: certificates made by the openssl command in a directory of their own,
 * and a blocking TLS client on OpenSSL. Certificates: ca, server (127.0.0.1), a and both (of ca),
 * foreign (of another CA, for client a).
 */
#ifndef TRIB_TESTS_UNIT_TLS_CLIENT_H
#define TRIB_TESTS_UNIT_TLS_CLIENT_H

#include "tests/unit/httpd_fixture.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>

static char certs[64];

static const char *at(const char *name)
{
	static char paths[4][128];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", certs, name);
	return path;
}

static void shell(const char *format, ...)
{
	char command[2048];
	va_list args;

	va_start(args, format);
	assert_true(vsnprintf(command, sizeof(command), format, args) < (int)sizeof(command));
	va_end(args);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
}

static void make_cert(const char *name, const char *ca, const char *alternative)
{
	shell("cd %s && openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
	      " -subj /O=test/CN=%s -addext 'subjectAltName=%s' -keyout %s.key -out %s.csr 2>>log"
	      " && openssl x509 -req -in %s.csr -CA %s.pem -CAkey %s.key -CAcreateserial -days 2"
	      " -copy_extensions copy -out %s.pem 2>>log",
	      certs, name, alternative, name, name, name, ca, ca, name);
}

static int make_certs(void **state)
{
	static const char *const cas[] = { "ca", "other" };

	(void)state;
	(void)signal(SIGPIPE, SIG_IGN);
	(void)snprintf(certs, sizeof(certs), "/tmp/trib-tls-XXXXXX");
	assert_non_null(mkdtemp(certs));
	for (size_t i = 0; i < TRIB_COUNT(cas); i++) {
		shell("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
		      " -nodes -days 2 -subj /CN=%s -keyout %s.key -out %s.pem 2>>log",
		      certs, cas[i], cas[i], cas[i]);
	}
	make_cert("server", "ca", "IP:127.0.0.1");
	make_cert("a", "ca", "URI:https://example.org/a,URI:tributary:client/a");
	make_cert("both", "ca", "URI:tributary:client/a,URI:tributary:client/b");
	make_cert("foreign", "other", "URI:tributary:client/a");
	return 0;
}

static int remove_certs(void **state)
{
	(void)state;
	shell("rm -rf %s", certs);
	return 0;
}

static void start_tls(const struct trib_httpd_limits *limits, bool mutual)
{
	static char paths[3][128];
	struct trib_tls_files files = { paths[0], paths[1], mutual ? paths[2] : NULL };

	(void)snprintf(paths[0], sizeof(paths[0]), "%s", at("server.pem"));
	(void)snprintf(paths[1], sizeof(paths[1]), "%s", at("server.key"));
	(void)snprintf(paths[2], sizeof(paths[2]), "%s", at("ca.pem"));
	assert_int_equal(trib_tls_new(&files, &server.tls), 0);
	assert_non_null(server.tls);
	start(limits);
}

static void stop_tls(void)
{
	stop();
	server.tls = trib_tls_free(server.tls);
}

/* name: certificate to show, or NULL. */
static SSL_CTX *client_context(int version, const char *name)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	char file[64];

	assert_non_null(context);
	assert_int_equal(SSL_CTX_load_verify_file(context, at("ca.pem")), 1);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	if (version) {
		SSL_CTX_set_security_level(context, 0);
		assert_int_equal(SSL_CTX_set_min_proto_version(context, version), 1);
		assert_int_equal(SSL_CTX_set_max_proto_version(context, version), 1);
	}
	if (name) {
		(void)snprintf(file, sizeof(file), "%s.pem", name);
		assert_int_equal(SSL_CTX_use_certificate_file(context, at(file), SSL_FILETYPE_PEM),
				 1);
		(void)snprintf(file, sizeof(file), "%s.key", name);
		assert_int_equal(SSL_CTX_use_PrivateKey_file(context, at(file), SSL_FILETYPE_PEM),
				 1);
	}
	return context;
}

/* NULL: the handshake failed. */
static SSL *tls_dial_with(SSL_CTX *context)
{
	SSL *ssl = SSL_new(context);

	SSL_CTX_free(context);
	assert_non_null(ssl);
	assert_int_equal(SSL_set_fd(ssl, dial()), 1);
	if (SSL_connect(ssl) != 1) {
		(void)close(SSL_get_fd(ssl));
		SSL_free(ssl);
		return NULL;
	}
	return ssl;
}

static TRIB_UNUSED SSL *tls_dial(void)
{
	SSL *ssl = tls_dial_with(client_context(0, NULL));

	assert_non_null(ssl);
	return ssl;
}

static TRIB_UNUSED void tls_hang_up(SSL *ssl)
{
	(void)close(SSL_get_fd(ssl));
	SSL_free(ssl);
}

static TRIB_UNUSED bool tls_say_bytes(SSL *ssl, const void *bytes, size_t size)
{
	for (size_t done = 0; done < size;) {
		size_t n = 0;

		if (SSL_write_ex(ssl, (const char *)bytes + done, size - done, &n) != 1) {
			return false;
		}
		done += n;
	}
	return true;
}

static TRIB_UNUSED void tls_say(SSL *ssl, const char *text)
{
	assert_true(tls_say_bytes(ssl, text, strlen(text)));
}

/* As hear() of the fixture. */
static TRIB_UNUSED struct answer *tls_hear(SSL *ssl)
{
	size_t used = 0;
	size_t length = SIZE_MAX;
	const char *line;
	size_t n;

	last.status = -1;
	last.size = 0;
	while (used < 4 || memcmp(last.head + used - 4, "\r\n\r\n", 4) != 0) {
		if (used + 1 >= sizeof(last.head) ||
		    SSL_read_ex(ssl, last.head + used, 1, &n) != 1) {
			return &last;
		}
		last.head[++used] = '\0';
	}
	assert_int_equal(sscanf(last.head, "HTTP/1.1 %d ", &last.status), 1);
	line = strstr(last.head, "\r\nContent-Length: ");
	if (line) {
		assert_int_equal(sscanf(line, "\r\nContent-Length: %zu", &length), 1);
	}
	if (last.status < 200 || last.status == 204) {
		return &last;
	}
	while (last.size < length && last.size < sizeof(last.body) - 1) {
		size_t room = sizeof(last.body) - 1 - last.size;

		room = room < length - last.size ? room : length - last.size;
		if (SSL_read_ex(ssl, last.body + last.size, room, &n) != 1) {
			break;
		}
		last.size += n;
	}
	last.body[last.size] = '\0';
	return &last;
}

/* The end as it should be: close_notify, not a bare FIN. */
static TRIB_UNUSED bool tls_closed(SSL *ssl)
{
	char byte;
	int rc = SSL_read(ssl, &byte, 1);

	return rc <= 0 && SSL_get_error(ssl, rc) == SSL_ERROR_ZERO_RETURN;
}

#endif
