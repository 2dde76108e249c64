# SPDX-License-Identifier: Apache-2.0
"""More connections than a table of descriptors has room for: the gateway's workers have a table each (ADR 12), and what passes
between threads still arrives: bells, wake-ups, memory from the agent, the end."""
import json
import os
import resource
import signal
import socket
import subprocess
import urllib.parse

import pytest

from cluster import BIN, Job, Node, until

pytestmark = pytest.mark.skipif("/thread/" in BIN, reason="the thread sanitizer takes equal numbers for equal descriptors")

LIMIT = 600                     # descriptors of a table, of every program of the node
CONNECTIONS = 1300              # more than two tables hold
NODE = ("--conns-max", "1500", "--idle-timeout-ms", "600000")


@pytest.fixture(name="many")
def many_files():
    """This process holds the clients' ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CONNECTIONS + 500:
        pytest.skip(f"RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ask(connection):
    """One request on a connection that stays; its status."""
    connection.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        piece = connection.recv(4096)
        assert piece, "closed"
        answer += piece
    return int(answer.split()[1])


def connect(node, count):
    u = urllib.parse.urlsplit(node.data)
    return [socket.create_connection((u.hostname, u.port), timeout=60) for _ in range(count)]


def test_more_connections_than_a_table_holds(many):
    with Node(*NODE, prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}")) as node:
        held = connect(node, CONNECTIONS)
        try:
            assert {ask(c) for c in held} == {404}
            until("all counted", lambda: node.metric("gateway", "tributary_conns") >= CONNECTIONS, 30)
            job = Job(node, size=3000, clients=6, rounds=3, seed=70)
            job.report_all()
            job.check(job.published(1))
            node.kill("agent")  # new rings, a new bell, the same memory mapped again
            base = job.published(1)
            until("linked again", lambda: node.metric("gateway", "tributary_agent_link_up") == 1, 30)
            job.report_all()
            job.check(job.published(2), 2, base=base)
            assert {ask(c) for c in held[::7]} == {404}
            base = job.published(2)
            old = node.pid("gateway")
            os.kill(old, signal.SIGTERM)  # every table lets go of the listening socket
            until("another gateway", lambda: node.pid("gateway") != old and node.ready(), 30)
            job.report_all()
            job.check(job.published(3), 3, base=base)
        finally:
            for c in held:
                c.close()


def test_load_with_more_connections_than_a_table_holds():
    with Node(*NODE, prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}")) as node:
        done = subprocess.run(["prlimit", f"--nofile={LIMIT}:{LIMIT}", os.path.join(BIN, "tributary"), "load", "--dir", node.dir,
                               "--mode", "async", "--goal", "50", "--clients", "1000", "--think", "1", "--ramp", "1", "--duration",
                               "4", "--quiet", "--format", "json"], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()[-2000:]
        report = json.loads(done.stdout)
        assert report["most"]["connections"] >= 1000 and report["plan"]["threads"] >= 3, report["most"]
        assert not report["errors"]["unintended"] and report["counting"]["counted"] == report["totals"]["receipts"] > 0
