# SPDX-License-Identifier: Apache-2.0
"""The ablation of make bench-lifl still runs: the baselines and all of ours, tiny; and tributary calibrate."""
import json
import os
import subprocess

import cluster

FIELDS = {"system", "updates", "update_mb", "act_s", "cpu_s", "created", "reused", "nodes", "bytes_copied"}


def test_every_kind_of_system_finishes_a_round(tmp_path):
    out = str(tmp_path / "lifl.jsonl")
    done = subprocess.run(["/usr/bin/python3", os.path.join(cluster.ROOT, "tests/bench/lifl.py"),
                           os.path.dirname(cluster.BIN), "TINY=1", "ONLY=sf,sl,+eager", f"OUT={out}"],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(out) as f:
        lines = {x["system"]: x for x in map(json.loads, f)}
    assert set(lines) == {"sf", "sl", "+eager"}
    for line in lines.values():
        assert FIELDS <= set(line) and line["updates"] == 10 and line["act_s"] > 0, line
    assert lines["sf"]["created"] == 0 and lines["sl"]["created"] == 3
    assert lines["+eager"]["nodes"] == 1 and lines["+eager"]["bytes_copied"] == 0, lines["+eager"]


def test_calibrate_says_a_capacity():
    done = subprocess.run([os.path.join(cluster.BIN, "tributary"), "calibrate", "--bytes", "4096", "--most", "2",
                           "--rounds", "1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["capacity"] in (1, 2) and [s["updates"] for s in told["steps"]] == [1, 2], told
    assert told["update_bytes"] == 4096 and all(s["updates_per_s"] > 0 for s in told["steps"]), told
