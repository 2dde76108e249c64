# SPDX-License-Identifier: Apache-2.0
"""The record of a round over several nodes, tried with random transitions: whatever nodes die and whatever is sent
again, every counted update is in exactly one memory that lives, and the counts of that node say so."""
import random

import pytest

from test_functions import JOB, pairs, redis  # noqa: F401 - a fixture

NODES = ("n1", "n2", "n3", "n4")


class World:
    def __init__(self, redis, seed, asynchronous):
        self.r, self.rng, self.asynchronous = redis, random.Random(seed), asynchronous
        self.serial, self.sent = 0, []
        self.boot = {}     # node -> the boot that lives there
        self.where = {}    # update -> the (node, boot) whose memory it is in; what is lost is taken out
        self.moves = []    # sums that went over: {from, to: (node, boot), updates, seq, undone}
        self.parts = {}
        self.draining = set()
        redis("FLUSHALL")
        spec = '{"mode":"async"}' if asynchronous else "{}"
        self.call("job_create", "5|o", "job_x", "x", spec, 6, 1, 9, 60000, 60000, 3)
        self.call("model_init", "d0", 40, 10, "{}")
        self.call("job_set", "5|o", "created", "running", "")
        for node in NODES:
            self.up(node)
        self.call("round_open", "5|o", 1, 0, 6, 1, 9, 60000)

    def call(self, name, *args):
        words = ("FCALL", "trib_" + name, 1, JOB, *args)
        self.sent.append(words)
        return self.r(*words)

    def round(self):
        return pairs(self.r("HGETALL", "trib:{job_x}:r:1"))

    def lives(self, memory):
        return self.boot.get(memory[0]) == memory[1]

    def undo(self, move):
        """What went over is its sender's again; what that had been given before, and is gone, its senders'."""
        move["undone"] = True
        for u in move["updates"]:
            self.where.pop(u, None)
            if self.lives(move["from"]):
                self.where[u] = move["from"]
        for m in self.moves if not self.lives(move["from"]) else []:
            if m["to"] == move["from"] and m["seq"] < move["seq"] and not m["undone"]:
                self.undo(m)

    def lose(self, node, boot):
        """Everything in the memory of a node is gone; sums that others sent there are their senders' again, unless it
        has sent them on."""
        memory = (node, self.boot.get(node))
        self.boot[node] = boot
        for u in [u for u, m in self.where.items() if m == memory]:
            del self.where[u]
        for m in self.moves:
            if m["to"] == memory and not m["undone"] and not any(
                    on["from"] == memory and on["seq"] > m["seq"] and not on["undone"] for on in self.moves):
                self.undo(m)

    def up(self, node):
        self.serial += 1
        self.lose(node, f"b{self.serial}")
        self.r("FCALL", "trib_node_up", 1, "trib:node:" + node, node, 60000, "url", "http://" + node)
        self.lost(node, self.boot[node])

    def down(self, node):
        self.r("DEL", "trib:node:" + node)
        self.lose(node, "")
        self.lost(node, "")

    def lost(self, node, boot):
        """Page by page; between two of them nobody gets a model of the round."""
        answer = self.call("node_lost", 1, node, boot, self.rng.choice([1, 3, 500]))
        while answer[0] == "MORE":
            r = self.round()
            if "losing" in r:  # else it goes on in a later buffer
                done = self.call("task_done", 1, r["acc"], r["wsum"], "m", self.rng.choice(NODES))
                assert done[0] in ("COUNT", "NOOP"), (done, r)
            answer = self.call("node_lost_more", node, self.rng.choice([1, 3]))

    def commit(self):
        node = self.rng.choice([n for n in NODES if self.boot[n]] or [None])
        if not node:
            return
        client = f"c{self.rng.randrange(9)}"
        self.serial += 1
        answer = self.call("checkin", client, f"u{self.serial}")
        if answer[0] != "SELECTED" or str(answer[1]) != "1":
            return
        place = f"{node}:{self.boot[node]}:{self.serial}:1"
        if self.call("commit", client, answer[4], 1, "d", self.rng.randint(1, 9), place, node)[0] in ("OK", "CLOSE"):
            self.where[answer[4]] = (node, self.boot[node])

    def move(self):
        node = self.rng.choice(NODES)
        state = self.round().get("state")
        if state != "closing" and not (state == "open" and node in self.draining):
            return
        if self.boot[node]:
            self.call("node_sync", node)  # elects
        top = self.round().get("top")
        if not top or node == top or not self.boot[node]:
            return
        memory, to = (node, self.boot[node]), (top, self.boot[top])
        updates = [u for u, m in self.where.items() if m == memory]
        r = self.round()
        if not updates:
            return
        self.parts[memory] = part = self.parts.get(memory, 0) + 1
        args = (1, node, memory[1], part, top, to[1], r["n:" + node], r["w:" + node])
        assert int(r["n:" + node]) == len(updates), (r, updates)
        answer = ["LATER"]
        while answer[0] == "LATER":
            answer = self.call("partial_moved", *args)
        assert answer[0] == "OK", (answer, args, r)
        self.moves.append({"from": memory, "to": to, "updates": updates, "seq": int(answer[1]), "undone": False})
        for u in updates:
            self.where[u] = to
        assert self.call("partial_moved", *args) == ["SAME", answer[1]]

    def again(self):
        moves = [w for w in self.sent if w[1] == "trib_partial_moved"]
        if moves:  # of long ago: taken back since, or known
            words = self.rng.choice(moves)
            before = self.round()
            answer = self.r(*words)
            assert answer[0] in ("SAME", "TAKEN", "STATE", "TOP", "GONE", "COUNT", "LATER"), (words, answer, before)
            assert self.round() == before or answer == ["LATER"]

    def drain(self, node, undo):
        answer = self.r("FCALL", "trib_node_drain", 1, "trib:nodes:draining", node, int(undo))[0]
        if answer == "OK":
            (self.draining.discard if undo else self.draining.add)(node)
        elif not self.boot[node]:
            assert answer == "NONODE"
        else:
            assert answer == "SAME" and (node in self.draining) != undo or answer == "ALONE" and not undo

    def step(self):
        what = self.rng.choice(["commit"] * 12 + ["move"] * 6 + ["again", "down", "up", "close", "drain", "undrain"])
        if what == "commit":
            self.commit()
        elif what == "move":
            self.move()
        elif what == "again":
            self.again()
        elif what == "close":
            self.call("deadline", "5|o", 1, 2)
        elif what == "up":
            self.up(self.rng.choice(NODES))
        elif what in ("drain", "undrain"):
            self.drain(self.rng.choice(NODES), what == "undrain")
        elif sum(bool(b) for b in self.boot.values()) > 1:
            node = self.rng.choice(NODES)
            if self.boot[node]:
                self.down(node)

    def check(self):
        r = self.round()
        if r["state"] == "failed":
            return False
        upd = pairs(self.r("HGETALL", "trib:{job_x}:r:1:upd"))
        counted = {v.split("|")[1]: v.split("|") for v in upd.values() if v[0] == "C"}
        assert set(counted) == set(self.where), (set(counted) ^ set(self.where), r)
        assert int(r["acc"]) == len(counted), r
        assert int(r["wsum"]) == sum(int(v[4]) for v in counted.values()), r
        for node in NODES:
            mine = [u for u, m in self.where.items() if m == (node, self.boot[node])]
            assert int(r.get("n:" + node, 0)) == len(mine), (node, r, self.where)
            assert int(r.get("w:" + node, 0)) == sum(int(counted[u][4]) for u in mine), (node, r)
        assert all(self.boot[n] == b for n, b in self.where.values()), (self.boot, self.where)
        return True


@pytest.mark.parametrize("asynchronous", [False, True])
def test_every_counted_update_is_in_one_memory_that_lives(redis, asynchronous):  # noqa: F811
    moved, early = 0, 0
    for seed in range(80):
        world = World(redis, seed, asynchronous)
        for i in range(80):
            try:
                world.step()
                if not world.check():
                    break
            except AssertionError:
                print(f"seed {seed} step {i}", *world.sent[-25:], sep="\n")
                raise
        moved += sum(w[1] == "trib_partial_moved" for w in world.sent)
        early += any(m["to"] == on["from"] for m in world.moves for on in world.moves)
    assert moved > 60 and early > 3  # sums that were sent on among them


def test_a_node_that_takes_no_copies_is_waited_for_once(redis):  # noqa: F811
    world = World(redis, 0, False)
    for version in range(1, 4):
        clients = [f"c{i}" for i in range(6)]
        for i, client in enumerate(clients):
            answer = world.call("checkin", client, f"u{version}{i}")
            assert answer[0] == "SELECTED", (version, i, answer)
            id_ = answer[4]
            world.call("commit", client, id_, version, "d", 1, f"n1:{world.boot['n1']}:{version * 10 + i}:1", "n1")
        record = "trib:{job_x}:r:%d" % version
        r = pairs(redis("HGETALL", record))
        assert r["state"] == "closing", r
        assert world.call("task_done", version, r["acc"], r["wsum"], f"m{version}", "n1", world.boot["n1"]) == ["OK"]
        answer = world.call("publish", "5|o", version, version - 1, f"m{version}", 40)
        if version in (1, 3):                       # n2, n3, n4 may have it any moment
            assert answer[0] == "WAIT" and 0 < answer[1] <= 3000
            if version == 1:
                redis("HINCRBY", record, "taskms", -3001)
            else:
                assert world.call("model_at", version, "n2") == ["OK"]
            answer = world.call("publish", "5|o", version, version - 1, f"m{version}", 40)
        assert answer == ["OK", version]
        if version == 2:                            # one of them comes to life
            assert world.call("model_at", version, "n3") == ["OK"]
        world.call("round_open", "5|o", version + 1, version, 6, 1, 9, 60000)


def many(redis, count):  # noqa: F811 - the fixture
    """A round that is full, with all its updates on n1, which is silent."""
    redis("FLUSHALL")
    redis("FCALL", "trib_job_create", 1, JOB, "5|o", "job_x", "x", "{}", count, 1, count, 60000, 60000, 9)
    redis("FCALL", "trib_model_init", 1, JOB, "d0", 40, 10, "{}")
    redis("FCALL", "trib_job_set", 1, JOB, "5|o", "created", "running", "")
    for node in ("n1", "n2"):
        redis("FCALL", "trib_node_up", 1, "trib:node:" + node, node, 60000, "url", "http://" + node)
        redis("FCALL", "trib_node_lost", 1, JOB, 1, node, "b1")
    redis("FCALL", "trib_round_open", 1, JOB, "5|o", 1, 0, count, 1, count, 60000)
    for i in range(count):
        redis("FCALL", "trib_checkin", 1, JOB, f"c{i}", f"u{i}")
        redis("FCALL", "trib_commit", 1, JOB, f"c{i}", f"u{i}", 1, "d", 2, f"n1:b1:{i}:1", "n1")
    redis("DEL", "trib:node:n1")


def counts(redis):  # noqa: F811
    r = pairs(redis("HGETALL", "trib:{job_x}:r:1"))
    rows = [v for v in pairs(redis("HGETALL", "trib:{job_x}:r:1:upd")).values() if v.startswith("C|")]
    assert int(r["acc"]) == len(rows) == int(r["n:n1"]) and int(r["wsum"]) == 2 * len(rows), r
    return r


def test_a_node_with_many_updates_is_lost_page_by_page_whoever_dies_meanwhile(redis):  # noqa: F811
    many(redis, 1700)
    assert counts(redis)["state"] == "closing"
    looked, lost, found = redis("FCALL", "trib_node_silent", 1, "trib:jobs", "n1", 0, 64, 0)
    assert looked == found == 1 and 0 < lost < 800, lost
    r = counts(redis)  # that leader is killed here
    assert r["state"] == "open" and "losing" in r and int(r["acc"]) == 1700 - lost, r
    assert redis("FCALL", "trib_task_done", 1, JOB, 1, r["acc"], r["wsum"], "m", "n2", "b1")[0] == "NOOP"
    assert redis("FCALL", "trib_deadline", 1, JOB, "6|p", 1, 2)[0] == "EARLY"
    assert redis("FCALL", "trib_commit", 1, JOB, "c1", "u1", 1, "d", 2, "n1:b1:9999:1", "n1")[0] in (
        "NORES", "DUP")  # (its memory is gone; or it is not taken out yet)
    # The next one sees the node as silent as before, and goes on.
    assert redis("FCALL", "trib_nodes_silent", 1, "trib:nodes") == ["n1"]
    calls, total, left = 0, lost, True
    while left:
        left = False
        looked, more, found = redis("FCALL", "trib_node_silent", 1, "trib:jobs", "n1", 0, 64, 0)
        calls, total, left = calls + 1, total + more, found > 0
        counts(redis)
    r = counts(redis)
    assert r["acc"] == "0" and r["lost"] == "1700" and r["state"] == "open" and "losing" not in r, r
    assert calls >= 3 and redis("EXISTS", "trib:losing") == 0 and redis("HEXISTS", JOB, "lose:n1") == 0
    assert redis("FCALL", "trib_checkin", 1, JOB, "c5", "v5")[0] == "SELECTED"
    assert redis("FCALL", "trib_nodes_silent", 1, "trib:nodes") == []


def test_what_an_agent_began_and_did_not_end_the_leader_ends(redis):  # noqa: F811
    """It came back with fresh memory, began to declare the old lost, and was killed; nobody knows the job there."""
    many(redis, 900)
    redis("FCALL", "trib_node_up", 1, "trib:node:n1", "n1", 60000, "url", "http://n1")
    assert redis("FCALL", "trib_node_lost", 1, JOB, 1, "n1", "b2")[0] == "MORE"
    assert redis("FCALL", "trib_checkin", 1, JOB, "new", "w1")[0] in ("SELECTED", "WAIT")
    for _ in range(9):
        assert redis("FCALL", "trib_nodes_silent", 1, "trib:nodes") == []
    r = counts(redis)
    assert r["acc"] == "0" and r["lost"] == "900" and redis("EXISTS", "trib:losing") == 0, r
    assert redis("HGET", JOB, "b:n1") == "b2"
