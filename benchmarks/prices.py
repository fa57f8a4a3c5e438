"""Compare what recorded usages cost by our price book with what they cost by an independent table.

    python benchmarks/prices.py FILE.jsonl... [--table FILE.json]... [--all]

Each line of a file is an object with `vendor`, `endpoint`, `model`, `response_model` and `usage` (as the
provider reported it); `request.tools` and `response_extra` (`service_tier`, `output_types`) count where they
are there. The independent table is LiteLLM's `model_prices_and_context_window`: its file, or that of the
installed package `litellm` (dependency group `beside`), which is not imported. Of several the first that has
a model counts: an older one has the retired models.

The usage is read twice: by our reader of answers into money by our book, and in `price_table.py`, by the
provider's own names for its counters, into money by the table. Where the provider says what it billed, what
we book must be that. Printed are, by provider, how many agree to the Nano, and every class of those that do
not: why, how many, the largest ratio and an example of it. Prices are those of today on both sides, at an
hour at which DeepSeek charges its full price, as the table has it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from price_table import Table, billed, cost_of, counts_of, tools_of

from budgetguard.errors import UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.answer_shapes import read_whole

# Recorded vendor -> our id of the provider, where it is another.
PROVIDERS: Final[Mapping[str, str]] = {
    "bedrock": "aws",
    "google-vertex": "google",
    "api.voyageai.com": "voyageai",
    "xai": "x-ai",
    "xai.rig": "x-ai",
}
_BILLED: Final = "booked as billed"
_SAME: Final = "same as the table"
_FREE: Final = "costs nothing"
_AGREE: Final = (_BILLED, _SAME, _FREE)
# What an answer names and a record has not kept.
_UNTOLD: Final[Mapping[str, str]] = {
    "image_generation_call": "the drawn image's size",
    "code_interpreter_call": "which container ran",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One pair: the outcome, and both costs in Nanos where there are any."""

    provider: str
    why: str
    example: str
    ours: int | None = None
    theirs: int | None = None

    @property
    def ratio(self) -> Decimal | None:
        """Ours to theirs."""
        return Decimal(self.ours) / self.theirs if self.theirs and self.ours is not None else None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument(
        "--table",
        type=Path,
        action="append",
        default=[],
        help="LiteLLM's model_prices_and_context_window JSON",
    )
    arguments.add_argument("--all", action="store_true", help="print every pair that disagrees")
    given = arguments.parse_args()
    table = Table(given.table)
    at = datetime.now(UTC).replace(hour=2, minute=0)
    book = PriceBook()
    results = [compare(pair, book, table, at) for file in given.files for pair in _pairs(file)]
    if given.all:
        for one in results:
            if one.why not in _AGREE:
                print(f"{one.provider}: {one.why}: {one.example}: ours {one.ours}, theirs {one.theirs}")
    show(results)


def show(results: list[Result]) -> None:
    """Print the agreement of each provider, and its classes of disagreement."""
    by: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        by[one.provider].append(one)
    for provider, found in sorted(by.items()):
        agree = Counter(one.why for one in found if one.why in _AGREE)
        told = ", ".join(f"{count} {why}" for why, count in agree.most_common())
        print(f"{provider}: {agree.total()} of {len(found)} ({told})")
        classes: dict[str, list[Result]] = defaultdict(list)
        for one in found:
            if one.why not in _AGREE:
                classes[one.why].append(one)
        for why, its in sorted(classes.items(), key=lambda item: -len(item[1])):
            worst = max(its, key=lambda one: abs((one.ratio or 1) - 1))
            times = "" if worst.ratio is None else f", x {worst.ratio:.4f}"
            print(f"    {len(its):4} {why}{times}: {worst.example}")
    print(f"all: {sum(one.why in _AGREE for one in results)} of {len(results)}")


def compare(pair: Mapping[str, Any], book: PriceBook, table: Table, at: datetime) -> Result:
    """Price one pair both ways."""
    vendor = str(pair.get("vendor") or "openai")
    usage, endpoint = pair["usage"], str(pair["endpoint"])
    asked, served = pair.get("model"), pair.get("response_model")
    served = served.removeprefix("models/") if served else None
    model = str(asked or served)
    other = "" if served in (None, asked) else f" -> {served}"
    example = f"{pair.get('id')} {endpoint} {asked}{other}"
    if "count" in endpoint or endpoint.endswith("_input_tokens"):
        return Result(vendor, _FREE, example, 0, 0)
    said = read_whole(_answer(pair), model)
    if said.usage is None and said.billed is None:
        return Result(vendor, "the record counts nothing that we price", example)
    try:
        booked = book.rates(model, provider=PROVIDERS.get(vendor, vendor), at=at).cost_of(said)
    except UnknownModelError as error:
        why = "we have no price" if error.unit is None else f"we have no price for {error.unit}"
        return Result(vendor, f"{why}: {asked}", example)
    bill = billed(usage)
    if bill is not None:
        why = _BILLED if booked == bill else "booked differently from the bill"
        return Result(vendor, why, example, booked, bill)
    row = table.row(vendor, asked, served)
    if row is None:
        return Result(vendor, f"the table has no such model: {served or asked}", example, booked)
    tier = (pair.get("response_extra") or {}).get("service_tier") or usage.get("service_tier")
    theirs = cost_of(row, counts_of(pair), tier)
    if theirs is None:
        return Result(vendor, f"the table has no price of a unit: {served or asked}", example, booked)
    if booked == theirs:
        return Result(vendor, _SAME, example, booked, theirs)
    used = (pair.get("response_extra") or {}).get("output_types") or ()
    for kind, what in _UNTOLD.items():
        if kind in used:
            return Result(vendor, f"the record does not tell {what}", example, booked, theirs)
    return Result(vendor, f"differs: {served or asked} {tier or ''}".rstrip(), example, booked, theirs)


def _pairs(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open() as lines:
        for line in lines:
            pair = json.loads(line)
            if pair.get("usage"):
                yield pair


def _answer(pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer that has the recorded usage, in the shape of its endpoint."""
    endpoint, usage = pair["endpoint"], pair["usage"]
    model = pair.get("response_model")
    extra = pair.get("response_extra") or {}
    named = {"model": model, "service_tier": extra.get("service_tier"), "usage": usage}
    if endpoint == "gemini":
        return {"modelVersion": model, "candidates": [], "usageMetadata": usage}
    if "inputTokens" in usage:
        return {"usage": usage, "output": {}}
    match endpoint:
        case "messages":
            return {**named, "type": "message", "role": "assistant", "content": []}
        case "cohere_chat":
            return {"meta" if "api_version" in usage else "usage": usage, "message": {}}
        case "embeddings" if "billed_units" in usage:
            return {"meta": usage, "embeddings": []}
        case "embeddings" | "rerank":
            meta = {"meta": usage} if "billed_units" in usage else {}
            return {**named, "object": "list", "data": [], **meta}
        case "responses":
            kinds = [str(kind) for kind in extra.get("output_types") or ()]
            calls = [{"type": kind} for kind in kinds if kind.endswith("_call")]
            return {**named, "object": "response", "output": calls, "tools": tools_of(pair)}
    return {**named, "object": "chat.completion", "choices": []}


if __name__ == "__main__":
    main()
