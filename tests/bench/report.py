# SPDX-License-Identifier: Apache-2.0
"""What the lines of build/bench.jsonl say, for people: a table per workload and a verdict per target."""
import sys

COLUMNS = (("updates", "n"), ("update_mb", "MB"), ("seconds", "s"), ("gb_per_s", "GB/s"),
           ("throughput_to_floor", "of floor"), ("cpu_s_per_gb", "cpu s/GB"), ("cpu_per_gb_to_floor", "x floor"),
           ("throughput_per_cpu_s", "GB/cpu s"), ("after_last_byte_s", "after s"), ("after_received_s", "read s"), ("peak_mb", "peak MB"),
           ("bytes_copied", "copied"), ("answers_per_s", "answers/s"), ("p99_us", "p99 us"), ("runs", "runs"))
# Two clocks: at the client's last send() many megabytes still wait in sockets, which the floor has to fold as well.
AFTER = (("after_last_byte_s", "sent"), ("after_received_s", "read by the server"))


def short(line):
    """One line on the terminal while it runs."""
    if "skipped" in line:
        return f"{line['system']:14} {line['name']}: skipped, {line['skipped']}"
    if "seconds" in line and line["name"] in ("ingest", "small"):
        return (f"{line['system']:14} {line['name']} {line['updates']} x {line['update_mb']} MB: {line['seconds']:.4f} s"
                f" {line['spread']}, cpu {line.get('cpu_s', 0):.4f} s, after the last byte"
                f" {line.get('after_last_byte_s', 0):.4f} s, after it was read {line.get('after_received_s', 0):.4f} s, to floor {line.get('throughput_to_floor')}"
                f" / cpu {line.get('cpu_per_gb_to_floor')}")
    return f"{line.get('system', ''):14} {line['name']}: {line.get('value')} {line.get('unit', '')} {line.get('spread', '')}"


def cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def table(lines, out=sys.stdout):
    for name in ("ingest", "small"):
        rows = [line for line in lines if line["name"] == name and "seconds" in line]
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
        if "skipped" in line:
            print(short(line), file=out)


def verdicts(lines):
    """[(target, value, met)] for everything the lines can judge."""
    out = []
    ingest = {(x["update_mb"], x["updates"], x["system"]): x for x in lines if x["name"] == "ingest" and "seconds" in x}
    passes = {x["update_mb"]: x["spread"][0] for x in lines if x["name"] == "pass"}  # the quietest: the memory's
    for (mb, n, system), x in ingest.items():
        if not system.startswith("tributary") or mb < 44 or "throughput_to_floor" not in x:
            continue
        what = f"{system}, {n} x {mb} MB"
        out.append((f"{what}: throughput of the floor >= 0.80", x["throughput_to_floor"], x["throughput_to_floor"] >= 0.8))
        out.append((f"{what}: CPU per GB to the floor <= 1.5", x["cpu_per_gb_to_floor"], x["cpu_per_gb_to_floor"] <= 1.5))
        for other, factor in (("grpc-cpp", 2.5), ("grpc-python", 6)):
            base = ingest.get((mb, n, other))
            if base:
                ratio = round(x["throughput_per_cpu_s"] / base["throughput_per_cpu_s"], 2)
                out.append((f"{what}: GB per CPU second against {other} >= {factor}", ratio, ratio >= factor))
        for field, since in AFTER:
            if mb in passes and field in x:
                ratio = round(x[field] * 1e3 / passes[mb], 1)
                out.append((f"{what}: after the last byte ({since}) <= 1.5 passes over one update", ratio, ratio <= 1.5))
    hops = [x for x in lines if x["name"] == "hop" and "value" in x]
    for transport in sorted({x["transport"] for x in hops}):
        values = [x["value"] for x in hops if x["transport"] == transport]
        out.append((f"one hop, {transport}, worst size: < 100 us", max(values), max(values) < 100))
        out.append((f"one hop, {transport}: largest to smallest median over sizes < 2 (constant)",
                    round(max(values) / min(values), 2), max(values) < 2 * min(values)))
    for x in lines:
        if x["name"] == "small" and x["system"] == "tributary" and x["update_mb"] < 0.01:
            rate = x.get("receipts_per_gateway_cpu_s", 0)
            out.append(("small (4 KB): receipts per second of gateway CPU >= 10000", rate, rate >= 10000))
            out.append(("small (4 KB): receipts per second >= 10000", x["answers_per_s"], x["answers_per_s"] >= 10000))
            p99 = x.get("p99_us_at_share", 0)
            out.append(("small (4 KB): p99 at 70 % of peak < 20000 us", p99, 0 < p99 < 20000))
        if x["name"] == "overload":
            out.append(("small (4 KB), twice the peak arriving: goodput of the peak >= 0.9", x["value"], x["value"] >= 0.9))
            bad = len(x["died"]) + x["lost"] + x["double"] + x["unintended_errors"]
            out.append(("small (4 KB), twice the peak arriving: died, lost, counted twice, other errors = 0", bad, bad == 0))
    memory = [x for x in lines if x["name"] == "memory" and "flatness" in x]
    for x in memory:
        if x["what"] == "rounds":
            whole = x["rounds"] >= x.get("rounds_wanted", 0)
            out.append((f"memory, {x['rounds']} rounds of {x['updates_per_round']} x {x['update_mb']} MB: flat within 0.05"
                        + ("" if whole else " (cut short by its time limit)"), x["flatness"], whole and x["flatness"] <= 0.05))
            out.append((f"memory, {x['rounds']} rounds: peak within the configured {x['arena_mb']} MB and 100 MB of programs",
                        x["peak_mb"], x["peak_mb"] <= x["arena_mb"] + 100))
    clients = [x["peak_mb"] for x in memory if x["what"] == "clients"]
    if len(clients) > 1:
        ratio = round(max(clients) / min(clients), 3)
        out.append(("memory, few clients to many, same node: peak within 1.05", ratio, ratio <= 1.05))
    return out


def judge(lines, out=sys.stdout):
    found = verdicts(lines)
    if found:
        print("\ntargets:", file=out)
    for target, value, met in found:
        print(f"  {'met   ' if met else 'MISSED'} {target}: {value}", file=out)
