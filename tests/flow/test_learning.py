"""Output caps learned from settled calls, and budgets that a high cap must not starve."""

from pathlib import Path
from typing import Any

from budgetguard import Guard
from budgetguard.core.usage import ENOUGH
from budgetguard.engine.projection import with_margin
from budgetguard.events import Projected
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos, record
from tests.projecting import chat_input_tokens


def asker(guard: Guard, outputs: int, **more: Any) -> Any:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL, **options: Any) -> Any:
        return completion(10, outputs)

    return lambda: ask(HELLO, **more)


OPENAI = "gpt-4o-mini"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def billing(guard: Guard, beyond: int, **more: Any) -> Any:
    """Return a function whose provider bills so many input tokens beyond those that are counted."""

    @guard.budgeted
    def ask(messages: Any, model: str = OPENAI, **options: Any) -> Any:
        shown = with_margin(chat_input_tokens({"messages": messages, **options}, model))
        return completion(shown + beyond, 5)

    return lambda: ask(HELLO, **more)


def projected_input(guard: Guard, **more: Any) -> int:
    """Return the input tokens that a call is projected at now."""
    seen: list[Any] = []
    remove = guard.on(seen.append, Projected)
    billing(guard, 0, **more)()
    remove()
    (event,) = seen
    return int(event.usage.input_tokens)


def projected_output(guard: Guard) -> int:
    """Return the output tokens that an uncapped call is projected at now."""
    seen: list[Any] = []
    remove = guard.on(seen.append, Projected)
    asker(guard, 1)()
    remove()
    (event,) = seen
    assert event.cap_assumed
    return int(event.usage.output_tokens)


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
    events: list[Any] = record(guard)
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


def test_a_prompt_of_the_provider_s_own_is_projected_once_it_was_billed_often_enough() -> None:
    guard = make_guard(user="u")
    shown = projected_input(guard, tools=TOOLS)
    ask = billing(guard, 200, tools=TOOLS)
    for _ in range(ENOUGH - 2):
        ask()
    assert projected_input(guard, tools=TOOLS) == shown, "too few calls say so"
    ask()
    assert shown + 200 <= projected_input(guard, tools=TOOLS) <= shown + 240


def test_what_is_learned_of_one_shape_changes_no_other() -> None:
    guard = make_guard(user="u")
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    others: tuple[dict[str, Any], ...] = ({}, {"response_format": schema})
    before = [projected_input(guard, **more) for more in others]
    for _ in range(2 * ENOUGH):
        billing(guard, 500, tools=TOOLS)()
    assert [projected_input(guard, **more) for more in others] == before


def test_calls_that_were_billed_less_never_lower_a_projection() -> None:
    guard = make_guard(user="u")
    shown = projected_input(guard, tools=TOOLS)
    for _ in range(2 * ENOUGH):
        billing(guard, -20, tools=TOOLS)()
    assert projected_input(guard, tools=TOOLS) == shown


def test_another_tokenizer_is_corrected_in_proportion() -> None:
    guard = make_guard(user="u")
    guard.register_price("claude-x", input=1, output=2)
    long = [{"role": "user", "content": "What it says. " * 1_000}]

    @guard.budgeted
    def ask(messages: Any, model: str = "claude-x") -> Any:
        return completion(round(1.2 * chat_input_tokens({"messages": messages}, model)), 5)

    def projected(messages: Any) -> int:
        seen: list[Any] = []
        remove = guard.on(seen.append, Projected)
        ask(messages)
        remove()
        return int(seen[0].usage.input_tokens)

    short = [{"role": "user", "content": "What it says. " * 100}]
    for _ in range(ENOUGH):
        ask(short)  # the long one teaches nothing before it is projected
    counted = chat_input_tokens({"messages": long}, "claude-x")
    assert with_margin(counted) < 1.2 * counted <= projected(long) <= 1.3 * counted
