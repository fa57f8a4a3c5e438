"""Rows of PostgreSQL whole, from and for other stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    HoldRow,
    PartRow,
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.postgres_rows import (
    decode,
    decode_optional,
    decoded,
    decoded_keys,
    decoded_texts,
    document_of,
    encode,
    encode_optional,
    encoded_keys,
    encoded_texts,
    entry_of,
    grants_of,
)

_PAGE: Final = 500


def exported(ask: Callable[..., Any]) -> Iterator[Stored]:
    """Yield what is stored of a project: see `base.Transfer.export`.

    Args:
        ask: calls a function of the schema with some arguments after the project.
    """
    for row in _pages("id", lambda after: ask("export_calls", after, _PAGE)):
        yield StoredHold(decode(row["id"]), _hold_of(row), tuple(map(decode, row["answers"])))
    for row in _pages("name", lambda after: ask("export_budgets", after, _PAGE)):
        yield StoredAccount(decode(row["name"]), _account_of(row), row["open"])
    for row in _pages("name", lambda after: ask("export_models", after, _PAGE)):
        yield StoredObservations(decode(row["name"]), row["counts"])
    if swept_to := ask("swept_to"):
        yield StoredSwept(swept_to)
    if scopes := ask("read_scopes"):
        yield StoredScopes(document_of(scopes))
    for row in _pages("id", lambda after: ask("page_of_entries", "", after, _PAGE)):
        yield StoredEntry(entry_of(row))


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
    entries: dict[str, Any] = {}
    scopes: list[Any] = []
    swept_to = ""
    for one in rows:
        if isinstance(one, StoredHold):
            before = holds.get(one.id, {}).get("answers", [])
            answers = dict.fromkeys([*before, *map(encode, one.answers)])
            holds[one.id] = {**_hold_columns(one.id, one.row), "answers": list(answers)}
        elif isinstance(one, StoredObservations):
            models[one.model] = {"name": encode(one.model), "counts": one.counts}
        elif isinstance(one, StoredSwept):
            swept_to = max(swept_to, one.id)
        elif isinstance(one, StoredEntry):
            entries[one.entry.id] = {"id": encode(one.entry.id), "text": encode(one.entry.text)}
        elif isinstance(one, StoredScopes):
            scopes = [{"revision": one.document.revision, "rules": encode(one.document.rules)}]
        elif one.row is None:
            accounts.pop(one.name, None)
            removed.add(encode(one.name))
        else:
            accounts[one.name] = _account_columns(one.name, one.row, one.open)
            removed.discard(encode(one.name))
    return {
        "holds": list(holds.values()),
        "accounts": list(accounts.values()),
        "removed": sorted(removed),
        "models": list(models.values()),
        "swept": swept_to,
        "scopes": scopes,
        "entries": list(entries.values()),
    }


# The columns of a row that have its fields as they are.
_HOLD_COLUMNS: Final = {
    "state": "state",
    "amount": "amount_nanos",
    "on_expiry": "on_expiry_nanos",
    "cost": "cost_nanos",
    "created": "created_ms",
    "expires": "expires_ms",
    "ended": "ended_ms",
    "outcome": "outcome",
}
_HOLD_TEXTS: Final = ("user", "model", "endpoint", "request_id")
_ACCOUNT_COLUMNS: Final = {
    "limit": "limit_nanos",
    "rollover": "rollover_nanos",
    "duration": "duration",
    "timezone": "timezone",
    "anchor": "anchor_ms",
    "start": "starts_ms",
    "end": "ends_ms",
    "window": "window_no",
    "epoch": "epoch_no",
    "spent": "spent_nanos",
    "held": "held_nanos",
    "expired": "expired_nanos",
    "expiries": "expiries",
    "opened": "open_holds",
    "crossed": "crossed",
    "created": "created_ms",
    "updated": "updated_ms",
    "ephemeral": "ephemeral",
    "revision": "revision",
}
_ACCOUNT_TEXTS: Final = ("rules", "labels")


def _hold_of(columns: Mapping[str, Any]) -> HoldRow:
    names = decoded(columns["accounts"])
    epochs = zip(names, columns["epochs"] or (), strict=False)  # a hold that did not end has none
    row = {field: columns[column] for field, column in _HOLD_COLUMNS.items()}
    row |= {field: decode_optional(columns[field]) for field in _HOLD_TEXTS}
    row["accounts"] = dict(zip(names, columns["windows"], strict=True))
    row["epochs"] = {name: epoch for name, epoch in epochs if epoch is not None}
    row["usage"] = decoded_keys(columns["usage"])
    row["tags"] = list(decoded(columns["tags"]))
    row["units"] = columns["units"] or {}
    row["labels"] = decoded_texts(columns["labels"] or {})
    row["shadowed"] = list(decoded(columns["shadowed"] or ()))
    return cast(HoldRow, row)


def _hold_columns(hold_id: str, row: HoldRow) -> dict[str, Any]:
    fields: Mapping[str, Any] = cast(Mapping[str, Any], row)
    names = list(row["accounts"])
    columns = {column: fields[field] for field, column in _HOLD_COLUMNS.items()}
    columns |= {field: encode_optional(fields[field]) for field in _HOLD_TEXTS}
    columns["id"] = encode(hold_id)
    columns["accounts"] = [encode(name) for name in names]
    columns["windows"] = list(row["accounts"].values())
    columns["epochs"] = None if row["state"] == "held" else [row["epochs"].get(name) for name in names]
    columns["usage"] = encoded_keys(row["usage"])
    columns["tags"] = [encode(tag) for tag in row["tags"]]
    columns["units"] = row["units"] or None
    columns["labels"] = encoded_texts(row["labels"]) or None
    columns["shadowed"] = [encode(name) for name in row["shadowed"]] or None
    return columns


def _account_of(columns: Mapping[str, Any]) -> AccountRow:
    row = {field: columns[column] for field, column in _ACCOUNT_COLUMNS.items()}
    row |= {field: decode(columns[field]) for field in _ACCOUNT_TEXTS}
    row["models"] = decoded_keys(columns["models"])
    row["grants"] = grants_of(columns["grants"])
    row["parts"] = _parts_of(columns["parts"])
    row["due"] = min(columns["open"].values(), default=NEVER)
    return cast(AccountRow, row)


def _account_columns(name: str, row: AccountRow, listed: Mapping[str, Milliseconds]) -> dict[str, Any]:
    fields: Mapping[str, Any] = cast(Mapping[str, Any], row)
    columns = {column: fields[field] for field, column in _ACCOUNT_COLUMNS.items()}
    columns["name"] = encode(name)
    columns |= {field: encode(fields[field]) for field in _ACCOUNT_TEXTS}
    columns["models"] = encoded_keys(row["models"])
    columns["grants"] = [{**grant, "id": encode(grant["id"])} for grant in row["grants"]] or None
    columns["parts"] = None
    if row["parts"] is not None:
        columns["parts"] = [{**part, "models": encoded_keys(part["models"])} for part in row["parts"]]
    columns["open"] = dict(listed)
    columns["next_due_ms"] = min(listed.values(), default=None)
    return columns


def _parts_of(parts: Sequence[PartRow] | None) -> list[PartRow] | None:
    if parts is None:
        return None
    return [
        {
            "epoch": part["epoch"],
            "until": part["until"],
            "spent": part["spent"],
            "expired": part["expired"],
            "expiries": part["expiries"],
            "models": decoded_keys(part["models"]),
        }
        for part in parts
    ]
