# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file on FUSE whose close(2) waits until a test lets it go on: in its own process and mount
namespace, which leave nothing behind.

    with SlowFile() as file:
        file.hold(daemon.pid)        from here on, this process and its children wait in each close
        file.hold_all_but(os.getpid())      or all processes but this one
        ... send file.fd ...
        file.held()                  how many closes wait
        file.release()               all of them go on, and later ones do not wait
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from typing import Callable, NamedTuple

TIMEOUT = 60.0

# linux/fuse.h
FUSE_FORGET, FUSE_GETATTR, FUSE_OPEN, FUSE_RELEASE = 2, 3, 14, 18
FUSE_FLUSH, FUSE_INIT, FUSE_INTERRUPT, FUSE_BATCH_FORGET = 25, 26, 36, 42
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
MODE = 0o100600
ATTRIBUTES = struct.pack("=6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, MODE, 1, 0, 0, 0, 4096, 0)
REPLIES = {
    FUSE_INIT: struct.pack("=IIII2HII2HI7I", 7, 31, 0, 0, 16, 12, 4096, 1, 1, 0, 0, *7 * [0]),
    FUSE_GETATTR: struct.pack("=QII", 3600, 0, 0) + ATTRIBUTES,
    FUSE_OPEN: struct.pack("=QIi", 1, 0, 0),
    FUSE_RELEASE: b"",
    FUSE_FLUSH: b"",
}

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000


class SlowFile:
    """The test's end."""

    def __init__(self):
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(TIMEOUT)
        with theirs:
            self._server = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())],
                                            pass_fds=[theirs.fileno()])
        answer, fds, _, _ = socket.recv_fds(self._control, 1000, 1)
        self.fd = fds[0] if fds else -1
        self.unavailable = "" if fds else answer.decode()  # why there is no file

    def _ask(self, command: str) -> int:
        self._control.send(command.encode())
        return int(self._control.recv(1000))

    def hold(self, pid: int) -> None:
        self._ask(f"hold {pid}")

    def hold_all_but(self, pid: int) -> None:
        self._ask(f"hold_all_but {pid}")

    def held(self) -> int:
        return self._ask("held")

    def release(self) -> None:
        self._ask("release")

    def close(self) -> None:
        """The kernel answers for a server that has gone: nobody waits any more after this."""
        self._control.close()
        self._server.wait(TIMEOUT)
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # it tells that the server has gone
                os.close(self.fd)

    def __enter__(self) -> SlowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Process(NamedTuple):
    pid: int
    parent: int
    name: str


def process_of(thread: int) -> Process:
    """The process of a thread; all zero if that has gone."""
    fields = {}
    with contextlib.suppress(OSError):
        with open(f"/proc/{thread}/status") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    return Process(int(fields.get("Tgid", 0)), int(fields.get("PPid", 0)), fields.get("Name", ""))


def family(pid: int) -> Callable[[int], bool]:
    """Is a thread one of this process, or of its children, or of a child that has outlived it?"""
    name = process_of(pid).name

    def is_member(thread: int) -> bool:
        process = process_of(thread)
        if process.name == name:
            return True
        while process.pid not in (0, 1, pid):
            process = process_of(process.parent)
        return process.pid == pid

    return is_member


class Server:
    """The other end: serves one file, which is the root of its file system."""

    def __init__(self):
        libc = ctypes.CDLL(None, use_errno=True)

        def call(name: str, *arguments: object) -> None:
            if getattr(libc, name)(*arguments) < 0:
                raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        call("unshare", CLONE_NEWNS)
        call("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        options = f"fd={self.device},rootmode={MODE:o},user_id=0,group_id=0".encode()
        # Any file will do to mount this one on.
        self.path = os.path.abspath(__file__)
        call("mount", b"slow", self.path.encode(), b"fuse", ctypes.c_ulong(0), options)
        self.lock = threading.Lock()
        self.held: list[int] = []
        self.is_concerned: Callable[[int], bool] = lambda thread: False
        threading.Thread(target=self.serve, daemon=True).start()
        self.fd = os.open(self.path, os.O_RDONLY)

    def answer(self, unique: int, error: int = 0, data: bytes = b"") -> None:
        os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size + len(data), -error, unique) + data)

    def serve(self) -> None:
        while True:
            request = os.read(self.device, 1 << 17)
            _, opcode, unique, _, _, _, thread, _, _ = IN_HEADER.unpack_from(request)
            if opcode in (FUSE_FORGET, FUSE_BATCH_FORGET, FUSE_INTERRUPT):
                continue
            with self.lock:
                if opcode == FUSE_FLUSH and self.is_concerned(thread):
                    self.held.append(unique)
                elif opcode in REPLIES:
                    self.answer(unique, data=REPLIES[opcode])
                else:
                    self.answer(unique, errno.ENOSYS)

    def command(self, name: str, *arguments: str) -> int:
        with self.lock:
            if name == "hold":
                self.is_concerned = family(int(arguments[0]))
            elif name == "hold_all_but":
                exempt = int(arguments[0])
                self.is_concerned = lambda thread: process_of(thread).pid not in (exempt, os.getpid())
            elif name == "release":
                self.is_concerned = lambda thread: False
                for unique in self.held:
                    self.answer(unique)
                self.held.clear()
            return len(self.held)


def main() -> None:
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            server = Server()
        except OSError as error:
            control.send(str(error).encode())
            return
        socket.send_fds(control, [b"ready"], [server.fd])
        os.close(server.fd)
        while request := control.recv(1000):
            control.send(str(server.command(*request.decode().split())).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
