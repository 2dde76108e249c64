# SPDX-License-Identifier: Apache-2.0
"""Random arrival traces against the service and the reference simulator, several small jobs at a time on one node.

    RUNS=200 SEED=1 python3 traces.py      ends with `traces: runs R mismatches M`

Each run is one job of one policy. Every answer of the service (selected or not, counted or refused, in which round and
with which weight) must be the simulator's; every published model must be within the bound of the simulator's.
"""
import concurrent.futures
import datetime
import http.client
import os
import random
import sys
import threading
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "system")]

from cluster import Job, Node, body_of, call, until  # noqa: E402
from simulator import UNIT, Simulator  # noqa: E402

SIZE, CLIENTS, PATIENCE_S = 60, 9, 60
POLICIES = ("late", "drop", "dbw", "fedbuff", "normalised", "fedasync", "afa", "afacs", "fedfix")


class Mismatch(AssertionError):
    pass


def same(what, got, want):
    if got != want:
        raise Mismatch(f"{what}: service {got}, reference {want}")


# ---- what a run is ----

def staleness_of(rng):
    fn = rng.choice(["const", "poly", "hinge", "inverse_sqrt"])
    return {"fn": fn, "alpha": rng.choice([0.25, 0.5, 1.0, 2.0]), "after": rng.choice([0, 1]),
            "offset": rng.choice([0, 0, 1])}


def aggregation_of(rng, denominators):
    out = {"denominator": rng.choice(denominators), "weight_by": rng.choice(["examples", "uniform"]),
           "server_opt": {"kind": "sgd", "lr": rng.choice([1.0, 0.5, 0.25])}, "max_weight": 1000}
    if out["denominator"] == "population":
        out["population"] = rng.choice([8, 100.5, 4000])
    return out


ALL = ["weight_sum", "count", "goal", "weight_sum_raw", "one", "population"]


def spec_of(policy, rng):
    if policy in ("late", "drop", "dbw"):
        sync = {"goal": rng.randint(2, 4) + (policy == "dbw"), "quorum": 1, "over_select": rng.choice([1.0, 1.5, 2.0]), "deadline_s": 600,
                "client_timeout_s": 600}
        if policy != "dbw" and rng.random() < 0.4:
            sync["sampling"] = {**rng.choice([{"fraction": 0.75}, {"count": rng.randint(3, 7)}]),
                                "seed": rng.randrange(2 ** 50)}
        if policy == "late" or (policy == "dbw" and rng.random() < 0.5):
            sync.update(late="next", max_staleness=rng.choice([1, 2, 5]), staleness=staleness_of(rng))
        if policy == "dbw":
            sync["quorum"] = rng.randint(1, sync["goal"] - 1)
            sync["backup"] = {"kind": "dbw", "alpha": rng.choice([0.2, 0.5, 1.0]), "step": rng.choice([0, 0.01, 1.0])}
            return {"mode": "sync", "sync": sync,
                    "aggregation": aggregation_of(rng, ["weight_sum"] if sync["backup"]["step"] else ALL)}
        return {"mode": "sync", "sync": sync, "aggregation": aggregation_of(rng, ALL)}
    y = {"buffer_k": rng.randint(1, 4), "concurrency": rng.choice([3, 6, 64]), "client_timeout_s": 600,
         "max_staleness": rng.choice([1, 2, 20]), "flush_timeout_s": 600, "staleness": staleness_of(rng)}
    aggregation = aggregation_of(rng, ALL)
    if policy == "normalised":
        y["staleness"].update(normaliser="average", average=rng.choice([0, 1, 2.5]))
        aggregation = aggregation_of(rng, ALL[1:])
    elif policy == "fedasync":
        y["buffer_k"] = 1
        aggregation.update(denominator="one", weight_by="uniform")
    elif policy == "afa":
        y["staleness"] = {"fn": "const"}
        aggregation.update(denominator="count", weight_by="uniform")
    elif policy == "afacs":
        y.update(staleness={"fn": "const"}, memory="all", memory_clients=rng.choice([4, 6, 64]))
        aggregation.update(denominator=rng.choice(["count", "population"]), weight_by="uniform")
        if aggregation["denominator"] == "population":
            aggregation["population"] = CLIENTS
    elif policy == "fedfix":
        y.update(buffer_k=500, trigger="clock", flush_timeout_s=rng.choice([0.2, 0.3]), concurrency=64, max_staleness=20,
                 staleness={"fn": "intervals"})
        aggregation = aggregation_of(rng, ["population", "one", "count", "weight_sum"])
    if aggregation["denominator"] != "population":
        aggregation.pop("population", None)
    return {"mode": "async", "async": y, "aggregation": aggregation}


# ---- one run ----

class Run:
    def __init__(self, node, policy, seed):
        self.rng = random.Random(f"{policy}-{seed}")
        self.policy, self.spec = policy, spec_of(policy, self.rng)
        self.job = Job(node, size=SIZE, clients=1, rounds=1000, seed=seed, leaves=self.rng.choice([0, 0, 1, 2]),
                       spec=self.spec)
        self.sim = Simulator(self.spec, self.job.base, self.job.bits)
        self.serial, self.out, self.refused = 0, [], 0
        self.alike = 10.0 ** self.rng.uniform(-1, 1)  # dbw: updates have a direction in common, and noise
        self.chosen = set()

    def update(self):
        """(vector, weight): one of its own for every commit."""
        self.serial += 1
        rng = np.random.default_rng([self.job.seed, self.serial])
        scale = 10.0 ** rng.integers(-3, 2)
        if self.policy == "dbw":
            x = self.alike * np.sin(np.arange(SIZE)) + rng.standard_normal(SIZE)
            return (x * 0.01).astype(np.float32), float(rng.integers(1, 40)) + 0.25
        return (rng.standard_normal(SIZE) * scale).astype(np.float32), float(rng.integers(1, 400)) + 0.25

    def checkin(self, client):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                answer = self.job.checkin(client)
            except (OSError, http.client.HTTPException):
                continue
            except AssertionError as e:
                if ": 503 " not in str(e):
                    raise
                continue
            if answer["status"] == "selected" or answer["why"] in ("reported", "full", "not-sampled", "memory-full"):
                return answer
            time.sleep(0.01)  # the round is between two states: not what is compared here
        raise Mismatch(f"check-in of {client}: no answer in time")

    def put(self, client, ticket, x, weight, extra=None):
        """The receipt, or the refusal, whatever it takes."""
        end, sent = time.monotonic() + PATIENCE_S, []
        while time.monotonic() < end:
            try:
                status, _, answer = self.job.put(client, ticket, body_of(x), weight, extra)
            except (OSError, http.client.HTTPException):
                sent.append("cut")
                continue
            if status in (200, 201):
                return "counted" if status == 201 or sent else "again", answer
            if status in (429, 503) or answer.get("code") == "upload-busy":
                sent.append(status)
                time.sleep(min(0.2, float(answer.get("retry_after", 0.05))))
                continue
            return "refused", answer
        raise Mismatch(f"upload of {client}: no answer in time, {sent}")

    def settled(self):
        """What follows from the last event has happened."""
        sim = self.sim

        def there():
            status = self.job.get()["status"]
            if self.spec["mode"] == "async":
                return status["version"] >= sim.version
            return status["version"] >= sim.version and status["round"] >= sim.rounds[-1].number
        try:
            until("settled", there, PATIENCE_S, 0.01)
        except AssertionError as e:
            raise Mismatch(f"version {sim.version}, round {sim.rounds[-1].number} expected: "
                           f"{self.job.get()['status']}") from e
        if self.policy == "dbw":
            self.aimed()

    def aimed(self):
        last = self.sim.rounds[-1]
        r = self.job.round(last.number)
        same(f"updates that end round {last.number}", (r["goal"], r["backup"]["k"], r["backup"]["why"]),
             (last.goal, last.goal, last.why))
        last.opened = ms_of(r["opened"])
        self.chosen.add(last.why)

    def one_checkin(self, client):
        answer = self.checkin(client)
        want = self.sim.checkin(client)
        if want[0] == "selected":
            same(f"check-in of {client}", (answer["status"], answer.get("round"), answer.get("base_version")), want)
            if (client, answer["round"]) not in [(c, t["round"]) for c, t, _ in self.out]:
                self.out.append((client, answer, self.update()))
        else:
            same(f"check-in of {client}", (answer["status"], answer.get("why")), want)

    def one_commit(self, client, ticket, update):
        loss = None
        if self.policy == "dbw" and self.rng.random() < 0.9:
            loss = round(self.rng.uniform(0.9, 1.1) / (1 + self.sim.version), 6)
        what, answer = self.put(client, ticket, *update, {"FL-Metrics": f"loss={loss}"} if loss else None)
        self.refused += what == "refused"
        want = self.sim.commit(client, (ticket["round"], ticket["base_version"]), *update,
                               self.when(ticket, what, answer), loss)
        got = (what, answer.get("code")) if what == "refused" else \
            (what, answer["counted_in"], int(answer["weight_used"] * UNIT))
        same(f"commit of {client} for round {ticket['round']}", got, want)

    def when(self, ticket, what, answer):
        """Redis' time of a commit, where a decision hangs on it."""
        if self.policy != "dbw":
            return 0.0
        own = self.sim.rounds[ticket["round"]]
        if what != "refused" and own.open:
            return float(ms_of(answer["accepted_at"]))
        after = self.job.node.redis("HGET", f"trib:{{{self.job.id}}}:r:{ticket['round']}", "afterms")
        return float(own.opened + int(after.split(",")[-1])) if after else 0.0

    def steps(self):
        last, late = None, self.policy == "late"
        if self.policy == "dbw":
            self.aimed()
        for _ in range(self.rng.randint(35, 60)):
            dice, sim = self.rng.random(), self.sim
            ended = len(sim.rounds)
            busy = {c for c, _, _ in self.out}
            if dice < 0.05 and last:
                self.one_commit(*last)  # a replay
            elif dice < 0.09 and sim.rounds[-1].rows:
                number = sim.rounds[-1].number
                call(self.job.node.api, "POST", f"/v1/jobs/{self.job.id}/rounds/{number}:close", {"force": True})
                sim.close()
            elif dice < 0.55 or not self.out:
                free = [c for c in range(CLIENTS) if c not in busy or (late and self.rng.random() < 0.4)]
                if free:
                    self.one_checkin(self.rng.choice(free))
            else:
                last = self.out.pop(self.rng.randrange(len(self.out)))
                self.one_commit(*last)
            # A late update may come while no round is open; everything else is decided by what went before.
            old = [i for i, (_, t, _) in enumerate(self.out) if t["round"] < sim.rounds[-1].number]
            if len(sim.rounds) > ended and late and old and self.rng.random() < 0.6:
                last = self.out.pop(self.rng.choice(old))
                self.one_commit(*last)
            if len(sim.rounds) > ended:
                self.settled()
        self.settled()

    def models(self):
        same("version", self.job.version(), self.sim.version)
        self.models_up_to(self.sim.version)

    # ---- the clock: the service's own times are the trace ----

    def clocked(self):
        job, facts = self.job, []
        key, end = f"trib:{{{job.id}}}", time.monotonic() + PATIENCE_S
        first = ms_of(job.round(1)["opened"])
        while job.version() < 4 and time.monotonic() < end:
            busy = {c for c, _, _ in self.out}
            free = [c for c in range(CLIENTS) if c not in busy]
            if free and (not self.out or self.rng.random() < 0.5):
                client = self.rng.choice(free)
                answer = self.checkin(client)
                if answer["status"] == "selected":
                    since = int(job.node.redis("HGET", key + ":aupd", f"c-{client}").split("|")[4])
                    facts.append((since, "checkin", client, answer))
                    self.out.append((client, answer, self.update()))
            else:
                client, ticket, update = self.out.pop(self.rng.randrange(len(self.out)))
                what, answer = self.put(client, ticket, *update)
                same(f"commit of {client}", what, "counted")
                facts.append((ms_of(answer["accepted_at"]), "commit", client, (ticket, update, answer)))
            time.sleep(self.rng.random() * 0.04)
        last = job.version()
        rounds = {n: job.round(n) for n in range(1, last + 1)}
        for n, r in rounds.items():
            facts.append((ms_of(r["closed"]), "flush", n, r))
            facts.append((ms_of(r["published"]), "publish", n, r))
        self.replay(facts, rounds, first, last)

    def order(self, facts, rounds):
        """By the server's clock; of two things in one millisecond, in the order that they can have had."""
        at = {("flush", n): ms_of(r["closed"]) for n, r in rounds.items()}
        at.update({("publish", n): ms_of(r["published"]) for n, r in rounds.items()})

        def place(fact):
            ms, kind, n, more = fact
            if kind == "flush":
                return ms, 1, n
            if kind == "publish":
                return ms, 3, n
            if kind == "checkin":
                return ms, 4 if at.get(("publish", more["base_version"])) == ms else 2, 0
            return ms, 2 if at.get(("flush", more[2]["counted_in"] - 1)) == ms else 0, 0
        return sorted(facts, key=place)

    def replay(self, facts, rounds, first, last):
        sim, dt = self.sim, round(self.spec["async"]["flush_timeout_s"] * 1000)
        sim.at_once = False
        for ms, kind, who, more in self.order(facts, rounds):
            if kind == "checkin":
                same("check-in", ("selected", more["base_version"]), sim.checkin(who, ms)[::2])
            elif kind == "commit":
                ticket, update, answer = more
                same(f"commit of {who}", ("counted", answer["counted_in"], int(answer["weight_used"] * UNIT)),
                     sim.commit(who, (ticket["round"], ticket["base_version"]), *update, ms))
            elif kind == "flush":
                same("buffers ended in order", who, sim.rounds[-1].number)
                same("the clock's grid", (ms_of(more["deadline"]) - first) % dt, 0)
                if ms < ms_of(more["deadline"]) or not sim.close():
                    raise Mismatch(f"buffer {who} was flushed before its time, or empty")
            else:
                sim.publish_next()
        # what came after the last version was seen is not compared
        while sim.version > last:
            sim.models.pop()
        self.models_up_to(last)

    def models_up_to(self, last):
        for v in range(1, last + 1):
            off = np.abs(self.job.published(v).astype(np.float64) - self.sim.models[v])
            if np.any(off > self.sim.bounds[v]):
                raise Mismatch(f"model {v}: {np.max(off / self.sim.bounds[v])} of the bound")

    def go(self):
        until("first round", lambda: self.job.get()["status"]["round"] == 1, PATIENCE_S)
        if self.policy == "fedfix":
            self.clocked()
        else:
            self.steps()
            self.models()
        self.job.delete()


def ms_of(text):
    t = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    return round(t.timestamp() * 1000)


def campaign(node, runs, together=4):
    """runs: [(policy, seed)] -> [(policy, seed, what)] of those that differ, counts of what was seen."""
    wrong, seen, lock = [], {"versions": 0, "counted": 0, "carried": 0, "refused": 0, "chosen": 0}, threading.Lock()

    def one(which):
        policy, seed = which
        try:
            run = Run(node, policy, seed)
            run.go()
            with lock:
                sim = run.sim
                seen["versions"] += sim.version
                seen["refused"] += run.refused
                seen["chosen"] += "rate" in run.chosen
                seen["counted"] += sum(len(r.rows) for r in sim.rounds[1:])
                seen["carried"] += sum(key[1] != said[0] for key, said in sim.said.items()
                                       if run.spec["mode"] == "sync")
        except Exception as e:  # noqa: BLE001 - a run that fails for any reason is told
            with lock:
                wrong.append((policy, seed, f"{type(e).__name__}: {e}"))

    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        list(pool.map(one, runs))
    return wrong, seen


def main():
    runs, seed = int(os.environ.get("RUNS", "200")), int(os.environ.get("SEED", "1"))
    which = [(POLICIES[i % len(POLICIES)], seed * 100000 + i) for i in range(runs)]
    with Node() as node:
        wrong, seen = campaign(node, which)
    for policy, number, what in wrong:
        print(f"MISMATCH policy={policy} seed={number} {what}")
    print(", ".join(f"{name} {count}" for name, count in seen.items()))
    print(f"traces: runs {runs} mismatches {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
