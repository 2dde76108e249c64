# SPDX-License-Identifier: Apache-2.0
"""Flower (PyPI, unmodified: start_server with its FedAvg strategy, gRPC bidi clients) under the same load.

    flower.py server ELEMENTS UPDATES              prints {"port":..}, then {"last_byte_ns":..,"published_ns":..} per round
    flower.py clients ADDRESS ELEMENTS UPDATES     a process per client; {"ready":1}; per line on stdin a round, told as
                                                   {"began_ns":..}

Only the way up is measured: clients are sent no model, and their update is serialised once, before the clock starts.
What Flower has of last bytes is when FedAvg gets the round's results, so `last_byte_ns` is that.
"""
import ctypes
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import warnings

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
warnings.filterwarnings("ignore")

import logging  # noqa: E402

import flwr  # noqa: E402
import numpy as np  # noqa: E402
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters  # noqa: E402

logging.getLogger("flwr").setLevel(logging.ERROR)


def tell(**line):
    print(json.dumps(line), flush=True)


class Strategy(flwr.server.strategy.FedAvg):
    def configure_fit(self, server_round, parameters, client_manager):
        clients = client_manager.sample(num_clients=self.min_fit_clients, min_num_clients=self.min_fit_clients)
        return [(c, FitIns(Parameters([], "numpy.ndarray"), {})) for c in clients]

    def aggregate_fit(self, server_round, results, failures):
        began = time.monotonic_ns()
        if failures or any(not r.parameters.tensors for _, r in results):
            raise RuntimeError(f"failures: {failures}")
        out = super().aggregate_fit(server_round, results, failures)
        tell(last_byte_ns=began, published_ns=time.monotonic_ns())
        return out


def server(elements, updates):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    strategy = Strategy(fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=updates, min_available_clients=updates,
                        initial_parameters=Parameters([], "numpy.ndarray"))

    def watch():
        while sys.stdin.read(1):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    tell(port=port)
    app = flwr.server.Server(client_manager=flwr.server.SimpleClientManager(), strategy=strategy)
    app.set_max_workers(updates)  # else it asks cores + 4 clients at a time
    flwr.server.start_server(server_address=f"127.0.0.1:{port}", config=flwr.server.ServerConfig(num_rounds=1 << 30),
                             server=app)


class Client(flwr.client.Client):
    def __init__(self, elements, waiting, go):
        values = np.random.default_rng(3).standard_normal(elements, dtype=np.float32) * np.float32(1e-3)
        self.update, self.waiting, self.go = ndarrays_to_parameters([values]), waiting, go

    def fit(self, ins):
        self.waiting.release()
        self.go.acquire()
        update = Parameters(list(self.update.tensors), self.update.tensor_type)  # Flower takes it apart
        return FitRes(Status(Code.OK, ""), update, 1, {})


def client(address, elements, waiting, go):
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: goes when the bench ends its parent
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 2)
    flwr.client.start_client(server_address=address, client=Client(elements, waiting, go), max_wait_time=30)


def clients(address, elements, updates):
    waiting, go = multiprocessing.Semaphore(0), multiprocessing.Semaphore(0)
    crew = [multiprocessing.Process(target=client, args=(address, elements, waiting, go), daemon=True)
            for _ in range(updates)]
    for p in crew:
        p.start()
    tell(ready=1)
    while sys.stdin.readline():
        for _ in crew:
            waiting.acquire()
        began = time.monotonic_ns()
        for _ in crew:
            go.release()
        tell(began_ns=began)
    for p in crew:
        p.kill()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(*map(int, sys.argv[2:4]))
    else:
        clients(sys.argv[2], *map(int, sys.argv[3:5]))
