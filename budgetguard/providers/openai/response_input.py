"""Count what a request to OpenAI's Responses API shows: its items, instructions, tools and answer format."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers import templated
from budgetguard.providers.json import field, items, mapping
from budgetguard.providers.openai.counter import Counter
from budgetguard.providers.openai.media import RESPONSES_PAGE, file_tokens
from budgetguard.providers.openai.tool_text import UNBILLED_IN_RESPONSES, has_titles, namespace
from budgetguard.tokens.models import is_counted_exactly

# Input tokens; fitted to 190 real requests.
_PER_ITEM: Final = 3
_CALL: Final = 11
_CALL_GPT5: Final = 18
_PARALLEL_GPT5: Final = 8
_OUTPUT: Final = 4
_TOOLS: Final = 3
_TOOLS_GPT5: Final = 8
_FORCED_TOOL: Final = 6
_ADDED_TOOLS: Final = 90
# Where tools must be called one by one, and may be called or not.
_ONE_BY_ONE: Final = 20
_ONE_BY_ONE_GPT5: Final = 80
# A schema for the answer whose fields have titles.
_TITLED: Final = 13
# Earlier reasoning and compacted turns come as base64 of ciphertext: 900 characters are the envelope, and
# the rest is about five characters a token. What was thought before the user's last message is not read again.
_ENVELOPE: Final = 900
_CIPHER_PER_TOKEN: Final = 5
_FORGOTTEN: Final = 2
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


def response_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the best estimate of the input tokens that a request is billed for what it shows.

    Args:
        body: the request; pydantic objects, SDK sentinels and unknown parts are tolerated.
        model: the model's name, which decides the encoding and the price of images.

    Raises:
        ConfigurationError: `input` is neither text nor a list.
    """
    if not is_counted_exactly(model):
        return templated.response_tokens(body, model)
    asked = field(body, "input")
    if asked is not None and not isinstance(asked, str | list | tuple):
        raise ConfigurationError(f"input must be a text or a list of items, not {type(asked).__name__}")
    counter = Counter.of(model)
    total = counter.end
    if instructions := field(body, "instructions"):
        total += counter.message({"role": "system", "content": instructions})
    items_asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked or ()
    shown = _since_compaction([mapping(item) for item in items_asked])
    forgotten = _last_asked(shown) if field(field(body, "reasoning"), "context") != "all_turns" else 0
    for at, item in enumerate(shown):
        thought = field(item, "type") == "reasoning"
        total += _FORGOTTEN if thought and at < forgotten else _item_tokens(item, counter)
    if counter.is_gpt5:
        total += _PARALLEL_GPT5 * _parallel_calls(shown)
    tools = _tool_tokens(items(field(body, "tools")), counter)
    total += tools + _forced_tokens(field(body, "tool_choice"), counter)
    if tools and field(body, "parallel_tool_calls") is False:
        if field(body, "tool_choice") in (None, "auto"):
            total += _ONE_BY_ONE_GPT5 if counter.is_gpt5 else _ONE_BY_ONE
    return total + _format_tokens(field(field(body, "text"), "format"), counter)


def _since_compaction(asked: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    # What came before the newest compaction is in it, and is not billed again.
    for at in range(len(asked) - 1, -1, -1):
        if field(asked[at], "type") == "compaction":
            return asked[at:]
    return asked


def _last_asked(shown: list[Mapping[str, Any]]) -> int:
    """Return where the user's last message is; 0 if there is none."""
    return max((at for at, item in enumerate(shown) if field(item, "role") == "user"), default=0)


def _parallel_calls(shown: list[Mapping[str, Any]]) -> int:
    """Return how many calls of tools were made together with the one before them."""
    kinds = [field(item, "type") for item in shown]
    return sum(one == two == "function_call" for one, two in zip(kinds, kinds[1:], strict=False))


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
        each = _CALL_GPT5 if counter.is_gpt5 else _CALL
        return each + counter.text(field(item, "name")) + counter.text(said)
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
            return file_tokens(part, counter.model, RESPONSES_PAGE)
        return counter.text(text.decode("utf-8", "replace")) + counter.text(field(part, "filename"))
    return file_tokens(part, counter.model, RESPONSES_PAGE)


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
        total += _TOOLS_GPT5 if counter.is_gpt5 else _TOOLS
    return total


def _forced_tokens(choice: Any, counter: Counter) -> int:
    if counter.is_gpt5:
        return 0
    if choice == "required":
        return _FORCED_TOOL
    if not isinstance(choice, Mapping):
        return 0
    return _FORCED_TOOL + counter.text(field(choice, "name"))


def _format_tokens(answer_format: Any, counter: Counter) -> int:
    described = mapping(answer_format)
    if (schema := described.get("schema")) is None:
        return 0
    beside = _TITLED if has_titles(schema) else 0
    return beside + counter.schema(described, leave_out=UNBILLED_IN_RESPONSES)
