"""What alerts say: who, what, how much, until when, what to do; and that a name does nothing in it."""

from __future__ import annotations

import pytest

from budgetguard.alerts.wording import MOST_TOLD, message_of, sample
from budgetguard.testing.clock import DEFAULT_START

from .sample_alerts import HOUR, refusal, threshold

NOW = DEFAULT_START


def lines(text: str) -> dict[str, str]:
    """Return what stands after each label."""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_a_threshold_says_who_has_spent_how_much_of_what_until_when() -> None:
    message = message_of([threshold(80, held=300_000_000)], NOW)
    assert message.title == "User '1234' has reached 80 % of its limit (project my-app)"
    said = lines(message.text)
    assert said["Who"] == "user '1234', project my-app"
    assert said["What"] == "80 % of the limit is spent"
    assert said["How much"] == "$8.00 of $10.00 spent, $0.30 held for calls under way, $1.70 left"
    assert said["Until"] == "it resets at 2026-02-01 00:00 UTC (in 31 days)"
    assert said["What to do"] == (
        "raise the limit with budgetguard create 1234 LIMIT --project my-app, or wait until it resets"
    )
    assert not message.urgent


def test_a_refusal_says_which_call_and_what_it_may_have_cost() -> None:
    message = message_of([refusal()], NOW)
    assert message.title == "User '1234' is at its limit, a call was refused (project my-app)"
    said = lines(message.text)
    assert said["What"] == "a call to gpt-4o-mini that may cost up to $0.60 was refused; nothing was sent"
    assert said["How much"] == "$9.50 of $10.00 spent, $0.50 left"
    assert message.urgent


def test_of_a_limit_that_is_spent_it_says_that_calls_are_refused_now() -> None:
    message = message_of([threshold(100)], NOW)
    assert "calls that need any are refused" in message.text
    assert message.urgent


def test_the_projects_own_budget_and_whose_call_it_was() -> None:
    alert = refusal(account="project:my-app", who="project 'my-app'", resets=None)
    message = message_of([alert], NOW)
    assert message.title == "Project 'my-app' is at its limit, a call was refused"
    said = lines(message.text)
    assert said["What"].startswith("a call of user '1234' to gpt-4o-mini")
    assert said["Until"] == "it does not reset by itself"
    assert said["What to do"] == (
        "raise the limit with budgetguard create --project-budget LIMIT --project my-app"
    )


def test_what_was_not_told_before_is_a_line() -> None:
    alert = refusal(refusals=2, reached=(50, 80), since=NOW - HOUR)
    assert lines(message_of([alert], NOW).text)["Not told before"] == (
        "2 more refusals, 50 % and 80 % reached since 2025-12-31 23:00 UTC"
    )


def test_what_is_told_late_says_when_it_was_and_does_not_wait_for_what_has_passed() -> None:
    said = lines(message_of([refusal(resets=NOW + 60_000)], NOW + HOUR).text)
    assert said["What"].endswith("nothing was sent (at 2026-01-01 00:00 UTC)")
    assert said["Until"] == "2026-01-01 00:01 UTC, which has passed"
    assert "wait" not in said["What to do"]


def test_a_budget_of_requests_and_one_of_calls_under_way() -> None:
    requests = refusal(unit="requests", limit=60, spent=60, cost=1, resets=NOW + 30_000)
    said = lines(message_of([requests], NOW).text)
    assert said["How much"] == "60 requests of 60 requests used, 0 requests left"
    assert "that may use up to 1 request was refused" in said["What"]
    calls = refusal(unit="concurrent", limit=5, spent=0, held=5, cost=1)
    said = lines(message_of([calls], NOW).text)
    assert (said["How much"], said["Until"]) == ("5 calls under way of 5 at most", "calls under way end")


@pytest.mark.parametrize("name", ["<!channel>", "@everyone", "<@U123>", "a\nb: @here", "\u202egnp.exe"])
def test_a_name_calls_nobody_and_stays_on_its_line(name: str) -> None:
    alert = refusal(user=name, account=f"user:{name}", who=f"user {name!r}", model=name, project=name)
    message = message_of([alert], NOW)
    for text in (message.title, message.text, message.markdown):
        assert "<!" not in text
        assert "<@" not in text
        assert "@everyone" not in text
        assert "@here" not in text
        assert "\u202e" not in text
    assert len(message.text.splitlines()) == len(message_of([refusal()], NOW).text.splitlines())


def test_an_address_of_mail_stays_as_it_is() -> None:
    alert = threshold(user="ann@example.com", account="user:ann@example.com", who="user 'ann@example.com'")
    assert "'ann@example.com'" in message_of([alert], NOW).title


def test_markdown_shows_names_as_they_are() -> None:
    alert = threshold(who="user 'a_b_c`*'", account="user:a_b_c`*")
    assert "- **Who:** `user 'a_b_c'*'`, project `my-app`" in message_of([alert], NOW).markdown


def test_many_at_once_are_one_message_of_the_first_and_a_count() -> None:
    alerts = [threshold(50, account=f"user:{one}", who=f"user '{one}'") for one in range(MOST_TOLD + 3)]
    message = message_of(alerts, NOW)
    assert message.title == f"{MOST_TOLD + 3} budget alerts: my-app"
    assert message.text.count("What to do: ") == MOST_TOLD
    assert "And 3 more alerts." in message.text
    assert f"user '{MOST_TOLD}'" not in message.text
    assert "And 3 more alerts." in message.markdown


def test_the_sample_says_that_nothing_happened() -> None:
    assert "no call was refused" in sample().text
