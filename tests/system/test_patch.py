# SPDX-License-Identifier: Apache-2.0
"""PATCH of a job: what is refused, what is in force at once, and switches between sync, k-of-n and async under load that
lose no update and count none twice."""
import http.client
import json
import random
import subprocess
import threading
import time
import urllib.parse

import numpy as np
import pytest

from cluster import BIN, Job, Node, body_of, call, request, until

MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def patch(job, spec, match="*", labels=None, expect=(200,)):
    doc = {"spec": spec} if labels is None else {"spec": spec, "metadata": {"labels": labels}}
    return call(job.node.api, "PATCH", f"/v1/jobs/{job.id}", json.dumps(doc).encode(), {**MERGE, "If-Match": match},
                expect=expect)


def etag(job):
    return request(job.node.api, "GET", f"/v1/jobs/{job.id}")[1]["etag"]


def test_preconditions_and_media_type(node):
    job = Job(node, size=100, seed=1)
    path, body = f"/v1/jobs/{job.id}", b'{"spec":{"stop":{"rounds":7}}}'

    def send(headers, content=body):
        status, head, data = request(node.api, "PATCH", path, content, headers)
        return status, head, json.loads(data)

    assert send(MERGE)[0] == 428 and send(MERGE)[2]["code"] == "precondition-required"
    status, head, problem = send({"Content-Type": "application/json-patch+json", "If-Match": "*"})
    assert status == 415 and head["accept-patch"] == MERGE["Content-Type"] and problem["code"]
    old = etag(job)
    assert send({**MERGE, "If-Match": "W/" + old})[0] == 412  # strong comparison
    assert send({**MERGE, "If-Match": '"g99-x"'})[0] == 412
    status, head, doc = send({**MERGE, "If-Match": f'"other", {old}'})
    assert status == 200 and doc["spec"]["stop"]["rounds"] == 7 and doc["metadata"]["generation"] == 2
    assert head["etag"] != old
    assert send({**MERGE, "If-Match": old})[0] == 412
    assert send({**MERGE, "If-Match": "*"}, b"[1]")[0] == 422
    assert send({**MERGE, "If-Match": "*"}, b"{")[0] == 400
    call(node.api, "POST", path + ":stop")
    status, _, problem = send({**MERGE, "If-Match": "*"})
    assert status == 409 and problem["detail"] == "the job is stopped"
    assert request(node.api, "PATCH", "/v1/jobs/job_00000000000000000000000000", body,
                   {**MERGE, "If-Match": "*"})[0] == 404
    job.delete()


def test_what_cannot_change_is_named(node):
    job = Job(node, size=100, seed=2)

    def pointers(spec, **more):
        return [e["pointer"] for e in patch(job, spec, expect=(422,), **more)["errors"]]

    assert pointers({"model": {"max_bytes": 100}}) == ["/spec/model/max_bytes"]
    assert pointers({"aggregation": {"rule": None, "range": 5, "max_weight": 7}, "client_config": {"x": 1}}) == \
        ["/spec/aggregation/max_weight", "/spec/aggregation/range", "/spec/client_config"]
    assert pointers({"sync": {"goal": 3, "quorum": 4}}) == ["/spec/sync/quorum"]  # checked as a whole
    assert pointers({"sync": {"gaol": 3}}) == ["/spec/sync/gaol"]
    assert pointers({"mode": "async", "aggregation": {"input": "weights"}})[0] == "/spec/aggregation/input"
    assert pointers({"aggregation": {"denominator": "population"}}) == ["/spec/aggregation/population"]
    assert pointers({"sync": {"goal": 500000}, "aggregation": {"scale_bits": 3}})[0] == "/spec/aggregation/scale_bits"
    assert pointers({"sync": {"goal": 500000, "over_select": 1}}) == ["/spec/sync/goal"]  # coarser sums
    assert pointers({}, labels={"a b": "c"}) == ["/metadata/labels/a b"]
    doc = json.dumps({"status": {"phase": "Succeeded"}, "metadata": {"name": "x"}}).encode()
    _, _, data = request(node.api, "PATCH", f"/v1/jobs/{job.id}", doc, {**MERGE, "If-Match": "*"})
    assert "/status" in [e["pointer"] for e in json.loads(data)["errors"]]
    assert job.get()["metadata"]["generation"] == 1
    assert patch(job, {}, labels={"team": "a"})["metadata"]["labels"] == {"team": "a"}
    assert "labels" not in patch(job, {}, labels={"team": None})["metadata"]
    job.delete()


def test_a_round_that_waits_for_too_many_is_let_go(node):
    job = Job(node, size=100, clients=6, seed=3, rounds=3)
    for c in range(4):
        job.report(c)
    assert job.round()["state"] == "open"
    doc = patch(job, {"sync": {"goal": 4}})  # the quorum was the goal and follows it
    assert doc["spec"]["sync"]["quorum"] == 4
    job.check(job.published(1), counted=[0, 1, 2, 3])
    until("second round", lambda: job.get()["status"]["round"] == 2)
    assert job.round(2)["goal"] == 4
    before = job.round(2)["deadline"]
    patch(job, {"sync": {"deadline_s": 500}})
    assert job.round(2)["deadline"] > before
    job.delete()


def half(job, client, ticket, vector, weight):
    """The head and half of the body of an upload; finish() sends the rest and reads the answer."""
    body = body_of(vector)
    where = urllib.parse.urlsplit(job.node.data)
    c = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    c.putrequest("PUT", ticket["upload"]["url"])
    for name, value in {**job.headers(client, ticket, weight), "Content-Length": str(len(body))}.items():
        c.putheader(name, value)
    c.endheaders(body[:len(body) // 2])

    def finish():
        c.send(body[len(body) // 2:])
        answer = c.getresponse()
        got = answer.status, json.loads(answer.read())
        c.close()
        return got
    until("upload is under way", lambda: job.node.metric("gateway", "tributary_uploads_inflight") > 0)
    return finish


@pytest.mark.parametrize("to", ["async", "sync"])
def test_an_upload_under_way_has_its_place_after_the_switch(node, to):
    """Reserved before, committed after, in a round or buffer that opened only since."""
    job = Job(node, size=200000, clients=3, goal=2, quorum=1, seed=10 + len(to), rounds=9,
              spec={"mode": "sync" if to == "async" else "async", "async": {"buffer_k": 2, "concurrency": 9}})
    slow = job.selected(0)
    x, w = job.update(0, 77)
    finish = half(job, 0, slow, x, w)
    if to == "async":  # it was of the round that closes before the switch
        job.report(1)
        patch(job, {"mode": "async"})
        job.report(2)
        counted, tau = 2, 1
    else:
        job.report(1)
        patch(job, {"mode": "sync"})
        job.report(2)
        counted, tau = 2, 1
    job.published(1)
    until("the next is open", lambda: job.get()["status"]["round"] == 2)
    status, receipt = finish()
    assert status == 201, receipt
    assert receipt["counted_in"] == counted
    fx = int(np.floor(int(np.rint(w * 2.0**20)) * (1 + tau) ** -0.5 + 0.5))
    assert receipt["weight_used"] == fx / 2.0**20
    last = job.report(1) if to == "sync" else job.report(2)
    assert last["counted_in"] == 2
    job.published(2)
    job.delete()


EXACT = {"denominator": "weight_sum"}
POLICIES = [
    {"mode": "sync", "sync": {"goal": 4, "quorum": 4, "over_select": 2.0, "deadline_s": 60}, "aggregation": EXACT},
    {"mode": "async", "async": {"buffer_k": 3}},
    {"mode": "sync", "sync": {"goal": 6, "quorum": 2, "over_select": 1.0, "deadline_s": 0.4}, "aggregation": EXACT},
    {"mode": "async", "async": {"buffer_k": 5, "staleness": {"fn": "hinge", "alpha": 0.5, "after": 1}}},
    {"mode": "sync", "sync": {"goal": 2, "quorum": 2, "over_select": 1.5, "deadline_s": 60}, "aggregation": EXACT},
    {"mode": "async", "async": {"buffer_k": 1}, "aggregation": {"denominator": "count"}},
]


def test_switching_under_load_counts_every_receipt_exactly_once(node):
    job = Job(node, size=4000, clients=8, goal=4, quorum=4, seed=30, rounds=1000, spec={
        "async": {"buffer_k": 3, "concurrency": 16, "max_staleness": 50, "flush_timeout_s": 1}, "placement": {"slots": 64}})
    stop, lock, sent, failures = threading.Event(), threading.Lock(), {}, []
    fine = ("stale", "round-closed", "arena-full", "not-selected", "state-conflict")

    def client(c):
        rng, n = random.Random(c), 0
        while not stop.is_set():
            try:
                ticket = job.checkin(c, wait=1)
                if ticket["status"] != "selected":
                    continue
                n += 1
                x, w = job.update(c, 900 + n)
                time.sleep(rng.choice([0, 0, 0.01, 0.05]))
                status, _, receipt = job.put(c, ticket, body_of(x), w)
                if status == 201:
                    with lock:
                        assert receipt["update"] not in sent, "two receipts of one update"
                        sent[receipt["update"]] = (x, w, receipt)
                elif receipt.get("code") not in fine:
                    failures.append(receipt)
            except AssertionError as e:
                if ": 503 " not in str(e):
                    failures.append(e)
                    return
            except (OSError, http.client.HTTPException) as e:
                failures.append(e)
                return

    crew = [threading.Thread(target=client, args=(c,)) for c in range(8)]
    for t in crew:
        t.start()
    rng = random.Random(31)
    try:
        for i in range(14):
            status = job.get()["status"]
            version = status["version"]
            if status["round"] > 40:  # the updates of 64 rounds are kept
                break
            patch(job, POLICIES[(i + rng.randint(0, 1)) % len(POLICIES)])
            until("it goes on", lambda: job.version() > version + rng.randint(0, 1) or failures, 60)
    finally:
        stop.set()
        for t in crew:
            t.join(60)
    assert not failures, failures[:3]
    call(node.api, "POST", f"/v1/jobs/{job.id}:stop")
    check_records(node, job, sent)
    job.delete()


def check_records(node, job, sent):
    """Each receipt is in exactly one record, the one it names; each version is what its record holds."""
    status = job.get()["status"]
    found, model, version, used = {}, job.base, 0, set()
    for n in range(1, status["round"] + 1):
        record = job.round(n)
        raw = node.redis("HGETALL", f"trib:{{{job.id}}}:r:{n}:upd").splitlines()
        counted = [v for v in raw[1::2] if v.startswith("C|")]
        assert len(counted) == record["accepted"], (n, record, counted)
        total, weight, raw_weight = np.zeros(job.size, np.int64), 0, 0
        for entry in counted:
            _, update, _, _, fx, _ = entry.split("|", 5)
            assert update not in found and update in sent, (n, entry)
            found[update] = n
            x, w, receipt = sent[update]
            assert receipt["counted_in"] == n and receipt["weight_used"] == int(fx) / 2.0**20, (receipt, entry)
            total += np.rint((int(fx) / 2.0**20) * x.astype(np.float64) * 2.0**job.bits).astype(np.int64)
            weight, raw_weight = weight + int(fx), raw_weight + int(np.rint(w * 2.0**20))
        if record["state"] != "published":
            continue
        version += 1
        assert record["version"] == version
        got = job.published(version)
        mean = total.astype(np.float64) * 2.0**-job.bits
        by = {d: (model.astype(np.float64) + mean / (d / 2.0**20)).astype(np.float32)
              for d in (weight, len(counted) << 20)}
        assert any(np.array_equal(got.view(np.uint32), m.view(np.uint32)) for m in by.values()), (n, version)
        model, used = got, used | {len(counted)}
    assert set(found) == set(sent), "a receipt is in no record"
    assert version >= 14 and len(sent) >= 30 and len(used) > 1, (version, len(sent), used)


def test_the_command_line_changes_a_job(node):
    job = Job(node, size=100, seed=50)

    def run(*words):
        return subprocess.run([f"{BIN}/tributary", *words, "--api", node.api], capture_output=True, text=True, timeout=30)

    done = run("patch", job.id, "mode=async", "async.buffer_k=3", "labels.team=x", "stop.rounds=null")
    assert done.returncode == 0 and "changed" in done.stderr, done
    doc = job.get()
    assert doc["spec"]["mode"] == "async" and doc["spec"]["async"]["buffer_k"] == 3
    assert doc["metadata"]["labels"] == {"team": "x"} and doc["spec"]["stop"]["rounds"] == 100
    done = run("patch", job.id, "sync.goal=0")
    assert done.returncode == 4 and "/spec/sync/goal: must be at least 1" in done.stderr
    assert run("patch", job.id, "sync.goal").returncode == 2
    assert run("pause", job.id).returncode == 0 and job.get()["status"]["phase"] == "Paused"
    assert run("resume", job.id).returncode == 0 and job.get()["status"]["phase"] == "Running"
    job.delete()
