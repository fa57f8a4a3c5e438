"""Every style of call is booked as billed, refused unsent, and otherwise as if nobody were there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.errors import BudgetExceededError
from budgetguard.testing.openai_server import OpenAIServer
from tests.adapters.books import Books, open_books
from tests.adapters.styles import ASYNC, SYNC, plain

Run = Callable[[str], Any]


def _run_sync(base_url: str, style: str, times: int = 1) -> list[Any]:
    with openai.OpenAI(base_url=base_url, api_key="test") as client:
        return [_result(lambda: SYNC[style](client)) for _ in range(times)]


def _run_async(base_url: str, style: str, times: int = 1) -> list[Any]:
    async def run() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="test") as client:
            found: list[Any] = []
            for _ in range(times):
                try:
                    found.append(await ASYNC[style](client))
                except BudgetExceededError as error:
                    found.append(error)
            return found

    return asyncio.run(run())


def _result(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except BudgetExceededError as error:
        return error


STYLES = [
    *[pytest.param(_run_sync, style, id=f"sync: {style}") for style in SYNC],
    *[pytest.param(_run_async, style, id=f"async: {style}") for style in ASYNC],
]


@pytest.mark.parametrize(("run", "style"), STYLES)
def test_a_call_is_booked_as_billed(run: Run, style: str, books: Books) -> None:
    run(books.server.base_url, style)
    assert len(books.server.billed) == 1
    assert books.spent > 0
    books.check()
    assert [event.estimated for event in books.of("Settled")] == [False]


@pytest.mark.parametrize(("run", "style"), STYLES)
def test_a_refused_call_is_not_sent_however_often_it_is_tried(
    run: Callable[..., Any], style: str, server: OpenAIServer, tmp_path: Path
) -> None:
    with open_books(server, "memory", tmp_path, usd=0.0000001) as books:
        answers = run(server.base_url, style, times=30)
        assert [type(answer) for answer in answers] == [BudgetExceededError] * 30
        assert server.count() == 0
        books.check()


@pytest.mark.parametrize(("run", "style"), STYLES)
def test_a_guarded_call_answers_as_an_unguarded_one(run: Run, style: str, tmp_path: Path) -> None:
    with OpenAIServer() as server:
        expected = run(server.base_url, style)
    with OpenAIServer() as server, open_books(server, "memory", tmp_path):
        found = run(server.base_url, style)
    assert plain(found) == plain(expected)
