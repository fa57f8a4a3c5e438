"""How answers of one shape are read, and what the readers of shapes share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.answers import Piece
from budgetguard.providers.json import count, field, items, text

# (unit, the counters that add up to it); of a total, the first is the one that must be there.
Sums: TypeAlias = Mapping[str, tuple[str, ...]]

TOTALS: Final = ("input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Shape:
    """How answers of one shape are read: whole ones, and the pieces of a stream.

    Attributes:
        name: whose it is.
        knows: whether a value is one.
        read: what it reports; its usage is None where it says nothing of that.
        texts: the text that it has, each piece with the slot that it continues.
        adds: the pieces of a stream report a part each; else each tells how much it was until then.
        chunks: pieces of a stream are read as OpenAI's chunks and events are.
        inside: what it wraps, which is to be read in its place.
    """

    name: str
    knows: Callable[[Any], bool]
    read: Callable[[Any], Reported] = lambda _: Reported(usage=None)
    texts: Callable[[Any], Iterable[Piece]] = lambda _: ()
    adds: bool = False
    chunks: bool = False
    inside: Callable[[Any], object] | None = None


def counted(value: object, path: str) -> int | None:
    """Read a counter by its path, in either spelling: `promptTokenCount`, `prompt_token_count`."""
    for name in path.split("."):
        found = field(value, name)
        if found is None and (other := _snake(name)) != name:
            found = field(value, other)
        if found is None:
            return None
        value = found
    return count(value)


@cache  # the names are those that the shapes are written with
def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def either(value: object, name: str) -> Any:
    """Return a field by its name in either spelling: `usageMetadata`, `usage_metadata`."""
    found = field(value, name)
    return field(value, _snake(name)) if found is None else found


def summed(usage: object, sums: Sums) -> tuple[dict[str, int], frozenset[str]]:
    """Return the units of a usage, and the totals that it does not tell."""
    units: dict[str, int] = {}
    unsaid = set()
    for unit, paths in sums.items():
        units[unit] = 0
        for path in paths:
            number = counted(usage, path)
            units[unit] += number or 0
            if number is None and path == paths[0] and unit in TOTALS:
                unsaid.add(unit)
    return units, frozenset(unsaid)


def made(
    units: Mapping[str, int],
    unsaid: Iterable[str] = (),
    *,
    model: object = None,
    tier: str | None = None,
    ident: object = None,
    provider: str | None = None,
    region: str | None = None,
) -> Reported:
    """Return what an answer reports, by its counters."""
    # Nobody asks without a prompt: an input of 0 tokens is one that is not told.
    if not units.get("input_tokens"):
        unsaid = {*unsaid, "input_tokens"}
    return Reported(
        Usage.of(**units),
        text(model),
        tier,
        text(ident),
        unsaid=frozenset(unsaid),
        provider=provider,
        region=region,
    )


def block_texts(blocks: object) -> Iterable[Piece]:
    """Yield the texts of content blocks, as Anthropic has them and others after it."""
    for number, block in enumerate(items(blocks)):
        for name in ("text", "thinking"):
            yield (number, name), field(block, name)
        yield (number, "input"), as_text(field(block, "input"))


def as_text(value: object) -> str | None:
    """Return a value as text, None as None."""
    return None if value is None else str(value)


def as_json(value: object) -> str | None:
    """Return a value as JSON text, as a model writes it; None as None, text as it is."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))
