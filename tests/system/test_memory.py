# SPDX-License-Identifier: Apache-2.0
"""AFA-CS (async.memory: all): every version is made of every client's last update, whatever is killed meanwhile."""
import http.client
import json
import os
import random
import signal
import threading
import time

import numpy as np

from cluster import Cluster, Job, Node, body_of, call, reference, request, until
from test_patch import patch

SIZE = 30000


def spec_of(k, clients, **more):
    return {"mode": "async", "async": {"buffer_k": k, "concurrency": 8, "max_staleness": 1000, "memory": "all",
                                       "memory_clients": clients, "staleness": {"fn": "const"}, **more},
            "aggregation": {"weight_by": "uniform", "denominator": "count", "max_weight": 1000}}


class Crew:
    """Clients that report again and again; what they have a receipt for: update -> (client, vector, buffer)."""

    def __init__(self, job, clients, via=None):
        self.job, self.sent, self.errors, self.over = job, {}, [], threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(c, via)) for c in clients]
        for t in self.threads:
            t.start()

    def work(self, client, via):
        job, rng = self.job, np.random.default_rng([self.job.seed, client])
        try:
            while not self.over.is_set():
                answer = self.ask(client, via)
                if answer.get("status") != "selected":
                    time.sleep(0.02)
                    continue
                x = rng.standard_normal(SIZE).astype(np.float32)
                self.report(client, answer, x, via)
                time.sleep(0.1)
        except Exception as e:  # noqa: BLE001 - told to the test
            self.errors.append((client, repr(e)))

    def ask(self, client, via):
        try:
            return self.job.checkin(client, via=via)
        except (OSError, http.client.HTTPException, AssertionError) as e:
            if isinstance(e, AssertionError) and ": 503 " not in str(e):
                raise
            return {}

    def report(self, client, ticket, x, via):
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                status, _, answer = self.job.put(client, ticket, body_of(x), 1.0, via=via)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            if status in (200, 201):
                self.sent[answer["update"]] = (client, x, answer["counted_in"])
                return
            if answer.get("code") in ("not-selected", "stale"):
                return  # declared lost with its node, or its place has ended
            assert status in (429, 503) or answer.get("code") == "upload-busy", (status, answer)
            time.sleep(min(0.2, float(answer.get("retry_after", 0.05))))
        raise AssertionError("no receipt")

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(100)
        assert not self.errors, self.errors


def verify(job, crew, version, lost=frozenset()):
    """Every one of the last versions is, bit for bit, made of what its record names; that is every client's last update until then."""
    first = max(1, version - 50)  # of so many rounds the updates are kept
    base = job.published(first - 1)
    for v in range(first, version + 1):
        until("listed", lambda v=v: job.round(v)["state"] == "published", 60)
        items = call(job.node.api, "GET", f"/v1/jobs/{job.id}/rounds/{v}/updates?limit=100")["items"]
        ids = [u["update"] for u in items if u["state"] == "accepted"]
        r = job.round(v)
        assert len(ids) == r["accepted"] and r.get("kept", 0) == sum(crew.sent[u][2] < v for u in ids if u in crew.sent), r
        last = {}
        for update, (client, _, n) in crew.sent.items():
            if n <= v and (client not in last or n > crew.sent[last[client]][2]):
                last[client] = update
        if v not in lost:
            assert set(ids) == set(last.values()), (v, set(ids) ^ set(last.values()))
        exact, _, _ = reference(base, [(crew.sent[u][1], 1.0) for u in ids], job.bits)
        model = job.published(v)
        assert np.array_equal(model.view(np.uint32), exact.view(np.uint32)), v
        base = model


def functions_of(node):
    try:
        return [f["pid"] for j in node.state()["jobs"] for f in j["functions"] if f["pid"] > 0]
    except (OSError, http.client.HTTPException, AssertionError, KeyError, ValueError):
        return []


def killed(seed, victims, **more):
    with Node("--leaves-max", "2") as node:
        job = Job(node, size=SIZE, seed=seed, rounds=100000, spec={**spec_of(3, 8), **more})
        crew, rng = Crew(job, range(6)), random.Random(seed)
        until("a version", lambda: job.version() >= 2, 60)
        for what in victims:
            time.sleep(rng.random() * 0.2)
            pids = functions_of(node) if what == "function" else [node.pid(what)]
            for pid in pids[:1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # ended by itself
            at = progress(job)
            until(f"versions after the {what}", lambda at=at: progress(job) >= at + 2, 90)
        until("ready", node.ready, 60)
        crew.stop()
        last = settle(job)
        assert last > 2 * len(victims)
        assert job.get()["status"]["counted"] == sum(n <= last for _, _, n in crew.sent.values())
        verify(job, crew, last)
        claimed = next(j for j in node.state()["jobs"] if j["job"] == job.id)["slots"]["claimed"]
        assert claimed <= 8 + 3  # no more than the memory and what the open buffer has
        job.delete()


def test_every_client_is_in_every_version_whatever_is_killed():
    killed(51, ("function", "agent", "gateway", "orchestrator", "agent", "function"))
    killed(52, ("function", "agent", "gateway"), hierarchy={"leaves": 2, "shards": 2})


def progress(job):
    try:
        return job.version()
    except (OSError, http.client.HTTPException, AssertionError):
        return -1


def settle(job):
    """The version when nothing moves any more."""
    def still():
        status = job.get()["status"]
        return status["version"] == status["round"] - 1 and status["version"]
    return until("all full buffers are aggregated", still, 60)


def test_a_lost_node_takes_its_memory_along_and_it_is_said():
    with Cluster(2) as nodes:
        job = Job(nodes, size=SIZE, seed=52, rounds=100000, spec=spec_of(2, 8))
        here, there = Crew(job, range(3)), Crew(job, range(3, 6), via=nodes[1])
        until("both nodes' clients", lambda: job.version() >= 3 and {c for c, _, _ in there.sent.values()} == {3, 4, 5}, 90)
        there.over.set()
        for t in there.threads:
            t.join(100)
        at = settle_past(job)
        nodes[1].kill_everything()
        until("the loss is said", lambda: "memory.lost" in nodes.redis("XRANGE", f"trib:{{{job.id}}}:ev", "-", "+"), 60)
        after = job.version() + 2
        until("it goes on", lambda: job.version() >= after, 90)
        here.stop()
        last = settle(job)
        crew = here
        crew.sent.update(there.sent)
        verify(job, crew, last, lost=range(at, last + 1))
        items = call(nodes.api, "GET", f"/v1/jobs/{job.id}/rounds/{last}/updates?limit=100")["items"]
        assert {u["client"].split("@")[0] for u in items if u["state"] == "accepted"} == {"c-0", "c-1", "c-2"}
        job.delete()


def settle_past(job):
    return job.version() + 1


def test_the_memory_has_so_much_room():
    with Node() as node:
        job = Job(node, size=100, seed=53, rounds=1000, spec=spec_of(2, 2))
        for c in (0, 1):
            assert job.report(c)["counted_in"] == 1
        answer = until("an answer", lambda: job.checkin(2), 30)
        assert (answer["status"], answer["why"]) == ("wait", "memory-full"), answer
        assert job.selected(0)["base_version"] == 1
        errors = patch(job, {"mode": "sync", "async": {"memory_clients": 3}}, expect=(422,))["errors"]
        assert [e["pointer"] for e in errors] == ["/spec/mode", "/spec/async/memory_clients"]
        errors = patch(job, {"async": {"memory": "none"}}, expect=(422,))["errors"]
        assert [e["pointer"] for e in errors] == ["/spec/async/memory"]
        small = Job(node, size=100000, seed=54, rounds=10, spec={**spec_of(2, 50), "placement": {"arena_bytes": 8 << 20}})
        ticket = small.selected(0)
        status, _, problem = small.put(0, ticket)
        assert status == 503 and problem["code"] == "arena-full", problem
        for wrong, pointer in (({"weight_by": "examples"}, "/spec/aggregation/weight_by"),
                               ({"accumulate": "f32"}, "/spec/aggregation/accumulate")):
            doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "x"}, "spec": spec_of(2, 4)}
            doc["spec"]["aggregation"].update(wrong)
            status, _, data = request(node.api, "POST", "/v1/jobs:validate", doc)
            assert status == 422 and [e["pointer"] for e in json.loads(data)["errors"]] == [pointer]
