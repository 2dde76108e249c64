# SPDX-License-Identifier: Apache-2.0
"""What a set of processes costs: CPU time, memory, context of the machine. Linux, no privilege needed."""
import ctypes
import os
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TICK = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]


def process_cpu(pid):
    """CPU seconds of a process, all its threads (also ended ones), to the nanosecond; 0 when it is gone."""
    t = _Timespec()
    clock = ctypes.c_int((~pid << 3) | 2).value  # CPUCLOCK_SCHED of the process
    if _libc.clock_gettime(clock, ctypes.byref(t)):
        return 0.0
    return t.s + t.ns / 1e9


def children_cpu(pid):
    """Of the children it has waited for (ticks of 10 ms)."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / TICK


def cpu(pids):
    return sum(process_cpu(p) + children_cpu(p) for p in pids)


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return "gone"


def cpu_by_name(pids):
    out = {}
    for p in pids:
        name = name_of(p)
        out[name] = out.get(name, 0.0) + process_cpu(p) + children_cpu(p)
    return out


def private_bytes(pid):
    """Anonymous memory (what only this process has); shared objects are counted apart, once."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return sum(int(line.split()[1]) << 10 for line in f if line.startswith("RssAnon"))
    except OSError:
        return 0


def shared_bytes(pids):
    """Memory of every memfd these processes hold, each once, mapped or not."""
    seen = {}
    for pid in pids:
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for fd in fds:
            path = f"/proc/{pid}/fd/{fd}"
            try:
                if os.readlink(path).startswith(("/memfd:", "/dev/shm/")):
                    st = os.stat(path)
                    seen[st.st_dev, st.st_ino] = st.st_blocks * 512
            except OSError:
                pass
    return sum(seen.values())


def memory(pids):
    return sum(map(private_bytes, pids)) + shared_bytes(pids)


class Peak(threading.Thread):
    """Highest `memory` of what `pids()` names, sampled until `stop`."""

    def __init__(self, pids, step_s=0.01):
        super().__init__(daemon=True)
        self.pids, self.step_s, self.bytes, self.samples, self.ending = pids, step_s, 0, 0, threading.Event()
        self.start()

    def run(self):
        while True:
            self.bytes = max(self.bytes, memory(self.pids()))
            self.samples += 1
            if self.ending.wait(self.step_s):
                return

    def stop(self):
        self.ending.set()
        self.join()
        self.bytes = max(self.bytes, memory(self.pids()))
        return self.bytes / 1e6


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "?")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {"git": git.stdout.strip(), "kernel": os.uname().release, "cpu": model, "cores": os.cpu_count(),
            "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}


def steal():
    """(all, stolen, busy by anybody) CPU seconds of the machine so far."""
    with open("/proc/stat") as f:
        v = [int(x) / TICK for x in f.readline().split()[1:9]]
    return sum(v), v[7], sum(v) - v[3] - v[4] - v[7]
