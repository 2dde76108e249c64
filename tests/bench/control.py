#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-control: check-ins and commits a second through gateway and Redis (`appendfsync always`), and Redis' share.

Three loads, tiny models (64 parameters): one round of 10,000 clients; 100 jobs of 100 clients at once; 100,000 clients known
to one job, 10,000 of which report. Every client checks in once, then uploads once, over CONNECTIONS=64 keep-alive
connections of tests/bench/control/driver.c. The rounds then have to be published with every update counted. Redis'
share: its processor time, and the time inside FCALL (INFO commandstats), divided by the time that passed.
JSON lines to build/bench-control.jsonl; SCALE=0.1 makes it smaller.
"""
import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Job, Node, body_of, until  # noqa: E402

DRIVER = sys.argv[1]
CONNECTIONS = int(os.environ.get("CONNECTIONS", "64"))
SCALE = float(os.environ.get("SCALE", "1"))
LOADS = (("one round of 10,000 clients", 1, 10000, 10000), ("100 jobs of 100 clients", 100, 100, 100),
         ("100,000 known clients", 1, 100000, 10000))


def redis_now(node):
    text = node.redis("INFO", "everything")
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fcall = dict(x.split("=") for x in values.get("cmdstat_fcall", "calls=0,usec=0").split(","))
    return {"calls": int(fcall["calls"]), "fcall_s": int(fcall["usec"]) / 1e6,
            "cpu_s": float(values["used_cpu_user"]) + float(values["used_cpu_sys"])}


def load(node, what, jobs, clients, uploads):
    clients, uploads = max(1, int(clients * SCALE)), max(1, int(uploads * SCALE))
    made = [Job(node, size=64, clients=clients, seed=i + 1, goal=uploads, rounds=1,
                spec={"sync": {"goal": uploads, "quorum": uploads, "over_select": clients / uploads, "deadline_s": 3600}})
            for i in range(jobs)]
    until("all run", lambda: all(j.get()["status"]["phase"] == "Running" for j in made), 60, 0.2)
    body = os.path.join(node.dir, "update.safetensors")
    with open(body, "wb") as f:
        f.write(body_of(made[0].base))
    port = node.data.rpartition(":")[2]
    driver = subprocess.Popen([DRIVER, port, str(CONNECTIONS), str(clients), str(uploads), body] + [j.id for j in made],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    before = redis_now(node)
    for line in driver.stdout:
        row, after = json.loads(line), redis_now(node)
        used = {k: after[k] - before[k] for k in after}
        if row["phase"] == "checkin":
            driver.stdin.write("\n")
            driver.stdin.flush()
        tell(bench="control", load=what, clients=clients * jobs, jobs=jobs, connections=CONNECTIONS, **row,
             per_second=round(row["good"] / row["seconds"]), redis_cpu_share=round(used["cpu_s"] / row["seconds"], 3),
             fcall_share=round(used["fcall_s"] / row["seconds"], 3),
             fcalls_per_request=round(used["calls"] / max(1, row["good"]), 2),
             fcall_us=round(used["fcall_s"] / max(1, used["calls"]) * 1e6, 1))
        before = after
    assert driver.wait() == 0, "the driver was refused"
    began = time.monotonic()
    for j in made:
        until("published", lambda j=j: j.version() == 1, 120, 0.05)
        assert j.round(1)["accepted"] == uploads, j.round(1)
    tell(bench="control", load=what, phase="published", seconds_after_last_receipt=round(time.monotonic() - began, 3))
    for j in made:
        j.delete()


def tell(**what):
    line = json.dumps(what)
    print(line, flush=True)
    with open(os.path.join(ROOT, "build/bench-control.jsonl"), "a") as f:
        f.write(line + "\n")


def main():
    for row in LOADS:
        with Node() as node:
            load(node, *row)


if __name__ == "__main__":
    main()
