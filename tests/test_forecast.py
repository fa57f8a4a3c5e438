"""A forecast's bounds hold about as often as they say, and it claims nothing from too little."""

from __future__ import annotations

import copy
import math
import pickle
import random
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetguard.core.accounts import Balance
from budgetguard.core.forecast import Forecast, History, Month, forecast
from budgetguard.core.holds import HoldRecord
from budgetguard.core.pace import Factor, student
from budgetguard.core.windows import Milliseconds, calendar_start, window_at
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire import to_json
from tests.spending import ACCOUNT, BEGIN, DAY, HABITS, HOUR, STAGES, record_of, tried

USUAL = ("steady", "heavy tails", "day and week", "bursts", "halves in 60 days")
DOLLAR = 10**9
BERLIN = ZoneInfo("Europe/Berlin")


def instant(*numbers: int, zone: ZoneInfo | None = None) -> Milliseconds:
    return round(datetime(*numbers, tzinfo=zone or UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


def balance(
    start: Milliseconds, end: Milliseconds | None, *, limit: int | None = None, spent: int = 0, **more: object
) -> Balance:
    made = Balance(ACCOUNT, limit, spent, 0, "1mo" if end else None, "UTC", start, end, BEGIN, start)
    return replace(made, **more)  # type: ignore[arg-type]


def foreseen(stands: Balance, records: list[HoldRecord], now: Milliseconds) -> Forecast:
    history = History(stands, now)
    for one in records:
        history.add(one)
    return forecast(stands, history, now)


def hourly(first: Milliseconds, last: Milliseconds, cost: int = DOLLAR // 100) -> list[HoldRecord]:
    return [record_of(at, cost, number) for number, at in enumerate(range(first, last, HOUR))]


def test_the_bounds_hold_about_as_often_as_they_say() -> None:
    below = above = runs = 0
    off: list[float] = []
    wide: list[float] = []
    for stage in (
        "month, 10 days left, a call a day",
        "month, 16 days left, 14 known",
        "day, 10 hours left, 30 days known",
    ):
        for habit in USUAL:
            for run in range(6):
                made, spent = tried(
                    HABITS[habit], STAGES[stage], random.Random(f"test {stage} {habit} {run}")
                )
                assert made.low_nanos is not None
                assert made.high_nanos is not None
                assert made.expected_nanos is not None
                runs += 1
                below += spent < made.low_nanos
                above += spent > made.high_nanos
                off.append(made.expected_nanos / max(spent, 1))
                wide.append((made.high_nanos - made.low_nanos) / made.expected_nanos)
    assert 0.75 <= 1 - (below + above) / runs <= 0.94
    assert max(below, above) / runs <= 0.18
    assert 0.85 <= median(off) <= 1.2
    assert 1.2 <= median(wide) <= 1.9, "bounds that say nothing hold, too"


def test_a_sum_of_steps_varies_as_exponential_smoothing_says() -> None:
    # Of h steps to come, the surprise of one with k steps after it adds 1 + k a of itself to the sum.
    for a in (0.05, 0.4):
        smoothed = Factor(1.0, a, 10.0, 3.0, 0.0)
        for steps in (1, 2, 7):
            assert smoothed.variance_of(steps) == pytest.approx(
                3 * sum((1 + k * a) ** 2 for k in range(steps))
            )
    assert Factor(1.0, 0.05, 10.0, 3.0, 0.25).variance_of(1) == pytest.approx(3 * 1.25)


def test_the_bounds_are_those_of_a_log_normal_sum_of_this_mean() -> None:
    made, _ = tried(HABITS["bursts"], STAGES["month, 3 days left, 90 known"], random.Random(1))
    assert made.expected_nanos
    assert made.low_nanos
    assert made.high_nanos
    width = math.log(made.high_nanos / made.low_nanos) / 2 / student(29)
    middle = math.sqrt(made.low_nanos * made.high_nanos)
    assert middle == pytest.approx(made.expected_nanos * math.exp(-width * width / 2), rel=0.001)


def test_students_quantiles_are_those_of_the_tables() -> None:
    for freedom, quantile in ((5, 1.476), (9, 1.383), (29, 1.311), (59, 1.296)):
        assert student(freedom) == pytest.approx(quantile, abs=0.0006)


@given(
    st.lists(st.tuples(st.integers(0, 20 * DAY), st.integers(0, 10**12)), max_size=60),
    st.integers(0, 10**13),
    st.integers(0, 10**12),
    st.sampled_from([None, DAY, 30 * DAY]),
    st.integers(-DAY, 40 * DAY),
)
def test_whatever_was_spent_the_amounts_and_times_are_in_order(
    calls: list[tuple[int, int]], limit: int, held: int, window: int | None, past: int
) -> None:
    now = BEGIN + 20 * DAY
    start = now - past % (window or DAY)
    stands = balance(start, None if window is None else start + window, limit=limit, held_nanos=held, spent=7)
    made = foreseen(stands, [record_of(BEGIN + at, cost, n) for n, (at, cost) in enumerate(calls)], now)
    if made.expected_nanos is not None:
        assert made.low_nanos is not None
        assert made.high_nanos is not None
        assert 7 <= made.low_nanos <= made.high_nanos
        assert made.expected_nanos >= 7
        assert made.exceeds == (made.expected_nanos > limit)
        assert made.exceeds or made.reached_ms is None or limit <= 7 or made.expected_nanos == limit
        assert stands.resets_ms is not None
        for one in (made.reached_ms, made.earliest_ms, made.latest_ms):
            assert one is None or now <= one <= stands.resets_ms
    assert made.latest_ms is None or made.earliest_ms is not None
    if made.earliest_ms is not None and made.latest_ms is not None:
        assert made.earliest_ms <= made.latest_ms
    assert made.to_dict()["calls"] == made.calls


def test_a_few_calls_in_a_few_minutes_claim_nothing() -> None:
    now = BEGIN + HOUR
    stands = balance(BEGIN, BEGIN + 30 * DAY, limit=DOLLAR, spent=DOLLAR // 2)
    few = [record_of(now - minute * 60_000, DOLLAR // 6) for minute in (5, 3, 1)]
    many = [record_of(now - second * 1000, 10_000_000, second) for second in range(300)]
    for records in ([], few, many):
        made = foreseen(stands, records, now)
        assert (made.is_known, made.expected, made.low, made.high, made.earliest) == (False, *[None] * 4)
        assert not made.exceeds
    assert foreseen(stands, few, now).calls == 2
    assert foreseen(stands, many, now).span_ms == 299_000


def test_an_even_pace_goes_on_and_reaches_the_limit_when_it_should() -> None:
    start = instant(2026, 8, 1)
    now, end = start + 10 * DAY, start + 30 * DAY
    calls = hourly(start - 20 * DAY, now)
    stands = balance(start, end, limit=4 * DOLLAR, spent=240 * DOLLAR // 100)
    made = foreseen(stands, calls, now)
    assert made.expected_nanos == pytest.approx(7.2 * DOLLAR, rel=0.03)
    assert made.reached_ms == pytest.approx(now + 160 * HOUR, abs=5 * HOUR)
    assert made.earliest_ms is not None
    assert made.reached_ms is not None
    assert made.latest_ms is not None
    assert now < made.earliest_ms < made.reached_ms < made.latest_ms < end
    assert made.exceeds
    assert made.calls == len(calls) - 1
    modest = foreseen(replace(stands, limit_nanos=50 * DOLLAR), calls, now)
    assert (modest.exceeds, modest.limit_reached_at, modest.latest) == (False, None, None)


def test_a_window_that_just_began_is_foreseen_from_those_before() -> None:
    start = instant(2026, 8, 1)
    made = foreseen(balance(start, start + 31 * DAY), hourly(start - 25 * DAY, start), start + 1)
    assert made.expected_nanos == pytest.approx(7.44 * DOLLAR, rel=0.05)
    assert made.reached_ms is made.latest_ms is None


def test_without_a_window_only_the_limit_is_foreseen() -> None:
    now = BEGIN + 10 * DAY
    stands = balance(BEGIN, None, limit=3 * DOLLAR, spent=240 * DOLLAR // 100)
    made = foreseen(stands, hourly(BEGIN, now), now)
    assert (made.is_known, made.expected, made.until_ms) == (True, None, None)
    assert made.reached_ms == pytest.approx(now + 60 * HOUR, abs=4 * HOUR)
    far = foreseen(replace(stands, limit_nanos=900 * DOLLAR), hourly(BEGIN, now), now)
    assert far.limit_reached_at is None


def test_a_limit_that_is_reached_is_reached_now_even_without_data() -> None:
    now = BEGIN + DAY
    made = foreseen(balance(BEGIN, BEGIN + 30 * DAY, limit=5, spent=6), [], now)
    assert made.reached_ms == made.earliest_ms == made.latest_ms == now
    assert not made.is_known


def test_expired_calls_count_and_voided_open_and_imported_ones_do_not() -> None:
    start = instant(2026, 8, 1)
    now = start + 10 * DAY
    calls = hourly(start - 20 * DAY, now)
    stands = balance(start, start + 30 * DAY)
    plain = foreseen(stands, calls, now)
    mixed = [replace(one, state="expired") if n % 2 else one for n, one in enumerate(calls)]
    assert foreseen(stands, mixed, now) == plain
    odd = record_of(now - HOUR, 900 * DOLLAR)
    others = [
        replace(odd, state="voided", cost_nanos=0),
        replace(odd, state="held", cost_nanos=0, ended_ms=None),
        replace(odd, created_ms=0),
    ]
    assert foreseen(stands, [*calls, *others], now) == plain


def test_calls_under_way_are_part_of_what_is_expected() -> None:
    start = instant(2026, 8, 1)
    now = start + 29 * DAY
    stands = balance(start, start + 30 * DAY, limit=200 * DOLLAR, spent=7 * DOLLAR)
    calls = hourly(start - 20 * DAY, now)
    idle = foreseen(stands, calls, now)
    batch = foreseen(replace(stands, held_nanos=100 * DOLLAR, open_holds=1), calls, now)
    assert batch.expected_nanos == 57 * DOLLAR, "calls have cost half of what was held for them"
    assert batch.high_nanos == 107 * DOLLAR
    assert batch.low_nanos == idle.low_nanos


def test_nights_and_weekends_are_quiet_in_local_time_through_a_change_to_winter_time() -> None:
    # 2026-10-25 has 25 hours in Berlin. People work from 9 to 17 on weekdays, by the clock on the wall.
    days = [datetime(2026, 9, 1, tzinfo=BERLIN).toordinal() + n for n in range(55)]
    calls = []
    for day in days:
        date = datetime.fromordinal(day)
        for quarter in range(32 if date.weekday() < 5 else 0):
            at = instant(date.year, date.month, date.day, 9 + quarter // 4, quarter % 4 * 15, zone=BERLIN)
            calls.append(record_of(at, DOLLAR // 100, len(calls)))
    assert datetime.fromordinal(days[-1]).date().isoformat() == "2026-10-25"
    start, end = instant(2026, 10, 25, zone=BERLIN), instant(2026, 10, 26, zone=BERLIN)
    assert end - start == 25 * HOUR
    sunday = foreseen(
        balance(start, end, duration="daily", timezone="Europe/Berlin"), calls, start + 8 * HOUR
    )
    assert sunday.expected_nanos is not None
    assert sunday.expected_nanos < 0.06 * DOLLAR
    start, end = end, instant(2026, 10, 27, zone=BERLIN)
    monday = balance(start, end, duration="daily", timezone="Europe/Berlin", limit=DOLLAR // 5)
    made = foreseen(monday, calls, start + 4 * HOUR)
    assert made.expected_nanos == pytest.approx(0.32 * DOLLAR, rel=0.15)
    assert made.limit_reached_at is not None
    assert 12 <= made.limit_reached_at.astimezone(BERLIN).hour <= 16


def test_months_of_different_lengths_end_where_they_end() -> None:
    anchor = instant(2026, 1, 31)
    window = window_at("monthly", anchor, "UTC", instant(2026, 2, 10))
    assert window.end == instant(2026, 2, 28)
    window = window_at("monthly", anchor, "UTC", instant(2026, 3, 5))
    calls = hourly(instant(2026, 2, 1), instant(2026, 3, 5))
    spent = sum(one.cost_nanos for one in calls if one.created_ms >= window.start)
    stands = replace(balance(window.start, window.end, spent=spent), created_ms=anchor)
    made = foreseen(stands, calls, instant(2026, 3, 5))
    assert window.end == instant(2026, 3, 31)
    assert made.until_ms == window.end
    assert made.expected_nanos == pytest.approx(31 * 0.24 * DOLLAR, rel=0.03)


def test_the_month_of_a_report_is_that_of_its_zone() -> None:
    now = instant(2026, 3, 31, 23)
    berlin = Month("Europe/Berlin", now)  # where April has begun
    assert berlin.start == instant(2026, 4, 1, zone=BERLIN) == calendar_start("monthly", "Europe/Berlin", now)
    utc = Month("UTC", now)
    for one in hourly(instant(2026, 2, 1), now):
        berlin.add(one)
        utc.add(one)
    assert utc.since <= instant(2026, 2, 1)
    assert utc.spent == (31 * 24 - 1) * DOLLAR // 100
    assert utc.forecast().expected_nanos == pytest.approx(utc.spent + DOLLAR // 100, abs=DOLLAR // 50)
    assert berlin.spent == DOLLAR // 100
    assert berlin.forecast().expected_nanos == pytest.approx(7.2 * DOLLAR, rel=0.05)


def test_history_of_which_older_calls_were_not_read_begins_later() -> None:
    start = instant(2026, 8, 1)
    now, since = start + 10 * DAY, start + 5 * DAY
    stands = balance(start, start + 30 * DAY)
    history = History(stands, now)
    for one in hourly(since - HOUR, now):
        history.add(one)
    history.begin(since)
    made = forecast(stands, history, now)
    assert made.span_ms == 5 * DAY
    assert made.expected_nanos == pytest.approx(4.8 * DOLLAR, rel=0.05)


def test_a_balance_is_compared_sent_and_copied_without_its_forecast() -> None:
    class Maker:
        made: Forecast | None = None

        def make(self, stands: Balance) -> Forecast:
            self.made = Forecast(1, stands.resets_ms, stands.limit_nanos)
            return self.made

    bare = balance(BEGIN, BEGIN + DAY)
    rich = balance(BEGIN, BEGIN + DAY).forecast_by(Maker())
    assert "forecast" not in rich.to_dict()
    assert rich.forecast is rich.forecast
    assert rich.to_dict() == {**bare.to_dict(), "forecast": rich.forecast.to_dict()}
    assert (rich, to_json(rich), repr(rich)) == (bare, to_json(bare), repr(bare))
    for copied in (pickle.loads(pickle.dumps(rich)), copy.copy(rich), replace(rich), bare):
        assert copied == rich
        with pytest.raises(ConfigurationError, match=r"user:1.*guard\.balance"):
            _ = copied.forecast
