"""What a verb on PostgreSQL needs beyond its arguments: a function that lacks something asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge
from budgetguard.core.rows import new_life
from budgetguard.core.windows import Milliseconds, window_at, windows_between
from budgetguard.stores.postgres_rows import dump, encode


class Needs:
    """What the answers of one verb have asked for: locks, windows, accounts to make.

    Args:
        charges: of the hold, whose budgets say how accounts are made.
        budget: that is to be set.
    """

    def __init__(self, charges: Sequence[Charge] = (), budget: Budget | None = None) -> None:
        self._charges = charges
        self._budget = budget
        self._lock: set[str] = set()
        self._windows: dict[str, dict[str, Any]] = {}
        self._making: dict[str, dict[str, Any]] = {}
        self._window: dict[str, Any] | None = None
        self.value: str | None = None
        """The parameter of the function: None until something was asked for."""

    def learn(self, answer: Mapping[str, Any]) -> None:
        """Add what an answer asks for."""
        self._lock.update(answer.get("lock") or ())
        for over in answer.get("windows") or ():
            self._windows[over["account"]] = {**over, **_next_window(over)}
        for name in answer.get("missing") or ():
            self._making[name] = self._new_account(name, answer["now"])
        if self._budget is not None and "anchor" in answer:
            self._window = _window_of_budget(self._budget, answer)
        needs: dict[str, Any] = {"lock": sorted(self._lock), "windows": list(self._windows.values())}
        if self._making:
            needs["making"] = self._making
        if self._window is not None:
            needs["window"] = self._window
        self.value = dump(needs)

    def _new_account(self, name: str, now: Milliseconds) -> dict[str, Any]:
        charge = next(c for c in self._charges if encode(c.account) == name and c.budget is not None)
        budget = charge.budget
        assert budget is not None
        anchor = now if budget.starts_at is None else budget.starts_at
        start, end = now, None
        if not budget.rolling:
            window = window_at(budget.duration, anchor, budget.timezone, now)
            start, end = window.start, window.end
        return {
            "limit": budget.limit,
            "duration": budget.duration,
            "timezone": budget.timezone,
            "anchor": anchor,
            "start": start,
            "end": end,
            "life": new_life(),
            "now": now,
            "ephemeral": charge.ephemeral,
            "rolling": budget.rolling,
            "rollover": budget.rollover,
            "rules": encode(budget.rules),
        }


def _next_window(over: Mapping[str, Any]) -> dict[str, Any]:
    duration, anchor, timezone = over["duration"], over["anchor"], over["timezone"]
    window = window_at(duration, anchor, timezone, over["now"])
    skipped = windows_between(duration, anchor, timezone, over["ended"], window.start)
    return {"start": window.start, "end": window.end, "skipped": skipped}


def _window_of_budget(budget: Budget, asked: Mapping[str, Any]) -> dict[str, Any]:
    window = window_at(budget.duration, asked["anchor"], budget.timezone, asked["instant"])
    return {
        "anchor": asked["anchor"],
        "fresh": asked["fresh"],
        "start": window.start,
        "end": window.end,
    }
