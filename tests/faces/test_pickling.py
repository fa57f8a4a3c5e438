"""Decorated functions cross to other processes, and never without their budget."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import pytest

import budgetguard
from budgetguard import Guard, budget_user, current_user
from budgetguard.engine.decorated import Decorated

guard = Guard(store="memory://")
guard.set_budget(1, user="u")


@guard.budgeted(model="gpt-4o-mini", user="u")
def ask(prompt: str) -> str:
    return f"answer to {prompt}, of {guard.balance('u').held > 0}"


@budget_user("u")
def who() -> str | None:
    return current_user()


@guard.budget(1)
async def in_a_run(prompt: str) -> str:
    return prompt


class Bot:
    def __init__(self, name: str) -> None:
        self.name = name

    @guard.budgeted(model="gpt-4o-mini", user="u")
    def ask(self, prompt: str) -> str:
        return f"{self.name}: {prompt}, of {guard.balance('u').held > 0}"

    @budget_user("u")
    @classmethod
    def who(cls) -> Any:
        return cls.__name__, current_user()

    @staticmethod
    @budget_user("u")
    def whoever() -> str | None:
        return current_user()


undecorated = ask.__wrapped__  # type: ignore[attr-defined]
alias = guard.budgeted(undecorated, model="gpt-4o-mini")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [ask, who, in_a_run, Bot.whoever], ids=lambda one: one.__qualname__)
def test_a_decorated_function_is_pickled_and_copied_as_itself(function: Any, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.copy(function) is copy.deepcopy(function) is function


def test_methods_are_pickled_with_their_object() -> None:
    bot = Bot("Ann")
    for method in (bot.ask, pickle.loads(pickle.dumps(bot.ask)), copy.copy(bot.ask), copy.deepcopy(bot.ask)):
        assert method("hi") == "Ann: hi, of True"
    assert pickle.loads(pickle.dumps(Bot.ask))(bot, "hi") == "Ann: hi, of True"
    assert pickle.loads(pickle.dumps(Bot.who))() == ("Bot", "u")
    assert pickle.loads(pickle.dumps(bot.who))() == ("Bot", "u")


@pytest.mark.full
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes_call_them_guarded(method: str) -> None:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(ask, "a").result(60) == "answer to a, of True"
        assert pool.submit(partial(Bot("Ann").ask, prompt="b")).result(60) == "Ann: b, of True"
        assert pool.submit(who).result(60) == "u"


def test_one_whose_name_leads_elsewhere_says_so() -> None:
    @guard.budgeted(model="gpt-4o-mini")
    def local(prompt: str) -> str:
        return prompt

    with pytest.raises(pickle.PicklingError, match=r"<locals>.local is nothing\. Decorate a function"):
        pickle.dumps(local)
    with pytest.raises(pickle.PicklingError, match="ask is something else"):
        pickle.dumps(alias)
    assert copy.deepcopy(local) is local


def test_cloudpickle_does_not_take_the_guard_off() -> None:
    """What it does with functions of `__main__`, reading them from a module of that name."""
    program = """
import budgetguard
@budgetguard.budgeted(model="gpt-4o-mini")
def ask(prompt): return prompt
source = "def look(function): return function.__code__"
theirs = {"__name__": "joblib.externals.cloudpickle.cloudpickle"}
exec(source, theirs)
assert ask.__code__.co_name == "ask"
try:
    theirs["look"](ask)
except __import__("pickle").PicklingError as error:
    assert "define it in a module" in str(error)
else:
    raise SystemExit("taken apart")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_module_itself_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(budgetguard)) is budgetguard


def test_a_decorated_function_is_still_a_function() -> None:
    assert isinstance(ask, Decorated)
    assert callable(ask)
    assert ask.__code__.co_varnames == ("prompt",)
