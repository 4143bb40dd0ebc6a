# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one user's agents save, only the same user's agents find."""

from __future__ import annotations

import pytest

from connection import Connection
from protocol import FAIL, OK

pytestmark = pytest.mark.usefixtures("root")

ALICE, BOB = 21001, 21002
FINDS = ("find_endp", "find_dest", "find_endp_inline", "find_dest_inline")
USERS = [(ALICE, BOB), (ALICE, 0), (0, ALICE), (65534, ALICE), (0xfffffffe, 0)]


def park_as(agent, label: str, one_trip: bool) -> Connection:
    """A connection and a binding to it, both of this label."""
    connection = Connection(agent.timeout)
    if one_trip:
        assert agent.save(600, label, "binding", label, "property", connection.fd) == OK
    else:
        assert agent.save_endp(600, label, "property", connection.fd) == OK
        assert agent.save_dest(600, label, "binding", label) == OK
    connection.pass_on()
    agent.parked.append(connection)
    return connection


@pytest.mark.parametrize("mine, theirs", USERS)
@pytest.mark.parametrize("one_trip", [False, True], ids=["postfix", "one trip"])
@pytest.mark.parametrize("find", FINDS)
def test_found_by_its_own_user_only(daemon, mine, theirs, one_trip, find):
    owner = daemon.agent("native", uid=mine)
    stranger = daemon.agent("native", uid=theirs)
    connection = park_as(owner, "label", one_trip)
    assert getattr(stranger, find)("label").status == FAIL
    for dialect in ("postfix", "postfix-legacy"):
        assert getattr(daemon.agent(dialect, uid=theirs), find.removesuffix("_inline"))(
            "label").status == FAIL
    # Another process of the user that saved it.
    with getattr(daemon.agent("native", uid=mine), find)("label") as found:
        assert found.status == OK and found.identity == connection.identity


def ask(agent, *attributes) -> list[tuple[bytes, bytes]]:
    """A request of the control protocol, on whatever dialect, and its answer."""
    agent.send_list([("request", attributes[0]), *attributes[1:]])
    return agent.read_plain_list("an answer")


def labels(answer: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in answer if name == b"endpoint"]


@pytest.mark.parametrize("share", ["no", "yes"])
def test_list_and_flush_of_ones_own(start, share):
    """Agents may list and flush what their own user saved, and nothing else, also where users find each other's."""
    daemon = start(share_between_users=share)
    alice, bob = daemon.agent("native", uid=ALICE), daemon.agent("native", uid=BOB)
    hers, his = park_as(alice, "hers", False), park_as(bob, "his", True)

    assert labels(ask(alice, "list")) == [b"hers"]
    assert labels(ask(bob, "list", ("user", BOB))) == [b"his"]
    assert ask(bob, "list", ("user", ALICE)) == [(b"status", b"2")]
    assert ask(bob, "flush", ("user", ALICE)) == [(b"status", b"2")]
    assert ask(bob, "flush", ("endpoint", "hers")) == [(b"status", b"0"), (b"flushed", b"0")]
    assert (b"flushed", b"1") in ask(bob, "flush")
    assert his.wait_let_go() == b""
    hers.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        hers.peer.recv(1)
    assert labels(ask(alice, "list")) == [b"hers"]


@pytest.mark.parametrize("dialect, request_name", [
    ("native", "status"), ("postfix", "status"), ("postfix", "list"), ("postfix", "flush")])
def test_other_requests_of_administrators_are_unknown(daemon, dialect, request_name):
    assert ask(daemon.agent(dialect, uid=ALICE), request_name) == [(b"status", b"1")]


@pytest.mark.parametrize("share", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("find", FINDS)
def test_share_between_users(start, share, find):
    daemon = start(share_between_users="yes" if share else "no")
    owner, stranger = daemon.agent("native", uid=ALICE), daemon.agent("native", uid=BOB)
    connection = park_as(owner, "label", False)
    with getattr(stranger, find)("label") as found:
        assert found.status == (OK if share else FAIL)
        assert found.identity == (connection.identity if share else None)


def test_shared_halves(start):
    """With share_between_users=yes, one user's binding leads to another's connection."""
    daemon = start(share_between_users="yes")
    alice, bob = daemon.agent(uid=ALICE), daemon.agent(uid=BOB)
    connection = alice.park("endpoint", "property")
    bob.bind("destination", "endpoint", "binding")
    with daemon.agent(uid=0).find_dest("destination") as found:
        assert tuple(found) == (OK, (b"binding", b"property"), connection.identity)


@pytest.mark.parametrize("find", FINDS)
def test_same_labels_of_two_users(daemon, find):
    """Each finds its own, in its own order."""
    agents = {uid: daemon.agent("native", uid=uid) for uid in (ALICE, BOB)}
    parked = {uid: [] for uid in agents}
    for _ in range(3):
        for uid, agent in agents.items():
            parked[uid].append(park_as(agent, "label", False))
    for number in range(3):
        for uid, agent in agents.items():
            with getattr(agent, find)("label") as found:
                assert found.identity == parked[uid][number].identity
    for agent in agents.values():
        assert getattr(agent, find)("label").status == FAIL


def test_a_binding_leads_only_to_connections_of_its_user(daemon):
    """To bind a destination of one's own to somebody else's endpoint does not help."""
    alice, bob = daemon.agent(uid=ALICE), daemon.agent(uid=BOB)
    connection = park_as(alice, "endpoint", False)
    for label in ("endpoint", "destination", f"{ALICE}", f"{ALICE}:endpoint", f"{ALICE}\nendpoint"):
        bob.bind(label, "endpoint")
        assert bob.find_dest(label).status == FAIL
    with alice.find_dest("endpoint") as found:
        assert found.identity == connection.identity
        assert found.properties == (b"binding", b"property")


def test_a_binding_is_not_led_astray(daemon):
    """Nobody else can put a connection under an endpoint that one's bindings lead to, nor change
    these."""
    alice, bob = daemon.agent(uid=ALICE), daemon.agent(uid=BOB)
    alice.bind("destination", "endpoint", "binding")
    theirs = park_as(bob, "endpoint", False)
    bob.bind("destination", "endpoint", "binding")
    bob.bind("destination", "elsewhere", "evil")
    park_as(bob, "elsewhere", False)
    assert alice.find_dest("destination").status == FAIL
    mine = alice.park("endpoint")
    with alice.find_dest("destination") as found:
        assert found.identity == mine.identity and found.properties == (b"binding", b"")
    with bob.find_dest("destination") as found:
        assert found.identity == theirs.identity


def test_what_was_not_taken_stays_its_users(daemon):
    """A connection that comes back from an agent comes back to the user it is of."""
    alice, bob = daemon.agent(uid=ALICE), daemon.agent(uid=BOB)
    connection = park_as(alice, "label", False)
    before = daemon.count_fds()
    vanishing = daemon.agent(uid=ALICE)
    vanishing.begin("find_endp", "label").until("answered")
    vanishing.close()
    daemon.wait_open_fds(before)
    assert bob.find_endp("label").status == FAIL
    with alice.find_endp("label") as found:
        assert found.identity == connection.identity


@pytest.mark.parametrize("share", ["no", "yes"])
@pytest.mark.parametrize("mine, theirs", USERS)
def test_a_socket_is_one_users(start, connections, share, mine, theirs):
    """Who has a copy of a socket that another user has parked cannot park it as well, not even where users share."""
    daemon = start(share_between_users=share)
    owner, stranger = daemon.agent("native", uid=mine), daemon.agent("native", uid=theirs)
    connection = connections()
    assert owner.save_endp(600, "label", "mine", connection.fd) == OK
    for save in (stranger.save_endp, stranger.save_endp_inline):
        assert save(600, "label", "theirs", connection.fd) == FAIL
    assert stranger.save(600, "label", "", "label", "theirs", connection.fd) == FAIL
    daemon.wait_line(f"of user {theirs} sent a connection that another user has parked")
    with owner.find_endp_inline("label") as found:
        assert found.identity == connection.identity and found.properties == (b"mine",)
    owner.in_step()
    assert stranger.save_endp(600, "label", "theirs", connection.fd) == OK
