"""An engine's alerts: made from its settings, and given what its store refused and the thresholds reached."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from budgetguard.alerts.addresses import addresses_of
from budgetguard.alerts.alert import REFUSED, REFUSED_MARK, THRESHOLD, Alert
from budgetguard.alerts.sending import Alerts, finish_all
from budgetguard.config import Settings
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Crossing, Hold
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Clock, Milliseconds, duration_ms
from budgetguard.engine.alert_history import AlertHistory, history_of
from budgetguard.engine.background import endings
from budgetguard.engine.payers import account_in_words
from budgetguard.events import logger

if TYPE_CHECKING:
    from budgetguard.stores.base import Store

# Guards that are told to send alerts alike share the queue, the thread and the quiet period.
_made: Final[weakref.WeakValueDictionary[tuple[Any, ...], Alerts]] = weakref.WeakValueDictionary()


def alerts_of(settings: Settings) -> Alerts | None:
    """Return what tells of alerts as the settings say; None where they name no address.

    Raises:
        ConfigurationError: apprise is missing, or does not know an address.
    """
    return made_alerts(settings.alerts, settings.alert_on, settings.alert_quiet, settings.clock)


def made_alerts(
    urls: tuple[str, ...], alert_on: tuple[str | int, ...], quiet: str | None, clock: Clock
) -> Alerts | None:
    """Return what tells of alerts at these addresses; see `alerts_of` and the settings of these names."""
    if not urls:
        return None
    key = urls, alert_on, quiet, clock
    found = _made.get(key)
    if found is None:
        percents = tuple(one for one in alert_on if isinstance(one, int))
        kinds = {THRESHOLD if isinstance(one, int) else one for one in alert_on}
        found = Alerts(
            addresses_of(urls),
            kinds=tuple(kinds),
            percents=None if THRESHOLD in alert_on else percents,
            quiet=0 if quiet is None else duration_ms(quiet),
            clock=clock,
        )
        _made[key] = found
        if finish_all not in endings:
            endings.append(finish_all)
    return found


def tell_refusal(
    alerts: Alerts,
    store: Store,
    hold: Hold,
    balance: Balance,
    *,
    limit: Nanos,
    spent: Nanos,
    at: Milliseconds,
    doubtful: bool = False,
) -> None:
    """Tell that an account had too little available for a hold. Never raises.

    Args:
        alerts: who tells.
        store: whose account it is.
        hold: what was asked for.
        balance: the account.
        limit: its limit as people mean it, Nanos.
        spent: what it has spent as people mean it, Nanos.
        at: when.
        doubtful: it may be asked for again at once, and be granted: see `Alerts.revoke`.
    """
    try:
        if not alerts.wants(REFUSED):
            return
        about = store.project, balance.account
        if alerts.is_known(*about, REFUSED_MARK, balance.starts_ms, spent):
            alerts.count_refusal(*about)
            return
        numbers = {"limit": limit, "spent": spent, "cost": hold.amount_of(balance.unit)}
        alert = _alert(store.project, hold, balance, at, kind=REFUSED, **numbers)
        alerts.put(alert, _mark_of(store), _history_of(alerts, store), revocable=hold.id if doubtful else "")
    except Exception:  # noqa: BLE001 - it would reach the caller
        logger.exception("budgetguard: an alert could not be queued")


def tell_crossings(
    alerts: Alerts, store: Store, hold: Hold, crossings: Iterable[Crossing], *, at: Milliseconds
) -> None:
    """Tell which thresholds accounts have reached, the highest of each account. Never raises."""
    try:
        highest: dict[str, Crossing] = {}
        for one in crossings:
            before = highest.get(one.account)
            is_higher = before is None or one.threshold > before.threshold
            if is_higher and alerts.wants(THRESHOLD, one.threshold):
                highest[one.account] = one
        for one in highest.values():
            alert = _alert(store.project, hold, one.balance, at, kind=THRESHOLD, percent=one.threshold)
            alerts.put(alert, _mark_of(store), _history_of(alerts, store))
    except Exception:  # noqa: BLE001 - it would reach the caller
        logger.exception("budgetguard: an alert could not be queued")


def _alert(project: str, hold: Hold, balance: Balance, at: Milliseconds, **about: Any) -> Alert:
    return Alert(
        at=at,
        project=project,
        account=balance.account,
        who=_who(balance.account),
        unit=balance.unit,
        starts=balance.starts_ms,
        resets=balance.resets_ms,
        rolling=balance.rolling,
        user=hold.user,
        model=hold.model,
        **{
            "limit": balance.limit_nanos or 0,
            "spent": balance.spent_nanos,
            "held": balance.held_nanos,
            **about,
        },
    )


def _who(account: str) -> str:
    """Return an account in words that mean the same to people who read them elsewhere."""
    words = account_in_words(account)
    kind, _, ident = account.partition(":")
    return f"{kind} {ident!r}" if words.startswith("this ") else words


def _history_of(alerts: Alerts, store: Store) -> AlertHistory | None:
    return history_of(store.url, alerts.clock)


def _mark_of(store: Store) -> Callable[[str, int], bool] | None:
    # A store of a program's own may not know the verb: then each process tells for itself.
    return getattr(store, "mark", None)
