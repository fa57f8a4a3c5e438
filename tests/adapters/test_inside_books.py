"""A stream that ends while this thread is inside our books is finished by the background, not in there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from budgetguard.core.process import inside, store_verbs
from budgetguard.engine.background import background
from budgetguard.events import Held
from budgetguard.stores.hosted import HostedStore
from budgetguard.stores.memory import MemoryStore
from budgetguard.stores.postgres import PostgresStore
from budgetguard.stores.redis import RedisStore
from budgetguard.stores.sqlite import DiskStore
from tests.adapters.books import MESSAGES, MODEL, Books, open_books
from tests.provider.server import OpenAIServer

CHAT: Any = {"model": MODEL, "messages": MESSAGES}
VERBS = ("reserve", "settle", "attach", "read", "set_budget", "holds")


def test_a_stream_that_a_hook_closes_is_settled_after_the_hook(books: Books) -> None:
    with books.client() as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(iter(stream))
        seen: list[int] = []

        def hook(_: Any) -> None:
            stream.close()
            seen.append(books.spent)

        books.engine.hooks.add(hook, (Held,))
        client.chat.completions.create(**CHAT)
    background.finish()
    assert seen == [0]
    assert (len(books.of("Settled")), books.held) == (2, 0)


def test_a_stream_that_ends_inside_a_store_does_not_enter_it_again(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_books(server, "memory", tmp_path) as books, books.client() as client:
        stream = client.chat.completions.create(**CHAT, stream=True)
        next(iter(stream))
        marked: list[bool] = []
        threads: list[int] = []
        run = MemoryStore._run

        def transaction(self: Any, work: Any, **more: Any) -> Any:
            marked.append(inside.store)
            threads.append(get_ident())
            if len(threads) == 1:
                stream.close()  # as the garbage collector would; the background may begin at once
                assert threads.count(get_ident()) == 1, "the store was entered again"
            return run(self, work, **more)

        monkeypatch.setattr(MemoryStore, "_run", transaction)
        books.limit(10**9)
        background.finish()
        assert marked == [True, True]
        assert books.held == 0


@pytest.mark.parametrize("kind", [MemoryStore, DiskStore, PostgresStore, RedisStore, HostedStore])
def test_every_store_marks_its_verbs(kind: type) -> None:
    for verb in VERBS:
        assert hasattr(getattr(kind, verb), "__wrapped__"), verb


def test_the_mark_is_on_in_each_step_of_a_listing_and_off_between_two() -> None:
    seen: list[bool] = []

    @store_verbs
    class Store:
        def listing(self) -> Iterator[int]:
            for number in range(2):
                seen.append(inside.store)
                yield number

    for _ in Store().listing():
        seen.append(inside.store)
    assert seen == [True, False, True, False]
    assert not inside.books
