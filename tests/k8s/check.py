#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make k8s-check: everything about k8s/ that can be known without a cluster. Ends with "N passed, N failed, N skipped".

    check.py BUILD          BUILD/bin has the programs; downloads are kept in build/k8s/

Renders every overlay and every component, validates them strictly against the API's types, checks the objects against
each other and against our rules, lints, starts every program with its manifest's own words in --check-config, and lets
pytest see that planted mistakes are found (test_check.py)."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import policy  # noqa: E402
import render  # noqa: E402
import schema  # noqa: E402

ROOT = render.ROOT
# A component is checked on base, with what it belongs on top of.
WITH = {"tls-client-ca": ["tls"], "prometheus": []}
SAMPLES = {"metadata.name": "tributary-pod-0", "metadata.namespace": "tributary", "spec.nodeName": "node-1.example",
           "status.podIP": "10.0.0.7"}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def case(self, name, faults):
        if faults:
            self.failed += 1
            print(f"  FAIL {name}")
            for f in faults:
                print(f"         {f}")
        else:
            self.passed += 1
            print(f"  ok   {name}")
        sys.stdout.flush()

    def skip(self, name, why):
        self.skipped += 1
        print(f"  skip {name}: {why}", flush=True)


def pseudo_overlays(folder):
    """(name, folder) of one overlay per component: base, what it needs, itself."""
    out = []
    for name in render.components():
        at = os.path.join(folder, name)
        os.makedirs(at, exist_ok=True)
        wanted = [*WITH.get(name, []), name]
        spec = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
                "resources": [os.path.relpath(os.path.join(render.K8S, "base"), at)],
                "components": [os.path.relpath(os.path.join(render.K8S, "components", c), at) for c in wanted]}
        with open(os.path.join(at, "kustomization.yaml"), "w", encoding="utf-8") as f:
            yaml.safe_dump(spec, f)
        out.append((f"component {name}", at))
    return out


def render_all(tally, folder):
    """{name: objects}. By kustomize when there is one, and by hand in any case; they must agree."""
    command = render.tool()
    out = {}
    places = [(f"overlay {n}", os.path.join(render.K8S, "overlays", n)) for n in render.overlays()]
    for name, at in places + pseudo_overlays(folder):
        try:
            objects = render.by_hand(at)
            faults = render.difference(render.by_tool(command, at), objects) if command else []
        except (render.RenderError, OSError, KeyError, TypeError, ValueError) as e:
            tally.case(f"render {name}", [f"{type(e).__name__}: {e}"])
            continue
        tally.case(f"render {name} ({len(objects)} objects)", faults)
        out[name] = objects
    if command:
        print(f"       rendered by {' '.join(command)} and by tests/k8s/render.py, object by object the same")
    else:
        tally.skip("compare with kustomize", "no kustomize of release 5 here ($KUSTOMIZE, kustomize, kubectl)")
    return out


def validate(tally, rendered, build):
    wheel, why = schema.fetch(build)
    if not wheel:
        tally.skip("types of the API", why)
        return
    for release in schema.RELEASES:
        types = schema.Schema(wheel, release)
        for name, objects in rendered.items():
            tally.case(f"types of Kubernetes {release}: {name}",
                       [f"{o['kind']}/{o['metadata']['name']}: {f}" for o in objects for f in types.check(o)])


def lint(tally):
    if not shutil.which("yamllint"):
        tally.skip("yamllint", "not installed (make install-deps)")
        return
    done = subprocess.run(["yamllint", "-s", "-c", os.path.join(ROOT, ".yamllint"), render.K8S], capture_output=True,
                          text=True, timeout=60)
    tally.case("yamllint", (done.stdout + done.stderr).splitlines() if done.returncode else [])
    found = []
    for folder, _, files in os.walk(render.K8S):
        for file in files:
            if file.endswith((".yaml", ".yml")):
                with open(os.path.join(folder, file), encoding="utf-8") as f:
                    if re.search(r"^\s*privileged:\s*true", f.read(), re.M):
                        found.append(os.path.relpath(os.path.join(folder, file), render.K8S))
    tally.case("privileged: true in its one component alone",
               [f for f in found if not f.startswith("components/privileged-fallback/")])


# ---- the real programs ----

def certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-subj", "/CN=check", "-days", "2", "-keyout", os.path.join(folder, "tls.key"), "-out",
                    os.path.join(folder, "tls.crt")], check=True, capture_output=True, timeout=60)
    shutil.copy(os.path.join(folder, "tls.crt"), os.path.join(folder, "ca.crt"))


def volume(o, v, folder, binaries):
    """Fills `folder` with what the cluster would put into volume v."""
    if "configMap" in v:
        data = next(c["data"] for c in policy_objects if c["kind"] == "ConfigMap"
                    and c["metadata"]["name"] == v["configMap"]["name"]
                    and c["metadata"]["namespace"] == o["metadata"]["namespace"])
        for name, text in data.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(text)
    elif "secret" in v and v["secret"]["secretName"] == "tributary-operators":
        row = subprocess.run([os.path.join(binaries, "tributary"), "operator", "check"], capture_output=True,
                             text=True, check=True, timeout=30).stdout
        with open(os.path.join(folder, "operators.json"), "w", encoding="utf-8") as f:
            json.dump([json.loads(row)], f)
    elif "secret" in v:
        certificate(folder)


policy_objects = []  # of the rendering at hand


def expand(text, values):
    """$(NAME) as Kubernetes puts it in."""
    return re.sub(r"\$\((\w+)\)", lambda m: values.get(m.group(1)) or m.group(0), text)


def environment(o, container):
    values = policy.Policy(policy_objects).values(o, container)
    for e in container.get("env", []):
        path = ((e.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if path:
            values[e["name"]] = SAMPLES[path]
    return {k: expand(v, values) for k, v in values.items()}


def run_container(o, container, binaries, folder):
    """Runs the container's own words with --check-config, its volumes being folders here. Faults."""
    places = {}
    for v in policy.pod_of(o)["spec"].get("volumes", []):
        places[v["name"]] = os.path.join(folder, v["name"])
        if not os.path.isdir(places[v["name"]]):
            os.makedirs(places[v["name"]])
            volume(o, v, places[v["name"]], binaries)
    for t in o["spec"].get("volumeClaimTemplates") or []:
        places[t["metadata"]["name"]] = os.path.join(folder, t["metadata"]["name"])
        os.makedirs(places[t["metadata"]["name"]], exist_ok=True)
    mounts = sorted(((m["mountPath"], places[m["name"]]) for m in container.get("volumeMounts", [])),
                    key=lambda m: -len(m[0]))

    def here(text):
        for mount, place in mounts:
            text = re.sub(rf"(^|=){re.escape(mount)}(?=/|$)", lambda m, p=place: m.group(1) + p, text)
        return re.sub(r"(^|=)/usr/bin/(tributary\S*)", lambda m: m.group(1) + os.path.join(binaries, m.group(2)), text)

    values = environment(o, container)
    env = {"PATH": os.environ["PATH"], **{k: here(v) for k, v in values.items()}}
    words = [here(expand(w, values)) for w in [*container["command"], *container.get("args", [])]]
    for w in words:
        if "$(" in w:
            return [f"{w}: a variable that is not there"]
    if os.path.basename(words[0]) == "redis-server":
        return redis(words, folder)
    if os.path.basename(words[0]) == "sh":  # what it does is test_start.py's business
        done = subprocess.run(["sh", "-n", words[1]], capture_output=True, text=True, timeout=30)
        return done.stderr.strip().splitlines() if done.returncode else []
    if os.path.basename(words[0]) == "tributary":
        words = [*words, "--help"]  # the keeper: options are parsed before --help answers
    else:
        words.append("--check-config")
    if not os.access(words[0], os.X_OK):
        return [f"{words[0]}: not built"]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=30, cwd=folder)
    return [] if done.returncode == 0 else done.stderr.strip().splitlines() or [f"exit {done.returncode}"]


def redis(words, folder):
    """A real redis-server takes the configuration (on a unix socket) and answers."""
    server, client = shutil.which("redis-server"), shutil.which("redis-cli")
    if not server or not client:
        return []
    socket = os.path.join(folder, "r.sock")
    p = subprocess.Popen([server, words[1], "--port", "0", "--unixsocket", socket, "--dir", folder,
                          "--always-show-logo", "no"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(200):
            if p.poll() is not None:
                break
            pong = subprocess.run([client, "-s", socket, "-e", "ping"], capture_output=True, text=True, timeout=30)
            if pong.returncode == 0:
                return []
            time.sleep(0.05)
        p.terminate()
        return (p.communicate(timeout=30)[0] or "does not answer").strip().splitlines()[-4:]
    finally:
        p.terminate()
        p.wait(timeout=30)
        p.stdout.close()


def programs(tally, rendered, binaries):
    done = set()
    for name, objects in rendered.items():
        policy_objects[:] = objects
        for o in objects:
            if o["kind"] not in policy.WORKLOADS:
                continue
            for c in policy.containers(policy.pod_of(o)):
                text = json.dumps([c.get("command"), c.get("args"), environment(o, c), c.get("volumeMounts")],
                                  sort_keys=True)
                if text in done:
                    continue
                done.add(text)
                if not c.get("command", [""])[0].startswith("/usr/bin/"):
                    continue
                with tempfile.TemporaryDirectory(prefix="kc-") as folder:
                    tally.case(f"starts: {name}: {o['kind']}/{o['metadata']['name']} {c['name']}",
                               run_container(o, c, binaries, folder))


def planted(tally):
    """test_check.py, its cases counted."""
    report = os.path.join(ROOT, "build", "k8s", "pytest.xml")
    if os.path.exists(report):
        os.unlink(report)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
                           os.path.join(ROOT, "tests/k8s/test_check.py")], capture_output=True, text=True,
                          timeout=300, cwd=ROOT)
    print("  " + "\n  ".join(done.stdout.strip().splitlines()[-30 if done.returncode else -1:]), flush=True)
    try:
        with open(report, encoding="utf-8") as f:
            head = f.read(2000)
        numbers = {k: int(v) for k, v in re.findall(r'(tests|failures|errors|skipped)="(\d+)"', head)}
    except OSError:
        tally.case("planted mistakes", ["pytest gave no report", *done.stderr.splitlines()[-5:]])
        return
    bad = numbers.get("failures", 0) + numbers.get("errors", 0)
    tally.failed += bad
    tally.skipped += numbers.get("skipped", 0)
    tally.passed += numbers["tests"] - bad - numbers.get("skipped", 0)


def main():
    build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build/release"))
    began = time.monotonic()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="kc-") as folder:
        rendered = render_all(tally, folder)
    for name, objects in rendered.items():
        tally.case(f"rules: {name}", policy.check(objects, privileged=name == "component privileged-fallback"))
    validate(tally, rendered, os.path.join(ROOT, "build"))
    lint(tally)
    programs(tally, rendered, os.path.join(build, "bin"))
    planted(tally)
    print(f"k8s-check: {time.monotonic() - began:.1f} s")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
