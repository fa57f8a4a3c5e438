"""Batches for tests: lines, their files, and what the server says that a batch cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from tests.adapters.books import MESSAGES, MODEL

CHAT_URL = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 400}


def lines(*bodies: Mapping[str, Any], url: str = CHAT_URL) -> bytes:
    """Write an input file."""
    return b"".join(
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": url, "body": body}).encode() + b"\n"
        for n, body in enumerate(bodies)
    )


def arguments(file_id: str, url: str = CHAT_URL) -> dict[str, Any]:
    """Return what `batches.create` takes."""
    return {"input_file_id": file_id, "endpoint": url, "completion_window": "24h"}


def batch_nanos(usage: Mapping[str, Any], model: str = MODEL) -> int:
    """Price a batch's usage at batch prices, without any code that reads answers."""
    units = {"input_tokens": usage["input_tokens"], "output_tokens": usage["output_tokens"]}
    units["cache_read_tokens"] = usage["input_tokens_details"]["cached_tokens"]
    return PriceBook().rates(model, tier="batch").cost(Usage(units))
