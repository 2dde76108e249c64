# SPDX-License-Identifier: Apache-2.0
"""A version between its publication and its file: served from memory, whatever is killed meanwhile, and the file
follows; memory that is used again never shows another version's bits."""
import contextlib
import glob
import os
import signal
import socket
import tempfile
import threading
import time
import urllib.parse

import numpy as np
import pytest

from cluster import Job, Node, body_of, request, until, vector_of

SIZE = 60001  # the file ends within a block of the disk


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def path_of(job, version):
    (folder,) = glob.glob(os.path.join(job.node.dir, "**", job.id), recursive=True)
    return os.path.join(folder, f"v{version}.safetensors")


def until_filed(job, version):
    until(f"a file of version {version}", lambda: os.path.exists(path_of(job, version)), 30)
    with open(path_of(job, version), "rb") as f:
        return f.read()


@contextlib.contextmanager
def no_file(job, version):
    """The version's file cannot be made (the place of its temporary name is taken by a directory)."""
    place = path_of(job, version) + ".tmp"
    os.mkdir(place)
    try:
        yield
    finally:
        os.rmdir(place)


def body_from(node, job, version):
    status, head, body = request(node.data, "GET", f"/v1/jobs/{job.id}/models/{version}")
    return body if status == 200 else None, head.get("etag")


def served(node, job, version):
    def good():
        with contextlib.suppress(OSError):
            body, etag = body_from(node, job, version)
            return body and (body, etag)
    return until(f"version {version} served", good, 30)


def kill_function(node, job):
    for j in node.state()["jobs"]:
        for f in j["functions"]:
            if j["job"] == job.id and f["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(f["pid"], signal.SIGKILL)


def test_whatever_is_killed_before_the_file_is_there(node):
    job = Job(node, size=SIZE, clients=3, seed=31, rounds=9)
    with no_file(job, 1):
        job.report_all()
        job.check(job.published(1))
        before = served(node, job, 1)
        assert until("an attempt", lambda: node.metric("agent", "tributary_models_unfiled_total") >= 1, 20)
        for victims in (["gateway"], ["agent"], ["function"], ["agent", "gateway"]):
            for victim in victims:
                kill_function(node, job) if victim == "function" else node.kill(victim)
            until("node ready again", node.ready, 30)
            assert served(node, job, 1) == before, victims
            assert not os.path.exists(path_of(job, 1))
    assert until_filed(job, 1) == before[0]
    assert served(node, job, 1) == before
    assert glob.glob(path_of(job, 1) + ".tmp") == []
    job.report_all()
    job.check(job.published(2), 2, base=vector_of(before[0]))
    assert vector_of(until_filed(job, 2)).tobytes() == job.published(2).tobytes()
    job.delete()
    until("purged", lambda: not glob.glob(os.path.join(node.dir, "**", job.id), recursive=True), 20)


def test_a_version_waits_for_the_file_of_the_one_before(node):
    job = Job(node, size=SIZE, clients=2, seed=32, rounds=9)
    with no_file(job, 1):
        job.report_all()
        first = job.published(1)
        job.report_all()  # all of the second round are in
        time.sleep(0.5)
        assert job.version() == 1
        node.kill("agent")
        until("node ready again", node.ready, 30)
        time.sleep(0.5)
        assert job.version() == 1
    job.check(job.published(2), 2, base=first)
    assert vector_of(until_filed(job, 1)).tobytes() == first.tobytes()
    job.delete()


def test_the_node_ends_before_the_file_is_there():
    with Node() as node:
        job = Job(node, size=SIZE, clients=2, seed=33, rounds=1)
        with no_file(job, 1):
            job.report_all()
            model = job.published(1)
        node.process.send_signal(signal.SIGTERM)
        node.process.wait(30)
        node.log.close()
        assert vector_of(until_filed(job, 1)).tobytes() == model.tobytes()
        node.start()
        assert vector_of(served(node, job, 1)[0]).tobytes() == model.tobytes()


class Slow:
    """A download that takes its time: the head and a little are read, the rest by `rest`."""

    def __init__(self, node, job, version):
        u = urllib.parse.urlsplit(node.data)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.sock.settimeout(60)
        self.sock.connect((u.hostname, u.port))
        self.sock.sendall(f"GET /v1/jobs/{job.id}/models/{version} HTTP/1.1\r\nHost: slow\r\nConnection: close\r\n\r\n"
                          .encode())
        self.data = bytearray(self.sock.recv(4096))

    def rest(self):
        while True:
            got = self.sock.recv(1 << 16)
            if not got:
                head, _, body = bytes(self.data).partition(b"\r\n\r\n")
                assert b" 200 " in head.split(b"\r\n")[0]
                return body
            self.data += got


def test_a_download_slower_than_three_versions_gets_its_own(node):
    job = Job(node, size=2 << 20, clients=1, seed=34, rounds=9)
    job.report(0)
    models = [job.base, job.published(1)]
    downloads = [(1, Slow(node, job, 1)), (1, Slow(node, job, 1))]
    for version in (2, 3, 4):
        job.report(0)
        models.append(job.published(version))
        downloads.append((version, Slow(node, job, version)))
    for version, download in downloads:
        assert vector_of(download.rest()).tobytes() == models[version].tobytes(), version
    job.check(models[1])
    for version in (2, 3, 4):
        job.check(models[version], version, base=models[version - 1])
    held = [m for m in glob.glob(f"/proc/{node.pid('agent')}/fd/*") if "tributary-model" in link(m)]
    assert 1 <= len(set(os.stat(m).st_ino for m in held)) <= 4
    job.delete()


def link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def test_memory_used_again_never_shows_another_version(node):
    """Every client adds 1: whatever is served as version n is the base plus n, in all its places."""
    rounds, size = 25, 200000
    job = Job(node, size=size, clients=1, seed=35, rounds=rounds)
    ones, stop, bad, seen = np.ones(size, np.float32), threading.Event(), [], set()
    expected = [job.base]
    for _ in range(rounds):
        expected.append((expected[-1].astype(np.float64) + 1.0).astype(np.float32))

    def download():
        while not stop.is_set():
            status, head, body = request(node.data, "GET", f"/v1/jobs/{job.id}/models/latest")
            if status == 200:
                version = int(head["fl-version"])
                seen.add(version)
                if vector_of(body).tobytes() != expected[version].tobytes():
                    bad.append(version)

    crew = [threading.Thread(target=download) for _ in range(3)]
    for t in crew:
        t.start()
    try:
        body = body_of(ones)
        for n in range(1, rounds + 1):
            ticket = job.selected(0)
            assert ticket["round"] == n
            assert job.put(0, ticket, body=body, weight=1.0)[0] == 201
            until(f"version {n}", lambda n=n: job.version() >= n, 30)
    finally:
        stop.set()
        for t in crew:
            t.join(60)
    assert not bad, bad
    assert len(seen) > 3, seen
    for n in range(rounds + 1):
        assert vector_of(until_filed(job, n)).tobytes() == expected[n].tobytes(), n
    job.delete()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm")
def test_a_file_system_in_memory(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    with Node() as node:
        job = Job(node, size=SIZE, clients=2, seed=36, rounds=3)
        base = job.base
        for n in (1, 2):
            job.report_all()
            model = job.published(n)
            job.check(model, n, base=base)
            assert vector_of(until_filed(job, n)).tobytes() == model.tobytes()
            base = model
