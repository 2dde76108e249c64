# SPDX-License-Identifier: Apache-2.0
"""Quotas of tenants: random calls on Redis alone, whose use is counted a second time from the raw records; and the whole
service, with programs killed while quotas are used up."""
import json
import os
import random
import socket
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cluster import BIN, Job, Node, body_of, call, request, until  # noqa: E402
from test_functions import pairs, redis  # noqa: E402,F401

NAMES = ("jobs", "clients", "slots", "bytes")


def key(job):
    return f"trib:{{{job}}}:job"


class World:
    def __init__(self, r, rng):
        self.r, self.rng, self.serial = r, rng, 0
        r("FLUSHALL")
        self.limits = {"acme": (4, 5, 9, 6000), "other": (4, 5, 3, 0)}  # "other" is "*"
        text = ",".join(f"{'*' if t == 'other' else t}=" + "|".join(map(str, v)) for t, v in self.limits.items())
        assert r("FCALL", "trib_quotas_set", 1, "trib:quotas", "5|o", text) == ["OK"]
        self.jobs = {t: [] for t in self.limits}
        self.out = {}  # (job, client) -> (update, round), as the answers said
        self.refused = dict.fromkeys(("jobs", "clients", "slots", "bytes"), 0)

    def call(self, job, name, *args):
        return self.r("FCALL", "trib_" + name, 1, key(job), *args)

    def said(self, answer):
        if answer[0] == "QUOTA":
            name, limit, used = answer[1].replace(": limit ", " ").replace(", used ", " ").split()
            assert int(limit) > 0 and int(used) <= int(limit), answer
            self.refused[name] += 1
        return answer[0]

    def create(self, tenant):
        self.serial += 1
        job, mode = f"job_{self.serial}", self.rng.choice(("sync", "async"))
        spec = json.dumps({"mode": mode, "async": {"max_staleness": 1000}})
        answer = self.call(job, "job_create", "5|o", job, "x", spec, 4, 1, 4, 600000,
                           self.rng.choice((60, 20000, 20000)), 100, tenant)
        live = len(self.jobs[tenant])
        assert self.said(answer) == ("OK" if live < self.limits[tenant][0] else "QUOTA"), (live, answer)
        if answer[0] == "OK":
            self.jobs[tenant].append(job)
            self.call(job, "model_init", "d0", self.rng.choice((1000, 4000)), 10, "{}")
            self.call(job, "job_set", "5|o", "created", "running", "")
            self.call(job, "round_open", "5|o", 1, 0, 4, 1, 4, 600000)

    def step(self):
        tenant = self.rng.choice(list(self.jobs))
        what = self.rng.random()
        if what < 0.08 or not self.jobs[tenant]:
            return self.create(tenant)
        job = self.rng.choice(self.jobs[tenant])
        mine = [k for k in self.out if k[0] == job]
        if what < 0.11:
            self.jobs[tenant].remove(job)
            assert self.call(job, "job_set", "5|o", "running", "stopped", "") == ["OK"]
        elif what < 0.45 or not mine:
            client = f"c{self.rng.randrange(8)}"
            self.serial += 1
            answer = self.call(job, "checkin", client, f"u{self.serial}")
            if self.said(answer) == "SELECTED":
                self.out[job, client] = answer[4], answer[1]
        else:
            job, client = self.rng.choice(mine)
            update, at = self.out[job, client]
            if what < 0.75:
                self.said(self.call(job, "reserve", client, update, at, self.rng.choice((60, 60, 20000))))
            elif what < 0.82:
                self.call(job, "release", client, update, at)
            else:
                self.call(job, "commit", client, update, at, "d", 1 << 20, f"n1:b:{self.serial}:1", "n1")
                self.out.pop((job, client))
        if self.rng.random() < 0.03:
            time.sleep(0.08)  # leases end

    def recount(self, tenant):
        """From the records, another way: places of the hashes, reservations of the sorted set."""
        t = self.r("TIME")
        now = int(t[0]) * 1000 + int(t[1]) // 1000
        use = dict.fromkeys(NAMES, 0)
        for name in self.r("KEYS", "trib:{*}:job"):
            j = pairs(self.r("HGETALL", name))
            if j["tenant"] != tenant or j["state"] not in ("created", "running", "paused"):
                continue
            use["jobs"] += 1
            places = self.r("ZRANGE", name[:-3] + "infl", 0, -1, "WITHSCORES") + \
                self.r("ZRANGE", f"{name[:-3]}r:{j['round']}:sel", 0, -1, "WITHSCORES")
            use["clients"] += sum(now < float(s) < float("inf") for s in places[1::2])
            up = sum(now < float(s) for s in self.r("ZRANGE", name[:-3] + "up", 0, -1, "WITHSCORES")[1::2])
            use["slots"], use["bytes"] = use["slots"] + up, use["bytes"] + up * int(j.get("bytes") or 0)
        return use

    def check(self):
        for tenant, limits in self.limits.items():
            while True:
                before = self.recount(tenant)
                text = self.r("FCALL", "trib_tenants_view", 1, "trib:quotas", tenant)[1]
                if before == self.recount(tenant):  # no lease ended in between
                    break
            told = {n: tuple(map(int, v.split("|"))) for n, v in
                    (p.split("=") for p in text.split(";")[1].split(","))}
            assert told == {n: (limits[i], before[n]) for i, n in enumerate(NAMES)}
            for i, n in enumerate(NAMES):
                assert not limits[i] or before[n] <= limits[i], (tenant, n, before)


def test_random_calls_never_exceed_and_never_drift(redis):  # noqa: F811
    refused = dict.fromkeys(NAMES, 0)
    for seed in range(3):
        world = World(redis, random.Random(seed))
        for n in range(400):
            try:
                world.step()
                if n % 5 == 0:
                    world.check()
            except AssertionError:
                print("seed", seed, "step", n)
                raise
        for name, count in world.refused.items():
            refused[name] += count
    assert all(refused.values()), refused


def test_quotas_of_a_former_leader_are_refused(redis):  # noqa: F811
    redis("FLUSHALL")
    redis("SET", "trib:fence", 7)
    assert redis("FCALL", "trib_quotas_set", 1, "trib:quotas", "6|a", "*=1|0|0|0") == ["FENCED"]
    assert redis("FCALL", "trib_quotas_set", 1, "trib:quotas", "7|b", "*=1|0|0|0") == ["OK"]
    assert redis("FCALL", "trib_quotas_set", 1, "trib:quotas", "7|b", "") == ["OK"]
    assert redis("EXISTS", "trib:quotas") == 0


def write(path, quotas):
    with open(path + ".new", "w") as f:
        f.write(quotas if isinstance(quotas, str) else json.dumps(quotas))
    os.rename(path + ".new", path)


def tenant(node):
    return call(node.api, "GET", "/v1/tenants/default")


def begin(node, job, client, ticket, part):
    """An upload that has sent so much of its body."""
    u = urllib.parse.urlsplit(node.data)
    body = body_of(job.update(client, ticket["round"])[0])
    fields = {**job.headers(client, ticket, 1.0), "Content-Length": len(body), "Host": u.netloc}
    s = socket.create_connection((u.hostname, u.port), 30)
    s.sendall(f"PUT {ticket['upload']['url']} HTTP/1.1\r\n".encode() +
              "".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n" + body[:part])
    return s


def test_the_service_keeps_to_quotas_whatever_is_killed(tmp_path):
    path = str(tmp_path / "quotas.json")
    write(path, {"default": {"jobs": 2, "clients": 3, "slots": 1}})
    with Node("--quotas", path, "--body-grace-ms", "600000") as node:
        until("quotas in force", lambda: tenant(node)["quotas"]["jobs"] == 2, 60)
        job = Job(node, size=20000, clients=6, goal=4, seed=3)
        second = Job(node, size=100, clients=2, seed=4, spec={"mode": "async", "async": {"concurrency": 5, "buffer_k": 5}})
        doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "third"}, "spec": {}}

        def submit(expect):
            got = request(node.api, "POST", "/v1/jobs", doc)
            if got[0] == 503:  # no leader just now
                return None
            return got if got[0] == expect else None
        status, head, data = until("refused", lambda: submit(429), 60)
        told = json.loads(data)
        assert told["code"] == "quota-exceeded" and "jobs: limit 2, used 2" in told["detail"], told
        assert int(head["retry-after"]) >= 1
        assert node.metric("orchestrator", 'tributary_quota_refused_total{quota="jobs"}') >= 1
        # places: of both jobs together
        tickets = {c: job.selected(c) for c in range(2)}
        second.selected(0)
        for j in (job, second):
            answer = j.checkin(5)
            assert (answer["status"], answer["why"]) == ("wait", "quota"), answer
            assert answer["quota"] == "clients: limit 3, used 3" and answer["retry_after"] > 0
        # slots: one upload at a time
        slow = begin(node, job, 0, tickets[0], 50000)
        until("it is under way", lambda: tenant(node)["use"]["slots"] == 1, 60)
        assert tenant(node)["use"] == {"jobs": 2, "clients": 3, "slots": 1, "bytes": 80000}
        status, head, told = job.put(1, tickets[1])
        assert status == 429 and told["code"] == "quota-exceeded", (status, told)
        assert "slots: limit 1, used 1" in told["detail"] and "retry-after" in head
        write(path, '{"default": {"jobs": -1}}')  # not valid: what was in force stays
        until("said so", lambda: node.metric("orchestrator", "tributary_quotas_unusable_total") >= 1, 60)
        write(path, {"tenants": {"default": {"jobs": 3, "clients": 3, "slots": 1}}})
        for name in ("orchestrator", "gateway"):
            node.kill(name)
        slow.close()
        until("back", node.ready, 60)
        until("in force", lambda: request(node.api, "GET", "/v1/tenants/default")[0] == 200 and
              tenant(node)["quotas"] == {"jobs": 3, "clients": 3, "slots": 1, "bytes": None}, 60)
        assert until("taken now", lambda: submit(201), 60)
        # The killed upload's client comes again: its reservation is its own. Then everybody's turn comes.
        for client in range(4):
            job.report(client)
        job.published(1)
        until("nothing is under way", lambda: tenant(node)["use"]["slots"] == 0, 60)
        listed = call(node.api, "GET", "/v1/tenants")["items"]
        assert [t["tenant"] for t in listed] == ["default"] and listed[0]["use"]["jobs"] <= 3
        for j in (job, second):
            request(node.api, "POST", f"/v1/jobs/{j.id}:stop")
        until("given back", lambda: tenant(node)["use"]["jobs"] == 1, 60)
        out = os.popen(f"{BIN}/tributary tenants --api {node.api}").read()
        assert "default" in out and "1/3" in out, out


def test_a_broken_file_does_not_start(tmp_path):
    for n, text in enumerate(("", "[]", '{"x": {}}', '{"default": {"jobs": 1.5}}', '{"default": {"job": 1}}',
                              '{"tenants": {"A b": {}}}', '{"tenants": []}', '{"default": {"bytes": 1e99}}')):
        path = tmp_path / f"{n}.json"
        path.write_text(text)
        done = os.spawnl(os.P_WAIT, f"{BIN}/tributary-orchestrator", "tributary-orchestrator", "--listen", "127.0.0.1:0",
                         "--admin", "127.0.0.1:0", "--redis", f"unix:{tmp_path}/none", "--quotas", str(path))
        assert done == 1, (text, done)
