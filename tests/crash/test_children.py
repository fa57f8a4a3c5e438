"""Children of multiprocessing end without `atexit`; what they have left is booked all the same."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard import Guard
from tests.provider.server import OpenAIServer, Reply

ASKED: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
_kept: list[object] = []


def leave_a_stream(store: str, base_url: str) -> None:
    guard = Guard(store=store, user="u", spool=None)
    client = guard.wrap(openai.OpenAI(base_url=base_url, api_key="x"))
    stream = iter(client.chat.completions.create(**ASKED))
    next(stream)
    _kept.append((guard, stream))


@pytest.mark.full
@pytest.mark.parametrize("method", ["fork", "pool"])
def test_a_child_books_what_it_has_left(method: str, tmp_path: Path) -> None:
    if method == "fork" and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork here")
    store = f"disk://{tmp_path}/store"
    with (
        contextlib.closing(Guard(store=store, user="u", spool=None)) as guard,
        OpenAIServer(Reply(text="Hello there.")) as server,
    ):
        guard.set_budget(1, user="u")
        if method == "pool":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                pool.submit(leave_a_stream, store, server.base_url).result(60)
        else:
            context: Any = multiprocessing.get_context(method)
            child = context.Process(target=leave_a_stream, args=(store, server.base_url))
            child.start()
            child.join(60)
            assert child.exitcode == 0
        balance = guard.balance("u")
        assert (balance.open_holds, balance.spent > 0) == (0, True)
