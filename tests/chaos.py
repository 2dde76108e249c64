#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make chaos RUNS=100 SEED=1: seeded rounds under load while processes are killed or stopped at random instants.

One to three jobs at once, one to three rounds each, 1 to 8 slots or as many as fit; clients that break off, upload twice
at once or sleep through rounds with deadlines; sometimes a further job is stopped and deleted in the middle of it all.

Three sites, by the seed: a plain node; one with a standby orchestrator (the leader is killed or frozen for up to ten
seconds, the standby killed); the same on a Redis with two replicas and three Sentinels (the master is killed or frozen,
a replica or a Sentinel killed). Clients die for good where a quorum allows it.

After each run: every round is published (or, with a deadline, failed) with every client counted once and every receipt
among the counted, receipts name no other digest, the model is bit-equal to the integer reference of the counted updates (which is what the undisturbed
round gives), versions rose by one, the epoch did not fall, deleted jobs left no memory.
In a third of the runs a further job is patched from policy to policy meanwhile (chaos_switch.py), in a third two faults come
at the very same instant or one lasts for seconds. Some clients send slowly, or are cut off within a resumed part.

A run that breaks one of these prints its seed (`make chaos RUNS=1 SEED=that`). JOBS=3 does three runs at a time, each on
sites of its own; the runs are the same. Ends with `chaos: runs R violations V`.
"""
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests/system")]
from chaos_switch import Switcher  # noqa: E402
from cluster import Job, Node, body_of, request, until  # noqa: E402
from sentinel import Sentinels  # noqa: E402
from test_failover import Orchestrator  # noqa: E402

PROCESSES = ("gateway", "agent", "orchestrator", "redis")
NODE_LIFE = 25  # runs on one node before a fresh one


SITES = ("plain", "standby", "sentinel")


class Site(Node):
    """A node with a second orchestrator, and with a replicated Redis if wanted. `api` is that of who leads."""

    def __init__(self, replicated, **options):
        self.sentinels = Sentinels() if replicated else None
        self.standby, self.first = None, None
        try:
            super().__init__(*(["--redis", self.sentinels.address] if replicated else []), **options)
            self.heal()
        except BaseException:
            self.stop()
            raise

    @property
    def api(self):
        return self.standby.api if self.standby and self.leader() == "standby" else self.first

    @api.setter
    def api(self, url):
        self.first = url

    def redis(self, *words):
        return self.sentinels.cli(*words) if self.sentinels else super().redis(*words)

    def leader(self):
        return self.redis("GET", "trib:lease:orch").rpartition("|")[0]

    def leader_pid(self, leads=True):
        if (self.leader() == "standby") == leads:
            return self.standby.process.pid
        pid = self.pid("orchestrator")
        if pid <= 0:  # between two lives; kill(0) would be our own group
            raise ProcessLookupError("orchestrator")
        return pid

    def heal(self):
        """What a supervisor elsewhere would start again."""
        if self.sentinels:
            for i, process in enumerate(self.sentinels.sentinels):
                if process.poll() is not None:
                    self.sentinels.start_sentinel(i)
            self.sentinels.whole()
        if not self.standby or self.standby.process.poll() is not None:
            self.standby = Orchestrator(self, "standby")
        until("somebody leads", self.leader, 30, 0.1)

    def stop(self):
        if self.standby:
            self.standby.end()
        if self.process:
            super().stop()
        if self.sentinels:
            self.sentinels.stop()


def freeze(pid, seconds):
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


def control_fault(site, rng, redis_too):
    """One fault of what a plain node has not."""
    kind = rng.choice(["leader-kill", "leader-freeze", "standby-kill"] + (["master-kill", "master-freeze"] * 2 + [
        "replica-kill", "sentinel-kill"] if redis_too else []))
    if kind in ("leader-kill", "standby-kill"):
        os.kill(site.leader_pid(kind == "leader-kill"), signal.SIGKILL)
        return kind
    if kind == "leader-freeze":
        seconds = rng.choice([0.5, 3, 5, 10])
        freeze(site.leader_pid(), seconds)
        return f"{kind} {seconds} s"
    s, master = site.sentinels, site.sentinels.master()
    if kind == "sentinel-kill":
        s.sentinels[rng.randrange(len(s.sentinels))].kill()
        return kind
    victim = master if kind.startswith("master") else rng.choice([i for i in range(len(s.redis)) if i != master])
    if kind == "master-freeze":
        seconds = rng.choice([0.3, 1, 3, 6])
        freeze(s.redis[victim].pid, seconds)
        return f"{kind} {seconds} s"
    s.kill(victim)
    if rng.random() < 0.3:  # back before anybody has decided
        s.start_redis(victim)
        return kind + " and start"
    return kind


def function_pids(node):
    return [f["pid"] for j in node.state()["jobs"] for f in j["functions"] if f["pid"] > 0]


def pause(pid, rng, longest=0.6):
    os.kill(pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0.05, longest))
    os.kill(pid, signal.SIGCONT)


def fault(node, rng):
    """One random fault; returns what it did."""
    kind = rng.choice(["kill"] * 5 + ["function"] * 4 + ["sleepy"] * 2 + ["stop", "stop", "pair", "zygote"])
    try:
        if kind == "kill":
            name = rng.choice(PROCESSES)
            node.kill(name)
            return f"kill {name}"
        if kind == "function":
            os.kill(rng.choice(function_pids(node)), signal.SIGKILL)
            return "kill function"
        if kind == "sleepy":
            pause(rng.choice(function_pids(node)), rng, 1.5)
            return "stop function"
        if kind == "stop":
            name = rng.choice(PROCESSES)
            pid = node.kill(name, signal.SIGSTOP)
            time.sleep(rng.uniform(0.05, 0.6))
            os.kill(pid, signal.SIGCONT)
            return f"stop {name}"
        if kind == "zygote":
            os.kill(until("a zygote", lambda: node.state()["zygote_pid"], 10), signal.SIGKILL)
            return "kill zygote"
        names = rng.sample(PROCESSES, 2)
        for name in names:
            node.kill(name)
        return "kill " + " and ".join(names)
    except (OSError, IndexError, KeyError, TypeError, AssertionError, ValueError):
        return None


def long_freeze(node, rng):
    name, seconds = rng.choice(PROCESSES), rng.choice([1, 2, 4])
    pid = node.pid(name)
    if pid <= 0:  # between two lives
        raise ValueError(name)
    freeze(pid, seconds)
    return f"freeze {name} {seconds} s"


def rare_fault(node, rng):
    """Two faults at one instant, or one that lasts."""
    if rng.random() < 0.4:
        try:
            return long_freeze(node, rng)
        except (OSError, AssertionError, KeyError, ValueError, TypeError):
            return None  # or Redis is not the node's own
    done, gate = [], threading.Barrier(2)

    def one(mine):
        gate.wait()
        done.append(fault(node, mine))

    both = [threading.Thread(target=one, args=(random.Random(rng.random()),)) for _ in range(2)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    return " at once with ".join(str(d) for d in done)


def disturb(node, rng, rare=None):
    """A few random faults; returns what they did. rare: a random.Random for those that are."""
    faults, redis_too = [], bool(getattr(node, "sentinels", None))
    count = rng.randint(1, 4)
    when = rare.randrange(count) if rare and rare.random() < 0.33 else -1
    for i in range(count):
        if i == when:
            faults.append(rare_fault(node, rare) or "nothing")
        time.sleep(rng.uniform(0, 0.4))
        if isinstance(node, Site) and rng.random() < 0.6:
            try:
                what = control_fault(node, rng, redis_too)
            except ProcessLookupError:  # it was killed a moment ago
                continue
            redis_too = redis_too and not what.startswith(("master", "replica"))  # one replica at a time (ADR 7)
        else:
            what = fault(node, rng)
        if what:
            faults.append(what)
    return faults


def asked(node, path):
    """GET from the API; 503 and broken connections (a process just came back) are asked again."""
    end = time.monotonic() + 20
    while True:
        try:
            status, _, data = request(node.api, "GET", path)
            if status != 503:
                assert status == 200, (path, status, data)
                return json.loads(data)
        except (OSError, http.client.HTTPException):
            pass
        assert time.monotonic() < end, f"GET {path}: no answer"
        time.sleep(0.1)


class Client(threading.Thread):
    """Takes part in a job until it is over: sometimes breaks off in mid-body, uploads twice at once, or sleeps through
    a round. What it holds receipts for is in `receipts`."""

    def __init__(self, job, number, seed, lazy, until_s):
        super().__init__()
        self.job, self.number, self.rng, self.lazy = job, number, random.Random(seed), lazy
        self.end, self.receipts, self.error, self.mortal = time.monotonic() + until_s, {}, None, False
        self.fate = random.Random(f"{seed} fate")
        self.pace = random.Random(f"{seed} pace")

    def run(self):
        try:
            while self.turn():
                pass
        except BaseException as e:  # noqa: BLE001 - judged by the run
            self.error = e

    def ask(self):
        while True:
            assert time.monotonic() < self.end, f"client {self.number}: no end of the job"
            try:
                status, _, data = request(self.job.node.data, "POST", f"/v1/jobs/{self.job.id}/checkins",
                                          {"client_id": f"c-{self.number}"}, {"Prefer": "wait=2"}, 30)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status == 404:
                return {"status": "done"}
            assert status in (200, 503), (status, data)
            answer = json.loads(data)
            if status == 200 and answer["status"] != "wait":
                return answer
            time.sleep(min(0.3, float(answer.get("retry_after", 0.1))))

    def begin(self, method, path, fields, part, size):
        """A request whose body of `size` bytes has only begun."""
        u = urllib.parse.urlsplit(self.job.node.data)
        c = http.client.HTTPConnection(u.hostname, u.port, timeout=20)
        c.putrequest(method, path)
        for k, v in {**fields, "Content-Length": str(size)}.items():
            c.putheader(k, v)
        c.endheaders()
        c.send(part)
        return c

    def break_off(self, ticket):
        x, w = self.job.update(self.number, ticket["round"])
        body = body_of(x)
        try:
            self.begin("PUT", ticket["upload"]["url"], self.job.headers(self.number, ticket, w),
                       body[:self.rng.randrange(len(body))], len(body)).close()
        except OSError:
            pass

    def slowly(self, ticket):
        """A receipt by an upload that takes its time, or None: the plain upload settles it."""
        x, w = self.job.update(self.number, ticket["round"])
        body = body_of(x, [2, 0, 1] if self.number % 3 == 1 else None)
        at = self.pace.randrange(len(body))
        try:
            c = self.begin("PUT", ticket["upload"]["url"], self.job.headers(self.number, ticket, w), body[:at], len(body))
            time.sleep(self.pace.uniform(0.1, 1))
            c.send(body[at:])
            answer = c.getresponse()
            receipt = json.loads(answer.read())
            c.close()
            return receipt if answer.status in (200, 201) else None
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def in_pieces(self, ticket):
        """A receipt by a resumable upload, or None: whatever became of it, the plain upload settles it."""
        x, w = self.job.update(self.number, ticket["round"])
        body = body_of(x, [2, 0, 1] if self.number % 3 == 1 else None)  # as Job.put
        node, path = self.job.node, ticket["upload"]["resume"]
        fields = self.job.headers(self.number, ticket, w)
        try:
            at = self.fate.randrange(len(body))
            status, _, _ = request(node.data, "PUT", ticket["upload"]["url"], body[:at],
                                   {**fields, "Upload-Complete": "?0", "Upload-Length": str(len(body))}, 20)
            while status in (201, 204):
                status, head, _ = request(node.data, "HEAD", path, None, fields, 20)
                if status != 204:
                    break
                at, last = int(head["upload-offset"]), self.fate.random() < 0.5
                to = len(body) if last else self.fate.randrange(at, len(body) + 1)
                if at < to and self.pace.random() < 0.2:  # cut off within it; what came is asked for again
                    part = {**fields, "Content-Type": "application/partial-upload", "Upload-Offset": str(at),
                            "Upload-Complete": "?1" if last else "?0"}
                    self.begin("PATCH", path, part, body[at:self.pace.randrange(at, to)], to - at).close()
                    continue
                status, _, data = request(node.data, "PATCH", path, body[at:to], {
                    **fields, "Content-Type": "application/partial-upload", "Upload-Offset": str(at),
                    "Upload-Complete": "?1" if last else "?0"}, 20)
                if last:
                    return json.loads(data) if status in (200, 201) else None
        except (OSError, http.client.HTTPException):
            pass
        return None

    def upload(self, ticket):
        """A receipt, or None when this round is over (or the place in it) for the client."""
        while True:
            assert time.monotonic() < self.end, f"client {self.number}: no receipt"
            try:
                status, _, receipt = self.job.put(self.number, ticket, timeout=30)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status in (200, 201):
                return receipt
            if receipt.get("code") in ("not-selected", "round-closed", "no-such-job", "job-not-running",
                                       "ticket-expired"):
                return None
            assert status in (429, 503) or receipt.get("code") == "upload-busy", (status, receipt)
            time.sleep(float(receipt.get("retry_after", 0.1)))

    def turn(self):
        ticket = self.ask()
        if ticket["status"] == "done":
            return False
        if self.rng.random() < self.lazy:
            time.sleep(self.rng.uniform(0, 3))
        if self.mortal and self.fate.random() < 0.1:
            self.break_off(ticket)
            return False  # never seen again
        if self.rng.random() < 0.15:
            self.break_off(ticket)
        twin = []
        if self.rng.random() < 0.15:
            twin = [threading.Thread(target=self.twin_upload, args=(ticket, twin))]
            twin[0].start()
        receipt = (self.fate.random() < 0.25 and self.in_pieces(ticket)) or \
            (self.pace.random() < 0.15 and self.slowly(ticket)) or self.upload(ticket)
        for t in twin[:1]:
            t.join()
        if receipt:
            n = ticket["round"]
            assert n not in self.receipts, f"client {self.number} counted twice in round {n}"
            self.receipts[n] = receipt
        return True

    def twin_upload(self, ticket, out):
        try:
            out.append(self.upload(ticket))
        except BaseException as e:  # noqa: BLE001
            self.error = e


def patient(what, limit_s=40):
    """Does it again while nobody leads (or a process is just coming back)."""
    end = time.monotonic() + limit_s
    while True:
        try:
            return what()
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end
        except AssertionError as e:
            if ": 503 " not in str(e) or time.monotonic() > end:
                raise
        time.sleep(0.1)


class Trial:
    """One job with its clients."""

    def __init__(self, node, rng, seed):
        clients = rng.randint(4, 14)
        self.hasty = rng.random() < 0.35  # deadlines and stragglers
        spec = {"placement": {"slots": rng.choice([0, 1, 2, 3, 8])}}
        if self.hasty:
            spec["sync"] = {"deadline_s": rng.choice([2, 3])}
        spec["hierarchy"] = {"shards": random.Random(f"{seed} shards").choice([1, 1, 2, 4])}
        self.rounds = rng.choice([1, 1, 2, 3])
        size, leaves = rng.choice([300, 9000, 70000, 150001]), rng.choice([0, 1, 2, 3, 7])
        quorum = rng.randint(1, clients) if self.hasty else None
        self.job = patient(lambda: Job(node, size=size, clients=clients, seed=seed, spec=spec, leaves=leaves,
                                       rounds=self.rounds, quorum=quorum))
        self.crew = [Client(self.job, c, rng.random(), 0.3 if self.hasty else 0, 100) for c in range(clients)]
        for c in self.crew:
            c.mortal = self.hasty and c.number >= self.job.doc["spec"]["sync"]["quorum"]
            c.start()

    def abandon(self, rng):
        """Stopped and deleted in the middle of whatever it does."""
        steps = [("POST", f"/v1/jobs/{self.job.id}:stop", (200, 202, 409))] * rng.randint(1, 2)
        for method, path, fine in steps + [("DELETE", f"/v1/jobs/{self.job.id}?purge=1", (200, 204, 404))]:
            end = time.monotonic() + 40
            while True:
                try:
                    if request(self.job.node.api, method, path)[0] in fine:
                        break
                except (OSError, http.client.HTTPException):
                    pass
                assert time.monotonic() < end, f"{method} {path} never answered"
                time.sleep(0.1)
        for c in self.crew:
            c.join(60)
            assert not c.is_alive() and not c.error, ("of a deleted job", c.error)

    def judge(self):
        job = self.job
        for c in self.crew:
            c.join(110)
        until("node ready", job.node.ready, 30)
        errors = [c.error for c in self.crew if c.error or c.is_alive()]
        assert not errors, errors
        base, version, n = job.base, 0, 0
        while version < self.rounds:
            n += 1
            record = asked(job.node, f"/v1/jobs/{job.id}/rounds/{n}")
            updates = asked(job.node, f"/v1/jobs/{job.id}/rounds/{n}/updates?limit=500")
            counted = [int(u["client"][2:]) for u in updates["items"] if u["state"] == "accepted"]
            assert len(set(counted)) == len(counted) == record["accepted"] and record["lost"] == 0, (n, record, counted)
            for c in self.crew:
                assert n not in c.receipts or c.number in counted, f"round {n}: receipt of {c.number}, not counted"
            if record["state"] == "failed":
                assert self.hasty, record
                continue
            assert record["state"] == "published", (n, record)
            version += 1
            model = job.published(version, timeout=20)
            job.check(model, n, base, sorted(counted))
            base = model
        assert job.version() == version
        digests = job.node.redis("HKEYS", f"trib:{{{job.id}}}:models").split()
        assert sorted(map(int, digests)) == list(range(version + 1)), digests
        patient(job.delete)


def run(node, seed):
    rng = random.Random(seed)
    if isinstance(node, Site):
        node.heal()
    epochs = node.redis("GET", "trib:fence")
    trials = [Trial(node, rng, seed * 4 + i) for i in range(rng.choice([1, 1, 2, 3]))]
    doomed = Trial(node, rng, seed * 4 + 3) if rng.random() < 0.3 else None
    rare = random.Random(f"{seed} rare")
    switcher = Switcher(node, seed, patient) if rare.random() < 0.33 else None
    faults = disturb(node, rng, rare)
    try:
        if isinstance(node, Site):
            node.heal()
        if doomed:
            faults.append("delete a job")
            doomed.abandon(rng)
        if switcher:
            faults.append("switch a job")
            switcher.judge()
        for t in trials:
            t.judge()
    except BaseException:
        print(f"    after {faults}", flush=True)
        raise
    assert int(node.redis("GET", "trib:fence")) >= int(epochs or 0)
    gone = [t.job.id for t in trials + [doomed, switcher] if t]
    until("no memory of deleted jobs left", lambda: not {j["job"] for j in node.state()["jobs"]} & set(gone), 10)
    return faults


def make_site(kind):
    env = {"TRIBUTARY_TEST_FOLD_DELAY_US": "800"}
    return Node(env=env) if kind == "plain" else Site(kind == "sentinel", env=env)


def show(node):
    try:
        print(json.dumps(node.state(), indent=1))
        print("\n".join(line for line in node.admin("gateway").splitlines()
                        if not line.startswith("#") and not line.endswith(" 0")), flush=True)
    except BaseException as f:  # noqa: BLE001 - best effort
        print("no state:", f)
    print(node.logs(6000), flush=True)
    if getattr(node, "sentinels", None):
        print(node.sentinels.logs(), flush=True)


def spread(jobs, runs, seed):
    """The same runs, `jobs` at a time: each process does a part of the seeds."""
    parts, total, lock = [], [0, 0], threading.Lock()

    def follow(process):
        for line in process.stdout:
            end = re.fullmatch(r"chaos: runs (\d+) violations (\d+)\n", line)
            with lock:
                if end:
                    total[0], total[1] = total[0] + int(end[1]), total[1] + int(end[2])
                else:
                    print(line, end="", flush=True)

    for i in range(jobs):
        first, last = runs * i // jobs, runs * (i + 1) // jobs
        if first < last:
            process = subprocess.Popen([sys.executable, os.path.abspath(__file__)], stdout=subprocess.PIPE, text=True, env={
                **os.environ, "JOBS": "1", "RUNS": str(last - first), "SEED": str(seed + first)})
            parts.append((process, last - first, threading.Thread(target=follow, args=(process,))))
            parts[-1][2].start()
    for process, _, thread in parts:
        thread.join()
        process.wait()
    lost = sum(n for _, n, _ in parts) - total[0]
    if lost:
        print(f"*** {lost} runs were not done")
    print(f"chaos: runs {total[0]} violations {total[1]}")
    return 1 if total[1] or lost else 0


def main():
    runs, seed = int(os.environ.get("RUNS", "50")), int(os.environ.get("SEED", "1"))
    if int(os.environ.get("JOBS") or "1") > 1:
        return spread(int(os.environ["JOBS"]), runs, seed)
    kinds = os.environ.get("SITES", ",".join(SITES)).split(",")
    violations, done, sites, lives = 0, 0, {}, {}
    began = time.monotonic()
    for i in range(runs):
        kind = kinds[(seed + i) % len(kinds)]
        try:
            if kind not in sites:
                sites[kind], lives[kind] = make_site(kind), 0
            faults = run(sites[kind], seed + i)
            print(f"  run {i + 1}/{runs} seed {seed + i} {kind} ok: {', '.join(faults) or 'undisturbed'}", flush=True)
        except KeyboardInterrupt:
            break
        except BaseException as e:  # noqa: BLE001 - counted
            violations += 1
            print(f"*** run {i + 1}/{runs} seed {seed + i} {kind} VIOLATION: {e}", flush=True)
            traceback.print_exc()
            if kind in sites:
                show(sites[kind])
            lives[kind] = NODE_LIFE
        done += 1
        lives[kind] += 1
        if lives[kind] >= NODE_LIFE and kind in sites:
            sites.pop(kind).stop()
    for site in sites.values():
        site.stop()
    print(f"chaos took {time.monotonic() - began:.0f} s")
    print(f"chaos: runs {done} violations {violations}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
