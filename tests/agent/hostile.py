# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is anybody else made to wait? Attackers and bystanders as processes, and what the bystanders measured held against each other.

    with Program(start, "bystander.py", ...) as bystander, Program(start, "attacks.py", ...) as attack:
        compare(bystander, attack).check()

Rounds with and without the attack take turns in one run, so that a noisy machine decides nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

TESTS = Path(__file__).resolve().parent
# Each process that runs tests has users of its own, for the kernel counts by user what is on its way.
ALICE = 60001 + os.getpid() % 2000 * 3
MALLORY = ALICE + 1

# What others may notice of an attack: on a quiet machine, and where other tests run beside. What an attack costs those whom it
# hits is seconds.
QUIET = bool(os.environ.get("SCACHED_QUIET"))
MEDIAN_RATIO, FLOOD_RATIO = (1.5, 3.0) if QUIET else (6.0, 10.0)
LONGEST_MORE = 0.020 if QUIET else 0.3

ROUNDS = 3
ROUND_SECONDS = 0.15

# Of many rounds in one attack, so many more may have a wait that is longer by that than of those undisturbed.
MANY, LATE_MORE = 10, 0.2

Start = Callable[[Sequence[str]], subprocess.Popen]


def prefer(pid: int) -> None:
    """Let a process and its children run before others, as far as we may, so that what is measured is not the scheduler."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), -15)
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                prefer(int(child))


def start_here(command: Sequence[str]) -> subprocess.Popen:
    """As a child of the test."""
    return subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"})


class Program:
    """A program of this folder that takes commands in lines and answers each with JSON."""

    def __init__(self, start: Start, name: str, *arguments: object):
        self.what = " ".join(map(str, (name, *arguments)))
        self.process = start([str(TESTS / name), *map(str, arguments)])
        assert self.hear(60.0) == {"ready": True}

    def say(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self, timeout: float) -> dict:
        ready = select.poll()
        ready.register(self.process.stdout, select.POLLIN)
        assert ready.poll(timeout * 1000), f"{self.what}: no answer within {timeout:g} s"
        line = self.process.stdout.readline()
        assert line, f"{self.what}: ended with {self.process.wait()}"
        return json.loads(line)

    def ask(self, command: str, timeout: float = 30.0) -> dict:
        self.say(command)
        return self.hear(timeout)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Round(NamedTuple):
    """What a bystander saw in one round, with times in seconds."""
    waits: list[float]
    problems: dict[str, int]
    noise: float  # the longest wait for somebody whom nobody attacks

    @property
    def longest(self) -> float:
        return max(self.waits)

    @property
    def unexplained(self) -> float:
        """How much of the longest wait is not the machine's."""
        return max(0.0, self.longest - self.noise)


class Comparison:
    def __init__(self, what: str):
        self.what = what
        self.quiet: list[Round] = []
        self.attacked: list[Round] = []
        self.cut_off = 0
        self.told: dict = {}  # by the attacker when it last began

    def ratio(self) -> float:
        """Of the medians of all waits; beside other tests, of those rounds of each kind in which they are shortest."""
        def median(rounds: list[Round]) -> float:
            if QUIET:
                return statistics.median(wait for each in rounds for wait in each.waits)
            return min(statistics.median(each.waits) for each in rounds)

        return median(self.attacked) / median(self.quiet)

    def more(self) -> float:
        """How much longer the longest wait is, in that round of each kind where it is shortest: a machine that is busy makes
        waits longer now and then, an attack makes them longer each time."""
        return min(each.unexplained for each in self.attacked) - min(each.unexplained for each in self.quiet)

    @staticmethod
    def late(rounds: list[Round]) -> float:
        """In what part of the rounds somebody waited too long."""
        return sum(each.unexplained > LONGEST_MORE for each in rounds) / len(rounds)

    def problems(self) -> dict[str, int]:
        together: dict[str, int] = {}
        for each in self.attacked:
            for problem, count in each.problems.items():
                together[problem] = together.get(problem, 0) + count
        return together

    def complaints(self, most: float) -> list[str]:
        """What others noticed and should not have."""
        found = []
        if self.ratio() > most:
            found.append(f"the median of others is {self.ratio():.2f} times that undisturbed")
        if self.more() > LONGEST_MORE:
            found.append(f"the longest wait of others is {self.more() * 1e3:.0f} ms longer than undisturbed")
        if len(self.attacked) >= MANY and self.late(self.attacked) > self.late(self.quiet) + LATE_MORE:
            found.append(f"others waited too long in {self.late(self.attacked):.0%} of all rounds, undisturbed in "
                         f"{self.late(self.quiet):.0%}")
        if self.problems():
            found.append(f"others had problems: {self.problems()}")
        if self.cut_off:
            found.append(f"{self.cut_off} agents of others were cut off in the middle of an exchange")
        return found

    def __str__(self) -> str:
        """In brackets: how long somebody whom nobody attacks made them wait at the same time."""
        def figures(rounds: list[Round]) -> str:
            medians = statistics.median(wait for each in rounds for wait in each.waits)
            if len(rounds) >= MANY:
                return f"median {medians * 1e6:.0f} µs, too long a wait in {self.late(rounds):.0%} of {len(rounds)} rounds"
            longest = ", ".join(f"{each.longest * 1e3:.1f} ({each.noise * 1e3:.1f})" for each in rounds)
            return f"median {medians * 1e6:.0f} µs, longest {longest} ms"

        return (f"{self.what}: undisturbed {figures(self.quiet)}; attacked {figures(self.attacked)}; "
                f"median ratio {self.ratio():.2f}")


def compare(bystander: Program, attack: Program, most: float = MEDIAN_RATIO, rounds: int = ROUNDS,
            seconds: float = ROUND_SECONDS, at_once: int = 1, measure: str = "measure", strike: Callable[[], None] = lambda: None,
            ) -> Comparison:
    """Twice as many rounds if the first ones show something, so that it is not the machine. at_once: as many of a kind follow
    each other. strike: to be called after each begin."""
    def measured() -> list[Round]:
        return [Round(**bystander.ask(f"{measure} {seconds}")) for _ in range(at_once)]

    comparison = Comparison(attack.what)
    bystander.ask("check")
    for number in range(2 * rounds):
        comparison.quiet += measured()
        comparison.told = attack.ask("begin")
        if "skip" in comparison.told:
            return comparison
        strike()
        comparison.attacked += measured()
        attack.ask("end")
        comparison.cut_off += bystander.ask("check")["cut_off"]
        if number + 1 >= rounds and (not comparison.complaints(most) or is_hopeless(comparison)):
            break
    print(comparison)
    return comparison


def is_hopeless(comparison: Comparison) -> bool:
    """Further rounds would not change it."""
    return bool(comparison.problems() or comparison.cut_off)


def check(comparison: Comparison, most: float = MEDIAN_RATIO) -> None:
    complaints = comparison.complaints(most)
    assert not complaints, f"{'; '.join(complaints)}\n{comparison}"
