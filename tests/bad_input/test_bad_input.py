"""What people pass by mistake: each is refused before any money moves, in words that help."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from budgetguard import (
    BudgetGuardError,
    ConfigurationError,
    Guard,
    MissingUserError,
    UnknownModelError,
    UnknownUserError,
    UnpricedAnswerError,
    Usage,
    budget_user,
)
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def asker(guard: Guard, answer: Any = None, ran: list[bool] | None = None) -> Callable[..., Any]:
    @guard.budgeted
    def ask(messages: Any, model: Any = MODEL, **options: Any) -> Any:
        if ran is not None:
            ran.append(True)
        return completion() if answer is None else answer

    return ask


# Budgets

BAD_AMOUNTS = [
    (-1, r"must not be negative, and -1 is; use 0 to allow nothing"),
    (-0.01, r"must not be negative, and -0.01 is"),
    (NAN, r"must be a finite number of USD, not nan"),
    (INFINITE, r"must be a finite number of USD, not inf"),
    ("10", r"must be a number of USD such as 10 or 0.5, not '10' \(str\)"),
    ("ten dollars", r"must be a number of USD such as 10 or 0.5, not 'ten dollars'"),
    (True, r"must be a number of USD such as 10 or 0.5, not True \(bool\)"),
    (b"10", r"must be a number of USD .* not b'10'"),
    ([10], r"must be a number of USD .* not \[10\]"),
    (1e30, r"must be at most 9007199.25\d* USD, and 1e\+30 is more"),
]


@pytest.mark.parametrize(("amount", "says"), BAD_AMOUNTS)
@pytest.mark.parametrize("where", ["set_budget", "budget", "max_budget", "default_budget"])
def test_a_budget_that_is_no_amount_of_money(guard: Guard, amount: Any, says: str, where: str) -> None:
    def give() -> None:
        if where == "set_budget":
            guard.set_budget(amount, user="u")
        elif where == "budget":
            guard.budget(amount)
        elif where == "max_budget":
            guard.max_budget = amount
        else:
            guard.configure(default_budget=amount)

    with pytest.raises(ConfigurationError, match=says):
        give()
    assert guard.balance("u").limit == 1
    assert guard.max_budget == 0
    assert guard.settings.default_budget is None


@pytest.mark.parametrize(
    "duration", ["fortnightly", "1 month", "0d", "-1d", "1.5h", "", "d", 30, b"1d", "999y"]
)
def test_an_unknown_duration(guard: Guard, duration: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"unknown duration.*use hourly, daily, weekly, monthly or year"
    ):
        guard.set_budget(5, user="u", duration=duration)
    assert guard.balance("u").limit == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timezone": "Mars/Base"}, "unknown time zone 'Mars/Base': use an IANA name"),
        ({"align": "lunar"}, "align must be 'created' or 'calendar', not 'lunar'"),
        ({"starts_at": "today"}, r"starts_at must be a datetime, not 'today' \(str\)"),
        ({"starts_at": 1_700_000_000}, "starts_at must be a datetime, not 1700000000"),
    ],
)
def test_a_window_that_cannot_be(guard: Guard, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        guard.set_budget(5, user="u", duration="daily", **options)
    assert guard.balance("u").limit == 1


@pytest.mark.parametrize("verb", ["since", "until"])
def test_an_instant_that_is_none(guard: Guard, verb: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{verb} must be a datetime, not 'yesterday'"):
        list(guard.calls(**{verb: "yesterday"}))


# Users


@pytest.mark.parametrize("user", ["", 1234, 12.5, b"1234", ["1234"], "x" * 257, "a\tb", "a\0b"])
@pytest.mark.parametrize("where", ["budget_user", "set_budget", "balance", "reset", "delete", "configure"])
def test_a_user_that_cannot_be_stored(guard: Guard, user: Any, where: str) -> None:
    give = {
        "budget_user": lambda: budget_user(user),
        "set_budget": lambda: guard.set_budget(1, user=user),
        "balance": lambda: guard.balance(user),
        "reset": lambda: guard.reset(user),
        "delete": lambda: guard.delete(user),
        "configure": lambda: guard.configure(user=user),
    }[where]
    with pytest.raises(ConfigurationError, match=r"^user must"):
        give()
    assert list(guard.users()) == ["u"]


def test_a_user_who_has_no_budget(guard: Guard) -> None:
    ran: list[bool] = []
    with budget_user("nobody"), pytest.raises(UnknownUserError, match="user 'nobody' has no budget"):
        asker(guard, ran=ran)(HELLO)
    assert ran == []


def test_no_user_at_all() -> None:
    ran: list[bool] = []
    with pytest.raises(MissingUserError, match="nothing limits this call"):
        asker(make_guard(), ran=ran)(HELLO)
    assert ran == []


# Models and prices


@pytest.mark.parametrize(
    "model", ["no-such-model", "gpt-99-ultra", " ", "gpt-4o-mini; drop table", "x" * 10_000]
)
def test_a_model_that_no_price_list_knows(guard: Guard, model: str) -> None:
    ran: list[bool] = []
    with pytest.raises(UnknownModelError) as refused:
        asker(guard, ran=ran)(HELLO, model=model)
    assert refused.value.model == model
    assert ran == []
    assert nanos(guard) == (0, 0)


@pytest.mark.parametrize("model", [None, 4, b"gpt-4o-mini", ["gpt-4o-mini"], ""])
def test_a_model_that_is_no_name(guard: Guard, model: Any) -> None:
    ran: list[bool] = []
    with pytest.raises(ConfigurationError, match=r"without a model|model must be"):
        asker(guard, ran=ran)(HELLO, model=model)
    assert ran == []


def test_a_model_without_a_price_for_a_unit_that_the_call_would_use(guard: Guard) -> None:
    guard.register_price("half-priced", input=1)
    ran: list[bool] = []
    with pytest.raises(UnknownModelError, match=r"no price for output_tokens.*register_price") as refused:
        asker(guard, ran=ran)(HELLO, model="half-priced")
    assert (refused.value.model, refused.value.unit) == ("half-priced", "output_tokens")
    assert ran == []


def test_an_answer_that_used_a_unit_without_a_price_is_booked_as_projected(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    asked = guard.budgeted(usage=lambda answer: Usage.of(input_tokens=1, output_audio_tokens=10))
    asked(lambda messages, model=MODEL: object())(HELLO)
    (call,) = guard.calls()
    assert (call.cost_nanos, nanos(guard)) == (call.amount_nanos, (call.amount_nanos, 0))
    assert "no price for output_audio_tokens" in caplog.text


@pytest.mark.parametrize(
    "prices", [{}, {"input": -1, "output": 1}, {"input": "1"}, {"input": NAN}, {"inptu": 1}]
)
def test_a_price_that_is_none(guard: Guard, prices: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        guard.register_price("my-model", **prices)
    with pytest.raises(UnknownModelError):
        asker(guard)(HELLO, model="my-model")


# Messages


@pytest.mark.parametrize(
    "messages",
    [
        [],
        (),
        "",
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        [{"role": "user", "content": [{"type": "text", "text": None}]}],
        [{"role": "user", "content": [{"type": "unheard-of"}]}],
        [{"role": "user", "content": [None, "text"]}],
        [{"role": "user", "content": b"bytes"}],
        [{"role": "user", "content": 12}],
        [{"role": "user", "content": {"nested": {"deep": [1, 2]}}}],
        [{"role": None, "content": "hello"}],
        [None],
        [b"bytes"],
        ["text", None],
        [["list"]],
        [object()],
        {"role": "user", "content": "hello"},
        b"bytes",
        12,
        object(),
        iter(()),
    ],
    ids=lambda messages: repr(messages)[:60].partition(" at 0x")[0],
)
def test_messages_of_any_shape_are_priced_or_refused_and_never_crash(guard: Guard, messages: Any) -> None:
    ran: list[bool] = []
    with contextlib.suppress(ConfigurationError):  # and nothing else
        asker(guard, ran=ran)(messages)
    assert nanos(guard) == ((120_000, 0) if ran else (0, 0))
    assert list(guard.holds()) == []


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (b"bytes", "the input must be text, a list of messages or a list of texts, not bytes"),
        (12, "not int"),
        ({"role": "user"}, "not dict"),
    ],
)
def test_an_input_that_is_none_is_named(guard: Guard, messages: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        asker(guard)(messages)


@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [-1, 1.5, "10", True, NAN, [1]])
def test_a_count_that_is_none(guard: Guard, name: str, value: Any) -> None:
    ran: list[bool] = []
    with pytest.raises(ConfigurationError, match=f"{name} must be a whole number of at least"):
        asker(guard, ran=ran)(HELLO, **{name: value})
    assert ran == []


# Answers


class Hostile:
    """An answer all of whose attributes fail."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("hostile")


@pytest.mark.parametrize(
    "answer",
    [
        (),
        0,
        3.5,
        b"bytes",
        object(),
        ["text"],
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": "many"},
        {"usage": {"prompt_tokens": None, "completion_tokens": None}},
        {"usage": {"prompt_tokens": "x", "completion_tokens": -5}},
        {"usage": {"prompt_tokens": NAN}},
        {"usage": []},
        {"choices": []},
    ],
    ids=lambda answer: repr(answer).partition(" at 0x")[0],
)
def test_an_answer_from_which_no_cost_can_be_read(guard: Guard, answer: Any) -> None:
    with pytest.raises(UnpricedAnswerError, match=r"its projection was booked.*usage=f"):
        asker(guard, answer)(HELLO)
    (call,) = guard.calls()
    assert nanos(guard) == (call.amount_nanos, 0)


def test_no_answer_at_all(guard: Guard) -> None:
    with pytest.raises(UnpricedAnswerError, match="answered with NoneType"):
        guard.budgeted(lambda messages, model=MODEL: None)(HELLO)
    assert nanos(guard) == (next(guard.calls()).amount_nanos, 0)


def test_an_answer_that_fights_being_read_reaches_its_caller(guard: Guard) -> None:
    answer = Hostile()
    assert asker(guard, answer)(HELLO) is answer
    assert nanos(guard) == (next(guard.calls()).amount_nanos, 0)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda answer: answer.no_such_thing, r"usage= of .* failed on the object .*\(AttributeError\)"),
        (lambda answer: None, "not NoneType"),
        (lambda answer: 5, "not 5;"),
        (lambda answer: (1, 2, 3), r"not \(1, 2, 3\)"),
        (lambda answer: (1, -2), r"not \(1, -2\)"),
        (lambda answer: (1.5, 2), r"not \(1.5, 2\)"),
        (lambda answer: (True, 2), r"not \(True, 2\)"),
        (lambda answer: ("1", "2"), "not tuple"),
    ],
)
def test_a_usage_that_is_none(guard: Guard, read: Any, says: str) -> None:
    with pytest.raises(UnpricedAnswerError, match=says):
        guard.budgeted(usage=read)(lambda messages, model=MODEL: object())(HELLO)
    assert nanos(guard) == (next(guard.calls()).amount_nanos, 0)


def test_an_answer_that_says_it_used_more_than_any_budget_holds(guard: Guard) -> None:
    asker(guard, completion(10**15, 10**15))(HELLO)
    spent, held = nanos(guard)
    assert spent == 2**53 - 1
    assert held == 0


@pytest.mark.parametrize("url", ["", "budgets", "ftp://x", "disk://", "memory://name", "disk:///x?speed=9"])
def test_a_store_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="store"):
        Guard(store=url, project="p").set_budget(1, user="u")


def test_every_refusal_is_one_of_ours(guard: Guard) -> None:
    with pytest.raises(BudgetGuardError):
        asker(guard)(HELLO, n="two")
