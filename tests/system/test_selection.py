# SPDX-License-Identifier: Apache-2.0
"""Label selectors: random ones against a second implementation (on Redis alone), and the whole service."""
import json
import os
import random
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cluster import ROOT, Job, Node, call, request, until  # noqa: E402
from test_functions import redis  # noqa: E402,F401

sys.path.insert(0, os.path.join(ROOT, "client/python"))
from tributary import Admin, Client  # noqa: E402

KEYS = ("region", "a.b/c", "tier", "x")
VALUES = ("", "eu", "us", "1.0")


def matches(selector, labels):
    """As Kubernetes has it: all conditions hold; NotIn also when the label is not there."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for e in selector.get("matchExpressions", []):
        there = e["key"] in labels
        among = there and labels[e["key"]] in e.get("values", [])
        if not {"In": among, "NotIn": not among, "Exists": there, "DoesNotExist": not there}[e["operator"]]:
            return False
    return True


def random_labels(rng, most=4):
    return {k: rng.choice(VALUES) for k in rng.sample(KEYS, rng.randint(0, min(most, len(KEYS))))}


def random_selector(rng):
    selector = {}
    if rng.random() < 0.6:
        selector["matchLabels"] = random_labels(rng, 2)
    if rng.random() < 0.7:
        selector["matchExpressions"] = []
        for _ in range(rng.randint(0, 3)):
            e = {"key": rng.choice(KEYS), "operator": rng.choice(("In", "NotIn", "Exists", "DoesNotExist"))}
            if e["operator"] in ("In", "NotIn"):
                e["values"] = rng.sample(VALUES, rng.randint(1, 3))
            selector["matchExpressions"].append(e)
    return selector


def text_of(labels):
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


@pytest.mark.parametrize("mode", ("sync", "async"))
def test_random_selectors(redis, mode):  # noqa: F811
    rng, met = random.Random(7), {True: 0, False: 0}
    for n in range(300):
        redis("FLUSHALL")
        jobs = []
        for i in range(2):
            selector, source = random_selector(rng), rng.choice(("any", "any", "token"))
            spec = {"mode": mode, "selection": {"labels": selector, "labels_from": source}, "pool": {"name": "p"}}
            key = f"trib:{{job_{i}}}:job"
            redis("FCALL", "trib_job_create", 1, key, "5|o", f"job_{i}", "x", json.dumps(spec), 9, 1, 9, 600000,
                  600000, 100)
            redis("FCALL", "trib_model_init", 1, key, "d0", 40, 10, "{}")
            redis("FCALL", "trib_job_set", 1, key, "5|o", "created", "running", "")
            redis("FCALL", "trib_round_open", 1, key, "5|o", 1, 0, 9, 1, 9, 600000)
            jobs.append((key, selector, source))
        for serial in range(3):
            said, bound, token = random_labels(rng), random_labels(rng), ""
            if rng.random() < 0.5:
                token = f"{n:060x}{serial:04x}"
                redis("FCALL", "trib_tokens_issue", 1, jobs[0][0], "5|o", "", "client", 600000, token, text_of(bound))
            else:
                bound = {}
            good = [matches(s, bound if source == "token" else {**said, **bound}) for _, s, source in jobs]
            client = f"c{serial}"
            answer = redis("FCALL", "trib_checkin", 1, jobs[0][0], client, f"u{n}.{serial}", text_of(said), token)
            assert answer[0] == ("SELECTED" if good[0] else "INELIGIBLE"), (jobs[0], said, bound, answer)
            met[good[0]] += 1
            job, answer = redis("FCALL", "trib_pool_checkin", 1, "trib:pool:default/p", client, f"p{n}.{serial}",
                                token, text_of(said))
            if good[0]:
                assert job == "job_0", answer  # it has a place there
            elif good[1]:
                assert (job, answer[0]) == ("job_1", "SELECTED"), answer
            else:
                assert (job, answer[0]) == ("", "INELIGIBLE"), answer
    assert min(met.values()) > 100, met


def ask(node, path, headers=None, **body):
    status, _, data = request(node.data, "POST", path, body, headers, 60)
    while status == 503:
        status, _, data = request(node.data, "POST", path, body, headers, 60)
    return status, json.loads(data)


def wanting(selector, **more):
    return {"selection": {"labels": selector, **more}}


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


def test_who_does_not_match_is_told_at_once_what_is_wanted(node):
    job = Job(node, size=50, clients=2, seed=1, spec=wanting({"matchExpressions": [
        {"key": "region", "operator": "In", "values": ["eu", "us"]}]}))
    path = f"/v1/jobs/{job.id}/checkins"
    before = node.metric("gateway", 'tributary_checkins_total{status="not-eligible"}')
    for labels in ({}, {"region": "ap"}, None):
        status, told = ask(node, path, {"Prefer": "wait=60"}, client_id="c-0", labels=labels)
        assert status == 200 and (told["status"], told["why"]) == ("wait", "not-eligible"), told
        assert told["wanted"] == "region In (eu,us)" and 15 <= told["retry_after"] <= 90, told
    assert node.metric("gateway", 'tributary_checkins_total{status="not-eligible"}') == before + 3
    for labels in (["a"], {"a": 1}, {"a b": "1"}, {"a": "1,region=eu"}, {"k": "v" * 64},
                   {f"k{i}": "" for i in range(17)}):
        status, told = ask(node, path, client_id="c-0", labels=labels)
        assert status == 400 and told["code"] == "bad-request", (labels, told)
    status, told = ask(node, path, client_id="c-0", labels={"region": "eu"})
    assert status == 200 and told["status"] == "selected", told
    # The place is its own whatever it says next, and whatever the job asks for next.
    call(node.api, "PATCH", f"/v1/jobs/{job.id}", {"spec": wanting({"matchLabels": {"region": "us"}})},
         {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    status, again = ask(node, path, client_id="c-0", labels={})
    assert again["status"] == "selected" and again["upload"]["url"] == told["upload"]["url"]
    status, told = ask(node, path, client_id="c-1", labels={"region": "eu"})
    assert told["why"] == "not-eligible", told
    with Client(node.data, job.id, "c-1", labels={"region": "us"}) as client:
        ticket = client.checkin(wait=0)
        assert ticket["status"] == "selected", ticket
    assert job.put(0, again)[0] == 201 and job.put(1, ticket)[0] == 201
    job.check(job.published(1))


def test_labels_of_tokens(node):
    admin = Admin(node.api)
    spec = {"auth": {"clients": "token"}, **wanting({"matchLabels": {"tier": "gold"}})}
    job = Job(node, size=50, clients=8, seed=2, spec=spec)
    path = f"/v1/jobs/{job.id}/checkins"
    gold = admin.issue_tokens(job.id, labels={"tier": "gold", "region": "eu"})[0]
    iron = admin.issue_tokens(job.id, labels={"tier": "iron"})[0]
    plain = admin.issue_tokens(job.id)[0]
    assert gold["labels"] == {"tier": "gold", "region": "eu"} and plain["labels"] == {}
    listed = {t["id"]: t["labels"] for t in admin.tokens(job.id)}
    assert listed == {t["id"]: t["labels"] for t in (gold, iron, plain)}

    def told(token, client, **labels):
        status, answer = ask(node, path, {"Authorization": "Bearer " + token["token"]}, client_id=client, labels=labels)
        assert status == 200, answer
        return answer["why"] if answer["status"] == "wait" else answer["status"]
    assert told(gold, "c-0") == "selected"
    assert told(gold, "c-1", tier="iron") == "selected"  # the token's go first
    assert told(iron, "c-2", tier="gold") == "not-eligible"
    assert told(plain, "c-3", tier="gold") == "selected"  # nothing is said of its holder
    call(node.api, "PATCH", f"/v1/jobs/{job.id}", {"spec": {"selection": {"labels_from": "token"}}},
         {"If-Match": "*", "Content-Type": "application/merge-patch+json"})
    assert told(plain, "c-4", tier="gold") == "not-eligible"
    assert told(gold, "c-5") == "selected"
    status, _, data = request(node.api, "POST", f"/v1/jobs/{job.id}/tokens", {"labels": {"a|b": "1"}})
    assert status == 400 and json.loads(data)["code"] == "bad-request"


def test_a_pool_gives_a_client_a_job_that_wants_it(node):
    def member(seed, region):
        return Job(node, size=50, clients=4, seed=seed, spec={
            "mode": "async", "async": {"buffer_k": 4, "concurrency": 4}, "pool": {"name": "phones"},
            **wanting({"matchLabels": {"region": region}})})
    jobs = {r: member(i, r) for i, r in enumerate(("eu", "us"), 5)}
    for i, region in enumerate(("us", "us", "eu", "us")):
        with Client(node.data, None, f"c-{i}", pool="phones", labels={"region": region}) as client:
            until("selected", lambda c=client, r=region: c.checkin(wait=5).get("job") == jobs[r].id, 60)
    status, told = ask(node, "/v1/checkins", client_id="c-9", pool="phones", labels={"region": "ap"})
    assert status == 200 and told["why"] == "not-eligible" and told["wanted"].startswith("region In ("), told
