"""Bedrock's Converse, whole and as a stream: `/model/{}/converse`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answers import Piece
from budgetguard.providers.anthropic.input_tokens import claude_input
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.bedrock.answers import CONVERSE
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.hidden_input import UNSEEN, UNSEEN_FILE, input_beyond, kinds_of
from budgetguard.providers.json import field, items, mapping, text, whole
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.thinking import thinking_tokens

# Media that Converse takes by their content, by the name of the block.
_MEDIA: Final = ("image", "document", "video", "audio")
# https://docs.aws.amazon.com/nova/latest/userguide/modalities-video.html: 288 tokens a second at one frame a
# second and low resolution; a length is in no request, so a clip of a minute is taken for each.
_VIDEO: Final = 18_000
_PRIORITY: Final = "priority"


class ConverseEndpoint(Endpoint):
    """Converse."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a Converse call of any model family.

        Input is priced as written into the cache where a `cachePoint` asks for that.

        Raises:
            ConfigurationError: bad `messages` or `maxTokens`.
            UnknownModelError: the call would use what has no price: a guardrail, optimized latency.
        """
        body, model = mapping(asked.body), asked.model
        if asked.counted is None:
            shown, kinds, unseen = _shown(body, model)
            shown = with_margin(shown)
        else:
            shown, kinds, unseen = asked.counted, [], 0
        allowances = {UNSEEN: unseen * UNSEEN_FILE} if unseen else {}
        hidden, more = input_beyond("converse", body, model, kinds, allowances, shown, asked.learned)
        config = mapping(body.get("inferenceConfig"))
        cap = whole(config, "maxTokens")
        thinking = thinking_tokens(mapping(body.get("additionalModelRequestFields")))
        assumed = cap is None
        if cap is None:
            cap = assumed_output_cap(model, asked.learned(model), thinking)
        fees = fees_of(body, model)
        return projected(
            model,
            asked.rates,
            {"input_tokens": shown + more, **fees},
            {"output_tokens": max(cap, thinking or 0)},
            cap_assumed=assumed,
            output_cap=cap,
            asked_tier=asked_tier(body, model, asked.rates),
            hidden=hidden,
            fees=fees,
            marked=_marked(body),
            asked_to_think=thinking is not None,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return _shown(mapping(body), model)[0]

    def read(self, answer: object) -> Reported:
        return CONVERSE.read(answer) if CONVERSE.knows(answer) else Reported(usage=None)

    def texts(self, answer: Any) -> Iterable[Piece]:
        return CONVERSE.texts(answer)

    def accumulator(self, model: str) -> ConverseAccumulator:
        return ConverseAccumulator(model)


class ConverseAccumulator(TextAccumulator):
    """What the events of a Converse stream have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._stopped = False

    @property
    def ended(self) -> bool:
        return self._stopped

    @property
    def told(self) -> bool:
        # `metadata` is the last event, and has the usage of all of it.
        return self._said.usage is not None

    def feed(self, chunk: object) -> None:
        if not isinstance(chunk, Mapping):
            return
        if "messageStop" in chunk:
            self._stopped = True
        if any(str(name).endswith("Exception") for name in chunk):
            self.failed = True
        if "metadata" in chunk:
            self._merge(CONVERSE.read(chunk))
        for slot, piece in CONVERSE.texts(chunk):
            self._keep(slot, piece)


def is_claude(model: str) -> bool:
    """Whether a model of Bedrock's is Anthropic's."""
    return "anthropic." in model.lower() or model.lower().startswith("claude")


def claude_name(model: str) -> str:
    """Return the name that Anthropic gives to a model, by Bedrock's: without region, maker and revision."""
    return model.lower().rpartition("anthropic.")[2].partition(":")[0].removesuffix("-v1").removesuffix("-v2")


def _shown(body: Body, model: str) -> tuple[int, list[str], int]:
    """Return the tokens that a request shows, what it consists of, and how many files it only names."""
    messages = body.get("messages")
    if messages is None and (prompt := body.get("promptVariables")) is not None:
        # A managed prompt, whose own text is at AWS.
        chat = _as_chat({"messages": [{"role": "user", "content": [{"text": str(prompt)}]}]})
        return CHAT.input_tokens(chat, model), ["text"], 1
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigurationError(
            f"messages must be a list of Converse messages, not {type(messages).__name__}"
        )
    if is_claude(model):
        found = claude_input(_as_messages(body), claude_name(model))
        return found.tokens, sorted(found.kinds), found.unseen
    chat = _as_chat(body)
    unseen = sum(_is_unseen(block) for block in _blocks(body))
    videos = sum("video" in block for block in _blocks(body))
    return CHAT.input_tokens(chat, model) + videos * _VIDEO, kinds_of(chat), unseen


def _blocks(body: Body) -> Iterable[Mapping[str, Any]]:
    for message in items(body.get("messages")):
        for block in map(mapping, items(field(mapping(message), "content"))):
            yield block
            yield from map(mapping, items(field(mapping(block.get("toolResult")), "content")))


def _is_unseen(block: Mapping[str, Any]) -> bool:
    """Whether a block names a file that is somewhere else: in S3."""
    media = next((mapping(block[name]) for name in _MEDIA if name in block), None)
    return media is not None and field(mapping(media.get("source")), "s3Location") is not None


def _as_messages(body: Body) -> dict[str, Any]:
    """Return a request as Anthropic's messages have it."""
    config = mapping(body.get("toolConfig"))
    more = mapping(body.get("additionalModelRequestFields"))
    made: dict[str, Any] = {
        "messages": [
            {
                "role": field(mapping(one), "role"),
                "content": _anthropic_blocks(field(mapping(one), "content")),
            }
            for one in items(body.get("messages"))
        ],
        "tools": [*_tools(config, "input_schema"), *items(more.get("tools"))],
        "tool_choice": _choice(config),
    }
    if (system := _anthropic_blocks(body.get("system"))) != []:
        made["system"] = system
    return {name: value for name, value in made.items() if value}


def _anthropic_blocks(blocks: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in map(mapping, items(blocks)):
        if (said := text(block.get("text"))) is not None:
            found.append({"type": "text", "text": said})
        elif (image := block.get("image")) is not None:
            found.append({"type": "image", "source": _source(image, "image")})
        elif (document := block.get("document")) is not None:
            found.append({"type": "document", "source": _source(document, "application")})
        elif (use := block.get("toolUse")) is not None:
            call = mapping(use)
            found.append(
                {"type": "tool_use", "id": "t", "name": call.get("name"), "input": call.get("input")}
            )
        elif (result := block.get("toolResult")) is not None:
            content = _anthropic_blocks(field(mapping(result), "content"))
            found.append({"type": "tool_result", "tool_use_id": "t", "content": content})
        elif (thought := block.get("reasoningContent")) is not None:
            said = field(mapping(field(mapping(thought), "reasoningText")), "text")
            found.append({"type": "thinking", "thinking": said or "", "signature": ""})
        elif (given := block.get("json")) is not None:
            found.append({"type": "text", "text": str(given)})
        elif (guarded := block.get("guardContent")) is not None:
            found += _anthropic_blocks([mapping(guarded).get("text")])
    return found


def _source(media: object, kind: str) -> dict[str, Any]:
    media = mapping(media)
    source = mapping(media.get("source"))
    content = source.get("bytes")
    if isinstance(content, bytes | bytearray):
        data = base64.b64encode(content).decode()
        return {"type": "base64", "media_type": f"{kind}/{media.get('format')}", "data": data}
    if (said := text(source.get("text"))) is not None:
        return {"type": "text", "media_type": "text/plain", "data": said}
    return {"type": "file", "file_id": "s3"}


def _as_chat(body: Body) -> dict[str, Any]:
    """Return a request as OpenAI's chat completions have it, to be counted."""
    messages: list[dict[str, Any]] = []
    system = [{"type": "text", "text": said} for said in _texts(body.get("system"))]
    if system:
        messages.append({"role": "system", "content": system})
    for message in map(mapping, items(body.get("messages"))):
        messages += _chat_messages(str(message.get("role")), items(message.get("content")))
    config = mapping(body.get("toolConfig"))
    made: dict[str, Any] = {"messages": messages}
    tools = list(_tools(config, "parameters"))
    if tools:
        made["tools"] = [{"type": "function", "function": tool} for tool in tools]
    return made


def _chat_messages(role: str, blocks: Iterable[object]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for block in map(mapping, blocks):
        if (said := text(block.get("text"))) is not None:
            parts.append({"type": "text", "text": said})
        elif (image := block.get("image")) is not None:
            media = mapping(image)
            content = field(mapping(media.get("source")), "bytes")
            if isinstance(content, bytes | bytearray):
                url = f"data:image/{media.get('format')};base64,{base64.b64encode(content).decode()}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
        elif (document := block.get("document")) is not None:
            parts.append(_chat_file(mapping(document)))
        elif (use := block.get("toolUse")) is not None:
            call = mapping(use)
            function = {"name": call.get("name"), "arguments": str(call.get("input"))}
            calls.append({"id": "t", "type": "function", "function": function})
        elif (result := block.get("toolResult")) is not None:
            said = " ".join(_texts(field(mapping(result), "content")))
            results.append({"role": "tool", "tool_call_id": "t", "content": said})
    made: list[dict[str, Any]] = list(results)
    if parts or calls:
        message: dict[str, Any] = {"role": role, "content": parts or None}
        if calls:
            message["tool_calls"] = calls
        made.append(message)
    return made


def _chat_file(document: Mapping[str, Any]) -> dict[str, Any]:
    source = mapping(document.get("source"))
    content = source.get("bytes")
    if isinstance(content, bytes | bytearray):
        data = base64.b64encode(content).decode()
        name = f"document.{document.get('format')}"
        url = f"data:application/{document.get('format')};base64,{data}"
        return {"type": "file", "file": {"filename": name, "file_data": url}}
    return {"type": "text", "text": text(source.get("text")) or ""}


def _texts(blocks: object) -> Iterable[str]:
    for block in map(mapping, items(blocks)):
        if (said := text(block.get("text"))) is not None:
            yield said
        elif (given := block.get("json")) is not None:
            yield str(given)


def _tools(config: Mapping[str, Any], schema: str) -> Iterable[dict[str, Any]]:
    for tool in map(mapping, items(config.get("tools"))):
        spec = mapping(tool.get("toolSpec"))
        if spec:
            yield {
                "name": spec.get("name"),
                "description": spec.get("description") or "",
                schema: field(mapping(spec.get("inputSchema")), "json") or {},
            }


def _choice(config: Mapping[str, Any]) -> dict[str, Any] | None:
    choice = mapping(config.get("toolChoice"))
    return {"type": next(iter(choice))} if choice else None


def _marked(body: Body) -> str | None:
    """Return the unit of input that is written into the cache, None if no `cachePoint` asks for that."""
    found: str | None = None
    places = [body.get("system"), field(mapping(body.get("toolConfig")), "tools")]
    places += [field(mapping(one), "content") for one in items(body.get("messages"))]
    for place in places:
        for block in map(mapping, items(place)):
            if (point := block.get("cachePoint")) is not None:
                if field(mapping(point), "ttl") == "1h":
                    return "cache_write_1h_tokens"
                found = "cache_write_tokens"
    return found


def asked_tier(body: Body, model: str, rates: Rates) -> str | None:
    """Return the tier that a request asks for, None for the standard one and for cheaper ones.

    Raises:
        UnknownModelError: it is dearer, and nobody knows its price for this model.
    """
    if field(mapping(body.get("serviceTier")), "type") != _PRIORITY:
        return None
    probe = Usage.of(input_tokens=1_000, output_tokens=1_000)
    if not rates.is_free and rates.with_tier(_PRIORITY).cost(probe) <= rates.cost(probe):
        raise UnknownModelError(
            f"no price is known for the priority tier of {model!r}, so the call was not made. Leave "
            f"`serviceTier` out, or set one for the model: register_price({model!r}, input=..., output=...)",
            model=model,
        )
    return _PRIORITY


def fees_of(body: Body, model: str) -> dict[str, int]:
    """Return the units that are billed beside tokens: those that nobody has a price for refuse the call."""
    if field(mapping(body.get("performanceConfig")), "latency") == "optimized":
        raise UnknownModelError(
            f"no price is known for optimized latency of {model!r}, so the call was not made. Leave "
            "`performanceConfig` out",
            model=model,
        )
    fees: dict[str, int] = {}
    if body.get("guardrailConfig"):
        fees["tool_uses_guardrail"] = 1
    for tool in map(mapping, items(field(mapping(body.get("toolConfig")), "tools"))):
        if (hosted := mapping(tool.get("systemTool"))) != {}:
            fees[f"tool_uses_{str(hosted.get('name')).removeprefix('nova_')}"] = 1
    return fees


CONVERSE_ENDPOINT: Final = ConverseEndpoint("converse", "/converse")
CONVERSE_STREAM: Final = ConverseEndpoint("converse", "/converse-stream")
