# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many requests at once, and what the daemon says of itself: for tests about limits."""

from __future__ import annotations

import os
from typing import Iterable, Iterator

from lists import encode
from protocol import Agent, ProtocolError

# The long form of a test, hours of mail in a minute or so.
LONG = os.environ.get("SCACHED_LONG") == "1"

DONE = encode([("status", 0)])


def receive_exactly(agent: Agent, size: int, what: str) -> bytes:
    """Plain bytes, as many as that."""
    data = bytearray()
    while len(data) < size:
        try:
            more = agent.socket.recv(size - len(data))
        except BlockingIOError:
            raise ProtocolError(f"{len(data)} of {size} bytes of {what} within "
                                f"{agent.timeout:g} s") from None
        if not more:
            raise ProtocolError(f"the server hung up after {len(data)} bytes of {what}")
        data += more
    return bytes(data)


def save_many(agent: Agent, requests: Iterable[list[bytes]], at_once: int = 64) -> Iterator[int]:
    """Send requests that are answered with a mere status, each given in pieces; every one must come
    to status 0. Yields how many have been answered, from time to time."""
    done = waiting = 0
    pieces: list[bytes] = []

    def settle() -> None:
        agent.send(b"".join(pieces))
        pieces.clear()
        got = receive_exactly(agent, waiting * len(DONE), f"{waiting} answers")
        if got != waiting * DONE:
            raise ProtocolError(f"not all saved: {got[:200]!r}")

    for request in requests:
        pieces += request
        waiting += 1
        if waiting == at_once:
            settle()
            done += waiting
            waiting = 0
            yield done
    settle()
    yield done + waiting


class Control:
    """The control socket."""

    def __init__(self, daemon):
        self.agent = daemon.agent("control", greet=False)
        self.agent.read_plain_list("the greeting")

    def ask(self, *attributes: tuple[str, str]) -> list[tuple[bytes, bytes]]:
        self.agent.send_list(attributes)
        return self.answer()

    def answer(self) -> list[tuple[bytes, bytes]]:
        got = self.agent.read_plain_list("an answer of the control socket")
        if got[:1] != [(b"status", b"0")]:
            raise ProtocolError(f"the control socket says {got[:3]}")
        return got[1:]

    def status(self) -> dict[str, int]:
        return {name.decode(): int(value) for name, value in self.ask(("request", "status"))
                if value.isdigit()}

    def remaining(self, endpoint: str) -> list[float]:
        """How many seconds each connection of an endpoint has left, in their order."""
        got = self.ask(("request", "list"), ("kind", "connections"), ("endpoint", endpoint))
        return [int(value) / 1e6 for name, value in got if name == b"remaining_us"]
