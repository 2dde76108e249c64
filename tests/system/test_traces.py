# SPDX-License-Identifier: Apache-2.0
"""A slice of `make traces`: random arrival traces of every policy against the reference simulator."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "reference"))

from traces import POLICIES, Node, campaign  # noqa: E402


def test_decisions_and_models_are_the_references():
    runs = [(policy, 10 * seed + i) for seed in range(3) for i, policy in enumerate(POLICIES)]
    with Node() as node:
        wrong, seen = campaign(node, runs)
    assert not wrong, wrong
    assert all(seen.values()), seen  # carried ones and refusals, too
