# SPDX-License-Identifier: Apache-2.0
"""A whole node for tests: `tributary up` in a directory of its own, and synthetic clients over real sockets.

Everything is bounded by a time-out and everything started is ended. Models and updates are numpy float32 vectors cut
into a few tensors; `reference` computes what must be published, in integers and in float64.
"""
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("TRIBUTARY_BIN", os.path.join(ROOT, "build/release/bin"))


TLS = None  # ssl.SSLContext of requests to https URLs


class Certificates:
    """A CA and certificates of it, made by the openssl command in a directory."""

    def __init__(self, folder, name="ca"):
        self.folder, self.ca = str(folder), os.path.join(str(folder), name)
        self.openssl("req", "-x509", *self.KEY, "-subj", f"/CN={name}", "-days", "2", "-keyout", self.ca + ".key",
                     "-out", self.ca + ".pem")

    KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def make(self, name, alternative):
        """(certificate file, key file)"""
        path = os.path.join(self.folder, name)
        self.openssl("req", *self.KEY, "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}", "-keyout",
                     path + ".key", "-out", path + ".csr")
        self.openssl("x509", "-req", "-in", path + ".csr", "-CA", self.ca + ".pem", "-CAkey", self.ca + ".key",
                     "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", path + ".pem")
        return path + ".pem", path + ".key"

    def context(self, pair=None):
        """A client's: trusts the CA, shows the certificate of `pair`."""
        context = ssl.create_default_context(cafile=self.ca + ".pem")
        if pair:
            context.load_cert_chain(*pair)
        return context


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout=10):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def request(base, method, path, body=None, headers=None, timeout=30, context=None):
    """One request on a connection of its own: (status, headers, body bytes). https: `context`, or TLS."""
    if base.startswith("unix:"):
        c = UnixHTTP(base[5:], timeout)
    else:
        u = urllib.parse.urlsplit(base)
        if u.scheme == "https":
            c = http.client.HTTPSConnection(u.hostname, u.port, timeout=timeout, context=context or TLS)
        else:
            c = http.client.HTTPConnection(u.hostname, u.port, timeout=timeout)
    try:
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        c.request(method, path, body=body, headers=headers or {})
        r = c.getresponse()
        return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
    finally:
        c.close()


def call(base, method, path, body=None, headers=None, expect=(200, 201, 202, 204), timeout=30):
    status, _, data = request(base, method, path, body, headers, timeout)
    assert status in expect, f"{method} {path}: {status} {data[:600]!r}"
    return json.loads(data) if data else {}


def until(what, predicate, timeout=20.0, step=0.02):
    """The predicate's first true value; fails with `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        assert time.monotonic() < end, f"timed out: {what}"
        time.sleep(step)


class Node:
    """`tributary up` with private ports. as_user: uid/gid to run as (tests run by root only)."""

    def __init__(self, *args, as_user=None, env=None, name="n1", api=True, prefix=(), host="127.0.0.1"):
        self.dir = tempfile.mkdtemp(prefix="trib-")
        self.args, self.as_user, self.name, self.prefix, self.host = list(args), as_user, name, list(prefix), host
        self.programs = ("orchestrator", "agent", "gateway") if api else ("agent", "gateway")
        self.env = {**os.environ, **(env or {})}
        self.process = None
        self.bin = BIN
        if as_user:  # who may not enter the folder of a checkout in /root
            self.bin = shutil.copytree(BIN, os.path.join(self.dir, "bin"))
            os.chown(self.dir, as_user, as_user)
        self.start()

    def start(self):
        command = [*self.prefix, os.path.join(self.bin, "tributary"), "up", "--dir", self.dir, "--api",
                   f"{self.host}:0", "--data", f"{self.host}:0", "--node", self.name, *self.args]
        if self.as_user:
            command = ["setpriv", f"--reuid={self.as_user}", f"--regid={self.as_user}", "--clear-groups",
                       "--inh-caps=-all", "--bounding-set=-all", *command]
        self.log = open(os.path.join(self.dir, "up.log"), "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
                                        env=self.env, cwd="/")
        try:
            until("node ready", self.ready, 30)
        except AssertionError:
            print(self.logs())
            self.stop()
            raise

    def endpoints(self):
        try:
            with open(os.path.join(self.dir, "endpoints.json")) as f:
                return json.load(f)
        except (OSError, ValueError):
            return None

    def ready(self):
        assert self.process.poll() is None, "tributary up ended:\n" + self.logs()
        e = self.endpoints()
        if not e:
            return False
        try:
            ok = all(request(e["admin"][n], "GET", "/readyz", timeout=2)[0] == 200 for n in self.programs)
        except (OSError, http.client.HTTPException, KeyError):
            return False
        if ok:
            self.api, self.data = e.get("api"), e["data"]
        return ok

    def logs(self, tail=12000):
        text = ""
        for folder, _, files in os.walk(self.dir):
            for name in sorted(files):
                if name.endswith(".log"):
                    with open(os.path.join(folder, name), errors="replace") as f:
                        text += f"--- {name}\n" + f.read()[-tail:]
        return text

    def pid(self, name):
        return self.endpoints()["pids"][name]

    def kill(self, name, sig=signal.SIGKILL):
        pid = self.pid(name)
        if pid <= 0:  # between two lives; kill(0) would be our own group
            raise ProcessLookupError(name)
        os.kill(pid, sig)
        return pid

    def admin(self, name, path="/metrics"):
        status, _, data = request(self.endpoints()["admin"][name], "GET", path, timeout=5)
        assert status == 200, (name, path, status, data)
        return data.decode()

    def state(self):
        return json.loads(self.admin("agent", "/state"))

    def metric(self, name, series):
        """Sum of the values of a metric (with or without labels) of a program."""
        total, seen = 0.0, False
        for line in self.admin(name).splitlines():
            key, _, value = line.rpartition(" ")
            if key == series or key.startswith(series + "{"):
                total, seen = total + float(value), True
        assert seen, f"{name} has no metric {series}"
        return total

    def redis(self, *words):
        address = self.endpoints()["redis"]
        out = subprocess.run(["redis-cli", "-s", address[5:], *map(str, words)], capture_output=True, text=True,
                             timeout=10)
        return out.stdout.strip()

    def tree(self):
        """Pids of up and everything below it."""
        parents = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(pid))
            except OSError:
                pass
        found, queue = [], [self.process.pid]
        while queue:
            p = queue.pop()
            found.append(p)
            queue += parents.get(p, [])
        return found

    def kill_everything(self):
        """Supervisor, keeper and all, as a power failure of the node would."""
        pids = self.tree()
        for p in pids:
            try:
                os.kill(p, signal.SIGKILL)
            except ProcessLookupError:
                pass  # went with its parent
        self.process.wait()
        until("all gone", lambda: not any(os.path.exists(f"/proc/{p}") for p in pids[1:]), 10)

    def stop(self):
        if self.process and self.process.poll() is None:
            pids = self.tree()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.left = [p for p in pids if os.path.exists(f"/proc/{p}")]
            for p in self.left:
                os.kill(p, signal.SIGKILL)
        self.log.close()
        text = self.logs(1 << 20)
        shutil.rmtree(self.dir, ignore_errors=True)
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", "runtime error: ",
                     "assertion failed"):
            at = text.find(mark)
            assert at < 0, text[max(0, at - 200):at + 4000]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(self.logs())
        self.stop()


class Cluster:
    """Several nodes, each a `tributary up` of its own: n1 with Redis and orchestrator, n2.. joined to it. It stands in
    for a Node where a Job asks for one; `nodes` are the rest's hands. args are of every node."""

    def __init__(self, count, *args, lease_ms=3000, env=None):
        self.args = ["--lease-ms", str(lease_ms), "--node-grace-ms", str(lease_ms // 3), *args]
        self.env, self.nodes, self.serial = env, [], 0
        try:
            for _ in range(count):
                self.add()
        except BaseException:
            self.stop()
            raise

    def place(self, number):
        """Node keywords of node `number` (1 ..) and its further arguments; tests with other places override it."""
        if number == 1:
            return {}, []
        return {"api": False}, ["--join", self.nodes[0].endpoints()["redis"]]

    def add(self):
        self.serial += 1
        keywords, more = self.place(self.serial)
        self.nodes.append(Node(*self.args, *more, name=f"n{self.serial}", env=self.env, **keywords))
        return self.nodes[-1]

    def __getitem__(self, index):
        return self.nodes[index]

    def named(self, name):
        return next(n for n in self.nodes if n.name == name)

    def __getattr__(self, name):  # api, data, redis(), endpoints() .. are the first node's
        if name in ("nodes", "process"):
            raise AttributeError(name)
        return getattr(self.nodes[0], name)

    def logs(self, tail=6000):
        return "".join(f"===== {n.name}\n{n.logs(tail)}" for n in self.nodes)

    def total(self, program, series):
        return sum(n.metric(program, series) for n in self.nodes if n.process.poll() is None)

    def stop(self):
        errors = []
        for node in reversed(self.nodes):
            try:
                node.stop()
            except AssertionError as e:
                errors.append(e)
        assert not errors, errors

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(self.logs())
        self.stop()


# ---- models and updates ----

def cut(vector, parts=3):
    """Names and tensors: the vector in `parts` pieces, one of them two-dimensional when it can be."""
    edges = [len(vector) * i // parts for i in range(parts + 1)]
    out = []
    for i in range(parts):
        piece = vector[edges[i]:edges[i + 1]]
        shape = [len(piece) // 2, 2] if i == 0 and len(piece) % 2 == 0 and len(piece) else [len(piece)]
        out.append((f"layer{i}.w", shape, piece))
    return out


def safetensors(tensors):
    """[(name, shape, float32 vector)] in that order -> body."""
    head, at = {}, 0
    for name, shape, v in tensors:
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + v.nbytes]}
        at += v.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(v.astype("<f4").tobytes() for _, _, v in tensors)


def body_of(vector, order=None):
    tensors = cut(vector)
    return safetensors([tensors[i] for i in order] if order else tensors)


def vector_of(body):
    (n,) = struct.unpack("<Q", body[:8])
    return np.frombuffer(body[8 + n:], "<f4")


def reference(base, updates, bits, lr=1.0):
    """updates: [(vector, weight)] -> (published float32 by exact integers, float64 mean model, bound)."""
    total = np.zeros(len(base), np.int64)
    mean = np.zeros(len(base), np.float64)
    weight_fx = 0
    for x, w in updates:
        fx = int(np.rint(w * 2.0**20))
        weight_fx += fx
        product = (fx / 2.0**20) * x.astype(np.float64)
        total += np.rint(product * 2.0**bits).astype(np.int64)
        mean += product
    weight = weight_fx / 2.0**20
    exact = (base.astype(np.float64) + lr * (total.astype(np.float64) * 2.0**-bits / weight)).astype(np.float32)
    model = base.astype(np.float64) + lr * mean / weight
    bound = lr * 2.0**-(bits + 1) * len(updates) / weight + np.spacing(np.abs(model).astype(np.float32)) + 1e-300
    return exact, model, bound


class Job:
    """A job of `size` parameters; base model and updates come from seeds."""

    def __init__(self, node, size=5000, clients=6, rounds=1, leaves=0, seed=1, spec=None, goal=None, quorum=None):
        self.node, self.size, self.clients, self.seed = node, size, clients, seed
        rng = np.random.default_rng(seed)
        self.base = rng.standard_normal(size).astype(np.float32)
        goal = goal or clients
        doc = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": f"test-{seed}"},
               "spec": {"sync": {"goal": goal, "quorum": quorum or goal, "deadline_s": 120,
                                 "over_select": max(1.0, clients / goal)},
                        "hierarchy": {"leaves": leaves}, "stop": {"rounds": rounds}}}
        for key, value in (spec or {}).items():
            if isinstance(value, dict):
                doc["spec"].setdefault(key, {}).update(value)
            else:
                doc["spec"][key] = value
        self.doc = call(node.api, "POST", "/v1/jobs", doc)
        self.id = self.doc["metadata"]["id"]
        self.bits = self.doc["spec"]["aggregation"].get("scale_bits")
        call(node.data, "PUT", f"/v1/jobs/{self.id}/models/0", body_of(self.base))
        # Opened by the leader in its own time; a client that checks in before is told to wait.
        until("the first round", lambda: self.get()["status"]["round"] >= 1)

    def update(self, client, round_number=1):
        """(vector, weight) of a client, the same whoever asks and whenever."""
        rng = np.random.default_rng([self.seed, client, round_number])
        scale = 10.0 ** rng.integers(-4, 2)
        return (rng.standard_normal(self.size) * scale).astype(np.float32), float(rng.integers(1, 1000)) + 0.25

    def updates(self, round_number=1):
        return [self.update(c, round_number) for c in range(self.clients)]

    def checkin(self, client, wait=0, timeout=40, via=None):
        return call((via or self.node).data, "POST", f"/v1/jobs/{self.id}/checkins", {"client_id": f"c-{client}"},
                    {"Prefer": f"wait={wait}"} if wait else None, timeout=timeout)

    def selected(self, client, timeout=30, via=None):
        end = time.monotonic() + timeout
        while True:
            try:
                answer = self.checkin(client, wait=5, via=via)
            except (OSError, http.client.HTTPException):
                answer = {"status": "wait"}
            except AssertionError as e:  # told to come again, as the library does
                if ": 503 " not in str(e):
                    raise
                answer = {"status": "wait"}
            if answer["status"] == "selected":
                return answer
            assert time.monotonic() < end and answer["status"] != "done", answer
            time.sleep(0.05)

    def headers(self, client, ticket, weight):
        return {"Content-Type": "application/vnd.safetensors", "FL-Ticket": ticket["upload"]["ticket"],
                "FL-Client": f"c-{client}", "FL-Round": str(ticket["round"]),
                "FL-Base-Version": str(ticket["base_version"]), "FL-Weight": repr(weight)}

    def put(self, client, ticket, body=None, weight=None, extra=None, timeout=60, via=None):
        x, w = self.update(client, ticket["round"])
        order = [2, 0, 1] if client % 3 == 1 else None
        body = body_of(x, order) if body is None else body
        headers = {**self.headers(client, ticket, w if weight is None else weight), **(extra or {})}
        base, url = (via or self.node).data, ticket["upload"]["url"]
        if "://" in url:
            u = urllib.parse.urlsplit(url)
            base, url = f"{u.scheme}://{u.netloc}", u.path
        status, head, data = request(base, "PUT", url, body, headers, timeout)
        return status, head, json.loads(data) if data else {}

    def report(self, client, timeout=60, via=None):
        """A client as the library does it: retries until it has a receipt. via: the node it talks to."""
        end = time.monotonic() + timeout
        ticket = self.selected(client, via=via)
        while True:
            assert time.monotonic() < end, "no receipt"
            try:
                status, _, receipt = self.put(client, ticket, via=via)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if status in (200, 201):
                return receipt
            assert status in (429, 503) or receipt.get("code") in ("not-selected", "upload-busy"), (status, receipt)
            if receipt.get("code") == "not-selected":
                ticket = self.selected(client, via=via)
            time.sleep(float(receipt.get("retry_after", 0.1)))

    def report_all(self, order=None, threads=4, timeout=60):
        order = list(order if order is not None else range(self.clients))
        receipts, errors, lock = {}, [], threading.Lock()

        def work():
            while True:
                with lock:
                    if not order:
                        return
                    client = order.pop(0)
                try:
                    receipts[client] = self.report(client, timeout)
                except Exception as e:  # noqa: BLE001 - told to the test below
                    errors.append((client, e))

        crew = [threading.Thread(target=work) for _ in range(threads)]
        for t in crew:
            t.start()
        for t in crew:
            t.join(timeout + 30)
        assert not errors, errors
        return receipts

    def get(self):
        return call(self.node.api, "GET", f"/v1/jobs/{self.id}")

    def round(self, n=1):
        return call(self.node.api, "GET", f"/v1/jobs/{self.id}/rounds/{n}")

    def version(self):
        return self.get()["status"]["version"]

    def published(self, version=1, timeout=30, via=None):
        def there():
            try:
                return self.version() >= version
            except (OSError, http.client.HTTPException, AssertionError):
                return False
        try:
            until(f"version {version} published", there, timeout)
        except AssertionError:
            print(json.dumps(self.node.state(), indent=1), self.node.redis("HGETALL", f"trib:{{{self.id}}}:r:{version}"))
            print(self.node.logs())
            raise
        status, headers, body = request((via or self.node).data, "GET", f"/v1/jobs/{self.id}/models/{version}")
        assert status == 200, (status, body[:300])
        return vector_of(body)

    def check(self, model, round_number=1, base=None, counted=None):
        """The model is bit-equal to the integer reference and within the bound of the float64 one."""
        updates = self.updates(round_number)
        if counted is not None:
            updates = [updates[c] for c in counted]
        exact, mean, bound = reference(self.base if base is None else base, updates, self.bits)
        assert np.array_equal(model.view(np.uint32), exact.view(np.uint32)), \
            f"{np.count_nonzero(model != exact)} of {len(model)} differ from the integer reference"
        worst = np.max(np.abs(model.astype(np.float64) - mean) / bound)
        assert worst <= 1.0, f"error is {worst} of the bound"

    def delete(self):
        call(self.node.api, "POST", f"/v1/jobs/{self.id}:stop", expect=(200, 202, 409))
        call(self.node.api, "DELETE", f"/v1/jobs/{self.id}?purge=1", expect=(204, 200))
