"""The store protocol, and the URL scheme that names a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final, Protocol, runtime_checkable

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import Expiry, Hold, HoldRecord, Reservation, Settled, Settlement, UnknownAccount
from budgetguard.core.learning import Observations
from budgetguard.core.windows import Clock, Milliseconds, duration_ms, system_clock
from budgetguard.errors import ConfigurationError
from budgetguard.stores import redis_target
from budgetguard.stores.urls import public_url, shown_url

__all__ = ["DEFAULT_RETENTION", "Migrating", "Store", "open_store", "public_url"]

DEFAULT_RETENTION: Final = "90d"
OWN_PROJECTS: Final = "budgetguard:"
"""What the names of the projects begin with in which the hosted service keeps what is its own."""


class Store(Protocol):
    """Keep the balances of one project. Each verb is one transaction.

    Every verb raises StoreError where the store cannot be read or written, and never answers
    "over budget" because it is busy. Verbs are short, synchronous, and safe to call from any thread.
    """

    url: str
    project: str
    blocking: bool
    """Whether verbs wait for I/O, so that an event loop should run them in a thread."""

    def reserve(self, hold: Hold) -> Reservation:
        """Set a hold's amount aside on all of its accounts that exist, or on none."""

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        """Book what a call cost, once per hold id; with state `voided`, nothing."""

    def attach(self, hold_id: str, request_id: str) -> bool:
        """Note on a hold which answer of the provider's it waits for, so that others can settle it.

        Returns whether there is such a hold, neither settled nor voided; else nothing has changed.
        """

    def attached(self, request_id: str) -> HoldRecord | None:
        """Return the hold that an answer was attached to last, as it stands now, or None."""

    def void(self, hold: Hold) -> Settled | UnknownAccount:
        """Give a hold back: the call did no work."""

    def read(self, account: str) -> Balance | None:
        """Return how an account stands now, or None if it does not exist."""

    def set_budget(self, account: str, budget: Budget, *, ephemeral: bool = False) -> Balance:
        """Make an account, or change the limit and window of one that exists and keep its spend."""

    def delete(self, account: str) -> bool:
        """Forget an account, and tell whether it existed. Its holds still end, charged to nobody."""

    def list(self, kind: str = "") -> Iterator[Balance]:
        """Yield the accounts of a kind (`user`, `run`, …; all if empty) in order of their names."""

    def reset(self, account: str) -> Balance | None:
        """Set what an account has spent to nothing, or return None if it does not exist."""

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        """Yield the open holds, of one account or of all."""

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        """Yield the holds made from `since` to before `until`, oldest first, ended or open."""

    def observations(self, model: str) -> Observations:
        """Return what has been observed of a model's answers."""

    def projects(self, account: str | None = None) -> Iterator[str]:
        """Yield the projects beside this one, and this one, that have an account (or just this account).

        In order of their names. A service tells a key of its own project only.
        """

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        """Call `hook` for every hold that this store finds expired outside of reserve and settle.

        Those two answer with the expiries that they find.
        """

    def close(self) -> None:
        """Let go of files and connections; the next verb opens them again."""


@runtime_checkable
class Migrating(Protocol):
    """A store whose database must be brought up to date when budgetguard is."""

    def migrate(self) -> tuple[int, int]:
        """Make the database ready for this version; return its schema's version before and after.

        A version of 0 is none. Raises StoreError where that cannot be done.
        """

    def grants(self) -> str:
        """Return the SQL with which the owner lets another role use the store."""


_STORES: Final = {
    "memory": ("budgetguard.stores.memory", "MemoryStore"),
    "disk": ("budgetguard.stores.disk", "DiskStore"),
    **dict.fromkeys(redis_target.SCHEMES, ("budgetguard.stores.redis", "RedisStore")),
    **dict.fromkeys(("postgresql", "postgres"), ("budgetguard.stores.postgres", "PostgresStore")),
    **dict.fromkeys(("https", "http"), ("budgetguard.stores.hosted", "HostedStore")),
}


def open_store(
    url: str, *, project: str, clock: Clock = system_clock, retention: str = DEFAULT_RETENTION
) -> Store:
    """Open the store that a URL names.

    Args:
        url: `memory://`, or `disk://` and a folder: `disk:///var/lib/app/budgets`, `disk://~/budgets`;
            or a server: `redis://HOST:PORT/DATABASE` (see `redis_target.parse_url`),
            `postgresql://USER:PASSWORD@HOST/DATABASE` (see `postgres_target.parse_url`);
            or a service: `https://KEY@HOST` (see `hosted_target.parse_url`).
        project: whose accounts; projects that share a store share nothing.
        clock: what tells the time.
        retention: how long records of ended calls, and idle accounts of runs, are kept (a duration).

    Raises:
        ConfigurationError: an unknown scheme or a bad URL.
        StoreError: the store cannot be opened.
    """
    duration_ms(retention)
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    if scheme not in _STORES:
        known = ", ".join(f"{name}://" for name in _STORES if "+" not in name)
        shown = shown_url(url) if isinstance(url, str) else url
        raise ConfigurationError(f"store {shown!r} is not a URL that budgetguard knows: use one of {known}")
    module, name = _STORES[scheme]
    kind = getattr(import_module(module), name)
    store: Store = kind(url, project=project, clock=clock, retention=retention)
    return store
