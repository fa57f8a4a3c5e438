"""An alert: what has happened to an account, with the numbers that people are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from budgetguard.core.accounts import PROCESS, RUN, USD, Unit
from budgetguard.core.windows import Milliseconds

AlertKind: TypeAlias = Literal["threshold", "refused"]

THRESHOLD: Final = "threshold"
REFUSED: Final = "refused"
KINDS: Final = (THRESHOLD, REFUSED)

REFUSED_MARK: Final = 0
"""What a store marks in an account's window when a refusal is told."""

# Stores keep the percentages that a window has reached under their own numbers; these say that one was told,
# which is another thing: the service and its client learn of the same crossing. A service takes no less.
_TOLD: Final = -10
_LEAST_MARK: Final = -1_000

# Windows that many accounts pass through, one after another: all of a kind share one quiet period.
_PASSING: Final = (RUN, PROCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing to tell.

    Attributes:
        kind: `threshold` or `refused`.
        at: when (milliseconds).
        project: whose account.
        account: its name, such as `user:1234`.
        who: the account in words.
        percent: of the limit, which is reached; 0 for a refusal.
        unit: what the account counts; USD in Nanos.
        limit, spent, held: of the account, in its unit.
        starts: when its window began (milliseconds).
        resets: when it ends; None if it never does.
        rolling: what was spent falls out bit by bit, the next of it when it `resets`.
        user, model: of the call that it is about.
        cost: what that call would have cost at most, in the account's unit; 0 for a threshold.
        refusals: how many more calls were refused and not told.
        reached: percentages that were reached and not told.
        since: since when those are counted (milliseconds).
    """

    kind: AlertKind
    at: Milliseconds
    project: str
    account: str
    who: str
    percent: int = 0
    unit: Unit = USD
    limit: int
    spent: int
    held: int = 0
    starts: Milliseconds
    resets: Milliseconds | None = None
    rolling: bool = False
    user: str | None = None
    model: str = ""
    cost: int = 0
    refusals: int = 0
    reached: tuple[int, ...] = field(default=())
    since: Milliseconds = 0

    @property
    def level(self) -> int:
        """How bad it is: a percentage, and a refusal is worse than any."""
        return 1_001 if self.kind == REFUSED else self.percent

    @property
    def mark(self) -> int:
        """The number under which a store remembers that this window's alert was told."""
        return REFUSED_MARK if self.kind == REFUSED else max(_LEAST_MARK, _TOLD - self.percent)

    @property
    def subject(self) -> tuple[str, str]:
        """What has one quiet period; see `subject_of`."""
        return subject_of(self.project, self.account)

    @property
    def window(self) -> tuple[str, Milliseconds]:
        """The account's window that it is about."""
        return self.account, self.starts


def subject_of(project: str, account: str) -> tuple[str, str]:
    """Return what has one quiet period: the project, and the account, or its kind if such come and go."""
    kind = account.partition(":")[0]
    return project, kind if kind in _PASSING else account


def alert_from(values: dict[str, Any]) -> Alert:
    """Return the alert that was written as a dict of its fields."""
    return Alert(**{**values, "reached": tuple(values.get("reached", ()))})
