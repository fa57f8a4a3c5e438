"""Read a price file's TOML, or say which entry is bad, on which line, and what to write instead."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.pricing.addresses import Address
from budgetguard.pricing.entries import FileEntry
from budgetguard.pricing.matching import provider_named, providers_known
from budgetguard.pricing.rates import at_or_now
from budgetguard.pricing.said import PRICE_KEYS, checked_prices, shown

_ENTRIES: Final = "price"
_WHOSE: Final = ("model", "provider", "base_url")
_OF_AN_ENTRY: Final = (*_WHOSE, "valid_from", "factor")
_HEADER: Final = re.compile(r"[ \t]*\[\[[ \t]*(?:price|\"price\"|'price')[ \t]*\]\]")
_MOST_FACTOR: Final = 1_000
_EXAMPLE: Final = '[[price]] with model = "gpt-5*", input = 1.25, output = 10'


def parse(content: bytes, path: Path) -> tuple[FileEntry, ...]:
    """Read a price file's entries, the most specific first.

    Args:
        content: what it holds, TOML in UTF-8.
        path: what errors call it.

    Raises:
        ConfigurationError: it is bad. The text names the file, the entry with its line, the value and the
            remedy.
    """
    name = f"the price file {path}"
    try:
        text = content.decode("utf-8-sig")
        found = tomllib.loads(text, parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{name} is not UTF-8 ({error}): save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name} is not TOML: {error}. Write entries like {_EXAMPLE}") from error
    for key in found:
        if key != _ENTRIES:
            raise ConfigurationError(
                f"{name} has {key!r} at the top, where only [[price]] may stand: write entries like "
                f"{_EXAMPLE}"
            )
    tables = found.get(_ENTRIES, [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise ConfigurationError(
            f"{name}: write [[price]] with two brackets, once for each entry: {_EXAMPLE}"
        )
    lines = _Lines(text, len(tables))
    entries: list[FileEntry] = []
    seen: dict[object, FileEntry] = {}
    for number, table in enumerate(tables):
        place = lines.place(number)
        try:
            entry = _entry(table, f"{path.name}, {place}")
        except _BadFieldError as bad:
            raise ConfigurationError(f"{name}, {lines.place(number, bad.field)}: {bad}") from bad
        other = seen.setdefault((entry.whose, entry.valid_from), entry)
        if other is not entry:
            raise ConfigurationError(
                f"{name}, {place}: it is for the same as {other.place.removeprefix(f'{path.name}, ')}: leave "
                "one of them, or give them different valid_from"
            )
        entries.append(entry)
    # The later of equally specific ones comes first.
    ranked = sorted(enumerate(entries), key=lambda one: (one[1].rank, one[0]), reverse=True)
    return tuple(entry for _, entry in ranked)


class _BadFieldError(ValueError):
    def __init__(self, field: str | None, text: str) -> None:
        super().__init__(text)
        self.field = field


def _entry(table: Mapping[str, Any], place: str) -> FileEntry:
    for key in _WHOSE:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise _BadFieldError(key, f"{key} must be text, not {shown(value)}")
    if not any(key in table for key in _WHOSE):
        raise _BadFieldError(
            None, 'it does not say whose price it is: give it a model ("*" for all), provider or base_url'
        )
    others = {key: value for key, value in table.items() if key not in _OF_AN_ENTRY}
    factor = table.get("factor")
    if factor is not None:
        if others:
            raise _BadFieldError(
                "factor",
                f"factor and {next(iter(others))} in one entry: a factor multiplies the prices of others. "
                "Write two entries",
            )
        factor = _factor(factor)
    elif not others:
        raise _BadFieldError(
            None,
            "it has no price: give it input and output (USD per million tokens), a unit's price or a factor",
        )
    prices: dict[str, Decimal] = {}
    for key, value in others.items():
        try:
            prices |= checked_prices([(key, value)])
        except ConfigurationError as error:
            near = difflib.get_close_matches(key, (*_OF_AN_ENTRY, *PRICE_KEYS), n=1)
            unknown = "not a priced unit" in error.message
            text = (
                f"{key} is no field of an entry; did you mean {near[0]}?" if unknown and near else f"{error}"
            )
            raise _BadFieldError(key, text) from error
    return FileEntry(
        place,
        model=table["model"].strip().lower() if "model" in table else None,
        provider=_provider(table["provider"]) if "provider" in table else None,
        address=_address(table["base_url"]) if "base_url" in table else None,
        prices=prices,
        factor=factor,
        valid_from=_begin(table.get("valid_from")),
    )


def _factor(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _BadFieldError("factor", f"factor must be a number such as 1.1, not {shown(value)}")
    factor = Decimal(value)
    if not factor.is_finite() or not 0 < factor <= _MOST_FACTOR:
        raise _BadFieldError(
            "factor",
            f"factor must be above 0 and at most {_MOST_FACTOR}, not {value}; for what costs nothing write "
            "input = 0 and output = 0",
        )
    return factor


def _provider(name: str) -> str:
    wanted = provider_named(name)
    known = providers_known()
    # A program may have a name of its own for one, but a mistyped price is none.
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.8)
    if wanted not in known and near:
        raise _BadFieldError("provider", f"provider {name!r} is not known; did you mean {near[0]!r}?")
    return wanted


def _address(url: str) -> Address:
    found = Address.of(url.strip())
    if found is None or not {"?", "#"}.isdisjoint(url):
        raise _BadFieldError(
            "base_url",
            "base_url must be a plain address such as 'https://my.openai.azure.com', with http or https, "
            f"without user name, query or `..`, not {re.sub(r'//[^/]*@', '//...@', url)!r}",
        )
    return found


def _begin(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return at_or_now(value)
    if isinstance(value, date):
        return datetime.combine(value, time(), tzinfo=UTC)
    raise _BadFieldError(
        "valid_from", f"valid_from must be a date such as 2027-01-01, without quotes, not {shown(value)}"
    )


class _Lines:
    """Where a file's entries stand, by line. TOML readers do not say."""

    def __init__(self, text: str, count: int) -> None:
        self._text = text.splitlines()
        headers = [number for number, line in enumerate(self._text) if _HEADER.match(line)]
        self._starts = headers if len(headers) == count else None

    def place(self, number: int, field: str | None = None) -> str:
        """Return an entry's place, with the line of a field of it."""
        if self._starts is None:
            return f"entry {number + 1}"
        start = self._starts[number]
        later = self._starts[number + 1 :]
        line = start
        if field is not None:
            wanted = re.compile(rf"[ \t]*[\"']?{re.escape(field)}[\"']?[ \t]*=")
            within = range(start, later[0] if later else len(self._text))
            line = next((one for one in within if wanted.match(self._text[one])), start)
        return f"line {line + 1} (entry {number + 1})"
