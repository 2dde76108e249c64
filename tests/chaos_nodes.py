#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make chaos-nodes RUNS=20 SEED=1: seeded jobs over three nodes while processes and whole nodes are killed, frozen,
started again and added at random instants.

The clients come back until their update counts, so every round must end with each of them counted once: its model is
bit-equal to the integer reference, which is what an undisturbed node gives. A run that breaks this prints its seed.
Ends with `chaos-nodes: runs R violations V`.
"""
import http.client
import os
import random
import signal
import sys
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Cluster, Job, until  # noqa: E402

LEASE_MS = 2500


def freeze(pids, seconds):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def functions(node):
    return [f["pid"] for j in node.state()["jobs"] for f in j["functions"] if f["pid"]]


def fault(cluster, rng):
    """One of them; n1 holds Redis and the orchestrator, so when it is killed whole it comes back at once."""
    live = [n for n in cluster.nodes if n.process.poll() is None]
    node = rng.choice(live)
    kind = rng.choice(["agent", "agent", "gateway", "gateway", "both", "function", "freeze", "thaw-late", "node", "again",
                       "join"])
    if kind in ("agent", "gateway"):
        node.kill(kind)
    elif kind == "both":
        node.kill("agent"), node.kill("gateway")
    elif kind == "function":
        os.kill(rng.choice(functions(node)), signal.SIGKILL)
    elif kind == "freeze":
        freeze([node.pid(rng.choice(["agent", "gateway"]))], rng.choice([0.1, 0.5, 1.5]))
    elif kind == "thaw-late":  # long enough to be given up
        freeze([node.pid("agent"), node.pid("gateway")], 2.2 * LEASE_MS / 1000)
    elif kind in ("node", "again") and (node is cluster[0] or len(live) > 2):
        node.kill_everything()
        if kind == "again" or node is cluster[0]:
            node.start()
    elif kind == "join" and len(live) < 4:
        cluster.add()
    else:
        return None
    return f"{kind} {node.name}"


def clients(job, cluster, rounds, stop):
    while not stop.is_set():
        for client in range(job.clients):
            live = [n for n in cluster.nodes if n.process.poll() is None]
            via = random.choice(live)
            try:
                answer = job.checkin(client, via=via, timeout=5)
                if answer["status"] == "selected" and answer["round"] <= rounds:
                    job.put(client, answer, via=random.choice(live), timeout=10)
                elif answer["status"] == "done":
                    return
            except (OSError, http.client.HTTPException, AssertionError, ValueError):
                pass
            if stop.is_set():
                return
        time.sleep(random.uniform(0.05, 0.5))


def run(seed):
    rng = random.Random(seed)
    rounds, done, stop = rng.randint(5, 9), [], threading.Event()
    with Cluster(3, lease_ms=LEASE_MS, env={"TRIBUTARY_TEST_FOLD_DELAY_US": str(rng.choice([0, 500]))}) as cluster:
        job = Job(cluster, size=rng.choice([500, 20000, 150000]), clients=rng.randint(4, 12), rounds=rounds, seed=seed,
                  leaves=rng.choice([0, 1, 3]),
                  spec={"hierarchy": {"shards": random.Random(f"{seed} shards").choice([1, 1, 2, 3])}})
        crew = [threading.Thread(target=clients, args=(job, cluster, rounds, stop)) for _ in range(3)]
        for t in crew:
            t.start()
        try:
            end = time.monotonic() + 150
            while job.version() < rounds:
                assert time.monotonic() < end, f"stuck: {cluster.redis('HGETALL', f'trib:{{{job.id}}}:r:' + str(job.version() + 1))}"
                time.sleep(rng.uniform(0.02, 0.3))
                try:
                    if len(done) < 20:
                        done.append(fault(cluster, rng))
                except (OSError, AssertionError, TypeError, KeyError, IndexError):
                    pass  # between two lives
                if rng.random() < 0.3:
                    live = [n for n in cluster.nodes if n.process.poll() is None]
                    until("nodes ready", lambda: all(n.ready() for n in live), 60)
            base = job.base
            for number in range(1, rounds + 1):
                model = job.published(number, timeout=60, via=cluster[0])
                job.check(model, number, base=base)
                base = model
        finally:
            stop.set()
            for t in crew:
                t.join(60)
    return [d for d in done if d]


def main():
    runs, first, bad = int(os.environ.get("RUNS", "20")), int(os.environ.get("SEED", "1")), 0
    for seed in range(first, first + runs):
        began = time.monotonic()
        try:
            print(f"run {seed}: {', '.join(run(seed))}  {time.monotonic() - began:.1f} s", flush=True)
        except BaseException as e:  # noqa: BLE001 - told below
            if isinstance(e, KeyboardInterrupt):
                raise
            bad += 1
            traceback.print_exc()
            print(f"run {seed}: VIOLATION, again by RUNS=1 SEED={seed}", flush=True)
    print(f"chaos-nodes: runs {runs} violations {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
