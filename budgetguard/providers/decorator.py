"""`@budgeted`: put any function that answers with a completion under a budget."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypedDict, Unpack

from budgetguard.core.accounts import check_id
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.decorated import Decorated
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.errors import ConfigurationError
from budgetguard.providers.functions import (
    CAPS,
    INPUTS,
    FunctionCall,
    UsageReader,
    check_target,
    checked_count,
    request_body,
)
from budgetguard.providers.iterators import GuardedAsyncGenerator, GuardedGenerator


class BudgetedOptions(TypedDict, total=False):
    """What `@budgeted` can be told of a function; all of it is optional.

    Attributes:
        model: the model, where the function has no parameter `model`.
        input: the parameter that is the input (by default `messages`, `prompt` or `input`), or a callable
            that takes the function's arguments and returns messages or text.
        usage: a callable that reads an answer of another kind: returns a Usage, or input and output tokens.
            Of a function that yields, it is given the last item.
        max_completion_tokens: what the function caps the output at, where it has no such parameter.
        user: who pays; by default the current user.
        provider: whose prices count, by genai-prices' id such as `azure`; by default what `base_url` or a
            prefix of the model's name says, else OpenAI.
        base_url: the address that the function calls; calls to one of `free_base_urls` cost nothing.
    """

    model: str | None
    input: str | Callable[..., Any] | None
    usage: UsageReader | None
    max_completion_tokens: int | None
    user: str | None
    provider: str | None
    base_url: str | None


_OPTIONS: Final = tuple(BudgetedOptions.__annotations__)


class Budgeted:
    """The guard of one function: what its calls ask for, and who pays for them.

    Args:
        engine: returns the books that its calls go into.
        function: what is guarded.
        options: see `BudgetedOptions`.

    Raises:
        ConfigurationError: an option that cannot be right for this function.
    """

    def __init__(
        self, engine: Callable[[], Engine], function: Callable[..., Any], options: BudgetedOptions
    ) -> None:
        self._engine = engine
        self._name = getattr(_plain(function), "__qualname__", None) or type(function).__name__
        self._model = options.get("model")
        self._input = options.get("input")
        self._usage = options.get("usage")
        self._cap = options.get("max_completion_tokens")
        self._provider = options.get("provider")
        self._base_url = options.get("base_url")
        user = options.get("user")
        self._user = None if user is None else check_id(user, name="user")
        if not callable(function) and not isinstance(function, classmethod | staticmethod):
            raise ConfigurationError(f"@budgeted guards functions, and {function!r} is none")
        self._function = _plain(function)
        self._unbound = _signature(self._function)
        self._bound = _without_self(self._unbound)
        self._check()

    def __call__(self, wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        call, request = self._call(self._bound if instance is not None else self._unbound, args, kwargs)

        def make() -> Any:
            return wrapped(*args, **{**kwargs, **request.more})

        if inspect.isgeneratorfunction(self._function):
            return GuardedGenerator(call, make, request.reader())
        if inspect.isasyncgenfunction(self._function):
            return GuardedAsyncGenerator(call, make, request.reader())
        if inspect.iscoroutinefunction(self._function):
            return _named(self._name, adrive(guarded(call), make))
        return drive(guarded(call), make)

    def _call(self, signature: inspect.Signature, args: Any, kwargs: Any) -> tuple[GuardedCall, FunctionCall]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = {}
        for name, parameter in bound.signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                arguments.update(value)
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                arguments[name] = value
        model = arguments.get("model") or self._model
        if not isinstance(model, str):
            raise ConfigurationError(
                f"{self._name}() was called without a model: pass model=, or write "
                '@budgeted(model="gpt-4o-mini")'
            )
        row, body = request_body(arguments, self._find_input(arguments, args, kwargs), self._cap)
        by_place = signature.bind_partial(*args).arguments
        cap = next((name for name in CAPS if name in signature.parameters and name not in by_place), None)
        engine = self._engine()
        request = FunctionCall(
            self._name,
            engine.settings.model_of(model),
            row,
            body,
            self._usage,
            cap=cap,
            provider=self._provider,
            base_url=self._base_url,
            free=self._base_url is not None and engine.settings.is_free(self._base_url),
            names_model=_takes_by_name(signature, "model") and "model" not in by_place,
        )
        return GuardedCall(engine, request, user=self._user), request

    def _find_input(self, arguments: Mapping[str, Any], args: Any, kwargs: Any) -> object:
        if callable(self._input):
            return self._input(*args, **kwargs)
        names = INPUTS if self._input is None else (self._input,)
        for name in names:
            if arguments.get(name) is not None:
                return arguments[name]
        raise ConfigurationError(
            f"{self._name}() was called without its input: none of {', '.join(names)} is given. "
            'Name the parameter that is the input: @budgeted(input="question")'
        )

    def _check(self) -> None:
        check_target("any" if self._model is None else self._model, self._provider, self._base_url)
        if self._input is not None and not isinstance(self._input, str) and not callable(self._input):
            raise ConfigurationError(f"input must be a parameter's name or a callable, not {self._input!r}")
        if self._usage is not None and not callable(self._usage):
            raise ConfigurationError(f"usage must be a callable that reads an answer, not {self._usage!r}")
        if self._cap is not None:
            checked_count(self._cap, "max_completion_tokens", "number of tokens")
        parameters = self._unbound.parameters
        if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return
        if isinstance(self._input, str) and self._input not in parameters:
            raise ConfigurationError(
                f"{self._name}() has no parameter {self._input!r}: input= names one of "
                f"{', '.join(parameters) or 'its parameters, of which it has none'}"
            )
        if self._input is None and not any(name in parameters for name in INPUTS):
            raise ConfigurationError(
                f"{self._name}() has no parameter {', '.join(INPUTS)}: name the one that is the input, "
                'as in @budgeted(input="question"), or pass a callable that returns it'
            )
        if self._model is None and "model" not in parameters:
            raise ConfigurationError(
                f'{self._name}() has no parameter model: name the model, as in @budgeted(model="gpt-4o-mini")'
            )


def budgeted(
    engine: Callable[[], Engine],
    function: Callable[..., Any] | None,
    **options: Unpack[BudgetedOptions],
) -> Any:
    """Guard a function, or return a decorator that does.

    Raises:
        TypeError: an option that there is not.
    """
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"@budgeted has no option {name!r}: there are {', '.join(_OPTIONS)}")

    def guard(function: Callable[..., Any]) -> Any:
        return Decorated(function, Budgeted(engine, function, options))

    return guard if function is None else guard(function)


def _takes_by_name(signature: inspect.Signature, name: str) -> bool:
    """Whether a function may be called with an argument of a name."""
    found = signature.parameters.get(name)
    if found is None:
        return any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    return found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)


def _plain(function: Any) -> Callable[..., Any]:
    plain: Callable[..., Any] = getattr(function, "__func__", function)
    return plain


def _named(name: str, coroutine: Any) -> Any:
    coroutine.__name__ = coroutine.__qualname__ = name  # so that Python says what was never awaited
    return coroutine


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    # wrapt passes the arguments without the instance or class that the function is bound to.
    first, *rest = signature.parameters.values() or (None,)
    return (
        signature
        if first is None or first.kind is first.VAR_POSITIONAL
        else signature.replace(parameters=rest)
    )


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"@budgeted cannot see the parameters of {function!r}: guard a def that calls it"
        ) from error
