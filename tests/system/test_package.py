"""The Debian packages: installed, upgraded while connections are parked, removed and purged."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rig import REPO, Machine

VERSION = re.search(r"(?m)^VERSION := (\S+)", (REPO / "Makefile").read_text())[1]
PARKED = 1000

# What a life of a package leaves behind on any system: the logs and records of dpkg, systemd and their triggers.
TRACES = re.compile(r"/var/(log|cache|backups|lib/(dpkg|systemd/(catalog|deb-systemd-helper-enabled$|timers|random-seed)))\b"
                    r"|/run/(log|systemd|user|dbus|udev|host|lock|adduser)\b|/etc/(group|gshadow|passwd|shadow)-$"
                    r"|/etc/\.pwd\.lock$|/etc/ld\.so\.cache|/tmp/|/var/tmp/|/root/")

# Parks connections, keeps their peers alive, and on a line of input finds all of them again.
PARKING = """
import socket, sys
from connection import Connection, identity
from protocol import Agent
path, count = sys.argv[1], int(sys.argv[2])

with Agent(path, "native", 20) as agent:
    parked = {}
    for i in range(count):
        connection = Connection(20)
        assert agent.save_endp_inline(3600, f"endpoint {i % 100}", i, connection.fd) == 0, i
        connection.pass_on()
        parked[connection.identity] = connection
print("parked", flush=True)

sys.stdin.readline()
with Agent(path, "native", 20) as agent:
    for i in range(count):
        with agent.find_endp_inline(f"endpoint {i % 100}") as found:
            assert found.status == 0, f"connection {i} is gone"
            assert parked.pop(found.identity).works(found.fd), i
            assert found.properties == (str(i).encode(),), (i, found.properties)
print("found", flush=True)
"""


def make_packages(where: Path) -> Path:
    """`make deb` into a build folder. Unit tests have a place of their own.

    They are made from the last commit, however the binaries for the other tests were built: once is enough."""
    commit = subprocess.run(["git", "-C", REPO, "rev-parse", "HEAD"], check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    stamp = where / "deb/commit"
    if stamp.exists() and stamp.read_text() == commit:
        return where / "deb"
    result = subprocess.run(["make", "-C", REPO, "--no-print-directory", "deb", f"B={where}"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
                            env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck"})
    assert result.returncode == 0, result.stdout[-3000:]
    stamp.write_text(commit)
    return where / "deb"


def made(folder: Path, name: str) -> Path:
    found = list(folder.glob(f"{name}_{VERSION}-*.deb"))
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


@pytest.fixture(scope="module")
def packages() -> Path:
    for tool in ("dpkg-buildpackage", "dh", "lintian"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}: sh packaging/deps package")
    return make_packages(REPO / "build")


@pytest.fixture
def host(packages, fresh_machine) -> Machine:
    """A machine on which no scached was ever installed."""
    assert fresh_machine.run("command -v scached scachectl", check=False).stdout == ""
    # Containers have one that lets no package start anything.
    fresh_machine.run("rm -f /usr/sbin/policy-rc.d")
    return fresh_machine


def dpkg(machine: Machine, *arguments) -> str:
    """Run dpkg(1); nothing in it may fail or complain."""
    result = machine.run(["dpkg", *arguments], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)
    complaints = [line for line in result.stderr.splitlines() if not re.match(r"Creat(ing group|ed symlink) ", line)]
    assert complaints == []
    return result.stdout


def older(machine: Machine, package: Path, version: str) -> str:
    """The same package under another version, where the machine can read it."""
    folder = f"/root/{version}"
    machine.run(f"mkdir -p {folder} && dpkg-deb -R {machine.inside(package)} {folder}/tree && "
                f"sed -i 's/^Version:.*/Version: {version}/' {folder}/tree/DEBIAN/control && "
                f"dpkg-deb -b {folder}/tree {folder}/package.deb")
    return f"{folder}/package.deb"


def paths(machine: Machine) -> set[str]:
    found = machine.run("find /etc /usr /var /run /lib/ -xdev -not -path '/run/host/*'").stdout.splitlines()
    return {path for path in found if not TRACES.match(path)}


def test_lintian_has_nothing_to_say(packages):
    result = subprocess.run(["lintian", "--allow-root", "--pedantic", "--display-info", *packages.glob("*.changes")],
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert (result.returncode, re.sub(r"(?m)^N:.*\n?", "", result.stdout)) == (0, "")


def test_two_builds_are_the_same(packages, tmp_path):
    again = make_packages(tmp_path)
    names = sorted(path.name for path in packages.glob("scached_*.dsc")) + sorted(
        path.name for path in packages.glob("*.deb"))
    assert len(names) >= 2
    assert [name for name in names if (again / name).read_bytes() != (packages / name).read_bytes()] == []


def test_sockets_listen_after_installation(host, packages):
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    for unit in ("scached.socket", "scached-control.socket"):
        assert host.show(unit, "ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    assert host.show("scached-postfix.socket", "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive", "UnitFileState": "disabled"}
    assert host.show("scached.service", "ActiveState")["ActiveState"] == "inactive"
    assert host.run("stat -c %G:%a /run/scached/scached.sock").stdout == "scache:660\n"
    assert host.run("scachectl status").stdout
    assert host.show("scached.service", "ActiveState")["ActiveState"] == "active"
    for page in ("scached.8", "scached.conf.5", "scache-protocol.7", "scachectl.1"):
        assert host.run(["man", "-w", *reversed(page.rsplit(".", 1))]).stdout
    host.run("journalctl --list-catalog | grep -q 'scached: The connection cache has started'")


def test_upgrade_keeps_parked_connections(host, packages):
    dpkg(host, "-i", older(host, made(packages, "scached"), "0.0.1-1"))
    host.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\n")
    parking = host.popen(["/usr/bin/python3", "-c", PARKING, "/run/scached/scached.sock", str(PARKED)],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parking.stdout.readline() == "parked\n"
    before = host.show("scached.service", "MainPID")["MainPID"]

    dpkg(host, "-i", host.inside(made(packages, "scached")))
    assert host.show("scached.service", "MainPID", "ActiveState") != {"MainPID": before, "ActiveState": "active"}
    assert host.show("scached.service", "ActiveState")["ActiveState"] == "active"
    output, _ = parking.communicate("\n", timeout=60)
    assert (output, parking.returncode) == ("found\n", 0)


def test_upgrade_starts_nothing_that_did_not_run(host, packages):
    dpkg(host, "-i", older(host, made(packages, "scached"), "0.0.1-1"))
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    assert host.show("scached.service", "ActiveState")["ActiveState"] == "inactive"
    assert host.show("scached-postfix.socket", "ActiveState")["ActiveState"] == "inactive"


def test_purge_leaves_nothing(host, packages):
    before = paths(host)
    dpkg(host, "-i", host.inside(made(packages, "scached")), host.inside(made(packages, "libscache0")),
         host.inside(made(packages, "libscache-dev")))
    host.write("/etc/scached/scached.conf", "max_idle = 1h\n")
    host.run(["mkdir", "-p", "/var/spool/postfix/private"])
    host.systemctl("enable", "--now", "scached-postfix.socket")
    host.run("scachectl status")
    assert paths(host) - before

    dpkg(host, "--remove", "scached", "libscache-dev", "libscache0")
    assert host.systemctl("list-units", "--plain", "--no-legend", "scached*").stdout == ""
    assert host.read("/etc/scached/scached.conf") == "max_idle = 1h\n"
    dpkg(host, "--purge", "scached")
    assert sorted(paths(host) - before) == []
    assert host.run("getent group scache", check=False).returncode != 0


def test_autopkgtest(host, packages):
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    # The machine has its own ideas of the host's Postfix: let it be as freshly installed.
    host.run("cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf;"
             "rm -f /run/systemd/system-generators/postfix-instance-generator")
    host.systemctl("daemon-reload")
    result = host.run([host.inside(REPO / "packaging/debian/tests/postfix-delivery")], timeout=180)
    assert "20 mails delivered" in result.stdout
