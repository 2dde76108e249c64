# SPDX-License-Identifier: Apache-2.0
"""Notifications: CloudEvents to a receiver that fails, hangs, redirects and dies; the orchestrator is killed meanwhile."""
import hashlib
import hmac
import http.server
import json
import threading

import pytest

from cluster import Job, Node, call, until

SECRET = "0123456789abcdef-of-the-test"


class Receiver:
    """Keeps what it took; `answer(n)` is the status of the n-th request (0: the connection is cut)."""

    def __init__(self):
        self.taken, self.seen, self.answer, self.hang = [], 0, lambda n: 204, lambda path: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen += 1
                outer.hang(self.path)
                status = outer.answer(outer.seen)
                if status == 0:
                    self.connection.close()
                    return
                if status < 300:
                    outer.taken.append((self.path, dict(self.headers), body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self, path):
        return [json.loads(body) for p, _, body in list(self.taken) if p == path]


@pytest.fixture(scope="module")
def receiver():
    r = Receiver()
    yield r
    r.server.shutdown()


@pytest.fixture(scope="module")
def node(receiver):
    with Node("--webhook-allow", f"https://hooks.example.com/a/,{receiver.url}") as n:
        yield n


def wanted(node, job, *types):
    """(id, type) of the job's events of these types, from its stream."""
    raw = json.loads(node.redis("--json", "XRANGE", f"trib:{{{job.id}}}:ev", "-", "+"))
    found = [(entry[0], dict(zip(entry[1][::2], entry[1][1::2]))["t"]) for entry in raw]
    return [(i, t) for i, t in found if not types or t.split(".")[0] in types]


def got(receiver, path):
    return [(e["id"], e["type"].removeprefix("dev.tributary.")) for e in receiver.events(path)]


def job_with(node, receiver, path, seed, **more):
    rounds = more.pop("rounds", 2)
    return Job(node, size=50, clients=2, seed=seed, rounds=rounds,
               spec={"notifications": [{"url": receiver.url.rstrip("/") + path, **more}]})


def test_events_come_in_order_signed_and_whole(node, receiver):
    job = job_with(node, receiver, "/one", 1, secret=SECRET)
    assert "secret" not in json.dumps(job.get()) and job.get()["spec"]["notifications"][0]["url"]
    job.report_all()
    job.published(1)
    job.clients = 2
    for c in range(2):
        job.report(c)
    until("finished", lambda: job.get()["status"]["phase"] == "Succeeded", 30)
    until("all there", lambda: got(receiver, "/one") == wanted(node, job, "job", "round", "model"), 30)
    path, headers, body = [t for t in receiver.taken if t[0] == "/one"][0]
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers["Tributary-Signature"] == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    first = json.loads(body)
    assert first["specversion"] == "1.0" and first["source"] == f"/v1/jobs/{job.id}"
    assert first["type"] == "dev.tributary.job.created" and first["data"]["job"] == job.id and first["time"].endswith("Z")
    assert node.metric("orchestrator", 'tributary_webhook_posts_total{outcome="taken"}') >= 5
    job.delete()


@pytest.mark.parametrize("bad", [500, 302, 0, 404])
def test_what_is_not_taken_is_sent_again(node, receiver, bad):
    path = f"/again-{bad}"
    start = receiver.seen
    receiver.answer = lambda n: bad if n - start in (1, 3) else 200
    try:
        job = job_with(node, receiver, path, 2 + bad, events=["job.*"], rounds=1)
        job.report_all()
        until("all there", lambda: [t for _, t in got(receiver, path)] ==
              ["job.created", "job.running", "job.finished"], 60)
        assert got(receiver, path) == wanted(node, job, "job")
        assert receiver.seen - start == 5 and not got(receiver, "/elsewhere")
    finally:
        receiver.answer = lambda n: 204
    job.delete()


def test_the_orchestrator_is_killed_and_goes_on_where_it_was(node, receiver):
    down = threading.Event()
    receiver.answer = lambda n: 503 if down.is_set() else 200
    job = job_with(node, receiver, "/crash", 20, events=["*"], rounds=3)
    until("running", lambda: ("job.running" in [t for _, t in got(receiver, "/crash")]), 30)
    down.set()
    job.report_all()
    node.kill("orchestrator")
    until("up again", node.ready, 30)
    job.published(1)
    down.clear()
    for _ in range(2):
        for c in range(2):
            job.report(c)
    until("finished", lambda: job.get()["status"]["phase"] == "Succeeded", 30)

    def complete():
        seen = []
        for event in got(receiver, "/crash"):  # at least once: the ids tell what came before
            if event not in seen:
                seen.append(event)
        return seen == wanted(node, job)
    until("all there, in order", complete, 60)
    job.delete()
    until("forgotten", lambda: node.metric("orchestrator", "tributary_webhooks") == 0, 30)


def test_only_what_is_allowed_is_named(node, receiver):
    doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "x"}}

    def errors(*hooks):
        answer = call(node.api, "POST", "/v1/jobs:validate", {**doc, "spec": {"notifications": list(hooks)}},
                      expect=(422, 200))
        return [e["pointer"].removeprefix("/spec/notifications") for e in answer.get("errors", [])]

    good = {"url": "https://hooks.example.com/a/b?c=d"}
    assert errors() == errors(good) == errors({**good, "events": ["job.*", "model.published"], "secret": "x" * 16}) == []
    for url in ("https://hooks.example.com/b", "https://hooks.example.com.evil/a/", "http://hooks.example.com/a/",
                "https://hooks.example.com@evil/a/", "https://hooks.example.com/a/../b", "https://hooks.example.com/a/%2e%2E/b",
                "https://hooks.example.com/a/ b", "https://hooks.example.com/a/\\b", "file:///etc/passwd", "gopher://x/",
                "http://169.254.169.254/latest/", "https://hooks.example.com", "https://hooks.example.com/a/" + "x" * 512, 7):
        assert errors({"url": url}) == ["/0/url"], url
    assert errors(good, {**good, "events": []}) == ["/1/events"]
    assert errors({**good, "events": ["Job"]}) == errors({**good, "events": ["a*b"]}) == ["/0/events"]
    assert errors({**good, "secret": "short"}) == ["/0/secret"]
    assert errors({**good, "sercet": "x" * 16}) == errors({}) == errors("x") == ["/0"]
    assert errors(*[good] * 5) == [""]


def test_a_receiver_that_is_added_hears_of_what_comes_then(node, receiver):
    job = Job(node, size=50, clients=1, seed=30, rounds=2)
    job.report(0)
    job.published(1)

    def patch(hooks):
        call(node.api, "PATCH", f"/v1/jobs/{job.id}", json.dumps({"spec": {"notifications": hooks}}).encode(),
             {"Content-Type": "application/merge-patch+json", "If-Match": "*"})
    patch([{"url": receiver.url + "added", "events": ["model.*", "job.*"]}])
    job.report(0)
    until("there", lambda: [t for _, t in got(receiver, "/added")] ==
          ["job.patched", "model.published", "job.finished"], 30)
    job.delete()


def test_a_receiver_that_hangs_holds_up_nobody(node, receiver):
    """Each receiver has its own pace; the loop waits for none."""
    gate = threading.Event()
    receiver.hang = lambda path: path.startswith("/hang") and gate.wait(30)
    hooks = [{"url": receiver.url + f"hang{i}"} for i in range(3)] + [{"url": receiver.url + "fast"}]
    job = Job(node, size=50, clients=1, seed=40, rounds=1, spec={"notifications": hooks})
    try:
        job.report(0)
        until("told", lambda: "job.finished" in [t for _, t in got(receiver, "/fast")], 30)
        assert not got(receiver, "/hang0")
    finally:
        gate.set()
    until("all told", lambda: all(got(receiver, f"/hang{i}")[-1:] == got(receiver, "/fast")[-1:] for i in range(3)), 60)
    job.delete()
