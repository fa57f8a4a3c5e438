"""Reserving and settling as one SQL statement each.

A verb is an INSERT into a view of its own arguments, and the view's trigger is the verb: SQLite runs it as
one statement in one transaction, which costs half of what as many statements from Python would. Where a
condition does not hold, the verb fails with an IntegrityError and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# What is known of an account still holds, and time has changed nothing on it.
_SAME = (
    'id = NEW.number{i} AND "window" = NEW.window{i} AND due > NEW.now AND ("end" IS NULL OR "end" > NEW.now)'
)
_LIMIT = 'CASE WHEN NEW.pinned{i} THEN NEW.pin{i} ELSE "limit" END'
_CHECKED = "SELECT RAISE(ABORT, 'uncommon') WHERE changes() <> 1;"

_TAKE = f"""
UPDATE account SET held = held + NEW.amount, opened = opened + 1, due = min(due, NEW.expires),
  updated = NEW.now, "limit" = {_LIMIT}
WHERE {_SAME} AND (NEW.amount = 0 OR {_LIMIT} IS NULL OR spent + held + NEW.amount <= {_LIMIT});
{_CHECKED}
"""
_STILL_ABSENT = """
SELECT RAISE(ABORT, 'uncommon') WHERE EXISTS
  (SELECT 1 FROM account WHERE project = NEW.project AND name = NEW.absent{i});
"""
_HOLD = """
SELECT RAISE(ABORT, 'uncommon') WHERE EXISTS
  (SELECT 1 FROM ended_hold WHERE project = NEW.project AND id = NEW.id);
INSERT INTO open_hold (project, id, state, accounts, epochs, amount, on_lapse, cost, created, expires, ended,
  user, model, endpoint, outcome, request_id, usage, tags)
VALUES (NEW.project, NEW.id, 'held', NEW.accounts, '{}', NEW.amount, NEW.on_lapse, 0, NEW.created,
  NEW.expires, NULL, NEW.user, NEW.model, NEW.endpoint, NULL, NULL, '{}', NEW.tags);
"""
_END = f"""
INSERT INTO ended_hold (project, id, state, accounts, epochs, amount, on_lapse, cost, created, expires, ended,
  user, model, endpoint, outcome, request_id, usage, tags)
SELECT project, id, NEW.state, accounts, epochs, amount, on_lapse, NEW.cost, created, expires, NEW.now,
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
WHERE {_SAME} AND (NEW.cost = 0 OR ifnull(model = NEW.model, 1) <> NEW.other{{i}})
  AND crossed = NEW.crossed{{i}} AND (NEW.ahead{{i}} IS NULL OR "limit" IS NULL OR "limit" = 0 OR ("limit" > 0
    AND (spent + NEW.cost) * 100 < NEW.ahead{{i}} * "limit"));
{_CHECKED}
INSERT INTO spend (account, model, cost)
  SELECT NEW.number{{i}}, NEW.model, NEW.cost WHERE NEW.other{{i}} AND NEW.cost
  ON CONFLICT (account, model) DO UPDATE SET cost = cost + excluded.cost;
"""

_RESERVE_TAKES = (
    "project", "id", "now", "amount", "expires", "accounts", "on_lapse", "created", "user", "model",
    "endpoint", "tags",
)  # fmt: skip
_SETTLE_TAKES = (
    "project", "id", "now", "amount", "cost", "state", "outcome", "request_id", "usage", "model",
)  # fmt: skip


def _verb(name: str, takes: Iterable[str], body: str) -> tuple[str, str]:
    """Return the statements that make a verb."""
    columns = ", ".join(f"NULL AS {column}" for column in takes)
    return (
        f"CREATE TEMP VIEW {name} AS SELECT {columns}",
        f"CREATE TEMP TRIGGER {name}_runs INSTEAD OF INSERT ON {name} BEGIN {body} END",
    )


def _repeated(template: str, count: int) -> str:
    return "".join(template.replace("{i}", str(i)) for i in range(count))


def _numbered(names: Sequence[str], count: int) -> list[str]:
    return [f"{name}{i}" for i in range(count) for name in names]


def reserve_verb(present: int, absent: int) -> tuple[str, ...]:
    """Return the statements that make reserving on so many accounts, and the one that does it.

    It passes over so many others, which do not exist.
    """
    takes = [
        *_RESERVE_TAKES,
        *_numbered(("number", "window", "pinned", "pin"), present),
        *_numbered(("absent",), absent),
    ]
    body = _repeated(_TAKE, present) + _repeated(_STILL_ABSENT, absent) + _HOLD
    name = f"reserve_{present}_{absent}"
    return (*_verb(name, takes, body), f"INSERT INTO {name} VALUES ({', '.join('?' * len(takes))})")


def settle_verb(accounts: int) -> tuple[str, ...]:
    """Return the statements that make settling on so many accounts, and the one that does it."""
    takes = [*_SETTLE_TAKES, *_numbered(("number", "window", "other", "crossed", "ahead"), accounts)]
    name = f"settle_{accounts}"
    made = _verb(name, takes, _END + _repeated(_BOOK, accounts))
    return (*made, f"INSERT INTO {name} VALUES ({', '.join('?' * len(takes))})")
