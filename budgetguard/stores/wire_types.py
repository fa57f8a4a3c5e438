"""Values of `core` as pydantic reads and describes them: their fields, with the bounds that hold on the wire.

A `Wire…` type is a dataclass of `core` that is made of a JSON object with the same fields, all of them
required. The readers at the end are all that crosses files and networks; what the service takes is narrower
still: see `server.requests`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import reduce
from operator import itemgetter, or_
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import FailFast, Field, InstanceOf
from typing_extensions import TypedDict

from budgetguard.core.accounts import MOST_COUNTED, Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Charge,
    Crossing,
    Denied,
    Entry,
    Expiry,
    Granted,
    Hold,
    HoldRecord,
    Outdated,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.usage import Observations, Usage
from budgetguard.stores.wire import ANSWER
from budgetguard.stores.wire_reading import From, JsonReader, strict

T = TypeVar("T")
Page: TypeAlias = tuple[tuple[T, ...], str | None]

LATEST: Final = 253_402_300_799_999
"""The end of the year 9999 in milliseconds: what `datetime` can still show."""

LONGEST: Final = 10_000
"""Characters of a text, and items of a list, that are still read."""

# Pydantic's own text refuses lone surrogates once its length is bounded; names of models may hold them.
Text: TypeAlias = Annotated[InstanceOf[str], Field(max_length=LONGEST)]
Many: TypeAlias = Annotated[tuple[T, ...], Field(strict=False, max_length=LONGEST), FailFast()]
Amount: TypeAlias = Annotated[int, Field(ge=0, le=MAX_NANOS, description="Nanos: 1e-9 USD.")]
# Sums may grow beyond what one amount may be; 2^63 is what every engine's integers hold.
Sum: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1, description="Nanos: 1e-9 USD.")]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
Counts: TypeAlias = dict[Text, Annotated[int, Field(ge=0, le=MAX_NANOS)]]
Instant: TypeAlias = Annotated[int, Field(ge=0, le=LATEST, description="Milliseconds since 1970-01-01 UTC.")]
Span: TypeAlias = Annotated[int, Field(ge=0, le=LATEST, description="Milliseconds.")]
Percent: TypeAlias = Annotated[int, Field(ge=0, le=1000, description="Percent of a limit.")]
Observed: TypeAlias = Annotated[tuple[Text, Amount], Field(strict=False, description="A model, and tokens.")]
Duration: TypeAlias = Annotated[
    InstanceOf[str],
    Field(
        max_length=LONGEST,
        description="`hourly` to `yearly`, or a count and a unit: s, m, h, d, w, mo, y.",
        examples=["monthly", "7d"],
    ),
]
Zone: TypeAlias = Annotated[InstanceOf[str], Field(max_length=LONGEST, examples=["UTC"])]


MOST_RULES: Final = 1_000_000
"""Characters of rules, of scopes, or of an entry of the audit trail."""
Rules: TypeAlias = Annotated[InstanceOf[str], Field(max_length=MOST_RULES)]
_COUNTED: TypeAlias = Annotated[int, Field(ge=0, le=MOST_COUNTED)]
_UNIT: TypeAlias = Literal["tokens", "input_tokens", "output_tokens", "requests", "concurrent"]
WireCounts: TypeAlias = dict[_UNIT, _COUNTED]
WireUnits: TypeAlias = dict[_UNIT, Annotated[tuple[_COUNTED, _COUNTED], Field(strict=False)]]
_ENDED: TypeAlias = dict[
    _UNIT, Annotated[tuple[_COUNTED, ...], Field(strict=False, min_length=3, max_length=3)]
]


def object_of(name: str, fields: Mapping[str, Any], about: str | None = None) -> Any:
    """Return the type of a JSON object of exactly these fields."""
    made: Any = strict(TypedDict(name, dict(fields)))  # type: ignore[operator]  # mypy reads literals only
    made.__doc__ = about
    return made


def fields_of(kind: type, /, **narrower: Any) -> Any:
    """Return the type of the JSON object that holds a dataclass's fields.

    Args:
        kind: the dataclass.
        narrower: types of fields that allow less than their annotations, or are not the dataclass's own.
    """
    hints = get_type_hints(kind)
    names = [one.name for one in dataclasses.fields(kind)]
    fields = {name: narrower[name] if name in narrower else _json_type(name, hints[name]) for name in names}
    return object_of(kind.__name__, {**fields, **narrower}, (kind.__doc__ or "").partition("\n")[0])


def _json_type(name: str, hint: Any) -> Any:
    """Return what is read for a field of a dataclass of `core`, of this name and annotation."""
    if hint in (bool, NoneType) or get_origin(hint) is Literal:
        return hint
    if get_origin(hint) is UnionType:
        return reduce(or_, (_json_type(name, one) for one in get_args(hint)))
    return {
        int: Sum if name.endswith("_nanos") else Instant if name.endswith("_ms") else Count,
        str: Text,
        tuple[str, ...]: Many[Text],
        tuple[tuple[str, int], ...]: Many[Observed],
        Mapping[str, int]: dict[Text, Count],
        Mapping[str, str]: dict[Text, Text],
    }[hint]


WireUsage: TypeAlias = Annotated[Usage, From(Counts, Usage)]
WireBudget: TypeAlias = Annotated[
    Budget,
    From(
        fields_of(
            Budget,
            limit=Amount | None,
            duration=Duration | None,
            timezone=Zone,
            starts_at=Instant | None,
            rollover=Amount,
            rules=Rules,
        )
    ),
]
WireGrant: TypeAlias = Annotated[Grant, From(fields_of(Grant, amount=Amount, until_ms=Instant | None))]
WireDocument: TypeAlias = Annotated[Document, From(fields_of(Document, rules=Rules, labels=Rules))]
WireEntry: TypeAlias = Annotated[Entry, From(fields_of(Entry, text=Rules))]
_CHARGE: TypeAlias = Annotated[Charge, From(fields_of(Charge, budget=WireBudget | None))]
_HOLD: Final = fields_of(
    Hold,
    charges=Many[_CHARGE],
    amount=Amount,
    on_expiry=Amount,
    ttl=Span,
    created=Instant,
    units=WireUnits,
)
_SETTLEMENT: Final = fields_of(
    Settlement,
    cost=Amount,
    usage=WireUsage | None,
    thresholds=Many[Percent],
    units=WireCounts,
)
WireBalance: TypeAlias = Annotated[
    Balance,
    From(
        fields_of(
            Balance,
            grants=Many[WireGrant],
            frees=Many[Annotated[tuple[Instant, Sum], Field(strict=False)]],
            document=WireDocument,
        )
    ),
]
WireExpiry: TypeAlias = Annotated[Expiry, From(fields_of(Expiry, amount=Sum, booked=Sum))]
WireRecord: TypeAlias = Annotated[
    HoldRecord,
    From(
        fields_of(
            HoldRecord,
            expires_ms=Annotated[int, Field(ge=0, le=2 * LATEST)],
            usage=WireUsage,
            units=_ENDED,
        )
    ),
]
_CROSSING: TypeAlias = Annotated[Crossing, From(fields_of(Crossing, threshold=Percent, balance=WireBalance))]

# Each answer of the service may have `told`: expiries that its store found on the way and did not answer
# with, whatever the verb. They go to whoever asked.
_TOLD: Final = {"told": NotRequired[Many[WireExpiry]]}


def _answer(kind: type, name: str, **fields: Any) -> Any:
    tagged = fields_of(kind, **{ANSWER: Literal[name]}, **_TOLD, **fields)
    return Annotated[kind, From(tagged, apart=(ANSWER, *_TOLD))]


def _one(name: str, kind: Any) -> JsonReader[Any]:
    fields = object_of(name.capitalize(), {name: kind, **_TOLD})
    return JsonReader(Annotated[Any, From(fields, itemgetter(name))], "answer")


def _page(name: str, kind: Any) -> JsonReader[Any]:
    fields = object_of(name.capitalize(), {name: Many[kind], "next": Text | None, **_TOLD})
    return JsonReader(Annotated[Any, From(fields, itemgetter(name, "next"))], "answer")


_UNKNOWN: Final = _answer(UnknownAccount, "unknown")
_RESERVATION: Final = Annotated[
    _answer(Granted, "granted", expired=Many[WireExpiry], shadowed=Many[WireBalance])
    | _answer(Denied, "refused", balance=WireBalance, expired=Many[WireExpiry])
    | _UNKNOWN
    | _answer(Unlimited, "unlimited")
    | _answer(Outdated, "outdated", scopes=WireDocument | None, accounts=dict[Text, WireDocument]),
    Field(discriminator=ANSWER),
]
_SETTLED: Final = Annotated[
    _answer(Booked, "settled", booked=Sum, crossings=Many[_CROSSING], expired=Many[WireExpiry]) | _UNKNOWN,
    Field(discriminator=ANSWER),
]

read_hold: Final[JsonReader[Hold]] = JsonReader(Annotated[Hold, From(_HOLD)], "hold")
read_settlement: Final[JsonReader[Settlement]] = JsonReader(
    Annotated[Settlement, From(_SETTLEMENT)], "settlement"
)
read_expiries: Final[JsonReader[tuple[Expiry, ...]]] = JsonReader(Many[WireExpiry], "told")
read_reservation: Final[JsonReader[Reservation]] = JsonReader(_RESERVATION, "reservation")
read_settled: Final[JsonReader[Booked | UnknownAccount]] = JsonReader(_SETTLED, "settled")
read_attached: Final[JsonReader[bool]] = _one("attached", bool)
read_deleted: Final[JsonReader[bool]] = _one("deleted", bool)
read_record: Final[JsonReader[HoldRecord | None]] = _one("record", WireRecord | None)
read_balance: Final[JsonReader[Balance | None]] = _one("balance", WireBalance | None)
read_changed: Final[JsonReader[Balance]] = _one("balance", WireBalance)
read_balances: Final[JsonReader[Page[Balance]]] = _page("balances", WireBalance)
read_records: Final[JsonReader[Page[HoldRecord]]] = _page("records", WireRecord)
read_marked: Final[JsonReader[bool]] = _one("marked", bool)
read_scopes: Final[JsonReader[Document]] = _one("scopes", WireDocument)
read_saved: Final[JsonReader[bool]] = _one("saved", bool)
read_entries: Final[JsonReader[Page[Entry]]] = _page("entries", WireEntry)
read_observations: Final[JsonReader[Observations]] = _one("observations", Counts)
