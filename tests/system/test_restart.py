# SPDX-License-Identifier: LGPL-2.1-or-later
"""Restarts, crashes and reloads by a real systemd, under agents that go on working."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from mail import Postfix, Sink
from rig import PATIENCE, readable

SERVICE = "scached.service"
SOCKETS = ("scached.socket", "scached-control.socket")
NATIVE = "/run/scached/scached.sock"
GROUP = "scache"
ALICE, BOB = "60001", "60002"

# How long mail flows while the daemon is restarted every two seconds.
MAIL_SECONDS = int(os.environ.get("SCACHED_MAIL_SECONDS", "60"))


class Worker:
    """A process of workers.py in the machine."""

    def __init__(self, machine, *arguments: str):
        self.process = machine.popen(
            ["/usr/bin/python3", machine.inside(Path(__file__).with_name("workers.py")), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def hear(self, timeout: float = 60) -> dict:
        assert readable(self.process.stdout.fileno(), timeout), f"it says nothing for {timeout} s"
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"a worker failed:\n{self.process.stderr.read()}")
        return json.loads(line)

    def stop(self) -> dict:
        """Tell it to come to an end, and hear what it has to say."""
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        return self.hear()


@pytest.fixture
def host(machine):
    machine.install()
    machine.write("/etc/scached/scached.conf",
                  "connection_cache_ttl_limit = 1h\nmax_idle = 0\n")
    machine.run(["systemd-sysusers", "/usr/lib/sysusers.d/scached.conf"])
    machine.systemctl("enable", "--now", *SOCKETS)
    machine.systemctl("start", SERVICE)
    yield machine
    machine.systemctl("disable", "--now", *SOCKETS, SERVICE)
    machine.run(["rm", "/etc/scached/scached.conf"])


def descriptors(machine) -> int:
    """How many its systemd has open."""
    return len(os.listdir(f"/proc/{machine.pid}/fd"))


def restarts(host, count: int) -> list[float]:
    """Returns how long each took, in seconds."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        host.systemctl("restart", SERVICE)
        took.append(time.monotonic() - began)
    return took


def test_five_thousand_connections_over_ten_restarts(host):
    before = descriptors(host)
    quiet = restarts(host, 5)
    holders = [Worker(host, "hold", NATIVE, GROUP, uid, "2500") for uid in (ALICE, BOB)]
    for holder in holders:
        assert holder.hear() == {"parked": 2500}
    took = restarts(host, 10)
    host.wait(lambda: descriptors(host) <= before, 5, "systemd lets go of its copies")
    assert host.show(SERVICE, "NFileDescriptorStore")["NFileDescriptorStore"] == "0"
    kept = [entry["MESSAGE"] for entry in host.journal(unit=SERVICE) if "Restored" in entry["MESSAGE"]]
    print(f"restarts took {min(took):.2f} to {max(took):.2f} s, with nothing parked {min(quiet):.2f} to {max(quiet):.2f} s; {kept[-1]}")
    assert len(kept) == 10 and all(", lost 0." in line for line in kept), kept
    assert median(took) < 8 * median(quiet)
    for holder in holders:
        said = holder.stop()
        print(said)
        assert said["lost"] == [] and said["late"] == []
        assert said["slowest"] < 5.0 * PATIENCE
        assert -0.1 < said["shortest_life"] - said["saved_for"]
        assert said["longest_life"] - said["saved_for"] < 0.5 * PATIENCE


@pytest.mark.parametrize("number", ["KILL", "SEGV"])
def test_crash_under_load(host, number):
    workers = [Worker(host, "cycle", NATIVE, "0") for _ in range(4)]
    for worker in workers:
        worker.hear()
    for _ in range(3):
        time.sleep(0.5)   # work, for there to be a load
        pid = host.show(SERVICE, "MainPID")["MainPID"]
        host.systemctl("kill", f"--signal={number}", SERVICE)
        host.wait(lambda: host.show(SERVICE, "MainPID")["MainPID"] not in ("0", pid), 10, "the next agent starts it again")
        host.wait(lambda: host.show(SERVICE, "ActiveState")["ActiveState"] == "active", 10)
    for worker in workers:
        said = worker.stop()
        print(said)
        assert said["wrong"] == []
        assert said["slowest"] < 5.0 * PATIENCE
        assert said["longest_gap"] < 5.0 * PATIENCE, "back at once"
        assert said["cycles"] > 100 and said["retries"] >= 1


def test_reload(host):
    host.write("/etc/scached/scached.conf", "max_idle = soon\n")
    pid = host.show(SERVICE, "MainPID")["MainPID"]
    host.systemctl("reload", SERVICE)
    host.journal_wait(r"scached\.conf:1: ", unit=SERVICE)
    host.journal_wait("keeping the old ones", unit=SERVICE)
    host.wait(lambda: host.show(SERVICE, "ActiveState")["ActiveState"] == "active", 10)
    host.write("/etc/scached/scached.conf", "max_idle = 0\n")
    host.systemctl("reload", SERVICE)
    host.journal_wait("Read the settings again", unit=SERVICE)
    host.wait(lambda: host.show(SERVICE, "ActiveState")["ActiveState"] == "active", 10)
    assert host.show(SERVICE, "MainPID")["MainPID"] == pid


def test_mail_flows_through_restarts(host):
    """Every two seconds, for a minute."""
    postfix = Postfix(host, connection_cache_service_name="scached")
    postfix.start()
    postfix.enable_socket()
    recipients = []
    with Sink(host):
        end = time.monotonic() + MAIL_SECONDS
        turn = time.monotonic()
        while turn < end:
            recipients += postfix.send(8)
            turn += 2
            time.sleep(max(0.0, turn - time.monotonic()))   # the clock is what is tested here
            host.systemctl("restart", SERVICE)
        deliveries = postfix.wait_delivered(recipients, timeout=30)
    host.systemctl("disable", "--now", "scached-postfix.socket")

    assert len(deliveries) == len(recipients)
    reused = sum(delivery.conn_use >= 2 for delivery in deliveries)
    restarts = sum("Exiting: told" in entry["MESSAGE"] for entry in host.journal(unit=SERVICE))
    print(f"{len(deliveries)} mails, {reused} over a cached connection, {restarts} restarts, "
          f"{len(postfix.warnings())} warnings: {postfix.warnings()[:3]}")
    assert restarts >= MAIL_SECONDS // 2 - 2
    assert not [line for line in postfix.warnings() if "disabling connection caching" in line]
    assert reused >= len(deliveries) // 2
    postfix.stop()


@contextlib.contextmanager
def parked_at_smtpd(host, count: int, ttl: int) -> Iterator[Callable[[str], list[str]]]:
    """Connections to a real smtpd(8) are parked. Yields a function for what that says: lines by a pattern."""
    postfix = Postfix(host, relayhost="", default_process_limit=str(count + 50),
                      smtpd_client_connection_count_limit="0", smtpd_peername_lookup="no",
                      smtpd_timeout="300s", max_idle="1s")
    postfix.start()
    worker = Worker(host, "smtp", NATIVE, "127.0.0.1:25", str(count), str(ttl))
    assert worker.hear(120) == {"parked": count}

    def lines(pattern: str) -> list[str]:
        return [entry["MESSAGE"] for entry in host.journal(SYSLOG_IDENTIFIER="postfix/smtpd")
                if re.search(pattern, entry["MESSAGE"])]

    yield lines
    assert worker.stop() == {"done": True}
    postfix.stop()


# What smtpd(8) says of a session that came to a proper end.
QUIT = r"^disconnect from .* ehlo=1 quit=1 commands=2$"


def test_a_postfix_server_sees_quit_each_time(host):
    """Connections to smtpd(8) reach their end: it has nothing to complain about."""
    with parked_at_smtpd(host, 300, 10) as lines:
        host.wait(lambda: len(lines(QUIT)) == 300, 60, "300 sessions that quit")
        assert lines("lost connection") == [] and lines("timeout") == []


def test_a_stop_says_goodbye(host):
    """Nobody comes for what is parked, so nothing is stored, and every peer is told. A restart tells none."""
    before = descriptors(host)
    with parked_at_smtpd(host, 100, 3600) as lines:
        host.systemctl("restart", SERVICE)
        host.journal_wait("Restored 100 ", unit=SERVICE)
        assert lines("^disconnect") == []
        host.systemctl("stop", SERVICE)
        host.journal_wait("Exiting: told to stop and to keep nothing", unit=SERVICE)
        host.journal_wait("Drained 100 connections", unit=SERVICE)
        host.wait(lambda: len(lines(QUIT)) == 100, 60, "100 sessions that quit")
        assert lines("lost connection") == []
    assert host.show(SERVICE, "NFileDescriptorStore", "ActiveState", "Result") == {
        "NFileDescriptorStore": "0", "ActiveState": "inactive", "Result": "success"}
    host.wait(lambda: descriptors(host) <= before, 5, "systemd lets go of its copies")
