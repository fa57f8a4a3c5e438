"""What PostgreSQL's errors mean for a store: which pass by themselves, and what to do about the others."""

from __future__ import annotations

from typing import Final

from budgetguard.stores.postgres_target import Target

import psycopg  # isort: skip  # after postgres_target, which says what to install where it is missing
from psycopg import pq  # isort: skip


class TooLate(psycopg.OperationalError):
    """The time that a verb may take is over on this side."""


_CONFLICTS: Final = ("40001", "40P01")  # serialization failure, deadlock: to be sent again
_RESTARTING: Final = ("57P03",)  # cannot connect now

# Of an attempt to connect psycopg knows the words alone. Servers may say them in another language; then the
# remedy is a general one.
_SAID: Final = (
    ("password authentication failed", "the user or the password is wrong"),
    ("no password supplied", "it wants a password: write postgresql://USER:PASSWORD@HOST/DATABASE"),
    ("no pg_hba.conf entry", "its pg_hba.conf lets nobody in like that: check user, host and sslmode="),
    ("does not exist", "there is no such database or role: make it with createdb or createuser"),
    ("starting up", "it is still starting: try again"),
    ("shutting down", "it is shutting down: try again"),
    ("recovery", "it is still recovering: try again"),
    ("too many clients", "it has too many connections: raise max_connections, or lower ?pool="),
    ("remaining connection slots", "it has too many connections: raise max_connections, or lower ?pool="),
    ("SSL", "TLS failed: check sslmode= and sslrootcert="),
    ("certificate", "TLS failed: check sslmode= and sslrootcert="),
    ("resolve host", "there is no host of that name: check the URL"),
    ("not known", "there is no host of that name: check the URL"),
    ("Connection refused", "nobody answers there: is it running, and at that address?"),
    ("No such file", "nobody answers there: is it running, and at that address?"),
)
_PASSING: Final = ("starting up", "shutting down", "recovery mode", "not yet accepting connections")

_CODES: Final = {
    "25006": "it is a read-only standby: name the primary, or write ?target_session_attrs=read-write",
    "40001": "others kept changing the same rows: try again; nothing was changed",
    "40P01": "others kept locking the same rows: try again; nothing was changed",
    "42501": "its role lacks rights: run `budgetguard migrate --store URL` as the owner of the schema, "
    "which prints the grants",
    "53100": "the disk is full: free some space; nothing was changed",
    "53200": "the server is out of memory; nothing was changed",
    "53300": "it has too many connections: raise max_connections, or lower ?pool=",
    "55P03": "somebody else held a lock on its rows for too long: try again, or raise ?timeout=",
    "57014": "the server could not do it in time: try again, or raise ?timeout=; nothing was changed",
    "57P01": "the server is shutting down: try again",
    "57P03": "the server is starting or recovering: try again",
    "3F000": "its schema is gone: run `budgetguard migrate --store URL`",
    "42P01": "its tables are gone: run `budgetguard migrate --store URL`",
    "42883": "its functions are gone, or not those of this version: run `budgetguard migrate --store URL`",
    "26000": "a pooler forgot a prepared statement: add ?prepare=0",
    "42P05": "a pooler keeps prepared statements of others: add ?prepare=0",
}


def error_of(result: pq.abc.PGresult) -> psycopg.Error:
    """Return the error that a result tells of, of the class that psycopg has for it."""
    code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    text = (result.error_message or b"").decode(errors="replace").strip()
    try:
        kind = psycopg.errors.lookup(code)
    except KeyError:
        kind = psycopg.DatabaseError
        text = f"{text} ({code})"
    return kind(text)


def is_conflict(error: psycopg.Error) -> bool:
    """Tell whether the database asks for the statement to be sent again."""
    return error.sqlstate in _CONFLICTS


def is_passing(error: psycopg.Error) -> bool:
    """Tell whether a connection failed because the server is starting or stopping."""
    if error.sqlstate in _RESTARTING:
        return True
    return error.sqlstate is None and any(words in str(error) for words in _PASSING)


def explain(error: psycopg.Error, target: Target) -> str:
    """Say what went wrong and what to do about it, with no password in it."""
    text = " ".join(str(error).split())
    if password := target.parameters.get("password"):
        text = text.replace(str(password), "***")
    said = [remedy for words, remedy in _SAID if words in text]
    if isinstance(error, TooLate | psycopg.errors.ConnectionTimeout):
        remedy = f"it did not answer within {target.timeout:g} s: try again, or raise ?timeout="
    elif error.sqlstate in _CODES:
        remedy = _CODES[error.sqlstate]
    elif error.sqlstate is None and said:
        remedy = said[0]
    elif error.sqlstate is None or error.sqlstate.startswith("08"):
        remedy = "the connection broke: is it running, and at that address?"
    else:
        remedy = "see the cause"
    kind = type(error).__name__ if error.sqlstate is None else f"{type(error).__name__} {error.sqlstate}"
    return f"cannot use the store at {target}: {remedy} ({kind}: {text})"
