"""Responses: `/responses` and `/responses/compact`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.events import logger
from budgetguard.providers.answers import Piece, reported
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.fees import fees_of, marked_for_cache
from budgetguard.providers.hidden_input import input_beyond, kinds_of
from budgetguard.providers.json import field, is_absent, items, mapping, parsed, text, whole
from budgetguard.providers.openai.hosted_tools import (
    KEPT,
    PRO,
    PRO_READS_AGAIN,
    hidden_input,
    projected_fees,
    with_tool_fees,
)
from budgetguard.providers.openai.response_input import response_tokens
from budgetguard.providers.templated import unseen_thoughts
from budgetguard.providers.thinking import ASKS_TO_THINK, thinking_tokens

# What a compaction is asked for with, in input tokens.
_COMPACTING: Final = 95

# A day: what runs in the background is done long before, and whoever asks for it asks the same day.
_BACKGROUND_TTL: Final = 24 * 60 * 60 * 1000
_PENDING: Final = frozenset({"queued", "in_progress"})
_OVER: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
# What streams beside the model's own output: what tools found, and sound that comes as a transcript too.
_NOT_OUTPUT: Final = frozenset({"response.audio.delta", "response.shell_call_output_content.delta"})

# https://platform.openai.com/docs/api-reference/responses/input-tokens: it takes these and no more.
_COUNT_PATH: Final = "/responses/input_tokens"
_COUNT_TAKES: Final = (
    "conversation",
    "input",
    "instructions",
    "model",
    "parallel_tool_calls",
    "personality",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
)
# Seconds. A count that takes longer than this holds up the call more than it is worth.
_PATIENCE: Final = 10.0

_warned: set[str] = set()


class CompactEndpoint(Endpoint):
    """Compactions of a conversation, which are asked for and answered as responses are."""

    _beside = _COMPACTING

    def project(self, asked: Asked) -> Projection:
        """Project a response or a compaction.

        Hosted tools, and turns that the provider keeps (`previous_response_id`, `conversation`, a `prompt`
        template), are given an allowance of input tokens, and the fees of those tools are projected. The
        provider's own count, where there is one, knows the turns and files that it keeps, but not what
        hosted tools will find.

        Raises:
            ConfigurationError: bad `input` or `max_output_tokens`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body, model, provider = mapping(asked.body), asked.model, asked.rates.provider
        given_cap = whole(body, "max_output_tokens")
        thinking = None if ASKS_TO_THINK.isdisjoint(body) else thinking_tokens(body)
        cap = given_cap
        if cap is None:
            cap = assumed_output_cap(model, asked.learned(model), thinking)
        allowances = {**hidden_input(body, model), **unseen_thoughts(body, model)}
        shown = with_margin(self.input_tokens(body, model)) if asked.counted is None else asked.counted
        if PRO in allowances:
            allowances[PRO] += PRO_READS_AGAIN * shown
        if asked.counted is None:
            hidden, more = input_beyond(
                "responses", body, model, kinds_of(body), allowances, shown, asked.learned
            )
        else:
            hidden, more = None, 0
            if found := {kind: tokens for kind, tokens in allowances.items() if kind not in KEPT}:
                hidden, more = input_beyond("counted responses", body, model, [], found, shown, asked.learned)
        fees = fees_of(body, model, provider, chat=False)
        return projected(
            model,
            asked.rates,
            {
                "input_tokens": shown + more + fees.input_tokens,
                **projected_fees(body, model, provider),
                **fees.units,
            },
            {"output_tokens": cap},
            cap_assumed=given_cap is None,
            output_cap=cap,
            asked_tier=field(body, "service_tier"),
            hidden=hidden,
            fees=fees.units,
            marked=marked_for_cache(body),
            asked_to_think=thinking is not None,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        """Return the best estimate of the input tokens that a request is billed for what it shows.

        What cannot be seen in it (hosted tools, earlier turns kept by the provider) is not counted here.

        Args:
            body: the request (`input`, `instructions`, `tools`, `text`); pydantic objects, SDK sentinels and
                unknown parts are tolerated.
            model: the model's name, which decides the encoding and the price of images.

        Raises:
            ConfigurationError: `input` is neither text nor a list.
        """
        return self._beside + response_tokens(body, model)

    def read(self, answer: object) -> Reported:
        return read_response(answer)

    def texts(self, answer: Any) -> Iterable[Piece]:
        return response_texts(answer)


class ResponsesEndpoint(CompactEndpoint):
    """Responses."""

    streams = True
    counts_input = True
    _beside = 0

    def cap_name(self, provider: str) -> str:
        return "max_output_tokens"

    def accumulator(self, model: str) -> ResponseAccumulator:
        return ResponseAccumulator(model)

    def least_ttl(self, body: Body) -> int:
        return _BACKGROUND_TTL if field(body, "background") is True else 0

    def prepare(self, preparing: Preparing) -> Fetching:
        """Have the provider count the input. Where it cannot, the input is counted here.

        Templates (`prompt`) cannot be counted there.
        """
        body = preparing.body
        model = field(body, "model") or ""
        if field(body, "prompt") is not None:
            return Prepared(model, body)
        asked = {name: body[name] for name in _COUNT_TAKES if name in body and not is_absent(body[name])}
        try:
            answer = yield preparing.fetch.post(_COUNT_PATH, asked, timeout=_PATIENCE, max_retries=0)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, there is a count of our own
            _warn(type(error).__name__)
            return Prepared(model, body)
        counted = field(answer, "input_tokens")
        if not isinstance(counted, int) or isinstance(counted, bool) or counted < 0:
            _warn("an answer without input_tokens")
            return Prepared(model, body)
        return Prepared(model, body, counted=counted)


def _warn(what: str) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning(
            "budgetguard: the provider did not count the input of a response (%s), so it was counted here; "
            'count="local" saves the request',
            what,
        )


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
    return replace(said, usage=with_tool_fees(said.usage, answer), unsaid=unsaid)


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_response(answer),)


def response_texts(answer: Any) -> Iterator[Piece]:
    """Yield the text of a whole response, each piece with its slot."""
    for number, item in enumerate(items(field(answer, "output"))):
        if field(item, "role") not in (None, "assistant"):
            continue  # a compaction keeps what was asked
        for name in ("name", "arguments", "input", "code"):
            yield (number, name), field(item, name)
        for name in ("content", "summary"):
            for part in items(field(item, name)):
                yield (number, name), field(part, "text")
                yield (number, name), field(part, "refusal")


class ResponseAccumulator(TextAccumulator):
    """What the events of a streamed response have said so far.

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
        return self._final is not None or super().told

    @property
    def nears_end(self) -> bool:
        """Whether the end may be near enough to wait for it, once nobody reads any more.

        A text that is written to its end is mostly the end of it all.
        """
        return self.ended or self._text_ended

    def feed(self, chunk: object) -> None:
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


RESPONSES: Final = ResponsesEndpoint("responses", "/responses")
COMPACT: Final = CompactEndpoint("compact", "/responses/compact")
POLLED: Final = (
    Polled("GET", "/responses/{}", _read_one, ResponseAccumulator),
    Polled("POST", "/responses/{}/cancel", _read_one),
)
