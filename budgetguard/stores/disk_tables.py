"""The tables of the disk store: their schema, the statements over them, and what may stand in a column.

`account`, `open_hold`, `ended_hold`, `spend`, `answer` and `observation` hold what `budgetguard.core.rows`
describes, in integers and text that SQLite can compare and add up. What differs from the rows:

- An account's spend by model: the model that it paid for first in its window stands in the account's own
  row (`model`, `model_spent`), since most accounts use one; the others are rows of `spend`.
- An account's open holds are the rows of `open_hold` that name it. Its own row has their number (`opened`)
  and an instant before which none of them expires (`due`): a lower bound, which may be earlier than the first
  of them, since a hold that ends does not change it. A hold that ends moves to `ended_hold`.
- Names from outside may hold lone surrogates, which are no UTF-8: such text is stored as bytes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

NEVER: Final = 2**62
"""What `due` is where no hold is open."""

PAGE: Final = 500
SWEEP_AT_MOST: Final = 2_000

ACCOUNT: Final = (
    "limit",
    "duration",
    "timezone",
    "anchor",
    "start",
    "end",
    "window",
    "epoch",
    "spent",
    "held",
    "expired",
    "expiries",
    "crossed",
    "created",
    "updated",
    "ephemeral",
    "model",
    "model_spent",
    "opened",
    "due",
)
"""The columns of an account, in the order in which statements take and give them."""

HOLD: Final = (
    "state",
    "accounts",
    "epochs",
    "amount",
    "on_expiry",
    "cost",
    "created",
    "expires",
    "ended",
    "user",
    "model",
    "endpoint",
    "outcome",
    "request_id",
    "usage",
    "tags",
)
"""The columns of a hold, in the order in which statements take and give them."""

_TEXT: Final = ("text",)
_NAME: Final = ("text", "blob")
_TYPES: Final = {
    "duration": ("text", "null"),
    "timezone": _TEXT,
    "crossed": _TEXT,
    "state": _TEXT,
    "accounts": _TEXT,
    "epochs": _TEXT,
    "usage": _TEXT,
    "tags": _TEXT,
    "outcome": ("text", "null"),
    "endpoint": _NAME,
    "limit": ("integer", "null"),
    "end": ("integer", "null"),
    "ended": ("integer", "null"),
    "user": (*_NAME, "null"),
    "request_id": (*_NAME, "null"),
}
_INTEGER: Final = ("integer",)
_PYTHON: Final = {"text": str, "blob": bytes, "null": type(None), "integer": int}


def _types(table: str, column: str) -> tuple[str, ...]:
    if column == "model":
        return (*_NAME, "null") if table == "account" else _NAME
    return _TYPES.get(column, _INTEGER)


def _columns(table: str, names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}" {_types(table, name)[0].upper()}' for name in names)


_SWEPT = "swept TEXT NOT NULL DEFAULT ''"
UPGRADE: Final = (f"ALTER TABLE project ADD COLUMN {_SWEPT}",)
"""Statements that make, of the tables that an older budgetguard made, these."""

SCHEMA: Final = (
    # `swept` is the greatest id of a hold whose record was swept. An older budgetguard made none.
    f"CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, {_SWEPT})",
    # Projects that have left: whereto.
    "CREATE TABLE moved (project INTEGER PRIMARY KEY, moved_to TEXT NOT NULL)",
    "CREATE TABLE account "
    "(id INTEGER PRIMARY KEY, project INTEGER NOT NULL, name TEXT NOT NULL, "
    f"{_columns('account', ACCOUNT)})",
    "CREATE UNIQUE INDEX account_name ON account (project, name)",
    "CREATE INDEX account_idle ON account (project, created) WHERE ephemeral = 1",
    "CREATE TABLE spend (account INTEGER NOT NULL, model NOT NULL, cost INTEGER NOT NULL, "
    "PRIMARY KEY (account, model)) WITHOUT ROWID",
    # Apart from those that ended, so that the open ones are few and need no index that every call writes.
    *(
        f"CREATE TABLE {table} (project INTEGER NOT NULL, id TEXT NOT NULL, "
        f"{_columns('hold', HOLD)}, PRIMARY KEY (project, id)) WITHOUT ROWID"
        for table in ("open_hold", "ended_hold")
    ),
    "CREATE TABLE answer (project INTEGER NOT NULL, request_id NOT NULL, hold TEXT NOT NULL, "
    "PRIMARY KEY (project, request_id)) WITHOUT ROWID",
    "CREATE INDEX answer_hold ON answer (project, hold)",
    "CREATE TABLE observation "
    "(project INTEGER NOT NULL, model NOT NULL, bucket INTEGER NOT NULL, count INTEGER NOT NULL, "
    "PRIMARY KEY (project, model, bucket)) WITHOUT ROWID",
)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _marks(names: tuple[str, ...]) -> str:
    return ", ".join("?" * len(names))


def _sets(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}" = ?' for name in names)


FIND_PROJECT: Final = "SELECT id FROM project WHERE name = ?"
ADD_PROJECT: Final = "INSERT OR IGNORE INTO project (name) VALUES (?)"
LIST_PROJECTS: Final = (
    "SELECT name FROM project WHERE EXISTS (SELECT 1 FROM account WHERE account.project = project.id) "
    "ORDER BY name"
)
LIST_PROJECTS_WITH: Final = (
    "SELECT project.name FROM project JOIN account ON account.project = project.id AND account.name = ? "
    "ORDER BY project.name"
)
FIND_MOVED: Final = "SELECT moved_to FROM moved WHERE project = ?"
SAVE_MOVED: Final = "INSERT OR REPLACE INTO moved (project, moved_to) VALUES (?, ?)"
REMOVE_MOVED: Final = "DELETE FROM moved WHERE project = ?"

FIND_SWEPT: Final = "SELECT swept FROM project WHERE id = ?"
SAVE_SWEPT: Final = "UPDATE project SET swept = max(swept, ?) WHERE id = ?"

LOAD_ACCOUNT: Final = f"SELECT id, {_list(ACCOUNT)} FROM account WHERE project = ? AND name = ?"
INSERT_ACCOUNT: Final = (
    f"INSERT INTO account (project, name, {_list(ACCOUNT)}) VALUES (?, ?, {_marks(ACCOUNT)})"
)
UPDATE_ACCOUNT: Final = f"UPDATE account SET {_sets(ACCOUNT)} WHERE id = ?"
POSTPONE: Final = "UPDATE account SET due = ? WHERE id = ?"
ACCOUNT_NUMBER: Final = "SELECT id FROM account WHERE project = ? AND name = ?"
MEND_ACCOUNT: Final = """
UPDATE account SET spent = 0, expired = 0, expiries = 0, model = NULL, model_spent = 0, held = ?
WHERE id = ?
"""
REMOVE_ACCOUNT: Final = "DELETE FROM account WHERE project = ? AND name = ?"
_PAGE_OF_ACCOUNTS = (
    f"SELECT name, id, {_list(ACCOUNT)} FROM account "
    "WHERE project = ? AND name {} ? AND name < ? ORDER BY name LIMIT ?"
)
FIRST_PAGE_OF_ACCOUNTS: Final = _PAGE_OF_ACCOUNTS.format(">=")
NEXT_PAGE_OF_ACCOUNTS: Final = _PAGE_OF_ACCOUNTS.format(">")
SPEND_OF_PAGE: Final = (
    "SELECT s.account, s.model, s.cost FROM account a CROSS JOIN spend s ON s.account = a.id "
    "WHERE a.project = ? AND a.name >= ? AND a.name <= ?"
)
LOAD_SPEND: Final = "SELECT model, cost FROM spend WHERE account = ?"
SAVE_SPEND: Final = "INSERT OR REPLACE INTO spend (account, model, cost) VALUES (?, ?, ?)"
REMOVE_SPEND: Final = "DELETE FROM spend WHERE account = ? AND model = ?"
REMOVE_ALL_SPEND: Final = "DELETE FROM spend WHERE account = ?"

_HOLDS = (
    f"SELECT {{first}}, {_list(HOLD)} FROM open_hold WHERE {{which}} "
    f"UNION ALL SELECT {{first}}, {_list(HOLD)} FROM ended_hold WHERE {{which}}"
)
LOAD_HOLD: Final = _HOLDS.format(first="project", which="project = ? AND id = ?")
_PAGE_OF_HOLDS = (
    _HOLDS.format(first="id", which="project = ? AND id {} ? AND id < ?") + " ORDER BY id LIMIT ?"
)
FIRST_PAGE_OF_HOLDS: Final = _PAGE_OF_HOLDS.replace("{}", ">=")
NEXT_PAGE_OF_HOLDS: Final = _PAGE_OF_HOLDS.replace("{}", ">")
_CHANGED = _HOLDS.format(first="id", which="project = ? AND id > ?{since}")
PAGE_OF_CHANGED: Final = (
    _CHANGED.replace("{since}", "", 1).replace("{since}", " AND (ended >= ? OR state = 'expired')")
    + " ORDER BY id LIMIT ?"
)
INSERT_HOLD: Final = {
    open_: f"INSERT INTO {table} (project, id, {_list(HOLD)}) VALUES (?, ?, {_marks(HOLD)})"
    for open_, table in ((True, "open_hold"), (False, "ended_hold"))
}
UPDATE_HOLD: Final = {
    open_: f"UPDATE {table} SET {_sets(HOLD)} WHERE project = ? AND id = ?"
    for open_, table in ((True, "open_hold"), (False, "ended_hold"))
}
REMOVE_OPEN: Final = "DELETE FROM open_hold WHERE project = ? AND id = ?"
ALL_OPEN: Final = "SELECT id, expires, accounts FROM open_hold WHERE project = ?"
OPEN_OF_ACCOUNT: Final = (
    "SELECT id, expires, accounts FROM open_hold WHERE project = ? AND instr(accounts, ?)"
)
PAGE_OF_OPEN: Final = (
    f"SELECT id, {_list(HOLD)} FROM open_hold WHERE project = ? AND instr(accounts, ?) AND id > ? "
    "ORDER BY id LIMIT ?"
)

LOAD_ANSWER: Final = "SELECT hold FROM answer WHERE project = ? AND request_id = ?"
SAVE_ANSWER: Final = "INSERT OR REPLACE INTO answer (project, request_id, hold) VALUES (?, ?, ?)"
ANSWERS_OF_PAGE: Final = (
    "SELECT hold, request_id FROM answer INDEXED BY answer_hold "
    "WHERE project = ? AND hold >= ? AND hold <= ? ORDER BY hold, request_id"
)
PAGE_OF_MODELS: Final = (
    "SELECT DISTINCT model FROM observation WHERE project = ? AND (? IS NULL OR model > ?) "
    f"ORDER BY model LIMIT {PAGE}"
)
COUNT_MODELS: Final = "SELECT count(DISTINCT model) FROM observation WHERE project = ?"
LOAD_OBSERVED: Final = "SELECT bucket, count FROM observation WHERE project = ? AND model = ?"
SAVE_OBSERVED: Final = (
    "INSERT OR REPLACE INTO observation (project, model, bucket, count) VALUES (?, ?, ?, ?)"
)
REMOVE_OBSERVED: Final = "DELETE FROM observation WHERE project = ? AND model = ? AND bucket = ?"

# A hold's id begins with when it was made, which is before it ended.
SWEPT_HOLDS: Final = f"""
SELECT id FROM ended_hold WHERE project = ? AND id < ? AND ended < ? ORDER BY id LIMIT {SWEEP_AT_MOST}
"""
SWEEP_HOLD: Final = "DELETE FROM ended_hold WHERE project = ? AND id = ?"
SWEEP_OPEN_ON_NOTHING: Final = (
    "DELETE FROM open_hold WHERE project = ? AND id < ? AND accounts = '{}' AND expires < ?"
)
SWEEP_ANSWERS: Final = f"""
DELETE FROM answer WHERE project = ? AND request_id IN (
  SELECT request_id FROM answer INDEXED BY answer_hold WHERE project = ? AND hold < ?
  AND NOT EXISTS (SELECT 1 FROM ended_hold e WHERE e.project = answer.project AND e.id = answer.hold)
  AND NOT EXISTS (SELECT 1 FROM open_hold o WHERE o.project = answer.project AND o.id = answer.hold)
  LIMIT {SWEEP_AT_MOST}
)
"""
IDLE_ACCOUNTS: Final = (
    "SELECT name FROM account WHERE ephemeral = 1 AND project = ? AND created < ? AND updated < ? "
    f"AND opened = 0 LIMIT {SWEEP_AT_MOST}"
)


STATEMENTS: Final = {
    "load account": LOAD_ACCOUNT,
    "update account": UPDATE_ACCOUNT,
    "remove account": REMOVE_ACCOUNT,
    "first page of accounts": FIRST_PAGE_OF_ACCOUNTS,
    "next page of accounts": NEXT_PAGE_OF_ACCOUNTS,
    "spend of page": SPEND_OF_PAGE,
    "load spend": LOAD_SPEND,
    "load hold": LOAD_HOLD,
    "update open hold": UPDATE_HOLD[True],
    "first page of holds": FIRST_PAGE_OF_HOLDS,
    "next page of holds": NEXT_PAGE_OF_HOLDS,
    "page of changed holds": PAGE_OF_CHANGED,
    "answers of page": ANSWERS_OF_PAGE,
    "open of account": OPEN_OF_ACCOUNT,
    "page of open": PAGE_OF_OPEN,
    "load answer": LOAD_ANSWER,
    "load observed": LOAD_OBSERVED,
    "swept holds": SWEPT_HOLDS,
    "sweep hold": SWEEP_HOLD,
    "find swept": FIND_SWEPT,
    "account number": ACCOUNT_NUMBER,
    "sweep open on nothing": SWEEP_OPEN_ON_NOTHING,
    "sweep answers": SWEEP_ANSWERS,
    "idle accounts": IDLE_ACCOUNTS,
}
"""What runs over the tables, for a test that asks SQLite how."""


# ASCII only: a lone surrogate, which a model's name may hold, is no UTF-8 and could not be stored.
dump: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
"""Write a value as JSON text."""


def parse(text: str, kind: type, what: str) -> Any:
    """Read JSON text.

    Raises:
        sqlite3.DataError: it is not JSON, or JSON of another kind.
    """
    if text == "{}" and kind is dict:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise malformed(what, f"not JSON text: {error}") from error
    if type(value) is not kind:
        raise malformed(what, f"{type(value).__name__} where {kind.__name__} should be")
    return value


@lru_cache(maxsize=1_024)
def _quoted(name: str) -> str:
    return dump(name)


def counts(units: Mapping[str, int]) -> str:
    """Write counts by name as JSON text, in a third of the time that a JSON encoder needs to set out."""
    return "{" + ",".join([f"{_quoted(name)}:{count:d}" for name, count in units.items()]) + "}"


def text_out(name: str) -> str | bytes:
    """Return a name from outside as SQLite can store it."""
    if name.isascii():
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode(errors="surrogatepass")
    return name


def text_in(stored: str | bytes, what: str) -> str:
    """Return a name as it came from outside.

    Raises:
        sqlite3.DataError: bytes that no name is stored as.
    """
    if isinstance(stored, str):
        return stored
    try:
        name = stored.decode(errors="surrogatepass") if isinstance(stored, bytes) else None
    except UnicodeDecodeError:
        name = None
    if name is None or text_out(name) != stored:
        raise malformed(what, "a name that is no text")
    return name


class MalformedAccount(sqlite3.DataError):
    """What is stored of an account is not what this wrote.

    Attributes:
        account: its name.
    """

    def __init__(self, account: str, text: str) -> None:
        super().__init__(text)
        self.account = account


def malformed(what: str, why: str) -> sqlite3.DataError:
    """Return the error for a row that this did not write."""
    return sqlite3.DataError(f"malformed row {what}: {why}")


def check_sums(name: str, sums: Sequence[object]) -> None:
    """Refuse what an account has spent and holds, and its limit, if they are no integers.

    Raises:
        MalformedAccount: they are none; the limit may be None.
    """
    for value in sums:
        if type(value) is not int and value is not None:
            error = malformed(f"of account {name!r}", f"{type(value).__name__} where an integer should be")
            raise MalformedAccount(name, str(error))


class Types:
    """What types a row's columns may have."""

    def __init__(self, table: str, names: tuple[str, ...]) -> None:
        self._names = names
        self._allowed = [frozenset(_PYTHON[kind] for kind in _types(table, name)) for name in names]
        self._seen: set[tuple[type, ...]] = set()

    def check(self, row: tuple[Any, ...], what: str) -> None:
        """Refuse a row with a value of a type that no such column has.

        Raises:
            sqlite3.DataError: it has one.
        """
        types = tuple(map(type, row))
        if types in self._seen:
            return
        for name, found, allowed in zip(self._names, types, self._allowed, strict=True):
            if found not in allowed:
                raise malformed(what, f"{name} is {found.__name__}")
        self._seen.add(types)


ACCOUNT_TYPES: Final = Types("account", ACCOUNT)
HOLD_TYPES: Final = Types("hold", HOLD)
