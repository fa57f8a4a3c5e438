"""`budgetguard alerts`: each address in a line, without its secrets."""

from __future__ import annotations

from tests.alerts.test_sending import json_url, titles
from tests.server.receivers import receiving

from .helpers import Command

DEAD = "json://user:hunter2@127.0.0.1:9/s3cret"


def test_a_test_goes_to_every_address_of_the_environment(command: Command) -> None:
    with receiving() as receiver:
        done = command("alerts", "test", BUDGETGUARD_ALERTS=json_url(receiver))
        assert (done.code, done.err) == (0, "")
        port = receiver.url.split(":")[2].split("/")[0]
        assert done.out == f"ok      JSON (json://127.0.0.1:{port}/…)\nThe test went to 1 of 1 address.\n"
        assert titles(receiver) == ["budgetguard: test alert"]


def test_what_failed_says_why_and_the_others_are_sent(command: Command) -> None:
    with receiving() as receiver:
        urls = ["--url", DEAD, "--url", "slakc://hunter2/s3cret", "--url", json_url(receiver)]
        done = command("alerts", "test", *urls)
        assert done.code == 1
        lines = done.out.splitlines()
        assert lines[0].startswith("FAILED  JSON (json://127.0.0.1:9/…): A Connection error")
        assert lines[1].startswith(
            "FAILED  slakc://…: apprise knows no service slakc://: did you mean slack://"
        )
        assert lines[2].startswith("ok      JSON (json://127.0.0.1:")
        assert lines[3] == "The test went to 1 of 3 addresses."
        assert len(receiver.taken) == 1
        assert "hunter2" not in done.out + done.err
        assert "s3cret" not in done.out + done.err


def test_an_answer_that_is_an_error_is_a_failure(command: Command) -> None:
    with receiving(404) as receiver:
        done = command("alerts", "test", "--json", "--url", json_url(receiver))
        (one,) = done.object["addresses"]
        assert (done.code, one["ok"]) == (1, False)
        assert "404" in one["problem"]
        assert "a-secret-path" not in done.out


def test_a_list_sends_nothing_and_says_what_is_told(command: Command) -> None:
    with receiving() as receiver:
        environ = {
            "BUDGETGUARD_ALERTS": f"{json_url(receiver)}\nslack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
        }
        done = command(
            "alerts", "list", **environ, BUDGETGUARD_ALERT_ON="80,refused", BUDGETGUARD_ALERT_QUIET="none"
        )
        assert done.code == 0
        assert done.out.splitlines()[1:] == [
            "ok      Slack (slack://…)",
            "Alerts go to 2 of 2 addresses.",
            "Told: 80 %, refused; no quiet period.",
        ]
        assert receiver.came == []


def test_bad_input_is_refused_without_showing_it(command: Command) -> None:
    done = command("alerts", "test")
    assert done.code == 2
    assert "there is no address to send alerts to: set BUDGETGUARD_ALERTS" in done.err
    done = command("alerts", "test", "--url", "hunter2")
    assert done.code == 2
    assert "number 1 has no SCHEME://" in done.err
    assert "hunter2" not in done.err


def test_other_commands_need_no_apprise_for_addresses_that_are_set(command: Command) -> None:
    assert command("create", "ann", "10", BUDGETGUARD_ALERTS="nonsense://hunter2").code == 0
