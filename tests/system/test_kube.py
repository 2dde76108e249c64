# SPDX-License-Identifier: Apache-2.0
"""Jobs as objects of Kubernetes, against a small API server of our own (tests/k8s/fake_api.py) over TLS: what is
applied runs, what is changed is in force, what is deleted goes, once each, whatever becomes of watches and leaders."""
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import yaml

from cluster import BIN, ROOT, Certificates, Job, Node, body_of, call, request, until

sys.path.insert(0, os.path.join(ROOT, "tests/k8s"))
import crd  # noqa: E402
import fake_api  # noqa: E402

FINALIZER = "tributary.io/job"
LIMIT = 60


@pytest.fixture(scope="module")
def world():
    """(API server, node whose orchestrator watches it, the environment that makes one do so)"""
    with tempfile.TemporaryDirectory(prefix="kube-") as folder:
        certificates = Certificates(folder)
        api = fake_api.FakeApi(certificates.make("api", "IP:127.0.0.1"), "token-1")
        token = os.path.join(folder, "token")
        with open(token, "w", encoding="utf-8") as f:
            f.write("token-1\n")
        env = {"TRIBUTARY_KUBE_API": api.url, "TRIBUTARY_KUBE_TOKEN_FILE": token,
               "TRIBUTARY_KUBE_CA": certificates.ca + ".pem"}
        api.token_file = token
        try:
            with Node(env=env) as node:
                yield api, node, env
        finally:
            api.stop()


def spec_of(goal=2, **more):
    return {"sync": {"goal": goal, "deadline_s": 120}, "stop": {"rounds": 1}, **more}


def jobs(node):
    return call(node.api, "GET", "/v1/jobs?limit=100")["items"]


def jobs_of(node, api, name):
    uid = api.get(name)["metadata"]["uid"]
    return [j for j in jobs(node) if j["metadata"].get("labels", {}).get("tributary.io/uid") == uid]


def accepted(api, name):
    return next((c for c in api.status(name).get("conditions", []) if c["type"] == "Accepted"), {})


def created(api, name):
    until(f"{name} has a job", lambda: api.status(name).get("job"), LIMIT)
    return api.status(name)["job"]


def as_job(node, id_, clients):
    """The helper's Job for a job that is there."""
    job = Job.__new__(Job)
    job.node, job.id, job.size, job.clients, job.seed = node, id_, 200, clients, 1
    job.base = np.zeros(200, dtype=np.float32)
    return job


def remove(api, name):
    api.delete(name)
    until(f"{name} is gone", lambda: api.get(name) is None, LIMIT)


def test_the_definition_is_the_orchestrators_own(world):
    _, node, _ = world
    openapi = call(node.api, "GET", "/v1/openapi.json")
    with open(os.path.join(ROOT, "k8s/base/crd/aggregationjobs.yaml"), encoding="utf-8") as f:
        kept = yaml.safe_load(f)
    assert kept == crd.document(openapi), "tests/k8s/crd.py OPENAPI.JSON > k8s/base/crd/aggregationjobs.yaml"


def test_applied_trained_deleted(world):
    api, node, _ = world
    api.apply("digits", spec_of())
    id_ = created(api, "digits")
    assert FINALIZER in api.get("digits")["metadata"]["finalizers"]
    doc = call(node.api, "GET", f"/v1/jobs/{id_}")
    assert doc["metadata"]["name"] == "digits" and doc["status"]["tenant"] == "default"
    assert doc["metadata"]["labels"]["tributary.io/namespace"] == "default"
    assert doc["spec"]["sync"]["goal"] == 2
    assert accepted(api, "digits")["status"] == "True"
    job = as_job(node, id_, 2)
    call(node.data, "PUT", f"/v1/jobs/{id_}/models/0", body_of(job.base))
    until("running", lambda: api.status("digits").get("phase") == "Running" and api.status("digits")["round"] == 1,
          LIMIT)
    for client in range(2):
        ticket = job.selected(client)

        def taken(client=client, ticket=ticket):
            status, _, receipt = job.put(client, ticket, weight=1.0, extra={"FL-Metrics": "accuracy=0.75, loss=0.5"})
            assert status in (200, 201, 429, 503), receipt
            return status in (200, 201)
        until("taken", taken, LIMIT)
    until("status tells", lambda: api.status("digits").get("phase") == "Succeeded", LIMIT)
    status = api.status("digits")
    assert status["version"] == 1 and status["counted"] == 2 and status["observedGeneration"] == 1
    assert status["accuracy"] == 0.75 and status["metrics"]["loss"] == 0.5
    remove(api, "digits")
    assert request(node.api, "GET", f"/v1/jobs/{id_}")[0] == 404


def test_a_wrong_spec_is_told_and_can_be_put_right(world):
    api, node, _ = world
    api.apply("wrong", {"sync": {"goal": 3, "quorum": 4, "gaol": 1}})
    until("told", lambda: accepted(api, "wrong").get("status") == "False", LIMIT)
    told = accepted(api, "wrong")
    assert told["reason"] == "InvalidSpec" and told["observedGeneration"] == 1
    assert "/spec/sync/quorum" in told["message"] and "/spec/sync/gaol" in told["message"]
    assert api.status("wrong")["phase"] == "Refused" and not jobs_of(node, api, "wrong")
    api.apply("wrong", {"sync": {"goal": 3}})
    id_ = created(api, "wrong")
    until("accepted", lambda: accepted(api, "wrong").get("status") == "True", LIMIT)

    # a change: in force, and what is no longer said goes back to its default
    api.apply("wrong", {"sync": {"goal": 4, "deadline_s": 77}, "stop": {"rounds": 9}})
    until("changed", lambda: api.status("wrong")["observedGeneration"] == 3, LIMIT)
    spec = call(node.api, "GET", f"/v1/jobs/{id_}")["spec"]
    assert (spec["sync"]["goal"], spec["sync"]["quorum"], spec["sync"]["deadline_s"], spec["stop"]["rounds"]) == \
        (4, 4, 77, 9)
    api.apply("wrong", {"sync": {"goal": 4}})
    until("changed back", lambda: api.status("wrong")["observedGeneration"] == 4, LIMIT)
    spec = call(node.api, "GET", f"/v1/jobs/{id_}")["spec"]
    assert (spec["sync"]["deadline_s"], spec["stop"]["rounds"]) == (600, 100)

    # one that cannot be
    api.apply("wrong", {"sync": {"goal": 4}, "model": {"max_bytes": 1000}})
    until("refused", lambda: accepted(api, "wrong").get("status") == "False", LIMIT)
    assert accepted(api, "wrong")["reason"] == "InvalidChange"
    assert "/spec/model/max_bytes" in accepted(api, "wrong")["message"]
    assert api.status("wrong")["job"] == id_
    remove(api, "wrong")
    assert request(node.api, "GET", f"/v1/jobs/{id_}")[0] == 404


def test_watches_that_end_versions_that_are_gone_servers_that_restart(world):
    api, node, _ = world
    api.apply("w1", spec_of())
    created(api, "w1")
    lists, watches = api.count("list"), api.count("watch")
    api.cut()
    until("watched again", lambda: api.count("watch") > watches, LIMIT)
    api.apply("w2", spec_of())
    created(api, "w2")
    assert api.count("list") == lists  # from where it was
    api.expire()
    until("listed again", lambda: api.count("list") > lists, LIMIT)
    watches = api.count("watch")
    api.cut()
    until("watching", lambda: api.count("watch") > watches, LIMIT)
    for line in ("{", '{"type":"ADDED","object":{"metadata":{"resourceVersion":"1/2"}}}'):
        lists, watches = api.count("list"), api.count("watch")
        api.say(line)
        until("listed again, watching", lambda: api.count("list") > lists and api.count("watch") > watches, LIMIT)
    odd = {"uid": "../x", "namespace": "a/b", "name": "..", "resourceVersion": str(api.version), "generation": 1}
    api.say(json.dumps({"type": "ADDED", "object": {"metadata": odd, "spec": {}}}))  # its path would be elsewhere
    api.stop()
    api.apply("w3", spec_of())  # not heard of
    with api.lock:
        gone = api.objects.pop(("default", "w1"))  # nor that somebody took this away, finalizer and all
    api.expire()
    api.start()
    created(api, "w3")
    assert node.metric("orchestrator", "tributary_kube_odd_total") >= 3
    until("w1 forgotten", lambda: node.metric("orchestrator", "tributary_kube_objects") == 2, LIMIT)
    with api.lock:
        api.objects["default", "w1"] = gone
        api.changed("ADDED", gone)
    until("known again", lambda: node.metric("orchestrator", "tributary_kube_objects") == 3, LIMIT)
    for name in ("w1", "w2", "w3"):
        assert len(jobs_of(node, api, name)) == 1
        remove(api, name)


def test_a_new_token_is_used(world):
    api, _, _ = world
    api.token = "token-2"
    api.cut()
    with open(api.token_file, "w", encoding="utf-8") as f:
        f.write("token-2")
    api.apply("t", spec_of())
    created(api, "t")
    remove(api, "t")


def test_status_does_not_command_the_jobs_of_others(world):
    api, node, _ = world
    other = call(node.api, "POST", "/v1/jobs", {"apiVersion": "tributary/v1", "kind": "AggregationJob",
                                                "metadata": {"name": "other"}})["metadata"]["id"]
    api.apply("thief", spec_of(), status={"job": other})
    until("its own", lambda: api.status("thief").get("job") != other, LIMIT)
    remove(api, "thief")
    assert call(node.api, "GET", f"/v1/jobs/{other}")["status"]["phase"] == "Pending"
    call(node.api, "DELETE", f"/v1/jobs/{other}?force=1")


def test_another_leader_goes_on_and_makes_nothing_twice(world):
    api, node, env = world
    api.apply("first", spec_of())
    first = created(api, "first")
    file = os.path.join(node.dir, "second.json")
    with open(os.path.join(node.dir, "second.log"), "ab") as log, contextlib.ExitStack() as stack:
        second = subprocess.Popen(
            [os.path.join(BIN, "tributary-orchestrator"), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
             "--redis", node.endpoints()["redis"], "--id", "second", "--data-url", node.data, "--addr-file", file],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **env})
        stack.callback(second.wait)
        stack.callback(second.kill)
        until("second started", lambda: os.path.exists(file), LIMIT)
        old = node.kill("orchestrator", signal.SIGSTOP)
        stack.callback(os.kill, old, signal.SIGCONT)
        api.apply("next", spec_of())
        # What the old leader did not come to tell: the job is there, status does not say so.
        with api.lock:
            api.objects["default", "first"]["status"] = {}
            api.changed("MODIFIED", api.objects["default", "first"])
        created(api, "next")
        assert created(api, "first") == first
        os.kill(old, signal.SIGCONT)
        with open(file, encoding="utf-8") as f:
            here = json.load(f)["api"]
        uids = [j["metadata"]["labels"]["tributary.io/uid"] for j in call(here, "GET", "/v1/jobs?limit=100")["items"]]
        assert len(uids) == len(set(uids))
        assert {api.get(name)["metadata"]["uid"] for name in ("first", "next")} <= set(uids)
        for name in ("first", "next"):
            remove(api, name)


def test_an_object_that_nobody_can_read_does_not_keep_others_waiting(world):
    """Whoever may make objects may make them of 1.5 MiB, and with texts that no parser here takes."""
    api, node, _ = world
    odd = {"large": "y" * 1_100_000, "nul": "a\0b"}
    for name, value in odd.items():
        api.apply(name, {"client_config": {"x": value}})
    api.apply("small", spec_of())
    created(api, "small")
    for name in odd:
        until(f"{name} is told", lambda n=name: accepted(api, n).get("status") == "False", LIMIT)
        assert api.status(name)["phase"] == "Refused" and "/spec" in accepted(api, name)["message"]
    api.expire()  # a listing, too
    api.apply("later", spec_of())
    created(api, "later")
    assert len(jobs_of(node, api, "small")) == 1
    api.apply("large", {})  # and can be put right
    created(api, "large")
    for name in (*odd, "small", "later"):
        remove(api, name)
