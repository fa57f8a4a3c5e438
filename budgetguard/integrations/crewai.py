"""CrewAI: the calls of an LLM that goes out through a client which nobody guards, such as LiteLLM.

An agent tries a task again after any error, but for those by which a hook stops it: so a refusal is one of
these here, and is raised once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, TypeVar

from budgetguard.core.usage import Usage
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, costs, listed_provider
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import count, field, items

try:
    from crewai import BaseLLM
    from crewai.hooks.dispatch import HookAborted
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.crewai needs CrewAI 1.10 or newer: pip install -U crewai"
    ) from error

L = TypeVar("L")

# What CrewAI's providers call what they count.
_UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": ("prompt_tokens", "prompt_token_count", "input_tokens", "inputTokens"),
    "output_tokens": ("completion_tokens", "candidates_token_count", "output_tokens", "outputTokens"),
    "cache_read_tokens": ("cached_tokens", "cached_prompt_tokens", "cacheReadInputTokens"),
    "cache_write_tokens": ("cache_creation_tokens", "cacheWriteInputTokens"),
    "output_reasoning_tokens": ("reasoning_tokens",),
}
# What Anthropic counts beside the input, where that is handed on as it is.
_BESIDE: Final[Mapping[str, str]] = {
    "cache_read_tokens": "cache_read_input_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
}
# The attribute of a guarded LLM's class that says whose budgets.
_TARGET: Final = "_budgetguard_target"

_told: ContextVar[list[Any] | None] = ContextVar("budgetguard_crewai", default=None)


def budgeted_llm(
    llm: L, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> L:
    """Put the calls of this LLM under a budget, and return it: `Agent(llm=budgeted_llm(LLM(model=...)))`.

    Where it goes out through a client that is patched, the client's calls pay, and nothing is charged twice.
    A refusal is a `BudgetExceededError` that no agent tries again. Twice: the latter counts.

    Args:
        llm: an `LLM` of CrewAI, or a `BaseLLM` of your own.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    if not isinstance(llm, BaseLLM):
        raise ConfigurationError(
            f"budgeted_llm() takes an LLM of CrewAI, not {type(llm).__name__}; of a name, make one: "
            "LLM(model='gpt-4o-mini')"
        )
    kind: Any = type(llm)
    if _TARGET in vars(kind):
        kind = kind.__bases__[0]
    object.__setattr__(llm, "__class__", _guarded(kind, Target(guard, user, tags)))
    return llm


def _guarded(kind: Any, target: Target) -> type:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    made: type = type(kind.__name__, (kind,), names)
    setattr(made, _TARGET, target)
    # Set afterwards: the methods of a class that is being made get another loop of retries around them.
    for name, method in (
        ("call", _calling(kind.call)),
        ("acall", _acalling(kind.acall)),
        ("_track_token_usage_internal", _noting(kind._track_token_usage_internal)),
    ):
        setattr(made, name, method)
    return made


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(llm: Any, *args: Any, **kwargs: Any) -> Any:
        with _refusing(), _noted() as told, _call_of(llm, args, kwargs) as call:
            answer = method(llm, *args, **_outside(kwargs, call))
            _book(call, answer, told)
            return answer

    return call


def _acalling(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    async def acall(llm: Any, *args: Any, **kwargs: Any) -> Any:
        with _refusing(), _noted() as told:
            async with _call_of(llm, args, kwargs) as call:
                answer = await method(llm, *args, **_outside(kwargs, call))
                _book(call, answer, told)
                return answer

    return acall


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def note(llm: Any, usage_data: Any, *args: Any, **kwargs: Any) -> Any:
        if (told := _told.get()) is not None:
            told.append(usage_data)
        return method(llm, usage_data, *args, **kwargs)

    return note


def _call_of(llm: Any, args: Sequence[Any], parameters: Mapping[str, Any]) -> BudgetedCall:
    asked = args[0] if args else parameters.get("messages", "")
    tools = args[1] if len(args) > 1 else parameters.get("tools")
    own = {
        name: getattr(llm, name, None) for name in ("max_tokens", "max_completion_tokens", "reasoning_effort")
    }
    more = getattr(llm, "additional_params", None)
    said = {**own, **(more if isinstance(more, Mapping) else {})}
    target: Target = getattr(type(llm), _TARGET)
    provider = getattr(llm, "provider", None)
    addresses = (getattr(llm, name, None) for name in ("base_url", "api_base", "endpoint"))
    return target.call(
        model=llm.model,
        input=asked if isinstance(asked, str) else list(asked),
        max_output_tokens=cap_of(said),
        request=costs({**said, "tools": tools, "response_format": parameters.get("response_model")}),
        endpoint="crewai",
        sends_cap=False,
        provider=None if provider == "openai" or "/" in llm.model else listed_provider(provider, {}),
        base_url=next((one for one in addresses if isinstance(one, str) and one.strip()), None),
    )


def _outside(parameters: Mapping[str, Any], call: BudgetedCall) -> dict[str, Any]:
    """Return the arguments, with functions that the LLM may run: what these call is not inside its call."""
    functions = parameters.get("available_functions")
    if not isinstance(functions, Mapping):
        return dict(parameters)

    def aside(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with call.outside():
                return function(*args, **kwargs)

        return run

    return {**parameters, "available_functions": {name: aside(one) for name, one in functions.items()}}


def _book(call: BudgetedCall, answer: Any, told: Sequence[Any]) -> None:
    usages = [usage for one in told if (usage := _usage(one)) is not None]
    if not usages:
        book(call, None, [str(one) for one in (items(answer) or [answer])])
        return
    units: dict[str, int] = {}
    for usage in usages:
        for unit, number in usage.units.items():
            units[unit] = units.get(unit, 0) + number
    book(call, Usage.of(**units))


def _usage(told: Any) -> Usage | None:
    units = {unit: _first(told, names) for unit, names in _UNITS.items()}
    if not units["input_tokens"] and not units["output_tokens"]:
        return None
    for unit, name in _BESIDE.items():
        if beside := count(field(told, name)):
            units[unit] = beside
            units["input_tokens"] += beside
    details = field(told, "prompt_tokens_details")
    units["cache_read_tokens"] = units["cache_read_tokens"] or count(field(details, "cached_tokens")) or 0
    return Usage.of(**units)


def _first(told: Any, names: Sequence[str]) -> int:
    return next((number for name in names if (number := count(field(told, name)))), 0)


@contextmanager
def _noted() -> Iterator[list[Any]]:
    """Collect what is told of usage inside."""
    told: list[Any] = []
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise what refuses a call as what stops an agent on purpose, too."""
    try:
        yield
    except HookAborted:
        raise
    except BudgetGuardError as error:
        raise _stopping(error) from error


def _stopping(error: BudgetGuardError) -> BaseException:
    kind = _stopping_kind(type(error))
    stop: BaseException = kind.__new__(kind)
    stop.args = error.args
    stop.__dict__.update(error.__dict__, reason=str(error), source="budgetguard")
    return stop


def _stopping_kind(kind: Any) -> Any:
    def reduce(self: BudgetGuardError) -> Any:
        # For another process, as the error that it is.
        plain = kind.__new__(kind)
        plain.args = self.args
        plain.__dict__.update(self.__dict__)
        return plain.__reduce__()

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, HookAborted), {**names, "__reduce__": reduce})
