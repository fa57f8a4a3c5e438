"""Input that a request is billed for beyond what is counted: what settled calls teach of it, and a bound.

It is learned by model and by the kinds of parts that a request has: files that it only names, for one. The
bound is for those who may not spend a cent too much: a token of a byte-level encoding is at least one byte
long, so text never has more tokens than bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from typing import Any, Final

from budgetguard.core.usage import HiddenInput
from budgetguard.engine.projection import MARGIN
from budgetguard.providers.json import compact_json, field, is_absent, items, mapping
from budgetguard.tokens.images import image_tokens
from budgetguard.tokens.models import bare_name, is_counted_exactly

# Tokens to allow for a file that is named by its id or URL, until settled calls have taught better.
UNSEEN_FILE: Final = 20_000

UNSEEN: Final = "unseen_files"
UNSEEN_IMAGES: Final = "unseen_images"
# What was found so far is not the most that will be found: a quarter more.
_HEADROOM: Final = 4
# The next file or turn may be another: no less than an eighth of the first allowance is held.
_LEAST_LEARNED: Final = 8

_PARTS: Final = {
    "image_url": "images",
    "input_image": "images",
    "computer_screenshot": "images",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
}

_IMAGES: Final = frozenset({"image_url", "input_image", "computer_screenshot"})

# What OpenAI renders for the model in ways that are not public, so that its tokens are only estimated.
_RENDERED: Final = ("tools", "functions", "response_format", "text", "tool_choice", "function_call")
_RENDERED_IN_MESSAGES: Final = ("tool_calls", "function_call")
# Pictures, sounds and files, which are no text and are not billed as such.
_MEDIA: Final = frozenset({"image_url", "input_audio", "file_data", "audio", "data"})


@dataclass(slots=True)
class ShownInput:
    """What a request puts before the model.

    Attributes:
        tokens: those of what it shows, as they are counted.
        kinds: what it consists of beside text: `audio`, `documents`, `images`, `schema`, `tools`, `video`.
        unseen: how many files it only names.
        allowances: tokens to allow at first for what it does not show, by kind: `web_search`.
    """

    tokens: int = 0
    kinds: set[str] = field_of(default_factory=set)
    unseen: int = 0
    allowances: dict[str, int] = field_of(default_factory=dict)

    def all_allowances(self) -> dict[str, int]:
        """Return the allowances with that for the files that are only named."""
        return (
            {**self.allowances, UNSEEN: self.unseen * UNSEEN_FILE} if self.unseen else dict(self.allowances)
        )


def input_beyond(
    endpoint: str,
    body: Mapping[str, Any],
    model: str,
    kinds: list[str],
    allowances: Mapping[str, int],
    shown: int,
    learned_input: Callable[[str], int | None],
) -> tuple[HiddenInput, int]:
    """Return what to learn of the input beyond what is counted, and the tokens to add for it now."""
    if UNSEEN in kinds:
        allowances = {**allowances, UNSEEN: unseen_files(body) * UNSEEN_FILE}
    if UNSEEN_IMAGES in kinds:
        allowances = {**allowances, UNSEEN_IMAGES: unseen_images(body, model)}
    if allowances:
        key = f"{model} input beyond: {' '.join(sorted(allowances))}"
    else:
        key = f"{model} {endpoint}: {' '.join(kinds) or 'text'}"
    hides = bool(allowances)
    text = 0 if hides or is_counted_exactly(model) else shown - MARGIN
    hidden = HiddenInput(key, shown, text, hides)
    learned = learned_input(key)
    if learned is None:
        return hidden, sum(allowances.values())
    more = hidden.tokens(learned)
    if not hides:
        return hidden, more
    return hidden, max(more + more // _HEADROOM, sum(allowances.values()) // _LEAST_LEARNED)


def kinds_of(body: Mapping[str, Any]) -> list[str]:
    """Return what a request consists of beside text, sorted.

    `audio`, `files`, `images`, `schema`, `tools`, and for what it only names `unseen_files` and `unseen_images`.
    """
    found: set[str] = set()
    if body.get("tools") or body.get("functions"):
        found.add("tools")
    text = body.get("text")
    if body.get("response_format") is not None or (text is not None and _wants_schema(text)):
        found.add("schema")
    for part in _parts(body):
        kind = field(part, "type")
        if isinstance(kind, str) and kind in _PARTS:
            named = UNSEEN if _is_unseen(part) else UNSEEN_IMAGES if is_unseen_image(part) else None
            found.add(named or _PARTS[kind])
    return sorted(found)


def unseen_files(body: Mapping[str, Any]) -> int:
    """Return how many files a request names by id or URL."""
    return sum(map(_is_unseen, _parts(body)))


def unseen_images(body: Mapping[str, Any], model: str) -> int:
    """Return what the images are billed as that a request names by URL or id: at most, so their size is not known."""
    total = 0
    for part in _parts(body):
        if is_unseen_image(part):
            detail = field(part, "detail") or field(field(part, "image_url"), "detail")
            total += image_tokens(None, detail, bare_name(model))
    return total


def is_unseen_image(part: Mapping[str, Any]) -> bool:
    """Whether a part of a message is an image that is named by its URL or id alone."""
    if field(part, "type") not in _IMAGES:
        return False
    image = field(part, "image_url")
    url = image if isinstance(image, str) else field(mapping(image), "url")
    return not (isinstance(url, str) and url[:5].lower() == "data:")


def _wants_schema(text: Any) -> bool:
    return field(mapping(field(mapping(text), "format")), "schema") is not None


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    given = body.get("messages") or body.get("input")
    if not isinstance(given, list | tuple):
        return
    for item in given:
        # Most messages are plain text, and looking at them has to cost next to nothing.
        plain = item if type(item) is dict else mapping(item)
        for name in ("content", "output"):
            content = plain.get(name)
            if isinstance(content, list | tuple):
                yield from (mapping(part) for part in content if not isinstance(part, str))
            elif isinstance(content, dict):
                yield content


def _is_unseen(part: Mapping[str, Any]) -> bool:
    if field(part, "type") not in ("file", "input_file"):
        return False
    file = mapping(field(part, "file") or part)
    return not isinstance(field(file, "file_data"), str | bytes)


def input_reserve(body: Mapping[str, Any], model: str) -> int:
    """Return the input tokens to set aside on top of the estimate, so that text cannot be billed more.

    For OpenAI's models, whose encodings are public, one for each UTF-8 byte of what is rendered in ways
    that are not: tools, schemas, earlier calls of tools. For other models, one for each byte of all text.
    Pictures, sounds, files, hosted tools and what the provider keeps are not covered.

    Args:
        body: the request.
        model: the model's name.
    """
    if not is_counted_exactly(model):
        return _bytes(body)
    total = sum(_bytes(field(body, name)) for name in _RENDERED)
    for name in ("messages", "input"):
        for message in items(field(body, name)):
            if isinstance(message, str | int | bytes):
                continue
            plain = mapping(message)
            total += sum(_bytes(field(plain, inner)) for inner in _RENDERED_IN_MESSAGES)
            if str(field(plain, "type") or "message") != "message":
                total += _bytes(plain)  # an item of a response: a call, its output, reasoning
    return total


def _bytes(value: Any) -> int:
    """Return the UTF-8 bytes of all text in a value, names of fields included."""
    if is_absent(value):
        return 0
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        return _bytes(compact_json(value.model_json_schema()))
    if isinstance(value, Mapping) or hasattr(value, "model_dump"):
        plain = mapping(value)
        # Two for the marks around a field.
        return sum(
            _bytes(str(name)) + 2 + _bytes(inner) for name, inner in plain.items() if name not in _MEDIA
        )
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return sum(_bytes(one) + 1 for one in value)
    return len(str(value))
