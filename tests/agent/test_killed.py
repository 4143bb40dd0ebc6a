# SPDX-License-Identifier: LGPL-2.1-or-later
"""Agents killed in the middle of a find that hits: the connection is in the cache, at its old place
with its old deadline, or it is gone with the agent. Never neither, never both.

SCACHED_LONG=1 kills 10,000 of them.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import time
from typing import Callable

import pytest

from bulk import LONG, Control
from connection import Connection, wait_until
from daemon import die_with_parent
from protocol import FAIL, OK, STEPS, Agent

FINDS = ("find_endp", "find_dest", "find_endp_inline", "find_dest_inline")
# Each place, once killed there by itself, and as often killed at some moment of the whole exchange.
PLACES = [(find, step) for find in FINDS for step in (*STEPS[find], "finished", "any")]
ROUNDS = -(-10000 // len(PLACES)) if LONG else 8

TTL = 3000


def killed_agent(path: str, dialect: str, find: str, step: str, heir: socket.socket) -> int:
    """A process that finds as an agent and kills itself at this step. What it has received by then
    it passes on to the heir first, who so shows that it was there. "any": it waits for a byte, goes
    through the exchange and is to be killed from outside."""
    pid = os.fork()
    if pid != 0:
        return pid
    try:
        die_with_parent()
        with Agent(path, dialect) as agent:
            if step == "any":
                heir.send(b"r")
                heir.recv(1)
                agent.begin(find, "label").finish()
                signal.pause()
            exchange = agent.begin(find, "label")
            if step == "finished":
                fd = exchange.finish().fd
            else:
                exchange.until(step)
                fd = agent.received
            socket.send_fds(heir, [b"f" if fd is not None else b"n"], [fd] if fd is not None else [])
            os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(1)


def is_in_cache(daemon, control: Control) -> bool:
    """Wait until the daemon knows that the agent is gone: only two others are there. Returns whether both connections are in
    the cache."""
    wait_until(lambda: control.status()["agents"] == 2, "the agent is gone", 10.0 * daemon.patience)
    status = control.status()
    assert status["connections_lent"] == 0
    return status["connections"] == 2


def kill_one(daemon, other: Agent, control: Control, find: str, step: str,
             delay: Callable[[], float]) -> bool:
    """Returns whether the connection was in the cache afterwards."""
    first = other.park("label", "first", ttl=TTL)
    second = other.park("label", "second", ttl=TTL - 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = killed_agent(daemon.path("native"), "native", find, step, theirs)
        theirs.close()
        fd = None
        if step == "any":
            assert ours.recv(1) == b"r"
            ours.send(b"g")
            until = time.monotonic() + delay()
            while time.monotonic() < until:
                pass
            os.kill(pid, signal.SIGKILL)
        else:
            _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            fd = fds[0] if fds else None
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    in_cache = is_in_cache(daemon, control)
    assert not (in_cache and fd is not None), "the agent had it and it is in the cache, too"
    if in_cache:
        left = control.remaining("label")
        assert len(left) == 2 and TTL - 600 < left[0] <= TTL and left[1] <= TTL - 1000, left
    with other.find_endp("label") as found:
        wanted = first if in_cache else second
        assert found.status == OK and found.identity == wanted.identity, "not in its old place"
        assert found.properties == (b"first" if in_cache else b"second",)
        assert wanted.works(found.fd)
    if in_cache:
        other.find_endp("label").close()
    assert other.find_endp("label").status == FAIL
    if fd is not None:
        assert first.works(fd)
        os.close(fd)
    for connection in (first, second):
        connection.close()
    other.parked.clear()
    return in_cache


# Steps at which the agent cannot have it yet, be it on its way, and at which it has it in any case.
NOT_YET = ("half a request", "request", "answered", "half a dummy", "dummy")
TAKEN = ("received", "half a last dummy", "finished")


def test_killed_at_each_step_of_a_hit(make_manager):
    manager = make_manager(sockets=["postfix", "native", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    other, control = daemon.agent(), Control(daemon)
    other.bind("label", "label")
    other.in_step()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    fates = {place: [0, 0] for place in PLACES}
    started = time.monotonic()
    for number in range(ROUNDS):
        for find, step in PLACES:
            try:
                in_cache = kill_one(daemon, other, control, find, step,
                                    lambda: chance.uniform(0, 0.0012))
            except AssertionError as error:
                pytest.fail(f"round {number}, {find} killed at {step!r}, seed {seed}: {error}")
            assert in_cache or step not in NOT_YET, f"lost: {find}, {step}"
            assert not in_cache or step not in TAKEN, f"in two hands: {find}, {step}"
            fates[find, step][in_cache] += 1
    total = [sum(each) for each in zip(*fates.values())]
    for (find, step), (gone, kept) in fates.items():
        print(f"{find:17} {step:18} gone with the agent {gone:4}, in the cache {kept:4}")
    print(f"{sum(total)} agents killed in {time.monotonic() - started:.1f} s: {total[0]} connections "
          f"gone with them, {total[1]} in the cache")


# So many agents have something to say that those behind them do not get into the same round of the daemon's loop.
CROWD = 100

# The daemon looks 20 ms after it sent a connection whether the agent has read it, and then less and less often.
LONGER_THAN_TO_THE_NEXT_LOOK = 0.2


def test_gone_behind_a_crowd(start):
    """The daemon looks at what an agent has read before it hears that the agent is gone, and what was unread is gone with
    it: that does not mean that it has been read."""
    daemon = start()
    other = daemon.agent()
    crowd = [daemon.agent() for _ in range(CROWD)]
    for agent in crowd:
        agent.in_step()
    connection = other.park("label")
    victim = daemon.agent()
    victim.begin("find_endp_inline", "label").until("request")
    sent = select.poll()
    sent.register(victim.socket, select.POLLIN)
    assert sent.poll(10000.0 * daemon.patience), "the answer is there, and stays unread"
    daemon.suspend()
    time.sleep(LONGER_THAN_TO_THE_NEXT_LOOK)  # its timer is what is tested here
    for agent in crowd:
        agent.send_list([("request", "find_endp"), ("label", "nowhere")])
    victim.close()
    daemon.resume()
    for agent in crowd:
        assert agent.read_answer(1)[0] == FAIL
    other.in_step()
    with other.find_endp("label") as found:
        assert found.status == OK and found.identity == connection.identity
