# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of packages share: how they are made, and what each kind of them promises."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from books import Books
from rig import PATIENCE, REPO, Machine

VERSION = re.search(r"(?m)^VERSION := (\S+)", (REPO / "Makefile").read_text())[1]
PARKED = 1000

SOCKETS = ("scached.socket", "scached-control.socket")
# What only an administrator enables.
OPTIONAL = ("scached-postfix.socket", "scached-metrics.timer")
PAGES = ("scachectl.1", "libscache.3", "scached.conf.5", "scache-protocol.7", "scached-fleet.7",
         "scached-containers.7", "scached.8")

# Further instances of Postfix, each with a service of its own: one in which something is parked, one that does not run.
QUEUES = ("/srv/busy", "/srv/idle")
BUSY, IDLE = "srv-busy", "srv-idle"

# What a life of a package leaves behind on any system: the logs and records of package managers, systemd and their triggers.
TRACES = re.compile(r"/var/(log|cache|backups)\b"
                    r"|/var/lib/(dpkg|rpm|pacman|systemd/(catalog|deb-systemd-helper-enabled$|timers|linger|random-seed))\b"
                    r"|/run/(log|systemd|user|dbus|udev|host|lock|adduser)\b|/etc/(group|gshadow|passwd|shadow)-$"
                    r"|/etc/\.pwd\.lock$|/etc/ld\.so\.cache|/tmp/|/var/tmp/|/root/")

# Parks connections, keeps their peers alive, and on a line of input finds all of them again.
PARKING = """
import socket, sys
from connection import Connection, identity
from protocol import Agent
path, dialect, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

with Agent(path, dialect, 20) as agent:
    parked = {}
    for i in range(count):
        connection = Connection(20)
        assert agent.save_endp_inline(3600, f"endpoint {i % 100}", i, connection.fd) == 0, i
        connection.pass_on()
        parked[connection.identity] = connection
print("parked", flush=True)

sys.stdin.readline()
with Agent(path, dialect, 20) as agent:
    for i in range(count):
        with agent.find_endp_inline(f"endpoint {i % 100}") as found:
            assert found.status == 0, f"connection {i} is gone"
            assert parked.pop(found.identity).works(found.fd), i
            assert found.properties == (str(i).encode(),), (i, found.properties)
print("found", flush=True)
"""


def commit(field: str) -> str:
    """Something about the last commit, of which packages are made, as git-log(1) formats it."""
    return subprocess.run(["git", "-C", REPO, "log", "-1", f"--format={field}"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def make_packages(kind: str, *variables: str, where: Path = REPO / "build/packages") -> Path:
    """`make deb`, `make rpm` or `make dist`, each into a build folder of its own. Unit tests have a place of their own.

    They are made from the last commit, however the binaries for the other tests were built: once is enough."""
    made = where / kind / kind
    stamp = made / "commit"
    if not stamp.exists() or stamp.read_text() != commit("%H"):
        result = subprocess.run(["make", "-C", REPO, "--no-print-directory", kind, f"B={where / kind}", *variables], text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600 * PATIENCE,
                                env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck"})
        assert result.returncode == 0, result.stdout[-3000:]
        stamp.write_text(commit("%H"))
    return made


def paths(machine: Machine) -> set[str]:
    found = machine.run("find /etc /usr /var /run /lib/ -xdev -not -path '/run/host/*'").stdout.splitlines()
    return {path for path in found if not TRACES.match(path)}


def settle(machine: Machine) -> None:
    """Let the host's own packages do no more than ours need."""
    assert machine.run("command -v scached scachectl", check=False).stdout == ""
    # Containers have one that lets no package start anything.
    machine.run("rm -f /usr/sbin/policy-rc.d")
    # Whatever has manual pages would have the index of all of them made again.
    machine.run("rm -f /var/lib/man-db/auto-update")


def is_active(machine: Machine, unit: str) -> bool:
    return machine.show(unit, "ActiveState")["ActiveState"] == "active"


def check_service(machine: Machine) -> None:
    """The sockets are those that they should be, the first agent starts the service, and there is help."""
    assert machine.run("stat -c %G:%a /run/scached/scached.sock").stdout == "scache:660\n"
    assert not is_active(machine, "scached.service")
    assert "0 parked" in machine.run("scachectl status").stdout
    assert is_active(machine, "scached.service")
    for page in PAGES:
        if page != "libscache.3":   # comes with the library
            assert machine.run(["man", "-w", *reversed(page.rsplit(".", 1))]).stdout
    machine.run("journalctl --list-catalog | grep -q 'scached: The connection cache has started'")


def check_upgrade(machine: Machine, upgrade: Callable[[], object]) -> None:
    """Upgrade while connections are parked, also for a further instance of Postfix.

    Each service that runs is restarted and loses none, and none is started that does not run. The rest stays active."""
    # The queues of this test have no configuration of Postfix.
    machine.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\nconnection_cache_epochs = no\n")
    machine.run(["mkdir", "-p", *(f"{queue}/private" for queue in ("/var/spool/postfix", *QUEUES))])
    machine.systemctl("start", *SOCKETS, *OPTIONAL, f"scached-postfix@{BUSY}.socket", f"scached-postfix@{IDLE}.socket")
    parkings = [machine.popen(["/usr/bin/python3", "-c", PARKING, path, dialect, str(count)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                for path, dialect, count in (("/run/scached/scached.sock", "native", PARKED),
                                             (f"{QUEUES[0]}/private/scached", "postfix", PARKED // 10))]
    assert [parking.stdout.readline() for parking in parkings] == ["parked\n"] * 2
    services = ("scached.service", f"scached@{BUSY}.service")
    before = {service: machine.show(service, "MainPID")["MainPID"] for service in services}

    upgrade()
    for service in services:
        assert is_active(machine, service)
        assert machine.show(service, "MainPID")["MainPID"] != before[service], f"{service} was not restarted"
    assert not is_active(machine, f"scached@{IDLE}.service")
    assert [unit for unit in (*SOCKETS, *OPTIONAL) if not is_active(machine, unit)] == []
    for parking in parkings:
        output, _ = parking.communicate("\n", timeout=60)
        assert (output, parking.returncode) == ("found\n", 0)
    said = Books(entry["MESSAGE"] for entry in machine.journal(SYSLOG_IDENTIFIER="scached"))
    assert said == dict.fromkeys(("kept", "restored"), PARKED + PARKED // 10)
