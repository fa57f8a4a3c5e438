"""Windows: where budgets begin and end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.process import system_clock
from budgetguard.core.windows import calendar_start, duration_ms, parse_duration, to_datetime, window_at, zone
from budgetguard.errors import ConfigurationError

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # summer time is half an hour
    "Asia/Kathmandu",  # a quarter of an hour off
    "America/Sao_Paulo",  # clocks used to change at midnight
    "Pacific/Apia",  # left out a whole day in 2011
]
DURATIONS = ["30s", "15m", "hourly", "12h", "daily", "7d", "2w", "weekly", "monthly", "3mo", "yearly", "1y"]

instants = st.integers(946_684_800_000, 4_102_444_800_000)  # 2000 to 2100


def at(text: str, timezone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone), fold=fold)
    return round(local.timestamp() * 1000)


def local(instant: int, timezone: str = "UTC") -> str:
    return datetime.fromtimestamp(instant / 1000, ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S")


# Durations


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("hourly", (1, "h")),
        ("daily", (1, "d")),
        ("weekly", (1, "w")),
        ("monthly", (1, "mo")),
        ("yearly", (1, "y")),
        ("30s", (30, "s")),
        ("15m", (15, "m")),
        ("1mo", (1, "mo")),
        ("100y", (100, "y")),
    ],
)
def test_a_duration_is_a_name_or_a_count_and_a_unit(text: str, meaning: tuple[int, str]) -> None:
    assert parse_duration(text) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "", "0d", "-1d", "1.5d", "d", "1 d", "1D", "Daily", "1q", "101y", "999999999d", "1d\n", "٣d", "1_0d",
        7, None, 1.5, True,
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_is_accepted(text: object) -> None:
    with pytest.raises(ConfigurationError, match="use hourly, daily") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


def test_a_duration_has_a_rough_length() -> None:
    assert (duration_ms("90d"), duration_ms("30s")) == (90 * 86_400_000, 30_000)
    assert duration_ms("monthly") * 12 == duration_ms("yearly")


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", "/etc/localtime", "UTC\0", None, 3])
def test_an_unknown_time_zone_is_refused_by_its_name(name: object) -> None:
    with pytest.raises(ConfigurationError, match="unknown time zone"):
        zone(name)


# Every window


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    duration=st.sampled_from(DURATIONS), anchor=instants, instant=instants, timezone=st.sampled_from(ZONES)
)
def test_windows_cover_time_without_gap_or_overlap(
    duration: str, anchor: int, instant: int, timezone: str
) -> None:
    window = window_at(duration, anchor, timezone, instant)
    assert window.end is not None
    assert window.start <= instant < window.end
    assert window_at(duration, anchor, timezone, window.start) == window
    assert window_at(duration, anchor, timezone, window.end - 1) == window
    assert window_at(duration, anchor, timezone, window.end).start == window.end
    assert window_at(duration, anchor, timezone, window.start - 1).end == window.start


@settings(deadline=None, derandomize=True, max_examples=300)
@given(duration=st.sampled_from(DURATIONS), anchor=instants, timezone=st.sampled_from(ZONES))
def test_the_first_window_starts_at_its_anchor_to_the_millisecond(
    duration: str, anchor: int, timezone: str
) -> None:
    assert window_at(duration, anchor, timezone, anchor).start == anchor


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("duration", ["daily", "weekly", "monthly", "yearly"])
def test_a_window_may_start_in_the_hour_that_comes_twice(duration: str, fold: int) -> None:
    anchor = at("2025-10-26 02:30", "Europe/Berlin", fold)
    first = window_at(duration, anchor, "Europe/Berlin", anchor)
    assert first.start == anchor
    assert first.end is not None
    assert local(first.end, "Europe/Berlin").endswith("02:30:00")


def test_of_later_hours_that_come_twice_the_first_counts() -> None:
    anchor = at("2025-10-26 02:30", "Europe/Berlin", fold=1)
    first = at("2031-10-26 02:30", "Europe/Berlin", fold=0)
    assert window_at("yearly", anchor, "Europe/Berlin", first).start == first


def test_a_budget_without_a_duration_has_one_window_without_an_end() -> None:
    assert window_at(None, 5_000, "UTC", 9_000_000).end is None
    assert window_at(None, 5_000, "UTC", 9_000_000).start == 5_000
    assert window_at(None, 5_000, "UTC", 1_000).start == 1_000


@settings(derandomize=True)
@given(anchor=instants, instant=instants, timezone=st.sampled_from(ZONES))
def test_hours_and_less_are_elapsed_time_in_every_zone(anchor: int, instant: int, timezone: str) -> None:
    window = window_at("12h", anchor, timezone, instant)
    assert window.end is not None
    assert window.end - window.start == 12 * 3_600_000
    assert (window.start - anchor) % (12 * 3_600_000) == 0


# Days and longer, on the wall clock


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)],
    ids=["spring", "autumn", "-"],
)
def test_a_day_lasts_from_midnight_to_midnight_when_clocks_change(day: str, hours: int) -> None:
    anchor = at("2026-01-01 00:00", "Europe/Berlin")
    window = window_at("daily", anchor, "Europe/Berlin", at(f"{day} 12:00", "Europe/Berlin"))
    assert local(window.start, "Europe/Berlin") == f"{day} 00:00:00"
    assert window.end == window.start + hours * 3_600_000


def test_a_month_that_begins_on_the_31st_comes_back_to_the_31st() -> None:
    anchor = at("2026-01-31 10:00")
    starts, window = [], window_at("monthly", anchor, "UTC", anchor)
    for _ in range(5):
        starts.append(local(window.start))
        assert window.end is not None
        window = window_at("monthly", anchor, "UTC", window.end)
    assert starts == [
        "2026-01-31 10:00:00",
        "2026-02-28 10:00:00",
        "2026-03-31 10:00:00",
        "2026-04-30 10:00:00",
        "2026-05-31 10:00:00",
    ]


def test_a_year_that_begins_on_a_leap_day_comes_back_to_it() -> None:
    anchor = at("2024-02-29 00:00")
    starts = [
        local(window_at("yearly", anchor, "UTC", at(f"{y}-06-01 00:00")).start) for y in range(2024, 2029)
    ]
    assert [s[:10] for s in starts] == ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]


def test_two_weeks_are_fourteen_days_on_the_same_weekday() -> None:
    anchor = at("2026-03-23 00:00", "America/New_York")
    window = window_at("2w", anchor, "America/New_York", at("2026-04-10 00:00", "America/New_York"))
    assert local(window.start, "America/New_York") == "2026-04-06 00:00:00"


# The calendar


@pytest.mark.parametrize(
    ("duration", "start"),
    [
        ("30s", "2026-08-13 15:42:31"),
        ("15m", "2026-08-13 15:42:00"),
        ("hourly", "2026-08-13 15:00:00"),
        ("daily", "2026-08-13 00:00:00"),
        ("weekly", "2026-08-10 00:00:00"),
        ("monthly", "2026-08-01 00:00:00"),
        ("yearly", "2026-01-01 00:00:00"),
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def test_the_calendar_unit_around_an_instant_starts_on_the_wall_clock(
    duration: str, start: str, timezone: str
) -> None:
    instant = at("2026-08-13 15:42:31", timezone) + 250
    assert local(calendar_start(duration, timezone, instant), timezone) == start


@pytest.mark.parametrize(
    ("timezone", "day"),
    [("Asia/Beirut", "2026-03-29"), ("Africa/Cairo", "2026-04-24"), ("America/Sao_Paulo", "2018-11-04")],
)
def test_a_calendar_window_made_on_a_day_without_midnight_ends_at_midnight_later_on(
    timezone: str, day: str
) -> None:
    noon = at(f"{day} 12:00", timezone)
    for duration in ("daily", "3d"):
        window = window_at(duration, calendar_start(duration, timezone, noon), timezone, noon)
        assert local(window.start, timezone) == f"{day} 01:00:00"
        for _ in range(3):
            assert window.end is not None
            assert local(window.end, timezone).endswith(" 00:00:00")
            window = window_at(duration, calendar_start(duration, timezone, noon), timezone, window.end)


def test_a_calendar_month_that_begins_on_a_day_without_midnight_goes_on_at_midnight() -> None:
    zone, noon = "America/Asuncion", at("2023-10-01 12:00", "America/Asuncion")
    window = window_at("monthly", calendar_start("monthly", zone, noon), zone, noon)
    assert window.end is not None
    assert (local(window.start, zone), local(window.end, zone)) == (
        "2023-10-01 01:00:00",
        "2023-11-01 00:00:00",
    )


@settings(deadline=None, derandomize=True, max_examples=300)
@given(duration=st.sampled_from([None, *DURATIONS]), instant=instants, timezone=st.sampled_from(ZONES))
def test_a_calendar_unit_never_starts_after_the_instant(
    duration: str | None, instant: int, timezone: str
) -> None:
    start = calendar_start(duration, timezone, instant)
    assert start <= instant
    if duration is not None:
        assert calendar_start(duration, timezone, start) == start


# Clocks


def test_the_system_clock_counts_milliseconds_of_this_age() -> None:
    assert abs(to_datetime(system_clock()) - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_instant_that_no_datetime_can_say_is_the_nearest_that_it_can() -> None:
    assert to_datetime(10**15).year == 9_999
    assert to_datetime(2**62) == to_datetime(253_402_300_799_999)
    assert to_datetime(-(2**62)).year == 1
