"""Count requests to models of other makers than OpenAI, whatever API they are made through.

The text is counted by the model's family (`budgetguard.tokens.families`), and what surrounds it by its
template (`budgetguard.tokens.templates`). Here are the parts that requests are made of, and the two shapes
that OpenAI's clients send; other shapes count their parts with the same `Templated`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.hidden_input import is_unseen_image
from budgetguard.providers.json import compact_json, field, is_absent, items, mapping, parsed
from budgetguard.providers.openai.counter import count_value
from budgetguard.providers.openai.media import audio_tokens, file_tokens
from budgetguard.providers.openai.tool_text import definitions_of, namespace
from budgetguard.providers.thinking import thinking_tokens
from budgetguard.tokens.images import image_tokens
from budgetguard.tokens.models import bare_name, is_counted_exactly
from budgetguard.tokens.templates import Template, template_of
from budgetguard.tokens.text import encoding_for

# Deeper than any real schema.
_MAX_DEPTH: Final = 32
# Definitions that refer to each other can unfold without end.
_MAX_TYPES: Final = 5_000
_UNFOLDED: Final = 8
# Each of several types that a field may have.
_ONE_OF: Final = 4
_TEXTS: Final = frozenset({"text", "input_text", "output_text", "thinking", "summary_text", "reasoning_text"})
_THINKS: Final = ":thinking"
# DeepSeek's responses come from a model that thinks, whatever they ask for.
_THINKS_UNASKED: Final = "deepseek"
_FORCES: Final = frozenset({"required", "any"})
# An item or a file that is named by its id alone: a message of ordinary length.
_UNSEEN_ITEM: Final = 1_000
_UNSEEN_THOUGHT: Final = 400
_UNPROMPTED: Final = frozenset({"system", "developer"})
# Of reasoning that is encrypted: how many characters are a token.
_CIPHER_PER_TOKEN: Final = 6


@dataclass(frozen=True, slots=True)
class Templated:
    """Counts the parts of a request to one model.

    Attributes:
        model: its bare name.
        encoding: how its text becomes tokens.
        template: what surrounds the text.
    """

    model: str
    encoding: str
    template: Template

    @classmethod
    def of(cls, model: str) -> Templated:
        """Make the counter of a model by the name that a call gives it."""
        return cls(bare_name(model), encoding_for(model), template_of(model) or Template())

    def text(self, value: Any) -> int:
        """Return the tokens of a text, or of any other value as compact JSON."""
        return count_value(value, self.encoding)

    def around(self, messages: int, *, prompted: bool) -> int:
        """Return what surrounds so many messages, of which one may be of the system (`prompted`)."""
        template = self.template
        return template.request + messages * template.message + (0 if prompted else template.unprompted)

    def tools(self, functions: Iterable[Mapping[str, Any]], choice: Any = None) -> int:
        """Return the tokens of tools.

        Args:
            functions: what each is defined by: a mapping that is shown to the model as it is.
            choice: the request's `tool_choice`: a word, or a mapping that names a tool.
        """
        template = self.template
        functions = [mapping(function) for function in functions]
        kind = field(choice, "type")
        if not functions or (template.drops_tools and "none" in (choice, kind)):
            return 0
        forced = (
            choice in _FORCES
            if isinstance(choice, str)
            else kind is not None and kind not in ("auto", "none")
        )
        total = (template.forced if forced else template.tools) + len(functions) * template.tool
        if template.rendered == "typescript":
            return total + self.text(namespace([mapping(one.get("function") or one) for one in functions]))
        if template.rendered == "fields":
            return total + sum(self._fields(mapping(one.get("function") or one)) for one in functions)
        return total + sum(
            self._shown(mapping(one.get("function") or one) if template.unwraps else one) for one in functions
        )

    def call(self, name: Any, arguments: Any) -> int:
        """Return the tokens of an earlier call of a tool; its arguments are JSON, or the text of some."""
        template = self.template
        if template.rendered == "fields":
            return template.call + self.text(name) + self.values(parsed(arguments))
        total = template.call + self.text(name) + self.text(arguments)
        if template.called_argument:
            total += template.called_argument * len(mapping(parsed(arguments)) if arguments else ())
        return total

    def values(self, value: Any, depth: int = 0) -> int:
        """Return the tokens of the names and values in JSON, without its signs."""
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            return sum(self.text(str(name)) + self.values(one, depth + 1) for name, one in value.items())
        if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
            return sum(self.values(one, depth + 1) for one in value)
        return self.text(value)

    def answer_schema(self, described: Any) -> int:
        """Return the tokens of a schema for the answer, with its name and description."""
        if not described or not self.template.schema_multiple:
            return 0
        return self.template.schema + math.ceil(self.text(described) * self.template.schema_multiple)

    def answer_format(self, asked: Any) -> int:
        """Return the tokens of a `response_format`: a mapping, or a pydantic class as the SDK takes it."""
        if is_absent(asked):
            return self.template.unformatted
        if isinstance(asked, type) and hasattr(asked, "model_json_schema"):
            return self.answer_schema(asked.model_json_schema())
        asked = mapping(asked)
        if (described := field(asked, "json_schema")) is not None:
            return self.answer_schema(described)
        return self.template.json_mode if field(asked, "type") == "json_object" else self.template.unformatted

    def content(self, content: Any) -> int:
        """Return the tokens of a message's content: a text, a part, or parts."""
        if type(content) is str:
            return self.text(content)
        if isinstance(content, Mapping) or hasattr(content, "model_dump"):
            return self.part(mapping(content))
        if isinstance(content, list | tuple):
            return sum(
                self.text(part) if isinstance(part, str) else self.part(mapping(part)) for part in content
            )
        return self.text(content)

    def part(self, part: Mapping[str, Any]) -> int:
        """Return the tokens of one part of a message, as OpenAI's APIs have them, and Mistral's."""
        kind = field(part, "type")
        if kind in _TEXTS or (kind is None and field(part, "text") is not None):
            said = field(part, "text") or field(part, "thinking")
            return self.content(said) if isinstance(said, list) else self.text(said)
        match kind:
            case "image_url" | "input_image":
                image = field(part, "image_url")
                detail = field(part, "detail")
                if not isinstance(image, str):
                    image, detail = field(mapping(image), "url"), field(mapping(image), "detail")
                return 0 if is_unseen_image(part) else image_tokens(image, detail, self.model)
            case "input_audio":
                audio = field(part, "input_audio")
                return audio_tokens({"input_audio": {"data": audio}} if isinstance(audio, str) else part)
            case "file" | "input_file":
                return file_tokens(mapping(field(part, "file") or part), self.model, self.template.page)
            case "document_url" if isinstance(field(part, "document_url"), str):
                return file_tokens({"file_data": field(part, "document_url")}, self.model, self.template.page)
            case "image" | "document" | "audio" | "video" | "video_url" | "file_url" | "document_url":
                return 0  # bounds of these are allowances
        return self.text({name: value for name, value in part.items() if name != "type"})

    def _shown(self, function: Mapping[str, Any]) -> int:
        plain = {name: value for name, value in function.items() if name != "cache_control"}
        if self.template.rendered == "compact":
            return self.text(compact_json(plain))
        return self.text(json.dumps(json.loads(compact_json(plain)), ensure_ascii=False))

    def _fields(self, function: Mapping[str, Any]) -> int:
        total = self.text(function.get("name")) + self.text(function.get("description"))
        for name in ("parameters", "parametersJsonSchema", "parameters_json_schema", "response"):
            if isinstance(schema := function.get(name), Mapping):
                total += _SchemaFields(self, definitions_of(schema)).schema(schema, 0)
        return total


class _SchemaFields:
    """Counts one schema as fields, with an end to what references can unfold into."""

    def __init__(self, counter: Templated, definitions: Mapping[str, Any]) -> None:
        self._counter = counter
        self._definitions = definitions
        self._left = _MAX_TYPES

    def schema(self, schema: Any, depth: int) -> int:
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH or self._left < 0:
            return 0
        text = self._counter.text
        total = text(schema.get("format")) + text(schema.get("description"))
        for name in ("enum", "required"):
            total += sum(text(str(one)) for one in items(schema.get(name)))
        for name in ("items", "additionalProperties"):
            total += self.schema(schema.get(name), depth + 1)
        for name in ("anyOf", "any_of", "oneOf", "allOf"):
            total += sum(self.schema(one, depth + 1) + _ONE_OF for one in items(schema.get(name)))
        if isinstance(reference := schema.get("$ref"), str):
            definition = self._definitions.get(reference.rpartition("/")[2])
            # A type that holds itself is shown once more, and no deeper.
            total += self.schema(definition, depth + 1 if depth <= _UNFOLDED else _MAX_DEPTH + 1)
        properties = schema.get("properties")
        if depth and properties:
            total += self._counter.template.nested
        for name, inner in properties.items() if isinstance(properties, Mapping) else ():
            total += self._counter.template.argument + text(str(name)) + self.schema(inner, depth + 1)
        return total


def chat_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the best estimate of what a chat completion of another maker's model is billed for its prompt.

    Raises:
        ConfigurationError: `messages` is missing, empty or not a list.
    """
    messages = body.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise ConfigurationError("messages must be a list of messages, and not empty")
    counter = Templated.of(model)
    plain = [mapping(message) for message in messages]
    last_user = max((at for at, one in enumerate(plain) if one.get("role") == "user"), default=-1)
    total = counter.around(len(plain), prompted=any(one.get("role") in _UNPROMPTED for one in plain))
    for at, message in enumerate(plain):
        total += _message(message, counter, in_loop=at > last_user)
    tools = [*items(body.get("tools")), *items(body.get("functions"))]
    total += counter.tools(tools, body.get("tool_choice") or body.get("function_call"))
    if model.endswith(_THINKS) or _asks_to_think(body, counter):
        total += counter.template.thinking
    return total + counter.answer_format(body.get("response_format"))


def _asks_to_think(body: Mapping[str, Any], counter: Templated) -> bool:
    if counter.encoding == _THINKS_UNASKED:  # where an effort alone changes nothing
        return bool(field(body.get("thinking"), "type") == "enabled")
    return thinking_tokens(body) is not None


def _message(message: Mapping[str, Any], counter: Templated, *, in_loop: bool) -> int:
    total = counter.content(message.get("content"))
    for name in ("name", "refusal"):
        total += counter.text(message.get(name))
    if in_loop or counter.template.keeps_thoughts:
        total += counter.text(message.get("reasoning_content") or message.get("reasoning"))
    if message.get("role") in ("tool", "function"):
        total += counter.template.result
    calls = [mapping(call) for call in items(message.get("tool_calls"))]
    if (call := message.get("function_call")) is not None:
        calls.append({"function": call})
    for call in calls:
        function = mapping(field(call, "function") or field(call, "custom") or {})
        total += counter.call(function.get("name"), function.get("arguments") or function.get("input"))
    return total


def response_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the best estimate of what a response of another maker's model is billed for what it shows.

    Raises:
        ConfigurationError: `input` is neither text nor a list.
    """
    asked = field(body, "input")
    if asked is not None and not isinstance(asked, str | list | tuple):
        raise ConfigurationError(f"input must be a text or a list of items, not {type(asked).__name__}")
    counter = Templated.of(model)
    items_asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked or ()
    plain = [mapping(item) for item in items_asked]
    instructions = field(body, "instructions")
    messages = sum(field(item, "type") in (None, "message") for item in plain) + bool(instructions)
    prompted = bool(instructions) or any(field(item, "role") in _UNPROMPTED for item in plain)
    total = counter.around(messages, prompted=prompted) + counter.text(instructions)
    for item in plain:
        total += _item(item, counter)
    total += counter.tools(_functions(items(field(body, "tools"))), field(body, "tool_choice"))
    if thinking_tokens(body) is not None or counter.encoding == _THINKS_UNASKED:
        total += counter.template.thinking
    return total + counter.answer_schema(field(field(field(body, "text"), "format"), "schema"))


def unseen_thoughts(body: Mapping[str, Any], model: str) -> dict[str, int]:
    """Return what to allow for thoughts of another maker's model that a response names without a cipher."""
    if is_counted_exactly(model):
        return {}
    shown = (mapping(item) for item in items(field(body, "input")))
    unseen = sum(
        field(item, "type") == "reasoning" and not field(item, "encrypted_content") for item in shown
    )
    return {"thoughts": unseen * _UNSEEN_THOUGHT} if unseen else {}


def _functions(tools: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    waiting = [mapping(tool) for tool in tools]
    while waiting:
        tool = waiting.pop(0)
        if field(tool, "type") == "namespace":
            waiting += [mapping(inner) for inner in items(field(tool, "tools"))]
        elif field(tool, "type") in ("function", "custom"):
            yield tool


def _item(item: Mapping[str, Any], counter: Templated) -> int:
    match field(item, "type"):
        case None | "message":
            return counter.content(field(item, "content"))
        case "function_call" | "custom_tool_call":
            return counter.call(field(item, "name"), field(item, "arguments") or field(item, "input"))
        case "function_call_output" | "custom_tool_call_output":
            return counter.template.result + counter.content(field(item, "output"))
        case "reasoning":
            cipher = field(item, "encrypted_content")
            return len(cipher) // _CIPHER_PER_TOKEN if isinstance(cipher, str | bytes) else 0
        case "item_reference":
            return _UNSEEN_ITEM
    if field(item, "tools") is not None:
        return counter.tools(_functions(items(field(item, "tools"))))
    return counter.text({name: value for name, value in item.items() if name not in ("id", "type", "status")})
