# SPDX-License-Identifier: Apache-2.0
"""Hostile uploads: each is answered with the right status and code, and an honest client beside it is not disturbed."""
import json
import socket
import struct
import threading
import time
import urllib.parse

import numpy as np
import pytest

from cluster import BIN, Job, Node, body_of, request, until


@pytest.fixture(scope="module")
def node():
    with Node("--body-grace-ms", "1500", "--head-timeout-ms", "2000", "--idle-timeout-ms", "60000") as n:
        yield n


@pytest.fixture(scope="module")
def job(node):
    j = Job(node, size=3000, clients=400, goal=400, seed=50, quorum=1)
    yield j


@pytest.fixture
def attempt(job):
    """A selected client's number and ticket; afterwards an honest client must still be served at once."""
    attempt.n = getattr(attempt, "n", -1) + 1
    client = attempt.n
    yield client, job.selected(client)
    attempt.n += 1
    began = time.monotonic()
    status, _, receipt = job.put(attempt.n, job.selected(attempt.n))
    assert status == 201 and receipt["state"] == "accepted", receipt
    assert time.monotonic() - began < 5


def raw(node, data, timeout=20, half_close=False, pieces=None):
    """Sends bytes, reads until the server closes; returns (status, problem or None, bytes)."""
    u = urllib.parse.urlsplit(node.data)
    with socket.create_connection((u.hostname, u.port), timeout=timeout) as s:
        try:
            s.sendall(data)
            for pause, piece in pieces or ():
                time.sleep(pause)
                s.sendall(piece)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                answer += piece
                head, _, rest = answer.partition(b"\r\n\r\n")
                if rest.endswith(b"}"):
                    break
        except (ConnectionResetError, socket.timeout):
            pass
    if not answer:
        return 0, None, answer
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    try:
        return status, json.loads(rest), answer
    except ValueError:
        return status, None, answer


def head_for(job, client, ticket, length, extra=(), method="PUT", replace=None):
    _, w = job.update(client)
    fields = {"Host": "x", **job.headers(client, ticket, w)}
    if length is not None:
        fields["Content-Length"] = str(length)
    fields.update(replace or {})
    lines = [f"{method} {ticket['upload']['url']} HTTP/1.1"] + [f"{k}: {v}" for k, v in fields.items() if v is not None]
    return ("\r\n".join(lines + list(extra)) + "\r\n\r\n").encode()


def refused(answer, status, code):
    got, problem = answer[0], answer[1]
    assert got == status, answer
    if code:
        codes = code if isinstance(code, tuple) else (code,)
        assert problem and problem["code"] in codes, answer
        assert problem["type"] == "urn:trib:" + problem["code"] and problem["status"] == status


def put(job, attempt, body, **kw):
    client, ticket = attempt
    status, head, answer = job.put(client, ticket, body, **kw)
    if status >= 400:
        assert head["content-type"].startswith("application/problem+json"), head
    return status, answer


def retry_succeeds(job, attempt):
    client, ticket = attempt
    status, _, receipt = job.put(client, ticket)
    assert status == 201 and receipt["state"] == "accepted", (status, receipt)


def good(job, attempt):
    return body_of(job.update(attempt[0])[0])


# ---- framing ----

def test_truncated_body_frees_the_slot_and_the_client_may_try_again(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    raw(node, head_for(job, client, ticket, len(body)) + body[:len(body) // 2], half_close=True)
    retry_succeeds(job, attempt)


def test_content_length_shorter_than_the_tensors(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    refused(raw(node, head_for(job, client, ticket, len(body) - 4) + body[:-4]), 422,
            ("invalid-header", "layout-mismatch"))
    retry_succeeds(job, attempt)


def test_content_length_longer_than_the_tensors(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt) + b"\0" * 4
    refused(raw(node, head_for(job, client, ticket, len(body)) + body), 422, ("invalid-header", "layout-mismatch"))
    retry_succeeds(job, attempt)


def test_content_length_beyond_the_ticket(node, job, attempt):
    client, ticket = attempt
    refused(raw(node, head_for(job, client, ticket, 2**40)), 413, "too-large")
    assert raw(node, head_for(job, client, ticket, 2**63))[0] in (400, 413)


@pytest.mark.parametrize("length", ["-1", "+5", "1e3", "0x10", "18446744073709551616", "5, 5", ""])
def test_content_length_that_is_no_number(node, job, attempt, length):
    client, ticket = attempt
    status, _, answer = raw(node, head_for(job, client, ticket, None, replace={"Content-Length": length}))
    assert status in (400, 413), answer


def test_neither_length_nor_chunked(node, job, attempt):
    client, ticket = attempt
    refused(raw(node, head_for(job, client, ticket, None)), 411, "length-required")


@pytest.mark.parametrize("garbage", [b"zz\r\nabc", b"-5\r\nabcde\r\n", b"5\nabcde\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nabc",
                                     b"5\r\nabcdeXX0\r\n\r\n"])
def test_chunked_with_garbage(node, job, attempt, garbage):
    client, ticket = attempt
    n = len(good(job, attempt))
    answer = raw(node, head_for(job, client, ticket, None, ["Transfer-Encoding: chunked", f"FL-Length: {n}"]) + garbage,
                 half_close=True)
    assert answer[0] in (400, 422), answer
    retry_succeeds(job, attempt)


def test_chunked_properly_is_accepted(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 1000]), body[i:i + 1000]) for i in range(0, len(body), 1000))
    answer = raw(node, head_for(job, client, ticket, None, ["Transfer-Encoding: chunked", f"FL-Length: {len(body)}"])
                 + chunks + b"0\r\n\r\n")
    assert answer[0] == 201, answer


def test_chunked_that_ends_early(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    answer = raw(node, head_for(job, client, ticket, None, ["Transfer-Encoding: chunked", f"FL-Length: {len(body)}"])
                 + b"%x\r\n%s\r\n0\r\n\r\n" % (500, body[:500]))
    assert answer[0] in (400, 422), answer
    retry_succeeds(job, attempt)


# ---- safetensors ----

def header_only(text, data=b"", length=None):
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**32, 0, 1, 1 << 21])
def test_header_length(node, job, attempt, length):
    body = header_only(b"{}", good(job, attempt)[10:], length)
    status, answer = put(job, attempt, body)
    assert status == 422 and answer["code"] in ("invalid-header", "layout-mismatch"), answer
    retry_succeeds(job, attempt)


def spoiled(job, attempt, change):
    """A good body whose header went through `change(dict)`."""
    body = good(job, attempt)
    (n,) = struct.unpack("<Q", body[:8])
    head = json.loads(body[8:8 + n])
    text = change(head)
    text = text if isinstance(text, bytes) else json.dumps(head).encode()
    return header_only(text, body[8 + n:])


def set_at(name, key, value):
    def change(head):
        head[name][key] = value
    return change


def rename(old, new):
    def change(head):
        head[new] = head.pop(old)
    return change


SPOILED = {
    "overlap": (set_at("layer1.w", "data_offsets", [3996, 7996]), ("invalid-header",)),
    "hole": (set_at("layer1.w", "data_offsets", [4004, 8004]), ("invalid-header",)),
    "negative": (set_at("layer1.w", "data_offsets", [-4, 4000]), ("invalid-header",)),
    "float-offset": (set_at("layer1.w", "data_offsets", [4000.0, 8000]), ("invalid-header",)),
    "swapped": (set_at("layer1.w", "data_offsets", [8000, 4000]), ("invalid-header",)),
    "huge-shape": (set_at("layer1.w", "shape", [2**62, 2**62]), ("invalid-header",)),
    "wrong-shape": (set_at("layer0.w", "shape", [1000]), ("layout-mismatch",)),
    "other-shape-same-size": (set_at("layer0.w", "shape", [2, 500]), ("layout-mismatch",)),
    "nine-dimensions": (set_at("layer0.w", "shape", [1] * 8 + [1000]), ("invalid-header",)),
    "unknown-dtype": (set_at("layer0.w", "dtype", "F99"), ("invalid-header", "unsupported-encoding")),
    "integer-dtype": (set_at("layer0.w", "dtype", "I32"), ("unsupported-encoding", "layout-mismatch")),
    "wrong-name": (rename("layer0.w", "layer9.w"), ("bad-tensor-name", "layout-mismatch")),
    "empty-name": (rename("layer0.w", ""), ("invalid-header", "bad-tensor-name")),
    "missing-tensor": (lambda h: h.pop("layer2.w") and None, ("invalid-header", "layout-mismatch")),
    "extra-key": (set_at("layer0.w", "evil", 1), ("invalid-header",)),
    "not-json": (lambda h: b"{" + b"[" * 4000, ("invalid-header",)),
    "array": (lambda h: b"[1,2,3]", ("invalid-header",)),
    "duplicate": (lambda h: json.dumps(h).replace("layer1.w", "layer0.w").encode(), ("invalid-header",)),
    "trailing": (lambda h: json.dumps(h).encode() + b"x", ("invalid-header",)),
}


@pytest.mark.parametrize("what", list(SPOILED))
def test_header_that_lies(node, job, attempt, what):
    change, codes = SPOILED[what]
    status, answer = put(job, attempt, spoiled(job, attempt, change))
    assert status in (422, 415) and answer["code"] in codes, answer
    retry_succeeds(job, attempt)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1499, 2999])
def test_values_that_are_not_finite(node, job, attempt, value, place):
    x = job.update(attempt[0])[0].copy()
    x[place] = value
    status, answer = put(job, attempt, body_of(x))
    assert status == 422 and answer["code"] == "non-finite", answer
    retry_succeeds(job, attempt)


def test_value_beyond_the_range(node, job, attempt):
    x = job.update(attempt[0])[0].copy()
    x[7] = 3e38
    status, answer = put(job, attempt, body_of(x))
    assert status == 422 and answer["code"] == "out-of-range", answer
    retry_succeeds(job, attempt)


@pytest.mark.parametrize("weight", ["nan", "inf", "-1", "0", "1e400", "", "5;6", "0x10", "99999999999"])
def test_weight_games(node, job, attempt, weight):
    status, answer = put(job, attempt, good(job, attempt), extra={"FL-Weight": weight})
    assert status == 422 and answer["code"] == "invalid-weight", answer
    retry_succeeds(job, attempt)


def test_wrong_checksum(node, job, attempt):
    status, answer = put(job, attempt, good(job, attempt), extra={"FL-Checksum": "crc32c=00000000"})
    assert status == 422 and answer["code"] == "digest-mismatch", answer
    retry_succeeds(job, attempt)


def test_unknown_encoding_and_kind(node, job, attempt):
    status, answer = put(job, attempt, good(job, attempt), extra={"FL-Encoding": "q8;block=256"})
    assert status == 415 and answer["code"] == "unsupported-encoding", answer
    status, answer = put(job, attempt, good(job, attempt), extra={"FL-Kind": "weights"})
    assert status in (400, 409, 415, 422), answer
    retry_succeeds(job, attempt)


# ---- identity ----

def test_wrong_tickets(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    real = ticket["upload"]["ticket"]
    flipped = real[:40] + ("A" if real[40] != "A" else "B") + real[41:]
    other = job.selected(399)["upload"]["ticket"]
    for bad in ("", "x", flipped, real[:-1], real + "A", "A" * len(real), other):
        status, answer = put(job, attempt, body, extra={"FL-Ticket": bad})
        assert status == 403 and answer["code"] == "ticket-invalid", (bad, answer)
    for field, value in (("FL-Client", "c-398"), ("FL-Round", "2"), ("FL-Base-Version", "7")):
        status, answer = put(job, attempt, body, extra={field: value})
        assert status in (403, 409, 422), (field, answer)
    retry_succeeds(job, attempt)


def test_replay_after_commit_gives_the_same_receipt_and_counts_once(node, job, attempt):
    client, ticket = attempt
    _, _, first = job.put(client, ticket)
    before = job.round(1)["accepted"]
    for _ in range(3):
        status, _, again = job.put(client, ticket)
        assert status == 200 and again["digest"] == first["digest"] and again["update"] == first["update"], again
    assert job.round(1)["accepted"] == before


def test_other_content_after_commit_is_refused(node, job, attempt):
    client, ticket = attempt
    job.put(client, ticket)
    other = body_of(job.update(client)[0] * np.float32(2))
    status, answer = put(job, attempt, other)
    assert status == 409 and answer["code"] == "already-reported", answer
    status, answer = put(job, attempt, good(job, attempt), weight=7.0)
    assert status == 409 and answer["code"] == "already-reported", answer


def test_two_live_uploads_of_one_client_count_once(node, job, attempt):
    client, ticket = attempt
    before = job.round(1)["accepted"]
    answers = []
    crew = [threading.Thread(target=lambda: answers.append(job.put(client, ticket))) for _ in range(6)]
    for t in crew:
        t.start()
    for t in crew:
        t.join()
    assert sorted({a[0] for a in answers} - {200, 201, 409}) == [], answers
    assert any(a[0] == 201 for a in answers) or any(a[0] == 200 for a in answers)
    assert job.round(1)["accepted"] == before + 1


def test_unknown_job_update_and_path(node, job, attempt):
    client, ticket = attempt
    body, headers = good(job, attempt), job.headers(client, ticket, 1.0)
    for path, codes in ((ticket["upload"]["url"].replace(job.id, "job_" + "0" * 26), ("no-such-job", "ticket-invalid")),
                        (f"/v1/jobs/{job.id}/updates/upd_" + "0" * 26, ("ticket-invalid",)),
                        ("/v1/nothing", ("no-such-path",)), ("/v1/jobs/../../etc/passwd", ("bad-request",))):
        status, _, data = request(node.data, "PUT", path, body, headers)
        assert status in (400, 403, 404) and json.loads(data)["code"] in codes, (path, status, data)


# ---- time and numbers ----

def test_slow_body_is_told_and_costs_nobody(node, job, attempt):
    client, ticket = attempt
    body = good(job, attempt)
    drip = [(0.4, body[i:i + 40]) for i in range(0, 480, 40)]
    status, problem, answer = raw(node, head_for(job, client, ticket, len(body)), pieces=drip)
    assert status == 408 and problem["code"] == "too-slow", answer
    retry_succeeds(job, attempt)


def test_slow_head_is_told(node, job, attempt):
    drip = [(0.25, b"X-A: b\r\n")] * 14
    status, _, answer = raw(node, b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n", pieces=drip)
    assert status == 408, answer


SMUGGLE = [b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5\r\nTransfer-Encoding: chunked",
           b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked",
           b"X: \rTransfer-Encoding: chunked", b"X: a\nContent-Length: 5", b" folded: x", b"Content-Length: 5\x00",
           b"Transfer-Encoding: identity", b"Content-Length:5,5", b"TE: x\r\n Transfer-Encoding: chunked",
           b"Host: second", b"No-Colon-Here", b": empty", b"Transfer-Encoding:\x0bchunked"]


@pytest.mark.parametrize("field", SMUGGLE)
def test_request_smuggling_heads(node, job, attempt, field):
    client, ticket = attempt
    status, _, answer = raw(node, b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\nGET /v1/x HTTP/1.1\r\n"
                            b"Host: x\r\n\r\n")
    assert status in (400, 501), answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer


def test_head_that_never_ends_and_too_many_fields(node, job, attempt):
    status, _, answer = raw(node, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000)
    assert status == 431, answer
    status, _, answer = raw(node, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 200 + b"\r\n")
    assert status == 431, answer


def test_ten_thousand_idle_connections(node, job, attempt):
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 10000
    if hard < want + 200:
        pytest.skip(f"RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    u = urllib.parse.urlsplit(node.data)

    def rss():
        with open(f"/proc/{node.pid('gateway')}/status") as f:
            return int(next(line for line in f if line.startswith("VmRSS")).split()[1])
    before, idle = rss(), []
    try:
        for _ in range(want):
            s = socket.socket()
            s.connect((u.hostname, u.port))
            idle.append(s)
        until("all accepted", lambda: node.metric("gateway", "tributary_conns") >= want, 20)
        began = time.monotonic()
        status, _, _ = job.put(attempt[0], attempt[1])
        assert status == 201 and time.monotonic() - began < 2
        grown = rss() - before
        assert grown < 16 * 1024 or "release" not in BIN, f"{grown} KiB of gateway memory for {want} idle connections"
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_connection_limit_holds_for_all_loops_together():
    import resource
    with Node("--conns-max", "600", "--workers", "2") as n:
        u = urllib.parse.urlsplit(n.data)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        open_now = []
        try:
            for _ in range(590):
                s = socket.socket()
                s.connect((u.hostname, u.port))
                open_now.append(s)
            until("all accepted", lambda: n.metric("gateway", "tributary_conns") >= 590, 30)
            assert n.metric("gateway", "tributary_conn_rejects_total") == 0
            for _ in range(60):
                s = socket.socket()
                s.connect((u.hostname, u.port))
                open_now.append(s)
            until("the surplus refused", lambda: n.metric("gateway", "tributary_conn_rejects_total") >= 40, 30)
        finally:
            for s in open_now:
                s.close()
