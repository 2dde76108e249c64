# SPDX-License-Identifier: Apache-2.0
"""An independent reference of the policies of docs/jobs.md: plain Python for the decisions, numpy float64 for the model.
Written from the formulas; nothing of the service is used. Fed an arrival trace, event by event, it says what must have
been decided (who counts, in which round, with which weight) and what the model is, with the bound of ADR 1.

Times are milliseconds of whatever clock made the trace; only the clock trigger and `intervals` look at them.
"""
import hashlib
import math
from fractions import Fraction

import numpy as np

UNIT = 2.0 ** 20  # weights are whole multiples of 1/UNIT


class Policy:
    """The fields of a job spec that matter, with the service's defaults."""

    def __init__(self, spec):
        aggregation, y, s = spec.get("aggregation", {}), spec.get("async", {}), spec.get("sync", {})
        self.asynchronous = spec.get("mode") == "async"
        staleness = (y if self.asynchronous else s).get("staleness", {})
        self.fn, self.alpha = staleness.get("fn", "poly"), staleness.get("alpha", 0.5)
        self.after, self.offset = staleness.get("after", 0), staleness.get("offset", 0)
        self.average = staleness.get("average", 0) if staleness.get("normaliser") == "average" else None
        self.uniform = aggregation.get("weight_by") == "uniform"
        self.denominator, self.population = aggregation.get("denominator", "weight_sum"), aggregation.get("population")
        self.lr = aggregation.get("server_opt", {}).get("lr", 1.0)
        if self.asynchronous:
            self.goal, self.places = y["buffer_k"], y["concurrency"]
            self.clock = y.get("trigger") == "clock"
            self.dt = y.get("flush_timeout_s", 120) * 1000
            self.most = y.get("max_staleness", 20)
            self.memory = y.get("memory_clients", 100) if y.get("memory") == "all" else 0
        else:
            self.goal = s["goal"]
            self.places = math.ceil(self.goal * s.get("over_select", 1.0) - 1e-9)
            pick = s.get("sampling", {})
            self.fraction, self.seed, self.count = pick.get("fraction", 1), pick.get("seed", 0), pick.get("count", 0)
            self.quorum, self.backup = s.get("quorum", self.goal), s.get("backup", {})
            self.late, self.most, self.clock = s.get("late") == "next", s.get("max_staleness", 5), False

    def discount(self, tau, held=0.0):
        if self.fn == "intervals":
            return float(min(max(1, math.ceil(held / self.dt)), self.most + 1))
        t = tau + self.offset
        if self.fn == "poly":
            return math.pow(1 + t, -self.alpha)
        if self.fn == "hinge":
            return 1.0 if t <= self.after else 1.0 / (self.alpha * (t - self.after) + 1.0)
        if self.fn == "inverse_sqrt":
            return 1.0 / (1.0 + math.sqrt(t))
        return 1.0

    def weight(self, wish):
        """The client's weight, in whole units."""
        return int(UNIT) if self.uniform else round(wish * UNIT)

    def counted(self, units, tau, held=0.0):
        return max(1, math.floor(units * self.discount(tau, held) + 0.5))

    def samples(self, number, client):
        """Is the client in the sample of a round? 52 bits of SHA-1 as a number in [0, 1)."""
        draw = hashlib.sha1(f"{self.seed}|{number}|{client}".encode()).hexdigest()[:13]
        return int(draw, 16) / 2.0 ** 52 < self.fraction

    def samples_count(self, number, index, known):
        """Is client `index` of `known` among the `count` that round `number` permutes to the front?"""
        if known <= self.count:
            return index < self.count
        if index >= known:
            return False
        m = math.isqrt(known - 1) + 1
        while True:
            left, right = divmod(index, m)
            for i in range(4):
                draw = hashlib.sha1(f"{self.seed}|{number}|{i}|{right}".encode()).hexdigest()[:12]
                left, right = right, (left + int(draw, 16)) % m
            index = left * m + right
            if index < known:
                return index < self.count

    def divisor(self, rows, goal=None):
        """rows: (units before the discount, units after it) of every update of a round; goal: of that round."""
        if self.denominator == "weight_sum":
            return sum(after for _, after in rows) / UNIT
        d = {"count": len(rows), "goal": goal or self.goal, "one": 1, "population": self.population,
             "weight_sum_raw": sum(before for before, _ in rows) / UNIT}[self.denominator]
        if self.average is not None:
            d *= self.discount(self.average)
        return max(1, math.floor(d * UNIT + 0.5)) / UNIT


class Backup:
    """Dynamic backup workers (Xu, Neglia, Sebastianelli: DBW): the k with the largest gain(k) / T(k). From vectors, not
    from norms; estimates are exponential averages."""

    def __init__(self, policy):
        self.p, b = policy, policy.backup
        self.alpha, self.step, self.metric = b.get("alpha", 0.3), b.get("step", 0), b.get("metric", "loss")
        self.times, self.variance, self.expected, self.smooth, self.last = {}, None, None, None, None

    def average(self, had, x):
        return x if had is None else (1 - self.alpha) * had + self.alpha * x

    def time(self, nth, ms):
        if nth <= self.p.places:
            self.times[nth] = self.average(self.times.get(nth), ms)

    def learn(self, rows, loss):
        """rows of a round that made a version; loss: the mean that its clients told, or None"""
        if self.step and loss is not None and self.last and self.last[2] > 0:
            was, expected, mean = self.last
            found = 2 * (self.step * (loss - was) / self.p.lr + expected) / mean
            self.smooth = self.average(self.smooth, min(2.0, max(0.0, found)))
        self.last = None
        if len(rows) < 2:
            return
        w = np.array([after / UNIT for _, _, after in rows])
        x = np.array([row[0].astype(np.float64) for row in rows])
        share = w / w.sum()
        mean = share @ x
        variance = float((share * ((x - mean) ** 2).sum(axis=1)).sum() / (1 - (share ** 2).sum()))
        expected = max(0.0, float((mean ** 2).sum() - variance * (share ** 2).sum()))
        self.variance, self.expected = self.average(self.variance, variance), self.average(self.expected, expected)
        if loss is not None:
            self.last = loss, expected, float((mean ** 2).sum())

    def choose(self):
        n, smooth = self.p.places, 1.0 if self.smooth is None else self.smooth
        if self.variance is None or any(k not in self.times for k in range(1, n + 1)):
            return n, "learning"
        best, most, slowest = None, 0.0, 1.0
        for k in range(1, n + 1):
            slowest = max(slowest, self.times[k])
            gain = (1 - smooth / 2) * self.expected - smooth / 2 * self.variance / k
            if k >= min(n, max(2, self.p.quorum)) and gain > 0 and gain / slowest > most:
                best, most = k, gain / slowest
        return (best, "rate") if best else (n, "no-gain")


class Round:
    def __init__(self, number, base):
        self.number, self.base, self.open = number, base, True
        self.goal, self.why, self.opened, self.after, self.known, self.losses = None, None, None, 0, None, []
        self.members, self.places = {}, {}  # client -> (vector, units before, units after); client -> ticket
        self.rows = []

    def add(self, client, row):
        self.members[client] = row
        self.rows.append(row)


class Simulator:
    def __init__(self, spec, model, bits):
        self.p, self.bits = Policy(spec), bits
        self.models, self.bounds = [model.astype(np.float64)], [np.zeros(len(model))]
        self.rounds = [None, Round(1, 0)]
        self.out, self.said, self.reported, self.waiting, self.at_once = {}, {}, {}, [], True
        self.memory = {}  # AFA-CS: client -> its last row, or None: it has a place and has not reported
        self.index, self.seen_after = {}, set()
        self.backup = Backup(self.p) if not self.p.asynchronous and self.p.backup.get("kind") == "dbw" else None
        self.aim(self.rounds[1])

    @property
    def version(self):
        return len(self.models) - 1

    def aim(self, r):
        r.goal, r.why = self.backup.choose() if self.backup else (self.p.goal, None)

    def loss(self, r):
        """Mean of what was told, as it is published: nine digits."""
        if not r.losses:
            return None
        return float(f"{sum(w * x for w, x in r.losses) / sum(w for w, _ in r.losses):.9g}")

    def came_after(self, own, client, now):
        """A client that round `own` had selected comes when it is over."""
        if self.backup and (own.number, client) not in self.seen_after:
            self.seen_after.add((own.number, client))
            own.after += 1
            if own.after + len(own.rows) <= self.p.places:
                self.backup.time(len(own.rows) + own.after, now - own.opened)

    def publish(self, r):
        """The next version, from a round that has ended."""
        divisor = self.p.divisor([(before, after) for _, before, after in r.rows], r.goal)
        step = np.zeros_like(self.models[0])
        for x, _, after in r.rows:
            step += (after / UNIT) * x.astype(np.float64)
        model = self.models[-1] + self.p.lr * step / divisor
        rounding = self.p.lr * 2.0 ** -(self.bits + 1) * len(r.rows) / divisor
        self.bounds.append(self.bounds[-1] + rounding + np.spacing(np.abs(model).astype(np.float32)) + 1e-300)
        self.models.append(model)

    def end(self, r):
        """A round ends. A synchronous one is aggregated before the next begins; the next buffer is there at once."""
        r.open = False
        if self.p.asynchronous:
            if self.p.memory:  # every client's last update is in it
                self.memory = {c: row for c, row in self.memory.items() if row or c in self.out}
                r.rows = [row for row in self.memory.values() if row]
            self.rounds.append(Round(r.number + 1, None))
            self.waiting.append(r)
            if self.at_once:
                self.publish_next()
        else:
            self.publish(r)
            if self.backup:
                self.backup.learn(r.rows, self.loss(r))
            self.rounds.append(Round(r.number + 1, self.version))
            self.aim(self.rounds[-1])

    def publish_next(self):
        self.publish(self.waiting.pop(0))

    def checkin(self, client, now=0.0):
        """('selected', round, base version) or ('wait', why)"""
        r = self.rounds[-1]
        if self.p.asynchronous:
            if self.reported.get(client) == self.version and client not in self.out:
                return "wait", "reported"
            if self.p.memory and client not in self.out and client in r.members:
                return "wait", "reported"
            if self.p.memory and client not in self.memory and len(self.memory) >= self.p.memory:
                return "wait", "memory-full"
            if client not in self.out and len(self.out) >= self.p.places:
                return "wait", "full"
            if self.p.memory:
                self.memory.setdefault(client, None)
            self.out[client] = (self.version, now)
            for key in [k for k in self.said if k[0] == client][:-1]:
                del self.said[key]  # of those that counted the last one is known as a replay
            return "selected", r.number, self.version
        if self.p.count:
            self.index.setdefault(client, len(self.index))
        if client in r.members:
            return "wait", "reported"
        if client not in r.places and not self.sampled(r, client):
            return "wait", "not-sampled"
        if client not in r.places and len(r.places) >= self.p.places:
            return "wait", "full"
        r.places[client] = True
        return "selected", r.number, r.base

    def sampled(self, r, client):
        if not self.p.count:
            return self.p.samples(r.number, f"c-{client}")
        r.known = len(self.index) if r.known is None else r.known
        return self.p.samples_count(r.number, self.index[client], r.known)

    def commit(self, client, ticket, x, wish, now=0.0, loss=None):
        """ticket: (round, base). ('counted', round, units) | ('again', round, units) | ('refused', why)"""
        key = (client, *ticket)
        if key in self.said:
            return ("again", *self.said[key])
        answer = self.commit_async(client, ticket, x, wish, now) if self.p.asynchronous else \
            self.commit_sync(client, ticket, x, wish, now, loss)
        if answer[0] == "counted":
            self.said[key] = answer[1:]
        return answer

    def commit_async(self, client, ticket, x, wish, now):
        base, since = self.out.get(client, (None, None))
        if base != ticket[1]:
            return "refused", "not-selected"
        del self.out[client]
        tau = self.version - base
        if tau > self.p.most:
            return "refused", "stale"
        self.reported[client] = base
        units, r = self.p.weight(wish), self.rounds[-1]
        r.add(client, (x, units, self.p.counted(units, tau, now - since)))
        if self.p.memory:
            self.memory[client] = r.rows[-1]
        answer = "counted", r.number, r.rows[-1][2]
        if len(r.rows) == self.p.goal:
            self.end(r)
        return answer

    def commit_sync(self, client, ticket, x, wish, now=0.0, loss=None):
        own, units = self.rounds[ticket[0]], self.p.weight(wish)
        if client not in own.places:
            return "refused", "not-selected"
        if own.open:
            r, after = own, units
        elif not self.p.late:
            self.came_after(own, client, now)
            return "refused", "round-closed"
        else:
            r = self.rounds[-1]
            tau = r.base - own.base
            self.came_after(own, client, now)
            if tau > self.p.most:
                return "refused", "stale"
            if client in r.places or client in r.members:
                return "refused", "round-closed"
            after = self.p.counted(units, tau)
        r.add(client, (x, units, after))
        if loss is not None:
            r.losses.append((units, loss))
        if self.backup:
            self.backup.time(len(r.rows), now - r.opened)
        answer = "counted", r.number, after
        if len(r.rows) == r.goal:
            self.end(r)
        return answer

    def close(self):
        """An operator closes the open round, or the clock ends the buffer: with what is there. False: nothing is."""
        r = self.rounds[-1]
        if not r.rows:
            return False
        self.end(r)
        return True


class Member:
    """A job of a pool: `cap` clients out at most; a synchronous one begins anew with every version."""

    def __init__(self, share, least, cap, versions, asynchronous, score="share"):
        self.share, self.least, self.cap, self.versions = Fraction(share), min(least, cap), cap, versions
        self.asynchronous, self.version, self.runs = asynchronous, 0, True
        self.out, self.reported, self.score, self.seen = set(), {}, score, []

    def takes(self, client):
        if self.asynchronous:
            return self.reported.get(client) != self.version
        return client not in self.reported and len(self.out) + len(self.reported) < self.cap

    def report(self, client, base):
        self.out.discard(client)
        self.reported[client] = base

    def value(self):
        """What its share is multiplied with; None: not known yet."""
        if self.score == "share":
            return Fraction(max(1, self.versions - self.version), self.versions)
        rows, spread, mean = [], 0.0, 0.0
        for x, w in reversed(self.seen):  # the newest versions that have eight updates together
            if sum(len(r) for r in rows) >= 8:
                break
            rows.append(x)
            g = w @ x / w.sum()
            spread += len(x) * float((w / w.sum() * ((x - g) ** 2).sum(axis=1)).sum())
            mean += len(x) * float(g @ g)
        if not rows:
            return None
        ratio = min(1e6, max(1e-6, spread / mean if mean > 0 else 1e6))
        return Fraction(math.sqrt(ratio) if self.score == "deviation" else ratio)

    def publish(self, updates=()):
        """updates: [(vector, weight)] of the version"""
        self.version += 1
        if len(updates) > 1:
            self.seen.append((np.array([x for x, _ in updates]), np.array([w for _, w in updates], float)))
        if not self.asynchronous:
            self.out, self.reported = set(), {}


class Pool:
    """FedAST's division of client slots (arXiv 2406.00302), the score being share times the part of the versions that
    is still to come, or times the spread of the last updates over their mean's squared norm (or the root of that): slots = min(cap, max(least, x * score)) with the x that hands out all, in exact fractions."""

    def __init__(self, members, size=0):
        self.members, self.size = members, size

    def slots(self):
        live = [m for m in self.members if m.runs]
        total = min(self.size or math.inf, sum(m.cap for m in live))
        if total <= sum(m.least for m in live):
            given = {}
            for m in live:
                given[m] = min(m.least, total - sum(given.values()))
            return given
        values = {m: m.value() for m in live}
        known = [v for m, v in values.items() if v is not None and m.score != "share"]
        other = sum(known) / len(known) if known else Fraction(1)
        scores = {m: m.share * (other if values[m] is None else values[m]) for m in live}

        def part(m, x):
            return min(Fraction(m.cap), max(Fraction(m.least), x * scores[m]))

        low = Fraction(0)
        for high in sorted({Fraction(b) / scores[m] for m in live for b in (m.least, m.cap)}):
            got = sum(part(m, high) for m in live)
            if got >= total:
                below = sum(part(m, low) for m in live)
                x = high if got == below else low + (high - low) * (total - below) / (got - below)
                break
            low = high
        exact = {m: part(m, x) for m in live}
        given = {m: math.floor(exact[m]) for m in live}
        spare = total - sum(given.values())
        parts = {m: math.floor((exact[m] - given[m]) * 10 ** 6 + Fraction(1, 2)) for m in live}
        for m in sorted(live, key=lambda m: -parts[m]):  # stable: who joined first
            if spare and given[m] < m.cap:
                given[m], spare = given[m] + 1, spare - 1
        return given

    def choose(self, client):
        """The member that the client works for now, or None."""
        for m in self.members:
            if m.runs and client in m.out:
                return m
        slots = self.slots()
        lacking = [m for m in slots if len(m.out) < slots[m]]
        for m in sorted(lacking, key=lambda m: Fraction(len(m.out) + 1, slots[m])):
            if m.takes(client):
                m.out.add(client)
                return m
        return None
