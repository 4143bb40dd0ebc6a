# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attribute lists: how they are written and read, and the ones that requests are made of."""

from __future__ import annotations

from typing import Iterable, Optional, Union

Value = Union[bytes, str, int]
Attributes = list[tuple[Value, Value]]

DUMMY: Attributes = [("dummy", "")]

# How many properties an answer to each request carries, whatever its status.
PROPERTIES = {"find_endp": 1, "find_dest": 2}


def to_bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def encode(attributes: Iterable[tuple[Value, Value]] = ()) -> bytes:
    """One attribute list. Without attributes, the empty list: a lone NUL."""
    parts = bytearray()
    for name, value in attributes:
        parts += to_bytes(name) + b"\0" + to_bytes(value) + b"\0"
    return bytes(parts + b"\0")


def decode(data: bytearray) -> Optional[list[tuple[bytes, bytes]]]:
    """Take the first list off the data. None, and nothing is taken, if it is not whole yet."""
    attributes = []
    at = 0
    while True:
        end_of_name = data.find(b"\0", at)
        if end_of_name < 0:
            return None
        if end_of_name == at:
            del data[:at + 1]
            return attributes
        end_of_value = data.find(b"\0", end_of_name + 1)
        if end_of_value < 0:
            return None
        name, value = data[at:end_of_name], data[end_of_name + 1:end_of_value]
        attributes.append((bytes(name), bytes(value)))
        at = end_of_value + 1


# The attributes of each request, in the order the wire wants them. Tests of malformed requests start
# from these too.

def save_endp(ttl: Value, label: Value, prop: Value) -> Attributes:
    return [("request", "save_endp"), ("ttl", ttl), ("label", label), ("property", prop)]


def find_endp(label: Value) -> Attributes:
    return [("request", "find_endp"), ("label", label)]


def save_dest(ttl: Value, dest: Value, prop: Value, endp: Value) -> Attributes:
    return [("request", "save_dest"), ("ttl", ttl), ("label", dest), ("property", prop),
            ("label", endp)]


def find_dest(label: Value) -> Attributes:
    return [("request", "find_dest"), ("label", label)]


def save(ttl: Value, dest: Value, dest_prop: Value, endp: Value, endp_prop: Value) -> Attributes:
    return [("request", "save"), ("ttl", ttl), ("label", dest), ("property", dest_prop),
            ("label", endp), ("property", endp_prop)]
