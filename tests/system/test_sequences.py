# SPDX-License-Identifier: LGPL-2.1-or-later
"""A few random sequences of what administrators type, always the same ones. sequences.py runs any number of others."""

import pytest

from rig import Machine, Unsupported
from sequences import Host, try_all

SEED = 13
COUNT = 6
LENGTH = 5


def test_sequences():
    try:
        with Machine() as machine:
            try_all(Host(machine), SEED, range(COUNT), LENGTH, print)
    except Unsupported as reason:
        pytest.skip(f"cannot boot a machine here: {reason}")
