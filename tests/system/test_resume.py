# SPDX-License-Identifier: Apache-2.0
"""Resumable uploads: what has arrived is kept when the connection ends, and counts once however it came together."""
import http.client
import json
import os
import socket
import sys
import threading
import time
import urllib.parse

import numpy as np
import pytest

from cluster import Job, Node, body_of, request, until

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../client/python"))
import tributary  # noqa: E402

SIZE = 600000  # elements: 2.4 MB


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def ask(method, job, client, ticket, piece, headers):
    """A request of this client about its upload."""
    fields = {"FL-Ticket": ticket["upload"]["ticket"], "FL-Client": f"c-{client}", "FL-Round": str(ticket["round"]),
              "FL-Base-Version": str(ticket["base_version"]), **(headers or {})}
    return request(job.node.data, method, ticket["upload"]["resume"], piece, fields)


def patch(job, client, ticket, offset, piece, last, headers=None):
    return ask("PATCH", job, client, ticket, piece,
               {"Content-Type": "application/partial-upload", "Upload-Offset": str(offset),
                "Upload-Complete": "?1" if last else "?0", **(headers or {})})


def head(job, client, ticket, method="HEAD", headers=None):
    return ask(method, job, client, ticket, None, headers)


def stands(job, client, ticket, timeout=20):
    """The offset, once the service has seen that the last connection is over."""
    end = time.monotonic() + timeout
    while True:
        status, fields, _ = head(job, client, ticket)
        if status == 204:
            return int(fields["upload-offset"])
        assert status == 503 and time.monotonic() < end, (status, fields)
        time.sleep(0.1)


def begin(job, client, ticket, body, weight, piece=b""):
    fields = {**job.headers(client, ticket, weight), "Upload-Complete": "?0", "Upload-Length": str(len(body))}
    return request(job.node.data, "PUT", ticket["upload"]["url"], piece, fields)


def part(job, client, ticket, body, weight, size, extra=None):
    """A one-shot upload of which only the first `size` bytes are sent; the open socket."""
    u = urllib.parse.urlsplit(job.node.data)
    s = socket.create_connection((u.hostname, u.port), timeout=20)
    fields = {"Host": "x", "Content-Length": str(len(body)), **job.headers(client, ticket, weight), **(extra or {})}
    lines = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    s.sendall(f"PUT {ticket['upload']['url']} HTTP/1.1\r\n{lines}\r\n".encode() + body[:size])
    return s


def test_pieces_over_many_connections_make_one_update(node):
    job = Job(node, size=SIZE, clients=3, seed=900)
    for c in range(2):
        job.report(c)
    ticket = job.selected(2)
    x, w = job.update(2)
    body = body_of(x)
    status, fields, _ = begin(job, 2, ticket, body, w)
    assert status == 201 and fields["upload-offset"] == "0" and "max-age=600" in fields["upload-limit"]
    assert fields["location"] == ticket["upload"]["resume"]
    at = 0
    for size in (3, 5, 100, 70000, 1, 800000, 40, len(body)):  # cuts in length, header and payload
        piece = body[at:at + size]
        last = at + len(piece) == len(body)
        status, fields, data = patch(job, 2, ticket, at, piece, last)
        at += len(piece)
        if not last:
            assert status == 204 and int(fields["upload-offset"]) == at and fields["upload-complete"] == "?0"
            assert stands(job, 2, ticket) == at
    assert status == 201 and json.loads(data)["counted"] == 3, data
    job.check(job.published())
    assert head(job, 2, ticket)[0] == 404
    job.delete()


def test_a_cut_upload_goes_on_where_it_was(node):
    job = Job(node, size=SIZE, clients=2, seed=901)
    job.report(0)
    ticket = job.selected(1)
    x, w = job.update(1)
    body = body_of(x)
    before = node.metric("gateway", "tributary_upload_bytes_total")
    sock = part(job, 1, ticket, body, w, len(body) // 2, {"Upload-Complete": "?1"})
    until("half of it", lambda: node.metric("gateway", "tributary_upload_bytes_total") - before > len(body) // 2 - 70000)
    sock.close()
    at = stands(job, 1, ticket)
    assert len(body) // 2 - 70000 < at <= len(body) // 2
    status, _, data = patch(job, 1, ticket, at, body[at:], True)
    assert status == 201, data
    job.check(job.published())
    assert node.metric("gateway", "tributary_upload_bytes_total") - before <= len(body)
    assert node.metric("gateway", "tributary_uploads_resumable") == 0
    job.delete()


def test_a_connection_that_only_seems_alive_is_replaced(node):
    job = Job(node, size=SIZE, clients=1, seed=902)
    ticket = job.selected(0)
    x, w = job.update(0)
    body = body_of(x)
    with part(job, 0, ticket, body, w, 500000, {"Upload-Complete": "?1"}):
        until("it has begun", lambda: node.metric("gateway", "tributary_uploads_resumable") == 1)
        at = stands(job, 0, ticket)  # the old socket is still open
        status, _, data = patch(job, 0, ticket, at, body[at:], True)
    assert status == 201, data
    job.check(job.published())
    job.delete()


def test_what_does_not_fit_is_refused_and_costs_nothing(node):
    job = Job(node, size=SIZE, clients=2, seed=903)
    mine, other = job.selected(0), job.selected(1)
    x, w = job.update(0)
    body = body_of(x)
    assert head(job, 0, mine)[0] == 404  # nothing was begun
    bad = {**job.headers(0, mine, w), "Upload-Complete": "?0"}
    assert request(node.data, "PUT", mine["upload"]["url"], b"", bad)[0] == 400  # no Upload-Length
    assert request(node.data, "PUT", mine["upload"]["url"], b"", {**bad, "Upload-Complete": "maybe"})[0] == 400
    huge = {**bad, "Upload-Length": str(1 << 50)}
    assert request(node.data, "PUT", mine["upload"]["url"], b"", huge)[0] == 413
    assert begin(job, 0, mine, body, w, body[:1000])[0] == 201
    status, fields, data = patch(job, 0, mine, 999, body[999:], True)
    assert status == 409 and fields["upload-offset"] == "1000" and json.loads(data)["code"] == "upload-offset"
    assert patch(job, 0, mine, 1000, b"x", False, {"Content-Type": "application/octet-stream"})[0] == 415
    assert patch(job, 0, mine, 1000, b"x", False, {"Upload-Complete": "?2"})[0] == 400
    theirs = {"FL-Ticket": other["upload"]["ticket"]}
    assert head(job, 0, mine, headers=theirs)[0] == 403
    assert patch(job, 0, mine, 1000, body[1000:], True, theirs)[0] == 403
    assert head(job, 0, mine, "DELETE", theirs)[0] == 403
    assert head(job, 0, mine, "POST")[0] == 405
    status, fields, data = patch(job, 0, mine, 1000, body[1000:2000], True)  # says complete, is not
    assert status == 400 and fields["upload-offset"] == "2000", (status, data)
    filling = node.metric("gateway", 'tributary_slots{state="filling"}')
    assert head(job, 0, mine, "DELETE")[0] == 204
    assert head(job, 0, mine)[0] == 404
    until("slot back", lambda: node.metric("gateway", 'tributary_slots{state="filling"}') == filling - 1)
    job.report_all()
    job.check(job.published())
    job.delete()


def test_too_many_bytes_end_it(node):
    job = Job(node, size=SIZE, clients=1, seed=904)
    ticket = job.selected(0)
    x, w = job.update(0)
    body = body_of(x)
    assert begin(job, 0, ticket, body, w, body[:1000])[0] == 201
    assert patch(job, 0, ticket, 1000, body[1000:] + b"more", True)[0] == 400
    job.report(0)  # and anew
    job.check(job.published())
    job.delete()


def test_a_new_upload_takes_the_place_of_a_parked_one(node):
    job = Job(node, size=SIZE, clients=1, seed=905)
    ticket = job.selected(0)
    x, w = job.update(0)
    assert begin(job, 0, ticket, body_of(x), w, body_of(x)[:5000])[0] == 201
    assert job.put(0, ticket)[0] == 201
    job.check(job.published())
    job.delete()


def test_a_parked_upload_gives_its_slot_up_when_there_is_no_other(node):
    job = Job(node, size=SIZE, clients=3, seed=906, spec={"placement": {"slots": 2}})
    tickets = [job.selected(c) for c in range(3)]
    for c in range(2):
        x, w = job.update(c)
        assert begin(job, c, tickets[c], body_of(x), w, body_of(x)[:1000])[0] == 201
    job.report(2)  # is told to come again until one of them has idled for five seconds
    assert node.metric("gateway", "tributary_uploads_evicted_total") >= 1
    for c in range(2):
        job.report(c)
    job.check(job.published())
    job.delete()


def test_a_parked_upload_goes_with_its_job(node):
    """It would keep the memory of a job that is over for ten minutes."""
    job = Job(node, size=SIZE, clients=2, seed=908)
    ticket = job.selected(0)
    x, w = job.update(0)
    body = body_of(x)
    assert begin(job, 0, ticket, body, w, body[:100000])[0] == 201
    assert node.metric("gateway", "tributary_uploads_resumable") == 1
    request(node.api, "POST", f"/v1/jobs/{job.id}:stop")
    until("given up", lambda: node.metric("gateway", "tributary_uploads_resumable") == 0)
    assert head(job, 0, ticket)[0] == 404
    job.delete()


def test_a_gateway_that_was_killed_has_forgotten_it_and_nothing_is_lost():
    with Node() as own:
        job = Job(own, size=SIZE, clients=2, seed=907)
        job.report(0)
        ticket = job.selected(1)
        x, w = job.update(1)
        assert begin(job, 1, ticket, body_of(x), w, body_of(x)[:100000])[0] == 201
        own.kill("gateway")

        def known():
            try:
                return head(job, 1, ticket)[0]
            except (OSError, http.client.HTTPException):
                return None

        until("the next gateway", lambda: known() == 404, 30)
        job.report(1)
        job.check(job.published())


class Cutting:
    """A proxy that cuts every connection after `size` bytes from the client; counts what went up."""

    def __init__(self, target, size):
        u = urllib.parse.urlsplit(target)
        self.target, self.size, self.up, self.cuts = (u.hostname, u.port), size, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.relay, args=(client,), daemon=True).start()

    def relay(self, client):
        server, left = socket.create_connection(self.target), self.size

        def down():
            try:
                while data := server.recv(65536):
                    client.sendall(data)
            except OSError:
                pass
            client.close()

        threading.Thread(target=down, daemon=True).start()
        try:
            while left > 0 and (data := client.recv(min(65536, left))):
                server.sendall(data)
                self.up += len(data)
                left -= len(data)
        except OSError:
            pass
        self.cuts += left <= 0
        for s in (server, client):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_the_library_goes_on_after_every_cut(node):
    job = Job(node, size=SIZE, clients=1, seed=908)
    proxy = Cutting(node.data, 700000)
    client = tributary.Client(proxy.url, job.id, "c-0", retry_for=60)
    ticket = client.checkin()
    x, w = job.update(0)
    shape = client.model(ticket)[0]
    tensors, at = {}, 0
    for name, value in shape.items():
        tensors[name] = x[at:at + value.size].reshape(value.shape)
        at += value.size
    receipt = client.update(ticket, tensors, w)
    assert receipt["counted"] == 1
    job.check(job.published())
    assert proxy.cuts >= 3 and proxy.up < 4 * SIZE + 4 * 300000, (proxy.cuts, proxy.up)
    proxy.listener.close()
    job.delete()
    assert np.isfinite(x).all()
