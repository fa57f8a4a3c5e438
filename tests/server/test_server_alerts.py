"""The service's alerts: of what its clients do, once, also where they have alerts themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Denied, Granted, Hold, Settlement, new_hold
from budgetguard.core.process import system_clock
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.server.options import Options
from budgetguard.stores import open_store
from budgetguard.stores.base import Store
from tests.alerts.test_sending import json_url, spend, titles
from tests.guarded_calls import make_guard

from .receivers import receiving
from .services import running

REACHED = "User 'u' has reached 80 % of its limit (project p)"
REFUSED = "User 'u' is at its limit, a call was refused (project p)"


def client_of(url: str, key: str, **settings: Any) -> Guard:
    """Return a program's guard on a service."""
    return make_guard(url.replace("http://", f"http://{key}@"), spool=None, **settings)


def test_the_service_tells_what_its_clients_reach_and_are_refused() -> None:
    with receiving() as receiver:
        with running("memory://", alerts=(json_url(receiver),)) as service:
            guard = client_of(service.url, service.key())
            assert spend(guard, "0.9")
            receiver.wait_for(1)
            for _ in range(3):
                assert not spend(guard, "0.2")
            guard.close()
        assert titles(receiver) == [REACHED, REFUSED]  # the refusal at the latest as the service ends
        assert (
            "a call to round-model that may cost up to $0.20 was refused" in receiver.came[1].event["message"]
        )


def test_where_clients_have_alerts_as_well_whoever_is_first_tells() -> None:
    with receiving() as receiver:
        with running("memory://", alerts=(json_url(receiver),)) as service:
            guard = client_of(service.url, service.key(), alerts=[json_url(receiver)])
            assert spend(guard, "0.9")
            for _ in range(3):
                assert not spend(guard, "0.2")
            guard.flush()
            guard.close()
        told = " ".join(one.event["title"] + one.event["message"] for one in receiver.taken)
        # One of the two tells of both, or each of one of them; what one tells at once is one message.
        assert told.count("80 % of its limit") + told.count("80 % reached") == 1
        assert told.count("was refused (project p)") == 1


def hold_of(amount: int, ident: str | None = None) -> Hold:
    """Return a hold on user u."""
    charge = Charge("user:u", required=True)
    return new_hold(system_clock(), (charge,), amount=amount, ttl=60_000, user="u", model="m", ident=ident)


def test_a_hold_that_is_granted_for_less_was_not_refused() -> None:
    with receiving() as receiver:
        with running("memory://", alerts=(json_url(receiver),)) as service:
            store: Store = open_store(service.url.replace("http://", f"http://{service.key()}@"), project="p")
            store.set_budget("user:u", Budget(100))
            asked = hold_of(150)
            assert isinstance(store.reserve(asked), Denied)
            assert isinstance(store.reserve(hold_of(100, asked.id)), Granted)
            store.settle(hold_of(100, asked.id), Settlement(60))
            store.close()
        assert titles(receiver) == ["User 'u' has reached 50 % of its limit (project p)"]


@pytest.mark.parametrize("alert_on", [("refused",), (100,)])
def test_the_service_tells_only_what_is_asked_for(alert_on: tuple[str | int, ...]) -> None:
    with receiving() as receiver:
        with running("memory://", alerts=(json_url(receiver),), alert_on=alert_on) as service:
            guard = client_of(service.url, service.key())
            spend(guard, "0.9")
            assert not spend(guard, "0.2")
            guard.close()
        assert titles(receiver) == ([REFUSED] if "refused" in alert_on else [])


def test_the_services_options_are_those_of_the_settings_and_show_no_address() -> None:
    options = Options.from_environment(
        {
            "BUDGETGUARD_ALERTS": "json://user:hunter2@h/s3cret",
            "BUDGETGUARD_ALERT_ON": "80,refused",
            "BUDGETGUARD_ALERT_QUIET": "none",
        }
    )
    assert options.alerts == ("json://user:hunter2@h/s3cret",)
    assert (options.alert_on, options.alert_quiet) == ((80, "refused"), None)
    assert "hunter2" not in repr(options)


def test_no_key_reads_what_was_told(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/b"
    with receiving() as receiver, running(url, alerts=(json_url(receiver),)) as service:
        guard = client_of(service.url, service.key())
        assert spend(guard, "0.9")
        receiver.wait_for(1)
        guard.close()
        with service.client(service.key()) as client:
            assert client.get("/v1/projects/budgetguard%3Aalerts/calls").status_code == 403
        with pytest.raises(ConfigurationError, match="the service's own"):
            service.key("budgetguard:alerts")
