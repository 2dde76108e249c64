# SPDX-License-Identifier: Apache-2.0
"""Five nodes as network namespaces on a bridge: jobs of every shape give the bits of one node, a whole node is killed,
another is cut off. Needs root; `make test-priv` counts a skip as failure. Links are shaped by tc where the kernel can."""
import json
import os
import subprocess

import numpy as np
import pytest

from cluster import Cluster, Job, call, until
from test_nodes import finish, moves, record

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (network namespaces)")

NODES, LEASE_MS = 5, 2500
TAG = f"tb{os.getpid() % 100000}"
NET = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"


def ip(*words, check=True):
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True, timeout=20)


def wire(number):
    """A namespace with one end of a veth pair, the other on the bridge."""
    ns, end = f"{TAG}n{number}", f"{TAG}v{number}"
    ip("netns", "add", ns)
    ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", ns)
    ip("link", "set", end, "master", TAG, "up")
    ip("-n", ns, "addr", "add", f"{NET}.{10 + number}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        ip("-n", ns, "link", "set", device, "up")
    return ns


def shape(end):
    """1 ms and 1 Gbit/s on a link; why not, when the kernel cannot."""
    for words in (["netem", "delay", "1ms", "rate", "1gbit"], ["tbf", "rate", "1gbit", "burst", "256kb", "latency", "50ms"]):
        done = subprocess.run(["tc", "qdisc", "add", "dev", end, "root", *words], capture_output=True, text=True, timeout=20)
        if done.returncode == 0:
            return " ".join(words)
    return "not shaped: " + done.stderr.strip()


@pytest.fixture(scope="module")
def bridge():
    try:
        ip("link", "add", TAG, "type", "bridge")
        ip("addr", "add", f"{NET}.1/24", "dev", TAG)
        ip("link", "set", TAG, "up")
        yield TAG
    finally:
        for number in range(1, NODES + 3):
            ip("netns", "del", f"{TAG}n{number}", check=False)
            ip("link", "del", f"{TAG}v{number}", check=False)
        ip("link", "del", TAG, check=False)


class Wired(Cluster):
    def place(self, number):
        ns = wire(number)
        self.shaped = shape(f"{TAG}v{number}")
        keywords = {"prefix": ["ip", "netns", "exec", ns], "host": f"{NET}.{10 + number}"}
        if number == 1:
            return keywords, ["--redis-listen", f"{NET}.11:6379"]
        return {**keywords, "api": False}, ["--join", f"redis://{NET}.11:6379"]


@pytest.fixture(scope="module")
def five(bridge):
    with Wired(NODES, lease_ms=LEASE_MS) as cluster:
        print("links:", cluster.shaped)
        yield cluster


POLICIES = ("eager", "lazy", "just-in-time")
# Every two of: levels 1 to 3, nodes 1 to 5, policy, split into ranges or not. (All shapes with all policies on one node:
# test_tree.py.)
SHAPES = [({"levels": levels, "leaves": (1, 3, 4)[levels - 1], "policy": POLICIES[(levels - 1 + used) % 3],
            "shards": 1 + (levels - 1 + used) % 2}, used) for used in range(1, 6) for levels in (1, 2, 3)] + [({}, 1), ({}, 5)]


def test_the_shapes_cover_every_pair():
    rows = [(h["levels"], h["policy"], h["shards"], used) for h, used in SHAPES if h]
    for a in range(4):
        for b in range(a):
            every = {(x[a], y[b]) for x in rows for y in rows}
            assert {(r[a], r[b]) for r in rows} == every, (a, b)


@pytest.mark.parametrize("hierarchy,used", SHAPES)
def test_every_shape_gives_the_bits_of_one_node(five, hierarchy, used):
    """The reference is the integer sum that test_one_answer.py holds the one-node run to."""
    job = Job(five, size=40013, clients=20, seed=500 + SHAPES.index((hierarchy, used)), rounds=2,
              spec={"hierarchy": hierarchy})
    base = job.base
    for number in (1, 2):
        for client in range(job.clients):
            job.report(client, via=five[client % used])
        model = job.published(number, via=five[-1])
        job.check(model, number, base=base)
        assert len(moves(five, job, number)) == used - 1, record(five, job, number)
        base = model
    job.delete()


def sent_bytes(end):
    """By the link's shaper: (its kind, bytes)."""
    done = subprocess.run(["tc", "-s", "-j", "qdisc", "show", "dev", end], capture_output=True, text=True, timeout=20)
    root = next((q for q in json.loads(done.stdout or "[]") if q.get("root")), {})
    return root.get("kind", ""), int(root.get("bytes", 0))


def test_links_are_shaped(five):
    """The updates of a node come through its shaper, which is netem's or, as here, tbf's."""
    if five.shaped.startswith("not shaped"):
        print(five.shaped)  # a kernel without either: the rest runs unshaped
        return
    assert five.shaped.split()[0] in ("netem", "tbf")
    before = [sent_bytes(f"{TAG}v{n}") for n in (1, 2, 3)]
    assert all(kind == five.shaped.split()[0] for kind, _ in before), before
    job = Job(five, size=200003, clients=6, seed=519, spec={"hierarchy": {"policy": "lazy"}})
    for client in range(6):
        job.report(client, via=five[client % 3])
    job.check(job.published(1, via=five[4]))
    grown = [sent_bytes(f"{TAG}v{n}")[1] - had for n, (_, had) in zip((1, 2, 3), before)]
    assert min(grown) >= 2 * 4 * job.size, grown  # two updates each
    job.delete()


def test_partials_cross_the_network_once(five):
    job = Job(five, size=100003, clients=10, seed=520)
    before = five.total("gateway", "tributary_partial_bytes_total")
    for client in range(10):
        job.report(client, via=five[client % 5])
    job.check(job.published(1))
    assert five.total("gateway", "tributary_partial_bytes_total") - before == 4 * 8 * job.size
    assert five.total("gateway", "tributary_payload_bytes_copied_total") == 0
    job.delete()


def test_a_node_that_is_cut_off_loses_its_part_and_comes_back(five):
    job = Job(five, size=9001, clients=15, seed=521, rounds=2)
    for client in range(12):
        job.report(client, via=five[client % 5])
    ip("link", "set", f"{TAG}v4", "down")
    try:
        until("n4 is lost", lambda: int(record(five, job).get("lost", 0)) > 0, 60)
        others = Without(five, 3)
        finish(job, others)
    finally:
        ip("link", "set", f"{TAG}v4", "up")
    first = job.published(1, via=five[4])
    job.check(first)
    until("n4 is up again", lambda: {n["name"]: n["state"] for n in call(five.api, "GET", "/v1/nodes")["items"]}["n4"]
          == "up", 60)
    finish(job, five, 2)
    second = job.published(2, via=five[3])
    job.check(second, 2, base=first)
    job.delete()


class Without:
    """A cluster's nodes but one, for `finish`."""

    def __init__(self, cluster, index):
        self.nodes = [n for i, n in enumerate(cluster.nodes) if i != index]


@pytest.mark.parametrize("victim", [3, 2])
def test_a_whole_node_is_killed_in_the_middle_of_a_round(five, victim):
    """Last of all: nodes 3 and 2 stay dead. Node 2 dies as the top, when others' sums are in it."""
    live = [i for i, n in enumerate(five.nodes) if n.process.poll() is None]
    job = Job(five, size=30011, clients=15, seed=530 + victim, leaves=2)
    for client in range(8):
        job.report(client, via=five[victim - 1])
    for client in range(8, 14):
        job.report(client, via=five[live[client % len(live)]])
    if victim == 3:
        five[2].kill_everything()
    else:
        held = five[live[-1]]
        pid = held.pid("agent")
        os.kill(pid, 19)
        try:
            job.report(14, via=five[0])
            until("a sum is at the top", lambda: moves(five, job), 30)
            assert record(five, job)["top"] == "n2"
            five[1].kill_everything()
        finally:
            os.kill(pid, 18)
    finish(job, five)
    model = job.published(1, via=five[live[-1]])
    job.check(model)
    r = record(five, job)
    assert int(r["lost"]) >= 8 and r["acc"] == "15" and r["top"] != f"n{victim}", r
    again = job.published(1, via=five[0])
    assert np.array_equal(model, again)
    job.delete()
