"""Count the input tokens of Gemini's requests: `generateContent` and what asks as it does.

Fields are read under both of their names, `systemInstruction` and `system_instruction`. Fitted to 680 recorded
requests of models from 1.5 to 3.6.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.hidden_input import ShownInput
from budgetguard.providers.json import field, items, mapping
from budgetguard.providers.templated import Templated
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_size, image_tokens
from budgetguard.tokens.templates import VERTEX

# https://ai.google.dev/gemini-api/docs/tokens: 32 tokens a second of sound, 263 of video, 258 a page.
_SOUND_A_SECOND: Final = 32
_PAGE: Final = 258
# Pages of Gemini 3 and later: a picture of 560 tokens, unless another resolution is asked for.
_NEWER: Final = re.compile(r"gemini-(?:[3-9]|flash-latest|pro-latest)")
_PAGE_NEWER: Final = 560
# Compressed speech is hardly ever under 16 kbit/s, video hardly ever under 200.
_LEAST_AUDIO_BYTE_RATE: Final = 2_000
_LEAST_VIDEO_BYTE_RATE: Final = 25_000
_VIDEO_A_SECOND: Final = 300
_UNSEEN_MEDIA: Final = {"image": 2_600, "audio": 4_000, "video": 20_000}
_BYTES_PER_TOKEN: Final = 3
# An earlier thought comes as a cipher. Gemini 3 and later bill it in a loop of tool calls, a token for so many
# characters; at Vertex and of older models it is billed sometimes, so that it is allowed for there, and learned.
_CIPHER_PER_TOKEN: Final = 4.6

# Input tokens of what tools find that run at Google: recorded median, most. A search is billed by the query,
# what it finds is not; a page that is read 200, 9 000; code 400, 2 700 over several rounds; a file search 600,
# 1 100.
_HOSTED: Final[Mapping[str, tuple[str, int]]] = {
    "googleSearch": ("web_search", 400),
    "google_search": ("web_search", 400),
    "googleSearchRetrieval": ("web_search", 400),
    "google_search_retrieval": ("web_search", 400),
    "googleMaps": ("maps", 1_500),
    "google_maps": ("maps", 1_500),
    "urlContext": ("url_context", 10_000),
    "url_context": ("url_context", 10_000),
    "codeExecution": ("code_execution", 3_000),
    "code_execution": ("code_execution", 3_000),
    "fileSearch": ("file_search", 3_000),
    "file_search": ("file_search", 3_000),
    "computerUse": ("computer_use", 3_000),
    "computer_use": ("computer_use", 3_000),
}
# A cached content is at least 1 024 tokens.
_CACHED: Final = 20_000


def gemini_input(body: Mapping[str, Any], model: str, *, vertex: bool = False) -> ShownInput:
    """Count what a request to generate content shows.

    Args:
        body: the request: `contents`, `systemInstruction`, `tools`, `toolConfig`, `generationConfig`, all at its
            top, as the API takes them; also `generateContentRequest`, as counting tokens does.
        model: the model's name.
        vertex: it is asked at Vertex AI, which bills less of it than the Developer API.

    Raises:
        ConfigurationError: `contents` is empty, or can be read only once.
    """
    inner = _get(body, "generateContentRequest", "generate_content_request")
    if inner is not None:
        body = mapping(inner)
    contents = body.get("contents")
    if isinstance(contents, Iterator):
        raise ConfigurationError(
            f"contents is a {type(contents).__name__}, which can be read only once, so its cost is unknown; "
            "pass a list"
        )
    templated = Templated.of(model)
    counter = _Counter(replace(templated, template=VERTEX) if vertex else templated, ShownInput(), vertex)
    found = counter.found
    said = [contents] if isinstance(contents, str | Mapping) else list(items(contents))
    system = _get(body, "systemInstruction", "system_instruction")
    messages = len(said) + (system is not None)
    found.tokens = counter.templated.around(messages, prompted=system is not None)
    if system is not None:
        found.tokens += counter.content(system)
    last_asked = max((at for at, content in enumerate(said) if _asks(content)), default=-1)
    for at, content in enumerate(said):
        counter.in_loop = at > last_asked
        found.tokens += counter.content(content)
    _add_tools(body, counter)
    config = mapping(_get(body, "generationConfig", "generation_config") or {})
    schema = _get(config, "responseSchema", "response_schema")
    if schema is not None:
        found.tokens += counter.templated.answer_schema(schema)
    if schema is not None or _get(config, "responseJsonSchema", "response_json_schema") is not None:
        found.kinds.add("schema")
    if _get(body, "cachedContent", "cached_content"):
        found.allowances["cached_content"] = _CACHED
    return found


def _asks(content: Any) -> bool:
    """Whether a content is of the user, and brings more than results of tools."""
    plain = {"parts": [content]} if isinstance(content, str) else mapping(content)
    if plain.get("role") == "model":
        return False
    parts = [mapping(part) for part in items(plain.get("parts")) if not isinstance(part, str)]
    return not parts or any(_get(part, "functionResponse", "function_response") is None for part in parts)


def _add_tools(body: Mapping[str, Any], counter: _Counter) -> None:
    functions: list[Mapping[str, Any]] = []
    tools = body.get("tools")
    for tool in map(mapping, [tools] if isinstance(tools, Mapping) else items(tools)):
        declared = _get(tool, "functionDeclarations", "function_declarations")
        functions += map(mapping, items(declared))
        for name in tool:
            if name in _HOSTED:
                kind, tokens = _HOSTED[name]
                counter.found.allowances[kind] = tokens
            elif name not in ("functionDeclarations", "function_declarations"):
                counter.found.allowances["other_tool"] = 5_000
    if functions:
        config = mapping(_get(body, "toolConfig", "tool_config") or {})
        calling = mapping(_get(config, "functionCallingConfig", "function_calling_config") or {})
        mode = str(calling.get("mode") or "auto").lower()
        counter.found.kinds.add("tools")
        counter.found.tokens += counter.templated.tools(functions, "required" if mode == "any" else "auto")


@dataclass(slots=True)
class _Counter:
    templated: Templated
    found: ShownInput
    vertex: bool
    in_loop: bool = False

    def content(self, content: Any) -> int:
        if isinstance(content, str):
            return self.templated.text(content)
        plain = mapping(content)
        parts = plain.get("parts")
        if parts is None:
            return self.part(plain)
        if isinstance(parts, str | Mapping):
            parts = [parts]
        return sum(
            self.templated.text(part) if isinstance(part, str) else self.part(mapping(part))
            for part in items(parts)
        )

    def part(self, part: Mapping[str, Any]) -> int:
        total = 0
        said = field(part, "text")
        total += 0 if said is None else self.templated.text(said)
        signature = _get(part, "thoughtSignature", "thought_signature")
        if isinstance(signature, str | bytes):
            hidden = math.ceil(len(signature) / _CIPHER_PER_TOKEN)
            if self.vertex or not _NEWER.match(self.templated.model):
                self.found.allowances["thoughts"] = self.found.allowances.get("thoughts", 0) + hidden
            elif self.in_loop:
                total += hidden
        if (call := _get(part, "functionCall", "function_call")) is not None:
            call = mapping(call)
            total += self.templated.call(call.get("name"), mapping(call.get("args") or {}))
        if (answer := _get(part, "functionResponse", "function_response")) is not None:
            answer = mapping(answer)
            total += self.templated.template.result
            total += self.templated.text(answer.get("name"))
            total += self.templated.values(mapping(answer.get("response") or {}))
            for inner in items(answer.get("parts")):
                total += self.part(mapping(inner))
        for name in ("executableCode", "executable_code", "codeExecutionResult", "code_execution_result"):
            total += self.templated.text(field(part, name))
        if (blob := _get(part, "inlineData", "inline_data")) is not None:
            total += self.media(mapping(blob))
        if (file := _get(part, "fileData", "file_data")) is not None:
            total += self.unseen(mapping(file))
        return total

    def unseen(self, file: Mapping[str, Any]) -> int:
        kind = str(_get(file, "mimeType", "mime_type") or "").partition("/")[0]
        self.found.unseen += 1
        if kind in _UNSEEN_MEDIA:
            self.found.kinds.add(f"{kind}s" if kind == "image" else kind)
        return 0

    def media(self, blob: Mapping[str, Any]) -> int:
        kind = str(_get(blob, "mimeType", "mime_type") or "")
        data = _decoded(blob.get("data"))
        model = self.templated.model
        if kind.startswith("image/"):
            self.found.kinds.add("images")
            return image_tokens(None, None, model, image_size(data[: 1 << 18]) if data else None)
        size = len(data)
        if kind.startswith("audio/"):
            self.found.kinds.add("audio")
            rate = _wav_byte_rate(data) or _LEAST_AUDIO_BYTE_RATE
            return math.ceil(size * _SOUND_A_SECOND / rate)
        if kind.startswith("video/"):
            self.found.kinds.add("video")
            return math.ceil(size * _VIDEO_A_SECOND / _LEAST_VIDEO_BYTE_RATE) + _VIDEO_A_SECOND
        self.found.kinds.add("documents")
        if kind == "application/pdf":
            read = read_pdf(data) if size <= MAX_BYTES else None
            page = _PAGE_NEWER if _NEWER.match(model) else _PAGE
            return size // _BYTES_PER_TOKEN + 1 if read is None else read.pages * page
        try:
            return self.templated.text(data.decode())
        except UnicodeDecodeError:
            return size // _BYTES_PER_TOKEN + 1


def _get(value: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if (found := field(value, name)) is not None:
            return found
    return None


def _decoded(data: Any) -> bytes:
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if not isinstance(data, str):
        return b""
    try:
        return base64.b64decode(data.translate(str.maketrans("-_", "+/")) + "==")
    except (binascii.Error, ValueError):
        return b""


def _wav_byte_rate(data: bytes) -> int | None:
    if data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt ":
        return None
    rate = int.from_bytes(data[28:32], "little")
    return rate if 8_000 <= rate <= 1_536_000 else None
