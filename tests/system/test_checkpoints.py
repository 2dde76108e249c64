# SPDX-License-Identifier: Apache-2.0
"""Which versions are kept, that none goes while somebody may fetch it, and jobs that begin with a version of another."""
import glob
import json
import os
import re
import time

import numpy as np
import pytest

from cluster import Job, Node, body_of, call, request, until, vector_of


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def files(job):
    found = glob.glob(os.path.join(job.node.dir, "**", job.id, "v*.safetensors"), recursive=True)
    return sorted(int(re.search(r"v(\d+)\.safetensors", f)[1]) for f in found)


def listed(job):
    items, path = [], f"/v1/jobs/{job.id}/models?limit=4"
    while path:
        _, head, data = request(job.node.api, "GET", path)
        items += json.loads(data)["items"]
        path = head["link"].split(">")[0][1:] if "link" in head else None
    return sorted(i["version"] for i in items)


def run_rounds(job, values):
    for value in values:
        before = job.version()
        for c in range(job.clients):
            status, _, receipt = job.put(c, job.selected(c), extra={"FL-Metrics": f"acc={value}"})
            assert status == 201, receipt
        until("published", lambda: job.version() > before)


def settled(job, versions):
    until(f"versions {versions}, not {listed(job)}", lambda: listed(job) == versions, 20)
    until(f"files {versions}, not {files(job)}", lambda: files(job) == versions, 20)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_newest_every_and_the_best_are_kept(node, mode):
    job = Job(node, size=300, clients=2, seed=1, rounds=50, spec={
        "mode": mode, "async": {"buffer_k": 2, "concurrency": 2},
        "checkpoints": {"keep": 2, "every": 5, "best": {"metric": "acc"}}})
    run_rounds(job, [0.1, 0.9, 0.3, 0.2, 0.5, 0.4, 0.3])
    settled(job, [0, 2, 5, 6, 7])
    run_rounds(job, [0.95])
    settled(job, [0, 5, 7, 8])  # the former best went
    gone = request(node.data, "GET", f"/v1/jobs/{job.id}/models/2")
    assert gone[0] == 404 and json.loads(gone[2])["code"] == "no-such-model"
    assert request(node.data, "GET", f"/v1/jobs/{job.id}/models/5")[0] == 200
    assert node.metric("agent", "tributary_models_pruned_total") >= 5
    call(node.api, "PATCH", f"/v1/jobs/{job.id}", b'{"spec":{"checkpoints":{"keep":1}}}',
         {"Content-Type": "application/merge-patch+json", "If-Match": "*"})
    run_rounds(job, [0.1])
    settled(job, [0, 5, 8, 9])
    job.delete()
    until("purged", lambda: files(job) == [], 20)


def test_what_a_client_was_given_stays_until_it_reports(node):
    job = Job(node, size=300, clients=2, seed=2, rounds=50, spec={
        "mode": "async", "async": {"buffer_k": 2, "concurrency": 9, "max_staleness": 50}, "checkpoints": {"keep": 1}})
    run_rounds(job, [1])
    slow = job.selected(7)  # holds version 1
    assert slow["base_version"] == 1
    run_rounds(job, [1, 1, 1])
    settled(job, [0, 1, 4])
    status, _, body = request(node.data, "GET", slow["model"]["url"])
    assert status == 200 and len(body) > 1200
    assert job.put(7, slow)[0] == 201
    run_rounds(job, [1])
    until("released", lambda: 1 not in listed(job) and 1 not in files(job), 20)
    job.delete()


def test_who_is_too_slow_in_a_synchronous_round_still_gets_its_model(node):
    job = Job(node, size=300, clients=2, goal=1, seed=7, rounds=100000, spec={
        "checkpoints": {"keep": 1}, "sync": {"client_timeout_s": 4}})
    job.clients = 1  # of the two selected one reports
    run_rounds(job, [1])
    slow = job.selected(9)
    assert slow["base_version"] == 1
    run_rounds(job, [1, 1])
    assert 1 in listed(job)
    assert request(node.data, "GET", slow["model"]["url"])[0] == 200

    def released():  # its place ended
        time.sleep(0.2)
        run_rounds(job, [1])
        return 1 not in listed(job)
    until("only the newest", released, 20)
    job.delete()


def test_everything_is_kept_unless_said_otherwise(node):
    job = Job(node, size=300, clients=1, seed=3, rounds=4)
    run_rounds(job, [1, 1, 1])
    until("all files", lambda: listed(job) == files(job) == [0, 1, 2, 3], 20)
    job.delete()


def begin_with(node, spec, expect=(201,)):
    doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "again"},
           "spec": {"sync": {"goal": 1}, **spec}}
    return call(node.api, "POST", "/v1/jobs", doc, expect=expect)


def model_of(node, job, version):
    status, _, body = request(node.data, "GET", f"/v1/jobs/{job}/models/{version}")
    assert status == 200, body
    return vector_of(body)


def test_a_job_begins_with_a_version_of_another(node):
    source = Job(node, size=300, clients=1, seed=4, rounds=9)
    run_rounds(source, [1, 1])
    for version, wanted in ((1, 1), (-1, 2)):
        new = begin_with(node, {"initial": {"job": source.id, "version": version}})["metadata"]["id"]
        until("running", lambda: call(node.api, "GET", f"/v1/jobs/{new}")["status"]["phase"] == "Running", 20)
        status = call(node.api, "GET", f"/v1/jobs/{new}")["status"]
        assert status["version"] == 0 and status["reason"] == "" and status["model"]["params"] == 300
        assert np.array_equal(model_of(node, new, 0), source.published(wanted))
        again = Job.__new__(Job)  # the same client code on the new job
        again.__dict__.update(source.__dict__, id=new, base=source.published(wanted))
        run_rounds(again, [1])
        again.check(again.published(1))
        source_files = files(source)
        again.delete()
        assert files(source) == source_files
    refused = begin_with(node, {"initial": {"job": source.id, "version": 77}}, expect=(422,))
    assert refused["errors"][0]["pointer"] == "/spec/initial/version"
    refused = begin_with(node, {"initial": {"job": "job_00000000000000000000000000"}}, expect=(422,))
    assert refused["errors"][0]["pointer"] == "/spec/initial/job"
    refused = begin_with(node, {"initial": {"job": "x"}}, expect=(422,))
    assert refused["errors"][0]["pointer"] == "/spec/initial/job"
    source.delete()


def test_the_source_may_be_pruned_or_deleted_meanwhile(node):
    """The agent is stopped while the job is made: the version is kept for it; without the file a model can be put."""
    source = Job(node, size=300, clients=1, seed=5, rounds=9, spec={"checkpoints": {"keep": 1}})
    run_rounds(source, [1, 1])
    pid = node.kill("agent", 19)  # SIGSTOP
    try:
        first = begin_with(node, {"initial": {"job": source.id, "version": 2}})
        assert first["status"]["reason"] == f"waits for a node that has version 2 of {source.id}"
    finally:
        os.kill(pid, 18)
    new = first["metadata"]["id"]
    until("running", lambda: call(node.api, "GET", f"/v1/jobs/{new}")["status"]["phase"] == "Running", 30)
    run_rounds(source, [1, 1])
    assert np.array_equal(model_of(node, new, 0), model_of(node, new, "latest"))
    call(node.api, "POST", f"/v1/jobs/{new}:stop")
    for path in glob.glob(os.path.join(node.dir, "**", source.id, "v4.safetensors"), recursive=True):
        os.unlink(path)
    second = begin_with(node, {"initial": {"job": source.id, "version": 4}})["metadata"]["id"]
    assert call(node.api, "GET", f"/v1/jobs/{second}")["status"]["phase"] == "Pending"
    call(node.data, "PUT", f"/v1/jobs/{second}/models/0", body_of(source.base))
    until("running", lambda: call(node.api, "GET", f"/v1/jobs/{second}")["status"]["phase"] == "Running", 30)
    assert np.array_equal(model_of(node, second, 0), source.base)
    for job in (new, second):
        call(node.api, "DELETE", f"/v1/jobs/{job}?force=1&purge=1")
    source.delete()


def test_records_of_old_rounds_are_bounded(node):
    job = Job(node, size=50, clients=1, seed=6, rounds=9)
    run_rounds(job, [1, 1])
    key = f"trib:{{{job.id}}}:"
    until("third round", lambda: job.get()["status"]["round"] == 3)
    # as if 5000 rounds had passed
    node.redis("HSET", key + "r:905", "state", "published")
    node.redis("HSET", key + "job", "round", 5000, "pubround", 5000)
    node.redis("RENAME", key + "r:3", key + "r:5000")
    node.redis("HSET", key + "r:5000", "state", "published")
    until("opened", lambda: node.redis("EXISTS", key + "r:5001") == "1", 30)
    assert node.redis("EXISTS", key + "r:905") == "0"
    assert request(node.api, "GET", f"/v1/jobs/{job.id}/rounds/905")[0] == 404
    job.delete()
