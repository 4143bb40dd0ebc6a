# SPDX-License-Identifier: LGPL-2.1-or-later
"""No mail goes over a connection of a former configuration of Postfix. Counted by who receives it.

A process that was there before a change delivers what it is at, under the configuration that it has: its mails, told by the log,
do not count.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

import pytest

from mail import Postfix
from rig import REPO

# How many mails wait while Postfix reloads; 0: as many as the change says.
BACKLOG = int(os.environ.get("SCACHED_BACKLOG", "0"))
PORT = 2526
FOLDER = "/run/receiver"
RELAY = f"[127.0.0.1]:{PORT}"

SETTINGS = {
    "connection_cache_service_name": "scached",
    "relayhost": RELAY,
    "smtp_connection_cache_time_limit": "60s",
    "smtp_tls_connection_reuse": "yes",
    "smtp_sasl_security_options": "noanonymous",
    "smtp_sasl_tls_security_options": "noanonymous",
    "initial_destination_concurrency": "5",
    "default_destination_concurrency_limit": "5",
}


class Receiver:
    def __init__(self, machine):
        self.machine = machine
        machine.write(f"{FOLDER}/mails", "")
        machine.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=receiver.example",
                     "-keyout", f"{FOLDER}/key.pem", "-out", f"{FOLDER}/cert.pem"])
        machine.run(f"cat {FOLDER}/key.pem {FOLDER}/cert.pem >{FOLDER}/certificate.pem")
        self.process = machine.popen(["/usr/bin/python3", machine.inside(REPO / "tests/system/mail_recorder.py"), str(PORT),
                                      FOLDER], stdout=-1)
        assert self.process.stdout.readline() == "ready\n"

    def pause(self, on: bool) -> None:
        self.machine.run(["touch" if on else "rm", f"{FOLDER}/pause"])

    def mails(self) -> list[dict]:
        return [json.loads(line) for line in self.machine.read(f"{FOLDER}/mails").splitlines()]

    def forget(self) -> None:
        self.machine.write(f"{FOLDER}/mails", "")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def installed(module_machine) -> Iterator[tuple]:
    machine = module_machine
    machine.install()
    machine.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 60s\n")
    receiver = Receiver(machine)
    Postfix(machine).enable_socket()
    yield machine, receiver
    receiver.close()


@pytest.fixture
def host(installed) -> Iterator[tuple]:
    """With nothing parked, no mail received, and a journal that begins now."""
    machine, receiver = installed
    machine.systemctl("stop", "postfix.service", "scached.service")
    receiver.forget()
    machine.mark = machine.journal_end()
    yield machine, receiver
    machine.run("rm -f /etc/postfix/table*")


@dataclass(frozen=True)
class Change:
    """Two configurations: how to come to each, and how a mail comes under it. None: not at all."""
    name: str
    settings: dict[str, str]
    configure: tuple[Callable[[Postfix], object], Callable[[Postfix], object]]
    seen: tuple[dict, Optional[dict]]
    backlog: int = 40


def setting(name: str, first: str, second: str) -> tuple:
    return lambda postfix: postfix.set(**{name: first}), lambda postfix: postfix.set(**{name: second})


def table(first: str, second: str) -> tuple:
    """A table of the type that Postfix has by default, with an index."""
    def write(text: str):
        def change(postfix: Postfix) -> None:
            kind = postfix.machine.run(["postconf", "-h", "default_database_type"]).stdout.strip()
            postfix.machine.write("/etc/postfix/table", text)
            postfix.machine.run(["postmap", f"{kind}:/etc/postfix/table"])
        return change
    return write(f"{RELAY} {first}\n"), write(f"{RELAY} {second}\n")


CHANGES = [
    Change("none to encrypt", {}, setting("smtp_tls_security_level", "none", "encrypt"), ({"tls": False}, {"tls": True}), 150),
    Change("encrypt to verify", {}, setting("smtp_tls_security_level", "encrypt", "verify"), ({"tls": True}, None)),
    Change("password table", {"smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": "${default_database_type}:/etc/postfix/table"},
           table("one:secret", "two:secret"), ({"user": "one"}, {"user": "two"})),
    Change("policy table", {"smtp_tls_policy_maps": "${default_database_type}:/etc/postfix/table"},
           table("none", "encrypt"), ({"tls": False}, {"tls": True})),
    Change("bind address", {}, setting("smtp_bind_address", "127.0.0.1", "127.0.0.2"),
           ({"from": "127.0.0.1"}, {"from": "127.0.0.2"})),
    Change("name", {}, setting("smtp_helo_name", "one.example", "two.example"),
           ({"name": "one.example"}, {"name": "two.example"})),
]


def processes(machine) -> set[str]:
    return set(machine.run(["pgrep", "-x", "smtp"], check=False).stdout.split())


def delivered_by(postfix: Postfix) -> dict[str, str]:
    """The process that delivered the mail of each recipient."""
    return {delivery.recipient: entry["SYSLOG_PID"] for entry in postfix.log()
            if (delivery := postfix._delivery(entry)) and delivery.status == "sent"}


def start(postfix: Postfix) -> None:
    postfix.start()
    # TLS connections are those of tlsproxy(8), which distributions have in master.cf as a comment.
    postfix.machine.run(["postconf", "-c", postfix.config_directory, "-M",
                         "tlsproxy/unix=tlsproxy unix - - n - 0 tlsproxy"])
    postfix.reload()


def is_as(mail: dict, seen: dict) -> bool:
    return all(mail[name] == value for name, value in seen.items())


def wait_deferred(postfix: Postfix, recipients: list[str]) -> None:
    """Wait until all mails that have not got through have been tried and refused at least once."""
    def tried() -> bool:
        told = {delivery.recipient for entry in postfix.log() if (delivery := postfix._delivery(entry))}
        return told >= set(recipients)
    postfix.machine.wait(tried, 90, "all mails have been tried")


def settle(postfix: Postfix, recipients: list[str], seen: Optional[dict]) -> None:
    postfix.wait_delivered(recipients, 120) if seen else wait_deferred(postfix, recipients)


def wrong(postfix: Postfix, receiver: Receiver, recipients: list[str], seen: Optional[dict], old: set[str]) -> list[dict]:
    """The mails that processes of the new configuration delivered as it does not say."""
    by = delivered_by(postfix)
    return [mail for mail in receiver.mails() if mail["to"] in recipients and by.get(mail["to"]) not in old
            and not (seen and is_as(mail, seen))]


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_no_mail_over_a_former_connection(host, change: Change):
    machine, receiver = host
    postfix = Postfix(machine, **SETTINGS, **change.settings)
    start(postfix)
    change.configure[0](postfix)
    postfix.reload()
    first = postfix.send(5)
    postfix.wait_delivered(first)
    assert all(is_as(mail, change.seen[0]) for mail in receiver.mails())

    # A reload, with mails that wait for their turn.
    receiver.pause(True)
    backlog = postfix.send(BACKLOG or change.backlog)
    change.configure[1](postfix)
    old = processes(machine)
    postfix.reload()
    receiver.pause(False)
    settle(postfix, backlog, change.seen[1])
    assert wrong(postfix, receiver, backlog, change.seen[1], old) == []
    after = postfix.send(5)
    settle(postfix, after, change.seen[1])
    assert wrong(postfix, receiver, after, change.seen[1], old) == []

    # A stop and a start, and back.
    machine.systemctl("stop", "postfix.service")
    change.configure[0](postfix)
    machine.systemctl("start", "postfix.service")
    again = postfix.send(10)
    postfix.wait_delivered(again)
    assert wrong(postfix, receiver, again, change.seen[0], set()) == []
    known = {mail["connection"] for mail in receiver.mails()}

    # A reload without a change.
    postfix.reload()
    for _ in range(3):
        postfix.wait_delivered(postfix.send(1))
    assert {mail["connection"] for mail in receiver.mails()[-3:]} <= known
    machine.systemctl("stop", "postfix.service")


def test_an_instance_that_nobody_changed_keeps_all(host):
    """Of two whose sockets belong to one daemon."""
    machine, receiver = host
    first = Postfix(machine, **SETTINGS)
    start(first)
    second = Postfix(machine, "postfix-two", **SETTINGS)
    start(second)
    machine.systemctl("stop", "scached-postfix.socket", "scached.service")
    machine.write("/run/systemd/system/scached-both.socket",
                  "[Socket]\nListenStream=/var/spool/postfix/private/scached\n"
                  "ListenStream=/var/spool/postfix-two/private/scached\n"
                  f"FileDescriptorName={first.dialect}\nService=scached.service\nSocketUser=postfix\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("start", "scached-both.socket")
    for postfix in (first, second):
        postfix.wait_delivered(postfix.send(1))
    one, two = (mail["connection"] for mail in receiver.mails())
    assert one != two

    second.set(smtp_tls_security_level="encrypt")
    for postfix in (first, second):
        postfix.reload()
        postfix.wait_delivered(postfix.send(1))
    kept, changed = receiver.mails()[-2:]
    assert (kept["connection"], kept["tls"]) == (one, False)
    assert changed["tls"] and changed["connection"] not in (one, two)
    machine.systemctl("stop", "postfix.service", "scached-both.socket")
    machine.run("rm /run/systemd/system/scached-both.socket")
