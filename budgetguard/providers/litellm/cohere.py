"""What Cohere billed for a chat: of that LiteLLM's answers tell what was read, which is many times as much."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.engine.context import innermost_call
from budgetguard.providers.cohere.answers import COHERE
from budgetguard.providers.litellm.calls import TOLD, LiteLLMCall
from budgetguard.providers.methods import Method


def _billed(answer: object) -> Reported | None:
    if not COHERE.knows(answer):
        return None
    said = COHERE.read(answer)
    return None if said.usage is None else said


def _note_answer(arguments: Mapping[str, Any], _answer: Any, _error: BaseException | None) -> None:
    """Note on the call what its answer says, which LiteLLM has made one of its own of."""
    call = innermost_call()
    if call is not None and isinstance(call.request, LiteLLMCall):
        with contextlib.suppress(Exception):  # what cannot be read, LiteLLM tells the program
            call.request.told = _billed(arguments["raw_response"].json())


def _note_chunk(parse: Callable[..., Any], iterator: Any, args: Any, kwargs: Any) -> Any:
    """Note on a stream's iterator what a chunk says: where it is read, its call is nobody's innermost."""
    chunk = kwargs.get("chunk", args[0] if args else None)
    if (said := _billed(chunk)) is not None:
        setattr(iterator, TOLD, said)
    return parse(*args, **kwargs)


METHODS: Final = (
    Method(
        owner="CohereV2ChatConfig",
        name="transform_response",
        style="call",
        parameters=("raw_response",),
        observe=_note_answer,
        module="litellm.llms.cohere.chat.v2_transformation",
        in_code=True,
        optional=True,
    ),
    Method(
        owner="CohereV2ModelResponseIterator",
        name="chunk_parser",
        style="call",
        parameters=("chunk",),
        instead=_note_chunk,
        module="litellm.llms.cohere.common_utils",
        in_code=True,
        optional=True,
    ),
)
