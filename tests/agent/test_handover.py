# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is parked goes from one process of the daemon to the next, through the service manager."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from typing import Iterator

import pytest

from books import Books
from connection import Connection, identity, wait_until
from launch import SOCKETS, Stored, patience, stretched
from protocol import FAIL, OK, Agent, ProtocolError

ALICE, BOB = 60001, 60002

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
AT_VERSION = 8

changes_the_store = pytest.mark.plain_start("changes what the service manager has stored")


def tcp_pairs(count: int) -> list[tuple[socket.socket, socket.socket]]:
    pairs = []
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        for _ in range(count):
            client = socket.create_connection(listener.getsockname())
            pairs.append((client, listener.accept()[0]))
    return pairs


def is_silent(connection: Connection) -> bool:
    """Nothing was said or closed on it so far."""
    news = select.poll()
    news.register(connection.peer, select.POLLIN)
    return not news.poll(0)


def restart(daemon, manager, **options):
    daemon.stop()
    return manager.start({"connection_cache_ttl_limit": "3600s", **options})


def nothing_stored(manager) -> bool:
    return manager.count_stored() == 0


# What is kept.

@pytest.mark.usefixtures("root")
def test_users_properties_and_order(manager, start, dialect):
    daemon = start()
    parked = {}
    for uid in (ALICE, BOB):
        agent = daemon.agent(dialect, uid=uid)
        parked[uid] = [agent.park("endpoint", f"{uid} {i}") for i in range(5)]
        agent.bind("destination", "nowhere", "first")
        agent.bind("destination", "endpoint", f"of {uid}")
        agent.bind("destination", "endpoint", "last")
    daemon.stop()
    told = [next(iter(sent.fields)) for sent in manager.notified(daemon.pid)]
    assert told[-3:] == ["FDSTORE", "FDSTORE", "BARRIER"], "what is unread when it ends is lost"
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    assert nothing_stored(manager), "the service manager kept copies"
    daemon.wait_line("Restored 10 connections and 6 bindings, lost 0.")
    for uid in (BOB, ALICE):
        agent = daemon.agent(dialect, uid=uid)
        agent.park("endpoint", "newer")
        for i, connection in enumerate(parked[uid]):
            with agent.find_dest("destination") as found:
                assert tuple(found) == (OK, (f"of {uid}".encode(), f"{uid} {i}".encode()),
                                        connection.identity)
                assert connection.works(found.fd)
        with agent.find_dest("destination") as found:
            assert found.properties[1] == b"newer"
        assert agent.find_dest("destination").status == FAIL


def test_deadlines(manager, start, dialect):
    """Not a second more or less, over several restarts."""
    daemon = start()
    agent = daemon.agent(dialect)
    ttl = stretched(3)
    began = time.monotonic()
    short, long = agent.park("endpoint", ttl=ttl), agent.park("endpoint", ttl=600)
    agent.bind("destination", "endpoint", "short", ttl=ttl)
    agent.bind("destination", "endpoint", "long", ttl=600)
    for _ in range(3):
        daemon = restart(daemon, manager)
    agent = daemon.agent(dialect)
    with agent.find_dest("destination") as found:
        assert found.properties[0] == b"short" and found.identity == short.identity
        assert agent.save_endp(1, "kept", "", found.fd) == OK
    again = agent.park("endpoint", ttl=ttl)
    another = agent.park("other", ttl=ttl)
    daemon = restart(daemon, manager)
    began_again = time.monotonic()
    another.wait_let_go(10.0 * daemon.patience)
    assert time.monotonic() - began_again < ttl + 0.5 * daemon.patience and time.monotonic() - began >= ttl
    agent = daemon.agent(dialect)
    with agent.find_dest("destination") as found:
        assert found.properties[0] == b"long" and found.identity == long.identity
    again.close()


def test_ended_while_away(manager, start, dialect):
    """It gets its farewell, only later, and is not found."""
    daemon = start()
    agent = daemon.agent(dialect)
    ttl = stretched(1)
    connection = agent.park("endpoint", ttl=ttl)
    agent.bind("destination", "endpoint", ttl=ttl)
    daemon.stop()
    time.sleep(ttl + 0.2)
    assert is_silent(connection)
    daemon = manager.start()
    assert daemon.agent(dialect).find_dest("destination").status == FAIL
    assert connection.wait_let_go() == b"QUIT\r\n"


def test_hung_up_while_away(manager, start, dialect):
    daemon = start()
    agent = daemon.agent(dialect)
    gone, spoke, alive = (agent.park("endpoint") for _ in range(3))
    daemon.stop()
    gone.peer.close()
    spoke.peer.sendall(b"421 going down\r\n")
    daemon = manager.start()
    agent = daemon.agent(dialect)
    with agent.find_endp("endpoint") as found:
        assert found.identity == alive.identity
    assert agent.find_endp("endpoint").status == FAIL


def test_farewells_and_saved_without_one(manager, start):
    daemon = start()
    agent = daemon.agent("native")
    made = [Connection() for _ in range(2)]
    assert agent.save_endp_inline(1, "with", "", made[0].fd, farewell="LOGOUT\r\n") == OK
    assert agent.save_endp_inline(1, "without", "", made[1].fd) == OK
    for connection in made:
        connection.pass_on()
    restart(daemon, manager)
    assert made[0].wait_let_go() == b"LOGOUT\r\n"
    assert made[1].wait_let_go() == b""
    for connection in made:
        connection.close()


def counters(daemon) -> dict[bytes, bytes]:
    agent = Agent(daemon.path("control"), "control", greet=False)
    daemon.agents.append(agent)
    agent.read_plain_list("the control greeting")
    agent.send_list([("request", "status")])
    return dict(agent.read_plain_list("the counters"))


def test_statistics(make_manager):
    manager = make_manager(sockets=["postfix", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    agent = daemon.agent()
    for _ in range(3):
        agent.park("endpoint")
    agent.find_endp("endpoint").close()
    agent.in_step()
    before = counters(daemon)
    daemon = restart(daemon, manager)
    after = counters(daemon)
    names = [name for name in before if b"_hits" in name or b"_misses" in name or b"_saved" in name]
    assert len(names) >= 6
    assert [after[name] for name in names] == [before[name] for name in names]
    assert after[b"endpoint_hits"] == b"1" and after[b"connections"] == b"2"
    daemon.stop()
    said = [line.text for line in daemon.lines() if "max simultaneous" in line.text]
    assert said and said[0].endswith("connection=2")


def test_bindings_alone(manager, start, dialect):
    daemon = start()
    daemon.agent(dialect).bind("destination", "endpoint", "property")
    daemon = restart(daemon, manager)
    agent = daemon.agent(dialect)
    agent.park("endpoint")
    with agent.find_dest("destination") as found:
        assert found.properties[0] == b"property"


def test_the_same_socket_saved_twice(manager, start, dialect):
    """It is parked once, by its last save, also when the next process has it."""
    daemon = start()
    agent = daemon.agent(dialect)
    with_copy = Connection()
    for label in ("one", "two", "one"):
        assert agent.save_endp(600, label, label, with_copy.fd) == OK
    agent.park("one", "last")
    daemon = restart(daemon, manager)
    agent = daemon.agent(dialect)
    assert agent.find_endp("two").status == FAIL
    assert agent.save_endp(600, "one", "again", with_copy.fd) == OK
    for prop in (b"last", b"again"):
        with agent.find_endp("one") as found:
            assert (found.status, found.properties) == (OK, (prop,))
    assert agent.find_endp("one").status == FAIL
    with_copy.close()


def test_flags_are_nobodys_but_the_agents(manager, start, dialect):
    """The flags of a descriptor are shared with whoever saved it."""
    daemon = start()
    agent = daemon.agent(dialect)
    made = [Connection() for _ in range(2)]
    os.set_blocking(made[1].fd, False)
    for i, connection in enumerate(made):
        assert agent.save_endp(600, str(i), "", connection.fd) == OK
    daemon = restart(daemon, manager)
    assert [os.get_blocking(connection.fd) for connection in made] == [True, False]
    for connection in made:
        connection.close()


def test_nothing_waits_for_a_peer_when_the_store_is_emptied(daemon, manager):
    """The service manager must not block in a close: SO_LINGER is off before it has a copy, and it never has the last one."""
    (end, peer), = tcp_pairs(1)
    linger = struct.pack("ii", 1, 30)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert daemon.agent().save_endp(600, "endpoint", "", end.fileno()) == OK
    daemon.stop()
    lingering = struct.unpack("ii", end.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
    assert lingering[0] == 0
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    end.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            end.send(bytes(65536))
    end.close()
    began = time.monotonic()
    manager.clear_store()
    assert time.monotonic() - began < 1.0 * daemon.patience
    peer.settimeout(5)
    while peer.recv(1 << 20):
        pass   # until the connection ends: it does not outlive the store
    peer.close()


def test_closed_when_it_is_closed(manager, start, dialect):
    """No copy is left anywhere: what was found after a restart ends with its agent's close."""
    daemon = start()
    connection = daemon.agent(dialect).park("endpoint")
    agent = restart(daemon, manager).agent(dialect)
    found = agent.find_endp("endpoint")
    agent.in_step()
    assert is_silent(connection)
    found.close()
    assert connection.wait_let_go() == b""


@pytest.mark.parametrize("count", [5000])
def test_many(manager, start, count):
    """And fast: nobody can be served meanwhile, and the service manager has other things to do."""
    daemon = start()
    agent = daemon.agent("native")
    pairs = [socket.socketpair() for _ in range(count)]
    for i, (end, _) in enumerate(pairs):
        assert agent.save(600, f"destination {i}", "", f"endpoint {i}", f"property {i}",
                          end.fileno()) == OK
    wanted = [identity(end.fileno()) for end, _ in pairs]
    for end, _ in pairs:
        end.close()
    agent.close()
    began = time.monotonic()
    daemon.stop()
    left = time.monotonic()
    assert manager.count_stored() < 10, "a descriptor for each connection stalls systemd"
    daemon = manager.start({"connection_cache_ttl_limit": "1h"})
    print(f"{count} connections: stop {left - began:.3f} s, start {time.monotonic() - left:.3f} s")
    # A tenth of that where nothing else runs; and agents wait for five seconds.
    assert time.monotonic() - began < 3.0 * daemon.patience
    daemon.wait_line(f"Restored {count} connections and {count} bindings, lost 0.")
    agent = daemon.agent("native")
    for i in range(count):
        with agent.find_dest_inline(f"destination {i}") as found:
            assert tuple(found) == (OK, (b"", f"property {i}".encode()), wanted[i])
    for _, peer in pairs:
        peer.close()


# What is not kept.

def test_without_a_service_manager(manager):
    daemon = manager.start({"connection_cache_ttl_limit": "1h"}, env={"NOTIFY_SOCKET": ""},
                           wait=False)
    connection = daemon.agent().park("endpoint")
    daemon.stop()
    assert connection.wait_let_go() == b"QUIT\r\n"
    assert nothing_stored(manager)


def test_nothing_where_nobody_comes_after_it(manager, start):
    """SIGUSR1: the end is not a restart, so what is parked is said goodbye to."""
    daemon = start()
    agent = daemon.agent("postfix")
    connections = [agent.park(f"endpoint {i}") for i in range(300)]
    daemon.stop(signal.SIGUSR1)
    daemon.wait_line("Drained 300 connections: ")
    for connection in connections:
        assert connection.wait_let_go(10.0 * daemon.patience) == b"QUIT\r\n"
        connection.close()
    assert nothing_stored(manager)


@pytest.mark.parametrize("room, kept", [("0", 0), ("1", 0), ("2", 3)])
def test_as_much_as_there_is_room_for(manager, room, kept):
    """$FDSTORE says how many descriptors the service manager takes: the index is one."""
    daemon = manager.start({"connection_cache_ttl_limit": "1h"}, env={"FDSTORE": room})
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(3)]
    daemon.stop()
    said = Books(line.text for line in daemon.lines())
    if kept:
        assert all(is_silent(connection) for connection in connections)
        assert said == {"kept": 3}
    else:
        assert [connection.wait_let_go() for connection in connections] == 3 * [b"QUIT\r\n"]
        assert said == {"not kept": 3}


@changes_the_store
@pytest.mark.parametrize("room, said", [
    (0, "Could not keep 3 parked connections for the next start: the service manager stores nothing for this unit."),
    (1, "Could not keep 3 parked connections for the next start: the service manager stores nothing for this unit."),
    (2, "Kept 3 connections and 0 bindings for the next start, could not keep 0."),
])
def test_room_of_which_nobody_tells(manager, start, room, said):
    """Before systemd 254 it does not say how many descriptors it takes: it closes the others."""
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(3)]
    manager.store_max = room
    daemon.stop()
    daemon.wait_line(said)
    if room < 2:
        assert [connection.wait_let_go() for connection in connections] == 3 * [b"QUIT\r\n"]
        assert nothing_stored(manager)
    else:
        assert all(is_silent(connection) for connection in connections)


@changes_the_store
@pytest.mark.parametrize("slip", ["in a file", "no socket"])
def test_start_that_fails(manager, start, slip):
    """Nobody will serve what is in the store, so it is told goodbye and that is said, and what was wrong as well."""
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(3)]
    agent.bind("destination", "endpoint")
    daemon.stop()
    if slip == "in a file":
        manager.write_config("scached.conf", "max_idle = soon\n")
        daemon = manager.start(wait=False)
        status, why = 78, "max_idle = soon"
    else:
        manager.listeners.clear()
        daemon = manager.start(wait=False)
        status, why = 64, "No listening socket was passed"
    daemon.wait_exit(10.0)
    daemon.check(status)
    for said in (why, "Restored 3 connections and 1 binding, lost 0.", "Drained 3 connections"):
        assert said in daemon.output()
    assert [connection.wait_let_go() for connection in connections] == 3 * [b"QUIT\r\n"]
    assert nothing_stored(manager)


@changes_the_store
@pytest.mark.parametrize("count", [3, 300])
def test_nobody_comes(manager, start, count):
    """A stop comes between the two halves of a restart, or the signal was no restart's: the service manager drops all."""
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park(f"endpoint {i}") for i in range(count)]
    silent = Connection()
    assert daemon.agent("native").save_endp_inline(600, "without a farewell", "", silent.fd) == OK
    silent.pass_on()
    daemon.stop()
    assert all(is_silent(connection) for connection in connections)
    manager.clear_store()
    for connection in connections:
        assert connection.wait_let_go(10.0 * daemon.patience) == b"QUIT\r\n"
        assert connection.wait_let_go() == b""
        connection.close()
    assert silent.wait_let_go() == b""
    silent.close()
    daemon.wait_line(f"Nobody took over {count + 1} kept connections: each was closed after its farewell.")


@changes_the_store
def test_killed_before_it_has_taken_over(manager, start):
    """Its last copies are with the process that the one before has left."""
    daemon = start()
    connections = [daemon.agent().park("endpoint") for _ in range(3)]
    daemon.stop()
    stored = manager.stored()
    successor = subprocess.Popen(["sleep", "60"], pass_fds=[fd for _, fd in stored])
    manager.clear_store()
    assert all(is_silent(connection) for connection in connections)
    successor.kill()
    successor.wait()
    assert [connection.wait_let_go() for connection in connections] == 3 * [b"QUIT\r\n"]


@changes_the_store
def test_dropped_while_away(manager, start):
    """The service manager has the index, and no longer what is in it: that is no success."""
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park("endpoint") for _ in range(3)]
    daemon.stop()
    with manager._news:
        manager._drop(lambda stored: stored.name == "connections")
    daemon = start()
    daemon.wait_line("Restored 0 connections and 0 bindings, lost 3.")
    assert [connection.wait_let_go() for connection in connections] == 3 * [b"QUIT\r\n"]


def test_fewer_may_be_parked_next_time(manager, start):
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park("endpoint", str(i)) for i in range(200)]
    daemon = restart(daemon, manager, connection_cache_size_limit=10)
    daemon.wait_line("Restored 10 connections and 0 bindings, evicted 190, lost 0.")
    for connection in connections[:190]:
        assert connection.wait_let_go() == b"QUIT\r\n"
    agent = daemon.agent()
    for i in range(190, 200):
        with agent.find_endp("endpoint") as found:
            assert found.properties == (str(i).encode(),)
    assert agent.find_endp("endpoint").status == FAIL


def test_fewer_descriptors_next_time(manager, start):
    daemon = start()
    agent = daemon.agent()
    connections = [agent.park("endpoint", str(i)) for i in range(600)]
    daemon.stop()
    daemon = manager.start({"connection_cache_ttl_limit": "1h"},
                           rlimits={resource.RLIMIT_NOFILE: 256})
    said = Books(line.text for line in daemon.lines())
    agent = daemon.agent()
    kept = 0
    while (found := agent.find_endp("endpoint")).status == OK:
        found.close()
        kept += 1
    assert 80 < kept < 256
    assert said == {"restored": kept, "evicted": 600 - kept}
    for connection in connections[:600 - kept]:
        assert connection.wait_let_go() == b"QUIT\r\n", "lost, rather than let go"


@contextlib.contextmanager
def in_flight(uid: int, count: int) -> Iterator[None]:
    """Meanwhile so many descriptors are on their way from a process of this user and never arrive."""
    ready, done = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.close(done[1])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            pairs = [socket.socketpair() for _ in range(count // 100)]
            for one, _ in pairs:
                socket.send_fds(one, [b"x"], [ready[1]] * 100)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        finally:
            os._exit(0)
    os.close(ready[1])
    os.close(done[0])
    try:
        assert os.read(ready[0], 1) == b"x"
        yield
    finally:
        os.close(ready[0])
        os.close(done[1])
        os.waitpid(pid, 0)


@pytest.mark.usefixtures("root")
@pytest.mark.plain_start("gives the daemon a user of the test's own")
def test_what_else_its_user_has_in_flight(manager, start):
    """The kernel counts it against the limit on open files; a restart has one of its own."""
    uid = 70000 + os.getpid() % 50000
    daemon = manager.start({"connection_cache_ttl_limit": "1h"}, uid=uid, gid=uid,
                           rlimits={resource.RLIMIT_NOFILE: (1024, 8192)})
    connections = [daemon.agent("native").park("endpoint") for _ in range(20)]
    with in_flight(uid, 2000):
        daemon.stop()
    agent = start().agent("native")
    for connection in connections:
        with agent.find_endp_inline("endpoint") as found:
            assert found.identity == connection.identity


# An index that cannot be used.

def replace_index(manager, content: bytes | None, seals: int = SEALS) -> None:
    (stored,) = manager.stored("index")
    if content is not None:
        fd = os.memfd_create("index", os.MFD_ALLOW_SEALING)
        os.write(fd, content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    with manager._news:
        manager._drop(lambda candidate: candidate == stored)
        if content is not None:
            manager.store.append(Stored("index", fd))


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


DAMAGE = {
    "truncated": lambda content: content[:-1],
    "cut short": lambda content: content[:100],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "magic flipped": lambda content: flip(content, 0),
    "checksum flipped": lambda content: flip(content, 17),
    "count flipped": lambda content: flip(content, 40),
    "middle flipped": lambda content: flip(content, len(content) // 2),
    "end flipped": lambda content: flip(content, len(content) - 1),
    "another file": lambda content: os.urandom(5000),
    "missing": lambda content: None,
}


@changes_the_store
@pytest.mark.parametrize("how, why", [
    *[(damage, "damaged") for damage in list(DAMAGE.values())[:-1]],
    (DAMAGE["missing"], "missing"),
    (lambda content: flip(content, AT_VERSION), "version"),
    (lambda content: content[:AT_VERSION] + b"\3\0\0\0" + content[AT_VERSION + 4:], "version"),
], ids=[*DAMAGE, "version flipped", "future version"])
def test_refused(manager, start, how, why):
    """One line, nothing left open, and it serves."""
    daemon = start()
    agent = daemon.agent()
    agent.in_step()
    before = len(daemon.open_fds())
    connections = [agent.park("endpoint") for _ in range(20)]
    agent.bind("destination", "endpoint")
    daemon.stop()
    content = os.pread(manager.stored("index")[0].fd, 1 << 20, 0)
    replace_index(manager, how(content))
    daemon = start()
    assert nothing_stored(manager)
    warnings = [line for line in daemon.lines() if line.priority is not None and line.priority <= 4]
    assert len(warnings) == 1 and why in warnings[0].text, warnings
    assert "20 connections" in warnings[0].text
    for connection in connections:
        assert connection.wait_let_go() == b"QUIT\r\n"
    agent = daemon.agent()
    agent.in_step()
    daemon.wait_open_fds(before)
    assert agent.find_dest("destination").status == FAIL
    agent.park("endpoint")
    daemon = restart(daemon, manager)
    assert daemon.agent().find_endp("endpoint").status == OK


@changes_the_store
def test_index_that_is_not_sealed(manager, start):
    """It could change, or shrink, while it is read."""
    daemon = start()
    connection = daemon.agent().park("endpoint")
    daemon.stop()
    content = os.pread(manager.stored("index")[0].fd, 1 << 20, 0)
    replace_index(manager, content, SEALS & ~fcntl.F_SEAL_SHRINK)
    daemon = start()
    daemon.wait_line("index cannot be used")
    assert connection.wait_let_go() == b"QUIT\r\n"


@changes_the_store
def test_index_without_descriptors(manager, start):
    daemon = start()
    daemon.agent().park("endpoint")
    daemon.stop()
    with manager._news:
        manager._drop(lambda stored: stored.name == "connections")
    daemon = start()
    assert daemon.agent().find_endp("endpoint").status == FAIL


def open_sockets(daemon) -> int:
    """Other than all descriptors, these are the daemon's own even under valgrind."""
    return sum("socket" in what for what in daemon.open_fds().values())


@changes_the_store
def test_descriptors_of_somebody_else(manager, start, connections):
    """Descriptors that are in no index, and parcels that are none."""
    daemon = start()
    agent = daemon.agent()
    kept = agent.park("endpoint")
    before = open_sockets(daemon)
    daemon.stop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = [connections() for _ in range(3)]
    socket.send_fds(ours, [struct.pack("QQ", 0, 2)], [connection.fd for connection in made[:2]])
    socket.send_fds(ours, [b"?"], [made[2].fd])
    for connection in made:
        connection.pass_on()
    with manager._news:
        for stranger in (theirs, socket.socketpair()[0], socket.create_server(("127.0.0.1", 0))):
            manager.store.append(Stored("connections", stranger.detach()))
        manager.store.append(Stored("connections", os.open("/dev/null", os.O_RDWR)))
    ours.close()
    daemon = start()
    for connection in made:
        assert connection.wait_let_go() == b""
    agent = daemon.agent()
    wait_until(lambda: open_sockets(daemon) == before, "nothing of it is open")
    with agent.find_endp("endpoint") as found:
        assert found.identity == kept.identity


# A crash.

def test_nothing_stale_after_a_crash(manager, start):
    daemon = start()
    agent = daemon.agent()
    first = agent.park("endpoint")
    daemon = restart(daemon, manager)
    daemon.agent().park("endpoint")
    daemon.kill(signal.SIGKILL)
    daemon.wait_exit()
    assert nothing_stored(manager)
    assert first.wait_let_go() == b""
    waiting = Agent(manager.path("postfix"), greet=False)
    daemon = start()
    daemon.agents.append(waiting)
    waiting.read_greeting()
    assert waiting.find_endp("endpoint").status == FAIL


# Agents, when it leaves.

def test_agent_at_rest_is_cut_and_comes_back(manager, start, dialect):
    daemon = start()
    agent = daemon.agent(dialect)
    agent.in_step()
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 0.3 * daemon.patience, "it waited for nobody"
    agent.read_end()
    waiting = Agent(manager.path(dialect), dialect, greet=False)
    daemon = start()
    daemon.agents.append(waiting)
    if dialect == "postfix":
        waiting.read_greeting()
    waiting.in_step()


@pytest.mark.parametrize("signal_first", [False, True])
def test_what_was_sent_is_answered(daemon, dialect, signal_first):
    """However much else there is to look at."""
    agents = [daemon.agent(dialect) for _ in range(200)]
    for agent in agents:
        agent.in_step()
    os.kill(daemon.pid, signal.SIGSTOP)
    if signal_first:
        daemon.kill(signal.SIGTERM)
    for agent in agents:
        agent.send_list([("request", "find_endp"), ("label", "nothing")])
    if not signal_first:
        daemon.kill(signal.SIGTERM)
    os.kill(daemon.pid, signal.SIGCONT)
    for agent in agents:
        assert agent.read_answer(1)[0] == FAIL
        agent.read_end()
    assert daemon.wait_exit() == 0


@contextlib.contextmanager
def leaving(daemon) -> Iterator[None]:
    """What is done meanwhile is done before the daemon sees anything of it, for it does not wait long."""
    os.kill(daemon.pid, signal.SIGSTOP)
    daemon.kill(signal.SIGTERM)
    yield
    os.kill(daemon.pid, signal.SIGCONT)


def test_who_has_just_connected_gets_an_answer(daemon, dialect):
    """A second failure in a row makes a Postfix process do without a cache for good."""
    fresh = [daemon.agent(dialect) for _ in range(10)]
    daemon.agent(dialect).in_step()
    with leaving(daemon):
        for agent in fresh:
            agent.send_list([("request", "find_endp"), ("label", "nothing")])
    for agent in fresh:
        assert agent.read_answer(1)[0] == FAIL
        agent.read_end()
    assert daemon.wait_exit() == 0


def test_exchanges_come_to_an_end(manager, daemon, dialect):
    agent = daemon.agent(dialect)
    connection = agent.park("endpoint", "property")
    finding = daemon.agent(dialect).begin("find_endp", "endpoint").until("answered")
    saved = Connection()
    saving = daemon.agent(dialect).begin("save_endp", 600, "saved", "", saved.fd).until("invited")
    halfway = daemon.agent(dialect).begin("save_dest", 600, "destination", "", "saved")
    halfway.until("half a request")
    with leaving(daemon):
        for exchange, step in ((finding, "dummy"), (saving, "descriptor"), (halfway, "request")):
            exchange.until(step)
    with finding.finish() as found:
        assert tuple(found) == (OK, (b"property",), connection.identity)
    assert saving.finish() == OK
    saved.pass_on()
    assert halfway.finish() == OK
    assert daemon.wait_exit() == 0
    agent = manager.start({"connection_cache_ttl_limit": "1h"}).agent(dialect)
    with agent.find_dest("destination") as found:
        assert found.identity == saved.identity
    saved.close()


def test_nobody_is_waited_for_too_long(manager, daemon, dialect):
    """What was lent to an agent that stops half-way goes back, and is kept like all the rest."""
    connection = daemon.agent(dialect).park("endpoint", "property")
    stuck = daemon.agent(dialect)
    stuck.begin("find_endp", "endpoint").until("answered")
    daemon.agent(dialect)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 0.4 * daemon.patience, "it waited for who says nothing"
    agent = manager.start({"connection_cache_ttl_limit": "1h"}).agent(dialect)
    with agent.find_endp("endpoint") as found:
        assert tuple(found) == (OK, (b"property",), connection.identity)


def test_who_goes_on_and_on_is_not_waited_for(daemon):
    """A request that comes byte by byte."""
    agent = daemon.agent("native")
    agent.send(b"request\0")
    daemon.kill(signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < daemon.patience:
            agent.send(b"x")
            time.sleep(0.002)
    assert daemon.wait_exit() == 0


def test_restarts_under_load(manager, start, dialect):
    """Agents that do what Postfix does when the cache goes away: reconnect once, and then give up.
    None may have to give up, no connection may get lost or come twice."""
    daemon = start(max_idle="0")
    stop, failures = threading.Event(), []
    cycles = {f"agent {i}": 0 for i in range(8)}

    def work(name: str) -> None:
        agent = None
        connection = Connection(10)
        fd = os.dup(connection.fd)
        wanted = connection.identity
        connection.pass_on()
        held = True
        try:
            while not stop.is_set() or not held:
                for attempt in range(2):
                    try:
                        if agent is None:
                            agent = Agent(manager.path(dialect), dialect, 10)
                        if held:
                            if agent.save_endp(600, name, name, fd) != OK:
                                raise AssertionError("not saved")
                            os.close(fd)
                            held = False
                        else:
                            found = agent.find_endp(name)
                            if found.status == OK:
                                assert found.identity == wanted
                                assert found.properties == (name.encode(),)
                                fd, held = found.detach(), True
                        cycles[name] += 1
                        break
                    except (ProtocolError, OSError) as error:
                        if agent and agent.received is not None:
                            # Postfix does not mind either if its last dummy is lost.
                            fd, held, agent.received = agent.received, True, None
                        agent.close() if agent else None
                        agent = None
                        if attempt:
                            raise AssertionError(f"{name} failed twice: {error}")
            os.close(fd)
        except BaseException as error:
            failures.append(error)
        finally:
            agent.close() if agent else None
            connection.close()

    def wait_cycles() -> None:
        """Until each has got through again: two restarts in the middle of one exchange prove nothing."""
        before = dict(cycles)
        wait_until(lambda: failures or all(cycles[name] > before[name] for name in cycles), "a cycle of each", 10 * patience())

    threads = [threading.Thread(target=work, args=(name,)) for name in cycles]
    for thread in threads:
        thread.start()
    for _ in range(10):
        wait_cycles()
        daemon = restart(daemon, manager)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "an agent never found what it had saved"
    assert not failures, failures
    assert min(cycles.values()) >= 10
    assert nothing_stored(manager)


# Memory and descriptors of the daemon: looked at by whoever runs these tests under ASan or valgrind.

def test_descriptors_stay_the_same_over_many_restarts(manager, start):
    daemon = start()
    agent = daemon.agent()
    for i in range(10):
        agent.park("endpoint")
    before = daemon.count_fds()
    for _ in range(5):
        daemon = restart(daemon, manager)
        daemon.agent().in_step()
        daemon.wait_open_fds(before)


def test_names(manager):
    """What scached stores under may not be what a listening socket is called."""
    assert not {"connections", "index"} & set(SOCKETS)
