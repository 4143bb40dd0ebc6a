# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service manager's side, left to a real systemd: the daemon under test is the one that is
installed, in the whole sandbox of its unit. For the inside of a machine only: see tests/system/inside.

    python3 booted.py                   makes the units, once
    manager = BootedManager()           from here on as launch.ServiceManager

Each test has an instance of the template that is installed, scached@FOLDER.service, where FOLDER is
the test's own. systemd owns its sockets, starts it, gives it its user and its sandbox, keeps what it
stores and knows how it has ended; what it logs is read from the journal. How the unit differs from
the one that is shipped is in SERVICE below, and test_sandbox.py sees to it that this is all.

Notifications take a way round by the test, which looks at them and passes them on to systemd in the
name of the daemon, descriptors and all.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import json
import os
import re
import resource
import select
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Mapping, Optional, Sequence

from connection import wait_until
from daemon import FIRST_FD, Daemon, Line, run_as
from launch import SOCKETS, ServiceManager
from systemd_bus import Bus

INSTALLED = Path("/usr/lib/systemd/system")
OURS = Path("/run/systemd/system")
SYSTEMD = "/run/systemd/notify"
SYS_PIDFD_GETFD = 438
CLD_EXITED = 1

# It is the test that starts each process: until it does, systemd waits as before a restart, keeps what
# is stored, and lets agents wait. It waits before the first start, too, for a start without the file
# with the environment has failed.
# A system call that is not in the filter could be refused unnoticed: here it is fatal.
SERVICE = """\
[Service]
ExecStart=
ExecStart={program} -c %f/config $ARGUMENTS
EnvironmentFile=%f/environment
Restart=always
RestartSec=infinity
SystemCallErrorNumber=
"""

# Comes after the text of the socket unit that is installed. Agents in tests are of any user.
SOCKET = """
[Unit]
ConditionPathIsDirectory=

[Socket]
ListenStream=
ListenStream=%f/{file}
FileDescriptorName={dialect}
Service=scached@%i.service
SocketUser=
SocketGroup=
SocketMode=0666
TriggerLimitIntervalSec=0
"""
SOCKET_UNITS = {"postfix": "scached-postfix.socket", "postfix-legacy": "scached-postfix.socket",
                "native": "scached.socket", "control": "scached-control.socket"}

_libc = ctypes.CDLL(None, use_errno=True)


def systemctl(*arguments: str) -> str:
    return subprocess.run(["systemctl", *arguments], stdin=subprocess.DEVNULL, text=True, check=True,
                          stdout=subprocess.PIPE).stdout


@functools.cache
def bus() -> Bus:
    return Bus()


def make_units() -> None:
    """Those that each test has instances of."""
    container = Path("/run/systemd/container")
    assert container.exists() and container.read_text().strip() == "scached-test", "this is no machine of ours"
    (program,) = re.findall(r"(?m)^ExecStart=(.+)$", (INSTALLED / "scached@.service").read_text())
    drop_in = OURS / "scached@.service.d/test.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(SERVICE.format(program=program))
    for dialect, unit in SOCKET_UNITS.items():
        # It is the tests that start and restart the service.
        text = re.sub(r"(?m)^(Wants|After|OnFailure)=.*\n", "", (INSTALLED / unit).read_text()) + SOCKET.format(file=SOCKETS[dialect], dialect=dialect)
        (OURS / f"test-{dialect}@.socket").write_text(text)
    systemctl("daemon-reload")


def quoted(text: str) -> str:
    """In double quotes, as a file with variables and an argument on a command line have them."""
    return '"' + re.sub(r'([\\"`$])', r"\\\1", text) + '"'


class BootedDaemon(Daemon):
    """A process of the installed service."""

    manager: BootedManager

    def _begin(self, env: Mapping[str, str], uid: Optional[int], gid: Optional[int],
               rlimits: Mapping[int, int]) -> tuple[int, int]:
        assert uid is None and gid is None, "the user is systemd's choice: mark the test plain_start"
        variables = {"NOTIFY_SOCKET": str(self.manager.folder / "notify"),
                     "ARGUMENTS": " ".join(map(quoted, self.command[3:])), **env}
        (self.manager.folder / "environment").write_text(
            "".join(f"{name}={quoted(value)}\n" for name, value in variables.items()))
        self.manager.limit(rlimits)
        self.started_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        bus().manage("RestartUnit", self.manager.service)
        wait_until(lambda: self._told("ExecMainStartTimestampMonotonic") >= self.started_us,
                   "systemd starts a process", self._scaled(10.0))
        pid = self._told("ExecMainPID")
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            pidfd = os.open(os.devnull, os.O_RDONLY)  # readable, as that of any that has
        return pid, pidfd

    def _told(self, name: str) -> int:
        """What systemd says of the service's last process."""
        return bus().number(self.manager.service, name)

    def wait_ready(self) -> None:
        super().wait_ready()
        # Nothing that was not started as it should be is ever tested.
        status = Path(f"/proc/{self.pid}/status").read_text()
        assert re.search(r"^NoNewPrivs:\t1$", status, re.M) and re.search(r"^Seccomp:\t2$", status, re.M)
        assert os.readlink(f"/proc/{self.pid}/exe") == self.command[0]

    def check(self, status: int) -> None:
        """No tool watches it: the status says it all."""
        self._checked = True
        assert self.status == status, f"{self} exited with {self.status}:\n{self.output()}"

    def limit_descriptors(self, count: Optional[int] = None) -> None:
        """As its own user: in a container, root may have no power over the limits of others."""
        owner = os.stat(f"/proc/{self.pid}")
        assert run_as(owner.st_uid, lambda: super(BootedDaemon, self).limit_descriptors(count), owner.st_gid)

    def output(self) -> str:
        return "".join(f"{line.text}\n" for line in self.lines())

    def lines(self) -> list[Line]:
        """What it has logged so far. Its pid may have been another's before."""
        subprocess.run(["journalctl", "--sync"], check=True)
        entries = subprocess.run(
            ["journalctl", "--output=json", "--all", "--quiet", f"_PID={self.pid}"], check=True,
            text=True, stdout=subprocess.PIPE).stdout.splitlines()
        return [Line(int(entry["PRIORITY"]), as_text(entry["MESSAGE"]))
                for entry in map(json.loads, entries)
                if int(entry["__MONOTONIC_TIMESTAMP"]) >= self.started_us]

    def _ended(self) -> Optional[int]:
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(0):
            return None

        # systemd hears of it a moment after the pidfd tells.
        wait_until(lambda: self._told("ExecMainExitTimestampMonotonic") > self.started_us,
                   "systemd knows how it ended", self._scaled(None))
        assert self._told("ExecMainPID") == self.pid, "the next one has begun meanwhile"
        status = self._told("ExecMainStatus")
        return status if self._told("ExecMainCode") == CLD_EXITED else -status


def as_text(message: str | list[int]) -> str:
    """journalctl writes what is not text as a list of its bytes."""
    return message if isinstance(message, str) else bytes(message).decode(errors="replace")


class BootedManager(ServiceManager):
    """A systemd, as far as tests want something of it."""

    folders = "/run"  # not /tmp, for the service has its own
    daemon_class = BootedDaemon
    daemons: list[BootedDaemon]

    def listen(self, sockets: Sequence[str], backlog: int = 4096) -> None:
        instance = str(self.folder)[1:].replace("/", "-")
        self.service = f"scached@{instance}.service"
        self.sockets = [f"test-{name}@{instance}.socket" for name in sockets]
        bus().manage("StartUnit", self.service)
        wait_until(lambda: bus().state(self.service) == "auto-restart", "it waits for its first start")
        for unit in self.sockets:
            bus().manage("StartUnit", unit)
        for unit in self.sockets:
            wait_until(lambda: bus().state(unit) == "listening", f"{unit} listens")

    def listener(self, name: str) -> socket.socket:
        """A copy of systemd's own, as the daemon has it, too."""
        pidfd = os.pidfd_open(self.daemons[-1].pid)
        try:
            for number in range(FIRST_FD, FIRST_FD + len(self.sockets)):
                fd = _libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
                assert fd >= 0, os.strerror(ctypes.get_errno())
                copy = socket.socket(fileno=fd)
                if copy.getsockname() == self.path(name):
                    self.listeners[name] = copy
                    return copy
                copy.close()
        finally:
            os.close(pidfd)
        raise AssertionError(f"{self.path(name)} is not where sockets from systemd are")

    def limit(self, rlimits: Mapping[int, int]) -> None:
        """Limits of the next process other than those of the unit."""
        drop_in = OURS / f"{self.service}.d/limits.conf"
        if not rlimits and not drop_in.exists():
            return
        names = {resource.RLIMIT_NOFILE: "LimitNOFILE"}
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text("[Service]\n" + "".join(f"{names[what]}={limit}\n"
                                                    for what, limit in rlimits.items()))
        systemctl("daemon-reload")

    def _obey(self, pid: int, data: bytes, fields: Mapping[str, str], fds: list[int]) -> None:
        """Pass it on as if the daemon itself had sent it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            control = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("iII", pid, 0, 0))]
            if fds:
                control.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)))
            if pid != os.getpid() and not ("FDSTORE" in fields and self.store_max == 0):
                with contextlib.suppress(ProcessLookupError):  # nobody can speak for the dead
                    way.sendmsg([data], control, 0, SYSTEMD)
        for fd in fds:
            os.close(fd)

    def stored(self, name: Optional[str] = None):
        raise AssertionError("what systemd has stored is out of reach: mark the test plain_start")

    def count_stored(self) -> int:
        self.sync()
        return bus().number(self.service, "NFileDescriptorStore")

    def clear_store(self) -> None:
        systemctl("stop", self.service)

    def _end(self) -> None:
        for unit in (*self.sockets, self.service):
            bus().manage("StopUnit", unit)
        shutil.rmtree(OURS / f"{self.service}.d", ignore_errors=True)


if __name__ == "__main__":
    make_units()
