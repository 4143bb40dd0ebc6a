# SPDX-License-Identifier: LGPL-2.1-or-later
"""What src/cache promises, in the plainest way: lists, and a look at all of them for every question."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Optional

INFINITY = (1 << 64) - 1
BINDINGS_MAX = 1024      # of one destination
EXPIRED_PER_LOOKUP = 64
BINDINGS_JUDGED = 64
EXPIRED, LIMIT, FLUSHED, REPLACED = 0, 1, 2, 3
REASONS = ["unknown", "expired", "dead", "evicted", "flushed", "replaced", "outdated", "busy", "used"]
WHY = {EXPIRED: "expired", LIMIT: "evicted", FLUSHED: "flushed", REPLACED: "replaced"}


@dataclass
class Connection:
    id: int
    uid: int
    endpoint: str
    prop: str
    farewell: str
    at: int
    saved_by: int
    socket: int = 0
    lent: bool = False
    passed_over: bool = False  # its turn to go came while it was lent
    replaced: bool = False     # its socket was saved again while it was lent


@dataclass
class Binding:
    id: int
    uid: int
    destination: str
    prop: str
    endpoint: str
    at: int
    saved_by: int


class Tie(Exception):
    """Several users hold most: which of them gives way is nobody's business."""


@dataclass
class Event:
    """The last that happened to a label."""
    at: int
    reason: str
    endpoint: str = ""  # of a binding


@dataclass
class Reference:
    """cost: what entries take, as cost(kind, bytes)."""
    cost: Callable[[str, int], int]
    history: bool = False
    now: int = 0
    endpoint_events: dict[tuple[int, str], Event] = field(default_factory=dict)
    binding_events: dict[tuple[int, str], Event] = field(default_factory=dict)
    takings: dict[int, tuple[tuple[int, str], int]] = field(default_factory=dict)  # by connection: which label, when
    lookups: dict[tuple[str, str], int] = field(default_factory=dict)  # by kind and result
    looked_up: dict[tuple[str, int, str], None] = field(default_factory=dict)  # labels, in the order of their first lookup
    connections: list[Connection] = field(default_factory=list)  # lent ones too
    bindings: list[Binding] = field(default_factory=list)
    departed: list[tuple[int, int]] = field(default_factory=list)
    max_connections: int = 0
    max_bytes: int = 0
    last_id: int = 0
    let_go: int = 0              # bindings, and
    connections_let_go: int = 0  # at a limit
    gave_way: int = 0            # the user of the last of both

    # What is there.

    def parked(self) -> list[Connection]:
        return [each for each in self.connections if not each.lent]

    def lent(self) -> list[Connection]:
        return [each for each in self.connections if each.lent]

    def endpoints(self) -> set[tuple[int, str]]:
        return {(each.uid, each.endpoint) for each in [*self.connections, *self.bindings]}

    def destinations(self) -> set[tuple[int, str]]:
        return {(each.uid, each.destination) for each in self.bindings}

    def bytes(self) -> int:
        return (sum(self.cost("connection", len(each.prop) + len(each.farewell))
                    for each in self.connections) +
                sum(self.cost("binding", len(each.prop)) for each in self.bindings) +
                sum(self.cost("endpoint", len(label)) for _, label in self.endpoints()) +
                sum(self.cost("destination", len(label)) for _, label in self.destinations()))

    def next_deadline(self) -> int:
        return min([each.at for each in self.connections if not each.passed_over] +
                   [each.at for each in self.bindings], default=INFINITY)

    def counts(self) -> list[int]:
        parked = self.parked()
        return [len(parked), len(self.lent()), len(self.bindings),
                len({(each.uid, each.endpoint) for each in parked}), len(self.destinations()),
                self.bytes(), self.let_go, self.next_deadline(), self.connections_let_go, self.gave_way]

    # Who holds how much.

    def held_connections(self) -> dict[int, int]:
        held: dict[int, int] = {}
        for each in self.connections:
            held[each.saved_by] = held.get(each.saved_by, 0) + 1
        return held

    def held_bytes(self) -> dict[int, int]:
        """A label is on the account of the user who may find it."""
        held: dict[int, int] = {}
        for uid, size in ([(each.saved_by, self.cost("connection", len(each.prop) + len(each.farewell)))
                           for each in self.connections] +
                          [(each.saved_by, self.cost("binding", len(each.prop))) for each in self.bindings] +
                          [(uid, self.cost("endpoint", len(label))) for uid, label in self.endpoints()] +
                          [(uid, self.cost("destination", len(label))) for uid, label in self.destinations()]):
            held[uid] = held.get(uid, 0) + size
        return held

    def _has_entries(self, user: int) -> bool:
        return any(each.saved_by == user for each in [*self.connections, *self.bindings])

    # What goes.

    def _first_parked(self, until: int = INFINITY, user: Optional[int] = None) -> Optional[Connection]:
        for each in sorted(self.connections, key=lambda each: each.at):
            if user not in (None, each.saved_by):
                continue
            if each.at > until:
                break
            if not each.lent:
                return each
            each.passed_over = True
        return None

    def _end(self, connection: Connection, reason: str) -> None:
        self.endpoint_events[connection.uid, connection.endpoint] = Event(self.now, reason)
        self.connections.remove(connection)

    def _unbind(self, binding: Binding, reason: str) -> None:
        self.binding_events[binding.uid, binding.destination] = Event(self.now, reason, endpoint=binding.endpoint)
        self.bindings.remove(binding)

    def die(self, connection: Connection) -> None:
        self._end(connection, "dead")

    def _depart(self, connection: Connection, why: int) -> None:
        self._end(connection, WHY[why])
        self.departed.append((connection.id, why))

    def let_one_go(self, why: int) -> bool:
        first = self._first_parked()
        if first:
            self._depart(first, why)
        return first is not None

    def _evict(self, connection: Connection) -> None:
        self.connections_let_go += 1
        self.gave_way = connection.saved_by
        self._depart(connection, LIMIT)

    def _drop(self, binding: Binding) -> None:
        self.let_go += 1
        self.gave_way = binding.saved_by
        self._unbind(binding, "evicted")

    def _evict_connection(self, user: Optional[int]) -> bool:
        first = self._first_parked(user=user)
        if first:
            self._evict(first)
        return first is not None

    def _evict_entry(self, user: Optional[int]) -> bool:
        binding = min((each for each in self.bindings if user in (None, each.saved_by)), key=lambda each: each.at,
                      default=None)
        connection = self._first_parked(binding.at if binding else INFINITY, user)
        if connection:
            self._evict(connection)
        elif binding:
            self._drop(binding)
        return bool(connection or binding)

    def _evict_one(self, held: dict[int, int], limit: int, user: Optional[int], n: int,
                   evict: Callable[[Optional[int]], bool]) -> bool:
        """Of who holds most once the user holds N more; where that is all lent, of the other one of the two."""
        mine = held.get(user, 0)
        others = {each: count for each, count in held.items() if each != user}
        top = max(others.values(), default=0)
        most = [each for each, count in others.items() if count == top]
        if user is not None and mine + n >= top:
            first, seconds = user, most if top > mine else []
        elif len(most) > 1:
            raise Tie()
        elif not most:
            return False
        else:
            first, seconds = most[0], [user]
        if evict(first):
            return True
        if user is None or (first != user and not self._has_entries(first)):
            return evict(None)
        if len(seconds) > 1:
            raise Tie()
        if not seconds:
            return False
        share = limit // (len(held) + (seconds[0] not in held))
        return held.get(seconds[0], 0) >= share and evict(seconds[0])

    def _room_for_connections(self, user: Optional[int], n: int) -> None:
        while self.max_connections and len(self.connections) + n > self.max_connections:
            if not self._evict_one(self.held_connections(), self.max_connections, user, n, self._evict_connection):
                break

    def _room(self, user: Optional[int], n: int) -> None:
        while self.max_bytes and self.bytes() + n > self.max_bytes:
            if not self._evict_one(self.held_bytes(), self.max_bytes, user, n, self._evict_entry):
                break

    def limits(self, connections: int, size: int) -> str:
        self.max_connections, self.max_bytes = connections, size
        self._room_for_connections(None, 0)
        self._room(None, 0)
        return "ok"

    def expire(self, now: int, budget: int) -> bool:
        while budget:
            first = self._first_parked(now)
            if not first:
                break
            self._depart(first, EXPIRED)
            budget -= 1
        while budget:
            binding = min(self.bindings, key=lambda each: each.at, default=None)
            if not binding or binding.at > now:
                break
            self._unbind(binding, "expired")
            budget -= 1
        return budget == 0

    # What is saved and found.

    def _take_id(self, wanted: int) -> int:
        self.last_id = max(self.last_id, wanted) if wanted else self.last_id + 1
        return wanted or self.last_id

    def save(self, wanted: int, uid: int, endpoint: str, prop: str, farewell: str, at: int, saved_by: int,
             socket: int = 0) -> int | str:
        for former in [each for each in self.connections if socket and each.socket == socket]:
            if former.saved_by != saved_by:
                return "refused"
            if former.lent:
                former.socket, former.replaced = 0, True
            else:
                self._depart(former, REPLACED)
        self._room_for_connections(saved_by, 1)
        self._room(saved_by, self.cost("connection", len(prop) + len(farewell)) +
                   self.cost("endpoint", len(endpoint)))
        number = self._take_id(wanted)
        self.connections.append(Connection(number, uid, endpoint, prop, farewell, at, saved_by, socket))
        return number

    def bind(self, wanted: int, uid: int, destination: str, prop: str, endpoint: str, at: int,
             saved_by: int) -> str:
        siblings = [each for each in self.bindings if (each.uid, each.destination) ==
                    (uid, destination)]
        for each in siblings:
            if (each.endpoint, each.prop) == (endpoint, prop):
                each.at, each.saved_by = at, saved_by
                return "ok"
        if len(siblings) >= BINDINGS_MAX:
            self._drop(min(siblings, key=lambda each: each.at))
        self._room(saved_by, self.cost("binding", len(prop)) + self.cost("destination", len(destination)) +
                   self.cost("endpoint", len(endpoint)))
        self.bindings.append(Binding(self._take_id(wanted), uid, destination, prop, endpoint, at, saved_by))
        return "ok"

    def _find_endpoint(self, uid: int, label: str, now: int) -> Optional[Connection]:
        line = sorted((each for each in self.parked() if (each.uid, each.endpoint) == (uid, label)),
                      key=lambda each: each.id)
        for each in line[:EXPIRED_PER_LOOKUP]:
            if each.at > now:
                each.lent = True
                self.endpoint_events[uid, label] = Event(now, "busy")
                self.takings[each.id] = (uid, label), now
                self._count("endpoint", uid, label, "hit")
                return each
            self._depart(each, EXPIRED)
        return None

    def _count(self, kind: str, uid: int, label: str, result: str) -> None:
        if self.history:
            self.looked_up.setdefault((kind, uid, label))
        self.lookups[kind, result] = self.lookups.get((kind, result), 0) + 1

    def find_endpoint(self, uid: int, label: str, now: int) -> Optional[Connection]:
        return self._find_endpoint(uid, label, now)

    # Why a lookup missed.

    def why_endpoint(self, uid: int, label: str) -> str:
        return self._verdict("endpoint", uid, label, [self.endpoint_events.get((uid, label))])

    def why_destination(self, uid: int, label: str) -> str:
        bindings = sorted((each for each in self.bindings if (each.uid, each.destination) == (uid, label)),
                          key=lambda each: each.id)[:BINDINGS_JUDGED]
        events = [self.endpoint_events.get((uid, each.endpoint)) if each.at > self.now else
                  self._former(uid, Event(each.at, "expired", endpoint=each.endpoint)) for each in bindings]
        if not bindings and (uid, label) in self.binding_events:
            events = [self._former(uid, self.binding_events[uid, label])]
        return self._verdict("destination", uid, label, events)

    def _former(self, uid: int, event: Event) -> Event:
        """The binding is gone: would it have led to a connection?"""
        is_there = any((each.uid, each.endpoint) == (uid, event.endpoint) for each in self.parked())
        return event if is_there else self.endpoint_events.get((uid, event.endpoint), event)

    def _verdict(self, kind: str, uid: int, label: str, events: list[Optional[Event]]) -> str:
        last = max((each for each in events if each), key=lambda each: each.at, default=None)
        reason = last.reason if last and self.history else "unknown"
        self._count(kind, uid, label, reason)
        return (f"none {reason} {self.now - last.at}" if last and self.history else "none unknown 0")

    def used(self, number: int) -> None:
        label, at = self.takings[number]
        event = self.endpoint_events[label]
        if (event.reason, event.at) == ("busy", at):
            self.endpoint_events[label] = Event(self.now, "used")

    def sums(self) -> list[int]:
        return [self.lookups.get((kind, result), 0) if self.history else 0
                for kind in ("destination", "endpoint") for result in ("hit", *REASONS)]

    def count_parked(self, kind: str, uid: int, label: str) -> int:
        endpoints = {label} if kind == "endpoint" else {
            each.endpoint for each in sorted((each for each in self.bindings if (each.uid, each.destination) == (uid, label)),
                                             key=lambda each: each.id)[:BINDINGS_JUDGED]}
        return sum(each.uid == uid and each.endpoint in endpoints for each in self.parked())

    def find_destination(self, uid: int, label: str,
                         now: int) -> Optional[tuple[Connection, Binding]]:
        for binding in sorted(self.bindings, key=lambda each: each.id):
            if (binding.uid, binding.destination) == (uid, label) and binding.at > now:
                found = self._find_endpoint(uid, binding.endpoint, now)
                if found:
                    self._count("destination", uid, label, "hit")
                    return found, binding
        return None

    def take_back(self, connection: Connection, now: int) -> None:
        if connection.replaced:
            self._depart(connection, REPLACED)
        elif connection.at <= now:
            self._depart(connection, EXPIRED)
        elif connection.passed_over:
            self._depart(connection, LIMIT)
        else:
            connection.lent = False
