# SPDX-License-Identifier: Apache-2.0
"""A job of `make chaos` whose policy is patched (sync, k-of-n, async) while processes are killed: every receipt is in
exactly one record, the one it names; nothing is in a record that no client sent; every version is what its record
holds, bit for bit; and the job goes on after the last PATCH."""
import http.client
import json
import random
import threading
import time

import numpy as np

from cluster import Job, body_of, call, request, until

MERGE = {"Content-Type": "application/merge-patch+json", "If-Match": "*"}
EXACT = {"denominator": "weight_sum"}
POLICIES = [
    {"mode": "sync", "sync": {"goal": 4, "quorum": 4, "over_select": 2.0, "deadline_s": 60}, "aggregation": EXACT},
    {"mode": "async", "async": {"buffer_k": 3}},
    {"mode": "sync", "sync": {"goal": 6, "quorum": 2, "over_select": 1.0, "deadline_s": 0.6}, "aggregation": EXACT},
    {"mode": "async", "async": {"buffer_k": 5, "staleness": {"fn": "hinge", "alpha": 0.5, "after": 1}}},
    {"mode": "sync", "sync": {"goal": 2, "quorum": 2, "over_select": 1.5, "deadline_s": 60, "late": "next"}},
]
OVER = ("stale", "round-closed", "not-selected", "state-conflict", "job-not-running", "ticket-expired")
KEPT = 60  # rounds whose records are looked at (Redis keeps 64)


class Switcher:
    CLIENTS = 8

    def __init__(self, node, seed, patient):
        self.node, self.patient, self.rng = node, patient, random.Random(f"{seed} switch")
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.tried, self.receipts, self.errors = {}, {}, []
        self.job = patient(lambda: Job(node, size=self.rng.choice([500, 4000, 40000]), clients=self.CLIENTS, goal=4,
                                       quorum=4, seed=seed % 100000 + 7, rounds=100000, spec={
                                           "async": {"buffer_k": 3, "concurrency": 16, "max_staleness": 50,
                                                     "flush_timeout_s": 1},
                                           "placement": {"slots": 64}}))
        self.crew = [threading.Thread(target=self.guarded, args=(self.client, c)) for c in range(self.CLIENTS)]
        self.crew.append(threading.Thread(target=self.guarded, args=(self.patches,)))
        for t in self.crew:
            t.start()

    def guarded(self, what, *args):
        try:
            what(*args)
        except BaseException as e:  # noqa: BLE001 - judged by the run
            self.errors.append(e)

    def patches(self):
        for i in self.rng.sample(range(len(POLICIES)), len(POLICIES)):
            doc = json.dumps({"spec": POLICIES[i]}).encode()
            self.patient(lambda: call(self.node.api, "PATCH", f"/v1/jobs/{self.job.id}", doc, MERGE))
            time.sleep(self.rng.uniform(0, 0.7))

    def ticket(self, c):
        try:
            status, _, data = request(self.node.data, "POST", f"/v1/jobs/{self.job.id}/checkins", {"client_id": f"c-{c}"},
                                      {"Prefer": "wait=1"}, 30)
        except (OSError, http.client.HTTPException):
            return None
        assert status in (200, 503), (status, data)
        answer = json.loads(data)
        return answer if status == 200 and answer["status"] == "selected" else None

    def client(self, c):
        rng, n = random.Random(f"{self.job.seed} {c}"), 0
        while not self.stop.is_set():
            time.sleep(rng.choice([0.02, 0.1, 0.3]))
            ticket = self.ticket(c)
            if not ticket:
                continue
            n += 1
            x, w = self.job.update(c, 900 + n)
            with self.lock:
                self.tried.setdefault(ticket["upload"]["resume"].rsplit("/", 1)[1], []).append((x, w))
            receipt = self.upload(c, ticket, x, w)
            if receipt:
                with self.lock:
                    assert receipt["update"] not in self.receipts, "two receipts of one update"
                    self.receipts[receipt["update"]] = (x, w, receipt)

    def upload(self, c, ticket, x, w):
        end = time.monotonic() + 100
        while True:
            assert time.monotonic() < end, f"client {c}: no receipt of {ticket}"
            try:
                status, _, receipt = self.job.put(c, ticket, body_of(x), w, timeout=30)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status in (200, 201):
                return receipt
            if receipt.get("code") in OVER:
                return None
            assert status in (429, 503) or receipt.get("code") == "upload-busy", (status, receipt)
            time.sleep(float(receipt.get("retry_after", 0.1)))

    def judge(self):
        self.crew[-1].join(120)
        version = self.patient(self.job.version)
        until("it goes on", lambda: self.patient(self.job.version) > version or self.errors, 60, 0.1)
        self.stop.set()
        for t in self.crew:
            t.join(120)
        assert not self.errors and not any(t.is_alive() for t in self.crew), self.errors[:3]
        self.patient(lambda: call(self.node.api, "POST", f"/v1/jobs/{self.job.id}:stop", expect=(200, 202, 409)))
        until("node ready", self.node.ready, 30)
        self.check()
        self.patient(self.job.delete)

    def check(self):
        job, found = self.job, {}
        last = self.patient(job.get)["status"]["round"]
        model, version = job.base, 0
        for n in range(1, last + 1):
            record = self.patient(lambda n=n: call(self.node.api, "GET", f"/v1/jobs/{job.id}/rounds/{n}"))
            assert record["lost"] == 0, record
            sums = self.sums(n, record, found) if n > last - KEPT else None
            if record["state"] != "published":
                continue
            version += 1
            assert record["version"] == version, record
            got = job.published(version)
            if sums:
                total, divisors = sums
                mean = total.astype(np.float64) * 2.0**-job.bits
                made = [(model.astype(np.float64) + mean / (d / 2.0**20)).astype(np.float32) for d in divisors]
                assert any(np.array_equal(got.view(np.uint32), m.view(np.uint32)) for m in made), (n, version)
            model = got
        for update, (_, _, receipt) in self.receipts.items():
            n = receipt["counted_in"]
            assert n <= last - KEPT or found.get(update) == n, f"{receipt} is in record {found.get(update)}"

    def sums(self, n, record, found):
        job = self.job
        raw = self.node.redis("HGETALL", f"trib:{{{job.id}}}:r:{n}:upd").splitlines()
        counted = [v for v in raw[1::2] if v.startswith("C|")]
        assert len(counted) == record["accepted"], (n, record, counted)
        total, weight = np.zeros(job.size, np.int64), 0
        for entry in counted:
            _, update, _, _, fx, _ = entry.split("|", 5)
            assert update not in found and update in self.tried, (n, entry, found.get(update))
            found[update] = n
            if update in self.receipts:
                x, w, receipt = self.receipts[update]
                assert receipt["counted_in"] == n and receipt["weight_used"] == int(fx) / 2.0**20, (receipt, entry)
            else:
                (x, w), = self.tried[update]
            total += np.rint((int(fx) / 2.0**20) * x.astype(np.float64) * 2.0**job.bits).astype(np.int64)
            weight += int(fx)
        return total, (weight, max(1, len(counted)) << 20)
