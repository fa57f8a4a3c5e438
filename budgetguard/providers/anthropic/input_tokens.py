"""Count the input tokens of a request to Claude.

The text is counted by `budgetguard.tokens.families`, exactly where `ctok` is installed, and what surrounds it by
`budgetguard.tokens.templates`; what is left was fitted to 850 recorded requests of models from Claude 3 to 5.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.hidden_input import ShownInput
from budgetguard.providers.json import field, is_absent, items, mapping
from budgetguard.providers.templated import Templated
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_size, image_tokens

# A block that is neither text nor of a tool.
_BLOCK: Final = 8
_THOUGHT: Final = 28
# Definitions that Anthropic has, by how a tool's type begins.
_DEFINED: Final = (
    ("computer", 1_500),
    ("text_editor", 1_000),
    ("bash", 500),
    ("memory", 1_500),
    ("browser", 5_000),
)
_COMPACTED: Final = 80
# A page that an earlier search found comes as a cipher, of four characters a token, or is named alone.
_CIPHER_PER_FOUND_TOKEN: Final = 4
_FOUND: Final = 700
# A document is introduced with 20 tokens, and explained with 400 where it may be cited from.
_DOCUMENT: Final = 25
_CITED: Final = 450
# Of a PDF, a picture of each page beside its text: 1 550 tokens and the text, up to 3 000 a page.
_PAGE: Final = 1_600
_BYTES_PER_PDF_TOKEN: Final = 2
_BYTES_PER_TOKEN: Final = 3
_FILE_BLOCKS: Final = frozenset({"image", "document", "container_upload"})
# What a tool's definition says to the API alone.
_UNSHOWN: Final = frozenset({"cache_control", "type", "eager_input_streaming", "strict", "allowed_callers"})
# Redacted thoughts and those of which only a cipher is here: characters a token.
_CIPHER_PER_TOKEN: Final = 4


def claude_input(body: Mapping[str, Any], model: str) -> ShownInput:
    """Count what a request to `/messages` shows.

    Args:
        body: the request.
        model: the model's name.

    Raises:
        ConfigurationError: `messages` is missing, empty or no list, or a part of it can be read only once.
    """
    body = mapping(body)
    messages = body.get("messages")
    if not isinstance(messages, list | tuple):
        raise ConfigurationError(f"messages must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise ConfigurationError("messages must not be empty: Claude needs at least one message")
    counter = _ClaudeCounter(Templated.of(model), ShownInput())
    found, templated = counter.found, counter.templated
    found.tokens = templated.around(len(messages), prompted=True) + counter.content(body.get("system"))
    plain = [mapping(message) for message in messages]
    last_asked = max((at for at, one in enumerate(plain) if _asks(one)), default=-1)
    for at, message in enumerate(plain):
        counter.in_loop = at > last_asked
        found.tokens += counter.content(message.get("content"))
    if plain[0].get("role") == "assistant":
        found.tokens += templated.template.begun
    tools = body.get("tools")
    if tools:
        found.kinds.add("tools")
        found.tokens += counter.tools(tools, body.get("tool_choice"))
    if (schema := _schema(body)) is not None:
        found.kinds.add("schema")
        found.tokens += templated.answer_schema(schema)
    if field(mapping(body.get("thinking")), "type") == "enabled":
        found.tokens += templated.template.thinking
    return found


def _schema(body: Mapping[str, Any]) -> Any:
    config = body.get("output_config")
    for asked in (body.get("output_format"), None if config is None else mapping(config).get("format")):
        if asked is not None:
            shown = asked.model_json_schema() if hasattr(asked, "model_json_schema") else mapping(asked)
            return shown if hasattr(asked, "model_json_schema") else field(shown, "schema")
    return None


def _asks(message: Mapping[str, Any]) -> bool:
    """Whether a message is of the user, and brings more than results of tools."""
    if message.get("role") != "user":
        return False
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return True
    return any(isinstance(one, str) or field(mapping(one), "type") != "tool_result" for one in content)


@dataclass(slots=True)
class _ClaudeCounter:
    """Counts the blocks of a request.

    Attributes:
        in_loop: the message comes after all that the user has asked: what was thought in it is read again.
    """

    templated: Templated
    found: ShownInput
    in_loop: bool = False

    def content(self, content: Any) -> int:
        if isinstance(content, str):
            return self.templated.text(content)
        if is_absent(content):
            return 0
        if isinstance(content, Iterator):
            raise ConfigurationError(
                f"a message's content is a {type(content).__name__}, which can be read only once, so its "
                "cost is unknown; pass a list"
            )
        if (
            isinstance(content, Mapping)
            or not isinstance(content, Iterable)
            or hasattr(content, "model_dump")
        ):
            content = (content,)
        return sum(
            self.templated.text(one) if isinstance(one, str) else self.block(mapping(one)) for one in content
        )

    def block(self, block: Mapping[str, Any]) -> int:
        kind, templated = field(block, "type"), self.templated
        if kind == "text":
            return templated.text(field(block, "text"))
        if kind in _FILE_BLOCKS:
            return self.file(str(kind), block)
        if kind in ("tool_result", "mcp_tool_result"):
            return templated.template.result + self.content(field(block, "content"))
        if kind in ("thinking", "redacted_thinking"):
            return self.thought(block)
        if kind in ("tool_use", "mcp_tool_use", "server_tool_use"):
            return templated.call(field(block, "name"), mapping(field(block, "input") or {}))
        if kind == "web_search_tool_result":
            content = field(block, "content")
            return _BLOCK + sum(_found(mapping(one)) for one in items(content))
        if kind == "search_result":
            return _CITED + self.content(field(block, "content")) + templated.text(field(block, "title"))
        if kind == "compaction":
            return _COMPACTED + templated.text(field(block, "content"))
        # Signatures and what is encrypted are not billed as the text that they look like.
        shown = {
            name: value
            for name, value in block.items()
            if name not in ("type", "signature", "cache_control", "encrypted_content", "citations")
        }
        return _BLOCK + templated.text(shown)

    def thought(self, block: Mapping[str, Any]) -> int:
        if not (self.in_loop or self.templated.template.keeps_thoughts):
            return 0
        if said := field(block, "thinking"):
            return _THOUGHT + self.templated.text(said)
        cipher = field(block, "data") or field(block, "signature")
        return _BLOCK + (len(cipher) // _CIPHER_PER_TOKEN if isinstance(cipher, str) else 0)

    def file(self, kind: str, block: Mapping[str, Any]) -> int:
        source = mapping(field(block, "source"))
        self.found.kinds.add("images" if kind == "image" else "documents")
        beside = _CITED if field(field(block, "citations"), "enabled") else _DOCUMENT
        beside += sum(self.templated.text(field(block, name)) for name in ("title", "context"))
        if field(source, "type") == "content":
            return beside + self.content(field(source, "content"))
        data = field(source, "data")
        if kind == "image":
            return self.image(data)
        if field(source, "type") == "text":
            return beside + self.templated.text(data)
        tokens = _pdf(data)
        if tokens is None:
            self.found.unseen += 1
            tokens = 0
        return beside + tokens

    def image(self, data: Any) -> int:
        head = _decoded(data[: 1 << 18]) if isinstance(data, str) else None
        return image_tokens(None, None, self.templated.model, None if head is None else image_size(head))

    def tools(self, tools: Any, choice: Any) -> int:
        shown = [mapping(tool) for tool in tools]
        total = 0
        for tool in shown:
            kind = str(field(tool, "type") or "custom")
            total += next((tokens for start, tokens in _DEFINED if kind.startswith(start)), 0)
        own = [{name: value for name, value in tool.items() if name not in _UNSHOWN} for tool in shown]
        return total + self.templated.tools(own, None if choice is None else mapping(choice))


def _found(result: Mapping[str, Any]) -> int:
    cipher = field(result, "encrypted_content")
    return max(_FOUND, len(cipher) // _CIPHER_PER_FOUND_TOKEN if isinstance(cipher, str) else 0)


def _pdf(data: Any) -> int | None:
    """Return a bound on what a document is billed as, None if it is not here."""
    if not isinstance(data, str):
        return None
    size = len(data) * 3 // 4
    read = read_pdf(_decoded(data) or b"") if size <= MAX_BYTES else None
    if read is None:
        return size // _BYTES_PER_TOKEN + 1
    return read.pages * _PAGE + -(-read.text // _BYTES_PER_PDF_TOKEN)


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
