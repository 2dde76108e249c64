# SPDX-License-Identifier: Apache-2.0
"""orchestrator/functions/ alone, on a redis-server of its own: random transitions, each of which may be sent again
at any later time (as common/redis.c does after a broken connection). After every call the sums of the record are the
sums of its parts, and what was counted stays counted unless it was declared lost."""
import hashlib
import json
import os
import random
import socket
import subprocess
import time

import pytest

from cluster import ROOT, until

JOB = "trib:{job_x}:job"
NODES = ("n1", "n2")


class Redis:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        self.f = self.s.makefile("rb")

    def __call__(self, *words):
        return self.many([words])[0]

    def many(self, calls):
        """The answers of several calls, sent at once."""
        out = b""
        for words in calls:
            data = [str(w).encode() for w in words]
            out += b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in data)
        self.s.sendall(out)
        return [self.read() for _ in calls]

    def read(self):
        line = self.f.readline()[:-2]
        kind, rest = line[:1], line[1:].decode()
        if kind == b"$":
            n = int(rest)
            return None if n < 0 else self.f.read(n + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        assert kind != b"-", rest
        return int(rest) if kind == b":" else rest


def connected(path):
    """None while there is nobody: the socket is there before its server listens."""
    try:
        return Redis(path)
    except OSError:
        return None


def library():
    """The text that the orchestrator loads: the folder's files in the order of their names (Makefile)."""
    folder = os.path.join(ROOT, "orchestrator/functions")
    text = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name)) as f:
            text.append(f.read())
    return "".join(text)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    path = str(folder / "r.sock")
    process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir",
                                str(folder), "--hash-max-listpack-entries", "0"], stdout=subprocess.DEVNULL)
    try:
        r = until("redis", lambda: connected(path), 30)
        r("FUNCTION", "LOAD", "REPLACE", library())
        yield r
    finally:
        process.terminate()
        process.wait(10)


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


class World:
    """What the callers of one job would do; every call is kept, to be sent again."""

    def __init__(self, redis, seed, spec="{}"):
        self.r, self.rng, self.sent = redis, random.Random(seed), []
        self.clients = [f"c{i}" for i in range(self.rng.randint(2, 7))]
        self.goal = self.rng.randint(1, len(self.clients))
        self.selmax = self.rng.randint(self.goal, len(self.clients))
        self.boot = {n: 1 for n in NODES}
        self.tickets, self.receipts, self.serial, self.losing = {}, {}, 0, []
        self.paged = False
        self.goal_max, self.selmax_max, self.patches = self.goal, self.selmax, False
        redis("FLUSHALL")
        self.call("job_create", "5|o", "job_x", "x", spec, self.goal, 1, self.selmax, 40, 3, 1000)
        self.call("model_init", "d0", 40, 10, "{}")
        self.call("job_set", "5|o", "created", "running", "")

    def call(self, name, *args):
        words = ("FCALL", "trib_" + name, 1, JOB, *args)
        self.sent.append(words)
        return self.r(*words)

    def job(self):
        return pairs(self.r("HGETALL", JOB))

    def round(self, n):
        return pairs(self.r("HGETALL", f"trib:{{job_x}}:r:{n}"))

    def over(self):
        return int(self.job().get("pubround") or 0)

    def again(self):
        """A call of long ago arrives once more: the answer of the first was lost, its caller believes this one."""
        words = self.rng.choice(self.sent)
        if words[1] in ("trib_node_lost", "trib_node_lost_more"):
            return  # only ever sent before the node's memory is in use: see declare_lost in the agent
        answer = self.r(*words)
        if words[1] == "trib_commit":
            self.believe(answer, *words[4:7], *words[9:11])

    def believe(self, answer, client, update, at, place, node):
        if answer[0] in ("OK", "CLOSE"):
            at = answer[4]
            assert (at, update) not in self.receipts, "counted twice"
            assert place.split(":")[1] == f"b{self.boot[node]}", "counted into memory that is gone"
            self.receipts[at, update] = (place, node)
        elif [at for at, u in self.receipts if u == update and int(at) > self.over() and
              self.receipts[at, u][0] == place]:
            assert answer[0] in ("SAME", "CONFLICT"), "a slot that counts is not recognised"

    def step(self):
        now, rng = self.job(), self.rng
        n = int(now["round"])
        work = min(n, self.over() + 1)
        state = self.round(work).get("state") if n else None
        client, node = rng.choice(self.clients), rng.choice(NODES)
        what = rng.choice(["open", "checkin", "checkin", "reserve", "release", "commit", "commit", "commit", "deadline",
                           "done", "publish", "lost", "more", "more", "poison", "again", "again", "again", "nap", "pause"] +
                          ["patch"] * 2 * self.patches)
        if what == "open":
            self.call("round_open", "5|o", n + 1, now["version"], self.goal, rng.randint(1, self.goal), self.selmax,
                      rng.choice([3, 40]))
        elif what == "checkin":
            self.serial += 1
            answer = self.call("checkin", client, f"upd{self.serial}")
            if answer[0] == "SELECTED":
                self.tickets.setdefault(client, []).append((answer[4], answer[1]))
        elif what in ("reserve", "release", "commit") and self.tickets.get(client):
            update, at = rng.choice(self.tickets[client][-3:])
            if rng.random() < 0.05:  # a gateway that has not heard of the node's loss yet
                self.serial += 1
                self.late(client, update, at, node)
            elif what == "reserve":
                self.call("reserve", client, update, at, rng.choice([1, 50]), *rng.choice([[], ["m=3"]]))
            elif what == "release":
                self.call("release", client, update, at)
            else:
                self.serial += 1
                place = f"{node}:b{self.boot[node]}:{self.serial}:1"
                answer = self.call("commit", client, update, at, rng.choice(["da", "db"]), rng.randint(1, 9), place,
                                   node, rng.choice(["", "m=2,n=0.5", "n=-1"]))
                self.believe(answer, client, update, at, place, node)
        elif what == "deadline" and n:
            self.call("deadline", "5|o", n, rng.choice([0, 0, 1, 2]))
        elif what == "done" and state == "closing":
            r = self.round(work)
            answer = self.call(rng.choice(["task_done", "task_report"]), work, r["acc"], r["wsum"], f"m{work}", node)
            assert answer[0] not in ("OK", "PUBLISHED") or "losing" not in r, (answer, r)
        elif what == "publish" and n:
            self.call("publish", "5|o", work, self.round(work)["base"], f"m{work}", 40)
        elif what == "lost" and n:
            self.boot[node] += 1
            self.losing.append(node)
            self.lost(node, self.call("node_lost", n, node, f"b{self.boot[node]}", rng.choice([1, 2, 500])))
        elif what == "more" and self.losing:
            node = rng.choice(self.losing)
            self.lost(node, self.call("node_lost_more", node, rng.choice([1, 500])))
        elif what == "poison" and self.receipts:
            self.poison(*rng.choice(sorted(self.receipts)))
        elif what == "again":
            self.again()
        elif what == "patch":
            self.patch()
        elif what == "nap":
            time.sleep(0.003)
        elif what == "pause":
            state = rng.choice(["running", "paused"])
            self.call("job_set", "5|o", now["state"], state, "")

    def patch(self):
        rng = self.rng
        spec = {"mode": rng.choice(["sync", "async"]), "async": {"max_staleness": rng.choice([0, 2, 9])},
                "sync": {"late": rng.choice(["drop", "next"])}}
        self.goal = rng.randint(1, len(self.clients))
        self.selmax = rng.randint(self.goal, len(self.clients))
        self.goal_max, self.selmax_max = max(self.goal, self.goal_max), max(self.selmax, self.selmax_max)
        gen = int(self.job()["gen"])
        answer = self.call("job_patch", "5|o", gen, json.dumps(spec), self.goal, 1, self.selmax, 40, 3, 1000)
        assert answer == ["OK", gen + 1], answer

    def lost(self, node, answer):
        """A page of it, in which others may do what they like between two of them."""
        if answer[0] not in ("OK", "MORE"):
            self.losing = [n for n in self.losing if n != node]
            return
        rows = {k: pairs(self.r("HGETALL", f"trib:{{job_x}}:r:{k}:upd")) for k in {at for at, _ in self.receipts}}
        there = {(k, v.split("|")[1]) for k in rows for v in rows[k].values() if v[0] == "C"}
        gone = [k for k, v in self.receipts.items() if k not in there]
        assert len(gone) == answer[1] and all(self.receipts[k][1] == node for k in gone), (gone, answer)
        for k in gone:
            del self.receipts[k]
        if answer[0] == "OK":
            self.losing = [n for n in self.losing if n != node]
            left = [k for k, v in self.receipts.items() if int(k[0]) > self.over() and v[1] == node
                    and v[0].split(":")[1] != f"b{self.boot[node]}" and not self.reported(k[0])]
            assert not left and not any(f.startswith("l:" + node) for n in range(self.over() + 1, self.last() + 1)
                                        for f in self.round(n)), left
        else:
            self.paged = True
            assert any("losing" in self.round(n) for n in range(1, self.last() + 1))

    def last(self):
        return int(self.job()["round"])

    def poison(self, at, update):
        """Its folding kills: it is out of its round, if that counts it and is not made yet."""
        place, node = self.receipts[at, update]
        r = self.round(at)
        lives = place.split(":")[1] == f"b{self.boot[node]}"  # else it is being declared lost
        counts = lives and r.get("state") in ("open", "closing") and "task" not in r
        answer = self.call("quarantine", at, update, place, node, "kills")
        assert (answer[0] == "OK") == counts, (answer, r)
        if counts:
            del self.receipts[at, update]
            assert self.call("quarantine", at, update, place, node, "kills") == ["SAME"]
            assert self.round(at)["state"] in ("open", "closing", "failed")

    def reported(self, n):
        return "task" in self.round(n)

    def late(self, client, update, at, node):
        if self.boot[node] > 1:
            place = f"{node}:b{self.boot[node] - 1}:{self.serial}:1"
            self.believe(self.call("commit", client, update, at, "da", 3, place, node), client, update, at, place, node)

    def check_metrics(self, r, parts, counted):
        """The sums are those of the updates that count."""
        assert set(parts) <= {v[1] for v in counted.values()}, (parts, counted)
        for name, total, weight in (m.split("|") for m in filter(None, r.get("met", "").split(";"))):
            said = [(int(w), dict(m.split("=") for m in text.split(","))) for w, text in
                    (p.split("|") for p in parts.values())]
            assert float(total) == sum(w * float(m.get(name, 0)) for w, m in said), (r, parts)
            assert float(weight) == sum(w for w, m in said if name in m), (r, parts)

    def check(self):
        job, own = self.job(), {}
        n, over = int(job["round"]), int(job.get("pubround") or 0)
        keys = [f"trib:{{job_x}}:r:{k}" for k in range(1, n + 1)]
        told = self.r.many([c for k in keys for c in (("HGETALL", k), ("HGETALL", k + ":upd"), ("HGETALL", k + ":met"),
                                                      ("HGETALL", k + ":late"), ("ZCARD", k + ":sel"))]) if n else []
        for k in range(1, n + 1):
            r, upd, met, raw = map(pairs, told[5 * k - 5:5 * k - 1])
            parts = {c: v.split("|") for c, v in upd.items()}
            counted = {c: v for c, v in parts.items() if v[0] == "C" and v[5] != "!"}
            assert int(r["acc"]) == len(counted), r
            if "published" not in r:
                self.check_metrics(r, met, counted)
            assert int(r["wsum"]) == sum(int(v[4]) for v in counted.values()), r
            weight = {c: raw[c].split("|")[2] if c in raw else v[4] for c, v in counted.items()}
            assert set(raw) <= set(counted), (k, raw, counted)
            assert int(r["wraw"]) == sum(map(int, weight.values())), (k, r, weight)
            assert int(r["inflight"]) == sum(v[0] == "R" for v in parts.values()), (r, parts)
            for node in NODES:
                assert int(r.get("n:" + node, 0)) == sum(v[5].startswith(node + ":") for v in counted.values()), r
            got = {u for at, u in self.receipts if at == str(k)}
            kept = {c for c in raw if "kept" in r and int(raw[c].split("|")[0]) < k}
            own[k] = {c.split("@")[0] for c in set(counted) - kept}
            assert got == {v[1] for c, v in counted.items() if c not in kept}, (k, self.receipts, counted)
            assert len(kept) == int(r.get("kept", 0)), r
            for c in kept:  # nothing newer of the same client
                since = range(int(raw[c].split("|")[0]) + 1, k + 1)
                assert not any(c.split("@")[0] in own[j] for j in since), (k, c, own)
            assert told[5 * k - 1] <= self.selmax_max, r
            # While losses are being counted no round closes: all who were selected may report.
            assert len(counted) - len(kept) <= (self.selmax_max if self.paged else self.goal_max)
            if k <= over:
                assert r["state"] in ("published", "failed"), (k, r)


def once_per_base(world):
    """Nobody counts twice with updates made from the same version, in rounds and buffers together."""
    seen = {}
    for k in range(1, int(world.job()["round"]) + 1):
        base, carried = world.round(k)["base"], pairs(world.r("HGETALL", f"trib:{{job_x}}:r:{k}:late"))
        for field, v in pairs(world.r("HGETALL", f"trib:{{job_x}}:r:{k}:upd")).items():
            if v[0] == "C" and world.round(k)["state"] != "failed":
                late = carried.get(field) if "@" not in field else None
                at = world.round(late.split("|")[0])["base"] if late else base
                key = field if "@" in field else f"{field}@{at}"
                assert seen.setdefault(key, v) == v, (k, key, v, seen[key])


ASYNC = '{"mode":"async","async":{"max_staleness":2}}'
LATE = '{"sync":{"late":"next","max_staleness":2}}'
MEMORY = '{"mode":"async","async":{"max_staleness":9,"memory":"all","memory_clients":5,"staleness":{"fn":"const"}}}'
CLOCK = ('{"mode":"async","async":{"trigger":"clock","flush_timeout_s":0.04,"staleness":{"fn":"intervals"}},'
         '"aggregation":{"denominator":"weight_sum_raw"}}')


@pytest.mark.parametrize("spec", ["{}", '{"sync":{"below_quorum":"fail"}}', ASYNC, LATE, CLOCK, MEMORY])
@pytest.mark.parametrize("piece", range(4))
def test_random_transitions_sent_again_at_any_time(redis, piece, spec):
    for seed in range(piece * 10, piece * 10 + 10):
        world = World(redis, seed, spec)
        for i in range(150):
            try:
                world.step()
                world.check()
            except AssertionError:
                print(f"seed {seed} step {i}", *world.sent[-12:], sep="\n")
                raise


@pytest.mark.parametrize("spec", ["{}", ASYNC])
def test_random_transitions_with_patches_between_the_modes(redis, spec):
    for seed in range(500, 540):
        world = World(redis, seed, spec)
        world.patches = True
        for i in range(150):
            try:
                world.step()
                world.check()
            except AssertionError:
                print(f"seed {seed} step {i}", *world.sent[-25:], sep="\n")
                raise
        once_per_base(world)


def test_a_buffered_commit_sent_again_after_the_next_checkin_is_recognised(redis):
    """Its answer was lost, the client has come again since: the slot counts, so its gateway must not free it."""
    w = World(redis, 1, ASYNC)
    w.goal = 2
    redis("HSET", JOB, "goal", 2, "selmax", 9)
    w.call("round_open", "5|o", 1, 0, 2, 1, 9, 60000)
    for c in ("a", "b", "c"):
        w.call("checkin", c, "upd_" + c)
    assert w.call("commit", "a", "upd_a", 1, "d", 5, "n1:b:1:1", "n1")[0] == "OK"
    assert w.call("commit", "b", "upd_b", 1, "d", 5, "n1:b:2:1", "n1")[0] == "CLOSE"
    late = ("commit", "c", "upd_c", 1, "d", 5, "n1:b:3:1", "n1")
    assert w.call(*late)[0] == "OK"
    assert w.call("task_done", 1, 2, w.round(1)["wsum"], "m1", "n1") == ["OK"]
    assert w.call("publish", "5|o", 1, 0, "m1", 40)[0] == "OK"
    assert w.call("checkin", "c", "upd_c2")[4] == "upd_c2"
    assert w.call(*late)[0] == "SAME"
    assert w.call("commit", "c", "upd_c", 1, "d", 5, "n1:b:9:1", "n1")[0] == "DUP"  # other memory: not the one that counts
    assert w.call("reserve", "c", "upd_c", 1, 9000)[::5] == ["DUP", "2"]
    assert w.call("commit", "c", "upd_c", 1, "other", 5, "n1:b:9:1", "n1") == ["CONFLICT"]
    assert w.call("commit", "c", "upd_c2", 2, "d", 5, "n1:b:4:1", "n1")[0] == "CLOSE"  # the new place is as good as ever


def closed_round(redis, spec, goal=1):
    """Clients a b c selected in round 1 (base 0), which a's update closes and which is published; round 2 is open."""
    w = World(redis, 1, spec)
    redis("HSET", JOB, "goal", goal, "selmax", 9)
    w.call("round_open", "5|o", 1, 0, goal, 1, 9, 60000)
    for c in ("a", "b", "c"):
        w.call("checkin", c, "upd_" + c)
    assert w.call("commit", "a", "upd_a", 1, "d", 4 << 20, "n1:b1:1:1", "n1")[0] == "CLOSE"
    return w


def test_a_report_publishes_what_the_closed_round_counted(redis):
    w = closed_round(redis, {})
    redis("HSET", JOB, "bytes", 40)
    assert w.round(1)["top"] == "n1"  # elected by the commit that closed it: nobody has asked yet
    assert w.call("task_report", 1, 2, 4 << 20, "m1", "n1") == ["COUNT", "1", str(4 << 20)]
    assert w.call("task_report", 1, 1, 4 << 20, "m1", "n2") == ["TOP", "n1"]
    assert w.job()["version"] == "0"
    assert w.call("task_report", 1, 1, 4 << 20, "m1", "n1") == ["OK"]
    assert (w.job()["version"], w.round(1)["state"], w.round(1)["digest"]) == ("1", "published", "m1")
    assert redis("HGET", JOB[:-3] + "models", 1).startswith("m1|40|1|")
    for name in ("task_report", "task_done"):
        assert w.call(name, 1, 1, 4 << 20, "m1", "n1") == ["DUP"]
        assert w.call(name, 1, 1, 4 << 20, "m9", "n1") == ["LOSER", "m1"]
    assert w.call("publish", "5|o", 1, 0, "m1", 40) == ["DUP", 1]  # a leader that has not heard of it
    assert w.call("publish", "5|o", 1, 0, "m9", 40) == ["CONFLICT", 1]
    assert w.job()["version"] == "1"
    assert w.call("round_open", "5|o", 2, 1, 1, 1, 9, 60000)[0] == "OK"


def test_a_report_waits_for_the_second_copy(redis):
    """Two nodes live: the version is published once the other has it, or by the leader after a while."""
    w = closed_round(redis, {})
    redis("HSET", JOB, "bytes", 40, "b:n1", "b1", "b:n2", "b2")
    for node in ("n1", "n2"):
        redis("SADD", "trib:nodes", node)
        redis("HSET", "trib:node:" + node, "url", "http://" + node)
    assert w.call("task_report", 1, 1, 4 << 20, "m1", "n1") == ["OK"]
    assert (w.job()["version"], w.round(1)["state"]) == ("0", "closing")
    assert w.call("publish", "5|o", 1, 0, "m1", 40)[0] == "WAIT"
    assert w.call("model_at", 1, "n2") == ["OK"]
    assert w.call("publish", "4|old", 1, 0, "m1", 40) == ["FENCED"]
    assert w.call("publish", "5|o", 1, 0, "m1", 40) == ["OK", 1]


def publish(w, n, base, goal=9):
    r = w.round(n)
    assert w.call("task_done", n, r["acc"], r["wsum"], f"m{n}", "n1") == ["OK"]
    assert w.call("publish", "5|o", n, base, f"m{n}", 40)[0] == "OK"
    assert w.call("round_open", "5|o", n + 1, base + 1, goal, 1, 9, 60000)[0] == "OK"


def test_what_counted_is_known_when_its_round_s_records_are_gone(redis):
    w = closed_round(redis, {})
    publish(w, 1, 0, goal=1)
    for n in range(2, 70):
        assert w.call("checkin", "b", f"upd_{n}")[0] == "SELECTED"
        assert w.call("commit", "b", f"upd_{n}", n, "d", 5, f"n1:b1:{n}:1", "n1")[0] == "CLOSE"
        publish(w, n, n - 1, goal=1)
    assert not redis("EXISTS", f"{JOB[:-3]}r:1:upd") and redis("EXISTS", f"{JOB[:-3]}r:7:upd")
    assert w.call("reserve", "a", "upd_a", 1, 9000) == w.call("commit", "a", "upd_a", 1, "d", 4 << 20, "n1:b1:9:1", "n1")
    again = w.call("reserve", "a", "upd_a", 1, 9000)
    assert [again[i] for i in (0, 2, 3, 4, 5)] == ["DUP", "d", str(4 << 20), str(4 << 20), "1"]
    assert w.call("commit", "a", "upd_a", 1, "d", 1, "n1:b1:9:1", "n1") == ["CONFLICT"]
    assert w.call("reserve", "a", "upd_x", 1, 9000)[0] == "CLOSED"
    assert w.call("reserve", "b", "upd_2", 2, 9000)[0] == "CLOSED"  # the last one of each client is known
    assert w.call("checkin", "a", "upd_a2")[0] == "SELECTED"


def test_what_was_lost_is_not_said_to_count(redis):
    w = closed_round(redis, {})
    assert redis("HGET", JOB[:-3] + "last", "a").startswith("C|upd_a|")
    assert w.call("node_lost", 1, "n1", "b2") == ["OK", 1]
    assert redis("HGET", JOB[:-3] + "last", "a") is None
    w = closed_round(redis, ASYNC)
    assert w.call("checkin", "a", "upd_a2")[0] in ("SELECTED", "WAIT")
    assert w.call("node_lost", 1, "n1", "b2") == ["OK", 1]
    assert redis("HGET", JOB[:-3] + "last", "a") is None
    assert w.call("reserve", "a", "upd_a", 1, 9000)[0] == "NOTSEL"


def test_a_carried_update_is_known_after_a_switch(redis):
    """Its round is over, then the job becomes asynchronous: asked again it has counted."""
    w = closed_round(redis, LATE)
    publish(w, 1, 0, goal=1)
    assert w.call("commit", "c", "upd_c", 1, "d", 4 << 20, "n1:b1:3:1", "n1")[0] == "CLOSE"
    publish(w, 2, 1)
    assert w.call("job_patch", "5|o", 1, json.dumps({"mode": "async"}), 2, 1, 9, 60000, 9000, 100)[0] == "OK"
    again = w.call("reserve", "c", "upd_c", 1, 9000)
    assert (again[0], again[5]) == ("DUP", "2")
    assert w.call("commit", "c", "upd_c", 1, "d", 4 << 20, "n1:b1:3:1", "n1")[0] == "SAME"


def test_a_late_update_is_carried_once(redis):
    w = closed_round(redis, LATE)
    late = ("commit", "b", "upd_b", 1, "d", 4 << 20, "n1:b1:2:1", "n1")
    assert w.call("reserve", "b", "upd_b", 1, 50) == ["OK", "0"]
    assert w.call(*late) == ["LATER"]  # closing: nobody says no, the slot waits
    publish(w, 1, 0)
    answer = w.call(*late)  # one version behind: 4 / sqrt(2), in units of 2^-20
    assert answer[0] == "OK" and answer[3:] == [str(int((4 << 20) * 2 ** -0.5 + 0.5)), "2"], answer
    r = w.round(2)
    assert r["acc"] == "1" and r["carried"] == "1" and r["wraw"] == str(4 << 20) and r["wsum"] == answer[3]
    assert w.call(*late)[0] == "SAME"
    assert w.call("commit", "b", "upd_b", 1, "d", 4 << 20, "n1:b1:7:1", "n1")[0] == "DUP"
    assert w.call("commit", "b", "upd_b", 1, "other", 4 << 20, "n1:b1:7:1", "n1")[0] == "CONFLICT"
    assert w.call("reserve", "b", "upd_b", 1, 50)[:1] == ["DUP"]
    assert w.call("checkin", "b", "upd_b2")[:2] == ["WAIT", "reported"]  # counts in round 2 already
    assert w.round(2)["acc"] == "1"
    # and what a client is selected for goes before what it carries
    assert w.call("checkin", "c", "upd_c2")[4] == "upd_c2"
    assert w.call("reserve", "c", "upd_c", 1, 50) == ["CLOSED", "superseded"]
    assert w.call("commit", "c", "upd_c", 1, "d", 5, "n1:b1:3:1", "n1")[:1] == ["CLOSED"]
    assert w.call("commit", "c", "upd_c2", 2, "d", 5, "n1:b1:4:1", "n1")[0] == "OK"
    # its memory is lost: the round forgets it, and it may be carried again
    assert w.call("node_lost", 2, "n1", "b2") == ["OK", 2]
    assert (w.round(2)["acc"], w.round(2)["wsum"], w.round(2)["wraw"]) == ("0", "0", "0")
    assert w.call("commit", "b", "upd_b", 1, "d", 4 << 20, "n1:b2:9:1", "n1")[0] == "OK"
    assert w.round(2)["wraw"] == str(4 << 20)


def test_a_late_update_that_is_too_old_or_not_wanted_is_refused(redis):
    w = closed_round(redis, LATE)
    for n in (1, 2):
        publish(w, n, n - 1, 1)
        w.call("checkin", "a", f"upd_a{n}")
        assert w.call("commit", "a", f"upd_a{n}", n + 1, "d", 5, f"n1:b1:{10 + n}:1", "n1")[0] == "CLOSE"
    publish(w, 3, 2)
    assert w.call("reserve", "b", "upd_b", 1, 50) == ["STALE", 3]
    assert w.call("commit", "b", "upd_b", 1, "d", 5, "n1:b1:2:1", "n1") == ["STALE", 3]
    assert w.round(4)["acc"] == "0" and w.round(1)["late"] == "1"
    w = closed_round(redis, "{}")
    publish(w, 1, 0)
    assert w.call("reserve", "b", "upd_b", 1, 50) == ["CLOSED", "published"]
    assert w.call("commit", "b", "upd_b", 1, "d", 5, "n1:b1:2:1", "n1") == ["CLOSED", "published"]


@pytest.mark.parametrize("aggregation, want", [
    ('{"denominator":"weight_sum"}', 0), ('{"denominator":"count"}', 3 << 20), ('{"denominator":"goal"}', 8 << 20),
    ('{"denominator":"weight_sum_raw"}', 15), ('{"denominator":"one"}', 1 << 20),
    ('{"denominator":"population","population":2.5}', 5 << 19)])
def test_divisors_and_normaliser(redis, aggregation, want):
    spec = '{"mode":"async","async":{"staleness":%s},"aggregation":%s}'
    for staleness, norm in (("{}", 1.0), ('{"normaliser":"average","average":3}', 0.5),
                            ('{"fn":"inverse_sqrt","normaliser":"average","average":4,"offset":0}', 1 / 3)):
        w = World(redis, 1, spec % (staleness, aggregation))
        redis("HSET", JOB, "goal", 8, "selmax", 9)
        w.call("round_open", "5|o", 1, 0, 8, 1, 9, 60000)
        for c in ("a", "b", "c"):
            w.call("checkin", c, "upd_" + c)
            assert w.call("commit", c, "upd_" + c, 1, "d", 5, f"n1:b1:{ord(c)}:1", "n1")[0] == "OK"
        divisor = int(w.call("node_sync", "n1")[13])
        assert divisor == (max(1, int(want * norm + 0.5)) if want else 0), (staleness, divisor)


def test_seeded_samples_can_be_told_by_anybody_and_grow_when_extended(redis):
    def drawn(seed, n, client):
        return int(hashlib.sha1(f"{seed}|{n}|{client}".encode()).hexdigest()[:13], 16) / 2.0 ** 52

    w = World(redis, 1, '{"sync":{"sampling":{"fraction":0.3,"seed":77}}}')
    redis("HSET", JOB, "goal", 90, "selmax", 90)
    w.call("round_open", "5|o", 1, 0, 90, 5, 90, 1)
    clients = [f"k{i}" for i in range(60)]

    def asked():
        answers = {c: w.call("checkin", c, "upd_" + c) for c in clients}
        assert all(a[0] == "SELECTED" or a[:2] == ["WAIT", "not-sampled"] for a in answers.values())
        return {c for c, a in answers.items() if a[0] == "SELECTED"}

    first = {c for c in clients if drawn(77, 1, c) < 0.3}
    assert 5 < len(first) < 40 and asked() == first
    one = min(first)
    assert w.call("commit", one, "upd_" + one, 1, "d", 5, "n1:b1:1:1", "n1")[0] == "OK"
    time.sleep(0.01)
    assert w.call("deadline", "5|o", 1, 0)[0] == "EARLY" and w.round(1)["extended"] == "1"
    clients.remove(one)
    assert asked() == {c for c in clients if drawn(77, 1, c) < 0.6}


def test_who_waits_is_told_how_long_the_round_still_takes(redis):
    w = World(redis, 1, "{}")
    redis("HSET", JOB, "goal", 1, "selmax", 1)
    w.call("round_open", "5|o", 1, 0, 1, 1, 1, 60000)
    w.call("checkin", "a", "upd_a")
    assert w.call("checkin", "b", "upd_b") == ["WAIT", "full", 0]  # no round has ended yet: not known
    time.sleep(0.3)
    assert w.call("commit", "a", "upd_a", 1, "d", 5, "n1:b1:1:1", "n1")[0] == "CLOSE"
    publish(w, 1, 0, 1)
    took = int(w.job()["rtime"])
    assert took >= 300
    redis("HSET", "trib:{job_x}:r:2", "selmax", 1)
    w.call("checkin", "a", "upd_a2")
    why, left = w.call("checkin", "b", "upd_b")[1:]
    assert why == "full" and 0 <= left <= took


@pytest.mark.parametrize("how", ("task_report", "publish"))
def test_what_was_declared_abandoned_is_in_no_version(redis, how):
    """The job is stopped while its closed round is aggregated: `round.abandoned` has said that it counts in none."""
    w = World(redis, 3)
    w.call("round_open", "5|o", 1, 0, 1, 1, 1, 60000)
    w.call("checkin", "c0", "u0")
    assert w.call("commit", "c0", "u0", 1, "d", 2, "n1:b1:1:1", "n1")[0] == "CLOSE"
    if how == "publish":
        assert w.call("task_done", 1, 1, 2, "m1", "n1") == ["OK"]
    assert w.call("job_set", "5|o", "running", "stopped", "") == ["OK"]
    if how == "publish":
        assert w.call("publish", "5|o", 1, 0, "m1", 40) == ["NOOP", "stopped"]
    else:
        w.call("task_report", 1, 1, 2, "m1", "n1")
    assert w.job()["version"] == "0" and w.round(1)["state"] == "closing"
    events = [pairs(e[1])["t"] for e in redis("XRANGE", "trib:{job_x}:ev", "-", "+")]
    assert events[-2:] == ["round.abandoned", "job.stopped"], events
