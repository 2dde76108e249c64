# SPDX-License-Identifier: Apache-2.0
"""An update whose folding kills its function, every time: it is taken out of its round, which goes on, and nothing else
is lost or counted twice. What kills is a chunk that begins with certain bits (a test option of the agent)."""
import os
import signal
import threading
import time

import numpy as np
import pytest

from cluster import Job, Node, call, until

BITS = 0x41424344
MARK = np.array([BITS], "<u4").view("<f4")[0]
CHUNK = 8192
SIZE, CLIENTS, DEADLY = 3 * CHUNK + 100, 8, 3


@pytest.fixture(scope="module")
def node():
    with Node("--leaves-max", "2", env={"TRIBUTARY_TEST_POISON_BITS": str(BITS),
                                       "TRIBUTARY_TEST_FOLD_DELAY_US": "1000"}) as n:
        yield n


class DeadlyJob(Job):
    """Client DEADLY's update of round 1 kills in the chunk that is said."""

    def __init__(self, node, chunk, **how):
        self.chunk = chunk
        super().__init__(node, **how)

    def update(self, client, round_number=1):
        x, w = super().update(client, round_number)
        if client == DEADLY and round_number == 1:
            x[self.chunk * CHUNK] = MARK
        return x, w


def all_but_one(job):
    return [c for c in range(job.clients) if c != DEADLY]


def quarantined(job, n=1):
    return until("it is quarantined", lambda: job.round(n).get("quarantined"), 60)


def check_record(job, n=1):
    found = quarantined(job, n)
    assert found["count"] == 1 and found["items"][0]["client"] == f"c-{DEADLY}", found
    assert "killed" in found["items"][0]["why"] and found["items"][0]["node"] == "n1", found
    return found["items"][0]


def close(job):
    """The goal is out of reach: as its deadline would do."""
    until("all others are there", lambda: job.round()["accepted"] == CLIENTS - 1, 60)
    call(job.node.api, "POST", f"/v1/jobs/{job.id}/rounds/1:close", expect=(200, 202, 409))


@pytest.mark.parametrize("chunk, leaves, accumulate", ((2, 2, "exact"), (1, 1, "f32")))
def test_the_round_goes_on_without_it(node, chunk, leaves, accumulate):
    job = DeadlyJob(node, chunk, size=SIZE, clients=CLIENTS, quorum=CLIENTS - 1, leaves=leaves, rounds=2,
                    seed=900 + chunk + 10 * leaves, spec={"sync": {"deadline_s": 600}, "aggregation": {"accumulate": accumulate}})
    before = node.metric("agent", "tributary_updates_quarantined_total")
    job.report(0)  # a sum is there already when it comes: what it has done to that is taken out
    job.report(1)
    receipts = job.report_all(order=[DEADLY, 2, 4, 5, 6, 7])
    assert len(receipts) == CLIENTS - 2
    check_record(job)
    close(job)
    model = job.published(1, timeout=90)
    record = job.round(1)
    assert record["accepted"] == CLIENTS - 1 and record["state"] == "published", record
    if accumulate == "exact":
        job.check(model, counted=all_but_one(job))
    else:
        total = sum(w * x.astype(np.float64) for x, w in map(job.update, all_but_one(job)))
        mean = total / sum(job.update(c)[1] for c in all_but_one(job))
        assert np.max(np.abs(model - job.base - mean)) < 1e-3
    assert node.metric("agent", "tributary_updates_quarantined_total") == before + 1
    # Its client takes part in the next round.
    job.report_all()
    second = job.published(2, timeout=90)
    if accumulate == "exact":
        job.check(second, round_number=2, base=model)
    assert job.round(2)["accepted"] == CLIENTS and "quarantined" not in job.round(2)


def test_its_client_is_told(node):
    """The same upload again is no receipt any more, and a check-in in this round says that it has reported."""
    job = DeadlyJob(node, 0, size=SIZE, clients=4, goal=4, quorum=4, seed=950, spec={"sync": {"deadline_s": 600}})
    ticket = job.selected(DEADLY)
    assert job.put(DEADLY, ticket)[0] == 201
    check_record(job)
    status, _, answer = until("answered", lambda: (lambda a: a[0] != 503 and a)(job.put(DEADLY, ticket)), 30)
    assert status == 409, (status, answer)
    assert job.checkin(DEADLY)["status"] == "wait"
    assert job.round(1)["accepted"] == 0 and job.round(1)["state"] == "open"
    updates = [u for u in node.redis("HVALS", f"trib:{{{job.id}}}:r:1:upd").split("\n") if u]
    assert len(updates) == 1 and updates[0].endswith("|!"), updates
    job.delete()


def test_a_buffer_is_aggregated_without_it(node):
    job = DeadlyJob(node, 1, size=SIZE, clients=CLIENTS, goal=CLIENTS, seed=960,
                    spec={"mode": "async", "async": {"buffer_k": CLIENTS, "max_staleness": 5,
                                                     "staleness": {"fn": "const"}}})
    job.report_all()
    model = job.published(1, timeout=90)
    check_record(job)
    assert job.round(1)["accepted"] == CLIENTS - 1, job.round(1)
    job.check(model, counted=all_but_one(job))
    job.delete()


def test_the_agent_is_killed_all_the_while(node):
    """Whatever it knew of deaths is forgotten each time; what it has written into the slot is not."""
    job = DeadlyJob(node, 2, size=SIZE, clients=CLIENTS, goal=CLIENTS, quorum=CLIENTS - 1, seed=970,
                    spec={"sync": {"deadline_s": 600}})
    job.report(0)
    crew = threading.Thread(target=job.report_all, kwargs={"order": [DEADLY, 1, 2, 4, 5, 6, 7], "timeout": 90})
    crew.start()
    for pause in (0.2, 0.6):
        time.sleep(pause)
        node.kill("agent", signal.SIGKILL)
        until("the agent is back", node.ready, 30)
    crew.join(120)
    check_record(job)
    close(job)
    model = job.published(1, timeout=120)
    assert job.round(1)["accepted"] == CLIENTS - 1
    job.check(model, counted=all_but_one(job))


def test_a_killed_function_is_no_poison(node):
    """Whoever is killed from outside, again and again, has folded nothing that kills."""
    job = Job(node, size=400 * CHUNK, clients=2, seed=980)
    ended = threading.Event()

    def kill():
        while not ended.wait(0.03):
            for f in (f for j in node.state()["jobs"] if j["job"] == job.id for f in j["functions"] if f["pid"]):
                try:
                    os.kill(f["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass
    killer = threading.Thread(target=kill)
    crashes = node.metric("agent", "tributary_agg_crashes_total")
    killer.start()
    try:
        job.report_all()
        until("many deaths", lambda: node.metric("agent", "tributary_agg_crashes_total") > crashes + 4, 60)
    finally:
        ended.set()
        killer.join()
    job.check(job.published(1, timeout=60))
    assert "quarantined" not in job.round(1)
