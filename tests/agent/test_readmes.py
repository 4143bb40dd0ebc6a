# SPDX-License-Identifier: LGPL-2.1-or-later
"""The maps of src/ and tests/ name what is there: files, functions, rooms, variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MAPS = ["src/README.md", "tests/README.md"]

# Names that stand for many, and files that are named by their own name in the section about their folder.
PATTERNS = {"room_verb", "thing_verb", "x_new", "x_free", "x_init", "x_release", "_deinit", "_set", "_release"}
FOLDERS = ["", "src", "src/agents", "tests", "tests/model", "tests/system", "tests/unit"]
BUILT = ("build/",)


def quoted(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", (REPOSITORY / page).read_text())


def code(*folders: str) -> str:
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".c", ".h", ".py", "")]
    return "\n".join(path.read_text(errors="replace") for path in found if path.is_file())


@pytest.mark.parametrize("page", MAPS)
def test_files_exist(page):
    named = [name for name in quoted(page) if re.fullmatch(r"[a-z_./-]+(/|\.(c|h|py|md|catalog))", name)]
    assert len(named) > 10, "the page is not written as this test reads it"
    assert [name for name in named if not name.startswith(BUILT)
            and not any((REPOSITORY / folder / name).exists() for folder in FOLDERS)] == []


@pytest.mark.parametrize("page", MAPS)
def test_functions_exist(page):
    named = {name[:-2] for name in quoted(page) if re.fullmatch(r"\w+\(\)", name)} - PATTERNS
    text = code("src", "tests")
    assert named and [name for name in sorted(named) if not re.search(rf"\b{name}\(", text)] == []


def test_every_file_of_a_room_is_in_its_row():
    rows = re.findall(r"(?m)^\| `(\w+)/` \|[^|]*\|(.*)\|$", (REPOSITORY / "src/README.md").read_text())
    assert {room for room, _ in rows} == {path.name for path in (REPOSITORY / "src").iterdir() if path.is_dir()}
    for room, files in rows:
        if room != "scachectl":  # one command-*.c for each command, and what they share
            present = {path.stem for path in (REPOSITORY / "src" / room).glob("*.[ch]")}
            assert present - set(re.findall(r"[a-z][a-z-]*", files)) == set(), room


def test_variables_are_in_the_table():
    """Those that tests read, and no others. SCACHED_SCOPE is for nobody but the program that sets it."""
    read = set(re.findall(r"environ(?:\.get\(|\[)\s*\"(SCACHED_\w+)\"", code("tests")))
    assert read == set(re.findall(r"`(SCACHED_\w+)`", (REPOSITORY / "tests/README.md").read_text()))
