"""What requests may hold: bodies and queries as types, narrower than what `wire_types` reads from files."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NotRequired, TypeAlias

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, InstanceOf, WithJsonSchema
from typing_extensions import TypedDict

from budgetguard.core.accounts import SEVERAL, UNITS, check_id, unit_of
from budgetguard.core.holds import Charge, Entry, Hold, Settlement
from budgetguard.core.labels import named_by
from budgetguard.core.report import DIMENSIONS, MOST_DIMENSIONS
from budgetguard.core.usage import Usage
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire_reading import From, shown, strict
from budgetguard.stores.wire_types import (
    LATEST,
    Amount,
    Observed,
    Percent,
    Text,
    WireBudget,
    WireCounts,
    WireDocument,
    WireGrant,
    WireUnits,
    fields_of,
)

PAGE: Final = 500
"""Rows of a page unless the request says how many."""

LONGEST_PAGE: Final = 5_000

VIEW: Final = "view"
"""The kind of the accounts in which the service keeps what LiteLLM's clients have reported."""

LONGEST_TTL: Final[Milliseconds] = 366 * 86_400_000
"""How long a hold may live: a year, which is longer than any call, batch or queue takes."""

LONGEST_MODEL: Final = 500
"""Characters of a model's name: each account keeps the names of all that it paid for."""

_MOST_OBSERVED: Final = 1_000  # clients send those of several calls at once
_MOST_TEXT: Final = 20_000
_MOST_UNITS: Final = 100
_MOST_NAME: Final = 4_000
_MOST_RULES: Final = 100_000
_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
# The store sorts and sweeps holds by the time that their ids begin with.
_HOLD_ID = re.compile(r"[0-9a-f]{12}[!-~]{8,100}")


def made_at(ident: str) -> Milliseconds:
    """Return the time that a hold's id begins with, by which stores find and sweep it."""
    return int(ident[:12], 16)


def is_ahead(ident: str, now: Milliseconds) -> bool:
    """Return whether a hold's id is dated more than a year ahead, until when its record would be kept."""
    return made_at(ident) > now + LONGEST_TTL


def _account(name: str) -> str:
    kind, colon, ident = name.partition(":")
    if kind == SEVERAL and colon:
        _of_several(name)
        return name
    if not colon or not _KIND.fullmatch(kind):
        raise ConfigurationError(f"an account is a kind and an id such as 'user:1234', not {shown(name)}")
    if kind == VIEW:
        raise ConfigurationError(f"accounts of the kind {VIEW!r} are the service's own")
    check_id(ident, name="an account's id")
    return name


def _of_several(name: str) -> None:
    named = named_by(name) if len(name) <= _MOST_NAME else None
    if named is None or unit_of(name) not in UNITS or named.account != name:
        raise ConfigurationError(
            f"an account of several labels is named as budgetguard names it, not {shown(name)}"
        )


def _project(name: str) -> str:
    return check_id(name, name="a project's name")


def _hold_id(ident: str) -> str:
    if not _HOLD_ID.fullmatch(ident):
        raise ConfigurationError(
            f"an id is 12 hexadecimal digits of time and 8 to 100 more characters, not {shown(ident)}"
        )
    return ident


def _few_units(units: object) -> object:
    # Checked before pydantic looks at each of very many.
    if isinstance(units, dict) and len(units) > _MOST_UNITS:
        raise ConfigurationError(f"usage has {len(units)} units: at most {_MOST_UNITS} are taken")
    return units


def _short(hold: Hold) -> Hold:
    accounts = (charge.account for charge in hold.charges)
    length = sum(map(len, (*hold.tags, *accounts, hold.user or "", hold.model, hold.endpoint)))
    if length > _MOST_TEXT:
        raise ConfigurationError(
            f"the names and tags of a hold are {length} characters: at most {_MOST_TEXT} are kept of a call"
        )
    return hold


def _consistent(settlement: Settlement) -> Settlement:
    if settlement.state == "voided" and settlement.cost:
        raise ConfigurationError("cost must be 0 where state is 'voided'")
    return settlement


def _distinct(thresholds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(thresholds))


def _number(text: str, least: int, most: int) -> int:
    # Digits of other scripts are decimal, too, and a long text would be slow to read.
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and least <= int(text) <= most):
        raise ConfigurationError(f"give a whole number from {least} to {most}, not {shown(text)}")
    return int(text)


def _yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise ConfigurationError(f"give true or false, not {shown(text)}")
    return text == "true"


def _page_size(text: str) -> int:
    return _number(text, 1, LONGEST_PAGE)


def _instant(text: str) -> Milliseconds:
    if text.isdecimal():
        return _number(text, 0, LATEST)
    try:
        found = datetime.fromisoformat(text)
        stamp = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(
            "give milliseconds since 1970, or a date or time such as 2026-11-01 or 2026-11-01T14:30Z, "
            f"not {shown(text)}"
        ) from None
    return max(0, round(stamp * 1000))


AccountName: TypeAlias = Annotated[
    Text,
    AfterValidator(_account),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": _MOST_NAME,
            "pattern": r"^[a-z][a-z0-9_]{0,31}:[^\u0000-\u001f\u007f]{1,4000}$",
            "description": "A kind and an id of at most 256 characters, such as `user:1234`, not of the kind "
            "`view`; or of several labels, such as `labels:model=gpt-5*&user=1234`.",
            "examples": ["user:1234"],
        }
    ),
]
PROJECT_SCHEMA: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "pattern": r"^[^\u0000-\u001f\u007f]+$",
}
ProjectName: TypeAlias = Annotated[Text, AfterValidator(_project), WithJsonSchema(PROJECT_SCHEMA)]
HoldId: TypeAlias = Annotated[
    Text,
    AfterValidator(_hold_id),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9a-f]{12}[!-~]{8,100}$",
            "description": "Made by the client: 12 hexadecimal digits of time in ms, then chance.",
            "examples": ["0199a1b2c3d4e5f60718293a4b5c6d7e"],
        }
    ),
]
PageSize: TypeAlias = Annotated[
    int,
    BeforeValidator(_page_size),
    Field(ge=1, le=LONGEST_PAGE, description=f"Rows of a page; {PAGE} by default."),
]
Time: TypeAlias = Annotated[
    int,
    BeforeValidator(_instant),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": 40,
            "examples": ["2026-11-01", "1793491200000"],
            "description": "Milliseconds since 1970, or an ISO date or time.",
        }
    ),
]
After: TypeAlias = Annotated[Text, Field(description="The `next` of the page before.")]
Units: TypeAlias = Annotated[
    dict[Annotated[InstanceOf[str], Field(max_length=100)], Amount],
    Field(max_length=_MOST_UNITS),
    BeforeValidator(_few_units),
]


def _few(kind: Any, most: int) -> Any:
    return Annotated[tuple[kind, ...], Field(strict=False, max_length=most), FailFast()]


_RULES: TypeAlias = Annotated[InstanceOf[str], Field(max_length=_MOST_RULES)]
ServedEntry: TypeAlias = Annotated[Entry, From(fields_of(Entry, id=HoldId, text=_RULES))]
_CHARGE: Final = Annotated[Charge, From(fields_of(Charge, account=AccountName, budget=WireBudget | None))]
_HOLD: Final = fields_of(
    Hold,
    id=HoldId,
    charges=_few(_CHARGE, 100),
    amount=Amount,
    on_expiry=Amount,
    ttl=Annotated[int, Field(ge=0, le=LONGEST_TTL, description="Milliseconds.")],
    created=Annotated[
        int, Field(ge=0, le=LATEST - LONGEST_TTL, description="Milliseconds since 1970-01-01 UTC.")
    ],
    model=Annotated[InstanceOf[str], Field(max_length=LONGEST_MODEL)],
    tags=_few(Text, 100),
    units=WireUnits,
    labels=Annotated[dict[Text, Text], Field(max_length=100)],
)
_SETTLEMENT: Final = fields_of(
    Settlement,
    cost=Amount,
    usage=Annotated[Usage, From(Units, Usage)] | None,
    thresholds=Annotated[_few(Percent, 100), AfterValidator(_distinct)],
    observed=_few(Observed, _MOST_OBSERVED),
    units=WireCounts,
)
ServedHold: TypeAlias = Annotated[Hold, From(_HOLD), AfterValidator(_short)]
ServedSettlement: TypeAlias = Annotated[Settlement, From(_SETTLEMENT), AfterValidator(_consistent)]


@strict
class SettleBody(TypedDict):
    """A hold, and how its call ended."""

    hold: ServedHold
    settlement: ServedSettlement


@strict
class AttachBody(TypedDict):
    """A hold, and the provider's id of the answer that it waits for."""

    hold_id: HoldId
    request_id: Text


@strict
class BudgetBody(TypedDict):
    """An account, and its limit and window."""

    account: AccountName
    budget: WireBudget
    ephemeral: bool
    entry: NotRequired[ServedEntry | None]


@strict
class AccountOnly(TypedDict):
    """An account."""

    account: AccountName


@strict
class ResetBody(AccountOnly):
    """An account, and why it is reset."""

    entry: NotRequired[ServedEntry | None]


@strict
class GrantBody(AccountOnly):
    """An account, and a raise of its limit."""

    grant: WireGrant
    entry: NotRequired[ServedEntry | None]


@strict
class LabelsBody(AccountOnly):
    """An account, and the labels that its user's calls carry, as JSON text."""

    labels: _RULES
    entry: NotRequired[ServedEntry | None]


@strict
class MarkBody(AccountOnly):
    """An account, and what is noted about its window."""

    mark: Annotated[int, Field(ge=-1_000, le=0)]


@strict
class ScopesBody(TypedDict):
    """Scopes, and the revision of those that they replace."""

    scopes: WireDocument
    seen: Annotated[int, Field(ge=0, le=2**63 - 1)]
    entry: NotRequired[ServedEntry | None]


# Queries: every parameter is text.


@strict
class AttachedQuery(TypedDict):
    """Which answer."""

    request_id: Annotated[Text, Field(description="The answer's id.")]


@strict
class DeleteQuery(AccountOnly):
    """Which account, and why it is deleted."""

    entry_id: NotRequired[HoldId]
    entry_text: NotRequired[_RULES]


@strict
class PageQuery(TypedDict):
    """Which page of a list."""

    after: NotRequired[After]
    limit: NotRequired[PageSize]


WithForecast: TypeAlias = Annotated[
    bool,
    BeforeValidator(_yes_or_no),
    WithJsonSchema(
        {"type": "string", "enum": ["true", "false"], "description": "Whether to forecast from records."}
    ),
]


@strict
class BalanceQuery(AccountOnly):
    """An account, and whether to forecast it."""

    forecast: NotRequired[WithForecast]


@strict
class BalancesQuery(PageQuery):
    """Which page of which accounts, and whether to forecast them."""

    forecast: NotRequired[WithForecast]

    kind: NotRequired[Annotated[Text, Field(description="Only this kind, such as `user`.")]]


@strict
class TrailQuery(PageQuery):
    """Which page of the audit trail."""

    since: NotRequired[Time]


@strict
class HoldsQuery(PageQuery):
    """Which page of which holds."""

    account: NotRequired[AccountName]


@strict
class SpanQuery(TypedDict):
    """Calls made within a span."""

    since: NotRequired[Time]
    until: NotRequired[Time]


@strict
class CallsQuery(SpanQuery):
    """Which page of which calls."""

    after: NotRequired[HoldId]
    limit: NotRequired[PageSize]


@strict
class ObservationsQuery(TypedDict):
    """Which model."""

    model: Annotated[Text, Field(description="The model's name.")]


@strict
class ReportQuery(SpanQuery):
    """By what calls are added up."""

    by: NotRequired[
        Annotated[
            Text,
            Field(
                description=f"Separated by commas, at most {MOST_DIMENSIONS}: {', '.join(DIMENSIONS)}, or "
                "names of labels.",
                examples=["user,model", "team,month"],
            ),
        ]
    ]
