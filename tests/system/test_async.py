# SPDX-License-Identifier: Apache-2.0
"""Asynchronous jobs (FedBuff): decisions and bits against an independent reference that is fed the same trace."""
import concurrent.futures
import http.client
import math
import random
import re
import threading
import time

import numpy as np
import pytest

from cluster import Job, Node, body_of, call, until


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def discount(fn, alpha, after, tau):
    if fn == "const":
        return 1.0
    if fn == "poly":
        return (1 + tau) ** -alpha
    return 1.0 if tau <= after else 1.0 / (alpha * (tau - after) + 1)


class AsyncJob(Job):
    def __init__(self, node, seed, k=4, concurrency=64, rounds=1000, staleness=None, denominator="weight_sum", lr=1.0,
                 max_staleness=20, flush=120, size=2000, leaves=0, hierarchy=None):
        self.fn = {"fn": "poly", "alpha": 0.5, "after": 0, **(staleness or {})}
        self.k, self.denominator, self.lr = k, denominator, lr
        super().__init__(node, size=size, clients=concurrency, rounds=rounds, seed=seed, leaves=leaves, spec={
            "mode": "async", "async": {"buffer_k": k, "concurrency": concurrency, "max_staleness": max_staleness,
                                       "staleness": self.fn, "flush_timeout_s": flush, "client_timeout_s": 60},
            "aggregation": {"denominator": denominator, "server_opt": {"kind": "sgd", "lr": lr}},
            "hierarchy": hierarchy or {}})
        until("first buffer", lambda: self.get()["status"]["round"] == 1)

    def counted(self, weight, tau):
        """The fixed-point weight that counts."""
        fx = int(np.rint(weight * 2.0**20))
        s = discount(self.fn["fn"], self.fn["alpha"], self.fn["after"], tau)
        return max(1, math.floor(fx * s + 0.5))

    def apply(self, model, buffer):
        """buffer: [(vector, raw weight, counted fixed-point weight)] -> next model, by integers."""
        total, by_weight, raw = np.zeros(self.size, np.int64), 0, 0
        for x, w, fx in buffer:
            total += np.rint((fx / 2.0**20) * x.astype(np.float64) * 2.0**self.bits).astype(np.int64)
            by_weight, raw = by_weight + fx, raw + int(np.rint(w * 2.0**20))
        divisor = {"weight_sum": by_weight, "count": len(buffer) << 20, "weight_sum_raw": raw}[self.denominator]
        mean = total.astype(np.float64) * 2.0**-self.bits / (divisor / 2.0**20)
        return (model.astype(np.float64) + self.lr * mean).astype(np.float32)

    def settled(self, version):
        until(f"version {version}", lambda: self.version() >= version, 20)


CASES = [
    ({"fn": "poly", "alpha": 0.5}, "weight_sum", 1.0),
    ({"fn": "poly", "alpha": 0.5}, "count", 1.0),
    ({"fn": "poly", "alpha": 1.0}, "weight_sum_raw", 0.5),
    ({"fn": "const"}, "count", 0.25),
    ({"fn": "hinge", "alpha": 0.5, "after": 1}, "weight_sum", 1.0),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("seed", range(4))
def test_random_traces_match_the_reference(node, case, seed):
    staleness, denominator, lr = CASES[case]
    rng = random.Random(1000 * case + seed)
    k, limit = rng.randint(1, 5), rng.choice([1, 2, 20])
    job = AsyncJob(node, seed=2000 + 10 * case + seed, k=k, staleness=staleness, denominator=denominator, lr=lr,
                   max_staleness=limit, leaves=rng.choice([0, 1, 2]))
    model, version, buffer, out, idle = job.base, 0, [], {}, list(range(12))
    published = 0
    for step in range(60):
        if idle and (not out or rng.random() < 0.5):
            client = idle.pop(rng.randrange(len(idle)))
            ticket = job.checkin(client)
            if ticket["status"] != "selected":  # (client, base) counts once
                assert ticket["why"] == "reported", ticket
                idle.append(client)
                continue
            assert ticket["base_version"] == version, ticket
            out[client] = (ticket, step)
            continue
        client = rng.choice(list(out))
        ticket, when = out.pop(client)
        x, w = job.update(client, 100 + when)
        tau = version - ticket["base_version"]
        status, _, receipt = job.put(client, ticket, body_of(x), w)
        idle.append(client)
        if tau > limit:
            assert status == 409 and receipt["code"] == "stale", (tau, receipt)
            continue
        assert status == 201, receipt
        fx = job.counted(w, tau)
        assert receipt["weight_used"] == fx / 2.0**20 and receipt["counted_in"] == published + 1, (receipt, fx)
        buffer.append((x, w, fx))
        if len(buffer) == k:
            model, buffer, version, published = job.apply(model, buffer), [], version + 1, published + 1
            job.settled(version)
            got = job.published(version)
            assert np.array_equal(got.view(np.uint32), model.view(np.uint32)), (case, seed, version)
    assert version >= 2
    job.delete()


def check_versions(node, job, sent, versions):
    """Every version is what Redis says that it counted, applied one after the other. sent: update -> (vector, weight)"""
    model = job.base
    for n in range(1, versions + 1):
        buffer = []
        for record in node.redis("HVALS", f"trib:{{{job.id}}}:r:{n}:upd").splitlines():
            _, update, _, _, counted, _ = record.split("|", 5)
            buffer.append((*sent[update], int(counted)))
        assert len(buffer) == job.k, n
        model = job.apply(model, buffer)
        assert np.array_equal(job.published(n).view(np.uint32), model.view(np.uint32)), n


def test_nobody_waits_and_every_record_is_in_the_model(node):
    """Concurrent clients, no pauses: what Redis says it counted is exactly what each version is made of."""
    job = AsyncJob(node, seed=2100, k=5, size=20000, rounds=12)
    stop, sent, failures = threading.Event(), {}, []

    def client(c):
        n = 0
        while not stop.is_set():
            try:
                ticket = job.checkin(c, wait=2)
                if ticket["status"] == "done":
                    return
                if ticket["status"] != "selected":
                    continue
                n += 1
                x, w = job.update(c, 500 + n)
                status, _, receipt = job.put(c, ticket, body_of(x), w)
                while status == 503 and not stop.is_set():  # told to send it again
                    time.sleep(min(0.2, receipt.get("retry_after", 0.2)))
                    status, _, receipt = job.put(c, ticket, body_of(x), w)
                if status == 201:
                    sent[receipt["update"]] = (x, w)
                elif receipt.get("code") not in ("stale", "round-closed", "job-not-running", "arena-full",
                                                  "unavailable"):
                    failures.append(receipt)
            except Exception as e:  # noqa: BLE001 - told below
                failures.append(e)
                return

    crew = [threading.Thread(target=client, args=(c,)) for c in range(8)]
    for t in crew:
        t.start()
    until("twelve versions", lambda: job.version() >= 12, 60)
    stop.set()
    for t in crew:
        t.join(30)
    assert not failures, failures[:3]
    assert call(node.api, "GET", f"/v1/jobs/{job.id}/rounds/12/updates?limit=500")
    check_versions(node, job, sent, 12)
    assert job.get()["status"]["phase"] == "Succeeded"
    job.delete()


def test_the_tree_grows_and_shrinks_while_buffers_close():
    """Bursts and single updates in turn: the plan follows them, and the models are those of one function."""
    with Node("--leaves-max", "6", "--credit", "2", env={"TRIBUTARY_TEST_FOLD_DELAY_US": "2000"}) as node:
        job = AsyncJob(node, seed=2150, k=5, size=40000, rounds=1000, hierarchy={"fan_in": 2, "replan_ms": 10})
        sent, lock, end = {}, threading.Lock(), time.monotonic() + 90

        def one(client, number):
            x, w = job.update(client, 700 + number)
            body, ticket, status = body_of(x), None, 0
            while status != 201:
                assert time.monotonic() < end, plans()
                try:
                    ticket = ticket or job.checkin(client, wait=2)
                    if ticket["status"] == "selected":
                        status, _, receipt = job.put(client, ticket, body, w)
                        ticket = None if receipt.get("code") in ("stale", "not-selected") else ticket
                    else:
                        ticket = None
                except AssertionError as e:
                    assert ": 503 " in str(e), (e, plans())
            with lock:
                sent[receipt["update"]] = (x, w)

        def plans():
            return [int(n) for n in re.findall(r'event=plan [^"]*why=\\?"(\d+) lea', node.logs(1 << 20))]

        turn = 0
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            while turn < 3 or max(plans()) < 3 or min(plans()[plans().index(max(plans())):]) > 1:
                assert time.monotonic() < end, plans()
                list(pool.map(one, range(12), [2 * turn] * 12))
                job.settled(len(sent) // job.k)  # receipts come before the folding
                for client in (20 + turn % 10, 30 + turn % 10, 40 + turn % 10):
                    one(client, 2 * turn + 1)
                turn += 1
        versions = len(sent) // job.k
        job.settled(versions)
        check_versions(node, job, sent, versions)
        grown = plans()
        assert any(a < b for a, b in zip(grown, grown[1:])) and any(a > b for a, b in zip(grown, grown[1:])), grown
        assert node.metric("agent", "tributary_agg_merged_total") > 0  # leaves handed over
        job.delete()


def test_a_buffer_that_does_not_fill_is_flushed_in_time(node):
    job = AsyncJob(node, seed=2200, k=50, flush=0.8)
    time.sleep(1.2)
    assert job.version() == 0  # empty buffers wait on
    ticket = job.checkin(1)
    x, w = job.update(1, 1)
    job.put(1, ticket)
    began = time.monotonic()
    job.settled(1)
    assert time.monotonic() - began < 2.5
    exact = job.apply(job.base, [(x, w, job.counted(w, 0))])
    assert np.array_equal(job.published(1).view(np.uint32), exact.view(np.uint32))
    job.delete()


def test_concurrency_bounds_who_is_out(node):
    job = AsyncJob(node, seed=2300, concurrency=3)
    tickets = [job.checkin(c) for c in range(5)]
    assert [t["status"] for t in tickets] == ["selected"] * 3 + ["wait"] * 2
    assert tickets[3]["why"] == "full"
    job.put(0, tickets[0])
    assert job.checkin(4)["status"] == "selected"
    job.delete()


def test_replays_and_other_content_as_in_rounds(node):
    job = AsyncJob(node, seed=2400, k=3)
    ticket = job.checkin(0)
    _, _, first = job.put(0, ticket)
    status, _, again = job.put(0, ticket)
    assert status == 200 and again["digest"] == first["digest"]
    status, _, other = job.put(0, ticket, weight=3.0)
    assert status == 409 and other["code"] == "already-reported"
    assert job.round(1)["accepted"] == 1
    job.delete()


@pytest.mark.parametrize("victim", ["agent", "gateway", "orchestrator", "redis"])
def test_kill_in_mid_stream(node, victim):
    job = AsyncJob(node, seed=2500, k=4, size=60000)
    model, version = job.base, 0
    for b in range(4):
        buffer = []
        for c in range(4):
            client = 4 * b + c
            ticket = job.selected(client)
            x, w = job.update(client, ticket["round"])
            if c == 2:
                node.kill(victim)
            end = time.monotonic() + 30
            while True:
                assert time.monotonic() < end, plans()
                try:
                    status, _, receipt = job.put(client, ticket)
                    if status in (200, 201):
                        break
                except (OSError, http.client.HTTPException):
                    pass
                time.sleep(0.1)
            tau = version - ticket["base_version"]
            buffer.append((x, w, job.counted(w, tau)))
        model, version = job.apply(model, buffer), version + 1
        job.settled(version)
        assert np.array_equal(job.published(version).view(np.uint32), model.view(np.uint32)), version
        until("ready again", node.ready, 20)
    job.delete()
