# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures for tests that need nothing but the built daemon."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Callable, Iterator

import pytest

import launch
from booted import BootedManager
from connection import DEFAULT_TIMEOUT, Connection
from daemon import Daemon
from launch import ServiceManager, binary, is_installed, patience, wrapper

launch.raise_descriptor_limit()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what the daemons of a failed test said."""
    report = (yield).get_result()
    if report.failed and call.when == "call":
        for manager in getattr(item, "managers", []):
            for daemon in manager.daemons:
                report.sections.append((f"standard error of {daemon}", daemon.output()[-20000:]))


@pytest.fixture
def make_manager(request) -> Iterator[Callable[..., ServiceManager]]:
    """Make service managers: make_manager(sockets=["postfix"])."""
    managers: list[ServiceManager] = []
    request.node.managers = managers

    def make(**how) -> ServiceManager:
        managers.append(BootedManager(**how) if is_installed() else ServiceManager(**how))
        return managers[-1]

    yield make
    errors = []
    for manager in managers:
        try:
            manager.close()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture
def manager(make_manager) -> ServiceManager:
    """A service manager with the two Postfix sockets and the native one."""
    return make_manager()


@pytest.fixture
def start(manager) -> Callable[..., Daemon]:
    """Start a daemon: start(max_idle="1s"). Connections live for up to an hour, unless it says
    otherwise."""

    def start(**options) -> Daemon:
        return manager.start({"connection_cache_ttl_limit": "3600s", **options})

    return start


@pytest.fixture
def daemon(start) -> Daemon:
    return start()


@pytest.fixture
def connections() -> Iterator[Callable[[], Connection]]:
    """Make connections to park, closed at the end."""
    made: list[Connection] = []

    def make() -> Connection:
        made.append(Connection(DEFAULT_TIMEOUT * patience()))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture(params=["postfix", "postfix-legacy"])
def dialect(request) -> str:
    """Each test once with the greeting and once without: without it, only where the plain build runs as it is."""
    return request.param


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be several users")


@pytest.fixture
def built() -> Path:
    """The folder with what was built, for tests that run something of it without a daemon."""
    return launch.build_folder()


@pytest.fixture(autouse=True)
def only_what_is_asked_for(request, monkeypatch) -> None:
    """A test that does not ask for what was built cannot find it: so it is right that it runs only once."""
    if not needs_build(request.node):
        monkeypatch.setenv("SCACHED_BUILD", "/nowhere, for the test asks neither for a daemon nor for `built`")


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "plain_build: looks at something else than the daemon under test; runs once, with "
                                       "the plain build")
    config.addinivalue_line("markers", "plain_start(reason): needs a daemon that no unit starts; left out where "
                                       "systemd does")
    config.addinivalue_line("markers", "sandbox: looks at what systemd has made of the daemon; left out where it does "
                                       "not start it")


def starts_daemon(item) -> bool:
    return "make_manager" in item.fixturenames


def needs_build(item) -> bool:
    return starts_daemon(item) or "built" in item.fixturenames


def reason_to_leave_out(item) -> str:
    """Why this test has no place in this kind of run. Empty if it has."""
    def marked(name: str):
        return item.get_closest_marker(name)

    if marked("sandbox") and not is_installed():
        return "needs the installed service"
    if not is_installed() and not is_sanitized() and not wrapper():
        return ""

    # Whatever follows runs with the plain build, and so it does run.
    if is_installed() and not starts_daemon(item):
        return "starts no daemon"
    if not needs_build(item):
        return "runs nothing that was built"
    if marked("plain_build"):
        return "looks at something else than the daemon"
    if is_installed() and marked("plain_start"):
        return marked("plain_start").args[0]
    if hasattr(item, "callspec") and item.callspec.params.get("dialect") == "postfix-legacy":
        return "differs in the greeting alone from the same test of the postfix dialect"
    return ""


def is_sanitized() -> bool:
    return b"__asan_init" in binary().read_bytes()


# Workers of pytest-xdist collect, and the process that started them reports.

def pytest_collection_modifyitems(config, items) -> None:
    reasons = {item: reason_to_leave_out(item) for item in items}
    items[:] = [item for item in items if not reasons[item]]
    left_out = [item for item, reason in reasons.items() if reason]
    config.left_out = Counter(reasons[item] for item in left_out)
    config.hook.pytest_deselected(items=left_out)

    # Workers are given runs of neighbours, and the slow tests are in a few files: neighbours are of different files.
    if hasattr(config, "workerinput"):
        seen: Counter = Counter()
        places = {}
        for item in items:
            places[item] = seen[item.module]
            seen[item.module] += 1
        items.sort(key=places.get)


def pytest_sessionfinish(session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    node.config.left_out = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter, config) -> None:
    for reason, count in getattr(config, "left_out", Counter()).most_common():
        terminalreporter.write_line(f"left out: {count:3} {reason}")
