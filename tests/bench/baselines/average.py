# SPDX-License-Identifier: Apache-2.0
"""What the Python baselines share: the running mean in numpy, and how they tell the bench about it."""
import json
import sys
import threading
import time

import numpy as np

REGION = 1 << 18  # floats per lock: numpy lets go of the interpreter's lock while it adds


class Average:
    def __init__(self, elements, updates):
        self.elements, self.updates, self.folded = elements, updates, 0
        self.sums = np.zeros(elements, np.float32)
        self.base = np.zeros(elements, np.float32)
        self.model = np.zeros(elements, np.float32)
        self.locks = [threading.Lock() for _ in range(elements // REGION + 1)]
        self.lock = threading.Lock()

    def add(self, at, data):
        """Little-endian floats of an update from element `at` on; how many."""
        values = np.frombuffer(data, "<f4")
        n, done = len(values), 0
        if at + n > self.elements:
            raise ValueError("too long")
        while done < n:
            region = (at + done) // REGION
            count = min(n - done, (region + 1) * REGION - at - done)
            with self.locks[region]:
                part = self.sums[at + done:at + done + count]
                np.add(part, values[done:done + count], out=part)  # the weight is 1: no product is taken
            done += count
        return n

    def finish(self):
        """An update is whole."""
        with self.lock:
            self.folded += 1
            if self.folded < self.updates:
                return
            np.multiply(self.sums, np.float32(1 / self.updates), out=self.model)
            np.add(self.model, self.base, out=self.model)
            tell(published_ns=time.monotonic_ns())
            self.sums[:] = 0
            self.folded = 0


def tell(**line):
    print(json.dumps(line), flush=True)


def until_the_bench_has_gone():
    while sys.stdin.read(1):
        pass
