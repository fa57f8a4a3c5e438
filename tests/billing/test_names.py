"""Whose model a name means, and that calls and bills meet in one name."""

from __future__ import annotations

import pytest

from budgetguard.billing.names import ModelNames

from .records import PRICES


@pytest.fixture
def names() -> ModelNames:
    return ModelNames(PRICES.list.snapshot())


@pytest.mark.parametrize(
    ("called", "provider", "billed"),
    [
        ("gpt-4o", "openai", "gpt-4o-2024-08-06"),
        ("openai/gpt-5", "openai", "gpt-5-2025-08-07"),
        ("gpt-4o-2024-05-13", "openai", "gpt-4o-2024-05-13"),
        ("GPT-4o-mini", "openai", "gpt-4o-mini-2024-07-18"),
        ("ft:gpt-4o-mini-2024-07-18:my-org::7p4lURel", "openai", "ft:gpt-4o-mini-2024-07-18"),
        ("omni-moderation-latest", "openai", "omni-moderation-2024-09-26"),
        ("text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("o1", "openai", "o1-2024-12-17"),
        ("gpt-99-ultra-2031-01-01", "openai", "gpt-99-ultra"),
        ("claude-haiku-4-5", "anthropic", "claude-haiku-4-5-20251001"),
        ("claude-haiku-4-5", "anthropic", "Claude Haiku 4.5"),
        ("anthropic/claude-haiku-4-5-20251001", "anthropic", "Claude Haiku 4.5"),
        ("claude-sonnet-4-20250514", "anthropic", "Claude Sonnet 4"),
        ("claude-sonnet-4-0", "anthropic", "Claude Sonnet 4"),
        ("claude-3-5-haiku-latest", "anthropic", "Claude Haiku 3.5"),
        ("claude-3-5-haiku-20241022", "anthropic", "claude-3-5-haiku-20241022"),
        ("claude-opus-9-9", "anthropic", "Claude Opus 9.9"),
    ],
)
def test_a_call_and_a_bill_meet(names: ModelNames, called: str, provider: str, billed: str) -> None:
    whose, one = names.called(called)
    assert (whose, one) == (provider, names.billed(provider, billed))


@pytest.mark.parametrize(
    ("called", "provider"),
    [
        ("azure/gpt-4o", "azure"),
        ("openrouter/openai/gpt-4o", "openrouter"),
        ("vertex_ai/claude-haiku-4-5", "google"),
        ("claude-haiku-4-5@20251001", "google"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "aws"),
        ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", "aws"),
        ("bedrock/anthropic.claude-haiku-4-5-20251001-v1:0", "aws"),
        ("groq/llama-3.3-70b-versatile", "groq"),
        ("gemini-2.5-flash", "google"),
        ("my-own-model", "other"),
        ("", "other"),
    ],
)
def test_models_of_others_are_others(names: ModelNames, called: str, provider: str) -> None:
    assert names.called(called)[0] == provider


def test_models_that_differ_stay_apart(names: ModelNames) -> None:
    found = {
        names.called(name)
        for name in (
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-4o-2024-05-13",
            "ft:gpt-4o:o::x",
            "gpt-4o-audio-preview",
            "claude-opus-4-1",
            "claude-opus-4",
            "claude-sonnet-4",
            "claude-3-7-sonnet-latest",
        )
    }
    assert len(found) == 9


def test_a_model_that_no_list_has_is_of_the_one_who_bills_it(names: ModelNames) -> None:
    assert names.billed("openai", "house-model-2026-01-01") == "house-model"
    assert names.called("house-model") == ("openai", "house-model")
    names.billed("anthropic", "house-model")
    assert names.called("house-model") == ("other", "house-model")


def test_a_name_of_the_programs_own_is_the_model_that_it_stands_for() -> None:
    names = ModelNames(PRICES.list.snapshot(), {"cheap": "gpt-4o-mini"}.get)  # type: ignore[arg-type]
    assert names.called("cheap") == ("openai", "gpt-4o-mini")
