#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-policies: CPU-seconds of functions and time to the model for eager, lazy and just-in-time folding, and for
shapes of the tree. JSON lines; the variants take turns on one node, so that their ratio is not the machine's mood.

    environment: BENCH_MB (8), BENCH_UPDATES (24), BENCH_REPEAT (5), BENCH_GAP_MS (10: between two updates),
    BENCH_DEADLINE_S (2: of the rounds "to the deadline", whose goal is never met; model_s is from the deadline there)
"""
import json
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Job, Node, body_of  # noqa: E402

SIZE = int(float(os.environ.get("BENCH_MB", "8")) * 1e6 / 4)
UPDATES = int(os.environ.get("BENCH_UPDATES", "24"))
REPEAT = int(os.environ.get("BENCH_REPEAT", "5"))
GAP_S = float(os.environ.get("BENCH_GAP_MS", "10")) / 1000
VARIANTS = {"eager": {"policy": "eager"}, "lazy": {"policy": "lazy"}, "just-in-time": {"policy": "just-in-time"},
            "eager, 2 leaves": {"policy": "eager", "leaves": 2}, "eager, 2 shards": {"policy": "eager", "shards": 2}}


DEADLINE_S = float(os.environ.get("BENCH_DEADLINE_S", "2"))
for policy in ("eager", "lazy", "just-in-time"):
    VARIANTS[f"{policy}, to the deadline"] = {"policy": policy}


def measures(node, job):
    found = [j for j in node.state()["jobs"] if j["job"] == job.id]
    functions = found[0]["functions"] if found else []
    return {k: sum(f[k] for f in functions) for k in ("cpu_us", "fold_us", "merge_us", "passes", "folded")}


def one_round(node, job, n, bodies):
    tickets = [job.selected(c) for c in range(UPDATES)]
    before = measures(node, job)
    for c, ticket in enumerate(tickets):
        status, _, answer = job.put(c, ticket, bodies[c], 1.0)
        assert status in (200, 201), answer
        time.sleep(GAP_S)
    last = time.monotonic()
    while job.version() < n:
        time.sleep(0.002)
    took = time.monotonic() - last
    after = measures(node, job)
    if job.late:
        r = dict(zip(*[iter(node.redis("HGETALL", f"trib:{{{job.id}}}:r:{n}").split("\n"))] * 2))
        took = (int(r["published"]) - int(r["closed"])) / 1e3
    return {**{k: after[k] - before[k] for k in after}, "model_us": took * 1e6}


def main():
    with Node() as node:
        jobs = {}
        for name, hierarchy in VARIANTS.items():
            late = name.endswith("deadline")
            jobs[name] = Job(node, size=SIZE, clients=UPDATES, rounds=REPEAT + 2, seed=1,
                             goal=2 * UPDATES if late else UPDATES, quorum=UPDATES,
                             spec={"hierarchy": hierarchy, "placement": {"slots": 2 * UPDATES},
                                   "sync": {"deadline_s": DEADLINE_S if late else 120}})
            jobs[name].late = late
        bodies = [body_of(jobs["eager"].update(c)[0]) for c in range(UPDATES)]
        got = {name: [] for name in VARIANTS}
        for n in range(1, REPEAT + 2):  # the first one warms up: memory, measured times
            for name, job in jobs.items():
                result = one_round(node, job, n, bodies)
                if n > 1:
                    got[name].append(result)
        for name, rounds in got.items():
            line = {"name": "policy." + name, "updates": UPDATES, "bytes": SIZE * 4, "n": REPEAT}
            for key in ("cpu_us", "fold_us", "merge_us", "model_us"):
                line[key.replace("_us", "_s")] = round(statistics.median(r[key] for r in rounds) / 1e6, 5)
            line["passes"] = statistics.median(r["passes"] for r in rounds)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
