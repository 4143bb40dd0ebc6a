# SPDX-License-Identifier: LGPL-2.1-or-later
"""What administrators do heals by itself. Sequences of it, drawn by chance, are in test_sequences.py."""

import re
import time

import pytest

from books import Books
from rig import REPO
from sequences import Worker

SERVICE = "scached.service"
SOCKETS = ("scached.socket", "scached-control.socket")
NATIVE, CONTROL = "native=/run/scached/scached.sock", "control=/run/scached/control.sock"
KEPT = 20
LINES_MAX = 100
OUTAGE_MAX = 5.0
PAUSE = 4


@pytest.fixture
def host(fresh_machine):
    fresh_machine.install()
    fresh_machine.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\nmax_idle = 0\n")
    fresh_machine.write("/etc/systemd/system/scached-reopen@.service.d/pause.conf", f"[Service]\nEnvironment=PAUSE={PAUSE}\n")
    fresh_machine.systemctl("daemon-reload")
    fresh_machine.systemctl("enable", "--now", *SOCKETS)
    return fresh_machine


def wait_answers(asker: Worker, since: float, timeout: float = OUTAGE_MAX) -> None:
    deadline = time.monotonic() + timeout
    while not all(asker.ask()["last"].get(each, 0) > since for each in (NATIVE, CONTROL)):
        assert time.monotonic() < deadline, f"no answer within {timeout} s"
        time.sleep(0.05)


def wait_served(host) -> None:
    """A socket that opens again within TriggerLimitIntervalSec= of its failure may fail once more."""
    host.wait(lambda: host.run(["scachectl", "status"], check=False).returncode == 0, 3 * PAUSE + OUTAGE_MAX)


def at(entry: dict) -> float:
    return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6


def books(machine) -> Books:
    return Books(entry["MESSAGE"] for entry in machine.journal(SYSLOG_IDENTIFIER="scached"))


def result(machine, unit: str) -> tuple[str, str]:
    shown = machine.show(unit, "ActiveState", "Result")
    return shown["ActiveState"], shown["Result"]


@pytest.mark.parametrize("commands", [
    "systemctl restart scached.socket",
    "systemctl restart scached.socket scached-control.socket scached.service",
    "systemctl restart scached.service scached-control.socket scached.socket",
    "systemctl restart 'scached*'",
    "systemctl stop scached.socket; systemctl start scached.socket",
    "systemctl stop 'scached*.socket'; systemctl restart scached.service",
    "systemctl try-restart scached.socket; systemctl reload-or-restart scached.socket scached.service",
    "systemctl disable --now scached.socket; systemctl enable --now scached.socket",
])
def test_sockets_and_service_move_together(host, commands):
    asker = Worker(host, "ask", NATIVE, CONTROL)
    keeper = Worker(host, "keep", "/run/scached/scached.sock", str(KEPT))
    keeper.hear()
    host.run(commands)
    wait_answers(asker, time.monotonic())
    assert keeper.ask() == {"found": KEPT, "told_goodbye": 0, "lost": []}
    books(host).check(told=0)


DROP_IN = "/etc/systemd/system/scached.service.d/broken.conf"


RESTART = "systemctl restart scached.service"
RESTART_AND_STOP = ("systemctl --no-block restart scached.service; "
                    "until systemctl show -P SubState scached.service | grep -qx {}; do :; done; systemctl stop scached.service")


@pytest.mark.parametrize("drop_in, command, said", [
    ("", RESTART, {"kept": KEPT, "restored": KEPT}),
    ("", "systemctl stop scached.service", {"drained": KEPT}),
    ("FileDescriptorStoreMax=0", RESTART, {"not kept": KEPT}),
    ("FileDescriptorStoreMax=1", RESTART, {"not kept": KEPT}),
    ("ExecStart=\nExecStart=/usr/sbin/scached -o max_idle=soon", RESTART, {"kept": KEPT, "restored": KEPT, "drained": KEPT}),
    ("ExecStart=\nExecStart=/nonexistent", RESTART, {"kept": KEPT, "not taken over": KEPT}),
    ("ExecStartPre=/bin/sleep 60", RESTART_AND_STOP.format("start-pre"), {"kept": KEPT, "not taken over": KEPT}),
    ("ExecStart=\nExecStart=/bin/sleep 60", RESTART_AND_STOP.format("start"), {"kept": KEPT, "not taken over": KEPT}),
    ("", "systemctl kill scached.service", {"kept": KEPT, "not taken over": KEPT}),
], ids=["restart", "stop", "no store", "no room", "bad setting", "start that fails", "stop before a start", "stop of a start", "kill"])
def test_the_journal_says_what_the_peers_see(host, drop_in, command, said):
    keeper = Worker(host, "keep", "/run/scached/scached.sock", str(KEPT))
    keeper.hear()
    host.write(DROP_IN, f"[Service]\n{drop_in}\n")
    host.systemctl("daemon-reload")
    host.run(command, check=False)
    host.wait(lambda: books(host) == said, 10, f"the journal says {said}")
    host.run(["rm", DROP_IN])
    host.systemctl("daemon-reload")
    host.systemctl("start", SERVICE)
    found = 0 if books(host).told() else KEPT
    assert keeper.ask() == {"found": found, "told_goodbye": KEPT - found, "lost": []}
    books(host).check(told=KEPT - found)
    assert not [entry["MESSAGE"] for entry in host.journal() if "eft-over process" in entry["MESSAGE"]]


@pytest.mark.parametrize("change, path", [
    ("systemctl mask scached.socket && systemctl unmask scached.socket", "/run/scached/scached.sock"),
    ("mkdir -p /etc/systemd/system/scached.socket.d && printf '[Socket]\nListenStream=\nListenStream=/run/scached/other\n' "
     ">/etc/systemd/system/scached.socket.d/other.conf && systemctl daemon-reload", "/run/scached/other"),
])
def test_what_takes_a_restart_of_the_socket(host, change, path):
    """scached(8) names these. As long as the service runs, it has the socket."""
    host.run(["scachectl", "status"])
    host.run(change)
    host.systemctl("stop", SERVICE)
    assert result(host, "scached.socket") == ("active", "success")
    agent = ["python3", "-c", "import sys; from protocol import Agent; Agent(sys.argv[1], 'native', 3)", path]
    assert host.run(agent, check=False).returncode != 0
    host.systemctl("restart", "scached.socket")
    host.run(agent)


def test_readme_quotes_what_is_said_where_users_are_missing(host):
    row = next(line for line in (REPO / "README.md").read_text().splitlines() if "systemd-sysusers" in line)
    quoted = re.findall("`(.*?)`", row.split("|")[1])
    host.systemctl("stop", "scached*")
    host.run("userdel scached; groupdel scache")
    host.mark = host.journal_end()
    assert host.systemctl("start", "scached.socket", check=False).returncode != 0
    host.run("scachectl status", check=False)
    host.wait(lambda: len({entry.get("UNIT") for entry in host.journal()
                           if any(words in entry["MESSAGE"] for words in quoted)} & {"scached.socket", SERVICE}) == 2, 10)
    host.run(["systemd-sysusers"])
    wait_served(host)


def test_start_after_a_stop_of_all(host):
    host.run(["scachectl", "status"])
    host.run("systemctl stop 'scached*'; systemctl start scached.service")
    host.run(["scachectl", "status"])
    assert result(host, "scached.socket") == ("active", "success")


def test_masked_and_unmasked(host):
    asker = Worker(host, "ask", NATIVE, CONTROL)
    wait_answers(asker, 0)
    host.systemctl("mask", "--now", SERVICE)
    host.wait(lambda: result(host, "scached.socket")[0] == "failed", 10, "an agent finds that nothing can be started")
    lines = len(host.journal())
    host.systemctl("unmask", SERVICE)
    wait_answers(asker, time.monotonic())
    assert lines < LINES_MAX


# What keeps the service from starting: a file, its text, and what takes it away.
CAUSES = {
    "condition": (DROP_IN, "[Unit]\nConditionPathExists=/nonexistent\n"),
    "requirement": (DROP_IN, "[Unit]\nRequires=broken.service\nAfter=broken.service\n"),
    "user": (DROP_IN, "[Service]\nUser=nobody-of-this-name\n"),
    "program": (DROP_IN, "[Service]\nExecStart=\nExecStart=/nonexistent\n"),
    "crash": (DROP_IN, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -SEGV $$$$'\n"),
    "settings": ("/etc/scached/scached.conf", "max_idle = soon\n"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_service_that_cannot_start(host, cause):
    """The sockets close after a few attempts, nothing spins, and all comes back when the cause is gone."""
    file, text = CAUSES[cause]
    host.write("/etc/systemd/system/broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    host.write(file, text)
    host.systemctl("daemon-reload")
    host.mark = host.journal_end()
    asker = Worker(host, "ask", NATIVE, CONTROL)
    for unit in SOCKETS:
        host.wait(lambda: result(host, unit) == ("failed", "trigger-limit-hit"), 20, f"{unit} closes")
    time.sleep(PAUSE)
    entries = host.journal()
    closed = [at(entry) for entry in entries if "does not start: see" in entry["MESSAGE"]]
    begin, end = closed[len(SOCKETS) - 1] + 0.3, closed[0] + PAUSE
    assert sum(at(entry) < end for entry in entries) < LINES_MAX
    assert [entry["MESSAGE"] for entry in entries if begin < at(entry) < end] == [], "one line says what to look at, then none"
    host.run(["rm", file])
    host.systemctl("daemon-reload")
    wait_answers(asker, time.monotonic(), 2 * PAUSE + OUTAGE_MAX)
    # Those who waited for one may be so many that it closes again, for as long as its limit counts those before.
    for unit in SOCKETS:
        host.wait(lambda: result(host, unit)[0] == "active", 2 * PAUSE + 10, f"{unit} is open")


def close_control_socket(host) -> None:
    """The service cannot start, and somebody has asked it."""
    host.write(*CAUSES["user"])
    host.systemctl("daemon-reload")
    host.run("scachectl status", check=False)
    host.wait(lambda: result(host, "scached-control.socket")[0] == "failed", 20)


@pytest.mark.parametrize("reset", [False, True])
def test_reset_of_a_failure_is_no_end(host, reset):
    close_control_socket(host)
    if reset:
        host.systemctl("reset-failed", "scached*")
    host.run(["rm", CAUSES["user"][0]])
    host.systemctl("daemon-reload")
    host.wait(lambda: result(host, "scached-control.socket")[0] == "active", 2 * PAUSE + OUTAGE_MAX)
    wait_served(host)


@pytest.mark.parametrize("reset", [False, True])
def test_stop_ends_the_attempts(host, reset):
    close_control_socket(host)
    if reset:
        host.systemctl("reset-failed", "scached*")
    host.systemctl("stop", "scached-control.socket")
    host.wait(lambda: result(host, "scached-reopen@scached-control.service")[0] == "inactive", 5)


def test_reload_without_procps(host):
    host.run(["scachectl", "status"])
    host.run("rm $(realpath $(which kill))")
    host.systemctl("reload", SERVICE)
    host.journal_wait("Read the settings again", unit=SERVICE)


@pytest.mark.parametrize("before", [
    "groupadd --gid 4711 scached",
    "useradd --system --user-group scached",
    "sed -i s/systemd// /etc/nsswitch.conf",
])
def test_names_that_exist(fresh_machine, before):
    """The service has a user, whatever the names of others are, and however they are looked up."""
    fresh_machine.run(before)
    fresh_machine.install()
    fresh_machine.systemctl("enable", "--now", *SOCKETS)
    fresh_machine.run(["scachectl", "status"])
    pid = fresh_machine.show(SERVICE, "MainPID")["MainPID"]
    assert fresh_machine.run(["stat", "-c", "%U", f"/proc/{pid}"]).stdout == "scached\n"
