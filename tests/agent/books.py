# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the journal says became of what was parked when a process of the daemon ended, to be held against what the peers saw."""

from __future__ import annotations

import re
from collections import Counter
from typing import Iterable

LINES = {
    "kept": r"Kept (\d+) connections? and \d+ bindings? for the next start",
    "not kept": r"(?:Kept .*, c|C)ould not keep (\d+)\b",
    "drained": r"Drained (\d+) connections?: each was closed after its farewell",
    "not taken over": r"Nobody took over (\d+) kept connections?: each was closed after its farewell",
    "restored": r"Restored (\d+) connections? and ",
    "evicted": r"Restored .*, evicted (\d+)\b",
    "lost": r"Restored .*, lost (\d+)\b",
    "closed": r"Closed (\d+) connections? kept over the restart",
}

# Their peers have been told goodbye.
TOLD = ("not kept", "drained", "not taken over", "evicted")


class Books(Counter):
    """How many connections, by what became of them."""

    def __init__(self, messages: Iterable[str]):
        super().__init__()
        for message in messages:
            for what, pattern in LINES.items():
                if (found := re.match(pattern, message)) and int(found[1]) > 0:
                    self[what] += int(found[1])

    def told(self) -> int:
        return sum(self[what] for what in TOLD)

    def check(self, told: int, lost: int = 0) -> None:
        """So many peers were told goodbye, so many were cut off without it."""
        assert self.told() == told, self
        assert lost == 0 or self["lost"] + self["closed"] >= lost, self
        self.check_balance()

    def check_balance(self) -> None:
        """Of all that was kept, something is said in the end."""
        ends = max(self["not taken over"], self["kept"] - self["restored"] - self["evicted"] - self["lost"] - self["closed"])
        assert ends == self["not taken over"], self
