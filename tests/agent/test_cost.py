# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a cycle costs the daemon, in figures that do not depend on how busy the machine is: system
calls, counted by strace, and instructions, counted by valgrind.

A cycle is what an agent does between two deliveries: it finds a connection by its destination, and
saves the binding and the connection again. Everything else that a daemon does, from its start to its
end, is the same in two runs of different length, so it is the difference between them that counts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Callable

import pytest

from connection import Connection, wait_until
from launch import ServiceManager, build_folder, patience
from protocol import OK, Agent

DESTINATION = "smtp\nexample.org\n25\n\n512"
ENDPOINT = "smtp\n192.0.2.1\n25\nexample.org\n512"
DESTINATION_PROPERTY = "reuse=1\nflags=0\nendpoint=mx1.example.org"
ENDPOINT_PROPERTY = "mx1.example.org\n192.0.2.1\n25\nfeatures=1035\nsize=10240000\nhelo=mx.example.net"
TTL = 3600


def postfix_cycle(agent: Agent, connection: Connection) -> None:
    """In five round trips. The last dummy goes out with the next request: how often it comes alone
    would depend on who runs when."""
    found = agent.find_dest(DESTINATION, last_dummy="glue")
    assert found.status == OK
    connection.take_back(found.fd)
    assert agent.save_dest(TTL, DESTINATION, DESTINATION_PROPERTY, ENDPOINT) == OK
    assert agent.save_endp(TTL, ENDPOINT, ENDPOINT_PROPERTY, connection.fd) == OK
    connection.pass_on()


def one_trip_cycle(agent: Agent, connection: Connection) -> None:
    """In two."""
    found = agent.find_dest_inline(DESTINATION)
    assert found.status == OK
    connection.take_back(found.fd)
    assert agent.save(TTL, DESTINATION, DESTINATION_PROPERTY, ENDPOINT, ENDPOINT_PROPERTY,
                      connection.fd) == OK
    connection.pass_on()


Cycle = Callable[[Agent, Connection], None]

# Every exchange takes a wait, a receive and an answer. A connection that comes is looked at (is it a
# connection, and which?) and watched; one that goes is watched no longer, and closed: by a worker, with many others.
CARE = {"epoll_ctl": 2, "getsockopt": 1, "close": 1}
CALLS = {
    postfix_cycle: {"epoll_wait": 5, "recvmsg": 5, "sendto": 4, "sendmsg": 1, **CARE},
    one_trip_cycle: {"epoll_wait": 2, "recvmsg": 2, "sendto": 1, "sendmsg": 1, **CARE},
}

# Timers come by the clock, whatever a cycle does meanwhile: none more often than 50 times a second,
# each with a wait and up to three calls that no exchange makes.
TIMER_CALLS_PER_SECOND = 200
HARDLY_ANY = 0.05

# What is to be closed is given to a process in batches (custody/disposal.c): at most so many calls make it, are made in it besides
# close(2), and take note of its end. A batch is full with 512 cycles, or comes by the clock.
CALLS_PER_BATCH = 16
BATCHES_PER_SECOND = 120

# Instructions for a cycle, built by Debian 12's gcc with -O2. Another compiler may need some more. Under valgrind, descriptors are
# closed in place.
INSTRUCTIONS = {postfix_cycle: 9900, one_trip_cycle: 6400}
TOLERANCE = 1.10

CYCLES = 400


def work(make_manager: Callable[..., ServiceManager], cycle: Cycle, n_cycles: int) -> None:
    """A daemon's whole life, with so many cycles in it."""
    manager = make_manager(sockets=["postfix"])
    daemon = manager.start({"connection_cache_ttl_limit": "7200s"})
    connection = Connection(5.0 * patience())
    try:
        with daemon.agent("postfix") as agent:
            agent.bind(DESTINATION, ENDPOINT, DESTINATION_PROPERTY, TTL)
            assert agent.save_endp(TTL, ENDPOINT, ENDPOINT_PROPERTY, connection.fd) == OK
            connection.pass_on()
            agent.in_step()
            before = daemon.count_fds()
            for _ in range(n_cycles):
                cycle(agent, connection)
            # At its end it waits for no process that takes long, as one does that is traced on a busy machine.
            daemon.wait_open_fds(before)
        # Its end is seen before it can be waited for: a tracer that is not its parent hears of it
        # first.
        daemon.kill(signal.SIGTERM)
        wait_until(lambda: daemon.poll() is not None, "the end of the daemon", 10.0 * patience())
        daemon.check(0)
        # A tracer ends with the last process, and one has copies of what is stored for as long as it is.
        manager.clear_store()
    finally:
        connection.close()


def counted_calls(path: Path) -> Counter[str]:
    """The table of strace -c: calls are the fourth column, the name is the last."""
    calls: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        columns = line.split()
        if len(columns) >= 5 and columns[3].isdigit() and columns[-1] != "total":
            calls[columns[-1]] += int(columns[3])
    return calls


def optimised() -> bool:
    """The figures are those of a plain build for use, not of one that looks for mistakes."""
    flags = build_folder() / "flags"
    text = flags.read_text() if flags.exists() else ""
    return "-fsanitize" not in text and re.search(r"-O[23s]\b", text) is not None


@pytest.fixture
def wrap(monkeypatch, tmp_path, request) -> Callable[[str], Path]:
    """Run daemons from now on under a tool that writes to the file returned."""
    if os.environ.get("SCACHED_WRAPPER"):
        pytest.skip("the daemon already runs under another tool")
    if not optimised():
        pytest.skip("the figures are those of a build with -O2")

    def wrap(command: str) -> Path:
        tool = command.split()[0]
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
        output = tmp_path / f"output.{len(list(tmp_path.iterdir()))}"
        monkeypatch.setenv("SCACHED_WRAPPER", command.format(output=output))
        return output

    return wrap


def strace_works() -> bool:
    done = subprocess.run(["strace", "-D", "-c", "-o", os.devnull, "true"], capture_output=True)
    return done.returncode == 0


def calls_of_a_cycle(make_manager, wrap, cycle: Cycle) -> tuple[dict[str, float], float]:
    """And the seconds in which it was counted, for each cycle."""
    counts = []
    start = time.monotonic()
    for n_cycles in (CYCLES, 2 * CYCLES):
        output = wrap("strace -D -f -c -o {output}")
        if not strace_works():
            pytest.skip("strace may not trace here")
        work(make_manager, cycle, n_cycles)
        counts.append(wait_for_table(output))
    return ({name: (counts[1][name] - counts[0][name]) / CYCLES for name in counts[0] | counts[1]},
            (time.monotonic() - start) / CYCLES)


def too_many(cycle: Cycle, each: dict[str, float], seconds: float) -> list[str]:
    batches = max(0.0, each.get("clone", 0))
    by_clock = TIMER_CALLS_PER_SECOND * seconds + CALLS_PER_BATCH * batches
    shown = ", ".join(f"{name} {n:g}" for name, n in sorted(each.items()) if n > 0)
    wrong = [f"{name}: {n} expected: {shown}" for name, n in CALLS[cycle].items()
             if abs(each.get(name, 0) - n) > HARDLY_ANY + (by_clock if name == "epoll_wait" else 0)]
    if sum(n for name, n in each.items() if name not in CALLS[cycle]) > HARDLY_ANY + by_clock:
        wrong.append(f"calls that a cycle does not need: {shown}")
    if batches > HARDLY_ANY + BATCHES_PER_SECOND * seconds:
        wrong.append(f"too many batches: {shown}")
    return wrong


@pytest.mark.plain_build
@pytest.mark.parametrize("cycle", CALLS)
def test_system_calls(make_manager, wrap, cycle):
    # A daemon that is traced on a busy machine may not end its last batch in time: one of a few runs is good.
    for _ in range(3):
        if not (wrong := too_many(cycle, *calls_of_a_cycle(make_manager, wrap, cycle))):
            return
    pytest.fail("\n".join(wrong))


def wait_for_table(output: Path) -> Counter[str]:
    """strace runs beside the daemon, and writes its table when the daemon has ended."""
    wait_until(lambda: output.exists() and " total" in output.read_text(), "strace's table", 60.0)
    return counted_calls(output)


@pytest.mark.plain_build
@pytest.mark.parametrize("cycle", INSTRUCTIONS)
def test_instructions(make_manager, wrap, cycle):
    def total(n_cycles: int) -> int:
        output = wrap("valgrind -q --tool=callgrind --callgrind-out-file={output}")
        work(make_manager, cycle, n_cycles)
        found = re.search(r"^(?:totals|summary): (\d+)", output.read_text(), re.MULTILINE)
        return int(found[1])

    expected = INSTRUCTIONS[cycle]
    # What timers do comes with the clock, and so with how busy the machine is: one of a few runs has little of it.
    for _ in range(5):
        each = (total(2 * CYCLES) - total(CYCLES)) / CYCLES
        if 0.7 * expected <= each <= TOLERANCE * expected:
            break

    print(f"{each:.0f} instructions a cycle")
    assert each <= TOLERANCE * expected, f"{each:.0f} instructions a cycle instead of {expected}"
    # Much less is good news, but then the figure no longer guards anything.
    assert each >= 0.7 * expected, f"{each:.0f} instructions a cycle: make that the new figure"
