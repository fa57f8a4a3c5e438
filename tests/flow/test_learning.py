"""Output caps learned from settled calls, and budgets that a high cap must not starve."""

from pathlib import Path
from typing import Any

from budgetguard import Guard
from budgetguard.events import Projected
from budgetguard.learning import ENOUGH
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos, record


def asker(guard: Guard, outputs: int, **more: Any) -> Any:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL, **options: Any) -> Any:
        return completion(10, outputs)

    return lambda: ask(HELLO, **more)


def projected_output(guard: Guard) -> int:
    """Return the output tokens that an uncapped call is projected at now."""
    seen: list[Any] = []
    remove = guard.on(seen.append, Projected)
    asker(guard, 1)()
    remove()
    (event,) = seen
    assert event.cap_assumed
    return event.usage.output_tokens


def teach(guard: Guard, outputs: int, calls: int = ENOUGH) -> None:
    ask = asker(guard, outputs)
    for _ in range(calls):
        ask()


def test_short_answers_shrink_the_projection_and_long_ones_let_it_grow() -> None:
    guard = make_guard(user="u")
    assert projected_output(guard) == 1_024
    teach(guard, 50)
    assert 50 <= projected_output(guard) <= 60
    teach(guard, 5_000, 3)
    assert 5_000 <= projected_output(guard) <= 6_000, "one in a hundred is above what 99 stay under"


def test_nothing_is_learned_from_too_few_answers() -> None:
    guard = make_guard(user="u")
    teach(guard, 50, ENOUGH - 2)
    assert projected_output(guard) == 1_024


def test_answers_that_a_cap_cut_short_teach_nothing() -> None:
    guard = make_guard(user="u")
    ask = asker(guard, 5, max_completion_tokens=5)
    for _ in range(2 * ENOUGH):
        ask()
    assert projected_output(guard) == 1_024


def test_several_choices_count_as_one_answer_each() -> None:
    guard = make_guard(user="u")
    ask = asker(guard, 400, n=4)
    for _ in range(ENOUGH):
        ask()
    assert 100 <= projected_output(guard) <= 120


def test_one_model_teaches_nothing_of_another() -> None:
    guard = make_guard(user="u")
    guard.register_price("other-model", input=1, output=2)
    teach(guard, 50)
    events = record(guard)
    asker(guard, 1, model="other-model")()
    assert events[0].usage.output_tokens == 1_024


def test_what_was_learned_is_there_for_the_next_guard_even_from_single_calls(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}"
    for _ in range(ENOUGH):  # a program that makes one call and ends
        guard = make_guard(url, user="u")
        teach(guard, 50, 1)
        guard.close()
    guard = make_guard(url, user="u")
    assert 50 <= projected_output(guard) <= 60
    guard.close()


def test_calls_that_ask_for_much_and_use_little_do_not_starve_the_budget() -> None:
    guard = make_guard(user="u")
    guard.set_budget(0.1, user="u")  # twelve calls, if each cost its 4 000 tokens
    ask = asker(guard, 500, max_completion_tokens=4_000)
    made = 0
    for _ in range(90):
        ask()
        made += 1
        assert nanos(guard) == (made * (10_000 + 500 * 2_000), 0)
    assert made == 90
