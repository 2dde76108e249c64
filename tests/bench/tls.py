#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Uploads over TLS against plain ones, in turn, each to a node of its own: JSON lines.

    tls.py BIN [OTHER_BIN]    environment: BENCH_MB (100), BENCH_REPEAT (7)

One client at a time (this process: Python's ssl, same machine, same cores). With OTHER_BIN (programs of another
build) its plain uploads take turns too. gateway_cpu_s_per_gb is what the server pays.
"""
import contextlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.parse

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
import cluster  # noqa: E402

MB = float(os.environ.get("BENCH_MB", "100"))
REPEAT = int(os.environ.get("BENCH_REPEAT", "7"))


def cpu(node):
    with open(f"/proc/{node.pid('gateway')}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def upload(node, job, client, body):
    ticket = job.selected(client)
    u = urllib.parse.urlsplit(node.data)
    if u.scheme == "https":
        c = http.client.HTTPSConnection(u.hostname, u.port, timeout=120, context=cluster.TLS)
    else:
        c = http.client.HTTPConnection(u.hostname, u.port, timeout=120)
    c.connect()
    spent, began = cpu(node), time.monotonic()
    c.putrequest("PUT", ticket["upload"]["url"])
    for name, value in {**job.headers(client, ticket, 1.0), "Content-Length": str(len(body))}.items():
        c.putheader(name, value)
    c.endheaders()
    view = memoryview(body)
    for at in range(0, len(view), 1 << 20):
        c.sock.sendall(view[at:at + (1 << 20)])
    answer = c.getresponse()
    assert answer.status == 201, answer.read()
    answer.read()
    taken = time.monotonic() - began
    cipher = c.sock.cipher()[0] if u.scheme == "https" else None
    c.close()
    return taken, cpu(node) - spent, cipher


def main():
    size = int(MB * 1e6 / 4)
    body = cluster.body_of(np.random.default_rng(3).standard_normal(size).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        certs = cluster.Certificates(folder)
        cert, key = certs.make("server", "IP:127.0.0.1")
        cluster.TLS = certs.context()
        kinds = {"plain": (sys.argv[1], ()), "tls": (sys.argv[1], ("--tls-cert", cert, "--tls-key", key))}
        if len(sys.argv) > 2:
            kinds["plain, other build"] = (sys.argv[2], ())
        places, rows = {}, {kind: [] for kind in kinds}
        for kind, (bins, words) in kinds.items():
            cluster.BIN = os.path.abspath(bins)
            node = stack.enter_context(cluster.Node("--arena-bytes", str(1 << 30), "--workers", "1", *words))
            places[kind] = node, cluster.Job(node, size=size, clients=REPEAT + 1, rounds=1, goal=REPEAT + 2, seed=4,
                                             spec={"sync": {"over_select": 1.0}})
        for i in range(REPEAT + 1):
            for kind in list(kinds) if i % 2 else reversed(list(kinds)):
                row = upload(*places[kind], i, body)
                if i:  # the first touches fresh memory
                    rows[kind].append(row)
        for kind, taken in rows.items():
            rate = [len(body) / 1e9 / t for t, _, _ in taken]
            copied = places[kind][0].metric("gateway", "tributary_payload_bytes_copied_total")
            print(json.dumps({"name": "upload", "kind": kind, "cipher": taken[0][2], "mb": MB, "n": len(taken),
                              "gb_per_s": round(statistics.median(rate), 2),
                              "spread": [round(min(rate), 2), round(max(rate), 2)],
                              "gateway_cpu_s_per_gb":
                                  round(sum(c for _, c, _ in taken) / (len(body) / 1e9 * len(taken)), 3),
                              "bytes_copied": copied}))


if __name__ == "__main__":
    main()
