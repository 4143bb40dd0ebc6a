# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same requests to Postfix's own scache(8) and to scached: every reply, every descriptor and
every order is the same.

SCACHED_ORACLE_SEED and SCACHED_ORACLE_REQUESTS choose another run than the usual one.

Left out is where scache(8) takes what it should not, or loses step with its agent. What scached
does there has its own tests:
  - attributes after those that a request needs: scache(8) does not see them;
  - a list that does not begin with `request`: scache(8) looks for a request further on in it, and
    says nothing if there is none;
  - times to live of 2^31 s and more, which it counts modulo 2^32, and those with white space or a
    plus sign in front, which it takes;
  - descriptors where none belongs, several at once, and those that are not sockets;
  - a last dummy that never comes although its agent goes on: it takes the next request for it;
  - requests sent without waiting for answers: when it writes, it forgets what it had read ahead.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import deque
from typing import NamedTuple, Optional, Protocol

import pytest

import lists
import oracle
from connection import Connection, ProtocolError
from launch import patience
from lists import DUMMY, PROPERTIES, Attributes, encode
from model import Model
from protocol import BAD, FAIL, OK, Agent, Found, short

SEED = int(os.environ.get("SCACHED_ORACLE_SEED", "20210413"))
REQUESTS = int(os.environ.get("SCACHED_ORACLE_REQUESTS", "20000"))
AGENTS = 3
PARKED_MAX = 250
HELD_MAX = 20
HISTORY = 300

pytestmark = pytest.mark.skipif(oracle.find_scache() is None,
                                reason="Postfix's scache(8) is not installed")

LABELS = [b"", b"\x80\xff\xfe\x01", b"two\nlines", b" blanks ", b"request", b"dummy", b"label",
          b"%s%n", b"x" * 5000, b"shared"]
DESTINATIONS = LABELS + [b"smtp:example%d.com:25" % i for i in range(300)]
ENDPOINTS = LABELS + [b"smtp:[192.0.2.%d]:25" % i for i in range(20)]
CROWDED = b"a destination with many bindings"
PROPS = [b"", b"\x01\x7f\x80\xff", b"a\nb", b"property", b"y" * 4095, b"z" * 4096,
         b"p1", b"p2", b"p3", b"p4"]

GOOD_TTLS = [600, 3600, 3601, 86400, "000000000000000000000000000700", 2147483647]
BAD_TTLS = [b"0", b"00", b"-1", b"-0", b"-2147483648", b"", b"abc", b"600x", b"600 ", b"0x100",
            b"600.5", b"1e9", b"\x80"]


class Server(Protocol):
    def agent(self) -> Agent: ...


class Operation(NamedTuple):
    """One thing that an agent does, described well enough to do it twice."""
    kind: str
    args: tuple
    how: dict = {}
    connection: Optional[Connection] = None

    def __str__(self) -> str:
        words = [short(arg, 80) for arg in self.args]
        words += [f"{name}={value}" for name, value in self.how.items()]
        if self.connection:
            words.append(f"connection {self.connection.identity}")
        return f"{self.kind}({', '.join(words)})"


def perform(agent: Agent, operation: Operation) -> object:
    """Do it, and return what came of it."""
    kind, args, how, connection = operation
    if kind == "save_endp":
        return agent.save_endp(*args, connection.fd if connection else None)
    if kind == "save_dest":
        return agent.save_dest(*args)
    if kind == "find_endp":
        return agent.find_endp(*args, **how)
    if kind == "find_dest":
        return agent.find_dest(*args, **how)
    if kind == "malformed":
        return agent.request(args[0], n_properties=args[1])
    if kind == "ignored":
        # Ahead: in one piece with the agent's next request, like a last dummy that was late.
        return agent.put_ahead(args[0]) if how["ahead"] else agent.send(args[0])
    raise AssertionError(kind)


class Generator:
    """Random operations, and what the model says to each: status, (status, properties, identity)
    for a find, or None where no answer comes."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.model = Model()
        self.parked: dict[int, Connection] = {}
        self.held: list[Connection] = []  # found, and not saved again yet
        self.high_tide = PARKED_MAX
        self.ebb = False

    def next(self) -> tuple[Operation, object]:
        # The cache fills and empties in turn: a full one says little about misses and their order.
        if self.ebb and len(self.parked) <= 1:
            self.ebb, self.high_tide = False, self.random.choice([3, 20, PARKED_MAX])
        elif len(self.parked) >= self.high_tide:
            self.ebb = True
        saves, finds = (2, 8) if self.ebb else (8, 4)
        choices = {self.save_endp: saves, self.save_dest: 4, self.find_dest: finds,
                   self.find_endp: finds / 2, self.save_nothing: 0.3, self.malformed: 2,
                   self.ignored: 1}
        return self.random.choices(list(choices), list(choices.values()))[0]()

    def prop(self) -> bytes:
        if self.random.random() < 0.005:
            return self.random.randbytes(60000).replace(b"\0", b"0")
        return self.random.choice(PROPS)

    def save_endp(self) -> tuple[Operation, object]:
        ttl, label = self.random.choice(GOOD_TTLS), self.random.choice(ENDPOINTS)
        prop = self.prop()
        if self.held and self.random.random() < 0.7:
            connection = self.held.pop(self.random.randrange(len(self.held)))
        else:
            connection = Connection()
        self.parked[connection.identity] = connection
        self.model.save_endp(int(ttl), label, prop, connection.identity)
        return Operation("save_endp", (ttl, label, prop), connection=connection), OK

    def save_nothing(self) -> tuple[Operation, object]:
        """The byte comes, but no descriptor with it."""
        args = (600, self.random.choice(ENDPOINTS), self.prop())
        return Operation("save_endp", args), FAIL

    def save_dest(self) -> tuple[Operation, object]:
        ttl, endp = self.random.choice(GOOD_TTLS), self.random.choice(ENDPOINTS)
        if self.random.random() < 0.1:
            dest, prop = CROWDED, b"p%d" % self.random.randrange(25)
        else:
            dest, prop = self.random.choice(DESTINATIONS), self.random.choice(PROPS)
        self.model.save_dest(int(ttl), dest, prop, endp)
        return Operation("save_dest", (ttl, dest, prop, endp)), OK

    def find_endp(self) -> tuple[Operation, object]:
        label = self.random.choice(ENDPOINTS)
        found = self.model.find_endp(label)
        expected = (OK, found[:1], found[1]) if found else (FAIL, (b"",), None)
        return Operation("find_endp", (label,), self.how()), expected

    def find_dest(self) -> tuple[Operation, object]:
        label = CROWDED if self.random.random() < 0.1 else self.random.choice(DESTINATIONS)
        found = self.model.find_dest(label)
        expected = (OK, found[:2], found[2]) if found else (FAIL, (b"", b""), None)
        return Operation("find_dest", (label,), self.how()), expected

    def how(self) -> dict:
        last_dummy = self.random.choices(["send", "glue", "never"], [70, 28, 2])[0]
        return {"last_dummy": last_dummy}

    def ignored(self) -> tuple[Operation, object]:
        data = self.random.choice([
            encode(), encode() * 3, encode(DUMMY), encode(DUMMY) * 2, encode(DUMMY) + encode(),
            encode([("dummy", "x")])])
        return Operation("ignored", (data,), {"ahead": self.random.random() < 0.5}), None

    def malformed(self) -> tuple[Operation, object]:
        while True:
            # scache(8) reads what is left of a bad list as if a new one began there.
            dest, endp = (b"tame" if label == b"request" else label for label in
                          (self.random.choice(DESTINATIONS), self.random.choice(ENDPOINTS)))
            right = self.random.choice([
                lists.save_endp(600, endp, self.prop()), lists.find_endp(endp),
                lists.save_dest(600, dest, self.prop(), endp), lists.find_dest(dest)])
            wrong = self.make_wrong(right)
            names, changed = ([name for name, _ in those] for those in (right, wrong))
            if wrong[0] != right[0]:
                return Operation("malformed", (wrong, 0)), BAD
            # What begins like a whole request is one to scache(8), whatever follows.
            if changed[:len(names)] != names or dict(wrong).get("ttl") != dict(right).get("ttl"):
                return Operation("malformed", (wrong, PROPERTIES.get(right[0][1], 0))), BAD

    def make_wrong(self, right: Attributes) -> Attributes:
        """Most of the time, that is: what changes places may be the same as before."""
        at = self.random.randrange(1, len(right))
        before, this, after = right[:at], right[at:at + 1], right[at + 1:]
        way = self.random.choice(["ttl", "missing", "order", "name", "repeated", "bare", "request"])
        if way == "ttl":
            ttl = self.random.choice(BAD_TTLS)
            return [(name, ttl if name == "ttl" else value) for name, value in right]
        if way == "missing":
            return before + after
        if way == "order":
            return right[:1] + self.random.sample(right[1:], len(right) - 1)
        if way == "name":
            name = self.random.choice([b"Label", b"x", b"status", b"\xff"])
            return before + [(name, this[0][1])] + after
        if way == "repeated":
            return before + this + this + after
        if way == "bare":
            return right[:1]
        request = self.random.choice([b"", b"SAVE_ENDP", b"find_endp ", b"find", b"\xff"])
        return [("request", request)] + right[1:]


class Duel:
    """Two servers, asked the same by three agents each."""

    def __init__(self, servers: dict[str, Server], seed: int):
        self.servers = servers
        self.seed = seed
        self.generator = Generator(seed)
        self.random = random.Random(seed + 1)
        self.agents = [{name: server.agent() for name, server in servers.items()}
                       for _ in range(AGENTS)]
        self.history: deque[str] = deque(maxlen=HISTORY)
        self.requests = 0
        self.hits = 0

    def run(self, requests: int) -> None:
        number = 0
        unfinished = False
        while self.requests < requests:
            # While scache(8) waits for a last dummy it serves nobody else.
            if not unfinished:
                number = self.random.randrange(AGENTS)
            operation, expected = self.generator.next()
            self.both(number, operation, expected)
            last_dummy = None
            if operation.kind in PROPERTIES and expected[0] == OK:
                last_dummy = operation.how["last_dummy"]
            unfinished = last_dummy == "glue" or unfinished and operation.how.get("ahead", False)
            if last_dummy == "never" or not unfinished and self.random.random() < 0.002:
                self.reconnect(number)

    def both(self, number: int, operation: Operation, expected: object) -> None:
        line = f"{self.requests:6} agent {number} {operation}"
        results: dict[str, object] = {}
        found: list[Found] = []
        for name, agent in self.agents[number].items():
            try:
                results[name] = perform(agent, operation)
            except (ProtocolError, OSError) as error:
                results[name] = f"{type(error).__name__}: {error}"
            if isinstance(results[name], Found):
                found.append(results[name])
                results[name] = tuple(results[name])
        self.history.append(f"{line} -> {short(expected, 80)}")
        if any(result != expected for result in results.values()):
            self.fail(line, {**results, "model": expected})
        self.requests += 1
        if operation.connection:
            operation.connection.pass_on()
        if found and found[0].fd is not None:
            self.hits += 1
            self.keep(found)

    def keep(self, found: list[Found]) -> None:
        """Both have given the same connection away. Hold it for a later save, or close it."""
        connection = self.generator.parked.pop(found[0].identity)
        connection.take_back(found[0].detach())
        for copy in found[1:]:
            copy.close()
        if len(self.generator.held) < HELD_MAX:
            self.generator.held.append(connection)
        else:
            connection.close()

    def reconnect(self, number: int) -> None:
        self.history.append(f"{self.requests:6} agent {number} reconnects")
        for name, agent in self.agents[number].items():
            agent.close()
            self.agents[number][name] = self.servers[name].agent()

    def fail(self, line: str, results: dict[str, object]) -> None:
        told = [f"The answers to request {line} (seed {self.seed}) differ:"]
        told += [f"  {name:8} {short(result)}" for name, result in results.items()]
        told += [f"The last {len(self.history)} requests, with the answers expected:"]
        pytest.fail("\n".join([*told, *self.history]), pytrace=False)

    def close(self) -> None:
        for agents in self.agents:
            for agent in agents.values():
                agent.close()
        for connection in [*self.generator.parked.values(), *self.generator.held]:
            connection.close()


@pytest.fixture
def scache():
    with oracle.Scache() as server:
        yield server


@pytest.fixture
def duel(scache, daemon, request):
    """A duel that has not begun; its seed is SEED, or the test's parameter added to that."""
    duel = Duel({"scache": scache, "scached": daemon}, SEED + getattr(request, "param", 0))
    yield duel
    duel.close()


def test_same_replies_descriptors_and_order(duel):
    duel.run(REQUESTS)
    assert duel.hits > REQUESTS / 10, "a run that hardly finds anything compares nothing"


@pytest.mark.parametrize("duel", [1], indirect=True)
def test_same_statistics(duel, scache, daemon):
    duel.run(2000)
    scache.stop()
    daemon.stop()
    assert len(scache.statistics()) == 3
    ours = re.findall("statistics: ((?:domain|address|max) .*)", daemon.output())
    assert ours == scache.statistics()


def test_what_has_expired_is_found_by_neither(scache, daemon):
    """Connections and bindings that outlive each other, and are renewed for longer or shorter."""
    agents = {"scache": scache.agent(), "scached": daemon.agent()}
    model = Model()

    def park(ttl: int, endp: bytes) -> None:
        # Not one connection for both, as elsewhere: each would hear the other server's goodbye.
        prop = b"%s for %d s" % (endp, ttl)
        model.save_endp(ttl, endp, prop, None)
        for agent in agents.values():
            agent.park(endp, prop, ttl)

    def bind(ttl: int, dest: bytes, endp: bytes) -> None:
        model.save_dest(ttl, dest, endp, endp)
        for agent in agents.values():
            agent.bind(dest, endp, endp, ttl)

    for ttls in ((1, 600), (600, 1), (2, 600), (600, 2), (1, 2), (600, 600)):
        for way in (b"once", b"renewed"):
            name = b"%s %d %d" % (way, *ttls)
            park(ttls[0], name)
            park(600, b"other than " + name)
            bind(ttls[1], name, name)
            bind(600, name, b"other than " + name)
            if way == b"renewed":
                park(ttls[1], name)
                bind(ttls[0], name, name)
    # scache(8) counts the whole seconds of the clock: what lives for two may live for three.
    time.sleep(4.0 * min(2.0, patience()))

    for label in [*model.destinations, *model.endpoints] * 2:
        for find in ("find_dest", "find_endp"):
            expected = getattr(model, find)(label, now=10.0)
            for name, agent in agents.items():
                with getattr(agent, find)(label) as found:
                    properties = found.properties if found.status == OK else None
                assert properties == (expected and expected[:-1]), f"{name}: {find} {label}"
