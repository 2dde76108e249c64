# SPDX-License-Identifier: Apache-2.0
"""Cut-through (docs/adr/0009-cut-through.md): functions fold updates while they arrive. Whatever becomes of an update that
is half folded, the model has the same bits as if nobody had followed anything."""
import os
import signal
import socket
import time
import urllib.parse

import numpy as np
import pytest

from cluster import Job, Node, body_of, until

SIZE = 1300003  # 5.2 MB; more than the megabyte after which the gateway tells of an update
TRIES = 12      # rounds in which following is to be seen at least once: a busy machine may be late with every hint


@pytest.fixture(scope="module")
def node():
    with Node("--follow-bytes", "2000000") as n:
        yield n


def job_of(node, clients, goal=None, rounds=TRIES, spec=None):
    return Job(node, size=SIZE, clients=clients, goal=goal, rounds=rounds, seed=41, spec=spec)


def counted(node, what):
    return node.metric("agent", f"tributary_{what}_total")


class Upload:
    """An upload that goes on when it is told to."""

    def __init__(self, job, client, ticket=None, spoil=None, extra=None):
        self.job, self.client = job, client
        self.ticket = ticket or job.selected(client)
        x, weight = job.update(client, self.ticket["round"])
        if spoil is not None:
            x = x.copy()
            x[-1] = spoil
        self.body = body_of(x)
        headers = {**job.headers(client, self.ticket, weight), "Content-Length": str(len(self.body)), **(extra or {})}
        at = urllib.parse.urlsplit(job.node.data)
        self.sock = socket.create_connection((at.hostname, at.port), 30)
        self.sock.settimeout(60)
        self.sock.sendall((f"PUT {self.ticket['upload']['url']} HTTP/1.1\r\nHost: x\r\n"
                           + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode())
        self.sent = 0

    def to(self, share):
        end = int(len(self.body) * share)
        self.sock.sendall(self.body[self.sent:end])
        self.sent = end
        return self

    def answer(self):
        data = b""
        while b"\r\n\r\n" not in data:
            got = self.sock.recv(65536)
            assert got, "no answer"
            data += got
        status = int(data.split()[1])
        self.sock.close()
        return status

    def finish(self):
        return self.to(1).answer()


def accepted(upload):
    status = upload.finish()
    assert status in (200, 201), status


def together(job, clients):
    """All of them side by side in quarters, as the network brings them."""
    uploads = [Upload(job, c) for c in clients]
    for share in (0.25, 0.5, 0.75, 1):
        for u in uploads:
            u.to(share)
    for u in uploads:
        assert u.answer() in (200, 201)


@pytest.mark.parametrize("shards", [1, 2])
def test_followed_updates_give_the_same_bits(node, shards):
    job = job_of(node, 5, spec={"hierarchy": {"shards": shards}})
    wanted = ["agg_follow_kept", "agg_models_ahead"] + (["models_copied_ahead"] if shards == 1 else [])
    before, base = [counted(node, w) for w in wanted], job.base
    for n in range(1, TRIES + 1):
        together(job, range(5))
        model = job.published(n)
        job.check(model, n, base)
        base = model
        if n >= 2 and all(counted(node, w) > b for w, b in zip(wanted, before)):
            break
    else:
        pytest.fail(f"nothing was followed: {counted(node, 'follow_hints')} hints")
    assert counted(node, "agg_follow_bytes") > 0
    job.delete()


def test_f32_is_followed(node):
    job = job_of(node, 3, rounds=1, spec={"aggregation": {"accumulate": "f32"}})
    together(job, range(3))
    total = sum(w for _, w in job.updates())
    mean = sum(x.astype(np.float64) * w for x, w in job.updates()) / total
    assert np.allclose(job.published(1), job.base + mean, rtol=1e-5, atol=1e-6)
    job.delete()


def hinted(node, before, uploads, seconds=2):
    """Waits for the hints, no longer than it takes a function to give a standing update up."""
    end = time.monotonic() + seconds
    while counted(node, "follow_hints") < before + uploads and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("ending", ["stalls", "goes", "nan", "checksum", "range"])
def test_one_that_does_not_count_leaves_no_trace(node, ending):
    job = job_of(node, 4, goal=3, rounds=1)
    hints = counted(node, "follow_hints")
    bad = Upload(job, 3, spoil={"nan": np.nan, "range": np.float32(3e38)}.get(ending),
                 extra={"FL-Checksum": "crc32c=00000000"} if ending == "checksum" else None).to(0.9)
    good = [Upload(job, c).to(0.9) for c in range(3)]
    hinted(node, hints, 3)
    if ending == "goes":
        bad.sock.close()
    elif ending != "stalls":
        assert bad.finish() in (400, 422)
    for u in good:
        accepted(u)
    job.check(job.published(1), counted=range(3))
    assert job.round(1)["accepted"] == 3
    bad.sock.close()
    job.delete()


def kill_function(node, job):
    state = [j for j in node.state()["jobs"] if j["job"] == job.id]
    for f in state[0]["functions"] if state else []:
        if f["pid"]:
            os.kill(f["pid"], signal.SIGKILL)


@pytest.mark.parametrize("victim", ["function", "gateway", "agent"])
def test_kill_in_the_middle_of_followed_updates(node, victim):
    job = job_of(node, 3, rounds=1)
    hints = counted(node, "follow_hints")
    uploads = [Upload(job, c).to(0.8) for c in range(3)]
    hinted(node, hints, 3)
    if victim == "function":
        accepted(uploads.pop(0))  # committed, not in any sum for good
        kill_function(node, job)
    else:
        node.kill(victim)
        until("node ready again", node.ready, 20)
    for u in uploads:
        try:
            if u.finish() in (200, 201):
                continue
        except (OSError, AssertionError):
            pass  # its gateway is gone, or its slot is
        job.report(u.client)
    job.check(job.published(1, timeout=60))
    assert job.round(1)["accepted"] == 3
    job.delete()


def test_deleted_in_the_middle_of_followed_updates(node):
    """The version that was being copied goes with the job: its memory, too."""
    used = node.metric("agent", "tributary_arena_used_bytes")
    for fraction in (0.5, 0.9):
        job = job_of(node, 2)
        together(job, range(2))
        job.check(job.published(1), 1, job.base)  # the next version has memory from here on
        hints = counted(node, "follow_hints")
        uploads = [Upload(job, c).to(fraction) for c in range(2)]
        hinted(node, hints, 2)
        job.delete()
        for u in uploads:
            u.sock.close()
        until("all memory back", lambda: node.metric("agent", "tributary_arena_used_bytes") <= used, 30)
