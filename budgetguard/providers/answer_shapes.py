"""The shapes that answers come in, whoever's SDK made them: one table, one reader for every face.

A shape is known by what is really its own: a type, a key that no other has, a counter of a name that no
other uses. An answer of no known shape is not read: what merely looks alike would be booked too low.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.answers import Piece, is_api_error, with_texts
from budgetguard.providers.anthropic.answers import ENDED_STREAM, EVENT, MESSAGE
from budgetguard.providers.bedrock.answers import CONVERSE
from budgetguard.providers.cohere.answers import COHERE
from budgetguard.providers.frameworks import AGENTS_RUN, LANGCHAIN, LITELLM, PYDANTIC_AI, is_langchain
from budgetguard.providers.google.answers import GEMINI
from budgetguard.providers.json import field, parsed, text
from budgetguard.providers.openai.answers import (
    BATCH_JOB,
    EMBEDDINGS_TOTAL,
    OPENAI,
    PLAIN,
    TRANSCRIPTION,
    is_plain_chat,
    is_plain_chunk,
)
from budgetguard.providers.openai.chat import ChatAccumulator
from budgetguard.providers.openai.responses import ResponseAccumulator, response_texts
from budgetguard.providers.others import GENERATED_TEXT, OLLAMA, XAI, is_generated_text
from budgetguard.providers.shapes import Shape

_DEEPEST: Final = 4


def recognised(answer: object) -> tuple[Shape | None, object]:
    """Return the shape of an answer, and what is to be read as such: what a wrapper holds."""
    if is_plain_chat(answer):
        return PLAIN, answer
    for _ in range(_DEEPEST):
        shape = next((shape for shape in SHAPES if shape.knows(answer)), None)
        if shape is None or shape.inside is None:
            return shape, answer
        answer = shape.inside(answer)
    return None, answer


def read_answer(answer: object) -> Reported:
    """Read what an answer of any known shape reports; of an unknown one, that it has no usage.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
    """
    shape, answer = recognised(parsed(answer))
    return Reported(usage=None) if shape is None else shape.read(answer)


def read_whole(answer: object, model: str) -> Reported:
    """Read what a whole answer of any known shape reports, and count its text where that falls short of it.

    Args:
        answer: an SDK object, a mapping, or the JSON text of one.
        model: decides how text becomes tokens; else the one that the answer names.
    """
    shape, inner = recognised(parsed(answer))
    if shape is None:
        return Reported(usage=None)
    said = shape.read(inner)
    model = model or said.model or ""
    if said.pending:
        return said
    return with_texts(said, shape.texts(inner), model)


class ItemAccumulator(ResponseAccumulator, ChatAccumulator):
    """What the pieces of a stream of any known shape have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.

    Attributes:
        unread: the type of the first piece that is of no known shape, or None.
        understood: whether any piece was of a known one.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self.unread: type | None = None
        self.understood = False
        self._added: Reported | None = None
        self._told_all = False
        self._last: dict[str, str] = {}

    @property
    def told(self) -> bool:
        return self._told_all or super().told

    def feed(self, chunk: object) -> None:
        if isinstance(chunk, str):
            self._keep(("text",), chunk)
            return
        if is_plain_chunk(chunk):
            self.understood = True
            ChatAccumulator.feed(self, chunk)
            return
        shape, chunk = recognised(chunk)
        if shape is None:
            self.unread = self.unread or type(chunk)
            self._keep_unknown(chunk)
            return
        self.understood = True
        if shape.chunks and text(field(chunk, "type")) is None:
            ChatAccumulator.feed(self, chunk)
        elif shape.chunks:
            super().feed(chunk)
        if shape.name != OPENAI:
            self._take(shape.read(chunk), adds=shape.adds)
        for slot, piece in response_texts(chunk) if shape.chunks else shape.texts(chunk):
            self._keep((shape.name, slot), piece)

    def _take(self, said: Reported, *, adds: bool) -> None:
        if adds and self._added is not None and said.usage is not None and self._added.usage is not None:
            before, more = self._added.usage.units, said.usage.units
            usage = Usage({unit: before.get(unit, 0) + more.get(unit, 0) for unit in {**before, **more}})
            said = replace(said, usage=usage)
        if adds and said.usage is not None:
            self._added = said
        self._merge(said)
        self._told_all = self._said.usage is not None and not self._said.unsaid and not adds

    def _keep_unknown(self, chunk: object) -> None:
        # Not enough to say what it cost, but enough to say what it cost at least.
        for name in ("delta", "text", "content"):
            piece = field(chunk, name)
            if isinstance(piece, str) and piece:
                before = self._last.get(name, "")
                grown = bool(before) and len(piece) > len(before) and piece.startswith(before)
                self._last[name] = piece
                self._keep(("unknown", name), piece[len(before) :] if grown else piece)
                return


def _is_llama_index(answer: Any) -> bool:
    """Whether it is an answer or a piece of one that has the provider's own beside it."""
    return hasattr(answer, "raw") and isinstance(field(answer, "delta"), str | None) and _has_body(answer)


def _has_body(answer: Any) -> bool:
    return isinstance(field(answer, "text"), str) or field(answer, "message") is not None


def _read_llama_index(answer: Any) -> Reported:
    raw = field(answer, "raw")
    return Reported(usage=None) if _is_llama_index(raw) else read_answer(raw)


def _llama_index_texts(answer: Any) -> Iterable[Piece]:
    # `text` and `message` hold all of it until then.
    yield "text", field(answer, "delta")


def _is_list_of_one(answer: Any) -> bool:
    return isinstance(answer, list) and len(answer) == 1 and is_generated_text(answer[0])


def _is_delta(answer: Any) -> bool:
    return isinstance(field(answer, "delta"), str) and isinstance(field(answer, "text"), str)


def _is_data_event(answer: Any) -> bool:
    """Whether it is an event that carries a chunk: Mistral's, or the Agents SDK's raw ones."""
    data = field(answer, "data")
    if data is None or isinstance(data, str | bytes | list | tuple):
        return False
    return field(answer, "type") == "raw_response_event" or isinstance(field(data, "choices"), list | tuple)


def _is_message_with_metadata(answer: Any) -> bool:
    """Whether it is a message of a LangGraph stream, which comes with where it is from."""
    return isinstance(answer, tuple) and len(answer) == 2 and is_langchain(answer[0])


SHAPES: Final = (
    Shape("langgraph", _is_message_with_metadata, inside=lambda answer: answer[0]),
    Shape("event", _is_data_event, inside=lambda answer: field(answer, "data")),
    PYDANTIC_AI,
    AGENTS_RUN,
    Shape("llama-index", _is_llama_index, _read_llama_index, _llama_index_texts),
    XAI,
    LITELLM,
    COHERE,
    CONVERSE,
    ENDED_STREAM,
    EVENT,
    MESSAGE,
    GEMINI,
    LANGCHAIN,
    OLLAMA,
    EMBEDDINGS_TOTAL,
    TRANSCRIPTION,
    BATCH_JOB,
    PLAIN,
    Shape("one text", _is_list_of_one, inside=lambda answer: answer[0]),
    GENERATED_TEXT,
    Shape("error", is_api_error, chunks=True),
    Shape("text", _is_delta, texts=_llama_index_texts),
)
