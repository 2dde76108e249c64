# SPDX-License-Identifier: Apache-2.0
"""Overlays to objects. By kustomize where there is one ($KUSTOMIZE, `kustomize`, `kubectl kustomize`), else by the part
of it written here, which is all that k8s/ uses: resources, components, configMapGenerator, patches. Where both are
there, check.py compares them object by object."""
import copy
import hashlib
import json
import os
import re
import shutil
import subprocess

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
K8S = os.path.join(ROOT, "k8s")
FIELDS = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "patches"}
# Lists that a strategic merge joins by a key; every other list is replaced.
KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"}
PORT_KEYS = {"Service": "port"}


class RenderError(Exception):
    pass


def overlays(folder=None):
    folder = os.path.join(folder or K8S, "overlays")
    return sorted(n for n in os.listdir(folder) if os.path.isfile(os.path.join(folder, n, "kustomization.yaml")))


def components(folder=None):
    folder = os.path.join(folder or K8S, "components")
    return sorted(n for n in os.listdir(folder) if os.path.isfile(os.path.join(folder, n, "kustomization.yaml")))


def tool():
    """The command of a kustomize of release 5, as a list, or None."""
    tried = [[os.environ["KUSTOMIZE"], "build"]] if os.environ.get("KUSTOMIZE") else []
    tried += [[w, "build"] for w in [shutil.which("kustomize")] if w]
    tried += [[w, "kustomize"] for w in [shutil.which("kubectl")] if w]
    for command in tried:
        words = [command[0], "version"] + (["--client"] if command[1] == "kustomize" else [])
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if re.search(r"v5\.\d+", done.stdout):
            return command
    return None


def by_tool(command, folder):
    done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RenderError(done.stderr.strip() or f"exit {done.returncode}")
    return [d for d in yaml.safe_load_all(done.stdout) if d]


# ---- the part of kustomize that is used ----

def identity(o):
    meta = o.get("metadata", {})
    return (o.get("apiVersion", "").split("/")[0] if "/" in o.get("apiVersion", "") else "", o.get("kind"),
            meta.get("namespace", ""), meta.get("name"))


def documents(path):
    try:
        with open(path, encoding="utf-8") as f:
            return [d for d in yaml.safe_load_all(f) if d]
    except OSError as e:
        raise RenderError(str(e)) from e


def merge(old, new, kind, field=""):
    """Strategic merge of `new` over `old`."""
    if isinstance(old, dict) and isinstance(new, dict):
        out = dict(old)
        for key, value in new.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = merge(out.get(key), value, kind, key)
        return out
    key = KEYS.get(field)
    if field == "ports":
        key = PORT_KEYS.get(kind, "containerPort" if kind != "NetworkPolicy" else None)
    if key and isinstance(old, list) and isinstance(new, list):
        out, fresh = list(old), []
        for item in new:
            at = next((i for i, o in enumerate(out) if o.get(key) == item.get(key)), None)
            if at is None:
                fresh.append(merge({}, item, kind))
            else:
                out[at] = merge(out[at], item, kind)
        return fresh + out
    if isinstance(new, dict):
        return merge({}, new, kind, field)
    return copy.deepcopy(new)


def json_patch(o, operations):
    for op in operations:
        *walk, last = [w.replace("~1", "/").replace("~0", "~") for w in op["path"].split("/")[1:]]
        at = o
        for word in walk:
            at = at[int(word)] if isinstance(at, list) else at[word]
        if isinstance(at, list):
            index = len(at) if last == "-" else int(last)
            if op["op"] == "add":
                at.insert(index, op["value"])
            elif op["op"] == "replace":
                at[index] = op["value"]
            else:
                del at[index]
        elif op["op"] == "remove" or op["op"] == "replace":
            if last not in at:
                raise RenderError(f"{op['op']} {op['path']}: not there")
            if op["op"] == "remove":
                del at[last]
            else:
                at[last] = op["value"]
        else:
            at[last] = op["value"]


def full(pattern, text):
    return re.fullmatch(pattern, text or "") is not None


def apply_patch(objects, patch, folder):
    text = patch.get("patch")
    docs = documents(os.path.join(folder, patch["path"])) if "path" in patch else list(yaml.safe_load_all(text))
    target = patch.get("target")
    if target:
        if len(docs) != 1 or not isinstance(docs[0], list):
            raise RenderError("a patch with a target is a list of operations here")
        for o in objects:
            if full(target.get("kind", ".*"), o["kind"]) and full(target.get("name", ".*"), o["metadata"]["name"]):
                json_patch(o, docs[0])
        return
    for doc in docs:
        doc = dict(doc)
        delete = doc.pop("$patch", None) == "delete"
        found = [i for i, o in enumerate(objects) if identity(o) == identity(doc)]
        if len(found) != 1:
            raise RenderError(f"patch of {identity(doc)}: {len(found)} objects match")
        if delete:
            del objects[found[0]]
        else:
            objects[found[0]] = merge(objects[found[0]], doc, doc["kind"])


def generate(objects, generator, folder):
    data = dict(line.split("=", 1) for line in generator.get("literals", []))
    for entry in generator.get("files", []):
        key, _, path = entry.rpartition("=")
        with open(os.path.join(folder, path), encoding="utf-8") as f:
            data[key or os.path.basename(path)] = f.read()
    made = {"apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"name": generator["name"], "namespace": generator["namespace"]}}
    options = generator.get("options", {})
    if options.get("labels"):
        made["metadata"]["labels"] = options["labels"]
    if not options.get("disableNameSuffixHash"):
        made["#hash"] = True
    former = [o for o in objects if identity(o) == identity(made)]
    if generator.get("behavior", "create") == "merge":
        if not former:
            raise RenderError(f"nothing to merge into: {identity(made)}")
        former[0]["data"].update(data)
    elif former:
        raise RenderError(f"there already: {identity(made)}")
    else:
        objects.append(made)


def accumulate(folder, objects):
    path = os.path.join(folder, "kustomization.yaml")
    spec = documents(path)[0]
    unknown = set(spec) - FIELDS
    if unknown:
        raise RenderError(f"{path}: {sorted(unknown)} is not understood here")
    for entry in spec.get("resources", []):
        at = os.path.join(folder, entry)
        if os.path.isdir(at):
            accumulate(at, objects)
        else:
            for o in documents(at):
                if any(identity(o) == identity(p) for p in objects):
                    raise RenderError(f"there already: {identity(o)}")
                objects.append(o)
    for entry in spec.get("components", []):
        accumulate(os.path.join(folder, entry), objects)
    for generator in spec.get("configMapGenerator", []):
        generate(objects, generator, folder)
    for patch in spec.get("patches", []):
        apply_patch(objects, patch, folder)


def suffix(o):
    """kustomize's hash of a ConfigMap: ten letters of the SHA-256 of its JSON."""
    text = json.dumps({"data": o["data"], "kind": "ConfigMap", "name": ""}, sort_keys=True, separators=(",", ":"),
                      ensure_ascii=False)  # kustomize asks for the name in a way that finds none
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    letters = hashlib.sha256(text.encode()).hexdigest()[:10]
    return letters.translate(str.maketrans("013ae", "ghkmt"))


def rename(value, names):
    """ConfigMap references of a namespace, wherever they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("configMapKeyRef", "configMapRef", "configMap") and isinstance(inner, dict):
                inner["name"] = names.get(inner.get("name"), inner.get("name"))
            rename(inner, names)
    elif isinstance(value, list):
        for inner in value:
            rename(inner, names)


def by_hand(folder):
    objects = []
    accumulate(folder, objects)
    for o in [o for o in objects if o.pop("#hash", False)]:
        old = o["metadata"]["name"]
        new = f"{old}-{suffix(o)}"
        o["metadata"]["name"] = new
        for other in objects:
            if other["metadata"].get("namespace") == o["metadata"]["namespace"]:
                rename(other, {old: new})
    return objects


def normal(value, field="", kind=""):
    """For comparing: lists joined by a key have no order."""
    if isinstance(value, dict):
        return {k: normal(v, k, kind or value.get("kind", "")) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        out = [normal(v, "", kind) for v in value]
        return sorted(out, key=lambda v: str(v.get(KEYS[field]))) if field in KEYS else out
    return value


def difference(a, b):
    """Which objects differ: a list of texts."""
    one, two = ({identity(o): normal(o) for o in side} for side in (a, b))
    out = [f"only one has {i}" for i in set(one) ^ set(two)]
    return out + [f"{i} differs" for i in set(one) & set(two) if one[i] != two[i]]
