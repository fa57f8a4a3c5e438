"""`@budgeted`: put any function that answers with a completion under a budget."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, TypeAlias

import wrapt

from budgetguard.accounts import check_id
from budgetguard.adapters.completions import INPUTS, FunctionRequest, UsageReader, chat_body
from budgetguard.adapters.iterators import GuardedAsyncGenerator, GuardedGenerator
from budgetguard.bookkeeping import Bookkeeper
from budgetguard.calls import Call
from budgetguard.errors import ConfigurationError
from budgetguard.flow import adrive, drive, guarded

Input: TypeAlias = str | Callable[..., Any]
Answer: TypeAlias = UsageReader


class Budgeted:
    """Guard one function: what its calls are asked and by whom they are paid.

    Args:
        keeper: returns the books that its calls go into.
        function: what is guarded.
        model: the model, where the function has no parameter `model`.
        input: the parameter that is the input, or a callable that takes the function's arguments and
            returns it.
        usage: reads usage from the answer.
        max_completion_tokens: what the function caps the output at, where it has no such parameter.
        user: who pays.

    Raises:
        ConfigurationError: an option that cannot be right for this function.
    """

    def __init__(
        self,
        keeper: Callable[[], Bookkeeper],
        function: Callable[..., Any],
        *,
        model: str | None = None,
        input: Input | None = None,
        usage: Answer | None = None,
        max_completion_tokens: int | None = None,
        user: str | None = None,
    ) -> None:
        self._keeper = keeper
        self._name = getattr(function, "__qualname__", repr(function))
        self._model = model
        self._input = input
        self._usage = usage
        self._cap = max_completion_tokens
        self._user = None if user is None else check_id(user, name="user")
        self._check(function)

    def __call__(self, wrapped: Callable[..., Any], _instance: Any, args: Any, kwargs: Any) -> Any:
        call, request = self._call(wrapped, args, kwargs)
        make = partial(wrapped, *args, **kwargs)
        if inspect.isgeneratorfunction(wrapped):
            return GuardedGenerator(call, make, request.reader())
        if inspect.isasyncgenfunction(wrapped):
            return GuardedAsyncGenerator(call, make, request.reader())
        if inspect.iscoroutinefunction(wrapped):
            return adrive(guarded(call), make)
        return drive(guarded(call), make)

    def _call(self, wrapped: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Call, FunctionRequest]:
        bound = _signature(wrapped).bind(*args, **kwargs)
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
        body = chat_body(arguments, self._find_input(arguments, args, kwargs))
        if self._cap is not None and body.get("max_completion_tokens") is None:
            body["max_completion_tokens"] = self._cap
        request = FunctionRequest(self._name, model, body, self._usage)
        return Call(self._keeper(), request, user=self._user), request

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

    def _check(self, function: Callable[..., Any]) -> None:
        if not callable(function) and not isinstance(function, classmethod | staticmethod):
            raise ConfigurationError(f"@budgeted guards functions, and {function!r} is none")
        if self._model is not None and not isinstance(self._model, str):
            raise ConfigurationError(f"model must be a name such as 'gpt-4o-mini', not {self._model!r}")
        if self._input is not None and not isinstance(self._input, str) and not callable(self._input):
            raise ConfigurationError(f"input must be a parameter's name or a callable, not {self._input!r}")
        if self._usage is not None and not callable(self._usage):
            raise ConfigurationError(f"usage must be a callable that reads an answer, not {self._usage!r}")
        parameters = inspect.signature(_plain(function)).parameters
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


def budgeted(keeper: Callable[[], Bookkeeper], function: Callable[..., Any] | None, **options: Any) -> Any:
    """Guard a function, or return a decorator that does."""
    if function is None:
        return partial(budgeted, keeper, **options)
    return wrapt.FunctionWrapper(function, Budgeted(keeper, function, **options))


def _plain(function: Any) -> Callable[..., Any]:
    plain: Callable[..., Any] = getattr(function, "__func__", function)
    return plain


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    # A bound method is a new object at each call, so its signature is kept under its function.
    return _cached_signature(_plain(function), hasattr(function, "__self__"))


@lru_cache(maxsize=1024)
def _cached_signature(function: Callable[..., Any], bound: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    if not bound:
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])
