# SPDX-License-Identifier: Apache-2.0
"""orchestrator/functions/43_many.lua: many check-ins or commits in one call leave the records, and give the answers, of
as many calls of one. Two data bases of one Redis get the same random calls, one of them singly; their clock stands
still."""
import json
import random

import pytest

from test_functions import CLOCK, JOB, LATE, MEMORY, connected, library, redis  # noqa: F401

ASYNC = '{"mode":"async","async":{"max_staleness":1}}'
KEEP = "COUNTED_MAX = 1000000"
CLOCKS = "local function now() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end"
SAMPLE = '{"sync":{"sampling":{"fraction":0.6,"seed":3}}}'
COUNT = '{"sync":{"sampling":{"count":5,"seed":3}}}'
LABELS = '{"selection":{"labels":{"matchLabels":{"site":"a"}}}}'
BACKUP = '{"sync":{"backup":{"kind":"dbw"}},"aggregation":{"denominator":"weight_sum_raw"}}'
SCORES = ('{"mode":"async","pool":{"name":"p","score":"variance"},'
          '"async":{"max_staleness":3,"staleness":{"fn":"hinge","after":0}}}')
SPECS = ("{}", ASYNC, LATE, CLOCK, MEMORY, SAMPLE, COUNT, LABELS, BACKUP, SCORES, "{}", ASYNC)
WEIGHTS = (1, 2, 3, 1 << 20, 7 << 20, 2 ** 51, 2 ** 53 + 1)


@pytest.fixture(scope="module")
def pair(redis):  # noqa: F811
    """Two data bases, whose functions read the time from a key and remember six clients' last updates."""
    text = library()
    for old, new in ((CLOCKS, "local function now() return tonumber(redis.call('GET', 'clock')) end"),
                     (KEEP, "COUNTED_MAX = 6")):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    redis("FUNCTION", "LOAD", "REPLACE", text)
    other = connected(redis.s.getpeername())
    other("SELECT", 1)
    return redis, other


def content(r):
    """Everything in a data base; of events what they say, not when."""
    out = {}
    for key in r("KEYS", "*"):
        kind = r("TYPE", key)
        if kind == "hash":
            flat = r("HGETALL", key)
            out[key] = dict(zip(flat[::2], flat[1::2]))
        elif kind == "zset":
            out[key] = r("ZRANGE", key, 0, -1, "WITHSCORES")
        elif kind == "stream":
            out[key] = [event for _, event in r("XRANGE", key, "-", "+")]
        else:
            out[key] = sorted(r("SMEMBERS", key)) if kind == "set" else r("GET", key)
    return out


class Twins:
    def __init__(self, pair, seed):
        self.one, self.many = pair
        self.rng = random.Random(seed)
        self.clients = [f"c{i}" for i in range(self.rng.randint(4, 14))]
        self.goal = self.rng.randint(2, 6)
        self.selmax = self.goal + self.rng.randint(0, 4)
        self.time, self.serial, self.boot, self.tickets, self.sent, self.gathered = 1000000, 0, 1, [], [], 0
        self.counted = []
        self.one("FLUSHALL")
        self.clock(0)
        self.call("job_create", "5|o", "job_x", "x", SPECS[seed % len(SPECS)], self.goal, 1, self.selmax, 40, 30, 1000)
        self.call("model_init", "d0", 40, 10, "{}")
        self.call("job_set", "5|o", "created", "running", "")
        self.both("HSET", JOB, "b:n1", "b1")
        self.both("SADD", "trib:nodes", "n3")
        self.both("HSET", "trib:node:n3", "url", "http://n3")

    def both(self, *words):
        first, second = self.one(*words), self.many(*words)
        assert first == second, (words, first, second)
        return first

    def call(self, name, *args):
        return self.both("FCALL", "trib_" + name, 1, JOB, *args)

    def clock(self, ms):
        self.time += ms
        self.both("SET", "clock", self.time)

    def calls(self, name, items):
        """Each by itself here, all in one call there."""
        first = [self.one("FCALL", "trib_" + name, 1, JOB, *item) for item in items]
        self.many("CONFIG", "RESETSTAT")
        second = self.many("FCALL", f"trib_{name}_many", 1, JOB, *[word for item in items for word in item])
        assert first == second, (name, items, first, second)
        assert content(self.one) == content(self.many), (name, items, first)
        self.gathered += len(items) > 1 and self.written() < len(items)
        return first

    def written(self):
        stat = self.many("INFO", "commandstats")
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in stat.splitlines()
                   if line.startswith("cmdstat_hset:"))

    def checkins(self):
        rng, node = self.rng, self.rng.choice(("", "n1", "n1"))
        items = []
        for client in rng.choices(self.clients, k=rng.randint(1, 16)):
            self.serial += 1
            again = [t[1] for t in self.tickets if t[0] == client]
            update = rng.choice(again) if again and rng.random() < 0.1 else f"upd{self.serial}"
            items.append((client, update, rng.choice(("", "site=a", "site=b")), "",
                          node if rng.random() < 0.9 else "n2"))
        for item, answer in zip(items, self.calls("checkin", items)):
            if answer[0] == "SELECTED":
                self.tickets.append((item[0], answer[4], answer[1]))

    def commit(self):
        rng = self.rng
        client, update, at = rng.choice(self.tickets[-16:] if rng.random() < 0.8 else self.tickets)
        self.serial += 1
        node = "n1" if rng.random() < 0.95 else "n2"
        boot = f"b{self.boot - (rng.random() < 0.05)}"
        weight = rng.choice(WEIGHTS[:5] if rng.random() < 0.9 else WEIGHTS)
        return (client, update, at, rng.choice(("da", "da", "db")), weight,
                f"{node}:{boot}:{self.serial}:1", node, rng.choice(("", "", "", "loss=2,n=0.5", "work=0.5")),
                rng.choice(("", "0.25", "nan")))

    def commits(self):
        items = []
        for _ in range(self.rng.randint(1, 16)):  # those sent before come again, too
            items.append(self.rng.choice(self.sent) if self.sent and self.rng.random() < 0.1 else self.commit())
        self.sent = self.sent[-32:] + items
        for item, answer in zip(items, self.calls("commit", items)):
            if answer[0] in ("OK", "CLOSE"):
                self.counted.append((answer[4], item[1], *item[5:7], "why"))

    def step(self):
        rng = self.rng
        n, version, state = self.both("HMGET", JOB, "round", "version", "state")
        n, work = int(n), int(self.both("HGET", JOB, "pubround") or 0) + 1
        what = rng.choice(("checkins",) * 5 + ("commits",) * 6 + ("publish", "clock") * 3 + (
            "open", "open", "reserve", "reserve", "reserve", "release", "deadline", "quarantine", "lost", "pause",
            "quota", "drain", "plan", "patch"))
        if what == "checkins":
            self.checkins()
        elif what == "commits" and self.tickets:
            self.commits()
        elif what == "open":
            self.call("round_open", "5|o", n + 1, version, self.goal, 1, self.selmax, rng.choice((3, 40)))
        elif what == "publish" and n:
            r = f"trib:{{job_x}}:r:{work}"
            if rng.random() < 0.3:
                self.call("deadline", "5|o", work, 2)
            self.call("task_done", work, self.both("HGET", r, "acc") or 0, self.both("HGET", r, "wsum") or 0,
                      f"m{work}", "n1")
            self.call("publish", "5|o", work, self.both("HGET", r, "base") or 0, f"m{work}", 40)
            self.call("round_open", "5|o", n + 1, self.both("HGET", JOB, "version"), self.goal, 1, self.selmax, 40)
        elif what in ("reserve", "release") and self.tickets:
            ticket = rng.choice(self.tickets[-8:])
            self.call(what, *ticket, *((rng.choice((1, 5000)),) if what == "reserve" else ()))
        elif what == "quarantine" and self.counted:
            self.call("quarantine", *rng.choice(self.counted[-8:]))
        elif what == "clock":
            self.clock(rng.choice((1, 2, 25, 60)))
        elif what == "deadline" and n:
            self.call("deadline", "5|o", n, 0)
        elif what == "lost" and n and rng.random() < 0.3:
            self.boot += 1
            self.call("node_lost", n, "n1", f"b{self.boot}")
        elif what == "pause":
            self.call("job_set", "5|o", state, "running" if state == "paused" or rng.random() < 0.5 else "paused", "")
        elif what == "quota":
            self.both("DEL", "trib:quotas")
            if rng.random() < 0.3:
                self.both("HSET", "trib:quotas", "*", f"0|{rng.randint(0, 9)}|{rng.randint(0, 3)}|0")
        elif what == "drain":
            self.both("DEL", "trib:nodes:draining")
            if rng.random() < 0.3:
                self.both("HSET", "trib:nodes:draining", "n1", "draining|1")
        elif what == "plan" and rng.random() < 0.3:
            self.both("HSET", JOB, "plan", rng.choice(("", "n1=2,n2")), "plangen", 1)
        elif what == "patch" and rng.random() < 0.1:
            mode = json.dumps({"mode": rng.choice(("sync", "async"))})
            self.call("job_patch", "5|o", self.both("HGET", JOB, "gen"), mode, self.goal, 1, self.selmax, 40, 30, 1000)


@pytest.mark.parametrize("piece", range(3))
def test_many_in_one_call_are_as_many_calls(pair, piece):
    gathered = 0
    for seed in range(piece * 22, piece * 22 + 22):
        twins = Twins(pair, seed)
        try:
            for _ in range(50):
                twins.step()
        except AssertionError:
            print(f"seed {seed} spec {SPECS[seed % len(SPECS)]}")
            raise
        gathered += twins.gathered
    assert gathered > 100  # calls whose items were written together


def test_an_expired_place_is_a_fresh_one_and_takes_room(pair):
    """Of an asynchronous job: it is seen before those who expired are removed, and is none that is there."""
    twins = Twins(pair, 1)  # ASYNC
    twins.selmax = 2
    twins.both("HSET", JOB, "selmax", 2)
    twins.call("round_open", "5|o", 1, 0, 3, 1, 2, 4000)
    assert [a[0] for a in twins.calls("checkin", [("a", "upd1", "", "", "n1")])] == ["SELECTED"]
    twins.clock(60)
    told = twins.calls("checkin", [(c, f"upd{c}2", "", "", "n1") for c in "abc"])
    assert [a[0] for a in told] == ["SELECTED", "SELECTED", "WAIT"]


def committed(client, serial):
    return (client, f"upd_{client}", 1, "da", 1, f"n1:b1:{serial}:1", "n1", "", "")


def test_stale_updates_and_clients_that_are_not_remembered_any_more(pair):
    twins = Twins(pair, 1)  # ASYNC
    twins.both("HSET", JOB, "selmax", 9)
    twins.call("round_open", "5|o", 1, 0, 9, 1, 9, 4000)
    twins.calls("checkin", [(c, f"upd_{c}", "", "", "n1") for c in "abc"])
    assert [a[0] for a in twins.calls("commit", [committed("a", 1)])] == ["OK"]
    twins.both("HSET", JOB, "version", 5)
    assert [a[0] for a in twins.calls("commit", [committed("b", 2), committed("c", 3)])] == ["STALE", "STALE"]
    for i in range(6):
        twins.both("HSET", "trib:{job_x}:last", f"d{i}", "x")
    assert [a[0] for a in twins.calls("checkin", [(c, f"upd_{c}2", "", "", "n1") for c in "ab"])] == ["SELECTED"] * 2


def test_words_that_are_no_whole_calls_are_not_looked_at(redis):  # noqa: F811
    assert redis("FCALL", "trib_commit_many", 1, JOB, *["x"] * 10) == []
    assert redis("FCALL", "trib_checkin_many", 1, JOB) == []
