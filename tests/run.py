#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a tier of tests with progress and ends with the counting line.

    run.py unit|system|all BUILD [unit programs | test files]
    run.py priv BUILD [privileged programs]     (a skip is a failure)
"""
import concurrent.futures
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as tree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PRIVILEGED = ["tests/system/test_privileged.py", "tests/system/test_privileged_nodes.py"]
UNIT_LIMIT_S, SYSTEM_LIMIT_S = 120, 300  # per program, per file
TOGETHER = min(8, 2 * (os.cpu_count() or 1))  # they mostly wait: a whole run takes 0.7 of two cores
LAST = os.path.join(ROOT, "build/tests-last.json")  # seconds of each the last time: the longest begin first
# Where there was no last time: those that take longest.
SLOW_FIRST = ("test_functions.py", "test_faults.py", "test_chaos_slice.py", "test_api.py", "test_sentinel.py",
              "test_nodes.py", "test_up.py", "test_limits.py", "test_kube.py", "test_drain.py", "test_gone.py",
              "test_crash.py", "test_failover.py", "test_async.py", "test_memory.py", "test_access.py",
              "test_stragglers.py", "test_tree.py", "test_webhooks.py", "common_tls", "bpf_transport")
passed, failed, skipped = 0, 0, 0


def say(mark, name, seconds, note=""):
    print(f"  {mark:4} {name}  {seconds:.1f} s{'  ' + note if note else ''}", flush=True)


def run_program(path):
    """(path, seconds, output, exit status) of one cmocka program."""
    began = time.monotonic()
    try:
        done = subprocess.run([path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=UNIT_LIMIT_S,
                              stdin=subprocess.DEVNULL, cwd=ROOT)
        out, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as e:
        out, code = (e.stdout or b"").decode(errors="replace") + "\n*** timed out\n", 124
    return path, time.monotonic() - began, out, code


def judge(path, seconds, out, code):
    global passed, failed, skipped
    name = os.path.relpath(path, ROOT).split("/", 2)[-1]
    ok = len(re.findall(r"^\[ +OK \]", out, re.M))
    bad = len(set(re.findall(r"^\[  FAILED  \] (?!\d+ test)(\S+)", out, re.M)))
    idle = len(set(re.findall(r"^\[  SKIPPED \] (?!\d+ test)(\S+)", out, re.M)))
    if code == 77:
        skipped += 1
        say("skip", name, seconds, (out.strip().splitlines() or ["no reason given"])[-1])
        return
    passed += ok
    skipped += idle
    if code == 0 and bad == 0 and ok + idle > 0:
        say("ok", name, seconds, f"{ok} cases" + (f", {idle} skipped" if idle else ""))
        return
    failed += max(bad, 1)
    say("FAIL", name, seconds, f"exit {code}")
    print(out[-6000:], flush=True)


def one_file(path, env):
    """(path, seconds, output, JUnit report or None) of one test file in a process of its own."""
    report = os.path.join(ROOT, "build", f"pytest-{os.path.basename(path)}.xml")
    if os.path.exists(report):
        os.unlink(report)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trib-pytest-") as base:
        try:
            done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", "--tb=short",
                                   f"--basetemp={base}/t", f"--junitxml={report}", path], cwd=ROOT,
                                  env={**os.environ, **env}, timeout=SYSTEM_LIMIT_S, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            out = done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as e:
            out = (e.stdout or b"").decode(errors="replace") + "\n*** timed out\n"
    return path, time.monotonic() - began, out, report if os.path.exists(report) else None


def judge_file(path, seconds, out, report):
    """Counts the cases of a test file; prints the reason of every skip."""
    global passed, failed, skipped
    good = bad = idle = 0
    for case in tree.parse(report).iter("testcase") if report else ():
        kinds = {child.tag for child in case}
        bad += bool(kinds & {"failure", "error"})
        idle += "skipped" in kinds
        good += not kinds & {"failure", "error", "skipped"}
    bad += report is None
    passed, failed, skipped = passed + good, failed + bad, skipped + idle
    say("FAIL" if bad else "ok", path, seconds, f"{good} cases" + (f", {idle} skipped" if idle else ""))
    if bad:
        print(out[-20000:], flush=True)
    elif idle:
        print("\n".join(line for line in out.splitlines() if line.startswith("SKIPPED")), flush=True)


def run_all(programs, files, env, together=TOGETHER):
    """cmocka programs and test files, `together` at a time, the longest first."""
    last = {}
    with contextlib.suppress(OSError, ValueError), open(LAST) as f:
        last = json.load(f)

    def seconds(path):
        name = os.path.basename(path)
        return last.get(name, 60 - SLOW_FIRST.index(name) if name in SLOW_FIRST else 5)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        tasks = {pool.submit(run_program if p in programs else one_file, p, *([] if p in programs else [env])): p
                 for p in sorted([*programs, *files], key=lambda p: (-seconds(p), p))}
        for task in concurrent.futures.as_completed(tasks):
            result = task.result()
            last[os.path.basename(result[0])] = round(result[1], 1)
            (judge if tasks[task] in programs else judge_file)(*result)
    with contextlib.suppress(OSError), open(LAST, "w") as f:
        json.dump(last, f)
    print(f"  {time.monotonic() - began:.0f} s, {together} at a time", flush=True)


def main():
    global failed, skipped
    tier, build, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    env = {"TRIBUTARY_BIN": os.path.join(ROOT, build, "bin"), "TRIBUTARY_TIER": tier, "PYTHONDONTWRITEBYTECODE": "1"}
    system = sorted(os.path.join("tests/system", f) for f in os.listdir(os.path.join(ROOT, "tests/system"))
                    if f.startswith("test_") and f.endswith(".py"))
    print(f"== tier {tier} ({build})", flush=True)
    if tier in ("unit", "all", "system"):
        files = (rest if tier == "system" and rest else system) if tier != "unit" else []
        run_all(rest if tier != "system" else [], [f for f in files if f not in PRIVILEGED], env)
    if tier == "priv":
        run_all(rest, [f for f in system if f in PRIVILEGED], env, 1)
        if skipped:
            print(f"*** {skipped} skipped: in the privileged tier that is a failure", flush=True)
            failed, skipped = failed + skipped, 0
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
