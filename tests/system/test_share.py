# SPDX-License-Identifier: Apache-2.0
"""Two tenants on a node that has too little memory for both: the one that came first and took all of it gives some back."""
import base64
import hashlib
import json
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster  # noqa: E402
from cluster import Node, body_of, reference, request, until  # noqa: E402
import numpy as np  # noqa: E402

SIZE = 50000


class TenantJob(cluster.Job):
    """A job of the tenant whose operator's key this is."""

    def __init__(self, node, key, seed, clients, goal):
        self.node, self.size, self.clients, self.seed = node, SIZE, clients, seed
        self.key = {"Authorization": "Bearer " + key}
        self.base = np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
        doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": f"t-{seed}"},
               "spec": {"sync": {"goal": goal, "quorum": 1, "over_select": clients / goal, "deadline_s": 600},
                        "stop": {"rounds": 1}}}
        self.doc = cluster.call(node.api, "POST", "/v1/jobs", doc, self.key)
        self.id = self.doc["metadata"]["id"]
        self.bits = self.doc["spec"]["aggregation"]["scale_bits"]
        cluster.call(node.data, "PUT", f"/v1/jobs/{self.id}/models/0", body_of(self.base), self.key)
        until("the first round", lambda: self.get()["status"]["round"] >= 1, 60)

    def get(self):
        return cluster.call(self.node.api, "GET", f"/v1/jobs/{self.id}", headers=self.key)

    def round(self, n=1):
        return cluster.call(self.node.api, "GET", f"/v1/jobs/{self.id}/rounds/{n}", headers=self.key)

    def stop(self):
        request(self.node.api, "POST", f"/v1/jobs/{self.id}:stop", headers=self.key)


def slots(node):
    return sum(node.metric("agent", f'tributary_slots{{state="{s}"}}') for s in ("free", "filling", "ready", "claimed"))


def test_a_modest_tenant_gets_its_share_of_what_a_greedy_one_took(tmp_path):
    keys = {t: "flo_" + base64.urlsafe_b64encode(t.ljust(32).encode()).decode().rstrip("=") for t in ("greedy", "modest")}
    with open(tmp_path / "operators.json", "w") as f:
        json.dump([{"name": t, "tenant": t, "scopes": ["jobs:admin"], "sha256": hashlib.sha256(k.encode()).hexdigest()}
                   for t, k in keys.items()], f)
    with Node("--operators", str(tmp_path / "operators.json"), "--arena-bytes", str(24 << 20)) as node:
        greedy = TenantJob(node, keys["greedy"], 1, clients=500, goal=60)
        greedy.report(0)
        until("it took what there is", lambda: node.metric("agent", "tributary_arena_used_bytes") > 20 << 20, 60)
        before = slots(node)
        stop, failures, told = threading.Event(), [], {}

        def busy(first):
            for client in range(first, 50, 3):
                try:
                    if stop.is_set():
                        return
                    told[client] = greedy.report(client, timeout=120)
                except Exception as e:  # noqa: BLE001 - told to the test below
                    failures.append((client, e))
        crew = [threading.Thread(target=busy, args=(i,), daemon=True) for i in (1, 2, 3)]
        for t in crew:
            t.start()
        modest = TenantJob(node, keys["modest"], 2, clients=4, goal=4)
        modest.report_all(timeout=120)  # without room it would be told 503 arena-full for good
        modest.check(modest.published(1, timeout=60))
        assert node.metric("agent", "tributary_slots_withdrawn_total") > 0
        used = node.metric("agent", "tributary_arena_used_bytes")
        assert used <= 24 << 20, used
        node.kill("agent")  # what was withdrawn stays so, and is counted once
        until("back", node.ready, 60)
        for t in crew:
            t.join(150)
        stop.set()
        assert not failures, failures
        until("all are back in use", lambda: slots(node) >= before, 60)  # (before: one may have been on its way)
        assert node.metric("agent", "tributary_arena_used_bytes") <= 24 << 20
        # The greedy one lost nothing: its round ends with exactly what it was given receipts for.
        for client in range(50, 60):
            told[client] = greedy.report(client, timeout=120)
        model = greedy.published(1, timeout=60)
        record = greedy.round(1)
        assert record["accepted"] == 60, record
        exact, _, _ = reference(greedy.base, [greedy.update(c) for c in [0, *told]], greedy.bits)
        assert np.array_equal(model.view(np.uint32), exact.view(np.uint32))
