"""Read JSON values as types of pydantic's: strict, and with errors that name the field and what it must be.

This module imports pydantic, which takes a tenth of a second: import it where something is to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from reprlib import Repr
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import is_typeddict

from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire import ANSWER

T = TypeVar("T")

strict = with_config(ConfigDict(strict=True, extra="forbid"))
"""Decorate a TypedDict that is read as it is: nothing is converted, and unknown fields are refused."""

_SHOWN: Final = 60
_NAMED: Final = 10
_BRIEF: Final = Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxother = _BRIEF.maxlong = _BRIEF.maxstring = 2 * _SHOWN


def shown(value: object) -> str:
    """Return a wrong value as an error's text shows it, shortened."""
    # To write all of a long list for an error would take longer than to refuse it.
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str) else _BRIEF.repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class From:
    """Annotate a type of `core` with the type that it is read as, and how it is made of that.

    Args:
        read: what pydantic reads, mostly a TypedDict whose fields are those of the dataclass.
        make: makes the value; by default the annotated class is called with the fields.
        apart: fields of the JSON object that the dataclass does not have.
    """

    def __init__(
        self, read: Any, make: Callable[[Any], object] | None = None, apart: tuple[str, ...] = ()
    ) -> None:
        self._read = read
        self._make = make
        self._apart = apart

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def make(fields: dict[str, Any]) -> object:
            for name in self._apart:
                fields.pop(name, None)
            return source(**fields)

        schema = handler.generate_schema(_without_strangers(self._read))
        return core_schema.no_info_after_validator_function(self._make or make, schema)


class JsonReader(Generic[T]):
    """Read JSON values of one type.

    Args:
        kind: the type, as pydantic understands it.
        name: what a value is called in errors' texts; empty where its fields are called by their own names.
    """

    def __init__(self, kind: Any, name: str = "") -> None:
        self._kind = kind
        self._name = name

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """What reads, and describes as JSON Schema."""
        return TypeAdapter(_without_strangers(self._kind))

    def __call__(self, value: object) -> T:
        """Return the value that a JSON value stands for.

        Raises:
            ConfigurationError: a field is missing, unknown, of a wrong type or out of range; named.
        """
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            # Not with its cause, whose text shows more of the value.
            raise ConfigurationError(_explain(error, self._name)) from None


def _without_strangers(kind: Any) -> Any:
    """Return a TypedDict that refuses unknown fields before pydantic lists them all; else the type."""
    if not is_typeddict(kind) or kind.__pydantic_config__["extra"] != "forbid":
        return kind
    known = kind.__required_keys__ | kind.__optional_keys__

    def check(value: object) -> object:
        if isinstance(value, dict) and not value.keys() <= known:
            strangers = [one for one in value if one not in known]
            unknown = ", ".join(sorted(one[:_SHOWN] for one in strangers[:_NAMED]))
            unknown += f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
            raise ConfigurationError(f"unknown fields: {unknown}")
        return value

    return Annotated[kind, BeforeValidator(check)]


def _explain(error: ValidationError, name: str) -> str:
    first = error.errors(include_url=False)[0]
    kind, about, value = first["type"], first.get("ctx", {}), first["input"]
    path = _path(name, first["loc"]) or "the body"
    if kind == "missing":
        return f"{path} is missing"
    if kind == "value_error":
        return f"{path}: {about['error']}"
    if kind == "union_tag_not_found":
        return f"{path}.{ANSWER} is missing"
    if kind == "union_tag_invalid":
        path, kind, value = f"{path}.{ANSWER}", "literal_error", value.get(ANSWER)
        about = {"expected": about["expected_tags"]}
    return f"{path} must be {_wanted(kind, about, value)}, not {shown(value)}"


def _path(name: str, steps: Any) -> str:
    path = name
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f"{'.' if path else ''}{step[:_SHOWN]}"
    return path


def _wanted(kind: str, about: Mapping[str, Any], value: object) -> str:
    match kind:
        case "greater_than_equal":
            return f"{_number(about['ge'])} of at least {about['ge']}"
        case "less_than":
            return f"{_number(about['lt'])} of less than {about['lt']}"
        case "less_than_equal":
            return f"{_number(about['le'])} of at most {about['le']}"
        case "too_long":
            what = "text" if isinstance(value, str) else "an object" if isinstance(value, dict) else "a list"
            unit = "characters" if isinstance(value, str) else "items"
            return f"{what} of at most {about['max_length']} {unit}"
        case "literal_error":
            return f"one of {about['expected']}"
    return _KINDS.get(kind, "another value")


def _number(bound: object) -> str:
    return "a whole number" if isinstance(bound, int) else "a number"


_KINDS: Final = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "is_instance_of": "text",
    "string_unicode": "text without lone surrogates",
    "tuple_type": "a list",
    "dict_type": "a JSON object",
    "model_attributes_type": "a JSON object",
}
