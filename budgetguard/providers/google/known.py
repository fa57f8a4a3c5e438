"""What this process has learned of content in caches and of uploaded files: their tokens, bytes and seconds.

Names, never content. What is forgotten is asked for once more.
"""

from __future__ import annotations

import re
import threading
from typing import Final

from budgetguard.core.process import keep_newest
from budgetguard.providers.google.media import file_size
from budgetguard.providers.json import count, text
from budgetguard.providers.shapes import either

Size = tuple[int | None, float | None]
"""A file's bytes and seconds, as far as they are known."""

_MOST: Final = 4_096
_UPLOADED: Final = re.compile(r"(?:https://[^/]*googleapis\.com/v1\w*/)?(files/[A-Za-z0-9_-]+)")

_lock = threading.Lock()
_cached: dict[str, int] = {}
_files: dict[str, Size] = {}


def cached_tokens(name: str) -> int | None:
    """Return the tokens of content in a cache, None if nobody here has seen it."""
    return _cached.get(_bare(name))


def remember_cached(answer: object) -> int | None:
    """Note the tokens of content in a cache by what Google says of it, and return them."""
    name = text(either(answer, "name"))
    tokens = count(either(either(answer, "usageMetadata"), "totalTokenCount"))
    if name is not None and tokens is not None:
        with _lock:
            _cached[_bare(name)] = tokens
            keep_newest(_cached, _MOST)
    return tokens


def uploaded_name(address: str) -> str | None:
    """Return the name of an uploaded file by its address, None of what is elsewhere."""
    found = _UPLOADED.fullmatch(address)
    return found[1] if found else None


def is_known(name: str) -> bool:
    """Whether an uploaded file's size is known."""
    return name in _files


def remember_file(name: str, answer: object) -> None:
    """Note an uploaded file's size by what Google says of it."""
    size = file_size(answer)
    if size == (None, None):
        return
    with _lock:
        _files[name] = size
        keep_newest(_files, _MOST)


def size_of(address: str) -> Size:
    """Return what is known of the file at an address."""
    name = uploaded_name(address)
    return (None, None) if name is None else _files.get(name, (None, None))


def _bare(name: str) -> str:
    return name.rpartition("cachedContents/")[2]
