# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kinds of suites that there are, each run as a program of its own and counted. tests/run says which run when."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as xml
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PROCESSORS = os.cpu_count() or 1
EXIT_UNSUPPORTED = 77  # of tests/system/inside: this host cannot boot a machine

PYTEST = (sys.executable, "-m", "pytest")
# In a machine, on the service that is installed there.
PYTEST_INSIDE = (sys.executable, str(REPO / "tests/system/inside"))

# How pytest-xdist shares tests among processes: not at all, one by one, or file by file. Tests wait more than they work.
ALONE: tuple[str, ...] = ()
SHARED = ("-n", str(2 * PROCESSORS))
BY_FILE = (*SHARED, "--dist=loadfile")


class Totals:
    """What passed, failed and was skipped, over all suites. Each is shown in one piece, for several run at a time."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0
        self._lock = threading.Lock()

    def add(self, name: str, began: float, passed: int, failed: int, skipped: int = 0, output: str = "") -> None:
        rest = f", {skipped} skipped" if skipped else ""
        took = time.monotonic() - began
        with self._lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped
            print(f"{output}== {name}: {passed} passed, {failed} failed{rest} in {took:.0f} s", flush=True)

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def run(command, **env: str) -> subprocess.CompletedProcess:
    """Run a command to its end, with more in its environment. Both its outputs are in stdout."""
    return subprocess.run(command, cwd=REPO, stdin=subprocess.DEVNULL, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **env})


def run_build(totals: Totals, name: str, *arguments: str) -> bool:
    began = time.monotonic()
    result = run(["make", "--no-print-directory", f"-j{PROCESSORS}", *arguments])
    ok = result.returncode == 0
    totals.add(name, began, int(ok), int(not ok), output="" if ok else result.stdout)
    return ok


def run_unit_tests(totals: Totals, build: Path, *sources: Path) -> None:
    """cmocka's programs, in TAP. One that ends without having said its last word has failed."""
    began = time.monotonic()
    passed = failed = 0
    output = ""
    for source in sources or sorted((REPO / "tests/unit").glob("test_*.c")):
        program = build.resolve() / "tests" / source.stem
        result = run([program], CMOCKA_MESSAGE_OUTPUT="tap")
        good = len(re.findall(r"^ok ", result.stdout, re.MULTILINE))
        bad = len(re.findall(r"^not ok ", result.stdout, re.MULTILINE))
        if result.returncode != 0 or good + bad == 0:
            bad = max(bad, 1)
            output += f"-- {program.name} (exit {result.returncode})\n{result.stdout}\n"
        passed += good
        failed += bad
    totals.add(f"unit tests, {build.name}", began, passed, failed, output=output)


def run_corpora(totals: Totals, build: Path, *sources: Path) -> None:
    """What the fuzzers have found so far still goes well."""
    began = time.monotonic()
    passed = failed = 0
    output = ""
    for source in sources or sorted((REPO / "tests/fuzz").glob("fuzz_*.c")):
        result = run([build.resolve() / "replay" / source.stem, REPO / "tests/fuzz/corpus" / source.stem.removeprefix("fuzz_")])
        if result.returncode == 0:
            passed += 1
        else:
            failed += 1
            output += f"-- {source.stem} (exit {result.returncode})\n{result.stdout[-20000:]}\n"
    totals.add(f"fuzzers' corpora, {build.name}", began, passed, failed, output=output)


def run_pytest(totals: Totals, what: str, build: Path, *arguments: str, how: tuple[str, ...] = SHARED,
               pytest: tuple[str, ...] = PYTEST, wrapper: str = "") -> None:
    began = time.monotonic()
    if importlib.util.find_spec("xdist") is None:
        how = ALONE
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        result = run([*pytest, "-q", "-rs", "-p", "no:cacheprovider", f"--junitxml={report}", *how, *arguments],
                     SCACHED_BUILD=str(build.resolve()), PYTHONPYCACHEPREFIX=str(REPO / "build/pycache"),
                     **({"SCACHED_WRAPPER": wrapper} if wrapper else {}))
        tests = failed = skipped = 0
        if report.exists():
            for suite in xml.parse(report).getroot().iter("testsuite"):
                tests += int(suite.get("tests", 0))
                failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
                skipped += int(suite.get("skipped", 0))
    if result.returncode == EXIT_UNSUPPORTED:
        skipped = 1
    elif result.returncode != 0 and failed == 0:
        failed = 1
    totals.add(f"{what}, {build.name}", began, max(tests - failed - skipped, 0), failed, skipped, result.stdout)
