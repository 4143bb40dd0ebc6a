# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the daemon starts, tells of itself, keeps users apart, and leaves."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import socket
import subprocess
import time

import pytest

import lists
from connection import wait_until
from launch import binary, run
from lists import encode
from protocol import FAIL, OK, Agent

ALICE, BOB = 54321, 54322


SO_PASSRIGHTS = 83  # since Linux 6.16

# Starting.

def test_without_sockets(manager):
    """It says how it is started, in one sentence."""
    result = run([])
    assert result.returncode == 64, result
    said = (result.stdout + result.stderr).strip()
    assert said.count("\n") == 0 and re.search(r"systemd|socket", said), said


def read_to_the_end(fd: int) -> bytes:
    """A terminal passes on what was written in pieces, some of them after the writer has ended."""
    said = b""
    with contextlib.suppress(OSError):  # EIO is the end of a terminal
        while piece := os.read(fd, 65536):
            said += piece
    return said


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_what_people_read_is_text(manager, where):
    """No priorities for a service manager, but in words what is an error and what is a warning."""
    manager.write_config("scached.conf", "misspelt = 1\nmax_idle = soon\n")
    ours, theirs = pty.openpty() if where == "terminal" else os.pipe()
    process = subprocess.Popen([str(binary()), "-c", str(manager.config), "--check"], stdin=subprocess.DEVNULL,
                               stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert process.wait(20) == 78
    said = read_to_the_end(ours).decode().splitlines()
    os.close(ours)
    file = manager.config / "scached.conf"
    assert len(said) == 2
    assert said[0].startswith(f"scached: error: {file}:2: max_idle = soon: ")
    assert said[1].startswith(f"scached: warning: {file}:1: misspelt = 1: ")


@pytest.mark.parametrize("name", ["main.cf", "scached.conf"])
def test_bad_setting_in_a_file(manager, name):
    manager.write_config(name, "# a comment\n\nmax_idle =\n  soon\n")
    daemon = manager.start(wait=False)
    daemon.wait_exit(10.0)
    daemon.check(78)
    said = daemon.output()
    for part in (str(manager.config / name) + ":3", "max_idle", "soon"):
        assert part in said, f"{part} is missing from: {said}"
    assert not daemon.notified("READY")


def test_bad_setting_on_the_command_line(manager):
    daemon = manager.start({"max_idle": "soon"}, wait=False)
    daemon.wait_exit(10.0)
    daemon.check(78)
    assert "max_idle" in daemon.output() and "soon" in daemon.output()


@pytest.mark.plain_start("sets an option of the listening socket")
def test_socket_that_lets_no_descriptor_through(manager, start):
    """AcceptFileDescriptors=no of systemd 258: it is undone, and said."""
    try:
        manager.listeners["native"].setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        pytest.skip("this kernel has no SO_PASSRIGHTS")
    daemon = start()
    daemon.wait_line('The socket "native" was passed with AcceptFileDescriptors=no')
    daemon.agent("native").park("endpoint")


def test_ready_when_it_serves(daemon, dialect):
    """An agent that connected before it was started is served like any other."""
    daemon.agent(dialect).in_step()
    assert daemon.notified("READY") == ["1"]


def test_connected_before_it_runs(manager, dialect):
    with Agent(manager.path(dialect), dialect, greet=False) as agent:
        manager.start()
        if dialect == "postfix":
            agent.read_greeting()
        agent.in_step()


# Telling.

def test_status_says_what_is_there(daemon):
    """STATUS= for systemctl status: it follows what happens, at most once a second."""
    agent = daemon.agent()
    connections = [agent.park(f"endpoint {i}") for i in range(7)]
    daemon.wait_notified("STATUS", lambda status: re.search(r"\b7\b", status) is not None,
                         what="STATUS= that counts seven connections")
    for i, _ in enumerate(connections):
        agent.find_endp(f"endpoint {i}").close()
    before = len(daemon.notified("STATUS"))
    start = time.monotonic()
    for _ in range(200):
        agent.park("endpoint")
        agent.find_endp("endpoint").close()
    assert len(daemon.notified("STATUS")) - before <= time.monotonic() - start + 2


def statistics(daemon) -> list[str]:
    return re.findall("statistics: (.*)", daemon.output())


def test_statistics_on_leaving(daemon):
    agent = daemon.agent()
    agent.bind("destination", "endpoint")
    agent.bind("other destination", "endpoint")
    agent.park("endpoint")
    agent.park("endpoint")
    for found in (agent.find_dest("destination"), agent.find_endp("endpoint")):
        assert found.status == OK
        found.close()
    for _ in range(2):
        assert agent.find_dest("destination").status == FAIL
    assert agent.find_endp("endpoint").status == FAIL
    daemon.stop()
    said = statistics(daemon)
    assert re.fullmatch(r"start interval [A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d", said[0])
    assert said[1:] == [
        "domain lookup hits=1 miss=2 success=33%",
        "address lookup hits=1 miss=1 success=50%",
        "max simultaneous domains=2 addresses=1 connection=2",
    ]


def test_only_statistics_that_say_something(manager):
    """Of an idle life, none; of a life with misses at endpoints only, those."""
    daemon = manager.start()
    daemon.stop()
    assert statistics(daemon) == []
    daemon = manager.start()
    daemon.agent().in_step()
    daemon.stop()
    assert statistics(daemon)[1:] == ["address lookup hits=0 miss=1 success=0%"]


def test_statistics_of_each_interval(start):
    """Logged every so often and counted from zero again."""
    daemon = start(connection_cache_status_update_time="1s")
    agent = daemon.agent()
    agent.in_step()
    daemon.wait_line("address lookup hits=0 miss=1")
    agent.in_step()
    agent.in_step()
    daemon.wait_line("address lookup hits=0 miss=[12]")
    daemon.stop()
    misses = re.findall(r"miss=(\d+)", daemon.output())
    assert sum(map(int, misses)) == 3, misses


def test_nothing_secret_in_the_journal(start):
    """Properties are nobody's business."""
    daemon = start(connection_cache_ttl_limit="1s", request_size_limit=4096)
    agent = daemon.agent()
    agent.bind("destination", "endpoint", "SECRET")
    agent.park("endpoint", "SECRET")
    agent.park("endpoint", "SECRET").peer.close()
    agent.request([("request", "save_endp"), ("property", "SECRET")])
    agent.request([("request", "SECRET"), ("property", "SECRET")][1:])
    agent.find_dest("destination").close()
    daemon.stop()
    assert "SECRET" not in daemon.output()


# Users.

@pytest.mark.usefixtures("root")
def test_users_do_not_find_each_others_connections(daemon, dialect):
    alice, bob = daemon.agent(dialect, uid=ALICE), daemon.agent(dialect, uid=BOB)
    connection = alice.park("endpoint")
    alice.bind("destination", "endpoint", "alice's")
    bob.bind("bob's way", "endpoint")
    for agent in (bob, daemon.agent(dialect)):
        assert agent.find_endp("endpoint").status == FAIL
        assert agent.find_dest("destination").status == FAIL
        assert agent.find_dest("bob's way").status == FAIL
    bob.bind("destination", "endpoint", "bob's")
    assert bob.find_dest("destination").status == FAIL
    bobs = bob.park("endpoint")
    with bob.find_dest("destination") as found:
        assert (found.properties[0], found.identity) == (b"bob's", bobs.identity)
    with daemon.agent(dialect, uid=ALICE).find_dest("destination") as found:
        assert (found.properties[0], found.identity) == (b"alice's", connection.identity)


@pytest.mark.usefixtures("root")
def test_users_that_share(start, dialect):
    daemon = start(share_between_users="yes")
    alice, bob = daemon.agent(dialect, uid=ALICE), daemon.agent(dialect, uid=BOB)
    first, second = alice.park("endpoint"), bob.park("endpoint")
    alice.bind("destination", "endpoint")
    for agent, connection in ((bob, first), (alice, second)):
        with agent.find_dest("destination") as found:
            assert found.identity == connection.identity


# Leaving.

def test_leaving_when_nobody_comes(start):
    daemon = start(max_idle="1s")
    began = time.monotonic()
    assert daemon.wait_exit(10.0) == 0
    assert time.monotonic() - began > 0.5
    assert daemon.notified("STOPPING") == ["1"]


def test_staying_while_somebody_or_something_is_there(start):
    daemon = start(max_idle="1s")
    agent = daemon.agent()
    time.sleep(2.0)
    assert daemon.poll() is None, "it left with an agent connected"
    agent.park("endpoint")
    agent.close()
    time.sleep(2.0)
    assert daemon.poll() is None, "it left with a connection parked"
    agent = daemon.agent()
    agent.find_endp("endpoint").close()
    agent.close()
    assert daemon.wait_exit(10.0) == 0
    assert daemon.notified("STOPPING") == ["1"]


def test_staying_while_something_is_on_its_way(start):
    """An agent has hung up and not read what was sent to it, which counts; the next process would not know."""
    daemon = start(max_idle="1s")
    agent = daemon.agent("native")
    agent.park("endpoint")
    agent.send(encode(lists.find_endp("endpoint") + [("handover", "inline")]))
    news = select.poll()
    news.register(agent.socket, select.POLLIN)
    assert news.poll(agent.timeout * 1000)
    agent.socket.shutdown(socket.SHUT_WR)
    time.sleep(2.0)
    assert daemon.poll() is None, "it left with a descriptor on its way"
    agent.close()
    assert daemon.wait_exit(10.0) == 0


def test_the_next_start_serves_who_came_while_it_was_gone(manager, dialect):
    daemon = manager.start({"max_idle": "1s"})
    daemon.wait_exit(10.0)
    with Agent(manager.path(dialect), dialect, greet=False) as waiting:
        manager.start({"max_idle": "1s"})
        if dialect == "postfix":
            waiting.read_greeting()
        waiting.in_step()


@pytest.mark.parametrize("number", [15, 2], ids=["SIGTERM", "SIGINT"])
def test_leaving_when_told(daemon, dialect, number):
    """With agents in the middle of things and connections parked."""
    agent = daemon.agent(dialect)
    agent.park("endpoint")
    agent.bind("destination", "endpoint")
    daemon.agent(dialect).begin("find_dest", "destination").until("answered")
    daemon.agent(dialect).begin("save_endp", 600, "endpoint", "", None).until("invited")
    daemon.stop(number)
    assert daemon.notified("STOPPING") == ["1"]


def test_watchdog(start):
    """systemd is told how long it may wait for a sign of life, and gets them in time."""
    daemon = start(daemon_timeout="2s")
    assert daemon.notified("WATCHDOG_USEC") == ["2000000"]
    began = time.monotonic()
    for count in range(1, 4):
        wait_until(lambda: len(daemon.notified("WATCHDOG")) >= count, "WATCHDOG=1")
    assert time.monotonic() - began < 6.0
