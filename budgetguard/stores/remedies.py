"""What to do about the errors of drivers: one table a driver, and the text of a StoreError made from it.

No text shows a password or a key.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_TRY_AGAIN: Final = "it did not answer within {timeout:g} s: try again, or raise ?timeout="
_UNREACHED: Final = "it could not be reached for {timeout:g} s: is it running, and at that address?"
_NO_HOST: Final = "there is no host of that name: check the URL"
_NOBODY: Final = "nobody answers there: is it running, and at that address?"
_POSTGRES_FULL: Final = "it has too many connections: raise max_connections, or lower ?pool="
_POSTGRES_TLS: Final = "TLS failed: check sslmode= and sslrootcert="
_MIGRATE: Final = "run `budgetguard migrate --store URL`"


@dataclass(frozen=True)
class Remedies:
    """The remedies for one driver's errors. The first row that fits counts.

    Attributes:
        names: remedy by the name of the error's class or one of its bases, its SQLSTATE or SQLite's name.
        words: remedy by what an error says, for those without a SQLSTATE.
        otherwise: the remedy for all others without a SQLSTATE.
        place: what is behind the driver, before its name.
    """

    names: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    otherwise: str = "see the cause"
    place: str = "store at"


DISK: Final = Remedies(
    {
        **dict.fromkeys(
            ("SQLITE_BUSY", "SQLITE_LOCKED"),
            "another process held its lock for more than {timeout:g} s; try again, or raise ?timeout=",
        ),
        **dict.fromkeys(
            ("SQLITE_FULL", "ENOSPC", "EDQUOT"), "the disk is full: free some space; nothing was changed"
        ),
        "EROFS": "it is on a file system that is read-only: choose another folder; nothing was changed",
        **dict.fromkeys(
            ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "PermissionError"),
            "it is read-only to this process: give it write access, or choose another folder{whose}",
        ),
        "SQLITE_CANTOPEN": "its database cannot be opened: does the folder still exist, and is a file of it "
        "in the way?",
        "SQLITE_IOERR": "the disk may be full, over its quota, or failing; nothing was changed",
        "MalformedAccount": "what it has of account {account!r} is damaged: reset the account, or delete it "
        "and make it again; others are not concerned, and nothing was changed",
        **dict.fromkeys(
            ("NotADirectoryError", "FileExistsError"),
            "there is a file where the folder should be: choose another folder",
        ),
        **dict.fromkeys(("MemoryError", "SQLITE_NOMEM"), "there is not enough memory; nothing was changed"),
        "OSError": "the operating system does not let it",
    },
    # Whatever else SQLite and Python say of what they find in the file: text that is no UTF-8, numbers that
    # are none, JSON nested without end; a constraint too, as an update checks all columns of a row.
    otherwise="its cache.db is not a budgetguard store, or is damaged: move the folder away or restore it "
    "from a backup; nothing was changed",
    place="store in",
)

REDIS: Final = Remedies(
    {
        "AuthenticationError": "it wants another user or password: write redis://USER:PASSWORD@HOST",
        "NoPermissionError": "its user may not do that: allow it all commands on keys that begin with bg:",
        "OutOfMemoryError": "the server is full (maxmemory): give it more memory; nothing was changed",
        "ReadOnlyError": "it is a replica: name the primary, or use redis+sentinel://; nothing was changed",
        "BusyLoadingError": "it is still loading its data after a restart: try again",
        "ClusterNodeError": "it is a node of a cluster: write redis+cluster://",
        **dict.fromkeys(
            ("ClusterDownError", "TryAgainError", "AskError", "MovedError", "MasterDownError"),
            "the cluster is failing over or moving the project's slot: try again; nothing was changed",
        ),
        "TimeoutError": _TRY_AGAIN,
        "SSLError": "TLS failed: check rediss:// or redis://, the port, and ssl_ca_certs=",
        "ConnectionError": _UNREACHED,
    },
    {"MISCONF": "it cannot write to its disk, and refuses to change anything until it can"},
)

POSTGRES: Final = Remedies(
    {
        "DeadlineError": _TRY_AGAIN,
        "ConnectionTimeout": _TRY_AGAIN,
        "25006": "it is a read-only standby: name the primary, or write ?target_session_attrs=read-write",
        "40001": "others kept changing the same rows: try again; nothing was changed",
        "40P01": "others kept locking the same rows: try again; nothing was changed",
        "42501": "its role lacks rights: run `budgetguard migrate --store URL` as the owner of the schema, "
        "which prints the grants",
        "53100": "the disk is full: free some space; nothing was changed",
        "53200": "the server is out of memory; nothing was changed",
        "53300": _POSTGRES_FULL,
        "55P03": "somebody else held a lock on its rows for too long: try again, or raise ?timeout=",
        "57014": "the server could not do it in time: try again, or raise ?timeout=; nothing was changed",
        "57P01": "the server is shutting down: try again",
        "57P03": "the server is starting or recovering: try again",
        "3F000": f"its schema is gone: {_MIGRATE}",
        "42P01": f"its tables are gone: {_MIGRATE}",
        "42883": f"its functions are gone, or not those of this version: {_MIGRATE}, or update budgetguard",
        "26000": "a pooler forgot a prepared statement: add ?prepare=0",
        "42P05": "a pooler keeps prepared statements of others: add ?prepare=0",
    },
    # Errors of connecting have words alone. Servers may say them in another language; then the remedy is
    # a general one.
    {
        "password authentication failed": "the user or the password is wrong",
        "no password supplied": "it wants a password: write postgresql://USER:PASSWORD@HOST/DATABASE",
        "no pg_hba.conf entry": "its pg_hba.conf lets nobody in like that: check user, host and sslmode=",
        "does not exist": "there is no such database or role: make it with createdb or createuser",
        "starting up": "it is still starting: try again",
        "shutting down": "it is shutting down: try again",
        "recovery": "it is still recovering: try again",
        "too many clients": _POSTGRES_FULL,
        "too many connections": _POSTGRES_FULL,
        "remaining connection slots": _POSTGRES_FULL,
        "SSL": _POSTGRES_TLS,
        "certificate": _POSTGRES_TLS,
        "resolve host": _NO_HOST,
        "not known": _NO_HOST,
        "Connection refused": _NOBODY,
        "No such file": _NOBODY,
    },
    "the connection broke: is it running, and at that address?",
)

HTTP: Final = Remedies(
    {
        "SSLCertVerificationError": "its certificate is not trusted: "
        "name its authority by ?ssl_ca_certs=FILE",
        "SSLError": "TLS failed: check https:// or http://, and the port",
        "TimeoutError": _TRY_AGAIN,
        "gaierror": _NO_HOST,
        "UnreachedError": _UNREACHED,
        "OSError": "the connection broke: try again",
        "HTTPException": "what answers there does not speak HTTP as it should: check host and port",
    },
    place="service at",
)


def explain(
    error: BaseException,
    target: object,
    timeout: float,
    remedies: Remedies,
    *,
    doing: str = "use",
    secret: str | None = None,
    names: Collection[str] = (),
    **about: object,
) -> str:
    """Return the text of a StoreError: what cannot be used, what to do about it, and what the driver said.

    Args:
        error: what the driver raised.
        target: the server, as it may be shown.
        timeout: seconds that the verb had.
        remedies: the driver's table.
        doing: what was to be done with the store.
        secret: what the driver may repeat and nobody must see.
        names: further names that the error has in the table.
        about: what remedies name in braces, beside the timeout.
    """
    said = " ".join(str(error).split())
    if secret:
        said = said.replace(secret, "***")
    state: str | None = getattr(error, "sqlstate", None)
    kind = type(error).__name__ if state is None else f"{type(error).__name__} {state}"
    known = {state, *_names(error), *names}
    remedy = _remedy(known, state, said, remedies).format(timeout=timeout, **about)
    return f"cannot {doing} the {remedies.place} {target}: {remedy} ({kind}: {said})"


def _remedy(names: set[str | None], state: str | None, said: str, remedies: Remedies) -> str:
    for name, remedy in remedies.names.items():
        if name in names:
            return remedy
    if state is not None and not state.startswith("08"):
        return Remedies.otherwise
    for words, remedy in remedies.words.items():
        if state is None and words in said:
            return remedy
    return remedies.otherwise


def _names(error: BaseException) -> Iterator[str]:
    """Yield the names of an error's classes, and of those below it that say more than drivers do."""
    cause: BaseException | None = error
    while cause is not None:
        if cause is error or isinstance(cause, ssl.SSLError | socket.gaierror | TimeoutError):
            yield from (each.__name__ for each in type(cause).__mro__)
        cause = cause.__cause__ or cause.__context__
