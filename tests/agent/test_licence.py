# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every source, header, script and unit says its licence: in its first line, or in the second where the first one says what
runs it. Every script in Python is one for the oldest Python that anybody runs the tests with."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "units", "packaging", "tests", "findings", ".ci")
SUFFIXES = {".c", ".h", ".py", ".mk", ".bash", ".in", ".sym", ".spec"}
NAMES = {"Makefile", "PKGBUILD"}

OLDEST_PYTHON = (3, 9)  # of Debian 11 and RHEL 9

LICENCE = "SPDX-License-Identifier: LGPL-2.1-or-later"


def is_ours(path: Path) -> bool:
    if path.suffix in SUFFIXES or path.name in NAMES or path.parent.name == "units":
        return True
    with path.open("rb") as file:
        return file.read(8).startswith((b"#!", b"#compdef"))


def sources(root: Path) -> Iterator[Path]:
    """Without what was made by building and running."""
    paths = [root / "Makefile", *(path for folder in FOLDERS for path in sorted((root / folder).rglob("*")))]
    for path in paths:
        if path.is_file() and not {"corpus", "__pycache__"} & set(path.parts) and is_ours(path):
            yield path


def wanted_line(path: Path) -> str:
    return f"/* {LICENCE} */" if path.suffix in {".c", ".h", ".sym"} else f"# {LICENCE}"


def is_licensed(path: Path) -> bool:
    lines = path.read_text().splitlines()
    return wanted_line(path) in lines[slice(1, 2) if re.match("#(!|compdef)", lines[0]) else slice(1)]


def test_every_source_says_its_licence() -> None:
    found = list(sources(ROOT))
    assert len(found) > 200
    assert [str(path.relative_to(ROOT)) for path in found if not is_licensed(path)] == []


def test_it_is_the_licence_that_is_shipped() -> None:
    text = " ".join((ROOT / "packaging/LICENSE").read_text().split())
    assert "GNU LESSER GENERAL PUBLIC LICENSE Version 2.1" in text


@pytest.mark.parametrize("name, text, good", [
    ("a.c", f"/* {LICENCE} */\nint a;\n", True),
    ("a.c", f"int a;\n/* {LICENCE} */\n", False),
    ("a.h", f"// {LICENCE}\n", False),
    ("a.py", f"# {LICENCE}\n", True),
    ("a.py", f"#!/usr/bin/python3\n# {LICENCE}\n", True),
    ("a.py", '"""Nothing."""\n', False),
    ("script", f"#!/bin/sh\n# {LICENCE}\n", True),
    ("script", "#!/bin/sh\ntrue\n", False),
    ("../units/a.timer", f"# {LICENCE.replace('2.1', '3.0')}\n[Unit]\n", False),
])
def test_a_source_without_it_is_found(tmp_path: Path, name: str, text: str, good: bool) -> None:
    for folder in ("src", "units"):
        (tmp_path / folder).mkdir()
    (tmp_path / "Makefile").write_text(f"# {LICENCE}\n")
    (tmp_path / "src" / name).write_text(text)
    (tmp_path / "src" / "data.json").write_text("{}")
    assert [path.name for path in sources(tmp_path) if not is_licensed(path)] == [Path(name).name] * (not good)


def is_python(path: Path) -> bool:
    return path.suffix == ".py" or "python" in path.open(errors="replace").readline()


def understood(path: Path) -> bool:
    try:
        ast.parse(path.read_text(), feature_version=OLDEST_PYTHON)
    except SyntaxError:
        return False
    return True


def test_the_oldest_python_understands_all() -> None:
    found = [path for path in sources(ROOT) if is_python(path)]
    assert len(found) > 50
    assert [str(path.relative_to(ROOT)) for path in found if not understood(path)] == []


def test_what_it_does_not_understand_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("match 1:\n    case 1:\n        pass\n")
    assert not understood(path)
