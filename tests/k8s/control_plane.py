# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API server of one's own: etcd and kube-apiserver out of $KUBE_BIN, with RBAC, in a folder, on loopback
or on another address of this machine. Nothing of Kubernetes is part of this repository: without the binaries
`missing()` says what is not there, and tests skip."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "system"))
from cluster import Certificates, until  # noqa: E402

NEEDED = ("etcd", "kube-apiserver", "kubectl")
SERVICES = "10.96.0.0/16"
LIMIT = 180


def missing(names=NEEDED):
    """Why there can be no such server here, or None."""
    folder = os.environ.get("KUBE_BIN")
    if not folder:
        return "KUBE_BIN is not set: a folder with " + ", ".join(names)
    lacks = [n for n in names if not os.access(os.path.join(folder, n), os.X_OK)]
    return f"KUBE_BIN={folder} lacks {', '.join(lacks)}" if lacks else None


def free_port(host="127.0.0.1"):
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]


class Authority(Certificates):
    """Certificates that say who a client is: CN is the user, O the groups."""

    KEY = ("-newkey", "rsa:2048", "-nodes")  # the account tokens are signed with RS256

    def user(self, file, name, group=None):
        path = os.path.join(self.folder, file)
        subject = (f"/O={group}" if group else "") + f"/CN={name}"
        self.openssl("req", *self.KEY, "-subj", subject, "-keyout", path + ".key", "-out", path + ".csr")
        self.openssl("x509", "-req", "-in", path + ".csr", "-CA", self.ca + ".pem", "-CAkey", self.ca + ".key",
                     "-CAcreateserial", "-days", "2", "-out", path + ".pem")
        return path + ".pem", path + ".key"


class Processes:
    """Programs with a log each; the last one started ends first."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def start(self, name, words, prefix=(), env=None):
        log = open(os.path.join(self.folder, f"{name}.log"), "ab")
        p = subprocess.Popen([*prefix, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                             env={**os.environ, **(env or {})}, start_new_session=True)
        log.close()
        self.running[name] = p
        return p

    def stop(self, name, sig=signal.SIGTERM, limit=30):
        p = self.running.pop(name, None)
        if p is None:
            return
        if p.poll() is None:
            p.send_signal(sig)
        try:
            p.wait(limit)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()

    def stop_all(self):
        for name in reversed(list(self.running)):
            self.stop(name)

    def tail(self, name, lines=15):
        try:
            with open(os.path.join(self.folder, f"{name}.log"), errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return ""


class ControlPlane:
    """With `with`. `kubectl(...)` runs one with all rights, `kubeconfig` is its file, `url` the server."""

    def __init__(self, folder, host="127.0.0.1", prefix=(), flags=(), etcd_flags=(), port=0, environment=None):
        self.folder, self.host, self.prefix = os.path.abspath(folder), host, tuple(prefix)
        self.bin = os.environ["KUBE_BIN"]
        self.flags, self.etcd_flags = list(flags), list(etcd_flags)
        self.environment = environment
        os.makedirs(self.folder, exist_ok=True)
        self.processes = Processes(self.folder)
        self.pki = Authority(self.folder)
        self.server = self.pki.make("apiserver", f"IP:{host},IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes,"
                                                 "DNS:kubernetes.default,DNS:kubernetes.default.svc")
        self.pki.openssl("genrsa", "-traditional", "-out", "accounts.key", "2048")
        self.pki.openssl("rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
        self.port = port or free_port(host if not prefix else "127.0.0.1")
        self.etcd_port, self.peer_port = free_port(), free_port()
        self.url = f"https://{host}:{self.port}"
        self.kubeconfig = self.config("admin", "admin", "system:masters")

    # ---- who is who ----

    def config(self, file, user, group=None):
        """A kubeconfig for that user."""
        pair = self.pki.user(file, user, group)
        return self.write_config(file, {"client-certificate": pair[0], "client-key": pair[1]})

    def write_config(self, file, user):
        path = os.path.join(self.folder, file + ".kubeconfig")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "own",
                       "clusters": [{"name": "own", "cluster": {"server": self.url,
                                                                "certificate-authority": self.pki.ca + ".pem"}}],
                       "users": [{"name": "own", "user": user}],
                       "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}]}, f)
        return path

    # ---- processes ----

    def start_etcd(self):
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self.processes.start("etcd", [
            os.path.join(self.bin, "etcd"), "--data-dir", os.path.join(self.folder, "etcd"),
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            "--unsafe-no-fsync", *self.etcd_flags], self.prefix)

    def start_apiserver(self):
        self.processes.start("apiserver", [
            os.path.join(self.bin, "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.host}", f"--advertise-address={self.host}", f"--secure-port={self.port}",
            f"--cert-dir={self.folder}", f"--tls-cert-file={self.server[0]}",
            f"--tls-private-key-file={self.server[1]}", f"--client-ca-file={self.pki.ca}.pem",
            "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICES}", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder}/accounts.pub",
            f"--service-account-signing-key-file={self.folder}/accounts.key", "--allow-privileged=true",
            *self.flags], self.prefix, self.environment)

    def wait(self):
        def ready():
            p = self.processes.running["apiserver"]
            assert p.poll() is None, "kube-apiserver ended:\n" + self.processes.tail("apiserver")
            return self.kubectl("get", "--raw=/readyz", check=False).strip() == "ok"
        until("the API server", ready, LIMIT, 0.2)

    def __enter__(self):
        began = time.monotonic()
        try:
            self.start_etcd()
            self.start_apiserver()
            self.wait()
        except BaseException:
            self.stop()
            raise
        self.took = time.monotonic() - began
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.processes.stop_all()
        shutil.rmtree(os.path.join(self.folder, "etcd"), ignore_errors=True)

    # ---- kubectl ----

    def run(self, *words, kubeconfig=None, stdin=None, timeout=120):
        return subprocess.run(
            [*self.prefix, os.path.join(self.bin, "kubectl"), "--kubeconfig", kubeconfig or self.kubeconfig, *words],
            capture_output=True, text=True, input=stdin, timeout=timeout,
            env={**os.environ, "HOME": self.folder})  # its cache

    def kubectl(self, *words, check=True, **how):
        done = self.run(*words, **how)
        assert not check or done.returncode == 0, f"kubectl {' '.join(words)[:200]}: {done.stderr.strip()[-2000:]}"
        return done.stdout

    def json(self, *words, **how):
        return json.loads(self.kubectl(*words, "-o", "json", **how))

    def apply(self, *objects, **how):
        return self.kubectl("apply", "--validate=strict", "-f", "-",
                            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}), **how)
