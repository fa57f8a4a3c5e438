"""Chat completions: `/chat/completions`, of OpenAI and of all whose API has its shape; and counted messages.

The formulas are the documented ones, corrected by what 1 680 real requests were billed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import HiddenInput
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.providers.answers import Piece, reported
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.fees import BILLING_BY_MODEL, Fees, fees_of, marked_for_cache
from budgetguard.providers.hidden_input import input_beyond, kinds_of
from budgetguard.providers.json import field, getter, items, mapping, whole
from budgetguard.providers.openai.counter import Counter
from budgetguard.providers.openai.media import audio_tokens
from budgetguard.providers.openai.tool_text import UNBILLED, has_titles, namespace
from budgetguard.providers.templated import chat_tokens
from budgetguard.providers.thinking import ASKS_TO_THINK, thinking_tokens
from budgetguard.tokens.models import is_counted_exactly

_TOOLS: Final = 9
_TOOLS_WITH_SYSTEM: Final = 5
_TOOLS_GPT5: Final = 80
_FORCED_TOOL: Final = 6
# Where tools must be called one by one, and may be called or not.
_ONE_BY_ONE: Final = 33
# A schema for the answer, with titles and without.
_SCHEMA: Final = 19
_SCHEMA_UNTITLED: Final = 8

# What a message says, beside calls of tools.
_KINDS: Final = ("content", "refusal", "reasoning_content", "reasoning")
_PLAIN: Final = frozenset({"role", *_KINDS})

# Fields of requests and messages that bring nothing but text, and nothing that is billed beside it.
_PLAIN_REQUEST: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "n",
        "presence_penalty",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "user",
    }
)
_PLAIN_MESSAGE: Final = frozenset({"content", "name", "role"})


class ChoicesEndpoint(Endpoint):
    """An endpoint that answers in choices, whole or chunk by chunk."""

    streams = True

    def asks_usage(self, body: Body) -> Mapping[str, object]:
        options = field(body, "stream_options")
        options = dict(options) if isinstance(options, Mapping) else {}
        if options.get("include_usage") is True:
            return {}
        return {"stream_options": {**options, "include_usage": True}}

    def texts(self, answer: Any) -> Iterable[Piece]:
        return chat_texts(answer)

    def accumulator(self, model: str) -> ChatAccumulator:
        return ChatAccumulator(model)


class ChatEndpoint(ChoicesEndpoint):
    """Chat completions."""

    def project(self, asked: Asked) -> Projection:
        """Project a chat completion.

        Input is priced as if none of it were cached, at the price of writing it into the cache if that is
        dearer. A service tier that the request asks for is priced at the dearer of itself and the standard
        one, because a tier that cannot be had is served and billed at the standard one.

        Raises:
            ConfigurationError: bad `messages`, `n`, `max_tokens` or `max_completion_tokens`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body, model, provider = mapping(asked.body), asked.model, asked.rates.provider
        # Nearly every request has none of these: to look first is quicker than to ask.
        choices = (whole(body, "n", least=1) or 1) if "n" in body else 1
        newer = whole(body, "max_completion_tokens") if "max_completion_tokens" in body else None
        older = whole(body, "max_tokens") if "max_tokens" in body else None
        given_cap = older if newer is None else newer
        thinking = None if ASKS_TO_THINK.isdisjoint(body) else thinking_tokens(body)
        cap = given_cap
        if cap is None:
            cap = assumed_output_cap(model, asked.learned(model), thinking)
        tokens = with_margin(_input_tokens(body, model, provider))
        plain = _is_plain(body)
        kinds = [] if plain else kinds_of(body)
        hidden: HiddenInput | None = None
        # Plain text of OpenAI's models is counted as it is billed, so there is nothing to learn.
        if kinds or not is_counted_exactly(model):
            hidden, more = input_beyond("chat", body, model, kinds, {}, tokens, asked.learned)
            tokens += more
        # Predicted tokens that the model rejects are billed as output on top of the answer.
        prediction = body.get("prediction")
        rejected = 0 if prediction is None else _predicted_tokens(prediction, model)
        output = (cap + rejected) * choices
        without_fees = plain and provider not in BILLING_BY_MODEL
        fees = Fees() if without_fees else fees_of(body, model, provider, chat=True)
        input_units = {"input_tokens": tokens + fees.input_tokens, **fees.units}
        if "audio" in kinds and (heard := _heard_tokens(body)):
            input_units["input_audio_tokens"] = min(tokens, with_margin(heard))
        output_units = {**fees.output, "output_tokens": output + fees.output.get("output_tokens", 0)}
        if "audio" in (body.get("modalities") or ()):
            output_units["output_audio_tokens"] = output
        return projected(
            model,
            asked.rates,
            input_units,
            output_units,
            cap_assumed=given_cap is None,
            output_cap=cap,
            choices=choices,
            asked_tier=body.get("service_tier"),
            hidden=hidden,
            fees=fees.units,
            marked=None if plain else marked_for_cache(body),
            asked_to_think=thinking is not None,
        )

    def input_tokens(self, body: Body, model: str, provider: str = "openai") -> int:
        """Return the best estimate of the prompt tokens that a request is billed.

        Args:
            body: the request; pydantic objects, SDK sentinels and unknown parts are tolerated.
            model: the model's name, which decides the encoding and the price of images.
            provider: genai-prices' provider id.

        Raises:
            ConfigurationError: `messages` is missing, empty or not a list.
        """
        return _input_tokens(mapping(body), model, provider)

    def cap_name(self, provider: str) -> str:
        # OpenAI's reasoning models refuse `max_tokens`; many other servers know nothing else.
        return "max_completion_tokens" if provider in ("openai", "azure") else "max_tokens"


class ChatAccumulator(TextAccumulator):
    """What the chunks of a streamed chat completion, or legacy completion, have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._names: tuple[object, ...] = ()

    def feed(self, chunk: object) -> None:
        get = getter(chunk)
        choices = get("choices")
        for choice in choices if type(choices) is list else items(choices):
            of = getter(choice)
            index, said = of("index"), of("delta")
            if type(said) is dict and said.keys() <= _PLAIN:  # as nearly all are
                for kind in said:
                    if kind != "role":
                        self._keep((index, kind), said[kind])
                if (text := of("text")) is not None:
                    self._keep((index, "text"), text)
            else:
                # A whole answer, as one piece, has a message.
                for slot, text in _texts_of_choice(choice, "message" if said is None else "delta"):
                    self._keep(slot, text)
            index = index if isinstance(index, int) else 0
            self._begun.add(index)
            if of("finish_reason") is not None:
                self._finished.add(index)
        self.failed = self.failed or get("error") is not None
        # What it says of who answers is the same with nearly every chunk.
        names = get("model"), get("service_tier"), get("id")
        if names != self._names or get("usage") is not None or get("x_groq") is not None:
            self._names = names
            self._merge(reported(chunk))


def chat_texts(answer: Any) -> list[Piece]:
    """Return the texts of a whole chat completion, or legacy completion, each with its slot."""
    found: list[Piece] = []
    for choice in items(field(answer, "choices")):
        found += _texts_of_choice(choice, "message")
    return found


def _texts_of_choice(choice: object, name: str) -> list[Piece]:
    get = getter(choice)
    index, said = get("index"), get(name)
    found: list[Piece] = [((index, "text"), get("text"))]
    if said is None:
        return found
    get = getter(said)
    for kind in _KINDS:
        found.append(((index, kind), get(kind)))
    if (audio := get("audio")) is not None:
        found.append(((index, "audio"), field(audio, "transcript")))
    calls = get("tool_calls")
    calls = [] if calls is None else list(items(calls))
    if (older := get("function_call")) is not None:
        calls.append({"index": "function_call", "function": older})
    for call in calls:
        for kind in ("function", "custom"):
            function = getter(field(call, kind))
            for part in ("name", "arguments", "input"):
                found.append(((index, "call", field(call, "index"), part), function(part)))
    return found


def _input_tokens(body: Body, model: str, provider: str) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list | tuple):
        raise ConfigurationError(f"messages must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise ConfigurationError("messages must not be empty: a chat completion needs at least one message")
    if not is_counted_exactly(model):
        return chat_tokens(body, model)
    counter = Counter.of(model)
    total = counter.end
    for message in messages:
        total += counter.message(mapping(message))
    if body.get("tools") or body.get("functions"):
        total += _tool_tokens(body, counter, provider)
    if (answer_format := body.get("response_format")) is not None:
        total += _schema_tokens(answer_format, counter)
    return total


def _is_plain(body: Body) -> bool:
    """Whether a request has text alone: no parts, tools or marks that would have to be looked for."""
    if not body.keys() <= _PLAIN_REQUEST:
        return False
    for message in body["messages"]:
        if type(message) is not dict or not message.keys() <= _PLAIN_MESSAGE:
            return False
        if type(message.get("content")) is not str:
            return False
    return True


def _predicted_tokens(prediction: object, model: str) -> int:
    """Return the tokens of the answer that a request predicts; the rejected ones are billed as output."""
    return Counter.of(model).content(mapping(prediction).get("content"))


def _heard_tokens(body: Body) -> int:
    """Return the part of a request's input tokens that is audio."""
    contents = (field(mapping(message), "content") for message in field(body, "messages"))
    parts = (mapping(part) for content in contents for part in items(content))
    return sum(audio_tokens(part) for part in parts if field(part, "type") == "input_audio")


def _tool_tokens(body: Body, counter: Counter, provider: str) -> int:
    functions = [mapping(function) for function in items(body.get("functions"))]
    total = 0
    for tool in map(mapping, items(body.get("tools"))):
        if (function := tool.get("function")) is not None:
            functions.append(mapping(function))
        else:
            # Custom tools (a grammar, say) and those of the future: the text of their definition.
            total += counter.text(dict(tool))
    if not functions and not total:
        return 0
    total += counter.text(namespace(functions))
    if counter.is_gpt5:
        # OpenRouter asks for responses, which bill no such prompt.
        return total + _TOOLS + (0 if provider == "openrouter" else _TOOLS_GPT5)
    has_system = any(field(message, "role") in ("system", "developer") for message in body["messages"])
    total += _TOOLS_WITH_SYSTEM if has_system else _TOOLS
    forced = body.get("tool_choice") or body.get("function_call")
    if body.get("parallel_tool_calls") is False and forced in (None, "auto"):
        total += _ONE_BY_ONE
    if isinstance(forced, Mapping):
        chosen = mapping(field(forced, "function") or forced)
        total += _FORCED_TOOL + counter.text(chosen.get("name"))
    return total


def _schema_tokens(asked: Any, counter: Counter) -> int:
    if isinstance(asked, type) and hasattr(asked, "model_json_schema"):
        # A pydantic class, as the SDK's `parse` takes it and turns it into a schema.
        described: Mapping[str, Any] = {"name": asked.__name__, "schema": asked.model_json_schema()}
    else:
        described = mapping(field(mapping(asked), "json_schema"))
    if not described:
        return 0
    schema = described.get("schema") or {}
    beside = _SCHEMA if has_titles(schema) else _SCHEMA_UNTITLED
    return beside + counter.schema(described, leave_out=UNBILLED)


CHAT: Final = ChatEndpoint("chat", "/chat/completions")
