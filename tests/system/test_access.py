# SPDX-License-Identifier: Apache-2.0
"""Access control: a matrix of denied calls, each with the right status and problem code, and the same calls with the
right credentials; tenants; revocation; tickets; JWTs; the audit log; a whole round with tokens, bit for bit."""
import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cluster import BIN, ROOT, Node, body_of, reference, request, until, vector_of

sys.path.insert(0, os.path.join(ROOT, "client", "python"))

OPERATORS = {"reader": ("acme", ["jobs:read"]), "writer": ("acme", ["jobs:write"]), "admin": ("acme", ["jobs:admin"]),
             "monitor": ("acme", ["ops:read"]), "stranger": ("other", ["jobs:admin"]),
             "root": ("ops", ["ops:admin"]), "leaver": ("acme", ["jobs:read"])}
# What misses the scope that is the key's.
LESS = {"jobs:read": None, "jobs:write": "reader", "jobs:admin": "writer", "ops:read": "admin", "ops:admin": "monitor"}
ENOUGH = {"jobs:read": "reader", "jobs:write": "writer", "jobs:admin": "admin", "ops:read": "monitor",
          "ops:admin": "root"}
ISSUER, AUDIENCE = "https://id.example", "tributary"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, data=None):
    return subprocess.run(["openssl", *words], input=data, capture_output=True, check=True, timeout=30).stdout


class Keys:
    """Key pairs for JWTs by openssl's own program, an implementation that is not ours."""

    def __init__(self, folder):
        self.private, self.public = f"{folder}/k.pem", f"{folder}/k.pub"

    @classmethod
    def make(cls, folder, kind):
        folder.mkdir()
        k = cls(folder)
        how = ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"] if kind == "RS256" else \
            ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("genpkey", "-algorithm", *how, "-out", k.private)
        openssl("pkey", "-in", k.private, "-pubout", "-out", k.public)
        return k

    def sign(self, kind, text):
        der = openssl("dgst", "-sha256", "-sign", self.private, data=text)
        if kind == "RS256":
            return der
        out, at = b"", 2  # SEQUENCE of two INTEGERs -> 32 + 32 bytes
        for _ in range(2):
            size = der[at + 1]
            out += der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0")
            at += 2 + size
        return out


def jwt(sign, alg="RS256", head=None, **claims):
    now = int(time.time())
    body = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 300, "nbf": now - 10, "sub": "jay", "tenant": "acme",
            "scope": "jobs:admin", **claims}
    body = {k: v for k, v in body.items() if v is not None}
    text = b64(json.dumps({"alg": alg, "typ": "JWT", **(head or {})}).encode()) + "." + b64(json.dumps(body).encode())
    return text + "." + b64(sign(text.encode()))


def bearer(token):
    return {"Authorization": "Bearer " + token} if token else {}


class World:
    """A node with operators, three jobs and tokens of every sort."""

    def __init__(self, folder):
        self.keys = {name: "flo_" + b64(os.urandom(32)) for name in OPERATORS}
        self.file = f"{folder}/operators.json"
        self.write_operators(OPERATORS)
        self.rsa = Keys.make(folder / "rsa", "RS256")
        self.node = Node("--operators", self.file, "--jwt-alg", "RS256", "--jwt-key", self.rsa.public, "--jwt-issuer",
                         ISSUER, "--jwt-audience", AUDIENCE, "--workers", "2")
        self.api, self.data = self.node.api, self.node.data

    def write_operators(self, names):
        table = [{"name": n, "tenant": OPERATORS[n][0], "scopes": OPERATORS[n][1],
                  "sha256": hashlib.sha256(self.keys[n].encode()).hexdigest()} for n in names]
        with open(self.file + ".new", "w") as f:
            json.dump(table, f)
        os.rename(self.file + ".new", self.file)

    def call(self, who, method, path, body=None, headers=None, base=None):
        token = self.keys.get(who, who)
        status, head, data = request(base or self.api, method, path, body, {**bearer(token), **(headers or {})})
        try:
            return status, head, json.loads(data) if data else {}
        except ValueError:
            return status, head, data

    def good(self, *args, **more):
        status, _, answer = self.call(*args, **more)
        end = time.monotonic() + 30
        while status == 503 and answer.get("code") == "not-leader" and time.monotonic() < end:  # nothing was done
            time.sleep(answer["retry_after"])
            status, _, answer = self.call(*args, **more)
        assert 200 <= status < 300, (args, status, answer)
        return answer

    def new_job(self, who="admin", clients="token", name="job", goal=2, rounds=5, size=64, model=True):
        job = self.good(who, "POST", "/v1/jobs", {
            "apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": name},
            "spec": {"auth": {"clients": clients}, "sync": {"goal": goal, "quorum": 1, "over_select": 4},
                     "stop": {"rounds": rounds}}})["metadata"]["id"]
        if model:
            self.good(who, "PUT", f"/v1/jobs/{job}/models/0", body_of(np.zeros(size, np.float32)), base=self.data)
            until("round 1 open", lambda: self.good(who, "GET", f"/v1/jobs/{job}")["status"]["round"] == 1)
        return job

    def tokens(self, job, who="admin", **wish):
        return self.good(who, "POST", f"/v1/jobs/{job}/tokens", wish)["items"]

    def checkin(self, job, token, client):
        return self.call(token, "POST", f"/v1/jobs/{job}/checkins", {"client_id": client}, base=self.data)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("access"))
    with w.node:
        w.job = w.new_job(name="a")
        w.second = w.new_job(name="b")
        w.foreign = w.new_job("stranger", name="c")
        w.any = w.tokens(w.job)[0]["token"]
        w.bound = w.tokens(w.job, client="c-1")[0]["token"]
        w.elsewhere = w.tokens(w.second)[0]["token"]
        w.short = w.tokens(w.job, ttl_s=1)[0]["token"]
        gone = w.tokens(w.job)[0]
        w.revoked = gone["token"]
        assert w.checkin(w.job, w.revoked, "c-9")[0] == 200  # it is in a cache now
        assert w.checkin(w.job, w.short, "c-8")[0] == 200
        assert w.call("admin", "DELETE", f"/v1/jobs/{w.job}/tokens/{gone['id']}")[0] == 204
        time.sleep(1.1)  # the short one's life; and a revocation's second
        yield w


def denied(answer, status, code, what):
    got, head, body = answer
    assert got == status, (what, answer)
    if isinstance(body, dict) and body:
        assert body["code"] == code and body["type"] == "urn:trib:" + code and body["status"] == status, (what, body)
    if status == 401:
        assert head.get("www-authenticate", "").startswith('Bearer realm="tributary"'), (what, head)


# ---- the orchestrator's routes ----

JOB = {"apiVersion": "tributary/v1", "kind": "AggregationJob", "metadata": {"name": "x"}, "spec": {}}
ROUTES = [  # method, path, body, scope, status of success; in an order in which all succeed on one job
    ("POST", "/v1/jobs", JOB, "jobs:write", 201),
    ("POST", "/v1/jobs:validate", JOB, "jobs:read", 200),
    ("GET", "/v1/jobs", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}/rounds", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}/rounds/1", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}/rounds/1/updates", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}/models", None, "jobs:read", 200),
    ("HEAD", "/v1/jobs/{j}/events", None, "jobs:read", 200),
    ("HEAD", "/v1/events", None, "jobs:read", 200),
    ("GET", "/v1/jobs/{j}/tokens", None, "jobs:admin", 200),
    ("POST", "/v1/jobs/{j}/tokens", {"count": 2}, "jobs:admin", 201),
    ("DELETE", "/v1/jobs/{j}/tokens/{t}", None, "jobs:admin", 204),
    ("POST", "/v1/jobs/{j}/rounds/1:close", {"force": True}, "jobs:write", 202),
    ("POST", "/v1/jobs/{j}:pause", None, "jobs:write", 202),
    ("POST", "/v1/jobs/{j}:resume", None, "jobs:write", 202),
    ("POST", "/v1/jobs/{j}:stop", None, "jobs:write", 202),
    ("DELETE", "/v1/jobs/{j}", None, "jobs:admin", 204),
    ("GET", "/v1/tenants", None, "jobs:read", 200),
    ("GET", "/v1/tenants/acme", None, "jobs:read", 200),
    ("GET", "/v1/nodes", None, "ops:read", 200),
    ("GET", "/v1/audit", None, "ops:admin", 200),
]


def api_denials():
    """(route, who, status, code)"""
    cases = []
    for route in ROUTES:
        method, path, _, scope, _ = route
        cases += [(route, None, 401), (route, "flo_" + "A" * 43, 401), (route, "any", 401)]
        if LESS[scope]:
            cases.append((route, LESS[scope], 403))
        if "{j}" in path:
            cases.append((route, "stranger", 404))
            if scope != "jobs:read":
                cases.append((route, "watcher", 403))
    return cases


@pytest.mark.parametrize("route,who,status", api_denials(), ids=lambda v: v if isinstance(v, str) else None)
def test_api_denies(world, route, who, status):
    method, path, body, _, _ = route
    path = path.format(j=world.job, t="0" * 12)
    if who == "any":
        who = world.any  # a client's token is no operator's key
    elif who == "watcher":  # sees all, changes nothing
        who = jwt(lambda t: world.rsa.sign("RS256", t), tenant="ops", scope="ops:read jobs:admin")
        # ops:read sees the job, jobs:admin is for the own tenant's jobs
    code = {401: "unauthenticated", 403: "forbidden", 404: "no-such-job"}[status]
    denied(world.call(who, method, path, body), status, code, (route, who))


def test_api_lets_in_who_may(world):
    job = world.new_job(goal=2)
    answer = world.good(world.tokens(job)[0]["token"], "POST", f"/v1/jobs/{job}/checkins", {"client_id": "c-1"},
                        base=world.data)
    token = world.tokens(job)[0]
    put_update(world, job, token["token"], "c-1", answer)
    for method, path, body, scope, status in ROUTES:
        got = world.call(ENOUGH[scope], method, path.format(j=job, t=token["id"]), body)
        assert got[0] == status, (method, path, got)
        if path.endswith("rounds/1:close"):
            until("published", lambda: world.good("reader", "GET", f"/v1/jobs/{job}")["status"]["version"] == 1)
    assert world.call(None, "GET", "/v1/openapi.json")[0] == 200
    assert world.call(None, "GET", "/version")[0] == 200


def test_a_tenant_is_its_own_business(world):
    denied(world.call("stranger", "GET", "/v1/tenants/acme"), 404, "no-such-tenant", "another tenant's")
    denied(world.call("admin", "GET", "/v1/tenants/other"), 404, "no-such-tenant", "another tenant's")
    denied(world.call("admin", "GET", "/v1/tenants/A%20b"), 404, "no-such-tenant", "not a name")
    assert [t["tenant"] for t in world.good("stranger", "GET", "/v1/tenants")["items"]] == ["other"]
    assert {t["tenant"] for t in world.good("monitor", "GET", "/v1/tenants")["items"]} >= {"acme", "other"}
    assert world.good("monitor", "GET", "/v1/tenants/other")["use"]["jobs"] >= 1
    assert world.good("reader", "GET", "/v1/tenants/acme")["quotas"]["jobs"] is None


# ---- malformed credentials, JWTs ----

def bad_credentials(w):
    def sign(text):
        return w.rsa.sign("RS256", text)
    with open(w.rsa.public, "rb") as f:
        pem = f.read()
    good = jwt(sign)
    head, claims, signature = good.split(".")
    tampered = json.loads(base64.urlsafe_b64decode(claims + "=="))
    tampered["tenant"] = "other"
    now = int(time.time())

    def hs(text):
        return hmac.new(pem, text, hashlib.sha256).digest()
    return {
        "no credentials": {}, "empty": {"Authorization": ""}, "scheme only": {"Authorization": "Bearer"},
        "basic": {"Authorization": "Basic " + base64.b64encode(b"ann:pw").decode()},
        "bare key": {"Authorization": w.keys["admin"]},
        "two words": {"Authorization": f"Bearer {w.keys['admin']} x"},
        "quoted": {"Authorization": f'Bearer "{w.keys["admin"]}"'},
        "key cut": bearer(w.keys["admin"][:-1]), "key longer": bearer(w.keys["admin"] + "A"),
        "key's hash": bearer(hashlib.sha256(w.keys["admin"].encode()).hexdigest()),
        "key as client's": bearer("flk_" + w.keys["admin"][4:]), "unknown key": bearer("flo_" + b64(os.urandom(32))),
        "client's token": bearer(w.any), "too long": bearer("A" * 5000),
        "jwt alg none": bearer(jwt(lambda t: b"", "none")), "jwt alg None": bearer(jwt(lambda t: b"", "None")),
        "jwt unsigned": bearer(head + "." + claims + "."), "jwt two parts": bearer(head + "." + claims),
        "jwt none, signed": bearer(jwt(sign, "none")),
        "jwt RS as HS": bearer(jwt(hs, "HS256")), "jwt HS said to be RS": bearer(jwt(hs, "RS256")),
        "jwt ES": bearer(jwt(sign, "ES256")), "jwt RS384": bearer(jwt(sign, "RS384")),
        "jwt lower case alg": bearer(jwt(sign, "rs256")),
        "jwt crit": bearer(jwt(sign, head={"crit": ["exp"]})),
        "jwt expired": bearer(jwt(sign, exp=now - 60)), "jwt without exp": bearer(jwt(sign, exp=None)),
        "jwt not yet": bearer(jwt(sign, nbf=now + 60)),
        "jwt other audience": bearer(jwt(sign, aud="other")), "jwt without audience": bearer(jwt(sign, aud=None)),
        "jwt audiences": bearer(jwt(sign, aud=["x", "y"])),
        "jwt other issuer": bearer(jwt(sign, iss="https://evil.example")),
        "jwt without tenant": bearer(jwt(sign, tenant=None)),
        "jwt other key": bearer(jwt(lambda t: os.urandom(256))),
        "jwt tampered": bearer(head + "." + b64(json.dumps(tampered).encode()) + "." + signature),
        "jwt signature of another": bearer(head + "." + claims + "." + jwt(sign, exp=now + 999).split(".")[2]),
    }, good


def test_bad_credentials_are_refused(world):
    bad, good = bad_credentials(world)
    assert len(bad) >= 35
    for name, headers in bad.items():
        denied(world.call(None, "GET", f"/v1/jobs/{world.job}", headers=headers), 401, "unauthenticated", name)
        denied(world.call(None, "PUT", f"/v1/jobs/{world.second}/models/0", b"x" * 64, headers, world.data), 401,
               "unauthenticated", name)
    assert world.call(good, "GET", f"/v1/jobs/{world.job}")[0] == 200
    denied(world.call(good, "GET", f"/v1/jobs/{world.foreign}"), 404, "no-such-job", "jwt of another tenant")
    few = jwt(lambda t: world.rsa.sign("RS256", t), scope="openid jobs:reads")
    denied(world.call(few, "GET", f"/v1/jobs/{world.job}"), 403, "forbidden", "jwt without scope")


def test_es256(tmp_path):
    ec = Keys.make(tmp_path / "ec", "ES256")
    with Node("--jwt-alg", "ES256", "--jwt-key", ec.public, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE) as n:
        good = jwt(lambda t: ec.sign("ES256", t), "ES256")
        assert request(n.api, "GET", "/v1/jobs", headers=bearer(good))[0] == 200
        other = Keys.make(tmp_path / "ec2", "ES256")
        for token in (jwt(lambda t: other.sign("ES256", t), "ES256"), jwt(lambda t: b"\0" * 64, "ES256"),
                      jwt(lambda t: b"", "none"), good[:-2], "flo_" + "A" * 43):
            denied((*request(n.api, "GET", "/v1/jobs", headers=bearer(token))[:2], {}), 401, "", token)


def test_broken_configuration_does_not_start(tmp_path):
    (tmp_path / "bad.json").write_text('[{"name": "a"}]')
    (tmp_path / "secret").write_text("too short")
    for words in (["--operators", tmp_path / "bad.json"], ["--operators", tmp_path / "absent"],
                  ["--jwt-alg", "none", "--jwt-key", tmp_path / "secret", "--jwt-issuer", "i", "--jwt-audience", "a"],
                  ["--jwt-alg", "HS256", "--jwt-key", tmp_path / "secret", "--jwt-issuer", "i", "--jwt-audience", "a"],
                  ["--jwt-alg", "HS256"]):
        for program in ("orchestrator", "gateway"):
            done = subprocess.run([f"{BIN}/tributary-{program}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                                   "--redis", f"unix:{tmp_path}/none", *map(str, words)], timeout=20,
                                  capture_output=True)
            assert done.returncode == 1, (program, words, done)


# ---- the gateway ----

def put_update(w, job, token, client, answer, value=0.5, extra=None, size=64):
    return w.call(token, "PUT", answer["upload"]["url"], body_of(np.full(size, value, np.float32)), {
        "Content-Type": "application/vnd.safetensors", "FL-Ticket": answer["upload"]["ticket"], "FL-Client": client,
        "FL-Round": str(answer["round"]), "FL-Base-Version": str(answer["base_version"]), "FL-Weight": "1",
        **(extra or {})}, w.data)


def data_calls(w, job, token, client="c-1", headers=None):
    """The data plane's calls by name; the answers' triples."""
    u = "upd_" + "0" * 26
    ticket = {"upload": {"url": f"/v1/jobs/{job}/updates/{u}", "ticket": "x"}, "round": 1, "base_version": 0}
    return {
        "check-in": lambda: w.call(token, "POST", f"/v1/jobs/{job}/checkins", {"client_id": client}, headers, w.data),
        "model": lambda: w.call(token, "GET", f"/v1/jobs/{job}/models/0", None, headers, w.data),
        "latest": lambda: w.call(token, "GET", f"/v1/jobs/{job}/models/latest", None, headers, w.data),
        "head": lambda: w.call(token, "HEAD", f"/v1/jobs/{job}/models/0", None, headers, w.data),
        "upload": lambda: put_update(w, job, token, client, ticket, extra=headers),
        "receipt": lambda: w.call(token, "GET", f"/v1/jobs/{job}/updates/{u}?client={client}&round=1", None, headers,
                                  w.data),
    }


CALLS = ["check-in", "model", "latest", "head", "upload", "receipt"]
STRANGERS = ["none", "basic", "cut", "unknown", "as operator's", "other job's", "expired", "revoked", "operator's key",
             "jwt"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("who", STRANGERS)
def test_gateway_denies(world, call, who):
    token = {"none": None, "basic": None, "cut": world.any[:-1], "unknown": "flk_" + b64(os.urandom(32)),
             "as operator's": "flo_" + world.any[4:], "other job's": world.elsewhere, "expired": world.short,
             "revoked": world.revoked, "operator's key": world.keys["stranger"],
             "jwt": jwt(lambda t: b"x")}[who]
    headers = {"Authorization": "Basic " + base64.b64encode(world.any.encode()).decode()} if who == "basic" else None
    answer = data_calls(world, world.job, token, headers=headers)[call]()
    if who == "operator's key" and call in ("model", "latest", "head"):
        denied(answer, 404, "no-such-job", (call, who))  # an operator, of another tenant
    else:
        denied(answer, 401, "unauthenticated", (call, who))


@pytest.mark.parametrize("call", ["check-in", "upload", "receipt"])
def test_gateway_denies_other_clients(world, call):
    denied(data_calls(world, world.job, world.bound, "c-2")[call](), 403, "forbidden", call)


@pytest.mark.parametrize("token", ["any", "bound"])
def test_gateway_lets_in_who_may(world, token):
    calls = data_calls(world, world.job, getattr(world, token))
    want = {"check-in": 200, "model": 200, "latest": 200, "head": 200, "upload": 403, "receipt": 404}
    for name, call in calls.items():
        status, _, body = call()
        assert status == want[name], (name, status, body)
        if name == "upload":
            assert body["code"] == "ticket-invalid"
        if name == "receipt":
            assert body["code"] == "no-such-update"


def test_operators_fetch_models_of_their_tenant(world):
    for who in ("reader", "monitor", "root"):
        assert world.call(who, "GET", f"/v1/jobs/{world.job}/models/0", base=world.data)[0] == 200
    denied(world.call("monitor", "POST", f"/v1/jobs/{world.job}/checkins", {"client_id": "c"}, base=world.data), 401,
           "unauthenticated", "check-in")


def test_initial_model(world):
    job = world.new_job(model=False)
    body = body_of(np.zeros(8, np.float32))
    for who, status, code in ((None, 401, "unauthenticated"), (world.tokens(job)[0]["token"], 401, "unauthenticated"),
                              ("reader", 403, "forbidden"), ("monitor", 403, "forbidden"),
                              ("stranger", 404, "no-such-job")):
        denied(world.call(who, "PUT", f"/v1/jobs/{job}/models/0", body, base=world.data), status, code, who)
    assert world.call("writer", "PUT", f"/v1/jobs/{job}/models/0", body, base=world.data)[0] == 201


def test_open_jobs_stay_open(world):
    job = world.new_job(clients="open", goal=1)
    status, _, answer = world.checkin(job, None, "c-1")
    assert status == 200 and answer["status"] == "selected"
    assert put_update(world, job, None, "c-1", answer)[0] == 201
    assert world.call(None, "GET", f"/v1/jobs/{job}/models/0", base=world.data)[0] == 200


# ---- tickets ----

def forge(w, ticket, **change):
    """The same ticket with other facts and a good seal: what only a holder of the key could make."""
    raw = base64.urlsafe_b64decode(ticket + "==")
    names = ["version", "round", "job", "update", "client", "expires", "bytes", "base", "epoch", "reserved"]
    facts = dict(zip(names, struct.unpack("<II16s16sQQQIIQ", raw[:80])))
    facts.update(change)
    text = struct.pack("<II16s16sQQQIIQ", *(facts[n] for n in names))
    key = bytes.fromhex(w.node.redis("GET", "trib:key:ticket"))
    return b64(text + hmac.new(key, text, hashlib.sha256).digest())


def test_tickets(world):
    w, job = world, world.new_job(goal=2)
    token = w.tokens(job)[0]["token"]
    one = w.checkin(job, token, "c-1")[2]
    two = w.checkin(job, token, "c-2")[2]
    other = w.checkin(w.second, w.elsewhere, "c-1")[2]
    ticket = one["upload"]["ticket"]
    assert forge(w, ticket) == ticket

    def put(ticket=ticket, client="c-1", answer=one, **more):
        return put_update(w, job, token, client, {**answer, "upload": {**answer["upload"], "ticket": ticket}}, **more)
    raw = bytearray(base64.urlsafe_b64decode(ticket + "=="))
    raw[40] ^= 1
    for name, call, code in (
            ("garbage", lambda: put("x"), "ticket-invalid"), ("flipped", lambda: put(b64(bytes(raw))), "ticket-invalid"),
            ("cut", lambda: put(ticket[:-4]), "ticket-invalid"),
            ("downgraded", lambda: put(forge(w, ticket, version=0)), "ticket-invalid"),
            ("of the future", lambda: put(forge(w, ticket, version=2)), "ticket-invalid"),
            ("expired", lambda: put(forge(w, ticket, expires=1000)), "ticket-expired"),
            ("another client's", lambda: put(two["upload"]["ticket"]), "ticket-invalid"),
            ("for another client", lambda: put(client="c-2"), "ticket-invalid"),
            ("another job's", lambda: put(other["upload"]["ticket"]), "ticket-invalid"),
            ("another round", lambda: put(forge(w, ticket, round=2)), "ticket-invalid"),
            ("another base", lambda: put(forge(w, ticket, base=7)), "ticket-invalid"),
            ("round changed in the head", lambda: put(extra={"FL-Round": "2"}), "ticket-invalid")):
        denied(call(), 403, code, name)
    denied(put(forge(w, ticket, bytes=16)), 413, "too-large", "smaller promise")
    assert put()[0] == 201
    status, _, again = put()
    assert status == 200 and again["replay"] is True, again
    denied(put(value=0.25), 409, "already-reported", "other content")
    assert put_update(w, job, token, "c-2", two)[0] == 201
    until("published", lambda: w.good("admin", "GET", f"/v1/jobs/{job}")["status"]["round"] == 2)
    # A second place of round 1's update id, replayed in round 2: the ticket is for round 1.
    late = w.checkin(job, token, "c-3")[2]
    denied(put(ticket, "c-3", late), 403, "ticket-invalid", "old ticket, new round")
    assert w.good("admin", "GET", f"/v1/jobs/{job}/rounds/1")["accepted"] == 2


# ---- tokens ----

def test_tokens_are_shown_once_and_stored_hashed(world):
    job = world.new_job()
    made = world.tokens(job, client="c-1", ttl_s=100, count=3)
    assert len({t["token"] for t in made}) == 3
    stored = world.node.redis("HGETALL", f"trib:{{{job}}}:tok").split("\n")
    for t in made:
        assert t["token"].startswith("flk_") and len(t["token"]) == 47
        digest = hashlib.sha256(t["token"].encode()).hexdigest()
        assert digest in stored and t["id"] == digest[:12] and t["token"] not in "".join(stored)
    listed = world.good("admin", "GET", f"/v1/jobs/{job}/tokens")["items"]
    assert {t["id"] for t in listed} == {t["id"] for t in made}
    assert all("token" not in t and t["client"] == "c-1" for t in listed)
    assert not any(t["token"] in world.node.logs(1 << 20) for t in made)
    world.good("admin", "POST", f"/v1/jobs/{job}:stop")
    assert world.call("admin", "DELETE", f"/v1/jobs/{job}")[0] == 204
    assert world.node.redis("EXISTS", f"trib:{{{job}}}:tok") == "0"


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 1001}, {"count": "1"}, {"ttl_s": 0}, {"ttl_s": 1.5},
                                  {"ttl_s": 1 << 40}, {"client": ""}, {"client": "a b"}, {"client": 1},
                                  {"scope": "x"}, [1]])
def test_token_requests_are_checked(world, body):
    denied(world.call("admin", "POST", f"/v1/jobs/{world.job}/tokens", body), 400, "bad-request", body)


def test_tokens_of_no_job_and_no_token(world):
    none = "job_" + "0" * 26
    for method, path in (("POST", ""), ("GET", ""), ("DELETE", "/" + "0" * 12)):
        for who in ("admin", "root"):
            denied(world.call(who, method, f"/v1/jobs/{none}/tokens{path}", {} if method == "POST" else None), 404,
                   "no-such-job", method)
    for wrong in ("0" * 12, "0" * 11, "x" * 12, "*"):
        denied(world.call("admin", "DELETE", f"/v1/jobs/{world.job}/tokens/{wrong}"), 404, "no-such-token", wrong)


def test_a_thousand_tokens(world):
    job = world.new_job()
    assert len({t["token"] for t in world.tokens(job, count=1000)}) == 1000
    found, cursor = set(), ""
    while True:
        page = world.good("admin", "GET", f"/v1/jobs/{job}/tokens?limit=100" + (f"&cursor={cursor}" if cursor else ""))
        found |= {t["id"] for t in page["items"]}
        cursor = page["next"]
        if not cursor:
            break
    assert len(found) == 1000


def test_full_jobs_make_room_for_what_expired(world):
    """The bound of 100,000: reached by records put into Redis, then made room by those that are over."""
    job = world.new_job(model=False)
    now = int(time.time() * 1000)
    script = ("for i = 1, 99999 do redis.call('HSET', KEYS[1], string.format('%064x', i), "
              "'|client|' .. (i <= 50000 and ARGV[1] or ARGV[2]) .. '|1') end return 1")
    assert world.node.redis("EVAL", script, 1, f"trib:{{{job}}}:tok", now + 3600000, now + 3600001) == "1"
    assert len(world.tokens(job)) == 1
    denied(world.call("admin", "POST", f"/v1/jobs/{job}/tokens", {}), 429, "throttled", "full")
    script = ("for i = 1, 50000 do redis.call('HSET', KEYS[1], string.format('%064x', i), '|client|1|1') end return 1")
    world.node.redis("EVAL", script, 1, f"trib:{{{job}}}:tok")
    before = 100000
    for _ in range(10):  # some at a time, and no more: so that nobody waits for Redis meanwhile
        assert len(world.tokens(job, count=1000)) == 1000
        left = int(world.node.redis("HLEN", f"trib:{{{job}}}:tok"))
        assert before + 1000 - 4000 < left <= 100000, (before, left)
        before = left


def refused_within(world, job, token, seconds):
    """Asks all the time (so that the token is in every worker's cache); how long until all answers are 401."""
    began = time.monotonic()
    last = began
    while time.monotonic() - began < seconds + 0.5:
        if world.call(token, "GET", f"/v1/jobs/{job}/models/0", base=world.data)[0] == 200:
            last = time.monotonic()
    return last - began


def test_revocation_is_quick(world):
    job = world.new_job()
    t = world.tokens(job)[0]
    for _ in range(8):
        assert world.call(t["token"], "GET", f"/v1/jobs/{job}/models/0", base=world.data)[0] == 200
    assert world.call("admin", "DELETE", f"/v1/jobs/{job}/tokens/{t['id']}")[0] == 204
    assert refused_within(world, job, t["token"], 1.0) < 0.3


def test_revocation_without_the_wake(world):
    job = world.new_job()
    t = world.tokens(job)[0]
    for _ in range(8):
        assert world.call(t["token"], "GET", f"/v1/jobs/{job}/models/0", base=world.data)[0] == 200
    digest = hashlib.sha256(t["token"].encode()).hexdigest()
    assert world.node.redis("HDEL", f"trib:{{{job}}}:tok", digest) == "1"
    assert refused_within(world, job, t["token"], 1.0) < 1.0


def test_a_held_checkin_loses_with_its_token(world):
    job = world.new_job(model=False)
    t = world.tokens(job)[0]
    got = []
    held = threading.Thread(target=lambda: got.append(
        world.call(t["token"], "POST", f"/v1/jobs/{job}/checkins", {"client_id": "c-1"}, {"Prefer": "wait=20"},
                   world.data)))
    held.start()
    time.sleep(1.0)
    assert world.call("admin", "DELETE", f"/v1/jobs/{job}/tokens/{t['id']}")[0] == 204
    world.good("admin", "PUT", f"/v1/jobs/{job}/models/0", body_of(np.zeros(8, np.float32)), base=world.data)
    held.join(30)
    denied(got[0], 401, "unauthenticated", "held")


# ---- tenants ----

def test_tenants_see_their_own(world):
    def ids(who):
        found, cursor = set(), ""
        while True:
            page = world.good(who, "GET", "/v1/jobs?limit=50" + (f"&cursor={cursor}" if cursor else ""))
            found |= {(j["metadata"]["id"], j["status"]["tenant"]) for j in page["items"]}
            cursor = page["next"]
            if not cursor:
                return found
    assert (world.foreign, "other") in ids("stranger")
    assert {t for _, t in ids("stranger")} == {"other"} and {t for _, t in ids("reader")} == {"acme"}
    for who in ("root", "monitor"):
        assert {(world.job, "acme"), (world.foreign, "other")} <= ids(who)
    assert world.call("root", "POST", f"/v1/jobs/{world.foreign}:pause")[0] == 202
    assert world.call("root", "POST", f"/v1/jobs/{world.foreign}:resume")[0] == 202


def test_idempotency_keys_are_the_tenants(world):
    key = {"Idempotency-Key": "the-same"}
    mine = world.good("admin", "POST", "/v1/jobs", JOB, key)["metadata"]["id"]
    theirs = world.good("stranger", "POST", "/v1/jobs", JOB, key)["metadata"]["id"]
    assert mine != theirs
    assert world.good("admin", "POST", "/v1/jobs", JOB, key)["metadata"]["id"] == mine


def test_streams_hold_the_tenants_events(world):
    import http.client
    import urllib.parse
    u = urllib.parse.urlsplit(world.api)
    c = http.client.HTTPConnection(u.hostname, u.port, timeout=10)
    c.request("GET", "/v1/events", headers=bearer(world.keys["reader"]))
    stream = c.getresponse()
    assert stream.status == 200
    time.sleep(0.2)
    theirs = world.new_job("stranger")
    mine = world.new_job("admin")
    world.good("stranger", "POST", f"/v1/jobs/{theirs}:stop")
    world.good("admin", "POST", f"/v1/jobs/{mine}:stop")
    seen = []
    end = time.monotonic() + 10
    while time.monotonic() < end:
        line = stream.readline().decode()
        if line.startswith("data: "):
            seen.append(json.loads(line[6:]))
            if seen[-1]["type"] == "job.stopped" and seen[-1]["job"] == mine:
                break
    c.close()
    assert mine in {e["job"] for e in seen} and theirs not in {e["job"] for e in seen}


def test_operators_come_and_go_without_a_restart(world):
    assert world.call("leaver", "GET", "/v1/jobs")[0] == 200
    world.write_operators([n for n in OPERATORS if n != "leaver"])
    until("the key is refused", lambda: world.call("leaver", "GET", "/v1/jobs")[0] == 401, 5)
    assert world.call("reader", "GET", "/v1/jobs")[0] == 200
    with open(world.file, "w") as f:
        f.write("[half a fi")
    time.sleep(1.3)
    assert world.call("reader", "GET", "/v1/jobs")[0] == 200  # the last good ones stay
    world.write_operators(OPERATORS)
    until("it is back", lambda: world.call("leaver", "GET", "/v1/jobs")[0] == 200, 5)


# ---- audit ----

def test_audit(world):
    trace = os.urandom(16).hex()
    head = {"traceparent": f"00-{trace}-{'1' * 16}-01"}
    job = world.new_job(model=False)
    path = f"/v1/jobs/{job}"
    world.call("writer", "POST", path + ":stop", None, head)
    world.call("reader", "DELETE", path, None, head)
    world.call("stranger", "DELETE", path, None, head)
    world.call(None, "DELETE", path, None, head)
    world.call("stranger", "PUT", path + "/models/0", body_of(np.zeros(8, np.float32)), head, world.data)
    world.call("admin", "DELETE", path, None, head)
    want = [("writer", "acme", "POST", path + ":stop", 202), ("reader", "acme", "DELETE", path, 403),
            ("stranger", "other", "DELETE", path, 404), ("-", "-", "DELETE", path, 401),
            ("stranger", "other", "PUT", path + "/models/0", 404), ("admin", "acme", "DELETE", path, 204)]

    def records():
        items = world.good("root", "GET", "/v1/audit?limit=50")["items"]
        return [(r["who"], r["tenant"], r["method"], r["path"], r["status"]) for r in items if r["trace"] == trace]
    until("all records", lambda: len(records()) == len(want), 5)
    assert sorted(records()) == sorted(want)
    page = world.good("root", "GET", "/v1/audit?limit=2")
    older = world.good("root", "GET", f"/v1/audit?limit=2&cursor={page['next']}")
    assert [r["id"] for r in page["items"] + older["items"]] == \
        [r["id"] for r in world.good("root", "GET", "/v1/audit?limit=4")["items"]]
    text = json.dumps(world.good("root", "GET", "/v1/audit?limit=500"))
    assert "flk_" not in text and not any(k in text for k in world.keys.values())
    denied(world.call("root", "GET", "/v1/audit?cursor=x"), 400, "bad-request", "cursor")


# ---- everything together ----

def test_a_round_with_tokens_gives_the_same_bits(world, tmp_path):
    """By the Python client, the command line and their tokens."""
    from tributary import Admin, Client, Problem
    rng = np.random.default_rng(7)
    base = rng.standard_normal(3000).astype(np.float32)
    updates = [(rng.standard_normal(3000).astype(np.float32), float(w) + 0.25) for w in rng.integers(1, 1000, 4)]
    with Admin(world.api, token=world.keys["admin"], retry_for=20) as admin:
        job = admin.submit({"auth": {"clients": "token"}, "sync": {"goal": 4}, "stop": {"rounds": 1}}, name="bits")
        bits = job["spec"]["aggregation"]["scale_bits"]
        job = job["metadata"]["id"]
        admin.upload_initial_model(job, {"w": base})
        tokens = [admin.issue_tokens(job, client=f"c-{i}", ttl_s=600)[0] for i in range(4)]
        assert {t["id"] for t in admin.tokens(job)} == {t["id"] for t in tokens}
        with pytest.raises(Problem) as e:
            Client(world.data, job, "c-0", retry_for=5).checkin()
        assert e.value.code == "unauthenticated"
        with pytest.raises(Problem) as e:
            Client(world.data, job, "c-0", token=tokens[1]["token"], retry_for=5).checkin()
        assert e.value.code == "forbidden"
        crew = [threading.Thread(target=Client(world.data, job, f"c-{i}", token=tokens[i]["token"], retry_for=30).run,
                                 args=(lambda p, c, n, i=i: ({"w": updates[i][0]}, updates[i][1]),)) for i in range(4)]
        for t in crew:
            t.start()
        for t in crew:
            t.join(60)
        assert admin.wait(job, timeout=30)["status"]["version"] == 1
        admin.revoke_token(job, tokens[0]["id"])
    out = tmp_path / "m.safetensors"

    def cli(*words, token=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TRIBUTARY_TOKEN")}
        if token:
            env["TRIBUTARY_TOKEN"] = token
        return subprocess.run([f"{BIN}/tributary", *words, "--api", world.api], env=env, capture_output=True,
                              text=True, timeout=30)
    assert cli("model", job, "-o", str(out)).returncode == 4
    assert cli("get", job, token=world.keys["stranger"]).returncode == 4
    assert cli("get", "bits", "--token", world.keys["reader"]).returncode == 0
    done = cli("model", job, "-o", str(out), token=world.keys["reader"])
    assert done.returncode == 0, done
    exact, model, bound = reference(base, updates, bits)
    got = vector_of(out.read_bytes())
    assert np.array_equal(got.view(np.uint32), exact.view(np.uint32))
    assert np.all(np.abs(got - model) <= bound)


def test_command_line(world):
    def cli(*words, who="admin"):
        env = {k: v for k, v in os.environ.items() if not k.startswith("TRIBUTARY_")}
        return subprocess.run([f"{BIN}/tributary", *words], capture_output=True, text=True, timeout=30,
                              env={**env, "TRIBUTARY_API": world.api, "TRIBUTARY_TOKEN": world.keys[who]})
    job = world.new_job(name="by-words")
    made = cli("token", "by-words", "--client", "c-1", "--ttl-s", "60", "--count", "2").stdout.split()
    assert len(made) == 2 and all(world.checkin(job, t, "c-1")[0] == 200 for t in made)
    assert world.checkin(job, made[0], "c-2")[0] == 403
    listed = json.loads(cli("tokens", "by-words", "--format", "json").stdout)
    assert {t["id"] for t in listed} == {hashlib.sha256(t.encode()).hexdigest()[:12] for t in made}
    assert listed[0]["id"] in cli("tokens", "by-words").stdout
    for t in listed:
        assert cli("revoke", "by-words", t["id"]).returncode == 0
        assert cli("revoke", "by-words", t["id"]).returncode == 4
    assert cli("revoke", "by-words", "nonsense").returncode == 2
    assert cli("token", "by-words", who="writer").returncode == 4
    done = cli("operator", "zoe", "--tenant", "acme", "--scopes", "jobs:read ops:read")
    row, key = json.loads(done.stdout), done.stderr.split()[-1]
    assert row["sha256"] == hashlib.sha256(key.encode()).hexdigest() and key not in done.stdout
    assert row["scopes"] == ["jobs:read", "ops:read"] and row["tenant"] == "acme"
    assert cli("operator", "zoe", "--scopes", "jobs:all").returncode == 2


def test_open_by_default_and_says_so():
    with Node() as n:
        status, _, data = request(n.api, "POST", "/v1/jobs", JOB)
        assert status == 201 and json.loads(data)["status"]["tenant"] == "default"
        assert "whoever reaches the API may do everything" in n.logs(1 << 20)
        assert json.loads(request(n.api, "GET", "/v1/audit")[2])["items"][0]["who"] == "open"


def test_the_matrix_is_large_enough():
    assert len(api_denials()) + len(CALLS) * len(STRANGERS) >= 150
