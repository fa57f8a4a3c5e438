"""Every method of the real client, and the first request that it makes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from tests import sdk_methods
from tests.sdk_methods import Sent

BASE = "https://api.anthropic.com/"
# Copies of older clients for other clouds have connections of their own, which nobody closes.
CLOUDS_COPY = find_spec("anthropic.lib._platform_client") is not None
# What a method is called with, where it needs or wants more than any text.
_ARGUMENTS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "tools": [],
    "max_tokens": 5,
    "file": ("a.txt", io.BytesIO(b"x")),
    "files": [("a/SKILL.md", b"x")],
    "archive": ("a.zip", b"x"),
    "body": {},
}


def methods(kind: Any) -> Iterator[tuple[str, Sent]]:
    """Yield each method that sends something: its dotted name, and what it sends."""
    for name, _, sent in sdk_methods.methods(kind, BASE, _ARGUMENTS):
        yield name, sent
