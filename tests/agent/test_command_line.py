# SPDX-License-Identifier: LGPL-2.1-or-later
"""scachectl's command line: what is given has its effect, or is refused. Nothing is passed over."""

from __future__ import annotations

import fnmatch
import itertools
import json
import socket
import subprocess
from typing import NamedTuple, Optional

import pytest

import launch
from test_scachectl import COMMANDS, options_of
from tool import CONTROL, Tool, one_sentence

pytestmark = pytest.mark.usefixtures("built")

SERVICE = ("save-endp", "save-dest", "find-endp", "find-dest")
ARGUMENTS = {"save-endp": ["label"], "save-dest": ["label", "endpoint"], "find-endp": ["label", "--", "true"],
             "find-dest": ["label", "--", "true"], "postfix": ["enable"], "fleet": ["host"]}
OPTIONS = {
    "--json": None, "--socket": "/nowhere", "--control": "/nowhere", "--native": "/nowhere", "--timeout": "3",
    "--user": "0", "--endpoint": "*", "--destination": "*", "--bindings": None, "--format": "prometheus",
    "--output": "/nowhere/file", "--interval": "1", "--count": "1", "--ttl": "3", "--property": "text",
    "--farewell": "text", "--fd": "0", "--config-directory": "/nowhere", "--legacy": None, "--epoch": "7",
    "--destinations": "/nowhere", "--self": "host", "--transport": "fleet", "--port": "26", "--by": "misses"}

# What each command takes. That it has its effect is shown below, and for `postfix` in tests/system.
TAKES = {
    "status": {"--json", "--socket", "--control", "--timeout"},
    "list": {"--json", "--socket", "--control", "--timeout", "--user", "--endpoint", "--destination", "--bindings"},
    "flush": {"--json", "--socket", "--control", "--timeout", "--user", "--endpoint", "--destination"},
    "top": {"--json", "--socket", "--control", "--timeout", "--user", "--by", "--interval", "--count"},
    "metrics": {"--json", "--socket", "--control", "--timeout", "--format", "--output"},
    "watch": {"--json", "--socket", "--control", "--timeout", "--interval", "--count"},
    "save-endp": {"--socket", "--native", "--timeout", "--legacy", "--epoch", "--ttl", "--property", "--farewell",
                  "--fd"},
    "save-dest": {"--socket", "--native", "--timeout", "--legacy", "--epoch", "--ttl", "--property"},
    "find-endp": {"--socket", "--native", "--timeout", "--legacy", "--epoch"},
    "find-dest": {"--socket", "--native", "--timeout", "--legacy", "--epoch"},
    "postfix": {"--config-directory", "--timeout"},
    "fleet": {"--output", "--destinations", "--self", "--transport", "--port"},
}


def scachectl(*words: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run([str(launch.program("scachectl")), *words], text=True, capture_output=True,
                          **{"stdin": subprocess.DEVNULL, **how})


def given(option: str) -> str:
    value = OPTIONS[option]
    return option if value is None else f"{option}={value}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_has_everything(command):
    """What a command does not take it refuses: see test_scachectl.py."""
    assert {f"--{option}" for option in options_of(command)} == TAKES[command]


@pytest.mark.parametrize("command", TAKES)
def test_what_it_takes_it_takes_once(command):
    for option in TAKES[command]:
        said = scachectl(given(option), command, given(option), *ARGUMENTS.get(command, []))
        assert said.returncode == 64 and f"Give {option} only once" in one_sentence(said)


@pytest.mark.parametrize("words, says", [
    *[([command, given("--control"), given("--socket")], "either --control or --socket") for command in CONTROL],
    *[([command, given("--socket"), given("--native"), *ARGUMENTS[command]], "either --native or --socket")
      for command in SERVICE],
    (["metrics", "--json", "--format=openmetrics"], "either --json or --format"),
    (["flush", "--endpoint=a", "b"], "either GLOB or --endpoint"), (["postfix", "disable", "--timeout=3"], "disable has no option --timeout"),
    (["help", "list", "flush"], "Usage"),
    (["watch", "--count=0"], "--count"), (["watch", "--interval=0.0000001"], "--interval"),
    (["metrics", "--output="], "--output"), (["metrics", "--format=json"], "--format")])
def test_what_would_undo_something_else_is_refused(words, says):
    said = scachectl(*words)
    assert said.returncode == 64 and says in one_sentence(said)


@pytest.mark.parametrize("program", ["scached", "scachectl"])
@pytest.mark.parametrize("words, says", [
    (["--nothing"], 'Invalid option "--nothing"'), (["-x"], 'Invalid option "-x"'), (["-xV"], 'Invalid option "-xV"'),
    (["--version=3"], 'Invalid option "--version=3"')])
def test_an_option_that_does_not_exist(program, words, says):
    said = subprocess.run([str(launch.program(program)), *words], text=True, capture_output=True)
    assert (said.returncode, said.stdout) == (64, "")
    assert said.stderr == f'{program}: {says}; see "{program} --help".\n'


@pytest.mark.parametrize("program, option", [("scached", "-c"), ("scached", "--option"), ("scachectl", "--ttl")])
def test_an_option_without_its_value(program, option):
    said = subprocess.run([str(launch.program(program)), option], text=True, capture_output=True)
    assert (said.returncode, said.stdout) == (64, "")
    assert said.stderr == f'{program}: No value for option "{option}"; see "{program} --help".\n'


# The sockets, and how to use them.

@pytest.mark.parametrize("command", [*CONTROL, "save-dest", "find-endp", "find-dest"])
def test_sockets_and_patience(make_manager, command):
    manager = make_manager(sockets=["native", "control"])  # and nobody who answers
    path = manager.path("control" if command in CONTROL else "native")
    own = "--control" if command in CONTROL else "--native"
    for option in ("--socket", own):
        said = scachectl(command, f"{option}={path}", "--timeout=0.1", *ARGUMENTS.get(command, []), timeout=4)
        assert said.returncode == 75 and path in one_sentence(said)


def test_legacy(make_manager):
    """The service does not greet, and whoever waits for that waits in vain."""
    manager = make_manager(sockets=["postfix-legacy", "native", "control"])
    manager.start({"connection_cache_ttl_limit": "60s"})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for command, status in (("save-endp", 0), ("save-dest", 0), ("find-dest", 1), ("find-endp", 0)):
            words = [command, f"--native={manager.path('postfix-legacy')}", *ARGUMENTS[command]]
            assert scachectl("--timeout=0.1", *words, stdin=theirs).returncode == 75, words
            assert scachectl("--legacy", *words, stdin=theirs).returncode == status, words


@pytest.mark.parametrize("dialect, legacy", [("postfix", False), ("postfix-legacy", True)])
def test_a_farewell_that_nobody_would_say(make_manager, dialect, legacy):
    manager = make_manager(sockets=[dialect, "native", "control"])
    manager.start()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = scachectl("save-endp", "--farewell=BYE", f"--native={manager.path(dialect)}",
                         *["--legacy"] * legacy, "label", stdin=theirs)
        assert said.returncode == 64 and "takes no farewell" in one_sentence(said)
        assert json.loads(Tool(manager)("status", "--json").stdout)["connections"] == 0
        said = scachectl("save-endp", "--epoch=7", f"--native={manager.path(dialect)}",
                         *["--legacy"] * legacy, "label", stdin=theirs)
        assert said.returncode == 64 and "has no epochs" in one_sentence(said)
        assert scachectl("save-endp", "--farewell=BYE", f"--native={manager.path('native')}", "label",
                         stdin=theirs).returncode == 0


# Parking and finding.

def test_what_save_says(make_manager):
    manager = make_manager(sockets=["native", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    tool = Tool(manager)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        tool("save-endp", "--ttl=100", "--property=one", f"--fd={theirs.fileno()}", "endpoint",
             pass_fds=[theirs.fileno()])
        tool("save-dest", "--ttl=50", "--property=two", "destination", "endpoint")
        assert 90 < json.loads(tool("list", "--json").stdout)[0]["remaining_us"] / 1e6 <= 100
        assert 40 < json.loads(tool("list", "--json", "--bindings").stdout)[0]["remaining_us"] / 1e6 <= 50
        with daemon.agent("native").find_dest_inline("destination") as found:
            assert found.properties == (b"two", b"one")


@pytest.mark.parametrize("words", [["--", "echo", "--json", "--timeout=x"], ["echo", "--json", "--timeout=x"],
                                   ["--timeout=9", "echo", "--json", "--timeout=x"],
                                   ["--timeout=9", "--", "echo", "--json", "--timeout=x"]])
def test_options_of_the_command_are_its_own(make_manager, words):
    manager = make_manager(sockets=["native"])
    connection = manager.start().agent("native").park("label")
    Tool(manager)("find-endp", "label", *words)
    assert connection.peer.recv(100) == b"--json --timeout=x\n"


# Watching.

def test_watch_looks_as_often_as_it_is_told(make_manager):
    manager = make_manager(sockets=["native", "control"])
    manager.start()
    for count in ("1", "3"):
        assert Tool(manager)("watch", f"--count={count}", "--interval=0.01").stdout.count("\n") == int(count)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(Tool(manager).command("watch", "--count=2", "--interval=1000"), timeout=1.0,
                       stdout=subprocess.DEVNULL)


# The filters, in all their combinations, against a model.

class Parked(NamedTuple):
    uid: int
    endpoint: str


class Bound(NamedTuple):
    uid: Optional[int]
    destination: str
    endpoint: str


USERS = (0, 54321)
PARKED = [Parked(uid, endpoint) for uid in USERS for endpoint in ("mx1", "mx2", "other")]
BOUND = [Bound(uid, destination, endpoint) for uid in USERS
         for destination, endpoint in (("example.org", "mx1"), ("example.org", "mx2"), ("example.net", "mx2"))]
FILTERS = {"user": "54321", "endpoint": "*2", "destination": "*.org"}


def matches(entry: NamedTuple, filters: dict[str, str]) -> bool:
    return all(entry.uid == int(glob) if name == "user" else fnmatch.fnmatch(getattr(entry, name), glob)
               for name, glob in filters.items())


def combinations() -> list[dict[str, str]]:
    return [dict(chosen) for size in range(len(FILTERS) + 1) for chosen in itertools.combinations(FILTERS.items(), size)]


def names(filters: dict[str, str]) -> str:
    return "+".join(filters) or "none"


def as_options(filters: dict[str, str]) -> list[str]:
    return [f"--{name}={glob}" for name, glob in filters.items()]


@pytest.fixture(params=["no", "yes"], ids=["apart", "shared"])
def full(request, make_manager, root):
    """A cache with all of that in it. Gives the command, the connections, and the bindings as they are known."""
    manager = make_manager(sockets=["native", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "3600s", "share_between_users": request.param})
    agents = {uid: daemon.agent("native", uid=uid) for uid in USERS}
    connections = {parked: agents[parked.uid].park(parked.endpoint) for parked in PARKED}
    for bound in BOUND:
        agents[bound.uid].bind(bound.destination, bound.endpoint)
    bound = BOUND if request.param == "no" else sorted({Bound(None, each.destination, each.endpoint) for each in BOUND})
    return Tool(manager), connections, bound


def test_list_honours_every_combination(full):
    tool, connections, bound = full

    def listed(*options: str) -> list[tuple]:
        return sorted((entry.get("user", -1), entry.get("destination", ""), entry["endpoint"])
                      for entry in json.loads(tool("list", "--json", *options).stdout))

    for filters in combinations():
        options = as_options(filters)
        bindings = sorted((-1 if each.uid is None else each.uid, each.destination, each.endpoint)
                          for each in bound if matches(each, filters))
        assert listed("--bindings", *options) == bindings, options
        if "destination" in filters:
            assert listed(*options) == bindings, options
        else:
            assert listed(*options) == sorted((each.uid, "", each.endpoint) for each in connections
                                              if matches(each, filters)), options


@pytest.mark.parametrize("filters", combinations(), ids=names)
def test_flush_honours_every_combination(full, filters, endpoint_is_argument=False):
    tool, connections, bound = full
    leads_to = {(each.uid, each.endpoint) for each in bound
                if matches(each, {name: filters[name] for name in filters.keys() & {"destination"}})}
    wanted = {parked for parked in connections
              if matches(parked, {name: filters[name] for name in filters.keys() - {"destination"}})
              and ("destination" not in filters or leads_to & {(parked.uid, parked.endpoint), (None, parked.endpoint)})}
    words = as_options(filters)
    if endpoint_is_argument:
        words = [word.removeprefix("--endpoint=") for word in words]
    assert json.loads(tool("flush", "--json", *words).stdout) == {"flushed": len(wanted)}
    left = {Parked(entry["user"], entry["endpoint"]) for entry in json.loads(tool("list", "--json").stdout)}
    assert left == connections.keys() - wanted


@pytest.mark.parametrize("filters", [filters for filters in combinations() if "endpoint" in filters], ids=names)
def test_flush_takes_the_endpoint_as_its_argument(full, filters):
    test_flush_honours_every_combination(full, filters, endpoint_is_argument=True)
