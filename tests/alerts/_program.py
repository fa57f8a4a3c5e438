"""A program with a guard, for tests that start several of it, end it, or kill it.

Args: the store, the alerts' address, and what to do: `spend`, `leave`, `quiet`, `wait`.
"""

from __future__ import annotations

import sys

import budgetguard
from budgetguard import BudgetExceededError, Guard

from ..guarded_calls import MODEL, completion


def spend(guard: Guard, dollars: float) -> bool:
    tokens = round(dollars * 10**6)
    try:
        with guard.call(model=MODEL, input_tokens=tokens, max_output_tokens=0, user="u") as call:
            call.settle(completion(tokens, 0))
    except BudgetExceededError:
        return False
    return True


def main(store: str, url: str, what: str) -> None:
    budgetguard.configure(store=store, project="p", alerts=[url], alert_quiet=None, spool=None)
    guard = budgetguard.default_guard()
    guard.register_price(MODEL, input=1, output=2)
    print("ready", flush=True)
    sys.stdin.readline()
    if what == "spend":
        for _ in range(20):
            spend(guard, 0.05)
        print("spent", flush=True)
        sys.stdin.readline()  # so that all of them meet the limit before one ends
        for _ in range(20):
            assert not spend(guard, 0.05)
    elif what == "leave":
        spend(guard, 0.9)
    elif what == "wait":
        spend(guard, 0.9)
        print("spent", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
