# SPDX-License-Identifier: Apache-2.0
"""A real Redis with Sentinels on loopback: one master, two replicas, three Sentinels, private ports."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from cluster import until

NAME = "mymaster"


def free_port():
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Sentinels:
    """redis[i] and sentinels[i] are Popen objects, ports[i] and sentinel_ports[i] where they listen."""

    def __init__(self, redises=3, sentinels=3, down_after_ms=1000):
        self.dir = tempfile.mkdtemp(prefix="trib-sentinel-")
        self.down_after_ms = down_after_ms
        self.ports = [free_port() for _ in range(redises)]
        self.sentinel_ports = [free_port() for _ in range(sentinels)]
        self.redis, self.sentinels = [None] * redises, [None] * sentinels
        try:
            for i in range(redises):
                self.start_redis(i, master=None if i == 0 else self.ports[0])
            until("replicas connected", lambda: self.replicas(0) == redises - 1, 120)
            for i in range(sentinels):
                self.start_sentinel(i)
            until("the Sentinels know each other", self.settled, 120)
        except BaseException:
            self.stop()
            raise

    @property
    def address(self):
        return "sentinel://" + ",".join(f"127.0.0.1:{p}" for p in self.sentinel_ports) + f"/{NAME}"

    def run(self, name, words):
        with open(os.path.join(self.dir, name + ".log"), "ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir)

    def start_redis(self, i, master=None):
        """After a kill: with what its configuration file says now (Sentinel rewrites it)."""
        folder = os.path.join(self.dir, f"redis-{i}")
        conf = os.path.join(folder, "redis.conf")
        if not os.path.exists(folder):
            os.mkdir(folder)
            with open(conf, "w") as f:
                f.write(f"port {self.ports[i]}\nbind 127.0.0.1\nsave \"\"\nappendonly yes\nappendfsync always\n"
                        f"dir {folder}\nmin-replicas-to-write 1\nmin-replicas-max-lag 5\n"
                        "repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n"
                        + (f"replicaof 127.0.0.1 {master}\n" if master else ""))
        self.redis[i] = self.run(f"redis-{i}", ["redis-server", conf])
        until("redis answers", lambda: self.ask(self.ports[i], "PING") in ("PONG", "LOADING"), 20)

    def start_sentinel(self, i):
        conf = os.path.join(self.dir, f"sentinel-{i}.conf")
        if not os.path.exists(conf):
            with open(conf, "w") as f:
                f.write(f"port {self.sentinel_ports[i]}\nbind 127.0.0.1\ndir {self.dir}\n"
                        f"sentinel monitor {NAME} 127.0.0.1 {self.ports[0]} {len(self.sentinels) // 2 + 1}\n"
                        f"sentinel down-after-milliseconds {NAME} {self.down_after_ms}\n"
                        f"sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 2\n")
        self.sentinels[i] = self.run(f"sentinel-{i}", ["redis-server", conf, "--sentinel"])

    def ask(self, port, *words):
        try:
            out = subprocess.run(["redis-cli", "-h", "127.0.0.1", "-p", str(port), *map(str, words)],
                                 capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return ""
        return out.stdout.strip()

    def replicas(self, i):
        """Connected to redis i; -1 when that is no master."""
        for line in self.ask(self.ports[i], "INFO", "replication").splitlines():
            if line.startswith("connected_slaves:"):
                return int(line.split(":")[1]) if self.role(i) == "master" else -1
        return -1

    def role(self, i):
        return self.ask(self.ports[i], "ROLE").split("\n")[0]

    def settled(self):
        for port in self.sentinel_ports:
            words = self.ask(port, "SENTINEL", "MASTER", NAME).split("\n")
            record = dict(zip(words[::2], words[1::2]))
            if record.get("num-other-sentinels") != str(len(self.sentinels) - 1) or \
                    record.get("num-slaves") != str(len(self.redis) - 1) or record.get("flags") != "master":
                return False
        return True

    def patience(self, ms):
        """What is silent for so long is called down from now on; returns when nobody is any more."""
        def well(port):
            words = self.ask(port, "SENTINEL", "REPLICAS", NAME)
            return "slave" in words and "_down" not in words

        for port in self.sentinel_ports:
            self.ask(port, "SENTINEL", "SET", NAME, "down-after-milliseconds", ms)
        if ms > self.down_after_ms:
            until("nobody is called down", lambda: all(well(p) for p in self.sentinel_ports), 30, 0.1)

    def config_epoch(self):
        words = self.ask(self.sentinel_ports[0], "SENTINEL", "MASTER", NAME).split("\n")
        return int(dict(zip(words[::2], words[1::2]))["config-epoch"])

    def master(self):
        """Index of the redis that a majority of those Sentinels calls master which answer."""
        votes = {}
        for port, process in zip(self.sentinel_ports, self.sentinels):
            if process and process.poll() is None:
                words = self.ask(port, "SENTINEL", "get-master-addr-by-name", NAME).split("\n")
                if len(words) == 2:
                    votes[words[1]] = votes.get(words[1], 0) + 1
        return self.ports.index(int(max(votes, key=votes.get))) if votes else None

    def cli(self, *words):
        """Asked of the master, once there is one."""
        end = time.monotonic() + 30
        while True:
            i = self.master()
            if i is not None and self.redis[i].poll() is None and self.role(i) == "master":
                return self.ask(self.ports[i], *words)
            assert time.monotonic() < end, "no master"
            time.sleep(0.2)

    def kill(self, i, sig=signal.SIGKILL):
        self.redis[i].send_signal(sig)
        if sig == signal.SIGKILL:
            self.redis[i].wait()

    def fail_over(self):
        """Kills the master; returns (old, new) once a majority knows the new one. The old one stays down."""
        old = self.master()
        self.kill(old)

        def promoted():
            m = self.master()
            return m is not None and m != old and self.role(m) == "master"
        until("another master", promoted, 40, 0.1)
        return old, self.master()

    def whole(self):
        """Every redis runs and follows the master: told so here, since Sentinel takes ten seconds to notice."""
        for i, process in enumerate(self.redis):
            if process.poll() is not None:
                self.start_redis(i)

        def following():
            m = self.master()
            if m is None or self.role(m) != "master":
                return False
            for i in range(len(self.redis)):
                if i != m and self.role(i) == "master":
                    self.ask(self.ports[i], "REPLICAOF", "127.0.0.1", self.ports[m])
            # Connected is not in step, and WAIT on a connection that wrote nothing asks for nothing: each has what the
            # master had. One that still loads must not be promoted (ADR 7, "When it is not enough").
            told = self.ask(self.ports[m], "ROLE").split("\n")
            return told[0] == "master" and self.replicas(m) == len(self.redis) - 1 and all(
                self.in_step(i, m, int(told[1])) for i in range(len(self.redis)) if i != m)
        until("replicas follow", following, 60, 0.1)

    def in_step(self, i, master, offset):
        """Redis i follows that master and has all up to offset."""
        told = self.ask(self.ports[i], "ROLE").split("\n")
        return told[0] == "slave" and told[2:4] == [str(self.ports[master]), "connected"] and int(told[4]) >= offset

    def stop(self):
        for process in self.sentinels + self.redis:
            if process and process.poll() is None:
                process.kill()
                process.send_signal(signal.SIGCONT)
                process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def logs(self, tail=6000):
        text = ""
        for name in sorted(os.listdir(self.dir)):
            if name.endswith(".log"):
                with open(os.path.join(self.dir, name), errors="replace") as f:
                    text += f"--- {name}\n" + f.read()[-tail:]
        return text

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print(self.logs())
        self.stop()
