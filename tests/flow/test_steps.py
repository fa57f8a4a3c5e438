"""The order of one guarded call, driven by hand: no loop, no thread, no provider."""

import asyncio
from collections.abc import Generator

import pytest

from budgetguard import BudgetExceededError, Guard, UnpricedAnswerError, budget_user
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import calls_around
from budgetguard.engine.flow import Flow, Invoke, Work, guarded
from tests.guarded_calls import Scripted, StatusError, make_guard, names, nanos, record

HELD = (0, 300_000)


@pytest.fixture
def guard() -> Guard:
    return make_guard()


def begin(guard: Guard) -> Flow:
    with budget_user("u"):
        return guarded(GuardedCall(guard.engine, Scripted()))


def reserved(guard: Guard) -> Generator:
    """Return a flow that has reserved and now wants to be invoked."""
    flow = begin(guard)
    work = next(flow)
    assert isinstance(work, Work)
    assert isinstance(flow.send(work.run()), Invoke)
    assert nanos(guard) == HELD
    return flow


def finish(flow: Flow, step: object, value: object = None) -> object:
    """Do the last step, and return the flow's answer."""
    assert isinstance(step, Work)
    with pytest.raises(StopIteration) as stop:
        flow.send(step.run())
    return stop.value.value


def fail(flow: Flow, step: object, error: type[BaseException]) -> None:
    """Do the last step, after which the flow raises."""
    assert isinstance(step, Work)
    step.run()
    with pytest.raises(error):
        flow.send(None)


def test_an_answered_call_is_reserved_invoked_and_settled_in_this_order(guard: Guard) -> None:
    events = record(guard)
    flow = reserved(guard)
    assert names(events) == ["Projected", "Held"]
    settle = flow.send(70)
    assert nanos(guard) == HELD, "asking for the step does not yet do it"
    assert finish(flow, settle) == 70
    assert nanos(guard) == (70_000, 0)
    assert names(events) == ["Projected", "Held", "Settled"]


def test_a_refused_call_is_never_invoked(guard: Guard) -> None:
    guard.set_budget(0.000299999, user="u")
    events = record(guard)
    flow = begin(guard)
    work = next(flow)
    with pytest.raises(BudgetExceededError) as refused:
        work.run()
    with pytest.raises(BudgetExceededError) as raised:
        flow.throw(refused.value)
    assert raised.value is refused.value
    assert nanos(guard) == (0, 0)
    assert names(events) == ["Projected", "Refused"]


def test_a_call_that_the_provider_refused_is_voided_before_its_error_goes_on(guard: Guard) -> None:
    events = record(guard)
    flow = reserved(guard)
    fail(flow, flow.throw(StatusError(429)), StatusError)
    assert nanos(guard) == (0, 0)
    assert names(events)[-1] == "Voided"


@pytest.mark.parametrize(("policy", "spent"), [("charge", 300_000), ("input", 100_000), ("release", 0)])
@pytest.mark.parametrize("error", [TimeoutError, asyncio.CancelledError, KeyboardInterrupt])
def test_what_an_unknown_outcome_costs_is_the_users_choice(
    policy: str, spent: int, error: type[BaseException]
) -> None:
    guard = make_guard(unknown_outcome=policy)
    events = record(guard)
    flow = reserved(guard)
    fail(flow, flow.throw(error()), error)
    assert nanos(guard) == (spent, 0)
    assert names(events)[-1] == "Settled"
    assert (events[-1].outcome, events[-1].estimated) == ("unknown", True)


def test_cancelled_while_reserving_gives_back_what_was_granted(guard: Guard) -> None:
    flow = begin(guard)
    next(flow).run()
    assert nanos(guard) == HELD
    fail(flow, flow.throw(asyncio.CancelledError()), asyncio.CancelledError)
    assert nanos(guard) == (0, 0)


def test_cancelled_before_reserving_was_done_leaves_nothing(guard: Guard) -> None:
    flow = begin(guard)
    next(flow)
    fail(flow, flow.throw(asyncio.CancelledError()), asyncio.CancelledError)
    assert nanos(guard) == (0, 0)
    assert list(guard.calls()) == []


def test_cancelled_while_settling_raises_that_and_books_once(guard: Guard) -> None:
    flow = reserved(guard)
    flow.send(70).run()
    with pytest.raises(asyncio.CancelledError):
        flow.throw(asyncio.CancelledError())
    assert nanos(guard) == (70_000, 0)


def test_an_answer_without_a_price_is_booked_as_projected_and_then_reported(guard: Guard) -> None:
    events = record(guard)
    flow = reserved(guard)
    fail(flow, flow.send("text"), UnpricedAnswerError)
    assert nanos(guard) == (300_000, 0)
    assert events[-1].estimated


def test_an_adapter_that_fails_on_an_answer_does_not_cost_the_caller_that_answer(
    guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Scripted, "outcome", lambda self, answer: answer.usage.no_such_thing)
    flow = reserved(guard)
    assert finish(flow, flow.send(70)) == 70
    assert nanos(guard) == (300_000, 0)
    assert "could not be read" in caplog.text


def test_a_call_is_current_only_while_it_is_invoked(guard: Guard) -> None:
    flow = begin(guard)
    work = next(flow)
    assert calls_around(guard.engine) == ()
    flow.send(work.run())
    assert len(calls_around(guard.engine)) == 1
    settle = flow.send(70)
    assert calls_around(guard.engine) == ()
    finish(flow, settle)


def test_whoever_finishes_first_counts_and_nobody_counts_twice(guard: Guard) -> None:
    with budget_user("u"):
        call = GuardedCall(guard.engine, Scripted())
    call.reserve()
    call.finish(Scripted().outcome(70))
    call.finish(Scripted().outcome(90))
    call.finish(Scripted().outcome_of_error(StatusError(500)))
    assert nanos(guard) == (70_000, 0)


def test_who_pays_is_decided_where_the_call_is_made(guard: Guard) -> None:
    guard.set_budget(1, user="other")
    flow = begin(guard)
    with budget_user("other"):
        flow.send(next(flow).run())
        flow.send(70).run()
    assert nanos(guard) == (70_000, 0)
    assert nanos(guard, "other") == (0, 0)
