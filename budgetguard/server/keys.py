"""API keys: who may ask the service for what, kept in the service's own store.

A key is `bg_`, an id, `_` and 256 random bits. Its id, role, project and SHA-256 are stored. A slow hash such
as scrypt protects passwords that people choose against a dictionary; for 256 random bits there is no
dictionary, and it would cost every request tens of milliseconds.

Keys are accounts without a limit in a project that no request can name. So every store keeps them, and all
servers on one store see a new or revoked key within `FRESH` seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from budgetguard.core.accounts import Budget, account_name, check_id
from budgetguard.core.windows import Milliseconds
from budgetguard.engine.alert_history import ALERTS_PROJECT
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import Store

Role: TypeAlias = Literal["read", "spend", "admin"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

KEYS_PROJECT: Final = "budgetguard:keys"
"""The project in which keys are kept. No key is of it, and no route opens it."""

EVENTS_PROJECT: Final = "budgetguard:events"
"""The project of the events that are to be delivered, and of the list of projects that are served."""

LEADER_PROJECT: Final = "budgetguard:leader"
"""The project of the lease that says which server runs the schedule."""

OWN_PROJECTS: Final = frozenset({KEYS_PROJECT, EVENTS_PROJECT, LEADER_PROJECT, ALERTS_PROJECT})

FRESH: Final = 1.0
"""Seconds for which a reading of the keys is used by default."""

STALE: Final = 10.0
"""Seconds for which it is used while the store does not answer; after that no key is accepted."""

# Seconds after a reading that failed until the next is tried.
_AGAIN: Final = 0.25
_KIND: Final = "key"
# Stays when the last key is revoked, so that revoking it does not open the service to everybody.
_KEYED: Final = "service:keyed"
_SHORTEST: Final = 16


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key, without the key itself.

    Attributes:
        id: its public part.
        role: `read`, `spend` (which may read) or `admin` (which may do everything).
        project: the one project it is for; None is every project (only a key from the environment).
        digest: SHA-256 of the key, hexadecimal.
        created_ms: when it was made.
    """

    id: str
    role: Role
    project: str | None
    digest: str
    created_ms: Milliseconds = 0

    def may(self, role: Role) -> bool:
        """Return whether this key's role includes another."""
        return ROLES.index(self.role) >= ROLES.index(role)


EVERYBODY: Final = Key("none", "admin", None, "")
"""The key that counts where none is needed: a service on loopback without any key."""


def given_key(text: str, project: str | None) -> Key:
    """Return the administrator's key from `BUDGETGUARD_API_KEY`.

    Raises:
        ConfigurationError: it is too short to be a secret.
    """
    check_secret(text, "BUDGETGUARD_API_KEY")
    return Key("environment", "admin", project, _digest(text))


def check_secret(text: str, name: str) -> None:
    """Check a secret that somebody has made up; `name` says which in the error's text.

    Raises:
        ConfigurationError: it is too short, or no plain text.
    """
    if len(text) < _SHORTEST or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            f"{name} must be at least {_SHORTEST} printable ASCII characters without spaces: "
            "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )


def create_key(store: Store, project: str, role: str) -> tuple[Key, str]:
    """Make a key; return what is stored of it, and the key itself, which cannot be shown again.

    Args:
        store: opened for `KEYS_PROJECT`.
        project: the one project that it is for.
        role: one of `ROLES`.

    Raises:
        ConfigurationError: a bad role or project.
        StoreError: the store failed.
    """
    if role not in ROLES:
        raise ConfigurationError(f"a key's role is {', '.join(ROLES)}, not {role!r}")
    check_project(project)
    ident = secrets.token_hex(6)
    text = f"bg_{ident}_{secrets.token_urlsafe(32)}"
    store.set_budget(_KEYED, Budget(None))
    account = account_name(_KIND, f"{ident}:{role}:{_digest(text)}:{project}")
    created = store.set_budget(account, Budget(None)).created_ms
    return _read(account, created), text


def list_keys(store: Store) -> list[Key]:
    """Return what is stored of all keys, in order of their ids.

    Raises:
        StoreError: the store failed.
    """
    return [_read(one.account, one.created_ms) for one in store.list(_KIND)]


def revoke_key(store: Store, ident: str) -> Key:
    """Revoke a key by its id.

    Raises:
        ConfigurationError: there is none.
        StoreError: the store failed.
    """
    for one in store.list(_KIND):
        if one.account.split(":")[1] == ident:
            store.delete(one.account)
            return _read(one.account, one.created_ms)
    raise ConfigurationError(f"there is no key {ident!r}: see `budgetguard keys list`")


def check_project(project: object) -> str:
    """Return a project's name if it can be served.

    Raises:
        ConfigurationError: it cannot be.
    """
    name = check_id(project, name="project")
    if name in (".", ".."):
        raise ConfigurationError(f"the project {name!r} can be no part of an address: choose another name")
    if name in OWN_PROJECTS:
        raise ConfigurationError(f"the project {name!r} is the service's own: choose another name")
    return name


class Keyring:
    """The keys as of the last reading, at most a second ago.

    Args:
        store: opened for `KEYS_PROJECT`.
        given: a key that is not in the store.
        fresh: seconds for which a reading is used.
    """

    def __init__(self, store: Store, given: Key | None = None, fresh: float = FRESH) -> None:
        self._store = store
        self._given = given
        self._fresh = fresh
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._keyed = given is not None
        self._read_at = self._failed_at = float("-inf")
        self._failure = ""

    @property
    def is_usable(self) -> bool:
        """Whether the last reading may still be used, should the store not answer."""
        return time.monotonic() - self._read_at <= STALE

    @property
    def is_fresh(self) -> bool:
        """Whether the keys need not be read again now."""
        return time.monotonic() - self._read_at < self._fresh

    @property
    def keyed(self) -> bool:
        """Whether there ever was a key: then every request needs one."""
        return self._keyed

    def refresh(self) -> None:
        """Read the keys if they are not fresh; blocks.

        Raises:
            StoreError: the store has not answered for `STALE` seconds.
        """
        with self._lock:
            if self.is_fresh:
                return
            if time.monotonic() - self._failed_at < _AGAIN:
                if self.is_usable:
                    return
                raise StoreError(self._failure)  # one timeout is enough for all that waited for it
            started = time.monotonic()
            try:
                found = {key.id: key for key in list_keys(self._store)}
                keyed = self._store.read(_KEYED) is not None
            except StoreError as error:
                self._failed_at, self._failure = time.monotonic(), str(error)
                if self.is_usable:
                    return
                raise
            self._keys = found
            self._keyed = self._keyed or keyed or bool(found)
            self._read_at = started

    def find(self, text: str) -> Key | None:
        """Return the key that a text is, or None, in the same time whatever is wrong with it."""
        digest = _digest(text)
        given = self._given
        if given is not None and hmac.compare_digest(given.digest, digest):
            return given
        parts = text.split("_", 2)
        key = self._keys.get(parts[1]) if len(parts) == 3 else None
        matches = hmac.compare_digest(_NOBODY if key is None else key.digest, digest)
        return key if matches else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_NOBODY: Final = "0" * 64


def _read(account: str, created: Milliseconds) -> Key:
    _, ident, role, digest, project = account.split(":", 4)
    return Key(ident, role, project, digest, created)  # type: ignore[arg-type]  # as `create_key` wrote it
