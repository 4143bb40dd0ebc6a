# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors: where they belong, where they do not, and what became of each."""

from __future__ import annotations

import fcntl
import os
import select
import socket

import pytest

import lists
from connection import Connection
from lists import DUMMY, encode
from protocol import BAD, FAIL, OK


@pytest.fixture
def agent(daemon, dialect):
    agent = daemon.agent(dialect)
    agent.in_step()  # so that its socket is among those that are counted
    return agent


def assert_closed(connection: Connection) -> None:
    """The cache has no copy of it. Once ours is gone too, the peer sees the end."""
    connection.pass_on()
    assert connection.wait_let_go() == b"", "a farewell on a connection that was never taken"
    connection.close()


@pytest.mark.parametrize("attributes, n_properties", [
    (lists.find_endp("endpoint"), 1),
    (lists.find_dest("destination"), 2),
    (lists.save_dest(600, "destination", "", "endpoint"), 0),
    (lists.save_endp(0, "endpoint", ""), 0),
    (lists.save_endp(600, "endpoint", "") + [("x", "")], 0),
    ([("request", "unknown")], 0),
    ([("request", "find_dest")], 2),
    (DUMMY, 0),
    ([], 0),
], ids=["find_endp", "find_dest", "save_dest", "save_endp with a bad ttl", "malformed save_endp",
        "unknown request", "malformed find_dest", "dummy", "empty list"])
@pytest.mark.parametrize("count", [1, 2, 253])
def test_descriptor_where_none_belongs(daemon, connections, attributes, n_properties, count):
    """Closed, and answered with status 1."""
    agent = daemon.agent()
    agent.bind("destination", "endpoint")
    parked = agent.park("endpoint")
    agent.in_step()
    before = daemon.count_fds()
    stray = [connections() for _ in range(count)]
    assert agent.request(attributes, [connection.fd for connection in stray], n_properties) == BAD
    for connection in stray:
        assert_closed(connection)
    daemon.wait_open_fds(before)
    agent.in_step()
    with agent.find_dest("destination") as found:
        assert found.identity == parked.identity, "what was parked was touched"


@pytest.mark.parametrize("count", [2, 3, 100, 253])
def test_several_descriptors_where_one_belongs(daemon, agent, connections, count):
    before = daemon.count_fds()
    several = [connections() for _ in range(count)]
    agent.begin("save_endp", 600, "endpoint", "", None).until("invited")
    agent.send(b"\0", [connection.fd for connection in several])
    assert agent.read_status() == BAD
    for connection in several:
        assert_closed(connection)
    daemon.wait_open_fds(before)
    agent.in_step()
    assert agent.find_endp("endpoint").status == FAIL


def test_several_descriptors_with_a_save_endp(daemon, agent, connections):
    several = [connections(), connections()]
    attributes = lists.save_endp(600, "endpoint", "")
    assert agent.request(attributes, [connection.fd for connection in several]) == BAD
    for connection in several:
        assert_closed(connection)
    assert agent.find_endp("endpoint").status == FAIL
    agent.in_step()


def test_no_descriptor_where_one_was_promised(agent):
    assert agent.save_endp(600, "endpoint", "", None) == FAIL
    assert agent.find_endp("endpoint").status == FAIL
    agent.in_step()


def test_exactly_one_byte_is_read_with_the_descriptor(agent, connections):
    """What is in one piece with it is the next request, not lost."""
    connection = connections()
    agent.begin("save_endp", 600, "endpoint", "", None).until("invited")
    agent.send(b"\0" + encode([("request", "unknown")]), [connection.fd])
    assert agent.read_status() == OK
    assert agent.read_status() == BAD
    agent.in_step()
    with agent.find_endp("endpoint") as found:
        assert found.identity == connection.identity


def test_the_byte_with_the_descriptor_may_be_any(agent, connections):
    connection = connections()
    agent.begin("save_endp", 600, "endpoint", "", None).until("invited")
    agent.send(b"x", [connection.fd])
    assert agent.read_status() == OK
    agent.in_step()


def test_descriptor_together_with_the_dummy_that_asks_for_one(daemon, dialect, connections):
    """It does not belong there, and what was found must not be lost over it."""
    other = daemon.agent()
    parked, stray = other.park("endpoint"), connections()
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    agent.begin("find_endp", "endpoint").until("answered")
    agent.send_list(DUMMY, [stray.fd])
    assert_closed(stray)
    agent.close()  # without having taken anything
    daemon.wait_open_fds(before)
    with other.find_endp("endpoint") as found:
        assert found.identity == parked.identity


@pytest.fixture
def not_sockets(tmp_path):
    """Descriptors whose close may block, whose poll may fail, or which are nobody's connection."""
    epoll = select.epoll()
    made = {
        "directory": os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        "/dev/null": os.open("/dev/null", os.O_RDWR),
        "file": os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT),
        "memfd": os.memfd_create("memfd"),
        "epoll": os.dup(epoll.fileno()),
        "path": os.open("/", os.O_PATH),
    }
    os.mkfifo(tmp_path / "fifo")
    made["fifo"] = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    yield made
    for fd in made.values():
        os.close(fd)


def test_only_sockets_are_taken(daemon, agent, not_sockets):
    before = daemon.count_fds()
    for name, fd in not_sockets.items():
        assert agent.save_endp(600, "endpoint", "", fd) == FAIL, name
        agent.in_step()
        assert agent.find_endp("endpoint").status == FAIL, name
        daemon.wait_open_fds(before)
    connection = agent.park("endpoint")
    with agent.find_endp("endpoint") as found:
        assert found.identity == connection.identity


def test_a_fifo_is_closed(agent):
    """As its other end sees it."""
    ours, theirs = os.pipe()
    assert agent.save_endp(600, "endpoint", "", theirs) == FAIL
    os.close(theirs)
    ready = select.poll()
    ready.register(ours, select.POLLIN)
    assert ready.poll(agent.timeout * 1000), "the cache holds a pipe"
    assert os.read(ours, 1) == b""
    os.close(ours)


@pytest.mark.parametrize("kind", ["agent's own", "other agent's", "listening", "unconnected",
                                  "datagram"])
def test_sockets_that_are_no_connections(daemon, kind):
    """Taken or refused, they do no harm."""
    before = daemon.count_fds()
    agent, other = daemon.agent(), daemon.agent()
    made = socket.socket(type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
    fd = {"agent's own": agent.socket, "other agent's": other.socket,
          "listening": daemon.manager.listener("postfix")}.get(kind, made).fileno()
    assert agent.save_endp(600, "endpoint", "", fd) in (OK, FAIL)
    made.close()
    for any_agent in (agent, other):
        any_agent.in_step()
        any_agent.find_endp("endpoint").close()
        any_agent.in_step()
    agent.close()
    other.close()
    daemon.wait_open_fds(before)


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK])
def test_flags_are_left_alone(agent, connections, flags):
    """They are shared with the agent that saved it and with the one that finds it."""
    connection = connections()
    fcntl.fcntl(connection.fd, fcntl.F_SETFL, flags)
    wanted = fcntl.fcntl(connection.fd, fcntl.F_GETFL)
    assert agent.save_endp(600, "endpoint", "", connection.fd) == OK
    assert fcntl.fcntl(connection.fd, fcntl.F_GETFL) == wanted
    with agent.find_endp("endpoint") as found:
        assert fcntl.fcntl(connection.fd, fcntl.F_GETFL) == wanted
        assert fcntl.fcntl(found.fd, fcntl.F_GETFL) == wanted


def test_a_found_connection_is_not_kept(daemon, agent):
    """When the agent closes it, the peer sees the end: there is no copy left in the cache."""
    for last_dummy in ("send", "never"):
        connection = agent.park("endpoint")
        agent.find_endp("endpoint", last_dummy=last_dummy).close()
        if last_dummy == "never":
            agent.in_step()
        assert connection.wait_let_go() == b""


def test_the_same_socket_saved_twice(daemon, agent, connections):
    """An agent may keep a copy and save it again. It is parked once, as by the last save."""
    agent.in_step()
    before = daemon.count_fds()
    connection, other = connections(), connections()
    assert agent.save_endp(600, "endpoint", "one", connection.fd) == OK
    assert agent.save_endp(600, "endpoint", "two", other.fd) == OK
    for name in ("three", "four"):
        assert agent.save_endp(600, "endpoint", name, connection.fd) == OK
    daemon.wait_open_fds(before + 2)
    for name, identity in ((b"two", other.identity), (b"four", connection.identity)):
        with agent.find_endp("endpoint") as found:
            assert tuple(found) == (OK, (name,), identity)
            assert next(each for each in (connection, other) if each.identity == identity).works(found.fd)
    assert agent.find_endp("endpoint").status == FAIL


def test_a_socket_saved_again_while_it_is_promised(daemon, connections):
    """It was found by another agent, which then does not want it: it does not come back, and nobody tells its peer goodbye."""
    agent, finder = daemon.agent(), daemon.agent()
    connection = connections()
    assert agent.save_endp(600, "endpoint", "one", connection.fd) == OK
    finder.begin("find_endp", "endpoint").until("answered")
    assert agent.save_endp(600, "endpoint", "two", connection.fd) == OK
    finder.close()
    agent.in_step()
    with agent.find_endp("endpoint") as found:
        assert tuple(found) == (OK, (b"two",), connection.identity)
        assert connection.works(found.fd)
    assert agent.find_endp("endpoint").status == FAIL


def test_open_descriptors_return_to_their_start(daemon, dialect, connections):
    """After a busy time, with everything found and everybody gone."""
    before = daemon.count_fds()
    agents = [daemon.agent(dialect) for _ in range(5)]
    for i in range(200):
        agent = agents[i % 5]
        agent.bind(f"destination {i % 7}", f"endpoint {i % 11}")
        agent.park(f"endpoint {i % 11}")
        if i % 3 == 0:
            agent.find_dest(f"destination {i % 7}").close()
        if i % 10 == 0:
            stray = connections()
            assert agent.request([("request", "unknown")], [stray.fd]) == BAD
    for i in range(11):
        while agents[0].find_endp(f"endpoint {i}").status == OK:
            pass
    for agent in agents:
        agent.close()
    daemon.wait_open_fds(before)
