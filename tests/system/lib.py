# SPDX-License-Identifier: Apache-2.0
"""Helpers of the system tests: a private `tributary up` per test, raw HTTP, Redis, metrics.
Everything has a time limit. Used by tests/priv and tests/bench as well."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("TRIBUTARY_BIN", ROOT / "build" / "bin"))
# Sanitizers and a loaded machine make everything slower; limits are multiplied by this.
SLOW = float(os.environ.get("TRIBUTARY_TEST_SLOW", "1"))
PROGRAMS = ("redis", "orchestrator", "agent", "gateway")

sys.path.insert(0, str(ROOT / "client" / "python"))


def wait_for(what, timeout=10.0, every=0.02, about="condition"):
    """Calls what() until it answers something true; returns that. AssertionError when late."""
    end = time.monotonic() + timeout * SLOW
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{about}: not within {timeout * SLOW:g} s")
        time.sleep(every)


# ---- processes ----

def alive(pid):
    """Runs, and is no zombie (a killed leader is one before its other threads have let go of their sockets)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def children(pid):
    """Process ids of the direct children."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text().split()]
    return found


def descendants(pid):
    """Process ids of children, their children, and so on."""
    found, todo = [], [pid]
    while todo and len(found) < 10000:
        new = children(todo.pop())
        found += new
        todo += new
    return found


def command(pid):
    """argv of a process, [] when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def rss(pid):
    """Resident bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) * 1024


# ---- HTTP ----

class Reply:
    """status, headers (case-insensitive), body (bytes), json()."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """Problem code, None if it is none."""
        try:
            return self.json().get("code")
        except (ValueError, AttributeError):
            return None

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def http_request(method, url, body=None, headers=None, timeout=15.0):
    """One exchange, no redirects, no retries. url: http://host:port/path or unix:/socket:/path.
    body: bytes, str, or anything for JSON (dict, list)."""
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    if isinstance(body, str):
        body = body.encode()
    timeout *= SLOW
    if url.startswith("unix:"):
        path, _, target = url[5:].rpartition(":")
        connection = _UnixConnection(path, timeout)
    else:
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        target = parts.path + ("?" + parts.query if parts.query else "")
    try:
        connection.request(method, target or "/", body=body, headers=headers)
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def raw_connect(url, timeout=10.0):
    """A plain socket to the host of a URL."""
    parts = urllib.parse.urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout * SLOW)


def raw_http(url, data, timeout=10.0, shut=False):
    """Sends bytes as they are, returns all that comes back until the end or the timeout."""
    with raw_connect(url, timeout) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
        got = bytearray()
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while piece := s.recv(65536):
                got += piece
        return bytes(got)


def parse_metrics(text):
    """Prometheus text -> {'name{labels}': value}."""
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


# ---- the service ----

class Service:
    """A private `tributary up`: `with Service(tmp_path) as s: ...`

    api, data: URLs. pids: {"up", "redis", "orchestrator", "agent", "gateway"} as of the last look
    (endpoints()). options: more words for `up`; env: more environment."""

    def __init__(self, directory, *options, env=None, bin_dir=None, start=True, timeout=20.0):
        self.dir = Path(directory) / "trib"
        self.bin = Path(bin_dir or BIN)
        self.options = list(options)
        self.env = {**os.environ, **(env or {})}
        self.env.pop("TRIBUTARY_API", None)
        self.process = None
        self.log_path = Path(directory) / "up.log"
        if start:
            self.start(timeout)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind and sys.stderr:
            print(self.logs(), file=sys.stderr)
        self.stop()

    def start(self, timeout=20.0, wait=True):
        program = self.bin / "tributary"
        assert program.exists(), f"{program} is not built (run make)"
        words = [str(program), "up", "--dir", str(self.dir), "--api", "127.0.0.1:0",
                 "--data", "127.0.0.1:0", "--die-with-parent"]
        if "--arena-bytes" not in self.options:
            words += ["--arena-bytes", str(256 << 20)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(words + self.options, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=self.env)
        if wait:
            self.wait_ready(timeout)

    def wait_ready(self, timeout=20.0):
        def look():
            if self.process.poll() is not None:
                raise AssertionError(f"up ended with {self.process.returncode}:\n{self.logs()}")
            try:
                e = self.endpoints()
                return e["ready"] and e["pids"]["up"] == self.process.pid
            except (OSError, ValueError, KeyError):
                return False
        try:
            wait_for(look, timeout, about="service ready")
        except AssertionError as e:
            text = self.logs()
            self.stop()
            raise AssertionError(f"{e}\n{text}") from None

    def stop(self, timeout=20.0):
        """Ends it in order; SIGKILL to all of it when that takes too long. Returns the exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            family = descendants(self.process.pid)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout * SLOW)
            except subprocess.TimeoutExpired:
                for pid in [self.process.pid, *family]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait(5)
        return self.process.returncode

    def endpoints(self):
        return json.loads((self.dir / "endpoints.json").read_text())

    @property
    def api(self):
        return self.endpoints()["api"]

    @property
    def data(self):
        return self.endpoints()["data"]

    @property
    def pids(self):
        return self.endpoints()["pids"]

    def functions(self):
        """Process ids below the agent: zygote and aggregator functions."""
        return descendants(self.pids["agent"])

    def kill(self, name, number=signal.SIGKILL):
        """Signals one program; returns its process id."""
        pid = self.pids[name]
        os.kill(pid, number)
        return pid

    def kill_and_wait(self, name, timeout=15.0):
        """kill -9, then waits until another process has its place and all is ready again."""
        pid = self.kill(name)
        wait_for(lambda: (e := self.endpoints())["ready"] and e["pids"][name] not in (0, pid),
                 timeout, about=f"{name} again")

    def logs(self, lines=25):
        """The last lines of every log."""
        text = []
        for path in [self.log_path, *sorted((self.dir / "logs").glob("*.log"))]:
            with contextlib.suppress(OSError):
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                text.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(text)

    def admin(self, name, path, timeout=10.0):
        """GET on a program's admin socket."""
        return http_request("GET", f"{self.endpoints()['admin'][name]}:{path}", timeout=timeout)

    def metrics(self, name):
        """{'tributary_x_total{reason="y"}': 3.0} of orchestrator, agent or gateway."""
        reply = self.admin(name, "/metrics")
        assert reply.status == 200, reply
        return parse_metrics(reply.body.decode())

    def redis(self, *words, timeout=10.0):
        """redis-cli's answer as text without the last line feed."""
        path = self.endpoints()["redis"].removeprefix("unix:")
        done = subprocess.run(["redis-cli", "-s", path, *map(str, words)], capture_output=True,
                              text=True, timeout=timeout * SLOW, check=True)
        return done.stdout.rstrip("\n")

    def redis_hash(self, key):
        """HGETALL as a dict."""
        flat = self.redis("HGETALL", key).split("\n")
        return dict(zip(flat[::2], flat[1::2]))

    def cli(self, *words, input=None, timeout=30.0, env=None):
        """Runs `tributary WORDS` against this service; a CompletedProcess with text."""
        return subprocess.run([str(self.bin / "tributary"), *map(str, words)], input=input,
                              capture_output=True, text=True, timeout=timeout * SLOW, check=False,
                              env={**self.env, "TRIBUTARY_API": self.api, **(env or {})})

    def client(self, job, name, **options):
        """tributary.Client of this service."""
        from tributary import Client
        options = {"timeout": 20 * SLOW, "retry_for": 30 * SLOW, **options}
        return Client(self.data, job, name, **options)

    def admin_client(self, **options):
        """tributary.Admin of this service."""
        from tributary import Admin
        return Admin(self.api, **{"timeout": 20 * SLOW, "retry_for": 30 * SLOW, **options})

    def new_job(self, tensors, spec=None, name=None):
        """Submits a job, uploads its initial model; returns its id."""
        with self.admin_client() as admin:
            job = admin.submit(spec or {}, name=name)["metadata"]["id"]
            admin.upload_initial_model(job, tensors)
            return job
