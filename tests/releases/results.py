# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the suites of each release came to, and the table of it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Callable

UNFINISHED = "all of them have ended"


class Results:
    """Of one release: what tests/releases/inside has reported, in lines of JSON."""

    def __init__(self, report: Path, commit: str = "", before: "Results | None" = None):
        """Read a report and mark it with the commit. What ran before, and not again, is kept, with the commit of that time."""
        self.suites: dict[str, dict] = dict(before.suites) if before else {}
        self.versions: dict[str, str] = {}
        for line in map(json.loads, report.read_text().splitlines()):
            if "suite" in line:
                self.suites[line["suite"]] = {"commit": commit, **line}
            self.versions.update(line.get("versions", {}))
        if not self.versions:  # which come last
            self.suites[UNFINISHED] = {"passed": 0, "failed": 1, "skipped": 0, "seconds": 0, "commit": commit, "suite": UNFINISHED}
        if commit:  # else it is only looked at, and may be about to be written
            report.write_text("".join(f"{json.dumps(line)}\n" for line in (*self.suites.values(), {"versions": self.versions})))

    @classmethod
    def before(cls, report: Path, suites: list[str]) -> "Results | None":
        """What a run of only these suites does not touch."""
        if not suites or not report.exists():
            return None
        results = cls(report)
        results.suites.pop(UNFINISHED, None)
        return results

    @property
    def failed(self) -> bool:
        return any(result["failed"] for result in self.suites.values())

    def show(self) -> None:
        for name, result in self.suites.items():
            print(f"   {name}: {cell(result)} in {result['seconds']} s", flush=True)


def collect(folder: Path, report: str) -> dict[str, Results]:
    """The last results of all releases that have any, the oldest release first."""
    results = {path.relative_to(folder).parts[0]: Results(path) for path in folder.glob(f"*/{report}")}
    return dict(sorted(results.items(), key=lambda item: [int(part) for part in item[1].versions.get("systemd", "0").split(".")]))


def cell(result: dict | None, commit: str = "") -> str:
    """How many; and at which commit if that is another one."""
    if result is None:
        return "-"
    parts = [str(result["passed"])] + [f"{result[what]} {what}" for what in ("failed", "skipped") if result[what]]
    if commit not in ("", result["commit"]):
        parts.append(f"at {result['commit']}")
    return ", ".join(parts)


def table(releases: dict[str, Results]) -> str:
    """How many tests of each suite passed in each release, and what they met there. In Markdown."""
    def rows(of: Callable[[Results], dict], show: Callable[[object], str]) -> list[str]:
        names = dict.fromkeys(name for results in releases.values() for name in of(results))
        return [f"| {name} | " + " | ".join(show(of(results).get(name)) for results in releases.values()) + " |" for name in names]

    commits = [result["commit"] for results in releases.values() for result in results.suites.values()]
    commit = max(commits, key=commits.count, default="")
    return "\n".join([f"Tests that passed, on {datetime.date.today()}, commit {commit}:", "",
                      "| | " + " | ".join(releases) + " |", "| --- |" + " ---: |" * len(releases),
                      *rows(lambda results: results.suites, lambda result: cell(result, commit)),
                      *rows(lambda results: results.versions, lambda version: version or "-")]) + "\n"
