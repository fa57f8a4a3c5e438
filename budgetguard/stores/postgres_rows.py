"""Rows as the tables have them, whole: what a copy is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from budgetguard.core.rows import (
    AccountRow,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    StoredSwept,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.postgres_wire import decode, encode

_PAGE: Final = 500

Ask = Callable[..., Any]


def exported(ask: Ask, since: Milliseconds) -> Iterator[Stored]:
    """Yield what is stored of a project: see `movable.Movable.export`.

    Args:
        ask: calls a function of the schema with some arguments after the project.
        since: as there.
    """
    for row in _pages("id", lambda after: ask("export_holds", after, since, _PAGE)):
        yield StoredHold(decode(row["id"]), _hold_of(row), tuple(map(decode, row["answers"])))
    for row in _pages("name", lambda after: ask("export_accounts", after, _PAGE)):
        yield StoredAccount(decode(row["name"]), _account_of(row), row["open_holds"])
    for row in _pages("name", lambda after: ask("export_models", after, _PAGE)):
        yield StoredObservations(decode(row["name"]), row["counts"])
    if swept_to := ask("swept_to"):
        yield StoredSwept(swept_to)


def _pages(key: str, ask: Callable[[str], list[Mapping[str, Any]] | None]) -> Iterator[Mapping[str, Any]]:
    after = ""
    while page := ask(after):
        yield from page
        after = page[-1][key]


def rows_value(rows: Iterable[Stored]) -> dict[str, Any]:
    """Return rows as the function `restore` takes them; of each, the last."""
    holds: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    removed: set[str] = set()
    models: dict[str, Any] = {}
    swept_to = ""
    for one in rows:
        if isinstance(one, StoredHold):
            before = holds.get(one.id, {}).get("answers", [])
            answers = dict.fromkeys([*before, *map(encode, one.answers)])
            holds[one.id] = {**_hold_value(one.id, one.row), "answers": list(answers)}
        elif isinstance(one, StoredObservations):
            models[one.model] = {"name": encode(one.model), "counts": one.counts}
        elif isinstance(one, StoredSwept):
            swept_to = max(swept_to, one.id)
        elif one.row is None:
            accounts.pop(one.name, None)
            removed.add(encode(one.name))
        else:
            accounts[one.name] = _account_value(one.name, one.row)
            removed.discard(encode(one.name))
    return {
        "holds": list(holds.values()),
        "accounts": list(accounts.values()),
        "removed": sorted(removed),
        "models": list(models.values()),
        "swept": swept_to,
    }


def _hold_of(row: Mapping[str, Any]) -> HoldRow:
    names = [decode(name) for name in row["accounts"]]
    epochs = zip(names, row["epochs"] or (), strict=False)  # a hold that did not end has none
    return {
        "state": row["state"],
        "accounts": dict(zip(names, row["windows"], strict=True)),
        "epochs": {name: epoch for name, epoch in epochs if epoch is not None},
        "amount": row["amount_nanos"],
        "on_expiry": row["on_expiry_nanos"],
        "cost": row["cost_nanos"],
        "created": row["created_ms"],
        "expires": row["expires_ms"],
        "ended": row["ended_ms"],
        "user": None if row["user"] is None else decode(row["user"]),
        "model": decode(row["model"]),
        "endpoint": decode(row["endpoint"]),
        "outcome": row["outcome"],
        "request_id": None if row["request_id"] is None else decode(row["request_id"]),
        "usage": {decode(unit): count for unit, count in row["usage"].items()},
        "tags": [decode(tag) for tag in row["tags"]],
    }


def _hold_value(hold_id: str, row: HoldRow) -> dict[str, Any]:
    names = list(row["accounts"])
    epochs = [row["epochs"].get(name) for name in names] if row["state"] != "held" else None
    return {
        "id": hold_id,
        "state": row["state"],
        "accounts": [encode(name) for name in names],
        "windows": list(row["accounts"].values()),
        "epochs": epochs,
        "amount_nanos": row["amount"],
        "on_expiry_nanos": row["on_expiry"],
        "cost_nanos": row["cost"],
        "created_ms": row["created"],
        "expires_ms": row["expires"],
        "ended_ms": row["ended"],
        "user": None if row["user"] is None else encode(row["user"]),
        "model": encode(row["model"]),
        "endpoint": encode(row["endpoint"]),
        "outcome": row["outcome"],
        "request_id": None if row["request_id"] is None else encode(row["request_id"]),
        "usage": {encode(unit): count for unit, count in row["usage"].items()},
        "tags": [encode(tag) for tag in row["tags"]],
    }


def _account_of(row: Mapping[str, Any]) -> AccountRow:
    return {
        "limit": row["limit_nanos"],
        "duration": row["duration"],
        "timezone": row["timezone"],
        "anchor": row["anchor_ms"],
        "start": row["starts_ms"],
        "end": row["ends_ms"],
        "window": row["window_no"],
        "epoch": row["epoch_no"],
        "spent": row["spent_nanos"],
        "held": row["held_nanos"],
        "expired": row["expired_nanos"],
        "expiries": row["expiries"],
        "models": {decode(model): nanos for model, nanos in row["models"].items()},
        "open": row["open"],
        "crossed": row["crossed"],
        "created": row["created_ms"],
        "updated": row["updated_ms"],
        "ephemeral": row["ephemeral"],
    }


def _account_value(name: str, row: AccountRow) -> dict[str, Any]:
    return {
        "name": encode(name),
        "limit_nanos": row["limit"],
        "spent_nanos": row["spent"],
        "held_nanos": row["held"],
        "expired_nanos": row["expired"],
        "expiries": row["expiries"],
        "models": {encode(model): nanos for model, nanos in row["models"].items()},
        "crossed": row["crossed"],
        "duration": row["duration"],
        "timezone": row["timezone"],
        "anchor_ms": row["anchor"],
        "starts_ms": row["start"],
        "ends_ms": row["end"],
        "window_no": row["window"],
        "epoch_no": row["epoch"],
        "open_holds": len(row["open"]),
        "next_due_ms": min(row["open"].values(), default=None),
        "created_ms": row["created"],
        "updated_ms": row["updated"],
        "ephemeral": row["ephemeral"],
        "open": row["open"],
    }
