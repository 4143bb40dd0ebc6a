# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under Postfix's name the log has nothing that programs for Postfix's log do not know: what our lines are to them.

The lines are real: of everything that scached logs, which a whole life of mail and mistakes brings forth, and of Postfix, its own
cache among it.
"""

import re
from collections.abc import Iterator

import pytest

from conftest import start
from mail import Postfix, Sink
from rig import BUILD, BUILD_INSIDE, Entry, Machine

SERVICE = "scached.service"
LOG = "/var/log/mail.log"
TOOLS = ("logwatch", "pflogsumm")

# An agent that makes mistakes, and leaves something parked, of which some is dead.
MISTAKES = """
import os, socket, time
from connection import ProtocolError
from protocol import Agent

def connect():
    return Agent("/run/scached/scached.sock", "native", timeout=10)

for request in (b"request\\0no such request\\0\\0", b"request\\0save_dest\\0ttl\\0x\\0\\0", b"x" * 20000):
    with connect() as agent:
        agent.send(request)
        try:
            agent.read_list()
        except (ProtocolError, OSError):
            pass  # cut off
agent = connect()
with open("/dev/null") as null:
    assert agent.save_endp_inline(60, "endpoint", "", null.fileno()) == 2
for i in range(20):
    ours, peer = socket.socketpair()
    assert agent.save_endp_inline(60, f"endpoint {i}", "", ours.fileno()) == 0
    ours.close()
    if i < 15:
        peer.close()
    elif os.fork() == 0:
        time.sleep(60)  # the peer lives on; the machine ends this
        os._exit(0)
"""


def live(machine: Machine) -> None:
    """Mail by Postfix's own cache and by scached, with a restart, and with whatever can be done wrong."""
    machine.install()
    machine.run(["systemd-sysusers", "/usr/lib/sysusers.d/scached.conf"])
    machine.write("/etc/scached/main.cf", "syslog_name = postfix\nconnection_cache_status_update_time = 1s\n")
    machine.write("/etc/scached/scached.conf", "request_size_limit = 4096\nconnection_cache_ttl_limit = 60s\n"
                                               "connection_cache_size_limit = 3\nmisspelt = 1\n")
    machine.write("/etc/systemd/system/scached.service.d/test.conf",
                  "[Service]\nExecStart=\nExecStart=/usr/sbin/scached -v\n")
    postfix = Postfix(machine, connection_cache_status_update_time="1s")
    postfix.start()
    postfix.adapt_socket()
    machine.systemctl("start", "scached.socket", "scached-postfix.socket")
    with Sink(machine):
        postfix.wait_delivered(postfix.send(10))
        machine.journal_wait("max simultaneous", SYSLOG_IDENTIFIER="postfix/scache")
        postfix.set(connection_cache_service_name="scached")
        postfix.reload()
        postfix.wait_delivered(postfix.send(10))
        machine.journal_wait("max simultaneous", unit=SERVICE, SYSLOG_IDENTIFIER="postfix/scache")
        machine.python(MISTAKES)
        machine.systemctl("restart", SERVICE)
        machine.journal_wait("connections dead=", unit=SERVICE)
        config = machine.read("/etc/scached/scached.conf")
        machine.write("/etc/scached/scached.conf", "max_idle = soon\n")
        machine.systemctl("reload", SERVICE)
        machine.journal_wait("max_idle = soon", unit=SERVICE)
        machine.write("/etc/scached/scached.conf", config)
        machine.systemctl("reload", SERVICE)
        machine.journal_wait("Read the settings", unit=SERVICE)
        machine.systemctl("stop", "scached.socket", "scached-postfix.socket", "scached-control.socket", SERVICE)
        postfix.stop()


@pytest.fixture(scope="module")
def host() -> Iterator[Machine]:
    if not all(list((BUILD / "readers/usr").glob(f"*bin/{tool}")) for tool in TOOLS):
        pytest.skip("needs logwatch and pflogsumm: sh packaging/deps check")
    machine = start(Machine())
    try:
        machine.run(["cp", "-r", BUILD_INSIDE / "readers/usr", BUILD_INSIDE / "readers/etc", "/"])
        live(machine)
        yield machine
    finally:
        machine.stop()


@pytest.fixture(scope="module")
def log(host) -> str:
    """As syslog writes it."""
    host.run(["journalctl", "--sync"])
    return host.run("journalctl --quiet --no-pager --output=short --facility=mail").stdout


def ours(host: Machine) -> list[Entry]:
    return [entry for entry in host.journal(unit=SERVICE) if entry["SYSLOG_IDENTIFIER"] != "systemd"]


def shape(message: str) -> str:
    """A message without its numbers and dates."""
    return re.sub(r"\d+", "N", re.sub(r"[A-Z][a-z]{2} [ \d]\d [\d:]{8}", "DATE", message))


def test_under_postfix_only_what_its_own_cache_writes(host):
    """Which is what the usual grok patterns for Postfix know: other lines of postfix/scache they mark as failures."""
    shapes = {who: {shape(entry["MESSAGE"]) for entry in entries}
              for who, entries in (("scache", [entry for entry in host.journal(SYSLOG_IDENTIFIER="postfix/scache")
                                               if entry["_SYSTEMD_UNIT"] != SERVICE]),
                                   ("scached", [entry for entry in ours(host)
                                                if entry["SYSLOG_IDENTIFIER"] == "postfix/scache"]))}
    assert len(shapes["scache"]) == 4, shapes
    assert shapes["scached"] == shapes["scache"]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in ours(host)} == {"postfix/scache", "scached"}


def test_the_log_is_a_good_sample(host):
    """Many kinds of lines, errors and warnings among them."""
    kinds = {(entry["MESSAGE_ID"], entry["PRIORITY"]) for entry in ours(host)}
    assert len(kinds) >= 12, kinds
    assert {priority for _, priority in kinds} >= {"3", "4", "5", "6", "7"}


def without(log: str, name: str) -> str:
    return "".join(line for line in log.splitlines(keepends=True) if f" {name}[" not in line)


def logwatch(host: Machine, log: str) -> str:
    host.write(LOG, log)
    return host.run("logwatch --service postfix --range all --detail high --output stdout --format text "
                    "| sed '/Processing Initiated/d'").stdout


def test_logwatch_knows_every_line(host, log):
    assert log.count(" scached[") > 20 and log.count(" postfix/scache[") > 8
    report = logwatch(host, log)
    assert re.search(r"(?m)^ +20 +Sent via SMTP", report), report
    assert "Unmatched" not in report
    assert logwatch(host, without(log, "scached")) == report
    # Of what went under the wrong name, it would have said so.
    assert "Unmatched" in logwatch(host, log.replace(" scached[", " postfix/scache["))


def test_pflogsumm_passes_over_all_of_them(host, log):
    reports = []
    for text in (log, without(without(log, "scached"), "postfix/scache")):
        host.write(LOG, text)
        said = host.run(["pflogsumm", LOG])
        assert said.stderr == ""
        reports.append(said.stdout)
    assert re.search(r"(?m)^ +20 +delivered$", reports[0]), reports[0]
    assert reports[0] == reports[1]
