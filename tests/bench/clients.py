#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-clients: 100,000 clients with a place, and as many held connections as one process may have descriptors
for, at one gateway at the same time for SECONDS (300). Reports in build/bench-clients-{held,paced}.json."""
import contextlib
import http.client
import json
import os
import resource
import subprocess
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in (".", "../system")]
import cluster  # noqa: E402
import measure  # noqa: E402

SECONDS = int(os.environ.get("SECONDS", "300"))
CLIENTS = int(os.environ.get("CLIENTS", "100000"))
RAMP = 50                                           # seconds until all are there
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
PACED = 4000                                        # connections of those that come and go
HELD = min(CLIENTS, FILES - PACED - 600)            # connections that stay, less what a gateway needs itself
# held: each waits for its place on a connection that stays; a few hundred at a time are given one
HELD_ARGS = ("--goal", "200", "--over-select", "1.5", "--wait", "60", "--clients", str(HELD), "--think", "2")
# paced: all have a place and train for long; a connection only while they talk
PACED_ARGS = ("--mode", "async", "--goal", "1000", "--slots", "4096", "--clients", str(CLIENTS), "--think", str(0.4 * SECONDS),
              "--close", "--conns-max", str(PACED - 200))


def main():
    build, runs = os.path.join(cluster.ROOT, "build"), {}
    with cluster.Node("--conns-max", str(FILES - 500), "--idle-timeout-ms", "120000") as node:
        pids = node.endpoints()["pids"]
        for name, args in (("held", HELD_ARGS), ("paced", PACED_ARGS)):
            path = os.path.join(build, f"bench-clients-{name}.json")
            runs[name] = path, subprocess.Popen([
                os.path.join(cluster.BIN, "tributary"), "load", "--dir", node.dir, "--ramp", str(RAMP), "--duration",
                str(RAMP + SECONDS), "--report", path, "--quiet", *args], stdout=subprocess.DEVNULL)
        open_most, before = 0, measure.cpu_by_name(node.tree())
        began = time.monotonic()
        try:
            while any(p.poll() is None for _, p in runs.values()):
                time.sleep(1)
                with contextlib.suppress(OSError, http.client.HTTPException):  # a starved machine: the next one
                    open_most = max(open_most, int(node.metric("gateway", "tributary_conns")))
        finally:
            for _, process in runs.values():
                process.terminate()
        seconds = time.monotonic() - began
        after = measure.cpu_by_name(node.tree())
        died = [name for name, pid in node.endpoints()["pids"].items() if pids[name] != pid]
    bad = len(died)
    for name, (path, process) in runs.items():
        with open(path) as f:
            r = json.load(f)
        enough = sum(row["clients_selected" if name == "paced" else "connections"] >= 0.99 * (
            CLIENTS if name == "paced" else HELD) for row in r["timeline"])
        wrong = sum(r["errors"]["unintended"].values()) + r["counting"]["lost"] + r["counting"]["double"]
        bad += wrong + (process.returncode != 0) + (enough < SECONDS)
        print(f"{name}: {r['most']['connections']} connections, {r['most']['clients_selected']} clients with a place at once;"
              f" {enough} s with 99 % of all; {r['totals']['receipts']} receipts, {r['counting']['counted']} counted;"
              f" errors {r['errors']['unintended']}, refusals {r['refusals']}; receipt {r['latency']['receipt']}")
    print(f"gateway: {open_most} connections at once of {FILES} files a process may open; died: {died or 'nobody'}; cores "
          + ", ".join(f"{k} {(v - before.get(k, 0)) / seconds:.2f}" for k, v in after.items() if v - before.get(k, 0) > 1))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
