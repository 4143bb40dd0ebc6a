# SPDX-License-Identifier: LGPL-2.1-or-later
"""scachectl(1) as tests run it, and fixtures for it: a daemon that serves agents and administrators."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import Optional

import pytest

import launch

CONTROL = ("status", "list", "flush", "top", "metrics", "watch")
LABEL = "smtp\n192.0.2.1\n25"


class Tool:
    """The command, on the sockets of a test."""

    def __init__(self, manager):
        self.manager = manager
        self.binary = str(launch.program("scachectl"))

    def command(self, *arguments: str) -> list[str]:
        where = ["--control", self.manager.path("control"), "--native", self.manager.path("native")]
        used = [] if "--socket" in arguments else where[:2] if arguments[0] in CONTROL else where[2:]
        return [self.binary, *used, *arguments]

    def __call__(self, *arguments: str, status: int = 0, **how) -> subprocess.CompletedProcess:
        result = subprocess.run(self.command(*arguments), text=True, capture_output=True,
                                timeout=20 * launch.patience(), **{"stdin": subprocess.DEVNULL, **how})
        assert result.returncode == status, f"{arguments} exited with {result.returncode}:\n{result}"
        if status == 0:
            assert result.stderr == ""
        return result

    def on_terminal(self, *arguments: str, columns: int = 80, env: Optional[dict[str, str]] = None) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(self.command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs,
                                   env={**os.environ, "TERM": "xterm", "COLUMNS": "", **(env or {})})
        os.close(theirs)
        said = b""
        while True:
            try:
                more = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not more:
                break
            said += more
        os.close(ours)
        assert process.wait(20) == 0, said
        return said.decode().replace("\r\n", "\n")


@pytest.fixture
def manager(make_manager):
    return make_manager(sockets=["postfix", "native", "control"])


@pytest.fixture
def daemon(manager):
    return manager.start({"connection_cache_ttl_limit": "3600s"})


@pytest.fixture
def tool(manager, daemon) -> Tool:
    return Tool(manager)


def one_sentence(said: subprocess.CompletedProcess) -> str:
    assert said.stdout == "" and said.stderr.startswith("scachectl: ") and said.stderr.count("\n") == 1, said
    return said.stderr
