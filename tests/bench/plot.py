#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run as SVG, and its tables as Markdown: plot.py [BENCH.jsonl [DIRECTORY]] (docs/performance.md)."""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import report  # noqa: E402

COLORS = {"floor": "#888888", "tributary": "#0b6e4f", "tributary-f32": "#6fb98f", "grpc-cpp": "#d1495b",
          "grpc-cpp-plain": "#e88d97", "grpc-python": "#edae49", "aiohttp": "#00798c", "broker": "#8d6a9f", "flower": "#30638e"}
LEFT, TOP, ROW, BAR = 130, 40, 18, 420


def escape(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def bars(path, title, groups, unit):
    """groups: [(name, [(system, value, (low, high) or None)])]; horizontal bars, one scale."""
    top = max((v for _, rows in groups for _, v, _ in rows), default=1) or 1
    y, out = TOP, []
    for name, rows in groups:
        out.append(f'<text x="4" y="{y + 12}" font-weight="bold">{escape(name)}</text>')
        y += ROW
        for system, value, span in rows:
            width = value / top * BAR
            out.append(f'<text x="{LEFT - 6}" y="{y + 12}" text-anchor="end">{escape(system)}</text>')
            out.append(f'<rect x="{LEFT}" y="{y + 2}" width="{max(width, 0.5):.1f}" height="{ROW - 5}" '
                       f'fill="{COLORS.get(system, "#444")}"/>')
            if span:
                low, high = (min(v / top, 1.05) * BAR + LEFT for v in span)
                out.append(f'<path d="M{low:.1f} {y + 8}H{high:.1f}" stroke="#000" stroke-width="1"/>')
            out.append(f'<text x="{LEFT + width + 26:.1f}" y="{y + 12}">{value:.3g} {escape(unit)}</text>')
            y += ROW
        y += 8
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + BAR + 150}" height="{y + 6}" '
            f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="4" y="20" font-size="15">{escape(title)}</text>')
    with open(path, "w") as f:
        f.write("\n".join([head, *out, "</svg>"]) + "\n")


def groups_of(lines, name, value, span=None, keep=lambda line: True):
    out = {}
    for x in lines:
        if x["name"] == name and x.get(value) is not None and keep(x):
            key = f"{x['updates']} x {x['update_mb']} MB"
            low_high = span(x) if span else None
            out.setdefault(key, []).append((x["system"], x[value], low_high))
    return list(out.items())


def markdown(lines, name, columns):
    print("| " + " | ".join(title for _, title in columns) + " |")
    print("|" + "---|" * len(columns))
    for x in lines:
        if x["name"] == name and "skipped" not in x and "failed" not in x:
            print("| " + " | ".join(report.cell(x.get(k)) for k, _ in columns) + " |")
    print()


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/bench.jsonl")
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "docs/img")
    with open(source) as f:
        lines = [report.complete(json.loads(text)) for text in f]
    os.makedirs(folder, exist_ok=True)

    def rate(x):
        gb = x["gb_per_s"] * x["seconds"]
        return gb / x["spread"][1], gb / x["spread"][0]

    bars(os.path.join(folder, "bench-throughput.svg"), "First byte to published model: GB/s (median; line: range)",
         groups_of(lines, "ingest", "gb_per_s", rate), "GB/s")
    bars(os.path.join(folder, "bench-cpu.svg"), "Server CPU: GB per CPU second", groups_of(
        lines, "ingest", "throughput_per_cpu_s"), "GB/s")
    bars(os.path.join(folder, "bench-memory.svg"), "Peak memory of the server, MB", groups_of(
        lines, "ingest", "peak_mb"), "MB")
    bars(os.path.join(folder, "bench-after.svg"), "Last byte sent to published model, ms", groups_of(
        [{**x, "ms": x.get("after_last_byte_s", 0) * 1e3} for x in lines if x["system"] != "broker"], "ingest", "ms",
        keep=lambda x: x["seconds"]), "ms")
    bars(os.path.join(folder, "bench-small.svg"), "Small updates: answers per second", groups_of(
        lines, "small", "answers_per_s"), "1/s")
    columns = (("system", "system"), *report.COLUMNS)
    for name in ("ingest", "small"):
        markdown(lines, name, columns)
    markdown([x for x in lines if "transport" in x], "hop", (("transport", "transport"), ("update_mb", "MB"),
                                                           ("value", "us"), ("spread", "range")))
    markdown(lines, "pass", (("update_mb", "MB"), ("value", "ms"), ("spread", "range")))
    markdown(lines, "memory", (("what", "what grows"), ("update_mb", "MB"), ("updates_per_round", "updates a round"),
                               ("rounds", "rounds"), ("arena_mb", "arena MB"), ("peak_mb", "peak MB"),
                               ("flatness", "flatness")))
    print("| target | value | the floor itself | |\n|---|---|---|---|")
    for target, value, met, floor in report.verdicts(lines):
        print(f"| {target} | {value} | {report.cell(floor)} | {'met' if met else '**missed**'} |")
    for x in lines:
        for how in ("skipped", "failed"):
            if how in x:
                print(f"- {x['system']} {x['name']} {x['updates']} x {x['update_mb']} MB {how}: {x[how]}")


if __name__ == "__main__":
    main()
