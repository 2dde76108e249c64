# SPDX-License-Identifier: Apache-2.0
"""The privileged tier: the kernel routes. Needs CAP_BPF and CAP_NET_ADMIN; `make test-priv` counts a skip as failure."""
import os
import subprocess

import pytest

from cluster import Job, Node, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_BPF, CAP_NET_ADMIN)")


def bpf_objects():
    count = {}
    for kind in ("map", "prog", "link"):
        out = subprocess.run(["bpftool", kind, "list"], capture_output=True, text=True, timeout=20,
                             env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}).stdout
        count[kind] = sum(1 for line in out.splitlines() if line[:1].isdigit())
    return count


@pytest.mark.parametrize("leaves", [1, 2, 7])
def test_every_descriptor_is_redirected_in_the_kernel_and_none_relayed(leaves):
    with Node("--transport", "skmsg") as node:
        job = Job(node, size=20011, clients=42, leaves=leaves, seed=70)
        job.report_all(threads=6)
        job.check(job.published(1))
        s = node.state()
        assert s["transport"] == "skmsg", s["why"]
        # Each update goes out and its acknowledgement comes back; leaves add RESET, FLUSH, PARTIAL, ACK; then MODEL, ACK.
        least = 2 * 42 + 2 + (3 * leaves if leaves > 1 else 0)
        assert s["redirected"] >= least, s
        assert s["relayed"] == 0 and s["dead_letters"] == 0 and s["dropped"] == 0, s
        functions = s["jobs"][0]["functions"] if s["jobs"] else []
        assert all(f["messages"] > 0 and f["bytes"] == 64 * f["messages"] for f in functions if f["updates"]), functions


def test_killed_functions_do_not_stick_the_route():
    with Node("--transport", "skmsg", env={"TRIBUTARY_TEST_FOLD_DELAY_US": "2000"}) as node:
        job = Job(node, size=120000, clients=16, leaves=2, seed=71)
        for c in range(6):
            job.report(c)
        pids = until("functions", lambda: [f["pid"] for j in node.state()["jobs"] for f in j["functions"] if f["pid"]], 10)
        for pid in pids:
            os.kill(pid, 9)
        for c in range(6, 16):
            job.report(c)
        job.check(job.published(1, timeout=40))
        assert node.state()["transport"] == "skmsg"


def test_relay_gives_the_same_bits_as_the_kernel():
    models = []
    for transport in ("skmsg", "relay"):
        with Node("--transport", transport) as node:
            job = Job(node, size=9001, clients=14, leaves=2, seed=72)
            job.report_all()
            models.append(job.published(1).tobytes())
            assert node.state()["transport"] == transport
    assert models[0] == models[1]


def test_nothing_of_bpf_is_left_behind():
    before = bpf_objects()
    with Node("--transport", "skmsg") as node:
        job = Job(node, size=1000, clients=3, seed=73)
        job.report_all()
        job.published(1)
        assert bpf_objects()["prog"] > before["prog"]
        node.kill("agent")
        until("ready again", node.ready, 20)
        node.stop()
        assert node.left == []
    until("BPF objects gone", lambda: bpf_objects() == before, 10)


def capabilities(pid):
    with open(f"/proc/{pid}/status") as f:
        fields = dict(line.split(":\t", 1) for line in f)
    return int(fields["CapPrm"], 16) | int(fields["CapEff"], 16), fields["NoNewPrivs"].strip()


def test_started_by_root_each_program_keeps_only_what_it_needs():
    bpf, net_admin = 39, 12
    with Node("--transport", "skmsg") as node:
        job = Job(node, size=3000, clients=4, leaves=2, seed=74, rounds=2)
        job.report_all()
        job.check(job.published(1))
        for name, allowed in (("gateway", 0), ("orchestrator", 0), ("agent", 1 << bpf | 1 << net_admin)):
            caps, no_new = capabilities(node.pid(name))
            assert caps & ~allowed == 0 and no_new == "1", (name, hex(caps))
        functions = [f for j in node.state()["jobs"] for f in j["functions"] if f["pid"]]
        assert functions
        for f in functions:
            assert capabilities(f["pid"]) == (0, "1")


def test_huge_pages_are_used_when_there_are_any():
    path = "/proc/sys/vm/nr_hugepages"
    with open(path) as f:
        before = f.read().strip()
    try:
        with open(path, "w") as f:
            f.write("24")
        with open(path) as f:
            if int(f.read()) < 24:
                pytest.skip("the kernel has no 24 huge pages to give")
        with Node() as node:
            job = Job(node, size=1 << 20, clients=6, leaves=2, seed=75, spec={"placement": {"slots": 6}})
            job.report_all()
            job.check(job.published(1))
            assert "huge=1" in node.logs()
    finally:
        with open(path, "w") as f:
            f.write(before)
