# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures for tests that need nothing but the built daemon."""

from __future__ import annotations

import os
from collections import Counter
from typing import Callable, Iterator

import pytest

import launch
from booted import BootedManager
from connection import DEFAULT_TIMEOUT, Connection
from daemon import Daemon
from launch import ServiceManager, binary, is_installed, patience

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
    """Each test once with the greeting and once without."""
    return request.param


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be several users")


def pytest_configure(config) -> None:
    config.addinivalue_line("markers", "plain_build: looks at the plain build, whatever the one under test; left out "
                                       "where that has sanitizers")
    config.addinivalue_line("markers", "plain_start(reason): needs a daemon that no unit starts; left out where "
                                       "systemd does")
    config.addinivalue_line("markers", "sandbox: looks at what systemd has made of the daemon; left out where it does "
                                       "not start it")


def reason_to_leave_out(item) -> str:
    """Why this test has no place in this kind of run. Empty if it has."""
    def marked(name: str):
        return item.get_closest_marker(name)

    if is_installed():
        if "make_manager" not in item.fixturenames:
            return "starts no daemon"
        return marked("plain_start").args[0] if marked("plain_start") else ""
    if marked("sandbox"):
        return "needs the installed service"
    return "needs the plain build" if marked("plain_build") and is_sanitized() else ""


def is_sanitized() -> bool:
    return b"__asan_init" in binary().read_bytes()


def pytest_collection_modifyitems(config, items) -> None:
    reasons = {item: reason_to_leave_out(item) for item in items}
    items[:] = [item for item in items if not reasons[item]]
    left_out = [item for item, reason in reasons.items() if reason]
    config.left_out = Counter(reasons[item] for item in left_out)
    config.hook.pytest_deselected(items=left_out)
    # SCACHED_SHARE=1/3: the second of three processes that share all tests.
    number, _, of = os.environ.get("SCACHED_SHARE", "0/1").partition("/")
    items[:] = items[int(number)::int(of)]


def pytest_report_collectionfinish(config) -> list[str]:
    return [f"left out: {count:3} {reason}" for reason, count in config.left_out.most_common()]
