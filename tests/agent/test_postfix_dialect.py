# SPDX-License-Identifier: LGPL-2.1-or-later
"""The four requests as an unmodified Postfix sends them, and all the ways to get them wrong."""

from __future__ import annotations

import itertools

import pytest

import lists
from connection import Connection, ProtocolError
from lists import DUMMY, PROPERTIES, encode
from protocol import BAD, FAIL, OK, PROTOCOL

REQUESTS = {
    "save_endp": lists.save_endp(600, "endpoint", "property"),
    "find_endp": lists.find_endp("endpoint"),
    "save_dest": lists.save_dest(600, "destination", "property", "endpoint"),
    "find_dest": lists.find_dest("destination"),
}


@pytest.fixture
def agent(daemon, dialect):
    return daemon.agent(dialect)


# Greeting.

def test_greeting_of_36_and_later(daemon):
    agent = daemon.agent("postfix", greet=False)
    agent.expect_list([("protocol", PROTOCOL)], "the greeting")
    agent.in_step()


def test_no_greeting_before_36(daemon):
    """The first thing that is heard is an answer."""
    daemon.agent("postfix-legacy").in_step()


# The four requests.

def test_find_endp(agent):
    assert tuple(agent.find_endp("endpoint")) == (FAIL, (b"",), None)
    connection = agent.park("endpoint", "its property")
    with agent.find_endp("endpoint") as found:
        assert tuple(found) == (OK, (b"its property",), connection.identity)
        assert connection.works(found.fd)
    assert tuple(agent.find_endp("endpoint")) == (FAIL, (b"",), None), "found twice"
    agent.in_step()


def test_find_dest(agent):
    assert tuple(agent.find_dest("destination")) == (FAIL, (b"", b""), None)
    agent.bind("destination", "endpoint", "of the binding")
    assert tuple(agent.find_dest("destination")) == (FAIL, (b"", b""), None)
    connection = agent.park("endpoint", "of the connection")
    with agent.find_dest("destination") as found:
        assert tuple(found) == (OK, (b"of the binding", b"of the connection"), connection.identity)
        assert connection.works(found.fd)
    assert tuple(agent.find_dest("destination")) == (FAIL, (b"", b""), None), "found twice"
    agent.in_step()


def test_destinations_and_endpoints_are_names_of_different_kinds(agent):
    connection = agent.park("name")
    assert agent.find_dest("name").status == FAIL
    agent.bind("name", "other")
    assert agent.find_dest("name").status == FAIL
    assert agent.find_endp("other").status == FAIL
    with agent.find_endp("name") as found:
        assert found.identity == connection.identity


def test_found_by_another_agent_over_the_other_dialect(daemon):
    connection = daemon.agent("postfix").park("endpoint")
    with daemon.agent("postfix-legacy").find_endp("endpoint") as found:
        assert found.identity == connection.identity


def test_a_connection_outlives_its_agent(daemon, dialect):
    before = daemon.count_fds()
    agent = daemon.agent(dialect)
    connection = agent.park("endpoint")
    agent.close()
    daemon.wait_open_fds(before + 1)
    with daemon.agent(dialect).find_endp("endpoint") as found:
        assert found.identity == connection.identity and connection.works(found.fd)


@pytest.mark.parametrize("label", [
    b"", b"\x01\x80\xff", b"two\nlines", b"request", b"dummy", b"%s%n", b"x" * 20000,
], ids=lambda label: repr(label[:12]))
def test_labels_and_properties_are_any_bytes(agent, label):
    connection = agent.park(label, label)
    agent.bind(label, label, label)
    with agent.find_dest(label) as found:
        assert tuple(found) == (OK, (label, label), connection.identity)
    connection = agent.park(label, label)
    with agent.find_endp(label) as found:
        assert tuple(found) == (OK, (label,), connection.identity)


def test_labels_are_compared_whole(agent):
    agent.park(b"label")
    for other in (b"", b"labe", b"label ", b"Label", b"label\x01"):
        assert agent.find_endp(other).status == FAIL


# Order.

def test_connections_are_found_in_the_order_of_their_saves(agent):
    parked = [agent.park("endpoint", f"number {i}") for i in range(20)]
    for i, connection in enumerate(parked):
        with agent.find_endp("endpoint") as found:
            assert tuple(found) == (OK, (b"number %d" % i,), connection.identity)


def test_bindings_are_tried_in_the_order_of_their_first_saves(agent):
    for name in ("first", "second", "third"):
        agent.bind("destination", name, f"to {name}")
    # Saving it again only renews it: neither its place nor the number of bindings changes.
    agent.bind("destination", "first", "to first")
    parked = {name: agent.park(name) for name in ("third", "second", "first")}
    for name in ("first", "second", "third"):
        with agent.find_dest("destination") as found:
            assert found.identity == parked[name].identity
            assert found.properties[0] == b"to %s" % name.encode()
    assert agent.find_dest("destination").status == FAIL


def test_the_first_endpoint_is_emptied_before_the_second(agent):
    agent.bind("destination", "first")
    agent.bind("destination", "second")
    wanted = [agent.park("first"), agent.park("first"), agent.park("second")]
    late = agent.park("first")
    wanted.insert(2, late)
    for connection in wanted:
        with agent.find_dest("destination") as found:
            assert found.identity == connection.identity


def test_bindings_with_different_properties_are_different(agent):
    """The one saved first speaks for its endpoint, until it ends."""
    agent.bind("destination", "endpoint", "one")
    agent.bind("destination", "endpoint", "two")
    for _ in range(2):
        agent.park("endpoint")
        with agent.find_dest("destination") as found:
            assert found.properties[0] == b"one"


def test_an_endpoint_may_have_many_destinations(agent):
    for i in range(10):
        agent.bind(f"destination {i}", "endpoint", f"of {i}")
    for i in reversed(range(10)):
        connection = agent.park("endpoint")
        with agent.find_dest(f"destination {i}") as found:
            assert (found.properties[0], found.identity) == (b"of %d" % i, connection.identity)


# Times to live, as far as their wording goes.

@pytest.mark.parametrize("ttl", ["1", "3600", "86400", "0000000000000000000000000000000000000001",
                                 "4294967296", "18446744073709551617", "9" * 100])
def test_good_ttl(agent, ttl):
    connection = agent.park("endpoint", "", ttl)
    agent.bind("destination", "endpoint", "", ttl)
    with agent.find_dest("destination") as found:
        assert found.identity == connection.identity


@pytest.mark.parametrize("ttl", ["0", "00", "-1", "-0", "+1", " 1", "1 ", "", "abc", "1x", "0x10",
                                 "1.5", "1e3", "1s", "\xb2", "-18446744073709551615"])
def test_bad_ttl(agent, ttl):
    ttl = ttl.encode("latin-1")
    assert agent.request(lists.save_endp(ttl, "endpoint", "")) == BAD
    assert agent.request(lists.save_dest(ttl, "destination", "", "endpoint")) == BAD
    assert agent.find_endp("endpoint").status == FAIL
    agent.in_step()


# Malformed requests.

def malformed():
    for name, attributes in REQUESTS.items():
        def case(what, changed, name=name):
            return pytest.param(changed, PROPERTIES.get(name, 0), id=f"{name} {what}")

        for at in range(1, len(attributes)):
            before, this, after = attributes[:at], attributes[at:at + 1], attributes[at + 1:]
            yield case(f"without number {at}", before + after)
            yield case(f"with number {at} repeated", before + this + this + after)
            yield case(f"with a stranger before number {at}", before + [("x", "")] + this + after)
            yield case(f"with number {at} misnamed", before + [("Label", "x")] + after)
        yield case("with nothing", attributes[:1])
        yield case("with a stranger at the end", attributes + [("x", "")])
        yield case("with a second request", attributes + attributes[:1])
        yield case("with 1,000 strangers", attributes + 1000 * [("x", "y")])
        names = [attribute[0] for attribute in attributes]
        for rest in itertools.permutations(attributes[1:]):
            changed = attributes[:1] + list(rest)
            if [attribute[0] for attribute in changed] != names:
                yield case("in the order " + " ".join(attribute[0] for attribute in rest), changed)


@pytest.mark.parametrize("attributes, n_properties", malformed())
def test_malformed(daemon, attributes, n_properties):
    """Status 1, with the empty properties that a find's answer has, and no other effect."""
    agent = daemon.agent()
    agent.bind("destination", "endpoint")
    connection = agent.park("endpoint", "as before")
    assert agent.request(attributes, n_properties=n_properties) == BAD
    agent.in_step()
    with agent.find_dest("destination") as found:
        assert tuple(found) == (OK, (b"", b"as before"), connection.identity)
    assert agent.find_dest("destination").status == FAIL


@pytest.mark.parametrize("attributes", [
    [("request", "")], [("request", "SAVE_ENDP")], [("request", "find_endp ")],
    [("request", "save_dest\n")],
    [("request", "quit"), ("label", "endpoint")], [("request", "x" * 3000)], [("request", "dummy")],
    [("label", "endpoint"), ("request", "find_endp")], [("ttl", "600")], [("status", "0")],
    [("Request", "find_endp")],
], ids=lambda attributes: str(attributes)[:40])
def test_unknown_request(agent, attributes):
    """Status 1 alone, whatever else is in the list."""
    assert agent.request(attributes) == BAD
    agent.in_step()


def test_many_unknown_requests_in_a_row(agent, daemon):
    """Every one is answered; the journal need not have a line for every one."""
    for i in range(500):
        assert agent.request([("request", f"unknown {i}")]) == BAD
    assert len(daemon.lines()) < 100, "an agent can flood the journal"


# Where lists begin and end.

@pytest.mark.parametrize("ignored", [
    encode(), encode() * 5, encode(DUMMY), encode(DUMMY) * 3, encode() + encode(DUMMY),
], ids=["empty list", "empty lists", "dummy", "dummies", "both"])
@pytest.mark.parametrize("glued", [True, False], ids=["glued", "alone"])
def test_ignored_where_a_request_is_expected(agent, ignored, glued):
    (agent.put_ahead if glued else agent.send)(ignored)
    agent.in_step()
    agent.bind("destination", "endpoint")
    (agent.put_ahead if glued else agent.send)(ignored)
    connection = agent.park("endpoint")
    (agent.put_ahead if glued else agent.send)(ignored)
    with agent.find_dest("destination") as found:
        assert found.identity == connection.identity
    agent.in_step()


@pytest.mark.parametrize("last_dummy", ["send", "glue", "never"])
def test_last_dummy(agent, last_dummy):
    """It may come at once, with the next request, or not at all."""
    agent.bind("destination", "endpoint")
    for _ in range(20):
        connection = agent.park("endpoint")
        with agent.find_dest("destination", last_dummy=last_dummy) as found:
            assert found.identity == connection.identity
        connection = agent.park("endpoint")
        with agent.find_endp("endpoint", last_dummy=last_dummy) as found:
            assert found.identity == connection.identity
        assert agent.find_endp("endpoint", last_dummy=last_dummy).status == FAIL


@pytest.mark.parametrize("eager", [1, 2])
def test_dummies_before_the_answer(agent, eager):
    """An agent that asks before it knows. On a miss, its dummies are like any others."""
    agent.bind("destination", "endpoint")
    for _ in range(5):
        connection = agent.park("endpoint")
        with agent.find_dest("destination", eager=eager) as found:
            assert found.identity == connection.identity
        assert agent.find_dest("destination", eager=eager).status == FAIL
    agent.in_step()


def test_byte_by_byte(agent):
    def send(attributes):
        for byte in encode(attributes):
            agent.send(bytes([byte]))

    send(lists.save_dest(600, "destination", "of the binding", "endpoint"))
    assert agent.read_status() == OK
    connection = Connection(agent.timeout)
    send(lists.save_endp(600, "endpoint", "of the connection"))
    agent.expect_list(DUMMY)
    agent.send(b"\0", [connection.fd])
    assert agent.read_status() == OK
    send(lists.find_dest("destination"))
    assert agent.read_answer(2) == (OK, (b"of the binding", b"of the connection"))
    send(DUMMY)
    byte, fds = agent.read_byte()
    assert (byte, len(fds)) == (b"\0", 1)
    agent.received = fds[0]
    send(DUMMY)
    send([("request", "unknown")])
    assert agent.read_status() == BAD
    agent.in_step()
    connection.close()


def test_pipelined(agent):
    """Many requests without waiting for one answer: all are answered, in order."""
    rounds = 200
    data = b""
    for i in range(rounds):
        data += encode(lists.save_dest(600, f"destination {i}", "", "endpoint"))
        data += encode(lists.find_endp("nobody saves this"))
        data += encode(DUMMY)
        data += encode([("request", "find_dest")])
        data += encode([("request", "unknown")])
        data += encode(lists.find_dest(f"destination {i}"))
    agent.send(data)
    for _ in range(rounds):
        assert agent.read_status() == OK
        assert agent.read_answer(1) == (FAIL, (b"",))
        assert agent.read_answer(2) == (BAD, (b"", b""))
        assert agent.read_status() == BAD
        assert agent.read_answer(2) == (FAIL, (b"", b""))
    agent.in_step()


def test_many_agents_in_turn(daemon, dialect):
    """What one of them says in the middle of its list does not end up in another's."""
    agents = [daemon.agent(dialect) for _ in range(20)]
    requests = [encode(lists.save_dest(600, f"destination {i}", f"property {i}", f"endpoint {i}"))
                for i in range(len(agents))]
    for at in range(max(map(len, requests))):
        for agent, data in zip(agents, requests):
            if at < len(data):
                agent.send(data[at:at + 1])
    for agent in agents:
        assert agent.read_status() == OK
    for i, agent in enumerate(agents):
        connection = agents[i - 1].park(f"endpoint {i}")
        with agent.find_dest(f"destination {i}") as found:
            assert found.properties[0] == b"property %d" % i
            assert found.identity == connection.identity


# Requests without an end.

@pytest.mark.parametrize("endless", [
    b"x" * 100, b"name\0value\0" * 10, b"request\0save_dest\0ttl\0" + b"1" * 80,
], ids=["name", "attributes", "value"])
def test_endless_list(start, dialect, endless):
    """Closed, with one line in the journal, and nobody else notices."""
    daemon = start(request_size_limit=4096)
    before = daemon.count_fds()
    other = daemon.agent(dialect)
    other.in_step()
    lines = len(daemon.lines())
    agent = daemon.agent(dialect)
    try:
        agent.send(endless * 400)
    except (BrokenPipeError, ConnectionResetError):
        pass  # closed already
    agent.read_end()
    daemon.wait_open_fds(before + 1)
    said = [line for line in daemon.lines()[lines:] if line.priority != 7]
    assert len(said) == 1 and said[0].priority == 4 and "request_size_limit" in said[0].text
    other.in_step()


def test_a_descriptor_after_a_list_at_the_limit(start, dialect, connections):
    """The byte that carries it is not counted."""
    agent = start(request_size_limit=4096).agent(dialect)
    connection = connections()
    prop = "x" * (4096 - len(encode(lists.save_endp(600, "endpoint", ""))))
    assert agent.save_endp(600, "endpoint", prop, connection.fd) == OK
    with agent.find_endp("endpoint") as found:
        assert found.identity == connection.identity and found.properties == (prop.encode(),)


def test_lists_up_to_the_limit(start, dialect):
    daemon = start(request_size_limit=4096)
    agent = daemon.agent(dialect)
    empty = len(encode(lists.save_dest(600, "destination", "", "endpoint")))
    for size in (4000, 4095, 4096):
        agent.bind("destination", "endpoint", "x" * (size - empty), ttl=600)
    # It is each list that is limited, not what an agent says in its life or in one piece.
    agent.send(100 * encode(lists.find_endp("x" * 1000)))
    for _ in range(100):
        assert agent.read_answer(1)[0] == FAIL
    with pytest.raises((ProtocolError, OSError)):
        agent.bind("destination", "endpoint", "x" * (4097 - empty), ttl=600)


def test_large_properties(agent):
    """A TLS session's properties are not small."""
    prop = bytes(range(1, 256)) * 240
    connection = agent.park("endpoint", prop)
    agent.bind("destination", "endpoint", prop)
    with agent.find_dest("destination") as found:
        assert tuple(found) == (OK, (prop, prop), connection.identity)
    agent.in_step()
