"""Measure projected input tokens against what real requests were billed.

    python benchmarks/projection.py FILE.jsonl [--worst N] [--kind KIND] [--folds N] [--seeds N]

Each line of the file is an object with `id`, `endpoint` (`chat`, `responses`, `completions` or
`embeddings`; others are counted and skipped), `model`, `request` (the body) and `usage` (as the provider
reported it); `repo` and `path` name the source and the recording, where there are any. Printed are:

- By kind of request, how many estimates are exact, within 1 %, and too low; the 50th, 90th and 99th
  percentile of the relative error; how many projections (with their margin) are too low, and the worst.
- The same by source, since a rule that fits one source alone is no rule.
- What learning changes. Recordings are split into folds. For each fold a project settles the requests of
  the other folds, 300 of each model and shape, drawn at random; then the requests of the fold are projected
  with what it learned. Nothing is projected with what was learned from its own recording.

Nothing is fitted here, and no request text is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from budgetguard.core.usage import Observations, learned_cap, observe
from budgetguard.engine.projection import Projection, with_margin
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.base import Asked, Endpoint
from budgetguard.providers.hidden_input import kinds_of
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.completions import COMPLETIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.hosted_tools import hidden_input
from budgetguard.providers.openai.responses import RESPONSES

# What the provider adds to the prompt for these cannot be read off the request.
_HIDDEN_INPUT = ("web_search_options", "previous_response_id", "conversation")
_ENDPOINTS: dict[str, Endpoint] = {row.name: row for row in (CHAT, EMBEDDINGS, RESPONSES, COMPLETIONS)}
_LEARN = ("chat", "responses")
# Calls of each model and shape that a project settles before the held-out ones are projected.
_SETTLED = 300


@dataclass(frozen=True, slots=True)
class Row:
    """One request: what was estimated and billed, in input tokens.

    `tiered` answers name a service tier; those of before the middle of 2025 did not, and were billed for
    prompts of the provider's own (215 tokens beside tools) that later ones are not.
    """

    id: str
    kind: str
    source: str
    recording: str
    estimate: int
    billed: int
    tiered: bool
    hides: bool
    endpoint: str
    model: str
    request: Mapping[str, Any] = field(repr=False)

    @property
    def error(self) -> float:
        """Relative error of the estimate, without sign."""
        return abs(self.estimate - self.billed) / self.billed

    @property
    def shortfall(self) -> int:
        """Tokens by which the projection, margin included, is too low; negative if it is not."""
        return self.billed - with_margin(self.estimate)

    @property
    def learns(self) -> bool:
        """Whether its endpoint learns from what settles."""
        return self.endpoint in _LEARN

    def project(self, learned: Callable[[str], int | None] = lambda key: None) -> Projection:
        """Project it as a guard does."""
        return _ENDPOINTS[self.endpoint].project(Asked(self.request, self.model, _FREE, learned))


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
    if "unseen_files" in kinds_of(request):
        return "files by id"
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
    if "unseen_files" in kinds_of(request):
        return "files by id or URL"
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
        row = _ENDPOINTS.get(endpoint)
        billed = usage.get("prompt_tokens") or usage.get("input_tokens")
        if row is None or not billed:
            skipped[endpoint if row is None else "no billed prompt tokens"] += 1
            continue
        request = record["request"]
        model = record["model"] or request.get("model") or record.get("response_model")
        kind = kind_of(request, endpoint)
        yield Row(
            record["id"],
            kind,
            record.get("repo", "-"),
            f"{record.get('repo')} {record.get('path', record['id'])}",
            row.input_tokens(request, model),
            billed,
            bool(record.get("response_extra", {}).get("service_tier")),
            "files by" in kind or bool(endpoint == "responses" and hidden_input(request, model)),
            endpoint,
            model,
            request,
        )


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request was projected at before and after its project had learned, margin included."""

    row: Row
    first: int
    learned: int


def learn(some: list[Row], folds: int, seeds: int) -> list[Outcome]:
    """Project every request with what a project learned from other recordings, once for each seed."""
    outcomes = []
    first = {row.id: row.project() for row in some}
    for seed in range(seeds):
        dice = random.Random(seed)
        for fold in range(folds):
            # By key: what each of its answers teaches.
            taught: dict[str, list[int]] = defaultdict(list)
            held = []
            for row in some:
                hidden = first[row.id].hidden
                if (zlib.crc32(row.recording.encode()) + seed) % folds == fold:
                    held.append(row)
                elif hidden is not None:
                    taught[hidden.key].append(hidden.observed(row.billed))
            known = {
                key: learned_cap(_settled(dice.choices(all_, k=_SETTLED))) for key, all_ in taught.items()
            }
            for row in held:
                since = row.project(known.get)
                outcomes.append(Outcome(row, first[row.id].input_tokens, since.input_tokens))
    return outcomes


def _settled(observed: list[int]) -> Observations:
    counts: Observations = {}
    for tokens in observed:
        counts = observe(counts, tokens)
    return counts


def report_learned(kind: str, some: list[Outcome]) -> str:
    """Return one line on what learning changed."""
    first = [max(0, one.row.billed - one.first) for one in some]
    learned = [max(0, one.row.billed - one.learned) for one in some]
    above = [abs(one.first - one.row.billed) / one.row.billed for one in some]
    since = [abs(one.learned - one.row.billed) / one.row.billed for one in some]
    taught = sum(one.first != one.learned for one in some)
    covered, since_covered = (sum(low == 0 for low in lows) / len(some) for lows in (first, learned))
    return (
        f"{kind:34} {len({one.row.id for one in some}):5} {taught / len(some):7.0%} "
        f"{covered:8.1%} {since_covered:8.1%} "
        f"{max(first):8} {max(learned):8} {percentile(above, 0.9):8.0%} {percentile(since, 0.9):8.0%}"
    )


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="name the N worst estimates")
    parser.add_argument("--kind", help="name those of this kind only")
    parser.add_argument("--folds", type=int, default=5, help="parts that the recordings are split into")
    parser.add_argument("--seeds", type=int, default=3, help="how often the drawing is repeated")
    arguments = parser.parse_args()
    skipped: Counter[str] = Counter()
    measured = list(rows(arguments.file, skipped))
    shown = [row for row in measured if not row.hides]
    head = f"{'n':>5} {'exact':>6} {'<=1%':>6} {'p50':>7} {'p90':>7} {'p99':>8} {'low':>7} {'low+margin':>9}"
    print(f"{'SHOWING ALL OF THEIR INPUT':34} {head}  worst shortfall of the projection with its margin")
    for kind, some in by(shown, lambda row: row.kind):
        print(report(kind, some))
    # Files have a bound, not an estimate; the others have no messages.
    apart = ("hidden input", "files", "responses: files", "embeddings", "completions")
    chats = [row for row in shown if row.kind not in apart]
    responses = [row for row in chats if row.endpoint == "responses"]
    for name, some in (
        ("all chat", [row for row in chats if row.endpoint == "chat"]),
        ("all responses", responses),
        ("  of these, with a tier", [row for row in responses if row.tiered]),
        ("all", chats),
    ):
        if some:
            print(report(name, some))
    print(f"\n{'THE SAME BY SOURCE':34} {head}  worst shortfall")
    for source, some in by(chats, lambda row: row.source):
        print(report(source[-34:], some))
    outcomes = learn([row for row in measured if row.learns], arguments.folds, arguments.seeds)
    print(
        f"\n{'LEARNED FROM OTHER RECORDINGS':34} {'n':>5} {'changed':>7} {'covered':>8} {'learned':>8} "
        f"{'worst':>8} {'learned':>8} {'p90':>8} {'learned':>8}"
    )
    for hides in (False, True):
        for kind, some in by([one for one in outcomes if one.row.hides is hides], lambda one: one.row.kind):
            print(report_learned(kind, some))
    plain = [one for one in outcomes if one.row.kind not in apart and not one.row.hides]
    for name, some in (
        ("all that show their input", plain),
        ("  of these, responses", [one for one in plain if one.row.endpoint == "responses"]),
        ("all that do not", [one for one in outcomes if one.row.hides]),
    ):
        if some:
            print(report_learned(name, some))
    if skipped:
        print("skipped:", ", ".join(f"{reason} {count}" for reason, count in skipped.items()))
    wanted = [row for row in measured if arguments.kind in (None, row.kind)]
    for row in sorted(wanted, key=lambda row: -row.error)[: arguments.worst]:
        print(f"  {row.id} {row.kind:34} estimate {row.estimate} billed {row.billed} ({row.error:+.1%})")


def by(some: list[Any], name: Callable[[Any], str]) -> list[tuple[str, list[Any]]]:
    """Return groups by name, the largest first."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for one in some:
        groups[name(one)].append(one)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


_BOOK = PriceBook()
_BOOK.register("any-model", input=0, output=0)
# Nothing is paid here, so that no unit lacks a price.
_FREE = _BOOK.rates("any-model")


if __name__ == "__main__":
    main()
