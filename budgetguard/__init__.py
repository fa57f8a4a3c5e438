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
import sys
import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.usage import Usage
from budgetguard.engine.context import budget_tags, budget_user, current_user
from budgetguard.engine.runs import Run
from budgetguard.errors import (
    BudgetExceededError,
    BudgetGuardError,
    ConfigurationError,
    MissingUserError,
    StoreError,
    UnknownAttributeError,
    UnknownEndpointError,
    UnknownModelError,
    UnknownUserError,
    UnpricedAnswerError,
)
from budgetguard.events import Event, Hook, log_events
from budgetguard.guard import Guard

if TYPE_CHECKING:
    from budgetguard.litellm.manager import BudgetManager
    from budgetguard.providers.checking import Checked
    from budgetguard.providers.decorator import Answer, Input

__all__ = [
    "Balance",
    "Budget",
    "BudgetExceededError",
    "BudgetGuardError",
    "BudgetManager",
    "ConfigurationError",
    "Event",
    "Guard",
    "MissingUserError",
    "Run",
    "StoreError",
    "UnknownEndpointError",
    "UnknownModelError",
    "UnknownUserError",
    "UnpricedAnswerError",
    "Usage",
    "budget",
    "budget_tags",
    "budget_user",
    "budgeted",
    "check",
    "configure",
    "current_cost",
    "current_user",
    "default_guard",
    "log_events",
    "on",
    "patch_anthropic",
    "patch_openai",
    "register_price",
    "unpatch_anthropic",
    "unpatch_openai",
    "wrap",
]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")

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


def configure(**settings: Any) -> None:
    """Change the default guard's settings: `configure(store="disk:///var/lib/app", project="my-app")`.

    Args:
        settings: see `budgetguard.config.Settings`; those not named stay as they are.

    Raises:
        ConfigurationError: an unknown setting or a bad value; nothing was changed.
    """
    default_guard().configure(**settings)


@overload
def budgeted(function: F) -> F: ...


@overload
def budgeted(
    *,
    model: str | None = None,
    input: Input | None = None,
    usage: Answer | None = None,
    max_completion_tokens: int | None = None,
    user: str | None = None,
    provider: str | None = None,
    base_url: str | None = None,
) -> Callable[[F], F]: ...


def budgeted(function: Any = None, **options: Any) -> Any:
    """Guard a function that answers with a completion: projected and held before, settled after.

    Works on sync and async functions, generators, async generators and methods. The function answers
    with an openai object, a dict of that shape, or text. Guarded calls that it makes are charged
    themselves, and then it is not.

    Args:
        model: the model, where the function has no parameter `model`.
        input: the parameter that is the input (by default `messages`, `prompt` or `input`), or a callable
            that takes the function's arguments and returns messages or text.
        usage: a callable that reads an answer of another kind: returns a Usage, or input and output tokens.
        max_completion_tokens: what the function caps the output at, where it has no such parameter.
        user: who pays; by default the current user.
        provider: whose prices count, by genai-prices' id such as `azure`; by default what `base_url` or a
            prefix of the model's name says, else OpenAI.
        base_url: the address that the function calls; calls to one of `free_base_urls` cost nothing.

    Raises:
        ConfigurationError: when decorating: an option that cannot be right for this function.
        BudgetGuardError: when calling: the call was refused; or UnpricedAnswerError after it.
    """
    from budgetguard.providers.decorator import budgeted as decorate

    return decorate(lambda: default_guard().engine, function, **options)


def budget(limit: int | float | Decimal) -> Run:
    """Cap what the calls inside spend together: `with budgetguard.budget(0.50) as run:`; see `Run`.

    Args:
        limit: USD.

    Raises:
        ConfigurationError: a bad limit.
    """
    return default_guard().budget(limit)


def patch_openai(*, model_map: Mapping[str, str] | None = None) -> None:
    """Guard every client of the `openai` package, those that exist already too. Twice is once.

    Args:
        model_map: which model a deployment serves, as `configure(model_map=...)` sets it.

    Raises:
        ConfigurationError: another guard has patched it, or this version of openai is not known; a bad
            `model_map`.
    """
    default_guard().patch_openai(model_map=model_map)


def unpatch_openai() -> None:
    """Undo `patch_openai`, leaving what others wrapped around it."""
    default_guard().unpatch_openai()


def patch_anthropic(*, model_map: Mapping[str, str] | None = None) -> None:
    """Guard every client of the `anthropic` package, those that exist already too. Twice is once.

    Args:
        model_map: which model a name stands for, as `configure(model_map=...)` sets it.

    Raises:
        ConfigurationError: another guard has patched it, or this version of anthropic is not known; a bad
            `model_map`.
    """
    default_guard().patch_anthropic(model_map=model_map)


def unpatch_anthropic() -> None:
    """Undo `patch_anthropic`, leaving what others wrapped around it."""
    default_guard().unpatch_anthropic()


def wrap(client: C, *, model_map: Mapping[str, str] | None = None) -> C:
    """Guard one client of `openai` or `anthropic`, and those made from it, and return it.

    Args:
        client: an `OpenAI`, `AsyncOpenAI` or one of Azure's; an `Anthropic` or `AsyncAnthropic`.
        model_map: as the setting of that name, for this client alone, before the setting's own names.

    Raises:
        ConfigurationError: not a client of these packages, or one whose calls are refused; a bad `model_map`.
    """
    return default_guard().wrap(client, model_map=model_map)


def check() -> list[Checked]:
    """Return, for each SDK of models that this process has imported, whether it is guarded, and why not.

    `print(*budgetguard.check(), sep="\\n")` shows it. See `budgetguard.providers.checking.Checked`.
    """
    from budgetguard.providers.checking import check

    return check()


def current_cost() -> float:
    """Return what this process has spent, USD as a float, as LiteLLM counts it."""
    return default_guard().current_cost()


def register_price(model: str, **prices: Any) -> None:
    """Set a model's price by your own word, before every price list.

    `register_price("my-model", input=0.5, output=2)` is USD per million tokens; see `PriceBook.register`.

    Raises:
        ConfigurationError: no price, a bad price, an unknown unit.
    """
    default_guard().register_price(model, **prices)


def on(hook: Hook, *kinds: type[Event]) -> Callable[[], None]:
    """Call `hook` with events (of these kinds only, if any are named), and return its remover."""
    return default_guard().on(hook, *kinds)


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
