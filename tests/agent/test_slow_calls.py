# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each call that may have to wait for somebody is slow in turn, and nobody else waits.

Whoever has passed a descriptor may hold a copy, and with that the lock of its socket: every call that takes the lock can then take as
long as that one likes. And a close(2) takes as long as what it drops. So the serving thread makes none of these calls on what
came from outside. An interposed library (tests/faults/faults.c) makes them slow, by name, wherever it does.
"""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

import lists
from connection import Connection
from faults import LIBRARY, Plan, start
from lists import encode
from protocol import OK

pytestmark = [pytest.mark.skipif(not LIBRARY.exists(), reason="libfaults.so is not built"),
              pytest.mark.plain_build,
              pytest.mark.plain_start("loads a library into the daemon, which writes to a file of the test")]

CALLS = ["close", "recvmsg", "recv", "read", "sendmsg", "send", "sendto", "write", "writev", "setsockopt", "shutdown", "ioctl"]

# Of each of them. Others notice less.
SLOW = 0.1


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]


class Passing:
    """An agent that makes the daemon do everything that it does with what came from outside, none of which has to be answered
    in time."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.peers: list[socket.socket] = []

    def save(self, agent, label: str) -> None:
        end, peer = tcp_pair()
        with end:
            agent.send_list(lists.save_endp(60, label, "") + [("farewell", "QUIT\r\n")], [end.fileno()])
        self.peers.append(peer)

    def do(self) -> None:
        agents = [self.daemon.agent("native") for _ in range(4)]
        saver, finder, bad, leaver = agents
        for i in range(8):                       # more than there may be: some are let go, with a farewell
            self.save(saver, f"slow {i}")
        for i in range(8):
            finder.send(encode(lists.find_endp(f"slow {i}") + [("handover", "inline")]))
        self.save(saver, "dead")
        self.peers[-1].close()                   # its peer hangs up
        self.save(saver, "answers")
        self.peers[-1].send(b"250 speaks\r\n")  # its peer speaks
        with open(os.devnull) as null:           # no connections, and not where they belong
            bad.send_list(lists.save_endp(60, "null", ""), [null.fileno()])
            bad.send_list(lists.find_endp("nothing"), [null.fileno()] * 3)
        one, two = socket.socketpair()
        with one, two:
            bad.send_list(lists.find_endp("nothing"), [one.fileno()])
            leaver.send(b"request\0", [two.fileno()])
        for agent in agents:                     # all of them hang up, with answers unread and descriptors unused
            agent.close()
            self.daemon.agents.remove(agent)

    def answer(self) -> None:
        """Farewells are answered."""
        for peer in self.peers:
            with peer:
                try:
                    peer.setblocking(False)
                    peer.recv(100)
                    peer.send(b"221 bye\r\n")
                except OSError:
                    pass


def longest_wait(agent, connection: Connection, seconds: float) -> float:
    """Of another agent, which saves and finds one connection of its own."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        for ask in (lambda: agent.save_endp_inline(60, "other", "", connection.fd),
                    lambda: agent.find_endp_inline("other")):
            began = time.monotonic()
            answer = ask()
            longest = max(longest, time.monotonic() - began)
            if not isinstance(answer, int):
                assert answer.status == OK
                answer.close()
            else:
                assert answer == OK
    return longest


def test_the_library_sees_what_came_from_outside(manager, tmp_path):
    """By a call that waits for nobody. The tests below would otherwise show nothing."""
    plan = Plan(tmp_path / "faults")
    daemon = start(manager, plan)
    plan.slow_down("getsockopt", 0.001)
    daemon.agent("native").park("endpoint")
    assert plan.fired() > 0


@pytest.mark.parametrize("name", CALLS)
def test_others_do_not_wait(manager, connections, tmp_path, name):
    plan = Plan(tmp_path / "faults")
    daemon = start(manager, plan, connection_cache_size_limit=5)
    other, connection = daemon.agent("native"), connections()
    passing = Passing(daemon)
    quiet = longest_wait(other, connection, 0.1)
    plan.slow_down(name, SLOW)
    passing.do()
    slow = longest_wait(other, connection, 0.2)
    passing.answer()
    slow = max(slow, longest_wait(other, connection, 0.2))
    fired = plan.fired()
    plan.disarm()
    print(f"{name}: {fired} calls were slow; longest wait {quiet * 1e3:.1f} ms, with slow calls {slow * 1e3:.1f} ms")
    assert fired == 0, \
        f"the serving thread called {name} {fired} times; others waited {slow * 1e3:.0f} ms, before {quiet * 1e3:.0f} ms"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("is_last", [False, True], ids=["restart", "stop"])
def test_the_next_process_does_not_wait(manager, tmp_path, name, is_last):
    """What is parked is handed over, or gets its farewell, before anything can wait."""
    plan = Plan(tmp_path / "faults")
    daemon = start(manager, plan)
    passing = Passing(daemon)
    passing.do()
    agent = daemon.agent("native")
    parked = [agent.park(f"parked {i}") for i in range(10)]
    agent.begin("find_endp", "parked 9").until("answered")
    plan.slow_down(name, SLOW)
    daemon.stop(signal.SIGUSR1 if is_last else signal.SIGTERM)
    fired = plan.fired()
    plan.disarm()
    assert fired == 0, f"the serving thread called {name} {fired} times"
    if not is_last:
        successor = manager.start({"connection_cache_ttl_limit": "60s"})
        with successor.agent() as other:
            for i, connection in enumerate(parked[:9]):
                with other.find_endp(f"parked {i}") as found:
                    assert found.identity == connection.identity
