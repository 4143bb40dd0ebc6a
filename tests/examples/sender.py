#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Send a message: sender.py SOCKET HOST PORT FROM TO <message

What an agent in another language does: the plain protocol, without a library. scache-protocol(7) has every byte of it.
"""

from __future__ import annotations

import smtplib
import socket
import sys
from typing import Optional

TTL = 30


class Cache:
    """The service, as one agent sees it."""

    def __init__(self, path: str, timeout: float = 5.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        greeting, _ = self._read()
        if greeting[0] != ("protocol", "connection_cache_protocol"):
            raise ConnectionError(f"{path} is not a connection cache")

    def _send(self, *attributes: tuple[str, str], fd: Optional[int] = None) -> None:
        data = b"".join(f"{name}\0{value}\0".encode() for name, value in attributes) + b"\0"
        if fd is None:
            self.socket.sendall(data)
        else:
            socket.send_fds(self.socket, [data], [fd])

    def _read(self) -> tuple[list[tuple[str, str]], Optional[int]]:
        """A list, and the descriptor that came with it. The service speaks only when it is asked, so what comes is
        one list and nothing after it."""
        data, fd = b"", None
        while True:
            more, fds, _, _ = socket.recv_fds(self.socket, 65536, 1)
            if not more:
                raise ConnectionError("the service hung up")
            data += more
            fd = fds[0] if fds else fd
            strings = data.split(b"\0")
            # name, value, name, value, ..., the empty name, and what split() leaves after the last NUL
            if len(strings) % 2 == 0 and data.endswith(b"\0") and strings[-2] == b"":
                texts = [text.decode() for text in strings[:-2]]
                return list(zip(texts[::2], texts[1::2])), fd

    def find(self, destination: str) -> Optional[tuple[socket.socket, str]]:
        """A connection and its property, or None."""
        self._send(("request", "find_dest"), ("label", destination), ("handover", "inline"))
        answer, fd = self._read()
        if answer[0] != ("status", "0"):
            return None
        return socket.socket(fileno=fd), answer[2][1]

    def save(self, destination: str, endpoint: str, prop: str, farewell: str, connection: socket.socket) -> bool:
        self._send(("request", "save"), ("ttl", str(TTL)), ("label", destination), ("property", ""),
                   ("label", endpoint), ("property", prop), ("farewell", farewell), fd=connection.fileno())
        answer, _ = self._read()
        return answer[0] == ("status", "0")


def main() -> int:
    path, host, port, sender, recipient = sys.argv[1:]
    destination = endpoint = f"smtp\n{host}\n{port}"
    cache = Cache(path)
    uses = 0
    session = smtplib.SMTP()
    while found := cache.find(destination):
        session.sock, uses = found[0], int(found[1])
        session.sock.setblocking(True)
        session.ehlo_resp, session.does_esmtp = b"", True
        try:
            if session.rset()[0] == 250:
                break
        except smtplib.SMTPServerDisconnected:
            pass
    else:
        uses = 0
        session.connect(host, int(port))
        session.ehlo()

    session.sendmail(sender, [recipient], sys.stdin.read())
    print(f"sent, conn_use={uses + 1}")
    if not cache.save(destination, endpoint, str(uses + 1), "QUIT\r\n", session.sock):
        session.quit()
    session.sock.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
