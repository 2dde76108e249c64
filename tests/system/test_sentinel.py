# SPDX-License-Identifier: Apache-2.0
"""Redis with Sentinels (docs/adr/0007-failover.md): a real one with two replicas, on loopback. The master is killed
or frozen while clients train; what was acknowledged still counts, once, and the model has the same bits."""
import http.client
import os
import signal
import sys
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import chaos  # noqa: E402
from cluster import Job, Node, until  # noqa: E402
from sentinel import Sentinels  # noqa: E402


@pytest.fixture(scope="module")
def sentinels():
    with Sentinels() as s:
        yield s


@pytest.fixture(scope="module")
def node(sentinels):
    with Node("--redis", sentinels.address, env={"TRIBUTARY_TEST_FOLD_DELAY_US": "800"}) as n:
        n.redis = sentinels.cli
        yield n


def epoch(sentinels):
    return int(sentinels.cli("GET", "trib:fence"))


def train(node, seed, disturb, clients=6, rounds=3):
    """Clients train a job while `disturb` does its work; all rounds are judged."""
    job = Job(node, size=20000, clients=clients, rounds=rounds, seed=seed)
    crew = [chaos.Client(job, c, seed + c, 0, 150) for c in range(clients)]
    for c in crew:
        c.start()
    try:
        disturb(crew)
    finally:
        for c in crew:
            c.join(160)
    errors = [c.error for c in crew if c.error or c.is_alive()]
    if errors:
        print(node.logs())
    assert not errors, errors
    base = job.base
    for n in range(1, rounds + 1):
        record = chaos.asked(node, f"/v1/jobs/{job.id}/rounds/{n}")
        assert (record["state"], record["accepted"], record["lost"]) == ("published", clients, 0), record
        assert all(n in c.receipts for c in crew)
        model = job.published(n, timeout=30)
        job.check(model, n, base)
        base = model
    job.delete()


def test_a_killed_master_loses_no_receipt_and_repeats_no_epoch(sentinels, node):
    sentinels.whole()
    before, config = epoch(sentinels), sentinels.config_epoch()

    def disturb(crew):
        until("some receipts", lambda: sum(len(c.receipts) for c in crew) >= 3, 30, 0.001)
        sentinels.fail_over()
    train(node, 701, disturb, rounds=6)
    after = epoch(sentinels)
    assert after > before and after > (config + 1) * 10**9, (before, config, after)
    names = sentinels.cli("FUNCTION", "LIST", "LIBRARYNAME", "tributary")
    assert "trib_commit" in names


def test_a_frozen_master_that_comes_back_changes_nothing(sentinels, node):
    sentinels.whole()
    old = sentinels.master()

    def disturb(crew):
        until("some receipts", lambda: sum(len(c.receipts) for c in crew) >= 2, 30, 0.001)
        sentinels.kill(old, signal.SIGSTOP)
        try:
            until("another master", lambda: sentinels.master() not in (None, old), 60, 0.1)
        finally:
            sentinels.kill(old, signal.SIGCONT)
    train(node, 702, disturb, rounds=4)
    assert sentinels.master() != old


def upload(job, ticket, told):
    """The first client's update, again and again until there is a receipt; then told() is called."""
    while True:
        try:
            status = job.put(0, ticket, timeout=60)[0]
        except (OSError, http.client.HTTPException):
            continue
        if status in (200, 201):
            told()
            return


def test_nothing_is_acknowledged_that_no_replica_has(sentinels, node):
    sentinels.whole()
    job = Job(node, size=5000, clients=1, seed=703)
    ticket = job.selected(0)
    master = sentinels.master()
    others = [i for i in range(3) if i != master]
    answer = []
    thread = threading.Thread(target=upload, args=(job, ticket, lambda: answer.append(True)))
    for i in others:
        sentinels.kill(i, signal.SIGSTOP)
    try:
        thread.start()
        time.sleep(1.5)
        assert not answer
    finally:
        for i in others:
            sentinels.kill(i, signal.SIGCONT)
    thread.join(60)
    assert answer
    job.check(job.published(1, timeout=30))
    job.delete()


def test_a_replica_that_may_be_promoted_is_waited_for(sentinels, node):
    """A master that was frozen does not know that one of its replicas was promoted meanwhile; the other one, which
    follows it for a second more, would confirm what it is about to lose (`make chaos`, seed 8165)."""
    sentinels.whole()
    sentinels.patience(600000)  # on a starved machine a replica may be called down, and need not be waited for..
    time.sleep(6.5)  # ..for some seconds (SHORT_MS of common/redis.c): those of the tests before are over
    job = Job(node, size=5000, clients=1, seed=704)
    ticket = job.selected(0)
    master = sentinels.master()
    promoted = next(i for i in range(3) if i != master)
    answer, took = [], []

    def told():
        took.append(time.monotonic() - began)
        answer.append(True)

    thread = threading.Thread(target=upload, args=(job, ticket, told))
    began = time.monotonic()
    sentinels.ask(sentinels.ports[promoted], "REPLICAOF", "NO", "ONE")  # as Sentinel does, which has not said so yet
    try:
        assert sentinels.replicas(master) == 1 and sentinels.master() == master
        thread.start()
        time.sleep(1.5)
        assert not answer or took[0] >= 2.9, took  # LAG_MS; this machine may have slept longer than asked
    finally:
        sentinels.ask(sentinels.ports[promoted], "REPLICAOF", "127.0.0.1", sentinels.ports[master])
        sentinels.patience(sentinels.down_after_ms)
    thread.join(60)
    assert answer
    job.check(job.published(1, timeout=30))
    job.delete()


def test_a_dead_replica_is_waited_for_no_longer_than_sentinel_takes(sentinels, node):
    sentinels.whole()
    job = Job(node, size=5000, clients=2, seed=705)
    dead = next(i for i in range(3) if i != sentinels.master())
    sentinels.kill(dead)
    try:
        for client in range(2):
            assert job.put(client, job.selected(client), timeout=60)[0] == 201
        job.check(job.published(1, timeout=30))
    finally:
        sentinels.whole()
    job.delete()


def test_an_epoch_the_new_master_never_heard_of_is_not_handed_out_again(sentinels, node):
    """The hazard of a plain counter (INCR lost in a fail-over), at the function itself."""
    def take(who, config):
        return sentinels.cli("FCALL", "trib_lease_take", 2, "t:lease", "t:fence", who, 60000, config).split("\n")

    sentinels.whole()
    assert take("a", 4)[0] == "4000000001"
    assert take("a", 4) == ["4000000001", "0"]
    assert take("b", 5)[:3] == ["0", "0", "a"]
    assert take("a", 5) == ["5000000001", "1"]  # the same holder after a fail-over: not the same epoch
    assert take("a", 5) == ["5000000001", "0"]
    sentinels.cli("DEL", "t:lease")
    assert take("b", 5) == ["5000000002", "1"]
    sentinels.cli("DEL", "t:lease", "t:fence")
