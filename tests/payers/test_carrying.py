"""Who pays, packed as JSON to travel with a job, and made current where the job is done."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from budgetguard import BudgetExceededError, Guard, MissingUserError, budget_tags, budget_user, current_user
from budgetguard.engine.carrying import enter_packed, packed_payer
from budgetguard.engine.context import current_caller, current_tags
from tests.guarded_calls import MODEL, make_guard


def packed(guard: Guard) -> Any:
    """Pack who pays here, as it arrives on the other side."""
    return json.loads(json.dumps(packed_payer(guard.engine)))


def call(guard: Guard) -> None:
    """Make a call of $0.002."""
    with guard.call(model=MODEL, input_tokens=1_000, max_output_tokens=500) as one:
        one.settle((1_000, 500))


def test_user_tags_and_runs_arrive_as_they_were() -> None:
    guard = make_guard()
    with guard.budget(0.5), budget_tags("a"), budget_user("u"), guard.budget(0.25), budget_tags("b"):
        here = current_caller(guard.engine)
        travels = packed(guard)
    assert packed(guard) is None
    stack = enter_packed(travels, guard.engine)
    assert current_caller(guard.engine) == here
    call(guard)
    stack.close()
    assert (current_user(), current_tags()) == (None, ())
    (record,) = guard.calls()
    assert (record.user, record.tags) == ("u", ("a", "b"))
    assert [account.partition(":")[0] for account in record.accounts] == ["user", "run", "run"]


def test_a_run_has_one_limit_wherever_its_calls_are_made() -> None:
    guard = make_guard()
    with budget_user("u"), guard.budget(0.003) as run:
        call(guard)
        travels = packed(guard)
    with enter_packed(travels, guard.engine), pytest.raises(BudgetExceededError, match="this run"):
        call(guard)
    assert float(run.spent) == 0.002


def test_runs_are_those_of_the_guard_and_users_those_of_all() -> None:
    guard, other = make_guard(), make_guard()
    with budget_user("u"), other.budget(1):
        assert packed(guard) == {"user": "u"}


def test_where_nobody_can_say_who_pays_nobody_can_where_the_job_is_done() -> None:
    guard = make_guard()
    guard.set_budget(1)  # the project could pay
    left, found = threading.Event(), []

    def work() -> None:
        left.wait(30)
        found.append(packed(guard))

    with budget_user("u"):
        thread = threading.Thread(target=work)
        thread.start()
    left.set()
    thread.join()
    assert found == [{"lost": True}]
    with enter_packed(found[0], guard.engine):
        assert current_user() is None
        with pytest.raises(MissingUserError, match="where this job was sent to its queue"):
            call(guard)
        with budget_user("u"):  # who says it again is believed
            call(guard)


@pytest.mark.parametrize(
    "arrived",
    [
        "u",
        [],
        5,
        {"usr": "u"},
        {"user": 5},
        {"user": ""},
        {"user": "u", "tags": "a"},
        {"user": "u", "tags": [""]},
        {"user": "u", "runs": ["run:1"]},
        {"user": "u", "runs": [["run:1", -1]]},
        {"user": "u", "runs": [["run:1", True]]},
        {"user": "u", "runs": [["run:1", 0.5]]},
        {"user": "u", "runs": [["run:1", 2**60]]},
        {"user": "u", "runs": [["user:v", 1]]},
        {"user": "u" * 1_000},
    ],
)
def test_what_cannot_be_read_is_logged_and_refused(arrived: Any, caplog: pytest.LogCaptureFixture) -> None:
    guard = make_guard()
    guard.set_budget(1)
    unreadable = "the payer that came with this job cannot be read"
    with enter_packed(arrived, guard.engine), pytest.raises(MissingUserError, match=unreadable):
        call(guard)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert len(record.message) < 300
    call(guard)  # of nobody, which the project pays
