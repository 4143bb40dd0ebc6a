# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house keeps its rules (src/README.md draws it).

- A room is a folder of src/. The rooms of the daemon are floors: a file includes what lies in its own room or on a floor below,
  never what lies above. The cache and the wire are beside each other and know only base; settings knows only base, too.
- Beside the daemon are the library and the command, which know base and wire, and the command knows the library.
- A file is a .c and the .h of the same name, taken together. An arrow goes from a file to each that it includes. Arrows make no
  circle, inside a room either: each file can be read before all that use it.
- libsystemd is known in scached, handover and daemon only.
- No room holds more than a quarter of the lines.
- The first line of a header, after that of the licence, says its room and what it is for.
- What may drop the last copy of a descriptor, and so wait for whoever likes, is called where we say, for the reason that we say.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# From the top: a room may include those that come after it in a line, and what these may include.
FLOORS = (
    ("scached", "agents", "handover", "custody", "daemon", "base"),
    ("agents", "epochs", "settings"), ("epochs", "cache"), ("epochs", "daemon"),
    ("handover", "settings"), ("custody", "cache"), ("handover", "wire"), ("cache", "base"), ("wire", "base"),
    ("settings", "base"), ("scachectl", "libscache", "wire", "base"),
)
LIBSYSTEMD = {"scached", "handover", "daemon"}
SHARE_MAX = 0.25
LICENCE = "/* SPDX-License-Identifier: LGPL-2.1-or-later */\n"

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def rooms_below() -> dict[str, set[str]]:
    """What each room may include besides itself: what is directly below it, and what is below that."""
    below: dict[str, set[str]] = {room: set() for line in FLOORS for room in line}
    for line in FLOORS:
        for upper, lower in zip(line, line[1:]):
            below[upper].add(lower)
    for _ in below:
        for rooms in below.values():
            rooms.update(*(below[room] for room in rooms))
    return below


BELOW = rooms_below()


class Include(NamedTuple):
    path: Path
    line: int
    name: str
    target: Path | None  # in src/, None for one of the system's

    def __str__(self) -> str:
        return f"{self.path}:{self.line} includes {self.name}"


def sources(source: Path) -> list[Path]:
    return sorted(path.relative_to(source) for path in source.rglob("*.[ch]"))


def includes(source: Path) -> Iterator[Include]:
    for path in sources(source):
        text = (source / path).read_text()
        for match in INCLUDE.finditer(text):
            name = match.group(1) or match.group(2)
            target = next((target for target in (Path(name), path.parent / name) if (source / target).is_file()), None)
            yield Include(path, text.count("\n", 0, match.start(match.lastindex)) + 1, name, target)


def wrong_floors(source: Path) -> list[str]:
    """Every include that points up or aside, every one of libsystemd where it is not known, every file in no room."""
    wrong = [f"{path} is in no room" for path in sources(source) if path.parts[0] not in BELOW]
    for include in includes(source):
        room = include.path.parts[0]
        if include.name.startswith("systemd/") and room not in LIBSYSTEMD:
            wrong.append(f"{include}: libsystemd is the daemon's alone")
        if include.target and include.target.parts[0] not in {room} | BELOW.get(room, set()):
            wrong.append(f"{include}: {room} knows nothing of {include.target.parts[0]}")
    return wrong


def circles(source: Path) -> list[str]:
    """Every circle of files, each told once: what a file leads to, and what of that leads back to it."""
    arrows: dict[Path, set[Path]] = {}
    for include in includes(source):
        if include.target:
            arrows.setdefault(include.path.with_suffix(""), set()).add(include.target.with_suffix(""))

    def reach(file: Path) -> set[Path]:
        seen: set[Path] = set()
        ahead = arrows.get(file, set()) - {file}
        while ahead:
            seen |= ahead
            ahead = {after for before in ahead for after in arrows.get(before, set()) - {before}} - seen
        return seen

    leads_to = {file: reach(file) for file in arrows}
    found = {frozenset(other for other in leads_to[file] if file in leads_to.get(other, ())) for file in arrows}
    return ["a circle: " + ", ".join(sorted(map(str, circle))) for circle in found if circle]


def too_large(source: Path) -> list[str]:
    lines = Counter[str]()
    for path in sources(source):
        lines[path.parts[0]] += len((source / path).read_text().splitlines())
    total = sum(lines.values())
    return [f"{room} holds {n} of {total} lines" for room, n in lines.items() if n > SHARE_MAX * total]


def silent_headers(source: Path) -> list[str]:
    """Every header whose first line, after that of the licence, does not name its room and say what the header is for."""
    wrong = []
    for path in sources(source):
        first = (source / path).read_text().removeprefix(LICENCE).split("\n", 1)[0]
        if path.suffix == ".h" and not re.fullmatch(rf"/\* {path.parts[0]}: \S.* \*/", first):
            wrong.append(f"{path}: {first}")
    return wrong


# Calls that drop a descriptor, or what has come with what they read. The command and the library are others' processes.
DROPS = re.compile(r"\b(close|closep|fclose|closedir|close_range|dup[23]|read|readv|recv|recvfrom|recvmsg|recvmmsg)\s*\(|"
                   r"\(closep\)|\bSYS_(?:close|recv)\w*")
OTHER_PROCESSES = {"scachectl", "libscache"}
MAY_DROP = {
    "base/cleanup.h: closep": "for all below",
    "custody/worker.c: close_it": "a worker's: it may wait",
    "custody/worker.c: receive": "a worker's",
    "wire/message.c: wire_receive_with": "has room for as many descriptors as can come",
    "wire/message.c: discard": "the library's",
    "handover/parcels.c: receive_batch": "has room for as many descriptors as a parcel of ours brings at once",
    "handover/parcels.c: look": "leaves all where it is",
    "handover/passed.c: sort_in": "a file in memory",
    "handover/passed.c: passed_free": "a file in memory",
    "handover/goodbye.c: count_slots": "a file of the kernel's",
    "handover/goodbye.c: drop_all_but_ours": "in a process of its own",
    "handover/goodbye.c: wait_for_end": "in a process of its own, and takes one byte",
    "handover/goodbye.c: leave": "in a process of its own",
    "handover/handover.c: sealed_file": "a file in memory that we have made",
    "handover/handover.c: store_index": "a file in memory that we have made",
    "handover/handover.c: save": "the end of a parcel to which nobody sends",
    "daemon/notify.c: message_free": "sent, so the receiver has a copy, or taken back before: notify_take_back()",
    "daemon/notify.c: notify_settle": "a pipe of ours",
    "daemon/datagram.c: datagram_release": "a socket of ours that only sends",
    "daemon/datagram.c: connect_to": "a socket of ours that only sends",
    "daemon/errand.c: on_done": "an eventfd of ours",
    "daemon/errand.c: errands_free": "an eventfd of ours",
    "daemon/loop.c: loop_free": "an epoll set of ours",
    "custody/disposal.c: on_ready": "a signalfd of ours",
    "custody/disposal.c: disposal_free": "a signalfd of ours",
    "settings/file.c: settings_file_read": "a file of the administrator's, read at start and reload",
    "epochs/process.c: read_at": "in the thread of daemon/errand.c: it may wait",
    "epochs/process.c: process_read": "in the thread of daemon/errand.c: it may wait",
    "epochs/process.c: process_read_mounts": "in the thread of daemon/errand.c: it may wait",
}


def without_comments(text: str) -> str:
    """As long as before, so that places stay what they are."""
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)


def drops(source: Path) -> Iterator[str]:
    """FILE: FUNCTION of each such call."""
    for path in sources(source):
        if path.parts[0] in OTHER_PROCESSES:
            continue
        text = without_comments((source / path).read_text())
        for match in DROPS.finditer(text):
            before = text[:text.index("\n", match.end())]
            function = re.findall(r"^\w[^;{}()\n]*\b(\w+)\([^;{}]*\) \{", before, re.MULTILINE)
            yield f"{path}: {function[-1] if function else match[0]}"


def unknown_drops(source: Path) -> list[str]:
    return [place for place in drops(source) if place not in MAY_DROP]


RULES = [wrong_floors, circles, too_large, silent_headers, unknown_drops]


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_kept(rule) -> None:
    assert not (wrong := rule(SOURCE)), "\n".join(wrong)


def test_every_place_that_may_drop_something_does() -> None:
    assert set(MAY_DROP) == set(drops(SOURCE))


def test_every_room_is_one_we_know() -> None:
    assert {path.name for path in SOURCE.iterdir() if path.is_dir()} == set(BELOW)


# src/README.md, the map.

MAP = (SOURCE / "README.md").read_text()


def test_map_shows_every_file() -> None:
    rows = dict(re.findall(r"(?m)^\| `(\w+)/` \| [^|]*\| (.*) \|$", MAP))
    assert set(rows) == set(BELOW)
    missing = [path for path in sources(SOURCE)
               if not re.search(rf"\b{path.stem}\b", rows[path.parts[0]]) and path.parts[0] != "scachectl"]
    assert missing == []


def test_map_names_what_exists() -> None:
    """Files by their path, and functions, in the file that is named with them if there is one."""
    text = {str(path): (SOURCE / path).read_text() for path in sources(SOURCE)}
    code = "".join(text.values())
    named = re.findall(r"`([\w./-]+\.[ch])`, `(\w+)\(\)`", MAP)
    assert len(named) > 8
    assert [(name, function) for name, function in named if not re.search(rf"\b{function}\(", text.get(name, ""))] == []
    assert [name for name in set(re.findall(r"`(\w+)\(\)`", MAP))
            if not re.search(rf"\b{name}\(", code) and not re.match(r"x?_|room_|thing_", name)] == []
    for path in set(re.findall(r"`([\w.-]+/[\w./-]+)`", MAP)):
        assert (SOURCE / path).exists() or (SOURCE.parent / path).exists() or path.startswith("build/"), path


# A house that keeps every rule.
HOUSE = {
    "base/slice.h": "", "wire/list.h": '#include "base/slice.h"', "cache/cache.h": '#include "base/slice.h"',
    "daemon/loop.h": "#include <systemd/sd-event.h>", "settings/settings.h": "",
    "custody/watch.h": '#include "cache/cache.h"\n#include "daemon/loop.h"',
    "handover/index.h": '#include "custody/watch.h"\n#include "wire/list.h"\n#include "settings/settings.h"',
    "agents/agent.h": '#include "handover/index.h"', "agents/agent.c": '#include "agents/agent.h"',
    "agents/agents.c": '#include "agents/agent.h"',
    "scached/main.c": '#include "agents/agent.h"\n#include "base/slice.h"',
    "libscache/scache.h": '#include "wire/list.h"', "scachectl/main.c": '#include "libscache/scache.h"',
}


def build(source: Path, house: dict[str, str]) -> Path:
    for name, text in house.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(f"{LICENCE}/* {name.split('/')[0]}: a part of it */\n{text}\n")
    return source


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_found_where_rules_are_kept(tmp_path: Path, rule) -> None:
    assert rule(build(tmp_path, HOUSE)) == []


@pytest.mark.parametrize("rule, name, text, found", [
    (wrong_floors, "cache/intruder.c", '#include "wire/list.h"', "cache knows nothing of wire"),
    (wrong_floors, "cache/intruder.c", '#include "agents/agent.h"', "cache knows nothing of agents"),
    (wrong_floors, "wire/intruder.c", '#include "cache/cache.h"', "wire knows nothing of cache"),
    (wrong_floors, "wire/intruder.c", "#include <systemd/sd-event.h>", "libsystemd is the daemon's alone"),
    (wrong_floors, "agents/intruder.c", "#include <systemd/sd-daemon.h>", "libsystemd is the daemon's alone"),
    (wrong_floors, "base/intruder.h", '#  include "wire/list.h"', "base knows nothing of wire"),
    (wrong_floors, "settings/intruder.c", '#include "daemon/loop.h"', "settings knows nothing of daemon"),
    (wrong_floors, "daemon/intruder.c", '#include "cache/cache.h"', "daemon knows nothing of cache"),
    (wrong_floors, "custody/intruder.c", '#include "settings/settings.h"', "custody knows nothing of settings"),
    (wrong_floors, "handover/intruder.c", '#include "agents/agent.h"', "handover knows nothing of agents"),
    (wrong_floors, "libscache/intruder.c", '#include "cache/cache.h"', "libscache knows nothing of cache"),
    (wrong_floors, "scachectl/intruder.c", '#include "agents/agent.h"', "scachectl knows nothing of agents"),
    (wrong_floors, "scached/intruder.c", '#include "libscache/scache.h"', "scached knows nothing of libscache"),
    (wrong_floors, "attic/intruder.c", "#include <stdio.h>", "in no room"),
    (circles, "agents/agent.h", '#include "agents/exchange.h"', "agents/agent, agents/exchange"),
    (circles, "base/slice.h", '#include "agents/exchange.h"', "agents/agent, agents/exchange, base/slice"),
    (too_large, "wire/intruder.c", "\n" * 1000, "wire holds"),
    (silent_headers, "wire/intruder.h", LICENCE, "wire/intruder.h"),
    (silent_headers, "cache/intruder.h", "/* wire: somebody else's */", "cache/intruder.h"),
    (unknown_drops, "agents/intruder.c", "void f(int fd) {\n        (void) close(fd);\n}", "agents/intruder.c: f"),
    (unknown_drops, "agents/intruder.c", "int f(void) {\n        _cleanup_(closep) int fd = -1;\n}", "agents/intruder.c: f"),
    (unknown_drops, "wire/intruder.c", "static int f(int fd) {\n        return recv(fd, NULL, 0, 0);\n}", "wire/intruder.c: f"),
])
def test_a_violation_is_found(tmp_path: Path, rule, name: str, text: str, found: str) -> None:
    build(tmp_path, HOUSE | {"agents/exchange.c": '#include "agents/agent.h"', "agents/exchange.h": ""})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert len(wrong := rule(tmp_path)) == 1 and found in wrong[0], wrong
