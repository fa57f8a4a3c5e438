"""The service's alerts: what it sees its clients refused, and which thresholds they reach."""

from __future__ import annotations

from collections.abc import Sequence

from budgetguard.alerts.sending import Alerts
from budgetguard.core.holds import Crossing, Denied, Expiry, Granted, Hold, Reservation
from budgetguard.core.windows import Clock
from budgetguard.engine.alerting import tell_crossings, tell_refusal
from budgetguard.stores.base import Store


class AlertWatcher:
    """Turns what a store answers into alerts.

    A hold that is refused may be asked for again at once, for less, as strict mode does. So a refusal is told
    only when the same hold is not granted within a moment.

    Args:
        alerts: who tells.
        thresholds: percentages of a limit that are told.
        clock: the time.
    """

    def __init__(self, alerts: Alerts, thresholds: tuple[int, ...], clock: Clock) -> None:
        self.thresholds = thresholds
        self._alerts = alerts
        self._clock = clock

    def on_crossings(self, store: Store, hold: Hold, crossings: Sequence[Crossing]) -> None:
        """Tell of the thresholds that a settlement has reached."""
        tell_crossings(self._alerts, store, hold, crossings, at=self._clock())

    def on_reservation(self, store: Store, hold: Hold, answer: Reservation) -> None:
        """Tell of a refusal, unless the hold is granted after all."""
        if isinstance(answer, Granted):
            self._alerts.revoke(hold.id)
        elif isinstance(answer, Denied):
            balance = answer.balance
            tell_refusal(
                self._alerts,
                store,
                hold,
                balance,
                limit=balance.limit_nanos or 0,
                spent=balance.spent_nanos,
                at=self._clock(),
                doubtful=True,
            )

    def on_expiry(self, store: Store, expiry: Expiry) -> None:
        """Take note of nothing: an expiry reaches no threshold; the next settlement does."""
