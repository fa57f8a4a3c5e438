"""Measure what a guarded call costs that is charged to 1, 3 or 8 accounts, side by side in one run.

    python benchmarks/accounts.py [--calls N] [--rounds N] [--store URL ...]

The call is a function that answers at once, so all that is measured is the guard. One account is a user's
budget in a project that has budgets of no other kind: what calls cost that use none of that. The others are
of labels, models, requests, tokens, calls under way and a rolling window. CPU of this process, in rounds that
alternate; medians of the ratios to one account are printed, because machines drift.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

from budgetguard import Guard, budget_labels, budget_user

MESSAGES = [{"role": "user", "content": "A budget that cannot be overrun is worth more than a report. " * 3}]
ANSWER = {
    "id": "chatcmpl-benchmark",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Quite so."}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53},
}
ACCOUNTS = (1, 3, 8)


def completion(messages: object, model: str = "gpt-4o-mini") -> dict[str, object]:
    """Answer at once."""
    return ANSWER


def filled(store: str, accounts: int) -> Guard:
    """Return a guard whose calls are charged to so many accounts."""
    guard = Guard(store=store, project=f"of-{accounts}")
    guard.set_budget(1_000_000, user="u", duration="monthly")
    if accounts >= 3:
        guard.set_budget(1_000_000, team="red", duration="monthly")
        guard.set_budget(1_000_000, user="u", model="gpt-4o*")
    if accounts >= 8:
        guard.set_budget(1_000_000, customer="*", duration="daily")
        guard.set_budget(10**9, user="u", unit="requests", duration="1m")
        guard.set_budget(10**9, team="red", unit="tokens", duration="1h")
        guard.set_budget(10**6, team="red", unit="concurrent")
        guard.set_budget(1_000_000, user="u", duration="24h", rolling=True)
    return guard


def caller(guard: Guard) -> Callable[[], object]:
    """Return what makes one call, with labels if there are budgets of any."""
    ask = guard.budgeted(completion)

    def call() -> None:
        with budget_user("u", team="red"), budget_labels(customer="acme"):
            ask(MESSAGES)

    return call


def cpu_us(call: Callable[[], object], calls: int) -> float:
    """Return the CPU time of one call, in microseconds."""
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=300, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--store", action="append", help="URL; memory:// and disk:// by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("store       accounts  us of CPU  ratio to one account (min-max)")
        for store in options.store or ["memory://", f"disk://{folder}/store"]:
            calls = {accounts: caller(filled(store, accounts)) for accounts in ACCOUNTS}
            for call in calls.values():
                cpu_us(call, 30)
            rounds = [
                {accounts: cpu_us(call, options.calls) for accounts, call in calls.items()}
                for _ in range(options.rounds)
            ]
            for accounts in ACCOUNTS:
                ratios = [one[accounts] / one[ACCOUNTS[0]] for one in rounds]
                took = statistics.median(one[accounts] for one in rounds)
                print(
                    f"{store.partition(':')[0]:<11} {accounts:>8} {took:>10.0f} "
                    f"{statistics.median(ratios):>6.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                )


if __name__ == "__main__":
    main()
