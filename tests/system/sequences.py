#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random sequences of what administrators type, on the installed service, with agents that ask and connections that are parked.

    sequences.py [--seed=N] [--first=0] [--count=200] [--length=5] [--only=I]

Each sequence begins with all sockets open. It may do to units whatever systemctl can, in any order and at any pace. During
and after it, no socket that is meant to be open may be without an answer for longer than OUTAGE_MAX seconds; afterwards
the journal is quiet; and of what is parked, everything is found again or was told goodbye, as many as the journal says.
Which sequences there are depends on the seed alone. One that fails is made as short as it can be, with a new machine for
each try.
`make check` runs a few of them: test_sequences.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "agent"))
from books import Books
from rig import Machine, Unsupported, format_entries, readable

SERVICE = "scached.service"
SECOND = "scached@srv-second.service"   # of another instance of Postfix
SOCKETS = {   # and how workers.py is to ask there
    "scached.socket": "native=/run/scached/scached.sock",
    "scached-control.socket": "control=/run/scached/control.sock",
    "scached-postfix.socket": "postfix=/var/spool/postfix/private/scached",
    "scached-postfix@srv-second.socket": "postfix=/srv/second/private/scached",
}
SERVICES = {socket: SECOND if "@" in socket else SERVICE for socket in SOCKETS}
UNITS = (*SOCKETS, SERVICE, SECOND)
GLOBS = ("scached*", "scached*.socket")

OUTAGE_MAX = 5.0       # seconds
QUIET = 1.5            # seconds that the journal is watched after a sequence
QUIET_LINES_MAX = 10   # what comes late on a busy machine; a loop of restarts writes many times that
LINES_MAX = 100        # of a sequence, which takes less than a minute, about a service and its sockets ...
LINES_OF_ALL = 30      # ... unless what was typed restarts all of that each time
KEPT = 20              # connections

# Which verbs there are, and how often.
VERBS = {"restart": 6, "stop": 3, "start": 4, "try-restart": 2, "reload": 2, "reload-or-restart": 2, "reenable --now": 2,
         "mask": 2, "unmask": 2, "edit": 2, "move": 1, "revert": 2, "daemon-reload": 1, "reset-failed": 2, "kill": 1,
         "kill --signal=KILL": 1, "isolate": 1, "upgrade": 2}
# systemctl knows units of these only by their names.
WITHOUT_GLOBS = {"reenable --now", "mask", "unmask", "edit", "move", "revert"}
WITHOUT_UNITS = {"daemon-reload": "systemctl daemon-reload", "isolate": "systemctl isolate machine.target",
                 # What the scripts of packages do: new files, and one restart of what runs.
                 "upgrade": "for file in $(command -v scached) /usr/lib/systemd/system/scached*; do "
                 "cp -p $file $file.new && mv $file.new $file; done; systemctl daemon-reload; "
                 "systemctl try-restart scached.service 'scached@*.service'"}
CAN_BE_QUEUED = {"restart", "stop", "start", "try-restart", "reload", "reload-or-restart"}


@dataclass(frozen=True)
class Command:
    verb: str
    units: tuple[str, ...]
    is_queued: bool = False   # systemctl does not wait for it
    pause: float = 0          # seconds, after it

    def lines(self) -> list[str]:
        """For a shell."""
        if self.verb in WITHOUT_UNITS:
            return [WITHOUT_UNITS[self.verb]]
        if self.verb == "edit":
            return [write_drop_in(unit, "override", "[Unit]\\nDocumentation=man:scached(8)\\n") for unit in self.units] + [
                "systemctl daemon-reload"]
        if self.verb == "move":
            return [write_drop_in(unit, "moved", f"[Socket]\\nListenStream=\\nListenStream=/run/moved-{unit}\\n")
                    for unit in self.units if unit in SOCKETS] + ["systemctl daemon-reload"]
        if self.verb == "revert":
            return [f"rm -rf /etc/systemd/system/{unit}.d" for unit in self.units] + ["systemctl daemon-reload"]
        option = "--no-block " if self.is_queued else ""
        return [f"systemctl {option}{self.verb} {' '.join(map(repr, self.units))}"]

    def __str__(self) -> str:
        return "; ".join(self.lines()) + (f"; sleep {self.pause}" if self.pause else "")


def write_drop_in(unit: str, name: str, text: str) -> str:
    folder = f"/etc/systemd/system/{unit}.d"
    return f"mkdir -p {folder} && printf '{text}' >{folder}/{name}.conf"


def draw(source: random.Random) -> Command:
    verb = source.choices(list(VERBS), list(VERBS.values()))[0]
    if verb in WITHOUT_UNITS:
        units = ()
    elif verb not in WITHOUT_GLOBS and source.random() < 0.2:
        units = (source.choice(GLOBS),)
    else:
        units = tuple(source.sample(UNITS, source.choices((1, 2, 3, 4), (8, 3, 3, 2))[0]))
    return Command(verb, units, verb in CAN_BE_QUEUED and source.random() < 0.3, source.choice((0, 0, 0.05, 0.3)))


def sequence(seed: int, number: int, length: int) -> list[Command]:
    source = random.Random(f"{seed} {number}")
    return [draw(source) for _ in range(length)]


class Meant:
    """Which sockets are meant to be open: nobody has stopped or masked them since they were opened.

    One that was stopped may be open all the same, because whoever starts the service opens the sockets that are enabled."""

    def __init__(self) -> None:
        self.is_open = dict.fromkeys(SOCKETS, True)
        self.masked: set[str] = set()
        self.deaf: set[str] = set()   # masked while open: systemd forgets what it listened on, until a restart
        self.stuck: set[str] = set()  # stopped while masked: it leaves behind what it no longer knows of
        self.moved: set[str] = set()  # to where nobody asks
        self.disabled: set[str] = set()   # by a reenable that found it masked
        self.may_part = False   # with what is parked, saying goodbye
        self.may_lose = False   # it, saying nothing
        self.spans: list[tuple[str, float, float]] = []   # when which was open
        self._since = dict.fromkeys(SOCKETS, 0.0)

    def serves(self, unit: str) -> bool:
        return self.is_open[unit] and SERVICES[unit] not in self.masked

    def before(self, command: Command) -> None:
        """What is not meant to be any more as soon as it is typed."""
        units = self._matched(command)
        sockets = [unit for unit in units if unit in SOCKETS]
        if command.verb == "stop":
            self._close(sockets)
            self.stuck.update(self.masked.intersection(sockets))
            self.deaf.difference_update(units)
            self.may_part |= SERVICE in units
        elif command.verb == "mask":
            self._end_spans(socket for socket in SOCKETS if SERVICES[socket] in units)
            self._close(sockets)
            self.deaf.update(sockets)
            self.masked.update(units)
            self.may_part = True   # a restart may find no socket, or nobody who keeps anything
        elif command.verb in ("restart", "reload-or-restart", "try-restart"):
            # systemd opens no socket of a service that is masked.
            self._close(unit for unit in sockets if SERVICES[unit] in self.masked and unit not in self.masked)
        elif command.verb == "move":
            self._close(sockets)
            self.deaf.update(sockets)
            self.moved.update(sockets)
        elif command.verb == "revert":
            self.deaf.update(self.moved.intersection(units))
            self.moved.difference_update(units)
        elif command.verb == "isolate":
            self.stuck.update(self.masked.intersection(SOCKETS))
            self._close(self.disabled)
            self.may_part = True   # nobody has enabled the service
        elif command.verb == "reenable --now" and self.masked.intersection(units):
            self.disabled.update(sockets)
        elif command.verb.startswith("kill"):
            self.may_part |= SERVICE in units
            self.may_lose |= SERVICE in units and "KILL" in command.verb

    def after(self, command: Command, worked: bool) -> None:
        """What is meant to be from here on."""
        units = self._matched(command)
        if not worked:   # as it has told; newer ones do nothing if one of several units is masked
            self._begin_spans()
            return
        if command.verb == "unmask":
            self.masked.difference_update(units)
        elif command.verb in ("start", "restart", "reload-or-restart") and not command.units[0] in GLOBS:
            # Of a glob, systemd takes the units that it has in memory.
            if command.verb != "start":
                self.deaf.difference_update(unit for unit in units if unit not in self.masked)
            opened = {unit for unit in units if unit in SOCKETS}
            for service in set(SERVICES.values()).intersection(units) - self.masked:
                its = {socket for socket in SOCKETS if SERVICES[socket] == service}
                if command.verb != "reload-or-restart":
                    opened |= its - self.disabled
                if command.verb == "restart":
                    self.stuck -= its - self.masked
            for unit in opened - self.masked - self.deaf - self.stuck - self.moved:
                if SERVICES[unit] not in self.masked:
                    self.is_open[unit] = True
        self._begin_spans()

    def end(self) -> None:
        self._end_spans(SOCKETS)

    def _matched(self, command: Command) -> list[str]:
        if not command.units:
            return []
        if command.units[0] == "scached*":
            return list(UNITS)
        return list(SOCKETS) if command.units[0] in GLOBS else list(command.units)

    def _close(self, units: Iterable[str]) -> None:
        for unit in list(units):
            self._end_spans([unit])
            self.is_open[unit] = False

    def _end_spans(self, units: Iterable[str]) -> None:
        for unit in units:
            if self._since[unit]:
                self.spans.append((unit, self._since[unit], time.monotonic()))
                self._since[unit] = 0.0

    def begin(self) -> None:
        self._begin_spans()

    def _begin_spans(self) -> None:
        for unit in SOCKETS:
            if self.serves(unit) and not self._since[unit]:
                self._since[unit] = time.monotonic()


class Failed(AssertionError):
    """A sequence did not end as it should; the text says how."""


class Worker:
    def __init__(self, machine: Machine, *arguments: str):
        self.process = machine.popen(
            ["/usr/bin/python3", machine.inside(Path(__file__).with_name("workers.py")), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def hear(self) -> dict:
        assert readable(self.process.stdout.fileno(), 60), "a worker says nothing"
        line = self.process.stdout.readline()
        assert line, f"a worker failed:\n{self.process.stderr.read()}"
        return json.loads(line)

    def ask(self) -> dict:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.hear()


class Host:
    """A machine with the service, and agents that never cease to ask."""

    def __init__(self, machine: Machine):
        self.machine = machine
        machine.install()
        machine.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\nmax_idle = 0\n"
                      "postfix_config_directories = /etc/postfix, /etc/second\n")
        machine.run("getent passwd postfix >/dev/null || useradd --system postfix; "
                    "mkdir -p /var/spool/postfix/private /etc/postfix /srv/second/private")
        machine.write("/etc/second/main.cf", "queue_directory = /srv/second\n")
        machine.run("touch -d '1 hour ago' /etc/postfix/main.cf /etc/second/main.cf")   # of which the service wants to know the time
        machine.systemctl("enable", "--now", *SOCKETS)
        self.asker = Worker(machine, "ask", *SOCKETS.values())

    def answered(self) -> dict[str, float]:
        """When each socket was last answered, by unit. Gaps since the last time are added to self.gaps."""
        said = self.asker.ask()
        units = {how: unit for unit, how in SOCKETS.items()}
        self.gaps += [(units[how], begin, end) for how, begin, end in said["gaps"]]
        return {units[how]: at for how, at in said["last"].items()}

    def wait_served(self, units: list[str], since: float) -> None:
        deadline = time.monotonic() + OUTAGE_MAX
        while silent := [unit for unit in units if self.answered().get(unit, 0) < since]:
            if time.monotonic() > deadline:
                raise Failed(f"{OUTAGE_MAX} s after the end nobody answers on {', '.join(silent)}")
            time.sleep(0.02)

    def settle(self) -> None:
        """What was queued comes to its end."""
        deadline = time.monotonic() + OUTAGE_MAX
        while jobs := self.machine.systemctl("list-jobs", "--no-legend", "--plain", "scached*").stdout:
            if time.monotonic() > deadline:
                raise Failed(f"{OUTAGE_MAX} s after the end there are jobs:\n{jobs}")

    def lines(self) -> int:
        """How many the service manager wrote about our units, and we: of the service that has most."""
        units = [entry.get("UNIT", entry.get("_SYSTEMD_UNIT", "")) for entry in self.machine.journal()]
        seconds = sum("second" in unit for unit in units)
        return max(seconds, sum(unit.startswith("scached") for unit in units) - seconds)

    def books(self) -> Books:
        return Books(entry["MESSAGE"] for entry in self.machine.journal(SYSLOG_IDENTIFIER="scached"))

    def check_lines(self, commands: list[Command]) -> None:
        whole = sum(not command.units or command.units[0] in GLOBS for command in commands)
        if (lines := self.lines()) > max(LINES_MAX, LINES_OF_ALL * whole):
            raise Failed(f"{lines} lines in the journal")

    def check_quiet(self) -> None:
        lines = self.lines()
        time.sleep(QUIET)   # this is what is measured
        more = self.lines() - lines
        if more > QUIET_LINES_MAX:
            raise Failed(f"{more} lines in the journal within {QUIET} s after the end")

    def restore(self, deaf: set[str] = frozenset(), stuck: set[str] = frozenset()) -> None:
        """Sockets that were closed on purpose are opened, and so on, as scached(8) says."""
        self.machine.run("systemctl unmask " + " ".join(UNITS) + " && rm -rf /etc/systemd/system/scached*.d && "
                         "systemctl daemon-reload && systemctl --quiet enable " + " ".join(SOCKETS))
        if stuck:
            self.machine.systemctl("restart", SERVICE, SECOND)
        result = self.machine.systemctl("start", *SOCKETS, check=False)
        if result.returncode != 0:
            raise Failed(f"sockets do not start: {result.stderr}")
        if deaf:
            self.machine.systemctl("restart", *deaf)
        self.wait_served(list(SOCKETS), time.monotonic())

    def run(self, commands: list[Command]) -> dict:
        """Returns what became of the parked connections. Raises Failed."""
        machine, self.gaps = self.machine, []
        self.restore()
        keeper = Worker(machine, "keep", "/run/scached/scached.sock", str(KEPT))
        keeper.hear()
        self.gaps.clear()
        machine.mark = machine.journal_end()
        meant = Meant()
        meant.begin()
        for command in commands:
            meant.before(command)
            result = machine.run("\n".join(command.lines()), check=False)
            meant.after(command, result.returncode == 0)
            time.sleep(command.pause)

        ended = time.monotonic()
        self.wait_served([unit for unit in SOCKETS if meant.serves(unit)], ended)
        meant.end()
        for unit, begin, end in self.gaps:
            for other, since, until in meant.spans:
                if unit == other and min(end, until) - max(begin, since) > OUTAGE_MAX:
                    raise Failed(f"{unit} was without an answer for {end - begin:.1f} s")

        self.check_lines(commands)
        # Of a service that is masked while it runs systemd hears nothing any more, and says so each time.
        if not meant.masked.intersection(SERVICES.values()):
            self.settle()
            self.check_quiet()
            self.check_lines(commands)

        self.restore(meant.deaf | meant.moved, meant.stuck)
        kept = keeper.ask()
        try:
            self.books().check(told=kept["told_goodbye"])
        except AssertionError as error:
            raise Failed(f"peers saw {kept}, and the journal says {error}") from None
        if kept["lost"] and not meant.may_lose:
            raise Failed(f"{len(kept['lost'])} connections were lost and nobody told their peers")
        if kept["told_goodbye"] and not meant.may_part:
            raise Failed(f"{kept['told_goodbye']} connections were not kept")
        return kept


def fails(commands: list[Command]) -> str | None:
    """Try it on a machine of its own."""
    with Machine() as machine:
        host = Host(machine)
        host.gaps = []
        try:
            host.run(commands)
        except Failed as error:
            return f"{error}\n{format_entries(machine.journal()[-80:])}"
    return None


def simpler(commands: list[Command]) -> Iterator[list[Command]]:
    for i, command in enumerate(commands):
        yield commands[:i] + commands[i + 1:]
        for unit in command.units if len(command.units) > 1 else ():
            yield [*commands[:i], dataclasses.replace(command, units=tuple(u for u in command.units if u != unit)),
                   *commands[i + 1:]]
        if command.is_queued:
            yield [*commands[:i], dataclasses.replace(command, is_queued=False), *commands[i + 1:]]
        if command.pause:
            yield [*commands[:i], dataclasses.replace(command, pause=0), *commands[i + 1:]]


def shrink(commands: list[Command], why: str) -> tuple[list[Command], str]:
    """The simplest that still fails."""
    found = True
    while found:
        found = False
        for fewer in simpler(commands):
            if fewer and (reason := fails(fewer)):
                commands, why, found = fewer, reason, True
                break
    return commands, why


def try_all(host: Host, seed: int, numbers: range, length: int, say=lambda text: None) -> None:
    """Raises Failed for the first sequence that fails, as short as it can be."""
    host.gaps = []
    for number in numbers:
        commands = sequence(seed, number, length)
        began = time.monotonic()
        try:
            kept = host.run(commands)
        except Failed as error:
            log = format_entries(host.machine.journal()[-120:])
            typed = "\n".join(map(str, commands))
            short, why = shrink(commands, "only after those before it")
            raise Failed(f"sequence {number} of seed {seed}: {error}\n{typed}\n\n{log}\n\nat its shortest:\n"
                         + "\n".join(map(str, short)) + f"\n{why}") from None
        say(f"{number}: {time.monotonic() - began:.1f} s, {kept['found']} kept, {kept['told_goodbye']} told goodbye, "
            f"{host.lines()} lines, "
            f"longest gap {max((end - begin for _, begin, end in host.gaps), default=0):.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--length", type=int, default=5)
    parser.add_argument("--only", type=int, metavar="I")
    options = parser.parse_args()
    numbers = range(options.first, options.count) if options.only is None else range(options.only, options.only + 1)
    try:
        with Machine() as machine:
            try_all(Host(machine), options.seed, numbers, options.length, lambda text: print(text, flush=True))
    except Unsupported as reason:
        print(f"cannot boot a machine here: {reason}")
        return 77
    except Failed as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
