# SPDX-License-Identifier: LGPL-2.1-or-later
"""The servers that are compared, each started alone and as its own project starts it, without a service manager.

    with Scached(folder, build) as server:
        server.path     the socket its agents connect to
        server.pid

They are started by this process, so they run where it runs: with its processor affinity and priority.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

TESTS = Path(__file__).resolve().parents[1]
TIMEOUT = 20.0

sys.path.insert(0, str(TESTS / "agent"))
import oracle  # noqa: E402

# Connections live so long that none ends during a run.
TTL_LIMIT = "100000s"


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(4096)
    return listener


def with_descriptors(fds: Sequence[int], first: int) -> Callable[[], None]:
    """What a child does before exec: these descriptors under the numbers from `first` on, and nothing above them."""
    def prepare() -> None:
        above = first + len(fds)
        # First out of the way of the numbers they go to, then there.
        spare = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in fds]
        for number, fd in enumerate(spare, first):
            os.dup2(fd, number)
        os.closerange(above, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return prepare


class Server:
    """A running server: a socket's path, a process, and how to end it."""

    name = ""
    path = ""
    pid = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError

    def memory(self) -> dict[str, int]:
        """Resident memory in bytes, by kind: RssAnon, RssFile, RssShmem, VmRSS."""
        fields = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "RssAnon", "RssFile", "RssShmem"):
                fields[name] = int(value.split()[0]) * 1024
        return fields


class Child(Server):
    """A server that runs as a plain child of ours."""

    process: subprocess.Popen

    @property
    def pid(self) -> int:  # type: ignore[override]
        return self.process.pid

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def read_line(stream, what: str, timeout: float = TIMEOUT) -> str:
    """A line that a child is to say."""
    ready = select.poll()
    ready.register(stream, select.POLLIN)
    if not ready.poll(timeout * 1000):
        raise TimeoutError(f"{what} said nothing for {timeout:g} s")
    line = stream.readline()
    if not line:
        raise RuntimeError(f"{what} ended")
    return line


class Floor(Child):
    def __init__(self, folder: Path, build: Path, care: bool = False):
        self.path = str(folder / "floor.sock")
        command = [build / "tests" / "bench_floor", self.path] + (["care"] if care else [])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        read_line(self.process.stdout, "bench_floor")


class Scached(Child):
    """Our daemon, with everything on that is on in service."""

    def __init__(self, folder: Path, build: Path, agents: int = 256, options: Sequence[str] = ()):
        self.path = str(folder / "postfix.sock")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(str(folder / "notify.sock"))
        notify.settimeout(TIMEOUT)
        command = ["sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', build / "scached", "-c", folder,
                   "-o", f"connection_cache_ttl_limit={TTL_LIMIT}", "-o", f"agent_limit={agents}"]
        for option in options:
            command += ["-o", option]
        with listen(Path(self.path)) as listener, open(folder / "stderr", "wb") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=stderr, close_fds=False,
                preexec_fn=with_descriptors([listener.fileno()], 3),
                env={"PATH": "/usr/bin:/bin", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "postfix",
                     "NOTIFY_SOCKET": str(folder / "notify.sock")})
        while b"READY=1" not in notify.recv(65536).split(b"\n"):
            pass
        notify.setblocking(True)
        # Nobody needs to hear the rest, but a full queue would hold the daemon up.
        self._notify = notify
        self._reader = subprocess.Popen([sys.executable, "-c", "import socket, sys\n"
                                         "s = socket.socket(fileno=0)\nwhile s.recv(65536): pass"],
                                        stdin=notify.fileno())

    def close(self) -> None:
        super().close()
        self._reader.kill()
        self._reader.wait()
        self._notify.close()


class Scache(Server):
    """Postfix's own scache(8); tests/agent/oracle.py knows how to start it."""

    def __init__(self):
        self._oracle = oracle.Scache(TTL_LIMIT)
        self.path = self._oracle.path
        self.pid = self._oracle.pid

    def close(self) -> None:
        self._oracle.close()

    @staticmethod
    def find() -> Optional[str]:
        return oracle.find_scache()


class S6(Child):
    """s6-fdholderd, with rules that let everybody do everything."""

    def __init__(self, folder: Path, connections: int, agents: int):
        self.path = str(folder / "s6.sock")
        rules = folder / "rules" / "uid" / "default"
        (rules / "env").mkdir(parents=True)
        (rules / "allow").touch()
        for name in ("S6_FDHOLDER_STORE_REGEX", "S6_FDHOLDER_RETRIEVE_REGEX"):
            (rules / "env" / name).write_text(".*")

        def prepare() -> None:
            # It keeps its tables on its stack.
            limit = resource.getrlimit(resource.RLIMIT_STACK)[1]
            wanted = 64 << 20
            resource.setrlimit(resource.RLIMIT_STACK,
                               (wanted if limit == resource.RLIM_INFINITY else min(wanted, limit), limit))

        with listen(Path(self.path)) as listener:
            listener.setblocking(False)
            self.process = subprocess.Popen(
                [self.find(), "-1", "-n", str(connections), "-c", str(agents + 1), "-i", str(folder / "rules")],
                stdin=listener.fileno(), stdout=subprocess.PIPE, text=True, preexec_fn=prepare)
        read_line(self.process.stdout, "s6-fdholderd")

    @staticmethod
    def find() -> Optional[str]:
        return shutil.which("s6-fdholderd")
