"""Answers of other providers and servers: Ollama, xAI, Hugging Face."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import Piece
from budgetguard.providers.json import field, items, text
from budgetguard.providers.shapes import TOTALS, Shape, Sums, counted, made, summed

_OF_OLLAMA: Final[Sums] = {"input_tokens": ("prompt_eval_count",), "output_tokens": ("eval_count",)}


def _is_ollama(answer: Any) -> bool:
    if counted(answer, "eval_count") is not None or counted(answer, "prompt_eval_count") is not None:
        return True
    piece = field(field(answer, "message"), "content") or field(answer, "response")
    return isinstance(field(answer, "done"), bool) and isinstance(piece, str)


def _read_ollama(answer: Any) -> Reported:
    units, unsaid = summed(answer, _OF_OLLAMA)
    model = text(field(answer, "model"))
    if unsaid == frozenset(TOTALS):
        return Reported(usage=None, model=model)
    if field(answer, "embeddings") is not None:
        unsaid -= {"output_tokens"}
    return made(units, unsaid, model=model)


def _ollama_texts(answer: Any) -> Iterable[Piece]:
    message = field(answer, "message")
    yield "text", field(message, "content") or field(answer, "response")
    yield "thinking", field(message, "thinking") or field(answer, "thinking")


_OF_XAI: Final[Sums] = {
    "input_tokens": ("prompt_tokens",),
    "output_tokens": ("completion_tokens", "reasoning_tokens"),
    "cache_read_tokens": ("cached_prompt_text_tokens",),
    "output_reasoning_tokens": ("reasoning_tokens",),
}


def _is_xai(answer: Any) -> bool:
    return field(field(answer, "usage"), "cached_prompt_text_tokens") is not None


def _read_xai(answer: Any) -> Reported:
    units, unsaid = summed(field(answer, "usage"), _OF_XAI)
    return made(units, unsaid, model=field(answer, "model"), ident=field(answer, "id"))


def is_generated_text(answer: Any) -> bool:
    """Whether it is text of Hugging Face's text generation servers."""
    return isinstance(field(answer, "generated_text"), str)


def _read_generated_text(answer: Any) -> Reported:
    details = field(answer, "details")
    shown = len(list(items(field(details, "prefill"))))
    # Text that is not counted there is counted here.
    return made({"output_tokens": counted(details, "generated_tokens") or 0, "input_tokens": shown})


OLLAMA: Final = Shape("ollama", _is_ollama, _read_ollama, _ollama_texts)
XAI: Final = Shape("xai", _is_xai, _read_xai)
GENERATED_TEXT: Final = Shape(
    "generated text",
    is_generated_text,
    _read_generated_text,
    lambda answer: [(("text",), field(answer, "generated_text"))],
)
