"""Render tool definitions as the text that OpenAI's models are given, and bill for.

Functions reach the model as a TypeScript namespace. The layout was worked out from what real requests
were billed: descriptions, titles and defaults become comments, types become TypeScript types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.providers.json import compact_json

# Deeper than any real schema; what is deeper is rendered as compact JSON, so recursion has an end.
_MAX_DEPTH = 32
# Definitions that refer to each other can unfold without end; no real tool has as many types.
_MAX_TYPES = 5_000


def namespace(functions: Iterable[Mapping[str, Any]], *, heads: bool = False) -> str:
    """Return the TypeScript namespace that declares the functions.

    Args:
        functions: mappings with `name`, `description` and `parameters` (a JSON schema), as in a request.
        heads: with the title and description of `parameters` itself, which the Responses API bills.

    Raises:
        ConfigurationError: a schema nested so deeply that no client can send it.
    """
    lines = ["namespace functions {", ""]
    for function in functions:
        lines.extend(_comment(function.get("description")))
        name = function.get("name") or ""
        schema = function.get("parameters")
        if isinstance(schema, Mapping) and _properties(schema):
            lines.append(f"type {name} = (_: {{")
            if heads:
                lines.extend(_comment(schema.get("title")))
                lines.extend(_comment(schema.get("description")))
            lines.extend(_Renderer(definitions_of(schema)).fields(schema, 0))
            lines.append("}) => any;")
        else:
            lines.append(f"type {name} = () => any;")
        lines.append("")
    lines.append("} // namespace functions")
    return "\n".join(lines)


UNBILLED: Final = frozenset({"title", "additionalProperties", "$schema"})
"""Keywords of an answer's schema that are not billed: with these left out, its compact JSON is nearly the bill."""
UNBILLED_IN_RESPONSES: Final = UNBILLED | {
    "minLength", "maxLength", "minimum", "maximum", "format", "pattern", "default",
}  # fmt: skip


def has_titles(schema: Any) -> bool:
    """Whether a schema's properties have titles, as pydantic gives them: then more is billed for it."""
    return any(isinstance(one, Mapping) and "title" in one for one in _properties(schema).values())


def billed_schema(schema: Any, leave_out: frozenset[str], depth: int = 0) -> Any:
    """Return the part of an answer's JSON schema that is billed: all but some keywords."""
    if depth > 2 * _MAX_DEPTH:
        return schema
    if isinstance(schema, Mapping):
        return {
            # Below these two, keys are names that the user chose, `title` perhaps among them.
            key: {name: billed_schema(one, leave_out, depth + 1) for name, one in value.items()}
            if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping)
            else billed_schema(value, leave_out, depth + 1)
            for key, value in schema.items()
            if key not in leave_out
        }
    if isinstance(schema, list | tuple):
        return [billed_schema(one, leave_out, depth + 1) for one in schema]
    return schema


class _Renderer:
    """What renders one function's schema, with an end to what references can unfold into."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._left = _MAX_TYPES

    def fields(self, schema: Any, depth: int) -> list[str]:
        lines: list[str] = []
        required = schema.get("required")
        required = required if isinstance(required, list | tuple) else ()
        for name, field in _properties(schema).items():
            if not isinstance(field, Mapping):
                field = {}
            lines.extend(_comment(field.get("title")))
            lines.extend(_comment(field.get("description")))
            optional = "" if name in required else "?"
            comment = f" // default: {_default(field['default'])}" if "default" in field else ""
            lines.append(f"{name}{optional}: {self.type(field, depth + 1)},{comment}")
        return lines

    def type(self, schema: Any, depth: int) -> str:
        self._left -= 1
        if not isinstance(schema, Mapping) or self._left < 0:
            return "any"
        if depth > _MAX_DEPTH:
            return compact_json(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self.type(self._definitions.get(reference.rpartition("/")[2], {}), depth + 1)
        for key in ("anyOf", "oneOf", "allOf"):
            options = schema.get(key)
            if isinstance(options, list | tuple) and options:
                return " | ".join(self.type(option, depth + 1) for option in options)
        if "const" in schema:
            return compact_json(schema["const"])
        choices = schema.get("enum")
        if isinstance(choices, list | tuple) and choices:
            return " | ".join(compact_json(choice) for choice in choices)
        kind = schema.get("type")
        if isinstance(kind, list | tuple):
            return " | ".join(self.type({**schema, "type": one}, depth + 1) for one in kind)
        match kind:
            case "string" | "boolean" | "null":
                return str(kind)
            case "integer" | "number":
                return "number"
            case "array":
                return f"{self.type(schema['items'], depth + 1)}[]" if schema.get("items") else "any[]"
            case "object":
                if _properties(schema):
                    return "{\n" + "\n".join(self.fields(schema, depth)) + "\n}"
                return "object"
        return "any"


def _comment(text: Any) -> list[str]:
    # What was billed for texts of several lines fits only if blank lines and indents are dropped.
    if not isinstance(text, str):
        return []
    return [f"// {line.strip()}" for line in text.split("\n") if line.strip()]


def _properties(schema: Any) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def definitions_of(schema: Any) -> Mapping[str, Any]:
    """Return the types that a JSON schema defines, by name."""
    if not isinstance(schema, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key in ("definitions", "$defs"):
        if isinstance(part := schema.get(key), Mapping):
            found.update(part)
    return found


def _default(value: Any) -> str:
    return value if isinstance(value, str) else compact_json(value)
