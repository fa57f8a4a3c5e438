"""Count the input tokens of a Responses request, as OpenAI bills them.

What cannot be seen in the request (hosted tools, earlier turns kept by the provider) is not counted here:
see `hosted_tools`. The figures were fitted to 190 real requests; comments name what they stand for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.tokens.images import ImageSizes
from budgetguard.tokens.requests import Counter, as_mapping, file_tokens, given, listed
from budgetguard.tokens.tool_text import billed_schema, compact_json, namespace

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


def response_input_tokens(
    body: Mapping[str, Any], model: str, *, image_sizes: ImageSizes | None = None
) -> int:
    """Return the best estimate of the input tokens that a Responses request is billed for what it shows.

    Args:
        body: the request (`input`, `instructions`, `tools`, `text`); pydantic objects, SDK sentinels and
            unknown parts are tolerated.
        model: the model's name, which decides the encoding and the price of images.
        image_sizes: (width, height) in pixels of images that the request names by URL, where you know them.

    Raises:
        ConfigurationError: `input` is neither text nor a list.
    """
    given_input = given(body, "input")
    if given_input is not None and not isinstance(given_input, str | list | tuple):
        raise ConfigurationError(f"input must be a text or a list of items, not {type(given_input).__name__}")
    counter = Counter.of(model, image_sizes)
    total = counter.end
    if instructions := given(body, "instructions"):
        total += counter.message({"role": "system", "content": instructions})
    items = [{"role": "user", "content": given_input}] if isinstance(given_input, str) else given_input or ()
    for item in _since_compaction([as_mapping(item) for item in items]):
        total += _item_tokens(item, counter)
    total += _tool_tokens(listed(given(body, "tools")), counter)
    total += _forced_tokens(given(body, "tool_choice"), counter)
    return total + _format_tokens(given(as_mapping(given(body, "text")), "format"), counter)


def offered_tools(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tools that a request offers: those of its own, and those that its items bring."""
    tools = [as_mapping(tool) for tool in listed(given(body, "tools"))]
    for item in listed(given(body, "input")):
        tools += [as_mapping(tool) for tool in listed(given(as_mapping(item), "tools"))]
    return tools


def _since_compaction(items: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    # What came before the newest compaction is in it, and is not billed again.
    for at in range(len(items) - 1, -1, -1):
        if given(items[at], "type") == "compaction":
            return items[at:]
    return items


def _item_tokens(item: Mapping[str, Any], counter: Counter) -> int:
    kind = given(item, "type")
    if kind in _MESSAGES:
        return _message_tokens(item, counter)
    if kind in _ENCRYPTED:
        return _cipher_tokens(given(item, "encrypted_content")) or counter.text(_read_parts(item))
    if kind in _NOT_SHOWN:
        return 0
    if kind == "item_reference":
        return _UNSEEN_ITEM
    if kind in ("function_call", "custom_tool_call"):
        said = given(item, "arguments") or given(item, "input")
        return _CALL + counter.text(given(item, "name")) + counter.text(said)
    if kind in ("function_call_output", "custom_tool_call_output", "computer_call_output"):
        return _OUTPUT + _content_tokens(given(item, "output"), counter)
    if given(item, "tools") is not None:
        # Tools that come later, as items: found by a search, or added by the program.
        return _PER_ITEM + _ADDED_TOOLS + _tool_tokens(listed(given(item, "tools")), counter)
    # Calls of hosted tools, and items of the future: the text of what the model may be shown.
    return _PER_ITEM + counter.text(_read_parts(item))


def _read_parts(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in item.items()
        if name not in _UNREAD and not name.startswith("encrypted") and given(item, name)
    }


def _message_tokens(message: Mapping[str, Any], counter: Counter) -> int:
    total = _PER_ITEM + counter.text(given(message, "role"))
    return total + _content_tokens(given(message, "content"), counter)


def _content_tokens(content: Any, counter: Counter) -> int:
    parts = content if isinstance(content, list | tuple) else [content]
    total = 0
    for part in parts:
        plain = part if isinstance(part, str) or part is None else as_mapping(part)
        if isinstance(plain, Mapping) and given(plain, "type") == "input_file":
            total += _file_tokens(plain, counter)
        elif isinstance(plain, Mapping) and given(plain, "type") == "computer_screenshot":
            total += counter.part({**plain, "type": "input_image"})
        else:
            total += counter.content(plain)
    return total


def _file_tokens(part: Mapping[str, Any], counter: Counter) -> int:
    data = given(part, "file_data")
    if isinstance(data, str) and data.startswith(_TEXT_FILES):
        try:
            text = base64.b64decode(data.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            return file_tokens(part, counter.model)
        return counter.text(text.decode("utf-8", "replace")) + counter.text(given(part, "filename"))
    return file_tokens(part, counter.model)


def _cipher_tokens(cipher: Any) -> int:
    if not isinstance(cipher, str | bytes):
        return 0
    return max(0, len(cipher) - _ENVELOPE) // _CIPHER_PER_TOKEN


def _tool_tokens(tools: Iterable[Any], counter: Counter) -> int:
    functions: list[Mapping[str, Any]] = []
    total = 0
    waiting = [as_mapping(tool) for tool in tools]
    while waiting:
        tool = waiting.pop(0)
        match given(tool, "type"):
            case "function":
                # Chat's form, with the function one level down, is tolerated.
                functions.append(as_mapping(given(tool, "function") or tool))
            case "namespace":
                total += counter.text(given(tool, "name")) + counter.text(given(tool, "description"))
                waiting += [as_mapping(inner) for inner in listed(given(tool, "tools"))]
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
    return _FORCED_TOOL + counter.text(given(choice, "name"))


def _format_tokens(answer_format: Any, counter: Counter) -> int:
    described = as_mapping(answer_format)
    schema = given(described, "schema")
    if schema is None:
        return 0
    total = _SCHEMA + counter.text(compact_json(billed_schema(schema)))
    return total + counter.text(given(described, "name")) + counter.text(given(described, "description"))
