"""What the service sends to a webhook: each event once, signed, through failures and restarts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Expiry, Hold, HoldRecord, Reservation, Settlement
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.server.events import Events
from budgetguard.server.keys import EVENTS_PROJECT, LEADER_PROJECT
from budgetguard.server.projects import Projects
from budgetguard.server.schedule import Delivery, Lease, Schedule
from budgetguard.server.webhooks import Webhook, sign
from budgetguard.stores import open_store
from budgetguard.stores.base import Store
from budgetguard.testing.clock import DEFAULT_START, FakeClock
from tests.stores import SERVABLE, Row, on

from .litellm_client import LiteLLMClient
from .receivers import SECRET, Receiver, receiving
from .requests_of import hold, to_json
from .services import Service, running
from .test_server_process import free_port, serving, stopped

OTHER_SECRET = SECRET[:-4] + "AAA="
QUICK: dict[str, Any] = {"refresh": 0.05, "retry": 0.01, "lease": 600.0}


def spend(
    client: httpx2.Client, cost: int, account: str = "user:1", thresholds: tuple[int, ...] = ()
) -> dict[str, Any]:
    settlement = to_json(Settlement(cost, thresholds=thresholds))
    body = {"hold": to_json(hold(0, account)), "settlement": settlement}
    answer = client.post("/v1/projects/p/settle", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def budget(service: Service, account: str = "user:1", limit: int = 100) -> None:
    store = service.open()
    store.set_budget(account, Budget(limit))
    store.close()


def thresholds(receiver: Receiver) -> list[tuple[str, int]]:
    events = [one.event for one in receiver.taken]
    return [
        (one["data"]["account"], one["data"]["threshold"])
        for one in events
        if one["type"] == "threshold.crossed"
    ]


def test_a_crossing_is_sent_until_it_is_taken_and_then_no_more(tmp_path: Path) -> None:
    with receiving(503, 500) as receiver:
        hook = Webhook(receiver.url, SECRET)
        with running(f"disk://{tmp_path}/b", webhook=hook, thresholds=(80, 100), **QUICK) as service:
            budget(service)
            with service.client() as client:
                assert spend(client, 79)["crossings"] == []
                spend(client, 1)
                assert receiver.wait_for(1)[0]["data"] | {"balance": None} == {
                    "project": "p",
                    "account": "user:1",
                    "threshold": 80,
                    "balance": None,
                }
                spend(client, 20)
                spend(client, 20)
                receiver.wait_for(2)
        assert thresholds(receiver) == [("user:1", 80), ("user:1", 100)]
        assert [one.status for one in receiver.came] == [503, 500, 200, 200]
        assert len({one.id for one in receiver.came[:3]}) == 1
        assert receiver.came[3].id != receiver.came[0].id
        assert all(one.is_signed_with(SECRET) for one in receiver.came)
        assert not any(one.is_signed_with(OTHER_SECRET) for one in receiver.came)


@pytest.mark.full
@on(SERVABLE)
def test_two_servers_on_one_store_send_each_event_once(row: Row, tmp_path: Path) -> None:
    with row.serve(tmp_path) as place, receiving() as receiver, ExitStack() as stack:
        hook, url = Webhook(receiver.url, SECRET), place.url
        servers = [
            stack.enter_context(running(url, webhook=hook, thresholds=(80, 100), rate="none", **QUICK))
            for _ in range(2)
        ]
        users = [f"user:{number}" for number in range(6)]
        for user in users:
            budget(servers[0], user)

        def send(number: int) -> None:
            with servers[number % 2].client() as client:
                spend(client, 10, users[number // 2 % len(users)])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(2 * len(users) * 5)))
        receiver.wait_for(2 * len(users))
        stack.close()
        assert sorted(thresholds(receiver)) == sorted((user, at) for user in users for at in (80, 100))
        assert len({one.id for one in receiver.came}) == len(receiver.came)
        assert waiting(url) == []


@pytest.mark.full
def test_another_server_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    url, lease = f"disk://{tmp_path}/b", 2.0
    with receiving() as receiver:
        program = (
            "import sys, uvicorn\n"
            "from budgetguard.server.app import create_app\n"
            "from budgetguard.server.options import Options\n"
            "from budgetguard.server.webhooks import Webhook\n"
            "store, hook, secret, lease = sys.argv[1:]\n"
            "options = Options(store, webhook=Webhook(hook, secret), refresh=0.05, lease=float(lease))\n"
            "uvicorn.run(create_app(options), port=0, log_level='error')\n"
        )
        command = [sys.executable, "-c", program, url, receiver.url, SECRET, str(lease)]
        process = subprocess.Popen(command)
        try:
            until(lambda: leader(url) == str(process.pid))
            hook = Webhook(receiver.url, SECRET)
            with running(url, webhook=hook, refresh=0.05, lease=lease, thresholds=(80,)) as service:
                budget(service)
                assert leader(url) == str(process.pid)
                process.kill()
                process.wait()
                with service.client() as client:
                    spend(client, 90)
                receiver.wait_for(1)
                assert leader(url) == str(os.getpid())
            assert thresholds(receiver) == [("user:1", 80)]
        finally:
            process.kill()
            process.wait()


def test_what_was_not_taken_is_sent_by_a_server_that_is_started_later(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/b"
    with receiving() as gone:
        pass
    with running(url, webhook=Webhook(gone.url, SECRET), thresholds=(80,), **QUICK) as service:
        budget(service)
        with service.client() as client:
            spend(client, 90)
    assert len(waiting(url)) == 1
    with receiving() as receiver:
        with running(url, webhook=Webhook(receiver.url, SECRET), **QUICK):
            receiver.wait_for(1)
        assert thresholds(receiver) == [("user:1", 80)]
        assert len(receiver.came) == 1
    assert waiting(url) == []


def test_windows_that_end_and_holds_that_expiry_are_told_though_nobody_asks(tmp_path: Path) -> None:
    url, clock = f"disk://{tmp_path}/b", FakeClock()
    with receiving() as receiver:
        options = {**QUICK, "webhook": Webhook(receiver.url, SECRET)}
        with running(url, clock=clock, **options) as service:
            with service.client() as client:
                terms = {"limit": 100, "duration": "1h", "timezone": "UTC", "starts_at": None}
                made = {"account": "user:1", "budget": terms, "ephemeral": False}
                assert client.put("/v1/projects/p/budget", json=made).status_code == 200
                asked = replace(hold(30), created=clock(), ttl=60_000)
                granted = client.post("/v1/projects/p/reserve", json=to_json(asked))
                assert granted.json()["answer"] == "granted"
            passed(url, clock)
            clock.advance(61)
            expiry = receiver.wait_for(1, "hold.expired")[0]
            assert expiry["data"]["hold"]["hold_id"] == asked.id
            assert expiry["data"]["hold"]["booked"] == 30
            clock.advance(3600)
            started = receiver.wait_for(1, "window.started")[0]
            assert started["data"]["account"] == "user:1"
            assert started["data"]["balance"]["spent_nanos"] == 0
            assert started["data"]["balance"]["resets_ms"] == DEFAULT_START + 2 * 3_600_000
            passed(url, clock)
        with running(url, clock=clock, **options):  # which has told nothing itself
            passed(url, clock)
            clock.advance(3600)
            receiver.wait_for(2, "window.started")
        kinds = [one.event["type"] for one in receiver.came]
        assert kinds == ["hold.expired", "window.started", "window.started"]


def test_windows_that_began_before_there_was_a_webhook_are_not_told(tmp_path: Path) -> None:
    url, clock = f"disk://{tmp_path}/b", FakeClock()
    with receiving() as receiver:
        with running(url, clock=clock) as service:
            service.open().close()
            store = open_store(url, project="p", clock=clock)
            store.set_budget("user:1", Budget(100, "1h"))
            store.close()
            clock.advance(5000)
            service.key("p")
        with running(url, clock=clock, webhook=Webhook(receiver.url, SECRET), **QUICK):
            passed(url, clock)
            passed(url, clock)
        assert receiver.came == []


def test_what_a_litellm_client_spends_crosses_thresholds(tmp_path: Path) -> None:
    with receiving() as receiver:
        hook = Webhook(receiver.url, SECRET)
        with running(f"disk://{tmp_path}/b", webhook=hook, thresholds=(80,), **QUICK) as service:
            one = LiteLLMClient(service.url)
            one.create_budget(10, "u")
            one.update_cost("u", 8.5)
            receiver.wait_for(1)
            one.close()
        assert thresholds(receiver) == [("user:u", 80)]


def test_a_client_hears_of_the_thresholds_that_it_asked_for_and_the_webhook_of_its_own(
    tmp_path: Path,
) -> None:
    with receiving() as receiver:
        hook = Webhook(receiver.url, SECRET)
        with running(f"disk://{tmp_path}/b", webhook=hook, thresholds=(80,), **QUICK) as service:
            budget(service)
            with service.client() as client:
                answer = spend(client, 90, thresholds=(50,))
            assert [one["threshold"] for one in answer["crossings"]] == [50]
            receiver.wait_for(1)
        assert thresholds(receiver) == [("user:1", 80)]


def test_a_threshold_crossed_again_after_a_reset_is_another_event(tmp_path: Path) -> None:
    with receiving() as receiver:
        hook = Webhook(receiver.url, SECRET)
        with running(f"disk://{tmp_path}/b", webhook=hook, thresholds=(80,), **QUICK) as service:
            budget(service)
            with service.client() as client:
                spend(client, 90)
                reset = client.post("/v1/projects/p/reset", json={"account": "user:1"})
                assert reset.status_code == 200
                spend(client, 90)
            receiver.wait_for(2)
        assert thresholds(receiver) == [("user:1", 80)] * 2
        assert len({one.id for one in receiver.came}) == 2


@pytest.mark.full
def test_neither_secrets_nor_keys_nor_the_address_are_logged(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    key, port = "k" * 32, free_port()
    named = ("--webhook-secret-file", str(file), "--refresh", "1")
    with (
        receiving(500) as receiver,
        serving(
            f"disk://{tmp_path}/b", "--webhook", receiver.url, *named, port=port, BUDGETGUARD_API_KEY=key
        ) as process,
    ):
        store = open_store(f"disk://{tmp_path}/b", project="p")
        store.set_budget("user:1", Budget(100))
        store.close()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            spend(client, 60)
        receiver.wait_for(1)
        out = stopped(process)
    assert "did not take event" in out
    for secret in (SECRET, SECRET[6:], key, "a-secret-path"):
        assert secret not in out
    assert all(one.is_signed_with(SECRET) for one in receiver.came)


def test_a_lease_is_one_servers_until_it_falls_silent() -> None:
    clock = FakeClock()
    store = open_store("memory://", project="budgetguard:leader", clock=clock)
    first, second = (Lease(store, clock, name, 30.0, clock) for name in ("first", "second"))
    for _ in range(20):
        assert first.held()
        assert not second.held()
        clock.advance(7)
    clock.advance(30)
    assert second.held()
    assert not first.held()
    second.release()
    clock.advance(10)
    assert first.held()


def test_waits_grow_and_an_event_that_is_refused_alone_holds_up_no_other() -> None:
    clock = FakeClock()
    store = open_store("memory://", project="budgetguard:events", clock=clock)
    events = Events(store, (80,), clock)
    with receiving(503, 503, 503, 400) as receiver:
        delivery = Delivery(events, Webhook(receiver.url, SECRET), 1.0, clock)
        for user in ("user:1", "user:2"):
            account = store.set_budget(user, Budget(100))
            events.crossed("p", user, 80, account)
            clock.advance(0.001)
        tries = []
        for second in range(20):
            delivery.send(lambda: True)
            tries.append(len(receiver.came))
            if second == 6:
                assert [one.status for one in receiver.came] == [503] * 3
            clock.advance(1)
        # After 1, 2 and 4 seconds; then the first is refused, and the second taken at once.
        assert tries[:8] == [1, 2, 2, 3, 3, 3, 3, 5]
        assert [one.status for one in receiver.came] == [503, 503, 503, 400, 200, 200]
        assert thresholds(receiver) == [("user:2", 80), ("user:1", 80)]
        assert list(events.waiting()) == []


def test_what_nobody_takes_for_days_is_dropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    store = open_store("memory://", project="budgetguard:events", clock=clock)
    events = Events(store, (80,), clock)
    events.crossed("p", "user:1", 80, store.set_budget("user:1", Budget(100)))
    ident = next(events.waiting()).id
    clock.advance(3 * 86_400 + 1)
    assert list(events.waiting()) == []
    assert f"event {ident} in 3 days" in caplog.text


class Failing:
    """A store that fails as often as it is told to, and then is the store that it stands before."""

    def __init__(self, store: Store, failures: int) -> None:
        self.store, self.failures = store, failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def reserve(self, hold: Hold) -> Reservation:
        if self.failures:
            self.failures -= 1
            raise StoreError("away")
        return self.store.reserve(hold)


def test_an_event_that_the_store_does_not_take_waits_until_it_does() -> None:
    clock = FakeClock()
    store = open_store("memory://", project="budgetguard:events", clock=clock)
    account = store.set_budget("user:1", Budget(100))
    events = Events(cast(Store, Failing(store, 2)), (80,), clock)
    events.crossed("p", "user:1", 80, account)
    with pytest.raises(StoreError):
        events.save()
    assert list(events.waiting()) == []
    events.save()
    events.save()
    assert len(list(events.waiting())) == 1


def test_a_project_that_cannot_be_read_keeps_no_other_from_being_gone_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    projects = Projects(f"disk://{tmp_path}/b", "90d", clock)
    projects.note()
    for name in ("a", "b"):
        projects.store(name).set_budget("user:1", Budget(100, "1h"))
    asked = replace(hold(30), created=clock(), ttl=60_000)
    projects.store("b").reserve(asked)
    events = Events(projects.own, (), clock)
    found = Projects.store

    def store(self: Projects, project: str) -> Store:
        if project == "a":
            raise StoreError("this one is broken")
        return found(self, project)

    monkeypatch.setattr(Projects, "store", store)
    expiries: list[Expiry] = []
    projects.store("b").on_expiry(expiries.append)
    clock.advance(61)
    Schedule(projects, Lease(projects.leader, clock, "one", 30.0, clock), 60.0, events, ticks=clock).step()
    assert [one.hold_id for one in expiries] == [asked.id]
    assert projects.own.read("service:passed") is None
    projects.close()


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://", SECRET),
        ("http://a:b@example.com/", SECRET),
        ("http://example.com:x/", SECRET),
        ("http://exämple.com/", SECRET),
        ("http://example.com/", "whsec_not base64 at all"),
        ("http://example.com/", "whsec_notbase64atall!"),
    ],
)
def test_a_webhook_that_cannot_work_is_refused(url: str, secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Webhook(url, secret)
    assert secret not in str(refused.value)


def test_a_signature_is_as_its_specification_gives_it() -> None:
    # The example of the Standard Webhooks specification's own libraries.
    body = b'{"test": 2432232314}'
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def leader(url: str) -> str:
    """Return the process that leads, empty for none."""
    store = open_store(url, project=LEADER_PROJECT)
    found = [one.user or "" for one in store.holds()]
    store.close()
    assert len(found) <= 1
    return found[0].rpartition(":")[2] if found else ""


def waiting(url: str) -> list[HoldRecord]:
    store = open_store(url, project=EVENTS_PROJECT)
    found = list(store.holds())
    store.close()
    return found


def passed(url: str, clock: FakeClock) -> None:
    """Return when a pass that begins from now on is over."""
    store, now = open_store(url, project=EVENTS_PROJECT, clock=clock), clock.advance(0.001)

    def over() -> bool:
        found = store.read("service:passed")
        return found is not None and found.starts_ms >= now

    until(over)
    store.close()
