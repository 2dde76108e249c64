#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""k8s/base/crd/aggregationjobs.yaml from the orchestrator's own table of the job spec.

    crd.py OPENAPI.JSON > k8s/base/crd/aggregationjobs.yaml      (the file: GET /v1/openapi.json)

Defaults are left out: they are the orchestrator's, and an object shows what its author wrote.
tests/system/test_kube.py compares the file with a running orchestrator."""
import json
import sys

import yaml

TEXT_MAX = 512
# What orchestrator/spec_patch.c lets change; all else is fixed once the job exists.
MAY_CHANGE = ("mode", "sync", "async", "stop", "checkpoints", "notifications", "aggregation.denominator",
              "aggregation.population", "pool.share", "pool.score", "pool.min", "pool.size", "selection")
HEAD = """# SPDX-License-Identifier: Apache-2.0
# Made by tests/k8s/crd.py from the orchestrator's table of the job spec; do not edit.
"""


def plain(value):
    """Bounds as every YAML reads them: no exponents (tiny ones become 0; the orchestrator knows better)."""
    if isinstance(value, float):
        value = int(value) if value == int(value) else 0 if abs(value) < 1e-4 else value
    return value


def structural(schema):
    """A JSON Schema of ours as Kubernetes wants it: structural, no defaults, texts and lists bounded."""
    out = {}
    if "description" in schema:
        out["description"] = schema["description"]
    if "oneOf" in schema:  # a number, or "auto"
        low = schema["oneOf"][0]
        return {**out, "x-kubernetes-int-or-string": True, "x-kubernetes-validations": [{
            "rule": f"type(self) == int ? (self >= {low['minimum']} && self <= {low['maximum']}) : self == 'auto'",
            "message": f"a number from {low['minimum']} to {low['maximum']}, or auto"}]}
    out["type"] = schema["type"]
    for key in ("enum", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern"):
        if key in schema:
            out[key] = plain(schema[key])
    if schema["type"] == "integer":
        out["format"] = "int64"
    if schema["type"] == "string" and "enum" not in schema:
        out.setdefault("maxLength", TEXT_MAX)
    if schema["type"] == "array":
        out["items"] = structural(schema["items"])
        out.setdefault("maxItems", 16)
    if schema["type"] == "object":
        fields = {k: structural(v) for k, v in schema.get("properties", {}).items() if not v.get("readOnly")}
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            out["additionalProperties"] = structural(more)
            if "maxProperties" in schema:
                out["maxProperties"] = schema["maxProperties"]
        elif fields:
            out["properties"] = fields
            if "required" in schema:
                out["required"] = schema["required"]
        else:
            out["x-kubernetes-preserve-unknown-fields"] = True
    return out


def same(path):
    """CEL: the field is what it was, or was and is not there."""
    parents = path.split(".")[:-1]
    had = [f"has({{o}}.spec.{'.'.join(path.split('.')[:i + 1])})" for i in range(len(parents) + 1)]
    new, old = (" && ".join(h.format(o=o) for h in had) for o in ("self", "oldSelf"))
    return f"({new}) == ({old}) && (!({new}) || self.spec.{path} == oldSelf.spec.{path})"


def rules(spec):
    out = [{"rule": "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
            "message": "the name of a job: at most 63 of a-z 0-9 -"}]
    for name, field in spec["properties"].items():
        paths = [name] if name not in ("aggregation", "pool") else [f"{name}.{k}" for k in field["properties"]]
        for path in paths:
            if path in MAY_CHANGE or field.get("x-kubernetes-preserve-unknown-fields"):
                continue  # what has no schema cannot be compared in CEL; the orchestrator does
            out.append({"rule": f"!has(oldSelf.status) || !has(oldSelf.status.job) || ({same(path)})",
                        "message": f"spec.{path} cannot be changed in a job's life"})
    return out


def spec_rules(schema):
    goal = schema["properties"]["sync"]["properties"]["goal"]["default"]
    return [{"rule": f"!has(self.quorum) || self.quorum <= (has(self.goal) ? self.goal : {goal})",
             "message": "sync.quorum must not be above sync.goal"}]


def status():
    text, number = {"type": "string", "maxLength": TEXT_MAX}, {"type": "integer", "format": "int64"}
    condition = {"type": "object", "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                 "properties": {"type": {"type": "string", "maxLength": 316},
                                "reason": {"type": "string", "maxLength": 1024},
                                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                                "message": {"type": "string", "maxLength": 32768}, "observedGeneration": number,
                                "lastTransitionTime": {"type": "string", "format": "date-time"}}}
    return {"type": "object", "description": "Written by the orchestrator", "properties": {
        "job": {**text, "description": "Its id in the REST API"},
        "phase": {**text, "description": "Pending, Running, Paused, Draining, Succeeded, Stopped, Failed; "
                                         "Refused: see the conditions; Deleted: through the REST API"},
        "round": {**number, "description": "Number of the round"},
        "version": {**number, "description": "Newest published version; -1 = none"},
        "counted": {**number, "description": "Updates in published versions"},
        "metrics": {"type": "object", "additionalProperties": {"type": "number"}, "maxProperties": 64,
                    "description": "Clients' metrics of the newest version, averaged"},
        "accuracy": {"type": "number", "description": "metrics.accuracy, when clients report one"},
        "reason": {**text, "description": "Why the job ended"},
        "observedGeneration": {**number, "description": "Generation of the spec that was looked at last"},
        "conditions": {"type": "array", "maxItems": 8, "items": condition, "x-kubernetes-list-type": "map",
                       "x-kubernetes-list-map-keys": ["type"]}}}


def document(openapi):
    ours = openapi["components"]["schemas"]["JobRequest"]["properties"]["spec"]
    spec = {"description": "The job; fields and defaults: docs/jobs.md", **structural(ours)}
    spec["properties"]["sync"]["x-kubernetes-validations"] = spec_rules(ours)
    columns = [("Phase", "string", "phase"), ("Round", "integer", "round"), ("Version", "integer", "version"),
               ("Accuracy", "number", "accuracy")]
    printed = [{"name": n, "type": t, "jsonPath": f".status.{p}"} for n, t, p in columns]
    printed += [{"name": "Job", "type": "string", "jsonPath": ".status.job", "priority": 1},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    root = {"type": "object", "description": "A federated-learning job", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": spec,
        "status": status()}, "required": ["spec"], "x-kubernetes-validations": rules(spec)}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "aggregationjobs.tributary.io", "labels": {"app.kubernetes.io/part-of": "tributary"}},
            "spec": {"group": "tributary.io", "scope": "Namespaced",
                     "names": {"kind": "AggregationJob", "listKind": "AggregationJobList", "plural": "aggregationjobs",
                               "singular": "aggregationjob", "shortNames": ["aggjob"], "categories": ["tributary"]},
                     "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                   "additionalPrinterColumns": printed, "schema": {"openAPIV3Schema": root}}]}}


class Dumper(yaml.SafeDumper):
    """Lists indented, nothing by reference: as the other manifests are."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data):
        return True


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        made = document(json.load(f))
    sys.stdout.write(HEAD + yaml.dump(made, Dumper=Dumper, sort_keys=False, width=80))


if __name__ == "__main__":
    main()
