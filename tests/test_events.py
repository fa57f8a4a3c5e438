"""One event for each thing that happens, hooks that cannot hurt, and no text of any prompt."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from budgetguard import BudgetExceededError, Event, Guard, UnpricedAnswerError, budget_user, log_events
from budgetguard.events import Expired, Held, Refused, Settled, ThresholdCrossed, Voided
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import HELLO, MODEL, StatusError, completion, make_guard, names, nanos, record


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def call(guard: Guard, answer: Any = None, **more: Any) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL, max_completion_tokens: int = 10) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return completion() if answer is None else answer

    ask(HELLO, **more)


def test_a_settled_call_tells_of_its_projection_its_hold_and_its_cost(guard: Guard) -> None:
    events = record(guard)
    call(guard)
    projected, held, settled = events
    assert names(events) == ["Projected", "Held", "Settled"]
    assert {event.hold_id for event in events} == {settled.hold_id}
    assert (projected.user, projected.model, projected.endpoint, projected.project) == (
        "u",
        MODEL,
        "function",
        "p",
    )
    assert projected.cost == held.amount == settled.held
    assert projected.usage.output_tokens == 10
    assert not projected.cap_assumed
    assert held.accounts == ("user:u",)
    assert (str(settled.cost), settled.estimated, settled.outcome, settled.request_id) == (
        "0.00012",
        False,
        "answered",
        "answer-1",
    )
    assert settled.usage.input_tokens == 100


def test_a_refused_call_tells_why(guard: Guard) -> None:
    guard.set_budget(0.00001, user="u", duration="daily")
    events = record(guard)
    with pytest.raises(BudgetExceededError):
        call(guard)
    assert names(events) == ["Projected", "Refused"]
    refused = events[1]
    assert (refused.account, refused.spent, refused.limit, refused.available) == (
        "user:u",
        0,
        refused.limit,
        refused.limit,
    )
    assert refused.cost > refused.limit
    assert refused.resets_at is not None


def test_a_voided_call_tells_why(guard: Guard) -> None:
    events = record(guard)
    with pytest.raises(StatusError):
        call(guard, StatusError(429))
    assert names(events) == ["Projected", "Held", "Voided"]
    assert (events[2].reason, events[2].held) == ("the provider answered 429", events[1].amount)


def test_a_call_that_is_booked_as_projected_says_so(guard: Guard) -> None:
    events = record(guard)
    with pytest.raises(UnpricedAnswerError):
        call(guard, object())
    assert (events[2].estimated, events[2].usage, events[2].cost) == (True, None, events[2].held)


def test_a_hold_that_expiries_is_told_once_and_its_late_settlement_too() -> None:
    clock = FakeClock()
    guard = make_guard(user="u", clock=clock, hold_ttl="15m")
    events = record(guard)

    @guard.budgeted
    def slow(messages: Any, model: str = MODEL) -> Any:
        clock.advance(15 * 60_000)
        guard.balance("u")
        guard.balance("u")
        return completion()

    slow(HELLO)
    assert names(events) == ["Projected", "Held", "Expired", "Settled"]
    held, expired = events[1:3]
    assert (expired.hold_id, expired.held, expired.booked) == (held.hold_id, held.amount, held.amount)
    assert nanos(guard) == (120_000, 0), "a late settlement takes back what the expiry had booked"


def test_thresholds_are_told_once_a_window() -> None:
    clock = FakeClock()
    guard = make_guard(user="u", clock=clock, thresholds=[50, 100])
    guard.set_budget(0.0004, user="u", duration="daily")
    events: list[Any] = []
    guard.on(events.append, ThresholdCrossed)
    for _ in range(2):
        call(guard)
    assert [(event.account, event.threshold) for event in events] == [("user:u", 50)]
    call(guard, completion(160, 0))
    assert [event.threshold for event in events] == [50, 100]
    assert (events[1].spent, events[1].limit) == (events[1].limit, events[0].limit)
    clock.advance(24 * 3_600_000)
    for _ in range(2):
        call(guard)
    assert [event.threshold for event in events] == [50, 100, 50]


@pytest.mark.full
def test_a_threshold_is_told_once_across_processes(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from guarded_calls import *
from budgetguard.events import ThresholdCrossed
guard = make_guard("disk://{tmp_path}", user="u", thresholds=(50,))
guard.set_budget(0.001, user="u")
guard.on(lambda event: print(event.threshold, flush=True), ThresholdCrossed)
ask = guard.budgeted(lambda messages, model=MODEL, max_completion_tokens=10: completion())
for _ in range(3):
    ask(HELLO)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "".join(printed) == "50\n"


def test_a_hook_that_raises_touches_neither_the_call_nor_other_hooks(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError

    guard.on(broken)
    events = record(guard)
    call(guard)
    with pytest.raises(StatusError):
        call(guard, StatusError(500))
    assert nanos(guard) == (120_000, 0)
    assert names(events) == ["Projected", "Held", "Settled", "Projected", "Held", "Voided"]
    assert caplog.text.count("the hook") == 6


def test_a_hook_gets_only_the_kinds_that_it_asked_for(guard: Guard) -> None:
    some: list[Event] = []
    guard.on(some.append, Held, Settled)
    call(guard)
    assert names(some) == ["Held", "Settled"]


def test_every_event_is_json_ready_with_exact_money(guard: Guard) -> None:
    events = record(guard)
    call(guard)
    guard.set_budget(0, user="u")
    with pytest.raises(BudgetExceededError):
        call(guard)
    for event in events:
        values = json.loads(json.dumps(event.to_dict()))
        assert values["event"] == type(event).__name__
    assert events[2].to_dict()["cost"] == "0.00012"
    assert events[2].to_dict()["usage"] == {"input_tokens": 100, "output_tokens": 10}


def test_log_events_writes_a_line_an_event_and_warns_of_what_needs_somebody(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "budgetguard")
    guard.on(log_events)
    call(guard)
    guard.set_budget(0, user="u")
    with pytest.raises(BudgetExceededError):
        call(guard)
    found = [(record.levelname, record.getMessage().split()[0]) for record in caplog.records]
    assert found == [
        ("INFO", "Projected"),
        ("INFO", "Held"),
        ("INFO", "Settled"),
        ("INFO", "Projected"),
        ("WARNING", "Refused"),
    ]
    settled = caplog.records[2]
    assert "cost=0.00012" in settled.getMessage()
    assert settled.__dict__["budgetguard"]["cost"] == "0.00012"
    assert {Expired, ThresholdCrossed, Refused, Voided} <= set(Event.__subclasses__()) | {Refused, Voided}


CANARY = "canary-9f3a1c"


def test_nothing_that_is_told_logged_raised_or_stored_holds_the_text_of_a_prompt_or_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guard = make_guard(f"disk://{tmp_path}")
    guard.on(log_events)
    events = record(guard)
    raised: list[BaseException] = []
    messages = [{"role": "user", "content": f"{CANARY} secret"}]

    @guard.budgeted(usage=lambda answer: answer)
    def ask(messages: Any, answer: Any, model: str = MODEL) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @guard.budgeted
    def talk(messages: Any, model: str = MODEL) -> Any:
        yield f"{CANARY} answer"
        yield f"{CANARY} answer"

    def provoke(run: Any) -> None:
        try:
            run()
        except Exception as error:
            raised.append(error)

    with budget_user("u"):
        provoke(lambda: ask(messages, (10, 10)))
        provoke(lambda: ask(messages, CANARY))
        provoke(lambda: ask(messages, (CANARY, CANARY)))
        provoke(lambda: ask(messages, {"text": CANARY}))
        provoke(lambda: ask(messages, object(), model="no-such-model"))
        provoke(lambda: list(talk(messages)))
        provoke(lambda: next(talk(messages)))
        provoke(lambda: ask([{"role": "user", "content": CANARY.encode()}], (1, 1)))
        provoke(lambda: ask([{"role": "user", "content": [{"type": "text", "text": CANARY}, 3]}], (1, 1)))
        provoke(lambda: ask([[CANARY]], (1, 1)))
        provoke(lambda: ask({CANARY: CANARY}, (1, 1)))
        guard.set_budget(0, user="u")
        provoke(lambda: ask(messages, (10, 10)))
    provoke(lambda: ask(messages, (10, 10)))
    guard.close()

    assert len(raised) >= 6
    assert CANARY not in repr([event.to_dict() for event in events])
    assert CANARY not in repr([(entry.getMessage(), entry.__dict__) for entry in caplog.records])
    assert [str(error) for error in raised if CANARY in str(error)] == []
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert MODEL.encode() in stored, "the search looks where things are"
    assert CANARY.encode() not in stored
