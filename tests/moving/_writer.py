"""Make guarded calls without end, and say on stdout what each was billed; ends when its store refuses it."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import uuid
from typing import Any

from budgetguard import Guard
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import StoreError
from tests.guarded_calls import HELLO, MODEL

USERS = ("a", "b", "c")
THREADS = 2
MOVED = 7


def main(url: str, spool: str) -> None:
    guard = Guard(store=url, project="p", spool=spool, hold_ttl="1h")
    guard.register_price(MODEL, input=1, output=2)
    threads = [threading.Thread(target=call_without_end, args=(guard,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    guard.close()
    sys.exit(MOVED)


def call_without_end(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: list[dict[str, str]], model: str = MODEL, max_completion_tokens: int = 20) -> Any:
        inputs, outputs, name = random.randrange(5, 40), random.randrange(1, 20), uuid.uuid4().hex
        # One write of less than PIPE_BUF bytes: it arrives whole or not at all.
        os.write(1, f"{name} {inputs * 1_000 + outputs * 2_000}\n".encode())
        time.sleep(random.random() * 0.02)
        usage = {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}
        return {"id": name, "model": model, "usage": usage, "choices": []}

    while True:
        try:
            with budget_user(random.choice(USERS)):
                ask(HELLO)
        except StoreError:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
