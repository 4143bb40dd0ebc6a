# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPMs: installed, upgraded while connections are parked, and erased, by the real rpm(8) under a real systemd."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from packages import OPTIONAL, SOCKETS, VERSION, check_service, check_upgrade, is_active, make_packages, paths, settle
from rig import REPO, Machine

NAMES = ("scached", "libscache", "libscache-devel")
POSTFIX = "scached-postfix.socket"


@pytest.fixture(scope="module")
def packages() -> Path:
    if not shutil.which("rpmbuild"):
        pytest.skip("needs rpmbuild: sh packaging/deps package")
    return make_packages("rpm")


@pytest.fixture(scope="module")
def newer(packages) -> Path:
    """Another build of the same commit, as a later release."""
    return make_packages("rpm", "RPMBUILD_FLAGS=--define 'dist .1'", where=REPO / "build/packages/newer")


@pytest.fixture
def host(packages, fresh_machine) -> Machine:
    settle(fresh_machine)
    # As the distributions with RPMs have it, and as Debian has not: what nobody asked for is not enabled.
    fresh_machine.write("/etc/systemd/system-preset/99-default-disable.preset", "disable *\n")
    return fresh_machine


def made(folder: Path, name: str) -> Path:
    found = list(folder.glob(f"RPMS/*/{name}-{VERSION}-*.rpm"))
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def rpm(machine: Machine, *arguments) -> None:
    """Run rpm(8); no scriptlet may complain. Debian's packages are none to it, hence --nodeps, and it says so each time."""
    result = machine.run(["rpm", "--nodeps", *arguments], timeout=120)
    complaints = [line for line in result.stderr.splitlines() if not re.match(r"rpm: |Creating (group|user) ", line)]
    assert (result.stdout, complaints) == ("", [])


def states(machine: Machine, *units: str) -> list[str]:
    return [machine.show(unit, "UnitFileState")["UnitFileState"] for unit in units]


def test_two_builds_are_the_same(packages, tmp_path):
    again = make_packages("rpm", tmp_path)
    assert [name for name in NAMES if made(again, name).read_bytes() != made(packages, name).read_bytes()] == []


def test_installation_enables_what_presets_say(host, packages):
    rpm(host, "-U", host.inside(made(packages, "scached")))
    assert states(host, *SOCKETS, *OPTIONAL) == ["disabled"] * 4
    host.systemctl("enable", "--now", *SOCKETS)
    check_service(host)


def test_upgrade_keeps_parked_connections(host, packages, newer):
    rpm(host, "-U", host.inside(made(packages, "scached")))
    check_upgrade(host, lambda: rpm(host, "-U", host.inside(made(newer, "scached"))))
    assert states(host, *SOCKETS) == ["disabled"] * 2


def test_erase_leaves_nothing(host, packages):
    # Where there are RPMs, these are other packages'.
    host.run("mkdir -p /usr/lib/systemd/system /usr/lib64/pkgconfig /usr/share/licenses /usr/share/zsh/site-functions "
             "/var/spool/postfix/private /srv/two/private")
    before = paths(host)
    rpm(host, "-U", *(host.inside(made(packages, name)) for name in NAMES))
    # As "scachectl postfix enable" writes it.
    host.write(f"/etc/systemd/system/{POSTFIX}.d/scachectl.conf", "[Socket]\nFileDescriptorName=postfix-legacy\n")
    host.systemctl("enable", "--now", *SOCKETS, *OPTIONAL, "scached-postfix@srv-two.socket")
    host.run("scachectl status")
    assert paths(host) - before

    rpm(host, "-e", *NAMES)
    # Without node_exporter it fails, if its timer has had the time to start it, and that is not forgotten.
    host.systemctl("reset-failed", "scached-metrics.service", check=False)
    assert host.systemctl("list-units", "--plain", "--no-legend", "scached*").stdout == ""
    assert sorted(paths(host) - before) == []
