"""Fixtures for tests that need nothing but the built daemon."""

from __future__ import annotations

import os
from typing import Callable, Iterator

import pytest

import launch
from connection import DEFAULT_TIMEOUT, Connection
from daemon import Daemon
from launch import ServiceManager, binary, patience

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
        managers.append(ServiceManager(**how))
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


def pytest_collection_modifyitems(config, items) -> None:
    if b"__asan_init" not in binary().read_bytes():
        return
    left_out = [item for item in items if item.get_closest_marker("plain_build")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
