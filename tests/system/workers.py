# SPDX-License-Identifier: LGPL-2.1-or-later
"""Agents at work inside a machine, as processes that a test starts there and talks to in lines of JSON.

    python3 workers.py hold SOCKET GROUP UID COUNT     parks, keeps asking, and finds all in the end
    python3 workers.py cycle SOCKET UID                saves and finds without end, until told
    python3 workers.py smtp SOCKET ADDRESS:PORT COUNT TTL     parks connections to a real SMTP server
    python3 workers.py ask DIALECT=SOCKET...   asks on each socket without end; says for how long there was no answer
    python3 workers.py obey SOCKET             parks and finds what it is told, as an agent of Postfix
    python3 workers.py keep SOCKET COUNT       parks, and says in the end what was found, what was told goodbye, and what was lost

They behave as Postfix does when the cache goes away: connect anew, try once more, and then give up.
"""

from __future__ import annotations

import grp
import json
import os
import re
import resource
import select
import socket
import sys
import threading
import time

from connection import Connection, identity
from control import Control
from protocol import FAIL, OK, Agent, ProtocolError

TIMEOUT = 10.0
SHORT_LIVED = 200   # of those that a holder parks, so many reach their end while it watches
SHORT = 14           # seconds


def tell(**message) -> None:
    print(json.dumps(message), flush=True)


def told(seconds: float = 0) -> str:
    """The next word on standard input, or none so far."""
    ready = select.poll()
    ready.register(0, select.POLLIN)
    return os.read(0, 100).decode().strip() if ready.poll(seconds * 1000) else ""


class Persistent:
    """An agent that loses its cache and finds it again. Its waits are measured."""

    def __init__(self, path: str, dialect: str = "native"):
        self.path, self.dialect = path, dialect
        self.agent: Agent | None = None
        self.slowest = 0.0
        self.retries = 0

    def ask(self, what: str, *arguments):
        """One exchange, tried twice at most."""
        began = time.monotonic()
        try:
            for attempt in range(2):
                try:
                    if self.agent is None:
                        self.agent = Agent(self.path, self.dialect, TIMEOUT)
                    return getattr(self.agent, what)(*arguments)
                except (ProtocolError, OSError) as error:
                    self.close()
                    if attempt:
                        raise AssertionError(f"{what} failed twice: {error}") from error
                    self.retries += 1
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)

    def close(self) -> None:
        if self.agent is not None:
            self.agent.close()
            self.agent = None


def pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    made = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        for _ in range(count):
            end = socket.create_connection(listener.getsockname())
            made.append((end, listener.accept()[0]))
    return made


def hold(path: str, group: str, uid: str, count: str) -> None:
    os.setgroups([grp.getgrnam(group).gr_gid])
    os.setresuid(int(uid), int(uid), int(uid))
    agent = Persistent(path)
    made = pairs(int(count))
    wanted, saved_at = [], []
    for i, (end, _) in enumerate(made):
        short = i < SHORT_LIVED
        label = f"short {i}" if short else f"endpoint {i}"
        assert agent.ask("save", SHORT if short else 600, f"destination {i}", f"binding {i} of {uid}",
                         label, f"property {i} of {uid}", end.fileno()) == OK
        saved_at.append(time.clock_gettime(time.CLOCK_BOOTTIME))
        wanted.append(identity(end.fileno()))
        end.close()
    tell(parked=len(made))

    asked = 0
    lives: list[float] = [0.0] * SHORT_LIVED
    watch = select.poll()
    by_fd = {made[i][1].fileno(): i for i in range(SHORT_LIVED)}
    for fd in by_fd:
        watch.register(fd, select.POLLIN)
    word = ""
    while not word or by_fd:
        for fd, _ in watch.poll(0):
            i = by_fd.pop(fd)
            lives[i] = time.clock_gettime(time.CLOCK_BOOTTIME) - saved_at[i]
            watch.unregister(fd)
            assert made[i][1].recv(100) == b"", "saved without a farewell"
        assert agent.ask("find_endp", "never saved").status == FAIL
        asked += 1
        word = word or told()

    lost, late, taken = [], [], []
    for i in range(SHORT_LIVED, len(made)):
        found = agent.ask("find_dest_inline", f"destination {i}")
        expected = (OK, (f"binding {i} of {uid}".encode(), f"property {i} of {uid}".encode()),
                    wanted[i])
        if tuple(found) != expected:
            lost.append(i)
            continue
        found.close()
        taken.append(i)
    # The daemon closes its copies in batches, some 100 ms after the agent has shown that it has its own.
    agent.ask("find_endp", "never saved")
    for i in taken:
        closed = select.poll()
        closed.register(made[i][1], select.POLLIN)
        if not closed.poll(1000) or made[i][1].recv(1) != b"":
            late.append(i)
    tell(asked=asked, lost=lost, late=late, slowest=agent.slowest, retries=agent.retries,
         saved_for=SHORT, shortest_life=min(lives), longest_life=max(lives))


def cycle(path: str, uid: str) -> None:
    """What is found must be one of ours, with what we saved it with."""
    os.setresuid(int(uid), int(uid), int(uid))
    agent = Persistent(path)
    kept = {}
    wrong, cycles, held = [], 0, []
    for number in range(5):
        end, peer = socket.socketpair()
        kept[identity(end.fileno())] = peer
        held.append(end.detach())
    tell(started=True)
    last_answer, longest_gap = time.monotonic(), 0.0
    while not told():
        label = f"endpoint {cycles % 3} of {os.getpid()}"
        if not held:
            end, peer = socket.socketpair()
            kept[identity(end.fileno())] = peer
            held.append(end.detach())
        fd = held.pop()
        assert agent.ask("save_endp_inline", 600, label, f"property of {identity(fd)}",
                         fd) == OK
        os.close(fd)
        found = agent.ask("find_endp_inline", label)
        if found.status == OK:
            if (found.identity not in kept or
                    found.properties != (f"property of {found.identity}".encode(),)):
                wrong.append([found.identity, [p.decode() for p in found.properties]])
            held.append(found.detach())
        cycles += 1
        now = time.monotonic()
        longest_gap, last_answer = max(longest_gap, now - last_answer), now
    tell(cycles=cycles, wrong=wrong[:3], slowest=agent.slowest, retries=agent.retries,
         longest_gap=longest_gap)


def smtp(path: str, address: str, count: str, ttl: str) -> None:
    host, port = address.split(":")
    agent = Persistent(path)
    for i in range(int(count)):
        with socket.create_connection((host, int(port)), timeout=30) as end:
            assert end.recv(1000).startswith(b"220 ")
            end.sendall(b"EHLO agent.example\r\n")
            reply = b""
            while not re.search(rb"^250 .*\n", reply, re.M):
                reply += end.recv(1000)
            assert agent.ask("save_endp_inline", int(ttl), f"endpoint {i % 9}", "",
                             end.fileno(), "QUIT\r\n") == OK
    tell(parked=int(count))
    told(600)
    tell(done=True)


# How long there may be no answer before that is worth a word, and how long an agent waits for one.
SHORTEST_GAP = 1.0
PATIENCE = 3.0


def ask_once(dialect: str, path: str) -> bool:
    try:
        if dialect == "control":
            asking = Control(path, PATIENCE)
            asking.ask("status")
            asking.socket.close()
        else:
            with Agent(path, dialect, PATIENCE) as asking:
                assert asking.find_endp("never saved").status == FAIL
        return True
    except (ProtocolError, OSError):
        return False


def ask(*sockets: str) -> None:
    """On a word, say when each was last answered, and which gaps there were between two answers."""
    last: dict[str, float] = {}
    gaps: list[tuple[str, float, float]] = []

    def go_on(socket: str) -> None:
        dialect, path = socket.split("=")
        while True:
            if ask_once(dialect, path):
                now = time.monotonic()
                if now - last.get(socket, now) > SHORTEST_GAP:
                    gaps.append((socket, last[socket], now))
                last[socket] = now
            time.sleep(0.05)

    for socket in sockets:
        threading.Thread(target=go_on, args=(socket,), daemon=True).start()
    while told(3600):
        said, gaps = gaps, []
        tell(last=last, gaps=said)


def keep(path: str, count: str) -> None:
    kept = []
    with Agent(path, "native", TIMEOUT) as agent:
        for i in range(int(count)):
            connection = Connection(TIMEOUT)
            assert agent.save_endp_inline(3600, f"kept {i}", "", connection.fd, farewell="QUIT\r\n") == OK
            connection.pass_on()
            kept.append(connection)
    tell(parked=len(kept))
    told(3600)
    found = told_goodbye = 0
    lost = []
    with Agent(path, "native", TIMEOUT) as agent:
        for i, connection in enumerate(kept):
            with agent.find_endp_inline(f"kept {i}") as answer:
                if answer.status == OK and answer.identity == connection.identity and connection.works(answer.fd):
                    found += 1
                elif connection.wait_let_go() == b"QUIT\r\n":
                    told_goodbye += 1
                else:
                    lost.append(i)
    tell(found=found, told_goodbye=told_goodbye, lost=lost)


def obey(path: str) -> None:
    """Each line is a list: "park", label, ttl, address, port; or "find", label, of which one answer is passed on to the peer."""
    agent = Persistent(path, "postfix")
    for line in sys.stdin:
        what, label, *rest = json.loads(line)
        try:
            if what == "park":
                ttl, *address = rest
                with socket.create_connection(tuple(address), TIMEOUT) as connection:
                    tell(status=agent.ask("save_endp", ttl, label, "", connection.fileno()))
                continue
            with agent.ask("find_endp", label) as found:
                if found.status == OK:
                    os.write(found.fd, b"found")
                tell(status=found.status)
        except AssertionError as error:
            agent.close()
            tell(status=None, error=str(error))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    {"hold": hold, "cycle": cycle, "smtp": smtp, "ask": ask, "keep": keep, "obey": obey}[sys.argv[1]](*sys.argv[2:])
