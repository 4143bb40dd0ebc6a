# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages: well-formed, true to the code, and leading to one another."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from launch import run

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "man").glob("*.[1-8]"))
NAMES = {f"{path.stem}({path.suffix[1:]})": path for path in PAGES}

# Pages of others that ours refer to.
OUTSIDE = {
    "journalctl(1)", "postconf(1)", "postmap(1)", "postmulti(1)", "systemctl(1)", "systemd(1)", "systemd-socket-activate(1)", "close(2)", "connect(2)", "fork(2)",
    "poll(2)", "read(2)", "recvmsg(2)", "sendmsg(2)", "shutdown(2)", "sd_listen_fds(3)", "sd_notify(3)",
    "postconf(5)", "transport(5)", "podman-systemd.unit(5)", "systemd.exec(5)", "systemd.resource-control(5)", "systemd.socket(5)", "systemd-sysusers(8)", "master(5)", "glob(7)", "network_namespaces(7)", "user_namespaces(7)", "unix(7)",
    "master(8)", "scache(8)", "smtp(8)", "chown(1)", "systemd.preset(5)",
}

SECTIONS = {
    "1": {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"},
    "3": {"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"},
    "5": {"NAME", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"},
    "7": {"NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"},
    "8": {"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"},
}

SCREEN_LINES, SCREEN_COLUMNS = 24, 80

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def headings(page: Path) -> set[str]:
    return set(re.findall(r"(?m)^\.S[hs] (.+)$", page.read_text()))


def test_all_pages_are_there():
    assert set(NAMES) == {"scachectl(1)", "libscache(3)", "scached.conf(5)", "scache-protocol(7)", "scached-fleet(7)",
                          "scached-containers(7)", "scached(8)"}


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
def test_mandoc_has_nothing_to_say():
    result = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *PAGES], text=True, capture_output=True, timeout=30)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@each_page
def test_page_has_the_sections_that_are_looked_for(page):
    assert SECTIONS[page.suffix[1:]] <= headings(page)


@each_page
def test_references_lead_somewhere(page):
    text = page.read_text()
    found = {f"{name}({section})" for name, section in re.findall(r"\bXr (\S+) (\d)", text)}
    assert found - set(NAMES) - OUTSIDE == set(), "neither ours nor a page known to exist"
    sections = set(re.findall(r"(?m)^\.Sx (.+?)(?: [.,;:)])?$", text))
    assert sections - headings(page) == set()


@each_page
def test_pages_lead_to_one_another(page):
    """From each page to scached(8), and from there to all."""
    see_also = page.read_text().split(".Sh SEE ALSO")[1]
    linked = {f"{name}({section})" for name, section in re.findall(r"(?m)^\.Xr (\S+) (\d)", see_also)}
    assert (set(NAMES) if page.name == "scached.8" else {"scached(8)"}) - {f"{page.stem}({page.suffix[1:]})"} <= linked


# scached.conf(5).

def parameters_on_the_page() -> dict[str, str]:
    """What the page says of each: "default: 2s", "default: empty", "read-only"."""
    text = NAMES["scached.conf(5)"].read_text()
    found = re.findall(r"(?m)^\.It Va (\w+) Pq (.+)$", text)
    return {name: what.replace("Ql ", "").replace(r"\&", "").replace(r"\e", "\\") for name, what in found}


def parameters_in_the_code(empty: Path) -> dict[str, str]:
    """The same, of what `scached --check` shows where nothing is set."""
    result = run(["-c", str(empty), "--check"])
    assert (result.returncode, result.stderr) == (0, "")
    found = {}
    for source, name, value in re.findall(r"(?m)^# (.+)\n(\w+) = ?(.*)$", result.stdout):
        source = "read-only" if name == "config_directory" else source
        assert source in ("default", "read-only")
        found[name] = source if source == "read-only" else f"default: {value or 'empty'}"
    return found


def test_every_setting_is_explained_with_its_default(built, tmp_path):
    parameters = parameters_in_the_code(tmp_path)
    assert len(parameters) > 10
    assert parameters_on_the_page() == parameters


# scached(8).

def test_every_option_is_explained(built):
    usage = run(["--help"])
    assert usage.returncode == 0
    page = NAMES["scached(8)"].read_text()
    options = set(re.findall(r"--([a-z][a-z-]+)", "".join(re.findall(r"(?m)^ +-.*\n", usage.stdout))))
    assert {"check", "help", "option", "verbose", "version"} <= options
    shown = set(re.findall(r" -([a-z][a-z-]+)", "".join(re.findall(r"(?m)^\.It Fl .*\n", page))))
    assert shown == options


def test_help_fits_a_screen(built):
    lines = run(["--help"]).stdout.splitlines()
    assert len(lines) <= SCREEN_LINES
    assert [line for line in lines if len(line) > SCREEN_COLUMNS] == []


def test_every_exit_status_is_explained():
    """The names in sysexits.h that the daemon's main program and service return."""
    numbers = {name: number for name, number in re.findall(
        r"(?m)^#define (EX_\w+)\s+(\d+)", Path("/usr/include/sysexits.h").read_text())}
    code = "".join((REPOSITORY / "src/scached" / name).read_text() for name in ("main.c", "service.c"))
    page = NAMES["scached(8)"].read_text().split(".Sh EXIT STATUS")[1].split(".Sh")[0]
    used = {numbers[name] for name in re.findall(r"\bEX_\w+", code)}
    assert {"0", "64", "78"} <= used
    assert set(re.findall(r"(?m)^\.It (\d+)$", page)) == used
