"""Count the input tokens that Cohere bills: `meta.billed_units`, which leave its own prompts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from budgetguard.errors import ConfigurationError
from budgetguard.providers.hidden_input import ShownInput
from budgetguard.providers.json import field, items, mapping
from budgetguard.providers.templated import Templated
from budgetguard.tokens.text import count_text, encoding_for

# What connectors find: https://docs.cohere.com/v1/docs/connectors
_CONNECTORS: Final = 8_000
# A document beside its text.
_DOCUMENT: Final = 20


def cohere_input(body: Mapping[str, Any], model: str) -> ShownInput:
    """Count what a request to `/v2/chat` (`messages`) or `/v1/chat` (`message`, `chat_history`) is billed for.

    Raises:
        ConfigurationError: there is neither a list of messages nor a message.
    """
    counter, found = Templated.of(model), ShownInput()
    messages = list(items(body.get("messages")))
    if not messages and not isinstance(body.get("message"), str):
        raise ConfigurationError("messages must be a list of messages, and not empty")
    messages += items(body.get("chat_history"))
    found.tokens = counter.around(len(messages), prompted=True)
    found.tokens += counter.text(body.get("message")) + counter.text(body.get("preamble"))
    for message in map(mapping, messages):
        found.tokens += counter.text(message.get("message")) + counter.text(message.get("tool_plan"))
        content = message.get("content")
        for part in [content] if isinstance(content, str) else items(content):
            found.tokens += _part(part, counter, found)
        for call in map(mapping, items(message.get("tool_calls"))):
            function = mapping(call.get("function") or call)
            arguments = function.get("arguments") or function.get("parameters")
            found.tokens += counter.call(function.get("name"), arguments)
    for document in items(body.get("documents")):
        found.kinds.add("documents")
        found.tokens += _DOCUMENT + counter.text(document)
    found.tokens += counter.text(body.get("tool_results"))
    if tools := [mapping(tool) for tool in items(body.get("tools"))]:
        found.kinds.add("tools")
        found.tokens += counter.tools(tools)
    if body.get("connectors"):
        found.allowances["connectors"] = _CONNECTORS
    return found


def cohere_texts(body: Mapping[str, Any], model: str) -> int:
    """Count the texts of a request to `/embed`."""
    encoding = encoding_for(model)
    return sum(count_text(text, encoding) for text in items(body.get("texts")) if isinstance(text, str))


def _part(part: Any, counter: Templated, found: ShownInput) -> int:
    if isinstance(part, str):
        return counter.text(part)
    plain = mapping(part)
    if (document := field(plain, "document")) is not None:
        return _DOCUMENT + counter.text(document)
    if field(plain, "type") == "thinking":
        return 0
    if field(plain, "type") == "image_url":
        found.kinds.add("images")
    return counter.part(plain)
