"""Measure how often what was spent lies between a forecast's bounds, which are meant to hold in 80 %.

    python benchmarks/forecast.py [--runs 200] [--markdown]

Accounts of several habits spend from a seed (`tests/spending.py`); at several stages of a window a forecast
is made, and compared with what was spent by its end. `holds` is the share of the runs within the bounds,
`below` and `above` of those outside. `width` is the median of the bounds' distance as a share of the expected
rest, `off` the median of expected by spent. At the end: what a forecast of one account takes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from budgetguard.core.forecast import History, forecast
from tests.spending import BEGIN, DAY, HABITS, STAGES, Stage, balance_of, record_of, tried


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="of each habit at each stage")
    parser.add_argument("--markdown", action="store_true", help="write the table of docs/forecast.md")
    given = parser.parse_args()
    if given.markdown:
        print("| | " + " | ".join(HABITS) + " |\n|---|" + "---:|" * len(HABITS))
    held: list[float] = []
    for stage_name, stage in STAGES.items():
        cells: list[str] = []
        for habit_name in HABITS:
            share, line = _measured(habit_name, stage_name, stage, given.runs)
            held.append(share)
            cells.append(f"{share:.0%}")
            if not given.markdown:
                print(f"{stage_name:<36} {habit_name:<23} {line}", flush=True)
        if given.markdown:
            print(f"| {stage_name} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nall: {statistics.mean(held):.0%}; least {min(held):.0%}")
    _time()


def _measured(habit: str, stage_name: str, stage: Stage, runs: int) -> tuple[float, str]:
    below = above = known = 0
    widths: list[float] = []
    off: list[float] = []
    for run in range(runs):
        made, spent = tried(HABITS[habit], stage, random.Random(f"{habit} {stage_name} {run}"))
        if made.expected_nanos is None or made.low_nanos is None or made.high_nanos is None:
            continue
        known += 1
        below += spent < made.low_nanos
        above += spent > made.high_nanos
        widths.append((made.high_nanos - made.low_nanos) / max(made.expected_nanos, 1))
        off.append(made.expected_nanos / max(spent, 1))
    if not known:
        return 1.0, "too little data"
    share = 1 - (below + above) / known
    return share, (
        f"holds {share:5.0%} below {below / known:4.0%} above {above / known:4.0%} "
        f"width {statistics.median(widths):5.2f} off {statistics.median(off):5.2f} known {known / runs:4.0%}"
    )


def _time() -> None:
    stage = Stage(90 * DAY, 20 * DAY, 30 * DAY)
    now = BEGIN + stage.past
    records = [record_of(BEGIN + at, 1000, at) for at in range(0, stage.past, stage.past // 100_000)]
    history = History(balance_of(stage, now), now)
    began = time.perf_counter()
    for one in records:
        history.add(one)
    added = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(100):
        forecast(balance_of(stage, now, limit=10**12), history, now)
    made = (time.perf_counter() - began) / 100
    print(f"adding {len(records):,} records takes {added * 1e3:.0f} ms, a forecast {made * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
