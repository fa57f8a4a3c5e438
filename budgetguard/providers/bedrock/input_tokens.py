"""Count the input tokens of Bedrock's Converse requests, whoever made the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.hidden_input import ShownInput
from budgetguard.providers.json import compact_json, field, items, mapping
from budgetguard.providers.templated import Templated
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_size, image_tokens
from budgetguard.tokens.office import read_office

# A page is its text and a picture of it; a document is introduced with 50 to 120 tokens.
_PAGE: Final = 1_600
_DOCUMENT: Final = 100
# A search result, which may be cited from.
_CITED: Final = 450
_BYTES_PER_PDF_TOKEN: Final = 2
_BYTES_PER_TOKEN: Final = 3
# Nova reads one frame a second, of 288 tokens; compressed video is hardly ever under 200 kbit/s.
_VIDEO_A_SECOND: Final = 288
_LEAST_VIDEO_BYTE_RATE: Final = 25_000
_SYSTEM_TOOL: Final = 8_000


def converse_input(body: Mapping[str, Any], model: str) -> ShownInput:
    """Count what a request to `converse` or `converse_stream` shows.

    Args:
        body: the request: `messages`, `system`, `toolConfig`, `outputConfig` and so on. Bytes may be bytes or
            base64.
        model: the model's id, or that of an inference profile.

    Raises:
        ConfigurationError: `messages` is missing, empty or not a list.
    """
    messages = body.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigurationError("messages must be a list of messages, and not empty")
    counter = _ConverseCounter(Templated.of(model), ShownInput())
    found = counter.found
    system = [mapping(block) for block in items(body.get("system"))]
    found.tokens = counter.templated.around(len(messages) + bool(system), prompted=bool(system))
    for block in system:
        found.tokens += counter.block(block)
    plain = [mapping(message) for message in messages]
    if plain[0].get("role") == "assistant":
        found.tokens += counter.templated.template.begun
    last_asked = max((at for at, message in enumerate(plain) if _asks(message)), default=-1)
    for at, message in enumerate(plain):
        counter.in_loop = at > last_asked
        for block in items(message.get("content")):
            found.tokens += counter.block(mapping(block))
    config = mapping(body.get("toolConfig") or {})
    functions: list[Mapping[str, Any]] = []
    for tool in map(mapping, items(config.get("tools"))):
        if (spec := tool.get("toolSpec")) is not None:
            functions.append(mapping(spec))
        elif (system_tool := tool.get("systemTool")) is not None:
            found.allowances[str(field(mapping(system_tool), "name") or "system_tool")] = _SYSTEM_TOOL
    if functions:
        found.kinds.add("tools")
        choice = next(iter(mapping(config.get("toolChoice") or {})), "auto")
        found.tokens += counter.templated.tools(functions, {"type": choice})
    _add_format(mapping(body.get("outputConfig") or {}), counter)
    more = mapping(body.get("additionalModelRequestFields") or {})
    thinking = mapping(more.get("thinking") or more.get("reasoning_config") or {})
    if thinking.get("type") == "enabled":
        found.tokens += counter.templated.template.thinking
    if body.get("promptVariables"):
        found.allowances["prompt"] = 12_000
    return found


def _asks(message: Mapping[str, Any]) -> bool:
    """Whether a message is of the user, and brings more than results of tools."""
    blocks = [mapping(block) for block in items(message.get("content"))]
    return message.get("role") == "user" and any("toolResult" not in block for block in blocks)


def _add_format(config: Mapping[str, Any], counter: _ConverseCounter) -> None:
    structure = mapping(mapping(config.get("textFormat") or {}).get("structure") or {})
    if (schema := mapping(structure.get("jsonSchema") or {}).get("schema")) is not None:
        counter.found.kinds.add("schema")
        counter.found.tokens += counter.templated.answer_schema(schema)


@dataclass(slots=True)
class _ConverseCounter:
    templated: Templated
    found: ShownInput
    in_loop: bool = False

    def block(self, block: Mapping[str, Any]) -> int:
        total = 0
        for name, value in block.items():
            match name:
                case "text":
                    total += self.templated.text(value)
                case "toolUse":
                    call = mapping(value)
                    total += self.templated.call(call.get("name"), mapping(call.get("input") or {}))
                case "toolResult":
                    total += self.templated.template.result
                    total += sum(self.result(mapping(one)) for one in items(mapping(value).get("content")))
                case "guardContent":
                    total += self.templated.text(field(field(mapping(value), "text"), "text"))
                case "reasoningContent":
                    if self.in_loop or self.templated.template.keeps_thoughts:
                        total += self.templated.text(field(field(mapping(value), "reasoningText"), "text"))
                case "image" | "document" | "video":
                    total += self.file(name, mapping(value))
                case "searchResult":
                    found = mapping(value)
                    total += _CITED + self.templated.text(found.get("title"))
                    total += sum(self.block(mapping(one)) for one in items(found.get("content")))
                case "cachePoint":
                    pass
                case _:
                    total += self.templated.text(compact_json(value))
        return total

    def result(self, block: Mapping[str, Any]) -> int:
        if (found := block.get("json")) is not None:
            return self.templated.text(compact_json(found))
        return self.block(block)

    def file(self, kind: str, file: Mapping[str, Any]) -> int:
        self.found.kinds.add({"image": "images", "document": "documents"}.get(kind, kind))
        source = mapping(file.get("source") or {})
        data = source.get("bytes")
        raw = _raw(data)
        if kind == "image":
            return image_tokens(None, None, self.templated.model, image_size(raw[: 1 << 18]))
        if kind == "video":
            if not raw:
                self.found.unseen += 1
            return _VIDEO_A_SECOND * (1 + len(raw) // _LEAST_VIDEO_BYTE_RATE)
        if (inner := source.get("content")) is not None:
            return _DOCUMENT + sum(self.block(mapping(one)) for one in items(inner))
        if (text := source.get("text")) is not None:
            return _DOCUMENT + self.templated.text(text)
        if not raw:
            self.found.unseen += 1
            return _DOCUMENT
        return _DOCUMENT + self.document(raw)

    def document(self, raw: bytes) -> int:
        read = read_pdf(raw) if len(raw) <= MAX_BYTES else None
        if read is not None:
            return read.pages * _PAGE + -(-read.text // _BYTES_PER_PDF_TOKEN)
        if (text := read_office(raw)) is not None:
            return self.templated.text(text)
        try:
            return self.templated.text(raw.decode())
        except UnicodeDecodeError:
            return len(raw) // _BYTES_PER_TOKEN + 1


def _raw(data: Any) -> bytes:
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if not isinstance(data, str):
        return b""
    import base64
    import binascii

    try:
        return base64.b64decode(data)
    except (binascii.Error, ValueError):
        return data.encode()
