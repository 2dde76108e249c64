#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: floor, ours and the baselines over the same loopback sockets; JSON lines in build/bench.jsonl.

    run.py BUILD [QUICK=1] [FULL=1] [ONLY=ingest,small,..] [SYSTEMS=floor,tributary,..] [MB=44.7,..] [UPDATES=20,..]
           [LIMIT=seconds]

Words may come from the environment too. Everything compared takes turns within one run; medians and ranges of it. The
rows worth most come first, each line is written as soon as it is there; one that fails costs only itself and the exit
code. LIMIT: rows that would not be through by then are left out and named.
"""
import json
import os
import signal
import subprocess
import sys
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build/release")
os.environ["TRIBUTARY_BIN"] = os.path.join(BUILD, "bin")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import ingest  # noqa: E402
import measure  # noqa: E402
import overload  # noqa: E402
import report  # noqa: E402
import small  # noqa: E402
import systems  # noqa: E402

systems.PROGRAMS = os.path.join(BUILD, "tests/bench")
SETTINGS = {**os.environ, **dict(w.split("=", 1) for w in sys.argv[2:] if "=" in w)}
SIZES_MB = (1, 44.7, 83, 232)
CREW = (systems.Floor, systems.Tributary, systems.TributaryF32, systems.GrpcCpp, systems.GrpcCppPlain, systems.GrpcPython,
        systems.Aiohttp, systems.Broker, systems.Flower)
SLOW = ("grpc-cpp-plain", "grpc-python", "aiohttp", "broker", "flower")
FEW = ("floor", "tributary", "tributary-f32", "grpc-cpp", "grpc-python")  # of the secondary workloads without FULL
# What the expected time is made of, on a quiet 2-core machine: (s to start and end, s a round, s per GB) of a system.
COST = {"floor": (0.4, 0.2, 0.4), "tributary": (1.0, 0.2, 0.6), "tributary-f32": (1.0, 0.2, 0.6), "grpc-cpp": (0.4, 0.2, 0.6),
        "grpc-cpp-plain": (0.4, 0.2, 0.8), "grpc-python": (0.6, 0.3, 1.1), "aiohttp": (0.7, 0.3, 1.3), "broker": (0.6, 0.4, 6.5), "flower": (2.5, 0.5, 8.5)}


def flag(name):
    return SETTINGS.get(name, "") not in ("", "0")


def wanted(name, value):
    """Whether the setting's list, if there is one, has the value."""
    words = [w for w in SETTINGS.get(name, "").split(",") if w]
    return not words or str(value) in words


class Bench:
    def __init__(self, out):
        self.out, self.lines, self.machine, self.began = out, [], measure.machine(), time.monotonic()
        self.bad, self.passes = [], set()
        os.makedirs(os.path.dirname(out), exist_ok=True)
        open(out, "w").close()
        self.only = [w for w in SETTINGS.get("ONLY", "").split(",") if w]
        self.systems = [w for w in SETTINGS.get("SYSTEMS", "").split(",") if w]

    def emit(self, line):
        line = report.complete({**line, **self.machine})
        self.lines.append(line)
        with open(self.out, "a") as f:  # at once: what is there stays when a later workload fails
            f.write(json.dumps(line) + "\n")
        print("  " + report.short(line), flush=True)

    def crew(self, few=False):
        """The floor is always there: everything is told against it."""
        return [c() for c in CREW if c is systems.Floor or ((not self.systems or c.name in self.systems)
                                                            and (not few or c.name in FEW))]

    def micro(self, program, *words):
        out = subprocess.run([os.path.join(systems.PROGRAMS, program), *words], capture_output=True, text=True, timeout=240)
        for text in out.stdout.splitlines():
            if text.startswith("{"):
                self.emit({"system": "tributary", **json.loads(text)})
        if out.returncode not in (0, 77):
            raise RuntimeError(f"{program} exited with {out.returncode}: {out.stderr[-500:]}")

    def ingest(self, mb, updates, repeat, slow, few=False):
        work = systems.Work("ingest", int(mb * 1e6 / 4), updates)
        try:
            if mb not in self.passes:
                self.emit({"system": "limit", **ingest.pass_ms(work.elements)})
                self.passes.add(mb)
            ingest.Ingest(work, self.crew(few), repeat, self.emit, {name: slow for name in SLOW}).run()
        finally:
            work.close()

    def small(self, kb, updates, repeat, slow, few=False):
        work = systems.Work("small", kb * 256, updates, conns=64)
        crew = [s for s in self.crew(few) if "small" in s.workloads and s.name != "tributary-f32"]
        try:
            small.Small(work, crew, repeat, self.emit, {name: slow for name in SLOW}).run()
        finally:
            work.close()

    def memory(self, mb, updates, rounds, arena_mb, name):
        systems.Tributary.stop_nodes()  # a node of its own
        work = systems.Work("memory", int(mb * 1e6 / 4), updates, conns=8)
        try:
            small.memory(systems.Tributary(arena_mb * 1000000), systems.Floor(), work, rounds, self.emit, name, arena_mb)
        finally:
            work.close()
            systems.Tributary.stop_nodes()

    # ---- what is run: (name for ONLY, title, expected seconds, what to do), worth most first ----

    def ingest_row(self, mb, updates, repeat, slow, few=False):
        if not wanted("MB", mb) or not wanted("UPDATES", updates):
            return None
        gb, s = mb * updates / 1e3, 1.5 + mb * 0.012
        for system in self.crew(few):
            start, turn, per_gb = COST[system.name]
            s += start + mb * 0.01 + (2 + (slow if system.name in SLOW else repeat)) * (turn + per_gb * gb)
        return ("ingest", f"{updates} updates of {mb} MB, {repeat} rounds each in turn", s,
                lambda: self.ingest(mb, updates, repeat, slow, few))

    def small_row(self, kb, updates, repeat, slow, few=False, s=0):
        return ("small", f"{updates} updates of {kb} KB over 64 connections, {repeat} rounds each in turn", s,
                lambda: self.small(kb, updates, repeat, slow, few))

    def memory_row(self, mb, updates, rounds, arena_mb, name):
        return ("memory", f"{rounds} x {updates} updates of {mb} MB through a node of {arena_mb} MB",
                4 + rounds * (0.1 + 0.45 * mb * updates / 1e3),
                lambda: self.memory(mb, updates, rounds, arena_mb, name))

    def overload_row(self, pairs, seconds):
        return ("overload", "as much as the node takes, then twice that arriving, in turn", 3 + pairs * 2 * seconds,
                lambda: overload.overload(self.emit, pairs, seconds))

    def rows(self):
        hop = ("hop", "a descriptor from process to process, by size of its update", 20, lambda: self.micro("hop", "sizes"))
        if flag("QUICK"):
            return [self.ingest_row(44.7, 8, 3, 1), self.small_row(4, 2000, 3, 1, s=10), hop, self.overload_row(2, 4),
                    *(self.memory_row(4.47, n, 2, 100, "clients") for n in (20, 100))]
        micro = [("micro", program, s, lambda a=(program, *words): self.micro(*a)) for s, program, *words in (
            (13, "hop", "rings"), (37, "fold"), (3, "spawn"))]
        memory = [self.memory_row(44.7, 10, 100, 1000, "rounds"),
                  *(self.memory_row(44.7, n, 3, 1000, "clients") for n in (20, 100))]
        if flag("FULL"):
            sizes = [(mb, n) for n in (8, 20, 60) for mb in (44.7, 83, 232, 1)]
            rest = [self.ingest_row(mb, n, 3, 1) for mb, n in sizes[1:]]
            return [self.ingest_row(44.7, 8, 9, 2), self.small_row(4, 10000, 5, 1, s=45), hop, *memory,
                    self.overload_row(3, 6), *rest, self.small_row(64, 10000, 3, 1, s=70), *micro]
        return [self.ingest_row(44.7, 8, 9, 2), self.small_row(4, 10000, 5, 1, s=45), hop,
                self.ingest_row(83, 8, 5, 1, True), self.ingest_row(232, 8, 3, 1, True), *memory, self.overload_row(3, 6),
                self.ingest_row(44.7, 20, 3, 1, True), self.ingest_row(44.7, 60, 3, 1, True),
                self.small_row(64, 10000, 3, 1, True, s=40), self.ingest_row(1, 8, 15, 1, True),
                self.ingest_row(83, 20, 3, 1, True), self.ingest_row(232, 20, 3, 1, True), *micro]

    def one(self, name, title, do):
        began = time.monotonic()
        try:
            do()
        except Exception as e:  # noqa: BLE001 - the others go on
            self.bad.append(f"{name}, {title}: {e!r}"[:400])
            traceback.print_exc()
            systems.Tributary.stop_nodes()  # what comes next gets a fresh one
        print(f"   {time.monotonic() - began:.0f} s", flush=True)

    def run(self):
        rows = [r for r in self.rows() if r and (not self.only or r[0] in self.only or
                                                 (r[0] == "overload" and "small" in self.only))]
        total, limit = sum(r[2] for r in rows), float(SETTINGS.get("LIMIT") or "inf")
        print(f"{len(rows)} rows, about {total:.0f} s on a quiet machine of two cores (QUICK=1: the essentials, FULL=1: every "
              f"size and number with every system, ONLY=, SYSTEMS=, MB=, UPDATES=, LIMIT=)", flush=True)
        left = total
        try:
            for i, (name, title, s, do) in enumerate(rows):
                spent = time.monotonic() - self.began
                if spent + s > limit:
                    print(f"== {name}: {title}: left out, LIMIT={limit:g}", flush=True)
                    continue
                print(f"== {name}: {title} ({i + 1} of {len(rows)}; {spent:.0f} s gone, about {left:.0f} s left)", flush=True)
                left -= s
                self.one(name, title, do)
        except KeyboardInterrupt:
            self.bad.append("it was ended from outside")
        finally:
            systems.Tributary.stop_nodes()
        return self.end()

    def end(self):
        report.table(self.lines)
        report.judge(self.lines)
        self.bad += [f"{x['system']} {x['name']} {x['updates']} x {x['update_mb']} MB: {x['failed']}"
                     for x in self.lines if "failed" in x] + report.incomplete(self.lines)
        for text in self.bad:
            print(f"FAILED {text}")
        print(f"{len(self.lines)} lines in {os.path.relpath(self.out, ROOT)} after {time.monotonic() - self.began:.0f} s")
        return 1 if self.bad or not self.lines else 0


def ended(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, ended)  # of timeout(1): what is there is still told
    sys.exit(Bench(os.path.join(ROOT, SETTINGS.get("OUT") or "build/bench.jsonl")).run())
