# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors whose close(2) waits for as long as their sender likes: nobody else does, of whatever
user."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

import lists
from connection import wait_until
from protocol import BAD, FAIL, OK
from slow_file import SlowFile


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
    if how == "to save":
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    elif how == "in one trip":
        assert agent.save_endp_inline(600, "slow", "", slow.fd) == FAIL
    elif how == "with a find":
        assert agent.request(lists.find_endp("endpoint"), [slow.fd], 1) == BAD
    elif how == "two at once":
        assert agent.request(lists.find_endp("endpoint"), [slow.fd] * 2, 1) == BAD
    elif how == "with a socket":
        with socket.socket() as end:
            assert agent.request(lists.save_endp(600, "slow", ""), [end.fileno(), slow.fd]) == BAD
    elif how == "after the first":
        agent.send(b"request\0", [slow.fd])
        agent.send(b"find_endp\0", [slow.fd])
        agent.send(b"label\0endpoint\0\0")
        assert agent.read_answer(1)[0] == BAD
    elif how == "with half a list":
        agent.send(b"request\0", [slow.fd])
    else:
        agent.begin("find_endp", "endpoint").until("answered")
        agent.send_list([("dummy", "")], [slow.fd])
        assert agent.read_status() == BAD
    if how != "with half a list":
        wait_held(slow, 1)
    assert_served(daemon, other)
    agent.close()
    wait_held(slow, 1)
    assert_served(daemon, other)
    assert slow.held() == 1
    slow.release()
    with other.find_endp("endpoint") as found:
        assert found.status == OK
    daemon.wait_open_fds(before - 2)


def children_of(daemon):
    """The number of processes in which something is closed, for ever if need be."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == daemon.pid]


def parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_one_at_a_time_for_a_user(daemon, slow):
    """However many such files a user passes, they take one process, and no descriptor is lost."""
    agent, other = daemon.agent(), daemon.agent()
    other.in_step()
    before = daemon.count_fds()
    slow.hold(daemon.pid)
    for _ in range(50):
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    wait_held(slow, 1)
    assert_served(daemon, agent, other)
    assert slow.held() == 1
    assert len(children_of(daemon)) <= 4
    slow.release()
    daemon.wait_open_fds(before)


def test_the_journal_says_for_whom(daemon, slow):
    """Once, when it has taken long."""
    agent = daemon.agent()
    slow.hold(daemon.pid)
    for _ in range(3):
        assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    daemon.wait_line(f"that user {os.geteuid()} passed has been closing for 10 s, in process [0-9]+. Descriptors of this "
                     "user that wait behind it: 2", 20.0)
    assert_served(daemon, agent)
    slow.release()


@pytest.mark.plain_start("starts a process before the last one has ended")
def test_leaving(manager, slow):
    """The daemon ends at once, what is parked is kept, and the next process serves."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    agent = daemon.agent()
    connection = agent.park("endpoint")
    slow.hold(daemon.pid)
    assert agent.save_endp(600, "slow", "", slow.fd) == FAIL
    wait_held(slow, 1)
    daemon.kill(signal.SIGTERM)
    agent.read_end()
    daemon.wait_line("Kept 1 connection and")
    assert daemon.wait_exit(10.0) == 0
    daemon.check(0)
    assert slow.held() == 1
    successor = manager.start({"connection_cache_ttl_limit": "3600s"})
    with successor.agent().find_endp("endpoint") as found:
        assert found.identity == connection.identity
    slow.release()
