# SPDX-License-Identifier: Apache-2.0
"""Dynamic backup workers (sync.backup: dbw) and sampling by count: decisions on a redis-server alone against the reference
over random traces, then a node: slow clients are not waited for, PATCH in and out, norms that a dead gateway left."""
import http.client
import json
import os
import random
import sys
import threading
import time

import numpy as np
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "reference"))

from cluster import Job, Node, body_of, call, request, until  # noqa: E402
from simulator import UNIT, Simulator  # noqa: E402
from test_functions import JOB, pairs, redis  # noqa: E402,F401  (a fixture)
from test_patch import patch  # noqa: E402

TRACES, SIZE = 20, 5


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


class Trace:
    """Rounds of one job, driven as its callers would; the record's own times are what the reference is told."""

    def __init__(self, r, seed):
        self.r, self.rng, self.seed = r, random.Random(seed), seed
        rng = self.rng
        self.goal, over = rng.randint(2, 6), rng.choice([1.0, 1.5])
        self.spec = {"sync": {"goal": self.goal, "over_select": over, "quorum": rng.randint(1, self.goal - 1),
                              "backup": {"kind": "dbw", "alpha": rng.choice([0.1, 0.3, 1.0]), "step": rng.choice([0, 1])}}}
        self.sim = Simulator(self.spec, np.zeros(SIZE), 40)
        self.common, self.serial, self.chosen = 10.0 ** rng.uniform(-1, 1), 0, []
        r("FLUSHALL")
        self.call("job_create", "5|o", "job_x", "x", json.dumps(self.spec), self.goal, self.sim.p.quorum, self.sim.p.places,
                  100000, 60000, 1000)
        self.call("model_init", "d0", 40, SIZE, "{}")
        self.call("job_set", "5|o", "created", "running", "")

    def call(self, name, *args):
        return self.r("FCALL", "trib_" + name, 1, JOB, *args)

    def round(self, n):
        return pairs(self.r("HGETALL", f"trib:{{job_x}}:r:{n}"))

    def update(self):
        """(vector, weight in units)"""
        self.serial += 1
        rng = np.random.default_rng([self.seed, self.serial])
        return self.common + rng.standard_normal(SIZE), int(rng.integers(1, 40)) * 2 ** 20

    def commit(self, client, ticket, n):
        x, units = self.update()
        loss = round(self.rng.uniform(0.5, 1.5), 4)
        args = (client, ticket, n, f"d{self.serial}", units, f"n1:b1:{self.serial}:1", "n1", f"loss={loss}",
                f"{float(x @ x):.17g}")
        if self.rng.random() < 0.3:
            self.call("reserve", client, ticket, n, 1000)
        answer = self.call("commit", *args)
        if self.rng.random() < 0.3:
            assert self.call("commit", *args)[0] in ("SAME", "CLOSED")  # sent again
        own, now = self.sim.rounds[n], 0.0
        if answer[0] in ("OK", "CLOSE"):
            now = int(answer[2])
        elif own.opened is not None:
            now = own.opened + int(self.round(n)["afterms"].split(",")[-1])
        want = self.sim.commit(client, (n, own.base), x, units / UNIT, now, loss)
        assert (want[0] == "counted") == (answer[0] in ("OK", "CLOSE")), (answer, want)
        if answer[0] in ("OK", "CLOSE"):
            self.rows.append((x, units / UNIT))

    def go(self):
        late = []
        for n in range(1, 9):
            self.rows = []
            self.call("round_open", "5|o", n, n - 1, self.goal, self.sim.p.quorum, self.sim.p.places,
                      self.rng.choice([4, 100000]))
            r, mine = self.round(n), self.sim.rounds[-1]
            assert (int(r["goal"]), r["bk"].split("|")[:2]) == (mine.goal, [str(mine.goal), mine.why]), (n, r["bk"])
            self.chosen.append(mine.why)
            mine.opened = int(r["opened"])
            tickets = []
            for i in range(self.sim.p.places):
                answer = self.call("checkin", f"c{i}", f"u{n}-{i}")
                assert answer[0] == "SELECTED"
                self.sim.checkin(f"c{i}")
                tickets.append((f"c{i}", answer[4], n))
            self.rng.shuffle(tickets)
            tickets.sort(key=lambda t: t[0] == "c0")  # a slow one
            wanted = self.rng.choice([mine.goal, mine.goal, self.sim.p.quorum])
            while tickets and mine.open and len(self.rows) < wanted:
                if late and self.rng.random() < 0.5:
                    self.commit(*late.pop(0))
                else:
                    self.commit(*tickets.pop(0))
                time.sleep(self.rng.random() * 0.002)
            late += tickets
            if mine.open:
                if int(r["deadline"]) - int(r["opened"]) == 4:
                    until("the deadline", lambda n=n: self.call("deadline", "5|o", n, 0)[0] != "EARLY", 20, 0.002)
                    took = int(self.round(n)["closed"]) - mine.opened
                    for i in range(len(mine.rows) + 1, self.sim.p.places + 1):
                        self.sim.backup.time(i, took)
                else:
                    assert self.call("deadline", "5|o", n, 2)[0] == "closing"
                self.sim.close()
            self.publish(n)

    def publish(self, n):
        w = sum(units for _, units in self.rows)
        mean = sum(x * units for x, units in self.rows) / w
        assert self.call("task_done", n, len(self.rows), int(w * UNIT), f"m{n}", "n1", "",
                         f"{float(mean @ mean):.17g}")[0] == "OK"
        assert self.call("publish", "5|o", n, n - 1, f"m{n}", 40)[0] == "OK"


def test_decisions_are_the_references(redis):  # noqa: F811
    seen = set()
    for seed in range(TRACES):
        trace = Trace(redis, seed)
        trace.go()
        seen |= set(trace.chosen)
    assert seen == {"learning", "rate", "no-gain"}


def test_a_sample_by_count_has_so_many(redis):  # noqa: F811
    spec = {"sync": {"sampling": {"count": 4, "seed": 7}}}
    redis("FLUSHALL")

    def fcall(name, *args):
        return redis("FCALL", "trib_" + name, 1, JOB, *args)

    fcall("job_create", "5|o", "job_x", "x", json.dumps(spec), 4, 1, 20, 100000, 60000, 1000)
    fcall("model_init", "d0", 40, SIZE, "{}")
    fcall("job_set", "5|o", "created", "running", "")
    samples, times = set(), dict.fromkeys(range(12), 0)
    for i in range(12):
        assert fcall("checkin", f"c{i}", "u")[1] == "noround"  # they are known from now on
    for n in range(1, 61):
        fcall("round_open", "5|o", n, n - 1, 4, 1, 20, 100000)
        got = [i for i in range(12) if fcall("checkin", f"c{i}", f"u{n}-{i}")[0] == "SELECTED"]
        assert len(got) == 4
        assert fcall("checkin", f"new{n}", "u")[1] == "not-sampled"  # in the next one at the earliest
        redis("HDEL", "trib:{job_x}:known", f"new{n}")
        samples.add(tuple(got))
        for i in got:
            times[i] += 1
        fcall("commit", f"c{got[0]}", f"u{n}-{got[0]}", n, "d", 1 << 20, "n1:b1:1:1", "n1")
        fcall("deadline", "5|o", n, 2)
        fcall("task_done", n, 1, 1 << 20, f"m{n}", "n1", "")
        assert fcall("publish", "5|o", n, n - 1, f"m{n}", 40)[0] == "OK"
    assert len(samples) > 40 and min(times.values()) > 5, (len(samples), times)


def spec_of(goal, **sync):
    return {"sync": {"goal": goal, "quorum": 1, "over_select": 1.0, "backup": {"kind": "dbw", "alpha": 1.0}, **sync}}


def update(client, n, size, noise):
    """A direction that all have in common, and a little noise: whom one waits for adds nothing."""
    rng = np.random.default_rng([client, n])
    return (0.01 + noise * rng.standard_normal(size)).astype(np.float32)


def put(job, client, ticket, noise=0.001):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            status, _, answer = job.put(client, ticket, body_of(update(client, ticket["round"], job.size, noise)), 2.0)
        except (OSError, http.client.HTTPException):
            continue
        if status not in (429, 503):
            return status, answer
        time.sleep(0.1)
    raise AssertionError("no answer")


def test_slow_clients_are_not_waited_for(node):
    job = Job(node, size=20000, clients=5, rounds=50, seed=91, spec=spec_of(5))  # more than is taken unasked
    first = job.round(1)
    assert first["goal"] == 5 and first["backup"]["why"] == "learning" and first["backup"]["at_least"] == 2
    for n in (1, 2):
        tickets = {c: job.selected(c) for c in range(5)}
        answers = []
        for c in (3, 1, 0, 2, 4):
            if (n, c) == (1, 4):
                time.sleep(1.5)
            answers.append(put(job, c, tickets[c]))
        wanted = job.round(n)["goal"]
        assert [status for status, _ in answers] == [201] * wanted + [409] * (5 - wanted), answers
        until("the next round", lambda n=n: job.get()["status"]["round"] > n, 60)
    r = job.round(2)
    assert r["goal"] < 5 and r["backup"]["why"] == "rate" and r["accepted"] == r["goal"], r
    assert r["backup"]["times_ms"]["5"] >= 1500 + r["backup"]["ms"]
    x = [update(c, 1, 20000, 0.001).astype(np.float64) for c in range(5)]
    mean = sum(x) / 5
    variance = sum(((v - mean) ** 2).sum() for v in x) / 4
    assert abs(r["backup"]["variance"] / variance - 1) < 1e-6
    assert abs(r["backup"]["expected"] / ((mean ** 2).sum() - variance / 5) - 1) < 1e-6
    listed = call(node.api, "GET", f"/v1/jobs/{job.id}/rounds?limit=5")["items"]
    assert {"k": r["goal"], "why": "rate"}.items() <= next(x for x in listed if x["round"] == 2)["backup"].items()
    job.delete()


def test_patched_in_and_out(node):
    job = Job(node, size=300, clients=4, rounds=50, seed=92, goal=3, quorum=1)
    assert "backup" not in job.round(1) and job.round(1)["goal"] == 3
    ticket = job.selected(0)
    assert put(job, 0, ticket)[0] == 201
    patch(job, {"sync": {"backup": {"kind": "dbw"}}})
    r = job.round(1)
    assert r["goal"] == 4 and r["backup"]["why"] == "learning"  # all that are selected
    for c in (1, 2, 3):
        assert put(job, c, job.selected(c))[0] == 201
    until("round 2", lambda: job.get()["status"]["round"] == 2, 60)
    assert job.round(1)["accepted"] == 4 and job.round(2)["backup"]["why"] == "learning"  # one came without its norm
    for c in range(4):
        assert put(job, c, job.selected(c))[0] == 201
    until("round 3", lambda: job.get()["status"]["round"] == 3, 60)
    assert job.round(3)["backup"]["why"] == "rate"
    for c in (0, 1):
        job.selected(c)
    patch(job, {"sync": {"backup": {"kind": "none"}}})
    assert job.round(3)["goal"] == 3 and "backup" not in job.round(3)
    patch(job, {"mode": "async", "async": {"buffer_k": 2, "concurrency": 4}})
    patch(job, {"mode": "sync", "sync": {"backup": {"kind": "dbw"}}})
    until("learning again", lambda: job.round(job.get()["status"]["round"])["backup"]["why"] == "learning", 60)
    job.delete()


def test_what_dbw_needs_is_said(node):
    def pointers(sync, **more):
        doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "x"},
               "spec": {"sync": sync, **more}}
        status, _, data = request(node.api, "POST", "/v1/jobs:validate", doc)
        return status, [e["pointer"] for e in json.loads(data).get("errors", [])]

    dbw = {"goal": 4, "quorum": 2, "backup": {"kind": "dbw"}}
    assert pointers(dbw)[0] == 200
    assert pointers({**dbw, "quorum": 4})[1] == ["/spec/sync/backup/kind"]
    assert pointers({**dbw, "goal": 5000})[1] == ["/spec/sync/backup/kind"]
    assert pointers(dbw, aggregation={"input": "weights"})[1] == ["/spec/sync/backup/kind"]
    assert pointers({**dbw, "backup": {"kind": "dbw", "step": 1}}, aggregation={"denominator": "count"})[1] == \
        ["/spec/sync/backup/step"]
    assert pointers({"goal": 4, "sampling": {"count": 3}})[1] == ["/spec/sync/sampling/count"]
    assert pointers({"goal": 4, "sampling": {"count": 5, "fraction": 0.5}})[1] == ["/spec/sync/sampling/count"]


def test_a_dead_gateway_leaves_the_norm():
    with Node() as node:
        job = Job(node, size=20000, clients=3, rounds=5, seed=93, spec=spec_of(3, late="next", staleness={"fn": "const"}))
        tickets = [job.selected(c) for c in range(2)]
        assert put(job, 0, tickets[0])[0] == 201
        call(node.api, "POST", f"/v1/jobs/{job.id}:pause")
        call(node.api, "POST", f"/v1/jobs/{job.id}/rounds/1:close", {"force": True})
        until("version 1", lambda: job.version() == 1, 60)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(put(job, 1, tickets[1])))
        thread.start()
        until("the commit waits", lambda: node.metric("gateway", "tributary_commits_late_waits_total") > 0, 60)
        node.kill("gateway")  # the agent asks for its slot
        until("ready again", node.ready, 60)
        call(node.api, "POST", f"/v1/jobs/{job.id}:resume")
        thread.join(90)
        assert answers and answers[0][0] in (200, 201) and answers[0][1]["counted_in"] == 2, answers
        key = f"trib:{{{job.id}}}:r:2"
        want = 2.0 * float((update(1, 1, 20000, 0.001).astype(np.float64) ** 2).sum())
        assert node.redis("HGET", key, "nn") == "1"
        assert abs(float(node.redis("HGET", key, "ns")) / want - 1) < 1e-12
