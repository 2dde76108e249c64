#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench-after: what happens between the last byte of a round's last update and the published model, by the debug
lines of every process ("ns" in them is one clock for all). A table of medians over the rounds, in milliseconds.

    after.py BUILD [MB=44.7] [UPDATES=8] [ROUNDS=12] [ACCUMULATE=exact|f32]
"""
import json
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build/release")
os.environ["TRIBUTARY_BIN"] = os.path.join(BUILD, "bin")
os.environ["TRIBUTARY_LOG"] = "debug"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import ingest  # noqa: E402
import systems  # noqa: E402

systems.PROGRAMS = os.path.join(BUILD, "tests/bench")
SETTINGS = {**os.environ, **dict(w.split("=", 1) for w in sys.argv[2:] if "=" in w)}

# (what has happened, program, how its line begins, first or last of such lines in the round)
STAGES = (
    ("commit asked: CRC and values checked", "gateway", "event=asked", max),
    ("commit answered: FCALL and fsync", "gateway", "event=answered", max),
    ("handed out: ring, agent, descriptor", "agent", "event=handed-out", max),
    ("sums complete: the end of the group's op", "aggregator", "followed count", max),
    ("the agent knows that the round is closed", "agent", "event=synced", "closing"),
    ("flushing: every update is acknowledged", "agent", "event=flushing", max),
    ("model asked for", "agent", "event=finalising", max),
    ("model made", "aggregator", "finished ahead", max),
    ("model answered", "agent", "event=writing", max),
    ("copied and hashed", "agent", "event=hashed", max),
    ("reported", "agent", "event=reporting", max),
    ("the leader publishes", "orchestrator", "publishing", max),
)


def lines_of(node):
    """Debug lines of all programs: (ns, program, text), in order of time."""
    out = []
    for folder, _, files in os.walk(node.dir):
        for name in files:
            if not name.endswith(".log"):
                continue
            with open(os.path.join(folder, name), errors="replace") as f:
                for text in f:
                    if '"ns":' in text:
                        try:
                            line = json.loads(text)
                        except ValueError:
                            continue
                        out.append((line["ns"], line["p"].removeprefix("tributary-"), line["m"]))
    return sorted(out)


def stages_of(lines, row, received):
    """{stage: ms after the last byte was read}, of one round."""
    found = {"sent: the client's last send() (the rest waits in sockets)": (row["last_byte_ns"] - received) / 1e6}
    for what, program, begins, which in STAGES:
        times = [ns for ns, p, m in lines if p == program and m.startswith(begins)
                 and (which is max or f"state={which}" in m)]
        if times:
            found[what] = ((max if which is max else min)(times) - received) / 1e6
    found["published: in the job's stream, as a client of Redis sees it"] = (row["published_ns"] - received) / 1e6
    return found


def main():
    mb, updates, rounds = float(SETTINGS.get("MB", 44.7)), int(SETTINGS.get("UPDATES", 8)), int(SETTINGS.get("ROUNDS", 12))
    system = systems.TributaryF32() if SETTINGS.get("ACCUMULATE") == "f32" else systems.Tributary()
    work = systems.Work("after", int(mb * 1e6 / 4), updates)
    seen, files = [], []
    try:
        system.start(work)
        for n in range(rounds + 2):  # the first ones touch fresh memory
            system.prepare()
            time.sleep(0.1)
            before = time.monotonic_ns()
            row = system.upload(system.ready)
            time.sleep(0.3)
            received = system.received_ns(row)
            lines = [x for x in lines_of(system.node) if before <= x[0]]
            files += [(ns - received) / 1e6 for ns, _, m in lines if m.startswith("event=filed")]
            if n > 1:
                seen.append(stages_of([x for x in lines if x[0] <= row["published_ns"]], row, received))
    finally:
        system.stop()
        systems.Tributary.stop_nodes()
        work.close()
    one_pass = ingest.pass_ms(work.elements)["spread"][0]
    print(f"{updates} x {mb} MB, {system.name}, {len(seen)} rounds; one pass of the fold over one update: {one_pass} ms")
    print(f"{'ms':>8} {'step':>8} {'range':>20}")
    last, order = None, {what: statistics.median(s[what] for s in seen if what in s) for s in seen for what in s}
    for what in sorted(order, key=order.get):
        values = [s[what] for s in seen if what in s]
        step = "" if last is None else f"{order[what] - last:.2f}"
        print(f"{order[what]:8.2f} {step:>8} {min(values):9.2f} .. {max(values):7.2f}  {what}")
        last = order[what]
    if files:
        print(f"(file of the version: {statistics.median(files):.1f} ms)")


if __name__ == "__main__":
    main()
