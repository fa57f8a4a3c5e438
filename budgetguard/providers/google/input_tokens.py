"""Count the input tokens of a request to Gemini, from what it shows.

The rules were fitted to 680 recorded requests of models from Gemini 1.5 to 3.6. From Gemini 2.5 on, the
Developer API bills a token for each message, and functions as a program would declare them, and their calls;
Vertex, and earlier models, bill texts, names and descriptions alone. A schema for the answer is billed before
Gemini 2.5 only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.google.media import (
    Medium,
    inline_medium,
    is_third,
    named_medium,
    resolution_of,
)
from budgetguard.providers.json import compact_json, items, mapping, text
from budgetguard.providers.json import field as json_field
from budgetguard.providers.shapes import either
from budgetguard.tokens.models import bare_name
from budgetguard.tokens.text import O200K, count_text, encoding_for

_FIRST_TWO: Final = re.compile(r"gemini-(?:1|2\.0)|gemma|learnlm")
_MARK: Final = "\0"
# Tokens of a function beside its words: its own, with a description or without, each property's, one's that
# may be left out, an object's or a list's among them, and each of several choices'.
_FUNCTION: Final = 20
_FUNCTION_THIRD: Final = 24
_UNDESCRIBED: Final = 18
_UNDESCRIBED_THIRD: Final = 14
_PROPERTY: Final = 9
_PROPERTY_THIRD: Final = 12
_OPTIONAL: Final = 4
_OBJECT: Final = 38
_LIST: Final = 3
_CHOICE: Final = 3
_CALLED: Final = 3
# The same where words alone are billed.
_FUNCTION_WORDS: Final = 3
_PROPERTY_WORDS: Final = 1
_CALLED_WORDS: Final = 5
# What a model thought before it called a tool is billed once more, and comes encrypted: 0.213 tokens for each
# character of base64. From Gemini 3.5 on, also in later turns.
_THOUGHT: Final = 0.215
_REMEMBERS: Final = re.compile(r"gemini-(?:3\.[5-9]|[4-9]|\d\d)")
_SCHEMAS: Final = ("parameters", "parametersJsonSchema", "response", "responseJsonSchema")
# How often what a schema refers to is shown inside itself.
_DEEPEST: Final = 4
# Tools that run at Google, by the name that a request gives them, and what each is called here.
HOSTED: Final[Mapping[str, str]] = {
    "googleSearch": "google_search",
    "googleSearchRetrieval": "google_search",
    "googleMaps": "google_maps",
    "urlContext": "url_context",
    "codeExecution": "code_execution",
    "fileSearch": "file_search",
    "computerUse": "computer_use",
}


@dataclass(slots=True)
class GeminiInput:
    """What a request puts before the model.

    Attributes:
        tokens: those of what it shows, files that it only names among them.
        heard: those of sound.
        kinds: what it consists of beside text: `audio`, `documents`, `images`, `schema`, `thoughts`, `tools`,
            `video`.
        hosted: the tools that run at Google, by their names here.
        unknown: tools that nobody here knows.
        unseen: what is allowed for files of which nothing is known.
        cached: the name of the content that the request finds in a cache, or None.
    """

    tokens: int = 0
    heard: int = 0
    kinds: set[str] = field(default_factory=set)
    hosted: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    unseen: int = 0
    cached: str | None = None


# An address of a file -> its bytes and its seconds, as far as they are known.
Known = Callable[[str], tuple[int | None, float | None]]


def _nothing(_address: str) -> tuple[int | None, float | None]:
    return None, None


def gemini_input(
    body: Mapping[str, Any],
    model: str,
    *,
    vertex: bool = False,
    streamed: bool = False,
    known: Known = _nothing,
) -> GeminiInput:
    """Count what a request to `generateContent`, `cachedContents` or the like shows.

    Args:
        body: the request.
        model: the model's name.
        vertex: whether it goes to Vertex.
        streamed: whether its answer is asked for as a stream.
        known: what is known of files that it names.

    Raises:
        ConfigurationError: `contents` are missing or cannot be read.
    """
    body = mapping(body)
    counter = _Counter(model, GeminiInput(), known, either(body, "generationConfig"), vertex, streamed)
    found = counter.found
    found.cached = text(either(body, "cachedContent"))
    contents = either(body, "contents")
    if contents is None or (not isinstance(contents, str | Mapping) and not items(contents)):
        raise ConfigurationError(f"contents must be texts or messages, not {type(contents).__name__}")
    messages = tuple(_messages(contents))
    turn = max((n for n, (_, parts) in enumerate(messages) if _asks(parts)), default=0)
    system = tuple(_messages(either(body, "systemInstruction")))
    found.tokens = 0 if counter.words_only else len(messages) + bool(system)
    for number, (_, parts) in enumerate(messages):
        for part in parts:
            found.tokens += counter.part(part, current=number >= turn)
    for _, parts in system:
        for part in parts:
            found.tokens += counter.part(part, current=False)
    for tool in map(mapping, items(body.get("tools"))):
        found.tokens += counter.tool(tool)
    schema = either(counter.config, "responseSchema")
    if schema is not None or either(counter.config, "responseJsonSchema") is not None:
        found.kinds.add("schema")
        if schema is not None and _FIRST_TWO.match(bare_name(model)):
            found.tokens += counter.schema_words(mapping(schema))
    return found


def named_files(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the addresses of the files that a request only names."""
    for _, parts in _messages(either(body, "contents")):
        for part in parts:
            if (named := either(part, "fileData")) is not None:
                yield str(either(named, "fileUri") or "")


def _messages(contents: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if contents is None:
        return
    for one in (contents,) if isinstance(contents, str | Mapping) else items(contents):
        parts = json_field(one, "parts")
        if isinstance(one, str) or parts is None:
            parts = (one,)
        elif isinstance(parts, str | Mapping):
            parts = (parts,)
        yield str(json_field(one, "role") or "user"), tuple(parts)


def _asks(parts: Iterable[Any]) -> bool:
    """Whether parts are what a user says, and not what a tool answered."""
    return any(isinstance(part, str) or json_field(part, "text") for part in parts)


@dataclass(slots=True)
class _Counter:
    model: str
    found: GeminiInput
    known: Known
    config: Any
    vertex: bool
    streamed: bool
    words_only: bool = field(init=False)
    encoding: str = field(init=False)

    def __post_init__(self) -> None:
        self.words_only = self.vertex or _FIRST_TWO.match(bare_name(self.model)) is not None
        self.encoding = encoding_for(self.model)

    def text(self, value: str) -> int:
        return count_text(value, self.encoding)

    def marked(self, value: str) -> int:
        """Count a text with marks in it, each of which is a token.

        Its signs are whole tokens for Gemini as they are for o200k, so that no more of them are to be feared.
        """
        return count_text(value.replace(_MARK, ""), O200K) + value.count(_MARK)

    def part(self, part: Any, *, current: bool) -> int:
        if isinstance(part, str):
            return self.text(part)
        total = 0
        said = json_field(part, "text")
        if isinstance(said, str):
            total += self.text(said)
        # In the other spelling it is not heeded.
        if (signature := json_field(part, "thoughtSignature")) is not None and self.reads_thoughts(current):
            self.found.kinds.add("thoughts")
            total += math.ceil(_THOUGHT * len(str(signature)))
        if (call := either(part, "functionCall")) is not None:
            total += self.call("call", json_field(call, "name"), json_field(call, "args"))
        if (answer := either(part, "functionResponse")) is not None:
            total += self.call("response", json_field(answer, "name"), json_field(answer, "response"))
            # What a tool returns is shown at a high resolution.
            total += sum(self.file(inner, "HIGH") for inner in items(json_field(answer, "parts")))
        for name in ("executableCode", "codeExecutionResult", "toolCall", "toolResponse"):
            if (run := either(part, name)) is not None:
                total += self.text(compact_json(run))
        return total + self.file(part)

    def reads_thoughts(self, current: bool) -> bool:
        """Whether what was thought before is billed once more, in this turn or in an earlier one."""
        name = bare_name(self.model)
        if _FIRST_TWO.match(name) or not (current or _REMEMBERS.match(name)):
            return False
        return is_third(name) or self.vertex or self.streamed

    def file(self, part: Any, unsaid: str | None = None) -> int:
        resolution = resolution_of(part, self.config) or (unsaid if is_third(self.model) else None)
        film = either(part, "videoMetadata")
        if (inside := either(part, "inlineData")) is not None:
            mime, data = either(inside, "mimeType"), json_field(inside, "data")
            return self.add(inline_medium(mime, data, self.model, resolution, film, vertex=self.vertex))
        if (named := either(part, "fileData")) is not None:
            mime, address = either(named, "mimeType"), str(either(named, "fileUri") or "")
            if mime is None and "youtu" in address:
                mime = "video/mp4"
            size, seconds = self.known(address)
            medium = named_medium(
                mime, self.model, resolution, film, size=size, seconds=seconds, vertex=self.vertex
            )
            if not medium.seen:
                self.found.unseen += medium.tokens
                return 0
            return self.add(medium)
        return 0

    def add(self, medium: Medium) -> int:
        if medium.kind != "text":
            self.found.kinds.add(medium.kind)
        self.found.heard += medium.heard
        return medium.tokens

    def call(self, kind: str, name: Any, content: Any) -> int:
        shown = content if isinstance(content, Mapping) else {}
        if self.words_only:
            return self.words(shown) + self.text(str(name or "")) + _CALLED_WORDS
        return self.marked(f"{kind}:{name}{_rendered(shown)}") + _CALLED

    def tool(self, tool: Mapping[str, Any]) -> int:
        total = 0
        for name, value in tool.items():
            camel = _camel(name)
            if camel == "functionDeclarations":
                total += sum(self.declaration(mapping(one)) for one in items(value))
            elif camel in HOSTED:
                self.found.hosted.add(HOSTED[camel])
            elif value is not None:
                self.found.unknown.add(name)
        return total

    def declaration(self, one: Mapping[str, Any]) -> int:
        self.found.kinds.add("tools")
        name, told = str(one.get("name") or ""), str(one.get("description") or "")
        schemas = [mapping(found) for key in _SCHEMAS if (found := either(one, key)) is not None]
        words = self.text(name) + self.text(told)
        if self.words_only:
            return words + _FUNCTION_WORDS + sum(map(self.schema_words, schemas))
        if is_third(self.model):
            words += _FUNCTION_THIRD if told else _UNDESCRIBED_THIRD
        else:
            words += _FUNCTION if told else _UNDESCRIBED
        return words + sum(self.properties(_expanded(schema)) for schema in schemas)

    def properties(self, schema: Mapping[str, Any]) -> int:
        """Count the properties of an object, and what is inside of them."""
        required = items(schema.get("required"))
        total = 0
        for name, inner in mapping(schema.get("properties")).items():
            total += _PROPERTY_THIRD if is_third(self.model) else _PROPERTY
            total += 2 * self.text(str(name)) + self.kind(mapping(inner))
            total += 0 if name in required else _OPTIONAL
        return total

    def kind(self, schema: Mapping[str, Any]) -> int:
        """Count what a property is."""
        total = self.text(told) if isinstance(told := schema.get("description"), str) else 0
        total += sum(_CHOICE + self.text(str(one)) for one in items(schema.get("enum")))
        if schema.get("properties"):
            total += _OBJECT + self.properties(schema)
        if (each := schema.get("items")) is not None:
            total += _LIST + self.kind(mapping(each))
        for name in ("anyOf", "oneOf"):
            for one in items(either(schema, name)):
                total += _CHOICE + self.kind(mapping(one))
        return total

    def schema_words(self, schema: Mapping[str, Any]) -> int:
        """Count a schema's names and descriptions."""
        total = 0
        for key, value in schema.items():
            if key in ("properties", "$defs"):
                for name, inner in mapping(value).items():
                    total += self.text(name) + _PROPERTY_WORDS + self.schema_words(mapping(inner))
            elif isinstance(value, Mapping):
                total += self.schema_words(value)
            elif isinstance(value, str) and key != "type":
                total += self.text(value)
            elif _camel(key) != "propertyOrdering":
                for one in items(value):
                    total += self.schema_words(one) if isinstance(one, Mapping) else self.text(str(one))
        return total

    def words(self, value: Any) -> int:
        """Count the texts of a value."""
        if isinstance(value, Mapping):
            return sum(map(self.words, value.values()))
        if isinstance(value, list | tuple):
            return sum(map(self.words, value))
        return self.text(str(value))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _quoted(value: str) -> str:
    return f"{_MARK}{value}{_MARK}"


def _rendered(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_rendered(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_rendered, value)) + "]"
    return "null" if value is None else str(value)


def _expanded(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with what it refers to in its place."""
    defined = {**mapping(schema.get("definitions")), **mapping(schema.get("$defs"))}
    return mapping(_with_references(schema, defined, 0)) if defined else schema


def _with_references(value: Any, defined: Mapping[str, Any], depth: int) -> Any:
    if isinstance(value, list | tuple):
        return [_with_references(one, defined, depth) for one in value]
    if not isinstance(value, Mapping):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        rest = {key: one for key, one in value.items() if key != "$ref"}
        known = {} if depth >= _DEEPEST else mapping(defined.get(name))
        return _with_references({**known, **rest}, defined, depth + 1)
    return {
        key: _with_references(one, defined, depth)
        for key, one in value.items()
        if key not in ("$defs", "definitions")
    }
