# SPDX-License-Identifier: Apache-2.0
"""A whole node over TLS: rounds bit-equal to plain ones, client certificates, the Python client, the command line."""
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse

import numpy as np
import pytest

import cluster

sys.path.insert(0, os.path.join(cluster.ROOT, "client/python"))
import tributary  # noqa: E402

SPEC = {"apiVersion": "tributary/v1", "kind": "AggregationJob",
        "spec": {"sync": {"goal": 2, "quorum": 2, "deadline_s": 60}, "stop": {"rounds": 2}}}


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    made = cluster.Certificates(tmp_path_factory.mktemp("certs"))
    made.server = made.make("server", "IP:127.0.0.1,DNS:localhost")
    made.operator = made.make("operator", "URI:https://example.org/operator")
    made.clients = [made.make(f"c-{i}", f"URI:tributary:client/c-{i}") for i in range(4)]
    return made


def options(certs, mutual=False):
    cert, key = certs.server
    words = ("--tls-cert", cert, "--tls-key", key, "--workers", "1")
    return (*words, "--tls-client-ca", certs.ca + ".pem") if mutual else words


@pytest.fixture(scope="module")
def node(certs):
    cluster.TLS = certs.context()
    with cluster.Node(*options(certs)) as made:
        yield made


@pytest.fixture(scope="module")
def mutual(certs):
    with cluster.Node(*options(certs, True)) as made:
        yield made


class MutualJob(cluster.Job):
    """Each client shows its own certificate."""

    def __init__(self, certs, node, **words):
        self.contexts = [certs.context(pair) for pair in certs.clients]
        cluster.TLS = certs.context(certs.operator)
        super().__init__(node, **words)

    def ask(self, certificate, method, path, body=None, headers=None):
        status, _, data = cluster.request(self.node.data, method, path, body, headers, 60, self.contexts[certificate])
        return status, json.loads(data)

    def checkin_as(self, certificate, client):
        return self.ask(certificate, "POST", f"/v1/jobs/{self.id}/checkins", {"client_id": f"c-{client}"})

    def put_as(self, certificate, client, ticket):
        x, w = self.update(client, ticket["round"])
        return self.ask(certificate, "PUT", ticket["upload"]["url"], cluster.body_of(x),
                        self.headers(client, ticket, w))


def test_a_round_is_bit_equal(node):
    """Uploads, model and API over https; nothing of it was copied by us."""
    assert node.api.startswith("https://") and node.data.startswith("https://")
    job = cluster.Job(node, size=300_001, clients=6, rounds=2, leaves=2, seed=71)
    job.report_all()
    model = job.published(1)
    job.check(model)
    job.report_all()
    job.check(job.published(2), 2, base=model)
    assert node.metric("gateway", "tributary_payload_bytes_copied_total") == 0
    cluster.until("handshakes counted", lambda: node.metric("gateway", "tributary_tls_handshakes_total") > 12, 5)
    assert node.metric("gateway", "tributary_tls_errors_total") == 0
    assert node.metric("orchestrator", "tributary_tls_handshakes_total") > 2
    job.delete()


def test_clients_that_leave_without_reading_count(node, certs):
    """The upload is sent, then the process is gone: with session tickets that would reset the connection."""
    job = cluster.Job(node, size=400_000, clients=4, rounds=1, seed=72)
    u = urllib.parse.urlsplit(node.data)
    for c in range(4):
        ticket = job.selected(c)
        x, w = job.update(c)
        body = cluster.body_of(x)
        head = f"PUT {urllib.parse.urlsplit(ticket['upload']['url']).path} HTTP/1.1\r\nHost: a\r\n" \
               f"Content-Length: {len(body)}\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in job.headers(c, ticket, w).items()) + "\r\n"
        s = certs.context().wrap_socket(socket.create_connection((u.hostname, u.port), 30), server_hostname=u.hostname)
        s.sendall(head.encode() + body)
        s.close()
    job.check(job.published(1))
    job.delete()


def test_plain_requests_are_told(node):
    for url in (node.api, node.data):
        status, _, data = cluster.request(url.replace("https:", "http:"), "GET", "/v1/jobs")
        assert status == 400 and b"TLS" in data, (status, data)
    with pytest.raises(ssl.SSLCertVerificationError):
        cluster.request(node.api, "GET", "/v1/jobs", context=ssl.create_default_context())


def test_certificates_are_reloaded(node, certs, tmp_path):
    """SIGHUP: the next connection gets the new certificate; a broken file changes nothing."""
    cert, key = certs.server
    keep = [open(path, "rb").read() for path in (cert, key)]
    u = urllib.parse.urlsplit(node.data)

    def shown():
        with certs.context().wrap_socket(socket.create_connection((u.hostname, u.port), 30),
                                         server_hostname=u.hostname) as s:
            return s.getpeercert()["serialNumber"]

    first = shown()
    try:
        certs.make("server", "IP:127.0.0.1")
        node.kill("gateway", signal.SIGHUP)
        cluster.until("new certificate", lambda: shown() != first, 10)
        second = shown()
        with open(cert, "w") as f:
            f.write("nothing")
        node.kill("gateway", signal.SIGHUP)
        cluster.until("refusal logged", lambda: "going on with the old" in node.logs(), 10)
        assert shown() == second
    finally:
        for path, data in zip((cert, key), keep):
            with open(path, "wb") as f:
                f.write(data)


def test_client_certificates(mutual, certs):
    """mTLS: the certificate's client alone may check in and upload as that client; the round is bit-equal."""
    job = MutualJob(certs, mutual, size=20_000, clients=3, rounds=1, seed=73)
    for url in (mutual.data, mutual.api):  # no certificate
        with pytest.raises((ssl.SSLError, ConnectionError)):
            cluster.request(url, "GET", "/v1/jobs", context=certs.context())
    status, answer = job.checkin_as(1, 0)
    assert (status, answer["code"]) == (403, "forbidden")
    tickets = []
    for c in range(3):
        status, ticket = job.checkin_as(c, c)
        assert status == 200 and ticket["status"] == "selected", ticket
        tickets.append(ticket)
    # A stolen ticket is worth nothing without the certificate, and the refusal spoils nothing.
    status, answer = job.put_as(1, 0, tickets[0])
    assert (status, answer["code"]) == (403, "forbidden")
    status, _, data = cluster.request(mutual.data, "PUT", tickets[0]["upload"]["url"], cluster.body_of(job.update(0)[0]),
                                      job.headers(0, tickets[0], 1.0), 60, certs.context(certs.operator))
    assert status == 403, data
    for c in range(3):
        status, receipt = job.put_as(c, c, tickets[c])
        assert status == 201, receipt
    path = f"{tickets[0]['upload']['url']}?client=c-0&round=1"
    assert job.ask(0, "GET", path)[0] == 200
    status, answer = job.ask(1, "GET", path)
    assert (status, answer["code"]) == (403, "forbidden")
    job.check(job.published(1))
    assert mutual.metric("gateway", "tributary_tls_wrong_client_total") == 4
    cluster.until("refusals counted",  # the worker tells its numbers every 100 ms
                  lambda: mutual.metric("gateway", "tributary_tls_handshakes_refused_total") >= 1, 5)
    job.delete()


def test_python_client(mutual, certs):
    ca = certs.ca + ".pem"
    cert, key = certs.operator
    with tributary.Admin(mutual.api, cafile=ca, certfile=cert, keyfile=key) as admin:
        job = admin.submit({**SPEC, "metadata": {"name": "python-tls"}})["metadata"]["id"]
        admin.upload_initial_model(job, {"w": np.ones((4, 4), "<f4")})
        results, errors = {}, []

        def one(i):
            try:
                pair = dict(zip(("certfile", "keyfile"), certs.clients[i]))
                with tributary.Client(mutual.data, job, f"c-{i}", cafile=ca, retry_for=30, **pair) as client:
                    results[i] = client.run(lambda p, c, n: ({"w": np.ones_like(p["w"])}, 1), wait=5)
            except Exception as e:  # noqa: BLE001 - told below
                errors.append(e)

        crew = [threading.Thread(target=one, args=(i,)) for i in range(2)]
        for t in crew:
            t.start()
        for t in crew:
            t.join(90)
        assert not errors and [results[i]["rounds"] for i in range(2)] == [2, 2], (errors, results)
        # Another's certificate is refused, none or an untrusted service at once (no retries for minutes).
        with tributary.Client(mutual.data, job, "c-0", cafile=ca, certfile=certs.clients[1][0],
                              keyfile=certs.clients[1][1]) as client:
            with pytest.raises(tributary.Problem) as refused:
                client.checkin(wait=0)
            assert (refused.value.status, refused.value.code) == (403, "forbidden")
        for words in ({"cafile": ca}, {}):
            with tributary.Client(mutual.data, job, "c-0", **words) as client:
                with pytest.raises(tributary.Unreachable):
                    client.checkin(wait=0)


def test_command_line(mutual, certs, tmp_path):
    def run(*words, operator=True, trust=True):
        if trust:
            words += ("--cacert", certs.ca + ".pem")
        if operator:
            words += ("--cert", certs.operator[0], "--key", certs.operator[1])
        return subprocess.run([os.path.join(cluster.BIN, "tributary"), *map(str, words), "--api", mutual.api],
                              capture_output=True, text=True, timeout=60)

    spec = tmp_path / "job.json"
    spec.write_text(json.dumps({**SPEC, "metadata": {"name": "cli-tls"}}))
    done = run("submit", spec)
    assert done.returncode == 0, done
    job = done.stdout.strip()
    model = cluster.body_of(np.arange(64, dtype=np.float32))
    status, _, data = cluster.request(mutual.data, "PUT", f"/v1/jobs/{job}/models/0", model,
                                      context=certs.context(certs.operator))
    assert status == 201, data
    assert job in run("get").stdout
    done = run("model", job, "-v", "0", "-o", tmp_path / "m")  # a redirect to the gateway, https too
    assert done.returncode == 0 and (tmp_path / "m").read_bytes() == model, done
    assert run("stop", job).returncode == 0
    assert run("watch", job).returncode == 0
    for words in ({"operator": False}, {"trust": False}):
        done = run("get", **words)
        assert done.returncode == 3 and "no answer" in done.stderr, done


def test_up_refuses_half_a_pair(certs, tmp_path):
    def up(*words):
        return subprocess.run([os.path.join(cluster.BIN, "tributary"), "up", "--dir", tmp_path / "n", *words],
                              capture_output=True, text=True, timeout=60)

    for words in (("--tls-cert", certs.server[0]), ("--tls-client-ca", certs.ca + ".pem"),
                  ("--tls-cert", certs.server[0], "--tls-key", "/nowhere")):
        done = up(*words)
        assert done.returncode == 2 and ("--tls-" in done.stderr or "/nowhere" in done.stderr), done
