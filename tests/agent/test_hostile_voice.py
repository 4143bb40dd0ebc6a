# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon says nothing that somebody could take for its word, and waits for nobody who does not listen."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import Iterator

import pytest

from bulk import Control
from connection import wait_until
from hostile import FLOOD_RATIO, Program, check, compare, start_here
from protocol import FAIL, OK

DIALECTS = ("postfix", "native")

NO_STREAMS = {
    "datagram": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "netlink": (socket.AF_NETLINK, socket.SOCK_RAW),
}


@pytest.mark.parametrize("kind", NO_STREAMS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_no_stream_is_no_connection(daemon, dialect, kind):
    agent = daemon.agent(dialect)
    agent.in_step()
    before = daemon.count_fds()
    with socket.socket(*NO_STREAMS[kind]) as end:
        assert agent.save_endp(60, "endpoint", "", end.fileno()) == FAIL
        assert agent.save_endp_inline(60, "endpoint", "", end.fileno()) == FAIL
    daemon.wait_line("stream")
    assert agent.find_endp("endpoint").status == FAIL
    daemon.wait_open_fds(before)


def listener_at(address: str | bytes) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    return listener


# How a socket came by its peer, and whether that may be told goodbye over it by the dialects of Postfix, whose tlsproxy(8) has a
# relative path.
PEERS = {"absolute": False, "abstract": False, "relative": True, "unnamed": True, "tcp": True}


@contextlib.contextmanager
def connected(kind: str, folder: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket to park and its peer."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        if kind == "unnamed":
            end, peer = socket.socketpair()
        elif kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                end, peer = socket.create_connection(listener.getsockname()), listener.accept()[0]
        else:
            address = {"absolute": str(folder / "listener"), "abstract": b"\0scached test %d" % os.getpid(),
                       "relative": "listener"}[kind]
            with listener_at(address) as listener:
                end = socket.socket(socket.AF_UNIX)
                end.connect(address)
                peer, _ = listener.accept()
    finally:
        os.chdir(before)
    peer.settimeout(10)
    with end, peer:
        yield end, peer


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_who_is_told_goodbye(make_manager, tmp_path, dialect, kind):
    """Nobody who asks the kernel who speaks, and knows whom, hears the daemon."""
    daemon = make_manager(sockets=["native", "postfix", "control"]).start({"connection_cache_ttl_limit": "3600s"})
    agent = daemon.agent(dialect)
    with connected(kind, tmp_path) as (end, peer):
        if dialect == "native":
            assert agent.save_endp_inline(600, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
        else:
            assert agent.save_endp(600, "endpoint", "", end.fileno()) == OK
        end.close()
        Control(daemon).ask(("request", "flush"))
        assert peer.recv(100) == (b"QUIT\r\n" if PEERS[kind] else b"")
        # Who says nothing more hears no more.
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(100) == b""


@pytest.mark.plain_build
@pytest.mark.plain_start("systemd's own standstill is in tests/system")
def test_a_service_manager_that_does_not_read(manager):
    """STATUS= is due each second. The queue is full before that."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    news = daemon.agent()
    with Program(start_here, "bystander.py", daemon.path("native")) as alice, \
            Program(start_here, "attacks.py", "full-queue", "native.sock", f"--to={manager.folder}/notify") as queue:
        class Deaf:
            what = "a deaf service manager"

            def ask(self, command: str) -> dict:
                if command == "begin":
                    stack.enter_context(manager.deaf())
                    news.park("news for STATUS=")
                    return queue.ask("begin")
                stack.close()
                return queue.ask("end")

        with contextlib.ExitStack() as stack:
            comparison = compare(alice, Deaf(), FLOOD_RATIO, rounds=1, seconds=1.3)
        check(comparison, FLOOD_RATIO)
    # What could not be sent is sent later, and only the newest.
    news.park("news")
    daemon.wait_notified("STATUS", lambda text: f" {len(news.parked)} connection" in text, 5.0)


@pytest.mark.plain_build
@pytest.mark.plain_start("fills a queue of the test's own service manager")
def test_a_hand_over_to_a_manager_that_does_not_read(manager, connections):
    """Gives up in bounded time, and says goodbye."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    agent = daemon.agent()
    connection = connections()
    assert agent.save_endp(600, "endpoint", "", connection.fd) == OK
    connection.pass_on()
    agent.in_step()
    with manager.deaf(), Program(start_here, "attacks.py", "full-queue", "-", f"--to={manager.folder}/notify") as queue:
        queue.ask("begin")
        daemon.kill(15)
        ended = daemon.wait_exit(12.0)
    assert ended == 0
    assert connection.wait_let_go() == b"QUIT\r\n"
    daemon.wait_line("(?i)could not|lost|not kept")


@pytest.mark.plain_build
@pytest.mark.plain_start("gives the daemon a standard error of the test's own")
def test_a_standard_error_that_nobody_reads(manager):
    """Lines that cannot be written are counted and told when it reads again."""
    path = manager.folder / "stderr.0"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    said = b""
    try:
        daemon = manager.start({"connection_cache_ttl_limit": "3600s"}, ["-v"])
        agent = daemon.agent()

        room = select.poll()   # not select(2): a test may well have more than 1024 descriptors open
        room.register(reader, select.POLLOUT)
        while room.poll(0):
            agent.park("something that fills the pipe")
        with Program(start_here, "bystander.py", daemon.path("native")) as alice:
            waits = alice.ask("measure 1")
            assert waits["problems"] == {}, "nobody waits for a pipe"

        def told() -> bool:
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                while more := os.read(reader, 65536):
                    said += more
            agent.park("something to be said")
            return b"not written" in said

        wait_until(told, "lines that were not written are told of", 10.0)
        daemon.kill(9)
        daemon.wait_exit()
    finally:
        os.close(reader)
        path.unlink()
        path.write_bytes(said)
