#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-idle: what an idle job costs, and how fast its first update wakes it.

A node with a job that has been worked on and then left alone (functions gone), SECONDS=60: processor time of every
process of the node, Redis included, in that time (read from /proc/PID/schedstat, in ns), and how many aggregator
functions live. Then one update: time to its receipt and to the published model, and the same again while warm.
JSON lines to build/idle.jsonl.
"""
import json
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Job, Node, until  # noqa: E402

SECONDS = float(os.environ.get("SECONDS", "60"))


def named(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:  # it went meanwhile
        return ""


def used_ns(pid):
    """Processor time of all threads."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def functions(node):
    return sum(named(p).startswith("trib-fn") for p in node.tree())


def idle(node):
    before = {p: (named(p), used_ns(p)) for p in node.tree()}
    calls = commands(node)
    time.sleep(SECONDS)
    calls = commands(node) - calls
    used = {}
    for pid, (name, ns) in before.items():
        used[name] = used.get(name, 0) + used_ns(pid) - ns
    total = sum(used.values())
    return {"seconds": SECONDS, "functions": functions(node), "cpu_ms": round(total / 1e6, 2),
            "percent_of_a_core": round(total / 1e7 / SECONDS, 4), "redis_commands_per_s": round(calls / SECONDS, 2),
            "cpu_ms_by_program": {k: round(v / 1e6, 2) for k, v in sorted(used.items(), key=lambda x: -x[1])}}


def commands(node):
    lines = node.redis("INFO", "stats").splitlines()
    return int([line.split(":")[1] for line in lines if line.startswith("total_commands_processed")][0])


def update(job, client):
    """Seconds from the first byte of an update to its receipt, and to the model it makes."""
    ticket = job.selected(client)
    began = time.perf_counter()
    status, _, _ = job.put(client, ticket)
    receipt = time.perf_counter() - began
    assert status == 201, status
    until("published", lambda: job.node.redis("HGET", f"trib:{{{job.id}}}:job", "version") == str(ticket["round"]), 30,
          0.0005)
    return receipt, time.perf_counter() - began


def tell(**what):
    line = json.dumps(what)
    print(line, flush=True)
    with open(os.path.join(ROOT, "build/idle.jsonl"), "a") as f:
        f.write(line + "\n")


def main():
    with Node() as node:
        time.sleep(2)
        tell(bench="idle", what="no job", **idle(node))
        job = Job(node, size=100000, clients=1, rounds=1000, seed=1, spec={"sync": {"deadline_s": 86400}})
        warm = [update(job, 0) for _ in range(7)]
        until("functions gone", lambda: functions(node) == 0, 60, 0.5)
        tell(bench="idle", what="an idle job", **idle(node))
        cold = update(job, 0)
        tell(bench="wake", cold_receipt_ms=round(cold[0] * 1e3, 2), cold_model_ms=round(cold[1] * 1e3, 2),
             warm_receipt_ms=round(sorted(x[0] for x in warm)[3] * 1e3, 2),
             warm_model_ms=round(sorted(x[1] for x in warm)[3] * 1e3, 2), update_bytes=400000,
             note="the model's time includes the start of redis-cli, which polls for it")


if __name__ == "__main__":
    main()
