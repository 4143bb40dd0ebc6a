# SPDX-License-Identifier: LGPL-2.1-or-later
"""An ordinary user in group scache means harm to the service as it is installed and sandboxed: other users' agents do not notice,
and a restart meanwhile keeps everything of theirs.

What is done is in tests/agent/attacks.py, one row for each: pytest -k linger-queue.

    SCACHED_STALL_SECONDS=60   for so long the service manager and the journal stand still, instead of a second or two
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import pytest

from hostile import ALICE, FLOOD_RATIO, MALLORY, MEDIAN_RATIO, QUIET, Program, check, compare, prefer
from rig import Machine

SERVICE = "scached.service"
SOCKETS = ("scached.socket", "scached-control.socket")
NATIVE = "/run/scached/scached.sock"
NOTIFY = "/run/systemd/notify"
JOURNAL = "/run/systemd/journal/socket"

# STATUS= is due within a second.
ROUND_SECONDS = 1.5
STALL_SECONDS = float(os.environ.get("SCACHED_STALL_SECONDS", ROUND_SECONDS))

# So few of everything that limits are reached soon.
MEMORY_LIMIT_MIB = 16
SETTINGS = f"""\
connection_cache_ttl_limit = 1h
max_idle = 0
connection_cache_size_limit = 600
connection_cache_memory_limit = {MEMORY_LIMIT_MIB}M
agent_limit = 600
"""
DROP_IN = "/etc/systemd/system/scached.service.d/hostile.conf"
LIMITS = "[Service]\nLimitNOFILE=4096:65536\n"

PARKED = 200

# How much longer nobody may be served at a restart that goes on under attack; where other tests run beside, processes that have
# to do with it wait for their turn.
GAP_RATIO = 2 if QUIET else 6

# What a restart that one of the attacks makes wait would take, and more.
RESTART_SECONDS = 30


class Row(NamedTuple):
    arguments: tuple[str, ...] = ()
    most: float = MEDIAN_RATIO
    seconds: float = 0.15


ROWS = {
    "linger-overflow": Row(),
    "linger-queue": Row(),
    "linger-endless": Row(),
    "linger-unread": Row(),
    "linger-farewell": Row(),
    "linger-nested-once": Row(),
    "linger-nested-twice": Row(),
    "linger-listening": Row(),
    "slow-closes": Row(),
    "in-flight": Row(("--count=60",), seconds=0.3),
    "flood": Row(most=FLOOD_RATIO, seconds=0.3),
    "fill": Row(("--count=1500",)),
    "half-requests": Row(("--count=500",)),
    "own-socket": Row(("--count=500",)),
    "noise": Row(most=FLOOD_RATIO),
}


@pytest.fixture(scope="module")
def installed(module_machine) -> Machine:
    machine = module_machine
    machine.install()
    machine.write("/etc/scached/scached.conf", SETTINGS)
    machine.write(DROP_IN, LIMITS)
    machine.systemctl("daemon-reload")
    machine.run(["systemd-sysusers", "/usr/lib/sysusers.d/scached.conf"])
    machine.systemctl("enable", "--now", *SOCKETS)
    return machine


@pytest.fixture
def host(installed) -> Iterator[Machine]:
    """A machine whose service is as new, whatever the last test has done to it."""
    installed.mark = installed.journal_end()
    installed.systemctl("reset-failed", SERVICE, check=False)
    installed.systemctl("restart", SERVICE)
    yield installed
    installed.end_processes()
    installed.run("scachectl flush")


@pytest.fixture
def start(host) -> Iterator[Callable[..., Program]]:
    """A program of tests/agent, in the machine, as a user in group scache: start("attacks.py", "flood")."""
    def begin(command: list[str]) -> subprocess.Popen:
        return host.popen(["/usr/bin/python3", host.inside(Path(command[0])), *command[1:]],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None)

    with contextlib.ExitStack() as stack:
        yield lambda name, *arguments: stack.enter_context(Program(begin, name, *arguments))


def main_pid(host) -> int:
    """Of the service, as seen from inside."""
    return int(host.show(SERVICE, "MainPID")["MainPID"])


def outside(host, pid: int) -> int:
    """The same process, as seen from outside."""
    for each in (host.cgroup / f"system.slice/{SERVICE}/cgroup.procs").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            status = Path(f"/proc/{each}/status").read_text()
            if re.search(rf"^NSpid:.*\t{pid}$", status, re.MULTILINE):
                return int(each)
    raise AssertionError(f"process {pid} is not one of the service's")


@pytest.fixture
def alice(host, start) -> Program:
    bystander = start("bystander.py", NATIVE, f"--uid={ALICE}", "--group=scache")
    prefer(bystander.process.pid)
    prefer(outside(host, main_pid(host)))
    bystander.ask(f"park {PARKED}")
    return bystander


@pytest.fixture
def mallory(start) -> Callable[..., Program]:
    def begin(name: str, *arguments: str) -> Program:
        return start("attacks.py", name, NATIVE, f"--uid={MALLORY}", "--group=scache", *arguments)

    return begin


def striking(host, attack: Program) -> Callable[[], None]:
    """What has to be done after a begin of this attack."""
    def strike() -> None:
        if attack.what.split()[1] == "linger-farewell":
            pid = str(main_pid(host))
            host.run(["kill", "-STOP", pid])
            attack.ask("strike")
            host.run(["kill", "-CONT", pid])

    return strike


@pytest.mark.parametrize("name", ROWS)
def test_others_do_not_notice(host, alice, mallory, name):
    row = ROWS[name]
    pid = main_pid(host)
    attack = mallory(name, *row.arguments)
    comparison = compare(alice, attack, row.most, rounds=2, seconds=row.seconds, strike=striking(host, attack))
    if "skip" in comparison.told:
        pytest.skip(comparison.told["skip"])
    check(comparison, row.most)
    assert alice.ask("kept") == {"kept": PARKED}
    assert main_pid(host) == pid


def test_each_byte_costs_once(host, mallory):
    """A socket that is parked over and over, with as much room as there is by default, and talks: it is in no more than one place."""
    host.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\nmax_idle = 0\n")
    host.write(DROP_IN, "")
    try:
        host.systemctl("daemon-reload")
        host.systemctl("restart", SERVICE)
        attack = mallory("own-socket", "--count=16000")
        attack.ask("begin")
        parked = int(re.search(r"(\d+) parked", host.run("scachectl status").stdout)[1])
        print(f"{parked} copies are parked; {attack.ask('end')}")
        assert parked <= 1
    finally:
        host.write("/etc/scached/scached.conf", SETTINGS)
        host.write(DROP_IN, LIMITS)
        host.systemctl("daemon-reload")


def restart(host, alice) -> float:
    """Returns for how long nobody answered."""
    alice.say("ride")
    host.systemctl("restart", SERVICE, timeout=RESTART_SECONDS)
    alice.say("stop")
    return alice.hear(10.0)["gap"]


@pytest.mark.parametrize("name", ROWS)
def test_a_restart_keeps_the_others(host, alice, mallory, name):
    """All of theirs, and within twice the time that a quiet one takes."""
    row = ROWS[name]
    attack = mallory(name, *row.arguments)
    quiet, attacked = [], []
    for _ in range(2):
        quiet.append(restart(host, alice))
        told = attack.ask("begin")
        if "skip" in told:
            pytest.skip(told["skip"])
        striking(host, attack)()
        try:
            attacked.append(restart(host, alice))
        finally:
            attack.ask("end")
        assert alice.ask("kept") == {"kept": PARKED}, f"after {attacked[-1] * 1e3:.0f} ms"
    print(f"{name}: without an answer for {[f'{gap * 1e3:.0f} ms' for gap in quiet]}, "
          f"attacked {[f'{gap * 1e3:.0f} ms' for gap in attacked]}")
    assert min(attacked) < GAP_RATIO * max(quiet)
    lines = [entry["MESSAGE"] for entry in host.journal(unit=SERVICE)]
    assert not [line for line in lines if re.search(r"(?i)left-over process|SIGKILL|timed out", line)]


def test_half_requests_have_a_bound(host, mallory):
    """What agents have sent and not ended is within what the settings allow."""
    def resident_kib() -> int:
        return int(re.search(r"VmRSS:\s+(\d+) kB", host.read(f"/proc/{main_pid(host)}/status"))[1])

    attack = mallory("half-requests", "--count=590")
    before = resident_kib()
    attack.ask("begin")
    grown = resident_kib() - before
    print(f"half requests of 590 agents: {grown} KiB more")
    assert grown < (MEMORY_LIMIT_MIB + 8) << 10


def test_a_restart_while_the_journal_stands_still(host, alice):
    quiet = [restart(host, alice) for _ in range(2)]
    with stopped(host, "journal"):
        attacked = [restart(host, alice) for _ in range(2)]
    print(f"without an answer for {quiet}, while the journal stands still {attacked}")
    assert alice.ask("kept") == {"kept": PARKED}
    assert min(attacked) < 2 * max(quiet)


FORGERIES = {
    "forge-notify": NOTIFY,
    "forge-journal": JOURNAL,
    "forge-syslog": "/run/systemd/journal/dev-log",
    "forge-stdout": "/run/systemd/journal/stdout",
    "forge-bus": "/run/dbus/system_bus_socket",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_nobody_speaks_for_it(host, alice, mallory, name):
    """Neither the service manager nor the journal nor the message bus takes for the daemon's word what an agent has put into its mouth."""
    pid = main_pid(host)
    told = mallory(name, f"--to={FORGERIES[name]}").ask("begin")
    if name not in ("forge-stdout", "forge-bus"):
        assert set(told["statuses"]) == {2}, "what is no stream is no connection"
    assert told.get("heard", "OK") == "OK", "the bus has heard the daemon"
    shown = host.show(SERVICE, "MainPID", "ActiveState", "SubState", "StatusText", "NRestarts")
    assert "forged" not in shown.pop("StatusText")
    assert shown == {"MainPID": str(pid), "ActiveState": "active", "SubState": "running", "NRestarts": "0"}
    assert not [entry for entry in host.journal() if "forged" in (entry.get("MESSAGE") or "") and
                (entry.get("_SYSTEMD_UNIT") == SERVICE or entry.get("_PID") == str(pid))]
    assert alice.ask("kept") == {"kept": PARKED}


def as_user(host, uid: int, *command: str):
    return host.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--groups", group_id(host), "--", *command],
                    check=False)


def group_id(host) -> str:
    return host.run(["getent", "group", "scache"]).stdout.split(":")[2]


def test_scachectl_of_an_agent(host, alice, mallory):
    """An agent's user sees and flushes what is its own, and nothing else."""
    mallory("fill", "--count=5").ask("begin")
    for what in ((), ("--json",), ("--bindings",)):
        listed = as_user(host, MALLORY, "scachectl", "list", *what).stdout
        assert "parked" not in listed and str(ALICE) not in listed
    assert "fill" in as_user(host, MALLORY, "scachectl", "list").stdout
    as_user(host, MALLORY, "scachectl", "flush", "parked 1")
    as_user(host, MALLORY, "scachectl", "flush")
    assert alice.ask("kept") == {"kept": PARKED}
    assert "fill" not in as_user(host, MALLORY, "scachectl", "list").stdout
    assert "parked 1" in host.run("scachectl list").stdout


@contextlib.contextmanager
def verbose(host) -> Iterator[None]:
    host.write(DROP_IN, LIMITS + "ExecStart=\nExecStart=/usr/sbin/scached -v\n")
    host.systemctl("daemon-reload")
    host.systemctl("restart", SERVICE)
    try:
        yield
    finally:
        host.write(DROP_IN, LIMITS)
        host.systemctl("daemon-reload")


@contextlib.contextmanager
def stopped(host, who: str) -> Iterator[None]:
    """The service manager or the journal stands still, from outside."""
    pid = host.pid
    if who == "journal":
        (text,) = (host.cgroup / "system.slice/systemd-journald.service/cgroup.procs").read_text().split()
        pid = int(text)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("who", ["manager", "journal"])
def test_a_standstill(host, start, mallory, who):
    """Of PID 1 or the journal, under -v and load, with nobody reading its queue, which is full."""
    with verbose(host):
        alice = start("bystander.py", NATIVE, f"--uid={ALICE}", "--group=scache")
        prefer(alice.process.pid)
        prefer(outside(host, main_pid(host)))
        alice.ask(f"park {PARKED}")
        noise = mallory("noise")
        queue = mallory("full-queue", f"--to={NOTIFY if who == 'manager' else JOURNAL}")
        noise.ask("begin")

        def strike() -> None:
            stack.enter_context(stopped(host, who))
            queue.ask("begin")
            alice.ask("park 1")   # news for STATUS=

        def calm() -> None:
            queue.ask("end")   # a service manager that reads all that would do nothing else
            stack.close()

        with contextlib.ExitStack() as stack:
            comparison = compare(alice, Standstill(strike, calm), FLOOD_RATIO, rounds=1, seconds=ROUND_SECONDS,
                                 at_once=max(1, round(STALL_SECONDS / ROUND_SECONDS)))
        check(comparison, FLOOD_RATIO)
        assert alice.ask("kept")["kept"] > PARKED
        host.wait(lambda: host.show(SERVICE, "ActiveState")["ActiveState"] == "active", 10)


class Standstill:
    """As a program that attacks."""
    what = "a standstill"

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]):
        self.commands = {"begin": begin, "end": end}

    def ask(self, command: str) -> dict:
        self.commands[command]()
        return {}


@contextlib.contextmanager
def only_in_the_store(host) -> Iterator[Callable[[], None]]:
    """Call it to end the service: then no process of it is there for a minute."""
    def leave() -> None:
        host.run(["kill", "-TERM", str(main_pid(host))])
        host.wait(lambda: host.show(SERVICE, "SubState")["SubState"] == "auto-restart", 10)
        assert host.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] != "0"

    host.write(DROP_IN, LIMITS + "Restart=always\nRestartSec=60\n")
    host.systemctl("daemon-reload")
    try:
        yield leave
    finally:
        host.write(DROP_IN, LIMITS)
        host.systemctl("daemon-reload")


def processes(host) -> set[str]:
    """Of the service, and what it has left."""
    try:
        return set((host.cgroup / f"system.slice/{SERVICE}/cgroup.procs").read_text().split())
    except OSError:
        return set()


def test_a_linger_in_the_store(host, alice, mallory):
    """Whoever can set its linger again has done so while only systemd and our own helper have it: a stop waits for nobody, and all
    peers see the end."""
    with only_in_the_store(host) as leave:
        attack = mallory("linger-later", "--count=3")
        attack.ask("begin")
        leave()
        attack.ask("linger")
        began = time.monotonic()
        try:
            host.systemctl("stop", SERVICE, timeout=10)
            host.show(SERVICE, "ActiveState")
            took = time.monotonic() - began
            assert alice.ask("ended") == {"ended": PARKED}
        finally:
            attack.ask("end")
        print(f"the service manager was busy for {took * 1e3:.0f} ms")
        assert took < 1.0
        host.wait(lambda: processes(host) == set(), 10)
        assert not [entry["MESSAGE"] for entry in host.journal(unit=SERVICE)
                    if re.search(r"(?i)left-over process|SIGKILL|timed out", entry["MESSAGE"])]


def test_a_file_that_never_closes_and_the_store(host, alice, mallory):
    """The process that stays behind may have got some of those files: no peer waits for the end behind them."""
    with only_in_the_store(host) as leave:
        attack = mallory("slow-closes")
        told = attack.ask("begin")
        if "skip" in told:
            pytest.skip(told["skip"])
        leave()
        try:
            host.systemctl("stop", SERVICE, timeout=10)
            assert alice.ask("ended") == {"ended": PARKED}
        finally:
            attack.ask("end")
        host.wait(lambda: processes(host) == set(), 10)


def test_nothing_is_left_of_a_restart(host, alice):
    """The process that keeps copies of what is stored ends when the next one has taken it over, and systemd says nothing of it."""
    host.wait(lambda: len(processes(host)) == 1, 10)
    for _ in range(3):
        restart(host, alice)
    assert alice.ask("kept") == {"kept": PARKED}
    host.wait(lambda: len(processes(host)) == 1, 10)
    assert not [entry["MESSAGE"] for entry in host.journal(unit=SERVICE) if "left-over" in entry["MESSAGE"]]
