"""Read what an OpenAI-shaped answer says of its own cost, and whether its text bears that out."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, TypeAlias

from budgetguard.core.money import MAX_NANOS, MAX_USD, Nanos, ceil_nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.events import logger
from budgetguard.providers.json import count, field, getter, parsed, text
from budgetguard.tokens.text import count_text, encoding_for

Get: TypeAlias = Callable[[str], Any]
"""What looks up a field by its name; see `getter`."""

Piece: TypeAlias = tuple[Hashable, object]
"""A text with the slot that it continues."""

# (part in the answer, genai-prices unit). Predicted tokens are not here: accepted and rejected ones are
# already inside the output total. Text parts are not here either: they are what is left of the total.
_INPUT_PARTS: Final = (
    ("cached_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("audio_tokens", "input_audio_tokens"),
    ("image_tokens", "input_image_tokens"),
)
_OUTPUT_PARTS: Final = (
    ("reasoning_tokens", "output_reasoning_tokens"),
    ("audio_tokens", "output_audio_tokens"),
)
# Where others write such parts beside the totals: DeepSeek, Moonshot and Together, Mistral; and, where the
# totals are called as OpenAI calls them, proxies of Anthropic. Anthropic's own shape is another.
_INPUT_PARTS_BESIDE: Final = (
    (("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"), "cache_read_tokens"),
    (("cache_read_input_tokens",), "cache_read_tokens"),
    (("cache_creation_input_tokens",), "cache_write_tokens"),
)
# Of which no tokens are made: what was searched, and is billed by the piece.
_SEARCHED: Final = (("num_sources_used", "search_sources"), ("num_search_queries", "web_searches"))
_TICKS_PER_NANO: Final = 10
# Where an answer's text has more bytes than this to each token that it reports, it is counted.
_MOST_BYTES_A_TOKEN: Final = 8
_FREE_BYTES: Final = 128
# Other models' tokens are not ours: a report is not believed that is far below what we count.
_MOST_TIMES: Final = 2
_FREE_TOKENS: Final = 16
# A response and a job that failed say so in their status, and may have cost something.
_OF_ANSWERS: Final = ("choices", "output", "data", "status", "text")
# Some write amounts as text, as JSON has no decimals.
_AMOUNT: Final = re.compile(r"(?:\d{1,12}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE]-?\d{1,2})?", re.ASCII)


_warned: set[str] = set()


def warn_once(what: str) -> None:
    """Log what a program should know of an answer that could not be read, or of a count that failed."""
    if what not in _warned:
        _warned.add(what)
        logger.warning("budgetguard: %s", what)


def reported(answer: object) -> Reported:
    """Read an answer's usage, model, service tier and id, and what it says was billed.

    Chat, completions and embeddings count `prompt_tokens` and `completion_tokens`, responses count
    `input_tokens` and `output_tokens`; both are read. What is missing, null or no number counts as absent,
    and fields that nobody knows yet are passed over. A total that is absent is `unsaid`, and so is an input
    of 0 tokens: nobody asks without a prompt.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    said = getter(parsed(answer))
    told = said("usage")
    if told is None:
        told = field(said("x_groq"), "usage")
    counts = getter(told)
    usage = None if told is None else (_usage_of_list(said, counts) or _usage(counts))
    return Reported(
        usage=usage,
        model=text(said("model")),
        tier=text(said("service_tier")),
        request_id=text(said("id")),
        unsaid=frozenset() if usage is None else _unsaid(said, counts, usage),
        billed=None if told is None else _billed(counts),
        total=(_count(counts, "total_tokens") or 0) if usage is None and told is not None else 0,
    )


def is_only_an_error(answer: object) -> bool:
    """Whether an answer, its JSON parsed, is an error and nothing else, whatever its status says."""
    if isinstance(answer, list) and len(answer) == 1:
        (answer,) = answer
    said = getter(answer)
    if not said("error") and said("object") != "error":
        return False
    return not any(said(name) for name in _OF_ANSWERS) and not _counts_any(said("usage"))


def _counts_any(usage: object) -> bool:
    found = reported({"usage": usage})
    return bool(found.billed or found.total or (found.usage and any(found.usage.units.values())))


def is_api_error(answer: object) -> bool:
    """Whether an answer of any function is the error of an API, with what an API's error says."""
    error = field(answer, "error")
    is_told = field(error, "message") is not None or field(error, "code") is not None
    return isinstance(answer, Mapping) and is_told and is_only_an_error(answer)


def _usage_of_list(said: Get, counts: Get) -> Usage | None:
    """Read the usage of embeddings or a ranking: all of it is input, and some tell it as the total alone."""
    if said("object") != "list" or said("data") is None:
        return None
    total = _count(counts, "total_tokens")
    if not total or _count(counts, "prompt_tokens", "input_tokens"):
        return None
    return Usage.of(input_tokens=total)


def _unsaid(said: Get, counts: Get, usage: Usage) -> frozenset[str]:
    units = usage.units
    if units.get("input_tokens") and units.get("output_tokens"):  # nearly always
        return frozenset()
    unsaid = set() if usage.input_tokens else {"input_tokens"}
    # Embeddings have no output.
    names = ("completion_tokens", "output_tokens", "total_tokens")
    if not usage.output_tokens and said("data") is None and _count(counts, *names) is None:
        unsaid.add("output_tokens")
    return frozenset(unsaid)


def _usage(counts: Get) -> Usage | None:
    total_in = _count(counts, "prompt_tokens", "input_tokens")
    total_out = _count(counts, "completion_tokens", "output_tokens")
    if total_in is None and total_out is None:
        return None
    total = _count(counts, "total_tokens")
    if total_out is None and total is not None and total_in is not None:
        total_out = max(0, total - total_in)
    if total_in is None and total is not None and total_out is not None:
        total_in = max(0, total - total_out)
    details = (
        counts("prompt_tokens_details") or counts("input_tokens_details") or counts("input_token_details")
    )
    read = {} if details is None else _parts(details, _INPUT_PARTS)
    if counts("prompt_tokens") is not None:
        for names, unit in _INPUT_PARTS_BESIDE:
            if beside := _count(counts, *names):
                read[unit] = max(read.get(unit, 0), beside)
    details_out = (
        counts("completion_tokens_details")
        or counts("output_tokens_details")
        or counts("output_token_details")
    )
    written = {} if details_out is None else _parts(details_out, _OUTPUT_PARTS)
    more_in, more_out = _outside(total_in or 0, total_out or 0, total, read, written)
    units = {"input_tokens": (total_in or 0) + more_in, "output_tokens": (total_out or 0) + more_out}
    units |= {**read, **written}
    if details is not None and (cached := field(details, "cached_tokens_details")) is not None:
        units["cache_audio_read_tokens"] = count(field(cached, "audio_tokens")) or 0
    if counts("citation_tokens") is not None:
        _add_research(units, counts)
    units = {unit: tokens for unit, tokens in units.items() if tokens}
    for name, unit in _SEARCHED:
        # That nothing was searched is kept, too: a search may have been held for.
        if counts(name) is not None and (searched := _count(counts, name)) is not None:
            units[unit] = searched
    return Usage(units)


def _parts(details: object, parts: tuple[tuple[str, str], ...]) -> dict[str, int]:
    get = getter(details)
    return {unit: _count(get, name) or 0 for name, unit in parts}


def _outside(
    total_in: int, total_out: int, total: int | None, read: Mapping[str, int], written: Mapping[str, int]
) -> tuple[int, int]:
    """Return the tokens of input and of output that their totals leave out.

    Some providers count what was read from a cache, or heard, beside the prompt, and thinking beside the
    answer. A part that is more than its total is beside it, and so is what the sum of both shows on top of
    them: input if it is exactly one of its parts, else output, some of which is hidden everywhere.
    """
    beyond = None if total is None else max(0, total - total_in - total_out)
    if beyond and not total_in:
        return beyond, 0  # nothing is answered that was not asked
    more_in = more_out = 0
    for part in sorted(read.values(), reverse=True):
        if part and (part > total_in + more_in or part == beyond):
            more_in += part
            beyond = None if beyond is None else max(0, beyond - part)
    if beyond is not None:
        more_out = beyond
    elif (thought := written.get("output_reasoning_tokens", 0)) > total_out:
        more_out = thought
    return more_in, more_out


def _add_research(units: dict[str, int], counts: Get) -> None:
    """Add what Perplexity's research reads and thinks: it is counted at the top, and in no total."""
    for name, unit in (
        ("citation_tokens", "output_citation_tokens"),
        ("reasoning_tokens", "output_reasoning_tokens"),
    ):
        units[unit] = tokens = _count(counts, name) or 0
        units["output_tokens"] += tokens


def _billed(counts: Get) -> Nanos | None:
    """Read what a usage says was billed in USD; None if it does not, or says what cannot be.

    OpenRouter writes `cost` and, for a key of the caller's own, what its provider bills besides; Perplexity
    `cost.total_cost`; xAI ticks of 1e-10 USD. An amount of another currency is none. Whether a server may be
    believed is not said here.
    """
    if counts("cost_in_usd_ticks") is not None and (ticks := _count(counts, "cost_in_usd_ticks")) is not None:
        return _possible(-(-ticks // _TICKS_PER_NANO))
    cost = counts("cost")
    if cost is None:
        return None
    currency = text(field(cost, "currency") or counts("currency"))
    if currency is not None and currency.upper() != "USD":
        return None
    total = field(cost, "total_cost")
    billed = _nanos(cost if total is None else total)
    own_key = counts("is_byok")
    if billed is not None and (own_key is True or (own_key is None and not billed)):
        upstream = _nanos(field(counts("cost_details"), "upstream_inference_cost"))
        return _possible(billed + (upstream or 0))
    return billed


def _nanos(usd: object) -> Nanos | None:
    if isinstance(usd, str) and _AMOUNT.fullmatch(usd):
        usd = Decimal(usd)
    if isinstance(usd, bool) or not isinstance(usd, int | float | Decimal):
        return None
    value = Decimal(repr(usd)) if isinstance(usd, float) else Decimal(usd)
    return ceil_nanos(value) if value.is_finite() and 0 <= value <= MAX_USD else None


def _possible(nanos: Nanos) -> Nanos | None:
    return nanos if nanos <= MAX_NANOS else None


def _count(get: Get, *names: str) -> int | None:
    """Return the first of some counters that is there and is a number."""
    for name in names:
        found = get(name)
        if type(found) is int and found >= 0:
            return found
        if found is not None and (read := count(found)) is not None:
            return read
    return None


# The text of an answer


def with_texts(said: Reported, pieces: Iterable[Piece], model: str) -> Reported:
    """Return what an answer reports with the tokens of its texts, where its usage falls short of them."""
    texts: list[str] = []
    size = 0
    for _slot, piece in pieces:
        if isinstance(piece, str) and piece:
            texts.append(piece)
            size += len(piece) if piece.isascii() else byte_length(piece)
    if not may_fall_short(said, size, went_on=False):
        return said
    encoding = encoding_for(model)
    seen = sum(count_text(piece, encoding) for piece in texts)
    return replace(said, seen=believed(said, seen, went_on=False))


def may_fall_short(said: Reported, size: int, *, went_on: bool) -> bool:
    written = 0 if said.usage is None else said.usage.units.get("output_tokens", 0)
    if went_on or not written:
        return size > 0
    return size > _MOST_BYTES_A_TOKEN * written + _FREE_BYTES


def believed(said: Reported, seen: int, *, went_on: bool) -> int:
    """Return the tokens seen if they count rather than the report, else 0."""
    written = 0 if said.usage is None else said.usage.output_tokens
    least = written if went_on or not written else _MOST_TIMES * written + _FREE_TOKENS
    return seen if seen > least else 0


def byte_length(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def http_response(answer: object) -> Any | None:
    """Return the httpx response behind what a client returned, or None."""
    for name in ("", "http_response", "response"):
        found = getattr(answer, name, None) if name else answer
        if hasattr(found, "is_stream_consumed") and hasattr(found, "stream"):
            return found
    return None
