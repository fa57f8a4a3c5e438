"""The quiet period: what is told now, what waits for its end, and what becomes a line of the next alert."""

from __future__ import annotations

from budgetguard.alerts.quiet import Quiet
from budgetguard.testing.clock import DEFAULT_START

from .sample_alerts import HOUR, refusal, threshold

NOW = DEFAULT_START
DAY = 24 * HOUR


def test_what_is_worse_is_told_at_once() -> None:
    quiet = Quiet(HOUR)
    for alert in (threshold(50), threshold(80), threshold(100), refusal()):
        assert quiet.take(alert) == alert
    assert quiet.next_due() is None


def test_what_is_less_bad_in_the_same_window_becomes_a_line_of_the_next() -> None:
    quiet = Quiet(HOUR)
    assert quiet.take(refusal()) is not None
    assert quiet.take(threshold(50, at=NOW + 60_000)) is None
    assert quiet.take(threshold(80, at=NOW + 120_000)) is None
    quiet.count_refusal(("my-app", "user:1234"), NOW + 180_000)
    quiet.count_refusal(("my-app", "user:1234"), NOW + 240_000)
    assert quiet.next_due() is None  # none of it is worth an alert of its own
    told = quiet.take(refusal(at=NOW + DAY, starts=NOW + DAY))
    assert told is not None
    assert (told.refusals, told.reached, told.since) == (2, (50, 80), NOW + 60_000)


def test_what_the_next_window_has_is_told_when_the_period_is_over() -> None:
    quiet = Quiet(HOUR)
    quiet.take(refusal())
    late = refusal(at=NOW + 600_000, starts=NOW + 500_000)
    assert quiet.take(late) is None
    assert quiet.next_due() == NOW + HOUR
    assert quiet.due(NOW + HOUR - 1) == []
    quiet.count_refusal(("my-app", "user:1234"), NOW + 700_000)
    (told,) = quiet.due(NOW + HOUR)
    assert (told.at, told.refusals, told.since) == (late.at, 1, NOW + 600_000)
    assert quiet.due(NOW + 9 * HOUR) == []
    # And after that one it is quiet again.
    assert quiet.take(refusal(at=NOW + HOUR + 1, starts=NOW + HOUR)) is None


def test_of_many_short_windows_one_alert_a_period_counts_the_others() -> None:
    quiet, minute = Quiet(HOUR), 60_000
    for one in range(30):
        told = quiet.take(refusal(at=NOW + one * minute, starts=NOW + one * minute))
        assert (told is None) == (one > 0)
    (told,) = quiet.due(NOW + HOUR)
    assert (told.at, told.refusals, told.since) == (NOW + 29 * minute, 28, NOW + minute)


def test_less_bad_news_of_the_next_window_waits_too_and_worse_replaces_it() -> None:
    quiet = Quiet(HOUR)
    quiet.take(refusal())
    assert quiet.take(threshold(50, at=NOW + 1_000, starts=NOW + 900)) is None
    assert quiet.take(threshold(80, at=NOW + 2_000, starts=NOW + 900)) is None
    (told,) = quiet.due(NOW + HOUR)
    assert (told.percent, told.reached) == (80, (50,))


def test_worse_news_takes_what_was_kept_back_along() -> None:
    quiet = Quiet(HOUR)
    quiet.take(threshold(80))
    assert quiet.take(threshold(50, at=NOW + 1_000, starts=NOW + 900)) is None
    told = quiet.take(refusal(at=NOW + 2_000, starts=NOW + 900))
    assert told is not None
    assert told.reached == (50,)
    assert quiet.next_due() is None


def test_each_account_has_its_own_period_but_runs_and_processes_share_one() -> None:
    quiet = Quiet(HOUR)
    assert quiet.take(refusal()) is not None
    assert quiet.take(refusal(account="user:2")) is not None
    assert quiet.take(refusal(project="other")) is not None
    assert quiet.take(refusal(account="run:1")) is not None
    assert quiet.take(refusal(account="run:2", at=NOW + 1)) is None
    assert quiet.take(refusal(account="process:1-a", at=NOW + 1)) is not None


def test_no_period_tells_everything() -> None:
    quiet = Quiet(0)
    assert quiet.take(refusal()) is not None
    assert quiet.take(threshold(50)) is not None


def test_at_the_end_what_was_kept_back_is_told() -> None:
    quiet = Quiet(HOUR)
    quiet.take(refusal())
    quiet.take(refusal(at=NOW + 1, starts=NOW + 1))
    assert len(quiet.rest()) == 1
    assert quiet.rest() == []


def test_at_the_end_what_comes_again_in_the_next_window_is_not_told() -> None:
    quiet = Quiet(HOUR)
    quiet.take(refusal(resets=NOW + 60_000))
    assert quiet.take(refusal(at=NOW + 60_000, starts=NOW + 60_000, resets=NOW + 120_000)) is None
    assert quiet.rest() == []


def test_what_another_process_has_told_counts() -> None:
    quiet = Quiet(HOUR)
    quiet.told(refusal(), NOW)
    assert quiet.take(threshold(80, at=NOW + 1)) is None
    assert quiet.take(refusal(at=NOW + 2, starts=NOW + 2)) is None
    quiet.told(refusal(starts=NOW + 3), NOW + 3)  # so what was kept back is old news
    assert quiet.next_due() is None
    told = quiet.take(refusal(at=NOW + 3 + HOUR, starts=NOW + HOUR))
    assert told is not None
    assert (told.refusals, told.reached) == (1, (80,))
