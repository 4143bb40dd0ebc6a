# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where mail arrives, with TLS and an account of it: who came over which connection, in the clear or under which certificate.

    make_certificates(machine)
    postfix = Postfix(machine, connection_cache_service_name="scached", services=(TLSPROXY,), **TLS)
    postfix.start()
    with Receiver(machine) as receiver:
        postfix.wait_delivered(postfix.send(3))
        assert receiver.mails(TRUSTED) and not receiver.mails("clear")

mail_server.py is what runs in the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mail import MailFailed
from rig import Machine, readable

PROGRAM = Path(__file__).with_name("mail_server.py")
CERTIFICATES = "/etc/receiver"
TRUSTED, UNTRUSTED = "trusted", "untrusted"
NAME = "receiver.test"  # in both certificates

# Distributions have it as a comment in master.cf. It comes up with the settings of smtp(8); those of lmtp(8) make it read the
# certificate once more, for which it must not be in a chroot.
TLSPROXY = "tlsproxy unix - - n - 0 tlsproxy"

# Postfix, by SMTP and LMTP: caches sessions with TLS and without, and trusts one of the receiver's certificates.
TLS = {
    f"{agent}_{name}": value
    for agent in ("smtp", "lmtp")
    for name, value in {
        "dns_support_level": "disabled",
        "host_lookup": "native",
        "tls_connection_reuse": "yes",
        "tls_security_level": "encrypt",
        "tls_CAfile": f"{CERTIFICATES}/{TRUSTED}.pem",
        "tls_loglevel": "1",
        "connection_cache_destinations": "static:all",
        "connection_cache_time_limit": "1h",
        "connection_reuse_time_limit": "1h",
    }.items()
}


def make_certificates(machine: Machine) -> None:
    """Both sign themselves; Postfix is told to trust one of them."""
    machine.run(["mkdir", "-p", CERTIFICATES])
    for name in (TRUSTED, UNTRUSTED):
        machine.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-days", "2",
                     "-keyout", f"{CERTIFICATES}/{name}.key", "-out", f"{CERTIFICATES}/{name}.pem"])


@dataclass(frozen=True)
class Connection:
    """What the receiver knows of one connection, in the order in which they came."""
    number: int
    peer: str                  # the address from which it came
    protocol: str | None       # "smtp" or "lmtp"
    tls: str | None            # the version of TLS; None: in the clear
    certificate: str | None    # that it has shown: TRUSTED, UNTRUSTED, None in the clear
    user: str | None           # who has logged in
    mails: list[str]           # recipients, in their order
    quit: bool                 # whether QUIT was said
    end: str | None            # "closed"; "cut": the peer ended TCP and not TLS; "failed: " and why; None: it lasts

    @property
    def channel(self) -> str:
        """How its mails have come: the certificate, or "clear"."""
        return self.certificate or "clear"


class Receiver:
    """A mail server in the machine. A context manager, which ends all its connections."""

    def __init__(self, machine: Machine, port: int = 2525, version: str | None = None, network: str | None = None):
        """With a version, as ssl.TLSVersion names it, it speaks no other one. NETWORK is a name of ip-netns(8)."""
        self.machine = machine
        self.arguments = [str(port), CERTIFICATES, *([version] if version else [])]
        self.enter = [] if network is None else ["nsenter", f"--net=/run/netns/{network}"]
        self._known: dict[int, Connection] = {}
        self._done: list[str] = []
        self._heard = b""

    def __enter__(self) -> "Receiver":
        self._process = self.machine.popen(
            [*self.enter, "/usr/bin/python3", self.machine.inside(PROGRAM), *self.arguments], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False, bufsize=0)
        self._wait_done("listen")
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()

    # The account

    @property
    def connections(self) -> list[Connection]:
        """All there have been, as they are now."""
        while self._hear(0):
            pass
        return [self._known[number] for number in sorted(self._known)]

    @property
    def open(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.end is None]

    def mails(self, channel: str | None = None, domain: str | None = None) -> list[str]:
        """Recipients whose mail has come: over this channel, in this domain, or all."""
        return [recipient for connection in self.connections if channel in (None, connection.channel)
                for recipient in connection.mails if domain in (None, recipient.rpartition("@")[2])]

    def wait(self, predicate: Callable[[], object], what: str, timeout: float = 60) -> None:
        """Until it holds. It is asked after each piece of news, and once a second: it may hear news itself."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if not self._hear(1) and time.monotonic() >= deadline:
                account = "\n".join(map(str, self._known.values()))
                raise MailFailed(f"not within {timeout} s: {what}; the receiver's account:\n{account}")

    # Orders

    def order(self, name: str, *arguments: str) -> None:
        """Have it do something on each connection that is open: renew_keys, send_ticket, speak, hang_up."""
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self._wait_done(name)

    def use(self, certificate: str) -> None:
        """Show this certificate to whoever comes from now on."""
        self.order("use", certificate)

    def _wait_done(self, name: str) -> None:
        self.wait(lambda: name in self._done, f"the receiver does this: {name}")
        self._done.remove(name)

    def _hear(self, seconds: float) -> bool:
        """Note what it has said, or says within this time. False if that is nothing."""
        if not readable(self._process.stdout.fileno(), seconds):
            return False
        heard = os.read(self._process.stdout.fileno(), 1 << 20)
        if not heard:
            raise MailFailed(f"the receiver has ended:\n{self._process.stderr.read().decode(errors='replace')}")
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for news in map(json.loads, lines):
            if "done" in news:
                self._done.append(news["done"])
            else:
                self._known[news["number"]] = Connection(**news)
        return True
