"""DSPy: the calls of an LM, which go out through DSPy's own HTTP client or through LiteLLM.

An LM is guarded in its class, around its cache and its retries. What a call used is told to a usage tracker,
which stands before the program's own one for as long as the call lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, costs
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import count, field, items

try:
    import dspy
except ImportError as error:
    raise ImportError("budgetguard.integrations.dspy needs DSPy: pip install dspy") from error

L = TypeVar("L")

# LiteLLM tells of a usage of 0 where it was told none.
_TOTALS: Final = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
# The attribute of a guarded LM's class that says whose budgets.
_TARGET: Final = "_budgetguard_target"


def budgeted_lm(
    lm: L, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> L:
    """Put the calls of this LM under a budget, and return it: `dspy.configure(lm=budgeted_lm(dspy.LM(...)))`.

    Guarded are `lm(...)` and `lm.acall(...)`, which all modules and adapters call; not `lm.forward(...)`.
    What DSPy's cache answers costs nothing. Where it goes out through a client that is patched, the client's
    calls pay, and nothing is charged twice. Twice: the latter counts.

    Args:
        lm: a `dspy.LM`, or a `dspy.BaseLM` of your own.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    if not isinstance(lm, dspy.BaseLM):
        raise ConfigurationError(f"budgeted_lm() takes an LM of DSPy, not {type(lm).__name__}")
    kind: Any = type(lm)
    if _TARGET in vars(kind):
        kind = kind.__bases__[0]
    lm.__class__ = _guarded(kind, Target(guard, user, tags))
    return lm


def _guarded(kind: Any, target: Target) -> type:
    def call(self: Any, prompt: Any = None, *args: Any, **kwargs: Any) -> Any:
        with _call_of(self, prompt, kwargs) as call, _tracked() as told:
            answer = kind.__call__(self, prompt, *args, **kwargs)
            _book(call, answer, told)
            return answer

    async def acall(self: Any, prompt: Any = None, *args: Any, **kwargs: Any) -> Any:
        async with _call_of(self, prompt, kwargs) as call:
            with _tracked() as told:
                answer = await kind.acall(self, prompt, *args, **kwargs)
                _book(call, answer, told)
                return answer

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**names, _TARGET: target, "__call__": call, "acall": acall})


class _Tracker:
    """Take what DSPy tells of usage, and hand it on to the program's own tracker.

    Attributes:
        told: usages, as OpenAI has them; empty if nothing was asked of a provider.
    """

    def __init__(self, outer: Any) -> None:
        self._outer = outer
        self.told: list[Mapping[str, Any]] = []

    def add_usage(self, lm: str, usage: Any) -> None:
        self.told.append(usage or {})
        if self._outer is not None:
            self._outer.add_usage(lm, usage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)


@contextmanager
def _tracked() -> Iterator[list[Mapping[str, Any]]]:
    tracker = _Tracker(dspy.settings.get("usage_tracker"))
    # Then streams are asked for their usage, too.
    with dspy.settings.context(usage_tracker=tracker, track_usage=True):
        yield tracker.told


def _call_of(lm: Any, prompt: Any, parameters: Mapping[str, Any]) -> BudgetedCall:
    said = {**lm.kwargs, **parameters}
    target: Target = getattr(type(lm), _TARGET)
    explicit = prompt if hasattr(prompt, "messages") else parameters.get("request")
    if explicit is not None:
        config = getattr(explicit, "config", None)
        asked: Any = [_as_message(one) for one in items(field(explicit, "messages"))]
        said = {**said, "max_tokens": field(config, "max_tokens"), "tools": field(explicit, "tools")}
    else:
        asked = parameters.get("messages") or [{"role": "user", "content": str(prompt or "")}]
    address = said.get("api_base") or said.get("base_url")
    return target.call(
        model=lm.model,
        input=asked,
        max_output_tokens=cap_of(said),
        request=costs(said),
        endpoint="dspy",
        sends_cap=False,
        base_url=address if isinstance(address, str) and address.strip() else None,
    )


def _as_message(message: Any) -> dict[str, Any]:
    """Return a message of a typed request as a chat has it, to be counted: its parts as text."""
    parts = items(field(message, "parts")) or items(field(message, "content"))
    texts = [text if isinstance(text := field(one, "text"), str) else str(one) for one in parts]
    return {"role": str(field(message, "role") or "user"), "content": "\n".join(texts)}


def _book(call: BudgetedCall, answer: Any, told: Sequence[Mapping[str, Any]]) -> None:
    if not told:
        call.void("DSPy's cache answered")
        return
    usage = _added(told)
    if any(count(usage.get(name)) for name in _TOTALS):
        # As one answer has it, so that what is inside the totals is read as such.
        book(call, {"object": "chat.completion", "usage": usage})
    else:
        book(call, None, [_text(one) for one in (items(answer) or [answer])])


def _added(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several usages as one: their numbers added up, also those of their parts."""
    total: dict[str, Any] = {}
    for usage in told:
        for name, value in usage.items():
            if isinstance(value, Mapping):
                total[name] = _added([total.get(name) or {}, value])
            elif isinstance(value, int) and not isinstance(value, bool):
                total[name] = (total.get(name) or 0) + value
    return total


def _text(answer: Any) -> str:
    text = answer.get("text") if isinstance(answer, Mapping) else getattr(answer, "text", answer)
    return text if isinstance(text, str) else str(answer)
