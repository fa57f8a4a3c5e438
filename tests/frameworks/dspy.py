"""DSPy: a guarded LM, with DSPy's own client and with LiteLLM's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, CAUSE, MODEL, TEXT, Case, Place, Way

Make = Callable[[Place], Any]


def _lm(engine: str, place: Place) -> Any:
    os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp())
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import dspy

    return dspy.LM(
        f"openai/{MODEL}",
        api_base=place.base_url,
        api_key="test",
        cache=False,
        num_retries=2,
        engine=engine,
    )


def _budgeted(engine: str, place: Place) -> Any:
    from budgetguard.integrations.dspy import budgeted_lm

    return budgeted_lm(_lm(engine, place), place.guard)


def _call(make: Make, place: Place) -> Any:
    return make(place)(ASK)


async def _acall(make: Make, place: Place) -> Any:
    return await make(place).acall(ASK)


async def _streamed(make: Make, place: Place) -> Any:
    import dspy

    lm = make(place)

    class Asking(dspy.Module):
        def forward(self, ask: str) -> Any:
            return dspy.Prediction(text=lm(ask)[0])

    found = [piece async for piece in dspy.streamify(Asking())(ask=ASK)]
    return found[-1].text


def _ways(make: Make) -> tuple[Way, ...]:
    return (
        Way(CALL, "lm", partial(_call, make)),
        Way(ASYNC_CALL, "acall", partial(_acall, make)),
        Way(ASYNC_STREAM, "streamify", partial(_streamed, make)),
    )


_LITELLM: Final = _ways(partial(_lm, "litellm"))

CASES: Final = (
    Case("DSPy", "dspy", "`budgeted_lm()`", _ways(partial(_budgeted, "auto"))),
    Case("DSPy, with LiteLLM", "dspy", "`budgeted_lm()`", _ways(partial(_budgeted, "litellm"))),
    Case("DSPy, with LiteLLM", "dspy", "`patch_litellm()`", _LITELLM[:2], over="litellm", refusal=CAUSE),
    # It takes the cause off DSPy's error.
    Case("DSPy's `streamify`", "dspy", "`patch_litellm()`", _LITELLM[2:], over="litellm", refusal=TEXT),
    Case("DSPy, with LiteLLM", "dspy", "`patch_openai()`", _LITELLM, over="openai", refusal=TEXT),
)
