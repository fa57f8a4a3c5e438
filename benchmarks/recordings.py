"""Recorded requests with the usage that was billed for them, as `benchmarks/projection.py` measures them.

Each line of a file is an object with `endpoint`, `model`, `request` (the body) and `usage` (as the provider
reported it); `vendor` names the provider, `id` the recording, `repo` and `path` its source. Endpoints are
those of budgetguard; `cohere_chat` is counted as its input is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.pricing.rates import Rates
from budgetguard.providers.anthropic.messages import MESSAGES
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.bedrock.converse import ConverseEndpoint
from budgetguard.providers.cohere.input_tokens import cohere_input, cohere_texts
from budgetguard.providers.google.generate import GeminiEndpoint
from budgetguard.providers.hidden_input import ShownInput, input_beyond, kinds_of
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.completions import COMPLETIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.hosted_tools import hidden_input
from budgetguard.providers.openai.responses import RESPONSES

# genai-prices' ids of providers that recordings name otherwise.
_PROVIDERS = {"bedrock": "aws", "xai": "x-ai", "xai.rig": "x-ai"}
# What the provider adds to the prompt for these cannot be read off the request.
_HIDDEN_INPUT = ("web_search_options", "previous_response_id", "conversation")
_UNKNOWN = {"unseen_files": "files by id", "unseen_images": "images by URL"}
# Files have a bound, not an estimate; the others have no messages.
_APART = ("hidden input", "files", "documents", "audio", "video", "embeddings", "completions")


class Counted(Endpoint):
    """An endpoint by its count of the input alone."""

    def __init__(self, name: str, count: Callable[[Body, str], ShownInput]) -> None:
        super().__init__(name, f"/{name}")
        self._count = count

    def project(self, asked: Asked) -> Projection:
        """Project the input as endpoints do, and one token of output."""
        found = self._count(asked.body, asked.model)
        shown, kinds = with_margin(found.tokens), sorted(found.kinds)
        hidden, more = input_beyond(
            self.name, asked.body, asked.model, kinds, found.all_allowances(), shown, asked.learned
        )
        return projected(
            asked.model, asked.rates, {"input_tokens": shown + more}, {"output_tokens": 1}, hidden=hidden
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return self._count(body, model).tokens


_ENDPOINTS: dict[str, Endpoint] = {
    row.name: row for row in (CHAT, EMBEDDINGS, RESPONSES, COMPLETIONS, MESSAGES)
}
_ENDPOINTS |= {
    f"{where}{how}": GeminiEndpoint("gemini", "/models/{}", vertex=where == "vertex", streamed=bool(how))
    for where in ("gemini", "vertex")
    for how in ("", " streamed")
}
_ENDPOINTS |= {
    "converse": ConverseEndpoint("converse", "/model/{}/converse"),
    "cohere_chat": Counted("cohere_chat", cohere_input),
    "cohere_embed": Counted("cohere_embed", lambda body, model: ShownInput(cohere_texts(body, model))),
}
_GEMINI = ("gemini", "vertex", "gemini streamed", "vertex streamed")
_LEARN = ("chat", "responses", "messages", *_GEMINI, "converse", "cohere_chat")


@dataclass(frozen=True)
class Row:
    """One request: what was estimated and billed, in input tokens.

    `tiered` answers name a service tier; OpenAI's of before the middle of 2025 did not, and were billed for
    prompts of the provider's own (215 tokens beside tools) that later ones are not. `used` are the kinds of
    items in the answer, where the recording has them.
    """

    id: str
    provider: str
    source: str
    recording: str
    estimate: int
    billed: int
    tiered: bool
    endpoint: str
    model: str
    request: Mapping[str, Any] = field(repr=False)
    used: frozenset[str] | None = field(repr=False)

    @property
    def error(self) -> float:
        """Relative error of the estimate, without sign."""
        return abs(self.estimate - self.billed) / self.billed

    @property
    def shortfall(self) -> int:
        """Tokens by which the projection, margin included, is too low; negative if it is not."""
        return self.billed - self.first.input_tokens

    @property
    def learns(self) -> bool:
        """Whether its endpoint learns from what settles."""
        return self.endpoint in _LEARN

    @property
    def teaches(self) -> bool:
        """Whether its answer says something of what is hidden: not if it was free to search and did not."""
        searches = any("web_search" in key for key in self.kind.split("+"))
        return not searches or self.used is None or "web_search_call" in self.used

    @property
    def shows(self) -> bool:
        """Whether it shows all of its input, and has an estimate of it rather than a bound."""
        return not self.hides and not self.kind.rpartition(": ")[2].startswith(_APART)

    @cached_property
    def first(self) -> Projection:
        """What it is projected at before anything was learned."""
        return self.project()

    @cached_property
    def kind(self) -> str:
        """What is most special about it."""
        if self.endpoint in ("chat", "responses", "embeddings", "completions"):
            return kind_of(self.request, self.endpoint)
        hidden = self.first.hidden
        if hidden is None:
            return self.endpoint
        what = hidden.key.rpartition(": ")[2]
        return f"{self.endpoint}: {_UNKNOWN.get(what, what)}"

    @cached_property
    def hides(self) -> bool:
        """Whether it is known not to show all of its input."""
        hidden = self.first.hidden
        return "files by" in self.kind or (hidden is not None and hidden.hides)

    def project(self, learned: Callable[[str], int | None] = lambda key: None) -> Projection:
        """Project it as a guard does. Nothing is paid here, so that no unit lacks a price."""
        rates = Rates.free(self.model, self.provider)
        return _ENDPOINTS[self.endpoint].project(Asked(self.request, self.model, rates, learned))


def kind_of(request: Mapping[str, Any], endpoint: str) -> str:
    """Name what is most special about a request of OpenAI's shape."""
    if endpoint in ("embeddings", "completions"):
        return endpoint
    if endpoint == "responses":
        return f"responses: {response_kind_of(request)}"
    parts = {
        part.get("type")
        for message in request["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, dict)
    }
    hosted = any(str(tool.get("type")).startswith("openrouter:") for tool in request.get("tools") or ())
    if hosted or any(request.get(key) for key in _HIDDEN_INPUT):
        return "hidden input"
    if "unseen_files" in kinds_of(request):
        return "files by id"
    if "unseen_images" in kinds_of(request):
        return "images by URL"
    for kind, types in (("files", _FILES), ("audio", {"input_audio"}), ("images", {"image_url"})):
        if parts & types:
            return kind
    tools = bool(request.get("tools") or request.get("functions"))
    called = any(m.get("tool_calls") or m.get("role") in ("tool", "function") for m in request["messages"])
    schema = (request.get("response_format") or {}).get("type") == "json_schema"
    if tools and schema:
        return "tools + structured"
    if tools:
        return "tools, with results" if called else "tools"
    if called:
        return "results, no tools"
    return "structured output" if schema else "plain chat"


_FILES = {"file", "document_url", "file_url", "video_url"}


def response_kind_of(request: Mapping[str, Any]) -> str:
    """Name what is most special about a request to the Responses API."""
    if hidden := hidden_input(request, ""):
        return "+".join(sorted(hidden))
    if "unseen_files" in kinds_of(request):
        return "files by id or URL"
    if "unseen_images" in kinds_of(request):
        return "images by URL"
    items = [item for item in request.get("input") or () if isinstance(item, dict)]
    kinds = {item.get("type") for item in items}
    content = [item.get("content") for item in items] + [item.get("output") for item in items]
    parts = {
        part.get("type") for one in content if isinstance(one, list) for part in one if isinstance(part, dict)
    }
    for kind, types in (("files", {"input_file"}), ("images", {"input_image"}), ("audio", {"input_audio"})):
        if parts & types:
            return kind
    for kind in ("compaction", "reasoning", "additional_tools"):
        if kind in kinds:
            return f"with {kind}"
    called = bool(kinds & {"function_call", "function_call_output"})
    if request.get("tools"):
        return "tools, with results" if called else "tools"
    if called:
        return "results, no tools"
    wanted = ((request.get("text") or {}).get("format") or {}).get("type")
    return "structured output" if wanted == "json_schema" else "plain"


def billed_tokens(endpoint: str, usage: Mapping[str, Any]) -> int:
    """Return the input tokens that a usage says were billed, those read from and written to a cache too."""

    def told(*names: str) -> int:
        return next((found for name in names if isinstance(found := usage.get(name), int)), 0)

    if endpoint in _GEMINI:
        return told("promptTokenCount") + told("toolUsePromptTokenCount")
    if endpoint.startswith("cohere") or "billed_units" in usage:
        units = usage.get("billed_units") or {}
        return int(units.get("input_tokens") or 0)
    if endpoint == "messages" or endpoint == "converse":
        return (
            told("input_tokens", "inputTokens")
            + told("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
            + told("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
        )
    return told("prompt_tokens", "input_tokens")


def rows(path: Path, skipped: Counter[str]) -> Iterator[Row]:
    """Yield the measured requests of a file; count the others by reason in `skipped`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        endpoint, usage = record["endpoint"], record["usage"]
        vendor = record.get("vendor") or "openai"
        if vendor == "cohere" and endpoint == "embeddings":
            endpoint = "cohere_embed"
        if vendor == "bedrock" and endpoint == "messages" and "anthropic" not in (record["model"] or ""):
            endpoint = "converse"
        if vendor == "google-vertex" and endpoint == "gemini":
            endpoint = "vertex"
        if endpoint in ("gemini", "vertex") and record.get("streamed"):
            endpoint += " streamed"
        row = _ENDPOINTS.get(endpoint)
        billed = billed_tokens(endpoint, usage)
        if row is None or not billed:
            skipped[f"{vendor} {endpoint}" if row is None else f"{vendor}: no billed prompt tokens"] += 1
            continue
        request = dict(record["request"])
        model = record["model"] or request.get("model") or record.get("response_model") or "unknown"
        if endpoint == "messages":
            request.setdefault("max_tokens", 1)
        provider = _PROVIDERS.get(vendor, vendor)
        more = {"provider": provider} if row is CHAT else {}
        yield Row(
            record.get("id") or f"{path.stem} {record.get('path')} {record.get('index')}",
            provider,
            record.get("repo", "-"),
            f"{record.get('repo')} {record.get('path', record.get('id'))}",
            row.input_tokens(request, model, **more),
            billed,
            bool(record.get("response_extra", {}).get("service_tier")),
            endpoint,
            model,
            request,
            frozenset(kinds) if (kinds := record.get("response_extra", {}).get("output_types")) else None,
        )
