# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another user's agents, who do what agents do and measure how long they wait.

    python3 bystander.py SOCKET [--uid=UID] [--group=GROUP]

Commands come on standard input, one a line, and each is answered with a line of JSON:

    park N             park N connections for good
    kept               how many of them are found, each with its own property; they are parked again
    ended              how many of their peers see the end of them within ENDING seconds
    measure SECONDS    save and find, over and over: how long each wait was, and what went wrong
    connect SECONDS    likewise, but each time as an agent that has just begun: it connects, and asks once
    check              some agents that stopped in the middle of an exchange go on: how many have been cut off or refused
    ride               save and find, over and over, also when the daemon goes away and comes back, until the word "stop": the
                       longest time without an answer

A child of its own answers, too, and how long that makes it wait says how busy the machine is.

It ends by itself when standard input ends, or after LIFE seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import socket
import time
from typing import Callable, Optional

import lists
from attacks import become, tell, told
from connection import ProtocolError
from lists import encode
from protocol import OK, Agent, Exchange

LIFE = 600

# Far less than an attack holds them up, which is a minute, and more than a busy machine does.
ENDING = 10.0

# Nobody who is not made to wait waits so long.
TIMEOUT = 1.5

MID_EXCHANGE = 10


class Witness:
    """A server that nobody attacks."""

    def __init__(self):
        self.end, theirs = socket.socketpair()
        if os.fork() == 0:
            self.end.close()
            while data := theirs.recv(100):
                theirs.send(data)
            os._exit(0)
        theirs.close()

    def ask(self) -> float:
        """How long it took to answer."""
        began = time.perf_counter()
        self.end.send(b"x" * 50)
        self.end.recv(100)
        return time.perf_counter() - began


class Bystander:
    def __init__(self, path: str):
        self.path = path
        self.witness = Witness()
        self.agent: Optional[Agent] = None
        self.parked: list[socket.socket] = []
        self.ends = socket.socketpair()
        self.middle: list[tuple[Agent, socket.socket, Exchange]] = []

    def connect(self) -> Agent:
        if self.agent is None:
            self.agent = Agent(self.path, "native", TIMEOUT)
        return self.agent

    def hang_up(self) -> None:
        if self.agent is not None:
            self.agent.close()
            self.agent = None

    def park(self, count: int) -> dict:
        agent = self.connect()
        for i in range(len(self.parked), len(self.parked) + count):
            end, peer = socket.socketpair()
            with end:
                assert agent.save(3600, f"parked {i}", f"{i}", f"parked {i}", f"{i}", end.fileno()) == OK
            self.parked.append(peer)
        return {"parked": count}

    def kept(self) -> dict:
        """By an agent of its own, which waits longer than others: how long it takes is not the question here."""
        agent, kept = Agent(self.path, "native", 10.0), 0
        for i in range(len(self.parked)):
            with agent.find_dest_inline(f"parked {i}") as found:
                if found.status == OK and found.properties == (b"%d" % i, b"%d" % i):
                    kept += 1
                    agent.save(3600, f"parked {i}", f"{i}", f"parked {i}", f"{i}", found.fd)
        agent.close()
        return {"kept": kept}

    def ended(self) -> dict:
        ended, until = 0, time.monotonic() + ENDING
        for peer in self.parked:
            peer.settimeout(max(0.001, until - time.monotonic()))
            with contextlib.suppress(TimeoutError, socket.timeout):
                while peer.recv(100):
                    pass
                ended += 1
            peer.close()
        self.parked.clear()
        return {"ended": ended}

    def cycle(self, waits: list[float], problems: dict[str, int]) -> None:
        """Save and find, in one trip each."""
        def note(problem: str) -> None:
            problems[problem] = problems.get(problem, 0) + 1

        label = f"cycle {os.getpid()}"
        for ask in (lambda agent: agent.save_endp_inline(60, label, "", self.ends[0].fileno()),
                    lambda agent: agent.find_endp_inline(label)):
            began = time.perf_counter()
            try:
                answer = ask(self.connect())
                waits.append(time.perf_counter() - began)
                if isinstance(answer, int):
                    if answer != OK:
                        note(f"a save was answered with {answer}")
                        return
                else:
                    answer.close()
                    if answer.status != OK:
                        note("what was saved was not found")
            except (ProtocolError, OSError) as error:
                waits.append(time.perf_counter() - began)
                note("no answer" if "no answer" in str(error) else "cut off")
                self.hang_up()
                return

    def newcomer(self, waits: list[float], problems: dict[str, int]) -> None:
        began = time.perf_counter()
        try:
            with Agent(self.path, "native", TIMEOUT) as agent:
                agent.in_step()
        except (ProtocolError, OSError) as error:
            problems[str(error)] = problems.get(str(error), 0) + 1
        waits.append(time.perf_counter() - began)

    def measure(self, seconds: float, once: Callable[[list[float], dict[str, int]], None]) -> dict:
        waits: list[float] = []
        problems: dict[str, int] = {}
        noise = 0.0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            once(waits, problems)
            noise = max(noise, self.witness.ask())
        return {"waits": waits, "problems": problems, "noise": noise}

    def check(self) -> dict:
        """The first time there is nobody to be cut off."""
        cut_off = 0
        for agent, peer, exchange in self.middle:
            try:
                with exchange.finish() as found:
                    cut_off += found.status != OK
            except (ProtocolError, OSError):
                cut_off += 1
            agent.close()
            peer.close()
        self.middle.clear()
        for i in range(MID_EXCHANGE):
            label = f"middle {os.getpid()} {i}"
            end, peer = socket.socketpair()
            try:
                agent = Agent(self.path, "native", TIMEOUT)
                with end:
                    cut_off += agent.save_endp_inline(3600, label, "", end.fileno()) != OK
                what, step = ("find_endp_inline", "half a request") if i % 2 else ("find_endp", "answered")
                self.middle.append((agent, peer, agent.begin(what, label).until(step)))
            except (ProtocolError, OSError):
                return {"cut_off": cut_off + 1}
        return {"cut_off": cut_off}

    def ride(self) -> dict:
        """As Postfix does when the cache goes away: connect anew, and try again."""
        longest, answered, last = 0.0, 0, time.perf_counter()
        request = encode(lists.find_endp("nothing"))
        while told(0) != "stop":
            try:
                agent = self.connect()
                agent.send(request)
                agent.read_answer(1)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
                answered += 1
            except (ProtocolError, OSError):
                self.hang_up()
                time.sleep(0.001)  # where nobody listens
        return {"gap": max(longest, time.perf_counter() - last), "answered": answered}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--group")
    options = parser.parse_args()
    signal.alarm(LIFE)
    become(options.uid, options.group)
    bystander = Bystander(options.socket)
    gc.disable()
    tell(ready=True)
    while True:
        word = told(60)
        if word is None:
            continue
        command, *arguments = word.split()
        if command == "park":
            tell(**bystander.park(int(arguments[0])))
        elif command == "measure":
            tell(**bystander.measure(float(arguments[0]), bystander.cycle))
        elif command == "connect":
            tell(**bystander.measure(float(arguments[0]), bystander.newcomer))
        else:
            tell(**{"kept": bystander.kept, "ended": bystander.ended, "check": bystander.check, "ride": bystander.ride}[command]())


if __name__ == "__main__":
    main()
