"""Count the input tokens of a request to Claude, whose encoding is not public: from above, by o200k's count.

The factors and constants were fitted to 800 recorded requests of models from Claude 3 to 5.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_size
from budgetguard.tokens.requests import as_mapping, bare_name, given, is_absent
from budgetguard.tokens.text import O200K, count_text
from budgetguard.tokens.tool_text import compact_json

# Claude 3 to 4.6 write English in 1.14 times o200k's tokens, code and JSON in up to 1.29, Arabic in 1.8;
# later ones in 1.35, 1.74 and 1.88.
_OLDER: Final = re.compile(
    r".*claude-(?:[123v]|instant|(?:opus|sonnet|haiku)-4(?:-[0-6])?(?:$|[@:]|-(?:\d{8}|latest|v\d)))"
)
_FACTORS: Final = {True: (1.22, 1.8), False: (1.6, 1.95)}
# A text of which more is not ASCII is not taken for English.
_FOREIGN: Final = 0.1
_REQUEST: Final = 8
_MESSAGE: Final = 5
_BLOCK: Final = 30
_SYSTEM: Final = 6
_THINKING: Final = 40
# The prompt by which tools are explained: https://platform.claude.com/docs/en/docs/build-with-claude/tool-use
# has 264 to 530; more was billed since. More again where one of them must be used.
_FIRST_TOOLS: Final = re.compile(r".*claude-(?:3-(?!opus)|(?:opus|sonnet)-4-[01](?!\d)|(?:opus|sonnet)-4-20)")
_TOOLS: Final = 560
_TOOLS_FIRST: Final = 360
_TOOLS_LATER: Final = 200
_TOOL: Final = 25
_FORCED: Final = 110
_SCHEMA: Final = 190
# Definitions that Anthropic has, by how a tool's type begins.
_DEFINED: Final = (
    ("computer", 1_500),
    ("text_editor", 1_000),
    ("bash", 500),
    ("memory", 1_500),
    ("browser", 5_000),
)
# https://platform.claude.com/docs/en/build-with-claude/vision: an image has width x height / 750 tokens, once
# its long side was brought down to 1 568 pixels; later models are shown up to 2 576.
_PIXELS_A_TOKEN: Final = 750
_LONG_SIDE: Final = {True: 1_568, False: 2_576}
_MOST_OF_IMAGE: Final = {True: 1_640, False: 4_900}
# What cites from a document is explained, too.
_DOCUMENT: Final = 520
# Of a PDF, an image of each page beside its text, which is up to 3 000 tokens a page.
_BYTES_PER_PDF_TOKEN: Final = 2
_BYTES_PER_TOKEN: Final = 3
_FILE_BLOCKS: Final = frozenset({"image", "document", "container_upload"})


@dataclass(slots=True)
class ClaudeInput:
    """What a request puts before the model.

    Attributes:
        tokens: those of what it shows, at most.
        kinds: what it consists of beside text: `documents`, `images`, `schema`, `tools`.
        unseen: how many files it only names.
    """

    tokens: int = 0
    kinds: set[str] = field(default_factory=set)
    unseen: int = 0


def claude_input(body: Mapping[str, Any], model: str) -> ClaudeInput:
    """Count what a request to `/messages` shows.

    Args:
        body: the request.
        model: the model's name.

    Raises:
        ConfigurationError: `messages` is missing, empty or no list, or a part of it can be read only once.
    """
    messages = given(body, "messages")
    if not isinstance(messages, list | tuple):
        raise ConfigurationError(f"messages must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise ConfigurationError("messages must not be empty: Claude needs at least one message")
    counter = _Counter(_OLDER.match(bare_name(model)) is not None, ClaudeInput())
    found = counter.found
    found.tokens = _REQUEST + counter.system(given(body, "system"))
    for message in messages:
        found.tokens += _MESSAGE + counter.content(given(as_mapping(message), "content"))
    tools = given(body, "tools")
    if tools:
        found.kinds.add("tools")
        found.tokens += counter.tools(tools, model, given(body, "tool_choice"))
    if (schema := _schema(body)) is not None:
        found.kinds.add("schema")
        found.tokens += _SCHEMA + counter.text(schema)
    if given(as_mapping(given(body, "thinking")), "type") not in (None, "disabled"):
        found.tokens += _THINKING
    return found


def _schema(body: Mapping[str, Any]) -> Any:
    for asked in (given(body, "output_format"), given(as_mapping(given(body, "output_config")), "format")):
        if asked is not None:
            shown = asked.model_json_schema() if hasattr(asked, "model_json_schema") else as_mapping(asked)
            return shown if hasattr(asked, "model_json_schema") else given(shown, "schema")
    return None


@dataclass(frozen=True, slots=True)
class _Counter:
    older: bool
    found: ClaudeInput

    def text(self, value: Any) -> int:
        if is_absent(value):
            return 0
        text = value if isinstance(value, str) else compact_json(value)
        low, high = _FACTORS[self.older]
        factor = low
        if not text.isascii():
            foreign = sum(not character.isascii() for character in text)
            factor = high if foreign > _FOREIGN * len(text) else low
        return math.ceil(count_text(text, O200K) * factor)

    def system(self, system: Any) -> int:
        return 0 if is_absent(system) else _SYSTEM + self.content(system)

    def content(self, content: Any) -> int:
        if is_absent(content):
            return 0
        if isinstance(content, str):
            return self.text(content)
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
        return sum(self.text(one) if isinstance(one, str) else self.block(as_mapping(one)) for one in content)

    def block(self, block: Mapping[str, Any]) -> int:
        kind = given(block, "type")
        if kind == "text":
            return self.text(given(block, "text"))
        if kind in _FILE_BLOCKS:
            return _BLOCK + self.file(str(kind), block)
        if kind in ("tool_result", "mcp_tool_result"):
            return _BLOCK + self.content(given(block, "content"))
        # Signatures and what is encrypted are not billed as the text that they look like.
        shown = {
            name: value
            for name, value in block.items()
            if name not in ("type", "signature", "cache_control", "encrypted_content", "citations")
        }
        return _BLOCK + self.text(shown)

    def file(self, kind: str, block: Mapping[str, Any]) -> int:
        source = as_mapping(given(block, "source"))
        self.found.kinds.add("images" if kind == "image" else "documents")
        beside = _DOCUMENT + sum(self.text(given(block, name)) for name in ("title", "context"))
        if given(source, "type") == "content":
            return beside + self.content(given(source, "content"))
        data = given(source, "data")
        if kind == "image":
            return _image(data, self.older)
        if given(source, "type") == "text":
            return beside + self.text(data)
        tokens = _pdf(data, self.older)
        if tokens is None:
            self.found.unseen += 1
            tokens = 0
        return beside + tokens

    def tools(self, tools: Any, model: str, choice: Any) -> int:
        total = _TOOLS_FIRST if _FIRST_TOOLS.match(bare_name(model)) else _TOOLS
        total = total if self.older else total + _TOOLS_LATER
        if given(as_mapping(choice), "type") in ("any", "tool"):
            total += _FORCED
        for tool in map(as_mapping, tools):
            kind = str(given(tool, "type") or "custom")
            total += next((tokens for start, tokens in _DEFINED if kind.startswith(start)), 0)
            total += _TOOL + self.text(
                {name: value for name, value in tool.items() if name != "cache_control"}
            )
        return total


def _image(data: Any, older: bool) -> int:
    most = _MOST_OF_IMAGE[older]
    head = _decoded(data[: 1 << 18]) if isinstance(data, str) else None
    size = None if head is None else image_size(head)
    if size is None:
        return most
    shrunk = min(1.0, _LONG_SIDE[older] / max(size))
    return min(most, math.ceil(size[0] * shrunk * size[1] * shrunk / _PIXELS_A_TOKEN))


def _pdf(data: Any, older: bool) -> int | None:
    """Return a bound on what a document is billed as, None if it is not here."""
    if not isinstance(data, str):
        return None
    size = len(data) * 3 // 4
    read = read_pdf(_decoded(data) or b"") if size <= MAX_BYTES else None
    if read is None:
        return size // _BYTES_PER_TOKEN + 1
    return read.pages * _MOST_OF_IMAGE[older] + -(-read.text // _BYTES_PER_PDF_TOKEN)


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
