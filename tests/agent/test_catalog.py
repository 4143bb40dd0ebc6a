# SPDX-License-Identifier: LGPL-2.1-or-later
"""The message catalog explains every kind of line in the journal, and nothing that does not exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CATALOG = REPOSITORY / "units/scached.catalog"
EVENTS = REPOSITORY / "src/daemon/events.h"

# Each entry tells an administrator these things, in this order.
PARAGRAPHS = ["What happened", "For mail", "What to do"]

# What journalctl may put into an explanation: fields that every line about an agent has, and the label, which only
# some of them have. A field that a line lacks would show as its bare name.
AGENT_FIELDS = {"SCACHED_DIALECT", "SCACHED_AGENT_PID", "SCACHED_AGENT_UID"}
WITH_LABEL = {"DESCRIPTOR_MISSING", "DESCRIPTOR_REFUSED", "HAND_OVER_FAILED"}

COLUMNS = 80 - len("-- ")   # which journalctl puts before each line


class Entry(NamedTuple):
    event: str
    message_id: str
    headers: dict[str, str]
    paragraphs: list[str]


def events() -> dict[str, str]:
    """The message id of each event in the code, by its name."""
    found = re.findall(r'\bEVENT\((\w+), "([0-9a-f]{32})"', EVENTS.read_text())
    assert len(found) > 10, f"{EVENTS} is not written as this test reads it"
    assert len({message_id for _, message_id in found}) == len(found), "two events share a message id"
    return dict(found)


def entries() -> list[Entry]:
    """What the catalog has, read independently of journalctl."""
    found = []
    for text in re.split(r"(?m)^# (?=[A-Z_]+\n-- )", CATALOG.read_text())[1:]:
        event, rest = text.split("\n", 1)
        head, body = rest.split("\n\n", 1)
        first, *headers = head.splitlines()
        assert first.startswith("-- "), f"{event}: expected an id, found {first!r}"
        paragraphs = [p for p in re.split(r"\n\n+", body.strip()) if not p.startswith("#")]
        found.append(Entry(event, first[3:], dict(line.split(": ", 1) for line in headers), paragraphs))
    return found


def test_code_and_catalog_agree():
    assert {entry.event: entry.message_id for entry in entries()} == events()
    assert len(entries()) == len(re.findall(r"(?m)^-- ", CATALOG.read_text())), "an entry without its event's name"


def test_catalog_is_in_the_order_of_the_code():
    assert [entry.event for entry in entries()] == list(events())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.event)
def test_entry_says_what_happened_what_it_means_and_what_to_do(entry):
    assert [p.split(":")[0] for p in entry.paragraphs] == PARAGRAPHS
    assert all(p.partition(":")[2].strip().endswith(".") for p in entry.paragraphs)
    assert entry.headers["Subject"] and entry.headers["Defined-By"] == "scached"
    assert re.fullmatch(r"(man:[\w.-]+\(\d\) ?)+", entry.headers["Documentation"])


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.event)
def test_entry_uses_only_fields_that_its_lines_have(entry):
    text = "\n".join(entry.paragraphs) + entry.headers["Subject"]
    fields = set(re.findall(r"@(\w+)@", text))
    if fields:
        speaks = f"journal_say\\([^;]*?\\b{entry.event}, &subject"
        code = "".join(path.read_text() for path in (REPOSITORY / "src").glob("*/*.c"))
        calls = re.findall(f"journal_say\\([^;]*?\\b{entry.event},", code)
        # The events of refusals are in a table, and each of its rows is used with an agent.
        if re.search(rf"\{{ EVENT_{entry.event},", code):
            calls += re.findall(r"journal_write\([^;]*?\brefusals\[why\]\.event,", code)
            speaks += r"|journal_write\([^;]*?\brefusals\[why\]\.event, &subject"
        assert calls and len(calls) == len(re.findall(speaks, code)), "a line of this kind is not about an agent"
    assert fields <= AGENT_FIELDS | ({"SCACHED_LABEL"} if entry.event in WITH_LABEL else set())


def test_every_event_is_used():
    code = "".join(path.read_text() for path in (REPOSITORY / "src").glob("*/*.c"))
    unused = [name for name in events() if not re.search(rf"\b(EVENT_)?{name}\b", code)]
    assert unused == []


def test_lines_fit_a_terminal():
    inside = CATALOG.read_text().split("\n-- ", 1)[1]
    assert [line for line in inside.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.skipif(not shutil.which("journalctl"), reason="needs journalctl")
def test_journalctl_takes_it(tmp_path):
    """journalctl compiles the catalog, complains about nothing, and has every entry afterwards."""
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, folder)
    update = subprocess.run(["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True,
                            timeout=30)
    assert (update.returncode, update.stdout, update.stderr) == (0, "", "")
    dump = subprocess.run(["journalctl", f"--root={tmp_path}", "--dump-catalog"], capture_output=True, text=True,
                          timeout=30)
    assert dump.returncode == 0, dump.stderr
    shown = dict(re.findall(r"(?m)^-- ([0-9a-f]{32})\nSubject: (.*)$", dump.stdout))
    assert shown == {entry.message_id: entry.headers["Subject"] for entry in entries()}
