# SPDX-License-Identifier: Apache-2.0
"""Two orchestrators: the leader is frozen or killed, the other takes over, and what the old one still has to say is
refused. Times are printed; `make bench-failover` judges them."""
import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from cluster import BIN, ROOT, Job, Node, call, request, until  # noqa: E402

sys.path.insert(0, os.path.join(ROOT, "client/python"))
from tributary import Admin  # noqa: E402


class Orchestrator:
    """One more orchestrator beside the node's."""

    def __init__(self, node, name, redis=None):
        self.file = os.path.join(node.dir, f"{name}.json")
        if os.path.exists(self.file):  # of a former life
            os.unlink(self.file)
        with open(os.path.join(node.dir, f"{name}.log"), "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(BIN, "tributary-orchestrator"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                 "--redis", redis or node.endpoints()["redis"], "--id", name, "--data-url", node.data, "--addr-file",
                 self.file], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until("addresses", lambda: os.path.exists(self.file), 20)
        with open(self.file) as f:
            addresses = json.load(f)
        self.api, self.admin = addresses["api"], addresses["admin"]
        until("ready", lambda: request(self.admin, "GET", "/readyz")[0] == 200, 20)

    def metric(self, name):
        text = request(self.admin, "GET", "/metrics")[2].decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.split(" ")[0].split("{")[0] == name)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait()


@pytest.fixture()
def node():
    with Node() as n:
        yield n


def leader(node):
    """(who, epoch) by the lease."""
    who, _, epoch = node.redis("GET", "trib:lease:orch").rpartition("|")
    return who, int(epoch or 0)


def leads(node, name, after, limit=30):
    began = time.monotonic()
    epoch = until(f"{name} leads", lambda: leader(node)[0] == name and leader(node)[1], limit, 0.01)
    print(f"{name} leads {time.monotonic() - began:.2f} s {after}")
    return epoch


def test_a_frozen_and_a_killed_leader_are_followed_by_the_other(node):
    first, before = leader(node)
    standby = Orchestrator(node, "standby")
    try:
        status, _, data = request(standby.api, "POST", "/v1/jobs", {"apiVersion": "tributary/v1",
                                                                    "kind": "AggregationJob",
                                                                    "metadata": {"name": "no"}, "spec": {}})
        assert (status, json.loads(data)["code"]) == (503, "not-leader")
        _, head, _ = request(standby.api, "POST", "/v1/jobs?x=1", {})
        assert head["location"] == f"{node.api}/v1/jobs?x=1", head
        doc = os.path.join(node.dir, "spec.json")
        with open(doc, "w") as f:
            json.dump({"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "by-standby"},
                       "spec": {}}, f)
        done = subprocess.run([os.path.join(BIN, "tributary"), "submit", "--api", standby.api, doc], timeout=60,
                              capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("job_"), done
        Admin(standby.api).stop(done.stdout.strip())
        job = Job(node, size=3000, clients=2, seed=801, rounds=2, quorum=1, spec={"sync": {"deadline_s": 4}})
        job.report(0)
        assert call(standby.api, "GET", f"/v1/jobs/{job.id}")["status"]["phase"] == "Running"
        pid = node.kill("orchestrator", signal.SIGSTOP)
        try:
            second = leads(node, "standby", "after the leader froze")
            assert second > before
            # Its timer comes from the record: nobody told it of this round's deadline.
            until("closed by its deadline", lambda: call(standby.api, "GET", f"/v1/jobs/{job.id}/rounds/1")["state"] ==
                  "published", 40, 0.05)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert leader(node) == ("standby", second)
        until("the old one knows", lambda: node.metric("orchestrator", "tributary_leader") == 0, 20)
        status, _, data = request(node.api, "POST", f"/v1/jobs/{job.id}:pause")
        assert (status, json.loads(data)["code"]) == (503, "not-leader")
        stream = Events(node.api, job)
        call(standby.api, "POST", f"/v1/jobs/{job.id}:pause")
        until("told by the standby", lambda: "job.paused" in stream.text, 20)
        call(standby.api, "POST", f"/v1/jobs/{job.id}:resume")
        standby.process.kill()
        standby.process.wait()
        assert leads(node, first, "after the leader was killed") > second
        until("it acts", lambda: request(node.api, "POST", f"/v1/jobs/{job.id}:stop")[0] in (200, 202, 409), 20)
        job.delete()
    finally:
        standby.end()


class Events:
    """An SSE stream, read in the background."""

    def __init__(self, api, job):
        host, _, port = api.rpartition("/")[2].rpartition(":")
        self.c = http.client.HTTPConnection(host, int(port), timeout=60)
        self.c.request("GET", f"/v1/jobs/{job.id}/events")
        self.r, self.text = self.c.getresponse(), ""
        assert self.r.status == 200
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            while line := self.r.readline():
                self.text += line.decode()


class Slow:
    """A way to Redis on which what the client says can be held back."""

    def __init__(self, target):
        self.target, self.path = target, os.path.join(tempfile.mkdtemp(prefix="trib-slow-"), "redis.sock")
        self.open = threading.Event()
        self.open.set()
        self.held = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self.target)
                threading.Thread(target=self.pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self.pump, args=(far, near, False), daemon=True).start()

    def pump(self, source, sink, holds):
        line = queue.Queue()
        threading.Thread(target=self.push, args=(line, sink), daemon=True).start()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if holds and not self.open.is_set():
                    self.held += data.count(b"trib_job_set")
                line.put((data, holds))
        line.put((None, False))

    def push(self, line, sink):
        with contextlib.suppress(OSError):
            while (item := line.get())[0]:
                if item[1]:
                    self.open.wait()
                sink.sendall(item[0])
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self.open.set()
        self.listener.close()
        os.unlink(self.path)
        os.rmdir(os.path.dirname(self.path))


def test_a_late_write_of_the_old_leader_is_refused(node):
    """The old leader was sure of its lease when it wrote; the write arrives when another leads."""
    slow = Slow(node.endpoints()["redis"][5:])
    old = Orchestrator(node, "old", f"unix:{slow.path}")
    new, _ = leader(node)
    try:
        pid = node.kill("orchestrator", signal.SIGSTOP)
        try:
            before = leads(node, "old", "after the leader froze")
        finally:
            os.kill(pid, signal.SIGCONT)
        job = Job(type("", (), {"api": old.api, "data": node.data, "node": node})(), size=3000, clients=2, seed=802)
        until("running", lambda: call(old.api, "GET", f"/v1/jobs/{job.id}")["status"]["phase"] == "Running", 20)
        answers = []

        def stop():
            answers.append(request(old.api, "POST", f"/v1/jobs/{job.id}:stop"))

        def write_late():
            """The request, once it is on its way to Redis; None when it was answered without."""
            slow.open.clear()
            thread = threading.Thread(target=stop)
            thread.start()
            until("sent or refused", lambda: slow.held or not thread.is_alive(), 30)
            if slow.held:
                return thread
            slow.open.set()
            assert answers[-1][0] == 503, answers
            return None
        thread = until("a write under way", write_late, 60)
        assert leads(node, new, "after the leader was cut off") > before
        slow.open.set()
        thread.join(30)
        until("refused", lambda: old.metric("tributary_fenced_total") >= 1, 20)
        assert node.redis("HGET", f"trib:{{{job.id}}}:job", "state") == "running", answers
        assert answers[-1][0] == 503, answers
        job.node = node
        job.report_all()
        job.check(job.published(1))
    finally:
        old.end()
        slow.close()
