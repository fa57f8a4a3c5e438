"""Responses: `/responses` and `/responses/compact`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.providers.answers import Piece, reported
from budgetguard.providers.base import Asked, Body, Endpoint, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.fees import fees_of, marked_for_cache
from budgetguard.providers.hidden_input import input_beyond, kinds_of
from budgetguard.providers.json import field, is_absent, items, mapping, parsed, text, whole
from budgetguard.providers.openai.chat import Counter
from budgetguard.providers.openai.hosted_tools import KEPT, hidden_input, projected_fees, with_tool_fees
from budgetguard.providers.openai.media import file_tokens
from budgetguard.providers.openai.tool_text import namespace
from budgetguard.providers.templated import response_tokens
from budgetguard.providers.thinking import ASKS_TO_THINK, thinking_tokens
from budgetguard.tokens.models import is_counted_exactly

# Input tokens; fitted to 190 real requests.
_PER_ITEM: Final = 3
_CALL: Final = 14
_OUTPUT: Final = 4
_TOOLS: Final = 3
_TOOLS_GPT5: Final = 8
_FORCED_TOOL: Final = 6
_ADDED_TOOLS: Final = 90
_SCHEMA: Final = 11
# Earlier reasoning and compacted turns come as base64 of ciphertext: 900 characters are the envelope, and
# the rest is about five characters a token.
_ENVELOPE: Final = 900
_CIPHER_PER_TOKEN: Final = 5
# An item named by its id alone: a message of ordinary length.
_UNSEEN_ITEM: Final = 1_000

_MESSAGES: Final = frozenset({None, "message"})
_ENCRYPTED: Final = frozenset({"reasoning", "compaction", "compaction_summary"})
# Items that say where others are, or are not shown to the model.
_NOT_SHOWN: Final = frozenset({"compaction_trigger", "mcp_approval_request", "mcp_approval_response"})
# Keys of an item that the model is not shown.
_UNREAD: Final = frozenset(
    {"id", "call_id", "type", "status", "caller", "created_by", "container_id", "agent"}
)
_TEXT_FILES: Final = ("data:text/", "data:application/json", "data:application/xml")

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
        allowances = hidden_input(body, model)
        if asked.counted is None:
            shown = with_margin(self.input_tokens(body, model))
            hidden, more = input_beyond(
                "responses", body, model, kinds_of(body), allowances, shown, asked.learned
            )
        else:
            shown, hidden, more = asked.counted, None, 0
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
        if not is_counted_exactly(model):
            return response_tokens(body, model)
        asked = field(body, "input")
        if asked is not None and not isinstance(asked, str | list | tuple):
            raise ConfigurationError(f"input must be a text or a list of items, not {type(asked).__name__}")
        counter = Counter.of(model)
        total = counter.end
        if instructions := field(body, "instructions"):
            total += counter.message({"role": "system", "content": instructions})
        items_asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked or ()
        for item in _since_compaction([mapping(item) for item in items_asked]):
            total += _item_tokens(item, counter)
        total += _tool_tokens(items(field(body, "tools")), counter)
        total += _forced_tokens(field(body, "tool_choice"), counter)
        return total + _format_tokens(field(field(body, "text"), "format"), counter)

    def read(self, answer: object) -> Reported:
        return read_response(answer)

    def texts(self, answer: Any) -> Iterable[Piece]:
        return response_texts(answer)


class ResponsesEndpoint(CompactEndpoint):
    """Responses."""

    streams = True
    counts_input = True

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


def _since_compaction(asked: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    # What came before the newest compaction is in it, and is not billed again.
    for at in range(len(asked) - 1, -1, -1):
        if field(asked[at], "type") == "compaction":
            return asked[at:]
    return asked


def _item_tokens(item: Mapping[str, Any], counter: Counter) -> int:
    kind = field(item, "type")
    if kind in _MESSAGES:
        return _message_tokens(item, counter)
    if kind in _ENCRYPTED:
        return _cipher_tokens(field(item, "encrypted_content")) or counter.text(_read_parts(item))
    if kind in _NOT_SHOWN:
        return 0
    if kind == "item_reference":
        return _UNSEEN_ITEM
    if kind in ("function_call", "custom_tool_call"):
        said = field(item, "arguments") or field(item, "input")
        return _CALL + counter.text(field(item, "name")) + counter.text(said)
    if kind in ("function_call_output", "custom_tool_call_output", "computer_call_output"):
        return _OUTPUT + _content_tokens(field(item, "output"), counter)
    if field(item, "tools") is not None:
        # Tools that come later, as items: found by a search, or added by the program.
        return _PER_ITEM + _ADDED_TOOLS + _tool_tokens(items(field(item, "tools")), counter)
    # Calls of hosted tools, and items of the future: the text of what the model may be shown.
    return _PER_ITEM + counter.text(_read_parts(item))


def _read_parts(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in item.items()
        if name not in _UNREAD and not name.startswith("encrypted") and field(item, name)
    }


def _message_tokens(message: Mapping[str, Any], counter: Counter) -> int:
    total = _PER_ITEM + counter.text(field(message, "role"))
    return total + _content_tokens(field(message, "content"), counter)


def _content_tokens(content: Any, counter: Counter) -> int:
    parts = content if isinstance(content, list | tuple) else [content]
    total = 0
    for part in parts:
        plain = part if isinstance(part, str) or part is None else mapping(part)
        if isinstance(plain, Mapping) and field(plain, "type") == "input_file":
            total += _file_tokens(plain, counter)
        elif isinstance(plain, Mapping) and field(plain, "type") == "computer_screenshot":
            total += counter.part({**plain, "type": "input_image"})
        else:
            total += counter.content(plain)
    return total


def _file_tokens(part: Mapping[str, Any], counter: Counter) -> int:
    data = field(part, "file_data")
    if isinstance(data, str) and data.startswith(_TEXT_FILES):
        try:
            text = base64.b64decode(data.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            return file_tokens(part, counter.model)
        return counter.text(text.decode("utf-8", "replace")) + counter.text(field(part, "filename"))
    return file_tokens(part, counter.model)


def _cipher_tokens(cipher: Any) -> int:
    if not isinstance(cipher, str | bytes):
        return 0
    return max(0, len(cipher) - _ENVELOPE) // _CIPHER_PER_TOKEN


def _tool_tokens(tools: Iterable[Any], counter: Counter) -> int:
    functions: list[Mapping[str, Any]] = []
    total = 0
    waiting = [mapping(tool) for tool in tools]
    while waiting:
        tool = waiting.pop(0)
        match field(tool, "type"):
            case "function":
                # Chat's form, with the function one level down, is tolerated.
                functions.append(mapping(field(tool, "function") or tool))
            case "namespace":
                total += counter.text(field(tool, "name")) + counter.text(field(tool, "description"))
                waiting += [mapping(inner) for inner in items(field(tool, "tools"))]
            case "custom":
                total += _TOOLS_GPT5 + counter.text({k: v for k, v in tool.items() if k != "type"})
    if functions:
        total += counter.text(namespace(functions, heads=True))
        total += _TOOLS_GPT5 if counter.model.startswith("gpt-5") else _TOOLS
    return total


def _forced_tokens(choice: Any, counter: Counter) -> int:
    if counter.model.startswith("gpt-5"):
        return 0
    if choice == "required":
        return _FORCED_TOOL
    if not isinstance(choice, Mapping):
        return 0
    return _FORCED_TOOL + counter.text(field(choice, "name"))


def _format_tokens(answer_format: Any, counter: Counter) -> int:
    described = mapping(answer_format)
    return 0 if described.get("schema") is None else _SCHEMA + counter.schema(described)


RESPONSES: Final = ResponsesEndpoint("responses", "/responses")
COMPACT: Final = CompactEndpoint("compact", "/responses/compact")
POLLED: Final = (
    Polled("GET", "/responses/{}", _read_one, ResponseAccumulator),
    Polled("POST", "/responses/{}/cancel", _read_one),
)
