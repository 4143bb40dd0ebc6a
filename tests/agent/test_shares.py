# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shares by user: at a limit the user who holds most gives way, and others do not notice."""

from __future__ import annotations

import contextlib
import resource

import pytest

import lists
from connection import Connection, wait_until
from lists import encode
from protocol import FAIL, OK

pytestmark = pytest.mark.usefixtures("root")

ALICE, MALLORY = 21001, 21002


def test_connections(start):
    daemon = start(connection_cache_size_limit=6)
    alice, mallory = daemon.agent(uid=ALICE), daemon.agent(uid=MALLORY)
    kept = [alice.park(f"endpoint {i}", ttl=10 + i) for i in range(3)]
    theirs = [mallory.park(f"endpoint {i}", ttl=1000 + i) for i in range(50)]
    for connection in theirs[:47]:
        assert connection.wait_let_go() == b"QUIT\r\n"
    daemon.wait_line(f"evicting the entries of user {MALLORY} ")
    for i, connection in enumerate(kept):
        with alice.find_endp(f"endpoint {i}") as found:
            assert found.identity == connection.identity


def test_agents(start):
    """Also in the middle of an exchange."""
    daemon = start(agent_limit=6)
    alice = [daemon.agent(uid=ALICE) for _ in range(3)]
    alice[0].park("endpoint")
    exchange = alice[1].begin("find_endp", "endpoint").until("answered")
    theirs = [daemon.agent(uid=MALLORY) for _ in range(30)]
    for agent in theirs[:27]:
        agent.read_end("the agent of the user with most agents to be hung up on")
    daemon.wait_line(f"disconnecting the agent of user {MALLORY} ")
    exchange.finish().close()
    for agent in [*alice, *theirs[27:]]:
        agent.in_step()
    # Who has the share is among those who have most.
    newcomer = daemon.agent(uid=ALICE)
    newcomer.in_step()
    alice[0].read_end("the agent idle for longest to be hung up on")


def test_memory_of_agents(start):
    """Half requests, as large as they may be: the user who has most of them loses the first one."""
    daemon = start(agent_memory_limit="1M", request_size_limit="128K")
    half = b"request\0" + b"x" * 100000
    alice = daemon.agent(uid=ALICE)
    large = "y" * 60000
    alice.send(encode(lists.save_dest(60, "d", large, "e"))[:-1])
    theirs = [daemon.agent(uid=MALLORY) for _ in range(40)]
    for agent in theirs:
        with contextlib.suppress(OSError):
            agent.send(half)
    for agent in theirs[:30]:
        agent.read_end("the agent with half a request to be hung up on")
    daemon.wait_line("agent_memory_limit .1048576 bytes. reached")
    alice.send(b"\0")
    assert alice.read_answer(0)[0] == OK
    alice.in_step()
    with daemon.agent(uid=MALLORY) as last:
        last.in_step()


def test_descriptors_in_flight(manager):
    """Who asks and never reads finds nothing from some number on; what is not sent stays parked, and others find theirs."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s", "agent_limit": "8"},
                           rlimits={resource.RLIMIT_NOFILE: 1024})
    alice, parker = daemon.agent("native", uid=ALICE), daemon.agent("native", uid=MALLORY)
    before = daemon.count_fds()
    connections = [Connection() for _ in range(100)]
    for connection in connections:
        assert parker.save_endp_inline(3600, "endpoint", "", connection.fd) == OK
        connection.pass_on()
    greedy = [daemon.agent("native", uid=MALLORY) for _ in range(4)]
    for agent in greedy:
        for _ in range(10):
            agent.send(encode(lists.find_endp("endpoint") + [("handover", "inline")]))
    daemon.wait_line(f"of user {MALLORY}, keeping it parked")
    mine = Connection()
    for _ in range(40):
        assert alice.save_endp_inline(3600, "endpoint", "", mine.fd) == OK
        with alice.find_endp_inline("endpoint") as found:
            assert (found.status, found.identity) == (OK, mine.identity)
    alice.in_step()
    mine.close()

    # Their sockets are kept when they are disconnected, and let go of when they have read all, or hung up.
    newcomers = [daemon.agent("native", uid=MALLORY) for _ in range(8)]
    for agent in newcomers[-3:]:
        agent.in_step()
    assert newcomers[-1].find_endp_inline("endpoint").status == FAIL
    for agent in greedy:
        agent.close()
    wait_until(lambda: newcomers[-1].find_endp_inline("endpoint").status == OK, "it finds one again")
    for agent in newcomers:
        agent.close()
    parker.close()
    for connection in connections:
        connection.close()
    daemon.wait_open_fds(before - 1, 10.0)
