#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: floor, ours and the baselines over the same loopback sockets; JSON lines in build/bench.jsonl.

    run.py BUILD [QUICK=1] [FULL=1] [ONLY=ingest,small,..] [SYSTEMS=floor,tributary,..]

Words may come from the environment too. Everything compared takes turns within one run; medians and ranges of it.
"""
import json
import os
import subprocess
import sys
import time

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
CREW = (systems.Floor, systems.Tributary, systems.TributaryF32, systems.GrpcCpp, systems.GrpcPython, systems.Aiohttp,
        systems.Broker, systems.Flower)
SLOW = ("grpc-python", "aiohttp", "broker", "flower")
FEW = ("floor", "tributary", "tributary-f32", "grpc-cpp", "grpc-python")  # of the secondary workloads without FULL


def flag(name):
    return SETTINGS.get(name, "") not in ("", "0")


class Bench:
    def __init__(self, out):
        self.out, self.lines, self.machine, self.began = out, [], measure.machine(), time.monotonic()
        os.makedirs(os.path.dirname(out), exist_ok=True)
        open(out, "w").close()
        self.only = [w for w in SETTINGS.get("ONLY", "").split(",") if w]
        self.systems = [w for w in SETTINGS.get("SYSTEMS", "").split(",") if w]

    def emit(self, line):
        line = {**line, **self.machine}
        self.lines.append(line)
        with open(self.out, "a") as f:  # at once: what is there stays when a later workload fails
            f.write(json.dumps(line) + "\n")
        print("  " + report.short(line), flush=True)

    def wants(self, name):
        return not self.only or name in self.only

    def crew(self, few=False):
        return [c() for c in CREW if (not self.systems or c.name in self.systems) and (not few or c.name in FEW)]

    def micro(self, program):
        print(f"== {program}", flush=True)
        out = subprocess.run([os.path.join(systems.PROGRAMS, program)], capture_output=True, text=True, timeout=240)
        for text in out.stdout.splitlines():
            if text.startswith("{"):
                self.emit({"system": "tributary", **json.loads(text)})
        if out.returncode not in (0, 77):
            print(f"  {program} exited with {out.returncode}: {out.stderr[-500:]}", flush=True)

    def ingest(self, mb, updates, repeat, slow, few=False):
        print(f"== ingest: {updates} updates of {mb} MB, {repeat} rounds each in turn", flush=True)
        work = systems.Work("ingest", int(mb * 1e6 / 4), updates)
        try:
            self.emit({"system": "limit", **ingest.pass_ms(work.elements)})
            ingest.Ingest(work, self.crew(few), repeat, self.emit, {name: slow for name in SLOW}).run()
        finally:
            work.close()

    def ingests(self):
        if flag("QUICK"):
            plan = [(44.7, 8, 3, 1)]
        elif flag("FULL"):
            plan = [(mb, n, 3, 1) for mb in SIZES_MB for n in (8, 20, 60)]
        else:
            plan = [(44.7, 8, 9, 2), (1, 8, 15, 1, True), (83, 8, 5, 1, True), (232, 8, 3, 1, True), (44.7, 20, 3, 1, True),
                    (44.7, 60, 3, 1, True)]
        for what in plan:
            self.ingest(*what)

    def small(self, kb, updates, repeat, slow, few=False):
        print(f"== small: {updates} updates of {kb} KB over 64 connections, {repeat} rounds each in turn", flush=True)
        work = systems.Work("small", kb * 256, updates, conns=64)
        crew = [s for s in self.crew(few) if "small" in s.workloads and s.name != "tributary-f32"]
        try:
            small.Small(work, crew, repeat, self.emit, {name: slow for name in SLOW}).run()
        finally:
            work.close()

    def smalls(self):
        if flag("QUICK"):
            self.small(4, 2000, 3, 1)
        else:
            self.small(4, 10000, 5, 1)
            self.small(64, 10000, 3, 1, not flag("FULL"))
        if not self.systems or "tributary" in self.systems:
            print("== overload: as much as the node takes, then twice that arriving, in turn", flush=True)
            overload.overload(self.emit, 2 if flag("QUICK") else 3, 4 if flag("QUICK") else 6)

    def memory(self, mb, updates, rounds, arena_mb, name):
        print(f"== memory: {rounds} x {updates} updates of {mb} MB through a node of {arena_mb} MB", flush=True)
        work = systems.Work("memory", int(mb * 1e6 / 4), updates, conns=8)
        try:
            small.memory(systems.Tributary(arena_mb * 1000000), work, rounds, self.emit, name, arena_mb)
        finally:
            work.close()
            systems.Tributary.stop_nodes()

    def memories(self):
        if flag("QUICK"):
            for n in (20, 100):
                self.memory(4.47, n, 2, 100, "clients")
            return
        for n in (20, 100):
            self.memory(44.7, n, 2, 1000, "clients")
        self.memory(44.7, 10, 100, 1000, "rounds")

    def run(self):
        try:
            if self.wants("hop") or self.wants("micro"):
                self.micro("hop")
            if self.wants("micro") and not flag("QUICK"):
                for program in ("fold", "spawn"):
                    self.micro(program)
            if self.wants("ingest"):
                self.ingests()
            if self.wants("small"):
                self.smalls()
            systems.Tributary.stop_nodes()  # memory wants a node of its own
            if self.wants("memory"):
                self.memories()
        finally:
            systems.Tributary.stop_nodes()
        report.table(self.lines)
        report.judge(self.lines)
        print(f"{len(self.lines)} lines in {os.path.relpath(self.out, ROOT)} after {time.monotonic() - self.began:.0f} s")


if __name__ == "__main__":
    Bench(os.path.join(ROOT, SETTINGS.get("OUT", "build/bench.jsonl"))).run()
