# SPDX-License-Identifier: Apache-2.0
"""A short slice of `make chaos`: seeds that once found something, and a few that have not yet."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import chaos  # noqa: E402
from cluster import Node  # noqa: E402


@pytest.fixture(scope="module")
def node():
    with Node(env={"TRIBUTARY_TEST_FOLD_DELAY_US": "800"}) as n:
        yield n


@pytest.mark.parametrize("seed", [100, 101, 265, 278, 9, 12, 27, 218])
def test_seed(node, seed):
    print(chaos.run(node, seed))
