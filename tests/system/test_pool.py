# SPDX-License-Identifier: Apache-2.0
"""Several jobs, one pool of clients: decisions of random traces against the reference simulator (on Redis alone), and
the whole service."""
import json
import os
import random
import sys

import numpy as np
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "reference"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cluster import ROOT, Job, Node, body_of, call, request, until  # noqa: E402
from simulator import Member, Pool  # noqa: E402
from test_functions import pairs, redis  # noqa: E402,F401

sys.path.insert(0, os.path.join(ROOT, "client/python"))
from tributary import Client  # noqa: E402

POOL = "trib:pool:default/phones"
VERSIONS = 50


class Trace:
    def __init__(self, r, seed):
        self.r, self.rng, self.jobs, self.tickets, self.serial = r, random.Random(seed), {}, {}, 0
        self.seed = seed
        r("FLUSHALL")
        rng = self.rng
        size, scores = rng.choice([0, rng.randint(1, 30)]), rng.choice(["share", "variance", "deviation"])
        self.pool = Pool([], size)
        for i in range(rng.randint(1, 6)):
            share, least, goal = rng.choice([0.25, 1, 1, 2, 3.7]), rng.randint(0, 4), rng.randint(1, 6)
            cap, is_async = rng.randint(goal, 15), rng.random() < 0.6
            score = rng.choice(["share", scores, scores])
            spec = {"mode": "async" if is_async else "sync", "async": {"max_staleness": 1000},
                    "pool": {"name": "phones", "share": share, "min": least, "size": size, "score": score}}
            member = Member(share, least, cap, VERSIONS, is_async, score)
            member.noise, member.rows = 10.0 ** rng.uniform(-0.7, 0.7), {}
            self.jobs[f"job_{i}"] = member
            member.id, member.goal = f"job_{i}", goal
            self.pool.members.append(member)
            self.call(member, "job_create", "5|o", member.id, "x", json.dumps(spec), goal, 1, cap, 600000, 600000,
                      VERSIONS)
            self.call(member, "model_init", "d0", 40, 10, "{}")
            self.call(member, "job_set", "5|o", "created", "running", "")
            self.call(member, "round_open", "5|o", 1, 0, goal, 1, cap, 600000)

    def call(self, member, name, *args):
        return self.r("FCALL", "trib_" + name, 1, f"trib:{{{member.id}}}:job", *args)

    def view(self):
        flat = self.r("FCALL", "trib_pool_view", 1, POOL)
        return {flat[i]: (flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)}

    def checkin(self, client):
        self.serial += 1
        words = ("FCALL", "trib_pool_checkin", 1, POOL, client, f"upd{self.serial}", "")
        job, answer = self.r(*words)
        wanted = self.pool.choose(client)
        assert job == (wanted.id if wanted else ""), (client, job, answer, self.view())
        if not wanted:
            assert answer[0] == ("WAIT" if any(m.runs for m in self.pool.members) else "DONE"), answer
            return
        assert answer[0] == "SELECTED"
        if self.rng.random() < 0.3:  # the answer was lost, the call is sent again
            assert self.r(*words)[0] == job
        self.tickets[client] = wanted, answer[4], answer[1], int(answer[2])

    def report(self, client):
        m, update, at, base = self.tickets.pop(client)
        if not m.runs or client not in m.out:
            return
        draw = np.random.default_rng([self.seed, self.serial])
        x, w = 1 + m.noise * draw.standard_normal(4), int(draw.integers(1, 5))
        answer = self.call(m, "commit", client, update, at, "d", w << 20, f"n1:b:{self.serial}:1", "n1", "",
                           f"{float(x @ x):.17g}")
        assert answer[0] in ("OK", "CLOSE"), answer
        m.rows.setdefault(int(answer[4]), []).append((x, int(answer[3]) / 2 ** 20))
        m.report(client, base)
        if answer[0] == "CLOSE":
            self.publish(m, int(answer[4]))

    def publish(self, m, n):
        r = pairs(self.r("HGETALL", f"trib:{{{m.id}}}:r:{n}"))
        rows = m.rows.pop(n)
        mean = sum(w * x for x, w in rows) / sum(w for _, w in rows)
        assert self.call(m, "task_done", n, r["acc"], r["wsum"], "m", "n1", "", f"{float(mean @ mean):.17g}") == ["OK"]
        assert self.call(m, "publish", "5|o", n, r["base"], "m", 40)[0] == "OK"
        m.publish(rows)
        if not m.asynchronous:
            assert self.call(m, "round_open", "5|o", n + 1, m.version, m.goal, 1, m.cap, 600000)[0] == "OK"

    def step(self):
        live = [m for m in self.pool.members if m.runs]
        what = self.rng.random()
        if what < 0.01 and live:
            m = self.rng.choice(live)
            m.runs = False
            assert self.call(m, "job_set", "5|o", "running", "stopped", "") == ["OK"]
        elif what < 0.45 and self.tickets:
            self.report(self.rng.choice(list(self.tickets)))
        else:
            self.checkin(f"c{self.rng.randrange(40)}")
        if self.rng.random() > 0.25:
            return
        assert self.view() == {m.id: (n, len(m.out)) for m, n in self.pool.slots().items()}


@pytest.mark.parametrize("piece", range(4))
def test_decisions_are_the_references(redis, piece):  # noqa: F811
    scored = 0
    for seed in range(50 * piece, 50 * piece + 50):
        trace = Trace(redis, seed)
        for _ in range(60):
            try:
                trace.step()
            except AssertionError:
                print("seed", seed)
                raise
        scored += len({m.value() for m in trace.jobs.values() if m.score != "share" and m.value()}) > 1
    assert scored > 5  # different jobs had different scores


def spec_of(share, size=0, auth="open"):
    return {"mode": "async", "async": {"buffer_k": 2, "concurrency": 8, "max_staleness": 100},
            "auth": {"clients": auth}, "pool": {"name": "phones", "share": share, "size": size}}


def ask(node, client, token=None, pool="phones", wait=0, **more):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if wait:
        headers["Prefer"] = f"wait={wait}"
    status, _, data = request(node.data, "POST", "/v1/checkins", {"client_id": f"c-{client}", "pool": pool, **more},
                              headers, 60)
    return status, json.loads(data)


def settled(node, client, **more):
    """The answer once it is none that the API says is to be retried."""
    answers = []
    until("an answer", lambda: answers.append(ask(node, client, **more)) or answers[-1][0] != 503, 60)
    return answers[-1]


def test_clients_are_divided_and_what_is_over_gives_its_slots_back():
    with Node() as node:
        big = Job(node, size=100, clients=8, seed=1, rounds=20, spec=spec_of(3.0, 8))
        small = Job(node, size=100, clients=8, seed=2, rounds=20, spec=spec_of(1.0, 8))
        jobs, got = {big.id: big, small.id: small}, {}
        for client in range(8):
            status, got[client] = settled(node, client)
            assert status == 200 and got[client]["status"] == "selected", got[client]
        of = [got[c]["job"] for c in range(8)]
        assert of.count(big.id) == 6 and of.count(small.id) == 2, of
        assert settled(node, 3)[1]["job"] == got[3]["job"]  # asked again: the same job
        status, told = settled(node, 99)
        assert status == 200 and (told["status"], told["why"]) == ("wait", "pool-full"), told
        assert told["retry_after"] > 0
        mine = of.index(small.id)
        call(node.api, "POST", f"/v1/jobs/{small.id}:stop")
        status, told = settled(node, 98, wait=30)
        assert status == 200 and told["job"] == big.id, told  # its two slots are the other's now
        assert settled(node, mine)[1]["job"] == big.id
        receipt = jobs[told["job"]].report(98)
        assert receipt["counted_in"] == 1, receipt
        call(node.api, "POST", f"/v1/jobs/{big.id}:stop")
        until("over", lambda: settled(node, 97)[1]["status"] == "done", 30)
        for body, want in (({"pool": "none"}, 404), ({"pool": ""}, 400), ({"pool": "a/b"}, 400),
                           ({"pool": "phones", "tenant": "other"}, 404), ({"pool": "phones", "tenant": "x" * 99}, 400)):
            assert settled(node, 1, **body)[0] == want, body
        assert request(node.data, "GET", "/v1/checkins")[0] == 405
        assert node.metric("gateway", "tributary_pool_checkins_total") > 10


def test_the_job_whose_updates_differ_more_gets_more_clients():
    with Node() as node:
        jobs, size = [], 20000  # more than the gateway takes without asking
        for seed, noise in ((1, 3.0), (2, 1.0)):
            spec = spec_of(1.0, 10)
            spec["pool"]["score"] = "variance"
            job = Job(node, size=size, clients=8, seed=seed, rounds=20, spec=spec)
            x = [(1 + noise * np.random.default_rng([seed, c]).standard_normal(size)).astype(np.float32) for c in range(2)]
            for c in range(2):
                answers = []
                ticket = job.selected(100 * seed + c)
                until("taken", lambda j=job, t=ticket, u=x[c], c=100 * seed + c, a=answers: a.append(
                    j.put(c, t, body_of(u), 1.0)[0]) or a[-1] in (200, 201), 60)
            assert job.published(1) is not None
            mean, spread = sum(x).astype(np.float64) / 2, 0.0
            for v in x:
                spread += float(((v.astype(np.float64) - mean) ** 2).sum())
            ratio = float(node.redis("HGET", f"trib:{{{job.id}}}:job", "pratio"))
            assert abs(ratio / (spread / (2 * float(mean @ mean))) - 1) < 1e-5, (ratio, spread)
            jobs.append((job, ratio))
        flat = node.redis("FCALL", "trib_pool_view", 1, POOL).split()
        slots = {flat[i]: int(flat[i + 1]) for i in range(0, len(flat), 3)}
        (noisy, a), (steady, b) = jobs
        assert slots[noisy.id] == min(8, round(10 * a / (a + b))) > slots[steady.id], (slots, a, b)
        patched = json.dumps({"spec": {"pool": {"score": "share"}}}).encode()
        for job, _ in jobs:
            call(node.api, "PATCH", f"/v1/jobs/{job.id}", patched,
                 {"Content-Type": "application/merge-patch+json", "If-Match": "*"})
        flat = node.redis("FCALL", "trib_pool_view", 1, POOL).split()
        assert [int(flat[i + 1]) for i in (0, 3)] == [5, 5], flat


def test_a_token_of_one_job_is_good_in_its_pool_and_nowhere_else():
    with Node() as node:
        jobs = [Job(node, size=100, clients=4, seed=i, rounds=9, spec=spec_of(1.0, auth="token")) for i in range(2)]
        alone = Job(node, size=100, clients=4, seed=7, rounds=9, spec={"auth": {"clients": "token"}})
        made = {j.id: call(node.api, "POST", f"/v1/jobs/{j.id}/tokens", {})["items"][0] for j in (*jobs, alone)}
        token, other = made[jobs[0].id]["token"], made[alone.id]["token"]
        bound = call(node.api, "POST", f"/v1/jobs/{jobs[0].id}/tokens", {"client": "c-5"})["items"][0]["token"]
        got = [settled(node, c, token=token)[1] for c in range(2)]
        assert {g["job"] for g in got} == {j.id for j in jobs}, got
        for client, ticket in enumerate(got):
            job = next(j for j in jobs if j.id == ticket["job"])
            bearer = {"Authorization": f"Bearer {token}"}
            answers = []
            until("a receipt", lambda: answers.append(job.put(client, ticket, extra=bearer)) or  # noqa: B023
                  answers[-1][0] not in (429, 503), 60)  # noqa: B023
            assert answers[-1][0] in (200, 201), answers
            assert job.put(client, ticket, extra={"Authorization": f"Bearer {other}"})[0] == 401
        assert settled(node, 5, token=bound)[0] == 200 and settled(node, 6, token=bound)[0] == 401
        assert settled(node, 8)[0] == 404 and settled(node, 8, token=other)[0] == 401
        assert settled(node, 8, token="flk_" + "x" * 43)[0] == 401 and settled(node, 8, token="junk")[0] == 401
        call(node.api, "DELETE", f"/v1/jobs/{jobs[0].id}/tokens/{made[jobs[0].id]['id']}")
        assert settled(node, 1, token=token)[0] == 401


def test_the_python_client_serves_all_jobs_of_a_pool():
    with Node() as node:
        jobs = {}
        for i in range(2):
            spec = {**spec_of(1.0), "client_config": {"n": i}}
            spec["async"] = {"buffer_k": 1, "concurrency": 8}
            job = Job(node, size=100, clients=4, seed=i, rounds=3, spec=spec)
            jobs[i] = job
        seen = []

        def train(params, config, _round):
            base = np.concatenate([params[name].ravel() for name in params])
            if not any(j.version() for j in jobs.values()):
                assert sorted(base.tolist()) == sorted(jobs[config["n"]].base.tolist())  # of the right job
            seen.append(config["n"])
            return {name: np.ones_like(value) for name, value in params.items()}, 1

        with Client(node.data, None, "phone", pool="phones") as client:
            result = client.run(train, wait=5)
        assert result["rounds"] >= 6 and result["state"] == "finished", result
        assert min(seen.count(0), seen.count(1)) >= 3, seen  # and what it was asked for while a job was ending
        assert [j.version() for j in jobs.values()] == [3, 3]
    with pytest.raises(ValueError):
        Client("http://127.0.0.1:1", "job_x", "phone", pool="phones")


def test_a_pool_has_room_for_so_many_jobs(redis):  # noqa: F811
    redis("FLUSHALL")
    spec = json.dumps(spec_of(1.0))

    def create(i):
        return redis("FCALL", "trib_job_create", 1, f"trib:{{job_{i}}}:job", "5|o", f"job_{i}", "x", spec, 2, 1, 8, 9, 9,
                     9)[0]

    assert [create(i) for i in range(64)] == ["OK"] * 64
    assert create(64) == "FULL" and redis("EXISTS", "trib:{job_64}:job") == 0
    assert create(3) == "EXISTS"
    redis("FCALL", "trib_job_set", 1, "trib:{job_3}:job", "5|o", "created", "stopped", "")
    assert create(64) == "OK" and create(65) == "FULL"
    assert redis("FCALL", "trib_job_delete", 1, "trib:{job_4}:job", "5|o", "0")[0] == "OK"
    assert create(65) == "OK" and redis("ZCARD", POOL) == 64
