# SPDX-License-Identifier: Apache-2.0
"""kill -9 of every process in the middle of a round under load: the round completes after the supervisor's restart,
nothing lost, nothing counted twice, the same bits as the undisturbed round."""
import os
import random
import signal
import threading
import time

import pytest

from cluster import Job, Node, call, until

SIZE, CLIENTS = 120000, 24


@pytest.fixture(scope="module")
def node():
    # A pause after every chunk of a fold, so that a kill can meet one half-way.
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "1500"}) as n:
        yield n


def functions(node, job):
    found = [j for j in node.state()["jobs"] if j["job"] == job.id]
    return [f for f in found[0]["functions"] if f["pid"]] if found else []


def kill_aggregator(node, job, rng):
    pids = until("a live function", lambda: [f["pid"] for f in functions(node, job)], 1)  # else the round may be over
    os.kill(rng.choice(pids), signal.SIGKILL)


def killer(name):
    return lambda node, job, rng: node.kill(name)


VICTIMS = {
    "aggregator": kill_aggregator,
    "gateway": killer("gateway"),
    "agent": killer("agent"),
    "orchestrator": killer("orchestrator"),
    "redis": killer("redis"),
    "agent-and-gateway": lambda node, job, rng: (node.kill("agent"), node.kill("gateway")),
    "zygote": lambda node, job, rng: os.kill(until("a zygote", lambda: node.state()["zygote_pid"], 10), signal.SIGKILL),
}


def disturbed_round(node, victim, seed, leaves, kills=2):
    rng = random.Random(seed)
    job = Job(node, size=SIZE, clients=CLIENTS, leaves=leaves, seed=seed)
    done = threading.Event()
    failures = []

    def load():
        try:
            failures.extend(() if len(job.report_all(threads=4, timeout=60)) == CLIENTS else ["receipts missing"])
        except BaseException as e:  # noqa: BLE001 - told below
            failures.append(e)
        done.set()

    thread = threading.Thread(target=load)
    thread.start()
    killed = 0
    while killed < kills and not done.is_set():
        time.sleep(rng.uniform(0.02, 0.25))
        try:
            VICTIMS[victim](node, job, rng)
            killed += 1
        except (OSError, AssertionError, TypeError, KeyError):
            continue
        until("node ready again", node.ready, 20)
    thread.join(120)
    assert not thread.is_alive() and not failures, failures
    model = job.published(1, timeout=60)
    record = job.round(1)
    assert record["accepted"] == CLIENTS and record["state"] == "published", record
    job.check(model)
    return job


@pytest.mark.parametrize("victim", list(VICTIMS))
def test_the_round_survives_the_death_of(node, victim):
    for seed, leaves in ((100, 1), (101, 2)):
        job = disturbed_round(node, victim, seed + 10 * list(VICTIMS).index(victim), leaves)
        job.delete()


def test_a_function_killed_in_mid_fold_loses_and_doubles_nothing(node):
    job = Job(node, size=600000, clients=CLIENTS, leaves=1, seed=300)
    before = node.metric("agent", "tributary_agg_crashes_total")
    thread = threading.Thread(target=job.report_all)
    thread.start()
    end = time.monotonic() + 40
    kills = 0
    while kills < 6 and time.monotonic() < end and job.version() < 1:
        for f in functions(node, job):
            try:
                os.kill(f["pid"], signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
        time.sleep(0.06)
    thread.join(60)
    job.check(job.published(1, timeout=60))
    assert kills >= 2
    assert node.metric("agent", "tributary_agg_crashes_total") - before >= 2
    job.delete()


def test_the_agent_killed_after_slots_were_freed_keeps_their_sum(node):
    """Half of the round is folded and its slots are free again; only the partials hold it. Agent dies."""
    job = Job(node, size=SIZE, clients=8, leaves=2, seed=301)
    for c in range(4):
        job.report(c)

    def folded():
        found = [j for j in node.state()["jobs"] if j["job"] == job.id]
        return found and found[0]["folded"] == 4 and found[0]["slots"]["claimed"] == 0
    until("four folded", folded, 15)
    node.kill("agent")
    until("node ready again", node.ready, 20)
    for c in range(4, 8):
        job.report(c)
    job.check(job.published(1, timeout=40))
    job.delete()


def test_the_whole_node_killed_declares_its_updates_lost_and_asks_again():
    """Supervisor, keeper and all: shared memory is gone. What was accepted is declared lost, clients report again."""
    with Node() as node:
        job = Job(node, size=5000, clients=6, seed=302)
        for c in range(3):
            job.report(c)
        assert job.round(1)["accepted"] == 3
        node.kill_everything()
        node.start()
        assert job.get()["status"]["phase"] == "Running"
        receipts = job.report_all(timeout=60)
        assert len(receipts) == 6
        job.check(job.published(1, timeout=40))
        record = job.round(1)
        assert record["lost"] == 3 and record["accepted"] == 6, record
        events = call(node.api, "GET", f"/v1/jobs/{job.id}")
        assert events["status"]["version"] == 1
