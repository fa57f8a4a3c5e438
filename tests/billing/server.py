"""Both administration APIs on loopback: they page, refuse keys, and fail as a test says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import parse_qsl

from tests.sdks.server import Answer, Arrived, CountingServer

OPENAI_KEY = "sk-admin-0123456789abcdef"
ANTHROPIC_KEY = "sk-ant-admin01-0123456789abcdef"
DAY = timedelta(days=1)
_NOT_FOUND = {"error": {"message": "no such path"}}


def seconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def openai_cost(
    usd: object, item: str | None = None, quantity: float | None = None, **more: Any
) -> dict[str, Any]:
    """Return a result of OpenAI's costs, its amount as text, as the API sends it."""
    return {
        "object": "organization.costs.result",
        "amount": {"value": usd, "currency": "usd"},
        "line_item": item,
        "quantity": quantity,
        "project_id": None,
        **more,
    }


def openai_usage(model: str, requests: int, **tokens: int) -> dict[str, Any]:
    """Return a result of OpenAI's usage of completions."""
    return {
        "object": "organization.usage.completions.result",
        "model": model,
        "num_model_requests": requests,
        "input_tokens": 0,
        "output_tokens": 0,
        **tokens,
    }


def claude_cost(
    cents: str, model: str | None, token_type: str | None, tier: str = "standard", **more: Any
) -> dict[str, Any]:
    """Return a result of Anthropic's cost report, in cents."""
    return {
        "amount": cents,
        "currency": "USD",
        "cost_type": "tokens",
        "model": model,
        "token_type": token_type,
        "service_tier": tier if model else None,
        "context_window": "0-200k" if model else None,
        "workspace_id": None,
        "description": "Claude Usage",
        **more,
    }


def claude_usage(model: str, tier: str = "standard", **tokens: int) -> dict[str, Any]:
    """Return a result of Anthropic's usage report."""
    written = {f"ephemeral_{name}_input_tokens": tokens.pop(f"written_{name}", 0) for name in ("5m", "1h")}
    return {
        "uncached_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
        "cache_creation": written,
        "server_tool_use": {"web_search_requests": 0},
        "model": model,
        "service_tier": tier,
        "context_window": "0-200k",
        "workspace_id": None,
        **tokens,
    }


@dataclass
class BillingServer:
    """What providers charged, and how they answer.

    Attributes:
        costs: OpenAI's results, by day.
        usage: OpenAI's results of usage, by path and day.
        report: Anthropic's costs, by day.
        tokens: Anthropic's usage, by day.
        page_size: buckets on a page at most, whatever is asked for.
        before: answered first, one request after another.
    """

    costs: dict[date, list[Any]] = field(default_factory=dict)
    usage: dict[str, dict[date, list[Any]]] = field(default_factory=dict)
    report: dict[date, list[Any]] = field(default_factory=dict)
    tokens: dict[date, list[Any]] = field(default_factory=dict)
    page_size: int = 180
    before: list[Answer] = field(default_factory=list)
    server: CountingServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = CountingServer(self.answer)

    def __enter__(self) -> BillingServer:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    @property
    def url(self) -> str:
        return f"{self.server.url}/v1"

    @property
    def requests(self) -> list[Arrived]:
        return self.server.requests

    def answer(self, arrived: Arrived) -> Answer:
        if self.before:
            return self.before.pop(0)
        assert arrived.method == "GET"
        query = parse_qsl(arrived.query, strict_parsing=True)
        if arrived.path.startswith("/v1/organization/"):
            if arrived.headers.get("authorization") != f"Bearer {OPENAI_KEY}":
                return Answer({"error": {"message": "Missing scopes: api.usage.read"}}, status=401)
            name = arrived.path.removeprefix("/v1/organization/")
            found = self.costs if name == "costs" else self.usage.get(name.removeprefix("usage/"), {})
            return self._openai(found, query)
        if arrived.path.startswith("/v1/organizations/"):
            assert arrived.headers["anthropic-version"] == "2023-06-01"
            if arrived.headers.get("x-api-key") != ANTHROPIC_KEY:
                error = {"type": "authentication_error", "message": "invalid x-api-key"}
                return Answer({"type": "error", "error": error}, status=401)
            found = {
                "/v1/organizations/cost_report": self.report,
                "/v1/organizations/usage_report/messages": self.tokens,
            }[arrived.path]
            return self._anthropic(found, query)
        return Answer(_NOT_FOUND, status=404)

    def _openai(self, found: dict[date, list[Any]], query: Sequence[tuple[str, str]]) -> Answer:
        said = dict(query)
        assert said["bucket_width"] == "1d"
        first, last = int(said["start_time"]), int(said["end_time"])
        assert first % 86_400 == last % 86_400 == 0
        days = [
            {
                "object": "bucket",
                "start_time": at,
                "end_time": at + 86_400,
                "results": found.get(datetime.fromtimestamp(at, UTC).date(), []),
            }
            for at in range(first, last, 86_400)
        ]
        return Answer({"object": "page", **self._page(days, said)})

    def _anthropic(self, found: dict[date, list[Any]], query: Sequence[tuple[str, str]]) -> Answer:
        said = dict(query)
        first, last = (datetime.fromisoformat(said[name]).date() for name in ("starting_at", "ending_at"))
        assert int(said["limit"]) <= 31
        days = [
            {
                "starting_at": f"{first + n * DAY}T00:00:00Z",
                "ending_at": f"{first + (n + 1) * DAY}T00:00:00Z",
                "results": found.get(first + n * DAY, []),
            }
            for n in range((last - first).days)
        ]
        return Answer(self._page(days, said))

    def _page(self, buckets: list[dict[str, Any]], said: dict[str, str]) -> dict[str, Any]:
        start = int(said.get("page", "page_0").removeprefix("page_"))
        size = min(int(said["limit"]), self.page_size)
        more = start + size < len(buckets)
        return {
            "data": buckets[start : start + size],
            "has_more": more,
            "next_page": f"page_{start + size}" if more else None,
        }


def saved(*pages: object) -> str:
    """Return pages as somebody saves them, one after another."""
    return "\n".join(json.dumps(page) for page in pages)
