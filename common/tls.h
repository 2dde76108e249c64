/* SPDX-License-Identifier: Apache-2.0
 * TLS 1.2 and 1.3 of servers and of clients that have a loop: the only door to OpenSSL's SSL (EVP
 * is behind common/crypto.h).
 *
 * A trib_tls is made of files and shared by all threads; sessions belong to the thread of their
 * loop and keep the context they were made with, so that files can be reloaded any time. Sessions
 * read and write a non-blocking socket of the caller and behave like recv and send on it; OpenSSL
 * writes with write(2), so SIGPIPE must be ignored.
 *
 * No tickets, no session cache (a client that uploads and leaves without reading would reset its
 * own connection and lose the tail), no renegotiation, no compression, no early data.
 */
#ifndef TRIB_COMMON_TLS_H
#define TRIB_COMMON_TLS_H

#include <sys/types.h>
#include <sys/uio.h>

#include "common/base.h"
#include "common/options.h"

struct trib_tls;
struct trib_tls_session;

struct trib_tls_files {   /* PEM */
	const char *cert; /* chain, the server's own certificate first */
	const char *key;  /* not encrypted */
	const char
		*client_ca; /* NULL: clients need no certificate; else they must have one of it */
};
#define TRIB_TLS_OPTIONS(files)                                                                   \
	{ .name = "tls-cert",                                                                     \
	  .kind = TRIB_OPTION_TEXT,                                                               \
	  .target = &(files)->cert,                                                               \
	  .value_name = "FILE",                                                                   \
	  .help = "speak TLS with this certificate chain" },                                      \
		{ .name = "tls-key",                                                              \
		  .kind = TRIB_OPTION_TEXT,                                                       \
		  .target = &(files)->key,                                                        \
		  .value_name = "FILE",                                                           \
		  .help = "its private key" },                                                    \
	{                                                                                         \
		.name = "tls-client-ca", .kind = TRIB_OPTION_TEXT, .target = &(files)->client_ca, \
		.value_name = "FILE", .help = "clients must have a certificate of this CA"        \
	}

/* *ret_tls is NULL when no file is named at all. -EINVAL when they do not go together or are not
 * what they should be (told in the log). Paths are borrowed for the object's life. */
TRIB_MUST_CHECK int trib_tls_new(const struct trib_tls_files *files, struct trib_tls **ret_tls);
/* Reads the files again, for sessions to come. On failure (told) all stays as it is. Any thread. */
int trib_tls_reload(struct trib_tls *tls);
struct trib_tls *trib_tls_free(struct trib_tls *tls);

struct trib_tls_peer {      /* a server to talk to */
	const char *cacert; /* PEM; NULL: the system's trust */
	const char *cert;   /* our own, NULL: none */
	const char *key;    /* NULL: in `cert` */
	const char *host;   /* name or address its certificate must have */
};
/* For sessions with that server; everything is read now. -EINVAL as trib_tls_new. No reload. */
TRIB_MUST_CHECK int trib_tls_client_new(const struct trib_tls_peer *peer,
					struct trib_tls **ret_tls);

struct trib_tls_identity { /* of a verified client certificate */
	char subject[256]; /* RFC 2253, cut if longer */
	char uri[256];     /* the one SAN URI "tributary:...", "" if none, several or too long */
};

/* fd is borrowed and must outlive the session. */
TRIB_MUST_CHECK int trib_tls_session_new(struct trib_tls *tls, int fd,
					 struct trib_tls_session **ret_session);
struct trib_tls_session *trib_tls_session_free(struct trib_tls_session *session);

/* 0: done. -EAGAIN: call again when the socket is ready (trib_tls_interest). -EPROTONOSUPPORT: the
 * peer speaks plain HTTP. -EPROTO, -ECONNRESET: over. */
TRIB_MUST_CHECK int trib_tls_handshake(struct trib_tls_session *session);

/* As recv and sendmsg: count, 0 = end, or -1 and errno: EAGAIN, EPROTO (what came is no TLS
 * record of this session: told once), EPIPE (after that) or the socket's. Reading stops at the
 * vectors' end, when nothing is there or after 256 records (the rest stays readable). What was
 * peeked is there to be read. A write that met EAGAIN must be repeated with at least as many bytes
 * of the same content. */
ssize_t trib_tls_peek(struct trib_tls_session *session, void *room, size_t size);
ssize_t trib_tls_read(struct trib_tls_session *session, const struct iovec *vectors, int count);
ssize_t trib_tls_write(struct trib_tls_session *session, const struct iovec *vectors, int count);
/* Bytes (or an end) that can be read although the socket shows nothing. */
size_t trib_tls_pending(const struct trib_tls_session *session);

/* TLS may have to write before it can read on, and the reverse: what to wait for instead of
 * `interest`, and what to try when the socket is `ready` (both of TRIB_IO_*). */
unsigned trib_tls_interest(const struct trib_tls_session *session, unsigned interest);
unsigned trib_tls_ready(const struct trib_tls_session *session, unsigned ready);

/* Tells the peer that nothing more comes, as far as the socket takes it now. */
void trib_tls_close_notify(struct trib_tls_session *session);
/* NULL before the handshake is done or when no certificate was asked for. */
const struct trib_tls_identity *trib_tls_identity(const struct trib_tls_session *session);
/* Why the session failed, for the log; never NULL. */
const char *trib_tls_why(const struct trib_tls_session *session);

#endif
