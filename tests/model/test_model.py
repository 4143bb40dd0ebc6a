# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cache against a model of it: random operations on a clock that is ours, every result compared.

A sequence that fails is made as short as it gets and printed; in tests/model/corpus, it is tried again
in every run. SCACHED_LONG=1 goes on for ten minutes, SCACHED_SEED=N begins with that sequence.
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Callable, Optional

import pytest

from reference import FLUSHED, Reference, Tie

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = Path(os.environ.get("SCACHED_BUILD") or REPOSITORY / "build") / "tests/model-driver"
CORPUS = Path(__file__).parent / "corpus"
SECONDS = 600 if os.environ.get("SCACHED_LONG") == "1" else 6

# No two ends are at the same time, for which of two goes first is nobody's business: each time to
# live leaves a remainder of its own, and the clock moves with every operation.
TICK = 16
TTLS = [1_000_000 * TICK + 1, 2_000_000 * TICK + 2, 2_000_000 * TICK + 3, 600_000_000 * TICK + 4,
        TICK + 5]

EVERYONE = 0xffffffff
LABEL_MAX = 224  # bytes of a label that a row shows

Operation = list  # its name and arguments, all of which JSON can hold


class Mismatch(Exception):
    pass


class Driver:
    """src/cache as a process."""

    def __init__(self):
        self.now = 0
        self.process = subprocess.Popen([DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def ask(self, *words: object) -> tuple[str, list[tuple[int, int]], list[int]]:
        """The result, who departed and why, and the counts."""
        line = ""
        try:
            self.process.stdin.write(" ".join(map(str, [self.now, *words])) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise Mismatch(f"the cache crashed at {words}:\n{self.process.communicate()[1]}")
        result, departed, counts = line.rstrip("\n").split("|")
        pairs = [tuple(map(int, pair.split(":"))) for pair in departed.split()]
        return result, pairs, list(map(int, counts.split()))

    def close(self) -> None:
        """Raises if it leaked or crashed at the end."""
        _, errors = self.process.communicate(timeout=60)
        if self.process.returncode != 0 or errors:
            raise Mismatch(f"the cache ended with {self.process.returncode}:\n{errors}")


def generate(chance: random.Random) -> list[Operation]:
    """A sequence. Whom an operation is about is said by a number of which the remainder counts, so
    that a sequence stays one when something is taken out of it."""
    operations: list[Operation] = []
    uids = [0, 1, 0xfffffffe][:chance.choice([1, 2, 3])]
    shares = chance.random() < 0.2  # what is saved is everybody's, and on the account of who saved it
    sockets = chance.choice([0, 0, 1, 5, 50])
    labels = [letter * length for letter, length in zip("abcdef", (0, 1, 3, 8, 40, 300))]
    labels = labels[:chance.randint(2, 6)]
    sizes = chance.choice([[0, 1, 20], [0, 100, 1000], [500]])
    # How large the history is by which moment is nobody's business: with it, there is no limit to memory.
    history = chance.random() < 0.6
    if history:
        operations.append(["history", 1])
    weights = {"save": 6, "bind": 4, "find_endpoint": 3, "find_destination": 4, "give": 3,
               "take_back": 2, "die": 1, "used": 1, "sums": 0.3, "parked": 0.3, "expire": 1, "let_one_go": 0.3, "limits": 0.3,
               "walk_connections": 1, "walk_bindings": 1}
    for name in weights:
        weights[name] *= chance.choice([0.2, 1, 1, 3])

    for _ in range(chance.choice([0, 0, 5, 20])):  # taken over from a former process
        operations.append(["restore", chance.choice(uids), chance.choice(labels),
                           "p" * chance.choice(sizes), chance.randrange(len(TTLS) - 1),
                           chance.randrange(1000)])
    names, likely = list(weights), list(weights.values())
    for _ in range(chance.choice([30, 100, 400])):
        name = chance.choices(names, likely)[0]
        tick = chance.choice([1, 1, 1, 10, 100_000, 1_000_000])
        saver, label = chance.choice(uids), chance.choice(labels)
        uid = EVERYONE if shares else saver
        socket = chance.choice([0, chance.randint(1, sockets)]) if sockets else 0
        prop = "p" * chance.choice(sizes)
        arguments = {
            "save": [uid, label, prop, "f" * chance.choice([0, 6]), chance.randrange(len(TTLS)),
                     saver, socket],
            "bind": [uid, label, prop, chance.choice(labels), chance.randrange(len(TTLS)), saver],
            "find_endpoint": [uid, label],
            "find_destination": [uid, label],
            "give": [chance.randrange(1000)],
            "take_back": [chance.randrange(1000)],
            "die": [chance.randrange(1000)],
            "used": [chance.randrange(1000)],
            "sums": [],
            "parked": [],
            "expire": [chance.choice([1, 2, 256])],
            "let_one_go": [],
            "limits": [chance.choice([0, 0, 1, 3, 10]), 0 if history else chance.choice([0, 0, 1, 500, 3000, 20000])],
            "walk_connections": [chance.choice([1, 3, 1000])],
            "walk_bindings": [chance.choice([1, 3, 1000])],
        }[name]
        operations.append([name, tick, *arguments])
        if name == "bind" and chance.random() < 0.002:
            operations += [["bind", 1, uid, label, f"{number}", label, 3, saver] for number in range(1100)]
        if name == "save" and chance.random() < 0.02:
            operations += [["save", 1, uid, label, prop, "", 4, saver] for _ in range(100)]
    return operations


class Run:
    """One sequence, on both."""

    def __init__(self, operations: list[Operation]):
        self.operations = operations
        self.driver = Driver()
        self.costs: dict[tuple[str, int], int] = {}
        self.model = Reference(self._cost)
        self.now = 1_000_000_000 * TICK
        self.former = 0
        # A walk that is under way: what is to be visited unless it goes in the meantime.
        self.walks: dict[str, Optional[set[int]]] = {"walk_connections": None, "walk_bindings": None}

    def _cost(self, kind: str, size: int) -> int:
        if (kind, size) not in self.costs:
            result = map(int, self.driver.ask("cost", size, 0)[0].split())
            self.costs |= {(each, size): cost
                           for each, cost in zip(("endpoint", "destination", "binding", "connection"), result)}
        return self.costs[kind, size]

    def go(self) -> None:
        try:
            for number, operation in enumerate(self.operations):
                try:
                    self._step(*operation)
                except Mismatch as error:
                    raise Mismatch(f"operation {number}, {operation}: {error}") from None
            self.driver.process.stdin.flush()
            self.driver.close()
        finally:
            if self.driver.process.poll() is None:
                self.driver.process.kill()
                self.driver.process.communicate()

    def _step(self, name: str, *arguments) -> None:
        self.model.departed.clear()
        before = self.model
        if name == "restore":
            got, wanted = self._restore(*arguments)
        else:
            self.now += TICK * arguments[0]
            self.model.now = self.driver.now = self.now
            got, wanted = getattr(self, "_" + name)(*arguments[1:])
        if got is None:
            return
        result, departed, counts = got
        compare("result", result, wanted)
        compare("departed", departed, self.model.departed)
        compare("counts", counts, self.model.counts())
        if name in ("save", "bind", "limits"):
            check_shares(before, self.model, None if name == "limits" else [*arguments, arguments[1]][6])
        for kind, there in (("walk_connections", self.model.parked()),
                            ("walk_bindings", self.model.bindings)):
            if self.walks[kind] is not None:
                self.walks[kind] &= {each.id for each in there}

    # One method for each operation: what the cache said, and what it should have.

    def _restore(self, uid: int, label: str, prop: str, ttl: int, number: int):
        """From a former process: with an older number, and in no order."""
        number = number * 1000 + self.former
        self.former += 1
        at = self.now + number * TICK + TTLS[ttl] % TICK
        save = (number + 1, uid, label, prop, "", at, uid)
        if not (wanted := self._try(Reference.save, *save)):
            return None, None
        got = self.driver.ask("save", number + 1, uid, "=" + label, "=" + prop, "=", TTLS[ttl], at, uid, 0)
        return got, wanted

    def _save(self, uid: int, label: str, prop: str, farewell: str, ttl: int, saver: Optional[int] = None,
              socket: int = 0):
        at, saver = self.now + TTLS[ttl], uid if saver is None else saver
        save = (0, uid, label, prop, farewell, at, saver, socket)
        if not (wanted := self._try(Reference.save, *save)):
            return None, None
        got = self.driver.ask("save", 0, uid, "=" + label, "=" + prop, "=" + farewell, TTLS[ttl], at, saver, socket)
        return got, wanted

    def _bind(self, uid: int, label: str, prop: str, endpoint: str, ttl: int, saver: Optional[int] = None):
        at, saver = self.now + TTLS[ttl], uid if saver is None else saver
        if not (wanted := self._try(Reference.bind, 0, uid, label, prop, endpoint, at, saver)):
            return None, None
        got = self.driver.ask("bind", 0, uid, "=" + label, "=" + prop, "=" + endpoint, TTLS[ttl], at, saver)
        return got, wanted

    def _try(self, operation: Callable, *arguments) -> Optional[str]:
        """Do it with the model, unless it is not clear who gives way."""
        trial = copy.copy(self.model)
        trial.connections = [copy.copy(each) for each in trial.connections]
        trial.bindings = [copy.copy(each) for each in trial.bindings]
        trial.endpoint_events, trial.binding_events = dict(trial.endpoint_events), dict(trial.binding_events)
        try:
            result = operation(trial, *arguments)
        except Tie:
            self.model.departed.clear()
            return None
        self.model = trial
        return str(result)

    def _find_endpoint(self, uid: int, label: str):
        found = self.model.find_endpoint(uid, label, self.now)
        wanted = (f"{found.id} ={found.prop} ={found.farewell} =" if found else
                  self.model.why_endpoint(uid, label))
        return self.driver.ask("find_endpoint", uid, "=" + label, self.now), wanted

    def _find_destination(self, uid: int, label: str):
        got = self.driver.ask("find_destination", uid, "=" + label, self.now)
        found = self.model.find_destination(uid, label, self.now)
        if not found:
            return got, self.model.why_destination(uid, label)
        connection, binding = found
        return got, f"{connection.id} ={connection.prop} ={connection.farewell} ={binding.prop}"

    def _give(self, which: int):
        if not (lent := self.model.lent()):
            return None, None
        connection = lent[which % len(lent)]
        self.model.connections.remove(connection)
        return self.driver.ask("give", connection.id), "ok"

    def _take_back(self, which: int):
        if not (lent := self.model.lent()):
            return None, None
        connection = lent[which % len(lent)]
        self.model.take_back(connection, self.now)
        return self.driver.ask("take_back", connection.id, self.now), "ok"

    def _die(self, which: int):
        if not (parked := self.model.parked()):
            return None, None
        connection = parked[which % len(parked)]
        self.model.die(connection)
        return self.driver.ask("die", connection.id), "ok"

    def _history(self):
        """From the start, and large enough for all."""
        self.model.history = True
        return self.driver.ask("history", 10000), "ok"

    def _used(self, which: int):
        if not (takings := list(self.model.takings)):
            return None, None
        number = takings[which % len(takings)]
        self.model.used(number)
        return self.driver.ask("used", number), "ok"

    def _parked(self):
        """The rows of labels, and what of them is parked."""
        wanted = "".join(f" {number} {uid} ={label[:LABEL_MAX]} {self.model.count_parked(kind, uid, label)}"
                         for number, kind in enumerate(("destination", "endpoint"))
                         for each, uid, label in self.model.looked_up if each == kind)
        return self.driver.ask("parked"), wanted

    def _sums(self):
        """Each lookup is counted once, each miss with one reason."""
        return self.driver.ask("sums"), "".join(f" {number}" for number in self.model.sums())

    def _expire(self, budget: int):
        return (self.driver.ask("expire", self.now, budget),
                str(int(self.model.expire(self.now, budget))))

    def _let_one_go(self):
        return self.driver.ask("let_one_go"), str(int(self.model.let_one_go(FLUSHED)))

    def _limits(self, connections: int, size: int):
        if not (wanted := self._try(Reference.limits, connections, size)):
            return None, None
        return self.driver.ask("limits", connections, size), wanted

    def _walk_connections(self, budget: int):
        return self._walk("walk_connections", budget, self.model.parked())

    def _walk_bindings(self, budget: int):
        return self._walk("walk_bindings", budget, self.model.bindings)

    def _walk(self, kind: str, budget: int, there: list):
        """One part of a walk. What was there all the time must have been seen at its end, and those
        of one endpoint or destination in their order."""
        if self.walks[kind] is None:
            self.walks = dict.fromkeys(self.walks)
            self.driver.ask("walk_begin")
            self.walks[kind] = {each.id for each in there}
        got = self.driver.ask(kind, budget)
        *seen, more = map(int, got[0].split())
        known = {each.id: each for each in there}
        last: dict[tuple[int, str], int] = {}
        for number in seen:
            if number not in known:
                raise Mismatch(f"{number} was visited and is not there")
            each = known[number]
            key = each.uid, each.endpoint if kind == "walk_connections" else each.destination
            if last.get(key, -1) >= number:
                raise Mismatch(f"{number} was visited after {last[key]}")
            last[key] = number
        self.walks[kind] -= set(seen)
        if not more:
            if self.walks[kind]:
                raise Mismatch(f"never visited: {self.walks[kind]}")
            self.walks[kind] = None
        return got, got[0]


def check_shares(before: Reference, after: Reference, user: Optional[int]) -> None:
    """However it is decided who gives way: nobody who holds less than an equal share has lost anything for another's sake."""
    if (after.connections_let_go, after.let_go) == (before.connections_let_go, before.let_go):
        return
    kept = {each.id for each in [*after.connections, *after.bindings]}
    lost = {each.saved_by for each in [*before.connections, *before.bindings] if each.id not in kept} - {user}
    for kind, held, limit in (("connections", before.held_connections(), after.max_connections),
                              ("bytes", before.held_bytes(), after.max_bytes)):
        if limit and EVERYONE not in held:
            share = limit // max(1, len({*held, user} - {None}))
            lost -= {each for each in lost if held.get(each, 0) >= share}
    if lost and EVERYONE not in before.held_bytes() and (after.max_connections or after.max_bytes):
        raise Mismatch(f"for user {user}, users {lost} had to give way and hold less than their share")


def compare(what: str, got, wanted) -> None:
    if got != wanted:
        raise Mismatch(f"{what}: {got}, but should be {wanted}")


def failure(operations: list[Operation]) -> Optional[str]:
    try:
        Run(operations).go()
    except Mismatch as error:
        return str(error)
    return None


def shrink(operations: list[Operation]) -> list[Operation]:
    """Leave out whatever is not needed for it to fail."""
    size = len(operations)
    until = time.monotonic() + 30
    while size > 0 and time.monotonic() < until:
        size = max(1, size // 2)
        at = 0
        while at < len(operations) and time.monotonic() < until:
            shorter = operations[:at] + operations[at + size:]
            if failure(shorter):
                operations = shorter
            else:
                at += size
        if size == 1:
            break
    return operations


def check(operations: list[Operation], name: str) -> None:
    if failure(operations):
        short = shrink(operations)
        lines = ",\n ".join(map(json.dumps, short))
        pytest.fail(f"{name}: {failure(short) or failure(operations)}\nkeep this in {CORPUS.name}/:\n"
                    f"[{lines}]")


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*.json")))
def test_what_once_failed(name: str):
    check(json.loads((CORPUS / name).read_text()), name)


def test_random_sequences():
    assert DRIVER.exists(), f"{DRIVER} is not built: run make unit-tests"
    seed = int(os.environ.get("SCACHED_SEED") or random.randrange(1 << 32))
    until = time.monotonic() + SECONDS
    number = operations = 0
    while time.monotonic() < until:
        sequence = generate(random.Random(seed + number))
        check(sequence, f"seed {seed + number}")
        number += 1
        operations += len(sequence)
    print(f"{number} sequences of {operations} operations, from seed {seed}")
