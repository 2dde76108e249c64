# SPDX-License-Identifier: Apache-2.0
"""Zero copies, seen from outside: strace on the gateway counts where recv puts its bytes. Every payload byte must land
in the job's data memfd, none in the heap; and the gateway's own counter must agree."""
import os
import re
import shutil
import subprocess
import time

import pytest

from cluster import Job, Node


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_every_payload_byte_is_received_into_the_segment():
    with Node("--workers", "1") as node:
        job = Job(node, size=1 << 20, clients=4, seed=80)
        job.report(0)  # the segment is mapped now
        pid = node.pid("gateway")
        trace = os.path.join(node.dir, "trace")
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(pid), "-o", trace, "-s", "0", "-e", "raw=all", "-e",
                                   "trace=recvfrom,recvmsg,read,readv,preadv,splice,mmap"], stderr=subprocess.PIPE)
        time.sleep(1.0)
        if tracer.poll() is not None:
            pytest.skip("strace may not attach here: " + tracer.stderr.read().decode()[:200])
        with open(f"/proc/{pid}/maps") as f:
            ranges = [(int(a, 16), int(b, 16)) for a, b in
                      (m[1].split("-") for m in re.finditer(r"^(\S+) .*memfd:tributary-data.*$", f.read(), re.M))]
        assert ranges
        before = node.metric("gateway", "tributary_payload_bytes_copied_total")
        for c in (1, 2, 3):
            job.report(c)
        assert node.metric("gateway", "tributary_payload_bytes_copied_total") == before == 0
        tracer.terminate()
        tracer.wait(10)
        job.check(job.published(1))
        inside = outside = vectored = 0
        with open(trace) as f:
            for line in f:
                m = re.search(r"(recvfrom|read|readv|recvmsg)\((0x[0-9a-f]+|\d+), (0x[0-9a-f]+|\d+).* = (0x[0-9a-f]+|\d+)", line)
                if not m:
                    continue
                n = int(m[4], 0)
                if m[1] in ("readv", "recvmsg"):
                    vectored += n if n < 1 << 62 else 0
                elif any(a <= int(m[3], 0) < b for a, b in ranges):
                    inside += n if n < 1 << 62 else 0
                elif n < 1 << 62 and not re.search(r"recvfrom\([^)]*0x2[,)]", line):
                    outside += n
        payload = 3 * (4 << 20)
        assert inside + vectored >= payload, (inside, vectored, payload)
        assert outside < 256 << 10, f"{outside} bytes were received elsewhere (heads, Redis and doorbells only)"
        print(f"{inside} bytes into the segment by recv, {vectored} by vectors, {outside} elsewhere")
