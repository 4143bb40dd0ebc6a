# SPDX-License-Identifier: LGPL-2.1-or-later
"""Several mail hosts, of which each is the owner of some destinations, as scached-fleet(7) sets them up.

One machine: each host is an instance of Postfix in a network of its own, with a cache of its own. Its lines of master.cf
are those of the page. The receiver is in one more network, and takes the mail of all destinations.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections import Counter

import pytest

import kernel
from mail import Postfix
from receiver import Receiver, make_certificates
from rig import REPO, Machine

NETWORKS = "/run/netns"
PORT, PORT_BEHIND = 10625, 10626
DESTINATIONS = [f"d{number}.example" for number in range(12)]
SHARED = "/etc/postfix/shared"
ALONE, ADDRESS_ALONE = "alone.example", "10.77.0.8"  # of which nobody is the owner, and which shares no address with the others


def address(name: str) -> str:
    return f"10.77.0.{9 if name == 'receiver' else ord(name) - ord('a') + 1}"


def page_block(first: str) -> str:
    """The lines of scached-fleet(7) that begin so, as they are typed."""
    blocks = re.findall(r"(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed$", (REPO / "man/scached-fleet.7").read_text())
    return next(block for block in blocks if block.startswith(first))


def service(first: str, addresses: list[str], port: int = PORT) -> str:
    """A service of the page, in one line, for these hosts."""
    line = " ".join(page_block(first).split()).replace("192.0.2.1,192.0.2.2", ",".join(addresses))
    return f"{port} {line.partition(' ')[2]}" if line.startswith(str(PORT)) else line


class Host(Postfix):
    """One host of the fleet."""

    def __init__(self, machine: Machine, name: str, fleet: str):
        self.host, self.address = f"{name}.fleet.test", address(name)
        self.network = name
        self.addresses = [address(other) for other in fleet]
        # The services override settings of main.cf that would be in their way.
        super().__init__(
            machine, f"postfix-{name}", services=("smtp unix - - n - - smtp -o smtp_tls_security_level=none", *self.fleet_services()), myhostname=self.host,
            inet_interfaces="all", master_service_disable="", relayhost="", smtp_connect_timeout="20s", smtp_tls_security_level="encrypt",
            connection_cache_service_name="scached", smtp_connection_cache_destinations=f"{SHARED} {ALONE}")

    def fleet_services(self, port: int = PORT) -> tuple[str, str]:
        return service("10625 inet", self.addresses, port), service("fleet unix", self.addresses)

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net={NETWORKS}/{self.network}", *command]

    def start(self) -> None:
        self.configure()
        self.go_on()
        self.machine.run(["scachectl", "postfix", "enable", f"--config-directory={self.config_directory}"])

    def go_on(self) -> None:
        self.machine.run(self.inside("postfix", "-c", self.config_directory, "start"))

    def die(self) -> None:
        self.machine.run(["postfix", "-c", self.config_directory, "abort"])

    def link(self, state: str) -> None:
        """Take the host off the network: nobody who asks gets an answer, not even that there is none."""
        self.machine.run(self.inside("ip", "link", "set", "eth0", state))

    def admit(self, fleet: str) -> None:
        """Take mail of these hosts."""
        self.addresses = [address(name) for name in fleet]
        networks = ",".join(["127.0.0.1", *self.addresses])
        self.machine.run(["postconf", "-c", self.config_directory, "-P", f"{PORT}/inet/mynetworks={networks}"])
        self._settle(self.config_directory)
        self.reload()

    def use_table(self, *fleet: str) -> list[str]:
        """As step 5 of the page, where a=0 is a.fleet.test of weight 0. Returns the destinations that others own."""
        table = f"{self.config_directory}/fleet"
        hosts = [f"{name[0]}.fleet.test{name[1:]}" for name in fleet]
        self.machine.run(["scachectl", "fleet", *hosts, f"--self={self.host}", f"--destinations={SHARED}", f"--output={table}"])
        self.machine.run(["postmap", f"hash:{table}"])
        self.set(transport_maps=f"hash:{table}")
        self.reload()
        return re.findall(r"(?m)^(\S+) fleet:", self.machine.read(table))

    def queue_is_empty(self) -> bool:
        return "queue is empty" in self.machine.run(["postqueue", "-c", self.config_directory, "-p"]).stdout


class Site:
    """The networks, the hosts and the receiver."""

    def __init__(self, machine: Machine):
        self.machine = machine
        machine.install()
        make_certificates(machine)
        names = [f"{address(name)} {name}.fleet.test" for name in "abc"]
        machine.write("/etc/hosts", "\n".join([
            "127.0.0.1 localhost", *names, f"{address('receiver')} {' '.join(DESTINATIONS)}", f"{ADDRESS_ALONE} {ALONE}", ""]))
        machine.write(SHARED, "\n".join(["# of Postfix, too", " ".join(DESTINATIONS[:2]), *DESTINATIONS[2:], ""]))
        machine.run("ip link add name fleet type bridge && ip link set fleet up")
        for name in ("a", "b", "c", "receiver"):
            machine.run(f"""set -e
                ip netns add {name}
                ip link add name to-{name} type veth peer name eth0 netns {name}
                ip link set to-{name} master fleet up
                ip -n {name} link set lo up
                ip -n {name} address add {address(name)}/24 dev eth0
                ip -n {name} link set eth0 up""")
        machine.run(["ip", "-n", "receiver", "address", "add", f"{ADDRESS_ALONE}/24", "dev", "eth0"])
        Postfix(machine).configure()  # postmulti(1) wants it
        self.hosts = {name: Host(machine, name, "ab") for name in "ab"}
        for host in self.hosts.values():
            host.start()


@pytest.fixture(scope="module")
def site(module_machine: Machine) -> Site:
    return Site(module_machine)


@pytest.fixture
def receiver(site: Site):
    site.machine.mark = site.machine.journal_end()
    with Receiver(site.machine, port=25, network="receiver") as server:
        yield server


@pytest.fixture
def hosts(site: Site) -> dict[str, Host]:
    return site.hosts


def mails_in(connections) -> list[str]:
    return [recipient for connection in connections for recipient in connection.mails]


def deliver(receiver: Receiver, host: Host, domain: str, count: int = 1) -> list[str]:
    """Send, and wait until it has come. Returns the recipients."""
    sent = host.send(count, domain)
    receiver.wait(lambda: set(sent) <= set(receiver.mails()), f"mail of {host.host} to {domain}")
    return sent


def use_tables(site: Site, fleet: str) -> dict[str, str]:
    """On all hosts. Returns to whom each destination belongs."""
    others = {name: set(site.hosts[name].use_table(*fleet)) for name in fleet}
    owners = {domain: "".join(name for name in fleet if domain not in others[name]) for domain in DESTINATIONS}
    assert all(len(owner) == 1 for owner in owners.values()), owners
    return owners


def check_once(site: Site, receiver: Receiver, sent: list[str], peer: Host) -> None:
    """Nothing is left that could still come, and each mail has come once, from this host."""
    for host in site.hosts.values():
        site.machine.wait(host.queue_is_empty, 60, f"the queue of {host.host} is empty")
    assert Counter(receiver.mails()) == Counter(sent)
    assert {connection.peer for connection in receiver.connections} == {peer.address}


@pytest.fixture
def owned(site) -> str:
    """A destination that b owns; the mail comes from a."""
    owners = use_tables(site, "ab")
    return next(domain for domain, owner in owners.items() if owner == "b")


def test_mail_of_two_hosts_shares_connections(site, receiver):
    """The clock itself: one mail each 1.5 s, from two hosts in turn, and connections that are parked for 2 s."""
    owner = use_tables(site, "ab")["d0.example"]
    came: list[float] = []
    due = time.monotonic()
    for number in range(16):
        for domain in (ALONE, "d0.example"):
            deliver(receiver, site.hosts["ab"[number % 2]], domain)
        came.append(time.monotonic())
        due += 1.5
        time.sleep(max(0, due - time.monotonic()))

    connections = receiver.connections
    alone = [connection for connection in connections if f"@{ALONE}" in connection.mails[0]]
    shared = [connection for connection in connections if connection not in alone]
    assert len(mails_in(alone)) == len(mails_in(shared)) == 16
    assert len(alone) >= 14, "each host finds nothing"
    assert {connection.peer for connection in shared} == {address(owner)}
    assert not any("comment" in warning for host in site.hosts.values() for warning in host.warnings())
    late = sum(after - before > 1.9 for before, after in zip(came, came[1:]))  # this machine was, and not the mail
    assert len(shared) <= 2 + late


def test_an_owner_that_cannot_be_reached(site, receiver, owned):
    """It refuses, and then it does not answer at all: 2 s, and not the 20 s of smtp_connect_timeout in main.cf."""
    a, b = site.hosts["a"], site.hosts["b"]
    b.die()
    try:
        sent = deliver(receiver, a, owned)
        b.link("down")
        began = time.monotonic()
        sent += deliver(receiver, a, owned)
        assert 1.5 < time.monotonic() - began < 15
    finally:
        b.link("up")
        b.go_on()
    check_once(site, receiver, sent, a)


def test_no_mail_loops(site, receiver):
    """The tables of both hosts say that the other one is the owner. What has been passed on once is delivered."""
    a, b = site.hosts["a"], site.hosts["b"]
    assert set(a.use_table("a=0", "b")) == set(b.use_table("a", "b=0")) == set(DESTINATIONS)
    sent = deliver(receiver, a, "d1.example", 3)
    check_once(site, receiver, sent, b)
    b.die()  # then it is passed on to nobody but the same host
    try:
        here = deliver(receiver, a, "d2.example", 3)
    finally:
        b.go_on()
    assert Counter(receiver.mails()) == Counter(sent + here)
    assert {connection.peer for connection in receiver.connections if connection.mails[0] in here} == {a.address}


def test_a_third_host(site, receiver):
    before = use_tables(site, "ab")
    c = site.hosts["c"] = Host(site.machine, "c", "abc")
    c.start()

    # The others do not know it so far, and refuse its mail: no mail bounces, or waits.
    owned = next(domain for domain, owner in before.items() if owner == "a")
    c.use_table("a", "b", "c=0")
    sent = deliver(receiver, c, owned)
    check_once(site, receiver, sent, c)
    assert any("Client host rejected" in entry["MESSAGE"] for entry in site.hosts["a"].log())

    for name in "ab":
        site.hosts[name].admit("abc")
    after = use_tables(site, "abc")
    moved = {domain for domain in DESTINATIONS if before[domain] != after[domain]}
    assert moved and {after[domain] for domain in moved} == {"c"} and len(moved) <= 0.4 * len(DESTINATIONS)

    # One destination of each, and mail from all to all.
    domains = {owner: domain for domain, owner in after.items()}
    assert set(domains) == set("abc")
    for domain in domains.values():
        for host in site.hosts.values():
            sent += host.send(1, domain)
    receiver.wait(lambda: set(sent) <= set(receiver.mails()), "mail from all to all")
    for owner, domain in domains.items():
        peers = {connection.peer for connection in receiver.connections[1:]
                 if any(mail.endswith(f"@{domain}") for mail in connection.mails)}
        assert peers == {address(owner)}, domain
    assert Counter(receiver.mails()) == Counter(sent)


class Front(threading.Thread):
    """In front of the owner's service: passes everything on, up to the step at which the owner dies. A context manager."""

    STEPS = {"greeting": None, "MAIL": b"MAIL FROM", "end of data": b"\r\n.\r\n", "answer": b"\r\n.\r\n"}

    def __init__(self, host: Host, step: str, silent: bool = False):
        super().__init__(daemon=True)
        self.host, self.step, self.silent = host, step, silent
        self.marker = self.STEPS[step]
        self.reached = threading.Event()
        self.is_ready = threading.Event()
        self.stop, self.stopped = os.pipe()

    def __enter__(self) -> "Front":
        self.start()
        assert self.is_ready.wait(60)
        return self

    def __exit__(self, *_) -> None:
        os.close(self.stopped)
        self.join(60)
        os.close(self.stop)
        assert not self.is_alive()

    def run(self) -> None:
        network = os.open(f"/proc/{self.host.machine.pid}/root{NETWORKS}/{self.host.network}", os.O_RDONLY)
        kernel.setns(network, kernel.CLONE_NEWNET)  # this thread's alone, and it ends soon
        os.close(network)
        with socket.create_server((self.host.address, PORT)) as listener:
            self.is_ready.set()
            if self.readable(listener):
                client, _ = listener.accept()
                with client:
                    listener.close()  # it takes no more: it is about to die
                    self.serve(client)

    def readable(self, *sockets: socket.socket) -> list[socket.socket]:
        """Wait until one of them is. Empty when the test is over."""
        ready, _, _ = select.select([*sockets, self.stop], [], [])
        return [] if self.stop in ready else ready

    def die(self) -> None:
        self.reached.set()
        if self.silent:
            self.readable()

    def serve(self, client: socket.socket) -> None:
        if self.step == "greeting":
            return self.die()
        with socket.create_connection(("127.0.0.1", PORT_BEHIND)) as server:
            said, stored = b"", False
            while ready := self.readable(client, server):
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if end is client:
                        said += data
                        stored = self.step == "answer" and self.marker in said
                        if self.marker in said and not stored:
                            return self.die()
                        server.sendall(data)
                    elif stored and data.startswith(b"250 "):
                        return self.die()  # the owner has the mail, and nobody hears of it
                    elif not stored:
                        client.sendall(data)


@pytest.fixture(scope="module")
def behind(site):
    """The owner, with its service behind a front; for the tests from here on."""
    owner = site.hosts["b"]
    owner.die()
    owner.machine.run(["postconf", "-c", owner.config_directory, "-MX", f"{PORT}/inet"])
    owner.machine.run(["postconf", "-c", owner.config_directory, "-M",
                       f"{PORT_BEHIND}/inet={owner.fleet_services(PORT_BEHIND)[0]}"])
    owner.go_on()
    return owner


@pytest.mark.parametrize("step, silent", [("greeting", False), ("MAIL", False), ("end of data", False), ("MAIL", True)])
def test_an_owner_that_dies_costs_no_mail_and_no_duplicate(site, receiver, owned, behind, step, silent):
    """At once if the connection breaks, after 10 s if it falls silent, and at once again if it is dead."""
    with Front(behind, step, silent) as front:
        sent = deliver(receiver, site.hosts["a"], owned)
        assert front.reached.is_set()
        sent += deliver(receiver, site.hosts["a"], owned)
    check_once(site, receiver, sent, site.hosts["a"])


def test_an_owner_that_dies_before_its_last_answer_is_heard(site, receiver, owned, behind):
    """SMTP has this moment at each step of a mail's way: what both hosts have taken, both deliver. It is late, and never lost."""
    with Front(behind, "answer"):
        sent = deliver(receiver, site.hosts["a"], owned)
        receiver.wait(lambda: Counter(receiver.mails()) == Counter(sent * 2), "the mail from both hosts")
    assert {connection.peer for connection in receiver.connections} == {site.hosts["a"].address, behind.address}
