# SPDX-License-Identifier: LGPL-2.1-or-later
"""Start the daemon by socket activation without systemd, and be the service manager it talks to.

    manager = ServiceManager()               listening sockets, notifications, descriptor store
    daemon = manager.start({"max_idle": "1s"})     returns when it is READY=1
    agent = daemon.agent("postfix")
    daemon.stop()                            SIGTERM; looks at exit status, sanitizers and valgrind
    daemon = manager.start()                 the next start gets back what was stored
    manager.close()

ServiceManager does what systemd does as far as a daemon can see: it holds the sockets and what was
stored with FDSTORE=1, drops stored descriptors whose peer has hung up, answers BARRIER=1, and hands
everything over, named, at the next start.

The environment chooses what is started:

    SCACHED_BUILD      folder with the binary; the repository's build/ if not set
    SCACHED_WRAPPER    command that runs it, such as "valgrind --error-exitcode=99 --track-fds=yes"
    SCACHED_PATIENCE   by how much all timeouts are multiplied; known for valgrind and sanitizers
    SCACHED_INSTALLED  1: what is installed, started by systemd in its sandbox; see booted
"""

from __future__ import annotations

import array
import contextlib
import math
import os
import resource
import select
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping, NamedTuple, Optional, Sequence

from books import Books
from connection import DEFAULT_TIMEOUT
from daemon import Daemon, Limits

REPOSITORY = Path(__file__).resolve().parents[2]

# The dialects by FileDescriptorName=, each with the file name of its socket.
SOCKETS = {
    "postfix": "postfix.sock",
    "postfix-legacy": "legacy.sock",
    "native": "native.sock",
    "control": "control.sock",
}


def build_folder() -> Path:
    return Path(os.environ.get("SCACHED_BUILD") or REPOSITORY / "build").absolute()


def is_installed() -> bool:
    """Is what is installed under test, and not what has been built?"""
    return os.environ.get("SCACHED_INSTALLED") == "1"


def program(name: str) -> Path:
    """scached or scachectl."""
    if is_installed():
        return Path("/usr/sbin" if name == "scached" else "/usr/bin", name)
    path = build_folder() / name
    assert path.exists(), f"{path} is not built: run make"
    return path


def binary() -> Path:
    return program("scached")


def wrapper() -> list[str]:
    return shlex.split(os.environ.get("SCACHED_WRAPPER", ""))


def patience() -> float:
    """How much slower than a plain build the daemon may be. Timeouts are multiplied by it; what the
    clock decides is not."""
    if "SCACHED_PATIENCE" in os.environ:
        return float(os.environ["SCACHED_PATIENCE"])
    if wrapper():
        return 10.0
    return 4.0 if b"__asan_init" in binary().read_bytes() else 1.0


def stretched(seconds: int) -> int:
    """A whole number of seconds in which so much is done that on a slow machine they must be more. Sanitizers alone do not make it
    that slow, and waiting for the end costs time."""
    return math.ceil(seconds * max(1.0, patience() / 4))


class Notification(NamedTuple):
    pid: int
    at: float  # time.monotonic()
    fields: Mapping[str, str]


class Stored(NamedTuple):
    name: str
    fd: int


class ServiceManager:
    """The part of systemd that a daemon can see."""

    folders = tempfile.gettempdir()  # where it makes its own
    daemon_class = Daemon

    def __init__(self, sockets: Sequence[str] = ("postfix", "postfix-legacy", "native"),
                 store_max: int = 65536):
        # Not pytest's folders: they are closed to other users and too long for a socket's address.
        self.folder = Path(tempfile.mkdtemp(prefix="scached", dir=self.folders))
        self.folder.chmod(0o755)
        self.config = self.folder / "config"
        self.config.mkdir(mode=0o755)
        self.listeners: dict[str, socket.socket] = {}
        self.queues: list[tuple[str, socket.socket]] = []  # sockets in queue directories of Postfix
        self.listen(sockets)
        self.daemons: list[Daemon] = []
        self.store: list[Stored] = []
        self.store_max = store_max
        self.patience = patience()
        self.notifications: list[Notification] = []
        self._news = threading.Condition()
        self._syncs = 0

        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notify.bind(str(self.folder / "notify"))
        os.chmod(self.folder / "notify", 0o666)
        self._ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._stop, stopped = socket.socketpair()
        self._epoll = select.epoll()
        self._epoll.register(self._notify, select.EPOLLIN)
        self._epoll.register(stopped, select.EPOLLIN)
        # A thread, for a daemon blocks while nobody reads: the kernel queues ten notifications.
        self._thread = threading.Thread(target=self._serve, args=(stopped,), daemon=True)
        self._thread.start()

    def listen(self, sockets: Sequence[str], backlog: int = 4096) -> None:
        """Make the listening socket of each FileDescriptorName=."""
        for name in sockets:
            self.listeners[name] = self._listen(self.path(name), backlog)

    def listen_in_queue(self, name: str, dialect: str = "postfix") -> str:
        """Make a queue directory and the socket in it, as master(8) and systemd do. Returns the socket's path."""
        private = self.folder / name / "private"
        private.mkdir(parents=True, mode=0o755)
        path = str(private / "scached")
        self.queues.append((dialect, self._listen(path, 4096)))
        return path

    @staticmethod
    def _listen(path: str, backlog: int) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen(backlog)
        listener.setblocking(False)
        return listener

    def listener(self, name: str) -> socket.socket:
        return self.listeners[name]

    def path(self, name: str) -> str:
        return str(self.folder / SOCKETS[name])

    # In the thread: notifications and the store.

    def _serve(self, stopped: socket.socket) -> None:
        while True:
            for fd, events in self._epoll.poll():
                if fd == stopped.fileno():
                    stopped.close()
                    return
                if fd == self._notify.fileno():
                    self._read_notification()
                elif events & (select.EPOLLHUP | select.EPOLLERR):
                    with self._news:
                        self._drop(lambda stored, gone=fd: stored.fd == gone)

    def _read_notification(self) -> None:
        data, ancillary, _, _ = self._notify.recvmsg(
            65536, socket.CMSG_SPACE(253 * 4) + socket.CMSG_SPACE(12), socket.MSG_CMSG_CLOEXEC)
        fds: list[int] = []
        pid = 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(content[:len(content) - len(content) % received.itemsize])
                fds += received
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = struct.unpack("iII", content)[0]
        lines = data.decode(errors="replace").split("\n")
        fields = dict(line.split("=", 1) for line in lines if "=" in line)
        with self._news:
            self._obey(pid, data, fields, fds)
            self.notifications.append(Notification(pid, time.monotonic(), fields))
            self._news.notify_all()

    def _obey(self, pid: int, data: bytes, fields: Mapping[str, str], fds: list[int]) -> None:
        if fields.get("FDSTORE") == "1":
            for fd in fds:
                self._keep(fields.get("FDNAME", "stored"), fd, fields.get("FDPOLL") != "0")
            return
        if fields.get("FDSTOREREMOVE") == "1":
            self._drop(lambda stored: stored.name == fields.get("FDNAME"))
        for fd in fds:  # among them the pipe of a BARRIER=1, whose closing is the answer
            os.close(fd)

    def _keep(self, name: str, fd: int, watch: bool) -> None:
        def mark(of: int) -> tuple[int, int]:
            status = os.fstat(of)
            return status.st_dev, status.st_ino

        is_known = mark(fd) in [mark(stored.fd) for stored in self.store]
        if is_known or len(self.store) >= self.store_max:
            os.close(fd)
            return
        self.store.append(Stored(name, fd))
        if watch:
            try:
                self._epoll.register(fd, 0)
            except PermissionError:
                pass  # a memfd or a file never hangs up

    def _drop(self, goes: Callable[[Stored], bool]) -> None:
        for stored in [stored for stored in self.store if goes(stored)]:
            self.store.remove(stored)
            try:
                self._epoll.unregister(stored.fd)
            except OSError:
                pass  # it was not watched
            os.close(stored.fd)

    # For tests.

    def stored(self, name: Optional[str] = None) -> list[Stored]:
        """What is in the store, or what is there by this name."""
        self.sync()
        with self._news:
            return [stored for stored in self.store if name in (None, stored.name)]

    def count_stored(self) -> int:
        return len(self.stored())

    def to_pass(self) -> list[tuple[str, int]]:
        """What a daemon gets at its start, and under which names."""
        listeners = [(name, listener.fileno()) for name, listener in self.listeners.items()]
        listeners += [(dialect, listener.fileno()) for dialect, listener in self.queues]
        return listeners + self.stored()

    def clear_store(self) -> None:
        """What systemd does when a service is stopped rather than restarted."""
        with self._news:
            self._drop(lambda stored: True)

    def sync(self) -> None:
        """Return when all that was sent so far has been read: what a dead daemon said may still be
        on its way."""
        self._syncs += 1
        mark = str(self._syncs)
        self._ours.sendto(f"SYNC={mark}".encode(), self._notify.getsockname())
        self.wait_notification(lambda sent: sent.fields.get("SYNC") == mark, "our own message")

    def notified(self, pid: int) -> list[Notification]:
        """What this process has sent so far."""
        self.sync()
        with self._news:
            return [sent for sent in self.notifications if sent.pid == pid]

    def wait_notification(self, condition: Callable[[Notification], bool], what: str,
                          timeout: float = DEFAULT_TIMEOUT,
                          give_up: Callable[[], bool] = lambda: False) -> Notification:
        """The first notification that meets the condition, be it an old one."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._news:
            while True:
                for sent in self.notifications[seen:]:
                    if condition(sent):
                        return sent
                seen = len(self.notifications)
                left = deadline - time.monotonic()
                assert left > 0 and not give_up(), f"not notified of {what} within {timeout:g} s"
                self._news.wait(min(left, 0.1))

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Reads one more notification, and no further ones: the kernel queues ten more."""
        with self._news:
            yield

    def write_config(self, name: str, text: str) -> None:
        """Put a main.cf or scached.conf where the next daemon reads it."""
        (self.config / name).write_text(text)
        (self.config / name).chmod(0o644)

    def start(self, options: Optional[Mapping[str, object]] = None, arguments: Sequence[str] = (),
              wait: bool = True, env: Optional[Mapping[str, str]] = None,
              uid: Optional[int] = None, gid: Optional[int] = None,
              rlimits: Optional[Limits] = None) -> Daemon:
        """Start the daemon as systemd would.

        options: settings, for -o. rlimits: as in {resource.RLIMIT_NOFILE: 256}, soft and hard, or (256, 1024).
        wait: return when it is ready, and fail if it never is.
        """
        command = [*wrapper(), str(binary()), "-c", str(self.config)]
        for name, value in (options or {}).items():
            command += ["-o", f"{name}={value}"]
        command += arguments
        daemon = self.daemon_class(self, command, env or {}, uid, gid, rlimits or {})
        self.daemons.append(daemon)
        if wait:
            daemon.wait_ready()
        return daemon

    def close(self) -> None:
        """Stop and check all that no test has, and remove every trace."""
        errors = []
        for daemon in self.daemons:
            try:
                daemon.close()
            except Exception as error:
                errors.append(f"{daemon}: {error}")
        try:
            self._check_books()
        except AssertionError as error:
            errors.append(str(error))
        self._stop.close()
        self._thread.join(DEFAULT_TIMEOUT)
        self._end()
        self._epoll.close()
        for end in (*self.listeners.values(), *(listener for _, listener in self.queues), self._notify, self._ours):
            end.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not errors, "\n".join(errors)

    def _check_books(self) -> None:
        """Each process says what became of what the one before has kept."""
        for one, next_one in zip(self.daemons, self.daemons[1:]):
            kept, taken = (Books(line.text for line in each.lines()) for each in (one, next_one))
            said = sum(taken[what] for what in ("restored", "evicted", "lost", "closed"))
            assert said >= kept["kept"] - kept["not taken over"], f"{one} has {dict(kept)}, {next_one} {dict(taken)}"

    def _end(self) -> None:
        """Nothing of it is needed any more."""
        self.clear_store()


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess:
    """Run the daemon's binary as a command, with no sockets, as a person at a terminal does."""
    variables = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}
    return subprocess.run([*wrapper(), str(binary()), *arguments], env=variables, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=DEFAULT_TIMEOUT * patience())


def raise_descriptor_limit() -> None:
    """Tests hold both ends of many connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
