# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon under test, as a process: started with descriptors of our choice, watched, and ended.
Only launch.ServiceManager makes one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import resource
import select
import shutil
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Mapping, NamedTuple, Optional, Sequence, Union

from connection import DEFAULT_TIMEOUT, wait_until
from protocol import Agent

if TYPE_CHECKING:
    from launch import ServiceManager

FIRST_FD = 3
PR_SET_PDEATHSIG = 1
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1",
    "UBSAN_OPTIONS": "exitcode=99:halt_on_error=1:print_stacktrace=1",
    "LSAN_OPTIONS": "exitcode=99",
}
PRIORITIES = {"error": 3, "warning": 4}
_libc = ctypes.CDLL(None, use_errno=True)

# What any of the tools that may watch a run prints when it has found something.
COMPLAINTS = re.compile(r"\w+Sanitizer|runtime error:|ERROR SUMMARY: [1-9]|Assertion .* failed|"
                        r"(definitely|indirectly|possibly) lost: [1-9]")


def die_with_parent() -> None:
    """For a new process: nothing of a test may outlive it, however it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Line(NamedTuple):
    """A line on standard error: its syslog priority, None if it says none, and the rest."""
    priority: Optional[int]
    text: str


# By resource: soft and hard limit, or one for both.
Limits = Mapping[int, Union[int, tuple[int, int]]]


class Daemon:
    """A running scached."""

    def __init__(self, manager: ServiceManager, command: Sequence[str], env: Mapping[str, str],
                 uid: Optional[int], gid: Optional[int], rlimits: Limits):
        self.manager = manager
        self.command = list(command)
        self.status: Optional[int] = None  # exit status, or the negative number of a signal
        self.killed_by: Optional[int] = None
        self.agents: list[Agent] = []
        self.stderr = manager.folder / f"stderr.{len(manager.daemons)}"
        self.patience = manager.patience
        self._checked = False
        self.pid, self._pidfd = self._begin(env, uid, gid, rlimits)

    def _begin(self, env: Mapping[str, str], uid: Optional[int], gid: Optional[int],
               rlimits: Limits) -> tuple[int, int]:
        """Start it. Returns its pid and a pidfd."""
        passed = self.manager.to_pass()
        variables = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "NOTIFY_SOCKET": str(self.manager.folder / "notify"),
            **{name: os.environ.get(name, value) for name, value in SANITIZER_OPTIONS.items()},
        }
        if passed:
            variables["LISTEN_FDS"] = str(len(passed))
            variables["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        variables.update(env)

        pid = self._fork([fd for _, fd in passed], variables, uid, gid, rlimits)
        return pid, os.pidfd_open(pid)

    def _fork(self, passed: Sequence[int], variables: dict[str, str], uid: Optional[int],
              gid: Optional[int], rlimits: Limits) -> int:
        program = shutil.which(self.command[0]) or self.command[0]
        pid = os.fork()
        if pid != 0:
            return pid
        try:
            # First out of the way of the numbers they go to, then there.
            above = FIRST_FD + len(passed)
            passed = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in passed]
            stderr = os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(os.open("/dev/null", os.O_RDWR), 0)
            os.dup2(stderr, 1)
            os.dup2(stderr, 2)
            for number, fd in enumerate(passed, FIRST_FD):
                os.dup2(fd, number)
            os.closerange(above, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            for what, limit in rlimits.items():
                resource.setrlimit(what, limit if isinstance(limit, tuple) else (limit, limit))
            if gid is not None:
                os.setgroups([])
                os.setresgid(gid, gid, gid)
            if uid is not None:
                os.setresuid(uid, uid, uid)
            die_with_parent()
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            if passed:
                variables["LISTEN_PID"] = str(os.getpid())
            os.execve(program, self.command, variables)
        except BaseException as error:
            os.write(2, f"cannot start {program}: {error!r}\n".encode())
        os._exit(127)

    def _scaled(self, timeout: Optional[float]) -> float:
        return (DEFAULT_TIMEOUT if timeout is None else timeout) * self.patience

    # What it says.

    def output(self) -> str:
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else "(gone)"

    def lines(self) -> list[Line]:
        """Standard error so far, line by line."""
        lines = []
        for text in self.output().splitlines():
            found = re.fullmatch(r"scached: (?:(error|warning): )?(.*)", text)
            lines.append(Line(PRIORITIES.get(found[1]), found[2]) if found else Line(None, text))
        return lines

    def wait_line(self, pattern: str, timeout: Optional[float] = None) -> Line:
        """The first line on standard error that this regular expression is found in."""
        def search() -> Optional[Line]:
            return next((line for line in self.lines() if re.search(pattern, line.text)), None)
        return wait_until(search, f"a line like {pattern!r}", self._scaled(timeout))

    def notified(self, name: str) -> list[str]:
        """The values of all the notifications of this name so far: notified("STATUS")."""
        return [sent.fields[name] for sent in self.manager.notified(self.pid)
                if name in sent.fields]

    def wait_notified(self, name: str, condition: Callable[[str], bool] = lambda value: True,
                      timeout: Optional[float] = None, what: str = "") -> str:
        """Wait for a notification of this name whose value meets the condition."""
        return self.manager.wait_notification(
            lambda sent: sent.pid == self.pid and name in sent.fields and
            condition(sent.fields[name]), what or f"{name}=", self._scaled(timeout)).fields[name]

    def wait_ready(self) -> None:
        try:
            self.manager.wait_notification(
                lambda sent: sent.pid == self.pid and sent.fields.get("READY") == "1",
                "READY=1", self._scaled(10.0), give_up=lambda: self.poll() is not None)
        except AssertionError:
            ended = f" (it ended with {self.status})" if self.poll() is not None else ""
            raise AssertionError(f"{self} is not ready{ended}:\n{self.output()}") from None

    # What can be seen of it.

    def open_fds(self) -> dict[int, str]:
        """Its open descriptors and what they are, at a moment when it sleeps: while it tells the
        service manager something, it has one more."""
        for _ in range(1000):
            sleep = self._sleep()
            fds = {}
            for name in os.listdir(f"/proc/{self.pid}/fd"):
                try:
                    fds[int(name)] = os.readlink(f"/proc/{self.pid}/fd/{name}")
                except FileNotFoundError:
                    pass
            if sleep is not None and sleep == self._sleep():
                break
            time.sleep(0.001)
        return fds

    def _state(self) -> str:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return re.search(r"^State:\s+(\w)", status, re.M)[1]

    def _sleep(self) -> Optional[str]:
        """Which of its sleeps this is. None if it is awake."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        if not re.search(r"^State:\s+S", status, re.M):
            return None
        return re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1]

    def count_fds(self) -> int:
        return len(self.open_fds())

    def settled_fds(self) -> int:
        """How many descriptors are open when none has been closed for a while: workers close them when it suits."""
        counts: list[int] = []

        def is_settled() -> bool:
            counts.append(self.count_fds())
            return len(counts) > 30 and len(set(counts[-30:])) == 1

        wait_until(is_settled, "a number of descriptors that stays", self._scaled(None))
        return counts[-1]

    def wait_open_fds(self, count: int, timeout: Optional[float] = None) -> None:
        """Wait until this many descriptors are open: no event tells of a close."""
        try:
            wait_until(lambda: self.count_fds() == count, "open descriptors", self._scaled(timeout))
        except AssertionError:
            fds = self.open_fds()
            raise AssertionError(f"{count} descriptors should be open, not {len(fds)}: "
                                 f"{fds}") from None

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_descriptors(self, count: Optional[int] = None) -> None:
        """It may have so many open from now on; without a number, as many as at its start."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (most if count is None else count, most))

    # Agents.

    def path(self, name: str = "postfix") -> str:
        return self.manager.path(name)

    def agent(self, dialect: str = "postfix", uid: Optional[int] = None,
              timeout: Optional[float] = None, **how) -> Agent:
        """A new agent, closed with the daemon. uid: connect as this user (needs root)."""
        path = self.path(dialect)
        address = path if uid is None else connect_as(uid, path)
        agent = Agent(address, dialect, self._scaled(timeout), **how)
        self.agents.append(agent)
        return agent

    # Its end.

    def poll(self) -> Optional[int]:
        """Its exit status (negative: a signal) if it has ended."""
        if self.status is None:
            self.status = self._ended()
            if self.status is not None:
                os.close(self._pidfd)
        return self.status

    def _ended(self) -> Optional[int]:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait_exit(self, timeout: Optional[float] = None) -> int:
        """Wait until it ends by itself, and return its exit status."""
        if self.poll() is None:
            seconds = self._scaled(timeout)
            ended = select.poll()
            ended.register(self._pidfd, select.POLLIN)
            assert ended.poll(seconds * 1000), f"{self} did not exit within {seconds:g} s"
            self.poll()
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.poll() is None:
            self.killed_by = number
            os.kill(self.pid, number)

    def suspend(self) -> None:
        """Stop the process where it is. Time and the kernel go on, until resume()."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", "the daemon is suspended", self._scaled(None))

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it politely. It must leave with 0, and no tool that watches it may complain."""
        self.kill(number)
        self.wait_exit(10.0)
        self.check(0)

    def check(self, status: int) -> None:
        """It has ended with this exit status, and no tool that watched it has complained."""
        self._checked = True
        output = self.output()
        assert self.status == status, f"{self} exited with {self.status}:\n{output}"
        complaint = COMPLAINTS.search(output)
        assert not complaint, f"{self}: {complaint[0]}:\n{output}"
        leaked = _left_open(output)
        assert not leaked, f"{self} left descriptors open: {leaked}\n{output}"

    def close(self) -> None:
        """Close its agents, stop it if it runs, and check it if no test has."""
        for agent in self.agents:
            agent.close()
        try:
            if self.poll() is None:
                self.resume()
                self.stop()
            elif not self._checked and self.killed_by != signal.SIGKILL:
                self.check(0)
        finally:
            if self.poll() is None:
                self.kill()
                self.wait_exit()

    def __repr__(self) -> str:
        return f"scached[{self.pid}]"


def _left_open(output: str) -> list[str]:
    """What valgrind --track-fds=yes found open at the exit and not inherited."""
    entries = re.findall(r"==\d+== (Open .+)\n((?:==\d+==    .*\n)*)", output)
    return [name for name, rest in entries if "<inherited from parent>" not in rest]


def run_as(uid: int, function: Callable[[], object], gid: Optional[int] = None) -> bool:
    """Call this in a process of this user and group, by default that of the same number. False if it raised, which standard error
    tells about."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            function()
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def connect_as(uid: int, path: str) -> socket.socket:
    """A socket connected by a process of this user, which is what its other end sees for good."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    assert run_as(uid, lambda: connected.connect(path)), f"user {uid} cannot connect to {path}"
    return connected
