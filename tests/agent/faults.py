# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon with tests/faults/faults.c loaded, and how to arm that."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from connection import ProtocolError, wait_until
from daemon import SANITIZER_OPTIONS
from launch import binary, build_folder

LAYOUT = "IIiI32sI"
LIBRARY = build_folder() / "tests/libfaults.so"
SANITIZED = b"__asan_init" in binary().read_bytes()


class Plan:
    """The file through which a running daemon is told what is to fail, or to be slow."""

    def __init__(self, path: Path):
        self.path = path
        self._write(struct.pack(LAYOUT, 0, 0, 0, 0, b"", 0))

    def arm(self, name: str, countdown: int, error: int) -> None:
        """This call fails once with this error, after so many of them have been let through."""
        self._write(struct.pack(LAYOUT, 0, countdown, error, 0, name.encode(), 0))
        self._write(struct.pack("I", 1))

    def slow_down(self, name: str, seconds: float) -> None:
        """Each of these calls that the serving thread makes on a descriptor of somebody else's waits so long first."""
        self._write(struct.pack(LAYOUT, 0, 0, 0, 0, name.encode(), int(seconds * 1e6)))
        self._write(struct.pack("I", 1))

    def fired(self) -> int:
        """How many calls have failed or waited since."""
        return struct.unpack(LAYOUT, self.path.read_bytes())[3]

    def fires(self, timeout: float) -> bool:
        """Wait for a call that comes when it suits a worker: no event tells of one that never comes."""
        try:
            return bool(wait_until(self.fired, "the call", timeout))
        except ProtocolError:
            return False

    def disarm(self) -> None:
        self._write(struct.pack("I", 0))

    def _write(self, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


def start(manager, plan: Plan, **options):
    """Start a daemon that looks at the plan."""
    env = {"FAULTS": str(plan.path), "LD_PRELOAD": str(LIBRARY)}
    if SANITIZED:
        env["ASAN_OPTIONS"] = SANITIZER_OPTIONS["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
    return manager.start({"connection_cache_ttl_limit": "60s", **options}, env=env)
