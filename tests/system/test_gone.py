# SPDX-License-Identifier: Apache-2.0
"""A whole node killed between a version's publication and its file, and nobody else has a copy: the job goes on from
the newest older version, says so, and never does that while somebody has the bytes."""
import contextlib
import glob
import json
import os
import time

import pytest

from cluster import Cluster, Job, Node, request, until, vector_of
from test_functions import JOB, pairs, redis  # noqa: F401 - a fixture

LEASE = ("--lease-ms", "1500", "--node-grace-ms", "500")


def place(node, job, version):
    found = glob.glob(os.path.join(node.dir, "**", job.id), recursive=True)
    return os.path.join(found[0] if found else os.path.join(node.dir, "none"), f"v{version}.safetensors")


@contextlib.contextmanager
def no_file(node, job, version):
    """The version's file cannot be made (the place of its temporary name is taken by a directory)."""
    os.makedirs(place(node, job, version) + ".tmp")
    try:
        yield
    finally:
        os.rmdir(place(node, job, version) + ".tmp")


def until_filed(node, job, version):
    until(f"a file of version {version}", lambda: os.path.exists(place(node, job, version)), 30)


def lost(node, job):
    """(version, instead of it) of what was lost."""
    rows = node.redis("--json", "XRANGE", f"trib:{{{job.id}}}:ev", "-", "+")
    events = [pairs(fields) for _, fields in json.loads(rows)]
    return [(int(e["v"]), int(e["fromv"])) for e in events if e["t"] == "model.lost"]


def served(node, job, version):
    def good():
        with contextlib.suppress(OSError):
            status, _, body = request(node.data, "GET", f"/v1/jobs/{job.id}/models/{version}")
            return body if status == 200 else None
    return vector_of(until(f"version {version} served", good, 60))


def power_cut(node):
    node.kill_everything()
    node.log.close()
    node.start()


def test_the_job_goes_on_from_an_older_version():
    with Node(*LEASE) as node:
        job = Job(node, size=60001, clients=2, seed=71, rounds=3)
        with no_file(node, job, 1):
            job.report_all()
            job.published(1)
            node.kill_everything()
        node.log.close()
        node.start()
        job.report_all()  # in round 2, which began from version 1, and now does from 2: the initial model
        assert until("version 3", lambda: job.version() >= 3, 60)
        assert served(node, job, 2).tobytes() == job.base.tobytes()
        third = served(node, job, 3)
        job.check(third, 2)
        assert lost(node, job) == [(1, 0)]
        assert node.metric("agent", "tributary_models_lost_total") == 1
        until("404", lambda: request(node.data, "GET", f"/v1/jobs/{job.id}/models/1")[0] == 404, 30)
        assert "no node has version 1" in job.get()["status"]["reason"]
        assert job.round(1)["why"] == "model-lost"
        until_filed(node, job, 3)
        with no_file(node, job, 4):
            job.report_all()
            job.published(4)
            node.kill_everything()
        node.log.close()
        node.start()
        for version in (6, 7):  # of 3 rounds the first and the third were lost: both are made again
            job.report_all()
            until(f"version {version}", lambda v=version: job.version() >= v, 60)
        assert served(node, job, 5).tobytes() == third.tobytes()
        job.check(served(node, job, 6), 4, base=third)
        job.check(served(node, job, 7), 5, base=served(node, job, 6))
        until("finished", lambda: job.get()["status"]["state"] == "finished", 30)
        assert lost(node, job) == [(1, 0), (4, 3)]
        until_filed(node, job, 7)
        power_cut(node)
        assert len(served(node, job, 7)) == job.size and job.version() == 7
        assert lost(node, job) == [(1, 0), (4, 3)]


def test_not_while_another_node_has_a_copy():
    with Cluster(2, lease_ms=1500) as cluster:
        n2 = cluster[1]
        job = Job(cluster, size=60001, clients=3, seed=72, rounds=2)
        served(n2, job, 0)
        with no_file(n2, job, 1):
            for client, via in enumerate((cluster[0], n2, n2)):
                job.report(client, via=via)
            first = job.published(1)
            until_filed(cluster[0], job, 1)
            n2.kill_everything()
        n2.log.close()
        n2.start()
        assert served(n2, job, 1).tobytes() == first.tobytes()
        for client in range(3):
            job.report(client, via=n2)
        job.check(job.published(2, timeout=60), 2, base=first)
        assert lost(cluster, job) == []


@pytest.fixture
def job(redis):  # noqa: F811
    """Version 2 is published, round 3 is open; n1 and n2 live."""
    def call(name, *args, key=JOB):
        return redis("FCALL", "trib_" + name, 1, key, *args)

    redis("FLUSHALL")
    call("job_create", "5|o", "job_x", "x", "{}", 1, 1, 9, 60000, 60000, 3)
    call("model_init", "d0", 40, 10, "{}")
    call("job_set", "5|o", "created", "running", "")
    for node in ("n1", "n2"):
        call("node_up", node, 60000, "url", "http://" + node, key="trib:node:" + node)
    for n in (1, 2):
        call("round_open", "5|o", n, n - 1, 1, 1, 9, 60000)
        update = call("checkin", "c", f"u{n}")[4]
        call("reserve", "c", update, n, 60000)
        assert call("commit", "c", update, n, "dd", 5, f"n1:b1:{n}:1", "n1")[0] in ("OK", "CLOSE")
        assert call("task_done", n, 1, 5, f"m{n}", "n1", "")[0] == "OK"
        assert call("publish", "5|o", n, n - 1, f"m{n}", 40) == ["OK", n]
    call("round_open", "5|o", 3, 2, 1, 1, 9, 60000)
    return call


def gone(call, version, digest, *tried, node="n1"):
    return call("version_gone", version, digest, node, 1000, *(tried or ("", "")))


def waited(call):
    answer = gone(call, 2, "m2")
    assert answer[0] == "LATER" and 0 < answer[1] <= 1000, answer
    return until("the wait", lambda: (a := gone(call, 2, "m2"))[0] != "LATER" and a, 20)


def test_transition(job, redis):  # noqa: F811
    assert gone(job, 1, "m1") == ["STALE", "2"]
    assert gone(job, 2, "m1") == ["STALE", "2"]
    job("model_at", 2, "n2")
    assert gone(job, 2, "m2") == ["HELD", "n2"]
    assert gone(job, 2, "m2", node="n3") == ["LATER", 0]      # who tells must live
    assert gone(job, 2, "m2", node="n2")[0] == "LATER"        # it has it no more, and n1 had said so before
    assert waited(job) == ["TRY", "1"]
    assert gone(job, 2, "m2", 1, "") == ["TRY", "0"]
    assert gone(job, 2, "m2", 1, "other") == ["TRY", "0"]
    assert gone(job, 2, "m2", 0, "") == ["NONE"]
    assert pairs(redis("HGETALL", JOB))["version"] == "2"
    job("model_at", 2, "n2")                                  # found after all: one who restarts, say
    assert gone(job, 2, "m2", 1, "m1") == ["HELD", "n2"]
    assert redis("HEXISTS", JOB, "gone") == 0                 # the wait begins anew
    redis("DEL", "trib:node:n2")                              # silent, not declared lost
    assert gone(job, 2, "m2", 1, "m1") == ["HELD", "n2"]
    redis("SADD", "trib:nodes:lost", "n2")
    assert waited(job) == ["TRY", "1"]
    assert gone(job, 2, "m2", 1, "m1") == ["OK", "3"]
    assert gone(job, 2, "m2", 1, "m1") == ["SAME", "3"]       # sent again
    record, models = pairs(redis("HGETALL", JOB)), pairs(redis("HGETALL", "trib:{job_x}:models"))
    assert record["version"] == "3" and record["upds"] == "1", record
    assert sorted(models) == ["0", "1", "3"] and models["3"].startswith("m1|40|1|"), models
    assert redis("HGET", "trib:{job_x}:r:3", "base") == "3"
    assert gone(job, 3, "m1") == ["FROM", "1"]                # its file was not made yet: from that one
    assert redis("HGET", JOB, "version") == "3"


def test_not_once_the_next_version_is_made(job):
    update = job("checkin", "c", "u3")[4]
    job("reserve", "c", update, 3, 60000)
    assert job("commit", "c", update, 3, "dd", 5, "n1:b1:3:1", "n1")[0] == "CLOSE"
    assert job("task_done", 3, 1, 5, "m3", "n1", "")[0] == "OK"
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert gone(job, 2, "m2") == ["LATER", 0]
        time.sleep(0.1)
    assert job("publish", "5|o", 3, 2, "m3", 40) == ["OK", 3]
    assert gone(job, 2, "m2", 1, "m1") == ["STALE", "3"]
