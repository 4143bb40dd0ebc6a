# SPDX-License-Identifier: LGPL-2.1-or-later
"""The forms of exchange in which a descriptor travels with the request or with the answer.

An agent asks for them explicitly, so they work on every dialect; only the native greeting tells."""

from __future__ import annotations

import itertools
import os

import pytest

import lists
from connection import identity
from lists import encode
from protocol import BAD, FAIL, OK, STEPS

INLINE = ("handover", "inline")


@pytest.fixture(params=["native", "postfix", "postfix-legacy"])
def dialect(request) -> str:
    return request.param


@pytest.fixture
def agent(daemon, dialect):
    agent = daemon.agent(dialect)
    agent.in_step()
    return agent


def test_only_the_native_greeting_tells(daemon):
    assert daemon.agent("native").extensions == (b"inline", b"save", b"farewell", b"epoch", b"list", b"flush", b"top")
    assert daemon.agent("postfix").extensions == ()


def test_a_cycle(agent, connections):
    """One message each way to take a connection out, and one to put it back."""
    connection = connections()
    saved = ("destination", "of the binding", "endpoint", "of the connection")
    assert agent.save(600, *saved, connection.fd) == OK
    for _ in range(3):
        with agent.find_dest_inline("destination") as found:
            properties = (b"of the binding", b"of the connection")
            assert tuple(found) == (OK, properties, connection.identity)
            assert connection.works(found.fd)
            assert tuple(agent.find_dest_inline("destination")) == (FAIL, (b"", b""), None)
            assert agent.save(600, *saved, found.fd) == OK
    agent.in_step()


def test_every_save_is_found_by_every_find(daemon, dialect, connections):
    """The forms are different ways to the same cache."""
    agent, other = daemon.agent(dialect), daemon.agent("postfix")
    saves = {
        "save_endp": lambda fd: agent.save_endp(600, "endpoint", "property", fd),
        "save_endp_inline": lambda fd: agent.save_endp_inline(600, "endpoint", "property", fd),
        "save": lambda fd: agent.save(600, "destination", "", "endpoint", "property", fd),
    }
    finds = {
        "find_endp": lambda: other.find_endp("endpoint"),
        "find_dest": lambda: other.find_dest("destination"),
        "find_endp_inline": lambda: other.find_endp_inline("endpoint"),
        "find_dest_inline": lambda: other.find_dest_inline("destination"),
    }
    agent.bind("destination", "endpoint")
    for save, find in itertools.product(saves, finds):
        connection = connections()
        assert saves[save](connection.fd) == OK
        with finds[find]() as found:
            assert found.properties[-1] == b"property", f"{save} and {find}"
            assert found.identity == connection.identity, f"{save} and {find}"
        connection.close()


def test_a_miss_brings_no_descriptor(agent):
    assert tuple(agent.find_endp_inline("endpoint")) == (FAIL, (b"",), None)
    assert tuple(agent.find_dest_inline("destination")) == (FAIL, (b"", b""), None)
    agent.in_step()


def test_no_dummy_is_waited_for(agent):
    """Nor does it hurt, if an agent sends one all the same."""
    for i in range(4):
        agent.park("endpoint")
        agent.find_endp_inline("endpoint").close()
        if i % 2:
            agent.send_list(lists.DUMMY)
        agent.in_step()


def test_large_properties(agent, connections):
    """The descriptor comes with the first byte of a list that takes many reads."""
    prop, connection = b"p" * 60000, connections()
    assert agent.save(600, "destination", prop, "endpoint", prop, connection.fd) == OK
    with agent.find_dest_inline("destination") as found:
        assert tuple(found) == (OK, (prop, prop), connection.identity)
    agent.in_step()


def test_descriptor_in_the_middle_of_its_list(agent, connections):
    """It belongs to the list, whichever of its bytes it came with."""
    for at in (1, 10, -2, -1):
        connection = connections()
        request = encode(lists.save_endp(600, "endpoint", ""))
        agent.send(request[:at])
        agent.send(request[at:], [connection.fd])
        assert agent.read_status() == OK
        with agent.find_endp_inline("endpoint") as found:
            assert found.identity == connection.identity


def test_two_descriptors_in_one_list(daemon, agent, connections):
    """Both are closed, though they came with different bytes."""
    before = daemon.count_fds()
    one, two = connections(), connections()
    request = encode(lists.save_endp(600, "endpoint", ""))
    agent.send(request[:10], [one.fd])
    agent.send(request[10:], [two.fd])
    assert agent.read_status() == BAD
    daemon.wait_open_fds(before)
    assert agent.find_endp("endpoint").status == FAIL
    agent.in_step()


def test_save_without_a_descriptor(agent):
    """The binding is not saved either: it is one request."""
    assert agent.save(600, "destination", "", "endpoint", "", None) == FAIL
    agent.park("endpoint")
    assert agent.find_dest("destination").status == FAIL
    agent.in_step()


SAVE = lists.save(600, "destination", "", "endpoint", "")
SAVE_ENDP = lists.save_endp(600, "endpoint", "")


@pytest.mark.parametrize("attributes, n_properties", [
    (lists.save(0, "destination", "", "endpoint", ""), 0),
    (SAVE[:-1], 0),
    (SAVE + [("x", "")], 0),
    (SAVE + [INLINE], 0),
    (SAVE + 2 * [("farewell", "")], 0),
    (SAVE_ENDP + 2 * [("farewell", "")], 0),
    (SAVE_ENDP[:2] + [("farewell", "")] + SAVE_ENDP[2:], 0),
    (SAVE + 2 * [("epoch", "")], 0),
    (SAVE + [("epoch", ""), ("farewell", "")], 0),
    (lists.save_dest(600, "destination", "", "endpoint") + [("farewell", "")], 0),
    (lists.find_endp("endpoint") + [("epoch", ""), INLINE], 1),
    (lists.find_endp("endpoint") + [("handover", "")], 1),
    (lists.find_endp("endpoint") + [("handover", "outline")], 1),
    (lists.find_endp("endpoint") + 2 * [INLINE], 1),
    (lists.find_dest("destination") + [("farewell", "")], 2),
    ([("request", "find_dest"), INLINE, ("label", "destination")], 2),
], ids=str)
@pytest.mark.parametrize("count", [0, 1], ids=["bare", "with a descriptor"])
def test_malformed(daemon, connections, attributes, n_properties, count):
    agent = daemon.agent("native")
    parked = agent.park("endpoint")
    agent.bind("destination", "endpoint")
    before = daemon.count_fds()
    fds = [connections().fd for _ in range(count)]
    assert agent.request(attributes, fds, n_properties) == BAD
    agent.in_step()
    daemon.wait_open_fds(before)
    with agent.find_dest_inline("destination") as found:
        assert found.identity == parked.identity


EPOCHS = [[], [("epoch", "")], [("epoch", "7")], [("epoch", "70")]]


def test_epochs_that_agents_name(agent, connections):
    """Each finds its own, by either label, whatever comes before the epoch in a request."""
    made = [connections() for _ in EPOCHS]
    for i, (epoch, connection) in enumerate(zip(EPOCHS, made)):
        farewell = [("farewell", "BYE")] if i % 2 else []
        assert agent.request(lists.save_endp(600, "endpoint", "") + farewell + epoch, [connection.fd]) == OK
        assert agent.request(lists.save_dest(600, "destination", "", "endpoint") + epoch) == OK
    for i in (2, 0, 3, 1):
        request = [lists.find_dest("destination"), lists.find_endp("endpoint")][i % 2] + [INLINE] + EPOCHS[i]
        n_properties = 2 - i % 2
        agent.send_list(request)
        attributes, fds = agent.read_list_with_descriptor()
        assert attributes[0] == (b"status", b"0") and len(attributes) == 1 + n_properties
        assert [identity(fd) for fd in fds] == [made[i].identity]
        os.close(fds[0])
        assert agent.request(request, n_properties=n_properties) == FAIL


def test_pipelined(agent, connections):
    """Descriptors stay with their requests, and answers with their descriptors."""
    rounds = 50
    made = [connections() for _ in range(rounds)]
    for i, connection in enumerate(made):
        agent.send_list(lists.save_endp(600, f"endpoint {i}", ""), [connection.fd])
    for _ in range(rounds):
        assert agent.read_status() == OK
    for i, connection in enumerate(made):
        with agent.find_endp_inline(f"endpoint {i}") as found:
            assert found.identity == connection.identity


@pytest.mark.parametrize("name", ["find_endp_inline", "find_dest_inline"])
@pytest.mark.parametrize("step", STEPS["find_endp_inline"])
def test_vanishing_before_the_answer_is_read(daemon, dialect, name, step):
    """The connection is in the cache still, or again."""
    other = daemon.agent(dialect)
    other.bind("endpoint", "endpoint")
    connection = other.park("endpoint")
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    agent.begin(name, "endpoint").until(step)
    agent.close()
    daemon.wait_open_fds(before)
    with getattr(other, name)("endpoint") as found:
        assert found.identity == connection.identity


def test_farewell(start, connections):
    """Each connection's own, when the cache lets it go."""
    daemon = start(connection_cache_ttl_limit="1s")
    agent = daemon.agent("native")
    polite, rude, own = connections(), connections(), connections()
    assert agent.save(600, "d", "", "polite", "", polite.fd, farewell="BYE\r\n") == OK
    assert agent.save_endp_inline(600, "rude", "", rude.fd) == OK
    assert daemon.agent("postfix").save_endp_inline(600, "own", "", own.fd, farewell="*") == OK
    for connection, farewell in ((polite, b"BYE\r\n"), (rude, b""), (own, b"*")):
        connection.pass_on()
        assert connection.wait_let_go() == farewell
