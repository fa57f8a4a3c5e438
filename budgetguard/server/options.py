"""The service's settings, passed to its workers through the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from limits import RateLimitItem
from limits import parse as parse_rate

from budgetguard.config import (
    DEFAULT_ALERT_ON,
    DEFAULT_ALERT_QUIET,
    DEFAULT_THRESHOLDS,
    from_environment,
)
from budgetguard.core.accounts import check_id
from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import FRESH, Key, check_project, given_key
from budgetguard.server.quotas import DEFAULT_ACCOUNTS, DEFAULT_HOLDS
from budgetguard.server.schedule import DEFAULT_LEASE, DEFAULT_RETRY
from budgetguard.server.webhooks import Webhook

API_KEY: Final = "BUDGETGUARD_API_KEY"
HOST: Final = "BUDGETGUARD_SERVE_HOST"
RATE: Final = "BUDGETGUARD_SERVE_RATE"
REFRESH: Final = "BUDGETGUARD_SERVE_REFRESH"
WEBHOOK: Final = "BUDGETGUARD_WEBHOOK"
WEBHOOK_SECRET: Final = "BUDGETGUARD_WEBHOOK_SECRET"  # noqa: S105  # the name of a variable

ACCOUNTS: Final = "BUDGETGUARD_SERVE_ACCOUNTS"
HOLDS: Final = "BUDGETGUARD_SERVE_HOLDS"

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_RATE: Final = "1000/second"
"""Requests that one key may send to one worker; an address without a good key may send a tenth of that."""

DEFAULT_REFRESH: Final = "60"
"""Seconds from one pass over all accounts to the next."""


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of one service.

    Attributes:
        store: URL of the store.
        host: the address that it listens on.
        retention: how long records of ended calls are kept.
        given: the administrator's key from the environment, if there is one.
        rate: requests that one key may send to one worker, such as `1000/second`, or `none`.
        fresh: seconds for which a reading of the keys is used.
        refresh: seconds from one pass over all accounts to the next; 0 for none, and no events.
        webhook: where events go, if anywhere.
        thresholds: percentages of a limit that make an event and an alert when first reached.
        alerts: where alerts go, if anywhere; see `Settings`.
        alert_on: what they are about.
        alert_quiet: for how long nothing else is told about an account; None for not at all.
        lease: seconds after which another server takes over from one that has fallen silent.
        retry: seconds until an undelivered event is sent again, twice as long each time.
        accounts: how many one project may have.
        holds: how many of one project's may be open, each counted once for each of its accounts.
    """

    store: str
    host: str = DEFAULT_HOST
    retention: str = "90d"
    given: Key | None = None
    rate: str = DEFAULT_RATE
    fresh: float = FRESH
    refresh: float = 0.0
    webhook: Webhook | None = field(default=None, repr=False)
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    alerts: tuple[str, ...] = field(default=(), repr=False)
    alert_on: tuple[str | int, ...] = DEFAULT_ALERT_ON
    alert_quiet: str | None = DEFAULT_ALERT_QUIET
    lease: float = DEFAULT_LEASE
    retry: float = DEFAULT_RETRY
    accounts: int = DEFAULT_ACCOUNTS
    holds: int = DEFAULT_HOLDS

    @property
    def sends_events(self) -> bool:
        """Whether events go anywhere."""
        return bool(self.webhook is not None and self.refresh)

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach the service, so that it may run without a key."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def limit(self) -> RateLimitItem | None:
        """The rate, or None for none.

        Raises:
            ConfigurationError: it is no rate.
        """
        if self.rate == "none":
            return None
        try:
            return parse_rate(self.rate)
        except ValueError:
            raise ConfigurationError(
                f"the rate must be such as 1000/second or 600/minute, or none, not {self.rate!r}"
            ) from None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Options:
        """Return the options that the `BUDGETGUARD_*` variables give.

        Raises:
            ConfigurationError: a bad value, or a store that cannot be served.
        """
        settings = from_environment(environ)
        assert isinstance(settings.store, str)
        if settings.store.startswith(("http://", "https://")):
            raise ConfigurationError(
                "a service keeps its budgets itself: give serve a store such as disk:///var/lib/budgetguard "
                "or postgresql://, not another service"
            )
        if settings.project is not None:
            check_project(check_id(settings.project, name="project"))
        text = environ.get(API_KEY)
        made = cls(
            store=settings.store,
            host=environ.get(HOST) or DEFAULT_HOST,
            retention=settings.retention,
            given=given_key(text, settings.project) if text else None,
            rate=environ.get(RATE) or DEFAULT_RATE,
            refresh=_seconds(environ.get(REFRESH) or DEFAULT_REFRESH),
            webhook=_webhook(environ),
            thresholds=settings.thresholds,
            alerts=settings.alerts,
            alert_on=settings.alert_on,
            alert_quiet=settings.alert_quiet,
            accounts=_count(environ, ACCOUNTS, DEFAULT_ACCOUNTS),
            holds=_count(environ, HOLDS, DEFAULT_HOLDS),
        )
        _ = made.limit
        return made


def _webhook(environ: Mapping[str, str]) -> Webhook | None:
    url, secret = environ.get(WEBHOOK), environ.get(WEBHOOK_SECRET)
    if not url:
        return None
    if not secret:
        raise ConfigurationError(
            f"a webhook needs a secret that signs what is sent: --webhook-secret-file, or {WEBHOOK_SECRET}"
        )
    return Webhook(url, secret)


def _count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 12 and int(text) > 0):
        raise ConfigurationError(f"{name} must be a whole number from 1, not {text[:60]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= _LONGEST_REFRESH:
        raise ConfigurationError(
            f"refresh must be seconds from 1 to {_LONGEST_REFRESH}, such as {DEFAULT_REFRESH}, "
            f"not {text[:60]!r}"
        )
    return value


_LONGEST_REFRESH: Final = 86_400
