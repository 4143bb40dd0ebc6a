# SPDX-License-Identifier: LGPL-2.1-or-later
"""libscache against the daemon in each of its dialects, against Postfix's own scache(8), and across restarts; what is
installed of it; and the examples that come with it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
import oracle
from connection import wait_until
from control import Control

EXAMPLES = launch.REPOSITORY / "tests/examples"
LIBRARY = launch.REPOSITORY / "src/libscache"
PAGE = launch.REPOSITORY / "man/libscache.3"

needs_scache = pytest.mark.skipif(not oracle.find_scache(), reason="Postfix's scache(8) is not installed")


def example(name: str) -> Path:
    path = launch.build_folder() / "tests/examples" / name
    assert path.exists(), f"{path} is not built: run make test-programs"
    return path


def is_sanitized() -> bool:
    return launch.patience() > 1


def run(*command, timeout: float = 60.0, **how) -> subprocess.CompletedProcess:
    result = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                            timeout=timeout * launch.patience(), **how)
    assert result.returncode == 0, f"{command} exited with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result


# Cycles: find_dest that hits, and save.

def calls(path: str, cycles: int, folder: Path) -> dict[str, int]:
    """How often each system call is made in this many cycles."""
    report = folder / f"strace.{cycles}"
    # LeakSanitizer cannot work in a process that is traced.
    run("strace", "-f", "-c", "-U", "calls,name", "-o", report, example("cycles"), path, "greeting", 1, cycles,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    lines = (re.fullmatch(r"\s*(\d+)\s+(\w+)\s*", line) for line in report.read_text().splitlines())
    return {line[2]: int(line[1]) for line in lines if line and line[2] != "total"}


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("dialect, trips", [("native", 2), ("postfix", 5)])
def test_round_trips_of_a_cycle(daemon, dialect, trips, tmp_path):
    """Two where the service offers it, and nothing else is asked of the kernel but to wait for the answers."""
    few, many = (calls(daemon.path(dialect), cycles, tmp_path) for cycles in (10, 110))
    cost = {name: many[name] - few.get(name, 0) for name in many}
    receives, sends = (sum(cost.get(name, 0) for name in names)
                       for names in (("recvmsg", "recvfrom"), ("sendmsg", "sendto")))
    assert receives == trips * 100, cost
    assert cost["ppoll"] == trips * 100, cost
    # The last list of a find in Postfix's form has no answer.
    assert sends == (trips if dialect == "native" else trips + 1) * 100, cost
    if not is_sanitized():
        # What the example itself does: close the connection, and look which one it is.
        others = {name: n for name, n in cost.items()
                  if n > 5 and not re.fullmatch("recvmsg|recvfrom|ppoll|sendmsg|sendto|close|newfstatat|fstat", name)}
        assert not others


@pytest.mark.parametrize("dialect, how", [("native", "greeting"), ("postfix", "greeting"),
                                          ("postfix-legacy", "legacy")])
def test_cycles(daemon, dialect, how):
    """The same program, unchanged, on every dialect."""
    assert run(example("cycles"), daemon.path(dialect), how, 4, 250).stdout.count(": 1 misses,") == 4


@needs_scache
def test_cycles_on_postfix_scache(built):
    with oracle.Scache() as scache:
        how = "greeting" if scache.dialect == "postfix" else "legacy"
        assert run(example("cycles"), scache.path, how, 4, 250).stdout.count(": 1 misses,") == 4


@pytest.fixture(scope="session")
def thread_sanitized(tmp_path_factory) -> Path:
    """The library and the cycles as one program, watched by ThreadSanitizer."""
    program = tmp_path_factory.mktemp("tsan") / "cycles"
    result = subprocess.run(
        ["cc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-g", "-fsanitize=thread", f"-I{launch.REPOSITORY}/src",
         f"-I{LIBRARY}", "-o", program, EXAMPLES / "cycles.c", *LIBRARY.glob("*.c"),
         *(launch.REPOSITORY / "src/wire").glob("*.c"), "-pthread"], text=True, capture_output=True)
    if "tsan" in result.stderr and result.returncode != 0:
        pytest.skip(f"no ThreadSanitizer: {result.stderr}")
    assert result.returncode == 0, result.stderr
    return program


@pytest.mark.plain_build
@pytest.mark.parametrize("dialect", ["native", "postfix"])
def test_threads_across_restarts(make_manager, thread_sanitized, dialect):
    """8 threads, 10,000 cycles each, while the service is restarted: no error reaches a caller."""
    manager = make_manager(sockets=["postfix", "native", "control"])
    daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
    program = subprocess.Popen([thread_sanitized, manager.path(dialect), "greeting", "8", "10000"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(3):
            with Control(manager.path("control")) as control:
                before = int(control.ask("status")["connections_saved"])
                wait_until(lambda: int(control.ask("status")["connections_saved"]) >= before + 5000,
                           "5,000 cycles", 60.0)
            assert program.poll() is None, "it was too fast for a restart in the middle"
            daemon.stop()
            daemon = manager.start({"connection_cache_ttl_limit": "3600s"})
        out, err = program.communicate(timeout=120)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == 0 and err == "", f"exited with {program.returncode}:\n{err}"
    assert out.count("misses") == 8


# What is installed.

def declared() -> set[str]:
    """The functions in scache.h."""
    return set(re.findall(r"\b(scache_\w+)\(", re.sub(r"/\*.*?\*/", "", (LIBRARY / "scache.h").read_text(),
                                                        flags=re.DOTALL)))


def test_abi(built):
    """Just what the version script lists is there, under its version; nobody else's library is needed."""
    listed = set(re.findall(r"^\s+(scache_\w+);", (LIBRARY / "libscache.sym").read_text(), re.MULTILINE))
    library = built / "libscache.so.0"
    symbols = {tuple(line.split()[1:3]) for line in
               run("nm", "-D", "--defined-only", library).stdout.splitlines()}
    assert symbols == {("T", f"{name}@@LIBSCACHE_0") for name in listed} | {("A", "LIBSCACHE_0")}
    assert declared() == listed

    dynamic = run("readelf", "-d", library).stdout
    assert re.findall(r"SONAME.*\[(.*)\]", dynamic) == ["libscache.so.0"]
    needed = {name for name in re.findall(r"NEEDED.*\[(.*)\]", dynamic) if not re.match(r"lib[a-z]+san", name)}
    if not is_sanitized():
        assert needed - {"libpthread.so.0"} == {"libc.so.6"}  # two libraries before glibc 2.34

    static = run("nm", "-g", "--defined-only", built / "libscache.a").stdout
    if not is_sanitized():
        assert set(re.findall(r" [A-Z] (\w+)$", static, re.MULTILINE)) == listed


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("installed")
    run("make", "-s", "-C", launch.REPOSITORY, f"B={launch.build_folder()}", f"DESTDIR={root}", "prefix=/opt/scached",
        "install", timeout=300.0)
    return root


@pytest.mark.plain_build
@pytest.mark.parametrize("compiler", [
    ["cc", "-std=c11"], ["clang", "-std=c11"], ["c++", "-std=c++17"], ["clang++", "-std=c++17"]], ids=" ".join)
@pytest.mark.parametrize("linking", ["shared", "static"])
def test_compiles_against_the_installed_library(installed, daemon, compiler, linking, tmp_path):
    """As anybody would do it, with pkg-config."""
    if not shutil.which(compiler[0]):
        pytest.skip(f"{compiler[0]} is not installed")
    libdir = installed / "opt/scached/lib"
    env = {**os.environ, "PKG_CONFIG_PATH": str(libdir / "pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    cflags = run("pkg-config", "--cflags", "libscache", env=env).stdout.split()
    libs = run("pkg-config", "--libs", "libscache", env=env).stdout.split()
    assert run("pkg-config", "--modversion", "libscache", env=env).stdout.strip()
    if linking == "static":
        libs = [str(libdir / "libscache.a")]
    program = tmp_path / "program"
    source = EXAMPLES / "reuse.c"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    if "++" in compiler[0]:
        source = shutil.copy(source, tmp_path / "reuse.cc")
        warnings += ["-Wno-missing-field-initializers", "-Wno-c++20-designator"]
    said = run(*compiler, *warnings, *cflags, source, *libs, "-o", program)
    assert not said.stderr
    with Greeter() as greeter:
        out = run(program, "127.0.0.1", greeter.port, daemon.path("native"),
                  env={**os.environ, "LD_LIBRARY_PATH": str(libdir)}).stdout
    assert out == "250 over a new connection\n"


# Examples.

class Greeter:
    """An SMTP server that says yes to everything, in a process of its own."""

    def __init__(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        sink = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin:/usr/local/sbin")
        if not sink:
            pytest.skip("Postfix's smtp-sink is not installed")
        self.process = subprocess.Popen([sink, *user, f"127.0.0.1:{self.port}", "16"])
        wait_until(self._listens, "smtp-sink that listens")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Greeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)


def test_example_of_the_manual_page(daemon):
    """The program in libscache(3) is the one in the tree, letter for letter after its licence, and does what it says."""
    page = PAGE.read_text()
    shown = page.partition(".Sh EXAMPLES")[2].partition(".Bd -literal\n")[2].partition(".Ed")[0].replace("\\e", "\\")
    licence, _, program = (EXAMPLES / "reuse.c").read_text().partition("\n")
    assert "SPDX-License-Identifier" in licence and shown == program
    assert all(len(line) <= 75 for line in shown.splitlines())
    with Greeter() as greeter:
        said = [run(example("reuse"), "127.0.0.1", greeter.port, daemon.path("native")).stdout for _ in range(3)]
    assert said == ["250 over a new connection\n"] + 2 * ["250 over a parked connection\n"]


def test_example_without_a_cache(manager):
    """It goes on without one, as every agent should."""
    with Greeter() as greeter:
        result = run(example("reuse"), "127.0.0.1", greeter.port, manager.folder / "nowhere")
    assert result.stdout == "250 over a new connection\n"
    assert result.stderr == "not parked: Connection refused\n"


def test_senders_share_a_connection(daemon):
    """A sender in C with the library and one in Python on the plain protocol send over one and the same connection."""
    senders = [[example("smtp_sender")], [sys.executable, EXAMPLES / "sender.py"]]
    with Greeter() as greeter:
        said = [run(*senders[i % 2], daemon.path("native"), "127.0.0.1", greeter.port, "alice@example.org",
                    "bob@example.com", input="Subject: test\n\nHello\n.dot\n").stdout for i in range(5)]
    assert said == [f"sent, conn_use={i}\n" for i in range(1, 6)]


def test_sender_notices_a_dead_connection(daemon):
    """The peer is gone: the cache has dropped the connection, or the sender finds that out, and makes a new one."""
    for _ in range(2):
        with Greeter() as greeter:
            arguments = (daemon.path("native"), "127.0.0.1", greeter.port, "alice@example.org", "bob@example.com")
            said = [run(example("smtp_sender"), *arguments, input="Hello\n").stdout for _ in range(2)]
        assert said == ["sent, conn_use=1\n", "sent, conn_use=2\n"]


def test_every_function_is_in_the_manual_page():
    page = PAGE.read_text()
    assert not [name for name in sorted(declared()) if not re.search(rf"^\.F[no] {name}\b", page, re.MULTILINE)]
