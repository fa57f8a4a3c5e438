"""The quiet period: after an alert about an account none about the same account, unless it is worse.

Pure: what is told now, what is kept until the period is over, and what becomes a line of the next alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from budgetguard.alerts.alert import REFUSED, Alert
from budgetguard.core.process import keep_newest
from budgetguard.core.windows import Milliseconds

_MOST_SUBJECTS: Final = 10_000

Subject = tuple[str, str]


@dataclass(slots=True)
class _Last:
    """What was told about a subject last, and what has been kept back since.

    Attributes:
        at: when it was told (milliseconds).
        level: how bad it was.
        window: what it was about.
        kept: the alert that is told when the period is over.
        refusals, reached, since: what becomes a line of the next alert.
    """

    at: Milliseconds
    level: int
    window: tuple[str, Milliseconds]
    kept: Alert | None = None
    refusals: int = 0
    reached: set[int] = field(default_factory=set)
    since: Milliseconds = 0

    def count(self, alert: Alert) -> None:
        """Make an alert part of a line of the next one."""
        if alert.kind == REFUSED:
            self.refusals += 1
        else:
            self.reached.add(alert.percent)


def merged(alerts: Sequence[Alert]) -> list[Alert]:
    """Return of alerts that are told together the worst of each window, which says what else there was."""
    worst: dict[tuple[str, tuple[str, Milliseconds]], Alert] = {}
    for one in alerts:
        key = one.project, one.window
        other = worst.get(key)
        if other is None:
            worst[key] = one
            continue
        bad, less = (one, other) if one.level >= other.level else (other, one)
        reached = {*bad.reached, *less.reached, less.percent} - {bad.percent, 0}
        worst[key] = replace(
            bad,
            refusals=bad.refusals + less.refusals + (less.kind == REFUSED),
            reached=tuple(sorted(reached)),
            since=min(at for at in (bad.since, less.since, less.at) if at),
        )
    return list(worst.values())


class Quiet:
    """What was told, account by account. Not for several threads at once.

    Args:
        period: milliseconds; 0 tells everything at once.
    """

    def __init__(self, period: Milliseconds) -> None:
        self._period = period
        self._last: dict[Subject, _Last] = {}

    def take(self, alert: Alert) -> Alert | None:
        """Return what is to be told now because of an alert, or None where it is kept back."""
        last = self._last.get(alert.subject)
        if last is None or alert.at >= last.at + self._period or alert.level > last.level:
            return self._tell(alert, alert.at)
        last.since = last.since or alert.at
        before = last.kept
        # In the window that was told of, less bad is no news: a line of the next alert is enough.
        if alert.window == last.window or (before is not None and alert.level < before.level):
            last.count(alert)
        else:
            last.kept = alert
            if before is not None:
                last.count(before)
        return None

    def told(self, alert: Alert, at: Milliseconds) -> None:
        """Take note of what a process has told, this or another, and when (milliseconds)."""
        last = self._last.get(alert.subject)
        if last is None:
            self._last[alert.subject] = _Last(at, alert.level, alert.window)
            keep_newest(self._last, _MOST_SUBJECTS)
        elif at > last.at:
            last.at, last.level, last.window = at, alert.level, alert.window
            if last.kept is not None and last.kept.at <= at and last.kept.level <= alert.level:
                last.count(last.kept)  # by now that is old news
                last.kept = None

    def count_refusal(self, subject: Subject, at: Milliseconds) -> None:
        """Count a refusal that is not told, for a line of the next alert."""
        last = self._last.get(subject)
        if last is not None:
            last.refusals += 1
            last.since = last.since or at

    def forget_kept(self) -> None:
        """Forget what is kept back: another process tells it."""
        for last in self._last.values():
            last.kept = None

    def due(self, now: Milliseconds) -> list[Alert]:
        """Return what was kept back and is to be told now, since its period is over."""
        return [self._tell(kept, now) for kept in self._kept() if self._ends(kept) <= now]

    def rest(self) -> list[Alert]:
        """Return what is kept back and told at the end of the process, since nobody would tell it later.

        What is about a window that is over before the quiet period is will come again in the next.
        """
        lasting = [one for one in self._kept() if one.resets is None or one.resets > self._ends(one)]
        return [self._tell(kept, self._ends(kept)) for kept in lasting]

    def next_due(self) -> Milliseconds | None:
        """Return when the next alert that is kept back is to be told; None if there is none."""
        return min((self._ends(kept) for kept in self._kept()), default=None)

    def _kept(self) -> list[Alert]:
        return [last.kept for last in self._last.values() if last.kept is not None]

    def _ends(self, kept: Alert) -> Milliseconds:
        return self._last[kept.subject].at + self._period

    def _tell(self, alert: Alert, now: Milliseconds) -> Alert:
        last = self._last.pop(alert.subject, None)
        self._last[alert.subject] = _Last(now, alert.level, alert.window)
        keep_newest(self._last, _MOST_SUBJECTS)
        if last is None:
            return alert
        if last.kept is not None and last.kept is not alert:
            last.count(last.kept)
        reached = tuple(sorted(last.reached - {alert.percent}))
        return replace(alert, refusals=last.refusals, reached=reached, since=last.since)
