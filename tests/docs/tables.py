"""Write the tables of the documentation that the code knows better, and those of what tests prove.

`python -m tests.docs.tables` rewrites them on their pages, between the lines that name them:

    <!-- table: endpoints -->
    <!-- end -->
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from budgetguard.engine.projection import Projection
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.anthropic import endpoints as anthropic
from budgetguard.providers.base import Asked, Endpoint, RefusedEndpoints
from budgetguard.providers.google import endpoints as google
from budgetguard.providers.openai.endpoints import PRICED, REFUSED
from budgetguard.providers.openai.hosted_tools import hidden_input, projected_fees
from budgetguard.providers.request import with_files
from budgetguard.providers.sdks import SDKS
from tests.anthropic_client import matrix as anthropic_matrix
from tests.following import ROWS
from tests.frameworks import cases as of_frameworks
from tests.frameworks.case import COLUMNS as CALLS
from tests.matrix.cases import CASES, cells
from tests.matrix.ways import COLUMNS
from tests.sdks import ways as sdk_ways

from . import pages, price_tables

PAGES: Final = (
    "docs/anthropic.md",
    "docs/extra-prices.md",
    "docs/frameworks.md",
    "docs/google.md",
    "docs/openai.md",
    "docs/other-clients.md",
    "docs/patch.md",
    "docs/prices.md",
    "docs/projection.md",
    "docs/threads.md",
)
_PLACE = re.compile(r"(?P<begin><!-- table: (?P<name>[a-z ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)

_WORDS: Final = "Count the coins."
_SOUND: Final = ("a.wav", b"\0" * 9_000)
# One request of every kind that an endpoint bills in another way, by endpoint: model, body, files.
_REQUESTS: Final[Mapping[str, Sequence[tuple[str, dict[str, Any], dict[str, Any]]]]] = {
    "chat": [
        ("gpt-4o", {"messages": [{"role": "user", "content": _WORDS}], "web_search_options": {}}, {}),
    ],
    "embeddings": [("text-embedding-3-small", {"input": _WORDS}, {})],
    "responses": [
        (
            "gpt-5",
            {"input": _WORDS, "tools": [{"type": "file_search"}, {"type": "code_interpreter"}]},
            {},
        ),
    ],
    "compact": [("gpt-5", {"input": _WORDS}, {})],
    "completions": [("gpt-3.5-turbo-instruct", {"prompt": _WORDS}, {})],
    "images": [("gpt-image-1", {"prompt": _WORDS}, {}), ("dall-e-3", {"prompt": _WORDS}, {})],
    "image edits": [
        ("gpt-image-1", {"prompt": _WORDS}, {"image": b"a picture"}),
        ("dall-e-2", {"prompt": _WORDS}, {"image": b"a picture"}),
    ],
    "image variations": [("dall-e-2", {}, {"image": b"a picture"})],
    "speech": [("gpt-4o-mini-tts", {"input": _WORDS}, {}), ("tts-1", {"input": _WORDS}, {})],
    "transcriptions": [
        ("gpt-4o-transcribe", {}, {"file": _SOUND}),
        ("whisper-1", {}, {"file": _SOUND}),
    ],
    "translations": [("whisper-1", {}, {"file": _SOUND})],
    "videos": [("sora-2", {"prompt": _WORDS}, {})],
}
# What these bill is not in their requests.
_BY_WORD: Final[Mapping[str, str]] = {
    "batches": "its lines, each as its endpoint, at batch prices",
}
_NOTES: Final[Mapping[str, str]] = {
    "responses": "[hosted tools](projection.md#hosted-tools)",
    "completions": "at most 16 tokens if `max_tokens` does not say",
    "transcriptions": "[the length of the upload](media.md)",
    "translations": "[the length of the upload](media.md); booked as projected",
    "videos": "booked when the job is taken on",
    "batches": "[its file is read](batches.md)",
}
# These share a row's readers with others, and are never asked for as a stream.
_NO_STREAM: Final = frozenset({"image variations"})
# What units are called, the first that a unit's name begins with; parts of others are not told apart.
_UNITS: Final[Sequence[tuple[str, str | None]]] = (
    ("input_tokens", "tokens"),
    ("output_tokens", "tokens"),
    ("input_image_tokens", None),
    ("input_audio_tokens", None),
    ("output_image_tokens", None),
    ("output_audio_tokens", None),
    ("input_characters", "characters"),
    ("input_audio_seconds", "seconds of sound"),
    ("images_", "images by size and quality"),
    ("video_seconds_", "seconds of video by size"),
    ("web_search", "searches"),
    ("storage_search", "searches"),
    ("container_sessions", "containers"),
)

_TOOLS: Final = (
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "mcp",
    "tool_search",
    "computer",
    "shell",
    "apply_patch",
)
_FEES: Final[Mapping[str, str]] = {
    "web_searches": "a search",
    "web_search_previews": "a search",
    "storage_searches": "a search",
    "container_sessions_1g": "a container of 1 GB, 20 minutes",
    "drawn_tokens_gpt_image_1": "an image, in tokens",
}
_REASONS, _REASONS_NOT = "gpt-5", "gpt-4.1"


def endpoints() -> Iterator[str]:
    """Yield the table of the endpoints that have prices: what bills them is asked of their projections."""
    yield from _head("endpoint", "name", "priced by", "streams", "notes")
    for row in PRICED:
        streams = "yes" if row.streams and row.name not in _NO_STREAM else ""
        yield _row(f"`POST {row.path}`", f"`{row.name}`", _priced_by(row), streams, _notes(row))


def refused() -> Iterator[str]:
    """Yield the table of what is refused, and why."""
    yield from _refused(REFUSED)


def anthropic_refused() -> Iterator[str]:
    """Yield the same of Anthropic's API."""
    yield from _refused(anthropic.REFUSED)


def _refused(rows: Sequence[RefusedEndpoints]) -> Iterator[str]:
    yield from _head("endpoint", "what it does")
    for row in rows:
        yield _row(", ".join(f"`POST {path}`" for path in row.paths), row.why)


def hosted_tools() -> Iterator[str]:
    """Yield the table of hosted tools: what is allowed for them before a call, and what they bill."""
    yield from _head("tool", "input tokens at first", "fee projected", "a reasoning model")
    for tool in _TOOLS:
        body = {"tools": [{"type": tool}]}
        plain, reasoning = (
            (sum(hidden_input(body, model).values()), projected_fees(body, model))
            for model in (_REASONS_NOT, _REASONS)
        )
        said = " and ".join(_fee(*fee) for fee in plain[1].items())
        other = []
        if reasoning[0] != plain[0]:
            other.append(f"{_number(reasoning[0])} tokens")
        if reasoning[1] != plain[1]:
            other += [_fee(*fee) for fee in reasoning[1].items()]
        yield _row(f"`{tool}`", _number(plain[0]), said, ", ".join(other) or "the same")


def ways() -> Iterator[str]:
    """Yield the table of endpoints by ways of calling them: what the tests of `tests/matrix` prove."""
    yield from _head("", *(f"`{column}`" for column in COLUMNS))
    for case in CASES:
        found = cells(case)
        # Booked, refused, unnoticed: each a test of every way.
        marks = ["✓✓✓" if column in found else "" for column in COLUMNS]
        yield _row(case.title, *marks)


def anthropic_ways() -> Iterator[str]:
    """Yield the same of the anthropic client: what `tests/anthropic_client/test_matrix.py` proves."""
    yield from _head("", *(f"`{column}`" for column in anthropic_matrix.COLUMNS))
    for case in anthropic_matrix.CASES:
        found = {way.column for way in case.ways if case.has(way)}
        yield _row(case.title, *("✓✓✓" if column in found else "" for column in anthropic_matrix.COLUMNS))


def google_refused() -> Iterator[str]:
    """Yield what is refused of Gemini's API and Vertex'."""
    yield from _refused(google.REFUSED)


def google_ways() -> Iterator[str]:
    """Yield the ways of google-genai: what `tests/google_client/test_matrix.py` proves."""
    _need("google.genai")
    from tests.google_client import ways

    if not ways.HAS_ALL:
        raise NotInstalledError("a newer google-genai")
    yield from _head("", *(f"`{column}`" for column in ways.COLUMNS))
    for title in dict.fromkeys(way.title for way in ways.WAYS):
        found = {way.column for way in ways.WAYS if way.title == title}
        yield _row(title, *("✓✓✓" if column in found else "" for column in ways.COLUMNS))


def _proved(module: str, *packages: str) -> Callable[[], Iterator[str]]:
    """Return what yields the table of the ways of a module of `tests.sdks`, which needs packages."""

    def table() -> Iterator[str]:
        _need(*packages)
        yield from _head("", *sdk_ways.COLUMNS)
        for row, columns in sdk_ways.rows(import_module(f"tests.sdks.{module}").ways()):
            yield _row(row, *("✓✓✓" if column in columns else "" for column in sdk_ways.COLUMNS))

    return table


def sdks() -> Iterator[str]:
    """Yield the table of the SDKs that `patch()` guards, with the versions that are known."""
    yield from _head("name", "package", "versions")
    for one in SDKS.values():
        yield _row(f"`{one.sdk.name}`", f"`{one.sdk.package}`", one.sdk.versions)


def frameworks() -> Iterator[str]:
    """Yield the table of frameworks by ways of calling: what the tests of `tests/frameworks` prove."""
    yield from _head(
        "framework", "guarded by", *CALLS, "refused, the program gets", "tries of what is refused"
    )
    for case in of_frameworks.CASES:
        marks = []
        for column in CALLS:
            ways = [way for way in case.ways if way.column == column]
            cut = " cut" if any(way.cut for way in ways) else ""
            marks.append(f"✓{cut}" if ways else "")
        tries = "1" if case.attempts == 1 else f"at most {case.attempts}"
        yield _row(case.framework, case.by, *marks, case.refusal.words, tries)


def following() -> Iterator[str]:
    """Yield the table of what the user follows: what `tests/test_following.py` proves."""
    done = 'what is done inside `with budget_user("alice")`'
    yield from _head(done, "while it is open", "after it has ended")
    for row in ROWS:
        yield _row(row.what, row.inside, row.after)


TABLES: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "anthropic refused": anthropic_refused,
    "anthropic ways": anthropic_ways,
    "cohere ways": _proved("cohere_server", "cohere"),
    "compatible ways": _proved("test_compatible"),
    "endpoints": endpoints,
    "following": following,
    "frameworks": frameworks,
    "google refused": google_refused,
    "google ways": google_ways,
    "hosted tools": hosted_tools,
    "litellm ways": _proved("litellm_server", "litellm", "fastapi", "orjson", "soundfile", "backoff"),
    "mistral ways": _proved("mistral_server", "mistralai"),
    "extra prices": price_tables.extra_prices,
    "other names": price_tables.other_names,
    "prices elsewhere": price_tables.prices_elsewhere,
    "refused": refused,
    "sdks": sdks,
    "surcharges": price_tables.surcharges,
    "tiers": price_tables.tier_prices,
    "ways": ways,
}


class NotInstalledError(Exception):
    """What is installed cannot make a table: the page's stands, and what tests the package looks at it."""


def _need(*packages: str) -> None:
    for package in packages:
        try:
            found = find_spec(package)
        except ModuleNotFoundError:  # nor what it is in
            found = None
        if found is None:
            raise NotInstalledError(package)


def written(text: str) -> str:
    """Return a page's text with its tables as the code has them."""

    def anew(found: re.Match[str]) -> str:
        with suppress(NotInstalledError):
            return found["begin"] + "\n".join([*TABLES[found["name"]](), found["end"]])
        return found[0]

    return _PLACE.sub(anew, text)


def names(text: str) -> list[str]:
    """Return which tables a page has."""
    return [found["name"] for found in _PLACE.finditer(text)]


def page(name: str) -> Path:
    """Return where a page is."""
    return pages.ROOT / name


def _priced_by(row: Endpoint) -> str:
    if row.name in _BY_WORD:
        return _BY_WORD[row.name]
    ways: dict[str, list[str]] = {}
    for model, fields, files in _REQUESTS[row.name]:
        body = with_files({**fields, "model": model}, {name: _file(file) for name, file in files.items()})
        projection: Projection = row.project(Asked(body, model, PriceBook().rates(model)))
        words: dict[str, None] = {}
        for unit in projection.usage.units:
            if (word := next(word for start, word in _UNITS if unit.startswith(start))) is not None:
                words[word] = None
        ways.setdefault(", ".join(words), []).append(f"`{model}`")
    if len(ways) == 1:
        return next(iter(ways))
    return "; ".join(f"{way} ({', '.join(models)})" for way, models in ways.items())


def _file(file: object) -> object:
    return io.BytesIO(file) if isinstance(file, bytes) else file


def _notes(row: Endpoint) -> str:
    notes = []
    if row.asks_usage({}):
        notes.append("[its stream is asked for usage](#streams)")
    if ttl := row.least_ttl({}):
        days = ttl // 86_400_000
        notes.append(f"held for {days} days" if days > 1 else "held for 24 hours")
    elif ttl := row.least_ttl({"background": True}):
        notes.append(f"[in the background](responses.md#in-the-background) held for {ttl // 3_600_000} hours")
    return "; ".join([*notes, *([_NOTES[row.name]] if row.name in _NOTES else [])])


def _fee(unit: str, count: int) -> str:
    per = _FEES[unit]
    if unit.startswith("drawn_tokens"):
        return f"{per} ({_number(count)})"
    return per if count == 1 else f"{count} {per.removeprefix('a ')}es"


def _number(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _head(*titles: str) -> Iterator[str]:
    yield _row(*titles)
    yield _row(*("---" for _ in titles)).replace(" ", "")


def _row(*cells: str) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


if __name__ == "__main__":
    for one in PAGES:
        path = page(one)
        path.write_text(written(path.read_text()))
