# SPDX-License-Identifier: Apache-2.0
"""Faults at chosen instants, one promise each: what tests/chaos.py meets only by luck."""
import http.client
import os
import signal
import subprocess
import threading
import time
import urllib.parse

from cluster import Job, Node, body_of, call, until


def agent_job(node, job):
    found = [j for j in node.state()["jobs"] if j["job"] == job.id]
    return found[0] if found else None


class HalfSent:
    """An upload whose last bytes are held back."""

    def __init__(self, job, client, held=4000):
        self.ticket = job.selected(client)
        x, w = job.update(client, self.ticket["round"])
        body = body_of(x)
        u = urllib.parse.urlsplit(job.node.data)
        self.c = http.client.HTTPConnection(u.hostname, u.port, timeout=60)
        self.c.putrequest("PUT", self.ticket["upload"]["url"])
        for k, v in {**job.headers(client, self.ticket, w), "Content-Length": str(len(body))}.items():
            self.c.putheader(k, v)
        self.c.endheaders()
        self.c.send(body[:-held])
        self.rest = body[-held:]

    def finish(self):
        self.c.send(self.rest)

    def answer(self):
        try:
            return self.c.getresponse().status
        finally:
            self.c.close()


def test_the_whole_node_killed_in_a_closing_round_reopens_it():
    """The goal was reached, nothing is folded yet, the machine dies. No client uploads to a closed round, so nobody
    would tell the new agent of the job: it has to look itself."""
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "300000"}) as node:
        job = Job(node, size=70000, clients=4, seed=401)
        job.report_all(threads=4)
        until("closing", lambda: job.round(1)["state"] == "closing", 10)
        node.kill_everything()
        node.env.pop("TRIBUTARY_TEST_FOLD_DELAY_US")
        node.start()
        until("reopened", lambda: job.round(1)["lost"] == 4, 20)
        assert job.round(1)["state"] == "open"
        job.report_all(threads=4)
        job.check(job.published(1, timeout=30))
        assert job.round(1)["accepted"] == 4


def test_slots_claimed_while_no_agent_listened_are_found_without_a_closing_round():
    """Every slot is handed over in the instant between two agents: the new one has to find them by itself, since no
    slot is free for the uploads that would reach the goal."""
    with Node() as node:
        job = Job(node, size=9000, clients=6, seed=402, spec={"placement": {"slots": 2}})
        halves = [HalfSent(job, c) for c in (0, 1)]
        until("both filling", lambda: (agent_job(node, job) or {"slots": {}})["slots"].get("filling") == 2, 10)
        gateway, agent = node.pid("gateway"), node.pid("agent")
        os.kill(gateway, signal.SIGSTOP)
        try:
            os.kill(agent, signal.SIGKILL)
            until("a new agent has adopted", lambda: node.endpoints()["pids"]["agent"] not in (agent, 0, None)
                  and adopted(node, job), 20)
            for h in halves:
                h.finish()
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert [h.answer() for h in halves] == [201, 201]
        job.report_all(order=range(2, 6), timeout=20)
        job.check(job.published(1, timeout=20))


def adopted(node, job):
    try:
        found = agent_job(node, job)
    except (OSError, http.client.HTTPException, AssertionError, KeyError, ValueError):
        return False
    return found and found.get("ready")


def test_a_gateway_frozen_after_its_commit_costs_no_accepted_update():
    """Redis has counted, the gateway sleeps before it can hand the slot over, for longer than the agent's patience
    with counts that differ. The agent asks for the slot's commit itself (SAME)."""
    with Node(env={"TRIBUTARY_MISMATCH_MS": "6000"}) as node:
        job = Job(node, size=9000, clients=3, seed=403)
        for c in (0, 1):
            job.report(c)
        half = HalfSent(job, 2)
        redis, gateway = node.pid("redis"), node.pid("gateway")
        until("filling", lambda: agent_job(node, job)["slots"]["filling"] == 1, 10)
        os.kill(redis, signal.SIGSTOP)
        half.finish()
        ready = until("READY", lambda: agent_job(node, job)["slots"]["ready"], 10)
        assert ready == 1
        os.kill(gateway, signal.SIGSTOP)
        try:
            os.kill(redis, signal.SIGCONT)
            time.sleep(8)
            assert job.round(1)["lost"] == 0
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert half.answer() == 201
        job.check(job.published(1, timeout=20))
        assert job.round(1)["lost"] == 0


def test_a_report_refused_by_redis_is_made_again():
    """Redis refuses writes for a while (disk full, out of memory) when the agent reports the model."""
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "200000"}) as node:
        job = Job(node, size=40000, clients=3, seed=404)
        job.report_all()
        until("closing", lambda: node.redis("HGET", f"trib:{{{job.id}}}:r:1", "state") == "closing", 10)
        assert node.redis("CONFIG", "SET", "maxmemory", "1") == "OK"
        time.sleep(6)
        assert node.redis("HGET", f"trib:{{{job.id}}}:r:1", "state") == "closing"
        assert node.redis("CONFIG", "SET", "maxmemory", "0") == "OK"
        job.check(job.published(1, timeout=20))


def test_a_function_the_zygote_did_not_live_to_tell_of_never_folds_beside_its_successor():
    """The zygote dies between fork and answer: the agent has never heard of that function, which has its sum mapped,
    has slots in hand and folds on. It must end before its successor begins."""
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "150000"}) as node:
        job = Job(node, size=300000, clients=6, leaves=1, seed=406)
        zygote = node.state()["zygote_pid"]
        slow = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(zygote), "-e", "trace=sendmsg", "-e",
                                 "inject=sendmsg:delay_enter=3000000"], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        thread = threading.Thread(target=job.report_all)
        thread.start()
        try:
            until("folding", lambda: [p for p in node.tree() if named(p).startswith("trib-fn")], 10)
            time.sleep(0.5)
            untold = [p for p in node.tree() if named(p).startswith("trib-fn")]
            os.kill(zygote, signal.SIGKILL)
            until("the untold one ended", lambda: all(not named(p) for p in untold), 5)
        finally:
            slow.terminate()
            slow.wait()
            thread.join(60)
        job.check(job.published(1, timeout=40))
        assert job.round(1)["accepted"] == 6


def named(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            name = f.read().strip()
        with open(f"/proc/{pid}/stat") as f:
            return "" if f.read().rsplit(")", 1)[1].split()[0] == "Z" else name
    except OSError:
        return ""


def test_a_function_that_stands_still_is_replaced():
    """Stopped for good with slots in hand: no pidfd tells of that."""
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "30000", "TRIBUTARY_STALL_MS": "2000"}) as node:
        job = Job(node, size=300000, clients=6, leaves=2, seed=407)
        thread = threading.Thread(target=job.report_all)
        thread.start()
        pid = until("a function at work", lambda: [f["pid"] for f in (agent_job(node, job) or {"functions": []})
                                                   ["functions"] if f["pid"] > 0], 10)[-1]
        os.kill(pid, signal.SIGSTOP)
        thread.join(60)
        job.check(job.published(1, timeout=90))
        assert node.metric("agent", "tributary_agg_stalled_total") >= 1
        assert job.round(1)["accepted"] == 6
