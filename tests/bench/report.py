# SPDX-License-Identifier: Apache-2.0
"""What the lines of build/bench.jsonl say, for people: a table per workload and a verdict per target."""
import sys

COLUMNS = (("updates", "n"), ("update_mb", "MB"), ("seconds", "s"), ("gb_per_s", "GB/s"),
           ("throughput_to_floor", "of floor"), ("cpu_s_per_gb", "cpu s/GB"), ("cpu_per_gb_to_floor", "x floor"),
           ("throughput_per_cpu_s", "GB/cpu s"), ("after_last_byte_s", "after s"), ("after_received_s", "read s"),
           ("peak_mb", "peak MB"), ("bytes_copied", "copied"), ("answers_per_s", "answers/s"), ("p99_us", "p99 us"),
           ("runs", "runs"))
# Two clocks: at the client's last send() many megabytes still wait in sockets, which the floor has to fold as well.
AFTER = (("after_last_byte_s", "sent"), ("after_received_s", "read by the server"))
WORKLOADS = ("ingest", "hop", "small", "memory")
FIELDS = ("system", "name", "update_mb", "updates", "seconds", "cpu_s", "peak_mb", "throughput_to_floor",
          "cpu_per_gb_to_floor", "spread", "bytes_copied")
UNKNOWN = ("bytes_copied",)  # of who does not tell: somebody else's programs


def complete(line):
    """With every field, null for what there is none of (a micro-benchmark has no updates, what was skipped no seconds)."""
    return {**dict.fromkeys(FIELDS), **line}


def incomplete(lines):
    """What lines of the workloads lack: [text]"""
    out = []
    for x in lines:
        if x["name"] in WORKLOADS and "skipped" not in x and "failed" not in x:
            ours = x["system"] == "floor" or x["system"].startswith("tributary")
            missing = [f for f in FIELDS if x[f] is None and (ours or f not in UNKNOWN)]
        else:
            missing = [f for f in ("system", "name") if x[f] is None]
        if missing:
            out.append(f"{x['system']} {x['name']} {x['updates']} x {x['update_mb']} MB: without {', '.join(missing)}")
    return out


def short(line):
    """One line on the terminal while it runs."""
    for how in ("skipped", "failed"):
        if how in line:
            return f"{line['system']:14} {line['name']}: {how}, {line[how]}"
    if line["name"] in ("ingest", "small"):
        return (f"{line['system']:14} {line['name']} {line['updates']} x {line['update_mb']} MB: {line['seconds']:.4f} s"
                f" {line['spread']}, cpu {line.get('cpu_s', 0):.4f} s, after the last byte"
                f" {line.get('after_last_byte_s', 0):.4f} s, after it was read {line.get('after_received_s', 0):.4f} s,"
                f" to floor {line.get('throughput_to_floor')} / cpu {line.get('cpu_per_gb_to_floor')}")
    return f"{line.get('system', ''):14} {line['name']}: {line.get('value')} {line.get('unit', '')} {line.get('spread', '')}"


def cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def table(lines, out=sys.stdout):
    for name in ("ingest", "small"):
        rows = [line for line in lines if line["name"] == name and line["seconds"]]
        if not rows:
            continue
        print(f"\n{name}:", file=out)
        print(f"{'system':14}" + "".join(f"{title:>10}" for _, title in COLUMNS), file=out)
        last = None
        for line in rows:
            key = line["updates"], line["update_mb"]
            if last not in (None, key):
                print("", file=out)
            last = key
            print(f"{line['system']:14}" + "".join(f"{cell(line.get(k)):>10}" for k, _ in COLUMNS), file=out)
    for line in lines:
        if "skipped" in line or "failed" in line:
            print(short(line), file=out)


def verdicts(lines):
    """[(target, value, met, the floor's own value or None)] for everything the lines can judge."""
    return [*ingest_verdicts(lines), *hop_verdicts(lines), *small_verdicts(lines), *memory_verdicts(lines)]


def ingest_verdicts(lines):
    out = []
    ingest = {(x["update_mb"], x["updates"], x["system"]): x for x in lines if x["name"] == "ingest" and x["seconds"]}
    passes = {x["update_mb"]: x["spread"][0] for x in lines if x["name"] == "pass"}  # the quietest: the memory's
    for (mb, n, system), x in ingest.items():
        if not system.startswith("tributary") or mb < 44:
            continue
        what, floor = f"{system}, {n} x {mb} MB", ingest[mb, n, "floor"]
        out.append((f"{what}: throughput of the floor >= 0.80", x["throughput_to_floor"], x["throughput_to_floor"] >= 0.8, 1))
        out.append((f"{what}: CPU per GB to the floor <= 1.5 (aim 1.2)", x["cpu_per_gb_to_floor"],
                    x["cpu_per_gb_to_floor"] <= 1.5, 1))
        for other, factor, aim in (("grpc-cpp", 2.5, " (aim 3.5)"), ("grpc-cpp-plain", 2.5, " (aim 3.5)"),
                                   ("grpc-python", 6, "")):
            base = ingest.get((mb, n, other))
            if base:
                ratio, limit = (round(s["throughput_per_cpu_s"] / base["throughput_per_cpu_s"], 2) for s in (x, floor))
                out.append((f"{what}: GB per CPU second against {other} >= {factor}{aim}", ratio, ratio >= factor, limit))
        for field, since in AFTER:
            if mb in passes and field in x:
                ratio, limit = (round(s[field] * 1e3 / passes[mb], 1) if field in s else None for s in (x, floor))
                out.append((f"{what}: after the last byte ({since}) <= 1.5 passes over one update", ratio, ratio <= 1.5,
                            limit))
    return out


def hop_verdicts(lines):
    out = []
    hops = [x for x in lines if x["name"] == "hop" and x["seconds"]]
    us = {t: [x["value"] for x in hops if x["transport"] == t] for t in sorted({x["transport"] for x in hops})}
    for transport, values in us.items():
        if transport != "floor":
            floor = us["floor"]
            out.append((f"one hop, {transport}, worst size: < 100 us", max(values), max(values) < 100, max(floor)))
            out.append((f"one hop, {transport}: largest to smallest median over sizes < 2 (constant)",
                        round(max(values) / min(values), 2), max(values) < 2 * min(values),
                        round(max(floor) / min(floor), 2)))
    return out


def small_verdicts(lines):
    out = []
    floor = {(x["updates"], x["update_mb"]): x for x in lines if x["name"] == "small" and x["system"] == "floor"}
    for x in lines:
        if x["name"] == "small" and x["system"] == "tributary" and x["update_mb"] < 0.01 and x["seconds"]:
            rate, best = x.get("receipts_per_gateway_cpu_s", 0), floor[x["updates"], x["update_mb"]]
            out.append(("small (4 KB): receipts per second of gateway CPU >= 10000", rate, rate >= 10000,
                        round(best["updates"] / best["cpu_s"], 1)))
            out.append(("small (4 KB): receipts per second >= 10000", x["answers_per_s"], x["answers_per_s"] >= 10000,
                        best["answers_per_s"]))
            p99 = x.get("p99_us_at_share", 0)
            out.append(("small (4 KB): p99 at 70 % of peak < 20000 us", p99, 0 < p99 < 20000, None))
        if x["name"] == "overload":
            out.append(("small (4 KB), twice the peak arriving: goodput of the peak >= 0.9", x["value"], x["value"] >= 0.9,
                        None))
            bad = len(x["died"]) + x["lost"] + x["double"] + x["unintended_errors"]
            out.append(("small (4 KB), twice the peak arriving: died, lost, counted twice, other errors = 0", bad, bad == 0,
                        None))
    return out


def memory_verdicts(lines):
    out = []
    memory = [x for x in lines if x["name"] == "memory" and "flatness" in x]
    for x in memory:
        if x["what"] == "rounds":
            whole = x["rounds"] >= x.get("rounds_wanted", 0)
            out.append((f"memory, {x['rounds']} rounds of {x['updates_per_round']} x {x['update_mb']} MB: flat within 0.05"
                        + ("" if whole else " (cut short by its time limit)"), x["flatness"], whole and x["flatness"] <= 0.05,
                        None))
            out.append((f"memory, {x['rounds']} rounds: peak within the configured {x['arena_mb']} MB and 100 MB of programs",
                        x["peak_mb"], x["peak_mb"] <= x["arena_mb"] + 100, None))
    clients = [x["peak_mb"] for x in memory if x["what"] == "clients"]
    if len(clients) > 1:
        ratio = round(max(clients) / min(clients), 3)
        out.append(("memory, few clients to many, same node: peak within 1.05", ratio, ratio <= 1.05, None))
    return out


def judge(lines, out=sys.stdout):
    """Where the floor itself has such a value it is told beside: what this machine has to give."""
    found = verdicts(lines)
    if found:
        print("\ntargets:", file=out)
    for target, value, met, floor in found:
        print(f"  {'met   ' if met else 'MISSED'} {target}: {value}"
              + ("" if floor in (None, 1) else f" (the floor itself: {floor})"), file=out)
