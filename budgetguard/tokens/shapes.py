"""What a request consists of: the kinds whose billed tokens may be systematically more than is counted,
and the files whose contents it does not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from budgetguard.tokens.requests import as_mapping, given

# Tokens to allow for a file that is named by its id or URL, until settled calls have taught better.
UNSEEN_FILE: Final = 20_000

UNSEEN: Final = "unseen_files"

_PARTS: Final = {
    "image_url": "images",
    "input_image": "images",
    "computer_screenshot": "images",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
}


def kinds_of(body: Mapping[str, Any]) -> list[str]:
    """Return what a request consists of beside text, sorted.

    `audio`, `files`, `images`, `schema`, `tools`, and `unseen_files` for files that it only names.
    """
    found: set[str] = set()
    if given(body, "tools") or given(body, "functions"):
        found.add("tools")
    if given(body, "response_format") is not None or _wants_schema(body):
        found.add("schema")
    for part in _parts(body):
        kind = given(part, "type")
        if isinstance(kind, str) and kind in _PARTS:
            found.add(UNSEEN if _is_unseen(part) else _PARTS[kind])
    return sorted(found)


def unseen_files(body: Mapping[str, Any]) -> int:
    """Return how many files a request names by id or URL."""
    return sum(map(_is_unseen, _parts(body)))


def _wants_schema(body: Mapping[str, Any]) -> bool:
    if (text := given(body, "text")) is None:
        return False
    return given(as_mapping(given(as_mapping(text), "format")), "schema") is not None


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    items = body.get("messages") or body.get("input")
    if not isinstance(items, list | tuple):
        return
    for item in items:
        # Most messages are plain text, and looking at them has to cost next to nothing.
        plain = item if type(item) is dict else as_mapping(item)
        for name in ("content", "output"):
            content = plain.get(name)
            if isinstance(content, list | tuple):
                yield from (as_mapping(part) for part in content if not isinstance(part, str))
            elif isinstance(content, dict):
                yield content


def _is_unseen(part: Mapping[str, Any]) -> bool:
    if given(part, "type") not in ("file", "input_file"):
        return False
    file = as_mapping(given(part, "file") or part)
    return not isinstance(given(file, "file_data"), str | bytes)
