# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS from end to end: Postfix keeps the session in tlsproxy(8) and parks its own end, and a real server has TLS at the other.

All destinations are one server at one address: what keeps their connections apart is what Postfix asks of them.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest

from mail import Delivery, Postfix
from receiver import NAME, TLS, TLSPROXY, TRUSTED, UNTRUSTED, Connection, Receiver, make_certificates
from rig import Machine

SERVICE = "scached.service"
SETTINGS = "/etc/scached/scached.conf"
PORT = 2525


class Destination(NamedTuple):
    """Mail to NAME.example goes to NAME.test."""
    agent: str
    policy: str
    user: str | None
    channel: str  # as the receiver should see it


DESTINATIONS = {
    "none": Destination("smtp", "none", None, "clear"),
    "may": Destination("smtp", "may", None, TRUSTED),
    "encrypt": Destination("smtp", "encrypt", None, TRUSTED),
    "verify": Destination("smtp", f"verify match={NAME}", None, TRUSTED),
    "alice": Destination("smtp", "encrypt", "alice", TRUSTED),
    "bob": Destination("smtp", "encrypt", "bob", TRUSTED),
    "local-none": Destination("lmtp", "none", None, "clear"),
    "local-alice": Destination("lmtp", "encrypt", "alice", TRUSTED),
}


class Host:
    """A mail host with the service as its cache, as one test sees it."""

    def __init__(self, postfix: Postfix):
        self.postfix, self.machine = postfix, postfix.machine
        self.machine.mark = self.machine.journal_end()
        self.machine.write(SETTINGS, "connection_cache_ttl_limit = 1h\nmax_idle = 0\n")
        self.machine.systemctl("restart", SERVICE)
        self.wait_parked(0)
        self.before = self.status()

    def status(self) -> dict:
        return json.loads(self.machine.run(["scachectl", "status", "--json"]).stdout)

    def since(self, name: str) -> int:
        """By how much a number of the status has grown in this test."""
        return self.status()[name] - self.before[name]

    def wait_parked(self, count: int) -> None:
        self.machine.wait(lambda: self.status()["connections"] == count, 60, f"{count} connections are parked")

    def deliver(self, name: str, count: int = 1) -> list[Delivery]:
        deliveries = self.postfix.wait_delivered(self.postfix.send(count, f"{name}.example"))
        assert [delivery.status for delivery in deliveries] == ["sent"] * count
        return deliveries

    def park(self, *names: str) -> None:
        """Deliver one mail to each, of which each leaves a connection, and no connection is there before."""
        for count, name in enumerate(names, 1):
            self.deliver(name)
            self.wait_parked(count)

    def complaints(self) -> list[str]:
        """Of the delivery agents; tlsproxy(8) has a word to say about its other role, that of a server."""
        return [line for line in self.postfix.warnings() if line.startswith(("postfix/smtp:", "postfix/lmtp:"))]

    def check_account(self, receiver: Receiver) -> None:
        """The status says of deliveries what the receiver says of connections, and of the mails that each has had."""
        connections = receiver.connections
        seen = sum(len(connection.mails[1:]) for connection in connections), len(connections)
        self.machine.wait(lambda: (self.since("deliveries_reused"), self.since("deliveries_missed")) == seen, 10,
                          f"{seen[0]} reused, {seen[1]} missed")


@pytest.fixture(scope="module")
def postfix(module_machine: Machine) -> Postfix:
    machine = module_machine
    machine.install()
    make_certificates(machine)
    names = DESTINATIONS.items()
    tables = {
        "transport": {f"{name}.example": f"{to.agent}:[{name}.test]:{PORT}" for name, to in names},
        "policies": {f"[{name}.test]:{PORT}": to.policy for name, to in names},
        "passwords": {f"[{name}.test]:{PORT}": f"{to.user}:secret" for name, to in names if to.user},
    }
    for table, entries in tables.items():
        machine.write(f"/etc/postfix/{table}", "".join(f"{key} {value}\n" for key, value in entries.items()))
    machine.write("/etc/hosts", " ".join(["127.0.0.1 localhost", *(f"{name}.test" for name in DESTINATIONS)]) + "\n")
    both = {
        "tls_policy_maps": "texthash:/etc/postfix/policies",
        "sasl_auth_enable": "yes",
        "sasl_password_maps": "texthash:/etc/postfix/passwords",
        "sasl_security_options": "noanonymous",
    }
    settings = TLS | {f"{agent}_{name}": value for agent in ("smtp", "lmtp") for name, value in both.items()}
    postfix = Postfix(machine, services=(TLSPROXY,), connection_cache_service_name="scached",
                      transport_maps="texthash:/etc/postfix/transport", **settings)
    postfix.start()
    machine.systemctl("enable", "--now", "scached-control.socket")
    postfix.enable_socket()
    return postfix


@pytest.fixture
def host(postfix: Postfix) -> Host:
    return Host(postfix)


def summary(connection: Connection) -> tuple:
    return connection.protocol, connection.tls, connection.channel, connection.user, len(connection.mails), connection.end


@pytest.mark.parametrize("name", ["alice", "local-alice"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_one_session_for_all_mails(host, name, version):
    with Receiver(host.machine, version=version) as receiver:
        for _ in range(3):
            assert host.deliver(name)[0].status == "sent"
            host.wait_parked(1)
        agent = DESTINATIONS[name].agent
        assert [summary(c) for c in receiver.connections] == [
            (agent, version.replace("_", "."), TRUSTED, "alice", 3, None)]
        host.check_account(receiver)
    assert host.complaints() == []


def test_many_mails_at_once(host):
    """The status agrees with the receiver, whatever the order of finding, parking and opening is."""
    with Receiver(host.machine) as receiver:
        recipients = [recipient for name in ("encrypt", "none", "local-alice")
                      for recipient in host.postfix.send(10, f"{name}.example")]
        host.postfix.wait_delivered(recipients)
        assert sorted(receiver.mails()) == sorted(recipients)
        host.wait_parked(len(receiver.open))
        host.check_account(receiver)
        assert host.since("deliveries_reused") > 0


def test_destinations_do_not_mix(host):
    """Each policy, user and agent has a connection of its own, though all of them wait at the same address."""
    with Receiver(host.machine) as receiver:
        host.park(*DESTINATIONS)
        for name in reversed(DESTINATIONS):
            host.deliver(name)
            host.wait_parked(len(DESTINATIONS))
        for connection, (name, to) in zip(receiver.connections, DESTINATIONS.items()):
            version = None if to.channel == "clear" else "TLSv1.3"
            assert summary(connection) == (to.agent, version, to.channel, to.user, 2, None)
            assert {mail.rpartition("@")[2] for mail in connection.mails} == {f"{name}.example"}
        host.check_account(receiver)
    assert host.complaints() == []


def test_verify_takes_no_session_that_nobody_verified(host):
    with Receiver(host.machine) as receiver:
        receiver.use(UNTRUSTED)
        host.park("none", "may", "encrypt")
        recipients = host.postfix.send(1, "verify.example")
        host.machine.journal_wait(rf"to=<{recipients[0]}>.* status=deferred ", timeout=60)
        assert receiver.mails(domain="verify.example") == []
        receiver.use(TRUSTED)
        host.postfix.wait_delivered(recipients)
        assert receiver.mails(TRUSTED) == recipients
        host.wait_parked(4)
        host.postfix.reload()   # a delivery that has failed is over when its agent leaves
        host.check_account(receiver)


def unread(machine: Machine) -> int:
    """Bytes that wait in sockets of connections to the receiver, at either end."""
    rows = [line.split() for line in Path(f"/proc/{machine.pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[4].partition(":")[2], 16) for row in rows
               if f":{PORT:04X}" in (row[1][-5:], row[2][-5:]) and row[3] == "01")


@pytest.mark.parametrize("order", ["renew_keys", pytest.param("send_ticket", marks=pytest.mark.skipif(
    ssl.OPENSSL_VERSION_INFO < (3,), reason="OpenSSL before 3.0 sends tickets with the handshake only"))])
def test_what_tls_says_for_itself_is_no_speech(host, order):
    with Receiver(host.machine, version="TLSv1_3") as receiver:
        host.park("encrypt", "local-alice")
        receiver.order(order)
        host.machine.wait(lambda: unread(host.machine) == 0, 10, "tlsproxy has read it")
        host.deliver("encrypt")
        host.deliver("local-alice")
        host.wait_parked(2)
        assert [(len(c.mails), c.end) for c in receiver.connections] == [(2, None)] * 2
        host.check_account(receiver)
        assert host.since("connections_dead") == 0


@pytest.mark.parametrize("order", ["speak", "hang_up"])
def test_a_session_that_ends_leaves_the_cache(host, order):
    with Receiver(host.machine) as receiver:
        host.park("encrypt", "local-alice", "none")
        receiver.order(order)
        host.wait_parked(0)
        assert host.since("connections_dead") == 3
        receiver.wait(lambda: not receiver.open, "no connection is left open")
        host.park("encrypt", "local-alice", "none")
        assert [len(c.mails) for c in receiver.connections] == [1] * 6
        host.check_account(receiver)
    assert host.complaints() == []


def test_tlsproxy_ends(host):
    """Its sessions leave with it, those without TLS stay, and the next mail opens a new one."""
    with Receiver(host.machine) as receiver:
        host.park("none", "encrypt", "local-alice")
        host.machine.run(["pkill", "-KILL", "-x", "tlsproxy"])
        host.wait_parked(1)
        host.deliver("encrypt")
        host.deliver("none")
        host.wait_parked(2)
        assert [(c.channel, len(c.mails), c.end) for c in receiver.connections] == [
            ("clear", 2, None), (TRUSTED, 1, "cut"), (TRUSTED, 1, "cut"), (TRUSTED, 1, None)]
        host.check_account(receiver)
    assert host.complaints() == []


def test_restart_keeps_sessions(host):
    with Receiver(host.machine) as receiver:
        host.park("none", "alice", "local-alice")
        host.machine.systemctl("restart", SERVICE)
        host.machine.journal_wait("Restored 3 ", unit=SERVICE)
        for name in ("none", "alice", "local-alice"):
            host.deliver(name)
            host.wait_parked(3)
        assert [(len(c.mails), c.end) for c in receiver.connections] == [(2, None)] * 3
        host.check_account(receiver)


@pytest.mark.parametrize("how", ["expiry", "flush", "stop"])
def test_farewell_inside_tls(host, how):
    """The server hears QUIT, in TLS where it has agreed on TLS, and ends the session itself."""
    with Receiver(host.machine) as receiver:
        if how == "expiry":
            host.machine.write(SETTINGS, "connection_cache_ttl_limit = 1s\nmax_idle = 0\n")
            host.machine.systemctl("reload", SERVICE)
            for name in ("none", "encrypt", "local-alice"):
                host.deliver(name)
            host.machine.wait(lambda: host.since("connections_expired") == 3, 60, "3 connections expire")
        else:
            host.park("none", "encrypt", "local-alice")
            host.machine.run({"flush": ["scachectl", "flush"], "stop": ["systemctl", "stop", SERVICE]}[how])
        receiver.wait(lambda: len(receiver.connections) == 3 and not receiver.open, "3 connections end")
        assert [(c.channel, c.quit, c.end) for c in receiver.connections] == [
            (channel, True, "closed") for channel in ("clear", TRUSTED, TRUSTED)]
