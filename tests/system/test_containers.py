# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers, as scached-containers(7) has them: the service of the host, or one inside. container.py makes the namespaces, and
what is typed is what the page says."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from mail import Postfix, compatibility_level
from receiver import Receiver, make_certificates
from rig import REPO, Machine, readable

HERE = Path(__file__).parent
FOLDER = "/run/scached-mail"
MOUNTED = "/mnt/cache"
UNIT = "scached-mail.socket"
SERVICE = "scached.service"
BASE, OTHER_BASE, USER = 100000, 200000, 101
OUTSIDE = BASE + USER
PORT = 2525
MISS, OK = 2, 0


def page_block(word: str) -> str:
    """The lines of the page, as they are typed, of the first example in which this is said."""
    blocks = re.findall(r"(?ms)^\.Bd -literal.*?\n(.*?)^\.Ed$", (REPO / "man/scached-containers.7").read_text())
    return next(block for block in blocks if word in block)


class Network:
    """The network of a container, with an interface to the machine, as its manager makes it and takes it away."""

    def __init__(self, machine: Machine, name: str, number: int):
        self.machine, self.name = machine, name
        self.host = f"10.78.{number}.1"
        machine.run(f"""set -e
            ip netns add {name}
            ip link add name to-{name} type veth peer name eth0 netns {name}
            ip address add {self.host}/24 dev to-{name}
            ip link set to-{name} up
            ip -n {name} link set lo up
            ip -n {name} address add 10.78.{number}.2/24 dev eth0
            ip -n {name} link set eth0 up""")

    def remove(self) -> None:
        self.machine.run(f"ip link delete to-{self.name}; ip netns delete {self.name}")


class Container:
    """One that runs an agent. A context manager, which ends all that is inside."""

    def __init__(self, network: Network, base: int | str, mount: str = f"{FOLDER}:{MOUNTED}:ro", path: str = f"{MOUNTED}/scached"):
        self.network, self.machine = network, network.machine
        self.command = ["/usr/bin/python3", self.machine.inside(HERE / "container.py"), network.name, base, USER, mount, "--",
                        "/usr/bin/python3", self.machine.inside(HERE / "workers.py"), "obey", path]

    def __enter__(self) -> "Container":
        self.process = self.machine.popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()

    def tell(self, *words) -> int | None:
        """Returns the status; None if there is no service."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        assert readable(self.process.stdout.fileno(), 60), "a container says nothing"
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)["status"]

    def park(self, label: str, ttl: int = 3600) -> None:
        assert self.tell("park", label, ttl, self.network.host, PORT) == OK

    def find(self, label: str) -> int | None:
        return self.tell("find", label)


@pytest.fixture(scope="module")
def host(module_machine: Machine) -> Machine:
    machine = module_machine
    machine.install()
    machine.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\n")
    machine.write(f"/etc/systemd/system/{UNIT}", page_block("ListenStream="))
    machine.systemctl("daemon-reload")
    machine.systemctl("enable", "--now", UNIT)
    machine.run(["mkdir", "-p", MOUNTED])
    return machine


@pytest.fixture(scope="module")
def network(host) -> Network:
    return Network(host, "mail", 1)


@pytest.fixture
def server(host):
    """Where connections lead to."""
    host.mark = host.journal_end()
    with host.network(), socket.create_server(("", PORT)) as listener:
        listener.settimeout(30)
        yield listener
    host.run(["scachectl", "flush"])


def accept(server: socket.socket) -> socket.socket:
    peer, _ = server.accept()
    peer.settimeout(30)
    return peer


def users(host: Machine) -> list[int]:
    return [entry["user"] for entry in json.loads(host.run(["scachectl", "list", "--json"]).stdout)]


def test_users_that_are_mapped_share_nothing(host, network, server):
    with Container(network, BASE) as one, Container(network, OTHER_BASE) as other:
        assert other.find("example.org") is None, "the socket is not that of its user"
        host.run(["chmod", "666", f"{FOLDER}/scached"])
        one.park("example.org")
        assert other.find("example.org") == MISS
        other.park("example.org")
        assert sorted(users(host)) == [OUTSIDE, OTHER_BASE + USER]
        with accept(server) as first, accept(server) as second:
            with Container(network, BASE) as again:  # the same users, in other namespaces
                assert again.find("example.org") == OK
                assert first.recv(100) == b"found"
            assert one.find("example.org") == MISS
            assert other.find("example.org") == OK
            assert second.recv(100) == b"found"


def test_a_service_of_its_own(host, network, server):
    """For users that are the same."""
    service = page_block("Service=scached@").strip().partition("=")[2]
    host.write("/etc/systemd/system/scached-own.socket",
               page_block("ListenStream=").replace("scached-mail", "scached-own").replace("scached.service", service))
    host.systemctl("daemon-reload")
    host.systemctl("enable", "--now", "scached-own.socket")
    with Container(network, BASE) as one, Container(network, BASE, f"/run/scached-own:{MOUNTED}:ro") as other:
        one.park("example.org")
        assert other.find("example.org") == MISS
        other.park("example.org")
        assert users(host) == [OUTSIDE]
        with accept(server) as first, accept(server) as second:
            assert other.find("example.org") == OK and second.recv(100) == b"found"
            assert one.find("example.org") == OK and first.recv(100) == b"found"
        other.park("example.net")
        with accept(server) as third:
            host.systemctl("stop", service)
            assert third.recv(100) == b"QUIT\r\n"
        assert other.find("example.net") == MISS, "and the service is there again"


def test_both_sides_restart(host, network, server):
    with contextlib.ExitStack() as containers:
        container = containers.enter_context(Container(network, BASE))
        host.run(["touch", "/mnt/socket"])
        by_file = containers.enter_context(Container(network, BASE, f"{FOLDER}/scached:/mnt/socket", "/mnt/socket"))
        assert by_file.find("nothing") == MISS, "for now"
        container.park("example.org")
        host.systemctl("restart", SERVICE)
        assert container.find("example.org") == OK, "kept, and found by an agent that was connected"
        container.park("example.net")
        host.systemctl("restart", UNIT, SERVICE)
        assert container.find("example.net") == OK, "the folder has the new socket"
        assert by_file.find("nothing") is None, "which the file that was mounted is not"
        container.park("example.com")
    with Container(network, BASE) as container:
        assert container.find("example.com") == OK, "the container has restarted"


def test_a_container_that_is_gone(host, server):
    """Its network lives on in what is parked, but leads nowhere. The page has a line that takes it out of the cache."""
    network = Network(host, "gone", 2)
    with Container(network, BASE) as container:
        container.park("polite")
        container.park("lost")
        container.park("brief", ttl=1)
    flush = re.search(r"(?m)^ExecStopPost=-(.*)$", page_block("ExecStopPost="))[1]
    with accept(server) as polite, accept(server) as lost, accept(server) as brief:
        assert brief.recv(100) == b"QUIT\r\n", "its time was over, and the network is there"
        assert users(host) == [OUTSIDE] * 2
        host.run(["scachectl", "flush", "*polite*"])
        assert polite.recv(100) == b"QUIT\r\n"

        network.remove()
        with pytest.raises(socket.timeout):
            lost.settimeout(0.5)
            lost.recv(100)
        assert users(host) == [OUTSIDE], "nobody has told the service either"
        assert host.run(shlex.split(flush)).stdout.startswith("Flushed 1 ") and users(host) == []


# With Postfix inside.

CONTROL_INSIDE = "/run/inside/control.sock"
POSTFIX = {"smtp_connection_cache_destinations": "static:all", "smtp_connection_cache_time_limit": "1h"}


class PostfixInside:
    """Processes, mounts and network of its own; users and files are the machine's."""

    def __init__(self, network: Network, script: str, *mounts: str, **settings: str):
        self.machine = network.machine
        self.postfix = Postfix(self.machine, relayhost=f"[{network.host}]:{PORT}", **POSTFIX, **settings)
        self.postfix.configure()
        self.machine.run(["postfix", "check"])  # makes its folders
        self.machine.run(["mkdir", "-p", "/var/spool/postfix/private/cache"])
        self.command = ["/usr/bin/python3", self.machine.inside(HERE / "container.py"), network.name, "-", 0, *mounts, "--",
                        "sh", "-c", f"postfix start && {script}"]

    def __enter__(self) -> Postfix:
        self.process = self.machine.popen(self.command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
        self.machine.journal_wait("daemon started", SYSLOG_FACILITY="2", timeout=60)
        return self.postfix

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def receiver(host):
    host.mark = host.journal_end()
    make_certificates(host)
    with Receiver(host, PORT) as server:
        yield server


def dialect(machine: Machine) -> str:
    return "postfix-legacy" if compatibility_level(machine) == "2" else "postfix"


def setting(word: str) -> dict[str, str]:
    """What postconf(1) is told in the example of the page in which this is said."""
    name, value = page_block(word).split()[-1].split("=")
    return {name: value}


def test_postfix_uses_the_service_of_the_host(host, network, receiver):
    volume = re.search(r"(?m)^Volume=(.*)$", page_block("Volume="))[1]
    assert volume in page_block("services:"), "the same for Compose"
    uid = host.run(["id", "-u", "postfix"]).stdout.strip()
    host.write(f"/etc/systemd/system/{UNIT}", page_block("ListenStream=").replace(str(OUTSIDE), uid).replace(
        "FileDescriptorName=postfix\n", f"FileDescriptorName={dialect(host)}\n"))
    host.systemctl("daemon-reload")
    host.systemctl("restart", UNIT, SERVICE)
    with PostfixInside(network, "sleep infinity", volume, **setting("service_name=cache")) as postfix:
        deliveries = postfix.wait_delivered(postfix.send(1)) + postfix.wait_delivered(postfix.send(3))
        assert max(delivery.conn_use for delivery in deliveries) >= 2
        assert [warning for warning in postfix.warnings() if "not owned by postfix" not in warning] == []
        assert int(uid) in users(host)


def test_postfix_has_a_service_inside(host, network, receiver):
    """Which its supervisor, a shell, starts again and again."""
    command = page_block("systemd-socket-activate -l").strip().replace("=postfix ", f"={dialect(host)} ")
    command = f"setpriv --reuid=postfix --regid=postfix --clear-groups {command}"
    control = command.replace(f"--fdname={dialect(host)}", f"-l {CONTROL_INSIDE} --fdname={dialect(host)}:control")
    script = f"mkdir /run/inside; chown postfix /run/inside; {command}; while :; do {control} || sleep 1; done"
    with PostfixInside(network, script, **setting("service_name=scached")) as postfix:
        deliveries = postfix.wait_delivered(postfix.send(1)) + postfix.wait_delivered(postfix.send(3))
        assert max(delivery.conn_use for delivery in deliveries) >= 2
        assert [warning for warning in postfix.warnings() if "smtp:" in warning] == []

        # Nobody keeps what is parked, and it gets its farewell.
        parked = receiver.open
        assert parked and not any(connection.quit for connection in parked)
        pids = host.run(["pgrep", "-f", "^/usr/sbin/scached -c /etc/postfix"]).stdout.split()
        host.run(["kill", "-TERM", pids[0]])
        receiver.wait(lambda: not receiver.open and all(connection.quit for connection in receiver.connections), "the farewell")

        # Mail goes out, with a cache or without, and with one when Postfix is reloaded and the supervisor has done its work.
        postfix.wait_delivered(postfix.send(1))
        look = ["scachectl", "status", "--json", f"--control={CONTROL_INSIDE}"]
        host.wait(lambda: host.run(look, check=False).returncode == 0, 30, "a service")
        postfix.reload()
        deliveries = postfix.wait_delivered(postfix.send(1)) + postfix.wait_delivered(postfix.send(3))
        assert max(delivery.conn_use for delivery in deliveries) >= 2
        assert json.loads(host.run(look).stdout)["deliveries_reused"] >= 1
