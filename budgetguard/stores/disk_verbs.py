"""Reserving and settling as one SQL statement each.

A verb is an INSERT into a view of its own arguments, and the view's trigger is the verb: SQLite runs it as
one statement in one transaction, which costs half of what as many statements from Python would. Where a
condition does not hold, the verb fails with an IntegrityError and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from budgetguard.core.money import MAX_SUM

MOST_ACCOUNTS: Final = 3
"""A hold on more accounts than this is the ledger's: every process reads the verbs as it opens the store."""

# What is known of an account still holds, and time has changed nothing on it.
_SAME = (
    'id = NEW.number{i} AND "window" = NEW.window{i} AND due > NEW.now AND ("end" IS NULL OR "end" > NEW.now)'
)
_LIMIT = 'CASE WHEN NEW.pinned{i} THEN NEW.pin{i} ELSE "limit" END'
_CHECKED = "SELECT RAISE(ABORT, 'uncommon') WHERE changes() <> 1;"
_STAYS = "SELECT RAISE(ABORT, 'uncommon') FROM moved WHERE project = NEW.project;"

_TAKE = f"""
UPDATE account SET held = held + NEW.amount, opened = opened + 1, due = min(due, NEW.expires),
  updated = NEW.now, "limit" = {_LIMIT}
WHERE {_SAME} AND (NEW.amount = 0 OR
  spent + held + NEW.amount <= min(ifnull({_LIMIT}, {MAX_SUM}), {MAX_SUM}));
{_CHECKED}
"""
_STILL_ABSENT = """
SELECT RAISE(ABORT, 'uncommon') WHERE EXISTS
  (SELECT 1 FROM account WHERE project = NEW.project AND name = NEW.absent{i});
"""
_HOLD = f"""
{_STAYS}
SELECT RAISE(ABORT, 'uncommon') WHERE EXISTS
  (SELECT 1 FROM ended_hold WHERE project = NEW.project AND id = NEW.id);
INSERT INTO open_hold (project, id, state, accounts, epochs, amount, on_expiry, cost, created, expires, ended,
  user, model, endpoint, outcome, request_id, usage, tags)
VALUES (NEW.project, NEW.id, 'held', NEW.accounts, '{{}}', NEW.amount, NEW.on_expiry, 0, NEW.created,
  NEW.expires, NULL, NEW.user, NEW.model, NEW.endpoint, NULL, NULL, '{{}}', NEW.tags);
"""
_END = f"""
{_STAYS}
INSERT INTO ended_hold (project, id, state, accounts, epochs, amount, on_expiry, cost, created, expires,
  ended, user, model, endpoint, outcome, request_id, usage, tags)
SELECT project, id, NEW.state, accounts, NEW.epochs, amount, on_expiry, NEW.cost, created, expires, NEW.now,
  user, model, endpoint, NEW.outcome, coalesce(NEW.request_id, request_id), NEW.usage, tags
FROM open_hold WHERE project = NEW.project AND id = NEW.id;
{_CHECKED}
DELETE FROM open_hold WHERE project = NEW.project AND id = NEW.id;
"""
# No threshold that was not announced yet is reached, if the lowest of them (`ahead`) is not.
_BOOK = f"""
UPDATE account SET held = held - NEW.amount, spent = spent + NEW.cost, opened = opened - 1, updated = NEW.now,
  model = CASE WHEN NEW.cost AND model IS NULL THEN NEW.model ELSE model END,
  model_spent = model_spent + CASE WHEN NEW.other{{i}} THEN 0 ELSE NEW.cost END
WHERE {_SAME} AND epoch = NEW.epoch{{i}} AND spent + NEW.cost < {MAX_SUM}
  AND (NEW.cost = 0 OR ifnull(model = NEW.model, 1) <> NEW.other{{i}})
  AND crossed = NEW.crossed{{i}} AND (NEW.ahead{{i}} IS NULL OR "limit" IS NULL OR "limit" = 0 OR ("limit" > 0
    AND (spent + NEW.cost) * 100 < NEW.ahead{{i}} * "limit"));
{_CHECKED}
INSERT INTO spend (account, model, cost)
  SELECT NEW.number{{i}}, NEW.model, NEW.cost WHERE NEW.other{{i}} AND NEW.cost
  ON CONFLICT (account, model) DO UPDATE SET cost = cost + excluded.cost;
"""

_RESERVE_TAKES = (
    "project", "id", "now", "amount", "expires", "accounts", "on_expiry", "created", "user", "model",
    "endpoint", "tags",
)  # fmt: skip
_SETTLE_TAKES = (
    "project", "id", "now", "amount", "cost", "state", "outcome", "request_id", "usage", "model",
    "epochs",
)  # fmt: skip


def _verb(name: str, takes: Sequence[str], body: str) -> tuple[str, tuple[str, ...]]:
    """Return the statement that runs a verb, and those that make it."""
    columns = ", ".join(f"NULL AS {column}" for column in takes)
    making = (
        f"CREATE VIEW {name} AS SELECT {columns}",
        f"CREATE TRIGGER {name}_runs INSTEAD OF INSERT ON {name} BEGIN {body} END",
    )
    return f"INSERT INTO {name} VALUES ({', '.join('?' * len(takes))})", making


def _repeated(template: str, count: int) -> str:
    return "".join(template.replace("{i}", str(i)) for i in range(count))


def _numbered(names: Sequence[str], count: int) -> list[str]:
    return [f"{name}{i}" for i in range(count) for name in names]


def _reserve(present: int, absent: int) -> tuple[str, tuple[str, ...]]:
    takes = [
        *_RESERVE_TAKES,
        *_numbered(("number", "window", "pinned", "pin"), present),
        *_numbered(("absent",), absent),
    ]
    body = _repeated(_TAKE, present) + _repeated(_STILL_ABSENT, absent) + _HOLD
    return _verb(f"reserve_{present}_{absent}", takes, body)


def _settle(accounts: int) -> tuple[str, tuple[str, ...]]:
    each = ("number", "window", "epoch", "other", "crossed", "ahead")
    takes = [*_SETTLE_TAKES, *_numbered(each, accounts)]
    return _verb(f"settle_{accounts}", takes, _END + _repeated(_BOOK, accounts))


_reserves = {(n, absent): _reserve(n, absent) for n in range(1, MOST_ACCOUNTS + 1) for absent in range(3)}
_settles = {n: _settle(n) for n in range(MOST_ACCOUNTS + 1)}

RESERVE: Final = {key: statement for key, (statement, _) in _reserves.items()}
"""Statements that reserve, by how many accounts the hold is on, and how many it passes over."""

SETTLE: Final = {key: statement for key, (statement, _) in _settles.items()}
"""Statements that settle, by how many accounts the hold is on."""

SCHEMA: Final = tuple(made for _, making in (*_reserves.values(), *_settles.values()) for made in making)
"""Statements that make the verbs."""

UPGRADE: Final = (
    *(f"DROP VIEW reserve_{n}_{absent}" for n, absent in _reserves),
    *(f"DROP VIEW settle_{n}" for n in _settles),
    *SCHEMA,
)
"""Statements that make the verbs anew where an older budgetguard made them."""
