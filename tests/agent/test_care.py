# SPDX-License-Identifier: LGPL-2.1-or-later
"""Parked connections are cared for: known to be alive, said goodbye to, and left alone by a reload."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

from connection import Connection, identity, wait_until
from control import Control
from daemon import die_with_parent
from launch import stretched
from lists import decode, encode
from protocol import FAIL, OK, Agent

TCP = "127.0.0.1"


def tcp_pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    pairs = []
    with socket.create_server((TCP, 0), backlog=1024) as listener:
        for _ in range(count):
            client = socket.create_connection(listener.getsockname())
            pairs.append((client, listener.accept()[0]))
    return pairs


def counters(daemon) -> dict[str, int]:
    with Agent(daemon.path("control"), "control", greet=False) as agent:
        agent.read_plain_list("the control greeting")
        agent.send_list([("request", "status")])
        answer = agent.read_plain_list("the counters")
    return {name.decode(): int(value) for name, value in answer if value.isdigit()}


@pytest.fixture
def with_control(make_manager):
    """A daemon that can be asked what it counts."""
    manager = make_manager(sockets=["postfix", "native", "control"])
    return manager.start({"connection_cache_ttl_limit": "1h"})


# Alive.

def test_exactly_those_that_died_are_gone(with_control):
    daemon = with_control
    agent = daemon.agent("native")
    agent.in_step()
    before = len(daemon.open_fds())
    pairs = tcp_pairs(1000)
    for i, (end, _) in enumerate(pairs):
        assert agent.save_endp_inline(600, "endpoint", str(i), end.fileno()) == OK
    wanted = [identity(end.fileno()) for end, _ in pairs]
    for end, _ in pairs:
        end.close()
    alive = [i for i in range(1000) if i % 10 in (0, 3, 5, 7)]
    for i, (_, peer) in enumerate(pairs):
        if i % 10 == 9:
            peer.sendall(b"421 too many\r\n")
        elif i not in alive:
            peer.close()
    began = time.monotonic()
    daemon.wait_open_fds(before + 400, 2.0)
    took = time.monotonic() - began
    print(f"600 connections left the cache within {took * 1000:.0f} ms")
    # Next to nothing, but on a busy machine. Whoever waits for a timer waits for a second.
    assert took < 0.5 * daemon.patience
    counted = counters(daemon)
    assert (counted["connections"], counted["connections_dead"]) == (400, 600)
    assert counted["farewells"] == 0
    for i in alive:
        with agent.find_endp_inline("endpoint") as found:
            assert tuple(found) == (OK, (str(i).encode(),), wanted[i])
            with socket.socket(fileno=os.dup(found.fd)) as end:
                end.sendall(b"to peer")
                assert pairs[i][1].recv(64) == b"to peer"
                pairs[i][1].sendall(b"from peer")
                assert end.recv(64) == b"from peer"
    assert agent.find_endp_inline("endpoint").status == FAIL
    for _, peer in pairs:
        peer.close()


def test_urgent_data_is_something_said(with_control):
    agent = with_control.agent("native")
    (end, peer), = tcp_pairs(1)
    assert agent.save_endp_inline(600, "endpoint", "", end.fileno()) == OK
    end.close()
    peer.send(b"!", socket.MSG_OOB)
    wait_until(lambda: counters(with_control)["connections_dead"] == 1, "it counts as dead")
    peer.close()


def test_urgent_data_for_an_answer(with_control):
    """It must not keep the daemon busy until the peer's time is over."""
    daemon = with_control
    agent = daemon.agent("native")
    agent.in_step()
    before = len(daemon.open_fds())
    (end, peer), = tcp_pairs(1)
    assert agent.save_endp_inline(1, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
    end.close()
    assert peer.recv(10) == b"QUIT\r\n"
    peer.send(b"!", socket.MSG_OOB)
    daemon.wait_open_fds(before, 2.0)
    peer.close()


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_price_of_care(daemon):
    """Two system calls in a connection's life, which are those that begin and end the watch."""
    agent = daemon.agent("native")
    agent.in_step()
    log = daemon.manager.folder / "strace"
    tracer = subprocess.Popen(["strace", "-qq", "-o", str(log), "-p", str(daemon.pid)],
                              stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
    try:
        def traced() -> bool:
            agent.in_step()
            return "recvmsg" in log.read_text() if log.exists() else False

        try:
            wait_until(traced, "strace shows system calls")
        except AssertionError:
            pytest.skip("strace cannot attach here")
        connection = Connection()
        for _ in range(50):
            assert agent.save_endp_inline(600, "endpoint", "", connection.fd) == OK
        for _ in range(50):
            agent.find_endp_inline("endpoint").close()
        agent.in_step()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    watches = re.findall(r"^epoll_ctl\(\d+, EPOLL_CTL_(ADD|DEL)", log.read_text(), re.M)
    assert watches.count("ADD") == 50 and watches.count("DEL") == 50, watches
    connection.close()


# Polite.

@pytest.fixture
def sink(tmp_path):
    """A real smtp-sink and what it counted: sink() -> {"sess": ..., "quit": ..., "mesg": ...}"""
    if not shutil.which("smtp-sink"):
        pytest.skip("needs smtp-sink(1), which Postfix brings")
    with socket.create_server((TCP, 0)) as free:
        port = free.getsockname()[1]
    with open(tmp_path / "sink", "w+") as output:
        process = subprocess.Popen(
            ["smtp-sink", *(["-u", "nobody"] if os.geteuid() == 0 else []), "-c", f"{TCP}:{port}",
             "1024"], stdout=output, stderr=output, preexec_fn=die_with_parent, cwd="/")

        def counted() -> dict[str, int]:
            last = (tmp_path / "sink").read_text().split("\r")[-2:]
            return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", " ".join(last))}

        counted.address = (TCP, port)

        def listens() -> bool:
            assert process.poll() is None, (tmp_path / "sink").read_text()
            with open("/proc/net/tcp") as table:
                return f":{port:04X} 00000000:0000 0A" in table.read()

        wait_until(listens, "smtp-sink listens")
        yield counted
        process.kill()
        process.wait()


def greeted(address) -> socket.socket:
    """A connection to an SMTP server, as an agent parks it: greeted, and nothing under way."""
    end = socket.create_connection(address, timeout=10)
    assert end.recv(1000).startswith(b"220 ")
    end.sendall(b"EHLO agent.example\r\n")
    reply = b""
    while not re.search(rb"^250 .*\n", reply, re.M):
        reply += end.recv(1000)
    return end


def test_a_server_sees_quit_each_time(with_control, sink):
    """1,000 connections to smtp-sink reach their end: as many sessions, as many QUITs."""
    daemon = with_control
    agent = daemon.agent()
    agent.in_step()
    before = len(daemon.open_fds())
    for i in range(1000):
        with greeted(sink.address) as end:
            assert agent.save_endp(2, f"endpoint {i % 7}", "", end.fileno()) == OK
    daemon.wait_open_fds(before, 10.0)
    wait_until(lambda: sink().get("sess") == 1000, "smtp-sink counts 1000 sessions", 10.0)
    wait_until(lambda: sink().get("quit") == 1000, f"all of them quit: {sink()}")
    counted = counters(daemon)
    assert (counted["connections_expired"], counted["farewells"]) == (1000, 1000)
    assert counted["connections_dead"] == 0


@pytest.mark.parametrize("reason", ["expired", "evicted", "stopped"])
def test_farewell_whatever_the_reason(manager, reason):
    options = {"connection_cache_ttl_limit": "2s" if reason == "expired" else "1h"}
    if reason == "evicted":
        options["connection_cache_size_limit"] = 5
    daemon = manager.start(options, env={"NOTIFY_SOCKET": ""} if reason == "stopped" else None,
                           wait=reason != "stopped")
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(10)]
    if reason == "stopped":
        daemon.stop()
    expected = connections[:5] if reason == "evicted" else connections
    for connection in expected:
        assert connection.wait_let_go(10.0) == b"QUIT\r\n"


def test_who_has_hung_up_gets_none(start):
    """Half closed is hung up, too."""
    daemon = start()
    agent = daemon.agent()
    connection = agent.park("endpoint")
    connection.peer.shutdown(socket.SHUT_WR)
    assert connection.wait_let_go() == b""


def test_who_hangs_up_at_the_end_gets_none(daemon):
    """Nor does it when so many have hung up that not all are known to be dead."""
    agent = daemon.agent()
    ttl, took = 1, 1.0
    while took >= ttl:  # none may have come to its end so far
        ttl *= 3
        began = time.monotonic()
        connections = [agent.park("endpoint", ttl=ttl) for _ in range(300)]
        daemon.suspend()
        took = time.monotonic() - began
        if took >= ttl:
            daemon.resume()
    for connection in connections:
        connection.peer.shutdown(socket.SHUT_WR)
    time.sleep(ttl + 0.2)   # past their end, with nobody awake to see either
    daemon.resume()
    assert {connection.wait_let_go() for connection in connections} == {b""}


@pytest.mark.parametrize("setting, farewell", [("", b""), (r"LOGOUT\r\n", b"LOGOUT\r\n"),
                                               (r"a\x20b\101", b"a bA")])
def test_another_farewell(start, setting, farewell):
    daemon = start(connection_cache_farewell=setting)
    assert daemon.agent().park("endpoint", ttl=1).wait_let_go(10.0) == farewell


def test_peers_that_never_answer(with_control):
    """Their descriptors come back, and nobody waits for them meanwhile."""
    daemon = with_control
    agent = daemon.agent("native")
    agent.in_step()
    before = len(daemon.open_fds())

    def slowest(seconds: float) -> float:
        worst, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            agent.in_step()
            worst = max(worst, time.monotonic() - began)
        return worst

    pairs = tcp_pairs(1000)
    for end, _ in pairs:
        assert agent.save_endp_inline(2, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
        end.close()
    calm = slowest(1.0)
    busy = slowest(3.0)
    counted = counters(daemon)
    assert counted["connections"] == 0 and counted["connections_leaving"] > 0
    daemon.wait_open_fds(before, 10.0)
    print(f"slowest request: {calm * 1e3:.1f} ms before, {busy * 1e3:.1f} ms while they leave")
    # Other work on the machine shows, too; to wait for a peer would take seconds.
    assert busy < max(3 * calm, 1.0 * daemon.patience)
    for _, peer in pairs:
        assert peer.recv(100) == b"QUIT\r\n"
        peer.close()


def test_a_peer_with_no_room(with_control):
    """One that does not read cannot take a farewell: it is closed without, and nobody waits."""
    daemon = with_control
    agent = daemon.agent("native")
    agent.in_step()
    before = len(daemon.open_fds())
    end, peer = socket.socketpair()
    end.setblocking(False)
    try:
        while True:
            end.send(b"x" * 4096)
    except BlockingIOError:
        pass
    assert agent.save_endp_inline(1, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
    end.close()
    daemon.wait_open_fds(before, 5.0)
    assert counters(daemon)["farewells"] == 0
    peer.close()


def test_a_peer_that_answers_without_end(with_control):
    """What it says is thrown away, and for a few seconds only."""
    daemon = with_control
    agent = daemon.agent("native")
    agent.in_step()
    before = len(daemon.open_fds())
    end, peer = socket.socketpair()
    assert agent.save_endp_inline(1, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
    end.close()
    peer.settimeout(10)
    assert peer.recv(100) == b"QUIT\r\n"
    began = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while time.monotonic() - began < 7 * daemon.patience:
            peer.sendall(b"221 " + 4096 * b"x")
    assert time.monotonic() - began > 4
    daemon.wait_open_fds(before)
    agent.in_step()
    peer.close()


# Reload.

def reload(daemon) -> None:
    before = len(daemon.notified("READY"))
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: len(daemon.notified("READY")) > before, "READY=1 after a reload")


def test_reload_changes_the_next_save(manager):
    """And neither agents nor what is parked."""
    manager.write_config("scached.conf", "connection_cache_ttl_limit = 1h\n")
    daemon = manager.start()
    agent = daemon.agent()
    halfway = daemon.agent().begin("find_endp", "halfway")
    old = agent.park("endpoint")
    in_the_middle = agent.park("halfway", "property")
    halfway.until("answered")
    manager.write_config("scached.conf", "connection_cache_ttl_limit = 1s\n")
    clock = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reload(daemon)
    assert daemon.notified("RELOADING") == ["1"]
    (told,) = daemon.notified("MONOTONIC_USEC")
    assert clock <= int(told) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with halfway.finish() as found:
        assert tuple(found) == (OK, (b"property",), in_the_middle.identity)
    began = time.monotonic()
    new = agent.park("endpoint")
    assert new.wait_let_go(10.0) == b"QUIT\r\n"
    assert 0.9 < time.monotonic() - began < 2.0 * daemon.patience
    with agent.find_endp("endpoint") as found:
        assert found.identity == old.identity


def test_order_of_what_is_told(daemon, manager):
    """RELOADING=1 and its time in one message, READY=1 after it."""
    reload(daemon)
    told = [sent.fields for sent in manager.notified(daemon.pid)
            if "RELOADING" in sent.fields or "READY" in sent.fields]
    assert [sorted(fields) for fields in told] == [
        ["READY"], ["MONOTONIC_USEC", "RELOADING"], ["READY"]]


@pytest.mark.parametrize("text", ["connection_cache_ttl_limit = soon\n", "no equals sign\n"])
def test_reload_with_a_bad_file_changes_nothing(manager, text):
    manager.write_config("scached.conf", "connection_cache_ttl_limit = 1h\n")
    daemon = manager.start()
    agent = daemon.agent()
    manager.write_config("scached.conf", "max_idle = 1s\n" + text)
    reload(daemon)
    daemon.wait_line(rf"{re.escape(str(manager.config))}/scached.conf:2\b")
    daemon.wait_line("keeping the old ones")
    assert "Read the settings again" not in daemon.output()
    connection = agent.park("endpoint", ttl=1800)
    agent.close()
    news = select.poll()
    news.register(connection.peer, select.POLLIN)
    assert not news.poll(2500), "it was let go: the new limits hold"
    assert daemon.poll() is None
    manager.write_config("scached.conf", "connection_cache_ttl_limit = 2h\n")
    reload(daemon)
    daemon.wait_line("Read the settings again")


@pytest.mark.parametrize("before", ["1h", "0"])
def test_reload_with_a_shorter_max_idle(manager, before):
    """The time that it has been idle counts."""
    manager.write_config("scached.conf", f"max_idle = {before}\n")
    daemon = manager.start()
    daemon.agent().close()
    manager.write_config("scached.conf", "max_idle = 1s\n")
    reload(daemon)
    daemon.wait_line("Exiting: idle")
    daemon.wait_exit(10.0)


def test_reload_with_a_longer_max_idle(manager):
    before = stretched(1)
    manager.write_config("scached.conf", f"max_idle = {before}s\n")
    daemon = manager.start()
    daemon.agent().close()
    manager.write_config("scached.conf", "max_idle = 1h\n")
    reload(daemon)
    time.sleep(before + 0.5)
    assert daemon.poll() is None


def test_reload_with_a_shorter_ipc_timeout(manager):
    """The time that an agent has been stuck counts; and after the first one, the next one is due."""
    manager.write_config("scached.conf", "ipc_timeout = 1h\n")
    daemon = manager.start()
    agents = [daemon.agent() for _ in range(3)]
    for agent in agents[:2]:
        agent.begin("find_endp", "endpoint").until("half a request")
    manager.write_config("scached.conf", "ipc_timeout = 1s\n")
    reload(daemon)
    for agent in agents[:2]:
        agent.read_end()
    agents[2].in_step()


def test_reload_with_a_shorter_time_between_statistics(manager):
    """However often it is reloaded: what counts is when the statistics were written last."""
    manager.write_config("scached.conf", "connection_cache_status_update_time = 1h\n")
    daemon = manager.start()
    daemon.agent().park("endpoint")
    manager.write_config("scached.conf", "connection_cache_status_update_time = 2s\n")
    began = time.monotonic()
    while "statistics: max simultaneous" not in daemon.output():
        reload(daemon)
        time.sleep(0.2)
        assert time.monotonic() - began < 10.0 * daemon.patience


def test_reload_with_a_lower_limit(manager):
    """Those that are too many are said goodbye to."""
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(10)]
    manager.write_config("scached.conf", "connection_cache_size_limit = 4\n")
    reload(daemon)
    for connection in connections[:6]:
        assert connection.wait_let_go() == b"QUIT\r\n"
    with agent.find_endp("endpoint") as found:
        assert found.identity == connections[6].identity


def test_reload_that_lets_thousands_go(make_manager):
    """A few at a time: agents are served meanwhile. Seen in the order of what was done: one of them asks how many have gone."""
    manager = make_manager(sockets=["native", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    agent, control = daemon.agent("native"), Control(daemon.path("control"))
    pairs = [socket.socketpair() for _ in range(4000)]
    for end, _ in pairs:
        assert agent.save_endp_inline(600, "endpoint", "", end.fileno(), farewell="QUIT\r\n") == OK
        end.close()
    manager.write_config("scached.conf", "connection_cache_size_limit = 1\n")
    asked = 20
    daemon.suspend()
    os.kill(daemon.pid, signal.SIGHUP)
    control.socket.sendall(encode([("request", "status")]) * asked)
    daemon.resume()
    answers, gone = bytearray(), []
    while len(gone) < asked:
        answers += control.socket.recv(65536)
        while answer := decode(answers):
            gone.append(int(dict(answer)[b"connections_evicted"]))
    assert sum(0 < n < len(pairs) - 1 for n in gone) >= asked // 4, f"too many at once; these had gone: {gone}"
    for _, peer in pairs[:-1]:
        assert peer.recv(100) == b"QUIT\r\n"
    with agent.find_endp_inline("endpoint") as found:
        assert found.status == OK
    for _, peer in pairs:
        peer.close()
    control.close()


def test_reload_with_shorter_requests(manager):
    """What came in a longer one is found all the same, also after a restart."""
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    agent = daemon.agent()
    prop = "p" * 20000
    connections = [agent.park("endpoint", prop) for _ in range(2)]
    manager.write_config("scached.conf", "request_size_limit = 4096\n")
    reload(daemon)
    for found in (daemon.agent().find_endp("endpoint"),):
        assert tuple(found) == (OK, (prop.encode(),), connections[0].identity)
        found.close()
    daemon.stop()
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    with daemon.agent().find_endp("endpoint") as found:
        assert tuple(found) == (OK, (prop.encode(),), connections[1].identity)


def test_reloads_leak_nothing(daemon):
    agent = daemon.agent()
    agent.park("endpoint")
    before = daemon.open_fds()
    for _ in range(20):
        reload(daemon)
    assert daemon.open_fds() == before
    agent.in_step()


# Leaving on idle.

def test_not_while_a_binding_is_there(start):
    daemon = start(max_idle="1s")
    began = time.monotonic()
    with daemon.agent() as agent:
        agent.bind("destination", "endpoint", ttl=3)
    assert daemon.wait_exit(10.0) == 0
    assert time.monotonic() - began > 2.9


def test_not_while_a_farewell_waits_for_its_answer(start):
    daemon = start(max_idle="1s")
    began = time.monotonic()
    with daemon.agent() as agent:
        connection = agent.park("endpoint", ttl=1)
        assert connection.wait_let_go() == b"QUIT\r\n"
    assert daemon.wait_exit(15.0) == 0
    assert time.monotonic() - began > 1 + 4, "it left before its peer had had the time to answer"
