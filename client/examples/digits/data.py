# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's bundled digits: 1797 images of 8x8, split once, shared out unevenly."""
import numpy as np


def load(seed):
    """x_train, y_train, x_test, y_test: 80 % and 20 % of each class, pixels scaled to 0..1."""
    from sklearn.datasets import load_digits
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    test = np.zeros(len(y), bool)
    for c in range(10):
        members = rng.permutation(np.flatnonzero(y == c))
        test[members[:round(len(members) * 0.2)]] = True
    return x[~test], y[~test], x[test], y[test]


def shares(y, clients, alpha, seed, least=8):
    """Index arrays, one per client: each class is dealt out by Dirichlet(alpha) proportions, so
    every client sees another mix of digits; nobody gets fewer than `least` examples."""
    rng = np.random.default_rng(seed)
    while True:
        parts = [[] for _ in range(clients)]
        for c in range(10):
            members = rng.permutation(np.flatnonzero(y == c))
            cuts = (np.cumsum(rng.dirichlet([alpha] * clients))[:-1] * len(members)).astype(int)
            for part, piece in zip(parts, np.split(members, cuts)):
                part.append(piece)
        parts = [np.concatenate(p) for p in parts]
        if min(map(len, parts)) >= least:
            return parts
