# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors that are sent to do harm: whatever becomes of them, every later request is answered in
the usual time."""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import signal
import socket
import struct
import time

import pytest

import lists
from connection import Connection
from lists import encode
from protocol import BAD, FAIL, OK
from stuffed import LINGER, RESET, Stuffed

SO_TIMESTAMPING = 37


def usual_time(daemon) -> float:
    """Less than any close(2) that waits takes, and more than a busy machine needs."""
    return 2.0 * daemon.patience


def assert_usual(daemon, *agents) -> None:
    """Old agents and new ones are served in the usual time."""
    started = time.monotonic()
    for agent in agents:
        agent.in_step()
    with daemon.agent() as newcomer:
        connection = newcomer.park("usual")
        with newcomer.find_endp("usual") as found:
            assert found.identity == connection.identity
    took = time.monotonic() - started
    assert took < usual_time(daemon), f"{took:.1f} s for a few requests"


@pytest.fixture
def stuffed():
    made: list[Stuffed] = []

    def make() -> Stuffed:
        made.append(Stuffed())
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_such_a_close_does_wait(stuffed):
    """Else the tests below would show nothing."""
    connection = stuffed()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        theirs.recv(1)
        connection.end.close()
        os._exit(0)
    connection.pass_on()
    ours.send(b"g")
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        assert not ended.poll(300), "it was closed at once"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pidfd)
        ours.close()
        theirs.close()


@pytest.mark.parametrize("end", ["expiry", "eviction", "hand-over", "stop", "death"])
@pytest.mark.parametrize("dialect", ["postfix", "native"])
def test_lingering(start, stuffed, dialect, end):
    """At every end that a parked connection may come to."""
    daemon = start(connection_cache_size_limit=5)
    agent, other = daemon.agent(dialect), daemon.agent()
    made = [stuffed() for _ in range(3)]
    before = daemon.count_fds()
    for i, connection in enumerate(made):
        assert agent.save_endp(1 if end == "expiry" else 60 + i, "endpoint", "",
                               connection.end.fileno()) == OK
        if end != "hand-over":
            connection.pass_on()
    if end == "eviction":
        for i in range(6):
            other.park(f"newcomer {i}", ttl=3000)
        for newcomer in other.parked:
            newcomer.close()
    elif end == "hand-over":
        for connection in made:
            with other.find_endp("endpoint") as found:
                assert found.status == OK
                connection.pass_on()
                # Linger is gone: ours is the last copy, and its close must not wait either.
                linger = socket.socket(fileno=os.dup(found.fd))
                linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                linger.close()
    elif end == "death":
        for connection in made:
            connection.peer.sendall(b"421 bye\r\n")
    elif end == "stop":
        started = time.monotonic()
        daemon.manager.store_max = 0
        daemon.stop()
        assert time.monotonic() - started < 3 * usual_time(daemon)
        return
    if end == "expiry":
        daemon.wait_open_fds(before, 10.0)
    assert_usual(daemon, agent, other)
    daemon.wait_open_fds(before, 10.0)


@pytest.mark.parametrize("how", ["with a find", "two at once", "after the first", "with half a list",
                                 "with a bad save_endp", "with the dummy"])
def test_lingering_where_none_belongs(daemon, stuffed, how):
    """Refused, with nobody but the daemon holding it any more."""
    agent, other = daemon.agent(), daemon.agent()
    other.park("endpoint")
    before = daemon.count_fds()
    several = how in ("two at once", "after the first")
    made = [stuffed() for _ in range(1 + several)]
    fds = [connection.end.fileno() for connection in made]
    if how == "with a find":
        agent.send_list(lists.find_endp("endpoint"), fds[:1])
    elif how == "two at once":
        agent.send_list(lists.find_endp("endpoint"), fds)
    elif how == "after the first":
        agent.send(b"request\0", fds[:1])
        agent.send(b"find_endp\0", fds[1:])
        agent.send(b"label\0endpoint\0\0")
    elif how == "with half a list":
        agent.send(b"request\0", fds[:1])
    elif how == "with a bad save_endp":
        agent.send_list(lists.save_endp(0, "endpoint", ""), fds[:1])
    else:
        agent.begin("find_endp", "endpoint").until("answered")
        agent.send_list([("dummy", "")], fds[:1])
    for connection in made:
        connection.pass_on()
    assert_usual(daemon, other)
    agent.close()
    assert_usual(daemon, other)
    with other.find_endp("endpoint") as found:
        assert found.status == OK
    daemon.wait_open_fds(before - 2)


def test_a_linger_set_later(daemon, stuffed):
    """Who holds the socket, too, may set it while it is parked."""
    agent = daemon.agent("native")
    before = daemon.count_fds()
    connection = stuffed()
    connection.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    assert agent.save_endp(1, "endpoint", "", connection.end.fileno()) == OK
    connection.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    connection.pass_on()
    daemon.wait_open_fds(before, 10.0)
    assert_usual(daemon, agent)


def test_errors_that_stay_do_not_keep_it_busy(daemon):
    """A farewell whose time stamp waits in the queue for errors, where nobody fetches it."""
    agent = daemon.agent()
    before = daemon.count_fds()
    with socket.create_server(("127.0.0.1", 0)) as server:
        end = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    # SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
    end.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 2 | 16)
    assert agent.save_endp(1, "endpoint", "", end.fileno()) == OK
    end.close()
    assert peer.recv(64) == b"QUIT\r\n"
    used = daemon.cpu_seconds()
    time.sleep(0.5)
    assert daemon.cpu_seconds() - used < 0.05
    peer.close()
    daemon.wait_open_fds(before, 10.0)
    assert_usual(daemon, agent)


def test_a_peer_that_answers_a_farewell_without_end(daemon):
    """It is not listened to for ever."""
    agent = daemon.agent()
    before = daemon.count_fds()
    connection = agent.park("endpoint", ttl=1)
    assert connection.wait_let_go() == b"QUIT\r\n"
    deadline = time.monotonic() + 20.0 * daemon.patience
    connection.peer.settimeout(20.0 * daemon.patience)
    try:
        while time.monotonic() < deadline:
            connection.peer.sendall(b"250-more\r\n" * 100)
            agent.in_step()
        pytest.fail("still listened to")
    except (BrokenPipeError, ConnectionResetError):
        pass
    daemon.wait_open_fds(before)


def test_an_agents_socket_and_the_listening_one(daemon):
    """Sent back, parked, spoken to, and dropped: they serve on."""
    agent, other = daemon.agent(), daemon.agent()
    before = daemon.count_fds()
    listener = daemon.manager.listener("postfix")
    for fd in (agent.socket.fileno(), other.socket.fileno(), listener.fileno()):
        for _ in range(3):
            assert agent.save_endp(600, "own", "", fd) in (OK, FAIL)
            agent.in_step()
            assert_usual(daemon, other)
    while agent.find_endp("own").status == OK:
        pass
    assert_usual(daemon, agent, other)
    daemon.wait_open_fds(before)


def test_a_farewell_to_itself(daemon):
    """The goodbye on an agent's own socket, when it has been parked there, comes to the daemon as if
    that agent had said it."""
    agent, other = daemon.agent(), daemon.agent()
    before = daemon.count_fds()
    assert agent.save_endp(1, "own", "", agent.socket.fileno()) == OK
    agent.close()
    daemon.wait_open_fds(before - 1, 15.0)
    assert_usual(daemon, other)


def test_sockets_sent_over_themselves(daemon):
    """Descriptors in flight that refer to each other in a circle are the kernel's to collect."""
    agent = daemon.agent()
    before = daemon.count_fds()
    for i in range(50):
        one, two = socket.socketpair()
        socket.send_fds(one, [b"x"], [one.fileno(), two.fileno()])
        socket.send_fds(two, [b"x"], [one.fileno(), two.fileno(), agent.socket.fileno()])
        assert agent.save_endp(600, f"cycle {i}", "", one.fileno()) == OK
        agent.save_endp(600, f"cycle {i}", "", two.fileno())
        one.close()
        two.close()
        agent.in_step()
    assert_usual(daemon, agent)
    for i in range(50):
        while agent.find_endp(f"cycle {i}").status == OK:
            pass
    daemon.wait_open_fds(before)


def test_everything_that_is_no_socket_at_its_worst(daemon, tmp_path):
    """Two hundred of each: their close must not be felt either."""
    os.mkfifo(tmp_path / "fifo")
    epoll, inner = select.epoll(), select.epoll()
    inner.register(epoll.fileno(), select.EPOLLIN)
    made = [os.open(tmp_path / "fifo", os.O_RDWR), os.open("/", os.O_RDONLY | os.O_DIRECTORY),
            os.open("/dev/null", os.O_RDWR), os.dup(inner.fileno()),
            os.open("/proc/self/mem", os.O_RDONLY), os.pidfd_open(os.getpid()),
            os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)]
    if hasattr(os, "eventfd"):  # in Python from 3.10 on
        made.append(os.eventfd(0))
    agent, other = daemon.agent(), daemon.agent()
    other.in_step()
    before = daemon.count_fds()
    for _ in range(200):
        for fd in made:
            assert agent.save_endp(600, "endpoint", "", fd) == FAIL
    assert agent.request(lists.find_endp("endpoint"),
                         list(itertools.islice(itertools.cycle(made), 253)), 1) == BAD
    for fd in made:
        os.close(fd)
    other.in_step()
    daemon.wait_open_fds(before)
    assert_usual(daemon, agent, other)


@pytest.mark.parametrize("flags", [0, os.O_NONBLOCK])
def test_flags_after_every_way_out(start, flags):
    """O_NONBLOCK is as it was, when it is found, has come back from an agent, or was let go."""
    daemon = start(connection_cache_size_limit=2)
    agent = daemon.agent()
    kept = []
    for i in range(4):
        connection = Connection(agent.timeout)
        fcntl.fcntl(connection.fd, fcntl.F_SETFL, flags)
        kept.append((connection, fcntl.fcntl(connection.fd, fcntl.F_GETFL)))
        assert agent.save_endp(100 + i, f"endpoint {i}", "", connection.fd) == OK
    before = daemon.count_fds()
    vanishing = daemon.agent()
    vanishing.begin("find_endp", "endpoint 3").until("answered")
    vanishing.close()
    daemon.wait_open_fds(before)
    agent.find_endp("endpoint 3").close()
    for connection, wanted in kept:
        assert fcntl.fcntl(connection.fd, fcntl.F_GETFL) == wanted
        connection.close()


def test_a_flood_of_descriptors(daemon):
    """253 in each of many messages that are no lists: all closed, and the agent is cut off in the
    end or answered."""
    other, agent = daemon.agent(), daemon.agent()
    other.in_step()
    before = daemon.count_fds()
    with open("/dev/null", "rb") as null:
        for _ in range(100):
            agent.send(b"x", [null.fileno()] * 253)
    other.in_step()
    daemon.wait_open_fds(before)  # and no descriptor is declined any more
    assert_usual(daemon, other)
    agent.send(encode() * 3)
    assert agent.read_status() == BAD
    agent.close()
    daemon.wait_open_fds(before - 1)
