"""Compare what recorded usages cost by our price book with what they cost by an independent table.

    python benchmarks/prices.py FILE.jsonl... [--table FILE.json] [--all]

Each line of a file is an object with `vendor`, `endpoint`, `model`, `response_model` and `usage` (as the
provider reported it); `host` and `response_extra.service_tier` count where they are there. The independent
table is LiteLLM's `model_prices_and_context_window`: its file, or that of the installed package `litellm`
(dependency group `beside`), which is not imported.

The usage is read twice: by our reader of answers into money by our book, and here, by the provider's own
names for its counters, into money by the table. Where the provider says what it billed, what we book must be
that. Printed are, by provider, how many agree to the Nano, and every class of those that do not: why, how
many, the largest ratio and an example of it. Prices are those of today on both sides.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from budgetguard.errors import UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.answer_shapes import read_whole

NANOS: Final = 10**9

# Recorded vendor -> our provider id, and the prefixes of the table's names for it.
VENDORS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "anthropic": ("anthropic", ("", "anthropic/")),
    "azure": ("azure", ("azure/", "azure_ai/", "")),
    "bedrock": ("aws", ("", "bedrock/", "bedrock_mantle/")),
    "cerebras": ("cerebras", ("cerebras/",)),
    "cohere": ("cohere", ("", "cohere/")),
    "deepseek": ("deepseek", ("deepseek/",)),
    "google": ("google", ("gemini/",)),
    "google-vertex": ("google", ("", "vertex_ai/")),
    "groq": ("groq", ("groq/",)),
    "huggingface": ("huggingface", ("huggingface/",)),
    "mistral": ("mistral", ("mistral/",)),
    "openai": ("openai", ("",)),
    "openrouter": ("openrouter", ("openrouter/",)),
    "perplexity": ("perplexity", ("perplexity/", "perplexity/perplexity/")),
    "together": ("together", ("together_ai/",)),
    "api.voyageai.com": ("voyageai", ("voyage/",)),
    "xai": ("x-ai", ("xai/",)),
    "xai.rig": ("x-ai", ("xai/",)),
}


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
    rankings: int = 0

    @property
    def prompt(self) -> int:
        """All tokens of the input, on which steps of long contexts depend."""
        return self.fresh + self.cached + self.written + self.written_1h + self.heard


@dataclass(frozen=True, slots=True)
class Result:
    """One pair: the outcome, and both costs in Nanos where there are any."""

    provider: str
    why: str
    example: str
    ours: int | None = None
    theirs: int | None = None


@dataclass(slots=True)
class Class:
    """Pairs that disagree for one reason."""

    count: int = 0
    ratio: Decimal = Decimal(0)
    example: str = ""

    def add(self, result: Result) -> None:
        """Count one pair, and keep the worst as the example."""
        self.count += 1
        ratio = Decimal(0)
        if result.theirs and result.ours is not None:
            ratio = Decimal(result.ours) / Decimal(result.theirs)
        if not self.example or abs(ratio - 1) > abs(self.ratio - 1):
            self.ratio, self.example = ratio, result.example


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--table", type=Path, help="LiteLLM's model_prices_and_context_window JSON")
    arguments.add_argument("--all", action="store_true", help="print every pair that disagrees")
    given = arguments.parse_args()
    table = json.loads(_table(given.table).read_text(), parse_float=Decimal)
    book = PriceBook()
    results = [compare(pair, book, table) for file in given.files for pair in _pairs(file)]
    if given.all:
        for one in results:
            if one.why not in _AGREE:
                print(f"{one.provider}: {one.why}: {one.example}: ours {one.ours}, theirs {one.theirs}")
    show(results)


_BILLED = "booked as billed"
_SAME = "same as the table"
_FREE = "costs nothing"
_AGREE: Final = (_BILLED, _SAME, _FREE)


def show(results: list[Result]) -> None:
    """Print the agreement of each provider, and its classes of disagreement."""
    by: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by[one.provider].append(one)
    total = Counter(one.why in _AGREE for one in results)
    for provider, found in sorted(by.items()):
        agree = Counter(one.why for one in found if one.why in _AGREE)
        told = ", ".join(f"{count} {why}" for why, count in agree.most_common())
        print(f"{provider}: {sum(agree.values())} of {len(found)} ({told})")
        classes: dict[str, Class] = defaultdict(Class)
        for one in found:
            if one.why not in _AGREE:
                classes[one.why].add(one)
        for why, its in sorted(classes.items(), key=lambda item: -item[1].count):
            print(
                f"    {its.count:4} {why}"
                + (f", x {its.ratio:.4f}" if its.ratio else "")
                + f": {its.example}"
            )
    print(f"all: {total[True]} of {len(results)}")


def compare(pair: Mapping[str, Any], book: PriceBook, table: Mapping[str, Any]) -> Result:
    """Price one pair both ways."""
    vendor = str(pair.get("vendor") or "openai")
    provider, prefixes = VENDORS[vendor]
    usage, endpoint = pair["usage"], str(pair["endpoint"])
    asked, served = pair.get("model"), pair.get("response_model")
    served = served.removeprefix("models/") if served else served
    example = f"{pair.get('id')} {endpoint} {asked}" + (
        f" -> {served}" if served not in (None, asked) else ""
    )
    if "count" in endpoint or endpoint.endswith("_input_tokens"):
        return Result(vendor, _FREE, example, 0, 0)
    tier = (pair.get("response_extra") or {}).get("service_tier") or usage.get("service_tier")
    said = read_whole(_answer(pair), str(asked or served))
    if said.usage is None and said.billed is None:
        return Result(vendor, "our reader finds no usage", example)
    try:
        rates = book.rates(str(asked or served), provider=provider)
        booked = rates.cost_of(said)
    except UnknownModelError as error:
        why = "we have no price" if error.unit is None else f"we have no price for {error.unit}"
        return Result(vendor, f"{why}: {asked}", example)
    billed = _billed(usage)
    if billed is not None:
        same = booked == billed
        return Result(
            vendor, _BILLED if same else "booked differently from the bill", example, booked, billed
        )
    counts = _counts(vendor, endpoint, usage)
    names = [name for name in (served, asked) if name]
    row = _row(table, prefixes, names)
    if row is None:
        return Result(vendor, f"the table has no such model: {served or asked}", example, booked)
    theirs = _cost(row, counts, _tier(vendor, tier, usage))
    if theirs is None:
        return Result(vendor, f"the table has no price of a unit: {served or asked}", example, booked)
    if booked == theirs:
        return Result(vendor, _SAME, example, booked, theirs)
    return Result(vendor, f"differs: {served or asked} {tier or ''}".rstrip(), example, booked, theirs)


def _table(given: Path | None) -> Path:
    if given is not None:
        return given
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        raise SystemExit("name LiteLLM's table with --table FILE, or install litellm")
    return Path(spec.origin).parent / "model_prices_and_context_window_backup.json"


def _pairs(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open() as lines:
        for line in lines:
            pair = json.loads(line)
            if pair.get("usage"):
                yield pair


# Answers as our reader gets them


def _answer(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer that has the recorded usage, in the shape of its endpoint."""
    endpoint, usage = pair["endpoint"], pair["usage"]
    model = pair.get("response_model")
    extra = pair.get("response_extra") or {}
    named = {"model": model, "service_tier": extra.get("service_tier"), "usage": usage}
    match endpoint:
        case "messages":
            return {**named, "type": "message", "role": "assistant", "content": []}
        case "gemini":
            return {"modelVersion": model, "candidates": [], "usageMetadata": usage}
        case "converse":
            return {"usage": usage, "output": {}}
        case "cohere_chat":
            return {"meta" if "api_version" in usage else "usage": usage, "message": {}}
        case "embeddings" if "billed_units" in usage:
            return {"meta": usage, "embeddings": []}
        case "rerank":
            return {**named, "object": "list", "data": []} | (
                {"meta": usage} if "billed_units" in usage else {}
            )
        case "embeddings":
            return {**named, "object": "list", "data": []}
        case "responses":
            return {**named, "object": "response", "output": _calls(pair)}
    return {**named, "object": "chat.completion", "choices": []}


def _calls(pair: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = (pair.get("response_extra") or {}).get("output_types") or ()
    return [{"type": kind} for kind in kinds if str(kind).endswith("_call")]


# The other reading


def _billed(usage: Mapping[str, Any]) -> int | None:
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


def _counts(vendor: str, endpoint: str, usage: Mapping[str, Any]) -> Counts:
    match endpoint:
        case "messages":
            return _of_anthropic(usage)
        case "gemini":
            return _of_gemini(usage)
        case "converse":
            return _of_converse(usage)
    if "billed_units" in usage:
        billed = usage["billed_units"]
        return Counts(
            fresh=_n(billed, "input_tokens") + _n(billed, "image_tokens"),
            output=_n(billed, "output_tokens"),
            rankings=_n(billed, "search_units"),
        )
    total = _n(usage, "total_tokens")
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    prompt = _n(usage, "prompt_tokens") or _n(usage, "input_tokens")
    output = _n(usage, "completion_tokens") or _n(usage, "output_tokens")
    if not prompt and not output:
        prompt = total
    cached = _n(read, "cached_tokens") or _n(usage, "num_cached_tokens") or _n(usage, "cached_tokens")
    new = _n(read, "cache_write_tokens")
    heard, spoken = _n(read, "audio_tokens"), _n(written, "audio_tokens")
    return Counts(
        fresh=max(0, prompt - cached - new - heard),
        cached=cached,
        written=new,
        heard=heard,
        output=output - spoken,
        spoken=spoken,
    )


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


def _tier(vendor: str, tier: object, usage: Mapping[str, Any]) -> str:
    named = str(tier or "").lower()
    return f"_{named}" if named in ("flex", "priority", "batch") else ""


def _row(table: Mapping[str, Any], prefixes: tuple[str, ...], names: list[str]) -> Mapping[str, Any] | None:
    for name in names:
        for prefix in prefixes:
            if (found := table.get(prefix + name)) is not None:
                return found
    return None


def _cost(row: Mapping[str, Any], counts: Counts, tier: str) -> int | None:
    """Return the table's price of a usage in Nanos; None if it has none of a unit that was used."""
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
            for end in (step + tier, step, tier, ""):
                if (found := row.get(one + end)) is not None:
                    return Decimal(found)
        return None

    searched = (row.get("search_context_cost_per_query") or {}).get("search_context_size_medium")
    asked: list[tuple[int, Decimal | None]] = [
        (counts.fresh, price("input_cost_per_token")),
        (counts.cached, price("cache_read_input_token_cost", "input_cost_per_token")),
        (counts.written, price("cache_creation_input_token_cost", "input_cost_per_token")),
        (counts.written_1h, price("cache_creation_input_token_cost_above_1hr")),
        (counts.heard, price("input_cost_per_audio_token")),
        (counts.output, price("output_cost_per_token")),
        (counts.spoken, price("output_cost_per_audio_token")),
        (counts.drawn, price("output_cost_per_image_token", "output_cost_per_token")),
        (counts.searches, None if searched is None else Decimal(searched)),
        (counts.rankings, price("input_cost_per_query")),
    ]
    total = Decimal(0)
    for number, usd in asked:
        if number and usd is None:
            return None
        total += number * (usd or 0)
    return _nanos(total)


def _nanos(usd: Decimal) -> int:
    return int((usd * NANOS).to_integral_value(rounding=ROUND_CEILING))


if __name__ == "__main__":
    main()
