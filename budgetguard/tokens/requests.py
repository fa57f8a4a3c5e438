"""Count the input tokens of a request, as OpenAI bills them.

The formulas are the documented ones, corrected by what 1 680 real requests were billed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import ImageSizes, image_tokens
from budgetguard.tokens.office import read_office
from budgetguard.tokens.text import count_text, encoding_for
from budgetguard.tokens.tool_text import billed_schema, compact_json, namespace

_PER_MESSAGE = 3
_END = 3
_END_GPT5 = 2
_O_SERIES_OR_GPT5 = re.compile(r"o\d|gpt-[5-9]")
_TOOLS = 9
_TOOLS_WITH_SYSTEM = 5
_TOOLS_GPT5 = 80
_FORCED_TOOL = 6
_SCHEMA = 19
_TOOL_CALL = 9
_PARALLEL_CALLS = 12

# As OpenAI documents for audio input; compressed speech is hardly ever under 16 kbit/s.
_AUDIO_TOKENS_PER_SECOND = 10
_LEAST_AUDIO_BYTE_RATE = 2_000
# Of files that cannot be read here; text has about 4 bytes a token.
_BYTES_PER_FILE_TOKEN = 4
# Of text in a PDF: half of what plain text has, since its spaces are often gaps and no characters.
_BYTES_PER_PDF_TOKEN = 2
# An image of a page: chat bills about 213 beside its text, whatever the model; responses have billed none.
_PDF_PAGE_TOKENS = 256
_PDF = "JVBERi"
# A zip archive, in which text has about a byte a token.
_ARCHIVE = "UEsDB"
# Pages are drawn in detail where asked, and by default from gpt-5.6 on; letter paper at 200 dots an inch:
# https://developers.openai.com/api/docs/guides/file-inputs
_DRAWS_PAGES_IN_DETAIL = re.compile(r"gpt-(5\.[6-9]|[6-9])")
_PAGE_SIZE = (1_700, 2_200)
# Two minutes.
_UNSEEN_AUDIO_TOKENS = 1_200

_REASONING = re.compile(
    r"o\d|gpt-[5-9]|gpt-oss|codex|computer-use|deepseek-r\d|qwq|magistral|.*(reason|think)"
    r"|gemini-(2\.5|[3-9])|grok-(3-mini|[4-9]|code)"
)
_NOT_REASONING = re.compile(
    r"gpt-5[\d.]*-chat|gpt-5-search|.*non-?(reason|think)|gemini-.*(lite|image|tts|audio|live|embedding)"
)


@lru_cache(maxsize=1_024)
def is_reasoning(model: str) -> bool:
    """Whether the model thinks before it answers, at the price of output (the o series, gpt-5 and later,
    Gemini and Grok since they do, and others whose names say so)."""
    name = bare_name(model)
    return _REASONING.match(name) is not None and _NOT_REASONING.match(name) is None


def thinking_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the tokens that a request lets its model think before it answers, 0 if it does not say how many.

    None if it asks for no thinking. Whose parameter it is does not matter: Anthropic's `thinking`, Gemini's
    `thinking_config`, OpenRouter's `reasoning`, OpenAI's `reasoning_effort`, Qwen's `enable_thinking`.
    """
    found: int | None = None
    for holder in _holders_of_thinking(body):
        for name, value in holder.items():
            if name not in _THINKING or value is None or value is False:
                continue
            if (tokens := _thought(value)) is not None:
                found = max(found or 0, tokens)
    return found


_THINKING: Final = frozenset(
    {
        "enable_thinking",
        "include_reasoning",
        "reasoning",
        "reasoning_effort",
        "thinking",
        "thinkingConfig",
        "thinking_config",
    }
)
# What such parameters are kept in.
_HOLDERS: Final = (
    "chat_template_kwargs",
    "config",
    "extra_body",
    "generationConfig",
    "generation_config",
    "google",
    "model_kwargs",
)
_NO_THINKING: Final = frozenset({"disabled", "disable", "none", "off", "false", "minimal"})


def _holders_of_thinking(body: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    yield body
    for name in _HOLDERS:
        if depth and (inner := given(body, name)) is not None:
            yield from _holders_of_thinking(_plainly(inner), depth - 1)


def _plainly(value: Any) -> Mapping[str, Any]:
    # Gemini's configuration is an object of its SDK.
    return value if isinstance(value, Mapping) else getattr(value, "__dict__", {})


def _thought(value: Any) -> int | None:
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        return None if value.lower() in _NO_THINKING else 0
    fields = _plainly(value)
    for name in ("budget_tokens", "thinking_budget", "thinkingBudget", "max_tokens"):
        if isinstance(tokens := fields.get(name), int) and not isinstance(tokens, bool):
            return tokens if tokens > 0 else None if tokens == 0 else 0
    for name in ("type", "effort", "thinking_level", "thinkingLevel"):
        if isinstance(level := fields.get(name), str):
            return _thought(level)
    return 0 if fields.get("enabled") is True or fields.get("include_thoughts") is True else None


@lru_cache(maxsize=1_024)
def bare_name(model: str) -> str:
    """Return the model's name in small letters, without provider and fine-tuning prefixes."""
    return model.lower().rpartition("/")[2].removeprefix("ft:")


def chat_input_tokens(body: Mapping[str, Any], model: str, *, image_sizes: ImageSizes | None = None) -> int:
    """Return the best estimate of the prompt tokens that a chat completion request is billed.

    Args:
        body: the request; pydantic objects, SDK sentinels and unknown parts are tolerated.
        model: the model's name, which decides the encoding and the price of images.
        image_sizes: (width, height) in pixels of images that the request names by URL, where you know them.

    Raises:
        ConfigurationError: `messages` is missing, empty or not a list.
    """
    messages = given(body, "messages")
    if not isinstance(messages, list | tuple):
        raise ConfigurationError(f"messages must be a list of messages, not {type(messages).__name__}")
    if not messages:
        raise ConfigurationError("messages must not be empty: a chat completion needs at least one message")
    counter = Counter.of(model, image_sizes)
    plain = [as_mapping(message) for message in messages]
    total = counter.end
    for message in plain:
        total += counter.message(message)
    return total + counter.tools(body, plain) + counter.schema(given(body, "response_format"))


def prediction_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the tokens of the answer that a request predicts; the rejected ones are billed as output."""
    prediction = given(body, "prediction")
    if prediction is None:
        return 0
    counter = Counter.of(model)
    return counter.content(given(as_mapping(prediction), "content"))


def audio_input_tokens(body: Mapping[str, Any]) -> int:
    """Return the part of a request's input tokens that is audio."""
    contents = [given(as_mapping(message), "content") for message in given(body, "messages") or ()]
    parts = [
        as_mapping(part) for content in contents if isinstance(content, list | tuple) for part in content
    ]
    return sum(_audio_tokens(part) for part in parts if given(part, "type") == "input_audio")


def embedding_input_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the tokens that an embeddings request is billed: those of its inputs, text or token ids."""
    return _embedding_tokens(given(body, "input"), encoding_for(model))


def completion_input_tokens(body: Mapping[str, Any], model: str) -> int:
    """Return the tokens that a legacy completion is billed: those of its prompts and of its `suffix`."""
    prompt = given(body, "prompt")
    encoding = encoding_for(model)
    # Without a prompt the model is given the one token that begins every document.
    total = 1 if prompt is None else _embedding_tokens(prompt, encoding)
    if (suffix := given(body, "suffix")) is not None:
        total += completion_prompts(body) * count_text(str(suffix), encoding)
    return total


def completion_prompts(body: Mapping[str, Any]) -> int:
    """Return how many prompts a legacy completion has: a list of token ids is one."""
    prompt = given(body, "prompt")
    if isinstance(prompt, str | bytes) or not isinstance(prompt, Sequence) or not prompt:
        return 1
    return 1 if isinstance(prompt[0], int) else len(prompt)


def _embedding_tokens(value: Any, encoding: str) -> int:
    if value is None:
        return 0
    if isinstance(value, str):
        # An empty input is billed as one token.
        return max(1, count_text(value, encoding))
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, Iterable):
        return sum(1 if isinstance(one, int) else _embedding_tokens(one, encoding) for one in value)
    return 1 if isinstance(value, int) else count_text(str(value), encoding)


@dataclass(frozen=True, slots=True)
class Counter:
    """Count the parts of one request, for one model.

    Attributes:
        encoding: how its text becomes tokens.
        model: its bare name.
        image_sizes: (width, height) in pixels of images named by URL, where they are known.
    """

    encoding: str
    model: str
    image_sizes: ImageSizes

    @classmethod
    def of(cls, model: str, image_sizes: ImageSizes | None = None) -> Counter:
        """Make the counter of a model by the name that a call gives it."""
        return cls(encoding_for(model), bare_name(model), image_sizes or {})

    @property
    def end(self) -> int:
        """The tokens that begin the answer."""
        return _END_GPT5 if _O_SERIES_OR_GPT5.match(self.model) else _END

    def text(self, value: Any) -> int:
        if is_absent(value):
            return 0
        if isinstance(value, bytes | bytearray):
            # Bytes that are no text are counted by their number, which no encoding exceeds.
            return len(value)
        return count_text(value if isinstance(value, str) else compact_json(value), self.encoding)

    def message(self, message: Mapping[str, Any]) -> int:
        total = _PER_MESSAGE + self.text(given(message, "role")) + self.content(given(message, "content"))
        if (name := given(message, "name")) is not None:
            total += 1 + self.text(name)
        total += self.text(given(message, "refusal"))
        if given(message, "audio") is not None:
            # An answer that was spoken earlier, named by its id alone.
            total += _UNSEEN_AUDIO_TOKENS
        calls = [as_mapping(call) for call in listed(given(message, "tool_calls"))]
        if (call := given(message, "function_call")) is not None:
            calls.append({"function": call})
        for call in calls:
            called = as_mapping(given(call, "function") or given(call, "custom") or {})
            total += _TOOL_CALL + self.text(given(called, "name"))
            total += self.text(given(called, "arguments") or given(called, "input"))
        if len(calls) > 1:
            total += _PARALLEL_CALLS
        return total

    def content(self, content: Any) -> int:
        if isinstance(content, Mapping) or hasattr(content, "model_dump"):
            return self.part(as_mapping(content))
        if isinstance(content, list | tuple):
            return sum(
                self.text(part) if isinstance(part, str) else self.part(as_mapping(part)) for part in content
            )
        return self.text(content)

    def part(self, part: Mapping[str, Any]) -> int:
        match given(part, "type"):
            case "text" | "input_text" | "output_text":
                return self.text(given(part, "text"))
            case "refusal":
                return self.text(given(part, "refusal"))
            case "image_url" | "input_image":
                image = given(part, "image_url")
                detail = given(part, "detail")
                if not isinstance(image, str):
                    image, detail = given(as_mapping(image), "url"), given(as_mapping(image), "detail")
                return image_tokens(image, detail, self.model, self.image_sizes)
            case "input_audio":
                return _audio_tokens(part)
            case "file" | "input_file":
                return file_tokens(as_mapping(given(part, "file") or part), self.model)
        # A part of the future: the text of it all is the best that can be said.
        return self.text(dict(part))

    def tools(self, body: Mapping[str, Any], messages: Iterable[Mapping[str, Any]]) -> int:
        functions = [as_mapping(function) for function in listed(given(body, "functions"))]
        total = 0
        for tool in map(as_mapping, listed(given(body, "tools"))):
            if (function := given(tool, "function")) is not None:
                functions.append(as_mapping(function))
            else:
                # Custom tools (a grammar, say) and those of the future: the text of their definition.
                total += self.text(dict(tool))
        if not functions and not total:
            return 0
        total += self.text(namespace(functions))
        if self.model.startswith("gpt-5"):
            return total + _TOOLS + _TOOLS_GPT5
        has_system = any(given(message, "role") in ("system", "developer") for message in messages)
        total += _TOOLS_WITH_SYSTEM if has_system else _TOOLS
        forced = given(body, "tool_choice") or given(body, "function_call")
        if isinstance(forced, Mapping):
            chosen = as_mapping(given(forced, "function") or forced)
            total += _FORCED_TOOL + self.text(given(chosen, "name"))
        return total

    def schema(self, response_format: Any) -> int:
        if response_format is None:
            return 0
        if isinstance(response_format, type) and hasattr(response_format, "model_json_schema"):
            # A pydantic class, as the SDK's `parse` takes it and turns it into a schema.
            described: Mapping[str, Any] = {
                "name": response_format.__name__,
                "schema": response_format.model_json_schema(),
            }
        else:
            described = as_mapping(given(as_mapping(response_format), "json_schema"))
        if not described:
            return 0
        total = _SCHEMA + self.text(compact_json(billed_schema(given(described, "schema") or {})))
        return total + self.text(given(described, "name")) + self.text(given(described, "description"))


def _audio_tokens(part: Mapping[str, Any]) -> int:
    """Return the audio tokens of an `input_audio` part: 10 a second of a WAV, a bound for the rest."""
    data = given(as_mapping(given(part, "input_audio") or {}), "data")
    if not isinstance(data, str | bytes):
        return _UNSEEN_AUDIO_TOKENS
    size = len(data) * 3 // 4
    rate = _wav_byte_rate(data)
    return -(-size * _AUDIO_TOKENS_PER_SECOND // (rate or _LEAST_AUDIO_BYTE_RATE))


def _wav_byte_rate(data: str | bytes) -> int | None:
    try:
        head = base64.b64decode(data[:64])
    except (binascii.Error, ValueError):
        return None
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return None
    rate = int.from_bytes(head[28:32], "little")
    # 8 bits at 8 kHz is the least that is recorded, 32 bits of stereo at 192 kHz the most: a header
    # that says otherwise is not believed.
    return rate if 8_000 <= rate <= 1_536_000 else None


def file_tokens(file: Mapping[str, Any], model: str) -> int:
    """Return a bound on what a file is billed as, if it is here: 0 if it is named by its id or URL.

    A PDF is billed for its text, and for an image of each page; an office file for its text. Of what cannot
    be scanned, every byte counts as a token where it is an archive, and a quarter of its bytes else.

    Args:
        file: the part of the request, with `file_data`.
        model: the model's bare name.
    """
    data = given(file, "file_data")
    if not isinstance(data, str | bytes):
        return 0
    coded = data[data.find(",", 0, 256) + 1 :] if isinstance(data, str) else ""
    size = len(data) * 3 // 4
    tokens = None
    if coded.startswith((_PDF, _ARCHIVE)) and size <= MAX_BYTES:
        try:
            raw = base64.b64decode(coded)
        except (binascii.Error, ValueError):
            raw = b""
        tokens = _pdf_tokens(raw, file, model) if coded.startswith(_PDF) else _office_tokens(raw, model)
    if tokens is not None:
        return tokens
    return size // (1 if coded.startswith(_ARCHIVE) else _BYTES_PER_FILE_TOKEN) + 1


def _pdf_tokens(data: bytes, file: Mapping[str, Any], model: str) -> int | None:
    document = read_pdf(data)
    if document is None:
        return None
    page = _PDF_PAGE_TOKENS
    detail = given(file, "detail")
    if detail == "high" or (detail != "low" and _DRAWS_PAGES_IN_DETAIL.match(model)):
        page = max(page, image_tokens("page", "high", model, {"page": _PAGE_SIZE}))
    return document.pages * page + -(-document.text // _BYTES_PER_PDF_TOKEN)


def _office_tokens(data: bytes, model: str) -> int | None:
    text = read_office(data)
    return None if text is None else count_text(text, encoding_for(model))


def given(mapping: Mapping[str, Any], key: str) -> Any:
    """Return a value of the request, None where it is absent or one of the SDK's not-given sentinels."""
    value = mapping.get(key)
    return None if is_absent(value) else value


# Looked up first, because nearly every value of every request is one of these.
_JSON_TYPES: Final = frozenset({str, int, float, bool, dict, list})


def is_absent(value: Any) -> bool:
    """Whether a value stands for nothing: None, or the openai SDK's `NotGiven` or `Omit`."""
    kind = type(value)
    return value is None or (kind not in _JSON_TYPES and kind.__name__ in ("NotGiven", "Omit"))


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping of what should be one: a pydantic object dumped, anything else as its text."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        dumped = dump(exclude_none=True)
        if isinstance(dumped, Mapping):
            return dumped
    return {} if is_absent(value) else {"content": str(value)}


def listed(value: Any) -> list[Any]:
    """Return the items of what should be a list; none of what is no list."""
    if value is None or isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        return []
    return list(value)
