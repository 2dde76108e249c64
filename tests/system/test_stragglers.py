# SPDX-License-Identifier: Apache-2.0
"""30 % of the clients die silently, 20 % are slow: a synchronous round closes when it should, an asynchronous job does
not wait. How late is printed here; `make bench-stragglers` demands 100 ms."""
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest

from cluster import Job, Node, body_of, reference, until

CLIENTS, SILENT, SLOW = 10, 3, 2


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def record(node, job, n=1):
    words = node.redis("HGETALL", f"trib:{{{job.id}}}:r:{n}").split("\n")  # values may be empty
    return dict(zip(words[::2], words[1::2]))


def commits(node, job, n=1):
    """Times of the counted updates (ms of Redis), in order."""
    words = node.redis("HVALS", f"trib:{{{job.id}}}:r:{n}:upd").split()
    return sorted(int(w.split("|")[2]) for w in words if w.startswith("C|"))


def test_a_round_closes_with_its_goal_whoever_is_missing(node):
    """Half over-selected: the good ones are enough."""
    job = Job(node, size=500, clients=CLIENTS, goal=5, seed=901)
    tickets = [job.selected(c) for c in range(CLIENTS)]
    for c in range(SILENT + SLOW, CLIENTS):
        assert job.put(c, tickets[c])[0] == 201
    model = job.published(1, timeout=30)
    job.check(model, counted=range(SILENT + SLOW, CLIENTS))
    r = record(node, job)
    assert r["why"] == "goal" and int(r["closed"]) == commits(node, job)[4]
    status, _, late = job.put(SILENT, tickets[SILENT])
    assert status == 409 and late["code"] in ("round-closed", "job-not-running"), late
    job.delete()


def test_a_round_below_its_goal_closes_at_the_deadline(node):
    job = Job(node, size=500, clients=CLIENTS, goal=8, quorum=4, seed=902, rounds=2, spec={"sync": {"deadline_s": 2}})
    tickets = [job.selected(c) for c in range(CLIENTS)]
    for c in range(SILENT + SLOW, CLIENTS):
        assert job.put(c, tickets[c])[0] == 201
    model = job.published(1, timeout=60)
    job.check(model, counted=range(SILENT + SLOW, CLIENTS))
    r = record(node, job)
    late = int(r["closed"]) - int(r["deadline"])
    print(f"closed {late} ms after the deadline")
    assert r["why"] == "deadline" and r["acc"] == "5" and 0 <= late < 10000, r
    status, _, receipt = job.put(SILENT, tickets[SILENT])
    assert (status, receipt["code"]) == (409, "round-closed"), receipt
    job.delete()


def test_an_asynchronous_job_waits_for_nobody(node):
    job = Job(node, size=500, clients=CLIENTS, seed=903, rounds=2, spec={"mode": "async", "async": {
        "buffer_k": 5, "concurrency": CLIENTS, "max_staleness": 20}})
    tickets = [job.selected(c) for c in range(CLIENTS)]
    for c in range(SILENT + SLOW, CLIENTS):
        assert job.put(c, tickets[c])[0] == 201
    job.published(1, timeout=30)
    r = record(node, job)
    assert r["why"] == "goal" and int(r["closed"]) == commits(node, job)[4]
    status, _, receipt = job.put(SILENT, tickets[SILENT])  # slow, not lost: it counts in the next buffer
    assert status == 201, receipt
    until("counted", lambda: record(node, job, 2).get("acc") == "1", 20)
    job.delete()


def test_a_place_is_kept_while_the_upload_moves(node):
    """Redis alone decides: who moves keeps the place beyond its lease, who is silent loses it; nothing is revived."""
    job = Job(node, size=500, clients=2, goal=2, seed=904, spec={"sync": {"client_timeout_s": 300}})
    key = f"trib:{{{job.id}}}:job"

    def fcall(name, *words):
        return node.redis("FCALL", "trib_" + name, 1, key, *words).splitlines()
    for c, u in (("a", "u-a"), ("b", "u-b")):
        assert fcall("checkin", c, u)[0] == "SELECTED"
        assert fcall("reserve", c, u, 1, 1500) == ["OK", "0"]
    for _ in range(10):
        time.sleep(0.3)
        assert fcall("progress", "a", "u-a", 1, 1500) == ["OK", "1500"]
    assert fcall("progress", "a", "u-b", 1, 1500) == ["NOOP"]
    assert fcall("progress", "b", "u-b", 1, 1500) == ["NOOP"]  # its time was over
    assert fcall("checkin", "c", "u-c")[0] == "SELECTED"
    assert fcall("checkin", "d", "u-d")[:2] == ["WAIT", "full"]
    assert fcall("commit", "b", "u-b", 1, "d", 1 << 20, "n1:x:1:1", "n1") == ["NORES"]
    assert fcall("progress", "a", "u-a", 1, 1500)[0] == "OK"
    job.delete()


def slow_put(job, client, ticket, enough):
    """Sends an upload a few bytes at a time until `enough` says so, then the rest: its status. enough None: goes silent
    after a few, with the connection open: the socket."""
    u = urllib.parse.urlsplit(job.node.data)
    x, w = job.update(client, ticket["round"])
    body, at = body_of(x), 0
    fields = {**job.headers(client, ticket, w), "Content-Length": len(body), "Host": u.netloc}
    s = socket.create_connection((u.hostname, u.port), 60)
    s.sendall(f"PUT {ticket['upload']['url']} HTTP/1.1\r\n".encode() +
              "".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n")
    while at < len(body) - 200 and not (enough and enough()):
        if not enough and at > 2000:
            return s
        s.sendall(body[at:at + 200])
        at += 200
        time.sleep(0.2 if enough else 0.02)
    with s:
        s.sendall(body[at:])
        return int(s.recv(4096).split()[1])


def test_a_slow_upload_counts_and_silent_clients_are_replaced():
    """Places for three: one uploads for much longer than client_timeout_s, one never reports, one stops within its
    upload. Two others wait, and get the places of the silent ones, long before the round's deadline."""
    with Node("--body-rate-min", "0") as n:
        job = Job(n, size=30000, clients=6, goal=3, seed=905, spec={
            "sync": {"client_timeout_s": 1, "over_select": 1, "deadline_s": 600}})
        tickets = {c: job.selected(c) for c in range(3)}
        answers, others, began = [], threading.Event(), time.monotonic()
        thread = threading.Thread(target=lambda: answers.append(slow_put(
            job, 0, tickets[0], lambda: others.is_set() and time.monotonic() - began > 7)))
        thread.start()
        silent = slow_put(job, 2, tickets[2], None)
        for c in (3, 4):  # in the places of 1 and 2
            status, _, receipt = job.put(c, job.selected(c, timeout=90))
            assert status == 201, receipt
        assert job.round()["expired"] == 2 and not answers
        told = job.checkin(5)
        assert (told["status"], told["why"]) == ("wait", "full"), told
        others.set()
        thread.join(90)
        assert answers == [201], n.logs()
        job.check(job.published(1), counted=(0, 3, 4))
        assert n.metric("gateway", "tributary_progress_calls_total") >= 3
        silent.close()


@pytest.mark.parametrize("mode", ("sync", "async"))
def test_partial_work_counts_with_the_weight_of_what_was_done(node, mode):
    """FedProx: who did less than was asked is aggregated with what it did, and the record says how many did."""
    job = Job(node, size=500, clients=3, seed=906 + len(mode), goal=3, spec={
        "mode": mode, "async": {"buffer_k": 3, "concurrency": 3, "staleness": {"fn": "const"}},
        "client_config": {"steps": 100, "mu": 0.1}})
    done = (100, 40, 7)  # steps of the 100 that client_config asks for
    tickets = [job.selected(c) for c in range(3)]
    for c, steps in enumerate(done):
        assert tickets[c]["config"]["steps"] == 100
        extra = {"FL-Metrics": f"work={steps / 100}, steps={steps}"} if steps < 100 else {}
        status, _, receipt = job.put(c, tickets[c], weight=float(steps), extra=extra)
        assert status == 201 and receipt["weight_used"] == steps, receipt
    model = job.published(1)
    updates = [(job.update(c, tickets[c]["round"])[0], float(steps)) for c, steps in enumerate(done)]
    exact, _, _ = reference(job.base, updates, job.bits)
    assert np.array_equal(model.view(np.uint32), exact.view(np.uint32))
    record = job.round(1)
    assert (record["accepted"], record["partial"], record["weight_sum"]) == (3, 2, 147.0), record
    assert abs(record["metrics"]["work"] - (40 * 0.4 + 7 * 0.07) / 47) < 1e-6, record
    job.delete()
