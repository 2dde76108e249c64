# SPDX-License-Identifier: Apache-2.0
"""`tributary up` with stand-ins for the other programs: supervision alone, fast."""
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

import lib

STAND_IN = r'''#!/usr/bin/python3
import os, signal, socket, sys, threading, time
name = os.path.basename(sys.argv[0])[10:]
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print(name, sys.argv[1:], flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.environ.get("STUCK") == name
              else lambda *_: os._exit(0))
if os.environ.get("USAGE") == name:
    print("no such option --x", file=sys.stderr)
    os._exit(2)
path = options["--admin"][5:]
if os.path.exists(path):
    os.unlink(path)
admin = socket.socket(socket.AF_UNIX)
admin.bind(path)
admin.listen()
def serve(s, text):
    while True:
        c = s.accept()[0]
        c.recv(4096)
        c.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text)
        c.close()
if "--listen" in options:
    s = socket.socket(fileno=int(options["--listen"][3:]))
    s.setblocking(True)
    time.sleep(float(os.environ.get("LAZY", "0")))
    threading.Thread(target=serve, args=(s, str(os.getpid()).encode()), daemon=True).start()
if name == "agent" and not os.environ.get("NO_ORPHAN") and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
serve(admin, b"ok\n")
'''


@pytest.fixture
def bin_dir(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    shutil.copy(lib.BIN / "tributary", path)
    for name in ("orchestrator", "agent", "gateway", "aggregator"):
        (path / f"tributary-{name}").write_text(STAND_IN)
        (path / f"tributary-{name}").chmod(0o755)
    return path


def make(tmp_path, bin_dir, *options, **more):
    return lib.Service(tmp_path, *options, bin_dir=bin_dir, **more)


def nothing_left(s, family):
    assert [pid for pid in family if lib.alive(pid)] == []
    assert not list(s.dir.glob("run/*")) and not (s.dir / "endpoints.json").exists()


def test_starts_serves_and_leaves_nothing_behind(tmp_path, bin_dir):
    with make(tmp_path, bin_dir) as s:
        e = s.endpoints()
        assert s.redis("PING") == "PONG"
        assert s.redis("CONFIG", "GET", "port").split()[1] == "0"
        assert s.redis("CONFIG", "GET", "appendonly").split()[1] == "yes"
        assert lib.http_request("GET", s.data).body == str(e["pids"]["gateway"]).encode()
        assert lib.http_request("GET", s.api).body == str(e["pids"]["orchestrator"]).encode()
        for name in ("orchestrator", "agent", "gateway"):
            assert s.admin(name, "/readyz").body == b"ok\n"
            assert os.getpgid(e["pids"][name]) == e["pids"][name]
        family = lib.descendants(e["pids"]["up"])
        assert len(family) == 5
        assert s.stop() == 0
        nothing_left(s, family)


@pytest.mark.parametrize("name", lib.PROGRAMS)
def test_a_killed_program_is_started_again_at_once(tmp_path, bin_dir, name):
    with make(tmp_path, bin_dir) as s:
        before = s.pids
        began = time.monotonic()
        s.kill_and_wait(name)
        assert time.monotonic() - began < 8 * lib.SLOW
        after = s.pids
        assert {n for n in after if after[n] != before[n]} == {name}
        assert f"{name}: killed by SIGKILL" in s.log_path.read_text()


def test_restarts_slow_down(tmp_path, bin_dir):
    with make(tmp_path, bin_dir) as s:
        waits = []
        for _ in range(4):
            began = time.monotonic()
            s.kill_and_wait("agent")
            waits.append(time.monotonic() - began)
        assert waits[3] > 0.39  # 0, 100, 200, 400 ms


def test_connections_wait_while_the_gateway_is_started_again(tmp_path, bin_dir):
    with make(tmp_path, bin_dir, env={"LAZY": "0.5"}) as s:
        old = s.kill("gateway")
        lib.wait_for(lambda: not lib.alive(old))
        assert lib.http_request("GET", s.data).status == 200


def test_redis_keeps_its_data_over_kill_and_restart(tmp_path, bin_dir):
    with make(tmp_path, bin_dir) as s:
        s.redis("SET", "a", "1")
        s.kill_and_wait("redis")
        assert s.redis("GET", "a") == "1"
        assert s.stop() == 0
        s.start()
        assert s.redis("GET", "a") == "1"


def test_a_second_up_is_refused(tmp_path, bin_dir):
    with make(tmp_path, bin_dir) as s:
        done = subprocess.run([bin_dir / "tributary", "up", "--dir", s.dir, "--api", "127.0.0.1:0",
                               "--data", "127.0.0.1:0"], capture_output=True, text=True, timeout=10)
        assert done.returncode == 1
        assert f"in use by another `tributary up` (process {s.pids['up']})" in done.stderr
        assert s.redis("PING") == "PONG"
        assert (s.dir / "endpoints.json").exists()


def test_after_kill_9_of_up_all_ends_and_it_can_start_again(tmp_path, bin_dir):
    with make(tmp_path, bin_dir, env={"NO_ORPHAN": "1"}) as s:
        programs = [s.pids[n] for n in lib.PROGRAMS]
        s.redis("SET", "a", "1")
        s.process.kill()
        s.process.wait()
        s.start()
        assert [p for p in programs if lib.alive(p)] == []
        assert s.redis("GET", "a") == "1"


def test_a_wrong_option_ends_it_with_the_programs_words(tmp_path, bin_dir):
    s = make(tmp_path, bin_dir, env={"USAGE": "agent"}, start=False)
    s.start(wait=False)
    assert s.process.wait(15 * lib.SLOW) == 1
    text = s.log_path.read_text()
    assert "agent: exited with status 2: giving up" in text and "no such option --x" in text
    nothing_left(s, [])


def test_missing_redis_server_is_said(tmp_path, bin_dir):
    s = make(tmp_path, bin_dir, "--redis-server", "no-such-redis", start=False)
    s.start(wait=False)
    assert s.process.wait(15 * lib.SLOW) == 1
    assert "redis: exited with status 127 (not found" in s.log_path.read_text()


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
def test_signals_end_it_in_order(tmp_path, bin_dir, number):
    with make(tmp_path, bin_dir) as s:
        family = lib.descendants(s.pids["up"])
        s.process.send_signal(number)
        assert s.process.wait(10 * lib.SLOW) == 0
        nothing_left(s, family)


def test_a_stuck_program_is_killed_after_five_seconds_and_a_second_ctrl_c_is_faster(tmp_path,
                                                                                    bin_dir):
    with make(tmp_path, bin_dir, env={"STUCK": "gateway"}) as s:
        family = lib.descendants(s.pids["up"])
        began = time.monotonic()
        s.process.send_signal(signal.SIGINT)
        assert s.process.wait(15 * lib.SLOW) == 0
        assert 4.5 < time.monotonic() - began < 7 * lib.SLOW
        nothing_left(s, family)
        s.start()
        began = time.monotonic()
        s.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        s.process.send_signal(signal.SIGINT)
        s.process.wait(10 * lib.SLOW)
        assert time.monotonic() - began < 3 * lib.SLOW


def test_a_long_directory_gets_short_sockets(tmp_path, bin_dir):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    with make(deep, bin_dir) as s:
        socket_path = s.endpoints()["redis"].removeprefix("unix:")
        assert not socket_path.startswith(str(deep)) and len(socket_path) < 100
        assert os.stat(os.path.dirname(socket_path)).st_mode & 0o077 == 0
        assert s.redis("PING") == "PONG"
        assert s.stop() == 0
        assert not os.path.exists(os.path.dirname(socket_path))


def test_options_are_handed_on(tmp_path, bin_dir):
    with make(tmp_path, bin_dir, "--transport", "relay", "--workers", "3", "--credit", "7",
              "--leaves-max", "5", "--node", "n-1", "--body-grace-ms", "99",
              "--arena-bytes", "8388608") as s:
        words = {n: " ".join(lib.command(s.pids[n])) for n in lib.PROGRAMS}
        assert "--transport relay" in words["agent"] and "--credit 7" in words["agent"]
        assert "--leaves-max 5" in words["agent"] and "--arena-bytes 8388608" in words["agent"]
        assert "--workers 3" in words["gateway"] and "--body-grace-ms 99" in words["gateway"]
        assert "--node n-1" in words["gateway"] and "--node n-1" in words["agent"]
        assert f"--data-url {s.data}" in words["orchestrator"]


def test_an_external_redis_is_used(tmp_path, bin_dir):
    with make(tmp_path, bin_dir, "--redis", "10.9.9.9:6379") as s:
        assert "redis" not in s.pids
        assert "--redis 10.9.9.9:6379" in " ".join(lib.command(s.pids["gateway"]))


@pytest.mark.parametrize("words, text", (
    (["--api", "nonsense"], "--api"),
    (["--node", "Big_Node"], "--node"),
    (["--arena-bytes", "12"], "--arena-bytes"),
    (["--transport", "pigeon"], "pigeon"),
    (["--frobnicate"], "unknown option"),
    (["operand"], "usage"),
    (["--dir", "/proc/nowhere"], "/proc/nowhere"),
))
def test_bad_words_are_refused(tmp_path, bin_dir, words, text):
    done = subprocess.run([bin_dir / "tributary", "up", "--dir", tmp_path / "x", *words],
                          capture_output=True, text=True, timeout=10)
    assert done.returncode in (1, 2) and text in done.stderr
    assert json.dumps(done.stdout) == '""'
