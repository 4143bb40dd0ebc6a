# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each miss has a reason: the last that happened to what was looked up. Their sum is the number of misses."""

from __future__ import annotations

import random

import pytest

from connection import Connection, wait_until
from control import Control
from protocol import FAIL, OK
from tool import daemon, manager

REASONS = ("unknown", "expired", "dead", "evicted", "flushed", "replaced", "outdated", "busy", "used")
KINDS = ("destination", "endpoint")
TIMES = ("100ms", "200ms", "500ms", "1s", "2s", "5s", "10s", "20s", "30s", "60s", "120s", "300s", "600s", "longer")


def numbers(daemon) -> dict[str, int]:
    """All of them, after a look at whether the reasons come to the misses."""
    with Control(daemon.path("control")) as control:
        status = control.ask("status")
    found = {name: int(value) for name, value in status.items() if name != "version"}
    for kind in KINDS:
        assert sum(found[f"{kind}_misses_{reason}"] for reason in REASONS) == found[f"{kind}_misses"]
    return found


def reasons(daemon, kind: str) -> dict[str, int]:
    found = numbers(daemon)
    return {reason: found[f"{kind}_misses_{reason}"] for reason in REASONS if found[f"{kind}_misses_{reason}"]}


def miss(agent, kind: str = "both") -> None:
    if kind != "endpoint":
        assert agent.find_dest("destination").status == FAIL
    if kind != "destination":
        assert agent.find_endp("endpoint").status == FAIL


def nothing(daemon, agent) -> None:
    pass


def expire(daemon, agent) -> None:
    agent.park("endpoint", ttl=1).wait_let_go()


def die(daemon, agent) -> None:
    agent.park("endpoint").peer.close()
    wait_until(lambda: numbers(daemon)["connections_dead"] == 1, "the daemon has seen it")


def flush(daemon, agent) -> None:
    agent.park("endpoint")
    with Control(daemon.path("control")) as control:
        assert control.flush(endpoint="endpoint") == 1


def replace(daemon, agent) -> None:
    agent.park("endpoint")
    with agent.find_endp("endpoint") as found:
        assert agent.save_endp(3600, "endpoint", "", found.fd) == OK
        assert agent.save_endp(3600, "elsewhere", "", found.fd) == OK


def take(daemon, agent) -> None:
    agent.park("endpoint")
    daemon.taken = daemon.agent("native").find_endp("endpoint")


def use_up(daemon, agent) -> None:
    """An agent hangs up that had one."""
    agent.park("endpoint")
    other = daemon.agent("native")
    other.find_endp("endpoint").close()
    other.close()
    wait_until(lambda: numbers(daemon)["agents"] == 2, "the daemon has seen it")  # the other one asks


def use_up_and_go_on(daemon, agent) -> None:
    """An agent that had one looks for another one."""
    agent.park("endpoint")
    other = daemon.agent("native")
    other.find_endp("endpoint").close()
    assert other.find_dest("elsewhere").status == FAIL


@pytest.mark.parametrize("happens, reason", [
    (nothing, "unknown"), (expire, "expired"), (die, "dead"), (flush, "flushed"), (replace, "replaced"),
    (take, "busy"), (use_up, "used"), (use_up_and_go_on, "used")])
@pytest.mark.parametrize("binding", [3600, 1], ids=["bound", "no longer bound"])
def test_reasons(daemon, happens, reason, binding):
    agent = daemon.agent("native")
    agent.bind("destination", "endpoint", ttl=binding)
    happens(daemon, agent)
    if binding == 1:
        wait_until(lambda: numbers(daemon)["bindings"] == 0, "the binding has expired")
    before = reasons(daemon, "destination")
    miss(agent)
    after = reasons(daemon, "destination")
    if binding == 1 and reason == "unknown":
        reason_of_destination = "expired"  # nothing else is known
    else:
        reason_of_destination = reason
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {
        reason_of_destination: 1}
    assert reasons(daemon, "endpoint") == {reason: 1}


def test_evicted(manager):
    daemon = manager.start({"connection_cache_ttl_limit": "3600s", "connection_cache_size_limit": 1})
    agent = daemon.agent("native")
    agent.bind("destination", "endpoint")
    agent.park("endpoint", ttl=10)
    agent.park("elsewhere")
    miss(agent)
    assert reasons(daemon, "destination") == reasons(daemon, "endpoint") == {"evicted": 1}


def test_outdated(daemon):
    """Parked in another epoch: there, and not to be found. (test_epochs.py has epochs that are over.)"""
    agent = daemon.agent("native")
    connection = Connection(agent.timeout)
    assert agent.request([("request", "save"), ("ttl", 600), ("label", "destination"), ("property", ""),
                          ("label", "endpoint"), ("property", ""), ("epoch", "one")], [connection.fd]) == OK
    for request, label in (("find_dest", "destination"), ("find_endp", "endpoint")):
        agent.send_list([("request", request), ("label", label), ("epoch", "two")])
        assert agent.read_plain_list()[0] == (b"status", b"2")
    assert reasons(daemon, "destination") == reasons(daemon, "endpoint") == {"outdated": 1}
    connection.close()


def test_off(manager):
    """Nothing is remembered, and every miss is counted all the same."""
    daemon = manager.start({"connection_cache_ttl_limit": "3600s", "connection_cache_history_limit": 0})
    agent = daemon.agent("native")
    flush(daemon, agent)
    miss(agent)
    assert reasons(daemon, "endpoint") == reasons(daemon, "destination") == {"unknown": 1}
    assert numbers(daemon)["history_memory_bytes"] == 0


def test_memory_is_what_the_setting_says(manager):
    daemon = manager.start({"connection_cache_ttl_limit": "3600s", "connection_cache_history_limit": 1000})
    agent = daemon.agent("native")
    for i in range(4000):
        agent.bind(f"destination {i}", f"endpoint {i}", ttl=1 if i < 3000 else 3600)
        if i % 4 == 0:
            assert agent.find_dest(f"destination {i}").status == FAIL
    found = numbers(daemon)["history_memory_bytes"]
    assert 24 * 1000 <= found < 24 * 1000 + 64 * 192 + 512 * 512
    daemon.kill(1)
    daemon.wait_line("Read the settings again.")
    assert numbers(daemon)["history_memory_bytes"] == found


def times(daemon, name: str) -> dict[str, int]:
    found = numbers(daemon)
    return {bound: found[f"{name}_{bound}"] for bound in TIMES if found[f"{name}_{bound}"]}


def test_times(daemon):
    """Idle when it is found, idle when its peer hangs up, and since when what was missed has expired."""
    agent = daemon.agent("native")
    agent.park("endpoint")
    agent.find_endp("endpoint").close()
    assert times(daemon, "reuse_idle") == {"100ms": 1} or daemon.patience > 1
    assert times(daemon, "expired_ago") == times(daemon, "dead_idle") == {}
    connection = agent.park("endpoint", ttl=1)
    connection.wait_let_go()
    miss(agent, "endpoint")
    found = numbers(daemon)
    assert sum(times(daemon, "expired_ago").values()) == 1 and found["expired_ago_us"] < 20 * 10**6 * daemon.patience
    assert found["reuse_idle_us"] < 20 * 10**6 * daemon.patience
    die(daemon, agent)
    assert sum(times(daemon, "dead_idle").values()) == 1


def test_sums_outlive_a_restart(manager, daemon):
    agent = daemon.agent("native")
    flush(daemon, agent)
    miss(agent)
    agent.park("other")
    before = numbers(daemon)
    daemon.stop()
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    after = numbers(daemon)
    for name in [f"{kind}_misses_{reason}" for kind in KINDS for reason in REASONS] + ["reuse_idle_us"]:
        assert after[name] == before[name], name
    # What was remembered is not kept: it is known by keys that the process has chosen.
    miss(daemon.agent("native"), "endpoint")
    assert reasons(daemon, "endpoint") == {"flushed": 1, "unknown": 1}


def test_verbose_lines_say_the_reason(manager):
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"}, ["-v"])
    agent = daemon.agent("native")
    flush(daemon, agent)
    miss(agent)
    daemon.wait_line(r"find_endp endpoint for agent \d+ of user \d+: not found \(flushed, \d+\.\d s ago\)")
    daemon.wait_line(r"find_dest destination for agent \d+ of user \d+: not found \(unknown\)")


def test_the_sum_is_the_number_of_misses(manager):
    """Whatever agents do, and however many labels there are."""
    daemon = manager.start({"connection_cache_ttl_limit": "1s", "connection_cache_size_limit": 20,
                            "connection_cache_history_limit": 64})
    agents = [daemon.agent("native") for _ in range(4)]
    chance = random.Random(20261128)
    for _ in range(1500):
        agent, label = chance.choice(agents), f"label {chance.randrange(100)}"
        what = chance.randrange(6)
        if what == 0:
            agent.park(label)
        elif what == 1:
            agent.bind(label, f"label {chance.randrange(100)}")
        elif what in (2, 3):
            agent.find_dest_inline(label).close()
        elif what == 4:
            agent.find_endp_inline(label).close()
        elif chance.random() < 0.05:
            agents[agents.index(agent)] = daemon.agent("native")
            agent.close()
    found = numbers(daemon)
    assert found["destination_misses"] > 100 and found["endpoint_misses"] > 50
    with Control(daemon.path("control")) as control:
        rows = {kind: control.top(kind) for kind in ("destinations", "endpoints")}
    for kind in KINDS:
        of_rows = sum(int(value) for row in rows[f"{kind}s"] for name, value in row.items() if name.startswith("misses_"))
        assert of_rows == found[f"{kind}_misses"], "each was counted among the busiest, which have room for all"
