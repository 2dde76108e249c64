# SPDX-License-Identifier: Apache-2.0
"""What the objects of one rendering must be to each other and to our rules. `check(objects, privileged=False)` returns
the faults as texts "kind/name: what". Every rule has a planted mistake in test_check.py."""
import ipaddress
import json
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
HEADROOM = 256 * MIB  # beside the arena; k8s/README.md, sizing
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
CLUSTER_WIDE = ("Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "RuntimeClass",
                "CustomResourceDefinition")
KNOWN_CAPABILITIES = set("""AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN
DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT
SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM""".split())
MAY = {"agent": {"BPF", "PERFMON", "NET_ADMIN"}}  # container: capabilities; nobody else has any
ROOT_USERS = {"agent", "keeper"}
HOST_PATHS = {"/var/lib/tributary"}
SECRETS = {"tributary-tls": {"tls.crt", "tls.key", "ca.crt"}, "tributary-client-ca": {"ca.crt"},
           "tributary-operators": {"operators.json"}}  # made by whoever installs: k8s/README.md
HTTP_PROBED = {"tributary-orchestrator", "tributary-agent", "tributary-gateway"}


def quantity(text):
    """Bytes, or cores, of a quantity."""
    m = re.match(r"^(\d+(?:\.\d+)?)([a-zA-Z]*)$", str(text))
    unit = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30,
            "Ti": 2**40}
    return float(m.group(1)) * unit[m.group(2)] if m and m.group(2) in unit else -1


def version():
    with open(os.path.join(ROOT, "common/version.h"), encoding="utf-8") as f:
        return re.search(r'TRIB_VERSION "([^"]+)"', f.read()).group(1)


def metric_names():
    """Every metric name in the sources."""
    names = set()
    for folder in ("gateway", "orchestrator", "orchestrator/agent", "common"):
        for file in os.listdir(os.path.join(ROOT, folder)):
            if file.endswith((".c", ".h")):
                with open(os.path.join(ROOT, folder, file), encoding="utf-8") as f:
                    text = f.read()
                names |= set(re.findall(r'"(tributary_[a-z0-9_]+)"', text))
                names |= {"tributary_" + n for n in re.findall(r'X\(\w+,\s*"([a-z0-9_]+)"', text)}
    return names


def pod_of(o):
    if o["kind"] == "CronJob":
        return o["spec"]["jobTemplate"]["spec"]["template"]
    return o["spec"].get("template", {})


def containers(pod):
    spec = pod.get("spec", {})
    return spec.get("initContainers", []) + spec.get("containers", [])


def stays(container, pod):
    return container in pod["spec"].get("containers", []) or container.get("restartPolicy") == "Always"


def program(container):
    return os.path.basename((container.get("command") or [""])[0])


def words(container):
    return list(container.get("command", [])[1:]) + list(container.get("args", []))


def option(container, name):
    for i, word in enumerate(words(container)):
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
        if word == f"--{name}" and i + 1 < len(words(container)):
            return words(container)[i + 1]
    return None


def selects(selector, labels):
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for e in selector.get("matchExpressions") or []:
        there, value = e["key"] in labels, labels.get(e["key"])
        if {"In": value not in e.get("values", []), "NotIn": value in e.get("values", []), "Exists": not there,
                "DoesNotExist": there}[e["operator"]]:
            return False
    return True


class Policy:
    def __init__(self, objects, privileged=False):
        self.objects, self.privileged, self.faults = objects, privileged, []
        self.workloads = [o for o in objects if o["kind"] in WORKLOADS]
        self.where = ""

    def fault(self, text):
        self.faults.append(f"{self.where}: {text}")

    def want(self, condition, text):
        if not condition:
            self.fault(text)

    def find(self, kind, namespace, name):
        return next((o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name
                     and o["metadata"].get("namespace") == namespace), None)

    def labels_of_namespace(self, name):
        found = self.find("Namespace", None, name)
        return {**((found or {}).get("metadata", {}).get("labels") or {}), "kubernetes.io/metadata.name": name}

    def selected(self, selector, namespace):
        return [w for w in self.workloads if w["metadata"].get("namespace") == namespace
                and selects(selector or {}, pod_of(w)["metadata"].get("labels", {}))]

    # ---- every object ----

    def everything(self):
        seen = set()
        for o in self.objects:
            meta = o["metadata"]
            self.where = f"{o['kind']}/{meta['name']}"
            key = (o["apiVersion"], o["kind"], meta.get("namespace"), meta["name"])
            self.want(key not in seen, "there twice")
            seen.add(key)
            self.want(re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", meta["name"]), "not a good name")
            if o["kind"] in CLUSTER_WIDE:
                self.want("namespace" not in meta, "has a namespace and is cluster-wide")
            else:
                self.want(self.find("Namespace", None, meta.get("namespace")),
                          f"its namespace {meta.get('namespace')!r} is not made here")
            if o["kind"] != "ConfigMap":
                self.want((meta.get("labels") or {}).get("app.kubernetes.io/part-of") == "tributary",
                          "label app.kubernetes.io/part-of=tributary is missing")
            self.one(o)
        for name in {w["metadata"].get("namespace") for w in self.workloads}:
            self.where = f"Namespace/{name}"
            denies = [o for o in self.objects if o["kind"] == "NetworkPolicy"
                      and o["metadata"].get("namespace") == name and o["spec"].get("podSelector") == {}
                      and set(o["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
                      and not o["spec"].get("ingress")]
            self.want(denies, "no policy that denies by default")

    def one(self, o):
        kind = o["kind"]
        if kind in WORKLOADS:
            self.workload(o)
        elif kind == "Service":
            self.service(o)
        elif kind == "PodDisruptionBudget":
            self.want(self.selected(o["spec"].get("selector"), o["metadata"]["namespace"]), "selects no workload")
        elif kind == "NetworkPolicy":
            self.network(o)
        elif kind == "HorizontalPodAutoscaler":
            ref = o["spec"]["scaleTargetRef"]
            target = self.find(ref["kind"], o["metadata"]["namespace"], ref["name"])
            self.want(target, f"scales {ref['kind']}/{ref['name']}, which is not there")
            self.want(not target or "replicas" not in target["spec"], "its target sets replicas as well")
            self.want(o["spec"].get("minReplicas", 1) <= o["spec"]["maxReplicas"], "minReplicas above maxReplicas")
        elif kind in ("ClusterRole", "Role"):
            for rule in o.get("rules") or []:
                for field in ("apiGroups", "resources", "verbs"):
                    self.want("*" not in rule.get(field, []), f"{field}: *")
        elif kind in ("ClusterRoleBinding", "RoleBinding"):
            ref = o["roleRef"]
            self.want(self.find(ref["kind"], None if ref["kind"] == "ClusterRole" else o["metadata"]["namespace"],
                                ref["name"]), f"binds {ref['kind']}/{ref['name']}, which is not there")
            for s in o.get("subjects") or []:
                self.want(self.find(s["kind"], s.get("namespace"), s["name"]),
                          f"binds {s['kind']}/{s['name']}, which is not there")
        elif kind == "ServiceMonitor":
            self.monitor(o)
        elif kind == "PrometheusRule":
            self.expressions([r["expr"] for g in o["spec"]["groups"] for r in g["rules"]])
        elif kind == "ConfigMap":
            for name, text in (o.get("data") or {}).items():
                if name.endswith(".json"):
                    self.dashboard(text, "grafana_dashboard" in (o["metadata"].get("labels") or {}))

    # ---- metrics ----

    def expressions(self, expressions):
        known = metric_names()
        for text in expressions:
            for name in set(re.findall(r"\btributary_[a-z0-9_]+", text)) - known:
                self.fault(f"{name}: nothing in the sources has such a metric")

    def dashboard(self, text, panels_wanted):
        try:
            board = json.loads(text)
        except ValueError as e:
            self.fault(f"no JSON: {e}")
            return
        if not panels_wanted:
            return
        panels = board.get("panels", [])
        self.want(panels and len({p["id"] for p in panels}) == len(panels), "panels without, or with one id twice")
        self.expressions([t["expr"] for p in panels for t in p.get("targets", [])])

    def monitor(self, o):
        services = [s for s in self.objects if s["kind"] == "Service"
                    and s["metadata"]["namespace"] == o["metadata"]["namespace"]
                    and selects(o["spec"]["selector"], s["metadata"].get("labels") or {})]
        self.want(services, "selects no Service")
        for e in o["spec"]["endpoints"]:
            self.want(all(any(p.get("name") == e.get("port") for p in s["spec"]["ports"]) for s in services),
                      f"port {e.get('port')!r} is none of its Service")

    # ---- services and policies ----

    def service(self, o):
        found = self.selected({"matchLabels": o["spec"].get("selector") or {"nobody": "nobody"}},
                              o["metadata"]["namespace"])
        self.want(found, "selects no workload")
        for w in found:
            ports = [p for c in containers(pod_of(w)) for p in c.get("ports", [])]
            for p in o["spec"].get("ports", []):
                target = p.get("targetPort", p["port"])
                self.want(any(target in (q.get("name"), q["containerPort"]) for q in ports),
                          f"targetPort {target!r} is no port of {w['kind']}/{w['metadata']['name']}")
        if o["spec"].get("externalTrafficPolicy"):
            self.want(o["spec"].get("type") in ("NodePort", "LoadBalancer"),
                      "externalTrafficPolicy of a Service that is not reached from outside")

    def peers(self, peer, namespace):
        """Workloads a peer of a policy means."""
        spaces = [namespace]
        if "namespaceSelector" in peer:
            spaces = [n["metadata"]["name"] for n in self.objects if n["kind"] == "Namespace"
                      and selects(peer["namespaceSelector"], self.labels_of_namespace(n["metadata"]["name"]))]
        return [w for s in spaces for w in self.selected(peer.get("podSelector"), s)]

    def network(self, o):
        namespace, spec = o["metadata"]["namespace"], o["spec"]
        own = self.selected(spec.get("podSelector"), namespace)
        self.want(own, "selects no workload")
        foreign = {"kube-system", "monitoring"}
        for side in ("ingress", "egress"):
            self.want(side not in spec or side.capitalize() in spec.get("policyTypes", []),
                      f"{side} rules, but {side.capitalize()} is not among policyTypes")
            for rule in spec.get(side) or []:
                for peer in rule.get("from" if side == "ingress" else "to") or []:
                    name = ((peer.get("namespaceSelector") or {}).get("matchLabels") or {}).get(
                        "kubernetes.io/metadata.name")
                    if "ipBlock" in peer:
                        try:
                            ipaddress.ip_network(peer["ipBlock"]["cidr"])
                        except ValueError as e:
                            self.fault(f"ipBlock: {e}")
                    elif name not in foreign:
                        self.want(self.peers(peer, namespace), f"{side}: a peer that means no workload: {peer}")
                if side == "ingress" and spec.get("podSelector"):
                    self.ingress_ports(rule, own)

    def ingress_ports(self, rule, own):
        ports = {p["containerPort"] for w in own for c in containers(pod_of(w)) for p in c.get("ports", [])}
        for p in rule.get("ports") or []:
            self.want(p.get("port") in ports or p.get("port") == 26379, f"ingress to port {p.get('port')}, which none has")

    def allowed(self, client, server, port):
        """Do the policies let workload `client` reach `port` of workload `server`? (why not, or None)"""
        for side, one, other in (("egress", client, server), ("ingress", server, client)):
            if pod_of(one)["spec"].get("hostNetwork"):
                continue  # policies do not hold for such pods
            good = False
            for o in self.objects:
                if o["kind"] != "NetworkPolicy" or one not in self.selected(o["spec"].get("podSelector"),
                                                                             o["metadata"]["namespace"]):
                    continue
                for rule in o["spec"].get(side) or []:
                    if rule.get("ports") and port not in [p.get("port") for p in rule["ports"]]:
                        continue
                    peers = rule.get("from" if side == "ingress" else "to")
                    host = pod_of(other)["spec"].get("hostNetwork")
                    good |= not peers or any("ipBlock" in p if host else
                                             "ipBlock" not in p and other in self.peers(p, o["metadata"]["namespace"])
                                             for p in peers)
            if not good:
                return f"{side} of {one['kind']}/{one['metadata']['name']}"
        return None

    # ---- workloads ----

    def workload(self, o):
        pod = pod_of(o)
        labels = pod["metadata"].get("labels") or {}
        if o["kind"] != "Job":
            self.want(selects(o["spec"]["selector"], labels), "its selector does not match its own pods")
            self.want(any(p["kind"] == "PodDisruptionBudget" and p["metadata"]["namespace"] == o["metadata"]["namespace"]
                          and selects(p["spec"].get("selector") or {}, labels) for p in self.objects),
                      "no PodDisruptionBudget")
        if o["kind"] == "StatefulSet":
            service = self.find("Service", o["metadata"]["namespace"], o["spec"].get("serviceName"))
            self.want(service and service["spec"].get("clusterIP") == "None", "serviceName is no headless Service")
        self.pod(o, pod)
        self.volumes(o, pod)
        for c in containers(pod):
            self.container(o, pod, c)
        self.security(o, pod)
        self.references(o, pod)
        if any(program(c) == "tributary-gateway" for c in containers(pod)):
            self.node(pod)

    def pod(self, o, pod):
        spec = pod["spec"]
        namespace = o["metadata"]["namespace"]
        account = self.find("ServiceAccount", namespace, spec.get("serviceAccountName"))
        self.want(account, f"ServiceAccount {spec.get('serviceAccountName')!r} is not there")
        self.want(spec.get("enableServiceLinks") is False,
                  "enableServiceLinks must be false: Services would become TRIBUTARY_* variables")
        name = spec.get("priorityClassName")
        self.want(o["kind"] == "Job" or self.find("PriorityClass", None, name), f"PriorityClass {name!r} is not there")
        if spec.get("runtimeClassName"):
            self.want(self.find("RuntimeClass", None, spec["runtimeClassName"]), "its RuntimeClass is not there")
        bound = any(s["name"] == spec.get("serviceAccountName") and s.get("namespace") == namespace
                    for b in self.objects if b["kind"].endswith("RoleBinding") for s in b.get("subjects") or [])
        token = spec.get("automountServiceAccountToken", True)
        self.want(bound or token is False, "gets an API token that nothing is bound to")
        names = [c["name"] for c in containers(pod)]
        self.want(len(set(names)) == len(names), "two containers of one name")
        ports = [p["name"] for c in containers(pod) for p in c.get("ports", []) if p.get("name")]
        self.want(len(set(ports)) == len(ports), "two ports of one name")
        numbers = [p["containerPort"] for c in containers(pod) for p in c.get("ports", [])]
        self.want(len(set(numbers)) == len(numbers), "two ports of one number")
        if spec.get("hostNetwork"):
            self.want(spec.get("dnsPolicy") == "ClusterFirstWithHostNet",
                      "hostNetwork without dnsPolicy ClusterFirstWithHostNet: cluster names are not found")
        self.grace(pod)

    @staticmethod
    def before_stop(c):
        """Seconds that the preStop hook takes: (least, most)."""
        hook = (c.get("lifecycle") or {}).get("preStop") or {}
        words = (hook.get("exec") or {}).get("command") or []
        if words[1:2] == ["drain-node"]:
            given = dict(w[2:].split("=", 1) for w in words if w.startswith("--") and "=" in w)
            least = int(given.get("linger", 0))
            return least, max(least, int(given.get("wait", 300)))
        seconds = (hook.get("sleep") or {}).get("seconds", 0)
        return seconds, seconds

    def grace(self, pod):
        longest = 0
        for c in containers(pod):
            least, stop = self.before_stop(c)
            drain = int(option(c, "drain-ms") or (3000 if program(c) == "tributary-gateway" else 0)) / 1000
            longest = max(longest, stop + drain)
            if c.get("ports") and program(c) in ("tributary-orchestrator", "tributary-gateway"):
                self.want(least >= 2, f"{c['name']}: no preStop: Services send to it while it goes down")
        self.want(pod["spec"].get("terminationGracePeriodSeconds", 30) >= longest + 10,
                  f"terminationGracePeriodSeconds is not 10 s above preStop and drain ({longest:g} s)")

    def volumes(self, o, pod):
        volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
        claims = {t["metadata"]["name"] for t in o["spec"].get("volumeClaimTemplates") or []}
        used = set()
        for c in containers(pod):
            memory = quantity((c.get("resources", {}).get("limits") or {}).get("memory", "0"))
            for m in c.get("volumeMounts", []):
                used.add(m["name"])
                self.want(m["name"] in volumes or m["name"] in claims,
                          f"{c['name']}: volume {m['name']!r} is not there")
                empty = volumes.get(m["name"], {}).get("emptyDir") or {}
                if empty.get("medium") == "Memory":
                    size = quantity(empty.get("sizeLimit", "x"))
                    self.want(size > 0, f"volume {m['name']}: in memory and without sizeLimit")
                    self.want(size <= memory, f"volume {m['name']}: sizeLimit above the memory limit of {c['name']}")
        for name in set(volumes) - used:
            self.fault(f"volume {name} is mounted nowhere")
        for v in volumes.values():
            if "hostPath" in v:
                self.want(v["hostPath"]["path"] in HOST_PATHS, f"hostPath {v['hostPath']['path']} is not one we explain")

    def container(self, o, pod, c):
        name = c["name"]
        image = c.get("image", "")
        tag = image.rsplit("/", 1)[-1].partition(":")[2].partition("@")[0]
        self.want(tag not in ("", "latest"), f"{name}: image {image!r} has no tag, or latest")
        if image.rsplit("/", 1)[-1].startswith("tributary"):
            self.want(tag == version(), f"{name}: image {image!r} is not of version {version()}")
        asked = c.get("resources", {}).get("requests") or {}
        limits = c.get("resources", {}).get("limits") or {}
        self.want("cpu" in asked and "memory" in asked, f"{name}: no requests of cpu and memory")
        self.want("memory" in limits, f"{name}: no memory limit")
        for what, amount in asked.items():
            if what in limits:
                self.want(quantity(amount) <= quantity(limits[what]), f"{name}: requests more {what} than its limit")
        for what in set(asked) | set(limits):
            if what.startswith("hugepages-"):
                self.want(asked.get(what) == limits.get(what), f"{name}: {what}: request and limit differ")
        env = [e["name"] for e in c.get("env", [])]
        self.want(len(set(env)) == len(env), f"{name}: a variable is set twice")
        self.want(c.get("terminationMessagePolicy") == "FallbackToLogsOnError",
                  f"{name}: terminationMessagePolicy is not FallbackToLogsOnError: a crash leaves no reason")
        if o["kind"] != "Job" and stays(c, pod):
            self.probes(pod, c)
        self.listens(c)

    def probes(self, pod, c):
        name = c["name"]
        self.want("startupProbe" in c, f"{name}: no startupProbe")
        if program(c) == "tributary":
            return  # the keeper: one socket, nothing that could be not ready; and it is never to be killed
        self.want("readinessProbe" in c, f"{name}: no readinessProbe")
        self.want("livenessProbe" in c, f"{name}: no livenessProbe")
        ports = {p.get("name") for p in c.get("ports", [])} | {p["containerPort"] for p in c.get("ports", [])}
        secure = any(e["name"] == "TRIBUTARY_TLS_CERT" for e in c.get("env", []))
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = c.get(kind, {})
            http = probe.get("httpGet")
            for how in (http, probe.get("tcpSocket")):
                if how:
                    self.want(how["port"] in ports, f"{name}: {kind}: port {how['port']!r} is none of its ports")
            if http:
                self.want(http.get("scheme", "HTTP") == ("HTTPS" if secure else "HTTP"),
                          f"{name}: {kind}: scheme {http.get('scheme', 'HTTP')} does not fit its TLS options")
                self.want(not any(e["name"] == "TRIBUTARY_TLS_CLIENT_CA" for e in c.get("env", [])),
                          f"{name}: {kind}: a kubelet has no client certificate")
                self.want(http["path"] == ("/readyz" if kind == "readinessProbe" else "/healthz"),
                          f"{name}: {kind} asks {http['path']}")

    def listens(self, c):
        if program(c) not in HTTP_PROBED:
            return
        ports = {p["containerPort"] for p in c.get("ports", [])}
        for name in ("listen", "admin"):
            address = option(c, name)
            if program(c) == "tributary-agent" and name == "listen":
                continue
            if not address:
                self.fault(f"{c['name']}: --{name} is not given: its default is the loopback")
                continue
            host, _, port = address.rpartition(":")
            self.want(host in ("0.0.0.0", "[::]", ""), f"{c['name']}: --{name} {address} is not on all interfaces")
            self.want(port.isdigit() and int(port) in ports, f"{c['name']}: --{name} {address}: port is not declared")

    # ---- security ----

    def security(self, o, pod):
        namespace = self.find("Namespace", None, o["metadata"]["namespace"]) or {"metadata": {}}
        restricted = (namespace["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce") == "restricted"
        spec = pod["spec"]
        around = spec.get("securityContext") or {}
        for field in ("hostPID", "hostIPC"):
            self.want(not spec.get(field), field)
        if restricted:
            self.want(not spec.get("hostNetwork"), "hostNetwork in a restricted namespace")
            self.want(not any("hostPath" in v for v in spec.get("volumes", [])), "hostPath in a restricted namespace")
        self.want((around.get("seccompProfile") or {}).get("type") == "RuntimeDefault", "seccomp is not RuntimeDefault")
        for c in containers(pod):
            self.security_of(c, around, restricted)

    def security_of(self, c, around, restricted):
        name, own = c["name"], c.get("securityContext") or {}
        if self.privileged and name == "agent":
            return
        self.want(not own.get("privileged"), f"{name}: privileged")
        self.want(own.get("allowPrivilegeEscalation") is False, f"{name}: allowPrivilegeEscalation is not false")
        self.want(own.get("readOnlyRootFilesystem") is True, f"{name}: its root file system can be written")
        self.want("seccompProfile" not in own or own["seccompProfile"].get("type") == "RuntimeDefault",
                  f"{name}: seccomp is not RuntimeDefault")
        user = own.get("runAsUser", around.get("runAsUser"))
        not_root = own.get("runAsNonRoot", around.get("runAsNonRoot"))
        if name in ROOT_USERS and not restricted:
            self.want(user == 0, f"{name}: must run as root: capabilities are given to root alone")
        else:
            self.want(not_root is True and user, f"{name}: may run as root")
        capabilities = own.get("capabilities") or {}
        self.want(capabilities.get("drop") == ["ALL"], f"{name}: does not drop ALL capabilities")
        for cap in capabilities.get("add") or []:
            if cap.startswith("CAP_"):
                self.fault(f"{name}: {cap}: with CAP_ it is accepted and gives nothing")
            elif cap not in KNOWN_CAPABILITIES:
                self.fault(f"{name}: no capability {cap}")
            else:
                self.want(cap in MAY.get(name, ()), f"{name}: may not have {cap}")

    # ---- references ----

    def references(self, o, pod):
        namespace = o["metadata"]["namespace"]
        for c in containers(pod):
            for e in c.get("env", []):
                source = e.get("valueFrom") or {}
                if "configMapKeyRef" in source:
                    self.key(namespace, c["name"], source["configMapKeyRef"])
                if "secretKeyRef" in source:
                    self.secret(c["name"], source["secretKeyRef"]["name"], [source["secretKeyRef"]["key"]])
            for source in c.get("envFrom", []):
                self.fault(f"{c['name']}: envFrom {source}: name the variables, others are not read")
            self.addresses(o, c)
        for v in pod["spec"].get("volumes", []):
            if "configMap" in v:
                self.want(self.find("ConfigMap", namespace, v["configMap"]["name"]),
                          f"volume {v['name']}: ConfigMap {v['configMap']['name']} is not there")
            if "secret" in v:
                self.secret(f"volume {v['name']}", v["secret"]["secretName"], [])

    def key(self, namespace, who, ref):
        found = self.find("ConfigMap", namespace, ref["name"])
        self.want(found and ref["key"] in (found.get("data") or {}),
                  f"{who}: key {ref['key']} of ConfigMap {ref['name']} is not there")

    def secret(self, who, name, keys):
        self.want(name in SECRETS and set(keys) <= SECRETS[name],
                  f"{who}: Secret {name} {keys or ''}: k8s/README.md tells nobody to make it")

    def values(self, o, c):
        """The container's variables, as far as they are known here."""
        out = {}
        for e in c.get("env", []):
            ref = (e.get("valueFrom") or {}).get("configMapKeyRef")
            if ref:
                found = self.find("ConfigMap", o["metadata"]["namespace"], ref["name"]) or {}
                out[e["name"]] = (found.get("data") or {}).get(ref["key"])
            elif "value" in e:
                out[e["name"]] = e["value"]
        return out

    def addresses(self, o, c):
        """Names of Services in settings: there, with that port, and let through by the policies."""
        for name, value in self.values(o, c).items():
            for host, port in re.findall(r"([a-z0-9.-]+\.svc(?:\.cluster\.local)?):(\d+)", value or ""):
                parts = host.split(".")
                service = self.find("Service", parts[-2] if parts[-1] == "svc" else parts[-4],
                                    parts[-3] if parts[-1] == "svc" else parts[-5])
                if not service or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
                    self.fault(f"{c['name']}: {name}: no Service has {host}:{port}")
                elif name == "TRIBUTARY_REDIS":
                    ports = {int(port)} | ({6379} if value.startswith("sentinel://") else set())
                    for server in self.selected({"matchLabels": service["spec"]["selector"]},
                                                service["metadata"]["namespace"]):
                        for why in {self.allowed(o, server, p) for p in ports} - {None}:
                            self.fault(f"{c['name']}: policies do not let it reach Redis ({why})")

    # ---- our node ----

    def node(self, pod):
        spec = pod["spec"]
        self.want(spec.get("shareProcessNamespace") is True,
                  "shareProcessNamespace: the agent cannot tell a dead gateway from a silent one")
        o = next(w for w in self.workloads if pod_of(w) is pod)
        by = {c["name"]: c for c in containers(pod)}
        self.want({"keeper", "agent", "gateway"} <= set(by), "keeper, agent and gateway belong together")
        agent, gateway = by.get("agent", {}), by.get("gateway", {})
        arena = (self.values(o, agent).get("TRIBUTARY_ARENA_BYTES") or "0").strip()
        self.want(arena.isdigit() and int(arena) > 0, f"arena-bytes {arena!r}")
        for c in (agent, gateway):
            limit = quantity((c.get("resources", {}).get("limits") or {}).get("memory", "0"))
            huge = quantity((c.get("resources", {}).get("limits") or {}).get("hugepages-2Mi", "0"))
            self.want(arena.isdigit() and limit >= int(arena) + HEADROOM,
                      f"{c.get('name')}: memory limit {limit / MIB:.0f} MiB is below arena + {HEADROOM // MIB} MiB")
            other = quantity((gateway.get("resources", {}).get("limits") or {}).get("hugepages-2Mi", "0"))
            self.want(huge == other, "hugepages-2Mi of agent and gateway differ: who fills a slot needs what made it")
        for name in ("agent", "gateway"):
            self.want("--share-with-group" in words(by.get(name, {})), f"{name}: no --share-with-group")
        self.want(option(agent, "socket") == option(gateway, "agent"), "agent --socket is not gateway --agent")
        self.want(option(agent, "models") == option(gateway, "models"), "agent and gateway have different --models")
        self.want(option(agent, "keeper") == option(by.get("keeper", {}), "socket"), "agent --keeper is not the keeper's")
        url = self.values(o, agent).get("TRIBUTARY_DATA_URL") or ""
        secure = "TRIBUTARY_TLS_CERT" in self.values(o, gateway)
        self.want(url.startswith("https://" if secure else "http://"), f"agent: data URL {url} is not what gateways speak")
        groups = {(c.get("securityContext") or {}).get("runAsGroup") for c in (agent, gateway)}
        self.want(len(groups) == 1 and None not in groups, "agent and gateway are not of one group")


def check(objects, privileged=False):
    policy = Policy(objects, privileged)
    policy.everything()
    return policy.faults
