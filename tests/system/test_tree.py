# SPDX-License-Identifier: Apache-2.0
"""The tree inside a node: every shape and policy publishes the same bits as the integer reference, functions are killed
at every level, warm functions serve the next round in whatever role, lazy and just-in-time wait as they should."""
import os
import signal
import subprocess
import threading
import time

import pytest

from cluster import Job, Node, call, request, until

CLIENTS = 24


@pytest.fixture(scope="module")
def node():
    with Node() as n:
        yield n


@pytest.fixture(scope="module")
def slow():
    """A pause after every chunk of a fold, so that a kill can meet one half-way."""
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "3000"}) as n:
        yield n


def job_with(node, hierarchy, size=20011, clients=CLIENTS, slots=64, **more):
    return Job(node, size=size, clients=clients, spec={"hierarchy": hierarchy, "placement": {"slots": slots}}, **more)


def state_of(node, job):
    found = [j for j in node.state()["jobs"] if j["job"] == job.id]
    return found[0] if found else {"functions": [], "phase": "idle", "folded": 0, "pending": 0}


SHAPES = [{"levels": 1}, {"levels": 2, "leaves": 1}, {"levels": 2, "leaves": 3}, {"levels": 3, "leaves": 2},
          {"levels": 3, "leaves": 12}, {"leaves": 7}, {"fan_in": 2, "replan_ms": 10}, {"shards": 3},
          {"shards": 2, "leaves": 3}, {"shards": 2, "levels": 3, "leaves": 4}]


@pytest.mark.parametrize("policy", ["eager", "lazy", "just-in-time"])
def test_every_shape_gives_the_same_bits(node, policy):
    for seed, shape in enumerate(SHAPES):
        base = None
        rounds = 1 if policy == "lazy" else 2  # just-in-time learns from the first
        job = job_with(node, {**shape, "policy": policy}, rounds=rounds, seed=700 + seed)
        for n in range(1, rounds + 1):
            job.report_all(threads=6)
            model = job.published(n)
            job.check(model, n, base)
            base = model
        job.delete()


@pytest.mark.parametrize("policy", ["lazy", "just-in-time"])
def test_updates_wait_for_the_round_to_close(node, policy):
    job = job_with(node, {"policy": policy}, seed=720)
    for client in range(CLIENTS - 1):
        job.report(client)
    until("all but one wait", lambda: state_of(node, job)["pending"] == CLIENTS - 1)
    assert state_of(node, job)["folded"] == 0
    job.report(CLIENTS - 1)
    job.check(job.published(1))
    job.delete()


def test_just_in_time_meets_the_deadline_of_a_round_that_does_not_fill(slow):
    """Twelve of a goal of twenty report; the round ends with its deadline, and by then they are folded. CPU-seconds of
    the policies: make bench-policies."""
    name = "tributary_jit_deadline_total"
    before = slow.metric("agent", name)
    job = Job(slow, size=60000, clients=12, goal=20, quorum=12, rounds=6, seed=729,
              spec={"sync": {"deadline_s": 1.5}, "hierarchy": {"policy": "just-in-time"}, "placement": {"slots": 64}})
    base = job.base
    for number in range(1, 6):
        job.report_all(threads=4)
        model = job.published(number)
        job.check(model, number, base)
        base = model
        assert job.round(number)["accepted"] == 12
        if slow.metric("agent", name) > before:
            break  # a busy machine may look away at the moment when it matters
    assert slow.metric("agent", name) > before
    job.delete()


def test_waiting_updates_are_folded_when_slots_get_few(node):
    job = job_with(node, {"policy": "lazy"}, slots=3, seed=721)
    job.report_all(threads=4)
    job.check(job.published(1))
    job.delete()


def test_warm_functions_are_reused_and_converted(node):
    names = [f"tributary_agg_{n}_total" for n in ("cold_starts", "reuses", "conversions", "folded", "merged")]
    before = {n: node.metric("agent", n) for n in names}
    job = job_with(node, {"levels": 3, "leaves": 4}, rounds=3, seed=722)
    base = job.base
    for n in range(1, 4):
        job.report_all(threads=6)
        model = job.published(n)
        job.check(model, n, base)
        base = model
    until("counters have moved", lambda: node.metric("agent", names[3]) - before[names[3]] >= 2 * CLIENTS)
    after = {n: node.metric("agent", n) - before[n] for n in names}
    assert after[names[0]] <= 5, after          # four leaves and a top, once
    assert after[names[1]] >= 8, after          # in rounds 2 and 3
    assert after[names[2]] >= 2, after          # the leaf that is the middle, every round
    job.delete()


def test_a_start_takes_a_spare_process_when_there_is_one(node):
    name = "tributary_agg_pooled_starts_total"
    before = node.metric("agent", name)
    for attempt in range(5):  # the zygote may be slower than the first update
        job = job_with(node, {}, seed=770 + attempt)
        job.report_all()
        job.check(job.published(1))
        job.delete()
        if node.metric("agent", name) > before:
            return
    assert node.metric("agent", name) > before


def test_a_vector_split_by_coordinates_needs_no_merging(node):
    job = job_with(node, {"shards": 3}, size=50001, rounds=2, seed=726)  # 7 chunks: 2, 2, 3
    job.report_all(threads=6)
    job.check(job.published(1))
    functions = state_of(node, job)["functions"]
    assert [f["shard"] for f in functions] == [0, 1, 2] and {f["role"] for f in functions} == {"top"}
    assert [f["first"] for f in functions] == [0, 2 * 8192, 4 * 8192]
    assert sum(f["elements"] for f in functions) == 50001
    assert all(f["folded"] == CLIENTS and f["merged"] == 0 for f in functions)
    job.delete()


def test_a_model_larger_than_a_function_should_hold_is_split():
    with Node(env={"TRIBUTARY_FUNCTION_BYTES": str(1 << 20)}) as n:
        job = job_with(n, {}, size=400000, clients=4, rounds=2, seed=727)  # sums of 3.2 MB
        job.report_all()
        first = job.published(1)
        job.check(first)
        tree = state_of(n, job)["tree"]
        assert tree["shards"] == 4 and "1 MiB" in tree["shards_why"], tree
        job.report_all()
        job.check(job.published(2), 2, first)
        job.delete()


def test_the_tree_is_told_and_drawn(node):
    job = job_with(node, {"levels": 3, "leaves": 3}, seed=725)  # over after its round: the last picture stays
    job.report_all(threads=6)
    job.check(job.published(1))
    path = f"/v1/jobs/{job.id}/tree"

    def told():
        nodes = call(node.api, "GET", path)["nodes"]
        return nodes and {f["role"] for f in nodes[0]["functions"]} == {"leaf", "middle", "top"} and nodes[0]
    tree = until("the tree is told", told)
    functions = {f["index"]: f for f in tree["functions"]}
    assert tree["node"] == "n1" and tree["levels"] == 3 and "3 leaves, as asked" in tree["why"]
    assert sum(f["folded"] for f in functions.values()) == CLIENTS
    assert sum(f["merged"] for f in functions.values()) == 3
    for f in functions.values():
        assert f["messages"] > 0 and f["cpu_us"] > 0 and f["bytes"] == 64 * f["messages"], f
        assert f["queue_us"] < 300e6, f  # a sane clock, no more
        assert f["fold_us"] + f["merge_us"] <= f["exec_us"] < 300e6, f  # its work is between letter and answer
        above = functions.get(f["parent"])
        assert {"top": f["parent"] == 0, "middle": above and above["role"] == "top",
                "leaf": above and above["role"] in ("middle", "top")}[f["role"]], functions
    done = subprocess.run([os.path.join(node.bin, "tributary"), "tree", job.id, "--api", node.api],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("node n1: round 1") and lines[1].startswith("  why: 3 leaves")
    assert lines[2].startswith("top 1") and lines[3].lstrip().startswith("`- middle"), done.stdout
    assert sum("- leaf" in line for line in lines) == 2
    assert "worked" in lines[2]
    job.delete()
    assert request(node.api, "GET", path)[0] == 404
    for name in ("queue_seconds_count", "queue_seconds_sum", "exec_seconds_total", "message_bytes_total"):
        assert node.metric("agent", f"tributary_agg_{name}") > 0


def test_functions_run_in_control_groups_of_their_own():
    roots = [p for p in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(p + "/cgroup.controllers")]
    group = os.path.join(roots[0], f"trib-{os.getpid()}") if roots else None
    try:
        os.mkdir(group)
    except (OSError, TypeError):
        pytest.skip("no writable cgroup v2 directory")
    try:
        with Node(env={"TRIBUTARY_CGROUP": group}) as n:
            job = job_with(n, {"leaves": 2}, seed=724)
            job.report(0)
            pids = until("functions live", lambda: [f["pid"] for f in state_of(n, job)["functions"] if f["pid"]])
            with open(f"/proc/{pids[0]}/cgroup") as f:
                assert f"{os.path.basename(group)}/fn-" in f.read()
            for client in range(1, CLIENTS):
                job.report(client)
            job.check(job.published(1))
            job.delete()
            until("groups gone", lambda: not [d for d in os.listdir(group) if d.startswith("fn-")])
    finally:
        until("group empty", lambda: not [os.rmdir(os.path.join(group, d)) for d in os.listdir(group)
                                          if d.startswith("fn-")])
        os.rmdir(group)


def kill_in_round(node, job, wanted, kills=3):
    """Kills what wanted(state) names, up to `kills` times, until the round is published: how often."""
    done = 0
    crew = threading.Thread(target=job.report_all, kwargs={"threads": 4, "timeout": 90})
    crew.start()
    end = time.monotonic() + 90
    while done < kills and time.monotonic() < end and job.version() < 1:
        try:
            for pid in wanted(state_of(node, job))[:1]:
                os.kill(pid, signal.SIGKILL)
                done += 1
                time.sleep(0.03)
        except (OSError, AssertionError, KeyError, TypeError):
            pass
        time.sleep(0.005)
    crew.join(120)
    assert not crew.is_alive()
    job.check(job.published(1, timeout=90))
    assert job.round(1)["accepted"] == CLIENTS
    return done


def of_role(role, *phases):
    return lambda s: [f["pid"] for f in s["functions"]
                      if f["pid"] and f["role"] == role and (not phases or s["phase"] in phases)][::-1]


VICTIMS = {"leaf": of_role("leaf", "collecting"), "leaf-handing-over": of_role("leaf", "flushing"),
           "middle": of_role("middle"), "top": of_role("top", "flushing", "finalising")}


@pytest.mark.parametrize("victim,shards", [("leaf", 1), ("leaf", 2), ("leaf-handing-over", 2), ("middle", 1),
                                           ("middle", 2), ("top", 2)])
def test_a_function_killed_at_any_level_loses_nothing(slow, victim, shards):
    for attempt in range(4):  # a slow machine may look away while it matters
        job = job_with(slow, {"levels": 3, "leaves": 3, "shards": shards}, size=60000, seed=740 + attempt)
        killed = kill_in_round(slow, job, VICTIMS[victim])
        job.delete()
        if killed:
            return
    assert killed


@pytest.mark.parametrize("phase,shards", [("collecting", 2), ("flushing", 1), ("flushing", 2)])
def test_the_agent_killed_in_the_middle(slow, phase, shards):
    for attempt in range(4):
        job = job_with(slow, {"levels": 3, "leaves": 3, "shards": shards}, size=60000, seed=750 + attempt)
        killed = kill_in_round(slow, job, lambda s: [slow.pid("agent")] if s["phase"] == phase and
                               s["folded"] + s["pending"] > 4 else [], 1)
        until("node ready again", slow.ready, 30)
        job.delete()
        if killed:
            return
    assert killed
