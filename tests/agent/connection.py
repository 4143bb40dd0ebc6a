# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections to park, as a test holds them: the end that is passed on, and the peer's."""

from __future__ import annotations

import os
import socket
import time
from typing import Callable, Optional, TypeVar

DEFAULT_TIMEOUT = 5.0

T = TypeVar("T")


class ProtocolError(AssertionError):
    """The other side broke the protocol, or said nothing for too long."""


def identity(fd: int) -> int:
    """What tells a socket from every other one, in whatever process and under whatever number."""
    return os.fstat(fd).st_ino


class Connection:
    """A connection to park. The peer's end is held here, so that the other one stays alive."""

    def __init__(self, timeout: float = DEFAULT_TIMEOUT):
        self.peer, self._end = socket.socketpair()
        self.identity = identity(self._end.fileno())
        self.peer.settimeout(timeout)

    @property
    def fd(self) -> int:
        return self._end.fileno()

    def pass_on(self) -> None:
        """The cache has it now: give up our copy, as every agent does after a save."""
        self._end.close()

    def take_back(self, fd: int) -> None:
        """It was found: this descriptor of it is ours again."""
        self._end.close()
        self._end = socket.socket(fileno=fd)

    def wait_let_go(self, timeout: Optional[float] = None) -> bytes:
        """Wait until the cache has let this connection go: it closed it or began to say goodbye.
        What it said is returned. Our own copy has to be gone, see pass_on()."""
        if timeout is not None:
            self.peer.settimeout(timeout)
        try:
            return self.peer.recv(4096)
        except socket.timeout:
            seconds = self.peer.gettimeout()
            raise ProtocolError(f"the connection was not let go within {seconds:g} s") from None
        except ConnectionResetError:
            return b""

    def works(self, fd: int) -> bool:
        """Do bytes travel both ways between the peer and this descriptor?"""
        with socket.socket(fileno=os.dup(fd)) as end:
            end.settimeout(self.peer.gettimeout())
            end.sendall(b"to peer")
            if self.peer.recv(64) != b"to peer":
                return False
            self.peer.sendall(b"from peer")
            return end.recv(64) == b"from peer"

    def close(self) -> None:
        self._end.close()
        self.peer.close()


def wait_until(condition: Callable[[], T], what: str, timeout: float = DEFAULT_TIMEOUT) -> T:
    """Wait for something that no event announces, such as a count under /proc. Returns what the
    condition came to."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise ProtocolError(f"not so within {timeout:g} s: {what}")
        time.sleep(0.01)
