# SPDX-License-Identifier: LGPL-2.1-or-later
"""A container without its manager: run a command in namespaces of its own, inside a machine.

    python3 container.py NETWORK BASE UID [FROM:TO[:ro]...] -- COMMAND...

The network is one of ip-netns(8). Mounts and processes are its own; BASE is the id outside of its user 0, or "-" where users are
those of the machine. UID is whom the command runs as, inside. FROM is mounted on TO. When this process dies, all inside die.
"""

from __future__ import annotations

import os
import signal
import sys

import kernel

CLONE_NEWUSER = 0x10000000
IDS = 65536


def enter_network(name: str) -> None:
    network = os.open(f"/run/netns/{name}", os.O_RDONLY)
    kernel.setns(network, kernel.CLONE_NEWNET)
    os.close(network)


def map_users(pid: int, base: str) -> None:
    for kind in ("uid", "gid"):
        with open(f"/proc/{pid}/{kind}_map", "w") as ids:
            ids.write(f"0 {base} {IDS}\n")


def inhabit(base: str, uid: int, mounts: list[str], command: list[str], has_users: int, is_mapped: int) -> None:
    """As the first process inside."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for mount in mounts:
        source, target, *mode = mount.split(":")
        kernel.bind(source, target, readonly=mode == ["ro"])
    kernel.mount("proc", "/proc", "proc")
    if base != "-":
        kernel.unshare(CLONE_NEWUSER)
        os.write(has_users, b"x")
        os.read(is_mapped, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kernel.die_with_parent(signal.SIGKILL)  # after the change of users, which undoes it
    os.execvp(command[0], command)


def main() -> None:
    at = sys.argv.index("--")
    (network, base, uid, *mounts), command = sys.argv[1:at], sys.argv[at + 1:]
    enter_network(network)
    has_users, is_mapped = os.pipe(), os.pipe()
    kernel.unshare(kernel.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        inhabit(base, int(uid), mounts, command, has_users[1], is_mapped[0])
    if base != "-":
        os.read(has_users[0], 1)
        map_users(pid, base)
        os.write(is_mapped[1], b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)


if __name__ == "__main__":
    main()
