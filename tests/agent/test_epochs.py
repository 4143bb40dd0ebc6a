# SPDX-License-Identifier: LGPL-2.1-or-later
"""An agent of Postfix finds only what was parked under the configuration that it runs under.

A process runs under the main.cf and the tables that were there when it started, and under what its command line says, which is
what master.cf says. So agents here are processes, started before an edit and after it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Optional

import pytest

from connection import Connection, wait_until
from control import Control
from protocol import FAIL, OK, Agent

pytestmark = pytest.mark.plain_start("its agents are Postfix's in queue directories of the test's own")

# Connects each time it is told a path, and passes the socket on.
AGENT = """
import os, socket, sys
ours = socket.socket(fileno=0)
root = os.environ.get("ROOT")
if root:
    os.chroot(root)
ours.sendall(b"+")
while path := ours.recv(4096):
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.connect(path[len(root or ""):])
    socket.send_fds(ours, [b"+"], [connected.fileno()])
    connected.close()
"""

# For how long after a change it cannot be told whether a process started before or after it, with some more for slow machines.
UNDECIDED = 0.1


class Process:
    """A process with the command line that master(8) gives an smtp(8)."""

    def __init__(self, *options: str, service: str = "smtp", container: str = "", chroot: Optional[Path] = None):
        """With CONTAINER: in namespaces of its own, in which this shell script was run before."""
        name = () if service == "smtp" else ("-n", service)
        command = ["smtp", "-ISc", AGENT, *name, "-t", "unix", "-u", "-c", *options]
        how = {"executable": sys.executable}
        if container:
            how = {}
            script = f'{container}\nexec -a "$@"'
            command = ["unshare", "--mount", "--pid", "--fork", "--kill-child",
                       "bash", "-ec", script, "bash", command[0], sys.executable, *command[1:]]
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs, env={**os.environ, "ROOT": str(chroot or "")}, **how)
        assert self._ours.recv(1) == b"+"
        self.agents: list[Agent] = []

    def connect(self, path: str, dialect: str = "postfix") -> Agent:
        self._ours.sendall(path.encode())
        _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
        self.agents.append(Agent(socket.socket(fileno=fds[0]), dialect))
        return self.agents[-1]

    def end(self) -> None:
        for agent in self.agents:
            agent.close()
        self._ours.close()
        self._process.wait()


class Instance:
    """An instance of Postfix as far as its files go."""

    def __init__(self, manager, name: str, start: Callable[..., Process]):
        self._start = start
        self.socket = manager.listen_in_queue(f"spool-{name}")
        self.queue = manager.folder / f"spool-{name}"
        self.directory = manager.folder / f"etc-{name}"
        self.directory.mkdir()
        self.settings = {"queue_directory": str(self.queue)}
        self.set()

    def set(self, **settings: str) -> None:
        self.settings |= settings
        self.write("main.cf", "".join(f"{name} = {value}\n" for name, value in self.settings.items()))

    def write(self, name: str, text: str) -> Path:
        (self.directory / name).write_text(text)
        settle()
        return self.directory / name

    def agent(self, *options: str, **how) -> Agent:
        """The agent of a process that starts now."""
        return self._start(*options, **how).connect(self.socket)


def settle() -> None:
    """Whatever starts from here on started after what was done so far, without doubt."""
    until = time.monotonic() + UNDECIDED
    wait_until(lambda: time.monotonic() > until, "a clock that goes on")


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(*options: str, **how) -> Process:
        processes.append(Process(*options, **how))
        return processes[-1]

    yield start
    for started in processes:
        started.end()


@pytest.fixture
def instance(manager, process) -> Instance:
    return Instance(manager, "postfix", process)


@pytest.fixture
def serve(manager, instance):
    def serve(**options):
        return manager.start({"connection_cache_ttl_limit": "3600s",
                              "postfix_config_directories": str(instance.directory), **options})
    return serve


def park(agent: Agent, label: str = "label") -> Connection:
    """A connection and a binding to it, both of this label."""
    connection = Connection(agent.timeout)
    assert agent.save_dest(600, label, "binding", label) == OK
    assert agent.save_endp(600, label, "property", connection.fd) == OK
    connection.pass_on()
    agent.parked.append(connection)
    return connection


def find(agent: Agent, connection: Connection, label: str = "label") -> bool:
    """Whether it is found by its destination; then it is taken."""
    with agent.find_dest(label) as found:
        assert found.identity in (None, connection.identity)
        return found.status == OK


def finds_nothing(agent: Agent, label: str = "label") -> bool:
    return agent.find_dest(label).status == FAIL and agent.find_endp(label).status == FAIL


def check_change(instance: Instance, change: Callable[[], object], before=(), after=()) -> None:
    """What is parked before a change is found before it, and by nobody who comes after it."""
    old = instance.agent(*before)
    assert find(instance.agent(*before), park(old))
    first, second = park(old), park(old, "second")
    settle()
    change()
    settle()

    # Until one comes who knows better, all goes on.
    assert find(old, first)
    new = instance.agent(*after)
    assert finds_nothing(new) and finds_nothing(new, "second")
    assert second.wait_let_go() == b"QUIT\r\n"

    # From then on, old agents find nothing, and keep nothing.
    mine = park(new)
    late = park(old, "late")
    assert late.wait_let_go() == b"QUIT\r\n"
    assert finds_nothing(old) and finds_nothing(old, "late") and finds_nothing(new, "late")
    assert find(instance.agent(*after), mine)


def test_what_changes_nothing_loses_nothing(serve, instance):
    serve()
    old = instance.agent()
    first, second = park(old), park(old, "second")
    (instance.directory / "access").write_text("another file\n")
    new = instance.agent()
    assert find(new, first) and find(instance.agent(), second, "second")
    assert find(old, park(new))


def test_a_changed_main_cf(serve, instance):
    serve()
    check_change(instance, lambda: instance.set(smtp_tls_security_level="encrypt"))


def test_a_main_cf_that_was_replaced_with_an_old_time(serve, instance):
    """As by `cp -p` and `rsync -t`."""
    def replace():
        path = instance.write("main.cf.new", "smtp_tls_security_level = encrypt\n"
                                             f"queue_directory = {instance.queue}\n")
        os.utime(path, (1, 1))
        path.rename(instance.directory / "main.cf")
    serve()
    check_change(instance, replace)


def test_a_directory_that_was_switched(serve, instance):
    """All files are older than the processes that ran before them."""
    real = instance.directory.rename(instance.directory.with_suffix(".old"))
    new = instance.directory.with_suffix(".new")
    new.mkdir()
    for name in ("main.cf",):
        (new / name).write_text((real / name).read_text() + "smtp_tls_security_level = encrypt\n")
    instance.directory.symlink_to(real)
    settle()

    def switch():
        link = instance.directory.with_suffix(".link")
        link.symlink_to(new)
        link.rename(instance.directory)
    serve()
    check_change(instance, switch)


@pytest.mark.parametrize("value, name", [
    ("hash:{}/sasl", "sasl.db"), ("proxy:btree:{}/sasl", "sasl.db"), ("lmdb:{}/sasl", "sasl.lmdb"),
    ("static:x, cdb:{}/sasl", "sasl.cdb"), ("texthash:{}/sasl", "sasl"), ("${{other}}sasl", "sasl"),
])
def test_a_changed_table(serve, instance, value, name):
    instance.set(smtp_sasl_password_maps=value.format(instance.directory), other="regexp:$config_directory/")
    instance.write(name, "password\n")
    serve()
    check_change(instance, lambda: (instance.directory / name).write_text("p4ssword\n"))
    check_change(instance, lambda: (instance.directory / name).unlink())


def test_tables_that_postfix_writes_itself_change_nothing(serve, instance):
    instance.set(smtp_tls_session_cache_database="btree:$config_directory/cache")
    path = instance.write("cache.db", "session\n")
    serve()
    connection = park(instance.agent())
    path.write_text("another session\n")
    settle()
    assert find(instance.agent(), connection)


def test_a_changed_master_cf(serve, instance):
    """It is in force when master(8) has read it, which no file tells of: the command line does."""
    serve()
    check_change(instance, lambda: None, (), ("-o", "smtp_tls_security_level=encrypt"))
    table = instance.write("policy", "a policy\n")
    options = ("-o", f"smtp_tls_policy_maps=texthash:{table}")
    check_change(instance, lambda: table.write_text("another policy\n"), options, options)


def test_services_of_one_instance(serve, instance):
    """Each has its own command line: none of them is newer than the other."""
    serve()
    smtp, relay = instance.agent(), instance.agent("-o", "x=y", service="relay")
    first, second = park(smtp), park(relay)
    assert find(instance.agent("-o", "x=y", service="relay"), second)
    assert find(instance.agent(), first)


def test_an_agent_from_before(serve, instance, process):
    """It connects for the first time when the files have changed: what it runs under cannot be told."""
    early = process()
    instance.set(smtp_tls_security_level="encrypt")
    serve()
    new = instance.agent()
    mine = park(new)
    old = early.connect(instance.socket)
    theirs = park(old, "theirs")
    assert theirs.wait_let_go() == b"QUIT\r\n"
    assert finds_nothing(old) and finds_nothing(new, "theirs")
    assert find(new, mine)


@pytest.mark.usefixtures("root")
def test_a_container_that_has_the_same_files(serve, instance):
    """Its processes are as good as those outside: with a pid namespace and mounts of its own."""
    serve()
    inside = {"container": "mount -t tmpfs tmpfs /srv"}
    assert find(instance.agent(**inside), park(instance.agent()))
    assert find(instance.agent(), park(instance.agent(**inside)))
    old = instance.agent(**inside)
    check_change(instance, lambda: instance.set(smtp_tls_security_level="encrypt"))
    assert finds_nothing(old)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("what", ["main.cf", "directory", "all", "table"])
def test_a_container_that_has_other_files(serve, instance, what):
    """They cannot be seen from here, and are not those that can."""
    table = instance.directory / "tables" / "policy"
    table.parent.mkdir()
    table.write_text("a policy\n")
    instance.set(smtp_tls_policy_maps=f"texthash:{table}")
    folder = instance.directory.parent
    outside = {"main.cf": instance.directory / "main.cf", "directory": instance.directory, "all": folder,
               "table": table.parent}[what]
    inside = instance.queue / "inside"  # which all can reach
    script = f"cp -a {outside} {inside}\nmount --bind {inside} {outside}"
    if what == "all":
        script = (f"mkdir {inside}\nmkdir -p {inside}/{instance.queue.name}\ncp -a {instance.directory} {inside}\n"
                  f"mount --bind {instance.queue} {inside}/{instance.queue.name}\nmount --rbind {inside} {folder}")
    daemon = serve()
    connection = park(instance.agent())
    agent = instance.agent(container=script)
    assert finds_nothing(agent)
    assert park(agent, "inside").wait_let_go() == b"QUIT\r\n"
    path = table if what == "table" else instance.directory / "main.cf"
    daemon.wait_line(f"finds nothing.* it has another {path} than this service")
    assert find(instance.agent(), connection)


@pytest.mark.usefixtures("root")
def test_a_process_in_a_chroot(serve, instance):
    """As Debian's, where the queue is often a file system of its own, too: it read its files before."""
    serve()
    inside = {"container": f"mount --bind {instance.queue} {instance.queue}", "chroot": instance.queue}
    connection = park(instance.agent())
    agent = instance.agent(**inside)
    assert find(agent, connection)
    assert find(instance.agent(), park(agent))


def test_two_instances(manager, serve, instance, process):
    other = Instance(manager, "other", process)
    instance.set(multi_instance_directories=str(other.directory))
    serve()
    first, second = park(instance.agent()), park(other.agent())
    other.set(smtp_tls_security_level="encrypt")
    assert finds_nothing(other.agent())
    assert second.wait_let_go() == b"QUIT\r\n"
    assert find(instance.agent(), first)


@pytest.mark.parametrize("one_trip", [False, True], ids=["postfix", "one trip"])
def test_an_instance_that_nobody_knows(manager, serve, instance, process, one_trip):
    """Nothing is found, and yet nothing is refused: Postfix would cache no more."""
    other = Instance(manager, "other", process)
    daemon = serve()
    agent = other.agent()
    connection = Connection(agent.timeout)
    if one_trip:
        assert agent.save(600, "label", "binding", "label", "property", connection.fd) == OK
    else:
        assert agent.save_endp(600, "label", "property", connection.fd) == OK
    connection.pass_on()
    assert connection.wait_let_go() == b"QUIT\r\n"
    assert finds_nothing(agent)
    daemon.wait_line(r"finds nothing.* no main.cf has queue_directory = .*postfix_config_directories")


def test_a_table_that_cannot_be_told(serve, instance):
    instance.set(smtp_generic_maps="hash:$nobody_knows/generic")
    daemon = serve()
    agent = instance.agent()
    assert park(agent).wait_let_go() == b"QUIT\r\n"
    daemon.wait_line("finds nothing.*smtp_generic_maps = hash:.*cannot tell which file")
    assert finds_nothing(agent)


def test_switched_off(serve, instance):
    serve(connection_cache_epochs="no")
    connection = park(instance.agent())
    instance.set(smtp_tls_security_level="encrypt")
    assert find(instance.agent(), connection)


def test_kept_over_a_restart(manager, serve, instance):
    daemon = serve()
    first, second = park(instance.agent()), park(instance.agent(), "second")
    daemon.stop()
    daemon = serve()
    assert find(instance.agent(), first)

    # And an edit while nobody is there to see it.
    daemon.stop()
    instance.set(smtp_tls_security_level="encrypt")
    serve()
    assert finds_nothing(instance.agent(), "second")
    assert second.wait_let_go() == b"QUIT\r\n"


def test_what_is_counted(manager, serve, instance):
    manager.listen(["control"])
    daemon = serve()
    n = 300
    old = instance.agent()
    parked = [park(old, f"label {i}") for i in range(n)]
    instance.set(smtp_tls_security_level="encrypt")
    new = instance.agent()
    assert all(connection.wait_let_go() == b"QUIT\r\n" for connection in parked)
    assert new.find_endp("label 0").status == old.find_endp("label 1").status == FAIL
    with Control(daemon.path("control")) as control:
        status = control.ask("status")
    assert [status[name] for name in ("connections_outdated", "connections", "bindings", "endpoint_misses_outdated")] == [
        str(n), "0", "0", "2"]
    assert daemon.wait_line("The configuration of smtp in .* has changed: draining")
