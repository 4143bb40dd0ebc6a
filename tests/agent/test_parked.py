# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections while they are parked: how long they live, and what they may not do."""

from __future__ import annotations

import socket
import struct
import time

import pytest

import lists
from connection import identity
from protocol import FAIL, OK, Agent


@pytest.fixture
def agent(daemon):
    return daemon.agent()


def outlive_a_second() -> None:
    """What was saved for one second until now has come to its end."""
    time.sleep(1.1)


# How long they live. Lower bounds are exact; upper bounds are generous, for machines with other
# things to do.

def test_a_connection_lives_as_long_as_it_was_saved_for(agent):
    start = time.monotonic()
    connection = agent.park("endpoint", ttl=2)
    longer = agent.park("endpoint", ttl=600)
    connection.wait_let_go(10.0)
    assert time.monotonic() - start >= 1.9
    with agent.find_endp("endpoint") as found:
        assert found.identity == longer.identity


def test_no_longer_than_the_limit(start):
    daemon = start(connection_cache_ttl_limit="1s")
    agent = daemon.agent()
    agent.in_step()
    before = daemon.count_fds()
    began = time.monotonic()
    connections = [agent.park("endpoint", ttl=ttl) for ttl in (600, "4294967296", "9" * 100)]
    agent.bind("destination", "endpoint", ttl=600)
    for connection in connections:
        connection.wait_let_go(10.0)
        connection.peer.close()
    assert time.monotonic() - began >= 0.9
    daemon.wait_open_fds(before, 10.0)
    assert agent.find_endp("endpoint").status == FAIL


def test_a_binding_lives_as_long_as_it_was_saved_for(agent):
    agent.bind("destination", "endpoint", "short", ttl=1)
    agent.bind("destination", "endpoint", "long", ttl=600)
    agent.bind("other", "endpoint", ttl=1)
    connection = agent.park("endpoint")
    outlive_a_second()
    assert agent.find_dest("other").status == FAIL
    with agent.find_dest("destination") as found:
        assert tuple(found) == (OK, (b"long", b""), connection.identity)


def test_saving_a_binding_again_renews_it(agent):
    agent.bind("for longer", "endpoint", "property", ttl=1)
    agent.bind("for longer", "endpoint", "property", ttl=600)
    agent.bind("for shorter", "endpoint", "property", ttl=600)
    agent.bind("for shorter", "endpoint", "property", ttl=1)
    connection = agent.park("endpoint")
    outlive_a_second()
    assert agent.find_dest("for shorter").status == FAIL
    with agent.find_dest("for longer") as found:
        assert found.identity == connection.identity


def test_a_renewed_binding_that_had_ended_begins_anew(agent):
    """At the end of the line, that is."""
    agent.bind("destination", "first", ttl=1)
    agent.bind("destination", "second", ttl=600)
    outlive_a_second()
    agent.bind("destination", "first", ttl=600)
    wanted = [agent.park("second"), agent.park("first")]
    for connection in wanted:
        with agent.find_dest("destination") as found:
            assert found.identity == connection.identity


def test_an_expired_connection_does_not_block_the_one_behind_it(agent):
    """Deadlines need not be in the order of the line."""
    parked = [agent.park("endpoint", ttl=ttl) for ttl in (1, 600, 1, 600, 1)]
    agent.bind("destination", "endpoint")
    outlive_a_second()
    for connection in (parked[1], parked[3]):
        with agent.find_dest("destination") as found:
            assert found.identity == connection.identity
    assert agent.find_dest("destination").status == FAIL


def test_not_found_in_the_moment_of_its_end(daemon, agent):
    """Even if the find is read before the clock: the end came first."""
    agent.bind("bound for long", "parked for long")
    agent.bind("bound for long", "parked for a second")
    agent.bind("bound for a second", "parked for long", ttl=1)
    agent.park("parked for a second", ttl=1)
    daemon.suspend()
    outlive_a_second()
    for label in ("bound for long", "bound for a second"):
        agent.send_list(lists.find_dest(label))
    agent.send_list(lists.find_endp("parked for a second"))
    daemon.resume()
    assert agent.read_answer(2)[0] == FAIL
    assert agent.read_answer(2)[0] == FAIL
    assert agent.read_answer(1)[0] == FAIL


# What they may not do: hang up, or say anything.

def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def speak(peer: socket.socket) -> None:
    peer.sendall(b"421 going down\r\n")


def half_close(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair], ids=["unix", "tcp"])
@pytest.mark.parametrize("event", [socket.socket.close, half_close, reset, speak],
                         ids=["closes", "half-closes", "resets", "speaks"])
def test_a_peer_that_does_anything(daemon, dialect, pair, event):
    """Its connection leaves the cache at once and by itself, and the next one is found in its
    place."""
    agent = daemon.agent(dialect)
    agent.in_step()
    before = daemon.count_fds()
    ends = [pair() for _ in range(3)]
    for i, (end, _) in enumerate(ends):
        assert agent.save_endp(600, "endpoint", str(i), end.fileno()) == OK
    wanted = identity(ends[2][0].fileno())
    for end, _ in ends:
        end.close()
    daemon.wait_open_fds(before + 3)
    event(ends[0][1])
    event(ends[1][1])
    daemon.wait_open_fds(before + 1)
    with agent.find_endp("endpoint") as found:
        assert tuple(found) == (OK, (b"2",), wanted)
    assert agent.find_endp("endpoint").status == FAIL
    for _, peer in ends:
        peer.close()


@pytest.mark.parametrize("event", [socket.socket.close, speak], ids=["closed", "spoke"])
def test_dead_when_it_was_saved(daemon, dialect, event):
    agent = daemon.agent(dialect)
    agent.in_step()
    before = daemon.count_fds()
    end, peer = socket.socketpair()
    event(peer)
    assert agent.save_endp(600, "endpoint", "", end.fileno()) == OK
    end.close()
    assert agent.find_endp("endpoint").status == FAIL
    daemon.wait_open_fds(before)
    peer.close()


@pytest.mark.parametrize("event", [socket.socket.close, speak], ids=["closes", "speaks"])
def test_never_found_dead(agent, event):
    """Not even in the moment after: the find comes right behind what the peer did."""
    for _ in range(50):
        connection = agent.park("endpoint")
        event(connection.peer)
        assert agent.find_endp("endpoint").status == FAIL


def test_dying_between_found_and_fetched(daemon, dialect):
    """A connection may die in an agent's hands at any time. But this one does not come back."""
    agent, other = daemon.agent(dialect), daemon.agent(dialect)
    connection = agent.park("endpoint")
    before = daemon.count_fds()
    agent.begin("find_endp", "endpoint").until("answered")
    connection.peer.close()
    agent.close()
    daemon.wait_open_fds(before - 2)
    assert other.find_endp("endpoint").status == FAIL


def test_what_is_found_can_speak_again(agent: Agent):
    """Once it was handed over, the cache does not look at it any more."""
    connection = agent.park("endpoint")
    with agent.find_endp("endpoint") as found:
        connection.peer.sendall(b"250 ok\r\n")
        agent.in_step()
        end = socket.socket(fileno=found.detach())
        assert end.recv(100) == b"250 ok\r\n"
        end.close()
