"""A second reading of recorded usages, into money by LiteLLM's table of prices, without the package.

Each provider's own names for its counters are read here, as its documentation has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

Row = Mapping[str, Any]

# Recorded vendor -> the prefixes of the table's names for its models.
PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("", "anthropic/"),
    "azure": ("azure/", "azure_ai/", ""),
    "bedrock": ("", "bedrock/", "bedrock_mantle/"),
    "cerebras": ("cerebras/",),
    "cohere": ("", "cohere/"),
    "deepseek": ("deepseek/",),
    "google": ("gemini/",),
    "google-vertex": ("", "vertex_ai/"),
    "groq": ("groq/",),
    "huggingface": ("huggingface/",),
    "mistral": ("mistral/",),
    "openai": ("",),
    "openrouter": ("openrouter/",),
    "perplexity": ("perplexity/", "perplexity/perplexity/"),
    "together": ("together_ai/",),
    "api.voyageai.com": ("voyage/",),
    "xai": ("xai/",),
    "xai.rig": ("xai/",),
}
# Where the asked name tells the price, and the served one at most the model: the region, the deployment.
_BY_ASKED: Final = frozenset({"bedrock"})
_ASKED_ELSE: Final = frozenset({"azure", "google-vertex"})
# USD each, of any model, by OpenAI's and Anthropic's price pages; the table prices a preview's searches.
_SEARCH: Final = Decimal("0.01")
_FILE_SEARCH: Final = Decimal("0.0025")


@dataclass(frozen=True, slots=True)
class Counts:
    """A usage by the provider's own counters: what is billed at which of the table's prices."""

    fresh: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    heard: int = 0
    output: int = 0
    spoken: int = 0
    drawn: int = 0
    searches: int = 0
    previews: int = 0
    file_searches: int = 0
    rankings: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the input, on which steps of long contexts depend."""
        return self.fresh + self.cached + self.written + self.written_1h + self.heard


class Table:
    """LiteLLM's `model_prices_and_context_window`, of files or of the installed package, not imported.

    Of several files the first that has a model counts: newer ones have dropped retired models.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        if not files:
            spec = find_spec("litellm")
            if spec is None or spec.origin is None:
                raise SystemExit("name LiteLLM's table with --table FILE, or install litellm")
            files = [Path(spec.origin).parent / "model_prices_and_context_window_backup.json"]
        self._tables: list[Mapping[str, Row]] = [
            json.loads(file.read_text(), parse_float=Decimal) for file in files
        ]

    def row(self, vendor: str, asked: str | None, served: str | None) -> Row | None:
        """Return the row of the model that served a call, or None."""
        names = [served or asked, (served or "").partition(":")[0]]
        if vendor in _BY_ASKED:
            names = [asked, served]
        elif vendor in _ASKED_ELSE:
            names = [served, asked]
        for rows in self._tables:
            for name in names:
                for prefix in PREFIXES[vendor] if name else ():
                    if (found := rows.get(f"{prefix}{name}")) is not None:
                        return found
        return None


def billed(usage: Mapping[str, Any]) -> int | None:
    """Return the Nanos that a provider says it billed, or None."""
    if (ticks := usage.get("cost_in_usd_ticks")) is not None:
        return -(-int(ticks) // 10)
    cost = usage.get("cost")
    if isinstance(cost, Mapping):
        cost = cost.get("total_cost")
    if cost is None:
        return None
    usd = Decimal(str(cost))
    if usage.get("is_byok"):
        usd += Decimal(str((usage.get("cost_details") or {}).get("upstream_inference_cost") or 0))
    return _nanos(usd)


def cost_of(row: Row, counts: Counts, tier: object) -> int | None:
    """Return the table's price of a usage in Nanos; None if it has none of a unit that was used."""
    named = str(tier or "").lower()
    served = f"_{named}" if named in ("flex", "priority", "batch") else ""
    steps = sorted(
        {
            int(key.partition("_above_")[2].partition("k_tokens")[0])
            for key in row
            if key.startswith("input_cost_per_token_above_") and key.endswith("k_tokens")
        }
    )
    step = next((f"_above_{k}k_tokens" for k in reversed(steps) if counts.prompt > k * 1_000), "")

    def price(name: str, *others: str) -> Decimal | None:
        for one in (name, *others):
            for end in (step + served, step, served, ""):
                if (found := row.get(one + end)) is not None:
                    return Decimal(found)
        return None

    previewed = (row.get("search_context_cost_per_query") or {}).get("search_context_size_medium")
    asked: list[tuple[int, Decimal | None]] = [
        (counts.fresh, price("input_cost_per_token")),
        (counts.cached, price("cache_read_input_token_cost", "input_cost_per_token")),
        (counts.written, price("cache_creation_input_token_cost", "input_cost_per_token")),
        (counts.written_1h, price("cache_creation_input_token_cost_above_1hr")),
        (counts.heard, price("input_cost_per_audio_token")),
        (counts.output, price("output_cost_per_token")),
        (counts.spoken, price("output_cost_per_audio_token")),
        (counts.drawn, price("output_cost_per_image_token", "output_cost_per_token")),
        (counts.searches, _SEARCH),
        (counts.file_searches, _FILE_SEARCH),
        (counts.previews, None if previewed is None else Decimal(previewed)),
        (counts.rankings, price("input_cost_per_query")),
    ]
    total = Decimal(0)
    for number, usd in asked:
        if number and usd is None:
            return None
        total += number * (usd or 0)
    return _nanos(total)


def counts_of(pair: Mapping[str, Any]) -> Counts:
    """Return what a recorded pair counts, by the shape of its usage and the tools that its answer used."""
    usage, endpoint = pair["usage"], pair["endpoint"]
    if endpoint == "gemini":
        return _of_gemini(usage)
    if "inputTokens" in usage:
        return _of_converse(usage)
    if endpoint == "messages":
        return _of_anthropic(usage)
    if "billed_units" in usage:
        units = usage["billed_units"]
        return Counts(
            fresh=_n(units, "input_tokens") + _n(units, "image_tokens"),
            output=_n(units, "output_tokens"),
            rankings=_n(units, "search_units"),
        )
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    prompt = _n(usage, "prompt_tokens") or _n(usage, "input_tokens")
    output = _n(usage, "completion_tokens") or _n(usage, "output_tokens")
    if not prompt and not output:
        prompt = _n(usage, "total_tokens")
    cached = _n(read, "cached_tokens") or _n(usage, "num_cached_tokens") or _n(usage, "cached_tokens")
    new = _n(read, "cache_write_tokens")
    heard, spoken = _n(read, "audio_tokens"), _n(written, "audio_tokens")
    used = list((pair.get("response_extra") or {}).get("output_types") or ())
    searches = used.count("web_search_call")
    preview = any(str(one.get("type")).startswith("web_search_preview") for one in tools_of(pair))
    return Counts(
        fresh=max(0, prompt - cached - new - heard),
        cached=cached,
        written=new,
        heard=heard,
        output=output - spoken,
        spoken=spoken,
        searches=0 if preview else searches,
        previews=searches if preview else 0,
        file_searches=used.count("file_search_call"),
    )


def tools_of(pair: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tools that a recorded request gave."""
    given = (pair.get("request") or {}).get("tools") or ()
    return [one for one in given if isinstance(one, Mapping)]


def _of_anthropic(usage: Mapping[str, Any]) -> Counts:
    split = usage.get("cache_creation") or {}
    hour = _n(split, "ephemeral_1h_input_tokens")
    parts = usage.get("iterations") or []
    whole = {name: sum(_n(one, name) for one in parts) for name in ("input_tokens", "output_tokens")}
    return Counts(
        fresh=max(_n(usage, "input_tokens"), whole["input_tokens"]),
        cached=_n(usage, "cache_read_input_tokens"),
        written=_n(usage, "cache_creation_input_tokens") - hour,
        written_1h=hour,
        output=max(_n(usage, "output_tokens"), whole["output_tokens"]),
        searches=_n(usage.get("server_tool_use") or {}, "web_search_requests"),
    )


def _of_gemini(usage: Mapping[str, Any]) -> Counts:
    def of(details: str, modality: str) -> int:
        return sum(_n(one, "tokenCount") for one in usage.get(details) or () if one["modality"] == modality)

    cached = _n(usage, "cachedContentTokenCount")
    heard = of("promptTokensDetails", "AUDIO") - of("cacheTokensDetails", "AUDIO")
    drawn = of("candidatesTokensDetails", "IMAGE")
    spoken = of("candidatesTokensDetails", "AUDIO")
    prompt = _n(usage, "promptTokenCount") + _n(usage, "toolUsePromptTokenCount")
    output = _n(usage, "candidatesTokenCount") + _n(usage, "thoughtsTokenCount")
    return Counts(
        fresh=prompt - cached - heard,
        cached=cached,
        heard=heard,
        output=output - drawn - spoken,
        spoken=spoken,
        drawn=drawn,
    )


def _of_converse(usage: Mapping[str, Any]) -> Counts:
    hour = sum(_n(one, "inputTokens") for one in usage.get("cacheDetails") or () if one.get("ttl") == "1h")
    written = _n(usage, "cacheWriteInputTokens") or _n(usage, "cacheWriteInputTokenCount")
    return Counts(
        fresh=_n(usage, "inputTokens"),
        cached=_n(usage, "cacheReadInputTokens") or _n(usage, "cacheReadInputTokenCount"),
        written=written - hour,
        written_1h=hour,
        output=_n(usage, "outputTokens"),
    )


def _n(usage: Mapping[str, Any], name: str) -> int:
    return int(usage.get(name) or 0)


def _nanos(usd: Decimal) -> int:
    return int((usd * 10**9).to_integral_value(rounding=ROUND_CEILING))
