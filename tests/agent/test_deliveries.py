# SPDX-License-Identifier: LGPL-2.1-or-later
"""A delivery's lookups count as one reuse or one miss, whatever their number."""

from __future__ import annotations

import pytest

from connection import wait_until
from control import Control

# D: by destination, E: by endpoint, in capitals if it hits; s: a save; x: the agent leaves.
DELIVERIES = [
    ("D", 1, 0),
    ("dx", 0, 1),
    ("dE", 1, 0),       # TLS and Postfix 3.10.3: no session is found by its destination
    ("deeE", 1, 0),     # a connection to the third server
    ("deex", 0, 1),
    ("dees", 0, 1),     # a new connection, which is then parked
    ("dsds", 0, 2),
    ("dEsdEs", 2, 0),
    ("dd", 0, 1),       # the second one is not over
    ("Edx", 1, 1),
    ("ex", 0, 1),
    ("eeE", 1, 0),
]


@pytest.fixture
def daemon(make_manager):
    return make_manager(sockets=["native", "control"]).start()


@pytest.mark.parametrize("steps, reused, missed", DELIVERIES, ids=[steps for steps, *_ in DELIVERIES])
def test_deliveries(daemon, steps, reused, missed):
    agent, other = daemon.agent("native"), daemon.agent("native")
    for step in steps:
        if step in "DE":
            other.park("endpoint", "")
            other.bind("destination", "endpoint")
        if step in "dD":
            agent.find_dest("destination" if step == "D" else "nowhere").close()
        elif step in "eE":
            agent.find_endp("endpoint" if step == "E" else "nowhere").close()
        elif step == "s":
            agent.park("elsewhere", "")
        else:
            agent.close()

    with Control(daemon.path("control")) as control:
        def counted() -> bool:
            status = control.ask("status")
            return (int(status["deliveries_reused"]), int(status["deliveries_missed"])) == (reused, missed)
        wait_until(counted, f"{reused} reused, {missed} missed")
