#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make image-test: the images, run as the manifests say, without a cluster. Ends with "N passed, N failed, N skipped".

Every container of overlay ci is started by podman with its manifest's image, command, arguments, user, group,
capabilities, no_new_privs, read-only root and mounts; the default seccomp profile gets bpf() added for the agent, as
containerd does for CAP_BPF (podman 4 does not). All share one network namespace without a way out, and the node's
three one process namespace. Then 20 clients train the digits model through them. Root is needed, as for any runtime."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import policy  # noqa: E402
import render  # noqa: E402

ROOT = render.ROOT
IMAGES = os.path.join(ROOT, "build", "image")
SECCOMP = ("/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json")
FIELDS = {"metadata.name": "orchestrator-0", "spec.nodeName": "node-1", "status.podIP": "127.0.0.1"}
counts = {"passed": 0, "failed": 0, "skipped": 0}


def finish():
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(1 if counts["failed"] else 0)


def skip(why):
    print(f"  skip images: {why}")
    counts["skipped"] += 1
    finish()


def case(name, good, detail=""):
    counts["passed" if good else "failed"] += 1
    print(f"  {'ok  ' if good else 'FAIL'} {name}{'' if good else ': ' + str(detail)[-1500:]}", flush=True)


class Podman:
    def __init__(self, folder):
        self.folder, self.names = folder, []
        conf = os.path.join(folder, "containers.conf")
        with open(conf, "w", encoding="utf-8") as f:  # what a machine without CAP_SYS_RESOURCE or systemd needs
            f.write('[containers]\ndefault_ulimits=["nofile=20000:20000","nproc=4096:4096"]\n'
                    '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n')
        self.env = {**os.environ, "CONTAINERS_CONF": conf}
        self.base = ["podman", "--root", os.path.join(folder, "store"), "--runroot", os.path.join(folder, "run"),
                     "--runtime", shutil.which("runc") or "crun"]

    def __call__(self, *words, check=True, timeout=180):
        done = subprocess.run([*self.base, *words], capture_output=True, text=True, env=self.env, timeout=timeout,
                              cwd=self.folder)
        if check and done.returncode:
            raise RuntimeError(f"podman {' '.join(words[:2])}: {done.stderr.strip()[-800:]}")
        return done.stdout.strip()

    def pid(self, name):
        return int(self("inspect", "--format", "{{.State.Pid}}", name))

    def log(self, name):
        done = subprocess.run([*self.base, "logs", name], capture_output=True, text=True, env=self.env, timeout=60,
                              check=False)
        return done.stdout + done.stderr

    def end(self):
        for name in reversed(self.names):
            self("rm", "-f", "-t", "10", name, check=False)


def seccomp_with_bpf(folder):
    path = next((p for p in SECCOMP if os.path.exists(p)), None)
    if not path:
        return None
    with open(path, encoding="utf-8") as f:
        profile = json.load(f)
    for rule in profile["syscalls"]:
        rule["names"] = [n for n in rule["names"] if n not in ("bpf", "perf_event_open")]
    profile["syscalls"] = [r for r in profile["syscalls"] if r["names"]]
    profile["syscalls"].append({"names": ["bpf", "perf_event_open"], "action": "SCMP_ACT_ALLOW"})
    out = os.path.join(folder, "seccomp.json")
    with open(out, "w", encoding="utf-8") as f:
        json.dump(profile, f)
    return out


def places(objects, o, folder):
    """Host folders for the volumes of a workload."""
    out = {}
    pod = policy.pod_of(o)
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup", 0)
    for v in pod["spec"].get("volumes", []):
        at = out[v["name"]] = os.path.join(folder, "volumes", o["metadata"]["name"], v["name"])
        os.makedirs(at)
        if "configMap" in v:
            for c in objects:
                if c["kind"] == "ConfigMap" and c["metadata"]["name"] == v["configMap"]["name"]:
                    for name, text in c["data"].items():
                        with open(os.path.join(at, name), "w", encoding="utf-8") as f:
                            f.write(text)
        elif "emptyDir" in v:  # as a kubelet makes it
            os.chown(at, 0, group)
            os.chmod(at, 0o2777)
    return out


def start(podman, objects, o, c, volumes, first):
    values = policy.Policy(objects).values(o, c)
    for e in c.get("env", []):
        path = ((e.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if path:
            values[e["name"]] = FIELDS[path]
    if "TRIBUTARY_DATA_URL" in values:
        values["TRIBUTARY_DATA_URL"] = "http://127.0.0.1:8081"  # the clients here have no cluster names
    values = {k: re.sub(r"\$\((\w+)\)", lambda m: values[m.group(1)], v) for k, v in values.items()}
    around = policy.pod_of(o)["spec"].get("securityContext") or {}
    own = c["securityContext"]
    user, group = (own.get(k, around.get(k)) for k in ("runAsUser", "runAsGroup"))
    words = ["run", "-d", "--name", c["name"], "--user", f"{user}:{group}", "--cap-drop", "all", "--security-opt",
             "no-new-privileges", "--read-only", "--read-only-tmpfs=false", "--pull", "never"]
    for cap in (own.get("capabilities") or {}).get("add") or []:
        words += ["--cap-add", cap]
    if "BPF" in ((own.get("capabilities") or {}).get("add") or []):
        profile = seccomp_with_bpf(podman.folder)
        words += ["--security-opt", f"seccomp={profile or 'unconfined'}"]
    if first:
        words += ["--network", "none"]
    else:
        words += ["--network", f"container:{podman.names[0]}"]
    if c["name"] in ("agent", "gateway"):
        words += ["--pid", "container:keeper"]
    for m in c.get("volumeMounts", []):
        words += ["-v", f"{volumes[m['name']]}:{m['mountPath']}{':ro' if m.get('readOnly') else ''}"]
    hosts = os.path.join(podman.folder, "hosts")
    with open(hosts, "w", encoding="utf-8") as f:
        f.write("127.0.0.1 localhost\n" + "".join(
            f"127.0.0.1 {s['metadata']['name']}.{s['metadata']['namespace']}.svc\n" for s in objects
            if s["kind"] == "Service"))
    words += ["-v", f"{hosts}:/etc/hosts:ro"]
    for k, v in values.items():
        words += ["-e", f"{k}={v}"]
    rest = [re.sub(r"\$\((\w+)\)", lambda m: values[m.group(1)], w) for w in [*c["command"][1:], *c.get("args", [])]]
    words += ["--entrypoint", json.dumps([c["command"][0]]), f"localhost/{c['image']}", *rest]
    podman.names.append(c["name"])
    podman(*words)


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        return dict(line.split(":", 1) for line in f.read().splitlines() if ":" in line)


def inside(pid, *words, timeout=30):
    return subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", *words], capture_output=True, text=True,
                          timeout=timeout, cwd=ROOT)


def ready(pid, ports, seconds=60):
    end = time.monotonic() + seconds
    while True:
        answers = {p: inside(pid, "curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}",
                             f"http://127.0.0.1:{p}/readyz").stdout for p in ports}
        if set(answers.values()) == {"200"} or time.monotonic() > end:
            return answers
        time.sleep(0.2)


def bits(words):
    numbers = {"NET_ADMIN": 12, "PERFMON": 38, "BPF": 39}
    return sum(1 << numbers[w] for w in words)


def look(podman, objects):
    """What the kernel says of each process against what its manifest says."""
    for o in objects:
        if o["kind"] not in policy.WORKLOADS:
            continue
        for c in policy.containers(policy.pod_of(o)):
            s = status(podman.pid(c["name"]))
            may = bits((c["securityContext"].get("capabilities") or {}).get("add") or [])
            bound = int(s["CapBnd"], 16)
            case(f"{c['name']}: bounding set is what the manifest adds, no_new_privs, seccomp",
                 bound == may and s["NoNewPrivs"].strip() == "1" and s["Seccomp"].strip() == "2",
                 (s["CapBnd"], s["NoNewPrivs"], s["Seccomp"]))
            uid = c["securityContext"].get("runAsUser", (policy.pod_of(o)["spec"]["securityContext"]).get("runAsUser"))
            case(f"{c['name']}: runs as {uid}", s["Uid"].split()[0] == str(uid), s["Uid"])
    s = status(podman.pid("agent"))
    case("agent: keeps BPF and NET_ADMIN alone", int(s["CapEff"], 16) == bits(["BPF", "NET_ADMIN"]), s["CapEff"])
    for o in objects:
        for c in policy.containers(policy.pod_of(o)) if o["kind"] in policy.WORKLOADS else []:
            if c["name"] != "agent":
                s = status(podman.pid(c["name"]))
                case(f"{c['name']}: has no capability", int(s["CapEff"], 16) == 0 and int(s["CapPrm"], 16) == 0,
                     s["CapEff"])


def tails(folder):
    out = ""
    for name in sorted(os.listdir(folder))[:40]:
        if name.endswith(".log"):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                last = f.read().strip().splitlines()[-1:]
            out += f"\n{name}: {last}"
    return out


def train(podman, folder):
    work, result = os.path.join(folder, "work"), os.path.join(folder, "result.json")
    os.makedirs(work)
    net = podman.pid(podman.names[0])
    done = inside(net, "/usr/bin/python3", "client/examples/digits/driver.py", "--api", "http://127.0.0.1:8080",
                  "--work", work, "--model", os.path.join(folder, "m.safetensors"), "--result", result, timeout=400)
    try:
        with open(result, encoding="utf-8") as f:
            r = json.load(f)
    except OSError:
        r = {}
    case(f"20 clients train the digits model: accuracy {r.get('accuracy', 0):.4f} after {r.get('rounds')} rounds",
         done.returncode == 0 and r.get("accuracy", 0) >= 0.93, done.stdout[-500:] + done.stderr[-300:] + tails(work))


def run(folder):
    podman = Podman(folder)
    objects = render.by_hand(os.path.join(render.K8S, "overlays", "ci"))
    order = {"redis": 0, "keeper": 1, "agent": 2, "gateway": 3, "orchestrator": 4}
    try:
        for name in ("tributary", "tributary-redis"):
            podman("load", "-q", "-i", os.path.join(IMAGES, f"{name}-{policy.version()}.tar"))
        todo = [(o, c) for o in objects if o["kind"] in policy.WORKLOADS for c in policy.containers(policy.pod_of(o))]
        volumes = {o["metadata"]["name"]: places(objects, o, folder) for o in objects if o["kind"] in policy.WORKLOADS}
        for o, c in sorted(todo, key=lambda t: order[t[1]["name"]]):
            start(podman, objects, o, c, volumes[o["metadata"]["name"]], first=not podman.names)
            time.sleep(0.5)
        answers = ready(podman.pid("redis"), (9090, 9091, 9092))
        case("orchestrator, gateway and agent are ready", set(answers.values()) == {"200"},
             (answers, *[podman.log(n)[-400:] for n in podman.names]))
        look(podman, objects)
        said = re.search(r"event=transport ([^\"]*)", podman.log("agent"))
        print(f"       transport: {said.group(1) if said else 'not told'}")
        train(podman, folder)
        podman("stop", "-t", "30", "gateway")
        code = podman("inspect", "--format", "{{.State.ExitCode}}", "gateway")
        case("the gateway ends by SIGTERM with 0", code == "0", code)
    except (RuntimeError, subprocess.TimeoutExpired, OSError) as e:
        case("images run", False, e)
    finally:
        podman.end()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        skip("root is needed to start containers with given users and capabilities")
    if not shutil.which("podman") or not (shutil.which("runc") or shutil.which("crun")):
        skip("podman and runc are not installed (apt-get install podman runc)")
    for name in ("tributary", "tributary-redis"):
        if not os.path.exists(os.path.join(IMAGES, f"{name}-{policy.version()}.tar")):
            skip(f"build/image/{name}-{policy.version()}.tar is not there (make image)")
    folder = tempfile.mkdtemp(prefix="ki-")
    os.chmod(folder, 0o755)
    try:
        run(folder)
    finally:
        subprocess.run(["umount", "-q", os.path.join(folder, "store", "overlay")], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    finish()


if __name__ == "__main__":
    main()
