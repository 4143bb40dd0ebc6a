# SPDX-License-Identifier: LGPL-2.1-or-later
"""Arch's package: built by the real makepkg(8) as Arch itself would, installed and removed by the real pacman(8)."""

import re
import shutil

import pytest

from packages import PAGES, SOCKETS, VERSION, check_service, commit, is_active, make_packages, paths, settle
from rig import REPO, Machine

WHERE = "/tmp/arch"
PACKAGE = f"scached-{VERSION}-1-x86_64.pkg.tar.gz"

# What Arch's own makepkg.conf has and Debian's has not; and where the packages go.
CONFIGURATION = """\
. /etc/makepkg.conf
CARCH=x86_64
CFLAGS="-march=x86-64 -mtune=generic -O2 -pipe -fno-plt -fexceptions -Wp,-D_FORTIFY_SOURCE=3 -Wformat \
-Werror=format-security -fstack-clash-protection -fcf-protection -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer"
LDFLAGS="-Wl,-O1 -Wl,--sort-common -Wl,--as-needed -Wl,-z,relro -Wl,-z,now -Wl,-z,pack-relative-relocs"
LTOFLAGS=-flto=auto
MAKEFLAGS=-j$(nproc)
OPTIONS=(strip docs !libtool !staticlibs emptydirs zipman purge !debug lto)
PACKAGER='scached maintainers <maintainers@scached.example>'
"""

# What Arch's own pacman.conf has: a package that comes as a file needs no signature.
PACMAN = "[options]\nArchitecture = auto\nSigLevel = Required DatabaseOptional\nLocalFileSigLevel = Optional\n"

FILES = {
    "usr/bin/scachectl", "usr/bin/scached", "usr/include/scache.h", "usr/lib/libscache.so", "usr/lib/libscache.so.0",
    "usr/lib/pkgconfig/libscache.pc", "usr/lib/systemd/catalog/scached.catalog", "usr/lib/sysusers.d/scached.conf",
    "usr/share/bash-completion/completions/scachectl", "usr/share/licenses/scached/LICENSE",
    "usr/share/zsh/site-functions/_scachectl",
    *(f"usr/lib/systemd/system/{path.name}" for path in (REPO / "units").iterdir()
      if path.suffix in (".socket", ".path")), "usr/lib/scached/scached-socket",
    *(f"usr/lib/systemd/system/{name}" for name in ("scached.service", "scached@.service", "scached-metrics.service",
                                                    "scached-new-socket@.service", "scached-reopen@.service",
                                                    "scached-metrics.timer")),
    *(f"usr/share/man/man{page[-1]}/{page}.gz" for page in PAGES),
}


@pytest.fixture(scope="module")
def host(module_machine) -> Machine:
    for tool in ("makepkg", "pacman", "bsdtar"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}: sh packaging/deps package")
    settle(module_machine)
    # Where there is Arch, there are these.
    module_machine.run("mkdir -p /var/lib/pacman /usr/share/licenses /usr/share/zsh/site-functions")
    module_machine.write("/etc/pacman.conf", PACMAN)
    module_machine.run("pacman -Q", check=False)   # makes its records, in which it finds nothing
    return module_machine


@pytest.fixture(scope="module")
def package(host) -> str:
    return build(host, "one")


def build(host: Machine, name: str, *options: str) -> str:
    """Run makepkg where it has not been run before, but always in the same folder; returns where the package is."""
    tarball = host.inside(make_packages("dist") / f"scached-{VERSION}.tar.gz")
    host.run(f"rm -rf {WHERE} && install -d -o nobody {WHERE} /tmp/{name} && "
             f"cp {tarball} {host.inside(REPO / 'packaging/arch/PKGBUILD')} {WHERE}")
    host.write(f"{WHERE}/makepkg.conf", CONFIGURATION)
    result = host.run(["makepkg", "--nodeps", f"--config={WHERE}/makepkg.conf", *options], user="nobody", cwd=WHERE,
                      env={"HOME": WHERE, "PKGDEST": f"/tmp/{name}", "SOURCE_DATE_EPOCH": commit("%ct")}, timeout=300)
    complaints = [line for line in result.stderr.splitlines() if re.search("warning|error", line, re.IGNORECASE)]
    assert [line for line in complaints if "Skipping dependency checks" not in line] == []
    assert host.run(f"ls /tmp/{name}").stdout == f"{PACKAGE}\n"
    return f"/tmp/{name}/{PACKAGE}"


def pacman(host: Machine, *arguments: str) -> None:
    result = host.run(["pacman", "--noconfirm", "--nodeps", "--nodeps", *arguments])
    assert result.stderr == ""


def test_two_builds_are_the_same(host, package):
    assert host.run(["cmp", package, build(host, "other", "--nocheck")]).stdout == ""


def test_all_is_in_it(host, package):
    listed = host.run(["bsdtar", "-tf", package]).stdout.split()
    assert {path for path in listed if not path.endswith("/") and not path.startswith(".")} == FILES
    assert "etc/scached/" in listed
    about = host.run(["bsdtar", "-xOf", package, ".PKGINFO"]).stdout.splitlines()
    assert {"provides = libscache.so=0-64", "depend = systemd-libs"} <= set(about)


def test_installed_and_removed(host, package):
    before = paths(host)
    pacman(host, "-U", package)
    # As the hooks of Arch's systemd do.
    host.run("systemd-sysusers && journalctl --update-catalog && systemctl daemon-reload")
    assert not any(is_active(host, unit) for unit in SOCKETS)
    host.systemctl("enable", "--now", *SOCKETS)
    check_service(host)

    host.systemctl("disable", "--now", *SOCKETS)
    host.systemctl("stop", "scached.service")
    pacman(host, "-R", "scached")
    host.systemctl("daemon-reload")
    assert sorted(paths(host) - before) == ["/run/scached"], "until the next boot"
