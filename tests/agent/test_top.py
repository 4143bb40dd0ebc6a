# SPDX-License-Identifier: LGPL-2.1-or-later
"""The busiest destinations and endpoints: what is counted, who sees it, and how much of it there is."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from connection import wait_until
from control import Control
from protocol import FAIL, Agent
from test_isolation import ask
from tool import LABEL, Tool, daemon, manager, one_sentence, tool

ALICE, BOB = 21001, 21002
ROWS = 512


@pytest.fixture
def busy(daemon) -> Agent:
    """Traffic that can be told apart."""
    agent = daemon.agent("native")
    for count, what in ((3, lambda: agent.find_dest_inline("nowhere")), (4, lambda: agent.find_endp_inline("nowhere")),
                        (9, lambda: agent.park(LABEL)), (1, lambda: agent.bind("destination", LABEL)),
                        (5, lambda: agent.find_dest_inline("destination").close()),
                        (2, lambda: agent.find_endp_inline(LABEL).close())):
        for _ in range(count):
            what()
    return agent


def rows(daemon, kind: str, **filters) -> dict[str, dict[str, int]]:
    """By label, without the age."""
    with Control(daemon.path("control")) as control:
        found = control.top(kind, **filters)
    first = kind.removesuffix("s")
    return {row[first]: {name: int(value) for name, value in row.items() if name not in (first, "age_us", "user")}
            for row in found}


def test_rows(daemon, busy):
    assert rows(daemon, "destinations") == {
        "nowhere": {"error": 0, "parked": 0, "hits": 0, "misses_unknown": 3},
        "destination": {"error": 0, "parked": 2, "hits": 5}}
    assert rows(daemon, "endpoints") == {
        "nowhere": {"error": 0, "parked": 0, "hits": 0, "misses_unknown": 4, "dead": 0},
        LABEL: {"error": 0, "parked": 2, "hits": 7, "dead": 0}}
    busy.parked[-1].peer.close()
    wait_until(lambda: rows(daemon, "endpoints")[LABEL]["dead"] == 1, "the peer has hung up")
    assert rows(daemon, "endpoints")[LABEL]["parked"] == 1
    busy.find_dest_inline("destination").close()
    busy.find_dest_inline("destination")
    assert rows(daemon, "destinations")["destination"] == {"error": 0, "parked": 0, "hits": 6, "misses_used": 1}
    assert rows(daemon, "destinations", user=12345) == {}


@pytest.mark.parametrize("request_", [
    [("request", "top")], [("request", "top"), ("kind", "agents")], [("request", "top"), ("kind", "")],
    [("request", "top"), ("kind", "endpoints"), ("cursor", "x")], [("request", "top"), ("kind", "endpoints"), ("colour", "red")],
    [("request", "top"), ("kind", "endpoints"), ("user", "root")], [("request", "top")] + 9 * [("kind", "endpoints")]])
def test_refusals(daemon, busy, request_):
    with Agent(daemon.path("control"), "control", greet=False) as raw:
        raw.read_list()
        assert raw.request(request_) == 1
    assert rows(daemon, "endpoints")


def test_pages_are_bounded(daemon):
    """By rows and bytes; any cursor is safe; a long label is cut, and says how long it is."""
    agent = daemon.agent("native")
    for i in range(200):
        agent.find_endp_inline(f"{i} " + "x" * 300)
    with Control(daemon.path("control")) as control:
        seen = []
        for page in control.pages("top", kind="endpoints"):
            labels = [value for name, value in page if name == "endpoint"]
            assert len(labels) <= 64 and control.size <= 32 * 1024 + 1024
            seen += labels
        assert len(seen) == len(set(seen)) == 200 and {len(label) for label in seen} == {224}
        assert {row["label_size"] for row in control.top("endpoints")} == {str(len(f"{i} ") + 300) for i in (1, 10, 100)}
        for cursor in (200, 2**32, 2**64 - 1):
            assert control.ask("top", kind="endpoints", cursor=cursor) == {"rows_max": str(ROWS)}


def test_bounded_whatever_the_number_of_labels(daemon):
    """The busiest stay, the others come and go; and what a row may have missed is said."""
    agent = daemon.agent("native")
    for i in range(6000):
        assert agent.find_endp_inline(f"label {i}").status == FAIL
        assert agent.find_endp_inline(f"busy {i % 5}").status == FAIL
    found = rows(daemon, "endpoints")
    assert len(found) == ROWS
    for i in range(5):
        assert found[f"busy {i}"] == {"error": 0, "parked": 0, "hits": 0, "misses_unknown": 1200, "dead": 0}
    assert any(row["error"] > 0 for row in found.values())
    with Control(daemon.path("control")) as control:
        assert int(control.ask("status")["history_memory_bytes"]) < 1 << 20


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("share", ["no", "yes"])
def test_isolation(manager, share):
    """An agent's user sees their own; administrators see all; and what is everybody's is shown to them alone."""
    daemon = manager.start({"share_between_users": share})
    alice, bob = daemon.agent("native", uid=ALICE), daemon.agent("native", uid=BOB)
    alice.find_dest_inline("hers")
    bob.find_dest_inline("his")

    def seen(agent, *filters) -> list[bytes]:
        return [value for name, value in ask(agent, "top", ("kind", "destinations"), *filters) if name == b"destination"]

    assert seen(alice) == ([b"hers"] if share == "no" else [])
    assert seen(bob, ("user", BOB)) == ([b"his"] if share == "no" else [])
    assert ask(bob, "top", ("kind", "destinations"), ("user", ALICE)) == [(b"status", b"2")]
    assert ask(daemon.agent("postfix", uid=ALICE), "top", ("kind", "destinations")) == [(b"status", b"1")]
    assert set(rows(daemon, "destinations")) == {"hers", "his"}
    assert set(rows(daemon, "destinations", user=ALICE)) == ({"hers"} if share == "no" else set())


# The command.

def test_lines(tool, busy):
    lines = [line.split("\t") for line in tool("top").stdout.splitlines()]
    user = lines[0][1]
    assert lines == [["destination", user, "5", "0", "5", "2", "0", "-", "destination"],
                     ["destination", user, "3", "0", "0", "0", "0", "unknown=3", "nowhere"],
                     ["endpoint", user, "7", "0", "7", "2", "0", "-", r"smtp\n192.0.2.1\n25"],
                     ["endpoint", user, "4", "0", "0", "0", "0", "unknown=4", "nowhere"]]
    by_misses = [line.split("\t")[-1] for line in tool("top", "--by=misses").stdout.splitlines()]
    assert by_misses == ["nowhere", "destination", "nowhere", r"smtp\n192.0.2.1\n25"]
    by_parked = [line.split("\t")[-1] for line in tool("top", "--by=parked").stdout.splitlines()]
    assert by_parked == ["destination", "nowhere", r"smtp\n192.0.2.1\n25", "nowhere"]
    assert tool("top", "--user=12345").stdout == ""
    assert one_sentence(tool("top", "--by=colour", status=64))


def test_json(tool, daemon, busy):
    busy.find_dest_inline(b"\xff\x1b[2J\"")
    found = json.loads(tool("top", "--json").stdout)
    assert set(found) == {"rows_max", "destinations", "endpoints"} and found["rows_max"] == ROWS
    (row,) = [row for row in found["endpoints"] if row["endpoint"] == "nowhere"]
    assert 0 <= row.pop("age_us") < 3600 * 10**6
    assert row == {"endpoint": "nowhere", "user": os.getuid(), "lookups": 4, "error": 0, "hits": 0,
                   "misses": {"unknown": 4}, "parked": 0, "dead": 0}
    assert "\x1b" not in tool("top", "--json").stdout + tool("top").stdout
    many = tool("top", "--json", "--interval=0.01", "--count=3").stdout.splitlines()
    assert len(many) == 3 and all(json.loads(line)["rows_max"] == ROWS for line in many)


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_a_table_fits_the_terminal(tool, daemon, columns):
    agent = daemon.agent("native")
    for i in range(12):
        agent.find_endp_inline(f"{i}\n" + "a very long label " * 10)
    agent.park("short")
    agent.find_endp_inline("short").close()
    said = tool.on_terminal("top", columns=columns, env={"NO_COLOR": "1"})
    lines = said.splitlines()
    assert all(len(line) <= columns for line in lines), said
    assert sum("LOOKUPS" in line for line in lines) == 2 and "and 3 more" in said
    assert ("unknown 1" in said) == (columns >= 80) and "100%" in said or "short" not in said


def test_live_shows_what_is_new(tool, daemon, busy):
    """On a terminal: at first all, then what came since."""
    said = tool.on_terminal("top", "--interval=0.01", "--count=2", env={"NO_COLOR": "1"})
    first, second = said.split("\x1b[H\x1b[2J")[1:]
    assert re.search(r"(?m)^ +5  100% +2 +-  +destination$", first)
    assert second.startswith("In the last ") and re.search(r"(?m)^ +0     - +2 +-  +destination$", second)


def test_live_outlives_a_restart(tool, manager, daemon):
    process = subprocess.Popen(tool.command("top", "--json", "--interval=0.05"), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline()
        daemon.stop()
        manager.start()
        for _ in range(3):
            assert json.loads(process.stdout.readline())["destinations"] == []
    finally:
        process.kill()
        process.communicate()


def test_off(manager):
    manager.start({"connection_cache_history_limit": 0})
    said = one_sentence(Tool(manager)("top", status=69))
    assert "connection_cache_history_limit" in said
