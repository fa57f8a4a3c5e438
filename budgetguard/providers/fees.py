"""What providers bill beside tokens for what a request asks for: searches, sources, pages, tools of theirs.

What is priced nowhere is a unit without a price, so that the call is refused by the unit's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from typing import Any, Final

from budgetguard.providers.json import field, is_absent, items, mapping
from budgetguard.providers.openai.hosted_tools import SHOWN, WEB_SEARCH_TOKENS, offered_tools

# Tools of Gemini's have no type; these run there.
_GEMINI_TOOLS: Final = (
    "google_search",
    "googleSearch",
    "google_search_retrieval",
    "google_maps",
    "url_context",
)
# Plugins and server tools of OpenRouter that cost nothing by themselves: they change what is sent.
_FREE_PLUGINS: Final = frozenset({"response-healing", "context-compression", "auto-router", "moderation"})
_FREE_PARSERS: Final = frozenset({"pdf-text", "cloudflare-ai", "native"})
# https://openrouter.ai/docs/features/web-search: five results unless the request says; where the model's own
# provider searches, the dearest is OpenAI's, $25 for 1 000 searches: that of 7 results.
_RESULTS: Final = 5
_RESULTS_OF_A_SEARCH: Final = 7
BILLING_BY_MODEL: Final = frozenset({"openrouter", "perplexity"})
"""Providers that bill some models beside tokens, whatever the request asks for."""

# A document whose pages are read one by one is seldom longer.
_PAGES: Final = 50
# https://docs.x.ai/docs/guides/live-search: 20 results unless the request says.
_SOURCES: Final = 20
# An answer that was published used 48 searches, 10 175 tokens of citations and 95 305 of thinking:
# https://gist.github.com/simonw/ad00a97d2e70918cfbbc94d429af46ca
_RESEARCH_SEARCHES: Final = 60
_RESEARCH_CITATIONS: Final = 60_000
_RESEARCH_THOUGHT: Final = 150_000


# Where the parts of a prompt stand in a request, and in each other.
_PROMPT: Final = ("system", "messages", "input", "tools", "content")


@dataclass(slots=True)
class Fees:
    """What a request may be billed beside the tokens that it shows and is answered with.

    Attributes:
        units: the units, apart from tokens.
        input_tokens: tokens to allow for what is found and read.
        output: further units of output: parts by name, and their sum as `output_tokens`.
    """

    units: dict[str, int] = field_of(default_factory=dict)
    input_tokens: int = 0
    output: dict[str, int] = field_of(default_factory=dict)

    def search(self, unit: str, most: int) -> None:
        """Add a search: so many of the unit, and what is read of what it finds."""
        self.units[unit] = max(self.units.get(unit, 0), most)
        self.input_tokens = WEB_SEARCH_TOKENS


def fees_of(body: Mapping[str, Any], model: str, provider: str, *, chat: bool) -> Fees:
    """Return what a request is billed beside its tokens, at most: by its parameters, and for its tools.

    Args:
        body: a request for a chat completion or for a response.
        model: the model's name.
        provider: genai-prices' provider id.
        chat: any tool counts that runs at the provider; of a response, those that `hosted_tools` leaves out.
    """
    fees = Fees()
    options = body.get("web_search_options")
    if provider == "openrouter":
        _add_openrouter(fees, body, model, options)
    elif provider == "perplexity":
        if field(mapping(options), "search_type") in ("pro", "auto"):
            fees.units["tool_uses_pro_search"] = 1
        if "deep-research" in model:
            _add_research(fees)
    elif options is not None:
        # One search a call, billed beside its tokens.
        fees.units["web_searches"] = 1
    if provider == "x-ai" and (search := body.get("search_parameters")) is not None:
        _add_live_search(fees, mapping(search))
    if body.get("tools") or body.get("input"):
        _add_tools(fees, body, provider, chat=chat)
    return fees


def _add_tools(fees: Fees, body: Mapping[str, Any], provider: str, *, chat: bool) -> None:
    for kind, tool in _hosted(body):
        if not chat and not kind.startswith(("openrouter:", "live_search")):
            continue
        if provider == "openrouter" and kind == "openrouter:web_search":
            parameters = mapping(field(tool, "parameters"))
            searches = _whole(parameters, "max_uses") or _whole(parameters, "max_total_results") or 1
            fees.search("search_results", searches * _RESULTS_OF_A_SEARCH)
        elif provider == "x-ai" and kind == "live_search":
            _add_live_search(fees, tool)
        elif kind != "openrouter:datetime":
            fees.units[f"tool_uses_{_plain(kind)}"] = 1


def marked_for_cache(body: Mapping[str, Any]) -> str | None:
    """Return the unit by which a request's prompt is billed that it marks to be kept; None if it does not.

    Anthropic's `cache_control`, on the request or on any part of its prompt; for an hour it is dearer.
    """
    found: str | None = None
    waiting = [body]
    while waiting:
        part = waiting.pop()
        control = part.get("cache_control")
        if control is not None and not is_absent(control):
            if field(control, "ttl") == "1h":
                return "cache_write_1h_tokens"
            found = "cache_write_tokens"
        for name in _PROMPT:
            inner = part.get(name)
            if isinstance(inner, list | tuple):
                for one in inner:
                    waiting.append(one if type(one) is dict else mapping(one))
    return found


def _add_openrouter(fees: Fees, body: Mapping[str, Any], model: str, options: Any) -> None:
    if options is not None or model.endswith(":online"):
        fees.search("search_results", _RESULTS_OF_A_SEARCH)
    for one in items(field(body, "plugins")):
        plugin = mapping(one)
        name = str(field(plugin, "id"))
        if field(plugin, "enabled") is False or name in _FREE_PLUGINS:
            continue
        if name == "web":
            most = _whole(plugin, "max_results") or _RESULTS
            fees.search("search_results", max(most, _RESULTS_OF_A_SEARCH))
        elif name == "file-parser":
            if field(mapping(field(plugin, "pdf")), "engine") not in _FREE_PARSERS:
                fees.units["input_document_pages"] = _PAGES
        else:
            fees.units[f"tool_uses_{_plain(name)}"] = 1


def _add_live_search(fees: Fees, search: Mapping[str, Any]) -> None:
    if field(search, "mode") != "off":
        fees.search("search_sources", _whole(search, "max_search_results") or _SOURCES)


def _add_research(fees: Fees) -> None:
    fees.units["web_searches"] = _RESEARCH_SEARCHES
    fees.output = {
        "output_tokens": _RESEARCH_CITATIONS + _RESEARCH_THOUGHT,
        "output_citation_tokens": _RESEARCH_CITATIONS,
        "output_reasoning_tokens": _RESEARCH_THOUGHT,
    }


def _hosted(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for tool in offered_tools(body):
        kind = field(tool, "type")
        if isinstance(kind, str):
            if kind not in SHOWN:
                yield kind, tool
        else:
            yield from ((name, tool) for name in _GEMINI_TOOLS if name in tool)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "other"


def _whole(mapping: Mapping[str, Any], name: str) -> int | None:
    value = field(mapping, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
