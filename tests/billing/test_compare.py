"""Where a difference comes from: each reason with its amount, and all of them together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.billing.bill import CODE, WEB_SEARCH, BillLine
from budgetguard.billing.booked import priced_units
from budgetguard.billing.result import added_up, total_of
from budgetguard.core.usage import Usage

from .records import DAY, INPUT, MODEL, MONDAY, OUTPUT, answered, bill, check, lines, record, rows, total

USD = 1_000_000_000


def test_what_agrees_has_no_reason() -> None:
    (row,) = rows(
        bill(*lines(3_000, 200, cached=500), requests=2),
        [answered(1_000, 150), answered(2_000, 50, cached=500)],
    )
    assert row.difference == row.unexplained == 0
    assert not any(row.reasons.values())
    assert (row.model, row.day, row.calls, row.requests) == (MODEL, "2026-11-02", 2, 2)


def test_a_day_and_model_that_was_never_booked_is_unbooked() -> None:
    row = total(bill(*lines(1_000, 100)), [])
    assert row.reasons == {"unbooked": 1_000 * INPUT + 100 * OUTPUT}


def test_more_requests_than_calls_are_unbooked_and_more_tokens_of_as_many_are_not() -> None:
    calls = [answered(1_000, 100)]
    extra = 500 * INPUT + 50 * OUTPUT
    assert total(bill(*lines(1_500, 150), requests=2), calls).reasons == {"unbooked": extra}
    assert total(bill(*lines(1_500, 150), requests=1), calls).reasons == {"tokens": extra}
    assert total(bill(*lines(1_500, 150)), calls).reasons == {"tokens": extra}


def test_what_is_booked_and_in_no_bill_is_unbilled() -> None:
    call = answered(1_000, 100)
    assert total(bill(), [call]).reasons == {"unbilled": -call.cost_nanos}
    some = total(bill(*lines(1_000, 100), requests=1), [call, answered(400, 0)])
    assert some.reasons == {"unbilled": -400 * INPUT}


def test_the_same_tokens_at_another_price_are_told_as_the_price() -> None:
    dear = [
        BillLine(MONDAY, 2 * line.amount, line.model, "", line.unit, line.quantity)
        for line in lines(1_000, 100)
    ]
    call = answered(1_000, 100)
    assert total(bill(*dear, requests=1), [call]).reasons == {"price": call.cost_nanos}


def test_more_tokens_and_a_lower_price_that_cancel_out_are_both_told() -> None:
    call = answered(1_000, 0)
    half = BillLine(MONDAY, 1_000 * INPUT, MODEL, "", "input_tokens", 2_000)
    row = total(bill(half), [call])
    assert row.difference == 0
    assert row.reasons == {"tokens": 1_000 * INPUT // 2, "price": -1_000 * INPUT // 2}


def test_tokens_that_were_booked_as_cached_and_billed_as_not_are_told_at_the_listed_price() -> None:
    row = total(bill(*lines(1_000, 0), requests=1), [answered(1_000, 0, cached=400)])
    assert row.reasons == {"tokens": 400 * (INPUT - INPUT // 2)}


@pytest.mark.parametrize("why", ["expired", "estimated"])
@pytest.mark.parametrize("counted", [True, False])
def test_a_call_of_unknown_cost_explains_up_to_what_it_was_held_for(why: str, counted: bool) -> None:
    cost = 100_000
    ends = {"expired": {"state": "expired", "outcome": None}, "estimated": {"outcome": "unknown"}}
    unknown = record(cost, held=cost, **ends[why])
    known = answered(1_000, 100)

    def billed(more: int) -> Any:
        if counted:
            return bill(*lines(1_000 + more // INPUT, 100))
        return bill(BillLine(MONDAY, known.cost_nanos + more, MODEL))

    # Not billed at all: all of what was booked for it is explained.
    nothing = total(billed(0), [known, unknown])
    assert nothing.reasons == {why: -cost}
    # Billed in part, and beyond what it was held for.
    part = total(billed(30_000), [known, unknown])
    assert part.reasons == {why: 30_000 - cost}
    beyond = total(billed(150_000), [known, unknown])
    rest = {"tokens": 50_000} if counted else {}
    assert beyond.reasons == rest
    assert beyond.unexplained == (0 if counted else 50_000)


def test_a_call_that_expired_at_nothing_may_have_been_billed() -> None:
    released = record(0, held=80_000, state="expired", outcome=None)
    row = total(bill(BillLine(MONDAY, 50_000, MODEL)), [released])
    assert row.reasons == {"expired": 50_000}
    assert (row.calls, row.expired) == (1, 1)


def test_a_call_under_way_explains_what_is_billed_and_not_booked_yet() -> None:
    row = total(bill(*lines(100, 0)), [record(0, held=100_000, state="held")])
    assert row.reasons == {"open": 100 * INPUT}
    assert (row.open, row.calls, row.booked) == (1, 0, 0)


def test_an_answer_without_usage_is_an_estimate_and_a_cost_that_was_posted_is_not() -> None:
    quiet, posted = record(70_000), record(70_000, outcome="posted")
    one = BillLine(MONDAY, 50_000, MODEL)
    assert total(bill(one), [quiet]).reasons == {"estimated": -20_000}
    row = total(bill(one), [posted])
    assert (row.reasons, row.unexplained) == ({}, -20_000)


def test_calls_that_did_no_work_count_nothing() -> None:
    row = total(
        bill(*lines(10, 0), requests=1), [answered(10, 0), record(0, state="voided", outcome="failed")]
    )
    assert (row.calls, row.reasons) == (1, {})


def test_without_token_counts_a_part_of_the_requests_tells_how_much_is_unbooked() -> None:
    calls = [answered(1_000, 0), answered(1_000, 0)]
    whole = 4 * 1_000 * INPUT
    line = BillLine(MONDAY, whole, "gpt-4o-mini-2024-07-18")
    row = total(bill(line, requests=4), calls)
    assert row.reasons == {"unbooked": whole // 2}
    assert row.unexplained == 0
    assert total(bill(line), calls).unexplained == whole // 2
    fewer = total(bill(BillLine(MONDAY, 1_000 * INPUT, "gpt-4o-mini-2024-07-18"), requests=1), calls)
    assert fewer.reasons == {"unbilled": -1_000 * INPUT}


def test_one_batch_of_ours_is_many_requests_of_theirs() -> None:
    batch = answered(1_000, 100, endpoint="batches")
    row = total(bill(*lines(1_100, 100), requests=50), [batch])
    assert row.reasons == {"tokens": 100 * INPUT}


def test_a_cheaper_tier_explains_its_discount_and_no_more() -> None:
    call = answered(1_000, 0)
    batch = BillLine(MONDAY, 1_000 * INPUT // 2, MODEL, "", "input_tokens", 1_000, tier="batch")
    assert total(bill(batch), [call]).reasons == {"tier": -1_000 * INPUT // 2}
    cheaper = BillLine(MONDAY, 1_000 * INPUT // 2 - 10_000, MODEL, "", "input_tokens", 1_000, tier="batch")
    assert total(bill(cheaper), [call]).reasons == {"tier": -1_000 * INPUT // 2 - 10_000}
    # Booked at the batch's price, it explains nothing, since nothing differs.
    booked = record(1_000 * INPUT // 2, input_tokens=1_000)
    assert total(bill(batch), [booked]).reasons == {}


def test_the_standard_price_of_the_same_bill_counts_before_the_listed_one() -> None:
    standard = BillLine(MONDAY, 1_000 * 2 * INPUT, MODEL, "", "input_tokens", 1_000)
    batch = BillLine(MONDAY, 1_000 * INPUT, MODEL, "", "input_tokens", 1_000, tier="batch")
    call = record(2 * 1_000 * 2 * INPUT, input_tokens=2_000)
    assert total(bill(standard, batch), [call]).reasons == {"tier": -1_000 * INPUT}


def test_tools_are_compared_with_tools_and_not_with_the_models_that_used_them() -> None:
    # $10 for 1 000 searches.
    searched = record(1_000 * INPUT + 2 * USD // 100, input_tokens=1_000, web_searches=2)
    line = BillLine(MONDAY, 3 * USD // 100, item=WEB_SEARCH)
    by = {row.model: row for row in rows(bill(*lines(1_000, 0), line), [searched])}
    assert by[MODEL].difference == 0
    assert by["(web search)"].booked == 2 * USD // 100
    assert by["(web search)"].reasons == {"tools": USD // 100}


def test_a_tool_that_only_the_bill_has_is_told() -> None:
    row = total(bill(BillLine(MONDAY, USD, item=CODE)), [])
    assert row.reasons == {"tools": USD}


def test_credits_and_storage_belong_to_no_model() -> None:
    found = rows(
        bill(BillLine(MONDAY, -5 * USD, item="credit"), BillLine(MONDAY, USD, item="vector storage")), []
    )
    assert {row.model: dict(row.reasons) for row in found} == {
        "(credit)": {"no model": -5 * USD},
        "(vector storage)": {"no model": USD},
    }


def test_an_alias_meets_the_model_that_answered_where_the_tokens_agree() -> None:
    call = answered(1_000, 100, model="gpt-4o")
    called, billed = rows(bill(*lines(1_000, 100)), [call])[::-1]
    assert (called.model, called.reasons) == (MODEL, {"alias": call.cost_nanos})
    assert (billed.model, billed.reasons) == ("gpt-4o", {"alias": -call.cost_nanos})
    # At another price, which is told as such.
    dear = [
        BillLine(MONDAY, 3 * one.amount, one.model, "", one.unit, one.quantity) for one in lines(1_000, 100)
    ]
    assert total(bill(*dear), [call]).reasons == {"alias": 0, "price": 2 * call.cost_nanos}


def test_an_alias_is_not_guessed() -> None:
    call = answered(1_000, 100, model="gpt-4o")
    other = total(bill(*lines(1_000, 101)), [call])
    assert other.reasons == {"unbilled": -call.cost_nanos, "unbooked": call.cost_nanos + OUTPUT}
    two = [call, answered(1_000, 100, model="gpt-4.1")]
    assert "alias" not in total(bill(*lines(1_000, 100)), two).reasons
    tomorrow = answered(1_000, 100, model="gpt-4o", day=MONDAY + DAY)
    assert "alias" not in total(bill(*lines(1_000, 100), days=2), [tomorrow]).reasons


def test_a_call_over_midnight_is_moved_to_the_day_on_which_it_is_billed() -> None:
    late = answered(1_000, 0, ended=MONDAY + DAY)
    both = rows(bill(*lines(500, 0), *lines(1_000, 0, day=MONDAY + DAY), days=2), [answered(500, 0), late])
    assert [dict(row.reasons) for row in both] == [
        {"midnight": -late.cost_nanos},
        {"midnight": late.cost_nanos},
    ]
    assert total_of(both).reasons == {"midnight": 0}
    assert total_of(both).difference == 0


def test_no_more_is_moved_over_midnight_than_such_calls_cost() -> None:
    late = answered(100, 0, ended=MONDAY + DAY)
    first, second = rows(
        bill(*lines(500, 0), *lines(1_000, 0, day=MONDAY + DAY), days=2), [answered(900, 0), late]
    )
    assert first.reasons == {"midnight": -100 * INPUT, "tokens": -400 * INPUT}
    assert second.reasons == {"midnight": 100 * INPUT, "unbooked": 900 * INPUT}


def test_no_more_is_moved_over_midnight_than_either_day_lacks() -> None:
    late = answered(100, 0, ended=MONDAY + DAY)
    some = lines(50, 0)
    first, second = rows(bill(*some, *lines(1_000, 0, day=MONDAY + DAY), days=2), [late])
    assert first.reasons == {"midnight": -50 * INPUT}
    assert second.reasons == {"midnight": 50 * INPUT, "unbooked": 950 * INPUT}
    first, second = rows(bill(*some, *lines(20, 0, day=MONDAY + DAY), days=2), [late])
    assert first.reasons == {"midnight": -20 * INPUT, "tokens": -30 * INPUT}
    assert second.reasons == {"midnight": 20 * INPUT}


def test_midnight_counts_at_both_ends_of_the_bill_too() -> None:
    before = answered(1_000, 0, day=MONDAY - DAY, ended=MONDAY)
    assert total(bill(*lines(1_000, 0)), [before]).reasons == {"midnight": 1_000 * INPUT}
    after = answered(1_000, 0, ended=MONDAY + DAY)
    assert total(bill(*lines(500, 0)), [answered(500, 0), after]).reasons == {"midnight": -1_000 * INPUT}


def test_what_was_booked_before_and_after_the_bill_is_no_part_of_it() -> None:
    elsewhere = [answered(1_000, 0, day=MONDAY - DAY), answered(1_000, 0, day=MONDAY + DAY)]
    assert rows(bill(), elsewhere) == ()


def test_rounding_is_told_apart() -> None:
    calls = [record(INPUT * 10 + 1, input_tokens=10), record(INPUT * 10 + 1, input_tokens=10)]
    assert total(bill(*lines(20, 0)), calls).reasons == {"rounding": -2}
    cents = BillLine(MONDAY, 20_000_000, MODEL, slack=5_000_000)
    assert total(bill(cents), [record(16_000_000, input_tokens=10)]).reasons == {"rounding": 4_000_000}
    more = total(bill(cents), [record(14_000_000, input_tokens=10)])
    assert (more.reasons, more.unexplained) == ({}, 6_000_000)


def test_a_bill_without_models_is_compared_by_day() -> None:
    other = record(40_000, model="gpt-4o", input_tokens=10)
    (row,) = rows(bill(BillLine(MONDAY, 50_000)), [other, record(10_000, input_tokens=10)])
    assert (row.model, row.difference, row.calls) == ("(all models)", 0, 2)


def test_names_of_one_model_meet_in_one_row() -> None:
    names = ("gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", "GPT-4o-mini")
    (row,) = rows(bill(*lines(400, 0)), [answered(100, 0, model=name) for name in names])
    assert (row.model, row.difference, row.calls) == (MODEL, 0, 4)


def test_what_a_tool_draws_is_billed_by_the_model_that_draws() -> None:
    # $40 for a million tokens drawn.
    drawn = record(
        1_000 * 1_250 + 200 * 40_000, model="gpt-5", input_tokens=1_000, drawn_tokens_gpt_image_1=200
    )
    painted = BillLine(MONDAY, 200 * 40_000, "gpt-image-1", "", "output_image_tokens", 200)
    text = BillLine(MONDAY, 1_000 * 1_250, "gpt-5-2025-08-07", "", "input_tokens", 1_000)
    found = {row.model: row for row in rows(bill(painted, text), [drawn])}
    assert {name: row.difference for name, row in found.items()} == {"gpt-5": 0, "gpt-image-1": 0}


def test_a_cache_that_lives_for_five_minutes_is_what_answers_mean_that_do_not_say_it() -> None:
    written = BillLine(MONDAY, 100 * 1_250, "Claude Haiku 4.5", "", "cache_write_5m_tokens", 100)
    call = record(100 * 1_250, model="claude-haiku-4-5", input_tokens=100, cache_write_tokens=100)
    (row,) = rows(bill(written, provider="anthropic"), [call])
    assert not any(row.reasons.values())
    assert row.units == {"cache_write_5m_tokens": (100, 100)}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (
            {"input_tokens": 100, "cache_read_tokens": 30, "output_tokens": 5, "output_reasoning_tokens": 4},
            {"input_tokens": 70, "cache_read_tokens": 30, "output_tokens": 5},
        ),
        (
            {
                "input_tokens": 100,
                "cache_read_tokens": 30,
                "input_audio_tokens": 40,
                "cache_audio_read_tokens": 10,
                "input_text_tokens": 60,
            },
            {
                "input_tokens": 40,
                "cache_read_tokens": 20,
                "input_audio_tokens": 30,
                "cache_audio_read_tokens": 10,
            },
        ),
        (
            {"input_tokens": 100, "cache_write_5m_tokens": 20, "cache_write_1h_tokens": 10},
            {"input_tokens": 70, "cache_write_5m_tokens": 20, "cache_write_1h_tokens": 10},
        ),
        (
            {"output_tokens": 50, "output_image_tokens": 45, "web_searches": 2},
            {"output_tokens": 5, "output_image_tokens": 45},
        ),
        # Impossible, and counted as far as it goes.
        ({"input_tokens": 10, "cache_read_tokens": 30}, {"cache_read_tokens": 30}),
    ],
)
def test_each_token_is_counted_once_as_bills_count_it(usage: dict[str, int], counted: dict[str, int]) -> None:
    assert priced_units(Usage(usage)) == (counted, True)


@pytest.mark.parametrize("unit", ["images", "video_seconds", "input_audio_seconds", "input_characters"])
def test_what_bills_count_otherwise_is_not_told_from_its_price(unit: str) -> None:
    assert priced_units(Usage({"input_tokens": 1, unit: 1})) == ({"input_tokens": 1}, False)
    painted = record(500, model="gpt-image-1", **{unit: 1})
    row = total(bill(BillLine(MONDAY, 900, "gpt-image-1", "", "output_tokens", 5)), [painted])
    assert (row.reasons, row.unexplained) == ({}, 400)


# Random bills and records

AMOUNTS = st.one_of(st.just(0), st.integers(1, 1_000), st.integers(1, 5 * USD))
COUNTS = st.one_of(st.just(0), st.integers(1, 3_000))
MODELS = st.sampled_from(
    ["gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai/gpt-4o", "ft:gpt-4o-mini:o::x", "no-such", "o1"]
)
UNITS = st.sampled_from(
    ["input_tokens", "output_tokens", "cache_read_tokens", "input_audio_tokens", "cache_audio_read_tokens"]
)


@st.composite
def some_lines(draw: st.DrawFn) -> BillLine:
    day = MONDAY + draw(st.integers(0, 2)) * DAY
    amount = draw(AMOUNTS) * draw(st.sampled_from([1, 1, 1, -1]))
    kind = draw(st.sampled_from(["model", "counted", "counted", "tool", "item", "whole"]))
    slack = draw(st.sampled_from([0, 0, 5_000_000]))
    if kind == "whole":
        return BillLine(day, amount, slack=slack)
    if kind in ("tool", "item"):
        return BillLine(day, amount, item=WEB_SEARCH if kind == "tool" else "credit", slack=slack)
    if kind == "model":
        return BillLine(day, amount, draw(MODELS), slack=slack)
    tier = draw(st.sampled_from([None, None, "batch"]))
    return BillLine(day, amount, draw(MODELS), "", draw(UNITS), draw(COUNTS), tier, slack)


@st.composite
def some_records(draw: st.DrawFn) -> Any:
    day = MONDAY + draw(st.integers(-1, 3)) * DAY
    state = draw(st.sampled_from(["settled", "settled", "settled", "expired", "held", "voided"]))
    units = draw(
        st.dictionaries(st.one_of(UNITS, st.sampled_from(["web_searches", "images"])), COUNTS, max_size=4)
    )
    cost = draw(AMOUNTS)
    return record(
        0 if state == "voided" else cost,
        day=day,
        ended=day + timedelta(days=draw(st.sampled_from([0, 0, 1, 2]))),
        model=draw(MODELS),
        state=state,
        outcome=draw(st.sampled_from(["answered", "answered", "unknown", "abandoned", "posted"])),
        held=draw(AMOUNTS),
        endpoint=draw(st.sampled_from(["chat", "batches"])),
        **units,
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(some_lines(), max_size=8),
    st.lists(some_records(), max_size=8),
    st.one_of(st.none(), st.integers(0, 9)),
    st.lists(st.sampled_from(["provider", "day", "model"]), unique=True),
)
def test_reasons_and_what_is_unexplained_are_the_difference_to_the_nano(
    made: list[BillLine], records: list[Any], requests: int | None, by: list[Any]
) -> None:
    found = rows(bill(*made, requests=requests, days=3), records)
    whole = total_of(found)
    check(whole)
    assert whole.billed == sum(line.amount for line in made)
    counted = [
        one
        for one in records
        if MONDAY <= one.created_at.date() < MONDAY + 3 * DAY
        and one.state != "voided"
        # A model that no list has is whose bill names it.
        and (one.model != "no-such" or any(line.model == "no-such" for line in made))
    ]
    assert whole.booked == sum(one.cost_nanos for one in counted)
    grouped = added_up(found, by)
    for row in grouped:
        check(row)
    assert total_of(grouped) == whole
    backwards = rows(bill(*reversed(made), requests=requests, days=3), list(reversed(records)))
    assert [row.to_dict() for row in backwards] == [row.to_dict() for row in found]
    # What nobody knows of calls explains no more than lies between nothing and what they were held for.
    for reason, states in (("expired", ("expired",)), ("open", ("held",))):
        of_state = [one for one in counted if one.state in states]
        low = -sum(one.cost_nanos for one in of_state)
        high = sum(max(one.amount_nanos, one.cost_nanos) for one in of_state) + low
        assert low <= whole.reasons.get(reason, 0) <= high
