"""What messages report: whole ones, events of their streams, and the results of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.pricing.rates import BATCH, FAST
from budgetguard.providers.answers import Piece
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.json import field, getter, items, text
from budgetguard.providers.shapes import Shape, Sums, block_texts, made, summed

CONTAINER: Final = "container_sessions"
# https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback
UNREAD: Final = "an answer of messages reports no usage that is known, so its projection is booked"
UNBILLED: Final = "the model refused before it had written anything, which is not billed"

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
# What `inference_geo` is where a model may run anywhere.
_NOWHERE: Final = frozenset({"global", "not_available"})
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


def with_container(said: Reported, container: object) -> Reported:
    """Return a report with the container that code ran in, which `usage` does not count."""
    if container is None or said.usage is None:
        return said
    return said.merged(Reported(usage=Usage.of(**{CONTAINER: 1})))


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
    tier, geo = text(field(usage, "service_tier")), text(field(usage, "inference_geo"))
    said = made(
        units,
        unsaid,
        model=field(message, "model"),
        # What priority is paid for beside the tokens, which it does not make dearer.
        tier=BATCH if tier == BATCH else FAST if field(usage, "speed") == FAST else None,
        ident=field(message, "id"),
        region=None if geo in _NOWHERE else geo,
    )
    return _with_parts(said, usage)


def is_refused_unwritten(message: object) -> bool:
    """Whether a message is a refusal with nothing before it, which costs nothing."""
    return field(message, "stop_reason") == "refusal" and not items(field(message, "content"))


def _with_parts(said: Reported, usage: object) -> Reported:
    """Return a report with what each turn used, where there were several.

    Each is a prompt of its own, which decides by its length what it costs; and other models are asked where
    one refuses, or for advice.
    """
    parts = tuple(
        Reported(Usage.of(**_counts(one)), text(field(one, "model")))
        for one in items(field(usage, "iterations"))
    )
    return replace(said, parts=parts) if len(parts) > 1 else said


def _units(usage: object) -> tuple[dict[str, int], frozenset[str]]:
    units, unsaid = _counts(usage), summed(usage, _SUMS)[1]
    # The totals leave out what compacted a conversation on the way, and what other models were asked.
    for unit, counts in _added(_counts(one) for one in items(field(usage, "iterations"))):
        units[unit] = max(units[unit], counts)
    return units, unsaid


def _counts(usage: object) -> dict[str, int]:
    units, _ = summed(usage, _SUMS)
    split = units["cache_write_5m_tokens"] + units["cache_write_1h_tokens"]
    units["cache_write_tokens"] = max(units["cache_write_tokens"], split)
    units["input_tokens"] += units["cache_read_tokens"] + units["cache_write_tokens"]
    return units


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
        return _with_parts(made(*_units(usage)), usage)
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
        self._begun_writing = self._refused = False
        self._container: object = None

    @property
    def reported(self) -> Reported | None:
        said = super().reported
        return None if said is None else with_container(said, self._container)

    no_usage = UNREAD

    @property
    def unbilled(self) -> str | None:
        return UNBILLED if self._refused and not self._begun_writing else None

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
                self._blocks_ended, self._begun_writing = False, True
            case "content_block_stop":
                self._blocks_ended = True
            case "message_start" | "message_delta":
                self._merge(_read_event(chunk))
                holder = field(chunk, "message") or field(chunk, "delta")
                self._container = field(holder, "container") or self._container
                self._refused = self._refused or field(holder, "stop_reason") == "refusal"
            case "message":
                self._merge(read_message(chunk))
        for slot, piece in message_texts(chunk):
            self._keep(slot, piece)


ENDED_STREAM: Final = Shape("anthropic stream", _is_stream, inside=lambda a: a.current_message_snapshot)
EVENT: Final = Shape("anthropic events", _is_event, _read_event, message_texts)
MESSAGE: Final = Shape("anthropic", _is_message, read_message, message_texts)
