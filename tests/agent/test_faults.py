# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults on purpose: every call in a request's path fails in turn, and after each one the daemon is
as good as new.

An interposed library (tests/faults/faults.c) makes the n-th call of a name fail once. Agents go
through every exchange with that, n growing until a whole run needs fewer calls than n. The agents of
that run may be refused or cut off, but never be left waiting; nobody else may notice, nothing may
leak, and no connection may be in two hands.
"""

from __future__ import annotations

import errno
import os

import pytest

from connection import Connection, ProtocolError
from faults import LIBRARY, SANITIZED, Plan, start
from lists import encode, find_endp
from protocol import FAIL, OK

# Names of calls, and errors that the kernel would give.
FAULTS = [
    ("recvmsg", errno.ENOBUFS), ("recvmsg", errno.EINTR),
    ("sendmsg", errno.ENOBUFS), ("sendmsg", errno.ETOOMANYREFS), ("sendmsg", errno.EPIPE),
    ("sendmsg", errno.EAGAIN),
    ("epoll_ctl", errno.ENOSPC), ("epoll_ctl", errno.ENOMEM), ("epoll_wait", errno.EINTR),
    ("accept4", errno.EMFILE), ("accept4", errno.ENFILE), ("accept4", errno.ENOMEM),
    ("accept4", errno.ECONNABORTED),
    ("getsockopt", errno.ENOBUFS), ("setsockopt", errno.ENOBUFS), ("ioctl", errno.EINVAL),
    ("recv", errno.ENOBUFS), ("recv", errno.EINTR), ("close", errno.EIO),
    ("send", errno.ENOBUFS), ("send", errno.EPIPE), ("send", errno.EAGAIN), ("send", errno.EINTR),
    ("malloc", errno.ENOMEM), ("calloc", errno.ENOMEM), ("realloc", errno.ENOMEM),
]
ALLOCATIONS = ("malloc", "calloc", "realloc")
if SANITIZED:  # the allocator is the sanitizer's
    FAULTS = [fault for fault in FAULTS if fault[0] not in ALLOCATIONS]
MOST_CALLS = 600
WORKERS_CALLS = ("recv", "send", "setsockopt", "close")
LABELS = [f"{dialect} {i}" for dialect in ("postfix", "native") for i in (0, 1, "last")] + [
    "endpoint", "many 0", "many 1"]
LARGE = "x" * 60000

pytestmark = [pytest.mark.skipif(not LIBRARY.exists(), reason="libfaults.so is not built"),
              pytest.mark.plain_start("loads a library into the daemon, which writes to a file of the test")]


def park(agent, label: str, connections: list[Connection], prop: str = "property") -> None:
    connections.append(Connection())
    agent.save_endp(60, label, prop, connections[-1].fd)
    connections[-1].pass_on()


def talk(agent, dialect: str, connections: list[Connection]) -> None:
    """Every exchange there is."""
    for i in range(2):
        park(agent, f"{dialect} {i}", connections)
        agent.save_dest(60, f"{dialect} destination {i}", "property", f"{dialect} {i}")
    found = [agent.find_dest(f"{dialect} destination 0"), agent.find_endp(f"{dialect} 1"),
             agent.find_endp("nothing")]
    if dialect == "native":
        connections.append(Connection())
        agent.save(60, "destination", "p", "endpoint", "p", connections[-1].fd, farewell="QUIT\r\n")
        connections[-1].pass_on()
        found.append(agent.find_dest_inline("destination"))
        for i in range(2):
            park(agent, f"many {i}", connections, LARGE)
        # More than the socket takes at once, asked for in one piece.
        agent.send(b"".join(encode(find_endp(f"many {i % 2}") + [("handover", "inline")])
                            for i in range(8)))
        for _ in range(8):
            got = agent.read_list("one of many answers")
            for fd in got.fds:
                os.close(fd)
    park(agent, f"{dialect} last", connections)
    for each in found:
        each.close()


def take_and_be_silent(daemon) -> None:
    """An agent that has its connection and does not say so: the daemon looks at its socket."""
    with daemon.agent("native") as agent:
        agent.in_step()
        before = daemon.settled_fds()
        connection = agent.park("silent")
        with agent.find_endp_inline("silent") as found:
            assert found.identity == connection.identity
            daemon.wait_open_fds(before)
    daemon.agents.remove(agent)


def everything(daemon, connections: list[Connection]) -> None:
    """Agents of each dialect, one of which leaves without what it was promised. They may be cut off;
    one that waits in vain is what this is about."""
    for dialect in ("postfix", "native"):
        agent = None
        try:
            agent = daemon.agent(dialect)
            talk(agent, dialect, connections)
            agent.begin("find_endp", f"{dialect} last").until("dummy")
        except ProtocolError as error:
            assert "no answer within" not in str(error), f"an agent was left waiting: {error}"
        except OSError:
            pass
        finally:
            if agent:
                agent.close()
                daemon.agents.remove(agent)


def drain(bystander) -> None:
    """Whatever is still parked is whole, and nothing is there twice."""
    seen = set()
    for label in LABELS:
        while True:
            with bystander.find_endp(label) as found:
                if found.status == FAIL:
                    break
                assert found.identity not in seen, f"found twice: {label}"
                seen.add(found.identity)


@pytest.mark.parametrize("name, error", FAULTS,
                         ids=[f"{name}-{errno.errorcode[error]}" for name, error in FAULTS])
def test_each_call_fails_in_turn(manager, tmp_path, name, error):
    plan = Plan(tmp_path / "faults")
    # So few connections that some are let go, with a farewell.
    daemon = start(manager, plan, connection_cache_size_limit=2)
    bystander = daemon.agent("postfix")
    bystander.in_step()
    at_start = daemon.count_fds()
    if name != "realloc":  # what only grows is grown from here on
        everything(daemon, [])
        drain(bystander)
    daemon.wait_open_fds(at_start)

    for n in range(MOST_CALLS):
        connections: list[Connection] = []
        plan.arm(name, n, error)
        everything(daemon, connections)
        if name == "ioctl":
            take_and_be_silent(daemon)
        did_fire = plan.fires((5 if n == 0 else 0.5) * daemon.patience) if name in WORKERS_CALLS else plan.fired()
        plan.disarm()

        kept = Connection()
        assert bystander.save_endp(60, "bystander", "", kept.fd) == OK
        with bystander.find_endp("bystander") as found:
            assert found.status == OK and found.identity == kept.identity
        kept.close()
        drain(bystander)
        for connection in connections:
            connection.close()
        daemon.wait_open_fds(at_start)
        if not did_fire:
            break
    else:
        pytest.fail(f"{MOST_CALLS} calls of {name} were not enough: does one fault cause another?")

    assert n > 0, f"{name} was never called"
    print(f"{n} calls of {name} failed")
    daemon.stop()


AT_THE_END = [(name, error) for name, error in FAULTS
              if name in ("recv", "send", "epoll_ctl", "epoll_wait", "setsockopt", "close")]


def test_each_call_fails_at_the_end_of_a_life(make_manager, tmp_path):
    """Expiry and farewell, which come without a request: one daemon for each fault, all at the same
    time, for a life lasts a second at least."""
    cases = []
    for name, error in AT_THE_END:
        for n in range(3):
            plan = Plan(tmp_path / f"faults-{name}-{error}-{n}")
            daemon = start(make_manager(sockets=["postfix"]), plan)
            agent = daemon.agent("postfix")
            agent.in_step()
            cases.append((name, error, n, plan, daemon, agent, daemon.count_fds()))
    parked = []
    for name, error, n, plan, daemon, agent, at_start in cases:
        parked.append([agent.park(f"endpoint {i}", ttl=2) for i in range(2)])
        plan.arm(name, n, error)
    fired = {name: False for name, _ in AT_THE_END}
    for (name, error, n, plan, daemon, agent, at_start), connections in zip(cases, parked):
        for connection in connections:
            assert connection.wait_let_go(10.0 * daemon.patience) in (b"QUIT\r\n", b""), (name, error, n)
            connection.close()
        daemon.wait_open_fds(at_start, 10.0)
        fired[name] |= plan.fires(1.0 * daemon.patience) if n == 0 else bool(plan.fired())
        plan.disarm()
        agent.in_step()
        agent.park("after")
        with agent.find_endp("after") as found:
            assert found.status == OK
        daemon.stop()
    assert all(fired.values()), f"never called: {fired}"
