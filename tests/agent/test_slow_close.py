# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors whose close(2) waits for as long as their sender likes: nobody else does, and there
can never be many of them."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess

import pytest

import lists
from connection import Connection, wait_until
from daemon import die_with_parent
from protocol import BAD, FAIL, OK
from slow_file import SlowFile

# scached/disposal.h; one more if two come at once for the last place.
DISPOSAL_MAX = 32

USER = 30000 + os.getpid() % 10000  # nobody's, so that its processes are only ours


@pytest.fixture
def slow():
    with SlowFile() as file:
        if file.unavailable:
            pytest.skip(f"no file system of our own here: {file.unavailable}")
        yield file


def wait_held(slow, count: int) -> None:
    wait_until(lambda: slow.held() == count, f"{count} closes that wait", 10.0)


def assert_served(daemon, *agents) -> None:
    """Old agents and new ones."""
    for agent in agents:
        agent.in_step()
    with daemon.agent() as newcomer:
        connection = newcomer.park("served")
        with newcomer.find_endp("served") as found:
            assert found.identity == connection.identity


def fill(slow, agent) -> None:
    """As many as are taken, and some more."""
    for _ in range(DISPOSAL_MAX + 5):
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    wait_held(slow, DISPOSAL_MAX)


def test_such_a_close_does_wait(slow):
    """Else the tests below would show nothing."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        theirs.recv(1)
        os.close(slow.fd)
        os._exit(0)
    slow.hold(pid)
    ours.send(b"g")
    wait_held(slow, 1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    slow.release()
    assert os.waitpid(pid, 0) == (pid, 0)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("how", ["to save", "in one trip", "with a find", "two at once", "with a socket",
                                 "after the first", "with half a list", "with the dummy"])
def test_others_are_served(daemon, slow, how):
    agent, other = daemon.agent(), daemon.agent()
    other.park("endpoint")
    other.in_step()
    before = daemon.count_fds()
    slow.hold(daemon.pid)
    count = 1
    if how == "to save":
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    elif how == "in one trip":
        assert agent.save_endp_inline(600, "slow", "", slow.fd) == FAIL
    elif how == "with a find":
        assert agent.request(lists.find_endp("endpoint"), [slow.fd], 1) == BAD
    elif how == "two at once":
        assert agent.request(lists.find_endp("endpoint"), [slow.fd] * 2, 1) == BAD
        count = 2
    elif how == "with a socket":
        with socket.socket() as end:
            assert agent.request(lists.save_endp(600, "slow", ""), [end.fileno(), slow.fd]) == BAD
    elif how == "after the first":
        agent.send(b"request\0", [slow.fd])
        agent.send(b"find_endp\0", [slow.fd])
        agent.send(b"label\0endpoint\0\0")
        assert agent.read_answer(1)[0] == BAD
        count = 2
    elif how == "with half a list":
        agent.send(b"request\0", [slow.fd])
    else:
        agent.begin("find_endp", "endpoint").until("answered")
        agent.send_list([("dummy", "")], [slow.fd])
        assert agent.read_status() == BAD
    wait_held(slow, count)
    assert_served(daemon, other)
    agent.close()
    assert_served(daemon, other)
    assert slow.held() == count
    slow.release()
    with other.find_endp("endpoint") as found:
        assert found.status == OK
    daemon.wait_open_fds(before - 2)


def test_too_many(daemon, slow):
    """No more descriptors are taken, of nobody; all else is as ever."""
    agent, other = daemon.agent(), daemon.agent()
    for i in range(3):
        other.park(f"endpoint {i}")
    other.bind("destination", "endpoint 0")
    other.in_step()
    before = daemon.count_fds()
    slow.hold(daemon.pid)
    fill(slow, agent)
    connection = Connection(other.timeout)
    for _ in range(5):
        assert other.save_endp(600, "refused", "", connection.fd) == FAIL
        assert other.save_endp_inline(600, "refused", "", connection.fd) == FAIL
        assert other.save(600, "refused", "", "refused", "", connection.fd) == FAIL
        assert agent.request(lists.find_endp("endpoint 0"), [slow.fd], 1) == BAD
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    daemon.wait_line("too many descriptors")
    other.bind("another", "endpoint 1")
    assert slow.held() == DISPOSAL_MAX
    for found in (other.find_dest("destination"), other.find_dest("another"),
                  other.find_endp("endpoint 2")):
        assert found.status == OK, "what is parked makes no room"
        found.close()
    assert other.find_endp("refused").status == FAIL
    agent.in_step()

    slow.release()
    wait_until(lambda: other.save_endp(600, "accepted", "", connection.fd) == OK,
               "descriptors are taken again", 10.0)
    with other.find_endp("accepted") as found:
        assert found.identity == connection.identity
    connection.close()
    daemon.wait_open_fds(before - 3)


def test_collected_by_many(daemon, slow):
    """Agents that each leave one with half a request, and all go at once."""
    other = daemon.agent()
    other.in_step()
    before = daemon.count_fds()
    slow.hold(daemon.pid)
    agents = [daemon.agent() for _ in range(3 * DISPOSAL_MAX)]
    for agent in agents:
        agent.send(b"request\0", [slow.fd])
    wait_held(slow, DISPOSAL_MAX)
    for agent in agents:
        agent.close()
    daemon.wait_open_fds(before)
    other.in_step()
    assert slow.held() == DISPOSAL_MAX
    slow.release()
    wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/task")) == 1, "the closes have ended", 10.0)
    assert_served(daemon, other)


@pytest.mark.plain_start("starts a process before the last one has ended")
def test_leaving(manager, slow):
    """What is parked is kept, and the next process serves, however long this one takes to go."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    agent = daemon.agent()
    connection = agent.park("endpoint")
    slow.hold(daemon.pid)
    fill(slow, agent)
    daemon.kill(signal.SIGTERM)
    agent.read_end()
    daemon.wait_line("Kept 1 connection and")
    successor = manager.start({"connection_cache_ttl_limit": "3600s"})
    with successor.agent().find_endp("endpoint") as found:
        assert found.identity == connection.identity
    assert slow.held() >= DISPOSAL_MAX
    slow.release()
    assert daemon.wait_exit(10.0) == 0
    daemon.check(0)


@pytest.mark.plain_start("starts the daemon as a user that has few processes left")
def test_without_threads(manager, slow, root, request):
    """What cannot be closed waits, and nothing joins it until it can be."""
    daemon = manager.start(uid=USER, gid=USER, rlimits={resource.RLIMIT_NPROC: 3})
    others = [subprocess.Popen(["sleep", "1000"], user=USER, group=USER, preexec_fn=die_with_parent)
              for _ in range(2)]
    request.addfinalizer(lambda: [process.kill() for process in others])
    agent = daemon.agent()
    agent.park("endpoint")
    agent.in_step()
    before = daemon.count_fds()
    slow.hold(daemon.pid)
    assert agent.request(lists.find_endp("endpoint"), [slow.fd] * 2, 1) == BAD
    connection = Connection(agent.timeout)
    for _ in range(5):
        assert agent.save_endp(600, "refused", "", connection.fd) == FAIL
    assert daemon.count_fds() == before + 2
    assert slow.held() == 0
    for process in others:
        process.kill()
        process.wait()
    assert agent.save_endp(600, "accepted", "", connection.fd) == OK
    wait_held(slow, 2)
    connection.close()
    slow.release()
    agent.find_endp("accepted").close()
    daemon.wait_open_fds(before)
    with agent.find_endp("endpoint") as found:
        assert found.status == OK
