"""Measure projected input tokens against what real requests were billed.

    python benchmarks/projection.py FILE.jsonl [--worst N] [--kind KIND]

Each line of the file is an object with `id`, `endpoint` (`chat` or `embeddings`; others are counted
and skipped), `model`, `request` (the body) and `usage` (as the provider reported it). By kind of
request it prints how many estimates are exact, within 1 %, and too low; the 50th, 90th and 99th
percentile of the relative error; the same for the estimate with its margin; and the id of the worst
shortfall. No request text is printed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetguard.projection import chat_input_tokens, embedding_input_tokens, with_margin

# What the provider adds to the prompt for these cannot be read off the request.
_HIDDEN_INPUT = ("web_search_options", "previous_response_id", "conversation")


@dataclass(frozen=True, slots=True)
class Row:
    """One request: what was estimated and what was billed, in input tokens."""

    id: str
    kind: str
    estimate: int
    billed: int

    @property
    def error(self) -> float:
        """Relative error of the estimate, without sign."""
        return abs(self.estimate - self.billed) / self.billed

    @property
    def shortfall(self) -> int:
        """Tokens by which the projection, margin included, is too low; negative if it is not."""
        return self.billed - with_margin(self.estimate)


def kind_of(request: Mapping[str, Any], endpoint: str) -> str:
    """Name what is most special about a request."""
    if endpoint == "embeddings":
        return "embeddings"
    parts = {
        part.get("type")
        for message in request["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if isinstance(part, dict)
    }
    if any(request.get(key) for key in _HIDDEN_INPUT):
        return "hidden input"
    for kind, types in (("files", {"file"}), ("audio", {"input_audio"}), ("images", {"image_url"})):
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


def rows(path: Path, skipped: Counter[str]) -> Iterator[Row]:
    """Yield the measured requests of a file; count the others by reason in `skipped`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        endpoint, usage = record["endpoint"], record["usage"]
        count = {"chat": chat_input_tokens, "embeddings": embedding_input_tokens}.get(endpoint)
        billed = usage.get("prompt_tokens")
        if count is None or not billed:
            skipped[endpoint if count is None else "no billed prompt tokens"] += 1
            continue
        model = record["model"] or record["request"].get("model") or record.get("response_model")
        estimate = count(record["request"], model)
        yield Row(record["id"], kind_of(record["request"], endpoint), estimate, billed)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def report(kind: str, measured: list[Row]) -> str:
    """Return one line of figures."""
    errors = [row.error for row in measured]
    count = len(measured)
    worst = max(measured, key=lambda row: row.shortfall)
    low = sum(row.estimate < row.billed for row in measured)
    short = sum(row.shortfall > 0 for row in measured)
    named = f"{worst.id} ({worst.shortfall} short)" if worst.shortfall > 0 else "-"
    return (
        f"{kind:20} {count:5} {sum(row.estimate == row.billed for row in measured):6} "
        f"{sum(error <= 0.01 for error in errors):6} "
        f"{percentile(errors, 0.5):7.1%} {percentile(errors, 0.9):7.1%} {percentile(errors, 0.99):8.1%} "
        f"{low / count:7.1%} {short / count:9.2%}  {named}"
    )


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="name the N worst estimates")
    parser.add_argument("--kind", help="of this kind only")
    arguments = parser.parse_args()
    skipped: Counter[str] = Counter()
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows(arguments.file, skipped):
        by_kind[row.kind].append(row)
    print(
        f"{'kind':20} {'n':>5} {'exact':>6} {'<=1%':>6} {'p50':>7} {'p90':>7} {'p99':>8} {'low':>7} "
        f"{'low+margin':>9}  worst shortfall of the projection with its margin"
    )
    for kind in sorted(by_kind, key=lambda kind: -len(by_kind[kind])):
        print(report(kind, by_kind[kind]))
    seen = [
        row for kind, some in by_kind.items() if kind not in ("hidden input", "embeddings") for row in some
    ]
    if seen:
        print(report("all chat but hidden", seen))
    if skipped:
        print("skipped:", ", ".join(f"{reason} {count}" for reason, count in skipped.items()))
    wanted = [row for some in by_kind.values() for row in some if arguments.kind in (None, row.kind)]
    for row in sorted(wanted, key=lambda row: -row.error)[: arguments.worst]:
        print(f"  {row.id} {row.kind:20} estimate {row.estimate} billed {row.billed} ({row.error:+.1%})")


if __name__ == "__main__":
    main()
