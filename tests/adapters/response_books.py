"""What the test server billed for responses and legacy completions, priced without our readers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from tests.adapters.books import MODEL, Books
from tests.provider.server import OpenAIServer

ASK: Any = {"model": MODEL, "input": "Say hello to the people in the room."}
STREAMED: Any = {**ASK, "stream": True}

_FEES = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "container_sessions_1g",
}


def billed_nanos(server: OpenAIServer, tier: str | None = None) -> int:
    """Price the server's own log."""
    prices, total = PriceBook(), 0
    for record in server.requests:
        if record.billed is not None:
            assert record.model is not None
            asked = record.body.get("service_tier")
            total += prices.rates(record.model, tier=asked).cost(Usage(_units(record.billed)))
    return total


def _units(used: Mapping[str, Any]) -> dict[str, int]:
    if "prompt_tokens" in used:
        return {"input_tokens": used["prompt_tokens"], "output_tokens": used["completion_tokens"]}
    units = {"input_tokens": used["input_tokens"], "output_tokens": used["output_tokens"]}
    units["cache_read_tokens"] = used["input_tokens_details"]["cached_tokens"]
    for kind, count in used.get("hosted_calls", {}).items():
        units[_FEES[kind]] = count
    return units


def check(books: Books) -> None:
    """Assert that the books are what was billed, and that nothing is held."""
    assert (books.spent, books.held) == (billed_nanos(books.server), 0)
