"""Read what a response says of its own cost: whole, or as its events pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.accumulators import StreamTally
from budgetguard.providers.answers import reported
from budgetguard.providers.json import count, field, items, parsed, text
from budgetguard.tokens.hosted_tools import IMAGE_TOKENS, container_unit, drawn_by, search_unit
from budgetguard.tokens.requests import as_mapping

_PENDING: Final = frozenset({"queued", "in_progress"})
_OVER: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
# What streams beside the model's own output: what tools found, and sound that comes as a transcript too.
_NOT_OUTPUT: Final = frozenset({"response.audio.delta", "response.shell_call_output_content.delta"})


def read_response(answer: object) -> Reported:
    """Read the usage of a response or a compaction, with the fees of the hosted tools that it used.

    A response that runs in the background and has not ended is `pending`. One that failed without a word
    of usage is taken to cost nothing, like an answer with an error status.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    answer = parsed(answer)
    said = reported(answer)
    status = text(field(answer, "status"))
    if said.usage is None:
        if status == "failed":
            return replace(said, usage=Usage())
        waiting = status == "queued" or (status in _PENDING and field(answer, "background") is True)
        return replace(said, pending=waiting)
    # One that was broken off may have ended before it read anything.
    unsaid = frozenset() if status in ("failed", "cancelled") else said.unsaid
    return replace(said, usage=_with_fees(said.usage, answer), unsaid=unsaid)


def _with_fees(usage: Usage, answer: object) -> Usage:
    calls: dict[str, int] = {}
    containers: set[object] = set()
    for item in items(field(answer, "output")):
        kind = text(field(item, "type")) or ""
        if kind == "web_search_call" and field(field(item, "action"), "type") not in (None, "search"):
            continue  # a page that is opened or looked through again is not billed
        if kind == "code_interpreter_call":
            containers.add(text(field(item, "container_id")))
        calls[kind] = calls.get(kind, 0) + 1
    counted = field(answer, "tool_usage")
    searches = count(field(field(counted, "web_search"), "num_requests"))
    offered = {"tools": field(answer, "tools")}
    fees = {
        search_unit(offered): calls.get("web_search_call", 0) if searches is None else searches,
        "storage_searches": calls.get("file_search_call", 0),
        drawn_by(offered): _drawn(field(counted, "image_gen"), calls.get("image_generation_call", 0)),
    }
    if (session := container_unit(offered)) is not None:
        fees[session] = len(containers)
    return Usage.of(
        **{
            **usage.units,
            **fees,
        }
    )


def _drawn(counted: object, images: int) -> int:
    """Return the tokens of the image model; those that it read cost less than those it drew."""
    if not images:
        return 0
    output = count(field(counted, "output_tokens"))
    if not output:
        return images * IMAGE_TOKENS
    return output + (count(field(counted, "input_tokens")) or 0)


class ResponseTally(StreamTally):
    """Add up what the events of a streamed response have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        # What counts whatever was seen.
        self._final: Reported | None = None
        self._text_ended = False

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not.

        Of a response that runs in the background, that it is `pending`: it goes on if nobody listens.
        """
        return self._final or super().reported

    @property
    def told(self) -> bool:
        """Whether what it reported is of the whole answer."""
        return self._final is not None or super().told

    @property
    def nears_end(self) -> bool:
        """Whether the end may be near enough to wait for it, once nobody reads any more.

        A text that is written to its end is mostly the end of it all.
        """
        return self.ended or self._text_ended

    def feed(self, chunk: object) -> None:
        """Take one event: an SDK object or a mapping."""
        kind = text(field(chunk, "type")) or ""
        response = field(chunk, "response")
        if response is not None:
            self._take_response(response)
        elif kind == "error" or field(chunk, "error") is not None:
            self.failed = True
        elif kind.endswith(".delta") and kind not in _NOT_OUTPUT:
            self._text_ended = False
            self._keep((field(chunk, "item_id"), field(chunk, "content_index"), kind), field(chunk, "delta"))
        elif kind == "response.output_text.done":
            self._text_ended = True
        elif kind == "response.output_item.added":
            self._text_ended = False
            item = field(chunk, "item")
            self._keep((field(item, "id"), "name"), field(item, "name"))

    def _take_response(self, response: object) -> None:
        said = read_response(response)
        status = field(response, "status")
        over = text(status) in _OVER
        if over:
            self._finished.add(0)
        in_background = field(response, "background") is True
        costs_nothing = text(status) == "failed" and said.usage == Usage()
        if said.pending or (over and in_background) or costs_nothing:
            self._final = said
        else:
            self._final = None
            self._merge(said)


class AnyTally(ResponseTally):
    """Add up what a stream says that may be one of chat chunks or of a response's events."""

    def feed(self, chunk: object) -> None:
        """Take one chunk or event: an SDK object or a mapping."""
        if text(field(chunk, "type")) is None:
            StreamTally.feed(self, chunk)
        else:
            super().feed(chunk)


def runs_in_background(body: Mapping[str, Any]) -> bool:
    """Whether a request's answer will come later, to be asked for."""
    return as_mapping(body).get("background") is True
