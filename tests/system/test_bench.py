# SPDX-License-Identifier: Apache-2.0
"""The bench's own code on tiny sizes: what `make bench` measures with cannot rot unseen. No figure is judged."""
import os
import subprocess
import sys

import cluster
import pytest

sys.path.insert(0, os.path.join(cluster.ROOT, "tests/bench"))

import ingest  # noqa: E402
import report  # noqa: E402
import small  # noqa: E402
import systems  # noqa: E402

FIELDS = {"system", "name", "update_mb", "updates", "seconds", "cpu_s", "peak_mb", "after_last_byte_s", "bytes_copied",
          "throughput_to_floor", "cpu_per_gb_to_floor", "throughput_per_cpu_s", "spread", "runs"}


class Broken(systems.Floor):
    """A system that ends in its second round."""
    name, workloads = "broken", ("ingest",)

    def round(self):
        self.process.kill()
        return super().round()


@pytest.fixture(scope="module")
def programs():
    systems.PROGRAMS = os.path.join(os.path.dirname(cluster.BIN.rstrip("/")), "tests/bench")
    build = os.path.relpath(os.path.dirname(cluster.BIN.rstrip("/")), cluster.ROOT)
    words = [os.path.join(build, "tests/bench", p) for p in ("floor", "sender")]
    flavour = os.path.basename(build)
    subprocess.run(["make", "-s", *([f"SANITIZE={flavour}"] if flavour in ("address", "thread") else []), *words],
                   cwd=cluster.ROOT, check=True, timeout=120, capture_output=True)
    yield
    systems.Tributary.stop_nodes()


def test_every_field_of_a_line_is_measured(programs):
    lines = []
    told = lambda line: lines.append(report.complete(line))  # noqa: E731
    work = systems.Work("ingest", 4099, 3)
    try:
        told({"system": "limit", **ingest.pass_ms(work.elements)})
        crew = [systems.Floor(), systems.Tributary(256 << 20), systems.TributaryF32(256 << 20), Broken()]
        ingest.Ingest(work, crew, 1, told).run()
    finally:
        work.close()
    work = systems.Work("small", 256, 20, conns=4)
    try:
        small.Small(work, [systems.Floor(), systems.Tributary(256 << 20)], 1, told).run()
    finally:
        work.close()
    work = systems.Work("memory", 4099, 4, conns=2)
    try:
        small.memory(systems.Tributary(256 << 20), systems.Floor(), work, 2, told, "rounds", 256)
    finally:
        work.close()
    lost = [x for x in lines if "failed" in x]
    assert [x["system"] for x in lost] == ["broken"], lost
    assert report.incomplete(lines) == []
    assert report.incomplete([{**lines[1], "cpu_s": None}])
    rows = [x for x in lines if x["name"] in ("ingest", "small") and "failed" not in x]
    assert [x["system"] for x in rows] == ["floor", "tributary", "tributary-f32", "floor", "tributary"]
    for x in rows:
        assert FIELDS <= set(x), FIELDS - set(x)
        assert x["seconds"] > 0 and x["cpu_s"] > 0 and x["peak_mb"] > 0 and x["throughput_to_floor"] > 0, x
        assert x["bytes_copied"] == 0, x
        assert x["seconds"] >= x["after_last_byte_s"] > -0.05, x  # the floor may be done before send() returns
    assert rows[-1]["p99_us_at_share"] > 0 and rows[-1]["receipts_per_gateway_cpu_s"] > 0
    report.table(lines)
    report.judge(lines)
    assert report.verdicts(lines)


def test_the_floor_averages_what_it_was_sent(programs):
    """It answers every update and publishes once per `updates` of them, also when frames arrive in odd pieces."""
    work = systems.Work("ingest", 70001, 5, conns=2)
    floor = systems.Floor()
    try:
        floor.start(work)
        for _ in range(2):
            row = floor.round()
            assert min(row["published_ns"], row["last_byte_ns"]) > row["began_ns"]
        assert floor.lines.empty()
    finally:
        floor.stop()
        work.close()
