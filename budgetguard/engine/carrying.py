"""Who pays, written down as JSON values to travel with a job, and made current where the job is done.

What travels are the user's id, tags, labels, and the names and limits of runs: no secret, and nothing of a
call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.accounts import RUN, check_id
from budgetguard.core.money import MAX_NANOS, Nanos, to_usd
from budgetguard.engine.context import current_caller
from budgetguard.engine.links import Lost, enter_link
from budgetguard.engine.surrounding import Run, Surrounding, budget_labels, budget_tags, budget_user
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

KEY: Final = "budgetguard"
"""What a job's payer is called among the job's headers or metadata."""

_NAMES: Final = frozenset({"user", "tags", "labels", "runs", "lost"})


def packed_payer(engine: Engine) -> dict[str, Any] | None:
    """Return who pays for an engine's calls here, as JSON values; None where nobody is set.

    Where it cannot be known who pays, that is what travels: calls of the job are refused, as they are here.
    """
    caller = current_caller(engine)
    packed: dict[str, Any] = {}
    if caller.user is not None:
        packed["user"] = caller.user
    if caller.tags:
        packed["tags"] = list(caller.tags)
    if caller.labels:
        packed["labels"] = dict(caller.labels)
    if caller.runs:
        packed["runs"] = [[run.account, run.budget.limit] for run in caller.runs if run.budget is not None]
    if caller.lost is not None:
        packed["lost"] = True
    return packed or None


def enter_packed(packed: object, engine: Engine) -> ExitStack:
    """Let who was packed pay for an engine's calls from here on, until what this returns is closed.

    Where it cannot be read who pays, that is logged, and the calls are refused.
    """
    try:
        surroundings = _unpacked(packed, engine)
    except ConfigurationError as error:
        logger.error("budgetguard: calls of a job are refused, since its payer cannot be read: %s", error)
        surroundings = [_LostPayer("message")]
    stack = ExitStack()
    for one in surroundings:
        stack.enter_context(one)
    return stack


def _unpacked(packed: object, engine: Engine) -> list[Surrounding]:
    if not isinstance(packed, Mapping) or not _NAMES.issuperset(packed):
        known = ", ".join(sorted(_NAMES))
        raise ConfigurationError(f"a job's payer is an object of {known}, not {_shown(packed)}")
    found: list[Surrounding] = []
    if packed.get("lost", False) is not False:
        found.append(_LostPayer("job"))
    runs, tags = (
        _listed(packed, "runs", _run),
        _listed(packed, "tags", lambda tag: check_id(tag, name="each tag")),
    )
    found += [Run(engine, to_usd(limit), account=account) for account, limit in reversed(runs)]
    if tags:
        found.append(budget_tags(*tags))
    labels = packed.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise ConfigurationError(f"labels of a job's payer are an object, not {_shown(labels)}")
    if labels:
        found.append(budget_labels(**labels))
    if packed.get("user") is not None:
        found.append(budget_user(packed["user"]))
    return found


def _listed(packed: Mapping[Any, Any], name: str, read: Callable[[Any], Any]) -> list[Any]:
    given = packed.get(name) or []
    if not isinstance(given, list | tuple):
        raise ConfigurationError(f"{name} of a job's payer is a list, not {_shown(given)}")
    return [read(one) for one in given]


def _run(given: object) -> tuple[str, Nanos]:
    if isinstance(given, list | tuple) and len(given) == 2:
        account, limit = given
        is_run = isinstance(account, str) and account.startswith(f"{RUN}:")
        if is_run and type(limit) is int and 0 <= limit <= MAX_NANOS:
            return check_id(account, name="a run's account"), limit
    raise ConfigurationError(f"a run of a job's payer is its account and its limit, not {_shown(given)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


class _LostPayer(Surrounding):
    """What makes calls inside be refused: nobody can say who pays for them."""

    def __init__(self, why: Lost) -> None:
        self._why = why

    def _enter(self, frame: FrameType | None) -> None:
        enter_link(self, frame, user="", lost=self._why)
