"""The shapes that answers come in, whoever's SDK made them: one table, one reader for every face.

A shape is known by what is really its own: a type, a key that no other has, a counter of a name that no
other uses. An answer of no known shape is not read: what merely looks alike would be booked too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, TypeAlias

from budgetguard.core.money import MAX_NANOS, NANOS_PER_USD, Nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.accumulators import is_api_error, with_seen, with_texts
from budgetguard.providers.answers import reported
from budgetguard.providers.json import count, field, items, parsed, text
from budgetguard.providers.openai.audio import read_transcription
from budgetguard.providers.openai.batches import read_batch
from budgetguard.providers.openai.responses import AnyTally, read_response

Piece: TypeAlias = tuple[Hashable, object]
# (unit, the counters that add up to it); of a total, the first is the one that must be there.
Sums: TypeAlias = Mapping[str, tuple[str, ...]]

TOTALS: Final = ("input_tokens", "output_tokens")
_DEEPEST: Final = 4
# LiteLLM's names of what people run on machines of their own.
_OWN_SERVERS: Final = frozenset({"llamafile", "lm_studio", "ollama", "ollama_chat"})


@dataclass(frozen=True, slots=True)
class Shape:
    """Say how answers of one shape are read: whole ones, and the pieces of a stream.

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


def recognised(answer: object) -> tuple[Shape | None, object]:
    """Return the shape of an answer, and what is to be read as such: what a wrapper holds."""
    if _is_plain_chat(answer):
        return _PLAIN, answer
    for _ in range(_DEEPEST):
        shape = next((shape for shape in SHAPES if shape.knows(answer)), None)
        if shape is None or shape.inside is None:
            return shape, answer
        answer = shape.inside(answer)
    return None, answer


def read_answer(answer: object) -> Reported:
    """Read what an answer of any known shape reports; of an unknown one, that it has no usage.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    shape, answer = recognised(parsed(answer))
    return Reported(usage=None) if shape is None else shape.read(answer)


def litellm_cost(answer: object) -> Nanos | None:
    """Return what LiteLLM computed for an answer that it made, or None.

    It computes 0 for what it does not know, too; only of servers that people run themselves is that the cost.
    """
    hidden = field(answer, "_hidden_params")
    usd = field(hidden, "response_cost")
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd < MAX_NANOS // NANOS_PER_USD:
        return None
    nanos = math.ceil(round(usd * NANOS_PER_USD, 3))
    return nanos if nanos or field(hidden, "custom_llm_provider") in _OWN_SERVERS else None


def read_whole(answer: object, model: str) -> Reported:
    """Read what a whole answer of any known shape reports, and count its text where that falls short of it.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
        model: decides how text becomes tokens; else the one that the answer names.
    """
    shape, inner = recognised(parsed(answer))
    if shape is None:
        return Reported(usage=None)
    said = shape.read(inner)
    model = model or said.model or ""
    if said.pending or shape.chunks:
        return with_seen(said, inner, model)
    return with_texts(said, (text for _slot, text in shape.texts(inner)), model)


class ItemTally(AnyTally):
    """Add up what the pieces of a stream of any known shape have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.

    Attributes:
        unread: the type of the first piece that is of no known shape, or None.
        understood: whether any piece was of a known one.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self.unread: type | None = None
        self.understood = False
        self._added: Reported | None = None
        self._told_all = False
        self._last: dict[str, str] = {}

    @property
    def told(self) -> bool:
        """Whether what it reported is of the whole answer."""
        return self._told_all or super().told

    def feed(self, chunk: object) -> None:
        """Take one piece: text, an SDK object or a mapping."""
        if isinstance(chunk, str):
            self._keep(("text",), chunk)
            return
        if _is_plain_chunk(chunk):
            self.understood = True
            super().feed(chunk)
            return
        shape, chunk = recognised(chunk)
        if shape is None:
            self.unread = self.unread or type(chunk)
            self._keep_unknown(chunk)
            return
        self.understood = True
        if shape.chunks:
            super().feed(chunk)
        if shape.name != OPENAI:
            self._take(shape.read(chunk), adds=shape.adds)
        for slot, piece in shape.texts(chunk):
            self._keep((shape.name, slot), piece)

    def _take(self, said: Reported, *, adds: bool) -> None:
        if adds and self._added is not None and said.usage is not None and self._added.usage is not None:
            before, more = self._added.usage.units, said.usage.units
            usage = Usage({unit: before.get(unit, 0) + more.get(unit, 0) for unit in {**before, **more}})
            said = replace(said, usage=usage)
        if adds and said.usage is not None:
            self._added = said
        self._merge(said)
        self._told_all = self._said.usage is not None and not self._said.unsaid and not adds

    def _keep_unknown(self, chunk: object) -> None:
        # Not enough to say what it cost, but enough to say what it cost at least.
        for name in ("delta", "text", "content"):
            piece = field(chunk, name)
            if isinstance(piece, str) and piece:
                before = self._last.get(name, "")
                grown = bool(before) and len(piece) > len(before) and piece.startswith(before)
                self._last[name] = piece
                self._keep(("unknown", name), piece[len(before) :] if grown else piece)
                return


def _count(value: object, path: str) -> int | None:
    """Read a counter by its path, in either spelling: `promptTokenCount`, `prompt_token_count`."""
    for name in path.split("."):
        found = field(value, name)
        value = field(value, _snake(name)) if found is None else found
    return count(value)


@cache  # the names are those that the shapes are written with
def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _either(value: object, name: str) -> Any:
    found = field(value, name)
    return field(value, _snake(name)) if found is None else found


def _summed(usage: object, sums: Sums) -> tuple[dict[str, int], frozenset[str]]:
    """Return the units of a usage, and the totals that it does not tell."""
    found = {unit: [_count(usage, path) for path in paths] for unit, paths in sums.items()}
    unsaid = frozenset(unit for unit in TOTALS if unit in found and found[unit][0] is None)
    return {unit: sum(one or 0 for one in counts) for unit, counts in found.items()}, unsaid


def _made(
    units: Mapping[str, int],
    unsaid: Iterable[str] = (),
    *,
    model: object = None,
    tier: str | None = None,
    ident: object = None,
    provider: str | None = None,
    region: str | None = None,
) -> Reported:
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


# OpenAI's, and everybody's whose API has its shape.

OPENAI: Final = "openai"


def _is_plain_chat(answer: Any) -> bool:
    """Whether it is what most answers are, so that no other shape needs to be asked for first."""
    kind = type(answer)
    if kind is not dict and not kind.__module__.startswith("openai."):
        return False
    made_of = field(answer, "object")
    if not isinstance(made_of, str) or not made_of.startswith("chat.completion"):
        return False
    return bool(items(field(answer, "choices"))) and field(answer, "x_groq") is None


def _is_openai(answer: Any) -> bool:
    kind, made_of = text(field(answer, "type")) or "", text(field(answer, "object")) or ""
    if kind.startswith("response.") or made_of.startswith(("chat.completion", "text_completion", "response")):
        return True
    if isinstance(field(answer, "choices"), list | tuple) and field(answer, "kind") is None:
        return True
    return reported(answer).usage is not None


def _read_openai(answer: Any) -> Reported:
    return read_response(answer) if field(answer, "object") == "response" else reported(answer)


def _openai_texts(answer: Any) -> Iterable[Piece]:
    """Return the text of a whole answer; that of a stream's chunks is added up elsewhere."""
    for choice in items(field(answer, "choices")):
        message = field(choice, "message")
        for name in ("content", "refusal", "reasoning_content", "reasoning"):
            yield (field(choice, "index"), name), field(message, name)
        for call in items(field(message, "tool_calls")):
            yield (field(call, "id"), "arguments"), field(field(call, "function"), "arguments")
    for item in items(field(answer, "output")):
        for part in items(field(item, "content")):
            yield (field(item, "id"), "text"), field(part, "text")
        yield (field(item, "id"), "arguments"), field(item, "arguments")


def _is_plain_chunk(answer: Any) -> bool:
    """Whether it is a chunk of OpenAI's that says nothing of its usage, as nearly all are."""
    if field(answer, "object") != "chat.completion.chunk" or field(answer, "usage") is not None:
        return False
    return field(answer, "x_groq") is None


def _is_batch(answer: Any) -> bool:
    return text(field(answer, "object")) == "batch"


def _read_batch(answer: Any) -> Reported:
    if field(answer, "status") is not None:
        return read_batch(answer)
    # Other servers' batches have no status: one that tells its usage is over.
    return replace(reported(answer), tier=BATCH)


def _is_embeddings(answer: Any) -> bool:
    """Whether it is embeddings or a ranking of a vendor that tells one total (Voyage)."""
    usage = field(answer, "usage")
    is_list = field(answer, "object") == "list" and isinstance(field(answer, "data"), list | tuple)
    return is_list and _is_only(usage, "total_tokens")


def _is_only(usage: object, total: str) -> bool:
    others = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
    return count(field(usage, total)) is not None and all(field(usage, name) is None for name in others)


def _read_embeddings(answer: Any) -> Reported:
    total = count(field(field(answer, "usage"), "total_tokens")) or 0
    return _made({"input_tokens": total}, model=field(answer, "model"))


def _is_transcription(answer: Any) -> bool:
    """Whether it is a transcript that is billed by the second."""
    usage = field(answer, "usage")
    return field(usage, "type") == "duration" and count(field(usage, "seconds")) is not None


def _is_groq_end(answer: Any) -> bool:
    return field(field(answer, "x_groq"), "usage") is not None and field(answer, "usage") is None


def _read_groq_end(answer: Any) -> Reported:
    told = reported({"usage": field(field(answer, "x_groq"), "usage")})
    return replace(told, model=text(field(answer, "model")), request_id=text(field(answer, "id")))


# LiteLLM's: OpenAI's, with what it adds of other vendors' counters.


def _is_litellm(answer: Any) -> bool:
    return isinstance(field(answer, "_hidden_params"), Mapping) and _is_openai(answer)


def _read_litellm(answer: Any) -> Reported:
    said = _read_openai(answer)
    provider = text(field(field(answer, "_hidden_params"), "custom_llm_provider"))
    if said.usage is None:
        return replace(said, provider=provider)
    usage = field(answer, "usage")
    details = field(usage, "prompt_tokens_details")
    split = field(details, "cache_creation_token_details")
    writes = max(
        _count(usage, "cache_creation_input_tokens") or 0, _count(details, "cache_creation_tokens") or 0
    )
    more = {
        "cache_write_tokens": writes,
        "cache_write_1h_tokens": _count(split, "ephemeral_1h_input_tokens") or 0,
        "web_searches": _count(usage, "server_tool_use.web_search_requests")
        or _count(details, "web_search_requests")
        or 0,
    }
    units = dict(said.usage.units)
    for unit, counted in more.items():
        units[unit] = max(counted, units.get(unit, 0))
    return replace(said, usage=Usage.of(**units), provider=provider)


# Anthropic's messages, and the events of their streams.

_ANTHROPIC: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_input_tokens",),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "cache_write_5m_tokens": ("cache_creation.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("cache_creation.ephemeral_1h_input_tokens",),
    "output_reasoning_tokens": ("output_tokens_details.thinking_tokens",),
    "web_searches": ("server_tool_use.web_search_requests",),
}
_ANTHROPIC_EVENTS: Final = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
    }
)
# What the SDK's helper for streams adds to those events: it says nothing new.
_ANTHROPIC_HELPERS: Final = frozenset({"text", "thinking", "signature", "citation", "input_json"})


def _is_anthropic(answer: Any) -> bool:
    usage = field(answer, "usage")
    if field(answer, "type") == "message" and field(answer, "role") == "assistant":
        return usage is not None
    return _is_anthropic_usage(usage)


def _is_anthropic_usage(usage: object) -> bool:
    own = ("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use")
    if field(usage, "input_tokens") is None or field(usage, "prompt_tokens") is not None:
        return False
    return any(field(usage, name) is not None for name in own)


def _read_anthropic(message: Any) -> Reported:
    usage = field(message, "usage")
    units, unsaid = _anthropic_units(usage)
    tier = text(field(usage, "service_tier"))
    return _made(
        units,
        unsaid,
        model=field(message, "model"),
        # What priority is paid for beside the tokens, which it does not make dearer.
        tier=BATCH if tier == BATCH else "fast" if field(usage, "speed") == "fast" else None,
        ident=field(message, "id"),
        region=text(field(usage, "inference_geo")),
    )


def _anthropic_units(usage: object) -> tuple[dict[str, int], frozenset[str]]:
    units, unsaid = _summed(usage, _ANTHROPIC)
    # Of a conversation that was compacted on the way, the totals are the last part's alone.
    for unit, counts in _added(_summed(one, _ANTHROPIC)[0] for one in items(field(usage, "iterations"))):
        units[unit] = max(units[unit], counts)
    split = units["cache_write_5m_tokens"] + units["cache_write_1h_tokens"]
    units["cache_write_tokens"] = max(units["cache_write_tokens"], split)
    units["input_tokens"] += units["cache_read_tokens"] + units["cache_write_tokens"]
    return units, unsaid


def _added(many: Iterable[Mapping[str, int]]) -> Iterable[tuple[str, int]]:
    total: dict[str, int] = {}
    for units in many:
        for unit, counted in units.items():
            total[unit] = total.get(unit, 0) + counted
    return total.items()


def _is_anthropic_event(answer: Any) -> bool:
    kind = text(field(answer, "type"))
    if kind in _ANTHROPIC_HELPERS:
        # The SDK's own: a text, or a part of one, beside all of it until then.
        return field(answer, "snapshot") is not None or field(answer, "signature") is not None
    return kind in _ANTHROPIC_EVENTS


def _read_anthropic_event(event: Any) -> Reported:
    kind = field(event, "type")
    if kind == "message_start":
        said = _read_anthropic(field(event, "message"))
        # How much it writes is known when it has been written.
        return said if said.usage is None else replace(said, unsaid=said.unsaid | {"output_tokens"})
    if kind == "message_delta" and (usage := field(event, "usage")) is not None:
        return _made(*_anthropic_units(usage))
    return Reported(usage=None)


def _is_anthropic_stream(answer: Any) -> bool:
    """Whether it is the SDK's helper for streams, at its end: it keeps the whole message."""
    return field(field(answer, "current_message_snapshot"), "stop_reason") is not None


def _anthropic_texts(event: Any) -> Iterable[Piece]:
    if text(field(event, "type")) in ("content_block_delta", "content_block_start"):
        part = field(event, "delta") or field(event, "content_block")
        for name in ("text", "thinking", "partial_json", "name"):
            yield (field(event, "index"), name), field(part, name)
    yield from _block_texts(field(event, "content"))


def _block_texts(blocks: object) -> Iterable[Piece]:
    for number, block in enumerate(items(blocks)):
        for name in ("text", "thinking"):
            yield (number, name), field(block, name)
        yield (number, "input"), _as_text(field(block, "input"))


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)


# Gemini's.

_GEMINI: Final[Sums] = {
    "input_tokens": ("promptTokenCount", "toolUsePromptTokenCount"),
    "output_tokens": ("candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount"),
    "cache_read_tokens": ("cachedContentTokenCount",),
    "output_reasoning_tokens": ("thoughtsTokenCount",),
}
_GEMINI_MODALITIES: Final = (
    ("promptTokensDetails", "AUDIO", "input_audio_tokens"),
    ("toolUsePromptTokensDetails", "AUDIO", "input_audio_tokens"),
    ("cacheTokensDetails", "AUDIO", "cache_audio_read_tokens"),
    ("candidatesTokensDetails", "AUDIO", "output_audio_tokens"),
    ("candidatesTokensDetails", "IMAGE", "output_image_tokens"),
    ("candidatesTokensDetails", "VIDEO", "output_video_tokens"),
)


def _is_gemini(answer: Any) -> bool:
    usage = _either(answer, "usageMetadata")
    if any(_count(usage, name) is not None for name in ("promptTokenCount", "totalTokenCount")):
        return True
    candidates = items(field(answer, "candidates"))
    return any(field(field(one, "content"), "parts") is not None for one in candidates)


def _read_gemini(answer: Any) -> Reported:
    usage = _either(answer, "usageMetadata")
    model = text(_either(answer, "modelVersion"))
    ident = _either(answer, "responseId")
    if usage is None:
        return Reported(usage=None, model=model, request_id=text(ident))
    units, unsaid = _summed(usage, _GEMINI)
    total = _count(usage, "totalTokenCount")
    if total and unsaid == frozenset(TOTALS):
        return Reported(usage=None, model=model, request_id=text(ident), total=total)
    if total is not None and "input_tokens" not in unsaid:
        # An answer that was cut off before its first word has no count of its words.
        units["output_tokens"] = max(units["output_tokens"], total - units["input_tokens"])
        unsaid -= {"output_tokens"}
    for details, modality, unit in _GEMINI_MODALITIES:
        for one in items(_either(usage, details)):
            if str(getattr(kind := field(one, "modality"), "value", kind)).upper() == modality:
                units[unit] = units.get(unit, 0) + (_count(one, "tokenCount") or 0)
    return _made(
        {**units, "web_searches": _gemini_searches(answer, model or "")}, unsaid, model=model, ident=ident
    )


def _gemini_searches(answer: Any, model: str) -> int:
    """Return the searches that are billed: each query; before Gemini 3, each answer that made any."""
    queries = [
        query
        for candidate in items(field(answer, "candidates"))
        for query in items(_either(_either(candidate, "groundingMetadata"), "webSearchQueries"))
        if query
    ]
    older = any(part in model for part in ("gemini-1", "gemini-2"))
    return min(1, len(queries)) if older else len(queries)


def _gemini_texts(answer: Any) -> Iterable[Piece]:
    for number, candidate in enumerate(items(field(answer, "candidates"))):
        for part in items(field(field(candidate, "content"), "parts")):
            yield (number, "text"), field(part, "text")
            yield (number, "call"), _as_text(_either(part, "functionCall"))


# Bedrock's Converse.

_BEDROCK: Final[Sums] = {"input_tokens": ("inputTokens",), "output_tokens": ("outputTokens",)}
_BEDROCK_EVENTS: Final = frozenset(
    {
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    }
)


def _is_bedrock(answer: Any) -> bool:
    if not isinstance(answer, Mapping):
        return False
    if len(answer) == 1 and next(iter(answer)) in _BEDROCK_EVENTS:
        return True
    return count(field(field(answer, "usage"), "inputTokens")) is not None


def _read_bedrock(answer: Any) -> Reported:
    usage = field(answer, "usage") or field(field(answer, "metadata"), "usage")
    if usage is None:
        return Reported(usage=None)
    units, unsaid = _summed(usage, _BEDROCK)
    hour = sum(
        _count(one, "inputTokens") or 0
        for one in items(field(usage, "cacheDetails"))
        if field(one, "ttl") == "1h"
    )
    reads, writes = (
        max(_count(usage, f"cache{what}InputTokens") or 0, _count(usage, f"cache{what}InputTokenCount") or 0)
        for what in ("Read", "Write")
    )
    units["input_tokens"] += reads + max(writes, hour)
    more = {
        "cache_read_tokens": reads,
        "cache_write_tokens": max(writes, hour),
        "cache_write_1h_tokens": hour,
    }
    return _made({**units, **more}, unsaid)


def _bedrock_texts(answer: Any) -> Iterable[Piece]:
    event = field(answer, "contentBlockDelta")
    delta = field(event, "delta")
    index = field(event, "contentBlockIndex")
    yield (index, "text"), field(delta, "text")
    yield (index, "thinking"), field(field(delta, "reasoningContent"), "text")
    yield (index, "input"), field(field(delta, "toolUse"), "input")
    yield from _block_texts(field(field(field(answer, "output"), "message"), "content"))


# Cohere's: what is billed is less than what was read.

_COHERE: Final[Sums] = {
    "input_tokens": ("input_tokens", "image_tokens"),
    "output_tokens": ("output_tokens",),
    "input_image_tokens": ("image_tokens",),
}
_COHERE_EVENTS: Final = frozenset(
    {
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "citation-start",
        "citation-end",
        "message-end",
    }
)
_COHERE_OLD_EVENTS: Final = frozenset(
    {"stream-start", "text-generation", "stream-end", "citation-generation"}
)


def _cohere_billed(answer: Any) -> object:
    for holder in ("usage", "meta"):
        for name in ("billed_units", "tokens"):
            if (billed := field(field(answer, holder), name)) is not None:
                return billed
    return None


def _is_cohere(answer: Any) -> bool:
    event = text(field(answer, "event_type"))
    return (
        text(field(answer, "type")) in _COHERE_EVENTS
        or event in _COHERE_OLD_EVENTS
        or _cohere_billed(answer) is not None
    )


def _read_cohere(answer: Any) -> Reported:
    whole = field(answer, "response") or field(answer, "delta") or answer
    billed = _cohere_billed(whole)
    ident = text(field(answer, "id")) or text(field(whole, "generation_id"))
    if billed is None or (_count(billed, "search_units") or 0) > 0:
        return Reported(usage=None, request_id=ident)  # rankings are billed by the search
    units, unsaid = _summed(billed, _COHERE)
    if field(answer, "embeddings") is not None or "message" not in _names(whole):
        unsaid -= {"output_tokens"}
    return _made(units, unsaid, ident=ident)


def _names(value: Any) -> Iterable[str]:
    return value if isinstance(value, Mapping) else dir(value)


def _cohere_texts(answer: Any) -> Iterable[Piece]:
    if text(field(answer, "event_type")) == "text-generation":
        yield "text", field(answer, "text")
    message = field(field(answer, "delta"), "message")
    content = field(message, "content")
    yield (field(answer, "index"), "text"), field(content, "text")
    yield (field(answer, "index"), "thinking"), field(content, "thinking")
    yield "plan", field(message, "tool_plan")
    calls = field(field(message, "tool_calls"), "function")
    yield (field(answer, "index"), "arguments"), field(calls, "arguments")
    yield from _block_texts(field(field(answer, "message"), "content"))


# Frameworks'.

_LANGCHAIN: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("input_token_details.cache_read",),
    "cache_write_tokens": ("input_token_details.cache_creation",),
    "cache_write_5m_tokens": ("input_token_details.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("input_token_details.ephemeral_1h_input_tokens",),
    "input_audio_tokens": ("input_token_details.audio",),
    "output_audio_tokens": ("output_token_details.audio",),
    "output_reasoning_tokens": ("output_token_details.reasoning",),
}


def _is_langchain(answer: Any) -> bool:
    usage = field(answer, "usage_metadata")
    if count(field(usage, "input_tokens")) is not None and count(field(usage, "output_tokens")) is not None:
        return True
    return hasattr(answer, "response_metadata") and hasattr(answer, "additional_kwargs")


def _read_langchain(message: Any) -> Reported:
    usage, meta = field(message, "usage_metadata"), field(message, "response_metadata")
    model = text(field(meta, "model_name")) or text(field(meta, "model"))
    if usage is None:
        told = reported({"usage": field(meta, "token_usage")}).usage
        return Reported(usage=told, model=model)
    units, unsaid = _summed(usage, _LANGCHAIN)
    split = units["cache_write_5m_tokens"] + units["cache_write_1h_tokens"]
    units["cache_write_tokens"] = max(units["cache_write_tokens"], split)
    tier = text(field(meta, "service_tier"))
    ident = text(field(meta, "id")) or text(field(message, "id"))
    return _made(units, unsaid, model=model, tier=tier, ident=ident)


def _langchain_texts(message: Any) -> Iterable[Piece]:
    content = field(message, "content")
    if isinstance(content, str):
        yield "text", content
    yield from _block_texts(content)
    for call in items(field(message, "tool_call_chunks")):
        yield (field(call, "index"), "arguments"), field(call, "args")


def _is_pydantic_ai(answer: Any) -> bool:
    return type(answer).__module__.partition(".")[0] == "pydantic_ai" and hasattr(answer, "usage")


_PYDANTIC_AI: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_tokens",),
    "cache_write_tokens": ("cache_write_tokens",),
    "input_audio_tokens": ("input_audio_tokens",),
    "cache_audio_read_tokens": ("cache_audio_read_tokens",),
    "output_audio_tokens": ("output_audio_tokens",),
}


def _read_pydantic_ai(answer: Any) -> Reported:
    usage = answer.usage
    if not hasattr(usage, "input_tokens"):
        usage = usage()  # before 2.0
    units, unsaid = _summed(usage, _PYDANTIC_AI)
    if not any(units.values()):
        return Reported(usage=None)  # nothing has been asked, or it does not tell
    return _made(units, unsaid, model=field(answer, "model_name"))


def _is_agents_run(answer: Any) -> bool:
    return field(field(field(answer, "context_wrapper"), "usage"), "requests") is not None


def _read_agents_run(answer: Any) -> Reported:
    usage = field(field(answer, "context_wrapper"), "usage")
    told = reported({"usage": usage}).usage
    return Reported(usage=told if count(field(usage, "requests")) else None)


_OLLAMA: Final[Sums] = {"input_tokens": ("prompt_eval_count",), "output_tokens": ("eval_count",)}


def _is_ollama(answer: Any) -> bool:
    if _count(answer, "eval_count") is not None or _count(answer, "prompt_eval_count") is not None:
        return True
    piece = field(field(answer, "message"), "content") or field(answer, "response")
    return isinstance(field(answer, "done"), bool) and isinstance(piece, str)


def _read_ollama(answer: Any) -> Reported:
    units, unsaid = _summed(answer, _OLLAMA)
    model = text(field(answer, "model"))
    if unsaid == frozenset(TOTALS):
        return Reported(usage=None, model=model)
    if field(answer, "embeddings") is not None:
        unsaid -= {"output_tokens"}
    return _made(units, unsaid, model=model)


def _ollama_texts(answer: Any) -> Iterable[Piece]:
    message = field(answer, "message")
    yield "text", field(message, "content") or field(answer, "response")
    yield "thinking", field(message, "thinking") or field(answer, "thinking")


_XAI: Final[Sums] = {
    "input_tokens": ("prompt_tokens",),
    "output_tokens": ("completion_tokens", "reasoning_tokens"),
    "cache_read_tokens": ("cached_prompt_text_tokens",),
    "output_reasoning_tokens": ("reasoning_tokens",),
}


def _is_xai(answer: Any) -> bool:
    return field(field(answer, "usage"), "cached_prompt_text_tokens") is not None


def _read_xai(answer: Any) -> Reported:
    units, unsaid = _summed(field(answer, "usage"), _XAI)
    return _made(units, unsaid, model=field(answer, "model"), ident=field(answer, "id"))


def _is_llama_index(answer: Any) -> bool:
    """Whether it is an answer or a piece of one that has the provider's own beside it."""
    return hasattr(answer, "raw") and isinstance(field(answer, "delta"), str | None) and _has_body(answer)


def _has_body(answer: Any) -> bool:
    return isinstance(field(answer, "text"), str) or field(answer, "message") is not None


def _read_llama_index(answer: Any) -> Reported:
    raw = field(answer, "raw")
    return Reported(usage=None) if _is_llama_index(raw) else read_answer(raw)


def _llama_index_texts(answer: Any) -> Iterable[Piece]:
    # `text` and `message` hold all of it until then.
    yield "text", field(answer, "delta")


def _is_generated_text(answer: Any) -> bool:
    """Whether it is text of Hugging Face's text generation servers."""
    return isinstance(field(answer, "generated_text"), str)


def _read_generated_text(answer: Any) -> Reported:
    details = field(answer, "details")
    shown = len(list(items(field(details, "prefill"))))
    # Text that is not counted there is counted here.
    return _made({"output_tokens": _count(details, "generated_tokens") or 0, "input_tokens": shown})


def _is_list_of_one(answer: Any) -> bool:
    return isinstance(answer, list) and len(answer) == 1 and _is_generated_text(answer[0])


def _is_delta(answer: Any) -> bool:
    return isinstance(field(answer, "delta"), str) and isinstance(field(answer, "text"), str)


def _is_data_event(answer: Any) -> bool:
    """Whether it is an event that carries a chunk: Mistral's, or the Agents SDK's raw ones."""
    data = field(answer, "data")
    if data is None or isinstance(data, str | bytes | list | tuple):
        return False
    return field(answer, "type") == "raw_response_event" or isinstance(field(data, "choices"), list | tuple)


def _is_message_with_metadata(answer: Any) -> bool:
    """Whether it is a message of a LangGraph stream, which comes with where it is from."""
    return isinstance(answer, tuple) and len(answer) == 2 and _is_langchain(answer[0])


_PLAIN: Final = Shape(OPENAI, _is_openai, _read_openai, _openai_texts, chunks=True)
SHAPES: Final = (
    Shape("langgraph", _is_message_with_metadata, inside=lambda answer: answer[0]),
    Shape("event", _is_data_event, inside=lambda answer: field(answer, "data")),
    Shape("pydantic-ai", _is_pydantic_ai, _read_pydantic_ai),
    Shape("openai-agents", _is_agents_run, _read_agents_run),
    Shape("llama-index", _is_llama_index, _read_llama_index, _llama_index_texts),
    Shape("xai", _is_xai, _read_xai),
    Shape("litellm", _is_litellm, _read_litellm, _openai_texts, chunks=True),
    Shape("groq", _is_groq_end, _read_groq_end, chunks=True),
    Shape("cohere", _is_cohere, _read_cohere, _cohere_texts),
    Shape("bedrock", _is_bedrock, _read_bedrock, _bedrock_texts),
    Shape("anthropic stream", _is_anthropic_stream, inside=lambda a: a.current_message_snapshot),
    Shape("anthropic events", _is_anthropic_event, _read_anthropic_event, _anthropic_texts),
    Shape("anthropic", _is_anthropic, _read_anthropic, _anthropic_texts),
    Shape("gemini", _is_gemini, _read_gemini, _gemini_texts),
    Shape("langchain", _is_langchain, _read_langchain, _langchain_texts, adds=True),
    Shape("ollama", _is_ollama, _read_ollama, _ollama_texts),
    Shape("embeddings", _is_embeddings, _read_embeddings),
    Shape("transcription", _is_transcription, read_transcription),
    Shape("batch", _is_batch, _read_batch),
    _PLAIN,
    Shape("one text", _is_list_of_one, inside=lambda answer: answer[0]),
    Shape(
        "generated text",
        _is_generated_text,
        _read_generated_text,
        lambda answer: [("text", field(answer, "generated_text"))],
    ),
    Shape("error", is_api_error, chunks=True),
    Shape("text", _is_delta, texts=_llama_index_texts),
)
