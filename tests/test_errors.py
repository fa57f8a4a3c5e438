"""Errors: what they carry, how they travel, and what they say."""

import copy
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from budgetguard import errors
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Hold
from budgetguard.engine.refusals import missing_user, refusal, unknown_user

EXCEEDED = errors.BudgetExceededError(
    current_cost=Decimal("9.5"),
    max_budget=Decimal(10),
    message="too much",
    user="u",
    account="user:u",
    projected_cost=Decimal("0.75"),
    available=Decimal("0.5"),
    resets_at=datetime(2026, 2, 1, tzinfo=UTC),
)
ALL = [
    EXCEEDED,
    errors.MissingUserError("nobody pays"),
    errors.UnknownUserError("who?", user="u", project="p"),
    errors.UnknownModelError("which?", model="m", unit="input_tokens"),
    errors.UnknownEndpointError("where?", endpoint="POST /x"),
    errors.UnpricedAnswerError("how much?"),
    errors.ConfigurationError("what?"),
    errors.BillError("no bill"),
    errors.PriceListError("no list"),
    errors.StoreError("broken"),
]
each = pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)


@each
def test_an_error_survives_pickling_and_copying_with_all_it_carries(error: errors.BudgetGuardError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert again.to_dict() == error.to_dict()
        assert str(again) == str(error) == error.message


@each
def test_an_error_can_be_made_again_of_its_args(error: errors.BudgetGuardError) -> None:
    """Celery's JSON results have no more of an error than its class and its args."""
    again = type(error)(*error.args)
    assert str(again) == str(error)
    if isinstance(error, errors.BudgetExceededError):
        assert (again.current_cost, again.max_budget) == (error.current_cost, error.max_budget)  # type: ignore[attr-defined]


@each
def test_an_error_is_json_ready_and_has_an_http_status(error: errors.BudgetGuardError) -> None:
    values = json.loads(json.dumps(error.to_dict()))
    assert values["error"] == type(error).__name__
    assert values["message"] == error.message
    assert 400 <= error.status < 600


@pytest.mark.parametrize(
    ("kind", "base", "status"),
    [
        (errors.BudgetExceededError, Exception, 402),
        (errors.MissingUserError, Exception, 422),
        (errors.UnknownUserError, KeyError, 404),
        (errors.UnknownModelError, LookupError, 422),
        (errors.ConfigurationError, ValueError, 422),
        (errors.StoreError, Exception, 503),
    ],
)
def test_an_error_is_also_what_python_calls_it(kind: type, base: type, status: int) -> None:
    assert issubclass(kind, errors.BudgetGuardError)
    assert issubclass(kind, base)
    assert kind.status == status


def test_exceeded_reads_as_litellms_error_of_that_name() -> None:
    error = errors.BudgetExceededError(0.5, 0.25)
    assert (error.current_cost, error.max_budget) == (0.5, 0.25)
    assert str(error) == "Budget has been exceeded! Current cost: 0.5, Max budget: 0.25"
    assert error.user is None
    assert error.to_dict()["max_budget"] == 0.25


HOLD = Hold(
    id="0", charges=(), amount=1_500_000, on_expiry=0, ttl=1, created=0, user="u", model="gpt-4o-mini"
)


def balance(account: str, *, held: int = 0, resets_ms: int | None = None) -> Balance:
    return Balance(
        account=account,
        limit_nanos=2_000_000,
        spent_nanos=1_000_000,
        held_nanos=held,
        duration=None,
        timezone="UTC",
        starts_ms=0,
        resets_ms=resets_ms,
        created_ms=0,
        updated_ms=0,
    )


def test_a_refusal_says_what_it_cost_who_refused_and_what_to_do() -> None:
    said = refusal(HOLD, balance("user:u"), limit=2_000_000, spent=1_000_000)
    assert str(said) == (
        "Budget has been exceeded! This call to gpt-4o-mini may cost up to $0.0015, but user 'u' has $0.001 "
        "left: of $0.002, $0.001 is spent. The call was not made. Cap its output (max_completion_tokens), "
        "use a cheaper model, or raise the limit"
    )
    assert (said.available, said.projected_cost) == (Decimal("0.001"), Decimal("0.0015"))


def test_a_refusal_tells_of_calls_under_way_and_of_the_reset_where_there_are_any() -> None:
    stand = balance("project:app", held=900_000, resets_ms=1_767_225_600_000)
    said = str(refusal(HOLD, stand, limit=2_000_000, spent=1_000_000))
    assert "project 'app' has $0.0001 left until 2026-01-01 00:00:00 UTC" in said
    assert "$0.001 is spent and $0.0009 is held for calls under way" in said
    assert said.endswith("raise the limit, or wait until it resets")


def test_an_overdrawn_account_has_nothing_left_rather_than_less() -> None:
    said = refusal(HOLD, balance("run:0a"), limit=500_000, spent=1_000_000)
    assert "this run has $0.00 left" in str(said)
    assert said.available == Decimal("-0.0005")


def test_who_is_missing_or_unknown_is_told_the_way_on() -> None:
    assert "with budget_user(" in str(missing_user("gpt-4o-mini", "app"))
    said = unknown_user("1234", "app")
    assert "set_budget(10, user='1234') of a guard" in str(said)
    assert "create_budget(total_budget=10, user='1234') of a BudgetManager" in str(said)
    assert (said.user, said.project) == ("1234", "app")


def test_errors_tell_loops_that_try_again_whether_there_is_use_in_it() -> None:
    base = errors.BudgetGuardError
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, base)]
    assert {kind.__name__: kind.status_code for kind in kinds if kind.status_code != 422} == {
        "BillError": 503,
        "PriceListError": 503,
        "StoreError": 503,
    }


def test_what_litellm_s_callers_read_is_there() -> None:
    error = errors.BudgetExceededError(1, 1, account="user:12:34")
    assert (error.status_code, error.status, error.llm_provider) == (422, 402, "")
    assert (error.entity_type, error.entity_id) == ("user", "12:34")
    assert errors.BudgetExceededError(1, 1).entity_id is None
