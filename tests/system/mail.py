# SPDX-License-Identifier: LGPL-2.1-or-later
"""Mail in a machine: this host's Postfix, unmodified, and smtp-sink(1) for it to deliver to.

    postfix = Postfix(machine, connection_cache_service_name="scached")
    postfix.start()
    with Sink(machine):
        deliveries = postfix.wait_delivered(postfix.send(20))
    assert sum(d.conn_use >= 2 for d in deliveries) > 10 and not postfix.warnings()
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from rig import Entry, Machine, format_entries

MAIL_FACILITY = "2"
SOCKET = "scached-postfix.socket"
GENERATOR = "systemd/system-generators/postfix-instance-generator"

# A host that relays everything, asks no name server, tries again soon, and caches every connection.
SETTINGS = {
    "myhostname": "machine.example",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "inet_interfaces": "loopback-only",
    "inet_protocols": "ipv4",
    "relayhost": "[127.0.0.1]:2525",
    "smtp_dns_support_level": "disabled",
    "smtp_host_lookup": "native",
    "smtp_tls_security_level": "none",
    "smtp_connection_cache_destinations": "static:all",
    "smtp_connect_timeout": "5s",
    "queue_run_delay": "2s",
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
}

DELIVERY = re.compile(r"^\w+: to=<(?P<recipient>[^>]*)>,.*? relay=(?P<relay>[^,]+),"
                      r"(?: conn_use=(?P<conn_use>\d+),)?.* status=(?P<status>\w+) (?P<answer>.*)")
COMPLAINT = re.compile(r"^(warning|error|fatal|panic): ")
# File systems have the kernel's coarse clock, and Postfix looks at whole seconds: between two ticks they differ.
OF_THE_CLOCK = re.compile(r"file system clock is 1 seconds ahead|resetting file time stamps")

_batches = itertools.count(1)   # no two mails of one process have the same recipient


def compatibility_level(machine: Machine) -> str:
    """That of the release itself, so that it has no word to say about defaults that have changed."""
    version = machine.run(["postconf", "-d", "-h", "mail_version"]).stdout
    major, minor = map(int, version.split(".")[:2])
    return f"{major}.{minor}" if (major, minor) >= (3, 6) else "2"


class MailFailed(AssertionError):
    """Mail did not arrive; carries what the mail log says."""


@dataclass(frozen=True)
class Delivery:
    """One line of the mail log."""
    recipient: str
    relay: str
    conn_use: int      # the how-manieth mail over its connection this was
    status: str        # sent, deferred, bounced
    answer: str

    @classmethod
    def parse(cls, message: str) -> "Delivery | None":
        found = DELIVERY.match(message)
        if found is None:
            return None
        return cls(**found.groupdict() | {"conn_use": int(found["conn_use"] or 1)})


class Postfix:
    """One instance of Postfix: "-" is the default one, postmulti(1) makes one with another name.

    Settings are those of main.cf, over SETTINGS, and services lines of master.cf. All the rest is
    the distribution's: chroot, units, the other services. The log goes to the journal.
    """

    def __init__(self, machine: Machine, instance: str = "-", services: tuple[str, ...] = (), **settings: str):
        self.machine = machine
        self.instance = instance
        self.services = services
        suffix = "" if instance == "-" else instance.removeprefix("postfix")
        self.name = f"postfix{suffix}"                           # as its log lines call it
        self.config_directory = f"/etc/postfix{suffix}"
        self.queue_directory = f"/var/spool/postfix{suffix}"
        self.settings = {"compatibility_level": compatibility_level(machine)} | SETTINGS | settings

    def configure(self) -> None:
        """Write main.cf and forget whatever the host had configured and queued."""
        if self.instance == "-":
            lines = (f"{name} = {value}\n" for name, value in self.settings.items())
            self.machine.write(f"{self.config_directory}/main.cf", "".join(lines))
            self.machine.run(["cp", "/usr/share/postfix/master.cf.dist",
                              f"{self.config_directory}/master.cf"])
            self.machine.run("for queue in active bounce corrupt defer deferred flush hold incoming"
                             " maildrop trace; do [ ! -d $queue ] || find $queue -type f -delete;"
                             " done", cwd=self.queue_directory)
        else:
            self.machine.run(["postmulti", "-e", "init"])
            self._settle()
            self.machine.run(["postmulti", "-I", self.instance, "-e", "create"])
            # A new instance listens nowhere and lets nobody submit mail, until told otherwise.
            self.set(**{"authorized_submit_users": "static:anyone"} | self.settings)
            self.machine.run(["postmulti", "-i", self.instance, "-e", "enable"])
        for line in self.services:
            name, kind = line.split()[:2]
            self.machine.run(["postconf", "-c", self.config_directory, "-M", f"{name}/{kind}={line}"])
        self._settle()

    def set(self, **settings: str) -> None:
        """Change main.cf; reload() makes a running Postfix notice."""
        self.machine.run(["postconf", "-c", self.config_directory,
                          *(f"{name}={value}" for name, value in settings.items())])
        self._settle(self.config_directory)

    def _settle(self, directories: str = "/etc/postfix*") -> None:
        """Every Postfix program waits until main.cf is two seconds old: let it be old at once."""
        self.machine.run(f"touch --date='1 minute ago' {directories}/main.cf {directories}/master.cf")

    def start(self) -> None:
        """Configure and start, by the distribution's own unit; the default instance starts anew."""
        if self.instance == "-":
            self.stop()
        self.configure()
        # Where units are made for each instance a machine has switched it off: it needs a main.cf.
        self.machine.run(["rm", "-f", f"/run/{GENERATOR}"])
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("start", self._unit())
        self.machine.run(["postfix", "-c", self.config_directory, "status"])

    def _unit(self) -> str:
        """Until Debian 12 the unit of the default instance starts them all; from 13 on each has one of its own."""
        if self.instance == "-" or self.machine.run(["test", "-e", f"/lib/{GENERATOR}"], check=False).returncode == 0:
            return "postfix.service"
        return f"postfix@{self.instance.removeprefix('postfix-')}.service"

    @property
    def dialect(self) -> str:
        """Postfix before 3.6 expects no greeting: scached(8)."""
        return "postfix-legacy" if self.settings["compatibility_level"] == "2" else "postfix"

    def adapt_socket(self) -> None:
        """Give scached's socket the dialect of this Postfix, as an administrator does."""
        if self.dialect != "postfix":
            self.machine.write(f"/etc/systemd/system/{SOCKET}.d/legacy.conf", f"[Socket]\nFileDescriptorName={self.dialect}\n")
            self.machine.systemctl("daemon-reload")

    def enable_socket(self) -> None:
        self.adapt_socket()
        self.machine.systemctl("enable", "--now", SOCKET)

    def reload(self) -> None:
        self.machine.run(["postfix", "-c", self.config_directory, "reload"])

    def stop(self) -> None:
        """Stop Postfix, with all its instances."""
        self.machine.systemctl("stop", "postfix.service")

    def send(self, count: int, domain: str = "example.org") -> list[str]:
        """Submit mails with sendmail(1), one recipient each. Returns the recipients."""
        batch = next(_batches)
        recipients = [f"batch{batch}-{number}@{domain}" for number in range(count)]
        self.machine.run(["sh", "-c",
                          'while read -r to; do printf "Subject: test\\n\\ntest\\n" | '
                          'sendmail -C "$1" -i -f sender@example.org "$to" || exit; done',
                          "sh", self.config_directory],
                         input="".join(f"{recipient}\n" for recipient in recipients),
                         timeout=60 + count)
        return recipients

    def wait_delivered(self, recipients: list[str], timeout: float = 60) -> list[Delivery]:
        """Wait until all of them have their mail. Returns how each got it, in the log's order."""
        missing = set(recipients)
        deliveries = []
        for entry in self.machine.journal_follow(timeout=timeout, SYSLOG_FACILITY=MAIL_FACILITY):
            delivery = self._delivery(entry)
            if delivery is None or delivery.recipient not in missing:
                continue
            if delivery.status == "bounced":
                raise MailFailed(f"mail to {delivery.recipient} bounced:\n{self._log()}")
            if delivery.status == "sent":
                deliveries.append(delivery)
                missing.remove(delivery.recipient)
                if not missing:
                    return deliveries
        raise MailFailed(f"{len(missing)} of {len(recipients)} mails not delivered within "
                         f"{timeout} s; the log:\n{self._log()}")

    def _delivery(self, entry: Entry) -> Delivery | None:
        return Delivery.parse(entry["MESSAGE"]) if self._is_ours(entry) else None

    def _is_ours(self, entry: Entry) -> bool:
        return entry.get("SYSLOG_IDENTIFIER", "").startswith(f"{self.name}/")

    def log(self) -> list[Entry]:
        """What this instance logged since the machine's mark."""
        return [e for e in self.machine.journal(SYSLOG_FACILITY=MAIL_FACILITY) if self._is_ours(e)]

    def _log(self) -> str:
        return format_entries(self.log()[-40:])

    def warnings(self) -> list[str]:
        """All it complained about since the machine's mark, as "postfix/smtp: warning: ..."."""
        return [f"{e['SYSLOG_IDENTIFIER']}: {e['MESSAGE']}" for e in self.log()
                if COMPLAINT.match(e["MESSAGE"]) and not OF_THE_CLOCK.search(e["MESSAGE"])]


class Sink:
    """smtp-sink(1) as a service: takes all mail and forgets it. A context manager."""

    def __init__(self, machine: Machine, port: int = 2525, options: tuple[str, ...] = ()):
        self.machine, self.port, self.options = machine, port, options
        self.unit = f"smtp-sink-{port}.service"

    def __enter__(self) -> "Sink":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        if self.machine.alive:
            self.stop()

    def start(self) -> None:
        self.machine.run(["systemd-run", "--quiet", "--collect", f"--unit={self.unit}",
                          "--property=User=nobody", "smtp-sink", *self.options,
                          f"127.0.0.1:{self.port}", "1000"])
        self.machine.wait(self._listens, what=f"{self.unit} listens")

    def _listens(self) -> bool:
        """Looked up rather than tried, which would be one more connection for it."""
        local = f" 0100007F:{self.port:04X} 00000000:0000 0A "
        return local in Path(f"/proc/{self.machine.pid}/net/tcp").read_text()

    def stop(self) -> None:
        self.machine.systemctl("stop", self.unit)
