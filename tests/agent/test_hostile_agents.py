# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an agent means harm with, and other users' agents beside it: they do not notice.

Each row of attacks.py that needs no booted machine, by its name: pytest -k linger-queue. The installed service has the same and
more in tests/system/test_hostile.py."""

from __future__ import annotations

import contextlib
import resource
from typing import Callable, Iterator

import pytest

from hostile import ALICE, FLOOD_RATIO, MALLORY, Program, check, compare, prefer, start_here
from protocol import FAIL, OK

pytestmark = [pytest.mark.usefixtures("root"),
              pytest.mark.plain_build,
              pytest.mark.plain_start("has its like in tests/system")]

DAEMON_USER = ALICE + 2
LINGERS = ["linger-overflow", "linger-queue", "linger-endless", "linger-unread", "linger-nested-once",
           "linger-nested-twice", "linger-listening"]


@pytest.fixture
def bystander(request) -> Iterator[Callable[..., Program]]:
    """An agent of Alice's: bystander(daemon)."""
    with contextlib.ExitStack() as stack:
        def begin(daemon) -> Program:
            prefer(daemon.pid)
            program = stack.enter_context(
                Program(start_here, "bystander.py", daemon.path("native"), f"--uid={ALICE}"))
            prefer(program.process.pid)
            return program

        yield begin


@pytest.fixture
def attack() -> Iterator[Callable[..., Program]]:
    """An attack by Mallory: attack(daemon, "linger-queue")."""
    with contextlib.ExitStack() as stack:
        def begin(daemon, name: str, *arguments: str, dialect: str = "native") -> Program:
            return stack.enter_context(Program(start_here, "attacks.py", name, daemon.path(dialect), f"--uid={MALLORY}",
                                               f"--dialect={dialect}", *arguments))

        yield begin


@pytest.mark.parametrize("name", LINGERS)
def test_lingering(daemon, bystander, attack, name):
    """What lingers, however hidden."""
    check(compare(bystander(daemon), attack(daemon, name)))


def test_linger_farewell(daemon, bystander, attack):
    """What lingers, as an answer to a farewell."""
    mallory = attack(daemon, "linger-farewell", dialect="postfix")

    def strike() -> None:
        daemon.suspend()
        assert mallory.ask("strike") == {"asked": True}
        daemon.resume()

    check(compare(bystander(daemon), mallory, rounds=2, strike=strike))


def test_slow_closes(daemon, bystander, attack):
    comparison = compare(bystander(daemon), attack(daemon, "slow-closes"))
    if "skip" in comparison.told:
        pytest.skip(comparison.told["skip"])
    assert comparison.told["held"] > 0
    check(comparison)


def test_in_flight(manager, bystander, attack):
    """As a user that may have no more descriptors in flight than its limit says."""
    daemon = manager.start({"connection_cache_ttl_limit": "1h"}, uid=DAEMON_USER, gid=DAEMON_USER,
                           rlimits={resource.RLIMIT_NOFILE: 1024})
    check(compare(bystander(daemon), attack(daemon, "in-flight", "--count=20"), seconds=0.4))


@pytest.mark.parametrize("measure", ["measure", "connect"])
def test_flood(start, bystander, attack, measure):
    """Connects, 7,000 a second: agents that are connected do not notice, and others get in."""
    daemon = start(agent_limit=500)
    check(compare(bystander(daemon), attack(daemon, "flood"), FLOOD_RATIO, seconds=0.4, measure=measure), FLOOD_RATIO)


def test_fill(start, bystander, attack):
    """The cache is filled to its limit: what others have parked stays."""
    daemon = start(connection_cache_size_limit=600)
    alice = bystander(daemon)
    alice.ask("park 200")
    check(compare(alice, attack(daemon, "fill", "--count=1500"), rounds=2))
    assert alice.ask("kept") == {"kept": 200}


def test_half_requests(start, bystander, attack):
    """Memory, beside the waits: what agents have sent and not ended is within what the settings allow."""
    limit = 4 << 20
    daemon = start(connection_cache_memory_limit=limit)
    alice = bystander(daemon)
    mallory = attack(daemon, "half-requests", "--count=500")
    before = daemon.resident_bytes()
    mallory.ask("begin")
    grown = daemon.resident_bytes() - before
    mallory.ask("end")
    check(compare(alice, mallory, rounds=2))
    assert grown < limit + (8 << 20), f"{grown >> 20} MiB more"


def test_own_socket(daemon, bystander, attack):
    """Parked over and over by another agent, while its owner talks on."""
    check(compare(bystander(daemon), attack(daemon, "own-socket")))


def test_one_socket_once(daemon, connections):
    """Saved again by the same user it replaces the former entry, as a new save; by another user it is refused."""
    agent, other = daemon.agent("native", uid=MALLORY), daemon.agent("native", uid=ALICE)
    agent.in_step(), other.in_step()
    before = daemon.count_fds()
    connection = connections()
    for i in range(50):
        assert agent.save_endp_inline(600, f"label {i}", "", connection.fd) == OK
        assert agent.save_endp(600, f"label {i}", "again", connection.fd) == OK
    assert other.save_endp_inline(600, "label", "", connection.fd) == FAIL
    daemon.wait_line(f"user {ALICE}")
    daemon.wait_open_fds(before + 1)
    for i in range(49):
        assert agent.find_endp(f"label {i}").status == FAIL
    with agent.find_endp("label 49") as found:
        assert (found.status, found.properties, found.identity) == (OK, (b"again",), connection.identity)
    assert agent.find_endp("label 49").status == FAIL
    # It is nobody's any more.
    assert other.save_endp_inline(600, "label", "", connection.fd) == OK
