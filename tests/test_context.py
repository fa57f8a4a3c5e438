"""`budget_user` and the chain of what is around a call."""

import asyncio
import contextvars
import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from budgetguard import ConfigurationError, Guard, budget_tags, budget_user, current_user
from budgetguard.engine.context import current_tags


def test_inside_with_the_user_is_current_and_outside_nobody() -> None:
    assert current_user() is None
    with budget_user("a") as entered:
        assert entered.user == current_user() == "a"
    assert current_user() is None


async def test_async_with_means_the_same() -> None:
    async with budget_user("a"):
        await asyncio.sleep(0)
        assert current_user() == "a"
    assert current_user() is None


def test_the_innermost_counts_and_the_outer_comes_back() -> None:
    with budget_user("a"):
        with budget_user("b"):
            assert current_user() == "b"
        assert current_user() == "a"


def test_it_is_left_on_an_error_too() -> None:
    with pytest.raises(KeyError), budget_user("a"):
        raise KeyError
    assert current_user() is None


def test_one_object_may_be_entered_again_inside_itself() -> None:
    user = budget_user("a")
    with user:
        with user:
            with budget_user("b"), user:
                assert current_user() == "a"
            assert current_user() == "a"
        assert current_user() == "a"
    assert current_user() is None


def test_left_in_another_context_it_undoes_nothing_there() -> None:
    user = budget_user("a")
    contextvars.copy_context().run(user.__enter__)
    with budget_user("b"):
        user.__exit__(None, None, None)
        assert current_user() == "b"


def test_left_out_of_order_it_takes_out_itself_alone() -> None:
    outer, inner = budget_user("a"), budget_user("b")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert current_user() == "b"
    inner.__exit__(None, None, None)
    assert current_user() is None


def test_a_run_does_not_keep_the_user_of_a_with_that_was_left_before_it() -> None:
    user, run = budget_user("a"), Guard(store="memory://").budget(1)
    user.__enter__()
    run.__enter__()
    assert current_user() == "a"
    user.__exit__(None, None, None)
    assert current_user() is None
    run.__exit__(None, None, None)


def test_two_threads_on_one_object_do_not_meet() -> None:
    user = budget_user("a")
    both_inside = threading.Barrier(2, timeout=30)
    one_left = threading.Event()
    seen = []

    def first() -> None:
        with user:
            both_inside.wait()
        seen.append(("first", current_user()))
        one_left.set()

    def second() -> None:
        with user:
            both_inside.wait()
            assert one_left.wait(30)
            seen.append(("second", current_user()))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [("first", None), ("second", "a")]


async def test_two_tasks_on_one_object_do_not_meet() -> None:
    user = budget_user("a")
    inside, left = asyncio.Event(), asyncio.Event()

    async def first() -> str | None:
        async with user:
            inside.set()
        left.set()
        return current_user()

    async def second() -> str | None:
        async with user:
            await inside.wait()
            await left.wait()
            return current_user()

    assert await asyncio.gather(second(), first()) == ["a", None]


async def test_tasks_inherit_the_user_and_keep_their_own() -> None:
    async def look() -> str | None:
        await asyncio.sleep(0)
        return current_user()

    async def set_own() -> None:
        budget_user("b").__enter__()  # never left: a task's context ends with it

    async with budget_user("a"):
        assert await asyncio.create_task(look()) == "a"
        await asyncio.create_task(set_own())
        assert current_user() == "a"
        assert await asyncio.to_thread(current_user) == "a"


# As a decorator


def test_a_sync_function_runs_with_its_user() -> None:
    @budget_user("a")
    def look(x: int, *, y: int = 2) -> Any:
        return current_user(), x, y

    assert look(1, y=3) == ("a", 1, 3)
    assert current_user() is None
    assert str(inspect.signature(look)) == "(x: int, *, y: int = 2) -> Any"


async def test_an_async_function_runs_with_its_user() -> None:
    @budget_user("a")
    async def look() -> str | None:
        await asyncio.sleep(0)
        return current_user()

    assert inspect.iscoroutinefunction(look)
    assert await look() == "a"
    assert await asyncio.gather(look(), look()) == ["a", "a"]
    assert current_user() is None


def test_methods_of_every_binding_run_with_their_user() -> None:
    class Bot:
        @budget_user("a")
        def method(self) -> Any:
            return type(self).__name__, current_user()

        @budget_user("b")
        @classmethod
        def outside(cls) -> Any:
            return cls.__name__, current_user()

        @staticmethod
        @budget_user("c")
        def inside() -> Any:
            return "Bot", current_user()

    bot = Bot()
    assert [bot.method(), bot.outside(), bot.inside()] == [("Bot", "a"), ("Bot", "b"), ("Bot", "c")]


async def test_an_async_callable_object_runs_with_its_user() -> None:
    class Look:
        async def __call__(self) -> str | None:
            await asyncio.sleep(0)
            return current_user()

    assert await budget_user("a")(Look())() == "a"


def test_a_generator_runs_with_its_user_and_its_caller_without() -> None:
    seen = []

    @budget_user("a")
    def steps() -> Any:
        try:
            got = yield current_user()
            seen.append((got, current_user()))
            try:
                yield
            except KeyError:
                seen.append(("caught", current_user()))
            yield
        finally:
            seen.append(("finally", current_user()))

    assert inspect.isgeneratorfunction(steps)
    generator = steps()
    assert next(generator) == "a"
    assert current_user() is None
    with budget_user("caller"):
        generator.send("sent")
        assert current_user() == "caller"
        generator.throw(KeyError())
        assert current_user() == "caller"
        generator.close()
        assert current_user() == "caller"
    assert seen == [("sent", "a"), ("caught", "a"), ("finally", "a")]


def test_a_generator_returns_what_it_returns() -> None:
    @budget_user("a")
    def steps() -> Any:
        yield 1
        return 2

    generator = steps()
    next(generator)
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == 2


async def test_an_async_generator_runs_with_its_user_and_its_caller_without() -> None:
    seen = []

    @budget_user("a")
    async def steps() -> Any:
        try:
            got = yield current_user()
            seen.append((got, current_user()))
            try:
                yield
            except KeyError:
                seen.append(("caught", current_user()))
            yield
        finally:
            seen.append(("finally", current_user()))

    assert inspect.isasyncgenfunction(steps)
    generator = steps()
    assert await anext(generator) == "a"
    assert current_user() is None
    async with budget_user("caller"):
        await generator.asend("sent")
        await generator.athrow(KeyError())
        assert current_user() == "caller"
        await generator.aclose()
    assert seen == [("sent", "a"), ("caught", "a"), ("finally", "a")]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("", "user must not be empty; pass an id"),
        (1234, "user must be text, not 1234.*write '1234'"),
        (None, "user must be text, not None"),
        ("x" * 257, "at most 256 characters"),
        ("a\nb", "control characters"),
        ("\ud800", "lone surrogates"),
    ],
)
def test_a_user_that_cannot_be_stored_is_refused_before_anything_is_entered(user: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        budget_user(user)


@pytest.mark.parametrize("user", ["1234", "a b", "Ω/ü", "x" * 256, "a:b"])
def test_any_printable_text_is_a_user(user: str) -> None:
    with budget_user(user):
        assert current_user() == user


def test_tags_add_up_outermost_first_and_end_with_their_with() -> None:
    @budget_tags("inner", "outer")
    def tagged() -> tuple[str, ...]:
        return current_tags()

    assert current_tags() == ()
    with budget_tags("outer"), budget_user("a"), budget_tags("7"):
        assert current_tags() == ("outer", "7")
        assert tagged() == ("outer", "7", "inner")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(current_tags).result(30) == ("outer", "7")
        assert current_user() == "a"
    assert current_tags() == ()


@pytest.mark.parametrize("tags", [(), ("",), (3,), ("a\nb",), ("ok", "x" * 257)])
def test_tags_that_cannot_be_stored_are_refused(tags: Any) -> None:
    with pytest.raises(ConfigurationError, match="tag"):
        budget_tags(*tags)


def test_trio_may_be_imported_meanwhile_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))  # it has nothing yet
    with budget_user("1234"):
        assert current_user() == "1234"


def test_only_functions_are_decorated() -> None:
    with pytest.raises(ConfigurationError, match="budget_user decorates functions, and 3 is none"):
        budget_user("a")(3)  # type: ignore[type-var]  # the mistake
