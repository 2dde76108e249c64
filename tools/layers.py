#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks every #include against tools/layers.txt. Exit 1 when one is out of its layer."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def table():
    layers, doors = {}, []
    for line in open(os.path.join(ROOT, "tools/layers.txt")):
        line = line.split("#")[0].strip()
        if line.startswith("door "):
            pattern, files = line[5:].rsplit(": ", 1)
            doors.append((re.compile(pattern), set(files.split())))
        elif line:
            folder, allowed = line.split(":")
            layers[folder] = set(allowed.split())
    return layers, doors


def room(path, layers):
    """The longest folder of the table that holds path."""
    found = [f for f in layers if path.startswith(f + "/")]
    return max(found, key=len) if found else None


def main():
    layers, doors = table()
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    bad = 0
    for path in files:
        here = room(path, layers)
        for n, line in enumerate(open(os.path.join(ROOT, path), errors="replace"), 1):
            m = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not m:
                continue
            there = room(m[2], layers)
            if here is None:
                print(f"lint: {path}: in no known folder"); bad = 1; break
            if m[1] == '"' and "/" in m[2] and there and there not in layers[here]:
                print(f"lint: {path}:{n}: {here} may not include {m[2]}"); bad = 1
            if path.endswith(".bpf.c") or path.startswith("tests/"):
                continue
            for pattern, allowed in doors:
                if m[1] == "<" and pattern.match(m[2]) and path not in allowed:
                    print(f"lint: {path}:{n}: {m[2]} only through {' '.join(sorted(allowed))}"); bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
