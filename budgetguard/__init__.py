"""Budgets for LLM calls: each call's cost is projected and held before it, and settled after it.

    import budgetguard
    from budgetguard import BudgetManager, budget_user

    BudgetManager("my-app").create_budget(total_budget=10, user="1234", duration="monthly")
    budgetguard.patch_openai()
    with budget_user("1234"):
        client.chat.completions.create(model="gpt-4o-mini", messages=[...])

The functions of this module are those of one `Guard`, made from `BUDGETGUARD_*` variables on first use.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.labels import EACH, literal
from budgetguard.core.usage import Usage
from budgetguard.engine.context import current_labels, current_user
from budgetguard.engine.surrounding import Run, budget_labels, budget_tags, budget_user
from budgetguard.errors import (
    BudgetExceededError,
    BudgetGuardError,
    ConfigurationError,
    MissingUserError,
    ModelNotAllowedError,
    StoreError,
    UnguardedCallError,
    UnknownAttributeError,
    UnknownEndpointError,
    UnknownModelError,
    UnknownUserError,
    UnpricedAnswerError,
)
from budgetguard.events import Event, log_events
from budgetguard.guard import Guard

if TYPE_CHECKING:
    from budgetguard.litellm.manager import BudgetManager
    from budgetguard.providers.decorator import BudgetedOptions
    from budgetguard.providers.sdks import Checked

__all__ = [
    "EACH",
    "Balance",
    "Budget",
    "BudgetExceededError",
    "BudgetGuardError",
    "BudgetManager",
    "ConfigurationError",
    "Event",
    "Guard",
    "MissingUserError",
    "ModelNotAllowedError",
    "Run",
    "StoreError",
    "UnguardedCallError",
    "UnknownEndpointError",
    "UnknownModelError",
    "UnknownUserError",
    "UnpricedAnswerError",
    "Usage",
    "budget",
    "budget_labels",
    "budget_tags",
    "budget_user",
    "budgeted",
    "call",
    "check",
    "configure",
    "current_cost",
    "current_labels",
    "current_user",
    "default_guard",
    "literal",
    "log_events",
    "on",
    "patch",
    "patch_anthropic",
    "patch_bedrock",
    "patch_google",
    "patch_litellm",
    "patch_openai",
    "reconcile",
    "register_price",
    "unpatch",
    "unpatch_anthropic",
    "unpatch_bedrock",
    "unpatch_google",
    "unpatch_litellm",
    "unpatch_openai",
    "wrap",
]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

_guard: Guard | None = None
_making = threading.RLock()

max_budget: int | float | Decimal
"""USD that this process may spend, 0 for no cap: `budgetguard.max_budget = 0.50`.

It begins at `BUDGETGUARD_MAX_BUDGET`. Set it on the module: what `from budgetguard import max_budget` binds
is a number of the importer's own, which caps nothing."""


def default_guard() -> Guard:
    """Return the guard whose verbs this module's functions are.

    Raises:
        ConfigurationError: a bad `BUDGETGUARD_*` variable.
    """
    global _guard
    if _guard is None:
        with _making:
            if _guard is None:
                _guard = Guard()
    return _guard


def _of_default(verb: Callable[Concatenate[Guard, P], R]) -> Callable[P, R]:
    """Return a guard's verb as a function of the default guard."""

    @wraps(verb)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        return verb(default_guard(), *args, **kwargs)

    # A function of this module to `help` and to pickle: process pools send `patch_openai` as an initializer.
    found = inspect.signature(verb)
    _, *rest = found.parameters.values()
    vars(function)["__signature__"] = found.replace(parameters=rest)
    function.__module__, function.__qualname__ = __name__, verb.__name__
    return function


configure = _of_default(Guard.configure)
budget = _of_default(Guard.budget)
call = _of_default(Guard.call)
patch = _of_default(Guard.patch)
unpatch = _of_default(Guard.unpatch)
patch_openai = _of_default(Guard.patch_openai)
unpatch_openai = _of_default(Guard.unpatch_openai)
patch_anthropic = _of_default(Guard.patch_anthropic)
unpatch_anthropic = _of_default(Guard.unpatch_anthropic)
patch_bedrock = _of_default(Guard.patch_bedrock)
unpatch_bedrock = _of_default(Guard.unpatch_bedrock)
patch_litellm = _of_default(Guard.patch_litellm)
unpatch_litellm = _of_default(Guard.unpatch_litellm)
patch_google = _of_default(Guard.patch_google)
unpatch_google = _of_default(Guard.unpatch_google)
wrap = _of_default(Guard.wrap)
current_cost = _of_default(Guard.current_cost)
register_price = _of_default(Guard.register_price)
reconcile = _of_default(Guard.reconcile)
on = _of_default(Guard.on)


@overload
def budgeted(function: F) -> F: ...


@overload
def budgeted(**options: Unpack[BudgetedOptions]) -> Callable[[F], F]: ...


def budgeted(function: Any = None, **options: Any) -> Any:
    """Guard a function that answers with a completion: projected and held before, settled after.

    Works on sync and async functions, generators, async generators and methods. The function answers
    with an openai object, a dict of that shape, or text. Guarded calls that it makes are charged
    themselves, and then it is not.

    Args:
        function: what is guarded, where the decorator has no options.
        options: see `BudgetedOptions`.

    Raises:
        ConfigurationError: when decorating: an option that cannot be right for this function.
        BudgetGuardError: when calling: the call was refused; or UnpricedAnswerError after it.
    """
    from budgetguard.providers.decorator import budgeted as decorate

    return decorate(lambda: default_guard().engine, function, **options)


def check() -> list[Checked]:
    """Return, for each SDK of models that this process has imported, whether it is guarded, and why not.

    `print(*budgetguard.check(), sep="\\n")` shows it. See `budgetguard.providers.sdks.Checked`.
    """
    from budgetguard.providers.sdks import check

    return check()


def __getattr__(name: str) -> Any:
    # Importing is to be quick, and the manager brings all that prices a request.
    if name == "BudgetManager":
        from budgetguard.litellm.manager import BudgetManager

        return BudgetManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Module(ModuleType):
    """This module, with `max_budget` checked when it is set and read from the default guard."""

    @property
    def max_budget(self) -> Decimal:
        return default_guard().max_budget

    @max_budget.setter
    def max_budget(self, usd: int | float | Decimal) -> None:
        default_guard().max_budget = usd

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # Picklers that send functions by value send the modules that these use, by name, but only plain ones.
        return importlib.import_module, (__name__,)

    def __setattr__(self, name: str, value: object) -> None:
        # A mistyped cap caps nothing. Modules are what importing one of ours sets here.
        if not (name.startswith("_") or name == "max_budget" or isinstance(value, ModuleType)):
            _check_name(name)
        super().__setattr__(name, value)


def _check_name(name: str) -> None:
    if name in globals() or name in __all__:
        return
    from dataclasses import fields
    from difflib import get_close_matches

    from budgetguard.config import Settings

    if name in {one.name for one in fields(Settings)}:
        hint = f"it is a setting: budgetguard.configure({name}=...)"
    else:
        near = get_close_matches(name, ["max_budget", *__all__], n=1)
        hint = f"did you mean {near[0]}?" if near else "what can be set is max_budget"
    raise UnknownAttributeError(f"budgetguard has no attribute {name!r} to set: {hint}")


sys.modules[__name__].__class__ = _Module
