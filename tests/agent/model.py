# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a connection cache does, in the fewest words: the third opinion when two servers disagree.

Connections are whatever hashable things the caller uses to tell them apart. Times are in seconds,
of a clock that the caller passes in; without one, nothing ever expires.
"""

from __future__ import annotations

from typing import Hashable, NamedTuple, Optional


class Parked(NamedTuple):
    identity: Hashable
    prop: bytes
    deadline: float


class Model:
    def __init__(self, ttl_limit: float = 3600.0):
        self.ttl_limit = ttl_limit
        self.endpoints: dict[bytes, list[Parked]] = {}
        # Destination -> {(endpoint, property): deadline}. Renewing an entry of a dict leaves it at
        # its place.
        self.destinations: dict[bytes, dict[tuple[bytes, bytes], float]] = {}

    def save_endp(self, ttl: int, label: bytes, prop: bytes, identity: Hashable,
                  now: float = 0.0) -> None:
        deadline = now + min(ttl, self.ttl_limit)
        self.endpoints.setdefault(label, []).append(Parked(identity, prop, deadline))

    def save_dest(self, ttl: int, dest: bytes, prop: bytes, endp: bytes, now: float = 0.0) -> None:
        self.destinations.setdefault(dest, {})[endp, prop] = now + min(ttl, self.ttl_limit)

    def find_endp(self, label: bytes, now: float = 0.0) -> Optional[tuple[bytes, Hashable]]:
        """(property, identity), or None."""
        live = [parked for parked in self.endpoints.pop(label, []) if parked.deadline > now]
        if not live:
            return None
        if live[1:]:
            self.endpoints[label] = live[1:]
        return live[0].prop, live[0].identity

    def find_dest(self, dest: bytes, now: float = 0.0) -> Optional[tuple[bytes, bytes, Hashable]]:
        """(the binding's property, the connection's property, identity), or None."""
        for (endp, prop), deadline in self.destinations.get(dest, {}).items():
            found = self.find_endp(endp, now) if deadline > now else None
            if found:
                return prop, *found
        return None
