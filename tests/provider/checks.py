"""The requests that the API refuses before doing any work."""

from __future__ import annotations

from typing import Any

from tests.provider import shapes
from tests.provider.journal import RecordedRequest
from tests.provider.reply import (
    CHAT,
    COMPACT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    RESPONSES,
)

_REQUIRED = {
    CHAT: "messages",
    COMPLETIONS: "prompt",
    RESPONSES: "input",
    COMPACT: "input",
    EMBEDDINGS: "input",
    MODERATIONS: "input",
}
_COUNTS = ("n", "max_tokens", "max_completion_tokens", "max_output_tokens", "dimensions")


def problem_of(record: RecordedRequest, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]] | None:
    """Return the error that the API answers a request with before doing any work, or None."""
    if record.path not in _REQUIRED:
        text = f"Invalid URL ({record.method} {record.path})"
        return 404, shapes.error_body(404, text, code="unknown_url")
    if record.method != "POST":
        text = f"Not allowed to {record.method} on {record.path}."
        return 405, shapes.error_body(405, text, code="method_not_supported")
    if body is None:
        return 400, shapes.error_body(400, "We could not parse the JSON body of your request.")
    for name, kinds in (("model", str), (_REQUIRED[record.path], str | list)):
        if not body.get(name):
            text = f"Missing required parameter: '{name}'."
            return 400, shapes.error_body(400, text, param=name, code="missing_required_parameter")
        if not isinstance(body[name], kinds):
            return _wrong_type(name, body[name])
    items = body[_REQUIRED[record.path]]
    if record.path in (CHAT, RESPONSES, COMPACT) and (
        not (isinstance(items, list) and all(isinstance(item, dict) for item in items))
        and not (record.path != CHAT and isinstance(items, str))
    ):
        return _wrong_type(_REQUIRED[record.path], items)
    for name in _COUNTS:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            return _wrong_type(name, value)
    return None


def _wrong_type(name: str, value: Any) -> tuple[int, dict[str, Any]]:
    text = f"Invalid type or value for '{name}': {type(value).__name__}."
    return 400, shapes.error_body(400, text, param=name, code="invalid_type")
