# SPDX-License-Identifier: Apache-2.0
"""k8s/ against a real API server (make k8s-apiserver; binaries from $KUBE_BIN, else skipped): every overlay in a server's
dry run, every CEL rule of the definition with an object that breaks it, and the orchestrator's reconciler with the very
rights of k8s/base, through restarts of the server, versions that are gone and writes of others.

KUBE_CRDS: a folder with definitions that overlays name but do not bring (the Prometheus operator's); without it their
objects are taken as they are."""
import contextlib
import copy
import glob
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests/system"), HERE]
import control_plane  # noqa: E402
import render  # noqa: E402
from check import pseudo_overlays  # noqa: E402
from cluster import Job, Node, body_of, call, request, until  # noqa: E402

pytestmark = pytest.mark.skipif(bool(control_plane.missing()), reason=str(control_plane.missing()))
LIMIT = 120
SPACE, ACCOUNT = "tributary", "tributary-orchestrator"
KIND = {"apiVersion": "tributary.io/v1", "kind": "AggregationJob"}
AUDIT = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
         "rules": [{"level": "Metadata"}]}


def base(*kinds):
    return [o for o in render.by_hand(os.path.join(render.K8S, "base")) if o["kind"] in kinds]


@pytest.fixture(scope="module")
def plane():
    with tempfile.TemporaryDirectory(prefix="kube-api-") as folder:
        with open(os.path.join(folder, "audit.yaml"), "w", encoding="utf-8") as f:
            json.dump(AUDIT, f)
        flags = [f"--audit-policy-file={folder}/audit.yaml", f"--audit-log-path={folder}/audit.log"]
        with control_plane.ControlPlane(folder, flags=flags) as p:
            print(p.json("version")["serverVersion"]["gitVersion"], f"after {p.took:.1f} s")
            p.apply(*base("Namespace", "CustomResourceDefinition"))
            p.kubectl("wait", "--for=condition=Established", "crd/aggregationjobs.tributary.io", "--timeout=60s")
            p.apply(*base("ServiceAccount", "ClusterRole", "ClusterRoleBinding"))
            yield p


# ---- overlays ----

def places():
    return [(f"overlay {n}", os.path.join(render.K8S, "overlays", n)) for n in render.overlays()]


def foreign(plane, objects):
    """Definitions of kinds that overlays use and do not define: those of $KUBE_CRDS, else ones that take anything."""
    known = []
    for path in glob.glob(os.path.join(os.environ.get("KUBE_CRDS", "/nonexistent"), "*.yaml")):
        with open(path, encoding="utf-8") as f:
            known += [d for d in yaml.safe_load_all(f) if d and d.get("kind") == "CustomResourceDefinition"]
    wanted = {(o["apiVersion"], o["kind"]) for o in objects if o["apiVersion"].startswith("monitoring.coreos.com/")}
    for version, kind in sorted(wanted):
        group, _, name = version.partition("/")
        mine = [d for d in known if d["spec"]["group"] == group and d["spec"]["names"]["kind"] == kind]
        plural = kind.lower() + "s"
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(mine[0] if mine else {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {"group": group, "scope": "Namespaced",
                     "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                     "versions": [{"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                         "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}))
        plane.kubectl("wait", "--for=condition=Established", f"crd/{plural}.{group}", "--timeout=60s")
        print(kind, "checked by its own definition" if mine else "taken as it is")


def test_every_overlay_is_taken(plane):
    with tempfile.TemporaryDirectory(prefix="kc-") as folder:
        rendered = {name: render.by_hand(at) for name, at in [*places(), *pseudo_overlays(folder)]}
    everything = [o for objects in rendered.values() for o in objects]
    foreign(plane, everything)
    for space in {o["metadata"].get("namespace") for o in everything} - {None}:
        plane.run("create", "namespace", space)  # a dry run does not see those it makes
    for name, objects in rendered.items():
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        done = plane.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"
        assert len(done.stdout.splitlines()) == len(objects), name
        warnings = [w for w in done.stderr.splitlines() if "Warning" in w]
        assert not warnings, f"{name}: {warnings}"  # Pod Security of the namespaces warns of templates


def test_planted_mistakes_are_not_taken(plane):
    """What proves that a dry run above says something."""
    objects = render.by_hand(os.path.join(render.K8S, "overlays/ci"))

    def refusal(kind, plant):
        o = copy.deepcopy(next(o for o in objects if o["kind"] == kind))
        plant(o)
        done = plane.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(o))
        return done.stderr

    def pod(o):
        return o["spec"]["template"]["spec"]
    assert "replcas" in refusal("Deployment", lambda o: o["spec"].update(replcas=2))
    assert "selector" in refusal("Deployment", lambda o: o["spec"]["template"]["metadata"]["labels"].clear())
    assert "mountPath" in refusal("DaemonSet", lambda o: pod(o)["containers"][0]["volumeMounts"].append(
        {"name": "run", "mountPath": "/run/tributary"}))
    assert "restricted" in refusal("Deployment", lambda o: pod(o).update(hostNetwork=True))


# ---- the definition's rules ----

def sample(schema, other=False):
    """A value that the schema takes; `other`: one more."""
    kind = schema.get("type")
    if "x-kubernetes-int-or-string" in schema:
        return 2 if other else 1
    if "enum" in schema:
        return schema["enum"][-1 if other else 0]
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        return low + (1 if kind == "integer" or low + 1 <= schema.get("maximum", low + 1) else 0) if other else low
    if kind == "string":
        return "b" if other else "a"
    if kind == "array":
        return [sample(schema["items"], other)]
    if kind == "boolean":
        return other
    fields = schema.get("properties", {})
    return {name: sample(field, other) for name, field in fields.items()} if fields else {"x": int(other)}


def validations(schema, path=()):
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule
    for name, field in schema.get("properties", {}).items():
        yield from validations(field, (*path, name))
    if schema.get("type") == "array":
        yield from validations(schema["items"], (*path, "[]"))


def nested(path, value):
    for name in reversed(path):
        value = {name: value}
    return value


def at(schema, path):
    for name in path:
        schema = schema["properties"][name]
    return schema


def an_object(name, spec):
    return {**KIND, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def attempt(plane, name, spec, dry=True):
    done = plane.run("apply", "--validate=strict", *(["--dry-run=server"] if dry else []), "-f", "-",
                     stdin=json.dumps(an_object(name, spec)))
    return done.returncode == 0, done.stderr


def test_every_rule_has_an_object_that_breaks_it(plane):
    schema = base("CustomResourceDefinition")[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    broken = {"sync.quorum must not be above sync.goal": [{"sync": {"goal": 3, "quorum": 4}}, {"sync": {"quorum": 11}}],
              "a number from": [], "cannot be changed": []}
    taken = [{}, {"sync": {"goal": 3, "quorum": 3}}, {"sync": {"quorum": 10}}]
    seen = 0
    # the name's
    for name in ("a.b", "a" * 64):
        ok, said = attempt(plane, name, {})
        assert not ok and "at most 63" in said, said
    assert attempt(plane, "a" * 63, {})[0]
    seen += 1
    for path, rule in validations(schema):
        message = rule["message"]
        if message.startswith("a number from"):
            low, high = (int(w.strip(",")) for w in message.split() if w.strip(",").isdigit())
            for wrong in (low - 1, high + 1, "automatic", ""):
                ok, said = attempt(plane, "rule", nested(path[1:], wrong))
                assert not ok and message in said, (path, wrong, said)
            for right in (low, high, "auto"):
                ok, said = attempt(plane, "rule", nested(path[1:], right))
                assert ok, (path, right, said)
            seen += 1
        elif message in broken:
            for spec in broken[message]:
                ok, said = attempt(plane, "rule", spec)
                assert not ok and message in said, (spec, said)
            seen += 1
    for spec in taken:
        ok, said = attempt(plane, "rule", spec)
        assert ok, (spec, said)
    fixed = [(rule["message"].split()[0], rule["message"]) for _, rule in validations(schema)
             if rule["message"].endswith("cannot be changed in a job's life")]
    assert fixed and seen + len(fixed) == len(list(validations(schema)))


def transitions(schema):
    """(dotted path, value, another or None when the schema has but one) of what must stay."""
    for _, rule in validations(schema):
        if rule["message"].endswith("cannot be changed in a job's life"):
            dotted = rule["message"].split()[0]
            field = at(schema, dotted.split("."))
            first, second = sample(field), sample(field, True)
            yield dotted, rule["message"], first, second if second != first else None


def test_what_must_stay_stays_once_there_is_a_job(plane):
    schema = base("CustomResourceDefinition")[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    cases = list(transitions(schema))
    assert len(cases) >= 10
    free = {"sync": {"goal": 10, "deadline_s": 5}}
    for i, (dotted, message, first, second) in enumerate(cases):
        path, name = dotted.split(".")[1:], f"stays-{i}"
        whole = {**free, **nested(path, first)}
        ok, said = attempt(plane, name, free, dry=False)
        assert ok, said
        ok, said = attempt(plane, name, whole, dry=False)  # no job yet: anything may change
        assert ok, (dotted, said)
        plane.kubectl("-n", "default", "patch", "aggregationjob", name, "--subresource=status", "--type=merge", "-p",
                      json.dumps({"status": {"job": "job_x", "phase": "Pending"}}))
        ok, said = attempt(plane, name, {**whole, "sync": {"goal": 20}}, dry=False)  # what may change does
        assert ok, (dotted, said)
        ok, said = attempt(plane, name, free)  # taken away
        assert not ok and message in said, (dotted, said)
        if second is not None:
            ok, said = attempt(plane, name, {**free, **nested(path, second)})
            assert not ok and message in said, (dotted, second, said)
    plane.kubectl("-n", "default", "delete", "aggregationjobs", "--all")


def test_unknown_fields_and_status_by_the_back_door(plane):
    ok, said = attempt(plane, "typo", {"sync": {"gaol": 1}})
    assert not ok and "gaol" in said
    done = plane.run("apply", "--validate=strict", "-f", "-", stdin=json.dumps(
        {**an_object("door", {}), "status": {"job": "job_x", "phase": "Succeeded"}}))
    assert done.returncode == 0, done.stderr
    assert "status" not in plane.json("get", "aggregationjob", "door")  # a subresource: not with the object
    plane.kubectl("patch", "aggregationjob", "door", "--subresource=status", "--type=merge", "-p",
                  json.dumps({"status": {"phase": "Running", "round": 3, "version": 2, "accuracy": 0.9375},
                              "spec": {"sync": {"goal": 77}}}))
    now = plane.json("get", "aggjob", "door")
    assert now["status"]["round"] == 3 and not now["spec"] and now["metadata"]["generation"] == 1
    head, row = plane.kubectl("get", "aggregationjobs").splitlines()
    assert head.split() == ["NAME", "PHASE", "ROUND", "VERSION", "ACCURACY", "AGE"]
    assert row.split()[:5] == ["door", "Running", "3", "2", "0.9375"]
    assert "door" in plane.kubectl("get", "tributary")  # the category
    wrong = plane.run("patch", "aggregationjob", "door", "--subresource=status", "--type=merge", "-p",
                      json.dumps({"status": {"round": "three"}}))
    assert wrong.returncode and "integer" in wrong.stderr
    plane.kubectl("delete", "aggregationjob", "door")


# ---- the reconciler ----

class Link:
    """A TCP relay in front of the server, whose cable can be pulled."""

    def __init__(self, port):
        self.port, self.up, self.pairs, self.lock = port, True, set(), threading.Lock()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                here, _ = self.socket.accept()
            except OSError:
                return
            if not self.up:
                here.close()
                continue
            try:
                there = socket.create_connection(("127.0.0.1", self.port), 5)
            except OSError:
                here.close()
                continue
            there.settimeout(None)
            with self.lock:
                self.pairs |= {here, there}
            for a, b in ((here, there), (there, here)):
                threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, a, b):
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(65536)
                if not data:
                    break
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        with self.lock:
            self.pairs -= {a, b}

    def pull(self):
        self.up = False
        with self.lock:
            pairs = list(self.pairs)
        for s in pairs:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def plug(self):
        self.up = True

    def close(self):
        self.socket.close()
        self.pull()


@pytest.fixture(scope="module")
def world(plane):
    """(control plane, node whose orchestrator watches it through a link, the link)"""
    token = os.path.join(plane.folder, "token")
    with open(token, "w", encoding="utf-8") as f:
        f.write(plane.kubectl("-n", SPACE, "create", "token", ACCOUNT, "--duration=2h"))
    link = Link(plane.port)
    with contextlib.closing(link):
        env = {"TRIBUTARY_KUBE_API": link.url, "TRIBUTARY_KUBE_TOKEN_FILE": token,
               "TRIBUTARY_KUBE_CA": plane.pki.ca + ".pem"}
        with Node(env=env) as node:
            yield plane, node, link


def read(plane, name):
    done = plane.run("-n", SPACE, "get", "aggregationjob", name, "-o", "json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def status(plane, name):
    done = plane.run("-n", SPACE, "get", "aggregationjob", name, "-o", "jsonpath={.status}")  # not what it is of
    return json.loads(done.stdout or "{}") if done.returncode == 0 else {}


def apply(plane, name, spec):
    plane.apply({**KIND, "metadata": {"name": name, "namespace": SPACE}, "spec": spec})


def created(plane, name):
    until(f"{name} has a job", lambda: status(plane, name).get("job"), LIMIT, 0.2)
    return status(plane, name)["job"]


def delete(plane, name):
    plane.kubectl("-n", SPACE, "delete", "aggregationjob", name, f"--timeout={LIMIT}s", timeout=LIMIT + 30)


def accepted(plane, name):
    return next((c for c in status(plane, name).get("conditions", []) if c["type"] == "Accepted"), {})


def as_job(node, id_, clients):
    job = Job.__new__(Job)
    job.node, job.id, job.size, job.clients, job.seed = node, id_, 200, clients, 1
    job.base = np.zeros(200, dtype=np.float32)
    return job


def test_a_job_is_applied_trained_shown_deleted(world):
    plane, node, _ = world
    began = time.monotonic()
    apply(plane, "digits", {"sync": {"goal": 2, "deadline_s": 120}, "stop": {"rounds": 1}})
    id_ = created(plane, "digits")
    print(f"from apply to its job in status: {time.monotonic() - began:.2f} s")
    call(node.data, "PUT", f"/v1/jobs/{id_}/models/0", body_of(np.zeros(200, dtype=np.float32)))
    until("running", lambda: status(plane, "digits").get("phase") == "Running", LIMIT, 0.2)
    job = as_job(node, id_, 2)
    for client in range(2):
        ticket = job.selected(client)

        def taken(client=client, ticket=ticket):
            code, _, receipt = job.put(client, ticket, weight=1.0, extra={"FL-Metrics": "accuracy=0.75, loss=0.5"})
            assert code in (200, 201, 429, 503), receipt
            return code in (200, 201)
        until("taken", taken, LIMIT)
    until("told", lambda: status(plane, "digits").get("phase") == "Succeeded", LIMIT, 0.2)
    now = status(plane, "digits")
    assert now["version"] == 1 and now["counted"] == 2 and now["observedGeneration"] == 1, now
    row = plane.kubectl("-n", SPACE, "get", "aggregationjobs").splitlines()[1].split()
    assert row[:2] == ["digits", "Succeeded"] and row[3:5] == ["1", "0.75"], row
    delete(plane, "digits")
    assert request(node.api, "GET", f"/v1/jobs/{id_}")[0] == 404


def test_refusals_and_changes_are_told(world):
    plane, node, _ = world
    # what CEL does not know, the orchestrator says
    apply(plane, "wrong", {"sync": {"goal": 2}, "aggregation": {"denominator": "population"}})
    until("told", lambda: accepted(plane, "wrong").get("status"), LIMIT, 0.2)
    print(accepted(plane, "wrong")["message"], status(plane, "wrong")["phase"])
    apply(plane, "wrong", {"sync": {"goal": 3}, "placement": {"slots": 5}})
    id_ = created(plane, "wrong")
    until("accepted", lambda: accepted(plane, "wrong").get("status") == "True", LIMIT, 0.2)
    apply(plane, "wrong", {"sync": {"goal": 4, "deadline_s": 77}, "placement": {"slots": 5}})
    until("in force", lambda: call(node.api, "GET", f"/v1/jobs/{id_}")["spec"]["sync"]["goal"] == 4, LIMIT)
    done = plane.run("-n", SPACE, "patch", "aggregationjob", "wrong", "--type=merge", "-p",
                     json.dumps({"spec": {"placement": {"slots": 6}}}))
    assert done.returncode and "spec.placement cannot be changed" in done.stderr
    delete(plane, "wrong")


def test_the_server_restarts(world):
    plane, node, _ = world
    apply(plane, "before", {"sync": {"goal": 2}})
    id_ = created(plane, "before")
    plane.processes.stop("apiserver")
    time.sleep(1)
    plane.start_apiserver()
    plane.wait()
    apply(plane, "after", {"sync": {"goal": 2}})
    assert created(plane, "after") != id_ and status(plane, "before")["job"] == id_
    labels = [j["metadata"]["labels"]["tributary.io/uid"] for j in call(node.api, "GET", "/v1/jobs?limit=100")["items"]]
    assert len(labels) == len(set(labels)) == 2
    for name in ("before", "after"):
        delete(plane, name)


def stop_and_forget(plane, revision):
    """The server restarts and knows nothing of what was before: watches of then get 410."""
    plane.processes.stop("apiserver")
    etcdctl = os.path.join(plane.bin, "etcdctl")
    assert os.access(etcdctl, os.X_OK), "KUBE_BIN wants etcdctl, too"
    subprocess.run([etcdctl, f"--endpoints=http://127.0.0.1:{plane.etcd_port}", "compact", revision], check=True,
                   capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}, timeout=30)
    plane.start_apiserver()
    plane.wait()


def test_a_version_that_is_gone(world):
    """The watch is away while much happens and the server forgets: 410, and a listing finds it all."""
    plane, node, link = world
    apply(plane, "old", {"sync": {"goal": 2}})
    created(plane, "old")
    link.pull()
    lists = node.metric("orchestrator", "tributary_kube_lists_total")
    plane.kubectl("-n", SPACE, "patch", "aggregationjob", "old", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
    plane.kubectl("-n", SPACE, "delete", "aggregationjob", "old")  # by somebody in a hurry: nobody hears of it
    for i in range(30):
        apply(plane, "busy", {"sync": {"goal": 2 + i}})
    revision = read(plane, "busy")["metadata"]["resourceVersion"]
    stop_and_forget(plane, revision)
    link.plug()
    created(plane, "busy")
    until("old forgotten", lambda: node.metric("orchestrator", "tributary_kube_objects") == 1, LIMIT)
    assert node.metric("orchestrator", "tributary_kube_lists_total") > lists
    until("all told", lambda: status(plane, "busy").get("observedGeneration") == 30, LIMIT, 0.2)
    delete(plane, "busy")


def test_others_write_at_the_same_time(world):
    """Somebody edits the objects all the while: conflicts are tried again, foreign finalizers stay."""
    plane, node, _ = world
    stop, edits, errors = threading.Event(), [0], []

    def edit():
        while not stop.is_set():
            for name in ("c0", "c1", "c2"):
                done = plane.run("-n", SPACE, "annotate", "--overwrite", "aggregationjob", name, f"turn={edits[0]}")
                edits[0] += done.returncode == 0
                if done.returncode and "NotFound" not in done.stderr and "not found" not in done.stderr:
                    errors.append(done.stderr)
    threads = [threading.Thread(target=edit) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for turn in range(2):
            for name in ("c0", "c1", "c2"):
                plane.apply({**KIND, "metadata": {"name": name, "namespace": SPACE, "finalizers": ["test.example/own"]},
                             "spec": {"sync": {"goal": 2 + turn}}})
            ids = {created(plane, name) for name in ("c0", "c1", "c2")}
            assert len(ids) == 3
            for name in ("c0", "c1", "c2"):
                plane.kubectl("-n", SPACE, "delete", "aggregationjob", name, "--wait=false")

            def ours_gone(name):
                return (read(plane, name) or {}).get("metadata", {}).get("finalizers") == ["test.example/own"]
            for name in ("c0", "c1", "c2"):
                until(f"{name}: ours gone, theirs there", lambda n=name: ours_gone(n), LIMIT, 0.2)
            for id_ in ids:
                assert request(node.api, "GET", f"/v1/jobs/{id_}")[0] == 404
            for name in ("c0", "c1", "c2"):
                plane.kubectl("-n", SPACE, "patch", "aggregationjob", name, "--type=merge", "-p",
                              '{"metadata":{"finalizers":null}}')
                until(f"{name} gone", lambda n=name: read(plane, n) is None, LIMIT, 0.2)
    finally:
        stop.set()
        for t in threads:
            t.join()
    print(f"{edits[0]} edits of others")
    assert edits[0] > 10 and not errors, errors[:2]


def test_objects_that_nobody_can_read(world):
    """All the API server takes: too large a one, one of many levels, NUL, numbers beyond 64 bits."""
    plane, node, link = world
    odd = {"large": '"' + "y" * 1_300_000 + '"', "deep": "[" * 3000 + "]" * 3000, "nul": '"a\\u0000b"',
           "number": "18446744073709551616"}
    for name, value in odd.items():
        done = plane.run("create", "-f", "-", stdin=json.dumps(
            {**KIND, "metadata": {"name": name, "namespace": SPACE}, "spec": {"client_config": {"x": "@"}}})
            .replace('"@"', value))
        assert done.returncode == 0, (name, done.stderr)
    for turn in range(2):
        apply(plane, f"small-{turn}", {"sync": {"goal": 2}})
        created(plane, f"small-{turn}")
        for name in odd:
            until(f"{name} is told", lambda n=name: status(plane, n).get("phase") == "Refused", LIMIT, 0.2)
            assert accepted(plane, name)["message"].startswith("/spec"), accepted(plane, name)
        if turn == 0:  # and once more, as a listing shows them
            lists = node.metric("orchestrator", "tributary_kube_lists_total")
            link.pull()
            apply(plane, "small-0", {"sync": {"goal": 3}})
            stop_and_forget(plane, read(plane, "small-0")["metadata"]["resourceVersion"])
            link.plug()
            until("listed", lambda: node.metric("orchestrator", "tributary_kube_lists_total") > lists, LIMIT)
    for name in (*odd, "small-0", "small-1"):
        delete(plane, name)
    until("all forgotten", lambda: node.metric("orchestrator", "tributary_kube_objects") == 0, LIMIT)


def test_the_definition_is_taken_away_and_comes_back(world):
    """`kubectl delete crd` deletes all objects: jobs end, nothing hangs, and later ones are seen again."""
    plane, node, _ = world
    apply(plane, "with-it", {"sync": {"goal": 2}})
    id_ = created(plane, "with-it")
    plane.kubectl("delete", "crd", "aggregationjobs.tributary.io", f"--timeout={LIMIT}s", timeout=LIMIT + 30)
    assert request(node.api, "GET", f"/v1/jobs/{id_}")[0] == 404
    plane.apply(*base("CustomResourceDefinition"))
    plane.kubectl("wait", "--for=condition=Established", "crd/aggregationjobs.tributary.io", f"--timeout={LIMIT}s",
                  timeout=LIMIT + 30)
    until("taken", lambda: plane.run("apply", "-f", "-", stdin=json.dumps(
        {**KIND, "metadata": {"name": "with-it", "namespace": SPACE}, "spec": {}})).returncode == 0, LIMIT, 0.5)
    assert created(plane, "with-it") != id_
    delete(plane, "with-it")


def test_a_token_that_is_not_good_any_more(world):
    plane, node, link = world
    path = os.path.join(plane.folder, "token")
    with open(path, encoding="utf-8") as f:
        good = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write("no.such.token")
    failures = node.metric("orchestrator", "tributary_kube_failures_total")
    link.pull()
    link.plug()
    apply(plane, "locked-out", {"sync": {"goal": 2}})
    until("refused", lambda: node.metric("orchestrator", "tributary_kube_failures_total") > failures + 1, LIMIT, 0.2)
    assert not status(plane, "locked-out")
    with open(path, "w", encoding="utf-8") as f:
        f.write(good)  # the kubelet has put a new one there
    created(plane, "locked-out")
    delete(plane, "locked-out")


def test_the_account_has_what_it_needs_and_no_more(world):
    """Last: the server's audit log holds every request of all tests above."""
    plane, _, _ = world
    granted = {(verb, "/".join(r.split("/")[1:])) for rule in base("ClusterRole")[0]["rules"] for verb in rule["verbs"]
               for r in rule["resources"]}
    used, refused, grants = set(), [], []
    user = f"system:serviceaccount:{SPACE}:{ACCOUNT}"
    with open(os.path.join(plane.folder, "audit.log"), encoding="utf-8") as f:
        for line in f:
            e = json.loads(line)
            if e["user"].get("username") != user:
                continue
            ref = e.get("objectRef", {})
            assert ref.get("apiGroup") == "tributary.io", e
            if e.get("responseStatus", {}).get("code") == 403:
                refused.append((e["stageTimestamp"], e["requestURI"]))
                continue
            used.add((e["verb"], ref.get("subresource", "")))
            grants.append((e["stageTimestamp"], e["verb"]))
    # A server that has just started refuses until it has read its roles. What is refused for good has no later grant.
    for when, uri in refused:
        assert any(g > when for g, _ in grants), (when, uri)
    print(f"{len(grants)} requests granted, {len(refused)} refused by servers not yet ready")
    assert used == granted, (used, granted)
    for verb, what in (("create", "aggregationjobs.tributary.io"), ("delete", "aggregationjobs.tributary.io"),
                       ("update", "aggregationjobs.tributary.io"), ("get", "secrets"), ("list", "pods"),
                       ("get", "configmaps")):
        done = plane.run("auth", "can-i", verb, what, f"--as={user}", "-A")
        assert done.stdout.strip().startswith("no"), (verb, what, done.stdout)
