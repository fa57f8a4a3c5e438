"""The store protocols, and the table of stores by URL scheme."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Final, NamedTuple, Protocol, runtime_checkable

from budgetguard.core.accounts import Balance, Budget, Document, Grant, check_id
from budgetguard.core.holds import (
    Booked,
    Entry,
    Expiry,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.process import system_clock
from budgetguard.core.rows import Export, Stored
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Clock, Milliseconds, duration_ms
from budgetguard.errors import ConfigurationError
from budgetguard.stores.targets import POSTGRES_SCHEMES, REDIS_SCHEMES, SERVICE_SCHEMES
from budgetguard.stores.urls import public_url, shown_url

__all__ = [
    "DEFAULT_RETENTION",
    "STORES",
    "Administration",
    "LedgerVerbs",
    "Migrating",
    "Store",
    "StoreKind",
    "Transfer",
    "open_store",
    "public_url",
]

DEFAULT_RETENTION: Final = "90d"
OWN_PROJECTS: Final = "budgetguard:"
"""What the names of the projects begin with in which the hosted service keeps what is its own."""


class LedgerVerbs(Protocol):
    """What a guarded call does to the balances of one project. Each verb is one transaction.

    All verbs raise StoreError where the store cannot be read or written, and never answer "over budget"
    because it is busy. They are short, synchronous, and safe to call from any thread.

    Attributes:
        url: names the store; may hold credentials, see `public_url`.
        project: whose balances these are.
        blocking: whether verbs wait for I/O, so that an event loop should run them in a thread.
    """

    url: str
    project: str
    blocking: bool

    def reserve(self, hold: Hold) -> Reservation:
        """Set a hold's amount aside on all of its accounts that exist, or on none."""

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        """Book what a call cost, once per hold id; state `voided` books nothing."""

    def attach(self, hold_id: str, request_id: str) -> bool:
        """Store which of the provider's answers a hold waits for, so that others can settle it.

        Returns whether there is such a hold, neither settled nor voided; else nothing has changed.
        """

    def attached(self, request_id: str) -> HoldRecord | None:
        """Return the hold that an answer was attached to last, as it stands now, or None."""

    def mark(self, account: str, mark: int) -> bool:
        """Note something about an account's present window, and return whether it was not noted before.

        Args:
            account: whose; of one that does not exist, nothing is noted.
            mark: 0 or less; a number above 0 is a threshold that settlements note (percent).
        """

    def scopes(self) -> Document:
        """Return the project's scopes: which kinds of budgets there are."""


class Administration(Protocol):
    """What people, reports and services ask of the balances of one project.

    Verbs raise StoreError as those of `LedgerVerbs` do. Those that change something take an entry of the
    audit trail, which is added in the same transaction if there was something to change.
    """

    def read(self, account: str) -> Balance | None:
        """Return how an account stands now, or None if it does not exist."""

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        """Make an account, or change the limit and window of one that exists and keep its spend."""

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        """Raise an account's limit, once per grant id, or return None if it does not exist.

        One without a limit stays without one.
        """

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        """Store the labels that a user's calls carry (JSON text), or return None if there is no account."""

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        """Replace the project's scopes if they are of the revision that was seen; return whether they were.

        When this returns, no hold is granted any more that was judged by others.
        """

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        """Yield the entries of the audit trail that were made from `since` on, oldest first."""

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        """Set what an account has spent to nothing, or return None if it does not exist."""

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        """Delete an account and return whether it existed. Its holds still end, charged to nobody."""

    def list(self, kind: str = "") -> Iterator[Balance]:
        """Yield the accounts of a kind (`user`, `run`, …; all if empty) in order of their names."""

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        """Yield the open holds, of one account or of all."""

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        """Yield the holds made from `since` to before `until`, oldest first, ended or open."""

    def observations(self, model: str) -> Observations:
        """Return what has been observed of a model's answers."""

    def projects(self, account: str | None = None) -> Iterator[str]:
        """Yield the projects of this place that have an account (or just this account), by name.

        A service tells a key of its own project only.
        """

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        """Call `hook` for every hold that this store finds expired outside of reserve and settle.

        Those two answer with the expiries that they find.
        """

    def close(self) -> None:
        """Close files and connections; the next verb opens them again."""


class Store(LedgerVerbs, Administration, Protocol):
    """The balances of one project. `budgetguard.testing.contract` is what an implementation must pass."""


@runtime_checkable
class Transfer(Protocol):
    """The rows of a project, read and written whole: to move it, and to add its balances up again.

    A frozen project stands still: every verb that writes raises StoreError with its note (see
    `transfer.frozen_error`), and reads show what was stored, whatever time would have changed.

    Attributes:
        retention_ms: for how long the records of ended calls are kept (milliseconds).
    """

    url: str
    project: str
    retention_ms: Milliseconds

    def export(self) -> Export:
        """Return all that is stored of the project, as it is stored: nothing is brought up to date.

        No more is in memory than a page. Raises StoreError, also while the rows are walked over.
        """

    def restore(self, rows: Iterable[Stored]) -> None:
        """Insert or replace rows as another store exported them, a few hundred a transaction.

        Rows that come again change nothing. Raises StoreError where the project is not frozen.
        """

    def freeze(self, note: str | None) -> None:
        """Close the project for writing, and say why in a note; None opens it again.

        When this returns, no verb is still under way that may write.
        """

    def frozen(self) -> str | None:
        """Return the note of a frozen project, None if it is not frozen."""


@runtime_checkable
class Migrating(Protocol):
    """A store whose database must be brought up to date when budgetguard is."""

    def migrate(self) -> tuple[int, int]:
        """Make the database ready for this version; return its schema's version before and after.

        A version of 0 is none. Raises StoreError where that cannot be done.
        """

    def grants(self) -> str:
        """Return the SQL with which the owner lets another role use the store."""


class BaseStore:
    """What all stores have in common: whose balances they are, a clock, and hooks for expiries.

    Args:
        url, project, clock, retention: see `open_store`.

    Raises:
        ConfigurationError: a bad project or retention.
    """

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        self.url = url
        self.project = check_id(project, name="project")
        self.retention_ms = duration_ms(retention)
        self._clock = clock
        self._expiry_hooks: list[Callable[[Expiry], None]] = []

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        self._expiry_hooks.append(hook)

    def _announce(self, expiries: Iterable[Expiry]) -> None:
        for expiry in expiries:
            for hook in self._expiry_hooks:
                hook(expiry)


class StoreKind(NamedTuple):
    """A row of the table of stores.

    Attributes:
        module: where the class is; imported when a store of this kind is opened.
        store: the class, called with a URL and the keywords of `open_store`.
        driver: the package that it needs beside budgetguard's own dependencies.
        oldest: the oldest version of the driver that works.
        extra: what installs the driver.
    """

    module: str
    store: str
    driver: str = ""
    oldest: tuple[int, ...] = ()
    extra: str = ""


_MEMORY: Final = StoreKind("budgetguard.stores.memory", "MemoryStore")
_DISK: Final = StoreKind("budgetguard.stores.sqlite", "DiskStore")
_REDIS: Final = StoreKind("budgetguard.stores.redis", "RedisStore", "redis", (5, 2, 1), "redis")
_POSTGRES: Final = StoreKind("budgetguard.stores.postgres", "PostgresStore", "psycopg", (3, 2), "postgres")
_HOSTED: Final = StoreKind("budgetguard.stores.hosted", "HostedStore")

STORES: Final = {
    "memory": _MEMORY,
    "disk": _DISK,
    **dict.fromkeys(REDIS_SCHEMES, _REDIS),
    **dict.fromkeys(POSTGRES_SCHEMES, _POSTGRES),
    **dict.fromkeys(SERVICE_SCHEMES, _HOSTED),
}
"""The stores by URL scheme. A new store is a module and a row here."""


def open_store(
    url: str, *, project: str, clock: Clock = system_clock, retention: str = DEFAULT_RETENTION
) -> Store:
    """Open the store that a URL names.

    Args:
        url: `memory://`, or `disk://` and a folder: `disk:///var/lib/app/budgets`, `disk://~/budgets`;
            or a server: `redis://HOST:PORT/DATABASE` (see `targets.redis_target`),
            `postgresql://USER:PASSWORD@HOST/DATABASE` (see `targets.postgres_target`);
            or a service: `https://KEY@HOST` (see `targets.service_target`).
        project: whose accounts; projects that share a store share nothing.
        clock: what tells the time.
        retention: how long records of ended calls, and idle accounts of runs, are kept (a duration).

    Raises:
        ConfigurationError: an unknown scheme, a bad URL, or a driver that is missing or too old.
        StoreError: the store cannot be opened.
    """
    duration_ms(retention)
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES if "+" not in name)
        shown = shown_url(url) if isinstance(url, str) else url
        raise ConfigurationError(f"store {shown!r} is not a URL that budgetguard knows: use one of {known}")
    kind = STORES[scheme]
    if kind.driver:
        _check_driver(scheme, kind)
    store: Store = getattr(import_module(kind.module), kind.store)(
        url, project=project, clock=clock, retention=retention
    )
    return store


def _check_driver(scheme: str, kind: StoreKind) -> None:
    """Import a store's driver.

    Raises:
        ConfigurationError: it is missing, or older than the store can use.
    """
    oldest = ".".join(map(str, kind.oldest))
    remedy = f"pip install 'budgetguard-ai[{kind.extra}]'"
    try:
        found: str = import_module(kind.driver).__version__
    except ImportError as error:
        raise ConfigurationError(f"{scheme}:// needs {kind.driver} {oldest}: {remedy} ({error})") from error
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[: len(kind.oldest)])
    if numbers < kind.oldest:
        raise ConfigurationError(f"{scheme}:// needs {kind.driver} {oldest}, not {found}: {remedy}")
