"""Measure one guarded call against its floor, and against the same call unguarded.

    python benchmarks/guarded_call.py [--calls N] [--rounds N]

The floor is what no persistent, exact guard can do without: two conditional UPDATE commits in raw sqlite3,
in the same run, on the same disk. The call is a function that answers at once with a completion of a
50-token prompt, so all that is measured is the guard. Rounds are interleaved, and medians of the ratios
are printed, because machines drift.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from budgetguard import Guard, budget_user
from budgetguard.core.accounts import Budget

PROMPT = "A budget that cannot be overrun is worth more than a report of how far it was overrun. " * 2
MESSAGES = [{"role": "user", "content": PROMPT}]
ANSWER = {
    "id": "chatcmpl-benchmark",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Quite so."}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53},
}
USERS = (1, 1_000, 100_000)


def completion(messages: object, model: str = "gpt-4o-mini") -> dict[str, object]:
    """Answer at once."""
    return ANSWER


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=500, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        floor = sqlite_floor(Path(folder, "floor.db"))
        print("store       users  clock  guarded    floor   ratio   (us, medians; ratio min-max)")
        for users in USERS:
            guard = Guard(store=f"disk://{folder}/{users}", project="bench")
            fill(guard, users)
            compare("disk", users, guard, floor, options.calls, options.rounds)
        compare("memory", 1, filled_memory(), floor, options.calls, options.rounds)
        print(f"unguarded call: {timed(lambda: completion(MESSAGES), options.calls)[1]:.2f} us")


def filled_memory() -> Guard:
    """Return a guard of one user in memory."""
    guard = Guard(store="memory://", project="bench")
    fill(guard, 1)
    return guard


def fill(guard: Guard, users: int) -> None:
    """Create budgets for that many users, and charge the calls to the one in the middle."""
    for number in range(users):
        guard.store.set_budget(f"user:{number:06d}", Budget(limit=10**15))


def sqlite_floor(path: Path) -> Callable[[], None]:
    """Return two conditional UPDATE commits, as any exact hold and settlement needs at least."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE account (id TEXT PRIMARY KEY, cap INT, spent INT, held INT)")
    connection.execute("INSERT INTO account VALUES ('user', 1000000000000000, 0, 0)")

    def hold_and_settle() -> None:
        connection.execute("UPDATE account SET held = held + 9 WHERE id = 'user' AND spent + held + 9 <= cap")
        connection.execute(
            "UPDATE account SET held = held - 9, spent = spent + 5 WHERE id = 'user' AND held >= 9"
        )

    return hold_and_settle


def compare(store: str, users: int, guard: Guard, floor: Callable[[], None], calls: int, rounds: int) -> None:
    """Print a row per clock: a guarded call and its floor, measured in turn."""
    guarded = guard.budgeted(completion)
    with budget_user(f"{users // 2:06d}"):
        timed(lambda: guarded(MESSAGES), 50)  # load the tokenizer and the prices
        pairs = [(timed(lambda: guarded(MESSAGES), calls), timed(floor, calls)) for _ in range(rounds)]
    for name, clock in (("cpu", 0), ("wall", 1)):
        ratios = sorted(call[clock] / least[clock] for call, least in pairs)
        print(
            f"{store:<8}{users:>9,}  {name:<4}{statistics.median(call[clock] for call, _ in pairs):>10.1f}"
            f"{statistics.median(least[clock] for _, least in pairs):>9.1f}{statistics.median(ratios):>8.1f}"
            f"   {ratios[0]:.1f}-{ratios[-1]:.1f}"
        )
    guard.close()


def timed(do: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the microseconds per call: CPU time, which a busy machine disturbs less, and wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        do()
    return (time.process_time() - cpu) / times * 1e6, (time.perf_counter() - wall) / times * 1e6


if __name__ == "__main__":
    main()
