# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits: at each of them the entry nearest to its end goes, the newcomer is served, and nobody else
notices."""

from __future__ import annotations

import itertools
import os
import resource
import select
import signal
import socket
import time
from collections import deque

import pytest

import lists
from bulk import LONG, Control, receive_exactly, save_many
from connection import Connection, wait_until
from launch import binary
from lists import encode
from protocol import FAIL, OK

MIB = 1 << 20
SANITIZED = b"__asan_init" in binary().read_bytes()


def assert_cpu_idle(daemon, seconds: float = 0.5) -> None:
    """It uses next to no CPU time for this long."""
    before = daemon.cpu_seconds()
    time.sleep(seconds)
    used = daemon.cpu_seconds() - before
    assert used <= 0.1 * seconds + 0.02, f"busy with nothing: {used:g} s of CPU in {seconds:g} s"


def hung_up(agent, timeout: float) -> bool:
    poll = select.poll()
    poll.register(agent.socket, select.POLLRDHUP)
    return bool(poll.poll(timeout * 1000))


# Descriptors.

@pytest.mark.parametrize("ttl", [3600, 3], ids=["found", "expired"])
def test_ten_thousand_connections_and_256_descriptors(manager, ttl):
    """50 agents save 10,000 connections where there is room for some 150."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"},
                           rlimits={resource.RLIMIT_NOFILE: 256})
    before = daemon.count_fds()
    agents = [daemon.agent(("postfix", "native")[i % 2]) for i in range(50)]
    newest: deque[tuple[str, Connection]] = deque()
    started = time.monotonic()
    for i in range(10000):
        agent, connection = agents[i % 50], Connection(5.0 * daemon.patience)
        save = agent.save_endp_inline if i % 4 == 1 else agent.save_endp
        assert save(ttl, f"endpoint {i}", "property", connection.fd) == OK, f"connection {i}"
        connection.pass_on()
        newest.append((f"endpoint {i}", connection))
        if len(newest) > 200:
            newest.popleft()[1].close()
    if ttl == 3600:
        for label, connection in itertools.islice(reversed(newest), 64):
            with agents[0].find_endp(label) as found:
                assert found.identity == connection.identity, f"{label} is not found"
    for _ in range(20):
        with daemon.agent() as newcomer:
            newcomer.in_step()
    assert daemon.count_fds() < 256
    assert_cpu_idle(daemon)

    for label, connection in newest:
        if ttl == 3600:
            agents[0].find_endp(label).close()
        else:
            connection.wait_let_go(20.0 * daemon.patience)
        connection.close()
    for agent in agents:
        agent.close()
    daemon.wait_open_fds(before, 10.0)
    assert_cpu_idle(daemon)
    print(f"{time.monotonic() - started:.1f} s")


def test_no_descriptor_to_accept_with(start):
    """Listening is paused, not tried again and again; and then goes on."""
    daemon = start()
    daemon.limit_descriptors(daemon.count_fds())
    waiting = daemon.agent(greet=False)
    daemon.wait_line("Could not accept")
    assert_cpu_idle(daemon)
    daemon.limit_descriptors()
    waiting.read_greeting()
    waiting.in_step()


@pytest.mark.parametrize("dialect", ["postfix", "native"])
def test_an_agent_is_worth_more_than_a_connection(start, dialect):
    """Where descriptors run out, each agent that connects costs one parked connection, whether that
    has a farewell or not."""
    daemon = start()
    agent = daemon.agent(dialect)
    parked = [agent.park(f"endpoint {i}", ttl=1000 + i) for i in range(10)]
    daemon.limit_descriptors(daemon.count_fds())
    for i in range(4):
        newcomer = daemon.agent()
        newcomer.in_step()
        assert parked[i].wait_let_go() == (b"QUIT\r\n" if dialect == "postfix" else b"")
    daemon.limit_descriptors()
    for i in range(4, 10):
        with agent.find_endp(f"endpoint {i}") as found:
            assert found.identity == parked[i].identity, f"endpoint {i} went for nothing"
    assert not [line for line in daemon.lines() if "limit reached" in line.text], "it was no limit of the cache's"


def test_no_descriptor_to_save_with(start, connections):
    """That request gets status 2 and the agent keeps its connection; all else goes on, and the next
    one finds room where a parked connection can make it."""
    daemon = start()
    agent = daemon.agent()
    agent.in_step()
    daemon.limit_descriptors(daemon.count_fds())
    connection = connections()
    for _ in range(3):
        assert agent.save_endp(60, "other", "", connection.fd) == FAIL
        agent.in_step()
    daemon.limit_descriptors()
    late, soon = agent.park("late", ttl=2000), agent.park("soon", ttl=1000)
    full = daemon.count_fds()
    daemon.limit_descriptors(full)
    assert agent.save_endp(60, "other", "", connection.fd) == FAIL
    assert soon.wait_let_go() == b"QUIT\r\n"
    daemon.wait_open_fds(full - 1)
    assert agent.save_endp(60, "other", "", connection.fd) == OK
    with agent.find_endp("late") as found:
        assert found.identity == late.identity
    daemon.limit_descriptors()


# Settings.

def test_agent_limit(start):
    """Who has said nothing for longest makes room."""
    daemon = start(agent_limit=5)
    agents = [daemon.agent() for _ in range(5)]
    for agent in agents[1:] + agents[:1]:
        agent.in_step()
    before = daemon.count_fds()
    newcomer = daemon.agent()
    newcomer.in_step()
    agents[1].read_end("the one silent for longest to be hung up on")
    for agent in agents[:1] + agents[2:]:
        agent.in_step()
    for _ in range(100):
        daemon.agent().in_step()
    daemon.wait_open_fds(before)


def test_request_size_limit(start):
    """A list without end is cut off; one of that size is not."""
    daemon = start(request_size_limit=4096)
    other = daemon.agent()
    shell = len(encode(lists.save_dest(60, "d", "", "e")))
    agent = daemon.agent()
    assert agent.save_dest(60, "d", "x" * (4096 - shell), "e") == OK
    agent.in_step()
    try:
        agent.send(b"x" * 1000000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert hung_up(agent, agent.timeout), "it may go on for ever"
    other.in_step()
    with daemon.agent() as newcomer:
        newcomer.in_step()


def test_connection_cache_size_limit(start, dialect):
    """The connection nearest to its end goes, whoever saved it and whichever endpoint it is of."""
    daemon = start(connection_cache_size_limit=3)
    agent, other = daemon.agent(dialect), daemon.agent(dialect)
    parked = {ttl: agent.park(f"endpoint {ttl}", ttl=ttl) for ttl in (300, 100, 200)}
    newcomer = other.park("newcomer", ttl=50)
    assert parked[100].wait_let_go() == b"QUIT\r\n"
    other.park("endpoint 300", ttl=400)
    assert newcomer.wait_let_go() == b"QUIT\r\n"
    for ttl in (200, 300):
        with agent.find_endp(f"endpoint {ttl}") as found:
            assert found.identity == parked[ttl].identity


def test_lent_connections_count(start, connections):
    """Those that agents have been promised do not let the cache grow beyond its limit."""
    daemon = start(connection_cache_size_limit=4)
    agent = daemon.agent()
    for i in range(4):
        agent.park(f"endpoint {i}")
        daemon.agent().begin("find_endp", f"endpoint {i}").until("answered")
    parked = [agent.park("late") for _ in range(3)]
    for connection in parked[:2]:
        assert connection.wait_let_go() == b"QUIT\r\n"
    with agent.find_endp("late") as found:
        assert found.identity == parked[2].identity


def test_memory_limit_with_everything_in_it(start):
    """Connections and bindings alike: what is nearest to its end goes, the newcomer is served."""
    daemon = start(connection_cache_memory_limit="1M", request_size_limit="128K")
    agent = daemon.agent()
    soon = agent.park("soon", "x" * 30000, ttl=100)
    agent.bind("sooner", "far", "x" * 30000, ttl=50)
    far = agent.park("far", "x" * 30000, ttl=3600)
    agent.bind("later", "far", "y" * 30000, ttl=3600)
    for i in range(200):
        if i % 2:
            connection = agent.park(f"endpoint {i}", "x" * 40000, ttl=1000)
            with agent.find_endp(f"endpoint {i}") as found:
                assert found.identity == connection.identity, "the newcomer was not served"
            agent.park(f"endpoint {i}", "x" * 40000, ttl=1000)
        else:
            agent.bind(f"destination {i}", "far", "x" * 40000, ttl=1000)
    assert soon.wait_let_go() == b"QUIT\r\n"
    assert agent.find_dest("sooner").status == FAIL
    with agent.find_dest("later") as found:
        assert found.identity == far.identity
        assert found.properties == (b"y" * 30000, b"x" * 30000)


def test_a_million_bindings(start):
    """Of 60 KB each: 60 GB in all. The short form is still many times the limit."""
    count = 1000000 if LONG else 15000
    limit = 64 * MIB
    daemon = start(connection_cache_memory_limit="64M")
    agent = daemon.agent()
    prop = b"x" * 60000
    head, rest = encode(lists.save_dest(3600, "DEST", "PROP", "ENDP")).split(b"DEST")
    middle, rest = rest.split(b"PROP")
    last, end = rest.split(b"ENDP")

    def requests():
        for i in range(count):
            name = b"%d" % i
            yield [head, name, middle, prop, last, b"e" + name, end]

    most, started = 0, time.monotonic()
    for done in save_many(agent, requests(), at_once=16):
        if done % 1024 == 0:
            most = max(most, daemon.resident_bytes())
    most = max(most, daemon.resident_bytes())
    print(f"{count} bindings in {time.monotonic() - started:.1f} s, at most {most / MIB:.1f} MiB "
          f"resident, {daemon.cpu_seconds():.1f} s of CPU time")
    if not SANITIZED:
        assert most < limit + 16 * MIB, f"{most / MIB:.1f} MiB for a limit of {limit / MIB:g}"
    agent.park(f"e{count - 1}")
    with agent.find_dest(f"{count - 1}") as found:
        assert found.status == OK and found.properties[0] == prop


# Greedy agents.

def test_an_agent_that_reads_nothing(daemon):
    """It is not read from either, until it reads. What it asked for costs one answer of memory."""
    agent, greedy = daemon.agent(), daemon.agent()
    agent.park("large", "x" * 100000)
    request = encode(lists.find_endp("large"))
    before = daemon.resident_bytes()
    sent = 0
    writable = select.poll()
    writable.register(greedy.socket, select.POLLOUT)
    while writable.poll(300 * daemon.patience):
        try:
            sent += greedy.socket.send(request * 100, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            continue
        assert sent < 64 * MIB, "it is read from without end"
    if not SANITIZED:
        assert daemon.resident_bytes() - before < 2 * MIB
    agent.in_step()
    assert_cpu_idle(daemon)
    # Each find takes back what the one before it had found, so that all of them hit.
    for i in range(sent // len(request)):
        status, properties = greedy.read_answer(1, f"answer {i}")
        assert status == OK and len(properties[0]) == 100000
        if i >= 300:
            break
    greedy.close()
    with wait_until(lambda: agent.find_endp("large"), "an answer") as found:
        assert found.status in (OK, FAIL)
    agent.in_step()


def test_one_unit_each(make_manager):
    """An agent that has sent thousands of requests in one go waits behind everybody else after each
    of them. Seen in the order of what was done: the other agent asks how many are."""
    manager = make_manager(sockets=["postfix", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    control, greedy = Control(daemon), daemon.agent()
    count, asked = 2000, 40
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        greedy.send(b"".join(encode(lists.save_dest(3600, f"d{i}", "", "e")) for i in range(count)))
        control.agent.send(encode([("request", "status")]) * asked)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    done = [int(dict(control.answer())[b"bindings"]) for _ in range(asked)]
    receive_exactly(greedy, count * 10, "answers")
    assert done[0] <= 2, f"{done[0]} requests came before the first of another agent"
    steps = [b - a for a, b in zip(done, done[1:])]
    assert max(steps) <= 2, f"after each answer: {done}"
    assert sum(steps) >= asked // 2, f"the one that asks has more turns: {done}"


# 17 blocks of two bytes, which are alike under h = 31 h + c and h = 33 h + c.
COLLIDING = {31: (b"Aa", b"BB"), 33: (b"Ab", b"BA")}


def flood(start_fresh, labels: list[bytes]) -> float:
    """CPU seconds of a fresh daemon for saving a binding of each label and looking for it."""
    daemon = start_fresh()
    agent = daemon.agent()
    before = daemon.cpu_seconds()
    save = [encode(lists.save_dest(3600, label, "", label)) for label in labels]
    for _ in save_many(agent, ([request] for request in save)):
        pass
    used = daemon.cpu_seconds() - before
    daemon.stop()
    return used


@pytest.mark.parametrize("factor", [31, 33])
def test_hash_flooding(make_manager, factor):
    """Labels that collide under the usual hashes cost what others do."""
    def start_fresh():
        return make_manager(sockets=["postfix"]).start(
            {"connection_cache_ttl_limit": "3600s", "connection_cache_memory_limit": "256M"})

    count = 20000 if SANITIZED else 100000
    blocks = COLLIDING[factor]
    colliding = [b"".join(blocks[i >> bit & 1] for bit in range(17)) for i in range(count)]

    def unkeyed(label: bytes) -> int:
        h = 5381
        for byte in label:
            h = (factor * h + byte) & 0xffffffff
        return h

    assert len(set(colliding)) == count and len({unkeyed(label) for label in colliding[:500]}) == 1
    ordinary = [os.urandom(17).hex().encode() for _ in range(count)]
    used = [(flood(start_fresh, colliding), flood(start_fresh, ordinary)) for _ in range(2)]
    print(f"CPU seconds, colliding and random: {used}")
    # The clock ticks a hundred times a second. In one chain, it would be minutes.
    assert min(a / max(b, 0.05) for a, b in used) < 1.5
