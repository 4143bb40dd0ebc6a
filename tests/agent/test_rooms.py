"""The house as design.md draws it: what a room includes lies in the same room or below it, never beside it or above."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"

# What each room may include besides itself.
BELOW = {
    "base": set(),
    "cache": {"base"},
    "wire": {"base"},
    "libscache": {"base", "wire"},
    "scachectl": {"base", "wire", "libscache"},
    "daemon": {"base", "wire", "cache"},
    "custody": {"base", "wire", "cache", "daemon"},
    "settings": {"base"},
    "handover": {"base", "wire", "cache", "daemon", "custody", "settings"},
    "agents": {"base", "wire", "cache", "daemon", "custody", "settings", "handover"},
    "scached": {"base", "wire", "cache", "daemon", "custody", "settings", "handover", "agents"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


class Include(NamedTuple):
    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} includes {self.name}"


def includes(source: Path) -> Iterator[Include]:
    for path in sorted(source.rglob("*.[ch]")):
        text = path.read_text()
        for match in INCLUDE.finditer(text):
            yield Include(path.relative_to(source), text.count("\n", 0, match.start(match.lastindex)) + 1,
                          match.group(1) or match.group(2))


def violations(source: Path) -> list[str]:
    """Every include that points up or aside, and every one of libsystemd outside of the daemon."""
    wrong = []
    for include in includes(source):
        room = include.file.parts[0]
        if room not in BELOW:
            wrong.append(f"{include.file} is in no room")
            continue
        if include.name.startswith("systemd/") and room not in ("scached", "handover", "daemon"):
            wrong.append(f"{include}: libsystemd is the daemon's alone")
        path = source / include.name if (source / include.name).is_file() else source / room / include.name
        if not path.is_file():
            continue  # the system's
        target = path.relative_to(source).parts[0]
        if target != room and target not in BELOW[room]:
            wrong.append(f"{include}: {room} knows nothing of {target}")
    return wrong


def test_arrows_only_point_down() -> None:
    assert not (wrong := violations(SOURCE)), "\n".join(wrong)


def test_every_room_is_one_we_know() -> None:
    assert {path.name for path in SOURCE.iterdir() if path.is_dir()} <= set(BELOW)


def test_headers_say_what_they_are_for() -> None:
    """The first line of a header names its room, or the part of it, and says in one line what it is for."""
    wrong = []
    for path in sorted(SOURCE.rglob("*.h")):
        first, *_ = path.read_text().splitlines()
        if not re.fullmatch(r"/\* [a-z]+: \S.* \*/", first):
            wrong.append(f"{path.relative_to(SOURCE)}: {first}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room, line", [
    ("cache", '#include "wire/list.h"'),
    ("cache", '#include "agents/agent.h"'),
    ("wire", '#include "cache/cache.h"'),
    ("wire", "#include <systemd/sd-event.h>"),
    ("base", '#  include "wire/list.h"'),
    ("libscache", '#include "cache/cache.h"'),
    ("libscache", "#include <systemd/sd-daemon.h>"),
    ("scachectl", '#include "agents/control.h"'),
    ("scached", '#include "libscache/scache.h"'),
    ("attic", "#include <stdio.h>"),
])
def test_a_violation_is_found(tmp_path: Path, room: str, line: str) -> None:
    for name in ("cache/cache.h", "wire/list.h", "agents/agent.h", "agents/control.h", "libscache/scache.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert not violations(tmp_path)
    (tmp_path / room).mkdir(exist_ok=True)
    (tmp_path / room / "intruder.c").write_text(f"#include <stdio.h>\n{line}\n" if room != "attic" else line)
    assert len(violations(tmp_path)) == 1
