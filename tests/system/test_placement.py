# SPDX-License-Identifier: Apache-2.0
"""Placement: nodes publish a capacity, the leader plans a round, check-ins say where to go."""
import collections
import concurrent.futures

import pytest

from cluster import Cluster, Job, call, until


@pytest.fixture(scope="module")
def three():
    with Cluster(3, "--capacity", "4", "--nic-bytes-s", "1000000000", lease_ms=10000) as c:
        until("the leader knows three capacities", lambda: planning(c), 60)
        yield c


def planning(cluster):
    """A job's plan names the nodes once the leader has read them."""
    job = Job(cluster, size=64, clients=12, seed=700)
    names = plan(cluster, job).keys()
    job.delete()
    return len(names) == 3


def planned(cluster, policy, clients, shares):
    """A new job whose first round is planned so; while a node still has something in hand, plans differ."""
    job = Job(cluster, size=900, clients=clients, seed=700 + clients, spec={"placement": {"policy": policy}})
    if sorted(plan(cluster, job).values(), reverse=True) == shares:
        return job
    job.delete()
    return None


def plan(cluster, job):
    text = cluster.redis("HGET", f"trib:{{{job.id}}}:job", "plan").lstrip("~")
    return {name: int(quota) for name, quota in (x.split("=") for x in text.split(",") if x)}


def where(cluster, tickets):
    urls = {n.data: n.name for n in cluster.nodes}
    return collections.Counter(urls[t["upload"]["url"].split("/v1/")[0]] for t in tickets)


@pytest.mark.parametrize("policy,clients,shares", [
    ("bestfit", 3, [3]), ("bestfit", 6, [4, 2]), ("worstfit", 6, [2, 2, 2]), ("roundrobin", 4, [2, 1, 1]),
    ("bestfit", 24, [8, 8, 8])])  # more than all capacity: shared out, nobody is turned away
def test_clients_are_sent_where_the_plan_says(three, policy, clients, shares):
    job = until("nodes at rest, and such a plan", lambda: planned(three, policy, clients, shares), 60, 0.2)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tickets = list(pool.map(lambda c: job.selected(c), range(clients)))
        assert where(three, tickets) == plan(three, job)
        assert all(r in (200, 201) for r, _, _ in pool.map(lambda c: put(job, c, tickets[c]), range(clients)))
    job.check(job.published(1))
    at = dict(zip(*[iter(three.redis("HGETALL", f"trib:{{{job.id}}}:r:1").split("\n"))] * 2))
    assert {k[2:] for k in at if k.startswith("n:")} == set(plan(three, job)), at
    job.delete()


def put(job, client, ticket):
    """As a client does it: a node that has no room asks it to come again."""
    def once():
        answer = job.put(client, ticket)
        return answer if answer[0] not in (429, 503) else None
    return until(f"client {client} has reported", once, 60)


def test_nodes_publish_what_placement_needs(three):
    nodes = call(three.api, "GET", "/v1/nodes")["items"]
    assert len(nodes) == 3
    for node in nodes:
        assert node["capacity"] == 4 and node["nic_bytes_s"] == 1000000000, node
        assert float(node["arrivals_s"]) >= 0 and float(node["seconds"]) >= 0


def test_the_next_round_goes_where_the_last_one_was(three):
    """Its functions and memory are warm there, and what the node had in hand is over."""
    job = Job(three, size=900, clients=3, seed=790, rounds=3)
    first = plan(three, job)
    for number in (1, 2):
        for client in range(3):
            job.selected(client)
        assert plan(three, job) == first, number
        for client in range(3):
            put(job, client, job.selected(client))
        job.published(number)
    job.delete()
