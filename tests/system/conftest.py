# SPDX-License-Identifier: Apache-2.0
"""Fixtures: `service` (one per test), `shared_service` (one per module), and a time limit for every
test (120 s; @pytest.mark.limit(seconds) changes it)."""
import os
import signal
import sys

import pytest

kill = os.kill


def kill_one(pid, number):
    """os.kill of a pid that is one. A process between two lives is told as 0, which would be our own group."""
    if pid <= 0:
        raise ProcessLookupError(f"no process: {pid}")
    kill(pid, number)


os.kill = kill_one

sys.path.insert(0, os.path.dirname(__file__))

import lib  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): time limit of this test")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    mark = item.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else 120) * lib.SLOW

    def late(_number, _frame):
        raise TimeoutError(f"{item.nodeid} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def service(tmp_path):
    """A fresh service with its own directory, stopped after the test; it must stop well."""
    with lib.Service(tmp_path) as s:
        yield s
        code = s.stop()
        assert code == 0, f"up ended with {code}:\n{s.logs()}"


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory):
    """One service for all tests of a module: tests must not disturb each other (own jobs)."""
    with lib.Service(tmp_path_factory.mktemp("shared")) as s:
        yield s
