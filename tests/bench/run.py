#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: JSON lines in build/bench.jsonl. Micro benches in C, then whole updates through a real node.

    run.py BUILD [bench programs]      environment: BENCH_MB (44.7), BENCH_UPDATES (8), BENCH_REPEAT (5)

End to end, exact sums and plain f32 take turns on one node (the same clients, bytes and sockets), so that their ratio
is not the machine's mood; what is reported is the median and the range.
"""
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, sys.argv[1])
os.environ["TRIBUTARY_BIN"] = os.path.join(BUILD, "bin")
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
from cluster import Job, Node, body_of, call, until  # noqa: E402

MB = float(os.environ.get("BENCH_MB", "44.7"))
UPDATES = int(os.environ.get("BENCH_UPDATES", "8"))
REPEAT = int(os.environ.get("BENCH_REPEAT", "5"))
lines = []


def machine():
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "?")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {"git": git.stdout.strip(), "kernel": os.uname().release, "cpu": cpu, "cores": os.cpu_count()}


MACHINE = machine()


def emit(line):
    line = {**line, **MACHINE}
    lines.append(line)
    shown = {k: v for k, v in line.items() if k not in MACHINE}
    print("  " + json.dumps(shown), flush=True)


def micro(program):
    print(f"== {os.path.basename(program)}", flush=True)
    out = subprocess.run([program], capture_output=True, text=True, timeout=240)
    for text in out.stdout.splitlines():
        if text.startswith("{"):
            emit(json.loads(text))
    if out.returncode not in (0, 77):
        print(f"  {program} exited with {out.returncode}: {out.stderr[-500:]}", flush=True)


def cpu_seconds(node):
    """utime + stime of every server process, ended children included (functions of earlier rounds)."""
    total, tick = 0.0, os.sysconf("SC_CLK_TCK")
    for pid in node.tree():
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(x) for x in fields[11:15]) / tick
    return total


def shared_mb(node):
    used = node.state()["arena_used"]
    return round(used / 1e6, 1)


def one_round(node, job, n, body):
    """Seconds from the first byte sent to the published version, and from the last receipt to it."""
    tickets = [job.selected(c) for c in range(UPDATES)]
    u = urllib.parse.urlsplit(node.data)
    done = []

    def send(c):
        conn = http.client.HTTPConnection(u.hostname, u.port, timeout=120)
        headers = {**job.headers(c, tickets[c], 100.0), "Content-Length": str(len(body))}
        conn.putrequest("PUT", tickets[c]["upload"]["url"])
        for k, v in headers.items():
            conn.putheader(k, v)
        conn.endheaders()
        conn.sock.sendall(body)
        answer = conn.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
        done.append(time.monotonic())
        conn.close()

    cpu, began = cpu_seconds(node), time.monotonic()
    crew = [threading.Thread(target=send, args=(c,)) for c in range(UPDATES)]
    for t in crew:
        t.start()
    for t in crew:
        t.join()
    until("published", lambda: job.version() >= n, 120, 0.002)
    end = time.monotonic()
    return end - began, end - max(done), cpu_seconds(node) - cpu


def end_to_end():
    print(f"== end to end: {UPDATES} updates of {MB} MB, exact and f32 in turn, {REPEAT} rounds each", flush=True)
    size = int(MB * 1e6 / 4)
    rng = np.random.default_rng(3)
    body = body_of((rng.standard_normal(size) * 1e-3).astype(np.float32))
    with Node("--arena-bytes", str(4 << 30)) as node:
        jobs, taken = {}, {}
        for kind in ("exact", "f32"):
            jobs[kind] = Job(node, size=size, clients=UPDATES, rounds=REPEAT + 1, seed=4,
                             spec={"aggregation": {"accumulate": kind}})
            taken[kind] = []
        for n in range(1, REPEAT + 2):
            for kind in ("exact", "f32") if n % 2 else ("f32", "exact"):
                row = one_round(node, jobs[kind], n, body)
                if n > 1:  # the first round touches fresh memory
                    taken[kind].append(row)
        copied = node.metric("gateway", "tributary_payload_bytes_copied_total")
        gb = UPDATES * MB / 1e3
        for kind, rows in taken.items():
            seconds, after, cpu = ([r[i] for r in rows] for i in range(3))
            emit({"system": "tributary", "name": "ingest", "accumulate": kind, "update_mb": MB, "updates": UPDATES,
                  "seconds": round(statistics.median(seconds), 4), "after_last_receipt_s": round(statistics.median(after), 4),
                  "cpu_s": round(statistics.median(cpu), 3), "gb_per_s": round(gb / statistics.median(seconds), 2),
                  "cpu_s_per_gb": round(statistics.median(cpu) / gb, 3), "arena_mb": shared_mb(node),
                  "bytes_copied": copied, "n": len(rows),
                  "spread": [round(min(seconds), 4), round(max(seconds), 4)]})
        ratio = [a[0] / b[0] for a, b in zip(taken["exact"], taken["f32"])]
        cpu = [a[2] / b[2] for a, b in zip(taken["exact"], taken["f32"])]
        emit({"name": "exact_to_f32_end_to_end", "update_mb": MB, "updates": UPDATES,
              "seconds_ratio": round(statistics.median(ratio), 3), "cpu_ratio": round(statistics.median(cpu), 3),
              "n": len(ratio), "spread": [round(min(ratio), 3), round(max(ratio), 3)]})


def main():
    for program in sys.argv[2:]:
        micro(program)
    end_to_end()
    with open(os.path.join(ROOT, "build/bench.jsonl"), "w") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    print(f"{len(lines)} lines in build/bench.jsonl")


if __name__ == "__main__":
    main()
