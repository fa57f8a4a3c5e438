"""Measure projected input tokens against what real requests were billed.

    python benchmarks/projection.py FILE.jsonl... [--worst N] [--kind KIND] [--folds N] [--seeds N] [--brief]

`benchmarks/recordings.py` says what a file holds. Printed are:

- By provider, the figures of all below in one line each. With `--brief`, nothing else.
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
import math
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recordings import Row, rows

from budgetguard.core.usage import Observations, learned_cap, observe

# Calls of each model and shape that a project settles before the held-out ones are projected.
_SETTLED = 300


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
    first = {row.id: row.first for row in some}
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
                elif hidden is not None and row.teaches:
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


def report_provider(provider: str, measured: list[Row], outcomes: list[Outcome]) -> str:
    """Return one line on a provider."""

    def low(some: list[Outcome], what: str) -> str:
        return (
            f"{sum(getattr(one, what) < one.row.billed for one in some) / len(some):7.2%}"
            if some
            else "      -"
        )

    shown = [row for row in measured if row.shows]
    errors = [row.error for row in shown] or [0.0]
    apart = [one for one in outcomes if one.row.provider == provider]
    self_contained = [one for one in apart if one.row.shows]
    hiding = [one for one in apart if one.row.hides]
    most = sum(one.learned for one in hiding) / (sum(one.row.billed for one in hiding) or 1)
    before, after = low(hiding, "first"), low(hiding, "learned")
    return (
        f"{provider:14} {len(shown):5} {percentile(errors, 0.5):7.1%} {percentile(errors, 0.9):7.1%} "
        f"{percentile(errors, 0.99):8.1%} {low(self_contained, 'first')} {low(self_contained, 'learned')}   "
        f"{len({one.row.id for one in hiding}):5} {before} {after} {most:7.1f}"
    )


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="name the N worst estimates")
    parser.add_argument("--kind", help="name those of this kind only")
    parser.add_argument("--folds", type=int, default=5, help="parts that the recordings are split into")
    parser.add_argument("--seeds", type=int, default=3, help="how often the drawing is repeated")
    parser.add_argument("--brief", action="store_true", help="print the table by provider alone")
    arguments = parser.parse_args()
    skipped: Counter[str] = Counter()
    measured = [row for file in arguments.files for row in rows(file, skipped)]
    outcomes = learn([row for row in measured if row.learns], arguments.folds, arguments.seeds)
    print(f"{'':14} {'SHOWING ALL OF THEIR INPUT':>30} {'too low':>16}   {'HIDING SOME':>13} {'too low':>7}")
    print(
        f"{'BY PROVIDER':14} {'n':>5} {'p50':>7} {'p90':>7} {'p99':>8} {'first':>7} {'learned':>7}   "
        f"{'n':>5} {'first':>7} {'learned':>7} {'x billed':>7}"
    )
    for provider, some in by(measured, lambda row: row.provider):
        print(report_provider(provider, some, outcomes))
    if not arguments.brief:
        report_all(measured, outcomes)
    if skipped:
        print("skipped:", ", ".join(f"{reason} {count}" for reason, count in skipped.items()))
    wanted = [row for row in measured if row.kind == arguments.kind or (row.shows and not arguments.kind)]
    for row in sorted(wanted, key=lambda row: -row.error)[: arguments.worst]:
        print(
            f"  {row.id} {row.source[:20]:20} {row.model[:28]:28} {row.kind:30} "
            f"estimate {row.estimate} billed {row.billed} ({row.estimate / row.billed - 1:+.1%})"
        )


def report_all(measured: list[Row], outcomes: list[Outcome]) -> None:
    """Print the figures by kind and by source, and what learning changed."""
    head = f"{'n':>5} {'exact':>6} {'<=1%':>6} {'p50':>7} {'p90':>7} {'p99':>8} {'low':>7} {'low+margin':>9}"
    print(f"\n{'SHOWING ALL OF THEIR INPUT':34} {head}  worst shortfall of the projection with its margin")
    for kind, some in by([row for row in measured if not row.hides], lambda row: row.kind):
        print(report(kind, some))
    chats = [row for row in measured if row.shows]
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
    print(
        f"\n{'LEARNED FROM OTHER RECORDINGS':34} {'n':>5} {'changed':>7} {'covered':>8} {'learned':>8} "
        f"{'worst':>8} {'learned':>8} {'p90':>8} {'learned':>8}"
    )
    for hides in (False, True):
        for kind, some in by([one for one in outcomes if one.row.hides is hides], lambda one: one.row.kind):
            print(report_learned(kind, some))
    plain = [one for one in outcomes if one.row.shows]
    for name, some in (
        ("all that show their input", plain),
        ("  of these, responses", [one for one in plain if one.row.endpoint == "responses"]),
        ("all that do not", [one for one in outcomes if one.row.hides]),
    ):
        if some:
            print(report_learned(name, some))


def by(some: list[Any], name: Callable[[Any], str]) -> list[tuple[str, list[Any]]]:
    """Return groups by name, the largest first."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for one in some:
        groups[name(one)].append(one)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


if __name__ == "__main__":
    main()
