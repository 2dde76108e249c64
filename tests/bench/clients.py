#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-clients: CLIENTS (100,000) clients at one gateway for SECONDS (300), each on one keep-alive connection that stays and
with a place in the job all the time: checks in, trains, uploads (4 KB), checks in again. The sockets are counted by the kernel,
not by us. Report in build/bench-clients.json; judged: all of them there, no error, nothing lost, nobody died."""
import contextlib
import http.client
import json
import os
import resource
import subprocess
import sys
import time
import urllib.parse

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), p) for p in (".", "../system")]
import cluster  # noqa: E402
import measure  # noqa: E402

SECONDS = int(os.environ.get("SECONDS", "300"))
CLIENTS = int(os.environ.get("CLIENTS", "100000"))
THINK = float(os.environ.get("THINK", "120"))       # seconds a client trains, +-50 %: CLIENTS / THINK uploads a second
RAMP = int(os.environ.get("RAMP", str(max(5, CLIENTS // 2000))))  # until all are there
ROUNDS_OUT = 1000                                   # updates per buffer of the asynchronous job
LOOK_S = 5                                          # seconds between counts of all sockets: 200,000 lines to read
ENOUGH = 0.999                                      # of the clients: at any instant a few may be on a new connection


def established(port):
    """Of the gateway: connections whose own end is `port`, as the kernel has them (state 01). By their other end: what the
    kernel lists while connections come may hold one twice."""
    others, wanted = set(), f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(path) as f:
            next(f)
            for line in f:
                words = line.split(None, 4)
                if words[1].endswith(wanted) and words[3] == "01":
                    others.add(words[2])
    return len(others)


def sockstat():
    """(TCP sockets in use, MB of buffers behind them) of the machine."""
    with open("/proc/net/sockstat") as f:
        words = next(line for line in f if line.startswith("TCP:")).split()
    numbers = dict(zip(words[1::2], map(int, words[2::2])))
    return numbers["inuse"], numbers["mem"] * resource.getpagesize() / 1e6


def slab_mb():
    """Kernel memory of objects: what sockets, files and epoll entries are made of."""
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) / 1e3 for line in f if line.startswith("Slab:"))


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) / 1e3 for line in f if line.startswith("VmRSS:"))


def watch(node, load):
    """A row every few seconds while the load runs."""
    port, rows = urllib.parse.urlsplit(node.data).port, []
    gateway = node.endpoints()["pids"]["gateway"]
    while load.poll() is None:
        began = time.monotonic()
        with contextlib.suppress(OSError, http.client.HTTPException, StopIteration):  # a starved machine: the next one
            inuse, buffers = sockstat()
            rows.append({"at": began, "sockets": established(port), "inuse": inuse, "buffers_mb": buffers, "slab_mb": slab_mb(),
                         "gateway_mb": rss_mb(gateway), "tool_mb": rss_mb(load.pid),
                         "conns": int(node.metric("gateway", "tributary_conns"))})
        with contextlib.suppress(subprocess.TimeoutExpired):
            load.wait(max(1, LOOK_S - (time.monotonic() - began)))
    return rows


def longest(rows, wanted):
    """Seconds without a break in which the kernel had so many connections."""
    best, since = 0.0, None
    for row in rows:
        since = (since or row["at"]) if row["sockets"] >= wanted else None
        best = max(best, row["at"] - since if since else 0)
    return best


def main():
    path = os.path.join(cluster.ROOT, "build", "bench-clients.json")
    idle_ms = str(int(1000 * (2 * THINK + 60)))
    with cluster.Node("--conns-max", str(CLIENTS + 1000), "--idle-timeout-ms", idle_ms) as node:
        pids, before = node.endpoints()["pids"], measure.cpu_by_name(node.tree())
        inuse0, slab0 = sockstat()[0], slab_mb()
        gateway0, began = rss_mb(pids["gateway"]), time.monotonic()
        load = subprocess.Popen([
            os.path.join(cluster.BIN, "tributary"), "load", "--dir", node.dir, "--mode", "async", "--goal", str(ROUNDS_OUT), "--slots",
            "4096", "--clients", str(CLIENTS), "--think", str(THINK), "--ramp", str(RAMP), "--duration", str(RAMP + SECONDS + LOOK_S),
            "--report", path, "--quiet"], stdout=subprocess.DEVNULL)
        try:
            rows = watch(node, load)
        finally:
            load.terminate()
        seconds = time.monotonic() - began
        after = measure.cpu_by_name(node.tree())
        died = [name for name, pid in node.endpoints()["pids"].items() if pids[name] != pid]
        pauses, rejects = (int(node.metric("gateway", f"tributary_{name}_total")) for name in ("accept_pauses", "conn_rejects"))
    with open(path) as f:
        r = json.load(f)
    most = max(rows, key=lambda row: row["sockets"])
    held, wanted = longest(rows, ENOUGH * CLIENTS), ENOUGH * CLIENTS
    out = sum(row["clients_selected"] >= 0.99 * CLIENTS for row in r["timeline"])
    wrong = sum(r["errors"]["unintended"].values()) + r["counting"]["lost"] + r["counting"]["double"] + r["counting"]["unresolved"]
    good = not died and wrong == 0 and load.returncode == 0 and held >= SECONDS - 2 * LOOK_S and out >= SECONDS - 2 * LOOK_S
    print(f"clients: {CLIENTS}, tables of descriptors of {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}; ESTABLISHED at the gateway: at "
          f"most {most['sockets']}, {wanted:.0f} and more for {held:.0f} s; with a place in the job: 99 % for {out} s\n"
          f"done: {r['totals']['checkins']} check-ins, {r['totals']['receipts']} receipts, {r['counting']['counted']} counted, "
          f"{r['totals']['connects']} connects; receipt {r['latency']['receipt']}; check-in {r['latency']['checkin']}\n"
          f"errors {r['errors']['unintended']}, lost {r['counting']['lost']}, double {r['counting']['double']}, unresolved "
          f"{r['counting']['unresolved']}; refusals {r['refusals']}; accept pauses {pauses}, conns refused {rejects}; died: "
          f"{died or 'nobody'}\n"
          f"memory: gateway {gateway0:.0f} -> {most['gateway_mb']:.0f} MB ({1e3 * (most['gateway_mb'] - gateway0) / CLIENTS:.2f} KB a "
          f"connection), tool {most['tool_mb']:.0f} MB; kernel: {most['inuse'] - inuse0} sockets more, slab +{most['slab_mb'] - slab0:.0f} MB "
          f"({1e3 * (most['slab_mb'] - slab0) / CLIENTS:.1f} KB a connection, both ends), buffers {most['buffers_mb']:.1f} MB\n"
          "cores: " + ", ".join(f"{k} {(v - before.get(k, 0)) / seconds:.2f}" for k, v in after.items()
                                if v - before.get(k, 0) > 1) + f", the tool {r['own_cpu_s'] / seconds:.2f}\n"
          f"bench-clients: {'held' if good else 'MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
