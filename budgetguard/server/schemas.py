"""JSON Schemas of what crosses the wire: what `budgetguard.stores.wire` writes and reads, said for others.

The codecs decide; tests hold the two together from both sides.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from budgetguard.core.holds import HoldState, Outcome
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.report import DIMENSIONS
from budgetguard.server.reading import LONGEST_PAGE, LONGEST_TTL, MOST_OBSERVED
from budgetguard.server.routes import Schema
from budgetguard.stores.wire.fields import LATEST, LONGEST

_MOST: Final = 2**63 - 1


def record(**fields: Schema) -> Schema:
    """Describe an object of exactly these fields."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def maybe(schema: Schema) -> Schema:
    """Describe something, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def many(schema: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": schema, "maxItems": LONGEST}


def choice(*values: str) -> Schema:
    """Describe one of some texts."""
    return {"type": "string", "enum": list(values)}


def _whole(most: int, description: str) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most, "description": description}


TEXT: Final[Schema] = {"type": "string", "maxLength": LONGEST}
FLAG: Final[Schema] = {"type": "boolean"}
ACCOUNT: Final[Schema] = {
    "type": "string",
    "maxLength": 277,
    "pattern": r"^[a-z]{1,20}:[^\u0000-\u001f\u007f]{1,256}$",
    "description": "A kind and an id, such as `user:1234`; not of the kind `view`.",
    "examples": ["user:1234"],
}
PROJECT: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "pattern": r"^[^\u0000-\u001f\u007f]+$",
}
HOLD_ID: Final[Schema] = {
    "type": "string",
    "pattern": r"^[0-9a-f]{12}[!-~]{8,100}$",
    "description": "Made by the client: milliseconds since 1970 as 12 hexadecimal digits, then chance.",
    "examples": ["0199a1b2c3d4e5f60718293a4b5c6d7e"],
}
PAGE: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": LONGEST_PAGE}
INSTANT: Final[Schema] = {"type": "string", "maxLength": 40, "examples": ["2026-11-01", "1793491200000"]}
BY: Final[Schema] = {"type": "string", "examples": ["user,model"], "description": ", ".join(DIMENSIONS)}
NANOS: Final[Schema] = _whole(MAX_NANOS, "Nanos: 1e-9 USD.")
SUM: Final[Schema] = {"type": "integer", "description": "Nanos: 1e-9 USD."}
MS: Final[Schema] = _whole(LATEST, "Milliseconds, of an instant since 1970-01-01 UTC.")
COUNTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "integer", "minimum": 0, "maximum": MAX_NANOS},
}
_DURATION: Final[Schema] = {
    "type": "string",
    "maxLength": LONGEST,
    "examples": ["monthly", "7d"],
    "description": "`hourly` to `yearly`, or a count and a unit: s, m, h, d, w, mo, y.",
}
_ZONE: Final[Schema] = {"type": "string", "maxLength": LONGEST, "examples": ["UTC"]}

BUDGET: Final = record(limit=maybe(NANOS), duration=maybe(_DURATION), timezone=_ZONE, starts_at=maybe(MS))
_CHARGE: Final = record(account=ACCOUNT, required=FLAG, budget=maybe(BUDGET), pinned=FLAG, ephemeral=FLAG)
HOLD: Final = record(
    id=HOLD_ID,
    charges={"type": "array", "items": _CHARGE, "maxItems": 100},
    amount=NANOS,
    on_expiry=NANOS,
    ttl=_whole(LONGEST_TTL, "Milliseconds."),
    created=_whole(LATEST - LONGEST_TTL, "Milliseconds, since 1970-01-01 UTC."),
    user=maybe(TEXT),
    model=TEXT,
    endpoint=TEXT,
    tags={"type": "array", "items": TEXT, "maxItems": 100},
)
SETTLEMENT: Final = record(
    cost=NANOS,
    state=choice("settled", "voided"),
    outcome=choice(*get_args(Outcome)),
    usage=maybe(COUNTS),
    request_id=maybe(TEXT),
    thresholds=many(_whole(1000, "Percent of a limit.")),
    observed={
        "type": "array",
        "maxItems": MOST_OBSERVED,
        "items": {
            "type": "array",
            "prefixItems": [TEXT, _whole(MAX_NANOS, "Tokens.")],
            "minItems": 2,
            "maxItems": 2,
        },
    },
)
BALANCE: Final = record(
    account={"type": "string"},
    limit_nanos=maybe(SUM),
    spent_nanos=SUM,
    held_nanos=SUM,
    duration=maybe(_DURATION),
    timezone=_ZONE,
    starts_ms={"type": "integer"},
    resets_ms=maybe({"type": "integer"}),
    created_ms=MS,
    updated_ms=MS,
    models={"type": "object", "additionalProperties": SUM},
    expired_nanos=SUM,
    expiries={"type": "integer"},
    open_holds={"type": "integer"},
)
RECORD: Final = record(
    id={"type": "string"},
    state=choice(*get_args(HoldState)),
    accounts=many({"type": "string"}),
    amount_nanos=SUM,
    on_expiry_nanos=SUM,
    cost_nanos=SUM,
    created_ms=MS,
    expires_ms={"type": "integer"},
    ended_ms=maybe(MS),
    user=maybe({"type": "string"}),
    model={"type": "string"},
    endpoint={"type": "string"},
    outcome=maybe(choice(*get_args(Outcome))),
    request_id=maybe({"type": "string"}),
    usage=COUNTS,
    tags=many({"type": "string"}),
)
EXPIRIES: Final = many(
    record(
        hold_id={"type": "string"},
        accounts=many({"type": "string"}),
        amount=SUM,
        booked=SUM,
        user=maybe({"type": "string"}),
        model={"type": "string"},
    )
)


def _answer(name: str, **fields: Schema) -> Schema:
    return record(answer={"const": name}, **fields)


_UNKNOWN: Final = _answer("unknown", account={"type": "string"})
RESERVATION: Final[Schema] = {
    "oneOf": [
        _answer("granted", accounts=many({"type": "string"}), repeated=FLAG, expired=EXPIRIES),
        _answer("refused", balance=BALANCE, expired=EXPIRIES),
        _UNKNOWN,
        _answer("unlimited"),
    ]
}
SETTLED: Final[Schema] = {
    "oneOf": [
        _answer(
            "settled",
            booked=SUM,
            repeated=FLAG,
            late=FLAG,
            crossings=many(
                record(account={"type": "string"}, threshold={"type": "integer"}, balance=BALANCE)
            ),
            expired=EXPIRIES,
        ),
        _UNKNOWN,
    ]
}
_COUNT: Final[Schema] = {"type": "integer"}
_USD: Final[Schema] = {"type": "string", "description": "USD, every digit."}
_TOTALS: Final[dict[str, Schema]] = {
    "calls": _COUNT,
    "open": _COUNT,
    "voided": _COUNT,
    "expiries": _COUNT,
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "spent": _USD,
    "held": _USD,
}
REPORT: Final = record(
    by=many(choice(*DIMENSIONS)),
    rows={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {**_TOTALS, **{name: maybe({"type": "string"}) for name in DIMENSIONS}},
            "required": list(_TOTALS),
            "additionalProperties": False,
        },
    },
    total=record(**_TOTALS),
)
ERROR: Final[Schema] = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error", "message"],
}

LITELLM_RECORD: Final[Schema] = {
    "type": "object",
    "properties": {
        "total_budget": {"type": "number", "minimum": 0, "maximum": 9_007_199},
        "duration": maybe({"type": "integer", "minimum": 1, "maximum": 36_525, "description": "Days."}),
        "created_at": maybe({"type": "number", "minimum": 0, "maximum": 253_402_300_799}),
        "last_updated_at": maybe({"type": "number", "minimum": 0, "maximum": 253_402_300_799}),
        "current_cost": {"type": "number", "minimum": 0, "maximum": 9_007_199, "description": "USD."},
        "model_cost": {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 9_007_199},
        },
        "view": maybe(
            {"type": "object", "description": "As /get_budget handed it out; sent back unchanged."}
        ),
    },
    "required": ["total_budget"],
}


def any_of(value: Any) -> Schema:
    """Describe an object of any keys whose values are all alike."""
    return {"type": "object", "additionalProperties": value}
