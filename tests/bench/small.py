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
                self.attempt(system, lambda s=system, x=full: x.update(self.at_share(s, self.share * x["answers_per_s"])))
        return out

    def at_share(self, system, rate):
        system.prepare()
        told = system.upload(system.ready, rate)
        return {"rate_at_share": round(rate, 1), "share": self.share, "retries_at_share": told["retries"],
                **{f"{k}_at_share": told[k] for k in ("p50_us", "p99_us", "p999_us")}}


def watched(system):
    """A round: (highest memory in MB, seconds, processor seconds)"""
    system.prepare()
    system.refresh()
    before, watch = measure.cpu(system.pids()), measure.Peak(system.pids, 0.02)
    row = system.upload(system.ready)
    system.refresh()
    return watch.stop(), (row["published_ns"] - row["began_ns"]) / 1e9, measure.cpu(system.pids()) - before


def against(system, floor, work, pairs=3):
    """The fields that tell `system` against the floor, of rounds that nobody watches."""
    floor.start(work)
    try:
        ingest.one(floor)
        rows = [(ingest.one(system), ingest.one(floor)) for _ in range(pairs)]
    finally:
        floor.stop()
    speed, cost = [f["seconds"] / r["seconds"] for r, f in rows], [r["cpu"] / f["cpu"] for r, f in rows]
    return {"throughput_to_floor": ingest.median(speed, 3), "throughput_to_floor_spread": ingest.spread(speed, 3),
            "cpu_per_gb_to_floor": ingest.median(cost, 3), "cpu_per_gb_to_floor_spread": ingest.spread(cost, 3)}


def memory(system, floor, work, rounds, emit, name, arena_mb, limit_s=180):
    """Peak memory of `rounds` rounds: {first, last, highest after the first, MB}; how flat they are. After limit_s (a
    starved machine) no further round is begun: the line tells how many there were."""
    system.start(work)
    try:
        rows, began = [], time.monotonic()
        while len(rows) < rounds and (len(rows) < 2 or time.monotonic() < began + limit_s):
            rows.append(watched(system))
        seen, took, spent = zip(*rows)
        later = seen[1:] or seen
        emit({"system": system.name, "name": "memory", "what": name, "update_mb": round(work.mb, 3),
              "updates": work.updates * len(seen), "updates_per_round": work.updates, "conns": work.conns,
              "seconds_per_round": ingest.median(took), "seconds": round(sum(took), 3),
              "cpu_s": round(sum(spent), 3), "rounds": len(seen), "rounds_wanted": rounds, "arena_mb": arena_mb,
              "peak_mb": round(max(seen), 1), "first_mb": round(seen[0], 1), "last_mb": round(seen[-1], 1),
              "flatness": round(max(later) / min(later) - 1, 4), "runs": len(seen), "bytes_copied": system.copied(),
              **against(system, floor, work),
              "value": round(max(seen), 1), "unit": "MB", "spread": [round(min(later), 1), round(max(later), 1)]})
    finally:
        system.stop()
