"""Measure projected input tokens against what real requests were billed.

    python benchmarks/projection.py FILE.jsonl [--worst N] [--kind KIND]

Each line of the file is an object with `id`, `endpoint` (`chat`, `responses`, `completions` or
`embeddings`; others are counted and skipped), `model`, `request` (the body) and `usage` (as the provider
reported it). By kind of request it prints how many estimates are exact, within 1 %, and too low; the
50th, 90th and 99th percentile of the relative error; the same for the estimate with its margin; and the
id of the worst shortfall. A request that does not show all of its input (hosted tools, turns kept by the
provider) is measured by its allowance: how many it covers at first, and when it was learned from the
other requests of the same kind. No request text is printed.
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

from budgetguard.counting.hosted_tools import hidden_input
from budgetguard.learning import QUANTILE
from budgetguard.projection import (
    chat_input_tokens,
    completion_input_tokens,
    embedding_input_tokens,
    response_input_tokens,
    with_margin,
)

# What the provider adds to the prompt for these cannot be read off the request.
_HIDDEN_INPUT = ("web_search_options", "previous_response_id", "conversation")
_COUNTS = {
    "chat": chat_input_tokens,
    "embeddings": embedding_input_tokens,
    "responses": response_input_tokens,
    "completions": completion_input_tokens,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One request: what was estimated, allowed beyond it at first, and billed, in input tokens.

    `tiered` answers name a service tier; those of before the middle of 2025 did not, and were billed for
    prompts of the provider's own (215 tokens beside tools) that later ones are not.
    """

    id: str
    kind: str
    estimate: int
    billed: int
    allowance: int = 0
    tiered: bool = True

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


def response_kind_of(request: Mapping[str, Any]) -> str:
    """Name what is most special about a request to the Responses API."""
    if hidden := hidden_input(request, ""):
        return "+".join(sorted(hidden))
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


def rows(path: Path, skipped: Counter[str]) -> Iterator[Row]:
    """Yield the measured requests of a file; count the others by reason in `skipped`."""
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        endpoint, usage = record["endpoint"], record["usage"]
        count = _COUNTS.get(endpoint)
        billed = usage.get("prompt_tokens") or usage.get("input_tokens")
        if count is None or not billed:
            skipped[endpoint if count is None else "no billed prompt tokens"] += 1
            continue
        model = record["model"] or record["request"].get("model") or record.get("response_model")
        request = record["request"]
        tiered = bool(record.get("response_extra", {}).get("service_tier"))
        allowed = sum(hidden_input(request, model).values()) if endpoint == "responses" else 0
        yield Row(record["id"], kind_of(request, endpoint), count(request, model), billed, allowed, tiered)


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
        f"{kind:34} {count:5} {sum(row.estimate == row.billed for row in measured):6} "
        f"{sum(error <= 0.01 for error in errors):6} "
        f"{percentile(errors, 0.5):7.1%} {percentile(errors, 0.9):7.1%} {percentile(errors, 0.99):8.1%} "
        f"{low / count:7.1%} {short / count:9.2%}  {named}"
    )


def report_allowance(kind: str, measured: list[Row]) -> str:
    """Return one line on a kind whose input is not all shown."""
    beyond = [max(1, row.billed - row.estimate) for row in measured]
    first = sum(row.shortfall <= row.allowance for row in measured)
    learned = sum(
        row.shortfall <= percentile([*map(float, beyond[:at]), *map(float, beyond[at + 1 :])], QUANTILE)
        for at, row in enumerate(measured)
        if len(measured) > 1
    )
    return (
        f"{kind:34} {len(measured):5} {percentile([*map(float, beyond)], 0.5):8.0f} {max(beyond):8} "
        f"{measured[0].allowance:10} {first / len(measured):7.0%} {learned / len(measured):8.0%}"
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
    hidden = {kind: some for kind, some in by_kind.items() if any(row.allowance for row in some)}
    print(
        f"{'kind':34} {'n':>5} {'exact':>6} {'<=1%':>6} {'p50':>7} {'p90':>7} {'p99':>8} {'low':>7} "
        f"{'low+margin':>9}  worst shortfall of the projection with its margin"
    )
    for kind in sorted(by_kind.keys() - hidden.keys(), key=lambda kind: -len(by_kind[kind])):
        print(report(kind, by_kind[kind]))
    apart = ("hidden input", "files", "responses: files", "embeddings", "completions", *hidden)
    shown = [row for kind, some in by_kind.items() if kind not in apart for row in some]
    responses = [row for row in shown if row.kind.startswith("responses")]
    for name, some in (
        ("all chat that shows its input", [row for row in shown if not row.kind.startswith("responses")]),
        ("all responses that show theirs", responses),
        ("  of these, with a tier", [row for row in responses if row.tiered]),
    ):
        if some:
            print(report(name, some))
    if hidden:
        print(
            f"\n{'beyond what the request shows':34} {'n':>5} {'median':>8} {'most':>8} {'allowed':>10} "
            "covers  learned"
        )
    for kind in sorted(hidden, key=lambda kind: -len(hidden[kind])):
        print(report_allowance(kind, hidden[kind]))
    if skipped:
        print("skipped:", ", ".join(f"{reason} {count}" for reason, count in skipped.items()))
    wanted = [row for some in by_kind.values() for row in some if arguments.kind in (None, row.kind)]
    for row in sorted(wanted, key=lambda row: -row.error)[: arguments.worst]:
        print(f"  {row.id} {row.kind:34} estimate {row.estimate} billed {row.billed} ({row.error:+.1%})")


if __name__ == "__main__":
    main()
