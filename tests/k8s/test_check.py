# SPDX-License-Identifier: Apache-2.0
"""Mistakes planted into our own manifests: each must be found, with words that name it. One that is not found is a rule
that does not hold. (`make k8s-check` runs these.)"""
import copy
import os
import re
import subprocess
import sys

import pytest
import yaml

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import policy  # noqa: E402
import render  # noqa: E402
import schema  # noqa: E402

BIN = os.environ.get("TRIBUTARY_BIN", os.path.join(render.ROOT, "build/release/bin"))


@pytest.fixture(scope="module", name="pristine")
def pristine_(tmp_path_factory):
    """Renderings that are changed by nobody: production, and production on the nodes' own network, and with an HPA."""
    out = {"production": render.by_hand(os.path.join(render.K8S, "overlays/production"))}
    for name in ("host-network", "hpa-external-metrics", "tls-client-ca", "huge-pages"):
        at = tmp_path_factory.mktemp(name)
        up = os.path.relpath(render.K8S, at)
        (at / "kustomization.yaml").write_text(
            f"resources: [{up}/overlays/production]\ncomponents: [{up}/components/{name}]\n")
        out[name] = render.by_hand(str(at))
    return out


@pytest.fixture(name="objects")
def objects_(pristine):
    return copy.deepcopy(pristine["production"])


def get(objects, kind, name, namespace=None):
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name
             and namespace in (None, o["metadata"].get("namespace"))]
    assert found, f"{kind}/{name}"
    return found[0]


def pod(objects, kind, name):
    return get(objects, kind, name)["spec"]["template"]["spec"]


def node(objects):
    return pod(objects, "DaemonSet", "tributary-node")


def container(objects, name):
    for o in objects:
        if o["kind"] in policy.WORKLOADS:
            for c in policy.containers(policy.pod_of(o)):
                if c["name"] == name:
                    return c
    raise AssertionError(name)


def test_ours_are_clean(pristine):
    for name, objects in pristine.items():
        assert policy.check(objects) == [], name


# ---- (what the mistake is, how it is made, words of the fault it must give) ----

def setter(kind, name, path, value):
    """Sets (or, None, removes) a field of an object; numbers index lists, "name=x" finds in them."""
    def plant(objects):
        at = get(objects, kind, name)
        *walk, last = path.split(".") if isinstance(path, str) else path
        for word in walk:
            if isinstance(at, list):
                at = next(i for i in at if i.get("name") == word) if not str(word).isdigit() else at[int(word)]
            else:
                at = at[word]
        last = int(last) if isinstance(at, list) else last
        if value is None:
            del at[last]
        else:
            at[last] = value
    return plant


def of(name, change):
    return lambda objects: change(container(objects, name))


def capability(name, cap):
    return of(name, lambda c: c["securityContext"]["capabilities"].setdefault("add", []).append(cap))


def drop_policy_peer(objects):
    ingress = get(objects, "NetworkPolicy", "tributary-redis")["spec"]["ingress"][0]
    ingress["from"] = [p for p in ingress["from"] if "namespaceSelector" not in p]


def drop_deny(objects):
    objects[:] = [o for o in objects if o["metadata"]["name"] != "default-deny"
                  or o["metadata"]["namespace"] != "tributary-node"]


def drop(kind, name):
    def plant(objects):
        objects[:] = [o for o in objects if (o["kind"], o["metadata"]["name"]) != (kind, name)]
    return plant


def swap_arg(name, old, new):
    return of(name, lambda c: c.__setitem__("args", [a.replace(old, new) for a in c["args"]]))


def env(name, variable, value):
    def change(c):
        c["env"] = [e for e in c["env"] if e["name"] != variable] + ([{"name": variable, "value": value}]
                                                                       if value is not None else [])
    return of(name, change)


def duplicate(objects):
    objects.append(copy.deepcopy(get(objects, "Service", "tributary-api")))


POD = ["spec", "template", "spec"]
MISTAKES = {
    "a Deployment's selector that is not its pods'": (
        setter("Deployment", "tributary-orchestrator", ["spec", "selector", "matchLabels"],
               {"app.kubernetes.io/component": "orchestra"}), "its selector does not match its own pods"),
    "a Service that selects nobody": (
        setter("Service", "tributary-data", ["spec", "selector", "app.kubernetes.io/component"], "nodes"),
        "Service/tributary-data: selects no workload"),
    "a Service's targetPort without a port": (
        setter("Service", "tributary-api", ["spec", "ports", "0", "targetPort"], "http"),
        "targetPort 'http' is no port"),
    "a disruption budget for nobody": (
        setter("PodDisruptionBudget", "tributary-redis", ["spec", "selector", "matchLabels"], {"app": "redis"}),
        "PodDisruptionBudget/tributary-redis: selects no workload"),
    "a workload without disruption budget": (drop("PodDisruptionBudget", "tributary-node"), "no PodDisruptionBudget"),
    "a policy for nobody": (
        setter("NetworkPolicy", "tributary-redis", ["spec", "podSelector", "matchLabels"], {"app": "redis"}),
        "NetworkPolicy/tributary-redis: selects no workload"),
    "a policy that lets in nobody who exists": (
        setter("NetworkPolicy", "tributary-redis", ["spec", "ingress", "0", "from", "0", "podSelector"],
               {"matchLabels": {"app": "api"}}), "a peer that means no workload"),
    "nodes that may not reach Redis": (drop_policy_peer, "policies do not let it reach Redis (ingress of StatefulSet"),
    "orchestrators that may not go out to Redis": (
        setter("NetworkPolicy", "tributary-orchestrator", ["spec", "egress", "0", "ports", "0", "port"], 6380),
        "policies do not let it reach Redis (egress of Deployment"),
    "a namespace without default deny": (drop_deny, "Namespace/tributary-node: no policy that denies by default"),
    "egress rules that do not hold": (
        setter("NetworkPolicy", "tributary-node", ["spec", "policyTypes"], ["Ingress"]),
        "Egress is not among policyTypes"),
    "a policy for a port nobody has": (
        setter("NetworkPolicy", "tributary-node", ["spec", "ingress", "0", "ports", "0", "port"], 8088),
        "ingress to port 8088, which none has"),
    "a ConfigMap key that is not there": (
        of("agent", lambda c: next(e for e in c["env"] if e["name"] == "TRIBUTARY_REDIS")["valueFrom"][
            "configMapKeyRef"].__setitem__("key", "redis-address")), "key redis-address of ConfigMap"),
    "a ConfigMap that is not there": (
        setter("StatefulSet", "tributary-redis", [*POD, "volumes", "0", "configMap", "name"], "redis"),
        "ConfigMap redis is not there"),
    "a Secret nobody makes": (
        of("gateway", lambda c: c["env"].append({"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}})),
        "Secret s ['k']"),
    "a ServiceAccount that is not there": (
        setter("Deployment", "tributary-orchestrator", [*POD, "serviceAccountName"], "default"),
        "ServiceAccount 'default' is not there"),
    "an API token nobody needs": (
        setter("DaemonSet", "tributary-node", [*POD, "automountServiceAccountToken"], True),
        "gets an API token that nothing is bound to"),
    "rights to everything": (
        setter("ClusterRole", "tributary-orchestrator", ["rules", "0", "verbs"], ["*"]), "verbs: *"),
    "a binding to a role that is not there": (
        setter("ClusterRoleBinding", "tributary-orchestrator", ["roleRef", "name"], "edit"), "binds ClusterRole/edit"),
    "a namespace that is not made": (
        setter("Service", "tributary-api", ["metadata", "namespace"], "default"), "namespace 'default' is not made here"),
    "an object that is there twice": (duplicate, "Service/tributary-api: there twice"),
    "no part-of label": (setter("Service", "tributary-api", ["metadata", "labels"], {}), "label app.kubernetes.io/part-of"),
    "no readiness probe": (of("gateway", lambda c: c.pop("readinessProbe")), "gateway: no readinessProbe"),
    "no startup probe": (of("keeper", lambda c: c.pop("startupProbe")), "keeper: no startupProbe"),
    "a liveness probe that depends on Redis": (
        of("orchestrator", lambda c: c["livenessProbe"]["httpGet"].__setitem__("path", "/readyz")),
        "orchestrator: livenessProbe asks /readyz"),
    "a probe of a port that is not there": (
        of("agent", lambda c: c["readinessProbe"]["httpGet"].__setitem__("port", "admin-agent")),
        "readinessProbe: port 'admin-agent' is none of its ports"),
    "a plain probe of a TLS port": (
        of("gateway", lambda c: c["livenessProbe"]["httpGet"].pop("scheme")), "scheme HTTP does not fit its TLS options"),
    "an admin port on the loopback, where no kubelet gets": (
        swap_arg("gateway", "--admin=0.0.0.0:", "--admin=127.0.0.1:"), "is not on all interfaces"),
    "a listening port that is not declared": (
        swap_arg("orchestrator", ":8080", ":8000"), "--listen 0.0.0.0:8000: port is not declared"),
    "no memory limit": (of("orchestrator", lambda c: c["resources"]["limits"].pop("memory")), "no memory limit"),
    "no requests": (of("redis", lambda c: c["resources"].pop("requests")), "redis: no requests of cpu and memory"),
    "a request above its limit": (
        of("redis", lambda c: c["resources"]["requests"].__setitem__("memory", "64Gi")), "requests more memory than"),
    "a memory limit below the arena": (
        of("gateway", lambda c: c["resources"].update(limits={"memory": "8Gi"}, requests={"cpu": 1, "memory": "1Gi"})),
        "gateway: memory limit 8192 MiB is below arena + 256 MiB"),
    "CAP_ before a capability's name": (capability("agent", "CAP_BPF"), "agent: CAP_BPF: with CAP_ it is accepted"),
    "a capability that does not exist": (capability("agent", "PERF_MON"), "no capability PERF_MON"),
    "a capability too many": (capability("agent", "SYS_ADMIN"), "agent: may not have SYS_ADMIN"),
    "a capability for the gateway": (capability("gateway", "BPF"), "gateway: may not have BPF"),
    "capabilities that are not dropped": (
        of("gateway", lambda c: c["securityContext"].pop("capabilities")), "gateway: does not drop ALL"),
    "a privileged agent": (
        of("agent", lambda c: c["securityContext"].update(privileged=True)), "agent: privileged"),
    "privilege escalation": (
        of("redis", lambda c: c["securityContext"].pop("allowPrivilegeEscalation")),
        "redis: allowPrivilegeEscalation is not false"),
    "a gateway as root": (
        of("gateway", lambda c: c["securityContext"].update(runAsUser=0, runAsNonRoot=False)),
        "gateway: may run as root"),
    "an agent that is not root and so gets no capability": (
        of("agent", lambda c: c["securityContext"].update(runAsUser=65532)), "agent: must run as root"),
    "a root file system that can be written": (
        of("orchestrator", lambda c: c["securityContext"].pop("readOnlyRootFilesystem")),
        "orchestrator: its root file system can be written"),
    "no seccomp": (
        setter("DaemonSet", "tributary-node", [*POD, "securityContext", "seccompProfile", "type"], "Unconfined"),
        "seccomp is not RuntimeDefault"),
    "a host path nobody explained": (
        setter("DaemonSet", "tributary-node", [*POD, "volumes", "state", "hostPath", "path"], "/"),
        "hostPath / is not one we explain"),
    "a host path in the restricted namespace": (
        setter("StatefulSet", "tributary-redis", [*POD, "volumes", "0"],
               {"name": "config", "hostPath": {"path": "/var/lib/tributary"}}), "hostPath in a restricted namespace"),
    "the host's process ids": (setter("DaemonSet", "tributary-node", [*POD, "hostPID"], True), "hostPID"),
    "memory volume without limit": (
        setter("DaemonSet", "tributary-node", [*POD, "volumes", "run", "emptyDir"], {"medium": "Memory"}),
        "volume run: in memory and without sizeLimit"),
    "memory volume above the container's limit": (
        setter("DaemonSet", "tributary-node", [*POD, "volumes", "run", "emptyDir", "sizeLimit"], "64Gi"),
        "sizeLimit above the memory limit of keeper"),
    "a mount of no volume": (
        of("redis", lambda c: c["volumeMounts"].append({"name": "cache", "mountPath": "/cache"})),
        "redis: volume 'cache' is not there"),
    "a volume mounted nowhere": (
        setter("Deployment", "tributary-orchestrator", [*POD, "volumes"],
               [{"name": "x", "emptyDir": {}}]), "volume x is mounted nowhere"),
    "an image without a tag": (of("redis", lambda c: c.update(image="redis")), "has no tag, or latest"),
    "an image by latest": (of("agent", lambda c: c.update(image="tributary:latest")), "has no tag, or latest"),
    "an image of another version": (of("agent", lambda c: c.update(image="tributary:0.0.1")), "is not of version"),
    "less grace than the drain takes": (
        setter("DaemonSet", "tributary-node", [*POD, "terminationGracePeriodSeconds"], 60),
        "terminationGracePeriodSeconds is not 10 s above preStop and drain (90 s)"),
    "no preStop": (of("gateway", lambda c: c.pop("lifecycle")), "gateway: no preStop"),
    "service links": (
        setter("DaemonSet", "tributary-node", [*POD, "enableServiceLinks"], True), "enableServiceLinks must be false"),
    "no shared process namespace": (
        setter("DaemonSet", "tributary-node", [*POD, "shareProcessNamespace"], None), "cannot tell a dead gateway"),
    "a Redis address no Service has": (
        env("orchestrator", "TRIBUTARY_REDIS", "tributary-redis.tributary.svc:6380"),
        "no Service has tributary-redis.tributary.svc:6380"),
    "agent and gateway at different sockets": (
        swap_arg("gateway", "/run/tributary/agent.sock", "/run/tributary/agents.sock"),
        "agent --socket is not gateway --agent"),
    "an agent that does not share": (
        of("agent", lambda c: c["args"].remove("--share-with-group")), "agent: no --share-with-group"),
    "a headless Service that is none": (
        setter("StatefulSet", "tributary-redis", ["spec", "serviceName"], "tributary-redis"),
        "serviceName is no headless Service"),
    "local traffic policy of an inner Service": (
        setter("Service", "tributary-data", ["spec", "type"], "ClusterIP"), "externalTrafficPolicy of a Service"),
    "two ports of one number": (
        of("gateway", lambda c: c["ports"].append({"name": "again", "containerPort": 9092})), "two ports of one number"),
    "an alert on a metric nobody counts": (
        setter("PrometheusRule", "tributary", ["spec", "groups", "0", "rules", "0", "expr"], "tributary_leaders != 1"),
        "tributary_leaders: nothing in the sources"),
    "a monitor of a port that is not there": (
        setter("ServiceMonitor", "tributary-agent", ["spec", "endpoints", "0", "port"], "metrics"),
        "port 'metrics' is none of its Service"),
    "a dashboard that is no JSON": (
        setter("ConfigMap", "tributary-dashboard", ["data", "tributary.json"], "{"), "no JSON"),
    "an agent that tells a plain URL of a TLS gateway": (
        env("agent", "TRIBUTARY_DATA_URL", "http://$(POD_IP):8081"), "is not what gateways speak"),
    "no priority class": (
        setter("Deployment", "tributary-orchestrator", [*POD, "priorityClassName"], "high"),
        "PriorityClass 'high' is not there"),
}


@pytest.mark.parametrize("what", MISTAKES, ids=lambda w: w.replace(" ", "-"))
def test_planted(objects, what):
    plant, words = MISTAKES[what]
    plant(objects)
    faults = policy.check(objects)
    assert any(words in f for f in faults), faults


def test_host_network_without_the_nodes_addresses(pristine):
    objects = copy.deepcopy(pristine["host-network"])
    ingress = get(objects, "NetworkPolicy", "tributary-redis")["spec"]["ingress"][0]
    ingress["from"] = [p for p in ingress["from"] if "ipBlock" not in p]
    assert any("policies do not let it reach Redis (ingress" in f for f in policy.check(objects))
    node(objects)["dnsPolicy"] = "ClusterFirst"
    assert any("without dnsPolicy ClusterFirstWithHostNet" in f for f in policy.check(objects))


def test_a_bad_block_of_addresses(pristine):
    objects = copy.deepcopy(pristine["host-network"])
    for p in get(objects, "NetworkPolicy", "tributary-redis")["spec"]["ingress"][0]["from"]:
        if "ipBlock" in p:
            p["ipBlock"]["cidr"] = "10.0.0.0/33"
    assert any("ipBlock:" in f for f in policy.check(objects))


def test_an_autoscaler_of_nothing_or_of_fixed_replicas(pristine):
    objects = copy.deepcopy(pristine["hpa-external-metrics"])
    get(objects, "Deployment", "tributary-orchestrator")["spec"]["replicas"] = 3
    assert any("its target sets replicas" in f for f in policy.check(objects))
    get(objects, "HorizontalPodAutoscaler", "tributary-orchestrator")["spec"]["scaleTargetRef"]["name"] = "orc"
    assert any("scales Deployment/orc" in f for f in policy.check(objects))


def test_the_autoscalers_metric_has_a_rule_and_a_source(pristine):
    """The adapter's rule in k8s/README.md names the metric of the component, and a series that there is."""
    with open(os.path.join(render.K8S, "README.md"), encoding="utf-8") as f:
        rule = yaml.safe_load(re.search(r"```yaml\n(externalRules:.*?)```", f.read(), re.S).group(1))["externalRules"][0]
    scaler = get(pristine["hpa-external-metrics"], "HorizontalPodAutoscaler", "tributary-orchestrator")
    assert rule["name"]["as"] == scaler["spec"]["metrics"][0]["external"]["metric"]["name"]
    assert re.search(r'__name__="(\w+)"', rule["seriesQuery"]).group(1) in policy.metric_names()


def test_huge_pages(pristine):
    objects = copy.deepcopy(pristine["huge-pages"])
    gateway = container(objects, "gateway")["resources"]
    gateway["limits"]["hugepages-2Mi"] = "2Gi"
    faults = policy.check(objects)
    assert any("hugepages-2Mi: request and limit differ" in f for f in faults)
    assert any("hugepages-2Mi of agent and gateway differ" in f for f in faults)
    gateway["limits"].pop("hugepages-2Mi")
    gateway["requests"].pop("hugepages-2Mi")
    assert any("hugepages-2Mi of agent and gateway differ" in f for f in policy.check(objects))


def test_a_kubelet_has_no_client_certificate(pristine):
    objects = copy.deepcopy(pristine["tls-client-ca"])
    container(objects, "gateway")["livenessProbe"] = {"httpGet": {"path": "/healthz", "port": "admin",
                                                                  "scheme": "HTTPS"}}
    assert any("a kubelet has no client certificate" in f for f in policy.check(objects))


# ---- types ----

TYPES = {
    "a field misspelt": (
        of("gateway", lambda c: c.update(imagePullPolice="Always")), "unknown field 'imagePullPolice'"),
    "a field at the wrong place": (
        setter("DaemonSet", "tributary-node", [*POD, "readOnlyRootFilesystem"], True),
        "unknown field 'readOnlyRootFilesystem'"),
    "text for a number": (
        of("gateway", lambda c: c["ports"][0].update(containerPort="8081")), "containerPort: want integer, got str"),
    "a number for text": (
        of("agent", lambda c: c["env"].append({"name": "A", "value": 1})), "value: want string, got int"),
    "truth for text": (
        setter("Namespace", "tributary", ["metadata", "labels", "x"], True), "labels.x: want string, got bool"),
    "a list for a map": (setter("Service", "tributary-api", ["spec", "selector"], []), "selector: want object, got list"),
    "something required that is missing": (
        setter("DaemonSet", "tributary-node", ["spec", "selector"], None), "selector is missing"),
    "no quantity": (
        of("redis", lambda c: c["resources"]["limits"].update(memory="1 GB")), "is no quantity"),
    "a kind that does not exist": (
        setter("PodDisruptionBudget", "tributary-node", ["apiVersion"], "policy/v1beta1"), "no kind PodDisruptionBudget"),
    "a field of ServiceMonitor misspelt": (
        setter("ServiceMonitor", "tributary-agent", ["spec", "endpoints", "0", "intervall"], "15s"),
        "unknown field 'intervall'"),
}


@pytest.fixture(scope="module", name="types")
def types_():
    wheel, why = schema.fetch(os.path.join(render.ROOT, "build"))
    if not wheel:
        pytest.skip(why)
    return [schema.Schema(wheel, r) for r in schema.RELEASES]


@pytest.mark.parametrize("what", TYPES, ids=lambda w: w.replace(" ", "-"))
def test_types(objects, types, what):
    plant, words = TYPES[what]
    plant(objects)
    for release in types:
        faults = [f for o in objects for f in release.check(o)]
        assert any(words in f for f in faults), faults


# ---- the programs themselves ----

def run(program, *words, **variables):
    done = subprocess.run([os.path.join(BIN, f"tributary-{program}"), "--check-config", *words], capture_output=True,
                          text=True, timeout=30, env={"PATH": os.environ["PATH"], **variables})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("program, words, variables, fault", [
    ("gateway", ["--listn=0.0.0.0:1"], {}, "unknown option '--listn=0.0.0.0:1'"),
    ("gateway", ["--workers=many"], {}, "'many' is not a number"),
    ("gateway", [], {"TRIBUTARY_DATA_PORT": "tcp://10.0.0.1:8081"}, "TRIBUTARY_DATA_PORT: no option reads"),
    ("gateway", ["--models=/nowhere/at/all"], {}, "--models: /nowhere/at/: No such file"),
    ("gateway", ["--tls-cert=/nowhere.pem", "--tls-key=/nowhere.key"], {}, "--tls-cert:"),
    ("orchestrator", ["--admin=9090"], {}, "--admin: '9090' is no address"),
    ("orchestrator", ["--redis=redis"], {}, "--redis: 'redis' is no address of a Redis"),
    ("orchestrator", ["--operators=/nowhere.json"], {}, "--operators:"),
    ("orchestrator", ["--data-url=tributary:8081"], {}, "--data-url: 'tributary:8081' is no URL"),
    ("agent", ["--transport=bpf"], {}, "--transport: 'bpf' is not auto, skmsg or relay"),
    ("agent", ["--node=a b"], {}, "--node: 'a b' is no name"),
    ("agent", ["--arena-bytes=1"], {}, "'1' is not a number from"),
    ("agent", [], {"TRIBUTARY_ARENA_BYTES": "8Gi"}, "TRIBUTARY_ARENA_BYTES: '8Gi' is not a number"),
    ("agent", ["--aggregator=/nowhere"], {}, "--aggregator: /nowhere: No such file"),
])
def test_programs_refuse(program, words, variables, fault):
    code, _, said = run(program, *words, **variables)
    assert code == 2 and fault in said, (code, said)


def test_programs_tell_what_they_would_run_with_and_leave_nothing(tmp_path):
    words = [f"--socket={tmp_path}/agent.sock", f"--models={tmp_path}/models", "--admin=127.0.0.1:0"]
    code, out, said = run("agent", *words, TRIBUTARY_NODE="n-7")
    assert code == 0, said
    assert "--node n-7\n" in out and f"--models {tmp_path}/models\n" in out and "--arena-bytes 1073741824\n" in out
    assert list(tmp_path.iterdir()) == []


# ---- the renderer ----

def test_hash_is_kustomize_s():
    o = {"data": {"redis": "tributary-redis.tributary.svc:6379",
                  "data-url": "http://tributary-data.tributary-node.svc:8081"}, "metadata": {"name": "x"}}
    assert render.suffix(o) == "227gckccb4"  # as kubectl 1.32 (kustomize 5.5.0) makes it


def test_a_patch_of_nothing_is_an_error(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("patches: [{path: p.yaml}]\n")
    (tmp_path / "p.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\n")
    with pytest.raises(render.RenderError, match="0 objects match"):
        render.by_hand(str(tmp_path))


def test_what_is_not_understood_is_an_error(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\n")
    with pytest.raises(render.RenderError, match="namePrefix"):
        render.by_hand(str(tmp_path))
