"""Answers that respx, pytest-httpx and vcrpy give out: read before the client could, and told all the same.

They patch httpx, so they have nothing to say to an openai that runs on httpx2.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard import Guard
from tests.adapters.books import HTTP
from tests.adapters.test_read_before import ASK, KIND, PLAIN, STREAM, check
from tests.provider.server import OpenAIServer, Reply

pytestmark = pytest.mark.skipif(HTTP.__name__ != "httpx", reason="this openai runs on httpx2")

URL = "http://local.test/v1"
Ask = Callable[[Guard, str], None]


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard(store="memory://")
    guard.set_budget(100, user="u")
    with guard.budget_user("u"):
        yield guard


def ask_sync(guard: Guard, url: str) -> None:
    """One plain call, and one stream whose usage must stay hidden."""
    with guard.wrap(openai.OpenAI(base_url=url, api_key="k", http_client=HTTP.Client())) as client:
        client.chat.completions.create(**ASK)
        assert all(one.choices for one in client.chat.completions.create(**ASK, stream=True))


def ask_async(guard: Guard, url: str) -> None:
    async def run() -> None:
        http = HTTP.AsyncClient()
        async with guard.wrap(openai.AsyncOpenAI(base_url=url, api_key="k", http_client=http)) as client:
            await client.chat.completions.create(**ASK)
            stream = await client.chat.completions.create(**ASK, stream=True)
            assert all([one.choices async for one in stream])

    asyncio.run(run())


WAYS: Any = pytest.mark.parametrize("ask", [ask_sync, ask_async])


def answer(request: Any) -> Any:
    streamed = b'"stream":true' in request.content.replace(b" ", b"")
    return HTTP.Response(
        200,
        headers={"content-type": KIND if streamed else "application/json"},
        content=STREAM if streamed else PLAIN,
    )


@WAYS
@pytest.mark.parametrize("using", ["httpx", "httpcore"])
def test_respx(guard: Guard, ask: Ask, using: str) -> None:
    respx = pytest.importorskip("respx")
    with respx.mock(using=using) as router:
        router.post(f"{URL}/chat/completions").mock(side_effect=answer)
        ask(guard, URL)
    check(guard, 2)


@WAYS
def test_vcrpy(guard: Guard, ask: Ask, tmp_path: Path) -> None:
    vcr = pytest.importorskip("vcr")
    with OpenAIServer(Reply(prompt_tokens=10, completion_tokens=2_000)) as server:
        for _ in ("recorded", "played"):
            with vcr.use_cassette(str(tmp_path / "cassette.yaml"), match_on=["uri", "body"]):
                ask(guard, server.base_url)
        assert server.count() == 2
    check(guard, 4)


PROGRAM = """
import pytest
from tests.beside.test_recorders import URL, WAYS, answer, check, guard

@WAYS
def test_pytest_httpx(httpx_mock, guard, ask):
    httpx_mock.add_callback(answer, is_reusable=True)
    ask(guard, URL)
    check(guard, 2)
"""


def test_pytest_httpx(tmp_path: Path) -> None:
    """In a pytest of its own, for as a plugin it takes effect by being there."""
    pytest.importorskip("pytest_httpx")
    (tmp_path / "test_program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
