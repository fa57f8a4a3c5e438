"""Addresses of alerts: what is one, what is wrong with others, and that no secret is ever shown."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import budgetguard
from budgetguard import ConfigurationError, Guard
from budgetguard.alerts.addresses import address_of, split_addresses
from budgetguard.alerts.wording import sample
from budgetguard.config import Settings, changed, from_environment
from tests.server.receivers import receiving

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#budgets"
SECRETS = ("T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ", "hunter2", "s3cret")


def output_of(code: str) -> str:
    """Return what a process of its own prints."""
    ran = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    return ran.stdout


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("json://h", ("json://h",)),
        ("json://h/a, slack://x/y/z", ("json://h/a", "slack://x/y/z")),
        ("\njson://h/a\n\n  slack://x/y/z\n", ("json://h/a", "slack://x/y/z")),
        ("mailto://u:p@h?to=a@b.c,d@e.f,json://h", ("mailto://u:p@h?to=a@b.c,d@e.f", "json://h")),
        ("", ()),
    ],
)
def test_addresses_are_separated_by_commas_or_lines_and_may_have_commas(
    text: str, urls: tuple[str, ...]
) -> None:
    assert split_addresses(text) == urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SLACK, "Slack (slack://…)"),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "Discord (discord://…)"),
        (
            "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
            "Slack (https://…)",
        ),
        ("mailto://user:hunter2@example.com:2525?to=a@b.de", "E-Mail (mailto://example.com:2525/…)"),
        ("json://user:hunter2@localhost:8080/s3cret?+X-Key=s3cret", "JSON (json://localhost:8080/…)"),
    ],
)
def test_an_address_shows_its_service_and_no_secret(url: str, shown: str) -> None:
    address = address_of(url)
    assert address.shown == shown
    assert repr(address) == f"<AlertAddress {shown}>"


@pytest.mark.parametrize(
    ("alerts", "text"),
    [
        (["slakc://hunter2/s3cret"], "knows no service slakc://: did you mean slack://"),
        (["qqqqqq://hunter2"], "knows no service qqqqqq://: docs/alerts.md"),
        (["https://example.com/hunter2"], "no service whose webhooks are at this https:// .* write jsons://"),
        (["slack://hunter2"], "the address slack://… is not what apprise expects after slack://"),
        (["hunter2"], "number 1 has no SCHEME://"),
        (["json://localhost", "json://hun ter2"], "number 2 has no SCHEME:// before it, or has spaces"),
        (["json://localhost", 7], "number 2 is no text"),
        ("slack://hunter2/s3cret", "a list of addresses .* not one str"),
        ({"slack": "hunter2"}, "not one dict"),
    ],
)
def test_a_bad_address_is_refused_by_name_and_without_its_secrets(alerts: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as refused:
        Guard(store="memory://", alerts=alerts)
    assert not any(secret in str(refused.value) for secret in SECRETS)
    guard = Guard(store="memory://", alert_quiet="5m")
    with pytest.raises(ConfigurationError, match=text):
        guard.configure(alerts=alerts, alert_quiet="6m")
    assert (guard.settings.alerts, guard.settings.alert_quiet, guard.engine.alerts) == ((), "5m", None)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"alert_on": ["refusals"]}, "'threshold', 'refused' and percentages .* not 'refusals'"),
        ({"alert_on": "refused"}, "a list such as .* not 'refused'"),
        ({"alert_on": [90]}, "90 %, which is never announced: add it to thresholds"),
        ({"alert_on": [True]}, "not True"),
        ({"alert_on": []}, "a list such as .* not \\(\\)"),
        ({"alert_quiet": "soon"}, "soon"),
    ],
)
def test_other_bad_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        changed(Settings(), settings)


def test_settings_never_show_addresses() -> None:
    settings = from_environment({"BUDGETGUARD_ALERTS": f"{SLACK},json://user:hunter2@h/s3cret"})
    assert len(settings.alerts) == 2
    assert "alerts=('slack://…', 'json://…')" in repr(settings)
    assert not any(secret in repr(settings) for secret in SECRETS)


def test_what_apprise_logs_about_a_failure_is_the_answer_and_not_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    address = address_of("json://user:hunter2@127.0.0.1:9/s3cret?+X-Key=s3cret")  # nobody listens there
    problem = address.send(sample())
    assert "onnection" in problem
    assert not any(secret in problem for secret in SECRETS)
    assert not caplog.records


def test_a_reason_that_repeats_the_address_is_shown_without_its_secrets() -> None:
    address = address_of("json://user:hunter2@127.0.0.1:9/s3cret%2Fpath?+X-Key=to%20ken")
    reason = "POST http://user:HUNTER2@127.0.0.1:9/s3cret%2Fpath (s3cret/path, to ken) failed"
    assert address._without_secrets(reason) == "POST http://…:…@127.0.0.1:9/… (…, …) failed"


def test_nor_does_a_log_of_everything_show_where_an_alert_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving() as receiver:
        address = address_of(f"json{receiver.url.removeprefix('http')}")
        assert address.send(sample()) == ""
        assert receiver.came[0].event["title"] == "budgetguard: test alert"
    assert "a-secret-path" not in caplog.text


def test_without_apprise_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["apprise"] = None
import budgetguard
try:
    budgetguard.configure(store="memory://", alerts=["slack://hunter2/s3cret"])
except budgetguard.ConfigurationError as error:
    print(error)
"""
    out = output_of(code)
    assert "alerts need apprise: pip install 'budgetguard-ai[alerts]'" in out
    assert "hunter2" not in out


def test_only_a_program_with_alerts_imports_apprise() -> None:
    code = """
import sys
import budgetguard
budgetguard.configure(store="memory://", thresholds=[50])
budgetguard.default_guard().set_budget(1, user="u")
print([name for name in sys.modules if name.startswith(("apprise", "budgetguard.alerts"))])
"""
    out = output_of(code)
    assert out.strip() == "[]"


def test_guards_with_the_same_alerts_share_what_sends_them() -> None:
    alerts = ["json://localhost:9/a"]
    one, other = (Guard(store="memory://", alerts=alerts) for _ in range(2))
    assert one.engine.alerts is other.engine.alerts is not None
    assert one.in_project("q").engine.alerts is one.engine.alerts
    other.configure(alert_quiet="2h")
    assert one.engine.alerts is not other.engine.alerts
    other.configure(alerts=None)
    assert other.engine.alerts is None
    assert budgetguard.Guard(store="memory://").engine.alerts is None
