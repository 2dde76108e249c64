# SPDX-License-Identifier: Apache-2.0
"""A slice of `make traces`: random arrival traces of every policy against the reference simulator."""
import http.client
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "reference"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cluster import Job, Node, body_of, call, until  # noqa: E402
from traces import POLICIES, campaign  # noqa: E402


def test_decisions_and_models_are_the_references():
    runs = [(policy, 10 * seed + i) for seed in range(3) for i, policy in enumerate(POLICIES)]
    with Node() as node:
        wrong, seen = campaign(node, runs)
    assert not wrong, wrong
    assert all(seen.values()), seen  # carried ones and refusals, too


def test_a_late_update_waits_for_a_round_and_its_gateway_may_die_meanwhile():
    with Node() as node:
        job = Job(node, size=200, clients=2, goal=1, quorum=1, rounds=5, seed=77, spec={
            "sync": {"late": "next", "over_select": 2.0, "staleness": {"fn": "const"}}})
        first, late = job.selected(0), job.selected(1)
        call(node.api, "POST", f"/v1/jobs/{job.id}:pause")
        assert job.put(0, first)[0] == 201
        until("version 1", lambda: job.version() == 1, 60)
        body, answers = job.update(1, 1), []

        def send():
            end = time.monotonic() + 90
            while time.monotonic() < end:
                try:
                    status, _, answer = job.put(1, late, body_of(body[0]), body[1])
                except (OSError, http.client.HTTPException):
                    time.sleep(0.1)
                    continue
                if status in (200, 201) or answer.get("code") in ("round-closed", "not-selected", "stale"):
                    answers.append((status, answer))
                    return
                time.sleep(0.2)

        thread = threading.Thread(target=send)
        thread.start()
        until("the commit waits", lambda: node.metric("gateway", "tributary_commits_late_waits_total") > 0, 60)
        node.kill("gateway")  # its slot stays, the agent asks for it
        until("ready again", node.ready, 60)
        assert not answers, answers
        call(node.api, "POST", f"/v1/jobs/{job.id}:resume")
        thread.join(90)
        assert answers and answers[0][0] in (200, 201) and answers[0][1]["counted_in"] == 2, answers
        until("version 2", lambda: job.version() == 2, 60)
        assert job.round(2)["accepted"] == 1
        job.check(job.published(2), base=job.published(1), counted=[1])
