"""Reserve and settle without end, and say so on stdout after each verb that returned; to be killed."""

from __future__ import annotations

import os
import sys

from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import open_store


def main(url: str) -> None:
    store = open_store(url, project="p")
    while True:
        now = system_clock()
        charges = (Charge("user:1", required=True), Charge("project:p"))
        hold = Hold(new_hold_id(now), charges, 7, 5, 1_000_000_000, now, "1", "m", "chat")
        assert isinstance(store.reserve(hold), Granted)
        _say("reserved", hold.id)
        answer = store.settle(hold, Settlement(3))
        assert isinstance(answer, Booked)
        assert not answer.repeated
        _say("settled", hold.id)


def _say(what: str, hold_id: str) -> None:
    # One write of less than PIPE_BUF bytes: it arrives whole or not at all.
    os.write(1, f"{what} {hold_id}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
