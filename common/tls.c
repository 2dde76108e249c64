/* SPDX-License-Identifier: Apache-2.0 */
#include "common/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/loop.h"

#define RECORDS_MAX 256 /* per trib_tls_read: bounds the work of tiny records */
#define URI_PREFIX  "tributary:"
#define SUITES_12   "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"

struct trib_tls {
	struct trib_tls_files files;
	pthread_mutex_t lock; /* guards context: threads of one process */
	SSL_CTX *context;
	char host[256]; /* of the server to talk to; "": we are the server */
	bool numeric;   /* host is an address */
};

struct trib_tls_session {
	SSL *ssl;
	struct trib_tls_identity *identity;
	const char *why;
	bool established;
	bool failed;           /* SSL must not be used any more */
	bool parked;           /* a read met its end after bytes: told by the next read */
	int parked_errno;      /* 0: the end */
	bool read_wants_write; /* as the last read (or handshake) left it */
	bool write_wants_read;
};

/* ---- context ---- */

static const char *reason(void)
{
	unsigned long code = ERR_peek_error();
	const char *text = code ? ERR_reason_error_string(code) : NULL;

	return text ? text : code ? "error without a name" : "closed or reset";
}

/* Nobody is there to type one: an encrypted key is refused. */
static int no_password(char *out, int size, int writing, void *arg)
{
	(void)out;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size,
			   const unsigned char *in, unsigned in_size, void *arg)
{
	static const char http[] = "http/1.1";

	(void)ssl;
	(void)arg;
	for (unsigned at = 0; at + 1 <= in_size && at + 1 + in[at] <= in_size; at += 1u + in[at]) {
		if (in[at] == sizeof(http) - 1 &&
		    memcmp(in + at + 1, http, sizeof(http) - 1) == 0) {
			*out = in + at + 1;
			*out_size = in[at];
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static bool load_files(SSL_CTX *context, const struct trib_tls_files *files, const char **ret_file)
{
	STACK_OF(X509_NAME) * names;

	*ret_file = files->cert;
	if (SSL_CTX_use_certificate_chain_file(context, files->cert) != 1) {
		return false;
	}
	*ret_file = files->key;
	if (SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(context) != 1) {
		return false;
	}
	if (!files->client_ca) {
		return true;
	}
	*ret_file = files->client_ca;
	names = SSL_load_client_CA_file(files->client_ca);
	if (!names) {
		return false;
	}
	SSL_CTX_set_client_CA_list(context, names);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return SSL_CTX_load_verify_file(context, files->client_ca) == 1;
}

static SSL_CTX *make_context(const struct trib_tls_files *files)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	const char *file = "-";

	ERR_clear_error();
	if (!context) {
		return NULL;
	}
	SSL_CTX_set_default_passwd_cb(context, no_password);
	/* The end without close_notify is an end: HTTP says itself how long a body is. */
	(void)SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
						   SSL_OP_NO_COMPRESSION |
						   SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
						SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						SSL_MODE_RELEASE_BUFFERS);
	/* One record without application data a call: a flood of them must not hold the loop. */
	(void)SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
	(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
	if (SSL_CTX_set_num_tickets(context, 0) != 1 ||
	    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(context, SUITES_12) != 1 ||
	    !load_files(context, files, &file)) {
		log_err("tls", "cannot be set up file=%s reason=%s", file, reason());
		ERR_clear_error();
		SSL_CTX_free(context);
		return NULL;
	}
	return context;
}

int trib_tls_new(const struct trib_tls_files *files, struct trib_tls **ret_tls)
{
	struct trib_tls *tls;

	*ret_tls = NULL;
	if (!files->cert && !files->key && !files->client_ca) {
		return 0;
	}
	if (!files->cert || !files->key) {
		log_err("tls", "--tls-cert and --tls-key belong together");
		return -EINVAL;
	}
	tls = trib_alloc(sizeof(*tls));
	if (!tls) {
		return -ENOMEM;
	}
	tls->files = *files;
	(void)pthread_mutex_init(&tls->lock, NULL);
	tls->context = make_context(files);
	if (!tls->context) {
		(void)trib_tls_free(tls);
		return -EINVAL;
	}
	*ret_tls = tls;
	return 0;
}

/* ---- the client's side ---- */

static bool trust(SSL_CTX *context, const struct trib_tls_peer *peer, const char **ret_file)
{
	*ret_file = peer->cacert ? peer->cacert : "-";
	if (peer->cacert ? SSL_CTX_load_verify_file(context, peer->cacert) != 1
			 : SSL_CTX_set_default_verify_paths(context) != 1) {
		return false;
	}
	*ret_file = peer->cert;
	if (peer->cert && SSL_CTX_use_certificate_chain_file(context, peer->cert) != 1) {
		return false;
	}
	*ret_file = peer->key ? peer->key : peer->cert;
	return !peer->cert ||
	       (SSL_CTX_use_PrivateKey_file(context, *ret_file, SSL_FILETYPE_PEM) == 1 &&
		SSL_CTX_check_private_key(context) == 1);
}

static SSL_CTX *make_client_context(const struct trib_tls_peer *peer)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	const char *file = "-";

	ERR_clear_error();
	if (!context) {
		return NULL;
	}
	SSL_CTX_set_default_passwd_cb(context, no_password);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
						SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
	    !trust(context, peer, &file)) {
		log_err("tls", "cannot be set up file=%s reason=%s", file, reason());
		ERR_clear_error();
		SSL_CTX_free(context);
		return NULL;
	}
	return context;
}

int trib_tls_client_new(const struct trib_tls_peer *peer, struct trib_tls **ret_tls)
{
	struct trib_tls *tls = trib_alloc(sizeof(*tls));
	ASN1_OCTET_STRING *address;

	*ret_tls = NULL;
	if (!tls) {
		return -ENOMEM;
	}
	(void)pthread_mutex_init(&tls->lock, NULL);
	if (!peer->host[0] || trib_copy(tls->host, sizeof(tls->host), peer->host)) {
		(void)trib_tls_free(tls);
		return -EINVAL;
	}
	address = a2i_IPADDRESS(peer->host);
	tls->numeric = address != NULL;
	ASN1_OCTET_STRING_free(address);
	ERR_clear_error();
	tls->context = make_client_context(peer);
	if (!tls->context) {
		(void)trib_tls_free(tls);
		return -EINVAL;
	}
	*ret_tls = tls;
	return 0;
}

static bool expect_server(const struct trib_tls *tls, SSL *ssl)
{
	SSL_set_connect_state(ssl);
	if (tls->numeric) {
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), tls->host) == 1;
	}
	return SSL_set1_host(ssl, tls->host) == 1 && SSL_set_tlsext_host_name(ssl, tls->host) == 1;
}

int trib_tls_reload(struct trib_tls *tls)
{
	SSL_CTX *context = make_context(&tls->files);
	SSL_CTX *old;

	if (!context) {
		log_err("tls", "not reloaded: going on with the old certificate");
		return -EINVAL;
	}
	(void)pthread_mutex_lock(&tls->lock);
	old = tls->context;
	tls->context = context;
	(void)pthread_mutex_unlock(&tls->lock);
	SSL_CTX_free(old); /* sessions hold references of their own */
	log_info("tls", "certificate reloaded file=%s", tls->files.cert);
	return 0;
}

struct trib_tls *trib_tls_free(struct trib_tls *tls)
{
	if (tls) {
		SSL_CTX_free(tls->context);
		(void)pthread_mutex_destroy(&tls->lock);
		trib_free(tls);
	}
	return NULL;
}

/* ---- sessions ---- */

int trib_tls_session_new(struct trib_tls *tls, int fd, struct trib_tls_session **ret_session)
{
	struct trib_tls_session *session = trib_alloc(sizeof(*session));

	if (!session) {
		return -ENOMEM;
	}
	session->why = "-";
	(void)pthread_mutex_lock(&tls->lock);
	session->ssl = SSL_new(tls->context);
	(void)pthread_mutex_unlock(&tls->lock);
	if (!session->ssl || SSL_set_fd(session->ssl, fd) != 1 ||
	    (tls->host[0] && !expect_server(tls, session->ssl))) {
		ERR_clear_error();
		(void)trib_tls_session_free(session);
		return -ENOMEM;
	}
	if (!tls->host[0]) {
		SSL_set_accept_state(session->ssl);
	}
	*ret_session = session;
	return 0;
}

struct trib_tls_session *trib_tls_session_free(struct trib_tls_session *session)
{
	if (session) {
		SSL_free(session->ssl);
		trib_free(session->identity);
		trib_free(session);
	}
	return NULL;
}

/* What the next read has to tell, instead of reading. */
static bool told(struct trib_tls_session *session, ssize_t *ret_n)
{
	if (session->parked) {
		session->parked = false;
		errno = session->parked_errno;
		*ret_n = session->parked_errno ? -1 : 0;
		return true;
	}
	if (session->failed) {
		errno = EPIPE;
		*ret_n = -1;
		return true;
	}
	return false;
}

/* errno of a call that did not succeed; 0: the peer has ended. */
static int trouble(struct trib_tls_session *session, int rc, bool writing)
{
	int saved = errno;

	switch (SSL_get_error(session->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		session->write_wants_read = writing;
		return EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		session->read_wants_write = !writing;
		return EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return writing ? EPIPE : 0;
	case SSL_ERROR_SYSCALL:
		session->failed = true;
		session->why = "connection lost";
		return saved ? saved : ECONNRESET;
	default:
		session->failed = true;
		session->why = reason();
		return EPROTO;
	}
}

static void print_subject(const X509 *cert, char out[256])
{
	BIO *text = BIO_new(BIO_s_mem());
	int size = 0;

	if (text && X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) > 0) {
		size = BIO_read(text, out, 255);
	}
	out[size > 0 ? size : 0] = '\0';
	(void)BIO_free(text);
}

/* Two URIs of ours would leave it open who this is: then it is nobody. */
static void find_uri(const X509 *cert, char out[256])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	unsigned found = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const unsigned char *text;
		int size;

		if (name->type != GEN_URI) {
			continue;
		}
		text = ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
		size = ASN1_STRING_length(name->d.uniformResourceIdentifier);
		if (size < (int)strlen(URI_PREFIX) ||
		    memcmp(text, URI_PREFIX, strlen(URI_PREFIX)) != 0) {
			continue;
		}
		found++;
		if (size < 256 && !memchr(text, '\0', (size_t)size)) {
			memcpy(out, text, (size_t)size);
			out[size] = '\0';
		}
	}
	if (found != 1) {
		out[0] = '\0';
	}
	GENERAL_NAMES_free(names);
}

static int keep_identity(struct trib_tls_session *session)
{
	const X509 *cert = SSL_get0_peer_certificate(session->ssl);

	if (!cert || SSL_get_verify_mode(session->ssl) == SSL_VERIFY_NONE) {
		return 0;
	}
	session->identity = trib_alloc(sizeof(*session->identity));
	if (!session->identity) {
		return -ENOMEM;
	}
	print_subject(cert, session->identity->subject);
	find_uri(cert, session->identity->uri);
	return 0;
}

int trib_tls_handshake(struct trib_tls_session *session)
{
	int rc;

	if (session->failed) {
		return -EPROTO;
	}
	ERR_clear_error();
	session->read_wants_write = false;
	rc = SSL_do_handshake(session->ssl);
	if (rc == 1) {
		session->established = true;
		return keep_identity(session);
	}
	rc = trouble(session, rc, false);
	if (rc == EPROTO && ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST) {
		rc = EPROTONOSUPPORT;
	}
	ERR_clear_error();
	return rc ? -rc : -ECONNRESET;
}

ssize_t trib_tls_peek(struct trib_tls_session *session, void *room, size_t size)
{
	size_t n = 0;
	ssize_t end;
	int rc;

	if (told(session, &end)) {
		return end;
	}
	ERR_clear_error();
	session->read_wants_write = false;
	if (SSL_peek_ex(session->ssl, room, size, &n) == 1) {
		return (ssize_t)n;
	}
	rc = trouble(session, 0, false);
	ERR_clear_error();
	errno = rc;
	return rc ? -1 : 0;
}

ssize_t trib_tls_read(struct trib_tls_session *session, const struct iovec *vectors, int count)
{
	size_t total = 0;
	size_t at = 0; /* in vectors[i] */
	ssize_t end;
	int rc = EAGAIN;
	int i = 0;

	if (told(session, &end)) {
		return end;
	}
	ERR_clear_error();
	session->read_wants_write = false;
	for (int records = 0; records < RECORDS_MAX && i < count; records++) {
		size_t n = 0;

		if (vectors[i].iov_len == at) {
			i++;
			at = 0;
			continue;
		}
		if (SSL_read_ex(session->ssl, (char *)vectors[i].iov_base + at,
				vectors[i].iov_len - at, &n) != 1) {
			rc = trouble(session, 0, false);
			ERR_clear_error();
			break;
		}
		at += n;
		total += n;
	}
	if (total) {
		session->parked = rc != EAGAIN;
		session->parked_errno = rc;
		return (ssize_t)total;
	}
	errno = rc;
	return rc ? -1 : 0;
}

ssize_t trib_tls_write(struct trib_tls_session *session, const struct iovec *vectors, int count)
{
	size_t total = 0;
	int rc = 0;

	if (session->failed) {
		errno = EPIPE;
		return -1;
	}
	ERR_clear_error();
	session->write_wants_read = false;
	for (int i = 0; i < count && rc == 0; i++) {
		for (size_t at = 0; at < vectors[i].iov_len && rc == 0;) {
			size_t n = 0;

			if (SSL_write_ex(session->ssl, (const char *)vectors[i].iov_base + at,
					 vectors[i].iov_len - at, &n) != 1) {
				rc = trouble(session, 0, true);
				ERR_clear_error();
			}
			at += n;
			total += n;
		}
	}
	errno = rc;
	return total || !rc ? (ssize_t)total : -1;
}

size_t trib_tls_pending(const struct trib_tls_session *session)
{
	int n = session->failed ? 0 : SSL_pending(session->ssl);

	return n > 0 ? (size_t)n : session->parked;
}

unsigned trib_tls_interest(const struct trib_tls_session *session, unsigned interest)
{
	unsigned result = interest;

	if ((interest & TRIB_IO_READ) && session->read_wants_write) {
		result = (result & ~(unsigned)TRIB_IO_READ) | TRIB_IO_WRITE;
	}
	if ((interest & TRIB_IO_WRITE) && session->write_wants_read) {
		result = (result & ~(unsigned)TRIB_IO_WRITE) | TRIB_IO_READ;
	}
	return result;
}

unsigned trib_tls_ready(const struct trib_tls_session *session, unsigned ready)
{
	if ((ready & TRIB_IO_WRITE) && session->read_wants_write) {
		ready |= TRIB_IO_READ;
	}
	if ((ready & TRIB_IO_READ) && session->write_wants_read) {
		ready |= TRIB_IO_WRITE;
	}
	return ready;
}

void trib_tls_close_notify(struct trib_tls_session *session)
{
	if (session->established && !session->failed) {
		ERR_clear_error();
		(void)SSL_shutdown(session->ssl);
		ERR_clear_error();
		session->failed = true; /* nothing may follow */
		session->why = "closed";
	}
}

const struct trib_tls_identity *trib_tls_identity(const struct trib_tls_session *session)
{
	return session->identity;
}

const char *trib_tls_why(const struct trib_tls_session *session)
{
	return session->why;
}
