#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-lifl: LIFL's ablation at this machine's scale, JSON lines in build/bench-lifl.jsonl.

    lifl.py BUILD [QUICK=1] [FULL=1] [ONLY=sf,+eager,..] [MB=1,44.7] [UPDATES=20,60] [REPEAT=3] [TINY=1] [OUT=FILE]

20, 60 and 100 clients send at once to 5 nodes (on loopback) that take 20 each. Systems, each the one before and more:
  sf          an always-on aggregator per node and one on top, plain TCP (tests/bench/lifl/function.c)
  sl          the same program as cold functions, each behind a broker (Redis) and a proxy
  sl-h        our data plane, clients spread over the nodes in turn, a function per 8 updates, cold, lazy
  +placement  BestFit: the leader sends clients to the fewest nodes      +planning  the planner shapes the tree
  +reuse      warm functions                                             +eager     updates are folded as they come
Sums are float in all of them. Rounds of the systems take turns; a line per round. 100 updates of 44.7 MB through the
broker take minutes and 5 GB of memory: with FULL=1 only.
"""
import concurrent.futures
import copy
import json
import math
import os
import subprocess
import sys
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build/release")
os.environ.setdefault("TRIBUTARY_BIN", os.path.join(BUILD, "bin"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import measure  # noqa: E402
import systems  # noqa: E402
from cluster import Cluster, Job, call, until  # noqa: E402

systems.PROGRAMS = os.path.join(BUILD, "tests/bench")
SETTINGS = {**os.environ, **dict(w.split("=", 1) for w in sys.argv[2:] if "=" in w)}
NODES, CAPACITY, PER_FUNCTION = 5, 20, 8


def flag(name):
    return SETTINGS.get(name, "") not in ("", "0")


def send_parts(work, parts, **options):
    """Several senders at once, one per address: (first byte ns, retries)."""
    def one(item):
        number, (address, heads) = item
        mine = copy.copy(work)
        mine.heads = lambda all_heads: work.file(f"heads-{number}", b"".join(
            len(h).to_bytes(4, "little") + h for h in all_heads))
        return systems.send(address, mine, heads, conns=len(heads), **options)[0]
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        told = list(pool.map(one, enumerate(parts)))
    return min(t["began_ns"] for t in told), sum(t["retries"] for t in told)


def free_port():
    with systems.socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Function(systems.Program):
    """One process of tests/bench/lifl/function.c."""

    def __init__(self, elements, frames, weight, *parent):
        super().__init__()
        self.name = "function"
        self.process = self.launch([os.path.join(systems.PROGRAMS, "lifl/function"), str(elements), str(frames),
                                    str(weight), *parent])
        self.address = f"127.0.0.1:{self.line('port', 60)}"

    def published(self, first):
        told = self.lines.get(timeout=300)
        assert abs(told["first"] - first) <= 1e-5 * abs(first), (told, first)
        return told["published_ns"]


def shares(total, count):
    return [total // count + (i < total % count) for i in range(count)]


class Serverful:
    name = "sf"

    def start(self, work):
        self.work = work
        self.top = Function(work.elements, NODES, work.updates)
        self.leaves = [Function(work.elements, n, 1, "tcp", self.top.address) for n in shares(work.updates, NODES)]
        self.round()  # as all systems: memory is touched

    def round(self):
        w, before = self.work, self.cpu()
        head = systems.struct.pack("<IIQ", w.skip, 0, w.size)
        began, _ = send_parts(w, [(f.address, [head] * n) for f, n in zip(self.leaves, shares(w.updates, NODES))],
                              mode="line")
        published = self.top.published(w.first)
        return {"act_s": (published - began) / 1e9, "cpu_s": self.cpu() - before, "created": 0,
                "reused": NODES + 1, "nodes": NODES, "bytes_copied": NODES * 4 * w.elements, "retries": 0}

    def cpu(self):
        return measure.cpu([f.process.pid for f in [self.top, *self.leaves]])

    def stop(self):
        for f in [self.top, *self.leaves]:
            f.stop()


class Serverless:
    """Functions start when the first update comes; what every process of a round has cost is read before it ends."""
    name = "sl"

    def start(self, work):
        self.work, self.port = work, free_port()
        self.redis = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                                       "--appendonly", "no"], stdout=subprocess.DEVNULL, cwd=work.folder.name)
        until("the broker", lambda: subprocess.run(["redis-cli", "-p", str(self.port), "ping"],
                                                   capture_output=True, text=True).stdout == "PONG\n", 30)
        if work.updates * work.size < 1e9:  # the broker's memory; beyond, it costs more time than it tells
            self.round()

    def proxy(self, queue, skip, function):
        return subprocess.Popen([os.path.join(systems.PROGRAMS, "lifl/proxy"), f"127.0.0.1:{self.port}", queue,
                                 str(skip), function.address])

    def round(self):
        w, broker = self.work, f"127.0.0.1:{self.port}"
        count = math.ceil(w.updates / PER_FUNCTION)
        heads = [f"*3\r\n$5\r\nRPUSH\r\n${len(q)}\r\n{q}\r\n${w.size}\r\n".encode()
                 for q in (f"q{i % count}" for i in range(w.updates))]
        before, functions, proxies = measure.cpu([self.redis.pid]), [], []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send_parts, w, [(broker, heads)], mode="line", tail=True)
            functions.append(Function(w.elements, count, w.updates))
            proxies.append(self.proxy("top", 0, functions[0]))
            for i, n in enumerate(shares(w.updates, count)):
                functions.append(Function(w.elements, n, 1, "redis", broker, "top"))
                proxies.append(self.proxy(f"q{i}", w.skip, functions[-1]))
            began, retries = sending.result()
        published = functions[0].published(w.first)
        cpu = measure.cpu([self.redis.pid]) - before + measure.cpu([f.process.pid for f in functions]
                                                                   + [p.pid for p in proxies])
        for p in proxies:
            p.kill()
            p.wait()
        for f in functions:
            f.stop()
        # broker -> proxy -> function, of updates and of sums; sums to the broker first
        copied = 2 * w.updates * w.size + 3 * count * 4 * w.elements
        return {"act_s": (published - began) / 1e9, "cpu_s": cpu, "created": len(functions), "reused": 0,
                "nodes": NODES, "bytes_copied": copied, "retries": retries}

    def stop(self):
        self.redis.kill()
        self.redis.wait()


class Ours:
    clusters = {}
    COUNTED = (("created", "agent", "tributary_agg_cold_starts_total"),
               ("reused", "agent", "tributary_agg_reuses_total"),
               ("pooled", "agent", "tributary_agg_pooled_starts_total"),
               ("copied", "gateway", "tributary_payload_bytes_copied_total"),
               ("moved", "agent", "tributary_partial_bytes_taken_total"))

    def __init__(self, name, warm, placed, hierarchy):
        self.name, self.warm, self.placed, self.hierarchy = name, warm, placed, hierarchy

    @classmethod
    def cluster(cls, warm):
        if warm not in cls.clusters:
            idle = ["--function-idle-ms", "600000"] if warm else ["--function-idle-ms", "100", "--spares", "0"]
            cls.clusters[warm] = Cluster(NODES, "--capacity", str(CAPACITY), "--arena-bytes", str(1300 << 20),
                                         "--workers", "1", *idle, lease_ms=10000)
        return cls.clusters[warm]

    @classmethod
    def end(cls):
        while cls.clusters:
            cls.clusters.popitem()[1].stop()

    def start(self, work):
        self.work, self.nodes = work, self.cluster(self.warm)
        tree = dict(self.hierarchy)
        if "leaves" in tree:  # threshold scaling: a function per so many updates of a node
            here = min(CAPACITY, work.updates) if self.placed else math.ceil(work.updates / NODES)
            tree["leaves"] = math.ceil(here / PER_FUNCTION)
        until("the leader knows every capacity and nothing is in hand", self.planning, 60, 0.3)
        spec = {"aggregation": {"accumulate": "f32"}, "hierarchy": tree, "placement": {"slots": CAPACITY},
                "sync": {"quorum": 1}}
        self.job = Job(self.nodes, size=work.elements, clients=work.updates, rounds=1000, seed=5, spec=spec, quorum=1)
        self.watch = systems.Watch(self.nodes.endpoints()["redis"], self.job.id)
        self.number = 0
        for _ in range(1 if "leaves" in tree else 2):
            self.warm_up()

    def planning(self):
        """The plan of a job for as many as all can take: all of them, full."""
        job = Job(self.nodes, size=64, clients=NODES * CAPACITY, seed=6)
        text = self.nodes.redis("HGET", f"trib:{{{job.id}}}:job", "plan")
        job.delete()
        return text.count(f"={CAPACITY},") == NODES

    def warm_up(self):
        """A round like the one that is measured: memory is touched, functions have worked. Where the planner shapes the tree
        there are two: after the first it knows what a fold costs, and may cut vectors otherwise (new functions)."""
        self.number += 1
        self.send(self.parts(self.tickets()))
        self.watch.seen.get(timeout=120)

    def tickets(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            return list(pool.map(self.job.selected, range(self.work.updates)))

    def parts(self, tickets):
        """Address of a node -> heads of the requests that go there."""
        parts = {}
        for i, t in enumerate(tickets):
            url = urllib.parse.urlsplit(t["upload"]["url"])
            there = self.nodes[i % NODES].data.split("//")[1] if not self.placed else url.netloc
            there = there or self.nodes.data.split("//")[1]
            fields = {**self.job.headers(i, t, 1.0), "Host": "bench", "Content-Length": str(self.work.size)}
            parts.setdefault(there, []).append((f"PUT {url.path} HTTP/1.1\r\n" + "".join(
                f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode())
        return parts

    def send(self, parts):
        return send_parts(self.work, list(parts.items()))

    def round(self):
        self.number += 1
        parts = self.parts(self.tickets())
        if not self.warm:
            until("functions have gone", lambda: self.nodes.total("agent", "tributary_agg_processes") == 0, 60)
        before, cpu = self.counts(), self.cpu()
        began, retries = self.send(parts)
        published = self.watch.seen.get(timeout=300)
        after = self.counts()
        grown = {k: after[k] - before[k] for k in after}
        return {"act_s": (published - began) / 1e9, "cpu_s": self.cpu() - cpu, "created": grown["created"],
                "reused": grown["reused"], "pooled": grown["pooled"], "nodes": len(parts),
                "bytes_copied": grown["copied"] + grown["moved"],
                "retries": retries}

    def counts(self):
        return {key: int(self.nodes.total(program, series)) for key, program, series in self.COUNTED}

    def cpu(self):
        return measure.cpu([pid for n in self.nodes.nodes for pid in n.tree()])

    def stop(self):
        self.watch.stop()
        self.job.delete()


def crew():
    threshold = {"levels": 2, "leaves": 0, "policy": "lazy"}
    all_systems = [Serverful(), Serverless(), Ours("sl-h", False, False, threshold),
                   Ours("+placement", False, True, threshold), Ours("+planning", False, True, {"policy": "lazy"}),
                   Ours("+reuse", True, True, {"policy": "lazy"}), Ours("+eager", True, True, {"policy": "eager"})]
    only = [w for w in SETTINGS.get("ONLY", "").split(",") if w]
    return [s for s in all_systems if not only or s.name in only]


class Bench:
    def __init__(self, out):
        self.out, self.machine = out, measure.machine()
        os.makedirs(os.path.dirname(out), exist_ok=True)
        open(out, "w").close()

    def emit(self, line):
        with open(self.out, "a") as f:
            f.write(json.dumps({"name": "lifl", **line, **self.machine}) + "\n")
        print("  {system:<11} {updates:>3} x {update_mb} MB  act {act_s:.3f} s  cpu {cpu_s:.2f} s  created {created} "
              "reused {reused}  nodes {nodes}  copied {bytes_copied} retries {retries}".format(**line), flush=True)

    def asked(self, plan):
        """What is left of the plan by MB=, UPDATES= and REPEAT=."""
        sizes = [float(w) for w in SETTINGS.get("MB", "").split(",") if w]
        counts = [int(w) for w in SETTINGS.get("UPDATES", "").split(",") if w]
        return [(mb, n, int(SETTINGS.get("REPEAT", repeat))) for mb, n, repeat in plan
                if (not sizes or mb in sizes) and (not counts or n in counts)]

    def workload(self, mb, updates, repeat):
        print(f"== {updates} updates of {mb} MB at once", flush=True)
        work = systems.Work("lifl", int(mb * 1e6 / 4), updates)
        with open(work.body, "rb") as f:
            f.seek(work.skip)
            (work.first,) = systems.struct.unpack("<f", f.read(4))
        try:
            for turn in range(repeat):
                for system in crew():
                    if system.name == "sl" and updates * mb > 3000 and not flag("FULL"):
                        print("  sl          left out; FULL=1 runs it", flush=True)
                        continue
                    system.start(work)
                    try:
                        told = system.round()
                    finally:
                        system.stop()
                    self.emit({"system": system.name, "updates": updates, "update_mb": mb, "turn": turn, **told})
        finally:
            work.close()

    def run(self):
        if flag("TINY"):
            plan = [(0.1, 10, 1)]
        elif flag("QUICK"):
            plan = [(1, 20, 1), (1, 60, 1), (1, 100, 1), (44.7, 20, 1)]
        else:
            plan = [(1, 20, 3), (1, 60, 3), (1, 100, 3), (44.7, 20, 1), (44.7, 60, 1), (44.7, 100, 1)]
        began = time.monotonic()
        try:
            for mb, updates, repeat in self.asked(plan):
                self.workload(mb, updates, repeat)
        finally:
            Ours.end()
        print(f"{time.monotonic() - began:.0f} s; lines in {os.path.relpath(self.out, ROOT)}")


if __name__ == "__main__":
    Bench(os.path.join(ROOT, SETTINGS.get("OUT", "build/bench-lifl.jsonl"))).run()
