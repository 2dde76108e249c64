# SPDX-License-Identifier: Apache-2.0
"""Several nodes, each a `tributary up` of its own on loopback, one Redis: the same bits as one node gives, whatever dies."""
import concurrent.futures
import http.client
import os
import signal
import time

import numpy as np
import pytest

import cluster as cluster_module
from cluster import Certificates, Cluster, Job, body_of, call, request, until

LEASE_MS = 2500


def nodes_of(cluster):
    return [n for n in cluster.nodes if n.process.poll() is None]


def finish(job, cluster, version=1, timeout=90):
    """Every client comes again and again, as real ones do, to whatever node lives, until the version is there."""
    end = time.monotonic() + timeout
    while job.version() < version:
        assert time.monotonic() < end, f"version {version} was not published: {job.round(version)}"
        live = nodes_of(cluster)
        for client in range(job.clients):
            via = live[client % len(live)]
            try:
                answer = job.checkin(client, via=via, timeout=10)
                if answer["status"] == "selected" and answer["round"] == version:
                    job.put(client, answer, via=via, timeout=20)
            except (OSError, http.client.HTTPException, AssertionError):
                pass  # a node that is dying, or asks to come again
        time.sleep(0.1)


def record(cluster, job, number=1):
    flat = cluster.redis("HGETALL", f"trib:{{{job.id}}}:r:{number}").split("\n")
    return dict(zip(flat[::2], flat[1::2]))


def moves(cluster, job, number=1):
    return {k: v for k, v in record(cluster, job, number).items() if k.startswith("m:")}


def spread(job, cluster, shares):
    """Client i reports by node i of `shares`, a list of node numbers."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda i: job.report(i, via=cluster[shares[i] - 1]), range(len(shares))))


@pytest.fixture(scope="module")
def three():
    with Cluster(3, "--function-idle-ms", "600000", lease_ms=10000) as c:
        yield c


@pytest.mark.parametrize("leaves,mode,shards", [(0, "exact", 1), (3, "exact", 1), (2, "f32", 1), (2, "exact", 3)])
def test_three_nodes_publish_what_one_would(three, leaves, mode, shards):
    job = Job(three, size=30011, clients=12, leaves=leaves, rounds=2, seed=400 + leaves,
              spec={"aggregation": {"accumulate": mode}, "hierarchy": {"shards": shards}})
    before = three.total("gateway", "tributary_partial_bytes_total")
    base = job.base
    for number in (1, 2):
        spread(job, three, [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2])
        models = [job.published(number, via=n) for n in three.nodes]  # every gateway has the file
        assert all(np.array_equal(m, models[0]) for m in models)
        if mode == "exact":
            job.check(models[0], number, base=base)
        base = models[0]
        r = record(three, job, number)
        assert r["top"] == "n2" and r["moves"] == "2" and r["n:n2"] == "12", r  # where most updates were
        assert r["copies"] != "1", r
    unit = 8 if mode == "exact" else 4
    assert three.total("gateway", "tributary_partial_bytes_total") - before == 2 * 2 * unit * job.size
    assert three.total("gateway", "tributary_payload_bytes_copied_total") == 0
    job.delete()


@pytest.mark.parametrize("hierarchy", [{"leaves": 1}, {"levels": 3, "leaves": 2}])
def test_no_node_starts_a_function_twice(three, hierarchy):
    """From the second round on, functions are those of the first on every node, whoever gathers: who has sent its sum
    away is given other memory, not another process."""
    names = [f"tributary_agg_{n}_total" for n in ("cold_starts", "reuses", "conversions")]
    job = Job(three, size=20011, clients=12, rounds=6, seed=450 + len(hierarchy), spec={"hierarchy": hierarchy})
    base, before, pids = job.base, None, None
    for number in range(1, 6):  # of six: the job's end would end them
        spread(job, three, [1, 2, 3, 2] * 3 if number != 4 else [1, 3, 3, 2] * 3)  # n3 gathers once
        model = job.published(number)
        job.check(model, number, base=base)
        base = model
        now = [[n.metric("agent", name) for name in names] for n in three.nodes]
        live = [sorted(f["pid"] for j in n.state()["jobs"] if j["job"] == job.id for f in j["functions"] if f["pid"])
                for n in three.nodes]
        if number > 1:
            for was, is_now in zip(before, now):
                created, reused, converted = (b - a for a, b in zip(was, is_now))
                assert created == 0 and reused >= 1, (number, before, now)
                assert converted >= 1 or "levels" not in hierarchy, (number, before, now)
            assert live == pids, (number, pids, live)
        before, pids = now, live
    assert record(three, job, 4)["top"] == "n3" and record(three, job, 5)["top"] == "n2"
    job.delete()


def test_buffers_of_an_asynchronous_job_cross_nodes(three):
    job = Job(three, size=4001, clients=6, rounds=4, seed=410, spec={
        "mode": "async", "async": {"buffer_k": 3, "concurrency": 6}})
    end = time.monotonic() + 60
    while job.version() < 4:
        assert time.monotonic() < end
        for client in range(6):
            via = three[client % 3]
            answer = job.checkin(client, via=via)
            if answer["status"] == "selected":
                job.put(client, answer, via=via)
    rounds = [job.round(n) for n in range(1, 5)]
    assert all(r["state"] == "published" and r["accepted"] == 3 for r in rounds), rounds
    assert sum(len(moves(three, job, n)) for n in range(1, 5)) > 0
    job.delete()


def test_a_model_and_an_upload_are_had_at_any_node(three):
    """The initial model came to n1; n3 has never heard of the job and serves it, then takes an update."""
    job = Job(three, size=1001, clients=2, seed=411)
    status, _, body = request(three[2].data, "GET", f"/v1/jobs/{job.id}/models/0")
    assert status == 200 and len(body) > 4 * 1001
    ticket = job.selected(0, via=three[0])
    assert job.put(0, ticket, via=three[2])[0] == 201  # checked in at one node, uploaded to another
    job.report(1, via=three[1])
    job.check(job.published(1, via=three[2]))
    names = {n["name"]: n for n in call(three.api, "GET", "/v1/nodes")["items"]}
    assert set(names) == {"n1", "n2", "n3"} and all(n["state"] == "up" and n["boot"] for n in names.values()), names
    job.delete()


def test_a_planned_node_is_told_to_clients_and_any_other_takes_the_upload(three):
    job = Job(three, size=1001, clients=4, seed=413)
    assert job.checkin(0)["upload"]["url"].startswith("/v1/")
    three.redis("HSET", f"trib:{{{job.id}}}:job", "plan", "n3")
    ticket = job.checkin(0)
    assert ticket["upload"]["url"].startswith(three[2].data + "/v1/jobs/"), ticket
    assert job.put(0, ticket)[0] == 201  # follows it
    status, _, data = request(three[1].data, "PUT", job.checkin(1)["upload"]["url"].partition(three[2].data)[2],
                              body_of(job.update(1)[0]), job.headers(1, job.checkin(1), job.update(1)[1]))
    assert status == 201, data
    three.redis("HSET", f"trib:{{{job.id}}}:job", "plan", "gone")
    assert job.checkin(2)["upload"]["url"].startswith("/v1/")
    for client in (2, 3):
        job.report(client)
    r = record(three, job)
    job.check(job.published(1))
    assert int(record(three, job)["moves"]) == 2, r
    job.delete()


def internal(cluster, job, header=None, path=None):
    path = path or f"/v1/internal/jobs/{job.id}/rounds/1/partials/n3"
    return request(cluster[0].data, "PUT", path, b"x" * 80, {"FL-Peer": header} if header else {})[0]


def test_who_has_no_seal_moves_nothing(three):
    job = Job(three, size=10, clients=2, seed=412)
    ticket = job.selected(0)["upload"]["ticket"]  # of the same key, for another purpose
    assert internal(three, job) == 403 and internal(three, job, "A" * 400) == 403
    assert internal(three, job, ticket) == 403
    assert internal(three, job, path="/v1/internal/jobs/x/rounds/1/partials/n3") in (403, 404)
    assert request(three[0].data, "GET", f"/v1/internal/jobs/{job.id}/models/0")[0] == 403
    assert request(three[0].data, "GET", "/v1/internal/else")[0] == 404
    job.delete()


def hold_open(cluster, job, shares, held):
    """All clients report; the agent of node `held` stands still, so that the closed round waits for its sum, while
    the other nodes' sums have gone over to the top."""
    cluster[held - 1].kill("agent", signal.SIGSTOP)
    try:
        spread(job, cluster, shares)
        others = set(shares) - {held}
        until("the others' sums are at the top", lambda: len(moves(cluster, job)) == len(others) - 1, 30)
    finally:
        pid = cluster[held - 1].pid("agent")
    return pid


def test_the_receiving_gateway_or_agent_killed_in_mid_transfer(three):
    """The top's gateway takes the connection and stands still, then dies; then its agent, with a sum taken over."""
    job = Job(three, size=200000, clients=7, seed=420)
    for i in range(6):
        job.report(i, via=three[(1, 0, 1, 0, 1, 2)[i]])
    three[1].kill("gateway", signal.SIGSTOP)
    job.report(6, via=three[0])
    time.sleep(0.3)
    three[1].kill("gateway")
    until("ready again", three[1].ready, 30)
    job.check(job.published(1, timeout=60))
    job.delete()
    job = Job(three, size=60000, clients=7, seed=421)
    for node in three.nodes:
        job.checkin(0, via=node)
    spread(job, three, [2, 1, 2, 3, 2, 2])
    stopped = three[2].pid("agent")
    os.kill(stopped, signal.SIGSTOP)
    try:
        job.report(6, via=three[1])
        until("a sum is at the top", lambda: len(moves(three, job)) == 1, 30)
        three[1].kill("agent")
        until("ready again", three[1].ready, 30)
    finally:
        os.kill(stopped, signal.SIGCONT)
    finish(job, three)
    job.check(job.published(1, timeout=60))
    job.delete()


def test_a_whole_node_that_is_not_the_top_is_killed_and_another_joins():
    with Cluster(3, lease_ms=LEASE_MS) as cluster:
        job = Job(cluster, size=8000, clients=9, seed=430, rounds=2)
        spread(job, cluster, [1, 1, 1, 2, 2, 3, 3])
        cluster[2].kill_everything()
        four = cluster.add()
        finish(job, cluster)
        first = job.published(1, via=four)
        job.check(first)
        assert job.round(1)["accepted"] == 9
        nodes = {n["name"]: n["state"] for n in call(cluster.api, "GET", "/v1/nodes")["items"]}
        assert nodes["n3"] == "lost" and nodes["n4"] == "up", nodes
        assert "node.lost" in cluster.redis("XRANGE", f"trib:{{{job.id}}}:ev", "-", "+")
        spread(job, cluster, [4, 4, 4, 4, 2, 2, 1, 1, 4])  # the newcomer gathers
        job.check(job.published(2), 2, base=first)
        assert record(cluster, job, 2)["top"] == "n4"


def test_a_round_of_ranges_that_were_joined_goes_on():
    """n1 has joined its ranges and handed over when n3 dies: what comes then goes to functions numbered anew."""
    with Cluster(3, lease_ms=LEASE_MS) as cluster:
        job = Job(cluster, size=40000, clients=14, seed=433, leaves=3, spec={"hierarchy": {"shards": 2}})
        spread(job, cluster, [1] * 4 + [2] * 2 + [3] * 7)
        cluster[2].kill("agent", signal.SIGSTOP)
        job.report(13, via=cluster[1])
        until("joined", lambda: all("event=joined" in cluster[i].logs() for i in (0, 1)), 30)
        cluster[2].kill_everything()
        until("n3 is lost", lambda: int(record(cluster, job).get("lost", 0)) == 7, 60)
        finish(job, cluster)
        job.check(job.published(1, via=cluster[1]))
        r = record(cluster, job)
        assert r["acc"] == "14" and r["lost"] == "7", r


def test_the_top_is_killed_with_sums_of_others_in_it():
    """They are not lost: their senders have them still. Only what was committed at the top itself is asked for again."""
    with Cluster(3, lease_ms=LEASE_MS) as cluster:
        job = Job(cluster, size=8000, clients=9, seed=431, leaves=2)
        spread(job, cluster, [2, 2, 2, 2, 1, 1, 3, 3])
        stopped = cluster[2].pid("agent")
        os.kill(stopped, signal.SIGSTOP)
        try:
            job.report(8, via=cluster[0])
            until("n1's sum is at the top", lambda: len(moves(cluster, job)) == 1, 30)
            assert record(cluster, job)["top"] == "n2"
            cluster[1].kill_everything()
        finally:
            os.kill(stopped, signal.SIGCONT)
        finish(job, cluster)
        job.check(job.published(1, via=cluster[2]))
        r = record(cluster, job)
        assert r["top"] != "n2" and r["acc"] == "9" and int(r["lost"]) >= 4, r


def test_a_node_that_was_only_frozen_counts_nothing_of_its_old_memory():
    with Cluster(2, lease_ms=LEASE_MS) as cluster:
        job = Job(cluster, size=8000, clients=6, seed=432, rounds=2)
        spread(job, cluster, [1, 2, 2, 2, 1])
        frozen = [cluster[1].pid("agent"), cluster[1].pid("gateway")]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            until("n2 is lost", lambda: int(record(cluster, job).get("lost", 0)) == 3, 60)
            for client in (1, 2, 3, 5):
                job.report(client, via=cluster[0])
            first = job.published(1)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        job.check(first)
        until("n2 has noticed", lambda: cluster[1].metric("agent", "tributary_node_lost_total") >= 1, 30)
        spread(job, cluster, [1, 2, 2, 2, 1, 2])
        job.check(job.published(2, via=cluster[1]), 2, base=first)
        assert record(cluster, job, 2)["top"] == "n2"


def test_nodes_show_each_other_certificates(tmp_path):
    """Everything over TLS, and who has no certificate of the CA gets nothing: sums and files cross all the same."""
    certs = Certificates(tmp_path)
    pair = certs.make("server", "IP:127.0.0.1,DNS:localhost")
    mutual = ("--tls-cert", pair[0], "--tls-key", pair[1], "--tls-client-ca", certs.ca + ".pem")
    clients = [certs.context(certs.make(f"c-{i}", f"URI:tributary:client/c-{i}")) for i in range(2)]
    tls, cluster_module.TLS = cluster_module.TLS, clients[0]
    try:
        with Cluster(2, *mutual, lease_ms=10000) as cluster:
            assert cluster[1].data.startswith("https://")
            job = Job(cluster, size=5001, clients=2, rounds=2, seed=440)
            base = job.base
            for number in (1, 2):
                for client in range(2):
                    cluster_module.TLS = clients[client]
                    job.report(client, via=cluster[client])
                model = job.published(number, via=cluster[1])
                job.check(model, number, base=base)
                assert len(moves(cluster, job, number)) == 1
                base = model
            job.delete()
    finally:
        cluster_module.TLS = tls
