"""The comparison of prices with LiteLLM's table, run as its page says, over a few usages of our own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litellm")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prices.py"
# Of models whose prices have not moved for long.
PAIRS: list[dict[str, Any]] = [
    {
        "vendor": "openai",
        "endpoint": "chat",
        "model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "usage": {
            "prompt_tokens": 1_200,
            "prompt_tokens_details": {"cached_tokens": 1_024},
            "completion_tokens": 300,
        },
    },
    {
        "vendor": "openai",
        "endpoint": "responses",
        "model": "gpt-5",
        "response_model": "gpt-5-2025-08-07",
        "request": {"tools": [{"type": "web_search"}]},
        "response_extra": {"output_types": ["web_search_call", "message"], "service_tier": "flex"},
        "usage": {
            "input_tokens": 10_000,
            "input_tokens_details": {"cached_tokens": 8_000},
            "output_tokens": 500,
        },
    },
    {
        "vendor": "anthropic",
        "endpoint": "messages",
        "model": "claude-haiku-4-5",
        "response_model": "claude-haiku-4-5-20251001",
        "usage": {
            "input_tokens": 100,
            "cache_creation_input_tokens": 2_000,
            "cache_read_input_tokens": 10_000,
            "output_tokens": 400,
            "server_tool_use": {"web_search_requests": 2},
        },
    },
    {
        "vendor": "google",
        "endpoint": "gemini",
        "model": "gemini-2.5-pro",
        "response_model": "gemini-2.5-pro",
        "usage": {"promptTokenCount": 250_000, "candidatesTokenCount": 100, "thoughtsTokenCount": 900},
    },
    {
        "vendor": "bedrock",
        "endpoint": "converse",
        "model": "amazon.nova-lite-v1:0",
        "response_model": None,
        "usage": {"inputTokens": 1_000, "outputTokens": 100},
    },
    {
        "vendor": "perplexity",
        "endpoint": "chat",
        "model": "sonar",
        "response_model": "sonar",
        "usage": {"prompt_tokens": 10, "completion_tokens": 100, "cost": {"total_cost": 0.00511}},
    },
]


def _compared(folder: Path, pairs: list[dict[str, Any]]) -> str:
    file = folder / "usages.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), **pair}) + "\n" for n, pair in enumerate(pairs)))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_what_costs_the_same_is_said_to_agree(tmp_path: Path) -> None:
    said = _compared(tmp_path, PAIRS)
    assert said.splitlines()[-1] == f"all: {len(PAIRS)} of {len(PAIRS)}", said
    assert "perplexity: 1 of 1 (1 booked as billed)" in said


def test_what_does_not_is_named(tmp_path: Path) -> None:
    unknown = {**PAIRS[0], "model": "no-such-model", "response_model": "no-such-model"}
    half = {**PAIRS[0], "response_extra": {"service_tier": "scale"}}
    said = _compared(tmp_path, [unknown, half])
    assert "we have no price: no-such-model: 0 chat no-such-model" in said
    assert "differs: gpt-4o-mini-2024-07-18 scale, x 1.6" in said
    assert said.splitlines()[-1] == "all: 0 of 2"
