"""What is asked of stores, and what they answer, crosses files and networks unchanged; nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Charge,
    Crossing,
    Denied,
    Expiry,
    Granted,
    Hold,
    HoldRecord,
    Outdated,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire import plain
from budgetguard.stores.wire_reading import JsonReader
from budgetguard.stores.wire_types import (
    WireBalance,
    WireRecord,
    read_balance,
    read_expiries,
    read_hold,
    read_observations,
    read_records,
    read_reservation,
    read_settled,
    read_settlement,
)

# Built on first use, which takes longer than an example of hypothesis may.
BUILT = [
    reader.adapter for reader in (read_hold, read_settlement, read_reservation, read_settled, read_expiries)
]


def to_json(value: object) -> Any:
    return json.loads(json.dumps(value, default=plain))


nanos = st.integers(0, MAX_NANOS)
texts = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates and NUL, too
budgets = st.builds(
    Budget,
    st.none() | nanos,
    st.sampled_from([None, "daily", "monthly", "90m"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.none() | st.integers(0, 2**42),
    rollover=nanos,
    rules=texts,
) | st.builds(Budget, nanos, st.just("90m"), rolling=st.just(True))
revisions = st.integers(0, 2**48)
numbers = st.integers(0, 10**12)
units = st.sampled_from(["tokens", "input_tokens", "output_tokens", "requests", "concurrent"])
labels = st.dictionaries(texts, texts, max_size=3)
documents = st.builds(Document, revisions, texts, texts)
charges = st.builds(
    Charge,
    texts,
    st.booleans(),
    st.none() | budgets,
    st.booleans(),
    st.booleans(),
    revisions,
    st.booleans(),
)
holds = st.builds(
    Hold,
    id=texts,
    charges=st.lists(charges, max_size=4).map(tuple),
    amount=nanos,
    on_expiry=nanos,
    ttl=st.integers(0, 2**42),
    created=st.integers(0, 2**42),
    user=st.none() | texts,
    model=texts,
    endpoint=texts,
    tags=st.lists(texts, max_size=3).map(tuple),
    units=st.dictionaries(units, st.tuples(numbers, numbers), max_size=3),
    labels=labels,
    scopes=revisions,
)
settlements = st.builds(
    Settlement,
    cost=nanos,
    state=st.sampled_from(["settled", "voided"]),
    outcome=st.sampled_from(["answered", "abandoned", "failed", "unknown", "posted"]),
    usage=st.none() | st.builds(Usage, st.dictionaries(texts, nanos, max_size=4)),
    request_id=st.none() | texts,
    thresholds=st.lists(st.integers(1, 1000), max_size=3).map(tuple),
    observed=st.lists(st.tuples(texts, nanos), max_size=3).map(tuple),
    units=st.dictionaries(units, numbers, max_size=3),
)


@settings(deadline=None)
@given(holds)
def test_a_hold_comes_back_as_it_was(hold: Hold) -> None:
    assert read_hold(to_json(hold)) == hold


@settings(deadline=None)
@given(settlements)
def test_a_settlement_comes_back_as_it_was(settlement: Settlement) -> None:
    assert read_settlement(to_json(settlement)) == settlement


counts = st.integers(0, 2**62)
moments = st.integers(0, 2**42)
usages = st.builds(Usage, st.dictionaries(texts, nanos, max_size=4))
balances = st.builds(
    Balance,
    account=texts,
    limit_nanos=st.none() | counts,
    spent_nanos=counts,
    held_nanos=counts,
    duration=st.none() | texts,
    timezone=texts,
    starts_ms=moments,
    resets_ms=st.none() | moments,
    created_ms=moments,
    updated_ms=moments,
    models=st.dictionaries(texts, counts, max_size=3),
    expired_nanos=counts,
    expiries=counts,
    open_holds=counts,
    grants=st.lists(st.builds(Grant, texts, nanos, st.none() | moments), max_size=2).map(tuple),
    rolling=st.booleans(),
    frees=st.lists(st.tuples(moments, counts), max_size=2).map(tuple),
    rollover_nanos=counts,
    document=documents,
)
expiries = st.lists(
    st.builds(Expiry, texts, st.lists(texts, max_size=2).map(tuple), nanos, nanos, st.none() | texts, texts),
    max_size=2,
).map(tuple)
names = st.lists(texts, max_size=3).map(tuple)
unknown = st.builds(UnknownAccount, texts)
reservations = st.one_of(
    st.builds(Granted, names, st.booleans(), expiries, st.lists(balances, max_size=1).map(tuple)),
    st.builds(Outdated, st.none() | documents, st.dictionaries(texts, documents, max_size=2)),
    st.builds(Denied, balances, expiries),
    unknown,
    st.just(Unlimited()),
)
crossings = st.lists(st.builds(Crossing, texts, st.integers(1, 1000), balances), max_size=2).map(tuple)
settled = st.one_of(st.builds(Booked, counts, st.booleans(), st.booleans(), crossings, expiries), unknown)
records = st.builds(
    HoldRecord,
    id=texts,
    state=st.sampled_from(["held", "settled", "voided", "expired"]),
    accounts=names,
    amount_nanos=counts,
    on_expiry_nanos=counts,
    cost_nanos=counts,
    created_ms=moments,
    expires_ms=moments,
    ended_ms=st.none() | moments,
    user=st.none() | texts,
    model=texts,
    endpoint=texts,
    outcome=st.none() | texts,
    request_id=st.none() | texts,
    usage=usages,
    tags=names,
    units=st.dictionaries(units, st.tuples(numbers, numbers, numbers), max_size=2),
    labels=labels,
    shadowed=names,
)
LATER = {
    *("units", "labels", "shadowed", "grants", "frees", "rolling", "rollover_nanos", "document"),
}
"""Fields that the wire did not have at first."""


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (balances, JsonReader(WireBalance, "balance")),
        (reservations, read_reservation),
        (settled, read_settled),
        (records, JsonReader(WireRecord, "record")),
    ],
    ids=["balances", "reservations", "settled", "records"],
)
@settings(deadline=None)
@given(data=st.data())
def test_an_answer_comes_back_as_it_was(values: Any, read: Any, data: st.DataObject) -> None:
    value = data.draw(values)
    sent = to_json(value)
    assert read(sent) == value
    for field in sent.keys() - LATER:
        if field in ("scopes", "accounts") and isinstance(value, Outdated):
            continue
        with pytest.raises(ConfigurationError):
            read({name: one for name, one in sent.items() if name != field})
    with pytest.raises(ConfigurationError, match="unknown fields: extra"):
        read({**sent, "extra": 1})


@settings(deadline=None)
@given(expiries.map(tuple))
def test_expiries_come_back_as_they_were(told: tuple[Expiry, ...]) -> None:
    assert read_expiries(to_json(told)) == told


@pytest.mark.parametrize("wrong", [None, {}, "", [1], [{}]])
def test_what_is_no_list_of_expiries_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError):
        read_expiries(wrong)


HOLD = to_json(Hold("a1", (Charge("user:1", budget=Budget(5)),), 5, 5, 60_000, 1, "1", "m", "chat"))
SETTLEMENT = to_json(
    Settlement(5, usage=Usage.of(input_tokens=3), request_id="r", thresholds=(50,), observed=(("m", 3),))
)
NO_NUMBERS: list[Any] = [-1, True, 1.5, float("nan"), "5", None, MAX_NANOS + 1, [1], 10**400]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda wrong: f"{wrong!r:.12}")
@pytest.mark.parametrize("field", ["amount", "on_expiry"])
def test_money_is_a_whole_number_of_nanos(field: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"hold\.{field} must be a whole number"):
        read_hold({**HOLD, field: wrong})


@pytest.mark.parametrize("field", sorted(HOLD.keys() - {"units", "labels", "scopes"}))
def test_no_field_of_a_hold_may_be_missing_or_a_stranger(field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"hold\.{field} is missing"):
        read_hold({name: value for name, value in HOLD.items() if name != field})
    with pytest.raises(ConfigurationError, match="hold: unknown fields: extra"):
        read_hold({**HOLD, "extra": 1})


def test_what_the_first_version_wrote_is_still_read() -> None:
    """A settlement that waits in a file since before the update; a client that was not updated."""
    hold = {name: HOLD[name] for name in HOLD if name not in ("units", "labels", "scopes")}
    hold["charges"] = [
        {name: value for name, value in charge.items() if name not in ("revision", "shadow")}
        for charge in hold["charges"]
    ]
    assert read_hold(hold) == read_hold(HOLD)
    settlement = {name: value for name, value in SETTLEMENT.items() if name != "units"}
    assert read_settlement(settlement) == read_settlement(SETTLEMENT)


@pytest.mark.parametrize("field", sorted(SETTLEMENT))
@pytest.mark.parametrize("wrong", [{}, {"input_tokens": -1}, [[1, 2]], -1, "x" * 20_000, True])
def test_a_settlements_fields_have_their_types(field: str, wrong: Any) -> None:
    if field in ("usage", "units") and wrong == {}:
        read = read_settlement({**SETTLEMENT, field: wrong})
        assert field == "units" or read.usage == Usage()
        return
    with pytest.raises(ConfigurationError, match=r"must be|is missing"):
        read_settlement({**SETTLEMENT, field: wrong})


@pytest.mark.parametrize("wrong", [None, 3, "x", [], [{}]])
def test_what_is_no_object_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="hold must be a JSON object"):
        read_hold(wrong)
    with pytest.raises(ConfigurationError):
        read_hold({**HOLD, "charges": [wrong]})


def test_a_budget_inside_is_checked_as_any_budget_is() -> None:
    charge = {**HOLD["charges"][0], "budget": {**HOLD["charges"][0]["budget"], "duration": "fortnightly"}}
    with pytest.raises(ConfigurationError, match="fortnightly"):
        read_hold({**HOLD, "charges": [charge]})


CHARGE = HOLD["charges"][0]
BALANCE = to_json(Balance("user:1", 5, 0, 0, None, "UTC", 1, None, 1, 1))


@pytest.mark.parametrize(
    ("read", "wrong", "said"),
    [
        (read_hold, {**HOLD, "amount": -1}, "hold.amount must be a whole number of at least 0, not -1"),
        (
            read_hold,
            {**HOLD, "amount": 2**53},
            "hold.amount must be a whole number of at most 9007199254740991, not 9007199254740992",
        ),
        (read_hold, {**HOLD, "amount": 1.0}, "hold.amount must be a whole number, not 1.0"),
        (read_hold, {**HOLD, "user": 7}, "hold.user must be text, not 7"),
        (read_hold, {**HOLD, "model": None}, "hold.model must be text, not None"),
        (read_hold, {**HOLD, "tags": "x"}, "hold.tags must be a list, not 'x'"),
        (
            read_hold,
            {**HOLD, "charges": [CHARGE, {**CHARGE, "required": 1}]},
            "hold.charges[1].required must be true or false, not 1",
        ),
        (read_settlement, {**SETTLEMENT, "usage": []}, "settlement.usage must be a JSON object, not []"),
        (
            read_settlement,
            {**SETTLEMENT, "usage": {"input_tokens": "3"}},
            "settlement.usage.input_tokens must be a whole number, not '3'",
        ),
        (
            read_settlement,
            {**SETTLEMENT, "state": "held"},
            "settlement.state must be one of 'settled' or 'voided', not 'held'",
        ),
        (
            read_settlement,
            {**SETTLEMENT, "observed": [["m"]]},
            "settlement.observed[0][1] is missing",
        ),
        (read_reservation, {}, "reservation.answer is missing"),
        (
            read_reservation,
            {"answer": "perhaps"},
            "reservation.answer must be one of 'granted', 'refused', 'unknown', 'unlimited', 'outdated', "
            "not 'perhaps'",
        ),
        (read_balance, {"balance": BALANCE, "more": 1}, "answer: unknown fields: more"),
        (read_balance, [], "answer must be a JSON object, not []"),
        (read_records, {"records": None, "next": None}, "answer.records must be a list, not None"),
        (
            read_observations,
            {"observations": {"1": -1}},
            "answer.observations.1 must be a whole number of at least 0, not -1",
        ),
    ],
)
def test_an_error_names_the_field_what_it_must_be_and_what_it_is(read: Any, wrong: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(wrong)
    assert str(caught.value) == said


def test_an_error_keeps_nothing_of_the_value_but_what_it_shows() -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_hold({**HOLD, "amount": "secret " * 100})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_shown_of_a_wrong_value_is_short() -> None:
    with pytest.raises(ConfigurationError) as error:
        read_hold({**HOLD, "model": ["x" * 10_000]})
    assert len(str(error.value)) < 200
