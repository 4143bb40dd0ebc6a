# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine: a real systemd, booted for a test in about half a second, and how a test works in it.

    with Machine() as machine:
        machine.write("/etc/systemd/system/hello.service", "[Service]\nExecStart=echo hello\n")
        machine.run("systemctl start hello.service")
        machine.journal_wait("hello", unit="hello.service")

The machine shows the files of this host, or of another root file system, and keeps its changes to itself. See boot for how.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import kernel

REPO = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SCACHED_BUILD") or REPO / "build").resolve()
BOOT = Path(__file__).resolve().with_name("boot")

# Where they are inside every machine, read-only.
REPO_INSIDE = Path("/run/host/repo")
BUILD_INSIDE = Path("/run/host/build")

# By how much all timeouts are multiplied, here and in every machine: tests/README.md.
PATIENCE = float(os.environ.get("SCACHED_PATIENCE", "1"))

EXIT_UNSUPPORTED = 77   # boot's way to say that this host cannot
BOOT_TIMEOUT = 90 * PATIENCE
STOP_TIMEOUT = 45 * PATIENCE

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONPATH": f"{REPO_INSIDE}/tests/agent:{REPO_INSIDE}/tests/system",
    "PYTHONDONTWRITEBYTECODE": "1",   # the repository is read-only there
    **{name: value for name, value in os.environ.items() if name == "SCACHED_PATIENCE"},
}

Entry = dict[str, Any]
T = TypeVar("T")


class Unsupported(Exception):
    """This host cannot boot a machine; the text says why."""


class MachineError(Exception):
    """The machine itself failed, not what runs in it."""


class CommandFailed(AssertionError):
    """A command in the machine ended in another way than the test expected."""

    def __init__(self, result: subprocess.CompletedProcess, outcome: str):
        command = result.args if isinstance(result.args, str) else shlex.join(map(str, result.args))
        super().__init__(f"{command}\n{outcome}\n--- stdout\n{result.stdout}\n"
                         f"--- stderr\n{result.stderr}")


def readable(fd: int, timeout: float) -> bool:
    """poll(2) rather than select(2): a test may well have more than 1024 descriptors open."""
    events = select.poll()
    events.register(fd, select.POLLIN)
    return bool(events.poll(max(0, timeout) * 1000))


def _wait_process(process: subprocess.Popen, timeout: float) -> bool:
    """Unlike Popen.wait(timeout) this does not sleep in between."""
    if process.returncode is not None:
        return True
    pidfd = os.pidfd_open(process.pid)
    try:
        ended = readable(pidfd, timeout)
    finally:
        os.close(pidfd)
    if ended:
        process.wait()
    return ended


def _memory_file(content: bytes = b"") -> int:
    fd = os.memfd_create("scached-test")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


class Machine:
    """A booted systemd. Use it as a context manager, or start() and stop() it."""

    def __init__(self, repo: Path = REPO, build: Path = BUILD, root: Path = Path("/")):
        self.repo, self.build = repo, build
        self.root = root                   # whose files and systemd it has
        self.pid = 0                       # of its systemd, as seen from outside
        self.cgroup = Path()               # likewise
        self.boot_seconds = 0.0
        self.mark = 0                      # what the journal said up to here is not looked at
        self._supervisor: subprocess.Popen | None = None
        self._console = None
        self._fds: list[int] = []
        self._processes: list[subprocess.Popen] = []

    def __enter__(self) -> "Machine":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    # Life

    def start(self) -> None:
        """Boot, and return when systemd says that it is up. Raises Unsupported or MachineError."""
        if os.geteuid() != 0:
            raise Unsupported("a machine needs root")
        began = time.monotonic()
        folders = {"repo": self.repo} | ({"build": self.build} if self.build.is_dir() else {})
        self._console = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C ends the test, which then ends the machine, in this order.
        # And when this process dies in any other way, the closed standard input says the same.
        self._supervisor = subprocess.Popen(
            [sys.executable, BOOT, f"--root={self.root}", *(f"{name}={folder}" for name, folder in folders.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._console,
            start_new_session=True, bufsize=0)
        try:
            deadline = began + BOOT_TIMEOUT
            first = self._hear(deadline)
            self.pid, self.cgroup = first["pid"], Path(first["cgroup"])
            self._hear(deadline)
            self._open()
        except BaseException:
            with contextlib.suppress(MachineError):
                self.stop()
            raise
        self.boot_seconds = time.monotonic() - began

    def _hear(self, deadline: float) -> dict:
        """The next line of the supervisor."""
        line = b""
        while not line.endswith(b"\n"):
            if not readable(self._supervisor.stdout.fileno(), deadline - time.monotonic()):
                raise MachineError(f"no boot within {BOOT_TIMEOUT} s; its console:\n"
                                   f"{self.console()}")
            got = self._supervisor.stdout.read(4096)
            if not got:
                status = self._supervisor.wait(STOP_TIMEOUT)
                console = self.console()
                if status == EXIT_UNSUPPORTED:
                    raise Unsupported(console.strip().rpartition("\n")[2])
                raise MachineError(f"boot failed with status {status}; its console:\n{console}")
            line += got
        return json.loads(line.splitlines()[-1])

    def _open(self) -> None:
        """Hold what a process needs to get in."""
        self._pidfd = os.pidfd_open(self.pid)
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
        self._root = os.open(f"/proc/{self.pid}/root", os.O_PATH)
        self._procs = os.open(self.cgroup / "init.scope/cgroup.procs", os.O_WRONLY)
        self._fds = [self._pidfd, self._own_pids, self._root, self._procs]

    def stop(self) -> None:
        """Switch it off. Raises MachineError if anything of it could not be removed."""
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._supervisor, None
        self.end_processes()
        supervisor.stdin.close()
        supervisor.stdout.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        if not _wait_process(supervisor, STOP_TIMEOUT):
            raise MachineError(f"boot (pid {supervisor.pid}) does not leave; its console:\n"
                               f"{self.console()}")
        if supervisor.returncode != 0:
            raise MachineError(f"boot left with status {supervisor.returncode}; its console:\n"
                               f"{self.console()}")

    @property
    def alive(self) -> bool:
        """Whether its systemd still runs."""
        for process in self._processes:   # the kernel does not bury systemd before its descendants
            process.poll()
        return self._supervisor is not None and bool(self._fds) and not readable(self._pidfd, 0)

    def console(self) -> str:
        """What systemd wrote to the console, and boot to standard error."""
        return _content(self._console.fileno())

    # Processes

    def _enter(self, cwd: str) -> None:
        """In a new process, before it executes: go where it belongs."""
        os.write(self._procs, b"0")
        kernel.setns(self._pidfd, kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC
                     | kernel.CLONE_NEWNET | kernel.CLONE_NEWCGROUP)
        os.fchdir(self._root)   # not the namespace's own root if the tests run in a chroot
        os.chroot(".")
        os.chdir(cwd)
        os.umask(0o022)
        for number in (signal.SIGINT, signal.SIGQUIT):   # a shell's background jobs ignore them
            signal.signal(number, signal.SIG_DFL)
        kernel.drop_outward_capabilities()

    def popen(self, command: str | list, *, user: str | None = None, env: dict | None = None,
              cwd: str = "/", **options) -> subprocess.Popen:
        """Start a process in the machine: a child of the caller, an inhabitant of the machine.

        A string is a shell command, a list is executed as it is. Takes all of Popen's options but
        preexec_fn; text is the default, standard input is empty by default. It dies with the
        machine at the latest.
        """
        if not self.alive:
            raise MachineError(f"the machine is not running; its console:\n{self.console()}")
        argv = ["sh", "-c", command] if isinstance(command, str) else [str(a) for a in command]
        if user is not None:   # the machine may know other users than this host
            argv = ["sh", "-c", 'user=$1; shift; exec setpriv --reuid="$user" '
                    '--regid="$(id -g "$user")" --init-groups -- "$@"', "sh", user, *argv]
        options = {"stdin": subprocess.DEVNULL, "text": True, "errors": "replace"} | options
        if not options["text"]:
            del options["errors"]

        # Only children of this thread are born in the other pid namespace, the thread itself stays.
        kernel.setns(self._pidfd, kernel.CLONE_NEWPID)
        try:
            process = subprocess.Popen(argv, env=ENVIRONMENT | (env or {}), start_new_session=True,
                                       preexec_fn=lambda: self._enter(cwd), **options)
        except OSError as error:
            if error.errno == errno.ENOMEM:   # so fork(2) says that the namespace has lost its init
                raise MachineError("the machine has just died") from error
            raise
        finally:
            kernel.setns(self._own_pids, kernel.CLONE_NEWPID)
        self._processes = [p for p in self._processes if p.returncode is None] + [process]
        return process

    def end_processes(self) -> None:
        """Kill what popen() has started and nobody has ended."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._processes.clear()

    def run(self, command: str | list, *, check: bool = True, timeout: float = 60,
            input: str = "", **options) -> subprocess.CompletedProcess:
        """Run a command in the machine to its end; returns its stdout, stderr and returncode.

        With check, another status than 0 raises CommandFailed, as a timeout always does. What the
        command leaves running in the background keeps running, and is not waited for.
        """
        timeout *= PATIENCE
        stdin, stdout, stderr = _memory_file(input.encode()), _memory_file(), _memory_file()
        try:
            process = self.popen(command, stdin=stdin, stdout=stdout, stderr=stderr, **options)
            try:
                ended = _wait_process(process, timeout)
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            result = subprocess.CompletedProcess(command, process.returncode,
                                                 _content(stdout), _content(stderr))
        finally:
            for fd in (stdin, stdout, stderr):
                os.close(fd)
        if not ended:
            raise CommandFailed(result, f"did not end within {timeout} s")
        if check and result.returncode != 0:
            raise CommandFailed(result, f"status {result.returncode}")
        return result

    def python(self, program: str | Path, *args, **options) -> subprocess.CompletedProcess:
        """Run Python in the machine: a Path is a script of the repository, a string is code.

        Modules of tests/agent and tests/system can be imported there. Takes run()'s options.
        """
        what = [self.inside(program)] if isinstance(program, Path) else ["-c", program]
        return self.run(["/usr/bin/python3", *what, *args], **options)

    def inside(self, path: Path) -> Path:
        """Where a path of the repository or the build folder is in the machine."""
        path = path.resolve()
        for outside, inside in ((self.build, BUILD_INSIDE), (self.repo, REPO_INSIDE)):
            if path.is_relative_to(outside):
                return inside / path.relative_to(outside)
        raise ValueError(f"{path} is neither in the repository nor in the build folder")

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread opens meanwhile belong to the machine's network, for good."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            kernel.setns(self._pidfd, kernel.CLONE_NEWNET)
            try:
                yield
            finally:
                kernel.setns(own, kernel.CLONE_NEWNET)
        finally:
            os.close(own)

    # Files

    def write(self, path: str, text: str, mode: int | None = None) -> None:
        """Replace a file, making its folders."""
        self.run(["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path], input=text)
        if mode is not None:
            self.run(["chmod", f"{mode:o}", path])

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    # systemd

    def systemctl(self, *args, **options) -> subprocess.CompletedProcess:
        return self.run(["systemctl", *args], **options)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, as systemctl show names them; all of them if none is named."""
        chosen = [f"--property={','.join(properties)}"] if properties else []
        lines = self.systemctl("show", unit, *chosen).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def exposure(self, unit: str) -> float:
        """What systemd-analyze(1) thinks of its sandbox: 10 is no sandbox at all."""
        said = self.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
        return float(re.search(r"Overall exposure level for .*: (\S+)", said)[1])

    def install(self, *variables: str) -> None:
        """`make install`, as an administrator does it, of what has been built: all up to date,

        because the machine cannot write into the repository. Variables as in "SANITIZE=address".
        """
        build = self.build
        where = build.relative_to(self.repo) if build.is_relative_to(self.repo) else BUILD_INSIDE
        # The kernel counts by user what is sent and not yet received, and knows one user of this number for all machines.
        self.run(["useradd", "--system", "--no-create-home", f"--uid={70000 + os.getpid() % 50000}", "scached"], check=False)
        self.run(["make", "-C", REPO_INSIDE, "install", "prefix=/usr", f"B={where}", *variables])
        self.systemctl("daemon-reload")

    # The journal. Positions are sequence numbers, because journalctl --after-cursor together with a
    # match loses the first entry if the one at the cursor does not match (systemd 252).

    @staticmethod
    def _journalctl(matches: dict[str, str]) -> list[str]:
        return ["journalctl", "--output=json", "--all", "--quiet", "--no-pager",
                *(f"{name}={value}" for name, value in matches.items())]

    def journal_end(self) -> int:
        """The position of the last entry, for the `after` of the others and for `mark`."""
        self.run(["journalctl", "--sync"])
        line = self.run([*self._journalctl({}), "--lines=1"]).stdout
        return _position(_entry(line)) if line else 0

    def journal(self, unit: str | None = None, after: int | None = None,
                **matches: str) -> list[Entry]:
        """Entries after `after`, or `mark`; by unit, see _is_of(), and FIELD=value."""
        after = self.mark if after is None else after
        self.run(["journalctl", "--sync"])
        entries = filter(_is_of(unit), map(_entry, self.run(self._journalctl(matches)).stdout.splitlines()))
        return [entry for entry in entries if _position(entry) > after]

    def journal_follow(self, unit: str | None = None, timeout: float = 10, after: int | None = None,
                       **matches: str) -> Iterator[Entry]:
        """Like journal(), and then what comes, as it comes; ends when the time is over."""
        after = self.mark if after is None else after
        deadline = time.monotonic() + timeout * PATIENCE
        process = self.popen([*self._journalctl(matches), "--follow", "--lines=all"],
                             stdout=subprocess.PIPE, text=False, bufsize=0)
        is_ours = _is_of(unit)
        try:
            pending = b""
            while readable(process.stdout.fileno(), deadline - time.monotonic()):
                got = os.read(process.stdout.fileno(), 1 << 16)
                if not got:
                    raise MachineError("journalctl --follow ended by itself")
                *lines, pending = (pending + got).split(b"\n")
                for entry in filter(is_ours, map(_entry, lines)):
                    if _position(entry) > after:
                        yield entry
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def journal_wait(self, pattern: str, unit: str | None = None, timeout: float = 10,
                     after: int | None = None, **matches: str) -> Entry:
        """The first entry, there or still to come, in whose message the pattern is found."""
        seen: list[Entry] = []
        for entry in self.journal_follow(unit, timeout, after, **matches):
            if re.search(pattern, entry.get("MESSAGE") or ""):
                return entry
            seen.append(entry)
        raise AssertionError(f"nothing like {pattern!r} in the journal of {unit or 'the machine'} "
                             f"within {timeout * PATIENCE} s, only:\n{format_entries(seen[-50:])}")

    # Waiting

    def wait(self, predicate: Callable[[], T], timeout: float = 10, what: str = "") -> T:
        """Ask until the answer is true, and return it. For what sends no event of its own."""
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        pause = 0.005
        while not (answer := predicate()):
            if time.monotonic() >= deadline:
                raise AssertionError(f"not within {timeout} s: {what or predicate.__name__}; "
                                     f"last answer: {answer!r}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        return answer


def _entry(line: str | bytes) -> Entry:
    """journalctl writes a field that is not text as a list of its bytes."""
    entry = json.loads(line)
    for name, value in entry.items():
        if isinstance(value, list) and all(isinstance(byte, int) for byte in value):
            entry[name] = bytes(value).decode(errors="replace")
    return entry


def _is_of(unit: str | None) -> Callable[[Entry], bool]:
    """Is an entry from this unit, or systemd's about it? To be asked of all entries, in their order.

    Of the last words of a process that has ended meanwhile journald cannot say from which unit they are, and journalctl -u
    does not show them: they are from the one of its earlier words.
    """
    pids: set[str] = set()

    def is_of(entry: Entry) -> bool:
        pid = entry.get("_PID", "")
        if entry.get("_SYSTEMD_UNIT") == unit:
            pids.add(pid)
        return (unit is None or pid == "1" and entry.get("UNIT") == unit or
                pid in pids and entry.get("_SYSTEMD_UNIT", unit) == unit)

    return is_of


def _position(entry: Entry) -> int:
    return int(re.search(r"\bi=([0-9a-f]+)", entry["__CURSOR"])[1], 16)


def format_entries(entries: list[Entry]) -> str:
    """For a person, much like journalctl's own short form."""
    return "\n".join(f"{e.get('SYSLOG_IDENTIFIER', '?')}[{e.get('_PID', '?')}]: {e.get('MESSAGE')}"
                     for e in entries)
