#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-failover: how long a standby takes (TIMES=3 each): the leader frozen by SIGSTOP for 10 s and resumed, and
the leader killed. Measured from the signal to the first write that the other one answers; after the frozen one is
resumed its writes must be refused. Exits with an error when one took more than 5 s. JSON lines to build/failover.jsonl.
"""
import http.client
import json
import os
import signal
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Job, Node, request, until  # noqa: E402
from test_failover import Orchestrator, leader  # noqa: E402

TIMES, LIMIT_S = int(os.environ.get("TIMES", "3")), 5.0
PAUSE = {0: ":pause", 1: ":resume"}


def write(api, job, n):
    """A write; its status, or None when nobody answers."""
    try:
        return request(api, "POST", f"/v1/jobs/{job.id}{PAUSE[n % 2]}", timeout=1)[0]
    except (OSError, http.client.HTTPException):
        return None


def taken_over(api, job, n, began):
    until("the other one answers a write", lambda: write(api, job, n) in (200, 202, 409), 60, 0.02)
    return time.monotonic() - began


def frozen(node, standby, job):
    pid = node.kill("orchestrator", signal.SIGSTOP)
    began = time.monotonic()
    try:
        took = taken_over(standby.api, job, 0, began)
        time.sleep(max(0, began + 10 - time.monotonic()))
    finally:
        os.kill(pid, signal.SIGCONT)
    answer = until("the resumed one answers", lambda: write(node.api, job, 1), 30)
    assert answer == 503, f"the resumed leader answered a write with {answer}"
    write(standby.api, job, 1)
    return took


def killed(node, standby):
    """The standby leads; the first one takes over again."""
    job = Job(Handle(node, standby.api), size=500, clients=1, seed=2)
    standby.process.kill()
    began = time.monotonic()
    standby.process.wait()
    return taken_over(node.api, job, 0, began)


class Handle:
    """The node, asked by way of another orchestrator."""

    def __init__(self, node, api):
        self.node, self.api = node, api

    def __getattr__(self, name):
        return getattr(self.node, name)


def main():
    rows = []
    for _ in range(TIMES):
        with Node() as node:
            standby = Orchestrator(node, "standby")
            try:
                job = Job(node, size=500, clients=1, seed=1)
                first = leader(node)[1]
                rows.append(("frozen for 10 s", frozen(node, standby, job)))
                assert leader(node)[0] == "standby" and leader(node)[1] > first
                rows.append(("killed", killed(node, standby)))
            finally:
                standby.end()
    with open(os.path.join(ROOT, "build/failover.jsonl"), "a") as f:
        for what, seconds in rows:
            line = json.dumps({"bench": "failover", "leader": what, "seconds": round(seconds, 2), "load": os.getloadavg()[0]})
            print(line, flush=True)
            f.write(line + "\n")
    worst = max(seconds for _, seconds in rows)
    print(f"the slowest took {worst:.2f} s ({'within' if worst <= LIMIT_S else 'NOT within'} {LIMIT_S:.0f} s)")
    return worst > LIMIT_S


if __name__ == "__main__":
    sys.exit(main())
