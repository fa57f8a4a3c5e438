"""The tables of the disk store: their schema, the statements over them, and what may stand in a column.

`account`, `hold`, `answer` and `observation` hold what `budgetguard.core.rows` describes, in integers and
text. Lists and mappings are JSON text. Names from outside may hold lone surrogates, which are no UTF-8: in
JSON they are escaped, elsewhere such text is stored as bytes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from budgetguard.core.rows import AccountRow, HoldRow
from budgetguard.stores.embedded import PAGE

SWEEP_AT_MOST: Final = 2_000

_INTEGER: Final = ("integer",)
_TEXT: Final = ("text",)
_NAME: Final = ("text", "blob")

_BUDGET: Final = {
    "limit": ("integer", "null"),
    "rollover": _INTEGER,
    "duration": ("text", "null"),
    "timezone": _TEXT,
    "anchor": _INTEGER,
    "created": _INTEGER,
    "ephemeral": _INTEGER,
    "rules": _TEXT,
    "labels": _TEXT,
    "revision": _INTEGER,
}
_SPENDING: Final = {
    "start": _INTEGER,
    "end": ("integer", "null"),
    "window": _INTEGER,
    "epoch": _INTEGER,
    "spent": _INTEGER,
    "expired": _INTEGER,
    "expiries": _INTEGER,
    "models": _TEXT,
    "crossed": _TEXT,
    "grants": _TEXT,
    "parts": ("text", "null"),
}
_HOLDING: Final = {
    "held": _INTEGER,
    "opened": _INTEGER,
    "due": _INTEGER,
    "updated": _INTEGER,
}
_ACCOUNT: Final = _BUDGET | _SPENDING | _HOLDING
"""The columns of an account, in the order in which statements take and give them, and their types: those of
its budget, those that settlements and windows change, and those that every hold changes."""

# What a hold is told when it is reserved, and how it ends.
_HOLD: Final = {
    "amount": _INTEGER,
    "on_expiry": _INTEGER,
    "created": _INTEGER,
    "expires": _INTEGER,
    "user": (*_NAME, "null"),
    "model": _NAME,
    "endpoint": _NAME,
    "tags": _TEXT,
    "accounts": _TEXT,
    "labels": _TEXT,
    "shadowed": _TEXT,
}
_END: Final = {
    "state": _TEXT,
    "epochs": _TEXT,
    "cost": _INTEGER,
    "ended": ("integer", "null"),
    "outcome": ("text", "null"),
    "request_id": (*_NAME, "null"),
    "usage": _TEXT,
    "units": _TEXT,
}


_DEFAULTS: Final = {
    "state": "'held'",
    "epochs": "'{}'",
    "cost": "0",
    "usage": "'{}'",
    "rollover": "0",
    "rules": "''",
    "labels": "''",
    "revision": "0",
    "grants": "'[]'",
    "units": "'{}'",
    "shadowed": "'[]'",
}


def _columns(types: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(
        f'"{name}" {kinds[0].upper()} DEFAULT {_DEFAULTS.get(name, "NULL")}' for name, kinds in types.items()
    )


def _list(types: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' for name in types)


def _marks(types: Mapping[str, object]) -> str:
    return ", ".join("?" * len(types))


def _sets(types: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}" = ?' for name in types)


_ENTRIES: Final = (
    "CREATE TABLE entry (project INTEGER NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, "
    "PRIMARY KEY (project, id)) WITHOUT ROWID"
)

SCHEMA: Final = (
    # `swept` is the greatest id of a hold whose record was swept; `frozen` the note of a frozen project;
    # `scopes` what kinds of budgets there are, and `revision` the number of that text.
    "CREATE TABLE project "
    "(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, swept TEXT NOT NULL DEFAULT '', frozen TEXT, "
    "revision INTEGER NOT NULL DEFAULT 0, scopes TEXT NOT NULL DEFAULT '')",
    _ENTRIES,
    f"CREATE TABLE accounts (project INTEGER NOT NULL, name TEXT NOT NULL, {_columns(_ACCOUNT)}, "
    "PRIMARY KEY (project, name)) WITHOUT ROWID",
    "CREATE INDEX account_idle ON accounts (project, created) WHERE ephemeral = 1",
    # The open holds are few, and stand apart, so that they need no index that every call writes.
    f"CREATE TABLE hold (project INTEGER NOT NULL, open INTEGER NOT NULL, id TEXT NOT NULL, "
    f"{_columns(_HOLD)}, {_columns(_END)}, PRIMARY KEY (project, open, id)) WITHOUT ROWID",
    "CREATE TABLE answer (project INTEGER NOT NULL, request_id NOT NULL, hold TEXT NOT NULL, "
    "PRIMARY KEY (project, request_id)) WITHOUT ROWID",
    "CREATE INDEX answer_hold ON answer (project, hold)",
    "CREATE TABLE observation "
    "(project INTEGER NOT NULL, model NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (project, model)) "
    "WITHOUT ROWID",
)


def _added(table: str, types: Mapping[str, tuple[str, ...]], *names: str) -> tuple[str, ...]:
    columns = ({name: types[name]} for name in names)
    return tuple(f"ALTER TABLE {table} ADD COLUMN {_columns(column)}" for column in columns)


UPGRADES: Final = {
    6: (
        # The new name is so that what was opened by the former schema fails, and writes nothing by halves.
        "ALTER TABLE account RENAME TO accounts",
        *_added("accounts", _ACCOUNT, "rollover", "rules", "labels", "revision", "grants", "parts"),
        *_added("hold", _HOLD, "labels", "shadowed"),
        *_added("hold", _END, "units"),
        "ALTER TABLE project ADD COLUMN revision INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE project ADD COLUMN scopes TEXT NOT NULL DEFAULT ''",
        _ENTRIES,
    ),
}
"""What brings a schema to the next one."""

FIND_PROJECT: Final = "SELECT id FROM project WHERE name = ?"
ADD_PROJECT: Final = "INSERT OR IGNORE INTO project (name) VALUES (?)"
LIST_PROJECTS: Final = (
    "SELECT name FROM project WHERE EXISTS (SELECT 1 FROM accounts WHERE accounts.project = project.id) "
    "ORDER BY name"
)
LIST_PROJECTS_WITH: Final = (
    "SELECT project.name FROM project JOIN accounts ON accounts.project = project.id AND accounts.name = ? "
    "ORDER BY project.name"
)
LOAD_PROJECT: Final = "SELECT swept, frozen, revision, scopes FROM project WHERE id = ?"
SAVE_SCOPES: Final = "UPDATE project SET revision = ?, scopes = ? WHERE id = ?"
ADD_ENTRY: Final = "INSERT OR IGNORE INTO entry (project, id, text) VALUES (?, ?, ?)"
PAGE_OF_ENTRIES: Final = f"SELECT id, text FROM entry WHERE project = ? AND id >= ? ORDER BY id LIMIT {PAGE}"
SAVE_SWEPT: Final = "UPDATE project SET swept = max(swept, ?) WHERE id = ?"
SAVE_FROZEN: Final = "UPDATE project SET frozen = ? WHERE id = ?"

LOAD_ACCOUNT: Final = f"SELECT {_list(_ACCOUNT)} FROM accounts WHERE project = ? AND name = ?"
UPDATE_HOLDING: Final = f"UPDATE accounts SET {_sets(_HOLDING)} WHERE project = ? AND name = ?"
UPDATE_SPENDING: Final = (
    f"UPDATE accounts SET {_sets(_SPENDING)}, {_sets(_HOLDING)} WHERE project = ? AND name = ?"
)
REPLACE_ACCOUNT: Final = (
    f"INSERT OR REPLACE INTO accounts (project, name, {_list(_ACCOUNT)}) VALUES (?, ?, {_marks(_ACCOUNT)})"
)
MEND_ACCOUNT: Final = (
    "UPDATE accounts SET spent = 0, expired = 0, expiries = 0, models = '{}', crossed = '[]', held = ?, "
    "grants = '[]', parts = CASE WHEN parts IS NULL THEN NULL ELSE '[]' END, opened = ?, due = 0 "
    "WHERE project = ? AND name = ?"
)
REMOVE_ACCOUNT: Final = "DELETE FROM accounts WHERE project = ? AND name = ?"
PAGE_OF_ACCOUNTS: Final = (
    f"SELECT name, {_list(_ACCOUNT)} FROM accounts "
    f"WHERE project = ? AND name >= ? AND name < ? ORDER BY name LIMIT {PAGE}"
)
IDLE_ACCOUNTS: Final = (
    "SELECT name FROM accounts WHERE ephemeral = 1 AND project = ? AND created < ? AND updated < ? "
    f"AND opened = 0 LIMIT {SWEEP_AT_MOST}"
)

_HOLDS = f"SELECT id, {_list(_HOLD)}, {_list(_END)} FROM hold WHERE project = ?"
LOAD_HOLD: Final = " UNION ALL ".join(f"{_HOLDS} AND open = {open_} AND id = ?" for open_ in (1, 0))
PAGE_OF_HOLDS: Final = (
    " UNION ALL ".join(f"{_HOLDS} AND open = {open_} AND id >= ? AND id < ?" for open_ in (0, 1))
    + f" ORDER BY id LIMIT {PAGE}"
)
INSERT_OPEN_HOLD: Final = (
    f"INSERT OR REPLACE INTO hold (project, open, id, {_list(_HOLD)}, request_id, units) "
    f"VALUES (?, 1, ?, {_marks(_HOLD)}, ?, ?)"
)
INSERT_ENDED_HOLD: Final = (
    f"INSERT OR REPLACE INTO hold (project, open, id, {_list(_HOLD)}, {_list(_END)}) "
    f"VALUES (?, 0, ?, {_marks(_HOLD)}, {_marks(_END)})"
)
END_HOLD: Final = f"UPDATE hold SET open = 0, {_sets(_END)} WHERE project = ? AND open = ? AND id = ?"
CHANGE_OPEN_HOLD: Final = (
    "UPDATE hold SET accounts = ?, request_id = ? WHERE project = ? AND open = 1 AND id = ?"
)
OPEN_OF_ACCOUNT: Final = (
    "SELECT id, expires, accounts FROM hold WHERE project = ? AND open = 1 AND instr(accounts, ?)"
)
PAGE_OF_OPEN: Final = f"{_HOLDS} AND open = 1 AND instr(accounts, ?) AND id >= ? ORDER BY id LIMIT {PAGE}"
# A hold's id begins with when it was made, which is before it ended.
SWEPT_HOLDS: Final = (
    "SELECT id FROM hold WHERE project = ? AND open = 0 AND id < ? AND ended < ? "
    f"ORDER BY id LIMIT {SWEEP_AT_MOST}"
)
SWEEP_HOLD: Final = "DELETE FROM hold WHERE project = ? AND open = 0 AND id = ?"
SWEEP_OPEN_ON_NOTHING: Final = (
    "DELETE FROM hold WHERE project = ? AND open = 1 AND id < ? AND accounts = '{}' AND expires < ?"
)

LOAD_ANSWER: Final = "SELECT hold FROM answer WHERE project = ? AND request_id = ?"
SAVE_ANSWER: Final = "INSERT OR REPLACE INTO answer (project, request_id, hold) VALUES (?, ?, ?)"
ANSWERS_BETWEEN: Final = (
    "SELECT hold, request_id FROM answer INDEXED BY answer_hold "
    "WHERE project = ? AND hold >= ? AND hold <= ? ORDER BY hold, request_id"
)
SWEEP_ANSWERS: Final = f"""
DELETE FROM answer WHERE project = ? AND request_id IN (
  SELECT request_id FROM answer INDEXED BY answer_hold WHERE project = ? AND hold < ?
  AND NOT EXISTS (
    SELECT 1 FROM hold h WHERE h.project = answer.project AND h.open IN (0, 1) AND h.id = answer.hold
  )
  LIMIT {SWEEP_AT_MOST}
)
"""
LOAD_OBSERVED: Final = "SELECT counts FROM observation WHERE project = ? AND model = ?"
SAVE_OBSERVED: Final = "INSERT OR REPLACE INTO observation (project, model, counts) VALUES (?, ?, ?)"
COUNT_MODELS: Final = "SELECT count(*) FROM observation WHERE project = ?"
LIST_OBSERVED: Final = "SELECT model, counts FROM observation WHERE project = ? ORDER BY model"


class MalformedAccount(sqlite3.DataError):
    """What is stored of an account is not what this wrote.

    Attributes:
        account: its name.
    """

    def __init__(self, account: str, text: str) -> None:
        super().__init__(text)
        self.account = account


# ASCII only: a lone surrogate, which a model's name may hold, is no UTF-8 and could not be stored.
dump: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
"""Write a value as JSON text."""


@lru_cache(maxsize=4_096)
def quoted(name: str) -> str:
    """Write a name as JSON text."""
    return dump(name)


def counts_out(counts: Mapping[str, int]) -> str:
    """Write integers by name as JSON text, in a third of the time that a JSON encoder needs to set out."""
    if not counts:
        return "{}"
    if len(counts) == 1:
        ((name, count),) = counts.items()
        return f"{{{quoted(name)}:{count:d}}}"
    return "{" + ",".join([f"{quoted(name)}:{count:d}" for name, count in counts.items()]) + "}"


def parse(text: str, kind: type, what: str) -> Any:
    """Read JSON text.

    Raises:
        sqlite3.DataError: it is not JSON, or JSON of another kind.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise malformed(what, f"not JSON text: {error}") from error
    if type(value) is not kind:
        raise malformed(what, f"{type(value).__name__} where {kind.__name__} should be")
    return value


def counts_in(text: str, what: str) -> dict[str, int]:
    """Read integers by name.

    Raises:
        sqlite3.DataError: they are none.
    """
    if text == "{}":
        return {}
    found: dict[str, int] = parse(text, dict, what)
    for value in found.values():
        if type(value) is not int:
            raise malformed(what, f"{type(value).__name__} where an integer should be")
    return found


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


def malformed(what: str, why: str) -> sqlite3.DataError:
    """Return the error for a row that this did not write."""
    return sqlite3.DataError(f"malformed row {what}: {why}")


class _Types:
    """The types that a row's columns may have."""

    _PYTHON: Final = {"text": str, "blob": bytes, "null": type(None), "integer": int}

    def __init__(self, types: Mapping[str, tuple[str, ...]]) -> None:
        self._names = tuple(types)
        self._allowed = [frozenset(self._PYTHON[kind] for kind in kinds) for kinds in types.values()]
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


_ACCOUNT_TYPES: Final = _Types(_ACCOUNT)
_HOLD_TYPES: Final = _Types(_HOLD | _END)


def account_in(name: str, values: tuple[Any, ...]) -> AccountRow:
    """Make an account's row of its columns.

    Raises:
        MalformedAccount: a value that this did not write.
    """
    what = f"of account {name!r}"
    try:
        _ACCOUNT_TYPES.check(values, what)
        row: AccountRow = dict(zip(_ACCOUNT, values, strict=True))  # type: ignore[assignment]  # checked above
        row["models"] = counts_in(values[_MODELS], what)
        row["crossed"] = _list_in(values[_CROSSED], what)
        row["grants"] = _list_in(values[_GRANTS], what)
        row["parts"] = None if values[_PARTS] is None else _list_in(values[_PARTS], what)
    except sqlite3.DataError as error:
        raise MalformedAccount(name, str(error)) from error
    row["ephemeral"] = bool(row["ephemeral"])
    return row


_MODELS, _CROSSED, _GRANTS, _PARTS = map(list(_ACCOUNT).index, ("models", "crossed", "grants", "parts"))


def _list_in(text: str, what: str) -> list[Any]:
    found: list[Any] = [] if text == "[]" else parse(text, list, what)
    return found


def _list_out(values: list[Any]) -> str:
    return dump(values) if values else "[]"


budget_of: Final = itemgetter(*_BUDGET)
"""Return the columns of an account's budget."""

spending_of: Final = itemgetter(*_SPENDING)
"""Return the values that settlements and windows change."""

holding_of: Final = itemgetter(*_HOLDING)
"""Return the columns that every hold changes."""

_MODELS_AT, _CROSSED_AT, _GRANTS_AT, _PARTS_AT = map(
    list(_SPENDING).index, ("models", "crossed", "grants", "parts")
)


def spending_out(values: tuple[Any, ...]) -> list[Any]:
    """Return what `spending_of` has returned as columns."""
    columns = list(values)
    columns[_MODELS_AT] = counts_out(values[_MODELS_AT])
    columns[_CROSSED_AT] = _list_out(values[_CROSSED_AT])
    columns[_GRANTS_AT] = _list_out(values[_GRANTS_AT])
    if values[_PARTS_AT] is not None:
        columns[_PARTS_AT] = _list_out(values[_PARTS_AT])
    return columns


def hold_in(hold_id: str, values: tuple[Any, ...]) -> HoldRow:
    """Make a hold's row of its columns.

    Raises:
        sqlite3.DataError: a value that this did not write.
    """
    what = f"of hold {hold_id!r}"
    _HOLD_TYPES.check(values, what)
    amount, on_expiry, created, expires, user, model, endpoint, tags, accounts, labels, shadowed = values[:11]
    state, epochs, cost, ended, outcome, request_id, usage, units = values[11:]
    return {
        "state": state,
        "accounts": counts_in(accounts, what),
        "epochs": counts_in(epochs, what),
        "amount": amount,
        "on_expiry": on_expiry,
        "cost": cost,
        "created": created,
        "expires": expires,
        "ended": ended,
        "user": None if user is None else text_in(user, what),
        "model": text_in(model, what),
        "endpoint": text_in(endpoint, what),
        "outcome": outcome,
        "request_id": None if request_id is None else text_in(request_id, what),
        "usage": counts_in(usage, what),
        "tags": _list_in(tags, what),
        "units": {} if units == "{}" else parse(units, dict, what),
        "labels": parse(labels, dict, what) if labels else {},
        "shadowed": _list_in(shadowed, what),
    }


def hold_out(row: HoldRow) -> tuple[Any, ...]:
    """Return the columns of a hold that it has from the start."""
    user, model, endpoint = row["user"], row["model"], row["endpoint"]
    return (
        row["amount"],
        row["on_expiry"],
        row["created"],
        row["expires"],
        None if user is None else text_out(user),
        text_out(model),
        text_out(endpoint),
        _list_out(row["tags"]),
        counts_out(row["accounts"]),
        _labels_out(tuple(row["labels"].items())) if row["labels"] else "",
        _list_out(row["shadowed"]),
    )


def end_out(row: HoldRow) -> tuple[Any, ...]:
    """Return the columns of a hold that say how it ended."""
    request_id = row["request_id"]
    return (
        row["state"],
        counts_out(row["epochs"]),
        row["cost"],
        row["ended"],
        row["outcome"],
        None if request_id is None else text_out(request_id),
        counts_out(row["usage"]),
        units_out(row),
    )


def units_out(row: HoldRow) -> str:
    """Return the column of a hold's units."""
    return dump(row["units"]) if row["units"] else "{}"


@lru_cache(maxsize=1_024)
def _labels_out(labels: tuple[tuple[str, str], ...]) -> str:
    return dump(dict(labels))
