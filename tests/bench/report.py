# SPDX-License-Identifier: Apache-2.0
"""What the lines of build/bench.jsonl say, for people: a table per workload and a verdict per target."""
import sys

COLUMNS = (("updates", "n"), ("update_mb", "MB"), ("seconds", "s"), ("gb_per_s", "GB/s"),
           ("throughput_to_floor", "of floor"), ("cpu_s_per_gb", "cpu s/GB"), ("cpu_per_gb_to_floor", "x floor"),
           ("throughput_per_cpu_s", "GB/cpu s"), ("after_last_byte_s", "after s"), ("peak_mb", "peak MB"),
           ("bytes_copied", "copied"), ("answers_per_s", "answers/s"), ("p99_us", "p99 us"), ("runs", "runs"))


def short(line):
    """One line on the terminal while it runs."""
    if "skipped" in line:
        return f"{line['system']:14} {line['name']}: skipped, {line['skipped']}"
    if "seconds" in line:
        return (f"{line['system']:14} {line['name']} {line['updates']} x {line['update_mb']} MB: {line['seconds']:.4f} s"
                f" {line['spread']}, cpu {line.get('cpu_s', 0):.4f} s, after the last byte"
                f" {line.get('after_last_byte_s', 0):.4f} s, to floor {line.get('throughput_to_floor')}"
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
