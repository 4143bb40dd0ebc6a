# SPDX-License-Identifier: LGPL-2.1-or-later
"""Agents that stop, vanish or change their minds in the middle of an exchange."""

from __future__ import annotations

import itertools
import os
import select
import time

import pytest

import lists
from launch import patience, stretched
from lists import DUMMY, encode
from protocol import BAD, FAIL, OK, STEPS

REQUESTS = ("save_endp", "find_endp", "save_dest", "find_dest")
PLACES = [(name, step) for name in REQUESTS for step in STEPS[name]]
FIND_PLACES = [(name, step) for name, step in PLACES if name.startswith("find")]
TAKEN = ("received", "half a last dummy")


def prepare(agent, label: str):
    """Something to find for the label, as endpoint and as destination."""
    agent.bind(label, label)
    return agent.park(label, "property")


def wait_readable(agent) -> None:
    ready = select.poll()
    ready.register(agent.socket, select.POLLIN)
    assert ready.poll(agent.timeout * 1000), "nothing came"


def stop_at(agent, name: str, step: str, connection=None, label: str = "endpoint"):
    """Begin an exchange about this label, and stop at this step when the server has done its
    part of it."""
    args = {"save_endp": lambda: (600, label, "property", connection.fd),
            "save_dest": lambda: (600, label, "property", label)}.get(name, lambda: (label,))()
    exchange = agent.begin(name, *args).until(step)
    if step in ("dummy", "request"):
        wait_readable(agent)
    return exchange


@pytest.mark.parametrize("name, step", PLACES)
def test_going_on_after_a_pause(daemon, dialect, connections, name, step):
    """At every step, with another agent's whole exchanges in between."""
    agent, other = daemon.agent(dialect), daemon.agent(dialect)
    connection = connections()
    if name.startswith("find"):
        connection = prepare(other, "endpoint")
    exchange = stop_at(agent, name, step, connection)
    between = prepare(other, "between")
    with other.find_dest("between") as found:
        assert found.identity == between.identity
    result = exchange.finish()
    if name.startswith("find"):
        assert result.status == OK and result.identity == connection.identity
        result.close()
    else:
        assert result == OK
    agent.in_step()


def test_fifty_agents_that_stop_delay_nobody(daemon, dialect, connections):
    other = daemon.agent(dialect)
    stopped = []
    for i, (name, step) in zip(range(60), itertools.cycle(PLACES)):
        prepare(other, f"label {i}")
        stopped.append(daemon.agent(dialect))
        stop_at(stopped[-1], name, step, connections(), f"label {i}")
    newcomer = daemon.agent(dialect)
    for agent in (other, newcomer):
        for i in range(100):
            connection = prepare(agent, "endpoint")
            start = time.monotonic()
            with agent.find_dest("endpoint") as found:
                assert found.identity == connection.identity
            assert time.monotonic() - start < 1.0 * daemon.patience
    for agent in stopped:
        agent.close()
    newcomer.in_step()


@pytest.mark.parametrize("name, step", FIND_PLACES)
def test_vanishing_in_the_middle_of_a_find(daemon, dialect, name, step):
    """Either the agent has the connection or the cache has it still: never neither, never both."""
    other = daemon.agent(dialect)
    connection = prepare(other, "endpoint")
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    stop_at(agent, name, step, connection)
    kept = os.dup(agent.received) if agent.received is not None else None
    agent.close()
    # The agent's socket is gone, and the connection is where it was or gone too.
    daemon.wait_open_fds(before - (step in TAKEN))
    with getattr(other, name)("endpoint") as found:
        if step in TAKEN:
            assert found.status == FAIL, "the agent has it, and yet it was found again"
            assert connection.works(kept)
            os.close(kept)
        else:
            assert found.status == OK, "the connection is lost"
            assert found.identity == connection.identity
            assert found.properties[-1] == b"property"
            assert connection.works(found.fd)


@pytest.mark.parametrize("step", STEPS["save_endp"])
def test_vanishing_in_the_middle_of_a_save_endp(daemon, dialect, connections, step):
    other = daemon.agent(dialect)
    other.in_step()
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    connection = connections()
    stop_at(agent, "save_endp", step, connection)
    agent.close()
    connection.pass_on()
    saved = step == "descriptor"
    daemon.wait_open_fds(before + saved)
    with other.find_endp("endpoint") as found:
        assert found.identity == (connection.identity if saved else None)
    if not saved:
        assert connection.wait_let_go() == b""


@pytest.mark.parametrize("name", ["find_endp", "find_dest"])
def test_back_at_its_old_place(daemon, dialect, name):
    """A connection that was found but not fetched is the first to be found again."""
    other = daemon.agent(dialect)
    first = prepare(other, "endpoint")
    second, third = other.park("endpoint"), other.park("endpoint")
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    agent.begin(name, "endpoint").until("answered")
    with getattr(other, name)("endpoint") as found:
        assert found.identity == second.identity, "two agents were promised the same connection"
    agent.close()
    daemon.wait_open_fds(before - 1)
    for connection in (first, third):
        with getattr(other, name)("endpoint") as found:
            assert found.identity == connection.identity


def test_several_back_at_their_old_places(daemon, dialect):
    """Given back in any order, they are found in the old one."""
    other = daemon.agent(dialect)
    parked = [other.park("endpoint", str(i)) for i in range(6)]
    before = daemon.count_fds()
    agents = [daemon.agent(dialect) for _ in range(4)]
    for agent in agents:
        agent.begin("find_endp", "endpoint").until("answered")
    for i, closed in enumerate((2, 0, 3, 1), 1):
        agents[closed].close()
        daemon.wait_open_fds(before + len(agents) - i)
    for connection in parked:
        with other.find_endp("endpoint") as found:
            assert found.identity == connection.identity


def test_back_with_its_old_deadline(daemon):
    """Being found and not fetched does not make a connection live longer."""
    other, agent = daemon.agent(), daemon.agent()
    saved = time.monotonic()
    ttl = stretched(3)
    connection = other.park("endpoint", ttl=ttl)
    agent.begin("find_endp", "endpoint").until("answered")
    time.sleep(max(0.0, saved + ttl * 2 / 3 - time.monotonic()))
    agent.close()
    connection.wait_let_go(3 * ttl)
    assert ttl - 0.1 <= time.monotonic() - saved < ttl * 1.6, f"it got another {ttl} seconds"
    assert other.find_endp("endpoint").status == FAIL


def test_found_before_its_deadline_and_fetched_after(daemon):
    """A connection is not taken away from an agent that has been told that it has it."""
    agent = daemon.agent()
    ttl = stretched(2)
    connection = agent.park("endpoint", ttl=ttl)
    exchange = agent.begin("find_endp", "endpoint").until("answered")
    time.sleep(ttl + 0.2)
    with exchange.finish() as found:
        assert found.status == OK and found.identity == connection.identity
        assert connection.works(found.fd)


@pytest.mark.parametrize("instead, n_properties, status", [
    (lists.find_endp("elsewhere"), 1, FAIL),
    (lists.save_dest(600, "elsewhere", "", "endpoint"), 0, OK),
    (lists.save_endp(0, "endpoint", ""), 0, BAD),
    ([("request", "unknown")], 0, BAD),
    ([("x", "y")], 0, BAD),
    (lists.DUMMY + [("x", "y")], 0, BAD),
], ids=str)
def test_changing_ones_mind(daemon, dialect, instead, n_properties, status):
    """What comes instead of the dummy that asks for the descriptor is answered for itself, and the
    connection is where it was."""
    agent, other = daemon.agent(dialect), daemon.agent(dialect)
    parked = [prepare(other, "endpoint") for _ in range(2)]
    agent.begin("find_endp", "endpoint").until("answered")
    assert agent.request(instead, n_properties=n_properties) == status
    for connection in parked:
        with other.find_dest("endpoint") as found:
            assert found.identity == connection.identity
    agent.in_step()


def test_stopped_agents_are_let_go_after_a_time(start, dialect, connections):
    """ipc_timeout is for those in the middle of something; who is between two exchanges may take
    hours."""
    daemon = start(ipc_timeout=f"{patience():.0f}s")  # far longer than an exchange takes
    other = daemon.agent(dialect)
    parked = {place: prepare(other, str(place)) for place in PLACES}
    # Who has nothing more to say is not in the middle: the last dummy need not come.
    at_rest = {place for place in PLACES if place[1] in ("descriptor", "dummy", "received")}
    at_rest.add(("save_dest", "request"))
    agents = {}
    for place in PLACES:
        agents[place] = daemon.agent(dialect)
        stop_at(agents[place], *place, connections(), str(place))
    for place in PLACES:
        hung_up = select.poll()
        hung_up.register(agents[place].socket, select.POLLRDHUP)
        if place not in at_rest:
            assert hung_up.poll(other.timeout * 1000), f"kept: {place}"
    for place in at_rest:
        hung_up = select.poll()
        hung_up.register(agents[place].socket, select.POLLRDHUP)
        assert not hung_up.poll(0), f"cut off: {place}"
    for place in FIND_PLACES:
        if place not in at_rest and place[1] not in TAKEN:
            with other.find_dest(str(place)) as found:
                assert found.identity == parked[place].identity, f"{place} lost its connection"


def test_two_dummies_are_one_too_many(daemon, dialect):
    """A last dummy that is sent twice is still nothing."""
    agent = daemon.agent(dialect)
    agent.park("endpoint")
    agent.find_endp("endpoint").close()
    agent.send(encode(DUMMY) * 3)
    agent.in_step()
    assert agent.request([("request", "unknown")]) == BAD
