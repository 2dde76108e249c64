# SPDX-License-Identifier: Apache-2.0
"""The systems under test. Each is started once per workload, then asked for rounds in turn with the others.

System.round(conns) -> dict of one round: what the sender told (monotonic ns), and `published_ns` of the round's model.
"""
import json
import os
import queue
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

import measure

ROOT = measure.ROOT
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(ROOT, "tests/system"))
PROGRAMS = os.path.join(ROOT, "build/release/tests/bench")  # run.py sets it
BASELINES = os.path.join(ROOT, "build/bench")
SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
THREADS = str(max(1, min(16, os.cpu_count() or 1)))
PYTHON = "/usr/bin/python3"


class Skipped(Exception):
    """This system cannot run here; the text says why."""


class Work:
    """A workload: `updates` clients, each with the same update of `elements` floats (a file in memory)."""

    def __init__(self, name, elements, updates, conns=None, folder=None):
        import cluster
        self.name, self.elements, self.updates = name, elements, updates
        self.conns = min(conns or updates, updates)
        self.mb = elements * 4 / 1e6
        self.folder = tempfile.TemporaryDirectory(prefix="trib-bench-", dir=folder or SHM)
        values = (np.random.default_rng(3).standard_normal(elements, dtype=np.float32) * np.float32(1e-3))
        body = cluster.body_of(values)
        self.size = len(body)
        self.skip = self.size - 4 * elements  # the safetensors header
        self.body = self.file("body", body)
        self.gb = elements * 4 * updates / 1e9

    def file(self, name, data):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def heads(self, heads):
        return self.file("heads", b"".join(struct.pack("<I", len(h)) + h for h in heads))

    def close(self):
        self.folder.cleanup()


def send(address, work, heads, *, body=True, mode="http", conns=None, rate=0.0, tail=False, save=False, timeout=600,
         then=None):
    """tests/bench/sender.c: (what it told, bodies of the answers). `then` is called before the clients' process ends."""
    saved = os.path.join(work.folder.name, "answers")
    command = [os.path.join(PROGRAMS, "sender"), "-a", address, "-H", work.heads(heads), "-m", mode,
               "-c", str(conns or work.conns), "-t", THREADS]
    command += ["-b", work.body] if body else []
    command += ["-r", str(rate)] if rate else []
    command += ["-e"] if tail else []
    command += ["-o", saved] if save else []
    with subprocess.Popen(command + ["-w"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        try:
            line = process.stdout.readline()
            if line and then:
                then()
            _, errors = process.communicate()
        finally:
            killer.cancel()
    if process.returncode:
        raise RuntimeError(f"sender: {errors.strip()}")
    told = json.loads(line)
    answers = []
    if save:
        with open(saved, "rb") as f:
            data = f.read()
        at = 0
        while at < len(data):
            (n,) = struct.unpack_from("<I", data, at)
            answers.append(data[at + 4:at + 4 + n])
            at += 4 + n
    good = sum(n for code, n in told["codes"].items() if code in ("200", "201"))
    if good != len(heads):
        raise RuntimeError(f"sender: {told['codes']}, wanted {len(heads)} good answers")
    return told, answers


class System:
    name = "?"
    workloads = ("ingest", "small")

    def pids(self):
        return []

    def start(self, work):
        raise NotImplementedError

    def round(self):
        raise NotImplementedError

    def copied(self):
        return None  # not known

    def received_ns(self, row):
        """When the server had read the last byte of the round's last update out of its socket; None: it does not say."""
        return row.get("received_ns")

    def stop(self):
        pass


class Program(System):
    """A server of one process that prints its port, then a line per model published."""

    def __init__(self):
        self.process, self.lines = None, queue.Queue()

    def command(self, work):
        raise NotImplementedError

    def available(self):
        pass

    def launch(self, command, **kw):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, **kw)
        threading.Thread(target=self.read, args=(process,), daemon=True).start()
        return process

    def read(self, process):
        for line in process.stdout:
            self.lines.put(json.loads(line))

    def line(self, key, timeout=300):
        return self.whole_line(key, timeout)[key]

    def whole_line(self, key, timeout=300):
        end = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=min(1, max(0.01, end - time.monotonic())))
            except queue.Empty:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.name} ended: {self.process.stderr.read()[-800:]}") from None
                if time.monotonic() > end:
                    raise
                continue
            if key in line:
                return line

    def start(self, work):
        self.work = work
        self.available()
        self.process = self.launch(self.command(work))
        self.address = f"127.0.0.1:{self.line('port', 60)}"

    def pids(self):
        return [self.process.pid]

    def sent(self):
        raise NotImplementedError

    def round(self):
        told = self.sent()
        return {**told, **self.whole_line("published_ns")}

    def stop(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.process.stderr.close()
            self.process = None


class Floor(Program):
    name = "floor"

    def command(self, work):
        return [os.path.join(PROGRAMS, "floor"), str(work.elements), str(work.updates),
                str(min(2, os.cpu_count() or 1))]

    def sent(self):
        w = self.work
        head = struct.pack("<IIQ", w.skip, 0, w.size)
        return send(self.address, w, [head] * w.updates, mode="line")[0]

    def copied(self):
        return 0


class GrpcCpp(Program):
    name = "grpc-cpp"

    def available(self):
        for program in ("grpc_server", "grpc_client"):
            if not os.path.exists(os.path.join(BASELINES, program)):
                raise Skipped(f"build/bench/{program} was not built (libgrpc++-dev, protobuf-compiler-grpc)")

    def command(self, work):
        return [os.path.join(BASELINES, "grpc_server"), str(work.elements), str(work.updates)]

    def sent(self):
        w = self.work
        out = subprocess.run([os.path.join(BASELINES, "grpc_client"), self.address, w.body, str(w.skip), str(w.conns),
                              str(w.updates)], capture_output=True, text=True, timeout=600)
        if out.returncode:
            raise RuntimeError(f"grpc_client: {out.stdout} {out.stderr}")
        return json.loads(out.stdout)


class GrpcCppPlain(GrpcCpp):
    """The generated service with gRPC's defaults."""
    name = "grpc-cpp-plain"

    def command(self, work):
        return [*super().command(work), "plain"]


class GrpcPython(GrpcCpp):
    """The same client as grpc-cpp."""
    name = "grpc-python"

    def command(self, work):
        return [PYTHON, os.path.join(HERE, "baselines/grpc_server.py"), str(work.elements), str(work.updates)]

    def available(self):
        super().available()
        needs("grpc", "google.protobuf")


class Aiohttp(Program):
    name = "aiohttp"

    def available(self):
        needs("aiohttp")

    def command(self, work):
        return [PYTHON, os.path.join(HERE, "baselines/aiohttp_server.py"), str(work.elements), str(work.updates)]

    def sent(self):
        w = self.work
        heads = [(f"PUT /updates/{i} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\n"
                  f"FL-Skip: {w.skip}\r\nContent-Length: {w.size}\r\n\r\n").encode() for i in range(w.updates)]
        return send(self.address, w, heads)[0]


class Broker(Aiohttp):
    """Clients push to a broker (Redis list); a proxy takes from it and calls an HTTP function."""
    name = "broker"

    def available(self):
        needs("aiohttp")
        if self.work.size > 512e6:
            raise Skipped("Redis takes values up to 512 MB")
        if self.work.gb > 6:
            raise Skipped("a broker holds every update: more than 6 GB are not tried")

    def start(self, work):
        self.work = work
        self.dir = tempfile.TemporaryDirectory(prefix="trib-broker-")
        self.others = []
        super().start(work)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.redis = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                       "--appendonly", "no", "--dir", self.dir.name],
                                      stdout=subprocess.DEVNULL)
        self.others.append(self.redis)
        self.broker = f"127.0.0.1:{port}"
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.others.append(subprocess.Popen([PYTHON, os.path.join(HERE, "baselines/broker_proxy.py"), self.broker,
                                             self.address, str(work.skip)]))

    def pids(self):
        return super().pids() + [p.pid for p in self.others]

    def sent(self):
        w = self.work
        head = f"*3\r\n$5\r\nRPUSH\r\n$7\r\nupdates\r\n${w.size}\r\n".encode()
        return send(self.broker, w, [head] * w.updates, mode="line", tail=True)[0]

    def stop(self):
        for p in reversed(getattr(self, "others", [])):
            p.kill()
            p.wait()
        self.others = []
        super().stop()
        if hasattr(self, "dir"):
            self.dir.cleanup()


class Flower(Program):
    """Flower from PyPI in a virtual environment of its own (build/bench/flower, made by tests/bench/flower.sh)."""
    name = "flower"
    workloads = ("ingest",)
    python = os.path.join(BASELINES, "flower/bin/python")

    def available(self):
        if not os.path.exists(self.python):
            try:
                with open(os.path.join(BASELINES, "flower.log")) as f:
                    why = f.read().strip().splitlines()[-1:]
            except OSError:
                why = []
            raise Skipped("pip could not install it: " + " ".join(why or ["not tried"]))
        if self.work.updates > 20:
            raise Skipped("a process per client: more than 20 do not fit this machine")

    def command(self, work):
        return [self.python, os.path.join(HERE, "baselines/flower.py"), "server", str(work.elements), str(work.updates)]

    def start(self, work):
        super().start(work)
        self.clients = Program()
        self.clients.name = "flower's clients"
        self.clients.process = self.clients.launch([self.python, os.path.join(HERE, "baselines/flower.py"), "clients",
                                                    self.address, str(work.elements), str(work.updates)])
        self.clients.line("ready", 60)

    def round(self):
        before = self.clients_cpu()
        self.clients.process.stdin.write("go\n")
        self.clients.process.stdin.flush()
        began = self.clients.line("began_ns", 120)
        last = self.lines.get(timeout=60)
        return {"began_ns": began, **last, "last_answer_ns": last["published_ns"], "p50_us": 0.0, "p99_us": 0.0,
                "retries": 0, "cpu_s": self.clients_cpu() - before}

    def clients_cpu(self):
        top = self.clients.process.pid
        with open(f"/proc/{top}/task/{top}/children") as f:
            return measure.cpu([top, *map(int, f.read().split())])

    def stop(self):
        if getattr(self, "clients", None):
            self.clients.stop()
            self.clients = None
        super().stop()


def needs(*modules):
    out = subprocess.run([PYTHON, "-c", "import " + ", ".join(modules)], capture_output=True, text=True)
    if out.returncode:
        raise Skipped(out.stderr.strip().splitlines()[-1])


class Watch(threading.Thread):
    """When each version was published, by the job's event stream in Redis (a blocked XREAD)."""

    def __init__(self, address, job):
        super().__init__(daemon=True)
        self.key, self.seen, self.ready = f"trib:{{{job}}}:ev", queue.Queue(), threading.Event()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(address[5:])
        self.start()
        self.ready.wait()

    def run(self):
        last = "$"
        try:
            while True:
                words = ["XREAD", "BLOCK", "0", "STREAMS", self.key, last]
                self.sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(
                    f"${len(w)}\r\n{w}\r\n".encode() for w in words))
                self.ready.set()
                data = b""
                while not data.endswith(b"\r\n") or not complete(data):
                    got = self.sock.recv(65536)
                    if not got:
                        return
                    data += got
                now = time.monotonic_ns()
                ids = re.findall(rb"\r\n(\d+-\d+)\r\n", data)
                last = ids[-1].decode() if ids else last
                for _ in range(data.count(b"model.published")):
                    self.seen.put(now)
        except OSError:
            return

    def stop(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def complete(data):
    """Whether `data` holds one whole RESP reply."""
    def skip(at):
        end = data.index(b"\r\n", at)
        kind, n = data[at:at + 1], data[at + 1:end]
        at = end + 2
        if kind == b"*":
            for _ in range(max(0, int(n))):
                at = skip(at)
        elif kind == b"$" and int(n) >= 0:
            at += int(n) + 2
            if at > len(data):
                raise ValueError
        return at
    try:
        return skip(0) <= len(data)
    except ValueError:
        return False


class Tributary(System):
    """A whole node (`tributary up`: redis, orchestrator, gateway, agent, zygote, functions), shared by workloads."""
    name = "tributary"
    spec = {}
    nodes = {}  # arena bytes -> Node

    # Two jobs with 20 slots of 232 MB each, their sums and versions; no more than the machine has beside the others.
    ARENA = min(14 << 30, int(0.6 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))

    def __init__(self, arena=ARENA):
        self.arena, self.watch, self.job = arena, None, None

    @classmethod
    def node_of(cls, arena):
        from cluster import Node
        if arena not in cls.nodes:
            cls.nodes[arena] = Node("--arena-bytes", str(arena))
        return cls.nodes[arena]

    @classmethod
    def stop_nodes(cls):
        while cls.nodes:
            cls.nodes.popitem()[1].stop()

    def start(self, work):
        from cluster import Job
        self.work = work
        self.node = self.node_of(self.arena)
        spec = dict(self.spec)
        if work.name != "memory":  # two jobs share the node: what does not fit a share is pushed back
            spec["placement"] = {"arena_bytes": int(0.45 * self.arena)}
        self.job = Job(self.node, size=work.elements, clients=work.updates, rounds=100000, seed=4, spec=spec)
        self.watch = Watch(self.node.endpoints()["redis"], self.job.id)
        self.address = self.node.data.split("//")[1]
        self.tree = self.node.tree()

    def pids(self):
        return self.tree

    def refresh(self):
        """Functions come and go: who is there now."""
        self.tree = self.node.tree()

    def tickets(self):
        """Check-ins of every client, over the same sender for many."""
        w = self.work
        heads = []
        for i in range(w.updates):
            body = json.dumps({"client_id": f"c-{i}"})
            heads.append((f"POST /v1/jobs/{self.job.id}/checkins HTTP/1.1\r\nHost: bench\r\nPrefer: wait=20\r\n"
                          f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
        told, answers = send(self.address, w, heads, body=False, save=True)
        tickets = [json.loads(a) for a in answers]
        for i, t in enumerate(tickets):
            if t["status"] != "selected":  # the round was not open yet
                tickets[i] = self.job.selected(i)
        return told, tickets

    def heads(self, tickets):
        w = self.work
        out = []
        for i, t in enumerate(tickets):
            headers = {**self.job.headers(i, t, 1.0), "Host": "bench", "Content-Length": str(w.size)}
            out.append((f"PUT {t['upload']['url']} HTTP/1.1\r\n"
                        + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode())
        return out

    def round(self):
        return self.upload(self.heads(self.tickets()[1]))

    def prepare(self):
        self.ready = self.heads(self.tickets()[1])

    def upload(self, heads, rate=0.0):
        published = []
        told = send(self.address, self.work, heads, rate=rate,
                    then=lambda: published.append(self.watch.seen.get(timeout=300)))[0]
        return {**told, "published_ns": published[0]}

    def received_ns(self, row):
        return int(self.node.metric("gateway", "tributary_upload_received_ns"))

    def copied(self):
        return int(self.node.metric("gateway", "tributary_payload_bytes_copied_total"))

    def stop(self):
        from cluster import call
        if self.watch:
            self.watch.stop()
            self.watch = None
        if self.job:
            call(self.node.api, "POST", f"/v1/jobs/{self.job.id}:stop", {})
            call(self.node.api, "DELETE", f"/v1/jobs/{self.job.id}")
            self.job = None


class TributaryF32(Tributary):
    name = "tributary-f32"
    spec = {"aggregation": {"accumulate": "f32"}}
