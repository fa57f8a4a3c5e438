"""Ask the provider how many input tokens a response will be billed, for those who want it exact."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from typing import Any, Final

from budgetguard.engine.provider_call import Fetch
from budgetguard.providers.base import Prepared, Preparing
from budgetguard.tokens.requests import given, is_absent

logger = logging.getLogger("budgetguard")

PATH: Final = "/responses/input_tokens"
# https://platform.openai.com/docs/api-reference/responses/input-tokens: it takes these and no more.
_TAKEN: Final = (
    "conversation",
    "input",
    "instructions",
    "model",
    "parallel_tool_calls",
    "personality",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
)
# Seconds. A count that takes longer than this holds up the call more than it is worth.
_PATIENCE: Final = 10.0

_warned: set[str] = set()


class CountedBody(dict[str, Any]):
    """Hold a request whose input the provider has counted.

    Attributes:
        input_tokens: its count.
    """

    input_tokens: int


def prepare_count(preparing: Preparing) -> Generator[Fetch, Any, Prepared]:
    """Have the provider count the input of a response. Where it cannot, the input is counted here.

    Templates (`prompt`) cannot be counted there.
    """
    body = preparing.body
    model = given(body, "model") or ""
    if given(body, "prompt") is not None:
        return Prepared(model, body)
    asked = {name: body[name] for name in _TAKEN if name in body and not is_absent(body[name])}
    try:
        answer = yield preparing.fetch.post(PATH, asked, timeout=_PATIENCE, max_retries=0)
    except Exception as error:  # noqa: BLE001 - whatever the client raises, there is a count of our own
        _warn(type(error).__name__)
        return Prepared(model, body)
    count = answer.get("input_tokens") if isinstance(answer, Mapping) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        _warn("an answer without input_tokens")
        return Prepared(model, body)
    counted = CountedBody(body)
    counted.input_tokens = count
    return Prepared(model, counted)


def _warn(what: str) -> None:
    if what in _warned:
        return
    _warned.add(what)
    logger.warning(
        "budgetguard: the provider did not count the input of a response (%s), so it was counted here; "
        'count="local" saves the request',
        what,
    )
