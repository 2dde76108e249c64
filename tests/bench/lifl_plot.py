#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The picture of a run of make bench-lifl, and its table as Markdown: lifl_plot.py [BENCH-LIFL.jsonl [SVG]]."""
import json
import os
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import plot  # noqa: E402

COLORS = {"sf": "#888888", "sl": "#d1495b", "sl-h": "#edae49", "+placement": "#c2d5a7", "+planning": "#8fbc8f",
          "+reuse": "#4a9c6d", "+eager": "#0b6e4f"}


def medians(lines):
    """(updates, mb) -> {system: {field: median}}, in the order of the run."""
    found = {}
    for x in lines:
        found.setdefault((x["update_mb"], x["updates"]), {}).setdefault(x["system"], []).append(x)
    fields = ("act_s", "cpu_s", "created", "reused", "nodes", "bytes_copied")
    return {key: {system: {f: statistics.median(x[f] for x in rounds) for f in fields}
                  for system, rounds in of.items()} for key, of in found.items()}


def table(all_medians):
    print("| updates | system | act s | CPU s | created | reused | nodes | moved again, MB |\n" + "|---" * 8 + "|")
    for (mb, updates), of in all_medians.items():
        for system, m in of.items():
            print(f"| {updates} x {mb} MB | `{system}` | {m['act_s']:.3f} | {m['cpu_s']:.2f} | {m['created']:.0f} | "
                  f"{m['reused']:.0f} | {m['nodes']:.0f} | {m['bytes_copied'] / 1e6:.0f} |")


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/bench-lifl.jsonl")
    target = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "docs/img/bench-lifl.svg")
    with open(source) as f:
        found = medians([json.loads(text) for text in f])
    table(found)
    plot.COLORS.update(COLORS)
    # Per MB: one scale for small and large updates.
    plot.bars(target, "First update to published model, ms per MB of updates (median)", [
        (f"{updates} x {mb} MB", [(s, m["act_s"] / updates * 1e3 / mb, None) for s, m in of.items()])
        for (mb, updates), of in found.items()], "ms/MB")


if __name__ == "__main__":
    main()
