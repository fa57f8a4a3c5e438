"""What bookings, windows and grants do to one account's row: the arithmetic of the ledger's verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from budgetguard.core.accounts import USD, Unit
from budgetguard.core.money import MAX_SUM, Nanos
from budgetguard.core.rows import AccountRow, HoldRow, PartRow, limit_of, new_life
from budgetguard.core.windows import Milliseconds, Window, falls_out, window_at, windows_between

ROLLOVER: Final = "rollover"
"""The id of the grant of what the last window left unused."""

_NO_COUNTS: Final = (0, 0, 0)


def held_of(hold: HoldRow, unit: Unit) -> int:
    """Return what a hold has set aside of a unit."""
    return hold["amount"] if unit == USD else hold["units"].get(unit, _NO_COUNTS)[0]


def on_expiry_of(hold: HoldRow, unit: Unit) -> int:
    """Return what is booked of a unit if a hold expires."""
    return hold["on_expiry"] if unit == USD else hold["units"].get(unit, _NO_COUNTS)[1]


def cost_of(hold: HoldRow, unit: Unit) -> int:
    """Return what was booked of a unit for a hold that ended."""
    return hold["cost"] if unit == USD else hold["units"].get(unit, _NO_COUNTS)[2]


def live_epochs(row: AccountRow) -> Collection[int]:
    """Return the epochs whose bookings are in what an account has spent."""
    return (row["epoch"],) if row["parts"] is None else [part["epoch"] for part in row["parts"]]


def add_bounded(total: Nanos, nanos: Nanos) -> Nanos:
    """Add to a sum of Nanos, which stops at `MAX_SUM` and then stays there, whatever is taken back.

    What a sum would be beyond the bound is not known any more, so nothing may be taken from it.
    """
    return MAX_SUM if total >= MAX_SUM else min(total + nanos, MAX_SUM)


def release(account: AccountRow, held: Nanos, window: int) -> None:
    """Take an open hold off one of its accounts."""
    account["opened"] -= 1
    if account["window"] == window:
        account["held"] -= held


def book_cost(account: AccountRow, epoch: int, model: str, cost: Nanos, *, expiries: int = 0) -> None:
    """Add to what was spent in an epoch: a cost, or an expiry of a hold (or take one back)."""
    sums: list[AccountRow | PartRow] = [account]
    if account["parts"] is not None:
        account["parts"] = [{**part, "models": part["models"].copy()} for part in account["parts"]]
        sums += [part for part in account["parts"] if part["epoch"] == epoch]
    for one in sums:
        one["spent"] = add_bounded(one["spent"], cost)
        models = one["models"]
        models[model] = add_bounded(models.get(model, 0), cost)
        if not models[model]:
            del models[model]
        if expiries:
            one["expired"] = add_bounded(one["expired"], cost)
            one["expiries"] += expiries


def begin_part(row: AccountRow, now: Milliseconds) -> None:
    """Begin a part of a rolling window, if what is booked now does not fall out together with the last."""
    parts, duration = row["parts"], row["duration"]
    if parts is None or duration is None:
        return
    until = falls_out(duration, now)
    if parts and parts[-1]["until"] >= until:
        return
    row["epoch"] += 1
    part: PartRow = {
        "epoch": row["epoch"], "until": until, "spent": 0, "expired": 0, "expiries": 0, "models": {}
    }  # fmt: skip
    row["parts"] = parts = [*parts, part]
    row["end"] = parts[0]["until"]


def drop_parts(row: AccountRow, parts: list[PartRow], now: Milliseconds) -> None:
    """Let the parts of a rolling window fall out that are over."""
    left = row["parts"] = [part for part in parts if part["until"] > now]
    row["end"] = left[0]["until"] if left else None
    row["spent"] = min(sum(part["spent"] for part in left), MAX_SUM)
    row["expired"] = min(sum(part["expired"] for part in left), MAX_SUM)
    row["expiries"] = sum(part["expiries"] for part in left)
    models: Counter[str] = Counter()
    for part in left:
        models.update(part["models"])
    row["models"] = {model: min(cost, MAX_SUM) for model, cost in models.items()}
    limit = limit_of(row) or MAX_SUM
    row["crossed"] = [p for p in row["crossed"] if (row["spent"] * 100 >= p * limit if p > 0 else left)]


def next_window(row: AccountRow, end: Milliseconds, now: Milliseconds) -> None:
    """Go on to the present window, from one that has ended."""
    duration, anchor, timezone = row["duration"], row["anchor"], row["timezone"]
    window = window_at(duration, anchor, timezone, now)
    if row["rollover"] and row["limit"] is not None and duration is not None:
        skipped = windows_between(duration, anchor, timezone, end, window.start)
        _roll_over(row, row["limit"], skipped, end, window)
    row["start"], row["end"] = window.start, window.end
    row["window"] += 1
    row["held"] = 0
    clear_spend(row)


def _roll_over(row: AccountRow, limit: Nanos, skipped: int, end: Milliseconds, window: Window) -> None:
    """Grant the next window what the last one, which has ended, and those skipped since left unused."""
    # One that was granted for a window that the budget had before may have ended long ago.
    carried = sum(
        grant["amount"] for grant in row["grants"] if grant["id"] == ROLLOVER and grant["until"] >= end
    )
    unused = max(0, limit + carried - row["spent"] - row["held"])
    unused = min(unused + skipped * limit, row["rollover"])
    row["grants"] = [grant for grant in row["grants"] if grant["id"] != ROLLOVER]
    if unused and window.end is not None:
        row["grants"].append({"id": ROLLOVER, "amount": unused, "until": window.end})


def end_grants(row: AccountRow, now: Milliseconds) -> None:
    """Take back the raises of a limit that are over."""
    if row["grants"]:
        row["grants"] = [grant for grant in row["grants"] if grant["until"] > now]


def set_document(row: AccountRow, rules: str, labels: str) -> None:
    """Replace the text that is kept for clients; another text has another revision."""
    if (rules, labels) != (row["rules"], row["labels"]):
        row["rules"], row["labels"] = rules, labels
        row["revision"] = new_life() if rules or labels else 0


def clear_spend(row: AccountRow) -> None:
    """Set what an account has spent to nothing."""
    row["epoch"] += 1
    row["spent"] = row["expired"] = row["expiries"] = 0
    row["models"] = {}
    row["crossed"] = []
    if row["parts"] is not None:
        row["parts"], row["end"] = [], None
