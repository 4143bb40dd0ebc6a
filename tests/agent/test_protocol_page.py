# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every exchange that scache-protocol(7) shows is what happens on the wire, byte by byte.

The page is written so that this can read it: its displays are transcripts, with a line for each side's bytes. They are
replayed in their order against one daemon, so that what an earlier one has parked is found by a later one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from connection import Connection, identity
from protocol import Agent, encode

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "man/scache-protocol.7"
EXCHANGES = REPOSITORY / "src/agents/exchange.c"
DIALECTS = REPOSITORY / "src/agents/dialect.c"

SIDES = ("connect", "agent", "server")
WILDCARD = b"..."


class Step(NamedTuple):
    side: str
    descriptors: list[str]  # what travels with the first byte: "fd" or "file"
    data: bytes
    line: int  # of the page


def _bytes(text: str) -> bytes:
    """What cat -v shows as this."""
    return re.sub(r"\^(.)", lambda found: chr(ord(found[1]) ^ 64), text).encode()


def steps() -> list[Step]:
    found: list[tuple[str, str, int]] = []
    inside = False
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if line.startswith((".Bd -literal", ".Ed")):
            inside = line.startswith(".Bd")
        elif inside and line[:1].isspace():
            side, text, first = found.pop()
            found.append((side, text + line.strip(), first))
        elif inside:
            side, _, text = line.partition(":")
            assert side in SIDES, f"{PAGE.name}:{number}: expected one of {SIDES}, found {line!r}"
            found.append((side, text.strip(), number))
    result = []
    for side, text, number in found:
        text = text.replace(r"\(ha", "^").replace(r"\e", "\\")
        descriptors, text = re.fullmatch(r"((?:<\w+>)*)(.*)", text).groups()
        result.append(Step(side, re.findall(r"\w+", descriptors), _bytes(text), number))
    return result


class Replay:
    """Plays the agent's part of the page and holds the server to its own."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.agent: Optional[Agent] = None
        self.connections: dict[int, Connection] = {}

    def run(self) -> None:
        for step in steps():
            try:
                getattr(self, f"on_{step.side}")(step)
            except AssertionError as error:
                raise AssertionError(f"{PAGE.name}:{step.line}: {error}") from None
        self.end_of_connection()

    def on_connect(self, step: Step) -> None:
        self.end_of_connection()
        dialect = step.data.decode()
        self.agent = self.daemon.agent(dialect, greet=False)

    def end_of_connection(self) -> None:
        """Nothing more than the page shows has come: the next answer is the one to this."""
        if self.agent is None:
            return
        if self.agent.dialect != "control":
            self.agent.in_step()
        self.agent.close()

    def descriptor(self, kind: str) -> int:
        if kind == "file":
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        connection = Connection(self.agent.timeout)
        self.connections[connection.identity] = connection
        return os.dup(connection.fd)

    def on_agent(self, step: Step) -> None:
        fds = [self.descriptor(kind) for kind in step.descriptors]
        self.agent.send(step.data, fds)
        for fd in fds:
            os.close(fd)
        for connection in self.connections.values():
            connection.pass_on()

    def on_server(self, step: Step) -> None:
        if WILDCARD in step.data:
            beginning = step.data.split(WILDCARD)[0]
            got = encode(self.agent.read_list(f"{step.data!r}").attributes)
            assert got.startswith(beginning), f"expected {step.data!r}, got {got!r}"
            return
        got = b""
        while len(got) < len(step.data):
            byte, fds = self.agent.read_byte(f"{step.data!r} after {got!r}")
            expected = 1 if step.descriptors and not got else 0
            got += byte
            assert len(fds) == expected, f"{len(fds)} descriptors came with byte {len(got)} of {step.data!r}"
            for fd in fds:
                self.take(fd)
        assert got == step.data, f"expected {step.data!r}, got {got!r}"

    def take(self, fd: int) -> None:
        connection = self.connections.pop(identity(fd), None)
        assert connection, "a descriptor that was never saved, or found before"
        assert connection.works(fd)
        connection.close()
        os.close(fd)


def test_replay(daemon_with_control):
    Replay(daemon_with_control).run()


@pytest.fixture
def daemon_with_control(make_manager):
    manager = make_manager(sockets=["postfix", "postfix-legacy", "native", "control"])
    return manager.start({"connection_cache_ttl_limit": "3600s"})


def test_every_request_and_dialect_is_on_the_page():
    shown = b"".join(step.data for step in steps() if step.side == "agent")
    requests = re.findall(r'\bREQUEST\(\w+, "(\w+)"', EXCHANGES.read_text())
    assert len(requests) >= 5
    assert [name for name in requests if b"request\0" + name.encode() + b"\0" not in shown] == []
    dialects = re.findall(r'\[DIALECT_\w+\] = \{ "([\w-]+)"', DIALECTS.read_text())
    assert {step.data.decode() for step in steps() if step.side == "connect"} == set(dialects)
