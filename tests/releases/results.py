# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the suites of each release came to, and the table of it."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Callable

REPO = Path(__file__).resolve().parents[2]


class Results:
    """Of one release: what tests/releases/inside has reported."""

    def __init__(self, report: Path):
        self.suites: dict[str, dict] = {}
        self.versions: dict[str, str] = {}
        for line in map(json.loads, report.read_text().splitlines()):
            if "suite" in line:
                self.suites[line["suite"]] = line
            self.versions.update(line.get("versions", {}))
        if not self.versions:  # which come last
            self.suites["all of them have ended"] = {"passed": 0, "failed": 1, "skipped": 0, "seconds": 0}

    @property
    def failed(self) -> bool:
        return any(result["failed"] for result in self.suites.values())

    def show(self) -> None:
        for name, result in self.suites.items():
            print(f"   {name}: {cell(result)} in {result['seconds']} s", flush=True)


def cell(result: dict | None) -> str:
    if result is None:
        return "-"
    parts = [str(result["passed"])] + [f"{result[what]} {what}" for what in ("failed", "skipped") if result[what]]
    return ", ".join(parts)


def commit() -> str:
    return subprocess.run(["git", "-C", REPO, "log", "-1", "--format=%h"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def table(releases: dict[str, Results]) -> str:
    """How many tests of each suite passed in each release, and what they met there. In Markdown."""
    def rows(of: Callable[[Results], dict], show: Callable[[object], str]) -> list[str]:
        names = dict.fromkeys(name for results in releases.values() for name in of(results))
        return [f"| {name} | " + " | ".join(show(of(results).get(name)) for results in releases.values()) + " |" for name in names]

    return "\n".join([f"Tests that passed, on {datetime.date.today()}, commit {commit()}:", "",
                      "| | " + " | ".join(releases) + " |", "| --- |" + " ---: |" * len(releases),
                      *rows(lambda results: results.suites, cell),
                      *rows(lambda results: results.versions, lambda version: version or "-")]) + "\n"
