/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/httpd_internal.h"
#include "common/log.h"

#define PEER_SIZE  sizeof(((struct trib_exchange *)0)->peer)
#define URI_CLIENT "tributary:client/"

static void peer_text(int fd, char out[PEER_SIZE])
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &size)) {
		return;
	}
	if (address.ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;

		(void)inet_ntop(AF_INET, &v4->sin_addr, out, PEER_SIZE);
	} else if (address.ss_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;

		if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
			(void)inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], out, PEER_SIZE);
		} else {
			(void)inet_ntop(AF_INET6, &v6->sin6_addr, out, PEER_SIZE);
		}
	}
}

/* ---- bytes ---- */

static ssize_t note_errors(struct httpd_conn *conn, ssize_t n)
{
	if (n < 0 && errno == EPROTO) {
		char peer[PEER_SIZE] = "";

		conn->httpd->stats.tls_errors++;
		peer_text(conn->fd, peer);
		log_warn("tls", "broken record peer=%s reason=%s", peer, trib_tls_why(conn->tls));
		errno = EPROTO;
	}
	return n;
}

ssize_t httpd_tls_peek(struct httpd_conn *conn, void *room, size_t size)
{
	return note_errors(conn, trib_tls_peek(conn->tls, room, size));
}

ssize_t httpd_tls_receive(struct httpd_conn *conn, const struct iovec *vectors, int count)
{
	return note_errors(conn, trib_tls_read(conn->tls, vectors, count));
}

/* ---- begin and end ---- */

void httpd_finish(struct httpd_conn *conn)
{
	conn->state = HTTPD_LINGER;
	if (conn->tls) {
		trib_tls_close_notify(conn->tls);
		conn->tls = trib_tls_session_free(conn->tls); /* drained undeciphered */
	}
	if (shutdown(conn->fd, SHUT_WR)) {
		conn->dead = true;
	}
}

/* Somebody forgot the s of https: answered as plainly as asked. */
static void answer_plain(struct httpd_conn *conn)
{
	struct trib_httpd_stats *stats = &conn->httpd->stats;
	char body[512];
	char text[1024];
	size_t size = trib_problem_print(TRIB_PROBLEM_BAD_REQUEST, "this port speaks TLS: https://",
					 0, NULL, body, sizeof(body));
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 400 %s\r\nServer: tributary\r\n"
			 "Content-Type: application/problem+json\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n%s",
			 trib_http_reason(400), size, body);

	if (n > 0 && (size_t)n < sizeof(text) &&
	    send(conn->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) == n) {
		stats->replies_by_class[4]++;
	}
	httpd_finish(conn);
}

void httpd_handshake(struct httpd_conn *conn)
{
	struct trib_httpd_stats *stats = &conn->httpd->stats;
	char peer[PEER_SIZE] = "";
	int rc = trib_tls_handshake(conn->tls);
	int one = 1;

	if (rc == -EAGAIN) {
		return;
	}
	if (rc == 0) {
		/* A client without TCP_NODELAY keeps its request back until its Finished is
		 * acknowledged: do so now, not in 40 ms. */
		(void)setsockopt(conn->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
		stats->tls_handshakes++;
		conn->state = HTTPD_IDLE;
		return;
	}
	stats->tls_refused++;
	peer_text(conn->fd, peer);
	log_info("tls", "handshake failed peer=%s reason=%s", peer, trib_tls_why(conn->tls));
	if (rc == -EPROTONOSUPPORT) {
		answer_plain(conn);
	} else {
		httpd_finish(conn); /* the alert gets through although more may have been sent */
	}
}

void trib_httpd_tls(struct trib_httpd *httpd, struct trib_tls *tls)
{
	httpd->tls = trib_listen_port(httpd->listen_fd) ? tls : NULL;
}

/* ---- what handlers ask about ---- */

void trib_exchange_attach(struct trib_exchange *x, void *data, void (*on_gone)(void *data))
{
	x->data = data;
	x->on_gone = on_gone;
}

void *trib_exchange_data(const struct trib_exchange *x)
{
	return x->data;
}

const struct trib_http_request *trib_exchange_request(const struct trib_exchange *x)
{
	return &x->request;
}

const char *trib_exchange_peer(const struct trib_exchange *x)
{
	struct trib_exchange *own = (struct trib_exchange *)x; /* a lazy answer, kept */

	if (!own->peer[0] && !own->conn->dead) {
		peer_text(own->conn->fd, own->peer);
	}
	return own->peer;
}

const struct trib_tls_identity *trib_exchange_identity(const struct trib_exchange *x)
{
	return x->conn->tls ? trib_tls_identity(x->conn->tls) : NULL;
}

bool trib_exchange_speaks_for(const struct trib_exchange *x, const char *client_id)
{
	const struct trib_tls_identity *identity = trib_exchange_identity(x);
	size_t size = sizeof(URI_CLIENT) - 1;

	return !identity || (strncmp(identity->uri, URI_CLIENT, size) == 0 &&
			     strcmp(identity->uri + size, client_id) == 0);
}
