# SPDX-License-Identifier: Apache-2.0
"""A 64-64-10 network (ReLU, softmax) in numpy: forward, one epoch of SGD, accuracy."""
import numpy as np

SHAPES = {"hidden.weight": (64, 64), "hidden.bias": (64,), "out.weight": (64, 10),
          "out.bias": (10,)}


def init(seed):
    """He initialisation; float32."""
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * np.sqrt(2 / shape[0]) if len(shape) == 2
                   else np.zeros(shape)).astype(np.float32)
            for name, shape in SHAPES.items()}


def forward(p, x):
    """x (n, 64) -> hidden activations (n, 64), class probabilities (n, 10)."""
    h = np.maximum(x @ p["hidden.weight"] + p["hidden.bias"], 0)
    z = h @ p["out.weight"] + p["out.bias"]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return h, e / e.sum(axis=1, keepdims=True)


def epoch(p, x, y, lr, batch, rng):
    """One pass over x in random order, in place on p."""
    order = rng.permutation(len(x))
    for begin in range(0, len(x), batch):
        i = order[begin:begin + batch]
        h, g = forward(p, x[i])
        g[np.arange(len(i)), y[i]] -= 1
        g /= len(i)
        dh = (g @ p["out.weight"].T) * (h > 0)
        p["out.weight"] -= lr * (h.T @ g)
        p["out.bias"] -= lr * g.sum(axis=0)
        p["hidden.weight"] -= lr * (x[i].T @ dh)
        p["hidden.bias"] -= lr * dh.sum(axis=0)


def accuracy(p, x, y):
    return float((forward(p, x)[1].argmax(axis=1) == y).mean())
