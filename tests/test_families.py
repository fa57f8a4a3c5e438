"""Text becomes tokens as the model's family makes them, found by the model's name."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.tokens import claude
from budgetguard.tokens.families import BY_ENCODING, family_of
from budgetguard.tokens.models import bare_name, is_counted_exactly
from budgetguard.tokens.text import CL100K, O200K, count_text, encoding_for

ENGLISH = (
    "The quick brown fox jumps over the lazy dog, and nobody in the village took any notice of it. " * 20
)
CODE = 'def f(a, b):\n    return {"x": [a[0], b[1]], "y": (a != b) or None}  # ok?\n' * 20
KOREAN = "안녕하세요. 오늘은 날씨가 정말 좋네요. " * 20
ARABIC = "مرحبا بالعالم، كيف حالكم اليوم؟ " * 20
GERMAN = "Größere Mengen müssen schriftlich angekündigt werden, natürlich auch für Geschäftskunden. " * 20


@pytest.fixture(autouse=True)
def without_ctok(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count by the multiples, whether or not `ctok` is installed."""
    monkeypatch.setattr(claude, "counter", lambda version: None)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("claude-3-5-haiku-latest", "claude-3"),
        ("claude-sonnet-4-20250514", "claude-3"),
        ("claude-opus-4-1@20250805", "claude-3"),
        ("anthropic/claude-haiku-4.5", "claude-3"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3"),
        ("us.anthropic.claude-sonnet-4-6", "claude-3"),
        ("databricks-claude-sonnet-4", "claude-3"),
        ("claude-2.1", "claude-3"),
        ("claude-instant-1.2", "claude-3"),
        ("claude-opus-4-7", "claude-4.7"),
        ("anthropic/claude-opus-4.8", "claude-4.7"),
        ("claude-sonnet-5", "claude-4.7"),
        ("models/gemini-3-flash-preview", "gemini"),
        ("google/gemma-3-27b-it", "gemini"),
        ("us.amazon.nova-lite-v1:0", "nova"),
        ("mistral-small-latest", "mistral"),
        ("us.mistral.pixtral-large-2502-v1:0", "mistral"),
        ("mistralai/mixtral-8x7b", "mistral"),
        ("deepseek-ai/DeepSeek-R1", "deepseek"),
        ("Qwen/Qwen3-4B", "qwen"),
        ("meta-llama/llama-4-maverick-17b-128e-instruct", "llama"),
        ("grok-4.3", "grok"),
        ("command-a-03-2025", "command"),
        ("embed-v4.0", "command"),
    ],
)
def test_a_family_is_known_by_the_models_name(model: str, family: str) -> None:
    assert encoding_for(model) == family
    assert not is_counted_exactly(model)


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "openai/gpt-5", "o3-mini", "text-embedding-3-small", "openai.gpt-5.6-luna", "gpt-35-turbo"],
)
def test_openais_models_are_of_no_family(model: str) -> None:
    assert family_of(model) is None
    assert encoding_for(model) in (CL100K, O200K)
    assert is_counted_exactly(model)


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        ("us.anthropic.claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("apac.amazon.nova-lite-v1:0", "nova-lite-v1:0"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss-120b-1:0"),
        ("azure/gpt-4.1", "gpt-4.1"),
        ("gpt-4.1-mini", "gpt-4.1-mini"),
        ("ft:gpt-4o:acme::1", "gpt-4o:acme::1"),
    ],
)
def test_bedrocks_prefixes_are_seen_through(model: str, bare: str) -> None:
    assert bare_name(model) == bare


def times(text: str, family: str) -> float:
    return count_text(text, family) / count_text(text, O200K)


@pytest.mark.parametrize(
    ("family", "english", "code", "korean", "arabic", "german"),
    [
        ("claude-3", 1.13, 1.19, 1.83, 2.1, 1.38),
        ("claude-4.7", 1.68, 1.72, 1.93, 2.2, 1.8),
        ("deepseek", 1.02, 1.08, 1.2, 1.3, 1.2),
        ("llama", 1.01, 1.0, 1.06, 1.6, 1.15),
    ],
)
def test_each_kind_of_text_has_its_multiple(
    family: str, english: float, code: float, korean: float, arabic: float, german: float
) -> None:
    assert times(ENGLISH, family) == pytest.approx(english, abs=0.03)
    assert times(CODE, family) == pytest.approx(code, abs=0.05)
    # Spaces and signs among them are Latin.
    assert min(english, 0.8 * korean) < times(KOREAN, family) <= korean + 0.01
    assert min(english, 0.8 * arabic) < times(ARABIC, family) <= arabic + 0.01
    assert times(GERMAN, family) == pytest.approx(german, abs=0.05)


def test_a_few_words_are_nearly_as_many_tokens_for_all() -> None:
    assert count_text("What is the capital of France?", "claude-3") == count_text(
        "What is the capital of France?", O200K
    )


@pytest.mark.parametrize("family", ["gemini", "mistral", "qwen", "nova"])
def test_each_digit_is_a_token_where_the_family_splits_them(family: str) -> None:
    assert count_text("1" * 300, family) - count_text("1" * 300, "llama") >= 200


def test_capitals_cost_more_where_a_tokenizer_marks_them() -> None:
    assert times(ENGLISH.upper(), "claude-4.7") > 1.3 * times(ENGLISH, "claude-4.7")
    assert times(ENGLISH.upper(), "llama") == pytest.approx(times(ENGLISH, "llama"), abs=0.02)


def test_what_is_no_word_counts_too() -> None:
    assert count_text("\u2003\u2003", "claude-3") == count_text("\u2003\u2003", O200K) > 0


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.sampled_from(sorted(BY_ENCODING)))
def test_any_text_counts_in_every_family(text: str, family: str) -> None:
    counted = count_text(text, family)
    assert (text == "") == (counted == 0) or counted == 0
    assert counted <= 5 * len(text.encode("utf-8", "surrogatepass")) + 1


# --- ctok ---


class FakeCtok(ModuleType):
    """Counts three tokens a character, and seven around it."""

    def __init__(self) -> None:
        super().__init__("ctok")
        self.asked: list[tuple[int, str]] = []

    def token_count(self, text: str, version: str = "3.0") -> int:
        self.asked.append((len(text), version))
        return 7 + 3 * len(text) - (2 if text == "a" else 0)


@pytest.fixture
def ctok(monkeypatch: pytest.MonkeyPatch) -> FakeCtok:
    monkeypatch.undo()
    fake = FakeCtok()
    monkeypatch.setitem(sys.modules, "ctok", fake)
    monkeypatch.setattr(claude, "find_spec", lambda name: object())
    claude._counter.cache_clear()
    yield fake
    claude._counter.cache_clear()


def test_where_it_is_installed_ctok_counts_what_claude_reads(ctok: FakeCtok) -> None:
    assert count_text("some words", "claude-3") == 30
    assert count_text("some words", "claude-4.7") == 30
    assert {version for _, version in ctok.asked} == {"3.0", "4.8"}
    assert count_text("some words", "gemini") < 30


def test_of_a_long_text_parts_are_counted_and_the_rest_in_proportion(ctok: FakeCtok) -> None:
    text = ENGLISH * 100
    assert count_text(text, "claude-3") == pytest.approx(3 * len(text), rel=0.02)
    assert sum(length for length, _ in ctok.asked) < 20_000 < len(text)


def test_another_ctok_than_is_known_is_left_alone(ctok: FakeCtok, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctok, "token_count", lambda text: 1, raising=False)
    assert times(ENGLISH, "claude-3") == pytest.approx(1.13, abs=0.03)


@pytest.mark.skipif(importlib.util.find_spec("ctok") is None, reason="needs ctok, which needs Python 3.12")
def test_the_multiples_are_near_what_ctok_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    claude._counter.cache_clear()
    for family, version in (("claude-3", "3.0"), ("claude-4.7", "4.8")):
        for text in (ENGLISH, CODE, GERMAN):
            exact = claude.counter(version)
            assert exact is not None
            assert count_text(text, family) == exact(text)
    assert count_text("hello, world", "claude-3") == 3
