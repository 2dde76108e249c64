# SPDX-License-Identifier: Apache-2.0
"""HTTP with keep-alive, redirects and retries on http.client. Not thread-safe: one per thread."""
import http.client
import json
import random
import socket
import ssl
import time
import urllib.parse

USER_AGENT = "tributary-python/0.1.0"
PIECE = 1 << 20
REDIRECTS_MAX = 3
BODY_MAX = 1 << 40
_DROPPED = (OSError, http.client.HTTPException)


class Problem(Exception):
    """The service refused (RFC 9457). Attributes: status (int), code (str, such as
    "layout-mismatch"), detail (str), body (the whole problem as a dict)."""

    def __init__(self, status, body):
        self.status = status
        self.body = body if isinstance(body, dict) else {}
        self.code = str(self.body.get("code", ""))
        self.detail = str(self.body.get("detail", self.body.get("title", "")))
        errors = "".join(f"; {e.get('pointer')}: {e.get('detail')}"
                         for e in self.body.get("errors", []) if isinstance(e, dict))
        super().__init__(f"{status} {self.code}: {self.detail}{errors}")


class RoundClosed(Problem):
    """The update came too late (codes "round-closed", "stale", "not-selected", "ticket-expired"):
    check in again."""


class JobOver(Problem):
    """The job does not take updates any more (code "job-not-running")."""


class Unreachable(ConnectionError):
    """No usable answer within the time retries are allowed to take."""


def _problem(status, reason, data):
    try:
        body = json.loads(data)
    except ValueError:
        body = {"title": reason}
    kinds = {"round-closed": RoundClosed, "stale": RoundClosed, "not-selected": RoundClosed,
             "ticket-expired": RoundClosed, "job-not-running": JobOver}
    code = body.get("code") if isinstance(body, dict) else None
    return kinds.get(code, Problem)(status, body)


class Answer:
    """status (int), headers (case-insensitive mapping), data (bytes)."""

    def __init__(self, status, headers, data):
        self.status, self.headers, self.data = status, headers, data

    def json(self):
        return json.loads(self.data) if self.data else {}


class Http:
    """timeout: seconds without any progress on a socket. retry_for: seconds during which failed
    requests are tried again (connection errors, 429, 502, 503, 504, 409 upload-busy)."""

    def __init__(self, url, token=None, timeout=60.0, retry_for=120.0, cafile=None, certfile=None,
                 keyfile=None):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        self.base = url.rstrip("/")
        self.timeout, self.retry_for = float(timeout), float(retry_for)
        self._token = token
        self._cafile, self._certfile, self._keyfile = cafile, certfile, keyfile
        self._context = None
        self._connections = {}

    def close(self):
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def resolve(self, target):
        """Path or URL -> URL."""
        if target.startswith("/"):
            return self.base + target
        return urllib.parse.urljoin(self.base + "/", target)

    def _same_host(self, url):
        """The token goes nowhere else."""
        ours, other = urllib.parse.urlsplit(self.base), urllib.parse.urlsplit(url)
        return (ours.scheme, ours.hostname) == (other.scheme, other.hostname)

    def _ssl_context(self):
        """Made once: verifies the host's name, TLS 1.2 at least, our own certificate if there is one."""
        if self._context is None:
            context = ssl.create_default_context(cafile=self._cafile)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._certfile:
                context.load_cert_chain(self._certfile, self._keyfile)
            self._context = context
        return self._context

    def open(self, parts, timeout):
        """A connection to the host of a split URL, kept from before if there is one."""
        key = (parts.scheme, parts.hostname, parts.port)
        connection = self._connections.get(key)
        if connection is None:
            if parts.scheme == "https":
                connection = http.client.HTTPSConnection(
                    parts.hostname, parts.port, timeout=timeout,
                    context=self._ssl_context())
            else:
                connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
            self._connections[key] = connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        return connection

    def headers(self, parts, extra):
        """Fields of a request; the token goes to the host it was given for alone."""
        fields = {"User-Agent": USER_AGENT, **extra}
        if self._token and parts.hostname == urllib.parse.urlsplit(self.base).hostname:
            fields["Authorization"] = "Bearer " + self._token
        return fields

    def _send(self, connection, method, parts, fields, body):
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        if body is not None or method in ("POST", "PUT"):
            connection.putheader("Content-Length", str(sum(map(len, body or ()))))
        try:
            connection.endheaders()
            if connection.sock is not None:
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for buffer in body or ():
                view = memoryview(buffer)
                for begin in range(0, len(view), PIECE):
                    connection.send(view[begin:begin + PIECE])
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:
                raise
            # Refused before all was sent: the answer may be there already.
        return connection.getresponse()

    def once(self, method, target, body=None, fields=None, timeout=None):
        """One exchange, redirects followed. Raises OSError or HTTPException when it fails."""
        url = self.resolve(target)
        for _ in range(REDIRECTS_MAX + 1):
            parts = urllib.parse.urlsplit(url)
            connection = self.open(parts, timeout or self.timeout)
            reused = connection.sock is not None
            try:
                try:
                    response = self._send(connection, method, parts,
                                          self.headers(parts, fields or {}), body)
                except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                    if not reused or "Upload-Complete" in (fields or {}):
                        raise  # (what has arrived of that is not to be sent again)
                    connection.close()  # closed while it was idle: that is no failure
                    response = self._send(connection, method, parts,
                                          self.headers(parts, fields or {}), body)
                data = response.read()
            except _DROPPED:
                connection.close()
                raise
            except BaseException:  # interrupted half-way: what follows would be out of step
                connection.close()
                raise
            if response.status in (307, 308) and response.headers.get("Location"):
                url = urllib.parse.urljoin(url, response.headers["Location"])
                continue
            return Answer(response.status, response.headers, data), response.reason
        raise http.client.HTTPException("too many redirects")

    def _go_on(self, resume, body, fields):
        """After a broken connection: asks where the upload stands and sends the rest. None: the
        service knows nothing of it, all of it must be sent again."""
        keys = {name: fields[name] for name in ("FL-Ticket", "FL-Client", "FL-Round", "FL-Base-Version")}
        answer, reason = self.once("HEAD", resume, None, keys)
        if answer.status == 404:
            return None
        if answer.status != 204:
            return answer, reason
        offset = int(answer.headers["Upload-Offset"])
        keys.update({"Content-Type": "application/partial-upload", "Upload-Offset": str(offset),
                     "Upload-Complete": "?1"})
        return self.once("PATCH", resume, _rest(body, offset), keys)

    def request(self, method, target, body=None, fields=None, timeout=None, ok=(), resume=None):
        """An exchange with retries. `body` is a list of buffers, sent as views. `resume`: where an
        upload cut short is gone on with. Returns an Answer (2xx, or a status of `ok`); raises
        Problem, or Unreachable."""
        if resume:
            fields = {**fields, "Upload-Complete": "?1"}
        cut, aim = False, target
        give_up = time.monotonic() + self.retry_for
        attempt = 0
        while True:
            why, pause = None, random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2 ** min(attempt, 10))
            try:
                step = self._go_on(resume, body, fields) if resume and cut else None
                answer, reason = step or self.once(method, aim, body, fields, timeout)
                aim = target
                if 200 <= answer.status < 300 or answer.status in ok:
                    return answer
                why = _problem(answer.status, reason, answer.data)
                if answer.status in (429, 502, 503, 504):
                    pause = _retry_after(answer, why, pause)
                    leader = answer.headers.get("Location")
                    if why.code == "not-leader" and leader and self._same_host(leader) and not attempt % 2:
                        aim, pause = leader, 0.0  # nothing was done; and if that one is gone, ours is next
                elif why.code not in ("upload-busy", "upload-offset"):
                    raise why
                cut = cut or why.code == "upload-busy"
            except _DROPPED as e:
                why, cut, aim = e, True, target
            attempt += 1
            if _distrust(why):
                raise Unreachable(f"{method} {self.resolve(target)}: {why!r}") from why
            if time.monotonic() + pause > give_up:
                if isinstance(why, Problem):
                    raise why
                raise Unreachable(f"{method} {self.resolve(target)}: {why!r} "
                                  f"(tried {attempt} times)") from why
            time.sleep(pause)


def _rest(buffers, offset):
    """What follows the first `offset` bytes of a list of buffers, as views."""
    rest = []
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        if offset < len(view):
            rest.append(view[offset:])
        offset = max(0, offset - len(view))
    return rest


def _distrust(why):
    """We do not trust the service's certificate, or it does not trust ours: time heals neither."""
    return isinstance(why, ssl.SSLCertVerificationError) or (
        isinstance(why, ssl.SSLError) and "ALERT" in (why.reason or ""))


def _retry_after(answer, problem, otherwise):
    """Seconds to wait as the service wishes (member retry_after, or Retry-After), a little more so
    that not all come back at once."""
    for value in (problem.body.get("retry_after"), answer.headers.get("Retry-After")):
        try:
            wish = float(value)
        except (TypeError, ValueError):
            continue
        if 0 <= wish <= 3600:
            return wish + random.uniform(0.0, 0.1 + wish / 4)
    return otherwise
