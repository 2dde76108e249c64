#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One federated client: trains on its own share and takes part until the job is over.

    client.py --url http://127.0.0.1:8081 --job job_... --id c-01 --share share-01.npz

The share holds x (n, 64) and y (n,). Imports numpy and the tributary package, nothing else."""
import argparse
import json
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "python"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import mlp  # noqa: E402
from tributary import Client  # noqa: E402


def end_with_parent():
    """With a pipe as standard input: leaves when its other end is closed."""
    def watch():
        os.read(0, 1)
        os._exit(3)
    threading.Thread(target=watch, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--share", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.0,
                        help="chance per round to be slow by 0.2 to 0.6 s (a poor network)")
    parser.add_argument("--watch-stdin", action="store_true")
    args = parser.parse_args()
    if args.watch_stdin:
        end_with_parent()
    rng = np.random.default_rng(args.seed)
    with np.load(args.share) as share:
        x, y = share["x"], share["y"]

    def train(params, config, _round):
        new = {name: value.copy() for name, value in params.items()}
        for _ in range(config["epochs"]):
            mlp.epoch(new, x, y, config["lr"], config["batch"], rng)
        if rng.random() < args.slow:
            time.sleep(rng.uniform(0.2, 0.6))
        return {name: new[name] - params[name] for name in new}, len(x)

    with Client(args.url, args.job, args.id, timeout=30, retry_for=30) as client:
        print(json.dumps({"id": args.id, "examples": len(x), **client.run(train, wait=20)}))


if __name__ == "__main__":
    main()
