"""The tables of prices in the documentation: what ours add to the list, and where each was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Final

from budgetguard.pricing.extra import EXTRA_PRICES, ExtraPrice
from budgetguard.pricing.other_names import OTHER_NAMES
from budgetguard.pricing.regions import UPLIFTS
from budgetguard.pricing.steps import SteppedPrice
from budgetguard.pricing.tiers import TIER_FACTORS

# Rows whose names are too many to write out, in words.
_WORDS: Final[Mapping[str, str]] = {
    r"gpt-4(?:o|\.1|-turbo|\.5)?(?:-(?:mini|nano|preview))*|gpt-3\.5-turbo|chatgpt-4o": "other chat models",
    r"o\d.*|gpt-[5-9].*": "`gpt-5` and later, `o1` to `o4`",
    r"claude-.*": "Claude",
    r"imagen-4\.0-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?": "`imagen-4.0-generate-001`",
    r"imagen-4\.0-fast-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?": "`imagen-4.0-fast-generate-001`",
    r"imagen-4\.0-ultra-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?": "`imagen-4.0-ultra-generate-001`",
    r"virtual-try-on(?:-preview)?(?:-\d\d-\d\d|-001)?": "`virtual-try-on-001`",
    r"gemini-2\.5-pro.*|gemini-3(?:\.1)?-pro(?!-image).*|gemini-pro-latest": "Gemini Pro from 2.5 on",
    r"gemini-2\.[05]-flash.*|gemini-3(?:\.[1-9])?-flash.*|gemini-flash(?:-lite)?-latest": (
        "Gemini Flash from 2.0 on"
    ),
    r"gemini-2\..*": "Gemini 2",
    r"gemini-(?!1|2\.).*": "Gemini 3 and later",
    r"grok-3(?:-mini)?(?:-fast)?(?:-latest|-beta)?|grok-4(?:-0709|-latest)?"
    r"|grok-4(?:-1)?-fast(?:-(?:non-)?reasoning)?(?:-latest)?|grok-code-fast(?:-1)?(?:-0825)?": (
        "`grok-3`, `grok-3-mini`, `grok-4`, `grok-4-fast`, `grok-4-1-fast`, `grok-code-fast-1` "
        "and their variants"
    ),
    r"grok-4\.20(?:-beta)?(?:-0309)?(?:-(?:non-)?reasoning)?(?:-latest|-gv2)?": (
        "`grok-4.20` and its variants"
    ),
    r"text-embedding-(?:3-small|3-large|ada-002)(?:-v2)?|gpt-4o-(?:mini-)?search-preview"
    r"|gpt-image-.+|chatgpt-image-.+|(?:babbage|davinci)-002": (
        "embeddings, images, `gpt-4o-search-preview`, `babbage-002`, `davinci-002`"
    ),
}
_MAKER: Final = "(?:[a-z0-9-]+/)?"
_HOSTS: Final[Mapping[str, str]] = {
    "openai": "`us.`, `eu.` and other regions' `api.openai.com`",
    "x-ai": "`us.api.x.ai`",
    "mistral": "`api.eu.mistral.ai`, `api.us.mistral.ai`",
    "together": "`us-api.together.ai`, `ca-api.together.ai`",
    "aws": "GovCloud: `bedrock-runtime.us-gov-west-1.amazonaws.com`",
    "google": "Vertex AI's regions: `us-east5-aiplatform.googleapis.com`, `aiplatform.eu.rep.googleapis.com`",
}
_LONG: Final = 2


def extra_prices() -> Iterator[str]:
    """Yield the table of the extra prices of OpenAI's models and tools, in USD."""
    yield from _extra(row for row in EXTRA_PRICES if row.provider == "openai")


def prices_elsewhere() -> Iterator[str]:
    """Yield the table of the extra prices at other providers, in USD."""
    yield from _extra((row for row in EXTRA_PRICES if row.provider != "openai"), provider=True)


def other_names() -> Iterator[str]:
    """Yield the table of names that the list lacks, or has at another model's price."""
    yield from _head("provider", "name", "costs what this does", "read at")
    for row in OTHER_NAMES:
        read = _read(row.source, row.taken, row.read_in)
        names = _names(row.names).replace(f", `{row.model}`", "")
        yield _row(f"`{row.provider}`", names, f"`{row.model}`", read)


def surcharges() -> Iterator[str]:
    """Yield the table of the addresses at which tokens cost more than the list says."""
    yield from _head("provider", "address", "times", "for", "read at")
    for row in UPLIFTS:
        yield _row(
            f"`{row.provider}`",
            _HOSTS[row.provider],
            f"{round(row.factor, 4)}",
            row.since,
            _read(row.source, row.taken),
        )


def tier_prices() -> Iterator[str]:
    """Yield the table of the service tiers that the list lacks."""
    yield from _head("provider", "tier", "times", "for", "read at")
    for row in TIER_FACTORS:
        models = "all models" if row.models is None else _WORDS[row.models]
        yield _row(f"`{row.provider}`", row.tier, f"{row.factor}", models, _read(row.source, row.taken))


def _extra(rows: Iterable[ExtraPrice], *, provider: bool = False) -> Iterator[str]:
    yield from _head(*(("provider",) if provider else ()), "model", "USD", "read at")
    for row in rows:
        prices = "<br>".join(f"`{key}` {_usd(price)}" for key, price in row.prices.items())
        if row.instead_of:
            listed = dict.fromkeys(row.instead_of.values())
            old = ", ".join("none" if price is None else f"{price}" for price in listed)
            prices += f"<br>instead of {old}"
        tier = "" if row.tier is None else f", {row.tier}"
        models = "any that has a price" if row.models is None else _names(row.models)
        first = (f"`{row.provider}`",) if provider else ()
        yield _row(*first, models + tier, prices, _read(row.source, row.taken, row.read_in))


def _usd(price: Decimal | SteppedPrice) -> str:
    if isinstance(price, Decimal):
        return f"{price}"
    above = ", ".join(f"{step.price} above {_number(step.start)} tokens" for step in price.tiers)
    return f"{price.base}, {above}"


def _read(source: str, taken: date, read_in: str | None = None) -> str:
    """Return a link to a page, with the date at which it was read and the table that has its figure."""
    host = source.partition("//")[2].partition("/")[0]
    return f"[{host}]({source}), {taken}" + ("" if read_in is None else ", in LiteLLM's table")


def _names(pattern: str) -> str:
    if pattern in _WORDS:
        return _WORDS[pattern]
    short = pattern.replace(_MAKER, "")
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(_expanded(short)))
    return names if short == pattern else f"{names}, also after a maker's name"


def _expanded(pattern: str) -> list[str]:
    """Return what a regular expression matches that has only alternatives, options and escaped letters."""
    found: list[str] = []
    for branch in _split(pattern):
        begun = [""]
        rest = branch
        while rest:
            part, rest = _part(rest)
            begun = [one + more for one in begun for more in part]
        found += begun
    return found


def _part(text: str) -> tuple[list[str], str]:
    """Return the strings that the first part of a branch matches, and the rest."""
    if text.startswith("(?:"):
        end = _closing(text)
        ways, rest = _expanded(text[3:end]), text[end + 1 :]
    elif text.startswith("["):
        inside, _, rest = text[1:].partition("]")
        ways = list(inside)
    elif text.startswith("\\"):
        ways, rest = [text[1]], text[_LONG:]
    else:
        ways, rest = [text[0]], text[1:]
    if rest.startswith("?"):
        ways, rest = ["", *ways], rest[1:]
    assert not rest.startswith(("*", "+", "{")), f"{text!r} means more names than can be written out"
    return ways, rest


def _split(pattern: str) -> list[str]:
    parts, depth = [""], 0
    for letter in pattern:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _closing(text: str) -> int:
    depth = 0
    for index, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ")" and not depth:
            return index
    raise AssertionError(f"{text!r} is not closed")


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*("---" for _ in titles)).replace(" ", "")


def _row(*cells: str) -> str:
    assert not any("|" in cell for cell in cells)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def expands(pattern: str) -> bool:
    """Whether a pattern's names as written out are what it matches."""
    short = pattern.replace(_MAKER, "")
    return pattern in _WORDS or all(re.fullmatch(pattern, name) for name in _expanded(short))
