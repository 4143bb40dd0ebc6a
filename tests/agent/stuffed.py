# SPDX-License-Identifier: LGPL-2.1-or-later
"""A TCP connection whose last close(2) waits: with SO_LINGER, a peer that reads nothing, and full buffers."""

from __future__ import annotations

import socket
import struct

LINGER_SECONDS = 60
LINGER = struct.pack("ii", 1, LINGER_SECONDS)
RESET = struct.pack("ii", 1, 0)


class Stuffed:
    """Whoever closes its last copy waits for as long as the linger says, or until close()."""

    def __init__(self, linger: bytes = LINGER):
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.end = socket.socket()
            self.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            self.end.connect(server.getsockname())
            self.peer, _ = server.accept()
        self.end.setblocking(False)
        try:
            while True:
                self.end.send(b"x" * 65536)
        except BlockingIOError:
            pass
        self.end.setblocking(True)
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def pass_on(self) -> None:
        """Give up our copy, without waiting: a copy elsewhere is the last one."""
        self.end.close()

    def close(self) -> None:
        """Whatever is left of it, without waiting; who waits in close(2) elsewhere goes on, too."""
        if self.end.fileno() >= 0:
            self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.end.close()
        self.peer.close()
