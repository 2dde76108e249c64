# SPDX-License-Identifier: Apache-2.0
"""Strict validation against the API's own types: the OpenAPI definitions of the oldest and the newest Kubernetes we
name, as the package kubernetes-validate of PyPI carries them (pinned by hash, kept under build/). A field that is not
in a type, a value of another type, a missing required field: each is told with its path."""
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile

RELEASES = ("1.30", "1.37")
PACKAGE, SHA256 = "kubernetes-validate==1.37.0", "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
QUANTITY = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$")

# Types of others, as far as we use them: monitoring.coreos.com/v1 of the Prometheus operator.
TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
SELECTOR = {"type": "object", "additionalProperties": False,
            "properties": {"matchLabels": TEXTS, "matchExpressions": {"type": "array"}}}
KEY_OF = {"type": "object", "additionalProperties": False, "required": ["name", "key"],
          "properties": {"name": TEXT, "key": TEXT}}
META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}


def strict(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


ENDPOINT = strict(
    port=TEXT, path=TEXT, interval=TEXT, scrapeTimeout=TEXT, scheme={"type": "string", "enum": ["http", "https"]},
    tlsConfig=strict(ca=strict(secret=KEY_OF, configMap=KEY_OF), cert=strict(secret=KEY_OF), keySecret=KEY_OF,
                     serverName=TEXT, insecureSkipVerify={"type": "boolean"}),
    relabelings={"type": "array", "items": strict(sourceLabels={"type": "array", "items": TEXT}, targetLabel=TEXT,
                                                  regex=TEXT, replacement=TEXT, action=TEXT)})
RULE = {**strict(alert=TEXT, record=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS,
                 **{"for": TEXT}), "required": ["expr"]}
OTHERS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): strict(
        apiVersion=TEXT, kind=TEXT, metadata=META,
        spec={**strict(selector=SELECTOR, endpoints={"type": "array", "items": ENDPOINT},
                       namespaceSelector=strict(matchNames={"type": "array", "items": TEXT}), jobLabel=TEXT),
              "required": ["selector", "endpoints"]}),
    ("monitoring.coreos.com/v1", "PrometheusRule"): strict(
        apiVersion=TEXT, kind=TEXT, metadata=META,
        spec=strict(groups={"type": "array", "items": {**strict(name=TEXT, interval=TEXT, rules={
            "type": "array", "items": RULE}), "required": ["name", "rules"]}})),
}


def fetch(build):
    """Path of the package's wheel, or (None, why there is none)."""
    folder = os.path.join(build, "k8s")
    os.makedirs(folder, exist_ok=True)
    for turn in range(2):
        for path in glob.glob(os.path.join(folder, "kubernetes_validate-*.whl")):
            with open(path, "rb") as f:
                if hashlib.sha256(f.read()).hexdigest() == SHA256:
                    return path, None
            os.unlink(path)
        if turn:
            break
        try:
            done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "2",
                                   "--timeout", "20", "-d", folder, PACKAGE], capture_output=True, text=True,
                                  timeout=180)
        except (OSError, subprocess.TimeoutExpired) as e:
            return None, f"pip download: {e}"
        if done.returncode:
            return None, f"pip download {PACKAGE}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
    return None, f"{PACKAGE}: not what was pinned"


class Schema:
    def __init__(self, wheel, release):
        name = f"kubernetes_validate/kubernetes-json-schema/v{release}.0-local-strict/_definitions.json"
        with zipfile.ZipFile(wheel) as z:
            self.types = json.loads(z.read(name))["$defs"]
        self.release = release
        self.kinds = {}
        for key, value in self.types.items():
            for gvk in value.get("x-kubernetes-group-version-kind", []):
                group = gvk["group"] + "/" if gvk["group"] else ""
                self.kinds.setdefault((group + gvk["version"], gvk["kind"]), key)

    def check(self, o):
        """Faults of an object: list of texts."""
        faults = []
        kind = (o.get("apiVersion"), o.get("kind"))
        if kind in OTHERS:
            self.walk(o, OTHERS[kind], "", faults)
        elif kind in self.kinds:
            self.walk(o, self.types[self.kinds[kind]], "", faults)
        else:
            faults.append(f"no kind {kind[1]} in {kind[0]} (Kubernetes {self.release})")
        return faults

    def walk(self, value, schema, path, faults):
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            if name.endswith("resource.Quantity"):
                if isinstance(value, bool) or not QUANTITY.match(str(value)):
                    faults.append(f"{path}: {value!r} is no quantity")
                return
            if name.endswith("IntOrString"):
                if isinstance(value, bool) or not isinstance(value, (int, str)):
                    faults.append(f"{path}: {value!r} is neither number nor text")
                return
            schema = self.types[name]
        if value is None:
            faults.append(f"{path}: null")
            return
        kinds = schema.get("type", [])
        kinds = [k for k in ([kinds] if isinstance(kinds, str) else kinds) if k != "null"]
        python = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
                  "object": dict}
        fits = [k for k in kinds if isinstance(value, python[k]) and (k == "boolean" or not isinstance(value, bool))]
        if kinds and not fits:
            faults.append(f"{path}: want {' or '.join(kinds)}, got {type(value).__name__} {str(value)[:40]!r}")
            return
        if "enum" in schema and value not in schema["enum"]:
            faults.append(f"{path}: {value!r} is none of {schema['enum']}")
        if isinstance(value, list):
            for i, item in enumerate(value):
                self.walk(item, schema.get("items", {}), f"{path}[{i}]", faults)
        if isinstance(value, dict):
            self.fields(value, schema, path, faults)

    def fields(self, value, schema, path, faults):
        known = schema.get("properties")
        more = schema.get("additionalProperties")
        for key in schema.get("required", []):
            if key not in value:
                faults.append(f"{path}: {key} is missing")
        for key, inner in value.items():
            if known and key in known:
                self.walk(inner, known[key], f"{path}.{key}", faults)
            elif isinstance(more, dict):
                self.walk(inner, more, f"{path}.{key}", faults)
            elif known is not None:
                faults.append(f"{path}: unknown field {key!r}")
