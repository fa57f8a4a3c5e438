"""OpenAI's answers, and those of all whose API has its shape: what they report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.answers import Piece, reported
from budgetguard.providers.json import count, field, items, text
from budgetguard.providers.openai.audio import read_transcription
from budgetguard.providers.openai.batches import read_batch
from budgetguard.providers.openai.chat import chat_texts
from budgetguard.providers.openai.responses import read_response, response_texts
from budgetguard.providers.shapes import Shape, made

OPENAI: Final = "openai"


def is_plain_chat(answer: Any) -> bool:
    """Whether it is what most answers are, so that no other shape needs to be asked for first."""
    kind = type(answer)
    if kind is not dict and not kind.__module__.startswith("openai."):
        return False
    made_of = field(answer, "object")
    if not isinstance(made_of, str) or not made_of.startswith("chat.completion"):
        return False
    return bool(items(field(answer, "choices"))) and field(answer, "x_groq") is None


def is_openai(answer: Any) -> bool:
    """Whether it is an answer, or a piece of one, of an API of OpenAI's shape."""
    kind, made_of = text(field(answer, "type")) or "", text(field(answer, "object")) or ""
    if kind.startswith("response.") or made_of.startswith(("chat.completion", "text_completion", "response")):
        return True
    if isinstance(field(answer, "choices"), list | tuple) and field(answer, "kind") is None:
        return True
    return reported(answer).usage is not None


def read_openai(answer: Any) -> Reported:
    """Return what an answer of an API of OpenAI's shape reports."""
    return read_response(answer) if field(answer, "object") == "response" else reported(answer)


def openai_texts(answer: Any) -> Iterable[Piece]:
    """Yield the text of a whole completion or response, each piece with its slot."""
    yield from chat_texts(answer)
    yield from response_texts(answer)


def is_plain_chunk(answer: Any) -> bool:
    """Whether it is a chunk of OpenAI's that says nothing of its usage, as nearly all are."""
    if field(answer, "object") != "chat.completion.chunk" or field(answer, "usage") is not None:
        return False
    return field(answer, "x_groq") is None


def _is_batch(answer: Any) -> bool:
    return text(field(answer, "object")) == "batch"


def _read_batch(answer: Any) -> Reported:
    if field(answer, "status") is not None:
        return read_batch(answer)
    # Other servers' batches have no status: one that tells its usage is over.
    return replace(reported(answer), tier=BATCH)


def _is_embeddings(answer: Any) -> bool:
    """Whether it is embeddings or a ranking of a vendor that tells one total (Voyage)."""
    usage = field(answer, "usage")
    is_list = field(answer, "object") == "list" and isinstance(field(answer, "data"), list | tuple)
    return is_list and _is_only(usage, "total_tokens")


def _is_only(usage: object, total: str) -> bool:
    others = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
    return count(field(usage, total)) is not None and all(field(usage, name) is None for name in others)


def _read_embeddings(answer: Any) -> Reported:
    total = count(field(field(answer, "usage"), "total_tokens")) or 0
    return made({"input_tokens": total}, model=field(answer, "model"))


def _is_transcription(answer: Any) -> bool:
    """Whether it is a transcript that is billed by the second."""
    usage = field(answer, "usage")
    return field(usage, "type") == "duration" and count(field(usage, "seconds")) is not None


PLAIN: Final = Shape(OPENAI, is_openai, read_openai, openai_texts, chunks=True)
EMBEDDINGS_TOTAL: Final = Shape("embeddings", _is_embeddings, _read_embeddings)
TRANSCRIPTION: Final = Shape("transcription", _is_transcription, read_transcription)
BATCH_JOB: Final = Shape("batch", _is_batch, _read_batch)
