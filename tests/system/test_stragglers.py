# SPDX-License-Identifier: Apache-2.0
"""30 % of the clients die silently, 20 % are slow: a synchronous round closes when it should, an asynchronous job does
not wait. How late is printed here; `make bench-stragglers` demands 100 ms."""
import pytest

from cluster import Job, Node, until

CLIENTS, SILENT, SLOW = 10, 3, 2


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def record(node, job, n=1):
    words = node.redis("HGETALL", f"trib:{{{job.id}}}:r:{n}").split()
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
