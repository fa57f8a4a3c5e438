"""What tests of realtime sessions share: a server, a client, and the price of what the server billed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from budgetguard.core.money import NANOS_PER_USD
from budgetguard.core.usage import Usage
from budgetguard.engine.context import budget_user
from budgetguard.pricing.book import PriceBook
from budgetguard.testing._realtime_server import RealtimeServer
from tests.adapters.books import USER, Books, keeper_on
from tests.adapters.clients import patch, unpatch

MODEL = "gpt-realtime"
TEXT_ONLY: Any = {"type": "realtime", "output_modalities": ["text"]}
QUIET: Any = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
SPEECH = b"\1\2" * 24_000  # a second
SILENCE = bytes(48_000)


def message(text: str = "Who is there?") -> Any:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def sound(data: bytes) -> str:
    return base64.b64encode(data).decode()


def billed_nanos(server: Any) -> int:
    """Price the server's own log, without any code that reads events."""
    total = 0
    for model, usage in server.billed:
        details_in = usage.get("input_token_details") or {}
        details_out = usage.get("output_token_details") or {}
        units = {
            "input_tokens": usage.get("input_tokens", 0),
            "input_audio_tokens": details_in.get("audio_tokens", 0),
            "cache_read_tokens": details_in.get("cached_tokens", 0),
            "output_tokens": usage.get("output_tokens", 0),
            "output_audio_tokens": details_out.get("audio_tokens", 0),
            "input_audio_seconds": -int(-usage.get("seconds", 0) // 1),
        }
        total += PriceBook().rates(model).cost(Usage(units))
    return total


class RealtimeBooks(Books):
    """Books beside a realtime server."""

    server: Any

    @property
    def billed(self) -> int:
        return billed_nanos(self.server)

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(api_key="test", websocket_base_url=self.server.base_url, **options)

    def aclient(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="test", websocket_base_url=self.server.base_url, **options)

    def flat_price(self, **more: Any) -> None:
        """Have a response cost 1 000 Nanos an output token and nothing else, so that holds are exact."""
        self.engine.prices.register(MODEL, input=0, output=1, input_audio_mtok=0, output_audio_mtok=1, **more)


@contextmanager
def realtime_books(store: str, folder: Path, *, usd: float = 10, **settings: Any) -> Iterator[RealtimeBooks]:
    """Serve, patch openai for an engine whose user 1234 has `usd`, and be that user inside."""
    with RealtimeServer() as server:
        engine = keeper_on(store, folder, **settings)
        books = RealtimeBooks(engine, server)  # type: ignore[arg-type]  # another server than its base has
        books.limit(int(usd * NANOS_PER_USD))
        patch(engine)
        try:
            with budget_user(USER):
                yield books
        finally:
            unpatch()
            engine.store.close()


def until(connection: Any, kind: str) -> Any:
    """Receive until an event of a kind comes, and return it."""
    while True:
        event = connection.recv()
        if event.type == kind:
            return event


async def auntil(connection: Any, kind: str) -> Any:
    while True:
        event = await connection.recv()
        if event.type == kind:
            return event
