"""Import the users of LiteLLM's `user_cost.json`, once, however often it is run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from budgetguard.core.accounts import USER, Budget, account_name, check_id
from budgetguard.core.holds import Booked, Charge, Settlement, derived_id, new_hold
from budgetguard.core.money import Nanos, format_usd, to_nanos
from budgetguard.core.windows import Milliseconds, window_at
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard

T = TypeVar("T")

# LiteLLM does not keep when money was spent, so the records of it carry no time: they begin at 0.
_UNKNOWN_TIME: Final[Milliseconds] = 0
_UNKNOWN_MODEL: Final = "unknown"
_NAMED: Final = {1: "daily", 7: "weekly", 28: "monthly", 365: "yearly"}
_SHOWN: Final = 5
# A hundred years, the longest window.
_LONGEST_DAYS: Final = 36_524
# The year 3000, in seconds.
_LATEST: Final = 32_503_680_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        created: users who were made.
        existing: users who had a budget here before, this import's own earlier run included; unchanged.
        deleted: users whom an earlier run made, and who were deleted since; not made again.
        over: those of `created` whose window in the file was over, so that their spend no longer counts.
        spent: Nanos booked.
    """

    created: tuple[str, ...]
    existing: tuple[str, ...]
    deleted: tuple[str, ...]
    over: tuple[str, ...]
    spent: Nanos

    def __str__(self) -> str:
        parts = [f"{_users(self.created)} imported, {format_usd(self.spent)} spent"]
        if self.over:
            parts.append(f"{_users(self.over)} with nothing spent, because the window of that spend is over")
        if self.existing:
            parts.append(f"{_users(self.existing)} left alone, having a budget here already")
        if self.deleted:
            parts.append(f"{_users(self.deleted)} not made again, deleted here after an earlier import")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class _User:
    """One record of the file, checked."""

    user: str
    limit: Nanos
    duration: str | None
    starts_at: Milliseconds | None
    models: Mapping[str, Nanos]
    digest: str

    def hold_id(self, model: str) -> str:
        return derived_id(_UNKNOWN_TIME, json.dumps([self.user, self.digest, model]))


def import_user_cost(guard: Guard, path: str | os.PathLike[str], *, calendar: bool = False) -> Imported:
    """Make the users of a `user_cost.json` in a guard's project, with limit, window, spend and its models.

    All of the file is checked before anything is made. A user who has a budget here already is left alone,
    so a second run changes nothing, and one that follows a crash finishes what was begun. A window goes on
    where it stood in LiteLLM; spend of one that is over does not count any more.

    Args:
        guard: into whose project.
        path: the file.
        calendar: take LiteLLM's 28 days for a month and 365 for a year (`monthly`, `yearly`); else windows
            stay as many days as they were.

    Raises:
        ConfigurationError: the file cannot be read, or is no such file; nothing was changed.
        StoreError: the store failed; run it again.
    """
    users = _read(Path(path), calendar=calendar)
    store, zone = guard.store, guard.settings.timezone
    done = {call.id for call in store.calls(_UNKNOWN_TIME, _UNKNOWN_TIME + 1)}
    created: list[str] = []
    existing: list[str] = []
    deleted: list[str] = []
    over: list[str] = []
    spent = 0
    for one in users:
        name = account_name(USER, one.user)
        ids = {one.hold_id(model) for model in one.models}
        exists, begun = store.read(name) is not None, not ids.isdisjoint(done)
        if exists and (not begun or ids <= done):
            existing.append(one.user)
            continue
        if begun and not exists:
            deleted.append(one.user)
            continue
        budget = Budget(one.limit, one.duration, zone, one.starts_at)
        is_over = _is_over(budget, guard.engine.now())
        for model, cost in one.models.items():
            spent += _book(guard, one, Charge(name, budget=budget), model, 0 if is_over else cost)
        created.append(one.user)
        if is_over and any(one.models.values()):
            over.append(one.user)
    return Imported(tuple(created), tuple(existing), tuple(deleted), tuple(over), spent)


def _users(users: tuple[str, ...]) -> str:
    return "1 user" if len(users) == 1 else f"{len(users)} users"


def _book(guard: Guard, one: _User, charge: Charge, model: str, cost: Nanos) -> Nanos:
    hold = new_hold(
        _UNKNOWN_TIME, (charge,), user=one.user, model=model, endpoint="import", ident=one.hold_id(model)
    )
    # Straight to the store: this process has not spent it, so its max_budget must not count it.
    answer = guard.store.settle(hold, Settlement(cost, outcome="posted"))
    return answer.booked if isinstance(answer, Booked) else 0


def _is_over(budget: Budget, now: Milliseconds) -> bool:
    if budget.duration is None or budget.starts_at is None:
        return False
    return window_at(budget.duration, budget.starts_at, budget.timezone, now).start > budget.starts_at


def _read(path: Path, *, calendar: bool) -> list[_User]:
    try:
        stored = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {path}: give the path of LiteLLM's user_cost.json, which it writes into the "
            "folder that its program runs in"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error}; nothing was imported") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is no complete JSON ({error}): LiteLLM may have been stopped while it wrote the file. "
            "Restore it from a backup, or mend it; nothing was imported"
        ) from error
    if not isinstance(stored, dict):
        raise ConfigurationError(
            f"{path} is no user_cost.json of LiteLLM: it should hold an object of users, and holds "
            f"{type(stored).__name__}; nothing was imported"
        )
    users: list[_User] = []
    wrong: list[str] = []
    for user, stored_record in stored.items():
        try:
            users.append(_checked(user, stored_record, calendar=calendar))
        except ConfigurationError as error:
            wrong.append(f"user {user!r}: {error}")
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigurationError(
            f"{path} cannot be imported, and nothing was: "
            f"{len(wrong)} of its {len(stored)} records are not as LiteLLM writes them; mend or remove them:"
            + "".join(f"\n  {line}" for line in wrong[:_SHOWN])
            + more
        )
    return users


def _checked(user: str, stored: object, *, calendar: bool) -> _User:
    check_id(user, name="user")
    if not isinstance(stored, dict) or "total_budget" not in stored:
        raise ConfigurationError("it has no total_budget")
    limit = to_nanos(stored["total_budget"], name="total_budget")
    duration = _optional(stored, "duration", lambda value: _duration(value, calendar=calendar))
    # What LiteLLM measures a window from is its last reset; the other is when the user was made.
    updated = _optional(stored, "last_updated_at", lambda value: _instant(value, "last_updated_at"))
    made = _optional(stored, "created_at", lambda value: _instant(value, "created_at"))
    return _User(
        user=user,
        limit=limit,
        duration=duration,
        starts_at=made if updated is None else updated,
        models=_spend(stored),
        digest=hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest(),
    )


def _optional(stored: dict[str, Any], key: str, read: Callable[[Any], T]) -> T | None:
    value = stored.get(key)
    return None if value is None else read(value)


def _duration(days: Any, *, calendar: bool) -> str:
    whole = isinstance(days, int) or (isinstance(days, float) and days.is_integer())
    if isinstance(days, bool) or not whole or not 1 <= days <= _LONGEST_DAYS:
        raise ConfigurationError(f"duration must be a whole number of days, not {days!r}")
    return _NAMED.get(int(days), f"{int(days)}d") if calendar else f"{int(days)}d"


def _instant(seconds: object, name: str) -> Milliseconds:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _LATEST:
        raise ConfigurationError(f"{name} must be epoch seconds, not {seconds!r}")
    return round(seconds * 1000)


def _spend(stored: dict[str, Any]) -> dict[str, Nanos]:
    """Return the spend by model; what the models do not explain is `unknown`'s. Never empty."""
    total = _optional(stored, "current_cost", lambda value: to_nanos(value, name="current_cost")) or 0
    costs = stored.get("model_cost") or {}
    if not isinstance(costs, dict):
        raise ConfigurationError(f"model_cost must be an object of models, not {costs!r}")
    models = {model: to_nanos(cost, name=f"model_cost of {model}") for model, cost in sorted(costs.items())}
    rest = total - sum(models.values())
    if models and abs(rest) <= len(models):
        # Each model was rounded on its own; their sum is the total that LiteLLM shows.
        models[max(models, key=lambda model: models[model])] += rest
    elif rest > 0:
        models[_UNKNOWN_MODEL] = models.get(_UNKNOWN_MODEL, 0) + rest
    return models or {_UNKNOWN_MODEL: 0}
