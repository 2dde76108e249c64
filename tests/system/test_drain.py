# SPDX-License-Identifier: Apache-2.0
"""A node leaves in order, in the middle of a round: its share moves while the round is open, nothing is lost, nobody is
asked again; killed while it leaves, it is a node that died."""
import http.client
import os
import signal
import subprocess
import threading

import pytest

from cluster import Cluster, Job, call, request, until
from test_nodes import finish, moves, record, spread

LEASE_MS = 2500


def tributary(node, *words, timeout=90):
    done = subprocess.run([os.path.join(node.bin, "tributary"), *words], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stderr


def states(cluster):
    return {n["name"]: n["state"] for n in call(cluster.api, "GET", "/v1/nodes")["items"]}


def drain(cluster, name):
    assert tributary(cluster[0], "drain-node", name, "--api", cluster.api, "--wait", "60") == (0, "tributary: drained\n")
    assert states(cluster)[name] == "drained"


@pytest.fixture(scope="module")
def three():
    with Cluster(3, lease_ms=10000) as c:
        yield c


def test_a_share_moves_while_the_round_is_open(three):
    job = Job(three, size=30011, clients=12, rounds=2, seed=900, leaves=2)
    spread(job, three, [1, 2, 2, 3, 2, 2, 1])
    drain(three, "n2")
    r = record(three, job)
    assert r["state"] == "open" and r["acc"] == "7" and r["n:n2"] == "0" and int(r["n:n1"]) + int(r["n:n3"]) == 7, r
    assert len(moves(three, job)) == 1 and r["top"] in ("n1", "n3"), r
    ticket = job.checkin(7, via=three[1])  # whoever asks there is sent elsewhere
    assert ticket["status"] == "selected" and ticket["upload"]["url"].startswith("http://"), ticket
    assert not ticket["upload"]["url"].startswith(three[1].data), ticket
    assert job.put(7, ticket)[0] == 201
    old = job.checkin(8, via=three[0])
    until("taken", lambda: job.put(8, old, via=three[1])[0] == 201, 60, 0.2)  # who comes all the same loses nothing
    until("moved as well", lambda: record(three, job)["n:n2"] == "0" and states(three)["n2"] == "drained", 60)
    three[1].process.send_signal(signal.SIGTERM)
    three[1].process.wait(30)
    for client in (9, 10, 11):
        job.report(client, via=three[2 * (client % 2)])
    first = job.published(1)
    job.check(first)
    r = record(three, job)
    assert r["acc"] == "12" and r.get("lost", "0") == "0", r
    three[1].start()
    assert states(three)["n2"] == "up"
    spread(job, three, [2, 2, 2, 2, 2, 2, 1, 3, 1, 3, 2, 2])
    job.check(job.published(2, via=three[1]), 2, base=first)
    assert record(three, job, 2)["top"] == "n2"


def test_under_load_nobody_is_asked_again(three):
    """Clients of three rounds come by all gateways while n3 leaves and n3's agent is killed on the way."""
    job = Job(three, size=60000, clients=10, rounds=4, seed=901, spec={"hierarchy": {"shards": 2}})
    stop = threading.Event()

    def client(number):
        while not stop.is_set():
            try:
                via = three[number % 3]
                answer = job.checkin(number, wait=1, timeout=20, via=via if via.process.poll() is None else three[0])
                if answer["status"] == "selected":
                    job.put(number, answer, via=via if via.process.poll() is None else three[0])
                elif answer["status"] == "done":
                    return
            except (OSError, http.client.HTTPException, AssertionError, ValueError):
                stop.wait(0.05)

    crew = [threading.Thread(target=client, args=(i,)) for i in range(10)]
    for t in crew:
        t.start()
    try:
        until("a round is over", lambda: job.version() >= 1, 60)
        assert tributary(three[2], "drain-node", "--agent", three[2].endpoints()["admin"]["agent"], "--wait", "0")[0] == 0
        until("it is told", lambda: states(three)["n3"] in ("draining", "drained"), 30)
        three[2].kill("agent")
        until("it has left all", lambda: three[2].ready() and states(three)["n3"] == "drained", 60)
        three[2].process.send_signal(signal.SIGTERM)
        three[2].process.wait(30)
        until("done", lambda: job.version() >= 4, 90)
    finally:
        stop.set()
        for t in crew:
            t.join(60)
    base = job.base
    for number in range(1, 5):
        model = job.published(number)
        job.check(model, number, base=base)
        base = model
        r = record(three, job, number)
        assert r["acc"] == "10" and r.get("lost", "0") == "0", (number, r)


def test_who_took_a_share_may_leave_as_well(three):
    """n2's sum goes to n1's neighbour n4, with that to n1; n2 and n4 are gone when the round ends."""
    if three[2].process.poll() is None:  # the test before this one was left out
        drain(three, "n3")
        three[2].process.send_signal(signal.SIGTERM)
        three[2].process.wait(30)
    four = three.add()
    job = Job(three, size=20011, clients=9, seed=902)
    at = {1: three[0], 2: three[1], 4: four}
    for client, node in enumerate([4, 4, 4, 2, 2, 2, 1]):
        job.report(client, via=at[node])
    for name, node in (("n2", three[1]), ("n4", four)):
        drain(three, name)
        node.process.send_signal(signal.SIGTERM)
        node.process.wait(30)
    r = record(three, job)
    assert r["state"] == "open" and r["top"] == "n1" and r["n:n1"] == "7" and len(moves(three, job)) == 2, r
    until("both are gone", lambda: set(states(three)) == {"n1"}, 60)
    assert record(three, job)["n:n1"] == "7"
    for client in (7, 8):
        job.report(client)
    job.check(job.published(1))
    assert record(three, job).get("lost", "0") == "0"
    status, _, body = request(three.api, "POST", "/v1/nodes/n1:drain")
    assert status == 409 and b"no other node" in body, body
    assert request(three.api, "POST", "/v1/nodes/n9:drain")[0] == 404
    assert tributary(three[0], "drain-node", "n1", "--api", three.api)[0] == 4


def test_killed_while_it_leaves_it_is_a_node_that_died():
    with Cluster(2, lease_ms=LEASE_MS) as cluster:
        job = Job(cluster, size=1500000, clients=6, seed=903)  # more than sockets hold
        spread(job, cluster, [2, 2, 1, 2])
        cluster[0].kill("gateway", signal.SIGSTOP)  # nobody takes its sum
        begun = until("n1 is known to take over", lambda: tributary(cluster[0], "drain-node", "n2", "--api", cluster.api, "--wait",
                                                                    "2")[0] in (0, 1), 30)
        assert begun and states(cluster)["n2"] == "draining"
        cluster[1].kill_everything()
        os.kill(cluster[0].pid("gateway"), signal.SIGCONT)
        until("n2 is lost", lambda: int(record(cluster, job).get("lost", 0)) == 3, 60)
        cluster[1].start()
        assert states(cluster)["n2"] in ("up", "draining")
        finish(job, cluster)
        job.check(job.published(1))
        assert record(cluster, job)["acc"] == "6"
        until("it is a node like others", lambda: states(cluster)["n2"] == "up", 30)


def test_a_split_sum_that_waits_to_leave_survives_its_agent():
    """n2's ranges are one sum already when its agent is killed; the next one goes on with that, not with ranges."""
    with Cluster(2, lease_ms=60000) as cluster:
        job = Job(cluster, size=60000, clients=5, seed=904, spec={"hierarchy": {"shards": 2}})
        spread(job, cluster, [1, 1, 2, 2])
        cluster[0].kill("gateway", signal.SIGSTOP)  # nobody takes its sum
        try:
            until("n1 is known to take over", lambda: tributary(cluster[0], "drain-node", "n2", "--api", cluster.api, "--wait",
                                                                "0")[0] == 0, 60)
            with open(os.path.join(cluster[1].dir, "logs", "agent.log")) as f:
                until("one sum", lambda: "event=carved" in f.read(), 60)
            cluster[1].kill("agent")
            until("back", cluster[1].ready, 60)
        finally:
            os.kill(cluster[0].pid("gateway"), signal.SIGCONT)
        until("it has left", lambda: states(cluster)["n2"] == "drained", 60)
        assert record(cluster, job)["n:n1"] == "4"
        job.report(4, via=cluster[0])
        job.check(job.published(1, timeout=60))
