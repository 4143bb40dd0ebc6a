# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other end of the control socket, written from the description of the protocol alone."""

from __future__ import annotations

import socket
from typing import Iterator, Optional

from connection import ProtocolError
from lists import decode, encode


class Control:
    """A client of the control socket. Attributes are text; bytes that are no UTF-8 come as surrogates."""

    def __init__(self, path: str, timeout: float = 20.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.size = 0  # of the last answer, in bytes
        greeting = self.read()
        if greeting != [("protocol", "scached_control_protocol")]:
            raise ProtocolError(f"a control greeting that says {greeting}")

    def read(self) -> list[tuple[str, str]]:
        """The next answer; nothing comes after it until it is asked for."""
        data = bytearray()
        while True:
            more = self.socket.recv(65536)
            if not more:
                raise ProtocolError("the service hung up on its control socket")
            data += more
            self.size = len(data)
            answer = decode(data)
            if answer is not None:
                if data:
                    raise ProtocolError("more than one answer to a control request")
                return [(name.decode(), value.decode(errors="surrogateescape")) for name, value in answer]

    def request(self, name: str, **attributes: Optional[object]) -> list[tuple[str, str]]:
        """One request and its answer, status and all."""
        given = [(key, value) for key, value in attributes.items() if value is not None]
        self.socket.sendall(encode([("request", name), *given]))
        return self.read()

    def ask(self, name: str, **attributes: Optional[object]) -> dict[str, str]:
        """A request that must succeed."""
        answer = self.request(name, **attributes)
        if answer[0] != ("status", "0"):
            raise ProtocolError(f"{name} {attributes} was answered with {answer}")
        return dict(answer[1:])

    def pages(self, name: str, **attributes: Optional[object]) -> Iterator[list[tuple[str, str]]]:
        """All pages of an answer, without status and cursor."""
        cursor = None
        while True:
            answer = self.request(name, **attributes, cursor=cursor)
            if answer[0] != ("status", "0"):
                raise ProtocolError(f"{name} {attributes} was answered with {answer}")
            before, cursor = cursor, dict(answer).get("cursor")
            if cursor is not None and cursor == before:
                raise ProtocolError(f"the walk stands still at {cursor}")
            yield [attribute for attribute in answer[1:] if attribute[0] != "cursor"]
            if cursor is None:
                return

    def list(self, kind: str = "connections", **filters: Optional[object]) -> list[dict[str, str]]:
        """All entries."""
        first = "endpoint" if kind == "connections" else "destination"
        entries: list[dict[str, str]] = []
        for page in self.pages("list", kind=kind, **filters):
            for name, value in page:
                if name == first:
                    entries.append({})
                entries[-1][name] = value
        return entries

    def top(self, kind: str, **filters: Optional[object]) -> list[dict[str, str]]:
        """All rows of the busiest destinations or endpoints."""
        rows: list[dict[str, str]] = []
        for page in self.pages("top", kind=kind, **filters):
            for name, value in page:
                if name == kind.removesuffix("s"):
                    rows.append({})
                if name != "rows_max":
                    rows[-1][name] = value
        return rows

    def flush(self, **filters: Optional[object]) -> int:
        return sum(int(dict(page)["flushed"]) for page in self.pages("flush", **filters))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
