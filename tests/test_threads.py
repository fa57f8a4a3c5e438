"""Who pays in plain threads and thread pools."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from budgetguard import budget_user, current_user
from budgetguard.engine.background import Background
from budgetguard.engine.threads import within


def in_thread(make: Callable[[Callable[[], None]], threading.Thread]) -> str | None:
    seen: list[str | None] = []
    thread = make(lambda: seen.append(current_user()))
    thread.start()
    thread.join(30)
    return seen[0]


def test_a_thread_inherits_the_user_of_where_it_is_started() -> None:
    with budget_user("a"):
        made = threading.Thread(target=lambda: None)
        assert in_thread(lambda look: threading.Thread(target=look)) == "a"
    made.start()
    made.join(30)
    assert in_thread(lambda look: threading.Thread(target=look)) is None


def test_subclasses_and_timers_inherit_it_too() -> None:
    class Own(threading.Thread):
        def __init__(self, look: Callable[[], None]) -> None:
            super().__init__()
            self.look = look

        def run(self) -> None:
            self.look()

    with budget_user("a"):
        assert in_thread(Own) == "a"
        assert in_thread(lambda look: threading.Timer(0, look)) == "a"


def test_a_thread_leaves_the_threads_own_run_as_it_was() -> None:
    with budget_user("a"):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join(30)
    assert "run" not in vars(thread)


def test_a_pool_runs_each_job_for_whoever_submits_it() -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        with budget_user("a"):
            assert pool.submit(current_user).result(30) == "a"
        assert pool.submit(current_user).result(30) is None, "the pool's thread was started by a"
        with budget_user("b"):
            assert list(pool.map(lambda _: current_user(), range(3))) == ["b"] * 3
        assert pool.submit(current_user).result(30) is None


def test_a_job_that_sets_a_user_and_never_leaves_it_does_not_leak_it_to_the_next() -> None:
    with ThreadPoolExecutor(max_workers=1) as pool:
        with budget_user("a"):
            pool.submit(lambda: budget_user("leaked").__enter__()).result(30)
        assert pool.submit(current_user).result(30) is None


def test_arguments_and_errors_go_through() -> None:
    def divide(a: int, *, by: int) -> float:
        return a / by

    with budget_user("a"), ThreadPoolExecutor() as pool:
        assert pool.submit(divide, 6, by=3).result(30) == 2
        assert isinstance(pool.submit(divide, 6, by=0).exception(30), ZeroDivisionError)


def test_nothing_is_wrapped_by_importing_and_once_by_using() -> None:
    code = """
import threading, concurrent.futures, budgetguard
start, submit = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit
assert type(start).__name__ == type(submit).__name__ == "function", "wrapped by importing"
with budgetguard.budget_user("a"):
    once = threading.Thread.__dict__["start"]
    assert once is not start
with budgetguard.budget_user("a"):
    assert threading.Thread.__dict__["start"] is once
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_background_works_for_nobody_whoever_started_it() -> None:
    background, seen = Background(), []
    with budget_user("a"):
        background.start()
        background.put(lambda: seen.append(current_user()))
        background.finish()
    assert seen == [None]


def test_what_is_carried_is_current_only_for_as_long_as_it_is_called() -> None:
    with budget_user("a"):
        assert within(None, current_user) is None
        assert current_user() == "a"
