# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd has made of the daemon that all the other tests of such a run look at: the one that is installed, in the
whole sandbox of the unit as it is shipped."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

import pytest

import booted
from connection import wait_until

pytestmark = pytest.mark.sandbox


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_unit_is_the_shipped_one(daemon):
    """But for what lets a test start it and see a refused call: nothing that makes the sandbox."""
    lines = booted.systemctl("show", daemon.manager.service).splitlines()
    unit = dict(line.split("=", 1) for line in lines)
    fragment, drop_in = Path(unit["FragmentPath"]), Path(unit["DropInPaths"])
    assert fragment.samefile(booted.INSTALLED / "scached@.service") and drop_in.parts[1] == "run"
    assert fragment.read_text() == (booted.INSTALLED / "scached.service").read_text()
    assert unit["NeedDaemonReload"] == "no"
    changed = set(re.findall(r"(?m)^(\w+)=", drop_in.read_text()))
    assert changed == {"ExecStart", "EnvironmentFile", "Restart", "RestartSec", "SystemCallErrorNumber"}


def test_what_the_kernel_says(daemon):
    """And nothing of it is the test's own."""
    seen = status(daemon.pid)
    assert os.readlink(f"/proc/{daemon.pid}/exe") == "/usr/sbin/scached"
    assert seen["PPid"] == "1"
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
    assert {seen[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {16 * "0"}
    for namespace in ("net", "mnt", "uts"):
        path = f"ns/{namespace}"
        assert os.readlink(f"/proc/{daemon.pid}/{path}") != os.readlink(f"/proc/self/{path}"), namespace
    user = pwd.getpwnam("scached")
    assert user.pw_uid != 0 and set(seen["Uid"].split()) == {str(user.pw_uid)}
    assert set(seen["Gid"].split()) == {str(user.pw_gid)} >= set(seen["Groups"].split())


def test_what_it_may_not_do(daemon):
    """Nothing is to be written, and homes and temporary files are not even to be seen."""
    root = Path(f"/proc/{daemon.pid}/root")
    mounts = Path(f"/proc/{daemon.pid}/mountinfo").read_text()
    assert re.search(r"^\d+ \d+ \S+ \S+ / ro,", mounts, re.M)
    assert {len(list((root / name).iterdir())) for name in ("tmp", "var/tmp", "root", "home")} == {0}
    assert not (root / "dev/fuse").exists()


def test_a_refused_call_is_fatal(make_manager):
    """Else none would be missed in all the tests of this run."""
    manager = make_manager(sockets=["native"])
    drop_in = booted.OURS / f"{manager.service}.d/refuse.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nSystemCallFilter=~accept4\n")
    booted.systemctl("daemon-reload")
    daemon = manager.start()
    daemon.agent("native", greet=False)
    assert wait_until(daemon.poll, "its end") == -31
    daemon.check(-31)
