# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel calls behind a machine that Python itself does not bring before 3.12."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36

# What reaches past the machine: modules, raw devices, the clock, security labels, the kernel log.
_OUTWARD_CAPABILITIES = {
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_TIME": 25,
    "CAP_AUDIT_CONTROL": 30,
    "CAP_MAC_OVERRIDE": 32,
    "CAP_MAC_ADMIN": 33,
    "CAP_SYSLOG": 34,
    "CAP_WAKE_ALARM": 35,
    "CAP_BLOCK_SUSPEND": 36,
    "CAP_AUDIT_READ": 37,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *args, about: str = "") -> None:
    if getattr(_libc, name)(*args) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}{about}: {os.strerror(error)}")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0,
          data: str | None = None) -> None:
    _call("mount", _bytes(source), _bytes(target), _bytes(fstype), ctypes.c_ulong(flags),
          _bytes(data), about=f" {fstype or source} on {target}")


def bind(source: str, target: str, readonly: bool = False) -> None:
    """The kernel ignores MS_RDONLY on the bind itself: it takes a second call."""
    mount(source, target, None, MS_BIND)
    mount(None, target, None, MS_REMOUNT | MS_BIND | (MS_RDONLY if readonly else 0))


def umount(target: str, flags: int = 0) -> None:
    _call("umount2", _bytes(target), flags, about=f" {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    _call("pivot_root", _bytes(new_root), _bytes(put_old))


def unshare(flags: int) -> None:
    _call("unshare", flags)


def setns(fd: int, flags: int) -> None:
    _call("setns", fd, flags)


def die_with_parent(signal: int) -> None:
    _call("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal))


def adopt_orphans(adopt: bool) -> None:
    """Become the parent of descendants whose own parent dies; bury them with waitpid(2)."""
    _call("prctl", PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(adopt))


def drop_outward_capabilities() -> None:
    """Take from this process and all it executes what could change the host."""
    for name, number in _OUTWARD_CAPABILITIES.items():
        _call("prctl", PR_CAPBSET_DROP, ctypes.c_ulong(number), about=f" {name}")
