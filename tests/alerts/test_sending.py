"""Alerts of real guards over real sockets: what arrives where, once, and that no call waits for it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from budgetguard import BudgetExceededError, Guard
from budgetguard.alerts import courier, worker
from budgetguard.alerts.addresses import address_of
from budgetguard.alerts.sending import MOST_QUEUED, Alerts
from budgetguard.engine.background import finish_at_exit
from budgetguard.errors import StoreError
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import MODEL, completion, make_guard
from tests.server.receivers import Receiver, receiving

from .sample_alerts import HOUR, Box, refusal, threshold


def json_url(receiver: Receiver) -> str:
    return f"json{receiver.url.removeprefix('http')}"


def guard_of(clock: FakeClock, **settings: Any) -> Guard:
    """Return a guard whose user has $1 a day, which ten calls of `spend` use up."""
    guard = make_guard(clock=clock, **settings)
    guard.set_budget(1, user="u", duration="daily")
    return guard


def spend(guard: Guard, dollars: str = "0.1", *, user: str = "u") -> bool:
    """Make a call that costs this; return whether it was made."""
    tokens = int(Decimal(dollars) * 10**6)
    try:
        with guard.call(model=MODEL, input_tokens=tokens, max_output_tokens=0, user=user) as call:
            call.settle(completion(tokens, 0))
    except BudgetExceededError:
        return False
    return True


def titles(receiver: Receiver) -> list[str]:
    return [one.event["title"] for one in receiver.taken]


def test_a_threshold_and_a_refusal_are_told_once_in_a_window() -> None:
    with receiving() as receiver:
        clock = FakeClock()
        guard = guard_of(clock, alerts=[json_url(receiver)])
        for number in range(13):
            assert spend(guard) == (number < 10)
            guard.flush()
        assert titles(receiver) == [
            "User 'u' has reached 50 % of its limit (project p)",
            "User 'u' has reached 80 % of its limit (project p)",
            "User 'u' has reached 100 % of its limit (project p)",
            "User 'u' is at its limit, a call was refused (project p)",
        ]
        clock.advance(24 * 3600)
        assert spend(guard)
        assert not spend(guard, "0.95")
        guard.flush()
        assert len(receiver.taken) == 5
        told = receiver.taken[-1].event["message"]
        assert "$0.10 of $1.00 spent, $0.90 left" in told
        assert f"a call to {MODEL} that may cost up to $0.95 was refused" in told
        assert "Not told before: 2 more refusals since 2026-01-01 00:00 UTC" in told


def test_one_call_that_reaches_several_thresholds_is_one_alert_of_the_highest() -> None:
    with receiving() as receiver:
        guard = guard_of(FakeClock(), alerts=[json_url(receiver)])
        spend(guard, "0.9")
        guard.flush()
        assert titles(receiver) == ["User 'u' has reached 80 % of its limit (project p)"]


@pytest.mark.parametrize(
    ("alert_on", "told"),
    [(("refused",), ["refused"]), ((80,), ["80 %"]), ((50, "refused"), ["50 %", "refused"])],
)
def test_only_what_is_asked_for_is_told(alert_on: tuple[str | int, ...], told: list[str]) -> None:
    with receiving() as receiver:
        guard = guard_of(FakeClock(), alerts=[json_url(receiver)], alert_on=alert_on)
        for _ in range(11):
            spend(guard)
        guard.flush()
        assert len(receiver.taken) == len(told)
        assert all(part in title for part, title in zip(told, titles(receiver), strict=True))


def test_what_an_account_reaches_in_a_moment_is_one_alert_of_the_worst() -> None:
    box, clock = Box(), FakeClock()
    guard = guard_of(clock)
    guard.engine.alerts = alerts = Alerts([box], clock=clock)
    entered, leave = threading.Event(), threading.Event()

    def mark(account: str, _mark: int) -> bool:
        entered.set()
        return leave.wait(60)

    alerts.put(threshold(), mark)
    assert entered.wait(60)
    for _ in range(11):
        spend(guard)
    leave.set()
    guard.flush()
    assert box.titles[1:] == ["User 'u' is at its limit, a call was refused (project p)"]
    assert "Not told before: 50 % and 80 % and 100 % reached since" in box.taken[1].text


def test_after_a_reset_within_the_window_a_refusal_is_told_again() -> None:
    with receiving() as receiver:
        clock = FakeClock()
        guard = guard_of(clock, alerts=[json_url(receiver)], alert_on=["refused"], alert_quiet=None)
        for _ in range(2):
            spend(guard, "0.9")
            assert not spend(guard, "0.2")
            assert not spend(guard, "0.2")
            clock.advance(61)
            assert not spend(guard, "0.2")
            guard.flush()
            guard.reset("u")
        assert len(receiver.taken) == 2
        # Two before the reset, and two within the minute for which the store is not asked again.
        assert "Not told before: 4 more refusals since" in receiver.taken[1].event["message"]


@pytest.mark.parametrize(
    ("form", "who"),
    [("", "Who: user 'u', project p"), ("&format=markdown", "- **Who:** `user 'u'`, project `p`")],
)
def test_a_chat_gets_the_format_that_it_shows_at_its_own_path(form: str, who: str) -> None:
    with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        url = f"mmost://127.0.0.1:{port}/abcdefghijklmnopqrstuvwxyz?image=no{form}"
        guard = guard_of(FakeClock(), alerts=[url])
        spend(guard)
        spend(guard, "1")
        guard.flush()
        (came,) = receiver.came
        assert who in came.event["text"]
        assert "is at its limit, a call was refused" in came.event["text"]


class _Mails:
    """What a mail server has taken."""

    def __init__(self) -> None:
        self.came: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.came.append((envelope.rcpt_tos, message))
        return "250 taken"


@contextmanager
def mail_server() -> Iterator[tuple[_Mails, int]]:
    """Run a mail server on a free port."""
    mails = _Mails()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mails, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mails, port
    finally:
        controller.stop()


def test_mail_goes_to_its_receivers_with_the_numbers_in_it() -> None:
    with mail_server() as (mails, port):
        url = f"mailto://127.0.0.1:{port}?from=budgets@example.com&to=ann@example.com,bob@example.com"
        guard = guard_of(FakeClock(), alerts=[url])
        spend(guard, "0.8")
        guard.flush()
        assert sorted(who for rcpt, _ in mails.came for who in rcpt) == ["ann@example.com", "bob@example.com"]
        message = mails.came[0][1]
        assert message["Subject"] == "User 'u' has reached 80 % of its limit (project p)"
        part = message.get_body(("html", "plain"))
        assert part is not None
        assert "$0.80 of $1.00 spent, $0.20 left" in part.get_content()
        assert "<code>user 'u'</code>" in part.get_content()


def test_an_address_that_is_dead_is_given_up_with_one_line_and_delays_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with receiving() as receiver:
        dead = "json://user:hunter2@127.0.0.1:9/s3cret"
        alerts = Alerts(
            [address_of(dead), address_of(json_url(receiver))], clock=FakeClock(), retry=0.01, tries=3
        )
        alerts.put(threshold(80), None)
        receiver.wait_for(1)
        while alerts._couriers[0].left:
            alerts.finish()
        (line,) = [one.getMessage() for one in caplog.records if one.name == "budgetguard"]
        assert "could not be sent to JSON (json://127.0.0.1:9/…) in 3 tries and is given up" in line
        assert "User '1234' has reached 80 % of its limit" in line
        assert "hunter2" not in line
        assert "s3cret" not in line
        assert len(receiver.taken) == 1


def test_what_is_not_taken_is_sent_again_and_in_order() -> None:
    with receiving(500, 503) as receiver:
        alerts = Alerts([address_of(json_url(receiver))], clock=FakeClock(), retry=0.01)
        for percent in (50, 80):
            alerts.put(threshold(percent), None)
            receiver.wait_for(1)
        receiver.wait_for(2)
        assert [one.status for one in receiver.came] == [500, 503, 200, 200]
        assert ["50 %" in titles(receiver)[0], "80 %" in titles(receiver)[1]] == [True, True]


def test_no_call_waits_for_an_address_that_is_stuck_or_fails_with_it() -> None:
    clock, box = FakeClock(), Box()
    guard = guard_of(clock)
    guard.engine.alerts = Alerts([box], clock=clock)
    box.stuck.clear()
    assert [spend(guard) for _ in range(12)] == [True] * 10 + [False] * 2  # or this would never end
    assert box.taken == []
    box.stuck.set()
    guard.flush()
    assert "is at its limit" in " ".join(one.title + one.text for one in box.taken)


def test_an_address_that_raises_whatever_it_likes_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Box):
        def send(self, message: Any) -> str:
            if not self.tries:
                self.tries += 1
                raise SystemExit("a service's own code")
            return super().send(message)

    box = Broken()
    alerts = Alerts([box], clock=FakeClock(), retry=0.01)
    alerts.put(threshold(50), None)
    alerts.finish()
    alerts.put(threshold(80), None)
    assert alerts.finish(30)
    assert [("50 %" in box.titles[0]), ("80 %" in box.titles[1])] == [True, True]
    assert "failed; it goes on" in caplog.text


def test_what_comes_too_fast_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box, entered, leave = Box(), threading.Event(), threading.Event()
    alerts = Alerts([box], clock=FakeClock())

    def mark(account: str, _mark: int) -> bool:
        entered.set()
        return leave.wait(60)

    alerts.put(threshold(account="user:first"), mark)
    assert entered.wait(60)
    for one in range(MOST_QUEUED + 7):
        alerts.put(threshold(account=f"user:{one}"), mark)
    assert not alerts.is_known("my-app", f"user:{MOST_QUEUED}", threshold().mark, threshold().starts, 10**12)
    leave.set()
    assert alerts.finish(60)
    assert "7 alerts came too fast to be told" in caplog.text
    assert any(title == f"{MOST_QUEUED:,} budget alerts: my-app" for title in box.titles)


def test_of_too_many_messages_for_an_address_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    box = Box(problems=["away"] * 3)
    one = courier.Courier(box, retry=60, tries=3)
    box.stuck.clear()
    for number in range(courier.MOST_WAITING + 5):
        one.put(f"alert {number}", courier.Message(str(number), "", ""))
    box.stuck.set()
    wish = one.hurry(60, last=False)
    assert wish is not None
    assert wish.done.wait(60)
    assert one.left == courier.MOST_WAITING
    wish = one.hurry(60, last=False)
    assert wish is not None
    assert wish.done.wait(60)
    (line,) = [each.getMessage() for each in caplog.records]
    assert "alert" in line
    assert f"and {courier.MOST_WAITING + 4} others (away)" in line
    assert one.left == 0


def test_whoever_marks_first_tells() -> None:
    guard, boxes = make_guard(), (Box(), Box())
    for box in boxes:
        alerts = Alerts([box], clock=FakeClock())
        for alert in (threshold(80, account="user:u"), refusal(account="user:u")):
            alerts.put(alert, guard.store.mark)
        assert alerts.finish()
    assert boxes[1].taken == []
    told = " ".join(one.title + one.text for one in boxes[0].taken)
    assert "80 % of its limit" in told
    assert "is at its limit" in told


def test_a_store_that_cannot_say_who_is_first_is_no_reason_to_stay_silent() -> None:
    def mark(account: str, _mark: int) -> bool:
        raise StoreError("away")

    box = Box()
    alerts = Alerts([box], clock=FakeClock())
    alerts.put(refusal(), mark)
    assert alerts.finish()
    assert len(box.taken) == 1


def test_what_the_quiet_period_keeps_back_is_told_when_it_is_over() -> None:
    box, clock = Box(), FakeClock()
    alerts = Alerts([box], clock=clock, quiet=HOUR)
    alerts.put(refusal(at=clock()), None)
    alerts.put(refusal(at=clock() + 60_000, starts=clock() + 60_000), None)
    assert alerts.finish()
    assert len(box.taken) == 1
    clock.advance(3600)
    assert alerts.finish()
    assert len(box.taken) == 2
    assert "(at 2026-01-01 00:01 UTC)" in box.taken[1].text


def test_the_quiet_period_is_one_for_all_processes_on_a_store(tmp_path: Path) -> None:
    store, clock = f"disk://{tmp_path}/store", FakeClock()
    with receiving() as receiver:
        common = {"store": store, "clock": clock, "alerts": [json_url(receiver)], "spool": None}
        # Of other settings, they share nothing but the store.
        one, other = make_guard(alert_quiet="1h", **common), make_guard(alert_quiet="60m", **common)
        assert one.engine.alerts is not other.engine.alerts
        one.set_budget(1, user="u", duration="10m")
        assert not spend(one, "1.1")
        one.flush()
        assert len(receiver.taken) == 1
        clock.advance(600)
        assert spend(other, "0.5")
        assert not spend(other, "1")
        other.flush()
        assert len(receiver.taken) == 1
        clock.advance(3000)
        other.flush()
        assert len(receiver.taken) == 2
        assert "(at 2026-01-01 00:10 UTC)" in receiver.taken[1].event["message"]
        assert "Not told before: 50 % reached" in receiver.taken[1].event["message"]
        assert list(one.projects()) == ["p"]
        for guard in (one, other):
            guard.close()


def test_a_history_that_cannot_be_read_or_written_keeps_nothing_back() -> None:
    class Lost:
        def told_since(self, at: int) -> Any:
            raise StoreError("away")

        def add(self, alert: Any) -> None:
            raise StoreError("away")

        def close(self) -> None:
            pass

    box = Box()
    alerts = Alerts([box], clock=FakeClock(), quiet=HOUR)
    alerts.put(refusal(), None, Lost())
    assert alerts.finish()
    assert len(box.taken) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_nothing_of_its_parents_and_its_own_at_once() -> None:
    with receiving() as receiver:
        box, clock = Box(), FakeClock()
        alerts = Alerts([box, address_of(json_url(receiver))], clock=clock, quiet=HOUR)
        box.stuck.clear()
        alerts.put(threshold(50), None)
        receiver.wait_for(1)
        alerts.put(threshold(30, starts=clock() + 1, resets=clock() + 2), None)  # which is kept back
        child = os.fork()
        if child == 0:
            try:
                empty = alerts.finish(last=True)
                box.stuck.set()
                alerts.put(refusal(account="user:child", who="user 'child'"), None)
                os._exit(0 if empty and alerts.finish(60) and len(box.taken) == 1 else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        box.stuck.set()
        assert alerts.finish(60)
        assert len(box.taken) == 1
        assert [title.split(" (")[0] for title in titles(receiver)] == [
            "User '1234' has reached 50 % of its limit",
            "User 'child' is at its limit, a call was refused",
        ]


def test_at_the_end_of_the_process_what_is_kept_back_is_sent_too() -> None:
    guard_of(FakeClock(), alerts=["json://127.0.0.1:9"])  # which has the end of the process minded
    box, clock = Box(), FakeClock()
    alerts = Alerts([box], clock=clock, quiet=HOUR)
    alerts.put(refusal(), None)
    alerts.put(refusal(at=clock() + 1, starts=clock() + 1), None)
    alerts.finish()
    assert len(box.taken) == 1
    finish_at_exit()
    assert len(box.taken) == 2


def test_what_is_revoked_in_time_is_not_told_and_counts_as_not_seen() -> None:
    box = Box()
    alerts = Alerts([box], clock=FakeClock())
    alert = refusal()
    alerts.put(alert, None, revocable="h1")
    assert alerts.is_known(alert.project, alert.account, alert.mark, alert.starts, alert.spent)
    alerts.revoke("h1")
    alerts.revoke("h2")
    assert not alerts.is_known(alert.project, alert.account, alert.mark, alert.starts, alert.spent)
    assert alerts.finish()
    assert box.taken == []
    alerts.put(alert, None, revocable="h3")
    assert alerts.finish()  # which waits for no doubt
    alerts.revoke("h3")
    assert len(box.taken) == 1


def test_at_the_end_what_cannot_be_sent_in_time_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    box = Box()
    alerts = Alerts([box], clock=FakeClock())
    box.stuck.clear()
    alerts.put(refusal(), None)
    assert not alerts.finish(0.05, last=True)
    assert "the process ends before its alerts were sent to Box (box://…)" in caplog.text
    box.stuck.set()
    assert alerts.finish()


def test_the_thread_ends_when_it_has_nothing_to_do_and_another_takes_what_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_IDLE_S", 0.01)
    box = Box()
    alerts = Alerts([box], clock=FakeClock())
    for percent in (50, 80):
        alerts.put(threshold(percent), None)
        first = alerts._worker._thread
        assert alerts.finish()
        if first is not None:
            first.join(60)
            assert not first.is_alive()
    assert len(box.taken) == 2


def test_nothing_of_it_raises_into_a_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Alerts):
        def put(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("oh")

    clock = FakeClock()
    guard = guard_of(clock)
    guard.engine.alerts = Broken([], clock=clock)
    caplog.set_level(logging.ERROR)
    assert [spend(guard) for _ in range(11)] == [True] * 10 + [False]
    assert "an alert could not be queued" in caplog.text
