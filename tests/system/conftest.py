# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines for tests: a shared one, because most tests can share, and fresh ones for the others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# What agents do and what the journal says of it is the same for these tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))

from rig import Machine, MachineError, Unsupported, format_entries  # noqa: E402

JOURNAL_LINES = 100


def start(machine: Machine) -> Machine:
    try:
        machine.start()
    except Unsupported as reason:
        pytest.skip(f"cannot boot a machine here: {reason}")
    return machine


class Shared:
    """The machine of all tests that do not mind each other, booted for the first one that asks."""

    def __init__(self):
        self.machine: Machine | None = None

    def get(self) -> Machine:
        if self.machine is not None and not self.machine.alive:
            self.discard()
        if self.machine is None:
            self.machine = start(Machine())
        return self.machine

    def discard(self) -> None:
        machine, self.machine = self.machine, None
        if machine is not None:
            machine.stop()


@pytest.fixture(scope="session")
def shared_machine() -> Iterator[Shared]:
    shared = Shared()
    yield shared
    shared.discard()


@pytest.fixture
def machine(request, shared_machine: Shared) -> Iterator[Machine]:
    """The shared machine; journal functions see only what was logged since this test began.

    What a test changes there it changes for all that follow. After a failed test comes another one.
    """
    machine = shared_machine.get()
    machine.mark = machine.journal_end()
    yield machine
    machine.end_processes()
    if getattr(request.node, "has_failed", False):
        shared_machine.discard()


@pytest.fixture
def boot_machine() -> Iterator[Callable[..., Machine]]:
    """A function that boots one more machine of the test's own; takes what Machine takes."""
    with contextlib.ExitStack() as machines:
        def boot(**options) -> Machine:
            machine = start(Machine(**options))
            machines.callback(machine.stop)
            return machine

        yield boot


@pytest.fixture
def fresh_machine(boot_machine) -> Machine:
    """A machine that nobody else has used."""
    return boot_machine()


@pytest.fixture(scope="module")
def module_machine() -> Iterator[Machine]:
    """A machine for the tests of one file, of which each goes on where the last one has left it."""
    machine = start(Machine())
    yield machine
    machine.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show with a failure what its machines had to say about it."""
    report = (yield).get_result()
    if not report.failed:
        return
    item.has_failed = True
    for name, value in getattr(item, "funcargs", {}).items():
        if isinstance(value, Machine) and value.alive:
            try:
                journal = format_entries(value.journal()[-JOURNAL_LINES:])
                units = value.systemctl("list-units", "--failed", "--plain", "--no-legend").stdout
                report.sections.append((f"journal of {name}", journal))
                report.sections.append((f"failed units of {name}", units))
            except (MachineError, AssertionError, OSError) as error:
                report.sections.append((f"journal of {name}", f"cannot be read: {error}"))
