# SPDX-License-Identifier: Apache-2.0
"""Bounds: slots run out as 503 + Retry-After and clients get through by trying again; memory stays within what was
configured whatever the number of clients; a hundred jobs leave nothing behind."""
import concurrent.futures
import os
import threading
import time

from cluster import Job, Node, until

MIB = 1 << 20


def shared_memory(node):
    """Bytes of memfd pages of the node (each inode once), from the outside: st_blocks of every memfd held."""
    seen = {}
    for pid in node.tree():
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{fd}"
                if "/memfd:tributary" in os.readlink(path):
                    st = os.stat(path)
                    seen[st.st_ino] = st.st_blocks * 512
        except OSError:
            pass
    return len(seen), sum(seen.values())


def private_memory(node):
    total = 0
    for pid in node.tree():
        try:
            with open(f"/proc/{pid}/status") as f:
                if "redis-server" in f.readline():
                    continue
            with open(f"/proc/{pid}/smaps_rollup") as f:
                for line in f:
                    if line.startswith("Anonymous:"):  # models are files: their pages are the cache's
                        total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def test_exhausted_slots_push_back_and_everybody_gets_through():
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "20000"}) as node:
        job = Job(node, size=50000, clients=30, seed=60, spec={"placement": {"slots": 2}})
        refused = []
        ticket = {c: job.selected(c) for c in range(30)}
        stop = time.monotonic() + 60

        def client(c):
            while time.monotonic() < stop:
                status, head, answer = job.put(c, ticket[c])
                if status in (200, 201):
                    return
                assert status == 503 and answer["code"] == "arena-full", (status, answer)
                assert int(head["retry-after"]) >= 1 and answer["retry_after"] > 0, (head, answer)
                refused.append(c)
                time.sleep(answer["retry_after"])

        crew = [threading.Thread(target=client, args=(c,)) for c in range(30)]
        for t in crew:
            t.start()
        for t in crew:
            t.join()
        job.check(job.published(1))
        assert refused, "two slots and thirty clients: somebody must have been pushed back"
        assert job.round(1)["accepted"] == 30


def test_memory_does_not_grow_with_clients_or_rounds():
    arena = 96 * MIB
    with Node("--arena-bytes", str(arena)) as node:
        size = 1 << 20  # 4 MiB updates
        job = Job(node, size=size, clients=60, rounds=3, seed=61, spec={"placement": {"slots": 8}})
        base, peaks, done = job.base, [], threading.Event()
        floor = private_memory(node)

        def watch():
            while not done.is_set():
                peaks.append((shared_memory(node)[1], private_memory(node)))
                time.sleep(0.1)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for n in (1, 2, 3):
                job.report_all(threads=4, timeout=100)
                model = job.published(n, timeout=60)
            assert base is not None and len(model) == size
        finally:
            done.set()
            watcher.join()
        shared = max(p[0] for p in peaks)
        private = max(p[1] for p in peaks)
        assert shared <= arena, f"{shared / MIB:.0f} MiB of memfds, {arena / MIB:.0f} allowed"
        assert private - floor < 24 * MIB, f"private memory grew by {(private - floor) / MIB:.0f} MiB"
        print(f"180 updates of 4 MiB: shared {shared / MIB:.0f} MiB, private {floor / MIB:.0f} -> {private / MIB:.0f} MiB")


def test_a_job_that_does_not_fit_is_refused_clearly():
    with Node("--arena-bytes", str(4 * MIB)) as node:
        job = Job(node, size=4 * MIB, clients=2, seed=62)
        status, _, answer = job.put(0, job.selected(0))
        assert status == 503 and answer["code"] == "arena-full", answer
        small = Job(node, size=1000, clients=2, seed=63)
        small.report_all()
        small.check(small.published(1))


def test_a_hundred_jobs_leave_nothing_behind():
    with Node(env={"TRIBUTARY_IDLE_MS": "300"}) as node:
        def count():
            state = node.state()
            return {"memfds": shared_memory(node)[0], "processes": len(node.tree()), "jobs": len(state["jobs"]),
                    "arena": state["arena_used"],
                    "keys": sorted(k for k in node.redis("KEYS", "*").split() if not k.startswith("trib:node")),
                    "models": len(os.listdir(os.path.join(node.dir, "models"))),
                    "agent fds": len(os.listdir(f"/proc/{node.pid('agent')}/fd")),
                    "gateway fds": len(os.listdir(f"/proc/{node.pid('gateway')}/fd"))}

        warm = Job(node, size=500, clients=2, seed=64)
        warm.report_all()
        warm.published(1)
        warm.delete()
        until("the first job gone", lambda: not node.state()["jobs"], 10)
        time.sleep(0.5)
        before = count()

        def one(n):
            job = Job(node, size=500, clients=2, seed=1000 + n)
            if n % 4 == 0:
                job.report_all()
                job.check(job.published(1))
            elif n % 4 == 1:
                job.report(0)  # stopped in the middle of its round
            elif n % 4 == 2:
                job.selected(0)
            job.delete()

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(one, range(100)))
        until("all jobs gone", lambda: not node.state()["jobs"], 15)
        end = time.monotonic() + 15
        while count() != before and time.monotonic() < end:
            time.sleep(0.2)
        after = count()
        for key, value in before.items():
            if isinstance(value, int):
                assert after[key] <= value, (key, value, after[key])
            else:
                assert after[key] == value, (key, value, after[key])
