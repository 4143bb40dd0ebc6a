# SPDX-License-Identifier: LGPL-2.1-or-later
"""Root file systems of Debian's releases, made once and kept in build/roots, and what runs in them.

    python3 roots.py BUILD RELEASE...      only makes them
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
REPO_INSIDE = "/scached"
ENTER = Path(__file__).resolve().with_name("enter")
UNSHARE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]

# What tests/releases/inside is begun with; `make deps` brings all the rest.
FIRST_PACKAGES = "make,python3"

# What tests/releases/newcomer is begun with.
BARE_PACKAGES = "systemd,systemd-sysv,dbus"


class Unavailable(Exception):
    """There is no root file system of this release to be had; the text says why."""


def mirror() -> str:
    """Debian's packages are where this host's own apt gets them."""
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"],
                             check=True, text=True, stdout=subprocess.PIPE).stdout
    found = re.search(r"(?m)^Debian (\S+)$", targets)
    if not found:
        raise Unavailable("apt-get on this host has no list of Debian's packages: apt-get update")
    return found[1]


def apt_options() -> list[str]:
    """What the host says about how to get them: a proxy, or a mirror that stands still."""
    settings = subprocess.run(["apt-config", "dump"], check=True, text=True, stdout=subprocess.PIPE).stdout
    return [f"--aptopt={line}" for line in settings.splitlines()
            if re.match(r'Acquire::(Check-|Retries|https?::).* ".+";$', line)]


def make_root(build: Path, release: str, bare: bool = False) -> Path:
    """The root file system of this release, or one with less in it. Raises Unavailable if the mirror does not have it."""
    root = build / "roots" / (f"{release}-bare" if bare else release)
    if root.is_dir():
        return root
    unfinished = root.with_name(f"{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(["mmdebstrap", "--mode=root", f"--variant={'minbase' if bare else 'apt'}",
                             f"--include={BARE_PACKAGES if bare else FIRST_PACKAGES}", *apt_options(), release, str(unfinished),
                             mirror()],
                            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        raise Unavailable("\n".join(result.stdout.splitlines()[-5:]))
    unfinished.rename(root)
    return root


def take_commit(build: Path, release: str) -> tuple[Path, str]:
    """The last commit, in a repository of the release's own because packages are made from one. What it has built stays. Returns
    its folder and the commit's name."""
    source = build / "releases" / release / "source"

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", source, *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True).stdout

    source.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet")
    git("fetch", "--quiet", "--depth=1", f"file://{REPO}", "HEAD")
    git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
    git("clean", "--quiet", "-fd")
    return source, git("log", "-1", "--format=%h", "--abbrev=7").strip()


def command_in(root: Path, command: list[str], folders: dict[Path, str], changes: Path | None = None) -> list[str]:
    """A command line that runs this command in there, with folders of the host at other places; see enter."""
    return [*UNSHARE, sys.executable, str(ENTER), str(root), *([f"--changes={changes}"] if changes else []),
            *(f"{folder}={place}" for folder, place in folders.items()), "--", *command]


def in_scope() -> None:
    """On a host that runs systemd only a delegated control group is ours to use: start this program anew in one."""
    if os.path.isdir("/run/systemd/system") and "SCACHED_SCOPE" not in os.environ:
        os.execvp("systemd-run", ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes",
                                  "--description=Releases for tests", "env", "SCACHED_SCOPE=1", sys.executable, *sys.argv])


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(make_root(Path(sys.argv[1]).resolve(), name))
