# SPDX-License-Identifier: Apache-2.0
"""Redis and Sentinels that want a login: our own Redis, an ACL user with few rights, wrong and missing passwords."""
import contextlib
import os
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cluster import BIN, Job, Node, request, until  # noqa: E402
from sentinel import free_port  # noqa: E402

PASSWORD = "s3cret'\" #word$"
# What docs/access.md says a user needs.
RIGHTS = ("~trib:*", "&trib:*", "+@all", "-@dangerous", "-@scripting", "+fcall", "+function", "+role", "+info")


def password_file(folder, text=PASSWORD):
    path = os.path.join(str(folder), "password")
    with open(path, "w") as f:
        f.write(text + "\n")
    os.chmod(path, 0o600)
    return path


def cli(port, *words, password=None, user=None):
    env = {**os.environ, **({"REDISCLI_AUTH": password} if password else {})}
    out = subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(port), *(["--user", user] if user else []),
                          *map(str, words)], capture_output=True, text=True, timeout=10, env=env)
    return out.stdout.strip() + out.stderr.strip()


@contextlib.contextmanager
def server(*lines, sentinel=False):
    """A redis-server on a port of its own with a configuration of these lines."""
    with tempfile.TemporaryDirectory(prefix="trib-auth-") as folder:
        port, conf = free_port(), os.path.join(folder, "redis.conf")
        with open(conf, "w") as f:
            f.write("\n".join((f"port {port}", "bind 127.0.0.1", f"dir {folder}", *lines)) + "\n")
        process = subprocess.Popen(["redis-server", conf, *(["--sentinel"] if sentinel else ["--save", ""])],
                                   stdout=subprocess.DEVNULL)
        try:
            until("redis", lambda: cli(port, "PING").startswith(("PONG", "NOAUTH")), 30)
            yield port
        finally:
            process.terminate()
            process.wait(10)


class Orchestrator:
    """One process alone; ready when it leads."""

    def __init__(self, folder, *words):
        self.dir, self.log = str(folder), os.path.join(str(folder), "log")
        self.admin = f"unix:{self.dir}/admin.sock"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([f"{BIN}/tributary-orchestrator", "--listen", "127.0.0.1:0", "--admin",
                                             self.admin, *map(str, words)], stderr=log, stdout=log)

    def ready(self):
        assert self.process.poll() is None, self.said()
        try:
            return request(self.admin, "GET", "/readyz", timeout=5)[0] == 200
        except OSError:
            return False

    def said(self):
        with open(self.log) as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def works(node, seed):
    job = Job(node, size=20000, clients=2, seed=seed)
    job.report_all()
    job.check(job.published(1))


@pytest.mark.parametrize("user", (None, "tributary"))
def test_our_own_redis_wants_the_password(tmp_path, user):
    with Node("--redis-password-file", password_file(tmp_path), *(["--redis-user", user] if user else [])) as node:
        works(node, 1)
        assert "NOAUTH" in node.redis("GET", "trib:fence") or node.redis("GET", "trib:fence") == ""
        for name, pid in node.endpoints()["pids"].items():
            for what in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{what}", "rb") as f:
                    assert PASSWORD.encode() not in f.read(), (name, what)
        with open(os.path.join(node.dir, "redis-users.conf")) as f:
            assert PASSWORD not in f.read()
        assert PASSWORD not in node.logs(10**7)


def test_a_user_with_few_rights_is_enough(tmp_path):
    with server("user default off", "user trib on >pw-1 " + " ".join(RIGHTS)) as port, \
            Node("--redis", f"127.0.0.1:{port}", "--redis-user", "trib", "--redis-password-file",
                 password_file(tmp_path, "pw-1")) as node:
        works(node, 2)
        assert "error=\"NO" not in node.logs(10**7)
        assert "NOPERM" in cli(port, "CONFIG", "GET", "dir", password="pw-1", user="trib")


def test_a_wrong_password_is_said_and_a_right_one_taken_later(tmp_path):
    with server("user default off", "user adm on >adm ~* &* +@all", "user trib on >other ~* &* +@all") as port, \
            Orchestrator(tmp_path, "--redis", f"127.0.0.1:{port}", "--redis-user", "trib", "--redis-password-file",
                         password_file(tmp_path)) as o:
        until("it says so", lambda: "WRONGPASS" in o.said(), 30)
        line = next(x for x in o.said().splitlines() if "WRONGPASS" in x)
        assert "denied" in line and "user=trib" in line and "hint=--redis-password-file" in line, line
        assert not o.ready() and PASSWORD not in o.said()
        assert cli(port, "ACL", "SETUSER", "trib", "resetpass", ">" + PASSWORD, password="adm", user="adm") == "OK"
        until("ready", o.ready, 60)


def test_no_password_is_said(tmp_path):
    with server("requirepass x") as port, Orchestrator(tmp_path, "--redis", f"127.0.0.1:{port}") as o:
        until("it says so", lambda: "NOAUTH" in o.said() and "password=none" in o.said(), 30)
        assert not o.ready()


def test_sentinels_have_a_login_of_their_own(tmp_path):
    (tmp_path / "s").mkdir()
    with server("requirepass redis-pw") as port, \
            server("requirepass sentinel-pw", f"sentinel monitor m 127.0.0.1 {port} 1",
                   "sentinel auth-pass m redis-pw", sentinel=True) as sentinel:
        address = f"sentinel://127.0.0.1:{sentinel}/m?confirm=0"
        words = ["--redis", address, "--redis-password-file", password_file(tmp_path, "redis-pw")]
        with Orchestrator(tmp_path, *words, "--id", "a") as o:
            until("it says so", lambda: "NOAUTH" in o.said() and "hint=--sentinel-password-file" in o.said(), 30)
        with Orchestrator(tmp_path, *words, "--id", "b", "--sentinel-password-file",
                          password_file(tmp_path / "s", "sentinel-pw")) as o:
            until("ready", o.ready, 60)


def test_files_that_do_not_do(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for words in (["--redis-password-file", tmp_path / "none"], ["--redis-password-file", empty], ["--redis-user", "x"],
                  ["--sentinel-user", "x"]):
        for program in ("orchestrator", "gateway", "agent"):
            done = subprocess.run([f"{BIN}/tributary-{program}", *map(str, words)], capture_output=True, text=True,
                                  timeout=20, cwd=tmp_path)
            assert done.returncode == 1 and "password-file" in done.stderr + done.stdout, (program, words, done)
