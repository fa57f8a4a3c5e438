"""What came of a run: for people in one line, for programs as JSON, and for the shell as a status."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.core.accounts import PROCESS, PROJECT, RUN, USER
from budgetguard.core.money import Nanos, format_usd, to_usd
from budgetguard.core.report import Report
from budgetguard.engine.runlog import Refusal

REFUSED: Final = 3
"""The status of a program that succeeded although calls of it were refused."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run has spent, and what it was refused.

    Attributes:
        run: its id.
        project: whose accounts.
        user: who pays where the program does not say, or None.
        limit: of the run, Nanos; None where only the user's or project's budget counts.
        held: Nanos set aside for calls that have not ended.
        left: Nanos that the run may still spend; without a limit of its own, its user or project.
        report: its calls by model, what cost most first.
        refusals: its refused calls.
        unguarded: SDKs that it has imported and that are not guarded: what they spend is in none of this.
    """

    run: str
    project: str
    user: str | None
    limit: Nanos | None
    held: Nanos
    left: Nanos | None
    report: Report
    refusals: tuple[Refusal, ...]
    unguarded: tuple[str, ...] = ()

    @property
    def spent(self) -> Nanos:
        """Nanos booked."""
        return self.report.total.spent

    @property
    def calls(self) -> int:
        """Calls that were made and have ended."""
        return self.report.total.calls

    @property
    def refused(self) -> int:
        """Calls that a budget refused."""
        return len(self.refusals)

    def status(self, code: int = 0) -> int:
        """Return the exit status to end with: the program's own, or 3 for a success with refused calls."""
        return REFUSED if code == 0 and self.refusals else code

    def __str__(self) -> str:
        models = [
            f"{model} {format_usd(totals.spent)}" for (model,), totals in self.report.rows if totals.calls
        ]
        seen = not self.unguarded or self.report.total.calls or self.report.total.open or self.refusals
        parts = [
            f"{format_usd(self.spent)} spent on {_count(self.calls)}"
            + (f" ({', '.join(_printable(one) for one in models)})" if models else "")
            if seen
            else "no guarded call was made"
        ]
        if self.left is not None:
            left = format_usd(self.left)
            if self.limit is not None:
                parts.append(f"{left} of {format_usd(self.limit)} left")
            else:
                parts.append(f"{self._payer} has {left} left")
        if self.report.total.open:
            open_ones = _count(self.report.total.open)
            parts.append(f"{format_usd(self.held)} held for {open_ones} without an end")
        if self.refusals:
            by = Counter(_refuser(one.account) for one in self.refusals)
            names = ", ".join(name if len(by) == 1 else f"{name} {times}" for name, times in by.most_common())
            parts.append(f"{_count(self.refused)} refused by {_printable(names)}")
        if self.unguarded:
            were = "was imported and is" if len(self.unguarded) == 1 else "were imported and are"
            names = _printable(" and ".join(self.unguarded))
            parts.append(f"{names} {were} not guarded: what is spent there is not counted")
        return f"budgetguard: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, money as USD text with no digit lost."""

        def usd(nanos: Nanos | None) -> str | None:
            return None if nanos is None else format(to_usd(nanos), "f")

        by = Counter(one.account for one in self.refusals)
        return {
            "run": self.run,
            "project": self.project,
            "user": self.user,
            "limit": usd(self.limit),
            "spent": usd(self.spent),
            "held": usd(self.held),
            "left": usd(self.left),
            "calls": self.calls,
            "open": self.report.total.open,
            "refused": self.refused,
            "refused_by": dict(sorted(by.items())),
            "unguarded": list(self.unguarded),
            "models": self.report.to_dict()["rows"],
        }

    @property
    def _payer(self) -> str:
        return f"user {_printable(repr(self.user))}" if self.user is not None else f"project {self.project!r}"


def _refuser(account: str) -> str:
    kind, _, ident = account.partition(":")
    names = {
        RUN: "the run's budget",
        PROCESS: "max_budget",
        USER: f"user {ident!r}",
        PROJECT: f"project {ident!r}",
    }
    return names.get(kind, account)


def _count(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"


def _printable(text: str) -> str:
    return "".join(ch if ch.isprintable() else f"\\u{ord(ch):04x}" for ch in text)
