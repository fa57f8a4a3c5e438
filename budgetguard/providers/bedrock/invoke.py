"""Bedrock's InvokeModel, whole and as a stream: a body that each model family writes in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.errors import UnknownModelError
from budgetguard.providers.answer_shapes import read_answer, recognised
from budgetguard.providers.answers import Piece
from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.bedrock.converse import (
    CONVERSE_ENDPOINT,
    asked_tier,
    claude_name,
    fees_of,
    is_claude,
)
from budgetguard.providers.body import TextAccumulator, UsageAccumulator
from budgetguard.providers.hidden_input import input_beyond
from budgetguard.providers.json import count, field, items, mapping, text, whole
from budgetguard.providers.openai.chat import CHAT
from budgetguard.tokens.text import count_text, encoding_for

# The fields that have a prompt, the caps on what is written, and the texts of answers, of all makers:
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
_PROMPTS: Final = ("prompt", "inputText", "message", "texts", "inputs", "chat_history", "documents", "query")
_CAPS: Final = ("max_tokens", "max_gen_len", "maxTokens", "max_new_tokens", "max_tokens_to_sample")
_ANSWERS: Final = ("generation", "completion", "outputText", "text", "outputs", "results", "generations")
# Where a body says how much may be written beside its own fields.
_CONFIGS: Final = ("inferenceConfig", "textGenerationConfig", "generationConfig")
_CONFIGURED: Final = ("maxTokens", "max_new_tokens", "maxTokenCount")
# What an embedding model is asked by; it writes no tokens.
_EMBEDS: Final = ("embed",)
# The counters of an answer's head, and of the last piece of a stream.
HEAD_INPUT: Final = "x-amzn-bedrock-input-token-count"
HEAD_OUTPUT: Final = "x-amzn-bedrock-output-token-count"
METRICS: Final = "amazon-bedrock-invocationMetrics"


class InvokeEndpoint(Endpoint):
    """InvokeModel."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a call by the way in which its model's family writes requests.

        Raises:
            ConfigurationError: a bad body.
            UnknownModelError: the call would use what has no price.
        """
        body, model = mapping(asked.body), asked.model
        fees, tier = fees_of(body, model), asked_tier(body, model, asked.rates)
        if is_claude(model) and "messages" in body:
            if fees or tier:
                raise UnknownModelError(
                    f"no price is known for {', '.join([*fees, *filter(None, [tier])])} beside InvokeModel "
                    f"of {model!r}, so the call was not made. Use Converse",
                    model=model,
                )
            return replace(MESSAGES.project(replace(asked, model=claude_name(model))), model=model)
        if _is_converse(body):
            return CONVERSE_ENDPOINT.project(replace(asked, body=_as_converse(body)))
        cap, assumed = _cap(body, model, asked)
        shown = with_margin(self.input_tokens(body, model)) if asked.counted is None else asked.counted
        hidden, more = input_beyond("invoke", body, model, [], {}, shown, asked.learned)
        return projected(
            model,
            asked.rates,
            {"input_tokens": shown + more, **fees},
            {"output_tokens": cap},
            cap_assumed=assumed,
            output_cap=cap,
            asked_tier=tier,
            hidden=hidden,
            fees=fees,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        if is_claude(model) and "messages" in body:
            return MESSAGES.input_tokens(body, claude_name(model))
        if _is_converse(body):
            return CONVERSE_ENDPOINT.input_tokens(body, model)
        if items(body.get("messages")):
            return CHAT.input_tokens(body, model)
        encoding = encoding_for(model)
        return sum(count_text(said, encoding) for name in _PROMPTS for said in _strings(body.get(name)))

    def read(self, answer: object) -> Reported:
        head = mapping(field(answer, "head"))
        said = read_answer(field(answer, "body"))
        if said.usage is not None and not said.unsaid:
            return said
        counted = _counted(count(head.get(HEAD_INPUT)), count(head.get(HEAD_OUTPUT)))
        return said if counted is None else replace(said, usage=counted, unsaid=frozenset())

    def texts(self, answer: Any) -> Iterable[Piece]:
        body = field(answer, "body")
        shape, inner = recognised(body)
        if shape is not None:
            yield from shape.texts(inner)
            return
        for name in _ANSWERS:
            for said in _strings(field(body, name)):
                yield name, said

    def accumulator(self, model: str) -> UsageAccumulator:
        return InvokeAccumulator(model)


class InvokeAccumulator(TextAccumulator):
    """What the pieces of a streamed InvokeModel have said so far, whichever family wrote them.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._claude = MESSAGES.accumulator(model) if is_claude(model) else None
        self._last = False

    @property
    def reported(self) -> Reported | None:
        told = None if self._claude is None else self._claude.reported
        return super().reported if told is None else told

    @property
    def ended(self) -> bool:
        return self._last

    @property
    def told(self) -> bool:
        if self._claude is not None and self._claude.reported is not None:
            return self._claude.told
        return self._last

    def seen_tokens(self) -> int:
        return super().seen_tokens() if self._claude is None else self._claude.seen_tokens()

    def seen_beyond(self, tokens: int) -> int | None:
        return super().seen_beyond(tokens) if self._claude is None else self._claude.seen_beyond(tokens)

    def feed(self, chunk: object) -> None:
        metrics = field(chunk, METRICS)
        if self._claude is not None:
            self._claude.feed(chunk)
        elif metrics is None:
            shape, inner = recognised(chunk)
            if shape is not None:
                said = shape.read(inner)
                if said.usage is not None:
                    self._merge(said)
                for slot, piece in shape.texts(inner):
                    self._keep(slot, piece)
            else:
                for name in _ANSWERS:
                    for piece in _strings(field(chunk, name)):
                        self._keep(name, piece)
        if metrics is not None:
            self._last = True
            counted = _counted(
                count(field(metrics, "inputTokenCount")), count(field(metrics, "outputTokenCount"))
            )
            if counted is not None:
                self._merge(Reported(counted))


def _is_converse(body: Mapping[str, Any]) -> bool:
    """Whether a body is written as Amazon's Nova models take it, which is Converse's way."""
    return "inferenceConfig" in body or "schemaVersion" in body


def _as_converse(body: Mapping[str, Any]) -> Mapping[str, Any]:
    config = dict(mapping(body.get("inferenceConfig")))
    if "max_new_tokens" in config:
        config["maxTokens"] = config.pop("max_new_tokens")
    return {**body, "inferenceConfig": config}


def _cap(body: Mapping[str, Any], model: str, asked: Asked) -> tuple[int, bool]:
    """Return the cap on what is written, and whether it is assumed."""
    if any(part in model for part in _EMBEDS):
        return 0, False
    for name in _CAPS:
        if (cap := whole(body, name)) is not None:
            return cap, False
    for holder in _CONFIGS:
        config = mapping(body.get(holder))
        for name in _CONFIGURED:
            if (cap := whole(config, name)) is not None:
                return cap, False
    return assumed_output_cap(model, asked.learned(model)), True


def _counted(read: int | None, written: int | None) -> Usage | None:
    if read is None:
        return None
    return Usage.of(input_tokens=read, output_tokens=written or 0)


def _strings(value: object) -> Iterable[str]:
    """Yield all text in a value."""
    if (said := text(value)) is not None:
        yield said
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)


INVOKE: Final = InvokeEndpoint("invoke", "/invoke")
INVOKE_STREAM: Final = InvokeEndpoint("invoke", "/invoke-with-response-stream")
