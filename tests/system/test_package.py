# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages: installed, upgraded while connections are parked, removed and purged."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from packages import OPTIONAL, SOCKETS, VERSION, check_service, check_upgrade, is_active, make_packages, paths, settle
from rig import REPO, Machine


def made(folder: Path, name: str) -> Path:
    found = list(folder.glob(f"{name}_{VERSION}-*.deb"))
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


@pytest.fixture(scope="module")
def packages() -> Path:
    for tool in ("dpkg-buildpackage", "dh", "lintian"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}: sh packaging/deps package")
    return make_packages("deb")


@pytest.fixture
def host(packages, fresh_machine) -> Machine:
    """A machine on which no scached was ever installed."""
    settle(fresh_machine)
    return fresh_machine


def dpkg(machine: Machine, *arguments) -> str:
    """Run dpkg(1); nothing in it may fail or complain."""
    result = machine.run(["dpkg", *arguments], env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)
    usual = re.compile("Creating (group|user) |Created symlink |Not building database")
    complaints = [line for line in result.stderr.splitlines() if not usual.match(line)]
    assert complaints == []
    return result.stdout


def older(machine: Machine, package: Path, version: str) -> str:
    """The same package under another version, where the machine can read it."""
    folder = f"/root/{version}"
    machine.run(f"mkdir -p {folder} && dpkg-deb -R {machine.inside(package)} {folder}/tree && "
                f"sed -i 's/^Version:.*/Version: {version}/' {folder}/tree/DEBIAN/control && "
                f"dpkg-deb -b {folder}/tree {folder}/package.deb")
    return f"{folder}/package.deb"


# Tags that only some releases of lintian have: of an init script, which a daemon that needs systemd does without; of a web page,
# which the project does not have; of examples, which no package installs; and of fields that the oldest release needs and
# the newest takes for granted.
OF_SOME_RELEASES = re.compile(r"\b(package-supports-alternative-init-but-no-init\.d-script|upstream-metadata-file-is-missing"
                              r"|package-does-not-install-examples|(out-of-date|newer)-standards-version"
                              r"|package-uses-old-debhelper-compat-version"
                              r"|redundant-(priority-optional|rules-requires-root-no)-field"
                              r"|ored-build-depends-on-obsolete-package Build-Depends: pkg-config)\b")


@pytest.mark.parametrize("group, answers", [("build", ""), ("check", "postfix postfix/main_mailer_type select No configuration\n")])
def test_deps_answer_for_postfix_only_where_they_install_it(fresh_machine, group, answers):
    """Who installs Postfix later is asked, and gets a main.cf."""
    deps = REPO / "packaging/deps"
    readers = re.search(r'(?m)^readers_of_debian="(.*)"', deps.read_text())[1].split()
    fresh_machine.run(["mkdir", "-p", *(f"/root/readers/usr/share/doc/{name}" for name in readers)])
    fresh_machine.run("rm -f /usr/sbin/postfix")
    for name, does in (("apt-get", ":"), ("dpkg-query", "false"), ("debconf-set-selections", "cat >>/root/answers")):
        fresh_machine.write(f"/usr/local/sbin/{name}", f"#!/bin/sh\n{does}\n", 0o755)
    fresh_machine.run(["sh", fresh_machine.inside(deps), group], env={"READERS": "/root/readers"})
    assert fresh_machine.run("cat /root/answers", check=False).stdout == answers


def test_lintian_has_nothing_to_say(packages):
    result = subprocess.run(["lintian", "--allow-root", "--pedantic", "--display-info", "--fail-on=none",
                             *packages.glob("*.changes")],
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    said = [line for line in result.stdout.splitlines() if not line.startswith("N:") and not OF_SOME_RELEASES.search(line)]
    assert (result.returncode, said) == (0, [])


def test_two_builds_are_the_same(packages, tmp_path):
    again = make_packages("deb", where=tmp_path)
    names = sorted(path.name for path in packages.glob("scached_*.dsc")) + sorted(
        path.name for path in packages.glob("*.deb"))
    assert len(names) >= 2
    assert [name for name in names if (again / name).read_bytes() != (packages / name).read_bytes()] == []


def test_sockets_listen_after_installation(host, packages):
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    for unit in SOCKETS:
        assert host.show(unit, "ActiveState", "UnitFileState") == {"ActiveState": "active", "UnitFileState": "enabled"}
    for unit in OPTIONAL:
        assert host.show(unit, "ActiveState", "UnitFileState") == {
            "ActiveState": "inactive", "UnitFileState": "disabled"}
    check_service(host)


def test_upgrade_keeps_parked_connections(host, packages):
    dpkg(host, "-i", older(host, made(packages, "scached"), "0.0.1-1"))
    check_upgrade(host, lambda: dpkg(host, "-i", host.inside(made(packages, "scached"))))


def test_upgrade_starts_nothing_that_did_not_run(host, packages):
    dpkg(host, "-i", older(host, made(packages, "scached"), "0.0.1-1"))
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    assert [unit for unit in ("scached.service", *OPTIONAL) if is_active(host, unit)] == []


def test_purge_leaves_nothing(host, packages):
    host.run(["mkdir", "-p", "/var/spool/postfix/private"])
    before = paths(host)
    dpkg(host, "-i", host.inside(made(packages, "scached")), host.inside(made(packages, "libscache0")),
         host.inside(made(packages, "libscache-dev")))
    host.write("/etc/scached/scached.conf", "max_idle = 1h\n")
    host.systemctl("enable", "--now", *OPTIONAL)
    host.run("scachectl status")
    assert paths(host) - before

    dpkg(host, "--remove", "scached", "libscache-dev", "libscache0")
    # Without node_exporter it fails, if its timer has had the time to start it, and that is not forgotten.
    host.systemctl("reset-failed", "scached-metrics.service", check=False)
    assert host.systemctl("list-units", "--plain", "--no-legend", "scached*").stdout == ""
    assert host.read("/etc/scached/scached.conf") == "max_idle = 1h\n"
    dpkg(host, "--purge", "scached")
    assert sorted(paths(host) - before) == []
    assert host.run("getent group scache || getent group scache-admin", check=False).returncode != 0


def test_autopkgtest(host, packages):
    dpkg(host, "-i", host.inside(made(packages, "scached")))
    # The machine has its own ideas of the host's Postfix: let it be as freshly installed.
    host.run("cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf;"
             "rm -f /run/systemd/system-generators/postfix-instance-generator")
    host.systemctl("daemon-reload")
    result = host.run([host.inside(REPO / "packaging/debian/tests/postfix-delivery")], timeout=180)
    assert "20 mails delivered" in result.stdout
