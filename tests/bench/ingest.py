# SPDX-License-Identifier: Apache-2.0
"""Workloads over whole systems: rounds of all of them in turn, so that what is compared is not the machine's mood."""
import contextlib
import json
import os
import statistics
import subprocess
import time

import measure
import systems

SETTLE_S = 0.1  # what a system does after publication counts as its CPU time


def spread(values, digits=4):
    return [round(min(values), digits), round(max(values), digits)]


def median(values, digits=4):
    return round(statistics.median(values), digits)


def pass_ms(elements):
    """One pass of the fold over one update in memory: {value (ms), spread, ..}"""
    out = subprocess.run([os.path.join(systems.PROGRAMS, "floor"), "--pass", str(elements)], capture_output=True,
                         text=True, timeout=120, check=True)
    return json.loads(out.stdout)


def one(system):
    """A round of a system and what it cost."""
    if hasattr(system, "prepare"):
        system.prepare()
        system.refresh()
        run = lambda: system.upload(system.ready)  # noqa: E731
    else:
        run = system.round
    time.sleep(0.02)
    before, stolen = measure.cpu(system.pids()), measure.steal()
    by_name = measure.cpu_by_name(system.pids())
    row = run()
    time.sleep(SETTLE_S)
    if hasattr(system, "refresh"):
        system.refresh()
    now = measure.cpu_by_name(system.pids())
    end, cpu, received = measure.steal(), measure.cpu(system.pids()) - before, system.received_ns(row)
    return {"seconds": (row["published_ns"] - row["began_ns"]) / 1e9,
            "after": (row["published_ns"] - row["last_byte_ns"]) / 1e9,
            "received": (row["published_ns"] - received) / 1e9 if received else None,
            "answered": (row["last_answer_ns"] - row["began_ns"]) / 1e9,
            "cpu": cpu, "client_cpu": row["cpu_s"],
            "by_name": {k: v - by_name.get(k, 0.0) for k, v in now.items()},
            "busy": end[2] - stolen[2], "stolen": end[1] - stolen[1],
            "p50_us": row["p50_us"], "p99_us": row["p99_us"], "retries": row["retries"]}


def peak(system):
    """A round of its own, watched closely (which costs, so it is not timed)."""
    if hasattr(system, "prepare"):
        system.prepare()
    watch = measure.Peak(system.pids)
    if hasattr(system, "prepare"):
        system.upload(system.ready)
        system.refresh()
    else:
        system.round()
    return watch.stop()


class Ingest:
    """`repeat` rounds of every system over one Work, interleaved; `fewer` maps a system to fewer repetitions."""

    def __init__(self, work, crew, repeat, emit, fewer=None, name="ingest"):
        self.work, self.emit, self.repeat, self.fewer, self.name = work, emit, repeat, fewer or {}, name
        self.rows, self.crew, self.lost, self.failed = {}, [], {}, {}
        for system in crew:
            self.attempt(system, lambda s=system: self.begin(s))

    def begin(self, system):
        system.start(self.work)
        self.crew.append(system)
        self.rows[system.name] = []
        one(system)  # the first round touches fresh memory

    def attempt(self, system, what):
        try:
            what()
        except systems.Skipped as e:
            self.lost[system.name] = str(e)
            system.stop()
        except Exception as e:  # noqa: BLE001 - a baseline that breaks is a result, the others go on
            self.lost[system.name] = self.failed[system.name] = f"{e!r}"[:600]
            with contextlib.suppress(Exception):
                system.stop()
            if system.name == "floor":  # nothing to be told against
                self.stop()
                raise
        except BaseException:  # Ctrl-C: nothing stays behind
            self.stop()
            raise

    def run(self):
        for n in range(self.repeat):
            turn = [s for s in self.crew if n < self.fewer.get(s.name, self.repeat) and s.name not in self.lost]
            for system in turn if n % 2 else turn[::-1]:
                self.attempt(system, lambda s=system: self.rows[s.name].append(one(s)))
        peaks = {}
        for system in self.crew:
            if system.name not in self.lost:
                self.attempt(system, lambda s=system: peaks.__setitem__(s.name, peak(s)))
        lines = self.lines(peaks)
        self.stop()
        for line in lines:
            self.emit(line)
        for name, why in self.lost.items():
            self.emit({"system": name, "name": self.name, "update_mb": self.mb(), "updates": self.work.updates,
                       "failed" if name in self.failed else "skipped": why})
        return lines

    def stop(self):
        for system in self.crew:
            if system.name not in self.lost:
                system.stop()

    def mb(self):
        return round(self.work.mb, 4)

    def lines(self, peaks):
        gb, out = self.work.gb, []
        floor = self.rows.get("floor") or []
        for system in self.crew:
            rows = self.rows[system.name]
            if not rows or system.name in self.lost:
                continue
            col = {k: [r[k] for r in rows] for k in rows[0] if k != "by_name"}
            seconds, cpu = statistics.median(col["seconds"]), statistics.median(col["cpu"])
            line = {"system": system.name, "name": self.name, "update_mb": self.mb(), "updates": self.work.updates,
                    "conns": self.work.conns, "seconds": round(seconds, 4), "spread": spread(col["seconds"]),
                    "runs": len(rows), "gb_per_s": round(gb / seconds, 3), "cpu_s": round(cpu, 4),
                    "cpu_spread": spread(col["cpu"]), "cpu_s_per_gb": round(cpu / gb, 4),
                    "throughput_per_cpu_s": round(gb / cpu, 3) if cpu else None,
                    "client_cpu_s": median(col["client_cpu"]), "peak_mb": round(peaks.get(system.name, 0), 1),
                    "after_last_byte_s": median(col["after"], 6), "after_spread": spread(col["after"], 6),
                    "bytes_copied": system.copied(), "answers_per_s": round(len(rows) and self.work.updates
                                                                            / statistics.median(col["answered"]), 1),
                    "p50_us": median(col["p50_us"], 1), "p99_us": median(col["p99_us"], 1),
                    "retries": sum(col["retries"]), "stolen_s": round(sum(col["stolen"]), 2)}
            if None not in col["received"]:
                line.update(after_received_s=median(col["received"], 6), received_spread=spread(col["received"], 6))
            if floor and system.name != "floor":
                pairs = list(zip(rows, floor))
                ratio = [f["seconds"] / r["seconds"] for r, f in pairs]
                line["throughput_to_floor"] = median(ratio, 3)
                line["throughput_to_floor_spread"] = spread(ratio, 3)
                more = [r["cpu"] / f["cpu"] for r, f in pairs]
                line["cpu_per_gb_to_floor"] = median(more, 3)
                line["cpu_per_gb_to_floor_spread"] = spread(more, 3)
            elif system.name == "floor":
                line.update(throughput_to_floor=1.0, cpu_per_gb_to_floor=1.0)
            if len(rows[0]["by_name"]) > 1:
                names = sorted({k for r in rows for k in r["by_name"]})
                line["cpu_s_by_process"] = {k: median([r["by_name"].get(k, 0.0) for r in rows]) for k in names}
            out.append(line)
        return out
