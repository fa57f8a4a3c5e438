"""Users' records as LiteLLM's hosted clients send them: money in float USD, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    InstanceOf,
    WithJsonSchema,
    with_config,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from budgetguard.core.money import MAX_USD, Nanos, to_nanos
from budgetguard.core.usage import MOST_MODELS
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.server.requests import LONGEST_MODEL, ProjectName
from budgetguard.stores.wire_reading import JsonReader, strict
from budgetguard.stores.wire_types import Text

_LATEST_SECOND: Final = 253_402_300_799
_LONGEST_DAYS: Final = 36_525
_MOST_USD: Final = float(MAX_USD)


def _whole(days: float) -> int:
    if days != int(days):
        raise ConfigurationError(f"give whole days, not {days}")
    return int(days)


def _few_models(models: object) -> object:
    # Checked before pydantic looks at each of very many.
    if isinstance(models, Mapping) and len(models) > MOST_MODELS:
        raise ConfigurationError(f"{len(models)} models are too many: at most {MOST_MODELS} are taken")
    return models


class _Later:
    """Annotate what is described here, but read later, part by part."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.json_or_python_schema(handler(source), core_schema.dict_schema())


_Usd: TypeAlias = Annotated[float, Field(ge=0, le=_MOST_USD, allow_inf_nan=False, description="USD.")]
_Seconds: TypeAlias = Annotated[
    float, Field(ge=0, lt=_LATEST_SECOND, allow_inf_nan=False, description="Seconds since 1970.")
]
_Days: TypeAlias = Annotated[
    float,
    Field(ge=1, le=_LONGEST_DAYS),
    AfterValidator(_whole),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _LONGEST_DAYS, "description": "Days."}),
]


@with_config(ConfigDict(strict=True, extra="ignore"))
class RecordJson(TypedDict):
    """One user's record as a client of LiteLLM's keeps it. Other fields are ignored."""

    total_budget: Annotated[float, Field(ge=-_MOST_USD, le=_MOST_USD, allow_inf_nan=False)]
    duration: NotRequired[_Days | None]
    created_at: NotRequired[_Seconds | None]
    last_updated_at: NotRequired[_Seconds | None]
    current_cost: NotRequired[_Usd]
    model_cost: NotRequired[
        Annotated[
            dict[Annotated[InstanceOf[str], Field(max_length=LONGEST_MODEL)], _Usd],
            BeforeValidator(_few_models),
        ]
    ]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user's record, money in Nanos."""

    limit: Nanos
    days: int | None
    created: float | None
    updated: float | None
    cost: Nanos
    models: Mapping[str, Nanos]

    @property
    def terms(self) -> tuple[Nanos, int | None]:
        return self.limit, self.days

    @classmethod
    def of(cls, fields: RecordJson) -> UserRecord:
        """Return a record as it was sent."""
        days = fields.get("duration")
        return cls(
            # LiteLLM takes a limit below nothing and sends it with every change of any user: like 0, it lets
            # nothing through.
            limit=to_nanos(max(fields["total_budget"], 0.0), name="total_budget"),
            days=None if days is None else int(days),
            created=fields.get("created_at"),
            updated=fields.get("last_updated_at"),
            cost=to_nanos(fields.get("current_cost", 0.0), name="current_cost"),
            models={model: to_nanos(cost) for model, cost in fields.get("model_cost", {}).items()},
        )


@strict
class ViewJson(TypedDict):
    """How /get_budget handed out a user's record."""

    id: Text
    at: Annotated[int, Field(ge=0, le=2**47)]
    handed: RecordJson


@with_config(ConfigDict(strict=True, extra="ignore"))
class SentJson(RecordJson):
    """One user's record as a client sends it."""

    view: NotRequired[ViewJson | None]


@strict
class GetBudgetBody(TypedDict):
    """A project."""

    project_name: ProjectName


@strict
class SetBudgetBody(TypedDict):
    """A project, and the records of its users."""

    project_name: ProjectName
    user_dict: Annotated[dict[str, SentJson], _Later()]


@strict
class UsersJson(TypedDict):
    """All users of a project."""

    status: Literal["success"]
    data: dict[str, SentJson]


@strict
class StatusJson(TypedDict):
    """That it was done."""

    status: Literal["success"]


@dataclass(frozen=True, slots=True)
class SentRecord:
    """What a client sends of one user: its record, and what it was handed, if it still has that."""

    user: str
    record: UserRecord
    ident: str = ""
    at: Milliseconds = 0
    handed: UserRecord | None = None


_READ: Final[JsonReader[SentJson]] = JsonReader(SentJson)


def read_record(user: str, value: object, now: Milliseconds) -> SentRecord:
    """Return what a client sends of one user.

    Raises:
        ConfigurationError: a wrong value; the text names it and the user.
    """
    try:
        fields = _READ(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"user {user!r}: {error}; nothing was changed") from error
    view = fields.get("view")
    if view is None:
        return SentRecord(user, UserRecord.of(fields))
    return SentRecord(
        user, UserRecord.of(fields), view["id"], min(view["at"], now), UserRecord.of(view["handed"])
    )
