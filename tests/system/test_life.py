# SPDX-License-Identifier: Apache-2.0
"""A job's life: what clients measure, when a job has enough, how it ends in order, and that each end says why."""
import json
import subprocess
import threading
import time

import numpy as np
import pytest

from cluster import BIN, Job, Node, call, request, until
from tributary import Client


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def phase(job):
    return job.get()["status"]["phase"]


def put(job, client, metrics=None, weight=None, ticket=None):
    ticket = ticket or job.selected(client)
    extra = {} if metrics is None else {"FL-Metrics": metrics}
    return job.put(client, ticket, weight=weight, extra=extra)


def one_round(job, *metrics):
    for c, m in enumerate(metrics):
        status, _, receipt = put(job, c, m)
        assert status == 201, receipt


def patch(job, spec):
    call(job.node.api, "PATCH", f"/v1/jobs/{job.id}", json.dumps({"spec": spec}).encode(),
         {"Content-Type": "application/merge-patch+json", "If-Match": "*"})


def over(job, timeout=30):
    until("over", lambda: phase(job) in ("Succeeded", "Stopped", "Failed"), timeout)
    return job.get()["status"]


def test_client_metrics_are_weighted_means(node):
    job = Job(node, size=50, clients=3, seed=1, rounds=2)
    for c, (w, m) in enumerate([(1.0, "loss=0.5, accuracy=0.25"), (3.0, "accuracy=0.75,loss=1"), (4.0, None)]):
        assert put(job, c, m, weight=w)[0] == 201
    job.published(1)
    wanted = {"loss": 0.875, "accuracy": 0.625}  # of those who said something
    assert job.round(1)["metrics"] == pytest.approx(wanted)
    assert job.get()["status"]["metrics"] == pytest.approx(wanted)
    models = call(node.api, "GET", f"/v1/jobs/{job.id}/models")["items"]
    assert models[0]["metrics"] == pytest.approx(wanted) and models[1]["metrics"] == {}
    shown = f'tributary_client_metric{{job="{job.id}",name="loss"}}'
    until("gauge", lambda: shown + " 0.875" in node.admin("orchestrator"))
    words = [f"{BIN}/tributary", "rounds", job.id, "--api", node.api]
    table = subprocess.run(words, capture_output=True, text=True, timeout=30).stdout
    assert "METRICS" in table and "loss=0.875 accuracy=0.625" in table
    events = subprocess.run([f"{BIN}/tributary", "watch", job.id, "--api", node.api], capture_output=True, text=True,
                            timeout=60) if one_round(job, "loss=2", "loss=2", "loss=2") or over(job) else None
    assert events.returncode == 0
    raw = node.redis("XRANGE", f"trib:{{{job.id}}}:ev", "-", "+").splitlines()
    assert "loss=0.875,accuracy=0.625" in raw
    until("gauge gone", lambda: shown not in node.admin("orchestrator"))
    job.delete()


@pytest.mark.parametrize("size", [50, 40000])  # committed at once; reserved first
def test_metrics_come_with_an_update_that_counts_already(node, size):
    """As when its gateway was killed before it could say so: the agent commits it and knows no metrics."""
    job = Job(node, size=size, clients=2, seed=9)
    ticket = job.selected(0)
    weight = job.update(0)[1] * 2 ** 20
    assert put(job, 0, ticket=ticket)[0] == 201
    for _ in range(2):  # taken once
        status, _, receipt = put(job, 0, "loss=2", ticket=ticket)
        assert status == 200, receipt
    met = node.redis("HGET", f"trib:{{{job.id}}}:r:1", "met").split("|")
    assert met[0] == "loss" and [float(v) for v in met[1:]] == [2 * weight, weight], met
    job.delete()


def test_metrics_that_are_refused(node):
    job = Job(node, size=50, clients=1, seed=2)
    ticket = job.selected(0)
    many = ",".join(f"m{i}=1" for i in range(33))
    for bad in ("loss", "loss=", "=1", "loss=nan", "loss=1e3", "loss=1;a", "loss=1,", "lo ss=1", "1a=2", "loss=inf", "a=1,a=2",
                "a=0x1", "a=--1", "a=1.", "a=.5", "a=9999999999999999", "x" * 49 + "=1", many, 'a="1"', ""):
        status, _, problem = put(job, 0, bad, ticket=ticket)
        assert status == 422 and problem["code"] == "invalid-metrics", (bad, problem)
    status, _, _ = put(job, 0, "a.b-c_D9=-0.5 ,  z=1000000000000000", ticket=ticket)
    assert status == 201
    job.published(1)
    assert job.round(1)["metrics"] == {"a.b-c_D9": -0.5, "z": 1e15}
    job.delete()


def test_names_of_all_clients_together_are_bounded(node):
    job = Job(node, size=50, clients=3, seed=3)
    one_round(job, *(",".join(f"c{c}_{i}=1" for i in range(20)) for c in range(3)))
    job.published(1)
    assert len(job.round(1)["metrics"]) == 32
    assert node.redis("HGET", f"trib:{{{job.id}}}:r:1", "metleft") == "28"
    job.delete()


@pytest.mark.parametrize("stop,values,version,why", [
    ({"updates": 5}, [1, 1, 1], 3, "stop.updates: 6 updates are counted"),
    ({"target": {"metric": "acc", "value": 0.9}}, [0.5, 0.89, 0.9], 3, "stop.target: acc is 0.9 at version 3"),
    ({"target": {"metric": "acc", "value": 0.2, "mode": "min"}}, [0.5, 0.2], 2, "stop.target: acc is 0.2 at version 2"),
    ({"patience": {"metric": "acc", "rounds": 2, "min_delta": 0.1}}, [5, 4, 3.95, 4, 1], 4,
     "stop.patience: acc is no better than 4 for 2 versions"),
    ({"patience": {"metric": "acc", "rounds": 1, "mode": "max"}}, [1, 2, 3, 3], 4,
     "stop.patience: acc is no better than 3 for 1 versions"),
    ({"rounds": 2}, [1, 1, 1], 2, "stop.rounds: 2 versions are published"),
])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_job_that_has_enough_finishes_and_says_why(node, stop, values, version, why, mode):
    job = Job(node, size=50, clients=2, seed=4, rounds=50, spec={
        "mode": mode, "stop": {"rounds": 50, **stop}, "async": {"buffer_k": 2, "concurrency": 2}})
    for v, value in enumerate(values):
        one_round(job, f"acc={value}", f"acc={value}")
        until("published", lambda: job.version() > v)
        if v + 1 >= version:
            break
    status = over(job)
    assert (status["phase"], status["version"], status["reason"]) == ("Succeeded", version, why)
    assert job.checkin(0)["status"] == "done"
    job.delete()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_time_is_over_while_a_round_is_open(node, mode):
    """What was accepted makes a last version; who is out may report until the deadline."""
    job = Job(node, size=50, clients=4, seed=5, rounds=50, spec={
        "mode": mode, "async": {"buffer_k": 4, "concurrency": 4}})
    assert put(job, 0)[0] == 201
    job.selected(1)
    patch(job, {"stop": {"seconds": 0.01}})
    until("draining", lambda: phase(job) == "Draining", 20)
    assert job.get()["status"]["reason"] == "stop.seconds: the time is over"
    assert job.checkin(2)["status"] == "wait" and job.checkin(2)["why"] == "draining"
    late = job.checkin(1)  # it has a place
    assert late["status"] == "selected"
    assert put(job, 1, ticket=late)[0] == 201
    status = over(job)
    assert (status["phase"], status["version"], status["reason"]) == ("Succeeded", 1, "stop.seconds: the time is over")
    assert job.round(1)["accepted"] == 2 and job.round(1)["why"] == "drain"
    job.check(job.published(1), counted=[0, 1])
    job.delete()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_drain(node, mode):
    job = Job(node, size=50, clients=4, seed=6, rounds=50, spec={
        "mode": mode, "async": {"buffer_k": 4, "concurrency": 4}})
    one_round(job, None)
    place = job.selected(1)
    status = call(node.api, "POST", f"/v1/jobs/{job.id}:drain")["status"]
    assert status["phase"] == "Draining" and status["reason"].startswith("drained by ")
    call(node.api, "POST", f"/v1/jobs/{job.id}:drain")  # again: the same
    assert call(node.api, "POST", f"/v1/jobs/{job.id}:pause", expect=(409,))["detail"] == "the job is draining"
    time.sleep(0.6)
    assert phase(job) == "Draining"  # one is out
    assert put(job, 1, ticket=place)[0] == 201
    status = over(job)
    assert status["phase"] == "Stopped" and status["version"] == 1 and status["reason"].startswith("drained by ")
    job.check(job.published(1), counted=[0, 1])
    call(node.api, "POST", f"/v1/jobs/{job.id}:drain", expect=(409,))
    job.delete()


def test_drain_of_a_job_nobody_takes_part_in(node):
    job = Job(node, size=50, seed=7)
    until("round", lambda: job.get()["status"]["round"] == 1)
    call(node.api, "POST", f"/v1/jobs/{job.id}:pause")
    assert job.get()["status"]["reason"].startswith("paused by ")
    call(node.api, "POST", f"/v1/jobs/{job.id}:drain")
    assert over(job)["phase"] == "Stopped"
    job.delete()
    doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "never"}}
    new = call(node.api, "POST", "/v1/jobs", doc)["metadata"]["id"]
    assert call(node.api, "POST", f"/v1/jobs/{new}:drain")["status"]["phase"] == "Stopped"
    call(node.api, "DELETE", f"/v1/jobs/{new}")


def test_a_patch_that_finds_the_job_has_enough_ends_it_in_order(node):
    job = Job(node, size=50, clients=2, seed=8, rounds=50)
    one_round(job, None, None)
    until("second round", lambda: job.get()["status"]["round"] == 2)
    place = job.selected(0)
    patch(job, {"stop": {"rounds": 1}})
    assert phase(job) == "Draining"
    assert put(job, 0, ticket=place)[0] == 201
    status = over(job)
    assert (status["phase"], status["version"]) == ("Succeeded", 2)
    assert status["reason"] == "stop.rounds: 1 versions are published"
    job.delete()


def test_what_an_end_leaves_uncounted_is_said(node):
    """An accepted update whose round the operator cuts off is in no version: an event declares it."""
    job = Job(node, size=50, clients=3, seed=9)
    one_round(job, None, None)
    status = call(node.api, "POST", f"/v1/jobs/{job.id}:stop")["status"]
    assert status["phase"] == "Stopped" and status["reason"].startswith("stopped by ")
    raw = node.redis("XRANGE", f"trib:{{{job.id}}}:ev", "-", "+").splitlines()
    at = raw.index("round.abandoned")
    assert raw[at + 1:at + 7] == ["n", "1", "acc", "2", "why", "job-stopped"]
    assert job.round(1)["state"] == "abandoned"
    job.delete()


def test_the_orchestrator_is_killed_while_the_job_drains(node):
    job = Job(node, size=50, clients=4, seed=10, rounds=50)
    one_round(job, None)
    place = job.selected(1)
    call(node.api, "POST", f"/v1/jobs/{job.id}:drain")
    node.kill("orchestrator")
    until("up again", node.ready, 30)
    status, _, _ = put(job, 1, ticket=place)
    assert status == 201
    until("over", lambda: phase(job) == "Stopped", 30)
    job.check(job.published(1), counted=[0, 1])
    job.delete()


def test_the_python_client_reports_metrics(node):
    job = Job(node, size=50, clients=2, seed=11, rounds=2)

    def train(params, config, n):
        return {k: np.zeros_like(v) for k, v in params.items()}, 2, {"loss": 1.5 / n, "tiny": 1e-9}

    def one(name):
        with Client(node.data, job.id, name, timeout=30, retry_for=60) as client:
            client.run(train, wait=5)
    crew = [threading.Thread(target=one, args=(f"p-{i}",)) for i in range(2)]
    for t in crew:
        t.start()
    for t in crew:
        t.join(60)
    assert over(job)["metrics"] == pytest.approx({"loss": 0.75, "tiny": 1e-9})
    assert job.round(1)["metrics"]["loss"] == 1.5
    status, _, body = request(node.api, "GET", "/v1/openapi.json")
    properties = json.loads(body)["components"]["schemas"]["JobRequest"]["properties"]["spec"]["properties"]
    assert set(properties["stop"]["properties"]) == {"rounds", "updates", "seconds", "target", "patience"}
    job.delete()
