# SPDX-License-Identifier: Apache-2.0
"""Twice the peak: `tributary load` with as much as the node takes, then with twice that arriving, in turn."""
import collections
import json
import os
import statistics
import subprocess

import measure

FEW, MANY = 128, 2000  # clients there at a time: enough for the peak; too many, so that arrivals do not wait for it
BEYOND = 30000         # arrivals a second that no two cores serve
JOB = ("--mode", "async", "--goal", "500", "--slots", "4096", "--think", "0")


def load(node, clients, rate, seconds):
    """A run's report, with the processor time the node spent on each receipt and who died meanwhile."""
    import cluster
    before, pids = measure.cpu(node.tree()), node.endpoints()["pids"]
    out = subprocess.run([os.path.join(cluster.BIN, "tributary"), "load", "--dir", node.dir, "--format", "json", "--quiet",
                          *JOB, "--clients", str(clients), "--arrivals", "constant", "--rate", str(rate), "--duration",
                          str(seconds)], capture_output=True, text=True, timeout=seconds + 120)
    if out.returncode not in (0, 6, 7):  # lost, twice or none: in the line
        raise RuntimeError(f"tributary load: {out.stderr[-500:]}")
    told = json.loads(out.stdout)
    now = node.endpoints()["pids"]
    told["died"] = [name for name, pid in pids.items() if now.get(name) != pid]
    # Receipts a second once all are there: at its ends a run has check-ins without receipts, the more the more clients.
    steady = [row["receipts_per_s"] for row in told["timeline"] if 1.5 < row["t"] <= seconds + 0.5]
    told["rate"] = statistics.mean(steady) if steady else told["totals"]["goodput_per_s"]
    told["cpu_us"] = (measure.cpu(node.tree()) - before) / max(1, told["totals"]["receipts"]) * 1e6
    return told


def overload(emit, pairs, seconds):
    """`pairs` times both, `seconds` each."""
    import cluster
    calm, rough = [], []
    with cluster.Node() as node:
        load(node, FEW, BEYOND, 1)  # fresh memory, cold caches
        for _ in range(pairs):
            calm.append(load(node, FEW, BEYOND, seconds))
            rough.append(load(node, MANY, 2 * calm[-1]["rate"], seconds))
    rate = lambda runs: [r["rate"] for r in runs]  # noqa: E731
    ratio = [b / a for a, b in zip(rate(calm), rate(rough))]
    cost = [b["cpu_us"] / a["cpu_us"] for a, b in zip(calm, rough)]
    refusals = collections.Counter()
    for r in rough:
        refusals.update(r["refusals"])
    both = calm + rough
    bad = {"died": sum((r["died"] for r in both), []), **{k: sum(r["counting"][k] for r in both) for k in ("lost", "double")},
           "unintended_errors": sum(sum(r["errors"]["unintended"].values()) for r in both)}
    emit({"system": "tributary", "name": "overload", "update_mb": round(calm[0]["totals"]["bytes_accepted"]
                                                                        / max(1, calm[0]["totals"]["receipts"]) / 1e6, 4),
          "updates": sum(r["totals"]["receipts"] for r in rough), "clients": MANY, "seconds": seconds, "runs": pairs,
          "peak_per_s": round(statistics.median(rate(calm)), 1), "offered_to_peak": 2.0,
          "goodput_per_s": round(statistics.median(rate(rough)), 1), "value": round(statistics.median(ratio), 3),
          "unit": "goodput at twice the peak / peak", "spread": [round(min(ratio), 3), round(max(ratio), 3)],
          "cpu_per_receipt_to_peak": round(statistics.median(cost), 3), "refusals": dict(refusals),
          "service_p99_ms": round(statistics.median(r["latency"]["service"]["p99_ms"] for r in rough), 1),
          "peak_mb": round(max(r["server"]["rss_max_mb"] for r in rough), 1), **bad})
