#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: N client processes with unlike shares of the digits train one network by federated
averaging; after each round the published model is tested on digits nobody trained on.

    driver.py --api http://127.0.0.1:8080 --work DIR --model OUT.safetensors

Prints a row per round. Exit code 0 when the accuracy is reached."""
import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "python"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import data  # noqa: E402
import mlp  # noqa: E402
from tributary import Admin, Client, Problem, dump  # noqa: E402

SEED = 7
ALPHA = 0.5
LEARNING = {"lr": 0.2, "epochs": 10, "batch": 16}
ENOUGH = 0.95  # then it goes on only while it gets better
PATIENCE = 6  # rounds without a better model


def spec(args):
    # The - 1e-9 keeps ceil(goal * over_select) from landing on N + 1.
    return {"sync": {"goal": args.goal, "over_select": args.clients / args.goal - 1e-9,
                     "quorum": max(1, args.goal // 2), "deadline_s": 30, "client_timeout_s": 15},
            "stop": {"rounds": args.rounds},
            "client_config": LEARNING}


def start_clients(args, job, url, x, y, parts):
    """Writes the shares, starts the processes. Each fifth client is slow now and then."""
    clients = []
    for i, part in enumerate(parts):
        share = os.path.join(args.work, f"share-{i:02}.npz")
        np.savez(share, x=x[part], y=y[part])
        with open(os.path.join(args.work, f"client-{i:02}.log"), "wb") as log:
            clients.append(subprocess.Popen(
                [sys.executable, os.path.join(HERE, "client.py"), "--url", url, "--job", job,
                 "--id", f"c-{i:02}", "--share", share, "--seed", str(i), "--watch-stdin",
                 "--slow", "0.4" if i % 5 == 4 else "0"],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT))
    return clients


def end_clients(clients, patience):
    """Waits for the processes to end by themselves, then ends them. How many did not end well."""
    bad, until = 0, time.monotonic() + patience
    for c in clients:
        try:
            bad += c.wait(max(0.0, until - time.monotonic())) != 0
        except subprocess.TimeoutExpired:
            c.kill()
            c.wait()
            bad += 1
        c.stdin.close()
    return bad


def told_late(work):
    """How many uploads were refused because the round was closed, as the clients tell."""
    late = 0
    for name in sorted(os.listdir(work)):
        if name.startswith("client-"):
            with open(os.path.join(work, name), encoding="utf-8") as f:
                late += sum(json.loads(line)["late"] for line in f if line.startswith("{"))
    return late


def last_words(work, i):
    """The last line of a client's log."""
    with open(os.path.join(work, f"client-{i:02}.log"), encoding="utf-8", errors="replace") as f:
        return (f.read().strip().splitlines() or ["without a word"])[-1]


def wait_round(admin, job, number, clients, work):
    """The round once it is published or failed; None when the job ended before it was."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            r = admin.round(job, number)
        except Problem as e:
            if e.status != 404:
                raise
            r = {"state": "none"}
        if r["state"] in ("published", "failed"):
            return r
        if r["state"] == "none" and admin.get(job)["status"]["phase"] in (
                "Succeeded", "Failed", "Stopped"):
            return None
        dead = [i for i, c in enumerate(clients) if c.poll() not in (None, 0)]
        if len(dead) > 2:
            raise RuntimeError(f"{len(dead)} clients died: {last_words(work, dead[0])}")
        time.sleep(0.02)
    raise RuntimeError(f"round {number} took more than 90 s")


def follow(args, admin, client, job, clients, test):
    """Prints the table; returns [accuracy per version], stragglers in all."""
    print("round  accepted  stragglers     ms  test accuracy", flush=True)
    seen, stragglers, best, best_at = [], 0, 0.0, 0
    for number in range(1, args.rounds + 1):
        r = wait_round(admin, job, number, clients, args.work)
        if r is None:
            break
        if r["state"] == "failed":
            print(f"{number:5}  failed: {r.get('why')}", flush=True)
            continue
        params, _ = client.model(r["version"])
        seen.append(mlp.accuracy(params, *test))
        stragglers += r.get("stragglers") or 0
        print(f"{number:5}  {r['accepted']:8}  {r.get('stragglers', 0):10}  "
              f"{r.get('timings', {}).get('total_ms', 0):5.0f}  {seen[-1]:.4f}  "
              f"{'#' * round(40 * seen[-1])}", flush=True)
        if seen[-1] > best:
            best, best_at = seen[-1], number
        if best >= ENOUGH and number - best_at >= PATIENCE:
            break
    return seen, stragglers


def central(rounds, train, test):
    """The same network trained where all data is in one place, with as many passes over it."""
    params, rng = mlp.init(SEED), np.random.default_rng(SEED)
    for _ in range(rounds * LEARNING["epochs"]):
        mlp.epoch(params, *train, LEARNING["lr"], LEARNING["batch"], rng)
    return mlp.accuracy(params, *test)


def save(params, path):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path + ".tmp", "wb") as f:
            f.writelines(dump(params))
        os.replace(path + ".tmp", path)
    except OSError as e:
        raise RuntimeError(f"{path}: {e.strerror}") from e


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--api", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--result", help="file for the numbers, as JSON")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--goal", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--accuracy", type=float, default=0.93)
    parser.add_argument("--die-with-parent", action="store_true")
    args = parser.parse_args()
    if args.die_with_parent:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    x, y, *test = data.load(SEED)
    parts = data.shares(y, args.clients, ALPHA, SEED)
    sizes = sorted(map(len, parts))
    print(f"{len(y)} digits to train on, {len(test[1])} to test on; {args.clients} clients hold "
          f"{sizes[0]} to {sizes[-1]} each, every one another mix")
    admin = Admin(args.api)
    job = admin.submit(spec(args), name="digits")
    job_id, url = job["metadata"]["id"], admin.data_url(job)
    admin.upload_initial_model(job_id, mlp.init(SEED))
    print(f"job {job_id}: a round is {args.goal} of {args.clients} clients\n", flush=True)

    clients = start_clients(args, job_id, url, x, y, parts)
    reader = Client(url, job_id, "demo-driver")
    try:
        seen, stragglers = follow(args, admin, reader, job_id, clients, test)
        if not seen:
            raise RuntimeError("no round was published")
        if admin.get(job_id)["status"]["phase"] == "Running":
            admin.stop(job_id)
        ended = admin.wait(job_id, timeout=30)
        params, version = reader.model("latest")
        bad = end_clients(clients, 30)
    finally:
        end_clients(clients, 0)
    save(params, args.model)
    final = mlp.accuracy(params, *test)
    whole = central(version, (x, y), test)
    print(f"\njob {ended['status']['phase'].lower()} at version {version}; {stragglers} times a "
          f"selected client was not among the first {args.goal}\n({told_late(args.work)} uploads were "
          f"refused as too late); clients that did not end well: {bad}")
    print(f"accuracy {final:.4f}; trained in one place, with as many passes: {whole:.4f}",
          flush=True)
    if args.result:
        with open(args.result, "w", encoding="utf-8") as f:
            json.dump({"accuracy": final, "central": whole, "rounds": version,
                       "stragglers": stragglers, "job": job_id, "bad": bad}, f)
    return 0 if final >= args.accuracy and bad == 0 else 1


def interrupt(*_):
    """Ctrl-C, or demo.sh ends it: at once. The clients see their pipe close and leave."""
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)  # a shell's & ignores it
    try:
        sys.exit(main())
    except (Problem, RuntimeError, OSError, ImportError) as error:
        print(f"driver: {error}", file=sys.stderr)
        sys.exit(1)
