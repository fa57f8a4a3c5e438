"""One of several processes that book for one user: FOLDER USER THREADS UPDATES."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from budgetguard import BudgetManager, Guard
from tests.manager.answers import completion


def main(folder: str, user: str, threads: int, updates: int) -> None:
    guard = Guard(store=f"disk://{folder}", project="app")
    manager = BudgetManager("app", guard=guard)
    print("ready", flush=True)
    sys.stdin.readline()  # all begin together
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(manager.update_cost, user, completion()) for _ in range(updates)]:
            done.result()
    guard.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
