# SPDX-License-Identifier: Apache-2.0
"""components/redis-sentinel/start.sh with real Redis and Sentinels: three "pods" are three addresses in a network
namespace of its own, whose names a hosts file of its own knows."""
import os
import shutil
import subprocess
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "k8s/components/redis-sentinel/start.sh")
SERVICE = "pods.test.svc"
INNER = "TRIBUTARY_START_TEST"


def private():
    """The command that puts a program into namespaces of its own, or None."""
    words = ["unshare", "-n", "-m", "sh", "-c", "true"]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, timeout=30).returncode:
        return None
    return words[:3]


class Pods:
    def __init__(self, folder):
        self.folder, self.running, self.logs = folder, {}, []
        for i in range(3):
            os.makedirs(os.path.join(folder, f"data-{i}"))
        shutil.copy(os.path.join(ROOT, "k8s/base/redis.conf"), folder)

    def start(self, i):
        env = {"PATH": os.environ["PATH"], "POD": f"redis-{i}", "REDIS_SERVICE": SERVICE,
               "REDIS_BIND": f"10.9.0.{i + 1}", "REDIS_DATA": os.path.join(self.folder, f"data-{i}"),
               "REDIS_CONFIG": os.path.join(self.folder, "redis.conf")}
        for what in ("redis", "sentinel"):
            log = open(os.path.join(self.folder, f"{what}-{i}.log"), "ab")
            self.logs.append(log)
            self.running[(what, i)] = subprocess.Popen(["sh", SCRIPT, what], env=env, stdout=log, stderr=log)

    def kill(self, i):
        for what in ("redis", "sentinel"):
            p = self.running.pop((what, i))
            p.kill()
            p.wait()

    def ask(self, i, port, *words):
        done = subprocess.run(["redis-cli", "-h", f"10.9.0.{i + 1}", "-p", str(port), *words],
                              capture_output=True, text=True, timeout=30)
        return done.stdout.split()

    def role(self, i):
        return (self.ask(i, 6379, "ROLE") or ["away"])[0]

    def until(self, what, predicate, seconds=120):
        end = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < end, (what, [self.role(i) for i in range(3)], self.tails())
            time.sleep(0.2)

    def tails(self):
        out = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".log"):
                with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as f:
                    out.append((name, f.read()[-300:]))
        return out

    def end(self):
        for p in self.running.values():
            p.kill()
            p.wait()
        for log in self.logs:
            log.close()


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server")
def test_three_pods(tmp_path):
    if INNER not in os.environ:
        words = private()
        if not words:
            pytest.skip("a network namespace needs root")
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"10.9.0.{i + 1} redis-{i}.{SERVICE}\n" for i in range(3)))
        script = (f"set -e; ip link set lo up; for i in 1 2 3; do ip addr add 10.9.0.$i/32 dev lo; done; "
                  f"mount --bind {hosts} /etc/hosts; exec /usr/bin/python3 -m pytest -q -p no:cacheprovider "
                  f"{os.path.abspath(__file__)}")
        done = subprocess.run([*words, "sh", "-c", script], capture_output=True, text=True, timeout=280,
                              env={**os.environ, INNER: "1"}, cwd=ROOT)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        return
    pods = Pods(str(tmp_path))
    try:
        for i in range(3):
            pods.start(i)
        pods.until("pod 0 is the master of two", lambda: pods.role(0) == "master" and pods.role(1) == "slave" and
                   pods.role(2) == "slave")
        pods.until("it takes writes", lambda: pods.ask(0, 6379, "SET", "a", "1") == ["OK"])
        pods.until("the Sentinels know each other", lambda: all(
            "sentinels=3" in " ".join(pods.ask(i, 26379, "INFO", "sentinel")) for i in range(3)) and all(
            "slaves=2" in " ".join(pods.ask(i, 26379, "INFO", "sentinel")) for i in range(3)))
        pods.kill(0)
        pods.until("another is the master", lambda: "master" in (pods.role(1), pods.role(2)))
        master = 1 if pods.role(1) == "master" else 2
        pods.until("it takes writes", lambda: pods.ask(master, 6379, "SET", "b", "2") == ["OK"])
        pods.start(0)  # nobody told it: it asks
        pods.until("the old master follows", lambda: pods.role(0) == "slave" and
                   pods.ask(0, 6379, "GET", "b") == ["2"] and pods.ask(0, 6379, "GET", "a") == ["1"])
        for i in range(3):
            pods.kill(i)
        for i in range(3):
            pods.start(i)  # all at once: what the Sentinels' files remember decides
        pods.until("all come back with everything", lambda: sorted(pods.role(i) for i in range(3)) == [
            "master", "slave", "slave"] and all(pods.ask(i, 6379, "GET", "b") == ["2"] for i in range(3)))
    finally:
        pods.end()
