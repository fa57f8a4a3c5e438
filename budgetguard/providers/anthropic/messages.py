"""Anthropic's messages: `/messages`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.rates import BATCH, Rates
from budgetguard.providers.answers import Piece
from budgetguard.providers.anthropic.input_tokens import claude_input
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.fees import marked_for_cache
from budgetguard.providers.hidden_input import UNSEEN, UNSEEN_FILE, input_beyond
from budgetguard.providers.json import field, getter, items, mapping, parsed, text, whole
from budgetguard.providers.shapes import Shape, Sums, block_texts, made, summed
from budgetguard.providers.thinking import thinking_tokens

# Tools that run in the caller's program; their definitions are counted.
_CALLERS_TOOLS: Final = ("custom", "bash", "text_editor", "computer", "browser", "memory")
# Input tokens of what tools find that run at Anthropic, of each use and for how many uses to allow at first,
# from recorded requests (median, most): one search 12 000, 16 100; three 38 600, 40 600; ten 404 500; a page
# that is fetched 5 300; code execution 4 000, 15 000; MCP 2 600, 14 200; tool search 1 000.
_ALLOWANCES: Final[Mapping[str, tuple[int, int]]] = {
    "web_search": (14_000, 3),
    "web_fetch": (8_000, 2),
    "code_execution": (8_000, 1),
    "mcp": (6_000, 1),
    "tool_search": (1_500, 1),
}
# An earlier turn is seldom long, but a conversation can be.
_THREAD: Final = 8_000
# What skills say, which is read from the container.
_SKILLS: Final = 8_000
# A context of as many tokens is made shorter, unless the request says otherwise: it is read once more.
_COMPACTED_AT: Final = 150_000
_CONTAINER: Final = "container_sessions"

_SUMS: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_input_tokens",),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "cache_write_5m_tokens": ("cache_creation.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("cache_creation.ephemeral_1h_input_tokens",),
    "output_reasoning_tokens": ("output_tokens_details.thinking_tokens",),
    "web_searches": ("server_tool_use.web_search_requests",),
}
_EVENTS: Final = frozenset(
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
_WITH_TEXT: Final = ("content_block_delta", "content_block_start")
# What the SDK's helper for streams adds to those events: it says nothing new.
_HELPERS: Final = frozenset({"text", "thinking", "signature", "citation", "input_json"})


class MessagesEndpoint(Endpoint):
    """Messages."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a message.

        Input is priced as written into the cache where `cache_control` asks for that, for the longest time
        that it asks for. What a model thinks is output. `web_search` is taken to be used as often as it may
        be.

        Raises:
            ConfigurationError: bad `messages` or `max_tokens`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body, model = mapping(asked.body), asked.model
        cap = whole(body, "max_tokens")
        if cap is None:
            raise ConfigurationError("max_tokens is missing: Anthropic's messages need a cap on their output")
        thinking = thinking_tokens(body)
        found = claude_input(body, model)
        shown = with_margin(found.tokens)
        allowances, fees = _of_hosted_tools(body)
        if found.unseen:
            allowances[UNSEEN] = found.unseen * UNSEEN_FILE
        hidden, more = input_beyond(
            "messages", body, model, sorted(found.kinds), allowances, shown, asked.learned
        )
        tokens, output = shown + more, max(cap, thinking or 0)
        if _may_compact(body, tokens):
            tokens, output = 2 * tokens, 2 * output
        return projected(
            model,
            asked.rates,
            {"input_tokens": tokens, **fees},
            {"output_tokens": output},
            output_cap=output,
            asked_tier=_asked_speed(body, model, asked.rates),
            hidden=hidden,
            fees=fees,
            marked=marked_for_cache(body),
            asked_to_think=thinking is not None,
            region=text(body.get("inference_geo")),
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return claude_input(body, model).tokens

    def read(self, answer: object) -> Reported:
        answer = parsed(answer)
        return _with_container(read_message(answer), field(answer, "container"))

    def texts(self, answer: Any) -> Iterable[Piece]:
        return message_texts(answer)

    def accumulator(self, model: str) -> MessageAccumulator:
        return MessageAccumulator(model)


def _asked_speed(body: Body, model: str, rates: Rates) -> str | None:
    """Return the tier that fast mode is priced as, None where it is not asked for.

    Raises:
        UnknownModelError: it is, and nobody knows its price for this model.
    """
    if body.get("speed") != "fast":
        return None
    probe = Usage.of(input_tokens=1_000, output_tokens=1_000)
    if not rates.is_free and rates.with_tier("fast").cost(probe) <= rates.cost(probe):
        raise UnknownModelError(
            f"no price is known for fast mode of {model!r}, so the call was not made. Leave `speed` out, or "
            f"set one for the model: register_price({model!r}, input=..., output=...)",
            model=model,
        )
    return "fast"


def _of_hosted_tools(body: Body) -> tuple[dict[str, int], dict[str, int]]:
    """Return the input tokens to allow for what tools find that run at Anthropic, and their fees' units."""
    allowances: dict[str, int] = {}
    fees: dict[str, int] = {}
    for tool in map(mapping, items(body.get("tools"))):
        kind = str(field(tool, "type") or "custom")
        if kind.startswith(_CALLERS_TOOLS):
            continue
        name = next((name for name in _ALLOWANCES if kind.startswith(name)), None)
        if name is None:
            # Such as one that asks another model: what it costs is priced nowhere.
            fees[f"tool_uses_{kind.rstrip('_0123456789')}"] = 1
            continue
        each, uses = _ALLOWANCES[name]
        most = whole(tool, "max_uses")
        uses = uses if most is None else most
        allowances[name] = each * min(uses, _ALLOWANCES[name][1])
        if name == "web_search":
            fees["web_searches"] = uses
        elif name == "code_execution":
            fees[_CONTAINER] = 1
    if body.get("mcp_servers"):
        allowances["mcp"] = _ALLOWANCES["mcp"][0]
    if body.get("thread"):
        allowances["thread"] = _THREAD
    if field(mapping(body.get("container")), "skills"):
        allowances["skills"] = _SKILLS
    return {kind: tokens for kind, tokens in allowances.items() if tokens}, {
        unit: count for unit, count in fees.items() if count
    }


def _may_compact(body: Body, tokens: int) -> bool:
    """Whether a context may be shortened on the way, which reads all of it once more."""
    edits = items(field(mapping(body.get("context_management")), "edits"))
    asked = [mapping(edit) for edit in edits if str(field(mapping(edit), "type")).startswith("compact")]
    if (compaction := body.get("compaction")) is not None:
        asked.append(mapping(compaction))
    triggers = (field(mapping(field(one, "trigger")), "value") for one in asked)
    return any(tokens >= (one if isinstance(one, int) else _COMPACTED_AT) for one in triggers)


def _with_container(said: Reported, container: object) -> Reported:
    """Return a report with the container that code ran in, which `usage` does not count."""
    if container is None or said.usage is None:
        return said
    return said.merged(Reported(usage=Usage.of(**{_CONTAINER: 1})))


def _is_message(answer: Any) -> bool:
    usage = field(answer, "usage")
    if field(answer, "type") == "message" and field(answer, "role") == "assistant":
        return usage is not None
    return _is_usage(usage)


def _is_usage(usage: object) -> bool:
    own = ("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use")
    if field(usage, "input_tokens") is None or field(usage, "prompt_tokens") is not None:
        return False
    return any(field(usage, name) is not None for name in own)


def read_message(message: Any) -> Reported:
    """Return what a message reports: an SDK object or a mapping."""
    usage = field(message, "usage")
    units, unsaid = _units(usage)
    tier = text(field(usage, "service_tier"))
    return made(
        units,
        unsaid,
        model=field(message, "model"),
        # What priority is paid for beside the tokens, which it does not make dearer.
        tier=BATCH if tier == BATCH else "fast" if field(usage, "speed") == "fast" else None,
        ident=field(message, "id"),
        region=text(field(usage, "inference_geo")),
    )


def _units(usage: object) -> tuple[dict[str, int], frozenset[str]]:
    units, unsaid = summed(usage, _SUMS)
    # Of a conversation that was compacted on the way, the totals are the last part's alone.
    for unit, counts in _added(summed(one, _SUMS)[0] for one in items(field(usage, "iterations"))):
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


def _is_event(answer: Any) -> bool:
    kind = text(field(answer, "type"))
    if kind in _HELPERS:
        # The SDK's own: a text, or a part of one, beside all of it until then.
        return field(answer, "snapshot") is not None or field(answer, "signature") is not None
    return kind in _EVENTS


def _read_event(event: Any) -> Reported:
    kind = field(event, "type")
    if kind == "message_start":
        said = read_message(field(event, "message"))
        # How much it writes is known when it has been written.
        return said if said.usage is None else replace(said, unsaid=said.unsaid | {"output_tokens"})
    if kind == "message_delta" and (usage := field(event, "usage")) is not None:
        return made(*_units(usage))
    return Reported(usage=None)


def _is_stream(answer: Any) -> bool:
    """Whether it is the SDK's helper for streams, at its end: it keeps the whole message."""
    return field(field(answer, "current_message_snapshot"), "stop_reason") is not None


def message_texts(event: Any) -> list[Piece]:
    """Return the texts of a message, or of an event of its stream, each with its slot."""
    get = getter(event)
    if get("type") in _WITH_TEXT:
        index, part = get("index"), getter(get("delta") or get("content_block"))
        return [((index, name), part(name)) for name in ("text", "thinking", "partial_json", "name")]
    content = get("content")
    return [] if content is None else list(block_texts(content))


class MessageAccumulator(TextAccumulator):
    """What the events of a streamed message have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._blocks_ended = False
        self._container: object = None

    @property
    def reported(self) -> Reported | None:
        said = super().reported
        return None if said is None else _with_container(said, self._container)

    @property
    def told(self) -> bool:
        return self._said.usage is not None and not self._said.unsaid

    @property
    def nears_end(self) -> bool:
        """Whether the end may be near enough to wait for it, once nobody reads any more.

        A block that is written to its end is mostly the last one, and usage follows.
        """
        return self._blocks_ended

    def feed(self, chunk: object) -> None:
        match field(chunk, "type"):
            case "error":
                self.failed = True
            case "content_block_start":
                self._blocks_ended = False
            case "content_block_stop":
                self._blocks_ended = True
            case "message_start" | "message_delta":
                self._merge(_read_event(chunk))
                holder = field(chunk, "message") or field(chunk, "delta")
                self._container = field(holder, "container") or self._container
            case "message":
                self._merge(read_message(chunk))
        for slot, piece in message_texts(chunk):
            self._keep(slot, piece)


MESSAGES: Final = MessagesEndpoint("messages", "/messages")
# As they are sent to other clouds, which name the model in the address. An ARN has a slash in it.
MESSAGES_ELSEWHERE: Final = tuple(
    MessagesEndpoint("messages", path)
    for path in (
        "/model/{}/invoke",
        "/model/{}/{}/invoke",
        "/model/{}/invoke-with-response-stream",
        "/model/{}/{}/invoke-with-response-stream",
        "/projects/{}/locations/{}/publishers/anthropic/models/{}:rawPredict",
        "/projects/{}/locations/{}/publishers/anthropic/models/{}:streamRawPredict",
    )
)
ENDED_STREAM: Final = Shape("anthropic stream", _is_stream, inside=lambda a: a.current_message_snapshot)
EVENT: Final = Shape("anthropic events", _is_event, _read_event, message_texts)
MESSAGE: Final = Shape("anthropic", _is_message, read_message, message_texts)
