# SPDX-License-Identifier: LGPL-2.1-or-later
"""Postfix switched over to scached and back, as one command each: `scachectl postfix enable`, `... disable`."""

import pytest

from books import Books
from mail import Postfix, Sink
from sequences import Worker

SERVICE_NAME = "connection_cache_service_name"
UNIT = "scached-postfix.socket"
FOLDER = "/var/spool/postfix/private"
SECOND_UNIT = "scached-postfix@var-spool-postfix\\x2dtwo.socket"
SECOND_SERVICE = "scached@var-spool-postfix\\x2dtwo.service"


@pytest.fixture
def host(fresh_machine):
    fresh_machine.install()
    return fresh_machine


def parameter(postfix: Postfix, name: str = SERVICE_NAME) -> str:
    return postfix.machine.run(["postconf", "-c", postfix.config_directory, "-h", name]).stdout.strip()


def check(postfix: Postfix) -> None:
    """`postfix check` says nothing, and nothing about the cache has been warned of."""
    result = postfix.machine.run(["postfix", "-c", postfix.config_directory, "check"])
    assert (result.stdout, result.stderr) == ("", "")
    assert postfix.warnings() == []


def reuses(postfix: Postfix) -> bool:
    """Do half of the mails go over a connection that was there? On a busy machine, perhaps not those of the first batch."""
    batches = (postfix.wait_delivered(postfix.send(10)) for _ in range(3))
    return any(sum(delivery.conn_use >= 2 for delivery in batch) >= 5 for batch in batches)


def make_folder(machine) -> None:
    """As Postfix does, from Debian 13 on when it starts for the first time."""
    machine.run(["install", "-d", "-o", "postfix", "-m", "700", FOLDER])


def active(machine, unit: str) -> bool:
    return machine.show(unit, "ActiveState")["ActiveState"] == "active"


def switch(machine, *arguments: str) -> str:
    result = machine.run(["scachectl", "postfix", *arguments])
    assert result.stderr == ""
    return result.stdout


def test_one_instance_over_and_back(host):
    postfix = Postfix(host)
    postfix.start()
    before = host.read("/etc/postfix/main.cf")
    with Sink(host):
        said = switch(host, "enable")
        assert "a lookup works" in said and "reloaded" in said and UNIT in said
        assert parameter(postfix) == "scached" and active(host, UNIT)
        assert reuses(postfix)
        host.run(["scachectl", "status"])   # whose socket nobody has enabled
        assert active(host, "scached.service")
        check(postfix)

        # Said twice is done once.
        said = switch(host, "enable")
        assert "already" in said and "reloaded" not in said

        # Agents that have missed the socket cache no more, until they are told.
        host.systemctl("stop", UNIT, "scached.service")
        postfix.wait_delivered(postfix.send(1))
        assert any("disabling connection caching" in warning for warning in postfix.warnings())
        host.mark = host.journal_end()
        said = switch(host, "enable")
        assert "already" in said and "reloaded" in said
        assert reuses(postfix)
        check(postfix)

        assert "reloaded" in switch(host, "disable")
        assert host.read("/etc/postfix/main.cf") == before
        assert not active(host, UNIT)
        assert host.show(UNIT, "UnitFileState")["UnitFileState"] == "disabled"
        assert host.run("test -e /var/spool/postfix/private/scached", check=False).returncode != 0
        assert reuses(postfix), "Postfix's own cache is back"
        check(postfix)
        switch(host, "disable")


def test_two_instances_do_not_share_what_they_park(host):
    first = Postfix(host)
    first.start()
    second = Postfix(host, "postfix-two")   # with the same relay: the labels are the same, too
    second.start()
    with Sink(host):
        switch(host, "enable")
        assert parameter(first) == parameter(second) == "scached"
        assert active(host, UNIT) and active(host, SECOND_UNIT)
        host.systemctl("stop", "scached.service")
        assert reuses(second)
        assert active(host, SECOND_SERVICE) and not active(host, "scached.service")
        assert reuses(first)
        check(first)
        check(second)

        switch(host, "disable", "--config-directory", second.config_directory)
        assert (parameter(first), parameter(second)) == ("scached", "scache")
        assert not active(host, SECOND_UNIT) and not active(host, SECOND_SERVICE)
        host.journal_wait("Exiting: told to stop and to keep nothing", unit=SECOND_SERVICE)

        switch(host, "enable", "--config-directory", second.config_directory)
        switch(host, "disable")
        assert parameter(first) == parameter(second) == "scache"
        assert not active(host, UNIT) and not active(host, SECOND_UNIT)
        check(first)
        check(second)


def test_service_that_runs_for_other_agents(host):
    """It gets Postfix's socket without losing what they have parked."""
    postfix = Postfix(host)
    postfix.start()
    host.write("/etc/scached/scached.conf", "connection_cache_ttl_limit = 1h\n")
    host.systemctl("enable", "--now", "scached.socket", "scached-control.socket")
    worker = keep(host)
    said = switch(host, "enable")
    assert "a lookup works" in said and active(host, UNIT)
    assert worker.ask() == {"found": 10, "told_goodbye": 0, "lost": []}
    assert Books(entry["MESSAGE"] for entry in host.journal(SYSLOG_IDENTIFIER="scached")) == {"kept": 10, "restored": 10}
    said = switch(host, "enable")
    assert "already" in said and "enabled" not in said


def keep(host) -> Worker:
    worker = Worker(host, "keep", "/run/scached/scached.sock", "10")
    assert worker.hear() == {"parked": 10}
    return worker


def test_before_postfix_ran_once(host):
    """Debian 13 makes the folder of sockets only then."""
    postfix = Postfix(host)
    postfix.configure()
    host.run(["rm", "-rf", FOLDER])
    said = switch(host, "enable")
    assert f"{FOLDER}: created by Postfix" in said and "a lookup works" in said
    assert parameter(postfix) == "scached"
    host.run(["postfix", "start"])
    with Sink(host):
        assert reuses(postfix)
        check(postfix)


@pytest.mark.parametrize("missing", [FOLDER, "/var/spool/postfix"])
def test_folder_that_appears_later(host, missing):
    """The socket is enabled before there is Postfix, or before it ran, and opens when it can, also if the service runs by then."""
    postfix = Postfix(host)
    postfix.adapt_socket()
    make_folder(host)
    host.run(["mv", missing, "/root/away"])
    host.systemctl("enable", "--now", UNIT)
    assert not active(host, UNIT)
    host.run(["scachectl", "status"])
    host.run(["mv", "/root/away", missing])
    host.wait(lambda: active(host, UNIT), 5)
    host.wait(lambda: not active(host, UNIT.replace(".socket", ".path")), 5)
    postfix.start()
    host.run(["postconf", "connection_cache_service_name=scached"])
    host.run(["postfix", "reload"])
    with Sink(host):
        assert reuses(postfix)
        check(postfix)


def test_socket_that_was_moved_to_a_folder_that_is_missing(host):
    host.write(f"/etc/systemd/system/{UNIT}.d/moved.conf",
               "[Unit]\nConditionPathIsDirectory=\nConditionPathIsDirectory=/srv/private\n"
               "[Socket]\nListenStream=\nListenStream=/srv/private/scached\n")
    host.systemctl("daemon-reload")
    host.mark = host.journal_end()
    host.systemctl("start", UNIT)
    host.systemctl("start", "scached-control.socket")
    assert not active(host, UNIT) and len(host.journal()) < 20


def test_stopped_before_its_folder_appears(host):
    make_folder(host)
    host.run(["mv", FOLDER, "/root/away"])
    host.systemctl("enable", "--now", UNIT)
    host.systemctl("stop", UNIT)
    host.run(["mv", "/root/away", FOLDER])
    host.systemctl("start", "scached-control.socket")   # a job that comes to its end after any that the folder had begun
    assert not active(host, UNIT)


def test_socket_that_is_of_no_use(host):
    """It is open, but of another user, of another dialect, or of a service that does not answer: opened anew."""
    postfix = Postfix(host)
    postfix.start()
    drop_in = f"/run/systemd/system/{UNIT}.d/wrong.conf"
    other = ({"postfix", "postfix-legacy"} - {postfix.dialect}).pop()
    for wrong in ("SocketUser=nobody", f"FileDescriptorName={other}"):
        host.write(drop_in, f"[Socket]\n{wrong}\n")
        host.systemctl("daemon-reload")
        host.systemctl("enable", "--now", UNIT)
        result = host.run(["scachectl", "postfix", "enable"], check=False)
        assert result.returncode == 69 and "a lookup by user \"postfix\" through" in result.stderr
        assert "systemctl enable" not in result.stderr, "it is what was just done"
        assert parameter(postfix) == "scache"
        host.run(["rm", drop_in])
        host.systemctl("daemon-reload")
        assert "a lookup works" in switch(host, "enable")
        switch(host, "disable")


def test_before_36_there_is_no_greeting(host):
    postfix = Postfix(host, mail_version="3.5.9")
    postfix.start()
    assert "older than 3.6" in switch(host, "enable")
    assert host.show(UNIT, "FileDescriptorName")["FileDescriptorName"] == "postfix-legacy"
    switch(host, "disable")
    assert host.show(UNIT, "FileDescriptorName")["FileDescriptorName"] == "postfix"
    assert host.run("ls /etc/systemd/system", check=False).stdout.count("scached") == 0


def test_nothing_is_switched_to_what_does_not_work(host):
    postfix = Postfix(host)
    postfix.start()
    host.systemctl("mask", "scached.service")
    result = host.run(["scachectl", "postfix", "enable"], check=False)
    assert result.returncode == 69 and "Could not start scached-postfix.socket" in result.stderr
    assert "systemctl enable" not in result.stderr
    assert parameter(postfix) == "scache"


def test_only_root_may(host):
    Postfix(host).start()
    result = host.run(["scachectl", "postfix", "enable"], user="nobody", check=False)
    assert result.returncode == 77 and "Only root" in result.stderr
