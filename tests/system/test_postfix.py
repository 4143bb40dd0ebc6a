# SPDX-License-Identifier: LGPL-2.1-or-later
"""Unmodified Postfix, with scached as its connection cache, started on demand by systemd."""

import re

import pytest

from mail import Postfix, Sink

SERVICE = "scached.service"
STATISTICS = re.compile(r"statistics: domain lookup hits=(\d+) miss=(\d+) success=(\d+)%")


@pytest.fixture
def host(machine):
    """A mail host as its administrator leaves it: installed, one socket enabled, one word in main.cf."""
    machine.install()
    machine.write("/etc/scached/scached.conf", "max_idle = 1s\n")
    postfix = Postfix(machine, connection_cache_service_name="scached")
    postfix.start()
    postfix.enable_socket()
    yield machine, postfix
    machine.systemctl("disable", "--now", "scached-postfix.socket", SERVICE)


def state(machine) -> str:
    return machine.show(SERVICE, "ActiveState")["ActiveState"]


def test_reuse_on_demand_with_an_idle_exit_between(host):
    machine, postfix = host
    assert state(machine) == "inactive", "nobody has sent a mail yet"

    deliveries = []
    with Sink(machine):
        for burst in range(2):
            deliveries += postfix.wait_delivered(postfix.send(20))
            assert state(machine) == "active"
            # Postfix's processes keep their connection to the cache; the daemon can leave when they have left.
            postfix.reload()
            machine.wait(lambda: state(machine) == "inactive", 30, "the daemon leaves when idle")

    assert len(deliveries) == 40 and all(delivery.status == "sent" for delivery in deliveries)
    reused = sum(delivery.conn_use >= 2 for delivery in deliveries)
    assert reused >= 30, f"{reused} of 40 went over a connection that was there"
    assert postfix.warnings() == []

    lines = [entry["MESSAGE"] for entry in machine.journal(unit=SERVICE)]
    assert sum("Exiting: idle" in line for line in lines) == 2, lines
    hits = [int(found[1]) for line in lines if (found := STATISTICS.search(line))]
    assert len(hits) == 2 and all(n > 0 for n in hits), lines


def test_what_an_administrator_sees(host):
    machine, postfix = host
    with Sink(machine):
        postfix.wait_delivered(postfix.send(5))
        seen = machine.wait(lambda: re.search(r'Status: "(.*)"', machine.run(
            ["systemctl", "status", SERVICE]).stdout), 10, "a status line")
        assert re.match(r"\d+ agents?, \d+ connections? \(\d+ endpoints?, \d+ destinations?\)", seen[1]), seen[1]
        assert len(seen[0]) + 5 <= 80, "fits a terminal"

    entry = next(entry for entry in machine.journal(unit=SERVICE) if "Serving" in entry["MESSAGE"])
    assert entry["MESSAGE_ID"] and entry["CODE_FILE"].endswith("service.c")
    assert entry["SYSLOG_FACILITY"] == "2", "mail"
    assert entry["SYSLOG_IDENTIFIER"] == "scached"


def test_named_as_postfix_names_its_own(host):
    machine, postfix = host
    machine.write("/etc/scached/main.cf", "syslog_name = postfix\n")
    try:
        with Sink(machine):
            postfix.wait_delivered(postfix.send(1))
        machine.systemctl("stop", SERVICE)
        names = {entry["SYSLOG_IDENTIFIER"] for entry in machine.journal(unit=SERVICE)
                 if "lookup hits=" in entry["MESSAGE"]}
        assert names == {"postfix/scache"}
    finally:
        machine.run(["rm", "/etc/scached/main.cf"])


def test_mail_flows_without_the_cache(host):
    """Bad settings keep the daemon from starting: agents get no answer, and the mail must flow all the same."""
    machine, postfix = host
    machine.write("/etc/scached/scached.conf", "max_idle = soon\n")
    with Sink(machine):
        deliveries = postfix.wait_delivered(postfix.send(3), timeout=60)
        assert all(delivery.status == "sent" for delivery in deliveries)
        bad = machine.journal_wait(r"scached.conf:1: max_idle = soon: ", unit=SERVICE)
        assert bad["PRIORITY"] == "3"

        # When the settings are mended nobody has to do anything: the socket, which closes for a minute when the service does not
        # start, opens again (tests/system/test_heals.py). Whoever does not want to wait for that restarts the service.
        machine.write("/etc/scached/scached.conf", "max_idle = 1s\n")
        machine.systemctl("restart", SERVICE, "scached-postfix.socket")
        postfix.reload()
        postfix.wait_delivered(postfix.send(3))
        machine.journal_wait("Serving agents", unit=SERVICE)
    assert machine.show("scached-postfix.socket", "ActiveState")["ActiveState"] == "active"
