# SPDX-License-Identifier: Apache-2.0
"""The command line against the real service: output, exit codes, messages."""
import http.server
import json
import os
import pty
import select
import subprocess
import threading
import time

import numpy as np
import pytest

import lib
from tributary import load

SPEC = {"apiVersion": "tributary/v1", "kind": "AggregationJob",
        "spec": {"sync": {"goal": 2, "quorum": 1, "deadline_s": 30}, "stop": {"rounds": 2}}}
MODEL = {"w": np.ones((4, 4), "<f4")}


def submit(s, name, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**SPEC, "metadata": {"name": name}}))
    done = s.cli("submit", path)
    assert done.returncode == 0, done
    return done.stdout.strip()


def upload_model(s, job):
    with s.admin_client() as admin:
        admin.upload_initial_model(job, MODEL)


def take_part(s, job):
    """Two clients until the job is over, in threads."""
    def one(name):
        with s.client(job, name) as client:
            client.run(lambda p, c, n: ({"w": np.ones_like(p["w"])}, 1), wait=5)
    threads = [threading.Thread(target=one, args=(f"c-{i}",)) for i in range(2)]
    for t in threads:
        t.start()
    return threads


def test_help_and_version_need_no_service():
    program = str(lib.BIN / "tributary")

    def run(*words):
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=10)
    assert run("version").stdout.startswith("tributary 0.")
    assert run("--version").stdout == run("version").stdout
    overview = run("help").stdout
    for name in ("up", "submit", "get", "watch", "rounds", "model", "stop", "delete", "keep"):
        assert f"\n  {name}" in overview
        text = run(name, "--help")
        assert text.returncode == 0 and text.stdout.startswith(f"usage: tributary {name}")
        assert "exit codes: 0 ok" in text.stdout
        assert run("help", name).stdout == text.stdout
    assert run().returncode == 2 and run("frobnicate").returncode == 2
    assert run("get", "a", "b").returncode == 2 and run("rounds").returncode == 2
    assert run("model", "x").returncode == 2 and "-o FILE" in run("model", "x").stderr
    assert run("get", "--format", "xml").returncode == 2
    assert run("get", "--api", "ftp://x").returncode == 2
    assert run("get", "no/such").returncode == 2
    assert run("get", "--frob").returncode == 2


def test_unreachable_is_exit_code_3():
    done = subprocess.run([lib.BIN / "tributary", "get", "--api", "http://127.0.0.1:1"],
                          capture_output=True, text=True, timeout=15)
    assert done.returncode == 3 and "no answer from http://127.0.0.1:1" in done.stderr
    assert done.stdout == ""


def test_a_standby_behind_a_balancer_is_not_the_end():
    """Two orchestrators behind one address: whoever reaches the one that does not lead is told so, and tries again."""
    asked = []

    class Standby(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.path, self.headers["Idempotency-Key"]))
            leads = len(asked) == 3
            body = json.dumps({"status": {"phase": "Paused"}} if leads else
                              {"status": 503, "code": "not-leader", "title": "This orchestrator is not the leader"})
            self.send_response(200 if leads else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Standby) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = subprocess.run([lib.BIN / "tributary", "pause", "job_00000000000000000000000001", "--api",
                               f"http://127.0.0.1:{server.server_address[1]}"], capture_output=True, text=True,
                              timeout=60, check=False)
        server.shutdown()
    assert done.returncode == 0, done
    assert len(asked) == 3 and len(set(asked)) == 1  # the same request, recognisable


JOB_ID = "job_00000000000000000000000001"
STANDBY = (503, {"status": 503, "code": "not-leader", "title": "This orchestrator is not the leader"})


class Told(http.server.ThreadingHTTPServer):
    """Gives the answers (status, body, Location) of a list, the last one for ever; notes who came with which token."""

    def __init__(self, host, *answers):
        told = self
        self.asked, self.answers = [], list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                told.asked.append((self.command, self.headers["Authorization"]))
                status, body, *where = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if where:
                    self.send_header("Location", where[0])
                self.end_headers()
                self.wfile.write(data)
            do_POST = do_GET

            def log_message(self, *_):
                pass
        super().__init__((host, 0), Handler)
        self.url = "http://%s:%d" % self.server_address
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def run_with_token(api, *words):
    return subprocess.run([lib.BIN / "tributary", *words, "--api", api, "--token", "flo_x"], capture_output=True,
                          text=True, timeout=60, check=False)


@pytest.mark.parametrize("host, hosts, token", (("127.0.0.1", (), True), ("127.0.0.2", (), False),
                                                ("127.0.0.2", ("--hosts", "localhost,127.0.0.2"), True),
                                                ("127.0.0.2", ("--hosts", "127.0.0.20,27.0.0.2"), False)))
def test_the_token_goes_where_it_may(host, hosts, token, tmp_path):
    with Told(host, (200, {"w": 1})) as gateway, Told("127.0.0.1", (307, {}, gateway.url + "/x")) as api:
        done = run_with_token(api.url, "model", JOB_ID, "-o", tmp_path / "m", *hosts)
        assert done.returncode == 0 and json.loads((tmp_path / "m").read_text()) == {"w": 1}, done
        assert api.asked == [("GET", "Bearer flo_x")]
        assert gateway.asked == [("GET", "Bearer flo_x" if token else None)]
    with Told(host, (200, {"status": {"phase": "Paused"}})) as leader, \
            Told("127.0.0.1", (*STANDBY, leader.url + "/x"), (200, {"status": {"phase": "Paused"}})) as api:
        done = run_with_token(api.url, "pause", JOB_ID, *hosts)
        assert done.returncode == 0, done
        assert leader.asked == ([("POST", "Bearer flo_x")] if token else [])
        assert len(api.asked) == (1 if token else 2)


def test_what_was_meant_for_one_host_is_not_given_to_another():
    """A redirect of a write is not followed elsewhere; who was sent to a stranger has no token any more at home."""
    with Told("127.0.0.2", (200, {})) as stranger:
        with Told("127.0.0.1", (307, {}, stranger.url + "/x")) as api:
            done = run_with_token(api.url, "pause", JOB_ID)
            assert done.returncode == 4 and stranger.url in done.stderr and "--hosts" in done.stderr, done
        assert stranger.asked == []
        with Told("127.0.0.1", (307, {}, stranger.url + "/x"), (200, {})) as api:
            stranger.answers = [(307, {}, api.url + "/y")]
            run_with_token(api.url, "get", JOB_ID)
            assert stranger.asked == [("GET", None)] and api.asked == [("GET", "Bearer flo_x"), ("GET", None)]


def test_a_job_from_submit_to_delete(shared_service, tmp_path):
    s = shared_service
    job = submit(s, "cli-whole", tmp_path)
    assert job.startswith("job_")
    assert json.loads(s.cli("get", job, "--format", "json").stdout)["metadata"]["id"] == job
    upload_model(s, job)
    threads = take_part(s, job)
    watch = s.cli("watch", "cli-whole", timeout=60)
    for t in threads:
        t.join(30)
    assert watch.returncode == 0, watch
    assert "Succeeded" in watch.stderr and "version 2" in watch.stderr
    listing = s.cli("get").stdout
    assert listing.splitlines()[0].split()[:3] == ["NAME", "ID", "PHASE"]
    row = [line for line in listing.splitlines() if job in line][0].split()
    assert row[0] == "cli-whole" and row[2:5] == ["Succeeded", "2", "2"]
    one = s.cli("get", "cli-whole").stdout
    assert "phase        Succeeded" in one and s.data in one
    rounds = s.cli("rounds", "cli-whole").stdout.splitlines()
    assert rounds[0].split()[0] == "ROUND" and len(rounds) == 3
    assert {line.split()[1] for line in rounds[1:]} == {"published"}
    out = tmp_path / "m.safetensors"
    for version, value in ((0, 1), (1, 2), ("latest", 3)):
        done = s.cli("model", "cli-whole", "-v", version, "-o", out)
        assert done.returncode == 0, done
        assert np.all(np.frombuffer(load(out.read_bytes())["w"].data, "<f4") == value)
    piped = subprocess.run([lib.BIN / "tributary", "model", job, "-o", "-", "--api", s.api],
                           capture_output=True, timeout=15)
    assert piped.stdout == out.read_bytes()
    assert s.cli("model", job, "-v", "9", "-o", tmp_path / "none").returncode == 4
    assert not list(tmp_path.glob("none*"))
    assert s.cli("watch", job).returncode == 0  # over already
    assert s.cli("delete", "cli-whole").returncode == 0
    gone = s.cli("get", job)
    assert gone.returncode == 4 and "no-such-job" in gone.stderr


def test_stop_and_watch_of_a_stopped_job(shared_service, tmp_path):
    s = shared_service
    job = submit(s, "cli-stop", tmp_path)
    upload_model(s, job)
    watch = subprocess.Popen([lib.BIN / "tributary", "watch", job, "--api", s.api], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.5)
    busy = s.cli("delete", job)
    assert busy.returncode == 4 and "409" in busy.stderr
    assert s.cli("stop", job).returncode == 0
    out, err = watch.communicate(timeout=20)
    assert watch.returncode == 0 and "Stopped" in err
    assert "job.stopped" in out


def test_specs_are_checked(shared_service, tmp_path):
    s = shared_service
    bad = {**SPEC, "metadata": {"name": "bad"}, "spec": {"mode": "async", "sync": {"gaol": 1}}}
    done = s.cli("submit", "-", input=json.dumps(bad))
    assert done.returncode == 4 and "invalid-spec" in done.stderr and "/spec" in done.stderr
    assert done.stdout == ""
    assert s.cli("submit", "-", input="{").returncode == 2
    assert s.cli("submit", "-", input="").returncode == 2
    assert s.cli("submit", tmp_path / "none").returncode == 2
    good = {**SPEC, "metadata": {"name": "only-checked"}}
    done = s.cli("submit", "--validate", "-", input=json.dumps(good))
    assert done.returncode == 0 and "fedavg" in done.stdout
    assert "only-checked" not in s.cli("get").stdout


def test_names_must_be_unique_to_be_used(shared_service, tmp_path):
    s = shared_service
    jobs = [submit(s, "cli-twice", tmp_path) for _ in range(2)]
    done = s.cli("get", "cli-twice")
    assert done.returncode == 4 and "2 jobs are called" in done.stderr
    assert s.cli("get", "cli-none").returncode == 4
    for job in jobs:
        s.cli("stop", job)
        assert s.cli("delete", job).returncode == 0


@pytest.mark.parametrize("env, moves", (({}, True), ({"NO_COLOR": "1"}, False)))
def test_watch_on_a_terminal(shared_service, tmp_path, env, moves):
    s = shared_service
    job = submit(s, "cli-tty" + ("1" if moves else "2"), tmp_path)
    upload_model(s, job)
    master, slave = pty.openpty()
    watch = subprocess.Popen([lib.BIN / "tributary", "watch", job, "--api", s.api],
                             stdout=subprocess.DEVNULL, stderr=slave,
                             env={**os.environ, "TERM": "xterm", **env})
    os.close(slave)
    threads = take_part(s, job)
    got, end = b"", time.monotonic() + 40 * lib.SLOW
    while time.monotonic() < end:
        if select.select([master], [], [], 0.5)[0]:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            if not piece:
                break
            got += piece
    os.close(master)
    assert watch.wait(10) == 0
    for t in threads:
        t.join(30)
    assert (b"\r\x1b[K" in got) == moves and (b"/2  version" in got) == moves
    assert b"Succeeded after 2 rounds" in got
