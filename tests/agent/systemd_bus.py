# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to systemd's own D-Bus socket, as root's systemctl has it, without a new process for each question.

    bus = Bus()
    bus.manage("StartUnit", "scached.service")          returns when the job is queued
    bus.number("scached.service", "ExecMainPID")
"""

from __future__ import annotations

import ctypes
import os

ADDRESS = b"unix:path=/run/systemd/private"
DESTINATION = b"org.freedesktop.systemd1"
MANAGER = b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager"

# What properties of a service are, in D-Bus's letters.
NUMBERS = {"ExecMainPID": "u", "ExecMainCode": "i", "ExecMainStatus": "i", "NFileDescriptorStore": "u",
           "ExecMainStartTimestampMonotonic": "t", "ExecMainExitTimestampMonotonic": "t"}
TYPES = {"u": ctypes.c_uint32, "i": ctypes.c_int32, "t": ctypes.c_uint64}


class Error(ctypes.Structure):
    """sd_bus_error"""
    _fields_ = [("name", ctypes.c_char_p), ("message", ctypes.c_char_p), ("need_free", ctypes.c_int)]


def object_path(unit: str) -> bytes:
    escaped = "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in unit)
    return f"/org/freedesktop/systemd1/unit/{escaped}".encode()


class Bus:
    """For one thread."""

    def __init__(self):
        self._lib = ctypes.CDLL("libsystemd.so.0")
        self._bus = ctypes.c_void_p()
        self._lib.sd_bus_new(ctypes.byref(self._bus))
        self._lib.sd_bus_set_address(self._bus, ADDRESS)
        self._check(self._lib.sd_bus_start(self._bus), Error(), "connect")

    def _check(self, result: int, error: Error, what: str) -> None:
        if result < 0:
            message = (error.message or os.strerror(-result).encode()).decode()
            self._lib.sd_bus_error_free(ctypes.byref(error))
            raise OSError(-result, f"systemd: {what}: {message}")

    def manage(self, method: str, unit: str, mode: str = "replace") -> None:
        """StartUnit, StopUnit or RestartUnit."""
        error = Error()
        result = self._lib.sd_bus_call_method(
            self._bus, DESTINATION, *MANAGER, method.encode(), ctypes.byref(error), None, b"ss",
            ctypes.c_char_p(unit.encode()), ctypes.c_char_p(mode.encode()))
        self._check(result, error, f"{method} {unit}")

    def number(self, unit: str, name: str) -> int:
        """A property of a service."""
        error, kind = Error(), NUMBERS[name]
        value = TYPES[kind]()
        result = self._lib.sd_bus_get_property_trivial(
            self._bus, DESTINATION, object_path(unit), b"org.freedesktop.systemd1.Service", name.encode(),
            ctypes.byref(error), ctypes.c_char(kind.encode()), ctypes.byref(value))
        self._check(result, error, f"{name} of {unit}")
        return value.value

    def state(self, unit: str) -> str:
        """Its SubState."""
        error, value = Error(), ctypes.c_char_p()
        result = self._lib.sd_bus_get_property_string(
            self._bus, DESTINATION, object_path(unit), b"org.freedesktop.systemd1.Unit", b"SubState",
            ctypes.byref(error), ctypes.byref(value))
        self._check(result, error, f"state of {unit}")
        state = value.value.decode()
        ctypes.CDLL(None).free(value)
        return state
