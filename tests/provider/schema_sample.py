"""A value that fits a JSON schema, for answers to requests with structured output or forced tools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_STRINGS = {
    "date-time": "2025-01-01T00:00:00Z",
    "date": "2025-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
# A schema that refers to itself has to end somewhere.
_DEEPEST = 8


def sample(schema: Mapping[str, Any]) -> Any:
    """Return the plainest JSON value that the schema allows; the same one each time.

    Knows types, properties, items, enum, const, `$ref` into the schema, anyOf/oneOf/allOf, bounds of
    numbers, strings and arrays, and common formats; does not know `pattern`, `not` or `if`.
    """
    return _sample(schema, schema, 0)


def _sample(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            options = schema[word]
            ends = [option for option in options if option.get("type") in ("null", "string", "integer")]
            return _sample(ends[0] if depth > _DEEPEST and ends else options[0], root, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged.update(_resolve(part["$ref"], root) if "$ref" in part else part)
        return _sample(merged, root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = "null" if depth > _DEEPEST and "null" in kind else kind[0]
    if kind == "object":
        required = schema.get("required", ())
        return {
            name: _sample(part, root, depth + 1)
            for name, part in schema.get("properties", {}).items()
            if name in required or depth <= _DEEPEST
        }
    if kind == "array":
        wanted = max(schema.get("minItems", 0), 1 if depth <= _DEEPEST else 0)
        length = min(wanted, schema.get("maxItems", wanted))
        return [_sample(schema.get("items", {}), root, depth + 1) for _ in range(length)]
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text = _STRINGS.get(schema.get("format", ""), "text")
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", None)]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low: float = schema.get("minimum", -math.inf)
    high: float = schema.get("maximum", math.inf)
    above: float = schema.get("exclusiveMinimum", -math.inf)
    below: float = schema.get("exclusiveMaximum", math.inf)
    step: float = schema.get("multipleOf", 1)
    lowest, highest = max(low, above), min(high, below)
    candidates: list[float] = [step, 0]
    if math.isfinite(lowest):
        candidates += [math.ceil(lowest / step) * step, (math.floor(lowest / step) + 1) * step]
    if math.isfinite(highest):
        candidates += [math.floor(highest / step) * step, (math.ceil(highest / step) - 1) * step]
    if not whole and math.isfinite(lowest + highest):
        candidates += [(lowest + highest) / 2]
    fitting = (value for value in candidates if low <= value <= high and above < value < below)
    return next(fitting, step)


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for name in reference.removeprefix("#").split("/"):
        if name:
            found = found[name.replace("~1", "/").replace("~0", "~")]
    return found
