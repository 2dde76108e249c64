# SPDX-License-Identifier: Apache-2.0
"""Small updates: receipts a second at full speed (closed loop), then latency at a share of that (open loop)."""
import time

import ingest
import measure


class Small(ingest.Ingest):
    """An Ingest of small updates; tells per-core numbers of the gateway and the latency at 70 % of the peak too."""

    def __init__(self, work, crew, repeat, emit, fewer=None, share=0.7):
        self.share, self.calm = share, {}
        super().__init__(work, crew, repeat, emit, fewer, "small")

    def lines(self, peaks):
        out = super().lines(peaks)
        for line in out:
            gateway = line.get("cpu_s_by_process", {}).get("tributary-gatew")
            if gateway:
                line["receipts_per_gateway_cpu_s"] = round(self.work.updates / gateway, 1)
        for system in self.crew:
            if hasattr(system, "prepare") and system.name not in self.lost:
                full = next(line for line in out if line["system"] == system.name)
                rate = self.share * full["answers_per_s"]
                system.prepare()
                told = system.upload(system.ready, rate)
                full.update(rate_at_share=round(rate, 1), share=self.share, p50_us_at_share=told["p50_us"],
                            p99_us_at_share=told["p99_us"], p999_us_at_share=told["p999_us"],
                            retries_at_share=told["retries"])
        return out


def memory(system, work, rounds, emit, name, arena_mb, limit_s=180):
    """Peak memory of `rounds` rounds: {first, last, highest after the first, MB}; how flat they are. After limit_s (a
    starved machine) no further round is begun: the line tells how many there were."""
    system.start(work)
    try:
        seen, took, spent, began = [], [], [], time.monotonic()
        while len(seen) < rounds and (len(seen) < 2 or time.monotonic() < began + limit_s):
            system.prepare()
            system.refresh()
            before, watch = measure.cpu(system.pids()), measure.Peak(system.pids, 0.02)
            row = system.upload(system.ready)
            system.refresh()
            seen.append(watch.stop())
            took.append((row["published_ns"] - row["began_ns"]) / 1e9)
            spent.append(measure.cpu(system.pids()) - before)
        later = seen[1:] or seen
        emit({"system": system.name, "name": "memory", "what": name, "update_mb": round(work.mb, 3),
              "updates": work.updates * len(seen), "updates_per_round": work.updates, "conns": work.conns,
              "seconds_per_round": ingest.median(took), "seconds": round(sum(took), 3),
              "cpu_s": round(sum(spent), 3), "rounds": len(seen), "rounds_wanted": rounds, "arena_mb": arena_mb,
              "peak_mb": round(max(seen), 1), "first_mb": round(seen[0], 1), "last_mb": round(seen[-1], 1),
              "flatness": round(max(later) / min(later) - 1, 4), "runs": len(seen),
              "value": round(max(seen), 1), "unit": "MB", "spread": [round(min(later), 1), round(max(later), 1)]})
    finally:
        system.stop()
