"""What a key that spends may make of a budget that is there: nothing that takes away what is booked.

What an account has spent goes with the end of its window. So a window is not moved, shortened or lengthened
but by an administrator's key. A budget without a window may be given one as long as nothing is booked on it
and nothing held: one that begins now and takes at least a day, LiteLLM's clients know no shorter one.
"""

from __future__ import annotations

from typing import Final

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.windows import Milliseconds, window_at

_SHORTEST: Final[Milliseconds] = 86_400_000


def keeps_booked(present: Balance, budget: Budget, now: Milliseconds) -> bool:
    """Tell whether a budget leaves a window as it is, or gives a first one to who has nothing booked."""
    if present.duration is None and budget.duration is None and budget.starts_at is None:
        return True
    if (present.duration, present.timezone) != (budget.duration, budget.timezone):
        if present.duration is not None or budget.starts_at is not None:
            return False
        if present.spent_nanos or present.open_holds:
            return False
        end = window_at(budget.duration, now, budget.timezone, now).end
        return end is None or end - now >= _SHORTEST
    if budget.starts_at is None:
        return True
    window = window_at(budget.duration, budget.starts_at, budget.timezone, now)
    return (window.start, window.end) == (present.starts_ms, present.resets_ms)
