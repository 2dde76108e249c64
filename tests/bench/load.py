#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make load: `tributary load` against a node of its own. Arguments go to the tool, UP="--workers 1 .." to `tributary up`."""
import os
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import cluster  # noqa: E402

DEFAULT = ["--mode", "async", "--clients", "200", "--goal", "100", "--duration", "20"]


def main():
    build = os.path.join(cluster.ROOT, "build")
    with cluster.Node(*shlex.split(os.environ.get("UP", ""))) as node:
        return subprocess.run([os.path.join(cluster.BIN, "tributary"), "load", "--dir", node.dir, "--report",
                               os.path.join(build, "load.json"), "--html", os.path.join(build, "load.html"),
                               *(sys.argv[1:] or DEFAULT)]).returncode


if __name__ == "__main__":
    sys.exit(main())
