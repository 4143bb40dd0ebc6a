# SPDX-License-Identifier: LGPL-2.1-or-later
"""Postfix's own scache(8), run without Postfix, to compare with.

master(8) starts its services with a flow-control pipe on descriptors 3 and 4, the status pipe on 5
and the listening socket on 6, and tells them the rest by options. Anybody else can do the same. The
server reads a main.cf of our own in a folder of our own; the system's Postfix is neither needed nor
touched. Its log would go to syslog: it is sent to a postlogd(8) that does not exist, and -V brings
a copy to standard error.

scache(8) tells master(8) through the status pipe whenever it is busy and whenever it is idle.
Somebody has to read that, or it blocks after 2,730 requests. When nobody has the pipe open any more
it logs its statistics and leaves.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import shutil
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Optional

from connection import DEFAULT_TIMEOUT
from daemon import die_with_parent
from protocol import Agent

PATHS = ("/usr/lib/postfix/sbin/scache", "/usr/libexec/postfix/scache", "/usr/lib/postfix/scache",
         "/usr/lib/postfix/bin/scache")

FLOW_READ, FLOW_WRITE, STATUS, LISTEN = 3, 4, 5, 6

MAIN_CF = """\
compatibility_level = {compatibility_level}
queue_directory = {folder}/queue
data_directory = {folder}/data
myhostname = oracle.invalid
maillog_file = /dev/stdout
maillog_file_prefixes = /dev/stdout
connection_cache_ttl_limit = {ttl_limit}
max_idle = 36000s
"""


def find_scache() -> Optional[str]:
    """Where scache(8) is installed, if it is. POSTFIX_SCACHE overrides the usual places."""
    for path in (os.environ.get("POSTFIX_SCACHE"), *PATHS):
        if path and os.access(path, os.X_OK):
            return path
    return None


def greets(program: str) -> bool:
    """Whether it speaks first, as it does since Postfix 3.6: the name of its protocol is in no older one."""
    return b"connection_cache_protocol\0" in Path(program).read_bytes()


class Scache:
    """A running scache(8)."""

    def __init__(self, ttl_limit: str = "3600s"):
        program = find_scache()
        assert program, "Postfix's scache(8) is not installed"
        self.folder = Path(tempfile.mkdtemp(prefix="scache-"))
        self.folder.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir(mode=0o755)
        main_cf = self.folder / "etc" / "main.cf"
        self.dialect = "postfix" if greets(program) else "postfix-legacy"
        # Before 3.6 a level was a number. The last one of all brings no word about defaults that have changed.
        level = "3.999" if greets(program) else "2"
        main_cf.write_text(MAIN_CF.format(folder=self.folder, ttl_limit=ttl_limit, compatibility_level=level))
        # Postfix reads a file again until it is two seconds old, lest it was being written.
        os.utime(main_cf, (time.time() - 60, time.time() - 60))
        self.path = str(self.folder / "socket")
        self.stderr = self.folder / "stderr"
        self.agents: list[Agent] = []
        self.status: Optional[int] = None

        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(64)
        listener.setblocking(False)
        flow = os.pipe()
        self._status_read, status_write = os.pipe()
        self.pid = self._fork(program, (*flow, status_write, listener.fileno()))
        self._pidfd = os.pidfd_open(self.pid)
        listener.close()
        for fd in (*flow, status_write):
            os.close(fd)
        self._stop, stopped = os.pipe()[::-1]
        self._thread = threading.Thread(target=self._be_master, args=(stopped,), daemon=True)
        self._thread.start()

    def _fork(self, program: str, fds: tuple[int, ...]) -> int:
        pid = os.fork()
        if pid != 0:
            return pid
        try:
            # First out of the way of the numbers they go to, then there.
            fds = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD, LISTEN + 1) for fd in fds)
            null = os.open("/dev/null", os.O_RDWR)
            stderr = os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            numbers = (0, 1, 2, FLOW_READ, FLOW_WRITE, STATUS, LISTEN)
            for number, fd in zip(numbers, (null, null, stderr, *fds)):
                os.dup2(fd, number)
            os.closerange(LISTEN + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            die_with_parent()
            arguments = ["scache", "-l", "-n", "scache", "-t", "unix", "-V"]
            if os.geteuid() == 0:
                arguments.append("-u")  # to Postfix's own user
            os.execve(program, arguments, {
                "PATH": "/usr/bin:/bin",
                "MAIL_CONFIG": str(self.folder / "etc"),
                "POSTLOG_SERVICE": str(self.folder / "nobody"),  # until main.cf is read
                "GENERATION": "1",
            })
        except BaseException as error:
            os.write(2, f"cannot start {program}: {error!r}\n".encode())
        os._exit(127)

    def _be_master(self, stopped: int) -> None:
        ready = select.poll()
        ready.register(self._status_read, select.POLLIN)
        ready.register(stopped, select.POLLIN)
        while stopped not in dict(ready.poll()) and os.read(self._status_read, 65536):
            pass
        os.close(stopped)
        os.close(self._status_read)

    def agent(self, timeout: float = DEFAULT_TIMEOUT) -> Agent:
        agent = Agent(self.path, self.dialect, timeout)
        self.agents.append(agent)
        return agent

    def output(self) -> str:
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""

    def statistics(self) -> list[str]:
        """What it has logged about its use, but for the start of the interval. All of it is there
        once it has been stopped."""
        return re.findall("statistics: (?!start interval)(.*)", self.output())

    def stop(self) -> None:
        """Be a master that goes away: scache(8) logs its statistics and exits."""
        if self.status is not None:
            return
        for agent in self.agents:
            agent.close()
        os.close(self._stop)
        self._thread.join(DEFAULT_TIMEOUT)
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(DEFAULT_TIMEOUT * 1000):
            os.kill(self.pid, signal.SIGKILL)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._pidfd)

    def close(self) -> None:
        self.stop()
        output = self.output()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert self.status == 0, f"scache(8) exited with {self.status}:\n{output}"

    def __enter__(self) -> Scache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
